"""Programs from the cache: the same bits as those that were just compiled, whatever a graph holds; and the right ones."""
import contextlib
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from cached_graphs import (
    GRAPHS,
    X,
    branches,
    failing,
    failing_elsewhere,
    failing_in_a_loop,
    failing_in_another_loop,
    line_of,
    named_sizes,
    results,
    same_bits,
)

import graphc as tf
from graphc import fingerprint, making
from graphc.cache import folder
from graphc.compiler import Chained
from graphc.config import options
from graphc.errors import FeedError, RunError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def only_loaded(cache, monkeypatch):
    """A function: from its call on nothing may be compiled."""
    def forbid():
        def fail(*_):
            raise AssertionError("this program is not in the cache")
        monkeypatch.setattr(making, "make", fail)
    return forbid


@pytest.fixture
def builds(cache, monkeypatch):
    """A list that gets the name of each program that is compiled."""
    found, make = [], making.make
    monkeypatch.setattr(making, "make", lambda *args: found.append(args[3]) or make(*args))
    return found


@pytest.mark.parametrize("build", GRAPHS, ids=lambda f: f.__name__)
def test_the_same_bits(build, cache, only_loaded, monkeypatch):
    monkeypatch.setattr(options, "cache", False)
    fresh = results(build)
    assert not cache.exists(), "the cache is off"
    monkeypatch.setattr(options, "cache", True)
    first = results(build)
    only_loaded()
    assert same_bits(fresh, first)
    assert same_bits(first, results(build))


# what a program does not depend on -----------------------------------------------------------------------------------------


def test_names_lines_and_other_parts_of_the_graph(builds):
    def build(before, names):
        def inner(session):
            for k in range(before):
                tf.placeholder(tf.float32, [None, None], f"other{k}")
            x = tf.placeholder(tf.float32, [names[0], names[1]], names[2])
            y = tf.placeholder(tf.float32, [names[1]], names[3])
            with tf.name_scope(names[4]):
                z = tf.tanh(x * y, name=names[5])
            with pytest.raises(FeedError, match=rf"(?s){names[1]} = .*{names[2]}: f32\[{names[0]},{names[1]}\]"
                                                rf"|{names[3]}.*{names[2]}|{names[2]}.*{names[3]}"):
                session.run(z, {x: X, y: X[0, :3]})
            return session.run(z, {x: X, y: X[0]})
        return inner
    a = results(build(0, ("N", "M", "x", "y", "s", "z")))
    b = results(build(3, ("size", "at", "left", "right", "other", "result")))
    assert same_bits(a, b)
    assert len(builds) == 1


def test_what_is_kept_has_neither_sizes_nor_lines_of_one_process(cache):
    """Those of a new field of Program would be found here."""
    def build(session):
        x, rows = tf.placeholder(tf.float32, ["quince", 4]), tf.placeholder(tf.int32, ["medlar"])
        h = tf.nn.relu(x @ tf.ones([4, 20]) + tf.cast(tf.shape(x)[0], tf.float32))
        y = tf.gather(tf.nn.softmax(h), rows)
        z = tf.py_func(np.sin, [y], tf.float32, shape=["medlar", 20]) + tf.reduce_sum(h)
        session.run([y, tf.gradients(y, x)[0]], {x: X, rows: [1, 2]})
        session.run(z, {x: X, rows: [1, 2]})
    results(build)
    documents = [d for e in folder().entries() if "programs" in (d := folder().read(e.key)[0])]
    assert len(documents) == 2
    for document in documents:
        assert not re.search(r"quince|medlar|\.py|line", json.dumps(document))


def test_what_the_system_draws(builds):
    def build(session):
        x = tf.placeholder(tf.float32, [None])
        return [session.run(tf.nn.dropout(x, 0.5), {x: np.ones(64, np.float32)}) for _ in range(2)]
    seen = [results(build) for _ in range(2)]
    assert len(builds) == 2      # two dropouts, at the second run another one
    numbers = [tuple(v.tolist()) for run in seen for v in run]
    assert len(set(numbers)) == 4, "each graph draws a seed"


def test_elements_of_large_constants(builds):
    def build(values):
        def inner(session):
            w = tf.Variable(values, name="w")
            x = tf.placeholder(tf.float32, [None, 30])
            session.run(w.initializer)
            return session.run([x @ w, x @ tf.constant(values + 1)], {x: np.eye(30, dtype=np.float32)})
        return inner
    for k in range(3):
        values = np.random.default_rng(k).normal(size=(30, 20)).astype(np.float32)
        a, b = results(build(values))
        np.testing.assert_array_equal(a, values)
        np.testing.assert_array_equal(b, values + 1)
    assert len(builds) == 2      # the initialiser and the product, once


