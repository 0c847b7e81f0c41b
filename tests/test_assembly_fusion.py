"""What computes the parts of an assembled tensor stores them where they belong: no copies."""
import numpy as np
import pytest

import graphc as tf
from graphc.compiler import captured
from graphc.ir.interpreter import interpret
from graphc.ir.op import Kind
from graphc.passes.manager import run_passes
from graphc.passes.pipeline import PIPELINE
from graphc.testing.compiled import CompiledGraph

pytestmark = pytest.mark.usefixtures("fresh_graph")


def regions_and_check(outputs, inputs) -> int:
    """The number of regions; the compiled values equal the interpreted ones for three sizes of N."""
    graph = captured("test", outputs, inputs)
    fused = run_passes(graph, PIPELINE)
    native = CompiledGraph(graph)
    rng = np.random.default_rng(0)
    for size in (0, 1, 7):
        values = [rng.standard_normal([d if isinstance(d, int) else size for d in i.shape]).astype(np.float32) for i in inputs]
        for got, expected in zip(native(values), interpret(graph, values), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    return sum(n.op.kind is Kind.REGION for n in fused.nodes())


def test_parts_are_computed_in_place():
    x, y = tf.placeholder(tf.float32, ["N", 20]), tf.placeholder(tf.float32, ["N", 5])
    a, b = tf.sigmoid(x) * 2, tf.tanh(x) * x
    assert regions_and_check([tf.concat([a, b], 1)], [x]) == 1
    assert regions_and_check([tf.concat([a, y, b], 1)], [x, y]) == 1, "a part from outside is copied"
    assert regions_and_check([tf.pad(tf.exp(y), [[1, 0], [0, 2]])], [y]) == 1


def test_a_part_that_is_used_elsewhere_keeps_its_own_memory():
    x = tf.placeholder(tf.float32, ["N", 20])
    a, b = tf.sigmoid(x) * 2, tf.tanh(x) * x
    regions_and_check([tf.concat([a, b], 1), a], [x])
    regions_and_check([tf.concat([a, a], 1)], [x])
    regions_and_check([tf.concat([a, tf.transpose(tf.reshape(b, [-1, 4, 5]), [0, 2, 1])[:, :, 0]], 1), b], [x])


def test_two_assemblies_of_the_same_parts():
    x = tf.placeholder(tf.float32, ["N", 20])
    a, b = tf.sigmoid(x), tf.tanh(x)
    regions_and_check([tf.concat([a, b], 1), tf.concat([b, a * b], 0)], [x])


def test_a_way_through_a_sum_does_not_make_a_cycle():
    x = tf.placeholder(tf.float32, ["N", 3])
    a = tf.exp(x)
    regions_and_check([tf.concat([a, x - tf.reduce_sum(a * 2)], 1)], [x])


def test_large_parts_at_odd_places():
    """So large that stores would bypass the caches, if they were to aligned places."""
    count = 2**22 + 3
    x = tf.placeholder(tf.float32, [count])
    total = tf.reduce_sum(x)
    with tf.Session() as session:
        fed = np.ones(count, np.float32)
        joined = session.run(tf.concat([x * 2, x + 2], 0), {x: fed})
        assert joined[:count].min() == joined[:count].max() == 2 and joined[count:].min() == joined[count:].max() == 3
        scaled, found = session.run([x * 3, total], {x: fed})
        assert scaled.min() == scaled.max() == 3 and found == count


def test_large_results_beside_a_sum():
    count = 2**22 + 3
    x = tf.placeholder(tf.float32, [None])
    y = tf.tanh(x)
    with tf.Session() as session:
        fed = np.random.default_rng(0).standard_normal(count, dtype=np.float32)
        for size in (count, count - 3, 5):
            value, total = session.run([y, tf.reduce_sum(y)], {x: fed[:size]})
            np.testing.assert_allclose(value, np.tanh(fed[:size]), rtol=1e-6)
            assert abs(total - value.sum(dtype=np.float64)) < 1e-3 * size**0.5
