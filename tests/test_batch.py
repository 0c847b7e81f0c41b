"""Many values at once: every op with one more axis in front is a stack of itself, whatever its record says of it; so are graphs
with branches and loops; and what is built on it: Jacobians of sizes that only a run knows.
"""
import numpy as np
import pytest
from evaluating import real
from test_ops import CASES, arrays_of, dtypes_of, results_of, types_of

import graphc as tf
from graphc.config import options
from graphc.errors import RunError
from graphc.ir.container import detached
from graphc.ir.graph import Graph
from graphc.ir.interpreter import interpret
from graphc.ir.node import input_node, make
from graphc.ir.op import Kind
from graphc.ir.types import TensorType
from graphc.ir.verify import verify
from graphc.passes.batch import batched, in_turn
from graphc.testing import assert_equal_values

ROWS = 3
# What tells sizes or has effects belongs to no row, and each row draws other random numbers; the rest is comparable.
CHOSEN = [c for c in CASES if c.values[1].inputs and "run" not in c.values[0].context
          and not (c.values[0].kind is Kind.HOST and (c.values[0].rule.binds or c.values[0].rule.effect))]


def subsets(op, arrays):
    """Which inputs get the axis: all; each alone."""
    count = len(arrays)
    return dict.fromkeys([(True,) * count, *(tuple(k == only for k in range(count)) for only in range(count))])


def widened_graph(op, sample, types, marks, rows, way):
    inputs = tuple(input_node(f"x{k}", t.with_shape((rows, *t.shape)) if m else t)
                   for k, (t, m) in enumerate(zip(types, marks, strict=True)))
    inner = tuple(input_node("", t) if m else i for t, m, i in zip(types, marks, inputs, strict=True))
    with detached():
        outputs = results_of(make(op, inner, sample.attrs))
        given = {i: n for i, n, m in zip(inner, inputs, marks, strict=True) if m}
        return Graph("rows", inputs, tuple(way(outputs, given, rows)), (), ())


def at_once(outputs, given, rows):
    return batched(outputs, given, rows, lambda body: body)


@pytest.mark.parametrize(("op", "sample"), CHOSEN)
def test_an_op_with_one_more_axis_is_a_stack_of_itself(op, sample):
    dtype = dtypes_of(op, sample)[0]
    arrays = arrays_of(sample, dtype)
    others = [arrays_of(sample, dtype, seed=k) for k in range(ROWS)]
    for marks in subsets(op, arrays):
        given = [np.stack([o[k] for o in others]) if m else a for k, (a, m) in enumerate(zip(arrays, marks, strict=True))]
        graph = widened_graph(op, sample, types_of(arrays), marks, ROWS, at_once)
        verify(graph)
        single = Graph("row", inner := tuple(input_node("", t) for t in types_of(arrays)),
                       results_of(make(op, inner, sample.attrs)))
        try:
            rows = [interpret(single, [o[k] if m else a for k, (a, m) in enumerate(zip(arrays, marks, strict=True))])
                    for o in others]
        except RunError:
            continue
        for got, want in zip(interpret(graph, given), zip(*rows, strict=True), strict=True):
            want = np.stack(want)
            assert got.shape == want.shape
            assert_equal_values(got, want, ulp=64 if got.dtype.kind == "f" else 0)


# Jacobians ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["cpu", "numpy"])
def device(request, monkeypatch):
    monkeypatch.setattr(options, "device", request.param)
    with tf.Graph().as_default():
        yield


