"""Kernels whose lanes read across what lies together: blocks are turned in registers, at every size of their edges."""
import numpy as np
import pytest

import graphc as tf
from graphc.codegen.build import lower
from graphc.ir.graph import capture
from graphc.passes.manager import run_passes
from graphc.passes.pipeline import PIPELINE

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



@pytest.mark.parametrize("dtype", [tf.float32, tf.float64, tf.float16])
def test_products_by_transposes(dtype):
    """Columns are packed from blocks: at every size, behind a prologue, in parts of long sums."""
    x, w = tf.placeholder(dtype, [None, None]), tf.placeholder(dtype, [None, None])
    kept, batch = tf.placeholder(dtype, [None, 33]), tf.placeholder(dtype, [2, None, 9])
    fetches = [tf.matmul(x, w, transpose_b=True), tf.matmul(x, tf.cast(w > 3, dtype), transpose_b=True),
               tf.matmul(kept, kept, transpose_b=True), tf.matmul(batch, batch[:, ::2], transpose_b=True)]
    feeds = []
    for k, (rows, columns) in enumerate([(3, 7), (9, 16), (20, 33), (1, 100), (0, 9), (70, 130), (8, 8)]):
        size = (5, 16, 1, 70, 9, 37, 1100)[k]
        feeds.append({x: numbers(dtype, (rows, size)) % 4, w: numbers(dtype, (columns, size), 1) % 5,
                      kept: numbers(dtype, (columns, 33), 2) % 4, batch: numbers(dtype, (2, columns, 9), 3)})
    for given, found in zip(feeds, on_threads(fetches, feeds), strict=True):
        a, b, c, d = (given[p].astype(np.float64) for p in (x, w, kept, batch))
        for y, expected in zip(found, (a @ b.T, a @ (b > 3).T, c @ c.T, d @ d[:, ::2].transpose(0, 2, 1)), strict=True):
            assert np.array_equal(y, expected.astype(dtype.as_numpy_dtype)), "sums of small whole numbers are exact"


def test_which_columns_are_packed_from_blocks():
    for sizes, turned in (((64, 64), "k"), ((None, None), "k"), ((64, 5), ""), ((5, 64), "")):
        x, w = tf.placeholder(tf.float32, [None, sizes[1]]), tf.placeholder(tf.float32, sizes)
        _, plan = lower(run_passes(capture("product", [tf.matmul(x, w, transpose_b=True)], [x, w]), PIPELINE))
        assert [r.call.kernel.b.packing.turned for r in plan.calls] == [turned]
