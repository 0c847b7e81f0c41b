"""Public functions that rearrange axes: roll, reverse_sequence, masks of lengths, grids, blocks of space."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import ArgumentError, DTypeError, RuleError, ShapeError, report
from graphc.functions.arrays import concat, pad, stack
from graphc.functions.gathering import checked, gather, number
from graphc.functions.indexing import getitem, index_tensor
from graphc.functions.reduce import one_spelling
from graphc.functions.sizes import as_axis, as_size, as_sizes, full_shape
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.node import Node, TensorShape, as_node, is_tensor
from graphc.ir.types import as_dtype, bool_, broadcast_shapes, int64, shape_text
from graphc.ops import elementwise, movement
from graphc.ops.compare import cast, floormod_int, where
from graphc.ops.index import iota

# along an axis ---------------------------------------------------------------------------------------


def roll(input, shift, axis, name=None) -> Node:
    """The elements moved by `shift` places along `axis`; what leaves at the end comes in at the start. Lists: one for each."""
    x = as_node(input)
    axes = [as_axis(a, x.type.rank, "roll", x) for a in (axis if isinstance(axis, list | tuple) else [axis])]
    shifts = list(shift) if isinstance(shift, list | tuple) else [shift]
    if len(axes) != len(shifts):
        raise report(ArgumentError, "roll: it takes one shift for each axis", [("input", x.describe())],
                     f"{len(shifts)} shifts for {len(axes)} axes")
    for by, at in zip(shifts, axes, strict=True):
        size = x.type.shape[at]
        if isinstance(size, int) and not is_tensor(by):
            by = as_size(by, "roll") % size if size else 0
            ends = (slice(size - by, None), slice(0, size - by))
            x = x if not by else concat([getitem(x, (*[slice(None)] * at, end)) for end in ends], at)
        else:
            by = cast(as_node(by), dtype=int64)
            x = gather(x, floormod_int(iota(shape=(size,), axis=0) - by, number(size, int64)), axis=at)
    return elementwise.identity(x, name=name)


def reverse_sequence(input, seq_lengths, seq_axis=None, batch_axis=None, name=None, seq_dim=None, batch_dim=None) -> Node:
    """The first seq_lengths[b] elements along `seq_axis` backwards, for each b along `batch_axis` (default 0); the rest stays.

    A length that is larger than the axis is a RunError when it runs.
    """
    x, lengths = as_node(input), index_tensor(seq_lengths)
    along = one_spelling("reverse_sequence", None, seq_axis=seq_axis, seq_dim=seq_dim)
    batch = one_spelling("reverse_sequence", None, batch_axis=batch_axis, batch_dim=batch_dim)
    if along is None:
        raise report(ArgumentError, "reverse_sequence: seq_axis is missing", [("input", x.describe())])
    at, group = as_axis(along, x.type.rank, "reverse_sequence", x), as_axis(batch or 0, x.type.rank, "reverse_sequence", x)
    if at == group or lengths.type.rank != 1:
        raise report(ShapeError, "reverse_sequence: seq_lengths has one axis, and seq_axis is another axis than batch_axis",
                     [("input", x.describe()), ("seq_lengths", lengths.describe())])
    perm = (group, at, *(a for a in range(x.type.rank) if a not in (group, at)))
    moved = movement.transpose_to(x, perm=perm)
    shape = moved.type.shape[:2]
    last = movement.reshape_to(checked(lengths, shape[1] + 1, "reverse_sequence"), shape=(lengths.type.shape[0], 1)) - 1
    place = iota(shape=shape, axis=1)
    found = gather(moved, where(place <= last, last - place, place), axis=1, batch_dims=1)
    return movement.transpose_to(found, perm=tuple(perm.index(a) for a in range(x.type.rank)), name=name)


def sequence_mask(lengths, maxlen=None, dtype=bool_, name=None) -> Node:
    """For each length a row of `maxlen` elements: true (or 1) for the first so many. maxlen may be left out for constants."""
    picks = index_tensor(lengths)
    if not picks.dtype.is_integer:
        raise report(DTypeError, "sequence_mask: lengths must be integers", [("lengths", picks.describe())])
    known = elementwise.constant_value(picks)
    if maxlen is None and known is None:
        raise report(ArgumentError, "sequence_mask: the longest length is known only when the graph runs",
                     [("lengths", picks.describe())], hint="give maxlen")
    size = int(known.max(initial=0)) if maxlen is None else as_size(maxlen, "sequence_mask")
    shape = (*picks.type.shape, size)
    mask = iota(shape=shape, axis=len(shape) - 1, dtype=picks.dtype) < movement.reshape_to(picks, shape=(*picks.type.shape, 1))
    return cast(mask, dtype=as_dtype(dtype), name=name)


# grids -----------------------------------------------------------------------------------------------


def meshgrid(*args, indexing="xy", name=None) -> list[Node]:
    """Coordinate grids of vectors: one tensor for each, of the shape of all. "xy": the first two axes are exchanged."""
    if indexing not in ("xy", "ij"):
        raise report(ArgumentError, f"meshgrid: {indexing!r:.40} is no indexing", rule="xy or ij")
    lines = [as_node(a) for a in args]
    lines = [movement.reshape_to(v, shape=(dims.product(v.type.shape),)) for v in lines]
    places = list(range(len(lines)))
    if indexing == "xy" and len(lines) > 1:
        places[:2] = [1, 0]
    shape = [lines[places.index(k)].type.shape[0] for k in range(len(lines))]
    return [movement.broadcast_to(movement.reshape_to(v, shape=tuple(d if k == at else 1 for k, d in enumerate(shape))),
                                  shape=tuple(shape), name=name) for v, at in zip(lines, places, strict=True)]


def broadcast_static_shape(shape_x, shape_y) -> TensorShape:
    """The shape of x + y, for their shapes. Raises ShapeError when they do not broadcast."""
    first, second = (full_shape(s, "broadcast_static_shape") for s in (shape_x, shape_y))
    try:
        return TensorShape(broadcast_shapes(first, second))
    except RuleError:
        raise report(ShapeError, "broadcast_static_shape: the shapes do not broadcast",
                     rule=f"[{shape_text(first)}] and [{shape_text(second)}]") from None


def parallel_stack(values, name="parallel_stack") -> Node:
    """The tensors side by side along a new first axis; `stack`."""
    return stack(values, name=name)


# blocks ----------------------------------------------------------------------------------------------


def _is_channels_first(what: str, x: Node, data_format: str) -> bool:
    if data_format not in ("NHWC", "NCHW") or x.type.rank != 4:
        raise report(ArgumentError, f"{what}: it takes 4 axes, NHWC or NCHW", [("input", x.describe())],
                     f"data_format {data_format!r}")
    return data_format == "NCHW"


def _divided(what: str, x: Node, axis: int, by: Size) -> Size:
    """The size of an axis divided by a block's. Raises ShapeError when it does not divide."""
    size = x.type.shape[axis]
    if not isinstance(by, int) or by < 1 or isinstance(size, int) and size % by:
        raise report(ShapeError, f"{what}: axis {axis} does not divide into blocks", [("input", x.describe())],
                     f"{size} by {by}")
    return dims.floordiv(size, by)


