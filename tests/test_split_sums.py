"""Products with few results and long sums, of which each thread adds up parts: values as the interpreter's, the same bits at
one and two threads, whatever comes before and after the product; and which products those are.
"""
import numpy as np
import pytest

import graphc as tf
from graphc.codegen.kernel import ContractKernel
from graphc.codegen.lower import Target
from graphc.codegen.regions import lower_graph
from graphc.codegen.split import part_size
from graphc.ir import dims
from graphc.ir.container import detached
from graphc.ir.graph import Graph
from graphc.ir.interpreter import interpret
from graphc.ir.node import input_node
from graphc.ir.types import TensorType, as_dtype
from graphc.ops.compare import cast
from graphc.ops.contract import contract, matmul_to
from graphc.ops.elementwise import relu
from graphc.ops.index import iota
from graphc.ops.movement import reshape_to, transpose_to
from graphc.passes.manager import run_passes
from graphc.passes.pipeline import PIPELINE
from graphc.testing import assert_equal_values
from graphc.testing.compiled import CompiledGraph, parallel

N, K = dims.name("N"), dims.name("K")
RNG = np.random.default_rng(11)
LONG = 4500


def graph_of(function, shapes, dtypes):
    with detached():
        inputs = tuple(input_node(f"x{k}", TensorType(as_dtype(d), s))
                       for k, (s, d) in enumerate(zip(shapes, dtypes, strict=True)))
        return Graph("product", inputs, (function(*inputs),))


def kernels(graph):
    return [c.kernel for c in lower_graph(run_passes(graph, PIPELINE), Target(64, 32, True)).steps]


def is_split(graph):
    return any(isinstance(k, ContractKernel) and k.part for k in kernels(graph))


def check(function, *shapes, dtypes=None, sizes=({},)):
    """The function of whole numbers, whose sums are exact in any order, is split, and right."""
    graph = graph_of(function, shapes, dtypes or ["float32"] * len(shapes))
    assert is_split(graph)
    native = CompiledGraph(graph)
    for size in sizes:
        arrays = [RNG.integers(-3, 4, [dims.substitute(d, size) for d in n.shape]).astype(n.type.dtype.numpy)
                  for n in graph.inputs]
        for got, want in zip(native(arrays), interpret(graph, arrays), strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "float16"])
@pytest.mark.parametrize(("transpose_a", "transpose_b"), [(False, False), (True, False), (False, True), (True, True)])
def test_dtypes_and_ways_to_lie(dtype, transpose_a, transpose_b):
    a, b = (LONG, 10) if transpose_a else (10, LONG), (17, LONG) if transpose_b else (LONG, 17)
    check(lambda x, y: matmul_to(x, y, transpose_a=transpose_a, transpose_b=transpose_b), a, b, dtypes=[dtype] * 2)


@pytest.mark.parametrize(("m", "n", "k"), [(2, 2, 70_000), (13, 33, 2001), (31, 128, 785), (1, 128, 4000), (64, 64, 300),
                                           (3, 100, 1023), (50, 2, 5003)])
def test_sizes(m, n, k):
    check(lambda a, b: matmul_to(a, b), (m, k), (k, n))


def test_random_numbers_within_their_error():
    graph = graph_of(lambda a, b: matmul_to(a, b, transpose_a=True), [(20_000, 10), (20_000, 12)], ["float32"] * 2)
    arrays = [RNG.normal(size=n.type.shape).astype(np.float32) for n in graph.inputs]
    got, = CompiledGraph(graph)(arrays)
    a, b = (x.astype(np.float64) for x in arrays)
    assert_equal_values(got, a.T @ b, magnitude=np.abs(a).T @ np.abs(b), terms=20_000)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_batch_of_any_size(dtype):
    """The sum goes over a batch of no known size: one part, many, and none at all."""
    sizes = [{"K": k} for k in (0, 1, 2, 127, 1092, 1093, 3000, 80_001)]
    check(lambda a, b: matmul_to(a, b, transpose_a=True), (K, 10), (K, 12), dtypes=[dtype] * 2, sizes=sizes)


def test_nan_and_infinity_stay_where_they_are():
    graph = graph_of(lambda a, b: matmul_to(a, b, transpose_a=True), [(K, 10), (K, 12)], ["float32"] * 2)
    arrays = [RNG.integers(1, 4, (3001, n)).astype(np.float32) for n in (10, 12)]
    arrays[0][3000, 2], arrays[1][1500, 5] = np.nan, np.inf
    for got, want in zip(CompiledGraph(graph)(arrays), interpret(graph, arrays), strict=True):
        np.testing.assert_array_equal(got, want)


def numbers(shape, axis):
    return cast(iota(shape=shape, axis=axis), dtype=as_dtype("float32"))


