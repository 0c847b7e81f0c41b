"""Optimizers: gradients turned into updates of variables. `minimize` is one fused sweep over all parameters."""
from __future__ import annotations

from typing import Any

import numpy as np

from graphc.averages import ExponentialMovingAverage  # noqa: F401  handed on
from graphc.control import GraphKeys, control_dependencies, group
from graphc.errors import ArgumentError, DTypeError, report
from graphc.functions.arrays import fill
from graphc.functions.gathering import gather, scatter_update
from graphc.functions.math import abs as absolute
from graphc.functions.math import cast, maximum, sign, sqrt, square, where
from graphc.functions.math import pow as power
from graphc.ir.container import get_default_graph
from graphc.ir.node import Node, as_node, is_tensor
from graphc.ir.types import int64
from graphc.schedules import (  # noqa: F401  handed on: graphc.train.exponential_decay
    cosine_decay,
    exponential_decay,
    inverse_time_decay,
    natural_exp_decay,
    piecewise_constant,
    piecewise_constant_decay,
    polynomial_decay,
)
from graphc.slices import IndexedSlices, gradients_by_rows
from graphc.variable import Variable, WideVariable


class Optimizer:
    """Base of all optimizers. A subclass says how one variable is updated from its gradient, in `_update`.

    learning_rate  a number or a tensor of rank 0, or a function that returns one.
    """

    GATE_NONE, GATE_OP, GATE_GRAPH = 0, 1, 2  # as in TensorFlow; a run is a transaction, so they make no difference

    def __init__(self, learning_rate, use_locking: bool = False, name: str = "Optimizer"):
        if callable(learning_rate) and not is_tensor(learning_rate):
            learning_rate = learning_rate()
        given = as_node(learning_rate).type.rank if is_tensor(learning_rate) else np.ndim(learning_rate)
        if given or not is_tensor(learning_rate) and np.asarray(learning_rate).dtype.kind not in "fiu":
            raise report(ArgumentError, f"{name}: the learning rate is a number or a tensor of rank 0, "
                                        f"not {learning_rate!r:.60}")
        self.name = name
        self._learning_rate = learning_rate
        self._slots: dict[str, dict[Variable, Variable]] = {}

    # the public steps --------------------------------------------------------------------------------------------------

    def minimize(self, loss, global_step: Variable | None = None, var_list=None, gate_gradients=None, aggregation_method=None,
                 colocate_gradients_with_ops: bool = False, name: str | None = None, grad_loss=None) -> Node:
        """An operation that updates the variables of `var_list` (default: all trainable ones) to make `loss` smaller.

        loss         a tensor of floats; of a tensor with axes, the sum is minimised.
        global_step  a variable that is increased by one.
        Raises ArgumentError when no gradient reaches any variable, and names the variables.
        """
        pairs = self.compute_gradients(loss, var_list, grad_loss=grad_loss)
        if all(g is None for g, _ in pairs):
            raise report(ArgumentError, f"{self.name}: the loss depends on none of the variables",
                         [("loss", loss.describe() if isinstance(loss, Node) else repr(loss))],
                         f"the variables are {', '.join(v.name for _, v in pairs) or 'none: the list is empty'}")
        return self.apply_gradients(pairs, global_step, name)

    def compute_gradients(self, loss, var_list=None, gate_gradients=None, aggregation_method=None,
                          colocate_gradients_with_ops: bool = False,
                          grad_loss=None) -> list[tuple[Node | IndexedSlices | None, Variable]]:
        """(gradient or None, variable) for each variable of `var_list` (default: all trainable ones). The gradient of a table
        of which the loss uses only gathered rows is an IndexedSlices.
        """
        loss = loss() if callable(loss) and not isinstance(loss, Node) else loss
        loss = as_node(loss) if isinstance(loss, Variable) else loss
        if not isinstance(loss, Node) or isinstance(loss.type, tuple) or not loss.dtype.is_floating:
            raise report(DTypeError, f"{self.name}: the loss must be a tensor of floats",
                         [("loss", loss.describe() if isinstance(loss, Node) else repr(loss))])
        if var_list is None:
            var_list = get_default_graph().get_collection(GraphKeys.TRAINABLE_VARIABLES)
        variables = [var_list] if isinstance(var_list, Variable) else list(var_list)
        for v in variables:
            if not isinstance(v, Variable):
                raise report(ArgumentError, f"{self.name}: {v!r:.60} in var_list is not a variable")
        found = gradients_by_rows(loss, variables, None if grad_loss is None else [grad_loss])
        return list(zip(found, variables, strict=True))

    def apply_gradients(self, grads_and_vars, global_step: Variable | None = None, name: str | None = None) -> Node:
        """An operation that applies (gradient, variable) pairs; pairs whose gradient is None are left out.

        Raises ArgumentError when no pair has a gradient.
        """
        given = list(grads_and_vars)
        for pair in given:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[1], Variable):
                raise report(ArgumentError, f"{self.name}: {pair!r:.80} is not a pair of a gradient and a variable")
        is_rows = [isinstance(g, IndexedSlices) and v.dtype.arithmetic is v.dtype for g, v in given]
        rows = [pair for pair, sparse in zip(given, is_rows, strict=True) if sparse]
        pairs = [(as_node(g, v.dtype), v) for (g, v), sparse in zip(given, is_rows, strict=True)
                 if g is not None and not sparse]
        # Variables of float16 and bfloat16 are updated in float32, which is also what their slots are.
        wide: list[tuple[Node, Any]] = [
            (g, v) if v.dtype.arithmetic is v.dtype else (cast(g, v.dtype.arithmetic), WideVariable(v)) for g, v in pairs]
        if not pairs and not rows:
            raise report(ArgumentError, f"{self.name}: no gradients given for any variable",
                         rule=f"the variables are {', '.join(v.name for _, v in given) or 'none: the list is empty'}")
        with get_default_graph().name_scope(name or self.name):
            self._prepare([v for _, v in (*pairs, *rows)])
            updates = [u for g, v in wide for u in self._update(g, v)]
            updates += [u for g, v in rows for u in self._update_rows(g, v)]
            updates += self._finish([v for _, v in (*pairs, *rows)])
            if global_step is not None:
                with control_dependencies(updates):
                    updates.append(global_step.assign_add(1))
            done = group(*updates, name="train")
        get_default_graph().add_to_collection("train_op", done)
        return done

    # slots -------------------------------------------------------------------------------------------------------------

    def get_slot(self, var: Variable, name: str) -> Variable | None:
        """The slot of a variable called `name`, or None."""
        return self._slots.get(name, {}).get(var)

    def get_slot_names(self) -> list[str]:
        """The names of all slots."""
        return sorted(self._slots)

    def variables(self) -> list[Variable]:
        """All variables of the optimizer itself."""
        return [v for slots in self._slots.values() for v in slots.values()]

    def _slot(self, var: Variable | WideVariable, name: str, value: float = 0.0) -> Variable:
        slots = self._slots.setdefault(name, {})
        owner = var.variable if isinstance(var, WideVariable) else var
        if owner not in slots:
            start = np.array(value, var.dtype.numpy)
            # Made inside `Variable`, the value waits for no control dependency that is open here.
            slots[owner] = Variable(lambda: fill(tuple(var.shape), start), trainable=False,
                                  name=f"{var.name.replace('/', '_')}_{name}")
        return slots[owner]

    # what a subclass fills in ------------------------------------------------------------------------------------------

    def _prepare(self, variables) -> None:
        """Make what all updates share."""

    def _update(self, gradient: Node, variable: Variable) -> list[Node]:
        """Operations that update one variable and its slots."""
        raise NotImplementedError(f"{type(self).__name__} must say how a variable is updated")

    def _update_rows(self, gradient: IndexedSlices, variable: Variable) -> list[Node]:
        """Operations that update one variable and its slots from the gradients of some rows. By default those of all rows,
        where the gradient of the others is 0.
        """
        return self._update(as_node(gradient), variable)

    def _finish(self, variables) -> list[Node]:
        """Operations that come once, after the updates."""
        return []

    def _rate(self, variable: Variable) -> Node:
        """The learning rate in the variable's dtype."""
        return self._number(self._learning_rate, variable)

    @staticmethod
    def _number(value, variable: Variable) -> Node:
        if is_tensor(value):
            value = as_node(value)
            return value if value.dtype == variable.dtype else cast(value, variable.dtype)
        return as_node(np.array(value, variable.dtype.numpy))


