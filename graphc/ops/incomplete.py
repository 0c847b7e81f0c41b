"""Incomplete gamma and beta functions, element by element: loops that end when nothing changes any more, in float64.

Kernels and NumPy rules take the same series and continued fractions (`incomplete_values` names them); the kernels take the
factor in front of those of the gamma function by Stirling's formula where a is large, where that is more exact.
"""
from __future__ import annotations

import numpy as np

from graphc.ir.op import Batch, Items
from graphc.ir.types import same_shape
from graphc.ops import incomplete_values as values
from graphc.ops.compare import where
from graphc.ops.composite import full_like
from graphc.ops.define import common_dtype, sample
from graphc.ops.routine import digamma64, exp64, highest, lgamma64, log1p64, log64, routine, sqrt64, wide
from graphc.ops.samples import integer, positive, real
from graphc.ops.special import digamma, lgamma
from graphc.ops.transcendental import exp, log, xlog1py, xlogy

ULP = 256.0  # at moderate arguments; in float64, far out, as exact as exp of the logarithm of what is in front


def _type(first, *others, **_):
    common_dtype([first, *others], ["a", "x", "b"], "float")
    for other in others:
        same_shape(other.shape, first.shape, "the operands have different shapes")
    return first


def _items(names: str, work: int):
    """An item is an element."""
    return lambda types, result, attrs: Items(
        (types[0].elements,), dict.fromkeys((*names.split(), "y"), (1,)),
        {name: int(value) for name, value in attrs.items()}, work=types[0].elements * work)


def _gamma_row(a, x, y, upper):
    """Series and fraction are in units of x**a exp(-x) / gamma(a); the fraction by Lentz's method."""
    s, z = wide(a, 0) + a[0], wide(x, 0) + x[0]
    part, low = wide(a, 0), z < s + 1
    if not (s > 0 and z >= 0) or (s == highest(a) and z == s):
        part = wide(a, 0) + (highest(a) - highest(a))
    elif z == 0 or s == highest(a):
        low = True
    elif z == highest(x):
        low = False
    else:
        if s < 10:
            front = exp64(s * log64(z) - z - lgamma64(s))
        else:
            d, w = (z - s) / s, 1 / (s * s)
            fall = 1 / 12 - w * (1 / 360 - w * (1 / 1260 - w * (1 / 1680 - w * (1 / 1188 - w * (691 / 360360 - w / 156)))))
            front = sqrt64(s * 0.15915494309189535) * exp64(s * (log1p64(d) - d) - fall / s)
        if low:
            term, n = 1 / s, s
            part = term
            while term > part * 1e-17:
                n += 1
                term *= z / n
                part += term
        else:
            b, k, step = z + 1 - s, wide(a, 0), wide(a, 2)
            c, d = wide(a, 1) * 1e300, 1 / b
            part = d
            while (step - 1 > 1e-15 or 1 - step > 1e-15) and k < 20000:
                k += 1
                b += 2
                factor = -k * (k - s)
                d = factor * d + b
                if d == 0:
                    d = wide(a, 1) * 1e-300
                c = b + factor / c
                if c == 0:
                    c = wide(a, 1) * 1e-300
                d = 1 / d
                step = c * d
                part *= step
        part *= front
    if low == upper:
        part = 1 - part
    y[0] = part


_GAMMA = [sample(positive(3, 4), positive(3, 4)), sample(positive(), positive()),
          sample(real(6, low=11, high=30), real(6, low=5, high=40)), sample(positive(0, 5), positive(0, 5)),
          sample(positive(5), real(5, low=6, high=12))]
_ERRORS = [(sample(positive(3), positive(4)), "different shapes"), (sample(integer(3), integer(3)), "int64 is not accepted")]


def _density(a, x):
    return exp(xlogy(a - 1, x) - x - lgamma(a))


def _gamma_grad(sign: float):
    def grad(dy, y, a, x):
        by_x = sign * dy * _density(a, x)
        return [-by_x * gamma_slope(a, x), by_x]
    return grad


def _incomplete_gamma(name: str, upper: bool, doc: str):
    return routine(
        name, "a x", doc=f"{doc} NaN for a <= 0 or x < 0. The second derivative by a is NaN: no formula is known to graphc.",
        infer=_type, row=_gamma_row, items=lambda types, result, attrs: _items("a x", 400)(types, result, {"upper": upper}),
        numpy=lambda a, x: values.igamma(a, x, upper).astype(a.dtype), grad=_gamma_grad(-1.0 if upper else 1.0),
        samples=_GAMMA, errors=_ERRORS, batch=Batch(), ulp=ULP, orders=1)


igamma = _incomplete_gamma("igamma", False, "The lower incomplete gamma function P(a, x): the distribution function at x of a "
                                            "gamma distribution of shape a.")
igammac = _incomplete_gamma("igammac", True, "The upper incomplete gamma function Q(a, x) = 1 - P(a, x).")


