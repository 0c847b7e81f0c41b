"""Contractions: matrix products and what is built on them."""
from __future__ import annotations

from string import ascii_letters

import numpy as np

from graphc.errors import RuleError
from graphc.ir.op import REQUIRED, Batch
from graphc.ir.types import TensorType, broadcast_shapes, same_dim
from graphc.ops.define import common_dtype, contraction, sample
from graphc.ops.samples import real


def _swapped(shape, swap):
    return (*shape[:-2], shape[-1], shape[-2]) if swap else shape


def _matmul_type(a, b, *, transpose_a, transpose_b):
    dtype = common_dtype([a, b], ["a", "b"], "number")
    for side, type_ in (("a", a), ("b", b)):
        if type_.rank < 2:
            raise RuleError(f"{side} must have at least 2 axes", f"its rank is {type_.rank}")
    sa, sb = _swapped(a.shape, transpose_a), _swapped(b.shape, transpose_b)
    same_dim(sa[-1], sb[-2], "inner dimensions differ")
    return TensorType(dtype, (*broadcast_shapes(sa[:-2], sb[:-2]), sa[-2], sb[-1]))


def _matmul_labels(types, attrs):
    a, b = types
    rank = max(a.rank, b.rank) - 2
    shape = broadcast_shapes(a.shape[:-2], b.shape[:-2])

    def batch(type_):
        lead = rank - (type_.rank - 2)
        return tuple(None if type_.shape[k] == 1 and shape[k + lead] != 1 else k + lead for k in range(type_.rank - 2))
    mk = ("k", "m") if attrs["transpose_a"] else ("m", "k")
    kn = ("n", "k") if attrs["transpose_b"] else ("k", "n")
    return (*batch(a), *mk), (*batch(b), *kn), (*range(rank), "m", "n")


def _matmul_numpy(a, b, *, transpose_a, transpose_b):
    return np.matmul(np.swapaxes(a, -1, -2) if transpose_a else a, np.swapaxes(b, -1, -2) if transpose_b else b)


def _matmul_grad(dy, y, a, b, *, transpose_a, transpose_b):
    da = matmul_to(b, dy, transpose_a=transpose_b, transpose_b=True) if transpose_a else \
        matmul_to(dy, b, transpose_a=False, transpose_b=not transpose_b)
    db = matmul_to(dy, a, transpose_a=True, transpose_b=transpose_a) if transpose_b else \
        matmul_to(a, dy, transpose_a=not transpose_a, transpose_b=False)
    return [da, db]


matmul_to = contraction(
    "matmul", "a b", attrs={"transpose_a": False, "transpose_b": False},
    doc="Matrix product over the last two axes; leading axes broadcast; the flags swap an operand's last two axes "
        "first.",
    batch=Batch(operands="broadcast"),
    infer=_matmul_type, labels=_matmul_labels, numpy=_matmul_numpy, grad=_matmul_grad,
    samples=[sample(real(3, 4), real(4, 5)), sample(real(2, 3, 4), real(4, 5)), sample(real(2, 1, 3, 4), real(5, 4, 2)),
             sample(real(4, 3), real(4, 5), transpose_a=True), sample(real(3, 4), real(5, 4), transpose_b=True),
             sample(real(4, 3), real(5, 4), transpose_a=True, transpose_b=True), sample(real(0, 4), real(4, 5)),
             sample(real(3, 0), real(0, 5)), sample(real(17, 33), real(33, 19))],
    errors=[(sample(real(3, 4), real(3, 5)), "inner dimensions differ"),
            (sample(real(3), real(3, 5)), "at least 2 axes")],
)


