"""`graphc.image`: images as tensors [height, width, channels] or [N, height, width, channels], by the names of `tf.image`.

All are compositions: pixels are picked by gathers and slices, so gradients flow through resizing and cropping.
"""
from __future__ import annotations

import numpy as np

from graphc.errors import ArgumentError, DTypeError, ShapeError, report
from graphc.functions import arrays, sizes
from graphc.functions import math as functions
from graphc.functions.gathering import checked, number
from graphc.functions.lines import non_max_suppression  # noqa: F401  (handed on)
from graphc.functions.random import random_uniform
from graphc.ir.dims import Dim
from graphc.ir.node import Node, as_node
from graphc.ir.types import as_dtype, float32, float64, int32, int64
from graphc.ops import compare, composite, elementwise
from graphc.ops.gather import gather_rows
from graphc.ops.index import dim_value, iota
from graphc.ops.movement import reshape_to
from graphc.ops.reduce import reduce_max, reduce_min, reduce_sum


def _image(image, what: str, channels: int | None = None) -> Node:
    x = as_node(image)
    if x.type.rank not in (3, 4):
        raise report(ShapeError, f"{what}: an image has 3 axes, images have 4", [("image", x.describe())])
    if channels is not None and x.type.shape[-1] != channels:
        raise report(ShapeError, f"{what}: it takes {channels} channels", [("image", x.describe())])
    return x


# resizing ---------------------------------------------------------------------------------------------


class ResizeMethod:
    """How the pixels of a resized image are found."""

    BILINEAR, NEAREST_NEIGHBOR, BICUBIC = 0, 1, 2


def _places(old, new: int, align_corners: bool, half_pixel: bool, dtype) -> Node:
    """Where in `old` pixels the centre of each of `new` pixels lies."""
    count = as_node(float(old), dtype) if isinstance(old, int) else compare.cast(dim_value(dim=old), dtype=dtype)
    if align_corners and new > 1:
        scale = (count - 1) / float(new - 1)
    else:
        scale = count / float(new)
    at = compare.cast(iota(shape=(new,), axis=0, dtype=int32), dtype=dtype)
    return (at + 0.5) * scale - 0.5 if half_pixel else at * scale


def _last(old, dtype) -> Node:
    return as_node(old - 1, dtype) if isinstance(old, int) else compare.cast(dim_value(dim=old), dtype=dtype) - 1


def _picked(x: Node, axis: int, at: Node) -> Node:
    """The rows of x at whole places, those outside at the edge."""
    index = compare.cast(at, dtype=int32)
    inside = elementwise.maximum(elementwise.minimum(index, _last(x.type.shape[axis], int32)), 0)
    return gather_rows(x, inside, axis=axis)


def _along(weights: Node, x: Node, axis: int) -> Node:
    shaped = reshape_to(weights, shape=tuple(weights.type.shape[0] if a == axis else 1 for a in range(x.type.rank)))
    return functions.cast(shaped, x.dtype)


def _linear(x: Node, axis: int, at: Node) -> Node:
    low = compare.floor(at)
    part = _along(at - low, x, axis)
    first, second = _picked(x, axis, low), _picked(x, axis, low + 1)
    return first + (second - first) * part


def _cubic(x: Node, axis: int, at: Node, a: float) -> Node:
    """R. Keys, "Cubic convolution interpolation for digital image processing" (1981), with his parameter a."""
    low = compare.floor(at)
    terms = []
    for step in (-1, 0, 1, 2):
        d = elementwise.absolute(at - low - float(step))
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        term = _picked(x, axis, low + float(step)) * _along(near if step in (0, 1) else far, x, axis)
        terms.append(term)
    return functions.add_n(terms)


