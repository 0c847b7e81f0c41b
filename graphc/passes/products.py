"""What a region around a contraction is: elementwise work before it, on its operands, and after it, on its result.

The epilogue spans the result's axes. A prologue spans its operand's axes and computes the operand while it is packed, so that
it never lies in memory: an element is computed again for each part of the other operand that it meets (`fuse` says when that
pays). What both take is computed in both.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graphc.ir.dims import Size
from graphc.ir.node import Node
from graphc.ir.op import Kind
from graphc.passes.regions import MOVEMENT, NotARegion, Region, analyse, is_size_value, source_of


@dataclass
class Product:
    """The analysis of a region around a contraction. A prologue is None where the operand lies in memory."""

    anchor: Node
    epilogue: Region
    prologues: tuple[Region | None, Region | None]


def analyse_product(order: Sequence[Node], members: Iterable[Node], outputs: Sequence[Node], anchor: Node) -> Product:
    """The epilogue and the prologues of the `members`, which come in `order`, around a contraction. Raises NotARegion."""
    inside = set(members)
    first, second = (_prologue(order, inside, outputs, anchor, side) for side in (0, 1))
    epilogue = analyse(order, _behind(outputs, inside - {anchor}), outputs, anchor)
    return Product(anchor, epilogue, (first, second))


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
