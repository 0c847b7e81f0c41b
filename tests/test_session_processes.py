"""Sessions in processes of their own: forked, spawned, ended, interrupted; and how many threads a process has."""
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback

import numpy as np
import pytest

import graphc as tf
from graphc.runtime.layout import Busy

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODEL = """
    import os, signal, sys, threading, time
    import numpy as np
    import graphc as tf
    from graphc.runtime import threads

    def model():
        x = tf.placeholder(tf.float32, [None, 64])
        v = tf.Variable(0.0)
        return x, v, v.assign_add(tf.reduce_sum(tf.exp(x)) * 0 + 1)
    data = np.ones((4000, 64), np.float32)

    def started():
        x, v, step = model()
        session = tf.Session()
        session.run(v.initializer)
        return session, x, v, step
"""
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def python(tmp_path, code, **environment):
    """What a script prints after MODEL; it must end well and say nothing on standard error."""
    file = tmp_path / "script.py"
    file.write_text(textwrap.dedent(MODEL) + textwrap.dedent(code))
    path = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run([sys.executable, "-W", "ignore", str(file)], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": path, "GRAPHC_NUM_THREADS": "2", **environment})
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    return done.stdout.split()


@needs_fork
def test_fork_in_the_middle_of_steps(tmp_path):
    assert python(tmp_path, """
    session, x, v, step = started()
    ready, stop = threading.Event(), []

    def progress(done, values):
        ready.set()
        if stop:
            raise SystemExit
    threading.Thread(target=lambda: session.run_steps(step, {x: data}, 400, 10**9, progress=progress)).start()
    ready.wait()
    for _ in range(5):
        child = os.fork()
        if not child:
            before = session.run(v)
            found = session.run_steps(step, {x: data}, 400, 30)
            fine = found.tolist() == [before + k for k in range(1, 31)] and session.run(step, {x: data}) == before + 31
            os._exit(0 if fine else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    stop.append(1)
    print("fine")
    """) == ["fine"]


@needs_fork
def test_fork_from_progress(tmp_path):
    assert python(tmp_path, """
    session, x, v, step = started()
    children = []

    def progress(done, values):
        child = os.fork()
        if not child:
            os._exit(0 if session.run(step, {x: data}) == done + 1 else 1)
        children.append(child)
    found = session.run_steps(step, {x: data}, 400, 800, progress=progress)
    assert found.tolist() == list(range(1, 801)) and children
    print({os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children})
    """) == ["{0}"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(tmp_path, method):
    import multiprocessing
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    assert python(tmp_path, f"""
    def work(number):
        with tf.Graph().as_default():
            session, x, v, step = started()
            return session.run_steps(step, {{x: data}}, 400, number)[-1]
    if __name__ == "__main__":
        import multiprocessing
        assert work(20) == 20                                    # the parent has its workers
        with multiprocessing.get_context("{method}").Pool(2) as pool:
            print(*pool.map(work, [3, 14, 15, 9]))
    """) == ["3.0", "14.0", "15.0", "9.0"]


@pytest.mark.parametrize("way", ["call(data)", "session.run_steps(step, {x: data}, 400, 10**9)"])
def test_exit_while_another_thread_runs(tmp_path, way):
    lines = python(tmp_path, f"""
    session, x, v, step = started()
    call = session.make_callable(step, [x])
    call(data)

    def forever():
        while True:
            {way}
    threading.Thread(target=forever, daemon=True).start()
    time.sleep(0.1)
    print(time.time())
    """)
    assert time.time() - float(lines[0]) < 5


def test_ctrl_c_from_outside(tmp_path):
    """A real signal, in a loop that lasts and in steps without end; the process goes on."""
    assert python(tmp_path, """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    session, x, v, step = started()
    count = tf.while_loop(lambda k: k < 10**15, lambda k: k + 1, [tf.constant(0, tf.int64)])
    write = v.assign(tf.cast(count, tf.float32))
    for work in (lambda: session.run_steps(step, {x: data}, 400, 10**9), lambda: session.run(write),
                 lambda: session.run_steps(write, steps=3)):
        threading.Timer(3, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            work()
        except KeyboardInterrupt:
            print("interrupted")
    value = session.run(v)
    assert 1 < value < 10**9 and session.run(step, {x: data}) == value + 1
    """) == ["interrupted"] * 3


THREADS = """
    def tasks():
        return len(os.listdir("/proc/self/task"))
    session, x, v, step = started()
    call = session.make_callable(step, [x])
    tf.set_num_threads(1)
    for _ in range(60):
        call(data)
    alone = tasks()
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc")
def test_as_many_threads_as_were_asked_for(tmp_path):
    assert python(tmp_path, THREADS + """
    for count in (2, 3, 1, 5, None):
        tf.set_num_threads(count)
        for _ in range(60):
            call(data)
        print(tf.num_threads(), tasks() - alone)
    """, GRAPHC_NUM_THREADS="4") == ["2", "1", "3", "2", "1", "0", "5", "4", "4", "3"]
    assert python(tmp_path, """
    session, x, v, step = started()
    for _ in range(60):
        session.run(step, {x: data})
    print(tf.num_threads(), sum(t.name.startswith("graphc") for t in threading.enumerate()))
    """, GRAPHC_NUM_THREADS="1") == ["1", "0"]


@needs_fork
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two processors")
def test_a_forked_process_counts_its_own_processors(tmp_path):
    assert python(tmp_path, """
    session, x, v, step = started()
    mine = os.sched_getaffinity(0)
    tf.set_num_threads(None)
    session.run(step, {x: data})
    child = os.fork()
    if not child:
        os.sched_setaffinity(0, {min(mine)})
        session.run(step, {x: data})
        os._exit(tf.num_threads() + 10 * sum(t.name.startswith("graphc") for t in threading.enumerate()))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """, GRAPHC_NUM_THREADS="") == ["1"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs signals by the clock")
def test_ctrl_c_at_any_moment_leaves_nothing_taken():
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [None], name="x")
        v = tf.Variable(0.0)
        total, step, check = tf.reduce_sum(x) * (v * 0 + 1), v.assign_add(1.0), tf.check_numerics(x, "bad")
        session.run(v.initializer)
        fed, bad = np.array([1, 2], np.float32), np.array([np.nan, 1], np.float32)
        calls = [lambda: session.run(total, {x: [1, 2]}), lambda: session.run(step), lambda: session.run(total, {x: fed}),
                 lambda: session.run([total, step], {x: [1, 2]}), lambda: session.run(check, {x: bad}),
                 lambda: session.run_steps([total, step], {x: np.ones(40, np.float32)}, 4), lambda: v.load(1.0, session),
                 lambda: session.run(check, {x: [float("nan"), 1]})]
        def calls_until(end):
            number = 0
            while time.monotonic() < end:
                try:
                    number += 1
                    calls[number % len(calls)]()
                except tf.errors.RunError:
                    pass
        calls_until(time.monotonic() + 0.2)                         # compiles
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        interrupts, end = 0, time.monotonic() + 60
        while interrupts < 200 and time.monotonic() < end:
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + random.random() * 0.003)
                calls_until(time.monotonic() + 0.1)     # Python drops an interrupt that comes within a finaliser
            except KeyboardInterrupt:
                interrupts += 1
                lanes = [lane for c in session._compiled.values() for lane in c.executable.lanes]
                assert not session.store.access.words.any()
                assert all(lane.words[0] == Busy.FREE for lane in lanes)
        signal.signal(signal.SIGALRM, before)
        assert interrupts == 200
        assert session.run(total, {x: fed}) == 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_where_any_function_begins_or_a_call_ends_leaves_nothing_taken():
    """Python looks for signals where a function of its own begins, and after calls of others: each of these once."""
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [None], name="x")
        v = tf.Variable(0.0)
        total, step = tf.reduce_sum(x) * (v * 0 + 1), v.assign_add(1.0)
        session.run(v.initializer)
        access = session.store.access
        compiled = {f: session.compiled((f,), (x,) if f is total else (), []) for f in (total, step)}
        fed = [np.array([1, 2], np.float32)]
        instances = {f: c.instance(fed if f is total else []) for f, c in compiled.items()}
        calls = [lambda: session.run([total, step], {x: [1, 2]}), lambda: v.load(1.0, session),
                 lambda: compiled[step].with_variables(lambda: instances[step].run_if_free([])),
                 lambda: compiled[total].with_variables(lambda: instances[total].run_if_free(fed)),
                 lambda: session.run_steps([total, step], {x: np.ones(40, np.float32)}, 4)]
        for call in calls:
            call()
            interrupts, rounds, left = 0, 0, 0
            while not left:             # `left` of the last round: it ended before the interrupt
                rounds += 1
                left = rounds

                def look(frame, event, argument):
                    nonlocal left
                    if event in ("call", "c_return") and left:
                        left -= 1
                        if not left:
                            raise KeyboardInterrupt
                try:
                    sys.setprofile(look)
                    call()
                except KeyboardInterrupt:
                    interrupts, where = interrupts + 1, traceback.format_exc()
                    lanes = [lane for c in session._compiled.values() for lane in c.executable.lanes]
                    assert not access.words.any(), where
                    assert all(lane.words[0] == Busy.FREE for lane in lanes), where
                    thread = threading.Thread(target=call)          # who holds a lock is another one's trouble
                    thread.start()
                    thread.join(10)
                    assert not thread.is_alive(), where
                finally:
                    sys.setprofile(None)
            assert interrupts > rounds / 2      # a few are dropped, as in finalisers
        assert session.run(total, {x: fed[0]}) == 3


def test_the_signal_handler_is_what_it_was():
    assert signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_IGN)
