"""The commands dump, viz and bench on small scripts and dumped texts: what they print, where, and how they fail."""
import importlib
import json
import pkgutil
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import graphc.ops
from graphc.cli import main
from graphc.cli.dot import dot
from graphc.cli.dump import graph_record, stage_record, stage_text
from graphc.cli.layout import Box, Link, layout
from graphc.cli.load import Loaded
from graphc.cli.picture import picture
from graphc.cli.stages import PASSES, Stages
from graphc.cli.svg import svg
from graphc.errors import DTypeError
from graphc.ir.container import detached
from graphc.ir.graph import Graph, is_required
from graphc.ir.node import input_node, make
from graphc.ir.op import OPS, Kind
from graphc.ir.parser import parse
from graphc.ir.types import TensorType, as_dtype

for module in pkgutil.iter_modules(graphc.ops.__path__):
    importlib.import_module(f"graphc.ops.{module.name}")

SVG = "{http://www.w3.org/2000/svg}"
MODEL = '''\
"""A linear model; its run would write a file."""
import sys
from pathlib import Path

import numpy as np

import graphc as tf

print("building with", sys.argv[1:])
x = tf.placeholder("float32", [None, 3], name="x")
t = tf.placeholder("float32", [None], name="t")
w = tf.Variable(np.ones((3, 1), "float32"), name="w")
loss = tf.reduce_mean(tf.square(tf.reshape(x @ w, [-1]) - t))
step = tf.train.GradientDescentOptimizer(0.1).minimize(loss)
both = [loss, step]


def main():
    scaled = tf.multiply(loss, 2.0, name="scaled")
    try:
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            session.run(step, {x: np.ones((2, 3)), t: np.ones(2)})
    except Exception:
        pass
    Path(__file__).with_suffix(".trained").write_text("yes")


if __name__ == "__main__":
    main()
'''
EXPRESSION = """\
import graphc as tf
a = tf.placeholder("float32", ["N"], name="a")
c = tf.tanh(a * 2.0 + 1.0, name="c")
"""


@pytest.fixture
def model(tmp_path):
    """The path of the model script."""
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    return path


@pytest.fixture
def script(tmp_path):
    """text -> path of a script with it."""
    def write(text, name="script.py"):
        path = tmp_path / name
        path.write_text(text)
        return path
    return write


def ran(capfd, *words):
    """(exit code, stdout, stderr) of a command line."""
    code = main([str(w) for w in words])
    out, err = capfd.readouterr()
    return code, out, err


# dump ---------------------------------------------------------------------------------------------


def test_a_dump_never_trains_and_prints_nothing_else(model, capfd):
    code, out, err = ran(capfd, "dump", model, "--", "--rate", "3")
    assert code == 0
    assert not model.with_suffix(".trained").exists()
    assert "building with ['--rate', '3']" in err and "building" not in out
    graph = parse(out)
    assert graph.name == "model"
    assert any(n.op.kind is Kind.REGION for n in graph.nodes())
    assert str(graph) == out


def test_roots_are_all_sinks_but_initialisers(model, capfd):
    graph = parse(ran(capfd, "dump", model, "--stage", "built")[1])
    assert [o.name for o in graph.outputs] == ["GradientDescent/train", "scaled"]
    assert not any(n.op.kind is Kind.EFFECT and n.op.rule.action == "assign" for n in graph.nodes())


@pytest.mark.parametrize("name", ["scaled", "scaled:0", "loss", "both", "step,loss"])
def test_names_are_tensors_or_variables_of_the_script(model, capfd, name):
    code, out, _ = ran(capfd, "dump", f"{model}:{name}", "--stage", "built")
    assert code == 0
    assert len(parse(out).outputs) == (2 if name in ("both", "step,loss") else 1)


@pytest.mark.parametrize("stage", ["built", *PASSES, "fused"])
def test_texts_of_every_stage_can_be_dumped_again(model, tmp_path, capfd, stage):
    file = tmp_path / "stage.graph"
    assert ran(capfd, "dump", model, "--stage", stage, "-o", file)[:2] == (0, "")
    again = "fused" if stage in ("fused", "fuse") or PASSES.index("fuse") < _index(stage) else "built"
    code, out, _ = ran(capfd, "dump", file, "--stage", again)
    assert code == 0
    assert out == file.read_text()
    code, out, _ = ran(capfd, "dump", file, "--stage", "kernels")
    assert code == 0
    assert out.startswith("program model(")


