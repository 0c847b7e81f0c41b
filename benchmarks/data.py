"""The numbers that workloads run on: initial weights, the arrays that each call is given, and what results are compared by.

Needs NumPy only.
"""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.workloads import GELU_SCALARS, TOLERANCE, WORKLOADS, Workload

SAMPLES = 16            # of an array, by which results of two peers are compared
ZEROS, ONES = 0, -1     # instead of a fan in
DEEP_GAIN = 6           # that many times the variance, where else nothing of an input would be left after so many layers


def shapes(workload: Workload) -> list[tuple[tuple[int, ...], float]]:
    """Each weight's shape and fan in. Matrices are [in, out], filters [out, in, height, width] as PyTorch has them.

    A workload's `sizes` are the layers' widths (linear, mlp); m, n, k (product, dense_gelu); image side, channels of the
    two convolutions, hidden units (lenet); image side, channels (separable); steps, inputs, units, classes (lstm, gru);
    places, size, heads (attention); size, hidden units (block); else the shape of a feed.
    """
    sizes, net = workload.sizes, workload.net
    if net in ("linear", "mlp"):
        gain = DEEP_GAIN if len(sizes) > 5 else 1
        return [part for m, n in zip(sizes, sizes[1:], strict=False) for part in (((m, n), m / gain), ((n,), m))]
    if net == "dense_gelu":
        _, n, k = sizes
        return [((k, n), k), ((n,), k)]
    if net == "lenet":
        side, one, two, hidden = sizes
        flat = two * (((side - 4) // 2 - 4) // 2) ** 2
        return [((one, 1, 5, 5), 25), ((one,), ZEROS), ((two, one, 5, 5), 25 * one), ((two,), ZEROS),
                ((flat, hidden), flat), ((hidden,), ZEROS), ((hidden, 10), hidden), ((10,), ZEROS)]
    if net == "separable":
        _, channels, first, *rest = sizes
        found = [((first, channels, 3, 3), 9 * channels / DEEP_GAIN), ((first,), ZEROS)]
        for into, out in zip([first, *rest], rest, strict=False):
            found += [((into, 1, 3, 3), 9 / DEEP_GAIN), ((out, into, 1, 1), into / DEEP_GAIN), ((out,), ZEROS)]
        return [*found, ((sizes[-1], 10), sizes[-1]), ((10,), ZEROS)]
    if net == "lstm":       # gates in the order i, j, f, o, of [input, state]
        _, inputs, units, classes = sizes
        return [((inputs + units, 4 * units), inputs + units), ((4 * units,), ZEROS), ((2 * units, 4 * units), 2 * units),
                ((4 * units,), ZEROS), ((units, classes), units), ((classes,), ZEROS)]
    if net == "gru":        # gates in the order reset, update, new; two biases, of the input and of the state
        _, inputs, units, classes = sizes
        return [((inputs, 3 * units), inputs), ((units, 3 * units), units), ((3 * units,), units), ((3 * units,), units),
                ((units, classes), units), ((classes,), ZEROS)]
    if net == "attention":  # query, key and value side by side, the heads within each
        _, size, _ = sizes
        return [((size, 3 * size), size), ((3 * size,), ZEROS), ((size, size), size), ((size,), ZEROS)]
    if net == "block":
        size, hidden = sizes
        return [((size,), ONES), ((size,), ZEROS), ((size, hidden), size), ((hidden,), ZEROS), ((hidden, size), hidden),
                ((size,), ZEROS)]
    return []


def initial_weights(workload: Workload) -> list[np.ndarray]:
    """Weights layer by layer, uniform in ±1/sqrt(fan in), zeros or ones; the scalars of `gelu` and `gelu_grad`."""
    if workload.net in ("gelu", "gelu_grad"):
        return [np.array(value, np.float32) for value in GELU_SCALARS]
    generator = np.random.default_rng(1)

    def weight(shape: tuple[int, ...], fan_in: float) -> np.ndarray:
        if fan_in <= 0:
            return aligned(np.full(shape, -fan_in, np.float32))
        bound = 1 / np.sqrt(fan_in)
        return aligned(generator.uniform(-bound, bound, shape).astype(np.float32))

    return [weight(*part) for part in shapes(workload)]


def feeds(workload: Workload, labels: type = np.int32) -> list[tuple[np.ndarray, ...]]:
    """The argument tuples that calls are given in turn; class labels have the integer type that the peer prefers."""
    generator = np.random.default_rng(2)
    return [tuple(aligned(array) for array in _feed(workload, generator, labels)) for _ in range(workload.feed_sets)]


def feed_types(workload: Workload) -> list[tuple[str, tuple[int, ...]]]:
    """(dtype, shape) of each array that a call is given; the first axis is the batch where there is one."""
    sizes, batch, net = workload.sizes, workload.batch, workload.net
    if net == "loop":
        return [("float32", ())]
    if net == "dot":
        return [("float32", sizes)] * 2
    if net == "product":
        m, n, k = sizes
        return [("float32", (m, k)), ("float32", (k, n))]
    if net == "separable":
        example = (sizes[1], sizes[0], sizes[0])
    else:
        example = {"linear": sizes[:1], "mlp": sizes[:1], "lenet": (1, sizes[0], sizes[0]), "lstm": sizes[:2], "gru": sizes[:2],
                   "block": sizes[:1], "attention": sizes[:2], "dense_gelu": sizes[2:], "softmax": sizes[1:]}.get(net, ())
    x = ("float32", (batch, *example))
    if not workload.loss:
        return [x]
    if workload.loss == "classes":
        return [x, ("int32", (batch,))]
    return [x, ("float32", (batch, 1)) if net == "linear" else x]


def _feed(workload: Workload, generator: np.random.Generator, labels: type) -> tuple[np.ndarray, ...]:
    if workload.net == "loop":
        return (np.array(generator.uniform(0.1, 0.9), np.float32),)
    types = feed_types(workload)

    def normal(part: int) -> np.ndarray:
        return generator.standard_normal(types[part][1], dtype=np.float32)

    # Inputs around zero: with all-positive ones the first Adam steps, which are +-rate in every weight, shift all
    # hidden units at once, and where a system puts Adam's epsilon changes the loss of step 20 by 0.3 %.
    x = normal(0)
    if workload.net == "linear":
        slope = np.linspace(-1, 1, x.shape[1], dtype=np.float32)[:, None]
        if workload.loss == "squares":
            return x, x @ slope + 0.5 + np.float32(0.1) * normal(1)
        return x, (x @ slope + normal(1) > 0).astype(np.float32)
    if workload.loss == "classes":
        # Labels are drawn in one type and then cast: another type would draw other labels.
        classes = shapes(workload)[-1][0][0]
        return x, generator.integers(0, classes, workload.batch).astype(labels)
    return (x, normal(1)) if len(types) > 1 else (x,)


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


def fingerprint(results) -> list[list[float]]:
    """A few numbers of each result, by which those of two peers are compared: its size (root mean square) and samples."""
    found = []
    for result in results if isinstance(results, (list, tuple)) else [results]:
        flat = np.asarray(result, np.float64).ravel()
        samples = flat[np.linspace(0, flat.size - 1, SAMPLES).astype(int)] if flat.size > 1 else flat
        found.append([float(np.sqrt(np.mean(flat * flat))), *samples.tolist()])
    return found


def disagreement(values: dict[str, list[list[float]]]) -> str | None:
    """Which peers' fingerprints differ from the median of all by more than the tolerance, in words."""
    names = list(values)
    if len({tuple(len(part) for part in value) for value in values.values()}) > 1:
        return "results have different shapes: " + ", ".join(
            f"{name} {'+'.join(str(len(part)) for part in values[name])}" for name in names)
    for part, rows in enumerate(zip(*values.values(), strict=True)):
        table = np.array(rows)
        if not np.isfinite(table).all():
            return "not finite: " + ", ".join(n for n, row in zip(names, table, strict=True) if not np.isfinite(row).all())
        # With two peers the median lies between them, so both are named, which is right: nobody knows who is wrong.
        median = np.median(table, axis=0)
        scale = max(abs(median[0]), 1e-30)      # the root mean square: single samples may be near zero
        worst = np.abs(table - median).max(axis=1) / scale
        spread = (table.max(axis=0) - table.min(axis=0)).max() / scale
        if spread > TOLERANCE:
            return f"result {part}, spread of {spread:.1e}: " + ", ".join(
                f"{name} {row[1]:.6g} (off by {off:.1e})" for name, row, off in zip(names, table, worst, strict=True))
    return None
