"""The register tile of a contraction, emitted instruction by instruction (DESIGN 5.3)."""
from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Sequence

from llvmlite import ir

from graphc.codegen.cpu.glue import Code
from graphc.codegen.cpu.simd import DTYPES, Int, Tracer, Vector
from graphc.codegen.cpu.simd_core import HALVES, I64, POINTER, broadcast

K_BLOCK = 1024  # products that are summed before the sum is added to the total
AHEAD = 64      # products in a sum from which on what its epilogue touches comes to the cache meanwhile


class _Loop:
    """A counted loop in LLVM IR: `with _Loop(builder, n) as i:`; values carried around it are set by `carry`."""

    def __init__(self, builder, start, stop, step, carried):
        self.builder, self.stop, self.step = builder, stop, step
        self.entry = builder.block
        self.body = builder.append_basic_block("loop")
        self.done = builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed("<", start, stop), self.body, self.done)
        builder.position_at_end(self.body)
        self.index = builder.phi(I64)
        self.index.add_incoming(start, self.entry)
        self.phis = [builder.phi(v.type) for v in carried]
        for phi, value in zip(self.phis, carried, strict=True):
            phi.add_incoming(value, self.entry)
        self.carried = list(carried)

    def close(self, values):
        """End the body with the new values of what is carried; returns their values after the loop."""
        builder = self.builder
        following = builder.add(self.index, self.step)
        last = builder.block
        self.index.add_incoming(following, last)
        for phi, value in zip(self.phis, values, strict=True):
            phi.add_incoming(value, last)
        builder.cbranch(builder.icmp_signed("<", following, self.stop), self.body, self.done)
        builder.position_at_end(self.done)
        results = []
        for start, value in zip(self.carried, values, strict=True):
            phi = builder.phi(value.type)
            phi.add_incoming(start, self.entry)
            phi.add_incoming(value, last)
            results.append(phi)
        return results


