"""Random numbers whose making takes a loop: gamma, Poisson and shuffles, by the host.

Numbers come from the same counters as those of `graphc.ops.random`; the fourth word of a counter counts attempts. So each
element is a pure function of seeds, run and its place, on every device.
"""
from __future__ import annotations

import math

import numpy as np

from graphc.errors import DTypeError, RuleError, RunError
from graphc.ir.op import REQUIRED, Host, Kind, Op
from graphc.ir.types import TensorType, float32, int32, int64
from graphc.ops.define import as_samples, common_dtype, sample
from graphc.ops.random import philox
from graphc.ops.samples import integer, positive, real
from graphc.ops.special_values import lgamma

SEEDS = {"seed": REQUIRED, "op_seed": REQUIRED}
NO_GRADIENT = "random numbers that are accepted or rejected jump when the parameters change"


class Draws:
    """The uniform and normal numbers of attempt after attempt, one block of words for each element."""

    def __init__(self, shape: tuple[int, ...], run: int, seed: int, op_seed: int):
        element = np.arange(math.prod(shape), dtype=np.uint64).reshape(shape)
        self.place = (element & np.uint64(0xFFFFFFFF)).astype(np.uint32), (element >> np.uint64(32)).astype(np.uint32)
        self.run, self.key = int(run) & 0xFFFFFFFF, (seed, op_seed)

    def pair(self, attempt: int):
        """Two arrays of uniform numbers in (0, 1)."""
        words = philox((*self.place, self.run, attempt), self.key)
        return tuple(((words[k].astype(np.uint64) << np.uint64(20) | words[k + 1].astype(np.uint64) >> np.uint64(12))
                      .astype(np.float64) + 0.5) * 2.0**-52 for k in (0, 2))


def _host(name: str, inputs: str, *, doc: str, infer, numpy, samples, errors=(), attrs=None) -> Op:
    return Op(name, Kind.HOST, tuple(inputs.split()), infer=infer, numpy=numpy, grad=NO_GRADIENT, doc=doc, rule=Host(),
              attrs={**(attrs or {}), **SEEDS}, samples=as_samples(samples), errors=tuple(errors), context=("run",))


def _float_type(x, **_):
    common_dtype([x], ["x"], "float")
    return x


def _gamma_numpy(alpha, *, seed, op_seed, run):
    """G. Marsaglia and W. Tsang, "A simple method for generating gamma variables" (2000)."""
    wide = alpha.astype(np.float64)
    if not np.all(wide > 0):
        raise RunError(f"alpha must be positive: {wide[~(wide > 0)].ravel()[0]}")
    draws = Draws(alpha.shape, run, seed, op_seed)
    d = np.where(wide < 1, wide + 1, wide) - 1 / 3
    found, open_ = np.zeros(alpha.shape), np.ones(alpha.shape, bool)
    attempt = 1
    while open_.any():
        first, second = draws.pair(attempt)
        u, _ = draws.pair(attempt + 1)
        x = np.sqrt(-2 * np.log(first)) * np.cos(2 * math.pi * second)
        v = (1 + x / np.sqrt(9 * d)) ** 3
        good = (v > 0) & (np.log(u) < 0.5 * x * x + d - d * v + d * np.log(np.where(v > 0, v, 1)))
        found = np.where(open_ & good, d * v, found)
        open_ &= ~good
        attempt += 2
    boost, _ = draws.pair(0)  # gamma(alpha) is gamma(alpha + 1) times a uniform number to the power of 1 / alpha
    return (found * np.where(wide < 1, boost ** (1 / np.where(wide < 1, wide, 1)), 1)).astype(alpha.dtype)


random_gamma_1 = _host(
    "random_gamma_1", "alpha",
    doc="A number of the gamma distribution of shape alpha and scale 1 for each element. alpha <= 0 is a run-time error.",
    infer=_float_type, numpy=_gamma_numpy,
    samples=[sample(positive(3, 4), seed=1, op_seed=2), sample(positive(), seed=1, op_seed=2),
             sample(positive(0, 4), seed=1, op_seed=2)],
    errors=[(sample(real(3, low=-2, high=-1), seed=1, op_seed=2), "alpha must be positive"),
            (sample(integer(3), seed=1, op_seed=2), "int64 is not accepted")],
)

LARGE_MEAN = 10  # from here on by rejection


