"""The workloads as graphs in TensorFlow 1's style: one text for graphc and TensorFlow, which share these names.

Each function takes the system's module `tf`, the workload and its weights, and returns a maker of the graph and the
(dtype, shape) of each placeholder that the maker is called with.  A maker returns what is to be fetched.
"""
from __future__ import annotations

import contextlib
import math

import numpy as np

from benchmarks.workloads import (
    ADAM_BETA1,
    ADAM_BETA2,
    ADAM_EPSILON,
    ADAM_RATE,
    LSTM_STEPS,
    MOMENTUM,
    SGD_RATE,
    Workload,
)


def linear_training(tf, workload: Workload, weights: list[np.ndarray]):
    def make(x, y):
        w, b = (tf.Variable(weight) for weight in weights)
        prediction = tf.matmul(x, w) + b
        if workload.kind == "linreg_train":
            loss = tf.reduce_mean(tf.square(prediction - y))
        else:
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=prediction))
        return [loss, tf.train.GradientDescentOptimizer(SGD_RATE).minimize(loss)]

    return make, [(tf.float32, [None, workload.sizes[0]]), (tf.float32, [None, 1])]


def logits_of(tf, x, weights: list[np.ndarray]):
    w1, b1, w2, b2 = (tf.Variable(weight) for weight in weights)
    return tf.matmul(tf.nn.relu(tf.matmul(x, w1) + b1), w2) + b2


def mlp_training(tf, workload: Workload, weights: list[np.ndarray]):
    def make(x, y):
        logits = logits_of(tf, x, weights)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
        return [loss, tf.train.AdamOptimizer(ADAM_RATE, ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON).minimize(loss)]

    return make, [(tf.float32, [None, workload.sizes[0]]), (tf.int32, [None])]


def mlp_prediction(tf, workload: Workload, weights: list[np.ndarray]):
    return lambda x: logits_of(tf, x, weights), [(tf.float32, [None, workload.sizes[0]])]


def gelu(tf, workload: Workload, weights: list[np.ndarray]):
    def make(x):
        a, b, c = (tf.Variable(weight) for weight in weights)
        u = x * a + b
        return 0.5 * u * (1 + tf.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u * u * u))) * c + x

    return make, [(tf.float32, [None])]


def dot(tf, workload: Workload, weights: list[np.ndarray]):
    return lambda a, b: tf.reduce_sum(a * b), [(tf.float32, list(workload.sizes))] * 2


def product(tf, workload: Workload, weights: list[np.ndarray]):
    m, n, k = workload.sizes
    return tf.matmul, [(tf.float32, [m, k]), (tf.float32, [k, n])]


def lenet_logits(tf, x, weights: list[np.ndarray]):
    """Filters and the first matrix come in PyTorch's order; TensorFlow keeps channels last, in which it is at its fastest."""
    f1, b1, f2, b2, w3, b3, w4, b4 = weights
    last = [f.transpose(2, 3, 1, 0).copy() for f in (f1, f2)]
    w3 = w3.reshape(20, 4, 4, 50).transpose(1, 2, 0, 3).reshape(320, 50)
    x = tf.reshape(x, [-1, 28, 28, 1])
    for kernel, bias in zip(last, (b1, b2), strict=True):
        x = tf.nn.conv2d(x, tf.Variable(kernel), [1, 1, 1, 1], "VALID") + tf.Variable(bias)
        x = tf.nn.relu(tf.nn.max_pool(x, [1, 2, 2, 1], [1, 2, 2, 1], "VALID"))
    x = tf.nn.relu(tf.matmul(tf.reshape(x, [-1, 320]), tf.Variable(w3)) + tf.Variable(b3))
    return tf.matmul(x, tf.Variable(w4)) + tf.Variable(b4)


def lenet(tf, workload: Workload, weights: list[np.ndarray]):
    def make(x, y=None):
        logits = lenet_logits(tf, x, weights)
        if y is None:
            return logits
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
        return [loss, tf.train.MomentumOptimizer(SGD_RATE, MOMENTUM).minimize(loss)]

    inputs = [(tf.float32, [None, *workload.sizes])]
    return make, [*inputs, (tf.int32, [None])] if workload.trains else inputs


def lstm_layer(tf, x, kernel: np.ndarray, bias: np.ndarray, scope: str):
    """Outputs [batch, time, units]. TensorFlow has lost its cells to Keras, so there it is unrolled by hand."""
    units = bias.size // 4
    try:
        cell = tf.nn.rnn_cell.LSTMCell(units, initializer=tf.constant_initializer(kernel), forget_bias=0.0)
    except AttributeError:
        return unrolled_lstm(tf, x, tf.Variable(kernel), tf.Variable(bias), units)
    return tf.nn.dynamic_rnn(cell, x, dtype=tf.float32, scope=scope)[0]


def unrolled_lstm(tf, x, kernel, bias, units: int):
    h = c = tf.zeros([tf.shape(x)[0], units])
    outputs = []
    for row in tf.unstack(x, axis=1):
        i, j, f, o = tf.split(tf.matmul(tf.concat([row, h], 1), kernel) + bias, 4, axis=1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(j)
        h = tf.sigmoid(o) * tf.tanh(c)
        outputs.append(h)
    return tf.stack(outputs, 1)


def lstm(tf, workload: Workload, weights: list[np.ndarray]):
    def make(x, y=None):
        k1, b1, k2, b2, w, b = weights
        outputs = lstm_layer(tf, lstm_layer(tf, x, k1, b1, "first"), k2, b2, "second")
        logits = tf.matmul(outputs[:, -1], tf.Variable(w)) + tf.Variable(b)
        if y is None:
            return logits
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
        return [loss, tf.train.AdamOptimizer(ADAM_RATE, ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON).minimize(loss)]

    inputs = [(tf.float32, [None, LSTM_STEPS, workload.sizes[0]])]
    return make, [*inputs, (tf.int32, [None])] if workload.trains else inputs


def loop(tf, workload: Workload, weights: list[np.ndarray]):
    def make(x):
        return tf.while_loop(lambda i, x: i < 100_000, lambda i, x: (i + 1, 2.9 * x * (1 - x)), (0, x))[1]

    return make, [(tf.float32, [])]


GRAPHS = {
    "lenet_train": lenet,
    "lenet_infer": lenet,
    "lstm_train": lstm,
    "lstm_infer": lstm,
    "loop": loop,
    "linreg_train": linear_training,
    "logreg_train": linear_training,
    "mlp_train": mlp_training,
    "mlp_infer": mlp_prediction,
    "gelu": gelu,
    "dot": dot,
    "product": product,
}


def built(tf, workload: Workload, weights: list[np.ndarray], scope=contextlib.nullcontext, **session_options):
    """A session with the workload's graph (made inside `scope`) and variables set, its placeholders, its fetches."""
    maker, inputs = GRAPHS[workload.kind](tf, workload, weights)
    graph = tf.Graph()
    with graph.as_default():
        placeholders = [tf.placeholder(dtype, shape) for dtype, shape in inputs]
        with scope():
            fetches = maker(*placeholders)
        session = tf.Session(graph=graph, **session_options)
        session.run(tf.global_variables_initializer())
    return session, placeholders, fetches
