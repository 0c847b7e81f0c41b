"""Host ops in sessions, between native programs: results whose sizes depend on values, Python functions, assertions."""
import threading

import numpy as np
import pytest

import graphc as tf
from graphc.chain import Chain
from graphc.compiler import Chained, Native
from graphc.config import options
from graphc.errors import ArgumentError, DTypeError, RunError, ShapeError
from graphc.testing.compiled import parallel

pytestmark = pytest.mark.usefixtures("fresh_graph")


X = np.arange(12, dtype=np.float32).reshape(4, 3) - 5
NAN = np.float32("nan")


def run(fetches, feeds=None, before=None):
    with tf.Session() as session:
        if before is not None:
            session.run(before)
        return session.run(fetches, feeds)


# what depends on values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mask", "axis"), [
    (X[:, 0] > -3, None), (X > 0, None), (X[0] > -5, 1), (X > 100, 0), (np.ones((4, 3), bool), None)])
def test_boolean_mask(mask, axis, device):
    x, m = tf.placeholder(tf.float32, [None, 3]), tf.placeholder(tf.bool, [None] * mask.ndim)
    want = X[mask] if not axis else X[:, mask]
    got = run([tf.boolean_mask(x, m, axis=axis), tf.boolean_mask(x, mask, axis=axis)],
              {x: X, m: mask})
    for g in got:
        assert g.dtype == np.float32
        np.testing.assert_array_equal(g, want)


def test_a_mask_as_an_index(device):
    x = tf.placeholder(tf.float32, [None, 3])
    assert run([tf.shape(x[x > 0]), tf.reduce_sum(x[x > 0])], {x: X})[0].tolist() == [6]
    np.testing.assert_array_equal(run(x[np.array([True, False, True, False])], {x: X}), X[::2])


def test_the_gradient_of_boolean_mask(device):
    x = tf.placeholder(tf.float32, [None, 3])
    y = tf.reduce_sum(tf.square(tf.boolean_mask(x, x > 1)))
    first, = tf.gradients(y, x)
    second, = tf.gradients(tf.reduce_sum(first * first), x)
    got = run([first, second], {x: X})
    np.testing.assert_array_equal(got[0], np.where(X > 1, 2 * X, 0))
    np.testing.assert_array_equal(got[1], np.where(X > 1, 8 * X, 0))


def test_where_gives_coordinates(device):
    x = tf.placeholder(tf.float32, [None, 3])
    places = tf.where(x > 3)
    assert places.dtype is tf.int64 and places.shape.as_list() == [None, 2]
    np.testing.assert_array_equal(run(places, {x: X}), np.argwhere(X > 3))
    assert run(tf.where(tf.constant(True))).shape == (1, 0)


@pytest.mark.parametrize("values", [[3, 1, 3, 2, 1, 1], [], [7], [5, 5, 5]])
def test_unique(values, device):
    x = tf.placeholder(tf.int32, [None])
    y, idx, count = tf.unique_with_counts(x)
    got = run([y, idx, count, *tf.unique(x, tf.int64)], {x: values})
    distinct = list(dict.fromkeys(values))
    assert got[0].tolist() == got[3].tolist() == distinct
    assert [distinct[k] for k in got[1]] == [distinct[k] for k in got[4]] == values
    assert got[2].tolist() == [values.count(v) for v in distinct]
    assert (got[1].dtype, got[4].dtype) == (np.int32, np.int64)


def test_the_size_alone_of_what_a_host_op_finds(device):
    x = tf.placeholder(tf.int32, [None])
    size = tf.size(tf.unique(x).y)
    for values in ([3, 1, 3], [], [5, 5]):
        assert run([size, size * 2], {x: values}) == [len(set(values)), 2 * len(set(values))]


def test_unique_takes_each_nan_for_one_of_its_own(device):
    got = run(list(tf.unique(tf.constant([1.0, NAN, 1.0, NAN, -0.0, 0.0]))))
    np.testing.assert_array_equal(got[0], np.array([1, NAN, NAN, 0], np.float32))
    assert got[1].tolist() == [0, 1, 0, 2, 3, 3]


def test_setdiff1d(device):
    out, idx = tf.setdiff1d([1, 2, 3, 4, 2, 6], tf.placeholder_with_default(tf.constant([2, 6]), [2]))
    assert [v.tolist() for v in run([out, idx])] == [[1, 3, 4], [0, 2, 3]]


