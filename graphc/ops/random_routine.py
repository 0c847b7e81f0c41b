"""Random numbers whose making takes attempts: of the gamma and the Poisson distribution.

Each element counts its attempts on its own: its value is a function of the seed, its number and its parameter alone. The
seed is a tensor, drawn anew in each run.
"""
from __future__ import annotations

import math

import numpy as np

from graphc.errors import DTypeError, RuleError, RunError
from graphc.ir.op import Items
from graphc.ir.types import same_shape
from graphc.ops.define import common_dtype, sample
from graphc.ops.routine import cos64, exp64, fail, floor64, highest, lgamma64, log64, routine, sqrt64, uniform64, wide
from graphc.ops.samples import integer, positive, real

NO_GRADIENT = "numbers that are accepted or rejected jump when the parameters change; graphc.random_gamma knows a way round"
LARGE_MEAN = 10  # from here on by rejection


def _type(parameter, number, seed):
    common_dtype([parameter], ["parameter"], "float")
    for name, type_ in (("number", number), ("seed", seed)):
        if type_.dtype.short != "i64":
            raise RuleError(f"the {name} must be int64", f"it is {type_.dtype.name}", DTypeError)
    same_shape(number.shape, parameter.shape, "the numbers have another shape than the parameters")
    same_shape(seed.shape, (2,), "the seed has another shape")
    return parameter


def _items(name: str, message: str):
    return lambda types, result, attrs: Items(
        (types[0].elements,), dict.fromkeys((name, "number", "y"), (1,)), failures=((name, message, None),),
        work=types[0].elements * 200)


def _check(valid, values, name: str, message: str) -> None:
    if not np.all(valid):
        at = tuple(int(k) for k in np.argwhere(~valid)[0])
        place = f"{name}[{', '.join(map(str, at))}]" if at else name
        raise RunError(f"{message}: {place} = {values[at]}")


def _samples(*parameters):
    return [sample(p, integer(*p.shape, low=0, high=2**40, dtype="int64"), integer(2, low=0, high=2**32, dtype="int64"))
            for p in parameters]


def _errors(message: str):
    bad = real(3, low=-2, high=-1)
    return [(sample(bad, integer(3), integer(2)), message), (sample(integer(3), integer(3), integer(2)), "not accepted"),
            (sample(positive(3), integer(3, dtype="int32"), integer(2)), "the number must be int64"),
            (sample(positive(3), integer(4), integer(2)), "another shape than the parameters"),
            (sample(positive(3), integer(3), integer(3)), "the seed has another shape")]


BAD_ALPHA = "alpha must be positive and finite"


def _gamma_row(alpha, number, seed, y):
    a = wide(alpha, 0) + alpha[0]
    if not (a > 0 and a < highest(alpha)):
        fail(0, 0, alpha[0])
    else:
        d = a - 1 / 3
        if a < 1:
            d = a + 2 / 3
        attempt, open_, value = 1, True, wide(alpha, 0)
        while open_:
            normal = sqrt64(-2 * log64(uniform64(number[0], attempt, seed[0], seed[1]))) * cos64(
                6.283185307179586 * uniform64(number[0], attempt + 1, seed[0], seed[1]))
            root = 1 + normal / sqrt64(9 * d)
            v = root * root * root
            if v > 0:
                limit = 0.5 * normal * normal + d - d * v + d * log64(v)
                open_ = log64(uniform64(number[0], attempt + 2, seed[0], seed[1])) >= limit
            value = d * v
            attempt += 3
        if a < 1:
            value = value * exp64(log64(uniform64(number[0], 0, seed[0], seed[1])) / a)
        y[0] = value


def _gamma_numpy(alpha, number, seed):
    wide_ = alpha.astype(np.float64)
    _check((wide_ > 0) & np.isfinite(wide_), alpha, "alpha", BAD_ALPHA)
    d = np.where(wide_ < 1, wide_ + 1, wide_) - 1 / 3
    found, open_, attempt = np.zeros(alpha.shape), np.ones(alpha.shape, bool), 1
    while open_.any():
        first, second, u = (uniform64(number, attempt + k, *seed) for k in range(3))
        normal = np.sqrt(-2 * np.log(first)) * np.cos(2 * math.pi * second)
        v = (1 + normal / np.sqrt(9 * d)) ** 3
        good = (v > 0) & (np.log(u) < 0.5 * normal * normal + d - d * v + d * np.log(np.where(v > 0, v, 1)))
        found = np.where(open_ & good, d * v, found)
        open_ &= ~good
        attempt += 3
    boost = uniform64(number, 0, *seed)  # gamma(alpha) is gamma(alpha + 1) times a uniform number to the power of 1 / alpha
    return (found * np.where(wide_ < 1, np.exp(np.log(boost) / np.where(wide_ < 1, wide_, 1)), 1)).astype(alpha.dtype)


