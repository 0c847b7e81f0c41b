"""Contractions whose operands are computed while they are packed: which are, which are not and why, and that values, failures
and updates of variables are the same.
"""
import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

import graphc as tf
from graphc.config import options
from graphc.errors import RunError
from graphc.ir import dims
from graphc.ir.container import detached
from graphc.ir.graph import Graph
from graphc.ir.interpreter import interpret
from graphc.ir.node import input_node
from graphc.ir.op import Kind
from graphc.ir.printer import print_graph
from graphc.ir.types import TensorType, as_dtype, int32
from graphc.ops.compare import cast, greater, select
from graphc.ops.contract import contract, matmul_to
from graphc.ops.elementwise import relu
from graphc.ops.gather import gather_rows
from graphc.ops.index import iota
from graphc.ops.movement import reshape_to, strided_slice, transpose_to
from graphc.ops.random import random_integers
from graphc.ops.reduce import reduce_sum
from graphc.ops.transcendental import tanh
from graphc.passes.manager import run_passes
from graphc.passes.pipeline import PIPELINE
from graphc.testing import assert_equal_values
from graphc.testing.compiled import CompiledGraph

N, M, K = (dims.name(n) for n in "NMK")
RNG = np.random.default_rng(5)


def graph_of(function, shapes, dtypes):
    with detached():
        inputs = tuple(input_node(f"x{k}", TensorType(as_dtype(d), s))
                       for k, (s, d) in enumerate(zip(shapes, dtypes, strict=True)))
        return Graph("product", inputs, (function(*inputs),))


def regions(graph):
    """For each region of the fused graph, the kinds that matter in it."""
    return [{n.op.kind for n in r.attrs["body"].nodes()} & {Kind.CONTRACT, Kind.ELEMENTWISE, Kind.REDUCE}
            for r in run_passes(graph, PIPELINE).nodes() if r.op.kind is Kind.REGION]


def values_of(graph, sizes):
    """Small whole numbers, so that sums are exact in any order."""
    return [RNG.integers(-3, 4, [dims.substitute(d, sizes) for d in n.shape]).astype(n.type.dtype.numpy) for n in graph.inputs]


def check(graph, sizes):
    native = CompiledGraph(graph)
    for size in sizes:
        arrays = values_of(graph, size)
        for got, want in zip(native(arrays), interpret(graph, arrays), strict=True):
            assert_equal_values(got, want, ulp=64)


def mask(x):
    return select(greater(x, 0), 2 * x, -x)


def noise(shape, dtype):
    return cast(random_integers(shape=shape, dtype=int32, seed=3, op_seed=4, low=-3, high=4), dtype=dtype)


