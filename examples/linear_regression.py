"""Linear regression on the diabetes data: gradient descent finds what least squares computes directly.

    python examples/linear_regression.py
"""
import numpy as np

import graphc as tf

table = tf.data.diabetes()
features = tf.data.standardize(table.x).astype(np.float32)
target = ((table.y - table.y.mean()) / table.y.std()).astype(np.float32)
print(f"{len(features)} patients, {features.shape[1]} measurements each: {', '.join(table.feature_names)}")

x = tf.placeholder(tf.float32, [None, 10], name="x")
y = tf.placeholder(tf.float32, [None], name="y")
w = tf.Variable(tf.zeros([10, 1]), name="w")
b = tf.Variable(tf.zeros([1]), name="b")
prediction = tf.squeeze(tf.matmul(x, w) + b, axis=1)
loss = tf.reduce_mean(tf.square(prediction - y))
train = tf.train.GradientDescentOptimizer(learning_rate=0.2).minimize(loss)

with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    errors, _ = session.run_steps([loss, train], {x: features, y: target}, steps=6001)  # all steps: one native call
    for number in range(0, 6001, 1000):
        print(f"step {number:5}   loss {errors[number]:.6f}")
    weights, bias = session.run([w, b])

exact, *_ = np.linalg.lstsq(np.c_[features, np.ones(len(features))].astype(np.float64), target.astype(np.float64))
print(f"\n{'':>10}  gradient descent  least squares")
for name, found, wanted in zip([*table.feature_names, "bias"], [*weights[:, 0], bias[0]], exact, strict=True):
    print(f"{name:>10}  {found:16.4f}  {wanted:13.4f}")
difference = np.abs(np.append(weights[:, 0], bias) - exact).max()
explained = 1 - float(errors[-1])                           # the target has variance 1
print(f"\nlargest difference {difference:.5f}; {explained:.1%} of the variance explained")
