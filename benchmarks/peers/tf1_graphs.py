"""The workloads as graphs in TensorFlow 1's style: one text for graphc and TensorFlow, which share these names.

Each function takes the system's module `tf`, the workload and its weights, and returns a maker of the graph and the
(dtype, shape) of each placeholder that the maker is called with.  A maker returns what is to be fetched.
"""
from __future__ import annotations

import contextlib
import math

import numpy as np

from benchmarks.workloads import ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON, ADAM_RATE, SGD_RATE, Workload


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


GRAPHS = {
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
