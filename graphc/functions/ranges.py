"""Numbers in a row: `range` and `linspace`."""
from __future__ import annotations

import numpy as np

from graphc.errors import ArgumentError, report
from graphc.functions.fed import counted
from graphc.functions.sizes import as_size, is_fed
from graphc.ir import dims
from graphc.ir.dims import Dim
from graphc.ir.node import Node, as_node, dtype_of, is_tensor
from graphc.ir.types import as_dtype, float32, int32, int64
from graphc.ops import compare, elementwise, index


def range(start, limit=None, delta=1, dtype=None, name="range") -> Node:
    """start, start + delta, ... below limit (above it when delta is negative); range(n) starts at 0.

    The arguments are numbers or scalar tensors. int32, or float32 when one is a float, or the tensors' dtype, unless `dtype`
    says otherwise. How many there are may depend on tensors: `range(n)` has the size that n says, as `zeros([n])` has.
    """
    start, limit = (0, start) if limit is None else (start, limit)
    given = [start, limit, delta]
    if not is_tensor(delta) and delta == 0:
        raise report(ArgumentError, f"range: {start}, {limit}, {delta}", rule="delta must not be 0")
    floating = any(is_tensor(v) and dtype_of(v).is_floating for v in given)
    counts_to = not is_tensor(start) and start == 0 and not is_tensor(delta) and delta == 1
    if floating or is_fed(given) and not counts_to:
        found = counted(start, limit, delta, "range")
        return compare.cast(found, dtype=as_dtype(dtype or found.dtype), name=name)
    if all(not isinstance(v, float | np.floating) for v in given):
        begin, end, step = (as_size(v, "range") for v in given)
        if not isinstance(step, int) or step == 0:
            raise report(ArgumentError, f"range: delta is {step}", rule="it must be a number, and not 0")
        count = dims.floordiv(dims.maximum((end - begin) * (1 if step > 0 else -1), 0) + (abs(step) - 1), abs(step))
        kind = as_dtype(dtype) if dtype is not None else next((dtype_of(v) for v in given if is_tensor(v)), int32)
        if isinstance(count, int) and isinstance(begin, int):
            return as_node(begin + step * np.arange(count), kind, "range", name)
        steps = index.iota(shape=(count,), axis=0, dtype=int64) * step
        return compare.cast(steps + compare.cast(index.dim_value(dim=begin), dtype=int64), dtype=kind, name=name)
    count = max(int(np.ceil((limit - start) / delta)), 0)
    return as_node(start + delta * np.arange(count), float32 if dtype is None else as_dtype(dtype), "range", name)


def linspace(start, stop, num, name="linspace") -> Node:
    """`num` numbers at equal distances from `start` to `stop`, both included; float32, or a NumPy start's dtype."""
    dtype = as_dtype(start.dtype) if isinstance(start, np.floating | np.ndarray) else float32
    count = as_size(num, "linspace")
    if isinstance(count, int) and count < 1:
        raise report(ArgumentError, f"linspace: num is {count}", rule="it must be at least 1")
    if isinstance(count, Dim):
        kind = dtype_of(start) if is_tensor(start) else dtype_of(stop) if is_tensor(stop) else dtype
        first, last = (as_node(v, kind, "linspace") for v in (start, stop))
        steps = compare.cast(elementwise.maximum(index.dim_value(dim=count) - 1, 1), dtype=kind)
        parts = compare.cast(index.iota(shape=(count,), axis=0), dtype=kind)
        return elementwise.add(parts * ((last - first) / steps), first, name=name)
    if is_tensor(start) or is_tensor(stop):
        parts = compare.cast(index.iota(shape=(count,), axis=0), dtype=dtype_of(start if is_tensor(start) else stop))
        return elementwise.add(parts * ((stop - start) / max(count - 1, 1)), start, name=name)
    return as_node(np.linspace(start, stop, count), dtype, "linspace", name)


lin_space = linspace  # the older name
