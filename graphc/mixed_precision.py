"""Training with float16 or bfloat16: variables that stay float32, and scaling of the loss.

Gradients that are smaller than the smallest float16 would vanish. So the loss is multiplied by a scale, and the gradients,
once they are float32, are divided by it; a step whose gradients are not all finite is left out. P. Micikevicius et al.,
Mixed Precision Training, 2018. Also reached as `graphc.train.experimental`.
"""
from __future__ import annotations

import math

import numpy as np

from graphc.control import group
from graphc.errors import ArgumentError, report
from graphc.functions.math import cast
from graphc.ir.container import get_default_graph
from graphc.ir.node import Node, as_node, is_tensor
from graphc.ir.types import float32, int64
from graphc.ops.compare import isfinite, logical_and, where
from graphc.ops.elementwise import maximum
from graphc.ops.reduce import reduce_all
from graphc.slices import IndexedSlices
from graphc.train import Optimizer
from graphc.variable import Variable, writes_only_if

# variables -------------------------------------------------------------------------------------------


def float32_variables(getter, name, shape=None, dtype=float32, initializer=None, regularizer=None, trainable=True, **others):
    """A custom getter: a trainable variable of float16 or bfloat16 is kept in float32 and read through a cast.

        with tf.variable_scope("net", dtype=tf.bfloat16, custom_getter=tf.mixed_precision.float32_variables):
            w = tf.get_variable("w", [784, 10])     # a bfloat16 tensor; the variable is float32

    Updates may then be smaller than the last place of a 16-bit number and still add up.
    """
    stored = dtype.arithmetic if trainable else dtype
    variable = getter(name, shape=shape, dtype=stored, initializer=initializer, regularizer=regularizer, trainable=trainable,
                      **others)
    return variable if stored is dtype else cast(variable, dtype)


# scales ----------------------------------------------------------------------------------------------


class LossScale:
    """Base of loss scales: calling one gives the scale, a float32 tensor of rank 0."""

    def __call__(self) -> Node:
        raise NotImplementedError(f"{type(self).__name__} must give a tensor")

    def update(self, grads) -> tuple[Node, Node]:
        """(an operation that adapts the scale, a bool tensor: whether to apply the gradients)."""
        raise NotImplementedError(f"{type(self).__name__} must say when to apply gradients")


class FixedLossScale(LossScale):
    """A scale that stays. Gradients are applied whatever they are, as in TensorFlow."""

    def __init__(self, loss_scale_value):
        if is_tensor(loss_scale_value) or not loss_scale_value > 0:
            raise report(ArgumentError, f"FixedLossScale: {loss_scale_value!r:.40} is not a positive number")
        self._value = float(loss_scale_value)

    def __call__(self) -> Node:
        return as_node(np.float32(self._value))

    def update(self, grads) -> tuple[Node, Node]:
        return group(), as_node(True)


class DynamicLossScale(LossScale):
    """A scale that is multiplied after `increment_period` steps in a row with finite gradients, and divided, down to 1, by the
    same number after a step with others, which is not applied.
    """

    def __init__(self, initial_loss_scale: float = 2.0 ** 15, increment_period: int = 2000, multiplier: float = 2.0):
        if initial_loss_scale < 1 or increment_period < 1 or multiplier <= 1:
            raise report(ArgumentError, "DynamicLossScale: scale and period are at least 1, the multiplier is above 1",
                         rule=f"they are {initial_loss_scale}, {increment_period} and {multiplier}")
        self.initial_loss_scale, self.increment_period, self.multiplier = initial_loss_scale, increment_period, multiplier
        graph = get_default_graph()
        with graph.control_dependencies(None):
            self._scale = Variable(np.float32(initial_loss_scale), trainable=False, name="loss_scale")
            self._good_steps = Variable(np.int64(0), trainable=False, name="good_steps", dtype=int64)

    def __call__(self) -> Node:
        return self._scale.as_tensor()

    def update(self, grads) -> tuple[Node, Node]:
        finite = all_finite(grads)
        scale, steps = self._scale.as_tensor(), self._good_steps.as_tensor() + 1
        larger = scale * self.multiplier
        enough = logical_and(finite, steps >= self.increment_period)
        grown = where(logical_and(enough, isfinite(larger)), larger, scale)
        scale = where(finite, grown, maximum(scale / self.multiplier, 1.0))
        steps = where(logical_and(finite, ~enough), steps, 0)
        return group(self._scale.assign(scale), self._good_steps.assign(steps)), finite


