"""A small convolutional network learns handwritten digits: LeNet's plan, in PyTorch's well-known sizes.

    python examples/mnist_lenet.py
"""
import time

import numpy as np

import graphc as tf

BATCH, EPOCHS = 64, 10
start = time.perf_counter()

random = np.random.default_rng(1)
digits = tf.data.mnist()
x_train, x_test = (part.reshape(-1, 28, 28, 1).astype(np.float32) / 255 for part in (digits.x_train, digits.x_test))
y_train, y_test = digits.y_train, digits.y_test
print(f"{len(x_train)} digits to learn from, {len(x_test)} to be tested on")

# The graph: two convolutions with pooling, two dense layers. The number of images is left open.
tf.set_random_seed(1)
x = tf.placeholder(tf.float32, [None, 28, 28, 1], name="x")
label = tf.placeholder(tf.int32, [None], name="label")


def variable(name, *shape):
    """Weights with the variance that keeps signals in size, and biases of 0."""
    weights = tf.Variable(tf.truncated_normal(shape, stddev=(2 / np.prod(shape[:-1])) ** 0.5), name=name)
    return weights, tf.Variable(tf.zeros([shape[-1]]), name=f"{name}_bias")


def convolved(value, name, *shape):
    """Convolution, pooling, relu: half as many pixels, `shape[-1]` channels."""
    weights, bias = variable(name, *shape)
    found = tf.nn.bias_add(tf.nn.conv2d(value, weights, strides=[1, 1, 1, 1], padding="VALID"), bias)
    return tf.nn.relu(tf.nn.max_pool(found, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="VALID"))


pixels = convolved(convolved(x, "conv1", 5, 5, 1, 10), "conv2", 5, 5, 10, 20)      # [batch, 4, 4, 20]
w1, b1 = variable("dense1", 320, 50)
w2, b2 = variable("dense2", 50, 10)
hidden = tf.nn.relu(tf.reshape(pixels, [-1, 320]) @ w1 + b1)
chances = tf.nn.log_softmax(hidden @ w2 + b2)
loss = -tf.reduce_mean(tf.reduce_sum(tf.one_hot(label, 10) * chances, axis=1))      # the negative log likelihood
accuracy = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(chances, axis=1, output_type=tf.int32), label), tf.float32))
done = tf.Variable(0, trainable=False, name="done")
rate = tf.train.exponential_decay(0.05, done, decay_steps=len(x_train) // BATCH, decay_rate=0.8)
train = tf.train.MomentumOptimizer(rate, momentum=0.9).minimize(loss, global_step=done)

with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    step = session.make_callable([loss, train], [x, label])
    judge = session.make_callable([loss, accuracy], [x, label])

    step(x_train[:BATCH], y_train[:BATCH])                  # the first calls compile
    judge(x_test, y_test)
    print(f"ready after {time.perf_counter() - start:.1f} s, compiled\n")
    print("epoch   training loss   test loss   test accuracy   time")
    steps, training = 0, 0.0
    for epoch in range(EPOCHS):
        losses, began = [], time.perf_counter()
        for images, labels in tf.data.batches(x_train, y_train, BATCH, seed=epoch):
            moved = np.roll(images, random.integers(-2, 3, size=2), axis=(1, 2))  # by up to 2 pixels: more to learn from
            losses.append(step(moved, labels)[0])
        took = time.perf_counter() - began
        steps, training = steps + len(losses), training + took
        test_loss, test_accuracy = judge(x_test, y_test)
        print(f"{epoch + 1:5}   {np.mean(losses):13.4f}   {test_loss:9.4f}   {test_accuracy:13.4f}   {took * 1e3:.0f} ms")

print(f"\n{steps / training:.0f} steps/s, {training / steps * 1e3:.2f} ms each, with batches cut and moved in between")
print(f"test accuracy {test_accuracy:.4f} after {time.perf_counter() - start:.1f} s in all")
