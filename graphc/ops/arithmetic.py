"""Arithmetic that ends a zero or a rounding in its own way, and functions of bits. One block per op."""
from __future__ import annotations

import numpy as np

from graphc.errors import DTypeError, RuleError
from graphc.ir.op import REQUIRED
from graphc.ir.types import bool_, float16, float32, float64, uint8
from graphc.ops.compare import WHOLE as NO_GRADIENT
from graphc.ops.compare import where
from graphc.ops.define import elementwise, sample
from graphc.ops.samples import integer, positive, real

squared_difference = elementwise(
    "squared_difference", "x y",
    doc="(x - y) * (x - y).",
    scalar="({x} - {y}) * ({x} - {y})", cost=2,
    numpy=lambda x, y: np.square(x - y),
    grad=lambda dy, z, x, y: [dy * (2 * (x - y)), dy * (2 * (y - x))],
    samples=[(real(3, 4), real(3, 4)), (real(3, 1), real(4)), (real(0, 4), real())],
)

reciprocal = elementwise(
    "reciprocal", "x",
    doc="1 / x of floats.",
    scalar="1 / {x}", accepts="float", cost=4,
    numpy=lambda x: x.dtype.type(1) / x,
    grad=lambda dy, y, x: [-dy * (y * y)],
    samples=[positive(3, 4), positive(), positive(0, 5)], errors=[(sample(integer(3)), "int64 is not accepted")],
)

reciprocal_no_nan = elementwise(
    "reciprocal_no_nan", "x",
    doc="1 / x, and 0 where x is 0; there the gradient is 0 too.",
    scalar="select({x} == 0, 0, 1 / {x})", accepts="float", cost=6,
    numpy=lambda x: np.where(x == 0, x.dtype.type(0), x.dtype.type(1) / x),
    grad=lambda dy, y, x: [-dy * (y * y)],
    samples=[positive(3, 4), positive(), positive(0, 5)],
)

multiply_no_nan = elementwise(
    "multiply_no_nan", "x y",
    doc="x * y, and 0 where y is 0, were x infinite or NaN.",
    scalar="select({y} == 0, 0, {x} * {y})", accepts="float", cost=3,
    numpy=lambda x, y: np.where(y == 0, x.dtype.type(0), x * y),
    grad=lambda dy, z, x, y: [multiply_no_nan(dy, y), multiply_no_nan(x, dy)],
    samples=[(real(3, 4), real(3, 4)), (real(3, 1), real(4)), (real(0, 4), real())],
)

approximate_equal = elementwise(
    "approximate_equal", "x y", attrs={"tolerance": REQUIRED},
    doc="Whether |x - y| < tolerance; false of NaN.",
    scalar="abs({x} - {y}) < {tolerance}", accepts="float", result=bool_, cost=3,
    numpy=lambda x, y, *, tolerance: np.abs(x - y) < x.dtype.type(tolerance),
    grad="a comparison is constant between jumps",
    samples=[sample(real(3, 4), real(3, 4), tolerance=1.0), sample(real(3, 1), real(4), tolerance=0.5),
             sample(real(0, 4), real(), tolerance=0.1)],
    errors=[(sample(integer(3), integer(3), tolerance=1.0), "int64 is not accepted")],
)


def _same_type(dtype, attrs):
    if attrs["dtype"] != dtype or dtype.size < 4:
        raise RuleError(f"{dtype.name} is not accepted", f"the operands must be {attrs['dtype'].name}", DTypeError)
    return dtype


nextafter = elementwise(
    "nextafter", "x y", attrs={"dtype": REQUIRED},
    doc="The number next to x on the way to y, of `dtype`, float32 or float64; y itself where they are equal. The gradient "
        "goes to x.",
    scalar="nextafter({x}, {y})", accepts="float", result=_same_type, cost=8, ulp=0,
    numpy=lambda x, y, *, dtype: np.nextafter(x.astype(dtype.numpy), y.astype(dtype.numpy)),
    grad=lambda dy, z, x, y, *, dtype: [dy, None],
    samples=[sample(real(3, 4, dtype="float32"), real(3, 4, dtype="float32"), dtype=float32),
             sample(real(3, 1, dtype="float64"), real(4, dtype="float64"), dtype=float64),
             sample(real(0, 4, dtype="float32"), real(dtype="float32"), dtype=float32)],
    errors=[(sample(real(3, dtype="float16"), real(3, dtype="float16"), dtype=float16), "float16 is not accepted")],
)


def _count_numpy(x):
    return np.bitwise_count(x.view(f"u{x.dtype.itemsize}")).astype(np.uint8)


population_count = elementwise(
    "population_count", "x",
    doc="How many bits of an integer are set, as uint8.",
    scalar="to_u8(popcount({x}))", accepts="integer", result=uint8, cost=3,
    numpy=_count_numpy, grad=NO_GRADIENT,
    samples=[integer(3, 4), integer(), integer(0, 4)], errors=[(sample(real(3)), "float64 is not accepted")],
)


def _fake_quant_numpy(x, low, high, *, steps):
    x, low, high = (v.astype(np.float32) for v in (x, low, high))
    scale = (high - low) / np.float32(steps)
    return np.floor((np.minimum(np.maximum(x, low), high) - low) / scale + np.float32(0.5)) * scale + low


fake_quant = elementwise(
    "fake_quant", "x low high", attrs={"steps": REQUIRED},
    doc="x between low and high, rounded to the nearest of `steps` + 1 numbers spaced evenly from low to high. float32 only. "
        "Gradients take the rounding for the identity: to x inside, ends included, to low below and to high above.",
    scalar="floor((minimum(maximum({x}, {low}), {high}) - {low}) / (({high} - {low}) / {steps}) + 0.5) "
           "* (({high} - {low}) / {steps}) + {low}", accepts="single", cost=14,
    ulp=2000,  # of a number near 0: a few ulp of the range
    numpy=_fake_quant_numpy,
    grad=lambda dy, y, x, low, high, *, steps: [where((x < low) | (x > high), 0, dy), where(x < low, dy, 0),
                                                where(x > high, dy, 0)],
    samples=[sample(real(3, 4), real(low=-1.5, high=-1.4), real(low=1.4, high=1.5), steps=255),
             sample(real(3, 4), real(4, low=-1.5, high=-1.4), real(4, low=1.4, high=1.5), steps=15)],
    errors=[(sample(real(3), real(), real(), steps=255), "float64 is not accepted")],
)