class GradientDescentOptimizer(Optimizer):
    """v -= learning_rate * g."""

    def __init__(self, learning_rate, use_locking: bool = False, name: str = "GradientDescent"):
        super().__init__(learning_rate, use_locking, name)

    def _update(self, gradient, variable):
        return [variable.assign_sub(self._rate(variable) * gradient)]


class MomentumOptimizer(Optimizer):
    """a = momentum * a + g; v -= learning_rate * a, or with Nesterov v -= learning_rate * (g + momentum * a).

    As in TensorFlow 1; Nesterov's form after Sutskever et al., 2013. The slots of a table decay for all rows, unless `lazy`:
    then only the rows used change, and their slots decay when they are used.
    """

    def __init__(self, learning_rate, momentum, use_locking: bool = False, name: str = "Momentum", use_nesterov: bool = False,
                 lazy: bool = False):
        super().__init__(learning_rate, use_locking, name)
        self._momentum, self._nesterov, self._lazy = momentum, use_nesterov, lazy

    def _update(self, gradient, variable):
        slot = self._slot(variable, "momentum")
        momentum, rate = self._number(self._momentum, variable), self._rate(variable)
        accumulated = momentum * slot + gradient
        step = gradient + momentum * accumulated if self._nesterov else accumulated
        return [slot.assign(accumulated), variable.assign_sub(rate * step)]

    def _update_rows(self, gradient, variable):
        if not self._lazy:
            return super()._update_rows(gradient, variable)
        slot = self._slot(variable, "momentum")
        momentum, rate = self._number(self._momentum, variable), self._rate(variable)
        sums, is_first = gradient.rows()
        accumulated = momentum * gather(slot, gradient.indices) + sums
        step = sums + momentum * accumulated if self._nesterov else accumulated
        return [scatter_update(slot, gradient.indices, accumulated), variable.assign_sub(gradient.once(rate * step, is_first))]


