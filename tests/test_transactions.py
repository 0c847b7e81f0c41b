"""A run is a transaction: it reads variables as they were at its start and commits at its end (DESIGN 4)."""
import collections

import numpy as np
import pytest

import graphc as tf

OLD = [1.0, 2.0]


pytestmark = pytest.mark.usefixtures("device", "fresh_graph")


@pytest.fixture
def v():
    return tf.Variable(OLD, name="v")


@pytest.fixture
def w():
    return tf.Variable([10.0, 20.0], name="w")


def run(*fetches, feeds=None):
    """(fetched values, the values of v and w after the run), from fresh variables."""
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        found = session.run(list(fetches), feeds)
        after = session.run(tf.global_variables())
        return [None if f is None else f.tolist() for f in found], [a.tolist() for a in after]


def test_a_read_without_order_sees_the_old_value(v):
    write = v.assign([5, 6])
    assert run(v, write, v + 1, write + 1) == ([OLD, [5, 6], [2, 3], [6, 7]], [[5, 6]])


def test_a_read_after_a_write_sees_the_new_value(v):
    with tf.control_dependencies([v.assign([5, 6])]):
        after, twice = v.read_value(), v * 2
    assert run(after, twice, v) == ([[5, 6], [10, 12], OLD], [[5, 6]])


def test_a_write_after_a_read(v):
    before = v * 1
    with tf.control_dependencies([before]):
        write = v.assign([5, 6])
    assert run(write, before) == ([[5, 6], OLD], [[5, 6]])


def test_unordered_additions_sum_up(v):
    assert run(v.assign_add([1, 1]), v.assign_sub([5, 5]), v.assign_add([10, 10]), v)[1] == [[7, 8]]


def test_an_addition_gives_its_own_sum(v):
    first, second = v.assign_add([1, 1]), v.assign_add([2, 2])
    assert run(first, second) == ([[2, 3], [3, 4]], [[4, 5]])


def test_assign_then_add_in_order(v):
    with tf.control_dependencies([v.assign([5, 6])]):
        added = v.assign_add([1, 1])
    with tf.control_dependencies([added]):
        last = v.assign_sub([0.5, 0.5])
    assert run(last, added, v) == ([[5.5, 6.5], [6, 7], OLD], [[5.5, 6.5]])


def test_add_then_assign_in_order(v):
    with tf.control_dependencies([v.assign_add([100, 100])]):
        last = v.assign([5, 6])
    assert run(last) == ([[5, 6]], [[5, 6]])


def test_order_through_data(v):
    first = v.assign([5, 6])
    assert run(v.assign(first * 2))[1] == [[10, 12]]


def test_swap(v, w):
    assert run(v.assign(w), w.assign(v)) == ([[10, 20], OLD], [[10, 20], OLD])


def test_a_ring_of_three(v, w):
    u = tf.Variable([7.0, 8.0], name="u")
    done = tf.group(v.assign(w), w.assign(u), u.assign(v))
    assert run(done, v) == ([None, OLD], [[10, 20], [7, 8], OLD])


def test_swap_with_arithmetic(v, w):
    assert run(v.assign(w + v), w.assign(v - w))[1] == [[11, 22], [-9, -18]]


def test_the_old_value_of_a_variable_that_changes_in_place(v, w):
    assert run(v.assign_add([1, 1]), w.assign(v))[1] == [[2, 3], OLD]
    assert run(w.assign(v), v.assign_add([1, 1]))[1] == [[2, 3], OLD]


def test_one_value_for_two_variables(v, w):
    x = tf.placeholder(tf.float32, [2])
    total = x + 1
    assert run(v.assign(total), w.assign(total), total, feeds={x: [3, 4]}) == ([[4, 5]] * 3, [[4, 5]] * 2)


def test_a_feed_or_constant_as_value(v, w):
    x = tf.placeholder(tf.float32, [2])
    assert run(v.assign(x), w.assign([8, 9]), x, feeds={x: [3, 4]}) == ([[3, 4], [8, 9], [3, 4]], [[3, 4], [8, 9]])


def test_a_reversed_update_is_not_done_in_place(v):
    assert run(v.assign(tf.reverse(v, [0])), v)[1] == [[2, 1]]
    assert run(v.assign(v + tf.reverse(v, [0]) * 10))[1] == [[21, 12]]


def test_a_variable_fetched_and_updated_gives_an_old_value_of_its_own(v):
    write = v.assign_add([1, 1])
    with tf.Session() as session:
        session.run(v.initializer)
        held = [session.run([v, write]) for _ in range(5)]
        assert [[a.tolist(), b.tolist()] for a, b in held] == [[[k, k + 1], [k + 1, k + 2]] for k in range(1, 6)]
        held[-1][1][:] = -1
        held[-1][0][:] = -1
        assert session.run(v).tolist() == [6, 7]


def test_a_vanished_write_is_not_done(v):
    v.assign([5, 6])  # not fetched
    assert run(v * 2) == ([[2, 4]], [OLD])


