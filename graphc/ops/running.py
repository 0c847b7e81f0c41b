"""Running results along an axis: sums, products and largest values of all elements up to each one, and linear recurrences."""
from __future__ import annotations

import numpy as np

from graphc.errors import RuleError
from graphc.ir import dims
from graphc.ir.node import as_node
from graphc.ir.op import REQUIRED, Items, Op
from graphc.ir.types import same_shape
from graphc.ops.assemble import place
from graphc.ops.compare import equal, logical_not, logical_or, where
from graphc.ops.define import behind, common_dtype, sample
from graphc.ops.movement import broadcast_to, strided_slice
from graphc.ops.routine import along, highest, lowest, routine, wide
from graphc.ops.samples import integer, real

FLAGS = {"axis": REQUIRED, "exclusive": False, "reverse": False}
CHOICES = [sample(real(4, 3), axis=0), sample(real(3, 5), axis=1, exclusive=True), sample(real(2, 4, 3), axis=1, reverse=True),
           sample(real(5), axis=0, exclusive=True, reverse=True), sample(real(0, 3), axis=1), sample(real(3, 0), axis=1),
           sample(real(1), axis=0, exclusive=True)]
ERRORS = [(sample(real(3), axis=1), "axis out of range")]


def _running_type(x, *, axis, **_):
    common_dtype([x], ["x"], "number")
    if not 0 <= axis < x.rank:
        raise RuleError("axis out of range", f"axis {axis} of rank {x.rank}")
    return x


def _items(types, result, attrs):
    axes, steps, size, stride = along(types[0].shape, attrs["axis"])
    operands = ("x", "y", "a", "b")
    flags = {name: int(value) for name, value in attrs.items() if name != "axis"}
    return Items(axes, dict.fromkeys(operands, steps), {"n": size, "stride": stride, **flags}, work=types[0].elements * 4)


def _wide(x):
    """x in the dtype of its running results before they are rounded."""
    return x.astype(np.float64 if x.dtype.kind == "f" else np.int64)


def _accumulated(ufunc, x, axis, exclusive, reverse, start):
    """The running results of a ufunc, in order from the one end to the other, rounded once each."""
    lines = np.moveaxis(_wide(x), axis, -1)
    lines = lines[..., ::-1] if reverse else lines
    found = ufunc.accumulate(lines, axis=-1) if lines.shape[-1] else lines
    if exclusive:
        found = np.concatenate([np.full((*found.shape[:-1], 1), start, found.dtype), found[..., :-1]], axis=-1)[
            ..., :lines.shape[-1]]
    found = found[..., ::-1] if reverse else found
    return np.ascontiguousarray(np.moveaxis(found, -1, axis).astype(x.dtype))


def _sum_row(x, y, n, stride, exclusive, reverse):
    total = wide(x, 0)
    for k in range(n):
        at = (n - 1 - k if reverse else k) * stride
        if exclusive:
            y[at] = total
        total = total + x[at]
        if not exclusive:
            y[at] = total


cumsum = routine(
    "cumsum", "x", attrs=FLAGS,
    doc="The sum of all elements up to each one along `axis`; `exclusive` leaves the element itself out, `reverse` sums from "
        "the end. Floats are summed in float64; integers wrap.",
    infer=_running_type, batch=behind("axis"), row=_sum_row, items=_items,
    numpy=lambda x, *, axis, exclusive, reverse: _accumulated(np.add, x, axis, exclusive, reverse, 0),
    grad=lambda dy, y, x, *, axis, exclusive, reverse: [cumsum(dy, axis=axis, exclusive=exclusive, reverse=not reverse)],
    samples=[*CHOICES, sample(integer(3, 4), axis=1)], errors=ERRORS,
)


def shifted(x, axis: int, by: int, fill=0):
    """x moved by one place along `axis`: element k comes from k - by (1 or -1), and `fill` where there is none."""
    rank, n = x.type.rank, x.type.shape[axis]
    left = dims.maximum(n - 1, 0)
    part = strided_slice(x, begin=tuple(int(a == axis and by < 0 and n != 0) for a in range(rank)), steps=(1,) * rank,
                         sizes=tuple(left if a == axis else d for a, d in enumerate(x.type.shape)))
    return place(part, shape=tuple(x.type.shape), begin=tuple(int(a == axis and by > 0) for a in range(rank)),
                 steps=(1,) * rank, fill=fill)


def _recurrence_type(a, b, *, axis, reverse, restarts):
    common_dtype([a, b], ["a", "b"], "float")
    same_shape(a.shape, b.shape, "a has another shape than b")
    return _running_type(a, axis=axis)


def _recurrence_row(a, b, y, n, stride, reverse, restarts):
    state = wide(a, 0)
    for k in range(n):
        at = (n - 1 - k if reverse else k) * stride
        if k == 0 or (restarts and a[at] == 0):
            state = wide(a, 1) * b[at]
        else:
            state = a[at] * state + b[at]
        y[at] = state


def _recurrence_numpy(a, b, *, axis, reverse, restarts):
    turn = (lambda v: v[..., ::-1]) if reverse else (lambda v: v)
    factors, terms = (turn(np.moveaxis(_wide(v), axis, -1)) for v in (a, b))
    y = np.empty_like(terms)
    for k in range(terms.shape[-1]):
        going = factors[..., k] * y[..., k - 1] + terms[..., k] if k else terms[..., k]
        y[..., k] = np.where(factors[..., k] == 0, terms[..., k], going) if restarts else going
    return np.ascontiguousarray(np.moveaxis(turn(y), -1, axis).astype(a.dtype))


