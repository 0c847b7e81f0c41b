"""Plans a program: the order of its kernel calls, where threads must meet, and where every buffer lies in the arena."""
from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from graphc.codegen.arena import Arena, Life
from graphc.codegen.control import Branch, Loop, Step, root, without_copies
from graphc.codegen.inplace import is_needless, late_last, may_overwrite, reusable_rows
from graphc.codegen.lower import Buffer, Call, typical
from graphc.codegen.order import thrifty
from graphc.codegen.regions import Lowered
from graphc.codegen.statements import RUN
from graphc.ir.dims import Size
from graphc.ir.node import Node
from graphc.ir.op import Kind


@dataclass
class Record:
    """A call in the program's order. `barrier`: all threads meet after it; `loops`: those that it runs in, outermost first."""

    call: Call
    barrier: bool = False
    loops: tuple[Loop, ...] = ()


@dataclass
class Control:
    """A step of control flow in the program's order: see `runtime.layout.RecordFlag`, which has the same `kind`s.

    target  the number of the record to go to. loop: that of a "loop" or "next"; test: the bool that an "unless" reads.
    """

    kind: str
    target: int = 0
    loop: Loop | None = None
    test: Buffer | None = None
    barrier: bool = False
    loops: tuple[Loop, ...] = ()


@dataclass
class Plan:
    """The records, and where buffers are.

    arena      bytes of all temporaries together.
    slots      places in the arena, in bytes from its start; buffers whose lives do not meet may start at the same place.
    slot_of    buffer -> number of its place.
    feeds, variables, constants, outputs: buffers that live elsewhere. An output buffer is a fresh array for each run.
    aliases    buffers of new values that are computed straight into their variables' memory -> the variables' buffers; stacks
               of a loop that lie in a sequence's memory -> the buffer that is there.
    """

    records: list[Record | Control]
    arena: Size
    slots: list[Size]
    slot_of: dict[Buffer, int]
    feeds: list[Buffer]
    variables: list[Buffer]
    constants: list[Buffer]
    outputs: list[Buffer]
    aliases: dict[Buffer, Buffer] = field(default_factory=dict)
    lives: dict[Buffer, tuple[int, int]] = field(default_factory=dict)
    updates: list[tuple[Buffer, str]] = field(default_factory=list)

    @property
    def calls(self) -> list[Record]:
        """The kernel calls among the records."""
        return [r for r in self.records if isinstance(r, Record)]


