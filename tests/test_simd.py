"""Traced vector operations against NumPy, for 4, 8 and 16 lanes."""
import ctypes
import mmap
import operator

import numpy as np
import pytest
from traced_kernels import NUMPY, elementwise, looped, straight

from graphc.codegen.cpu.host import describe, host
from graphc.codegen.cpu.simd import DTYPES

LANES = [4, 8, 16]
FLOATS = ["f32", "f64"]
INTEGERS = [f"{kind}{bits}" for kind in "iu" for bits in (8, 16, 32, 64)]
NUMBERS = FLOATS + INTEGERS
PLAIN = describe("generic", {}, "x86_64")       # no fused multiply-add, no rounding instructions


def edge_values(dtype, count=40, seed=0):
    """Limits, small numbers and random ones of a dtype."""
    rng, kind = np.random.default_rng(seed), NUMPY[dtype]
    if dtype == "bool":
        return np.array([False, True])
    if dtype in FLOATS:
        info = np.finfo(kind)
        special = np.array([0, 0.25, 0.5, 1, 1.5, 2.5, 3, 7, 1e10, 2.0**23 - 0.5, 2.0**52 + 1, info.max, info.tiny,
                            info.smallest_subnormal, np.inf], kind)
        wide = np.exp2(rng.uniform(-60, 60, count)).astype(kind)
        return np.concatenate([special, -special, wide * rng.choice([-1, 1], count).astype(kind), [kind.type(np.nan)]])
    info = np.iinfo(kind)
    special = [v for v in (0, 1, 2, 3, 7, 10, 63, 100, -1, -2, -3, -7, -100, info.min, info.min + 1, info.max,
                           info.max - 1) if info.min <= v <= info.max]
    return np.concatenate([np.array(special, kind), rng.integers(info.min, info.max, count, kind, endpoint=True)])


def all_pairs(dtype):
    a, b = np.meshgrid(edge_values(dtype), edge_values(dtype, seed=1))
    return a.ravel(), b.ravel()


def check(found, expected):
    np.testing.assert_array_equal(found, expected)
    if expected.dtype.kind == "f":
        numbers = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(found[numbers]), np.signbit(expected[numbers]))


def quietly(function, *arrays):
    with np.errstate(all="ignore"):
        return function(*arrays)


# -- operators


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("symbol", ["+", "-", "*"])
def test_arithmetic(symbol, dtype, lanes):
    a, b = all_pairs(dtype)
    function = {"+": operator.add, "-": operator.sub, "*": operator.mul}[symbol]
    check(elementwise(f"a {symbol} b", [dtype] * 2, dtype, lanes)(a, b), quietly(function, a, b))


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("symbol", ["//", "%"])
def test_division_never_traps(symbol, dtype, lanes):
    a, b = all_pairs(dtype)
    function = np.floor_divide if symbol == "//" else np.remainder
    check(elementwise(f"a {symbol} b", [dtype] * 2, dtype, lanes)(a, b), quietly(function, a, b))


@pytest.mark.parametrize("dtype", NUMBERS)
def test_division_of_many(dtype):
    rng = np.random.default_rng(3)
    kind = NUMPY[dtype]
    a, b = (rng.integers(0, 2**64, 50_000, np.uint64).view(kind)[:50_000] for _ in range(2))
    check(elementwise("a // b", [dtype] * 2, dtype)(a, b), quietly(np.floor_divide, a, b))
    check(elementwise("a % b", [dtype] * 2, dtype)(a, b), quietly(np.remainder, a, b))


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("divisor", [0, 1, -1, 3, -7, 64, 100])
def test_division_by_a_constant(dtype, divisor):
    if divisor < 0 and dtype[0] == "u":
        pytest.skip("unsigned")
    a = edge_values(dtype, 200)
    b = np.full_like(a, divisor)
    check(elementwise(f"a // {divisor}", [dtype], dtype)(a), quietly(np.floor_divide, a, b))
    check(elementwise(f"a % {divisor}", [dtype], dtype)(a), quietly(np.remainder, a, b))


