"""Cuts a graph with host ops into segments: each is a native program of its own, and host ops run between them."""
from __future__ import annotations

from collections.abc import Iterable

from graphc.ir import dims
from graphc.ir.graph import Equation, Graph, nested, new_dims, rebuild, used_dims, users, with_inputs
from graphc.ir.node import RESULT, Node, input_node, make
from graphc.ir.op import Kind, Op
from graphc.ir.types import Equations
from graphc.ops.selection import carry_sizes
from graphc.passes.manager import graph_pass


def _segment_type(*types, body):
    found = tuple(o.type for o in body.outputs)
    return found if len(found) > 1 else found[0]


def _no_rule(*_, **__):
    raise AssertionError("the interpreter runs the body")


SEGMENT = Op("segment", Kind.SEGMENT, ("*inputs",), attrs={"body": None}, infer=_segment_type, numpy=_no_rule,
             grad="segments come after differentiation", doc="What runs natively, as one program, between host ops.")


@graph_pass(needs=["pure"], gives=["segmented"])
def segment(graph: Graph) -> Graph:
    """Put what runs natively between two rounds of host ops into one node each. A graph without host ops stays as it is.

    A node runs in the last segment that is early enough for all who need it: so most are compiled together. Writes of
    variables are all in the last one, so that a run that fails writes nothing.
    """
    order = graph.nodes()
    if any(n.op.kind is Kind.SEGMENT for n in order) or not any(is_host(n) for n in order):
        return graph
    return _cut(graph, False)


def is_host(node: Node) -> bool:
    """Whether Python runs a node, and not a kernel: a host op, or a branch or loop with one inside."""
    if node.op is RESULT:
        return is_host(node.inputs[0])
    return node.op.kind is Kind.HOST or node.op.kind is not Kind.SEGMENT and any(
        is_host(n) or n.op.kind is Kind.SEGMENT for body in nested(node).values() for n in body.nodes())


def _cut(graph: Graph, is_body: bool) -> Graph:
    def replace(node, inputs, control):
        if node.op.kind is Kind.HOST or not is_host(node) or node.op is RESULT:
            return None
        bodies = {name: _cut(body, True) for name, body in nested(node).items()}
        return make(node.op, inputs, {**node.attrs, **bodies}, name=node.name, location=node.location)
    return _Segmenter(rebuild(graph, replace), is_body).run()


def native_graphs(graph: Graph) -> list[Graph]:
    """What becomes a native program each: the segments of a graph, or the graph itself if it has no host ops."""
    return _segments(graph) if any(n.op.kind is Kind.SEGMENT or is_host(n) for n in graph.nodes()) else [graph]


def _segments(graph: Graph) -> list[Graph]:
    """The bodies of the segments, those in branches and loops included."""
    found = []
    for node in graph.nodes():
        if node.op.kind is Kind.SEGMENT:
            found.append(node.attrs["body"])
        elif is_host(node) and node.op is not RESULT:
            found += [inner for body in nested(node).values() for inner in _segments(body)]
    return found


