"""Turns contractions that have no rows, no columns or nothing to sum into elementwise products and sums.

One sort stays: a vector times a wide matrix that lies in memory along the result's last axis. A tile of one row has several
sums in flight where a loop has one (measured: 1.3 times as fast for 784x128, 2 for 4000x33, 2 to 3 for 1024x1024; no faster
from 784x10 down). A matrix that lies the other way is best read in order by a loop, its lanes along the sum: a tile would have
to pack it first (7 times slower for 784x128, 40 for 1024x1024).
Convolutions of single channels stay, too, where there are several: a loop would test for each term whether it exists.
"""
from __future__ import annotations

from graphc.ir.container import detached
from graphc.ir.graph import Graph, rebuild
from graphc.ir.node import Node, as_node
from graphc.ir.op import Kind
from graphc.ops.compare import cast, where
from graphc.ops.elementwise import multiply
from graphc.ops.movement import broadcast_to, reshape_to, transpose_to
from graphc.ops.reduce import reduce_sum
from graphc.ops.window import slide, slide_back
from graphc.passes.manager import graph_pass
from graphc.passes.regions import NotARegion, contiguous, source_of

LANES = 8  # channels, each convolved by itself, that a tile computes side by side
WIDE = 32  # columns that a tile computes with several sums


@graph_pass(needs=["pure"], nested=True)
def thin_products(graph: Graph) -> Graph:
    """Rewrite each contraction of which one operand has no axis of its own, if a register tile would not pay."""
    def replace(node, inputs, control):
        if node.op.kind is not Kind.CONTRACT or not _is_thin(node, inputs):
            return None
        with detached(node.location):
            return as_sum(node, inputs)
    return rebuild(graph, replace)


def _is_thin(node: Node, inputs) -> bool:
    *sides, out = labels_of(node, inputs)
    windows, size = windows_of(node, inputs), sizes_of(node, inputs)
    for window in windows:
        sides = [nested(labels, window, out) for labels in sides]
    live_a, live_b = ({x for x in labels if x is not None and size[x] != 1} for labels in sides)
    summed = {x for labels in sides for x in labels if x is not None and x not in out}
    own = live_a - live_b - summed, live_b - live_a - summed
    last = next((x for x in reversed(out) if size[x] != 1), None)
    in_order = not windows and any(last in own_x and strides(i)[labels.index(last)] == 1
                                   for own_x, labels, i in zip(own, sides, inputs, strict=True))
    wide = last is not None and not (isinstance(size[last], int) and size[last] < WIDE)
    tied = {x for w in windows for x in (w.position, w.output, w.tap)}
    in_lanes = any(isinstance(size[x], int) and size[x] >= LANES for x in out if x not in tied)
    return not ((all(own) or in_order and wide or windows and in_lanes) and any(size[x] != 1 for x in summed))


def as_sum(node: Node, inputs) -> Node:
    """A contraction as an elementwise product and a sum."""
    *sides, out = labels_of(node, inputs)
    windows, size = windows_of(node, inputs), sizes_of(node, inputs)
    operands = [(x, tuple(labels)) for x, labels in zip(inputs, sides, strict=True)]
    inside = [(broadcast_to(as_node(True), shape=tuple(x.type.shape)), labels) for x, labels in operands] if windows else []
    for window in windows:
        operands, inside = ([unrolled(x, labels, window, size, out) for x, labels in group] for group in (operands, inside))
    order = [*out, *dict.fromkeys(x for _, labels in operands for x in labels if x is not None and x not in out)]
    summed = tuple(range(len(out), len(order)))
    factors = [aligned(x, labels, order) for x, labels in operands]
    dtype = node.type.dtype
    if summed and dtype.arithmetic is not dtype:  # the products must not be rounded before they are added
        factors = [cast(x, dtype=dtype.arithmetic) for x in factors]
    product = multiply(*factors)
    for (mask, labels), own in zip(inside, sides, strict=False):
        if labels != tuple(own):  # 0 * inf beyond the edge must not be NaN
            product = where(aligned(mask, labels, order), product, 0)
    total = reduce_sum(product, axes=summed) if summed else product
    return total if total.dtype == dtype else cast(total, dtype=dtype)


def labels_of(node: Node, inputs):
    """The labels of both operands and of the result."""
    return node.op.rule.labels(tuple(i.type for i in inputs), node.attrs)


def windows_of(node: Node, inputs):
    """The windows among the labels."""
    return node.op.rule.windows(tuple(i.type for i in inputs), node.attrs)


def nested(labels, window, out) -> tuple:
    """An operand's labels with that of the axis that a window moves along replaced by those of the loop nest: the place of the
    window or, where the result has the positions, the position; and the tap.
    """
    moved, place = (window.output, window.position) if window.position in out else (window.position, window.output)
    return (*(place if x == moved else x for x in labels), window.tap) if moved in labels else tuple(labels)


def sizes_of(node: Node, inputs) -> dict:
    """The size of each label."""
    return {x: d for i, labels in zip((*inputs, node), labels_of(node, inputs), strict=True)
            for x, d in zip(labels, i.type.shape, strict=True) if x is not None}


def unrolled(x: Node, labels, window, size, out) -> tuple[Node, tuple]:
    """x with the axis that a window moves along given by the labels of the loop nest; the tap comes last."""
    moved = window.output if window.position in out else window.position
    if moved not in labels:
        return x, labels
    axis, tap, shape = labels.index(moved), len(labels), tuple(x.type.shape)
    x = broadcast_to(reshape_to(x, shape=(*shape, 1)), shape=(*shape, size[window.tap]))
    slides = ((axis, tap, window.stride, window.dilation, window.low, size[window.output]),)
    x = slide(x, slides=slides) if moved == window.position else slide_back(x, slides, (size[window.position],))
    return x, nested(labels, window, out)


def strides(x: Node) -> tuple:
    """The strides of a value in the memory behind its views and moves, or where it will be copied to."""
    try:
        return source_of(x, lambda n: True).strides
    except NotARegion:
        return contiguous(x.type.shape)


def aligned(x: Node, labels, order) -> Node:
    """x with its axes in `order`, and an axis of size 1 for each label that it lacks."""
    own = [k for k, label in enumerate(labels) if label is not None]
    if len(own) != len(labels):
        x = reshape_to(x, shape=tuple(x.type.shape[k] for k in own))
        labels = [labels[k] for k in own]
    perm = tuple(labels.index(label) for label in order if label in labels)
    if perm != tuple(range(len(perm))):
        x = transpose_to(x, perm=perm)
    sizes = iter(x.type.shape)
    shape = tuple(next(sizes) if label in labels else 1 for label in order)
    return x if shape == tuple(x.type.shape) else reshape_to(x, shape=shape)
