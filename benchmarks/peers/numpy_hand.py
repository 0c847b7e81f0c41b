"""NumPy written by hand the way one would who has to: buffers made once, `out=` everywhere, no temporary arrays.

Linear algebra is NumPy's BLAS (OpenBLAS in the wheels).  Gradients are derived by hand.
"""
from __future__ import annotations

import numpy as np

from benchmarks.workloads import ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON, ADAM_RATE, SGD_RATE, Workload

LABELS = np.int64       # what NumPy indexes with


def start(threads: int) -> None:
    """The number of threads is in the environment, which BLAS reads when NumPy is imported."""


def version() -> str:
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"NumPy {np.__version__} ({blas['name']} {blas['version']})"


def linreg(workload: Workload, weights: list[np.ndarray]):
    w, b = (weight.copy() for weight in weights)
    rows = workload.batch
    error, slope = np.empty((rows, 1), np.float32), np.empty_like(w)

    def step(x, y):
        np.matmul(x, w, out=error)
        np.add(error, b, out=error)
        np.subtract(error, y, out=error)
        flat = error.ravel()
        loss = flat.dot(flat) / rows
        np.matmul(x.T, error, out=slope)
        np.multiply(slope, 2 * SGD_RATE / rows, out=slope)
        np.subtract(w, slope, out=w)
        b[0] -= 2 * SGD_RATE / rows * error.sum()
        return loss

    return step


def logreg(workload: Workload, weights: list[np.ndarray]):
    w, b = (weight.copy() for weight in weights)
    rows = workload.batch
    z, small, e, p, slope = (*(np.empty((rows, 1), np.float32) for _ in range(4)), np.empty_like(w))

    def step(x, y):
        np.matmul(x, w, out=z)
        np.add(z, b, out=z)
        # loss = max(z, 0) - z*y + log(1 + exp(-|z|)), and sigmoid(z) from the same exponential: neither overflows
        np.abs(z, out=e)
        np.negative(e, out=e)
        np.exp(e, out=e)
        np.maximum(z, 0, out=p)
        np.log1p(e, out=small)
        loss = (p.sum() + small.sum() - z.ravel().dot(y.ravel())) / rows
        np.add(e, 1, out=small)
        np.heaviside(z, 0.5, out=p)     # numerator: 1 for z > 0, e for z < 0; at 0 both halves of e = 1 meet
        np.subtract(1, p, out=z)
        np.multiply(z, e, out=z)
        np.add(p, z, out=p)
        np.divide(p, small, out=p)
        np.subtract(p, y, out=p)
        np.matmul(x.T, p, out=slope)
        np.multiply(slope, SGD_RATE / rows, out=slope)
        np.subtract(w, slope, out=w)
        b[0] -= SGD_RATE / rows * p.sum()
        return loss

    return step


class Adam:
    """All parameters and their gradients are views of one flat array each, so that an update is one sweep."""

    def __init__(self, initial: list[np.ndarray]):
        sizes = [weight.size for weight in initial]
        self.flat = np.concatenate([weight.ravel() for weight in initial])
        self.flat_gradient = np.zeros_like(self.flat)
        self.mean, self.square, self.change = (np.zeros_like(self.flat) for _ in range(3))
        self.step = 0
        ends = np.cumsum(sizes)[:-1]
        shapes = [weight.shape for weight in initial]
        self.weights = [part.reshape(s) for part, s in zip(np.split(self.flat, ends), shapes, strict=True)]
        self.gradients = [part.reshape(s) for part, s in zip(np.split(self.flat_gradient, ends), shapes, strict=True)]

    def update(self) -> None:
        self.step += 1
        rate = ADAM_RATE * np.sqrt(1 - ADAM_BETA2**self.step) / (1 - ADAM_BETA1**self.step)
        gradient, mean, square, change = self.flat_gradient, self.mean, self.square, self.change
        np.multiply(gradient, gradient, out=change)
        np.multiply(change, 1 - ADAM_BETA2, out=change)
        np.multiply(square, ADAM_BETA2, out=square)
        np.add(square, change, out=square)
        np.multiply(gradient, 1 - ADAM_BETA1, out=gradient)
        np.multiply(mean, ADAM_BETA1, out=mean)
        np.add(mean, gradient, out=mean)
        np.sqrt(square, out=change)
        np.add(change, ADAM_EPSILON, out=change)
        np.divide(mean, change, out=change)
        np.multiply(change, np.float32(rate), out=change)
        np.subtract(self.flat, change, out=self.flat)


