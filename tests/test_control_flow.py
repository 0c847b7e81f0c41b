"""Branches and loops: compiled, at one and two threads, they equal the interpreter; their gradients too."""
import os
import signal
import threading
import time

import numpy as np
import pytest

import graphc as tf
from graphc.cli import main
from graphc.config import options
from graphc.ir.graph import capture
from graphc.ir.interpreter import interpret
from graphc.ir.op import Kind
from graphc.passes.loops import loops
from graphc.passes.manager import run_passes
from graphc.passes.pipeline import SEMANTICS
from graphc.passes.simplify import simplify
from graphc.program import Program
from graphc.runtime import executor
from graphc.testing.compare import assert_equal_values
from graphc.testing.compiled import CompiledGraph


@pytest.fixture(autouse=True)
def fresh_graph():
    tf.reset_default_graph()


def check(fetches, *feeds, ulp=8):
    """Compile once; for each feed (a dict) compare with the interpreter. Gives the last values."""
    graph = capture("checked", fetches, list(feeds[0]) if feeds else [])
    compiled = CompiledGraph(graph)
    meaning = run_passes(graph, SEMANTICS)
    for feed in feeds or ({},):
        values = [np.asarray(v, p.dtype.numpy) for p, v in feed.items()]
        found, wanted = compiled(values), interpret(meaning, values)
        for k, (a, b) in enumerate(zip(found, wanted, strict=True)):
            size = np.max(np.abs(np.asarray(b, np.float64)), initial=0)
            assert_equal_values(a, b, ulp=ulp, magnitude=size, terms=16, what=f"output {k}")
    return found


def placeholder(shape, dtype=tf.float32):
    return tf.placeholder(dtype, shape)


def ramp(*shape):
    return (np.arange(np.prod(shape), dtype=np.float64).reshape(shape) % 7 - 3) / 4


# Branches.

def test_cond_takes_either_branch():
    x, go = placeholder([None, 3]), placeholder([], tf.bool)
    a, b = tf.cond(go, lambda: (x * 2, tf.reduce_sum(x)), lambda: (x - 1, tf.constant(7.0)))
    check([a, b, a + 1], {x: ramp(2, 3), go: True}, {x: ramp(5, 3), go: False}, {x: ramp(0, 3), go: True})


def test_cond_of_a_computed_bool_inside_other_work():
    x = placeholder([None])
    y = tf.exp(x)
    z = tf.cond(tf.reduce_sum(y) > 3, lambda: tf.cumsum(y) if hasattr(tf, "cumsum") else y * y, lambda: y / 2)
    check([tf.reduce_max(z) + y], {x: ramp(9)}, {x: ramp(1)}, {x: ramp(64)})


def test_branches_that_give_what_they_were_given():
    x, y, go = placeholder([3]), placeholder([3]), placeholder([], tf.bool)
    a, b, c = tf.cond(go, lambda: (x, y, x), lambda: (y, x, tf.constant([1.0, 2, 3])))
    for value in (True, False):
        check([a, b, c], {x: ramp(3), y: ramp(3) + 9, go: value})


def test_branches_that_compute_one_value_for_two_results():
    x, go = placeholder([3]), placeholder([], tf.bool)

    def twice():
        y = tf.square(x)
        return y, y
    a, b = tf.cond(go, twice, lambda: (x, x * 3))
    check([a, b], {x: ramp(3), go: True}, {x: ramp(3), go: False})


def test_nested_branches():
    x, a, b = placeholder([None]), placeholder([], tf.bool), placeholder([], tf.bool)
    y = tf.cond(a, lambda: tf.cond(b, lambda: x + 1, lambda: x + 2), lambda: tf.cond(b, lambda: x + 3, lambda: x + 4)) * 2
    check([y], *({x: ramp(4), a: p, b: q} for p in (True, False) for q in (True, False)))


def test_gradient_of_a_branch():
    x, go = placeholder([None, 2]), placeholder([], tf.bool)
    y = tf.cond(go, lambda: tf.square(x) * tf.sin(x), lambda: tf.sqrt(x))
    slope, = tf.gradients(y, x)
    second, = tf.gradients(slope, x)
    check([slope, second], {x: ramp(3, 2), go: True}, {x: ramp(2, 2) + 2, go: False})


# Loops.

def counted(limit, body, *state):
    """A while_loop of `limit` iterations over further state."""
    return tf.while_loop(lambda i, *s: i < limit, lambda i, *s: (i + 1, *body(*s)), (tf.constant(0), *state))


