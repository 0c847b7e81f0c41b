"""How much memory a program takes, known before it runs: a formula of the named dims, and the buffers that make the peak."""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from graphc.errors import ArgumentError, BudgetError, GraphcError, report
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.types import as_dtype
from graphc.records import record

if TYPE_CHECKING:
    from graphc.program import ArraySpec, BufferSpec, Program

ALIGNMENT = 64          # bytes: each part of the arena starts at a multiple
THREADS = "threads_"    # the name that stands for the number of threads in a program's texts
TYPICAL = 64            # the size of an unknown dim where one must be guessed
ROWS = 12               # buffers that a table shows
LARGEST = 5             # buffers that an error names


@record(frozen=True)
class Held:
    """Memory that is held at the peak. `what`: "variable", "constant", "feed", "fetch", "temporary" or "scratch" (of each
    thread); `type`: dtype and shape, if it holds a tensor; `location`: the user's line.
    """

    name: str
    what: str
    type: str
    bytes: Size
    location: str


@record(frozen=True, eq=False)
class Few:
    """The memory of the programs for small batches; `holds` says for which sizes of the named dims, `where` as text."""

    where: str
    holds: Callable[[Mapping[str, int]], bool]
    memory: Memory


class Memory:
    """The memory of programs that run one after another and keep what they have: as a rule of one.

    peak    bytes, an expression of the named dims: `parts` added up.
    parts   bytes of variables, constants, feeds, fetches and temporaries, expressions.
    dims    name -> where it is told: "axis 0 of x".

    few     the memory for small batches, where other programs run these: `bytes`, `at_peak` and `table` choose by the sizes.

    Temporaries lie in one arena, made at the first run of a size. Runs that overlap have an arena each; after a run with
    larger sizes the arena stays, unless there is a budget at up to twice what was needed.
    """

    def __init__(self, programs: Sequence[Program], threads: int = 1, few: Few | None = None):
        self.programs, self.threads, self.few = tuple(programs), threads, few
        env: Mapping[str, Size] = {THREADS: threads}
        fetched = {o.name for p in programs[:-1] for o in p.outputs}  # of one program, which a later one is fed with
        self._held: dict[tuple[str, str], Held] = {}
        for number, program in enumerate(programs):
            for spec in program.variables:
                self._held.setdefault(("variables", spec.name), _of_array("variable", spec))
            for spec in program.feeds:
                if spec.name not in fetched:
                    self._held.setdefault(("feeds", spec.name), _of_array("feed", spec))
            for k, constant in enumerate(program.constants):
                holds = f"{_short(constant.dtype.name)}[{','.join(map(str, constant.shape))}]"
                self._held["constants", f"{number} {k}"] = Held(f"constant {k}", "constant", holds, constant.nbytes, "")
            for k, spec in enumerate(program.outputs):
                self._held["fetches", f"{number} {k}"] = _of_array("fetch", spec)
        self.parts: dict[str, Size] = dict.fromkeys(("variables", "constants", "feeds", "fetches"), 0)
        for (part, _), held in self._held.items():
            self.parts[part] = self.parts[part] + held.bytes
        self.parts["temporaries"] = sum((dims.substitute(dims.parse(p.arena), env) for p in programs), 0)
        self.peak: Size = sum(self.parts.values(), 0)
        self.dims = {name: _place(name, programs) for p in programs for name in p.names}

    def bytes(self, **sizes: int) -> int:
        """The peak where the named dims have these sizes. Raises ArgumentError for a dim without a size, or of another name."""
        env = self._env(sizes)
        return _number(self._serving(env).peak, env)

    def at_peak(self, **sizes: int) -> list[Held]:
        """What is held when the temporaries in use take the most, the largest first. Without sizes, the bytes are expressions
        and the moment is a guess: with all named dims alike.
        """
        env = self._env(sizes) if sizes or not self.dims else None
        if env and self._serving(env) is not self:
            return self._serving(env).at_peak(**sizes)
        guess = env if env is not None else dict.fromkeys(self.dims, TYPICAL)
        found = [*self._held.values(), *(h for p in self.programs for h in self._temporaries(p, guess))]
        found.sort(key=lambda h: -_number(h.bytes, guess))
        if env is not None:
            found = [Held(h.name, h.what, h.type, _number(h.bytes, env), h.location) for h in found]
        return found

    def table(self, **sizes: int) -> str:
        """A table of the parts and of what is held at the peak; with sizes in numbers, else in formulas."""
        env = self._env(sizes) if sizes or not self.dims else None
        if env and self._serving(env) is not self:
            return self._serving(env).table(**sizes)

        def text(size: Size) -> str:
            return byte_text(_number(size, env)) if env is not None else str(size)
        told = "; ".join(f"{n} is {where}" for n, where in self.dims.items())
        given = ", ".join(f"{n} = {s}" for n, s in sizes.items())
        names = " + ".join(p.name for p in self.programs) or "nothing"
        rows = [(part, text(size), "") for part, size in self.parts.items() if size != 0]
        rows = [("peak", text(self.peak) + (" bytes" if env is None else ""), given or told), *rows]
        threads = f" on {self.threads} thread{'s' * (self.threads != 1)}" if any(
            b.per_thread for p in self.programs for b in p.buffers) else ""
        lines = [f"memory of {names}{threads}", *_columns(rows, "  ")]
        held = [h for h in self.at_peak(**sizes) if h.bytes != 0]
        if held:
            more = len(held) - ROWS
            lines += ["  held at the peak:", *_columns([(text(h.bytes), h.what, f"{h.name}: {h.type}" if h.type else h.name,
                                                         h.location) for h in held[:ROWS]], "    ")]
            lines += [f"    and {more} smaller"] if more > 0 else []
        lines += [f"where {self.few.where}: {self.few.memory}"] if self.few and env is None else []
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()

    __repr__ = __str__

    # inside ------------------------------------------------------------------------------------------------------------

    def _env(self, sizes: Mapping[str, int]) -> dict[str, int]:
        wrong = sorted({*sizes} ^ {*self.dims})
        if wrong:
            raise report(ArgumentError, "memory: the sizes do not fit the named dims: " + ", ".join(wrong),
                         [("dim", f"{n}  {where}") for n, where in self.dims.items()])
        return dict(sizes)

    def _serving(self, env: Mapping[str, int]) -> Memory:
        """That of the programs that run these sizes."""
        return self.few.memory if self.few and self.few.holds(env) else self

    def _temporaries(self, program: Program, env: Mapping[str, int]) -> list[Held]:
        """The temporaries that are in use when they take the most."""
        found = [(b, dims.substitute(dims.parse(b.bytes), {THREADS: self.threads})) for b in program.buffers]
        change: dict[int, int] = {}
        for buffer, size in found:
            change[buffer.first] = change.get(buffer.first, 0) + _number(size, env)
            change[buffer.last + 1] = change.get(buffer.last + 1, 0) - _number(size, env)
        most, total, moment = -1, 0, 0
        for at in sorted(change):
            total += change[at]
            if total > most:
                most, moment = total, at
        return [Held(b.name, "scratch" if b.per_thread else "temporary", b.type, size, b.location)
                for b, size in found if b.first <= moment <= b.last]


