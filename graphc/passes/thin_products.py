"""Turns contractions that have no rows, no columns or nothing to sum into elementwise products and sums.

One sort stays: a vector times a wide matrix that lies in memory along the result's last axis. A tile of one row has several
sums in flight where a loop has one (measured: 1.3 times as fast for 784x128, 2 for 4000x33, 2 to 3 for 1024x1024; no faster
from 784x10 down). A matrix that lies the other way is best read in order by a loop, its lanes along the sum: a tile would have
to pack it first (7 times slower for 784x128, 40 for 1024x1024).
"""
from __future__ import annotations

from graphc.ir.container import detached
from graphc.ir.graph import Graph, rebuild
from graphc.ir.node import Node
from graphc.ir.op import Kind
from graphc.ops.compare import cast
from graphc.ops.elementwise import multiply
from graphc.ops.movement import reshape_to, transpose_to
from graphc.ops.reduce import reduce_sum
from graphc.passes.manager import graph_pass
from graphc.passes.regions import NotARegion, contiguous, source_of

WIDE = 32  # columns that a tile computes with several sums


@graph_pass(needs=["pure"], nested=True)
def thin_products(graph: Graph) -> Graph:
    """Rewrite each contraction of which one operand has no axis of its own, if a register tile would not pay."""
    def replace(node, inputs, control):
        if node.op.kind is not Kind.CONTRACT:
            return None
        labels_a, labels_b, out = node.op.rule.labels(tuple(i.type for i in inputs), node.attrs)
        size = {x: d for labels, i in ((labels_a, inputs[0]), (labels_b, inputs[1]))
                for x, d in zip(labels, i.type.shape, strict=True) if x is not None}
        live_a, live_b = ({x for x in labels if x is not None and size[x] != 1} for labels in (labels_a, labels_b))
        summed = [x for x in size if x not in out]
        own_a, own_b = live_a - live_b - set(summed), live_b - live_a - set(summed)
        last = next((x for x in reversed(out) if size[x] != 1), None)
        in_order = any(last in own and strides(i)[labels.index(last)] == 1 for own, labels, i in
                       ((own_a, labels_a, inputs[0]), (own_b, labels_b, inputs[1])))
        wide = last is not None and not (isinstance(size[last], int) and size[last] < WIDE)
        if (own_a and own_b or in_order and wide) and any(size[x] != 1 for x in summed):
            return None
        with detached(node.location):
            order = [*out, *summed]
            a, b = (aligned(i, labels, order) for i, labels in ((inputs[0], labels_a), (inputs[1], labels_b)))
            if not summed:
                return multiply(a, b)
            dtype = node.type.dtype
            if dtype.arithmetic is not dtype:  # the products must not be rounded before they are added
                a, b = (cast(i, dtype=dtype.arithmetic) for i in (a, b))
            total = reduce_sum(multiply(a, b), axes=tuple(range(len(out), len(order))))
            return total if total.dtype == dtype else cast(total, dtype=dtype)
    return rebuild(graph, replace)


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
