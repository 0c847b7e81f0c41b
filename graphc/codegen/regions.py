"""Lowers a fused graph: each region to kernel calls, each value to a buffer."""
from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from graphc.codegen.chains import in_parts
from graphc.codegen.column_sums import swept
from graphc.codegen.contractions import ContractLowering
from graphc.codegen.control import Step, control_steps
from graphc.codegen.convolutions import WindowLowering
from graphc.codegen.copies import assemble_calls, copy_call, scatter_calls
from graphc.codegen.cuts import NotCut
from graphc.codegen.joined import joined
from graphc.codegen.loops import LoopLowering
from graphc.codegen.lower import Buffer, Call, Target
from graphc.codegen.routines import routine_calls
from graphc.codegen.shared import shared_scan
from graphc.codegen.split import part_size, split_calls
from graphc.errors import CompileError, report
from graphc.ir.dims import Size
from graphc.ir.graph import Graph
from graphc.ir.node import RESULT, Node
from graphc.ir.op import Kind
from graphc.passes.fuse import is_literal
from graphc.passes.products import analyse_product
from graphc.passes.regions import COMPUTED, MOVEMENT, Region, analyse, contiguous, source_of, stored_root

CONTROL = {Kind.COND, Kind.WHILE, Kind.SCAN}


@dataclass
class Lowered:
    """The steps of a program in graph order, the buffer of each value of the graph, and constants, those in bodies too."""

    graph: Graph
    steps: list[Step]
    buffers: dict[Node, Buffer]
    constants: list[Buffer]


def lower_graph(graph: Graph, target: Target) -> Lowered:
    """The steps of a fused graph."""
    lowering = _GraphLowering(target)
    steps, buffers = lowering.lower(graph, [Buffer(n.label, n.type.bytes, n) for n in graph.inputs])
    return Lowered(graph, steps, buffers, lowering.constants)


class _GraphLowering:
    def __init__(self, target: Target):
        self.target = target
        self.constants: list[Buffer] = []

    def lower(self, graph: Graph, inputs: Sequence[Buffer], few: tuple[Size, int] | None = None) \
            -> tuple[list[Step], dict[Node, Buffer]]:
        """(steps, buffers of the values) of a graph on buffers for its inputs. few: see `region_calls`."""
        buffers: dict[Node, Buffer] = dict(zip(graph.inputs, inputs, strict=True))
        steps: list[Step] = []
        several: dict[Node, list[Buffer]] = {}
        copied: dict[tuple, Buffer] = {}
        written = {o.inputs[0] for o in graph.outputs if o.op.kind is Kind.EFFECT and o.op.rule.action == "write"}
        for node in graph.nodes():
            kind = node.op.kind
            if kind is Kind.REGION:
                outputs = node.attrs["body"].outputs
                made = [Buffer(o.name or node.label, o.type.bytes, node if len(outputs) == 1 else None) for o in outputs]
                inner = dict(zip(node.attrs["body"].inputs, (buffers[i] for i in node.inputs), strict=True))
                updated = {i for i, outer in zip(inner, node.inputs, strict=True) if outer in written}
                steps += region_calls(node, inner, made, self.target, copied, few, updated)
                if len(outputs) == 1:
                    buffers[node] = made[0]
                else:
                    several[node] = made
            elif kind in CONTROL:
                several[node] = [Buffer(f"{node.label}_{k}", t.bytes) for k, t in enumerate(node.type)]
                steps += self.control(node, [buffers[i] for i in node.inputs], several[node])
            elif node.op is RESULT:
                buffers[node] = several[node.inputs[0]][node.attrs["index"]]
                buffers[node].node = node
            elif kind is Kind.CONSTANT:
                buffers[node] = Buffer(node.label, node.type.bytes, node)
                self.constants.append(buffers[node])
            elif kind in (Kind.VIEW, Kind.EFFECT):
                buffers[node] = buffers[node.inputs[0 if kind is Kind.VIEW else -1]]
            elif kind is not Kind.INPUT:
                raise report(CompileError, f"{node.op.name}: the graph is not fused", [("node", node.describe())])
        kept = {*inputs, *(buffers[o] for o in graph.outputs if o in buffers)}
        return swept(in_parts(joined(steps, kept, self.target, few), kept), kept), buffers

    def control(self, node: Node, inputs: Sequence[Buffer], results: Sequence[Buffer]) -> list[Step]:
        """The steps of a branch or a loop."""
        if node.op.kind is Kind.SCAN:
            known = len(self.constants)
            try:
                return shared_scan(node, inputs, results, self.lower)
            except NotCut:
                del self.constants[known:]
        return control_steps(node, inputs, results, self.lower)


