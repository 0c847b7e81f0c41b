"""Exponentials, logarithms, trigonometric and hyperbolic functions and their inverses, erf, smooth activations.

One block per op. The NumPy rules compute with one more precision and round once (`exactly`).
"""
from __future__ import annotations

import math

import numpy as np

from graphc.ops.compare import cast, not_equal, where
from graphc.ops.define import elementwise, sample
from graphc.ops.elementwise import exactly, rsqrt, sqrt
from graphc.ops.samples import integer, positive, real

SAMPLES = [real(3, 4), real(), real(0, 5)]
ABOVE_ZERO = [positive(3, 4), positive(), positive(0, 5)]
INSIDE_ONE = [real(3, 4, low=-0.9, high=0.9), real(low=-0.9, high=0.9), real(0, 5)]
INTEGERS = [(sample(integer(3, dtype="int32")), "int32 is not accepted")]

# exponentials and logarithms ----------------------------------------------------------------------

exp = elementwise(
    "exp", "x",
    doc="e to the power of each element.",
    scalar="exp({x})", accepts="float", cost=10,
    numpy=exactly(np.exp),
    grad=lambda dy, y, x: [dy * y],
    samples=SAMPLES, errors=INTEGERS,
)

expm1 = elementwise(
    "expm1", "x",
    doc="exp(x) - 1, exact also near 0.",
    scalar="expm1({x})", accepts="float", cost=14,
    numpy=exactly(np.expm1),
    grad=lambda dy, y, x: [dy * (y + 1)],
    samples=SAMPLES,
)

log = elementwise(
    "log", "x",
    doc="Natural logarithm. log(0) is -inf, with an infinite gradient.",
    scalar="log({x})", accepts="float", cost=12,
    numpy=exactly(np.log),
    grad=lambda dy, y, x: [dy / x],
    samples=ABOVE_ZERO, errors=INTEGERS,
)

log1p = elementwise(
    "log1p", "x",
    doc="log(1 + x), exact also near 0.",
    scalar="log1p({x})", accepts="float", cost=14,
    numpy=exactly(np.log1p),
    grad=lambda dy, y, x: [dy / (1 + x)],
    samples=ABOVE_ZERO,
)

xlogy = elementwise(
    "xlogy", "x y",
    doc="x * log(y), and 0 where x is 0; there the gradients are 0 too.",
    scalar="select({x} == 0, 0, {x} * log({y}))", accepts="float", cost=15,
    numpy=exactly(lambda x, y: np.where(x == 0, 0, x * np.log(y))),
    grad=lambda dy, z, x, y: [dy * xlogy(cast(not_equal(x, 0), dtype=x.dtype), y), dy * xdivy(x, y)],
    samples=[(real(3, 4), positive(3, 4)), (real(3, 1), positive(4))],
)

xdivy = elementwise(
    "xdivy", "x y",
    doc="x / y, and 0 where x is 0; there the gradients are 0 too.",
    scalar="select({x} == 0, 0, {x} / {y})", accepts="float", cost=6,
    numpy=lambda x, y: np.where(x == 0, x.dtype.type(0), np.divide(x, y)),
    grad=lambda dy, z, x, y: [dy * xdivy(cast(not_equal(x, 0), dtype=x.dtype), y), -dy * xdivy(z, y)],
    samples=[(real(3, 4), positive(3, 4)), (real(3, 1), positive(4))],
)

xlog1py = elementwise(
    "xlog1py", "x y",
    doc="x * log(1 + y), and 0 where x is 0; there the gradients are 0 too.",
    scalar="select({x} == 0, 0, {x} * log1p({y}))", accepts="float", cost=17,
    numpy=exactly(lambda x, y: np.where(x == 0, 0, x * np.log1p(y))),
    grad=lambda dy, z, x, y: [dy * xlog1py(cast(not_equal(x, 0), dtype=x.dtype), y), dy * xdivy(x, 1 + y)],
    samples=[(real(3, 4), positive(3, 4)), (real(3, 1), positive(4))],
)

exp2 = elementwise(
    "exp2", "x",
    doc="2 to the power of each element.",
    scalar="exp2({x})", accepts="float", cost=10,
    numpy=exactly(np.exp2),
    grad=lambda dy, y, x: [dy * (math.log(2) * y)],
    samples=SAMPLES, errors=INTEGERS,
)

