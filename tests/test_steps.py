"""`Session.run_steps`: the same as so many runs, in one native call."""
import _thread
import threading
import time

import numpy as np
import pytest

import graphc as tf
from graphc.runtime import threads

RANDOM = np.random.default_rng(0)
ROWS = 50
FEATURES, TARGET = RANDOM.normal(size=(ROWS, 3)).astype(np.float32), RANDOM.normal(size=ROWS)
LABELS = RANDOM.integers(0, 4, ROWS).astype(np.int32)


@pytest.fixture(autouse=True)
def seeded(fresh_graph):
    tf.set_random_seed(3)


class Model:
    """Feeds of three dtypes and row sizes, random ops, several variables, a step counter."""

    def __init__(self):
        self.x = tf.placeholder(tf.float32, [None, 3], name="x")
        self.y = tf.placeholder(tf.float64, [None], name="y")
        self.label = tf.placeholder(tf.int32, [None], name="label")
        self.rate = tf.placeholder(tf.float32, [], name="rate")
        self.w = tf.Variable(tf.random_normal([3, 4]))
        self.steps = tf.Variable(0, trainable=False)
        logits = tf.nn.dropout(self.x, 0.7) @ self.w
        self.loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=self.label, logits=logits))
        self.loss += tf.cast(tf.reduce_mean(tf.square(self.y)), tf.float32) * self.rate
        self.total = tf.reduce_sum(self.x, 0)
        self.train = tf.train.AdamOptimizer(0.1).minimize(self.loss, global_step=self.steps)
        self.fetches = {"loss": self.loss, "rest": (self.train, self.total, self.x * 2, self.steps)}
        self.data = {self.x: FEATURES, self.y: TARGET, "label": LABELS}

    def one_by_one(self, session, batches):
        found = [session.run(self.fetches, {self.x: FEATURES[rows], self.y: TARGET[rows], self.label: LABELS[rows],
                                            self.rate: 0.5}) for rows in batches]
        return [f["loss"] for f in found], *zip(*[f["rest"][1:] for f in found], strict=True)

    def state(self, session):
        return [session.run(v).tobytes() for v in tf.global_variables()]


def in_order(size, steps, drop):
    starts = range(0, ROWS - size + 1 if drop else ROWS, size)
    return [np.arange(ROWS)[s:s + size] for s in starts] * steps


def shuffled(size, steps, drop):
    return [rows for rows, _ in tf.data.batches(np.arange(ROWS), np.arange(ROWS), size, seed=7, epochs=steps, drop_last=drop)]


