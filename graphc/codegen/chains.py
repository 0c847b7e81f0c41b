"""Products of row by row functions of products, such as attention, done a few rows at a time.

Softmax(Q K') V has a matrix of scores that is larger than all else. A few of its rows are computed, normalised and multiplied
before the next ones, by the same kernels that would do all of it: they stay in the cache, and no matrix of scores is in memory.
What others need besides, such as a gradient the weights, goes to memory from there.
"""
from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from graphc.codegen.control import Loop, Part, Shares, Step, with_buffers
from graphc.codegen.copies import copy_call, stand_in
from graphc.codegen.cuts import Cut, NotCut, Steps, cut_calls, own_parts, part_size
from graphc.codegen.kernel import Access, ContractKernel, Int, Load, LoopKernel, Store
from graphc.codegen.lower import Buffer, Call, typical
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.types import BY_SHORT, TensorType
from graphc.passes.regions import Source, contiguous

PART_BYTES = 512 << 10      # of all matrices in a part: they stay in a core's second cache
MOST_ROWS = 128             # of it in a part: enough for packing what they are multiplied with to be cheap
LEADS = 2                   # axes before that of the rows which an iteration has one place of


def in_parts(steps: Sequence[Step], kept: Collection[Buffer]) -> list[Step]:
    """The steps, with each such chain of calls in a loop over parts that is shared out. kept: buffers whose values others need.
    """
    found = list(steps)
    links = _Links(found, kept)
    for last in steps:
        if not isinstance(last, Call) or not isinstance(last.kernel, ContractKernel) or last not in found:
            continue
        for weights in last.buffers if _is_wider(_length(last), size_of(last, last.kernel.n)) else ():
            calls = links.chain(last, weights)
            if calls and all(_is_wider(_length(last), _length(c)) for c in calls if c is not last):
                try:
                    made = _Chain(calls, weights, {b for c in calls for b in c.writes if links.is_for(b, calls)}).steps()
                except NotCut:
                    continue
                at = found.index(last)
                found = [s for s in (*found[:at], *made, *found[at:]) if s not in calls]
                links = _Links(found, kept)
                break
    return found


def size_of(call: Call, number: Int) -> Size:
    """A size of a call's kernel."""
    return call.sizes[call.kernel.sizes.index(number)] if isinstance(number, str) else number


def _length(call: Call) -> Size:
    """How many numbers a product sums up; 0 of what is none."""
    return size_of(call, call.kernel.k) if isinstance(call.kernel, ContractKernel) else 0


def _is_wider(size: Size, other: Size) -> bool:
    """Whether a matrix of rows of `size` is worth keeping out of memory beside one of rows of `other`."""
    return not isinstance(size, int) or isinstance(other, int) and size > other


class _Links:
    """Who reads and who writes what."""

    def __init__(self, steps: Sequence[Step], kept: Collection[Buffer]):
        self.steps, self.kept = steps, kept
        self.readers: dict[Buffer, list[Step]] = {}
        self.writers: dict[Buffer, list[Step]] = {}
        for step in steps:
            for b in step.reads:
                self.readers.setdefault(b, []).append(step)
            for b in step.writes:
                self.writers.setdefault(b, []).append(step)

    def maker(self, buffer: Buffer, kinds: type | tuple[type, ...]) -> Call | None:
        """The one call that writes a buffer, with a kernel of these kinds."""
        step, = self.writers.get(buffer, [None])[:1]
        alone = len(self.writers.get(buffer, ())) == 1
        return step if alone and isinstance(step, Call) and isinstance(step.kernel, kinds) else None

    def is_for(self, buffer: Buffer, calls: Collection[Step]) -> bool:
        """Whether nobody but these calls needs a buffer."""
        return buffer not in self.kept and all(r in calls for r in self.readers.get(buffer, ()))

    def chain(self, last: Call, weights: Buffer) -> list[Call]:
        """The calls in order: products, loops over what these make, and the product of what the loops make, the weights,
        `last`. Empty where there is no such thing.
        """
        middle = self.maker(weights, LoopKernel)
        if middle is None:
            return []
        found, waiting = {last, middle}, [middle]
        while waiting:
            reads = {b for c in found - {last} if isinstance(c.kernel, LoopKernel) for b in c.reads}
            makers = [self.maker(b, (LoopKernel, ContractKernel)) for b in reads]
            waiting = [m for m in dict.fromkeys(makers) if m is not None and m not in found
                       and all(self.is_for(b, found | {m}) for b in m.writes)]
            found |= set(waiting)
        made: set[Buffer] = set()
        calls = []
        for step in self.steps:     # products, and what depends on them
            if isinstance(step, Call) and step in found and (isinstance(step.kernel, ContractKernel) or step.reads & made):
                calls.append(step)
                made |= step.writes
        if middle not in calls or calls[-1] is not last:
            return []
        reads = {b for c in calls for b in c.reads}
        between = self.steps[self.steps.index(calls[0]):self.steps.index(last)]
        return [] if any(s.reads & made or s.writes & (reads | made) for s in between if s not in calls) else calls


