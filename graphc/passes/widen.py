"""Sums of float16 and bfloat16 are made in float32."""
from __future__ import annotations

from graphc.ir.container import detached
from graphc.ir.graph import Graph, rebuild
from graphc.ir.node import Node, make
from graphc.ir.op import Kind
from graphc.ir.types import TensorType
from graphc.ops.compare import cast
from graphc.passes.manager import graph_pass

ACCUMULATING = (Kind.REDUCE, Kind.SCATTER, Kind.ROUTINE)  # a contraction's tile does it by itself


@graph_pass(needs=["pure"], nested=True)
def widen(graph: Graph) -> Graph:
    """Put each node that accumulates floats of 16 bits between casts: an accumulator of 16 bits would overflow and would lose
    small terms. In a kernel the first cast costs nothing, the second one is the only rounding.
    """
    casts: dict[Node, Node] = {}

    def wide(node: Node) -> Node:
        if node.dtype.arithmetic is node.dtype:
            return node
        if node not in casts:
            casts[node] = cast(node, dtype=node.dtype.arithmetic)
        return casts[node]

    def replace(node, inputs, control):
        if node.op.kind not in ACCUMULATING or not isinstance(node.type, TensorType):
            return None
        if all(i.dtype.arithmetic is i.dtype for i in inputs):
            return None
        with detached(node.location):
            found = make(node.op, tuple(wide(i) for i in inputs), node.attrs, location=node.location)
            return found if found.dtype == node.dtype else cast(found, dtype=node.dtype)
    return rebuild(graph, replace)
