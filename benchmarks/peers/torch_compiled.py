"""PyTorch with torch.compile: forward, backward and update of a step as one compiled graph.

Tried as well and slower on every training workload: compiling only the forward function, compiling `optimizer.step`
separately, and Inductor's C++ wrapper.
"""
from __future__ import annotations

import numpy as np

from benchmarks.peers import torch_eager as eager
from benchmarks.workloads import ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON, ADAM_RATE, MOMENTUM, SGD_RATE, Workload

LABELS = eager.LABELS
torch = None


def start(threads: int) -> None:
    global torch
    eager.start(threads)
    torch = eager.torch


def version() -> str:
    return f"torch.compile of {eager.version()}"


def trainer(loss_of, initial: list[np.ndarray], update, state: list):
    """A step whose graph holds the loss, its gradients and `update(weights, gradients, state)`, all in place."""
    weights = [torch.from_numpy(weight.copy()) for weight in initial]
    loss_and_gradients = torch.func.grad_and_value(lambda weights, x, y: loss_of(x, y, *weights))

    @torch.compile(fullgraph=True)
    def compiled(weights, state, x, y):
        gradients, loss = loss_and_gradients(weights, x, y)
        update(weights, gradients, state)
        return loss

    def step(x, y):
        return compiled(weights, state, torch.from_numpy(x), torch.from_numpy(y)).item()

    return step


def sgd(weights, gradients, state) -> None:
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.sub_(gradient, alpha=SGD_RATE)


def adam(weights, gradients, state) -> None:
    count, means, squares = state
    count.add_(1)       # a tensor: a Python number would be compiled in, and compiled again for each step
    rate = ADAM_RATE * torch.sqrt(1 - ADAM_BETA2**count) / (1 - ADAM_BETA1**count)
    for weight, gradient, mean, square in zip(weights, gradients, means, squares, strict=True):
        mean.mul_(ADAM_BETA1).add_(gradient, alpha=1 - ADAM_BETA1)
        square.mul_(ADAM_BETA2).addcmul_(gradient, gradient, value=1 - ADAM_BETA2)
        weight.sub_(rate * mean / (square.sqrt() + ADAM_EPSILON))


def linreg(workload: Workload, initial: list[np.ndarray]):
    return trainer(eager.linear_loss, initial, sgd, [])


def logreg(workload: Workload, initial: list[np.ndarray]):
    return trainer(eager.logistic_loss, initial, sgd, [])


def mlp_train(workload: Workload, initial: list[np.ndarray]):
    def zeros():
        return [torch.zeros(weight.shape) for weight in initial]

    return trainer(eager.mlp_loss, initial, adam, [torch.zeros(()), zeros(), zeros()])


def momentum(weights, gradients, state) -> None:
    for weight, gradient, velocity in zip(weights, gradients, state, strict=True):
        velocity.mul_(MOMENTUM).add_(gradient)
        weight.sub_(velocity, alpha=SGD_RATE)


def lenet_train(workload: Workload, initial: list[np.ndarray]):
    return trainer(eager.lenet_loss, initial, momentum, [torch.zeros(weight.shape) for weight in initial])


def lenet_infer(workload: Workload, weights: list[np.ndarray]):
    compiled = torch.compile(eager.lenet_logits, fullgraph=True)
    return eager.inference(compiled, weights)


def lstm_logits(x, k1, b1, k2, b2, w, b):
    """Unrolled: the compiler does not take the LSTM module apart."""
    rows = list(x.unbind(1))
    for kernel, bias in ((k1, b1), (k2, b2)):
        units = bias.shape[0] // 4
        inputs = torch.addmm(bias, torch.cat(rows), kernel[:-units]).chunk(len(rows))
        h = c = torch.zeros(x.shape[0], units)
        for t, row in enumerate(inputs):
            i, j, f, o = torch.addmm(row, h, kernel[-units:]).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(j)
            h = torch.sigmoid(o) * torch.tanh(c)
            rows[t] = h
    return torch.addmm(b, rows[-1], w)


def lstm_loss(x, y, *weights):
    return torch.nn.functional.cross_entropy(lstm_logits(x, *weights), y)


def lstm_train(workload: Workload, initial: list[np.ndarray]):
    def zeros():
        return [torch.zeros(weight.shape) for weight in initial]

    return trainer(lstm_loss, initial, adam, [torch.zeros(()), zeros(), zeros()])


def lstm_infer(workload: Workload, weights: list[np.ndarray]):
    return eager.inference(torch.compile(lstm_logits, fullgraph=True), weights)


def mlp_infer(workload: Workload, weights: list[np.ndarray]):
    compiled = torch.compile(eager.logits_of, fullgraph=True)
    if workload.name != "new_batch":
        return eager.inference(compiled, weights)

    def any_batch(x, *weights):
        torch._dynamo.mark_dynamic(x, 0)        # said beforehand, or the second size would compile once more
        return compiled(x, *weights)

    return eager.inference(any_batch, weights)


def gelu(workload: Workload, weights: list[np.ndarray]):
    return eager.inference(torch.compile(eager.gelu_chain, fullgraph=True), weights)


def dot(workload: Workload, weights: list[np.ndarray]):
    return eager.inference(torch.compile(torch.dot, fullgraph=True), weights)


def product(workload: Workload, weights: list[np.ndarray]):
    return eager.inference(torch.compile(torch.mm, fullgraph=True), weights)


BUILDERS = {
    "lenet_train": lenet_train,
    "lenet_infer": lenet_infer,
    "lstm_train": lstm_train,
    "lstm_infer": lstm_infer,
    "linreg_train": linreg,
    "logreg_train": logreg,
    "mlp_train": mlp_train,
    "mlp_infer": mlp_infer,
    "gelu": gelu,
    "dot": dot,
    "product": product,
}
