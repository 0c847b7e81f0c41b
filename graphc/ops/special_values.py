"""What special functions are, for the NumPy rules of `graphc.ops.special`: in more precision than the result has.

All take and give arrays of long doubles, or of float64 where that is said; other formulas, or more terms, than kernels use.
"""
from __future__ import annotations

import functools
import math

import numpy as np

LONG = np.longdouble
PI = LONG("3.14159265358979323846264338327950288")
EULER_GAMMA = LONG("0.57721566490153286060651209008240243")
HALF_LOG_2PI = LONG("0.91893853320467274178032973640561764")
# Bernoulli numbers B(2), B(4), ... B(24)
BERNOULLI = [LONG(n) / LONG(d) for n, d in (
    (1, 6), (-1, 30), (1, 42), (-1, 30), (5, 66), (-691, 2730), (7, 6), (-3617, 510), (43867, 798), (-174611, 330),
    (854513, 138), (-236364091, 2730))]
ASYMPTOTIC = 20  # from here on the asymptotic series have long doubles' precision


def one_by_one(function):
    """A function of Python floats for each element of a float64 array: C's erf is exact, and NumPy has none."""
    one = np.frompyfunc(function, 1, 1)
    return lambda x: np.asarray(one(np.asarray(x, np.float64))).astype(np.float64)


erf, erfc = one_by_one(math.erf), one_by_one(math.erfc)

# gamma ------------------------------------------------------------------------------------------------


def zeta(s, q):
    """Hurwitz' zeta function by the Euler-Maclaurin formula after 20 terms; NaN for s < 1 or q < 0."""
    s, q = np.broadcast_arrays(np.asarray(s, LONG), np.asarray(q, LONG))
    total = sum((q + k) ** -s for k in range(ASYMPTOTIC))
    end = q + ASYMPTOTIC
    total = total + end ** -s * (end / (s - 1) + LONG(0.5))
    factor = s / end
    for k, number in enumerate(BERNOULLI):
        total = total + end ** -s * factor * number / math.factorial(2 * k + 2)
        factor = factor * (s + (2 * k + 1)) * (s + (2 * k + 2)) / (end * end)
    total = np.where(q == 0, np.inf, np.where(q == np.inf, 0, np.where(q > 0, total, np.nan)))
    total = np.where(s > 1, total, np.where(s == 1, np.inf, np.nan))
    return np.where(np.isnan(s) | np.isnan(q), np.nan, total)


@functools.cache
def _zeta_rest(k: int) -> np.longdouble:
    """zeta(k) - 1, a coefficient of lgamma's series at 1."""
    return LONG(zeta(LONG(k), LONG(2)))


def _reduced(x):
    """(x moved into (1/2, 3/2] by whole steps, the factors taken out, the sum of their inverses), for 0 < x < 21."""
    product, inverses = np.ones_like(x), np.zeros_like(x)
    for _ in range(ASYMPTOTIC):
        above = x > 1.5
        x = np.where(above, x - 1, x)
        product, inverses = np.where(above, product * x, product), np.where(above, inverses + 1 / x, inverses)
    below = x <= 0.5
    product, inverses = np.where(below, product / x, product), np.where(below, inverses - 1 / x, inverses)
    return np.where(below, x, x - 1), product, inverses  # x - 1, or x + 1 - 1 without rounding


def _lgamma_positive(x):
    z, product, _ = _reduced(np.minimum(x, ASYMPTOTIC))
    near = z * (1 - EULER_GAMMA) - np.log1p(z) + np.log(product)
    near = near + sum((-z) ** k * _zeta_rest(k) / k for k in range(2, 45))
    w = 1 / np.maximum(x, ASYMPTOTIC)
    rest = sum(number * w ** (2 * k + 1) / ((2 * k + 2) * (2 * k + 1)) for k, number in enumerate(BERNOULLI))
    far = (x - 0.5) * (np.log(x) - 1) - LONG(0.5) + HALF_LOG_2PI + rest
    return np.where(x < ASYMPTOTIC, near, far)


def _half_turn(x):
    """pi times the distance from the nearest whole number."""
    return PI * (x - np.rint(x))


def lgamma(x):
    """log |gamma(x)|."""
    x = np.asarray(x, LONG)
    positive = _lgamma_positive(np.abs(x))
    reflected = np.log(PI / np.abs(x * np.sin(_half_turn(x)))) - positive
    found = np.where((x <= 0) & (np.trunc(x) == x), np.inf, np.where(x < 0, reflected, positive))
    return np.where(np.isnan(x), x, np.where(x == np.inf, x, found))


