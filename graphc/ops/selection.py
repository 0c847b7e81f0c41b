"""Host ops whose results have sizes that only values tell: each such size is a new dim, an attribute of the node."""
from __future__ import annotations

import numpy as np

from graphc.errors import ArgumentError, DTypeError, RuleError, RunError, report
from graphc.ir.dims import Size, name
from graphc.ir.op import REQUIRED, Host, Kind, Op
from graphc.ir.types import TensorType, int64, uint8
from graphc.ops.define import as_samples, common_dtype, sample
from graphc.ops.samples import boolean, integer, real

NO_GRADIENT = "positions and counts do not change when values do, but by jumps"
A, B = name("A"), name("B")  # of the samples


def _host(name: str, inputs: str, *, doc: str, infer, numpy, samples, binds=("dim",), errors=()) -> Op:
    return Op(name, Kind.HOST, tuple(inputs.split()), infer=infer, numpy=numpy, grad=NO_GRADIENT, doc=doc,
              rule=Host(binds=tuple(binds)), attrs=dict.fromkeys(binds, REQUIRED), samples=as_samples(samples),
              errors=tuple(errors))


def _vector(x: TensorType, what: str) -> Size:
    if x.rank != 1:
        raise RuleError(f"{what} must have one axis", f"rank {x.rank}")
    return x.shape[0]


def _read_type(sizes, *, dims):
    if not sizes.dtype.is_integer:
        raise RuleError("sizes must be integers", f"they are {sizes.dtype.name}", DTypeError)
    if _vector(sizes, "sizes") != len(dims):
        raise RuleError("it takes one dim for each size", f"{len(dims)} dims for [{sizes.shape[0]}]")
    return TensorType(uint8, (0, *dims))


def _read_numpy(sizes, *, dims):
    wrong = np.flatnonzero(sizes < 0)
    if wrong.size:
        raise RunError(f"a size is negative: sizes[{wrong[0]}] = {sizes[wrong[0]]}")
    try:
        return np.empty((0, *(int(s) for s in sizes)), np.uint8)
    except (ValueError, MemoryError):
        raise RunError(f"too many elements: the sizes are {sizes.tolist()}") from None


read_sizes = _host(
    "read_sizes", "sizes", binds=("dims",),
    doc="Takes sizes out of a tensor: a result without elements, of the shape (0, *dims), which gives each dim its size.",
    infer=_read_type, numpy=_read_numpy,
    samples=[sample(integer(2, low=0, high=5), dims=(A, B)), sample(integer(1, low=2, high=3, dtype="int32"), dims=(A,))],
    errors=[(sample(integer(2, low=-3, high=-2), dims=(A, B)), "a size is negative: sizes[0] = -3"),
            (sample(integer(2, low=0, high=5), dims=(A,)), "one dim for each size"),
            (sample(real(2), dims=(A, B)), "sizes must be integers")],
)


def _measured_type(x, *, axes, dims):
    shape = list(x.shape)
    if len(axes) != len(dims) or any(not 0 <= a < x.rank for a in axes):
        raise RuleError("measured takes one dim for each axis", f"{len(dims)} dims, axes {tuple(axes)} of rank {x.rank}")
    for axis, dim in zip(axes, dims, strict=True):
        shape[axis] = dim
    return x.with_shape(shape)


def no_way_back(node):
    """The error for a gradient through a loop with variables whose sizes change."""
    return report(ArgumentError, "while_loop: no gradient flows through a loop whose variables change their sizes",
                  [("variable", node.describe())], "what they were is not kept: keep tensors of the largest size and a count, "
                  "or let graphc.scan stack what each iteration adds")


def _measured_grad(dy, y, x, *, axes, dims):
    raise no_way_back(y)


measured = Op(
    "measured", Kind.HOST, ("x",), attrs={"axes": REQUIRED, "dims": REQUIRED},
    doc="x itself, whose sizes along `axes` are only known when it is there: it gives each of `dims` its size.",
    infer=_measured_type, numpy=lambda x, *, axes, dims: x, rule=Host(binds=("dims",)), grad=_measured_grad,
    samples=as_samples([sample(integer(3, 2), axes=(0,), dims=(A,)), sample(integer(0, 2, 4), axes=(0, 2), dims=(A, B)),
                        sample(integer(1), axes=(0,), dims=(A,))]),
    errors=((sample(integer(3), axes=(1,), dims=(A,)), "one dim for each axis"),))


carry_sizes = Op(
    "carry_sizes", Kind.HOST, (), attrs={"dims": REQUIRED},
    doc="A result without elements, of the shape (0, *dims): it carries known sizes to a native program that no feed tells.",
    infer=lambda *, dims: TensorType(uint8, (0, *dims)), numpy=lambda *, dims: np.empty((0, *dims), np.uint8), rule=Host(),
    grad="sizes depend on no input's values", samples=as_samples([sample(dims=(2, 3))]),
)


def _true_type(condition, *, dim):
    if not condition.dtype.is_bool:
        raise RuleError("the condition must be bool", f"it is {condition.dtype.name}", DTypeError)
    return TensorType(int64, (dim, condition.rank))


