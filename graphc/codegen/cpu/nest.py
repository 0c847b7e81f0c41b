"""The register tile of a convolution: several summed axes, one loop in the other, around the tile's multiply-adds."""
from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from llvmlite import ir

from graphc.codegen.cpu.glue import Code
from graphc.codegen.cpu.simd import Int, Vector
from graphc.codegen.cpu.simd_core import I64
from graphc.codegen.cpu.tile import K_BLOCK, POINTER, Tile, _Loop


@dataclass(frozen=True)
class NestForm:
    """What sort of tile it is.

    dot     lanes run along the last sum; `vectors` is then the number of columns.
    across  the last sum is then the outermost loop: for one vector of it after the other all others are walked.
    paired  A varies along the lanes, too: each element of the result is a sum of its own elements of A and B.
    full    all columns are live, always.
    whole   all rows are.
    short   the sums have at most K_BLOCK terms together.
    sums    their number.
    parts   the tile is called for one part of its sums after the other: see `emit_nest`.
    """

    dot: bool
    across: bool
    paired: bool
    full: bool
    whole: bool
    short: bool
    sums: int
    parts: bool


class Nest(Tile):
    """Emits C[rows, columns] = sum over `sums` of A B and the epilogue.

    Each sum is (size, stride in A, stride in B). Sums of blocks of about K_BLOCK products are added to the total.
    """

    def __init__(self, builder, rows: int, vectors: int, lanes: int, dtype: str, stored: tuple[str, str], form: NestForm):
        super().__init__(builder, rows, vectors, lanes, dtype, stored, not form.full)
        self.whole, self.short = form.whole, form.short
        self.dot, self.across, self.paired = form.dot, form.dot and form.across and form.sums > 1, form.paired

    def emit_nest(self, a, a_row, b, b_column, sums: Sequence[tuple], rows_live, columns_live,
                  epilogue: Callable[[int, int, Vector, Vector], None], part: Sequence = ()):
        """The tile at addresses a and b; rows and columns beyond the live ones are computed from valid memory, not stored.

        part: (address of the sums so far, whether this part of the sums is the first one, whether it is the last one).
        """
        build = self.builder
        self.a, self.b = (build.inttoptr(x, POINTER) for x in (a, b))
        self.row_at = [build.mul(a_row, I64(r) if self.whole else self.clamped(r, rows_live)) for r in range(self.rows)]
        if self.dot:
            self.column_at = [build.mul(b_column, self.clamped(v, columns_live)) for v in range(self.vectors)]
        elif self.masked:
            self.masks = [self.tracer.tail(Int(build.sub(columns_live, I64(v * self.lanes)), self.tracer))
                          for v in range(self.vectors)]
        zeros = [self.zero()] * (self.rows * self.vectors)
        self.total, first, last = part or (self.scratch(), None, None)
        self.many = self.has_many(sums) if first is None else ir.IntType(1)(1)
        with build.if_then(self.many if first is None else build.trunc(first, ir.IntType(1)), likely=False):
            for n, z in enumerate(zeros):
                build.store(z, self.slot(self.total, n))
        *found, _ = (self.over_lanes if self.across else self.level)(list(sums), I64(0), I64(0), [*zeros, I64(0)])
        if last is None:
            self.finish_all(self.plus_total(found), rows_live, columns_live, epilogue)
            return
        found = self.added(found)
        with build.if_else(build.trunc(last, ir.IntType(1))) as (then, otherwise):
            with then:
                self.finish_all(found, rows_live, columns_live, epilogue)
            with otherwise:
                for n, s in enumerate(found):
                    build.store(s, self.slot(self.total, n))

    def finish_all(self, found, rows_live, columns_live, epilogue) -> None:
        """The epilogue of all that is live."""
        for r in range(self.rows):
            row = [Vector(x, self.dtype, self.tracer) for x in found[r * self.vectors:(r + 1) * self.vectors]]
            with nullcontext() if self.whole else self.builder.if_then(self.builder.icmp_signed(">", rows_live, I64(r))):
                if self.dot:
                    for v in range(0, self.vectors, self.lanes):
                        mask = self.tracer.tail(Int(self.builder.sub(columns_live, I64(v)), self.tracer))
                        fits = self.tracer.tail(min(self.vectors - v, self.lanes))
                        epilogue(r, v, self.joined(row[v:v + self.lanes]), mask & fits)
                    continue
                for v, x in enumerate(row):
                    epilogue(r, v, x, self.masks[v] if self.masked else None)

    def joined(self, columns: Sequence[Vector]) -> Vector:
        """The sums over the lanes of each of these vectors, side by side."""
        found = self.names["horizontal_add"](columns[0])
        for v, x in enumerate(columns[1:], 1):
            found = self.tracer.select(self.tracer.tail(v), found, self.names["horizontal_add"](x))
        return found

    def step(self, row_a, a_k, b, b_k, p, sums):
        if not self.paired:
            return super().step(row_a, a_k, b, b_k, p, sums)
        build, found = self.builder, []
        row_b, at_a = self.at_b(b, build.mul(p, b_k)), build.mul(p, a_k)
        panel = [self.load_b(row_b, v) for v in range(self.vectors)]
        for r, row in enumerate(row_a):
            address = Int(build.ptrtoint(self.at_a(row, at_a), I64), self.tracer)
            for v, y in enumerate(panel):
                x = self.names[f"load_{self.stored[0]}"](address, v * self.lanes, self.masks[v] if self.masked else None)
                found.append(self.tracer.fma(x, y, Vector(sums[r * self.vectors + v], self.dtype, self.tracer)).ir)
        return found

    def at_b(self, base, index):
        return self.builder.gep(base, [index], source_etype=self.element_b)

    def zero(self):
        return self.tracer.splat(0, self.dtype).ir

    def has_many(self, sums):
        """Whether there is more than one block of products."""
        if self.short:
            return ir.IntType(1)(0)
        count = I64(1)
        for size, _, _ in sums:
            count = self.builder.mul(count, size)
        return self.builder.icmp_signed(">", count, I64(K_BLOCK))

    def level(self, sums: list, a_at, b_at, carried: list) -> list:
        """The loops over `sums` with the operands at these offsets; `carried`: the sums, and how many products they hold."""
        build = self.builder
        (size, a_step, b_step), *inner = sums
        if not inner:
            return self.blocks(size, a_step, b_step, a_at, b_at, carried)
        loop = _Loop(build, I64(0), size, I64(1), carried)
        a_next = build.add(a_at, build.mul(loop.index, a_step))
        b_next = build.add(b_at, build.mul(loop.index, b_step))
        return loop.close(self.level(inner, a_next, b_next, loop.phis))

    def over_lanes(self, sums: list, a_at, b_at, carried: list) -> list:
        """The loop over vectors of the last sum, around all others: these are long enough to be fast where it is short."""
        *others, (size, _, _) = sums
        loop = _Loop(self.builder, I64(0), size, I64(self.lanes), carried)
        self.part = self.tracer.tail(Int(self.builder.sub(size, loop.index), self.tracer))
        return loop.close(self.level(others, self.builder.add(a_at, loop.index), self.builder.add(b_at, loop.index), loop.phis))

    def blocks(self, size, a_step, b_step, a_at, b_at, carried: list) -> list:
        """The innermost axis, in blocks; after each, sums of enough products go to the total."""
        build = self.builder
        if self.short:
            *sums, count = carried
            return [*self.block(I64(0), size, a_step, b_step, a_at, b_at, sums), count]
        outer = _Loop(build, I64(0), size, I64(K_BLOCK), carried)
        end = build.add(outer.index, I64(K_BLOCK))
        end = build.select(build.icmp_signed("<", end, size), end, size)
        *sums, count = outer.phis
        sums = self.block(outer.index, end, a_step, b_step, a_at, b_at, sums)
        count = build.add(count, build.sub(end, outer.index))
        return outer.close(self.flushed(sums, count))

    def block(self, start, end, a_step, b_step, a_at, b_at, sums: list) -> list:
        """The products from `start` to `end` along the innermost axis."""
        build = self.builder
        rows = [self.at_a(self.a, build.add(a_at, at)) for at in self.row_at]
        inner = _Loop(build, start, end, I64(self.lanes if self.dot and not self.across else 1), sums)
        if self.dot:
            part = self.part if self.across else self.tracer.tail(Int(build.sub(end, inner.index), self.tracer))
            a_more, b_more = build.mul(inner.index, a_step), build.mul(inner.index, b_step)
            return inner.close(self.dot_step(rows, b_at, a_more, b_more, part, inner.phis))
        return inner.close(self.step(rows, a_step, self.at_b(self.b, b_at), b_step, inner.index, inner.phis))

    def dot_step(self, rows, b_at, a_more, b_more, part, sums):
        """One vector along the last axis, masked to `part`: the products of all rows with all columns."""
        build = self.builder

        def vector(pointer, dtype: str):
            return self.names[f"load_{dtype}"](Int(build.ptrtoint(pointer, I64), self.tracer), 0, part)
        b_at = build.add(b_at, b_more)
        columns = [vector(self.at_b(self.b, build.add(b_at, at)), self.stored[1]) for at in self.column_at]
        found = []
        for r, row in enumerate(rows):
            x = vector(self.at_a(row, a_more), self.stored[0])
            for v, y in enumerate(columns):
                found.append(self.tracer.fma(x, y, Vector(sums[r * self.vectors + v], self.dtype, self.tracer)).ir)
        return found

    def flushed(self, sums, count) -> list:
        """The sums and their count; zeros once they are a block and were added to the total."""
        def added():
            for n, s in enumerate(self.added(sums)):
                self.builder.store(s, self.slot(self.total, n))
            return [*[self.zero()] * len(sums), I64(0)]
        full = self.builder.and_(self.many, self.builder.icmp_signed(">=", count, I64(K_BLOCK)))
        return self.where(full, added, [*sums, count])

    def added(self, sums) -> list:
        """The sums plus the total."""
        return [(Vector(self.builder.load(self.slot(self.total, n), typ=self.vector), self.dtype, self.tracer)
                 + Vector(s, self.dtype, self.tracer)).ir for n, s in enumerate(sums)]

    def plus_total(self, sums) -> list:
        """The sums plus the total, where there is one."""
        return self.where(self.many, lambda: self.added(sums), sums)


