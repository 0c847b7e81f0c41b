"""Reductions down the columns take in several vectors at a time: the same values and bits as one by one."""
import numpy as np
import pytest

import graphc as tf

pytestmark = pytest.mark.usefixtures("fresh_graph")


@pytest.mark.parametrize("columns", [130, 256, 300])
def test_columns_side_by_side(columns):
    data = np.random.default_rng(0).standard_normal((517, columns), dtype=np.float32)
    x = tf.placeholder(tf.float32, [None, columns])
    mean = tf.reduce_mean(x, 0)
    centred = x - mean
    normal = centred * tf.rsqrt(tf.reduce_mean(tf.square(centred), 0) + 1e-3)
    narrow = tf.reduce_sum(tf.placeholder_with_default(x[:, :5], [None, 5]), 0)
    with tf.Session() as session:
        for rows in (1, 3, 256, 517):
            fed = {x: data[:rows]}
            wide = data[:rows].astype(np.float64)
            expected = (wide - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-3)
            assert np.abs(session.run(normal, fed) - expected).max() < 1e-4
            assert np.array_equal(session.run(tf.argmax(x, 0), fed), wide.argmax(0))
            total = session.run(tf.reduce_sum(x, 0), fed)
            assert np.array_equal(total[:5], session.run(narrow, fed)), "the same order of additions"
        tf.set_num_threads(1)
        try:
            alone = session.run(normal, {x: data})
            tf.set_num_threads(2)
            assert np.array_equal(alone, session.run(normal, {x: data}))
        finally:
            tf.set_num_threads(None)
