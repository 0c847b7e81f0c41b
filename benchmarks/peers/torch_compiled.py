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


def lstm(x, k1, b1, k2, b2, w, b):
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


def gru(x, of_input, of_state, input_bias, state_bias, w, b):
    h = torch.zeros(x.shape[0], of_state.shape[0])
    rows = torch.addmm(input_bias, torch.cat(x.unbind(1)), of_input).chunk(x.shape[1])
    for row in rows:
        r, u, n = row.chunk(3, 1)
        state_r, state_u, state_n = torch.addmm(state_bias, h, of_state).chunk(3, 1)
        u = torch.sigmoid(u + state_u)
        h = (1 - u) * torch.tanh(n + torch.sigmoid(r + state_r) * state_n) + u * h
    return torch.addmm(b, h, w)


NETS = {**eager.NETS, "lstm": lstm, "gru": gru}


def sgd(weights, gradients, state) -> None:
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.sub_(gradient, alpha=SGD_RATE)


def momentum(weights, gradients, state) -> None:
    for weight, gradient, velocity in zip(weights, gradients, state, strict=True):
        velocity.mul_(MOMENTUM).add_(gradient)
        weight.sub_(velocity, alpha=SGD_RATE)


def adam(weights, gradients, state) -> None:
    count, means, squares = state
    count.add_(1)       # a tensor: a Python number would be compiled in, and compiled again for each step
    rate = ADAM_RATE * torch.sqrt(1 - ADAM_BETA2**count) / (1 - ADAM_BETA1**count)
    for weight, gradient, mean, square in zip(weights, gradients, means, squares, strict=True):
        mean.mul_(ADAM_BETA1).add_(gradient, alpha=1 - ADAM_BETA1)
        square.mul_(ADAM_BETA2).addcmul_(gradient, gradient, value=1 - ADAM_BETA2)
        weight.sub_(rate * mean / (square.sqrt() + ADAM_EPSILON))


UPDATES = {"sgd": sgd, "momentum": momentum, "adam": adam}


def train(workload: Workload, initial: list[np.ndarray]):
    """A step whose graph holds the loss, its gradients and the update, all in place."""
    weights = [torch.from_numpy(weight.copy()) for weight in initial]

    def zeros():
        return [torch.zeros(weight.shape) for weight in initial]

    state = [torch.zeros(()), zeros(), zeros()] if workload.optimizer == "adam" else zeros()
    net, update = eager.net_of(workload, NETS), UPDATES[workload.optimizer]
    loss_and_gradients = torch.func.grad_and_value(lambda weights, x, y: eager.loss_of(workload, net(x, *weights), y))

    @torch.compile(fullgraph=True)
    def compiled(weights, state, x, y):
        gradients, loss = loss_and_gradients(weights, x, y)
        update(weights, gradients, state)
        return loss

    return lambda x, y: compiled(weights, state, torch.from_numpy(x), torch.from_numpy(y)).item()


def infer(workload: Workload, weights: list[np.ndarray]):
    compiled = torch.compile(eager.net_of(workload, NETS), fullgraph=True)
    if workload.name != "new_batch":
        return eager.inference(compiled, weights)

    def any_batch(x, *weights):
        torch._dynamo.mark_dynamic(x, 0)        # said beforehand, or the second size would compile once more
        return compiled(x, *weights)

    return eager.inference(any_batch, weights)


def operation(workload: Workload, weights: list[np.ndarray]):
    return eager.inference(torch.compile(eager.operations()[workload.kind], fullgraph=True), weights)


def dot(workload: Workload, weights: list[np.ndarray]):
    return eager.inference(torch.compile(torch.dot, fullgraph=True), weights)


def gelu_grad(workload: Workload, weights: list[np.ndarray]):
    gradients = torch.func.grad(lambda *inputs: eager.gelu_chain(*inputs).mean(), argnums=(0, 1, 2, 3))
    compiled = torch.compile(gradients, fullgraph=True)

    def call(*inputs):
        with torch.no_grad():
            return compiled(*inputs)

    scalars = [torch.from_numpy(weight) for weight in weights]
    return lambda x: [gradient.numpy() for gradient in call(torch.from_numpy(x), *scalars)]


BUILDERS = {
    **{f"{net}_train": train for net in NETS},
    **{f"{net}_infer": infer for net in NETS},
    **dict.fromkeys(("gelu", "dense_gelu", "softmax", "product"), operation),
    "gelu_grad": gelu_grad,
    "dot": dot,
}
