"""Two LSTM layers read digits row by row: 28 steps of 28 pixels; the last output says which digit it is.

Prints the test accuracy after each epoch; it ends above 0.93.
"""
import time

import numpy as np

import graphc as tf
from graphc import data

BATCH, EPOCHS, UNITS = 50, 6, 64


def main():
    (train_x, train_y), (test_x, test_y) = data.mnist()
    train_x, test_x = train_x.reshape(-1, 28, 28), test_x.reshape(-1, 28, 28)
    with tf.Graph().as_default():
        tf.set_random_seed(1)
        x = tf.placeholder(tf.float32, [None, 28, 28], name="rows")
        y = tf.placeholder(tf.int32, [None], name="digits")
        cells = tf.nn.rnn_cell.MultiRNNCell([tf.nn.rnn_cell.BasicLSTMCell(UNITS) for _ in range(2)])
        outputs, _ = tf.nn.dynamic_rnn(cells, x, dtype=tf.float32)
        w = tf.get_variable("w", [UNITS, 10])
        b = tf.get_variable("b", [10], initializer=tf.zeros_initializer())
        logits = tf.matmul(outputs[:, -1], w) + b
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
        step = tf.train.AdamOptimizer(0.005).minimize(loss)
        accuracy = tf.reduce_mean(tf.cast(tf.equal(tf.cast(tf.argmax(logits, 1), tf.int32), y), tf.float32))
        order = np.random.default_rng(1)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            for epoch in range(1, EPOCHS + 1):
                start, losses = time.perf_counter(), []
                shuffled = order.permutation(len(train_x))
                for k in range(0, len(train_x), BATCH):
                    rows = shuffled[k:k + BATCH]
                    losses.append(session.run([loss, step], {x: train_x[rows], y: train_y[rows]})[0])
                found = session.run(accuracy, {x: test_x, y: test_y})
                print(f"epoch {epoch}: loss {np.mean(losses):.3f}, test accuracy {found:.3f}, "
                      f"{time.perf_counter() - start:.1f} s")
    return found


if __name__ == "__main__":
    main()
