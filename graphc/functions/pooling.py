"""Public pooling: reductions of the windows of an image. Global pooling is `reduce_max` and `reduce_mean`."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import ArgumentError, ShapeError, report
from graphc.functions.frames import FORMATS, Frame, frame, per_axis
from graphc.functions.gathering import number
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.node import Node, as_node
from graphc.ir.types import as_dtype, int64
from graphc.ops.compare import cast
from graphc.ops.composite import require_floats
from graphc.ops.elementwise import divide, stop_gradient
from graphc.ops.index import iota
from graphc.ops.movement import broadcast_to, reshape_to, strided_slice
from graphc.ops.reduce import argmax, lowest, reduce_first_max, reduce_sum
from graphc.ops.window import windows


def _parts(x: Node, f: Frame, kernel: Sequence[int], lows, outputs, fill) -> tuple[Node, tuple[int, ...]]:
    """x as its windows, and the axes of the taps. Windows side by side are x itself with each axis split in two."""
    if all(low == 0 and s == k and d == 1 for low, s, k, d in zip(lows, f.strides, kernel, f.dilations, strict=True)):
        whole = [p * k for p, k in zip(outputs, kernel, strict=True)]
        own = [x.type.shape[a] for a in f.spatial]
        if all(isinstance(w, int) and isinstance(o, int) and w <= o for w, o in zip(whole, own, strict=True)):
            return _split(x, f, kernel, outputs, whole)
    view = windows(x, f.spatial, kernel, f.strides, f.dilations, lows, outputs, fill)
    return view, tuple(range(x.type.rank, view.type.rank))


def _split(x: Node, f: Frame, kernel, outputs, whole) -> tuple[Node, tuple[int, ...]]:
    shape = list(x.type.shape)
    for axis, size in zip(f.spatial, whole, strict=True):
        shape[axis] = size
    if shape != list(x.type.shape):
        x = strided_slice(x, begin=(0,) * len(shape), steps=(1,) * len(shape), sizes=tuple(shape))
    split: list[Size] = []
    taps = []
    for axis, size in enumerate(shape):
        if axis in f.spatial:
            k = f.spatial.index(axis)
            taps.append(len(split) + 1)
            split += [outputs[k], kernel[k]]
        else:
            split.append(size)
    return reshape_to(x, shape=tuple(split)), tuple(taps)


def _prepared(what: str, x, spatial: int, ksize, strides, padding, data_format, dilations):
    x = as_node(x)
    if ksize is None:
        raise report(ArgumentError, f"{what}: ksize is missing", [("input", x.describe())])
    f = frame(what, x, spatial, strides, padding, data_format, dilations)
    kernel = per_axis(what, "ksize", ksize, f.data_format)
    if not isinstance(f.padding, str) and any(max(pair) > (k - 1) * d for pair, k, d in
                                              zip(f.padding, kernel, f.dilations, strict=True)):
        raise report(ArgumentError, f"{what}: padding is as large as the window", [("input", x.describe())],
                     f"padding {f.padding}, ksize {kernel}: some windows would hold padding alone")
    lows, outputs = f.places([x.type.shape[a] for a in f.spatial], kernel)
    return x, f, kernel, lows, outputs


def _max(what: str, x, spatial: int, ksize, strides, padding, data_format, dilations, name) -> Node:
    x, f, kernel, lows, outputs = _prepared(what, x, spatial, ksize, strides, padding, data_format, dilations)
    parts, taps = _parts(x, f, kernel, lows, outputs, lowest(x.dtype))
    return reduce_first_max(parts, axes=taps, name=name)


def max_pool_with_argmax(input, ksize, strides, padding, data_format="NHWC", output_dtype=int64,
                         include_batch_in_index=False, name=None, Targmax=None) -> tuple[Node, Node]:
    """(the largest elements of the windows of images [N, H, W, C], where they are): `max_pool2d`, and for each result the
    number (y * W + x) * C + c of the first largest element, counted on over the batch with include_batch_in_index. A window in
    which nothing is larger than the smallest number there is may name a place in the padding.
    """
    what = "max_pool_with_argmax"
    if data_format != "NHWC":
        raise report(ArgumentError, f"{what}: the data format is {data_format!r}", rule="it is NHWC")
    x, f, kernel, lows, outputs = _prepared(what, input, 2, ksize, strides, padding, data_format, None)
    values = _max(what, x, 2, ksize, strides, padding, data_format, None, name)
    view = windows(stop_gradient(x), f.spatial, kernel, f.strides, f.dilations, lows, outputs, lowest(x.dtype))
    shape = tuple(values.type.shape)
    tap = argmax(reshape_to(view, shape=(*shape, dims.product(kernel))), axes=(len(shape),))
    rows, columns, channels = (number(d, int64) for d in x.type.shape[1:])
    start = [iota(shape=shape, axis=a, dtype=int64) * s - number(low, int64)
             for a, s, low in zip(f.spatial, f.strides, lows, strict=True)]
    place = (start[0] + tap // kernel[1]) * columns + start[1] + tap % kernel[1]
    if include_batch_in_index:
        place = place + iota(shape=shape, axis=0, dtype=int64) * rows * columns
    place = place * channels + iota(shape=shape, axis=3, dtype=int64)
    return values, cast(place, dtype=as_dtype(Targmax or output_dtype))


def _avg(what: str, x, spatial: int, ksize, strides, padding, data_format, dilations, name) -> Node:
    x, f, kernel, lows, outputs = _prepared(what, x, spatial, ksize, strides, padding, data_format, dilations)
    require_floats(what, input=x)
    parts, taps = _parts(x, f, kernel, lows, outputs, 0)
    return divide(reduce_sum(parts, axes=taps), _counts(x, f, kernel, lows, outputs), name=name)


def _counts(x: Node, f: Frame, kernel, lows, outputs) -> Node:
    """How many elements of x each window holds: padding does not count."""
    if f.padding == "VALID":
        return as_node(dims.product(kernel), x.dtype)
    ones = broadcast_to(as_node(1, x.dtype), shape=f.shape(1, [x.type.shape[a] for a in f.spatial], 1))
    view = windows(ones, f.spatial, kernel, f.strides, f.dilations, lows, outputs)
    return reduce_sum(view, axes=tuple(range(x.type.rank, view.type.rank)))


def _given(what: str, value, input):
    if (value is None) == (input is None):
        raise report(ArgumentError, f"{what}: give one of value and input")
    return input if value is None else value


def max_pool(value=None, ksize=None, strides=None, padding=None, data_format="NHWC", name=None, input=None) -> Node:
    """The largest element in each window of images [batch, height, width, channels] ("NHWC", or "NCHW").

    ksize, strides: a number, one for each of the two axes, or for all four. Padding, "SAME", "VALID" or pairs, is never
    the largest. Of equal elements the first gets the gradient.
    """
    return _max("max_pool", _given("max_pool", value, input), 2, ksize, strides, padding, data_format, None, name)


def avg_pool(value=None, ksize=None, strides=None, padding=None, data_format="NHWC", name=None, input=None) -> Node:
    """The mean of each window of images [batch, height, width, channels] ("NHWC", or "NCHW"); padding does not count."""
    return _avg("avg_pool", _given("avg_pool", value, input), 2, ksize, strides, padding, data_format, None, name)


def max_pool1d(input, ksize, strides, padding, data_format="NWC", name=None) -> Node:
    """`max_pool` of sequences [batch, width, channels]."""
    return _max("max_pool1d", input, 1, ksize, strides, padding, data_format, None, name)


def max_pool2d(input, ksize, strides, padding, data_format="NHWC", name=None) -> Node:
    """`max_pool`."""
    return _max("max_pool2d", input, 2, ksize, strides, padding, data_format, None, name)


def max_pool3d(input, ksize, strides, padding, data_format="NDHWC", name=None) -> Node:
    """`max_pool` of volumes [batch, depth, height, width, channels]."""
    return _max("max_pool3d", input, 3, ksize, strides, padding, data_format, None, name)


def avg_pool1d(input, ksize, strides, padding, data_format="NWC", name=None) -> Node:
    """`avg_pool` of sequences [batch, width, channels]."""
    return _avg("avg_pool1d", input, 1, ksize, strides, padding, data_format, None, name)


def avg_pool2d(input, ksize, strides, padding, data_format="NHWC", name=None) -> Node:
    """`avg_pool`."""
    return _avg("avg_pool2d", input, 2, ksize, strides, padding, data_format, None, name)


def avg_pool3d(input, ksize, strides, padding, data_format="NDHWC", name=None) -> Node:
    """`avg_pool` of volumes [batch, depth, height, width, channels]."""
    return _avg("avg_pool3d", input, 3, ksize, strides, padding, data_format, None, name)


def pool(input, window_shape, pooling_type, padding, dilation_rate=None, strides=None, name=None, data_format=None,
         dilations=None) -> Node:
    """`max_pool` or `avg_pool` ("MAX", "AVG") along as many axes, 1 to 3, as the input has beside batch and channels."""
    x = as_node(input)
    spatial = x.type.rank - 2
    if spatial not in FORMATS:
        raise report(ShapeError, "pool: the input must have 1 to 3 spatial axes", [("input", x.describe())])
    kinds = {"MAX": _max, "AVG": _avg}
    if pooling_type not in kinds:
        raise report(ArgumentError, f"pool: pooling_type {pooling_type!r} is unknown", rule='it is "MAX" or "AVG"')
    return kinds[pooling_type]("pool", x, spatial, window_shape, strides, padding, data_format,
                               dilation_rate if dilations is None else dilations, name)
