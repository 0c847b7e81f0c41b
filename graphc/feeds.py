"""Checks and converts what users feed. Nothing is lost in silence but float precision."""
from __future__ import annotations

import numpy as np

from graphc.errors import FeedError, report
from graphc.ir.node import Node, is_tensor
from graphc.ir.types import TensorType, shape_text


def feed_array(node: Node, value) -> np.ndarray:
    """`value` as a C-contiguous array of the tensor's dtype and of a shape that fits it. Raises FeedError.

    An array of the right dtype that is C-contiguous is used as it is.
    """
    if type(value) is np.ndarray and value.dtype == node.type.dtype.numpy:
        array = value
    else:
        array = _convert(node, value)
    check_shape(node, array.shape)
    if not array.flags.c_contiguous or not array.flags.aligned or not array.dtype.isnative:
        array = np.ascontiguousarray(array).reshape(array.shape)
    if array.dtype is not node.type.dtype.numpy:
        array = array.view(node.type.dtype.numpy)
    return array


def _error(node: Node, what: str, rule: str = "", hint: str = ""):
    return report(FeedError, f"the feed for {node.label!r}: {what}", [("tensor", node.describe())], rule, hint)


def _convert(node: Node, value) -> np.ndarray:
    if value is None:
        raise _error(node, "None is not a value")
    if is_tensor(value):
        raise _error(node, f"a feed must be a value, not the tensor {getattr(value, 'name', value)!r}",
                     hint="run the tensor first and feed its value")
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as e:
        raise _error(node, "the value is no array: its rows differ in length", str(e)) from None
    dtype = node.type.dtype
    if array.dtype == object or array.dtype.kind in "USMmV":
        raise _error(node, f"{array.dtype} does not convert to {dtype.name}")
    if array.dtype.kind == "c":
        raise _error(node, f"{array.dtype} does not convert to {dtype.name}", "the imaginary part would be lost")
    if array.size == 0:
        return array.astype(dtype.numpy)
    if dtype.is_bool or array.dtype.kind == "b":
        if array.dtype.kind != "b" or not dtype.is_bool:
            raise _error(node, f"{array.dtype} does not convert to {dtype.name}", hint="convert it with .astype()")
        return array
    with np.errstate(all="ignore"):
        converted = array.astype(dtype.numpy)
    if dtype.is_integer:
        wrong = _integer_losses(array, dtype.numpy)
        if wrong.any():
            culprit = array[wrong].flat[0]
            rule = "a fraction would be lost" if array.dtype.kind == "f" and np.isfinite(culprit) and culprit % 1 else \
                f"it is outside [{np.iinfo(dtype.numpy).min}, {np.iinfo(dtype.numpy).max}]"
            raise _error(node, f"{culprit} does not convert to {dtype.name}", rule)
    elif array.dtype.kind == "f" and array.dtype.itemsize > dtype.size:
        wrong = np.isinf(converted) & np.isfinite(array)
        if wrong.any():
            raise _error(node, f"{array[wrong].flat[0]} does not convert to {dtype.name}", "it is too large")
    return converted


def _integer_losses(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    limits = np.iinfo(dtype)
    if array.dtype.kind == "f":
        with np.errstate(all="ignore"):
            return ~((array >= float(limits.min)) & (array < float(limits.max) + 1) & (np.trunc(array) == array))
    low = array < limits.min if np.iinfo(array.dtype).min < limits.min else np.zeros(array.shape, bool)
    return low | (array > limits.max if np.iinfo(array.dtype).max > limits.max else False)


def check_shape(node: Node, shape: tuple[int, ...]) -> None:
    """Raise FeedError when a value of this shape cannot be the tensor's."""
    type_: TensorType = node.type
    fits = len(shape) == type_.rank and all(not isinstance(d, int) or d == s for d, s in zip(type_.shape, shape, strict=True))
    if not fits:
        raise report(FeedError, f"the feed for {node.label!r} of shape {tuple(shape)} does not fit the shape "
                                f"({shape_text(type_.shape)})", [("tensor", node.describe())],
                     f"rank {len(shape)} != {type_.rank}" if len(shape) != type_.rank else
                     f"{tuple(shape)} != ({shape_text(type_.shape)})")
