"""An op of one's own: one record says all there is to know about it, and the rest of graphc can use it at once.

    python examples/own_op.py

The op is the "snake" activation, x + sin(x)^2 (Ziyin et al., 2020), which lets a network learn periodic functions.
"""
import numpy as np

import graphc as tf
from graphc.ops.define import elementwise
from graphc.ops.samples import real

snake = elementwise(
    "snake", "x",
    doc="x + sin(x)^2.",
    scalar="{x} + sin({x}) * sin({x})",                     # what a kernel computes for each element; {x} is the input
    accepts="float",
    cost=20,                                                # about how many vector instructions that is
    numpy=lambda x: x + np.sin(x) ** 2,                     # what it means: the oracle of every test
    grad=lambda dy, y, x: [dy * (1 + tf.sin(2 * x))],       # one gradient for each input, written as users write
    samples=[real(3, 4), real(), real(0, 5)],               # what tests run it on
)

# The gradient, and the gradient of the gradient, against differences of the NumPy rule.
tf.test.check_gradients(snake, np.linspace(-2, 2, 9))
print("the gradients of snake are right, to second order")

# Compiled, it is fused with its neighbours like any other op. Learn sin(4x) with it.
tf.set_random_seed(3)
x = tf.placeholder(tf.float32, [None, 1], name="x")
target = tf.placeholder(tf.float32, [None, 1], name="target")
w1 = tf.Variable(tf.random_normal([1, 32], stddev=2.0), name="w1")
b1 = tf.Variable(tf.zeros([32]), name="b1")
w2 = tf.Variable(tf.random_normal([32, 1], stddev=0.1), name="w2")
loss = tf.reduce_mean(tf.square(snake(x @ w1 + b1) @ w2 - target))
train = tf.train.AdamOptimizer(0.02).minimize(loss)

points = np.random.default_rng(0).uniform(-2, 2, (256, 1)).astype(np.float32)
with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    step = session.make_callable([loss, train], [x, target])
    for number in range(1001):
        error, _ = step(points, np.sin(4 * points))
        if number % 200 == 0:
            print(f"step {number:4}   loss {error:.5f}")

    # The compiled op against its NumPy rule.
    compiled = session.run(snake(x), {x: points})
    difference = np.abs(compiled - (points + np.sin(points) ** 2)).max()
print(f"compiled against NumPy: largest difference {difference:.1e}; final loss {error:.5f}")
