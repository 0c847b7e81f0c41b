"""Public functions of indices, order, segments, diagonals, blocks: against NumPy, with a named size, gradients, errors."""
import numpy as np
import pytest

import graphc as tf
from graphc import nn
from graphc.errors import ArgumentError, GraphcError, RunError, ShapeError
from graphc.ir import dims
from graphc.ir.container import detached
from graphc.ir.graph import Graph
from graphc.ir.interpreter import interpret
from graphc.ir.node import Node, input_node
from graphc.ir.types import TensorType, as_dtype
from graphc.ir.verify import verify
from graphc.ops.grad import gradients
from graphc.passes.differentiate import differentiate
from graphc.testing import check_gradients
from graphc.testing.compiled import CompiledGraph

RNG = np.random.default_rng(0)
X = RNG.uniform(-2, 2, (5, 4, 3))
IDS = np.array([2, 0, 2, -1, 0])
SORTED = np.array([0, 0, 2, 2, 2])
PICKS = RNG.integers(0, 4, (5, 2))
PLACES = np.array([[0, 1], [4, 3], [0, 1]])


pytestmark = pytest.mark.usefixtures("fresh_graph")


def graph_of(function, values, named=False):
    """The graph of a function of tensors like `values`; `named`: the first size of each is the dim N."""
    with detached():
        inputs = tuple(input_node(f"x{k}", TensorType(as_dtype(v.dtype), (dims.name("N"), *v.shape[1:]) if named and v.ndim
                                                      else v.shape)) for k, v in enumerate(values))
        found = function(*inputs)
    graph = Graph("f", inputs, (found,) if isinstance(found, Node) else tuple(found))
    verify(graph)
    return graph


def values_of(function, *values, named=False, compiled=False):
    values = [np.asarray(v) for v in values]
    graph = graph_of(function, values, named)
    found = CompiledGraph(graph)(values) if compiled else interpret(graph, values)
    return found if len(found) > 1 else found[0]


def segments(reduce, empty, ids, rows=3):
    def reference(x):
        return np.stack([reduce(x[ids == s], 0) if (ids == s).any() else np.full(x.shape[1:], empty) for s in range(rows)])
    return reference


def logcumsum(x):
    return np.log(np.cumsum(np.exp(x), 1))


def reverse_parts(x):
    return np.stack([np.concatenate([row[:n][::-1], row[n:]]) for row, n in zip(x, [4, 0, 1, 3, 2], strict=True)])


def blocks(x):
    """Two by one blocks of the axes 1 and 2 as batches."""
    return np.concatenate([x[:, k::2] for k in range(2)])


