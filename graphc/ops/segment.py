"""Largest, smallest and product of the rows that share a number: the segments of a tensor."""
from __future__ import annotations

import numpy as np

from graphc.errors import DTypeError, RuleError, RunError
from graphc.ir import dims
from graphc.ir.node import as_node
from graphc.ir.op import REQUIRED, Items
from graphc.ir.types import same_dim
from graphc.ops.compare import cast, equal, logical_and, where
from graphc.ops.define import common_dtype, sample
from graphc.ops.elementwise import maximum
from graphc.ops.gather import gather_rows, scatter_sum
from graphc.ops.movement import broadcast_to, reshape_to
from graphc.ops.order import order_of
from graphc.ops.routine import fail, highest, lowest, routine, wide
from graphc.ops.running import recurrence, shifted
from graphc.ops.samples import integer, real


def _segment_type(data, ids, *, rows):
    common_dtype([data], ["data"], "number")
    if ids.dtype.short not in ("i32", "i64"):
        raise RuleError("ids must be int32 or int64", f"they are {ids.dtype.name}", DTypeError)
    if ids.rank != 1 or not data.rank:
        raise RuleError("ids must have one axis, data at least one", f"they have {ids.rank} and {data.rank}")
    same_dim(data.shape[0], ids.shape[0], "data has another number of rows than ids")
    return data.with_shape((rows, *data.shape[1:]))


def _segment_items(types, result, attrs):
    """An item is a column: its elements of all rows, in order, on one thread."""
    data, ids = types
    inner = dims.product(data.shape[1:])
    return Items((inner,), {"data": (1,), "y": (1,)}, {"n": ids.shape[0], "inner": inner, "rows": attrs["rows"]},
                 failures=(("ids", "index out of range", attrs["rows"]),), work=data.elements * 2 + result.elements)


def _max_row(data, ids, y, n, inner, rows):
    for at in range(rows):
        y[at * inner] = lowest(data)
    for k in range(n):
        at = ids[k]
        if at >= rows:
            fail(0, k, at)
        elif at >= 0:
            value = data[k * inner]
            if value > y[at * inner] or value != value:
                y[at * inner] = value


def _min_row(data, ids, y, n, inner, rows):
    for at in range(rows):
        y[at * inner] = highest(data)
    for k in range(n):
        at = ids[k]
        if at >= rows:
            fail(0, k, at)
        elif at >= 0:
            value = data[k * inner]
            if value < y[at * inner] or value != value:
                y[at * inner] = value


def _product_row(data, ids, y, n, inner, rows):
    for at in range(rows):
        y[at * inner] = wide(data, 1)
    for k in range(n):
        at = ids[k]
        if at >= rows:
            fail(0, k, at)
        elif at >= 0:
            y[at * inner] = y[at * inner] * data[k * inner]


def _numpy(ufunc, start):
    def numpy(data, ids, *, rows):
        wrong = np.flatnonzero(ids >= rows)
        if wrong.size:
            raise RunError(f"index out of range: ids[{wrong[0]}] = {ids[wrong[0]]} is not in [0, {rows})")
        y = np.full((rows, *data.shape[1:]), start(data), data.dtype)
        ufunc.at(y, ids[ids >= 0], data[ids >= 0])
        return y
    return numpy


def _rows_like(vector, data):
    """A vector with a number for each row of data, as it broadcasts against data."""
    return reshape_to(vector, shape=(data.type.shape[0], *[1] * (data.type.rank - 1)))


def _extreme_grad(dy, y, data, ids, *, rows):
    """dy in equal parts to the elements that reach the result, as with reduce_max."""
    places = maximum(ids, 0)
    known = _rows_like(ids >= 0, data)
    chosen = logical_and(equal(data, gather_rows(y, places)), known)
    count = scatter_sum(places, cast(chosen, dtype=data.dtype), rows=rows)
    return [where(chosen, gather_rows(dy / count, places), 0), None]


def _product_grad(dy, y, data, ids, *, rows):
    """dy times the product of the others of the segment, without a division: the rows are put in order by segment, and
    products run from both ends of each segment.
    """
    n = data.type.shape[0]
    order = order_of(ids, axis=0)
    sorted_ids, x = gather_rows(ids, order), gather_rows(data, order)
    parts, ones = [], broadcast_to(as_node(1, ids.dtype), shape=(n,))
    for by in (1, -1):
        same = logical_and(equal(sorted_ids, shifted(sorted_ids, 0, by)), equal(shifted(ones, 0, by), 1))
        same = broadcast_to(_rows_like(same, data), shape=tuple(data.type.shape))
        start = where(same, as_node(0, data.dtype), as_node(1, data.dtype))
        parts.append(recurrence(where(same, shifted(x, 0, by), 0), start, axis=0, reverse=by < 0, restarts=True))
    known = broadcast_to(_rows_like(sorted_ids >= 0, data), shape=tuple(data.type.shape))
    slope = parts[0] * parts[1] * gather_rows(dy, maximum(sorted_ids, 0))
    return [scatter_sum(order, where(known, slope, 0), rows=n), None]


_SAMPLES = [sample(real(9, 3, distinct=True), integer(9, low=-1, high=3), rows=3),
            sample(real(7, distinct=True), integer(7, low=0, high=2, dtype="int32"), rows=2),
            sample(real(4, 2, 2), integer(4, low=0, high=1), rows=1), sample(real(0, 2), integer(0, low=0, high=1), rows=2),
            sample(integer(5, low=-3, high=4), integer(5, low=-1, high=2, dtype="int64"), rows=4)]
_ERRORS = [(sample(real(3), real(3), rows=2), "ids must be int32 or int64"),
           (sample(real(3), integer(4, low=0, high=1), rows=2), "another number of rows"),
           (sample(real(3), integer(3, 1), rows=2), "ids must have one axis"),
           (sample(real(3), integer(3, low=2, high=3), rows=2), "index out of range: ids[0] = 2 is not in [0, 2)")]
_COMMON: dict = {"attrs": {"rows": REQUIRED}, "infer": _segment_type, "items": _segment_items, "samples": _SAMPLES,
           "errors": _ERRORS, "nondiff": ("ids",)}
_DOC = "of the rows of data with each number 0 ... `rows` - 1 in ids; rows with a negative number do not count. Of none: "

segment_max = routine("segment_max", "data ids", row=_max_row, grad=_extreme_grad, numpy=_numpy(np.maximum, lowest),
                      doc=f"The largest {_DOC}the smallest value there is.", **_COMMON)
segment_min = routine("segment_min", "data ids", row=_min_row, grad=_extreme_grad, numpy=_numpy(np.minimum, highest),
                      doc=f"The smallest {_DOC}the largest value there is.", **_COMMON)
segment_prod = routine("segment_prod", "data ids", row=_product_row, grad=_product_grad,
                       numpy=_numpy(np.multiply, lambda data: 1), doc=f"The product {_DOC}1.", **_COMMON)
