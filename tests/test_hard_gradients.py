"""CORRECTNESS.md, "Gradients at hard points": kinks, ties, infinities, NaN; elementwise and composite."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import graphc.functions.math as f
from graphc import losses, nn
from graphc.errors import ArgumentError, RunError
from graphc.functions.gathering import gather, scatter_nd
from graphc.functions.linalg import matmul
from graphc.functions.matrices import norm
from graphc.functions.running import cumprod
from graphc.functions.segments import unsorted_segment_sum
from graphc.functions.special import erfinv, lgamma, xlog1py
from graphc.ir.container import Graph
from graphc.ir.graph import capture
from graphc.ir.interpreter import interpret
from graphc.ir.node import INPUT, apply
from graphc.ir.types import TensorType, as_dtype
from graphc.ops import composite
from graphc.ops.gather import gather_rows
from graphc.ops.grad import gradients
from graphc.ops.reduce import reduce_max, reduce_min, reduce_prod, reduce_sum
from graphc.passes.differentiate import differentiate
from graphc.passes.manager import Instrument, changed, run_passes
from graphc.passes.pipeline import PIPELINE
from graphc.testing.compiled import CompiledGraph

INF, NAN = float("inf"), float("nan")


def feed(array, name="x"):
    """An input of the current graph that takes values like `array`."""
    type_ = TensorType(as_dtype(array.dtype), array.shape)
    return apply(INPUT, (), {"type": type_, "role": "feed", "variable": None}, name=name)


def interpreted(fetches, feeds):
    """The values of `fetches` for a dict of inputs and arrays, by the ops' NumPy rules."""
    graph = differentiate(capture("test", fetches, list(feeds)))
    values = {node.name: np.asarray(value) for node, value in feeds.items()}  # more than the graph needs, perhaps
    return interpret(graph, [values[node.name] for node in graph.inputs])


def compiled(fetches, feeds):
    """The same by native code, all passes included."""
    graph = capture("test", fetches, list(feeds))
    values = {node.name: np.asarray(value) for node, value in feeds.items()}
    return CompiledGraph(graph)([values[node.name] for node in graph.inputs])


class EachPass(Instrument):
    """The values of a graph after each pass that changed it, by the ops' NumPy rules: pass -> values."""

    def __init__(self, values):
        self.values, self.found = values, {}

    def after(self, pass_, before, after, properties, seconds):
        if "no_grad" in properties and changed(before, after):
            self.found[pass_.name] = interpret(after, self.values)


def after_each_pass(fetches, feeds):
    """The values after the last pass; those after all other ones are the same."""
    graph = capture("test", fetches, list(feeds))
    values = {node.name: np.asarray(value) for node, value in feeds.items()}
    each = EachPass([values[node.name] for node in graph.inputs])
    run_passes(graph, PIPELINE, [each])
    first = interpret(differentiate(graph), each.values)
    for name, found in each.found.items():
        for a, b in zip(found, first, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-14 if b.dtype == np.float64 else 1e-6, err_msg=name)
    return list(each.found.values())[-1] if each.found else first


EVALUATORS = [interpreted, compiled]


@pytest.fixture(params=EVALUATORS, ids=lambda e: e.__name__)
def evaluate(request):
    """A way to run a graph: (fetches, {input: array}) -> arrays."""
    return request.param


def value_and_gradients(evaluate, function, arrays, dtype):
    """(value, gradient of its sum by each input), all as arrays; None where an input is not connected."""
    with Graph().as_default():
        inputs = [feed(np.asarray(a, dtype)) for a in arrays]
        value = function(*inputs)
        found = gradients(value, inputs)
        live = [g for g in found if g is not None]
        results = iter(evaluate([value, *live], {i: np.asarray(a, dtype) for i, a in zip(inputs, arrays, strict=True)}))
        return next(results), [None if g is None else next(results) for g in found]


@dataclass
class Row:
    """A row of the table: a function, its inputs, what its value and its gradients must be."""

    name: str
    function: object
    inputs: list
    value: object
    gradients: list


