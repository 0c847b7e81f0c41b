"""Bessel functions, and integrals: Dawson's, the exponential one, Fresnel's, the dilogarithm. One block per op.

The NumPy rules (`bessel_values`) compute in long doubles and round once. "By amplitude" means: near a root of a function that
swings, the error of a float64 is that of its largest values nearby; a float32, computed in float64, is exact to 4 ulp.
"""
from __future__ import annotations

import math

import numpy as np

from graphc.ops import bessel_values as values
from graphc.ops.compare import equal, where
from graphc.ops.define import elementwise
from graphc.ops.elementwise import square
from graphc.ops.samples import positive, real
from graphc.ops.special import INTEGERS, rounded
from graphc.ops.special_values import bessel_scaled
from graphc.ops.transcendental import cos, exp, log, sin

ALL = [real(3, 4), real(5, low=9, high=12), real(), real(0, 5)]
ABOVE_ZERO = [positive(3, 4), real(5, low=9, high=12), positive(), positive(0, 5)]


def _unscaled(order):
    """I of an order, from exp(-|x|) I."""
    def rule(x):
        wide = np.asarray(x, np.longdouble)
        size = np.minimum(np.abs(wide), 2000)
        found = np.where(np.isinf(wide), np.abs(wide), bessel_scaled(order, size) * np.exp(size))
        return np.where(np.isnan(wide), wide, np.copysign(found, wide) if order else found)
    return rounded(rule)


def _by(value, x):
    """value / x, and 1/2 at x = 0: the slope of what is x / 2 near 0."""
    return where(equal(x, 0), 0.5, value / where(equal(x, 0), 1, x))


# modified ---------------------------------------------------------------------------------------------

bessel_i0 = elementwise(
    "bessel_i0", "x",
    doc="The modified Bessel function of order 0.",
    scalar="bessel_i0({x})", accepts="float", cost=75, ulp=6,
    numpy=_unscaled(0),
    grad=lambda dy, y, x: [dy * bessel_i1(x)],
    samples=ALL, errors=INTEGERS,
)

bessel_i1 = elementwise(
    "bessel_i1", "x",
    doc="The modified Bessel function of order 1.",
    scalar="bessel_i1({x})", accepts="float", cost=75, ulp=8,
    numpy=_unscaled(1),
    grad=lambda dy, y, x: [dy * (bessel_i0(x) - _by(y, x))],
    samples=ALL, errors=INTEGERS,
)

bessel_k0 = elementwise(
    "bessel_k0", "x",
    doc="The modified Bessel function of the second kind, of order 0: infinite at 0, NaN below.",
    scalar="bessel_k0({x})", accepts="float", cost=90, ulp=6,
    numpy=rounded(lambda x: values.bessel_k(0, x, False)),
    grad=lambda dy, y, x: [-dy * bessel_k1(x)],
    samples=ABOVE_ZERO, errors=INTEGERS,
)

bessel_k1 = elementwise(
    "bessel_k1", "x",
    doc="The modified Bessel function of the second kind, of order 1: infinite at 0, NaN below.",
    scalar="bessel_k1({x})", accepts="float", cost=90, ulp=6,
    numpy=rounded(lambda x: values.bessel_k(1, x, False)),
    grad=lambda dy, y, x: [-dy * (bessel_k0(x) + y / x)],
    samples=ABOVE_ZERO, errors=INTEGERS,
)

bessel_k0e = elementwise(
    "bessel_k0e", "x",
    doc="exp(x) bessel_k0(x).",
    scalar="bessel_k0e({x})", accepts="float", cost=90, ulp=6,
    numpy=rounded(lambda x: values.bessel_k(0, x, True)),
    grad=lambda dy, y, x: [dy * (y - bessel_k1e(x))],
    samples=ABOVE_ZERO, errors=INTEGERS,
)

bessel_k1e = elementwise(
    "bessel_k1e", "x",
    doc="exp(x) bessel_k1(x).",
    scalar="bessel_k1e({x})", accepts="float", cost=90, ulp=6,
    numpy=rounded(lambda x: values.bessel_k(1, x, True)),
    grad=lambda dy, y, x: [dy * (y - y / x - bessel_k0e(x))],
    samples=ABOVE_ZERO, errors=INTEGERS,
)

# of the first and second kind -------------------------------------------------------------------------

bessel_j0 = elementwise(
    "bessel_j0", "x",
    doc="The Bessel function of the first kind, of order 0. Within 8 ulp, by amplitude.",
    scalar="bessel_j0({x})", accepts="float", cost=120, ulp=40,
    numpy=rounded(lambda x: values.bessel_j(0, x)),
    grad=lambda dy, y, x: [-dy * bessel_j1(x)],
    samples=ALL, errors=INTEGERS,
)

