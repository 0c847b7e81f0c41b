"""Bessel functions of both kinds, and integrals: Dawson's, exponential, Fresnel's, dilogarithm.

In: a Tracer and Vectors.  Out: Vectors.  All are computed in f64, f32 too. Between pieces of polynomials
(tools/fit_bessel.py) a value is chosen by its argument; where a function has roots, it is exact by its amplitude there.
"""
from math import pi, sqrt

from graphc.codegen.cpu import math_bessel_coefficients as c
from graphc.codegen.cpu.math_exp_log import (
    INFINITY,
    NAN,
    exp,
    float_function,
    in_double,
    log,
    log1p,
    polynomial,
    split_exp,
    two_product,
)
from graphc.codegen.cpu.math_gamma import bessel_i0e, bessel_i1e, erfcx
from graphc.codegen.cpu.math_special import erfc
from graphc.codegen.cpu.math_trig import cos, cosine, sin, sine
from graphc.codegen.cpu.simd_divide import scale_by_power

EULER_GAMMA = 0.5772156649015329
ROOT_HALF_REST = -4.833646656726457e-17     # what sqrt(1/2) lacks as a float64


def piece(t, x, table):
    """A fitted function at x; of an x outside its interval, its value at the nearer end."""
    low, high, coefficients = table
    u = (t.minimum(t.maximum(x, low), high) - low) * (2 / (high - low)) - 1
    return polynomial(t, u, coefficients)


# -- modified


def times_exp(t, x, factor):
    """exp(x) * factor without overflow of exp(x) alone, for x >= 0; infinite where x is too large for any factor here."""
    p, n = split_exp(t, t.minimum(x, 720.0))
    return t.select(x > 720, INFINITY, scale_by_power(t, p * factor, n))


@float_function
@in_double
def bessel_i0(t, x):
    value = times_exp(t, t.abs(x), bessel_i0e(t, x))
    return t.select(t.isnan(x), x, value)


@float_function
@in_double
def bessel_i1(t, x):
    value = times_exp(t, t.abs(x), t.abs(bessel_i1e(t, x)))
    return t.select(t.isnan(x), x, t.copysign(value, x))


def modified_second(t, x, order):
    """(K(x) for x <= 2, exp(x) K(x) for x >= 2)."""
    small, large = t.minimum(t.maximum(x, 1e-308), 2.0), t.maximum(x, 2.0)
    square = small * small
    logarithm = log(t, 0.5 * small)
    if order == 0:
        near = t.fma(-logarithm, piece(t, square, c.I0_SMALL), piece(t, square, c.K0_NEAR))
    else:
        near = 1 / small + small * t.fma(logarithm, piece(t, square, c.I1_SMALL), piece(t, square, c.K1_NEAR))
    return near, piece(t, 1 / large, c.K0_FAR if order == 0 else c.K1_FAR) / t.sqrt(large)


def on_positive(t, x, value, at_infinity):
    """The value for x > 0; infinite at 0, NaN below."""
    value = t.select(x == 0, INFINITY, t.select(x == INFINITY, at_infinity, value))
    return t.select(x >= 0, value, NAN)


def _second(order, scaled, name):
    def function(t, x):
        near, far = modified_second(t, x, order)
        if scaled:
            near = near * exp(t, t.minimum(t.maximum(x, 0.0), 2.0))
        else:
            p, n = split_exp(t, -t.minimum(t.maximum(x, 2.0), 750.0))
            far = scale_by_power(t, p * far, n)
        value = t.select(x <= 2, near, far)
        if order == 1:
            value = t.select(x < 1e-300, 1 / x, value)
        return on_positive(t, x, value, 0)
    function.__name__ = name
    return float_function(in_double(function))


bessel_k0, bessel_k0e = _second(0, False, "bessel_k0"), _second(0, True, "bessel_k0e")
bessel_k1, bessel_k1e = _second(1, False, "bessel_k1"), _second(1, True, "bessel_k1e")


# -- of the first and second kind


