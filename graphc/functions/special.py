"""Public special functions. All take floats; `name` names the result. Within 4 ulp unless their ops say otherwise."""
from __future__ import annotations

import math

from graphc.errors import ArgumentError, ShapeError, report
from graphc.functions.math import _of_one, _of_two
from graphc.ir.node import Node, as_node, is_tensor
from graphc.ir.types import broadcast_shapes
from graphc.ops import bessel, composite, elementwise, incomplete, special, transcendental
from graphc.ops.movement import broadcast_to
from graphc.ops.reduce import reduce_sum

lgamma = _of_one(special.lgamma)
digamma = _of_one(special.digamma)
erfinv = _of_one(special.erfinv)
ndtri, ndtr = _of_one(special.ndtri), _of_one(special.ndtr)
erfcinv = _of_one(special.erfcinv)
erfcx = _of_one(special.erfcx)
bessel_i0e = _of_one(special.bessel_i0e)
bessel_i1e = _of_one(special.bessel_i1e)
bessel_i0, bessel_i1 = _of_one(bessel.bessel_i0), _of_one(bessel.bessel_i1)
bessel_k0, bessel_k1 = _of_one(bessel.bessel_k0), _of_one(bessel.bessel_k1)
bessel_k0e, bessel_k1e = _of_one(bessel.bessel_k0e), _of_one(bessel.bessel_k1e)
bessel_j0, bessel_j1 = _of_one(bessel.bessel_j0), _of_one(bessel.bessel_j1)
bessel_y0, bessel_y1 = _of_one(bessel.bessel_y0), _of_one(bessel.bessel_y1)
dawsn = _of_one(bessel.dawsn)
expint = _of_one(bessel.expint)
fresnel_cos, fresnel_sin = _of_one(bessel.fresnel_cos), _of_one(bessel.fresnel_sin)
spence = _of_one(bessel.spence)
log_ndtr = _of_one(bessel.log_ndtr)
xlog1py = _of_two(transcendental.xlog1py)


def _together(what: str, *values) -> list[Node]:
    """The operands as tensors of one dtype and shape."""
    dtype = next((v.dtype for v in values if is_tensor(v)), None)
    nodes = [as_node(v, dtype, what) for v in values]
    composite.require_floats(what, **{f"operand {k}": n for k, n in enumerate(nodes)})
    shape = broadcast_shapes(*(n.type.shape for n in nodes))
    return [n if n.type.shape == shape else broadcast_to(n, shape=shape) for n in nodes]


def igamma(a, x, name=None) -> Node:
    """The lower incomplete gamma function P(a, x), regularised; operands broadcast. Gradients flow to both."""
    return incomplete.igamma(*_together("igamma", a, x), name=name)


def igammac(a, x, name=None) -> Node:
    """The upper incomplete gamma function Q(a, x) = 1 - P(a, x), regularised; operands broadcast. Gradients flow to both."""
    return incomplete.igammac(*_together("igammac", a, x), name=name)


def betainc(a, b, x, name=None) -> Node:
    """The incomplete beta function I(x; a, b), regularised; operands broadcast. A gradient flows to x alone."""
    return incomplete.betainc(*_together("betainc", a, b, x), name=name)


def _number(value, what: str) -> float:
    if is_tensor(value):
        known = elementwise.constant_value(as_node(value))
        value = None if known is None or known.ndim else known.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise report(ArgumentError, f"{what}: the order must be a number that is known when the graph is built")
    return value


def zeta(x, q, name=None) -> Node:
    """Hurwitz' zeta function, the sum of (q + k)**-x over k >= 0, of a number x > 1, for q > 0; NaN for q < 0."""
    order = _number(x, "zeta")
    if not order > 1:
        raise report(ArgumentError, f"zeta: x = {order}", rule="the sum is finite for x > 1 only")
    return special.zeta(as_node(q), order=int(order) if order == int(order) else float(order), name=name)


def polygamma(a, x, name=None) -> Node:
    """The derivative of order `a`, a whole number, of digamma; from order 2 on for x > 0, else NaN."""
    order = _number(a, "polygamma")
    if order < 0 or order != int(order):
        raise report(ArgumentError, f"polygamma: a = {order}", rule="it is a whole number of at least 0")
    if order < 2:
        return (special.trigamma if order else special.digamma)(x, name=name)
    scale = float((-1) ** (int(order) + 1) * math.factorial(int(order)))
    return elementwise.multiply(special.zeta(as_node(x), order=int(order) + 1), scale, name=name)


def lbeta(x, name=None) -> Node:
    """log |beta| of the last axis: the sum of lgamma less lgamma of the sum; for two, the log of the beta function."""
    x = as_node(x)
    if not x.type.rank:
        raise report(ShapeError, "lbeta: it takes at least one axis", [("x", x.describe())])
    axes = (x.type.rank - 1,)
    return elementwise.subtract(reduce_sum(special.lgamma(x), axes=axes), special.lgamma(reduce_sum(x, axes=axes)),
                                name=name)


def logit(x, name=None) -> Node:
    """log(x / (1 - x)), the inverse of sigmoid."""
    x = as_node(x)
    composite.require_floats("logit", x=x)
    return elementwise.subtract(transcendental.log(x), transcendental.log1p(-x), name=name)
