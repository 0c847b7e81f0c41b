"""Exponentials and logarithms of f32 and f64 Vectors, and the helpers that the other vector functions share.

In: a Tracer and Vectors.  Out: Vectors.  f32 is computed in f32.  Every function reduces its argument to a small
interval, evaluates a polynomial there (tools/fit_polynomials.py), and puts the exponent back by integer arithmetic.
"""
from dataclasses import dataclass
from functools import wraps

from graphc.codegen.cpu import math_coefficients as c
from graphc.codegen.cpu.simd_core import DTYPES, F32, F64, Vector
from graphc.codegen.cpu.simd_divide import can_scale, power_of_two, scale_by_power, scaled

INFINITY, NAN = float("inf"), float("nan")
LOG2_E, LN2 = 1.4426950408889634, 0.6931471805599453


@dataclass(frozen=True)
class Format:
    """Numbers that belong to a float format.  `ln2_high` is short, so that its product with an exponent is exact."""

    integer: object             # the integer dtype of the same size
    fraction_bits: int
    bias: int
    half_bits: int              # of a significand's lower half
    largest_exp: float          # exp of more is infinite
    smallest_exp: float         # exp of less is zero
    smallest_expm1: float       # expm1 of less is -1

    @property
    def magic(self):
        """Adding it leaves the nearest integer in the lowest bits."""
        return 1.5 * 2.0**self.fraction_bits


FORMATS = {
    F32: Format(DTYPES["i32"], 23, 127, 12, 89.0, -104.0, -20.0),
    F64: Format(DTYPES["i64"], 52, 1023, 27, 710.0, -746.0, -40.0),
}


def float_function(function):
    """Refuse integers: a trace that takes the exponential of one is a compiler bug."""
    @wraps(function)
    def checked(t, *vectors):
        dtype = next(v.dtype for v in vectors if isinstance(v, Vector))
        if not dtype.is_float:
            raise TypeError(f"{function.__name__} is not defined for {dtype.name}")
        return function(t, *(t.same(v, dtype) for v in vectors))
    return checked


def in_double(function):
    """Compute an f32 function in f64: shorter than an f32 formula that is as good."""
    @wraps(function)
    def widened(t, *vectors):
        if vectors[0].dtype is F64:
            return function(t, *vectors)
        return t.convert(function(t, *(t.convert(v, F64) for v in vectors)), F32)
    return widened


def polynomial(t, x, coefficients):
    """Horner's rule; coefficients lowest power first."""
    value = t.splat(coefficients[-1], x.dtype)
    for coefficient in coefficients[-2::-1]:
        value = t.fma(value, x, coefficient)
    return value


def table_of(name, dtype):
    """The coefficients or constants of a format."""
    return getattr(c, f"{name}_{dtype.name.upper()}")


# -- exponentials


def split_exp(t, x, low=None):
    """(p, n) with exp(x + low) = p * 2**n; p is near 1, x is within the exponents of the format.

    `low` is a second, small part of the argument.
    """
    p, _, shifted = reduced_exp(t, x, low)
    return p, exponent_of_magic(t, shifted)


def reduced_exp(t, x, low=None):
    """`split_exp` with n as a float, and with the magic number added to it."""
    r, shifted = reduced_argument(t, x)
    q = r * r * polynomial(t, r, table_of("EXP", x.dtype))
    if low is not None:
        q = t.fma(low, 1 + (r + q), q)
    return 1 + (r + q), shifted - FORMATS[x.dtype].magic, shifted


def reduced_argument(t, x):
    """(r, shifted): x is n log(2) + r, |r| at most log(2) / 2, and n with the magic number added is `shifted`."""
    f = FORMATS[x.dtype]
    ln2_high, ln2_low = table_of("LN2", x.dtype)
    shifted = t.fma(x, LOG2_E, f.magic)
    count = shifted - f.magic
    r = t.fma(-count, ln2_high, x)
    return t.fma(-count, ln2_low, r), shifted


