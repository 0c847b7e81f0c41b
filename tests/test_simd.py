"""Traced vector operations against NumPy, for 4, 8 and 16 lanes."""
import operator

import numpy as np
import pytest
from traced_kernels import FLOATS, INTEGERS, LANES, NUMBERS, NUMPY, edge_values, elementwise, looped, quietly

from graphc.codegen.cpu.host import describe, host
from graphc.codegen.cpu.simd import DTYPES

PLAIN = describe("generic", {}, "x86_64")       # no fused multiply-add, no rounding instructions


def all_pairs(dtype):
    a, b = np.meshgrid(edge_values(dtype), edge_values(dtype, seed=1))
    return a.ravel(), b.ravel()


def check(found, expected):
    np.testing.assert_array_equal(found, expected)
    if expected.dtype.kind == "f":
        numbers = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(found[numbers]), np.signbit(expected[numbers]))


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


def test_host():
    assert host().vector_bytes in (16, 32, 64)
    assert host() is host()
    assert describe("x", {"avx2": True, "fma": True}, "x86_64").vector_bytes == 32
    assert describe("x", {"neon": True}, "arm64").vector_registers == 32
    wide = dict.fromkeys(("avx512f", "avx512bw", "avx512dq", "avx512vl"), True)
    assert describe("x", wide, "x86_64").vector_bytes == 64
    assert set(DTYPES) == {*NUMBERS, "bool"}