def reduced(function, **more):
    """A composite over all axes of one input."""
    return lambda x: function(x, tuple(range(len(x.shape))), **more)


ROWS = [
    Row("relu", nn.relu, [[-1, 0, 2]], [0, 0, 2], [[0, 0, 1]]),
    Row("relu of NaN", nn.relu, [[NAN]], [NAN], [[0]]),
    Row("relu of infinities", nn.relu, [[-INF, INF]], [0, INF], [[0, 1]]),
    Row("relu6", nn.relu6, [[-1, 0, 3, 6, 7, NAN]], [0, 0, 3, 6, 6, NAN], [[0, 0, 1, 0, 0, 0]]),
    Row("leaky_relu", nn.leaky_relu, [[-5, 0, 2, NAN]], [-1, 0, 2, NAN], [[0.2, 0.2, 1, 0.2]]),
    Row("abs", f.abs, [[-2, 0, 3]], [2, 0, 3], [[-1, 0, 1]]),
    Row("sign", f.sign, [[-2, 0, 3, NAN]], [-1, 0, 1, NAN], [[0, 0, 0, 0]]),
    Row("sqrt at 0", f.sqrt, [[0]], [0], [[INF]]),
    Row("log at 0", f.log, [[0]], [-INF], [[INF]]),
    Row("pow constant 2", lambda x: x ** 2, [[0, -3]], [0, 9], [[0, -6]]),
    Row("pow constant 0", lambda x: x ** 0, [[0, -3, INF]], [1, 1, 1], [[0, 0, 0]]),
    Row("pow constant 1", lambda x: x ** 1, [[0, -3]], [0, -3], [[1, 1]]),
    Row("pow constant 3", lambda x: x ** 3, [[-2, 0]], [-8, 0], [[12, 0]]),
    Row("pow constant 0.5", lambda x: x ** 0.5, [[-2, 0]], [NAN, 0], [[NAN, INF]]),
    Row("pow constants", lambda x: f.pow(x, [2, 0, 3, 0.5]), [[0, 0, -2, 0]], [0, 1, -8, 0], [[0, 0, 12, INF]]),
    Row("pow of tensors", f.pow, [[0, 0, -2, -2, 0, NAN], [2, 0, 3, 0.5, 0.5, 0]], [0, 1, -8, NAN, 0, 1],
        [[0, 0, 12, NAN, INF, 0], [0, 0, 0, NAN, 0, 0]]),
    Row("norm at 0", reduced(composite.norm), [[0, 0]], 0, [[0, 0]]),
    Row("norm of order 1 at 0", reduced(composite.norm, order=1), [[0, 0]], 0, [[0, 0]]),
    Row("norm of order 3 at 0", reduced(composite.norm, order=3), [[0, 0]], 0, [[0, 0]]),
    Row("norm of NaN", reduced(composite.norm), [[0, NAN]], NAN, [[NAN, NAN]]),
    Row("sqrt of sum of squares at 0", lambda x: f.sqrt(reduce_sum(x * x, axes=(0,))), [[0, 0]], 0, [[NAN, NAN]]),
    Row("std of equal values", reduced(composite.reduce_std), [[3, 3, 3]], 0, [[0, 0, 0]]),
    Row("maximum", f.maximum, [[1, 2, 3], [2, 2, 2]], [2, 2, 3], [[0, 1, 1], [1, 0, 0]]),
    Row("minimum", f.minimum, [[1, 2, 3], [2, 2, 2]], [1, 2, 2], [[1, 1, 0], [0, 0, 1]]),
    Row("maximum of NaN", f.maximum, [[NAN, 1], [1, NAN]], [NAN, NAN], [[0, 0], [1, 1]]),
    Row("minimum of NaN", f.minimum, [[NAN, 1], [1, NAN]], [NAN, NAN], [[0, 0], [1, 1]]),
    Row("where with 1/x at 0", lambda x: f.where(x > 0, 1 / x, 0), [[0, 2]], [0, 0.5], [[NAN, -0.25]]),
    Row("safe_where with 1/x at 0", lambda x: f.safe_where(x > 0, lambda v: 1 / v, x, 0), [[0, 2]], [0, 0.5],
        [[0, -0.25]]),
    Row("logsumexp", reduced(composite.reduce_logsumexp), [[0, 0]], np.log(2), [[0.5, 0.5]]),
    Row("logsumexp large", reduced(composite.reduce_logsumexp), [[1000, 0]], 1000, [[1, 0]]),
    Row("logsumexp(-inf, 0)", reduced(composite.reduce_logsumexp), [[-INF, 0]], 0, [[0, 1]]),
    Row("logsumexp(-inf, -inf)", reduced(composite.reduce_logsumexp), [[-INF, -INF]], -INF, [[NAN, NAN]]),
    Row("logsumexp(inf, 0)", reduced(composite.reduce_logsumexp), [[INF, 0]], INF, [[NAN, 0]]),
    Row("logsumexp of NaN", reduced(composite.reduce_logsumexp), [[NAN, 0]], NAN, [[NAN, NAN]]),
    Row("softmax large", nn.softmax, [[1000, 0]], [1, 0], [[0, 0]]),
    Row("log_softmax large", lambda x: nn.log_softmax(x) * [1, 0], [[1000, 0]], [0, 0], [[0, 0]]),
    Row("log_softmax large, other", lambda x: nn.log_softmax(x) * [0, 1], [[1000, 0]], [0, -1000], [[-1, 1]]),
    Row("softmax(-inf, -inf)", nn.softmax, [[-INF, -INF]], [NAN, NAN], [[NAN, NAN]]),
    Row("clip at its edges", lambda x: f.clip_by_value(x, -1, 1), [[-2, -1, 0, 1, 2, NAN]], [-1, -1, 0, 1, 1, NAN],
        [[0, 1, 1, 1, 0, 1]]),
    Row("clip to tensors", f.clip_by_value, [[-2, -1, 2, 0], [-1, -1, -1, 3], [1, 1, 1, 2]], [-1, -1, 1, 3],
        [[0, 1, 0, 0], [1, 0, 0, 1], [0, 0, 1, 0]]),
    Row("mean of nothing", reduced(composite.reduce_mean), [np.zeros((0, 3))], NAN, [np.zeros((0, 3))]),
    Row("sum of nothing", lambda x: reduce_sum(x, axes=(0,)), [np.zeros((0, 3))], [0, 0, 0], [np.zeros((0, 3))]),
    Row("max tie of two", lambda x: reduce_max(x, axes=(0,)), [[2, 2, 1]], 2, [[0.5, 0.5, 0]]),
    Row("min tie of two", lambda x: reduce_min(x, axes=(0,)), [[1, 2, 1]], 1, [[0.5, 0, 0.5]]),
    Row("max of NaN", lambda x: reduce_max(x, axes=(0,)), [[1, NAN]], NAN, [[NAN, NAN]]),
    Row("max of nothing", lambda x: reduce_max(x, axes=(0,)), [np.zeros((0, 3))], [-INF] * 3, [np.zeros((0, 3))]),
    Row("product with a zero", lambda x: reduce_prod(x, axes=(0,)), [[0, 2, 3]], 0, [[6, 0, 0]]),
    Row("product with two zeros", lambda x: reduce_prod(x, axes=(0,)), [[0, 0, 3]], 0, [[0, 0, 0]]),
    Row("cumprod(2, 0, 3)", cumprod, [[2, 0, 3]], [2, 0, 0], [[1, 8, 0]]),
    Row("gather with duplicates", lambda x: gather(x, [0, 1, 0]), [[5, 7]], [5, 7, 5], [[2, 1]]),
    Row("max_pool tie", lambda x: nn.max_pool1d(x, 2, 2, "VALID"), [[[[3], [3], [1], [2]]]], [[[3], [2]]],
        [[[[1], [0], [0], [1]]]]),
    Row("max_pool of negative numbers", lambda x: nn.max_pool1d(x, 3, 2, "SAME"), [[[[-5], [-7], [-6], [-9]]]], [[[-5], [-6]]],
        [[[[1], [0], [1], [0]]]]),
    Row("avg_pool counts no padding", lambda x: nn.avg_pool1d(x, 3, 2, "SAME"), [[[[-5], [-7], [-6], [-9]]]], [[[-6], [-7.5]]],
        [[[[1 / 3], [1 / 3], [1 / 3 + 0.5], [0.5]]]]),
    Row("convolution of no images", lambda x, w: nn.conv2d(x, w, 2, "SAME"), [np.zeros((0, 5, 5, 2)), np.ones((3, 3, 2, 4))],
        np.zeros((0, 3, 3, 4)), [np.zeros((0, 5, 5, 2)), np.zeros((3, 3, 2, 4))]),
    Row("product of no rows by a tensor", matmul, [np.zeros((0, 3)), np.ones((3, 2))], np.zeros((0, 2)),
        [np.zeros((0, 3)), np.zeros((3, 2))]),
    Row("product of no rows", lambda x: matmul(x, np.ones((3, 2))), [np.zeros((0, 3))], np.zeros((0, 2)), [np.zeros((0, 3))]),
    Row("norm, public, at 0", norm, [[0, 0]], 0, [[0, 0]]),
    Row("norm of a matrix, public, at 0", lambda x: norm(x, axis=[0, 1]), [np.zeros((2, 2))], 0, [np.zeros((2, 2))]),
    Row("l2_loss at 0", nn.l2_loss, [[0, 0]], 0, [[0, 0]]),
    Row("layer norm of equal values", lambda x: nn.layer_norm(x), [[3, 3, 3]], [0, 0, 0], [[0, 0, 0]]),
    Row("masked softmax, all masked", lambda x: nn.masked_softmax(x, [False, False]), [[INF, NAN]], [0, 0], [[0, 0]]),
    Row("lgamma at its poles and roots", lgamma, [[0, -1, 1, 2]], [INF, INF, 0, 0],
        [[-INF, NAN, -np.euler_gamma, 1 - np.euler_gamma]]),
    Row("erfinv at its ends", erfinv, [[-1, 0, 1]], [-INF, 0, INF], [[INF, np.sqrt(np.pi) / 2, INF]]),
    Row("xlog1py(0, -1)", xlog1py, [[0, 0, 2], [-1, NAN, 0]], [0, 0, 0], [[0, 0, 0], [0, 0, 2]]),
    Row("xlogy(0, 0)", f.xlogy, [[0, 0, 2], [0, NAN, 1]], [0, 0, 0], [[0, 0, 0], [0, 0, 2]]),
    Row("xdivy(0, 0)", f.xdivy, [[0, 2], [0, 1]], [0, 2], [[0, 1], [0, -2]]),
    Row("div_no_nan(1, 0)", f.div_no_nan, [[1, 0, 6], [0, 0, 2]], [0, 0, 3], [[0, 0, 0.5], [0, 0, -1.5]]),
    Row("atan2(0, 0)", f.atan2, [[0], [0]], [0], [[NAN], [NAN]]),
    Row("acos(1)", f.acos, [[1]], [0], [[-INF]]),
    Row("asin(1)", f.asin, [[1]], [np.pi / 2], [[INF]]),
    Row("elu", nn.elu, [[0, 1000, -1000]], [0, 1000, -1], [[1, 1, 0]]),
    Row("elu near 0", nn.elu, [[-1e-7]], [np.expm1(-1e-7)], [[np.exp(-1e-7)]]),
    Row("selu", nn.selu, [[0, 1000, -1000]], [0, 1050.7009873554805, -1.7580993408473766],
        [[1.0507009873554805, 1.0507009873554805, 0]]),
    Row("softplus", nn.softplus, [[1000, -1000, 0]], [1000, 0, np.log(2)], [[1, 0, 0.5]]),
    Row("sigmoid", f.sigmoid, [[-1000, 1000, 0]], [0, 1, 0.5], [[0, 0, 0.25]]),
    Row("tanh", f.tanh, [[-1000, 1000, 0]], [-1, 1, 0], [[0, 0, 1]]),
    Row("erf of NaN", f.erf, [[NAN, INF]], [NAN, 1], [[NAN, 0]]),
    Row("broadcast (3,1)*(1,4)", lambda x, y: x * y, [np.ones((3, 1)), np.ones((1, 4))], np.ones((3, 4)),
        [np.full((3, 1), 4), np.full((1, 4), 3)]),
    Row("broadcast ()*(2,3)", lambda x, y: x * y, [2, np.ones((2, 3))], np.full((2, 3), 2), [6, np.full((2, 3), 2)]),
    Row("broadcast (1,)*(5,)", lambda x, y: x * y, [[2], np.ones(5)], np.full(5, 2), [[5], np.full(5, 2)]),
    Row("broadcast a number", lambda x: f.maximum(x, 0.5), [np.zeros((2, 2))], np.full((2, 2), 0.5),
        [np.zeros((2, 2))]),
    Row("stop_gradient", lambda x: x * f.stop_gradient(x), [[3]], [9], [[3]]),
    Row("only stop_gradient", lambda x: f.stop_gradient(x) * 2, [[3]], [6], [None]),
    Row("floor", f.floor, [[1.5]], [1], [None]),
    Row("mean squared error of no rows", losses.mean_squared_error, [np.zeros((0, 2)), np.zeros((0, 2))], 0,
        [np.zeros((0, 2)), np.zeros((0, 2))]),
    Row("sigmoid cross entropy", lambda x: nn.sigmoid_cross_entropy_with_logits(labels=[0, 1, 1, 0], logits=x),
        [[0, 0, 1000, -1000]], [np.log(2), np.log(2), 0, 0], [[0.5, -0.5, 0, 0]]),
    Row("sigmoid cross entropy, wrong and sure",
        lambda x: nn.sigmoid_cross_entropy_with_logits(labels=[1, 0], logits=x), [[-1000, 1000]], [1000, 1000],
        [[-1, 1]]),
    Row("softmax cross entropy at p = 0", lambda x: nn.softmax_cross_entropy_with_logits(labels=[[0, 1]], logits=x),
        [[[1000, 0]]], [1000], [[[1, -1]]]),
    Row("softmax cross entropy by labels", lambda z, x: nn.softmax_cross_entropy_with_logits_v2(labels=z, logits=x),
        [[[0.5, 0.5]], [[0, 0]]], [np.log(2)], [np.full((1, 2), np.log(2)), [[0, 0]]]),
    Row("labels of TensorFlow 1 are constants",
        lambda z, x: nn.softmax_cross_entropy_with_logits(labels=z, logits=x), [[[0.5, 0.5]], [[0, 0]]], [np.log(2)],
        [None, [[0, 0]]]),
    Row("sparse softmax cross entropy at p = 0",
        lambda x: nn.sparse_softmax_cross_entropy_with_logits(labels=[1], logits=x), [[[1000, 0]]], [1000],
        [[[1, -1]]]),
    Row("sparse softmax cross entropy with -inf",
        lambda x: nn.sparse_softmax_cross_entropy_with_logits(labels=[1], logits=x), [[[-INF, 0]]], [0], [[[0, 0]]]),
    Row("batch norm of one sample",
        lambda x: nn.batch_normalization(x, *nn.moments(x, [0]), None, None, 1e-3), [[[1, -2, 3]]], [[0, 0, 0]],
        [[[0, 0, 0]]]),
    Row("huber at 0 and at delta", lambda x: losses.huber_loss([0, 0, 0], x, reduction="none"), [[0, 1, 3]],
        [0, 0.5, 2.5], [[0, 1, 1]]),
    Row("l2_normalize at 0", nn.l2_normalize, [[0, 0]], [0, 0], [[1e6, 1e6]]),
    Row("clip_by_norm at 0", lambda x: f.clip_by_norm(x, 1), [[0, 0]], [0, 0], [[1, 1]]),
]