bessel_j1 = elementwise(
    "bessel_j1", "x",
    doc="The Bessel function of the first kind, of order 1. Within 8 ulp, by amplitude.",
    scalar="bessel_j1({x})", accepts="float", cost=120, ulp=40,
    numpy=rounded(lambda x: values.bessel_j(1, x)),
    grad=lambda dy, y, x: [dy * (bessel_j0(x) - _by(y, x))],
    samples=ALL, errors=INTEGERS,
)

bessel_y0 = elementwise(
    "bessel_y0", "x",
    doc="The Bessel function of the second kind, of order 0: -inf at 0, NaN below. Within 8 ulp, by amplitude.",
    scalar="bessel_y0({x})", accepts="float", cost=140, ulp=100,
    numpy=rounded(lambda x: values.bessel_y(0, x)),
    grad=lambda dy, y, x: [-dy * bessel_y1(x)],
    samples=ABOVE_ZERO, errors=INTEGERS,
)

bessel_y1 = elementwise(
    "bessel_y1", "x",
    doc="The Bessel function of the second kind, of order 1: -inf at 0, NaN below. Within 8 ulp, by amplitude.",
    scalar="bessel_y1({x})", accepts="float", cost=140, ulp=100,
    numpy=rounded(lambda x: values.bessel_y(1, x)),
    grad=lambda dy, y, x: [dy * (bessel_y0(x) - y / x)],
    samples=ABOVE_ZERO, errors=INTEGERS,
)

# integrals --------------------------------------------------------------------------------------------

dawsn = elementwise(
    "dawsn", "x",
    doc="Dawson's integral: exp(-x * x) times the integral of exp(t * t) from 0 to x.",
    scalar="dawsn({x})", accepts="float", cost=110, ulp=8,
    numpy=rounded(values.dawson),
    grad=lambda dy, y, x: [dy * (1 - 2 * (x * y))],
    samples=ALL, errors=INTEGERS,
)

expint = elementwise(
    "expint", "x",
    doc="The exponential integral Ei(x), of exp(t) / t from -inf to x: -inf at 0. Within 8 ulp, but near its root at 0.3725.",
    scalar="expint({x})", accepts="float", cost=170, ulp=100,
    numpy=rounded(values.expint),
    grad=lambda dy, y, x: [dy * (exp(x) / x)],
    samples=[real(5, low=0.5, high=3), real(4, low=-9, high=-0.2), real(5, low=9, high=12), real(0, 5)], errors=INTEGERS,
)

fresnel_sin = elementwise(
    "fresnel_sin", "x",
    doc="The integral of sin(pi t**2 / 2) from 0 to x.",
    scalar="fresnel_sin({x})", accepts="float", cost=130, ulp=8,
    numpy=rounded(lambda x: values.fresnel(x)[0]),
    grad=lambda dy, y, x: [dy * sin(0.5 * math.pi * square(x))],
    samples=[real(3, 4), real(5, low=2, high=4), real(), real(0, 5)], errors=INTEGERS,
)

fresnel_cos = elementwise(
    "fresnel_cos", "x",
    doc="The integral of cos(pi t**2 / 2) from 0 to x.",
    scalar="fresnel_cos({x})", accepts="float", cost=130, ulp=8,
    numpy=rounded(lambda x: values.fresnel(x)[1]),
    grad=lambda dy, y, x: [dy * cos(0.5 * math.pi * square(x))],
    samples=[real(3, 4), real(5, low=2, high=4), real(), real(0, 5)], errors=INTEGERS,
)


def _spence_slope(x):
    """log(x) / (1 - x), and near 1, where that is 0 / 0, its series."""
    away = x - 1
    near = where((away < 1e-3) & (away > -1e-3), away, 0)
    safe = where(equal(near, away), 2, x)
    series = -1 + near * (0.5 - near * (1 / 3 - near * (0.25 - near * 0.2)))
    return where(equal(near, away), series, log(safe) / (1 - safe))


spence = elementwise(
    "spence", "x",
    doc="The integral of log(t) / (1 - t) from 1 to x, the dilogarithm of 1 - x: NaN below 0.",
    scalar="spence({x})", accepts="float", cost=120, ulp=16,
    numpy=rounded(values.spence),
    grad=lambda dy, y, x: [dy * _spence_slope(x)],
    samples=[*ABOVE_ZERO, real(4, low=0.9999, high=1.0001)], errors=INTEGERS,
)

log_ndtr = elementwise(
    "log_ndtr", "x",
    doc="log(P(X <= x)) for a standard normal X, finite also where the probability is too small for a float.",
    scalar="log_ndtr({x})", accepts="float", cost=170, ulp=8,
    numpy=rounded(values.log_ndtr),
    grad=lambda dy, y, x: [dy * (exp(-0.5 * square(x) - y) / math.sqrt(2 * math.pi))],
    samples=[real(3, 4), real(5, low=-12, high=-5), real(), real(0, 5)], errors=INTEGERS,
)
