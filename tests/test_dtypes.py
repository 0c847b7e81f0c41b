"""The dtypes as users meet them: names, feeds, values, errors, training, and what is exact in float16 and bfloat16."""
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

import graphc as tf
from graphc.config import options
from graphc.errors import DTypeError, FeedError, RunError
from graphc.ir.container import detached
from graphc.ir.graph import Graph
from graphc.ir.interpreter import interpret
from graphc.ir.node import input_node
from graphc.ir.parser import parse
from graphc.ir.printer import large_constants, print_graph
from graphc.ir.types import DTYPES, TensorType
from graphc.ops.contract import matmul_to
from graphc.ops.elementwise import add, multiply, sqrt
from graphc.ops.reduce import reduce_max, reduce_sum
from graphc.program import Program
from graphc.runtime.executor import Executable
from graphc.testing.compiled import CompiledGraph

HALVES = [tf.float16, tf.bfloat16]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@pytest.fixture
def session():
    with tf.Graph().as_default(), tf.Session() as opened:
        yield opened


# names and properties ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "dtype"), [
    ("half", tf.float16), ("f16", tf.float16), (np.float16, tf.float16), ("bfloat16", tf.bfloat16), (BFLOAT16, tf.bfloat16),
    (ml_dtypes.bfloat16, tf.bfloat16), ("double", tf.float64), ("u64", tf.uint64), (np.dtype("int8"), tf.int8),
    (float, tf.float32)])
def test_spellings(given, dtype):
    assert tf.as_dtype(given) is dtype
    assert dtype == given
    assert hash(dtype) == hash(dtype.name)


def test_equal_to_what_names_it_alone():
    assert tf.float32 != "float64"
    assert tf.float32 != "no dtype"
    assert (tf.float32 == None) is False  # noqa: E711
    for wrong in ("complex64", None, tf.float32.size, [1, 2]):
        with pytest.raises(DTypeError, match="is not a dtype of graphc"):
            tf.as_dtype(wrong)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
def test_properties(dtype):
    assert dtype.numpy.itemsize == dtype.size
    assert dtype.as_numpy_dtype is dtype.numpy.type
    assert dtype.is_floating + dtype.is_integer + dtype.is_bool == 1
    assert dtype.base_dtype is dtype.real_dtype is dtype
    if dtype.is_integer:
        info = np.iinfo(dtype.numpy)
        assert dtype.limits == (info.min, info.max)
        assert dtype.is_unsigned == (info.min == 0)
    elif dtype.is_floating:
        info = ml_dtypes.finfo(dtype.numpy)
        assert dtype.limits == (info.min, info.max)
    else:
        with pytest.raises(DTypeError, match="bool has no maximum"):
            dtype.max


def test_import_of_graphc_imports_no_ml_dtypes():
    code = "import sys, graphc; assert 'ml_dtypes' not in sys.modules and 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
def test_constants_variables_feeds_and_fetches(session, dtype):
    values = np.array([0, 1, 1, 0, 1]).astype(dtype.numpy)
    x = tf.placeholder(dtype, [None])
    v = tf.Variable(values)
    many = tf.constant(np.resize(values, 300))     # too large for the text of a graph
    session.run(tf.global_variables_initializer())
    for tensor in (x, v, tf.constant(values), tf.identity(x), many[:5], tf.concat([x, v], 0)[5:], tf.reverse(x, [0])[::-1]):
        found = session.run(tensor, {x: values})
        assert found.dtype == dtype.numpy
        np.testing.assert_array_equal(found, values)
    session.run(v.assign(tf.logical_not(x) if dtype.is_bool else x + x), {x: values})
    np.testing.assert_array_equal(session.run(v), ~values if dtype.is_bool else values + values)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