def hankel(t, x, order):
    """(J(x), Y(x)) for x >= 8: by modulus and phase, whose sine and cosine are those of x turned by 45 degrees."""
    large = t.minimum(t.maximum(x, 8.0), 1e308)
    inverse = 8 / large
    square = inverse * inverse
    p, q = (piece(t, square, table) for table in ((c.P0, c.Q0) if order == 0 else (c.P1, c.Q1)))
    q = q * (0.125 * inverse)
    s, co = sin(t, large), cos(t, large)
    along, across = (s + co, s - co) if order == 0 else (s - co, -(s + co))    # sqrt(2) times cosine, sine of the phase
    scale = t.sqrt(inverse) * sqrt(1 / (8 * pi))
    return scale * (p * along - q * across), scale * (p * across + q * along)


@float_function
@in_double
def bessel_j0(t, x):
    size = t.abs(x)
    near = piece(t, size * size, c.J0_NEAR)
    value = t.select(size < 8, near, hankel(t, size, 0)[0])
    return t.select(t.isnan(x), x, t.select(size == INFINITY, 0, value))


@float_function
@in_double
def bessel_j1(t, x):
    size = t.abs(x)
    near = size * piece(t, size * size, c.J1_NEAR)
    value = t.select(size == INFINITY, 0, t.select(size < 8, near, hankel(t, size, 1)[0]))
    return t.select(t.isnan(x), x, t.select(x < 0, -value, value))


@float_function
@in_double
def bessel_y0(t, x):
    small = t.minimum(t.maximum(x, 5e-324), 8.0)
    square = small * small
    near = piece(t, square, c.Y0_NEAR) + (2 / pi) * log(t, small) * piece(t, square, c.J0_NEAR)
    value = t.select(x < 8, near, hankel(t, x, 0)[1])
    return -on_positive(t, x, -value, 0)


@float_function
@in_double
def bessel_y1(t, x):
    small = t.minimum(t.maximum(x, 1e-300), 8.0)
    square = small * small
    first = (log(t, small) * piece(t, square, c.J1_NEAR)) * small
    near = (2 / pi) * (first - 1 / small) + small * piece(t, square, c.Y1_NEAR)
    value = t.select(x < 1e-20, (-2 / pi) / x, t.select(x < 8, near, hankel(t, x, 1)[1]))
    return -on_positive(t, x, -value, 0)


# -- integrals


@float_function
@in_double
def dawsn(t, x):
    """exp(-x**2) times the integral of exp(t**2) from 0 to x."""
    size = t.abs(x)
    inverse = 1 / t.maximum(size, 1.0)
    value = inverse * t.select(size < 5, piece(t, size, c.DAWSON_2),
                               t.select(size < 8, piece(t, size, c.DAWSON_3), piece(t, inverse * inverse, c.DAWSON_4)))
    value = t.select(size < 3, piece(t, size, c.DAWSON_1), value)
    value = t.select(size < 1.5, size * piece(t, size * size, c.DAWSON_0), value)
    return t.select(t.isnan(x), x, t.copysign(value, x))


@float_function
@in_double
def expint(t, x):
    """Ei(x): the principal value of the integral of exp(t) / t from -inf to x; below 0 it is -E1(-x)."""
    size = t.abs(x)
    logarithm = log(t, size) + EULER_GAMMA
    inverse = 1 / t.maximum(size, 1.0)
    above = t.select(size < 6, piece(t, size, c.EI_1), t.select(size < 12, piece(t, size, c.EI_2), t.select(
        size < 24, piece(t, inverse, c.EI_3), piece(t, inverse, c.EI_4))))
    above = t.select(size < 3, logarithm + size * piece(t, size, c.EI_0), times_exp(t, size, above * inverse))
    below = t.select(size < 3, piece(t, inverse, c.E1_1), t.select(size < 9, piece(t, inverse, c.E1_2),
                                                                 piece(t, inverse, c.E1_3)))
    p, n = split_exp(t, -t.minimum(size, 750.0))
    below = t.select(size < 1, size * piece(t, size, c.E1_0) - logarithm, scale_by_power(t, p * below * inverse, n))
    value = t.select(x < 0, -below, t.select(x == INFINITY, INFINITY, above))
    value = t.select(x == 0, -INFINITY, value)
    return t.select(t.isnan(x), x, value)


