"""Derivatives beyond plain gradients: arguments of `gradients`, Jacobians, Hessians, products with vectors, gradients of the
user's own, and what is computed again.
"""
import math

import numpy as np
import pytest
from evaluating import real, run

import graphc as tf
from graphc.config import options
from graphc.testing import check_gradients

pytestmark = pytest.mark.usefixtures("device", "fresh_graph")


# arguments of gradients --------------------------------------------------------------------------------------------------


def test_stop_gradients_gives_partial_derivatives():
    a = tf.constant(3.0)
    b = 2 * a
    total = a + b
    assert run(tf.gradients(total, [a, b])) == [3, 1]
    assert run(tf.gradients(total, [a, b], stop_gradients=[a, b])) == [1, 1]
    assert run(tf.gradients(total, a, stop_gradients=b)) == [1]
    assert tf.gradients(b * b, a, stop_gradients=[b]) == [None]


def test_stop_gradients_of_a_variable_and_of_second_order():
    v = tf.Variable(3.0)
    x = tf.constant(2.0)
    y = x * x * x * v
    slope, = tf.gradients(y * v, x, stop_gradients=[v])
    assert run(slope) == 3 * 4 * 9
    assert run(tf.gradients(slope, x)) == [6 * 2 * 9]
    assert tf.gradients(y, v, stop_gradients=[y]) == [None]


def test_unconnected_gradients():
    x, k = tf.placeholder(tf.float32, [None, 2]), tf.constant([1, 2])
    y = tf.constant(1.0) * 2
    assert tf.gradients(y, [x, k]) == [None, None]
    found = run(tf.gradients(y, [x, k], unconnected_gradients=tf.UnconnectedGradients.ZERO), {x: np.ones((3, 2))})
    assert found[0].tolist() == [[0, 0]] * 3 and found[1].tolist() == [0, 0] and found[1].dtype == np.int32
    with pytest.raises(tf.errors.ArgumentError, match="'none' or 'zero', not 'zeros'"):
        tf.gradients(y, x, unconnected_gradients="zeros")
    with pytest.raises(tf.errors.ArgumentError, match="'abc' is not a tensor"):
        tf.gradients(y, x, stop_gradients=["abc"])


def test_tensorflow_s_other_arguments_are_taken():
    x = tf.constant(3.0)
    found = tf.gradients([x * x], [x], [2.0], "g", True, False, tf.AggregationMethod.ADD_N, None, "none")
    assert run(found) == [12]


# Jacobians and Hessians --------------------------------------------------------------------------------------------------


def bent(x, w):
    return tf.tanh(tf.matmul(x, w)) * tf.reduce_sum(x)


def test_jacobian_against_differences():
    x_value, w_value = real(2, 3), real(3, 2, seed=1)
    x, w = tf.placeholder(tf.float64, [2, 3]), tf.constant(w_value)
    y = bent(x, w)
    by_x, by_w, none = tf.jacobian(y, [x, w, tf.constant(1.0)])
    assert none is None and by_x.shape == (2, 2, 2, 3) and by_w.shape == (2, 2, 3, 2)
    with tf.Session() as session:
        found, at = session.run([by_x, y], {x: x_value})
        for index in np.ndindex(2, 3):
            ends = []
            for step in (1e-5, -1e-5):
                moved = x_value.copy()
                moved[index] += step
                ends.append(session.run(y, {x: moved}))
            assert np.allclose(found[(..., *index)], (ends[0] - ends[1]) / 2e-5, rtol=1e-7, atol=1e-8)
        assert at.shape == (2, 2)


def test_jacobian_of_a_scalar_and_of_nothing():
    x = tf.constant([1.0, 2.0])
    assert run(tf.jacobian(tf.reduce_sum(x * x), x)).tolist() == [2, 4]
    assert tf.jacobian(tf.placeholder(tf.float32, [None]) * 2, x) is None
    assert run(tf.jacobian(x[:0] * 2, x)).shape == (0, 2)
    with pytest.raises(tf.errors.ArgumentError, match="'x' is not a tensor"):
        tf.jacobian(x, "x")


