"""Kernels whose lanes read across what lies together: blocks are turned in registers, at every size of their edges."""
import numpy as np
import pytest

import graphc as tf

DTYPES = [tf.float32, tf.float64, tf.int32, tf.int64, tf.uint8, tf.bool, tf.float16, tf.bfloat16]
SHAPES = [(5, 7), (7, 16), (16, 17), (33, 40), (64, 100), (100, 3), (1, 50), (50, 1), (0, 9), (9, 0)]


@pytest.fixture(autouse=True)
def fresh_graph():
    with tf.Graph().as_default():
        yield


def numbers(dtype, shape, seed=0):
    found = np.random.default_rng(seed).integers(0, 2 if dtype is tf.bool else 15, shape)
    return found.astype(dtype.as_numpy_dtype)


def on_threads(fetches, feeds_of):
    """The values for each feed at one and at two threads, which must not differ."""
    found = []
    with tf.Session() as session:
        for feeds in feeds_of:
            both = []
            for count in (1, 2):
                tf.set_num_threads(count)
                try:
                    both.append(session.run(fetches, feeds))
                finally:
                    tf.set_num_threads(None)
            assert all(np.array_equal(a, b) for a, b in zip(*both, strict=True))
            found.append(both[0])
    return found


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
def test_transposes_of_all_sizes(dtype):
    x = tf.placeholder(dtype, [None, None])
    z = tf.placeholder(dtype, [None, None])
    turned = tf.transpose(x)
    feeds = [{x: numbers(dtype, s), z: numbers(dtype, s[::-1], 1)} for s in SHAPES]
    taken = tf.where(tf.equal(z, z), turned, z)     # beside what lies the other way
    for given, (a, b) in zip(feeds, on_threads([turned, taken], feeds), strict=True):
        assert np.array_equal(a, given[x].T) and np.array_equal(b, given[x].T)


@pytest.mark.parametrize("perm", [(0, 2, 1), (2, 0, 1), (2, 1, 0), (1, 2, 0)])
def test_transposes_of_three_axes(perm):
    """Blocks within an outer loop, with several loads of other strides, and elements beyond the fed part of a row."""
    x, y = (tf.placeholder(tf.float32, [None, None, None]) for _ in range(2))
    whole = tf.placeholder(tf.float32, [None, None, None])
    cut = tf.transpose(whole[:, 1:, :-2], perm)
    made = tf.transpose(x, perm) * 2 + tf.transpose(y, perm)
    feeds = []
    for shape in ((3, 20, 40), (20, 40, 3), (17, 18, 19), (2, 6, 7)):
        a, b = numbers(tf.float32, shape), numbers(tf.float32, shape, 1)
        feeds.append({x: a, y: b, whole: b})
    for given, (a, b) in zip(feeds, on_threads([made, cut], feeds), strict=True):
        assert np.array_equal(a, given[x].transpose(perm) * 2 + given[y].transpose(perm))
        assert np.array_equal(b, given[whole][:, 1:, :-2].transpose(perm))

