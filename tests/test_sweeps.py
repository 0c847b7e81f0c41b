"""Kernels that sweep over memory: several vectors at once, stores past the caches. Neither changes a bit of a value."""
import numpy as np
import pytest

import graphc as tf
from graphc.codegen import loops
from graphc.runtime.memory import POOLED_BYTES

SIZES = [1, 16, 63, 64, 65, 130, 257, 1000, 4999]


@pytest.fixture(autouse=True)
def fresh_graph():
    with tf.Graph().as_default():
        yield


def chain(x):
    """A gelu by its formula, the sum of its squares, and its gradient."""
    y = 0.5 * x * (1 + tf.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))
    return y, tf.reduce_sum(y * y), tf.gradients(tf.reduce_mean(y), x)[0]


def on_numpy(x):
    inner = 0.7978845608 * (x + 0.044715 * x**3)
    y = 0.5 * x * (1 + np.tanh(inner))
    slope = 0.5 * (1 + np.tanh(inner)) + 0.5 * x * (1 - np.tanh(inner)**2) * 0.7978845608 * (1 + 3 * 0.044715 * x * x)
    return y, (y * y).sum(), slope / x.size


def values_of(build, data, dtype, shape, threads=2):
    """What `build` makes of each of several arrays, compiled once."""
    tf.set_num_threads(threads)
    try:
        with tf.Graph().as_default(), tf.Session() as session:
            x = tf.placeholder(dtype, shape)
            run = session.make_callable(list(build(x)), [x])
            return [run(d) for d in data]
    finally:
        tf.set_num_threads(None)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_several_vectors_at_once(dtype, monkeypatch):
    rng = np.random.default_rng(0)
    data = [rng.standard_normal(n).astype(dtype) for n in SIZES]
    found = values_of(chain, data, dtype, [None])
    for x, got in zip(data, found, strict=True):
        for a, b in zip(got, on_numpy(x.astype(np.float64)), strict=True):
            assert np.abs(a - b).max() <= (1e-5 if dtype == "float32" else 1e-13) * np.abs(b).max()
    monkeypatch.setattr(loops, "ABREAST", 1)
    for other in (values_of(chain, data, dtype, [None]), values_of(chain, data, dtype, [None], threads=1)):
        assert all(np.array_equal(a, b) for x, y in zip(found, other, strict=True) for a, b in zip(x, y, strict=True))


def test_a_value_does_not_depend_on_its_place():
    x = np.random.default_rng(1).standard_normal(700).astype(np.float32)
    whole, later = (y[0] for y in values_of(chain, [x, x[37:].copy()], "float32", [None]))
    assert np.array_equal(whole[37:], later)


def test_numbers_that_are_none_in_several_vectors():
    x = np.linspace(-3, 3, 500, dtype=np.float32)
    x[[3, 77, 200]] = np.nan, np.inf, -np.inf
    (got, total), = values_of(lambda v: (tf.tanh(v) * 2, tf.reduce_max(tf.exp(v))), [x], "float32", [None])
    np.testing.assert_allclose(got, np.tanh(x) * 2, rtol=1e-6)
    assert np.isnan(total)


def by_rows(x):
    """What takes several passes over each row, and keeps powers from one to the next."""
    y = tf.nn.softmax(x)
    return y, tf.gradients(y, x, grad_ys=tf.cos(x))[0], tf.nn.log_softmax(x), tf.nn.moments(tf.tanh(x), [1])[1]


@pytest.mark.parametrize(("dtype", "columns"), [("float32", 1024), ("float32", 300), ("float32", 257), ("float64", 1001),
                                                ("float32", 40), ("float32", None)])
def test_rows(dtype, columns, monkeypatch):
    """Powers wait in scratch memory; results go past the caches from the first whole line of memory of each row on."""
    data = np.random.default_rng(3).standard_normal((POOLED_BYTES // 1000, columns or 300)).astype(dtype) * 3
    found = values_of(by_rows, [data, data[:1], data[:0]], dtype, [None, columns])
    x = data.astype(np.float64)
    power = np.exp(x - x.max(1, keepdims=True))
    soft = power / power.sum(1, keepdims=True)
    slope = soft * (np.cos(x) - (soft * np.cos(x)).sum(1, keepdims=True))
    for got, expected in zip(found[0], (soft, slope, np.log(soft), np.tanh(x).var(1)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-6 if dtype == "float32" else 1e-14)
    assert all(np.array_equal(a[:1], b) and not c.size for a, b, c in zip(*found, strict=True))
    for name, value in (("STREAM_BYTES", POOLED_BYTES), ("ABREAST", 1)):
        monkeypatch.setattr(loops, name, value)
        for threads in (1, 2):
            other, = values_of(by_rows, [data], dtype, [None, columns], threads)
            assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_stores_past_the_caches(dtype, monkeypatch):
    x = np.random.default_rng(2).standard_normal(POOLED_BYTES // 4 + 23).astype(dtype)
    cached = values_of(chain, [x], dtype, [None])
    monkeypatch.setattr(loops, "STREAM_BYTES", POOLED_BYTES)
    for threads in (1, 2):
        streamed = values_of(chain, [x], dtype, [None], threads)
        assert all(np.array_equal(a, b) for a, b in zip(cached[0], streamed[0], strict=True))
