"""The gamma function's family, inverse error functions and Bessel functions.

In: a Tracer and Vectors.  Out: Vectors.  All are computed in f64, f32 too: they are never hot, and it is shorter.
"""
from math import log as log_of_number
from math import pi, sqrt

from graphc.codegen.cpu import math_coefficients as c
from graphc.codegen.cpu.math_exp_log import (
    INFINITY,
    NAN,
    float_function,
    in_double,
    log,
    polynomial,
    split_exp,
    two_product,
)
from graphc.codegen.cpu.math_special import power_of_size
from graphc.codegen.cpu.math_trig import cosine, sine
from graphc.codegen.cpu.simd_divide import scale_by_power

STIRLING_FROM = 8       # from here on the asymptotic series are exact
HALF_LOG_2PI = 0.5 * log_of_number(2 * pi)

# B(2k) / (2k)!: the terms of the Euler-Maclaurin formula.
EULER_MACLAURIN = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000, 1 / 74724249600,
                   -3617 / 10670622842880000, 43867 / 5109094217170944000, -174611 / 802857662698291200000,
                   77683 / 14101100039391805440000, -236364091 / 1693824136731743669452800000)
ZETA_TERMS = 10

# M. Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37 (1988): z as
# q A(r)/B(r) with r = 0.180625 - q**2 for |q| <= 0.425, as C(r - 1.6)/D(r - 1.6) and E(r - 5)/F(r - 5) of
# r = sqrt(-log(tail)) beyond; 1e-16 relative.
QUANTILE_NEAR = (
    (3.3871328727963666080e0, 1.3314166789178437745e+2, 1.9715909503065514427e+3, 1.3731693765509461125e+4,
     4.5921953931549871457e+4, 6.7265770927008700853e+4, 3.3430575583588128105e+4, 2.5090809287301226727e+3),
    (1.0, 4.2313330701600911252e+1, 6.8718700749205790830e+2, 5.3941960214247511077e+3, 2.1213794301586595867e+4,
     3.9307895800092710610e+4, 2.8729085735721942674e+4, 5.2264952788528545610e+3))
QUANTILE_FAR = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1, 1.48103976427480074590e-1,
     1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9))
QUANTILE_FARTHEST = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2, 7.86869131145613259100e-4,
     1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15))
ROOT_HALF = 0.7071067811865476
# exp(x * x) erfc(x) = (1 - 1/(2 x**2) + 3/(4 x**4) - ...) / (sqrt(pi) x)
ERFCX_SERIES = tuple(n / sqrt(pi) for n in (1, -1 / 2, 3 / 4, -15 / 8, 105 / 16, -945 / 32, 10395 / 64))


# -- gamma


def lgamma_of_positive(t, x):
    """lgamma(x) for x > 0: its roots 1 and 2 taken out around each, the recurrence beside that, Stirling's formula far out."""
    inside = t.minimum(x, STIRLING_FROM + 0.5)
    small = inside < 0.5
    reduced, product = t.select(small, inside + 1, inside), t.select(small, 1 / inside, 1)
    for _ in range(STIRLING_FROM - 2):
        above = reduced >= 2.5
        reduced = t.select(above, reduced - 1, reduced)
        product = t.select(above, product * reduced, product)
    one, two = t.select(small, inside, reduced - 1), reduced - 2
    near = t.select(reduced < 1.5, one * polynomial(t, one, c.LGAMMA_F64), two * polynomial(t, two, c.LGAMMA2_F64))
    near = near + log(t, product)
    large = t.maximum(x, STIRLING_FROM - 0.1)
    w = 1 / large
    rest = t.fma(w, polynomial(t, w * w, c.STIRLING_F64), HALF_LOG_2PI - 0.5)
    far = t.fma(large - 0.5, log(t, large) - 1, rest)
    return t.select(x < STIRLING_FROM, near, t.select(x == INFINITY, INFINITY, far))


def half_turn(t, x):
    """(sin(pi r), cos(pi r)) for r = x - the nearest whole number, which is exact; for reflections."""
    r = x - t.rint(x)
    size = t.abs(r)
    flip = size > 0.25
    angle = t.select(flip, 0.5 - size, size) * pi
    s, co = sine(t, angle, None), cosine(t, angle, None)
    return t.copysign(t.select(flip, co, s), r), t.select(flip, s, co)


