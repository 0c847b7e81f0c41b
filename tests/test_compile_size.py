"""Compile time without a clock: equal kernels are shared, and the work of passes grows like the graph."""
from __future__ import annotations

import gc
import sys
from collections import Counter

import numpy as np
import pytest

import graphc as tf
from graphc import compiler, making
from graphc.codegen.build import lower
from graphc.passes.fuse import _Fuser
from graphc.passes.manager import run_passes
from graphc.passes.pipeline import PIPELINE


def layers(count: int):
    """A training step of `count` equal layers."""
    x = tf.placeholder(tf.float32, [None, 32])
    h = x
    for k in range(count):
        w = tf.Variable(np.zeros((32, 32), np.float32), name=f"w{k}")
        h = tf.tanh(tf.matmul(h, w) + tf.Variable(np.zeros(32, np.float32), name=f"b{k}"))
    loss = tf.reduce_mean(tf.square(h))
    return [x], [loss, tf.train.AdamOptimizer(0.1).minimize(loss)]


def steps(count: int):
    """A training step of an LSTM unrolled over `count` steps."""
    x = tf.placeholder(tf.float32, [None, count, 8])
    outputs, _ = tf.nn.static_rnn(tf.nn.rnn_cell.BasicLSTMCell(16), tf.unstack(x, axis=1), dtype=tf.float32)
    loss = tf.reduce_mean(tf.square(outputs[-1]))
    return [x], [loss, tf.train.AdamOptimizer(0.1).minimize(loss)]


def captured(model, count: int):
    with tf.Graph().as_default():
        feeds, fetches = model(count)
        return compiler.captured("step", fetches, feeds)


@pytest.mark.parametrize("model", [layers, steps])
def test_equal_parts_share_kernels(model):
    plans = [lower(run_passes(captured(model, count), PIPELINE, []))[1] for count in (12, 20)]
    few, many = ({r.call.kernel for r in plan.calls} for plan in plans)
    assert len(plans[1].calls) > 1.4 * len(plans[0].calls)
    assert len(few) == len(many)


def test_initial_values_share_kernels():
    def kernels(count):
        with tf.Graph().as_default():
            for k in range(count):
                tf.get_variable(f"w{k}", [8 + k, 24])
            return {r.call.kernel for r in lower(run_passes(
                compiler.captured("init", [tf.global_variables_initializer()], []), PIPELINE, []))[1].calls}
    assert len(kernels(2)) == len(kernels(9))


@pytest.mark.parametrize("model", [layers, steps])
def test_the_work_of_passes_is_near_linear(model):
    small, large = (captured(model, count) for count in (8, 32))
    growth = len(large.nodes()) / len(small.nodes())
    assert calls(large) < 1.5 * growth * calls(small)


def calls(graph) -> int:
    """Python functions called by all passes, lowering and planning."""
    found = Counter()

    def count(frame, event, argument):
        found[event] += 1
    sys.setprofile(count)
    try:
        lower(run_passes(graph, PIPELINE, []))
    finally:
        sys.setprofile(None)
    return found["call"]


def test_a_refused_pair_is_not_tried_again(monkeypatch):
    tried = Counter()
    obstacle = _Fuser.obstacle

    def counted(self, first, second):
        tried[first, len(first.nodes), second, len(second.nodes)] += 1
        return obstacle(self, first, second)
    monkeypatch.setattr(_Fuser, "obstacle", counted)
    run_passes(captured(steps, 6), PIPELINE, [])
    assert tried and max(tried.values()) == 1


def test_python_collects_garbage_again_after_a_compile(monkeypatch):
    seen = []
    monkeypatch.setattr(making, "build", lambda *_: seen.append(gc.isenabled()) or 1 / 0)
    x = tf.placeholder(tf.float32, [None])
    with tf.Session() as session, pytest.raises(ZeroDivisionError):
        session.run(tf.exp(x), {x: [1.0]})
    assert seen == [False] and gc.isenabled()
