"""PyTorch, eager: fused optimizers, `from_numpy` (no copy), `zero_grad` that drops, inference mode for predictions."""
from __future__ import annotations

import functools

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


# ---- nets: (x, *weights) to the prediction

def linear(x, w, b):
    return torch.addmm(b, x, w)


def mlp(x, *weights):
    *hidden, (w, b) = zip(weights[::2], weights[1::2], strict=True)
    for matrix, bias in hidden:
        x = torch.relu(torch.addmm(bias, x, matrix))
    return torch.addmm(b, x, w)


def lenet(x, f1, b1, f2, b2, w3, b3, w4, b4):
    for kernel, bias in ((f1, b1), (f2, b2)):
        x = torch.relu(functional.max_pool2d(functional.conv2d(x, kernel, bias), 2))
    return torch.addmm(b4, torch.relu(torch.addmm(b3, x.flatten(1), w3)), w4)


def separable(x, first, bias, *weights):
    x = torch.relu(functional.conv2d(x, first, bias, stride=2))
    *parts, w, b = weights
    for n in range(0, len(parts), 3):
        depthwise, pointwise, bias = parts[n : n + 3]
        stride, padding = (2, 0) if n == 3 else (1, 1)
        x = functional.conv2d(x, depthwise, stride=stride, padding=padding, groups=depthwise.shape[0])
        x = torch.relu(functional.conv2d(x, pointwise, bias))
    return torch.addmm(b, x.mean((2, 3)), w)


def attention(x, inner, bias, outer, outer_bias, heads: int):
    batch, places, size = x.shape
    parts = functional.linear(x, inner.T, bias).view(batch, places, 3, heads, size // heads).permute(2, 0, 3, 1, 4)
    found = functional.scaled_dot_product_attention(*parts.unbind(0), is_causal=True)
    return x + functional.linear(found.transpose(1, 2).reshape(batch, places, size), outer.T, outer_bias)


def block(x, scale, offset, w1, b1, w2, b2):
    y = functional.layer_norm(x, scale.shape, scale, offset, LAYER_NORM_EPSILON)
    return x + torch.addmm(b2, functional.gelu(torch.addmm(b1, y, w1), approximate="tanh"), w2)


NETS = {"linear": linear, "mlp": mlp, "lenet": lenet, "separable": separable, "attention": attention, "block": block}


def net_of(workload: Workload, nets: dict):
    """The net's function; attention's knows its number of heads."""
    return functools.partial(attention, heads=workload.sizes[2]) if workload.net == "attention" else nets[workload.net]


def loss_of(workload: Workload, prediction, y):
    if workload.loss == "squares":
        return functional.mse_loss(prediction, y)
    if workload.loss == "sigmoid":
        return functional.binary_cross_entropy_with_logits(prediction, y)
    return functional.cross_entropy(prediction, y)


# ---- recurrent nets are modules, which are a good deal faster than the same written out

def recurrent_net(workload: Workload, initial: list[np.ndarray]):
    """(network, the weights that are trained) of an `lstm` or `gru`."""
    *initial, w, b = initial
    _, inputs, units, _ = workload.sizes
    if workload.net == "lstm":      # PyTorch has a second bias, which stays zero, and the gates i, f, j, o
        net = torch.nn.LSTM(inputs, units, 2, batch_first=True)
        order = np.concatenate([np.arange(units) + units * g for g in (0, 2, 1, 3)])
        layers = [(kernel[:-units, order], kernel[-units:, order], bias[order], bias * 0)
                  for kernel, bias in (initial[:2], initial[2:])]
    else:
        net = torch.nn.GRU(inputs, units, batch_first=True)
        layers = [initial]
    with torch.no_grad():
        for layer, (of_input, of_state, input_bias, state_bias) in enumerate(layers):
            values = {"weight_ih": of_input.T, "weight_hh": of_state.T, "bias_ih": input_bias, "bias_hh": state_bias}
            for name, value in values.items():
                getattr(net, f"{name}_l{layer}").copy_(torch.from_numpy(np.ascontiguousarray(value)))
            getattr(net, f"bias_hh_l{layer}").requires_grad_(workload.net == "gru")
    w, b = parameters([w, b])

    def logits(x, *_):
        return torch.addmm(b, net(x)[0][:, -1], w)

    return logits, [*(p for p in net.parameters() if p.requires_grad), w, b]


def train(workload: Workload, initial: list[np.ndarray]):
    """The usual training step."""
    if workload.net in ("lstm", "gru"):
        net, weights = recurrent_net(workload, initial)
    else:
        net, weights = net_of(workload, NETS), parameters(initial)
    if workload.optimizer == "adam":
        optimizer = torch.optim.Adam(weights, lr=ADAM_RATE, betas=(ADAM_BETA1, ADAM_BETA2), eps=ADAM_EPSILON, fused=True)
    else:
        momentum = MOMENTUM if workload.optimizer == "momentum" else 0
        optimizer = torch.optim.SGD(weights, lr=SGD_RATE, momentum=momentum, fused=True)

    def step(x, y):
        loss = loss_of(workload, net(torch.from_numpy(x), *weights), torch.from_numpy(y))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def inference(function, weights: list[np.ndarray]):
    """Calls `function(*feeds, *weights)` with gradients switched off."""
    weights = [torch.from_numpy(weight) for weight in weights]

    def call(*arrays):
        with torch.inference_mode():
            return function(*(torch.from_numpy(array) for array in arrays), *weights).numpy()

    return call


def infer(workload: Workload, weights: list[np.ndarray]):
    if workload.net in ("lstm", "gru"):
        return inference(recurrent_net(workload, weights)[0], [])
    return inference(net_of(workload, NETS), weights)


# ---- single operations: (*feeds, *weights)

def gelu_chain(x, a, b, c):
    return functional.gelu(x * a + b, approximate="tanh") * c + x


def dense_gelu(x, w, b):
    return functional.gelu(torch.addmm(b, x, w), approximate="tanh")


def softmax(x):
    return torch.softmax(x, 1)


def gelu_gradients(x, *scalars):
    inputs = [x.requires_grad_(), *scalars]
    return torch.autograd.grad(gelu_chain(*inputs).mean(), inputs)


def gelu_grad(workload: Workload, weights: list[np.ndarray], function=gelu_gradients):
    scalars = parameters(weights)
    return lambda x: [gradient.numpy() for gradient in function(torch.from_numpy(x), *scalars)]


def dot(workload: Workload, weights: list[np.ndarray]):
    def call(a, b):
        with torch.inference_mode():
            return torch.dot(torch.from_numpy(a), torch.from_numpy(b)).item()

    return call


def operations() -> dict:
    """Kind -> function, made late because PyTorch is."""
    return {"gelu": gelu_chain, "dense_gelu": dense_gelu, "softmax": softmax, "product": torch.mm}


def operation(workload: Workload, weights: list[np.ndarray]):
    return inference(operations()[workload.kind], weights)


BUILDERS = {
    **{f"{net}_train": train for net in (*NETS, "lstm", "gru")},
    **{f"{net}_infer": infer for net in (*NETS, "lstm", "gru")},
    **dict.fromkeys(("gelu", "dense_gelu", "softmax", "product"), operation),
    "gelu_grad": gelu_grad,
    "dot": dot,
}
