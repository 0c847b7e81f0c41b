"""Branches and loops with host ops inside: Python runs them, around bodies that are compiled in segments."""
import numpy as np
import pytest

import graphc as tf
from graphc.compiler import Chained
from graphc.config import options
from graphc.errors import RunError

pytestmark = pytest.mark.usefixtures("fresh_graph")


X = np.arange(12, dtype=np.float32).reshape(4, 3) - 5


def run(fetches, feeds=None):
    with tf.Session() as session:
        found = session.run(fetches, feeds)
        if options.device == "cpu":
            assert [type(c) for c in session._compiled.values()] == [Chained]
        return found


def test_cond_with_a_mask_inside(device):
    x, p = tf.placeholder(tf.float32, [None, 3]), tf.placeholder(tf.bool, [])
    y = tf.cond(p, lambda: tf.reduce_sum(tf.boolean_mask(x, x > 0)), lambda: tf.reduce_sum(x) * 2)
    slope, = tf.gradients(y, x)
    for value, want, gradient in ((True, X[X > 0].sum(), X > 0), (False, 2 * X.sum(), np.full_like(X, 2))):
        got = run([y, slope], {x: X, p: value})
        assert got[0] == want
        np.testing.assert_array_equal(got[1], gradient)


def test_a_loop_whose_body_has_sizes_of_its_own(device):
    """Each iteration makes a vector of another length."""
    n = tf.placeholder(tf.int32, [])
    total = tf.while_loop(lambda i, s: i < n, lambda i, s: (i + 1, s + tf.reduce_sum(tf.ones([i + 1, 2]))),
                          [tf.constant(0), tf.constant(0.0)])[1]
    for count in (3, 0, 1):
        assert run(total, {n: count}) == count * (count + 1)


def test_a_loop_that_uses_sizes_from_outside(device):
    x, n = tf.placeholder(tf.float32, [None, 3]), tf.placeholder(tf.int32, [])

    def body(i, s):
        distinct = tf.unique(tf.cast(x[:, 0] / 4, tf.int32)).y
        return i + 1, s + tf.zeros([n]) + tf.cast(tf.reduce_sum(distinct) + tf.shape(x)[0], tf.float32)
    s = tf.while_loop(lambda i, s: i < 3, body, [tf.constant(0), tf.ones([n])])[1]
    distinct = sum(set((X[:, 0] / 4).astype(np.int32).tolist()))
    assert run(s, {x: X, n: 2}).tolist() == [1 + 3 * (distinct + 4)] * 2


def test_gradient_of_a_loop_with_a_mask(device):
    x = tf.placeholder(tf.float32, [None])
    y = tf.while_loop(lambda i, s: i < 3, lambda i, s: (i + 1, s + tf.square(tf.reduce_sum(tf.boolean_mask(x, x > 0)) * s)),
                      [tf.constant(0), tf.constant(0.1)])[1]
    slope, = tf.gradients(y, x)
    values = np.array([0.5, -1.0, 0.25], np.float32)
    got = run([y, slope], {x: values})

    def reference(v):
        s = 0.1
        for _ in range(3):
            s = s + (v[v > 0].sum() * s) ** 2
        return s
    step = 1e-6
    wide = values.astype(np.float64)
    want = [(reference(wide + step * e) - reference(wide - step * e)) / (2 * step) for e in np.eye(3)]
    np.testing.assert_allclose(got[0], reference(wide), rtol=1e-5)
    np.testing.assert_allclose(got[1], want, rtol=1e-4)


def test_python_in_a_loop_is_called_each_time(device):
    calls = []

    def look(i):
        calls.append(int(i))
        return i * 2
    total = tf.while_loop(lambda i, s: i < 3, lambda i, s: (i + 1, s + tf.py_func(look, [i], tf.int32, shape=[])),
                          [tf.constant(0), tf.constant(0)])[1]
    assert run(total) == 6 and calls == [0, 1, 2]


def test_an_assertion_in_a_loop_changes_nothing(device):
    v, n = tf.Variable(0), tf.placeholder(tf.int32, [])

    def body(i):
        with tf.control_dependencies([tf.Assert(i < 2, ["too many:", i])]):
            return i + 1
    step = v.assign(tf.while_loop(lambda i: i < n, body, [tf.constant(0)]))
    with tf.Session() as session:
        session.run(v.initializer)
        assert session.run(step, {n: 2}) == 2
        with pytest.raises(RunError, match=r"(?s)the assertion failed: too many: \[2\].*test_host_loops.py"):
            session.run(step, {n: 5})
        assert session.run(v) == 2