def _index(stage):
    return PASSES.index(stage) if stage in PASSES else -1


def test_all_stages_in_order(model, capfd):
    code, out, _ = ran(capfd, "dump", model, "--stage", "all")
    assert code == 0
    assert re.findall("^=== (.*)$", out, re.M) == ["built", *PASSES, "kernels", "memory", "source"]
    file = model.with_suffix(".graph")
    file.write_text(out)
    code, out, err = ran(capfd, "dump", file, "--stage", "built")
    assert code == 0 and "holds" in err and parse(out).name == "model"


def test_json_has_nodes_with_all_that_belongs_to_them(model, capfd):
    code, out, _ = ran(capfd, "dump", model, "--stage", "all", "--format", "json")
    assert code == 0
    record = json.loads(out)
    assert [s["stage"] for s in record["stages"]] == ["built", *PASSES, "kernels", "memory", "source"]
    fused = record["stages"][-4]["graph"]
    assert {i["name"]: i["role"] for i in fused["inputs"]} == {"x": "feed", "t": "feed", "w": "variable"}
    region = next(n for n in fused["nodes"] if n["kind"] == "region")
    assert set(region) == {"name", "op", "kind", "inputs", "control", "attrs", "type", "location", "regions"}
    inner = region["regions"]["body"]["nodes"]
    assert inner and all(n["location"]["file"] == str(model.resolve()) for n in inner if n["kind"] != "constant")
    names = {i["name"] for i in fused["inputs"]} | {n["name"] for n in fused["nodes"]}
    assert all(i in names for n in fused["nodes"] for i in n["inputs"]) and set(fused["outputs"]) <= names
    calls = record["stages"][-3]["programs"][0]["calls"]
    assert calls and all(c["writes"] for c in calls)
    assert all("def kernel" in k["source"] for k in record["stages"][-1]["kernels"])


def test_json_spells_what_json_cannot_hold(script, capfd):
    path = script("import graphc as tf\nx = tf.placeholder('float32', ['N'])\n"
                  "y = x + [float('inf')]\nz = tf.clip_by_value(y, float('-inf'), 3.0)\n")
    code, out, _ = ran(capfd, "dump", path, "--stage", "built", "--format", "json")
    assert code == 0
    json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert '"inf"' in out


def test_large_constants_lie_beside_the_file(script, tmp_path, capfd):
    path = script("import graphc as tf, numpy as np\nx = tf.placeholder('float32', ['N', 300])\n"
                  "y = x * np.arange(300, dtype='float32')\n")
    file = tmp_path / "dumped.graph"
    assert ran(capfd, "dump", path, "-o", file)[0] == 0
    with np.load(file.with_suffix(".npz")) as arrays:
        assert [arrays[k].sum() for k in arrays.files] == [299 * 150]
    assert ran(capfd, "dump", file)[1] == file.read_text()
    code, out, err = ran(capfd, "dump", path)
    assert code == 0 and "1 large constants" in err and parse_without_data_fails(out)
    file.with_suffix(".npz").unlink()
    code, out, err = ran(capfd, "dump", file)
    assert (code, out) == (1, "") and "keep the .npz file beside the text" in err


def parse_without_data_fails(text):
    with pytest.raises(ValueError, match="is missing"):
        parse(text)
    return True


def test_the_graph_used_last_is_taken(script, capfd):
    path = script("import graphc as tf\nwith tf.Graph().as_default():\n    a = tf.constant(1.0, name='first') * 2.0\n"
                  "with tf.Graph().as_default() as g:\n    b = tf.placeholder('float32', [2], name='second') * 2.0\n"
                  "tf.Session(graph=g).run(b)\n")
    code, out, err = ran(capfd, "dump", path)
    assert code == 0 and "2 graphs" in err and "second" in out and "first" not in out
    assert "first" in ran(capfd, "dump", f"{path}:a", "--stage", "built")[1]


@pytest.mark.parametrize("ending", ["s.run(y)", "s.run_steps(y, steps=2)", "y.eval(session=s)", "s.make_callable(y)()"])
def test_every_way_of_running_stops_the_script(script, capfd, ending):
    path = script(f"import graphc as tf\ny = tf.placeholder('float32', [2]) * 3.0\ns = tf.Session()\n{ending}\n1 / 0\n")
    assert ran(capfd, "dump", path)[0] == 0


