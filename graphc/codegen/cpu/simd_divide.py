"""Floor division and remainder, as NumPy defines them, without a trap and without libm.

In: two Vectors of one dtype.  Out: (quotient, remainder).  Integers divided by zero give 0 and 0.
"""
from llvmlite import ir

from graphc.codegen.cpu.simd_core import BOOL, DTYPES, F32, F64, I64
from graphc.codegen.cpu.simd_lanes import joined, part

CURRENT_ROUNDING = 4    # _MM_FROUND_CUR_DIRECTION


def divide(t, a, b):
    """(a // b, a % b) with NumPy's signs: the remainder has the sign of `b`."""
    if a.dtype is BOOL:
        raise TypeError("// and % are not defined for bool")
    return _divide_floats(t, a, b) if a.dtype.is_float else _divide_integers(t, a, b)


def divide_scalars(t, a, b):
    """The same for two LLVM i64 values."""
    build = t.builder
    if isinstance(b, ir.Constant) and b.constant not in (0, -1):
        bad, divisor = None, b
    else:
        # x / -1 would trap for the smallest x, and is -x, which wraps.
        bad = build.icmp_unsigned("<", build.add(b, I64(1)), I64(2))
        divisor = build.select(bad, I64(1), b)
    quotient = build.sdiv(a, divisor)
    remainder = build.sub(a, build.mul(quotient, divisor))
    wrong_sign = build.icmp_signed("<", build.xor(remainder, divisor), I64(0))
    adjust = build.and_(wrong_sign, build.icmp_signed("!=", remainder, I64(0)))
    quotient = build.sub(quotient, build.zext(adjust, I64))
    remainder = build.add(remainder, build.select(adjust, divisor, I64(0)))
    if bad is not None:
        negated = build.select(build.icmp_signed("==", b, I64(0)), I64(0), build.neg(a))
        quotient = build.select(bad, negated, quotient)
        remainder = build.select(bad, I64(0), remainder)
    return quotient, remainder


def _divide_integers(t, a, b):
    dtype, build = a.dtype, t.builder
    is_zero = b == 0
    bad = is_zero | (b == -1) if dtype.signed else is_zero
    divisor = t.select(bad, 1, b) if not _known_safe(b) else b
    quotient = _truncated(t, a, divisor)
    remainder = a - quotient * divisor
    if dtype.signed:
        adjust = (remainder != 0) & ((remainder ^ divisor) < 0)
        quotient = t.select(adjust, quotient - 1, quotient)
        remainder = t.select(adjust, remainder + divisor, remainder)
    if _known_safe(b):
        return quotient, remainder
    negated = t.vector(build.neg(a.ir), dtype) if dtype.signed else t.splat(0, dtype)
    quotient = t.select(bad, t.select(is_zero, 0, negated), quotient)
    return quotient, t.select(bad, 0, remainder)


def _known_safe(b):
    """Is the divisor a constant that is neither 0 nor -1 in any lane?"""
    if not isinstance(b.ir, ir.Constant) or not isinstance(b.ir.constant, (list, tuple)):
        return False
    unsafe = (0, 2**b.dtype.bits - 1) if b.dtype.signed else (0,)
    return all(c.constant not in unsafe for c in b.ir.constant)


def _truncated(t, a, b):
    """a / b rounded toward zero; `b` is neither 0 nor -1.

    Processors have no vector division of integers, but a floating-point quotient with more than twice the bits is never
    rounded across an integer, so its truncation is exact.  A constant divisor is left to LLVM, which multiplies.
    """
    dtype = a.dtype
    if dtype.bits == 64 or _known_safe(b):
        emit = t.builder.sdiv if dtype.signed else t.builder.udiv
        return t.vector(emit(a.ir, b.ir), dtype)
    wide = F64 if dtype.bits == 32 else F32
    quotient = t.convert(a, wide) / t.convert(b, wide)
    # Through a wider integer: the conversion of a float to i8 or i16 costs more than a truncation.
    return t.convert(t.convert(quotient, DTYPES["i64" if dtype.name == "u32" else "i32"]), dtype)