def _recurrence_grad(dy, y, a, b, *, axis, reverse, restarts):
    """The same the other way round: g[k] = dy[k] + a[k + 1] g[k + 1] is the gradient by b[k]; that by a[k] is g[k] y[k - 1]."""
    by = -1 if reverse else 1
    flow = recurrence(shifted(a, axis, -by), dy, axis=axis, reverse=not reverse, restarts=restarts)
    return [flow * shifted(y, axis, by), flow]


recurrence = routine(
    "recurrence", "a b", attrs={"axis": REQUIRED, "reverse": False, "restarts": False},
    doc="y[k] = a[k] * y[k - 1] + b[k] along `axis`, where y[0] = b[0]; with `reverse` from the end. With `restarts`, a "
        "factor 0 begins afresh: what came before, were it infinite or NaN, does not enter. Computed in float64.",
    infer=_recurrence_type, batch=behind("axis"), row=_recurrence_row, items=_items, numpy=_recurrence_numpy,
    grad=_recurrence_grad,
    samples=[sample(real(3, 4), real(3, 4), axis=1), sample(real(4, 2), real(4, 2), axis=0, reverse=True),
             sample(real(2, 5), real(2, 5), axis=1, restarts=True), sample(real(0, 2), real(0, 2), axis=0),
             sample(real(1), real(1), axis=0)],
    errors=[(sample(real(3), real(4), axis=0), "a has another shape than b"),
            (sample(real(3), real(3), axis=2), "axis out of range")],
)


def _product_row(x, y, n, stride, exclusive, reverse):
    total = wide(x, 1)
    for k in range(n):
        at = (n - 1 - k if reverse else k) * stride
        if exclusive:
            y[at] = total
        total = total * x[at]
        if not exclusive:
            y[at] = total


def _product_grad(dy, y, x, *, axis, exclusive, reverse):
    """The product of all before x[k] times what the later results owe it. No division: right at zeros, at any order.

    y[i] = before[k] * x[k] * (the product between k and i), so the gradient is before[k] * s[k] with
    s[k] = dy[k] + x[k + 1] s[k + 1], or when x[k] does not enter y[k], s[k] = t[k + 1] with t[k] = dy[k] + x[k] t[k + 1].
    """
    by = -1 if reverse else 1
    before = cumprod(x, axis=axis, exclusive=True, reverse=reverse)
    if exclusive:
        owed = shifted(recurrence(x, dy, axis=axis, reverse=not reverse), axis, -by)
    else:
        owed = recurrence(shifted(x, axis, -by), dy, axis=axis, reverse=not reverse)
    return [before * owed]


cumprod = routine(
    "cumprod", "x", attrs=FLAGS,
    doc="The product of all elements up to each one along `axis`; `exclusive` leaves the element itself out, `reverse` goes "
        "from the end. Floats are multiplied in float64; integers wrap.",
    infer=_running_type, batch=behind("axis"), row=_product_row, items=_items,
    numpy=lambda x, *, axis, exclusive, reverse: _accumulated(np.multiply, x, axis, exclusive, reverse, 1),
    grad=_product_grad, samples=[*CHOICES, sample(integer(3, 4), axis=1)], errors=ERRORS,
)


def _max_row(x, y, n, stride, reverse):
    best = lowest(x)
    for k in range(n):
        at = (n - 1 - k if reverse else k) * stride
        if x[at] > best or x[at] != x[at]:  # a NaN stays: nothing is larger than it
            best = x[at]
        y[at] = best


def _min_row(x, y, n, stride, reverse):
    best = highest(x)
    for k in range(n):
        at = (n - 1 - k if reverse else k) * stride
        if x[at] < best or x[at] != x[at]:
            best = x[at]
        y[at] = best


def _extreme_grad(dy, y, x, *, axis, reverse):
    """Each result is the first element that reaches it: that one gets the gradients from there to where the next takes over.

    Those are sums of dy that begin afresh at each such element, counted from the far end.
    """
    by = -1 if reverse else 1
    ones = broadcast_to(as_node(1, x.dtype), shape=tuple(x.type.shape))
    is_first = equal(shifted(ones, axis, by), 0)
    takes = logical_or(is_first, logical_not(equal(y, shifted(y, axis, by))))
    stays = where(shifted(where(takes, as_node(1, x.dtype), 0), axis, -by) > 0, as_node(0, x.dtype), 1)
    flow = recurrence(stays, dy, axis=axis, reverse=not reverse, restarts=True)
    return [where(takes, flow, 0)]


def _running_extreme(name: str, word: str, row, ufunc) -> Op:
    return routine(
        name, "x", attrs={"axis": REQUIRED, "reverse": False},
        doc=f"The {word} of all elements up to each one along `axis`, from the end with `reverse`. NaN from the first NaN on. "
            "The gradient goes to the first of equal elements.",
        infer=_running_type, batch=behind("axis"), row=row, items=_items,
        numpy=lambda x, *, axis, reverse: np.flip(ufunc.accumulate(np.flip(x, axis), axis), axis) if reverse
        else ufunc.accumulate(x, axis),
        grad=_extreme_grad,
        samples=[sample(real(3, 4, distinct=True), axis=1), sample(real(4, 2, distinct=True), axis=0, reverse=True),
                 sample(integer(3, 4), axis=1), sample(real(0, 2), axis=0), sample(real(1), axis=0)],
        errors=ERRORS,
    )


cummax = _running_extreme("cummax", "largest", _max_row, np.maximum)
cummin = _running_extreme("cummin", "smallest", _min_row, np.minimum)