log2 = elementwise(
    "log2", "x",
    doc="Logarithm to the base 2, exact at powers of 2.",
    scalar="log2({x})", accepts="float", cost=14,
    numpy=exactly(np.log2),
    grad=lambda dy, y, x: [dy / (math.log(2) * x)],
    samples=ABOVE_ZERO, errors=INTEGERS,
)

log10 = elementwise(
    "log10", "x",
    doc="Logarithm to the base 10.",
    scalar="log10({x})", accepts="float", cost=14,
    numpy=exactly(np.log10),
    grad=lambda dy, y, x: [dy / (math.log(10) * x)],
    samples=ABOVE_ZERO, errors=INTEGERS,
)

# circles ------------------------------------------------------------------------------------------

sin = elementwise(
    "sin", "x",
    doc="Sine of an angle in radians.",
    scalar="sin({x})", accepts="float", cost=16,
    numpy=exactly(np.sin),
    grad=lambda dy, y, x: [dy * cos(x)],
    samples=SAMPLES,
)

cos = elementwise(
    "cos", "x",
    doc="Cosine of an angle in radians.",
    scalar="cos({x})", accepts="float", cost=16,
    numpy=exactly(np.cos),
    grad=lambda dy, y, x: [-dy * sin(x)],
    samples=SAMPLES,
)

tan = elementwise(
    "tan", "x",
    doc="Tangent of an angle in radians.",
    scalar="tan({x})", accepts="float", cost=20,
    numpy=exactly(np.tan),
    grad=lambda dy, y, x: [dy * (1 + y * y)],
    samples=[real(3, 4, low=-1.2, high=1.2), real(low=-1.2, high=1.2), real(0, 5)],
)

asin = elementwise(
    "asin", "x",
    doc="The angle in [-pi/2, pi/2] whose sine is x; NaN outside [-1, 1].",
    scalar="asin({x})", accepts="float", cost=20,
    numpy=exactly(np.arcsin),
    grad=lambda dy, y, x: [dy * rsqrt((1 - x) * (1 + x))],
    samples=INSIDE_ONE,
)

acos = elementwise(
    "acos", "x",
    doc="The angle in [0, pi] whose cosine is x; NaN outside [-1, 1]. The gradient at 1 is -inf.",
    scalar="acos({x})", accepts="float", cost=20,
    numpy=exactly(np.arccos),
    grad=lambda dy, y, x: [-dy * rsqrt((1 - x) * (1 + x))],
    samples=INSIDE_ONE,
)

atan = elementwise(
    "atan", "x",
    doc="The angle in [-pi/2, pi/2] whose tangent is x.",
    scalar="atan({x})", accepts="float", cost=20,
    numpy=exactly(np.arctan),
    grad=lambda dy, y, x: [dy / (1 + x * x)],
    samples=SAMPLES,
)

atan2 = elementwise(
    "atan2", "y x",
    doc="The angle of the point (x, y), in [-pi, pi]. The gradient at (0, 0) is NaN.",
    scalar="atan2({y}, {x})", accepts="float", cost=26,
    numpy=exactly(np.arctan2),
    grad=lambda dy, z, y, x: [dy * (x / (x * x + y * y)), -dy * (y / (x * x + y * y))],
    samples=[(real(3, 4), positive(3, 4)), (real(3, 1), positive(4))],
)

# hyperbolas ---------------------------------------------------------------------------------------

sinh = elementwise(
    "sinh", "x",
    doc="Hyperbolic sine.",
    scalar="sinh({x})", accepts="float", cost=18,
    numpy=exactly(np.sinh),
    grad=lambda dy, y, x: [dy * cosh(x)],
    samples=SAMPLES,
)

cosh = elementwise(
    "cosh", "x",
    doc="Hyperbolic cosine.",
    scalar="cosh({x})", accepts="float", cost=16,
    numpy=exactly(np.cosh),
    grad=lambda dy, y, x: [dy * sinh(x)],
    samples=SAMPLES,
)

tanh = elementwise(
    "tanh", "x",
    doc="Hyperbolic tangent.",
    scalar="tanh({x})", accepts="float", cost=12,
    numpy=exactly(np.tanh),
    grad=lambda dy, y, x: [dy * (1 - y * y)],
    samples=SAMPLES, errors=INTEGERS,
)

