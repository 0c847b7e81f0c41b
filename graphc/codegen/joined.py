"""Products of which a loop takes parts of each row together, such as the gates of a recurrent layer: one kernel for both.

A row of the product is cut into equal parts, and the loop computes something of the first elements of all parts, of the second
ones, and so on. A tile of the joined kernel holds the same columns of each part. So what the loop does follows while the sums
are in registers, and they go to memory only if others need them.
"""
from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from graphc.codegen.contractions import ROW_VECTORS, choose_tile
from graphc.codegen.control import Step
from graphc.codegen.kernel import Access, Compute, ContractKernel, Coordinate, Int, Literal, Load, LoopKernel, Statement, Store
from graphc.codegen.lower import Buffer, Call, Parameters, Target
from graphc.ir.dims import Size

MOST_PARTS = 8      # of a row: a tile needs registers for sums of each
MOST_WASTE = 1.05   # vectors for the parts, to those for whole rows: more costs what a way through memory does
_WORD = re.compile(r"[A-Za-z_]\w*")


class NotJoined(Exception):
    """A product and a loop stay two kernels; the text says why."""


def joined(steps: Sequence[Step], kept: Collection[Buffer], target: Target, few: tuple[Size, int] | None = None) -> list[Step]:
    """The steps with each such product and loop as one call. kept: buffers that others need. few: see `ContractLowering`."""
    found = list(steps)
    for loop in [s for s in steps if isinstance(s, Call) and isinstance(s.kernel, LoopKernel)]:
        for product in _products(found, loop):
            at, end = found.index(product), found.index(loop)
            between = found[at + 1:end]
            early = not any(s.writes & loop.reads or (s.reads | s.writes) & loop.writes for s in between)
            late = not any(s.reads & product.writes or s.writes & product.reads for s in between)
            sums, = product.writes
            stays = sums in kept or any(sums in s.reads for s in found if s is not loop)
            try:
                if early or late:
                    found[at if early else end] = _Join(product, loop, sums, stays).call(target, few)
                    del found[end if early else at]
                    break
            except NotJoined:
                pass
    return found


def _products(steps: Sequence[Step], loop: Call) -> list[Call]:
    """The products that a loop takes something of."""
    before, reads = steps[:steps.index(loop)], loop.reads
    return [s for s in before if isinstance(s, Call) and isinstance(s.kernel, ContractKernel) and len(s.writes) == 1
            and not s.writes.isdisjoint(reads) and sum(not s.writes.isdisjoint(other.writes) for other in steps) == 1]


