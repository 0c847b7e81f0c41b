"""Random numbers as a pure function of (element, run number, seeds): the same bits on every device and thread count.

The generator is Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC
2011). Its counter is (element low, element high, run number, loop iteration), its key (graph seed, op seed), 32 bits
each; each element takes the four words of its own block. Bits and uniform numbers are exact everywhere; normals are
exact functions of the bits that each device evaluates within 8 ulp (here: in float64, rounded once).
"""
from __future__ import annotations

import numpy as np

from graphc.errors import DTypeError, RuleError
from graphc.ir import dims
from graphc.ir.op import REQUIRED, Kind, Op, Random
from graphc.ir.types import TensorType, bfloat16, float16, float32, float64, int32, int64
from graphc.ops.define import as_samples, sample

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # the golden ratio and sqrt(3) - 1: what the key grows by each round
ROUNDS = 10
UNIFORM_BITS = {"f32": 24, "f16": 11, "bf16": 8}  # the significand's: nothing is rounded up to 1
NO_GRADIENT = "a random number depends on no input"

# Standard normal cut at two deviations, by inversion: z = u * polynomial(w - TRUNCATED_CENTRE), where u is uniform in
# (-1, 1), x = TRUNCATED_MASS * u and w = -log(1 - x*x), the variable in which M. Giles ("Approximating the erfinv
# function", 2010) found erfinv smooth. Fitted at Chebyshev nodes to 5e-9 and 2e-18 relative error.
TRUNCATED_MASS = 0.9544997361036415856  # erf(sqrt(2)): how much lies within two deviations
TRUNCATED_CENTRE = 1.21
TRUNCATED = {
    "f32": (1.5922821760607364, 0.33653229985661925, 0.003757476370320716, -0.003072630881063365,
            0.00018481803290189985,
            4.3675129821133096e-05, -6.200873070894165e-06, -4.764901497284274e-07),
    "f64": (1.5922821818698976, 0.33653229985982763, 0.003757349264105587, -0.003072631128932389,
            0.00018525451582684588,
            4.367599003292608e-05, -6.684481492688263e-06, -4.771401161026835e-07, 1.725394436523593e-07,
            -1.874482506632147e-10, -3.781612241171723e-09, 2.2925951216732454e-10, 7.108178680601665e-11,
            -9.257133429697526e-12, -1.0646574436192204e-12, 2.3617407629495364e-13, 9.229085345429377e-15),
}


def philox(counter, key):
    """The block of four uint32 arrays for four counter words (arrays or numbers) and two key words."""
    words = [np.asarray(word, np.uint32) for word in counter]
    keys = [int(word) & 0xFFFFFFFF for word in key]
    for _ in range(ROUNDS):
        first, second = (words[k].astype(np.uint64) * np.uint64(m) for k, m in zip((0, 2), MULTIPLIERS, strict=True))
        words = [_high(second) ^ words[1] ^ np.uint32(keys[0]), _low(second),
                 _high(first) ^ words[3] ^ np.uint32(keys[1]), _low(first)]
        keys = [(key + weyl) & 0xFFFFFFFF for key, weyl in zip(keys, WEYL, strict=True)]
    return words


def _high(product):
    return (product >> np.uint64(32)).astype(np.uint32)


def _low(product):
    return product.astype(np.uint32)


def block(shape, run, seed, op_seed):
    """The four words of each element of `shape`."""
    element = np.arange(dims.product(shape), dtype=np.uint64).reshape(shape)
    return philox((_low(element), _high(element), int(run) & 0xFFFFFFFF, 0), (seed, op_seed))


def _wide(high, low):
    return (high.astype(np.uint64) << np.uint64(32)) | low.astype(np.uint64)


