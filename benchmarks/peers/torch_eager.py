"""PyTorch, eager: fused optimizers, `from_numpy` (no copy), `zero_grad` that drops, inference mode for predictions."""
from __future__ import annotations

import numpy as np

from benchmarks.workloads import ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON, ADAM_RATE, SGD_RATE, Workload

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


BUILDERS = {
    "linreg_train": linreg,
    "logreg_train": logreg,
    "mlp_train": mlp_train,
    "mlp_infer": mlp_infer,
    "gelu": gelu,
    "dot": dot,
    "product": product,
}
