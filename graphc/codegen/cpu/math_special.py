"""Powers, hyperbolic functions, and what neural networks add: sigmoid, softplus, erf.

In: a Tracer and Vectors.  Out: Vectors.  Some f32 functions that are never hot are computed in f64, which is shorter.
"""
from graphc.codegen.cpu import math_coefficients as c
from graphc.codegen.cpu.math_exp_log import (
    FORMATS,
    INFINITY,
    LN2,
    LOG2_E,
    NAN,
    exp,
    exp2_inside,
    exponent_of_magic,
    float_function,
    half_exp,
    in_double,
    log,
    log1p,
    polynomial,
    quick_two_sum,
    reduced_argument,
    reduced_exp,
    small_to_float,
    split_exp,
    split_log,
    table_of,
    two_product,
    two_sum,
)
from graphc.codegen.cpu.simd_core import F32, F64
from graphc.codegen.cpu.simd_divide import can_scale, power_of_two, scale_by_power, scaled


@float_function
def sigmoid(t, x):
    """1 / (1 + exp(-x)) as 2**-n / (2**-n + p), where exp(-x) is p * 2**n: nothing overflows, and tiny results are exact."""
    f = FORMATS[x.dtype]
    inside = t.minimum(t.maximum(-x, -40.0 if x.dtype is F32 else -80.0), -f.smallest_exp)  # beyond, it is 1 or 0
    p, count, shifted = reduced_exp(t, inside)
    one = t.splat(1, x.dtype)
    inverse = scaled(t, one, -count) if can_scale(t, x.dtype) else scale_by_power(t, one, -exponent_of_magic(t, shifted))
    return inverse / (inverse + p)


@float_function
def softplus(t, x):
    """log(1 + exp(x))."""
    return t.maximum(x, 0) + log1p(t, exp(t, -t.abs(x)))


@float_function
def rsqrt(t, x):
    return 1 / t.sqrt(x)


# -- hyperbolic functions


@float_function
def sinh(t, x):
    size = t.abs(x)
    half = half_exp(t, size)
    z = x * x
    near = t.fma(x * z, polynomial(t, z, table_of("SINH", x.dtype)), x)
    return t.select(size < 1, near, t.copysign(half - 0.25 / half, x))


@float_function
def cosh(t, x):
    half = half_exp(t, t.abs(x))
    return half + 0.25 / half


@float_function
def tanh(t, x):
    """e / (e + 2) with e = exp(2 |x|) - 1 = 2**n (exp(r) - 1) + (2**n - 1)."""
    size = t.minimum(t.abs(x), 9.2 if x.dtype is F32 else 20.0)     # of more it is 1
    r, shifted = reduced_argument(t, size + size)
    power = power_of_two(t, exponent_of_magic(t, shifted), x.dtype)
    grown = t.fma(power, t.fma(r * r, polynomial(t, r, table_of("EXP", x.dtype)), r), power - 1)
    return t.copysign(grown / (grown + 2), x)


@float_function
@in_double
def asinh(t, x):
    size = t.abs(x)
    square = size * size
    value = log1p(t, size + square / (1 + t.sqrt(1 + square)))
    return t.copysign(t.select(size > 2.0**28, log_of_double(t, size), value), x)


@float_function
@in_double
def acosh(t, x):
    above = x - 1
    value = log1p(t, above + t.sqrt(above + above + above * above))
    return t.select(x > 2.0**28, log_of_double(t, x), t.select(x < 1, NAN, value))


def log_of_double(t, x):
    """log(2 x), where 2 x may overflow."""
    return log(t, x) + 0.6931471805599453


@float_function
@in_double
def atanh(t, x):
    size = t.abs(x)
    return t.copysign(0.5 * log1p(t, (size + size) / (1 - size)), x)


# -- error functions


@float_function
def erf(t, x):
    size = t.abs(x)
    z = x * x
    near = t.fma(x, polynomial(t, z, table_of("ERF", x.dtype)), x)
    if x.dtype is F32:
        far = 1 - exp2_inside(t, polynomial(t, t.minimum(size, 4.0) - 0.875, c.LOG2_ERFC_F32))
    else:
        far = 1 - erfc_of_positive(t, size)
    return t.select(size < 0.9, near, t.copysign(far, x))


@float_function
@in_double
def erfc(t, x):
    size = t.abs(x)
    near = 1 - t.fma(x, polynomial(t, x * x, c.ERF_F64), x)
    far = erfc_of_positive(t, size)
    return t.select(size < 0.5, near, t.select(x < 0, 2 - far, far))


def erfc_of_positive(t, x):
    """erfc(x) for f64 x >= 0.5: exp(-x**2) times a smooth function of (x - 4) / (x + 4)."""
    x = t.minimum(x, 27.3)                                          # of more it is 0
    smooth = polynomial(t, (x - 4) / (x + 4), c.ERFC_F64) / (1 + (x + x))
    square, low = two_product(t, x, x)
    p, n = split_exp(t, -square, -low)
    return scale_by_power(t, p * smooth, n)


