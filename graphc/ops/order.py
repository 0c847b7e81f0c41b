"""Order: permutations that sort, the largest elements, places in a sorted line, and equal elements found.

NaN counts as larger than every number, -0.0 as equal to 0.0; equal elements keep their order.
"""
from __future__ import annotations

import numpy as np

from graphc.errors import DTypeError, RuleError, RunError
from graphc.ir import dims
from graphc.ir.op import REQUIRED, Items
from graphc.ir.types import TensorType, int32, same_dim, shape_text
from graphc.ops.define import behind, common_dtype, sample
from graphc.ops.routine import along, fail, routine
from graphc.ops.samples import integer, ordered, permutation, real

NO_GRADIENT = "a position is constant between jumps"

# sorting ------------------------------------------------------------------------------------------


def _order_type(x, *, axis, descending):
    common_dtype([x], ["x"], "number")
    if not 0 <= axis < x.rank:
        raise RuleError("axis out of range", f"axis {axis} of rank {x.rank}")
    return x.with_dtype(int32)


def _order_items(types, result, attrs):
    axes, steps, size, stride = along(types[0].shape, attrs["axis"])
    return Items(axes, {"x": steps, "y": steps}, {"n": size, "stride": stride, "descending": int(attrs["descending"])},
                 {"order": ("i32", size), "spare": ("i32", size)}, work=types[0].elements * 40)


def _order_row(x, y, order, spare, n, stride, descending):
    """A merge sort from below, on blocks of 8 that were sorted by insertion."""
    for start in range(0, n, 8):
        end = start + 8
        end = end if end < n else n
        for k in range(start, end):
            value, at = x[k * stride], k
            while at > start:
                other = x[order[at - 1] * stride]
                if descending:
                    moves = value > other or (value != value and other == other)
                else:
                    moves = value < other or (other != other and value == value)
                if not moves:
                    break
                order[at] = order[at - 1]
                at -= 1
            order[at] = k
    width = 8
    while width < n:
        for start in range(0, n, 2 * width):
            middle, end = start + width, start + 2 * width
            middle = middle if middle < n else n
            end = end if end < n else n
            first, second = start, middle
            for at in range(start, end):
                if first >= middle:
                    moves = True
                elif second >= end:
                    moves = False
                else:
                    value, other = x[order[second] * stride], x[order[first] * stride]
                    if descending:
                        moves = value > other or (value != value and other == other)
                    else:
                        moves = value < other or (other != other and value == value)
                if moves:
                    spare[at] = order[second]
                    second += 1
                else:
                    spare[at] = order[first]
                    first += 1
        for k in range(n):
            order[k] = spare[k]
        width *= 2
    for k in range(n):
        y[k * stride] = order[k]


def _order_numpy(x, *, axis, descending):
    if not descending:
        return np.argsort(x, axis, kind="stable").astype(np.int32)
    last = x.shape[axis] - 1  # backwards twice, so that equal elements keep their order
    return np.flip(last - np.argsort(np.flip(x, axis), axis, kind="stable"), axis).astype(np.int32)


order_of = routine(
    "argsort", "x", attrs={"axis": REQUIRED, "descending": False},
    doc="The positions along `axis` of x's elements in order, as int32. Stable; NaN is the largest.",
    infer=_order_type, batch=behind("axis"), row=_order_row, items=_order_items, numpy=_order_numpy, grad=NO_GRADIENT,
    samples=[sample(real(3, 5), axis=1), sample(integer(40, 2), axis=0), sample(integer(3, 20), axis=1, descending=True),
             sample(real(2, 33, 2), axis=1, descending=True), sample(real(3, 0), axis=1), sample(real(1), axis=0)],
    errors=[(sample(real(3), axis=1), "axis out of range")],
)


def _top_type(x, *, k):
    common_dtype([x], ["x"], "number")
    if not x.rank:
        raise RuleError("a scalar has no rows")
    n = x.shape[-1]
    if k < 0 or isinstance(n, int) and k > n:
        raise RuleError("a row has too few elements", f"{k} of [{shape_text(x.shape)}]")
    return TensorType(int32, (*x.shape[:-1], dims.minimum(n, k)))


def _top_row(x, y, n, k):
    count = 0
    for at in range(n):
        value = x[at]
        place = count
        if count == k:
            if k == 0:
                break
            place = k - 1
            other = x[y[place]]
            if not (value > other or (value != value and other == other)):
                continue
        else:
            count += 1
        while place > 0:
            other = x[y[place - 1]]
            if not (value > other or (value != value and other == other)):
                break
            y[place] = y[place - 1]
            place -= 1
        y[place] = at


def _top_items(types, result, attrs):
    n, found = types[0].shape[-1], result.shape[-1]
    return Items((dims.product(result.shape[:-1]),), {"x": (n,), "y": (found,)}, {"n": n, "k": found},
                 work=types[0].elements * 8)


top_positions = routine(
    "top_positions", "x", attrs={"k": REQUIRED},
    doc="Where the `k` largest elements of each row (the last axis) are, the largest first, as int32. Meant for small k.",
    infer=_top_type, row=_top_row, items=_top_items, grad=NO_GRADIENT,
    numpy=lambda x, *, k: np.ascontiguousarray(_order_numpy(x, axis=x.ndim - 1, descending=True)[..., :k]),
    samples=[sample(real(3, 5), k=2), sample(integer(2, 3, 9, low=0, high=4), k=4), sample(real(4), k=4),
             sample(real(2, 3), k=0), sample(real(0, 3), k=1)],
    errors=[(sample(real(2, 3), k=4), "too few elements")],
)

