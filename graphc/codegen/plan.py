"""Plans a program: the order of its kernel calls, where threads must meet, and where every buffer lies in the arena."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from graphc.codegen.lower import Buffer, Call
from graphc.codegen.regions import Lowered
from graphc.codegen.statements import RUN
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.node import Node
from graphc.ir.op import Kind

ALIGNMENT = 64          # bytes; vectors and cache lines
TYPICAL = 64            # the size that an unknown dim is taken to have where one must be guessed


@dataclass
class Record:
    """A call in the program's order. `barrier`: all threads meet after it."""

    call: Call
    barrier: bool = False


@dataclass
class Plan:
    """The records, and where buffers are.

    slots      sizes of the arena's parts; a buffer in the arena has a slot.
    slot_of    buffer -> number of its slot.
    feeds, variables, constants, outputs: buffers that live elsewhere. An output buffer is a fresh array for each run.
    aliases    buffers of new values that are computed straight into their variables' memory -> the variables' buffers.
    """

    records: list[Record]
    slots: list[Size]
    slot_of: dict[Buffer, int]
    feeds: list[Buffer]
    variables: list[Buffer]
    constants: list[Buffer]
    outputs: list[Buffer]
    aliases: dict[Buffer, Buffer] = field(default_factory=dict)


class Planner:
    """Builds the plan of a lowered graph."""

    def __init__(self, lowered: Lowered, copy):
        self.lowered, self.copy = lowered, copy
        self.graph = lowered.graph
        self.buffer = lowered.buffers
        self.calls = list(lowered.calls)
        inputs = list(self.graph.inputs)
        self.feeds = [self.buffer[n] for n in inputs if n.attrs["role"] == "feed"]
        self.variables = [self.buffer[n] for n in inputs if n.attrs["role"] == "variable"]
        self.constants = [self.buffer[n] for n in self.graph.nodes() if n.op.kind is Kind.CONSTANT]
        self.alias: dict[Buffer, Buffer] = {}

    def plan(self) -> Plan:
        outputs = self.fetch_outputs()
        writes = self.writes()
        commits: list[Call] = []
        order = self.schedule(self.late_calls(writes))
        for variable, source, value in writes:
            target = self.buffer[variable]
            if source is target:
                continue
            if self.can_update_in_place(order, target, source, outputs):
                self.alias[source] = target
            else:
                commits.append(self.copy(value, source, target))
        order += commits
        slots, slot_of = self.arena(order, set(outputs))
        records = self.with_barriers(order, slot_of)
        return Plan(records, slots, slot_of, self.feeds, self.variables, self.constants, outputs, dict(self.alias))

    # outputs and writes ------------------------------------------------------------------------------------------------

    def outside(self) -> set[Buffer]:
        """Buffers that the caller owns."""
        return {*self.feeds, *self.variables, *self.constants}

    def fetch_outputs(self) -> list[Buffer]:
        """A buffer for each fetched value: its own where it can be, else a copy. Fetched arrays never alias anything."""
        found: list[Buffer] = []
        written = {self.buffer[w.inputs[1]] for w in self.graph.outputs if w.op.kind is Kind.EFFECT}
        for node in self.graph.outputs:
            if node.op.kind is Kind.EFFECT and node.op.rule.action == "write":
                continue
            buffer = self.buffer[node]
            if buffer in self.outside() or buffer in found or buffer in written:
                fresh = Buffer(f"{buffer.name}_fetched", node.type.bytes, node)
                self.calls.append(self.copy(node, buffer, fresh))
                buffer = fresh
            found.append(buffer)
        return found

    def writes(self) -> list[tuple[Node, Buffer, Node]]:
        """(variable, buffer of its new value, value) of the graph's writes. The old value of another variable that is also
        written is copied first, so that it does not matter which of the two is written before the other: they may swap.
        """
        writes = [n.inputs for n in self.graph.outputs if n.op.kind is Kind.EFFECT and n.op.rule.action == "write"]
        written = {self.buffer[variable] for variable, _ in writes}
        found = []
        for variable, value in writes:
            source = self.buffer[value]
            if source in written and source is not self.buffer[variable]:
                source = Buffer(f"{source.name}_before", value.type.bytes, value)
                self.calls.append(self.copy(value, self.buffer[value], source))
            found.append((variable, source, value))
        return found

    # order -------------------------------------------------------------------------------------------------------------

    def late_calls(self, writes) -> set[Call]:
        """Calls that make variables' new values: they come last, so that they may overwrite the old ones."""
        values = {source for _, source, _ in writes}
        return {c for c in self.calls if c.writes & values}

    def schedule(self, late: set[Call]) -> list[Call]:
        """The calls in their order, but those of `late` (and what needs them) after all others."""
        delayed: set[Buffer] = set()
        first: list[Call] = []
        second: list[Call] = []
        for call in self.calls:
            if call in late or call.reads & delayed or call.writes & delayed:
                delayed |= call.writes
                second.append(call)
            else:
                first.append(call)
        return first + second

    def can_update_in_place(self, order: Sequence[Call], target: Buffer, value: Buffer, outputs) -> bool:
        """Whether `value` may be computed straight into the variable's memory: nothing reads the old value later, nothing can
        fail later, the kernel reads the old value only where it writes, and the new value is no fetch.
        """
        writers = [k for k, c in enumerate(order) if value in c.writes]
        if len(writers) != 1 or value in self.alias or value in outputs or value in self.outside():
            return False
        at = writers[0]
        call = order[at]
        if any(target in c.reads for c in order[at + 1:]) or any(c.failures for c in order[at:]):
            return False
        return target not in call.reads or _elementwise(call, target, value)

    def with_barriers(self, order: Sequence[Call], slot_of: dict[Buffer, int]) -> list[Record]:
        """Records; threads meet before a call that touches memory which an earlier call since the last meeting wrote, or
        writes what one read.
        """
        def places(buffers) -> set:
            return {slot_of.get(self.real(b), self.real(b)) for b in buffers}

        records: list[Record] = []
        written: set = set()
        read: set = set()
        for call in order:
            reads, writes = places(call.reads), places(call.writes)
            if records and (written & (reads | writes) or read & writes):
                records[-1].barrier = True
                written, read = set(), set()
            records.append(Record(call))
            written |= writes
            read |= reads
        return records

    def real(self, buffer: Buffer) -> Buffer:
        return self.alias.get(buffer, buffer)

    # memory ------------------------------------------------------------------------------------------------------------

    def arena(self, order: Sequence[Call], outputs: set[Buffer]) -> tuple[list[Size], dict[Buffer, int]]:
        """Slots for temporaries: buffers whose lives do not overlap share one, with a call in between, so that sharing costs no
        extra barrier.
        """
        outside = self.outside() | outputs | {RUN}
        first: dict[Buffer, int] = {}
        last: dict[Buffer, int] = {}
        for at, call in enumerate(order):
            for buffer in call.buffers:
                real = self.real(buffer)
                if real not in outside:
                    first.setdefault(real, at)
                    last[real] = at
        slots: list[Size] = []
        free_from: list[int] = []
        slot_of: dict[Buffer, int] = {}
        for buffer in sorted(first, key=lambda b: (first[b], -typical(b.bytes))):
            size = threads_times(buffer)
            fitting = [k for k in range(len(slots)) if free_from[k] < first[buffer]]
            best = min(fitting, key=lambda k: abs(typical(slots[k]) - typical(size)), default=None)
            if best is None:
                slots.append(size)
                free_from.append(-1)
                best = len(slots) - 1
            elif slots[best] != size:
                slots[best] = dims.maximum(slots[best], size)
            free_from[best] = last[buffer] + 1
            slot_of[buffer] = best
        return slots, slot_of