class Planner:
    """Builds the plan of a lowered graph."""

    def __init__(self, lowered: Lowered, copy):
        self.lowered, self.copy = lowered, copy
        self.graph = lowered.graph
        self.buffer = lowered.buffers
        self.steps = list(lowered.steps)
        inputs = list(self.graph.inputs)
        self.feeds = [self.buffer[n] for n in inputs if n.attrs["role"] == "feed"]
        self.variables = [self.buffer[n] for n in inputs if n.attrs["role"] == "variable"]
        self.constants = lowered.constants
        self.alias: dict[Buffer, Buffer] = {}

    def plan(self) -> Plan:
        outputs = self.fetch_outputs()
        writes = self.writes()
        commits: list[Step] = []
        values = {source for _, source, _ in writes}
        order, joined = without_copies(late_last(self.steps, values), self.outside() | values | set(outputs), set(outputs))
        order = thrifty(order, [(self.buffer[variable], joined.get(source, source)) for variable, source, _ in writes],
                        {*self.outside(), *outputs, RUN})
        updates = []
        for variable, source, value in writes:
            target, source = self.buffer[variable], joined.get(source, source)
            if source is target:
                continue
            why = self.obstacle_in_place(order, target, source, outputs)
            updates.append((target, why))
            if why:
                commits.append(self.copy(value, source, target))
            else:
                self.alias[source] = target
        order = [step for step in order if not is_needless(step, self.real)] + commits
        self.reuse_rows(order, {*self.outside(), *outputs, RUN})
        lives = _Lives(self.real, {*self.outside(), *outputs, RUN})
        lives.walk(order)
        arena = Arena(lives.with_meetings(_Recorder(self.real, lambda a, b: a is b).run(order)))
        records = _Recorder(self.real, arena.meet).run(order)
        slots = sorted(set(arena.places.values()), key=typical)
        number = {place: k for k, place in enumerate(slots)}
        slot_of = {b: number[place] for b, place in arena.places.items()}
        return Plan(records, arena.size, slots, slot_of, self.feeds, self.variables, self.constants, outputs, dict(self.alias),
                    lives.in_records(records), updates)

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
                self.steps.append(self.copy(node, buffer, fresh))
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
                self.steps.append(self.copy(value, self.buffer[value], source))
            found.append((variable, source, value))
        return found

    # order -------------------------------------------------------------------------------------------------------------

    def obstacle_in_place(self, order: Sequence[Step], target: Buffer, value: Buffer, outputs) -> str:
        """Why `value` may not be computed straight into the variable's memory; "" where it may: nothing reads the old value
        later, nothing can fail later, the kernel reads the old value only where it writes, and the new value is no fetch.
        """
        if value in self.alias:
            return "another variable gets the same value"
        if value in outputs:
            return "the new value is fetched"
        if value in self.outside():
            return "the new value is no result of a kernel"
        if not may_overwrite(order, target, value):
            return "the old value is read elsewhere or later"
        at = next(k for k, step in enumerate(order) if value in step.writes)
        return "a kernel that comes later can fail" if any(step.may_fail for step in order[at:]) else ""

    def reuse_rows(self, order: Sequence[Step], outside: set[Buffer]) -> None:
        """Let a loop stack its values in the memory of a sequence that it reads for the last time: each row in that of the row
        that it is made from. Threads that do their shares of a loop read nothing of each other's rows: a row is read by the one
        call that writes the other.
        """
        for k, step in enumerate(order):
            if not isinstance(step, Loop):
                continue
            loop, *others = sorted(step.body, key=lambda s: not isinstance(s, Loop)) if step.shares else [step]
            for old, new in reusable_rows(loop, self.real) if isinstance(loop, Loop) else ():
                before, after = self.real(old), self.real(new)
                if before not in outside and after not in outside and after is root(new) and \
                        not any(before in self.touched(s) for s in (*others, *order[k + 1:])) and \
                        not any(after in self.touched(s) for s in (*others, *order[:k])):
                    self.alias[after] = before

    def touched(self, step: Step) -> set[Buffer]:
        """The memory that a step reads and writes."""
        return {self.real(b) for b in step.reads | step.writes}

    def real(self, buffer: Buffer) -> Buffer:
        """The memory behind a buffer."""
        buffer = root(buffer)
        return self.alias.get(buffer, buffer)