def exponent_of_magic(t, shifted):
    """The integer that was rounded by adding the magic number."""
    f = FORMATS[shifted.dtype]
    return t.bitcast(shifted, f.integer) - t.bitcast(t.splat(f.magic, shifted.dtype), f.integer)


def clamp_exp(t, x):
    f = FORMATS[x.dtype]
    return t.minimum(t.maximum(x, f.smallest_exp), f.largest_exp)


@float_function
def exp(t, x):
    p, count, shifted = reduced_exp(t, clamp_exp(t, x))
    return by_power(t, p, count, shifted)


def by_power(t, p, count, shifted):
    """p * 2**count, for what `reduced_exp` gives."""
    return scaled(t, p, count) if can_scale(t, p.dtype) else scale_by_power(t, p, exponent_of_magic(t, shifted))


def half_exp(t, x):
    """exp(x) / 2 without overflow where the half is finite; x >= 0."""
    p, n = split_exp(t, t.minimum(x, FORMATS[x.dtype].largest_exp + 1))
    return scale_by_power(t, p, n - 1)


@float_function
def exp2(t, x):
    f = FORMATS[x.dtype]
    p, n = split_exp2(t, t.minimum(t.maximum(x, -f.bias - f.fraction_bits - 3.0), f.bias + 2.0))
    return scale_by_power(t, p, n)


def exp2_inside(t, x):
    """2**x where that is known to be a normal number."""
    p, n = split_exp2(t, x)
    return p * power_of_two(t, n, x.dtype)


def split_exp2(t, x):
    """(p, n) with 2**x = p * 2**n."""
    magic = FORMATS[x.dtype].magic
    shifted = x + magic
    r = x - (shifted - magic)
    return t.fma(r, polynomial(t, r, table_of("EXP2", x.dtype)), 1), exponent_of_magic(t, shifted)


@float_function
def expm1(t, x):
    """2**n (exp(r) - 1) + (2**n - 1), with half of 2**n so that the largest results do not overflow on the way."""
    f = FORMATS[x.dtype]
    clamped = t.minimum(t.maximum(x, f.smallest_expm1), f.largest_exp)
    ln2_high, ln2_low = table_of("LN2", x.dtype)
    shifted = t.fma(clamped, LOG2_E, f.magic)
    count = shifted - f.magic
    high = t.fma(-count, ln2_high, clamped)
    r = t.fma(-count, ln2_low, high)
    lost = t.fma(-count, ln2_low, high - r)
    power = r + t.fma(r * r, polynomial(t, r, table_of("EXP", x.dtype)), lost)
    half = power_of_two(t, exponent_of_magic(t, shifted) - 1, x.dtype)
    value = t.fma(half, power, half - 0.5)
    return t.copysign(value + value, x)


# -- logarithms


def split_log(t, x):
    """(e, f) with x = 2**e (1 + f) for positive x, denormal ones too; e is an integer, 1 + f in [sqrt(.5), sqrt(2))."""
    n = FORMATS[x.dtype]
    tiny = x < 2.0 ** (1 - n.bias)
    bits = t.bitcast(t.select(tiny, x * 2.0 ** (n.fraction_bits + 1), x), n.integer)
    root_half = t.bitcast(t.splat(0.7071067811865476, x.dtype), n.integer)
    exponent = (bits - root_half) >> n.fraction_bits
    fraction = t.bitcast(bits - (exponent << n.fraction_bits), x.dtype) - 1
    return exponent - t.select(tiny, t.splat(n.fraction_bits + 1, n.integer), 0), fraction


def small_to_float(t, integer, dtype):
    """Small integers as floats: below AVX-512 no instruction converts 64-bit integers, an addition does."""
    magic = FORMATS[dtype].magic
    bits = t.bitcast(t.splat(magic, dtype), integer.dtype)
    return t.bitcast(integer + bits, dtype) - magic