gamma_draws = routine(
    "gamma_draws", "alpha number seed",
    doc="A number of the gamma distribution of shape alpha and scale 1 for each element (G. Marsaglia and W. Tsang, A simple "
        "method for generating gamma variables, 2000). alpha <= 0 is a run-time error.",
    infer=_type, row=_gamma_row, items=_items("alpha", BAD_ALPHA), numpy=_gamma_numpy, grad=NO_GRADIENT,
    samples=_samples(positive(3, 4), positive(), positive(0, 4), real(20, low=0.01, high=0.9), real(20, low=5, high=90)),
    errors=_errors(BAD_ALPHA), ulp=2000)

BAD_MEAN = "the mean must be finite and at least 0"


def _poisson_row(mean, number, seed, y):
    """By inversion for small means; for others W. Hoermann's PTRS, "The transformed rejection method for generating Poisson
    random variables" (1993).
    """
    m = wide(mean, 0) + mean[0]
    if not (m >= 0 and m < highest(mean)):
        fail(0, 0, mean[0])
    elif m < 10:
        u, term, k = uniform64(number[0], 0, seed[0], seed[1]), exp64(-m), wide(mean, 0)
        total = term
        while u >= total and k < 199:
            k += 1
            term = term * m / k
            total += term
        y[0] = k
    else:
        root = sqrt64(m)
        b = 0.931 + 2.53 * root
        a = -0.059 + 0.02483 * b
        inverse, v_r, log_m = 1.1239 + 1.1328 / (b - 3.4), 0.9277 - 3.6224 / (b - 2), log64(m)
        attempt, open_, value = 1, True, wide(mean, 0)
        while open_:
            u = uniform64(number[0], attempt, seed[0], seed[1]) - 0.5
            v = uniform64(number[0], attempt + 1, seed[0], seed[1])
            us = 0.5 + u if u < 0 else 0.5 - u
            value = floor64((2 * a / us + b) * u + m + 0.43)
            if us >= 0.07 and v <= v_r:
                open_ = False
            elif value >= 0 and (us >= 0.013 or v <= us):
                open_ = log64(v * inverse / (a / (us * us) + b)) > value * log_m - m - lgamma64(value + 1)
            attempt += 2
        y[0] = value


def _poisson_numpy(mean, number, seed):
    wide_ = mean.astype(np.float64)
    _check((wide_ >= 0) & np.isfinite(wide_), mean, "mean", BAD_MEAN)
    small = wide_ < LARGE_MEAN
    found = np.where(small, _inverted(np.where(small, wide_, 0), uniform64(number, 0, *seed)), 0)
    m = np.where(small, LARGE_MEAN, wide_)
    b = 0.931 + 2.53 * np.sqrt(m)
    a = -0.059 + 0.02483 * b
    inverse, v_r = 1.1239 + 1.1328 / (b - 3.4), 0.9277 - 3.6224 / (b - 2)
    open_, attempt = ~small, 1
    while open_.any():
        u, v = uniform64(number, attempt, *seed) - 0.5, uniform64(number, attempt + 1, *seed)
        us = 0.5 - np.abs(u)
        k = np.floor((2 * a / us + b) * u + m + 0.43)
        quick = (us >= 0.07) & (v <= v_r)
        never = (k < 0) | (us < 0.013) & (v > us)
        slow = np.log(v * inverse / (a / (us * us) + b)) <= k * np.log(m) - m - lgamma64(np.maximum(k, 0) + 1)
        good = quick | ~never & slow
        found = np.where(open_ & good, k, found)
        open_ &= ~good
        attempt += 2
    return found.astype(mean.dtype)


def _inverted(mean, u):
    """The smallest k whose distribution function is above u, by summing the probabilities."""
    k, term = np.zeros(mean.shape), np.exp(-mean)
    total = term
    for n in range(1, 200):  # of a mean below 10, the rest is less than any u can tell
        above = u >= total
        if not above.any():
            break
        k = np.where(above, n, k)
        term = term * mean / n
        total = total + term
    return k


poisson_draws = routine(
    "poisson_draws", "mean number seed",
    doc="A number of the Poisson distribution for each element, as a float. A negative mean is a run-time error.",
    infer=_type, row=_poisson_row, items=_items("mean", BAD_MEAN), numpy=_poisson_numpy,
    grad="a count changes by jumps", errors=_errors(BAD_MEAN),
    samples=_samples(positive(3, 4), positive(), positive(0, 4), real(20, low=20, high=2000)), ulp=1)
