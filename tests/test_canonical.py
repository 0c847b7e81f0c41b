"""The canonical form of graphs: every op has one, and a graph can be written by its numbers and read again."""
import importlib
import json
import pkgutil

import numpy as np
import pytest

import graphc as tf
import graphc.ops
from graphc.errors import DTypeError
from graphc.ir.canonical import Canonical
from graphc.ir.container import detached
from graphc.ir.graph import Graph, capture, is_required
from graphc.ir.node import input_node, make
from graphc.ir.op import OPS
from graphc.ir.types import TensorType, as_dtype
from graphc.skeleton import Reader, Writer

for module in pkgutil.iter_modules(graphc.ops.__path__):
    importlib.import_module(f"graphc.ops.{module.name}")

CASES = [pytest.param(op, s, id=f"{op.name}-{k}") for op in OPS.values() for k, s in enumerate(op.samples)]


def written_and_read(graph):
    form, blobs = Canonical(graph), []
    document = Writer(form, {}, form.dims.__getitem__, blobs).graph(form.watched())
    own = {new: old for old, new in form.dims.items()}
    return Reader(form, own.__getitem__, blobs).graph(json.loads(json.dumps(document)))


def sample_graph(op, sample, dtype):
    rng = np.random.default_rng(0)
    arrays = [a.astype(dtype) if (a := spec.array(rng)).dtype.kind == "f" and spec.dtype is None else a
              for spec in sample.inputs]
    inputs = tuple(input_node(f"x{k}", TensorType(as_dtype(a.dtype), a.shape)) for k, a in enumerate(arrays))
    with detached():
        node = make(op, inputs, sample.attrs)
    outputs = (node,) if not isinstance(node.type, tuple) else tuple(
        make(OPS["result"], (node,), {"index": k}) for k in range(len(node.type)))
    return Graph("sample", inputs, outputs, (), tuple(n for n in (node,) if is_required(n)))


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_every_op_is_written_and_read(op, sample):
    try:
        graph = sample_graph(op, sample, "float64")
    except DTypeError:      # some ops take single precision alone
        graph = sample_graph(op, sample, "float32")
    again = written_and_read(graph)
    assert again == graph
    assert Canonical(again).text == Canonical(graph).text


def test_a_whole_graph_is_written_and_read():
    with tf.Graph().as_default():
        x, k = tf.placeholder(tf.float32, [None, "M"], "x"), tf.placeholder(tf.int32, [], "k")
        big = tf.constant(np.arange(600, dtype=np.float32))

        def body(i, v):
            return i + 1, tf.nn.dropout(v * tf.cast(tf.shape(v)[1], tf.float32), 0.5)
        y = tf.while_loop(lambda i, v: i < k, body, (0, x))[1]
        z = tf.reduce_sum(tf.py_func(np.sin, [y], tf.float32, shape=["A", None])) + tf.reduce_sum(tf.tanh(big))
        graph = capture("whole", [z, tf.gradients(y, x)[0]], [x, k])
    again = written_and_read(graph)
    assert again == graph
    form = Canonical(again)
    assert form.text == Canonical(graph).text
    assert len(form.arrays) == len(form.drawn) == len(form.functions) == 1
    assert [n.location for n in graph.nodes()] == [n.location for n in again.nodes()]