def test_equal_large_constants_are_not_taken_for_different_ones(builds):
    def build(a, b):
        return lambda session: session.run(tf.constant(a) - tf.constant(b))
    zeros, ones = np.zeros(500, np.float32), np.ones(500, np.float32)
    for a, b in ((zeros, zeros), (zeros, ones), (ones, ones), (ones, zeros)):
        np.testing.assert_array_equal(results(build(a, b)), a - b)


def test_elements_that_the_compiler_looks_at(builds):
    def build(values):
        def inner(session):
            x = tf.placeholder(tf.float32, [400])
            folded = tf.reduce_sum(tf.constant(values)) + tf.reduce_sum(x * tf.constant(values))
            return session.run(folded, {x: np.ones(400)})
        return inner
    arrays = [np.full(400, v, np.float32) for v in (0, 1, 2)] + [np.arange(400, dtype=np.float32)]
    for values in (*arrays, *arrays):
        assert results(build(values)) == 2 * values.sum()
    assert len(builds) == len(arrays)


# what it depends on --------------------------------------------------------------------------------------------------------


def variants():
    def unary(op):
        return lambda session: session.run(op(tf.constant(X) * tf.placeholder_with_default(np.float32(2), [])))

    def with_size(a, b):
        def inner(session):
            x, y = tf.placeholder(tf.float32, [a]), tf.placeholder(tf.float32, [b])
            return session.run([tf.reduce_sum(x), tf.reduce_sum(y)], {x: X[0], y: X[0]})
        return inner

    def ordered(first):
        def inner(session):
            v = tf.Variable(1.0)
            session.run(v.initializer)
            if first == "write":
                with tf.control_dependencies([tf.assign(v, 5.0)]):
                    return session.run(v + 0.0)
            read = v + 0.0
            with tf.control_dependencies([read]):
                write = tf.assign(v, 5.0)
            return session.run([read, write])[0]
        return inner

    def feeds(order):
        def inner(session):
            x, y = tf.placeholder(tf.float32, []), tf.placeholder(tf.float32, [])
            call = session.make_callable(x - y, [x, y] if order else [y, x])
            return call(3.0, 1.0)
        return inner
    return {"tanh": unary(tf.tanh), "sin": unary(tf.sin), "sum 0": unary(lambda x: tf.reduce_sum(x, 0)),
            "sum 1": unary(lambda x: tf.reduce_sum(x, 1)), "one name": with_size("N", "N"), "two names": with_size("N", "M"),
            "a number": with_size(4, "M"), "write first": ordered("write"), "read first": ordered("read"),
            "feeds": feeds(True), "feeds turned": feeds(False), "one": lambda s: s.run(tf.constant(1) + 0),
            "one as float": lambda s: s.run(tf.constant(1.0) + 0), "minus zero": lambda s: s.run(1 / tf.constant(-0.0)),
            "zero": lambda s: s.run(1 / tf.constant(0.0)), "nan": lambda s: s.run(tf.constant(np.nan) + 1)}


def test_graphs_that_differ_have_their_own_programs(builds, monkeypatch):
    wanted = {}
    monkeypatch.setattr(options, "cache", False)
    for name, build in variants().items():
        wanted[name] = results(build)
    monkeypatch.setattr(options, "cache", True)
    for _ in range(2):
        for name, build in variants().items():
            assert same_bits(results(build), wanted[name]), name


def test_options_are_a_part_of_the_key(builds, monkeypatch):
    results(named_sizes)
    monkeypatch.setattr(options, "skip", ("simplify",))
    results(named_sizes)
    assert len(builds) == 2


@pytest.mark.parametrize("part", ["processor", "sources", "_version"])
def test_another_machine_or_version_misses(part, builds, monkeypatch):
    results(branches)
    before = len(builds)
    results(branches)
    assert len(builds) == before
    real = getattr(fingerprint, part)
    other = {"processor": lambda: ("another", *real()[1:]), "sources": lambda: ("another", real()[1]),
             "_version": lambda package: real(package) + (".1" if package == "numba" else "")}[part]
    monkeypatch.setattr(fingerprint, part, other)
    fingerprint.fingerprint.cache_clear()
    try:
        results(branches)
    finally:
        fingerprint.fingerprint.cache_clear()
    assert len(builds) == 2 * before


def test_sources_that_change_while_the_process_runs(cache, monkeypatch):
    """Nobody knows whether what is loaded is what is on disk: nothing is looked up, nothing is kept."""
    results(branches)
    count = len(folder().entries())
    assert count
    monkeypatch.setattr(fingerprint, "STARTED", 1.0)         # so all files are newer
    results(named_sizes)
    assert len(folder().entries()) == count
    fingerprint.fingerprint.cache_clear()
    with pytest.raises(fingerprint.UnknownCompiler):
        fingerprint.fingerprint()
    results(branches)