@float_function
@in_double
def lgamma(t, x):
    """log |gamma(x)|; below 0 by reflection: gamma(x) gamma(-x) = -pi / (x sin(pi x))."""
    size = t.abs(x)
    positive = lgamma_of_positive(t, t.maximum(size, 1e-300))
    positive = t.select(size < 1e-300, -log(t, size), positive)
    reflected = log(t, pi / (size * t.abs(half_turn(t, x)[0]))) - positive
    value = t.select(x < 0, t.select(size < 1e-300, positive, reflected), positive)
    value = t.select((x <= 0) & (t.trunc(x) == x), INFINITY, value)
    return t.select(t.isnan(x), x, value)


def digamma_of_positive(t, x):
    """digamma(x) for x > 0: its root taken out on [1, 2], the recurrence around that, the asymptotic series beyond.

    The terms of the recurrence are summed as one fraction, which takes one division.
    """
    def step(state, v, above):
        top, bottom = state
        return [t.select(above, t.fma(top, v, bottom), top), t.select(above, bottom * v, bottom)]
    inside = t.minimum(x, STIRLING_FROM + 0.5)
    below = inside < 1
    start = t.select(below, inside + 1, inside)
    top, bottom = t.select(below, t.splat(-1, x.dtype), 0), t.select(below, inside, 1)
    for _ in range(STIRLING_FROM - 1):
        above = start >= 2
        start = t.select(above, start - 1, start)
        top, bottom = step((top, bottom), start, above)
    high, low = c.DIGAMMA_ROOT_F64
    near = t.fma((start - high) - low, polynomial(t, start - 1.5, c.DIGAMMA_F64), top / bottom)
    large = t.maximum(x, STIRLING_FROM - 0.1)
    w = 1 / large
    far = log(t, large) - w * t.fma(w, polynomial(t, w * w, c.DIGAMMA_REST_F64), 0.5)
    return t.select(x < STIRLING_FROM, near, t.select(x == INFINITY, INFINITY, far))


@float_function
@in_double
def digamma(t, x):
    """The slope of lgamma; below 0 digamma(-x) + 1/(-x) - pi / tan(pi x); NaN at negative whole numbers."""
    size = t.abs(x)
    positive = digamma_of_positive(t, t.maximum(size, 1e-300))
    s, co = half_turn(t, x)
    reflected = positive + 1 / size - pi * co / s
    value = t.select(x < 0, t.select(t.trunc(x) == x, NAN, reflected), positive)
    return t.select(size < 1e-20, -1 / x, t.select(t.isnan(x), x, value))


@float_function
@in_double
def trigamma(t, x):
    """The slope of digamma, zeta(2, x); below 0 by trigamma(1 - x) + trigamma(x) = (pi / sin(pi x))**2."""
    size = t.abs(x)
    positive = zeta_of_positive(t, t.maximum(size, 1e-100), 2)
    turned = pi / half_turn(t, x)[0]
    # trigamma(1 + size) = trigamma(size) - 1/size**2 would cancel near 0, where the other term is as large
    reflected = turned * turned - positive + 1 / (size * size)
    value = t.select(x < 0, t.select(t.trunc(x) == x, INFINITY, reflected), positive)
    value = t.select(size < 1e-20, 1 / (x * x), t.select(x == INFINITY, 0, t.select(x == -INFINITY, NAN, value)))
    return t.select(t.isnan(x), x, value)


def inverse_power(t, x, order):
    """x**-order for x > 0 and a number `order`: by multiplication where it is whole."""
    if order != int(order) or order > 64:
        return power_of_size(t, x, t.splat(-order, x.dtype))
    return 1 / whole_power(x, int(order))


def zeta_of_positive(t, q, order):
    """The sum of (q + k)**-order over k >= 0: ten terms, the rest by the Euler-Maclaurin formula."""
    total = inverse_power(t, q, order)
    for k in range(1, ZETA_TERMS):
        total = total + inverse_power(t, q + k, order)
    end = q + ZETA_TERMS
    inverse = 1 / end
    square = inverse * inverse
    rest, factors = [], order
    for k, number in enumerate(EULER_MACLAURIN):
        rest.append(number * factors)
        factors *= (order + 2 * k + 1) * (order + 2 * k + 2)
    tail = t.fma(inverse, t.fma(inverse, polynomial(t, square, rest), 0.5), 1 / (order - 1))
    return t.fma(end_power(t, end, inverse, order - 1), tail, total)


