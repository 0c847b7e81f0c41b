"""Algebra that makes graphs smaller: rewrite rules, views of views, constant folding, merging of equal nodes."""
from __future__ import annotations

import numpy as np

from graphc.ir.container import detached
from graphc.ir.graph import Graph, rebuild, users
from graphc.ir.interpreter import evaluate
from graphc.ir.node import CONSTANT, Node, make
from graphc.ir.op import Array, Kind
from graphc.ir.types import TensorType
from graphc.ops.assemble import concat_values
from graphc.ops.elementwise import add
from graphc.passes.manager import graph_pass
from graphc.passes.regions import COMPUTED
from graphc.passes.rewrite import apply_rules
from graphc.passes.rules import RULES
from graphc.passes.trim import constants_inside

FOLDED_ELEMENTS = 1024  # larger results are computed when the graph runs: a constant costs memory and compile time
MERGED = (COMPUTED | {Kind.MOVE, Kind.VIEW, Kind.CONSTANT, Kind.CONTRACT, Kind.ASSEMBLE, Kind.SCATTER,
                      Kind.ROUTINE}) - {Kind.RANDOM}


@graph_pass(needs=["pure"], nested=True)
def simplify(graph: Graph) -> Graph:
    """Apply the rules, fold constants, move them into branches and loops, and merge equal nodes, until nothing changes (at
    most a few rounds).
    """
    for _ in range(4):
        new = merge_equal(join_parts(fold(apply_rules(constants_inside(graph, simplify), RULES))))
        if len(new.nodes()) == len(graph.nodes()) and new == graph:
            break
        graph = new
    return graph


def fold(graph: Graph) -> Graph:
    """Compute what depends on constants alone, and join views of views."""
    def replace(node, inputs, control):
        if node.op.kind is Kind.VIEW and inputs[0].op is node.op and len(node.inputs) == 1:
            return make(node.op, inputs[0].inputs, node.attrs, name=node.name, location=node.location)
        if not _can_fold(node, inputs):
            return None
        with np.errstate(all="ignore"):
            value = evaluate(node, [i.attrs["value"].value for i in inputs])
        return Node(CONSTANT, (), {"value": Array(value)}, node.type, name=node.name, location=node.location)
    return rebuild(graph, replace)


def _can_fold(node: Node, inputs) -> bool:
    if node.op.kind not in MERGED - {Kind.CONSTANT} or not isinstance(node.type, TensorType) or not node.type.is_static:
        return False
    if any(i.op.kind is not Kind.CONSTANT for i in inputs) or node.op.kind is Kind.ELEMENTWISE and node.op.rule.fails:
        return False
    if node.op.kind in (Kind.GATHER, Kind.SCATTER, Kind.ROUTINE):
        return False  # it may fail, and then says so when it runs
    if node.op.kind is Kind.MOVE and node.type.elements > 1:
        return False  # a broadcast or moved constant costs nothing in a kernel's loads
    return isinstance(node.type.elements, int) and node.type.elements <= FOLDED_ELEMENTS and \
        all(not _symbolic(v) for v in node.attrs.values())


def _symbolic(value) -> bool:
    from graphc.ir.dims import Dim
    return isinstance(value, Dim) or isinstance(value, tuple) and any(_symbolic(v) for v in value)


def join_parts(graph: Graph) -> Graph:
    """A sum of parts in zeros that lie side by side, such as the gradients of slices, becomes those parts put together."""
    used = users(graph.nodes())

    def replace(node, inputs, control):
        if node.op is not add or any(u.op is add for u in used.get(node, ())):
            return None
        terms, waiting = [], list(reversed(inputs))
        while waiting:
            term = waiting.pop()
            if term.op is add and term.type == node.type:
                waiting += reversed(term.inputs)
            else:
                terms.append(term)
        return _put_together(terms, node)
    return rebuild(graph, replace)


def _put_together(terms: list[Node], node: Node) -> Node | None:
    parts = [_part(t, node.type) for t in terms]
    if any(p is None for p in parts) or len({axis for axis, *_ in parts}) != 1:  # type: ignore[misc]
        return None
    axis = parts[0][0]  # type: ignore[index]
    order = sorted(parts, key=lambda p: p[1])  # type: ignore[index]
    end = 0
    for _, begin, source in order:  # type: ignore[misc]
        if begin != end:
            return None
        end = begin + source.type.shape[axis]
    if end != node.type.shape[axis]:
        return None
    with detached(node.location):
        return concat_values(*(source for _, _, source in order), axis=axis)  # type: ignore[misc]


def _part(node: Node, type_: TensorType) -> tuple[int, int, Node] | None:
    """(axis, begin, value) of zeros with one value in them that leaves room along one axis alone."""
    if node.op.kind is not Kind.ASSEMBLE or len(node.inputs) != 1 or node.type != type_ or node.op.rule.fill(node.attrs) != 0:
        return None
    source, = node.inputs
    where, = node.op.rule.parts((source.type,), node.type, node.attrs)
    axes = [a for a in range(type_.rank) if source.type.shape[a] != type_.shape[a]]
    plain = where.axes == tuple(range(type_.rank)) and all(s == 1 for s in where.steps)
    if len(axes) != 1 or not plain or any(where.offsets[a] != 0 for a in range(type_.rank) if a != axes[0]):
        return None
    sizes = where.offsets[axes[0]], source.type.shape[axes[0]], type_.shape[axes[0]]
    return (axes[0], where.offsets[axes[0]], source) if all(isinstance(s, int) for s in sizes) else None


def key_of(node: Node, inputs: tuple[Node, ...]) -> tuple:
    """Equal for pure nodes that compute the same, with their inputs replaced. The text tells 0.0 from -0.0 and from 0, which
    are equal.
    """
    return node.op, inputs, tuple((k, v, str(v) if isinstance(v, float) else "") for k, v in node.attrs.items())


def merge_equal(graph: Graph) -> Graph:
    """Let pure nodes that compute the same be one node."""
    known: dict[tuple, Node] = {}

    def replace(node, inputs, control):
        if node.op.kind not in MERGED:
            return None
        key = key_of(node, inputs)
        if key not in known:
            known[key] = node if inputs == node.inputs else make(node.op, inputs, node.attrs, name=node.name,
                                                                location=node.location)
        return known[key]
    return rebuild(graph, replace)