def nest_tile(rows: int, vectors: int, lanes: int, dtype: str, stored: tuple[str, str], form: NestForm, epilogue) -> Code:
    """tile(a, a_row, b, b_column, size, a_step, b_step for each sum, rows_live, columns_live, m, n, *others);
    with `form.parts` three more arguments after `columns_live`.

    epilogue: a traced function as for `tile.product_tile`.
    """
    parameters = list(inspect.signature(epilogue).parameters)
    others = [p for p in parameters if p not in ("m", "n", "acc", "mask")]
    steps = [f"{part}{k}" for k in range(form.sums) for part in ("size_", "a_step_", "b_step_")]
    part = ["part_total", "part_first", "part_last"] if form.parts else []
    names = ["a", "a_row", "b", "b_column", *steps, "rows_live", "columns_live", *part, "m", "n", *others]

    def emit(builder, _, values):
        tile = Nest(builder, rows, vectors, lanes, dtype, stored, form)
        by_name = dict(zip(names, values, strict=True))
        given = {name: Int(by_name[name], tile.tracer) for name in ("m", "n", *others)}

        def run(r, v, acc, mask):
            n = given["n"] + v * (1 if form.dot else lanes)
            known = {**given, "m": given["m"] + r, "n": n, "acc": acc, "mask": mask}
            tile.tracer.run(epilogue, [known[p] for p in parameters])
        axes = [tuple(by_name[f"{part}{k}"] for part in ("size_", "a_step_", "b_step_")) for k in range(form.sums)]
        tile.emit_nest(*values[:4], axes, by_name["rows_live"], by_name["columns_live"], run, [by_name[name] for name in part])
        return ()
    return Code("tile", (), emit)
