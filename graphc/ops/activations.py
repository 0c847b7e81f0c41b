"""Activations and losses of one element that are one node each: fewer nodes to fuse, and gradients that cancel nothing.

Where a value is a difference, it is exact within a few units of the last place of its larger term.
"""
from __future__ import annotations

import math

import numpy as np

from graphc.ir.op import REQUIRED
from graphc.ops.compare import isnan, where
from graphc.ops.define import elementwise, sample
from graphc.ops.elementwise import absolute, clip, exactly, square
from graphc.ops.samples import integer, real
from graphc.ops.transcendental import INTEGERS, SAMPLES, erf, exp, sigmoid

GELU_SCALE, GELU_CUBE = 2 * math.sqrt(2 / math.pi), 0.044715


def _sigmoid(x):
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


softsign = elementwise(
    "softsign", "x",
    doc="x / (1 + |x|); NaN at infinity.",
    scalar="{x} / (1 + abs({x}))", accepts="float", cost=6,
    numpy=exactly(lambda x: x / (1 + np.abs(x))),
    grad=lambda dy, y, x: [dy / square(1 + absolute(x))],
    samples=SAMPLES, errors=INTEGERS,
)

silu = elementwise(
    "silu", "x",
    doc="x * sigmoid(x), also called swish; NaN at -inf.",
    scalar="{x} * sigmoid({x})", accepts="float", cost=16, ulp=6,
    numpy=exactly(lambda x: x * _sigmoid(x)),
    grad=lambda dy, y, x: [dy * (sigmoid(x) * (1 + (x - y)))],
    samples=SAMPLES, errors=INTEGERS,
)


def _gelu_numpy(x):
    """x erfc(-x / sqrt(2)) / 2, exact below 0 too."""
    tail = np.frompyfunc(math.erfc, 1, 1)(x.astype(np.float64) * -math.sqrt(0.5))
    return 0.5 * x * np.asarray(tail).astype(np.float64)


gelu = elementwise(
    "gelu", "x",
    doc="x * P(X <= x) for a standard normal X (D. Hendrycks and K. Gimpel, Gaussian Error Linear Units, 2016). Within 4 ulp "
        "of x above 0 and of x / 2 below.",
    scalar=f"0.5 * {{x}} * (1 + erf({{x}} * {math.sqrt(0.5)!r}))", accepts="float", cost=20, ulp=400,
    numpy=exactly(_gelu_numpy),
    grad=lambda dy, y, x: [dy * (0.5 * (1 + erf(x * math.sqrt(0.5))) + x * exp(-0.5 * (x * x)) / math.sqrt(2 * math.pi))],
    samples=SAMPLES, errors=INTEGERS,
)


def _gelu_tanh_grad(dy, y, x):
    """With s = sigmoid(u): s + x s (1 - s) u'."""
    s = sigmoid(GELU_SCALE * (x + GELU_CUBE * (x * x * x)))
    return [dy * (s + x * s * (1 - s) * (GELU_SCALE * (1 + 3 * GELU_CUBE * (x * x))))]


gelu_tanh = elementwise(
    "gelu_tanh", "x",
    doc="gelu by its authors' formula with tanh, 0.5 x (1 + tanh(u / 2)), which is x * sigmoid(u) with "
        "u = 2 sqrt(2 / pi) (x + 0.044715 x**3).",
    scalar=f"{{x}} * sigmoid({GELU_SCALE!r} * ({{x}} + {GELU_CUBE!r} * ({{x}} * {{x}} * {{x}})))",
    accepts="float", cost=20, ulp=16,
    numpy=exactly(lambda x: x * _sigmoid(GELU_SCALE * (x + GELU_CUBE * (x * x * x)))),
    grad=_gelu_tanh_grad, samples=SAMPLES, errors=INTEGERS,
)

hard_sigmoid = elementwise(
    "hard_sigmoid", "x",
    doc="0.2 x + 0.5 between 0 and 1; NaN stays. The gradient at an edge is 0.2.",
    scalar="minimum(maximum(0.2 * {x} + 0.5, 0), 1)", accepts="float", cost=4, ulp=8,
    numpy=exactly(lambda x: np.minimum(np.maximum(0.2 * x + 0.5, 0), 1)),
    grad=lambda dy, y, x: [where(absolute(x) <= 2.5, 0.2 * dy, 0)],
    samples=[real(3, 4), real(5, low=3, high=9), real(), real(0, 5)], errors=INTEGERS,
)

log_sigmoid = elementwise(
    "log_sigmoid", "x",
    doc="log(sigmoid(x)), which does not underflow.",
    scalar="-softplus(-{x})", accepts="float", cost=24,
    numpy=exactly(lambda x: np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))),
    grad=lambda dy, y, x: [dy * sigmoid(-x)],
    samples=SAMPLES, errors=INTEGERS,
)

# of two -----------------------------------------------------------------------------------------------


def _logaddexp_grad(dy, z, x, y):
    """The sigmoid of the difference: of two equal infinities, which have none, a half each."""
    difference = x - y
    share = where(isnan(difference), 0, difference)
    return [dy * sigmoid(share), dy * sigmoid(-share)]


logaddexp = elementwise(
    "logaddexp", "x y",
    doc="log(exp(x) + exp(y)) without overflow. Where both are one infinity the gradient is a half each.",
    scalar=f"select({{x}} == {{y}}, {{x}} + {math.log(2)!r}, maximum({{x}}, {{y}}) + log1p(exp(-abs({{x}} - {{y}}))))",
    accepts="float", cost=26, ulp=64, numpy=exactly(np.logaddexp), grad=_logaddexp_grad,
    samples=[(real(3, 4), real(3, 4)), (real(3, 1), real(4, low=3, high=5)), (real(0, 4), real())], errors=[
        (sample(integer(3, dtype="int32"), integer(3, dtype="int32")), "int32 is not accepted")],
)

logistic_loss = elementwise(
    "logistic_loss", "x z",
    doc="-z log(sigmoid(x)) - (1 - z) log(1 - sigmoid(x)), finite for all finite x: the cross entropy of a label z and the "
        "logit x. The gradient by x is sigmoid(x) - z.",
    scalar="maximum({x}, 0) - {x} * {z} + softplus(-abs({x}))", accepts="float", cost=26, ulp=200,
    numpy=exactly(lambda x, z: np.maximum(x, 0) - x * z + np.log1p(np.exp(-np.abs(x)))),
    grad=lambda dy, y, x, z: [dy * (sigmoid(x) - z), -dy * x],
    samples=[(real(3, 4), real(3, 4, low=0, high=1)), (real(3, 1), real(4, low=0, high=1)), (real(0, 4), real())],
)

huber = elementwise(
    "huber", "x", attrs={"delta": REQUIRED},
    doc="x * x / 2 up to |x| = delta, and the tangent beyond (P. Huber, 1964).",
    scalar="select(abs({x}) <= {delta}, 0.5 * {x} * {x}, {delta} * (abs({x}) - 0.5 * {delta}))", accepts="float", cost=6,
    numpy=exactly(lambda x, *, delta: np.where(np.abs(x) <= delta, 0.5 * x * x, delta * (np.abs(x) - 0.5 * delta))),
    grad=lambda dy, y, x, *, delta: [dy * clip(x, -delta, delta)],
    samples=[sample(real(3, 4), delta=0.5), sample(real(), delta=1.0), sample(real(0, 4), delta=2.0)],
)