class AdagradOptimizer(Optimizer):
    """a += g^2; v -= learning_rate * g / sqrt(a) (Duchi et al., 2011), as in TensorFlow 1. Of a table the rows used change."""

    def __init__(self, learning_rate, initial_accumulator_value: float = 0.1, use_locking: bool = False, name: str = "Adagrad"):
        if initial_accumulator_value <= 0:
            raise report(ArgumentError, f"{name}: initial_accumulator_value must be positive, not {initial_accumulator_value}")
        super().__init__(learning_rate, use_locking, name)
        self._start = initial_accumulator_value

    def _update(self, gradient, variable):
        slot = self._slot(variable, "accumulator", self._start)
        accumulated = slot + square(gradient)
        return [slot.assign(accumulated), variable.assign_sub(self._rate(variable) * gradient / sqrt(accumulated))]

    def _update_rows(self, gradient, variable):
        slot = self._slot(variable, "accumulator", self._start)
        sums, is_first = gradient.rows()
        accumulated = gather(slot, gradient.indices) + square(sums)
        step = self._rate(variable) * sums / sqrt(accumulated)
        return [slot.assign_add(gradient.once(square(sums), is_first)), variable.assign_sub(gradient.once(step, is_first))]


class AdagradDAOptimizer(Optimizer):
    """Adagrad's dual averaging (Duchi et al., 2011), as in TensorFlow 1, in step t = global_step + 1:

    z += g; a += g^2; v = -learning_rate sign(z) max(|z| - l1 t, 0) / (l2 t learning_rate + sqrt(a)).
    """

    def __init__(self, learning_rate, global_step: Variable, initial_gradient_squared_accumulator_value: float = 0.1,
                 l1_regularization_strength: float = 0.0, l2_regularization_strength: float = 0.0, use_locking: bool = False,
                 name: str = "AdagradDA"):
        if initial_gradient_squared_accumulator_value <= 0:
            raise report(ArgumentError, f"{name}: initial_gradient_squared_accumulator_value must be positive, not "
                                        f"{initial_gradient_squared_accumulator_value}")
        super().__init__(learning_rate, use_locking, name)
        self._start, self._global_step = initial_gradient_squared_accumulator_value, global_step
        self._l1, self._l2 = l1_regularization_strength, l2_regularization_strength

    def _prepare(self, variables):
        self._step = as_node(self._global_step) + 1

    def _update(self, gradient, variable):
        rate, step = self._rate(variable), cast(self._step, variable.dtype)
        totals = self._slot(variable, "gradient_accumulator")
        squares = self._slot(variable, "gradient_squared_accumulator", self._start)
        z, a = totals + gradient, squares + square(gradient)
        far = sign(z) * maximum(absolute(z) - self._l1 * step, 0) if self._l1 else z
        return [totals.assign(z), squares.assign(a), variable.assign(-rate * far / (self._l2 * step * rate + sqrt(a)))]