class _Lives:
    """The first and the last step that touches each buffer; what comes from before a loop lives until the loop ends."""

    def __init__(self, real: Callable[[Buffer], Buffer], outside: set[Buffer]):
        self.real, self.outside = real, outside
        self.at = 0
        self.first: dict[Buffer, int] = {}
        self.last: dict[Buffer, int] = {}
        self.calls: list[int] = []      # the step of each call
        self.controlled: set[Buffer] = set()  # what more than calls touch

    def in_records(self, records: Sequence[Record | Control]) -> dict[Buffer, tuple[int, int]]:
        """The lives, in numbers of the records that are calls."""
        numbers = [k for k, r in enumerate(records) if isinstance(r, Record)] or [0]
        return {b: (numbers[first], numbers[last]) for b, (first, last) in self.in_calls().items()}

    def in_calls(self) -> dict[Buffer, tuple[int, int]]:
        """The lives, from call to call: those of what control flow touches up to the calls around it."""
        found = {}
        for buffer, first in self.first.items():
            outer = buffer in self.controlled
            start = (bisect.bisect_right(self.calls, first) - 1) if outer else bisect.bisect_left(self.calls, first)
            last = self.last[buffer]
            end = bisect.bisect_left(self.calls, last) if outer else bisect.bisect_right(self.calls, last) - 1
            found[buffer] = max(start, 0), max(min(end, len(self.calls) - 1), 0)
        return found

    def with_meetings(self, records: Sequence[Record | Control]) -> dict[Buffer, Life]:
        """The lives, where threads meet as these records say."""
        meetings, before = 0, []
        for record in records:
            if isinstance(record, Record):
                before.append(meetings)
            meetings += record.barrier or isinstance(record, Control) and record.kind in ("loop", "next")
        before = before or [0]
        return {b: Life(first, last, before[first], before[last]) for b, (first, last) in self.in_calls().items()}

    def walk(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if isinstance(step, Branch):
                self.control([step.test])
                self.walk(step.then)
                self.walk(step.otherwise)
            elif isinstance(step, Loop):
                self.loop(step)
            else:
                self.calls.append(self.at)
                self.touch(step.buffers)

    def loop(self, loop: Loop) -> None:
        start = self.at
        self.control(loop.held)
        self.walk(loop.test)
        if loop.condition is not None:
            self.control([loop.condition])
        self.walk(loop.body)
        end = self.at
        self.control(loop.held)
        for buffer, at in self.first.items():
            if at <= start and self.last[buffer] >= start or loop.shares and at > start:
                self.first[buffer], self.last[buffer] = min(at, start), end     # threads are at different places of a share

    def control(self, buffers: Sequence[Buffer]) -> None:
        self.controlled.update(map(self.real, buffers))
        self.touch(buffers)

    def touch(self, buffers: Iterable[Buffer]) -> None:
        for buffer in buffers:
            real = self.real(buffer)
            if real not in self.outside:
                self.first.setdefault(real, self.at)
                self.last[real] = self.at
        self.at += 1


class _Recorder:
    """Lays steps out as records. Threads meet before a call that touches memory which an earlier call since the last
    meeting wrote, or writes what one read; and at the start and the end of each iteration of a loop.

    real: the buffer behind a buffer; meet: whether two of those may have memory in common.
    """

    def __init__(self, real: Callable[[Buffer], Buffer], meet: Callable[[Buffer, Buffer], bool]):
        self.real, self.meet = real, meet
        self.records: list[Record | Control] = []
        self.written: set[Buffer] = set()
        self.read: set[Buffer] = set()
        self.loops: tuple[Loop, ...] = ()

    def run(self, steps: Iterable[Step]) -> list[Record | Control]:
        """The records of these steps."""
        self.walk(steps)
        return self.records

    def walk(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if isinstance(step, Branch):
                self.branch(step)
            elif isinstance(step, Loop):
                self.loop(step)
            else:
                self.touch(step.reads, step.writes)
                self.add(Record(step))

    def add(self, record: Record | Control) -> None:
        record.loops = self.loops
        self.records.append(record)

    def touch(self, reads: Iterable[Buffer], writes: Iterable[Buffer] = ()) -> None:
        """What the next record touches; a meeting before it, if it needs one."""
        read, written = {self.real(b) for b in reads}, {self.real(b) for b in writes}
        if self.any_meet(self.written, read | written) or self.any_meet(self.read, written):
            last = self.records[-1]
            if isinstance(last, Control) and last.kind not in ("meet", "join"):  # not all threads need come from there
                last = Control("meet")
                self.add(last)
            last.barrier = True
            self.forget()
        self.written |= written
        self.read |= read

    def any_meet(self, before: set[Buffer], now: set[Buffer]) -> bool:
        return bool(before & now) or any(self.meet(a, b) for a in before for b in now)

    def forget(self) -> None:
        self.written, self.read = set(), set()

    def branch(self, branch: Branch) -> None:
        self.touch([branch.test])
        unless = Control("unless", test=branch.test)
        self.add(unless)
        before = set(self.written), set(self.read)
        self.walk(branch.then)
        jump = Control("jump")
        if branch.otherwise:
            self.add(jump)
        unless.target = len(self.records)
        after = self.written, self.read
        self.written, self.read = before
        self.walk(branch.otherwise)
        self.written, self.read = self.written | after[0], self.read | after[1]
        jump.target = len(self.records)
        self.add(Control("meet"))

    def loop(self, loop: Loop) -> None:
        start = Control("loop" if loop.shares is None else "share", loop=loop)
        self.add(start)
        self.forget()
        outside, self.loops = self.loops, (*self.loops, loop)
        top = len(self.records)
        self.walk(loop.test)
        unless = Control("unless", test=loop.condition)
        if loop.condition is not None:
            self.touch([loop.condition])
            self.add(unless)
        at_test = self.written, self.read
        self.written, self.read = set(at_test[0]), set(at_test[1])
        self.walk(loop.body)
        self.add(Control("next" if loop.shares is None else "part", target=top, loop=loop))
        self.loops = outside
        self.forget()
        if loop.condition is not None:
            self.written, self.read = at_test
        start.target = unless.target = len(self.records)
        self.add(Control("meet") if loop.shares is None else Control("join", barrier=True))
