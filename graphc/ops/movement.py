"""Movement: the same elements in other places."""
from __future__ import annotations

import numpy as np

from graphc.errors import RuleError
from graphc.ir import dims
from graphc.ir.op import REQUIRED, Batch, IndexMap, Kind, Op
from graphc.ir.types import broadcast_shapes, same_dim, shape_text
from graphc.ops.define import as_samples, move, sample
from graphc.ops.samples import real


def front(values: dict) -> Batch:
    """The attributes `values` say something for each axis: this for the new one, "rows" its size."""
    return Batch(lambda rows, marks, attrs: {
        **attrs, **{name: (rows if first == "rows" else first, *attrs[name]) for name, first in values.items()}})


def _reshape_type(x, *, shape):
    if any(isinstance(d, int) and d < 0 for d in shape):
        raise RuleError("a size is negative", f"[{shape_text(shape)}]")
    before, after = x.elements, dims.product(shape)
    same_dim(before, after, f"{before} elements do not fill [{shape_text(shape)}]")
    return x.with_shape(shape)


reshape_to: Op = Op(
    "reshape", Kind.VIEW, ("x",), attrs={"shape": REQUIRED},
    doc="The same elements in the same order in another shape. `shape` is full: no -1.",
    infer=_reshape_type,
    numpy=lambda x, *, shape: np.reshape(x, shape),
    grad=lambda dy, y, x, *, shape: [reshape_to(dy, shape=tuple(x.type.shape))],
    samples=as_samples([sample(real(3, 4), shape=(2, 6)), sample(real(1, 3), shape=(3,)), sample(real(), shape=(1, 1)),
                        sample(real(0, 2), shape=(4, 0))]),
    errors=((sample(real(2, 3), shape=(4, 2)), "6 elements do not fill [4,2]"),
            (sample(real(2, 3), shape=(-6, -1)), "a size is negative")), batch=front({"shape": "rows"}),
)


def _transpose_type(x, *, perm):
    if sorted(perm) != list(range(x.rank)):
        raise RuleError("perm is no permutation of the axes", f"perm {tuple(perm)} of rank {x.rank}")
    return x.with_shape(x.shape[p] for p in perm)


transpose_to: Op = move(
    "transpose", attrs={"perm": REQUIRED},
    doc="Axes in the order `perm`: axis k of the result is axis perm[k] of x.",
    infer=_transpose_type,
    access=lambda x, y, attrs: IndexMap(tuple(attrs["perm"].index(a) for a in range(x.rank)), (1,) * x.rank,
                                        (0,) * x.rank),
    numpy=lambda x, *, perm: np.transpose(x, perm),
    grad=lambda dy, y, x, *, perm: [transpose_to(dy, perm=tuple(perm.index(a) for a in range(len(perm))))],
    samples=[sample(real(3, 4), perm=(1, 0)), sample(real(2, 3, 4), perm=(2, 0, 1)), sample(real(), perm=()),
             sample(real(0, 4), perm=(1, 0))],
    batch=Batch(lambda rows, marks, attrs: {"perm": (0, *(p + 1 for p in attrs["perm"]))}),
    errors=[(sample(real(3, 4), perm=(0, 0)), "no permutation"), (sample(real(3, 4), perm=(0,)), "no permutation")],
)


def _broadcast_type(x, *, shape):
    found = broadcast_shapes(x.shape, shape)  # says which dims must be equal
    if len(found) != len(shape) or any(a != b and (b == 1 or isinstance(a, int) and isinstance(b, int))
                                       for a, b in zip(found, shape, strict=True)):
        raise RuleError("the shape is smaller than the operand's", f"[{shape_text(x.shape)}] -> [{shape_text(shape)}]")
    return x.with_shape(shape)


def _broadcast_access(x, y, attrs):
    lead = y.rank - x.rank
    axes = tuple(None if x.shape[a] == 1 else a + lead for a in range(x.rank))
    return IndexMap(axes, (1,) * x.rank, (0,) * x.rank)


