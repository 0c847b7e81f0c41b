"""Lowering of contraction regions: which axes play m, n and k, the size of the register tile, whether B is packed."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.copies import copy_call, stand_in
from graphc.codegen.kernel import Access, ContractKernel, Operand
from graphc.codegen.loops import spread
from graphc.codegen.lower import Buffer, Call, Parameters, Target
from graphc.codegen.statements import Strides, Writer, item_bytes
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.node import Node
from graphc.ir.op import Kind
from graphc.ir.types import TensorType
from graphc.passes.regions import Region, Source, contiguous

PACK_ROWS = 64      # B is packed when at least so many rows of A use each panel and it does not fit the first cache
PACK_BYTES = 96 << 10


@dataclass
class _Side:
    """An operand: where it is, and its stride along each label."""

    source: Source
    strides: dict

    def stride(self, label) -> Size:
        return self.strides.get(label, 0)


class ContractLowering:
    """Turns a region around a contraction into kernel calls: copies of operands that need one, then the product."""

    def __init__(self, name: str, region: Region, anchor: Node, sources: tuple[Source, Source],
                 buffers: Mapping[Node, Buffer], target: Target, line=None):
        self.name, self.region, self.anchor, self.buffers = name, region, anchor, buffers
        self.target, self.line = target, line
        self.sizes: dict = {}
        self.copies: list[Call] = []
        labels_a, labels_b, out = anchor.op.rule.labels(tuple(i.type for i in anchor.inputs), anchor.attrs)
        self.a = self.side(anchor.inputs[0], labels_a, sources[0])
        self.b = self.side(anchor.inputs[1], labels_b, sources[1])
        self.out = [x for x in out if self.sizes[x] != 1]
        placement = region.placement[anchor]
        self.axis_of: dict = {label: placement[k] for k, label in enumerate(out)}

    def side(self, node: Node, labels, source: Source) -> _Side:
        strides: dict = {}
        for label, size, stride in zip(labels, node.type.shape, source.strides, strict=True):
            if label is not None:
                self.sizes[label] = size
                strides[label] = stride
        return _Side(source, strides)

    def calls(self) -> list[Call]:
        """The kernel calls, in order."""
        on_a, on_b = set(self.a.strides), set(self.b.strides)
        last = self.out[-1] if self.out else None
        if last in on_a and last not in on_b:  # the contiguous axis of the result must come from the second operand
            self.a, self.b = self.b, self.a
            on_a, on_b = on_b, on_a
        live = {x for x in self.sizes if self.sizes[x] != 1}
        k = [x for x in self.a.strides if x in live and x not in self.out]
        m = [x for x in self.out if x in on_a and x not in on_b]
        n = [x for x in self.out if x in on_b and x not in on_a]
        batch = [x for x in self.out if x in on_a and x in on_b]
        self.a, self.b = (self.one_axis(s, k) for s in (self.a, self.b))
        m_extra, m_main = self.merged(m)
        n_extra, n_main = self.merged(n)
        return [*self.copies, self.product([*batch, *m_extra, *n_extra], m_main, n_main, k)]

    def one_axis(self, side: _Side, k: Sequence) -> _Side:
        """The operand with its summed axes walkable as one: itself, or a copy."""
        if self.mergeable([side.strides], k):
            return side
        labels = [x for x in side.strides if x not in k] + list(k)
        shape = tuple(self.sizes[x] for x in labels)
        dtype = self.anchor.inputs[0].type.dtype
        value = stand_in(TensorType(dtype, shape))
        buffer = Buffer(f"{self.name}_copy", dims.product(shape) * dtype.size)
        source = Source(side.source.node, tuple(side.strides[x] for x in labels), side.source.offset)
        self.copies.append(copy_call("copy", value, source, self.buffers[side.source.node], buffer, line=self.line))
        self.buffers = {**self.buffers, value: buffer}
        return _Side(Source(value, contiguous(shape), 0), dict(zip(labels, contiguous(shape), strict=True)))

    def mergeable(self, strides: Sequence[Mapping], labels: Sequence) -> bool:
        return all(s.get(x, 0) == s.get(y, 0) * self.sizes[y]
                   for s in strides for x, y in zip(labels, labels[1:], strict=False))

    def domain_strides(self) -> list[dict]:
        """Strides along the result's labels of everything that the epilogue addresses."""
        region, found = self.region, []
        nodes = [(n, s.strides) for n, s in region.loads.items() if n in region.placement]
        nodes += [(n, contiguous(n.type.shape)) for n in (*region.outputs, *region.nodes) if n.op.kind is not Kind.INDEX]
        nodes += [(n, n.op.rule.value(n.type, n.attrs)[1]) for n in region.nodes if n.op.kind is Kind.INDEX]
        for node, strides in nodes:
            over = spread(region, strides, region.placement[node])
            found.append({x: over[self.axis_of[x]] for x in self.out})
        return found

    def merged(self, labels: Sequence) -> tuple[list, list]:
        """(labels that become loops around the product, labels that are walked as one axis)."""
        strides = [self.a.strides, self.b.strides, *self.domain_strides()]
        main = list(labels[-1:])
        for label in reversed(labels[:-1]):
            if not self.mergeable(strides, [label, main[0]]):
                break
            main.insert(0, label)
        return list(labels[:len(labels) - len(main)]), main

    def product(self, batch: Sequence, m: Sequence, n: Sequence, k: Sequence) -> Call:
        parameters = Parameters()
        sizes = {x: self.sizes[x] for x in self.sizes}
        count = {g: dims.product(sizes[x] for x in labels) for g, labels in (("m", m), ("n", n), ("k", k))}
        names = [(f"b{i}", [x]) for i, x in enumerate(batch)] + [("m", list(m)), ("n", list(n))]
        a, b = (self.operand(parameters, s, free, k, names) for s, free in ((self.a, m), (self.b, n)))
        dtype = self.anchor.type.dtype
        lanes = self.target.vector_bytes // (8 if dtype.size == 8 else 4)
        rows, vectors = choose_tile(count["m"], count["n"], lanes, self.target.registers)
        pack = self.packing(parameters, b, count, vectors * lanes)
        axes = [(name, [self.axis_of[x] for x in group]) for name, group in names]
        writer = Writer(self.region, self.buffers, parameters, Strides(self.region, parameters, axes), (self.anchor, "acc"))
        region = self.region
        order = [self.anchor, *region.nodes]
        epilogue = writer.section([(x, True) for x in order if x in region.outputs])
        m_size, n_size, k_size = (parameters.size(count[g], keep=(1,)) for g in "mnk")
        kernel = ContractKernel(self.name, parameters.buffer_names, parameters.size_names, dtype.short,
                                tuple((f"b{i}", parameters.size(sizes[x], keep=())) for i, x in enumerate(batch)),
                                m_size, n_size, k_size, a, b, rows, vectors, pack, tuple(epilogue), item_bytes([], []),
                                rows_first=not pack and is_tall(count["m"], rows, count["n"], vectors * lanes),
                                may_fail=bool(parameters.failures))
        kernel = _with_parameters(kernel, parameters, 8 if dtype.size == 8 else 4)
        work = 2 * dims.product(sizes[x] for x in batch) * count["m"] * count["n"] * count["k"]
        return parameters.call(kernel, operations=work, location=self.line)

    def operand(self, parameters: Parameters, side: _Side, free: Sequence, k: Sequence, names) -> Operand:
        strides = tuple((name, parameters.size(side.stride(group[-1]))) for name, group in names[:-2]
                        if side.stride(group[-1]) != 0)
        access = Access(parameters.buffer(self.buffers[side.source.node]), self.anchor.type.dtype.short, strides,
                        parameters.size(side.source.offset))
        return Operand(access, parameters.size(side.stride(free[-1]) if free else 0),
                       parameters.size(side.stride(k[-1]) if k else 0))

    def packing(self, parameters: Parameters, b: Operand, count: Mapping, width: int) -> str:
        """The panel buffer, when B must or should be packed; else ""."""
        item = self.anchor.type.dtype.size
        m, k = count["m"], count["k"]
        many = not isinstance(m, int) or m >= PACK_ROWS
        large = not isinstance(k, int) or not isinstance(count["n"], int) or k * count["n"] * item > PACK_BYTES
        wide = not isinstance(count["n"], int) or count["n"] > 2 * width
        if b.free == 1 and not (many and large and wide) and self.target.cheap_masks:
            return ""
        panel = Buffer(f"{self.name}_panel", k * width * item, per_thread=True)
        parameters.reads.discard(panel)
        return parameters.buffer(panel, write=True)


