"""Loops that are shared out among threads: recurrent layers over parts of the batch, attention over parts of the scores."""
import math

import numpy as np
import pytest

import graphc as tf
from graphc import nn
from graphc.codegen.build import lower
from graphc.codegen.inplace import may_overwrite
from graphc.codegen.kernel import Access, Load, LoopKernel, Store
from graphc.codegen.lower import Buffer, Call
from graphc.compiler import captured, fed_variables
from graphc.ir.interpreter import interpret
from graphc.passes.manager import run_passes
from graphc.passes.pipeline import PIPELINE, SEMANTICS
from graphc.runtime.layout import RecordFlag
from graphc.testing.compiled import CompiledGraph

COUNTS = 1, 2, 5    # threads; of a few parts five threads leave some without any
cells = nn.rnn_cell


@pytest.fixture(autouse=True)
def seeded(fresh_graph):
    tf.set_random_seed(1)


class Pair:
    """A graph compiled, and as the interpreter sees it."""

    def __init__(self, fetches, feeds):
        feeds = [*feeds, *(v.handle for v in tf.trainable_variables())]
        graph = fed_variables(captured("test", fetches, feeds), feeds)
        self.compiled, self.meant = CompiledGraph(graph), run_passes(graph, SEMANTICS)

    @property
    def shares(self) -> int:
        return sum(r.kind == "share" for r in self.compiled.program.records)

    def check(self, values, tolerance) -> list:
        weights = [np.random.default_rng(k).standard_normal(tuple(i.type.shape)) / 4
                   for k, i in enumerate(self.meant.inputs[len(values):])]
        values = [np.asarray(v, i.type.dtype.numpy) for v, i in zip([*values, *weights], self.meant.inputs, strict=True)]
        got = self.compiled(values, COUNTS)
        for a, b in zip(got, interpret(self.meant, values), strict=True):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
        return got


def layer(cell, x, lengths):
    if cell == "both ways":
        outputs, _ = nn.bidirectional_dynamic_rnn(cells.GRUCell(20), cells.BasicRNNCell(20), x, lengths, dtype=x.dtype)
        return tf.concat(outputs, 2)
    made = {"lstm": lambda: cells.LSTMCell(20, dtype=x.dtype), "gru": lambda: cells.GRUCell(37, dtype=x.dtype),
            "rnn": lambda: cells.BasicRNNCell(37, dtype=x.dtype)}[cell]()
    return nn.dynamic_rnn(made, x, lengths, dtype=x.dtype)[0]


@pytest.mark.parametrize(("cell", "dtype", "scans"), [
    ("lstm", tf.float64, 2), ("gru", tf.float32, 2), ("rnn", tf.float32, 2), ("both ways", tf.float32, 4)])
def test_recurrent_layers_of_a_named_batch(cell, dtype, scans):
    x, lengths = tf.placeholder(dtype, ["N", 6, 5]), tf.placeholder(tf.int32, ["N"])
    y = layer(cell, x, lengths)
    pair = Pair([y, *tf.gradients(tf.reduce_sum(y * y), [x, *tf.trainable_variables()])], [x, lengths])
    assert pair.shares == scans, "forward and backward"
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 100, 0):
        pair.check([rng.standard_normal((size, 6, 5)), rng.integers(0, 7, size)], 1e-4 if dtype is tf.float32 else 1e-10)


@pytest.mark.parametrize(("cell", "dtype"), [("lstm", tf.float32), ("gru", tf.float64), ("rnn", tf.float32)])
def test_a_few_rows_are_done_by_all_threads_together(cell, dtype):
    x, lengths = tf.placeholder(dtype, ["N", "T", 5]), tf.placeholder(tf.int32, ["N"])
    y = layer(cell, x, lengths)
    pair = Pair([y, *tf.gradients(tf.reduce_sum(y * y), [x, *tf.trainable_variables()])], [x, lengths])
    rng = np.random.default_rng(0)
    for size, steps in ((1, 1), (1, 7), (2, 0), (3, 2), (7, 3)):
        values = [rng.standard_normal((size, steps, 5)), rng.integers(0, steps + 1, size)]
        pair.check(values, 1e-4 if dtype is tf.float32 else 1e-10)
    template = pair.compiled.executable.template
    starts = [k for k, r in enumerate(pair.compiled.program.records) if r.kind == "share"]
    for serial in (False, True):
        flags, _ = template.flags_for((serial,) * len(template.flags))
        assert all(bool(flags[k] & RecordFlag.TOGETHER) is not serial for k in starts), "only where a kernel is worth a meeting"


def test_a_loop_stacks_in_the_memory_of_what_it_reads_for_the_last_time():
    x = tf.placeholder(tf.float32, ["N", 6, 5])
    y = nn.dynamic_rnn(cells.LSTMCell(64), x, dtype=tf.float32)[0]
    weights = tf.trainable_variables()
    graph = captured("test", tf.gradients(tf.reduce_sum(y * y), weights), [x])
    _, plan = lower(run_passes(graph, PIPELINE))
    (sums, projected), (gradients, below) = plan.aliases.items()
    assert projected is below and sums.bytes == gradients.bytes == projected.bytes, "forward and backward, in one memory"