@pytest.mark.parametrize(("evaluate", "dtype"), [
    (interpreted, "float64"), (interpreted, "float32"), (compiled, "float32"), (after_each_pass, "float64"),
    (after_each_pass, "float32")])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row(evaluate, row, dtype):
    check_row(row, dtype, *value_and_gradients(evaluate, row.function, row.inputs, dtype))


PLAIN = ("simplify", "thin_products", "fuse")  # left out: then each node is a kernel of its own


@pytest.mark.parametrize(("dtype", "skip"), [
    ("float64", ()), *(pytest.param(*case, marks=pytest.mark.slow) for case in (("float64", PLAIN), ("float32", PLAIN)))])
def test_all_rows_in_one_program(dtype, skip):
    """Compiled together, with the rewriting passes and without them."""
    values, fetches, counts = [], [], []
    with Graph().as_default():
        inputs = []
        for row in ROWS:
            given = [np.asarray(a, dtype) for a in row.inputs]
            own = [feed(a, f"x{len(inputs) + k}") for k, a in enumerate(given)]
            value = row.function(*own)
            slopes = gradients(value, own)
            counts.append([g is not None for g in slopes])
            fetches += [value, *(g for g in slopes if g is not None)]
            inputs += own
            values += given
        found = iter(CompiledGraph(capture("rows", fetches, inputs), skip)(values))
    for row, live in zip(ROWS, counts, strict=True):
        check_row(row, dtype, next(found), [next(found) if is_live else None for is_live in live])