def region_calls(node: Node, inputs: dict[Node, Buffer], outputs: list[Buffer], target: Target,
                 copied: dict[tuple, Buffer], few: tuple[Size, int] | None = None,
                 updated: Collection[Node] = ()) -> list[Call]:
    """The kernel calls of one region. copied: buffers that regions before it have copied to another order of memory. few: a
    size that is to be cut, and the most that a part will have of it. updated: inputs that are variables with a new value.
    """
    body: Graph = node.attrs["body"]
    order = body.nodes()
    members = [n for n in order if n.op.kind not in (Kind.INPUT, Kind.CONSTANT)]
    stored = dict(map(stored_root, body.outputs))
    buffers = {**inputs, **dict(zip(stored, outputs, strict=True))}
    members = [n for n in members if n in stored or n not in body.outputs]
    inside = set(members)
    anchor = next((n for n in members if n.op.kind is Kind.CONTRACT), None)
    if anchor is not None:
        product = analyse_product(order, members, tuple(stored), anchor)
        _order_memory(product.last, stored)
        if anchor.op.rule.windows(tuple(i.type for i in anchor.inputs), anchor.attrs):
            return WindowLowering(body.name, product, inside, buffers, target, copied, node.location).calls()
        part = part_size(anchor, updated) if few is None else 0
        if part != 0:
            return split_calls(body.name, product, part, inside, buffers, target, node.location)
        return ContractLowering(body.name, product, inside, buffers, target, node.location, few).calls()
    routine = next((n for n in members if n.op.kind is Kind.ROUTINE), None)
    if routine is not None:
        return routine_calls(routine, buffers, outputs)
    last = members[-1]
    assembly = next((n for n in members if n.op.kind is Kind.ASSEMBLE), None)
    if assembly is not None:
        computed = [i for i in assembly.inputs if i in inside and i.op.kind in COMPUTED]
        calls = assemble_calls(assembly, buffers, inside, computed)
        if computed:
            buffers |= dict.fromkeys(computed, buffers[assembly])
            calls += LoopLowering(body.name, analyse(order, members, body.outputs), buffers, node.location).calls()
        return calls
    if last.op.kind is Kind.SCATTER:
        return scatter_calls(last, buffers)
    if not any(n.op.kind in COMPUTED for n in members):
        source = source_of(last, lambda n: n.op.kind in MOVEMENT)
        read = None if is_literal(source.node) else inputs[source.node]
        return [copy_call(body.name, last, source, read, outputs[0], line=node.location)]
    region = analyse(order, members, tuple(stored))
    _order_memory(region, stored)
    return LoopLowering(body.name, region, buffers, node.location).calls()


def _order_memory(region: Region, stored: dict[Node, tuple[int, ...] | None]) -> None:
    """Note how outputs lie in memory whose axes are not in their own order; the loops then go in the order of memory."""
    for node, order in stored.items():
        if order is not None:
            strides = contiguous([node.type.shape[a] for a in order])
            region.stores[node] = tuple(strides[order.index(a)] for a in range(len(order))), 0
            placement = region.placement[node]
            inner = [axis for a in order if (axis := placement[a]) is not None]
            region.memory = (*(a for a in range(len(region.sizes)) if a not in inner), *inner)
