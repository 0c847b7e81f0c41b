"""Convolution: one op for the result, the gradient by the input and the gradient by the filter.

The sum over all terms x[position] * w[tap] * y[output] with position = stride * output + dilation * tap - low is linear in
each of the three tensors. Its gradient by y is the convolution of x and w, its gradient by x is the transposed convolution
of w and y, its gradient by w joins x and y. So each of them is a contraction of two of the tensors, with the same windows,
and so are its own gradients, to any order.
"""
from __future__ import annotations

import numpy as np

from graphc.errors import RuleError
from graphc.ir.op import REQUIRED, Batch, Window
from graphc.ir.types import TensorType, same_dim
from graphc.ops.contract import lettered
from graphc.ops.define import common_dtype, contraction, sample
from graphc.ops.samples import real
from graphc.ops.window import inside


def _check(a, b, a_labels, b_labels, out_labels, windows, shape):
    for side, rank, labels in (("a", a.rank, a_labels), ("b", b.rank, b_labels), ("the result", len(shape), out_labels)):
        if len(labels) != rank or len(set(labels)) != rank:
            raise RuleError(f"{side} needs one label for each axis", f"{labels!r} for rank {rank}")
    tied = "".join(label for window in windows for label in window[:3])
    tensors = a_labels, b_labels, out_labels
    for window in windows:
        if any(sum(x in labels for x in window[:3]) != 1 for labels in tensors) or \
                any(sum(x in labels for labels in tensors) != 1 for x in window[:3]):
            raise RuleError("each tensor has one label of each window", f"{tensors!r} and {window[:3]!r}")
    for label in {*a_labels, *b_labels, *out_labels} - set(tied):
        if sum(label in labels for labels in tensors) < 2:
            raise RuleError("a label is in one tensor only", f"{label!r}")
    for _, _, _, stride, dilation, _ in windows:
        if stride < 1 or dilation < 1:
            raise RuleError("strides and dilations are at least 1", f"stride {stride}, dilation {dilation}")


def _convolve_type(a, b, *, a_labels, b_labels, out_labels, windows, shape):
    dtype = common_dtype([a, b], ["a", "b"], "number")
    _check(a, b, a_labels, b_labels, out_labels, windows, shape)
    sizes: dict = {}
    for labels, own in ((a_labels, a.shape), (b_labels, b.shape), (out_labels, shape)):
        for label, size in zip(labels, own, strict=True):
            sizes[label] = same_dim(sizes.get(label, size), size, f"the label {label!r} has two sizes")
    return TensorType(dtype, tuple(shape))


def _convolve_numpy(a, b, *, a_labels, b_labels, out_labels, windows, shape):
    """One tap after the other: the part of each tensor that it meets, as an ordinary einsum."""
    y = np.zeros(shape, a.dtype)
    sizes = {x: n for labels, own in ((a_labels, a.shape), (b_labels, b.shape), (out_labels, shape))
             for x, n in zip(labels, own, strict=True)}
    names = {position: output for position, output, *_ in windows}
    dropped = {tap for _, _, tap, *_ in windows}
    spec = ["".join(names.get(x, x) for x in labels if x not in dropped) for labels in (a_labels, b_labels, out_labels)]
    for chosen in np.ndindex(*(sizes[tap] for _, _, tap, *_ in windows)):
        at: dict = {}
        for (position, output, tap, stride, dilation, low), k in zip(windows, chosen, strict=True):
            at[output], at[position] = inside(k * dilation - low, stride, sizes[output], sizes[position])
            at[tap] = k
        parts = [t[tuple(at.get(x, slice(None)) for x in labels)] for t, labels in ((a, a_labels), (b, b_labels))]
        place = tuple(at.get(x, slice(None)) for x in out_labels)
        y[place] += np.einsum(f"{spec[0]},{spec[1]}->{spec[2]}", *parts)
    return y


def _convolve_grad(dy, y, a, b, *, a_labels, b_labels, out_labels, windows, shape):
    return [convolve(dy, b, a_labels=out_labels, b_labels=b_labels, out_labels=a_labels, windows=windows,
                     shape=tuple(a.type.shape)),
            convolve(a, dy, a_labels=a_labels, b_labels=out_labels, out_labels=b_labels, windows=windows,
                     shape=tuple(b.type.shape))]


def _resolved(types, attrs) -> tuple[tuple, tuple[Window, ...]]:
    """(labels, windows) without the windows of one tap that only say that position and output are one."""
    tensors = [(list(attrs["a_labels"]), types[0].shape), (list(attrs["b_labels"]), types[1].shape),
               (list(attrs["out_labels"]), attrs["shape"])]
    sizes = {x: n for labels, shape in tensors for x, n in zip(labels, shape, strict=True)}
    left = []
    for window in attrs["windows"]:
        position, output, tap, stride, _, low = window
        if tap in attrs["out_labels"] or (sizes[tap], stride, low) != (1, 1, 0) or sizes[position] != sizes[output]:
            left.append(Window(*window))
            continue
        for labels, _ in tensors:
            labels[:] = [output if x == position else None if x == tap else x for x in labels]
    return tuple(tuple(labels) for labels, _ in tensors), tuple(left)


