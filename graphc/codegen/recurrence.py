"""Loops over a few numbers as one kernel: what an iteration computes stays in registers."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.kernel import Access, Coordinate, Int, Literal, Load, RecurrenceKernel, Statement, Store
from graphc.codegen.lower import Buffer, Call, Parameters
from graphc.codegen.statements import Strides, Writer
from graphc.ir.dims import Size
from graphc.ir.graph import Graph
from graphc.ir.node import RESULT, Node
from graphc.ir.op import Kind
from graphc.ir.types import TensorType
from graphc.passes.fuse import is_literal
from graphc.passes.regions import MOVEMENT, Region

MAX_NODES = 64          # computed in an iteration: more would not stay in registers
TURN_COST = 1 << 26     # about how many operations a loop does before it looks whether the user wants to stop
GUESSED_TIMES = 1000    # iterations of a loop whose number only a run finds out


def is_recurrence(node: Node) -> bool:
    """Whether the body (and condition) of a WHILE or SCAN node only compute with single numbers."""
    return 0 < _work(node) <= MAX_NODES


def recurrence_call(node: Node, inputs: Sequence[Buffer], results: Sequence[Buffer], turns: Buffer | None = None,
                    going: Buffer | None = None) -> Call:
    """The kernel of a recurrence. That of a WHILE does a part of the iterations at each call: `turns` counts the calls
    before, and `going` is false after the last one.
    """
    return _RecurrenceLowering(node, inputs, results).call(turns, going)


def _work(node: Node) -> int:
    """How many numbers an iteration computes; 0 if it does anything else."""
    bodies = [node.attrs["body"]] + ([node.attrs["condition"]] if node.op.kind is Kind.WHILE else [])
    counts = [_numbers(body) for body in bodies]
    return 0 if None in counts else sum(c for c in counts if c)


def _numbers(graph: Graph) -> int | None:
    """How many numbers a graph computes, by arithmetic on single numbers alone; else None."""
    count = 0
    for node in graph.nodes():
        kind = node.op.kind
        if kind is Kind.REGION:
            inner = _numbers(node.attrs["body"])
            if inner is None:
                return None
            count += inner
        elif node.op is not RESULT:
            fits = kind in (Kind.INPUT, Kind.ELEMENTWISE) or kind in MOVEMENT or is_literal(node) \
                or kind is Kind.INDEX and node.type.shape == ()
            if not fits or not isinstance(node.type, TensorType) or any(d != 1 for d in node.type.shape):
                return None
            count += kind is Kind.ELEMENTWISE
    return count


class _NumberWriter(Writer):
    """Writes statements for single numbers: no axes, and inputs are known by name."""

    def __init__(self, parameters: Parameters, letter: str):
        region = Region([], [], {}, frozenset(), {}, ())
        super().__init__(region, {}, parameters, Strides(region, parameters, []))
        self.letter = letter

    def name(self, node: Node) -> str:
        if node not in self.names:
            self.names[node] = f"{self.letter}{len(self.names)}"
        return self.names[node]

    def element(self, node: Node) -> tuple[tuple[str, Int], ...]:
        return ()

    def value(self, node: Node) -> str:
        return self.names[node]

    def graph(self, graph: Graph, given: Sequence[str]) -> list[str]:
        """The names of a graph's outputs, whose inputs have the names `given`; writes what computes them."""
        self.names |= dict(zip(graph.inputs, given, strict=True))
        several: dict[Node, list[str]] = {}
        for node in graph.nodes():
            kind = node.op.kind
            if kind is Kind.REGION:
                found = self.graph(node.attrs["body"], [self.names[i] for i in node.inputs])
                several[node] = found
                self.names[node] = found[0]
            elif node.op is RESULT:
                self.names[node] = several[node.inputs[0]][node.attrs["index"]]
            elif kind in MOVEMENT:
                self.names[node] = self.names[node.inputs[0]]
            elif kind is Kind.CONSTANT:
                value = node.attrs["value"].value.reshape(-1)[0].item()
                self.statements.append(Literal(self.name(node), node.type.dtype.short, value))
            elif kind is Kind.INDEX:
                offset, _ = node.op.rule.value(node.type, node.attrs)
                self.statements.append(Coordinate(self.name(node), node.type.dtype.short, (), self.parameters.size(offset)))
            elif kind is not Kind.INPUT:
                self.elementwise(node)
        return [self.names[o] for o in graph.outputs]


class _RecurrenceLowering:
    def __init__(self, node: Node, inputs: Sequence[Buffer], results: Sequence[Buffer]):
        self.node, self.body = node, node.attrs["body"]
        self.inputs, self.results = inputs, results
        self.parameters = Parameters()
        self.types = [i.type for i in self.body.inputs]

    def call(self, turns: Buffer | None, going: Buffer | None) -> Call:
        node, body, parameters = self.node, self.body, self.parameters
        states = node.attrs["states"]
        sequences = node.attrs["sequences"] if node.op.kind is Kind.SCAN else 0
        rows = range(states, states + sequences)
        names = [f"s{k}" if k < states else f"{'x' if k in rows else 'c'}{k}" for k in range(len(self.inputs))]
        length: Size | None = node.attrs.get("length")
        before: list[Statement] = [self.load(k, name) for k, name in enumerate(names) if k not in rows]
        test = _NumberWriter(parameters, "t")
        condition = ""
        if length is None:
            condition, = test.graph(node.attrs["condition"], names)
        writer = _NumberWriter(parameters, "v")
        writer.statements += [self.load(k, names[k], (("t", 1),)) for k in rows]
        new = writer.graph(body, names)
        types = [o.type for o in body.outputs]
        after: list[Statement] = [self.store(f"s{k}", types[k], self.results[k]) for k in range(states)]
        work = _work(node)
        details: dict = {}
        if turns is not None and going is not None:
            after += [Coordinate("iterations", "i64", (("count", 1),)), Coordinate("more", "u8", (("going", 1),)),
                      Store("iterations", Access(parameters.buffer(self.results[states], write=True), "i64")),
                      Store("more", Access(parameters.buffer(going, write=True), "u8"))]
            again = tuple(Load(f"s{k}", Access(parameters.buffer(b), t.dtype.short))
                          for k, (b, t) in enumerate(zip(self.results[:states], types, strict=False)))
            details = {"turn": max(1, TURN_COST // work), "turns": parameters.buffer(turns), "again": again}
        else:
            writer.statements += [self.store(new[k], types[k], self.results[k], (("t", 1),)) for k in range(states, len(new))]
        steps = 0 if length is None else parameters.size(length, keep=())
        kernel = RecurrenceKernel(
            node.op.name, parameters.buffer_names, parameters.size_names, tuple(before),
            tuple((f"s{k}", types[k].dtype.short) for k in range(states)), tuple(test.statements), condition,
            steps, bool(node.attrs.get("reverse")), tuple(writer.statements), tuple(new[:states]), tuple(after),
            may_fail=bool(parameters.failures), **details)
        repeats = GUESSED_TIMES if length is None else length
        return parameters.call(kernel, serial=True, operations=repeats * work, location=node.location)

    def load(self, k: int, name: str, strides: tuple[tuple[str, Int], ...] = ()) -> Load:
        return Load(name, Access(self.parameters.buffer(self.inputs[k]), self.types[k].dtype.short, strides))

    def store(self, value: str, type_: TensorType, buffer: Buffer, strides: tuple[tuple[str, Int], ...] = ()) -> Store:
        return Store(value, Access(self.parameters.buffer(buffer, write=True), type_.dtype.short, strides))
