"""Normalisation, dropout and attention: against NumPy, interpreted and compiled; gradients against differences."""
import numpy as np
import pytest

import graphc as tf
from graphc import nn
from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.ir.graph import capture
from graphc.ir.interpreter import interpret
from graphc.ir.op import Kind
from graphc.passes.differentiate import differentiate
from graphc.passes.manager import run_passes
from graphc.passes.pipeline import PIPELINE
from graphc.testing import assert_equal_values, check_gradients
from graphc.testing.compiled import CompiledGraph

RNG = np.random.default_rng(7)
FLOATS = ["float32", "float64"]


def traced(function, arrays, named=()):
    """The graph of a function of tensors like `arrays`; those numbered in `named` have a named first size."""
    with tf.Graph().as_default():
        tensors = [tf.placeholder(a.dtype, [None if k in named and not axis else d for axis, d in enumerate(a.shape)])
                   for k, a in enumerate(arrays)]
        found = function(*tensors)
        return differentiate(capture("test", found if isinstance(found, list) else [found], tensors))


def evaluate(function, *arrays, named=()):
    """The results, interpreted; compiled ones must equal them."""
    graph = traced(function, arrays, named)
    expected = interpret(graph, arrays)
    got = CompiledGraph(graph)(list(arrays))
    for e, g in zip(expected, got, strict=True):
        assert (e.dtype, e.shape) == (g.dtype, g.shape)
        eps = 64 * np.finfo(g.dtype).eps if g.dtype.kind == "f" else 0
        np.testing.assert_allclose(g, e, rtol=eps, atol=eps)
    return expected


def normalised(x, axes, epsilon):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


