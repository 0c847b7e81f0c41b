"""Calls whose sizes change from call to call: what is laid out when, and by which program."""
import numpy as np
import pytest

import graphc as tf
from graphc.ir.images import FULL
from graphc.runtime import executor


@pytest.fixture
def made(monkeypatch):
    """The sizes of the instances that are made, in order."""
    found, make = [], executor.Instance.__init__

    def counting(self, owner, lane, sizes):
        found.append(sizes)
        make(self, owner, lane, sizes)
    monkeypatch.setattr(executor.Instance, "__init__", counting)
    return found


@pytest.fixture
def prediction(fresh_graph):
    """A call, its session, and what it should give."""
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((5, 40), np.float32), rng.standard_normal((40, 3), np.float32)
    x = tf.placeholder(tf.float32, ["N", 5], name="x")
    y = tf.tanh(x @ tf.constant(first)) @ tf.constant(second)
    with tf.Session() as session:
        yield session.make_callable([y, tf.reduce_sum(y)], [x]), session, lambda x: np.tanh(x @ first) @ second


def check(call, right, x):
    found, total = call(x)
    np.testing.assert_allclose(found, right(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(total, right(x).sum(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("threads", [1, 2])
def test_known_sizes_are_laid_out_once(prediction, made, threads):
    call, _, right = prediction
    rng = np.random.default_rng(1)
    sizes = [4, 1, 0, 1500, 33, 7, 2, 3, 5, 6, 64, 90]
    tf.set_num_threads(threads)
    try:
        for size in [*sizes, *sizes[::-1], *sizes]:
            check(call, right, rng.standard_normal((size, 5), np.float32))
        assert made == [(size,) for size in sizes]
        for count in (3 - threads, threads):    # instances of a number of threads that comes back are used again
            tf.set_num_threads(count)
            for size in sizes[:3] * 2:
                check(call, right, rng.standard_normal((size, 5), np.float32))
        assert len(made) == len(sizes) + 3
    finally:
        tf.set_num_threads(None)


def test_results_that_are_held_outlive_many_sizes(prediction):
    call, _, right = prediction
    inputs = [np.full((size, 5), size / 100, np.float32) for size in range(3 * executor.KEPT_SIZES)]
    held = [call(x)[0] for x in inputs]
    for x, found in zip(inputs, held, strict=True):
        np.testing.assert_allclose(found, right(x), rtol=1e-4, atol=1e-5)


def test_values_of_a_new_size_that_are_no_arrays_in_order(prediction, made):
    call, _, right = prediction
    check(call, right, np.ones((2, 5), np.float32))
    wide = np.random.default_rng(2).standard_normal((14, 10)).astype(np.float32)
    for x in (wide[:, ::2], wide[::2, 5:], wide[:5].T[:, :5].copy(order="F"), wide[:9, :5].astype(np.float64)):
        check(call, right, x)
    check(call, lambda x: right(np.array(x, np.float32)), [[1, 2, 3, 4, 5]] * 3)
    assert [sizes for sizes, in made] == [2, 14, 7, 10, 9, 3]


@pytest.mark.parametrize(("value", "text"), [
    (np.ones((4, 6), np.float32), "does not fit"), (np.ones(5, np.float32), "does not fit"),
    (np.full((4, 5), "a"), "str does not convert"), (np.full((6, 5), 1e300), "it is too large"), (None, "None is not a value")])
def test_wrong_values_of_a_new_size(prediction, value, text):
    call, _, right = prediction
    check(call, right, np.ones((2, 5), np.float32))
    with pytest.raises(tf.errors.FeedError, match=text):
        call(value)
    with pytest.raises(tf.errors.FeedError, match="takes 1 values"):
        call(np.ones((3, 5), np.float32), np.ones((3, 5), np.float32))
    check(call, right, np.ones((3, 5), np.float32))


def test_a_budget_holds_for_a_new_size(fresh_graph):
    x = tf.placeholder(tf.float32, ["N"], name="x")
    y = tf.reshape(tf.reshape(x, [-1, 1]) * tf.reshape(x, [1, -1]), [-1])
    with tf.Session(memory_budget="100K") as session:
        call = session.make_callable(y, [x])
        for size in (10, 100, 10):
            assert call(np.ones(size, np.float32)).shape == (size * size,)
        with pytest.raises(tf.errors.BudgetError, match="more than the budget"):
            call(np.ones(300, np.float32))
        assert call(np.ones(20, np.float32)).shape == (400,)


def test_batches_of_images_change_their_program(fresh_graph, made):
    rng = np.random.default_rng(3)
    kernel = rng.standard_normal((3, 3, 2, 4)).astype(np.float32)
    x = tf.placeholder(tf.float32, ["N", 6, 5, 2], name="x")
    y = tf.nn.relu(tf.nn.conv2d(x, tf.constant(kernel), [1, 1, 1, 1], "SAME"))
    sizes = [3, 40, 5, FULL, FULL - 1, 33]
    images = {size: rng.standard_normal((size, 6, 5, 2)).astype(np.float32) for size in sizes}
    padded = {size: np.pad(value, ((0, 0), (1, 1), (1, 1), (0, 0))) for size, value in images.items()}
    right = {size: np.maximum(sum(v[:, i:i + 6, j:j + 5] @ kernel[i, j] for i in range(3) for j in range(3)), 0)
             for size, v in padded.items()}
    with tf.Session() as session:
        call = session.make_callable(y, [x])
        for size in [*sizes, *sizes[::-1], *sizes]:
            for _ in range(2):
                np.testing.assert_allclose(call(images[size]), right[size], rtol=1e-4, atol=1e-4)
        program, = session._compiled.values()
        used = {few: {instance.sizes for lane in part.executable.lanes for instance in lane.instances.values()}
                for few, part in program.parts.items()}
    assert used == {frozenset(): {(40,), (FULL,), (33,)}, frozenset({"N"}): {(3,), (5,), (FULL - 1,)}}
    assert len(made) == len(sizes)


def test_new_sizes_of_two_batches_go_to_their_program(fresh_graph):
    """At once: without the slow way, which looks at the feeds one by one."""
    x, y = (tf.placeholder(tf.float32, [None, 4, 4, 1]) for _ in range(2))
    kernel = tf.constant(np.random.default_rng(4).standard_normal((2, 2, 1, 3)).astype(np.float32))
    sums = [tf.reduce_sum(tf.nn.conv2d(value, kernel, [1, 1, 1, 1], "VALID"), [1, 2, 3]) for value in (x, y)]

    def images(*sizes):
        return tuple(np.random.default_rng(size).standard_normal((size, 4, 4, 1)).astype(np.float32) for size in sizes)
    with tf.Session() as session:
        call = session.make_callable(sums, [x, y])
        pairs = [(a, b) for a in (3, 20) for b in (4, 30)]
        for sizes in pairs:
            call(*images(*sizes))
        program, = session._compiled.values()
        assert len(program.parts) == len(pairs)
        for a, b in pairs:
            found = program.run_fast(images(a + 2, b + 3))
            assert [len(f) for f in found] == [a + 2, b + 3]
            for mine, right in zip(found, call(*images(a + 2, b + 3)), strict=True):
                np.testing.assert_array_equal(mine, right)
        used = {few: {i.sizes for lane in part.executable.lanes for i in lane.instances.values()}
                for few, part in program.parts.items()}
    assert sorted(len(few) for few in used) == [0, 1, 1, 2]
    for few, sizes in used.items():
        assert len(sizes) == 2 and {sum(s < FULL for s in pair) for pair in sizes} == {len(few)}
