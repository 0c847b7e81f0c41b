"""Incomplete gamma and beta functions for the NumPy rules of `graphc.ops.incomplete`, in long doubles.

The series and continued fractions are in Abramowitz and Stegun, Handbook of Mathematical Functions, 6.5.29, 6.5.31, 26.5.8.
"""
from __future__ import annotations

import numpy as np

from graphc.ops.special_values import LONG, digamma, lgamma

TINY, SMALL = LONG(1e-300), LONG(1e-20)
STEPS = 20_000  # more than any argument needs that has a value which is neither 0 nor 1


def _front(a, x):
    """x**a exp(-x) / gamma(a)."""
    return np.exp(a * np.log(x) - x - lgamma(a))


def _series(a, x):
    """(sum of x**n / (a (a + 1) ... (a + n)), its slope by a)."""
    term, n = 1 / a, a
    total, inverses = term, 1 / a
    slope = -term * inverses
    for _ in range(STEPS):
        n = n + 1
        term, inverses = term * x / n, inverses + 1 / n
        total, slope = total + term, slope - term * inverses
        if np.all(term * inverses <= SMALL * np.abs(slope)):
            break
    return total, slope


def _fraction(a, x):
    """(gamma(a, x) / (x**a exp(-x)) as a continued fraction, its slope by a), by its convergents p / q."""
    b = x + 1 - a
    p, q, before_p, before_q = np.ones_like(x), b, np.zeros_like(x), np.ones_like(x)
    dp, dq, before_dp, before_dq = np.zeros_like(x), -np.ones_like(x), np.zeros_like(x), np.zeros_like(x)
    found, slope = p / q, -p * dq / (q * q)
    for k in range(1, STEPS):
        b, factor = b + 2, -k * (k - a)
        new_p, new_q = b * p + factor * before_p, b * q + factor * before_q
        dp, before_dp = b * dp - p + factor * before_dp + k * before_p, dp
        dq, before_dq = b * dq - q + factor * before_dq + k * before_q, dq
        p, before_p, q, before_q = new_p, p, new_q, q
        scale = 1 / np.where(np.abs(q) > 1e100, np.abs(q), 1)
        p, q, before_p, before_q, dp, dq, before_dp, before_dq = (
            v * scale for v in (p, q, before_p, before_q, dp, dq, before_dp, before_dq))
        old, old_slope = found, slope
        found = p / q
        slope = (dp - found * dq) / q
        size = np.abs(found)
        if np.all((np.abs(found - old) <= 1e-18 * size) & (np.abs(slope - old_slope) <= 1e-18 * (np.abs(slope) + size))):
            break
    return found, slope


def _parts(a, x):
    """(long doubles a and x, where the value is to be computed, where by the series, safe a and x for both)."""
    a, x = np.broadcast_arrays(np.asarray(a, LONG), np.asarray(x, LONG))
    plain = (a > 0) & (x > 0) & np.isfinite(a) & np.isfinite(x)
    low = plain & (x < a + 1)
    one = np.ones_like(a)
    series = _series(np.where(low, a, one), np.where(low, x, one))
    fraction = _fraction(np.where(plain & ~low, a, one), np.where(plain & ~low, x, one * 3))
    return a, x, plain, low, series, fraction


def igamma(a, x, upper: bool):
    """The regularised incomplete gamma function: the lower one P(a, x), or Q = 1 - P."""
    a, x, plain, low, (series, _), (fraction, _) = _parts(a, x)
    front = _front(np.where(plain, a, 1), np.where(plain, x, 1))
    part = np.where(low, front * series, front * fraction)
    found = np.where(low == upper, 1 - part, part)
    valid = (a > 0) & (x >= 0) & ~((a == np.inf) & (x == np.inf))
    end = np.where((x == 0) | (a == np.inf), LONG(upper), LONG(not upper))
    return np.where(plain, found, np.where(valid, end, np.nan))


def gamma_slope(a, x):
    """How x moves with a while P(a, x) stays: -(dP/da) / (dP/dx)."""
    a, x, plain, low, (series, by_a), (fraction, fraction_by_a) = _parts(a, x)
    a, x = np.where(plain, a, 1), np.where(plain, x, 1)
    turn = np.log(x) - digamma(a)
    found = np.where(low, -x * (series * turn + by_a), x * (fraction * turn + fraction_by_a))
    return np.where(plain, found, np.nan)


def _beta_fraction(a, b, x):
    """The continued fraction of the incomplete beta function, by Lentz's method."""
    def kept(v):
        return np.where(np.abs(v) < TINY, TINY, v)
    c, d = np.ones_like(x), 1 / kept(1 - (a + b) * x / (a + 1))
    found = d
    for k in range(1, STEPS):
        for factor in (k * (b - k) * x / ((a + 2 * k - 1) * (a + 2 * k)),
                       -(a + k) * (a + b + k) * x / ((a + 2 * k) * (a + 2 * k + 1))):
            d = 1 / kept(1 + factor * d)
            c = kept(1 + factor / c)
            step = c * d
            found = found * step
        if np.all(np.abs(step - 1) <= 1e-18):
            break
    return found


def betainc(a, b, x):
    """The regularised incomplete beta function."""
    a, b, x = np.broadcast_arrays(*(np.asarray(v, LONG) for v in (a, b, x)))
    plain = (a > 0) & (b > 0) & (x > 0) & (x < 1) & np.isfinite(a) & np.isfinite(b)
    a_, b_, x_ = (np.where(plain, v, LONG(0.5)) for v in (a, b, x))
    low = x_ * (a_ + b_ + 2) < a_ + 1
    front = np.exp(lgamma(a_ + b_) - lgamma(a_) - lgamma(b_) + a_ * np.log(x_) + b_ * np.log1p(-x_))
    p, q, z = np.where(low, a_, b_), np.where(low, b_, a_), np.where(low, x_, 1 - x_)
    part = front * _beta_fraction(p, q, z) / p
    valid = (a > 0) & (b > 0) & np.isfinite(a) & np.isfinite(b) & ((x == 0) | (x == 1))
    return np.where(plain, np.where(low, part, 1 - part), np.where(valid, x, np.nan))