@pytest.mark.parametrize("rows", [1, 3, 0])
def test_batch_jacobian(rows):
    w = real(3, 2)
    x = tf.placeholder(tf.float64, [None, 3])
    y = tf.sin(tf.matmul(x, tf.constant(w)))
    fed = real(rows, 3, seed=1)
    found = run(tf.batch_jacobian(y, x), {x: fed})
    assert found.shape == (rows, 2, 3)
    assert np.allclose(found, np.cos(fed @ w)[:, :, None] * w.T)
    assert tf.batch_jacobian(tf.constant([[1.0]]) * 2, x) is None
    with pytest.raises(tf.errors.ShapeError, match="no first axis"):
        tf.batch_jacobian(tf.reduce_sum(y), x)


def test_hessians():
    a = np.array([[2.0, 1, 0], [1, 3, 0.5], [0, 0.5, 1]])
    x, z = tf.constant([1.0, -2.0, 3.0], tf.float64), tf.constant(2.0, tf.float64)
    form = tf.reduce_sum(x * tf.reshape(tf.matmul(tf.constant(a), tf.reshape(x, [3, 1])), [3])) * z * z * z
    by_x, by_z, none = tf.hessians(form, [x, z, tf.constant(1.0)])
    assert none is None and by_x.shape == (3, 3) and by_z.shape == ()
    found_x, found_z, value = run([by_x, by_z, form])
    assert np.allclose(found_x, (a + a.T) * 8) and np.isclose(found_z, value / 8 * 6 * 2)
    assert run(tf.hessian(tf.reduce_sum(2 * x), x)).tolist() == np.zeros((3, 3)).tolist()
    m = tf.constant(real(2, 2))
    fourth = run(tf.hessian(tf.reduce_sum(m * m * m), m))
    assert fourth.shape == (2, 2, 2, 2)
    assert np.allclose(fourth.reshape(4, 4), np.diag(6 * real(2, 2).ravel()))


def test_products_with_vectors_equal_the_matrices():
    x_value, w_value = real(2, 3), real(3, 2, seed=1)
    x, w = tf.constant(x_value), tf.Variable(w_value)
    y = bent(x, w)
    loss = tf.reduce_sum(y * y)
    dx, dw = tf.constant(real(2, 3, seed=2)), tf.constant(real(3, 2, seed=3))
    one, both = tf.jacobian_vector_product(y, x, dx), tf.jacobian_vector_product([y, loss], [x, w], [dx, dw])
    by_x, by_w, second = tf.jacobian(y, x), tf.jacobian(y, w), tf.hessian(loss, w)
    product, = tf.hessian_vector_product(loss, w, dw)
    slopes = tf.gradients(loss, [x, w])
    values = run([one, both, by_x, by_w, second, product, slopes, dx, dw])
    one, both, by_x, by_w, second, product, slopes, dx, dw = values
    want = np.einsum("abcd,cd->ab", by_x, dx)
    assert np.allclose(one, want)
    assert np.allclose(both[0], want + np.einsum("abcd,cd->ab", by_w, dw))
    assert np.isclose(both[1], np.sum(slopes[0] * dx) + np.sum(slopes[1] * dw))
    assert np.allclose(product, np.einsum("abcd,cd->ab", second, dw))


def test_products_without_a_way():
    x = tf.constant([1.0, 2.0])
    assert tf.jacobian_vector_product(tf.constant(1.0), x, x) is None
    assert tf.jacobian_vector_product([tf.constant(1.0)], x, x) == [None]
    assert tf.hessian_vector_product(tf.constant(1.0), x, x) == [None]
    with pytest.raises(tf.errors.ArgumentError, match="1 tangents for 2 xs"):
        tf.jacobian_vector_product(x, [x, x], [x])
    with pytest.raises(tf.errors.ArgumentError, match="2 vectors for 1 xs"):
        tf.hessian_vector_product(x, x, [x, x])


def test_forward_mode_of_infinite_slopes_is_not_nan():
    x = tf.constant([0.0, 4.0])
    assert run(tf.jacobian_vector_product(tf.sqrt(x), x, [0.5, 1.0])).tolist() == [math.inf, 0.25]