def space_to_depth(input, block_size, name=None, data_format="NHWC") -> Node:
    """Squares of block_size x block_size places become one place with as many times the channels."""
    x, b = as_node(input), as_size(block_size, "space_to_depth")
    first = _is_channels_first("space_to_depth", x, data_format)
    rows, columns = (_divided("space_to_depth", x, a, b) for a in ((2, 3) if first else (1, 2)))
    batch, channels = x.type.shape[0], x.type.shape[1 if first else 3]
    if first:
        split = movement.reshape_to(x, shape=(batch, channels, rows, b, columns, b))
        return movement.reshape_to(movement.transpose_to(split, perm=(0, 3, 5, 1, 2, 4)),
                                   shape=(batch, channels * b * b, rows, columns), name=name)
    split = movement.reshape_to(x, shape=(batch, rows, b, columns, b, channels))
    return movement.reshape_to(movement.transpose_to(split, perm=(0, 1, 3, 2, 4, 5)),
                               shape=(batch, rows, columns, channels * b * b), name=name)


def depth_to_space(input, block_size, name=None, data_format="NHWC") -> Node:
    """What `space_to_depth` does, undone."""
    x, b = as_node(input), as_size(block_size, "depth_to_space")
    first = _is_channels_first("depth_to_space", x, data_format)
    channels = _divided("depth_to_space", x, 1 if first else 3, b * b)
    batch, (rows, columns) = x.type.shape[0], x.type.shape[2:] if first else x.type.shape[1:3]
    if first:
        split = movement.reshape_to(x, shape=(batch, b, b, channels, rows, columns))
        return movement.reshape_to(movement.transpose_to(split, perm=(0, 3, 4, 1, 5, 2)),
                                   shape=(batch, channels, rows * b, columns * b), name=name)
    split = movement.reshape_to(x, shape=(batch, rows, columns, b, b, channels))
    return movement.reshape_to(movement.transpose_to(split, perm=(0, 1, 3, 2, 4, 5)),
                               shape=(batch, rows * b, columns * b, channels), name=name)