def _uniform(words, dtype):
    if dtype is not float64:
        bits = UNIFORM_BITS[dtype.short]
        return ((words[0] >> np.uint32(32 - bits)).astype(np.float32) * np.float32(2.0**-bits)).astype(dtype.numpy)
    return (_wide(words[0], words[1]) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _turn(whole, bits):
    """sin of 2 pi * whole / 2**bits, where `whole` is an unsigned array of that many bits: exact up to one quadrant."""
    quarter, eighth = 1 << (bits - 2), 1 << (bits - 3)
    shifted = whole + whole.dtype.type(eighth)
    quadrant = (shifted >> whole.dtype.type(bits - 2)).astype(np.int64)
    part = (shifted & whole.dtype.type(quarter - 1)).astype(np.int64) - eighth
    angle = part.astype(np.float64) * (2 * np.pi * 2.0**-bits)
    value = np.where(quadrant & 1, np.cos(angle), np.sin(angle))
    return np.where(quadrant & 2, -value, value)


def _normal(words, dtype):
    """Box-Muller: sqrt(-2 log(a)) * sin(2 pi b) with a in (0, 1], b in [0, 1) from the same block."""
    if dtype is not float64:
        # in float32, so that all devices agree
        a = words[0].astype(np.float32) * np.float32(2.0**-32) + np.float32(2.0**-33)
        wave = _turn(words[1], 32)
    else:
        a = ((_wide(words[0], words[1]) >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53
        wave = _turn(_wide(words[2], words[3]), 64)
    return (np.sqrt(-2.0 * np.log(a.astype(np.float64))) * wave).astype(dtype.numpy)


def _truncated(words, dtype):
    if dtype is not float64:
        u = words[0].view(np.int32).astype(np.float32) * np.float32(2.0**-31) + np.float32(2.0**-32)
    else:
        u = ((_wide(words[0], words[1]).view(np.int64) >> 11).astype(np.float64) + 0.5) * 2.0**-52
    x = u.astype(np.float64) * TRUNCATED_MASS
    w = -np.log((1 - x) * (1 + x))
    z = u * np.polynomial.polynomial.polyval(w - TRUNCATED_CENTRE, TRUNCATED["f64"])
    return np.clip(z, -2.0, 2.0).astype(dtype.numpy)


def _integers(words, dtype, low, high):
    """low + floor(bits * (high - low) / 2**64): off from uniform by less than (high - low) / 2**64."""
    count_low, count_high = (np.uint64(v) for v in ((high - low) & 0xFFFFFFFF, (high - low) >> 32))
    upper, lower = words[0].astype(np.uint64), words[1].astype(np.uint64)
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    across, along = upper * count_low, lower * count_high
    carry = (lower * count_low >> half) + (across & mask) + (along & mask)
    product = upper * count_high + (across >> half) + (along >> half) + (carry >> half)
    with np.errstate(over="ignore"):  # wraps around where low + product passes 2**63, and so comes out right
        return (product.view(np.int64) + np.int64(low)).astype(dtype.numpy)


def _random_type(*, shape, dtype, **_):
    if not dtype.is_floating:
        raise RuleError(f"there are no {dtype.name} numbers of this kind", "the dtype is a float", DTypeError)
    return TensorType(dtype, tuple(shape))


def _integers_type(*, shape, dtype, low, high, **_):
    if dtype.short not in ("i32", "i64"):
        raise RuleError(f"there are no random {dtype.name} integers", "the dtype is int32 or int64", DTypeError)
    limits = np.iinfo(dtype.numpy)
    if not limits.min <= low < high <= int(limits.max) + 1:
        raise RuleError("the range is empty or leaves the dtype", f"[{low}, {high}) in {dtype.name}")
    return TensorType(dtype, tuple(shape))


def _random(name: str, text: str, values, doc: str, infer=_random_type, samples=(), attrs=None, errors=()) -> Op:
    attrs = attrs or {}

    def numpy(*, shape, dtype, seed, op_seed, run, **extra):
        return np.asarray(values(block(shape, run, seed, op_seed), dtype, **extra))
    arguments = ", ".join(["{index}", "{run}", "{seed}", "{op_seed}", *(f"{{{a}}}" for a in attrs)])
    return Op(name, Kind.RANDOM, (), infer=infer, numpy=numpy, grad=NO_GRADIENT, doc=doc, context=("run",),
              attrs={"shape": REQUIRED, "dtype": float32, "seed": REQUIRED, "op_seed": REQUIRED, **attrs},
              rule=Random(f"{text}_{{dtype}}({arguments})"), samples=as_samples(samples), errors=tuple(errors))


_SAMPLES = [sample(shape=(3, 4), dtype=d, seed=s, op_seed=7) for d, s in ((float32, 1), (float64, 2**32 - 1),
                                                                        (float16, 3), (bfloat16, 4))]
_SAMPLES += [sample(shape=(0, 2), seed=1, op_seed=1), sample(shape=(), seed=1, op_seed=1)]

random_uniform_01 = _random(
    "random_uniform_01", "uniform", _uniform, samples=_SAMPLES,
    doc="Uniform in [0, 1): multiples of 2**-24 (float32, from the first word), 2**-11 (float16), "
        "2**-8 (bfloat16) or 2**-53 (float64, from two words).",
)

random_normal_01 = _random(
    "random_normal_01", "normal", _normal, samples=_SAMPLES,
    doc="Standard normal, by Box-Muller from the words of one block; no value is larger than 6.8 (float32) or 8.6 "
        "(float64).",
)

random_truncated_normal_01 = _random(
    "random_truncated_normal_01", "truncated_normal", _truncated, samples=_SAMPLES,
    doc="Standard normal, cut at two standard deviations, by inversion of its distribution.",
)

random_integers = _random(
    "random_integers", "integers", _integers, attrs={"low": REQUIRED, "high": REQUIRED}, infer=_integers_type,
    doc="Uniform whole numbers in [low, high).",
    samples=[sample(shape=(50,), dtype=int32, seed=3, op_seed=4, low=-3, high=4),
             sample(shape=(4, 2), dtype=int32, seed=3, op_seed=4, low=-2**31, high=2**31),
             sample(shape=(9,), dtype=int64, seed=3, op_seed=5, low=-2**63, high=2**63),
             sample(shape=(9,), dtype=int64, seed=3, op_seed=5, low=10**12, high=10**13)],
    errors=[(sample(shape=(2,), dtype=int32, seed=1, op_seed=1, low=3, high=3), "the range is empty"),
            (sample(shape=(2,), dtype=int32, seed=1, op_seed=1, low=0, high=2**32), "leaves the dtype"),
            (sample(shape=(2,), dtype=float32, seed=1, op_seed=1, low=0, high=2), "no random float32 integers")],
)
