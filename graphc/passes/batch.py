"""Many values at once: what a graph computes for each of many rows, computed for all of them with one more axis in front.

Each op says by its record how it works with that axis (graphc.ir.op.Batch). One that does not, or cannot on these operands,
is put into a scan over the rows: so any graph can be computed this way.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from graphc.ir.container import detached
from graphc.ir.dims import Size
from graphc.ir.graph import Graph, topological, with_inputs
from graphc.ir.node import RESULT, Node, input_node, make
from graphc.ir.op import Kind
from graphc.ops.control_flow import make_scan, results
from graphc.ops.movement import broadcast_to, reshape_to, transpose_to


def batched(outputs: Sequence[Node], given: Mapping[Node, Node], rows: Size, prepare: Callable[[Graph], Graph]) -> list[Node]:
    """`outputs` with an axis of `rows` elements in front: for each row the value for that row of the nodes in `given`.

    given    node -> what stands in its place, with the axis
    prepare  what is done first with the graph of a branch or a loop
    Nodes that do not depend on `given` stay as they are, and are computed once.
    """
    found = _Batcher(rows, prepare, dict(given), set(given))
    for node in topological(outputs):
        if node not in found.new:
            with detached(node.location):
                found.visit(node)
    return [found.whole(o) for o in outputs]


def in_turn(outputs: Sequence[Node], given: Mapping[Node, Node], rows: Size) -> list[Node]:
    """The same in less memory: a scan, which computes one row after the other. What no row changes is computed before it."""
    order = topological(outputs)
    varying: set[Node] = set()
    for node in order:
        if node not in given and any(i in given or i in varying for i in node.inputs):
            varying.add(node)
    needed = [*(i for n in order if n in varying for i in n.inputs), *outputs]
    shared = [n for n in dict.fromkeys(needed) if n not in varying and n not in given and n.op.kind is not Kind.CONSTANT]
    new = {n: input_node("", n.type, location=n.location) for n in (*given, *shared)}
    parameters = tuple(new.values())
    for node in order:
        if node in varying:
            new[node] = with_inputs(node, tuple(new.get(i, i) for i in node.inputs), node.control)
    body = Graph("row", parameters, tuple(new.get(o, o) for o in outputs))
    return results(make_scan(body, (), tuple(given.values()), shared, rows, False))


@dataclass
class _Batcher:
    """new: node -> what stands for it; marked: the nodes of which that has the axis; parts: the same for each result of a node
    that has several.
    """

    rows: Size
    prepare: Callable[[Graph], Graph]
    new: dict[Node, Node]
    marked: set[Node]
    parts: dict[Node, list[tuple[Node, bool]]] = field(default_factory=dict)

    def visit(self, node: Node) -> None:
        if node.op is RESULT and node.inputs[0] in self.parts:
            self.put(node, *self.parts[node.inputs[0]][node.attrs["index"]])
            return
        inputs = tuple(self.new.get(i, i) for i in node.inputs)
        marks = tuple(i in self.marked for i in node.inputs)
        counts = marks[:1] if node.op.kind is Kind.VIEW else marks  # a view's further inputs are there for the order
        if not any(counts):
            self.put(node, with_inputs(node, inputs, node.control), False)
        elif node.op.kind in LOOPS:
            self.parts[node] = LOOPS[node.op.kind](self, node, inputs, marks) or self.row_by_row(node, inputs, marks)
        elif (made := self.by_record(node, inputs, marks)) is None:
            found = self.row_by_row(node, inputs, marks)
            if isinstance(node.type, tuple):
                self.parts[node] = found
            else:
                self.put(node, *found[0])
        elif isinstance(node.type, tuple):
            self.parts[node] = [(r, True) for r in results(made)]
        else:
            self.put(node, made, True)

    def put(self, node: Node, made: Node, mark: bool) -> None:
        self.new[node] = made
        if mark:
            self.marked.add(node)

    def whole(self, node: Node) -> Node:
        """What stands for a node, with the axis."""
        return self.new[node] if node in self.marked else self.repeated(self.new.get(node, node))

    def repeated(self, node: Node) -> Node:
        shape = tuple(node.type.shape)
        return broadcast_to(reshape_to(node, shape=(1, *shape)), shape=(self.rows, *shape))

    def by_record(self, node: Node, inputs: tuple[Node, ...], marks: tuple[bool, ...]) -> Node | None:
        """The op itself on operands with the axis, as its record says; None where it cannot."""
        batch = node.op.batch
        if batch is None:
            return None
        if batch.operands == "broadcast":
            inputs = tuple(self.aligned(i, node.type.rank) if m else i for i, m in zip(inputs, marks, strict=True))
        elif batch.operands == "same":
            inputs = tuple(i if m else self.repeated(i) for i, m in zip(inputs, marks, strict=True))
        elif batch.operands == "all":
            follow = [node.op.input_name(k) not in node.op.nondiff for k in range(len(inputs))]
            if any(m and not f for m, f in zip(marks, follow, strict=True)):
                return None
            inputs = tuple(self.repeated(i) if f and not m else i for i, m, f in zip(inputs, marks, follow, strict=True))
        attrs = batch.attrs(self.rows, marks, dict(node.attrs))
        return make(node.op, inputs, attrs, control=node.control, location=node.location)

    def aligned(self, x: Node, rank: int) -> Node:
        """x, its axes but the first moved to the end of `rank` + 1 axes."""
        own = x.type.shape[1:]
        return x if len(own) == rank else reshape_to(x, shape=(self.rows, *[1] * (rank - len(own)), *own))

    def row_by_row(self, node: Node, inputs: tuple[Node, ...], marks: tuple[bool, ...]) -> list[tuple[Node, bool]]:
        """A scan with only this node in it."""
        parameters = tuple(input_node("", i.type) for i in node.inputs)
        made = make(node.op, parameters, node.attrs, location=node.location)
        body = Graph("row", _sorted_by(parameters, marks), tuple(results(made)) if isinstance(made.type, tuple) else (made,))
        rows, shared = ([i for i, m in zip(inputs, marks, strict=True) if m == wanted] for wanted in (True, False))
        return [(r, True) for r in results(make_scan(body, (), rows, shared, self.rows, False))]

    def body(self, graph: Graph, marks: Sequence[bool]) -> tuple[Graph, list[bool]]:
        """A branch or a loop's body with the axis on the marked inputs: (graph, which outputs have it)."""
        inputs = tuple(input_node(i.name, i.type.with_shape((self.rows, *i.type.shape))) if m else i
                       for i, m in zip(graph.inputs, marks, strict=True))
        new = {i: n for i, n, m in zip(graph.inputs, inputs, marks, strict=True) if m}
        inner = _Batcher(self.rows, self.prepare, dict(new), set(new))
        for node in graph.nodes():
            if node not in inner.new and node.op.kind is not Kind.INPUT:
                with detached(node.location):
                    inner.visit(node)
        outputs = tuple(inner.new.get(o, o) for o in graph.outputs)
        required = tuple(inner.new.get(n, n) for n in graph.required)
        return Graph(graph.name, inputs, outputs, graph.equations, required), [o in inner.marked for o in graph.outputs]

    def filled(self, graph: Graph, marks: Sequence[bool], wanted: Sequence[bool]) -> Graph:
        """The graph with the axis on all outputs that are wanted so."""
        outputs = tuple(self.repeated(o) if w and not m else o
                        for o, m, w in zip(graph.outputs, marks, wanted, strict=True))
        return Graph(graph.name, graph.inputs, outputs, graph.equations, graph.required)

    def branch(self, node: Node, inputs: tuple[Node, ...], marks: tuple[bool, ...]) -> list[tuple[Node, bool]] | None:
        if marks[0]:
            return None
        names = "then", "otherwise"
        made = [self.body(self.prepare(node.attrs[name]), marks[1:]) for name in names]
        wanted = [any(pair) for pair in zip(*(m for _, m in made), strict=True)]
        bodies = {name: self.filled(graph, m, wanted) for name, (graph, m) in zip(names, made, strict=True)}
        return list(zip(results(make(node.op, inputs, bodies, location=node.location)), wanted, strict=True))

    def steady(self, body: Graph, marks: Sequence[bool], states: int) -> tuple[Graph, list[bool], list[bool]]:
        """(body, marks of its inputs, of its outputs): a state has the axis if it starts or ever goes on with it."""
        marks = list(marks)
        while True:
            made, found = self.body(body, marks)
            wanted = [a or b for a, b in zip(marks[:states], found, strict=False)]
            if wanted == marks[:states]:
                return self.filled(made, found, [*wanted, *found[states:]]), marks, [*wanted, *found[states:]]
            marks[:states] = wanted

    def loop(self, node: Node, inputs: tuple[Node, ...], marks: tuple[bool, ...]) -> list[tuple[Node, bool]] | None:
        states = node.attrs["states"]
        if node.attrs["free"]:
            return None
        body, marks_in, found = self.steady(self.prepare(node.attrs["body"]), marks, states)
        condition, decides = self.body(self.prepare(node.attrs["condition"]), marks_in)
        if decides[0]:
            return None
        operands = tuple(self.repeated(i) if m and not old else i
                         for i, m, old in zip(inputs, marks_in, marks, strict=True))
        made = make(node.op, operands, {"condition": condition, "body": body, "states": states}, location=node.location)
        return list(zip(results(made), [*found, False], strict=True))

    def scan(self, node: Node, inputs: tuple[Node, ...], marks: tuple[bool, ...]) -> list[tuple[Node, bool]]:
        """Sequences and stacks have the scan's axis in front, also of this one, within the scan."""
        states, sequences = node.attrs["states"], node.attrs["sequences"]
        body, marks_in, found = self.steady(self.prepare(node.attrs["body"]), marks, states)
        operands = tuple(self.repeated(i) if m and not old else i
                         for i, m, old in zip(inputs, marks_in, marks, strict=True))
        rows = [_exchanged(i) if m else i for i, m in zip(operands[states:states + sequences], marks_in[states:], strict=False)]
        made = make(node.op, (*operands[:states], *rows, *operands[states + sequences:]), {**node.attrs, "body": body},
                    location=node.location)
        return [(_exchanged(r) if m and k >= states else r, m)
                for k, (r, m) in enumerate(zip(results(made), found, strict=True))]


LOOPS: dict[Kind, Callable] = {Kind.COND: _Batcher.branch, Kind.WHILE: _Batcher.loop, Kind.SCAN: _Batcher.scan}


def _sorted_by(nodes: Sequence[Node], marks: Sequence[bool]) -> tuple[Node, ...]:
    """The marked ones first."""
    return tuple(n for wanted in (True, False) for n, m in zip(nodes, marks, strict=True) if m == wanted)


def _exchanged(x: Node) -> Node:
    """The first two axes exchanged."""
    return transpose_to(x, perm=(1, 0, *range(2, x.type.rank)))