def _resize(what: str, images, size, align_corners: bool, half_pixel: bool, name, pick) -> Node:
    x = _image(images, what)
    new = sizes.full_shape(size, what)
    if len(new) != 2 or not all(isinstance(d, int) and d > 0 for d in new):
        raise report(ArgumentError, f"{what}: the size is {list(new)}", rule="it is two numbers, height and width")
    if align_corners and half_pixel:
        raise report(ArgumentError, f"{what}: align_corners and half_pixel_centers exclude each other")
    first = x.type.rank - 3
    for axis, count in zip((first, first + 1), new, strict=True):
        if x.type.shape[axis] != count:
            dtype = x.dtype if x.dtype == float64 else float32  # float32 as in TensorFlow
            x = pick(x, axis, _places(x.type.shape[axis], int(count), align_corners, half_pixel, dtype))
    return elementwise.identity(x, name=name)


def _as_float(images) -> Node:
    images = as_node(images)
    return images if images.dtype.is_floating else compare.cast(images, dtype=float32)


def resize_bilinear(images, size, align_corners=False, name=None, half_pixel_centers=False) -> Node:
    """Images of `size` (height, width), each pixel a mean of the four nearest; integers become float32.

    align_corners       the corner pixels' centres stay corners; half_pixel_centers: pixels are areas, not points.
    """
    return _resize("resize_bilinear", _as_float(images), size, align_corners, half_pixel_centers, name, _linear)


def resize_nearest_neighbor(images, size, align_corners=False, name=None, half_pixel_centers=False) -> Node:
    """Images of `size` (height, width), each pixel one of the old ones; the dtype stays."""
    def pick(x, axis, at):
        if align_corners:
            return _picked(x, axis, compare.floor(at + 0.5))
        return _picked(x, axis, compare.floor(at + 0.5 if half_pixel_centers else at))
    return _resize("resize_nearest_neighbor", images, size, align_corners, half_pixel_centers, name, pick)


def resize_bicubic(images, size, align_corners=False, name=None, half_pixel_centers=False) -> Node:
    """Images of `size` (height, width) by Keys' cubic kernel of 16 pixels; its a is -0.75, or -0.5 with half pixels.

    Beyond the edge, edge pixels count again. The weights are exact: TensorFlow's come from a table of 1024 steps.
    """
    a = -0.5 if half_pixel_centers else -0.75
    return _resize("resize_bicubic", _as_float(images), size, align_corners, half_pixel_centers, name,
                   lambda x, axis, at: _cubic(x, axis, at, a))


def resize_images(images, size, method=ResizeMethod.BILINEAR, align_corners=False, preserve_aspect_ratio=False,
                  name=None) -> Node:
    """Images of `size` by a method of `ResizeMethod`. With preserve_aspect_ratio, the largest that fit into `size`."""
    x = _image(images, "resize_images")
    if preserve_aspect_ratio:
        old, new = x.type.shape[-3:-1], sizes.full_shape(size, "resize_images")
        if any(isinstance(d, Dim) for d in (*old, *new)):
            raise report(ArgumentError, "resize_images: preserve_aspect_ratio needs sizes that are numbers",
                         [("images", x.describe())])
        scale = min(n / o for n, o in zip(new, old, strict=True))
        size = [round(o * scale) for o in old]
    methods = {ResizeMethod.BILINEAR: resize_bilinear, ResizeMethod.NEAREST_NEIGHBOR: resize_nearest_neighbor,
               ResizeMethod.BICUBIC: resize_bicubic}
    if method not in methods:
        raise report(ArgumentError, f"resize_images: there is no method {method!r}", rule="one of ResizeMethod")
    return methods[method](x, size, align_corners=align_corners, name=name)


resize = resize_images

# moving pixels ----------------------------------------------------------------------------------------


def _crop_places(first: Node, last: Node, size, count: int) -> Node:
    """Where along an axis of `size` each of `count` pixels of the boxes lies, [boxes, count]."""
    far = _last(size, first.dtype)
    if count == 1:
        middle = 0.5 * (first + last) * far
        return reshape_to(middle, shape=(*middle.type.shape, 1))
    steps = reshape_to(compare.cast(iota(shape=(count,), axis=0, dtype=int32), dtype=first.dtype), shape=(1, count))
    first, last = (reshape_to(v, shape=(*v.type.shape, 1)) for v in (first, last))
    return first * far + steps * ((last - first) * far / float(count - 1))


