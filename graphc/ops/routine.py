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


def wide(x, number):
    """`number` as what sums of x's elements are taken in: float64 for floats, 64 bits for integers."""
    return float(number) if x.dtype.kind == "f" else int(number)


def lowest(x):
    """The smallest value of x's dtype: -inf for floats."""
    return x.dtype.type(-np.inf) if x.dtype.kind == "f" else np.iinfo(x.dtype).min


def highest(x):
    """The largest value of x's dtype: inf for floats."""
    return x.dtype.type(np.inf) if x.dtype.kind == "f" else np.iinfo(x.dtype).max


def fail(number, element, value):
    """The run has failed: `value` is wrong, which is at `element` of the item's part of an input. The item goes on safely."""
    raise RunError(f"failure {number} at element {element}: {value}")


def routine(name: str, inputs: str, *, doc: str, row: Callable, items: Callable, infer, numpy, grad, samples, attrs=None,
            errors=(), nondiff=(), batch: Batch | None = None) -> Op:
    """An op that computes items by scalar code of its own. `row` and `items` as in graphc.ir.op.Routine."""
    return Op(name, Kind.ROUTINE, tuple(inputs.split()), infer=infer, numpy=numpy, grad=grad, doc=doc, attrs=attrs or {},
              rule=Routine(row, items), samples=as_samples(samples), errors=tuple(errors), nondiff=tuple(nondiff),
              batch=batch)


def along(shape: Sequence[Size], axis: int) -> tuple[tuple[Size, Size], tuple[Size, Size], Size, Size]:
    """For items that each take one line along `axis` of `shape`: (their axes, their steps, the line's length and stride)."""
    inner = dims.product(shape[axis + 1:])
    return (dims.product(shape[:axis]), inner), (shape[axis] * inner, 1), shape[axis], inner
