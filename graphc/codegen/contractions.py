"""Lowering of contraction regions: which axes play m, n and k, the size of the register tile, whether B is packed."""
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.copies import copy_call, fill_call, stand_in
from graphc.codegen.kernel import Access, Compute, ContractKernel, Load, Operand, Packing, Statement, Store
from graphc.codegen.loops import BLOCK_EDGE, LoopLowering, addressed
from graphc.codegen.lower import Buffer, Call, Parameters, Target
from graphc.codegen.statements import Strides, Writer, guard_of, made_by
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.node import Node
from graphc.ir.types import TensorType
from graphc.passes.fuse import is_literal
from graphc.passes.products import Product, column_side, label_sizes
from graphc.passes.regions import Region, Source, contiguous, source_of

PACK_ROWS = 64      # B is packed when at least so many rows of A use each panel and it does not fit the first cache
PACK_BYTES = 512 << 10
ROW_VECTORS = 8     # the most vectors of a tile of one row
FEW_ROWS = 8        # a tile has about as many
GUARD_STATEMENTS = 6    # that say whether a tile is needed


@dataclass
class _Operand:
    """An operand's labels, and the strides along them of all that is read for it."""

    labels: tuple
    strides: list[dict]

    def in_order(self, labels: Sequence) -> int:
        """How many of the things that are read lie in order along the last of `labels`."""
        return sum(s.get(labels[-1], 0) == 1 for s in self.strides) if labels else 0


@dataclass
class _InMemory(_Operand):
    """An operand that lies in memory."""

    source: Source


@dataclass
class _Computed(_Operand):
    """An operand that a prologue computes. `axis_of`: the axis of its region that a label is."""

    region: Region
    axis_of: dict

    @property
    def root(self) -> Node:
        """The node whose values are the operand's, perhaps with the axes in another order."""
        return self.region.outputs[0]


