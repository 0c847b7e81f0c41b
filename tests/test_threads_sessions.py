"""Sessions and Python threads: one session from many threads, sessions side by side, Ctrl-C, fork, frames left busy."""
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
from graphc.runtime import driver, threads
from graphc.runtime.layout import Busy, FrameWord

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@pytest.fixture(autouse=True)
def fresh_graph():
    with tf.Graph().as_default():
        yield


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


def instance(session):
    return next(iter(session._compiled.values())).last


def test_a_frame_left_busy_by_an_error_that_nobody_took():
    x, y = failing()
    with tf.Session() as session:
        call = session.make_callable(y, [x])
        good = np.ones(2, np.float32)
        assert call(good).tolist() == [1, 1]
        found = instance(session)
        status = found.call(np.array([np.nan, 1], np.float32), np.empty(2, np.float32))
        assert status == 2 and found.frame[FrameWord.BUSY] == Busy.FAILED
        assert call(good).tolist() == [1, 1]                     # the old error is not this run's
        found.frame[FrameWord.BUSY] = Busy.RUNNING
        with pytest.raises(tf.errors.SessionError, match="another thread"):
            call(good)
        found.process = -1                                       # as after a fork in the middle of a run
        assert call(good).tolist() == [1, 1]
        with pytest.raises(tf.errors.RunError):
            call(np.array([np.nan, 1], np.float32))
        with pytest.raises(ValueError, match="no failed run"):
            driver.take_error(found.frame)
        assert call(good).tolist() == [1, 1]


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
