"""Moving averages of variables and tensors, as `graphc.train.ExponentialMovingAverage`."""
from __future__ import annotations

import numpy as np

from graphc.control import GraphKeys, add_to_collection, get_collection, group
from graphc.errors import ArgumentError, DTypeError, ShapeError, report
from graphc.functions.arrays import fill
from graphc.functions.math import cast, minimum
from graphc.functions.math import pow as power
from graphc.ir.container import get_default_graph
from graphc.ir.node import Node, as_node, is_tensor
from graphc.variable import Variable

MOVING_AVERAGE_VARIABLES = "moving_average_variables"


class ExponentialMovingAverage:
    """Shadows of variables that follow them slowly: shadow = decay * shadow + (1 - decay) * value, at each run of `apply`.

    num_updates  a number or tensor of steps so far: then the decay is at most (1 + num_updates) / (10 + num_updates).
    zero_debias  shadows start at 0 and are divided by 1 - decay^steps; those of tensors always do, those of variables start
                 at the variable's initial value otherwise.
    """

    def __init__(self, decay, num_updates=None, zero_debias: bool = False, name: str = "ExponentialMovingAverage"):
        self._decay, self._num_updates, self._zero_debias, self.name = decay, num_updates, zero_debias, name
        self._averages: dict[object, Variable] = {}
        self._biased: dict[object, tuple[Variable, Variable]] = {}

    def apply(self, var_list=None) -> Node:
        """An operation that moves the shadows (made at the first call) of `var_list`: variables and tensors of floats; by
        default all trainable variables. Raises ArgumentError for anything else, and for one that is there twice.
        """
        values = list(get_collection(GraphKeys.TRAINABLE_VARIABLES) if var_list is None else var_list)
        for value in values:
            self._check(value)
            if values.count(value) > 1:
                raise report(ArgumentError, f"{self.name}: {value.name!r} is in var_list twice")
        with get_default_graph().name_scope(self.name):
            updates = [step for value in values for step in self._update(value)]
            return group(*updates, name="apply")

    def average(self, var) -> Variable | None:
        """The shadow of a variable or tensor, or None if it has none."""
        return self._averages.get(var)

    def average_name(self, var) -> str:
        """What the shadow of a variable is called, also before it exists."""
        return self._averages[var].name if var in self._averages else f"{var.name}/{self.name}"

    def variables_to_restore(self, moving_avg_variables=None) -> dict[str, Variable]:
        """Name in a checkpoint -> variable: restores shadows into the variables that they follow (by default the trainable ones
        and those with a shadow), and all other variables as they are.
        """
        averaged = get_collection(GraphKeys.TRAINABLE_VARIABLES) + get_collection(MOVING_AVERAGE_VARIABLES) \
            if moving_avg_variables is None else moving_avg_variables
        found = {self.average_name(v): v for v in dict.fromkeys(averaged)}
        taken = {*found.values(), *self._averages.values()}
        found.update({v.name: v for v in get_collection(GraphKeys.GLOBAL_VARIABLES) if v not in taken})
        return found

    def _check(self, value) -> None:
        if not is_tensor(value):
            raise report(ArgumentError, f"{self.name}: {value!r:.60} in var_list is not a variable or tensor")
        if not value.dtype.is_floating:
            raise report(DTypeError, f"{self.name}: {value.name!r} must hold floats", rule=f"it holds {value.dtype.name}")
        if isinstance(value, Node) and not value.type.is_static:
            raise report(ShapeError, f"{self.name}: the shape of {value.name!r} must be known when the graph is built",
                         [("tensor", value.describe())])

    def _update(self, value) -> list[Node]:
        dtype = value.dtype
        decay = self._number(self._decay, dtype)
        if self._num_updates is not None:
            steps = self._number(self._num_updates, dtype)
            decay = minimum(decay, (1 + steps) / (10 + steps))
        shadow = self._shadow(value)
        now = as_node(value)
        if value not in self._biased:
            return [shadow.assign_sub((1 - decay) * (shadow - now))]
        biased, count = self._biased[value]
        moved, step = biased - (1 - decay) * (biased - now), count + 1
        return [biased.assign(moved), count.assign(step), shadow.assign(moved / (1 - power(decay, step)))]

    def _shadow(self, value) -> Variable:
        if value in self._averages:
            return self._averages[value]
        graph = get_default_graph()
        with graph.name_scope(None):
            zeros = np.zeros((), value.dtype.numpy)
            plain = isinstance(value, Variable) and not self._zero_debias
            shadow = Variable(value.initialized_value() if plain else lambda: fill(tuple(value.shape), zeros), trainable=False,
                              name=f"{value.name}/{self.name}")
            if not plain:
                self._biased[value] = (Variable(lambda: fill(tuple(value.shape), zeros), trainable=False,
                                                name=f"{shadow.name}/biased"),
                                       Variable(zeros, trainable=False, name=f"{shadow.name}/local_step"))
        self._averages[value] = shadow
        if isinstance(value, Variable):
            add_to_collection(MOVING_AVERAGE_VARIABLES, value)
        return shadow

    @staticmethod
    def _number(value, dtype) -> Node:
        if is_tensor(value):
            value = as_node(value)
            return value if value.dtype == dtype else cast(value, dtype)
        return as_node(np.array(value, dtype.numpy))


def moving_average_variables(scope: str | None = None) -> list[Variable]:
    """The variables that have a shadow."""
    return get_collection(MOVING_AVERAGE_VARIABLES, scope)