def crop_and_resize(image, boxes, box_ind=None, crop_size=None, method="bilinear", extrapolation_value=0, name=None,
                    box_indices=None) -> Node:
    """Parts of images [N, height, width, channels], each resized to `crop_size` (height, width): [boxes, *crop_size, channels].

    boxes    [boxes, 4]: y1, x1, y2, x2, as parts of the image, 0 the first pixel and 1 the last; y1 > y2 turns it over.
    box_ind  [boxes], integers: the image that each box is cut from. method: "bilinear" or "nearest".
    What lies outside of the image is `extrapolation_value`. Gradients flow to the images, and by "bilinear" to the boxes.
    """
    what = "crop_and_resize"
    x, size = _as_float(image), sizes.full_shape(crop_size, what)
    frame = as_node(boxes, float32)
    chosen = as_node(box_ind if box_indices is None else box_indices, int32)
    if x.type.rank != 4 or frame.type.rank != 2 or frame.type.shape[1] != 4 or chosen.type.rank != 1 or len(size) != 2:
        raise report(ShapeError, f"{what}: the operands do not fit",
                     [("image", x.describe()), ("boxes", frame.describe()), ("box_ind", chosen.describe())],
                     "images have 4 axes, boxes are [boxes, 4], box_ind [boxes], the size two numbers")
    if method not in ("bilinear", "nearest") or not all(isinstance(d, int) and d > 0 for d in size):
        raise report(ArgumentError, f"{what}: {method!r:.40} to {list(size)}", rule='"bilinear" or "nearest", to two numbers')
    count, (images, height, width, channels) = frame.type.shape[0], x.type.shape
    ys, xs = (_crop_places(frame[:, k], frame[:, k + 2], d, int(n)) for k, d, n in ((0, height, size[0]), (1, width, size[1])))
    ys, xs = reshape_to(ys, shape=(count, size[0], 1)), reshape_to(xs, shape=(count, 1, size[1]))
    inside = compare.logical_and(*((v >= 0) & (v <= _last(d, v.dtype)) for v, d in ((ys, height), (xs, width))))
    pixels = reshape_to(x, shape=(images * height * width, channels))
    owner = reshape_to(checked(chosen, images, what), shape=(count, 1, 1))

    def picked(y: Node, x: Node) -> Node:
        y, x = (elementwise.maximum(elementwise.minimum(compare.cast(v, dtype=int64), number(d, int64) - 1), 0)
                for v, d in ((y, height), (x, width)))
        return gather_rows(pixels, (owner * number(height, int64) + y) * number(width, int64) + x, axis=0)
    if method == "nearest":
        found = picked(functions.round(ys), functions.round(xs))
    else:
        low_y, low_x = compare.floor(ys), compare.floor(xs)
        part_y, part_x = (functions.cast(reshape_to(v - low, shape=(*v.type.shape, 1)), x.dtype)
                          for v, low in ((ys, low_y), (xs, low_x)))
        rows = [first + (second - first) * part_x for y in (low_y, low_y + 1)
                for first, second in [(picked(y, low_x), picked(y, low_x + 1))]]
        found = rows[0] + (rows[1] - rows[0]) * part_y
    shape = tuple(found.type.shape)
    inside = arrays.broadcast_to(reshape_to(inside, shape=(*shape[:3], 1)), shape)
    return compare.where(inside, found, as_node(float(extrapolation_value), x.dtype), name=name)


def flip_left_right(image) -> Node:
    """The mirror image."""
    x = _image(image, "flip_left_right")
    return arrays.reverse(x, [x.type.rank - 2])


def flip_up_down(image) -> Node:
    """Upside down, mirrored."""
    x = _image(image, "flip_up_down")
    return arrays.reverse(x, [x.type.rank - 3])