def all_finite(tensors) -> Node:
    """Whether no element of any tensor is infinite or NaN."""
    found = as_node(True)
    for tensor in tensors:
        found = logical_and(found, reduce_all(isfinite(tensor), axes=tuple(range(tensor.type.rank))))
    return found


# optimizers ------------------------------------------------------------------------------------------


class MixedPrecisionLossScaleOptimizer(Optimizer):
    """`optimizer` with a scaled loss. A step whose gradients `loss_scale` refuses changes no variable, no slot and no
    global step.
    """

    def __init__(self, optimizer: Optimizer, loss_scale):
        """loss_scale: a LossScale, a number, or "dynamic"."""
        if not isinstance(optimizer, Optimizer):
            raise report(ArgumentError, f"MixedPrecisionLossScaleOptimizer: {optimizer!r:.60} is not an optimizer")
        super().__init__(optimizer._learning_rate, name=optimizer.name)
        self._optimizer, self._loss_scale = optimizer, as_loss_scale(loss_scale)

    def compute_gradients(self, loss, var_list=None, gate_gradients=None, aggregation_method=None,
                          colocate_gradients_with_ops: bool = False,
                          grad_loss=None) -> list[tuple[Node | IndexedSlices | None, Variable]]:
        """(gradient or None, variable) pairs; gradients are those of the loss itself, in float32 where they were shorter."""
        loss = loss() if callable(loss) and not isinstance(loss, Node) else as_node(loss)
        scale = self._loss_scale()
        wide = cast(loss, loss.dtype.arithmetic)  # a scaled loss may be larger than any float16
        pairs = self._optimizer.compute_gradients(wide * cast(scale, wide.dtype), var_list, grad_loss=grad_loss)
        return [(g if g is None else _unscaled(g, scale), v) for g, v in pairs]

    def apply_gradients(self, grads_and_vars, global_step: Variable | None = None, name: str | None = None) -> Node:
        """An operation that adapts the scale and, where the gradients are good, applies them."""
        pairs = list(grads_and_vars)
        adapt, good = self._loss_scale.update([g for g, _ in pairs if g is not None])
        with writes_only_if(good):
            applied = self._optimizer.apply_gradients(pairs, global_step, name)
        return group(applied, adapt, name="train_scaled")

    def get_slot(self, var: Variable, name: str) -> Variable | None:
        """The slot of a variable called `name`, or None."""
        return self._optimizer.get_slot(var, name)

    def get_slot_names(self) -> list[str]:
        """The names of all slots."""
        return self._optimizer.get_slot_names()

    def variables(self) -> list[Variable]:
        """All variables of the optimizer inside."""
        return self._optimizer.variables()


def _unscaled(gradient: Node | IndexedSlices, scale: Node) -> Node:
    wide = cast(gradient, gradient.dtype.arithmetic)
    return wide * cast(1.0 / scale, wide.dtype)


def as_loss_scale(value) -> LossScale:
    """A LossScale from one, a number, or "dynamic"."""
    if isinstance(value, LossScale):
        return value
    if value == "dynamic":
        return DynamicLossScale()
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0:
        return FixedLossScale(value)
    raise report(ArgumentError, f"loss_scale: {value!r:.60} is no scale",
                 rule='it is a LossScale, a positive number, or "dynamic"')


LossScaleOptimizer = MixedPrecisionLossScaleOptimizer


def enable_mixed_precision_graph_rewrite(opt: Optimizer, loss_scale="dynamic") -> MixedPrecisionLossScaleOptimizer:
    """`opt` with loss scaling. Which tensors have 16 bits is what the program says: nothing else is rewritten, as on
    TensorFlow's CPUs.
    """
    if isinstance(opt, MixedPrecisionLossScaleOptimizer):
        raise report(ArgumentError, "enable_mixed_precision_graph_rewrite: the optimizer scales its loss already")
    return MixedPrecisionLossScaleOptimizer(opt, loss_scale)