def assert_jacobian(function, *sizes, seed=0):
    """At once equals in turn, and both equal a gradient for each element, for a vector of a size that only a run knows."""
    x = tf.placeholder(tf.float64, [None])
    y = function(x)
    at_once, one_by_one = tf.jacobian(y, x), tf.jacobian(y, x, use_pfor=False)
    second = tf.hessian(tf.reduce_sum(y * y), x)
    place = tf.placeholder(tf.int32, [])
    slope, = tf.gradients(tf.reshape(y, [-1])[place], x)
    bend, = tf.gradients(tf.gradients(tf.reduce_sum(y * y), x)[0][place], x)
    with tf.Session() as session:
        for size in sizes:
            fed = {x: real(size, seed=seed)}
            found, other, twice, value = session.run([at_once, one_by_one, second, y], fed)
            assert found.shape == other.shape == (*value.shape, size) and twice.shape == (size, size)
            assert np.allclose(found, other, rtol=1e-12, atol=1e-12)
            rows = [session.run(slope, {**fed, place: k}) for k in range(value.size)]
            assert np.allclose(found, np.reshape(rows, found.shape), rtol=1e-12, atol=1e-12)
            rows = [session.run(bend, {**fed, place: k}) for k in range(size)]
            assert np.allclose(twice, np.reshape(rows, twice.shape), rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("device")
def test_jacobian_of_arithmetic_of_an_unknown_size():
    w = tf.constant(real(3, 4))
    assert_jacobian(lambda x: tf.nn.softmax(tf.matmul(tf.tanh(tf.reshape(x, [-1, 3])), w)), 3, 6, 0)


@pytest.mark.usefixtures("device")
def test_jacobian_through_branches_and_loops():
    def looped(x):
        _, total = tf.while_loop(lambda k, t: k < 3, lambda k, t: [k + 1, tf.sin(t) * x], [0, x + 1.0])
        rows = tf.scan(lambda t, row: tf.tanh(t * row) + total[0], x, tf.constant(0.5, tf.float64))
        return tf.cond(rows[0] > 5.0, lambda: rows, lambda: rows * tf.reduce_sum(x) + total)
    assert_jacobian(looped, 1, 4)


@pytest.mark.usefixtures("device")
def test_jacobian_through_convolution_gather_and_order():
    kernel = tf.constant(real(3, 3, 1, 2))

    def mixed(x):
        images = tf.reshape(x, [-1, 4, 4, 1])
        y = tf.nn.max_pool(tf.nn.conv2d(images, kernel, [1, 2, 2, 1], "SAME"), [1, 2, 2, 1], [1, 1, 1, 1], "SAME")
        flat = tf.reshape(y, [-1])
        best, _ = tf.nn.top_k(flat, 3)
        largest = tf.segment_max(tf.gather(flat, [1, 0, 2]), [0, 0, 1])
        return tf.concat([tf.gather(tf.cumsum(flat), [3, 0, 3]) * best, largest], 0)
    assert_jacobian(mixed, 16, 32)


@pytest.mark.usefixtures("device")
def test_jacobian_through_gradients_of_the_user_s_own_and_what_is_computed_again():
    @tf.custom_gradient
    def clipped(x):
        return x * 2.0, lambda dy: tf.minimum(dy, 0.5) * x

    def f(x):
        return tf.recompute_grad(lambda v: tf.exp(tf.sin(v)) * v)(clipped(x))
    x = tf.constant(real(3))
    y = f(x)
    found, other = tf.jacobian(y, x), tf.jacobian(y, x, use_pfor=False)
    with tf.Session() as session:
        found, other = session.run([found, other])
    assert np.allclose(found, other) and np.count_nonzero(found) == 3


@pytest.mark.usefixtures("device")
def test_jacobian_of_linear_algebra_and_of_a_function_without_a_rule():
    def solved(x):
        matrix = tf.reshape(x, [3, 3]) + 4.0 * tf.eye(3, dtype=tf.float64)
        return tf.reshape(tf.matrix_inverse(matrix), [-1]) * tf.matrix_determinant(matrix)
    assert_jacobian(solved, 9)


def test_in_turn_keeps_what_no_row_changes_outside():
    x, dy = input_node("x", TensorType(tf.float32, (3,))), input_node("dy", TensorType(tf.float32, (2, 3)))
    seed = input_node("", x.type)
    with detached():
        fixed = tf.exp(x)
        outputs = in_turn([fixed * seed, fixed, seed], {seed: dy}, 2)
    body = outputs[0].inputs[0].attrs["body"]
    assert "exp" not in {n.op.name for n in body.nodes()}
    values = real(3).astype(np.float32), real(2, 3, seed=1).astype(np.float32)
    product, same, given = interpret(Graph("rows", (x, dy), tuple(outputs)), values)
    assert np.allclose(product, np.exp(values[0]) * values[1]) and np.array_equal(given, values[1])
    assert np.allclose(same, [np.exp(values[0])] * 2)