def test_with_checks_after_each_pass(monkeypatch):
    monkeypatch.setattr(options, "check", 2)
    x, n = tf.placeholder(tf.float32, [None]), tf.placeholder(tf.int32, [])
    y = tf.while_loop(lambda i, s: i < n, lambda i, s: (i + 1, s + tf.reduce_sum(tf.boolean_mask(x * s, x > 0)[:i + 1])),
                      [tf.constant(0), tf.constant(1.0)])[1]
    got = run([y, tf.gradients(y, x)[0]], {x: [1, -1, 2], n: 2})
    assert got[0] == 8 and got[1].tolist() == [6, 0, 2]  # (1 + a) * (1 + a + c)


def test_random_numbers_in_such_a_loop(monkeypatch):
    """Each iteration draws its own, the same ones on each device."""
    def drawn(i, s):
        return i + 1, s + tf.reduce_sum(tf.boolean_mask(tf.random_uniform([4], seed=1), [True, False, True, True]))
    total = tf.while_loop(lambda i, s: i < 3, drawn, [tf.constant(0), tf.constant(0.0)])[1]
    found = []
    for name in ("numpy", "cpu"):
        monkeypatch.setattr(options, "device", name)
        found.append(run(total))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def recorded(calls):
    """An operation that notes down a number in a list when it runs."""
    return lambda value: tf.py_func(lambda v: (calls.append(int(v)), np.int32(v))[1], [value], tf.int32, shape=[])


@pytest.mark.parametrize("fetch", ["itself", "a group", "an ordered tensor"])
def test_branches_with_effects_alone(fetch, device):
    """Neither branch gives a result; one of them calls Python, another one writes a variable or does nothing."""
    calls, v, p = [], tf.Variable(1), tf.placeholder(tf.bool, [])
    note = recorded(calls)
    quiet = tf.cond(p, lambda: tf.group(note(7)), tf.no_op)
    mixed = tf.cond(p, lambda: tf.group(note(8)), lambda: tf.group(v.assign_add(10)))
    nested = tf.cond(p, lambda: tf.cond(v > 0, lambda: tf.group(note(9)), tf.no_op), tf.no_op)
    strict = tf.cond(p, tf.no_op, lambda: tf.Assert(v > 100, ["too small:", v]))
    wanted = [quiet, mixed, nested]
    if fetch == "a group":
        wanted = tf.group(wanted)
    elif fetch == "an ordered tensor":
        with tf.control_dependencies(wanted):
            wanted = tf.constant(3) * 2
    with tf.Session() as session:
        session.run(v.initializer)
        session.run(wanted, {p: True})
        assert sorted(calls) == [7, 8, 9] and session.run(v) == 1
        session.run(wanted, {p: False})
        assert len(calls) == 3 and session.run(v) == 11
        session.run(strict, {p: True})
        with pytest.raises(RunError, match=r"the assertion failed: too small: \[11\]"):
            session.run([wanted, strict], {p: False})
        assert session.run(v) == 11


def test_loops_that_nobody_takes_results_of(device):
    calls = []
    note = recorded(calls)

    def body(i, s):
        with tf.control_dependencies([note(i)]):
            return i + 1, s * 2
    found = tf.while_loop(lambda i, s: i < 3, body, [tf.constant(0), tf.constant(1.0)])
    rows = tf.map_fn(lambda r: note(r) * 2, tf.constant([5, 6]))
    with tf.Session() as session:
        session.run(tf.group(found[1]))
        assert calls == [0, 1, 2]
        session.run(tf.group(rows))
        assert calls == [0, 1, 2, 5, 6]
        assert session.run([found[1], rows])[0] == 8 and calls[5:] in ([0, 1, 2, 5, 6], [5, 6, 0, 1, 2])


def test_gradient_of_a_branch_with_an_effect(device):
    calls, x, p = [], tf.placeholder(tf.float32, []), tf.placeholder(tf.bool, [])
    note = recorded(calls)

    def noted():
        with tf.control_dependencies([note(1)]):
            return x * x
    y = tf.cond(p, noted, lambda: 3 * x)
    assert run([y, tf.gradients(y, x)[0]], {x: 4, p: True}) == [16, 8] and set(calls) == {1}
    assert run([y, tf.gradients(y, x)[0]], {x: 4, p: False}) == [12, 3] and set(calls) == {1}