def check_row(row, dtype, value, found):
    """The value and the gradients are those of the table."""
    tolerance = {"rtol": 1e-14 if dtype == "float64" else 1e-6, "atol": 0}
    assert value.dtype == dtype
    np.testing.assert_allclose(value, np.asarray(row.value, dtype), err_msg=row.name, **tolerance)
    for expected, got, given in zip(row.gradients, found, row.inputs, strict=True):
        if expected is None:
            assert got is None
        else:
            assert (got.dtype, got.shape) == (dtype, np.shape(given))
            np.testing.assert_allclose(got, np.asarray(expected, dtype), err_msg=row.name, **tolerance)


@pytest.mark.parametrize(("name", "function", "inputs"), [
    ("relu", nn.relu, [[-1, 0, 2]]), ("relu6", nn.relu6, [[-1, 0, 2]]), ("abs", f.abs, [[-1, 0, 2]]),
    ("sign", f.sign, [[-1, 0, 2]]), ("maximum", f.maximum, [[1, 2, 3], [2, 2, 2]]),
    ("minimum", f.minimum, [[1, 2, 3], [2, 2, 2]]), ("leaky_relu", nn.leaky_relu, [[-1, 0, 2]]),
    ("where", lambda x: f.where(x > 0, x, -x), [[-1, 0, 2]]),
    ("clip", lambda x: f.clip_by_value(x, -1, 1), [[-1, 0, 2]]),
    ("reduce_max", lambda x: reduce_max(x, axes=(0,)), [[-1, 2, 2]]),
    ("max_pool", lambda x: nn.max_pool1d(f.identity(x)[None, :, None], 2, 1, "SAME"), [[-1, 2, 2]]),
])
def test_gradient_of_gradient_is_zeros_not_none(evaluate, name, function, inputs):
    def first(*tensors):
        return gradients(function(*tensors), tensors[0])[0]
    _, found = value_and_gradients(evaluate, first, inputs, "float64")
    for got in found:
        np.testing.assert_array_equal(got, [0, 0, 0])