def test_programs_and_texts_keep_constants(dtype):
    values = np.arange(100).reshape(10, 10).astype(dtype.numpy)
    x = input_node("x", TensorType(dtype, (10, 10)))
    with detached():
        y = tf.logical_or(x, values) if dtype.is_bool else add(x, values)
    graph = Graph("f", (x,), (y,))
    text, arrays = print_graph(graph), large_constants(graph)
    stored = {k: a.view("V2") if a.dtype == BFLOAT16 else a for k, a in arrays.items()}     # as .npz files give them back
    assert print_graph(parse(text, stored)) == text
    native = CompiledGraph(graph)
    again = Executable(Program.from_bytes(native.program.to_bytes()), [])
    given = [np.ones((10, 10)).astype(dtype.numpy)]
    want, = interpret(graph, given)
    for found in (native(given)[0], again.instance(given).run(given)[0]):
        assert found.dtype == dtype.numpy
        np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("source", DTYPES, ids=lambda d: d.name)
def test_casts_between_all_pairs(source):
    """One program for each source; NumPy's values wherever NumPy defines them."""
    values = np.array([0, 1, 2, 3, 100, 200, -1, -100, 1.5, 2.5, 40000.75, -3e9, 1e19]) if source.is_floating else \
        np.array([0, 1, 2, 3, 100, 127, *([] if source.is_unsigned or source.is_bool else [-1, -100, -128])])
    with np.errstate(all="ignore"):
        values = values.astype(source.numpy)
    x = input_node("x", TensorType(source, values.shape))
    with detached():
        graph = Graph("casts", (x,), tuple(tf.cast(x, d) for d in DTYPES if d is not source))
    want, found = interpret(graph, [values]), CompiledGraph(graph)([values])
    for w, f, node in zip(want, found, graph.outputs, strict=True):
        assert f.dtype == node.dtype.numpy
        np.testing.assert_array_equal(f, w)
        if not (source.is_floating and node.dtype.is_integer):
            with np.errstate(all="ignore"):
                np.testing.assert_array_equal(w, values.astype(node.dtype.arithmetic.numpy).astype(node.dtype.numpy))


def test_float_to_integer_saturates(session):
    x = tf.placeholder(tf.float16, [None])
    given = {x: [1.9, -1.9, 300, -300, np.inf, np.nan]}
    assert session.run(tf.cast(x, tf.int8), given).tolist() == [1, -1, 127, -128, 127, 0]
    assert session.run(tf.cast(x, tf.uint16), given).tolist() == [1, 0, 300, 0, 65535, 0]


def test_saturate_cast_and_bitcast(session):
    large = tf.constant([1e6, -1e6, 1.5])
    assert session.run(tf.saturate_cast(large, tf.float16)).tolist() == [65504, -65504, 1.5]
    assert session.run(tf.saturate_cast(tf.constant([-1, 70000]), tf.uint16)).tolist() == [0, 65535]
    assert session.run(tf.bitcast(tf.constant([1.0, -2.0], tf.bfloat16), tf.uint16)).tolist() == [0x3F80, 0xC000]
    with pytest.raises(DTypeError, match="the sizes of the dtypes differ"):
        tf.bitcast(large, tf.float16)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.is_integer], ids=lambda d: d.name)
