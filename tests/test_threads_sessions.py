"""Sessions and Python threads: one session from many threads, runs that overlap and runs that wait, sessions side by side,
Ctrl-C, fork, lanes left busy.
"""
import _thread
import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import graphc as tf
from graphc.runtime import threads
from graphc.runtime.layout import AccessWord, Busy

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


pytestmark = pytest.mark.usefixtures("fresh_graph")


def in_threads(count, work):
    """Runs `work(number)` in threads; raises what any of them raised."""
    errors = []
    start = threading.Barrier(count)

    def body(number):
        try:
            start.wait()
            work(number)
        except BaseException as e:
            errors.append(e)
    workers = [threading.Thread(target=body, args=(k,)) for k in range(count)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("size", [3, 20_000])
def test_one_callable_in_many_threads(size):
    x = tf.placeholder(tf.float32, [None])
    v = tf.Variable(np.int64(0))
    y, total, add = x * 2, tf.reduce_sum(x), v.assign_add(1)
    with tf.Session() as session:
        session.run(v.initializer)
        call = session.make_callable([y, total, add], [x])

        def work(number):
            for k in range(100):
                n = size + k % 3  # sizes alternate
                fed = np.full(n, number + 1, np.float32)
                found, sum_, _ = call(fed) if k % 2 else session.run([y, total, add], {x: fed})
                assert found.shape == (n,) and np.all(found == 2 * (number + 1)) and sum_ == n * (number + 1)
        in_threads(4, work)
        assert session.run(v) == 400


def test_results_of_scalars_do_not_mix():
    x = tf.placeholder(tf.float64, [])
    y = x + 1
    with tf.Session() as session:
        call = session.make_callable(y, [x])

        def work(number):
            for k in range(2000):
                assert call(np.float64(number * 10_000 + k)) == number * 10_000 + k + 1
        in_threads(4, work)


def test_sessions_side_by_side():
    v = tf.Variable(0.0)
    x = tf.placeholder(tf.float32, [])
    step = v.assign_add(x)
    done = {}

    def work(number):
        with tf.Session(graph=v.graph) as session:
            assert tf.get_default_session() is session
            session.run(v.initializer)
            for _ in range(200):
                session.run(step, {x: number})
            done[number] = session.run(v)
    in_threads(3, work)
    assert done == {k: 200 * k for k in range(3)}
    assert tf.get_default_session() is None


def test_first_runs_at_once():
    x = tf.placeholder(tf.float32, [None])
    y = tf.reduce_max(x * 3)
    with tf.Session() as session:
        def work(number):
            for _ in range(5):
                assert session.run(y, {x: np.full(4 + number, number)}) == 3 * number
        in_threads(4, work)
        assert len(session._compiled) == 1


def failing():
    x = tf.placeholder(tf.float32, [2], name="x")
    return x, tf.check_numerics(x, "bad")


def test_errors_stay_with_their_run():
    x, y = failing()
    with tf.Session() as session:
        call = session.make_callable(y, [x])

        def work(number):
            for _ in range(100):
                if number % 2:
                    with pytest.raises(tf.errors.RunError, match=f"x\\[{number // 2}\\] = nan"):
                        call(np.array([np.nan if k == number // 2 else 1 for k in range(2)], np.float32))
                else:
                    assert call(np.full(2, number, np.float32)).tolist() == [number] * 2
        in_threads(4, work)


def native(session):
    return next(iter(session._compiled.values()))


def test_a_failed_run_leaves_its_lane_free():
    x, y = failing()
    with tf.Session() as session:
        call = session.make_callable(y, [x])
        good, bad = np.ones(2, np.float32), np.array([np.nan, 1], np.float32)
        assert call(good).tolist() == [1, 1]
        found, lanes = native(session).last[0], native(session).executable.lanes
        error = found.call(bad, np.empty(2, np.float32))         # and Ctrl-C takes its caller away before he has looked
        assert type(error) is bytes and lanes[0].words[0] == Busy.FREE
        assert call(good).tolist() == [1, 1] and len(lanes) == 1
        with pytest.raises(tf.errors.RunError):
            raise found.executable.failure(found, error)         # it is still this run's


def test_a_lane_left_busy_by_a_fork():
    x, y = failing()
    with tf.Session() as session:
        call = session.make_callable(y, [x])
        good = np.ones(2, np.float32)
        assert call(good).tolist() == [1, 1]
        lane, = lanes = native(session).executable.lanes
        lane.process, lane.words[0] = -1, Busy.RUNNING
        assert call(good).tolist() == [1, 1] and len(lanes) == 1 and lane.words[0] == Busy.FREE


# overlapping runs --------------------------------------------------------------------------------------------------------


def in_background(work):
    """Starts `work` in a thread; gives (thread, list that gets its result or error)."""
    found = []

    def body():
        try:
            found.append(work())
        except BaseException as e:
            found.append(e)
    thread = threading.Thread(target=body)
    thread.start()
    return thread, found


def finishes(thread, seconds=30):
    thread.join(seconds)
    return not thread.is_alive()


@pytest.fixture
def counted():
    """(session, x, a tensor that reads v, an operation that adds 1 to v); v = 1, all compiled."""
    x = tf.placeholder(tf.float32, [None])
    v = tf.Variable(1.0)
    total, step = tf.reduce_sum(x) * v, v.assign_add(1.0)
    with tf.Session() as session:
        session.run(v.initializer)
        session.run(total, {x: [1, 2]})
        yield session, x, total, step


FED = np.array([1, 2], np.float32)


def test_a_reader_does_not_wait_for_a_reader(counted):
    session, x, total, _ = counted
    call = session.make_callable(total, [x])

    def others_read():
        for work in (lambda: session.run(total, {x: FED}), lambda: session.run(total, {x: [1, 2]}), lambda: call(FED)):
            thread, found = in_background(work)
            assert finishes(thread) and found == [3]
    session.store.access.read(others_read)
    assert not session.store.access.words.any()


@pytest.mark.parametrize("fed", [FED, [1, 2]])
def test_a_reader_waits_for_a_writer(counted, fed):
    session, x, total, step = counted

    def another_waits():
        begun = in_background(lambda: session.run(total, {x: fed}))
        assert not finishes(begun[0], 0.05)
        session.run(step)                                        # the owner's own runs go on
        return begun
    thread, found = session.store.access.write(another_waits)
    assert finishes(thread) and found == [6]


def test_a_writer_waits_for_readers_and_goes_first(counted):
    session, x, total, step = counted
    session.run(step)

    def both_wait():
        writing = in_background(lambda: session.run(step))
        assert not finishes(writing[0], 0.05)
        reading = in_background(lambda: session.run(total, {x: FED}))
        assert not finishes(reading[0], 0.05)                    # or a writer might wait forever
        with pytest.raises(tf.errors.SessionError, match="a run that writes variables inside one that reads them"):
            session.run(step)                                    # it would wait for itself
        assert session.run(total, {x: FED}) == 6                 # an inner reader must not wait
        return writing, reading
    (writer, wrote), (reader, read) = session.store.access.read(both_wait)
    assert finishes(writer) and finishes(reader) and wrote == [3] and read == [9]


def test_a_native_writer_steps_back_without_a_trace(counted):
    session, x, total, step = counted
    session.run(step)
    words, write = session.store.access.words, next(c for c in session._compiled.values() if c.written and c.read).last[0]
    for word in (AccessWord.READERS, AccessWord.WANTED, AccessWord.WRITER):
        words[word] = 1
        assert write.try_run([]) is None
        assert words[word] == 1 and words.sum() == 1 and write.lane.is_free()
        words[word] = 0
    assert write.try_run([]) == [3] and not words.any()


def test_long_readers_overlap():
    """The same program, at the same size: each run has its own arena."""
    x = tf.placeholder(tf.float32, [300, 300])
    y = x
    for _ in range(40):
        y = tf.tanh(tf.matmul(y, x))
    y = tf.reduce_sum(y, 0)
    overlapped = []
    with tf.Session() as session:
        call = session.make_callable(y, [x])
        feeds = [np.random.default_rng(k).normal(size=(300, 300)).astype(np.float32) / 17 for k in range(3)]
        want = [call(f) for f in feeds]

        def work(number):
            for _ in range(10):
                assert call(feeds[number]).tobytes() == want[number].tobytes()
                overlapped.append(session.store.access.words[AccessWord.READERS])
        in_threads(3, work)
        assert not session.store.access.words.any()
        assert max(overlapped) > 0 and 2 <= len(native(session).executable.lanes) <= 3


def test_readers_see_consistent_variables():
    x = tf.placeholder(tf.float32, [])
    v, w = tf.Variable(np.zeros(50_000, np.float32)), tf.Variable(np.zeros((7, 3), np.float32))
    step = tf.group(v.assign_add(tf.fill([50_000], x)), w.assign_add(tf.fill([7, 3], x)))
    total = tf.reduce_max(v) - tf.reduce_min(w), tf.reduce_min(v) - tf.reduce_max(w), v + 0.0
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        write, read = session.make_callable(step, [x]), session.make_callable(total)

        def work(number):
            for k in range(60):
                if number < 2:
                    write(np.float32(1)) if k % 2 else session.run(step, {x: 1})
                else:
                    high, low, whole = read() if k % 2 else session.run(total)
                    assert high == 0 and low == 0 and (whole == whole[0]).all()
        in_threads(4, work)
        assert session.run(tf.reduce_sum(w)) == 120 * 21
        assert not session.store.access.words.any()


def test_loading_a_variable_waits_too(counted):
    session, x, total, _ = counted
    variable = session.graph.variables[0]

    def loading_waits():
        thread, _ = in_background(lambda: variable.load(5, session))
        assert not finishes(thread, 0.05)
        return thread
    thread = session.store.access.read(loading_waits)
    assert finishes(thread) and session.run(total, {x: FED}) == 15


def test_the_interpreter_in_threads(monkeypatch):
    monkeypatch.setattr(tf.options, "device", "numpy")
    v = tf.Variable(0.0)
    step, total = v.assign_add(1.0), v * 2
    with tf.Session() as session:
        session.run(v.initializer)

        def work(number):
            for _ in range(100):
                session.run(step)
                assert session.run(total) >= 2
        in_threads(3, work)
        assert session.run(v) == 300


def test_run_numbers_are_unique():
    x = tf.random_uniform([], seed=1, dtype=tf.float64)
    found = []
    with tf.Session() as session:
        session.run(x)
        in_threads(4, lambda number: found.extend(session.run(x) for _ in range(200)))
        assert len(set(found)) == 800 and session.store.counter[0] == 801


def test_closing_while_others_run():
    x = tf.placeholder(tf.float32, [None])
    v = tf.Variable(1.0)
    total, step = tf.reduce_sum(tf.tanh(x)) * 0 + v, v.assign_add(1.0)
    session = tf.Session()
    session.run(v.initializer)
    calls = [session.make_callable(f, [x]) if f is total else session.make_callable(f) for f in (total, step)]
    fed = np.ones(100_000, np.float32)
    started = threading.Barrier(5)

    def work(number):
        call, feeds = (calls[0], (fed,)) if number % 2 else (calls[1], ())
        assert call(*feeds) >= 1
        started.wait()
        while True:
            assert call(*feeds) >= 1
    threads_ = [in_background(lambda k=k: work(k)) for k in range(4)]
    started.wait()
    session.close()
    for thread, found in threads_:
        assert finishes(thread)
        assert isinstance(found[0], tf.errors.SessionError) and "the session is closed" in str(found[0]), found
    with pytest.raises(tf.errors.SessionError, match="closed"):
        v.load(1.0, session)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_while_others_hold_the_variables(counted):
    session, x, total, step = counted
    session.run(step)
    held, stop = threading.Event(), threading.Event()

    def hold():
        held.set()
        stop.wait()
    thread, _ = in_background(lambda: session.store.access.read(hold))
    held.wait()
    child = os.fork()
    if not child:
        fine = session.run(step) == 3 and session.run(total, {x: FED}) == 9
        os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    stop.set()
    assert finishes(thread) and session.run(step) == 3


def test_ctrl_c():
    x = tf.placeholder(tf.float32, [None, None])
    v = tf.Variable(0.0)
    step = v.assign_add(tf.reduce_sum(tf.matmul(x, x)) * 0 + 1)
    fed = np.ones((300, 300), np.float32)
    with tf.Session() as session:
        session.run(v.initializer)
        session.run(step, {x: fed})
        runs = 1
        for _ in range(5):
            timer = threading.Timer(0.02, _thread.interrupt_main)
            timer.start()
            try:
                while True:
                    session.run(step, {x: fed})
                    runs += 1
            except KeyboardInterrupt:
                timer.join()
            # the run that was interrupted is done or not, nothing in between
            assert session.run(v) in (runs, runs + 1)
            runs = int(session.run(v))
            assert session.run(step, {x: fed}) == runs + 1
            runs += 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork():
    code = """
        import os, threading, numpy as np, graphc as tf
        x = tf.placeholder(tf.float32, [None])
        v = tf.Variable(0.0)
        step = v.assign_add(tf.reduce_sum(tf.exp(x) * 0) + 1)
        session = tf.Session()
        session.run(v.initializer)
        call = session.make_callable(step, [x])
        fed = np.ones(200_000, np.float32)
        call(fed)
        stop = []
        def busy():
            while not stop:
                call(fed)
        other = threading.Thread(target=busy)
        other.start()
        for _ in range(5):
            child = os.fork()
            if not child:
                before = session.run(v)
                assert call(fed) == before + 1 and session.run(v) == before + 1
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        stop.append(1)
        other.join()
        print("fine")
    """
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], capture_output=True, text=True,
                          timeout=60, cwd=ROOT)
    assert done.stdout == "fine\n", done.stderr


def test_the_same_bits_with_any_number_of_threads():
    x = tf.placeholder(tf.float32, [None, 64])
    v = tf.Variable(np.zeros(64, np.float32))
    step = v.assign_add(tf.reduce_mean(tf.tanh(x), 0))
    total = tf.reduce_sum(tf.tanh(x) * x)
    fed = np.random.default_rng(0).normal(size=(20_000, 64)).astype(np.float32)
    found = []
    with tf.Session() as session:
        call = session.make_callable([total, step], [x])
        try:
            for count in (1, 2, 1, 2):                            # a bound call follows the setting
                threads.set_num_threads(count)
                session.run(v.initializer)
                found.append([a.tobytes() for a in call(fed)])
        finally:
            threads.set_num_threads(None)
    assert all(f == found[0] for f in found)


def test_signals_are_what_they_were():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
