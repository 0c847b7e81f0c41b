"""Random numbers that depend on a given seed alone: the same at each run, in any graph."""
from __future__ import annotations

import numpy as np

from graphc.errors import DTypeError, RuleError
from graphc.ir import dims
from graphc.ir.op import REQUIRED, Items
from graphc.ir.types import TensorType, int64
from graphc.ops.define import sample
from graphc.ops.random import philox
from graphc.ops.routine import routine
from graphc.ops.samples import integer, real


def _bits_type(seed, *, shape, words):
    if seed.dtype.short not in ("i32", "i64"):
        raise RuleError("the seed must be int32 or int64", f"it is {seed.dtype.name}", DTypeError)
    if tuple(seed.shape) != (2,):
        raise RuleError("the seed must have the shape [2]", f"it has rank {seed.rank}")
    return TensorType(int64, (*shape, words))


def _bits_row(seed, y, words, total):
    for element in range(total):
        w, x, u, v = element & 0xFFFFFFFF, (element >> 32) & 0xFFFFFFFF, 0, 0
        low, high = seed[0] & 0xFFFFFFFF, seed[1] & 0xFFFFFFFF
        for _k in range(10):
            # products of 32-bit words wrap as int64, with the right bits
            first, second = w * 0xD2511F53, u * 0xCD9E8D57
            w, x, u, v = (((second >> 32) & 0xFFFFFFFF) ^ x ^ low, second & 0xFFFFFFFF,
                          ((first >> 32) & 0xFFFFFFFF) ^ v ^ high, first & 0xFFFFFFFF)
            low, high = (low + 0x9E3779B9) & 0xFFFFFFFF, (high + 0xBB67AE85) & 0xFFFFFFFF
        y[element * words] = w
        if words > 1:
            y[element * words + 1] = x


def _bits_numpy(seed, *, shape, words):
    element = np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.uint64).reshape(shape)
    place = (element & np.uint64(0xFFFFFFFF)).astype(np.uint32), (element >> np.uint64(32)).astype(np.uint32)
    found = philox((*place, 0, 0), [int(s) for s in seed])
    return np.stack(found[:words], axis=-1).astype(np.int64)


stateless_bits = routine(
    "stateless_bits", "seed", attrs={"shape": REQUIRED, "words": REQUIRED},
    doc="One or two words of 32 random bits, as int64, for each element of `shape`: Philox (graphc.ops.random) with the two "
        "numbers of `seed`, of which the lower 32 bits count, as its key.",
    infer=_bits_type, row=_bits_row, numpy=_bits_numpy, grad="random bits depend on no float",
    items=lambda types, result, attrs: Items(
        numbers={"words": attrs["words"], "total": dims.product(attrs["shape"])}, work=result.elements * 60),
    samples=[sample(integer(2, low=-2**31, high=2**31, dtype="int32"), shape=(3, 4), words=2),
             sample(integer(2, low=-2**62, high=2**62), shape=(7,), words=1), sample(integer(2), shape=(0, 2), words=1),
             sample(integer(2), shape=(), words=2)],
    errors=[(sample(integer(3), shape=(2,), words=1), "the shape [2]"),
            (sample(real(2), shape=(2,), words=1), "the seed must be int32 or int64")],
)