def less_turns(t, x):
    """x less the nearest multiple of 4; exact."""
    return x - 4 * t.rint(0.25 * x)


def quarter_turns(t, x):
    """(sin, cos) of pi x**2 / 2: the square in two parts, less whole turns."""
    square, low = two_product(t, x, x)
    turns = less_turns(t, less_turns(t, square) + less_turns(t, low))
    quadrant = t.rint(turns)
    angle = (turns - quadrant) * (pi / 2)
    s, co = sine(t, angle, None), cosine(t, angle, None)
    odd = t.abs(quadrant) == 1
    s, co = t.select(odd, co, s), t.select(odd, s, co)
    # one turn: (c, -s); two: (-s, -c); less than none: (-c, s)
    return t.select((quadrant < 0) | (t.abs(quadrant) == 2), -s, s), t.select((quadrant == 1) | (t.abs(quadrant) == 2), -co, co)


def fresnel(t, x):
    """(S(|x|), C(|x|))."""
    size = t.abs(x)
    inside = t.minimum(size, 1.7)
    square = inside * inside
    fourth = square * square
    near = square * inside * piece(t, fourth, c.FRESNEL_S), inside * piece(t, fourth, c.FRESNEL_C)
    large = t.minimum(t.maximum(size, 1.66), 1e18)
    w = 1 / (large * large)
    f = t.select(w > 0.125, piece(t, w, c.FRESNEL_F_0), piece(t, w, c.FRESNEL_F_1)) / (pi * large)
    g = t.select(w > 0.125, piece(t, w, c.FRESNEL_G_0), piece(t, w, c.FRESNEL_G_1)) * w / (pi * pi * large)
    s, co = quarter_turns(t, large)
    far = 0.5 - (f * co + g * s), 0.5 + (f * s - g * co)
    return [t.select(size < 1.675, a, t.select(size > 1e17, 0.5, b)) for a, b in zip(near, far, strict=True)]


@float_function
@in_double
def fresnel_sin(t, x):
    """The integral of sin(pi t**2 / 2) from 0 to x."""
    return t.select(t.isnan(x), x, t.copysign(fresnel(t, x)[0], x))


@float_function
@in_double
def fresnel_cos(t, x):
    """The integral of cos(pi t**2 / 2) from 0 to x."""
    return t.select(t.isnan(x), x, t.copysign(fresnel(t, x)[1], x))


@float_function
@in_double
def spence(t, x):
    """The integral of log(t) / (1 - t) from 1 to x; moved into [1/2, 3/2] by its values at 1/x and 1 - x."""
    far, near = x > 1.5, x < 0.5
    safe = t.maximum(x, 1e-300)
    w = t.select(far, 1 / safe - 1, t.select(near, -x, x - 1))
    # beyond 2 a further step, as 1/x is below 1/2
    twice = x > 2
    w = t.select(twice, -1 / safe, w)
    value = w * piece(t, w, c.SPENCE)
    logarithm = log(t, safe)
    value = t.select(near, pi * pi / 6 - logarithm * log1p(t, -t.minimum(x, 0.5)) - value, value)
    inner = t.select(twice, pi * pi / 6 + logarithm * log(t, t.maximum(1 - 1 / safe, 0.4)) - value, value)
    value = t.select(far, -0.5 * logarithm * logarithm - inner, value)
    value = t.select(x == 0, pi * pi / 6, t.select(x == INFINITY, -INFINITY, value))
    return t.select(x >= 0, value, NAN)


@float_function
@in_double
def log_ndtr(t, x):
    """log(P(X <= x)) for a standard normal X."""
    below = t.minimum(x, -1.0)
    tail = log(t, 0.5 * erfcx(t, below * -sqrt(0.5))) - 0.5 * below * below
    above = t.minimum(t.maximum(x, -1.0), 40.0)
    z, lost = two_product(t, above, t.splat(sqrt(0.5), x.dtype))
    lost = t.fma(above, ROOT_HALF_REST, lost)       # erfc is steep: what the product lost counts
    upper = erfc(t, z) - (2 / sqrt(pi)) * lost * exp(t, -z * z)
    body = log1p(t, -0.5 * upper)
    return t.select(t.isnan(x), x, t.select(x < -1, tail, body))
