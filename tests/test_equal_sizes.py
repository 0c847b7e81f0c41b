"""Sizes written in two ways that must be equal, `max(N-1,0)` and 5: right where they are, an error where they are not."""
import numpy as np
import pytest

import graphc as tf


@pytest.mark.parametrize(("make", "right", "wrong", "text"), [
    (lambda x: x[:3] + tf.ones([3]), 5, 2, r"min\(3,N\) = 2 != 3 = 3"),
    (lambda x: x[1:] * tf.ones([5]), 6, 3, r"max\(N-1,0\) = 2 != 5 = 5"),
    (lambda x: tf.concat([x, x], 0) - tf.zeros([6]), 3, 2, r"2\*N = 4 != 6 = 6"),
    (lambda x: tf.segment_max(x[:3] * 2, [0, 0, 1]), 5, 2, r"min\(3,N\) = 2 != 3 = 3"),
    (lambda x: tf.exp(tf.square(x[:2])) * tf.ones([4, 2]), 2, 1, r"min\(2,N\) = 1 != 2 = 2"),
])
@pytest.mark.parametrize("device", ["cpu", "numpy"])
def test_a_slice_beside_a_known_size(make, right, wrong, text, device, monkeypatch):
    monkeypatch.setattr(tf.options, "device", device)
    tf.reset_default_graph()
    x = tf.placeholder(tf.float32, [None], name="x")
    y = make(x)
    slope = tf.gradients(y, x)[0]
    with tf.Session() as session:
        values = np.arange(right, dtype="f4")
        found, slopes = session.run([y, slope], {x: values})
        assert found.shape == tuple(y.shape.as_list())
        step = 1e-2
        ends = [session.run(tf.reduce_sum(y), {x: values + s * step}) for s in (1, -1)]
        np.testing.assert_allclose((ends[0] - ends[1]) / (2 * step), slopes.sum(), rtol=0.02)
        with pytest.raises(tf.errors.ShapeError, match=f"(?s)the fed values make shapes that do not fit.*{text}"):
            session.run(y, {x: np.arange(wrong, dtype="f4")})


def test_an_unknown_size_does_not_broadcast():
    """x[:1] has one element or none: it is no literal 1."""
    tf.reset_default_graph()
    x = tf.placeholder(tf.float32, [None], name="x")
    y = x[:1] + tf.zeros([5])
    with tf.Session() as session, pytest.raises(tf.errors.ShapeError, match=r"(?s)strided_slice.*min\(1,N\) = 1 != 5 = 5"):
        session.run(y, {x: np.zeros(3, "f4")})


def test_a_product_of_sizes():
    tf.reset_default_graph()
    x = tf.placeholder(tf.float32, [None, None])
    y = tf.reduce_sum(tf.reshape(x, [-1]) * tf.constant(np.arange(6, dtype="f4")))
    with tf.Session() as session:
        assert session.run(y, {x: np.ones((2, 3))}) == 15
        assert session.run(tf.gradients(y, x)[0], {x: np.ones((3, 2))}).tolist() == [[0, 1], [2, 3], [4, 5]]
        with pytest.raises(tf.errors.ShapeError, match=r"= 9 != 6"):
            session.run(y, {x: np.ones((3, 3))})
