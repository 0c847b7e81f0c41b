"""Loops over single numbers: one kernel each, and what the interpreter says."""
import numpy as np
import pytest

import graphc as tf
from graphc.codegen import recurrence
from graphc.codegen.build import lower
from graphc.codegen.kernel import RecurrenceKernel
from graphc.ir.graph import capture
from graphc.ir.interpreter import interpret
from graphc.passes.manager import run_passes
from graphc.passes.pipeline import PIPELINE, SEMANTICS
from graphc.testing.compare import assert_equal_values
from graphc.testing.compiled import CompiledGraph

pytestmark = pytest.mark.usefixtures("fresh_graph")


def check(fetches, *feeds, kernels=1, ulp=4):
    """Compiled, `kernels` recurrences (if given) among its calls, equals the interpreter."""
    graph = capture("checked", list(fetches), list(feeds[0]) if feeds else [])
    if kernels is not None:
        plan = lower(run_passes(graph, PIPELINE))[1]
        assert sum(isinstance(r.call.kernel, RecurrenceKernel) for r in plan.calls) == kernels
    compiled, meaning = CompiledGraph(graph), run_passes(graph, SEMANTICS)
    for feed in feeds or ({},):
        values = [np.asarray(v, p.dtype.numpy) for p, v in feed.items()]
        for k, (a, b) in enumerate(zip(compiled(values), interpret(meaning, values), strict=True)):
            assert_equal_values(a, b, ulp=ulp, what=f"output {k}")


def number(dtype=tf.float32):
    return tf.placeholder(dtype, [])


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_the_logistic_map(dtype):
    x, n = number(dtype), number(tf.int32)
    y = tf.while_loop(lambda i, x: i < n, lambda i, x: (i + 1, 3.7 * x * (1 - x)), (0, x))
    check(y, *({x: 0.5, n: k} for k in (0, 1, 5, 10_000)), ulp=0)


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_the_greatest_common_divisor(dtype):
    a, b = number(dtype), number(dtype)
    y = tf.while_loop(lambda a, b: b > 0, lambda a, b: (b, a % b), (a, b))
    check(y, {a: 12, b: 18}, {a: 7, b: 0}, {a: 2**30, b: 3**15})


def test_states_that_swap_stay_and_become_others():
    a, b, n = number(), number(), number(tf.int32)
    y = tf.while_loop(lambda i, p, q, r, s: i < n, lambda i, p, q, r, s: (i + 1, q, p, r, b), (0, a, b, a * 2, a + b))
    check(y, *({a: 1, b: 2, n: k} for k in (0, 1, 2)))


def test_two_states_of_one_value():
    a = number()
    check(tf.while_loop(lambda p, q: p < 100, lambda p, q: (p * 2 + 1, p * 2 + 1), (a, a)), {a: 1}, {a: 1000}, {a: np.nan})


def test_bools_functions_and_branchless_choices():
    a = number()
    y = tf.while_loop(lambda x, up, i: tf.logical_and(i < 50, tf.abs(x) < 100),
                      lambda x, up, i: (tf.where(up, tf.exp(x / 8) + x, tf.sin(x) - tf.sqrt(tf.abs(x))), tf.logical_not(up),
                                        i + 1), (a, tf.constant(True), 0))
    check(y, {a: 0.5}, {a: -3}, {a: 99.5}, ulp=64)


def test_collatz_in_a_map():
    """The loop in each row is a kernel."""
    x = tf.placeholder(tf.int64, [None])

    def steps(n):
        return tf.while_loop(lambda n, i: n > 1, lambda n, i: (tf.where(tf.equal(n % 2, 0), n // 2, 3 * n + 1), i + 1),
                             (n, tf.constant(0)))[1]
    check([tf.map_fn(steps, x)], {x: np.arange(1, 30)}, {x: []}, {x: [27]})


@pytest.mark.parametrize("reverse", [False, True])
def test_scans_of_numbers(reverse):
    x, w = tf.placeholder(tf.float32, [None]), number()
    y = tf.scan(lambda a, r: (a[0] * w + r[0], a[1] + r[1]), (x, tf.cast(x * 3, tf.int32)), (tf.constant(1.0), 0),
                reverse=reverse)
    check(y, *({x: np.arange(n) - 2.5, w: 0.9} for n in (0, 1, 2, 9)))


def test_the_gradient_of_a_scan_of_numbers():
    x, w = tf.placeholder(tf.float64, [None]), number(tf.float64)
    y = tf.scan(lambda a, r: tf.sin(a * w) + r, x, tf.constant(1.0, tf.float64))
    first = tf.gradients(tf.reduce_sum(tf.square(y)), w)
    check([y, *first, *tf.gradients(first, w)], {x: np.arange(9) - 2.5, w: 0.9}, {x: [1], w: 2}, kernels=None, ulp=512)


def test_named_lengths_and_sizes_inside():
    x = tf.placeholder(tf.float32, [None])
    y = tf.foldl(lambda a, r: a + r / tf.cast(tf.size(x), tf.float32), x, tf.constant(0.0))
    check([y], {x: np.arange(5)}, {x: np.arange(64)})


def test_shapes_of_one_element():
    x = tf.placeholder(tf.float32, [1, 1])
    check(tf.while_loop(lambda x, i: i < 3, lambda x, i: (x * 2 - 1, i + 1), (x, 0)), {x: [[3]]})


@pytest.mark.parametrize("count", [1, 2])
def test_a_failed_check_ends_the_loop(count):
    d = number(tf.int32)
    y = tf.while_loop(lambda i, s: i < 10**9, lambda i, s: (i + 1, s + 100 // (d - i)), (0, 0))
    tf.set_num_threads(count)
    try:
        with tf.Session() as session, pytest.raises(tf.errors.RunError, match="division by zero|zero"):
            session.run(y, {d: 4})
    finally:
        tf.set_num_threads(None)


def test_loops_that_take_several_turns(monkeypatch):
    """A kernel ends now and then, for Ctrl-C, and goes on where it was."""
    monkeypatch.setattr(recurrence, "TURN_COST", 20)
    x, n = number(), number(tf.int32)
    y = tf.while_loop(lambda i, x: i < n, lambda i, x: (i + 1, 3.7 * x * (1 - x)), (0, x))
    check(y, *({x: 0.5, n: k} for k in (0, 1, 3, 4, 5, 8, 100)), ulp=0)
    last = tf.while_loop(lambda i, x, k: i < 7, lambda i, x, k: (i + 1, *tf.while_loop(
        lambda x, k: k < 10 * i, lambda x, k: (x * 0.5 + 1, k + 1), (x, k))), (0, x, 0))
    check(last, {x: 0.5})


def test_a_check_that_fails_in_a_later_turn(monkeypatch):
    monkeypatch.setattr(recurrence, "TURN_COST", 20)
    d = number(tf.int32)
    y = tf.while_loop(lambda i, s: i < 10**9, lambda i, s: (i + 1, s + 100 // (d - i)), (0, 0))
    with tf.Session() as session, pytest.raises(tf.errors.RunError, match="zero"):
        session.run(y, {d: 1000})