def end_power(t, x, inverse, order):
    """x**-order from 1 / x: it does not overflow on the way, as x**order would for the largest x."""
    if order != int(order) or order > 64:
        return power_of_size(t, x, t.splat(-order, x.dtype))
    return whole_power(inverse, int(order))


def whole_power(base, exponent):
    """base**exponent for a whole number > 0, by squaring."""
    value = None
    while exponent:
        if exponent & 1:
            value = base if value is None else value * base
        base, exponent = base * base, exponent >> 1
    return value


def zeta(t, q, order):
    """Hurwitz' zeta function of a number `order` > 1, for q > 0: the sum of (q + k)**-order; infinite at 0, else NaN."""
    return zeta_of_order(order)(t, q)


def zeta_of_order(order):
    @float_function
    @in_double
    def zeta(t, q):
        value = zeta_of_positive(t, t.maximum(q, 1e-300), order)
        value = t.select(q == INFINITY, 0, t.select(q == 0, t.splat(INFINITY, q.dtype), t.select(q > 0, value, NAN)))
        return t.select(t.isnan(q), q, value)
    return zeta


# -- inverses of error functions


def quantile(t, q, tail):
    """The z with P(X <= z) = 0.5 + q for a standard normal X, given also the smaller tail, 0.5 - |q|, exactly."""
    def ratio(parts, r):
        return polynomial(t, r, parts[0]) / polynomial(t, r, parts[1])
    near = q * ratio(QUANTILE_NEAR, 0.180625 - q * q)
    r = t.sqrt(-log(t, tail))
    far = t.select(r <= 5, ratio(QUANTILE_FAR, r - 1.6), ratio(QUANTILE_FARTHEST, t.minimum(r, 30.0) - 5))
    return t.select(t.abs(q) <= 0.425, near, t.copysign(far, q))


@float_function
@in_double
def erfinv(t, x):
    tail = 0.5 - 0.5 * t.abs(x)
    value = t.select(tail == 0, t.copysign(t.splat(INFINITY, x.dtype), x), quantile(t, 0.5 * x, tail) * ROOT_HALF)
    return t.select(t.abs(x) <= 1, value, NAN)


@float_function
@in_double
def ndtri(t, p):
    value = quantile(t, p - 0.5, t.minimum(p, 1 - p))
    value = t.select(p == 0, -INFINITY, t.select(p == 1, INFINITY, value))
    return t.select((p >= 0) & (p <= 1), value, NAN)


# -- Bessel functions


def bessel(t, x, near, far):
    """`near` at |x| <= 8, `far` / sqrt(|x|) beyond."""
    size = t.abs(x)
    inner = polynomial(t, 0.25 * t.minimum(size, 8.0) - 1, near)
    outer = t.maximum(size, 8.0)
    return size, inner, polynomial(t, 16 / outer - 1, far) / t.sqrt(outer)


@float_function
@in_double
def bessel_i0e(t, x):
    """exp(-|x|) I0(x)."""
    size, near, far = bessel(t, x, c.I0E_NEAR_F64, c.I0E_FAR_F64)
    return t.select(t.isnan(x), x, t.select(size <= 8, near, far))


@float_function
@in_double
def bessel_i1e(t, x):
    """exp(-|x|) I1(x)."""
    size, near, far = bessel(t, x, c.I1E_NEAR_F64, c.I1E_FAR_F64)
    return t.select(t.isnan(x), x, t.copysign(t.select(size <= 8, size * near, far), x))


# -- scaled complement of the error function


@float_function
@in_double
def erfcx(t, x):
    """exp(x * x) erfc(x): what erfc is made of; below 1/2 by 1 - erf(x), below -1/2 by erfc(x) = 2 - erfc(-x)."""
    size = t.abs(x)
    start = t.minimum(t.maximum(size, 0.5), 27.3)
    far = polynomial(t, (start - 4) / (start + 4), c.ERFC_F64) / (1 + (start + start))
    large = t.maximum(size, 27.0)
    w = 1 / large
    farther = w * polynomial(t, w * w, ERFCX_SERIES)
    positive = t.select(size > 27, farther, far)
    clamped = t.minimum(size, 27.0)
    square, low = two_product(t, clamped, clamped)
    p, n = split_exp(t, square, low)
    power = scale_by_power(t, p, n)
    near = power * (1 - t.fma(x, polynomial(t, square, c.ERF_F64), x))
    negative = t.select(size < 27, 2 * power - positive, INFINITY)
    value = t.select(size < 0.5, near, t.select(x < 0, negative, positive))
    return t.select(t.isnan(x), x, value)
