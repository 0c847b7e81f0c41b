"""Checks and converts what users feed. Nothing is lost in silence but float precision."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphc.errors import FeedError, GraphcError, ShapeError, report
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.graph import Graph
from graphc.ir.interpreter import widened
from graphc.ir.node import Node, is_tensor
from graphc.ir.types import Equations, TensorType, kind_of, shape_text, whole_numbers

_KINDS = {"U": "str", "S": "bytes", "M": "datetime", "m": "timedelta"}


def spread(feeds):
    """The feeds with those of sparse tensors as feeds of the three tensors that they are. Raises FeedError."""
    if not isinstance(feeds, Mapping) or not any(isinstance(key, tuple) for key in feeds):
        return feeds
    found: dict = {}
    for key, value in feeds.items():
        if not isinstance(key, tuple):
            found[key] = value
            continue
        if not isinstance(value, (tuple, list)) or len(value) != len(key):
            raise report(FeedError, f"the feed of a sparse tensor: {value!r:.60}", rule="it is (indices, values, dense_shape)")
        found |= {k: v for k, v in zip(key, value, strict=True) if is_tensor(k)}
    return found


def feed_array(node: Node, value) -> np.ndarray:
    """`value` as a C-contiguous array of the tensor's dtype and of a shape that fits it. Raises FeedError.

    An array of the right dtype that is C-contiguous is used as it is.
    """
    array = to_array(node, value)
    check_shape(node, array.shape)
    return in_order(node, array)


def to_array(node: Node, value) -> np.ndarray:
    """`value` as an array of the tensor's dtype. Raises FeedError."""
    return value if type(value) is np.ndarray and value.dtype == node.type.dtype.numpy else _convert(node, value)


def in_order(node: Node, array: np.ndarray) -> np.ndarray:
    """The array in C order, its dtype the very object that the tensor's dtype has."""
    if not array.flags.carray and not (array.flags.c_contiguous and array.flags.aligned):
        array = array.copy(order="C")
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
    if dtype.is_integer and (array.dtype == object or array.dtype.kind == "f" and not isinstance(value, np.ndarray)):
        array = whole_numbers(value, array)
        if array.dtype == object and all(isinstance(v, int) for v in array.flat):
            culprit = max(array.flat, key=abs)
            raise _error(node, f"{culprit} does not convert to {dtype.name}", _range_text(dtype.numpy))
    kind = kind_of(array.dtype)
    if array.dtype == object or kind in "USMmV":
        raise _error(node, f"{_KINDS.get(kind, array.dtype)} does not convert to {dtype.name}")
    if kind == "c":
        raise _error(node, f"{array.dtype} does not convert to {dtype.name}", "the imaginary part would be lost")
    if array.size == 0:
        return array.astype(dtype.numpy)
    if dtype.is_bool or kind == "b":
        if kind != "b" or not dtype.is_bool:
            raise _error(node, f"{array.dtype} does not convert to {dtype.name}", hint="convert it with .astype()")
        return array
    with np.errstate(all="ignore"):
        converted = array.astype(dtype.numpy)
    if dtype.is_integer:
        array = widened(array)
        wrong = _integer_losses(array, dtype.numpy)
        if wrong.any():
            culprit = array[wrong].flat[0]
            rule = "a fraction would be lost" if kind == "f" and np.isfinite(culprit) and culprit % 1 else \
                _range_text(dtype.numpy)
            raise _error(node, f"{culprit} does not convert to {dtype.name}", rule)
    elif not np.can_cast(array.dtype, dtype.numpy):
        wrong = np.isinf(converted) & np.isfinite(array)
        if wrong.any():
            raise _error(node, f"{array[wrong].flat[0]} does not convert to {dtype.name}", "it is too large")
    return converted


def _range_text(dtype: np.dtype) -> str:
    return f"it is outside [{np.iinfo(dtype).min}, {np.iinfo(dtype).max}]"


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
        unshaped = node.graph is not None and node in node.graph.unshaped
        raise report(FeedError, f"the feed for {node.label!r} of shape {tuple(shape)} does not fit the shape "
                                f"({shape_text(type_.shape)})", [("tensor", node.describe())],
                     f"rank {len(shape)} != {type_.rank}" if len(shape) != type_.rank else
                     f"{tuple(shape)} != ({shape_text(type_.shape)})",
                     f"write shape=[{', '.join(['None'] * len(shape))}]: a placeholder without a shape is a scalar"
                     if unshaped else "")


def violated_equation(graph: Graph, shapes: Sequence[tuple[int, ...]],
                      results: Mapping[str, Sequence[tuple[int, ...]]]) -> GraphcError | None:
    """The error for the first node whose type rule needs two dims to be equal that are not, for inputs of these shapes; None
    when the inputs themselves do not fit their types. `results`: name of a host node -> shapes of what it gave.
    """
    env: dict[str, int] = {}
    for node, shape in zip(graph.inputs, shapes, strict=True):
        if len(shape) != node.type.rank:
            return None
        env.update({str(d): s for d, s in zip(node.type.shape, shape, strict=True) if dims.is_name(d) and str(d) not in env})
    for node, shape in zip(graph.inputs, shapes, strict=True):
        if any(_differ(d, s, env) for d, s in zip(node.type.shape, shape, strict=True)):
            return None
    for node in graph.nodes():
        types = node.type if isinstance(node.type, tuple) else (node.type,)
        for type_, shape in zip(types, results.get(node.name, ()), strict=False):
            env |= {str(d): s for d, s in zip(type_.shape, shape, strict=False) if dims.is_name(d) and str(d) not in env}
    for node in graph.nodes():
        with Equations() as equations:
            node.op.infer(*(i.type for i in node.inputs), **node.attrs)
        for left, right in equations.found:
            if _differ(left, right, env):
                a, b = (dims.substitute(d, env) for d in (left, right))
                operands = [(node.op.input_name(k), f"{_with_sizes(n, env)}") for k, n in enumerate(node.inputs)]
                values = "values" if results else "fed values"
                return report(ShapeError, f"{node.op.name}: the {values} make shapes that do not fit", operands,
                              f"{left} = {a} != {right} = {b}", location=node.location)
    return None


def _differ(left: Size, right: Size, env) -> bool:
    """Whether two dims are known and not equal."""
    try:
        a, b = dims.substitute(left, env), dims.substitute(right, env)
    except ZeroDivisionError:
        return False
    return isinstance(a, int) and isinstance(b, int) and a != b


def _with_sizes(node: Node, env) -> str:
    """`x: f32[N] of shape [3]  made at train.py:4`."""
    sizes = shape_text(dims.substitute(d, env) for d in node.type.shape)
    text, space, born = node.describe().partition("  ")
    return f"{text} of shape [{sizes}]{space}{born}"
