"""What convolutions and poolings take in common: data formats, strides, dilations, paddings, and the sizes that follow."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.errors import ArgumentError, ShapeError, report
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.node import Node
from graphc.records import record

FORMATS = {1: ("NWC", "NCW"), 2: ("NHWC", "NCHW"), 3: ("NDHWC", "NCDHW")}


@record(frozen=True)
class Frame:
    """Where the axes of an image are, and how a window goes over them; one entry of each list for each spatial axis."""

    what: str
    data_format: str
    spatial: tuple[int, ...]
    channel: int
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: str | tuple[tuple[int, int], ...]

    def places(self, sizes: Sequence[Size], kernel: Sequence[Size]) -> tuple[list[Size], list[Size]]:
        """(elements before the image, number of places of the window) for each spatial axis of these sizes.

        Raises ShapeError where the window is larger than the padded image.
        """
        lows, outputs = [], []
        for k, (size, taps) in enumerate(zip(sizes, kernel, strict=True)):
            stride, extent = self.strides[k], (taps - 1) * self.dilations[k] + 1
            if self.padding == "SAME":
                output = dims.floordiv(size + stride - 1, stride)
                low = dims.floordiv(dims.maximum((output - 1) * stride + extent - size, 0), 2)
            else:
                low, high = (0, 0) if isinstance(self.padding, str) else self.padding[k]
                span = size + low + high - extent
                if isinstance(span, int) and span < 0:
                    window = f"{taps}" if extent == taps else f"{taps} with dilation {self.dilations[k]}"
                    raise report(ShapeError, f"{self.what}: negative output size",
                                 [("image", f"{size} along axis {self.spatial[k]}"), ("window", window)],
                                 f"{size} + {low} + {high} - {extent} < 0" if low or high else f"{size} - {extent} < 0",
                                 'padding="SAME" keeps the size' if self.padding == "VALID" else "")
                output = dims.maximum(dims.floordiv(span, stride) + 1, 0)
            lows.append(low)
            outputs.append(output)
        return lows, outputs

    def shape(self, batch: Size, spatial: Sequence[Size], channels: Size) -> tuple[Size, ...]:
        """The shape of an image in this format."""
        found: list[Size] = [batch] * (len(spatial) + 2)
        for axis, size in zip(self.spatial, spatial, strict=True):
            found[axis] = size
        found[self.channel] = channels
        return tuple(found)

    def labels(self, spatial: str, channels: str) -> str:
        """The labels of an image: "n", those of the spatial axes, and one or more of the channels."""
        return "".join({**dict(zip(self.spatial, spatial, strict=True)), self.channel: channels}.get(a, "n")
                       for a in range(len(self.spatial) + 2))


def frame(what: str, x: Node, spatial: int, strides, padding, data_format, dilations) -> Frame:
    """The Frame of a call. Raises ArgumentError or ShapeError with the argument's name and what it may be."""
    last, first = FORMATS[spatial]
    data_format = data_format or last
    if data_format not in (last, first):
        raise report(ArgumentError, f"{what}: data_format {data_format!r} is unknown", rule=f'it is "{last}" or "{first}"')
    if x.type.rank != spatial + 2:
        raise report(ShapeError, f"{what}: the input must have rank {spatial + 2}", [("input", x.describe())],
                     f"{data_format} has {spatial + 2} axes, the input {x.type.rank}")
    axes = tuple(data_format.index(c) for c in data_format if c not in "NC")
    channel = data_format.index("C")
    return Frame(what, data_format, axes, channel, per_axis(what, "strides", strides, data_format),
                 per_axis(what, "dilations", dilations, data_format), _padding(what, padding, data_format))


def per_axis(what: str, name: str, value, data_format: str) -> tuple[int, ...]:
    """`value` (None: 1; a number; one for each spatial axis, or for each axis) for each spatial axis."""
    spatial = [k for k, c in enumerate(data_format) if c not in "NC"]
    given = [1] if value is None else np.asarray(value).ravel().tolist()
    if len(given) == 1:
        given = given * len(spatial)
    if len(given) == len(data_format):
        for axis in (data_format.index("N"), data_format.index("C")):
            if given[axis] != 1:
                raise report(ArgumentError, f"{what}: {name} {value!r} is not 1 along axis {axis} ({data_format[axis]})",
                             rule="a window goes over the spatial axes alone")
        given = [given[k] for k in spatial]
    if len(given) != len(spatial):
        raise report(ArgumentError, f"{what}: {name} has {len(given)} entries",
                     rule=f"it takes 1, {len(spatial)} or {len(data_format)} of them for {data_format}")
    if any(not isinstance(v, int) or v < 1 for v in given):
        raise report(ArgumentError, f"{what}: {name} {value!r} is out of range", rule="it takes whole numbers from 1")
    return tuple(given)


def _padding(what: str, padding, data_format: str) -> str | tuple[tuple[int, int], ...]:
    if isinstance(padding, str) or padding is None:
        word = str(padding).upper()
        if word not in ("SAME", "VALID"):
            raise report(ArgumentError, f"{what}: padding {padding!r} is unknown",
                         rule='it is "SAME", "VALID", or a list of (before, after) for each axis')
        return word
    pairs = np.asarray(padding)
    if pairs.shape != (len(data_format), 2) or pairs.dtype.kind != "i" or (pairs < 0).any():
        raise report(ArgumentError, f"{what}: padding {padding!r} is malformed",
                     rule=f"it takes two whole numbers from 0, (before, after), for each axis of {data_format}")
    rest = [axis for axis, c in enumerate(data_format) if c in "NC"]
    if pairs[rest].any():
        raise report(ArgumentError, f"{what}: padding {padding!r} pads batch or channels",
                     rule=f"axes {rest} of {data_format} take (0, 0)")
    return tuple((int(low), int(high)) for k, (low, high) in enumerate(pairs) if k not in rest)