CASES = {
    "cumsum": (lambda x: tf.cumsum(x, -1), lambda x: np.cumsum(x, -1)),
    "cumsum backwards": (lambda x: tf.cumsum(x, 1, exclusive=True, reverse=True),
                         lambda x: np.flip(np.cumsum(np.flip(x, 1), 1), 1) - x),
    "cumprod": (lambda x: tf.cumprod(x), lambda x: np.cumprod(x, 0)),
    "cumulative_logsumexp": (lambda x: tf.cumulative_logsumexp(x, 1), logcumsum),
    "cumulative_logsumexp exclusive": (lambda x: tf.cumulative_logsumexp(x, 1, exclusive=True)[:, 1:],
                                       lambda x: logcumsum(x)[:, :-1]),
    "sort": (lambda x: tf.sort(x, 1), lambda x: np.sort(x, 1)),
    "sort down": (lambda x: tf.sort(x, direction="DESCENDING"), lambda x: -np.sort(-x, -1)),
    "top_k": (lambda x: nn.top_k(x, 2).values, lambda x: -np.sort(-x, -1)[..., :2]),
    "top_k of many": (lambda x: nn.top_k(tf.tile(x, [1, 1, 30]), 70)[0], lambda x: -np.sort(-np.tile(x, 30), -1)[..., :70]),
    "gather in batches": (lambda x: tf.gather(x, PICKS, batch_dims=1),
                          lambda x: np.stack([r[i] for r, i in zip(x, PICKS, strict=True)])),
    "gather in batches, axis 2": (lambda x: tf.gather(x, PICKS % 3, batch_dims=1, axis=2),
                                  lambda x: np.stack([r[:, i] for r, i in zip(x, PICKS % 3, strict=True)])),
    "batch_gather": (lambda x: tf.batch_gather(x, PICKS), lambda x: np.stack([r[i] for r, i in zip(x, PICKS, strict=True)])),
    "gather_nd": (lambda x: tf.gather_nd(x, PLACES), lambda x: x[PLACES[:, 0], PLACES[:, 1]]),
    "gather_nd in batches": (lambda x: tf.gather_nd(x, PICKS[:, :1], batch_dims=1), lambda x: x[np.arange(5), PICKS[:, 0]]),
    "tensor_scatter_add": (lambda x: tf.tensor_scatter_add(x, PLACES, np.ones((3, 3))),
                           lambda x: x + scattered((5, 4, 3), PLACES, 1)),
    "tensor_scatter_sub": (lambda x: tf.tensor_scatter_sub(x, [[1], [1]], 2 * np.ones((2, 4, 3))),
                           lambda x: x - scattered((5, 4, 3), [[1], [1]], 2)),
    "tensor_scatter_update": (lambda x: tf.tensor_scatter_update(x, PLACES, np.zeros((3, 3))),
                              lambda x: np.where(scattered((5, 4, 3), PLACES, 1) > 0, 0, x)),
    "scatter_nd": (lambda x: tf.scatter_nd([[1], [3], [1], [0], [3]], x, [4, 4, 3]),
                   lambda x: np.stack([x[3], x[0] + x[2], 0 * x[0], x[1] + x[4]])),
    "segment_sum": (lambda x: tf.segment_sum(x, SORTED), segments(np.sum, 0, SORTED)),
    "segment_mean": (lambda x: tf.segment_mean(x, SORTED), segments(np.mean, 0, SORTED)),
    "segment_prod": (lambda x: tf.segment_prod(x, SORTED), segments(np.prod, 1, SORTED)),
    "segment_max": (lambda x: tf.segment_max(x, SORTED), segments(np.max, 0, SORTED)),
    "segment_min": (lambda x: tf.segment_min(x, SORTED), segments(np.min, 0, SORTED)),
    "unsorted_segment_sum": (lambda x: tf.unsorted_segment_sum(x, IDS, 3), segments(np.sum, 0, IDS)),
    "unsorted_segment_mean": (lambda x: tf.unsorted_segment_mean(x, IDS, 3), segments(np.mean, 0, IDS)),
    "unsorted_segment_sqrt_n": (lambda x: tf.unsorted_segment_sqrt_n(x, IDS, 3),
                                segments(lambda v, a: v.sum(a) / np.sqrt(len(v)), 0, IDS)),
    "unsorted_segment_prod": (lambda x: tf.unsorted_segment_prod(x, IDS, 3), segments(np.prod, 1, IDS)),
    "unsorted_segment_max": (lambda x: tf.unsorted_segment_max(x, [0, 1, 2, -1, 0], 3),
                             lambda x: np.stack([np.maximum(x[0], x[4]), x[1], x[2]])),
    "unsorted_segment_min": (lambda x: tf.unsorted_segment_min(x, [0, 1, 2, -1, 0], 3),
                             lambda x: np.stack([np.minimum(x[0], x[4]), x[1], x[2]])),
    "unsorted_segment_sum by two axes": (lambda x: tf.unsorted_segment_sum(x, np.arange(20).reshape(5, 4) % 2, 2),
                                         lambda x: x.reshape(10, 2, 3).sum(0)),
    "diag": (lambda x: tf.diag(x[0, 0]), lambda x: np.diag(x[0, 0])),
    "diag of a matrix": (lambda x: tf.diag_part(tf.diag(x[0])) * 2, lambda x: x[0] * 2),
    "matrix_diag": (lambda x: tf.matrix_diag(x), lambda x: x[..., None] * np.eye(3)),
    "matrix_diag_part": (lambda x: tf.matrix_diag_part(x), lambda x: np.diagonal(x, 0, 1, 2)),
    "matrix_set_diag": (lambda x: tf.matrix_set_diag(x, x[:, 0] * 2),
                        lambda x: np.where(np.eye(4, 3) > 0, 2 * x[:, :1], x)),
    "upper triangle": (lambda x: tf.matrix_band_part(x, 0, -1), np.triu),
    "lower triangle": (lambda x: tf.matrix_band_part(x, -1, 0), np.tril),
    "band": (lambda x: tf.matrix_band_part(x, 1, 1), lambda x: np.tril(np.triu(x, -1), 1)),
    "whole band": (lambda x: tf.matrix_band_part(x, -1, -1), lambda x: x),
    "roll": (lambda x: tf.roll(x, [-1, 5], [1, 2]), lambda x: np.roll(x, (-1, 5), (1, 2))),
    "roll the batch": (lambda x: tf.roll(x, 2, 0), lambda x: np.roll(x, 2, 0)),
    "roll by a tensor": (lambda x: tf.roll(x, tf.constant(-3), 1), lambda x: np.roll(x, -3, 1)),
    "reverse_sequence": (lambda x: tf.reverse_sequence(x, [4, 0, 1, 3, 2], seq_axis=1), reverse_parts),
    "reverse_sequence, other axes": (lambda x: tf.reverse_sequence(tf.transpose(x, [2, 1, 0]), [4, 0, 1, 3, 2], seq_dim=1,
                                                                       batch_dim=2),
                                     lambda x: reverse_parts(x).transpose(2, 1, 0)),
    "space_to_batch": (lambda x: tf.space_to_batch_nd(x, [2, 1], [[0, 0], [0, 0]]), blocks),
    "batch_to_space": (lambda x: tf.batch_to_space_nd(tf.space_to_batch_nd(x, [2], [[1, 1]]), [2], [[1, 1]]), lambda x: x),
    "depth": (lambda x: tf.depth_to_space(tf.space_to_depth(x[:, :, :2, None], 2), 2), lambda x: x[:, :, :2, None]),
    "space_to_depth": (lambda x: tf.space_to_depth(x[:, :, :2, None], 2), lambda x: x[:, :, :2].reshape(5, 2, 1, 4)),
    "depth, channels first": (lambda x: tf.depth_to_space(tf.space_to_depth(x[:, None, :, :2], 2, data_format="NCHW"), 2,
                                                          data_format="NCHW"), lambda x: x[:, None, :, :2]),
    "parallel_stack": (lambda x: tf.parallel_stack([x, x * 2]), lambda x: np.stack([x, x * 2])),
    "embedding_lookup in parts": (lambda x: nn.embedding_lookup([x[::2], x[1::2]], [[4, 1], [0, 3]]),
                                  lambda x: x[[[4, 1], [0, 3]]]),
    "embedding_lookup in pieces": (lambda x: nn.embedding_lookup([x[:3], x[3:]], [4, 1, 2], "div"), lambda x: x[[4, 1, 2]]),
}
FIXED = {"scatter_nd", "segment_", "unsorted", "gather in", "batch_gather", "gather_nd in", "reverse_seq", "embed"}


