"""float16 and bfloat16: 16 bits in memory, f32 in registers.

In: a Tracer and Vectors.  Out: Vectors.  Rounding is to the nearest, ties to the even one, denormal numbers included; too
large numbers become infinite; a NaN stays one.  The processor's conversions are used for f16 where it has them.
"""
from functools import partial

from llvmlite import ir

from graphc.codegen.cpu.simd_core import DTYPES, F32, HALVES, Vector

U16, U32 = DTYPES["u16"], DTYPES["u32"]


def functions(t):
    """What a traced body may call from here: for f16, `round_f16`, `to_f16`, `splat_f16`, `ramp_f16`, `bits_f16` and
    `from_bits_f16`.
    """
    table = {}
    for name, dtype in HALVES.items():
        table[f"round_{name}"] = partial(rounded, t, dtype)
        table[f"to_{name}"] = partial(cast, t, dtype)
        table[f"splat_{name}"] = partial(cast, t, dtype)
        table[f"ramp_{name}"] = partial(ramp, t, dtype)
        table[f"bits_{name}"] = partial(pack, t, dtype)
        table[f"from_bits_{name}"] = partial(from_bits, t, dtype)
    return table


def expand(t, dtype, bits):
    """The f32 numbers that u16 bits mean."""
    if dtype.name == "bf16":
        return t.bitcast(t.convert(bits, U32) << 16, F32)
    if t.host.has_half:
        halves = t.builder.bitcast(bits.ir, ir.VectorType(ir.HalfType(), t.lanes))
        return t.vector(t.builder.fpext(halves, t.vector_type(F32)), F32)
    wide = t.convert(bits, U32)
    # The exponent moves to its place in f32 and grows by a product, which is right for denormal numbers too.
    size = t.bitcast((wide & 0x7FFF) << 13, F32) * 2.0**112
    special = t.bitcast(t.bitcast(size, U32) | 0x7F800000, F32)
    size = t.select(size >= 65536.0, special, size)
    return t.bitcast(t.bitcast(size, U32) | ((wide & 0x8000) << 16), F32)


def pack(t, dtype, v):
    """The u16 bits of f32 numbers, rounded."""
    if dtype.name == "bf16":
        return t.convert(_bfloat16_bits(t, v) >> 16, U16)
    if t.host.has_half:
        halves = t.builder.fptrunc(v.ir, ir.VectorType(ir.HalfType(), t.lanes))
        return t.vector(t.builder.bitcast(halves, t.vector_type(U16)), U16)
    whole = t.bitcast(v, U32)
    size = whole & 0x7FFFFFFF
    # Added to 0.5, whose last place is the smallest denormal float16, a number is rounded by the addition.
    tiny = t.bitcast(t.bitcast(size, F32) + 0.5, U32) - 0x3F000000
    normal = (size - (112 << 23) + 0xFFF + ((size >> 13) & 1)) >> 13
    special = t.select(size > 0x7F800000, t.splat(0x7E00, U32), 0x7C00)
    bits = t.select(size < 0x38800000, tiny, t.select(size < 0x47800000, normal, special))
    return t.convert(bits | ((whole >> 16) & 0x8000), U16)


def rounded(t, dtype, v):
    """f32 numbers rounded to those that the dtype has."""
    if dtype.name == "bf16":
        return t.bitcast(_bfloat16_bits(t, v) & 0xFFFF0000, F32)
    return expand(t, dtype, pack(t, dtype, v))


def _bfloat16_bits(t, v):
    """u32 whose upper half is the bfloat16."""
    bits = t.bitcast(v, U32)
    return t.select(t.isnan(v), bits | 0x400000, bits + 0x7FFF + ((bits >> 16) & 1))


def cast(t, dtype, value):
    """A Vector of any dtype, a number or an Int; all go through f32."""
    return rounded(t, dtype, t.cast(value, F32))


def ramp(t, dtype, start=0, step=1):
    """start + step * lane."""
    return cast(t, dtype, t.ramp(DTYPES["i64"], start, step))


def from_bits(t, dtype, bits: Vector):
    """The f32 numbers that a vector of 16-bit integers means."""
    return expand(t, dtype, t.bitcast(bits, U16))
