"""Sums down the columns that a loop over the rows makes on its way: the gradients by scale and offset of a normalisation.

Of two kernels, one goes along the rows and another sums columns of what the first reads or makes. The first then adds each row
to partial sums, which stay in the nearest cache: one row of them for a block of rows. The second adds up those of all blocks
and does the rest. So nothing is read twice, and what only the sums need is never in memory. Blocks depend on sizes alone.
"""
from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from graphc.codegen.column_walks import along_rows, compact, one_by_one, walks_columns
from graphc.codegen.control import Step
from graphc.codegen.kernel import (
    Access,
    Compute,
    Coordinate,
    Int,
    Literal,
    Load,
    LoopKernel,
    Phase,
    Statement,
    Store,
    statements,
)
from graphc.codegen.lower import Buffer, Call
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.types import BY_SHORT
from graphc.passes.regions import contiguous

LARGE = 1 << 14         # elements: of fewer, nothing leaves the near caches
LEAST_ROWS = 8          # of a block
MOST_ROWS = 64          # of a block: its sums then cost memory a sixtieth of what the rows do
LEAST_BLOCKS = 64       # where blocks have more rows than the least
MOST_STATEMENTS = 120   # of a loop that makes sums on its way
_WORD = re.compile(r"[A-Za-z_]\w*")
Place = tuple[Buffer, str, frozenset, Size]


class NotSwept(Exception):
    """Two kernels stay as they are; the text says why."""


def swept(steps: Sequence[Step], kept: Collection[Buffer]) -> list[Step]:
    """The steps, in which loops over rows make the sums that others would read the same rows for. kept: buffers that others
    need.
    """
    found: list[Step] = []
    for step in steps:
        found += one_by_one(step) if isinstance(step, Call) and walks_columns(step) else [step]
    for sums in [s for s in found if isinstance(s, Call) and _sums_columns(s)]:
        hosts = [s for s in found if isinstance(s, Call) and s is not sums and isinstance(s.kernel, LoopKernel)
                 and not s.kernel.chunk and not s.failures and (s.reads | s.writes) & sums.reads]
        for host in sorted(hosts, key=lambda h: not h.writes & sums.reads):     # first what need not be stored any more
            try:
                first, second = _Sweep(host, sums, found, kept).calls()
            except NotSwept:
                continue
            at, end = found.index(host), found.index(sums)
            found[at] = first
            if at < end:
                found[end] = second
            else:
                found.insert(at + 1, second)
                del found[end]
            break
    for step in [s for s in found if isinstance(s, Call) and walks_columns(s)]:
        at = found.index(step)
        found[at:at + 1] = _alone(step)
    return found


def _alone(call: Call) -> tuple[Call, Call]:
    """Two calls for one that walks down columns once: what goes along the rows, and what adds up its sums."""
    kernel = call.kernel
    assert isinstance(kernel, LoopKernel)
    body = [*kernel.before, *kernel.phases[0].body]
    if not any(isinstance(s, Store) for s in body):
        body = [s for s in body if isinstance(s, Load)]
    rows = replace(call, kernel=along_rows(kernel, body))
    return _Sweep(rows, call, [rows, call], call.buffers).calls()


def _sums_columns(call: Call) -> bool:
    """Whether a call only sums, over the outer axes of a large domain, and does something with the sums."""
    kernel = call.kernel
    if not isinstance(kernel, LoopKernel) or call.failures or kernel.chunk or kernel.block or len(kernel.phases) != 1 \
            or not kernel.parallel or kernel.vector != kernel.parallel[-1][0]:
        return False
    phase, elements = kernel.phases[0], dims.product(call.size(n) for _, n in (*kernel.parallel, *kernel.reduced))
    return bool(phase.accumulators) and (not isinstance(elements, int) or elements > LARGE) and \
        all(a.horizontal == "horizontal_add" and not a.arg and a.dtype in ("f32", "f64") for a in phase.accumulators) and \
        all(_is_plain(s) and not isinstance(s, Store) for s in (*kernel.before, *phase.body))