SIZES = [{"N": 33, "M": 20}, {"N": 1, "M": 7}, {"N": 0, "M": 5}, {"N": 100, "M": 0}]
FUSED = {
    "a": (lambda a, b: matmul_to(a * 2, b), (N, M), (M, 17)),
    "b": (lambda a, b: matmul_to(a, relu(b)), (N, M), (M, 150)),
    "both": (lambda a, b: matmul_to(mask(a), mask(b)), (N, M), (M, 40)),
    "the same twice": (lambda a, b: matmul_to(relu(b), relu(b), transpose_b=True), (N, M), (20, M)),
    "a, transposed": (lambda a, b: matmul_to(a * 2, b, transpose_a=True), (M, N), (M, 40)),
    "b, transposed": (lambda a, b: matmul_to(a, 2 * b + 1, transpose_b=True), (N, M), (40, M)),
    "both, transposed": (lambda a, b: matmul_to(mask(a), mask(b), transpose_a=True, transpose_b=True), (M, N), (40, M)),
    "transposed by a node": (lambda a, b: matmul_to(transpose_to(a * 3, perm=(1, 0)), transpose_to(mask(b), perm=(1, 0))),
                             (M, N), (40, M)),
    "transposed before": (lambda a, b: matmul_to(transpose_to(a, perm=(1, 0)) * 3, b), (M, N), (M, 40)),
    "swapped": (lambda a, b: contract(mask(a), mask(b), a_labels="kn", b_labels="km", out_labels="mn"), (M, 40), (M, N)),
    "batches": (lambda a, b: matmul_to(mask(a), mask(b)), (3, N, M), (3, M, 40)),
    "batch of a": (lambda a, b: matmul_to(mask(a), mask(b)), (3, N, M), (M, 40)),
    "batch of b": (lambda a, b: matmul_to(mask(a), mask(b)), (N, M), (3, M, 40)),
    "named batch": (lambda a, b: matmul_to(mask(a), mask(b), transpose_b=True), (N, 2, 9, M), (N, 2, 21, M)),
    "rows": (lambda a, b: matmul_to(a * reshape_to(reduce_sum(b, axes=(1,)), shape=(M,)), b), (N, M), (M, 40)),
    "columns": (lambda a, b: matmul_to(a * strided_slice(a, begin=(0, 0), steps=(1, 1), sizes=(9, 1)), b), (9, M), (M, 40)),
    "position": (lambda a, b: matmul_to(a + iota(shape=(9, M), axis=1, dtype=a.dtype), b), (9, M), (M, 40)),
    "in an epilogue too": (lambda a, b: relu(a) + matmul_to(relu(a), b), (N, 24), (24, 24)),
    "epilogue": (lambda a, b: relu(matmul_to(a, b * 2) + 1) * 2, (N, M), (M, 40)),
    "two summed axes": (lambda a, b: contract(mask(a), mask(b), a_labels="mjk", b_labels="jkn", out_labels="mn"),
                        (N, M, 3), (M, 3, 20)),
    "two summed axes, not in order": (lambda a, b: contract(mask(a), mask(b), a_labels="mjk", b_labels="kjn", out_labels="mn"),
                                      (N, M, 3), (3, M, 20)),
    "rows of two axes": (lambda a, b: contract(mask(a), b, a_labels="pkq", b_labels="kn", out_labels="pqn"),
                         (N, M, 4), (M, 20)),
    "a part": (lambda a, b: matmul_to(2 * strided_slice(a, begin=(0, 1, 0), steps=(1, 2, 1), sizes=(9, 2, 5)), b),
               (9, 5, 5), (9, 5, 20)),
    "few columns, dear": (lambda a, b: matmul_to(tanh(a), b), (N, M), (M, 5)),
    "few rows, dear": (lambda a, b: matmul_to(a, tanh(b)), (5, M), (M, N)),
    "random": (lambda a, b: matmul_to(a * noise((20, 9), a.dtype), b, transpose_a=True), (20, 9), (20, 7)),
}


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fused(name, dtype):
    function, *shapes = FUSED[name]
    graph = graph_of(function, shapes, [dtype] * 2)
    with_product = [r for r in regions(graph) if Kind.CONTRACT in r]
    assert with_product == [{Kind.CONTRACT, Kind.ELEMENTWISE}] and sum(Kind.ELEMENTWISE in r for r in regions(graph)) == 1
    check(graph, SIZES)


def test_numbers_that_are_drawn_again():
    def function(a, b):
        drawn = noise((9, 20), a.dtype)
        return matmul_to(a * drawn, b) + reduce_sum(a - drawn, axes=(0, 1))
    graph = graph_of(function, [(9, 20), (20, 7)], ["float32"] * 2)
    assert len(regions(graph)) == 2
    check(graph, SIZES[:1])


def test_casts_and_masks_of_other_dtypes():
    graph = graph_of(lambda a, b, c: matmul_to(cast(a, dtype=b.dtype) * cast(greater(c, 1), dtype=b.dtype), b),
                     [(N, M), (M, 30), (N, M)], ["int32", "float32", "float64"])
    assert len(regions(graph)) == 1
    check(graph, SIZES)