def test_dynamic_partition(device):
    x, p = tf.placeholder(tf.float32, [None, 3]), tf.placeholder(tf.int32, [None])
    parts = tf.dynamic_partition(x, p, 3)
    slope, = tf.gradients(tf.reduce_sum(parts[2]) * 2, x)
    got = run([*parts, slope], {x: X, p: [2, 0, 2, 0]})
    for part, want in zip(got, [X[1::2], X[:0], X[::2], np.where([[1], [0], [1], [0]], 2, 0) * np.ones_like(X)], strict=True):
        np.testing.assert_array_equal(part, want)
    with pytest.raises(RunError, match=r"part_positions: partition out of range: partitions\[1\] = 3 is not in \[0, 3\)"):
        run(parts, {x: X, p: [2, 3, 2, 0]})


def test_dynamic_stitch(device):
    x, p = tf.placeholder(tf.float32, [None, 3]), tf.placeholder(tf.int32, [None])
    parts = tf.dynamic_partition(x, p, 2)
    back = tf.dynamic_stitch(tf.dynamic_partition(tf.range(tf.shape(x)[0]), p, 2), parts)
    slope, = tf.gradients(tf.reduce_sum(back * back), x)
    got = run([back, slope], {x: X, p: [1, 0, 0, 1]})
    np.testing.assert_array_equal(got[0], X)
    np.testing.assert_array_equal(got[1], 2 * X)
    assert run(tf.dynamic_stitch([[0, 2], [[1, 0]]], [[1.0, 2.0], [[3.0, 4.0]]])).tolist() == [4, 3, 2]
    with pytest.raises(RunError, match="last_positions: no index is 1, although one is 2"):
        run(tf.dynamic_stitch([[0, 2]], [[1.0, 2.0]]))


BAD = [
    (lambda x: tf.boolean_mask(x, tf.constant(True)), ShapeError, "the mask is a scalar"),
    (lambda x: tf.boolean_mask(x, [[True] * 3] * 4, axis=1), ShapeError, "the mask has too many axes"),
    (lambda x: tf.boolean_mask(x, [True, False], axis=1), ShapeError, "boolean_mask: shapes differ"),
    (lambda x: tf.boolean_mask(x, x), DTypeError, "the mask must be bool"),
    (lambda x: x[:, x[0] > 0], ArgumentError, "a mask stands alone"),
    (lambda x: tf.unique(x), ShapeError, "distinct_positions: x must have one axis"),
    (lambda x: tf.dynamic_partition(x, [0, 1], 0), ArgumentError, "num_partitions is 0"),
    (lambda x: tf.dynamic_stitch([[0]], []), ArgumentError, "as many indices as data"),
    (lambda x: tf.py_func(np.sin, [x], tf.float32), ArgumentError, "the shape of each result must be given"),
    (lambda x: tf.Print(x, x), ArgumentError, "data is a list"),
    (lambda x: tf.Assert(x, []), DTypeError, "the condition must be bool"),
]


@pytest.mark.parametrize(("make", "error", "text"), BAD, ids=range(len(BAD)))
def test_bad_arguments(make, error, text):
    x = tf.placeholder(tf.float32, [None, 3])
    with pytest.raises(error) as caught:
        make(x)
    assert text in str(caught.value) and "in test_host_ops.py:" in str(caught.value)


def test_sizes_of_values_that_do_not_fit(device):
    x, y = tf.placeholder(tf.float32, [None]), tf.placeholder(tf.float32, [None])
    both = tf.boolean_mask(x, x > 0) + y
    assert run(both, {x: [1, -1, 2], y: [5, 5]}).tolist() == [6, 7]
    with pytest.raises(ShapeError, match=r"(?s)add: the values make shapes.*of shape \[3\].*test_host_ops.py"):
        run(both, {x: [1, 1, 2], y: [5, 5]})


# several at once ---------------------------------------------------------------------------------------------------------


