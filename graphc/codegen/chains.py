"""Products of row by row functions of products, such as attention, done a few rows at a time.

Softmax(Q K') V has a matrix of scores that is larger than all else. A few of its rows are computed, normalised and multiplied
before the next ones, by the same kernels that would do all of it: they stay in the cache, and no matrix of scores is in memory.
What else is done with these rows is done there: the gradients, too, where they wait for nothing else. Those by keys and values
sum over the rows; they are added up part by part. What others need goes to memory from there; long rows that only another such
loop needs, such as that of gradients which wait for the loss, are computed there again (`again`).
"""
from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property

from graphc.codegen.again import is_made_again, makers
from graphc.codegen.control import Loop, Part, Row, Shares, Step, with_buffers
from graphc.codegen.copies import copy_call, fill_call, stand_in
from graphc.codegen.cuts import OWN_WORDS, Cut, Known, NotCut, Steps, View, cut_call, cut_calls, own_parts, part_size
from graphc.codegen.kernel import Access, ContractKernel, Int, Load, LoopKernel, Store
from graphc.codegen.lower import Buffer, Call, typical
from graphc.codegen.sums import adding, results, total
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.types import BY_SHORT, TensorType
from graphc.passes.regions import Source, contiguous

PART_BYTES = 768 << 10      # of all matrices in a part: they stay in a core's second cache
FEW_ROWS = 64               # in a part, however long they are: each part packs what its rows are multiplied with
MOST_ROWS = 128             # in a part: enough for that to be cheap
LONG = 1 << 12              # an unknown number of rows, beside known sizes
LEADS = 2                   # axes before that of the rows which an iteration has one place of
GROUPS = 16                 # loops that are shared out, at least, where products sum over rows: for so many threads


def in_parts(steps: Sequence[Step], kept: Collection[Buffer]) -> list[Step]:
    """The steps, with each such chain of calls in a loop over parts that is shared out. kept: buffers whose values others need.
    """
    links = _Links(steps, kept)
    for last in steps:
        for chain in _chains(last, links) if last in links.steps else ():
            made = _made(chain, links)
            for one, loops in made.items():
                links = _Links(links.with_loops(one.taken, loops), kept)
            if made:
                break
    return list(links.steps)


def _chains(last: Step, links: _Links, matrices: Collection[Buffer] = ()) -> Iterator[_Chain]:
    """The chains that end with a product, with what takes these matrices besides."""
    if not isinstance(last, Call) or not isinstance(last.kernel, ContractKernel):
        return
    for weights in last.buffers if _is_wider(_length(last), last.size(last.kernel.n)) else ():
        calls = links.chain(last, weights)
        if calls and all(_is_wider(_length(last), _length(c)) for c in calls if c is not last):
            with suppress(NotCut):
                yield _Chain(calls, weights, links, matrices)


def _length(call: Call) -> Size:
    """How many numbers a product sums up; 0 of what is none."""
    return call.size(call.kernel.k) if isinstance(call.kernel, ContractKernel) else 0


def _is_wider(size: Size, other: Size) -> bool:
    """Whether a matrix of rows of `size` is worth keeping out of memory beside one of rows of `other`."""
    return not isinstance(size, int) or isinstance(other, int) and size > other


def _made(chain: _Chain, links: _Links) -> dict[_Chain, list[Step]]:
    """A chain and its steps; with them a later one that makes again what this one would have to keep in memory for it."""
    made: dict[_Chain, list[Step]] = {}
    stored = chain.stored(links)
    later = _later(chain, stored, links) if stored else None
    if later is not None:
        with suppress(NotCut):
            made[later] = later.steps()
            chain.inside |= stored
    with suppress(NotCut):
        made[chain] = chain.steps()
    return made