AROUND = {
    "bias, relu": lambda p, x, y, bias, other: relu(p + bias),
    "residual, scaled": lambda p, x, y, bias, other: other * 0.5 + p * 2,
    "transposed": lambda p, x, y, bias, other: transpose_to(p, perm=(1, 0)),
    "relu, transposed": lambda p, x, y, bias, other: transpose_to(relu(p), perm=(1, 0)) * 2,
    "reshaped": lambda p, x, y, bias, other: relu(reshape_to(p, shape=(2, 5, 12))),
    "coordinates": lambda p, x, y, bias, other: p + numbers((10, 12), 1),
    "computed first": lambda p, x, y, bias, other: matmul_to(relu(x) + 1, y * 2, transpose_a=True) + bias,
    "numbered": lambda p, x, y, bias, other: matmul_to(x + numbers((LONG, 10), 0) * 0.5, y, transpose_a=True),
}


@pytest.mark.parametrize("name", AROUND)
def test_what_comes_before_and_after(name):
    def function(x, y, bias, other):
        return AROUND[name](matmul_to(x, y, transpose_a=True), x, y, bias, other)
    check(function, (LONG, 10), (LONG, 12), (12,), (10, 12))


@pytest.mark.parametrize(("a", "b", "labels"), [
    ((2, 2000, 5), (2, 2000, 9), ("bki", "bkj", "bij")), ((60, 5, 50), (60, 50, 9), ("kil", "klj", "ij")),
    ((60, 5, 50), (50, 60, 9), ("kil", "lkj", "ji")), ((2000, 3, 2, 2), (2000, 7), ("kabc", "kn", "abnc"))])
def test_other_contractions(a, b, labels):
    check(lambda x, y: contract(x, y, a_labels=labels[0], b_labels=labels[1], out_labels=labels[2]), a, b)


@pytest.mark.parametrize(("m", "n", "k"), [(512, 128, 784), (64, 256, 256), (32, 10, 128), (N, 10, 20_000), (10, 12, 1000)])
def test_not_where_there_is_enough_to_hand_out_or_little_to_do(m, n, k):
    assert not is_split(graph_of(lambda a, b: matmul_to(a, b), [(m, k), (k, n)], ["float32"] * 2))


def stepped(batches, count):
    """The weights of a wide layer after a step for each batch, as `count` threads make them."""
    with tf.Graph().as_default(), tf.Session() as session, parallel(count):
        x, y = tf.placeholder(tf.float32, [None, 300]), tf.placeholder(tf.float32, [None, 128])
        w, b = tf.Variable(np.ones((300, 128), np.float32)), tf.Variable(np.zeros(128, np.float32))
        loss = tf.reduce_sum(tf.square(tf.nn.relu(tf.matmul(x, w) + b) - y)) / 2
        step = tf.train.GradientDescentOptimizer(0.125).minimize(loss)
        session.run(tf.global_variables_initializer())
        for features, wanted in batches:
            session.run(step, {x: features, y: wanted})
        return session.run([w, b])


def test_weights_that_are_updated_are_read_by_rows():
    """A forward product with few rows is cut into parts by a formula of its batch, of none, some and many rows."""
    sizes = (1, 2, 0, 31, 65, 300)
    batches = [[RNG.integers(-2, 3, (n, width)).astype(np.float32) / 64 for width in (300, 128)] for n in sizes]
    w, b = np.ones((300, 128)), np.zeros(128)
    for features, wanted in batches:
        made = features.astype(float) @ w + b
        slope = (np.maximum(made, 0) - wanted) * (made > 0)
        w, b = w - 0.125 * features.T.astype(float) @ slope, b - 0.125 * slope.sum(0)
    found = [stepped(batches, count) for count in (1, 2, 3)]
    np.testing.assert_allclose(found[0][0], w, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[0][1], b, rtol=1e-4, atol=1e-4)
    for other in found[1:]:
        assert all(a.tobytes() == c.tobytes() for a, c in zip(found[0], other, strict=True))


@pytest.mark.parametrize(("shape", "transposed", "wanted"), [
    ((300, 128), False, True), ((100, 128), False, False), ((300, 300), True, False)])
def test_only_large_weights_whose_rows_are_summed(shape, transposed, wanted):
    with detached():
        x = input_node("x", TensorType(as_dtype("float32"), (N, shape[transposed])))
        w = input_node("w", TensorType(as_dtype("float32"), shape))
        product = matmul_to(x, w, transpose_b=transposed)
    assert (part_size(product, {w}) != 0) == wanted
    assert part_size(product, set()) == 0


def test_weights_are_updated_in_their_memory():
    """The gradient of a small layer by a large batch, two steps of descent; variables as NumPy has them."""
    with tf.Graph().as_default(), tf.Session() as session:
        x, y = tf.placeholder(tf.float32, [None, 10]), tf.placeholder(tf.float32, [None, 12])
        w = tf.Variable(np.ones((10, 12), np.float32))
        loss = tf.reduce_sum(tf.square(tf.matmul(x, w) - y)) / 2
        step = tf.train.GradientDescentOptimizer(0.125).minimize(loss)
        session.run(tf.global_variables_initializer())
        a, b = (RNG.integers(-2, 3, (3000, n)).astype(np.float32) / 64 for n in (10, 12))
        want = np.ones((10, 12))
        for _ in range(2):
            session.run(step, {x: a, y: b})
            want -= 0.125 * a.T.astype(float) @ (a @ want - b)
        np.testing.assert_allclose(session.run(w), want, rtol=1e-5)
