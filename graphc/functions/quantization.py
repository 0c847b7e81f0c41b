"""Public fake quantization: numbers rounded as if stored in few bits, with gradients that pass, as TensorFlow has them."""
from __future__ import annotations

import numpy as np

from graphc.errors import ArgumentError, ShapeError, report
from graphc.ir.node import Node, as_node
from graphc.ir.types import float32
from graphc.ops import compare
from graphc.ops.arithmetic import fake_quant
from graphc.ops.elementwise import clip, stop_gradient


def _levels(num_bits, narrow_range, what: str) -> tuple[int, int]:
    """(the smallest and the largest whole number)."""
    if not isinstance(num_bits, int) or not 2 <= num_bits <= 16:
        raise report(ArgumentError, f"{what}: num_bits = {num_bits}", rule="it is a whole number from 2 to 16")
    return int(bool(narrow_range)), 2**num_bits - 1


def fake_quant_with_min_max_args(inputs, min=-6, max=6, num_bits=8, narrow_range=False, name=None) -> Node:
    """`inputs`, float32, between two numbers, rounded to the nearest of 2**num_bits that are spaced evenly.

    The range is moved a little so that 0 is one of them. narrow_range leaves the lowest one out. The gradient is that of a
    clip: rounding counts as the identity.
    """
    first, last = _levels(num_bits, narrow_range, "fake_quant_with_min_max_args")
    if not min < max:
        raise report(ArgumentError, "fake_quant_with_min_max_args: the range is empty", rule=f"min = {min}, max = {max}")
    scale = (np.float32(max) - np.float32(min)) / np.float32(last - first)
    zero = np.clip(np.floor(first - np.float32(min) / scale + np.float32(0.5)), first, last)
    low, high = (first - zero) * scale, (last - zero) * scale
    return fake_quant(inputs, as_node(float(low), float32), as_node(float(high), float32), steps=last - first, name=name)


def _with_vars(inputs, min, max, num_bits, narrow_range, rank: int, what: str, name) -> Node:
    first, last = _levels(num_bits, narrow_range, what)
    inputs, min, max = (as_node(v, float32, what) for v in (inputs, min, max))
    for label, bound in (("min", min), ("max", max)):
        if bound.type.rank != rank:
            raise report(ShapeError, f"{what}: {label} must have rank {rank}", [(label, bound.describe())])
    scale = (max - min) / (last - first)
    zero = clip(compare.floor(first - min / scale + 0.5), first, last)
    low, high = (first - zero) * scale, (last - zero) * scale
    # the range is nudged, its gradient is not
    low, high = min + stop_gradient(low - min), max + stop_gradient(high - max)
    return fake_quant(inputs, low, high, steps=last - first, name=name)


def fake_quant_with_min_max_vars(inputs, min, max, num_bits=8, narrow_range=False, name=None) -> Node:
    """`fake_quant_with_min_max_args` with a range that is two tensors of rank 0, to which gradients flow: of inputs below
    the range to min, above it to max.
    """
    return _with_vars(inputs, min, max, num_bits, narrow_range, 0, "fake_quant_with_min_max_vars", name)


def fake_quant_with_min_max_vars_per_channel(inputs, min, max, num_bits=8, narrow_range=False, name=None) -> Node:
    """`fake_quant_with_min_max_vars` with a range for each place along the last axis: min and max have rank 1."""
    return _with_vars(inputs, min, max, num_bits, narrow_range, 1, "fake_quant_with_min_max_vars_per_channel", name)