def _by_chance(x: Node, changed: Node, seed) -> Node:
    """Each image changed or not, with equal chance."""
    shape = (x.type.shape[0], 1, 1, 1) if x.type.rank == 4 else ()
    return compare.where(random_uniform(shape, seed=seed) < 0.5, changed, x)


def random_flip_left_right(image, seed=None) -> Node:
    """The mirror image of each image, or itself, with equal chance."""
    return _by_chance(_image(image, "random_flip_left_right"), flip_left_right(image), seed)


def random_flip_up_down(image, seed=None) -> Node:
    """Each image upside down, or itself, with equal chance."""
    return _by_chance(_image(image, "random_flip_up_down"), flip_up_down(image), seed)


def transpose_image(image, name=None) -> Node:
    """Height and width exchanged."""
    x = _image(image, "transpose_image")
    return arrays.transpose(x, [1, 0, 2] if x.type.rank == 3 else [0, 2, 1, 3], name=name)


def rot90(image, k=1, name=None) -> Node:
    """Turned counter-clockwise by k quarters."""
    x = _image(image, "rot90")
    turned = [lambda: x, lambda: flip_up_down(transpose_image(x)), lambda: flip_up_down(flip_left_right(x)),
              lambda: transpose_image(flip_up_down(x))][k % 4]()
    return elementwise.identity(turned, name=name)


def crop_to_bounding_box(image, offset_height, offset_width, target_height, target_width) -> Node:
    """The part of the given size from the given row and column on. Raises ShapeError where it leaves the image."""
    x = _image(image, "crop_to_bounding_box")
    begin, size = [offset_height, offset_width, 0], [target_height, target_width, -1]
    return arrays.slice(x, [0] * (x.type.rank - 3) + begin, [-1] * (x.type.rank - 3) + size)


def pad_to_bounding_box(image, offset_height, offset_width, target_height, target_width) -> Node:
    """The image at the given row and column of a larger one of zeros. Raises ShapeError where it does not fit."""
    x = _image(image, "pad_to_bounding_box")
    old = x.type.shape[-3:-1]
    pairs = [(int(offset), target - offset - size) for offset, target, size in
             zip((offset_height, offset_width), (target_height, target_width), old, strict=True)]
    if any(not isinstance(b, int) or a < 0 or b < 0 for a, b in pairs):
        raise report(ShapeError, "pad_to_bounding_box: the image does not fit", [("image", x.describe())],
                     f"[{target_height}, {target_width}] from [{offset_height}, {offset_width}]")
    return arrays.pad(x, [(0, 0)] * (x.type.rank - 3) + pairs + [(0, 0)])