@pytest.mark.parametrize("dtype", FLOATS)
def test_true_division(dtype):
    a, b = all_pairs(dtype)
    check(elementwise("a / b", [dtype] * 2, dtype)(a, b), quietly(np.divide, a, b))


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", [*NUMBERS, "bool"])
@pytest.mark.parametrize("symbol", ["<", "<=", ">", ">=", "==", "!="])
def test_comparisons(symbol, dtype, lanes):
    a, b = all_pairs(dtype)
    function = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal, "==": np.equal,
                "!=": np.not_equal}[symbol]
    check(elementwise(f"a {symbol} b", [dtype] * 2, "bool", lanes)(a, b), function(a, b))


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool"])
@pytest.mark.parametrize("symbol", ["&", "|", "^"])
def test_bit_operators(symbol, dtype):
    a, b = all_pairs(dtype)
    function = {"&": operator.and_, "|": operator.or_, "^": operator.xor}[symbol]
    check(elementwise(f"a {symbol} b", [dtype] * 2, dtype)(a, b), function(a, b))


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_shifts_by_any_count(dtype, lanes):
    a, b = all_pairs(dtype)
    check(elementwise("a << b", [dtype] * 2, dtype, lanes)(a, b), np.left_shift(a, b))
    check(elementwise("a >> b", [dtype] * 2, dtype, lanes)(a, b), np.right_shift(a, b))
    check(elementwise("(a >> 3) ^ (a << 5)", [dtype], dtype, lanes)(a), (a >> 3) ^ (a << 5))


@pytest.mark.parametrize("dtype", NUMBERS)
def test_one_operand(dtype):
    a = edge_values(dtype)
    check(elementwise("-a", [dtype], dtype)(a), quietly(np.negative, a))
    check(elementwise("abs(a)", [dtype], dtype)(a), quietly(np.abs, a))
    if dtype in INTEGERS:
        check(elementwise("~a", [dtype], dtype)(a), ~a)


def test_numbers_on_either_side():
    a = np.array([1, 2, 3], "f4")
    check(elementwise("2 * a + 1 - 0.5 / a", ["f32"], "f32")(a), 2 * a + 1 - np.float32(0.5) / a)
    check(elementwise("10 - a", ["u8"], "u8")(a), (10 - a).astype("u1"))
    check(elementwise("a + 300", ["u8"], "u8")(a), (a + 44).astype("u1"))
    check(elementwise("(7 // a) + (7 % a) + (1 << a)", ["i32"], "i32")(a), np.array([9, 8, 11], "i4"))


@pytest.mark.parametrize("expression", ["a + to_f64(a)", "select(a > 0, a, to_i32(a))", "a & a", "a << 1",
                                        "a + (to_i32(a) == 1)", "1 if a else 0", "bitcast_f64(a)", "~a"])
def test_mistakes_are_type_errors(expression):
    with pytest.raises(TypeError):
        elementwise(expression, ["f32"], "f32")


def test_numpy_scalars_defer_to_vectors():
    a = np.array([1, 2, 3], "f4")
    body = "def body(i, mask, out, x):\n    store_f32(out, i, two * load_f32(x, i, mask), mask)\n"
    space = {"two": np.float32(2)}
    exec(body, space)
    out = np.empty_like(a)
    looped(space["body"], 2)(out, a, 3)
    check(out, 2 * a)


# -- elementwise functions


@pytest.mark.parametrize("on", [None, PLAIN], ids=["host", "plain"])
@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["floor", "ceil", "trunc", "rint", "sqrt"])
def test_rounding(name, dtype, lanes, on):
    a = edge_values(dtype)
    check(elementwise(f"{name}(a)", [dtype], dtype, lanes, on)(a), quietly(getattr(np, name), a))


@pytest.mark.parametrize("dtype", FLOATS)
def test_classification(dtype):
    a = edge_values(dtype)
    for name in ("isnan", "isinf", "isfinite", "signbit"):
        numbers = a if name != "signbit" else a[~np.isnan(a)]
        check(elementwise(f"{name}(a)", [dtype], "bool")(numbers), getattr(np, name)(numbers))
    a, b = all_pairs(dtype)
    check(elementwise("copysign(a, b)", [dtype] * 2, dtype)(a, b), np.copysign(a, b))


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", NUMBERS)
def test_extremes(dtype, lanes):
    a, b = all_pairs(dtype)
    np.testing.assert_array_equal(elementwise("minimum(a, b)", [dtype] * 2, dtype, lanes)(a, b), np.minimum(a, b))
    np.testing.assert_array_equal(elementwise("maximum(a, b)", [dtype] * 2, dtype, lanes)(a, b), np.maximum(a, b))
    three = a.dtype.type(3)
    np.testing.assert_array_equal(elementwise("maximum(a, 3)", [dtype], dtype, lanes)(a), np.maximum(a, three))
    np.testing.assert_array_equal(elementwise("minimum(3, a)", [dtype], dtype, lanes)(a), np.minimum(a, three))


