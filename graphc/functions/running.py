"""Public running sums and products along an axis, and order: sort, argsort, top_k, searchsorted."""
from __future__ import annotations

from typing import NamedTuple

from graphc.errors import ArgumentError, DTypeError, ShapeError, report
from graphc.functions.gathering import take_along
from graphc.functions.indexing import index_tensor
from graphc.functions.sizes import as_axis, as_size
from graphc.ir import dims
from graphc.ir.node import Node, as_node, dtype_of, is_tensor
from graphc.ir.types import as_dtype, int32
from graphc.ops import composite, elementwise, movement, order, running
from graphc.ops.compare import cast, isfinite, where
from graphc.ops.transcendental import exp, log

FEW = 64  # a selection of more elements than this is a sort

# running results -------------------------------------------------------------------------------------


def cumsum(x, axis=0, exclusive=False, reverse=False, name=None) -> Node:
    """The sum of all elements up to each one along `axis`. exclusive: without the element itself. reverse: from the end."""
    x = as_node(x)
    return running.cumsum(x, axis=as_axis(axis, x.type.rank, "cumsum", x), exclusive=bool(exclusive), reverse=bool(reverse),
                          name=name)


def cumprod(x, axis=0, exclusive=False, reverse=False, name=None) -> Node:
    """The product of all elements up to each one along `axis`; flags as in `cumsum`. Its gradient is right at zeros too."""
    x = as_node(x)
    return running.cumprod(x, axis=as_axis(axis, x.type.rank, "cumprod", x), exclusive=bool(exclusive), reverse=bool(reverse),
                           name=name)


def cummax(x, axis=0, reverse=False, name=None) -> Node:
    """The largest of all elements up to each one along `axis`. The gradient goes to the first of equal ones."""
    x = as_node(x)
    return running.cummax(x, axis=as_axis(axis, x.type.rank, "cummax", x), reverse=bool(reverse), name=name)


def cummin(x, axis=0, reverse=False, name=None) -> Node:
    """The smallest of all elements up to each one along `axis`. The gradient goes to the first of equal ones."""
    x = as_node(x)
    return running.cummin(x, axis=as_axis(axis, x.type.rank, "cummin", x), reverse=bool(reverse), name=name)


def cumulative_logsumexp(x, axis=0, exclusive=False, reverse=False, name=None) -> Node:
    """log of the sum of exp of all elements up to each one along `axis`, without overflow; flags as in `cumsum`.

    Each sum is kept relative to the largest element so far, and rescaled when that grows.
    """
    x = as_node(x)
    composite.require_floats("cumulative_logsumexp", x=x)
    at, reverse = as_axis(axis, x.type.rank, "cumulative_logsumexp", x), bool(reverse)
    by = -1 if reverse else 1
    if exclusive:
        x = running.shifted(x, at, by, fill=float("-inf"))
    top = running.cummax(elementwise.stop_gradient(x), axis=at, reverse=reverse)
    top = where(isfinite(top), top, 0)
    scaled = running.recurrence(exp(running.shifted(top, at, by) - top), exp(x - top), axis=at, reverse=reverse)
    return elementwise.add(log(scaled), top, name=name)


# order -----------------------------------------------------------------------------------------------


def _is_descending(what: str, direction) -> bool:
    if direction not in ("ASCENDING", "DESCENDING"):
        raise report(ArgumentError, f"{what}: {direction!r:.40} is no direction", rule="ASCENDING or DESCENDING")
    return direction == "DESCENDING"


def argsort(values, axis=-1, direction="ASCENDING", stable=False, name=None) -> Node:
    """The positions along `axis` of the elements in order, as int32. Always stable; NaN counts as the largest."""
    x = as_node(values)
    return order.order_of(x, axis=as_axis(axis, x.type.rank, "argsort", x), descending=_is_descending("argsort", direction),
                          name=name)


def sort(values, axis=-1, direction="ASCENDING", name=None) -> Node:
    """The elements in order along `axis`. NaN counts as the largest."""
    x = as_node(values)
    at = as_axis(axis, x.type.rank, "sort", x)
    found = order.order_of(elementwise.stop_gradient(x), axis=at, descending=_is_descending("sort", direction))
    return take_along(x, found, at, name)


class TopK(NamedTuple):
    """What `top_k` gives."""

    values: Node
    indices: Node


def top_k(input, k=1, sorted=True, name=None) -> TopK:
    """(values, indices) of the k largest elements of each row (the last axis), the largest first; of equal ones the one
    that comes first. Raises ShapeError when a row has fewer.
    """
    x, count = as_node(input), as_size(k, "top_k")
    if not x.type.rank or not isinstance(count, int) or count < 0:
        raise report(ArgumentError, "top_k: k is a number of at least 0, and input has at least one axis",
                     [("input", x.describe())], f"k = {count}")
    last, free = x.type.rank - 1, elementwise.stop_gradient(x)
    n = x.type.shape[last]
    if isinstance(n, int) and count > n:
        raise report(ShapeError, "top_k: the rows are too short", [("input", x.describe())], f"k = {count}, of {n} elements")
    shape = (*x.type.shape[:last], count)
    if count <= FEW:
        found = order.top_positions(free, k=count)
    else:
        found = movement.strided_slice(order.order_of(free, axis=last, descending=True), begin=(0,) * (last + 1),
                                       steps=(1,) * (last + 1), sizes=(*shape[:-1], dims.minimum(n, count)))
    if found.type.shape != shape:  # the reshape asks that there be so many
        found = movement.reshape_to(found, shape=shape)
    return TopK(take_along(x, found, last, name), found)


def searchsorted(sorted_sequence, values, side="left", out_type=int32, name=None) -> Node:
    """Where each value would have to stand to keep its row of sorted_sequence in order: before equal elements ("left") or
    after them ("right"). The two share all axes but the last.
    """
    line = as_node(sorted_sequence)
    wanted = as_node(values, dtype_of(line) if not is_tensor(values) else None, "searchsorted")
    if side not in ("left", "right"):
        raise report(ArgumentError, f"searchsorted: {side!r:.40} is no side", rule="left or right")
    kind = as_dtype(out_type)
    if kind.short not in ("i32", "i64"):
        raise report(DTypeError, f"searchsorted: there are no {kind.name} positions", rule="int32 or int64")
    return cast(order.search_sorted(line, wanted, right=side == "right"), dtype=kind, name=name)


def invert_permutation(x, name=None) -> Node:
    """y[x[k]] = k. What is no permutation of 0, 1, ... is a RunError when it runs."""
    return order.inverse_order(index_tensor(x), name=name)
