"""PyTorch, eager: fused optimizers, `from_numpy` (no copy), `zero_grad` that drops, inference mode for predictions."""
from __future__ import annotations

import numpy as np

from benchmarks.workloads import ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON, ADAM_RATE, MOMENTUM, SGD_RATE, Workload

LABELS = np.int64       # what its losses ask for
torch = functional = None


def start(threads: int) -> None:
    global torch, functional
    import torch
    import torch.nn.functional as functional

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)        # one step has nothing to run beside itself


def version() -> str:
    return f"PyTorch {torch.__version__}"


def parameters(weights: list[np.ndarray]) -> list:
    return [torch.from_numpy(weight.copy()).requires_grad_() for weight in weights]


def trainer(weights: list, optimizer, loss_of):
    """The usual training step around `loss_of(x, y, *weights)`."""

    def step(x, y):
        loss = loss_of(torch.from_numpy(x), torch.from_numpy(y), *weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def linear_loss(x, y, w, b):
    return functional.mse_loss(torch.addmm(b, x, w), y)


def logistic_loss(x, y, w, b):
    return functional.binary_cross_entropy_with_logits(torch.addmm(b, x, w), y)


def logits_of(x, w1, b1, w2, b2):
    return torch.addmm(b2, torch.relu(torch.addmm(b1, x, w1)), w2)


def mlp_loss(x, y, *weights):
    return functional.cross_entropy(logits_of(x, *weights), y)


def sgd(weights: list):
    return torch.optim.SGD(weights, lr=SGD_RATE, fused=True)


def adam(weights: list):
    return torch.optim.Adam(weights, lr=ADAM_RATE, betas=(ADAM_BETA1, ADAM_BETA2), eps=ADAM_EPSILON, fused=True)


def linreg(workload: Workload, initial: list[np.ndarray]):
    weights = parameters(initial)
    return trainer(weights, sgd(weights), linear_loss)


def logreg(workload: Workload, initial: list[np.ndarray]):
    weights = parameters(initial)
    return trainer(weights, sgd(weights), logistic_loss)


def mlp_train(workload: Workload, initial: list[np.ndarray]):
    weights = parameters(initial)
    return trainer(weights, adam(weights), mlp_loss)


def inference(function, weights: list[np.ndarray]):
    """Calls `function(*feeds, *weights)` with gradients switched off for good in this process's calls of it."""
    weights = [torch.from_numpy(weight) for weight in weights]

    def call(*arrays):
        with torch.inference_mode():
            return function(*(torch.from_numpy(array) for array in arrays), *weights).numpy()

    return call


def gelu_chain(x, a, b, c):
    return functional.gelu(x * a + b, approximate="tanh") * c + x


def mlp_infer(workload: Workload, weights: list[np.ndarray]):
    return inference(logits_of, weights)


def gelu(workload: Workload, weights: list[np.ndarray]):
    return inference(gelu_chain, weights)


def dot(workload: Workload, weights: list[np.ndarray]):
    def call(a, b):
        with torch.inference_mode():
            return torch.dot(torch.from_numpy(a), torch.from_numpy(b)).item()

    return call


def product(workload: Workload, weights: list[np.ndarray]):
    return inference(torch.mm, weights)


def lenet_logits(x, f1, b1, f2, b2, w3, b3, w4, b4):
    for kernel, bias in ((f1, b1), (f2, b2)):
        x = torch.relu(functional.max_pool2d(functional.conv2d(x, kernel, bias), 2))
    return torch.addmm(b4, torch.relu(torch.addmm(b3, x.flatten(1), w3)), w4)


def lenet_loss(x, y, *weights):
    return functional.nll_loss(functional.log_softmax(lenet_logits(x, *weights), 1), y)


def lenet_train(workload: Workload, initial: list[np.ndarray]):
    weights = parameters(initial)
    return trainer(weights, torch.optim.SGD(weights, lr=SGD_RATE, momentum=MOMENTUM, fused=True), lenet_loss)


def lenet_infer(workload: Workload, weights: list[np.ndarray]):
    return inference(lenet_logits, weights)


def lstm_net(initial: list[np.ndarray]):
    """(network, the weights that are trained). PyTorch has a second bias, which stays zero, and the gates i, f, j, o."""
    k1, b1, k2, b2, w, b = initial
    units = w.shape[0]
    net = torch.nn.LSTM(k1.shape[0] - units, units, 2, batch_first=True)
    order = np.concatenate([np.arange(units) + units * g for g in (0, 2, 1, 3)])
    with torch.no_grad():
        for layer, (kernel, bias) in enumerate(((k1, b1), (k2, b2))):
            kernel, inputs = kernel[:, order].T, kernel.shape[0] - units
            values = {"weight_ih": kernel[:, :inputs], "weight_hh": kernel[:, inputs:], "bias_ih": bias[order],
                      "bias_hh": bias * 0}
            for name, value in values.items():
                getattr(net, f"{name}_l{layer}").copy_(torch.from_numpy(np.ascontiguousarray(value)))
            getattr(net, f"bias_hh_l{layer}").requires_grad_(False)
    w, b = parameters([w, b])

    def logits(x):
        return torch.addmm(b, net(x)[0][:, -1], w)
    return logits, [*(p for p in net.parameters() if p.requires_grad), w, b]


def lstm_train(workload: Workload, initial: list[np.ndarray]):
    logits, weights = lstm_net(initial)
    return trainer(weights, adam(weights), lambda x, y, *_: functional.cross_entropy(logits(x), y))


def lstm_infer(workload: Workload, initial: list[np.ndarray]):
    logits, _ = lstm_net(initial)

    def call(x):
        with torch.inference_mode():
            return logits(torch.from_numpy(x)).numpy()

    return call


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
