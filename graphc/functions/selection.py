"""Functions whose results have sizes that only values tell: boolean_mask, unique, setdiff1d, dynamic_partition and their kin.

Each asks a host op for positions, and picks by them: so gradients flow to what is picked from. The new size is a named dim like
any other. All raise ShapeError, DTypeError or ArgumentError with the operands and the user's line.
"""
from __future__ import annotations

from typing import NamedTuple

from graphc.errors import ArgumentError, DTypeError, RuleError, ShapeError, report
from graphc.functions.sizes import as_axis
from graphc.ir.container import get_default_graph
from graphc.ir.dims import Dim
from graphc.ir.node import Node, as_node, dtype_of, is_tensor, result
from graphc.ir.types import as_dtype, bool_, int32, same_shape
from graphc.ops import assemble, compare, movement, selection
from graphc.ops.gather import gather_rows


class Unique(NamedTuple):
    """The distinct elements, and for each element of the input the number of its distinct one."""

    y: Node
    idx: Node


class UniqueWithCounts(NamedTuple):
    """The distinct elements, for each element of the input the number of its distinct one, and how often each is there."""

    y: Node
    idx: Node
    count: Node  # type: ignore[assignment]  # hides the method of tuples, as in TensorFlow


class ListDiff(NamedTuple):
    """The elements that are left, and where they stood."""

    out: Node
    idx: Node


def new_dim() -> Dim:
    """A name for a size that an op made now will tell."""
    return get_default_graph().fresh_dim()


def _mask(value, what: str) -> Node:
    mask = as_node(value)
    if mask.dtype is not bool_:
        raise report(DTypeError, f"{what}: the mask must be bool", [("mask", mask.describe())], f"it is {mask.dtype.name}")
    return mask


def positions(condition, name=None) -> Node:
    """The coordinates of the true elements, in order: int64 of shape (how many, rank)."""
    return selection.true_positions(_mask(condition, "where"), dim=new_dim(), name=name)


def boolean_mask(tensor, mask, name="boolean_mask", axis=None) -> Node:
    """The elements of `tensor` where `mask` is true: the mask's axes, from `axis` on (default 0), become one.

    Raises ShapeError for a scalar mask, and when the shapes do not fit.
    """
    x, picks = as_node(tensor), _mask(mask, "boolean_mask")
    at = 0 if axis is None else as_axis(axis, x.type.rank, "boolean_mask", x)
    rank = picks.type.rank
    if not rank:
        raise report(ShapeError, "boolean_mask: the mask is a scalar", [("mask", picks.describe())])
    if at + rank > x.type.rank:
        raise report(ShapeError, "boolean_mask: the mask has too many axes",
                     [("tensor", x.describe()), ("mask", picks.describe())], f"{rank} from axis {at} of rank {x.type.rank} on")
    picks = _of_shape(picks, x.type.shape[at:at + rank], "boolean_mask", tensor=x, mask=picks)
    flat = movement.reshape_to(picks, shape=(picks.type.elements,))
    found = selection.true_positions(flat, dim=new_dim())
    rows = movement.reshape_to(found, shape=found.type.shape[:1])
    if rank > 1:
        x = movement.reshape_to(x, shape=(*x.type.shape[:at], flat.type.shape[0], *x.type.shape[at + rank:]))
    return gather_rows(x, rows, axis=at, name=name)


def unique(x, out_idx=int32, name=None) -> Unique:
    """The distinct elements of a vector in order of appearance: (y, idx) with x[i] = y[idx[i]]. Each NaN is one of its own."""
    y, idx, _ = unique_with_counts(x, out_idx, name)
    return Unique(y, idx)


def unique_with_counts(x, out_idx=int32, name=None) -> UniqueWithCounts:
    """Like `unique`, with how often each distinct element is there: (y, idx, count)."""
    x, kind = as_node(x), as_dtype(out_idx)
    found = selection.distinct_positions(x, dim=new_dim())
    first, idx, count = (result(found, k) for k in range(3))
    return UniqueWithCounts(gather_rows(x, first, name=name), _cast(idx, kind), _cast(count, kind))