def test_host_ops_in_a_row(device):
    """The size of one decides about the next; two named batch sizes; one program for all."""
    x, t = tf.placeholder(tf.float32, ["B", 3]), tf.placeholder(tf.int32, ["T"])
    rows = tf.boolean_mask(x, x[:, 0] > -3)
    kept, where = tf.unique(tf.cast(rows[:, 0] / 4, tf.int32))
    tail = tf.setdiff1d(tf.concat([kept, t], 0), t)[0]
    total = tf.reduce_sum(rows * tf.cast(where, tf.float32)[:, None]) + tf.cast(tf.reduce_sum(tail), tf.float32)
    make = tf.zeros([tf.shape(tail)[0], tf.shape(x)[0]])
    with tf.Session() as session:
        call = session.make_callable([total, make, tail], [x, t])
        for batch, other in ((X, [7, 1]), (np.repeat(X, 3, 0), [1]), (X[:0], [2, 3])):
            picked = batch[batch[:, 0] > -3]
            small = (picked[:, 0] / 4).astype(np.int32)
            distinct = list(dict.fromkeys(small.tolist()))
            left = [v for v in [*distinct, *other] if v not in other]
            got = call(batch, np.array(other, np.int32))
            want = (picked * np.array([distinct.index(v) for v in small], np.float32).reshape(-1, 1)).sum() + sum(left)
            assert got[0] == np.float32(want)
            assert got[1].shape == (len(left), len(batch))
            assert got[2].tolist() == left


def test_a_host_op_that_nobody_needs_does_not_run(device):
    calls = []
    x = tf.placeholder(tf.float32, [2])
    tf.py_func(lambda v: calls.append(1) or v, [x], tf.float32, shape=[2])
    doubled = x * 2
    assert run(doubled, {x: [1, 2]}).tolist() == [2, 4] and not calls


def test_programs_without_host_ops_are_what_they_were():
    x = tf.placeholder(tf.float32, [2])
    with tf.Session() as session:
        session.run(x + 1, {x: [1, 2]})
        session.run(tf.unique(x).y, {x: [1, 2]})
        assert [type(c) for c in session._compiled.values()] == [Native, Chained]


def test_most_runs_in_the_last_segment():
    """What no host op needs is compiled together, behind the last one."""
    x = tf.placeholder(tf.float32, [None])
    y = tf.exp(x) + tf.reduce_sum(tf.unique(x * 2).y)
    with tf.Session() as session:
        session.run(y, {x: [1, 2]})
        chain: Chain = next(iter(session._compiled.values())).chain
    assert [any("exp" in symbol for symbol in p.objects) for p in chain.programs] == [False, True]


def test_the_same_bits_with_one_and_two_threads():
    x = tf.placeholder(tf.float32, [None, 50])
    y = tf.reduce_sum(tf.boolean_mask(tf.exp(x), x[:, 0] > 0), axis=0)
    values = np.random.default_rng(0).normal(size=(3000, 50)).astype(np.float32)
    found = []
    for count in (1, 2):
        with parallel(count):
            found.append(run(y, {x: values}).tobytes())
    assert found[0] == found[1]


# variables ---------------------------------------------------------------------------------------------------------------


def test_a_run_reads_old_values_and_writes_at_its_end(device):
    v = tf.Variable([1.0, -2.0, 3.0])
    up = v.assign_add(tf.ones([3]) * tf.reduce_sum(tf.boolean_mask(v, v > 0)))
    with tf.control_dependencies([up]):
        later = tf.boolean_mask(v.read_value(), v.read_value() > 3)
    with tf.Session() as session:
        session.run(v.initializer)
        got = session.run([v, up, later, tf.boolean_mask(v, v < 0)])
        assert [g.tolist() for g in got] == [[1, -2, 3], [5, 2, 7], [5, 7], [-2]]
        assert session.run(v).tolist() == [5, 2, 7]