# places -------------------------------------------------------------------------------------------


def _search_type(line, values, *, right):
    common_dtype([line, values], ["line", "values"], "number")
    if not line.rank or line.rank != values.rank:
        raise RuleError("ranks differ", f"{line.rank} and {values.rank}")
    for a, b in zip(line.shape[:-1], values.shape[:-1], strict=True):
        same_dim(a, b, "rows of the two differ")
    return values.with_dtype(int32)


def _search_row(line, values, y, n, right):
    value = values[0]
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        other = line[middle]
        if right:
            behind = not (value < other or (other != other and value == value))
        else:
            behind = other < value or (value != value and other == other)
        if behind:
            low = middle + 1
        else:
            high = middle
    y[0] = low


def _search_numpy(line, values, *, right):
    y = np.empty(values.shape, np.int32)
    for at in np.ndindex(values.shape[:-1]):
        y[at] = np.searchsorted(line[at], values[at], "right" if right else "left")
    return y


search_sorted = routine(
    "searchsorted", "line values", attrs={"right": False},
    doc="Where each value would have to stand to keep its row of `line`, which is sorted, in order, as int32: before equal "
        "elements, or after them with `right`.",
    infer=_search_type, row=_search_row, numpy=_search_numpy, grad=NO_GRADIENT,
    items=lambda types, result, attrs: Items(
        (dims.product(result.shape[:-1]), result.shape[-1]),
        {"line": (types[0].shape[-1], 0), "values": (result.shape[-1], 1), "y": (result.shape[-1], 1)},
        {"n": types[0].shape[-1], "right": int(attrs["right"])}, work=result.elements * 40),
    samples=[sample(ordered(2, 9), real(2, 5, dtype="float32")),
             sample(ordered(6, dtype="float64"), real(4, dtype="float64"), right=True),
             sample(integer(1, low=0, high=1), integer(4, low=-1, high=2), right=True), sample(real(0), real(3)),
             sample(real(2, 0), real(2, 0))],
    errors=[(sample(real(2, 3), real(3)), "ranks differ"), (sample(real(2, 3), real(3, 3)), "rows of the two differ")],
)

# equal elements -----------------------------------------------------------------------------------


def _index_vector(x, **_):
    if x.dtype.short not in ("i32", "i64"):
        raise RuleError("x must be int32 or int64", f"it is {x.dtype.name}", DTypeError)
    if x.rank != 1:
        raise RuleError("x must have one axis", f"it has {x.rank}")
    return x


def _first_row(x, y, table, n, size):
    """A hash table of positions, with the next free place taken where two elements meet."""
    for k in range(size):
        table[k] = -1
    for k in range(n):
        place = (x[k] * 0x9E3779B97F4A7C1) % size
        while table[place] >= 0 and x[table[place]] != x[k]:
            place += 1
            if place == size:
                place = 0
        if table[place] < 0:
            table[place] = k
        y[k] = table[place]


def _first_numpy(x):
    _, first, group = np.unique(x, return_index=True, return_inverse=True)
    return first[group].reshape(x.shape).astype(x.dtype)


first_equal = routine(
    "first_equal", "x",
    doc="For each element of a vector of integers the position of the first one that equals it: one number for each group.",
    infer=_index_vector, row=_first_row, numpy=_first_numpy, grad="positions are whole numbers",
    items=lambda types, result, attrs: Items(
        numbers={"n": types[0].shape[0], "size": 2 * types[0].shape[0] + 1},
        scratch={"table": ("i64", 2 * types[0].shape[0] + 1)}, work=types[0].elements * 20),
    samples=[sample(integer(9, low=-2, high=3)), sample(integer(50, low=0, high=2**30)), sample(integer(0))],
    errors=[(sample(real(3)), "must be int32 or int64"), (sample(integer(3, 2)), "x must have one axis")],
)


def _inverse_row(x, y, n):
    for k in range(n):
        y[k] = -1
    for k in range(n):
        at = x[k]
        if at < 0 or at >= n:
            fail(0, k, at)
        elif y[at] >= 0:
            fail(1, k, at)
        else:
            y[at] = k


def _inverse_numpy(x):
    y = np.full(x.shape, -1, x.dtype)
    for k, at in enumerate(x):
        if not 0 <= at < x.size:
            raise RunError(f"index out of range: x[{k}] = {at} is not in [0, {x.size})")
        if y[at] >= 0:
            raise RunError(f"a number appears twice: x[{k}] = {at}")
        y[at] = k
    return y


inverse_order = routine(
    "invert_permutation", "x", doc="y[x[k]] = k. What is no permutation of 0, 1, ... is an error when it runs.",
    infer=_index_vector, row=_inverse_row, numpy=_inverse_numpy, grad="positions are whole numbers",
    items=lambda types, result, attrs: Items(
        numbers={"n": types[0].shape[0]}, failures=(("x", "index out of range", types[0].shape[0]),
                                                    ("x", "a number appears twice", None))),
    samples=[sample(permutation(7)), sample(permutation(4, "int64")), sample(permutation(0))],
    errors=[(sample(integer(2, low=5, high=6)), "index out of range: x[0] = 5 is not in [0, 2)"),
            (sample(integer(2, low=1, high=2)), "a number appears twice: x[1] = 1"),
            (sample(integer(2, 2)), "x must have one axis")],
)