def test_group_and_no_op_and_tuple(v, w):
    both = tf.group(v.assign([5, 6]), [w.assign([7, 8])])
    with tf.control_dependencies([both]):
        nothing, late = tf.no_op(), v + w
    assert run(nothing, late, both) == ([None, [12, 14], None], [[5, 6], [7, 8]])
    assert run(tf.group()) == ([None], [OLD, [10, 20]])
    a, missing = tf.tuple([v * 1, None], control_inputs=[w.assign([7, 8])])
    assert missing is None
    assert run(a) == ([OLD], [OLD, [7, 8]])


def test_nested_control_dependencies(v):
    with tf.control_dependencies([v.assign([5, 6])]):
        with tf.control_dependencies(None):
            free = v * 1
        with tf.control_dependencies([tf.no_op()]):
            bound = v * 1
    assert run(free) == ([OLD], [OLD])
    assert run(bound) == ([[5, 6]], [[5, 6]])


def test_two_optimizers_share_a_global_step(v, w):
    step = tf.train.get_or_create_global_step()
    assert tf.train.get_or_create_global_step() is step is tf.train.get_global_step()
    loss = tf.reduce_sum(v * v) + tf.reduce_sum(w * w)
    one = tf.train.GradientDescentOptimizer(0.5).minimize(loss, step, var_list=[v])
    two = tf.train.GradientDescentOptimizer(0.25).minimize(loss, step, var_list=[w])
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        session.run([one, two])
        assert [a.tolist() for a in session.run([v, w, step])] == [[0, 0], [5, 10], 2]
        session.run(one)
        assert session.run(step) == 3
        assert session.run(step).dtype == np.int64


def test_training_sees_the_old_variables_and_gives_the_old_loss(v):
    loss = tf.reduce_sum(v * v)
    train = tf.train.GradientDescentOptimizer(0.5).minimize(loss)
    found, after = run(train, loss, v)
    assert (found, after) == ([None, 5, OLD], [[0, 0]])


def test_initial_values(v):
    copy = tf.Variable(v.initialized_value() * 2, name="copy")
    random = tf.Variable(tf.random_normal([3]), name="random")
    twin = tf.Variable(random.initialized_value(), name="twin")
    late = tf.Variable(lambda: tf.zeros([2]), name="late")
    with tf.control_dependencies([v.assign([5, 6])]):
        calm = tf.Variable([3.0], name="calm")  # its initial value waits for nothing
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        assert session.run(v).tolist() == OLD
        found = session.run([copy, late, calm])
        assert [a.tolist() for a in found] == [[2, 4], [0, 0], [3]]
        assert np.array_equal(*session.run([random, twin]))
        v.load([8, 9], session)
        assert v.eval(session).tolist() == [8, 9]
        session.run(tf.variables_initializer([v]))
        assert v.eval(session=session).tolist() == OLD


def test_slots_and_variables_made_under_control_dependencies(v, w):
    update = w.assign_add([1, 1])
    with tf.control_dependencies([update]):
        train = tf.train.MomentumOptimizer(0.5, 0.9).minimize(tf.reduce_sum(v * v), var_list=[v])
        extra = tf.get_variable("extra", [2])
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        assert session.run(w).tolist() == [10, 20]
        session.run(train)
        assert session.run([v, w])[1].tolist() == [11, 21]
        assert session.run(extra).shape == (2,)


def test_variables_of_all_dtypes_and_shapes():
    made = [tf.Variable(np.full(shape, 1, dtype), name="m") for dtype in ("float32", "float64", "int32", "int64", "uint8")
            for shape in ((), (3,), (2, 0))] + [tf.Variable(True), tf.Variable([True, False])]
    writes = [m.assign_add(np.full(m.shape, 2, m.dtype.numpy)) for m in made[:-2]] + [made[-2].assign(False),
                                                                                     made[-1].assign([False, False])]
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        found = session.run(writes)
        again = session.run(made)
    for m, a, b in zip(made, found, again, strict=True):
        assert a.dtype == b.dtype == m.dtype.numpy
        assert np.array_equal(a, b) and np.shape(a) == tuple(m.shape)
        assert np.all(a == (3 if m.dtype != tf.bool else False))


Pair = collections.namedtuple("Pair", "a b")


def test_failed_runs_of_many_variables_change_none(v, w):
    x = tf.placeholder(tf.float32, [2], name="x")
    checked = tf.check_numerics(x, "x")
    ok, late = v.assign_add(x), w.assign(checked)
    for fetches in (Pair(ok, late), [late, ok], {"a": ok, "b": checked}, tf.group(late, ok)):
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            for _ in range(2):
                with pytest.raises(tf.errors.RunError, match="check_numerics"):
                    session.run(fetches, {x: [1, np.nan]})
                assert [a.tolist() for a in session.run([v, w])] == [OLD, [10, 20]]
            session.run(fetches, {x: [1, 1]})
            assert session.run(v).tolist() == [2, 3]