asinh = elementwise(
    "asinh", "x",
    doc="Inverse of sinh.",
    scalar="asinh({x})", accepts="float", cost=24,
    numpy=exactly(np.arcsinh),
    grad=lambda dy, y, x: [dy * rsqrt(x * x + 1)],
    samples=SAMPLES,
)

acosh = elementwise(
    "acosh", "x",
    doc="Inverse of cosh; NaN below 1.",
    scalar="acosh({x})", accepts="float", cost=24,
    numpy=exactly(np.arccosh),
    grad=lambda dy, y, x: [dy / (sqrt(x - 1) * sqrt(x + 1))],  # one root of the product would not be NaN below -1
    samples=[real(3, 4, low=1.2, high=5.0), real(low=1.2, high=5.0), real(0, 5)],
)

atanh = elementwise(
    "atanh", "x",
    doc="Inverse of tanh; infinite at -1 and 1, NaN outside.",
    scalar="atanh({x})", accepts="float", cost=20,
    numpy=exactly(np.arctanh),
    grad=lambda dy, y, x: [dy / ((1 - x) * (1 + x))],
    samples=INSIDE_ONE,
)

# the error function -------------------------------------------------------------------------------


def _each(function):
    """A NumPy rule that calls a function of Python floats for each element: C's erf is exact, and NumPy has none."""
    one = np.frompyfunc(function, 1, 1)
    return lambda x: np.asarray(one(x.astype(np.float64))).astype(x.dtype)


erf = elementwise(
    "erf", "x",
    doc="The error function: 2/sqrt(pi) times the integral of exp(-t*t) from 0 to x.",
    scalar="erf({x})", accepts="float", cost=16,
    numpy=_each(math.erf),
    grad=lambda dy, y, x: [dy * (2 / math.sqrt(math.pi) * exp(-(x * x)))],
    samples=SAMPLES,
)

erfc = elementwise(
    "erfc", "x",
    doc="1 - erf(x), exact also where erf(x) is near 1.",
    scalar="erfc({x})", accepts="float", cost=30,
    numpy=_each(math.erfc),
    grad=lambda dy, y, x: [dy * (-2 / math.sqrt(math.pi) * exp(-(x * x)))],
    samples=SAMPLES,
)

# smooth activations -------------------------------------------------------------------------------


def _sigmoid_numpy(x):
    small = np.exp(-np.abs(x))  # at most 1: nothing overflows
    return np.where(x >= 0, 1, small) / (1 + small)


sigmoid = elementwise(
    "sigmoid", "x",
    doc="1 / (1 + exp(-x)).",
    scalar="sigmoid({x})", accepts="float", cost=14,
    numpy=exactly(_sigmoid_numpy),
    grad=lambda dy, y, x: [dy * (y * (1 - y))],
    samples=SAMPLES, errors=INTEGERS,
)

softplus = elementwise(
    "softplus", "x",
    doc="log(1 + exp(x)); it does not overflow.",
    scalar="softplus({x})", accepts="float", cost=24,
    numpy=exactly(lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))),
    grad=lambda dy, y, x: [dy * sigmoid(x)],
    samples=SAMPLES,
)

elu = elementwise(
    "elu", "x",
    doc="x where it is positive, else exp(x) - 1. The gradient at 0 is 1.",
    scalar="select({x} > 0, {x}, expm1({x}))", accepts="float", cost=16,
    numpy=exactly(lambda x: np.where(x > 0, x, np.expm1(x))),
    grad=lambda dy, y, x: [where(y < 0, dy * (y + 1), dy)],
    samples=SAMPLES,
)

# S. Klambauer et al., Self-Normalizing Neural Networks, 2017: the values that keep mean 0 and variance 1.
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
SELU_LIMIT = SELU_SCALE * SELU_ALPHA

selu = elementwise(
    "selu", "x",
    doc="1.0507 * (x where it is positive, else 1.6733 * (exp(x) - 1)). The gradient at 0 is 1.0507, as in TensorFlow.",
    scalar=f"select({{x}} < 0, expm1({{x}}) * {SELU_LIMIT!r}, {{x}} * {SELU_SCALE!r})", accepts="float", cost=17,
    numpy=exactly(lambda x: np.where(x < 0, SELU_LIMIT * np.expm1(x), SELU_SCALE * x)),
    grad=lambda dy, y, x: [where(y < 0, dy * (y + SELU_LIMIT), dy * SELU_SCALE)],
    samples=SAMPLES,
)
