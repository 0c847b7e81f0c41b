"""Public convolutions, all on the op `convolve`: TensorFlow 1's names and arguments.

Filters are [taps..., input channels, output channels]. Where an image has more channels than the filter has input
channels, both are taken in as many groups as that needs. Padding is "SAME" (as many places as strides give), "VALID" (only
whole windows) or a list of (before, after) for each axis. All raise ShapeError, DTypeError or ArgumentError.
"""
from __future__ import annotations

from graphc.errors import ArgumentError, ShapeError, report
from graphc.functions.frames import FORMATS, Frame, frame
from graphc.functions.sizes import full_shape
from graphc.ir.node import Node, as_node, dtype_of, is_tensor
from graphc.ops.composite import require_floats
from graphc.ops.convolve import convolve
from graphc.ops.movement import reshape_to

POSITIONS, OUTPUTS, TAPS = "xyz", "pqr", "ijk"


class _Plan:
    """A convolution of an image of `channels` channels: labels and shapes of image, filter and result, groups apart.

    Shapes are those that users see; `grouped` gives the ones that the labels belong to.
    """

    def __init__(self, f: Frame, image, filter_, what_image: str, w: Node):
        spatial = len(f.spatial)
        channels, inner, outer = image[f.channel], filter_[-2], filter_[-1]
        groups = 1
        if isinstance(channels, int) and isinstance(inner, int):
            if inner == 0 or channels % inner:
                raise report(ShapeError, f"{f.what}: wrong number of channels", [("filter", w.describe())],
                             f"depth of {what_image} ({channels}) is not a multiple of the filter's input depth ({inner})")
            groups = channels // inner if channels else 1
        if isinstance(outer, int) and outer % groups:
            raise report(ShapeError, f"{f.what}: wrong number of channels", [("filter", w.describe())],
                         f"output depth ({outer}) is not a multiple of the number of groups ({groups})")
        lows, outputs = f.places([image[a] for a in f.spatial], filter_[:spatial])
        self.groups, self.inner, self.frame = groups, inner, f
        self.image, self.filter = tuple(image), tuple(filter_)
        self.result = f.shape(image[self.batch], outputs, outer)
        self.windows = tuple(zip(POSITIONS, OUTPUTS, TAPS[:spatial], f.strides, f.dilations, lows, strict=False))
        depth, each = inner != 1, outer != groups
        inside, outside = ("c", "o") if groups == 1 else ("g" + "c" * depth, "g" + "o" * each)
        self.labels = {"x": f.labels(POSITIONS[:spatial], inside), "w": TAPS[:spatial] + self._filter_labels(depth, each),
                       "y": f.labels(OUTPUTS[:spatial], outside)}

    @property
    def batch(self) -> int:
        return self.frame.data_format.index("N")

    def _filter_labels(self, depth: bool, each: bool) -> str:
        return "co" if self.groups == 1 else "c" * depth + "g" + "o" * each

    def grouped(self, which: str) -> tuple:
        """The shape of "x", "w" or "y" with an axis for each label."""
        shape = {"x": self.image, "w": self.filter, "y": self.result}[which]
        if self.groups == 1:
            return shape
        if which == "w":
            parts = {"c": self.inner, "g": self.groups, "o": shape[-1] // self.groups}
            return (*shape[:-2], *(parts[label] for label in self.labels["w"][len(shape) - 2:]))
        channels = shape[self.frame.channel]
        split = [self.groups, channels // self.groups][:sum(label in "gco" for label in self.labels[which])]
        return (*shape[:self.frame.channel], *split, *shape[self.frame.channel + 1:])

    def made(self, which: str, name, **tensors: Node) -> Node:
        """The tensor `which` from the two others, in the shape that users see."""
        (first, a), (second, b) = tensors.items()
        full = {"x": self.image, "w": self.filter, "y": self.result}[which]
        shape = self.grouped(which)
        a, b = (t if tuple(t.type.shape) == self.grouped(k) else reshape_to(t, shape=self.grouped(k))
                for k, t in ((first, a), (second, b)))
        found = convolve(a, b, a_labels=self.labels[first], b_labels=self.labels[second], out_labels=self.labels[which],
                         windows=self.windows, shape=shape, name=name if shape == full else None)
        return found if shape == full else reshape_to(found, shape=full, name=name)


def _operands(what: str, **tensors) -> list[Node]:
    dtype = next((dtype_of(t) for t in tensors.values() if is_tensor(t)), None)
    nodes = [as_node(t, dtype, what) for t in tensors.values()]
    require_floats(what, **dict(zip(tensors, nodes, strict=True)))
    return nodes


def _one_of(what: str, names: str, *values):
    """The one argument that is given among those that mean the same."""
    given = [v for v in values if v is not None]
    if len(given) != 1:
        raise report(ArgumentError, f"{what}: give one of {names}")
    return given[0]


def _check_filter(what: str, w: Node, spatial: int) -> None:
    if w.type.rank != spatial + 2:
        raise report(ShapeError, f"{what}: the filter must have rank {spatial + 2}", [("filter", w.describe())],
                     "its axes are " + ", ".join(["taps"] * spatial) + ", input channels, output channels")


def _forward(what: str, x, w, spatial: int, strides, padding, data_format, dilations, name) -> Node:
    x, w = _operands(what, input=x, filter=w)
    _check_filter(what, w, spatial)
    f = frame(what, x, spatial, strides, padding, data_format, dilations)
    return _Plan(f, x.type.shape, w.type.shape, "the input", w).made("y", name, x=x, w=w)


def conv1d(value=None, filters=None, stride=None, padding=None, use_cudnn_on_gpu=None, data_format=None, name=None,
           input=None, dilations=None) -> Node:
    """The convolution of sequences [batch, width, channels] ("NWC", or "NCW") with filters [taps, in, out]."""
    return _forward("conv1d", _one_of("conv1d", "value and input", value, input), filters, 1, stride, padding, data_format,
                    dilations, name)


def conv2d(input, filter=None, strides=None, padding=None, use_cudnn_on_gpu=True, data_format="NHWC", dilations=(1, 1, 1, 1),
           name=None, filters=None) -> Node:
    """The convolution of images [batch, height, width, channels] ("NHWC", or "NCHW") with a filter [taps, taps, in, out]."""
    return _forward("conv2d", input, _one_of("conv2d", "filter and filters", filter, filters), 2, strides, padding,
                    data_format, dilations, name)


def conv3d(input, filter=None, strides=None, padding=None, data_format="NDHWC", dilations=(1, 1, 1, 1, 1), name=None,
           filters=None) -> Node:
    """The convolution of volumes [batch, depth, height, width, channels] with a filter [taps, taps, taps, in, out]."""
    return _forward("conv3d", input, _one_of("conv3d", "filter and filters", filter, filters), 3, strides, padding,
                    data_format, dilations, name)


def convolution(input, filter=None, padding=None, strides=None, dilation_rate=None, name=None, data_format=None, filters=None,
                dilations=None) -> Node:
    """The convolution along as many axes, 1 to 3, as the input has beside batch and channels."""
    x = as_node(input)
    spatial = x.type.rank - 2
    if spatial not in FORMATS:
        raise report(ShapeError, "convolution: the input must have 1 to 3 spatial axes", [("input", x.describe())])
    return _forward("convolution", x, _one_of("convolution", "filter and filters", filter, filters), spatial, strides, padding,
                    data_format, dilation_rate if dilations is None else dilations, name)


def atrous_conv2d(value, filters, rate, padding, name=None) -> Node:
    """`conv2d` whose taps are `rate` elements apart."""
    return _forward("atrous_conv2d", value, filters, 2, None, padding, None, rate, name)


def depthwise_conv2d(input, filter, strides, padding, rate=None, name=None, data_format=None, dilations=None) -> Node:
    """Each channel convolved by itself: filter [taps, taps, channels, m] gives m results for each, side by side."""
    dilations = rate if dilations is None else dilations
    return _depthwise("depthwise_conv2d", input, filter, strides, padding, data_format, dilations, name)


def depthwise_conv2d_native(input, filter, strides, padding, data_format="NHWC", dilations=(1, 1, 1, 1), name=None) -> Node:
    """`depthwise_conv2d` with its arguments in another order."""
    return _depthwise("depthwise_conv2d_native", input, filter, strides, padding, data_format, dilations, name)


def _depthwise(what: str, x, w, strides, padding, data_format, dilations, name) -> Node:
    x, w = _operands(what, input=x, filter=w)
    _check_filter(what, w, 2)
    f = frame(what, x, 2, strides, padding, data_format, dilations)
    *taps, channels, each = w.type.shape
    depth = x.type.shape[f.channel]
    if depth != channels:
        raise report(ShapeError, f"{what}: wrong number of channels", [("input", x.describe()), ("filter", w.describe())],
                     f"depth of the input ({depth}) is not the filter's ({channels})")
    if not isinstance(channels, int) or not isinstance(each, int):
        raise report(ShapeError, f"{what}: the filter's channels must be numbers", [("filter", w.describe())])
    w = reshape_to(w, shape=(*taps, 1, channels * each))
    return _Plan(f, x.type.shape, w.type.shape, "the input", w).made("y", name, x=x, w=w)


def separable_conv2d(input, depthwise_filter, pointwise_filter, strides, padding, rate=None, name=None, data_format=None,
                     dilations=None) -> Node:
    """`depthwise_conv2d`, then a convolution of one tap, [1, 1, channels * m, out], that mixes the channels."""
    what = "separable_conv2d"
    dilations = rate if dilations is None else dilations
    deep = _depthwise(what, input, depthwise_filter, strides, padding, data_format, dilations, None)
    w = as_node(pointwise_filter, deep.dtype, what)
    _check_filter(what, w, 2)
    if any(isinstance(d, int) and d != 1 for d in w.type.shape[:2]):
        raise report(ShapeError, f"{what}: the pointwise filter has more than one tap", [("pointwise_filter", w.describe())])
    channel = 1 if data_format == "NCHW" else 3
    if deep.type.shape[channel] != w.type.shape[2]:
        raise report(ShapeError, f"{what}: wrong number of channels", [("pointwise_filter", w.describe())],
                     f"the depthwise part gives {deep.type.shape[channel]}, the pointwise filter takes {w.type.shape[2]}")
    return _forward(what, deep, w, 2, None, "VALID", data_format, None, name)


# gradients and transposes ----------------------------------------------------------------------------


def _by_input(what: str, sizes, w, dy, spatial: int, strides, padding, data_format, dilations, name) -> Node:
    """The image of shape `sizes` to which each element of dy adds the filter where its window lay."""
    dy, w = _operands(what, value=dy, filter=w)
    _check_filter(what, w, spatial)
    f = frame(what, dy, spatial, strides, padding, data_format, dilations)
    shape = full_shape(sizes, what)
    if len(shape) != spatial + 2:
        raise report(ShapeError, f"{what}: the result must have rank {spatial + 2}", rule=f"its shape is {tuple(shape)}")
    plan = _Plan(f, shape, w.type.shape, "the result", w)
    _check_gradient(what, plan, dy)
    return plan.made("x", name, y=dy, w=w)


def _check_gradient(what: str, plan: _Plan, dy: Node) -> None:
    """Raise ShapeError unless dy has the shape that the convolution gives."""
    for own, want in zip(dy.type.shape, plan.result, strict=True):
        if own != want and isinstance(own, int) and isinstance(want, int):
            raise report(ShapeError, f"{what}: the shapes do not fit together", [("value", dy.describe())],
                         f"a convolution of {tuple(plan.image)} with {tuple(plan.filter)} gives {tuple(plan.result)}")
    if any(own != want for own, want in zip(dy.type.shape, plan.result, strict=True)):
        plan.result = tuple(dy.type.shape)  # they are equal when it runs, or the op's own rule says that they are not


def conv2d_backprop_input(input_sizes, filter=None, out_backprop=None, strides=None, padding=None, use_cudnn_on_gpu=True,
                          data_format="NHWC", dilations=(1, 1, 1, 1), name=None, filters=None) -> Node:
    """The gradient of `conv2d` by its input, of shape `input_sizes`."""
    what = "conv2d_backprop_input"
    return _by_input(what, input_sizes, _one_of(what, "filter and filters", filter, filters), out_backprop, 2, strides, padding,
                     data_format, dilations, name)


def conv2d_backprop_filter(input, filter_sizes, out_backprop, strides, padding, use_cudnn_on_gpu=True, data_format="NHWC",
                           dilations=(1, 1, 1, 1), name=None) -> Node:
    """The gradient of `conv2d` by its filter, of shape `filter_sizes`."""
    what = "conv2d_backprop_filter"
    x, dy = _operands(what, input=input, out_backprop=out_backprop)
    f = frame(what, x, 2, strides, padding, data_format, dilations)
    shape = full_shape(filter_sizes, what)
    if len(shape) != 4 or dy.type.rank != 4:
        raise report(ShapeError, f"{what}: the filter and out_backprop must have rank 4", [("out_backprop", dy.describe())],
                     f"filter_sizes {tuple(shape)}")
    plan = _Plan(f, x.type.shape, shape, "the input", dy)
    _check_gradient(what, plan, dy)
    return plan.made("w", name, x=x, y=dy)


def _transposed(what: str, value, w, output_shape, spatial: int, strides, padding, data_format, dilations, name) -> Node:
    """`output_shape` has all axes, or the spatial ones alone; filters are [taps..., out, in]."""
    value, w = _operands(what, value=value, filter=w)
    _check_filter(what, w, spatial)
    data_format = data_format or FORMATS[spatial][0]
    shape = full_shape(output_shape, what)
    if len(shape) == spatial:
        f = frame(what, value, spatial, strides, padding, data_format, dilations)
        shape = f.shape(value.type.shape[data_format.index("N")], shape, w.type.shape[-2])
    own, outer = value.type.shape[data_format.index("C")], w.type.shape[-1]
    if isinstance(own, int) and isinstance(outer, int) and own != outer:
        raise report(ShapeError, f"{what}: wrong number of channels", [("value", value.describe()), ("filter", w.describe())],
                     f"depth of the value ({own}) is not the filter's last size ({outer})")
    return _by_input(what, shape, w, value, spatial, strides, padding, data_format, dilations, name)


def conv1d_transpose(input, filters, output_shape, strides, padding="SAME", data_format="NWC", dilations=None,
                     name=None) -> Node:
    """The transpose of `conv1d`: each element of the input adds a filter [taps, out, in] to the result of `output_shape`."""
    return _transposed("conv1d_transpose", input, filters, output_shape, 1, strides, padding, data_format, dilations, name)


def conv2d_transpose(value=None, filter=None, output_shape=None, strides=None, padding="SAME", data_format="NHWC", name=None,
                     input=None, filters=None, dilations=None) -> Node:
    """The transpose of `conv2d`: each element of the input adds a filter [taps, taps, out, in] to the result."""
    what = "conv2d_transpose"
    value, w = _one_of(what, "value and input", value, input), _one_of(what, "filter and filters", filter, filters)
    return _transposed(what, value, w, output_shape, 2, strides, padding, data_format, dilations, name)


def conv3d_transpose(value=None, filter=None, output_shape=None, strides=None, padding="SAME", data_format="NDHWC", name=None,
                     input=None, filters=None, dilations=None) -> Node:
    """The transpose of `conv3d`: each element of the input adds a filter [taps, taps, taps, out, in] to the result."""
    what = "conv3d_transpose"
    value, w = _one_of(what, "value and input", value, input), _one_of(what, "filter and filters", filter, filters)
    return _transposed(what, value, w, output_shape, 3, strides, padding, data_format, dilations, name)


def atrous_conv2d_transpose(value, filters, output_shape, rate, padding, name=None) -> Node:
    """The transpose of `atrous_conv2d`."""
    return _transposed("atrous_conv2d_transpose", value, filters, output_shape, 2, None, padding, None, rate, name)
