"""Public functions that pick elements by index tensors, and that put elements where index tensors say.

An index out of range, a negative one included, is a RunError when it runs, or a ShapeError when it is known before.
"""
from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import ArgumentError, ShapeError, report
from graphc.functions.indexing import getitem, index_tensor
from graphc.functions.sizes import as_axis, full_shape
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.node import Node, as_node, is_tensor
from graphc.ir.types import DType, int64, shape_text
from graphc.ops import composite, elementwise, index, movement, scatter_extreme
from graphc.ops.compare import cast, equal, in_range, logical_and, where
from graphc.ops.gather import gather_rows, scatter_set, scatter_sum
from graphc.ops.gather import scatter_add as scatter_add_rows
from graphc.ops.segment import segment_prod
from graphc.variable import Variable

# picking ---------------------------------------------------------------------------------------------


def gather(params, indices, validate_indices=None, name=None, axis=None, batch_dims=0) -> Node:
    """params[..., indices, ...] along `axis` (default: `batch_dims`).

    batch_dims: so many first axes that params and indices share: each place of them has its own indices.
    """
    x, picks = as_node(params), index_tensor(indices)
    batch = as_axis(batch_dims, picks.type.rank + 1, "gather", picks) if batch_dims else 0
    at = as_axis(batch if axis is None else axis, x.type.rank, "gather", x)
    known, size = elementwise.constant_value(picks), x.type.shape[at]
    if known is not None and known.dtype.kind == "i" and isinstance(size, int):
        wrong = known[(known < 0) | (known >= size)]
        if wrong.size:
            raise report(ShapeError, "gather: index out of range",
                         [("params", x.describe()), ("indices", picks.describe())],
                         f"{wrong[0]} is not in [0, {size})")
    if not batch:
        return gather_rows(x, picks, axis=at, name=name)
    return _gather_in_batches(x, picks, at, batch, name)


def _gather_in_batches(x: Node, picks: Node, axis: int, batch: int, name) -> Node:
    """The rows of all places of a batch as rows of one table, so that one gather picks them."""
    shape, own = x.type.shape, picks.type.shape
    if axis < batch or not _fits(shape[:batch], own[:batch]):
        raise report(ShapeError, f"gather: params and indices do not share {batch} first axes",
                     [("params", x.describe()), ("indices", picks.describe())],
                     f"axis {axis} is one of them" if axis < batch else
                     f"[{shape_text(shape[:batch])}] != [{shape_text(own[:batch])}]")
    places, lines, size = dims.product(shape[:batch]), dims.product(shape[batch:axis]), shape[axis]
    picked = checked(picks, size, "gather")
    flat = movement.reshape_to(picked, shape=(places, 1, dims.product(own[batch:])))
    start = movement.reshape_to(index.iota(shape=(places * lines,), axis=0), shape=(places, lines, 1))
    table = movement.reshape_to(x, shape=(places * lines * size, *shape[axis + 1:]))
    found = gather_rows(table, flat + start * number(size, int64), axis=0)
    return movement.reshape_to(found, shape=(*shape[:axis], *own[batch:], *shape[axis + 1:]), name=name)


def _fits(a: Sequence[Size], b: Sequence[Size]) -> bool:
    return all(x == y or not (isinstance(x, int) and isinstance(y, int)) for x, y in zip(a, b, strict=True))


def checked(picks: Node, size: Size, what: str) -> Node:
    """Indices as int64, with an error at run time for those not in [0, size)."""
    return in_range(cast(picks, dtype=int64), 0, number(size, int64), message=f"{what}: index outside [0, {size})")


def number(size: Size, dtype: DType) -> Node:
    """A size as a tensor of rank 0."""
    return as_node(size, dtype) if isinstance(size, int) else cast(index.dim_value(dim=size), dtype=dtype)


def batch_gather(params, indices, name=None) -> Node:
    """params[..., indices[..., k]]: `gather` along the last axis of indices, with all axes before it shared."""
    picks = index_tensor(indices)
    return gather(params, picks, name=name, batch_dims=picks.type.rank - 1)


def take_along(x: Node, order: Node, axis: int, name=None) -> Node:
    """x's elements at the positions `order` along `axis`, line by line; order has x's shape but for that axis."""
    last = x.type.rank - 1
    if axis == last:
        return gather(x, order, axis=last, batch_dims=last, name=name)
    swap = tuple(last if a == axis else axis if a == last else a for a in range(last + 1))
    moved = gather(movement.transpose_to(x, perm=swap), movement.transpose_to(order, perm=swap), axis=last, batch_dims=last)
    return movement.transpose_to(moved, perm=swap, name=name)


