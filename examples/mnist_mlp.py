"""A network with one hidden layer learns handwritten digits, from nothing, in a few seconds.

    python examples/mnist_mlp.py
"""
import time

import numpy as np

import graphc as tf

BATCH, HIDDEN, EPOCHS = 32, 128, 10
start = time.perf_counter()

digits = tf.data.mnist()
x_train, x_test = (part.reshape(-1, 784).astype(np.float32) / 255 for part in (digits.x_train, digits.x_test))
y_train, y_test = digits.y_train, digits.y_test
print(f"{len(x_train)} digits to learn from, {len(x_test)} to be tested on")

# The graph. The number of rows is left open: one program serves batches of 32 and, below, the whole test set and one digit.
tf.set_random_seed(1)
x = tf.placeholder(tf.float32, [None, 784], name="x")
label = tf.placeholder(tf.int32, [None], name="label")
w1 = tf.Variable(tf.truncated_normal([784, HIDDEN], stddev=784 ** -0.5), name="w1")
b1 = tf.Variable(tf.zeros([HIDDEN]), name="b1")
w2 = tf.Variable(tf.truncated_normal([HIDDEN, 10], stddev=HIDDEN ** -0.5), name="w2")
b2 = tf.Variable(tf.zeros([10]), name="b2")
hidden = tf.nn.relu(x @ w1 + b1)
logits = hidden @ w2 + b2
loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=label, logits=logits))
accuracy = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, axis=1, output_type=tf.int32), label), tf.float32))
train = tf.train.AdamOptimizer(learning_rate=0.002).minimize(loss)

with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    data = {x: x_train, label: y_train}
    judge = session.make_callable([loss, accuracy], [x, label])

    session.run_steps([loss, train], data, BATCH, steps=1)  # the first calls compile
    judge(x_test, y_test)
    print(f"ready after {time.perf_counter() - start:.1f} s, compiled\n")
    print("epoch   training loss   test loss   test accuracy   time")
    steps, training = 0, 0.0
    for epoch in range(EPOCHS):
        began = time.perf_counter()
        losses, _ = session.run_steps([loss, train], data, BATCH, shuffle=True, seed=epoch)   # an epoch: one native call
        took = time.perf_counter() - began
        steps, training = steps + len(losses), training + took
        test_loss, test_accuracy = judge(x_test, y_test)
        print(f"{epoch + 1:5}   {np.mean(losses):13.4f}   {test_loss:9.4f}   {test_accuracy:13.4f}   {took * 1e3:.0f} ms")

    # Look at one digit.
    chances = session.run(tf.nn.softmax(logits), {x: x_test[1:2]})[0]
print()
for line in digits.x_test[1, 4:25:2, 3:25]:
    print("".join(" .:*#@"[pixel // 43] for pixel in line).rstrip())
print(f"\nthis is a {y_test[1]}; the network says {np.argmax(chances)}, and is {chances.max():.0%} sure of it\n")

print(f"{steps / training:.0f} steps/s, {training / steps * 1e6:.0f} us each, with batches gathered from the data in between")
print(f"test accuracy {test_accuracy:.4f} after {time.perf_counter() - start:.1f} s in all")
