"""What the pass `loops` makes of branches and loops: fewer results and operands, products outside, same values."""
import numpy as np
import pytest

import graphc as tf
from graphc.compiler import captured
from graphc.ir.graph import Graph, nested
from graphc.ir.interpreter import interpret
from graphc.ir.op import Kind
from graphc.ir.parser import parse
from graphc.ir.verify import verify
from graphc.passes.loops import loops
from graphc.passes.manager import run_passes
from graphc.passes.pipeline import SEMANTICS
from graphc.passes.simplify import simplify


@pytest.fixture(autouse=True)
def seeded(fresh_graph):
    tf.set_random_seed(1)


def count(graph: Graph, kind: Kind) -> tuple[int, int]:
    """(nodes of a kind outside of bodies, nodes of it inside)."""
    outside = sum(n.op.kind is kind for n in graph.nodes())
    inside = sum(sum(count(body, kind)) for n in graph.nodes() for body in nested(n).values())
    return outside, inside


def checked(fetches, feeds=()) -> Graph:
    """The graph after the passes, with the values that it had before them."""
    before = run_passes(captured("test", fetches, feeds), SEMANTICS)
    after = run_passes(before, [*SEMANTICS, simplify, loops])
    verify(after)
    assert parse(str(after)) == after
    rng = np.random.default_rng(0)
    for size in (0, 1, 3):
        values = [rng.standard_normal([size if not isinstance(d, int) else d for d in i.type.shape]) for i in before.inputs]
        for a, b in zip(interpret(before, values), interpret(after, values), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    return after


def test_a_recurrent_layer_keeps_one_product_a_step():
    x = tf.placeholder(tf.float64, ["T", 2, 3])
    outputs, _ = tf.nn.dynamic_rnn(tf.nn.rnn_cell.BasicLSTMCell(4), x, dtype=tf.float64, time_major=True)
    graph = checked([outputs], [x])
    assert count(graph, Kind.CONTRACT) == (1, 1), "the inputs' product is taken before the loop"
    loss = tf.reduce_sum(tf.square(outputs))
    graph = checked([loss, *tf.gradients(loss, [x, *tf.trainable_variables()])], [x])
    assert count(graph, Kind.CONTRACT) == (4, 2), "before: x W; after: dx, dW, dV; a step: h V, dh"
    assert count(graph, Kind.ASSEMBLE) == (1, 1), "gates' gradients lie side by side, and so do dW and dV"


@pytest.mark.parametrize(("cell", "products"), [
    (tf.nn.rnn_cell.GRUCell, (8, 4)), (tf.nn.rnn_cell.BasicRNNCell, (4, 2)),
    (lambda units: tf.nn.rnn_cell.LSTMCell(units, use_peepholes=True, num_proj=2), (5, 4))])
def test_the_gradient_takes_products_of_the_forward_loop_from_it(cell, products):
    x = tf.placeholder(tf.float64, ["T", 2, 3])
    outputs, _ = tf.nn.dynamic_rnn(cell(4), x, sequence_length=np.array([2, 1], np.int32), dtype=tf.float64, time_major=True)
    loss = tf.reduce_sum(tf.square(outputs))
    graph = checked([loss, *tf.gradients(loss, [x, *tf.trainable_variables()])], [x])
    assert count(graph, Kind.CONTRACT) == products
    forward, backward = (n for n in graph.nodes() if n.op.kind is Kind.SCAN)
    assert backward.attrs["reverse"] and not forward.attrs["reverse"]


def test_a_value_of_another_scan_is_not_taken_where_rows_differ():
    x, w = tf.placeholder(tf.float64, ["T", 2, 3]), tf.constant(np.arange(9.0).reshape(3, 3) / 9)
    first = tf.scan(lambda a, r: tf.tanh(tf.matmul(a, w) + r), x, tf.zeros([2, 3], tf.float64))
    again = tf.scan(lambda a, r: a + tf.matmul(r, w), first, tf.zeros([2, 3], tf.float64))
    assert count(checked([first, again], [x]), Kind.CONTRACT) == (1, 1), "first[t] w is not what the first loop multiplied"


def test_second_gradient_of_a_scan():
    x = tf.placeholder(tf.float64, ["T", 3])
    w = tf.Variable(np.eye(3) * 0.5, dtype=tf.float64)
    y = tf.scan(lambda a, r: tf.tanh(tf.squeeze(tf.matmul(tf.expand_dims(a, 0), w), 0)) + r * a, x, tf.ones([3], tf.float64))
    g = tf.gradients(tf.reduce_sum(tf.square(y)), [w])[0]
    checked([g, *tf.gradients(tf.reduce_sum(tf.square(g)), [w, x])], [x])


def test_sums_over_iterations_become_one_sum():
    x = tf.placeholder(tf.float64, ["T", 4, 3])
    total = tf.foldl(lambda a, r: a + tf.matmul(r, r, transpose_a=True) + tf.matmul(r, r, transpose_a=True), x,
                     tf.ones([3, 3], tf.float64))
    graph = checked([total], [x])
    assert count(graph, Kind.SCAN) == (0, 0)
    assert count(graph, Kind.CONTRACT)[1] == 0


def test_a_loop_variable_that_is_used_otherwise_stays():
    x = tf.placeholder(tf.float64, ["T", 3, 3])
    ys = tf.scan(lambda a, r: a + tf.matmul(r, r), x, tf.zeros([3, 3], tf.float64))
    graph = checked([ys], [x])
    assert count(graph, Kind.SCAN) == (1, 0)
    assert count(graph, Kind.CONTRACT) == (1, 0), "the products do not depend on the loop"


def test_products_of_random_numbers_stay_in_the_loop():
    x = tf.placeholder(tf.float64, ["T", 3, 3])
    ys = tf.map_fn(lambda r: tf.matmul(r * tf.random_uniform([3, 3], dtype=tf.float64, seed=1), r), x)
    assert count(checked([ys], [x]), Kind.CONTRACT) == (0, 1)


def test_nested_loops():
    x = tf.placeholder(tf.float64, ["T", 2, 3])
    w = tf.constant(np.arange(9.0).reshape(3, 3) / 9)
    ys = tf.map_fn(lambda rows: tf.scan(lambda a, r: tf.tanh(a + tf.squeeze(tf.matmul(tf.expand_dims(r, 0), w), 0)), rows,
                                        tf.zeros([3], tf.float64)), x)
    checked([ys, tf.gradients(tf.reduce_sum(ys * ys), x)[0]], [x])


def test_trim_drops_what_nobody_uses():
    x = tf.placeholder(tf.float64, [3])
    a, b = tf.cond(tf.reduce_sum(x) > 0, lambda: (x + 1, tf.exp(x)), lambda: (x - 1, tf.sin(x)))
    i, s, t = tf.while_loop(lambda i, s, t: i < 5, lambda i, s, t: (i + 1, s * x, t + s), (0, x, x))
    graph = checked([a, s], [x])
    branch, loop = (next(n for n in graph.nodes() if n.op.kind is k) for k in (Kind.COND, Kind.WHILE))
    assert len(branch.type) == 1
    assert "exp" not in str(graph) and "sin" not in str(graph)
    assert loop.attrs["states"] == 2, "nothing uses t"


def test_a_loop_variable_that_stays_is_an_operand():
    x = tf.placeholder(tf.float64, [3])
    _, s, same = tf.while_loop(lambda i, s, c: i < 3, lambda i, s, c: (i + 1, s * c, c), (0, x, x + 1))
    graph = checked([s, same], [x])
    assert next(n for n in graph.nodes() if n.op.kind is Kind.WHILE).attrs["states"] == 2