def embedding_lookup(params, ids, partition_strategy="mod", name=None, validate_indices=True, max_norm=None) -> Node:
    """The rows of the table `params` that `ids` names: a tensor of shape ids.shape + params.shape[1:].

    params: a table, or a list of P tables that are its parts. Row r is row r // P of part r % P ("mod"), or the parts are
    consecutive rows ("div"), the first of them longer by one where the number of rows does not divide.
    """
    if max_norm is not None:
        raise report(ArgumentError, "embedding_lookup: max_norm is not supported; use clip_by_norm")
    if not isinstance(params, list | tuple):
        return gather(params, ids, name=name)
    if partition_strategy not in ("mod", "div"):
        raise report(ArgumentError, f"embedding_lookup: {partition_strategy!r} is no partition strategy", rule="mod or div")
    if not params:
        raise report(ArgumentError, "embedding_lookup: the list of tables is empty")
    if len(params) == 1:
        return gather(params[0], ids, name=name)
    return _from_parts([as_node(p) for p in params], index_tensor(ids), partition_strategy == "mod", name)


def _from_parts(parts: list[Node], ids: Node, in_turn: bool, name) -> Node:
    """Rows of a table that lies in parts: each is asked for its rows, and elsewhere for its first one, which is not taken."""
    rows = [p.type.shape[0] for p in parts]
    if not all(isinstance(r, int) for r in rows) or in_turn and rows != [(sum(rows) + len(rows) - 1 - k) // len(rows)
                                                                        for k in range(len(rows))]:
        raise report(ShapeError, "embedding_lookup: the tables are not the parts of one table",
                     [(f"part {k}", p.describe()) for k, p in enumerate(parts)], "its rows are dealt out in turn")
    wanted = checked(ids, sum(rows), "embedding_lookup")
    found, start = None, 0
    for k, (part, count) in enumerate(zip(parts, rows, strict=True)):
        own = equal(wanted % len(parts), k) if in_turn else logical_and(wanted >= start, wanted < start + count)
        at = wanted // len(parts) if in_turn else wanted - start
        start += count
        if not count:
            continue
        picked = gather_rows(part, where(own, at, 0), axis=0)
        shape = tuple(picked.type.shape)
        own = movement.reshape_to(own, shape=(*ids.type.shape, *[1] * (len(shape) - ids.type.rank)))
        found = picked if found is None else where(movement.broadcast_to(own, shape=shape), picked, found)
    if found is None:
        raise report(ShapeError, "embedding_lookup: the tables have no rows", [("part 0", parts[0].describe())])
    return elementwise.identity(found, name=name)


def gather_nd(params, indices, name=None, batch_dims=0) -> Node:
    """params at coordinates: each row of the last axis of indices names an element, or a part, by its first coordinates.

    batch_dims: so many first axes that params and indices share.
    """
    x, picks = as_node(params), index_tensor(indices)
    batch = as_axis(batch_dims, x.type.rank + 1, "gather_nd", x)
    depth = _depth(x.type.shape, picks, batch, "gather_nd", [("params", x.describe()), ("indices", picks.describe())])
    flat = _flat_places(x.type.shape, picks, batch, depth, "gather_nd")
    table = movement.reshape_to(x, shape=(dims.product(x.type.shape[:batch + depth]), *x.type.shape[batch + depth:]))
    return gather_rows(table, flat, axis=0, name=name)


def _depth(shape, picks: Node, batch: int, what: str, operands) -> int:
    """How many coordinates each row of the indices has. Raises ShapeError."""
    depth = picks.type.shape[-1] if picks.type.rank > batch else None
    if not isinstance(depth, int) or batch + depth > len(shape) or not _fits(shape[:batch], picks.type.shape[:batch]):
        raise report(ShapeError, f"{what}: the indices do not fit", operands,
                     f"their last axis counts coordinates of a tensor of rank {len(shape)}" +
                     (f" behind {batch} shared axes" if batch else ""))
    return depth


