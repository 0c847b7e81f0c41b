"""Public special functions against SciPy, interpreted and compiled, gradients included; the NumPy rules against mpmath."""
import mpmath
import numpy as np
import pytest
import scipy.special
from test_normalization import evaluate

import graphc as tf
from graphc.errors import ArgumentError, ShapeError
from graphc.ops import special_values
from graphc.testing import check_gradients

X = np.array([-3.3, -0.7, 0.01, 0.5, 1.0, 1.4, 2.0, 5.5, 30.0, 1e5])
P = np.array([1e-300, 1e-9, 0.3, 0.5, 0.9999])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values(dtype):
    x, p = X.astype(dtype), P.astype(dtype)
    positive = np.abs(x)

    def function(x, a, p):
        return [tf.lgamma(x), tf.digamma(x), tf.polygamma(0, x), tf.polygamma(1, x), tf.polygamma(3, a), tf.zeta(2.5, a),
                tf.lbeta(tf.stack([a, 2 * a], 1)), tf.erfinv(p), tf.ndtri(p), tf.math.bessel_i0(p), tf.math.bessel_i1(p),
                tf.math.ndtr(x), tf.math.log_ndtr(-a), tf.math.log_ndtr(a), tf.math.logit(p), tf.math.xlog1py(x, a)]
    s = scipy.special
    x, a, p = (v.astype(float) for v in (x, positive, p))
    with np.errstate(all="ignore"):
        expected = [s.gammaln(x), s.psi(x), s.psi(x), s.polygamma(1, np.abs(x)), s.polygamma(3, a), s.zeta(2.5, a),
                    s.betaln(a, 2 * a), s.erfinv(p), s.ndtri(p), s.i0(p), s.i1(p), s.ndtr(x), s.log_ndtr(-a), s.log_ndtr(a),
                    s.logit(p), s.xlog1py(x, a)]
    expected[3][:2] = [float(mpmath.polygamma(1, v)) for v in x[:2]]
    got = evaluate(function, X.astype(dtype), positive, P.astype(dtype))
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=2e-5 if dtype == "float32" else 1e-11, atol=1e-30)


@pytest.mark.parametrize(("name", "reference", "points"), [
    ("lgamma", mpmath.loggamma, [1e-5, 0.3, 0.999999, 1.2, 2.0000001, 7.9, 19.9, 20.1, 1e6]),
    ("digamma", mpmath.digamma, [-7.7, -0.3, 1e-5, 0.3, 1.3, 1.5, 7.9, 19.9, 20.1, 1e6]),
    ("trigamma", lambda x: mpmath.polygamma(1, x), [-7.7, -0.3, 1e-5, 0.3, 1.3, 7.9, 1e3]),
    ("erfinv", mpmath.erfinv, [-0.9999999, -0.5, 1e-10, 0.3, 0.7]),
    ("erfcx", lambda x: mpmath.exp(x * x) * mpmath.erfc(x), [-5.0, -0.3, 0.1, 3.0, 19.9, 20.1, 1e3]),
])
def test_numpy_rules_against_mpmath(name, reference, points):
    with mpmath.workprec(200):
        for x in points:
            expected = reference(mpmath.mpf(x))
            with np.errstate(all="ignore"):
                got = getattr(special_values, name)(np.array(x))
            high, low = mpmath.mpf(float(got)), mpmath.mpf(float(got - type(got[()])(float(got))))
            assert abs(high + low - expected) < 3e-16 * abs(expected), (x, got)


def test_poles_and_ends():
    nan, inf = np.nan, np.inf
    x = np.array([0.0, -0.0, -1.0, -7.0, inf, -inf, nan, 1.0])
    got = evaluate(lambda x: [tf.lgamma(x), tf.digamma(x), tf.polygamma(1, x), tf.erfinv(x), tf.ndtri(x), tf.math.erfcx(x)], x)
    expected = [[inf, inf, inf, inf, inf, inf, nan, 0], [-inf, inf, nan, nan, inf, nan, nan, -np.euler_gamma],
                [inf, inf, inf, inf, 0, nan, nan, np.pi**2 / 6], [0, 0, -inf, nan, nan, nan, nan, inf],
                [-inf, -inf, nan, nan, nan, nan, nan, inf], [1, 1, scipy.special.erfcx(-1), scipy.special.erfcx(-7), 0, inf,
                                                             nan, scipy.special.erfcx(1)]]
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-14)


@pytest.mark.parametrize("function", [
    lambda x: tf.math.log_ndtr(8 * x - 4), lambda x: tf.math.ndtr(x), lambda x: tf.polygamma(2, x), lambda x: tf.lbeta(x),
    lambda x: tf.math.bessel_i0(x), lambda x: tf.math.bessel_i1(x), lambda x: tf.math.logit(x / 3), lambda x: tf.zeta(3, x)])
def test_gradients(function):
    check_gradients(function, np.array([[0.4, 0.9], [1.3, 2.2]]), tolerance=1e-5)


def test_bad_arguments_are_named():
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, [], name="x")
        for call, error, message in [(lambda: tf.zeta(1, x), ArgumentError, "finite for x > 1 only"),
                                     (lambda: tf.polygamma(1.5, x), ArgumentError, "whole number of at least 0"),
                                     (lambda: tf.polygamma(x, x), ArgumentError, "known when the graph is built"),
                                     (lambda: tf.lbeta(x), ShapeError, "at least one axis")]:
            with pytest.raises(error, match=message):
                call()
