"""An expression, its gradient and its second gradient, compiled to one native call.

    python examples/expression.py
"""
import numpy as np

import graphc as tf

# A graph is built first. Nothing is computed here; `None` is a size that every run may choose.
x = tf.placeholder(tf.float64, [None], name="x")
y = tf.sin(x) * tf.exp(-x * x / 8)
slope, = tf.gradients(y, x)
bend, = tf.gradients(slope, x)
print(f"built     {y!r}\n          {slope!r}\n          {bend!r}")

with tf.Session() as session:
    # All three come out of one call, which computes the sine and the exponential once.
    points = np.linspace(-3, 3, 7)
    values, slopes, bends = session.run([y, slope, bend], {x: points})
    print("\n    x        y       y'      y''")
    for row in zip(points, values, slopes, bends, strict=True):
        print(" ".join(f"{number:8.4f}" for number in row))

    # The same program serves any number of points. Compare with differences of neighbouring values.
    fine = np.linspace(-3, 3, 100_001)
    values, slopes, bends = session.run([y, slope, bend], {x: fine})
    slope_error = np.abs(np.gradient(values, fine) - slopes)[1:-1].max()
    bend_error = np.abs(np.gradient(slopes, fine) - bends)[1:-1].max()
    print(f"\nat {len(fine)} points: largest difference to finite differences {slope_error:.1e} and {bend_error:.1e}")