def scattered(shape, places, value):
    y = np.zeros(shape)
    np.add.at(y, tuple(np.asarray(places).T), value)
    return y


@pytest.mark.parametrize("name", CASES)
def test_functions_are_numpys(name):
    function, reference = CASES[name]
    want = reference(X)
    for named in (False, True):
        if named and any(name.startswith(f) for f in FIXED):
            continue
        np.testing.assert_allclose(values_of(function, X, named=named), want, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(values_of(function, X, compiled=True), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in CASES if "max" not in n and "min" not in n])
def test_gradients_are_right(name):
    function, _ = CASES[name]
    check_gradients(function, X[:5])


def slopes(function, x):
    graph = graph_of(lambda v: gradients(tf.reduce_sum(function(v)), v), [np.asarray(x)])
    return interpret(differentiate(graph), [np.asarray(x)])[0]


@pytest.mark.parametrize(("x", "want"), [((2.0, 0.0, 3.0), (1, 8, 0)), ((0.0, 0.0, 3.0), (1, 0, 0)),
                                         ((2.0, 3.0, 0.0), (4, 2, 6))])
def test_gradient_of_cumprod_divides_by_nothing(x, want):
    assert slopes(tf.cumprod, x).tolist() == list(want)


def test_gradient_of_a_segment_product_at_zeros():
    x = np.array([2.0, 0.0, 3.0, 0.0, 0.0, 5.0, np.inf])
    got = slopes(lambda v: tf.unsorted_segment_prod(v, [0, 0, 0, 1, 1, 1, 2], 3), x)
    assert got.tolist() == [0, 6, 0, 0, 0, 0, 1], "the infinity of one segment does not reach another"