true_positions = _host(
    "true_positions", "condition",
    doc="The coordinates of the true elements, in order: a row for each of `dim`.",
    infer=_true_type, numpy=lambda condition, *, dim: np.argwhere(condition).astype(np.int64),
    samples=[sample(boolean(7), dim=A), sample(boolean(3, 4), dim=A), sample(boolean(), dim=A), sample(boolean(0, 2), dim=A)],
    errors=[(sample(real(3), dim=A), "the condition must be bool")],
)


def _distinct_type(x, *, dim):
    length = _vector(x, "x")
    return TensorType(int64, (dim,)), TensorType(int64, (length,)), TensorType(int64, (dim,))


def _distinct_numpy(x, *, dim):
    _, first, inverse, counts = np.unique(x, return_index=True, return_inverse=True, return_counts=True, equal_nan=False)
    order = np.argsort(first, kind="stable")        # by first appearance, not by value
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return first[order].astype(np.int64), place[inverse.reshape(-1)], counts[order].astype(np.int64)


distinct_positions = _host(
    "distinct_positions", "x",
    doc="Of the distinct elements of x, in order of appearance: where each is first; for each element of x the number of its "
        "distinct element; how often each is there. Each NaN is an element of its own.",
    infer=_distinct_type, numpy=_distinct_numpy,
    samples=[sample(integer(9, low=0, high=4), dim=A), sample(real(5), dim=A), sample(integer(0), dim=A)],
    errors=[(sample(integer(2, 3), dim=A), "must have one axis")],
)


def _missing_type(x, y, *, dim):
    common_dtype((x, y), ("x", "y"), "any")
    _vector(x, "x"), _vector(y, "y")
    return TensorType(int64, (dim,))


missing_positions = _host(
    "missing_positions", "x y",
    doc="Where x has elements that are not in y, in order.",
    infer=_missing_type, numpy=lambda x, y, *, dim: np.flatnonzero(~np.isin(x, y)).astype(np.int64),
    samples=[sample(integer(9, low=0, high=6), integer(4, low=0, high=6), dim=A), sample(real(3), real(0), dim=A)],
    errors=[(sample(real(3), integer(3), dim=A), "dtypes differ"), (sample(real(3, 1), real(3), dim=A), "must have one axis")],
)


def _parts_type(partitions, *, dims):
    if partitions.dtype.short != "i32":
        raise RuleError("partitions must be int32", f"they are {partitions.dtype.name}", DTypeError)
    _vector(partitions, "partitions")
    return tuple(TensorType(int64, (d,)) for d in dims)


def _parts_numpy(partitions, *, dims):
    wrong = np.flatnonzero((partitions < 0) | (partitions >= len(dims)))
    if wrong.size:
        raise RunError(f"partition out of range: partitions[{wrong[0]}] = {partitions[wrong[0]]} is not in [0, {len(dims)})")
    return tuple(np.flatnonzero(partitions == k).astype(np.int64) for k in range(len(dims)))


part_positions = _host(
    "part_positions", "partitions", binds=("dims",),
    doc="For each part where its number stands in `partitions`, in order.",
    infer=_parts_type, numpy=_parts_numpy,
    samples=[sample(integer(9, low=0, high=2, dtype="int32"), dims=(A, B)),
             sample(integer(0, low=0, high=2, dtype="int32"), dims=(A, B))],
    errors=[(sample(integer(3, low=2, high=3, dtype="int32"), dims=(A, B)), "partitions[0] = 2 is not in [0, 2)"),
            (sample(integer(3, dtype="int64"), dims=(A, B)), "must be int32")],
)


def _last_type(indices, *, dim):
    if indices.dtype.short not in ("i32", "i64"):
        raise RuleError("indices must be int32 or int64", f"they are {indices.dtype.name}", DTypeError)
    _vector(indices, "indices")
    return TensorType(int64, (dim,))


def _last_numpy(indices, *, dim):
    wrong = np.flatnonzero(indices < 0)
    if wrong.size:
        raise RunError(f"an index is negative: indices[{wrong[0]}] = {indices[wrong[0]]}")
    found = np.full(indices.max(initial=-1) + 1, -1, np.int64)
    found[indices] = np.arange(len(indices))  # of equal indices, the last one stays
    if (found < 0).any():
        raise RunError(f"no index is {np.flatnonzero(found < 0)[0]}, although one is {len(found) - 1}")
    return found


last_positions = _host(
    "last_positions", "indices",
    doc="For each number from 0 to the largest index, where it stands in `indices` for the last time; each must be there.",
    infer=_last_type, numpy=_last_numpy,
    samples=[sample(integer(4, low=0, high=1), dim=A), sample(integer(0, low=0, high=1), dim=A)],
    errors=[(sample(integer(3, low=2, high=3), dim=A), "no index is 0, although one is 2"),
            (sample(integer(3, low=-1, high=0), dim=A), "an index is negative: indices[0] = -1"),
            (sample(real(3), dim=A), "indices must be int32 or int64")],
)
