"""Control flow between kernel calls: branches and loops, lowered with the buffers that they need.

A program is a tree of steps: kernel calls, branches, loops. An iteration of a loop is a small run: its variables are buffers
that hold the values from before until the iteration's new ones are committed.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from graphc.codegen.copies import raw_copy
from graphc.codegen.inplace import initial, is_needless, late_last, may_overwrite
from graphc.codegen.kernel import LoopKernel
from graphc.codegen.lower import Buffer, Call
from graphc.codegen.recurrence import is_recurrence, recurrence_call
from graphc.codegen.statements import RUN
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.op import Kind
from graphc.ir.types import TensorType

Lower = Callable[[Graph, Sequence[Buffer]], tuple[list["Step"], dict[Node, Buffer]]]  # a body on buffers for its inputs


class Row(Buffer):
    """The row of `whole` that an iteration works on: it lies at another place in each, `step` bytes further on."""

    def __init__(self, name: str, size: Size, whole: Buffer, step: Size | None = None):
        super().__init__(name, size)
        self.whole, self.step = whole, size if step is None else step


class Part(Row):
    """The part of `whole` that an iteration of a loop that is shared out works on: see `runtime.layout.PartWord`."""

    def __init__(self, whole: Buffer, size: Size, outer: Size, inner: Size, step: Size):
        super().__init__(f"{whole.name}_part", size, whole, step)
        self.outer, self.inner = outer, inner


@dataclass(frozen=True)
class Shares:
    """How a loop is shared out: so many parts in each of outer * inner rows; see `runtime.layout.ShareWord`."""

    parts: Size
    outer: Size = 1
    inner: Size = 1


def root(buffer: Buffer) -> Buffer:
    """The buffer that a row is a part of; any other buffer itself."""
    while isinstance(buffer, Row):
        buffer = buffer.whole
    return buffer


@dataclass(eq=False)
class Branch:
    """`then` where the bool in `test` is true, else `otherwise`."""

    test: Buffer
    then: list[Step]
    otherwise: list[Step]

    @property
    def reads(self) -> frozenset[Buffer]:
        return _union(s.reads for s in (*self.then, *self.otherwise)) | {root(self.test)}

    @property
    def writes(self) -> frozenset[Buffer]:
        return _union(s.writes for s in (*self.then, *self.otherwise))

    @property
    def may_fail(self) -> bool:
        return any(s.may_fail for s in (*self.then, *self.otherwise))


@dataclass(eq=False)
class Loop:
    """`test`, then `body`, again and again: as long as the bool in `condition` is true, or `length` times.

    rows    buffers that lie at another place in each iteration; `reverse`: from the last one on.
    count   holds the number of iterations so far; run: what random ops count as the number of the run; parent: the
            same outside of the loop.
    shares  each thread does its share of the iterations by itself: they touch nothing in common but what they only read.
            Temporaries are each thread's own, nothing counts.
    """

    test: list[Step]
    condition: Buffer | None
    body: list[Step]
    length: Size | None
    reverse: bool
    rows: list[Row]
    count: Buffer
    run: Buffer
    parent: Buffer = field(default=RUN)
    shares: Shares | None = None

    @property
    def held(self) -> list[Buffer]:
        """Buffers that the loop itself reads and writes, or moves along: they live as long as it runs."""
        return [self.count, self.run, self.parent, *(root(r) for r in self.rows)]

    @property
    def reads(self) -> frozenset[Buffer]:
        found = _union(s.reads for s in (*self.test, *self.body)) | {root(self.parent)}
        return found if self.condition is None else found | {root(self.condition)}

    @property
    def writes(self) -> frozenset[Buffer]:
        return _union(s.writes for s in (*self.test, *self.body)) | {root(self.count), root(self.run)}

    @property
    def may_fail(self) -> bool:
        """The user may stop a loop."""
        return True


Step = Call | Branch | Loop


def _union(sets: Iterable[frozenset[Buffer]]) -> frozenset[Buffer]:
    return frozenset(root(b) for s in sets for b in s)


def all_calls(steps: Iterable[Step]) -> Iterator[Call]:
    """The kernel calls in a tree of steps."""
    for step in steps:
        if isinstance(step, Branch):
            yield from all_calls((*step.then, *step.otherwise))
        elif isinstance(step, Loop):
            yield from all_calls((*step.test, *step.body))
        else:
            yield step


def with_buffers(steps: Iterable[Step], mapping: Mapping[Buffer, Buffer]) -> list[Step]:
    """The steps on other buffers. Branches and loops are changed in place: nobody else holds them."""
    if not mapping:
        return list(steps)
    return [_with_buffers(step, mapping) for step in steps]


def _with_buffers(step: Step, mapping: Mapping[Buffer, Buffer]) -> Step:
    def new(buffer: Buffer) -> Buffer:
        return mapping.get(buffer, buffer)
    if isinstance(step, Branch):
        step.test = new(step.test)
        step.then, step.otherwise = with_buffers(step.then, mapping), with_buffers(step.otherwise, mapping)
        return step
    if isinstance(step, Loop):
        step.test, step.body = with_buffers(step.test, mapping), with_buffers(step.body, mapping)
        step.condition = None if step.condition is None else new(step.condition)
        step.count, step.run, step.parent = new(step.count), new(step.run), new(step.parent)
        for row in step.rows:
            row.whole = new(row.whole)
        return step
    if not any(b in mapping for b in step.buffers):
        return step
    sizes = step.sizes
    if isinstance(step.kernel, LoopKernel) and step.kernel.stream and any(isinstance(new(b), Row) for b in step.writes):
        # Stores that bypass the caches want aligned memory, which a row need not be.
        sizes = tuple(0 if n == step.kernel.stream else s for n, s in zip(step.kernel.sizes, sizes, strict=True))
    return replace(step, buffers=tuple(new(b) for b in step.buffers), sizes=sizes,
                   reads=frozenset(new(b) for b in step.reads), writes=frozenset(new(b) for b in step.writes),
                   initial=None if step.initial is None else new(step.initial))


def without_copies(steps: Sequence[Step], keep: set[Buffer], outputs: set[Buffer]) -> tuple[list[Step], dict[Buffer, Buffer]]:
    """The steps without copies of temporaries that nobody needs any more: what would be made from the copy is made in the
    temporary's memory. `keep`: buffers that somebody else needs; `outputs`: those that have a memory of their own. Also: which
    buffer now stands for which.
    """
    mapping: dict[Buffer, Buffer] = {}
    kept = []
    for k, step in enumerate(steps):
        source = initial(step)
        if source is None or source in keep or step.writes & outputs or \
                any(source in s.reads | s.writes for s in steps[k + 1:]):
            kept.append(step)
        else:
            made, = step.writes
            mapping[made] = mapping.get(source, source)
    return with_buffers(kept, mapping), mapping


# lowering --------------------------------------------------------------------------------------------------------------


def control_steps(node: Node, inputs: Sequence[Buffer], results: Sequence[Buffer], lower: Lower) -> list[Step]:
    """The steps of a COND, WHILE or SCAN node."""
    if node.op.kind is Kind.COND:
        test, *operands = inputs
        arms = [_arm(node.attrs[name], operands, results, lower) for name in ("then", "otherwise")]
        return [Branch(test, *arms)]
    if not is_recurrence(node):
        return _LoopLowering(node, inputs, results, lower).steps()
    if node.op.kind is Kind.SCAN:
        return [recurrence_call(node, inputs, results)]
    turns, run, going = (Buffer(f"{node.label}_{what}", size) for what, size in (("turns", 8), ("run", 8), ("going", 1)))
    return [Loop([recurrence_call(node, inputs, results, turns, going)], going, [], None, False, [], turns, run)]


def _arm(body: Graph, operands: Sequence[Buffer], results: Sequence[Buffer], lower: Lower) -> list[Step]:
    steps, found = lower(body, operands)
    wanted = [(found[o], r, o.type) for o, r in zip(body.outputs, results, strict=True)]
    mapping, copies = _delivered(steps, wanted, {})
    return [*with_buffers(steps, mapping), *copies]


def _delivered(steps: Sequence[Step], wanted: Sequence[tuple[Buffer, Buffer, TensorType]],
               mapping: dict[Buffer, Buffer]) -> tuple[dict[Buffer, Buffer], list[Step]]:
    """How values get to where they are wanted, as (value, place, type): computed there, or copied. Gives (`mapping`, what is
    settled already, with the first; the copies).
    """
    made = frozenset(b for s in steps for b in s.writes)
    copies: list[Step] = []
    for value, place, type_ in wanted:
        if value in made and value not in mapping:
            mapping[value] = place
        else:
            copies.append(raw_copy(type_, mapping.get(value, value), place))
    return mapping, copies


class _LoopLowering:
    """A WHILE or SCAN node as copies of the loop variables' first values, and a loop."""

    def __init__(self, node: Node, inputs: Sequence[Buffer], results: Sequence[Buffer], lower: Lower):
        self.node, self.lower, self.body = node, lower, node.attrs["body"]
        count = node.attrs["states"]
        self.is_scan = node.op.kind is Kind.SCAN
        sequences = node.attrs["sequences"] if self.is_scan else 0
        self.starts, self.state = inputs[:count], list(results[:count])
        self.rows = [Row(f"{b.name}_row", i.type.bytes, b)
                     for b, i in zip(inputs[count:count + sequences], self.body.inputs[count:], strict=False)]
        self.shared = list(inputs[count + sequences:])
        self.stacked = [Row(f"{b.name}_row", o.type.bytes, b)
                        for b, o in zip(results[count:], self.body.outputs[count:], strict=True)] if self.is_scan else []
        self.count = Buffer(f"{node.label}_count", 8) if self.is_scan else results[count]

    def steps(self) -> list[Step]:
        node = self.node
        types = [i.type for i in self.body.inputs]
        copies: list[Step] = [raw_copy(t, a, b) for t, a, b in zip(types, self.starts, self.state, strict=False)]
        test: list[Step] = []
        condition = None
        if not self.is_scan:
            graph = node.attrs["condition"]
            test, found = self.lower(graph, [*self.state, *self.shared])
            condition = found[graph.outputs[0]]
        run = Buffer(f"{node.label}_run", 8)
        loop = Loop(with_buffers(test, {RUN: run}), condition, with_buffers(self.iteration(), {RUN: run}),
                    node.attrs.get("length"), bool(node.attrs.get("reverse")), [*self.rows, *self.stacked], self.count, run)
        return [*copies, loop]

    def iteration(self) -> list[Step]:
        """The body with its results put where the next iteration, and who takes the stacks, find them.

        Copies of the variables' old values come first, so that the body may overwrite them.
        """
        steps, found = self.lower(self.body, [*self.state, *self.rows, *self.shared])
        types = [o.type for o in self.body.outputs]
        new = [found[o] for o in self.body.outputs[:len(self.state)]]
        first: list[Step] = []
        for k, value in enumerate(new):
            if value in self.state and value is not self.state[k]:
                new[k] = Buffer(f"{value.name}_before", value.bytes)
                first.append(raw_copy(types[k], value, new[k]))
        stacks = list(zip([found[o] for o in self.body.outputs[len(self.state):]], self.stacked, types[len(self.state):],
                          strict=True))
        first += [raw_copy(type_, value, row) for value, row, type_ in stacks if value in self.state]
        order = late_last(steps, new)
        made = frozenset(b for s in order for b in s.writes)
        mapping: dict[Buffer, Buffer] = {}
        commits = []
        for value, state, type_ in zip(new, self.state, types, strict=False):
            if value in made and value not in mapping and may_overwrite(order, state, value):
                mapping[value] = state
            elif value is not state:
                commits.append((value, state, type_))
        mapping, copies = _delivered(order, [s for s in stacks if s[0] not in self.state], mapping)
        copies += [raw_copy(type_, mapping.get(value, value), state) for value, state, type_ in commits]
        return [*first, *(s for s in with_buffers(order, mapping) if not is_needless(s)), *copies]


def times(loop: Loop, guess: int) -> Size:
    """How often a loop's body runs, where a run finds that out: `guess`. A loop without a body is one of turns, mostly one."""
    return 1 if not loop.body else guess if loop.length is None else dims.maximum(loop.length, 0)