class _Join:
    """The statements of both kernels over the axes of the product, each part's with the columns of the part."""

    def __init__(self, product: Call, loop: Call, sums: Buffer, stays: bool):
        """stays: whether others need the sums."""
        self.product, self.loop, self.sums, self.stays = product, loop, sums, stays
        self.parameters = Parameters()
        self.check()

    def check(self) -> None:
        a, b = self.product.kernel, self.loop.kernel
        assert isinstance(a, ContractKernel) and isinstance(b, LoopKernel)
        if a.batch or a.a.packing or a.b.packing or a.groups > 1 or a.part or a.where or a.may_fail or b.may_fail:
            raise NotJoined("the product is no plain one")
        if b.reduced or b.phases or b.chunk or b.block or b.item_bytes != a.item_bytes:
            raise NotJoined("the loop does more than one thing for each element")
        whole, m = self.value(self.product, a.n), self.value(self.product, a.m)
        sizes = [(name, self.value(self.loop, size)) for name, size in b.parallel]
        if [size for _, size in sizes[:-1]] != ([] if m == 1 and len(sizes) == 1 else [m]):
            raise NotJoined("the loop has other rows")
        self.width = sizes[-1][1]
        if not isinstance(whole, int) or not isinstance(self.width, int) or self.width == 0 or whole % self.width or \
                not 2 <= whole // self.width <= MOST_PARTS:
            raise NotJoined("its rows are no parts of the product's")
        self.parts, self.whole = whole // self.width, whole
        self.axes = {sizes[-1][0]: "n"} | {name: "m" for name, _ in sizes[:-1]}
        *above, last = a.epilogue
        if not isinstance(last, Store) or self.buffer(self.product, last.access) is not self.sums or \
                last.access.dtype != a.dtype or self.place(self.product, last.access, {}) != self.at(0):
            raise NotJoined("the product is not stored row by row")
        self.above, self.stored = above, last

    def value(self, call: Call, number: Int) -> Size:
        return call.sizes[call.kernel.sizes.index(number)] if isinstance(number, str) else number

    def buffer(self, call: Call, access: Access) -> Buffer:
        return call.buffers[call.kernel.buffers.index(access.buffer)]

    def place(self, call: Call, access: Access, axes: Mapping[str, str]) -> tuple[dict[str, Size], Size]:
        """(stride along each axis of the product, offset) of what is addressed."""
        strides = {axes.get(axis, axis): self.value(call, stride) for axis, stride in access.strides}
        return strides, self.value(call, access.offset)

    def at(self, part: int) -> tuple[dict[str, Size], Size]:
        """Where a part of the sums is."""
        rows = {"m": self.whole} if "m" in self.axes.values() else {}
        return {**rows, "n": 1}, part * self.width

    def call(self, target: Target, few: tuple[Size, int] | None) -> Call:
        kernel, product = self.product.kernel, self.product
        assert isinstance(kernel, ContractKernel)
        first, second = (replace(o, access=self.access(product, o.access, {}, 0, alone=True), free=self.size(product, o.free),
                                 summed=self.size(product, o.summed)) for o in (kernel.a, kernel.b))
        epilogue: list[Statement] = []
        made: dict[int, str] = {}
        for part in range(self.parts):
            names = {"acc": f"acc{part}"} | {s.name: f"{s.name}p{part}" for s in self.above if s.name}
            epilogue += [self.statement(product, s, names, {}, part * self.width) for s in self.above]
            made[part] = names.get(self.stored.value, self.stored.value)
            if self.stays:
                epilogue.append(self.statement(product, self.stored, names, {}, part * self.width))
        epilogue += self.below(made)
        m, k = self.value(product, kernel.m), self.value(product, kernel.k)
        m_rows = few[1] if few is not None and few[0] == m else m
        lanes = target.vector_bytes // kernel.item_bytes
        if self.parts * -(-self.width // lanes) > MOST_WASTE * -(-self.whole // lanes):
            raise NotJoined("vectors fill whole rows better")
        rows, vectors = choose_tile(m_rows, self.width, lanes, target.registers, self.parts)
        alone = self.parts * self.row_vectors(-(-self.width // lanes))
        joint = ContractKernel(
            f"{kernel.name}_{self.loop.kernel.name}", (), (), kernel.dtype, (), self.parameters.size(m, keep=(1,)),
            self.parameters.size(self.width, keep=(1,)), self.parameters.size(k, keep=(1,)), first, second, rows, vectors,
            tuple(epilogue), kernel.item_bytes, groups=self.parts,
            row_vectors=alone if kernel.row_vectors and alone > vectors else 0)
        joint = replace(joint, buffers=self.parameters.buffer_names, sizes=self.parameters.size_names)
        return self.parameters.call(joint, operations=product.operations + self.loop.operations, location=product.location)

    def row_vectors(self, wanted: int) -> int:
        """Vectors of each part in a tile of one row: so that the last tile wastes few, and near the usual number of others."""
        choice = range(1, max(1, min(wanted, 2 * ROW_VECTORS // self.parts)) + 1)
        return min(choice, key=lambda v: (-(-wanted // v) * v, abs(self.parts * v - ROW_VECTORS)))

    def below(self, made: Mapping[int, str]) -> list[Statement]:
        """The loop's statements on the parts of the sums, which have these names."""
        kernel = self.loop.kernel
        assert isinstance(kernel, LoopKernel)
        found: list[Statement] = []
        names = {s.name: f"{s.name}j" for s in kernel.before if getattr(s, "name", "")}
        for statement in kernel.before:
            if isinstance(statement, Load) and self.buffer(self.loop, statement.access) is self.sums:
                place = self.place(self.loop, statement.access, self.axes)
                part = next((p for p in made if place == self.at(p)), None)
                if part is None or statement.index or statement.where:
                    raise NotJoined("the loop takes other parts of the rows")
                names[statement.name] = made[part]
            else:
                found.append(self.statement(self.loop, statement, names, self.axes, 0))
        return found

    def statement(self, call: Call, statement: Statement, names: Mapping[str, str], axes: Mapping[str, str],
                  columns: int) -> Statement:
        """A statement over the joined kernel's axes, so many columns further on."""
        def new(name: str) -> str:
            return names.get(name, name)
        if isinstance(statement, Literal):
            return replace(statement, name=new(statement.name))
        if isinstance(statement, Compute):
            text = _WORD.sub(lambda word: new(word.group()) if word.group() in statement.uses else word.group(), statement.text)
            if any(size in _WORD.findall(text) for size in call.kernel.sizes):
                raise NotJoined("a size is computed with")
            return replace(statement, name=new(statement.name), text=text, uses=tuple(map(new, statement.uses)))
        if isinstance(statement, Coordinate):
            strides, offset = self.over(call, statement.strides, statement.offset, axes, columns)
            return replace(statement, name=new(statement.name), strides=strides, offset=offset)
        if isinstance(statement, Load) and not statement.index:
            return replace(statement, name=new(statement.name), where=new(statement.where),
                           access=self.access(call, statement.access, axes, columns))
        if isinstance(statement, Store) and not statement.index:
            return replace(statement, value=new(statement.value),
                           access=self.access(call, statement.access, axes, columns, written=True))
        raise NotJoined("elements are picked by an index, or may fail")

    def size(self, call: Call, number: Int) -> Int:
        return self.parameters.size(self.value(call, number))

    def over(self, call: Call, strides, offset: Int, axes: Mapping[str, str], columns: int, alone: bool = False):
        """(strides, offset) over the joined kernel's axes and parameters."""
        further = self.value(call, dict(strides).get("n", 0)) * columns
        return tuple((axes.get(axis, axis), self.size(call, stride)) for axis, stride in strides), \
            self.parameters.offset(self.value(call, offset) + further, alone)

    def access(self, call: Call, access: Access, axes: Mapping[str, str], columns: int, written: bool = False,
               alone: bool = False) -> Access:
        strides, offset = self.over(call, access.strides, access.offset, axes, columns, alone)
        return Access(self.parameters.buffer(self.buffer(call, access), written), access.dtype, strides, offset)
