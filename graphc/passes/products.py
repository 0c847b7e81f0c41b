"""What a region around a contraction is: elementwise work before it, on its operands, and after it, on its result.

The epilogue spans the result's axes. Behind that of a convolution there may be a pooling: reductions of windows, side by side,
of what the epilogue makes. A prologue spans its operand's axes and computes the operand while it is packed, so that it never
lies in memory: an element is computed again for each part of the other operand that it meets (`fuse` says when that pays).
What both take is computed in both.
"""
from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from graphc.ir.dims import Size
from graphc.ir.node import Node
from graphc.ir.op import Kind
from graphc.passes.regions import MOVEMENT, NotARegion, Region, Source, analyse, is_size_value, source_of, through

POOLS = {Kind.ELEMENTWISE, Kind.REDUCE, Kind.INDEX}
MOST_TAPS = 16      # places of a pooling window: a tile is computed for each of them, and kept until the last one is there


@dataclass(frozen=True)
class Pooled:
    """How an axis of what is pooled is walked: place = step * (place along axis `window`) + (place along axis `tap`)."""

    window: int | None  # an axis of the pooling's region; None where there is but one window
    step: int = 1
    tap: int | None = None
    taps: int = 1


@dataclass
class Pooling:
    """Reductions of windows of `value`, what an epilogue makes. `region` takes it from outside, and walks its axes so."""

    region: Region
    value: Node
    axes: tuple[Pooled, ...]


@dataclass
class Product:
    """The analysis of a region around a contraction. A prologue is None where the operand lies in memory."""

    anchor: Node
    epilogue: Region
    prologues: tuple[Region | None, Region | None]
    pooling: Pooling | None = None

    @property
    def last(self) -> Region:
        """The region that makes the outputs."""
        return self.epilogue if self.pooling is None else self.pooling.region


def analyse_product(order: Sequence[Node], members: Iterable[Node], outputs: Sequence[Node], anchor: Node) -> Product:
    """The epilogue and the prologues of the `members`, which come in `order`, around a contraction. Raises NotARegion."""
    inside = set(members)
    first, second = (_prologue(order, inside, outputs, anchor, side) for side in (0, 1))
    behind = _behind(outputs, inside - {anchor})
    value = _pooled_value(order, behind, anchor)
    if value is None:
        return Product(anchor, analyse(order, behind, outputs, anchor), (first, second))
    before = _behind([value], inside - {anchor})
    made: set[Node] = {anchor}
    for node in order:
        if node in before and not made.isdisjoint(node.inputs):
            made.add(node)
    epilogue = analyse(order, before, (value,), anchor)
    pooling = _pooling(order, behind - made, outputs, value)
    slides = {label for w in anchor.op.rule.windows(tuple(i.type for i in anchor.inputs), anchor.attrs)
              for label in (w.position, w.output)}
    placed = dict(zip(epilogue.placement[anchor], _labels(anchor)[2], strict=True))
    if any(axis.tap is not None and placed.get(place) not in slides
           for axis, place in zip(pooling.axes, epilogue.placement[value], strict=True)):
        raise NotARegion("a reduction of a contraction")
    return Product(anchor, epilogue, (first, second), pooling)


def _pooled_value(order: Sequence[Node], behind: Collection[Node], anchor: Node) -> Node | None:
    """What the first reduction behind a convolution reduces windows of."""
    first = next((n for n in order if n in behind and n.op.kind is Kind.REDUCE), None)
    if first is None or not anchor.op.rule.windows(tuple(i.type for i in anchor.inputs), anchor.attrs):
        return None
    value = first.inputs[0]
    while value.op.kind in MOVEMENT and value in behind:
        value = value.inputs[0]
    return value if value is anchor or value in behind else None


def _pooling(order: Sequence[Node], members: set[Node], outputs: Sequence[Node], value: Node) -> Pooling:
    """The analysis of what comes after `value`, whose windows must lie side by side. Raises NotARegion."""
    if value in outputs:
        raise NotARegion(f"{value.label} is reduced and must be in memory too")
    region = analyse(order, members, outputs)
    for node in region.nodes:
        if node.op.kind not in POOLS or node.op.kind is Kind.ELEMENTWISE and node.op.rule.fails:
            raise NotARegion(f"{node.label} is made after a reduction of a contraction")
    found = {_walked(load, value, region, members) for load, source in region.loads.items() if source.node is value}
    if len(found) != 1:
        raise NotARegion(f"{value.label} is taken in several ways")
    axes, = found
    taken = [a for axis in axes for a in (axis.window, axis.tap) if a is not None]
    if sorted(taken) != list(range(len(region.sizes))) or math.prod(a.taps for a in axes) > MOST_TAPS:
        raise NotARegion(f"{value.label} is not reduced by small windows")
    return Pooling(region, value, axes)


