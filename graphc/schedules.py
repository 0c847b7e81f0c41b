"""Learning rates that change with the number of steps taken, under TensorFlow 1's names: tensors for an optimizer."""
from __future__ import annotations

import math

from graphc.errors import ArgumentError, report
from graphc.functions.math import cast, ceil, cos, exp, floor, maximum, minimum, where
from graphc.functions.math import pow as power
from graphc.ir.node import Node, as_node, is_tensor
from graphc.ir.types import float32


def _start(learning_rate, global_step, what: str) -> tuple[Node, Node]:
    """(the learning rate, the step) as floats of one dtype."""
    if global_step is None:
        raise report(ArgumentError, f"{what}: global_step is needed")
    rate = as_node(learning_rate, None if is_tensor(learning_rate) else float32)
    return rate, cast(as_node(global_step), rate.dtype)


def _periods(step: Node, decay_steps, staircase: bool):
    """step / decay_steps, rounded down for a staircase."""
    steps = cast(as_node(decay_steps), step.dtype) if is_tensor(decay_steps) else as_node(float(decay_steps), step.dtype)
    return floor(step / steps) if staircase else step / steps


def exponential_decay(learning_rate, global_step, decay_steps, decay_rate, staircase: bool = False, name=None) -> Node:
    """learning_rate * decay_rate ** (global_step / decay_steps)."""
    rate, step = _start(learning_rate, global_step, "exponential_decay")
    return rate * power(as_node(decay_rate, rate.dtype), _periods(step, decay_steps, staircase))


def natural_exp_decay(learning_rate, global_step, decay_steps, decay_rate, staircase: bool = False, name=None) -> Node:
    """learning_rate * exp(-decay_rate * global_step / decay_steps)."""
    rate, step = _start(learning_rate, global_step, "natural_exp_decay")
    return rate * exp(-(_periods(step, decay_steps, staircase) * decay_rate))


def inverse_time_decay(learning_rate, global_step, decay_steps, decay_rate, staircase: bool = False, name=None) -> Node:
    """learning_rate / (1 + decay_rate * global_step / decay_steps)."""
    rate, step = _start(learning_rate, global_step, "inverse_time_decay")
    return rate / (_periods(step, decay_steps, staircase) * decay_rate + 1)


def polynomial_decay(learning_rate, global_step, decay_steps, end_learning_rate=0.0001, power: float = 1.0,
                     cycle: bool = False, name=None) -> Node:
    """From learning_rate to end_learning_rate over decay_steps, as (1 - progress) ** power; with `cycle` again and again, each
    time over a longer span.
    """
    rate, step = _start(learning_rate, global_step, "polynomial_decay")
    steps = as_node(float(decay_steps), rate.dtype)
    if cycle:
        steps = steps * maximum(ceil(step / steps), as_node(1.0, rate.dtype))
    else:
        step = minimum(step, steps)
    return (rate - end_learning_rate) * (1 - step / steps) ** power + end_learning_rate


def cosine_decay(learning_rate, global_step, decay_steps, alpha=0.0, name=None) -> Node:
    """From learning_rate down to alpha * learning_rate along half a cosine over decay_steps (Loshchilov and Hutter, 2016)."""
    rate, step = _start(learning_rate, global_step, "cosine_decay")
    progress = minimum(step / float(decay_steps), as_node(1.0, rate.dtype))
    return rate * ((1 - alpha) * (0.5 * (1 + cos(progress * math.pi))) + alpha)


def piecewise_constant(x, boundaries, values, name=None) -> Node:
    """values[0] while x <= boundaries[0], then values[1] while x <= boundaries[1], and so on."""
    if len(values) != len(boundaries) + 1:
        raise report(ArgumentError, f"piecewise_constant: {len(boundaries)} boundaries need {len(boundaries) + 1} values, "
                                    f"not {len(values)}")
    x = as_node(x)
    found = as_node(values[-1])
    for boundary, value in zip(reversed(list(boundaries)), reversed(list(values)[:-1]), strict=True):
        found = where(x <= boundary, as_node(value, found.dtype), found)
    return found


piecewise_constant_decay = piecewise_constant
