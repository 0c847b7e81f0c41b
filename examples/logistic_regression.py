"""Logistic regression on the breast cancer data, judged on patients that it has not seen.

    python examples/logistic_regression.py
"""
import numpy as np

import graphc as tf

table = tf.data.breast_cancer()
x_train, x_test, y_train, y_test = tf.data.train_test_split(table.x, table.y, test=0.25, seed=0)
x_train, x_test = (part.astype(np.float32) for part in tf.data.standardize(x_train, x_test))
print(f"{len(x_train)} tumours to learn from, {len(x_test)} to be judged on, {x_train.shape[1]} features each")

tf.set_random_seed(0)
x = tf.placeholder(tf.float32, [None, 30], name="x")
y = tf.placeholder(tf.float32, [None], name="y")            # 1: benign, 0: malignant
w = tf.Variable(tf.random_normal([30, 1], stddev=0.01), name="w")
b = tf.Variable(tf.zeros([1]), name="b")
logits = tf.squeeze(x @ w + b, axis=1)
loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=logits)) + 1e-3 * tf.nn.l2_loss(w)
train = tf.train.MomentumOptimizer(learning_rate=0.1, momentum=0.9).minimize(loss)
benign = tf.sigmoid(logits)
accuracy = tf.reduce_mean(tf.cast(tf.equal(benign > 0.5, y > 0.5), tf.float32))

with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for epoch in range(10):
        losses, _ = session.run_steps([loss, train], {x: x_train, y: y_train}, batch_size=32, shuffle=True, seed=epoch)
        seen = session.run(accuracy, {x: x_train, y: y_train})
        print(f"epoch {epoch + 1:2}   loss {losses.mean():.4f}   training accuracy {seen:.3f}")

    test_accuracy, chances = session.run([accuracy, benign], {x: x_test, y: y_test})
    for chance, truth in list(zip(chances, y_test, strict=True))[:5]:
        print(f"  benign with probability {chance:6.1%}; it was {'benign' if truth else 'malignant'}")
print(f"\ntest accuracy {test_accuracy:.4f}")