def test_cumulative_logsumexp_at_hard_values():
    x = np.array([-1000.0, -np.inf, 0.0, 1000.0, 1000.0])
    want = np.logaddexp.accumulate(x)
    np.testing.assert_allclose(values_of(lambda v: tf.cumulative_logsumexp(v), x, compiled=True), want, rtol=1e-12)
    infinite = values_of(lambda v: tf.cumulative_logsumexp(v), np.array([-np.inf, np.inf, 1.0]))
    assert infinite.tolist() == [-np.inf, np.inf, np.inf]
    assert values_of(lambda v: tf.cumulative_logsumexp(v, exclusive=True), x)[0] == -np.inf


def test_order_of_ties_and_nan():
    x = np.array([1.0, np.nan, 0.0, -0.0, 1.0, -np.inf])
    up, down, top = values_of(lambda v: (tf.argsort(v), tf.argsort(v, direction="DESCENDING"), nn.top_k(v, 3).indices), x,
                              compiled=True)
    assert up.tolist() == [5, 2, 3, 0, 4, 1]
    assert down.tolist() == [1, 0, 4, 2, 3, 5]
    assert top.tolist() == [1, 0, 4]


def test_searchsorted_and_permutations():
    line, wanted = np.array([[1, 3, 3, 5.0]]), np.array([[0, 3, 9.0]])
    for side in ("left", "right"):
        got = values_of(lambda a, b, side=side: tf.searchsorted(a, b, side=side), line, wanted, compiled=True)
        assert got.tolist() == [np.searchsorted(line[0], wanted[0], side).tolist()]
    assert values_of(tf.invert_permutation, np.array([2, 0, 1], np.int32)).tolist() == [1, 2, 0]


def test_counts():
    numbers = np.array([1, 5, 1, 0], np.int32)
    assert values_of(lambda: tf.bincount(numbers)).tolist() == [1, 2, 0, 0, 0, 1]
    assert values_of(lambda v: tf.bincount(v, minlength=3, maxlength=3), numbers, compiled=True).tolist() == [1, 2, 0]
    assert values_of(lambda: tf.bincount(numbers, [0.5, 1.0, 2.0, 4.0])).tolist() == [4, 2.5, 0, 0, 0, 1]
    values = np.array([-1.0, 0.0, 1.5, 2.0, 5.0, 15.0], np.float32)
    bins = values_of(lambda v: tf.histogram_fixed_width(v, [0.0, 5.0], nbins=5), values, compiled=True)
    assert bins.tolist() == [2, 1, 1, 0, 2]
    assert values_of(lambda a, b: tf.confusion_matrix(a, b, 3), np.array([0, 2, 2]), np.array([0, 2, 1])).tolist() == [
        [1, 0, 0], [0, 0, 0], [0, 1, 1]]
    assert values_of(lambda: tf.confusion_matrix([0, 1], [1, 1], weights=[2, 3])).tolist() == [[0, 2], [0, 3]]


def test_masks_and_grids():
    lengths = np.array([[1, 0], [3, 5]], np.int32)
    want = np.arange(4) < lengths[..., None]
    assert (values_of(lambda n: tf.sequence_mask(n, 4), lengths, named=True) == want).all()
    assert values_of(lambda: tf.sequence_mask([2, 1], dtype=tf.float32)).tolist() == [[1, 1], [1, 0]]
    lines = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0]), np.array([6.0])
    for indexing in ("xy", "ij"):
        got = values_of(lambda *v, i=indexing: tf.meshgrid(*v, indexing=i), *lines)
        for a, b in zip(got, np.meshgrid(*lines, indexing=indexing), strict=True):
            assert a.tolist() == b.tolist()
    assert tf.broadcast_static_shape([3, 1], [5]) == (3, 5)


def test_segments_that_only_a_run_knows():
    x, ids = X[:, 0], np.array([0, 1, 1, 3, 3])
    got = values_of(lambda v, i: tf.segment_sum(v, i, num_segments=4), x, ids, named=True, compiled=True)
    np.testing.assert_allclose(got, segments(np.sum, 0, ids, 4)(x))
    with pytest.raises(RunError, match="segment ids are not sorted"):
        values_of(lambda v, i: tf.segment_sum(v, i, num_segments=4), x, ids[::-1].copy())


