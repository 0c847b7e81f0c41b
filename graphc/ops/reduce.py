"""Reductions: elements combined along axes. `axes` is a tuple of axes counted from 0; those axes disappear."""
from __future__ import annotations

import numpy as np

from graphc.errors import RuleError
from graphc.ir import dims
from graphc.ir.node import as_node
from graphc.ir.op import Kind, Op, Reduce
from graphc.ir.types import DType, TensorType, bool_, int32, int64
from graphc.ops.assemble import concat_values, place
from graphc.ops.compare import cast, equal, where
from graphc.ops.define import as_samples, common_dtype, reduction, sample, without_axes
from graphc.ops.elementwise import multiply
from graphc.ops.index import dim_value, iota
from graphc.ops.movement import broadcast_to, expand, reshape_to, strided_slice, transpose_to
from graphc.ops.samples import boolean, integer, real

CHOICES = [sample(real(3, 4), axes=(0,)), sample(real(3, 4), axes=(1,)), sample(real(3, 4), axes=(0, 1)),
           sample(real(2, 3, 4), axes=(1,)), sample(real(2, 3, 4), axes=(0, 2)), sample(real(0, 4), axes=(0,)),
           sample(real(3, 4), axes=())]
DISTINCT = [sample(real(*s.inputs[0].shape, distinct=True), **s.attrs) for s in CHOICES]
AXIS_ERRORS = [(sample(real(3, 4), axes=(2,)), "axis out of range"), (sample(real(3, 4), axes=(0, 0)), "appears twice")]

reduce_sum = reduction(
    "reduce_sum",
    doc="Sum over `axes`; those axes disappear. Of nothing: 0. Integers stay in their dtype and wrap.",
    combine="{acc} + {x}", horizontal="horizontal_add", init=lambda dtype: 0,
    numpy=lambda x, *, axes: np.sum(x, axis=axes, dtype=x.dtype),
    grad=lambda dy, y, x, *, axes: [expand(dy, x.type.shape, axes)],
    samples=[*CHOICES, sample(integer(3, 4), axes=(0,))],
    errors=[*AXIS_ERRORS, (sample(boolean(3), axes=(0,)), "bool is not accepted")],
)

# products -----------------------------------------------------------------------------------------


def _prod_grad(dy, y, x, *, axes):
    """dy times the product of all the other elements: right at zeros, and at any order, as there is no division."""
    if not axes:
        return [dy]
    shape = tuple(x.type.shape)
    kept = tuple(a for a in range(len(shape)) if a not in axes)
    order = (*kept, *axes)
    moved = tuple(shape[a] for a in order)
    rows, n = dims.product(shape[a] for a in kept), dims.product(shape[a] for a in axes)
    flat = reshape_to(transpose_to(x, perm=order), shape=(rows, n))
    others = _others_by_halves(flat, n) if isinstance(n, int) else _others_by_mask(flat, rows, n)
    back = transpose_to(reshape_to(others, shape=moved), perm=tuple(order.index(a) for a in range(len(order))))
    return [expand(dy, shape, axes) * back]


def _others_by_halves(x, n: int):
    """The product of the other elements of each row, of which there are n: by halving, which takes about 3 n products.

    The product of pairs (k, k + half) gets its own others first; an element's others are those of its pair times
    its partner.
    """
    rows = x.type.shape[0]
    if n <= 1:
        return broadcast_to(as_node(1, x.dtype), shape=(rows, n))
    half = (n + 1) // 2
    even = x if n % 2 == 0 else place(x, shape=(rows, 2 * half), begin=(0, 0), steps=(1, 1), fill=1)
    low, high = (strided_slice(even, begin=(0, at), steps=(1, 1), sizes=(rows, half)) for at in (0, half))
    outside = _others_by_halves(multiply(low, high), half)
    both = concat_values(outside * high, outside * low, axis=1)
    return both if n % 2 == 0 else strided_slice(both, begin=(0, 0), steps=(1, 1), sizes=(rows, n))


def _others_by_mask(x, rows, n):
    """The same when only a run knows n, which allows no halving: each row's products with one element left out."""
    cube = (rows, n, n)
    is_self = equal(iota(shape=cube, axis=1), iota(shape=cube, axis=2))
    return reduce_prod(where(is_self, 1, broadcast_to(reshape_to(x, shape=(rows, 1, n)), shape=cube)), axes=(2,))


reduce_prod = reduction(
    "reduce_prod",
    doc="Product over `axes`; those axes disappear. Of nothing: 1. Integers stay in their dtype and wrap.",
    combine="{acc} * {x}", horizontal="horizontal_mul", init=lambda dtype: 1,
    numpy=lambda x, *, axes: np.prod(x, axis=axes, dtype=x.dtype),
    grad=_prod_grad,
    samples=[*CHOICES, sample(real(2, 5), axes=(1,)), sample(integer(3, 4), axes=(0,))],
    errors=[*AXIS_ERRORS, (sample(boolean(3), axes=(0,)), "bool is not accepted")],
)

# largest and smallest -----------------------------------------------------------------------------


def lowest(dtype: DType):
    """The smallest value of a dtype: -inf, or the smallest integer."""
    return float("-inf") if dtype.is_floating else int(np.iinfo(dtype.numpy).min)


