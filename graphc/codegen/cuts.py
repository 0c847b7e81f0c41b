"""Cuts calls of kernels into parts along an axis, so that a loop over the parts can be shared out among threads.

A part is a range of one axis of the results, and one place along some axes before it. A call can be cut when one part touches
nothing that another one changes: it says so itself, by the strides of all that its kernel addresses. A product may be cut along
what it sums over, too: then its parts add up.
"""
from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from graphc.codegen.kernel import (
    Access,
    Compute,
    ContractKernel,
    Coordinate,
    Int,
    Load,
    LoopKernel,
    Operand,
    Statement,
    Store,
    statements,
)
from graphc.codegen.lower import THREADS, Buffer, Call
from graphc.ir import dims
from graphc.ir.dims import Dim, Size
from graphc.ir.types import BY_SHORT

LEAST_ROWS = 4      # of a part: fewer take about as long
OWN_WORDS = 128     # bytes, so that no two threads write to one cache line
Steps = tuple[Size, ...]        # bytes from one place to the next along each axis of a cut


class Rest(Dim):
    """The size of the part of `whole` that an iteration works on: `step`, but of the last part what is left of `whole`."""

    __slots__ = ("step", "whole")

    def __init__(self, step: Size, whole: Size):
        super().__init__(dict(step.terms) if isinstance(step, Dim) else {(): step})
        self.step, self.whole = step, whole


class NotCut(Exception):
    """Calls cannot be cut; the text says why."""


class View(Buffer):
    """The memory of `whole`, where another part of it goes with a part of the results than elsewhere."""

    def __init__(self, whole: Buffer):
        super().__init__(whole.name, whole.bytes)
        self.whole = whole


@dataclass(frozen=True)
class Cut:
    """`axes`: the sizes of the axes, outermost first; the last one is cut into parts of the size `part` and a rest.

    even    there is no rest: somebody else sees to it.
    first   with it, a number that calls take: the place along the last axis where the first part begins.
    """

    axes: tuple[Size, ...]
    part: Size
    even: bool = False
    first: Size | None = None

    @property
    def count(self) -> Size:
        """The number of parts of the last axis."""
        return dims.floordiv(self.axes[-1] + self.part - 1, self.part)

    def size(self, rows: Size) -> Size:
        """The size of a part where each place of the last axis stands for so many rows."""
        step, whole = self.part * rows, self.axes[-1] * rows
        return step if self.even or step == whole else Rest(step, whole)


@dataclass
class Known:
    """What is found out while calls are cut.

    steps   of all buffers that are addressed.
    views   where not None: (buffer that is only read, other steps) -> a view of it.
    own     buffers that are written, of which a part must have a range to itself.
    inside  buffers that hold one part alone.
    tables  where not None: coordinates along what is cut -> tables of them, which `made` calls write.
    """

    steps: dict[Buffer, Steps] = field(default_factory=dict)
    own: set[Buffer] = field(default_factory=set)
    inside: set[Buffer] = field(default_factory=set)
    views: dict[tuple[Buffer, Steps], Buffer] | None = None
    tables: dict[tuple[str, Size], Buffer] | None = None
    made: list[Call] = field(default_factory=list)

    def copy(self, own: Collection[Buffer]) -> Known:
        """Another one that knows as much, and more buffers that are not read in two ways."""
        views = None if self.views is None else dict(self.views)
        return replace(self, steps=dict(self.steps), own=self.own | set(own), views=views)

    def view(self, buffer: Buffer, steps: Steps) -> Buffer:
        """The buffer that stands for `buffer` where a part has these steps. Raises NotCut."""
        if self.steps.setdefault(buffer, steps) == steps:
            return buffer
        if self.views is None or buffer in self.own or isinstance(buffer, View):
            raise NotCut(f"{buffer.name} is read in two ways")
        found = self.views.setdefault((buffer, steps), View(buffer))
        self.steps[found] = steps
        return found

    def table(self, dtype: str, size: Size) -> Buffer:
        """Memory with the numbers from 0 on. Raises NotCut."""
        if self.tables is None:
            raise NotCut("a kernel computes with coordinates")
        if (dtype, size) not in self.tables:
            table = self.tables[dtype, size] = Buffer("places", size * BY_SHORT[dtype].size)
            at = (("p0", 1),)
            body = (Coordinate("v0", dtype, at, 0), Store("v0", Access("a0", dtype, at)))
            kernel = LoopKernel("places", ("a0",), ("n0",), (("p0", "n0"),), (), "p0", body, (), BY_SHORT[dtype].size)
            self.made.append(Call(kernel, (table,), (size,), frozenset(), frozenset({table}), operations=size))
        return self.tables[dtype, size]


def part_size(size: Size, most: int) -> Size:
    """A size of parts such that all threads have as many parts, of at most `most`; or fewer threads some, of few rows."""
    groups = THREADS * dims.floordiv(size + most * THREADS - 1, most * THREADS)
    groups = dims.maximum(1, dims.minimum(groups, dims.floordiv(size, LEAST_ROWS)))
    return dims.maximum(1, dims.floordiv(size + groups - 1, groups))


