"""Products whose results are cut into parts that are taken together: one kernel, and what the interpreter says."""
import numpy as np
import pytest

import graphc as tf
from graphc.codegen import joined
from graphc.codegen.build import lower
from graphc.codegen.kernel import ContractKernel
from graphc.ir.graph import capture
from graphc.ir.interpreter import interpret
from graphc.passes.manager import run_passes
from graphc.passes.pipeline import PIPELINE, SEMANTICS
from graphc.testing.compiled import CompiledGraph


@pytest.fixture(autouse=True)
def fresh_graph(monkeypatch):
    monkeypatch.setattr(joined, "MOST_WASTE", 99)
    with tf.Graph().as_default():
        yield


def joined_kernels(graph) -> list[int]:
    """The parts of a row, of each kernel that takes several together."""
    _, plan = lower(run_passes(graph, PIPELINE))
    kernels = [r.call.kernel for r in plan.calls]
    return [k.groups for k in kernels if isinstance(k, ContractKernel) and k.groups > 1]


def check(fetches, feeds, sizes, tolerance, joins):
    graph = capture("test", fetches, feeds)
    assert joined_kernels(graph) == joins
    compiled, meant = CompiledGraph(graph), run_passes(graph, SEMANTICS)
    rng = np.random.default_rng(0)
    for size in sizes:
        values = [rng.standard_normal([d if isinstance(d, int) else size for d in f.type.shape]) for f in feeds]
        values = [v.astype(f.type.dtype.numpy) for v, f in zip(values, feeds, strict=True)]
        for a, b in zip(compiled(values, (1, 2)), interpret(meant, values), strict=True):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def operands(dtype, parts, width, terms=7, rows="N"):
    return [tf.placeholder(dtype, s) for s in ([rows, terms], [terms, parts * width], [parts * width], [rows, width])]


@pytest.mark.parametrize(("dtype", "parts", "width"), [
    (tf.float32, 2, 3), (tf.float32, 2, 40), (tf.float32, 3, 17), (tf.float64, 3, 8), (tf.float32, 4, 20), (tf.float64, 4, 5),
    (tf.float32, 8, 16)])
@pytest.mark.parametrize("fetched", [False, True])
def test_parts_of_rows(dtype, parts, width, fetched):
    x, w, b, c = feeds = operands(dtype, parts, width)
    sums = tf.matmul(x, w) + b
    first, second, *others = tf.split(sums, parts, 1)
    state = tf.tanh(first) * tf.sigmoid(second) + c
    for other in others:
        state = state * tf.sigmoid(other)
    check([state, tf.tanh(state) * second, *([sums] if fetched else [])], feeds, (0, 1, 2, 7, 33, 100),
          1e-4 if dtype is tf.float32 else 1e-12, [parts])


def test_one_row():
    x, w, b, c = feeds = operands(tf.float32, 2, 24, rows=1)
    first, second = tf.split(tf.matmul(x, w) + b, 2, 1)
    check([tf.tanh(first) * tf.sigmoid(second) + c], feeds, (0,), 1e-5, [2])
    y = tf.placeholder(tf.float32, [1, 64])
    v = tf.placeholder(tf.float32, [64, 4200])
    first, second = tf.split(tf.matmul(y, v), 2, 1)
    check([tf.tanh(first) * tf.sigmoid(second)], [y, v], (0,), 1e-4, [2])


def test_what_is_not_joined():
    x, w, b, _ = feeds = operands(tf.float32, 3, 10)
    s = tf.matmul(x, w) + b
    check([tf.tanh(s[:, 10:20]) * s[:, 12:22]], feeds[:3], (5,), 1e-4, [])      # no parts
    check([tf.tanh(s[:, :10]) * s[:, :20:2]], feeds[:3], (5,), 1e-4, [])        # every other column
    check([tf.reduce_sum(tf.tanh(s[:, :10]) * s[:, 10:20], 1)], feeds[:3], (5,), 1e-4, [])   # more than one thing each
    parts = tf.split(tf.transpose(s), 3, 0)
    check([tf.tanh(parts[0]) * parts[1]], feeds[:3], (5,), 1e-4, [])


def test_parts_that_fill_no_vectors_are_not_joined(monkeypatch):
    monkeypatch.undo()
    for width, joins in ((64, [4]), (17, [])):
        feeds = x, w, b, _ = operands(tf.float32, 4, width)
        first, second, *_ = tf.split(tf.matmul(x, w) + b, 4, 1)
        check([tf.tanh(first) * tf.sigmoid(second)], feeds[:3], (5,), 1e-4, joins)


def test_elements_keep_their_numbers():
    x, w, _, _ = feeds = operands(tf.float32, 3, 20)
    numbers = tf.cast(tf.range(60), tf.float32) + 60 * tf.cast(tf.expand_dims(tf.range(tf.shape(x)[0]), 1), tf.float32)
    first, second, third = tf.split(tf.matmul(x, w) + numbers, 3, 1)
    check([tf.tanh(first) * second + third * tf.cast(tf.range(20), tf.float32)], feeds[:2], (1, 5, 40), 1e-4, [3])


def test_a_state_that_the_product_reads_is_not_overwritten_by_its_gates():
    x = tf.placeholder(tf.float32, [4, "N", 96])
    w = tf.placeholder(tf.float32, [48, 96])

    def step(h, row):
        first, second = tf.split(tf.matmul(h, w) + row, 2, 1)
        return tf.tanh(first) * tf.sigmoid(second) + h
    check([tf.scan(step, x, tf.zeros([tf.shape(x)[1], 48]))], [x, w], (1, 2, 7, 33, 70), 1e-4, [2])