def digamma(x):
    """The slope of lgamma."""
    x = np.asarray(x, LONG)
    size = np.abs(x)
    z, _, inverses = _reduced(np.minimum(size, ASYMPTOTIC))
    near = 1 - EULER_GAMMA - 1 / (1 + z) + inverses
    near = near - sum((-z) ** (k - 1) * _zeta_rest(k) for k in range(2, 60))
    w = 1 / np.maximum(size, ASYMPTOTIC)
    far = np.log(size) - w / 2 - sum(number * w ** (2 * k + 2) / (2 * k + 2) for k, number in enumerate(BERNOULLI))
    positive = np.where(size < ASYMPTOTIC, near, far)
    turned = _half_turn(x)
    reflected = positive + 1 / size - PI * np.cos(turned) / np.sin(turned)
    found = np.where(x < 0, np.where(np.trunc(x) == x, np.nan, reflected), positive)
    return np.where(x == 0, np.copysign(np.inf, -x), np.where(np.isnan(x), x, found))


def trigamma(x):
    """The slope of digamma; infinite at whole numbers below 1."""
    x = np.asarray(x, LONG)
    size = np.abs(x)
    positive = zeta(LONG(2), size)
    reflected = (PI / np.sin(_half_turn(x))) ** 2 - positive + 1 / (size * size)
    found = np.where(x < 0, np.where(np.trunc(x) == x, np.inf, reflected), positive)
    return np.where(np.isnan(x) | (x == -np.inf), np.nan, found)


# inverses of error functions, in float64 --------------------------------------------------------------


def _quantile(q, tail):
    """z >= 0 with P(0 <= X <= z) = q >= 0, where tail = 1/2 - q: Newton's method, on the smaller of the two."""
    with np.errstate(all="ignore"):
        r = np.sqrt(-2 * np.log(tail))
        # Abramowitz and Stegun, Handbook of Mathematical Functions, 26.2.23: 5e-4
        z = r - (2.515517 + r * (0.802853 + r * 0.010328)) / (1 + r * (1.432788 + r * (0.189269 + r * 0.001308)))
        for _ in range(4):
            density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
            upper = 0.5 * erfc(z * math.sqrt(0.5))
            near = (q - 0.5 * erf(z * math.sqrt(0.5))) / density
            far = np.log(upper / tail) * (upper / density)
            z = z + np.where(q < 0.25, near, far)
    return np.where(tail == 0, np.inf, z)


def erfinv(x):
    """The inverse of erf; float64."""
    x = np.asarray(x, np.float64)
    size = np.abs(x)
    found = np.copysign(_quantile(0.5 * size, 0.5 - 0.5 * size) * math.sqrt(0.5), x)
    return np.where(size <= 1, found, np.nan)


def ndtri(p):
    """The inverse of the standard normal distribution; float64."""
    p = np.asarray(p, np.float64)
    found = np.copysign(_quantile(np.abs(p - 0.5), np.minimum(p, 1 - p)), p - 0.5)
    return np.where((p >= 0) & (p <= 1), found, np.nan)


def erfcx(x):
    """exp(x * x) erfc(x)."""
    x = np.asarray(x, LONG)
    near = np.exp(x * x) * erfc(x)
    w = 1 / np.maximum(x, 20)
    far = sum(math.prod(range(-1, -2 * k, -2)) / (2 * w ** -2) ** k for k in range(16)) * w / np.sqrt(PI)
    return np.where(x > 20, far, near)


# Bessel functions -------------------------------------------------------------------------------------


def bessel_scaled(order: int, x):
    """exp(-|x|) I(order, x): the power series, and the asymptotic one beyond 30."""
    x = np.asarray(x, LONG)
    size = np.minimum(np.abs(x), 30)
    term = (size / 2) ** order / math.factorial(order)
    total = term
    for k in range(1, 80):
        term = term * (size / 2) ** 2 / (k * (k + order))
        total = total + term
    large = np.maximum(np.abs(x), 30)
    term = series = np.ones_like(large)
    for k in range(1, 30):
        term = term * -(4 * order**2 - (2 * k - 1) ** 2) / (k * 8 * large)
        series = series + term
    found = np.where(np.abs(x) <= 30, total * np.exp(-size), series / np.sqrt(2 * PI * large))
    return np.where(np.isnan(x), x, np.copysign(found, x) if order % 2 else found)
