"""Newton's method for logistic regression: each step solves H s = g by conjugate gradients, with products of the Hessian and a
vector that cost about two gradients. The Hessian itself is never made.

    python examples/hessian.py
"""
import numpy as np

import graphc as tf

table = tf.data.breast_cancer()
features = tf.data.standardize(table.x)
labels = table.y.astype(np.float64)                         # 1: benign, 0: malignant
print(f"{len(features)} tumours, {features.shape[1]} features each")

x = tf.placeholder(tf.float64, [None, 30], name="x")
y = tf.placeholder(tf.float64, [None], name="y")
direction = tf.placeholder(tf.float64, [30, 1], name="direction")
w = tf.Variable(np.zeros((30, 1)), name="w")
logits = tf.squeeze(x @ w, axis=1)
loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=logits)) + 1e-3 * tf.nn.l2_loss(w)
slope, = tf.gradients(loss, w)
product, = tf.hessian_vector_product(loss, w, direction)
update = w.assign_sub(direction)
accuracy = tf.reduce_mean(tf.cast(tf.equal(logits > 0, y > 0.5), tf.float64))


def solve(times, right, tolerance=1e-10, most=60):
    """The s with H s = `right`, where times(v) is H v: conjugate gradients (Hestenes and Stiefel, 1952)."""
    solution, rest, way = np.zeros_like(right), right, right
    for count in range(1, most + 1):  # noqa: B007  it is returned
        turned = times(way)
        length = np.vdot(rest, rest) / np.vdot(way, turned)
        solution, new = solution + length * way, rest - length * turned
        if np.linalg.norm(new) <= tolerance * np.linalg.norm(right):
            break
        way = new + np.vdot(new, new) / np.vdot(rest, rest) * way
        rest = new
    return solution, count


with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    look = session.make_callable([loss, slope], [x, y])
    multiply = session.make_callable(product, [x, y, direction])
    move = session.make_callable(update, [direction])
    for iteration in range(15):
        error, gradient = look(features, labels)
        steepness = np.linalg.norm(gradient)
        print(f"iteration {iteration:2}   loss {error:.10f}   gradient {steepness:.1e}", end="")
        if steepness < 1e-10:
            break
        step, products = solve(lambda v: multiply(features, labels, v), gradient)
        move(step)
        print(f"   {products} products")
    print(f"\n\nconverged after {iteration} iterations: loss {error:.10f}, gradient {steepness:.1e}, "
          f"accuracy {session.run(accuracy, {x: features, y: labels}):.4f}")