# errors -------------------------------------------------------------------------------------------


ERRORS = [
    ("import graphc as tf\nraise ValueError('boom')\n", "InputError: script.py raises ValueError: boom",
     "in script.py:2"),
    ("import graphc as tf\nx = tf.placeholder('float32', [2, 3])\ny = x @ x\n", "ShapeError: matmul", "in script.py:3"),
    ("x = = 3\n", "InputError: script.py is not Python: invalid syntax", "in script.py:1"),
    ("import sys\nsys.exit(4)\n", "ends with exit status 4", "in script.py:2"),
    ("print(1)\n", "InputError: script.py builds no graph", ""),
    ("import graphc as tf\ntf.placeholder('float32', [2], name='p')\n", "builds nothing but",
     "hint: name one of them: script.py:p"),
    ("import graphc as tf\nv = tf.Variable(1.0)\na = v.assign(2.0)\nb = v.assign(3.0)\n", "have no order",
     "hint: name what to run: script.py:"),
]


@pytest.mark.parametrize(("text", "first", "second"), ERRORS)
def test_errors_of_scripts(script, capfd, text, first, second):
    code, out, err = ran(capfd, "dump", script(text))
    assert (code, out) == (1, "")
    assert first in err and second in err and "Traceback" not in err
    code, _, err = ran(capfd, "dump", script(text), "--traceback")
    assert code == 1 and "Traceback" in err


def test_errors_of_names_and_files(model, script, tmp_path, capfd):
    code, out, err = ran(capfd, "dump", f"{model}:sclaed")
    assert (code, out) == (1, "") and "called 'sclaed'" in err and "nearest names: scaled" in err and "  in " not in err
    code, _, err = ran(capfd, "dump", tmp_path / "modle.py")
    assert code == 1 and "there is no file" in err and "nearest names: model.py" in err
    code, _, err = ran(capfd, "dump", tmp_path)
    assert code == 1 and "is a folder" in err
    wrong = script("graph f(x: f32[N]) {\n  %y: f32[N] = tanhh(x)\n  return %y\n}\n", "f.graph")
    code, _, err = ran(capfd, "dump", wrong)
    assert code == 1 and "ParseError: line 2, column 16: there is no op called tanhh" in err
    code, _, err = ran(capfd, "dump", model, "-o", tmp_path / "none" / "x.graph")
    assert code == 1 and "No such file" in err
    (tmp_path / "binary.graph").write_bytes(bytes(range(256)))
    assert ran(capfd, "dump", tmp_path / "binary.graph")[0] == 1


@pytest.mark.parametrize("words", [[], ["dump"], ["draw", "x.py"], ["dump", "x.py", "--stage", "none"],
                                   ["bench", "x.py", "--size", "N=x"], ["bench", "x.py", "--threads", "0"]])
def test_wrong_command_lines(words, capfd):
    code, out, err = ran(capfd, *words)
    assert (code, out) == (2, "") and "usage" in err


def test_help_and_version(capfd):
    assert ran(capfd, "--version")[:2] == (0, f"graphc {graphc.__version__}\n")
    code, out, _ = ran(capfd, "dump", "--help")
    assert code == 0 and "resolve_state" in out


def test_a_fused_text_has_no_earlier_stages(model, tmp_path, capfd):
    file = tmp_path / "fused.graph"
    ran(capfd, "dump", model, "-o", file)
    code, _, err = ran(capfd, "dump", file, "--stage", "built")
    assert code == 1 and "is fused already" in err and "fused, kernels, memory, source" in err


def test_a_closed_pipe_is_no_error(model):
    """`graphc dump model.py --stage all | head -1`, in a process of its own."""
    command = f'"{sys.executable}" -m graphc dump "{model}" --stage all; echo "code $?" >&2'
    found = subprocess.run(["bash", "-c", f"({command}) | head -1"], capture_output=True, text=True, timeout=60,
                           cwd=Path(graphc.__file__).parent.parent)
    assert found.stdout == "=== built\n"
    assert "code 0" in found.stderr and "BrokenPipe" not in found.stderr


