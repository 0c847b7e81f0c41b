"""Walks down the columns of large arrays, as those of batch normalization, in the order of memory.

A kernel that walks down a few columns at a time reads a short piece of each row, and a large array from far away each time. Cut
into one kernel for each walk, all go along the rows: sums are made in blocks of rows (see `column_sums`), and what follows from
them for each column waits in memory for the next walk.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graphc.codegen.kernel import (
    Access,
    Check,
    Coordinate,
    Int,
    Literal,
    Load,
    LoopKernel,
    Phase,
    Statement,
    Store,
    statements,
    uses,
)
from graphc.codegen.lower import Buffer, Call, typical
from graphc.ir import dims
from graphc.ir.types import BY_SHORT
from graphc.passes.regions import contiguous

WALKED = 1 << 20        # elements that no near cache holds
WIDE_ROW = 256          # elements of a row: of fewer, several columns at a time are all of it


def walks_columns(call: Call) -> bool:
    """Whether a call walks down the columns of a large array for sums, perhaps several times."""
    kernel = call.kernel
    if not isinstance(kernel, LoopKernel) or call.failures or kernel.chunk or kernel.block or kernel.turned or \
            not kernel.reduced or not kernel.parallel or kernel.vector != kernel.parallel[-1][0]:
        return False
    columns = dims.product(call.size(n) for _, n in kernel.parallel)
    rows = dims.product(call.size(n) for _, n in kernel.reduced)
    sums = [a for p in kernel.phases for a in p.accumulators]
    return isinstance(columns, int) and columns >= WIDE_ROW and typical(rows * columns) >= WALKED and bool(sums) \
        and all(a.horizontal == "horizontal_add" and not a.arg and a.dtype in ("f32", "f64") for a in sums) \
        and all(p.accumulators for p in kernel.phases[:-1]) and all(_lies_along(kernel, s) for s in statements(kernel))


def _lies_along(kernel: LoopKernel, s: Statement) -> bool:
    """Whether a statement does the same where the rows are walked along."""
    if not isinstance(s, Load | Store):
        return not isinstance(s, Check)
    down = any(s.access.stride(axis) != 0 for axis, _ in kernel.reduced)
    return not s.index and not (isinstance(s, Load) and (s.where or s.ahead)) and \
        (not down or s.access.stride(kernel.vector) == 1)


def one_by_one(call: Call) -> list[Call]:
    """A call for each walk."""
    return _Walks(call).calls() if isinstance(call.kernel, LoopKernel) and len(call.kernel.phases) > 1 else [call]


class _Walks:
    def __init__(self, call: Call):
        self.call = call
        assert isinstance(call.kernel, LoopKernel)
        self.kernel: LoopKernel = call.kernel
        self.buffers, self.names, self.numbers = list(call.buffers), list(call.kernel.sizes), list(call.sizes)
        self.waiting: dict[str, Access] = {}    # what is known of each column -> where it waits
        self.fixed = {s.name: s for s in statements(self.kernel) if isinstance(s, Literal)}
        self.fixed |= {s.name: s for s in self.kernel.before if isinstance(s, Load)}    # type: ignore[misc]

    def calls(self) -> list[Call]:
        kernel, found = self.kernel, []
        taken = [self.taken(s) for p in kernel.phases for s in (self.body(p), p.after)]
        for k, phase in enumerate(kernel.phases):
            before = kernel.before if k == 0 else ()
            made = {s.name: s.dtype for s in (*before, *phase.after) if not isinstance(s, Store | Literal | Check)}
            made |= {a.name: a.dtype for a in phase.accumulators}
            first = self.known(before, self.taken([*before, *self.body(phase), *phase.after]) - set(made))
            later = set().union(*taken[2 * k + 2:])
            stores = [Store(name, self.place(name, dtype)) for name, dtype in made.items() if name in later
                      and name not in self.fixed]
            if phase.accumulators:
                phases: tuple[Phase, ...] = (replace(phase, after=(*phase.after, *stores)),)
                found.append(self.made(f"{kernel.name}_{k}", replace(kernel, before=(*first, *before), phases=phases)))
            else:
                found.append(self.made(f"{kernel.name}_{k}", along_rows(kernel, (*first, *before, *phase.body))))
        return found

    @staticmethod
    def body(phase: Phase) -> list[Statement]:
        return [*phase.body, *(Store(a.value, Access("", a.dtype)) for a in phase.accumulators)]

    @staticmethod
    def taken(section: Sequence[Statement]) -> set[str]:
        """The names that a section takes from elsewhere."""
        return {u for s in section for u in uses(s)} - {s.name for s in section}

    def known(self, before: Sequence[Statement], wanted: set[str]) -> list[Statement]:
        """Statements that bring values of other walks."""
        own = {s.name for s in before}
        return [self.fixed.get(name) or Load(name, self.waiting[name]) for name in sorted(wanted - own)
                if name in self.fixed or name in self.waiting]

    def place(self, name: str, dtype: str) -> Access:
        """Where a value of each column waits."""
        sizes = [self.call.size(n) for _, n in self.kernel.parallel]
        self.buffers.append(Buffer(f"{self.kernel.name}_{name}", dims.product(sizes) * BY_SHORT[dtype].size))
        strides: list[tuple[str, Int]] = []
        for (axis, _), n in zip(self.kernel.parallel, contiguous(sizes), strict=True):
            strides.append((axis, 1 if n == 1 else f"n{len(self.names)}"))
            if n != 1:
                self.names.append(f"n{len(self.names)}")
                self.numbers.append(n)
        self.waiting[name] = Access(f"a{len(self.buffers) - 1}", dtype, tuple(strides))
        return self.waiting[name]

    def made(self, name: str, kernel: LoopKernel) -> Call:
        kernel = replace(kernel, name=name, buffers=tuple(f"a{k}" for k in range(len(self.buffers))), sizes=tuple(self.names))
        share = dims.floordiv(self.call.operations, len(self.kernel.phases))
        return compact(replace(self.call, kernel=kernel, buffers=tuple(self.buffers), sizes=tuple(self.numbers),
                               operations=share))


def along_rows(kernel: LoopKernel, body: Sequence[Statement]) -> LoopKernel:
    """A kernel that does `body` for each point of the domain, row by row."""
    axes = {axis: f"p{k}" for k, (axis, _) in enumerate((*kernel.reduced, *kernel.parallel))}
    parallel = tuple((axes[axis], n) for axis, n in (*kernel.reduced, *kernel.parallel))
    return replace(kernel, parallel=parallel, reduced=(), vector=parallel[-1][0], before=tuple(over(s, axes) for s in body),
                   phases=(), blocked=False, wide=1)


def over(s: Statement, axes: Mapping[str, str]) -> Statement:
    """A statement over axes of other names."""
    if isinstance(s, Load | Store):
        return replace(s, access=replace(s.access, strides=tuple((axes[a], n) for a, n in s.access.strides)))
    return replace(s, strides=tuple((axes[a], n) for a, n in s.strides)) if isinstance(s, Coordinate) else s


def compact(call: Call) -> Call:
    """The call without buffers that its loop addresses no more, and without loads that nobody takes."""
    kernel = call.kernel
    assert isinstance(kernel, LoopKernel)
    taken = {u for s in statements(kernel) for u in uses(s)} | {a.value for p in kernel.phases for a in p.accumulators}
    parts = [tuple(s for s in part if not isinstance(s, Load) or s.name in taken) for part in
             (kernel.before, *(part for p in kernel.phases for part in (p.body, p.after)))]
    touched = [s for part in parts for s in part if isinstance(s, Load | Store)]
    own = {b for b, _ in kernel.scratch}
    first = {s.access.buffer: s for s in reversed(touched)}     # what is stored first is not taken from others
    loaded = {name for name, s in first.items() if isinstance(s, Load)} - own
    stored = {s.access.buffer for s in touched if isinstance(s, Store)} | own
    left = [k for k, name in enumerate(kernel.buffers) if name in loaded | stored]
    new = {f"a{k}": f"a{n}" for n, k in enumerate(left)}

    def named(access: Access) -> Access:
        return replace(access, buffer=new[access.buffer])
    parts = [tuple(replace(s, access=named(s.access)) if isinstance(s, Load | Store) else s for s in part) for part in parts]
    buffers = {f"a{k}": call.buffers[k] for k in left}
    made = replace(kernel, buffers=tuple(new.values()), before=parts[0], sums=tuple(map(named, kernel.sums)),
                   phases=tuple(replace(p, body=parts[2 * k + 1], after=parts[2 * k + 2])
                                for k, p in enumerate(kernel.phases)),
                   scratch=tuple((new[b], n) for b, n in kernel.scratch))
    return replace(call, kernel=made, buffers=tuple(buffers.values()),
                   reads=frozenset(b for name, b in buffers.items() if name in loaded),
                   writes=frozenset(b for name, b in buffers.items() if name in stored))
