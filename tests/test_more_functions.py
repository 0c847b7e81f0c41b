"""Functions that other tests do not name, each against NumPy: initializers, random images, losses, layers, other names."""
import numpy as np
import pytest
import scipy.special
from evaluating import real, run

import graphc as tf
from graphc.config import options


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """What is tested are compositions: the ops that they are made of are compiled elsewhere."""
    monkeypatch.setattr(options, "device", "numpy")
    with tf.Graph().as_default():
        yield


# initializers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "variance", "is_uniform"), [
    (tf.initializers.he_uniform, 2 / 300, True), (tf.initializers.he_normal, 2 / 300, False),
    (tf.initializers.lecun_normal, 1 / 300, False), (tf.initializers.lecun_uniform, 1 / 300, True),
    (tf.glorot_uniform_initializer, 2 / 500, True), (tf.glorot_normal_initializer, 2 / 500, False),
    (tf.contrib.layers.xavier_initializer, 2 / 500, True),
    (tf.contrib.layers.variance_scaling_initializer, 2 / 300, False)])
def test_scaled_initializers(make, variance, is_uniform):
    """The variance follows from the sizes; uniform numbers fill their range, normal ones are cut at two deviations."""
    found = run(make(seed=3)((300, 200)))
    assert found.dtype == np.float32 and abs(found.mean()) < 4 * np.sqrt(variance / found.size)
    assert np.isclose(found.var(), variance, rtol=0.03)
    edge = np.sqrt(3 * variance) if is_uniform else 2 * np.sqrt(variance) / 0.87962566103423978
    assert edge * 0.98 < np.abs(found).max() <= edge * 1.0001


def test_plain_initializers():
    shape = (50, 40)
    uniform, normal, cut = (run(make) for make in (
        tf.random_uniform_initializer(-2.0, 3.0, seed=1)(shape), tf.random_normal_initializer(1.0, 2.0, seed=1)(shape),
        tf.truncated_normal_initializer(1.0, 2.0, seed=1)(shape)))
    assert -2 <= uniform.min() < -1.9 and 2.9 < uniform.max() < 3
    assert abs(normal.mean() - 1) < 0.2 and abs(normal.std() - 2) < 0.15 and np.abs(cut - 1).max() <= 4
    plain = run([tf.ones_initializer()((2,)), tf.zeros_initializer()((2,)), tf.constant_initializer(3.0)((2,))])
    assert [p.tolist() for p in plain] == [[1, 1], [0, 0], [3, 3]]


# images ------------------------------------------------------------------------------------------------------------------


def test_random_brightness_and_contrast_draw_one_number_for_an_image():
    x = np.random.default_rng(0).uniform(0.2, 0.6, (5, 4, 3)).astype(np.float32)
    image = tf.constant(x)
    brighter, sharper = tf.image.random_brightness(image, 0.3, seed=1), tf.image.random_contrast(image, 0.5, 1.5, seed=2)
    with tf.Session() as session:
        runs = [session.run([brighter, sharper]) for _ in range(30)]
    deltas = np.array([b - x for b, _ in runs])
    assert np.allclose(deltas, deltas[:, :1, :1, :1], atol=1e-6)
    moved = deltas[:, 0, 0, 0]
    assert np.abs(moved).max() <= 0.3 and moved.min() < -0.1 < 0.1 < moved.max()
    mean = x.mean((0, 1), keepdims=True)
    factors = np.array([((c - mean) * (x - mean)).sum() / ((x - mean) ** 2).sum() for _, c in runs])
    assert all(np.allclose(c, (x - mean) * f + mean, atol=1e-5) for f, (_, c) in zip(factors, runs, strict=True))
    assert 0.5 <= factors.min() < 0.8 and 1.2 < factors.max() < 1.5


def test_random_flip_up_down_and_padding():
    x = real(3, 2, 1)
    flipped = tf.image.random_flip_up_down(tf.constant(x), seed=4)
    with tf.Session() as session:
        runs = [session.run(flipped) for _ in range(20)]
    assert all(np.array_equal(r, x) or np.array_equal(r, x[::-1]) for r in runs)
    assert 0 < sum(np.array_equal(r, x) for r in runs) < 20
    assert np.array_equal(run(tf.image.resize_with_crop_or_pad(tf.constant(x), 1, 4))[0, :, 0], [0, *x[1, :, 0], 0])


# arithmetic, by other names ----------------------------------------------------------------------------------------------


def test_names_of_arithmetic():
    x, y = real(3, 4), real(3, 4, seed=1)
    a, b = tf.constant(x), tf.constant(y)
    pairs = [(tf.accumulate_n([a, b, a]), 2 * x + y), (tf.realdiv(a, b), x / y), (tf.reduce_variance(a, 1), x.var(1)),
             (tf.reduce_euclidean_norm(a, 0), np.linalg.norm(x, axis=0)), (tf.arg_max(a, 1), x.argmax(1)),
             (tf.batch_matmul(a, b, transpose_b=True), x @ y.T), (tf.matrix_transpose(a), x.T),
             (tf.linalg.matrix_transpose(a), x.T), (tf.pack([a, b], axis=1), np.stack([x, y], 1)),
             (tf.unpack(a)[1], x[1]), (tf.reverse_v2(a, [1]), x[:, ::-1]),
             (tf.to_bfloat16(a) * 1, x), (tf.nn.silu(a), x * scipy.special.expit(x)),
             (tf.math.erfcinv(tf.constant([0.5, 1.5])), scipy.special.erfcinv([0.5, 1.5])),
             (tf.lin_space(0.0, 1.0, 5), np.linspace(0, 1, 5)), (tf.random.shuffle(tf.constant([4])), [4])]
    for k, (got, (_, want)) in enumerate(zip(run([p for p, _ in pairs]), pairs, strict=True)):
        assert np.allclose(np.asarray(got, np.float64), want, rtol=1e-2 if k == 11 else 1e-5, atol=1e-6), k
    near = run(tf.approximate_equal(tf.constant([1.0, 2, 3]), tf.constant([1.00001, 2.1, 3]), tolerance=1e-3))
    assert near.tolist() == [True, False, True]


