"""What Bessel functions and integrals are, for the NumPy rules of `graphc.ops.bessel`: in long doubles.

By series and by sums over evenly spaced points, which converge fast for smooth integrands (L. Trefethen and J. Weideman,
"The exponentially convergent trapezoidal rule", 2014): other formulas than kernels use.
"""
from __future__ import annotations

import numpy as np

from graphc.ops.special_values import EULER_GAMMA, LONG, PI, erfc, erfcx

FAR = 30    # from here on Hankel's series have long doubles' precision
ANGLES = [2 * PI * k / 256 for k in range(256)]


def _hankel(order, x):
    """(P, Q) of x >= 30: sqrt(pi x / 2) (J + i Y) = (P + i Q) exp(i (x - order pi / 2 - pi / 4))."""
    parts = [np.ones_like(x), np.zeros_like(x)]
    term = np.ones_like(x)
    for k in range(1, 26):
        term = term * (4 * order * order - (2 * k - 1) ** 2) / (k * 8 * x)
        parts[k % 2] = parts[k % 2] + (term if k % 4 < 2 else -term)
    return parts


def _hankel_pair(order, x):
    """(J, Y) of x >= 30."""
    p, q = _hankel(order, x)
    s, c = np.sin(x), np.cos(x)
    along, across = (s + c, s - c) if order == 0 else (s - c, -(s + c))
    scale = np.sqrt(1 / (PI * x))
    return scale * (p * along - q * across), scale * (p * across + q * along)


def bessel_j(order: int, x):
    """J of order 0 or 1: the mean of cos(order t - x sin t) over t."""
    x = np.asarray(x, LONG)
    size = np.minimum(np.abs(x), FAR)
    near = sum(np.cos(order * t - size * np.sin(t)) for t in ANGLES) / len(ANGLES)
    if order == 1:  # of small ones the first terms of the series
        square = size * size / 4
        near = np.where(size < 1e-3, size / 2 * (1 - square / 2 * (1 - square / 6)), near)
    large = np.where(np.isfinite(x), np.maximum(np.abs(x), FAR), FAR)
    found = np.where(np.isinf(x), 0, np.where(np.abs(x) < FAR, near, _hankel_pair(order, large)[0]))
    return np.where(np.isnan(x), x, np.where((x < 0) & (order == 1), -found, found))


def bessel_y(order: int, x):
    """Y of order 0 or 1: Neumann's series 2/pi (log(x/2) + gamma) J0 - 4/pi sum (-1)**k J[2k] / k, or less its slope."""
    x = np.asarray(x, LONG)
    small = np.minimum(np.maximum(x, LONG(1e-320)), FAR)
    total = np.zeros_like(small)
    for t in ANGLES:
        weight = sum((-1) ** k * np.cos(2 * k * t) / k for k in range(1, 50))
        total = total + weight * (np.cos(small * np.sin(t)) if order == 0 else -np.sin(t) * np.sin(small * np.sin(t)))
    total = total * (4 / PI / len(ANGLES))
    logarithm = 2 / PI * (np.log(small / 2) + EULER_GAMMA)
    near = logarithm * bessel_j(0, small) - total
    if order == 1:
        near = logarithm * bessel_j(1, small) - 2 / PI * bessel_j(0, small) / small + total
    large = np.where(np.isfinite(x), np.maximum(x, FAR), FAR)
    found = np.where(x < FAR, near, np.where(np.isinf(x), 0, _hankel_pair(order, large)[1]))
    return np.where(x == 0, -np.inf, np.where(x > 0, found, np.nan))


def bessel_k(order: int, x, scaled: bool):
    """K of order 0 or 1, or exp(x) K: by the integral of exp(-x cosh t) cosh(order t); of small ones the first terms, of
    large ones the asymptotic series.
    """
    x = np.asarray(x, LONG)
    inside = np.minimum(np.maximum(x, LONG(1e-3)), LONG(50))
    total = np.exp(inside * 0) / 2
    step = LONG(1) / 12
    for k in range(1, 150):
        t = k * step
        total = total + np.exp(-2 * inside * np.sinh(t / 2) ** 2) * np.cosh(order * t)
    near = total * step
    tiny = np.minimum(np.maximum(x, LONG(1e-4900)), LONG(1e-3))
    square, logarithm = tiny * tiny / 4, -np.log(tiny / 2) - EULER_GAMMA
    if order == 0:
        first = logarithm * (1 + square + square**2 / 4) + square + square**2 * 3 / 8
    else:
        first = 1 / tiny - tiny / 2 * (logarithm * (1 + square / 2) + LONG(0.5) + square * 5 / 8)
    large = np.maximum(x, LONG(50))
    term = far = np.sqrt(PI / (2 * large))
    for k in range(1, 40):
        term = term * (4 * order * order - (2 * k - 1) ** 2) / (k * 8 * large)
        far = far + term
    fall = 1 if scaled else np.exp(-np.minimum(x, LONG(20000)))
    grow = np.exp(tiny) if scaled else 1
    found = np.where(x < 1e-3, first * grow, np.where(x > 50, far, near) * fall)
    return np.where(x == 0, np.inf, np.where(x == np.inf, 0, np.where(x > 0, found, np.nan)))


