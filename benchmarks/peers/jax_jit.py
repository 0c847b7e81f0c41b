"""JAX: the whole step under `jit`, old weights donated to it, results awaited."""
from __future__ import annotations

import numpy as np

from benchmarks.workloads import ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON, ADAM_RATE, SGD_RATE, Workload

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


BUILDERS = {
    "linreg_train": linreg,
    "logreg_train": logreg,
    "mlp_train": mlp_train,
    "mlp_infer": mlp_infer,
    "gelu": gelu,
    "dot": dot,
    "product": product,
}
