"""Cuts calls of kernels into parts along an axis, so that a loop over the parts can be shared out among threads.

A part is a range of one axis of the results, and one place along some axes before it. A call can be cut when one part touches
nothing that another one changes: it says so itself, by the strides of all that its kernel addresses.
"""
from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.kernel import Access, ContractKernel, Coordinate, Int, Load, LoopKernel, Operand, Store, statements
from graphc.codegen.lower import THREADS, Buffer, Call
from graphc.ir import dims
from graphc.ir.dims import Dim, Size
from graphc.ir.types import BY_SHORT

LEAST_ROWS = 4      # of a part: fewer take about as long
Steps = tuple[Size, ...]        # bytes from one place to the next along each axis of a cut


class Rest(Dim):
    """The size of the part of `whole` that an iteration works on: `step`, but of the last part what is left of `whole`."""

    __slots__ = ("step", "whole")

    def __init__(self, step: Size, whole: Size):
        super().__init__(dict(step.terms) if isinstance(step, Dim) else {(): step})
        self.step, self.whole = step, whole


class NotCut(Exception):
    """Calls cannot be cut; the text says why."""


@dataclass(frozen=True)
class Cut:
    """`axes`: the sizes of the axes, outermost first; the last one is cut into parts of the size `part` and a rest."""

    axes: tuple[Size, ...]
    part: Size

    @property
    def count(self) -> Size:
        """The number of parts of the last axis."""
        return dims.floordiv(self.axes[-1] + self.part - 1, self.part)

    def size(self, rows: Size) -> Size:
        """The size of a part where each place of the last axis stands for so many rows."""
        step, whole = self.part * rows, self.axes[-1] * rows
        return step if step == whole else Rest(step, whole)


def part_size(size: Size, most: int) -> Size:
    """A size of parts such that all threads have as many parts, of at most `most`; or fewer threads some, of few rows."""
    groups = THREADS * dims.floordiv(size + most * THREADS - 1, most * THREADS)
    groups = dims.maximum(1, dims.minimum(groups, dims.floordiv(size, LEAST_ROWS)))
    return dims.maximum(1, dims.floordiv(size + groups - 1, groups))


def cut_calls(calls: Sequence[Call], cut: Cut, known: dict[Buffer, Steps], own: Collection[Buffer]) -> list[Call]:
    """The calls that do one part, on the buffers as they are: their users see to it that these lie where the part is.

    known   the steps of buffers; those of all others that are addressed are added.
    own     buffers that are written, of which a part must have a range to itself.
    """
    return [_CutCall(call, cut, known, own).made() for call in calls]