def reuse_text(program: Program) -> list[str]:
    """How a program saves memory: which temporaries share a place, and what is updated where it is; a line each."""
    lines = []
    for k, place in enumerate(program.slots):
        users = sorted((b for b in program.buffers if b.slot == k), key=lambda b: b.first)
        if len(users) > 1:
            lines.append(f"one place, at byte {place.replace(THREADS, 'threads')} of the arena, for {_in_turn(users)}")
    for k, why in program.updates:
        name = program.variables[k].name
        lines.append(f"{name} is updated in place" if not why else f"{name} is computed apart and copied: {why}")
    return lines


def _in_turn(users: Sequence[BufferSpec]) -> str:
    def text(b: BufferSpec) -> str:
        return f"{b.name} ({b.first}-{b.last})"
    shown = ", ".join(text(b) for b in users[:ROWS])
    return shown + (f" and {len(users) - ROWS} more" if len(users) > ROWS else "")


def over_budget(memory: Memory, budget: int, sizes: Mapping[str, int]) -> GraphcError:
    """The error for a run that would take more than its budget. It says with which size of a dim it would fit, where that is
    the only named dim.
    """
    needed = memory.bytes(**sizes)
    held = [h for h in memory.at_peak(**sizes) if h.bytes][:LARGEST]
    rows = [(byte_text(_number(h.bytes, {})), f"{h.what} {h.name}" + (f": {h.type}" if h.type else "")
             + (f"  made at {h.location}" if h.location else "")) for h in held]
    given = "".join(f"; {name} = {sizes[name]}, {where}" for name, where in memory.dims.items())
    fit = largest_fit(memory, sizes, next(iter(sizes)), budget) if len(sizes) == 1 else None
    return report(BudgetError, f"{' + '.join(p.name for p in memory.programs)}: a run takes {byte_text(needed)}, more than the "
                  f"budget of {byte_text(budget)}", rows, f"{needed} > {budget} bytes{given}",
                  "" if fit is None else f"with {next(iter(sizes))} = {fit} it takes "
                  f"{byte_text(memory.bytes(**dict.fromkeys(sizes, fit)))}")


def largest_fit(memory: Memory, sizes: Mapping[str, int], name: str, budget: int) -> int | None:
    """The largest size of one dim, below its present one, with which the peak is within a budget; None if there is none, or
    if the peak does not grow with it.
    """
    low, high = 0, sizes[name]
    while high - low > 1:
        middle = (low + high) // 2
        if memory.bytes(**{**sizes, name: middle}) <= budget:
            low = middle
        else:
            high = middle
    fits = low > 0 and memory.bytes(**{**sizes, name: low}) <= budget
    return low if fits else None


def byte_text(number: float) -> str:
    """Bytes as a person reads them."""
    if number < 1024:
        return f"{number:.0f} B"
    exponent = min(int(math.log2(number)) // 10, 4)
    return f"{number / 1024**exponent:.4g} {'KMGT'[exponent - 1]}iB"


def _of_array(what: str, spec: ArraySpec) -> Held:
    shape = [dims.parse(d) for d in spec.shape]
    return Held(spec.name, what, f"{_short(spec.dtype)}[{','.join(spec.shape)}]",
                dims.product(shape) * as_dtype(spec.dtype).size, spec.location)


def _short(dtype: str) -> str:
    return as_dtype(dtype).short


def _place(name: str, programs: Sequence[Program]) -> str:
    return next((f"axis {axis} of {spec.name}" for p in programs for spec in p.feeds for axis, dim in enumerate(spec.shape)
                 if dim == name), "told by an expression" if any(name in p.names for p in programs) else "")


def _number(size: Size, env: Mapping[str, int]) -> int:
    return size if isinstance(size, int) else int(dims.substitute(size, env))


def _columns(rows: Sequence[Sequence[str]], indent: str) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [(indent + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True))).rstrip() for row in rows]