def typical(size: Size) -> int:
    """A guess of a size."""
    return size if isinstance(size, int) else int(dims.substitute(size, dict.fromkeys(dims.names(size), TYPICAL)))


THREADS = dims.name("threads_")


def threads_times(buffer: Buffer) -> Size:
    """The bytes of a buffer, one part for each thread if it has parts."""
    return buffer.bytes * THREADS if buffer.per_thread else buffer.bytes


def _elementwise(call: Call, old: Buffer, new: Buffer) -> bool:
    """Whether a kernel reads `old` only at the very element of `new` that it writes next."""
    from graphc.codegen.kernel import Load, LoopKernel, Store, statements
    kernel = call.kernel
    if not isinstance(kernel, LoopKernel) or kernel.phases:
        return False
    place = {b: f"a{k}" for k, b in enumerate(call.buffers)}
    loads = [s.access for s in statements(kernel) if isinstance(s, Load) and s.access.buffer == place[old]]
    stores = [s.access for s in statements(kernel) if isinstance(s, Store) and s.access.buffer == place[new]]
    indexed = any(getattr(s, "index", "") for s in statements(kernel))
    return not indexed and len(stores) == 1 and all(
        (a.strides, a.offset, a.dtype) == (stores[0].strides, stores[0].offset, stores[0].dtype) for a in loads)
