"""Special functions: the gamma function's family, inverse error functions, Bessel functions. One block per op.

The NumPy rules (`special_values`) compute in long doubles, or correct float64 by Newton's method, and round once.
"""
from __future__ import annotations

import math

from graphc.ir.op import REQUIRED
from graphc.ops import special_values as values
from graphc.ops.compare import rint, sign, where
from graphc.ops.define import elementwise, sample
from graphc.ops.elementwise import square
from graphc.ops.samples import Values, integer, positive, real
from graphc.ops.transcendental import cos, exp, sin

ABOVE_ZERO = [positive(3, 4), positive(), positive(0, 5)]
BELOW_ZERO = Values((7,), "real", -2.4, -2.1)  # between two poles, and not at a root of lgamma or digamma
INTEGERS = [(sample(integer(3, dtype="int32")), "int32 is not accepted")]


def rounded(function):
    """A NumPy rule that gives a function's value in the dtype of its first argument."""
    return lambda x, *more: function(x, *more).astype(x.dtype)


# gamma ------------------------------------------------------------------------------------------------

lgamma = elementwise(
    "lgamma", "x",
    doc="log |gamma(x)|: infinite at 0 and at negative whole numbers. Within 4 ulp above 0; below, of its larger term.",
    scalar="lgamma({x})", accepts="float", cost=120, ulp=200,
    numpy=rounded(values.lgamma),
    grad=lambda dy, y, x: [dy * digamma(x)],
    samples=[*ABOVE_ZERO, BELOW_ZERO], errors=INTEGERS,
)

digamma = elementwise(
    "digamma", "x",
    doc="The slope of lgamma: NaN at negative whole numbers. Within 4 ulp above 0; below, of its larger term.",
    scalar="digamma({x})", accepts="float", cost=110, ulp=200,
    numpy=rounded(values.digamma),
    grad=lambda dy, y, x: [dy * trigamma(x)],
    samples=[*ABOVE_ZERO, BELOW_ZERO], errors=INTEGERS,
)


def _tetragamma(x):
    """The slope of trigamma, -2 zeta(3, x); below 0 by tetragamma(1 - x) - tetragamma(x) = pi (cot(pi x))''."""
    below = x < 0
    positive = -2 * zeta(where(below, 1 - x, x), order=3)
    angle = math.pi * where(below, x - rint(x), 0.5)
    return where(below, positive - 2 * math.pi**3 * cos(angle) / (sin(angle) * square(sin(angle))), positive)


trigamma = elementwise(
    "trigamma", "x",
    doc="The slope of digamma: infinite at 0 and at negative whole numbers.",
    scalar="trigamma({x})", accepts="float", cost=120, ulp=8,
    numpy=rounded(values.trigamma),
    grad=lambda dy, y, x: [dy * _tetragamma(x)],
    samples=[*ABOVE_ZERO, BELOW_ZERO], errors=INTEGERS,
)

zeta = elementwise(
    "zeta", "q", attrs={"order": REQUIRED},
    doc="Hurwitz' zeta function: the sum of (q + k)**-order over k = 0, 1, ..., for order > 1 and q > 0; infinite at "
        "q = 0, NaN below. Within 4 + order / 2 ulp.",
    scalar="zeta({q}, {order})", accepts="float", cost=200, ulp=8,
    numpy=lambda q, *, order: values.zeta(order, q).astype(q.dtype),
    grad=lambda dy, y, q, *, order: [dy * (-order * zeta(q, order=order + 1))],
    samples=[sample(positive(3, 4), order=3), sample(positive(), order=2), sample(positive(5), order=1.5),
             sample(positive(0, 5), order=6)],
)

# inverses of error functions --------------------------------------------------------------------------

INSIDE = [real(3, 4, low=-0.8, high=0.8), real(low=-0.9, high=0.9), real(0, 5)]
PROBABILITIES = [real(3, 4, low=0.1, high=0.9), real(low=0.1, high=0.9), real(0, 5)]