def _is_plain(s: Statement) -> bool:
    return isinstance(s, Literal | Coordinate | Compute) or isinstance(s, Load | Store) and not s.index and \
        not (isinstance(s, Load) and s.where)


class _Sweep:
    """One pair of kernels."""

    def __init__(self, host: Call, sums: Call, steps: Sequence[Step], kept: Collection[Buffer]):
        self.host, self.sums, self.steps, self.kept = host, sums, steps, kept
        a, b = host.kernel, sums.kernel
        assert isinstance(a, LoopKernel) and isinstance(b, LoopKernel)
        self.kernel, self.column_kernel = a, b
        self.rows, self.columns = self.matched()
        self.names, self.numbers, self.buffers = list(a.sizes), list(host.sizes), list(host.buffers)
        self.check_order()

    # whether they fit --------------------------------------------------------------------------------------------------

    def matched(self) -> tuple[dict[str, str], dict[str, str]]:
        """Axes of the sums' kernel -> axes of the host: those that are summed, and the others."""
        a, b = self.kernel, self.column_kernel
        if a.turned or a.together and len(a.parallel) > 1:
            raise NotSwept("other items")
        if a.item_bytes != b.item_bytes or a.reduced and a.vector != a.reduced[-1][0] or \
                not a.reduced and a.vector != a.parallel[-1][0] or \
                sum(1 for k in (a, b) for _ in statements(k)) > MOST_STATEMENTS:
            raise NotSwept("other lanes")
        rows = a.parallel if a.reduced else a.parallel[:len(b.reduced)]
        columns = a.reduced if a.reduced else a.parallel[len(b.reduced):]
        found: list[dict[str, str]] = []
        for own, others in ((b.reduced, rows), (b.parallel, columns)):
            if [self.sums.size(n) for _, n in own] != [self.host.size(n) for _, n in others] or not own:
                raise NotSwept("other sizes")
            found.append({name: other for (name, _), (other, _) in zip(own, others, strict=True)})
        return found[0], found[1]

    def check_order(self) -> None:
        """Whether the sums may be made where the host is."""
        at, end = self.steps.index(self.host), self.steps.index(self.sums)
        between = self.steps[min(at, end) + 1:max(at, end)]
        if any(s.writes & self.sums.reads for s in between):
            raise NotSwept("what they sum changes")
        if at > end and any(s.reads & self.sums.writes or s.writes & self.sums.writes for s in (*between, self.host)):
            raise NotSwept("they are needed before")

    # places ------------------------------------------------------------------------------------------------------------

    def place(self, call: Call, access: Access, axes: Mapping[str, str]) -> Place:
        """What is addressed, over the axes of the host."""
        strides = frozenset((axes.get(axis, axis), call.size(stride)) for axis, stride in access.strides)
        return call.buffers[call.kernel.buffers.index(access.buffer)], access.dtype, strides, call.size(access.offset)

    def sections(self) -> list[tuple[Statement, ...]]:
        """The host's sections: what comes before all passes, each pass, what comes after it."""
        return [self.kernel.before, *(part for p in self.kernel.phases for part in (p.body, p.after))]

    def values(self) -> tuple[int, dict[Place, str]]:
        """(the section in which the sums are made, what the host knows there by place)."""
        needed = {self.place(self.sums, s.access, self.rows | self.columns) for s in self.moved() if isinstance(s, Load)}
        full = {p for p in needed if {axis for axis, _ in p[2]} & set(self.rows.values())
                and {axis for axis, _ in p[2]} & set(self.columns.values())}
        stored: dict[Place, tuple[int, str]] = {}
        loaded: list[dict[Place, str]] = []
        for k, part in enumerate(self.sections()):
            loaded.append({})
            for s in part:
                if isinstance(s, Load) and _is_plain(s):
                    loaded[k].setdefault(self.place(self.host, s.access, {}), s.name)
                elif isinstance(s, Store) and _is_plain(s):
                    stored[self.place(self.host, s.access, {})] = k, s.value
        made = {p: stored[p] for p in needed if p in stored}
        if any(p[0] in self.host.writes and p not in made for p in needed):
            raise NotSwept("the host stores something else there")
        inside = range(1, len(loaded), 2) if self.kernel.phases else [0]
        chosen = {made[p][0] for p in full if p in made} or {k for k in inside if full & set(loaded[k])}
        if not full or not chosen or any(p not in made and not any(p in found for found in loaded) for p in full):
            raise NotSwept("they sum something else")
        section = max(chosen)
        if section not in inside or any(k != section if p in full else k >= section for p, (k, _) in made.items()):
            raise NotSwept("it is not known at one time")
        return section, loaded[section] | {p: name for p, (_, name) in made.items()}

    def moved(self) -> list[Statement]:
        """The statements that the sums take."""
        kernel = self.column_kernel
        wanted = {a.value for a in kernel.phases[0].accumulators}
        found: list[Statement] = []
        for s in reversed([*kernel.before, *kernel.phases[0].body]):
            if s.name in wanted:
                found.append(s)
                wanted |= set(s.uses) if isinstance(s, Compute) else set()
        return found[::-1]

    # making ------------------------------------------------------------------------------------------------------------

    def calls(self) -> tuple[Call, Call]:
        """(the host that makes partial sums, what adds them up)."""
        section, known = self.values()
        axes, names = self.rows | self.columns, {}
        added: list[Statement] = []
        for s in self.moved():
            place = self.place(self.sums, s.access, axes) if isinstance(s, Load) else None
            if place in known:
                names[s.name] = known[place]
            else:
                names[s.name] = f"{s.name}c{len(self.kernel.sums)}"
                added.append(self.over_rows(s, names, axes))
        rows = dims.product(self.sums.size(n) for _, n in self.column_kernel.reduced)
        block = self.host.size(self.kernel.block) if self.kernel.block else \
            dims.maximum(LEAST_ROWS, dims.minimum(MOST_ROWS, dims.floordiv(rows, LEAST_BLOCKS)))
        blocks = dims.floordiv(rows + block - 1, block)
        sizes = [self.sums.size(n) for _, n in self.column_kernel.parallel]
        partials = {a.name: Buffer(f"partial_{a.name}", blocks * dims.product(sizes) * BY_SHORT[a.dtype].size)
                    for a in self.column_kernel.phases[0].accumulators}
        sums = []
        for a in self.column_kernel.phases[0].accumulators:
            along = zip(self.columns.values(), contiguous(sizes), strict=True)
            access = Access(self.buffer(partials[a.name]), a.dtype,
                            (("item", self.size(dims.product(sizes))), *((axis, self.size(n)) for axis, n in along)))
            sums.append(access)
            added.append(Store(names[a.value], access, action="sum"))
        return self.over_blocks(section, added, sums, block), self.finish(partials, blocks, sizes)

    def over_rows(self, s: Statement, names: Mapping[str, str], axes: Mapping[str, str]) -> Statement:
        """A statement of the sums' kernel in the host."""
        def strides(old: Sequence[tuple[str, Int]]) -> tuple[tuple[str, Int], ...]:
            return tuple((axes[axis], self.size(self.sums.size(n))) for axis, n in old)
        if isinstance(s, Compute):
            if any(size in _WORD.findall(s.text) for size in self.column_kernel.sizes):
                raise NotSwept("a size is computed with")
            text = _WORD.sub(lambda word: names[word.group()] if word.group() in s.uses else word.group(), s.text)
            return replace(s, name=names[s.name], text=text, uses=tuple(names[u] for u in s.uses))
        if isinstance(s, Coordinate):
            return replace(s, name=names[s.name], strides=strides(s.strides), offset=self.size(self.sums.size(s.offset)))
        if isinstance(s, Load):
            buffer = self.sums.buffers[self.column_kernel.buffers.index(s.access.buffer)]
            return replace(s, name=names[s.name], access=replace(
                s.access, buffer=self.buffer(buffer), strides=strides(s.access.strides),
                offset=self.size(self.sums.size(s.access.offset))))
        return replace(s, name=names[s.name])

    def buffer(self, buffer: Buffer) -> str:
        """The name of a buffer in the host."""
        if buffer not in self.buffers:
            self.buffers.append(buffer)
        return f"a{self.buffers.index(buffer)}"

    def size(self, value: Size) -> Int:
        """The name of a number in the host."""
        if isinstance(value, int) and value in (0, 1):
            return value
        own = range(len(self.kernel.sizes), len(self.names))
        found = next((self.names[k] for k in own if self.numbers[k] == value), None)
        if found is None:
            found = f"n{len(self.names)}"
            self.names.append(found)
            self.numbers.append(value)
        return found

    def over_blocks(self, section: int, added: Sequence[Statement], sums: Sequence[Access], block: Size) -> Call:
        """The host with these statements at the end of a section, without stores that nobody needs any more."""
        needless = {b for b in self.host.writes & self.sums.reads if b not in self.kept and not b.per_thread and
                    not any(b in s.reads for s in self.steps if s is not self.sums)}
        dropped = {f"a{self.host.buffers.index(b)}" for b in needless}
        parts = [tuple(s for s in part if not isinstance(s, Store) or s.access.buffer not in dropped)
                 for part in self.sections()]
        parts[section] = (*parts[section], *added)
        phases = tuple(replace(p, body=parts[2 * k + 1], after=parts[2 * k + 2]) for k, p in enumerate(self.kernel.phases))
        stream = self.kernel.stream
        if not any(isinstance(s, Store) and s.action != "sum" for s in (phases[-1].body if phases else parts[0])):
            stream = ""
        kernel = replace(self.kernel, before=parts[0], phases=phases, block=self.size(block), stream=stream,
                         sums=(*self.kernel.sums, *sums), buffers=tuple(f"a{k}" for k in range(len(self.buffers))),
                         sizes=tuple(self.names))
        read = {b for b in self.sums.reads if b in self.buffers and b not in needless and b not in self.host.writes}
        written = self.host.writes - needless | set(self.buffers[len(self.host.buffers):]) - self.sums.reads
        return compact(replace(self.host, kernel=kernel, buffers=tuple(self.buffers), sizes=tuple(self.numbers),
                               reads=self.host.reads | read, writes=frozenset(written),
                               operations=self.host.operations + self.sums.operations))

    def finish(self, partials: Mapping[str, Buffer], blocks: Size, sizes: Sequence[Size]) -> Call:
        """What the kernel of the sums did, on those of all blocks."""
        kernel, call = self.column_kernel, self.sums
        names, numbers = list(kernel.sizes), list(call.sizes)

        def size(value: Size) -> Int:
            if isinstance(value, int) and value == 1:
                return value
            names.append(f"n{len(names)}")
            numbers.append(value)
            return names[-1]
        phase, buffers = kernel.phases[0], [*call.buffers, *partials.values()]
        strides = (("r0", size(dims.product(sizes))),
                   *((axis, size(n)) for (axis, _), n in zip(kernel.parallel, contiguous(sizes), strict=True)))
        body = [Load(f"part{k}", Access(f"a{len(call.buffers) + k}", a.dtype, strides))
                for k, a in enumerate(phase.accumulators)]
        again = tuple(replace(a, value=f"part{k}") for k, a in enumerate(phase.accumulators))
        made = replace(kernel, name=f"{kernel.name}_blocks", reduced=(("r0", size(blocks)),), sizes=tuple(names),
                       buffers=tuple(f"a{k}" for k in range(len(buffers))),
                       phases=(Phase(tuple(body), again, phase.after),))
        operations = dims.product(sizes) * (blocks + len(phase.after))
        return compact(replace(call, kernel=made, buffers=tuple(buffers), sizes=tuple(numbers), operations=operations,
                               reads=call.reads | set(partials.values())))
