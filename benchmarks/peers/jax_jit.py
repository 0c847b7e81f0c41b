"""JAX: the whole step under `jit`, old weights donated to it, results awaited."""
from __future__ import annotations

import functools

import numpy as np

from benchmarks.workloads import (
    ADAM_BETA1,
    ADAM_BETA2,
    ADAM_EPSILON,
    ADAM_RATE,
    LAYER_NORM_EPSILON,
    LOOP_STEPS,
    MOMENTUM,
    SGD_RATE,
    Workload,
)

LABELS = np.int32       # its own integer
jax = jnp = None


def start(threads: int) -> None:
    # XLA takes the size of its pool from NPROC, which the runner sets; it has no other setting for it.
    global jax, jnp
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_platforms", "cpu")
    # Every step is awaited, so handing it to another thread first would only add that thread's wake-up.
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def version() -> str:
    return f"JAX {jax.__version__}"


# ---- nets: (weights, x) to the prediction

def mlp(weights, x):
    """A linear model as well: it has no hidden layer."""
    *hidden, (w, b) = zip(weights[::2], weights[1::2], strict=True)
    for matrix, bias in hidden:
        x = jax.nn.relu(x @ matrix + bias)
    return x @ w + b


def lenet(weights, x):
    f1, b1, f2, b2, w3, b3, w4, b4 = weights
    for kernel, bias in ((f1, b1), (f2, b2)):
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID") + bias[:, None, None]
        x = jax.nn.relu(jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID"))
    return jax.nn.relu(x.reshape(len(x), -1) @ w3 + b3) @ w4 + b4


def separable(weights, x):
    first, bias, *parts, w, b = weights
    x = jax.nn.relu(jax.lax.conv_general_dilated(x, first, (2, 2), "VALID") + bias[:, None, None])
    for n in range(0, len(parts), 3):
        depthwise, pointwise, bias = parts[n : n + 3]
        stride, padding = (2, "VALID") if n == 3 else (1, "SAME")
        x = jax.lax.conv_general_dilated(x, depthwise, (stride, stride), padding, feature_group_count=len(depthwise))
        x = jax.nn.relu(jax.lax.conv_general_dilated(x, pointwise, (1, 1), "VALID") + bias[:, None, None])
    return x.mean((2, 3)) @ w + b


def lstm(weights, x):
    k1, b1, k2, b2, w, b = weights
    rows = x.swapaxes(0, 1)
    for kernel, bias in ((k1, b1), (k2, b2)):
        units = bias.shape[0] // 4
        state = kernel[-units:]

        def step(carried, row, state=state):
            h, c = carried
            i, j, f, o = jnp.split(row + h @ state, 4, 1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(j)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h
        start = jnp.zeros((x.shape[0], units))
        rows = jax.lax.scan(step, (start, start), rows @ kernel[:-units] + bias)[1]
    return rows[-1] @ w + b


def gru(weights, x):
    of_input, of_state, input_bias, state_bias, w, b = weights

    def step(h, row):
        r, u, n = jnp.split(row, 3, 1)
        state_r, state_u, state_n = jnp.split(h @ of_state + state_bias, 3, 1)
        u = jax.nn.sigmoid(u + state_u)
        return (1 - u) * jnp.tanh(n + jax.nn.sigmoid(r + state_r) * state_n) + u * h, None

    rows = x.swapaxes(0, 1) @ of_input + input_bias
    return jax.lax.scan(step, jnp.zeros((x.shape[0], of_state.shape[0])), rows)[0] @ w + b


def attention(weights, x, heads: int):
    inner, bias, outer, outer_bias = weights
    batch, places, size = x.shape
    parts = (x @ inner + bias).reshape(batch, places, 3, heads, size // heads)
    found = jax.nn.dot_product_attention(parts[:, :, 0], parts[:, :, 1], parts[:, :, 2], is_causal=True)
    return x + found.reshape(batch, places, size) @ outer + outer_bias


def block(weights, x):
    scale, offset, w1, b1, w2, b2 = weights
    y = jax.nn.standardize(x, epsilon=LAYER_NORM_EPSILON) * scale + offset
    return x + jax.nn.gelu(y @ w1 + b1, approximate=True) @ w2 + b2


NETS = {"linear": mlp, "mlp": mlp, "lenet": lenet, "separable": separable, "lstm": lstm, "gru": gru, "attention": attention,
        "block": block}


def net_of(workload: Workload):
    return functools.partial(attention, heads=workload.sizes[2]) if workload.net == "attention" else NETS[workload.net]


def loss_of(workload: Workload, prediction, y):
    if workload.loss == "squares":
        return jnp.mean(jnp.square(prediction - y))
    if workload.loss == "sigmoid":
        return jnp.mean(jnp.maximum(prediction, 0) - prediction * y + jnp.log1p(jnp.exp(-jnp.abs(prediction))))
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(prediction), y[:, None], axis=1))


# ---- updates: (weights, gradients, state) to the new weights and state

def sgd(weights, gradients, state):
    return [w - SGD_RATE * g for w, g in zip(weights, gradients, strict=True)], state


def momentum(weights, gradients, state):
    state = [MOMENTUM * v + g for v, g in zip(state, gradients, strict=True)]
    return [w - SGD_RATE * v for w, v in zip(weights, state, strict=True)], state


def adam(weights, gradients, state):
    count, means, squares = state
    count = count + 1
    rate = ADAM_RATE * jnp.sqrt(1 - ADAM_BETA2**count) / (1 - ADAM_BETA1**count)
    means = [ADAM_BETA1 * m + (1 - ADAM_BETA1) * g for m, g in zip(means, gradients, strict=True)]
    squares = [ADAM_BETA2 * s + (1 - ADAM_BETA2) * g * g for s, g in zip(squares, gradients, strict=True)]
    weights = [w - rate * m / (jnp.sqrt(s) + ADAM_EPSILON) for w, m, s in zip(weights, means, squares, strict=True)]
    return weights, (count, means, squares)


UPDATES = {"sgd": sgd, "momentum": momentum, "adam": adam}


def train(workload: Workload, initial: list[np.ndarray]):
    """A step that keeps weights and the optimizer's state on JAX's side."""
    weights = [jnp.asarray(weight).copy() for weight in initial]       # donated, so they must not be the caller's

    def zeros():
        return [jnp.zeros(weight.shape) for weight in initial]

    state = (jnp.zeros(()), zeros(), zeros()) if workload.optimizer == "adam" else zeros()
    net, update = net_of(workload), UPDATES[workload.optimizer]

    def whole(weights, state, x, y):
        loss, gradients = jax.value_and_grad(lambda weights: loss_of(workload, net(weights, x), y))(weights)
        return loss, *update(weights, gradients, state)

    compiled = jax.jit(whole, donate_argnums=(0, 1))

    def step(x, y):
        nonlocal weights, state
        loss, weights, state = compiled(weights, state, x, y)
        return float(loss)

    return step


def infer(workload: Workload, weights: list[np.ndarray]):
    compiled = jax.jit(net_of(workload))
    weights = [jnp.asarray(weight) for weight in weights]
    return lambda x: np.asarray(compiled(weights, x))


def operation(function):
    """A builder of `function(*weights, *feeds)`."""
    def build(workload: Workload, weights: list[np.ndarray]):
        compiled = jax.jit(function)
        kept = [jnp.asarray(weight) for weight in weights]

        def call(*arrays):
            result = compiled(*kept, *arrays)
            return [np.asarray(part) for part in result] if isinstance(result, tuple) else np.asarray(result)

        return call

    return build


def gelu(a, b, c, x):
    return jax.nn.gelu(x * a + b, approximate=True) * c + x


def gelu_grad(a, b, c, x):
    return jax.grad(lambda x, a, b, c: gelu(a, b, c, x).mean(), (0, 1, 2, 3))(x, a, b, c)


BUILDERS = {
    **{f"{net}_train": train for net in NETS},
    **{f"{net}_infer": infer for net in NETS},
    "gelu": operation(gelu),
    "gelu_grad": operation(gelu_grad),
    "dense_gelu": operation(lambda w, b, x: jax.nn.gelu(x @ w + b, approximate=True)),
    "softmax": operation(lambda x: jax.nn.softmax(x, axis=1)),
    "dot": operation(lambda a, b: jnp.dot(a, b)),
    "product": operation(lambda a, b: jnp.matmul(a, b)),
    "loop": operation(lambda x: jax.lax.fori_loop(0, LOOP_STEPS, lambda _, x: 2.9 * x * (1 - x), x)),
}