def log1p_rest(t, f):
    """log(1 + f) - f, for 1 + f in [sqrt(1/2), sqrt(2))."""
    half_square = 0.5 * f * f
    if f.dtype is F32:
        return t.fma(f * f * f, polynomial(t, f, c.LOG_F32), -half_square)
    # log(1 + f) = 2 atanh(s) with s = f / (2 + f), and 2 s = f - f**2/2 + s f**2/2.
    s = f / (2 + f)
    z = s * s
    return s * (half_square + z * polynomial(t, z, c.ATANH_F64)) - half_square


def join_log(t, exponent, f):
    """log(2**exponent * (1 + f))."""
    ln2_high, ln2_low = table_of("LN2", f.dtype)
    exponent = small_to_float(t, exponent, f.dtype)
    return exponent * ln2_high + (f + t.fma(exponent, ln2_low, log1p_rest(t, f)))


def on_domain(t, x, pole, value):
    """The logarithm's values where `value` is meaningless: at its pole, below it, at infinity and for NaN."""
    outside = t.select(x == pole, t.splat(-INFINITY, x.dtype), NAN)
    value = t.select(x > pole, value, outside)
    return t.select(x == INFINITY, INFINITY, value)


@float_function
def log(t, x):
    return on_domain(t, x, 0, join_log(t, *split_log(t, x)))


@float_function
def log2(t, x):
    exponent, f = split_log(t, x)
    value = scaled_log1p(t, f, *table_of("LOG2E", x.dtype))
    return on_domain(t, x, 0, small_to_float(t, exponent, x.dtype) + value)


@float_function
def log10(t, x):
    exponent, f = split_log(t, x)
    exponent = small_to_float(t, exponent, x.dtype)
    high, low = table_of("LOG10_2", x.dtype)
    value = scaled_log1p(t, f, *table_of("LOG10E", x.dtype))
    return on_domain(t, x, 0, exponent * high + t.fma(exponent, low, value))


def scaled_log1p(t, f, high, low):
    """log(1 + f) * (high + low), where `high` is short: the factor then adds hardly any error of its own."""
    rest = log1p_rest(t, f)
    total = f + rest
    lost = (f - total) + rest
    top = leading_half(t, total)
    return top * high + ((total - top + lost) * high + total * low)


def leading_half(t, x):
    """x without the lower half of its significand: products with another half are exact."""
    n = FORMATS[x.dtype]
    return t.bitcast(t.bitcast(x, n.integer) & (-1 << n.half_bits), x.dtype)


@float_function
def log1p(t, x):
    """log of u = 1 + x, with what the addition lost put back into the fraction of u."""
    n = FORMATS[x.dtype]
    u = 1 + x
    lost = t.select(x < 1, x - (u - 1), 1 - (u - x))
    exponent, f = split_log(t, u)
    # 2**-exponent, or 0 for the largest ones, where the loss does not matter.
    inverse = t.bitcast(t.maximum(n.bias - exponent, 0) << n.fraction_bits, x.dtype)
    value = join_log(t, exponent, f + lost * inverse)
    return t.copysign(on_domain(t, x, -1, value), x)


# -- sums and products in two parts


def two_sum(a, b):
    """(s, e) with s + e = a + b exactly."""
    total = a + b
    back = total - a
    return total, (a - (total - back)) + (b - back)


def quick_two_sum(a, b):
    """The same, where |a| >= |b|."""
    total = a + b
    return total, b - (total - a)


def two_product(t, a, b):
    """(p, e) with p + e = a * b exactly (no overflow or underflow)."""
    product = a * b
    if t.host.has_fma:
        return product, t.fma(a, b, -product)
    a_high, b_high = leading_half(t, a), leading_half(t, b)
    a_low, b_low = a - a_high, b - b_high
    return product, ((a_high * b_high - product) + (a_high * b_low + a_low * b_high)) + a_low * b_low