class AdadeltaOptimizer(Optimizer):
    """a = rho a + (1 - rho) g^2; d = g sqrt(u + epsilon) / sqrt(a + epsilon); u = rho u + (1 - rho) d^2; v -= learning_rate d
    (Zeiler, 2012), as in TensorFlow 1.
    """

    def __init__(self, learning_rate=0.001, rho: float = 0.95, epsilon: float = 1e-8, use_locking: bool = False,
                 name: str = "Adadelta"):
        super().__init__(learning_rate, use_locking, name)
        self._rho, self._epsilon = rho, epsilon

    def _update(self, gradient, variable):
        rho, epsilon = self._number(self._rho, variable), self._number(self._epsilon, variable)
        squares, steps = self._slot(variable, "accum"), self._slot(variable, "accum_update")
        a = rho * squares + (1 - rho) * square(gradient)
        step = sqrt(steps + epsilon) / sqrt(a + epsilon) * gradient
        u = rho * steps + (1 - rho) * square(step)
        return [squares.assign(a), steps.assign(u), variable.assign_sub(self._rate(variable) * step)]


def _shrunk(moved: Node, rate: Node, l1: Node, l2: Node) -> Node:
    """The proximal step of an l1 and an l2 penalty: sign(x) max(|x| - rate l1, 0) / (1 + rate l2)."""
    return sign(moved) * maximum(absolute(moved) - rate * l1, 0) / (1 + rate * l2)


class ProximalGradientDescentOptimizer(Optimizer):
    """p = v - learning_rate g; v = sign(p) max(|p| - learning_rate l1, 0) / (1 + learning_rate l2) (Duchi and Singer, 2009)."""

    def __init__(self, learning_rate, l1_regularization_strength: float = 0.0, l2_regularization_strength: float = 0.0,
                 use_locking: bool = False, name: str = "ProximalGradientDescent"):
        super().__init__(learning_rate, use_locking, name)
        self._l1, self._l2 = l1_regularization_strength, l2_regularization_strength

    def _update(self, gradient, variable):
        rate, l1, l2 = self._rate(variable), self._number(self._l1, variable), self._number(self._l2, variable)
        return [variable.assign(_shrunk(variable - rate * gradient, rate, l1, l2))]


class ProximalAdagradOptimizer(Optimizer):
    """Adagrad's rate, r = learning_rate / sqrt(a) with a += g^2, in a proximal step (Duchi et al., 2011)."""

    def __init__(self, learning_rate, initial_accumulator_value: float = 0.1, l1_regularization_strength: float = 0.0,
                 l2_regularization_strength: float = 0.0, use_locking: bool = False, name: str = "ProximalAdagrad"):
        if initial_accumulator_value <= 0:
            raise report(ArgumentError, f"{name}: initial_accumulator_value must be positive, not {initial_accumulator_value}")
        super().__init__(learning_rate, use_locking, name)
        self._start, self._l1, self._l2 = initial_accumulator_value, l1_regularization_strength, l2_regularization_strength

    def _update(self, gradient, variable):
        slot = self._slot(variable, "accumulator", self._start)
        accumulated = slot + square(gradient)
        rate = self._rate(variable) / sqrt(accumulated)
        l1, l2 = self._number(self._l1, variable), self._number(self._l2, variable)
        return [slot.assign(accumulated), variable.assign(_shrunk(variable - rate * gradient, rate, l1, l2))]