def test_fma_rounds_once():
    x = np.array([1 + 2.0**-12], "f4")
    expected = np.float32(float(x[0]) ** 2 - 1)
    found = elementwise("fma(a, a, -1)", ["f32"], "f32")(x)
    assert found[0] == (expected if host().has_fma else x[0] * x[0] - 1)
    check(elementwise("fma(a, 3, 1)", ["i32"], "i32")(np.arange(5)), np.arange(5, dtype="i4") * 3 + 1)


def test_mulhi_u32():
    a, b = all_pairs("u32")
    expected = (a.astype("u8") * b.astype("u8") >> np.uint64(32)).astype("u4")
    check(elementwise("mulhi_u32(a, b)", ["u32"] * 2, "u32")(a, b), expected)


def test_select_and_any_lane():
    a, b = all_pairs("f32")
    check(elementwise("select(a < b, a, 7)", ["f32"] * 2, "f32")(a, b), np.where(a < b, a, np.float32(7)))


# -- conversions


@pytest.mark.parametrize("target", [*NUMBERS, "bool"])
@pytest.mark.parametrize("source", [*NUMBERS, "bool"])
def test_conversion(source, target):
    a = edge_values(source)
    found = elementwise(f"to_{target}(a)", [source], target, 8)(a)
    if source in FLOATS and target in INTEGERS:
        info = np.iinfo(NUMPY[target])
        wide = [0 if np.isnan(v) else info.min if v <= info.min else info.max if v >= info.max else int(v)
                for v in a.tolist()]
        expected = np.array(wide, NUMPY[target])        # saturated, where C leaves it undefined
    else:
        expected = quietly(lambda v: v.astype(NUMPY[target]), a)
    check(found, expected)


def test_bitcast():
    a = edge_values("f32")
    check(elementwise("bitcast_i32(a)", ["f32"], "i32")(a), a.view("i4"))
    check(elementwise("bitcast_u64(a)", ["i64"], "u64")(edge_values("i64")), edge_values("i64").view("u8"))


# -- memory


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", [*NUMBERS, "bool"])
def test_every_tail(dtype, lanes):
    """Masked loads and stores of 0 to all lanes touch nothing else; zeros come in for the others."""
    kernel = straight(f"""
def body(out, seen, x, count):
    mask = tail(count)
    v = load_{dtype}(x, 1, mask)
    store_{dtype}(out, 1, v, mask)
    store_{dtype}(seen, 0, v)
""", 4, lanes)
    x = np.resize(edge_values(dtype), lanes + 2)
    for count in range(-1, lanes + 2):
        kept = min(max(count, 0), lanes)
        out, seen = np.ones(lanes + 2, NUMPY[dtype]), np.ones(lanes, NUMPY[dtype])
        kernel(out, seen, x, count)
        expected = np.ones_like(out)
        expected[1:1 + kept] = x[1:1 + kept]
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(seen, np.where(np.arange(lanes) < kept, x[1:1 + lanes], NUMPY[dtype].type(0)))


@pytest.mark.parametrize("dtype", ["f32", "f64", "i8", "bool"])
def test_masked_lanes_read_nothing(dtype):
    """The page behind the data may not be touched."""
    page, lanes = mmap.PAGESIZE, 16
    memory = mmap.mmap(-1, 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(start + page), page, 0) == 0
    size = NUMPY[dtype].itemsize
    kernel = straight(f"""
def body(out, x, count):
    mask = tail(count)
    v = load_{dtype}(x, 0, mask)
    w = strided_{dtype}(x, 0, 2, tail((count + 1) // 2))
    g = gather_{dtype}(x, ramp_i64(0, 1), mask)
    store_{dtype}(out, 0, v)
    store_{dtype}(out, {lanes}, w)
    store_{dtype}(out, {2 * lanes}, g)
    scatter_strided_{dtype}(x, 0, 1, v, mask)
    scatter_strided_{dtype}(x, 0, 2, w, tail((count + 1) // 2))
""", 3, lanes)
    for count in range(lanes):
        address = start + page - count * size
        data = np.frombuffer(memory, NUMPY[dtype], count, page - count * size)
        out = np.zeros(3 * lanes, NUMPY[dtype])
        kernel(out, address, count)
        assert np.array_equal(out[:count], data)
    libc.mprotect(ctypes.c_void_p(start + page), page, 3)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", [*NUMBERS, "bool"])