def test_a_constant_whole_exponent_has_gradient_0_itself(evaluate):
    with Graph().as_default():
        x, y = feed(np.zeros(1)), f.identity(3.0)
        exponent = y.inputs[0]
        slope, = gradients(f.pow(f.cast(x, "float32"), exponent), [exponent])
        np.testing.assert_array_equal(evaluate([slope], {x: np.array([-2.0])})[0], 0)


def test_integers_and_constants_have_no_gradient(evaluate):
    with Graph().as_default():
        x, n = feed(np.zeros(3)), feed(np.zeros(3, "int32"))
        assert gradients(x * f.to_double(n), [n, x])[0] is None
        assert gradients(f.to_int32(x), [x]) == [None]
        assert gradients(x * 2, [f.identity(1.0)]) == [None]


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_a_label_out_of_range_is_named(evaluate, dtype):
    with Graph().as_default():
        logits, labels = feed(np.zeros((2, 3))), feed(np.zeros(2, dtype))
        loss = nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        with pytest.raises(RunError, match=r"(?s)label value outside \[0, 3\).*7"):
            evaluate([loss], {logits: np.zeros((2, 3)), labels: np.array([1, 7], dtype)})


def test_a_negative_label_is_named(evaluate):
    with Graph().as_default():
        logits, labels = feed(np.zeros((2, 3))), feed(np.zeros(2, "int32"))
        loss = nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        with pytest.raises(RunError, match=r"(?s)label value outside \[0, 3\).*-1"):
            evaluate([loss], {logits: np.zeros((2, 3)), labels: np.array([-1, 2], "int32")})


