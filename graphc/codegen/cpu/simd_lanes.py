"""Functions across lanes: reductions inside a vector, and the record of the first failing lane.

In: a Tracer and Vectors.  Out: Vectors with the result in every lane.  The tree is fixed: lanes k and k + lanes/2 meet
first, then quarters, and so on.
"""
from llvmlite import ir

from graphc.codegen.cpu.simd_core import DTYPES, I32, I64, Int
from graphc.codegen.cpu.simd_memory import element


def functions(t):
    """What a traced body may call from here."""
    return {
        "horizontal_add": lambda v: reduce(t, v, lambda a, b: a + b),
        "horizontal_mul": lambda v: reduce(t, v, lambda a, b: a * b),
        "horizontal_min": lambda v: reduce(t, v, t.minimum),
        "horizontal_max": lambda v: reduce(t, v, t.maximum),
        "horizontal_and": lambda v: reduce(t, v, lambda a, b: a & b),
        "horizontal_or": lambda v: reduce(t, v, lambda a, b: a | b),
        "horizontal_argmax": lambda value, index: first_best(t, value, index, lambda a, b: a > b),
        "horizontal_argmin": lambda value, index: first_best(t, value, index, lambda a, b: a < b),
        "better_max": lambda *pairs: better(t, lambda a, b: a > b, *pairs),
        "better_min": lambda *pairs: better(t, lambda a, b: a < b, *pairs),
        "repeated": lambda v: joined(t, [v] * (t.lanes // v.ir.type.count)),
        "part": lambda v, k, count: part(t, v, k, count),
        "record_error": lambda *arguments: record_error(t, *arguments),
    }


def part(t, v, k, count):
    """The lanes of part k when a Vector is cut into `count` parts."""
    if count == 1:
        return v
    size = v.ir.type.count // count
    order = ir.Constant(ir.VectorType(I32, size), list(range(k * size, (k + 1) * size)))
    return t.vector(t.builder.shuffle_vector(v.ir, ir.Constant(v.ir.type, ir.Undefined), order), v.dtype)


def joined(t, vectors):
    """One Vector of the lanes of several, a power of two of them, one after the other."""
    while len(vectors) > 1:
        order = ir.Constant(ir.VectorType(I32, 2 * vectors[0].ir.type.count), list(range(2 * vectors[0].ir.type.count)))
        vectors = [t.vector(t.builder.shuffle_vector(a.ir, b.ir, order), a.dtype)
                   for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    return vectors[0]


def reduce(t, v, combine):
    """Combine all lanes of `v`; the result is in every lane."""
    half = t.lanes // 2
    while half:
        v = combine(v, t.shuffle(v, [(k + half) % t.lanes for k in range(t.lanes)]))
        half //= 2
    return t.shuffle(v, [0] * t.lanes)


def better(t, beats, value, index, other, other_index):
    """(value, index) of the winner of two candidates per lane: NaN wins, then `beats`, then the lower index."""
    wins, equal = beats(value, other), value == other
    if value.dtype.is_float:
        nan, other_nan = t.isnan(value), t.isnan(other)
        wins = (wins & ~other_nan) | (nan & ~other_nan)
        equal = equal | (nan & other_nan)
    keep = wins | (equal & (index <= other_index))
    return t.select(keep, value, other), t.select(keep, index, other_index)


def first_best(t, value, index, beats):
    """(value, index) of the best lane in every lane, as NumPy's argmax and argmin choose it."""
    half = t.lanes // 2
    while half:
        order = [(k + half) % t.lanes for k in range(t.lanes)]
        value, index = better(t, beats, value, index, t.shuffle(value, order), t.shuffle(index, order))
        half //= 2
    return t.shuffle(value, [0] * t.lanes), t.shuffle(index, [0] * t.lanes)


def record_error(t, mask, error_address, record, index, value):
    """Write (1, record, index, value) of the first set lane to `error_address`, unless an error is already there.

    `index` is an i64 Vector, or an Int to which the lane is added.  An integer value is extended to 64 bits, a float
    gives its own bits (those of an f32 in the low half).
    """
    def write():
        slot = element(t, DTYPES["i64"], error_address, 0)
        swapped = t.builder.cmpxchg(slot, I64(0), I64(1), "acq_rel", "acquire")
        t.when(t.builder.extract_value(swapped, 1), fill)

    def fill():
        bits = t.mask_bits(mask)
        lane = t.call(f"llvm.cttz.i{t.lanes}", bits.type, [bits, ir.IntType(1)(1)])
        lane = t.builder.zext(lane, I64) if t.lanes < 64 else lane
        if isinstance(index, (Int, int)):
            place = t.builder.add(t.int_value(index), lane)
        else:
            place = t.builder.extract_element(t.same(index, DTYPES["i64"]).ir, lane)
        words = (t.int_value(record), place, _bits(t, value, lane))
        for k, word in enumerate(words, start=1):
            t.builder.store(word, element(t, DTYPES["i64"], error_address, k)).align = 8

    t.when(t.any_lane(mask), write)


def _bits(t, value, lane):
    """Lane `lane` as an i64 word."""
    dtype = value.dtype
    scalar = t.builder.extract_element(value.ir, lane)
    if dtype.is_float:
        scalar = t.builder.bitcast(scalar, ir.IntType(dtype.bits))
    if dtype.bits == 64:
        return scalar
    return (t.builder.sext if dtype.signed else t.builder.zext)(scalar, I64)