def test_addressing(dtype, lanes):
    kernel = straight(f"""
def body(out, x, index, stride):
    n = {lanes}
    store_{dtype}(out, 0, broadcast_{dtype}(x, index))
    store_{dtype}(out, n, strided_{dtype}(x, index, stride))
    store_{dtype}(out, 2 * n, strided_{dtype}(x, index, 1))
    store_{dtype}(out, 3 * n, gather_{dtype}(x, ramp_i64(index, 2)))
    scatter_strided_{dtype}(out + 4 * n * {NUMPY[dtype].itemsize}, 0, stride, load_{dtype}(x, 0))
    store_lane_{dtype}(out, 8 * n, load_{dtype}(x, index))
""", 4, lanes)
    x = np.resize(edge_values(dtype), 5 + 3 * lanes)
    out = np.zeros(8 * lanes + 1, NUMPY[dtype])
    kernel(out, x, 5, 3)
    expected = np.zeros_like(out)
    expected[:lanes] = x[5]
    expected[lanes:2 * lanes] = x[5::3][:lanes]
    expected[2 * lanes:3 * lanes] = x[5:5 + lanes]
    expected[3 * lanes:4 * lanes] = x[5::2][:lanes]
    expected[4 * lanes:7 * lanes:3] = x[:lanes]
    expected[8 * lanes] = x[5]
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("dtype", [*NUMBERS, "bool"])
def test_stream(dtype):
    raw = np.zeros(16 * 8 + 64, "u1")
    start = -raw.ctypes.data % 64
    out = raw[start:start + 16 * NUMPY[dtype].itemsize].view(NUMPY[dtype])
    x = np.resize(edge_values(dtype), 16)
    straight(f"def body(out, x):\n    stream_{dtype}(out, 0, load_{dtype}(x, 0))\n", 2)(out, x)
    np.testing.assert_array_equal(out, x)


def test_bool_bytes():
    """Any byte but 0 is true; what is written is 0 or 1."""
    x = np.array([0, 1, 2, 255, 0, 128], "u1").view(bool)
    out = np.empty(6, "u1")
    looped("def body(i, mask, out, x):\n    store_bool(out, i, load_bool(x, i, mask), mask)\n", 2)(out, x, 6)
    np.testing.assert_array_equal(out, [0, 1, 1, 1, 0, 1])


def test_ramps_and_splats():
    out, floats = np.empty(32, "i8"), np.empty(32, "f8")
    straight("""
def body(out, floats, n):
    store_i64(out, 0, ramp_i64(n, n + 1))
    store_i64(out, 16, splat_i64(n) + to_i64(to_int(splat_i8(-3))))
    store_f64(floats, 0, ramp_f64(n, 0.5))
    store_f64(floats, 16, splat_f64(n) * splat_f64(0.1))
""", 3)(out, floats, 7)
    np.testing.assert_array_equal(out, [*(7 + 8 * k for k in range(16)), *[4] * 16])
    np.testing.assert_array_equal(floats, [*(7 + 0.5 * k for k in range(16)), *[7 * 0.1] * 16])