class ContractLowering:
    """Turns a region around a contraction into kernel calls: copies of operands that need one, then the product."""

    def __init__(self, name: str, product: Product, inside: Collection[Node], buffers: Mapping[Node, Buffer], target: Target,
                 line=None, few: tuple[Size, int] | None = None, part: Size = 0):
        """few: a size that is to be cut, and the most that a part will have of it. part: with it, the sums are cut into parts
        of so many terms, whose results are stored one after the other, and nothing else is computed.
        """
        self.part = part
        self.name, self.region, self.anchor, self.inside, self.few = name, product.epilogue, product.anchor, inside, few
        anchor = product.anchor
        self.buffers, self.target, self.line = buffers, target, line
        self.sizes = label_sizes(anchor)
        self.copies: list[Call] = []
        labels_a, labels_b, out = anchor.op.rule.labels(tuple(i.type for i in anchor.inputs), anchor.attrs)
        self.a, self.b = (self.side(node, labels, region) for node, labels, region in
                          zip(anchor.inputs, (labels_a, labels_b), product.prologues, strict=True))
        placement = self.region.placement[anchor]
        self.axis_of: dict = {label: placement[k] for k, label in enumerate(out)}
        self.out = [x for x in out if self.sizes[x] != 1]
        second = column_side(anchor)
        if self.region.memory and self.out:  # the result's axes are in another order in memory
            self.out.sort(key=lambda x: self.region.memory.index(self.axis_of[x]))
            second = 0 if self.out[-1] in self.a.labels and self.out[-1] not in self.b.labels else 1
        if second == 0:  # the contiguous axis of the result must come from the second operand
            self.a, self.b = self.b, self.a

    def side(self, node: Node, labels, region: Region | None) -> _InMemory | _Computed:
        if region is None:
            return in_memory(labels, self.with_memory(source_of(node, self.inside.__contains__)))
        axis_of = {x: a for x, a in zip(labels, region.placement[node], strict=True) if x is not None and a is not None}
        strides = [{x: s[axis] for x, axis in axis_of.items()} for s in addressed(replace(region, outputs=()))]
        return _Computed(tuple(x for x in labels if x is not None), strides, region, axis_of)

    def with_memory(self, source: Source) -> Source:
        """The source itself, or, of one number that kernels hold as a literal, one element of memory."""
        if not is_literal(source.node):
            return source
        type_ = TensorType(source.node.type.dtype, ())
        value, buffer = stand_in(type_), Buffer(f"{self.name}_number", type_.bytes)
        self.copies.append(fill_call(type_, source.node.attrs["value"].value.item(), buffer, self.line))
        self.buffers = {**self.buffers, value: buffer}
        return Source(value, source.strides, source.offset)

    def calls(self) -> list[Call]:
        """The kernel calls, in order."""
        on_a, on_b = set(self.a.labels), set(self.b.labels)
        live = {x for x in self.sizes if self.sizes[x] != 1}
        k = [x for x in self.a.labels if x in live and x not in self.out]
        m = [x for x in self.out if x in on_a and x not in on_b]
        n = [x for x in self.out if x in on_b and x not in on_a]
        batch = [x for x in self.out if x in on_a and x in on_b]
        self.a, self.b = (self.one_axis(s, k) for s in (self.a, self.b))
        m_extra, m_main = self.merged(m, rows=True)
        n_extra, n_main = self.merged(n)
        return [*self.copies, self.product([*batch, *m_extra, *n_extra], m_main, n_main, k)]

    def one_axis(self, side: _InMemory | _Computed, k: Sequence) -> _InMemory | _Computed:
        """The operand with its summed axes walkable as one: itself, or its values in memory in another order."""
        if self.mergeable(side.strides, k):
            return side
        labels = [x for x in side.labels if x not in k] + list(k)
        shape = tuple(self.sizes[x] for x in labels)
        dtype = self.anchor.type.dtype
        value = stand_in(TensorType(dtype, shape))
        buffer = Buffer(f"{self.name}_copy", dims.product(shape) * dtype.size)
        if isinstance(side, _Computed):
            place = {side.axis_of[x]: s for x, s in zip(labels, contiguous(shape), strict=True) if x in side.axis_of}
            strides = tuple(0 if a is None else place[a] for a in side.region.placement[side.root])
            region = replace(side.region, stores={side.root: (strides, 0)})
            self.copies += LoopLowering(self.name, region, {**self.buffers, side.root: buffer}, self.line).calls()
        else:
            source = Source(side.source.node, tuple(side.strides[0][x] for x in labels), side.source.offset)
            self.copies.append(copy_call("copy", value, source, self.buffers[source.node], buffer, line=self.line))
        self.buffers = {**self.buffers, value: buffer}
        return in_memory(labels, Source(value, contiguous(shape), 0))

    def mergeable(self, strides: Sequence[Mapping], labels: Sequence) -> bool:
        return all(s.get(x, 0) == s.get(y, 0) * self.sizes[y]
                   for s in strides for x, y in zip(labels, labels[1:], strict=False))

    def domain_strides(self) -> list[dict]:
        """Strides along the result's labels of everything that the epilogue addresses."""
        return [{x: s[self.axis_of[x]] for x in self.out} for s in addressed(self.region)]

    def merged(self, labels: Sequence, rows: bool = False) -> tuple[list, list]:
        """(labels that become loops around the product, labels that are walked as one axis): the last ones, but of `rows`
        rather others whose number is known to fill tiles than an unknown one, which may be 1.
        """
        strides = [*self.a.strides, *self.b.strides, *self.domain_strides()]
        groups: list[list] = []
        for label in labels:
            if groups and self.mergeable(strides, [groups[-1][-1], label]):
                groups[-1].append(label)
            else:
                groups.append([label])
        if not groups:
            return [], []
        counts = [dims.product(self.sizes[x] for x in group) for group in groups]
        main = groups[-1]
        if rows and not isinstance(counts[-1], int):
            main = max(groups, key=lambda g: c if isinstance(c := counts[groups.index(g)], int) and c >= FEW_ROWS else 0)
            main = main if isinstance(counts[groups.index(main)], int) else groups[-1]
        return [x for x in labels if x not in main], main

    def product(self, batch: Sequence, m: Sequence, n: Sequence, k: Sequence) -> Call:
        parameters = Parameters()
        sizes = {x: self.sizes[x] for x in self.sizes}
        count = {g: dims.product(sizes[x] for x in labels) for g, labels in (("m", m), ("n", n), ("k", k))}
        names = [(f"b{i}", [x]) for i, x in enumerate(batch)] + [("m", list(m)), ("n", list(n))]
        dtype = self.anchor.type.dtype.arithmetic
        lanes = self.target.vector_bytes // (8 if dtype.size == 8 else 4)
        m_rows = self.few[1] if self.few is not None and self.few[0] == count["m"] else count["m"]
        rows, vectors = choose_tile(m_rows, count["n"], lanes, self.target.registers)
        width = vectors * lanes
        groups = {**dict(names), "k": list(k)}
        a = self.operand(parameters, self.a, groups, "m", rows, packed=False)
        b = self.operand(parameters, self.b, groups, "n", width, packed=self.wants_packing({**count, "m": m_rows}, n, width))
        axes = [(name, [self.axis_of[x] for x in group]) for name, group in names]
        region = self.region
        strides = Strides(region, parameters, axes)
        if self.part != 0:
            epilogue = [self.partial_store(parameters, strides)]
        else:
            product, epilogue = rounded_product(self.anchor)
            writer = Writer(region, self.buffers, parameters, strides, (self.anchor, product))
            epilogue += writer.section([(x, True) for x in [self.anchor, *region.nodes] if x in region.outputs])
        m_size, n_size, k_size = (parameters.size(count[g], keep=(1,)) for g in "mnk")
        rows_first = not b.packing and (a.packing is not None or is_tall(m_rows, rows, count["n"], width))
        may_be_one = rows > 1 and not isinstance(count["m"], int) and not b.packing
        kernel = ContractKernel(self.name, parameters.buffer_names, parameters.size_names, dtype.short,
                                tuple((f"b{i}", parameters.size(sizes[x], keep=())) for i, x in enumerate(batch)),
                                m_size, n_size, k_size, a, b, rows, vectors, tuple(epilogue), 8 if dtype.size == 8 else 4,
                                part=parameters.size(self.part), rows_first=rows_first, may_fail=bool(parameters.failures),
                                row_vectors=row_vectors(count["n"], vectors, lanes) if may_be_one else 0,
                                where=cheap_guard(epilogue, "acc"))
        kernel = replace(kernel, buffers=parameters.buffer_names, sizes=parameters.size_names)
        work = 2 * dims.product(sizes[x] for x in batch) * count["m"] * count["n"] * count["k"]
        return parameters.call(kernel, operations=work, location=self.line)

    def partial_store(self, parameters: Parameters, strides: Strides) -> Statement:
        """What stores the results of a part of the sums."""
        type_, dtype = self.anchor.type, self.anchor.type.dtype.arithmetic
        places = strides.over_axes(contiguous(type_.shape), self.region.placement[self.anchor])
        at = Access(parameters.buffer(self.buffers[self.anchor], write=True), dtype.short,
                    (("part", parameters.size(type_.elements)), *places))
        return Store("acc", at)

    def operand(self, parameters: Parameters, side: _InMemory | _Computed, groups: Mapping[str, list], free: str, part: int,
                packed: bool) -> Operand:
        """The operand as tiles read it: where it lies, or `part` rows or columns at a time from memory of the thread's own."""
        if isinstance(side, _InMemory) and not packed:
            access = self.place(parameters, side, groups)
            batch = tuple((name, s) for name, s in access.strides if name not in (free, "k"))
            return Operand(replace(access, strides=batch), access.stride(free), access.stride("k"))
        along = free if free == "n" or side.in_order(groups[free]) > side.in_order(groups["k"]) else "k"
        if isinstance(side, _InMemory):
            load = Load("v0", self.place(parameters, side, groups))
            packing = Packing(along, (load,), load.name)
        else:
            axes = [(name, [side.axis_of[x] for x in group if x in side.axis_of]) for name, group in groups.items()]
            writer = Writer(side.region, self.buffers, parameters, Strides(side.region, parameters, axes))
            packing = Packing(along, tuple(writer.section([(side.root, False)])), writer.value(side.root))
        if free == "n":
            packing = self.turning(packing, groups)
        k = self.part if self.part != 0 else dims.product(self.sizes[x] for x in groups["k"])
        dtype = self.anchor.type.dtype.arithmetic
        buffer = Buffer(f"{self.name}_{'panel' if free == 'n' else 'rows'}", k * part * dtype.size, per_thread=True)
        access = Access(parameters.buffer(buffer, write=True), dtype.short)
        return Operand(access, *((1, part) if along == free else (parameters.size(k, keep=(1,)), 1)), packing)

    def turning(self, packing: Packing, groups: Mapping[str, list]) -> Packing:
        """The packing of columns, by blocks where what is read lies together along the sum, as in a product by the transpose of
        a matrix, and blocks fill.
        """
        counts = (dims.product(self.sizes[x] for x in groups[g]) for g in "nk")
        turned = replace(packing, turned="k")
        fills = all(not isinstance(c, int) or c >= BLOCK_EDGE for c in counts)
        return turned if fills and any(map(turned.is_turned, packing.prologue)) else packing

    def place(self, parameters: Parameters, side: _InMemory, groups: Mapping[str, list]) -> Access:
        """The address of an operand's element, over the named groups of labels."""
        strides, = side.strides
        found = ((name, parameters.size(strides.get(group[-1], 0) if group else 0)) for name, group in groups.items())
        return Access(parameters.buffer(self.buffers[side.source.node]), self.anchor.type.dtype.short,
                      tuple((name, s) for name, s in found if s != 0), parameters.offset(side.source.offset, alone=True))

    def wants_packing(self, count: Mapping, n: Sequence, width: int) -> bool:
        """Whether B must or should be packed."""
        item = self.anchor.type.dtype.arithmetic.size
        m, k = count["m"], count["k"]
        many = not isinstance(m, int) or m >= PACK_ROWS
        large = not isinstance(k, int) or not isinstance(count["n"], int) or k * count["n"] * item > PACK_BYTES
        wide = not isinstance(count["n"], int) or count["n"] > 2 * width
        return not self.b.in_order(n) or many and large and wide or not self.target.cheap_masks