class FtrlOptimizer(Optimizer):
    """Follow the regularised leader (McMahan et al., 2013), as in TensorFlow 1, with p = -learning_rate_power:

    b = a + g^2; z += g' - (b^p - a^p) / learning_rate v; v = (sign(z) l1 - z) / (b^p / learning_rate + 2 l2) where |z| > l1,
    else 0; a = b. g' is g + 2 l2_shrinkage v.
    """

    def __init__(self, learning_rate, learning_rate_power: float = -0.5, initial_accumulator_value: float = 0.1,
                 l1_regularization_strength: float = 0.0, l2_regularization_strength: float = 0.0, use_locking: bool = False,
                 name: str = "Ftrl", accum_name=None, linear_name=None, l2_shrinkage_regularization_strength: float = 0.0):
        for value, what in ((initial_accumulator_value, "initial_accumulator_value"), (-learning_rate_power,
                            "-learning_rate_power"), (l1_regularization_strength, "l1_regularization_strength"),
                            (l2_regularization_strength, "l2_regularization_strength"),
                            (l2_shrinkage_regularization_strength, "l2_shrinkage_regularization_strength")):
            if value < 0:
                raise report(ArgumentError, f"{name}: {what} must not be negative, but is {value}")
        super().__init__(learning_rate, use_locking, name)
        self._power, self._start = -learning_rate_power, initial_accumulator_value
        self._l1, self._l2 = l1_regularization_strength, l2_regularization_strength
        self._shrinkage = l2_shrinkage_regularization_strength

    def _update(self, gradient, variable):
        rate, l1, l2 = self._rate(variable), self._number(self._l1, variable), self._number(self._l2, variable)
        squares, linear = self._slot(variable, "accum", self._start), self._slot(variable, "linear")
        b = squares + square(gradient)
        new, old = (sqrt(s) if self._power == 0.5 else power(s, self._number(self._power, variable)) for s in (b, squares + 0))
        pushed = gradient + 2 * self._shrinkage * variable if self._shrinkage else gradient
        z = linear + pushed - (new - old) / rate * variable
        value = where(absolute(z) > l1, (sign(z) * l1 - z) / (new / rate + 2 * l2), 0 * z)
        return [squares.assign(b), linear.assign(z), variable.assign(value)]


class RMSPropOptimizer(Optimizer):
    """s = decay * s + (1 - decay) * g^2; m = momentum * m + learning_rate * g / sqrt(s + epsilon); v -= m.

    `centered` subtracts the square of a running mean of g from s. As in TensorFlow 1: s starts at 1, epsilon is inside the
    root (Tieleman and Hinton, 2012; Graves, 2013 for the centered form).
    """

    def __init__(self, learning_rate, decay: float = 0.9, momentum: float = 0.0, epsilon: float = 1e-10,
                 use_locking: bool = False, centered: bool = False, name: str = "RMSProp"):
        super().__init__(learning_rate, use_locking, name)
        self._decay, self._momentum, self._epsilon, self._centered = decay, momentum, epsilon, centered

    def _update(self, gradient, variable):
        decay, epsilon = self._number(self._decay, variable), self._number(self._epsilon, variable)
        mean_square, momentum = self._slot(variable, "rms", 1.0), self._slot(variable, "momentum")
        squares = decay * mean_square + (1 - decay) * square(gradient)
        updates, spread = [mean_square.assign(squares)], squares
        if self._centered:
            mean = self._slot(variable, "mg")
            means = decay * mean + (1 - decay) * gradient
            updates.append(mean.assign(means))
            spread = squares - square(means)
        step = self._rate(variable) * gradient / sqrt(spread + epsilon)
        if is_tensor(self._momentum) or self._momentum:
            step = self._number(self._momentum, variable) * momentum + step
            updates.append(momentum.assign(step))
        return [*updates, variable.assign_sub(step)]