def test_integers_of_addresses():
    values = [0, 1, -1, 5, -5, 17, 2**63 - 1, -2**63]
    kernel = straight("""
def body(out, a, b):
    for k, v in enumerate((a + b, a - b, 3 * a - 2, 1 - a, a // b, a % b, a // 8, a % 8, 7 // b, -a, a // -1)):
        store_lane_i64(out, k, splat_i64(v))
""", 3, 4)
    for a in np.array(values):
        for b in np.array(values):
            out = np.empty(11, "i8")
            kernel(out, a, b)
            expected = quietly(lambda a, b: np.array(
                [a + b, a - b, 3 * a - 2, 1 - a, a // b, a % b, a // 8, a % 8, 7 // b, -a, -a]), a, b)
            np.testing.assert_array_equal(out, expected)


# -- across lanes


def tree(values, combine):
    """The order in which a vector is reduced."""
    while len(values) > 1:
        half = len(values) // 2
        values = quietly(combine, values[:half], values[half:])
    return values[0]


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", NUMBERS)
def test_horizontal(dtype, lanes):
    operations = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}
    if dtype in INTEGERS:
        operations |= {"and": np.bitwise_and, "or": np.bitwise_or}
    for name, function in operations.items():
        kernel = straight(f"""
def body(out, x):
    store_{dtype}(out, 0, horizontal_{name}(load_{dtype}(x, 0)))
""", 2, lanes)
        values = edge_values(dtype, 100)
        for start in range(0, len(values) - lanes, 5):
            x, out = values[start:start + lanes].copy(), np.empty(lanes, NUMPY[dtype])
            kernel(out, x)
            np.testing.assert_array_equal(out, np.full(lanes, tree(x, function)))


def test_horizontal_of_masks():
    kernel = straight("""
def body(out, x):
    v = load_bool(x, 0)
    store_bool(out, 0, horizontal_and(v))
    store_bool(out, 4, horizontal_or(v))
""", 2, 4)
    for bits in range(16):
        x, out = np.array([bits >> k & 1 for k in range(4)], bool), np.empty(8, bool)
        kernel(out, x)
        assert out.tolist() == [x.all()] * 4 + [x.any()] * 4


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "u8"])
@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_first_of_equals_wins(name, dtype, lanes):
    kernel = straight(f"""
def body(out, at, x):
    value, index = horizontal_{name}(load_{dtype}(x, 0), ramp_i64(0, 1))
    store_{dtype}(out, 0, value)
    store_i64(at, 0, index)
""", 3, lanes)
    rng = np.random.default_rng(0)
    for _ in range(50):
        x = rng.integers(0, 4, lanes).astype(NUMPY[dtype])
        if dtype in FLOATS:
            x[rng.random(lanes) < 0.05] = np.nan
        out, at = np.empty_like(x), np.empty(lanes, "i8")
        kernel(out, at, x)
        best = getattr(np, name)(x)
        np.testing.assert_array_equal(at, np.full(lanes, best))
        np.testing.assert_array_equal(out, np.full(lanes, x[best]))


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "u8", "i64"])
def test_first_error_is_recorded(dtype, lanes):
    kernel = looped(f"""
def body(i, mask, error, x):
    v = load_{dtype}(x, i, mask)
    record_error((v == 7) & mask, error, 42, i, v)
    record_error((v == 7) & mask, error, 43, ramp_i64(i, 1), v)
""", 2, lanes)
    x, error = np.arange(30).astype(NUMPY[dtype]) % 11, np.zeros(4, "i8")
    kernel(error, x, 7)
    assert error.tolist() == [0, 0, 0, 0]
    kernel(error, x, 30)
    bits = int(x[7:8].view(f"u{x.itemsize}")[0])
    assert error.tolist() == [1, 42, 7, bits]
    kernel(error, x[7:].copy(), 20)
    assert error.tolist() == [1, 42, 7, bits], "a recorded error stays"


@pytest.mark.parametrize("lanes", LANES)
def test_error_index_of_a_vector(lanes):
    kernel = straight("""
def body(error, x):
    v = load_i32(x, 0)
    record_error(v < 0, error, 5, ramp_i64(100, 10), v)
""", 2, lanes)
    x, error = np.ones(lanes, "i4"), np.zeros(4, "i8")
    x[2:] = -9
    kernel(error, x)
    assert error.tolist() == [1, 5, 120, -9]


def test_host():
    assert host().vector_bytes in (16, 32, 64)
    assert host() is host()
    assert describe("x", {"avx2": True, "fma": True}, "x86_64").vector_bytes == 32
    assert describe("x", {"neon": True}, "arm64").vector_registers == 32
    wide = dict.fromkeys(("avx512f", "avx512bw", "avx512dq", "avx512vl"), True)
    assert describe("x", wide, "x86_64").vector_bytes == 64
    assert set(DTYPES) == {*NUMBERS, "bool"}


# -- inside Numba