def _check_labels(a, b, a_labels, b_labels, out_labels):
    for side, type_, labels in (("a", a, a_labels), ("b", b, b_labels)):
        if len(labels) != type_.rank:
            raise RuleError(f"{side} needs one label for each axis", f"{labels!r} for rank {type_.rank}")
    for labels in (a_labels, b_labels, out_labels):
        twice = [label for label in labels if labels.count(label) > 1]
        if twice:
            raise RuleError("a label appears twice in one operand",
                            f"{twice[0]!r} in {labels!r}; diagonals are not supported")
    lost = [label for label in out_labels if label not in a_labels and label not in b_labels]
    if lost:
        raise RuleError("a label of the result is in no operand", f"{lost[0]!r}")
    alone = [label for label in {*a_labels} ^ {*b_labels} if label not in out_labels]
    if alone:
        raise RuleError("a label is in one operand only", f"{min(alone)!r}: sum over it first")


def _contract_type(a, b, *, a_labels, b_labels, out_labels):
    dtype = common_dtype([a, b], ["a", "b"], "number")
    _check_labels(a, b, a_labels, b_labels, out_labels)
    sizes = dict(zip(a_labels, a.shape, strict=True))
    for label, size in zip(b_labels, b.shape, strict=True):
        sizes[label] = same_dim(sizes.get(label, size), size, f"the label {label!r} has two sizes")
    return TensorType(dtype, tuple(sizes[label] for label in out_labels))


def lettered(rows, marks, attrs) -> dict:
    """The labels with a new letter on the operands that are marked and on the result."""
    taken = {*attrs["a_labels"], *attrs["b_labels"], *attrs["out_labels"],
             *(label for window in attrs.get("windows", ()) for label in window[:3])}
    letter = next(x for x in ascii_letters if x not in taken)
    a, b = (letter * mark + attrs[name] for mark, name in zip(marks, ("a_labels", "b_labels"), strict=True))
    return {**attrs, "a_labels": a, "b_labels": b, "out_labels": letter + attrs["out_labels"]}


def _contract_grad(dy, y, a, b, *, a_labels, b_labels, out_labels):
    return [contract(dy, b, a_labels=out_labels, b_labels=b_labels, out_labels=a_labels),
            contract(a, dy, a_labels=a_labels, b_labels=out_labels, out_labels=b_labels)]


contract = contraction(
    "contract", "a b", attrs={"a_labels": REQUIRED, "b_labels": REQUIRED, "out_labels": REQUIRED},
    doc="The einsum of two operands. Each axis has a label, a letter; axes of both operands that the result lacks are "
        "summed. A label of one operand alone must be in the result, and no operand has a label twice: so the "
        "gradients are contractions too.",
    batch=Batch(lettered, "own"),
    infer=_contract_type, labels=lambda types, attrs: (attrs["a_labels"], attrs["b_labels"], attrs["out_labels"]),
    numpy=lambda a, b, *, a_labels, b_labels, out_labels: np.einsum(f"{a_labels},{b_labels}->{out_labels}", a, b),
    grad=_contract_grad,
    samples=[sample(real(3, 4), real(4, 5), a_labels="ab", b_labels="bc", out_labels="ac"),
             sample(real(2, 3, 4), real(5, 4, 2), a_labels="abc", b_labels="dca", out_labels="dab"),
             sample(real(3), real(4), a_labels="a", b_labels="b", out_labels="ba"),
             sample(real(2, 3), real(3, 2), a_labels="ab", b_labels="ba", out_labels=""),
             sample(real(2, 3), real(2, 3), a_labels="ab", b_labels="ab", out_labels="a"),
             sample(real(0, 4), real(4, 0), a_labels="ab", b_labels="bc", out_labels="ac"),
             sample(real(3, 0), real(0, 2), a_labels="ab", b_labels="bc", out_labels="ac")],
    errors=[(sample(real(3, 3), real(3), a_labels="aa", b_labels="a", out_labels=""), "appears twice"),
            (sample(real(3, 4), real(5), a_labels="ab", b_labels="b", out_labels="a"), "has two sizes"),
            (sample(real(3, 4), real(4), a_labels="ab", b_labels="b", out_labels=""), "in one operand only"),
            (sample(real(3), real(3), a_labels="a", b_labels="a", out_labels="z"), "in no operand"),
            (sample(real(3), real(3), a_labels="ab", b_labels="a", out_labels=""), "one label for each axis")],
)