class AdamOptimizer(Optimizer):
    """Adam (Kingma and Ba, 2015), in TensorFlow 1's form:

    rate_t = learning_rate * sqrt(1 - beta2^t) / (1 - beta1^t); m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
    variable -= rate_t * m / (sqrt(v) + epsilon). Of a table all rows change in each step, because their slots decay, unless
    `lazy`: then only the rows used change.
    """

    def __init__(self, learning_rate=0.001, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8,
                 use_locking: bool = False, name: str = "Adam", lazy: bool = False):
        super().__init__(learning_rate, use_locking, name)
        self._beta1, self._beta2, self._epsilon, self._lazy = beta1, beta2, epsilon, lazy
        self._steps: dict = {}

    def _prepare(self, variables):
        graph = get_default_graph()
        if graph not in self._steps:
            with graph.control_dependencies(None):
                self._steps[graph] = Variable(np.int64(0), trainable=False, name="adam_step", dtype=int64)
        self._step = self._steps[graph].as_tensor() + 1
        self._rates: dict = {}

    def variables(self):
        return [*super().variables(), *self._steps.values()]

    def _corrected_rate(self, variable: Variable) -> Node:
        """The learning rate with the bias of the moments corrected; once for each dtype."""
        if variable.dtype not in self._rates:
            step = cast(self._step, variable.dtype)
            one = np.array(1, variable.dtype.numpy)
            beta1, beta2 = self._number(self._beta1, variable), self._number(self._beta2, variable)
            self._rates[variable.dtype] = self._rate(variable) * sqrt(one - power(beta2, step)) / (one - power(beta1, step))
        return self._rates[variable.dtype]

    def _update(self, gradient, variable):
        beta1, beta2 = self._number(self._beta1, variable), self._number(self._beta2, variable)
        first, second = self._slot(variable, "m"), self._slot(variable, "v")
        m = beta1 * first + (1 - beta1) * gradient
        v = beta2 * second + (1 - beta2) * square(gradient)
        step = self._corrected_rate(variable) * m / (sqrt(v) + self._number(self._epsilon, variable))
        return [first.assign(m), second.assign(v), variable.assign_sub(step)]

    def _update_rows(self, gradient, variable):
        if not self._lazy:
            return super()._update_rows(gradient, variable)
        beta1, beta2 = self._number(self._beta1, variable), self._number(self._beta2, variable)
        first, second = self._slot(variable, "m"), self._slot(variable, "v")
        (sums, is_first), indices = gradient.rows(), gradient.indices
        m = beta1 * gather(first, indices) + (1 - beta1) * sums
        v = beta2 * gather(second, indices) + (1 - beta2) * square(sums)
        step = self._corrected_rate(variable) * m / (sqrt(v) + self._number(self._epsilon, variable))
        return [scatter_update(first, indices, m), scatter_update(second, indices, v),
                variable.assign_sub(gradient.once(step, is_first))]

    def _finish(self, variables):
        return [self._steps[get_default_graph()].assign_add(1)]


def __getattr__(name: str):
    """`train.experimental`, which is built on this module."""
    if name == "experimental":
        from graphc import mixed_precision
        return mixed_precision
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def get_or_create_global_step(graph=None) -> Variable:
    """The default graph's global step: an int64 variable that optimizers count up."""
    found = get_global_step(graph)
    if found is not None:
        return found
    step = Variable(np.int64(0), trainable=False, name="global_step", dtype=int64)
    get_default_graph().add_to_collection(GraphKeys.GLOBAL_STEP, step)
    return step


def get_global_step(graph=None) -> Variable | None:
    """The default graph's global step, or None."""
    found = (graph or get_default_graph()).get_collection(GraphKeys.GLOBAL_STEP)
    return found[0] if found else None