def _slope_row(a, x, y):
    s, z = wide(a, 0) + a[0], wide(x, 0) + x[0]
    if not (s > 0 and z > 0) or s == highest(a) or z == highest(x):
        y[0] = highest(a) - highest(a)
    elif z < s + 1:
        term, n = 1 / s, s
        total, inverses = term, term
        slope = -term * inverses
        while term * inverses > -slope * 1e-17:
            n += 1
            term *= z / n
            inverses += 1 / n
            total += term
            slope -= term * inverses
        y[0] = -z * (total * (log64(z) - digamma64(s)) + slope)
    else:
        b, k = z + 1 - s, wide(a, 0)
        p, q, before_p, before_q = wide(a, 1), b, wide(a, 0), wide(a, 1)
        dp, dq, before_dp, before_dq = wide(a, 0), wide(a, -1), wide(a, 0), wide(a, 0)
        found = 1 / b
        slope, moves = found * found, True
        while moves and k < 20000:
            k += 1
            b += 2
            factor = -k * (k - s)
            next_dp, next_dq = b * dp - p + factor * before_dp + k * before_p, b * dq - q + factor * before_dq + k * before_q
            next_p, next_q = b * p + factor * before_p, b * q + factor * before_q
            scale = wide(a, 1)
            if next_q > 1e100 or next_q < -1e100:
                scale = 1e-100
            before_dp, before_dq, before_p, before_q = dp * scale, dq * scale, p * scale, q * scale
            dp, dq, p, q = next_dp * scale, next_dq * scale, next_p * scale, next_q * scale
            was, was_slope = found, slope
            found = p / q
            slope = (dp - found * dq) / q
            was, was_slope = found - was, slope - was_slope
            moves = was * was > 1e-30 * found * found or was_slope * was_slope > 1e-30 * (slope * slope + found * found)
        y[0] = z * (found * (log64(z) - digamma64(s)) + slope)


def _slope_grad(dy, y, a, x):
    """By x: the slope of -(dP/da) / (dP/dx), whose second factor is the density."""
    return [full_like(a, np.nan), -dy * (log(x) - digamma(a) + y * ((a - 1) / x - 1))]


gamma_slope = routine(
    "gamma_slope", "a x",
    doc="How far x moves with a, while the incomplete gamma function P(a, x) stays: -(dP/da) / (dP/dx). It makes samples of a "
        "gamma distribution differentiable by its shape (Figurnov, Mohamed and Mnih, Implicit reparameterization gradients, "
        "2018). Its own gradient by a is NaN: no formula is known to graphc.",
    infer=_type, row=_slope_row, items=_items("a x", 800), numpy=lambda a, x: values.gamma_slope(a, x).astype(a.dtype),
    grad=_slope_grad, samples=_GAMMA, errors=_ERRORS, batch=Batch(), ulp=1000, orders=0)


def _beta_row(a, b, x, y):
    p, q, z = wide(a, 0) + a[0], wide(b, 0) + b[0], wide(x, 0) + x[0]
    if not (p > 0 and q > 0 and z >= 0 and z <= 1) or p == highest(a) or q == highest(b):
        y[0] = highest(a) - highest(a)
    elif z == 0 or z == 1:
        y[0] = z
    else:
        low = z * (p + q + 2) < p + 1
        front = exp64(lgamma64(p + q) - lgamma64(p) - lgamma64(q) + p * log64(z) + q * log1p64(-z))
        if not low:
            p, q, z = q, p, 1 - z
        c, d, k, step = wide(a, 1), 1 - (p + q) * z / (p + 1), wide(a, 0), wide(a, 2)
        if d == 0:
            d = 1e-300
        d = 1 / d
        part = d
        while (step - 1 > 1e-15 or 1 - step > 1e-15) and k < 20000:
            k += 1
            for half in range(2):
                factor = k * (q - k) * z / ((p + 2 * k - 1) * (p + 2 * k))
                if half == 1:
                    factor = -(p + k) * (p + q + k) * z / ((p + 2 * k) * (p + 2 * k + 1))
                d = 1 + factor * d
                if d == 0:
                    d = 1e-300
                c = 1 + factor / c
                if c == 0:
                    c = 1e-300
                d = 1 / d
                step = c * d
                part *= step
        part *= front / p
        if not low:
            part = 1 - part
        y[0] = part


def _beta_grad(dy, y, a, b, x):
    inside = (x > 0) & (x < 1)
    at = where(inside, x, 0.5)
    density = exp(xlogy(a - 1, at) + xlog1py(b - 1, -at) + lgamma(a + b) - lgamma(a) - lgamma(b))
    return [None, None, dy * where(inside, density, 0)]


betainc = routine(
    "betainc", "a b x",
    doc="The regularised incomplete beta function: the distribution function at x of a beta distribution. NaN for a <= 0, "
        "b <= 0 or x outside [0, 1]. No gradient flows to a and b, as in TensorFlow.",
    infer=_type, row=_beta_row, items=_items("a b x", 400), numpy=lambda a, b, x: values.betainc(a, b, x).astype(a.dtype),
    grad=_beta_grad, nondiff=("a", "b"), batch=Batch(operands="same"), ulp=ULP,
    samples=[sample(positive(3, 4), positive(3, 4), real(3, 4, low=0.05, high=0.95)),
             sample(positive(), positive(), real(low=0.1, high=0.9)),
             sample(real(6, low=11, high=30), real(6, low=5, high=40), real(6, low=0.2, high=0.8)),
             sample(positive(0, 5), positive(0, 5), positive(0, 5))],
    errors=[(sample(positive(3), positive(4), positive(3)), "different shapes"),
            (sample(integer(3), integer(3), integer(3)), "int64 is not accepted")])