# gradients of the user's own ---------------------------------------------------------------------------------------------


@tf.custom_gradient
def softplus(x):
    e = tf.exp(x)

    def grad(dy):
        return dy * (1 - 1 / (1 + e))
    return tf.log(1 + e), grad


def test_custom_gradient_of_first_to_third_order():
    x = tf.placeholder(tf.float64, [None])
    y = softplus(x) * 2
    first, = tf.gradients(y, x)
    second, = tf.gradients(first, x)
    third, = tf.gradients(second, x)
    values = run([y, first, second, third], {x: [0.0, 1.0, -2.0, 800.0]})
    p = 1 / (1 + np.exp(-np.array([0.0, 1.0, -2.0])))
    for found, want in zip(values, [2 * np.logaddexp(0, [0, 1, -2]), 2 * p, 2 * p * (1 - p),
                                    2 * p * (1 - p) * (1 - 2 * p)], strict=True):
        assert np.allclose(found[:3], want)
    assert values[1][3] == 2                                         # where the plain gradient is NaN


def test_custom_gradient_is_not_the_true_one_and_stays_with_its_arguments():
    scale = tf.constant(7.0)

    @tf.custom_gradient
    def double(x, y):
        """Doc."""
        return (x * 2 * scale, x * y), lambda dx, dy: (dx + 100 * dy, None)
    assert double.__doc__ == "Doc."
    x, y = tf.constant(3.0), tf.constant(5.0)
    a, b = double(x, y)
    assert tf.gradients(a, [y, scale]) == [None, None]               # nothing flows through what it only uses
    by_x, = tf.gradients([a, b], x)
    assert run([a, b, by_x, tf.gradients(b, x)[0]]) == [42, 15, 101, 100]


def test_custom_gradient_with_variables():
    v = tf.Variable([2.0, 3.0], name="v")

    @tf.custom_gradient
    def layer(x):
        y = x * v * v

        def grad(dy, variables=None):
            assert variables == [v]
            return dy * v * v, [10 * dy * variables[0]]
        return y, grad
    x = tf.constant([1.0, 4.0])
    y = layer(x)
    by_x, by_v = tf.gradients(y, [x, v])
    assert [a.tolist() for a in run([y, by_x, by_v])] == [[4, 36], [4, 9], [20, 30]]
    train = tf.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_sum(y))
    with tf.Session() as session:
        session.run(v.initializer)
        session.run(train)
        assert np.allclose(session.run(v), [0, 0])


def test_custom_gradient_inside_loops_and_branches():
    x = tf.placeholder(tf.float32, [])

    @tf.custom_gradient
    def strange(x):
        return x * x, lambda dy: dy * 100
    y = tf.cond(x > 0, lambda: strange(x), lambda: x)
    assert run([y, tf.gradients(y, x)[0]], {x: 2}) == [4, 100]
    z = tf.while_loop(lambda k, z: k < 3, lambda k, z: (k + 1, strange(z)), [0, x])[1]
    assert run([z, tf.gradients(z, x)[0]], {x: 2}) == [256, 1e6]


def test_custom_gradient_says_what_is_wrong():
    x, v = tf.constant([1.0, 2.0]), tf.Variable([1.0, 2.0], name="v")
    cases = [
        (lambda x: x * 2, tf.errors.ArgumentError, "must return its results and a gradient function"),
        (lambda x: (x * 2, lambda dy: (dy, dy)), tf.errors.ArgumentError, "gives 2 gradients for 1 arguments"),
        (lambda x: (x * 2, lambda dy: tf.reduce_sum(dy)), tf.errors.ShapeError, "another shape than its argument"),
        (lambda x: (x * 2, lambda dy: tf.cast(dy, tf.float64)), tf.errors.DTypeError, "f64 != f32"),
        (lambda x: (x * v, lambda dy: dy), tf.errors.ArgumentError, "must take `variables`"),
        (lambda x: (x * v, lambda dy, variables: dy), tf.errors.ArgumentError, "gradients by the arguments, gradients by the"),
        (lambda x: (x * v, lambda dy, variables: (dy, [])), tf.errors.ArgumentError, "gives 0 gradients for 1 variables"),
        (lambda x: (x * 2, lambda dy: v.assign_add(dy)), tf.errors.GraphError, "changes variables"),
    ]
    for function, error, text in cases:
        with pytest.raises(error, match=text):
            tf.custom_gradient(function)(x)
    with pytest.raises(tf.errors.ArgumentError, match="must be a function"):
        tf.custom_gradient(x)


