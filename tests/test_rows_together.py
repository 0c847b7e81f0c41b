"""Short rows are reduced as many at a time as a vector has lanes: the same bits as one by one, whatever the number of rows."""
import numpy as np
import pytest

import graphc as tf
from graphc.codegen import loops
from graphc.codegen.build import lower
from graphc.config import options
from graphc.errors import RunError
from graphc.ir.graph import capture
from graphc.passes.manager import run_passes
from graphc.passes.pipeline import PIPELINE
from graphc.testing.compiled import parallel

pytestmark = pytest.mark.usefixtures("fresh_graph")

ROWS = [0, 1, 7, 8, 15, 16, 17, 33, 70]


def classified(x, labels):
    """The loss, its gradient, what is right, and how sure that is."""
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=x)
    right = tf.equal(tf.argmax(x, 1, output_type=tf.int32), labels)
    entropy = tf.log(tf.reduce_sum(tf.exp(x), 1)) - tf.reduce_sum(tf.nn.softmax(x) * x, 1)
    return loss, tf.gradients(loss, x)[0], right, entropy


def weighed(x, labels):
    """A linear model, by sigmoids: one sum for each row, and what costs most after it; the third axis is a batch."""
    w = tf.constant(np.linspace(-1, 1, x.shape[1], dtype=x.dtype.as_numpy_dtype))
    score = tf.reduce_sum(x * w, 1)
    target = tf.cast(labels % 2, x.dtype)
    cube = tf.reshape(x, [-1, 1, x.shape[1]]) * tf.constant(np.array([[1], [2], [3]], x.dtype.as_numpy_dtype))
    return tf.nn.sigmoid_cross_entropy_with_logits(logits=score, labels=target), tf.reduce_logsumexp(cube, 2), \
        x * tf.exp(-tf.reduce_max(tf.abs(x), 1, keepdims=True)) + tf.log1p(tf.reduce_min(x * x, 1, keepdims=True))


def values_of(build, feeds, dtype, columns, device="cpu"):
    with tf.Graph().as_default(), tf.Session() as session:
        x, labels = tf.placeholder(dtype, [None, columns]), tf.placeholder(tf.int32, [None])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(options, "device", device)
            run = session.make_callable(list(build(x, labels)), [x, labels])
            return [run(*fed) for fed in feeds]


@pytest.mark.parametrize("build", [classified, weighed])
@pytest.mark.parametrize(("dtype", "columns"), [("float32", 10), ("float32", 1), ("float32", 40), ("float32", 127),
                                                ("float64", 13), ("float16", 10)])
def test_the_same_as_row_by_row(build, dtype, columns, monkeypatch):
    rng = np.random.default_rng(0)
    feeds = [((2 * rng.standard_normal((n, columns))).astype(dtype), rng.integers(0, columns, n).astype(np.int32))
             for n in ROWS]
    with parallel(1):
        found = values_of(build, feeds, dtype, columns)
    with parallel(2):
        shared = values_of(build, feeds, dtype, columns)
    expected = values_of(build, feeds, dtype, columns, "numpy")
    monkeypatch.setattr(loops, "SHORT_ROW", 0)
    alone = values_of(build, feeds, dtype, columns)
    exact = {"float16": 4e-3, "float32": 2e-6, "float64": 1e-13}[dtype]
    for ours in zip(found, shared, alone, expected, strict=True):
        for a, b, c, d in zip(*ours, strict=True):
            assert np.array_equal(a, b) and np.array_equal(a, c) and a.dtype == d.dtype and a.shape == d.shape
            np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(d, np.float64), rtol=8 * exact, atol=8 * exact)


def test_numbers_that_are_none_stay_in_their_row():
    data = np.random.default_rng(1).standard_normal((20, 10)).astype(np.float32)
    clean = data.copy()
    data[3, 2], data[9, 0], data[18] = np.nan, np.inf, -np.inf
    labels = np.zeros(20, np.int32)
    got, fine = values_of(classified, [(data, labels), (clean, labels)], "float32", 10)
    wanted, = values_of(classified, [(data, labels)], "float32", 10, "numpy")
    others = np.setdiff1d(np.arange(20), [3, 9, 18])
    for a, b, c in zip(got, fine, wanted, strict=True):
        assert np.array_equal(a[others], b[others])
        np.testing.assert_allclose(a, c, rtol=2e-5, atol=2e-6)


def test_an_error_names_its_row():
    x, labels = tf.placeholder(tf.float32, [None, 10]), tf.placeholder(tf.int32, [None])
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=x)
    wrong = np.zeros(40, np.int32)
    wrong[21] = 10
    for threads in (1, 2):
        with parallel(threads), tf.Session() as session:
            with pytest.raises(RunError, match=r"\[21\] = 10"):
                session.run(loss, {x: np.zeros((40, 10), np.float32), labels: wrong})
            assert session.run(loss, {x: np.zeros((40, 10), np.float32), labels: np.zeros(40, np.int32)}).shape == (40,)


@pytest.mark.parametrize(("shape", "together"), [([None, 10], True), ([64, 128], True), ([None, 129], False), ([3, 10], False),
                                                 ([10, None], False)])
def test_which_rows_are_taken_together(shape, together):
    x = tf.placeholder(tf.float32, shape)
    dear, cheap = tf.reduce_logsumexp(x, 1), tf.reduce_sum(x, 1) * 2
    for y, expected in ((dear, together), (cheap, False)):
        _, plan = lower(run_passes(capture("rows", [y], [x]), PIPELINE))
        assert [r.call.kernel.together for r in plan.calls] == [expected]


@pytest.mark.parametrize("leads", [(), (5,)])
def test_sums_down_the_columns_are_made_on_the_way(leads):
    """The gradient by a bias is summed where the gradient by the logits is made."""
    rng = np.random.default_rng(2)
    for rows in (1, 16, 100, 700):
        with tf.Graph().as_default(), tf.Session() as session:
            x, bias = tf.placeholder(tf.float64, [None, *leads, 10]), tf.Variable(np.zeros(10))
            loss = tf.reduce_logsumexp(x + bias, -1)
            fetches = [loss, *tf.gradients(loss, [x, bias])]
            data = rng.standard_normal((rows, *leads, 10))
            power = np.exp(data - data.max(-1, keepdims=True))
            expected = (power / power.sum(-1, keepdims=True)).reshape(-1, 10).sum(0)
            session.run(bias.initializer)
            kernels = [r.call.kernel for r in lower(run_passes(capture("sums", fetches, [x]), PIPELINE))[1].calls]
            assert kernels[0].together and kernels[0].block
            found = []
            for threads in (1, 2):
                with parallel(threads):
                    found.append(session.run(fetches, {x: data}))
            np.testing.assert_allclose(found[0][0], np.log(power.sum(-1)) + data.max(-1), rtol=1e-12)
            np.testing.assert_allclose(found[0][2], expected, rtol=1e-12)
            assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))
