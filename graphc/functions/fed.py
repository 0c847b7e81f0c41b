"""Sizes and places that tensors say when the graph runs: worked out by ordinary nodes, then read as new dims.

A size must be at least 0 when it is read; so what may count from the back, or say -1, is settled here first.
"""
from __future__ import annotations

from collections.abc import Sequence

from graphc.functions.sizes import as_sizes, is_fed, sizes_of
from graphc.ir.dims import Dim, Size
from graphc.ir.node import Node, as_node, is_tensor
from graphc.ir.op import Kind
from graphc.ir.types import int64
from graphc.ops import assemble, compare, elementwise, index, movement, reduce


def as_number(value) -> Node:
    """A size, coordinate or tensor of them as an int64 tensor."""
    if isinstance(value, Dim):
        return index.dim_value(dim=value)
    if is_tensor(value):
        node = as_node(value)
        return node if node.dtype is int64 else compare.cast(node, dtype=int64)
    return as_node(value, int64)


def vector(values: Sequence) -> Node:
    """Scalars side by side, as int64."""
    return assemble.concat_values(*(movement.reshape_to(as_number(v), shape=(1,)) for v in values), axis=0)


def read(values: Sequence[Node], what: str) -> tuple[Size, ...]:
    """Scalar tensors as sizes."""
    return tuple(sizes_of(vector(values), what).tolist()) if any(is_fed(v) for v in values) else as_sizes(vector(values), what)


def filled_shape(shape, elements: Size, what: str):
    """`shape` with the -1 that a fed shape may hold replaced by what is left of `elements`; as it is when nothing is fed."""
    if not is_tensor(shape) or not is_fed(shape) or as_node(shape).op.kind in (Kind.VIEW, Kind.ASSEMBLE):
        return shape
    sizes = as_number(shape)
    hole = compare.equal(sizes, -1)
    others = reduce.reduce_prod(compare.select(hole, as_number(1), sizes), axes=(0,))
    rest = compare.floordiv_int(as_number(elements), elementwise.maximum(others, 1))
    return compare.select(hole, rest, sizes)


def slice_bounds(start, stop, step: int, size: Size, what: str) -> tuple[Size, int, Size]:
    """(begin, step, how many) of a Python slice along an axis of `size`, whose ends may be scalar tensors: clamped as Python
    does.
    """
    length = as_number(size)
    low, high = as_number(0 if step > 0 else -1), length if step > 0 else elementwise.subtract(length, 1)

    def place(end, default: Node) -> Node:
        if end is None:
            return default
        given = as_number(end)
        given = compare.select(compare.less(given, 0), given + length, given)
        return elementwise.minimum(elementwise.maximum(given, low), high)
    first, last = (place(start, low), place(stop, high)) if step > 0 else (place(start, high), place(stop, low))
    span = elementwise.maximum(last - first if step > 0 else first - last, 0)
    count = compare.floordiv_int(span + (abs(step) - 1), abs(step))
    begin = first if step > 0 else elementwise.maximum(first, 0)
    found = read((begin, count), what)
    return found[0], step, found[1]


def row_sizes(begin, size, shape: Sequence[Size], what: str) -> tuple[tuple[Size, ...], tuple[Size, ...]]:
    """(begin, size) of a slice as sizes, where either may be fed and a size of -1 is all the rest."""
    first = as_sizes(begin, what)
    if is_tensor(size) and is_fed(size):
        given, starts, lengths = as_number(size), vector(first), vector(shape)
        size = compare.select(compare.equal(given, -1), lengths - starts, given)
    sizes = as_sizes(size, what)
    return first, tuple(d - b if isinstance(s, int) and s == -1 else s for b, s, d in zip(first, sizes, shape, strict=False))


def counted(start, limit, delta, what: str) -> Node:
    """start, start + delta, ... below limit, of arguments that only a run can tell, in the dtype of those that are tensors."""
    kind = next(as_node(v).dtype for v in (start, limit, delta) if is_tensor(v))
    begin, end, step = (as_node(v, kind, what) for v in (start, limit, delta))
    if kind.is_integer:
        begin, end, step = (as_number(v) for v in (begin, end, step))
        span = compare.select(compare.greater(step, 0), end - begin + step - 1, end - begin + step + 1)
        count = elementwise.maximum(compare.floordiv_int(span, step), 0)
    else:
        count = compare.cast(elementwise.maximum(compare.ceil((end - begin) / step), 0), dtype=int64)
    size = sizes_of(count, what).item()
    return compare.cast(begin + compare.cast(index.iota(shape=(size,), axis=0), dtype=begin.dtype) * step, dtype=kind)
