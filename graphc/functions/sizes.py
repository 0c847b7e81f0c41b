"""Shapes as arguments: numbers, names and dim expressions, and tensors whose values are sizes.

`tf.shape(x)[0]` is a tensor, yet its value is the dim N: `known_sizes` follows such tensors back to dims, so that
`reshape(x, [tf.shape(x)[0], -1])` keeps an exact shape. A size that is fed or computed becomes a new dim: a host op reads it
while the graph runs, and what needs it runs in the next segment.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphc.errors import ArgumentError, report
from graphc.ir.container import current_container
from graphc.ir.dims import Dim, Size
from graphc.ir.node import Node, as_node, is_tensor
from graphc.ir.op import Kind, Op
from graphc.ir.types import as_shape
from graphc.ops import compare, elementwise, index, movement, reduce, selection

# Ops whose NumPy rules work on arrays of dims as they stand.
_ARITHMETIC: dict[Op, Callable] = {
    elementwise.add: np.add, elementwise.subtract: np.subtract, elementwise.multiply: np.multiply,
    elementwise.negative: np.negative, compare.floordiv_int: np.floor_divide,
    elementwise.identity: lambda x: x, elementwise.stop_gradient: lambda x: x, compare.cast: lambda x, dtype: x,
    reduce.reduce_sum: lambda x, axes: np.sum(x, axis=axes), reduce.reduce_prod: lambda x, axes: np.prod(x, axis=axes),
}
_BOUND = "sizes read from tensors"  # key of the graph's `scope_state`


def known_sizes(node: Node) -> np.ndarray | None:
    """The integer tensor's value as an object array of ints and Dims; None when only a run can tell."""
    if isinstance(node.type, tuple) or not node.type.dtype.is_integer:
        return None
    if node.op.kind is Kind.CONSTANT:
        return node.attrs["value"].value.astype(object)
    if node.op is index.dim_value:
        return np.array(node.attrs["dim"], dtype=object)
    if node.op.kind in (Kind.MOVE, Kind.VIEW, Kind.ASSEMBLE):
        rule = node.op.numpy
    elif node.op in _ARITHMETIC:
        rule = _ARITHMETIC[node.op]
    else:
        return None
    inputs = [known_sizes(i) for i in node.inputs]
    if any(value is None for value in inputs):
        return None
    try:
        return np.array(rule(*inputs, **node.attrs), dtype=object)
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def is_fed(value) -> bool:
    """Whether `value` is a tensor of sizes that only a run can tell, or a list with such a tensor in it."""
    if isinstance(value, list | tuple):
        return any(is_fed(v) for v in value)
    return is_tensor(value) and known_sizes(as_node(value)) is None


def sizes_of(node: Node, what: str) -> np.ndarray:
    """The integer tensor's value as an object array of ints and Dims. What only a run can tell becomes new dims, the same ones
    each time; at least 0, or the run fails. Raises ArgumentError.
    """
    found = known_sizes(node)
    if found is not None:
        return found
    if node.op.kind in (Kind.VIEW, Kind.ASSEMBLE) and node.type.dtype.is_integer:  # of a stack, some parts may be known
        return np.array(node.op.numpy(*(sizes_of(i, what) for i in node.inputs), **node.attrs), dtype=object)
    if not node.type.dtype.is_integer or not node.type.is_static:
        raise report(ArgumentError, f"{what}: this tensor cannot say sizes", [("sizes", node.describe())],
                     "it must hold integers, as many as its own shape says" if node.type.dtype.is_integer else
                     f"{node.type.dtype.name} is no integer dtype")
    graph = current_container()
    if graph is None:
        raise report(ArgumentError, f"{what}: a size that is known only when the graph runs", [("size", node.describe())],
                     "gradient rules and passes cannot make such sizes")
    bound = graph.scope_state.setdefault(_BOUND, {})
    if node not in bound:
        names = tuple(graph.fresh_dim() for _ in range(node.type.elements))
        if names:
            with graph.beside(node):
                selection.read_sizes(movement.reshape_to(node, shape=(len(names),)), dims=names)
        bound[node] = np.array(names, dtype=object).reshape(node.type.shape)
    return bound[node]


def as_size(value, what: str) -> Size:
    """One size or coordinate: an int, a dim, or a scalar tensor that stands for one. Raises ArgumentError."""
    if is_tensor(value):
        node = as_node(value)
        if isinstance(node.type, tuple) or node.type.rank:
            raise report(ArgumentError, f"{what}: a size must be a scalar", [("size", node.describe())])
        value = sizes_of(node, what).item()
    if isinstance(value, Dim):
        return value
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise report(ArgumentError, f"{what}: {value!r:.60} is not a whole number")
    return int(value)


def as_sizes(value, what: str) -> tuple[Size, ...]:
    """Sizes or coordinates, negative ones included, from a list, an array, or a tensor. Raises ArgumentError."""
    if is_tensor(value):
        node = as_node(value)
        if isinstance(node.type, tuple) or node.type.rank > 1:
            raise report(ArgumentError, f"{what}: sizes must be a vector", [("shape", node.describe())])
        return tuple(np.atleast_1d(sizes_of(node, what)).tolist())
    if isinstance(value, str | int | np.integer | Dim):
        value = (value,)
    return tuple(as_shape([v], None)[0] if isinstance(v, str) else as_size(v, what) for v in _items(value, what))


def _items(value, what: str):
    try:
        return [getattr(v, "value", v) if type(v).__name__ == "Dimension" else v for v in value]
    except TypeError:
        raise report(ArgumentError, f"{what}: {value!r:.60} is not a shape") from None


def full_shape(value, what: str) -> tuple[Size, ...]:
    """A shape whose sizes are at least 0. Raises ArgumentError for negative sizes and too many elements."""
    return as_shape(as_sizes(value, what))


def as_axis(axis, rank: int, what: str, x: Node | None = None) -> int:
    """An axis counted from 0. Raises ArgumentError when there is no such axis."""
    if is_fed(axis):
        raise report(ArgumentError, f"{what}: an axis must be known when the graph is built",
                     [("axis", as_node(axis).describe())])
    found = as_size(axis, what)
    if not isinstance(found, int) or not -rank <= found < rank:
        raise report(ArgumentError, f"{what}: axis out of range", [("x", x.describe())] if x is not None else [],
                     f"axis {axis} of rank {rank}")
    return found % rank