class Tile:
    """Emits C[rows, vectors * lanes] = A B and the epilogue. Addresses in bytes, strides and sizes in elements."""

    def __init__(self, builder, rows: int, vectors: int, lanes: int, dtype: str, stored: tuple[str, str], masked: bool,
                 groups: int = 1):
        """dtype: of the sums; stored: of A's and B's elements in memory; groups: see `ContractKernel`."""
        self.builder, self.rows, self.vectors, self.lanes = builder, rows, vectors, lanes
        self.wide = vectors // groups       # vectors of a group
        self.tracer = Tracer(builder, lanes)
        self.names = self.tracer.namespace()
        self.dtype = DTYPES[dtype]
        self.stored = stored
        self.element_a, self.element_b = ((DTYPES | HALVES)[d].memory for d in stored)
        self.vector = ir.VectorType(self.dtype.register, lanes)
        self.masked = masked
        self.masks: list[Vector] = []
        self.group_at: list = [None] * groups       # elements from a row of B to a group's part of it

    def at_a(self, base, index):
        return self.builder.gep(base, [index], source_etype=self.element_a)

    def emit(self, a, a_row, a_k, b, b_k, k, rows_live, columns_live,
             epilogue: Callable[[int, int, list[Vector], Vector], None], ahead: Callable[[int, int], None] | None = None,
             needed: Callable[[object, int, Vector], Vector] | None = None, columns=None):
        """The tile at addresses a and b; rows and columns beyond the live ones are computed from valid memory, not stored.

        epilogue gets the sums of all groups. ahead: asks for the memory that the epilogue of a row and vector will touch.
        needed: in which lanes of a row, a number that may be one of the program's, and vector somebody needs the sums; where in
        none, they are 0. columns: those of a group, where there are several.
        """
        build = self.builder
        self.group_at[1:] = [build.mul(columns, I64(g)) for g in range(1, len(self.group_at))]
        self.masks = [self.tracer.tail(Int(build.sub(columns_live, I64(v * self.lanes)), self.tracer))
                      for v in range(self.wide)]
        if needed is not None:
            k = build.select(self.is_needed(needed, rows_live), k, I64(0))
        if ahead is not None:
            with build.if_then(build.icmp_signed(">=", k, I64(AHEAD))):
                for r in range(self.rows):
                    for v in range(self.wide):
                        ahead(r, v)
        a, b = (build.inttoptr(x, POINTER) for x in (a, b))
        row_a = [self.at_a(a, build.mul(a_row, self.clamped(r, rows_live))) for r in range(self.rows)]
        total = self.scratch()
        zeros = [self.tracer.splat(0, self.dtype).ir] * (self.rows * self.vectors)
        block = _Loop(build, I64(0), k, I64(K_BLOCK), zeros)
        end = build.add(block.index, I64(K_BLOCK))
        end = build.select(build.icmp_signed("<", end, k), end, k)
        inner = _Loop(build, block.index, end, I64(1), zeros)
        sums = inner.close(self.step(row_a, a_k, b, b_k, inner.index, inner.phis))
        sums = self.add_total(total, block.index, sums)
        self.save_total(total, end, k, sums)
        sums = block.close(sums)
        for r in range(self.rows):
            with build.if_then(build.icmp_signed(">", rows_live, I64(r))):
                for v in range(self.wide):
                    found = sums[r * self.vectors + v:(r + 1) * self.vectors:self.wide]
                    epilogue(r, v, [Vector(x, self.dtype, self.tracer) for x in found], self.masks[v])

    def is_needed(self, needed: Callable[[object, int, Vector], Vector], rows_live):
        """Whether any sum of the tile is needed: mostly the first one of the last row tells."""
        build = self.builder

        def any_of(places):
            lanes = [needed(self.clamped(r, rows_live), v, self.masks[v]) & self.masks[v] for r, v in places]
            return self.tracer.any_lane(functools.reduce(operator.or_, lanes))
        first, *rest = [(r, v) for r in reversed(range(self.rows)) for v in range(self.vectors)]
        known = any_of([first])
        return self.where(build.not_(known), lambda: [any_of(rest)], [known])[0] if rest else known

    def clamped(self, row: int, live):
        """`row`, or the last live row."""
        last = self.builder.sub(live, I64(1))
        return self.builder.select(self.builder.icmp_signed("<", last, I64(row)), last, I64(row))

    def scratch(self):
        """Room for the sums of earlier blocks of k."""
        with self.builder.goto_entry_block():
            room = self.builder.alloca(ir.ArrayType(self.vector, self.rows * self.vectors))
            room.align = 64
            return self.builder.ptrtoint(room, I64)

    def step(self, row_a, a_k, b, b_k, p, sums):
        """One step of k: the sums plus the outer product of a column of A and a row of B."""
        build = self.builder
        row_b, at_a = build.gep(b, [build.mul(p, b_k)], source_etype=self.element_b), build.mul(p, a_k)
        panel = [self.load_b(row_b, v) for v in range(self.vectors)]
        updated = []
        for r in range(self.rows):
            x = self.load_a(self.at_a(row_a[r], at_a))
            for v in range(self.vectors):
                updated.append(self.tracer.fma(x, panel[v], Vector(sums[r * self.vectors + v], self.dtype, self.tracer)).ir)
        return updated

    def load_a(self, place) -> Vector:
        """An element of A in every lane."""
        if self.stored[0] in HALVES:
            return self.names[f"broadcast_{self.stored[0]}"](Int(self.builder.ptrtoint(place, I64), self.tracer), 0)
        scalar = self.builder.load(place, typ=self.element_a)
        return Vector(broadcast(self.builder, scalar, self.lanes), self.dtype, self.tracer)

    def load_b(self, row, v: int) -> Vector:
        group, v = divmod(v, self.wide)
        if group:
            row = self.builder.gep(row, [self.group_at[group]], source_etype=self.element_b)
        address = self.builder.ptrtoint(row, I64)
        mask = self.masks[v] if self.masked else None
        return self.names[f"load_{self.stored[1]}"](Int(address, self.tracer), v * self.lanes, mask)

    def add_total(self, total, start, sums):
        """The sums plus those of earlier blocks, where there were any."""
        def added():
            before = [self.builder.load(self.slot(total, k), typ=self.vector) for k in range(len(sums))]
            return [(Vector(s, self.dtype, self.tracer) + Vector(old, self.dtype, self.tracer)).ir
                    for s, old in zip(sums, before, strict=True)]
        return self.where(self.builder.icmp_signed(">", start, I64(0)), added, sums)

    def where(self, condition, then: Callable[[], list], otherwise: Sequence) -> list:
        """The values of `then`, which is computed where the condition is true; elsewhere those of `otherwise`."""
        build = self.builder
        before = build.block
        with build.if_then(condition):
            values = then()
            last = build.block
        found = []
        for old, new in zip(otherwise, values, strict=True):
            phi = build.phi(old.type)
            phi.add_incoming(old, before)
            phi.add_incoming(new, last)
            found.append(phi)
        return found

    def save_total(self, total, end, k, sums) -> None:
        """Keep the sums for the next block, where there is one."""
        with self.builder.if_then(self.builder.icmp_signed("<", end, k), likely=False):
            for n, s in enumerate(sums):
                self.builder.store(s, self.slot(total, n))

    def slot(self, total, n: int):
        size = self.lanes * self.dtype.item_bytes
        return self.builder.inttoptr(self.builder.add(total, I64(n * size)), POINTER)


def product_tile(rows: int, vectors: int, lanes: int, dtype: str, stored: tuple[str, str], masked: bool, epilogue, ahead,
                 needed, sums: Sequence[str] = ("acc",)) -> Code:
    """tile(a, a_row, a_k, b, b_k, k, rows_live, columns_live, m, n, *others).

    epilogue: a traced function of (names among m, n and the others, acc, mask); called for each row and vector of the tile
    with the coordinates of its first lane. ahead, needed: functions of some of the names, which are called before all sums; see
    `Tile.emit`. sums: names of the groups' sums.
    """
    parameters, asked, guards = (list(inspect.signature(f).parameters) if f else [] for f in (epilogue, ahead, needed))
    others = [p for p in parameters if p not in ("m", "n", "mask", *sums)]

    def emit(builder, _, values):
        tile = Tile(builder, rows, vectors, lanes, dtype, stored, masked, len(sums))
        given = dict(zip(others, (Int(v, tile.tracer) for v in values[10:]), strict=True))
        m, n = (Int(v, tile.tracer) for v in values[8:10])

        def run(r, v, row, mask):
            known = {"m": m + r, "n": n + v * lanes, "mask": mask, **given, **dict(zip(sums, row, strict=True))}
            tile.tracer.run(epilogue, [known[p] for p in parameters])

        def ask(r, v):
            known = {"m": m + r, "n": n + v * lanes, **given}
            tile.tracer.run(ahead, [known[p] for p in asked])

        def where(r, v, mask):
            known = {"m": m + Int(r, tile.tracer), "n": n + v * lanes, "mask": mask, **given}
            return tile.tracer.run(needed, [known[p] for p in guards])
        tile.emit(*values[:8], run, ask if asked else None, where if guards else None, builder.add(values[7], values[9]))
        return ()
    return Code("tile", (), emit)
