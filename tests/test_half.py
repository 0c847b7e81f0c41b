"""float16 and bfloat16 in kernels: every conversion against NumPy's, with and without the processor's own instructions."""
import numpy as np
import pytest
from traced_kernels import NUMPY, elementwise

from graphc.codegen.cpu.host import describe, host

HOSTS = [pytest.param(host(), id="host"), pytest.param(describe("generic", {}, "x86_64"), id="plain")]
HALVES = ["f16", "bf16"]
ALL_BITS = np.arange(2**16, dtype=np.uint16)


def same(found, want):
    """Equal bits, but any NaN equals any other."""
    found, want = np.asarray(found), np.asarray(want)
    assert found.dtype == want.dtype
    nan = np.isnan(want)
    np.testing.assert_array_equal(np.isnan(found), nan)
    word = f"u{found.itemsize}"
    np.testing.assert_array_equal(found.view(word)[~nan], want.view(word)[~nan])


def near_steps(dtype):
    """float32 numbers at, next to and half-way between neighbours of a 16-bit float, and far outside its range."""
    numbers = ALL_BITS.view(NUMPY[dtype]).astype(np.float32)
    numbers = np.sort(numbers[np.isfinite(numbers)])
    middle = (numbers[:-1].astype(np.float64) + numbers[1:]) / 2
    with np.errstate(all="ignore"):
        edges = np.array([65504, 65519.996, 65520, 65536, 1e38, 3.4e38, 1e-45, 1e-30, np.inf, np.nan], np.float32)
        some = np.concatenate([numbers, middle.astype(np.float32), edges, -edges])
        return np.concatenate([some, np.nextafter(some, np.float32(np.inf)), np.nextafter(some, np.float32(-np.inf))])


@pytest.mark.parametrize("on", HOSTS)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("lanes", [4, 16])
def test_load_of_every_number(dtype, lanes, on):
    numbers = ALL_BITS.view(NUMPY[dtype])
    same(elementwise("a", [dtype], "f32", lanes, on)(numbers), numbers.astype(np.float32))


@pytest.mark.parametrize("on", HOSTS)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("lanes", [8, 16])
def test_store_rounds_to_nearest_even(dtype, lanes, on):
    x = near_steps(dtype)
    with np.errstate(all="ignore"):
        want = x.astype(NUMPY[dtype])
    same(elementwise("a", ["f32"], dtype, lanes, on)(x), want)
    same(elementwise(f"round_{dtype}(a)", ["f32"], "f32", lanes, on)(x), want.astype(np.float32))


@pytest.mark.parametrize("on", HOSTS)
@pytest.mark.parametrize("dtype", HALVES)
def test_bits(dtype, on):
    numbers = ALL_BITS.view(NUMPY[dtype])
    numbers = numbers[~np.isnan(numbers.astype(np.float32))]
    bits = elementwise(f"bits_{dtype}(a)", [dtype], "u16", 16, on)(numbers)
    np.testing.assert_array_equal(bits, numbers.view(np.uint16))
    same(elementwise(f"from_bits_{dtype}(a)", ["u16"], dtype, 16, on)(bits), numbers)


@pytest.mark.parametrize("source", ["f64", "i8", "u16", "i32", "u64", "i64", "bool"])
@pytest.mark.parametrize("dtype", HALVES)
def test_casts_go_through_float32(dtype, source):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2**64, 1000, np.uint64).view(NUMPY[source]) if source != "bool" else rng.random(999) < 0.5
    if source == "f64":
        x = np.concatenate([rng.normal(size=999) * 10.0 ** rng.integers(-9, 9, 999), [1 + 2**-11 + 2**-30, np.inf, np.nan]])
    with np.errstate(all="ignore"):
        same(elementwise(f"to_{dtype}(a)", [source], dtype)(x), x.astype(np.float32).astype(NUMPY[dtype]))