def setdiff1d(x, y, index_dtype=int32, name=None) -> ListDiff:
    """The elements of vector x that are not in vector y, in order and with repeats: (out, idx) with out[i] = x[idx[i]]."""
    dtype = next((dtype_of(v) for v in (x, y) if is_tensor(v)), None)
    x, y = as_node(x, dtype, "setdiff1d"), as_node(y, dtype, "setdiff1d")
    found = selection.missing_positions(x, y, dim=new_dim())
    return ListDiff(gather_rows(x, found, name=name), _cast(found, as_dtype(index_dtype)))


def dynamic_partition(data, partitions, num_partitions: int, name="dynamic_partition") -> list[Node]:
    """`num_partitions` tensors: the rows of `data` whose number in `partitions` (int32, of data's first sizes) is 0, 1, ...

    A number that is not in [0, num_partitions) is a run-time error.
    """
    x, parts = as_node(data), as_node(partitions, int32, "dynamic_partition")
    if not isinstance(num_partitions, int) or num_partitions < 1:
        raise report(ArgumentError, f"dynamic_partition: num_partitions is {num_partitions!r:.40}",
                     rule="it must be a number of at least 1")
    rank = parts.type.rank
    parts = _of_shape(parts, x.type.shape[:rank], "dynamic_partition", data=x, partitions=parts)
    count = parts.type.elements
    rows = movement.reshape_to(x, shape=(count, *x.type.shape[rank:]))
    found = selection.part_positions(movement.reshape_to(parts, shape=(count,)),
                                     dims=tuple(new_dim() for _ in range(num_partitions)))
    return [gather_rows(rows, result(found, k), name=name) for k in range(num_partitions)]


def dynamic_stitch(indices, data, name="dynamic_stitch") -> Node:
    """The rows of the tensors `data` in the places that the tensors `indices` (each of data's first sizes) say: what undoes
    dynamic_partition. Where a place is said twice, the last row counts.

    The result has as many rows as the largest index and one; an index that is missing is a run-time error.
    """
    places, parts = [as_node(i, None, "dynamic_stitch") for i in indices], list(data)
    dtype = next((dtype_of(p) for p in parts if is_tensor(p)), None)
    parts = [as_node(p, dtype, "dynamic_stitch") for p in parts]
    if not parts or len(places) != len(parts):
        raise report(ArgumentError, "dynamic_stitch: it takes as many indices as data", rule=f"{len(places)} and {len(parts)}")
    flat, rows = [], []
    for place, part in zip(places, parts, strict=True):
        rank = place.type.rank
        place = _of_shape(place, part.type.shape[:rank], "dynamic_stitch", data=part, indices=place)
        count = place.type.elements
        flat.append(movement.reshape_to(place, shape=(count,)))
        rows.append(movement.reshape_to(part, shape=(count, *part.type.shape[rank:])))
    found = selection.last_positions(assemble.concat_values(*flat, axis=0), dim=new_dim())
    return gather_rows(assemble.concat_values(*rows, axis=0), found, axis=0, name=name)


def _of_shape(x: Node, shape, what: str, **operands: Node) -> Node:
    """x, whose shape must be `shape`; what only a run can tell is checked then. Raises ShapeError."""
    try:
        same_shape(x.type.shape, tuple(shape), "shapes differ")
    except RuleError as e:
        raise report(ShapeError, f"{what}: shapes differ", [(k, n.describe()) for k, n in operands.items()], e.rule) from None
    if x.type.shape == tuple(shape):
        return x
    is_named = all(isinstance(a, Dim) or a == b for a, b in zip(x.type.shape, shape, strict=True))
    return movement.broadcast_to(x, shape=tuple(shape)) if is_named else movement.reshape_to(x, shape=tuple(shape))


def _cast(x: Node, kind) -> Node:
    return x if x.dtype is kind else compare.cast(x, dtype=kind)


