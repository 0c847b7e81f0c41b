"""Gather and scatter: elements picked, and added up, by an index tensor."""
from __future__ import annotations

import numpy as np

from graphc.errors import DTypeError, RuleError, RunError
from graphc.ir import dims
from graphc.ir.node import as_node
from graphc.ir.op import REQUIRED, Gather, Kind, Op, Scatter
from graphc.ir.types import TensorType, int64, same_dim, same_shape
from graphc.ops.compare import equal, where
from graphc.ops.define import as_samples, behind, common_dtype, sample
from graphc.ops.index import iota
from graphc.ops.movement import broadcast_to, reshape_to
from graphc.ops.samples import integer, real


def _check_indices(indices: TensorType) -> None:
    if indices.dtype.short not in ("i32", "i64"):
        raise RuleError("indices must be int32 or int64", f"they are {indices.dtype.name}", DTypeError)


def _check_range(indices: np.ndarray, rows: int) -> None:
    """Raise RunError, naming the first index that is not in [0, rows)."""
    wrong = (indices < 0) | (indices >= rows)
    if wrong.any():
        at = tuple(int(k) for k in np.argwhere(wrong)[0])
        place = f"[{', '.join(map(str, at))}]" if at else ""
        raise RunError(f"index out of range: indices{place} = {indices[at]} is not in [0, {rows})")


def _gather_type(params, indices, *, axis):
    _check_indices(indices)
    if not 0 <= axis < params.rank:
        raise RuleError("axis out of range", f"axis {axis} of rank {params.rank}")
    return params.with_shape((*params.shape[:axis], *indices.shape, *params.shape[axis + 1:]))


def _gather_numpy(params, indices, *, axis):
    _check_range(indices, params.shape[axis])
    return np.take(params, indices, axis)


gather_rows = Op(
    "gather", Kind.GATHER, ("params", "indices"), attrs={"axis": 0},
    doc="params[..., indices, ...] along `axis`: the axes of indices take its place. An index out of range, a negative "
        "one included, is a run-time error.",
    infer=_gather_type, rule=Gather(lambda attrs: attrs["axis"]), numpy=_gather_numpy, nondiff=("indices",),
    grad=lambda dy, y, params, indices, *, axis: [
        scatter_sum(indices, dy, axis=axis, rows=params.type.shape[axis]), None],
    samples=as_samples([sample(real(5, 3), integer(4, low=0, high=5)),
                        sample(real(2, 5, 3), integer(2, 2, low=0, high=5), axis=1),
                        sample(real(5), integer(low=0, high=5)), sample(real(5, 3), integer(0, low=0, high=5)),
                        sample(real(4, 3), integer(6, low=0, high=3, dtype="int32"), axis=1)]),
    errors=((sample(real(5, 3), real(4)), "indices must be int32 or int64"),
            (sample(real(), integer(4)), "axis out of range"),
            (sample(real(5, 3), integer(4, low=5, high=6)), "indices[0] = 5 is not in [0, 5)"),
            (sample(real(5, 3), integer(4, low=-1, high=0)), "indices[0] = -1 is not in [0, 5)")),
    batch=behind("axis"),
)


def _scatter_type(indices, updates, *, axis, rows):
    _check_indices(indices)
    common_dtype([updates], ["updates"], "number")
    if not 0 <= axis <= updates.rank - indices.rank:
        raise RuleError("axis out of range", f"axis {axis} of rank {updates.rank - indices.rank + 1}")
    for k, size in enumerate(indices.shape):
        same_dim(size, updates.shape[axis + k], "updates do not fit the indices")
    return updates.with_shape((*updates.shape[:axis], rows, *updates.shape[axis + indices.rank:]))


def _scatter_numpy(indices, updates, *, axis, rows):
    _check_range(indices, rows)
    outer, inner = updates.shape[:axis], updates.shape[axis + indices.ndim:]
    y = np.zeros((*outer, rows, *inner), updates.dtype)
    flat = updates.reshape(*outer, indices.size, *inner)
    np.add.at(y, (*[slice(None)] * axis, indices.ravel()), flat)  # adds in the order of the indices
    return y


