"""The native driver in processes of its own: exit, fork, an interrupt, what importing it costs."""
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

IMPORTS = """import os, sys, time, threading, signal, numpy as np, driver_kernels as t
from graphc.runtime import driver, library, threads
from graphc.runtime.driver import RecordFlag
from graphc.runtime.layout import FrameWord
"""


def python(script, **environment):
    """Runs a script in a new process, `driver_kernels` as `t` and the driver's modules imported; gives its printed lines, the
    time of its end, and its complaints.
    """
    folder = Path(__file__).parent
    path = os.pathsep.join([str(folder), str(folder.parent), os.environ.get("PYTHONPATH", "")])
    text = IMPORTS + textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", text], capture_output=True, text=True, timeout=20,
                          env={**os.environ, "PYTHONPATH": path, "GRAPHC_NUM_THREADS": "3", **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split(), time.time(), done.stderr


MARKING = """
    seen = np.zeros(4, np.int64)
    program = t.Program(t.load_kernels())
    program.add(t.mark, seen)
    call = driver.bind(program.frame(threads=3))
    assert call() == 0 and seen.tolist() == [3, 3, 3, 0]
"""


def test_exit_with_sleeping_workers():
    lines, end, complaints = python(MARKING + """
    time.sleep(0.05)                     # workers have gone to sleep
    print(time.time())
    """)
    assert end - float(lines[-1]) < 1 and not complaints


def test_exit_during_a_run_of_a_daemon_thread():
    lines, end, complaints = python(MARKING + """
    t.start_waiting_run(t.load_kernels(), threads=3)
    print(time.time())
    """)
    assert end - float(lines[-1]) < 1.5 and not complaints


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork():
    lines, _, complaints = python(MARKING + """
    for generation in range(2):
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            break
        assert threads._pool is None
    for _ in range(100):
        seen[:] = 0
        assert call() == 0 and seen.tolist() == [3, 3, 3, 0]
    print("good", threads.pool().workers)
    """)
    assert lines == ["good", "2"] * 3 and not complaints


def test_interrupt_is_handled_after_the_run():
    lines, _, complaints = python("""
    program, flags = t.Program(t.load_kernels()), np.zeros(2, np.int64)
    program.add(t.wait_for, flags[0:], flags[1:], flags=RecordFlag.BARRIER)
    program.add(t.mark, np.zeros(4, np.int64))
    frame = program.frame(threads=2, release_gil=True)
    call = driver.bind(frame)

    def interrupt():
        while not flags[1]:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        flags[0] = 1
    threading.Thread(target=interrupt).start()
    try:
        call()
        time.sleep(1)
    except KeyboardInterrupt:
        print("interrupted", flags[0], frame[FrameWord.BUSY], call())
    """)
    assert lines == ["interrupted", "1", "0", "0"] and not complaints


def test_import_builds_nothing_and_numba_is_not_needed():
    lines, _, _ = python("""
    print(library.engine.__wrapped__.__name__, "numba" in sys.modules, threading.active_count())
    start = time.perf_counter()
    library.engine()
    print(f"driver_built_in_{(time.perf_counter() - start) * 1e3:.0f}_ms")
    """)
    print(lines[-1])
    assert lines[:3] == ["engine", "False", "1"]
