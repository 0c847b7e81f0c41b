"""LU factors, tridiagonal systems, scatters, stateless random numbers, distances, boxes, contrib, device: by plain NumPy."""
import numpy as np
import pytest
import scipy.linalg
import scipy.stats

import graphc as tf


def run(*fetches, feed=None):
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        return session.run(list(fetches), feed)


pytestmark = pytest.mark.usefixtures("fresh_graph")


def test_lu_and_solve():
    rng = np.random.default_rng(0)
    x, b = rng.normal(size=(3, 5, 5)), rng.normal(size=(3, 5, 2))
    factors, order = tf.linalg.lu(x)
    packed, perm, solved = run(factors, order, tf.linalg.lu_solve(factors, order, b))
    lower, upper = np.tril(packed, -1) + np.eye(5), np.triu(packed)
    np.testing.assert_allclose(lower @ upper, np.take_along_axis(x, perm[..., None], 1), atol=1e-12)
    assert np.abs(np.tril(packed, -1)).max() <= 1
    np.testing.assert_allclose(x @ solved, b, atol=1e-10)
    assert tf.linalg.lu(x, output_idx_type=tf.int64)[1].dtype is tf.int64


def test_square_root():
    x = np.array([[33.0, 24], [48, 57]])
    np.testing.assert_allclose(run(tf.linalg.sqrtm(x))[0], scipy.linalg.sqrtm(x), rtol=1e-12)
    with pytest.raises(tf.errors.RunError, match="too few eigenvectors"):
        run(tf.linalg.sqrtm(np.array([[0.0, 1], [0, 0]])))


def test_tridiagonal_systems_that_need_pivots():
    diagonals = np.array([[[2.0, 3, 1, 0], [0, 1, 0, 2], [0, 4, 5, 6]]])
    rhs = np.arange(4.0)[None]
    dense = np.diag(diagonals[0, 1]) + np.diag(diagonals[0, 0, :-1], 1) + np.diag(diagonals[0, 2, 1:], -1)
    np.testing.assert_allclose(run(tf.linalg.tridiagonal_solve(diagonals, rhs))[0][0], np.linalg.solve(dense, rhs[0]))
    with pytest.raises(tf.errors.ArgumentError, match="compact"):
        tf.linalg.tridiagonal_solve(diagonals, rhs, diagonals_format="matrix")


def test_scatter_extremes_at_coordinates():
    x = np.zeros((2, 3), "f4")
    at, new = [[0, 1], [1, 2], [0, 1]], np.array([3, -1, 2], "f4")
    assert run(tf.tensor_scatter_max(x, at, new))[0].tolist() == [[0, 3, 0], [0, 0, 0]]
    assert run(tf.tensor_scatter_min(x, at, new))[0].tolist() == [[0, 0, 0], [0, 0, -1]]
    values = tf.constant(np.array([3, -1, 3], "f4"))
    assert run(tf.gradients(tf.tensor_scatter_max(x, at, values), values)[0])[0].tolist() == [0.5, 0, 0.5]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_stateless_numbers(dtype):
    n = 40_000
    seed = tf.placeholder(tf.int32, [2])
    made = [tf.random.stateless_uniform([n], seed, -1, 3, dtype), tf.random.stateless_normal([n], seed, 1, 2, dtype),
            tf.random.stateless_truncated_normal([n], seed, dtype=dtype),
            tf.random.stateless_uniform([n], seed, -2, 5, tf.int32)]
    with tf.Session() as session:
        first, again, other = (session.run(made, {seed: s}) for s in ([3, 4], [3, 4], [3, 5]))
    for a, b, c in zip(first, again, other, strict=True):
        assert np.array_equal(a, b)
        assert np.mean(a == c) < 0.2
    uniform, normal, cut, whole = first
    assert scipy.stats.kstest(uniform, scipy.stats.uniform(-1, 4).cdf).pvalue > 1e-3
    assert scipy.stats.kstest(normal, scipy.stats.norm(1, 2).cdf).pvalue > 1e-3
    assert scipy.stats.kstest(cut, scipy.stats.truncnorm(-2, 2).cdf).pvalue > 1e-3
    assert set(whole.tolist()) == set(range(-2, 5))
    assert scipy.stats.chisquare(np.bincount(whole + 2)).pvalue > 1e-3


def test_stateless_errors():
    with pytest.raises(tf.errors.DTypeError, match="integers need a maxval"):
        tf.random.stateless_uniform([2], [1, 2], dtype=tf.int32)
    with pytest.raises(tf.errors.DTypeError, match="no int32 numbers of this kind"):
        tf.random.stateless_normal([2], [1, 2], dtype=tf.int32)


def test_edit_distance():
    words = [("kitten", "sitting", 3), ("", "abc", 3), ("flaw", "lawn", 2), ("abc", "abc", 0)]
    codes = [np.array([[ord(c) for c in w[k].ljust(8)] for w in words]) for k in (0, 1)]
    lengths = [np.array([len(w[k]) for w in words]) for k in (0, 1)]
    plain, by_length = run(tf.edit_distance(*codes, *lengths, normalize=False), tf.edit_distance(*codes, *lengths))
    assert plain.tolist() == [w[2] for w in words]
    np.testing.assert_allclose(by_length, plain / lengths[1], rtol=1e-6)


def test_non_max_suppression():
    boxes = np.array([[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, -0.1, 1, 0.9], [0, 10, 1, 11], [1, 11.1, 0, 10.1],
                      [0, 100, 1, 101]], "f4")
    scores = np.array([0.9, 0.75, 0.6, 0.95, 0.5, 0.3], "f4")
    assert run(tf.image.non_max_suppression(boxes, scores, 3))[0].tolist() == [3, 0, 5]
    assert run(tf.image.non_max_suppression(boxes, scores, 9, 0.999))[0].tolist() == [3, 0, 1, 2, 4, 5]
    assert run(tf.image.non_max_suppression(boxes, scores, 9, score_threshold=0.4))[0].tolist() == [3, 0]


def test_logarithms_of_powers_are_exact():
    x = np.exp2(np.arange(-20, 20)).astype("f4")
    assert np.array_equal(run(tf.math.log2(x))[0], np.arange(-20, 20))
    assert np.array_equal(run(tf.math.exp2(np.arange(-20, 20).astype("f4")))[0], x)


def test_contrib_names():
    assert tf.contrib.seq2seq.sequence_loss is tf.nn.sequence_loss
    assert tf.contrib.rnn.BasicLSTMCell is tf.nn.rnn_cell.BasicLSTMCell
    w = tf.get_variable("w", [300, 200], initializer=tf.contrib.layers.xavier_initializer())
    v = tf.get_variable("v", [300, 200], initializer=tf.contrib.layers.variance_scaling_initializer())
    a, b = run(w, v)
    assert np.var(a) == pytest.approx(2 / 500, rel=0.05)
    assert np.var(b) == pytest.approx(2 / 300, rel=0.05)


def test_device_has_no_effect_but_is_checked():
    for name in ("/cpu:0", None, lambda op: "/gpu:0"):
        with tf.device(name):
            x = tf.constant(2.0) * 3
        assert run(x) == [6]
    with pytest.raises(tf.errors.ArgumentError, match="device: 3 is no device"), tf.device(3):
        pass
