"""Sizes that tensors say when the graph runs: every function that takes a shape, compiled and interpreted, equals NumPy."""
import numpy as np
import pytest

import graphc as tf
from graphc.errors import RunError, ShapeError

pytestmark = pytest.mark.usefixtures("fresh_graph")


X = np.arange(24, dtype=np.float32).reshape(4, 6)


def feeds(*arrays):
    """Placeholders for arrays: sizes of floats are named, those of integers are not."""
    return [tf.placeholder(a.dtype, a.shape if a.dtype.kind == "i" else [None] * a.ndim) for a in map(np.asarray, arrays)]


def number(value, dtype=np.int32):
    return np.array(value, dtype)


def flip(x):
    return x[::-1]


# name, graph function, NumPy function, lists of fed values that one program must run on
CASES = [
    ("reshape", tf.reshape, np.reshape,
     [(X, number([3, 8])), (X, number([-1, 2])), (X, number([24, 1])), (X[:2], number([6, -1]))]),
    ("reshape list", lambda x, n: tf.reshape(x, [n, -1]), lambda x, n: x.reshape(n, -1), [(X, number(3)), (X, number(24))]),
    ("reshape partly known", lambda x, n: tf.reshape(x, tf.stack([tf.shape(x)[0], n, -1])),
     lambda x, n: x.reshape(len(x), n, 6 // n), [(X, number(3)), (X[:0], number(2)), (X[:3], number(1))]),
    ("zeros", lambda s: tf.zeros(s), lambda s: np.zeros(s, np.float32), [(number([2, 3]),), (number([0, 4]),)]),
    ("ones", lambda n, m: tf.ones([n, 3, m + 1], tf.int32), lambda n, m: np.ones((n, 3, m + 1), np.int32),
     [(number(2), number(4)), (number(0), number(0))]),
    ("fill", lambda s: tf.fill(s, 7), lambda s: np.full(s, 7, np.int32), [(number([2, 3]),), (number([1, 0]),)]),
    ("range", lambda n: tf.range(n), lambda n: np.arange(n), [(number(5),), (number(0),), (number(1),)]),
    ("range from to", lambda a, b, c: tf.range(a, b, c), np.arange,
     [(number(2), number(11), number(3)), (number(5), number(-2), number(-2)), (number(5), number(2), number(1)),
      (number(-3), number(3), number(6))]),
    ("range of floats", lambda a, b: tf.range(a, b, 0.5), lambda a, b: np.arange(a, b, 0.5, np.float32),
     [(np.float32(0), np.float32(2)), (np.float32(1), np.float32(2.2)), (np.float32(1), np.float32(0))]),
    ("linspace", lambda n: tf.linspace(1.0, 3.0, n), lambda n: np.linspace(1, 3, n, dtype=np.float32),
     [(number(5),), (number(1),), (number(2),)]),
    ("tile", tf.tile, np.tile, [(X, number([2, 3])), (X[:1], number([1, 1])), (X, number([0, 2]))]),
    ("broadcast_to", lambda s: tf.broadcast_to(tf.constant(X[:1]), s), lambda s: np.broadcast_to(X[:1], s),
     [(number([5, 6]),), (number([0, 6]),)]),
    ("slice", tf.slice, lambda x, b, s: x[b[0]:(b[0] + s[0] if s[0] >= 0 else None), b[1]:(b[1] + s[1] if s[1] >= 0 else None)],
     [(X, number([1, 2]), number([2, 3])), (X, number([0, 0]), number([-1, -1])), (X, number([4, 5]), number([0, 1]))]),
    ("slice of a begin", lambda x, b: tf.slice(x, [0, b], [-1, 2]), lambda x, b: x[:, b:b + 2],
     [(X, number(3)), (X, number(0))]),
    ("strided_slice", lambda x, b, e: tf.strided_slice(x, b, e, [1, 2]), lambda x, b, e: x[b[0]:e[0], b[1]:e[1]:2],
     [(X, number([1, 0]), number([3, 6])), (X, number([-2, 1]), number([-1, -1])), (X, number([3, 5]), number([9, 2]))]),
    ("x[i]", lambda x, i: x[i], lambda x, i: x[i], [(X, number(2)), (X, number(0))]),
    ("x[i, j]", lambda x, i, j: x[i, j], lambda x, i, j: x[i, j], [(X, number(2), number(5))]),
    ("x[i, a:b]", lambda x, i, a: x[i, a:], lambda x, i, a: x[i, a:], [(X, number(2), number(3)), (X, number(1), number(-1))]),
    ("x[a:b]", lambda x, a, b: x[a:b], lambda x, a, b: x[a:b],
     [(X, number(1), number(3)), (X, number(-3), number(-1)), (X, number(3), number(1)), (X, number(-9), number(9))]),
    ("x[a:b:-1]", lambda x, a, b: x[:, a:b:-2], lambda x, a, b: x[:, a:b:-2],
     [(X, number(5), number(0)), (X, number(-1), number(-9)), (X, number(0), number(3)), (X, number(9), number(1))]),
    ("x[:n]", lambda x, n: x[:n], lambda x, n: x[:n], [(X, number(2)), (X, number(7)), (X, number(-1))]),
    ("one_hot", lambda i, n: tf.one_hot(i, n), lambda i, n: (i[:, None] == np.arange(n)).astype(np.float32),
     [(number([0, 2, 5]), number(3)), (number([0, 2, 5]), number(6))]),
    ("split", lambda x, s: tf.concat(flip(tf.split(x, s, axis=1)), 1),
     lambda x, s: np.concatenate([x[:, s[0]:], x[:, :s[0]]], 1),
     [(X, number([2, 4])), (X, number([0, 6]))]),
    ("pad", tf.pad, np.pad, [(X, number([[1, 2], [0, 3]])), (X, number([[0, 0], [0, 0]]))]),
    ("pad reflected", lambda x, n: tf.pad(x, [[0, 0], [n, 1]], "REFLECT"), lambda x, n: np.pad(x, [[0, 0], [n, 1]], "reflect"),
     [(X, number(2)), (X, number(0)), (X, number(5))]),
    ("expand a vector", lambda x, n: x[0] * tf.ones([n, 1]), lambda x, n: x[0] * np.ones((n, 1), np.float32), [(X, number(3))]),
    ("eye", lambda n: tf.eye(n), lambda n: np.eye(n, dtype=np.float32), [(number(3),), (number(1),)]),
]


@pytest.mark.parametrize(("function", "reference", "values"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_equals_numpy(function, reference, values, device):
    tensors = feeds(*values[0])
    result = function(*tensors)
    with tf.Session() as session:
        for given in values:
            got = session.run(result, dict(zip(tensors, given, strict=True)))
            want = np.asarray(reference(*given))
            assert got.shape == want.shape
            np.testing.assert_allclose(got, want, rtol=1e-6)


def test_what_a_tensor_says_is_one_dim(device):
    """The same tensor gives the same dim wherever it is used: so the results fit without a check."""
    n = tf.placeholder(tf.int32, [])
    both = tf.zeros([n, 2]) + tf.cast(tf.range(n), tf.float32)[:, None] + tf.random_uniform([n, 2], 0.0, 0.0)
    assert tf.zeros([n]).shape == tf.ones([n]).shape
    with tf.Session() as session:
        assert session.run(both, {n: 3}).tolist() == [[0, 0], [1, 1], [2, 2]]
        assert session.run(tf.shape(both), {n: 4}).tolist() == [4, 2]
        assert session.run([both[0], tf.size(both)], {n: 1})[1] == 2


def test_random_numbers_of_a_fed_size_are_those_of_a_known_size(device):
    n = tf.placeholder(tf.int32, [])
    fed, known = tf.random_normal([n, 3], seed=5), tf.random_normal([4, 3], seed=5)
    with tf.Session() as session:
        for _ in range(2):
            a, b = session.run([fed, known], {n: 4})
            np.testing.assert_array_equal(a, b)


def test_gradient_through_fed_shapes(device):
    x, shape = tf.placeholder(tf.float32, [None, 6]), tf.placeholder(tf.int32, [2])
    n = tf.placeholder(tf.int32, [])
    y = tf.reduce_sum(tf.square(tf.reshape(x, shape)[1:, :n]))
    with tf.Session() as session:
        got = session.run(tf.gradients(y, x)[0], {x: X, shape: [6, 4], n: 3})
    mask = np.zeros((6, 4), np.float32)
    mask[1:, :3] = 1
    np.testing.assert_array_equal(got, 2 * X * mask.reshape(4, 6))


def test_a_fed_tensor_with_a_read_size_tells_it(device):
    """Feeding the tensor in the middle: the size comes from the feed, and what said it does not run."""
    n = tf.placeholder(tf.int32, [])
    y = tf.zeros([n, 2])
    with tf.Session() as session:
        assert session.run(tf.shape(y * 2), {y: np.ones((5, 2))}).tolist() == [5, 2]
        assert session.run(y + 1, {y: np.ones((3, 2))}).tolist() == [[2, 2]] * 3


@pytest.mark.parametrize(("make", "value", "text"), [
    (lambda n: tf.zeros([n]), -1, "read_sizes: a size is negative: sizes[0] = -1"),
    (lambda n: tf.zeros(n * tf.constant([1, 1], tf.int64)), 2**40, "read_sizes: too many elements"),
    (lambda n: tf.range(0, 5, n), 0, "integer division by zero"),
])
def test_a_size_that_is_none(make, value, text, device):
    n = tf.placeholder(tf.int64, [])
    y = make(n)
    with tf.Session() as session, pytest.raises(RunError) as caught:
        session.run(y, {n: value})
    assert text in str(caught.value)
    assert "in test_fed_sizes.py:" in str(caught.value)


def test_sizes_that_no_memory_holds():
    n = tf.placeholder(tf.int64, [])
    y = tf.zeros([n, 2**30]) + 1
    with tf.Session() as session, pytest.raises(RunError, match=r"(?s)no memory for tensors of these sizes\n    N = 10995.*"
                                                                r"in test_fed_sizes.py"):
        session.run(y, {n: 2**40})


@pytest.mark.parametrize(("make", "value", "text"), [
    (lambda x, n: tf.reshape(x, [n, 5]), 3, "6*N = 24 != 5*N1 = 15"),
    (lambda x, n: tf.reshape(x, [n, -1]), 0, "a size is divided by 0"),
    (lambda x, n: x + tf.zeros([n, 6]), 3, "N1 = 3"),
    (lambda x, n: tf.slice(x, [n, 0], [3, 6]), 2, ""),
    (lambda x, n: tf.split(x, [n, 3], axis=1)[0], 2, "24 != N*N1+3*N = 20"),
])
def test_sizes_that_do_not_fit(make, value, text, device):
    x, n = tf.placeholder(tf.float32, [None, 6]), tf.placeholder(tf.int32, [])
    y = make(x, n)
    with tf.Session() as session, pytest.raises(ShapeError) as caught:
        session.run(y, {x: X, n: value})
    assert text in str(caught.value)
    assert "in test_fed_sizes.py:" in str(caught.value)
