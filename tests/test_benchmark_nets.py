"""graphc and the hand-written steps of the benchmarks do what the same mathematics, written plainly in float64, does."""
import dataclasses

import numpy as np
import pytest

from benchmarks.data import disagreement, feeds, fingerprint, initial_weights
from benchmarks.peers import graphc_peer, numpy_hand, numpy_nets
from benchmarks.workloads import (
    ADAM_BETA1,
    ADAM_BETA2,
    ADAM_EPSILON,
    ADAM_RATE,
    CHECK_STEPS,
    GELU_SCALARS,
    MOMENTUM,
    SGD_RATE,
    WORKLOADS,
)

TINY = {    # a workload of each net -> sizes that take no time
    "linreg_train": (3, 1), "logreg_train": (3, 1), "mlp_odd_train": (5, 4, 3), "mlp_deep_train": (3, 3, 3, 3, 3, 3, 3),
    "lenet_train_b64": (16, 2, 3, 4), "separable_train_b16": (11, 2, 3, 2, 3, 2), "lstm_train": (3, 2, 2, 3),
    "gru_train_b24": (3, 2, 3, 2), "attention_train_b4": (4, 4, 2), "block_train_b96": (3, 5),
}


def tiny(name):
    return dataclasses.replace(WORKLOADS[name], sizes=TINY[name], batch=3)


def loss_of(workload, weights, x, y):
    prediction = numpy_nets.NETS[workload.net](workload, x, weights)
    if workload.loss == "squares":
        return np.mean((prediction - y) ** 2)
    if workload.loss == "sigmoid":
        return np.mean(np.logaddexp(0, prediction) - y * prediction)
    shifted = prediction - prediction.max(axis=1, keepdims=True)
    return np.mean(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(y)), y])


def differences(workload, weights, x, y):
    """The gradient by central differences, weight by weight."""
    found = []
    for weight in weights:
        gradient, flat = np.zeros_like(weight), weight.reshape(-1)
        for place, value in enumerate(flat):
            losses = []
            for flat[place] in (value + 1e-6, value - 1e-6):
                losses.append(loss_of(workload, weights, x, y))
            flat[place] = value
            gradient.reshape(-1)[place] = (losses[0] - losses[1]) / 2e-6
        found.append(gradient)
    return found


def plain_losses(workload, steps, gradients_of=differences):
    """The losses of the first steps, with gradients by differences and updates by the book."""
    weights = [weight.astype(np.float64) for weight in initial_weights(workload)]
    means, squares = ([np.zeros_like(weight) for weight in weights] for _ in range(2))
    batches = feeds(workload)
    for step in range(1, steps + 1):
        x, y = batches[(step - 1) % len(batches)]
        x, y = x.astype(np.float64), y if y.dtype == np.int32 else y.astype(np.float64)
        yield loss_of(workload, weights, x, y)
        gradients = gradients_of(workload, weights, x, y)
        for weight, gradient, mean, square in zip(weights, gradients, means, squares, strict=True):
            if workload.optimizer == "adam":
                mean += (1 - ADAM_BETA1) * (gradient - mean)
                square += (1 - ADAM_BETA2) * (gradient**2 - square)
                rate = ADAM_RATE * np.sqrt(1 - ADAM_BETA2**step) / (1 - ADAM_BETA1**step)
                weight -= rate * mean / (np.sqrt(square) + ADAM_EPSILON)
            else:
                mean *= MOMENTUM if workload.optimizer == "momentum" else 0
                mean += gradient
                weight -= SGD_RATE * mean


@pytest.mark.parametrize("name", TINY)
def test_graphc_trains_as_by_the_book(name):
    graphc_peer.start(1)
    workload = tiny(name)
    step = graphc_peer.build(workload, initial_weights(workload))[""]
    batches = feeds(workload)
    losses = [step(*batches[i])[0] for i in range(3)]
    assert np.allclose(losses, list(plain_losses(workload, 3)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in TINY if name not in ("linreg_train", "logreg_train")])
def test_graphc_predicts_what_numpy_does(name):
    graphc_peer.start(1)
    workload = dataclasses.replace(tiny(name), kind=f"{WORKLOADS[name].net}_infer", loss=None, optimizer=None)
    weights = initial_weights(workload)
    ways = graphc_peer.build(workload, weights)
    (x,) = feeds(workload)[0]
    want = numpy_nets.NETS[workload.net](workload, x.astype(np.float64), [weight.astype(np.float64) for weight in weights])
    assert np.allclose(ways[""](x), want, rtol=1e-4, atol=1e-5)
    assert np.allclose(ways["Session.run"](x), want, rtol=1e-4, atol=1e-5)
    assert np.allclose(numpy_hand.BUILDERS[workload.kind](workload, weights)(x), want, rtol=1e-4, atol=1e-5)


