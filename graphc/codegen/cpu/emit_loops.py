"""The source of loop kernels: a skeleton of plain loops around traced vector bodies."""
from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from graphc.codegen.cpu.blocks import from_blocks, with_rooms
from graphc.codegen.cpu.bodies import HELPERS, Body, make_body, place
from graphc.codegen.cpu.simd_core import register_dtype
from graphc.codegen.cpu.source import KernelSource, Skeleton
from graphc.codegen.kernel import Access, Accumulator, Int, Literal, LoopKernel, Phase, Statement, Store, uses
from graphc.codegen.statements import needed_later

ROWS_IN_BLOCK = 256     # rows that are summed before the sum is added to the total, where lanes run across the rows
ITEMS_IN_BLOCK = 4096   # the same where lanes run along them


def emit_loops(kernel: LoopKernel, lanes: int) -> KernelSource:
    """The source of a loop kernel for vectors of `lanes` elements."""
    return LoopEmitter(kernel, lanes).emit()


class LoopEmitter:
    """Writes the skeleton of a kernel and its bodies."""

    def __init__(self, kernel: LoopKernel, lanes: int):
        self.kernel, self.lanes = kernel, lanes
        self.along = any(kernel.vector == a for a, _ in kernel.reduced)
        self.skeleton = Skeleton(kernel, lanes)
        self.dtypes = {s.name: register_dtype(s.dtype) for s in self.all_statements() if hasattr(s, "dtype")}
        for phase in kernel.phases:
            for a in phase.accumulators:
                self.dtypes[a.name] = a.dtype
                self.dtypes[a.position] = "i64"
        axes = [a for a, _ in (*kernel.parallel, *kernel.reduced)] + ["item"]
        self.integers = [*axes, *kernel.buffers, *kernel.sizes, "error", "record"]
        self.vectors = list(self.dtypes)
        self.rooms: dict[str, int] = {}     # the code that makes one -> its bytes

    def all_statements(self) -> list[Statement]:
        found = list(self.kernel.before)
        for phase in self.kernel.phases:
            found += [*phase.body, *phase.after]
        return found

    def emit(self) -> KernelSource:
        kernel = self.kernel
        if not kernel.phases:
            self.elementwise()
        elif kernel.chunk:
            self.chunks()
        elif self.along:
            self.rows()
        else:
            self.columns()
        return with_rooms(self.skeleton.source(HELPERS), self.rooms)

    # bodies ------------------------------------------------------------------------------------------------------------

    def literals(self, statements) -> list[Statement]:
        """Literals of other sections that these statements take: they are written again, at no cost."""
        known = {s.name for s in statements if getattr(s, "name", "")}
        wanted = {u for s in statements for u in taken_by(s)} - known
        found = {s.name: s for s in self.all_statements() if isinstance(s, Literal) and s.name in wanted}
        return list(found.values())

    def section(self, name: str, statements, results=(), first=(), last=(), masked=True, extra=(),
                wide: int = 1, hidden=()) -> Body:
        """The body of these statements. hidden: values that do not come from outside."""
        statements = [*self.literals([*statements, *extra]), *statements]
        vectors = [v for v in self.vectors if v not in hidden]
        body = make_body(name, statements, self.kernel.vector, self.integers, vectors,
                         [(r, self.dtypes[r]) for r in results], first, last, masked, wide)
        self.skeleton.bodies.append(body)
        return body

    def row_results(self) -> list[list[str]]:
        """What each row section (before, after phase 0, ...) hands on to later sections."""
        sections: list = [self.kernel.before]
        for phase in self.kernel.phases:
            uses_of_accumulators = [Use(a.value) for a in phase.accumulators]
            sections += [[*phase.body, *uses_of_accumulators], phase.after]
        later = needed_later(sections)
        literal = {s.name for s in self.all_statements() if isinstance(s, Literal)}
        result = []
        for k, section in enumerate(later):
            if k % 2 == 0:
                accumulators = self.accumulator_names(self.kernel.phases[k // 2 - 1]) if k else []
                taken = {u for s in sections[k + 1:] for statement in s for u in taken_by(statement)}
                result.append([n for n in [*section, *(a for a in accumulators if a in taken)] if n not in literal])
        return result

    @staticmethod
    def accumulator_names(phase: Phase) -> list[str]:
        return [n for a in phase.accumulators for n in ((a.name, a.position) if a.arg else (a.name,))]

    def combine_lines(self, phase: Phase, masked: bool, wide: int = 1) -> list[str]:
        lines = []
        if wide > 1:
            return [line for a in phase.accumulators for line in _combined_parts(a, wide)]
        for a in phase.accumulators:
            if a.arg:
                axis = self.kernel.reduced[-1][0]
                position = f"ramp_i64({axis}, 1)" if self.along else f"splat_i64({axis})"
                lines.append(f"better, place_ = better_{a.arg}({a.name}, {a.position}, {a.value}, {position})")
                pairs = [(a.name, "better"), (a.position, "place_")]
            else:
                lines.append(f"better = {a.combine.format(acc=a.name, x=a.value)}")
                pairs = [(a.name, "better")]
            for name, new in pairs:
                lines.append(f"{name} = {new} if mask is None else select(mask, {new}, {name})" if masked
                             else f"{name} = {new}")
        return lines

    def phase_body(self, number_: int, phase: Phase) -> Body:
        names = self.accumulator_names(phase)
        return self.section(f"phase{number_}", phase.body, names, last=self.combine_lines(phase, self.along),
                            extra=[Use(a.value) for a in phase.accumulators])

    def wide_body(self, number_: int, phase: Phase) -> Body | None:
        """The body of a phase on several vectors at once, if the kernel wants it."""
        if self.kernel.wide == 1:
            return None
        return self.section(f"wide{number_}", phase.body, self.accumulator_names(phase), masked=False, wide=self.kernel.wide,
                            last=self.combine_lines(phase, False, self.kernel.wide),
                            extra=[Use(a.value) for a in phase.accumulators])

    def join_body(self, number_: int, phase: Phase) -> Body:
        """Adds the accumulators of a block, called `<name>_block`, to the totals."""
        lines = []
        for a in phase.accumulators:
            if a.arg:
                lines.append(f"{a.name}, {a.position} = better_{a.arg}({a.name}, {a.position}, {a.name}_block, "
                             f"{a.position}_block)")
            else:
                lines.append(f"{a.name} = {a.combine.format(acc=a.name, x=a.name + '_block')}")
        names = self.accumulator_names(phase)
        body = make_body(f"join{number_}", [], "", [], [*names, *(f"{n}_block" for n in names)],
                         [(n, self.dtypes[n]) for n in names], last=lines, masked=False)
        self.skeleton.bodies.append(body)
        return body

    def after_body(self, number_: int, phase: Phase, results) -> Body:
        return self.section(f"after{number_}", phase.after, results, first=self.horizontal_lines(phase))

    def horizontal_lines(self, phase: Phase) -> list[str]:
        if not self.along:
            return []
        return [f"{a.name}, {a.position} = horizontal_arg{a.arg}({a.name}, {a.position})" if a.arg
                else f"{a.name} = {a.horizontal}({a.name})" for a in phase.accumulators]

    # skeletons ---------------------------------------------------------------------------------------------------------

    def elementwise(self) -> None:
        kernel, s = self.kernel, self.skeleton
        if any(map(kernel.is_turned, kernel.before)):
            self.blocks()
            return
        body = self.section("each", kernel.before)
        wide = self.section("wide", kernel.before, masked=False, wide=kernel.wide) if kernel.wide > 1 else None
        *outer, (axis, size) = kernel.parallel
        s.line(f"whole = {size} // {self.lanes} * {self.lanes}")
        if outer:
            self.open_rows(outer)
            self.vectors_of(axis, "0", "whole", body, wide)
            s.open(f"if whole < {size}:")
            s.line(f"{axis} = whole")
            s.call(body, count=f"{size} - whole")
            return
        s.line(f"begin = whole // {self.lanes} * thread // threads * {self.lanes}")
        s.line(f"end = whole // {self.lanes} * (thread + 1) // threads * {self.lanes}")
        self.vectors_of(axis, "begin", "end", body, wide)
        s.open(f"if thread == threads - 1 and whole < {size}:")
        s.line(f"{axis} = whole")
        s.call(body, count=f"{size} - whole")

    def blocks(self) -> None:
        """Lanes read across: blocks of lanes x lanes elements are turned into a room on the stack, and read from there."""
        kernel, s, lanes = self.kernel, self.skeleton, self.lanes
        (axis, size), (turned, length) = kernel.parallel[-1], next(x for x in kernel.parallel if x[0] == kernel.turned)
        statements, blocks = from_blocks(kernel.before, kernel.is_turned, axis, turned, lanes)
        self.integers += blocks.names
        each, fill = self.section("each", statements), blocks.body("turn", self.integers)
        s.bodies.append(fill)
        blocks.make(s)
        s.line(f"blocks = ({length} + {lanes - 1}) // {lanes}")
        s.line(f"columns = ({size} + {lanes - 1}) // {lanes}")
        s.rows([*(x for x in kernel.parallel[:-1] if x[0] != turned), ("block", "blocks"), ("column", "columns")])
        s.line(f"{axis} = column * {lanes}")
        s.line(f"{turned} = block * {lanes}")
        s.line(f"across = {size} - {axis}")
        s.minimum("along", f"{length} - {turned}", str(lanes))
        blocks.locate(s)
        s.line(f"stop = {turned} + along")
        blocks.walk(s, fill, each, "stop")
        self.rooms = blocks.rooms

    def vectors_of(self, axis: str, first: str, last: str, body: Body, wide: Body | None, suffix: str = "",
                   streams: bool = True) -> None:
        """The loop over whole vectors from `first` to `last`: by several at once as long as there are so many."""
        s, main = self.skeleton, wide or body
        step = self.lanes * main.wide
        streamed = _streamed(main) if self.kernel.stream and streams else None
        if wide or streamed:
            s.line(f"{axis} = {first}")
            s.line(f"several = {axis} + ({last} - {axis}) // {step} * {step}")
        if streamed:
            s.bodies.append(streamed)
            s.open(f"if {self.kernel.stream} > 0:")
            s.loop(axis, axis, "several", step)
            s.call(streamed, suffix=suffix)
            s.close()
            s.close()
        if wide:
            s.loop(axis, axis, "several", step)
            s.call(wide, suffix=suffix)
            s.close()
        s.loop(axis, axis if wide or streamed else first, last, self.lanes)
        s.call(body, suffix=suffix)
        s.close()

    def start(self, phase: Phase, suffix: str = "", named: Callable[[str], str] = str) -> None:
        for a in phase.accumulators:
            self.skeleton.splat(named(a.name) + suffix, a.dtype, a.init)
            if a.arg:
                self.skeleton.splat(named(a.position) + suffix, "i64", 0)

    def rows(self) -> None:
        """Lanes along the last reduced axis; a work item is a point of the parallel axes."""
        kernel, s = self.kernel, self.skeleton
        for buffer, size in kernel.scratch:
            s.line(f"{buffer} = {buffer} + thread * {size}")
        results = self.row_results()
        before = self.section("before", kernel.before, results[0])
        self.open_rows(kernel.parallel)
        s.call(before)
        for k, phase in enumerate(kernel.phases):
            self.row_pass(k, phase, "0", kernel.reduced[0][1])
            if phase.accumulators or phase.after:
                s.call(self.after_body(k, phase, results[k + 1]))

    def open_rows(self, axes: Sequence[tuple[str, Int]]) -> None:
        """Open the loop over this thread's points of `axes`; with blocks, over its blocks, and over the points of each."""
        if not self.kernel.block:
            self.skeleton.rows(axes)
            return
        self.open_blocks(axes)
        self.skeleton.rows(axes, ("item_start", "item_stop"))

    def open_blocks(self, axes: Sequence[tuple[str, Int]]) -> None:
        """Open the loop over this thread's blocks, each from point `item_start` to `item_stop`."""
        kernel, s = self.kernel, self.skeleton
        s.line(f"points = {' * '.join(str(size) for _, size in axes)}")
        s.line(f"items = (points + {kernel.block} - 1) // {kernel.block}")
        s.rows([("item", "items")])
        for k, access in enumerate(kernel.sums):
            self.clear(k, access)
        s.line(f"item_start = item * {kernel.block}")
        s.minimum("item_stop", f"item_start + {kernel.block}", "points")

    def clear(self, number_: int, access: Access) -> None:
        """Zeros in an item's row of sums."""
        s, size = self.skeleton, access.stride("item")
        own = Access(access.buffer, access.dtype, (("item", size), ("column", 1)))
        statements: list[Statement] = [Literal("zero", access.dtype, 0), Store("zero", own)]
        body = make_body(f"clear{number_}", statements, "column", [*self.integers, "column"], [], [])
        s.bodies.append(body)
        s.line(f"columns = {size} // {self.lanes} * {self.lanes}")
        s.loop("column", "0", "columns", self.lanes)
        s.call(body)
        s.close()
        s.open(f"if columns < {size}:")
        s.line("column = columns")
        s.call(body, count=f"{size} - columns")
        s.close()

    def row_pass(self, k: int, phase: Phase, start: str, stop) -> None:
        """The loops over the reduced axes, the last one by vectors; the first one from `start` to `stop`."""
        kernel, s = self.kernel, self.skeleton
        body = self.phase_body(k, phase)
        blocked = kernel.blocked and phase.accumulators
        self.start(phase)
        depth = len(s.indents)
        for position, (axis, size) in enumerate(kernel.reduced[:-1]):
            s.loop(axis, *((start, stop) if position == 0 else (0, size)))
        axis, size = kernel.reduced[-1]
        first, last = (start, stop) if len(kernel.reduced) == 1 else ("0", size)
        suffix = ""
        if blocked:
            join = self.join_body(k, phase)
            s.loop("block", first, last, ITEMS_IN_BLOCK)
            s.minimum(f"stop{k}", f"block + {ITEMS_IN_BLOCK}", str(last))
            first, last, suffix = "block", f"stop{k}", "_block"
            self.start(phase, suffix)
        streams = bool(kernel.stream) and (not kernel.parallel or k == len(kernel.phases) - 1)
        if streams and kernel.parallel:
            first = self.to_line(body, axis)
        s.line(f"whole = {last} // {self.lanes} * {self.lanes}" if first == "0" else
               f"whole = {first} + ({last} - {first}) // {self.lanes} * {self.lanes}")
        self.vectors_of(axis, first, "whole", body, self.wide_body(k, phase), suffix, streams)
        s.open(f"if whole < {last}:")
        s.line(f"{axis} = whole")
        s.call(body, count=f"{last} - whole", suffix=suffix)
        s.close()
        if blocked:
            s.call(join)
        s.close_to(depth)

    def to_line(self, body: Body, axis: str) -> str:
        """Do the elements before the first line of memory of a row's results, where these bypass the caches; the name of the
        first one after them.
        """
        kernel, s = self.kernel, self.skeleton
        store = next(t for t in kernel.phases[-1].body if isinstance(t, Store) and t.action != "sum")
        before = place(store.access.offset, [(a, n) for a, n in store.access.strides if a != axis])
        s.line("head = 0")
        s.open(f"if {kernel.stream} > 0:")
        s.line(f"head = (0 - ({before})) % {self.lanes}")
        s.line(f"{axis} = 0")
        s.call(body, count="head")
        s.close()
        return "head"

    def columns(self) -> None:
        """Lanes along the last parallel axis; the reduced axes are walked one step at a time, by `wide` vectors at once."""
        kernel, s = self.kernel, self.skeleton
        results = self.row_results()
        before = self.section("before", kernel.before, results[0])
        *outer, (axis, size) = kernel.parallel
        together = [self.column_names(axis, w) for w in range(kernel.wide)] if kernel.wide > 1 else [str]
        s.line(f"blocks = ({size} + {kernel.wide * self.lanes - 1}) // {kernel.wide * self.lanes}")
        s.rows([*outer, ("column", "blocks")])
        for w, named in enumerate(together):
            s.line(f"{named(axis)} = column * {kernel.wide * self.lanes}" + (f" + {w * self.lanes}" if w else ""))
            s.line(f"{named('live')} = {size} - {named(axis)}")

        def each(body: Body, suffix: str = "") -> None:
            for named in together:
                s.call(body, named("live"), suffix, named)

        each(before)
        for k, phase in enumerate(kernel.phases):
            body = self.phase_body(k, phase)
            blocked = kernel.blocked and phase.accumulators
            for named in together:
                self.start(phase, named=named)
            depth = len(s.indents)
            for r, n in kernel.reduced[:-1]:
                s.loop(r, 0, n)
            r, n = kernel.reduced[-1]
            if blocked:
                join = self.join_body(k, phase)
                s.loop("block", 0, n, ROWS_IN_BLOCK)
                for named in together:
                    self.start(phase, "_block", named)
                s.minimum(f"stop{k}", f"block + {ROWS_IN_BLOCK}", str(n))
                s.loop(r, "block", f"stop{k}")
            else:
                s.loop(r, 0, n)
            each(body, "_block" if blocked else "")
            s.close()
            if blocked:
                for named in together:
                    s.call(join, named=named)
            s.close_to(depth)
            if phase.accumulators or phase.after:
                each(self.after_body(k, phase, results[k + 1]))

    def column_names(self, axis: str, number_: int) -> Callable[[str], str]:
        """What names are called for one of several vectors that are walked together: all that differ between these."""
        own = {axis, "live", *self.vectors}

        def named(name: str) -> str:
            base = name.removesuffix("_block")
            return f"{base}_{number_}{name[len(base):]}" if base in own else name
        return named

    def chunks(self) -> None:
        """A whole-array reduction: a work item is a chunk of the first reduced axis."""
        kernel, s = self.kernel, self.skeleton
        results = self.row_results()
        phase = kernel.phases[0]
        size = kernel.reduced[0][1]
        before = self.section("before", kernel.before, results[0])
        s.line(f"items = ({size} + {kernel.chunk - 1}) // {kernel.chunk}")
        s.rows([("item", "items")])
        s.call(before)
        s.line(f"start = item * {kernel.chunk}")
        s.minimum("stop", f"start + {kernel.chunk}", str(size))
        self.row_pass(0, phase, "start", "stop")
        s.call(self.after_body(0, phase, ()))


class Use:
    """Says that a section takes a value."""

    name = ""

    def __init__(self, value: str):
        self.value = value


def taken_by(statement) -> tuple[str, ...]:
    """The names of values that a statement, or a section by `Use`, takes."""
    return (statement.value,) if isinstance(statement, Use) else uses(statement)


def _combined_parts(a: Accumulator, parts: int) -> list[str]:
    """An accumulator combined with each register of its value: one after the other, so that a sum does not depend on how many
    there are; where the order is all the same, these first among themselves.
    """
    taken = [f"part({a.value}, {k}, {parts})" for k in range(parts)]
    if a.in_any_order:
        while len(taken) > 1:
            taken = [a.combine.format(acc=x, x=y) for x, y in zip(taken[::2], taken[1::2], strict=True)]
    return [f"{a.name} = {a.combine.format(acc=a.name, x=x)}" for x in taken]


def _streamed(body: Body) -> Body | None:
    """The body with stores that bypass the caches; None when it has none."""
    pattern = re.compile(r"^store_(\w+)\((.*), mask\)$")
    lines = [pattern.sub(r"stream_\1(\2)", line) for line in body.lines]
    if lines == body.lines:
        return None
    return Body(f"{body.name}_stream", lines, body.results, body.vectors, body.parameters, body.wide)