def highest(dtype: DType):
    """The largest value of a dtype: inf, or the largest integer."""
    return float("inf") if dtype.is_floating else int(np.iinfo(dtype.numpy).max)


def _share_among_ties(dy, y, x, *, axes):
    """dy in equal parts to the elements that reach y; NaN to all where y is NaN, as no element equals it (0 / 0)."""
    shape = x.type.shape
    chosen = cast(equal(x, expand(y, shape, axes)), dtype=x.dtype)
    return [expand(dy / reduce_sum(chosen, axes=axes), shape, axes) * chosen]


def _extreme(name: str, word: str, horizontal: str, numpy, init, empty: str, grad=_share_among_ties,
             ties: str = "Ties share the gradient equally.") -> Op:
    return reduction(
        name,
        doc=f"The {word} element over `axes`; those axes disappear. NaN where there is one. Of nothing: {empty}. {ties}",
        combine=f"{'maximum' if init is lowest else 'minimum'}({{acc}}, {{x}})", horizontal=horizontal, init=init,
        numpy=lambda x, *, axes: numpy(x, axis=axes, initial=init(_dtype(x))),
        grad=grad,
        samples=[*DISTINCT, sample(integer(3, 4), axes=(1,))],
        errors=[*AXIS_ERRORS, (sample(boolean(3), axes=(0,)), "bool is not accepted")],
    )


def _dtype(x: np.ndarray) -> DType:
    return DType(x.dtype.name, x.dtype.kind + str(8 * x.dtype.itemsize))


reduce_max = _extreme("reduce_max", "largest", "horizontal_max", np.max, lowest, "-inf, or the smallest integer")
reduce_min = _extreme("reduce_min", "smallest", "horizontal_min", np.min, highest, "inf, or the largest integer")



def _as_number(size):
    """A size as an operand, an int32."""
    return size if isinstance(size, int) else cast(dim_value(dim=size), dtype=int32)


def _to_first(dy, y, x, *, axes):
    """dy to the first element that reaches y; to none where y is NaN."""
    shape = tuple(x.type.shape)
    number = as_node(0, int32)  # of an element among those that are reduced together
    for axis in axes:
        number = number * _as_number(shape[axis]) + iota(shape=shape, axis=axis, dtype=int32)
    reached = where(equal(x, expand(y, shape, axes)), number, highest(int32))
    return [where(equal(number, expand(reduce_min(reached, axes=axes), shape, axes)), expand(dy, shape, axes), 0)]


reduce_first_max = _extreme("reduce_first_max", "largest", "horizontal_max", np.max, lowest, "-inf, or the smallest integer",
                            _to_first, "Of equal ones the first gets the whole gradient.")

# truth --------------------------------------------------------------------------------------------


def _truth(name: str, symbol: str, horizontal: str, numpy, init: bool, doc: str) -> Op:
    return reduction(
        name, doc=doc, accepts="bool", result=bool_,
        combine=f"{{acc}} {symbol} {{x}}", horizontal=horizontal, init=lambda dtype: init,
        numpy=lambda x, *, axes: numpy(x, axis=axes), grad="a bool has no gradient",
        samples=[sample(boolean(3, 4), axes=(0,)), sample(boolean(2, 3, 4), axes=(0, 2)),
                 sample(boolean(0, 4), axes=(0,))],
        errors=[(sample(real(3, dtype="float32"), axes=(0,)), "float32 is not accepted")],
    )


reduce_any = _truth("reduce_any", "|", "horizontal_or", np.any, False,
                    "Whether any element over `axes` is true. Of nothing: false.")
reduce_all = _truth("reduce_all", "&", "horizontal_and", np.all, True,
                    "Whether all elements over `axes` are true. Of nothing: true.")

# positions ----------------------------------------------------------------------------------------


def _position_type(x, *, axes):
    common_dtype([x], ["x"], "number")
    if len(axes) != 1:
        raise RuleError("it takes one axis", f"axes {tuple(axes)}")
    shape = without_axes(x, axes)
    if x.shape[axes[0]] == 0:
        raise RuleError("there is no element to choose", f"axis {axes[0]} has size 0")
    return TensorType(int64, shape)


def _position(name: str, word: str, arg: str, numpy, init) -> Op:
    return Op(
        name, Kind.REDUCE, ("x",), attrs={"axes": (0,)},
        doc=f"Where along the one axis of `axes` the {word} element is, as int64: the first of equal ones; the first "
            "NaN if there is one.",
        infer=_position_type, rule=Reduce(f"better_{arg}", f"horizontal_arg{arg}", init, arg),
        numpy=lambda x, *, axes: numpy(x, axis=axes[0]), grad="a position is constant between jumps",
        samples=as_samples([sample(real(3, 4), axes=(0,)), sample(real(3, 4), axes=(1,)),
                            sample(real(2, 3, 4), axes=(1,)),
                            sample(integer(5, 9, low=0, high=3), axes=(1,)), sample(real(0, 4), axes=(1,))]),
        errors=((sample(real(3, 4), axes=(0, 1)), "it takes one axis"),
                (sample(real(3, 4), axes=(2,)), "axis out of range"),
                (sample(real(0, 4), axes=(0,)), "no element to choose")),
    )


argmax = _position("argmax", "largest", "max", np.argmax, lowest)
argmin = _position("argmin", "smallest", "min", np.argmin, highest)
