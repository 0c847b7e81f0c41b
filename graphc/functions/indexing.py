"""`x[...]`: ints, slices with steps and negatives, None, `...`, and one tensor of indices."""
from __future__ import annotations

import numpy as np

from graphc.errors import ArgumentError, ShapeError, report
from graphc.functions.fed import slice_bounds
from graphc.functions.selection import boolean_mask
from graphc.functions.sizes import as_size, is_fed, known_sizes
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.node import OPERATORS, Node, as_node, is_tensor
from graphc.ir.types import int32
from graphc.ops.compare import cast
from graphc.ops.gather import gather_rows
from graphc.ops.movement import reshape_to, strided_slice

WHAT = "x[...]"


def bounds(selection: slice, size: Size) -> tuple[Size, int, Size]:
    """(begin, step, how many) of a Python slice along an axis of `size`, clamped as Python does; exact for dims."""
    step = 1 if selection.step is None else as_size(selection.step, WHAT)
    if not isinstance(step, int) or step == 0:
        raise report(ArgumentError, f"{WHAT}: {selection.step!r:.40} is not a step",
                     rule="a step is a number, and not 0")
    if is_fed([selection.start, selection.stop]):
        return slice_bounds(selection.start, selection.stop, step, size, WHAT)
    start, stop = (None if end is None else as_size(end, WHAT) for end in (selection.start, selection.stop))
    if isinstance(size, int) and all(end is None or isinstance(end, int) for end in (start, stop)):
        begin, _, _ = slice(start, stop, step).indices(size)
        return begin, step, len(range(*slice(start, stop, step).indices(size)))
    if step > 0:
        first = 0 if start is None else _from_front(start, size, clamp=False)
        end = size if stop is None else _from_front(stop, size, clamp=True)
        return first, step, dims.floordiv(dims.maximum(end - first, 0) + (step - 1), step)
    first = size - 1 if start is None else _last(start, size)
    end = -1 if stop is None else _last(stop, size)
    return first, step, dims.floordiv(dims.maximum(first - end, 0) + (-step - 1), -step)


def _is_negative(end: Size) -> bool:
    """Whether `end` counts from the back, as -2 and the dim -N do; the dim N-1 counts from the front."""
    return end < 0 if isinstance(end, int) else all(c < 0 for _, c in end.terms)


def _from_front(end: Size, size: Size, clamp: bool) -> Size:
    """`end` of a forward slice as a coordinate. A start needs no clamp at the back: then the slice is empty."""
    if _is_negative(end):
        return dims.maximum(size + end, 0)
    return dims.minimum(end, size) if clamp else end


def _last(end: Size, size: Size) -> Size:
    """`end` of a backward slice as a coordinate from -1 on: written so that no min or max is of negative dims."""
    if _is_negative(end):
        return dims.maximum(size + end + 1, 0) - 1
    return dims.minimum(end + 1, size) - 1


def position(at: Size, size: Size, x: Node, axis: int) -> tuple[Size, int, Size]:
    """(begin, 1, how many) for one coordinate: 1 where the axis has it, as the reshape behind it checks."""
    if isinstance(at, int) and isinstance(size, int):
        if not -size <= at < size:
            raise report(ShapeError, f"{WHAT}: index out of range", [("x", x.describe())],
                         f"index {at} of axis {axis}, which has {size} elements")
        return at % size, 1, 1
    if _is_negative(at):
        return size + at, 1, dims.minimum(size, -at) - dims.minimum(size, -at - 1)
    return at, 1, dims.minimum(size, at + 1) - dims.minimum(size, at)


def getitem(x, key, name: str | None = None) -> Node:
    """`x[key]` as in NumPy: ints, slices, None (a new axis), `...`, scalar tensors, and at most one tensor or list of
    integers with axes; or a mask of bools alone (see `boolean_mask`).

    Raises ShapeError for an int out of range and for too many indices, ArgumentError for what is no index. A named axis
    is checked when it is bound; an index tensor is checked when it runs, and its indices count from the front only.
    """
    x = as_node(x)
    if is_tensor(key) and as_node(key).dtype.is_bool or isinstance(key, np.ndarray) and key.dtype == bool:
        return boolean_mask(x, key, name or "boolean_mask")
    keys = _expanded(x, key)
    walks: list[tuple[Size, int, Size]] = []
    shape: list[Size] = []   # of the result, without the tensor index
    picks: list[tuple[int, Node]] = []  # (axis of the result, index tensor)
    for item in keys:
        if item is None:
            shape.append(1)
            continue
        axis = len(walks)
        size = x.type.shape[axis]
        if isinstance(item, slice):
            walks.append(bounds(item, size))
            shape.append(walks[-1][2])
        elif _is_index_tensor(item):
            picks.append((len(shape), _indices(item, x)))
            walks.append((0, 1, size))
            shape.append(size)
        else:
            walks.append(position(as_size(item, WHAT), size, x, axis))
    part = x
    if walks != [(0, 1, d) for d in x.type.shape]:
        begin, steps, sizes = (tuple(column) for column in zip(*walks, strict=True))
        part = strided_slice(x, begin=begin, steps=steps, sizes=sizes, name=None if picks else name)
    if tuple(shape) != part.type.shape:
        part = reshape_to(part, shape=tuple(shape))
    if sum(node.type.rank > 0 for _, node in picks) > 1:
        raise report(ArgumentError, f"{WHAT}: two index tensors", [("x", x.describe())],
                     "at most one of them has axes of its own", "use graphc.gather_nd, or one")
    for k, (axis, node) in enumerate(reversed(picks)):  # from the last axis on: the places of the others stay
        part = gather_rows(part, node, axis=axis, name=name if k == len(picks) - 1 else None)
    return part


def _expanded(x: Node, key) -> list:
    """The key's items with `...` replaced and slices for the axes that it leaves out."""
    keys = list(key) if isinstance(key, tuple) else [key]
    dots = [k for k, item in enumerate(keys) if item is Ellipsis]
    taken = sum(item is not None and item is not Ellipsis for item in keys)
    if len(dots) > 1:
        raise report(ArgumentError, f"{WHAT}: `...` appears twice")
    if taken > x.type.rank:
        raise report(ShapeError, f"{WHAT}: too many indices", [("x", x.describe())],
                     f"{taken} indices for rank {x.type.rank}")
    at = dots[0] if dots else len(keys)
    return keys[:at] + [slice(None)] * (x.type.rank - taken) + keys[at + len(dots):]


def _is_index_tensor(item) -> bool:
    if is_tensor(item):
        node = as_node(item)
        known = known_sizes(node)
        return known is None or known.ndim > 0
    return isinstance(item, list) or isinstance(item, np.ndarray) and item.ndim > 0


def _indices(item, x: Node) -> Node:
    node = as_node(item)
    if node.dtype.is_bool:
        raise report(ArgumentError, f"{WHAT}: a mask of bools", [("x", x.describe()), ("mask", node.describe())],
                     "a mask stands alone: x[mask]", "use graphc.boolean_mask(x, mask, axis=...)")
    return node


def index_tensor(indices) -> Node:
    """Indices as int32 or int64: a uint8 would count only to 255."""
    node = as_node(indices, None, "indices")
    return cast(node, dtype=int32) if node.dtype.short == "u8" else node


OPERATORS["getitem"] = getitem