@pytest.mark.parametrize("files", ["none", "an archive"])
def test_without_source_files_nothing_is_kept(files, cache, tmp_path, monkeypatch):
    (tmp_path / "archive.zip").write_text("")
    monkeypatch.setattr(fingerprint, "PACKAGE", f"{tmp_path}{os.sep}" if files == "none" else f"{tmp_path}/archive.zip/graphc/")
    fingerprint.fingerprint.cache_clear()
    try:
        results(branches)
    finally:
        fingerprint.fingerprint.cache_clear()
    assert not cache.exists()


def test_every_source_file_counts():
    names = {Path(f).relative_to(ROOT).as_posix() for f in fingerprint.source_files()}
    all_files = {p.relative_to(ROOT).as_posix() for p in (ROOT / "graphc").rglob("*.py")}
    left_out = {n for n in all_files if n.split("/")[1] in fingerprint.UNINVOLVED}
    assert names == all_files - left_out
    assert "graphc/passes/fuse.py" in names
    assert "graphc/codegen/cpu/emit_loops.py" in names


# Python functions ----------------------------------------------------------------------------------------------------------


def test_python_functions_are_those_of_the_graph_at_hand(builds):
    def build(f, g):
        def inner(session):
            x = tf.placeholder(tf.float32, [None])
            y = tf.py_func(f, [x * 2], tf.float32, shape=[None]) + 1
            return session.run([y, tf.py_func(g, [y], tf.float32, shape=[None])], {x: [1, 2]})
        return inner
    def double(a):
        return a * 2

    def negative(a):
        return -a
    for f, g in ((double, negative), (negative, double), (lambda a: a + 1, np.square), (double, double)):
        first = f(np.array([2, 4], np.float32)) + 1
        found = results(build(f, g))
        np.testing.assert_array_equal(found[0], first)
        np.testing.assert_array_equal(found[1], g(first))
    assert len(builds) == 1


def test_custom_gradients(builds):
    def build(factor):
        @tf.custom_gradient
        def f(x):
            return tf.tanh(x), lambda dy: dy * factor

        def inner(session):
            x = tf.placeholder(tf.float32, [None])
            return session.run(tf.gradients(f(x), x)[0], {x: [1, 2]})
        return inner
    for factor in (2.0, 3.0, 2.0):
        np.testing.assert_array_equal(results(build(factor)), np.full(2, factor, np.float32))
    assert len(builds) == 2


def test_ops_of_the_users_own_are_not_kept(cache):
    code = """
        import numpy as np, graphc as tf
        from graphc.ops.define import elementwise
        from graphc.ops.samples import real
        own = elementwise("own", "x", doc="x + 1.", scalar="{x} + 1", numpy=lambda x: x + 1, grad=lambda dy, y, x: [dy],
                          samples=[real(2)], accepts="float")
        print(tf.Session().run(own(tf.constant([1.0, 2.0]) + tf.random_uniform([], 1, 1.5))).shape)
    """
    assert python(code) == "(2,)\n"
    assert [e for e in folder().entries() if folder().read(e.key)[0]["name"] != "(driver)"] == []


# errors --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cases", "value"), [
    (((failing, "here"), (failing_elsewhere, "there"), (failing, "here")), 7),
    (((failing_in_a_loop, "inside"), (failing_in_another_loop, "inside as well"), (failing_in_a_loop, "inside")), 5)])
def test_errors_name_the_lines_of_the_graph_at_hand(cases, value, builds):
    for build, mark in cases:
        with pytest.raises(RunError, match=rf"indices\[1\] = {value} is not in \[0, 5\)") as found:
            results(build)
        assert str(found.value).endswith(f"in cached_graphs.py:{line_of(mark)}")
    assert len(builds) == 1


def test_sizes_that_do_not_fit_are_said_in_the_words_of_the_graph_at_hand(cache, monkeypatch):
    def build(n, m, name):
        def inner(session):
            x, y = tf.placeholder(tf.float32, [n, 2], name), tf.placeholder(tf.float32, [m, 2], "y")
            with pytest.raises(FeedError if n == m else Exception) as found:
                session.run(tf.reduce_sum(x + y), {x: X[:3, :2], y: X[:4, :2]})
            return str(found.value)
        return inner
    monkeypatch.setattr(options, "cache", False)
    wanted = [results(build(*w)) for w in (("N", "M", "x"), ("A", "B", "left"), ("N", "N", "x"))]
    monkeypatch.setattr(options, "cache", True)
    for _ in range(2):
        assert [results(build(*w)) for w in (("N", "M", "x"), ("A", "B", "left"), ("N", "N", "x"))] == wanted


