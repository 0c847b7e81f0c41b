"""The instruments around the passes: what GRAPHC_DEBUG, DUMP, CHECK, SKIP and EXPLAIN show and catch."""

import numpy as np
import pytest

import graphc as tf
from graphc import making
from graphc.config import Options, options
from graphc.errors import CompileError, VerifyError
from graphc.ir.graph import Graph, rebuild
from graphc.ir.node import Node, make
from graphc.ir.op import OPS
from graphc.ir.parser import parse
from graphc.ir.types import TensorType
from graphc.passes.manager import graph_pass, run_passes
from graphc.passes.pipeline import PIPELINE

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
PASSES = [p.name for p in PIPELINE]


@pytest.fixture(autouse=True)
def saved_options():
    """Options as they were, after each test."""
    before = dict(vars(options))
    yield
    vars(options).update(before)


@pytest.fixture
def pipeline(monkeypatch):
    """A function that puts a pass behind simplify."""
    def insert(pass_):
        at = PASSES.index("simplify") + 1
        monkeypatch.setattr(making, "pipeline", lambda few: [*PIPELINE[:at], pass_, *PIPELINE[at:]])
    return insert


def run():
    """A small program with a variable and a gradient, compiled anew."""
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [None, 3], name="x")
        w = tf.Variable(np.full(3, 0.5, np.float32), name="w")
        session.run(tf.global_variables_initializer())
        loss = tf.reduce_sum(tf.square(x * w) * 1 + 0.5, name="loss")
        return session.run([loss, tf.gradients(loss, w)[0]], {x: X})


def expected():
    return [np.sum((X * 0.5) ** 2 + 0.5), (X ** 2).sum(0)]


def check(found) -> None:
    for got, want in zip(found, expected(), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_nothing_is_printed_by_default(capfd):
    check(run())
    out, err = capfd.readouterr()
    assert not out
    assert not err


def test_debug_1_prints_a_line_for_each_pass_and_compile(capfd):
    options.debug = 1
    check(run())
    _, err = capfd.readouterr()
    for name in PASSES:
        assert f": {name} " in err
    assert "built in" in err
    assert "unchanged" in err
    assert "===" not in err


def test_debug_2_prints_the_first_and_the_last_graph(capfd):
    options.debug = 2
    run()
    _, err = capfd.readouterr()
    assert "=== built\ngraph " in err
    assert "=== compiled\ngraph " in err
    assert "=== differentiate" not in err


def test_debug_3_prints_the_graph_after_each_pass_that_changed_it(capfd):
    options.debug = 3
    run()
    _, err = capfd.readouterr()
    for name in ("built", "differentiate", "resolve_state", "simplify", "fuse"):
        assert f"=== {name}\ngraph " in err
    assert "=== thin_products" not in err  # it changed nothing


def test_debug_4_prints_kernels(capfd):
    options.debug = 4
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [None], name="x")
        session.run(tf.exp(x) * 3.25 + 0.0625, {x: X[0]})  # a kernel that no other test has compiled
    _, err = capfd.readouterr()
    assert "def " in err
    assert "3.25" in err


def test_a_dump_reads_back(tmp_path):
    options.dump = str(tmp_path / "dump")
    big = np.arange(100, dtype=np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [None, 100], name="x")
        session.run(tf.reduce_sum(x * big), {x: np.ones((2, 100), np.float32)})
        session.run(tf.exp(x), {x: np.ones((2, 100), np.float32)})
    first, second = sorted((tmp_path / "dump").iterdir())
    files = sorted(first.glob("*.graph"))
    assert [f.stem.partition("-")[2] for f in files] == ["built", *PASSES]
    for file in files:
        arrays = dict(np.load(file.with_suffix(".npz")))
        graph = parse(file.read_text(), arrays)
        assert str(graph) == file.read_text()
        assert any(np.array_equal(a, big) for a in arrays.values())
    for folder in (first, second):
        assert list(folder.glob("*.kernel"))
        assert "def " in next(folder.glob("graphc_*.py")).read_text()


def test_skip_leaves_passes_out(capfd):
    options.skip, options.debug = ("simplify", "thin_products"), 1
    check(run())
    _, err = capfd.readouterr()
    assert ": simplify " not in err
    assert ": fuse " in err


