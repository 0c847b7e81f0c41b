"""Figures of the machine: measured at the end of a process that compiled, kept like programs, read by the next one; what cannot
be used counts as not there; results do not depend on them.
"""
import os
import subprocess
import sys

import numpy as np
import pytest

import graphc as tf
from graphc.cache import folder
from graphc.cli.cache import _info
from graphc.codegen.cpu.host import host
from graphc.config import options
from graphc.runtime import executor, machine
from graphc.runtime.machine import ASSUMED, LIKELY, Machine

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(options, "cache", True)
    monkeypatch.setattr(options, "cache_dir", str(tmp_path / "cache"))
    yield
    machine.measured.cache_clear()


def test_what_is_measured_is_likely():
    found = machine.measure(2, host().lanes(4))
    assert all(low < getattr(found, name) < high for name, (low, high) in LIKELY.items())


def test_figures_are_kept_for_a_number_of_threads():
    assert machine.machine(3) == ASSUMED
    machine.measured.cache_clear()
    machine.keep(Machine(60e3, 1.5), 3)
    assert machine.machine(3) == Machine(60e3, 1.5)
    assert machine.machine(2) == ASSUMED
    assert str(machine.machine(3)) == "60 GFLOP/s a core, threads meet in 1.50 us"
    options.cache = False
    assert machine.machine(3) == ASSUMED


def test_dear_meetings_make_more_work_worth_sharing():
    assert ASSUMED.least_work == 1
    assert Machine(ASSUMED.peak, 3 * ASSUMED.meeting).least_work == pytest.approx(3)
    assert Machine(ASSUMED.peak / 2, ASSUMED.meeting).least_work == pytest.approx(0.5)


@pytest.mark.parametrize("document", [
    {}, {"machine": {}}, {"machine": [1, 2]}, {"machine": {"peak": "fast", "meeting": 1}},
    {"machine": {"peak": 1e5, "meeting": 0}}, {"machine": {"peak": float("nan"), "meeting": 1}}])
def test_figures_that_make_no_sense_are_not_used(document):
    folder().save(machine._key(2), document, [])
    assert machine.machine(2) == ASSUMED


def test_a_damaged_file_is_not_used():
    machine.keep(Machine(60e3, 1.5), 2)
    entry, = folder().entries()
    path = folder().path / f"{entry.key}.program"
    path.write_bytes(path.read_bytes().replace(b"1.5", b"2.5"))
    with pytest.warns(RuntimeWarning, match="is not used"):
        assert machine.machine(2) == ASSUMED


def test_cache_info_says_what_was_measured():
    tf.set_num_threads(2)
    try:
        assert "machine   2 threads: not measured" in _info(folder())
        machine.measured.cache_clear()
        machine.keep(Machine(60e3, 1.5), 2)
        assert "machine   2 threads: 60 GFLOP/s a core, threads meet in 1.50 us" in _info(folder())
    finally:
        tf.set_num_threads(None)


def test_results_do_not_depend_on_them(monkeypatch):
    """All kernels shared, some, none: the same bits."""
    found = []
    for least in (1e-6, 1, 1e6):
        monkeypatch.setattr(executor, "machine", lambda count, least=least: Machine(ASSUMED.peak * least, ASSUMED.meeting))
        with tf.Graph().as_default(), tf.Session() as session:
            a = tf.placeholder(tf.float32, [None, 300])
            value = tf.nn.softmax(tf.matmul(a, a, transpose_a=True) * 0.01)
            found.append(session.run(value, {a: np.linspace(-1, 1, 64 * 300, dtype=np.float32).reshape(64, 300)}).tobytes())
    assert found[0] == found[1] == found[2]


SCRIPT = """
import numpy as np
import graphc as tf
tf.set_num_threads(2)
x = tf.placeholder(tf.float32, [300, 300])
with tf.Session() as session:
    session.run(tf.matmul(x, x), {x: np.ones((300, 300), np.float32)})
"""


def ended_process():
    environment = {**os.environ, "GRAPHC_CACHE": "1", "GRAPHC_CACHE_DIR": options.cache_dir, "PYTHONPATH": ROOT}
    subprocess.run([sys.executable, "-W", "error", "-c", SCRIPT], check=True, cwd=ROOT, env=environment, timeout=120)


def test_a_process_that_compiled_measures_at_its_end_and_others_do_not():
    ended_process()
    path = folder().path / f"{machine._key(2)}.program"
    assert machine.measured(2, options.cache_dir) is not None
    path.unlink()
    ended_process()             # it loads the program: a start from the cache never measures
    assert not path.exists()