def cut_calls(calls: Sequence[Call], cut: Cut, known: Known) -> list[Call]:
    """The calls that do one part, on the buffers as they are: their users see to it that these lie where the part is."""
    return [cut_call(call, cut, known) for call in calls]


def cut_call(call: Call, cut: Cut, known: Known, along: str = "m") -> Call:
    """One of them; along "k": a product that sums along what is cut, as the call that does the sums of one part."""
    return _CutCall(call, cut, known, along).made()


class _CutCall:
    def __init__(self, call: Call, cut: Cut, known: Known, along: str = "m"):
        self.call, self.cut, self.known = call, cut, known
        kernel = call.kernel
        if not isinstance(kernel, LoopKernel | ContractKernel) or call.failures:
            raise NotCut(f"{kernel.name} is no loop that always succeeds")
        if isinstance(kernel, ContractKernel) and kernel.part:
            raise NotCut(f"{kernel.name} sums up parts")
        self.kernel: LoopKernel | ContractKernel = kernel
        if isinstance(kernel, LoopKernel):
            if kernel.chunk:
                raise NotCut(f"{kernel.name} reduces a whole array")
            if kernel.block:
                raise NotCut(f"{kernel.name} sums over its rows")
            self.axes, self.sizes = list(kernel.parallel), dict((*kernel.parallel, *kernel.reduced))
        else:
            self.axes = [*kernel.batch, (along, kernel.m if along == "m" else kernel.k)]
            self.sizes = dict(kernel.batch) | {"m": kernel.m, "n": kernel.n, "k": kernel.k}
        if along == "k" and len(self.axes) != len(cut.axes):
            raise NotCut(f"{kernel.name} sums along other axes too")
        self.buffers: list[Buffer] = []     # in the order of their new names
        self.names, self.numbers = list(kernel.sizes), list(call.sizes)
        self.covers = self.matched()

    def matched(self) -> dict[str, tuple[list[Size], Size]]:
        """For each axis of the kernel that covers axes of the cut: how many of its steps one step of each of those is (0 for
        an axis that it does not cover), and its size in a part.
        """
        found: dict[str, tuple[list[Size], Size]] = {}
        first, axes = 0, self.cut.axes
        for name, number in self.axes:
            if first == len(axes):
                break
            size = self.call.size(number)
            for last in range(len(axes), first, -1):
                inside = dims.product(axes[first:last])
                rest = dims.floordiv(size, inside) if last == len(axes) and inside != 0 else 1
                if rest != 0 and inside * rest == size:
                    break
            else:
                raise NotCut(f"{self.kernel.name} has no axis of size {axes[first]} there")
            steps = [dims.product(axes[k + 1:last]) * rest if first <= k < last else 0 for k in range(len(axes))]
            found[name] = steps, self.cut.size(rest) if last == len(axes) else 1
            first = last
        if first < len(axes):
            raise NotCut(f"{self.kernel.name} has too few axes")
        return found

    def made(self) -> Call:
        kernel, call, cut = self.kernel, self.call, self.cut
        for statement in statements(kernel):
            if isinstance(statement, Load | Store) and statement.index and (
                    isinstance(statement, Store) or self.buffer(statement.access) in self.known.own):
                raise NotCut(f"{kernel.name} picks elements by an index")
        axes = {name: self.in_part(name, old) for name, old in self.axes}
        if isinstance(kernel, LoopKernel) and kernel.stream:    # stores that bypass the caches want aligned memory
            self.numbers[self.names.index(kernel.stream)] = 0
        if isinstance(kernel, ContractKernel):
            batch = tuple((name, axes[name]) for name, _ in kernel.batch)
            made: LoopKernel | ContractKernel = replace(
                kernel, batch=batch, m=axes.get("m", kernel.m), k=axes.get("k", kernel.k), a=self.operand(kernel.a, "m"),
                b=self.operand(kernel.b, "n"), epilogue=self.section(kernel.epilogue))
        else:
            phases = tuple(replace(p, body=self.section(p.body), after=self.section(p.after)) for p in kernel.phases)
            before = self.section(kernel.before)
            scratch = tuple((self.name(call.buffers[kernel.buffers.index(b)]), size) for b, size in kernel.scratch)
            made = replace(kernel, parallel=tuple(axes.items()), before=before, phases=phases, scratch=scratch)
        made = replace(made, buffers=tuple(f"a{k}" for k in range(len(self.buffers))), sizes=tuple(self.names))
        work = dims.floordiv(call.operations * cut.part, dims.maximum(1, dims.product(cut.axes)))
        return replace(call, kernel=made, buffers=tuple(self.buffers), sizes=tuple(self.numbers), operations=work,
                       reads=frozenset(b for b in self.buffers if b in call.reads or b not in call.buffers))

    def in_part(self, name: str, old: Int) -> Int:
        """The size of an axis in a part."""
        if name not in self.covers:
            return old
        new = self.covers[name][1]
        return 1 if new == 1 else self.number(new)

    def number(self, value: Size) -> str:
        """The name of a new size parameter."""
        self.names.append(f"n{len(self.names)}")
        self.numbers.append(value)
        return self.names[-1]

    def section(self, section: Iterable[Statement]) -> tuple[Statement, ...]:
        found: list[Statement] = []
        for s in section:
            if isinstance(s, Coordinate):
                found += self.coordinate(s)
            else:
                found.append(replace(s, access=self.of_part(s.access, s.access)) if isinstance(s, Load | Store) else s)
        return tuple(found)

    def operand(self, operand: Operand, free: str) -> Operand:
        if operand.packing is None:
            return replace(operand, access=self.of_part(operand.access, _whole_access(operand, free)))
        packing = replace(operand.packing, prologue=self.section(operand.packing.prologue))
        return replace(operand, access=replace(operand.access, buffer=self.name(self.buffer(operand.access))), packing=packing)

    def coordinate(self, s: Coordinate) -> list[Statement]:
        """A coordinate: what it is along an axis that is cut comes from a table, of which there are parts."""
        moved = [(axis, stride) for axis, stride in s.strides if axis in self.covers and self.call.size(stride) != 0]
        if not moved:
            return [s]
        rest = tuple((axis, stride) for axis, stride in s.strides if axis not in self.covers)
        found: list[Statement] = [Coordinate(f"{s.name}s", s.dtype, rest, s.offset)]
        terms = [f"{s.name}s"]
        for k, (axis, stride) in enumerate(moved):
            table = self.known.table(s.dtype, self.call.size(self.sizes[axis]))
            access, name = Access("", s.dtype, ((axis, 1),)), f"{s.name}t{k}"
            found.append(Load(name, self.of_part(access, access, table)))
            terms.append(name if stride == 1 else f"{name} * splat_{s.dtype}({stride})")
        names = tuple(f.name for f in found if isinstance(f, Load | Coordinate))
        return [*found, Compute(s.name, s.dtype, " + ".join(terms), names)]

    def buffer(self, access: Access) -> Buffer:
        return self.call.buffers[self.kernel.buffers.index(access.buffer)]

    def name(self, buffer: Buffer) -> str:
        """The new name of a buffer parameter."""
        if buffer not in self.buffers:
            self.buffers.append(buffer)
        return f"a{self.buffers.index(buffer)}"

    def of_part(self, access: Access, whole: Access, buffer: Buffer | None = None) -> Access:
        """An access as the part's kernel makes it, perhaps to another buffer. whole: with strides along all axes."""
        item, strides = BY_SHORT[access.dtype].size, {a: self.call.size(s) for a, s in whole.strides}
        found: list[Size] = [0] * len(self.cut.axes)
        reach = self.call.size(whole.offset) + 1
        for axis, number in self.sizes.items():
            stride, size = strides.get(axis, 0), self.call.size(number)
            if axis in self.covers:
                along, size_in_part = self.covers[axis]
                found = [a + stride * s for a, s in zip(found, along, strict=True)]
                size = along[-1] if size_in_part != 1 and along[-1] != 0 else 1
            reach = reach + stride * (size - 1)
        buffer, steps = buffer or self.buffer(access), tuple(s * item for s in found)
        if buffer in self.known.own and steps[-1] != 0 and dims.maximum(reach * item, steps[-1]) != steps[-1]:
            raise NotCut(f"{self.kernel.name} reaches beyond a row of {buffer.name}")
        offset = access.offset
        if self.cut.first is not None and steps[-1] != 0 and buffer not in self.known.inside:
            offset = self.number(self.call.size(offset) + self.cut.first * found[-1])
        return replace(access, buffer=self.name(self.known.view(buffer, steps)), offset=offset)


def _whole_access(operand: Operand, free: str) -> Access:
    access = operand.access
    return replace(access, strides=(*access.strides, (free, operand.free), ("k", operand.summed)))


def own_parts(buffers: Iterable[Buffer], cut: Cut, known: Known, most: Size | None = None) -> None:
    """Make temporaries of the calls, which hold a value of all parts, each thread's own, of the size of a part, or of `most`
    places.
    """
    for buffer in buffers:
        steps = known.steps.get(buffer)
        if steps is not None and any(s != 0 for s in steps):
            whole = [steps[-1] * dims.product(cut.axes[k + 1:]) for k in range(len(cut.axes))]
            if list(steps) != whole or dims.product(cut.axes) * steps[-1] != buffer.bytes:
                raise NotCut(f"the parts of {buffer.name} do not lie together")
    for buffer in buffers:
        steps = known.steps.get(buffer)
        if steps is not None and steps[-1] != 0:
            buffer.bytes = (cut.part if most is None else most) * steps[-1]
        buffer.per_thread = True
