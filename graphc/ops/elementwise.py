"""Elementwise arithmetic: one block per op."""
from __future__ import annotations

import numpy as np

from graphc.ir.op import REQUIRED, Kind
from graphc.ops import compare
from graphc.ops.compare import equal, where
from graphc.ops.define import elementwise, sample
from graphc.ops.samples import integer, positive, real

WHOLE = integer(3, 4, dtype="int32")  # of a fixed dtype: as floats they would sit on the kinks of these functions


def exactly(function):
    """A NumPy rule that computes with more precision and rounds once: float32 in float64, float64 in long double."""
    def rule(*arrays, **attrs):
        dtype = arrays[0].dtype
        wide = np.float64 if dtype == np.float32 else np.longdouble
        return np.asarray(function(*(a.astype(wide) for a in arrays), **attrs)).astype(dtype)
    return rule


# sums and products --------------------------------------------------------------------------------

add = elementwise(
    "add", "x y",
    doc="x + y, element by element.",
    scalar="{x} + {y}",
    numpy=np.add,
    grad=lambda dy, z, x, y: [dy, dy],
    samples=[(real(3, 4), real(3, 4)), (real(3, 4), real(4)), (real(3, 1), real(1, 4)), (real(), real(2, 3))],
    errors=[(sample(real(2, 3), real(4)), "shapes do not broadcast"),
            (sample(real(3, dtype="float32"), integer(3, dtype="int32")), "dtypes differ")],
)

subtract = elementwise(
    "subtract", "x y",
    doc="x - y, element by element.",
    scalar="{x} - {y}",
    numpy=np.subtract,
    grad=lambda dy, z, x, y: [dy, -dy],
    samples=[(real(3, 4), real(3, 4)), (real(4), real(3, 1))],
)

multiply = elementwise(
    "multiply", "x y",
    doc="x * y, element by element.",
    scalar="{x} * {y}",
    numpy=np.multiply,
    grad=lambda dy, z, x, y: [dy * y, dy * x],
    samples=[(real(3, 4), real(3, 4)), (real(3, 4), real()), (real(3, 1), real(4))],
)

divide = elementwise(
    "divide", "x y",
    doc="x / y of floats, element by element.",
    scalar="{x} / {y}", accepts="float", cost=4,
    numpy=np.divide,
    grad=lambda dy, z, x, y: [dy / y, -dy * z / y],
    samples=[(real(3, 4), positive(3, 4)), (real(3, 4), positive(4))],
    errors=[(sample(WHOLE, WHOLE), "int32 is not accepted")],
)

div_no_nan = elementwise(
    "div_no_nan", "x y",
    doc="x / y, and 0 where y is 0; there the gradients are 0 too.",
    scalar="select({y} == 0, 0, {x} / {y})", accepts="float", cost=6,
    numpy=lambda x, y: np.where(y == 0, x.dtype.type(0), np.divide(x, y)),
    grad=lambda dy, z, x, y: [div_no_nan(dy, y), -dy * div_no_nan(z, y)],
    samples=[(real(3, 4), positive(3, 4)), (real(3, 1), positive(4))],
)

floordiv = elementwise(
    "floordiv", "x y",
    doc="x / y of floats, rounded down.",
    scalar="{x} // {y}", accepts="float", cost=30,
    numpy=np.floor_divide, grad=compare.STEPS,
    samples=[(real(3, 4), positive(3, 4)), (real(3, 1), positive(4))],
)

floormod = elementwise(
    "floormod", "x y",
    doc="What x // y leaves over of floats; it has the sign of y.",
    scalar="{x} % {y}", accepts="float", cost=30,
    numpy=np.remainder,
    grad=lambda dy, z, x, y: [dy, -dy * floordiv(x, y)],
    samples=[(real(3, 4), positive(3, 4)), (real(3, 1), positive(4))],
)

negative = elementwise(
    "negative", "x",
    doc="-x.",
    scalar="-{x}",
    numpy=np.negative,
    grad=lambda dy, y, x: [-dy],
    samples=[real(3, 4), real(), real(0, 5)],
)

square = elementwise(
    "square", "x",
    doc="x * x.",
    scalar="{x} * {x}",
    numpy=np.square,
    grad=lambda dy, y, x: [dy * (2 * x)],
    samples=[real(3, 4), real(), real(0, 5)],
)

absolute = elementwise(
    "abs", "x",
    doc="x without its sign. The gradient at 0 is 0.",
    scalar="abs({x})",
    numpy=np.abs,
    grad=lambda dy, y, x: [dy * compare.sign(x)],
    samples=[real(3, 4), WHOLE, real(), real(0, 5)],
)

# roots and powers ---------------------------------------------------------------------------------

sqrt = elementwise(
    "sqrt", "x",
    doc="Square root. The gradient at 0 is infinite.",
    scalar="sqrt({x})", accepts="float", cost=6,
    numpy=np.sqrt,
    grad=lambda dy, y, x: [0.5 * dy / y],
    samples=[positive(3, 4), positive(), positive(0, 5)],
)

rsqrt = elementwise(
    "rsqrt", "x",
    doc="1 / sqrt(x).",
    scalar="rsqrt({x})", accepts="float", cost=8,
    numpy=exactly(lambda x: 1 / np.sqrt(x)),
    grad=lambda dy, y, x: [dy * (-0.5 * y * y * y)],
    samples=[positive(3, 4), positive(), positive(0, 5)],
)