BODY = """
def body(i, x, b, out, total, mask):
    v = tanh(load_f32(x, i, mask) + broadcast_f32(b, 0))
    store_f32(out, i, v, mask)
    return total + (v if mask is None else select(mask, v, 0)), i + 1
"""
TAIL = BODY.replace("total, mask", "total, count").replace("    v = ", "    mask = tail(count)\n    v = ", 1)


@pytest.mark.parametrize("lanes", LANES)
def test_numba_kernel(lanes):
    """A kernel as the emitter writes it: a loop without mask, one masked tail, an accumulator in a register."""
    numba = pytest.importorskip("numba")
    from graphc.codegen.cpu.glue import arg, splat, stack, traced

    zero = splat("f32", lanes, 0.0)
    whole = traced(BODY, lanes, ("f32", "int"), {"mask": None})
    rest = traced(TAIL, lanes, ("f32", "int"))
    keep = traced("def keep(place, total):\n    store_f32(place, 0, total)\n", lanes)
    again = traced("def again(place):\n    return horizontal_add(load_f32(place, 0))\n", lanes, "f32")
    finish = traced("def finish(out, total):\n    store_lane_f32(out, 0, total)\n", lanes)

    def kernel(args, thread, threads):
        x, b, out, sums, n = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3), arg(args, 4)
        place = stack(64)
        total = zero()
        i = 0
        while i + lanes <= n:
            total, following = whole(i, x, b, out, total)
            i = following + (lanes - 1)
        if i < n:
            total, following = rest(i, x, b, out, total, n - i)
        keep(place, total)
        finish(sums, again(place))

    native = numba.njit("void(intp, intp, intp)", nogil=True, error_model="numpy")(kernel)
    for n in (0, 1, lanes - 1, lanes, lanes + 1, 5 * lanes + 3):
        x, b = np.linspace(-2, 2, n, dtype="f4"), np.array([0.25], "f4")
        out, sums = np.full(n + 1, 9, "f4"), np.zeros(1, "f4")
        table = np.array([a.ctypes.data for a in (x, b, out, sums)] + [n], "i8")
        native(table.ctypes.data, 0, 1)
        np.testing.assert_allclose(out[:n], np.tanh(x + b[0]), rtol=1e-6)
        assert out[n] == 9
        np.testing.assert_allclose(sums[0], np.tanh(x + b[0]).sum(dtype="f8"), rtol=1e-5, atol=1e-5)


def test_numba_sees_large_angles():
    """A function of its own and a table in a Numba module; vectors of every kind as arguments and results."""
    numba = pytest.importorskip("numba")
    from graphc.codegen.cpu.glue import call_void, set_arg, traced

    read = traced("def read(x):\n    v = load_f64(x, 0)\n    return sin(v), v > 0, to_i8(v)\n", 8,
                  ("f64", "bool", "i8"))
    write = traced("def write(out, s, mask, small):\n    store_f64(out, 0, select(mask, s, to_f64(small)))\n", 8)

    @numba.njit("void(intp, intp)")
    def kernel(x, out):
        s, mask, small = read(x)
        write(out, s, mask, small)

    x, out = np.array([1e300, 1e22, 3, -7, 0.5, -100, 4e5, 2e6]), np.empty(8)
    kernel(x.ctypes.data, out.ctypes.data)
    np.testing.assert_allclose(out, np.where(x > 0, np.sin(x), x), rtol=1e-15)

    @ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
    def callee(args, thread, threads):
        seen.append((args, thread, threads))

    @numba.njit("void(intp, intp)")
    def caller(address, table):
        set_arg(table, 1, 77)
        call_void(address, table, 3, 4)

    seen, table = [], np.zeros(2, "i8")
    caller(ctypes.cast(callee, ctypes.c_void_p).value, table.ctypes.data)
    assert seen == [(table.ctypes.data, 3, 4)]
    assert table.tolist() == [0, 77]


def test_glue_checks_results():
    numba = pytest.importorskip("numba")
    from graphc.codegen.cpu.glue import traced

    wrong = traced("def wrong(x):\n    return load_f32(x, 0)\n", 8, ("f64",))
    with pytest.raises(Exception, match="a vector of f64 meets one of f32|a vector of f32 meets one of f64"):
        numba.njit("void(intp)")(lambda x: wrong(x))
