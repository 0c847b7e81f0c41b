"""What is measured: for each workload its sizes, its initial weights and the arrays that each call is given.

Everything a peer needs to build a workload is here, so that all peers compute the same numbers.  Needs NumPy only.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

FEED_SETS = 8           # different batches, cycled
CHECK_STEPS = 20        # the losses of all peers must agree after so many steps
TOLERANCE = 1e-3        # relative

SGD_RATE = 0.01
MOMENTUM = 0.5
ADAM_RATE, ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON = 1e-3, 0.9, 0.999, 1e-8
GELU_SCALARS = (1.1, 0.1, 0.9)      # a, b, c


@dataclass(frozen=True)
class Workload:
    """One row of the table.  Peers choose the code to build by `kind`, and take sizes from the other fields."""

    name: str
    kind: str
    doc: str
    sizes: tuple[int, ...]              # layer widths; for a product m, n, k; else the shape of a feed
    batch: int = 0                      # rows of a batch
    threads: int | None = None          # a fixed number instead of the one that the user asked for
    flops: int = 0                      # of one call, an addition and a multiplication counting one each
    bytes: int = 0                      # that one call has to read and write at least, where that is what limits it

    @property
    def trains(self) -> bool:
        """Whether a call changes weights and returns a loss."""
        return self.kind.endswith("_train")

    @property
    def feed_sets(self) -> int:
        return FEED_SETS if self.bytes < 2**24 else 1       # eight of the largest feed would be half a gigabyte


def _mlp(name: str, hidden: int, batch: int, trains: bool) -> Workload:
    layers = (784, hidden, 10)
    first, second = 2 * batch * 784 * hidden, 2 * batch * hidden * 10
    if trains:      # backwards each product comes twice more, but nobody wants the gradient of the images
        doc = f"784-{hidden}(relu)-10, sparse softmax cross entropy, Adam, batch {batch}"
        return Workload(name, "mlp_train", doc, layers, batch, flops=2 * first + 3 * second)
    doc = f"784-{hidden}(relu)-10, its logits, batch {batch}"
    return Workload(name, "mlp_infer", doc, layers, batch, flops=first + second)


LENET = ((10, 1, 5, 5), (20, 10, 5, 5), (320, 50), (50, 10))  # filters as PyTorch lays them out; matrices [in, out]
LSTM_STEPS = 50


def _lenet(name: str, batch: int, trains: bool) -> Workload:
    flops = 2 * batch * (24 * 24 * 10 * 25 + 8 * 8 * 20 * 250 + 320 * 50 + 500)
    what = "log-softmax and NLL, SGD with momentum" if trains else "its logits"
    return Workload(name, "lenet_train" if trains else "lenet_infer",
                    f"1x28x28: conv 5x5 to 10, pool, relu, conv 5x5 to 20, pool, relu, 320-50 relu, 50-10, {what}, b{batch}",
                    (1, 28, 28), batch, flops=3 * flops if trains else flops)


def _lstm(name: str, batch: int, trains: bool) -> Workload:
    flops = LSTM_STEPS * 2 * batch * 4 * 128 * (64 + 128 + 128 + 128)
    what = "cross entropy, Adam" if trains else "its logits"
    return Workload(name, "lstm_train" if trains else "lstm_infer",
                    f"two LSTM layers, 64 inputs, 128 units, {LSTM_STEPS} steps, last output to 10 classes, {what}, b{batch}",
                    (64, 128, 128, 10), batch, flops=3 * flops if trains else flops)


def _product(name: str, m: int, n: int, k: int) -> Workload:
    return Workload(name, "product", f"({m}x{k}) times ({k}x{n}), one thread", (m, n, k), m, threads=1,
                    flops=2 * m * n * k)


WORKLOADS = {workload.name: workload for workload in (
    Workload("linreg_train", "linreg_train", "256x13 inputs, linear model, mean squared error, SGD", (13, 1), 256,
             flops=4 * 256 * 13),
    Workload("logreg_train", "logreg_train", "128x30 inputs, sigmoid cross entropy from logits, SGD", (30, 1), 128,
             flops=4 * 128 * 30),
    _mlp("mlp10_train", 10, 32, trains=True),
    _mlp("mlp128_train_b32", 128, 32, trains=True),
    _mlp("mlp128_train_b512", 128, 512, trains=True),
    _mlp("mlp128_infer_b1", 128, 1, trains=False),
    _mlp("mlp128_infer_b512", 128, 512, trains=False),
    Workload("gelu_fwd", "gelu", "gelu_tanh(x*a+b)*c + x over 16M floats, scalars a b c", (2**24,), 2**24,
             bytes=2 * 4 * 2**24),
    Workload("small_call", "dot", "two feeds of 4 floats, their inner product", (4,), 4, flops=8),
    Workload("new_batch", "mlp_infer", "784-128(relu)-10, its logits: first call with a batch size never seen",
             (784, 128, 10), 32),
    _lenet("lenet_train_b64", 64, trains=True),
    _lenet("lenet_infer_b1", 1, trains=False),
    _lenet("lenet_infer_b64", 64, trains=False),
    _lstm("lstm_train", 32, trains=True),
    _lstm("lstm_infer_b1", 1, trains=False),
    # Rates above 3.57 make the recurrence chaotic: two right answers would have nothing in common.
    Workload("loop_100k", "loop", "100,000 iterations of x = 2.9 x (1 - x) in a compiled loop", (1,), 1, threads=1),
    _product("product_32x128x784", 32, 128, 784),
    _product("product_512", 512, 512, 512),
)}


def initial_weights(workload: Workload) -> list[np.ndarray]:
    """Weights and biases layer by layer, uniform in ±1/sqrt(fan in); the scalars of `gelu_fwd`; else none."""
    if workload.kind == "gelu":
        return [np.array(value, np.float32) for value in GELU_SCALARS]
    if workload.kind in ("product", "dot", "loop"):
        return []
    generator = np.random.default_rng(1)
    weights = []
    if workload.kind.startswith("lenet"):
        for shape in LENET:
            bound = 1 / np.sqrt(np.prod(shape[1:]) if len(shape) > 2 else shape[0])
            weights.append(aligned(generator.uniform(-bound, bound, shape).astype(np.float32)))
            weights.append(np.zeros(shape[0] if len(shape) > 2 else shape[1], np.float32))
        return weights
    if workload.kind.startswith("lstm"):
        inputs, units, _, classes = workload.sizes
        for fan_in, width in ((inputs + units, 4 * units), (2 * units, 4 * units), (units, classes)):
            bound = 1 / np.sqrt(fan_in)  # gates in the order i, j, f, o
            weights.append(aligned(generator.uniform(-bound, bound, (fan_in, width)).astype(np.float32)))
            weights.append(np.zeros(width, np.float32))
        return weights
    for fan_in, width in zip(workload.sizes, workload.sizes[1:], strict=False):
        bound = 1 / np.sqrt(fan_in)
        weights.append(aligned(generator.uniform(-bound, bound, (fan_in, width)).astype(np.float32)))
        weights.append(aligned(generator.uniform(-bound, bound, (width,)).astype(np.float32)))
    return weights


def feeds(workload: Workload, labels: type = np.int32) -> list[tuple[np.ndarray, ...]]:
    """The argument tuples that calls are given in turn; class labels have the integer type that the peer prefers."""
    generator = np.random.default_rng(2)
    return [tuple(aligned(array) for array in _feed(workload, generator, labels)) for _ in range(workload.feed_sets)]


def _feed(workload: Workload, generator: np.random.Generator, labels: type) -> tuple[np.ndarray, ...]:
    sizes, batch = workload.sizes, workload.batch

    def normal(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape, dtype=np.float32)

    if workload.kind == "linreg_train":
        x = normal(batch, sizes[0])
        slope = np.linspace(-1, 1, sizes[0], dtype=np.float32)[:, None]
        return x, x @ slope + 0.5 + np.float32(0.1) * normal(batch, 1)
    if workload.kind == "logreg_train":
        x = normal(batch, sizes[0])
        slope = np.linspace(-1, 1, sizes[0], dtype=np.float32)[:, None]
        return x, (x @ slope + normal(batch, 1) > 0).astype(np.float32)
    if workload.kind == "mlp_train":
        # Inputs around zero: with all-positive ones the first Adam steps, which are +-rate in every weight, shift all
        # hidden units at once, and where a system puts Adam's epsilon changes the loss of step 20 by 0.3 %.
        # Labels are drawn in one type and then cast: another type would draw other labels.
        return normal(batch, sizes[0]), generator.integers(0, sizes[-1], batch).astype(labels)
    if workload.kind == "mlp_infer":
        return (normal(batch, sizes[0]),)
    if workload.kind.startswith("lenet"):
        x = normal(batch, *sizes)
        return (x, generator.integers(0, 10, batch).astype(labels)) if workload.trains else (x,)
    if workload.kind.startswith("lstm"):
        x = normal(batch, LSTM_STEPS, sizes[0])
        return (x, generator.integers(0, sizes[-1], batch).astype(labels)) if workload.trains else (x,)
    if workload.kind == "loop":
        return (np.array(generator.uniform(0.1, 0.9), np.float32),)
    if workload.kind == "gelu":
        return (normal(*sizes),)
    if workload.kind == "dot":
        return normal(*sizes), normal(*sizes)
    if workload.kind == "product":
        m, n, k = sizes
        return normal(m, k), normal(k, n)
    raise ValueError(f"workload {workload.name} has the unknown kind {workload.kind!r}")


def new_batch_feeds() -> Iterator[tuple[np.ndarray]]:
    """For `new_batch`: one input for each batch size from 2 to 400 but the usual one, all sizes in a random order."""
    workload = WORKLOADS["new_batch"]
    generator = np.random.default_rng(3)
    rows = aligned(generator.standard_normal((400, workload.sizes[0]), dtype=np.float32))
    for size in generator.permutation(np.arange(2, len(rows) + 1)):
        if size != workload.batch:
            yield (rows[:size],)


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy that starts on a cache line, which some peers need to use an array where it is."""
    space = np.empty(array.nbytes + 64, np.uint8)
    offset = -space.ctypes.data % 64
    copy = space[offset : offset + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def fingerprint(workload: Workload, result) -> list[float]:
    """A few numbers by which results of two peers are compared: a loss, or the size of an array and samples of it."""
    array = np.asarray(result, np.float64)
    if array.ndim == 0:
        return [float(array)]
    flat = array.ravel()
    samples = flat[np.linspace(0, flat.size - 1, 16).astype(int)]
    return [float(np.sqrt(np.mean(flat * flat))), *samples.tolist()]


def disagreement(values: dict[str, list[float]]) -> str | None:
    """Which peers' fingerprints differ from the median of all by more than the tolerance, in words."""
    names = list(values)
    if len({len(value) for value in values.values()}) > 1:
        return "results have different shapes: " + ", ".join(f"{name} {len(values[name])}" for name in names)
    table = np.array([values[name] for name in names])
    if not np.isfinite(table).all():
        return "not finite: " + ", ".join(n for n, row in zip(names, table, strict=True) if not np.isfinite(row).all())
    # With two peers the median lies between them, so both are named, which is right: nobody knows who is wrong.
    median = np.median(table, axis=0)
    scale = np.abs(median[0])           # the loss, or the root mean square: single samples may be near zero
    worst = np.abs(table - median).max(axis=1) / max(scale, 1e-30)
    spread = (table.max(axis=0) - table.min(axis=0)).max() / max(scale, 1e-30)
    if spread <= TOLERANCE:
        return None
    return f"spread of {spread:.1e}: " + ", ".join(
        f"{name} {row[0]:.6g} (off by {off:.1e})" for name, row, off in zip(names, table, worst, strict=True))
