"""Gradients against central differences in float64, on the interpreter: no compiler is involved."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphc.ir.container import detached
from graphc.ir.graph import Graph
from graphc.ir.interpreter import interpret
from graphc.ir.node import Node, as_node, input_node
from graphc.ir.types import TensorType, as_dtype
from graphc.ops.elementwise import add, multiply
from graphc.ops.grad import gradients
from graphc.ops.reduce import reduce_sum
from graphc.passes.differentiate import differentiate

STEP = 2e-5  # near the cube root of float64's eps, where rounding and curvature err equally little
TOLERANCE = 1e-6


def central_differences(function: Callable[..., float], values: Sequence[np.ndarray], k: int,
                        step: float = STEP) -> np.ndarray:
    """The gradient of a number `function(*values)` by values[k], by differences of `step` in each element."""
    values = [np.array(v) for v in values]
    found = np.zeros(values[k].shape)
    for at in np.ndindex(values[k].shape):
        ends = []
        for sign in (1, -1):
            moved = [v.copy() if n == k else v for n, v in enumerate(values)]
            moved[k][at] += sign * step
            ends.append(float(function(*moved)))
        found[at] = (ends[0] - ends[1]) / (2 * step)
    return found


def traced(function: Callable[..., Node | Sequence[Node]], values: Sequence[np.ndarray], name: str = "f") -> Graph:
    """The graph of `function` of tensors like `values`, gradients in it worked out."""
    with detached():
        inputs = tuple(input_node(f"x{k}", TensorType(as_dtype(v.dtype), v.shape)) for k, v in enumerate(values))
        found = function(*inputs)
    return differentiate(Graph(name, inputs, (found,) if isinstance(found, Node) else tuple(found)))


def check_gradients(function: Callable[..., Node], *values, order: int = 2, seed: int = 0, step: float = STEP,
                    tolerance: float = TOLERANCE) -> None:
    """Raise AssertionError unless the gradients of `function` at `values` equal central differences, up to `order`.

    function   takes a tensor for each of `values` and gives one tensor.
    values     arrays; gradients are taken by those of floats, which become float64. None of them should be at a kink.
    tolerance  of each element's error, relative to the largest component, or to 1 if all are smaller.
    """
    arrays = [np.asarray(v, np.float64) if np.asarray(v).dtype.kind == "f" else np.asarray(v) for v in values]

    def weighted(*tensors):
        """One number that all results enter, with random weights: so one gradient checks them all."""
        y = function(*tensors)
        return _dot(y, seed)
    first = traced(weighted, arrays)
    wanted = [k for k, a in enumerate(arrays) if a.dtype.kind == "f"]

    def slopes(*tensors):
        found = gradients(weighted(*tensors), [tensors[k] for k in wanted])
        return [as_node(np.zeros(arrays[k].shape)) if g is None else g for k, g in zip(wanted, found, strict=True)]
    analytic = interpret(traced(slopes, arrays), arrays)
    for k, got in zip(wanted, analytic, strict=True):
        numeric = central_differences(lambda *v: interpret(first, v)[0], arrays, k, step)
        assert got.shape == arrays[k].shape, f"input {k} has shape {arrays[k].shape}, its gradient {got.shape}"
        scale = max(np.max(np.abs(numeric), initial=0.0), 1.0)
        error = np.max(np.abs(got - numeric), initial=0.0)
        assert error <= tolerance * scale, f"input {k}: off by {error:.2e} of {scale:.2e}:\n{got}\n{numeric}"
    if order > 1:
        def bent(*tensors):
            parts = [_dot(s, k) for k, s in enumerate(slopes(*tensors))]
            total = parts[0]
            for part in parts[1:]:
                total = add(total, part)
            return total
        check_gradients(bent, *arrays, order=order - 1, seed=seed + 1, step=step, tolerance=tolerance)


def _dot(y: Node, seed: int) -> Node:
    """The sum of y's elements, each with a random weight near 1."""
    weights = np.random.default_rng(seed).uniform(0.5, 1.5, tuple(int(d) for d in y.type.shape))
    return reduce_sum(multiply(y, as_node(weights, y.type.dtype)), axes=tuple(range(y.type.rank)))