# moments and batch normalisation ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
def test_moments_of_all_kinds(dtype):
    x, w = RNG.normal(3, 2, (5, 7)).astype(dtype), RNG.uniform(0, 2, (5, 1)).astype(dtype)

    def function(x, w):
        count, total, squares, shift = nn.sufficient_statistics(x, [0], shift=3.0)
        return [*nn.moments(x, [0]), *nn.moments(x, [1], keep_dims=True), *nn.weighted_moments(x, [0], w),
                *nn.normalize_moments(count, total, squares, shift),
                *nn.normalize_moments(*nn.sufficient_statistics(x, [0, 1], keepdims=True))]
    got = evaluate(function, x, w)
    x, w = x.astype(float), np.broadcast_to(w, x.shape).astype(float)
    mean = np.average(x, 0, w)
    expected = [x.mean(0), x.var(0), x.mean(1, keepdims=True), x.var(1, keepdims=True), mean,
                np.average((x - mean)**2, 0, w), x.mean(0), x.var(0), x.mean(keepdims=True), x.var(keepdims=True)]
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=2e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
def test_fused_batch_norm(data_format):
    x, scale, offset = RNG.normal(2, 3, (4, 3, 2, 5)), RNG.normal(size=5), RNG.normal(size=5)
    axes = (0, 1, 2)
    if data_format == "NCHW":
        x = np.moveaxis(x, -1, 1).copy()
        axes = (0, 2, 3)
    shape = [1, -1, 1, 1] if data_format == "NCHW" else [-1]

    def function(x, s, o):
        return [*nn.fused_batch_norm(x, s, o, data_format=data_format),
                *nn.fused_batch_norm(x, s, o, [0.0] * 5, [1.0] * 5, data_format=data_format, is_training=False),
                *nn.fused_batch_norm(x, s, o, [1.0] * 5, [2.0] * 5, data_format=data_format,
                                     exponential_avg_factor=0.1)[1:]]
    y, mean, variance, y0, m0, v0, moving_mean, moving_variance = evaluate(function, x, scale, offset, named=(0,))
    s, o = scale.reshape(shape), offset.reshape(shape)
    np.testing.assert_allclose(y, normalised(x, axes, 1e-3) * s + o, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(mean, x.mean(axes))
    np.testing.assert_allclose(variance, x.var(axes, ddof=1))
    np.testing.assert_allclose(y0, x / np.sqrt(1.001) * s + o)
    assert (m0 == 0).all()
    assert (v0 == 1).all()
    np.testing.assert_allclose(moving_mean, 0.9 + 0.1 * x.mean(axes))
    np.testing.assert_allclose(moving_variance, 1.8 + 0.1 * x.var(axes, ddof=1))


@pytest.mark.parametrize("dtype", FLOATS)
def test_batch_norm_of_one_sample_is_finite(dtype):
    x = np.array([[1, -2, 1e4]], dtype)

    def function(x):
        y, mean, variance = nn.fused_batch_norm(x, [1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
        return [y, variance, tf.gradients(y, x)[0]]
    y, variance, slope = evaluate(function, x)
    np.testing.assert_array_equal(y, [[4, 5, 6]])
    np.testing.assert_array_equal(variance, [0, 0, 0])
    np.testing.assert_array_equal(slope, [[0, 0, 0]])


def test_batch_norm_keeps_moving_averages():
    x = RNG.normal(3, 2, (8, 4)).astype("float32")
    with tf.Graph().as_default() as graph, tf.Session() as session:
        t, training = tf.placeholder(tf.float32, [None, 4]), tf.placeholder(tf.bool, [])
        mean, variance = tf.Variable(np.zeros(4, "f4"), trainable=False), tf.Variable(np.ones(4, "f4"), trainable=False)
        always = nn.batch_norm(t, mean, variance, training=True, momentum=0.75)
        updates = graph.get_collection(tf.GraphKeys.UPDATE_OPS)
        never, chosen = nn.batch_norm(t, mean, variance), nn.batch_norm(t, mean, variance, training=training)
        more = graph.get_collection(tf.GraphKeys.UPDATE_OPS)[2:]
        assert len(updates) == len(more) == 2
        session.run(tf.global_variables_initializer())
        got, _ = session.run([always, updates], {t: x})
        np.testing.assert_allclose(got, normalised(x.astype(float), 0, 1e-3), rtol=1e-4, atol=1e-5)
        moved = 0.25 * x.mean(0), 0.75 + 0.25 * x.var(0)
        np.testing.assert_allclose(session.run(mean), moved[0], rtol=1e-5)
        np.testing.assert_allclose(session.run(variance), moved[1], rtol=1e-5)
        expected = (x - moved[0]) / np.sqrt(moved[1] + 1e-3)
        np.testing.assert_allclose(session.run(never, {t: x}), expected, rtol=1e-4, atol=1e-5)
        got, _ = session.run([chosen, more], {t: np.full((1, 4), np.nan, "f4"), training: False})
        assert np.isnan(got).all()
        np.testing.assert_allclose(session.run(mean), moved[0], rtol=1e-5)  # a NaN outside training leaves no trace
        np.testing.assert_allclose(session.run(chosen, {t: x, training: True}), normalised(x.astype(float), 0, 1e-3),
                                   rtol=1e-4, atol=1e-5)


# the example's own moments ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
def test_layer_group_and_instance_norm(dtype):
    x, scale, offset = (a.astype(dtype) for a in (RNG.normal(1, 2, (3, 4, 5, 6)), RNG.normal(size=6), RNG.normal(size=6)))
    got = evaluate(lambda x, s, o: [
        nn.layer_norm(x, s, o), nn.layer_norm(x, axis=[1, 2, 3]), nn.group_norm(x, 2, s, o), nn.instance_norm(x, s, o),
        nn.group_norm(tf.transpose(x, [0, 3, 1, 2]), 3, s, o, data_format="NCHW")], x, scale, offset, named=(0,))
    x, s, o = x.astype(float), scale.astype(float), offset.astype(float)

    def grouped(x, groups):
        return normalised(x.reshape(3, 4, 5, groups, -1), (1, 2, 4), 1e-5).reshape(x.shape) * s + o
    expected = [normalised(x, (3,), 1e-5) * s + o, normalised(x, (1, 2, 3), 1e-5), grouped(x, 2),
                normalised(x, (1, 2), 1e-6) * s + o, np.moveaxis(grouped(x, 3), -1, 1)]
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-3 if dtype == "float32" else 1e-10, atol=1e-5 if dtype == "float32" else 0)


def test_local_response_normalization():
    x = RNG.normal(size=(2, 3, 7))
    got, root = evaluate(lambda x: [nn.lrn(x, 2, 1.5, 0.3, 0.75), nn.local_response_normalization(x)], x)
    for value, (radius, bias, alpha, beta) in ((got, (2, 1.5, 0.3, 0.75)), (root, (5, 1, 1, 0.5))):
        total = np.stack([(x[..., max(c - radius, 0):c + radius + 1]**2).sum(-1) for c in range(7)], -1)
        np.testing.assert_allclose(value, x / (bias + alpha * total)**beta, rtol=1e-12)


@pytest.mark.parametrize("function", [
    lambda x: nn.layer_norm(x, epsilon=0.1), lambda x: nn.group_norm(x, 2, epsilon=0.1), lambda x: nn.lrn(x, 1),
    lambda x: nn.fused_batch_norm(x, [1.0, 2, 3, 4], [1.0, 2, 3, 4], epsilon=0.1)[0],
    lambda x: nn.instance_norm(x, epsilon=0.1), lambda x: nn.weighted_moments(x, [0], [[[2.0]], [[1.0]]])[1],
    lambda x: nn.scaled_dot_product_attention(x, x, x, causal=True),
    lambda x: nn.log_poisson_loss([[[2.0] * 4] * 3] * 2, x, compute_full_loss=True),
])
def test_gradients(function):
    check_gradients(function, RNG.normal(size=(2, 3, 4)), order=1)


# dropout ----------------------------------------------------------------------------------------------


def test_the_backward_pass_draws_the_mask_again():
    """No region stores or reads a mask."""
    x, w = RNG.normal(size=(33, 16)).astype("f4"), RNG.normal(size=(16, 8)).astype("f4")

    def function(x, w):
        h = nn.dropout(x @ w, rate=0.5, seed=3)
        return [h, tf.gradients(tf.reduce_sum(tf.square(h @ tf.transpose(w))), w)[0]]
    graph = traced(function, [x, w], named=(0,))
    fused = run_passes(graph, PIPELINE)
    regions = [n for n in fused.nodes() if n.op.kind is Kind.REGION]
    drawing = [r for r in regions if any(n.op.kind is Kind.RANDOM for n in r.attrs["body"].nodes())]
    assert len(drawing) == 2
    assert not any(i.type.dtype.is_bool or i.op.kind is Kind.RANDOM for r in regions for i in r.attrs["body"].inputs)
    expected, got = interpret(graph, [x, w]), CompiledGraph(graph)([x, w])
    for e, g in zip(expected, got, strict=True):
        assert_equal_values(g, e, magnitude=1e3, terms=64)


def test_dropout_gradient_has_the_mask_of_the_value():
    def function(x):
        y = nn.dropout(x, 0.25, seed=3)
        return [y, tf.gradients(y, x)[0]]
    y, slope = evaluate(function, np.ones((40, 9)))
    np.testing.assert_array_equal(y, slope)
    assert {0, 4} == set(np.unique(y))


# attention --------------------------------------------------------------------------------------------


def attend(q, k, v, allowed, scale):
    scores = np.where(allowed, q @ np.swapaxes(k, -1, -2) * scale, -np.inf)
    with np.errstate(all="ignore"):
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        return np.nan_to_num(powers / powers.sum(-1, keepdims=True)) @ v


@pytest.mark.parametrize("dtype", FLOATS)
def test_attention(dtype):
    q, k, v = (RNG.normal(size=s).astype(dtype) for s in ((2, 5, 4), (2, 6, 4), (2, 6, 3)))
    mask = RNG.random((2, 5, 6)) < 0.6
    mask[0, 2] = mask[1, 0] = False
    got = evaluate(lambda q, k, v, m: [
        nn.scaled_dot_product_attention(q, k, v), nn.scaled_dot_product_attention(q, k, v, mask=m, scale=2.0),
        nn.scaled_dot_product_attention(q, k, v, causal=True),
        nn.scaled_dot_product_attention(q, k, v, mask=tf.where(m, 0 * tf.cast(m, dtype), -tf.cast(m, dtype) - 30))],
        q, k, v, mask)
    lower = np.tri(5, 6, dtype=bool)
    expected = [attend(q, k, v, True, 0.5), attend(q, k, v, mask, 2.0), attend(q, k, v, lower, 0.5)]
    for g, e in zip(got, expected, strict=False):
        np.testing.assert_allclose(g, e, rtol=1e-4 if dtype == "float32" else 1e-12, atol=1e-6)
    assert (got[1][0, 2] == 0).all()
    assert (got[1][1, 0] == 0).all()
    kept = mask.any(-1)
    np.testing.assert_allclose(got[3][kept], attend(q, k, v, mask, 0.5)[kept], rtol=1e-4, atol=1e-6)


def test_a_row_without_any_place_has_value_and_gradient_0():
    x = np.array([[1.0, np.nan, 3], [1, 2, np.inf]])
    mask = np.array([[False, False, False], [True, True, False]])

    def function(x, mask):
        y = nn.masked_softmax(x, mask)
        return [y, tf.gradients(y * [1.0, 2.0, 3.0], x)[0]]
    y, slope = evaluate(function, x, mask)
    p = 1 / (1 + np.e)
    np.testing.assert_allclose(y, [[0, 0, 0], [p, 1 - p, 0]], rtol=1e-12)
    np.testing.assert_allclose(slope, [[0, 0, 0], [-p * (1 - p), p * (1 - p), 0]], rtol=1e-12)


def test_large_products_do_not_overflow():
    q = np.full((1, 3, 2), 1e4, "float32")
    y, = evaluate(lambda q: nn.scaled_dot_product_attention(q, q, q), q)
    np.testing.assert_allclose(y, q)


def test_multi_head_attention():
    x, keys = RNG.normal(size=(2, 3, 8)).astype("f4"), np.array([[True, True, False], [True, True, True]])
    with tf.Graph().as_default(), tf.Session() as session:
        t, m = tf.placeholder(tf.float32, [None, 3, 8]), tf.placeholder(tf.bool, [None, 3])
        y = nn.multi_head_attention(t, num_heads=2, mask=m, name="attend")
        again = nn.multi_head_attention(t, num_heads=2, mask=m, name="attend", reuse=True)
        other = nn.multi_head_attention(t, num_heads=4, output_size=5)
        assert len(tf.trainable_variables("attend")) == 8
        assert len(tf.trainable_variables("multi_head_attention")) == 8
        slopes = tf.gradients(y, tf.trainable_variables("attend"))
        assert None not in slopes
        session.run(tf.global_variables_initializer())
        got, same, last = session.run([y, again, other], {t: x, m: keys})
        weights = {v.name: session.run(v) for v in tf.trainable_variables("attend")}
    assert last.shape == (2, 3, 5)
    np.testing.assert_array_equal(got, same)

    def project(x, role):
        return x @ weights[f"attend/{role}/kernel"] + weights[f"attend/{role}/bias"]
    heads = [project(x, role).reshape(2, 3, 2, 4).swapaxes(1, 2) for role in ("query", "key", "value")]
    found = attend(*heads, keys[:, None, None], 0.5).swapaxes(1, 2).reshape(2, 3, 8)
    np.testing.assert_allclose(got, project(found, "output"), rtol=1e-4, atol=1e-5)


# errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("error", "call", "message"), [
    (DTypeError, lambda x, n: nn.layer_norm(n), r"moments: int32 is not accepted"),
    (ArgumentError, lambda x, n: nn.group_norm(x, 3), r"(?s)group_norm: the channels do not divide.*4 channels into 3"),
    (ArgumentError, lambda x, n: nn.fused_batch_norm(x, 1.0, 0.0, is_training=False), r"needs mean and variance"),
    (ArgumentError, lambda x, n: nn.fused_batch_norm(x, 1.0, 0.0, data_format="HWCN"), r"(?s)'HWCN' is unknown.*NHWC"),
    (DTypeError, lambda x, n: nn.lrn(n), r"local_response_normalization: it takes floats"),
    (ShapeError, lambda x, n: nn.scaled_dot_product_attention(x[0], x, x), r"at least 2 axes"),
    (DTypeError, lambda x, n: nn.scaled_dot_product_attention(x, x, x, mask=n), r"the mask must be bool or float"),
    (ShapeError, lambda x, n: nn.multi_head_attention(x), r"the operands have 3 axes"),
    (ArgumentError, lambda x, n: nn.multi_head_attention(x[None], num_heads=3), r"(?s)does not divide.*4 into 3 heads"),
])
def test_bad_arguments_are_named(error, call, message):
    with tf.Graph().as_default():
        x, n = tf.placeholder(tf.float32, [2, 4], name="x"), tf.placeholder(tf.int32, [2, 2], name="n")
        with pytest.raises(error, match=message) as caught:
            call(x, n)
    assert "test_normalization.py" in str(caught.value)
