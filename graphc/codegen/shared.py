"""Loops that are shared out among threads, each of which does its part by itself.

The rows of a batch go through a recurrent layer without meeting. So its loop over time becomes a loop over parts of the batch,
in which each thread goes through all time steps of its part: nobody waits for anybody between steps, and what a step computes
stays in the caches of the core that needs it next.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.codegen.control import Loop, Part, Row, Shares, Step, control_steps, with_buffers
from graphc.codegen.copies import raw_copy
from graphc.codegen.cuts import OWN_WORDS, Cut, Known, NotCut, Steps, cut_calls, own_parts, part_size
from graphc.codegen.lower import Buffer, Call
from graphc.ir.dims import Size
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import TensorType

MOST_ROWS = 32      # of a batch in one part: more would not share a factor's way through the registers any better
WIDE = 128          # numbers in a row; of narrower ones a part has more
SMALL = 1024        # numbers in all loop variables: one thread's work

Lower = Callable[..., tuple[list[Step], dict[Node, Buffer]]]


def shared_scan(node: Node, inputs: Sequence[Buffer], results: Sequence[Buffer], lower: Lower) -> list[Step]:
    """The steps of a SCAN, shared out along the first axis of its loop variables. Raises NotCut."""
    return _SharedScan(node, inputs, results, lower).steps()


class _SharedScan:
    def __init__(self, node: Node, inputs: Sequence[Buffer], results: Sequence[Buffer], lower: Lower):
        count = node.attrs["states"]
        self.node, self.inputs, self.results = node, inputs, results
        self.types: list[TensorType] = [i.type for i in node.attrs["body"].inputs[:count]]
        sizes = {t.shape[0] if t.rank else 1 for t in self.types}
        if len(sizes) != 1 or sizes == {1}:
            raise NotCut("the loop variables have no first axis in common")
        size, = sizes
        rows = [t.with_shape(t.shape[1:]).elements for t in self.types]
        width = sum(n if isinstance(n, int) else WIDE for n in rows)
        if isinstance(size, int) and size * width <= SMALL:
            raise NotCut("the loop is one thread's work")
        self.most = MOST_ROWS * max(1, WIDE // max(1, width))
        self.cut = Cut((size,), part_size(size, self.most))
        self.lower = lower
        self.moved: dict[Buffer, Part] = {}

    def steps(self) -> list[Step]:
        states = [Buffer(f"{r.name}_own", r.bytes) for r in self.results[:len(self.types)]]
        made = control_steps(self.node, self.inputs, [*states, *self.results[len(states):]], self.lower_few)
        inner = made[-1]
        if not isinstance(inner, Loop) or not all(isinstance(s, Call) for s in inner.body):
            raise NotCut("the loop does not only call kernels")
        steps_of: dict[Buffer, Steps] = {b: (self.row_bytes(t),) for b, t in zip(states, self.types, strict=True)}
        written = {b for s in inner.body for b in s.writes}
        known = Known(steps_of, written | set(states))
        body = cut_calls(inner.body, self.cut, known)   # type: ignore[arg-type]
        own = {b for b in written if not isinstance(b, Row)} | set(states)
        own_parts(own, self.cut, known)
        inner.count.bytes = inner.run.bytes = OWN_WORDS
        inner.count.per_thread = inner.run.per_thread = True
        self.move(inner, steps_of)
        mapping = {b: self.part(b, steps) for b, steps in steps_of.items()
                   if b not in own and not isinstance(b, Row) and steps != (0,)}
        inner.body = with_buffers(body, mapping)
        steps: list[Step] = [*self.copies(self.inputs, states, into=True), inner,
                             *self.copies(self.results, states, into=False)]
        loop = Loop([], None, steps, self.cut.count, False, list(self.moved.values()), Buffer("count", 8), Buffer("run", 8),
                    shares=Shares(self.cut.count))
        return [loop]

    def lower_few(self, graph: Graph, inputs: Sequence[Buffer]) -> tuple[list[Step], dict[Node, Buffer]]:
        return self.lower(graph, inputs, (self.cut.axes[0], self.most))

    def row_bytes(self, type_: TensorType) -> Size:
        return type_.with_shape(type_.shape[1:]).bytes

    def part(self, buffer: Buffer, steps: Steps) -> Part:
        """The part of a buffer that an iteration works on."""
        if buffer not in self.moved:
            step, = steps
            self.moved[buffer] = Part(buffer, self.cut.part * step, 0, 0, self.cut.part * step)
        return self.moved[buffer]

    def move(self, inner: Loop, known: dict[Buffer, Steps]) -> None:
        """Let the rows of sequences and stacks be rows of their parts."""
        for row in inner.rows:
            if known.get(row, (0,)) != (0,):
                if isinstance(row.whole, Row):
                    raise NotCut("a sequence is itself a row")
                row.whole = self.part(row.whole, known[row])
            elif row in known and any(row in s.writes for s in inner.body):
                raise NotCut("a stack is the same for all rows")

    def copies(self, outside: Sequence[Buffer], states: Sequence[Buffer], into: bool) -> list[Step]:
        """Copies of the loop variables from, or to, a part of what lies outside."""
        found: list[Step] = []
        for buffer, state, type_ in zip(outside, states, self.types, strict=False):
            copy = raw_copy(type_, *((buffer, state) if into else (state, buffer)))
            part = self.part(buffer, (self.row_bytes(type_),))
            found += with_buffers(cut_calls([copy], self.cut, Known(own={buffer})), {buffer: part})
        return found
