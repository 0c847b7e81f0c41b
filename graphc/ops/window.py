"""Windows: views of a tensor as the parts that a window passes over. Pooling and convolution are built on them."""
from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from graphc.errors import RuleError
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.op import REQUIRED, Batch, IndexMap
from graphc.ir.types import shape_text
from graphc.ops.assemble import place
from graphc.ops.define import move, sample
from graphc.ops.movement import broadcast_to, reshape_to
from graphc.ops.samples import real


def inside(first: int, step: int, count: int, size: int) -> tuple[slice, slice]:
    """(coordinates, places): the coordinates c below `count` whose place first + step * c is in [0, size), and the places.

    step is positive.
    """
    begin = max(0, -(first // step))
    end = max(begin, min(count, (size - 1 - first) // step + 1))
    if begin == end:
        return slice(0, 0), slice(0, 0)
    return slice(begin, end), slice(first + begin * step, first + (end - 1) * step + 1, step)


def taps(slides: Sequence[tuple], shape: Sequence[int]) -> Iterator[tuple[tuple, tuple]]:
    """For each choice of taps of `slides` on a tensor of `shape`, the indices (to, from) of the elements that it moves."""
    for chosen in np.ndindex(*(shape[tap] for _, tap, *_ in slides)):
        to: list = [slice(None)] * len(shape)
        source: list = [slice(None)] * len(shape)
        for (axis, tap, stride, dilation, low, size), k in zip(slides, chosen, strict=True):
            to[axis], source[axis] = inside(k * dilation - low, stride, size, shape[axis])
            to[tap] = source[tap] = k
        yield tuple(to), tuple(source)


def _slide_type(x, *, slides, fill):
    shape = list(x.shape)
    used = [a for axis, tap, *_ in slides for a in (axis, tap)]
    if any(not 0 <= a < x.rank for a in used) or len(set(used)) != len(used):
        raise RuleError("it takes two axes for each window, all different", f"axes {tuple(used)} of rank {x.rank}")
    for axis, _, stride, _, _, size in slides:
        if stride < 1:
            raise RuleError("a stride is below 1", f"stride {stride} along axis {axis}")
        if isinstance(size, int) and size < 0:
            raise RuleError("a size is negative", f"[{shape_text((size,))}]")
        shape[axis] = size
    return x.with_shape(shape)


def _slide_numpy(x, *, slides, fill):
    shape = list(x.shape)
    for axis, _, _, _, _, size in slides:
        shape[axis] = size
    y = np.full(shape, fill, x.dtype)
    for to, source in taps(slides, x.shape):
        y[to] = x[source]
    return y


def _slide_access(x, y, attrs):
    steps, offsets = [1] * x.rank, [0] * x.rank
    more = []
    for axis, tap, stride, dilation, low, _ in attrs["slides"]:
        steps[axis], offsets[axis] = stride, -low
        more.append((axis, tap, dilation))
    return IndexMap(tuple(range(x.rank)), tuple(steps), tuple(offsets), tuple(more), attrs["fill"])


def slide_back(dy, slides, sizes, fill=0):
    """For each element (p, k) along the axes of `sizes` and the taps: the element of dy, (q, k), that slid to from it.

    dy has q along an axis where p = stride * q + dilation * k - low; where there is no such q, `fill`.
    """
    shape, steps = list(dy.type.shape), [1] * dy.type.rank
    for axis, _, stride, _, _, size in slides:
        shape[axis] = dims.maximum(stride * (size - 1) + 1, 0) if stride != 1 else size
        steps[axis] = stride
    if any(s != 1 for s in steps):
        dy = place(dy, shape=tuple(shape), begin=(0,) * len(shape), steps=tuple(steps), fill=fill)
    back = tuple((axis, tap, 1, -dilation, -low, size)
                 for (axis, tap, _, dilation, low, _), size in zip(slides, sizes, strict=True))
    return slide(dy, slides=back, fill=fill)


def _slide_grad(dy, y, x, *, slides, fill):
    return [slide_back(dy, slides, [x.type.shape[axis] for axis, *_ in slides])]


slide = move(
    "slide", attrs={"slides": REQUIRED, "fill": 0},
    doc="For each slide (axis, tap axis, stride, dilation, low, size): element (p, k) of the result, along axis and tap "
        "axis, is x's element (stride * p + dilation * k - low, k), or `fill` where x has none. The axis gets `size`.",
    batch=Batch(lambda rows, marks, attrs: {
        **attrs, "slides": tuple((axis + 1, tap + 1, *rest) for axis, tap, *rest in attrs["slides"])}),
    infer=_slide_type, access=_slide_access, numpy=_slide_numpy, grad=_slide_grad,
    samples=[sample(real(2, 5, 3), slides=((1, 2, 1, 1, 0, 3),)), sample(real(2, 5, 3), slides=((1, 2, 2, 1, 1, 3),)),
             sample(real(2, 7, 2), slides=((1, 2, 3, 2, 2, 4),)),
             sample(real(3, 4, 2), slides=((0, 2, 1, -1, -1, 5),)),
             sample(real(2, 5, 4, 3, 2), slides=((1, 3, 2, 1, 1, 3), (2, 4, 1, 1, 0, 3))),
             sample(real(2, 5, 3), slides=((1, 2, 1, 1, 1, 5),), fill=1),
             sample(real(0, 5, 3), slides=((1, 2, 1, 1, 1, 5),)), sample(real(2, 0, 3), slides=((1, 2, 1, 1, 1, 2),)),
             sample(real(2, 3, 1), slides=((1, 2, 2, 1, 0, 2),)), sample(real(2, 1, 3), slides=((1, 2, 1, 1, 1, 1),))],
    errors=[(sample(real(3, 3), slides=((0, 0, 1, 1, 0, 2),)), "two axes for each window"),
            (sample(real(3, 3), slides=((0, 1, 0, 1, 0, 2),)), "a stride is below 1"),
            (sample(real(3, 3), slides=((0, 1, 1, 1, 0, -1),)), "a size is negative")],
)


def windows(x, axes: Sequence[int], sizes: Sequence[Size], strides: Sequence[int], dilations: Sequence[int],
            lows: Sequence[Size], outputs: Sequence[Size], fill=0):
    """x with its window along each of `axes` at each place: the taps are new axes at the end, in the same order."""
    rank, shape = x.type.rank, tuple(x.type.shape)
    repeated = broadcast_to(reshape_to(x, shape=(*shape, *[1] * len(axes))), shape=(*shape, *sizes))
    slides = tuple((axis, rank + k, strides[k], dilations[k], lows[k], outputs[k]) for k, axis in enumerate(axes))
    return slide(repeated, slides=slides, fill=fill)