@pytest.mark.parametrize(("size", "steps"), [(8, None), (8, 16), (10, 23), (50, 4), (64, 3), (1, 52), (None, 5), (8, 0)])
@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("order", [in_order, shuffled])
def test_the_same_as_runs_one_by_one(size, steps, drop, order, device):
    if size == 64 and drop:
        return
    model = Model()
    with tf.Session() as one, tf.Session() as many:
        for session in (one, many):
            session.run(tf.global_variables_initializer())
        rows = min(size or ROWS, ROWS)
        count = (ROWS // rows if drop else -(-ROWS // rows)) if steps is None else steps
        wanted = model.one_by_one(one, order(rows, count, drop)[:count])
        found = many.run_steps(model.fetches, model.data, size, steps, shuffle=order is shuffled, seed=7,
                               drop_remainder=drop, feed_dict={model.rate: 0.5})
        losses, (nothing, totals, doubles, numbers) = found["loss"], found["rest"]
        assert nothing is None and losses.dtype == np.float32 and losses.shape == (count,) and totals.shape == (count, 3)
        if count:
            assert losses.tobytes() == np.array(wanted[0]).tobytes() and totals.tobytes() == np.array(wanted[1]).tobytes()
            assert all(a.tobytes() == b.tobytes() and a.shape == b.shape for a, b in zip(doubles, wanted[2], strict=True))
            assert np.array_equal(numbers, wanted[3])
        assert model.state(one) == model.state(many) and one.store.counter[0] == many.store.counter[0]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_same_bits_with_any_number_of_threads(count):
    x = tf.placeholder(tf.float32, [None, 64])
    v = tf.Variable(np.zeros(64, np.float32))
    total, step = tf.reduce_sum(tf.tanh(x) * x), v.assign_add(tf.reduce_mean(tf.tanh(x), 0))
    data = np.random.default_rng(0).normal(size=(40_000, 64)).astype(np.float32)
    found = []
    with tf.Session() as session:
        try:
            for number in (1, count):
                threads.set_num_threads(number)
                session.run(v.initializer)
                found.append(session.run_steps([total, step], {x: data}, 9_000, 60 // count, shuffle=True, seed=1))
        finally:
            threads.set_num_threads(None)
    for a, b in zip(*found, strict=True):
        assert a[:len(b)].tobytes() == b.tobytes()


def test_results_of_every_size_stand_where_they_should(device):
    x = tf.placeholder(tf.float32, [None, 1])
    for size in (1, 3, 17_001, 40_000):
        y = tf.fill([size], 1.0) * tf.reduce_sum(x)
        with tf.Session() as session:
            found = session.run_steps(y, {x: np.arange(7)[:, None]}, 2)
        assert found.shape == (4, size) and (found == np.array([1, 5, 9, 6])[:, None]).all()


def test_large_results_past_the_caches():
    x = tf.placeholder(tf.float32, [None])
    data = np.arange(3, dtype=np.float32)
    with tf.Session() as session:
        found = session.run_steps(tf.fill([9_000_001], 1.0) + x[0], {x: data}, 1)
    assert [(f == k + 1).all() for k, f in enumerate(found)] == [True] * 3


def test_fetches_of_one_tensor_twice_and_of_nothing():
    x = tf.placeholder(tf.float32, [None])
    total = tf.reduce_sum(x)
    with tf.Session() as session:
        a, b = session.run_steps((total, total), {x: [1, 2, 3]}, 1)
        a[:] = 0
        assert b.tolist() == [1, 2, 3] and session.run_steps([], {x: [1, 2]}, 1) == []
        assert session.run_steps(total, {x: np.zeros(0)}, 4).shape == (0,)


def test_feeds_are_converted_and_cut(device):
    x, k = tf.placeholder(tf.float32, [None, 2], name="x"), tf.placeholder(tf.int8, [2], name="k")
    y = tf.reduce_sum(x * tf.cast(k, tf.float32), 1)
    table = np.arange(8, dtype=np.float64).reshape(2, 4)
    with tf.Session() as session:
        for data in (table.T, table.T.tolist(), np.asfortranarray(table.T.astype(np.float32)),
                     table.T.astype(">f4"), table.T.astype(np.uint8)):
            found = session.run_steps(y, {"x:0": data}, 3, feed_dict={"k": [1, 10]})
            assert [f.tolist() for f in found] == [[40, 51, 62], [73]]


def test_without_arrays(device):
    v = tf.Variable(1.0)
    double, k = v.assign(v * 2), tf.placeholder(tf.float32, [])
    with tf.Session() as session:
        session.run(v.initializer)
        assert session.run_steps(double, steps=5).tolist() == [2, 4, 8, 16, 32]
        assert session.run_steps(v + k, steps=2, feed_dict={k: 1}).tolist() == [33, 33]
        assert len(set(session.run_steps(tf.random_uniform([]), {}, steps=50).tolist())) == 50


def test_feeds_from_an_iterator(device):
    x, k = tf.placeholder(tf.float32, [None]), tf.placeholder(tf.float32, [])
    v = tf.Variable(0.0)
    fetches = [v.assign_add(tf.reduce_sum(x) * k), x * 2]
    feeds = [{x: np.arange(n)} for n in (3, 4, 1, 0, 5)]
    told = []
    with tf.Session() as session:
        session.run(v.initializer)
        sums, lists = session.run_steps(fetches, iter(feeds), feed_dict={k: 2}, progress=lambda done, _: told.append(done))
        assert sums.tolist() == [6, 18, 18, 18, 38] and [a.tolist() for a in lists[:2]] == [[0, 2, 4], [0, 2, 4, 6]]
        assert told[-1] == 5
        assert session.run_steps(fetches[0], iter(feeds), steps=2, feed_dict={k: 2}).tolist() == [44, 56]
        assert session.run_steps(fetches[0], [], feed_dict={k: 2, x: [1]}).shape == (0,)
        session.run_steps(fetches[0], rest := iter(feeds), steps=2, feed_dict={k: 2})
        assert len(list(rest)) == 3                                # no more were taken than were used


def test_host_ops_run_step_by_step():
    x = tf.placeholder(tf.float32, [None])
    v = tf.Variable(0.0)
    y = v.assign_add(tf.reduce_sum(tf.boolean_mask(x, x > 0)))
    with tf.Session() as session:
        session.run(v.initializer)
        assert session.run_steps(y, {x: [1, -1, 2, 3, -5]}, 2).tolist() == [1, 6, 6]


def test_the_order_without_a_seed():
    x = tf.placeholder(tf.int64, [None])

    def orders(graph_seed):
        with tf.Graph().as_default(), tf.Session() as session:
            tf.set_random_seed(graph_seed)
            fed = tf.placeholder(tf.int64, [None])
            return [np.concatenate(session.run_steps(fed + 0, {fed: np.arange(20)}, 3, 14, shuffle=True)) for _ in range(2)]
    a, b = orders(1)
    assert all(sorted(part) == list(range(20)) for part in (a[:20], a[20:], b[:20]))
    assert len({part.tobytes() for part in (a[:20], a[20:], b[:20], b[20:])}) == 4
    assert np.array_equal(orders(1), [a, b]) and not np.array_equal(orders(2), [a, b])
    assert x.graph is tf.get_default_graph()


# errors ------------------------------------------------------------------------------------------------------------------


def looked_up():
    k = tf.placeholder(tf.int32, [None], name="k")
    v = tf.Variable(0)
    return k, v, v.assign_add(tf.reduce_sum(tf.gather(tf.constant([10, 20]), k)))


@pytest.mark.parametrize("host", [False, True])
def test_a_failing_step_keeps_those_before_it(device, host):
    k, v, add = looked_up()
    if host:
        add = add + tf.size(tf.boolean_mask(k, k >= 0))
    data = np.array([0, 1, 1, 1, 0, 7, 0, 0], np.int32)
    with tf.Session() as session:
        session.run(v.initializer)
        with pytest.raises(tf.errors.RunError) as found:
            session.run_steps(add, {k: data}, 2, 8)
        text = str(found.value)
        assert text.startswith("gather: index out of range: indices[1] = 7 is not in [0, 2)\n"
                               "    in step 3 of 8, rows 4 to 5 of the data; the 2 before it are done\n"
                               "  in test_steps.py:"), text
        assert found.value.location.line == looked_up.__code__.co_firstlineno + 3
        assert session.run(v) == 70
        assert session.run_steps(add, {k: data[:4]}, 2)[-1] == 140 + 2 * host


def test_a_failing_step_of_shuffled_rows():
    k, v, add = looked_up()
    data = np.zeros(40, np.int32)
    data[33] = -1
    order = np.random.default_rng(4).permutation(40)
    place = int(np.flatnonzero(order == 33)[0])
    with tf.Session() as session:
        session.run(v.initializer)
        rows = ", ".join(map(str, order[place // 4 * 4:][:4]))
        with pytest.raises(tf.errors.RunError, match=rf"indices\[{place % 4}\] = -1 .*\n    in step {place // 4 + 1} of 10, "
                                                     rf"rows {rows} of the data"):
            session.run_steps(add, {k: data}, 4, shuffle=True, seed=4)
        assert session.run(v) == place // 4 * 40


def test_a_feed_of_an_iterator_that_does_not_fit():
    k, v, add = looked_up()
    with tf.Session() as session:
        session.run(v.initializer)
        with pytest.raises(tf.errors.FeedError, match=r"(?s)in step 2 of 5; the 1 before it is done.*fraction would"):
            session.run_steps(add, [{k: [0]}, {k: [0.5]}], steps=5)
        assert session.run(v) == 10


BAD = [
    (lambda m: ({m.x: FEATURES, m.y: TARGET[1:]}, 4), tf.errors.FeedError,
     r"first axis of rows.*\n +feed  x of shape \(50, 3\)\n +feed  y of shape \(49,\)"),
    (lambda m: ({m.x: 1.0}, 4), tf.errors.FeedError, "first axis of rows"),
    (lambda m: ({m.x: FEATURES[:, :2]}, 4), tf.errors.FeedError, r"feed for 'x.*' of shape \(4, 2\) does not fit"),
    (lambda m: ({m.x: FEATURES}, 0), tf.errors.ArgumentError, "batch_size is a whole number from 1, not 0"),
    (lambda m: ({m.x: FEATURES}, True), tf.errors.ArgumentError, "batch_size is a whole number from 1, not True"),
    (lambda m: ({m.x: FEATURES}, 4, -1), tf.errors.ArgumentError, "steps is a whole number from 0, not -1"),
    (lambda m: ({m.x: FEATURES}, 4, 2.0), tf.errors.ArgumentError, "steps is a whole number from 0, not 2.0"),
    (lambda m: ({m.x: FEATURES[:0]}, 4, 3), tf.errors.ArgumentError, "3 steps on arrays of no rows"),
    (lambda m: ([{m.x: FEATURES}], 4), tf.errors.ArgumentError, "batch_size, shuffle, seed and drop_remainder are for arrays"),
    (lambda m: (None, None, None), tf.errors.ArgumentError, "must be told how many steps"),
    (lambda m: ({m.x: FEATURES}, 4), tf.errors.FeedError, "the placeholder 'y' must be fed"),
]


@pytest.mark.parametrize(("arguments", "error", "text"), BAD)
def test_bad_arguments(arguments, error, text):
    model = Model()
    with tf.Session() as session:
        with pytest.raises(error, match=text):
            session.run_steps(model.loss, *arguments(model))
        assert session.store.counter[0] == 0


def test_more_bad_arguments():
    x = tf.placeholder(tf.float32, [4, 1], name="x")
    v = tf.Variable(1.0, name="v")
    y = tf.reduce_sum(x) * v
    data = np.ones((10, 1), np.float32)
    session = tf.Session()
    with pytest.raises(tf.errors.FeedError, match=r"(?s)last batch of 2 rows does not fit 'x.*2 != 4.*drop_remainder=True"):
        session.run_steps(y, {x: data}, 4)
    with pytest.raises(tf.errors.ArgumentError, match="no batch of 11 can be made of 10 rows"):
        session.run_steps(y, {x: data}, 11, drop_remainder=True)
    with pytest.raises(tf.errors.FeedError, match="'x:?0?' is fed twice"):
        session.run_steps(y, {x: data}, 4, feed_dict={x: data})
    with pytest.raises(tf.errors.StateError, match="'v' is not initialised"):
        session.run_steps(y, {x: data}, 4, drop_remainder=True)
    session.run(v.initializer)
    assert session.run_steps(y, {x: data}, 4, drop_remainder=True).tolist() == [4, 4]
    assert session.run_steps(y, {x: data}, 4, 2).tolist() == [4, 4]      # the last batch is not reached
    session.close()
    with pytest.raises(tf.errors.SessionError, match="the session is closed"):
        session.run_steps(y, {x: data}, 4, drop_remainder=True)


# while it runs -----------------------------------------------------------------------------------------------------------


def long_steps():
    """(x, v, a step that takes some tens of microseconds and adds 1 to v)."""
    x = tf.placeholder(tf.float32, [None, 128])
    v = tf.Variable(0.0)
    return x, v, v.assign_add(tf.reduce_sum(tf.tanh(tf.exp(x))) * 0 + 1)


def test_progress_is_told_now_and_then(device):
    x, v, step = long_steps()
    data, told = np.ones((600, 128), np.float32), []
    steps = 20_000 if device == "cpu" else 600  # more than native code does at a time

    def progress(done, values):
        assert values["step"].tolist() == list(range(1, done + 1)) and session.run(v) == done
        told.append(done)
    with tf.Session() as session:
        session.run(v.initializer)
        session.run_steps({"step": step}, {x: data}, 300, steps, progress=progress)
    assert told == sorted(set(told)) and told[-1] == steps and len(told) > 1


def test_progress_may_run_the_same_program_and_change_the_threads():
    x, v, step = long_steps()
    data = np.ones((900, 128), np.float32)
    inner = []

    def progress(done, _):
        inner.append(session.run(step, {x: data[:300]}))
        inner.extend(session.run_steps(step, {x: data}, 300, shuffle=True))
        threads.set_num_threads(1 + len(inner) % 3)
    with tf.Session() as session:
        session.run(v.initializer)
        try:
            found = session.run_steps(step, {x: data}, 300, 600, progress=progress)
        finally:
            threads.set_num_threads(None)
        assert len(inner) >= 4
        assert sorted([*found, *inner]) == list(range(1, 601 + len(inner)))


def test_an_error_of_progress_ends_the_steps():
    x, v, step = long_steps()

    def progress(done, _):
        raise KeyError(done)
    with tf.Session() as session:
        session.run(v.initializer)
        with pytest.raises(KeyError) as error:
            session.run_steps(step, {x: np.ones((300, 128), np.float32)}, 300, 100_000, progress=progress)
        assert session.run(v) == error.value.args[0] < 100_000


def test_ctrl_c():
    x, v, step = long_steps()
    data = np.ones((100, 128), np.float32)
    with tf.Session() as session:
        session.run(v.initializer)
        session.run_steps(step, {x: data}, 100, 10)
        for _ in range(5):
            before, start = session.run(v), time.monotonic()
            timer = threading.Timer(0.1, _thread.interrupt_main)
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                session.run_steps(step, {x: data}, 100, 10**9)
            timer.join()
            assert time.monotonic() - start < 10
            assert session.run(v) > before and not session.store.access.words.any()


def in_threads(works):
    errors = []

    def body(work):
        try:
            work()
        except BaseException as e:
            errors.append(e)
    workers = [threading.Thread(target=body, args=(w,)) for w in works]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    if errors:
        raise errors[0]


def test_series_and_runs_of_several_threads():
    """Writers take turns step by step; readers see what some step left."""
    x = tf.placeholder(tf.float32, [None])
    v, w = tf.Variable(np.zeros(3000, np.float32)), tf.Variable(0.0)
    step = tf.group(v.assign_add(tf.fill([3000], 1.0) * x[0]), w.assign_add(x[0]))
    spread = tf.reduce_max(v) - w, tf.reduce_min(v) - w
    data = np.ones(70, np.float32)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())

        def write():
            for k in range(10):
                session.run_steps(step, {x: data}, 10, 70, shuffle=k % 2 == 1)

        def write_singly():
            for _ in range(150):
                session.run(step, {x: [1]})

        def read():
            for _ in range(10):
                high, low = session.run_steps(spread, steps=50)
                assert not high.any() and not low.any()
        in_threads([write, write, write_singly, read, read])
        assert session.run(w) == 2 * 10 * 70 + 150
        assert not session.store.access.words.any()