def space_to_batch_nd(input, block_shape, paddings, name=None) -> Node:
    """The axes behind the first, padded, in blocks of `block_shape`: each place of a block becomes an image of its own."""
    x, block = as_node(input), _block("space_to_batch", block_shape)
    count = len(block)
    x = pad(x, [(0, 0), *_pairs("space_to_batch", paddings, count), *[(0, 0)] * (x.type.rank - 1 - count)])
    sizes = [_divided("space_to_batch", x, k + 1, b) for k, b in enumerate(block)]
    batch, rest = x.type.shape[0], x.type.shape[count + 1:]
    split = movement.reshape_to(x, shape=(batch, *(d for pair in zip(sizes, block, strict=True) for d in pair), *rest))
    perm = (*range(2, 2 * count + 1, 2), 0, *range(1, 2 * count + 1, 2), *range(2 * count + 1, split.type.rank))
    return movement.reshape_to(movement.transpose_to(split, perm=perm), shape=(batch * dims.product(block), *sizes, *rest),
                               name=name)


def batch_to_space_nd(input, block_shape, crops, name=None) -> Node:
    """What `space_to_batch_nd` does, undone; then `crops` are cut off."""
    x, block = as_node(input), _block("batch_to_space", block_shape)
    count, pairs = len(block), _pairs("batch_to_space", crops, len(block))
    batch = _divided("batch_to_space", x, 0, dims.product(block))
    sizes, rest = x.type.shape[1:count + 1], x.type.shape[count + 1:]
    split = movement.reshape_to(x, shape=(*block, batch, *sizes, *rest))
    perm = (count, *(a for k in range(count) for a in (count + 1 + k, k)), *range(2 * count + 1, split.type.rank))
    whole = tuple(d * b for d, b in zip(sizes, block, strict=True))
    joined = movement.reshape_to(movement.transpose_to(split, perm=perm), shape=(batch, *whole, *rest))
    return getitem(joined, (slice(None), *(slice(a, d - b) for d, (a, b) in zip(whole, pairs, strict=True))), name)


def _block(what: str, block_shape) -> tuple[int, ...]:
    block = as_sizes(block_shape, what)
    if not all(isinstance(b, int) and b > 0 for b in block):
        raise report(ArgumentError, f"{what}: a block's sizes are numbers of at least 1", rule=f"{block}")
    return block  # type: ignore[return-value]


def _pairs(what: str, given, count: int) -> Sequence[tuple[int, int]]:
    pairs = [tuple(as_size(n, what) for n in pair) for pair in given]
    if len(pairs) != count or any(len(p) != 2 for p in pairs):
        raise report(ArgumentError, f"{what}: it takes two numbers for each axis of a block", rule=f"{pairs} for {count} axes")
    return pairs  # type: ignore[return-value]


def space_to_batch(input, paddings, block_size=None, name=None, block_shape=None) -> Node:
    """`space_to_batch_nd` for blocks of block_size x block_size."""
    return space_to_batch_nd(input, [block_size, block_size] if block_shape is None else block_shape, paddings, name)


def batch_to_space(input, crops, block_size=None, name=None, block_shape=None) -> Node:
    """`batch_to_space_nd` for blocks of block_size x block_size."""
    return batch_to_space_nd(input, [block_size, block_size] if block_shape is None else block_shape, crops, name)
