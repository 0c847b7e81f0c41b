"""Loop kernels whose rows are reduced together: as many as a vector has lanes go through a pass, one after the other, then what
is computed once for each row is computed for all of them at once.

What a pass finds out about a row waits in a room on the stack, one vector for each value; there the next pass finds what it
needs of a row.
"""
from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.cpu.blocks import with_rooms
from graphc.codegen.cpu.bodies import HELPERS, Body, make_body
from graphc.codegen.cpu.emit_loops import LoopEmitter, Use, taken_by
from graphc.codegen.cpu.source import KernelSource
from graphc.codegen.kernel import LoopKernel, Phase

MOST_BYTES = 8          # of an element


def emit_together(kernel: LoopKernel, lanes: int) -> KernelSource:
    """The source of a loop kernel whose rows are reduced together, for vectors of `lanes` elements."""
    return _TogetherEmitter(kernel, lanes).emit()


class _TogetherEmitter(LoopEmitter):
    def __init__(self, kernel: LoopKernel, lanes: int):
        super().__init__(kernel, lanes)
        self.row_values = self.row_results()
        self.sums = [self.accumulator_names(p) for p in kernel.phases]
        names = dict.fromkeys(n for group in (*self.sums, *self.row_values) for n in group)
        self.place = {name: f"room + {k * lanes * MOST_BYTES}" for k, name in enumerate(names)}
        self.integers += ["room", "slot"]

    def emit(self) -> KernelSource:
        self.blocks_of_rows()
        return with_rooms(self.skeleton.source(HELPERS), {"room_made": len(self.place) * self.lanes * MOST_BYTES})

    def blocks_of_rows(self) -> None:
        """A work item is a vector of the last parallel axis, at a point of the others."""
        kernel, s, lanes = self.kernel, self.skeleton, self.lanes
        *outer, (axis, size) = kernel.parallel
        for buffer, bytes_ in kernel.scratch:
            s.line(f"{buffer} = {buffer} + thread * {bytes_}")
        s.line("room = room_made()")
        if kernel.block:
            self.open_blocks(kernel.parallel)
            s.loop("start", "item_start", "item_stop", lanes)
            s.line("live = item_stop - start")
        else:
            s.line(f"tiles = ({size} + {lanes - 1}) // {lanes}")
            s.rows([*outer, ("tile", "tiles")])
            s.line(f"start = tile * {lanes}")
            s.line(f"live = {size} - start")
        s.minimum("rows_here", "live", str(lanes))
        s.line(f"{axis} = start")
        s.call(self.row_section("before", kernel.before, 0), "live")
        for k, phase in enumerate(kernel.phases):
            s.loop("slot", 0, "rows_here")
            s.line(f"{axis} = start + slot")
            self.row_pass(k, phase, "0", kernel.reduced[0][1])
            s.call(self.end_of_row(k, phase))
            s.close()
            s.line(f"{axis} = start")
            if phase.accumulators or phase.after:
                s.call(self.row_section(f"after{k}", phase.after, k + 1, self.sums[k]), "live")

    def row_section(self, name: str, statements, number: int, sums: Sequence[str] = ()) -> Body:
        """What is computed once for each row, with lanes along rows. sums: what the pass before it has left in the room."""
        results = self.row_values[number]
        waiting = self.taken_in_passes(number)
        first = [f"{n} = load_{self.dtypes[n]}({self.place[n]}, 0, mask)" for n in sums]
        last = [f"store_{self.dtypes[n]}({self.place[n]}, 0, {n}, None)" for n in results if n in waiting and n not in sums]
        vectors = [v for v in self.vectors if v not in sums]
        body = make_body(name, [*self.literals(statements), *statements], self.kernel.parallel[-1][0], self.integers, vectors,
                         [(r, self.dtypes[r]) for r in results], first, last)
        self.skeleton.bodies.append(body)
        return body

    def taken_in_passes(self, number: int) -> set[str]:
        """The names that passes from this one on take."""
        return {u for p in self.kernel.phases[number:] for s in (*p.body, *(Use(a.value) for a in p.accumulators))
                for u in taken_by(s)}

    def section(self, name: str, statements, results=(), first=(), last=(), masked=True, extra=(), wide: int = 1,
                hidden=()) -> Body:
        """A part of a pass: what it takes of its row comes from the room."""
        taken = {u for s in (*statements, *extra) for u in taken_by(s)}
        rows = [n for n in self.place if n in taken and n not in results]
        loads = [f"{n} = broadcast_{self.dtypes[n]}({self.place[n]}, slot)" for n in rows]
        return super().section(name, statements, results, [*loads, *first], last, masked, extra, wide, [*rows, *hidden])

    def end_of_row(self, number: int, phase: Phase) -> Body:
        """Leave what a pass has found out about its row."""
        last = [f"store_lane_{self.dtypes[n]}({self.place[n]}, slot, {n})" for n in self.sums[number]]
        body = make_body(f"end{number}", [], self.kernel.vector, self.integers, self.sums[number], [],
                         self.horizontal_lines(phase), last)
        self.skeleton.bodies.append(body)
        return body
