"""NumPy written by hand the way one would who has to: buffers made once, `out=` everywhere, no temporary arrays.

Linear algebra is NumPy's BLAS (OpenBLAS in the wheels).  Gradients are derived by hand.
"""
from __future__ import annotations

import numpy as np

from benchmarks.peers import numpy_nets
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
    adam, rows = Adam(initial), workload.batch
    matrices, biases = adam.weights[::2], adam.weights[1::2]
    layers = list(zip(matrices, biases, (np.empty((rows, b.size), np.float32) for b in biases), strict=True))
    hidden = [out for _, _, out in layers[:-1]]
    slopes = [np.empty_like(out) for out in hidden]
    masks = [np.empty(out.shape, np.bool_) for out in hidden]
    logits, column, each = layers[-1][2], np.empty((rows, 1), np.float32), np.arange(rows)

    def step(x, y):
        value = x
        for w, b, out in layers:
            np.matmul(value, w, out=out)
            np.add(out, b, out=out)
            if out is not logits:
                np.maximum(out, 0, out=out)
            value = out
        np.max(logits, axis=1, keepdims=True, out=column)
        np.subtract(logits, column, out=logits)
        right = logits[each, y].sum()
        np.exp(logits, out=logits)
        np.sum(logits, axis=1, keepdims=True, out=column)
        loss = (np.log(column).sum() - right) / rows
        np.multiply(column, rows, out=column)
        np.divide(logits, column, out=logits)       # from here on the gradient of the logits
        logits[each, y] -= np.float32(1 / rows)
        slope = logits
        for n in range(len(hidden), -1, -1):
            np.matmul((hidden[n - 1] if n else x).T, slope, out=adam.gradients[2 * n])
            np.sum(slope, axis=0, out=adam.gradients[2 * n + 1])
            if n:
                np.matmul(slope, matrices[n].T, out=slopes[n - 1])
                np.greater(hidden[n - 1], 0, out=masks[n - 1])
                slope = np.multiply(slopes[n - 1], masks[n - 1], out=slopes[n - 1])
        adam.update()
        return loss

    return step


def mlp_infer(workload: Workload, weights: list[np.ndarray]):
    layers = list(zip(weights[::2], weights[1::2], strict=True))
    buffers: dict[int, list[np.ndarray]] = {}

    def predict(x):
        rows = len(x)
        if rows not in buffers:
            buffers[rows] = [np.empty((rows, b.size), np.float32) for _, b in layers]
        value, last = x, buffers[rows][-1]
        for (w, b), out in zip(layers, buffers[rows], strict=True):
            np.matmul(value, w, out=out)
            np.add(out, b, out=out)
            if out is not last:
                np.maximum(out, 0, out=out)
            value = out
        return value

    return predict


def infer(workload: Workload, weights: list[np.ndarray]):
    net = numpy_nets.NETS[workload.net]
    return lambda x: net(workload, x, weights)


BLOCK = 1 << 16             # three such pieces stay in the second-level cache: memory is read and written once
SCALE, CUBE = np.float32(np.sqrt(2 / np.pi)), np.float32(0.044715)


def gelu(workload: Workload, weights: list[np.ndarray]):
    a, b, c = (weight[()] for weight in weights)
    result, inner = np.empty(workload.sizes, np.float32), np.empty(BLOCK, np.float32)

    def forward(x):
        for start in range(0, len(x), BLOCK):
            piece, out = x[start : start + BLOCK], result[start : start + BLOCK]
            u = inner[: len(piece)]
            np.multiply(piece, a, out=out)
            np.add(out, b, out=out)
            np.multiply(out, out, out=u)
            np.multiply(u, CUBE, out=u)
            np.add(u, 1, out=u)
            np.multiply(u, out, out=u)
            np.multiply(u, SCALE, out=u)
            np.tanh(u, out=u)
            np.add(u, 1, out=u)
            np.multiply(out, u, out=out)
            np.multiply(out, c / 2, out=out)
            np.add(out, piece, out=out)
        return result

    return forward


def gelu_grad(workload: Workload, weights: list[np.ndarray]):
    """With t = tanh(k (u + q u^3)): gelu = u (1 + t) / 2, its slope (1 + t + u (1 - t^2) k (1 + 3 q u^2)) / 2."""
    a, b, c = (weight[()] for weight in weights)
    size = workload.sizes[0]
    result, space = np.empty(size, np.float32), [np.empty(BLOCK, np.float32) for _ in range(3)]

    def gradients(x):
        sums = np.zeros(3)                  # of gelu's slope times x, of its slope, of gelu
        for start in range(0, size, BLOCK):
            piece, out = x[start : start + BLOCK], result[start : start + BLOCK]
            u, t, square = (array[: len(piece)] for array in space)
            np.multiply(piece, a, out=u)
            np.add(u, b, out=u)
            np.multiply(u, u, out=square)
            np.multiply(square, CUBE, out=t)
            np.add(t, 1, out=t)
            np.multiply(t, u, out=t)
            np.multiply(t, SCALE, out=t)
            np.tanh(t, out=t)
            np.multiply(t, t, out=out)
            np.subtract(1, out, out=out)
            np.multiply(out, u, out=out)
            np.multiply(square, 3 * CUBE * SCALE, out=square)
            np.add(square, SCALE, out=square)
            np.multiply(out, square, out=out)
            np.add(t, 1, out=t)
            np.add(out, t, out=out)         # twice the slope
            sums += out.dot(piece), out.sum(), u.dot(t)
            np.multiply(out, c * a / (2 * size), out=out)
            np.add(out, np.float32(1 / size), out=out)
        return [result, *(sums * np.array([c, c, 1]) / (2 * size)).astype(np.float32)]

    return gradients


def dense_gelu(workload: Workload, weights: list[np.ndarray]):
    return lambda x: numpy_nets.gelu(x, *weights)


def softmax(workload: Workload, weights: list[np.ndarray]):
    result, rows = np.empty(workload.sizes, np.float32), 64       # as many as stay in the second-level cache

    def forward(x):
        for start in range(0, len(x), rows):
            piece, out = x[start : start + rows], result[start : start + rows]
            np.subtract(piece, piece.max(axis=1, keepdims=True), out=out)
            np.exp(out, out=out)
            np.divide(out, out.sum(axis=1, keepdims=True), out=out)
        return result

    return forward


def dot(workload: Workload, weights: list[np.ndarray]):
    return np.dot


def product(workload: Workload, weights: list[np.ndarray]):
    m, n, _ = workload.sizes
    result = np.empty((m, n), np.float32)
    return lambda a, b: np.matmul(a, b, out=result)


def linear(workload: Workload, weights: list[np.ndarray]):
    return (linreg if workload.loss == "squares" else logreg)(workload, weights)


# Nobody derives the gradients of convolutions and recurrences by hand any more, so those nets are only predicted with.
BUILDERS = {
    "linear_train": linear,
    "mlp_train": mlp_train,
    **dict.fromkeys((f"{net}_infer" for net in numpy_nets.NETS), infer),
    "mlp_infer": mlp_infer,
    "gelu": gelu,
    "gelu_grad": gelu_grad,
    "dense_gelu": dense_gelu,
    "softmax": softmax,
    "dot": dot,
    "product": product,
}
