"""Angles: sin, cos, tan and their inverses.

In: a Tracer and Vectors.  Out: Vectors.  Arguments are reduced exactly over the whole range: by four parts of pi/2 up
to a million, and by a window of the bits of 2/pi beyond that, in code that runs only when some lane needs it.
"""
from llvmlite import ir

from graphc.codegen.cpu import math_coefficients as c
from graphc.codegen.cpu import simd_memory
from graphc.codegen.cpu.math_exp_log import (
    FORMATS,
    NAN,
    float_function,
    polynomial,
    quick_two_sum,
    table_of,
    two_product,
    two_sum,
)
from graphc.codegen.cpu.simd_core import DTYPES, F32, F64, I8, I64, Int

U64, INT64 = DTYPES["u64"], DTYPES["i64"]
LARGEST_PLAIN = 1.0e6               # n = x * 2/pi then has at most 20 bits, as the 33-bit parts of pi/2 need
LARGEST_PLAIN_F32 = 8192.0          # beyond it, what the third part leaves out would be seen


# -- sine, cosine, tangent


@float_function
def sin(t, x):
    quadrant, r, low = reduce_angle(t, x)
    value = rotated(t, quadrant, sine(t, r, low), cosine(t, r, low))
    return t.select(x == 0, x, t.select(t.isfinite(x), value, NAN))


@float_function
def cos(t, x):
    quadrant, r, low = reduce_angle(t, x)
    value = rotated(t, quadrant + 1, sine(t, r, low), cosine(t, r, low))
    return t.select(t.isfinite(x), value, NAN)


@float_function
def tan(t, x):
    quadrant, r, low = reduce_angle(t, x)
    s, co = sine(t, r, low), cosine(t, r, low)
    odd = (quadrant & 1) != 0
    value = t.select(odd, -co, s) / t.select(odd, s, co)
    return t.select(x == 0, x, t.select(t.isfinite(x), value, NAN))


def rotated(t, quadrant, s, co):
    """The sine of `quadrant` quarter turns more."""
    n = FORMATS[s.dtype]
    value = t.bitcast(t.select((quadrant & 1) != 0, co, s), n.integer)
    sign = t.convert(quadrant & 2, n.integer) << (n.integer.bits - 2)
    return t.bitcast(value ^ sign, s.dtype)


def sine(t, r, low):
    """sin(r + low) for |r| <= pi/4."""
    z = r * r
    cubic = z * r * polynomial(t, z, table_of("SIN", r.dtype))
    return r + (cubic if low is None else t.fma(low, 1 - 0.5 * z, cubic))


def cosine(t, r, low):
    """cos(r + low) for |r| <= pi/4."""
    z = r * r
    half = 0.5 * z
    quartic = z * z * polynomial(t, z, table_of("COS", r.dtype))
    if low is not None:
        quartic = quartic - r * low
    head = 1 - half
    return head + (((1 - head) - half) + quartic)


def reduce_angle(t, x):
    """(quadrant, r, low): x is quadrant * pi/2 + r + low, |r| at most pi/4.  `low` is None for f32.

    An f32 of moderate size is reduced in f32, where a fused multiply-add makes the products with 24-bit parts of pi/2
    exact; others in f64.
    """
    if x.dtype is F64:
        return reduce_in_double(t, x)
    if not t.host.has_fma:
        return narrow(t, *reduce_in_double(t, t.convert(x, F64)))
    magic = FORMATS[F32].magic
    shifted = t.fma(x, c.TWO_OVER_PI_F32[0], magic)
    count = shifted - magic
    r = x
    for part in c.HALF_PI_SHORT_F32:
        r = t.fma(-count, part, r)
    quadrant = t.bitcast(shifted, DTYPES["i32"])
    large = (t.abs(x) > LARGEST_PLAIN_F32) & t.isfinite(x)

    def reduce_the_large():
        found = t.outline("graphc_reduce_angle", reduce_single, [t.select(large, x, 0)], (DTYPES["i32"], F32))
        return [t.select(large, a, b) for a, b in zip(found, (quadrant, r), strict=True)]

    quadrant, r = t.when(t.any_lane(large), reduce_the_large, [quadrant, r])
    return quadrant, r, None