def test_integers_wrap_and_refuse_division_by_zero(session, dtype):
    x = tf.placeholder(dtype, [None], name="x")
    low, high = dtype.limits
    assert session.run(x + 1, {x: [high, 3]}).tolist() == [low, 4]
    assert session.run(x * x, {x: [high, 3]}).tolist() == [1, 9]
    with pytest.raises(RunError, match=r"integer division by zero: y\[1\] = 0"):
        session.run(tf.constant([7, 7], dtype) // x, {x: [2, 0]})
    assert session.run(x // 3, {x: [high, 7]}).tolist() == [high // 3, 2]
    with pytest.raises(FeedError, match="does not convert"):
        session.run(x, {x: np.array([high + 1], object if high > 2**62 else np.int64)})


def test_feeds_round_and_refuse(session):
    for dtype, large in ((tf.float16, 65520.0), (tf.bfloat16, 3.4e38)):
        x = tf.placeholder(dtype, [None], name="x")
        found = session.run(x, {x: np.array([1 / 3, np.inf])})
        np.testing.assert_array_equal(found, np.array([1 / 3, np.inf]).astype(dtype.numpy))
        with pytest.raises(FeedError, match="it is too large"):
            session.run(x, {x: [1.0, large]})
        with pytest.raises(FeedError, match="imaginary part would be lost"):
            session.run(x, {x: [1j]})
        with pytest.raises(FeedError, match="bool does not convert"):
            session.run(x, {x: [True]})
    i = tf.placeholder(tf.int8, [None])
    assert session.run(i, {i: np.array([3, -4], BFLOAT16)}).tolist() == [3, -4]
    with pytest.raises(FeedError, match=r"1\.5 does not convert to int8"):
        session.run(i, {i: np.array([1.5], BFLOAT16)})
    with pytest.raises(FeedError, match=r"200.* does not convert to int8"):
        session.run(i, {i: np.array([200], np.float16)})


# arithmetic of 16-bit floats -----------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "numpy"])
@pytest.mark.parametrize("dtype", HALVES, ids=lambda d: d.name)
def test_sums_are_made_in_float32(session, dtype, device, monkeypatch):
    monkeypatch.setattr(options, "device", device)
    ones = tf.ones([100_000], dtype)
    assert session.run(tf.constant(300.0, tf.float16) * 300.0) == np.inf
    assert session.run(tf.reduce_sum(ones)) == (np.inf if dtype is tf.float16 else 99840)     # rounded once, at the end
    assert session.run(tf.reduce_mean(ones)) == 1
    assert session.run(tf.nn.softmax(tf.zeros([100_000], dtype)))[0] == np.float32(1e-5).astype(dtype.numpy)
    assert session.run(tf.reduce_sum(tf.fill([4096], tf.constant(0.5, dtype)))) == 2048
    row = tf.placeholder(dtype, [1, None])
    assert session.run(tf.matmul(row, row, transpose_b=True), {row: np.full((1, 4096), 0.5)}).item() == 1024
    large = tf.fill([400], tf.constant(300.0, dtype))     # no float16 is 300 * 300
    for value in (tf.global_norm([large]), tf.norm(large), tf.reduce_std(tf.concat([large, -large], 0)) * 20):
        assert session.run(value) == np.float32(6000).astype(dtype.numpy)
    assert session.run(tf.nn.l2_loss(large / 100)) == np.float32(1800).astype(dtype.numpy)
    assert session.run(tf.nn.l2_normalize(tf.zeros([3], dtype))).tolist() == [0, 0, 0]     # 1e-12 is 0 in float16
    assert session.run(tf.cumsum(ones[:5000]))[-1] == np.float32(5000).astype(dtype.numpy)
    table = tf.placeholder(dtype, [2])
    picked = tf.gather(table, np.zeros(4000, np.int32)) * tf.constant(0.25, dtype)
    assert session.run(tf.gradients(picked, table)[0], {table: [1, 1]}).tolist() == [1000, 0]


@pytest.mark.parametrize("dtype", HALVES, ids=lambda d: d.name)
def test_each_op_rounds_once_in_fused_chains(dtype):
    """Sums of products, products and roots: the same bits as the interpreter, which rounds after each op."""
    rng = np.random.default_rng(0)
    x, y = (input_node(n, TensorType(dtype, (37, 53))) for n in "xy")
    with detached():
        chain = sqrt(multiply(add(multiply(x, y), x), add(x, 0.1)))
        top = reduce_max(multiply(chain, chain), axes=(1,))
        total = reduce_sum(x, axes=(0,))
        doubled = add(total, total)
    graph = Graph("chain", (x, y), (chain, top, doubled))
    given = [rng.uniform(0, 2, (37, 53)).astype(dtype.numpy) for _ in range(2)]
    want, found = interpret(graph, given), CompiledGraph(graph)(given)
    assert len(np.unique(found[0].astype(np.float32))) > 20
    for w, f in zip(want, found, strict=True):     # the sums' order differs: they agree before they are rounded, nearly always
        np.testing.assert_array_equal(f, w)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (17, 33, 65), (70, 200, 130), (64, 2000, 300)])
