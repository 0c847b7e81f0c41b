"""Lowering of contractions with windows: which axes are tiled, which are loops, and where each window leaves its array.

A window makes one operand's axis the sum of two axes of the loop nest: of the result's, and of a summed one. Both are then
ordinary strides of that operand, with a condition: the sum must lie inside the axis. Where sizes show that it always does,
nothing is left of the window. Else the summed axis has, at each point of the other, a part that exists (`Span`).
"""
from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from graphc.codegen.contractions import choose_tile
from graphc.codegen.copies import copy_call, stand_in
from graphc.codegen.kernel import GROUP, Access, Compute, Pool, Span, Statement, Store, Sum, WindowKernel
from graphc.codegen.loops import spread
from graphc.codegen.lower import Buffer, Call, Parameters, Target, typical
from graphc.codegen.pooling import PoolLowering
from graphc.codegen.statements import Strides, Writer
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.node import Node
from graphc.ir.op import Window
from graphc.ir.types import TensorType
from graphc.passes.products import Product
from graphc.passes.regions import Source, contiguous, source_of

PAIRED = 2.0        # how much longer a multiply-add takes that loads both factors
PAIRED_ROWS = 8     # of a tile of these: rows are images, whose windows must stay in the first cache
PAIRED_SUMS = 16    # and vectors of all its rows: more hide no more of the loads
START = 24.0        # what it takes to start a loop, in multiply-adds
EDGE = 4.0          # how much longer a row takes by itself than in a tile
SCATTERED = 6.0     # how much dearer an element is that lanes write one by one, in multiply-adds
COPIED = 4.0        # and an element of an operand that is copied first
NEAR = 48 << 10     # bytes that a tile may read before the next tile reads much of the same
MANY = 2048         # a sum of fewer terms is made at once
SHORT = 8           # vectors along an axis
FEW_TERMS = 1024    # a block of a sum
LARGE = 512         # what an unknown size counts as


@dataclass
class _Operand:
    """Where an operand is: its stride along each label of the loop nest."""

    source: Source
    labels: tuple
    strides: dict = field(default_factory=dict)
    offset: Size = 0


@dataclass
class _Bounded:
    """A window that may leave its array: coordinate = offset + scale * item + step * summed, by `divisor`, below `limit`."""

    side: int
    item: str
    summed: str
    scale: int
    step: int
    offset: Size
    divisor: int
    limit: Size
    label: str


@dataclass
class _Choice:
    """What plays m and n: `rows` (or None) on operand `first`, `columns` on the other; with `lanes`, dot products along it."""

    cost: float
    first: int
    rows: str | None
    columns: str | None
    lanes: str | None
    tile: tuple[int, int]
    paired: bool = False    # `columns` is on both operands


