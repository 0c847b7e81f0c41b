"""Attention in a training step: the loss stands between its two passes, and no matrix of scores is kept for the second one."""
import math

import numpy as np
import pytest

import graphc as tf
from graphc import nn
from graphc.codegen import again
from graphc.codegen.build import lower
from graphc.codegen.control import all_calls, root
from graphc.compiler import captured
from graphc.config import options
from graphc.ir.interpreter import interpret
from graphc.passes.manager import run_passes
from graphc.passes.pipeline import PIPELINE, SEMANTICS
from graphc.testing.compiled import CompiledGraph

COUNTS = 1, 2, 5    # threads


@pytest.fixture(autouse=True)
def seeded(fresh_graph):
    tf.set_random_seed(1)


@pytest.fixture
def all_sizes(monkeypatch):
    """Long rows are computed again however few there are."""
    monkeypatch.setattr(again, "LARGE_BYTES", 0)


def padded(q, k, v, mask):
    return nn.scaled_dot_product_attention(q, k, v, mask=mask)


def causal(q, k, v, mask):
    return nn.scaled_dot_product_attention(q, k, v, causal=True)


def both(q, k, v, mask):
    return nn.scaled_dot_product_attention(q, k, v, mask=mask, causal=True)


def plain(q, k, v, mask):
    return tf.matmul(nn.softmax(tf.matmul(q, k, transpose_b=True) / math.sqrt(16)), v)


def dropped(q, k, v, mask):
    return nn.scaled_dot_product_attention(q, k, v, mask=mask, dropout_rate=0.3, seed=5)


def step(leads, queries, keys, dtype, attend, order="qkvw"):
    """(feeds, fetches) of a step: attention, a layer, the loss and gradients in this order."""
    q, k, v = (tf.placeholder(dtype, [*leads, n, 16], name=x) for x, n in (("q", queries), ("k", keys), ("v", keys)))
    mask = tf.placeholder(tf.bool, [*leads, 1, keys], name="mask")
    target, w = tf.placeholder(dtype, [*leads, queries, 16], name="target"), tf.placeholder(dtype, [16, 16], name="w")
    loss = tf.reduce_mean(tf.square(tf.tensordot(attend(q, k, v, mask), w, 1) - target), name="loss")
    sources = {"q": q, "k": k, "v": v, "w": w}
    return [q, k, v, mask, target, w], [loss, *tf.gradients(loss, [sources[x] for x in order])]


def values(leads, queries, keys, seed=0):
    rng = np.random.default_rng(seed)
    some = rng.random((*leads, 1, keys)) < 0.7
    some[(0,) * len(leads)] = not leads     # of the first there is nothing to attend to
    return [*(rng.standard_normal((*leads, n, 16)) for n in (queries, keys, keys)), some,
            rng.standard_normal((*leads, queries, 16)), rng.standard_normal((16, 16)) / 4]


class Trained:
    """A step compiled, and as the interpreter sees it."""

    def __init__(self, feeds, fetches):
        self.graph = captured("step", fetches, feeds)
        self.compiled, self.meant = CompiledGraph(self.graph), run_passes(self.graph, SEMANTICS)

    def check(self, feeds, tolerance) -> None:
        feeds = [np.asarray(v, i.type.dtype.numpy) for v, i in zip(feeds, self.meant.inputs, strict=True)]
        for a, b in zip(self.compiled(feeds, COUNTS), interpret(self.meant, feeds), strict=True):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)

    @property
    def memory(self):
        return self.compiled.program.memory


def largest(graph):
    """The bytes of the largest buffer that is not a thread's own."""
    steps = lower(run_passes(graph, PIPELINE))[0].steps
    return max(b.bytes for call in all_calls(steps) for b in map(root, call.buffers) if not b.per_thread)


@pytest.mark.parametrize(("leads", "dtype", "attend"), [
    ((), tf.float64, padded), ((2,), tf.float32, both), ((2, 3), tf.float64, plain), ((2,), tf.float64, dropped)])
def test_a_step_of_known_sizes(leads, dtype, attend, all_sizes):
    trained = Trained(*step(leads, 301, 271, dtype, attend))
    assert largest(trained.graph) < math.prod(leads) * 301 * 271 * dtype.size, "less than a matrix of scores"
    trained.check(values(leads, 301, 271), 2e-4 if dtype is tf.float32 else 1e-10)