class _Segmenter:
    """Round r of host ops runs before segment r. `round`: host node -> its round; `place`: native node -> its segment.

    is_body: the graph is that of a loop or a branch, which knows the dims of the graph around it.
    """

    def __init__(self, graph: Graph, is_body: bool):
        self.graph, self.is_body = graph, is_body
        self.order = [n for n in graph.nodes() if n.op.kind not in (Kind.INPUT, Kind.CONSTANT)]
        self.users = users(self.order)
        self.round: dict[Node, int] = {}
        self.find_rounds()
        self.last = max(self.round.values(), default=0)
        self.place = self.places()
        self.new = {n: n for n in graph.nodes() if n.op.kind in (Kind.INPUT, Kind.CONSTANT)}

    def find_rounds(self) -> None:
        """A host op runs as soon as its inputs, and the sizes that it names, are there."""
        early: dict[Node, int] = {}  # native node -> the first segment that it can be in
        told: dict[str, int] = {}    # dim -> the first round that tells it
        for node in self.order:
            after = [self.round[i] for i in node.inputs if i in self.round] + [told.get(n, 0) for n in used_dims(node)]
            native = [early[i] for i in node.inputs if i in early]
            if is_host(node):
                self.round[node] = max([0, *after, *(k + 1 for k in native)])
                for name in new_dims(node):
                    told.setdefault(name, self.round[node])
            else:
                early[node] = max([0, *after, *native])

    def places(self) -> dict[Node, int]:
        """The last segment that is early enough for each native node."""
        place = {n: self.last for n in self.order if n not in self.round}
        for node in reversed(self.order):
            limit = self.round[node] - 1 if node in self.round else place[node]
            for source in node.inputs:
                if source in place:
                    place[source] = min(place[source], limit)
        for node in place:
            if node.op is RESULT:  # in the segment of the op whose result it is
                place[node] = place[node.inputs[0]]
        return place

    def run(self) -> Graph:
        for number in range(self.last + 1):
            for node in self.order:
                if self.round.get(node) == number:
                    self.new[node] = with_inputs(node, tuple(self.new[i] for i in node.inputs))
            members = [n for n in self.order if self.place.get(n) == number]
            if members:
                self.make_segment(number, members)
        return self.graph.mapped(self.new)

    def make_segment(self, number: int, members: list[Node]) -> None:
        inside = set(members)
        sources = dict.fromkeys(i for n in members for i in n.inputs if i not in inside and i.op.kind is not Kind.CONSTANT)
        sources |= dict.fromkeys(self.carriers(number, members, list(sources)))
        self.new |= {s: s for s in sources if s not in self.new}
        inner = {s: input_node(s.name, s.type, s.attrs["role"], s.location, s.attrs["variable"])
                 if s.op.kind is Kind.INPUT else input_node(s.name, s.type, location=s.location) for s in sources}
        inputs = tuple(inner.values())
        for node in members:
            inner |= {i: i for i in node.inputs if i.op.kind is Kind.CONSTANT}
            inner[node] = with_inputs(node, tuple(inner[i] for i in node.inputs))
        outputs = [n for n in members if not isinstance(n.type, tuple)
                   and (n in self.graph.outputs or any(u not in inside for u in self.users.get(n, ())))]
        equations: dict[Equation, None] = {}
        for node in members:
            with Equations() as found:
                node.op.infer(*(i.type for i in node.inputs), **node.attrs)
            equations |= {Equation(a, b, node.location): None for a, b in found.found}
        body = Graph(f"{self.graph.name}_{number}", inputs, tuple(inner[o] for o in outputs), tuple(equations))
        single = len(outputs) == 1
        made = make(SEGMENT, tuple(self.new[s] for s in sources), {"body": body}, name=outputs[0].name if single else "",
                    location=outputs[0].location)
        for k, node in enumerate(outputs):
            self.new[node] = made if single else make(RESULT, (made,), {"index": k}, name=node.name, location=node.location)

    def carriers(self, number: int, members: list[Node], sources: list[Node]) -> Iterable[Node]:
        """What else a segment takes, only to know the sizes of dims: feeds, and results of host ops, whose shapes tell them."""
        told = {name for s in sources for d in s.type.shape if (name := dims.linear_in(d)) is not None}
        missing = {n for node in (*members, *sources) for n in used_dims(node)} - told
        done = [n for n, k in self.round.items() if k <= number]
        there = [*self.graph.inputs, *(n for n in done if not isinstance(n.type, tuple))]
        found = [n for n in there if not missing.isdisjoint(dims.names_in(n.type))]
        missing -= {name for n in found for name in dims.names_in(n.type)}
        for host in (n for n in done if not missing.isdisjoint(new_dims(n))):  # nothing but a size is asked of it
            for k, names in enumerate(dims.names_in(t) for t in host.type):
                if not missing.isdisjoint(names):
                    found.append(make(RESULT, (self.new[host],), {"index": k}, location=host.location))
                    missing -= set(names)
        if self.is_body and missing:
            found.append(make(carry_sizes, (), {"dims": tuple(dims.name(n) for n in sorted(missing))}))
        return found