@pytest.mark.parametrize("where", ["before", "between", "after"])
def test_a_run_that_fails_changes_nothing(where, device):
    v, w = tf.Variable([1.0, 2.0]), tf.Variable(0)
    k = tf.placeholder(tf.int32, [])
    checked = tf.constant([5, 6]) // k
    if where == "before":
        picked = tf.unique(checked).y
    elif where == "between":
        picked = tf.unique(tf.unique(checked * 0 + 1).y // k).y
    else:
        picked = tf.unique(tf.constant([5, 6])).y // k
    step = tf.group(v.assign(v * 2), w.assign(tf.reduce_sum(picked)))
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        with pytest.raises(RunError, match="floordiv_int: integer division by zero"):
            session.run(step, {k: 0})
        assert session.run(v).tolist() == [1, 2] and session.run(w) == 0
        session.run(step, {k: 1})
        assert session.run(v).tolist() == [2, 4]


def test_a_python_function_that_raises_changes_nothing(device):
    v = tf.Variable(1.0)

    def fail(x):
        raise KeyError("mine")
    step = v.assign(tf.py_func(fail, [v * 2], tf.float32, shape=[]))
    with tf.Session() as session:
        session.run(v.initializer)
        with pytest.raises(KeyError, match="mine"):
            session.run(step)
        assert session.run(v) == 1


def test_what_python_gets_of_a_variable_is_a_copy(device):
    v = tf.Variable([1.0, 2.0])
    kept = []

    def keep(x):
        kept.append(x)
        x += 10
        return x
    changed = tf.py_func(keep, [v], tf.float32, shape=[2])
    step = v.assign(v * 2 + tf.reduce_sum(changed) * 0)
    with tf.Session() as session:
        session.run(v.initializer)
        got, old, _ = session.run([changed, v, step])
        assert got.tolist() == [11, 12] and old.tolist() == [1, 2]
        assert session.run(v).tolist() == [2, 4] and kept[0].tolist() == [11, 12]


def test_random_ops_of_one_run_count_one_number(device):
    """Whatever segments they are in, and whether there are any."""
    def draw():
        return tf.random_uniform([4], seed=3)
    first = draw()
    cut = tf.boolean_mask(draw(), [True] * 4)
    n = tf.unique(tf.cast(tf.concat([cut, cut], 0) * 100, tf.int32)).y
    last = draw() + 0 * tf.cast(tf.reduce_sum(n), tf.float32)
    with tf.Session() as session:
        both = [session.run([first, cut, last]) for _ in range(3)]
    with tf.Session() as session:
        alone = [session.run(first) for _ in range(3)]
    for values, want in zip(both, alone, strict=True):
        for value in values:
            np.testing.assert_array_equal(value, want)


def test_training_through_a_mask(device):
    x, t = tf.placeholder(tf.float32, [None, 3]), tf.placeholder(tf.float32, [None])
    w = tf.Variable(np.zeros((3, 1), np.float32))
    use = t > 0
    loss = tf.reduce_mean(tf.square(tf.boolean_mask(tf.matmul(x, w)[:, 0] - t, use)))
    step = tf.train.GradientDescentOptimizer(0.01).minimize(loss)
    target = np.array([3.0, -1.0, 2.0, 1.0], np.float32)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        losses = [session.run([loss, step], {x: X, t: target})[0] for _ in range(20)]
        got = session.run(w)
    v, want = np.zeros(3), []
    for _ in range(20):
        error = (X @ v - target)[target > 0]
        want.append(np.mean(error**2))
        v = v - 0.01 * 2 * X[target > 0].T @ error / 3
    np.testing.assert_allclose(losses, want, rtol=1e-4)
    np.testing.assert_allclose(got[:, 0], v, rtol=1e-4)


def test_rows_of_a_table_that_unique_picks(device):
    """The update of a few rows, routines, and sizes that are named only: in one program."""
    table, ids = tf.Variable(np.ones((5, 2), np.float32)), tf.placeholder(tf.int32, [None])
    x, n = tf.placeholder(tf.float32, [None, 3]), tf.placeholder(tf.int32, [])
    step = tf.train.GradientDescentOptimizer(0.25).minimize(tf.reduce_sum(tf.square(tf.gather(table, tf.unique(ids).y))))
    best, where = tf.nn.top_k(x[:n], 2)
    with tf.Session() as session:
        session.run(table.initializer)
        got = session.run([best, where, step], {x: X, n: 3, ids: [1, 1, 4]})
        np.testing.assert_array_equal(got[0], X[:3, :0:-1])
        assert got[1].tolist() == [[2, 1]] * 3
        assert session.run(table)[:, 0].tolist() == [1, 0.5, 1, 1, 0.5]


def test_runs_from_several_threads(device):
    v = tf.Variable(0.0)
    step = v.assign_add(tf.reduce_sum(tf.unique(tf.constant([1.0, 1.0])).y))
    with tf.Session() as session:
        session.run(v.initializer)
        session.run(step)
        threads = [threading.Thread(target=lambda: [session.run(step) for _ in range(20)]) for _ in range(3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert session.run(v) == 61


# Python ------------------------------------------------------------------------------------------------------------------


def test_a_python_function_may_run_the_session(device):
    """It sees the variables as they are before the outer run writes."""
    v = tf.Variable([1.0, 2.0])
    double = v * 2
    with tf.Session() as session:
        inner = tf.py_func(lambda: session.run(double), [], tf.float32, shape=[2])
        step = v.assign_add(inner)
        session.run(v.initializer)
        assert session.run(step).tolist() == [3, 6] and session.run(double).tolist() == [6, 12]


def test_py_func(device):
    x = tf.placeholder(tf.float32, [None, 3])
    y, n = tf.py_func(lambda a: (a[a[:, 0] > 0], len(a)), [x * 2], [tf.float32, tf.int64], shape=[[None, 3], []])
    alone = tf.numpy_function(lambda: np.float64(0.5), [], tf.float32, shape=())
    got = run([y + 1, n, alone, tf.shape(y)], {x: X})
    np.testing.assert_array_equal(got[0], (2 * X[X[:, 0] > 0]) + 1)
    assert (got[1], got[2], got[3].tolist()) == (4, 0.5, [2, 3])
    assert tf.gradients(y, x) == [None]


@pytest.mark.parametrize(("function", "error", "text"), [
    (lambda x: x[:2], ShapeError, r"python_call: a result of shape \(2, 3\) does not fit f32\[4,3\]"),
    (lambda x: x[0], ShapeError, r"a result of shape \(3,\) does not fit"),
    (lambda x: (x, x), ShapeError, r"a result of shape \(2, 4, 3\) does not fit"),
    (lambda x: "text", RunError, "python_call: <lambda>: <U4 does not convert to float32"),
])
def test_what_a_python_function_gives_is_checked(function, error, text, device):
    y = tf.py_func(function, [tf.constant(X)], tf.float32, shape=[4, 3])
    with pytest.raises(error, match=f"(?s){text}.*test_host_ops.py"):
        run(y)


def test_an_operation_of_python_runs_when_something_is_ordered_after_it(device):
    calls = []
    x = tf.placeholder(tf.float32, [])
    note = tf.py_func(lambda v: calls.append(float(v)), [x], [])
    with tf.control_dependencies([note]):
        y = x + 1
    assert run(y, {x: 3.0}) == 4 and calls == [3]
    assert run(note, {x: 5.0}) is None and calls == [3, 5]
    assert run(x + 1, {x: 7.0}) == 8 and calls == [3, 5]


def test_print(device, capfd):
    x = tf.placeholder(tf.float32, [None])
    y = tf.Print(x * 2, [x, "and", tf.reduce_sum(x)], "x is ", first_n=2, summarize=2)
    slope, = tf.gradients(tf.square(y), x)
    with tf.Session() as session:
        for _ in range(3):
            assert session.run(slope, {x: [1, 2, 3]}).tolist() == [8, 16, 24]
    assert capfd.readouterr().err == "x is [1.0 2.0...] and [6.0]\n" * 2


def test_assert(device):
    x, v = tf.placeholder(tf.float32, [None]), tf.Variable(0.0)
    with tf.control_dependencies([tf.Assert(tf.reduce_all(x > 0), ["x must be positive:", x])]):
        step = v.assign(tf.reduce_sum(x))
    with tf.Session() as session:
        session.run(v.initializer)
        assert session.run(step, {x: [1, 2]}) == 3
        with pytest.raises(RunError, match=r"(?s)require: the assertion failed: x must be positive: \[1.0 -2.0 3.0...\]"
                                           r".*test_host_ops.py"):
            session.run(step, {x: [1, -2, 3, 4]})
        assert session.run(v) == 3


@pytest.mark.parametrize("level", [1, 2])
def test_with_checks_and_dumps(level, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(options, "check", level)
    monkeypatch.setattr(options, "dump", str(tmp_path))
    monkeypatch.setattr(options, "debug", 1)
    x, n = tf.placeholder(tf.float32, [None, 3]), tf.placeholder(tf.int32, [])
    v = tf.Variable(1.0)
    y = tf.boolean_mask(x, x[:, 0] > 0)[:n] * v
    step = v.assign_add(tf.reduce_sum(tf.gradients(y, x)[0]))
    with tf.Session() as session:
        session.run(v.initializer)
        got = session.run([y, step], {x: X, n: 1})
    np.testing.assert_array_equal(got[0], X[2:3])
    assert got[1] == 4
    text, = [path.read_text() for path in tmp_path.glob("001*/*-segment.graph")]
    assert "= true_positions(" in text and "= segment(" in text
    assert ": segment " in capfd.readouterr().err
