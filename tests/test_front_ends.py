"""Numba and the quicker front end make the same of a kernel's source: each is the other's test."""
import numpy as np
import pytest

import graphc as tf
from graphc.codegen import build

pytestmark = pytest.mark.usefixtures("fresh_graph")


def variable(*shape):
    return tf.Variable(np.random.default_rng(1).normal(size=shape).astype(np.float32) / 5)


def loss_of(hidden, size, labels):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=hidden @ variable(size, 10)))


def dense(x, labels):
    """Products, activations, a loss with its sums over rows and columns, an optimizer."""
    loss = loss_of(tf.tanh(x @ variable(48, 37) + variable(37)), 37, labels)
    return [loss, tf.train.AdamOptimizer(0.01).minimize(loss)]


def images(x, labels):
    """Convolutions, pooling, batch normalization."""
    hidden = tf.nn.conv2d(tf.reshape(x, [-1, 6, 8, 1]), variable(3, 3, 1, 5), 1, "SAME")
    mean, variance = tf.nn.moments(hidden, [0, 1, 2])
    hidden = tf.nn.batch_normalization(hidden, mean, variance, variable(5), variable(5), 1e-3)
    loss = loss_of(tf.reshape(tf.nn.relu(tf.nn.max_pool(hidden, 2, 2, "VALID")), [-1, 60]), 60, labels)
    return [loss, tf.train.MomentumOptimizer(0.01, 0.5).minimize(loss)]


def sequences(x, labels):
    """A loop over time, forward and backward."""
    outputs, _ = tf.nn.dynamic_rnn(tf.nn.rnn_cell.LSTMCell(11), tf.reshape(x, [-1, 6, 8]), dtype=tf.float32)
    loss = loss_of(outputs[:, -1], 11, labels)
    return [loss, *tf.gradients(loss, tf.trainable_variables())]


def attention(x, labels):
    """Rows of scores with all that is done with them; transposes."""
    x = tf.reshape(x, [-1, 6, 8])
    weights = tf.nn.softmax(tf.matmul(x, x, transpose_b=True))
    mixed = tf.transpose(tf.matmul(weights, x), [0, 2, 1])
    return [mixed, tf.gradients(tf.reduce_sum(mixed * mixed), x)[0], tf.argmax(mixed, 2)]


def whole(x, labels):
    """Sums of everything, integers, what fails, random numbers, a scalar recurrence, a routine."""
    steps = tf.while_loop(lambda k, v: k < 9, lambda k, v: (k + 1, 3.7 * v * (1 - v)), [0, tf.constant(0.3)])
    return [tf.reduce_sum(x), tf.norm(x), tf.gather(x, labels % 3), labels // 3 % 2, tf.nn.dropout(x, rate=0.3, seed=4),
            steps[1], tf.nn.top_k(x, 3)[0], tf.cumsum(x, 1), tf.cast(x, tf.float64) ** 2]


@pytest.mark.parametrize("network", [dense, images, sequences, attention, whole])
def test_both_front_ends_give_the_same_bits(network, monkeypatch):
    monkeypatch.setattr(tf.options, "cache", False)
    tf.set_random_seed(3)
    x, labels = tf.placeholder(tf.float32, [None, 48]), tf.placeholder(tf.int32, [None])
    fetches = network(x, labels)
    found = {}
    for name in ("graphc", "numba"):
        monkeypatch.setattr(tf.options, "front_end", name)
        rng = np.random.default_rng(0)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            found[name] = []
            for count in (5, 33):
                fed = {x: rng.normal(size=(count, 48)), labels: rng.integers(0, 10, count)}
                found[name] += [*session.run(fetches, fed), *session.run(tf.trainable_variables())]
    assert {front_end for *_, front_end in build._compiled} == {"graphc", "numba"}
    for one, other in zip(*found.values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_such_front_end(monkeypatch):
    monkeypatch.setattr(tf.options, "front_end", "clang")
    with pytest.raises(tf.errors.CompileError, match=r"there is no front end 'clang'\n.*the front ends are graphc and numba"), \
            tf.Session() as session:
        session.run(tf.constant(1.0) + 1)