def test_iterations_zero_one_five():
    n, x = placeholder([], tf.int32), placeholder([None, 3])
    found = counted(n, lambda y, s: (y * 2 + tf.reduce_sum(y), s + tf.reduce_max(y)), x, tf.constant(0.0))
    check(list(found), *({n: k, x: ramp(2, 3)} for k in (0, 1, 5)), {n: 2, x: ramp(7, 3)}, {n: 3, x: ramp(1, 3)})


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64, tf.int32, tf.int64])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (0, 2), (2, 1, 5), (33,)])
def test_states_of_any_kind(shape, dtype):
    x = placeholder(list(shape), dtype)
    found = counted(3, lambda y: (y + y - 1,), x)
    check(list(found), {x: (ramp(*shape) * 8)})


def test_bool_states():
    x = placeholder([None], tf.bool)
    flips, at = tf.while_loop(lambda f, i: i < 3, lambda f, i: (tf.logical_not(f), i + 1), (x, tf.constant(0)))
    check([flips, at], {x: [True, False, True]}, {x: [True] * 65})


def test_states_that_swap_and_that_stay():
    x, y, z = placeholder([None]), placeholder([None]), placeholder([2])
    for n in (0, 1, 2, 5):
        check(list(counted(n, lambda a, b, c: (b, a, c), x, y, z)), {x: ramp(3), y: ramp(3) + 5, z: [1, 2]})
        check(list(counted(n, lambda a, b, c: (b, a + b, c), x, y, z)), {x: ramp(3), y: ramp(3) + 5, z: [1, 2]})


def test_states_that_become_what_is_outside():
    x, y = placeholder([3]), placeholder([3])
    check(list(counted(2, lambda a, b: (y, tf.constant([1.0, 2, 3])), x, x)), {x: ramp(3), y: ramp(3) + 5})
    check(list(counted(2, lambda a, b: (a + 1, a + 1), x, x)), {x: ramp(3), y: ramp(3)})


def test_a_loop_that_mixes_elements():
    """The new state reads other elements of the old one: it must not be written over it too early."""
    x = placeholder([None])
    w = placeholder([5, 5])
    check(list(counted(4, lambda a: (tf.reverse(a, [0]) * 2 + a,), x)), {x: ramp(5)}, {x: ramp(70)})
    check(list(counted(4, lambda a: (tf.matmul(a, w) / 2,), w)), {w: ramp(5, 5)})
    check(list(counted(3, lambda a: (a - tf.reduce_sum(a) / 3,), x)), {x: ramp(5)}, {x: ramp(70)})


def test_condition_on_the_state_itself():
    x = placeholder([])
    last, going = tf.while_loop(lambda y, g: g, lambda y, g: (y / 2, y > 4), (x, tf.constant(True)))
    check([last, going], {x: 100.0}, {x: 1.0})


def test_maximum_iterations():
    found = tf.while_loop(lambda x: x < 1e6, lambda x: x * 3, [tf.constant(1.0)], maximum_iterations=4)
    assert check([found]) == [81.0]


def test_nested_loops_and_branches():
    x = placeholder([None])

    def body(i, y):
        z = tf.while_loop(lambda j, z: j < i, lambda j, z: (j + 1, z * 0.5 + tf.cast(j, tf.float32)), (tf.constant(0), y))[1]
        return i + 1, tf.cond(tf.reduce_sum(z) > 1, lambda: z - 1, lambda: z + y)
    check(list(tf.while_loop(lambda i, y: i < 5, body, (tf.constant(0), x))), {x: ramp(4)}, {x: ramp(1)}, {x: ramp(40)})


def test_temporaries_outlive_the_loop_they_cross():
    x = placeholder([None])
    before = tf.exp(x)
    y = counted(3, lambda a: (a * 0.5 + tf.reduce_max(a + before),), x + 1)[1]
    check([y + before, tf.reduce_sum(before)], {x: ramp(6)}, {x: ramp(50)})


# Scans.

@pytest.mark.parametrize("reverse", [False, True])
def test_scan_stacks(reverse):
    x = placeholder([None, 3])
    y = tf.scan(lambda a, r: a * 0.5 + r, x, tf.zeros([3]), reverse=reverse)
    check([y], *({x: ramp(n, 3)} for n in (0, 1, 5, 8)))


def test_scan_over_several_sequences():
    x, w = placeholder([None, 3]), placeholder([None, 2, 3])

    def step(state, rows):
        total, biggest = state
        a, b = rows
        return total + tf.reduce_sum(b) * a, tf.maximum(biggest, b)
    y = tf.scan(step, (x, w), (tf.zeros([3]), tf.zeros([2, 3])))
    check(list(y), *({x: ramp(n, 3), w: ramp(n, 2, 3)} for n in (0, 1, 5)))