def constant_value(node):
    """The array that a constant node holds; None for another node."""
    return node.attrs["value"].value if node.op.kind is Kind.CONSTANT else None


def _pow_grad(dy, z, x, y):
    """y * x**(y-1), with 0 for y = 0 at every x; z * log(x) for x > 0, else 0 times z (NaN stays), as in TensorFlow.

    A constant whole exponent needs no log: its own gradient is 0. A single one needs no choices either.
    """
    exponent = constant_value(y)
    if exponent is None or exponent.ndim:
        dx = dy * (y * pow(x, where(equal(y, 0), 0, y - 1)))
    else:
        n = exponent.item()
        dx = 0 if n == 0 else dy if n == 1 else dy * (2 * x) if n == 2 else dy * (n * pow(x, n - 1))
    if exponent is not None and np.all(exponent == np.rint(exponent)):
        return [dx, 0]
    is_positive = x > 0
    return [dx, dy * (z * where(is_positive, _log(where(is_positive, x, 1)), 0))]


def _log(x):
    from graphc.ops.transcendental import log
    return log(x)


pow = elementwise(
    "pow", "x y",
    doc="x to the power of y, of floats. The gradient by x at y = 0 is 0; by y it is 0 where x <= 0.",
    scalar="pow({x}, {y})", accepts="float", cost=30,
    numpy=exactly(np.power), grad=_pow_grad,
    samples=[(positive(3, 4), real(3, 4)), (positive(3, 1), real(4)), (positive(0, 4), real())],
)

# larger and smaller -------------------------------------------------------------------------------

maximum = elementwise(
    "maximum", "x y",
    doc="The larger; NaN if either is NaN. The gradient of a tie goes to x.",
    scalar="maximum({x}, {y})",
    numpy=np.maximum,
    grad=lambda dy, z, x, y: [where(x >= y, dy, 0), where(x >= y, 0, dy)],
    samples=[(real(3, 4), real(3, 4)), (real(3, 1), real(4)), (WHOLE, WHOLE)],
)

minimum = elementwise(
    "minimum", "x y",
    doc="The smaller; NaN if either is NaN. The gradient of a tie goes to x.",
    scalar="minimum({x}, {y})",
    numpy=np.minimum,
    grad=lambda dy, z, x, y: [where(x <= y, dy, 0), where(x <= y, 0, dy)],
    samples=[(real(3, 4), real(3, 4)), (real(3, 1), real(4)), (WHOLE, WHOLE)],
)

clip = elementwise(
    "clip", "x low high",
    doc="x, but at least low and at most high (low where low > high); NaN stays. The gradient at an edge goes to x.",
    scalar="maximum(minimum({x}, {high}), {low})", cost=2,
    numpy=lambda x, low, high: np.maximum(np.minimum(x, high), low),
    grad=lambda dy, y, x, low, high: [where((x < low) | (x > high), 0, dy), where((x < low) | (high < low), dy, 0),
                                      where((x > high) & (high >= low), dy, 0)],
    samples=[(real(3, 4), real(4, low=-1.5, high=-0.5), real(low=0.5, high=1.5)),
             (WHOLE, integer(low=-3, high=-1, dtype="int32"), integer(low=1, high=3, dtype="int32"))],
)

# rectifiers ---------------------------------------------------------------------------------------

relu = elementwise(
    "relu", "x",
    doc="x where it is positive, else 0; NaN stays. The gradient at 0, and at NaN, is 0.",
    scalar="maximum({x}, 0)",
    numpy=lambda x: np.maximum(x, x.dtype.type(0)),
    grad=lambda dy, y, x: [where(y > 0, dy, 0)],
    samples=[real(3, 4), WHOLE, real(), real(0, 5)],
)

relu6 = elementwise(
    "relu6", "x",
    doc="x between 0 and 6, else the nearer of the two; NaN stays. The gradient at 0, at 6 and at NaN is 0.",
    scalar="minimum(maximum({x}, 0), 6)", cost=2,
    numpy=lambda x: np.minimum(np.maximum(x, x.dtype.type(0)), x.dtype.type(6)),
    grad=lambda dy, y, x: [where((y > 0) & (y < 6), dy, 0)],
    samples=[real(3, 4, low=-3, high=9), WHOLE, real(), real(0, 5)],
)

leaky_relu = elementwise(
    "leaky_relu", "x", attrs={"alpha": REQUIRED},
    doc="x where it is positive, else alpha * x. The gradient at 0 is alpha.",
    scalar="select({x} > 0, {x}, {x} * {alpha})", accepts="float", cost=3,
    numpy=lambda x, *, alpha: np.where(x > 0, x, x * x.dtype.type(alpha)),
    grad=lambda dy, y, x, *, alpha: [where(x > 0, dy, dy * alpha)],
    samples=[sample(real(3, 4), alpha=0.2), sample(real(), alpha=0.1), sample(real(0, 5), alpha=0.2)],
)

# x itself -----------------------------------------------------------------------------------------

identity = elementwise(
    "identity", "x",
    doc="x itself, under another name.",
    scalar="{x}", accepts="any",
    numpy=np.array, grad=lambda dy, y, x: [dy],
    samples=[real(3, 4), WHOLE, real(0, 5)],
)

stop_gradient = elementwise(
    "stop_gradient", "x",
    doc="x itself; gradients take it for a constant.",
    scalar="{x}", accepts="any",
    numpy=np.array, grad="gradients stop here, as the user asked",
    samples=[real(3, 4), WHOLE, real(0, 5)],
)