@pytest.mark.parametrize(("rows", "columns", "stride", "starts", "fits"), [
    (9, 4, 12, (0, 4, 8), True), (9, 4, 12, (8, 0, 4), True), (9, 5, 12, (0, 4, 8), False), (9, 4, 11, (0, 4, 8), False),
    (9, 4, 12, (0, 4, 9), False), (1, 4, 12, (0, 4), True)])
def test_a_kernel_may_overwrite_parts_of_rows_that_do_not_meet(rows, columns, stride, starts, fits):
    old, new = Buffer("old", 999), Buffer("new", 999)
    strides = (("p0", stride), ("p1", 1))
    loads = tuple(Load(f"v{k}", Access("a0", "f32", strides, s)) for k, s in enumerate(starts))
    stores = tuple(Store(f"v{k}", Access("a1", "f32", strides, s)) for k, s in enumerate(starts))

    def may(*statements):
        kernel = LoopKernel("test", ("a0", "a1"), (), (("p0", rows), ("p1", columns)), (), "p1", statements, (), 4)
        return may_overwrite([Call(kernel, (old, new), (), frozenset([old]), frozenset([new]))], old, new)
    assert may(*loads, *stores) is fits
    assert not may(*stores, *loads), "what is read must not have been written"


def test_a_static_batch_whose_size_is_also_a_width():
    x = tf.placeholder(tf.float32, [33, 4, 33])
    y, state = nn.dynamic_rnn(cells.BasicRNNCell(33), x, dtype=tf.float32)
    pair = Pair([y, state], [x])
    assert pair.shares == 1
    pair.check([np.random.default_rng(0).standard_normal((33, 4, 33))], 1e-5)


def test_rows_that_meet_are_not_shared_out():
    x = tf.placeholder(tf.float32, [5, "N", 130])
    means = tf.scan(lambda a, r: tf.tanh(a - tf.reduce_mean(a, 0) + r), x, tf.zeros([tf.shape(x)[1], 130]))
    ones = tf.ones([tf.shape(x)[1], 130])
    gram = tf.scan(lambda a, r: tf.tanh(tf.matmul(tf.matmul(a, a, transpose_b=True) / 130, r)), x, ones)
    pair = Pair([means, gram], [x])
    assert pair.shares == 0
    pair.check([np.random.default_rng(0).standard_normal((5, 9, 130)) / 130], 1e-4)


def test_rows_may_all_look_at_what_stays():
    x = tf.placeholder(tf.float32, [5, "N", 130])
    ones = tf.ones([tf.shape(x)[1], 130])
    y = tf.scan(lambda a, r: tf.tanh(tf.matmul(tf.matmul(a, r, transpose_b=True), r)), x, ones)
    pair = Pair([y], [x])
    assert pair.shares == 1
    pair.check([np.random.default_rng(0).standard_normal((5, 70, 130)) / 130], 1e-4)


def test_random_numbers_of_an_iteration_are_those_of_the_whole_batch():
    x = tf.placeholder(tf.float32, [4, "N", 130])
    y = tf.scan(lambda a, r: a + r * tf.random_uniform(tf.shape(r), seed=3), x, tf.zeros([tf.shape(x)[1], 130]))
    Pair([y], [x]).check([np.ones((4, 9, 130))], 1e-6)