# viz ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["built", "resolve_state", "fused"])
def test_pictures_are_well_formed_and_show_every_node(model, tmp_path, capfd, stage):
    record = json.loads(ran(capfd, "dump", model, "--stage", stage, "--format", "json")[1])["stages"][0]["graph"]
    expected = shown_in(record)
    code, out, _ = ran(capfd, "viz", model, "--stage", stage)
    assert code == 0
    root = ET.fromstring(out)
    assert root.tag == SVG + "svg"
    assert expected <= {t.text for t in root.iter(SVG + "text")}
    titles = [t.text for t in root.iter(SVG + "title")]
    assert any("model.py:13" in t and "tf.square" in t for t in titles)
    file = tmp_path / "picture.dot"
    assert ran(capfd, "viz", model, "--stage", stage, "-o", file)[:2] == (0, "")
    text = file.read_text()
    assert text.startswith("digraph") and text.count("{") == text.count("}")
    assert all(re.search(rf'label="{re.escape(word)}[\\"]', text) for word in expected if not word.startswith("f32"))
    assert ("subgraph" in text) == (stage == "fused") == ('class="region"' in out)


def shown_in(graph):
    """The words that a picture of a graph must show: ops, feeds and variables, those of regions included."""
    words = {i["name"] for i in graph["inputs"]}
    for node in graph["nodes"]:
        if "regions" in node:
            words |= shown_in(node["regions"]["body"])
        elif node["kind"] != "constant" and node["op"] != "result":
            words.add(node["op"])
    return words


def test_odd_texts_are_escaped(script, capfd):
    path = script('graph f(x: i32[N]) {\n  %a: i32[] = constant(value=3)\n  %b: i32[] = constant(value=0)\n'
                  '  %y: i32[N] = in_range(x, %b, %a, message="<\\"&]]>\\\\")\n  return %y\n}\n', "f.graph")
    code, out, _ = ran(capfd, "viz", path, "--stage", "built")
    assert code == 0
    ET.fromstring(out)
    code, out, _ = ran(capfd, "viz", path, "--stage", "built", "--format", "dot")
    assert code == 0


def test_boxes_do_not_overlap_and_edges_go_down():
    rng = np.random.default_rng(3)
    boxes = [Box(float(rng.integers(20, 120)), float(rng.integers(14, 60)), ins=[0.0], outs=[0.0], labels=[40.0])
             for _ in range(70)]
    links = [Link(boxes[i], boxes[j]) for j in range(1, 70)
             for i in {int(k) for k in rng.integers(max(0, j - 9), j, 2)}]
    width, height = layout(boxes, links)
    for k, a in enumerate(boxes):
        assert a.left - 0.01 <= a.x <= width + 0.01 and 0 <= a.y <= height
        for b in boxes[:k]:
            apart = a.x + a.right <= b.x - b.left or b.x + b.right <= a.x - a.left
            assert apart or a.y + a.height <= b.y or b.y + b.height <= a.y
    for link in links:
        ys = [y for _, y in link.points]
        assert ys == sorted(ys)
        for (x0, y0), (_, y1) in zip(link.points[::2], link.points[1::2], strict=True):     # the vertical parts
            for b in boxes:
                inside = abs(x0 - b.x) < b.width / 2 - 0.1 and y0 < b.y + b.height - 0.1 and y1 > b.y + 0.1
                assert not inside or b in (link.source, link.target)


# every op -----------------------------------------------------------------------------------------


def sampled_ops():
    """The ops that have samples."""
    return [pytest.param(op, id=op.name) for op in OPS.values() if op.samples]


@pytest.mark.parametrize("op", sampled_ops())
def test_every_op_passes_every_stage(op):
    for dtype in ("float64", "float32"):  # some ops take single precision alone
        rng = np.random.default_rng(0)
        arrays = [a.astype(dtype) if (a := spec.array(rng)).dtype.kind == "f" else a for spec in op.samples[0].inputs]
        inputs = tuple(input_node(f"x{k}", TensorType(as_dtype(a.dtype), a.shape)) for k, a in enumerate(arrays))
        try:
            with detached():
                node = make(op, inputs, op.samples[0].attrs)
            break
        except DTypeError:
            assert dtype == "float64"
    outputs = (node,) if not isinstance(node.type, tuple) else tuple(
        make(OPS["result"], (node,), {"index": k}) for k in range(len(node.type)))
    graph = Graph("sample", inputs, outputs, (), tuple(n for n in (node,) if is_required(n)))
    stages = Stages(Loaded(Path("sample.graph"), graph))
    for name in stages.names():
        assert stage_text(stages, name)
        json.dumps(stage_record(stages, name), allow_nan=False)
        if name in ("built", PASSES[-1]):
            graph = stages.graph(name)
            assert len(graph_record(graph)["nodes"]) == len(graph.nodes()) - len(graph.inputs)
            drawn = svg(picture(graph))
            ET.fromstring(drawn)
            assert name != "built" or f">{op.name}<" in drawn and op.name in dot(picture(graph))