def test_gathered_rows():
    graph = graph_of(lambda table, rows, w: matmul_to(gather_rows(table, rows, axis=0), w), [(4, M), (N,), (M, 30)],
                     ["float32", "int32", "float32"])
    assert len(regions(graph)) == 1
    native = CompiledGraph(graph)
    for n, m in ((50, 20), (0, 3), (1, 1)):
        arrays = [RNG.integers(-3, 4, s).astype(d) for s, d in (((4, m), "f4"), ((n,), "i4"), ((m, 30), "f4"))]
        arrays[1] %= 4
        assert_equal_values(native(arrays)[0], interpret(graph, arrays)[0])
        if n and m:
            arrays[1][n // 2] = 9
            with pytest.raises(RunError, match="9"):
                native(arrays)


def test_a_failure_is_reported():
    graph = graph_of(lambda a, b, c: matmul_to(a // b, c), [(N, 20), (N, 20), (20, 7)], ["int32"] * 3)
    assert len(regions(graph)) == 1
    native = CompiledGraph(graph)
    arrays = [np.full(s, 6, np.int32) for s in ((30, 20), (30, 20), (20, 7))]
    np.testing.assert_array_equal(native(arrays)[0], np.full((30, 7), 120))
    arrays[1][17, 3] = 0
    with pytest.raises(RunError, match=r"\[17, ?3\]"):
        native(arrays)


def test_what_may_fail_is_not_left_to_a_product_without_columns():
    """The interpreter divides although nothing needs the quotients."""
    graph = graph_of(lambda a, b, c: matmul_to(a // b, c), [(3, 4), (3, 4), (4, N)], ["int32"] * 3)
    assert len(regions(graph)) == 2
    with pytest.raises(RunError):
        CompiledGraph(graph)([np.ones((3, 4)), np.zeros((3, 4)), np.ones((4, 0))])


REFUSED = {
    "dear, many columns": (lambda a, b: matmul_to(tanh(a), b), (N, 20), (20, 9), "9 columns need it, about 12 instructions"),
    "dear, many rows": (lambda a, b: matmul_to(a, tanh(b)), (N, 20), (20, 9), "N rows need it, about 12 instructions"),
    "many columns": (lambda a, b: matmul_to(relu(a), b), (N, 20), (20, 129), "129 columns need it, about 1 instructions"),
    "needed elsewhere": (lambda a, b: matmul_to(matmul_to(relu(a), b), relu(a)), (20, 20), (20, 20), "must be in memory too"),
    "a reduction": (lambda a, b: matmul_to(a * reshape_to(reduce_sum(a, axes=(1,)), shape=(9, 1)), b), (9, 20), (20, 20),
                    "a reduction comes before the product"),
    "a moved value": (lambda a, b: matmul_to(strided_slice(relu(a), begin=(1, 1), steps=(1, 1), sizes=(8, 19)), b),
                      (9, 20), (19, 20), "moves elements that the region computes"),
    "a corner": (lambda a, b: matmul_to(strided_slice(relu(a), begin=(0, 0), steps=(1, 1), sizes=(8, 19)), b),
                 (9, 20), (19, 20), "is a part of what the region computes"),
    "a row": (lambda a, b: matmul_to(strided_slice(relu(a), begin=(0, 0, 0), steps=(1, 1, 1), sizes=(1, 9, 20)), b),
              (3, 9, 20), (1, 20, 20), "is a part of what the region computes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, monkeypatch, capsys):
    function, a, b, reason = REFUSED[name]
    graph = graph_of(function, (a, b), ["float32"] * 2)
    monkeypatch.setattr(options, "explain", ("fuse",))
    assert all(r != {Kind.CONTRACT, Kind.ELEMENTWISE} for r in regions(graph))
    assert reason in capsys.readouterr().err
    check(graph, SIZES[:1])


def test_a_variable_is_read_before_it_is_overwritten():
    """The new value of w is a product with w in its prologue: not even its first rows may be written early."""
    start = RNG.normal(size=(40, 40)).astype("f4")
    w = tf.Variable(start, name="w")
    other = tf.placeholder(tf.float32, [None, 40])
    step = tf.assign(w, tf.matmul(w * 2 + 1, w) * 0.01 + tf.reduce_sum(other))
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        session.run(step, {other: np.zeros((3, 40))})
        np.testing.assert_allclose(session.run(w), (start * 2 + 1) @ start * 0.01, rtol=1e-4, atol=1e-5)


CHAINS = [lambda x: x, relu, mask, lambda x: x * 2 - 1, lambda x: relu(x) + x, lambda x: x * x,
          lambda x: select(greater(x, 0), x, x + 1)]
SHAPES = [0, 1, 2, 5, 16, 33]


@st.composite
def products(draw):
    def pick(choices):
        return draw(st.sampled_from(choices))
    size = {"m": pick([N, 3, 20]), "n": pick([M, 1, 17, 70]), "k": pick([K, 1, 9]), "p": pick([2, N]), "q": pick([1, 3])}
    a, b = draw(st.permutations(pick(["mk", "pmk", "pkq", "pmkq"]))), draw(st.permutations(pick(["kn", "pkn", "knq"])))
    out = [x for x in dict.fromkeys([*a, *b]) if x != "k"]
    out = draw(st.permutations(out))

    def function(x, y):
        labels = {"a_labels": "".join(a), "b_labels": "".join(b), "out_labels": "".join(out)}
        return pick(CHAINS)(contract(pick(CHAINS)(x), pick(CHAINS)(y), **labels))
    shapes = [tuple(size[x] for x in labels) for labels in (a, b)]
    return graph_of(function, shapes, [pick(["float32", "float64", "int32"])] * 2)


@settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(products(), st.lists(st.tuples(*[st.sampled_from(SHAPES)] * 3), min_size=2, max_size=2))
def test_random_products(graph, sizes):
    note(print_graph(graph))
    check(graph, [dict(zip("NMK", s, strict=True)) for s in sizes])
