"""PyTensor compiled by Numba: shared variables updated in the call, inputs borrowed and trusted."""
from __future__ import annotations

import numpy as np

from benchmarks.workloads import ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON, ADAM_RATE, SGD_RATE, Workload

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
    function = pytensor.function(inputs, pytensor.Out(output, borrow=True), updates=list(updates), mode="NUMBA")
    function.trust_input = True
    return function


def shared(weights: list[np.ndarray]) -> list:
    return [pytensor.shared(weight.copy(), shape=weight.shape) for weight in weights]


def matrix(columns: int):
    """An input of any number of rows."""
    return pt.tensor(dtype="float32", shape=(None, columns))


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


def linreg(workload: Workload, initial: list[np.ndarray]):
    x, y = matrix(workload.sizes[0]), matrix(1)
    w, b = weights = shared(initial)
    loss = pt.mean(pt.sqr(x @ w + b - y))
    return compiled([x, y], loss, sgd(loss, weights))


def logreg(workload: Workload, initial: list[np.ndarray]):
    x, y = matrix(workload.sizes[0]), matrix(1)
    w, b = weights = shared(initial)
    z = x @ w + b
    loss = pt.mean(pt.softplus(z) - z * y)
    return compiled([x, y], loss, sgd(loss, weights))


def logits_of(x, w1, b1, w2, b2):
    return pt.maximum(x @ w1 + b1, np.float32(0)) @ w2 + b2


def mlp_train(workload: Workload, initial: list[np.ndarray]):
    x, y = matrix(workload.sizes[0]), pt.lvector()
    weights = shared(initial)
    log_probability = pt.special.log_softmax(logits_of(x, *weights), axis=1)
    loss = -pt.mean(log_probability[pt.arange(y.shape[0]), y])
    return compiled([x, y], loss, adam(loss, weights))


def mlp_infer(workload: Workload, weights: list[np.ndarray]):
    x = matrix(workload.sizes[0])
    return compiled([x], logits_of(x, *shared(weights)))


def gelu(workload: Workload, weights: list[np.ndarray]):
    x = pt.fvector()
    a, b, c = shared(weights)
    number = np.float32
    u = x * a + b
    inner = number(np.sqrt(2 / np.pi)) * (u + number(0.044715) * u * u * u)
    return compiled([x], number(0.5) * u * (number(1) + pt.tanh(inner)) * c + x)


def dot(workload: Workload, weights: list[np.ndarray]):
    a, b = (pt.tensor(dtype="float32", shape=workload.sizes) for _ in range(2))
    return compiled([a, b], pt.dot(a, b))


def product(workload: Workload, weights: list[np.ndarray]):
    m, n, k = workload.sizes
    a, b = pt.tensor(dtype="float32", shape=(m, k)), pt.tensor(dtype="float32", shape=(k, n))
    return compiled([a, b], a @ b)


BUILDERS = {
    "linreg_train": linreg,
    "logreg_train": logreg,
    "mlp_train": mlp_train,
    "mlp_infer": mlp_infer,
    "gelu": gelu,
    "dot": dot,
    "product": product,
}
