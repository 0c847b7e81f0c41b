"""Vector math: the functions of f32 and f64 Vectors that a traced body may call.

In: a Tracer.  Out: `functions(tracer)`.  All are right at zeros, denormal numbers, infinities and NaN, within 4 ulp
over their whole range (the gamma family apart: see LIMITS of tests/test_vector_math.py; and near the roots of those of
math_bessel), and call no library.
"""
from functools import partial

from graphc.codegen.cpu import math_bessel as bessel
from graphc.codegen.cpu import math_exp_log as exp_log
from graphc.codegen.cpu import math_gamma as gamma
from graphc.codegen.cpu import math_special as special
from graphc.codegen.cpu import math_trig as trig

FUNCTIONS = {
    **{f.__name__: f for f in (
        exp_log.exp, exp_log.exp2, exp_log.expm1, exp_log.log, exp_log.log2, exp_log.log10, exp_log.log1p,
        special.sigmoid, special.softplus, special.rsqrt, special.sinh, special.cosh, special.tanh, special.asinh,
        special.acosh, special.atanh, special.erf, special.erfc,
        trig.sin, trig.cos, trig.tan, trig.asin, trig.acos, trig.atan, trig.atan2,
        gamma.lgamma, gamma.digamma, gamma.trigamma, gamma.zeta, gamma.erfinv, gamma.ndtri, gamma.erfcx,
        gamma.bessel_i0e, gamma.bessel_i1e,
        bessel.bessel_i0, bessel.bessel_i1, bessel.bessel_k0, bessel.bessel_k0e, bessel.bessel_k1, bessel.bessel_k1e,
        bessel.bessel_j0, bessel.bessel_j1, bessel.bessel_y0, bessel.bessel_y1, bessel.dawsn, bessel.expint,
        bessel.fresnel_sin, bessel.fresnel_cos, bessel.spence, bessel.log_ndtr)},
    "pow": special.power_of_any,
}


def functions(t):
    """{"exp": ..., ...} bound to a tracer."""
    return {name: partial(function, t) for name, function in FUNCTIONS.items()}