def _flat_places(shape, picks: Node, batch: int, depth: int, what: str) -> Node:
    """The number of each named place among all places of the first batch + depth axes of `shape`."""
    lead = tuple(picks.type.shape[:-1])
    parts = [index.iota(shape=lead, axis=a) for a in range(batch)]
    parts += [checked(getitem(picks, (..., k)), shape[batch + k], what) for k in range(depth)]
    flat = movement.broadcast_to(as_node(0, int64), shape=lead)
    for size, part in zip(shape, parts, strict=False):
        flat = flat * number(size, int64) + part
    return flat


# putting ---------------------------------------------------------------------------------------------


def scatter_nd(indices, updates, shape, name=None) -> Node:
    """Zeros of `shape` with each update added at its coordinates; duplicates add up in order of appearance."""
    picks, values, sizes = index_tensor(indices), as_node(updates), full_shape(shape, "scatter_nd")
    depth = _depth(sizes, picks, 0, "scatter_nd", [("indices", picks.describe()), ("shape", f"[{shape_text(sizes)}]")])
    flat = _flat_places(sizes, picks, 0, depth, "scatter_nd")
    _check_updates("scatter_nd", sizes, picks, values, depth)
    found = scatter_sum(flat, values, axis=0, rows=dims.product(sizes[:depth]))
    return movement.reshape_to(found, shape=sizes, name=name)


def _check_updates(what: str, shape, picks: Node, values: Node, depth: int) -> None:
    wanted = (*picks.type.shape[:-1], *shape[depth:])
    if values.type.rank != len(wanted) or not _fits(values.type.shape, wanted):
        raise report(ShapeError, f"{what}: the updates do not fit the indices",
                     [("indices", picks.describe()), ("updates", values.describe())],
                     f"[{shape_text(values.type.shape)}] != [{shape_text(wanted)}]")


def _into_places(what: str, op, tensor, indices, updates, name) -> Node:
    """`tensor` with updates at coordinates."""
    x, picks = as_node(tensor), index_tensor(indices)
    values, shape = as_node(updates, x.dtype, what), x.type.shape
    depth = _depth(shape, picks, 0, what, [("tensor", x.describe()), ("indices", picks.describe())])
    _check_updates(what, shape, picks, values, depth)
    flat = movement.reshape_to(x, shape=(dims.product(shape[:depth]), *shape[depth:]))
    return movement.reshape_to(op(flat, _flat_places(shape, picks, 0, depth, what), values), shape=tuple(shape), name=name)


def tensor_scatter_add(tensor, indices, updates, name=None) -> Node:
    """tensor with each update added at its coordinates; duplicates add up in order of appearance."""
    return _into_places("tensor_scatter_add", scatter_add_rows, tensor, indices, updates, name)


def tensor_scatter_sub(tensor, indices, updates, name=None) -> Node:
    """tensor with each update subtracted at its coordinates."""
    values = as_node(updates, as_node(tensor).dtype, "tensor_scatter_sub")
    return _into_places("tensor_scatter_sub", scatter_add_rows, tensor, indices, -values, name)


def tensor_scatter_update(tensor, indices, updates, name=None) -> Node:
    """tensor with each update in place of what is at its coordinates; of duplicates the last one counts."""
    return _into_places("tensor_scatter_update", scatter_set, tensor, indices, updates, name)


# rows of variables -----------------------------------------------------------------------------------


def tensor_scatter_max(tensor, indices, updates, name=None) -> Node:
    """tensor, at least each update at its coordinates. The gradient goes in equal parts to what reaches the result."""
    return _into_places("tensor_scatter_max", scatter_extreme.scatter_max, tensor, indices, updates, name)


def tensor_scatter_min(tensor, indices, updates, name=None) -> Node:
    """tensor, at most each update at its coordinates. The gradient goes in equal parts to what reaches the result."""
    return _into_places("tensor_scatter_min", scatter_extreme.scatter_min, tensor, indices, updates, name)


def _variable(what: str, ref) -> Variable:
    if not isinstance(ref, Variable):
        raise report(ArgumentError, f"{what}: {ref!r:.60} is not a variable",
                     hint=f"graphc.tensor_{what.replace('_nd', '')} does it to a tensor")
    return ref


def _rows(what: str, ref, indices, updates) -> tuple[Variable, Node, Node]:
    """(variable, indices, updates for whole rows): one update serves all rows when it has the shape of a row or a number's."""
    variable, picks = _variable(what, ref), index_tensor(indices)
    values = as_node(updates, variable.dtype, what)
    wanted = (*picks.type.shape, *variable.shape[1:])
    if not is_tensor(updates) and values.type.shape == ():
        values = movement.broadcast_to(values, shape=wanted)
    if values.type.rank != len(wanted) or not _fits(values.type.shape, wanted):
        raise report(ShapeError, f"{what}: the updates do not fit",
                     [("variable", repr(variable)), ("updates", values.describe())],
                     f"[{shape_text(values.type.shape)}] != [{shape_text(wanted)}]")
    return variable, picks, values


