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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_stores_past_the_caches(dtype, monkeypatch):
    x = np.random.default_rng(2).standard_normal(POOLED_BYTES // 4 + 23).astype(dtype)
    cached = values_of(chain, [x], dtype, [None])
    monkeypatch.setattr(loops, "STREAM_BYTES", POOLED_BYTES)
    for threads in (1, 2):
        streamed = values_of(chain, [x], dtype, [None], threads)
        assert all(np.array_equal(a, b) for a, b in zip(cached[0], streamed[0], strict=True))