@pytest.mark.parametrize("dtype", HALVES, ids=lambda d: d.name)
def test_products_of_matrices(dtype, shape):
    m, k, n = shape
    rng = np.random.default_rng(0)
    for transpose in (False, True):
        a = input_node("a", TensorType(dtype, (m, k)))
        b = input_node("b", TensorType(dtype, (n, k) if transpose else (k, n)))
        with detached():
            graph = Graph("product", (a, b), (add(matmul_to(a, b, transpose_a=False, transpose_b=transpose), 1.0),))
        given = [rng.integers(-2, 3, tuple(i.shape)).astype(dtype.numpy) for i in (a, b)]     # sums are exact in float32
        np.testing.assert_array_equal(CompiledGraph(graph)(given)[0], interpret(graph, given)[0])


@pytest.mark.parametrize("dtype", HALVES, ids=lambda d: d.name)
def test_gradients(session, dtype):
    x = tf.placeholder(dtype, [3], name="x")
    slope, = tf.gradients(tf.reduce_sum(tf.exp(x) * x), x)
    second, = tf.gradients(slope, x)
    given = np.array([0.5, -1.0, 0.0], np.float32)
    for got, want in ((slope, np.exp(given) * (1 + given)), (second, np.exp(given) * (2 + given))):
        found = session.run(got, {x: given})
        assert found.dtype == dtype.numpy
        np.testing.assert_allclose(found.astype(np.float32), want, rtol=0.02)


@pytest.mark.parametrize("dtype", [*HALVES, tf.int8, tf.uint64], ids=lambda d: d.name)
def test_branches_and_loops(session, dtype):
    """A loop over single numbers is one kernel, one over a vector is not."""
    x, z, p = tf.placeholder(dtype, [3]), tf.placeholder(dtype, []), tf.placeholder(tf.bool, [])
    ends = [tf.while_loop(lambda i, a: i < 5, lambda i, a: (i + 1, a * 2 + 1), [0, start])[1] for start in (x, z)]
    chosen = tf.cond(p, lambda: x * x, lambda: x + x)
    scanned = tf.scan(lambda a, b: a * b + 1, x)
    found = session.run([*ends, chosen, scanned], {x: [1, 2, 3], z: 3, p: True})
    assert all(f.dtype == dtype.numpy for f in found)
    assert [f.tolist() for f in found] == [[63, 95, 127], 127, [1, 4, 9], [1, 3, 10]]
    if dtype.is_floating:
        slope, = tf.gradients(ends[1], z)
        assert session.run(slope, {z: 3}) == 32


@pytest.mark.parametrize("dtype", HALVES, ids=lambda d: d.name)
@pytest.mark.parametrize("optimizer", [
    tf.train.GradientDescentOptimizer(0.1), tf.train.MomentumOptimizer(0.05, 0.5), tf.train.AdamOptimizer(0.05),
    tf.train.RMSPropOptimizer(0.05), tf.train.AdagradOptimizer(0.3)], ids=lambda o: o.name)
def test_optimizers(session, dtype, optimizer):
    """Their slots are float32; a gradient of 0 moves nothing (Adam's epsilon is 0 in float16)."""
    v = tf.Variable(np.array([1.0, 0.0]), dtype=dtype)
    train = optimizer.minimize(tf.reduce_sum(tf.square(v - 0.25)[:1]), var_list=[v])
    session.run(tf.global_variables_initializer())
    assert all(optimizer.get_slot(v, name).dtype is tf.float32 for name in optimizer.get_slot_names())
    for _ in range(100):
        session.run(train)
    first, second = session.run(v).astype(np.float32)
    assert abs(first - 0.25) < 0.02
    assert second == 0