def _table(variable: Variable, picks: Node, values: Node) -> Node:
    return scatter_sum(picks, values, axis=0, rows=variable.shape[0])


def scatter_add(ref, indices, updates, use_locking=False, name=None) -> Node:
    """Add each update to the row of the variable `ref` that its index names, at the end of the run; only these rows are
    touched. Duplicates add up in order of appearance. The result is the new value.
    """
    variable, picks, values = _rows("scatter_add", ref, indices, updates)
    return variable.assign_add(_table(variable, picks, values), name=name)


def scatter_sub(ref, indices, updates, use_locking=False, name=None) -> Node:
    """Subtract each update from the row of the variable `ref` that its index names; see `scatter_add`."""
    variable, picks, values = _rows("scatter_sub", ref, indices, updates)
    return variable.assign_sub(_table(variable, picks, values), name=name)


def scatter_update(ref, indices, updates, use_locking=True, name=None) -> Node:
    """Put each update in place of the row of the variable `ref` that its index names; of duplicates the last one counts."""
    variable, picks, values = _rows("scatter_update", ref, indices, updates)
    return variable.assign(scatter_set(variable, picks, values), name=name)


def _checked_rows(what: str, ref, indices, updates) -> tuple[Variable, Node, Node]:
    """(variable, one number for each update, updates)."""
    variable, picks, values = _rows(what, ref, indices, updates)
    count = dims.product(picks.type.shape)
    return (variable, checked(movement.reshape_to(picks, shape=(count,)), variable.shape[0], what),
            movement.reshape_to(values, shape=(count, *variable.shape[1:])))


def scatter_mul(ref, indices, updates, use_locking=False, name=None) -> Node:
    """Multiply the row of the variable `ref` that each index names by its update; duplicates multiply."""
    variable, picks, values = _checked_rows("scatter_mul", ref, indices, updates)
    return variable.assign(variable * segment_prod(values, picks, rows=variable.shape[0]), name=name)


def scatter_div(ref, indices, updates, use_locking=False, name=None) -> Node:
    """Divide the row of the variable `ref` that each index names by its update; integers towards 0."""
    variable, picks, values = _checked_rows("scatter_div", ref, indices, updates)
    factors = segment_prod(values, picks, rows=variable.shape[0])
    divide = elementwise.divide if variable.dtype.is_floating else composite.truncatediv
    return variable.assign(divide(variable, factors), name=name)


def scatter_max(ref, indices, updates, use_locking=False, name=None) -> Node:
    """Make the row of the variable `ref` that each index names at least its update."""
    variable, picks, values = _rows("scatter_max", ref, indices, updates)
    return variable.assign(scatter_extreme.scatter_max(variable, picks, values), name=name)


def scatter_min(ref, indices, updates, use_locking=False, name=None) -> Node:
    """Make the row of the variable `ref` that each index names at most its update."""
    variable, picks, values = _rows("scatter_min", ref, indices, updates)
    return variable.assign(scatter_extreme.scatter_min(variable, picks, values), name=name)


def scatter_nd_add(ref, indices, updates, use_locking=False, name=None) -> Node:
    """Add each update to the variable `ref` at its coordinates; see `scatter_add`."""
    variable = _variable("scatter_nd_add", ref)
    return variable.assign_add(scatter_nd(indices, as_node(updates, variable.dtype), tuple(variable.shape)), name=name)


def scatter_nd_sub(ref, indices, updates, use_locking=False, name=None) -> Node:
    """Subtract each update from the variable `ref` at its coordinates."""
    variable = _variable("scatter_nd_sub", ref)
    return variable.assign_sub(scatter_nd(indices, as_node(updates, variable.dtype), tuple(variable.shape)), name=name)


def scatter_nd_update(ref, indices, updates, use_locking=True, name=None) -> Node:
    """Put each update into the variable `ref` at its coordinates; of duplicates the last one counts."""
    variable = _variable("scatter_nd_update", ref)
    return variable.assign(tensor_scatter_update(variable, indices, updates), name=name)