class _CutCall:
    def __init__(self, call: Call, cut: Cut, known: dict[Buffer, Steps], own: Collection[Buffer]):
        self.call, self.cut, self.known, self.own = call, cut, known, own
        kernel = call.kernel
        if not isinstance(kernel, LoopKernel | ContractKernel) or call.failures:
            raise NotCut(f"{kernel.name} is no loop that always succeeds")
        self.kernel: LoopKernel | ContractKernel = kernel
        if isinstance(kernel, LoopKernel):
            if kernel.chunk:
                raise NotCut(f"{kernel.name} reduces a whole array")
            self.axes, self.sizes = list(kernel.parallel), dict((*kernel.parallel, *kernel.reduced))
        else:
            self.axes = [*kernel.batch, ("m", kernel.m)]
            self.sizes = dict(self.axes) | {"n": kernel.n, "k": kernel.k}
        self.covers = self.matched()

    def value(self, number: Int) -> Size:
        return self.call.sizes[self.kernel.sizes.index(number)] if isinstance(number, str) else number

    def matched(self) -> dict[str, tuple[list[Size], Size]]:
        """For each axis of the kernel that covers axes of the cut: how many of its steps one step of each of those is (0 for
        an axis that it does not cover), and its size in a part.
        """
        found: dict[str, tuple[list[Size], Size]] = {}
        first, axes = 0, self.cut.axes
        for name, number in self.axes:
            if first == len(axes):
                break
            size = self.value(number)
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
        for access in self.accesses():
            self.look(access)
        for statement in statements(self.kernel):
            if isinstance(statement, Coordinate) and any(self.value(s) != 0 for a, s in statement.strides if a in self.covers):
                raise NotCut(f"{self.kernel.name} computes with coordinates")
            if isinstance(statement, Load | Store) and statement.index and (
                    isinstance(statement, Store) or self.buffer(statement.access) in self.own):
                raise NotCut(f"{self.kernel.name} picks elements by an index")
        return self.of_part()

    def accesses(self) -> Iterator[Access]:
        """All that is addressed, with strides along all axes."""
        for statement in statements(self.kernel):
            if isinstance(statement, Load | Store):
                yield statement.access
        if isinstance(self.kernel, ContractKernel):
            for operand, free in ((self.kernel.a, "m"), (self.kernel.b, "n")):
                if operand.packing is None:
                    yield _whole_access(operand, free)

    def buffer(self, access: Access) -> Buffer:
        return self.call.buffers[self.kernel.buffers.index(access.buffer)]

    def look(self, access: Access) -> None:
        """Find the steps of what is addressed."""
        item, strides = BY_SHORT[access.dtype].size, {a: self.value(s) for a, s in access.strides}
        found: list[Size] = [0] * len(self.cut.axes)
        reach = self.value(access.offset) + 1
        for axis, number in self.sizes.items():
            stride, size = strides.get(axis, 0), self.value(number)
            if axis in self.covers:
                steps, size_in_part = self.covers[axis]
                found = [a + stride * s for a, s in zip(found, steps, strict=True)]
                size = steps[-1] if size_in_part != 1 and steps[-1] != 0 else 1
            reach = reach + stride * (size - 1)
        buffer, made = self.buffer(access), tuple(s * item for s in found)
        if self.known.setdefault(buffer, made) != made:
            raise NotCut(f"{self.kernel.name} reads {buffer.name} otherwise than others")
        if buffer in self.own and made[-1] != 0 and dims.maximum(reach * item, made[-1]) != made[-1]:
            raise NotCut(f"{self.kernel.name} reaches beyond a row of {buffer.name}")

    def of_part(self) -> Call:
        kernel, call, cut = self.kernel, self.call, self.cut
        names, sizes = list(kernel.sizes), list(call.sizes)

        def number(name: str, old: Int) -> Int:
            if name not in self.covers:
                return old
            new = self.covers[name][1]
            if new == 1:
                return 1
            names.append(f"n{len(names)}")
            sizes.append(new)
            return names[-1]
        axes = [(name, number(name, old)) for name, old in self.axes]
        if isinstance(kernel, LoopKernel) and kernel.stream:    # stores that bypass the caches want aligned memory
            sizes[names.index(kernel.stream)] = 0
        if isinstance(kernel, ContractKernel):
            made: LoopKernel | ContractKernel = replace(kernel, batch=tuple(axes[:-1]), m=axes[-1][1], sizes=tuple(names))
        else:
            made = replace(kernel, parallel=tuple(axes), sizes=tuple(names))
        work = dims.floordiv(call.operations * cut.part, dims.maximum(1, dims.product(cut.axes)))
        return replace(call, kernel=made, sizes=tuple(sizes), operations=work)


def _whole_access(operand: Operand, free: str) -> Access:
    access = operand.access
    return replace(access, strides=(*access.strides, (free, operand.free), ("k", operand.summed)))


def own_parts(buffers: Iterable[Buffer], cut: Cut, known: dict[Buffer, Steps]) -> None:
    """Make temporaries of the calls, which hold a value of all parts, each thread's own, of the size of a part."""
    for buffer in buffers:
        steps = known.get(buffer)
        if steps is not None and any(s != 0 for s in steps):
            whole = [steps[-1] * dims.product(cut.axes[k + 1:]) for k in range(len(cut.axes))]
            if list(steps) != whole or dims.product(cut.axes) * steps[-1] != buffer.bytes:
                raise NotCut(f"the parts of {buffer.name} do not lie together")
    for buffer in buffers:
        steps = known.get(buffer)
        if steps is not None and steps[-1] != 0:
            buffer.bytes = cut.part * steps[-1]
        buffer.per_thread = True