# -- powers


@float_function
def power(t, x, y):
    """x ** y with the special values of C and NumPy."""
    size = power_in_double if x.dtype is F32 else power_of_size
    return power_specials(t, x, y, size(t, t.abs(x), y))


def integer_power(t, x, y):
    """x ** y of integers by repeated squaring, which wraps; 1 where y is negative, which the op reports."""
    def step(result, base, left):
        return t.select((left & 1) != 0, result * base, result), base * base, left >> 1
    start = [t.splat(1, x.dtype), x, t.maximum(y, 0)]
    return t.repeat_while(lambda result, base, left: left > 0, step, start)[0]


def power_of_any(t, x, y):
    """x ** y of floats or integers."""
    x, y = t.pair(x, y)
    return (power if x.dtype.is_float else integer_power)(t, x, y)


def power_in_double(t, x, y):
    """x ** y for f32 x >= 0, with the few terms in f64 that f32 needs: 2**-35 in the logarithm, 2**-30 after it."""
    exponent, f = split_log(t, t.convert(x, F64))
    s = f / (2 + f)
    z = s * s
    whole = small_to_float(t, exponent, F64) * LN2
    logarithm = t.fma(s, t.fma(z, polynomial(t, z, c.ATANH_SHORT_F64), 2), whole)
    logarithm = t.select(x == 0, -INFINITY, t.select(x == INFINITY, INFINITY, logarithm))
    argument = t.minimum(t.maximum(t.convert(y, F64) * logarithm, -110.0), 90.0)
    shifted = t.fma(argument, LOG2_E, FORMATS[F64].magic)
    r = t.fma(FORMATS[F64].magic - shifted, LN2, argument)
    p = 1 + t.fma(r * r, polynomial(t, r, c.EXP_SHORT_F64), r)
    value = t.convert(p * power_of_two(t, exponent_of_magic(t, shifted), F64), F32)
    return t.select(t.isnan(x), NAN, value)


def power_specials(t, x, y, size):
    """x ** y, given |x| ** y where that needs no special care."""
    whole = t.trunc(y) == y
    odd = whole & (t.trunc(0.5 * y) != 0.5 * y)
    value = t.select(odd & t.signbit(x), -size, size)
    outside = (x < 0) & ~whole & (x != -INFINITY)
    value = t.select(outside, NAN, value)
    # Minus one to an infinite power is 1, as is one to anything and anything to zero, NaN included.
    unit = (x == 1) | (y == 0) | ((x == -1) & t.isinf(y))
    return t.select(unit, 1, value)


def power_of_size(t, x, y):
    """x ** y for f64 x >= 0: the logarithm needs about 65 bits, because y multiplies its error."""
    high, low = log_in_two_parts(t, x)
    high = t.select(x == 0, -INFINITY, t.select(t.isfinite(x), high, x))
    product, lost = two_product(t, y, high)
    f = FORMATS[F64]
    inside = (product > f.smallest_exp) & (product < f.largest_exp)
    lost = t.select(inside, t.fma(y, low, lost), 0)
    clamped = t.minimum(t.maximum(product, f.smallest_exp), f.largest_exp)
    return scale_by_power(t, *split_exp(t, clamped, lost))


def log_in_two_parts(t, x):
    """(high, low) of log(x): 2 s (1 + z (1/3 + z series(z))) + e log(2), with s = f / (2 + f) and z = s**2."""
    exponent, f = split_log(t, x)
    exponent = small_to_float(t, exponent, F64)
    divisor, divisor_low = quick_two_sum(t.splat(2, F64), f)
    s = f / divisor
    product, product_low = two_product(t, s, divisor)
    s_low = (((f - product) - product_low) - s * divisor_low) / divisor
    z, z_low = two_product(t, s, s)
    z_low = t.fma(s + s, s_low, z_low)
    third, third_low = c.THIRD_F64
    inner, inner_low = quick_two_sum(t.splat(third, F64), z * polynomial(t, z, c.ATANH_TAIL_F64))
    inner_low = inner_low + third_low
    # (z + z_low) (inner + inner_low), then times 2 (s + s_low)
    scaled, scaled_low = two_product(t, z, inner)
    scaled_low = scaled_low + t.fma(z, inner_low, z_low * inner)
    double, double_low = s + s, s_low + s_low
    cubic, cubic_low = two_product(t, double, scaled)
    cubic_low = cubic_low + t.fma(double, scaled_low, double_low * scaled)
    ln2_high, ln2_low = c.LN2_F64
    first, first_low = two_sum(exponent * ln2_high, double)
    second, second_low = two_sum(first, cubic)
    low = ((cubic_low + double_low) + t.fma(exponent, ln2_low, first_low)) + second_low
    return quick_two_sum(second, low)