def _with_parameters(kernel: ContractKernel, parameters: Parameters, width: int) -> ContractKernel:
    return replace(kernel, buffers=parameters.buffer_names, sizes=parameters.size_names, item_bytes=width)


def is_tall(m: Size, rows: int, n: Size, width: int) -> bool:
    """Whether a result has more rows of tiles than columns of them."""
    return isinstance(m, int) and isinstance(n, int) and -(-m // rows) > -(-n // width)


def choose_tile(m: Size, n: Size, lanes: int, registers: int) -> tuple[int, int]:
    """(rows, vectors) of the register tile: the one that wastes the fewest multiply-adds on this shape's edges.

    Unknown sizes count as large. A tile needs a register for each of its sums, for a row of B, and one for A.
    """
    big = 512
    rows_wanted = m if isinstance(m, int) and m > 0 else big
    columns_wanted = n if isinstance(n, int) and n > 0 else big
    best, choice = float("inf"), (1, 1)
    for vectors in range(1, 5):
        for rows in range(1, 17):
            if rows * vectors + vectors + 1 > registers or vectors > 1 and (vectors - 1) * lanes >= columns_wanted:
                continue
            padded = -(-rows_wanted // rows) * rows * -(-columns_wanted // (vectors * lanes)) * vectors * lanes
            latency = max(1.0, 8 / (rows * vectors))           # a chain of multiply-adds needs about 8 in flight
            loads = 1 + 0.15 * (rows + 2 * vectors) / (rows * vectors)
            cost = padded * latency * loads
            if cost < best:
                best, choice = cost, (rows, vectors)
    return choice