class WindowLowering:
    """Turns a region around a contraction with windows into kernel calls: copies of operands, then the sums."""

    def __init__(self, name: str, product: Product, inside: Collection[Node], buffers: Mapping[Node, Buffer], target: Target,
                 copied: dict[tuple, Buffer], line=None):
        """copied: see `copy`."""
        anchor, region = product.anchor, product.epilogue
        self.name, self.region, self.anchor, self.buffers = name, region, anchor, dict(buffers)
        self.target, self.copied, self.line = target, copied, line
        types = tuple(i.type for i in anchor.inputs)
        labels_a, labels_b, out = anchor.op.rule.labels(types, anchor.attrs)
        self.sizes = {x: d for labels, t in zip((labels_a, labels_b, out), (*types, anchor.type), strict=True)
                      for x, d in zip(labels, t.shape, strict=True) if x is not None}
        self.out = tuple(out)
        self.axis_of = dict(zip(out, region.placement[anchor], strict=True))
        self.operands = [_Operand(source_of(i, inside.__contains__), tuple(labels))
                         for i, labels in zip(anchor.inputs, (labels_a, labels_b), strict=True)]
        self.windows = anchor.op.rule.windows(types, anchor.attrs)
        self.copies: list[Call] = []
        self.dtype = anchor.type.dtype.arithmetic  # of the sums
        self.lanes = target.vector_bytes // (8 if self.dtype.size == 8 else 4)
        self.bounded: list[_Bounded] = []
        self.summed: list = []
        self.pool = PoolLowering(name, product.pooling, region) if product.pooling else None
        if self.pool is not None:
            self.buffers[self.pool.value] = self.pool.map
        self.place_operands()

    # the loop nest -----------------------------------------------------------------------------------------------------

    def place_operands(self) -> None:
        """Each operand's strides along the labels of the loop nest, windows resolved."""
        self.bounded = []
        self.summed = list(dict.fromkeys(x for o in self.operands for x in o.labels if x not in self.out and x is not None))
        for operand in self.operands:
            operand.strides = {x: s for x, s in zip(operand.labels, operand.source.strides, strict=True) if x is not None}
            operand.offset = operand.source.offset
        for window in self.windows:
            self.place_window(window)

    def place_window(self, w: Window) -> None:
        if w.position in self.out:
            found = w.output, w.position, w.tap, 1, -w.dilation, w.low, w.stride
        elif w.output in self.out:
            found = w.position, w.output, w.tap, w.stride, w.dilation, -w.low, 1
        else:
            found = w.position, w.tap, w.output, w.dilation, w.stride, -w.low, 1
        label, item, summed, scale, step, offset, divisor = found
        side = 0 if label in self.operands[0].strides else 1
        operand = self.operands[side]
        stride = operand.strides.pop(label)
        if label in self.summed:
            self.summed.remove(label)
        limit = self.sizes[label]
        if divisor == 1 and _stays_inside(offset, (scale, self.sizes[item]), (step, self.sizes[summed]), limit):
            operand.strides[item] = operand.strides.get(item, 0) + scale * stride
            operand.strides[summed] = operand.strides.get(summed, 0) + step * stride
            operand.offset = operand.offset + offset * stride
        else:
            operand.strides[label] = stride
            self.bounded.append(_Bounded(side, item, summed, scale, step, offset, divisor, limit, label))

    def live(self, label) -> bool:
        return self.sizes[label] != 1

    # the choice --------------------------------------------------------------------------------------------------------

    def calls(self) -> list[Call]:
        """The kernel calls, in order."""
        choice = self.choose()
        for side, label in self.wanted_last(choice):
            if label is not None and self.operands[side].strides.get(label, 1) != 1:
                self.copy(side, label)
        pooled = self.is_pooled(choice)
        apart = self.pool.apart(self.buffers, self.line) if self.pool is not None and not pooled else []
        return [*self.copies, self.product(choice, pooled), *apart]

    def is_pooled(self, choice: _Choice) -> bool:
        """Whether the kernel pools its own tiles."""
        if self.pool is None or choice.lanes is not None or choice.columns is None or self.anchor.type.dtype is not self.dtype \
                or self.pool.value.type.dtype is not self.dtype or any(b.item == choice.rows for b in self.bounded):
            return False
        few = self.number(dims.product(self.sizes[x] for x in self.summed)) < MANY  # of more, tiles keep sums of a part
        return few and self.pool.fits(self.region, None if choice.rows is None else self.axis_of[choice.rows],
                                      self.axis_of[choice.columns])

    def wanted_last(self, choice: _Choice) -> list[tuple[int, str | None]]:
        """(operand, label that must be contiguous in it)."""
        if choice.lanes is not None or choice.paired:
            return [(side, choice.lanes or choice.columns) for side in (0, 1)]
        return [(1 - choice.first, choice.columns)]

    def own(self, side: int) -> list:
        """The labels of the result that move one operand alone and have no span."""
        fixed = {b.item for b in self.bounded}
        other = self.operands[1 - side].strides
        return [x for x in self.out if x in self.operands[side].strides and x not in other and x not in fixed and self.live(x)]

    def crossing(self, side: int) -> list:
        """The labels of the result that move one operand alone, by a window which leaves its array near both ends."""
        other = self.operands[1 - side].strides
        return [b.item for b in self.bounded if b.side == side and b.divisor == 1 and b.item in self.out
                and b.item not in other and self.live(b.item)]

    def inner(self, label) -> tuple[Size, float]:
        """(number of places of a window that lie inside its array, how much longer all take than if all did)."""
        b = next(b for b in self.bounded if b.item == label)
        size, reach, numbers = self.sizes[label], self.sizes[b.summed], (b.offset, b.limit)
        if not all(isinstance(v, int) for v in (size, reach, *numbers)):
            return size, 1.0
        whole = sum(min(at, at + b.step * (reach - 1)) >= 0 and max(at, at + b.step * (reach - 1)) < b.limit
                    for at in range(b.offset, b.offset + b.scale * size, b.scale))
        return whole or 1, (whole + EDGE * (size - whole)) / size

    def choose(self) -> _Choice:
        """The assignment of labels that costs least: filled tiles, few copies, stores in order."""
        found = [c for first in (0, 1) for c in (*self.tiles(first), *self.dots(first))]
        return min(found, key=lambda c: c.cost)

    def tiles(self, first: int) -> list[_Choice]:
        """Lanes along a label of the result."""
        found = []
        tied = {x for w in self.windows for x in (w.position, w.output, w.tap)}
        own = [x for x in self.own(1 - first) if x not in tied]
        shared = [x for x in self.out if x not in tied and self.live(x) and all(x in o.strides for o in self.operands)]
        for columns in [*own, *shared]:
            for rows in [*self.own(first), *self.crossing(first), None]:
                m, n, longer = self.known(self.rows(rows)), self.guessed(columns), 1.0
                if rows in self.crossing(first):
                    m, longer = self.inner(rows)
                tile = choose_tile(m, n, self.lanes, self.target.registers)
                if columns in shared:
                    tile = max(1, min(tile[0], PAIRED_ROWS, PAIRED_SUMS // tile[1])), tile[1]
                cost = tile_cost(m, n, tile, self.lanes) * longer + self.moving(1 - first, columns) + self.storing(columns)
                if columns in shared:
                    cost += PAIRED - 1 + self.moving(first, columns)
                found.append(_Choice(cost, first, rows, columns, None, tile, columns in shared))
        return found

    def dots(self, first: int) -> list[_Choice]:
        """Lanes along a summed label."""
        tied = {x for w in self.windows for x in (w.position, w.output, w.tap)}
        found = []
        both = [x for x in self.summed if x not in tied and all(x in o.strides for o in self.operands)]
        for lanes in both:
            for rows in [*self.own(first), None]:
                for columns in [*self.own(1 - first), None]:
                    m, n, k = self.guessed(rows), self.guessed(columns), self.guessed(lanes)
                    tile = choose_tile(m, n, 1, self.target.registers - 1)
                    steps = -(-max(_number(k), 1) // self.lanes)
                    longer = steps * self.lanes / max(_number(k), 1) * (1 + START / (tile[0] * tile[1] * steps))
                    cost = tile_cost(m, n, tile, 1) * longer + self.moving(0, lanes) + self.moving(1, lanes) + self.joining()
                    found.append(_Choice(cost, first, rows, columns, lanes, tile))
        return found

    def guessed(self, label) -> Size:
        """The size of a label as far as it is known; 1 of no label."""
        return 1 if label is None else self.known(self.sizes[label])

    def rows(self, label) -> Size:
        """The size of what plays m: where the result is pooled, the number of windows."""
        size = 1 if label is None else self.sizes[label]
        return size if self.pool is None or size == 1 else self.pool.windows(self.axis_of[label], size)

    def known(self, size: Size) -> Size:
        """A size; a batch that will be small counts as one image."""
        return dims.substitute(size, dict.fromkeys(self.target.few, 1))

    def number(self, size: Size) -> int:
        """What a size counts as."""
        return _number(self.known(size))

    def work(self) -> float:
        """Multiply-adds."""
        return self.number(dims.product(self.sizes[x] for x in (*self.out, *self.summed)))

    def moving(self, side: int, label) -> float:
        """The cost of a copy of an operand in which `label` is last, where it needs one, for each multiply-add."""
        operand = self.operands[side]
        if operand.strides.get(label, 1) == 1:
            return 0.0
        return COPIED * self.lanes * self.number(self.anchor.inputs[side].type.elements) / max(self.work(), 1)

    def storing(self, columns) -> float:
        """The cost of stores that are not in order, for each multiply-add."""
        strides = [spread(self.region, self.region.stored(n)[0], self.region.placement[n])[self.axis_of[columns]]
                   for n in self.region.outputs]
        return sum(s != 1 for s in strides) * self.joining()

    def joining(self) -> float:
        """The cost of the sums across lanes, for each multiply-add."""
        return SCATTERED * self.lanes * self.number(self.anchor.type.elements) / max(self.work(), 1)

    def copy(self, side: int, label) -> None:
        """Copy an operand to memory in which `label` is last, unless another convolution has done so."""
        operand, node = self.operands[side], self.anchor.inputs[side]
        order = sorted(range(len(operand.labels)), key=lambda k: operand.labels[k] == label)
        shape = tuple(node.type.shape[k] for k in order)
        value = stand_in(TensorType(node.type.dtype, shape))
        source = Source(operand.source.node, tuple(operand.source.strides[k] for k in order), operand.source.offset)
        key = self.buffers[source.node], shape, source.strides, source.offset
        buffer = self.copied.get(key)
        if buffer is None:
            buffer = self.copied[key] = Buffer(f"{self.name}_copy", dims.product(shape) * node.type.dtype.size)
            self.copies.append(copy_call("copy", value, source, self.buffers[source.node], buffer, line=self.line))
        self.buffers[value] = buffer
        self.operands[side] = _Operand(Source(value, contiguous(shape), 0), tuple(operand.labels[k] for k in order))
        self.place_operands()

    # the kernel --------------------------------------------------------------------------------------------------------

    def product(self, choice: _Choice, pooled: bool) -> Call:
        parameters = Parameters()
        a, b = self.operands[choice.first], self.operands[1 - choice.first]
        loops = sorted((x for x in self.out if self.live(x) and x not in (choice.rows, choice.columns)), key=self.outer_first)
        names = {x: f"b{k}" for k, x in enumerate(loops)}
        crossed = [b for b in self.bounded if b.item == choice.rows]
        groups = [(names[x], [x]) for x in loops]
        groups += [(axis, [] if x is None else [x]) for axis, x in (("m", choice.rows), ("n", choice.columns))]
        axes = [(name, [self.axis_of[x] for x in group]) for name, group in groups]
        places = [Access(parameters.buffer(self.buffers[o.source.node]), self.anchor.type.dtype.short,
                         tuple((names[x], parameters.size(o.strides[x])) for x in loops if o.strides.get(x, 0) != 0),
                         parameters.size(o.offset)) for o in (a, b)]
        rows, vectors = choice.tile
        width = vectors * (1 if choice.lanes is not None else self.lanes)
        m = self.rows(choice.rows) if pooled else self.sizes.get(choice.rows, 1)
        n = self.sizes.get(choice.columns, 1)
        sums = self.sums(parameters, a, b, choice, {**names, **{w.item: "m" for w in crossed}})
        free = [w.scale * a.strides[w.label] for w in crossed] or [0 if choice.rows is None else a.strides[choice.rows]]
        free.append(0 if choice.columns is None else b.strides[choice.columns])
        pool = None
        loop_sizes = [(names[x], self.sizes[x]) for x in loops]
        if pooled and self.pool is not None:
            own = {name: group[0] for name, group in axes if group}
            pool = self.pool.kernel_part(self.buffers, parameters, own, (rows, width))
            loop_sizes = self.pool.loops(pool, own, loop_sizes)
            step = self.pool.step(own.get("m"))
            if step.tap is not None:
                places[0] = replace(places[0], strides=(*places[0].strides, ("tm", parameters.size(free[0]))))
                free[0] = free[0] * step.step
        chunk = self.chunk(sums, rows + width, parameters) if pool is None else 0
        whole = isinstance(m, int) and m % rows == 0 and not crossed
        strides = (0, 1, free[0]) if whole else (0, 1)      # a number in the code puts all rows at fixed distances
        totals = Buffer(f"{self.name}_totals", GROUP * rows * vectors * self.target.vector_bytes, per_thread=True)
        kernel = WindowKernel(
            self.name, (), (), self.dtype.short, tuple((name, parameters.size(d, keep=())) for name, d in loop_sizes),
            parameters.size(m, keep=(1,)), parameters.size(n, keep=(1,)), sums, places[0],
            parameters.size(free[0], keep=strides), places[1], parameters.size(free[1]), rows, vectors,
            choice.lanes is not None, isinstance(n, int) and n % width == 0, self.epilogue(parameters, axes, pool),
            8 if self.dtype.size == 8 else 4, next((self.bounded.index(w) for w in crossed), -1), chunk,
            parameters.buffer(totals, write=True) if chunk else "", choice.paired, self.is_short(choice.lanes), whole,
            self.has_few_terms(), pool)
        kernel = replace(kernel, buffers=parameters.buffer_names, sizes=parameters.size_names,
                         may_fail=bool(parameters.failures))
        return parameters.call(kernel, operations=2 * dims.product(self.sizes[x] for x in (*self.out, *self.summed)),
                               location=self.line)

    def epilogue(self, parameters: Parameters, axes: Sequence[tuple[str, list[int]]],
                 pool: Pool | None) -> tuple[Statement, ...]:
        """What is done with each sum; one that is to be pooled is kept for that."""
        stored = self.anchor.type.dtype
        result = "acc" if stored is self.dtype else "product"
        writer = Writer(self.region, self.buffers, parameters, Strides(self.region, parameters, axes), (self.anchor, result))
        found = writer.section([(x, pool is None) for x in [self.anchor, *self.region.nodes] if x in self.region.outputs])
        if pool is not None:
            found.append(Store(writer.value(self.region.outputs[0]), pool.access))
        if stored is not self.dtype:
            found.insert(0, Compute(result, stored.short, "acc", ("acc",)))
        return tuple(found)

    def has_few_terms(self) -> bool:
        """Whether sums surely have no more terms than a block."""
        terms = dims.product(self.sizes[x] for x in self.summed)
        return isinstance(terms, int) and terms <= FEW_TERMS

    def is_short(self, lanes) -> bool:
        """Whether a summed axis that lanes run along has few vectors: a loop over them would hardly start before it ends."""
        return lanes is not None and typical(self.known(self.sizes[lanes])) <= SHORT * self.lanes

    def chunk(self, sums: Sequence[Sum], free: int, parameters: Parameters) -> int:
        """How many steps of the first sum a tile with `free` rows and columns takes before the next tile's turn; 0: all."""
        sizes = [typical(self.known(parameters.sizes[int(s.size[1:])] if isinstance(s.size, str) else s.size)) for s in sums]
        read = free * self.dtype.size * math.prod(sizes)
        span = sums[0].span if sums else None
        if len(sums) < 2 or math.prod(sizes) < MANY or span and span.divisor > 1:
            return 0
        found = max(1, NEAR * sizes[0] // read)
        return found if found < sizes[0] else 0

    def outer_first(self, label) -> float:
        """Sorts loops by how far they move in the result."""
        strides = [spread(self.region, self.region.stored(n)[0], self.region.placement[n])[self.axis_of[label]]
                   for n in self.region.outputs]
        return -max(_number(s) for s in strides)

    def sums(self, parameters: Parameters, a: _Operand, b: _Operand, choice: _Choice, names: Mapping) -> tuple[Sum, ...]:
        """The summed axes, outermost first: those with spans, then the others, joined where both operands allow it."""
        spans = {w.summed: w for w in self.bounded}
        plain = [x for x in self.summed if x not in spans and self.live(x)]
        plain.sort(key=lambda x: (x == choice.lanes, -_number(a.strides.get(x, 0)), -_number(b.strides.get(x, 0))))
        joined: list[tuple[Size, Size, Size]] = []
        for x in plain:
            entry = self.sizes[x], a.strides.get(x, 0), b.strides.get(x, 0)
            if joined and x != choice.lanes and all(o == i * entry[0] for o, i in zip(joined[-1][1:], entry[1:], strict=True)):
                entry = joined.pop()[0] * entry[0], *entry[1:]
            joined.append(entry)
        found = [self.span_sum(parameters, w, a, b, names) for w in self.bounded]
        return (*found, *(Sum(parameters.size(d, keep=()), parameters.size(p), parameters.size(q)) for d, p, q in joined))

    def span_sum(self, parameters: Parameters, w: _Bounded, a: _Operand, b: _Operand, names: Mapping) -> Sum:
        moved = "a" if self.operands[w.side] is a else "b"
        span = Span(moved, names.get(w.item, ""), w.scale, w.step, parameters.size(w.offset), w.divisor,
                    parameters.size(w.limit, keep=()), parameters.size(self.operands[w.side].strides[w.label]))
        strides = [0 if side == moved else parameters.size(o.strides.get(w.summed, 0)) for side, o in (("a", a), ("b", b))]
        return Sum(parameters.size(self.sizes[w.summed], keep=()), strides[0], strides[1], span)


def _number(size: Size) -> int:
    """What a size counts as."""
    return size if isinstance(size, int) else int(dims.substitute(size, dict.fromkeys(dims.names(size), LARGE)))


def _stays_inside(offset: Size, *terms_and_limit) -> bool:
    """Whether offset + sum(scale * coordinate) is in [0, limit) for all coordinates below their sizes."""
    *terms, limit = terms_and_limit
    if not all(isinstance(v, int) for v in (offset, limit, *(n for _, n in terms))):
        return False
    ends = [s * max(n - 1, 0) for s, n in terms]
    return offset + sum(min(e, 0) for e in ends) >= 0 and offset + sum(max(e, 0) for e in ends) < limit


def tile_cost(m: Size, n: Size, tile: tuple[int, int], lanes: int) -> float:
    """About how many times as long as at full speed a product of m rows and n columns takes in such tiles."""
    rows, vectors = tile
    m, n = _number(m) or 1, _number(n) or 1
    padded = -(-m // rows) * rows * -(-n // (vectors * lanes)) * vectors * lanes
    latency = max(1.0, 8 / (rows * vectors))
    loads = 1 + 0.15 * (rows + 2 * vectors) / (rows * vectors)
    return padded / (m * n) * latency * loads