broadcast_to = move(
    "broadcast_to", attrs={"shape": REQUIRED},
    doc="x repeated along new axes and along axes of size 1 to fill `shape`.",
    infer=_broadcast_type, access=_broadcast_access,
    numpy=lambda x, *, shape: np.broadcast_to(x, shape),
    grad=lambda dy, y, x, *, shape: [dy],
    samples=[sample(real(3, 1), shape=(2, 3, 4)), sample(real(), shape=(2,)), sample(real(4), shape=(0, 4)),
             sample(real(1, 1), shape=(1, 1))],
    batch=Batch(lambda rows, marks, attrs: {"shape": (rows, *attrs["shape"])}, "broadcast"),
    errors=[(sample(real(3), shape=(2, 4)), "do not broadcast"),
            (sample(real(2, 3), shape=(3,)), "smaller than the operand's")],
)


def check_walk(what: str, begin, steps, sizes, shape) -> None:
    """Raise RuleError unless begin + steps * coordinate, for coordinates below `sizes`, stays inside `shape`.

    Only numbers are checked: whoever writes names sees to it that they fit (`graphc.functions.indexing` clamps as
    Python does).
    """
    if not len(begin) == len(steps) == len(sizes) == len(shape):
        raise RuleError(f"{what} needs one begin, step and size for each axis",
                        f"{len(begin)}, {len(steps)} and {len(sizes)} for rank {len(shape)}")
    for axis, (first, step, size, limit) in enumerate(zip(begin, steps, sizes, shape, strict=True)):
        if step == 0:
            raise RuleError("a step is 0", f"steps {tuple(steps)}")
        if isinstance(size, int) and size < 0:
            raise RuleError("a size is negative", f"[{shape_text(sizes)}]")
        last = first + step * (size - 1)
        for at in (first, last):
            if isinstance(at, int) and isinstance(limit, int) and size != 0 and not 0 <= at < limit:
                raise RuleError(f"{what} leaves the tensor", f"element {at} of axis {axis}, which has {limit}")


def walk_slices(begin, steps, sizes) -> tuple[slice, ...]:
    """The walk as Python slices of numbers."""
    def one(first, step, size):
        end = first + step * size
        return slice(0, 0) if size == 0 else slice(first, None if end < 0 else end, step)
    return tuple(one(*walk) for walk in zip(begin, steps, sizes, strict=True))


def _slice_type(x, *, begin, steps, sizes):
    check_walk("a slice", begin, steps, sizes, x.shape)
    return x.with_shape(sizes)


def _slice_grad(dy, y, x, *, begin, steps, sizes):
    from graphc.ops.assemble import place  # a slice and a placing are each other's gradients
    return [place(dy, shape=tuple(x.type.shape), begin=begin, steps=steps)]


strided_slice = move(
    "strided_slice", attrs={"begin": REQUIRED, "steps": REQUIRED, "sizes": REQUIRED},
    doc="Part of x: `sizes` elements from `begin` on, every `steps`-th (backwards when negative); one of each per "
        "axis. begin and sizes may be dim expressions.",
    infer=_slice_type,
    access=lambda x, y, attrs: IndexMap(tuple(range(x.rank)), tuple(attrs["steps"]), tuple(attrs["begin"])),
    numpy=lambda x, *, begin, steps, sizes: x[walk_slices(begin, steps, sizes)],
    grad=_slice_grad,
    samples=[sample(real(5, 4), begin=(1, 0), steps=(2, 1), sizes=(2, 3)),
             sample(real(3, 4), begin=(2, 3), steps=(-1, -2), sizes=(3, 2)),
             sample(real(3, 4), begin=(0, 2), steps=(1, 1), sizes=(3, 1)),
             sample(real(3, 4), begin=(3, 0), steps=(1, 1), sizes=(0, 4)),
             sample(real(0, 4), begin=(0, 0), steps=(1, 1), sizes=(0, 4))],
    batch=front({"begin": 0, "steps": 1, "sizes": "rows"}),
    errors=[(sample(real(3, 4), begin=(1, 0), steps=(1, 1), sizes=(3, 4)), "leaves the tensor"),
            (sample(real(3, 4), begin=(0,), steps=(1,), sizes=(3,)), "for each axis"),
            (sample(real(3), begin=(0,), steps=(0,), sizes=(1,)), "a step is 0")],
)


def expand(x, shape, axes):
    """x, reduced over `axes` from `shape`, back at `shape`: repeated along those axes."""
    kept = tuple(1 if a in axes else d for a, d in enumerate(shape))
    return broadcast_to(reshape_to(x, shape=kept), shape=tuple(shape))
