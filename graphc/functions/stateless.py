"""Public random functions whose numbers depend on `seed` alone, two whole numbers or a tensor of them: the same at each run."""
from __future__ import annotations

import math

from graphc.errors import DTypeError, report
from graphc.functions.sizes import full_shape
from graphc.ir.node import Node, as_node
from graphc.ir.types import as_dtype, float32, float64, int64
from graphc.ops import elementwise, special, transcendental
from graphc.ops.compare import bitwise_and, cast, floormod_int, right_shift
from graphc.ops.movement import reshape_to, strided_slice
from graphc.ops.stateless import stateless_bits

LOWEST = 0.02275013194817921    # of a standard normal number, how much lies below -2


def _words(shape, seed, words: int, what: str) -> list[Node]:
    """Words of 32 random bits, as int64 of the shape."""
    sizes = full_shape(shape, what)
    bits = stateless_bits(as_node(seed), shape=sizes, words=words)
    rank = len(sizes)
    return [reshape_to(strided_slice(bits, begin=(*[0] * rank, k), steps=(1,) * (rank + 1), sizes=(*sizes, 1)), shape=sizes)
            for k in range(words)]


def _unit(shape, seed, dtype, what: str) -> Node:
    """Uniform in [0, 1): multiples of 2**-24, of 2**-53 for float64."""
    if not dtype.is_floating:
        raise report(DTypeError, f"{what}: there are no {dtype.name} numbers of this kind", rule="the dtype is a float")
    if dtype is float64:
        high, low = _words(shape, seed, 2, what)
        return cast(high * 2**21 + right_shift(low, 11), dtype=float64) * 2.0**-53
    unit = cast(right_shift(_words(shape, seed, 1, what)[0], 8), dtype=float32) * 2.0**-24
    return unit if dtype is float32 else cast(unit, dtype=dtype)


def stateless_random_uniform(shape, seed, minval=0, maxval=None, dtype=float32, name=None) -> Node:
    """Uniform numbers in [minval, maxval), by default [0, 1); of integers, which need maxval, evenly but for range / 2**63."""
    dtype, what = as_dtype(dtype), "stateless_random_uniform"
    if dtype.is_integer:
        if maxval is None:
            raise report(DTypeError, f"{what}: integers need a maxval")
        high, low = _words(shape, seed, 2, what)
        whole = bitwise_and(high, 0x7FFFFFFF) * 2**32 + low
        span = cast(as_node(maxval, int64), dtype=int64) - cast(as_node(minval, int64), dtype=int64)
        return cast(floormod_int(whole, span) + cast(as_node(minval, int64), dtype=int64), dtype=dtype, name=name)
    unit = _unit(shape, seed, dtype, what)
    low = as_node(minval, dtype)
    return elementwise.add(unit * (as_node(1 if maxval is None else maxval, dtype) - low), low, name=name)


def stateless_random_normal(shape, seed, mean=0.0, stddev=1.0, dtype=float32, name=None) -> Node:
    """Normal numbers, by Box-Muller from two words."""
    dtype, what = as_dtype(dtype), "stateless_random_normal"
    if not dtype.is_floating:
        raise report(DTypeError, f"{what}: there are no {dtype.name} numbers of this kind", rule="the dtype is a float")
    wide = float64 if dtype is float64 else float32
    first, second = (cast(w, dtype=wide) for w in _words(shape, seed, 2, what))
    radius = elementwise.sqrt(-2.0 * transcendental.log((first + 0.5) * 2.0**-32))
    normal = radius * transcendental.cos(second * (2 * math.pi * 2.0**-32))
    normal = normal if wide is dtype else cast(normal, dtype=dtype)
    return elementwise.add(normal * as_node(stddev, dtype), as_node(mean, dtype), name=name)


def stateless_truncated_normal(shape, seed, mean=0.0, stddev=1.0, dtype=float32, name=None) -> Node:
    """Normal numbers cut at two standard deviations, by inversion of their distribution."""
    dtype = as_dtype(dtype)
    part = LOWEST + _unit(shape, seed, dtype, "stateless_truncated_normal") * (1 - 2 * LOWEST)
    return elementwise.add(special.ndtri(part) * as_node(stddev, dtype), as_node(mean, dtype), name=name)