def test_a_check_that_fails_in_a_loop_is_reported():
    x = tf.placeholder(tf.int32, [4, "N", 130])
    y = tf.scan(lambda a, r: a + 7 // r, x, tf.zeros([tf.shape(x)[1], 130], tf.int32))
    compiled = CompiledGraph(captured("test", [y], [x]))
    value = np.ones((4, 9, 130), np.int32)
    compiled([value], COUNTS)
    value[2, 5, 3] = 0
    with pytest.raises(tf.errors.RunError, match="division by zero|divi"):
        compiled([value], (2,))


# attention -----------------------------------------------------------------------------------------


def operands(leads, queries, keys, size, dtype):
    return [tf.placeholder(dtype, [*leads, n, size]) for n in (queries, keys, keys)]


def masked(q, k, v, mask):
    return nn.scaled_dot_product_attention(q, k, v, mask=mask)


def causal(q, k, v, mask):
    return nn.scaled_dot_product_attention(q, k, v, causal=True)


def plain(q, k, v, mask):
    """A row that may attend to nothing is NaN."""
    scores = tf.matmul(q, k, transpose_b=True) / math.sqrt(33)
    return tf.matmul(tf.nn.softmax(tf.where(tf.broadcast_to(mask, tf.shape(scores)), scores, -math.inf)), v)


@pytest.mark.parametrize(("leads", "dtype", "named", "attend"), [
    ((), tf.float32, False, masked), ((3,), tf.float64, False, masked), ((2, 3), tf.float32, False, masked),
    ((2, 3), tf.float32, False, plain), ((2,), tf.float32, True, causal), ((2,), tf.float32, True, plain)])
def test_attention_keeps_no_scores(leads, dtype, named, attend):
    dims = [f"d{k}" for k in range(len(leads))] if named else leads
    q, k, v = operands(dims, "Q" if named else 301, "K" if named else 267, 33, dtype)
    mask = tf.placeholder(tf.bool, [*dims, 1, "K" if named else 267])
    pair = Pair([attend(q, k, v, mask)], [q, k, v, mask])
    assert pair.shares == 1
    rng = np.random.default_rng(0)
    for queries, keys in ((301, 267), *(((1, 5), (64, 3), (0, 2), (129, 1)) if named else ())):
        some = rng.random((*leads, 1, keys)) < 0.7
        some[(0,) * len(leads)] = not leads     # of the first there is nothing to attend to
        values = [rng.standard_normal((*leads, n, 33)) for n in (queries, keys, keys)]
        got, = pair.check([*values, some], 1e-5 if dtype is tf.float32 else 1e-12)
        if leads and queries:
            assert np.isnan(got[(0,) * len(leads)]).all() == (attend is plain)


@pytest.mark.parametrize("wanted", ["scores", "weights"])
def test_what_somebody_else_wants_is_kept(wanted):
    q, k, v = operands((2,), 300, 280, 16, tf.float32)
    scores = tf.matmul(q, k, transpose_b=True)
    weights = tf.nn.softmax(scores)
    pair = Pair([tf.matmul(weights, v), scores if wanted == "scores" else weights], [q, k, v])
    assert pair.shares == (wanted == "weights"), "the weights go to memory from there"
    rng = np.random.default_rng(0)
    pair.check([rng.standard_normal((2, n, 16)) for n in (300, 280, 280)], 1e-5)


@pytest.mark.parametrize(("leads", "dtype", "attend", "named"), [
    ((2,), tf.float64, causal, False), ((2,), tf.float32, masked, False), ((2,), tf.float32, plain, False),
    ((), tf.float64, causal, False), ((2, 3), tf.float64, masked, True), ((2,), tf.float64, plain, True)])
def test_the_gradient_of_attention(leads, dtype, attend, named):
    dims = [f"d{k}" for k in range(len(leads))] if named else leads
    q, k, v = operands(dims, "Q" if named else 301, "K" if named else 280, 33, dtype)
    mask = tf.placeholder(tf.bool, [*dims, 1, "K" if named else 280])
    y = attend(q, k, v, mask)
    pair = Pair([y, *tf.gradients(tf.reduce_sum(y * y), [q, k, v])], [q, k, v, mask])
    assert pair.shares == 1 + (named or 301 % 2), "from the scores to all gradients; rows that no part takes"
    rng = np.random.default_rng(0)
    for queries, keys in ((301, 280), *(((1, 5), (64, 3), (0, 2), (129, 1)) if named else ())):
        some = rng.random((*leads, 1, keys)) < 0.7
        some[(0,) * len(leads)] = not leads
        values = [*(rng.standard_normal((*leads, n, 33)) for n in (queries, keys, keys)), some]
        pair.check(values, 2e-4 if dtype is tf.float32 else 1e-10)


def test_the_gradient_of_attention_that_others_wait_for():
    q, k, v = operands((2,), 300, 280, 33, tf.float64)
    y = nn.scaled_dot_product_attention(q, k, v)
    y = y / tf.reduce_sum(tf.square(y))
    pair = Pair(tf.gradients(tf.reduce_sum(y ** 3), [q, k, v]), [q, k, v])
    assert pair.shares == 2, "forward, with the weights in memory; backward"
    rng = np.random.default_rng(0)
    pair.check([rng.standard_normal((2, n, 33)) for n in (300, 280, 280)], 1e-10)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_of_one_array_to_itself(causal):
    x = tf.placeholder(tf.float64, [3, "N", 3, 16])
    q, k, v = tf.unstack(x, axis=2)
    y = nn.scaled_dot_product_attention(q, k, v, causal=causal)
    pair = Pair([y, *tf.gradients(tf.reduce_sum(y * y), [x])], [x])
    assert pair.shares == 2, "parts, and rows that no part takes"
    rng = np.random.default_rng(0)
    for size in (1, 50, 129):
        pair.check([rng.standard_normal((3, size, 3, 16))], 1e-10)


def test_attention_with_dropout():
    x = tf.placeholder(tf.float64, [2, 2, 130, 40])
    y = nn.scaled_dot_product_attention(x, x, x, dropout_rate=0.3, seed=5)
    pair = Pair([y, *tf.gradients(tf.reduce_sum(y * y), [x])], [x])
    assert pair.shares == 1, "an element's random number is that of its place in the whole"
    pair.check([np.random.default_rng(0).standard_normal((2, 2, 130, 40))], 1e-10)


def test_a_product_of_a_part_of_a_product_is_done_in_parts():
    x, a, b = (tf.placeholder(tf.float32, s) for s in (["N", 9], [9, 400], [400, 7]))
    pair = Pair([tf.matmul(tf.nn.softmax(tf.matmul(x, a)), b)], [x, a, b])
    rng = np.random.default_rng(0)
    for size in (1, 50, 1000):
        pair.check([rng.standard_normal(s) for s in ((size, 9), (9, 400), (400, 7))], 1e-5)
