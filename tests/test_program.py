"""Programs as bytes: written, loaded and run in a process without Numba; damaged ones are refused."""
import hashlib
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import graphc as tf
from graphc.errors import ParseError
from graphc.program import MAGIC, Program
from graphc.records import changed
from graphc.runtime.executor import Executable

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@pytest.fixture(scope="module")
def trained():
    """(program of a training step, its initial variables, the losses and variables after three steps)."""
    rng = np.random.default_rng(0)
    with tf.Graph().as_default(), tf.Session() as session:
        x, labels = tf.placeholder(tf.float32, [None, 6], "x"), tf.placeholder(tf.int32, [None], "labels")
        w = tf.Variable(rng.normal(size=(6, 4)).astype(np.float32), name="w")
        logits = tf.matmul(x, w) + tf.constant(rng.normal(size=4).astype(np.float32))
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
        train = tf.train.MomentumOptimizer(0.1, 0.9).minimize(loss)
        session.run(tf.global_variables_initializer())
        feeds = {x: rng.normal(size=(5, 6)).astype(np.float32), labels: np.array([0, 1, 2, 3, 0], np.int32)}
        first = {v.name: a.copy() for v, a in zip(tf.global_variables(), session.run(tf.global_variables()), strict=True)}
        losses = [session.run([loss, train], feeds)[0] for _ in range(3)]
        native = next(c for c in session._compiled.values() if len(c.program.feeds) == 2)
        after = {v.name: a for v, a in zip(tf.global_variables(), session.run(tf.global_variables()), strict=True)}
        return native.program, first, list(feeds.values()), losses, after


def execute(program, first, feeds):
    variables = [first[v.name].copy() for v in program.variables]
    executable = Executable(program, variables)
    losses = [executable.instance(feeds).run(feeds)[0] for _ in range(3)]
    return losses, dict(zip([v.name for v in program.variables], variables, strict=True))


def test_round_trip(trained):
    program, first, feeds, losses, after = trained
    again = Program.from_bytes(program.to_bytes())
    for name in Program.__match_args__:
        if name == "constants":
            for a, b in zip(program.constants, again.constants, strict=True):
                assert np.array_equal(a, b) and a.dtype == b.dtype
        else:
            assert getattr(program, name) == getattr(again, name), name
    found, variables = execute(again, first, feeds)
    assert found == losses
    assert all(np.array_equal(variables[n], after[n]) for n in variables)


def test_a_process_without_numba(trained, tmp_path):
    program, first, feeds, losses, _ = trained
    (tmp_path / "program").write_bytes(program.to_bytes())
    np.savez(tmp_path / "data.npz", feed0=feeds[0], feed1=feeds[1], **{"v_" + v.name.replace("/", "."): first[v.name]
                                                                     for v in program.variables})
    code = f"""
        import sys, numpy as np
        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("numba", "pickle5"):
                    raise ImportError("numba was asked for")
        sys.meta_path.insert(0, Refuse())
        from graphc.program import Program
        from graphc.runtime.executor import Executable
        data = np.load({str(tmp_path / "data.npz")!r})
        program = Program.from_bytes(open({str(tmp_path / "program")!r}, "rb").read())
        variables = [np.array(data["v_" + v.name.replace("/", ".")]) for v in program.variables]
        feeds = [data["feed0"], data["feed1"]]
        executable = Executable(program, variables)
        for _ in range(3):
            print(float(executable.instance(feeds).run(feeds)[0]))
        assert not any(m.split(".")[0] == "numba" for m in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert [float(line) for line in done.stdout.split()] == [float(loss) for loss in losses]


def signed(body: bytes) -> bytes:
    return MAGIC + hashlib.sha256(body).digest() + body


def test_damaged_bytes_are_refused(trained):
    data = trained[0].to_bytes()
    body = data[len(MAGIC) + 32:]
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    import pickle
    for bad in (b"", b"abc", data[:-1], data[:40], bytes(flipped), b"x" + data, data + b"x", signed(b""), signed(body[:-50]),
                signed(b"not an archive"), signed(pickle.dumps(1))):
        with pytest.raises(ParseError, match="not a program"):
            Program.from_bytes(bad)


def resigned(program, **changes):
    return Program.from_bytes(changed(program, **changes).to_bytes())


def test_bytes_of_a_wrong_program_are_refused(trained):
    program, first, feeds, *_ = trained
    record = program.records[0]
    variables = [first[v.name].copy() for v in program.variables]
    evil = "__import__('os').system('true')"
    for changes in ({"slots": (evil,)}, {"records": (changed(record, words=(f"slot {evil}",)),)},
                    {"records": (changed(record, words=("feed 99",)),)},
                    {"records": (changed(record, words=(f"= {evil}",)),)},
                    {"records": (changed(record, words=("error 1",)),)},
                    {"records": (changed(record, words=("nothing 0",)),)},
                    {"outputs": (changed(program.outputs[0], shape=(evil,)),)},
                    {"equations": ((evil, "1", ""),)}):
        with pytest.raises(ParseError, match="damaged"):
            Executable(resigned(program, **changes), variables)


def test_no_arrays_of_objects(trained, tmp_path):
    import io
    stream = io.BytesIO()
    np.savez(stream, text=np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(ParseError, match="not a program"):
        Program.from_bytes(signed(stream.getvalue()))


def test_memory_is_said_before_it_is_used(trained):
    program = trained[0]
    assert "N" in str(program.memory.peak)
    assert program.memory.bytes(N=5) < 10_000