def narrow(t, quadrant, r, low):
    """The f64 reduction of f32 angles as f32."""
    return t.convert(quadrant, DTYPES["i32"]), t.convert(r, F32), None


def reduce_single(t, x):
    """(quadrant, r) of any finite f32."""
    return narrow(t, *reduce_in_double(t, t.convert(x, F64)))[:2]


def reduce_in_double(t, x):
    """(quadrant, r, low) of f64 angles: four parts of pi/2, the first three short enough for exact products."""
    shifted = t.fma(x, c.TWO_OVER_PI_F64[0], FORMATS[F64].magic)
    count = shifted - FORMATS[F64].magic
    first, second, third, fourth = c.HALF_PI_LONG_F64
    high, low1 = two_sum(x - count * first, -count * second)
    high, low2 = two_sum(high, -count * third)
    high, low = quick_two_sum(high, (low1 + low2) - count * fourth)
    quadrant = t.bitcast(shifted, INT64)
    large = (t.abs(x) > LARGEST_PLAIN) & t.isfinite(x)

    def reduce_the_large():
        found = t.outline("graphc_reduce_large_angle", reduce_large_angle, [t.select(large, x, 2.0**30)],
                          (INT64, F64, F64))
        return [t.select(large, a, b) for a, b in zip(found, (quadrant, high, low), strict=True)]

    return t.when(t.any_lane(large), reduce_the_large, [quadrant, high, low])


def reduce_large_angle(t, x):
    """The same for f64 |x| >= 2**19: multiply the significand by those bits of 2/pi that matter, as integers.

    x = m 2**e, and 2/pi = bits / 2**K.  Bits that make multiples of four turns are left out, and those that are too
    small to matter: 192 bits from a multiple of 8, `offset`, remain; 60-bit `m`, shifted to fit that, times them is
    the angle in quarter turns with 190 bits behind the point, modulo four.
    """
    bits = t.bitcast(x, U64)
    m = (bits & (2**52 - 1)) | 2**52
    exponent = t.bitcast((bits >> 52) & 0x7FF, INT64) - 1075
    wanted = (c.TWO_OVER_PI_BITS - 190) - exponent
    offset = (wanted + 7) & ~7
    m = m << t.bitcast(offset - wanted, U64)
    word0, word1, word2 = (table_word(t, (offset >> 3) + k) for k in (0, 8, 16))
    low = m * word1
    carried = multiply_high(t, m, word0)
    low = low + carried
    high = m * word2 + multiply_high(t, m, word1) + t.convert(low < carried, U64)
    quadrant = (high + 2**61) >> 62
    high = high - (quadrant << 62)
    negative = t.bitcast(high, INT64) < 0
    high = t.select(negative, ~high + t.convert(low == 0, U64), high)
    low = t.select(negative, 0 - low, low)
    turns, turns_low = fraction_in_two_parts(t, high, low)
    r, r_low = two_product(t, turns, t.splat(c.HALF_PI_F64[0], F64))
    r_low = r_low + t.fma(turns, c.HALF_PI_F64[1], turns_low * c.HALF_PI_F64[0])
    r, r_low = quick_two_sum(r, r_low)
    flip, quadrant = negative ^ (x < 0), t.bitcast(quadrant, INT64)
    return [t.select(x < 0, -quadrant, quadrant), t.select(flip, -r, r), t.select(flip, -r_low, r_low)]


def fraction_in_two_parts(t, high, low):
    """(high 2**64 + low) / 2**126 as an f64 and a correction; the 32-bit pieces are exact, however many lead with 0."""
    mask = 2**32 - 1
    pieces = (high >> 32, 2.0**-30), (high & mask, 2.0**-62), (low >> 32, 2.0**-94), (low & mask, 2.0**-126)
    a, b, third, fourth = (t.convert(piece, F64) * unit for piece, unit in pieces)
    total, lost1 = two_sum(a, b)
    total, lost2 = two_sum(total, third)
    return quick_two_sum(total, (lost1 + lost2) + fourth)