def _divide_floats(t, a, b):
    """NumPy's divmod: an exact remainder, a quotient made to fit it."""
    remainder = float_remainder(t, a, b)
    quotient = (a - remainder) / b
    zero = remainder == 0
    adjust = ~zero & ((b < 0) ^ (remainder < 0))
    remainder = t.select(adjust, remainder + b, remainder)
    quotient = t.select(adjust, quotient - 1, quotient)
    remainder = t.select(zero, t.copysign(t.splat(0, a.dtype), b), remainder)
    floored = t.floor(quotient)
    floored = t.select(quotient - floored > 0.5, floored + 1, floored)
    ratio = a / b
    quotient = t.select(quotient == 0, t.copysign(t.splat(0, a.dtype), ratio), floored)
    # A division by zero is the ratio, infinite or NaN; an infinite dividend has no remainder at all.
    nan = t.splat(float("nan"), a.dtype)
    return (t.select(b == 0, ratio, quotient),
            t.select((b == 0) | t.isnan(a) | t.isnan(b), nan, remainder))


def float_remainder(t, a, b):
    """C's fmod, exact: long division in steps of half a significand.

    Both numbers are split into a significand in [1, 2) and an exponent.  A step multiplies the rest by at most 2**step
    and takes away the whole multiples of the divisor; divisor halves of at most half the bits keep every product exact
    without a fused multiply-add.
    """
    dtype = a.dtype
    step, low_bits = (11, 12) if dtype is F32 else (25, 27)
    integer = DTYPES["i32" if dtype is F32 else "i64"]
    ok = t.isfinite(a) & (b != 0) & ~t.isnan(b)
    plain = ok & ~t.isinf(b) & (t.abs(a) >= t.abs(b))
    rest, exponent_a = split_exponent(t, t.select(plain, t.abs(a), 1))
    divisor, exponent_b = split_exponent(t, t.select(plain, t.abs(b), 1))
    high = t.bitcast(t.bitcast(divisor, integer) & (-1 << low_bits), dtype)
    low = divisor - high

    def take(rest):
        whole = t.trunc(rest / divisor)
        rest = rest - whole * high - whole * low
        rest = t.select(rest < 0, rest + divisor, rest)
        return t.select(rest >= divisor, rest - divisor, rest)

    def shift(rest, distance):
        moved = t.select(distance > step, step, distance)
        return take(rest * power_of_two(t, moved, dtype)), distance - moved

    distance = exponent_a - exponent_b
    rest, _ = t.repeat_while(lambda _, distance: distance > 0, shift, [take(rest), distance])
    rest = scale_by_power(t, rest, exponent_b)
    rest = t.copysign(t.select(plain, rest, t.abs(a)), a)
    return t.select(ok, rest, float("nan"))


def split_exponent(t, x):
    """(significand in [1, 2), integer exponent) of positive finite numbers, denormal ones included."""
    dtype = x.dtype
    bits, bias, integer = (23, 127, DTYPES["i32"]) if dtype is F32 else (52, 1023, DTYPES["i64"])
    tiny = x < 2.0 ** (1 - bias)
    normal = t.bitcast(t.select(tiny, x * 2.0 ** (bits + 1), x), integer)
    exponent = (normal >> bits) - t.select(tiny, t.splat(bias + bits + 1, integer), bias)
    significand = t.bitcast((normal & (2**bits - 1)) | (bias << bits), dtype)
    return significand, exponent


def power_of_two(t, exponent, dtype):
    """2.0 ** exponent for an integer vector of the float's size; the result must be a normal number."""
    bits, bias = (23, 127) if dtype is F32 else (52, 1023)
    return t.bitcast((exponent + bias) << bits, dtype)


def scale_by_power(t, x, exponent):
    """x * 2**exponent rounded once, for an integer vector; two steps reach denormal numbers and the largest ones."""
    if can_scale(t, x.dtype):
        return scaled(t, x, t.convert(exponent, x.dtype))
    half = exponent >> 1
    return x * power_of_two(t, half, x.dtype) * power_of_two(t, exponent - half, x.dtype)


def can_scale(t, dtype):
    """Whether `scaled` is an instruction."""
    return t.host.vector_bytes == 64 and t.lanes * dtype.bits % 512 == 0


def scaled(t, x, exponent):
    """x * 2**exponent rounded once, for an exponent that is a float without a fraction."""
    lanes = 512 // x.dtype.bits
    kind, parts = ir.VectorType(x.dtype.register, lanes), t.lanes // lanes
    name = f"llvm.x86.avx512.mask.scalef.p{'s' if x.dtype is F32 else 'd'}.512"
    everything = ir.Constant(ir.IntType(lanes), -1)
    rounding = ir.Constant(ir.IntType(32), CURRENT_ROUNDING)
    return joined(t, [t.vector(t.call(name, kind, [part(t, x, k, parts).ir, part(t, exponent, k, parts).ir,
                                                   ir.Constant(kind, [0] * lanes), everything, rounding]), x.dtype)
                      for k in range(parts)])