scatter_sum: Op = Op(
    "scatter_sum", Kind.SCATTER, ("indices", "updates"), attrs={"axis": 0, "rows": REQUIRED},
    doc="Zeros with `rows` rows along `axis`, to which each update is added at its index; duplicates sum in order of "
        "appearance. The gradient of gather.",
    infer=_scatter_type, rule=Scatter(lambda attrs: attrs["axis"]), numpy=_scatter_numpy, nondiff=("indices",),
    grad=lambda dy, y, indices, updates, *, axis, rows: [None, gather_rows(dy, indices, axis=axis)],
    samples=as_samples([sample(integer(4, low=0, high=5), real(4, 3), rows=5),
                        sample(integer(6, low=0, high=2), real(6), rows=2),
                        sample(integer(2, 2, low=0, high=3), real(2, 2, 2, 3), axis=1, rows=3),
                        sample(integer(low=0, high=2), real(3), rows=2),
                        sample(integer(0, low=0, high=5), real(0, 3), rows=5)]),
    errors=((sample(integer(4, low=0, high=5), real(3, 3), rows=5), "do not fit the indices"),
            (sample(integer(2, low=5, high=6), real(2), rows=5), "indices[0] = 5 is not in [0, 5)")),
    batch=behind("axis"),
)


# into a tensor ------------------------------------------------------------------------------------


def _into_type(base, indices, updates, *, axis):
    _check_indices(indices)
    common_dtype([base, updates], ["base", "updates"], "any")
    if not 0 <= axis < base.rank:
        raise RuleError("axis out of range", f"axis {axis} of rank {base.rank}")
    wanted = (*base.shape[:axis], *indices.shape, *base.shape[axis + 1:])
    same_shape(updates.shape, wanted, "updates do not fit the base and the indices")
    return base


def _into_numpy(base, indices, updates, *, axis, change):
    _check_range(indices, base.shape[axis])
    y = np.array(base)
    flat = updates.reshape(*base.shape[:axis], indices.size, *base.shape[axis + 1:])
    lines, rows = np.moveaxis(y, axis, 0), np.moveaxis(flat, axis, 0)
    for at, row in zip(indices.ravel(), rows, strict=True):  # in the order of the indices
        lines[at] = change(lines[at], row)
    return y


def _into(name: str, action: str, change, doc: str, grad) -> Op:
    bad = [(sample(real(5, 3), integer(4, low=0, high=5), real(3, 3)), "do not fit the base"),
           (sample(real(5), integer(2, low=5, high=6), real(2)), "indices[0] = 5 is not in [0, 5)"),
           (sample(real(), integer(2), real(2)), "axis out of range")]
    return Op(name, Kind.SCATTER, ("base", "indices", "updates"), attrs={"axis": 0}, doc=doc, infer=_into_type, grad=grad,
              rule=Scatter(lambda attrs: attrs["axis"], into=True, action=action), nondiff=("indices",),
              numpy=lambda base, indices, updates, *, axis: _into_numpy(base, indices, updates, axis=axis, change=change),
              samples=as_samples([sample(real(5, 3), integer(4, low=0, high=5), real(4, 3)),
                                  sample(real(3), integer(6, low=0, high=3), real(6)),
                                  sample(real(2, 3, 3), integer(2, 2, low=0, high=3), real(2, 2, 2, 3), axis=1),
                                  sample(real(2, 3), integer(low=0, high=2), real(3)),
                                  sample(real(5, 3), integer(0, low=0, high=5), real(0, 3))]), errors=tuple(bad),
              batch=behind("axis"))


scatter_add: Op = _into(
    "scatter_add", "add", lambda old, new: old + new,
    "base with each update added to the row along `axis` that its index names; duplicates in order of appearance.",
    lambda dy, y, base, indices, updates, *, axis: [dy, None, gather_rows(dy, indices, axis=axis)])


def _set_grad(dy, y, base, indices, updates, *, axis):
    """dy of the rows that stay to base; that of a row that was set to the last update that named it."""
    nothing = broadcast_to(as_node(0, updates.dtype), shape=tuple(updates.type.shape))
    kept = scatter_set(dy, indices, nothing, axis=axis)
    count, rows = dims.product(indices.type.shape), base.type.shape[axis]
    number, flat = iota(shape=(count,), axis=0), reshape_to(indices, shape=(count,))
    last = scatter_set(broadcast_to(as_node(0, int64), shape=(rows,)), flat, number)
    wins = reshape_to(equal(gather_rows(last, flat), number),
                      shape=(*indices.type.shape, *[1] * (base.type.rank - axis - 1)))
    return [kept, None, where(broadcast_to(wins, shape=tuple(updates.type.shape)), gather_rows(dy, indices, axis=axis), 0)]


scatter_set: Op = _into(
    "scatter_update", "set", lambda old, new: new,
    "base with each update in place of the row along `axis` that its index names; of duplicates the last one counts.",
    _set_grad)
