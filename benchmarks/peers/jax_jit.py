"""JAX: the whole step under `jit`, old weights donated to it, results awaited."""
from __future__ import annotations

import numpy as np

from benchmarks.workloads import ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON, ADAM_RATE, MOMENTUM, SGD_RATE, Workload

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


def trainer(loss_of, initial: list[np.ndarray], update, state):
    """A step that keeps weights and the optimizer's state on JAX's side; `update` returns the new ones of both."""
    weights = [jnp.asarray(weight) for weight in initial]
    weights = [weight.copy() for weight in weights]     # donated, so they must not be the caller's

    def whole(weights, state, x, y):
        loss, gradients = jax.value_and_grad(loss_of)(weights, x, y)
        return loss, *update(weights, gradients, state)

    compiled = jax.jit(whole, donate_argnums=(0, 1))

    def step(x, y):
        nonlocal weights, state
        loss, weights, state = compiled(weights, state, x, y)
        return float(loss)

    return step


def linear_loss(weights, x, y):
    w, b = weights
    return jnp.mean(jnp.square(x @ w + b - y))


def logistic_loss(weights, x, y):
    w, b = weights
    z = x @ w + b
    return jnp.mean(jnp.maximum(z, 0) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z))))


def logits_of(weights, x):
    w1, b1, w2, b2 = weights
    return jax.nn.relu(x @ w1 + b1) @ w2 + b2


def mlp_loss(weights, x, y):
    log_probability = jax.nn.log_softmax(logits_of(weights, x))
    return -jnp.mean(jnp.take_along_axis(log_probability, y[:, None], axis=1))


def sgd(weights, gradients, state):
    return [w - SGD_RATE * g for w, g in zip(weights, gradients, strict=True)], state


def adam(weights, gradients, state):
    count, means, squares = state
    count = count + 1
    rate = ADAM_RATE * jnp.sqrt(1 - ADAM_BETA2**count) / (1 - ADAM_BETA1**count)
    means = [ADAM_BETA1 * m + (1 - ADAM_BETA1) * g for m, g in zip(means, gradients, strict=True)]
    squares = [ADAM_BETA2 * s + (1 - ADAM_BETA2) * g * g for s, g in zip(squares, gradients, strict=True)]
    weights = [w - rate * m / (jnp.sqrt(s) + ADAM_EPSILON) for w, m, s in zip(weights, means, squares, strict=True)]
    return weights, (count, means, squares)


def linreg(workload: Workload, initial: list[np.ndarray]):
    return trainer(linear_loss, initial, sgd, ())


def logreg(workload: Workload, initial: list[np.ndarray]):
    return trainer(logistic_loss, initial, sgd, ())


def mlp_train(workload: Workload, initial: list[np.ndarray]):
    def zeros():
        return [jnp.zeros(weight.shape) for weight in initial]

    return trainer(mlp_loss, initial, adam, (jnp.zeros(()), zeros(), zeros()))


def inference(function, *weights):
    compiled = jax.jit(function)
    weights = [jnp.asarray(weight) for weight in weights]
    return lambda *arrays: np.asarray(compiled(*weights, *arrays))


def mlp_infer(workload: Workload, weights: list[np.ndarray]):
    return inference(lambda w1, b1, w2, b2, x: logits_of((w1, b1, w2, b2), x), *weights)


def gelu(workload: Workload, weights: list[np.ndarray]):
    return inference(lambda a, b, c, x: jax.nn.gelu(x * a + b, approximate=True) * c + x, *weights)


def dot(workload: Workload, weights: list[np.ndarray]):
    return inference(jnp.dot)


def product(workload: Workload, weights: list[np.ndarray]):
    return inference(jnp.matmul)


def lenet_logits(weights, x):
    f1, b1, f2, b2, w3, b3, w4, b4 = weights
    for kernel, bias in ((f1, b1), (f2, b2)):
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID") + bias[:, None, None]
        x = jax.nn.relu(jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID"))
    return jax.nn.relu(x.reshape(-1, 320) @ w3 + b3) @ w4 + b4


def lstm_logits(weights, x):
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


def classified(logits):
    """The mean cross entropy of a net's logits."""
    def loss(weights, x, y):
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits(weights, x)), y[:, None], axis=1))
    return loss


def momentum(weights, gradients, state):
    state = [MOMENTUM * v + g for v, g in zip(state, gradients, strict=True)]
    return [w - SGD_RATE * v for w, v in zip(weights, state, strict=True)], state


def lenet_train(workload: Workload, initial: list[np.ndarray]):
    return trainer(classified(lenet_logits), initial, momentum, [jnp.zeros(weight.shape) for weight in initial])


def lenet_infer(workload: Workload, weights: list[np.ndarray]):
    return inference(lambda *values: lenet_logits(values[:-1], values[-1]), *weights)


def lstm_train(workload: Workload, initial: list[np.ndarray]):
    def zeros():
        return [jnp.zeros(weight.shape) for weight in initial]

    return trainer(classified(lstm_logits), initial, adam, (jnp.zeros(()), zeros(), zeros()))


def lstm_infer(workload: Workload, weights: list[np.ndarray]):
    return inference(lambda *values: lstm_logits(values[:-1], values[-1]), *weights)


def loop(workload: Workload, weights: list[np.ndarray]):
    return inference(lambda x: jax.lax.fori_loop(0, 100_000, lambda _, x: 2.9 * x * (1 - x), x))


BUILDERS = {
    "lenet_train": lenet_train,
    "lenet_infer": lenet_infer,
    "lstm_train": lstm_train,
    "lstm_infer": lstm_infer,
    "loop": loop,
    "linreg_train": linreg,
    "logreg_train": logreg,
    "mlp_train": mlp_train,
    "mlp_infer": mlp_infer,
    "gelu": gelu,
    "dot": dot,
    "product": product,
}
