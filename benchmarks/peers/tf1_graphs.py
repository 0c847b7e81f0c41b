"""The workloads as graphs in TensorFlow 1's style: one text for graphc and TensorFlow, which share these names.

Where one of them has a function that the other lacks, it is used: that is what its users would do.
"""
from __future__ import annotations

import contextlib
import math

import numpy as np

from benchmarks.data import feed_types
from benchmarks.workloads import (
    ADAM_BETA1,
    ADAM_BETA2,
    ADAM_EPSILON,
    ADAM_RATE,
    LAYER_NORM_EPSILON,
    LOOP_STEPS,
    MOMENTUM,
    SGD_RATE,
    Workload,
)

# ---- nets: (tf, workload, x, weights) to the prediction


def mlp(tf, workload: Workload, x, weights: list[np.ndarray]):
    """A linear model as well: it has no hidden layer."""
    *hidden, (w, b) = zip(weights[::2], weights[1::2], strict=True)
    for matrix, bias in hidden:
        x = tf.nn.relu(tf.matmul(x, tf.Variable(matrix)) + tf.Variable(bias))
    return tf.matmul(x, tf.Variable(w)) + tf.Variable(b)


def channels_last(filters: np.ndarray) -> np.ndarray:
    """From PyTorch's order to TensorFlow's, in which it is at its fastest."""
    return filters.transpose(2, 3, 1, 0).copy()


