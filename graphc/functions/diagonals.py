"""Public functions of diagonals and bands of matrices, which are the last two axes."""
from __future__ import annotations

from graphc.errors import ShapeError, report
from graphc.ir import dims
from graphc.ir.node import Node, as_node, is_tensor
from graphc.ir.types import int64, shape_text
from graphc.ops import movement
from graphc.ops.assemble import place
from graphc.ops.compare import cast, equal, less_equal, logical_and, logical_or, where
from graphc.ops.index import iota
from graphc.ops.reduce import reduce_any, reduce_sum


def _zero(x: Node) -> Node:
    return as_node(False if x.dtype.is_bool else 0, x.dtype)


def _matrix(what: str, x: Node) -> None:
    if x.type.rank < 2:
        raise report(ShapeError, f"{what}: it takes at least 2 axes", [("input", x.describe())])


def _on_diagonal(shape) -> Node:
    """Where the last two coordinates are equal."""
    return equal(iota(shape=tuple(shape), axis=len(shape) - 2), iota(shape=tuple(shape), axis=len(shape) - 1))


def matrix_diag(diagonal, name=None) -> Node:
    """Square matrices with the last axis of `diagonal` on their diagonals, and zeros elsewhere."""
    x = as_node(diagonal)
    if not x.type.rank:
        raise report(ShapeError, "matrix_diag: it takes at least 1 axis", [("diagonal", x.describe())])
    n = x.type.shape[-1]
    shape = (*x.type.shape, n)
    rows = movement.broadcast_to(movement.reshape_to(x, shape=(*x.type.shape, 1)), shape=shape)
    return where(_on_diagonal(shape), rows, _zero(x), name=name)


def diag(diagonal, name=None) -> Node:
    """A tensor of twice the rank with `diagonal` where the first and the second half of the coordinates are equal."""
    x = as_node(diagonal)
    if not x.type.rank:
        raise report(ShapeError, "diag: it takes at least 1 axis", [("diagonal", x.describe())])
    flat = movement.reshape_to(x, shape=(dims.product(x.type.shape),))
    return movement.reshape_to(matrix_diag(flat), shape=(*x.type.shape, *x.type.shape), name=name)


def matrix_diag_part(input, name=None) -> Node:
    """The diagonals of matrices: element (k, k) of the last two axes, for all k that both have."""
    x = as_node(input)
    _matrix("matrix_diag_part", x)
    *lead, rows, columns = x.type.shape
    size = dims.minimum(rows, columns)
    square = movement.strided_slice(x, begin=(0,) * x.type.rank, steps=(1,) * x.type.rank, sizes=(*lead, size, size)) \
        if rows != columns else x
    if not isinstance(size, int):  # only a run knows the step of a walk along the diagonal
        hit = where(_on_diagonal(square.type.shape), square, _zero(x))
        reduce = reduce_any if x.dtype.is_bool else reduce_sum
        return reduce(hit, axes=(x.type.rank - 1,), name=name)
    flat = movement.reshape_to(square, shape=(*lead, size * size))
    return movement.strided_slice(flat, begin=(0,) * (len(lead) + 1), steps=(*[1] * len(lead), size + 1), sizes=(*lead, size),
                                  name=name)


def diag_part(input, name=None) -> Node:
    """What `diag` put in: the elements where the first and the second half of the coordinates are equal."""
    x = as_node(input)
    half = x.type.rank // 2
    if not half or x.type.rank % 2 or x.type.shape[:half] != x.type.shape[half:]:
        raise report(ShapeError, "diag_part: the two halves of the shape differ", [("input", x.describe())],
                     f"[{shape_text(x.type.shape)}]")
    count = dims.product(x.type.shape[:half])
    return movement.reshape_to(matrix_diag_part(movement.reshape_to(x, shape=(count, count))), shape=x.type.shape[:half],
                               name=name)


def matrix_set_diag(input, diagonal, name=None) -> Node:
    """The matrices with other diagonals. Raises ShapeError when `diagonal` is not as long as they are."""
    x = as_node(input)
    _matrix("matrix_set_diag", x)
    new = as_node(diagonal, x.dtype, "matrix_set_diag")
    *lead, rows, columns = x.type.shape
    size = dims.minimum(rows, columns)
    if new.type.shape != (*lead, size):
        raise report(ShapeError, "matrix_set_diag: the diagonal does not fit",
                     [("input", x.describe()), ("diagonal", new.describe())],
                     f"[{shape_text(new.type.shape)}] != [{shape_text((*lead, size))}]")
    if size != rows:
        new = place(new, shape=(*lead, rows), begin=(0,) * (len(lead) + 1), steps=(1,) * (len(lead) + 1),
                    fill=False if x.dtype.is_bool else 0)
    wide = movement.broadcast_to(movement.reshape_to(new, shape=(*lead, rows, 1)), shape=tuple(x.type.shape))
    return where(_on_diagonal(x.type.shape), wide, x, name=name)


def matrix_band_part(input, num_lower, num_upper, name=None) -> Node:
    """The matrices with zeros outside of a band: `num_lower` diagonals below the main one are kept, `num_upper` above it; a
    negative number keeps all. (0, -1) is the upper triangle, (-1, 0) the lower one.
    """
    x = as_node(input)
    _matrix("matrix_band_part", x)
    shape = tuple(x.type.shape)
    down = iota(shape=shape, axis=len(shape) - 2) - iota(shape=shape, axis=len(shape) - 1)
    inside = [_within(down, num_lower), _within(-down, num_upper)]
    kept = [i for i in inside if i is not None]
    if not kept:
        return movement.reshape_to(x, shape=shape, name=name)
    return where(logical_and(*kept) if len(kept) == 2 else kept[0], x, _zero(x), name=name)


def _within(distance: Node, limit) -> Node | None:
    """Where a distance is at most `limit`; None when that is everywhere."""
    if is_tensor(limit):
        limit = cast(as_node(limit), dtype=int64)
        return logical_or(limit < 0, distance <= limit)
    return None if limit < 0 else less_equal(distance, int(limit))

