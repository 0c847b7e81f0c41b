"""Loops over rows that make sums down the columns on their way: what the interpreter says, the same bits on any threads."""
import numpy as np
import pytest

import graphc as tf
from graphc.codegen import column_walks, loops
from graphc.codegen.build import lower
from graphc.codegen.kernel import LoopKernel
from graphc.ir.graph import capture
from graphc.ir.interpreter import interpret
from graphc.passes.manager import run_passes
from graphc.passes.pipeline import PIPELINE, SEMANTICS
from graphc.testing.compiled import CompiledGraph

pytestmark = pytest.mark.usefixtures("fresh_graph")


def layer(x, scale, offset):
    return tf.nn.layer_norm(x, scale, offset)


def root_mean_square(x, scale, offset):
    y = tf.nn.relu(x)
    return y * tf.rsqrt(tf.reduce_mean(tf.square(y), -1, keepdims=True) + 1e-3) * scale + offset


def batch(x, scale, offset):
    mean, variance = tf.nn.moments(x, list(range(x.shape.rank - 1)))
    return tf.nn.batch_normalization(x, mean, variance, offset, scale, 1e-3)


def softmax(x, scale, offset):
    return tf.nn.softmax(x * scale + offset)


def feeds_of(dtype, shape):
    return [tf.placeholder(dtype, s) for s in (shape, shape, shape[-1:], shape[-1:])]


def gradients(function, x, dy, scale, offset):
    y = function(x, scale, offset)
    return [y, *tf.gradients(y, [x, scale, offset], grad_ys=dy)]


def sums_on_the_way(graph) -> list[int]:
    """How many sums each kernel makes that makes some."""
    _, plan = lower(run_passes(graph, PIPELINE))
    return [len(r.call.kernel.sums) for r in plan.calls if isinstance(r.call.kernel, LoopKernel) and r.call.kernel.sums]


def check(fetches, feeds, sizes, sums, awkward=False):
    graph = capture("test", fetches, feeds)
    assert sums_on_the_way(graph) == sums
    compiled, meant = CompiledGraph(graph), run_passes(graph, SEMANTICS)
    rng = np.random.default_rng(0)
    for size in sizes:
        values = [rng.standard_normal([d if isinstance(d, int) else size for d in f.type.shape]) for f in feeds]
        if awkward:
            values[0][1, 2], values[1][size - 1, -1], values[1][3, 0] = np.nan, np.inf, -np.inf
        values = [v.astype(f.type.dtype.numpy) for v, f in zip(values, feeds, strict=True)]
        tolerance = (1e-5 if feeds[0].type.dtype is tf.float32 else 1e-13) * max(10, size)
        with np.errstate(all="ignore"):
            expected = interpret(meant, values)
        for a, b in zip(compiled(values, (1, 2)), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("function", "sums"), [(layer, [2]), (root_mean_square, [2]), (softmax, [2]), (batch, [1])])
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_gradients_of_scales(function, sums, dtype):
    feeds = feeds_of(dtype, [None, 37])
    check(gradients(function, *feeds), feeds, (0, 1, 7, 64, 65, 700), sums)
    feeds = feeds_of(dtype, [None, 3, 130])
    check(gradients(function, *feeds), feeds, (1, 50), sums)


@pytest.mark.parametrize("function", [layer, root_mean_square])
def test_numbers_that_are_none(function):
    """NaN and infinity reach their own column's sums only."""
    feeds = feeds_of(tf.float32, [None, 19])
    y, _, by_scale, by_offset = gradients(function, *feeds)
    check([y, by_scale, by_offset], feeds, (4, 200), [2], awkward=True)


def test_stores_past_the_caches(monkeypatch):
    """The rows' results bypass the caches, from the first whole line on; their sums do not."""
    feeds = feeds_of(tf.float32, [None, 301])
    data = [np.random.default_rng(1).standard_normal(s, np.float32) for s in ((90, 301), (90, 301), (301,), (301,))]
    found = CompiledGraph(capture("test", gradients(layer, *feeds), feeds))(data, (1, 2))
    monkeypatch.setattr(loops, "STREAM_BYTES", 1 << 12)
    others = CompiledGraph(capture("test", gradients(layer, *feeds), feeds))(data, (1, 2))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(found, others, strict=True))


def test_what_follows_from_the_sums():
    """An update by the gradient stays with the sums; what others need of the rows is still stored."""
    x, dy, scale, offset = feeds = feeds_of(tf.float32, [None, 40])
    y = layer(x, scale, offset)
    dx, by_scale, by_offset = tf.gradients(y, [x, scale, offset], grad_ys=dy)
    check([dx, scale - 0.1 * by_scale, offset * 2 - tf.sqrt(tf.abs(by_offset)) * 0.1, y * 2], feeds, (5, 300), [2])
    product = dy * tf.nn.softmax(x)
    check([product, tf.reduce_sum(product, 0)], feeds[:2], (5, 500), [1])


def test_small_rows_are_left():
    feeds = feeds_of(tf.float32, [8, 32])
    check(gradients(layer, *feeds), feeds, (1,), [])


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
@pytest.mark.parametrize("shape", [[None, 37], [None, 3, 130]])
def test_walks_down_the_columns(dtype, shape, monkeypatch):
    """Those of a large array go along its rows, one kernel for each; here any array is large."""
    monkeypatch.setattr(column_walks, "WALKED", 0)
    monkeypatch.setattr(column_walks, "WIDE_ROW", 1)
    feeds = feeds_of(dtype, shape)
    check([batch(feeds[0], *feeds[2:])], [feeds[0], *feeds[2:]], (0, 1, 7, 65, 300), [1, 1])
    sizes = (1, 65, 300)    # of nothing, the gradients divide 0 by 0 in another order
    check(gradients(batch, *feeds), feeds, sizes, [1, 1, 2, 1, 1])
    dear = tf.tanh(feeds[0])    # waits in the result's memory for the last walk
    check([batch(dear, *feeds[2:])], [feeds[0], *feeds[2:]], sizes, [1, 1])
    total = tf.reduce_sum(feeds[0] * feeds[1], list(range(len(shape) - 1)))
    check([total, tf.tanh(total) * feeds[2]], feeds[:3], (0, 1, 65, 300), [1])


def test_a_large_array():
    x = tf.placeholder(tf.float32, [4100, 260])
    scale = tf.placeholder(tf.float32, [260])
    check([batch(x, scale, scale), tf.reduce_sum(x, 0)], [x, scale], (0,), [1, 1])
