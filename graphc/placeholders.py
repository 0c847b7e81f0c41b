"""Placeholders: what a run must be fed."""
from __future__ import annotations

from graphc.errors import RuleError, ShapeError, report, user_location
from graphc.ir import dims
from graphc.ir.container import get_default_graph
from graphc.ir.node import INPUT, Node, as_node
from graphc.ir.types import TensorType, as_dtype, as_shape, same_shape
from graphc.ops.elementwise import identity


def placeholder(dtype, shape=None, name: str | None = None) -> Node:
    """A tensor that every run must be fed.

    dtype  a dtype or its name.
    shape  sizes: ints, names such as "N" (equal names are equal sizes), expressions such as "2*N", or None for a size that
           each run may choose. shape=None stands for a scalar, which is what most programs that say nothing feed; anything
           else needs its number of axes, because types are settled when the graph is built.
    """
    if shape is None:
        node = placeholder(dtype, (), name)
        get_default_graph().unshaped.add(node)
        return node
    graph = get_default_graph()
    graph.check_open()
    if not isinstance(shape, (list, tuple, str, int)):
        shape = tuple(shape)
    written = [d for d in (shape if isinstance(shape, (list, tuple)) else [shape]) if isinstance(d, str)]
    graph.reserve_dims(n for text in written for n in _names(text))
    type_ = TensorType(as_dtype(dtype), as_shape(shape, graph.fresh_dim))
    node = Node(INPUT, (), {"type": type_, "role": "feed", "variable": None}, type_,
                name=graph.unique_name(name or "placeholder"), location=user_location(), graph=graph)
    graph.add(node)
    return node


def _names(text: str) -> tuple[str, ...]:
    try:
        return dims.names(dims.parse(text))
    except ValueError:
        return ()


def placeholder_with_default(input, shape=None, name: str | None = None) -> Node:
    """A tensor that is `input` unless it is fed. `shape`, if given, must fit the input's; sizes stay those of the input."""
    value = as_node(input)
    if shape is not None:
        wanted = as_shape(shape, get_default_graph().fresh_dim)
        try:
            same_shape(value.type.shape, wanted, "the input has another shape")
        except RuleError as e:
            raise report(ShapeError, f"placeholder_with_default: {e.what}", [("input", value.describe())], e.rule) from None
    return identity(value, name=name or "placeholder_with_default")
