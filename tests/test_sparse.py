"""Rows of variables: scatter ops, gradients of gathers, optimizers; that no work of the table's size is done for a few rows."""
import numpy as np
import pytest

import graphc as tf
from graphc.cli.measure import work_of
from graphc.codegen.build import lower
from graphc.errors import RunError, StateError
from graphc.ir import dims
from graphc.ir.container import Graph as Container
from graphc.ir.graph import capture
from graphc.passes.manager import run_passes
from graphc.passes.pipeline import PIPELINE

ROWS, WIDTH, COUNT = 1_000_000, 8, 32


@pytest.fixture(autouse=True)
def fresh_graph():
    with Container().as_default():
        yield


@pytest.fixture
def session():
    with tf.Session() as session:
        yield session


TABLE = np.arange(24, dtype=np.float32).reshape(8, 3)


def table(session, name="table"):
    variable = tf.Variable(TABLE, name=name)
    session.run(variable.initializer)
    return variable


@pytest.mark.parametrize(("make", "change"), [
    (lambda v: tf.scatter_add(v, [1, 5, 1], np.ones((3, 3))), lambda t: np.add.at(t, [1, 5, 1], 1)),
    (lambda v: tf.scatter_sub(v, [[1], [5]], 2.0), lambda t: np.subtract.at(t, [1, 5], 2)),
    (lambda v: tf.scatter_update(v, [1, 5, 1], [[1.0] * 3, [2.0] * 3, [3.0] * 3]),
     lambda t: (t.__setitem__(5, 2), t.__setitem__(1, 3))),
    (lambda v: tf.scatter_nd_add(v, [[1, 2], [1, 2]], [1.0, 2.0]), lambda t: t.__setitem__((1, 2), t[1, 2] + 3)),
    (lambda v: tf.scatter_nd_sub(v, [[1, 2]], [1.0]), lambda t: t.__setitem__((1, 2), t[1, 2] - 1)),
    (lambda v: tf.scatter_nd_update(v, [[4]], [[7.0, 8.0, 9.0]]), lambda t: t.__setitem__(4, [7, 8, 9])),
])
def test_scatters_into_variables(session, make, change):
    variable = table(session)
    step = make(variable)
    want = TABLE.copy()
    for _ in range(2):
        change(want)
        np.testing.assert_array_equal(session.run(step), want)
        np.testing.assert_array_equal(session.run(variable), want)


def test_a_bad_index_leaves_everything_as_it_was(session):
    first, second = table(session, "first"), table(session, "second")
    ids = tf.placeholder(tf.int32, [None])
    step = tf.group(tf.scatter_add(first, [0], 1.0), tf.scatter_add(second, ids, 1.0))
    with pytest.raises(RunError, match=r"indices\[1\] = 8 is not in \[0, 8\)"):
        session.run(step, {ids: [2, 8]})
    assert (session.run(first) == TABLE).all()
    assert (session.run(second) == TABLE).all()
    session.run(step, {ids: [2, 7]})
    assert session.run(second)[7].tolist() == [22, 23, 24]


def test_unordered_adds_sum_up_and_updates_conflict(session):
    variable = table(session)
    session.run(tf.group(tf.scatter_add(variable, [1], 1.0), variable.assign_add(TABLE), tf.scatter_sub(variable, [1], 3.0)))
    want = 2 * TABLE
    want[1] -= 2
    np.testing.assert_array_equal(session.run(variable), want)
    with pytest.raises(StateError, match="two writes of the variable table have no order"):
        session.run(tf.group(tf.scatter_update(variable, [1], 0.0), tf.scatter_add(variable, [1], 1.0)))


def test_a_value_that_two_variables_get(session):
    first, second = table(session, "first"), table(session, "second")
    once = tf.tensor_scatter_add(first, [[1]], np.ones((1, 3)))
    twice = tf.tensor_scatter_add(once, [[1]], np.ones((1, 3)))
    session.run(tf.group(first.assign(once), second.assign(twice)))
    assert (session.run(first)[1] == TABLE[1] + 1).all()
    assert (session.run(second)[1] == TABLE[1] + 2).all()


def test_rows_change_in_a_loop(session):
    """The state of a loop takes scattered rows in its own memory; what the loop starts from stays as it was."""
    start = tf.constant(TABLE)

    def body(k, rows):
        return k + 1, tf.tensor_scatter_add(rows, tf.reshape(k, [1, 1]), np.ones((1, 3)))
    _, found = tf.while_loop(lambda k, rows: k < 3, body, [0, start])
    want = TABLE.copy()
    want[:3] += 1
    got, again = session.run([found, start])
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(again, TABLE)


def test_the_old_value_can_be_fetched_beside_the_update(session):
    variable = table(session)
    old = variable * 1
    step = tf.scatter_add(variable, [2, 2], 1.0)
    before, after, _ = session.run([old, step, variable])
    np.testing.assert_array_equal(before, TABLE)
    assert after[2].tolist() == (TABLE[2] + 2).tolist()
    assert session.run(variable)[2].tolist() == (TABLE[2] + 2).tolist()


def work(fetch, *feeds) -> tuple[int, int, int]:
    """(operations, bytes of temporaries, calls) of a run of `fetch` with N = COUNT."""
    _, plan = lower(run_passes(capture("step", [fetch], feeds), PIPELINE))
    slots = sum(dims.substitute(s, {"N": COUNT, "threads_": 1}) for s in plan.slots)
    return sum(r.operations for r in work_of(plan, {"N": COUNT}, 1)), slots, len(plan.records)


def embedding_step(optimizer):
    """(a training step of a large table, its ids, the table)."""
    ids = tf.placeholder(tf.int32, ["N"])
    variable = tf.Variable(tf.zeros([ROWS, WIDTH]))
    rows = tf.nn.embedding_lookup(variable, ids)
    loss = tf.reduce_sum(tf.square(rows - 1.0))
    return optimizer.minimize(loss), ids, variable


def test_a_step_of_gradient_descent_touches_the_rows_used():
    step, ids, _ = embedding_step(tf.train.GradientDescentOptimizer(0.1))
    operations, temporaries, calls = work(step, ids)
    assert operations < 40 * COUNT * WIDTH
    assert temporaries < 40 * COUNT * WIDTH
    assert calls <= 4


def test_gradient_descent_by_hand_touches_the_rows_used():
    ids = tf.placeholder(tf.int32, ["N"])
    variable = tf.Variable(tf.zeros([ROWS, WIDTH]))
    first, second = tf.gather(variable, ids), tf.gather(variable, ids[::-1])
    slope, = tf.gradients(tf.reduce_sum(first * second), variable)
    rate = tf.Variable(0.5)
    operations, temporaries, _ = work(tf.group(variable.assign(variable - rate * slope / 2.0)), ids)
    assert max(operations, temporaries) < 100 * COUNT * WIDTH
    dense = tf.group(variable.assign(variable - rate * slope * variable))
    assert work(dense, ids)[0] > ROWS * WIDTH, "the counting sees a sweep over the table"