def dawson(x):
    """G. Rybicki, "Dawson's integral and the sampling theorem" (1989): the sum of exp(-(x - n h)**2) / n over odd n."""
    x = np.asarray(x, LONG)
    size, step = np.minimum(np.abs(x), 60), LONG(1) / 5
    start = 2 * np.rint(size / (2 * step))
    total = sum(np.exp(-(size - (start + n) * step) ** 2) / (start + n) for n in range(-35, 36, 2))
    near = term = size
    for k in range(1, 30):
        term = term * -2 * size * size / (2 * k + 1)
        near = near + term
    w = 1 / np.maximum(np.abs(x), 60)
    far = w / 2 * (1 + w**2 / 2 * (1 + w**2 * 3 / 2 * (1 + w**2 * 5 / 2 * (1 + w**2 * 7 / 2))))
    found = np.where(size < 0.5, near, np.where(np.abs(x) < 60, total / np.sqrt(PI), far))
    return np.where(np.isnan(x), x, np.copysign(found, x))


def expint(x):
    """Ei(x): its series, the asymptotic one beyond 45; below -2 by the continued fraction of E1."""
    x = np.asarray(x, LONG)
    inside = np.minimum(np.maximum(x, -2), 45)
    term, total = np.ones_like(inside), np.zeros_like(inside)
    for k in range(1, 200):
        term = term * inside / k
        total = total + term / k
    near = EULER_GAMMA + np.log(np.abs(inside)) + total
    large = np.maximum(x, 45)
    term = total = np.ones_like(large)
    for k in range(1, 44):
        term = term * k / large
        total = total + term
    far = np.exp(np.minimum(large, 12000)) / large * total
    size = np.minimum(np.maximum(-x, 2), 12000)
    fraction = size + 400
    for k in range(200, 0, -1):
        fraction = size + k / (1 + k / fraction)
    found = np.where(x > 45, np.where(x == np.inf, x, far), np.where(x < -2, -np.exp(-size) / fraction, near))
    return np.where(np.isnan(x), x, np.where(x == 0, -np.inf, np.where(x == -np.inf, LONG("-0.0"), found)))


def _quarters(x):
    """x**2 less multiples of 4, without rounding for a float64 x: the square in two parts, by halves of x."""
    x = np.minimum(x, 1e18)
    high = x.astype(np.float64).astype(np.float32).astype(LONG)
    low = x - high
    parts = [high * high, 2 * high * low, low * low]
    return sum(p - 4 * np.rint(p / 4) for p in parts)


def fresnel(x):
    """(S(x), C(x)): series up to 1.8; beyond by integrals of exp(-pi r**2 / 2) over (r/x)**4 + 1."""
    x = np.asarray(x, LONG)
    size = np.minimum(np.abs(x), LONG(1.8))
    angle = PI / 2 * size * size
    s, c, term = np.zeros_like(size), np.zeros_like(size), size
    for k in range(60):
        c, s = (c + term / (2 * k + 1), s) if k % 2 == 0 else (c, s + term / (2 * k + 1))
        term = term * angle / (k + 1) * (-1 if k % 2 else 1)
    large = np.where(np.isfinite(x), np.maximum(np.abs(x), LONG(1.8)), 1e18)
    f, g = np.ones_like(large) / 2, np.zeros_like(large)
    for k in range(1, 80):
        r = LONG(k) / 14
        weight = np.exp(-PI * r * r / 2) / ((r / large) ** 4 + 1)
        f, g = f + weight, g + weight * (r / large) ** 2
    f, g = (v * np.sqrt(LONG(2)) / (PI * 14 * large) for v in (f, g))
    turned = PI / 2 * _quarters(large)
    far = 0.5 - f * np.cos(turned) - g * np.sin(turned), 0.5 + f * np.sin(turned) - g * np.cos(turned)
    found = [np.where(np.abs(x) < 1.8, a, np.where(np.isinf(x), LONG(0.5), b)) for a, b in zip((s, c), far, strict=True)]
    return tuple(np.where(np.isnan(x), x, np.copysign(v, x)) for v in found)


def spence(x):
    """The integral of log(t) / (1 - t) from 1 to x: Li2(1 - x) by its series, after the steps to 1/x and 1 - x."""
    x = np.asarray(x, LONG)
    safe = np.where((x > 0) & (x < np.inf), x, 1)
    turned = safe > 1
    y = np.where(turned, 1 / safe, safe)                    # in (0, 1]
    flipped = y < 0.5
    w = np.where(flipped, y, 1 - y)                         # Li2 of it
    near_one = np.where(turned, (safe - 1) / safe, 1 - safe)
    w = np.where(flipped, y, near_one)
    total = sum(w**k / (k * k) for k in range(70, 0, -1))
    value = np.where(flipped, PI * PI / 6 - np.log(y) * np.log1p(-np.where(flipped, y, 0)) - total, total)
    value = np.where(turned, -np.log(safe) ** 2 / 2 - value, value)
    return np.where(x == 0, PI * PI / 6, np.where(x == np.inf, -np.inf, np.where(x > 0, value, np.nan)))


def log_ndtr(x):
    """log(P(X <= x)) for a standard normal X."""
    x = np.asarray(x, LONG)
    below = np.minimum(x, -1)
    with np.errstate(all="ignore"):
        tail = np.log(erfcx(-below * np.sqrt(LONG(0.5))) / 2) - below * below / 2
    z = np.maximum(x, -1) * np.sqrt(LONG(0.5))
    known = z.astype(np.float64)
    upper = erfc(known) - 2 / np.sqrt(PI) * np.exp(-z * z) * np.where(np.isfinite(z), z - known, 0)
    body = np.log1p(-upper / 2)
    return np.where(np.isnan(x), x, np.where(x < -1, tail, body))
