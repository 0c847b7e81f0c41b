"""Products of row by row functions of products, such as attention, done a few rows at a time.

Softmax(Q K') V has a matrix of scores that is larger than all else. A few of its rows are computed, normalised and multiplied
before the next ones, by the same kernels that would do all of it: they stay in the cache, and no matrix of scores is in memory.
"""
from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from graphc.codegen.control import Loop, Part, Shares, Step, with_buffers
from graphc.codegen.copies import copy_call, stand_in
from graphc.codegen.cuts import Cut, NotCut, Steps, cut_calls, own_parts
from graphc.codegen.kernel import Access, ContractKernel, Int, Load, LoopKernel, Store
from graphc.codegen.lower import Buffer, Call
from graphc.codegen.order import typical
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.types import BY_SHORT, TensorType
from graphc.passes.regions import Source, contiguous

PART_BYTES = 256 << 10      # of a part of the matrix: it stays in a core's second cache
MOST_ROWS = 128             # of it in a part: enough for packing what they are multiplied with to be cheap
LEADS = 2                   # axes before that of the rows which an iteration has one place of


def in_parts(steps: Sequence[Step], kept: Collection[Buffer]) -> list[Step]:
    """The steps, with each such chain of three calls in a loop over parts that is shared out. kept: buffers whose values others
    need.
    """
    found = list(steps)
    for last in steps:
        if isinstance(last, Call) and isinstance(last.kernel, ContractKernel):
            chain = _chain(found, last, kept)
            if chain is not None:
                try:
                    made = _Chain(*chain).steps()
                except NotCut:
                    continue
                at = found.index(last)
                found = [s for s in (*found[:at], *made, *found[at:]) if s not in chain]
    return found


def _chain(steps: Sequence[Step], last: Call, kept: Collection[Buffer]) -> tuple[Call, Call, Call] | None:
    """Three calls: a product, what makes a matrix of its size from it, and a product with that as rows: `last`."""
    readers: dict[Buffer, list[Step]] = {}
    writers: dict[Buffer, list[Step]] = {}
    for step in steps:
        for b in step.reads:
            readers.setdefault(b, []).append(step)
        for b in step.writes:
            writers.setdefault(b, []).append(step)

    def made_for(call: Call, kind: type) -> Call | None:
        """The call that makes, for this one alone, the largest value that it reads."""
        found = [w for b in call.reads - call.writes if b not in kept and readers[b] == [call] and len(writers.get(b, ())) == 1
                 for w in writers[b] if isinstance(w, Call) and isinstance(w.kernel, kind)]
        return found[0] if len(found) == 1 else None
    middle = made_for(last, LoopKernel)
    first = made_for(middle, ContractKernel) if middle is not None else None
    if middle is None or first is None:
        return None
    between = steps[steps.index(first):steps.index(last)]
    others = [s for s in between if s not in (first, middle)]
    made = first.writes | middle.writes
    if any(s.reads & made or s.writes & (first.reads | middle.reads | made) for s in others):
        return None
    return first, middle, last


