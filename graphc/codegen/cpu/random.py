"""Random numbers on vectors: the functions that the scalar texts of random ops name; graphc/ops/random.py says what.

Each takes the element numbers (a vector of any integer dtype), the run number and the two seeds (numbers, Ints or
vectors), and gives the values of those elements. Bits, uniform numbers and integers equal the NumPy rules'; normals are
within 8 ulp of them.
"""
from __future__ import annotations

from functools import partial
from math import pi

from graphc.codegen.cpu import math as vector_math
from graphc.ops.random import MULTIPLIERS, ROUNDS, TRUNCATED, TRUNCATED_CENTRE, TRUNCATED_MASS, UNIFORM_BITS, WEYL

# Minimax polynomials on [-pi/4, pi/4] from Cephes (S. Moshier), sinf.c and sin.c: sin(x) = x + x z S(z) and
# cos(x) = 1 - z/2 + z z C(z) with z = x x; below 1 ulp.
SINE = {"f32": (-1.6666654611e-1, 8.3321608736e-3, -1.9515295891e-4),
        "f64": (-1.66666666666666307295e-1, 8.33333333332211858878e-3, -1.98412698295895385996e-4,
                2.75573136213857245213e-6, -2.50507477628578072866e-8, 1.58962301576546568060e-10)}
COSINE = {"f32": (4.166664568298827e-2, -1.388731625493765e-3, 2.443315711809948e-5),
          "f64": (4.16666666666665929218e-2, -1.38888888888730564116e-3, 2.48015872888517045348e-5,
                  -2.75573141792967388112e-7, 2.08757008419747316778e-9, -1.13585365213876817300e-11)}


def functions(t) -> dict:
    """The functions by name, for the namespace of traced bodies; `t` is the tracer."""
    table = {"philox": partial(philox, t)}
    for dtype in ("f32", "f64", "f16", "bf16"):
        table[f"uniform_{dtype}"] = partial(uniform, t, dtype)
        table[f"normal_{dtype}"] = partial(normal, t, dtype)
        table[f"truncated_normal_{dtype}"] = partial(truncated_normal, t, dtype)
    for dtype in ("i32", "i64"):
        table[f"integers_{dtype}"] = partial(integers, t, dtype)
    return table


def philox(t, counter, key) -> list:
    """The block of four u32 vectors for four counter words and two key words."""
    words = [t.cast(word, "u32") for word in counter]
    keys = [t.cast(word, "u32") for word in key]
    for _ in range(ROUNDS):
        first, second = (_wide(t, words[k]) * m for k, m in zip((0, 2), MULTIPLIERS, strict=True))
        words = [_high(t, second) ^ words[1] ^ keys[0], _low(t, second), _high(t, first) ^ words[3] ^ keys[1],
                 _low(t, first)]
        keys = [key + weyl for key, weyl in zip(keys, WEYL, strict=True)]
    return words


def _wide(t, word):
    return t.cast(word, "u64")


def _high(t, product):
    return t.cast(product >> 32, "u32")


def _low(t, product):
    return t.cast(product, "u32")


def _block(t, index, run, seed, op_seed) -> list:
    index = t.cast(index, "i64")
    return philox(t, (index, index >> 32, run, 0), (seed, op_seed))


def _pair(t, high, low):
    """One u64 vector from two of u32."""
    return (_wide(t, high) << 32) | _wide(t, low)


def uniform(t, dtype, index, run, seed, op_seed):
    """Uniform in [0, 1)."""
    words = _block(t, index, run, seed, op_seed)
    if dtype != "f64":
        bits = UNIFORM_BITS[dtype]
        return t.cast(t.cast(words[0] >> (32 - bits), "i32"), "f32") * 2.0**-bits
    return t.cast(t.cast(_pair(t, words[0], words[1]) >> 11, "i64"), "f64") * 2.0**-53


def normal(t, dtype, index, run, seed, op_seed):
    """Standard normal, by Box-Muller."""
    words = _block(t, index, run, seed, op_seed)
    if dtype != "f64":
        a = t.cast(words[0], "f32") * 2.0**-32 + 2.0**-33
        wave = _turn(t, words[1], 32)
    else:
        a = t.cast(t.cast(_pair(t, words[0], words[1]) >> 11, "i64") + 1, "f64") * 2.0**-53
        wave = _turn(t, _pair(t, words[2], words[3]), 64)
    return t.sqrt(_log(t, a) * -2.0) * wave


def _log(t, x):
    return vector_math.functions(t)["log"](x)


def _turn(t, whole, bits):
    """sin(2 pi whole / 2**bits): the quadrant from the upper bits, so that small values are as exact as large ones."""
    signed, dtype = f"i{bits}", f"f{bits}"
    shifted = whole + (1 << (bits - 3))
    quadrant = t.cast(shifted >> (bits - 2), signed)
    part = t.cast(shifted & ((1 << (bits - 2)) - 1), signed) - (1 << (bits - 3))
    x = t.cast(part, dtype) * (2 * pi * 2.0**-bits)
    z = x * x
    sine = t.fma(x * z, _polynomial(t, SINE[dtype], z), x)
    cosine = t.fma(z * z, _polynomial(t, COSINE[dtype], z), 1.0 - z * 0.5)
    value = t.select((quadrant & 1) != 0, cosine, sine)
    return t.select((quadrant & 2) != 0, -value, value)


def _polynomial(t, coefficients, x):
    value = t.cast(coefficients[-1], x.dtype.name)
    for coefficient in reversed(coefficients[:-1]):
        value = t.fma(value, x, t.cast(coefficient, x.dtype.name))
    return value


def truncated_normal(t, dtype, index, run, seed, op_seed):
    """Standard normal, cut at two standard deviations, by inversion."""
    words = _block(t, index, run, seed, op_seed)
    if dtype != "f64":
        u = t.cast(t.cast(words[0], "i32"), "f32") * 2.0**-31 + 2.0**-32
    else:
        u = (t.cast(t.cast(_pair(t, words[0], words[1]), "i64") >> 11, "f64") + 0.5) * 2.0**-52
    x = u * TRUNCATED_MASS
    w = -_log(t, (1.0 - x) * (x + 1.0))
    z = u * _polynomial(t, TRUNCATED["f64" if dtype == "f64" else "f32"], w - TRUNCATED_CENTRE)
    return t.maximum(t.minimum(z, 2.0), -2.0)


def integers(t, dtype, index, run, seed, op_seed, low, high):
    """Whole numbers in [low, high): the upper half of bits * (high - low), a product of 128 bits."""
    words = _block(t, index, run, seed, op_seed)
    count_low, count_high = (high - low) & 0xFFFFFFFF, (high - low) >> 32
    upper, lower, mask = _wide(t, words[0]), _wide(t, words[1]), 0xFFFFFFFF
    across, along = upper * count_low, lower * count_high
    carry = (lower * count_low >> 32) + (across & mask) + (along & mask)
    product = upper * count_high + (across >> 32) + (along >> 32) + (carry >> 32)
    return t.cast(t.cast(product, "i64") + low, dtype)