def test_grad_pass_through():
    x = tf.constant([0.4, 1.6, -2.5])
    y = tf.grad_pass_through(tf.round)(x * 2)
    assert [a.tolist() for a in run([y, tf.gradients(y * y, x)[0]])] == [[1, 3, -5], [4, 12, -20]]
    check_gradients(lambda t: tf.grad_pass_through(tf.identity)(t) * t, np.array([1.0, 2.0]))


# computed again ----------------------------------------------------------------------------------------------------------


def network(wrap, layers=8, width=32, rows=512):
    """(feed, loss, gradients, feeds, variables) of a deep net whose blocks of two layers `wrap` wraps."""
    weights = [tf.Variable(real(width, width, seed=k).astype(np.float32) / 6, name="w") for k in range(layers)]

    def block(k):
        return lambda x: tf.tanh(tf.matmul(tf.tanh(tf.matmul(x, weights[k])), weights[k + 1]))
    x = tf.placeholder(tf.float32, [None, width])
    h = x
    for k in range(0, layers, 2):
        h = wrap(block(k))(h)
    loss = tf.reduce_sum(h * h)
    return x, loss, weights, real(rows, width, seed=99)


@pytest.mark.parametrize("goal", ["gradients", "train"])
def test_recomputing_takes_less_memory_and_gives_the_same(goal):
    found, memory = [], []
    for wrap in (lambda f: f, tf.recompute_grad):
        with tf.Graph().as_default():
            x, loss, weights, fed = network(wrap)
            fetches = [loss, *tf.gradients(loss, [*weights, x])] if goal == "gradients" else \
                [loss, tf.train.GradientDescentOptimizer(1e-3).minimize(loss)]
            with tf.Session() as session:
                session.run(tf.global_variables_initializer())
                values = session.run(fetches, {x: fed})
                found.append(values if goal == "gradients" else [session.run(loss, {x: fed}), *session.run(weights)])
                if options.device == "cpu":
                    program = max((c.program for c in session._compiled.values()), key=lambda p: len(p.records))
                    memory.append(program.memory.bytes(N=512))
    for a, b in zip(*found, strict=True):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-5)
    if memory:
        assert memory[1] < 0.7 * memory[0], memory


def test_recomputing_functions_with_variables_random_numbers_and_several_results():
    tf.set_random_seed(3)

    @tf.recompute_grad
    def layer(x, y):
        w = tf.get_variable("w", [3], tf.float64, tf.ones_initializer())
        noise = tf.random_uniform([3], dtype=tf.float64, seed=1)
        return {"a": tf.sin(x * w) * noise, "b": y * y, "n": tf.constant(1)}
    x, y = tf.constant(real(3)), tf.constant(2.0, tf.float64)
    found = layer(x, y)
    w, = tf.trainable_variables()
    total = tf.reduce_sum(found["a"]) + found["b"]
    slopes = tf.gradients(total, [x, y, w])
    second, = tf.gradients(slopes[0], x)
    a, n, slopes, second = run([found["a"], found["n"], slopes, second])
    noise = a / np.sin(real(3))
    assert n == 1 and np.allclose(slopes[0], np.cos(real(3)) * noise) and slopes[1] == 4
    assert np.allclose(slopes[2], real(3) * np.cos(real(3)) * noise) and np.allclose(second, -np.sin(real(3)) * noise)


def test_recomputing_stands_other_tests():
    check_gradients(tf.recompute_grad(lambda x: tf.exp(tf.sin(x)) * x), real(2, 3), order=3)
    check_gradients(tf.recompute_grad(lambda x, y: tf.matmul(x, y)), real(2, 3), real(3, 2))