def mlp_train(workload: Workload, initial: list[np.ndarray]):
    adam = Adam(initial)
    (w1, b1, w2, b2), (d_w1, d_b1, d_w2, d_b2) = adam.weights, adam.gradients
    rows, (_, width, classes) = workload.batch, workload.sizes
    hidden, d_hidden = np.empty((rows, width), np.float32), np.empty((rows, width), np.float32)
    active = np.empty((rows, width), np.bool_)
    logits, column = np.empty((rows, classes), np.float32), np.empty((rows, 1), np.float32)
    each = np.arange(rows)

    def step(x, y):
        np.matmul(x, w1, out=hidden)
        np.add(hidden, b1, out=hidden)
        np.maximum(hidden, 0, out=hidden)
        np.matmul(hidden, w2, out=logits)
        np.add(logits, b2, out=logits)
        np.max(logits, axis=1, keepdims=True, out=column)
        np.subtract(logits, column, out=logits)
        right = logits[each, y].sum()
        np.exp(logits, out=logits)
        np.sum(logits, axis=1, keepdims=True, out=column)
        loss = (np.log(column).sum() - right) / rows
        np.multiply(column, rows, out=column)
        np.divide(logits, column, out=logits)       # from here on the gradient of the logits
        logits[each, y] -= np.float32(1 / rows)
        np.matmul(hidden.T, logits, out=d_w2)
        np.sum(logits, axis=0, out=d_b2)
        np.matmul(logits, w2.T, out=d_hidden)
        np.greater(hidden, 0, out=active)
        np.multiply(d_hidden, active, out=d_hidden)
        np.matmul(x.T, d_hidden, out=d_w1)
        np.sum(d_hidden, axis=0, out=d_b1)
        adam.update()
        return loss

    return step


def mlp_infer(workload: Workload, weights: list[np.ndarray]):
    w1, b1, w2, b2 = weights
    buffers: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def predict(x):
        rows = len(x)
        if rows not in buffers:
            buffers[rows] = np.empty((rows, w1.shape[1]), np.float32), np.empty((rows, w2.shape[1]), np.float32)
        hidden, logits = buffers[rows]
        np.matmul(x, w1, out=hidden)
        np.add(hidden, b1, out=hidden)
        np.maximum(hidden, 0, out=hidden)
        np.matmul(hidden, w2, out=logits)
        np.add(logits, b2, out=logits)
        return logits

    return predict


def gelu(workload: Workload, weights: list[np.ndarray]):
    a, b, c = (weight[()] for weight in weights)
    block = 1 << 16             # three such pieces stay in the second-level cache: memory is read and written once
    result = np.empty(workload.sizes, np.float32)
    inner, scale = np.empty(block, np.float32), np.float32(np.sqrt(2 / np.pi))
    cube = np.float32(0.044715)

    def forward(x):
        for start in range(0, len(x), block):
            piece, out = x[start : start + block], result[start : start + block]
            u = inner[: len(piece)]
            np.multiply(piece, a, out=out)
            np.add(out, b, out=out)
            np.multiply(out, out, out=u)
            np.multiply(u, cube, out=u)
            np.add(u, 1, out=u)
            np.multiply(u, out, out=u)
            np.multiply(u, scale, out=u)
            np.tanh(u, out=u)
            np.add(u, 1, out=u)
            np.multiply(out, u, out=out)
            np.multiply(out, c / 2, out=out)
            np.add(out, piece, out=out)
        return result

    return forward


def dot(workload: Workload, weights: list[np.ndarray]):
    return np.dot


def product(workload: Workload, weights: list[np.ndarray]):
    m, n, _ = workload.sizes
    result = np.empty((m, n), np.float32)
    return lambda a, b: np.matmul(a, b, out=result)


BUILDERS = {
    "linreg_train": linreg,
    "logreg_train": logreg,
    "mlp_train": mlp_train,
    "mlp_infer": mlp_infer,
    "gelu": gelu,
    "dot": dot,
    "product": product,
}
