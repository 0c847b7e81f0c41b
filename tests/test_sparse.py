"""Rows of variables: scatter ops, gradients of gathers, optimizers; that no work of the table's size is done for a few rows."""
import numpy as np
import pytest

import graphc as tf
from graphc.cli.measure import work_of
from graphc.codegen.build import lower
from graphc.errors import RunError, StateError
from graphc.ir import dims
from graphc.ir.graph import capture
from graphc.passes.manager import run_passes
from graphc.passes.pipeline import PIPELINE

ROWS, WIDTH, COUNT = 1_000_000, 8, 32


pytestmark = pytest.mark.usefixtures("fresh_graph")


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
    temporaries = dims.substitute(plan.arena, {"N": COUNT, "threads_": 1})
    return sum(r.operations for r in work_of(plan, {"N": COUNT}, 1)), temporaries, len(plan.records)


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


def test_a_step_of_adagrad_and_lazy_ones_touch_the_rows_used():
    for optimizer in (tf.train.AdagradOptimizer(0.1), tf.train.AdamOptimizer(lazy=True),
                      tf.train.MomentumOptimizer(0.1, 0.9, lazy=True)):
        step, ids, _ = embedding_step(optimizer)
        operations, temporaries, _ = work(step, ids)
        assert operations < 200 * COUNT * WIDTH, optimizer.name
        assert temporaries < 60 * COUNT * WIDTH, optimizer.name
    assert work(*embedding_step(tf.train.AdamOptimizer())[:2])[0] > ROWS * WIDTH, "its slots decay for all rows"


OPTIMIZERS = {
    "sgd": (lambda: tf.train.GradientDescentOptimizer(0.1), True),
    "adagrad": (lambda: tf.train.AdagradOptimizer(0.1), True),
    "adam": (lambda: tf.train.AdamOptimizer(0.1), True),
    "momentum": (lambda: tf.train.MomentumOptimizer(0.1, 0.9, use_nesterov=True), True),
    "rmsprop": (lambda: tf.train.RMSPropOptimizer(0.1), True),
    "lazy adam": (lambda: tf.train.AdamOptimizer(0.1, lazy=True), False),
    "lazy momentum": (lambda: tf.train.MomentumOptimizer(0.1, 0.9, lazy=True), False),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_by_rows_is_training(session, name):
    """The same steps on a table that is only gathered from, and on one whose gradient is a whole tensor."""
    make, is_same = OPTIMIZERS[name]
    ids = tf.placeholder(tf.int64, [None])
    sparse, dense = table(session, "sparse"), table(session, "dense")
    weights = tf.constant(np.linspace(0.5, 1.5, 3).astype(np.float32))
    steps = []
    for variable, source in ((sparse, sparse), (dense, dense * 1)):
        rows = tf.gather(source, ids)
        other = tf.gather(source, [[0], [1]])
        loss = tf.reduce_sum(tf.square(rows * weights - 1)) + tf.reduce_sum(other)
        optimizer = make()
        pairs = optimizer.compute_gradients(loss, [variable])
        assert isinstance(pairs[0][0], tf.IndexedSlices) == (variable is sparse)
        steps.append(optimizer.apply_gradients(pairs))
    session.run([v.initializer for v in tf.global_variables()])
    used = [[1, 1, 5], [5, 7, 5, 5], [0]]
    for picked in used:
        session.run(steps, {ids: picked})
    if is_same:
        np.testing.assert_allclose(session.run(sparse), session.run(dense), rtol=2e-6)
    else:
        got, want = session.run(sparse), session.run(dense)
        assert (got[[2, 3, 4, 6]] == TABLE[[2, 3, 4, 6]]).all()
        np.testing.assert_allclose(got[[0, 1]], want[[0, 1]], rtol=2e-6, err_msg="rows that each step uses")
        assert not np.allclose(got[7], TABLE[7])


def test_repeated_steps_give_the_same_bits(session):
    step, ids, variable = embedding_step_of(tf.train.AdagradOptimizer(0.1))
    found = []
    for _ in range(3):
        session.run(tf.global_variables_initializer())
        for picked in ([3, 3, 1, 3], [1, 1]):
            session.run(step, {ids: picked})
        found.append(session.run(variable).tobytes())
    assert len(set(found)) == 1


def embedding_step_of(optimizer):
    ids = tf.placeholder(tf.int32, [None])
    variable = tf.Variable(TABLE)
    return optimizer.minimize(tf.reduce_sum(tf.sin(tf.gather(variable, ids)))), ids, variable


def test_slices_are_tensors_where_they_are_used(session):
    variable = table(session)
    rows = tf.gather(variable, [[1, 1], [4, 0]])
    (slices, _), = tf.train.GradientDescentOptimizer(1.0).compute_gradients(tf.reduce_sum(rows), [variable])
    assert isinstance(slices, tf.IndexedSlices)
    assert slices.shape == (8, 3)
    want = np.zeros((8, 3))
    np.add.at(want, [1, 1, 4, 0], 1)
    for value, expected in ((slices, want), (slices * 2, want * 2), (tf.convert_to_tensor(slices), want),
                            (tf.clip_by_value(slices, 0, 1), np.minimum(want, 1))):
        np.testing.assert_array_equal(session.run(value), expected)
        np.testing.assert_array_equal(session.run([value])[0], expected)
    count = len(session.graph.nodes)
    session.run(slices)
    assert len(session.graph.nodes) == count
    assert session.run(slices.indices).tolist() == [1, 1, 4, 0]
    with pytest.raises(tf.errors.ArgumentError, match="give dense_shape"):
        tf.convert_to_tensor(tf.IndexedSlices(slices.values, slices.indices))


@pytest.mark.parametrize("other", [lambda v: tf.reduce_sum(v), lambda v: tf.reduce_sum(tf.gather(v, [0], axis=1)),
                                   lambda v: tf.cond(tf.constant(True), lambda: tf.reduce_sum(v), lambda: 0.0)])
def test_a_table_that_is_used_otherwise_has_a_whole_gradient(session, other):
    variable = table(session)
    loss = tf.reduce_sum(tf.gather(variable, [1])) + other(variable)
    (slope, _), = tf.train.AdagradOptimizer(0.1).compute_gradients(loss, [variable])
    assert not isinstance(slope, tf.IndexedSlices)
    assert session.run(slope)[1].sum() > 3
