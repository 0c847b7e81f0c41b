"""Random ops: the generator's published bits, distributions, seeds, and the vector code against the NumPy rules."""
import numpy as np
import pytest
import scipy.stats
from traced_kernels import NUMPY, looped

from graphc.codegen.cpu.random import functions
from graphc.codegen.cpu.simd import Tracer
from graphc.errors import ArgumentError, DTypeError
from graphc.functions.random import get_seed, random_normal, random_uniform, set_random_seed, truncated_normal
from graphc.ir.container import Graph
from graphc.ir.graph import capture
from graphc.ir.interpreter import interpret
from graphc.ir.types import as_dtype
from graphc.ops.random import (
    block,
    philox,
    random_integers,
    random_normal_01,
    random_truncated_normal_01,
    random_uniform_01,
)
from graphc.testing import assert_equal_values, ulp_distance

# kat_vectors of the authors' Random123 library, philox4x32 with 10 rounds: counter, key, words
KNOWN = [((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
         ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
         ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
          (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1))]
COUNT = 200_003
SEEDS = {"seed": 5, "op_seed": 2**32 - 3}


pytestmark = pytest.mark.usefixtures("fresh_graph")


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_gives_the_published_words(counter, key, words):
    assert tuple(int(w) for w in philox(counter, key)) == words


def numbers(op, dtype, run=0, **attrs):
    return op.numpy(shape=(COUNT,), dtype=as_dtype(dtype), run=run, **SEEDS, **attrs)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("op", "distribution"), [
    (random_uniform_01, scipy.stats.uniform()), (random_normal_01, scipy.stats.norm()),
    (random_truncated_normal_01, scipy.stats.truncnorm(-2, 2))], ids=["uniform", "normal", "truncated"])
def test_distribution(op, distribution, dtype):
    values = numbers(op, dtype)
    assert scipy.stats.kstest(values.astype(np.float64), distribution.cdf).pvalue > 1e-3
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(values, numbers(op, dtype, run=1))[0, 1]) < 0.01


def test_truncated_normal_inverts_the_distribution():
    u = (np.random.default_rng(0).integers(-2**52, 2**52, 5000) + 0.5) * 2.0**-52
    bits = ((u * 2.0**52 - 0.5).astype(np.int64) << 11).view(np.uint64)
    words = [(bits >> np.uint64(32)).astype(np.uint32), bits.astype(np.uint32)]
    from graphc.ops.random import TRUNCATED_MASS, _truncated
    want = scipy.special.erfinv(u.astype(np.longdouble).astype(float) * TRUNCATED_MASS) * np.sqrt(2)
    np.testing.assert_allclose(_truncated(words, as_dtype("float64")), want, rtol=2e-15)


def test_integers_are_even_and_inside():
    values = numbers(random_integers, "int32", low=-3, high=4)
    counts = np.bincount(values + 3, minlength=7)
    assert len(counts) == 7
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    wide = numbers(random_integers, "int64", low=-2**63, high=2**63)
    assert wide.min() < -2**62
    assert wide.max() > 2**62


# the vector code -------------------------------------------------------------------------------------


class RandomTracer(Tracer):
    """A tracer whose bodies know the random functions."""

    def namespace(self):
        return super().namespace() | functions(self)


def on_vectors(monkeypatch, text, dtype, count=COUNT, lanes=16, start=0):
    """The values of a scalar text of a random op, as vectors compute them."""
    monkeypatch.setattr("traced_kernels.Tracer", RandomTracer)
    short = as_dtype(dtype).short
    call = text.format(index="index", run="3", seed=SEEDS["seed"], op_seed=SEEDS["op_seed"], dtype=short, low=LOW,
                       high=HIGH)
    source = f"def body(i, mask, out):\n    index = ramp_i64(i + {start})\n    store_{short}(out, i, {call}, mask)\n"
    out = np.zeros(count, NUMPY[short])
    looped(source, 1, lanes)(out, count)
    return out


LOW, HIGH = -7, 12
EXACT = [(random_uniform_01, "float32"), (random_uniform_01, "float64"), (random_integers, "int32"),
         (random_integers, "int64")]
CLOSE = [(op, d) for op in (random_normal_01, random_truncated_normal_01) for d in ("float32", "float64")]


def rule(op, dtype, count=COUNT):
    extra = {"low": LOW, "high": HIGH} if "low" in op.attrs else {}
    return op.numpy(shape=(count,), dtype=as_dtype(dtype), run=3, **SEEDS, **extra)


@pytest.mark.parametrize("lanes", [4, 16])
@pytest.mark.parametrize(("op", "dtype"), EXACT)
def test_vectors_give_the_same_bits(monkeypatch, op, dtype, lanes):
    assert_equal_values(on_vectors(monkeypatch, op.rule.scalar, dtype, 1003, lanes), rule(op, dtype, 1003))


@pytest.mark.parametrize(("op", "dtype"), CLOSE)
def test_vectors_give_normals_within_8_ulp(monkeypatch, op, dtype):
    got, want = on_vectors(monkeypatch, op.rule.scalar, dtype), rule(op, dtype)
    assert ulp_distance(got, want).max() <= 8


def test_element_numbers_above_32_bits_count(monkeypatch):
    far = on_vectors(monkeypatch, random_uniform_01.rule.scalar, "float32", 16, start=2**32 + 5)
    words = philox((np.arange(5, 21, dtype=np.uint32), 1, 3, 0), (SEEDS["seed"], SEEDS["op_seed"]))
    assert_equal_values(far, (words[0] >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24))
    assert len(set(far) & set((block((100,), 3, **SEEDS)[0] >> np.uint32(8)) * np.float32(2.0**-24))) == 0


# the public functions --------------------------------------------------------------------------------


def run(node, number=0):
    return interpret(capture("random", [node]), [], number)[0]


def test_seeds_follow_tensorflow():
    with Graph().as_default():
        assert get_seed(None)[0] == get_seed(None)[0]
        assert get_seed(3) == (87654321, 3)
        entropy = get_seed(None)[0]
    with Graph().as_default():
        assert get_seed(None)[0] != entropy
        set_random_seed(42)
        assert get_seed(3) == (42, 3)
        assert get_seed(None) == (42, 0)
        first, second = random_normal([4]), random_normal([4])
        assert not np.array_equal(run(first), run(second))
        set_random_seed(-1)
        assert get_seed(2**40) == (0, 2**8)


def test_runs_differ_and_graphs_repeat():
    values = []
    for _ in range(2):
        with Graph().as_default():
            set_random_seed(1)
            x = random_uniform([3], -1, 1)
            values.append([run(x, 0), run(x, 1)])
    np.testing.assert_array_equal(values[0], values[1])
    assert not np.array_equal(values[0][0], values[0][1])


def test_public_functions_scale_and_shift():
    assert abs(run(random_normal([20000], 5.0, 0.1, seed=1)).mean() - 5) < 0.01
    assert run(random_uniform([20000], 2, 4, seed=1)).min() >= 2
    assert np.abs(run(truncated_normal([20000], stddev=0.1, seed=1))).max() <= 0.2 + 1e-6
    integers = run(random_uniform([500], 3, 6, dtype="int32", seed=1))
    assert set(integers) == {3, 4, 5}
    assert run(random_uniform([], seed=1)).shape == ()
    assert run(random_normal([2], dtype="float64", seed=1)).dtype == np.float64


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="integers need minval and maxval"):
        random_uniform([3], dtype="int32")
    with pytest.raises(DTypeError, match="int32 is not accepted"):
        random_normal([3], dtype="int32")
    with pytest.raises(ArgumentError, match="negative"):
        random_normal([-3])