def test_rows_that_leave_as_they_came():
    x = placeholder([None, 3])
    check([tf.map_fn(lambda r: r, x), tf.map_fn(lambda r: tf.constant([1.0, 2]), x)], {x: ramp(4, 3)}, {x: ramp(0, 3)})


def test_map_foldl_foldr():
    x = placeholder([None, 3])
    check([tf.map_fn(lambda r: tf.square(r) - tf.reduce_sum(r), x), tf.foldl(lambda a, r: a * 2 + r, x, tf.zeros([3])),
           tf.foldr(lambda a, r: a * 2 + r, x, tf.zeros([3]))], *({x: ramp(n, 3)} for n in (0, 1, 5)))


def test_scan_of_scalars():
    x = placeholder([None], tf.int64)
    check([tf.scan(lambda a, r: a * 3 + r, x), tf.map_fn(lambda r: r % 3 == 0, x)], *({x: np.arange(n)} for n in (1, 2, 9)))


def test_scan_in_a_scan():
    x = placeholder([None, None])
    inner = tf.map_fn(lambda row: tf.scan(lambda a, r: a * 0.5 + r, row, tf.constant(1.0)), x)
    check([inner], {x: ramp(3, 4)}, {x: ramp(1, 7)}, {x: ramp(5, 0)}, {x: ramp(0, 3)})


def test_scan_in_a_while_loop_in_a_scan():
    x = placeholder([None, 4])

    def row(r):
        return counted(3, lambda a: (tf.scan(lambda s, e: s + e * 0.5, a),), r)[1]
    check([tf.map_fn(row, x)], {x: ramp(3, 4)}, {x: ramp(1, 4)})


def test_large_rows_share_threads():
    x, w = placeholder([None, 40, 30]), placeholder([30, 30])
    y = tf.scan(lambda a, r: tf.tanh(tf.matmul(a, w) + r), x, tf.zeros([40, 30]))
    check([y], {x: ramp(6, 40, 30), w: ramp(30, 30) / 30}, ulp=64)


# Random numbers, variables, errors.

def test_random_numbers_in_loops():
    x = placeholder([None, 2])
    tf.set_random_seed(3)
    y = tf.scan(lambda a, r: a + r * tf.random_uniform([2], seed=5), x, tf.zeros([2]))
    nested = counted(3, lambda a: (counted(2, lambda b: (b + tf.random_uniform([2], seed=6),), a)[1] * 2,), tf.zeros([2]))[1]
    z = tf.random_uniform([2], seed=6)
    found = check([y, nested, z], {x: np.ones((4, 2))}, {x: np.ones((3, 2))})
    assert len(np.unique(np.diff(found[0], axis=0))) == 4


def test_variables_in_loops():
    x = tf.placeholder(tf.float32, [None])
    v, steps = tf.Variable(np.ones(2, np.float32), name="v"), tf.Variable(0, name="steps")

    def body(i):
        with tf.control_dependencies([tf.assign_add(v, tf.ones([2]) * tf.reduce_sum(x)), tf.assign_add(steps, 1)]):
            return i + 1
    last = tf.while_loop(lambda i: i < 4, body, [tf.constant(0)])
    chosen = tf.cond(tf.reduce_sum(x) > 0, lambda: tf.assign(v, v * 2), lambda: tf.identity(v))
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        assert session.run(last, {x: [1, 2]}) == 4
        assert session.run([v, steps])[0].tolist() == [13, 13] and session.run(steps) == 4
        assert session.run(chosen, {x: [1]}).tolist() == [26, 26]
        assert session.run(chosen, {x: [-1]}).tolist() == [26, 26]
        assert session.run(v).tolist() == [26, 26]


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_in_a_loop_stops_it_and_changes_nothing(count):
    v = tf.Variable(np.int32(5), name="v")
    d = tf.placeholder(tf.int32, [None])

    def body(i, y):
        with tf.control_dependencies([tf.assign_add(v, 1)]):
            return i + 1, y + 100 // (d - i)
    found = tf.while_loop(lambda i, y: i < 10**9, body, (tf.constant(0), d))
    tf.set_num_threads(count)
    try:
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            with pytest.raises(tf.errors.RunError, match="zero"):
                session.run(found, {d: [7, 3]})
            assert session.run(v) == 5
    finally:
        tf.set_num_threads(None)