def test_numbers_of_parts_are_checked_when_they_run():
    picks = np.array([[0, 4], [1, 1], [0, 0], [2, 2], [3, 3]])
    for compiled in (False, True):
        with pytest.raises(RunError, match=r"gather: index outside \[0, 4\).*= 4"):
            values_of(lambda x, i: tf.gather(x, i, batch_dims=1), X, picks, compiled=compiled)
        with pytest.raises(RunError, match=r"gather_nd: index outside \[0, 4\).*= 4"):
            values_of(lambda x, i: tf.gather_nd(x, i), X, picks, compiled=compiled)
        with pytest.raises(RunError, match="scatter_nd: index outside"):
            values_of(lambda u, i: tf.scatter_nd(i, u, [3]), np.ones(2), np.array([[1], [-1]]), compiled=compiled)
        with pytest.raises(RunError, match="reverse_sequence: index outside"):
            values_of(lambda x, n: tf.reverse_sequence(x, n, 1), X, np.array([1, 2, 3, 4, 5]), compiled=compiled)
        with pytest.raises(RunError, match="confusion_matrix: index outside"):
            values_of(lambda a, b: tf.confusion_matrix(a, b, 2), np.array([0, 1]), np.array([0, 2]), compiled=compiled)


def unknown(*shape, dtype=tf.float64):
    return tf.placeholder(dtype, shape)


@pytest.mark.parametrize(("make", "error", "words"), [
    (lambda: tf.gather(unknown(2, 3), unknown(3, 4, dtype=tf.int32), batch_dims=1), ShapeError,
     ["share 1 first axes", "[2] != [3]"]),
    (lambda: tf.gather(unknown(2, 3), [[1]], batch_dims=1, axis=0), ShapeError, ["axis 0 is one of them"]),
    (lambda: tf.gather_nd(unknown(2, 3), [[0, 0, 0]]), ShapeError, ["gather_nd: the indices do not fit", "rank 2"]),
    (lambda: tf.scatter_nd([[0]], unknown(2), [4]), ShapeError, ["the updates do not fit the indices", "[2] != [1]"]),
    (lambda: tf.sort(unknown(3), direction="UP"), ArgumentError, ["'UP' is no direction"]),
    (lambda: nn.top_k(unknown(3), 4), ShapeError, ["the rows are too short", "k = 4"]),
    (lambda: tf.searchsorted(unknown(3), [1.0], side="middle"), ArgumentError, ["'middle' is no side"]),
    (lambda: tf.segment_sum(unknown(2), [1, 0]), ArgumentError, ["not sorted", "unsorted_segment_sum"]),
    (lambda: tf.segment_sum(unknown(2), unknown(2, dtype=tf.int32)), ArgumentError, ["known only when", "num_segments"]),
    (lambda: tf.bincount(unknown(2, dtype=tf.int32)), ArgumentError, ["known only when", "minlength and maxlength"]),
    (lambda: tf.sequence_mask(unknown(2, dtype=tf.int32)), ArgumentError, ["give maxlen"]),
    (lambda: tf.matrix_set_diag(unknown(3, 4), unknown(4)), ShapeError, ["the diagonal does not fit", "[4] != [3]"]),
    (lambda: tf.diag_part(unknown(3, 4)), ShapeError, ["the two halves of the shape differ"]),
    (lambda: tf.matrix_band_part(unknown(3), 1, 1), ShapeError, ["at least 2 axes"]),
    (lambda: tf.space_to_depth(unknown(1, 3, 4, 1), 2), ShapeError, ["axis 1 does not divide", "3 by 2"]),
    (lambda: tf.depth_to_space(unknown(1, 3, 4), 2), ArgumentError, ["4 axes"]),
    (lambda: tf.roll(unknown(3), [1, 2], [0]), ArgumentError, ["one shift for each axis"]),
    (lambda: tf.broadcast_static_shape([3], [4]), ShapeError, ["do not broadcast", "[3] and [4]"]),
    (lambda: tf.meshgrid(unknown(3), indexing="yx"), ArgumentError, ["'yx' is no indexing"]),
    (lambda: nn.embedding_lookup([unknown(2, 3), unknown(3, 3)], [0]), ShapeError, ["not the parts of one table", "dealt out"]),
    (lambda: nn.embedding_lookup([unknown(2, 3), unknown(2, 3)], [0], "random"), ArgumentError, ["no partition strategy"]),
    (lambda: tf.scatter_add(unknown(3), [0], 1.0), ArgumentError, ["scatter_add", "is not a variable", "tensor_scatter_add"]),
    (lambda: tf.confusion_matrix(unknown(2, dtype=tf.int32), [0, 1]), ArgumentError, ["give num_classes"]),
])
def test_bad_input_is_named(make, error, words):
    with pytest.raises(GraphcError) as caught:
        make()
    assert isinstance(caught.value, error)
    for word in words:
        assert word in str(caught.value), str(caught.value)
