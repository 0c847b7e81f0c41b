"""Assembly: results that are put together from parts."""
from __future__ import annotations

import numpy as np

from graphc.errors import DTypeError, RuleError
from graphc.ir.op import REQUIRED, IndexMap
from graphc.ir.types import TensorType, same_dim, shape_text
from graphc.ops.define import assembly, behind, common_dtype, sample
from graphc.ops.movement import check_walk, front, strided_slice, walk_slices
from graphc.ops.samples import boolean, integer, real


def _concat_type(*values, axis):
    if not values:
        raise RuleError("there is nothing to join")
    dtype = common_dtype(values, ["values"] * len(values), "any")
    rank = values[0].rank
    if not 0 <= axis < rank:
        raise RuleError("axis out of range", f"axis {axis} of rank {rank}")
    shape = list(values[0].shape)
    for value in values[1:]:
        if value.rank != rank:
            raise RuleError("ranks differ", f"[{shape_text(values[0].shape)}] and [{shape_text(value.shape)}]")
        for a in range(rank):
            if a != axis:
                both = f"[{shape_text(values[0].shape)}] and [{shape_text(value.shape)}]"
                shape[a] = same_dim(shape[a], value.shape[a], f"sizes differ in axis {a}: {both}")
    shape[axis] = sum((v.shape[axis] for v in values), 0)
    return TensorType(dtype, tuple(shape))


def _starts(types, axis) -> list:
    """Where each part begins along `axis`."""
    found, at = [], 0
    for type_ in types:
        found.append(at)
        at = at + type_.shape[axis]
    return found


def _concat_parts(types, result, attrs):
    rank, axis = result.rank, attrs["axis"]
    return tuple(IndexMap(tuple(range(rank)), (1,) * rank, tuple(start if a == axis else 0 for a in range(rank)))
                 for start in _starts(types, axis))


def _concat_grad(dy, y, *values, axis):
    rank = y.type.rank
    return [strided_slice(dy, begin=tuple(start if a == axis else 0 for a in range(rank)), steps=(1,) * rank,
                          sizes=tuple(v.type.shape))
            for v, start in zip(values, _starts([v.type for v in values], axis), strict=True)]


concat_values = assembly(
    "concat", "*values", attrs={"axis": 0},
    doc="The values one behind the other along `axis`; their other sizes are equal.",
    infer=_concat_type, parts=_concat_parts, fill=lambda attrs: None,
    numpy=lambda *values, axis: np.concatenate(values, axis),
    grad=_concat_grad,
    samples=[sample(real(3, 4), real(2, 4), axis=0), sample(real(3, 4), real(3, 1), real(3, 2), axis=1),
             sample(real(2, 0, 3), real(2, 2, 3), axis=1), sample(real(2), axis=0),
             sample(boolean(2), boolean(3), axis=0)],
    batch=behind("axis"),
    errors=[(sample(real(3, 4), real(3, 5), axis=0), "sizes differ in axis 1"),
            (sample(real(3, 4), real(3), axis=0), "ranks differ"),
            (sample(real(3), real(3), axis=1), "axis out of range"),
            (sample(real(3), integer(3), axis=0), "dtypes differ"),
            (sample(axis=0), "nothing to join")],
)


def _place_type(x, *, shape, begin, steps, fill):
    check_walk("the part", begin, steps, x.shape, shape)
    if any(isinstance(d, int) and d < 0 for d in shape):
        raise RuleError("a size is negative", f"[{shape_text(shape)}]")
    if x.dtype.is_integer and fill != int(fill):
        raise RuleError("the fill is no whole number", f"{fill} in {x.dtype.name}", DTypeError)
    return x.with_shape(shape)


def _place_numpy(x, *, shape, begin, steps, fill):
    y = np.full(shape, fill, x.dtype)
    y[walk_slices(begin, steps, x.shape)] = x
    return y


place = assembly(
    "place", "x", attrs={"shape": REQUIRED, "begin": REQUIRED, "steps": REQUIRED, "fill": 0},
    doc="A tensor of `shape` full of `fill`, in which element c of x stands at begin + steps * c. Padding, and the "
        "gradient of a strided slice.",
    infer=_place_type,
    parts=lambda types, result, attrs: (
        IndexMap(tuple(range(result.rank)), tuple(attrs["steps"]), tuple(attrs["begin"])),),
    fill=lambda attrs: attrs["fill"],
    numpy=_place_numpy,
    grad=lambda dy, y, x, *, shape, begin, steps, fill: [
        strided_slice(dy, begin=begin, steps=steps, sizes=tuple(x.type.shape))],
    samples=[sample(real(2, 3), shape=(4, 5), begin=(1, 0), steps=(1, 1)),
             sample(real(2, 2), shape=(5, 4), begin=(4, 0), steps=(-2, 3)),
             sample(real(2), shape=(4,), begin=(2,), steps=(1,), fill=1.5),
             sample(real(0, 2), shape=(3, 2), begin=(0, 0), steps=(1, 1)),
             sample(real(), shape=(), begin=(), steps=())],
    batch=front({"shape": "rows", "begin": 0, "steps": 1}),
    errors=[(sample(real(3), shape=(4,), begin=(2,), steps=(1,)), "leaves the tensor"),
            (sample(real(3), shape=(4, 4), begin=(0, 0), steps=(1, 1)), "for each axis")],
)
