"""Two LSTM layers read digits row by row: 28 steps of 28 pixels; the last output tells which digit it is.

    python examples/lstm_rows.py
"""
import time

import numpy as np

import graphc as tf

BATCH, UNITS, EPOCHS = 50, 64, 8
start = time.perf_counter()

digits = tf.data.mnist()
x_train, x_test = (part.reshape(-1, 28, 28).astype(np.float32) / 255 for part in (digits.x_train, digits.x_test))
y_train, y_test = digits.y_train, digits.y_test

tf.set_random_seed(1)
x = tf.placeholder(tf.float32, [None, 28, 28], name="x")    # digits, time steps, pixels
label = tf.placeholder(tf.int32, [None], name="label")
cells = tf.nn.rnn_cell.MultiRNNCell([tf.nn.rnn_cell.BasicLSTMCell(UNITS) for _ in range(2)])
outputs, _ = tf.nn.dynamic_rnn(cells, x, dtype=tf.float32)
w = tf.get_variable("w", [UNITS, 10])
b = tf.get_variable("b", [10], initializer=tf.zeros_initializer())
logits = tf.matmul(outputs[:, -1], w) + b
loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=label, logits=logits))
accuracy = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, axis=1, output_type=tf.int32), label), tf.float32))
steps = tf.train.get_or_create_global_step()
rate = tf.train.exponential_decay(0.006, steps, len(x_train) // BATCH, 0.7)     # 0.6 of a percent, less after each epoch
train = tf.train.AdamOptimizer(rate).minimize(loss, global_step=steps)

with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    data = {x: x_train, label: y_train}
    judge = session.make_callable(accuracy, [x, label])
    session.run_steps([loss, train], data, BATCH, steps=1)  # the first call compiles
    print(f"ready after {time.perf_counter() - start:.1f} s, compiled\n")
    for epoch in range(1, EPOCHS + 1):
        begin = time.perf_counter()
        losses, _ = session.run_steps([loss, train], data, BATCH, shuffle=True, seed=epoch)
        print(f"epoch {epoch}: loss {np.mean(losses):.3f}, test accuracy {judge(x_test, y_test):.3f}, "
              f"{time.perf_counter() - begin:.1f} s")