PICKED = """\
import graphc as tf
x = tf.placeholder("float32", ["N"], name="x")
n = tf.placeholder("int32", [], name="n")
w = tf.Variable(2.0, name="w")
y = tf.multiply(tf.boolean_mask(tf.exp(x), x > 0.5)[None] * tf.ones([n, 1]), w, name="y")
"""


def test_a_graph_with_host_ops(script, tmp_path, capfd):
    """Dumped at every stage, drawn, read back and timed: from its script, and from texts before and after fusion."""
    path = script(PICKED)
    code, out, err = ran(capfd, "dump", path, "--stage", "all")
    assert code == 0, err
    assert "= true_positions(" in out and "= segment(" in out and "program script_0(" in out and "program script_1(" in out
    built = ran(capfd, "dump", path, "--stage", "built")[1]
    assert [o.name for o in parse(built).outputs] == ["y"]
    code, out, err = ran(capfd, "dump", path, "--stage", "kernels", "--format", "json")
    programs = json.loads(out)["stages"][0]["programs"]
    assert [p["name"] for p in programs] == ["script_0", "script_1"] and all(p["calls"] for p in programs)
    assert ">true_positions<" in ran(capfd, "viz", path, "--format", "svg")[1]
    files = [path]
    for stage in ("built", "segment", "fused"):
        files.append(tmp_path / f"{stage}.graph")
        assert ran(capfd, "dump", path, "--stage", stage, "-o", files[-1])[0] == 0
        assert parse(files[-1].read_text()) == parse(ran(capfd, "dump", files[-1], "--stage", "fused" if stage == "fused" else
                                                         "built")[1])
    for file in files:
        code, out, err = ran(capfd, "bench", file, "--kernels", "--json", "--seconds", "0.01", "--size", "100")
        assert code == 0, err
        record = json.loads(out)
        assert record["sizes"] == {"N": 100} and len(record["calls"]) >= 2
        assert all(call["seconds_alone"] > 0 for call in record["calls"])


# bench --------------------------------------------------------------------------------------------


def test_bench_of_a_script(model, capfd):
    code, out, err = ran(capfd, "bench", f"{model}:both", "--size", "N=8", "--seconds", "0.02", "--kernels",
                         "--threads", "1")
    assert code == 0, err
    assert not model.with_suffix(".trained").exists()
    assert out.startswith(f"{model}:both, N=8, 1 thread\n")
    for word in ("bound call", "Session.run", "GFLOP/s", "GB/s", "peak memory", "compile", "kernel call",
                 "model.py:13"):
        assert word in out


def test_bench_of_a_text_as_json(script, tmp_path, capfd):
    file = tmp_path / "c.graph"
    assert ran(capfd, "dump", script(EXPRESSION), "-o", file)[0] == 0
    code, out, err = ran(capfd, "bench", file, "--json", "--seconds", "0.02", "--size", "1000")
    assert code == 0, err
    record = json.loads(out)
    assert record["sizes"] == {"N": 1000}
    assert record["bytes_moved"] == 8000 and record["operations"] >= 3000
    assert record["memory"]["outputs"] == 4000 and record["memory"]["feeds"] == 4000
    assert record["seconds"]["program"]["low"] > 0 and len(record["calls"]) == record["kernels"] == 1


def test_bench_says_what_does_not_fit(script, capfd):
    path = script(EXPRESSION)
    code, _, err = ran(capfd, "bench", path, "--size", "M=3")
    assert code == 1 and "no dim called 'M'" in err and "its dims: N" in err
    code, _, err = ran(capfd, "bench", path, "--range", "3", "3")
    assert code == 1 and "holds no number" in err
    path = script("import graphc as tf\ni = tf.placeholder('int32', ['N'])\n"
                  "y = tf.gather(tf.constant([1.0, 2.0]), i)\n")
    code, out, err = ran(capfd, "bench", path, "--range", "5", "9", "--seconds", "0.01")
    assert (code, out) == (1, "") and "RunError" in err and "see --range" in err and "in script.py:3" in err