def multiply_high(t, a, b):
    """The upper 64 bits of the product of u64 vectors."""
    mask = 2**32 - 1
    a_low, a_high, b_low, b_high = a & mask, a >> 32, b & mask, b >> 32
    middle = a_high * b_low + ((a_low * b_low) >> 32)
    other = a_low * b_high + (middle & mask)
    return a_high * b_high + (middle >> 32) + (other >> 32)


def table_word(t, offset):
    """Eight bytes of the bits of 2/pi, lowest first, at a byte offset per lane."""
    module, name = t.builder.module, "graphc_two_over_pi"
    table = module.globals.get(name)
    if table is None:
        content = bytearray(c.TWO_OVER_PI.to_bytes(168, "little"))
        kind = ir.ArrayType(I8, len(content))
        table = ir.GlobalVariable(module, kind, name)
        table.initializer = ir.Constant(kind, content)
        table.global_constant, table.linkage = True, "internal"
    return simd_memory.gather_bytes(t, U64, Int(t.builder.ptrtoint(table, I64), t), offset)


# -- the inverses


def arctangent(t, a):
    """atan(a) for 0 <= a <= 1, moved by pi/4 beyond tan(pi/8)."""
    high, low = (0.5 * p for p in table_of("HALF_PI", a.dtype))
    moved = a > 0.41421356237309503
    a = t.select(moved, (a - 1) / (a + 1), a)
    z = a * a
    rest = a * z * polynomial(t, z, table_of("ATAN", a.dtype))
    return t.select(moved, high + (a + (rest + low)), a + rest)


@float_function
def atan(t, x):
    size = t.abs(x)
    steep = size > 1
    value = arctangent(t, t.select(steep, 1 / size, size))
    high, low = table_of("HALF_PI", x.dtype)
    return t.copysign(t.select(steep, high - (value - low), value), x)


@float_function
def atan2(t, y, x):
    """The angle of the point (x, y), with C's values at zeros and infinities."""
    rise, run = t.abs(y), t.abs(x)
    steep = rise > run
    small, large = t.select(steep, run, rise), t.select(steep, rise, run)
    slope = t.select(large == 0, 0, t.select(small == float("inf"), 1, small / large))
    value = arctangent(t, slope)
    high, low = table_of("HALF_PI", x.dtype)
    value = t.select(steep, high - (value - low), value)
    high, low = table_of("PI", x.dtype)
    value = t.select(t.signbit(x), high - (value - low), value)
    return t.select(t.isnan(x) | t.isnan(y), NAN, t.copysign(value, y))


def arcsine_tail(t, s, z):
    """asin(s) - s, for z = s**2 at most 1/4."""
    return s * z * polynomial(t, z, table_of("ASIN", s.dtype))


@float_function
def asin(t, x):
    """asin(x), beyond 1/2 from pi/2 - 2 asin(sqrt((1 - x) / 2))."""
    size = t.abs(x)
    far = size > 0.5
    z = t.select(far, (1 - size) * 0.5, size * size)
    s = t.select(far, t.sqrt(z), size)
    tail = arcsine_tail(t, s, z)
    high, low = table_of("HALF_PI", x.dtype)
    beyond = high - (2 * (s + tail) - low)
    return t.copysign(t.select(far, beyond, s + tail), x)


@float_function
def acos(t, x):
    size = t.abs(x)
    far = size > 0.5
    z = t.select(far, (1 - size) * 0.5, size * size)
    s = t.select(far, t.sqrt(z), x)
    tail = arcsine_tail(t, s, z)
    high, low = table_of("HALF_PI", x.dtype)
    double = 2 * (s + tail)
    full, full_low = table_of("PI", x.dtype)
    beyond = t.select(x < 0, full - (double - full_low), double)
    return t.select(far, beyond, high - (s - (low - tail)))
