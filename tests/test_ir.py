"""The IR as a language: dims, printer and parser, their errors, and the verifier's invariants."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as tf
from graphc.errors import GraphError, ParseError, ShapeError, VerifyError
from graphc.ir import dims
from graphc.ir.container import detached
from graphc.ir.graph import Equation, Graph, capture, named
from graphc.ir.interpreter import bind_dims, interpret
from graphc.ir.node import CONSTANT, INPUT, Node, input_node, make
from graphc.ir.op import OPS, Array, Kind, Op
from graphc.ir.parser import parse
from graphc.ir.printer import large_constants, print_graph
from graphc.ir.types import TensorType, as_dtype
from graphc.ir.verify import verify
from graphc.passes.manager import Recorder, run_passes
from graphc.passes.pipeline import PIPELINE

F32 = as_dtype("float32")
N, M = dims.name("N"), dims.name("M")

# dims ------------------------------------------------------------------------------------------------------------------

atoms = st.one_of(st.integers(-6, 6), st.sampled_from([N, M, dims.name("T")]))
sizes = st.recursive(atoms, lambda inner: st.one_of(
    st.tuples(st.sampled_from("+-*"), inner, inner),
    st.tuples(st.sampled_from(["//", "max", "min"]), inner, inner)), max_leaves=8)


def built(tree, leaf):
    """The value of a tree of operations, on dims or on numbers."""
    if not isinstance(tree, tuple):
        return leaf(tree)
    operator, left, right = tree[0], built(tree[1], leaf), built(tree[2], leaf)
    if operator == "//":
        return dims.floordiv(left, right)
    return {"+": lambda: left + right, "-": lambda: left - right, "*": lambda: left * right,
            "max": lambda: dims.maximum(left, right), "min": lambda: dims.minimum(left, right)}[operator]()


@given(sizes, st.tuples(*[st.integers(1, 9)] * 3))
@settings(max_examples=300, deadline=None)
def test_dim_expressions_equal_numbers(tree, values):
    env = dict(zip("NMT", values, strict=True))
    try:
        number = built(tree, lambda v: dims.substitute(v, env))
        symbolic = built(tree, lambda v: v)
        assert dims.substitute(symbolic, env) == number
    except ZeroDivisionError:
        return
    text = str(symbolic)
    assert dims.parse(text) == symbolic
    assert eval(text, {"max": max, "min": min}, env) == number  # what the executor does with a program's sizes


def test_equal_dims_are_one_object():
    assert N * M + 2 * N == N * (M + 2)
    assert hash(N + M) == hash(M + N)
    assert N - N == 0
    assert isinstance((N + 1) - N, int)
    half, third = dims.floordiv(N, 2), dims.floordiv(N, 3)
    assert half * third == third * half
    assert half + third == third + half


@pytest.mark.parametrize(("value", "text"), [
    (dims.floordiv(2 * N + 4, 2), "N+2"),
    (dims.floordiv(N * M, M), "N"),
    (dims.floordiv(N + 1, 2), "(N+1)//2"),
    (2 * dims.floordiv(N + 1, 2), "2*((N+1)//2)"),
    (N - dims.floordiv(N, 2), "N-(N//2)"),
    (dims.maximum(N + 1, N), "N+1"),
    (dims.maximum(N - 1, 0), "max(N-1,0)"),
    (dims.maximum(dims.minimum(N - 5, 3), 0), "max(min(N-5,3),0)"),  # an atom may be negative
    (dims.minimum(dims.maximum(N - 5, 0), 0), "0"),
    (dims.product([N, 3, M]), "3*M*N"),
])
def test_dims_in_their_shortest_form(value, text):
    assert str(value) == text


@pytest.mark.parametrize("text", ["", "N+", "2 N", "f(N)", "N.real", "N/2", "1.5", "for", "nan", "f32", "max(N)", "N//0", "é"])
def test_texts_that_are_no_dims(text):
    with pytest.raises(ValueError, match=r"is not a (dim|name)"):
        dims.parse(text)


def test_sizes_known_later_are_no_numbers():
    with pytest.raises(TypeError, match="known only when the graph runs"):
        range(N)


# text and back ----------------------------------------------------------------------------------------------------------


def round_trip(graph: Graph) -> Graph:
    """The graph parsed back; text and graph must both be equal to the first ones."""
    text = print_graph(graph)
    again = parse(text, large_constants(graph))
    assert again == graph
    assert print_graph(again) == text
    return again


def function(build, *types, name="f") -> Graph:
    """A graph from a Python function of input nodes."""
    with detached():
        inputs = tuple(input_node(f"x{k}", t) for k, t in enumerate(types))
        found = build(*inputs)
    return named(Graph(name, inputs, found if isinstance(found, tuple) else (found,)))


def training_step():
    """A step with variables, gradients, control inputs, randomness and several results."""
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, [None, 4], name="x")
        y = tf.placeholder(tf.int32, ["N"], name="2nd")  # a name that is no word
        w = tf.Variable(tf.random_normal([4, 3], seed=1), name="w")
        kept = x * tf.cast(tf.random_uniform(tf.shape(x), seed=2) < 0.9, tf.float32)
        logits = kept[:, ::-1] @ w + np.arange(3)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
        train = tf.train.AdamOptimizer(0.1).minimize(loss)
        with tf.control_dependencies([train]):
            after = w + 0
        return capture("step", [loss, after, train], [x, y])


def test_every_stage_of_the_pipeline_reads_back():
    recorder = Recorder()
    run_passes(training_step(), PIPELINE, [recorder])
    assert list(recorder.stages) == ["built", *(p.name for p in PIPELINE)]
    for stage in recorder.stages.values():
        round_trip(stage)
    assert " after(" in str(recorder.stages["built"])
    assert "(f32[4,3]) = grad(" in str(recorder.stages["built"])
    assert "\n    graph " in str(recorder.stages["fuse"])  # nested regions
    assert "%2nd: i32[N]" in str(recorder.stages["built"])


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 1, 2), (70,)])
def test_constants_read_back_bit_for_bit(dtype, shape):
    rng = np.random.default_rng(0)
    values = (rng.normal(size=shape) * 100).astype(dtype)
    with detached():
        round_trip(named(Graph("f", (), (constant(values),))))


def constant(values) -> Node:
    values = np.asarray(values)
    return Node(CONSTANT, (), {"value": Array(values)}, TensorType(as_dtype(values.dtype), values.shape))


def test_special_numbers_read_back():
    values = np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38, 0.1, 1 / 3], np.float32)
    graph = named(Graph("f", (), (constant(values),)))
    again = round_trip(graph).outputs[0].attrs["value"].value
    assert np.array_equal(again, values, equal_nan=True)
    assert np.signbit(again[4])
    extremes = np.array([np.iinfo(np.int64).min, np.iinfo(np.int64).max])
    round_trip(named(Graph("f", (), (constant(extremes),))))


def test_a_large_constant_is_named_by_its_content():
    values = np.arange(100.0)
    graph = named(Graph("f", (), (constant(values),)))
    text = print_graph(graph)
    assert "array(" in text
    assert "99.0" not in text
    with pytest.raises(ParseError, match="keep the .npz file beside the text"):
        parse(text)
    assert np.array_equal(parse(text, large_constants(graph)).outputs[0].attrs["value"].value, values)


@pytest.mark.parametrize("value", [
    3, -7, 2.5, -1e-9, float("inf"), -float("inf"), True, False, None,
    "text", 'with "quotes", \\ and\nlines', "",
    (), (1,), (1, 2, 3), ((0, 1), (2.5, None)), ("a", True),
    F32, as_dtype("bool"), TensorType(F32, (N, 3)), TensorType(F32, ()),
    N, 2 * N + 1, -N, dims.floordiv(N + 1, 2),
    (dims.floordiv(N + 1, 2), 2), dims.maximum(N - 1, 0), (N - 1, dims.minimum(N, M)),
    Array(np.arange(3.0)), Array(np.array([[1.0], [np.nan]])),
])
def test_every_kind_of_attribute_reads_back(value):
    op = Op("test_attribute", Kind.ELEMENTWISE, ("x",), infer=lambda x, *, value: x, numpy=lambda x, *, value: x,
            grad="a test", doc="An op with an attribute of any kind.", attrs={"value": "default"})
    try:
        with detached():
            x = input_node("x", TensorType(as_dtype("float64"), (N,)))
            round_trip(named(Graph("f", (x,), (make(op, (x,), {"value": value}),))))
    finally:
        del OPS["test_attribute"]


def test_equations_and_control_inputs_in_text():
    text = """graph f(x: f32[N], y: f32[M,2*N+1]) {
  require M == 2*N
  require N//2 == 3
  %a: f32[N] = negative(x)
  %b: f32[N] = exp(%a) after(%a)
  return %b, %a
}
"""
    graph = parse(text)
    assert print_graph(graph) == text
    assert graph.equations == (Equation(M, 2 * N), Equation(dims.floordiv(N, 2), 3))
    assert graph.outputs[0].control == (graph.outputs[1],)


def test_user_lines_are_read_and_not_compared():
    text = "graph f(x: f32[N]) {\n  %0: f32[N] = exp(x)  # net.py:7\n  return %0\n}\n"
    graph = parse(text)
    assert str(graph.outputs[0].location) == "net.py:7"
    assert print_graph(graph) == text
    assert parse(text.replace("  # net.py:7", "")) == graph


BODY = "graph f(x: f32[N,3], y: f32[3,2]) {\n  %0: f32[N,2] = matmul(x, y)\n  return %0\n}\n"


@pytest.mark.parametrize(("old", "new", "message"), [
    ("graph f", "grph f", "line 1, column 1: expected graph, found 'grph'"),
    ("f32[N,3]", "f33[N,3]", "line 1, column 12: there is no dtype called f33"),
    ("f32[N,3]", "f32[N+,3]", "'N\\+' is not a dim"),
    ("y: f32", "x: f32", "a second parameter called x"),
    ("matmul", "matmull", "there is no op called matmull"),
    ("(x, y)", "(x, z)", "there is no value called z"),
    ("(x, y)", "(x, %0)", "%0 is used before it is made: a cycle, or lines out of order"),
    ("(x, y)", "(x)", "matmul: "),
    ("(x, y)", "(x, y, colour=3)", "unknown: colour"),
    ("(x, y)", "(y, y)", "line 2, column 3: matmul: matmul: inner dimensions differ"),
    ("f32[N,2]", "f32[N,4]", r"%0 is declared f32\[N,4\], but matmul gives f32\[N,2\]"),
    ("return %0", "return %1", "there is no value called %1"),
    ("\n}\n", "\n", "the text ends where } should be"),
    ("}\n", "}\nmore", "text after the graph"),
    ("matmul(x, y)", "matmul(x, y) ?", r"'\?' has no meaning here"),
    ("matmul(x, y)", "matmul(x, y, transpose_a=-", "a dim that does not end"),
    ("f32[3,2]", "f32[3,2] constant", "expected variable"),
])
def test_malformed_texts_name_line_and_column(old, new, message):
    assert old in BODY
    with pytest.raises(ParseError, match=message) as caught:
        parse(BODY.replace(old, new, 1))
    assert "column" in str(caught.value)


def test_a_cyclic_text_names_the_value():
    text = """graph f(x: f32[3]) {
  %a: f32[3] = add(x, %b)
  %b: f32[3] = exp(%a)
  return %b
}
"""
    with pytest.raises(ParseError, match="line 2, column 23: %b is used before it is made: a cycle"):
        parse(text)


# the verifier: each invariant broken by hand --------------------------------------------------------------------------------


def put(node: Node, **fields) -> Node:
    """Change an immutable node, as only a bug could."""
    for name, value in fields.items():
        object.__setattr__(node, name, value)
    return node


def small():
    graph = parse(BODY.replace("return %0", "%1: f32[N,2] = exp(%0)\n  return %1"))
    verify(graph)
    return graph, graph.outputs[0]


def broken(invariant: str, graph: Graph, properties=()) -> None:
    with pytest.raises(VerifyError, match=f"breaks the invariant {invariant}\n"):
        verify(graph, frozenset(properties))


def test_invariant_acyclic():
    graph, node = small()
    put(node.inputs[0], inputs=(node, node))
    with pytest.raises(GraphError, match="the graph has a cycle: 1 -> 0 -> 1"):
        verify(graph)


def test_invariant_declared_inputs():
    graph, node = small()
    broken("declared-inputs", Graph("f", graph.inputs[:1], graph.outputs))
    broken("declared-inputs", Graph("f", (*graph.inputs, node), graph.outputs))


def test_invariant_unique_names():
    graph, node = small()
    put(node, name="0")
    broken("unique-names", graph)


def test_invariant_known_op():
    graph, node = small()
    op = Op("test_unknown", Kind.ELEMENTWISE, ("x",), infer=lambda x: x, numpy=np.exp, grad="none", doc="Is forgotten.")
    del OPS["test_unknown"]
    put(node, op=op)
    broken("known-op", graph)


def test_invariant_arity():
    graph, node = small()
    put(node, inputs=())
    broken("arity", graph)


def test_invariant_attributes():
    graph, node = small()
    put(node, attrs={"extra": 1})
    broken("attributes", graph)


def test_invariant_types():
    graph, node = small()
    put(node, type=TensorType(F32, (N, 3)))
    broken("types", graph)
    graph, node = small()
    put(node.inputs[0], inputs=(graph.inputs[1], graph.inputs[1]))
    broken("types", graph)


def test_invariant_body_inputs():
    fused = run_passes(function(lambda x: tf.exp(x) * x, TensorType(F32, (N,))), PIPELINE)
    verify(fused, frozenset(["pure", "fused"]))
    region = fused.outputs[0]
    put(region, inputs=(*region.inputs, *region.inputs))
    broken("body-inputs", fused)


def test_invariants_pure_and_no_grad():
    graph = training_step()
    broken("pure", named(graph), ["pure"])
    broken("no-grad", named(graph), ["no_grad"])
    graph, node = small()
    put(node, control=(node.inputs[0],))
    broken("pure", graph, ["pure"])


# graphs ------------------------------------------------------------------------------------------------------------------


def test_nodes_are_immutable():
    _, node = small()
    with pytest.raises(AttributeError, match="nodes are immutable: cannot set 'type' on 1"):
        node.type = None


def test_a_name_belongs_to_a_node_for_the_whole_compile():
    recorder = Recorder()
    run_passes(training_step(), PIPELINE, [recorder])
    built, resolved = recorder.stages["built"], recorder.stages["resolve_state"]
    kinds = {n.name: n.op for n in built.nodes()}
    common = [n for n in resolved.nodes() if n.name in kinds and n.op.kind not in (Kind.EFFECT, Kind.CONSTANT)]
    assert len(common) > 8
    same = [n for n in common if kinds[n.name] is n.op]
    assert len(same) == len(common)


def test_a_long_chain_needs_no_recursion():
    def chain(x):
        for _ in range(20_000):
            x = -x
        return x
    graph = function(chain, TensorType(F32, ()))
    verify(graph)
    assert interpret(graph, [np.float32(2)]) == [2]
    assert len(graph.nodes()) == 20_001


def test_feeding_binds_named_dims():
    x, y = (input_node(n, t) for n, t in (("x", TensorType(F32, (N, 3))), ("y", TensorType(F32, (2 * N,)))))
    assert bind_dims([x, y], [(4, 3), (8,)]) == {"N": 4}
    assert bind_dims([y, input_node("z", TensorType(F32, (N + M,)))], [(6,), (5,)]) == {"N": 3, "M": 2}  # no name alone
    with pytest.raises(ShapeError, match="2\\*N = 6 != 7"):
        bind_dims([y], [(7,)])
    with pytest.raises(ShapeError, match=r"the value of shape \(7,\) does not fit y of shape \(2\*N\)") as caught:
        bind_dims([x, y], [(4, 3), (7,)])
    assert "with  x: f32[N,3]" in str(caught.value)
    assert "2*N = 8 != 7" in str(caught.value)


def test_interpreting_a_region_runs_its_body():
    text = """graph f(x: f32[N]) {
  %0: (f32[N], f32[]) = fused(x) {
    graph exp_reduce_sum(p0: f32[N]) {
      %0: f32[N] = exp(p0)
      %1: f32[] = reduce_sum(%0, axes=(0,))
      return %0, %1
    }
  }
  %1: f32[N] = result(%0)
  %2: f32[] = result(%0, index=1)
  return %1, %2
}
"""
    graph = parse(text)
    assert print_graph(graph) == text
    assert graph.inputs[0].op is INPUT
    x = np.array([0, 1], np.float32)
    rows, total = interpret(graph, [x])
    np.testing.assert_allclose(rows, np.exp(x), rtol=1e-6)
    np.testing.assert_allclose(total, np.exp(x).sum(), rtol=1e-6)