def test_clip_with_bounds_crossed():
    with Graph().as_default(), pytest.raises(ArgumentError, match="lower bound is above the upper one"):
        f.clip_by_value(feed(np.zeros(2)), 1.0, -1.0)


def test_sparse_loss_has_no_scatter_in_its_gradient():
    """Its gradient is softmax minus one-hot, made by comparing coordinates: one kernel over the rows."""
    with Graph().as_default():
        logits, labels = feed(np.zeros((2, 3))), feed(np.zeros(2, "int64"))
        loss = nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        graph = differentiate(capture("test", gradients(loss, logits), [logits, labels]))
    assert not {node.op.kind.value for node in graph.nodes()} & {"scatter", "gather"}
    x = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    slope, = interpret(graph, [x, np.array([2, 0])])
    powers = np.exp(x)
    np.testing.assert_allclose(slope, powers / powers.sum(1, keepdims=True) - np.eye(3)[[2, 0]], rtol=1e-14)


def sum_of_segments(rows, picks):
    return unsorted_segment_sum(rows, picks, 40)


def scattered(rows, picks):
    return scatter_nd(picks[:, None], rows, [40, rows.shape[1]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_over_duplicates_give_the_same_bits_in_100_runs(dtype):
    """Gradients of gathers, sums of segments, scattered rows; one and two threads too: CompiledGraph compares them."""
    rng = np.random.default_rng(2)
    table, rows, picks = rng.normal(size=(40, 9)), rng.normal(size=(5000, 9)), rng.integers(0, 40, 5000)
    table, rows = table.astype(dtype), rows.astype(dtype)
    with Graph().as_default():
        tensors = [feed(table), feed(rows, "r"), feed(picks, "n")]
        slope, = gradients(f.square(gather_rows(tensors[0], tensors[2])), tensors[:1])
        program = CompiledGraph(capture("test", [slope, sum_of_segments(*tensors[1:]), scattered(*tensors[1:])], tensors))
    found = {tuple(v.tobytes() for v in program([table, rows, picks])) for _ in range(100)}
    assert len(found) == 1
    slope, segments, spread = (np.frombuffer(v, dtype).reshape(40, 9) for v in found.pop())
    tolerance = 1e-12 if dtype == "float64" else 1e-4
    np.testing.assert_allclose(slope, 2 * table * np.bincount(picks, minlength=40)[:, None], rtol=tolerance)
    want = np.zeros((40, 9))
    np.add.at(want, picks, rows.astype(np.float64))
    for got in (segments, spread):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=100 * tolerance)