def _walked(load: Node, value: Node, region: Region, members: set[Node]) -> tuple[Pooled, ...]:
    """How the axes of `value` are walked by a load of it."""
    found = []
    for offset, steps in _coordinates(load, value, members.__contains__):
        by_axis = {a: s for s, a in zip(steps, region.placement[load], strict=True) if a is not None and s != 0}
        windows = [a for a in by_axis if a not in region.reduced]
        taps = [a for a in by_axis if a in region.reduced]
        if offset != 0 or len(windows) > 1 or len(taps) > 1:
            raise NotARegion(f"{value.label} is moved before it is reduced")
        size, step = region.sizes[taps[0]] if taps else 1, by_axis[windows[0]] if windows else 1
        if not isinstance(size, int) or not isinstance(step, int) or taps and by_axis[taps[0]] != 1 or \
                windows and step < size or not taps and step != 1:
            raise NotARegion(f"windows of {value.label} do not lie side by side")
        found.append(Pooled(windows[0] if windows else None, step, taps[0] if taps else None, size))
    return tuple(found)


def _coordinates(node: Node, root: Node, inside) -> list[tuple[Size, tuple[Size, ...]]]:
    """For each axis of `root`, from which views and moves that are `inside` make `node`: (offset, strides) over the coordinates
    of `node` that give the place along it. Raises NotARegion where they do not, or where elements come from outside.
    """
    chain = [node]
    while chain[-1] is not root:
        if chain[-1].op.kind not in MOVEMENT or not inside(chain[-1]):
            raise NotARegion(f"{node.label} is not made of {root.label} by moves alone")
        chain.append(chain[-1].inputs[0])
    found = []
    for axis in range(root.type.rank):
        source = Source(root, tuple(int(a == axis) for a in range(root.type.rank)), 0)
        for step in reversed(chain[:-1]):
            source = through(source, step)
        if source.bounds:
            raise NotARegion(f"{node.label} has elements from outside of {root.label}")
        found.append((source.offset, source.strides))
    return found


def _behind(nodes: Iterable[Node], inside: set[Node]) -> set[Node]:
    """`nodes` and all that they are computed from, as far as it is `inside`."""
    found: set[Node] = set()
    stack = [n for n in nodes if n in inside]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack.extend(i for i in node.inputs if i in inside)
    return found


def _prologue(order: Sequence[Node], inside: set[Node], outputs: Sequence[Node], anchor: Node, side: int) -> Region | None:
    root = operand = anchor.inputs[side]
    while root.op.kind in MOVEMENT and root in inside:
        root = root.inputs[0]
    if root not in inside:
        if source_of(operand, inside.__contains__).bounds:
            raise NotARegion("a contraction of an array that has an outside")
        return None
    if anchor.op.rule.windows(tuple(i.type for i in anchor.inputs), anchor.attrs):
        raise NotARegion(f"{anchor.label} reads an operand's elements again for each window")
    nodes = _behind([operand], inside)
    kept = [o for o in outputs if o in nodes and not is_size_value(o)]
    if kept:
        raise NotARegion(f"{kept[0].label} is computed before the product and must be in memory too")
    region = analyse(order, nodes, (root,))
    if region.reduced:
        raise NotARegion("a reduction comes before the product")
    placement = region.placement.get(operand, ())
    if {a for a in placement if a is not None} != set(range(len(region.sizes))) or any(
            a is None and d != 1 for a, d in zip(placement, operand.type.shape, strict=True)):
        raise NotARegion(f"{operand.label} moves elements that the region computes")
    if any(_may_fail(n) for n in region.nodes) and not all(isinstance(d, int) and d > 0 for d in other_sizes(anchor, side)):
        raise NotARegion(f"{operand.label} may fail, and an empty product would not compute it")
    return region


def _may_fail(node: Node) -> bool:
    return node.op.kind is Kind.GATHER or node.op.kind is Kind.ELEMENTWISE and bool(node.op.rule.fails)


def label_sizes(anchor: Node) -> dict:
    """The size of each label of a contraction."""
    labels_a, labels_b, _ = _labels(anchor)
    return {x: d for labels, i in ((labels_a, anchor.inputs[0]), (labels_b, anchor.inputs[1]))
            for x, d in zip(labels, i.type.shape, strict=True) if x is not None}


def other_sizes(anchor: Node, side: int) -> list[Size]:
    """The sizes of the result's axes that an operand does not vary along: their product says how often an element is used."""
    labels, sizes = _labels(anchor), label_sizes(anchor)
    return [sizes[x] for x in labels[2] if x not in labels[side] and sizes[x] != 1]


def column_side(anchor: Node) -> int:
    """Which operand lanes run along, 0 or 1: the one that alone has the last axis of the result, else the second."""
    labels_a, labels_b, out = _labels(anchor)
    sizes = label_sizes(anchor)
    last = next((x for x in reversed(out) if sizes[x] != 1), None)
    return 0 if last in labels_a and last not in labels_b and last is not None else 1


def _labels(anchor: Node):
    return anchor.op.rule.labels(tuple(i.type for i in anchor.inputs), anchor.attrs)