def test_incomplete_functions_broadcast():
    a, x = np.array([[0.5], [2.0], [30.0]]), np.array([0.1, 2.0, 25.0])
    shape, at = tf.constant(a), tf.constant(x)
    found = run([tf.igamma(shape, at), tf.igammac(2.0, at), tf.betainc(shape, 3.0, 0.25)])
    assert np.allclose(found[0], scipy.special.gammainc(a, x), rtol=1e-12)
    assert np.allclose(found[1], scipy.special.gammaincc(2, x), rtol=1e-12)
    assert np.allclose(found[2], scipy.special.betainc(a, 3, 0.25), rtol=1e-12)


def test_stateless_numbers_depend_on_the_seed_alone():
    first = run([tf.stateless_random_uniform([200], [1, 2]), tf.stateless_random_normal([200], [1, 2])])
    again = run([tf.stateless_random_uniform([200], [1, 2]), tf.stateless_random_normal([200], [1, 3])])
    assert np.array_equal(first[0], again[0]) and not np.array_equal(first[1], again[1])
    assert first[0].min() >= 0 and first[0].max() < 1 and abs(first[0].mean() - 0.5) < 0.1
    assert abs(first[1].mean()) < 0.3 and abs(first[1].std() - 1) < 0.2


def test_bins_of_numbers():
    bins = run(tf.histogram_fixed_width_bins(tf.constant([-1.0, 0, 1.5, 2, 5, 15]), [0.0, 5.0], nbins=5))
    assert bins.tolist() == [0, 0, 1, 2, 4, 4]


def test_local_variables_have_an_initializer_of_their_own():
    v = tf.Variable(3.0, collections=[tf.GraphKeys.LOCAL_VARIABLES], trainable=False)
    assert tf.local_variables() == [v] and tf.global_variables() == []
    with tf.Session() as session:
        session.run(tf.local_variables_initializer())
        assert session.run(v) == 3


# linear algebra ----------------------------------------------------------------------------------------------------------


def test_names_of_linear_algebra():
    m = real(3, 3)
    s = m @ m.T + np.eye(3)
    values, vectors = run(tf.linalg.eigh(tf.constant(s)))
    assert np.allclose(vectors * values @ vectors.T, s)
    sign, log = run(tf.linalg.log_matrix_determinant(tf.constant(m)))
    assert np.allclose(sign * np.exp(log), np.linalg.det(m))
    low = np.tril(s)
    found = run([tf.linalg.triangular_solve(tf.constant(low), tf.constant(m)), tf.linalg.tensor_diag_part(tf.constant(s))])
    assert np.allclose(low @ found[0], m) and np.allclose(found[1], np.diag(s))


# layers and losses -------------------------------------------------------------------------------------------------------


def test_pools_by_their_ranks():
    x = real(2, 4, 4, 3)
    whole = x.reshape(2, 2, 2, 2, 2, 3)
    found = run([tf.nn.avg_pool2d(tf.constant(x), 2, 2, "VALID"), tf.nn.max_pool2d(tf.constant(x), 2, 2, "VALID")])
    assert np.allclose(found[0], whole.mean((2, 4))) and np.array_equal(found[1], whole.max((2, 4)))


def test_batch_norm_with_global_normalization():
    x, mean, variance, beta, gamma = real(2, 3, 3, 4), real(4), real(4) ** 2, real(4, seed=1), real(4, seed=2)
    found = run([tf.nn.batch_norm_with_global_normalization(
        tf.constant(x), *(tf.constant(v) for v in (mean, variance, beta, gamma)), 0.01, scale) for scale in (True, False)])
    normal = (x - mean) / np.sqrt(variance + 0.01)
    assert np.allclose(found[0], normal * gamma + beta) and np.allclose(found[1], normal + beta)


def test_cosine_distance_and_weights():
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (real(3, 4), real(3, 4, seed=1)))
    weights = np.array([[1.0], [0], [3]])
    found = run([tf.losses.cosine_distance(a, tf.constant(b), axis=1),
                 tf.losses.cosine_distance(a, tf.constant(b), axis=1, weights=weights),
                 tf.losses.compute_weighted_loss(tf.constant(a), 2.0, reduction=tf.losses.Reduction.SUM)])
    each = 1 - (a * b).sum(1)
    assert np.allclose(found, [each.mean(), (each * weights[:, 0]).sum() / 2, 2 * a.sum()])
    tf.losses.add_loss(tf.constant(1.0))
    assert len(tf.losses.get_losses()) == 4


def test_piecewise_constant_decay():
    step = tf.placeholder(tf.int32, [])
    rate = tf.train.piecewise_constant_decay(step, [10, 20], [1.0, 0.5, 0.1])
    with tf.Session() as session:
        assert [float(session.run(rate, {step: k})) for k in (0, 10, 11, 20, 21)] == pytest.approx([1, 1, 0.5, 0.5, 0.1])
