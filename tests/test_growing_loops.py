"""Loop variables whose sizes change from one iteration to the next, as TensorFlow's shape_invariants allow."""
import numpy as np
import pytest

import graphc as tf
from graphc.config import options
from graphc.ir.graph import capture
from graphc.ir.interpreter import interpret
from graphc.ir.parser import parse
from graphc.ir.printer import large_constants, print_graph

ANY = tf.TensorShape([None])
SCALAR = tf.TensorShape([])


pytestmark = pytest.mark.usefixtures("device", "fresh_graph")


def runs(fetches, feeds, values):
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        return [session.run(fetches, dict(zip(feeds, v, strict=True))) for v in values]


def test_a_vector_that_grows():
    n = tf.placeholder(tf.int32, [])
    _, v = tf.while_loop(lambda i, v: i < n, lambda i, v: (i + 1, tf.concat([v, v[-1:] * 2], 0)),
                         [tf.constant(0), tf.constant([1.0])], shape_invariants=[SCALAR, ANY])
    assert v.shape.as_list() == [None]
    total = tf.reduce_sum(v * v)
    for (values, squares), k in zip(runs([v, total], [n], [[3], [0], [6]]), (3, 0, 6), strict=True):
        assert values.tolist() == [2.0 ** e for e in range(k + 1)] and squares == (values ** 2).sum()


def test_decoding_word_by_word():
    """A batch of sequences to which each step appends a column; the step looks at all of it. Two variables have one size."""
    table = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    n, start = tf.placeholder(tf.int32, []), tf.placeholder(tf.int32, [None, 1])

    def step(ids, scores):
        seen = tf.reduce_sum(tf.gather(table, ids), 1)
        logits = tf.matmul(seen, table, transpose_b=True)
        best = tf.cast(tf.argmax(logits, 1), tf.int32)
        return tf.concat([ids, tf.expand_dims(best, 1)], 1), tf.concat([scores, [tf.reduce_max(logits)]], 0)
    ids, scores = tf.while_loop(lambda ids, scores: tf.shape(ids)[1] <= n, step, [start, tf.zeros([1])],
                                shape_invariants=[tf.TensorShape([None, None]), ANY], maximum_iterations=4)
    for begin, count in (([[0], [3]], 3), ([[1]], 0), ([[4], [2], [0]], 9)):
        want, best = np.array(begin), [0.0]
        for _ in range(min(count, 4)):
            logits = table[want].sum(1) @ table.T
            want = np.concatenate([want, logits.argmax(1)[:, None]], 1)
            best.append(logits.max())
        (found, values), = runs([ids, scores], [start, n], [[begin, count]])
        assert np.array_equal(found, want) and np.allclose(values, best, rtol=1e-5)


def test_a_vector_that_shrinks_inside_of_a_map_and_a_branch():
    x = tf.placeholder(tf.int32, [None])

    def collatz(start):
        """How often a number is halved or tripled, by the length of a list."""
        def step(v):
            return tf.cond(tf.equal(v[-1] % 2, 0), lambda: tf.concat([v, [v[-1] // 2]], 0),
                           lambda: tf.concat([v, [3 * v[-1] + 1]], 0))
        return tf.size(tf.while_loop(lambda v: v[-1] > 1, step, [tf.reshape(start, [1])], shape_invariants=[ANY]))
    lengths = tf.map_fn(collatz, x)
    left = tf.while_loop(lambda v: tf.reduce_sum(v) > 10, lambda v: v[1:], [x], shape_invariants=[ANY])
    found, rest = runs([lengths, left], [x], [[[6, 1, 7]]])[0]
    assert found.tolist() == [9, 1, 17] and rest.tolist() == [1, 7]


def test_what_keeps_its_size_stays_a_native_loop():
    n = tf.placeholder(tf.int32, [])
    _, v = tf.while_loop(lambda i, v: i < n, lambda i, v: (i + 1, v * 2.0), [tf.constant(0), tf.ones([2])],
                         shape_invariants=[SCALAR, ANY])
    assert v.shape == (2,) and v.op.name != "measured" and not v.inputs[0].attrs["free"]
    assert runs([v, tf.gradients(v, v)[0]], [n], [[3]])[0][0].tolist() == [8, 8]


def test_variables_in_a_loop_that_grows():
    w = tf.Variable([1.0, 2.0])
    _, v = tf.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, tf.concat([v, w + w.assign_add([1.0, 0.0])[:1]], 0)),
                         [tf.constant(0), tf.constant([0.0])], shape_invariants=[SCALAR, ANY])
    with tf.Session() as session:
        session.run(w.initializer)
        found = session.run(v)
        assert found.shape == (7,) and session.run(w).tolist() == [4, 2]


def test_with_checks_after_each_pass_and_as_text(monkeypatch):
    monkeypatch.setattr(options, "check", 2)
    n = tf.placeholder(tf.int32, [], name="n")
    _, v = tf.while_loop(lambda i, v: i < n, lambda i, v: (i + 1, tf.concat([v, tf.exp(v[:1])], 0)),
                         [tf.constant(0), tf.constant([0.0])], shape_invariants=[SCALAR, ANY])
    y = tf.reduce_sum(v)
    assert runs(y, [n], [[4]]) == [4.0]
    graph = capture("grows", [y], [n])
    text = print_graph(graph)
    again = parse(text, large_constants(graph))
    assert "free=(" in text and interpret(again, [np.int32(4)]) == interpret(graph, [np.int32(4)]) == [4.0]


def test_no_gradient_flows_through():
    x, n = tf.placeholder(tf.float32, [1]), tf.placeholder(tf.int32, [])
    _, v, s = tf.while_loop(lambda i, v, s: i < n, lambda i, v, s: (i + 1, tf.concat([v, v], 0), s + tf.reduce_sum(x)),
                            [tf.constant(0), x, tf.constant(0.0)], shape_invariants=[SCALAR, ANY, SCALAR])
    for y in (v, s):
        with pytest.raises(tf.errors.ArgumentError, match=r"(?s)no gradient flows through.*graphc.scan stack"):
            runs(tf.gradients(y, x), [x, n], [[[1.0], 2]])