def lenet(tf, workload: Workload, x, weights: list[np.ndarray]):
    f1, b1, f2, b2, w3, b3, w4, b4 = weights
    side, channels = workload.sizes[0], len(f2)
    flat, hidden = w3.shape
    after = int(math.sqrt(flat // channels))
    w3 = w3.reshape(channels, after, after, hidden).transpose(1, 2, 0, 3).reshape(flat, hidden)
    x = tf.reshape(x, [-1, side, side, 1])
    for kernel, bias in ((f1, b1), (f2, b2)):
        x = tf.nn.conv2d(x, tf.Variable(channels_last(kernel)), [1, 1, 1, 1], "VALID") + tf.Variable(bias)
        x = tf.nn.relu(tf.nn.max_pool(x, [1, 2, 2, 1], [1, 2, 2, 1], "VALID"))
    x = tf.nn.relu(tf.matmul(tf.reshape(x, [-1, flat]), tf.Variable(w3)) + tf.Variable(b3))
    return tf.matmul(x, tf.Variable(w4)) + tf.Variable(b4)


def separable(tf, workload: Workload, x, weights: list[np.ndarray]):
    first, bias, *parts, w, b = weights
    x = tf.transpose(x, [0, 2, 3, 1])
    x = tf.nn.relu(tf.nn.conv2d(x, tf.Variable(channels_last(first)), [1, 2, 2, 1], "VALID") + tf.Variable(bias))
    for n in range(0, len(parts), 3):
        depthwise, pointwise, bias = parts[n : n + 3]
        stride, padding = (2, "VALID") if n == 3 else (1, "SAME")
        kernel = tf.Variable(depthwise.transpose(2, 3, 0, 1).copy())
        x = tf.nn.depthwise_conv2d(x, kernel, [1, stride, stride, 1], padding)
        x = tf.nn.conv2d(x, tf.Variable(channels_last(pointwise)), [1, 1, 1, 1], "VALID") + tf.Variable(bias)
        x = tf.nn.relu(x)
    return tf.matmul(tf.reduce_mean(x, [1, 2]), tf.Variable(w)) + tf.Variable(b)


def lstm(tf, workload: Workload, x, weights: list[np.ndarray]):
    *layers, w, b = weights
    for n, (kernel, bias) in enumerate((layers[:2], layers[2:])):
        units = bias.size // 4
        if hasattr(tf.nn.rnn_cell, "LSTMCell"):
            cell = tf.nn.rnn_cell.LSTMCell(units, initializer=tf.constant_initializer(kernel), forget_bias=0.0)
            x = tf.nn.dynamic_rnn(cell, x, dtype=tf.float32, scope=f"layer{n}")[0]
        else:                       # TensorFlow has lost its cells to Keras
            step = lstm_step(tf, tf.Variable(kernel), tf.Variable(bias))
            x = tf.stack(unrolled(tf, step, x, units, states=2), 1)
    return tf.matmul(x[:, -1], tf.Variable(w)) + tf.Variable(b)


def lstm_step(tf, kernel, bias):
    def step(row, h, c):
        i, j, f, o = tf.split(tf.matmul(tf.concat([row, h], 1), kernel) + bias, 4, axis=1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(j)
        return tf.sigmoid(o) * tf.tanh(c), c
    return step


def gru(tf, workload: Workload, x, weights: list[np.ndarray]):
    of_input, of_state, input_bias, state_bias, w, b = (tf.Variable(weight) for weight in weights)
    units = workload.sizes[2]

    def step(row, h):
        r, u, n = tf.split(tf.matmul(row, of_input) + input_bias, 3, axis=1)
        state_r, state_u, state_n = tf.split(tf.matmul(h, of_state) + state_bias, 3, axis=1)
        u = tf.sigmoid(u + state_u)
        return (1 - u) * tf.tanh(n + tf.sigmoid(r + state_r) * state_n) + u * h,

    if hasattr(tf.nn.rnn_cell, "RNNCell"):
        class Cell(tf.nn.rnn_cell.RNNCell):
            state_size = output_size = units

            def call(self, inputs, state):
                new, = step(inputs, state)
                return new, new

        last = tf.nn.dynamic_rnn(Cell(), x, dtype=tf.float32)[1]
    else:
        last = unrolled(tf, step, x, units, states=1)[-1]
    return tf.matmul(last, w) + b


def unrolled(tf, step, x, units: int, states: int) -> list:
    """The first state after each step of x [batch, steps, inputs], all states starting as zeros."""
    state = [tf.zeros([tf.shape(x)[0], units])] * states
    outputs = []
    for row in tf.unstack(x, axis=1):
        state = step(row, *state)
        outputs.append(state[0])
    return outputs


def attention(tf, workload: Workload, x, weights: list[np.ndarray]):
    places, size, heads = workload.sizes
    inner, bias, outer, outer_bias = (tf.Variable(weight) for weight in weights)
    parts = tf.matmul(tf.reshape(x, [-1, size]), inner) + bias
    parts = tf.transpose(tf.reshape(parts, [-1, places, 3, heads, size // heads]), [2, 0, 3, 1, 4])
    query, key, value = parts[0], parts[1], parts[2]
    if hasattr(tf.nn, "scaled_dot_product_attention"):
        found = tf.nn.scaled_dot_product_attention(query, key, value, causal=True)
    else:
        hidden = np.triu(np.full((places, places), -1e30, np.float32), 1)
        scores = tf.matmul(query, key, transpose_b=True) * (1 / math.sqrt(size // heads)) + hidden
        found = tf.matmul(tf.nn.softmax(scores), value)
    found = tf.reshape(tf.transpose(found, [0, 2, 1, 3]), [-1, size])
    return x + tf.reshape(tf.matmul(found, outer) + outer_bias, [-1, places, size])


def block(tf, workload: Workload, x, weights: list[np.ndarray]):
    scale, offset, w1, b1, w2, b2 = (tf.Variable(weight) for weight in weights)
    if hasattr(tf.nn, "layer_norm"):
        y = tf.nn.layer_norm(x, scale, offset, epsilon=LAYER_NORM_EPSILON)
    else:
        mean, variance = tf.nn.moments(x, [1], keepdims=True)
        y = tf.nn.batch_normalization(x, mean, variance, offset, scale, LAYER_NORM_EPSILON)
    return x + tf.matmul(gelu_tanh(tf, tf.matmul(y, w1) + b1), w2) + b2


def gelu_tanh(tf, u):
    return 0.5 * u * (1 + tf.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u * u * u)))


NETS = {"linear": mlp, "mlp": mlp, "lenet": lenet, "separable": separable, "lstm": lstm, "gru": gru, "attention": attention,
        "block": block}


# ---- whole graphs: (tf, workload, weights, *placeholders) to what is fetched


def training(tf, workload: Workload, weights: list[np.ndarray], x, y):
    prediction = NETS[workload.net](tf, workload, x, weights)
    if workload.loss == "squares":
        loss = tf.reduce_mean(tf.square(prediction - y))
    elif workload.loss == "sigmoid":
        loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=prediction))
    else:
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=prediction))
    if workload.optimizer == "adam":
        optimizer = tf.train.AdamOptimizer(ADAM_RATE, ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON)
    elif workload.optimizer == "momentum":
        optimizer = tf.train.MomentumOptimizer(SGD_RATE, MOMENTUM)
    else:
        optimizer = tf.train.GradientDescentOptimizer(SGD_RATE)
    return [loss, optimizer.minimize(loss)]


def prediction(tf, workload: Workload, weights: list[np.ndarray], x):
    return NETS[workload.net](tf, workload, x, weights)


def gelu(tf, workload: Workload, weights: list[np.ndarray], x):
    a, b, c = (tf.Variable(weight) for weight in weights)
    return gelu_tanh(tf, x * a + b) * c + x


def gelu_grad(tf, workload: Workload, weights: list[np.ndarray], x):
    scalars = [tf.Variable(weight) for weight in weights]
    a, b, c = scalars
    return tf.gradients(tf.reduce_mean(gelu_tanh(tf, x * a + b) * c + x), [x, *scalars])


def dense_gelu(tf, workload: Workload, weights: list[np.ndarray], x):
    w, b = (tf.Variable(weight) for weight in weights)
    return gelu_tanh(tf, tf.matmul(x, w) + b)


def softmax(tf, workload: Workload, weights: list[np.ndarray], x):
    return tf.nn.softmax(x)


def dot(tf, workload: Workload, weights: list[np.ndarray], a, b):
    return tf.reduce_sum(a * b)


def product(tf, workload: Workload, weights: list[np.ndarray], a, b):
    return tf.matmul(a, b)


def loop(tf, workload: Workload, weights: list[np.ndarray], x):
    return tf.while_loop(lambda i, x: i < LOOP_STEPS, lambda i, x: (i + 1, 2.9 * x * (1 - x)), (0, x))[1]


GRAPHS = {
    **{f"{net}_train": training for net in NETS},
    **{f"{net}_infer": prediction for net in NETS},
    **{function.__name__: function for function in (gelu, gelu_grad, dense_gelu, softmax, dot, product, loop)},
}


def built(tf, workload: Workload, weights: list[np.ndarray], scope=contextlib.nullcontext, **session_options):
    """A session with the workload's graph (made inside `scope`) and variables set, its placeholders, its fetches.

    Any number of rows may be fed, but to what has no rows.
    """
    fixed = workload.kind in ("product", "dot", "loop")
    graph = tf.Graph()
    with graph.as_default():
        placeholders = [tf.placeholder(getattr(tf, dtype), shape if fixed else [None, *shape[1:]])
                        for dtype, shape in feed_types(workload)]
        with scope():
            fetches = GRAPHS[workload.kind](tf, workload, weights, *placeholders)
        session = tf.Session(graph=graph, **session_options)
        session.run(tf.global_variables_initializer())
    return session, placeholders, fetches
