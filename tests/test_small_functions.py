"""Neighbours and bits of numbers, activations far out, fake quantization with TensorFlow's gradients."""
import numpy as np
import pytest
from scipy.special import expit

import graphc as tf


def run(function, *arrays):
    """The values of `function` of constants."""
    tf.reset_default_graph()
    with tf.Session() as session:
        return session.run(function(*(tf.constant(a) for a in arrays)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nextafter_is_exact(dtype):
    info = np.finfo(dtype)
    line = np.array([0.0, -0.0, 1, -1, info.max, -info.max, info.tiny, info.smallest_subnormal, np.inf, -np.inf, np.nan], dtype)
    x, y = (a.ravel() for a in np.meshgrid(line, line))
    with np.errstate(all="ignore"):
        want = np.nextafter(x, y)
    found = run(tf.math.nextafter, x, y)
    assert np.array_equal(found, want, equal_nan=True)
    assert np.array_equal(np.signbit(found), np.signbit(want) & ~np.isnan(want) | np.isnan(want) & np.signbit(found))


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "uint64"])
def test_population_count_of_the_ends(dtype):
    info = np.iinfo(dtype)
    x = np.array([info.min, info.max, 0, 1, 5], dtype)
    assert run(tf.bitwise.population_count, x).tolist() == [bin(int(v) % 2**info.bits).count("1") for v in x]


def test_no_nan_where_a_factor_is_zero():
    x, y = np.array([np.nan, np.inf, 2], "f4"), np.array([0, 0, 3], "f4")
    assert run(tf.math.multiply_no_nan, x, y).tolist() == [0, 0, 6]
    assert run(tf.math.reciprocal_no_nan, np.array([0, 4], "f4")).tolist() == [0, 0.25]


def test_logaddexp_of_infinities():
    inf = np.inf
    x, y = np.array([-inf, -inf, inf, 1000.0]), np.array([-inf, 3, -inf, 1000.0])
    assert run(tf.math.logaddexp, x, y).tolist() == [-inf, 3, inf, 1000 + np.log(2)]
    slopes = run(lambda a, b: tf.gradients(tf.math.logaddexp(a, b), [a, b]), x, y)
    assert np.array(slopes).tolist() == [[0.5, 0, 1, 0.5], [0.5, 1, 0, 0.5]]


def test_activations_far_out():
    x = np.array([-1e4, -300, 300, 1e4], "f4")
    for function in (tf.nn.gelu, lambda v: tf.nn.gelu(v, approximate=True), tf.nn.swish):
        assert np.array_equal(run(function, x), np.array([0, 0, 300, 1e4], "f4"))
        assert run(lambda v, f=function: tf.gradients(f(v), v)[0], x).tolist() == [0, 0, 1, 1]
    assert run(tf.math.log_sigmoid, x).tolist() == [-1e4, -300, 0, 0]


def test_the_logistic_loss_has_the_plain_gradient():
    x, z = np.array([-900.0, -2, 0, 3, 900]), np.array([0.0, 1, 0.25, 1, 1])
    slope = run(lambda a, b: tf.gradients(tf.nn.sigmoid_cross_entropy_with_logits(labels=b, logits=a), a)[0], x, z)
    np.testing.assert_allclose(slope, expit(x) - z, atol=1e-15)


def test_fake_quant_by_hand():
    """The example of TensorFlow's documentation: [-6, 6] is moved to [-6.0235, 5.9765]."""
    x = np.array([-9, -6.01, -1, 0, 0.02, 5.99, 9], "f4")
    step = 12 / 255
    low = -128 * step
    want = np.round((np.clip(x, low, low + 12) - low) / step) * step + low
    np.testing.assert_allclose(run(tf.fake_quant_with_min_max_args, x), want, atol=1e-5)
    x = np.array([-1, 0, 0.4, 2], "f4")
    narrow = run(lambda v: tf.fake_quant_with_min_max_args(v, -1, 1, num_bits=3, narrow_range=True), x)
    np.testing.assert_allclose(narrow, [-1, 0, 1 / 3, 1], atol=1e-6)


def test_gradients_of_fake_quant():
    def slopes(x, low, high):
        y = tf.quantization.fake_quant_with_min_max_vars(x, low, high)
        return tf.gradients(tf.reduce_sum(y * tf.constant(np.array([1, 2, 4, 8], "f4"))), [x, low, high])
    dx, dlow, dhigh = run(slopes, np.array([-3, -0.5, 0.7, 2], "f4"), np.float32(-1), np.float32(1))
    assert dx.tolist() == [0, 2, 4, 0]
    assert (dlow, dhigh) == (1, 8)

    def channels(x, low, high):
        return tf.gradients(tf.fake_quant_with_min_max_vars_per_channel(x, low, high), [x, low, high])
    x = np.array([[-3, 0, 3], [5, -5, 0]], "f4")
    dx, dlow, dhigh = run(channels, x, -np.ones(3, "f4"), np.ones(3, "f4"))
    assert dx.tolist() == [[0, 1, 0], [0, 0, 1]]
    assert (dlow.tolist(), dhigh.tolist()) == ([1, 1, 0], [1, 0, 1])


def test_errors_of_fake_quant():
    x = tf.constant(np.ones(3, "f4"))
    with pytest.raises(tf.errors.ArgumentError, match="num_bits = 1"):
        tf.fake_quant_with_min_max_args(x, num_bits=1)
    with pytest.raises(tf.errors.ArgumentError, match="the range is empty"):
        tf.fake_quant_with_min_max_args(x, 2, 1)
    with pytest.raises(tf.errors.ShapeError, match="min must have rank 1"):
        tf.fake_quant_with_min_max_vars_per_channel(x, 0.0, 1.0)
