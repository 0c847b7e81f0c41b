"""Traced vector operations whose lanes are not alone: memory, masks, reductions across lanes, the first error."""
import ctypes
import mmap

import numpy as np
import pytest
from traced_kernels import FLOATS, INTEGERS, LANES, NUMBERS, NUMPY, edge_values, looped, quietly, straight

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