def _later(chain: _Chain, stored: Collection[Buffer], links: _Links) -> _Chain | None:
    """The later chain in which all is that takes the stored matrices of this one, now with what makes them; None where there
    is none, or they are better stored.
    """
    calls = makers(chain.calls, stored)
    terms = [_length(c) for c in calls if isinstance(c.kernel, ContractKernel)]
    readers = {r for b in stored for r in links.readers[b] if r not in chain.taken}
    near = {b for r in readers for s in (r, *(n for b in r.writes for n in links.readers.get(b, ()))) for b in s.writes}
    for last in links.steps[links.steps.index(chain.last) + 1:]:
        for later in _chains(last, links, stored) if last.reads & near else ():
            if readers <= {*later.taken} and not links.lead_to(later.taken, chain.taken):
                if not is_made_again(stored, _length(chain.last), terms):
                    return None
                later.begin_with(calls)
                return later
    return None


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

    @cached_property
    def needed(self) -> dict[Step, int]:
        """For each step the steps before it which it waits for, and itself, as bits of a number."""
        found: dict[Step, int] = {}
        read: dict[Buffer, int] = {}        # by which steps, since it was written
        written: dict[Buffer, int] = {}
        for k, step in enumerate(self.steps):
            bits = 1 << k
            for b in (*step.reads, *step.writes):
                bits |= written.get(b, 0)
            for b in step.writes:
                bits |= read.get(b, 0)
            found[step] = bits
            for b in step.reads:
                read[b] = read.get(b, 0) | bits
            for b in step.writes:
                written[b] = bits
        return found

    def behind(self, calls: Collection[Step]) -> list[Step]:
        """Other steps that wait for one of the calls."""
        bits = sum(1 << k for k, s in enumerate(self.steps) if s in calls)
        return [s for s in self.steps if s not in calls and self.needed[s] & bits]

    def lead_to(self, calls: Collection[Step], others: Collection[Step]) -> bool:
        """Whether some of the others are among the calls, or wait for one."""
        return not {*calls, *self.behind(calls)}.isdisjoint(others)

    def fit_together(self, calls: Collection[Step]) -> bool:
        """Whether the calls may be done one right after the other: none waits for another step that waits for one of them."""
        between = sum(1 << self.steps.index(s) for s in self.behind(calls))
        return not any(self.needed[c] & between for c in calls)

    def with_loops(self, calls: Collection[Step], loops: Sequence[Step]) -> list[Step]:
        """The steps with loops in place of calls that fit together; what waits for these comes after them."""
        end = max(k for k, s in enumerate(self.steps) if s in calls)
        late = self.behind(calls)
        before = [s for s in self.steps[:end] if s not in calls and s not in late]
        return [*before, *loops, *(s for s in self.steps[:end] if s in late), *self.steps[end + 1:]]

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
        return calls if self.fit_together(calls) else []

    def beside(self, calls: Sequence[Call], matrices: Collection[Buffer]) -> list[Call]:
        """Other calls that read one of the matrices and may as well be done where these calls are."""
        return [s for s in self.steps if isinstance(s, Call) and isinstance(s.kernel, ContractKernel | LoopKernel)
                and s not in calls and not s.reads.isdisjoint(matrices) and not any(s.writes & c.reads for c in calls)
                and self.fit_together([*calls, s])]


