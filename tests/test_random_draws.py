"""Gamma, Poisson and class numbers, shuffles and crops: their distributions, and that they are functions of the seeds."""
import numpy as np
import pytest
import scipy.stats

import graphc as tf
from graphc.errors import RunError, ShapeError


def run(function, feeds=(), times=1):
    """The results of one or several runs."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(11)
        tensors = [tf.placeholder(f.dtype, f.shape) for f in feeds]
        fetches = function(*tensors)
        found = [session.run(fetches, dict(zip(tensors, feeds, strict=True))) for _ in range(times)]
    return found if times > 1 else found[0]


def test_gamma():
    alpha = np.array([0.3, 1.0, 4.5])
    got, scaled = run(lambda a: [tf.random_gamma([20_000], a), tf.random_gamma([20_000], a, beta=[1.0, 2.0, 4.0])],
                      [alpha.astype("f4")])
    assert got.shape == (20_000, 3)
    for k, a in enumerate(alpha):
        assert scipy.stats.kstest(got[:, k].astype(float), scipy.stats.gamma(a).cdf).pvalue > 1e-3
        assert scipy.stats.kstest(scaled[:, k] * [1, 2, 4][k], scipy.stats.gamma(a).cdf).pvalue > 1e-3


def test_gradients_of_gamma_by_shape_and_scale():
    """A number keeps its place in the distribution: the slope is that of the quantile."""
    alpha = np.array([0.3, 1.0, 4.5, 40.0])

    def function(a):
        drawn = tf.random_gamma([5], a, beta=[1.0, 1.0, 2.0, 1.0], dtype=tf.float64)
        return [drawn, tf.gradients(drawn[:, 0], a)[0], tf.gradients(drawn[0], a)[0]]
    drawn, first, slope = run(function, [alpha])
    value = drawn[0] * [1, 1, 2, 1]
    places, h = scipy.stats.gamma(alpha).cdf(value), 1e-5
    want = (scipy.stats.gamma(alpha + h).ppf(places) - scipy.stats.gamma(alpha - h).ppf(places)) / (2 * h) / [1, 1, 2, 1]
    np.testing.assert_allclose(slope, want, rtol=1e-5)
    assert first[0] > 0 and not first[1:].any()


@pytest.mark.parametrize("mean", [0.0, 0.4, 3.0, 9.99, 10.0, 55.0, 1e4])
def test_poisson(mean):
    got = run(lambda: tf.random_poisson(mean, [20_000], dtype=tf.int64, seed=3))
    assert got.dtype == np.int64
    if mean == 0:
        assert (got == 0).all()
        return
    law = scipy.stats.poisson(mean)
    edges = np.unique(law.ppf(np.linspace(0.02, 0.98, 15)))
    cells = np.concatenate([[-1], edges, [np.inf]])
    counts = [np.sum((got > low) & (got <= high)) for low, high in zip(cells[:-1], cells[1:], strict=True)]
    expected = np.diff([0, *law.cdf(edges), 1]) * got.size
    assert scipy.stats.chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_multinomial(dtype):
    p = np.array([[0.1, 0.2, 0.7], [0.5, 0, 0.5]])
    with np.errstate(divide="ignore"):
        logits = np.log(p).astype(dtype)
    got, small = run(lambda x: [tf.multinomial(x, 20_000), tf.random.categorical(x, 3, output_dtype=tf.int32)], [logits])
    assert (got.shape, got.dtype) == ((2, 20_000), np.int64)
    assert (small.shape, small.dtype) == ((2, 3), np.int32)
    for row, q in zip(got, p, strict=True):
        counts = np.bincount(row, minlength=3)
        assert counts[q == 0].sum() == 0
        assert scipy.stats.chisquare(counts[q > 0], q[q > 0] * row.size).pvalue > 1e-3


def test_shuffle_and_crop():
    x = np.arange(40.0).reshape(10, 4)
    got, part = run(lambda x: [tf.random_shuffle(x), tf.random_crop(x, [3, 2])], [x])
    assert not np.array_equal(got, x)
    np.testing.assert_array_equal(np.sort(got[:, 0]), x[:, 0])
    np.testing.assert_array_equal(got - got[:, :1], x - x[:, :1])
    row, column = divmod(int(part[0, 0]), 4)
    np.testing.assert_array_equal(part, x[row:row + 3, column:column + 2])


def test_runs_differ_and_sessions_agree():
    def function():
        return [tf.random_gamma([3], 2.0), tf.random_poisson(20.0, [5]), tf.random_shuffle(tf.range(20)),
                tf.multinomial(np.zeros((1, 9), "f4"), 7), tf.random_crop(tf.range(1000), [2])]
    first, again = run(function, times=2), run(function, times=2)
    for a, b in zip(first, again, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
    for x, y in zip(*first, strict=True):
        assert not np.array_equal(x, y)


def test_the_interpreter_draws_the_same(monkeypatch):
    def function():
        return [tf.random_gamma([3], 2.0), tf.random_poisson(20.0, [5]), tf.random_shuffle(tf.range(20)),
                tf.multinomial(np.zeros((1, 9), "f4"), 7)]
    native = run(function)
    monkeypatch.setattr(tf.options, "device", "numpy")
    for x, y in zip(native, run(function), strict=True):
        np.testing.assert_array_equal(x, y)


def test_bad_arguments_are_named():
    with pytest.raises(RunError, match=r"(?s)gamma_draws: alpha must be positive and finite: alpha\[0\] = -1.*test_random_dr"):
        run(lambda a: tf.random_gamma([], a), [np.array([-1.0, 2])])
    with pytest.raises(RunError, match=r"the mean must be finite and at least 0: mean\[0\] = -1"):
        run(lambda m: tf.random_poisson(m, []), [np.array([-1.0, 2])])
    with tf.Graph().as_default():
        with pytest.raises(ShapeError, match=r"(?s)random_crop: the part must be smaller.*4 of 3 along axis 0"):
            tf.random_crop(np.zeros(3, "f4"), [4])
        with pytest.raises(ShapeError, match="a scalar has no rows"):
            tf.random_shuffle(1.0)
