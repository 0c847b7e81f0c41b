"""CORRECTNESS.md, "Gradients at hard points": convolutions, branches and loops against differences in float64.

Each row is interpreted, interpreted after each pass, compiled with all passes and without the rewriting ones, in float64 and in
float32, and both first and second gradients.
"""
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

import graphc as tf
from graphc.ir.graph import capture
from graphc.ir.interpreter import interpret
from graphc.passes.differentiate import differentiate
from graphc.passes.manager import Recorder, run_passes
from graphc.passes.pipeline import PIPELINE, SEMANTICS
from graphc.testing import central_differences
from graphc.testing.compiled import CompiledGraph

RNG = np.random.default_rng(7)


@dataclass
class Row:
    """A function of tensors to one tensor, and where to differentiate it. Whole numbers and bools are given as they are."""

    name: str
    function: object
    inputs: list


def real(*shape):
    return RNG.uniform(0.25, 1, shape) * RNG.choice([-1, 1], shape)


def loop(x, count):
    return tf.while_loop(lambda i, s: i < count, lambda i, s: (i + 1, tf.sin(s) * x + s * s / 4), [0, x])[1]


def halting(x, count):
    """A loop with a value in it that no gradient goes through."""
    return tf.while_loop(lambda i, s: i < count, lambda i, s: (i + 1, s * x + tf.stop_gradient(tf.sign(s))), [0, x])[1]


def branch(x, go):
    return tf.cond(go, lambda: tf.square(x) * tf.sin(x), lambda: tf.cond(tf.reduce_sum(x) > 100.0, lambda: x, lambda: x ** 3))


def nested(x, count):
    def step(i, s):
        return i + 1, tf.cond(i % 2 > 0, lambda: s * x, lambda: s + tf.cos(loop(x, i)))
    return tf.while_loop(lambda i, s: i < count, step, [0, x])[1]


def scanned(rows, w):
    return tf.scan(lambda a, r: tf.tanh(a * w + r), rows, tf.zeros([3], rows.dtype))


def conv(**more):
    return lambda x, w: tf.nn.conv2d(x, w, padding="SAME", **more)


CONVOLUTIONS = [
    Row("stride 2, SAME, odd size", conv(strides=2), [real(2, 5, 7, 2), real(3, 3, 2, 3)]),
    Row("dilation 2", conv(dilations=2), [real(1, 5, 6, 2), real(3, 3, 2, 2)]),
    Row("1xN", conv(strides=[1, 2]), [real(1, 3, 7, 2), real(1, 3, 2, 2)]),
    Row("Nx1", conv(), [real(1, 5, 3, 2), real(3, 1, 2, 2)]),
    Row("max_pool, SAME, odd size, all negative", lambda x: tf.nn.max_pool(x, 3, 2, "SAME"), [-np.abs(real(2, 5, 7, 2)) - 1]),
    Row("avg_pool, SAME, odd size", lambda x: tf.nn.avg_pool(x, 3, 2, "SAME"), [real(2, 5, 7, 2)]),
    Row("batch norm", lambda x: tf.nn.fused_batch_norm(x, [1.0, 2.0], [0.5, 0.0])[0] * tf.sin(x), [real(3, 2, 2, 2)]),
]
CONTROL = [
    *(Row(f"{f.__name__}, {n} iterations", f, [real(3), np.int32(n)]) for f in (loop, halting, nested) for n in (0, 1, 5)),
    *(Row(f"scan, {n} rows", scanned, [real(n, 3), real(3)]) for n in (0, 1, 5)),
    *(Row(f"branch {go}", branch, [real(3), np.bool_(go)]) for go in (True, False)),
    Row("stop_gradient", lambda x: tf.square(x) * tf.stop_gradient(tf.sign(x)), [real(3)]),
    Row("a product of no rows", lambda x, w: tf.matmul(x, w), [real(0, 3), real(3, 2)]),
    Row("a loss of no rows", lambda x: tf.losses.softmax_cross_entropy(tf.zeros([0, 3], x.dtype), x), [real(0, 3)]),
]
ROWS = CONVOLUTIONS + CONTROL


def graph_of(row, dtype):
    """(a graph of a number and its first gradients, then the gradients of those; its inputs' values)."""
    arrays = [np.asarray(a, dtype) if a.dtype.kind == "f" else a for a in row.inputs]
    with tf.Graph().as_default():
        inputs = [tf.placeholder(a.dtype, list(a.shape), f"x{k}") for k, a in enumerate(arrays)]
        floats = [i for i in inputs if i.dtype.is_floating]
        y = row.function(*inputs)
        total = tf.reduce_sum(tf.square(y) + y)
        first = tf.gradients(total, floats)
        bent = tf.add_n([tf.reduce_sum(tf.square(g)) for g in first])
        second = tf.gradients(bent, floats)
        return capture("row", [total, bent, *first, *second], inputs), arrays


@cache
def differences(name):
    """The first and second gradients in float64, by differences of the number and of the first gradients."""
    row, = (r for r in ROWS if r.name == name)
    graph, arrays = graph_of(row, "float64")
    graph = differentiate(graph)
    wanted = [k for k, a in enumerate(arrays) if a.dtype.kind == "f"]
    return [central_differences(lambda *v, n=n: interpret(graph, v)[n], arrays, k) for n in (0, 1) for k in wanted]


COMPILED = {}


def program(row, dtype, skip):
    """The row's program. Rows that differ in what they are fed share one."""
    graph, _ = graph_of(row, dtype)
    key = str(graph), skip
    if key not in COMPILED:
        COMPILED[key] = CompiledGraph(graph, skip)
    return COMPILED[key]


def check(row, dtype, values, what):
    tolerance = 1e-6 if dtype == "float64" else 2e-4
    for got, want in zip(values[2:], differences(row.name), strict=True):
        assert (got.dtype, got.shape) == (dtype, want.shape), what
        scale = max(np.max(np.abs(want), initial=0), 1)
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * scale, err_msg=f"{row.name}, {what}")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_interpreted_after_each_pass(row, dtype):
    graph, arrays = graph_of(row, dtype)
    stages = Recorder()
    run_passes(graph, PIPELINE, [stages])
    names = list(stages.stages)
    assert names[-1] == PIPELINE[-1].name
    for name in names[names.index(SEMANTICS[1].name):]:
        check(row, dtype, interpret(stages.stages[name], arrays), name)


@pytest.mark.parametrize(("dtype", "skip"), [
    ("float64", ()), pytest.param("float32", (), marks=pytest.mark.slow),
    pytest.param("float64", ("simplify", "thin_products", "loops", "fuse"), marks=pytest.mark.slow)])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_compiled(row, dtype, skip):
    arrays = [np.asarray(a, dtype) if a.dtype.kind == "f" else a for a in row.inputs]
    check(row, dtype, program(row, dtype, skip)(arrays), "compiled")