@pytest.mark.parametrize("device", ["cpu", "numpy"])
def test_an_error_in_a_loop_names_the_op_inside(device, monkeypatch):
    monkeypatch.setattr(options, "device", device)
    d = placeholder([None], tf.int32)
    y = counted(100, lambda s: (s + 100 // (d - s),), d)
    with tf.Session() as session, pytest.raises(tf.errors.RunError) as caught:
        session.run(y, {d: [1, 3]})
    first, *rest = str(caught.value).splitlines()
    assert first == "floordiv_int: integer division by zero: y[0] = 0" and len(rest) == 1, str(caught.value)


def test_an_error_in_the_branch_that_is_not_taken():
    x, go = placeholder([3], tf.int32), placeholder([], tf.bool)
    y = tf.cond(go, lambda: 10 // x, lambda: x)
    check([y], {x: [0, 1, 2], go: False}, {x: [1, 2, 3], go: True})


# Gradients.

def test_gradients_of_a_scan():
    x, w = placeholder([None, 3]), placeholder([3, 3])
    y = tf.scan(lambda a, r: tf.tanh(tf.reduce_sum(tf.expand_dims(a, 1) * w, 0) + r), x, tf.zeros([3]))
    loss = tf.reduce_sum(tf.square(y))
    first = tf.gradients(loss, [x, w])
    second = tf.gradients(tf.reduce_sum(tf.square(first[1])), [x, w])
    check([*first, *second], *({x: ramp(n, 3), w: ramp(3, 3)} for n in (1, 4, 0)), ulp=256)


def test_gradient_of_a_while_loop():
    x, n = placeholder([None]), placeholder([], tf.int32)
    y = counted(n, lambda a: (tf.sin(a) + a * a / 2,), x)[1]
    slope, = tf.gradients(y, x)
    check([y, slope], *({x: ramp(3), n: k} for k in (0, 1, 5)), ulp=64)


def test_gradient_of_nested_control_flow():
    x = placeholder([None, 3])

    def step(a, r):
        return tf.cond(tf.reduce_sum(r) > 0, lambda: a * r, lambda: a + tf.sin(r))
    y = tf.scan(step, x, tf.ones([3]))
    slope, = tf.gradients(tf.reduce_sum(y), x)
    check([y, slope], {x: ramp(5, 3)}, {x: ramp(1, 3)}, ulp=64)


def test_gradients_by_constants_from_outside():
    """Small ones too, which the passes write into the bodies afterwards. They can be fed, like any tensor."""
    c, row, go, n = tf.constant(2.0), tf.constant([1.0, 2.0, 3.0]), placeholder([], tf.bool), placeholder([], tf.int32)
    chosen = tf.cond(go, lambda: c * c * row, lambda: c + row)
    powered = counted(n, lambda s: (s * c + row,), row)[1]
    summed = tf.scan(lambda a, r: a * c + r, row, tf.constant(0.0))
    mapped = tf.map_fn(lambda r: r * tf.reduce_sum(row) * c, row)
    slopes = [g for y in (chosen, powered, summed, mapped) for g in tf.gradients(y, [c, row])]
    second, = tf.gradients(slopes[2], c)
    feeds = [{go: True, n: 3}, {go: False, n: 0}, {go: True, n: 1}]
    check([chosen, powered, summed, mapped, *slopes, second], *feeds)
    for feed in feeds:
        check([chosen, powered, *slopes], {**feed, c: -1.5, row: [0.5, 0.25, -1.0]})
    with tf.Session() as session:
        assert session.run(slopes[2:4] + [second], {n: 3, go: True})[0] == 6 * (4 * 3 + 2 * 2 + 1)
        assert session.run(slopes[0], {n: 3, go: True}) == 24


def test_placeholders_made_inside_are_fed():
    go, made = placeholder([], tf.bool), []

    def branch():
        made.append(tf.placeholder(tf.float32, [2]))
        return tf.square(made[0])
    y = tf.cond(go, branch, lambda: tf.zeros([2]))
    slope, = tf.gradients(y, made)
    with tf.Session() as session:
        assert [v.tolist() for v in session.run([y, slope], {go: True, made[0]: [1, 3]})] == [[1, 9], [2, 6]]
        with pytest.raises(tf.errors.FeedError, match="must be fed"):
            session.run(y, {go: True})


def test_small_constants_from_outside_are_written_in_the_bodies():
    c, table, x = tf.constant(2.0), tf.constant(np.ones(65, np.float32)), placeholder([])
    y = tf.while_loop(lambda s: s < c * 50, lambda s: s * c * 1.0 + tf.reduce_max(table * s), [x])
    loop, = [n for n in run_passes(capture("t", [y], [x]), [*SEMANTICS, simplify, loops]).nodes() if n.op.kind is Kind.WHILE]
    assert len(loop.inputs) == 2, "the loop variable and the large constant"
    assert [n.attrs["value"].value for n in loop.attrs["condition"].nodes() if n.op.kind is Kind.CONSTANT] == [100]
    assert [n.attrs["value"].value for n in loop.attrs["body"].nodes() if n.op.kind is Kind.CONSTANT] == [2]


# Programs.

def test_a_program_with_loops_as_bytes():
    x = placeholder([None, 3])
    y = tf.map_fn(lambda r: tf.cond(tf.reduce_sum(r) > 0, lambda: r, lambda: -r), x)
    compiled = CompiledGraph(capture("kept", [y], [x]))
    again = Program.from_bytes(compiled.program.to_bytes())
    assert again.records == compiled.program.records
    loaded = executor.Executable(again, [])
    value = ramp(4, 3).astype(np.float32)
    assert np.array_equal(loaded.instance([value]).run([value])[0], compiled([value])[0])


def test_the_cli_shows_and_times_loops(tmp_path, capsys):
    script = tmp_path / "net.py"
    script.write_text("""import graphc as tf
x = tf.placeholder(tf.float32, [None, 3], name="x")
sums = tf.scan(lambda a, r: a * 0.5 + r, x, tf.zeros([3]))
i, y = tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, tf.cond(y[0, 0] > 0, lambda: y, lambda: -y)), (0, sums))
""")
    for command in (["dump", f"{script}:y", "--stage", "kernels"], ["dump", f"{script}:y", "--stage", "all"],
                    ["dump", f"{script}:y", "--stage", "kernels", "--format", "json"],
                    ["bench", f"{script}:y", "--size", "N=4", "--kernels", "--seconds", "0.01"],
                    ["bench", f"{script}:y", "--size", "N=0", "--kernels", "--seconds", "0.01"],
                    ["viz", f"{script}:y", "-o", str(tmp_path / "net.svg")]):
        main(command)
        found = capsys.readouterr().out
        if command[-1] == "kernels":
            assert "loop N times, along x" in found and "next iteration" in found and "unless" in found


def test_a_loop_of_small_kernels_is_one_threads_own(monkeypatch):
    """Small kernels in a loop beside large ones outside: the other threads wait for the loop, none meets inside."""
    x = placeholder([None])
    big = tf.exp(x)
    small = counted(20, lambda a: (a * 0.5 + tf.reduce_sum(a),), x[:3])[1]
    graph = capture("own", [big * small[0], small, counted(3, lambda a: (a + tf.reduce_sum(big),), small)[1]], [x])
    compiled = CompiledGraph(graph)
    value = ramp(100_000).astype(np.float32)
    wanted = interpret(run_passes(graph, SEMANTICS), [value])
    monkeypatch.setattr(executor, "TEAM_MICROSECONDS", -1)
    monkeypatch.setattr(executor, "PARALLEL_MICROSECONDS", 0)
    tf.set_num_threads(2)
    try:
        for _ in range(50):
            instance = compiled.executable.instance([value])
            for a, b in zip(instance.run([value]), wanted, strict=True):
                assert_equal_values(a, b, ulp=64, magnitude=np.abs(b) + np.abs(value).sum(), terms=100_000)
    finally:
        tf.set_num_threads(None)


# Ctrl-C.

@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("shape", [(), (3,), (60_000,)])
def test_ctrl_c_ends_a_loop_and_changes_nothing(shape, count):
    v = tf.Variable(np.zeros(shape, np.float32), name="v")

    def body(y):
        with tf.control_dependencies([tf.assign(v, y)]):
            return y * 0.5 + 1
    endless = tf.while_loop(lambda y: tf.reduce_sum(y) > 0, body, [tf.constant(np.ones(shape, np.float32))])
    tf.set_num_threads(count)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            session.make_callable(endless)  # compiled before the clock starts
            for _ in range(2):
                start = time.monotonic()
                threading.Timer(2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
                with pytest.raises(KeyboardInterrupt):
                    session.run(endless)
                assert time.monotonic() - start < 15
                assert not session.run(v).any()
    finally:
        signal.signal(signal.SIGINT, before)
        tf.set_num_threads(None)


def test_ctrl_c_calls_the_users_handler():
    calls = []
    before = signal.signal(signal.SIGINT, lambda *_: calls.append(1))
    endless = tf.while_loop(lambda y: y > 0, lambda y: y * 0.5 + 1, [tf.constant(1.0)])
    try:
        with tf.Session() as session:
            threading.Timer(2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt):
                session.run(endless)
    finally:
        signal.signal(signal.SIGINT, before)
    assert calls
