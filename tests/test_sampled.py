"""Losses over drawn classes, and of sequences: against plain NumPy, interpreted and compiled."""
import numpy as np
import pytest
from test_normalization import evaluate

import graphc as tf
from graphc import nn
from graphc.errors import ArgumentError, ShapeError

RNG = np.random.default_rng(9)
W, B, X = RNG.normal(size=(20, 4)), RNG.normal(size=20), RNG.normal(size=(3, 4))
LABELS = np.array([[0], [7], [19]])


def chances(classes):
    k = np.arange(classes)
    return np.log((k + 2) / (k + 1)) / np.log(classes + 1)


@pytest.mark.parametrize("unique", [True, False])
def test_samplers(unique):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(4)
        zipf = nn.log_uniform_candidate_sampler(LABELS, 1, 8, unique, 20)
        flat = nn.uniform_candidate_sampler(LABELS, 1, 8, unique, 20)
        runs = [session.run([zipf, flat]) for _ in range(400)]
    for which, p in ((0, chances(20)), (1, np.full(20, 1 / 20))):
        found = [r[which] for r in runs]
        drawn = np.stack([f[0] for f in found])
        assert drawn.shape == (400, 8)
        assert 0 <= drawn.min() <= drawn.max() < 20
        if unique:
            assert all(len(set(row)) == 8 for row in drawn)
        counts = np.bincount(drawn.ravel(), minlength=20) / 400
        expected = np.zeros(20)  # the mean of what the runs expect of a class, from the true classes and the drawn ones
        for k, label in enumerate(LABELS[:, 0]):
            expected[label] = np.mean([f[1][k, 0] for f in found])
            assert abs(counts[label] - expected[label]) < 0.12
        if not unique:
            np.testing.assert_allclose(found[0][2], p[drawn[0]] * 8, rtol=1e-5)


@pytest.mark.parametrize("hits", [True, False])
def test_losses(hits):
    drawn, true_count, drawn_count = np.array([7, 3, 5]), np.array([[0.5], [0.2], [0.1]]), np.array([0.2, 0.4, 0.3])

    def function(w, b, x, *values):
        more = {"sampled_values": values, "remove_accidental_hits": hits}
        return [nn.nce_loss(w, b, LABELS, x, 3, 20, **more), nn.sampled_softmax_loss(w, b, LABELS, x, 3, 20, **more)]
    nce, soft = evaluate(function, W, B, X, drawn, true_count, drawn_count)
    own = np.sum(W[LABELS[:, 0]] * X, 1, keepdims=True) + B[LABELS] - np.log(true_count)
    others = X @ W[drawn].T + B[drawn] - np.log(drawn_count)
    if hits:
        others[1, 0] = -np.inf
    logits = np.concatenate([own, others], 1)
    np.testing.assert_allclose(nce, np.sum(np.logaddexp(0, logits), 1) - own[:, 0], rtol=1e-9)
    np.testing.assert_allclose(soft, np.log(np.exp(logits).sum(1)) - own[:, 0], rtol=1e-9)


def test_training_by_nce():
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        w, b = tf.Variable(np.zeros((20, 4), "f4")), tf.Variable(np.zeros(20, "f4"))
        loss = tf.reduce_mean(nn.nce_loss(weights=w, biases=b, labels=LABELS, inputs=X.astype("f4"), num_sampled=5,
                                          num_classes=20))
        step = tf.train.GradientDescentOptimizer(0.5).minimize(loss)
        session.run(tf.global_variables_initializer())
        losses = [session.run([loss, step])[0] for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


def test_sequence_loss():
    logits, targets, weights = RNG.normal(size=(2, 3, 5)), RNG.integers(0, 5, (2, 3)), np.array([[1.0, 1, 0], [1, 0.5, 0]])
    both, time, batch, none = evaluate(lambda x, t, w: [
        nn.sequence_loss(x, t, w), nn.sequence_loss(x, t, w, average_across_batch=False),
        nn.sequence_loss(x, t, w, average_across_timesteps=False), nn.sequence_loss(x, t, w, False, False)],
        logits, targets, weights)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -np.take_along_axis(logs, targets[..., None], -1)[..., 0] * weights
    np.testing.assert_allclose(none, losses, rtol=1e-12)
    np.testing.assert_allclose(both, losses.sum() / weights.sum(), rtol=1e-9)
    np.testing.assert_allclose(time, losses.sum(1) / weights.sum(1), rtol=1e-9)
    np.testing.assert_allclose(batch, losses.sum(0) / (weights.sum(0) + 1e-12), rtol=1e-9)


def test_bad_arguments_are_named():
    with tf.Graph().as_default():
        with pytest.raises(ArgumentError, match="there are not 30 different classes"):
            nn.log_uniform_candidate_sampler(LABELS, 1, 30, True, 20)
        with pytest.raises(ShapeError, match=r"true_classes have the shape \[N, 2\]"):
            nn.uniform_candidate_sampler(LABELS, 2, 3, True, 20)
        with pytest.raises(ShapeError, match="nce_loss: weights"):
            nn.nce_loss(W, B, LABELS, X[0], 3, 20)
        with pytest.raises(ShapeError, match="sequence_loss: logits"):
            nn.sequence_loss(X, LABELS, LABELS)