class _Chain:
    def __init__(self, calls: Sequence[Call], weights: Buffer, inside: Collection[Buffer]):
        """inside: the buffers that only these calls need."""
        self.calls, self.weights, self.inside = list(calls), weights, set(inside)
        kernel = calls[-1].kernel
        assert isinstance(kernel, ContractKernel)
        axes = [size_of(calls[-1], n) for _, n in (*kernel.batch, ("m", kernel.m))]
        self.axes = tuple(n for n in axes if n != 1)
        if not 1 <= len(self.axes) <= LEADS + 1:
            raise NotCut("too many axes")
        rows, bytes_ = self.axes[-1], weights.bytes
        matrices = {b for c in calls[:-1] for b in c.reads | c.writes if typical(b.bytes) >= typical(bytes_)}
        if isinstance(bytes_, int) and bytes_ * 2 <= PART_BYTES:
            raise NotCut("the matrix is small")
        row_bytes = dims.floordiv(bytes_, dims.product(self.axes))
        most = PART_BYTES // max(1, row_bytes * max(2, len(matrices))) if isinstance(row_bytes, int) else MOST_ROWS // 2
        self.cut = Cut(self.axes, part_size(rows, max(1, min(MOST_ROWS, most))))

    def steps(self) -> list[Step]:
        """What is done before the loop, and the loop."""
        copies: list[Step] = []
        made = {b for c in self.calls for b in c.writes}
        for k, call in enumerate(self.calls[:-1]):
            if isinstance(call.kernel, ContractKernel) and not call.reads & made:
                before, self.calls[k] = in_order(call)
                copies += before
        return [*copies, self.loop()]

    def loop(self) -> Loop:
        known: dict[Buffer, Steps] = {}
        own = {b for c in self.calls for b in c.writes}
        calls = cut_calls(self.calls, self.cut, known, own)
        panels = {b for c in self.calls for b in c.buffers if b.per_thread}
        if any(known[b][-1] == 0 for b in own - panels):
            raise NotCut("a result is not made row by row")
        inside = panels | self.inside
        moved = {b: self.part(b, steps) for b, steps in known.items() if b not in inside and any(s != 0 for s in steps)}
        own_parts(inside, self.cut, known)
        mapping: dict[Buffer, Buffer] = {**moved}
        scores = self.scores()
        if scores is not None and self.fits_in_place(scores):
            mapping[self.weights] = scores
        length = self.cut.count * dims.product(self.axes[:-1])
        leads = (1, 1, *self.axes[:-1])
        return Loop([], None, with_buffers(calls, mapping), length, False, list(moved.values()), Buffer("count", 8),
                    Buffer("run", 8), shares=Shares(self.cut.count, *leads[-LEADS:]))

    def scores(self) -> Buffer | None:
        """The one matrix that weights which only the last call needs are made of."""
        found = self.calls[0].writes & self.calls[1].reads
        return next(iter(found)) if len(found) == 1 and len(self.calls) == 3 and self.weights in self.inside else None

    def part(self, buffer: Buffer, steps: Steps) -> Part:
        outer, inner, step = (0, 0, *steps)[-LEADS - 1:]
        size = self.cut.part * step if step != 0 else buffer.bytes
        return Part(buffer, size, outer, inner, self.cut.part * step)

    def fits_in_place(self, scores: Buffer) -> bool:
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
                    if buffer in (scores, self.weights):
                        form.add((statement.access.strides, statement.access.offset, statement.access.dtype))
                    if stored and buffer is scores:
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
