"""Scatters that keep the larger or the smaller of what is there and what comes."""
from __future__ import annotations

import numpy as np

from graphc.ir import dims
from graphc.ir.op import Items
from graphc.ops.compare import cast, equal, where
from graphc.ops.define import sample
from graphc.ops.gather import _check_range, _into_type, gather_rows, scatter_sum
from graphc.ops.routine import fail, routine
from graphc.ops.samples import integer, real


def _items(types, result, attrs):
    """An item is a column of base: its elements of all rows, in order, on one thread."""
    base, indices, updates = types
    inner, rows = dims.product(base.shape[1:]), base.shape[0]
    return Items((inner,), {"base": (1,), "updates": (1,), "y": (1,)},
                 {"n": dims.product(indices.shape), "inner": inner, "rows": rows},
                 failures=(("indices", "index out of range", rows),), work=updates.elements * 2 + result.elements)


def _max_row(base, indices, updates, y, n, inner, rows):
    for at in range(rows):
        y[at * inner] = base[at * inner]
    for k in range(n):
        at = indices[k]
        if at < 0 or at >= rows:
            fail(0, k, at)
        else:
            value = updates[k * inner]
            if value > y[at * inner] or value != value:
                y[at * inner] = value


def _min_row(base, indices, updates, y, n, inner, rows):
    for at in range(rows):
        y[at * inner] = base[at * inner]
    for k in range(n):
        at = indices[k]
        if at < 0 or at >= rows:
            fail(0, k, at)
        else:
            value = updates[k * inner]
            if value < y[at * inner] or value != value:
                y[at * inner] = value


def _type(base, indices, updates):
    return _into_type(base, indices, updates, axis=0)


def _numpy(ufunc):
    def rule(base, indices, updates):
        _check_range(indices, base.shape[0])
        y = np.array(base)
        ufunc.at(y, indices, updates)
        return y
    return rule


def _grad(dy, y, base, indices, updates):
    """dy in equal parts to what reaches the result, of base and of the updates."""
    rows = base.type.shape[0]
    stays = cast(equal(base, y), dtype=base.dtype)
    reaches = equal(updates, gather_rows(y, indices))
    share = dy / (stays + scatter_sum(indices, cast(reaches, dtype=base.dtype), rows=rows))
    return [stays * share, None, where(reaches, gather_rows(share, indices), 0)]


_COMMON: dict = {"infer": _type, "items": _items, "grad": _grad, "nondiff": ("indices",), "samples": [
    sample(real(5, 3, distinct=True), integer(4, low=0, high=5), real(4, 3, distinct=True, low=-1.9, high=2.1)),
    sample(real(3), integer(6, low=0, high=3, dtype="int32"), real(6)),
    sample(real(4, 2), integer(2, 2, low=0, high=4), real(2, 2, 2)), sample(real(3, 2), integer(low=0, high=3), real(2)),
    sample(real(5, 3), integer(0, low=0, high=5), real(0, 3))], "errors": [
    (sample(real(5, 3), integer(4, low=0, high=5), real(3, 3)), "do not fit the base"),
    (sample(real(5), integer(2, low=5, high=6), real(2)), "indices[0] = 5 is not in [0, 5)")]}

scatter_max = routine("scatter_max", "base indices updates", row=_max_row, numpy=_numpy(np.maximum),
                      doc="base, where each row is at least each update whose index names it; NaN stays.", **_COMMON)
scatter_min = routine("scatter_min", "base indices updates", row=_min_row, numpy=_numpy(np.minimum),
                      doc="base, where each row is at most each update whose index names it; NaN stays.", **_COMMON)