@pytest.mark.parametrize("device", ["cpu", "numpy"])
def test_skipping_an_unknown_pass_says_which_there_are(device):
    options.skip, options.device = ("fuse", "fusion"), device
    with pytest.raises(CompileError, match="GRAPHC_SKIP: there is no pass 'fusion'") as caught:
        run()
    assert "the passes are infer_shapes, differentiate, resolve_state, simplify" in str(caught.value)


def test_skipping_a_needed_pass_says_so():
    options.skip = ("differentiate",)
    with pytest.raises(CompileError, match="the pass differentiate cannot be skipped") as caught:
        run()
    assert "later stages need a graph that is no_grad" in str(caught.value)


@graph_pass(needs=["pure"])
def wrong_type(graph: Graph) -> Graph:
    """A broken pass: the first output claims another type than its rule gives."""
    node = graph.outputs[0]
    lie = Node(node.op, node.inputs, node.attrs, TensorType(node.type.dtype, (7,)), name=node.name)
    return Graph(graph.name, graph.inputs, (lie, *graph.outputs[1:]), graph.equations)


@graph_pass(needs=["pure"])
def wrong_value(graph: Graph) -> Graph:
    """A broken pass: valid graphs, other values."""
    def replace(node, inputs, control):
        return make(OPS["exp"], inputs, name=node.name) if node.op is OPS["square"] else None
    return rebuild(graph, replace)


def test_check_1_stops_at_an_invalid_graph(pipeline):
    pipeline(wrong_type)
    options.check = 1
    with pytest.raises(VerifyError, match="after wrong_type: the graph breaks the invariant types\n"):
        run()


def test_check_2_stops_at_the_pass_that_changes_a_value(pipeline):
    pipeline(wrong_value)
    options.check = 1
    run()  # a valid graph: check 1 cannot see it
    options.check = 2
    with pytest.raises(CompileError, match="the pass wrong_value changes the value of output 0"):
        run()


def test_check_2_passes_what_is_right():
    options.check = 2
    check(run())


def test_explain_says_why_regions_stay_apart(capfd):
    options.explain = ("fuse", "memory")
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [None, 3], name="x")
        session.run((x @ np.ones((3, 3), np.float32)) @ np.ones((3, 3), np.float32), {x: X})
    _, err = capfd.readouterr()
    assert "matmul and matmul_1 stay apart: two contractions" in err and "temporary  matmul: f32[N,3]" in err


def test_everything_switched_on(capfd, tmp_path):
    """So that no print can rot."""
    options.debug, options.check, options.dump, options.explain = 100, 2, str(tmp_path), ("fuse", "memory")
    check(run())
    _, err = capfd.readouterr()
    assert len(err) > 1000


def test_the_interpreter_gives_the_same_values():
    options.device = "numpy"
    check(run())


def test_an_unknown_device_is_an_error():
    options.device = "tpu"
    with pytest.raises(CompileError, match="there is no device 'tpu'"):
        run()


def test_options_come_from_the_environment(monkeypatch):
    for name, value in {"DEBUG": "3", "DUMP": "there", "CHECK": "2", "DEVICE": "numpy", "SKIP": "fuse, simplify",
                        "EXPLAIN": "fuse", "NUM_THREADS": "1"}.items():
        monkeypatch.setenv(f"GRAPHC_{name}", value)
    read = Options()
    assert (read.debug, read.dump, read.check, read.device) == (3, "there", 2, "numpy")
    assert read.skip == ("fuse", "simplify")
    assert read.explain == ("fuse",)
    monkeypatch.setenv("GRAPHC_DEBUG", "much")
    with pytest.raises(ValueError, match="GRAPHC_DEBUG must be a whole number, not 'much'"):
        Options()


def test_a_pass_changes_nothing_in_place():
    graph = parse("graph f(x: f32[N]) {\n  %0: f32[N] = multiply(x, x)\n  %1: f32[N] = negative(%0)\n  return %1\n}\n")
    text = str(graph)
    run_passes(graph, PIPELINE)
    assert str(graph) == text
