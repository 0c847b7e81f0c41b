"""Graphs of all kinds: functions of a session, whose graph is empty, to what it computed."""
from pathlib import Path

import numpy as np

import graphc as tf

X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


def results(build):
    """What `build(session)` gives in a graph and a session of its own."""
    with tf.Graph().as_default(), tf.Session() as session:
        return build(session)


def training(session):
    tf.set_random_seed(1)
    x, labels = tf.placeholder(tf.float32, [None, 4], "x"), tf.placeholder(tf.int32, [None], "labels")
    w = tf.Variable(tf.random_normal([4, 3]), name="w")
    h = tf.nn.dropout(tf.nn.relu(x @ w), 0.8)
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=h))
    train = tf.train.AdamOptimizer(0.1).minimize(loss)
    session.run(tf.global_variables_initializer())
    return [session.run([loss, train, w], {x: X[:n], labels: np.arange(n) % 3})[::2] for n in (5, 5, 1, 3)]


def named_sizes(session):
    x, y = tf.placeholder(tf.float32, ["N", "M"]), tf.placeholder(tf.float32, ["M", None])
    z = tf.nn.softmax(x @ y) * tf.cast(tf.shape(x)[0], tf.float32)
    return [session.run(z, {x: X[:a, :b], y: X[:b, :c]}) for a, b, c in ((5, 4, 3), (2, 3, 4), (1, 1, 1), (0, 4, 2))]


def loops(session):
    x = tf.placeholder(tf.float32, [None, 4])
    n, doubled = tf.while_loop(lambda i, v: tf.reduce_sum(v) < 100.0, lambda i, v: (i + 1, v * 2), (0, tf.abs(x)))
    sums = tf.scan(lambda a, row: a * 0.5 + row, x, initializer=tf.zeros([4]))
    slope, = tf.gradients(tf.reduce_sum(sums ** 2), x)
    return [session.run([n, doubled, sums, slope], {x: X[:k]}) for k in (5, 2)]


def branches(session):
    x = tf.placeholder(tf.float32, [None])
    y = tf.cond(tf.reduce_sum(x) > 0, lambda: tf.exp(x), lambda: x * 3)
    slope, = tf.gradients(y, x)
    return [session.run([y, slope], {x: v}) for v in ([1, 2], [-1, -2, 3], [])]


def host_ops(session):
    x = tf.placeholder(tf.float32, [None, 4])
    s, u, _ = tf.svd(tf.matmul(x, x, transpose_a=True))
    picked = tf.boolean_mask(tf.square(x), tf.reduce_sum(x, 1) > 0)
    total = tf.Variable(0.0)
    add = tf.assign_add(total, tf.reduce_sum(picked) + tf.reduce_sum(s))
    values, places = tf.unique(tf.cast(tf.reshape(x, [-1]) * 3, tf.int32))
    session.run(total.initializer)
    return [session.run([tf.abs(u), s, picked, add, values, places], {x: X[:k]}) for k in (5, 2)]


def host_loop(session):
    x = tf.placeholder(tf.float32, [None])

    def body(i, v):
        return i + 1, v + tf.py_func(lambda a: a[::-1] * 0.5, [v], tf.float32, shape=["K"]) + tf.ones_like(v)
    k = tf.placeholder(tf.int32, [])
    _, y = tf.while_loop(lambda i, v: i < k, body, (0, x), shape_invariants=None)
    return [session.run(y, {x: v, k: n}) for v, n in (([1, 2, 3], 3), ([5], 2), ([1, 2], 0))]


def shapes_as_attributes(session):
    x, y = tf.placeholder(tf.float32, ["N", 4]), tf.placeholder(tf.float32, ["N", 4])
    z = tf.reshape(tf.transpose(x), y.shape) + tf.zeros(x.shape) + tf.random_uniform(y.get_shape(), 1, 1 + 1e-9, seed=1)
    return [session.run(z, {x: X[:k], y: X[:k]}) for k in (5, 2)]


def second_gradients(session):
    x = tf.placeholder(tf.float64, [None])
    y = tf.reduce_sum(tf.sin(x) * tf.exp(-x * x))
    first, = tf.gradients(y, x)
    second, = tf.gradients(tf.reduce_sum(first * first), x)
    return [session.run([y, first, second], {x: X[0, :k]}) for k in (4, 1)]


def drawn_numbers(session):
    tf.set_random_seed(5)
    x = tf.placeholder(tf.float32, [None])
    parts = [tf.random_uniform([3]), tf.random_normal(tf.shape(x)), tf.random_uniform([2], maxval=9, dtype=tf.int32),
             tf.random_gamma([2], 1.5), tf.random_shuffle(tf.range(6))]
    return [session.run(parts, {x: [1, 2]}) for _ in range(3)]


def half_precision(session):
    x = tf.placeholder(tf.bfloat16, [None, 4])
    y = tf.reduce_sum(tf.tanh(x) * tf.constant(np.linspace(0, 1, 4), tf.bfloat16), 1)
    return [session.run(tf.cast(y, tf.float32), {x: X.astype(tf.bfloat16.as_numpy_dtype)})]


def large_constants(session):
    table = tf.constant(np.arange(4000, dtype=np.float32).reshape(1000, 4))
    again = tf.constant(np.arange(4000, dtype=np.float32).reshape(1000, 4))
    rows = tf.placeholder(tf.int32, [None])
    return [session.run([tf.gather(table, rows), tf.reduce_sum(table - again)], {rows: [3, 999]})]


GRAPHS = [training, named_sizes, shapes_as_attributes, loops, branches, host_ops, host_loop, second_gradients, drawn_numbers,
          half_precision, large_constants]


def same_bits(a, b):
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same_bits(x, y) for x, y in zip(a, b, strict=True))
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# graphs that fail, with marks on the lines to blame ------------------------------------------------------------------------


def failing(session):
    x = tf.placeholder(tf.int32, [None], "rows")
    table = tf.constant(X)
    picked = tf.gather(table, x)  # here
    return session.run(tf.reduce_sum(picked), {x: [0, 7]})


def failing_elsewhere(session):
    other = tf.placeholder(tf.int32, ["K"], "places")
    values = tf.constant(X)

    rows = tf.gather(values, other)  # there
    return session.run(tf.reduce_sum(rows), {other: [0, 7]})


def failing_in_a_loop(session):
    x, k = tf.placeholder(tf.int32, [None], "rows"), tf.placeholder(tf.int32, [])

    def body(i, total):
        return i + 1, total + tf.reduce_sum(tf.gather(tf.constant(X), x + i))  # inside
    _, found = tf.while_loop(lambda i, total: i < k, body, (0, 0.0))
    return session.run(found, {x: [0, 4], k: 9})


def failing_in_another_loop(session):
    places, end = tf.placeholder(tf.int32, [None], "places"), tf.placeholder(tf.int32, [])

    def step(number, so_far):
        picked = tf.gather(tf.constant(X), places + number)  # inside as well
        return number + 1, so_far + tf.reduce_sum(picked)
    _, found = tf.while_loop(lambda number, so_far: number < end, step, (0, 0.0))
    return session.run(found, {places: [0, 4], end: 9})


def line_of(mark):
    lines = Path(__file__).read_text().split("\n")
    return next(k for k, line in enumerate(lines, 1) if line.endswith(f"# {mark}"))