OPERATIONS = {"gelu_fwd": (1003,), "gelu_grad": (1003,), "softmax_rows": (5, 7), "mm_gelu_64": (3, 4, 5),
              "product_512": (3, 4, 5), "small_call": (4,), "loop_100k": (1,)}


@pytest.mark.parametrize("name", OPERATIONS)
def test_graphc_and_numpy_agree_on_single_operations(name):
    graphc_peer.start(1)
    workload = dataclasses.replace(WORKLOADS[name], sizes=OPERATIONS[name], batch=OPERATIONS[name][0])
    weights, feed = initial_weights(workload), feeds(workload)[0]
    found = {"graphc": fingerprint(graphc_peer.build(workload, weights)[""](*feed))}
    if name == "loop_100k":
        found["numpy"] = fingerprint(1 - 1 / 2.9)       # where the recurrence comes to rest
    else:
        found["numpy"] = fingerprint(numpy_hand.BUILDERS[workload.kind](workload, weights)(*feed))
    assert disagreement(found) is None


def test_numpy_by_hand_gelu_grad_is_right():
    workload = dataclasses.replace(WORKLOADS["gelu_grad"], sizes=(6,), batch=6)
    (x,) = feeds(workload)[0]
    got = numpy_hand.gelu_grad(workload, initial_weights(workload))(x)
    values = [x.astype(np.float64), *map(np.array, map(float, GELU_SCALARS))]

    def mean(x, a, b, c):
        u = x * a + b
        return np.mean(0.5 * u * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3))) * c + x)

    for place, value in enumerate(values):
        for n in range(value.size):
            moved = [[v + (1e-6 * sign if k == place else 0) * (np.arange(v.size) == n).reshape(v.shape)
                      for k, v in enumerate(values)] for sign in (1, -1)]
            assert np.ravel(got[place])[n] == pytest.approx((mean(*moved[0]) - mean(*moved[1])) / 2e-6, rel=1e-4)


def textbook(workload, weights, x, y):
    """The gradients of linear models and of one hidden layer, for sizes at which differences take too long."""
    if workload.net == "linear":
        z = x @ weights[0] + weights[1]
        slope = 2 * (z - y) / len(x) if workload.loss == "squares" else (1 / (1 + np.exp(-z)) - y) / len(x)
        return [x.T @ slope, slope.sum(axis=0)]
    w1, b1, w2, b2 = weights
    hidden = np.maximum(x @ w1 + b1, 0)
    p = np.exp(hidden @ w2 + b2)
    p /= p.sum(axis=1, keepdims=True)
    slope = (p - np.eye(p.shape[1])[y]) / len(x)
    back = (slope @ w2.T) * (hidden > 0)
    return [x.T @ back, back.sum(0), hidden.T @ slope, slope.sum(0)]


@pytest.mark.parametrize("name", ["linreg_train", "logreg_train", "mlp10_train", "mlp128_train_b32"])
def test_numpy_by_hand_is_right(name):
    workload = WORKLOADS[name]
    step = numpy_hand.BUILDERS[workload.kind](workload, initial_weights(workload))
    batches = feeds(workload, numpy_hand.LABELS)
    losses = [step(*batches[i % len(batches)]) for i in range(CHECK_STEPS)]
    assert np.allclose(losses, list(plain_losses(workload, CHECK_STEPS, textbook)), rtol=1e-5)
    assert losses[-1] < losses[0]


def test_numpy_by_hand_gelu_is_right_and_leaves_its_input_alone():
    x = np.linspace(-6, 6, 100_001, dtype=np.float32)
    before = x.copy()
    weights = initial_weights(WORKLOADS["gelu_fwd"])
    a, b, c = (float(weight) for weight in weights)
    workload = dataclasses.replace(WORKLOADS["gelu_fwd"], sizes=x.shape)
    got = numpy_hand.gelu(workload, weights)(x)
    u = x.astype(np.float64) * a + b
    want = 0.5 * u * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3))) * c + x
    assert np.allclose(got, want, atol=2e-6)
    assert np.array_equal(x, before)