class _Chain:
    def __init__(self, calls: Sequence[Call], weights: Buffer, links: _Links, matrices: Collection[Buffer]):
        self.calls, self.weights, self.last = list(calls), weights, calls[-1]
        kernel = self.last.kernel
        assert isinstance(kernel, ContractKernel)
        axes = [calls[-1].size(n) for _, n in (*kernel.batch, ("m", kernel.m))]
        self.axes = tuple(n for n in axes if n != 1)
        if not 1 <= len(self.axes) <= LEADS + 1:
            raise NotCut("too many axes")
        bytes_ = weights.bytes
        matrices = {*matrices, *(b for c in calls[:-1] for b in c.reads | c.writes if self.is_matrix(b))}
        if isinstance(bytes_, int) and bytes_ * 3 <= PART_BYTES:
            raise NotCut("the matrix is small")
        self.sums: list[Call] = []
        self.tables: dict[tuple[str, Size], Buffer] = {}
        self.before: list[Call] = []
        count = max(2, len(self.take(links, matrices)))
        row_bytes = dims.floordiv(bytes_, dims.product(self.axes))
        most = PART_BYTES // max(1, row_bytes * count) if isinstance(row_bytes, int) else FEW_ROWS
        self.most = max(FEW_ROWS, min(MOST_ROWS, most))
        everything = [*self.calls, *self.sums]
        self.taken = everything
        self.inside = {b for c in self.calls for b in c.writes if links.is_for(b, everything)}
        self.panels = {b for c in everything for b in c.buffers if b.per_thread}

    def stored(self, links: _Links) -> set[Buffer]:
        """Matrices that go to memory for nobody but calls that come later."""
        return {b for c in self.calls for b in c.writes - self.inside if b not in links.kept and self.is_matrix(b)}

    def is_matrix(self, buffer: Buffer) -> bool:
        """Whether a buffer is as large as the weights, which are long in two directions where sizes are unknown."""
        return typical(buffer.bytes, LONG) >= typical(self.weights.bytes, LONG)

    def begin_with(self, calls: Sequence[Call]) -> None:
        """Make again what these calls, of an earlier chain, have made, instead of reading it."""
        new = {b: Buffer(b.name, b.bytes, per_thread=b.per_thread) for c in calls for b in c.writes}
        self.calls = [c for c in with_buffers([*calls, *self.calls], new) if isinstance(c, Call)]
        self.sums = [c for c in with_buffers(self.sums, new) if isinstance(c, Call)]
        self.inside |= set(new.values())
        self.panels |= {b for b in new.values() if b.per_thread}

    def known(self) -> Known:
        return Known({}, {b for c in self.calls for b in c.writes}, set(), {}, self.tables, self.before)

    def take(self, links: _Links, matrices: Collection[Buffer]) -> Collection[Buffer]:
        """Take in what else is done with the same matrices, and with what comes of it. Gives all matrices."""
        cut, known = Cut(self.axes, 1), self.known()
        cut_calls(self.calls, cut, known)
        tried: set[Step] = set()
        while new := [c for c in links.beside([*self.calls, *self.sums], matrices) if c not in tried]:
            for call in new:
                tried.add(call)
                trial = known.copy([*matrices, *call.writes])
                try:
                    along = self.along(call, cut, trial)
                except NotCut:
                    continue
                known = trial
                if along == "k":
                    self.sums.append(call)
                else:
                    self.calls.append(call)
                    matrices = {*matrices, *filter(self.is_matrix, call.writes)}
                    break       # others may have to wait for this one
        self.calls.sort(key=links.steps.index)
        return matrices

    def along(self, call: Call, cut: Cut, known: Known) -> str:
        """The axis along which a call can be cut. Raises NotCut."""
        try:
            cut_call(call, cut, trial := known.copy([]))
            _require_rows(call.writes, trial)
        except NotCut:
            if not isinstance(call.kernel, ContractKernel):
                raise
            cut_call(call, cut, known, "k")
            return "k"
        known.steps, known.views = trial.steps, trial.views
        return "m"

    def steps(self) -> list[Step]:
        """What is done before the loop, and the loop; with sums, more than that."""
        copies: list[Step] = []
        made = {b for c in self.calls for b in c.writes}
        for k, call in enumerate(self.calls):
            if isinstance(call.kernel, ContractKernel):
                before, self.calls[k] = in_order(call, made)
                copies += before
        if self.sums:
            return [*copies, *self.summing()]
        cut = Cut(self.axes, part_size(self.axes[-1], self.most))
        calls, known = self.cut(cut)
        own_parts(self.inside | self.panels, cut, known)
        parts = {b: self.part(b, steps, cut.part) for b, steps in self.moved(known)}
        return [*self.before, *copies, self.shared(cut.count, with_buffers(calls, self.mapping(parts)), parts)]

    def places(self) -> dict[Buffer, Buffer]:
        """Matrices that are only needed here -> those in whose memory they may be made."""
        found: dict[Buffer, Buffer] = {}
        for call in self.calls:
            mine = self.inside - self.panels
            others = {b for c in (*self.calls, *self.sums) if c is not call for b in c.reads} | set(found.values())
            made = {b for c in self.calls if c is not call for b in c.writes}
            for matrix in [b for b in call.buffers if b in call.writes & mine and isinstance(call.kernel, LoopKernel)]:
                free = (b for b in call.buffers if b in made & mine - others and b.bytes == matrix.bytes)
                scores = next((b for b in free if self.fits_in_place(call, matrix, b)), None)
                if scores is not None:
                    found[matrix] = found.get(scores, scores)
                    others.add(scores)
        return found

    def fits_in_place(self, call: Call, weights: Buffer, scores: Buffer) -> bool:
        """Whether the weights may be made in the memory of the scores: once a weight, or what becomes one, is stored, the
        score at the same place is not looked at any more.
        """
        kernel, form, stored = call.kernel, set(), False
        assert isinstance(kernel, LoopKernel)
        for section in (kernel.before, *(part for phase in kernel.phases for part in (phase.body, phase.after))):
            for statement in section:
                if isinstance(statement, Load | Store):
                    buffer = call.buffers[kernel.buffers.index(statement.access.buffer)]
                    if buffer in (scores, weights):
                        form.add((statement.access.strides, statement.access.offset, statement.access.dtype))
                    if stored and buffer is scores:
                        return False
                    stored |= buffer is weights and isinstance(statement, Store)
        return len(form) == 1

    def cut(self, cut: Cut) -> tuple[list[Call], Known]:
        """The calls of one part. Raises NotCut."""
        known = self.known()
        known.inside = self.inside | self.panels
        calls = cut_calls(self.calls, cut, known)
        _require_rows(known.own, known)
        return calls, known

    def moved(self, known: Known) -> list[tuple[Buffer, Steps]]:
        """The buffers of which an iteration has another part, and views."""
        return [(b, steps) for b, steps in known.steps.items()
                if b not in self.inside | self.panels and (any(s != 0 for s in steps) or isinstance(b, View))]

    def mapping(self, parts: Mapping[Buffer, Buffer]) -> dict[Buffer, Buffer]:
        return {**parts, **self.places()}

    def part(self, buffer: Buffer, steps: Steps, rows: Size) -> Part:
        """The part of a buffer that an iteration works on: so many rows."""
        outer, inner, step = (0, 0, *steps)[-LEADS - 1:]
        size = rows * step if step != 0 else buffer.bytes
        return Part(buffer.whole if isinstance(buffer, View) else buffer, size, outer, inner, rows * step)

    def shared(self, count: Size, body: Sequence[Step], parts: Mapping[Buffer, Part]) -> Loop:
        """A loop over so many parts of the rows at each place of the axes before them."""
        leads = (1, 1, *self.axes[:-1])[-LEADS:]
        return Loop([], None, list(body), count * dims.product(leads), False, list(parts.values()), Buffer("count", 8),
                    Buffer("run", 8), shares=Shares(count, *leads))

    # sums over the rows ------------------------------------------------------------------------------------------------

    def summing(self) -> list[Step]:
        """The steps of a chain with products that sum over its rows.

        The rows are in groups, each of parts. The sums of a group's parts are added up in order; then those of the groups. How
        many there are depends on sizes alone. A few rows that no part takes are done at the end, as a part of the first group.
        """
        rows, leads = self.axes[-1], dims.product(self.axes[:-1])
        groups = max(1, min(GROUPS // max(1, typical(leads)), typical(rows) // self.most))
        each = dims.maximum(1, dims.floordiv(rows + self.most * groups - 1, self.most * groups))
        part = dims.floordiv(rows, each * groups)
        rest = rows - part * each * groups
        sums, totals = [], []
        for call in self.sums:
            partial = Buffer(f"{call.kernel.name}_sums", groups * results(call).bytes)
            sums.append(adding(call, partial))
            totals.append(total(call, partial, groups))
        cut = Cut(self.axes, part, True, None if rest == 0 else 0)
        main, known = self.group_loop(cut, sums, groups, each)
        own_parts(self.inside | self.panels, cut, known, dims.maximum(part, rest))
        steps: list[Step] = [main]
        if rest != 0:
            cut = Cut(self.axes, rest, True, part * each * groups)
            calls, known = self.cut(cut)
            calls += [cut_call(c, cut, known, "k") for c in sums]
            parts = {b: self.part(b, steps, 0) for b, steps in self.moved(known)}
            steps.append(self.shared(1, with_buffers(calls, self.mapping(parts)), parts))
        return [*self.before, *steps, *totals]

    def group_loop(self, cut: Cut, sums: Sequence[Call], groups: int, each: Size) -> tuple[Loop, Known]:
        """The loop over groups, in which each thread goes through the parts of one by itself."""
        calls, known = self.cut(cut)
        calls += [cut_call(c, cut, known, "k") for c in sums]
        parts = {b: self.part(b, steps, cut.part * each) for b, steps in self.moved(known)}
        zeros: list[Step] = []
        for call in sums:
            partial, type_ = call.buffers[-1], results(call)
            one = parts[partial] = self.part(partial, known.steps[partial], 0)
            one.step = type_.bytes
            zeros.append(fill_call(type_.with_shape(type_.shape[-2:]), 0, one))
        rows = {b: Row(f"{b.name}_row", cut.part * known.steps[b][-1], p, cut.part * known.steps[b][-1])
                for b, p in parts.items() if known.steps[b][-1] != 0}
        body = with_buffers(calls, self.mapping({**parts, **rows}))
        count, run = (Buffer(name, OWN_WORDS, per_thread=True) for name in ("count", "run"))
        inner = Loop([], None, body, each, False, list(rows.values()), count, run)
        return self.shared(groups, [*zeros, inner], parts), known


def _require_rows(buffers: Collection[Buffer], known: Known) -> None:
    if any(known.steps[b][-1] == 0 for b in buffers if not b.per_thread):
        raise NotCut("a result is not made row by row")


def in_order(call: Call, parts: Collection[Buffer]) -> tuple[list[Call], Call]:
    """The product with its second operand in the order in which it is packed: each part packs it again. Before it, a copy, if
    the operand is none of the buffers that are made in parts.
    """
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
    read = call.buffers[kernel.buffers.index(access.buffer)]
    if value(access.stride("n")) == 1 or read in parts:
        return [], call
    axes = [(name, size) for name, size in (*kernel.batch, ("k", kernel.k), ("n", kernel.n)) if value(access.stride(name)) != 0]
    type_ = TensorType(BY_SHORT[access.dtype], tuple(value(size) for _, size in axes))
    copied = Buffer(f"{kernel.name}_across", type_.bytes)
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