def test_errors_of_host_ops(builds):
    def build(message):
        def inner(session):
            x = tf.placeholder(tf.float32, [None])
            with tf.control_dependencies([tf.Assert(tf.reduce_all(x > 0), [message, x])]):
                y = tf.sqrt(x)
            with pytest.raises(RunError, match=message) as found:
                session.run(y, {x: [-1]})
            return re.search(r"test_cache.py:\d+", str(found.value))[0], session.run(y, {x: [4, 9]})
        return inner
    first, second = (results(build("not positive")) for _ in range(2))
    assert same_bits(first[1], second[1])
    assert first[0] == second[0]
    assert len(builds) == 1


# trouble -------------------------------------------------------------------------------------------------------------------


def test_a_damaged_program_is_compiled_again(builds, monkeypatch):
    wanted = results(branches)
    count = len(builds)
    for path in folder().path.glob("*.program"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    with pytest.warns(RuntimeWarning, match="not used"):
        assert same_bits(results(branches), wanted)
    assert len(builds) == 2 * count
    assert same_bits(results(branches), wanted)
    assert len(builds) == 2 * count


def test_a_program_with_a_right_checksum_and_wrong_content(builds):
    wanted = results(branches)
    count = len(builds)
    for entry in folder().entries():
        document, blobs = folder().read(entry.key)
        folder().save(entry.key, {**document, "programs": [{}]}, blobs)
    with pytest.warns(RuntimeWarning, match="not used"):
        assert same_bits(results(branches), wanted)
    assert len(builds) == 2 * count


def test_code_that_reaches_into_the_process_is_refused(builds):
    """Object code with a symbol that generated code has no use for is not run, whoever wrote it."""
    from graphc.runtime.loader import optimised_object
    evil = optimised_object("""
        declare i32 @system(ptr)
        define void @kernel(i64 %args, i64 %thread, i64 %threads) {
            %1 = call i32 @system(ptr null)
            ret void
        }""")
    wanted = results(branches)
    count = len(builds)
    for entry in folder().entries():
        document, blobs = folder().read(entry.key)
        if "programs" in document:
            folder().save(entry.key, document, [evil] * len(blobs))
    with pytest.warns(RuntimeWarning, match="needs system"):
        assert same_bits(results(branches), wanted)
    assert len(builds) == 2 * count


def test_nothing_is_kept_on_a_full_disk(builds, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("graphc.cache._write", full)
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        results(branches)
    assert folder().entries() == []


# processes -----------------------------------------------------------------------------------------------------------------


def python(code, **environment):
    """What a script prints in a new process."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=ROOT, timeout=120,
                          env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


SCRIPT = """
    import sys
    import numpy as np
    import graphc as tf
    x, w = tf.placeholder(tf.float32, [None, 3]), tf.Variable(np.ones((3, 2), np.float32))
    loss = tf.reduce_sum(tf.nn.dropout(tf.tanh(x @ w), 0.9, seed=1))
    train = tf.train.MomentumOptimizer(0.1, 0.9).minimize(loss)
    session = tf.Session()
    session.run(tf.global_variables_initializer())
    print(*(float(session.run([loss, train], {x: np.ones((k, 3))})[0]).hex() for k in (3, 3, 1)))
    print(*sorted({m.split(".")[0] for m in sys.modules} & {"numba", "pickle5"}),
          *sorted(m for m in sys.modules if m.startswith(("graphc.codegen", "graphc.making", "graphc.passes.fuse"))
                  or m in ("graphc.runtime.native", "graphc.runtime.engine")))
"""


def test_the_second_process_compiles_nothing(cache):
    first, modules = python(SCRIPT).splitlines()
    assert "graphc.codegen.build" in modules and "numba" not in modules     # which routines alone need
    assert python(SCRIPT) == first + "\n\n"


def test_a_killed_process_leaves_no_trap(cache):
    wanted = python(SCRIPT, GRAPHC_CACHE="0").splitlines()[0]
    for delay in (0.4, 1.5, 3.0):
        with contextlib.suppress(subprocess.TimeoutExpired):    # `run` kills it then, by SIGKILL
            subprocess.run([sys.executable, "-c", textwrap.dedent(SCRIPT)], cwd=ROOT, timeout=delay, capture_output=True)
        assert python(SCRIPT).splitlines()[0] == wanted


def test_two_processes_that_compile_the_same(cache):
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT)]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    found = [p.communicate(timeout=120) for p in both]
    assert [p.returncode for p in both] == [0, 0], found
    assert found[0][0].splitlines()[0] == found[1][0].splitlines()[0]
    assert python(SCRIPT) == found[0][0].splitlines()[0] + "\n\n"


def test_segments_between_host_ops_are_loaded_too(builds):
    def build(session):
        x = tf.placeholder(tf.float32, [None, 4])
        y = tf.svd(tf.matmul(x, x, transpose_a=True), compute_uv=False)
        found = session.run(tf.reduce_sum(y), {x: X})
        assert [type(c) for c in session._compiled.values()] == [Chained]
        return found
    assert results(build) == results(build)
    assert len(builds) == 1
