"""Gives every region its device."""
from __future__ import annotations

from graphc.ir.graph import Graph, rebuild
from graphc.ir.node import make
from graphc.ir.op import Kind
from graphc.passes.manager import graph_pass

DEFAULT = "cpu"


@graph_pass(needs=["fused"], nested=True)
def place(graph: Graph) -> Graph:
    """Write the device on each region that has none: the processor, the only one that compiles kernels so far."""
    def replace(node, inputs, control):
        if node.op.kind is not Kind.REGION or node.attrs["device"]:
            return None
        return make(node.op, inputs, {**node.attrs, "device": DEFAULT}, name=node.name, location=node.location)
    return rebuild(graph, replace)