def _plain(stride, dilation, low, **more):
    """Attributes of a convolution of images and a filter, both with the channels last."""
    return {"a_labels": "nxyc", "b_labels": "ijco", "out_labels": "npqo", **more,
            "windows": (("x", "p", "i", stride, dilation, low), ("y", "q", "j", stride, dilation, low))}


def _line(stride, dilation, low, a="xc", b="ico", out="po", **more):
    return {"a_labels": a, "b_labels": b, "out_labels": out, "windows": (("x", "p", "i", stride, dilation, low),), **more}


convolve = contraction(
    "convolve", "a b",
    attrs={"a_labels": REQUIRED, "b_labels": REQUIRED, "out_labels": REQUIRED, "windows": REQUIRED, "shape": REQUIRED},
    doc="A contraction with windows: an einsum of two operands, whose axes have letters as labels, in which each window "
        "(position, output, tap, stride, dilation, low) ties three labels by position = stride * output + dilation * tap "
        "- low. One of them is on each operand and one on the result, of `shape`. Positions outside their axis add 0. "
        "Two operands with positions and taps make a convolution; the other two pairs its gradients.",
    batch=Batch(lambda rows, marks, attrs: {**lettered(rows, marks, attrs), "shape": (rows, *attrs["shape"])}, "own"),
    infer=_convolve_type, labels=lambda types, attrs: _resolved(types, attrs)[0],
    windows=lambda types, attrs: _resolved(types, attrs)[1],
    numpy=_convolve_numpy, grad=_convolve_grad,
    samples=[sample(real(2, 5, 5, 3), real(3, 3, 3, 4), **_plain(1, 1, 0, shape=(2, 3, 3, 4))),
             sample(real(2, 5, 6, 3), real(3, 3, 3, 4), **_plain(2, 1, 1, shape=(2, 3, 3, 4))),
             sample(real(7, 2), real(3, 2, 3), **_line(1, 2, 2, shape=(7, 3))),
             sample(real(7, 2), real(2, 2, 3), **_line(3, 2, 1, shape=(3, 3))),
             sample(real(3, 3), real(3, 2, 3), **_line(2, 1, 1, "po", "ico", "xc", shape=(6, 2))),
             sample(real(4, 3), real(3, 2, 3), **_line(3, 2, 2, "po", "ico", "xc", shape=(11, 2))),
             sample(real(7, 2), real(4, 3), **_line(2, 1, 1, "xc", "po", "ico", shape=(3, 2, 3))),
             sample(real(2, 4, 7), real(3, 4, 2), a_labels="ngx", b_labels="igo", out_labels="ngpo",
                    windows=(("x", "p", "i", 1, 1, 1),), shape=(2, 4, 7, 2)),
             sample(real(2, 7, 4), real(3, 4), a_labels="nxg", b_labels="ig", out_labels="npg",
                    windows=(("x", "p", "i", 2, 1, 1),), shape=(2, 4, 4)),
             sample(real(2, 4, 5, 3), real(1, 1, 3, 6), **_plain(1, 1, 0, shape=(2, 4, 5, 6))),
             sample(real(7, 2), real(1, 2, 3), **_line(2, 1, 1, shape=(4, 3))),
             sample(real(7, 2), real(7, 3), **_line(1, 1, 0, "xc", "po", "ico", shape=(1, 2, 3))),
             sample(real(18, 9, 8, 3), real(3, 2, 3, 20), **_plain(2, 1, 1, shape=(18, 5, 5, 20))),
             sample(real(0, 5, 5, 3), real(3, 3, 3, 2), **_plain(1, 1, 0, shape=(0, 3, 3, 2))),
             sample(real(5, 0), real(2, 0, 3), **_line(1, 1, 0, shape=(4, 3)))],
    errors=[(sample(real(7, 2), real(3, 4, 3), **_line(1, 1, 0, shape=(5, 3))), "the label 'c' has two sizes"),
            (sample(real(7, 2), real(3, 2), **_line(1, 1, 0, shape=(5, 3))), "one label for each axis"),
            (sample(real(7, 2), real(3, 2, 3), **_line(0, 1, 0, shape=(5, 3))), "at least 1"),
            (sample(real(7, 2), real(7, 3), **_line(1, 1, 0, "xc", "xo", "po", shape=(5, 3))), "one label of each window"),
            (sample(real(7, 2), real(3, 3), **_line(1, 1, 0, "xc", "io", "po", shape=(5, 3))), "in one tensor only")],
)