erfinv = elementwise(
    "erfinv", "x",
    doc="The inverse of erf: infinite at -1 and 1, NaN beyond.",
    scalar="erfinv({x})", accepts="float", cost=50, ulp=6,
    numpy=rounded(values.erfinv),
    grad=lambda dy, y, x: [dy * (0.5 * math.sqrt(math.pi) * exp(square(y)))],
    samples=INSIDE, errors=INTEGERS,
)

ndtri = elementwise(
    "ndtri", "p",
    doc="The inverse of the standard normal distribution: infinite at 0 and 1, NaN outside.",
    scalar="ndtri({p})", accepts="float", cost=50, ulp=6,
    numpy=rounded(values.ndtri),
    grad=lambda dy, y, p: [dy * (math.sqrt(2 * math.pi) * exp(0.5 * square(y)))],
    samples=PROBABILITIES, errors=INTEGERS,
)

erfcinv = elementwise(
    "erfcinv", "x",
    doc="The inverse of erfc: infinite at 0, -inf at 2, NaN outside.",
    scalar=f"{-math.sqrt(0.5)!r} * ndtri(0.5 * {{x}})", accepts="float", cost=52, ulp=8,
    numpy=rounded(lambda x: -math.sqrt(0.5) * values.ndtri(0.5 * x.astype(float))),
    grad=lambda dy, y, x: [dy * (-0.5 * math.sqrt(math.pi) * exp(square(y)))],
    samples=[real(3, 4, low=0.2, high=1.8), real(low=0.2, high=0.8), real(0, 5)], errors=INTEGERS,
)

ndtr = elementwise(
    "ndtr", "x",
    doc="The standard normal distribution function, P(X <= x). Far below 0 within x * x ulp: so much its argument's last place "
        "is worth.",
    scalar=f"0.5 * erfc({-math.sqrt(0.5)!r} * {{x}})", accepts="float", cost=32, ulp=64,
    numpy=rounded(lambda x: 0.5 * values.erfc(-math.sqrt(0.5) * x.astype(float))),
    grad=lambda dy, y, x: [dy * (exp(-0.5 * square(x)) / math.sqrt(2 * math.pi))],
    samples=[real(3, 4), real(), real(0, 5)], errors=INTEGERS,
)

erfcx = elementwise(
    "erfcx", "x",
    doc="exp(x * x) * erfc(x): what is left of erfc(x) where that is too small for a float.",
    scalar="erfcx({x})", accepts="float", cost=60,
    numpy=rounded(values.erfcx),
    grad=lambda dy, y, x: [dy * (2 * x * y - 2 / math.sqrt(math.pi))],
    samples=[real(3, 4), real(), real(0, 5)], errors=INTEGERS,
)

# Bessel functions -------------------------------------------------------------------------------------

bessel_i0e = elementwise(
    "bessel_i0e", "x",
    doc="exp(-|x|) times the modified Bessel function of order 0.",
    scalar="bessel_i0e({x})", accepts="float", cost=60,
    numpy=rounded(lambda x: values.bessel_scaled(0, x)),
    grad=lambda dy, y, x: [dy * (bessel_i1e(x) - sign(x) * y)],
    samples=[real(3, 4), real(5, low=5, high=12), real(), real(0, 5)], errors=INTEGERS,
)

bessel_i1e = elementwise(
    "bessel_i1e", "x",
    doc="exp(-|x|) times the modified Bessel function of order 1. The gradient at 0 is 1/2.",
    scalar="bessel_i1e({x})", accepts="float", cost=60, ulp=6,
    numpy=rounded(lambda x: values.bessel_scaled(1, x)),
    grad=lambda dy, y, x: [dy * where(x * x > 0, bessel_i0e(x) - y * (sign(x) + 1 / where(x * x > 0, x, 1)), 0.5)],
    samples=[real(3, 4), real(5, low=5, high=12), real(), real(0, 5)], errors=INTEGERS,
)