@pytest.mark.parametrize(("leads", "dtype", "attend", "order"), [
    ((2,), tf.float32, padded, "qkvw"), ((2, 3), tf.float64, causal, "vqkw"), ((2,), tf.float64, plain, "wkqv"),
    ((2,), tf.float64, dropped, "kvqw")])
def test_a_step_of_unknown_sizes(leads, dtype, attend, order):
    trained = Trained(*step([f"d{k}" for k in range(len(leads))], "Q", "K", dtype, attend, order))
    for queries, keys in ((301, 280), (1, 5), (64, 3), (0, 2), (129, 1), (257, 513)):
        trained.check(values(leads, queries, keys), 2e-4 if dtype is tf.float32 else 1e-10)


@pytest.mark.parametrize("attend", [padded, causal, both, plain, dropped])
def test_the_memory_of_a_step_grows_with_the_length_not_with_its_square(attend):
    memory = Trained(*step(["B"], "T", "T", tf.float32, attend)).memory
    short, long, longer = (memory.bytes(B=4, T=t) for t in (1 << 14, 1 << 15, 1 << 16))
    assert long < 2.01 * short and longer < 2.01 * long
    assert longer < 4 * (1 << 16) * (1 << 16), "less than the scores of one example"


def test_every_layer_of_a_network_computes_its_own_weights_again():
    x, w = tf.placeholder(tf.float64, ["B", "T", 16], name="x"), tf.placeholder(tf.float64, [16, 16], name="w")
    y = x
    for _ in range(3):
        projected = tf.tensordot(y, w, 1)
        y = y + tf.tanh(nn.scaled_dot_product_attention(projected, y * 0.5, tf.tensordot(tf.sin(y), w, 1), causal=True))
        y = nn.l2_normalize(y, axis=2)
    loss = tf.reduce_mean(y * tf.cumsum(y, axis=1))
    trained = Trained([x, w], [loss, *tf.gradients(loss, [x, w])])
    assert trained.memory.bytes(B=2, T=1 << 15) < 2.01 * trained.memory.bytes(B=2, T=1 << 14)
    for size in (1, 50, 129):
        rng = np.random.default_rng(0)
        trained.check([rng.standard_normal((2, size, 16)), rng.standard_normal((16, 16)) / 4], 1e-9)


@pytest.mark.parametrize(("leads", "queries", "keys", "said"), [
    (["B"], 300, 255, "stored for a later loop: 306000*B bytes, rows of 255 from 16; rows of 256 and more are computed again"),
    ([3], 300, 300, "stored for a later loop: 1080000 bytes, rows of 300 from 16; 33554432 bytes and more are computed again"),
    (["B"], 300, 256, "computed again in a later loop instead of stored: 307200*B bytes, rows of 256 from 16"),
    (["B"], "T", "T", "computed again in a later loop instead of stored: 4*B*T*T bytes, rows of T from 16")])
def test_short_rows_and_few_bytes_are_stored(leads, queries, keys, said, monkeypatch, capsys):
    monkeypatch.setattr(options, "explain", ("memory",))
    Trained(*step(leads, queries, keys, tf.float32, padded))
    line, = (line for line in capsys.readouterr().err.split("\n") if "later loop" in line)
    assert line.startswith("graphc: memory: ") and line.endswith(f" is {said}")


def test_weights_that_somebody_fetches_are_stored(all_sizes):
    feeds, _ = step((2,), 301, 271, tf.float64, plain)
    q, k, v, _, target, _ = feeds
    weights = nn.softmax(tf.matmul(q, k, transpose_b=True))
    loss = tf.reduce_mean(tf.square(tf.tanh(tf.matmul(weights, v)) - target))
    trained = Trained(feeds, [weights, loss, *tf.gradients(loss * loss, [q, k, v])])
    trained.check(values((2,), 301, 271), 1e-10)


def test_a_projection_that_is_made_late_does_not_keep_the_scores():
    x, w = tf.placeholder(tf.float64, [2, 301, 16]), [tf.placeholder(tf.float64, [16, 16]) for _ in range(3)]
    q, k, v = (tf.tensordot(x, m, 1) for m in w)
    trained = Trained([x, *w], [plain(q, k, v, None)])
    assert largest(trained.graph) < 2 * 301 * 301 * 8, "values are projected after the softmax"
    rng = np.random.default_rng(0)
    trained.check([rng.standard_normal((2, 301, 16)), *(rng.standard_normal((16, 16)) / 4 for _ in w)], 1e-10)
