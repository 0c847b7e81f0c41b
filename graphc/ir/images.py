"""The batches of images that convolutions work on."""
from __future__ import annotations

from graphc.ir.dims import Size
from graphc.ir.graph import Graph, nested
from graphc.ir.node import Node
from graphc.ir.op import Kind

FULL = 16           # a batch of at least so many fills vectors, and so does a multiple of it of channels


def labels_and_windows(anchor: Node):
    """The labels of a contraction's operands and result, and its windows."""
    types = tuple(i.type for i in anchor.inputs)
    return anchor.op.rule.labels(types, anchor.attrs), anchor.op.rule.windows(types, anchor.attrs)


def image_batch(anchor: Node) -> Size | None:
    """The size of the axis that a convolution has first in both its images; None if there is no such axis."""
    tensors, windows = labels_and_windows(anchor)
    images = [(labels, node) for labels, node in zip(tensors, (*anchor.inputs, anchor), strict=True)
              if any(w.tap not in labels for w in windows)]
    if len(images) != 2 or images[0][0][0] != images[1][0][0]:
        return None
    return images[0][1].type.shape[0]


def named_batches(graph: Graph) -> list[Size]:
    """The sizes, not known yet, of the batches of images that a graph convolves."""
    found: dict[Size, None] = {}
    for node in graph.nodes():
        for body in nested(node).values():
            found |= dict.fromkeys(named_batches(body))
        if node.op.kind is Kind.CONTRACT and labels_and_windows(node)[1]:
            size = image_batch(node)
            if size is not None and not isinstance(size, int):
                found[size] = None
    return list(found)