class _Chain:
    def __init__(self, first: Call, middle: Call, last: Call):
        self.calls: tuple[Call, ...] = (first, middle, last)
        self.scores, = first.writes & middle.reads
        self.weights, = middle.writes & last.reads
        kernel = last.kernel
        assert isinstance(kernel, ContractKernel)
        axes = [self.size(last, n) for _, n in (*kernel.batch, ("m", kernel.m))]
        self.axes = tuple(n for n in axes if n != 1)
        if not self.axes or not 1 <= len(self.axes) <= LEADS + 1:
            raise NotCut("too many axes")
        rows, bytes_ = self.axes[-1], self.scores.bytes
        if typical(bytes_) <= PART_BYTES and isinstance(bytes_, int):
            raise NotCut("the matrix is small")
        row_bytes = dims.floordiv(bytes_, dims.product(self.axes))
        most = max(1, min(MOST_ROWS, PART_BYTES // max(1, row_bytes))) if isinstance(row_bytes, int) else MOST_ROWS // 2
        groups = dims.maximum(1, dims.floordiv(rows + most - 1, most))
        self.cut = Cut(self.axes, dims.maximum(1, dims.floordiv(rows + groups - 1, groups)))

    @staticmethod
    def size(call: Call, number) -> Size:
        return call.sizes[call.kernel.sizes.index(number)] if isinstance(number, str) else number

    def steps(self) -> list[Step]:
        """What is done before the loop, and the loop."""
        copies, first = in_order(self.calls[0])
        self.calls = first, *self.calls[1:]
        return [*copies, self.loop()]

    def loop(self) -> Loop:
        known: dict[Buffer, Steps] = {}
        own = {b for c in self.calls for b in c.writes}
        calls = cut_calls(self.calls, self.cut, known, own)
        panels = {b for c in self.calls for b in c.buffers if b.per_thread}
        if any(known[b][-1] == 0 for b in own - panels):
            raise NotCut("a result is not made row by row")
        inside = panels | {self.scores, self.weights}
        outside = {b: self.part(b, steps) for b, steps in known.items() if b not in inside and any(s != 0 for s in steps)}
        own_parts(inside, self.cut, known)
        if self.fits_in_place():
            outside_and_own: dict[Buffer, Buffer] = {**outside, self.weights: self.scores}
        else:
            outside_and_own = {**outside}
        length = self.cut.count * dims.product(self.axes[:-1])
        leads = (1, 1, *self.axes[:-1])
        return Loop([], None, with_buffers(calls, outside_and_own), length, False, list(outside.values()), Buffer("count", 8),
                    Buffer("run", 8), shares=Shares(self.cut.count, *leads[-LEADS:]))

    def part(self, buffer: Buffer, steps: Steps) -> Part:
        outer, inner, step = (0, 0, *steps)[-LEADS - 1:]
        size = self.cut.part * step if step != 0 else buffer.bytes
        return Part(buffer, size, outer, inner, self.cut.part * step, self.cut.most * step)

    def fits_in_place(self) -> bool:
        """Whether the weights may be made in the memory of the scores: once a weight, or what becomes one, is stored, the
        score at the same place is not looked at any more.
        """
        call, form, stored = self.calls[1], set(), False
        kernel = call.kernel
        assert isinstance(kernel, LoopKernel)
        for section in (kernel.before, *(part for phase in kernel.phases for part in (phase.body, phase.after))):
            for statement in section:
                if isinstance(statement, Load | Store):
                    buffer = call.buffers[kernel.buffers.index(statement.access.buffer)]
                    if buffer in (self.scores, self.weights):
                        form.add((statement.access.strides, statement.access.offset, statement.access.dtype))
                    if stored and buffer is self.scores:
                        return False
                    stored |= buffer is self.weights and isinstance(statement, Store)
        return len(form) == 1


def in_order(call: Call) -> tuple[list[Call], Call]:
    """The product with its second operand in the order in which it is packed: each part packs it again. Before it, a copy."""
    kernel = call.kernel
    assert isinstance(kernel, ContractKernel)
    packing = kernel.b.packing
    load = packing.prologue[0] if packing is not None else None
    if packing is None or len(packing.prologue) != 1 or not isinstance(load, Load) or load.index or load.where:
        return [], call
    values = dict(zip(kernel.sizes, call.sizes, strict=True))

    def value(number: Int) -> Size:
        return values[number] if isinstance(number, str) else number
    access = load.access
    if value(access.stride("n")) == 1:
        return [], call
    axes = [(name, size) for name, size in (*kernel.batch, ("k", kernel.k), ("n", kernel.n)) if value(access.stride(name)) != 0]
    type_ = TensorType(BY_SHORT[access.dtype], tuple(value(size) for _, size in axes))
    read, copied = call.buffers[kernel.buffers.index(access.buffer)], Buffer(f"{kernel.name}_across", type_.bytes)
    source = Source(stand_in(type_), tuple(value(access.stride(name)) for name, _ in axes), value(access.offset))
    copy = copy_call("copy", stand_in(type_), source, read, copied, line=call.location)
    names, sizes = list(kernel.sizes), list(call.sizes)
    strides: list[tuple[str, Int]] = []
    for (name, _), stride in zip(axes, contiguous(type_.shape), strict=True):
        names.append(f"n{len(names)}")
        sizes.append(stride)
        strides.append((name, 1 if stride == 1 else names[-1]))
    buffer = f"a{len(kernel.buffers)}"
    moved = replace(load, access=Access(buffer, access.dtype, tuple(strides)))
    made = replace(kernel, buffers=(*kernel.buffers, buffer), sizes=tuple(names),
                   b=replace(kernel.b, packing=replace(packing, prologue=(moved,))))
    return [copy], replace(call, kernel=made, buffers=(*call.buffers, copied), sizes=tuple(sizes),
                           reads=call.reads | {copied})
