"""tinygrad on its CPU backend, the whole step in a `TinyJit`, its own optimizers, no kernel search (BEAM).

It needs clang, or whatever the environment's CC names.  Its first call runs kernel by kernel and the second is captured, so
"build and first call" tells less of it than of others.
"""
from __future__ import annotations

import os

import numpy as np

from benchmarks.workloads import (
    ADAM_BETA1,
    ADAM_BETA2,
    ADAM_EPSILON,
    ADAM_RATE,
    LAYER_NORM_EPSILON,
    MOMENTUM,
    SGD_RATE,
    Workload,
)

LABELS = np.int32
tinygrad = Tensor = None


def start(threads: int) -> None:
    global tinygrad, Tensor
    os.environ.update(DEV="CPU", NUM_CPU_THREADS=str(threads))
    import tinygrad
    from tinygrad import Tensor

    Tensor.zeros(1).contiguous().realize()      # says here that there is no compiler, if there is none


def version() -> str:
    from importlib.metadata import version

    return f"tinygrad {version('tinygrad')}"


def shared(array: np.ndarray):
    """The array itself as a tensor, not a copy of it."""
    dtype = tinygrad.dtypes.int32 if array.dtype == np.int32 else tinygrad.dtypes.float32
    return Tensor.from_blob(array.ctypes.data, array.shape, dtype=dtype, device="CPU")


def kept(weights: list[np.ndarray]) -> list:
    return [Tensor(weight.copy()).realize() for weight in weights]


# ---- nets: (workload, x, weights) to the prediction

def mlp(workload: Workload, x, weights: list):
    *hidden, (w, b) = zip(weights[::2], weights[1::2], strict=True)
    for matrix, bias in hidden:
        x = (x @ matrix + bias).relu()
    return x @ w + b


def lenet(workload: Workload, x, weights: list):
    f1, b1, f2, b2, *dense = weights
    for kernel, bias in ((f1, b1), (f2, b2)):
        x = x.conv2d(kernel, bias).max_pool2d().relu()
    return mlp(workload, x.flatten(1), dense)


def separable(workload: Workload, x, weights: list):
    first, bias, *parts, w, b = weights
    x = x.conv2d(first, bias, stride=2).relu()
    for n in range(0, len(parts), 3):
        depthwise, pointwise, bias = parts[n : n + 3]
        stride, padding = (2, 0) if n == 3 else (1, 1)
        x = x.conv2d(depthwise, groups=depthwise.shape[0], stride=stride, padding=padding).conv2d(pointwise, bias).relu()
    return x.mean((2, 3)) @ w + b


def lstm(workload: Workload, x, weights: list):
    *layers, w, b = weights
    steps, _, units, _ = workload.sizes
    rows = [x[:, t] for t in range(steps)]
    for kernel, bias in (layers[:2], layers[2:]):
        h = c = Tensor.zeros(x.shape[0], units)
        for t, row in enumerate(rows):
            i, j, f, o = (row.cat(h, dim=1) @ kernel + bias).chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * j.tanh()
            h = rows[t] = o.sigmoid() * c.tanh()
    return h @ w + b


def gru(workload: Workload, x, weights: list):
    of_input, of_state, input_bias, state_bias, w, b = weights
    steps, _, units, _ = workload.sizes
    h, rows = Tensor.zeros(x.shape[0], units), x @ of_input + input_bias
    for t in range(steps):
        r, u, n = rows[:, t].chunk(3, dim=1)
        state_r, state_u, state_n = (h @ of_state + state_bias).chunk(3, dim=1)
        u = (u + state_u).sigmoid()
        h = (1 - u) * (n + (r + state_r).sigmoid() * state_n).tanh() + u * h
    return h @ w + b


def attention(workload: Workload, x, weights: list):
    places, size, heads = workload.sizes
    inner, bias, outer, outer_bias = weights
    parts = (x @ inner + bias).reshape(-1, places, 3, heads, size // heads).permute(2, 0, 3, 1, 4)
    found = parts[0].scaled_dot_product_attention(parts[1], parts[2], is_causal=True)
    return x + found.transpose(1, 2).reshape(-1, places, size) @ outer + outer_bias


def block(workload: Workload, x, weights: list):
    scale, offset, w1, b1, w2, b2 = weights
    y = x.layernorm(eps=LAYER_NORM_EPSILON) * scale + offset
    return x + (y @ w1 + b1).gelu() @ w2 + b2


NETS = {"linear": mlp, "mlp": mlp, "lenet": lenet, "separable": separable, "lstm": lstm, "gru": gru, "attention": attention,
        "block": block}


def loss_of(workload: Workload, prediction, y):
    if workload.loss == "squares":
        return (prediction - y).square().mean()
    if workload.loss == "sigmoid":
        return prediction.binary_crossentropy_logits(y)
    return prediction.sparse_categorical_crossentropy(y)


def train(workload: Workload, initial: list[np.ndarray]):
    weights, net = kept(initial), NETS[workload.net]
    if workload.optimizer == "adam":
        optimizer = tinygrad.nn.optim.Adam(weights, ADAM_RATE, ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON)
    else:
        optimizer = tinygrad.nn.optim.SGD(weights, SGD_RATE, MOMENTUM if workload.optimizer == "momentum" else 0)

    @tinygrad.TinyJit
    def whole(x, y):
        optimizer.zero_grad()
        loss = loss_of(workload, net(workload, x, weights), y).backward()
        return loss.realize(*optimizer.schedule_step())

    def step(x, y):
        with tinygrad.Context(TRAINING=1):
            return whole(shared(x), shared(y)).item()

    return step


def compiled(function, weights: list[np.ndarray]):
    """`function(tensors of weights, *tensors of feeds)`, its results as arrays."""
    tensors = kept(weights)

    @tinygrad.TinyJit
    def whole(*inputs):
        results = function(tensors, *inputs)
        return [part.realize() for part in results] if isinstance(results, list) else results.realize()

    def call(*arrays):
        results = whole(*(shared(array) for array in arrays))
        return [part.numpy() for part in results] if isinstance(results, list) else results.numpy()

    return call


def infer(workload: Workload, weights: list[np.ndarray]):
    return compiled(lambda tensors, x: NETS[workload.net](workload, x, tensors), weights)


def operation(function):
    return lambda workload, weights: compiled(function, weights)


def gelu(scalars: list, x):
    a, b, c = scalars
    return (x * a + b).gelu() * c + x


def gelu_grad(scalars: list, x):
    inputs = [x, *scalars]
    return gelu(scalars, x).mean().gradient(*inputs)


BUILDERS = {
    **{f"{net}_train": train for net in NETS},
    **{f"{net}_infer": infer for net in NETS},
    "gelu": operation(gelu),
    "gelu_grad": operation(gelu_grad),
    "dense_gelu": operation(lambda weights, x: (x @ weights[0] + weights[1]).gelu()),
    "softmax": operation(lambda _, x: x.softmax(1)),
    "dot": operation(lambda _, a, b: a.dot(b)),
    "product": operation(lambda _, a, b: a @ b),
}