def resize_image_with_crop_or_pad(image, target_height, target_width) -> Node:
    """The middle of the image, or the image in the middle of zeros, so that it has the given size."""
    x = _image(image, "resize_image_with_crop_or_pad")
    height, width = x.type.shape[-3:-1]
    if not (isinstance(height, int) and isinstance(width, int)):
        raise report(ShapeError, "resize_image_with_crop_or_pad: the size of the image must be numbers",
                     [("image", x.describe())])
    inner = min(height, target_height), min(width, target_width)
    x = crop_to_bounding_box(x, (height - inner[0]) // 2, (width - inner[1]) // 2, *inner)
    return pad_to_bounding_box(x, (target_height - inner[0]) // 2, (target_width - inner[1]) // 2, target_height,
                               target_width)


resize_with_crop_or_pad = resize_image_with_crop_or_pad


def central_crop(image, central_fraction) -> Node:
    """The middle part, `central_fraction` of height and width."""
    x = _image(image, "central_crop")
    if not 0 < central_fraction <= 1:
        raise report(ArgumentError, f"central_crop: the fraction is {central_fraction}", rule="it is in (0, 1]")
    old = x.type.shape[-3:-1]
    if any(isinstance(d, Dim) for d in old):
        raise report(ShapeError, "central_crop: the size of the image must be numbers", [("image", x.describe())])
    begin = [int((d - d * central_fraction) / 2) for d in old]
    return crop_to_bounding_box(x, *begin, *(d - 2 * b for d, b in zip(old, begin, strict=True)))


# colours ----------------------------------------------------------------------------------------------

LUMA = (0.2989, 0.587, 0.114)  # how bright red, green and blue are (ITU-R BT.601)


def convert_image_dtype(image, dtype, saturate=False, name=None) -> Node:
    """The image as another dtype, its range with it: floats are in [0, 1], integers fill their dtype."""
    x, dtype = as_node(image), as_dtype(dtype)
    if x.dtype == dtype:
        return elementwise.identity(x, name=name)
    if x.dtype.is_floating and dtype.is_floating:
        return functions.cast(x, dtype, name)
    if x.dtype.is_floating:
        scaled = x * (float(dtype.max) + 0.5)
        return functions.saturate_cast(scaled, dtype, name) if saturate else functions.cast(scaled, dtype, name)
    if dtype.is_floating:
        return elementwise.multiply(compare.cast(x, dtype=dtype), 1 / float(x.dtype.max), name=name)
    raise report(DTypeError, f"convert_image_dtype: {x.dtype.name} to {dtype.name}", rule="one of them is a float dtype")


def _in_floats(x: Node, change) -> Node:
    """change(x) of an image in floats, back in the image's dtype."""
    if x.dtype.is_floating:
        return change(x)
    return convert_image_dtype(change(convert_image_dtype(x, float32)), x.dtype, saturate=True)


def rgb_to_grayscale(images, name=None) -> Node:
    """The brightness, one channel."""
    x = _image(images, "rgb_to_grayscale", 3)

    def gray(v):
        weights = as_node(np.array(LUMA), v.dtype)
        total = reduce_sum(v * weights, axes=(v.type.rank - 1,))
        return reshape_to(total, shape=(*v.type.shape[:-1], 1))
    return elementwise.identity(_in_floats(x, gray), name=name)


def grayscale_to_rgb(images, name=None) -> Node:
    """Three equal channels."""
    x = _image(images, "grayscale_to_rgb", 1)
    return arrays.broadcast_to(x, (*x.type.shape[:-1], 3), name=name)


def adjust_brightness(image, delta) -> Node:
    """delta added to each pixel; integers as if in [0, 1]."""
    return _in_floats(as_node(image), lambda v: v + delta)


def adjust_contrast(images, contrast_factor) -> Node:
    """The distance of each pixel from its channel's mean times `contrast_factor`."""
    def change(v):
        axes = (v.type.rank - 3, v.type.rank - 2)
        mean = composite.keep(composite.reduce_mean(v, axes), v.type.shape, axes)
        return (v - mean) * contrast_factor + mean
    return _in_floats(_image(images, "adjust_contrast"), change)


def adjust_gamma(image, gamma=1, gain=1) -> Node:
    """gain * image ** gamma, in [0, 1]."""
    return _in_floats(as_node(image), lambda v: elementwise.pow(v, as_node(float(gamma), v.dtype)) * float(gain))


def rgb_to_hsv(images, name=None) -> Node:
    """Hue, saturation and value, all in [0, 1], of red, green and blue in [0, 1]."""
    x = _image(images, "rgb_to_hsv", 3)
    composite.require_floats("rgb_to_hsv", images=x)
    axes = (x.type.rank - 1,)
    value, low = reduce_max(x, axes=axes), reduce_min(x, axes=axes)
    red, green, blue = arrays.unstack(x, axis=-1)
    span = value - low
    safe = compare.where(span > 0, span, 1)
    hue = compare.where(compare.equal(red, value), (green - blue) / safe,
                        compare.where(compare.equal(green, value), (blue - red) / safe + 2, (red - green) / safe + 4)) / 6
    hue = compare.where(span > 0, compare.where(hue < 0, hue + 1, hue), 0)
    saturation = compare.where(value > 0, span / compare.where(value > 0, value, 1), 0)
    return arrays.stack([hue, saturation, value], axis=-1, name=name)


def hsv_to_rgb(images, name=None) -> Node:
    """Red, green and blue of hue, saturation and value."""
    x = _image(images, "hsv_to_rgb", 3)
    composite.require_floats("hsv_to_rgb", images=x)
    hue, saturation, value = arrays.unstack(x, axis=-1)
    sixths = hue * 6
    ramps = [elementwise.absolute(sixths - 3) - 1, 2 - elementwise.absolute(sixths - 2), 2 - elementwise.absolute(sixths - 4)]
    return arrays.stack([((elementwise.clip(r, 0, 1) - 1) * saturation + 1) * value for r in ramps], axis=-1, name=name)


def adjust_hue(image, delta, name=None) -> Node:
    """The hue turned by `delta`, a part of the circle in [-1, 1]."""
    def change(v):
        hue, saturation, value = arrays.unstack(rgb_to_hsv(v), axis=-1)
        moved = hue + delta
        return hsv_to_rgb(arrays.stack([moved - compare.floor(moved), saturation, value], axis=-1))
    return elementwise.identity(_in_floats(_image(image, "adjust_hue", 3), change), name=name)


def adjust_saturation(image, saturation_factor, name=None) -> Node:
    """The saturation times `saturation_factor`, at most 1."""
    def change(v):
        hue, saturation, value = arrays.unstack(rgb_to_hsv(v), axis=-1)
        return hsv_to_rgb(arrays.stack([hue, elementwise.clip(saturation * saturation_factor, 0, 1), value], axis=-1))
    return elementwise.identity(_in_floats(_image(image, "adjust_saturation", 3), change), name=name)


def random_brightness(image, max_delta, seed=None) -> Node:
    """`adjust_brightness` by a random number in [-max_delta, max_delta)."""
    return adjust_brightness(image, random_uniform((), -max_delta, max_delta, seed=seed))


def random_contrast(image, lower, upper, seed=None) -> Node:
    """`adjust_contrast` by a random number in [lower, upper)."""
    return adjust_contrast(image, random_uniform((), lower, upper, seed=seed))


def per_image_standardization(image) -> Node:
    """(x - mean) / max(deviation, 1 / sqrt(number of pixels)) of each image: a plain image becomes zeros. float32."""
    x = _as_float(_image(image, "per_image_standardization"))
    axes = tuple(range(x.type.rank - 3, x.type.rank))
    mean, variance = (composite.keep(m, x.type.shape, axes) for m in composite.moments(x, axes))
    least = elementwise.rsqrt(composite.count(x, axes, x.dtype))
    return (x - mean) / elementwise.maximum(composite.root(variance), least)


def total_variation(images, name=None) -> Node:
    """The sum of the distances of neighbouring pixels, for each image."""
    x = _image(images, "total_variation")
    rank = x.type.rank
    if rank == 3:
        down, along = x[1:] - x[:-1], x[:, 1:] - x[:, :-1]
    else:
        down, along = x[:, 1:] - x[:, :-1], x[:, :, 1:] - x[:, :, :-1]
    axes = tuple(range(rank - 3, rank))
    return elementwise.add(*(reduce_sum(elementwise.absolute(d), axes=axes) for d in (down, along)), name=name)


def psnr(a, b, max_val, name=None) -> Node:
    """The ratio of peak signal to noise of each pair of images, in decibels: infinite for equal ones."""
    a = _as_float(_image(a, "psnr"))
    b = _as_float(_image(b, "psnr"))
    axes = tuple(range(a.type.rank - 3, a.type.rank))
    error = composite.reduce_mean(elementwise.square(a - b), axes)
    return elementwise.multiply(functions.log(max_val * max_val / error), 10 / float(np.log(10)), name=name)
