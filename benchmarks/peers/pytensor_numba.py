"""PyTensor compiled by Numba: shared variables updated in the call, inputs borrowed and trusted."""
from __future__ import annotations

import numpy as np

from benchmarks.data import feed_types
from benchmarks.workloads import (
    ADAM_BETA1,
    ADAM_BETA2,
    ADAM_EPSILON,
    ADAM_RATE,
    LAYER_NORM_EPSILON,
    LOOP_STEPS,
    SGD_RATE,
    Workload,
)

LABELS = np.int64       # what indexing with an array wants
pytensor = pt = None


def start(threads: int) -> None:
    global pytensor, pt
    import pytensor
    import pytensor.tensor as pt

    pytensor.config.floatX = "float32"


def version() -> str:
    return f"PyTensor {pytensor.__version__} (Numba mode)"


def compiled(inputs: list, output, updates=()):
    """The bound call an expert would use: no checks of the inputs and no copies of them."""
    inputs = [pytensor.In(variable, borrow=True) for variable in inputs]
    outputs = [pytensor.Out(o, borrow=True) for o in (output if isinstance(output, list) else [output])]
    outputs = outputs if isinstance(output, list) else outputs[0]
    function = pytensor.function(inputs, outputs, updates=list(updates), mode="NUMBA")
    function.trust_input = True
    return function


def shared(weights: list[np.ndarray]) -> list:
    return [pytensor.shared(weight.copy(), shape=weight.shape) for weight in weights]


def sgd(loss, weights: list) -> list:
    return [(w, w - np.float32(SGD_RATE) * g) for w, g in zip(weights, pytensor.grad(loss, weights), strict=True)]


def adam(loss, weights: list) -> list:
    number = np.float32
    count = pytensor.shared(number(0))
    following = count + number(1)
    rate = number(ADAM_RATE) * pt.sqrt(number(1) - number(ADAM_BETA2) ** following)
    rate = rate / (number(1) - number(ADAM_BETA1) ** following)
    updates = [(count, following)]
    for w, g in zip(weights, pytensor.grad(loss, weights), strict=True):
        zeros = np.zeros(w.get_value(borrow=True).shape, np.float32)
        mean, square = shared([zeros, zeros])
        next_mean = number(ADAM_BETA1) * mean + number(1 - ADAM_BETA1) * g
        next_square = number(ADAM_BETA2) * square + number(1 - ADAM_BETA2) * g * g
        updates += [(mean, next_mean), (square, next_square)]
        updates.append((w, w - rate * next_mean / (pt.sqrt(next_square) + number(ADAM_EPSILON))))
    return updates


# ---- nets: (workload, x, weights) to the prediction.  It has no fast convolution, and compiles recurrences for minutes.

def mlp(workload: Workload, x, weights: list):
    *hidden, (w, b) = zip(weights[::2], weights[1::2], strict=True)
    for matrix, bias in hidden:
        x = pt.maximum(x @ matrix + bias, np.float32(0))
    return x @ w + b


def attention(workload: Workload, x, weights: list):
    places, size, heads = workload.sizes
    inner, bias, outer, outer_bias = weights
    parts = (x @ inner + bias).reshape((-1, places, 3, heads, size // heads)).transpose(2, 0, 3, 1, 4)
    scores = (parts[0] @ parts[1].transpose(0, 1, 3, 2)) * np.float32((size // heads) ** -0.5)
    scores = scores + np.triu(np.full((places, places), -1e30, np.float32), 1)
    found = pt.special.softmax(scores, axis=-1) @ parts[2]
    return x + found.transpose(0, 2, 1, 3).reshape((-1, places, size)) @ outer + outer_bias


def block(workload: Workload, x, weights: list):
    scale, offset, w1, b1, w2, b2 = weights
    y = x - x.mean(axis=1, keepdims=True)
    y = y / pt.sqrt(pt.sqr(y).mean(axis=1, keepdims=True) + np.float32(LAYER_NORM_EPSILON))
    return x + gelu_tanh((y * scale + offset) @ w1 + b1) @ w2 + b2


def gelu_tanh(u):
    number = np.float32
    inner = number(np.sqrt(2 / np.pi)) * (u + number(0.044715) * u * u * u)
    return number(0.5) * u * (number(1) + pt.tanh(inner))


NETS = {"linear": mlp, "mlp": mlp, "attention": attention, "block": block}


def inputs_of(workload: Workload) -> list:
    """Variables like the feeds, with any number of rows, but of arrays that have none."""
    fixed = workload.kind in ("dot", "product", "loop")
    types = [("int64" if dtype == "int32" else dtype, shape) for dtype, shape in feed_types(workload)]
    return [pt.tensor(dtype=dtype, shape=shape if fixed else (None, *shape[1:])) for dtype, shape in types]


def train(workload: Workload, initial: list[np.ndarray]):
    x, y = inputs_of(workload)
    weights = shared(initial)
    prediction = NETS[workload.net](workload, x, weights)
    if workload.loss == "squares":
        loss = pt.mean(pt.sqr(prediction - y))
    elif workload.loss == "sigmoid":
        loss = pt.mean(pt.softplus(prediction) - prediction * y)
    else:
        loss = -pt.mean(pt.special.log_softmax(prediction, axis=1)[pt.arange(y.shape[0]), y])
    return compiled([x, y], loss, (adam if workload.optimizer == "adam" else sgd)(loss, weights))


def infer(workload: Workload, weights: list[np.ndarray]):
    (x,) = inputs_of(workload)
    return compiled([x], NETS[workload.net](workload, x, shared(weights)))


# ---- single operations: (weights, *feeds) to the result

def gelu(scalars: list, x):
    a, b, c = scalars
    return gelu_tanh(x * a + b) * c + x


def gelu_grad(scalars: list, x):
    return pytensor.grad(pt.mean(gelu(scalars, x)), [x, *scalars])


def loop(_, x):
    return pytensor.scan(lambda x: np.float32(2.9) * x * (np.float32(1) - x), outputs_info=[x], n_steps=LOOP_STEPS,
                         return_updates=False)[-1]


def operation(function):
    def build(workload: Workload, weights: list[np.ndarray]):
        inputs = inputs_of(workload)
        return compiled(inputs, function(shared(weights), *inputs))

    return build


BUILDERS = {
    **{f"{net}_train": train for net in NETS},
    **{f"{net}_infer": infer for net in NETS},
    "gelu": operation(gelu),
    "gelu_grad": operation(gelu_grad),
    "dense_gelu": operation(lambda weights, x: gelu_tanh(x @ weights[0] + weights[1])),
    "softmax": operation(lambda _, x: pt.special.softmax(x, axis=1)),
    "dot": operation(lambda _, a, b: pt.dot(a, b)),
    "product": operation(lambda _, a, b: a @ b),
    "loop": operation(loop),
}
