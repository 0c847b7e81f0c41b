"""The nets' predictions in NumPy, written plainly: what the NumPy peer predicts with and tests compare all others with.

Each takes the workload, x and the weights, of any float type.  Convolutions are products of windows with filters.
"""
from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from benchmarks.workloads import LAYER_NORM_EPSILON, Workload


def mlp(workload: Workload, x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """A linear model as well: it has no hidden layer."""
    *hidden, (w, b) = zip(weights[::2], weights[1::2], strict=True)
    for matrix, bias in hidden:
        x = np.maximum(x @ matrix + bias, 0)
    return x @ w + b


def convolution(x: np.ndarray, filters: np.ndarray, stride: int = 1) -> np.ndarray:
    """Of x [N, H, W, channels], without padding, by filters [out, channels, height, width]."""
    out, channels, height, width = filters.shape
    windows = sliding_window_view(x, (height, width), (1, 2))[:, ::stride, ::stride]
    n, rows, columns = windows.shape[:3]
    return (windows.reshape(n * rows * columns, -1) @ filters.reshape(out, -1).T).reshape(n, rows, columns, out)


def pooled(x: np.ndarray) -> np.ndarray:
    """The largest of each 2x2 places of x [N, H, W, channels]."""
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2].reshape(n, height // 2, 2, width // 2, 2, channels)
    return x.max(axis=(2, 4))


def lenet(workload: Workload, x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    f1, b1, f2, b2, w3, b3, w4, b4 = weights
    x = x.transpose(0, 2, 3, 1)
    for filters, bias in ((f1, b1), (f2, b2)):
        x = np.maximum(pooled(convolution(x, filters)) + bias, 0)
    x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
    return np.maximum(x @ w3 + b3, 0) @ w4 + b4


def separable(workload: Workload, x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    first, bias, *parts, w, b = weights
    x = np.maximum(convolution(x.transpose(0, 2, 3, 1), first, 2) + bias, 0)
    for n in range(0, len(parts), 3):
        depthwise, pointwise, bias = parts[n : n + 3]
        stride, padding = (2, 0) if n == 3 else (1, 1)
        x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        windows = sliding_window_view(x, (3, 3), (1, 2))[:, ::stride, ::stride]
        x = np.einsum("nhwcij,cij->nhwc", windows, depthwise[:, 0])
        x = np.maximum(x @ pointwise[:, :, 0, 0].T + bias, 0)
    return x.mean(axis=(1, 2)) @ w + b


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def lstm(workload: Workload, x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    *layers, w, b = weights
    rows = x.swapaxes(0, 1)
    for kernel, bias in (layers[:2], layers[2:]):
        units = len(bias) // 4
        inputs, state = rows @ kernel[:-units] + bias, kernel[-units:]
        h = c = np.zeros((x.shape[0], units), x.dtype)
        rows = np.empty((len(inputs), *h.shape), x.dtype)
        for t, row in enumerate(inputs):
            i, j, f, o = np.split(row + h @ state, 4, 1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(j)
            h = rows[t] = sigmoid(o) * np.tanh(c)
    return h @ w + b


def gru(workload: Workload, x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    of_input, of_state, input_bias, state_bias, w, b = weights
    h = np.zeros((x.shape[0], len(of_state)), x.dtype)
    for row in x.swapaxes(0, 1) @ of_input + input_bias:
        r, u, n = np.split(row, 3, 1)
        state_r, state_u, state_n = np.split(h @ of_state + state_bias, 3, 1)
        u = sigmoid(u + state_u)
        h = (1 - u) * np.tanh(n + sigmoid(r + state_r) * state_n) + u * h
    return h @ w + b


def attention(workload: Workload, x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    inner, bias, outer, outer_bias = weights
    batch, places, size = x.shape
    heads = workload.sizes[2]
    parts = (x @ inner + bias).reshape(batch, places, 3, heads, size // heads).transpose(2, 0, 3, 1, 4)
    scores = parts[0] @ parts[1].swapaxes(2, 3) * x.dtype.type((size // heads) ** -0.5)
    scores[..., np.triu(np.ones((places, places), bool), 1)] = -np.inf
    found = softmax(scores) @ parts[2]
    return x + found.transpose(0, 2, 1, 3).reshape(batch, places, size) @ outer + outer_bias


def softmax(x: np.ndarray) -> np.ndarray:
    """Of the last axis, made in place of a new array."""
    x = x - x.max(axis=-1, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(axis=-1, keepdims=True)
    return x


def block(workload: Workload, x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    scale, offset, w1, b1, w2, b2 = weights
    y = x - x.mean(axis=1, keepdims=True)
    y /= np.sqrt(np.mean(y * y, axis=1, keepdims=True) + x.dtype.type(LAYER_NORM_EPSILON))
    return x + gelu(y * scale + offset, w1, b1) @ w2 + b2


def gelu(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """gelu_tanh(x w + b)."""
    u = x @ w
    u += b
    inner = u * u
    inner *= u
    inner *= x.dtype.type(0.044715)
    inner += u
    inner *= x.dtype.type(np.sqrt(2 / np.pi))
    np.tanh(inner, out=inner)
    inner += 1
    inner *= u
    inner *= x.dtype.type(0.5)
    return inner


NETS = {"linear": mlp, "mlp": mlp, "lenet": lenet, "separable": separable, "lstm": lstm, "gru": gru, "attention": attention,
        "block": block}