def _poisson_numpy(mean, *, seed, op_seed, run):
    """By inversion for small means; for others W. Hoermann's PTRS, "The transformed rejection method for generating Poisson
    random variables" (1993).
    """
    wide = mean.astype(np.float64)
    if not np.all((wide >= 0) & np.isfinite(wide)):
        raise RunError(f"the mean must be finite and at least 0: {wide[~((wide >= 0) & np.isfinite(wide))].ravel()[0]}")
    draws = Draws(mean.shape, run, seed, op_seed)
    small = wide < LARGE_MEAN
    found = np.where(small, _inverted(np.where(small, wide, 0), draws.pair(0)[0]), 0)
    if small.all():
        return found.astype(mean.dtype)
    m = np.where(small, LARGE_MEAN, wide)
    root = np.sqrt(m)
    b = 0.931 + 2.53 * root
    a = -0.059 + 0.02483 * b
    inverse, v_r = 1.1239 + 1.1328 / (b - 3.4), 0.9277 - 3.6224 / (b - 2)
    open_, attempt = ~small, 1
    while open_.any():
        u, v = draws.pair(attempt)
        u = u - 0.5
        us = 0.5 - np.abs(u)
        k = np.floor((2 * a / us + b) * u + m + 0.43)
        quick = (us >= 0.07) & (v <= v_r)
        never = (k < 0) | (us < 0.013) & (v > us)
        slow = np.log(v * inverse / (a / (us * us) + b)) <= k * np.log(m) - m - lgamma(np.maximum(k, 0) + 1)
        good = quick | ~never & slow
        found = np.where(open_ & good, k, found)
        open_ &= ~good
        attempt += 1
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


random_poisson_1 = _host(
    "random_poisson_1", "mean",
    doc="A number of the Poisson distribution for each element, as a float. A negative mean is a run-time error.",
    infer=_float_type, numpy=_poisson_numpy,
    samples=[sample(positive(3, 4), seed=1, op_seed=2), sample(real(9, low=20, high=2000), seed=1, op_seed=2),
             sample(positive(0, 4), seed=1, op_seed=2)],
    errors=[(sample(real(3, low=-2, high=-1), seed=1, op_seed=2), "the mean must be finite and at least 0")],
)


def _shuffle_type(*, size, dtype, **_):
    if not dtype.is_integer:
        raise RuleError("places are integers", f"not {dtype.name}", DTypeError)
    return TensorType(dtype, (size,))


def _shuffle_numpy(*, size, dtype, seed, op_seed, run):
    words = philox((np.arange(size, dtype=np.uint32), 0, int(run) & 0xFFFFFFFF, 0), (seed, op_seed))
    keys = words[0].astype(np.uint64) << np.uint64(32) | words[1]
    return np.argsort(keys, kind="stable").astype(dtype.numpy)


random_permutation = _host(
    "random_permutation", "", attrs={"size": REQUIRED, "dtype": int64},
    doc="The numbers 0 ... size - 1 in random order, by sorting random keys.",
    infer=_shuffle_type, numpy=_shuffle_numpy,
    samples=[sample(size=7, seed=1, op_seed=2), sample(size=0, seed=1, op_seed=2),
             sample(size=5, dtype=int32, seed=3, op_seed=2)],
    errors=[(sample(size=5, dtype=float32, seed=3, op_seed=2), "places are integers")],
)

# candidates for sampled losses ------------------------------------------------------------------------


def _candidates_type(*, classes, count, log_uniform, **_):
    if not 0 < count <= classes:
        raise RuleError("there are not so many different classes", f"{count} of {classes}")
    return TensorType(int64, (count,)), TensorType(int64, ())


def _candidates_numpy(*, classes, count, log_uniform, seed, op_seed, run):
    draws, drawn, attempt = Draws((2 * count + 16,), run, seed, op_seed), np.zeros(0, np.int64), 0
    while True:
        u, _ = draws.pair(attempt)
        more = np.exp(u * math.log(classes + 1)) - 1 if log_uniform else u * classes
        drawn = np.concatenate([drawn, np.minimum(more.astype(np.int64), classes - 1)])
        places = np.sort(np.unique(drawn, return_index=True)[1])  # where each class appears first
        if places.size >= count:
            return drawn[places[:count]], places[count - 1] + 1
        attempt += 1


unique_candidates = _host(
    "unique_candidates", "", attrs={"classes": REQUIRED, "count": REQUIRED, "log_uniform": False},
    doc="(`count` different class numbers in the order in which they were drawn, how many draws that took). A class is drawn "
        "with equal chance, or with `log_uniform` in proportion to log((k + 2) / (k + 1)).",
    infer=_candidates_type, numpy=_candidates_numpy,
    samples=[sample(classes=50, count=7, seed=1, op_seed=2), sample(classes=5, count=5, log_uniform=True, seed=1, op_seed=2)],
    errors=[(sample(classes=3, count=4, seed=1, op_seed=2), "not so many different classes")],
)
