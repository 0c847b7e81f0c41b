"""The short form for routine ops, and the functions that the source of a routine may call.

A routine is compiled from its source, where these names stand for instructions; as Python they do the same on arrays.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphc.errors import RunError
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.op import Batch, Kind, Op, Routine
from graphc.ops.define import as_samples
from graphc.ops.random import philox
from graphc.ops.special_values import digamma, lgamma


def wide(x, number):
    """`number` as what sums of x's elements are taken in: float64 for floats, 64 bits for integers."""
    return float(number) if x.dtype.kind == "f" else int(number)


def lowest(x):
    """The smallest value of x's dtype: -inf for floats."""
    return x.dtype.type(-np.inf) if x.dtype.kind == "f" else np.iinfo(x.dtype).min


def highest(x):
    """The largest value of x's dtype: inf for floats."""
    return x.dtype.type(np.inf) if x.dtype.kind == "f" else np.iinfo(x.dtype).max


# functions of one float64
exp64, log64, log1p64, sqrt64, cos64, floor64 = np.exp, np.log, np.log1p, np.sqrt, np.cos, np.floor
lgamma64, digamma64 = (lambda x: lgamma(x).astype(np.float64)), (lambda x: digamma(x).astype(np.float64))


def uniform64(element, attempt, first, second):
    """A uniform number in (0, 1) for each element (int64) and attempt: 52 bits of Philox with the lower 32 bits of the two
    seeds as its key.
    """
    element = np.asarray(element).astype(np.uint64)
    place = (element & np.uint64(0xFFFFFFFF)).astype(np.uint32), (element >> np.uint64(32)).astype(np.uint32)
    words = philox((*place, 0, attempt), (int(first), int(second)))
    bits = words[0].astype(np.uint64) << np.uint64(20) | words[1].astype(np.uint64) >> np.uint64(12)
    return (bits.astype(np.float64) + 0.5) * 2.0**-52


def fail(number, element, value):
    """The run has failed: `value` is wrong, which is at `element` of the item's part of an input. The item goes on safely."""
    raise RunError(f"failure {number} at element {element}: {value}")


def routine(name: str, inputs: str, *, doc: str, row: Callable, items: Callable, infer, numpy, grad, samples, attrs=None,
            errors=(), nondiff=(), batch: Batch | None = None, ulp: float = 0,
            orders: int | None = None) -> Op:
    """An op that computes items by scalar code of its own. `row`, `items` and `ulp` as in graphc.ir.op.Routine."""
    return Op(name, Kind.ROUTINE, tuple(inputs.split()), infer=infer, numpy=numpy, grad=grad, doc=doc, attrs=attrs or {},
              rule=Routine(row, items, ulp), samples=as_samples(samples), errors=tuple(errors), nondiff=tuple(nondiff),
              batch=batch, orders=orders)


def along(shape: Sequence[Size], axis: int) -> tuple[tuple[Size, Size], tuple[Size, Size], Size, Size]:
    """For items that each take one line along `axis` of `shape`: (their axes, their steps, the line's length and stride)."""
    inner = dims.product(shape[axis + 1:])
    return (dims.product(shape[:axis]), inner), (shape[axis] * inner, 1), shape[axis], inner
