"""Public functions on lists of things: the edit distance of sequences, and the best of boxes that overlap."""
from __future__ import annotations

from graphc.functions.selection import new_dim
from graphc.ir.node import Node, as_node
from graphc.ir.types import float32
from graphc.ops import elementwise, lines
from graphc.ops.compare import cast


def edit_distance(hypothesis, truth, hypothesis_length, truth_length, normalize=True, name=None) -> Node:
    """How many insertions, removals and exchanges make each truth of its hypothesis: float32 [N]; `normalize`: by the truth's
    length, infinite for an empty truth and another hypothesis, NaN for two empty ones.

    Integers [N, time], of which the first `length` elements of a row count: the dense form of what TensorFlow takes sparse.
    """
    truth_length = as_node(truth_length)
    found = cast(lines.edit_distance(hypothesis, truth, hypothesis_length, truth_length), dtype=float32)
    return elementwise.divide(found, cast(truth_length, dtype=float32), name=name) if normalize else found


def non_max_suppression(boxes, scores, max_output_size, iou_threshold=0.5, score_threshold=float("-inf"), name=None) -> Node:
    """Numbers of boxes, int32, best score first: none that shares more than `iou_threshold` of their union with a
    better one.

    boxes [N, 4]: y and x of two opposite corners; scores [N], of one float dtype. max_output_size, a number, bounds how many.
    """
    return lines.best_boxes(boxes, scores, most=int(max_output_size), overlap=float(iou_threshold),
                            least=float(score_threshold), dim=new_dim(), name=name)