def rounded_product(anchor: Node) -> tuple[str, list[Statement]]:
    """(name of a product's value, statements that make it of the sum "acc")."""
    stored = anchor.type.dtype
    if stored is stored.arithmetic:
        return "acc", []
    return "product", [Compute("product", stored.short, "acc", ("acc",))]


def cheap_guard(epilogue: Sequence[Statement], name: str) -> str:
    """What decides whether a product is needed, if it costs little to find out for a whole tile."""
    guard = guard_of(epilogue, name)
    return guard if guard and len(made_by(epilogue, guard)) <= GUARD_STATEMENTS else ""


def in_memory(labels: Sequence, source: Source) -> _InMemory:
    """An operand at `source`; a label that is None stands for an axis of size 1."""
    strides = {x: s for x, s in zip(labels, source.strides, strict=True) if x is not None}
    return _InMemory(tuple(strides), [strides], source)


def is_tall(m: Size, rows: int, n: Size, width: int) -> bool:
    """Whether a result has more rows of tiles than columns of them."""
    return isinstance(m, int) and isinstance(n, int) and -(-m // rows) > -(-n // width)


def row_vectors(n: Size, vectors: int, lanes: int) -> int:
    """The vectors of a tile of one row where tiles have `vectors`: enough to hide a multiply-add's latency, and to read B by
    long pieces; 0 where that is no more.
    """
    wanted = -(-n // lanes) if isinstance(n, int) else ROW_VECTORS // 2
    choice = range(ROW_VECTORS, ROW_VECTORS // 2 - 1, -1)
    best = wanted if wanted <= ROW_VECTORS else min(choice, key=lambda v: -(-wanted // v) * v)
    return best if best > vectors else 0


def choose_tile(m: Size, n: Size, lanes: int, registers: int, groups: int = 1) -> tuple[int, int]:
    """(rows, vectors) of the register tile: the one that wastes the fewest multiply-adds on this shape's edges. groups: see
    `ContractKernel`.

    Unknown sizes count as large. A tile needs a register for each of its sums, for a row of B, and one for A.
    """
    big = 512
    rows_wanted = m if isinstance(m, int) and m > 0 else big
    columns_wanted = n if isinstance(n, int) and n > 0 else big
    best, choice = float("inf"), (1, 1)
    for vectors in range(groups, max(groups, 4 if lanes > 1 else 8) + 1, groups):
        for rows in range(1, min(16, rows_wanted) + 1):
            beyond = vectors > groups and (vectors // groups - 1) * lanes >= columns_wanted
            if rows * vectors + vectors + 1 > registers or beyond:
                continue
            padded = -(-rows_wanted // rows) * rows * -(-columns_wanted // (vectors // groups * lanes)) * vectors * lanes
            latency = max(1.0, 8 / (rows * vectors))           # a chain of multiply-adds needs about 8 in flight
            loads = 1 + 0.15 * (rows + min(lanes, 2) * vectors) / (rows * vectors)
            cost = padded * latency * loads
            if cost < best:
                best, choice = cost, (rows, vectors)
    return choice
