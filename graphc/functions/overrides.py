"""TensorFlow 1's way to give ops other gradients: functions registered by name, and a map from ops to them."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from graphc.errors import ArgumentError, report
from graphc.functions.bodies import flatten, trace
from graphc.functions.custom import with_traced_gradient
from graphc.ir.node import OPERATORS, Node, as_node
from graphc.ir.op import OPS, Op

_registered: dict[str, Callable] = {}
# TensorFlow's types of ops that have another name here; for the rest the name without its underscores is TensorFlow's in small
# letters.
_TYPES = {"Mul": "multiply", "Sub": "subtract", "RealDiv": "divide", "Div": "divide", "Neg": "negative", "Round": "rint",
          "AddV2": "add", "BatchMatMul": "matmul", "Rint": "rint", "Pow": "pow", "Select": "where", "Mod": "floormod"}


class Operation(NamedTuple):
    """What a registered function sees of an op: its operands, its results and its attributes."""

    type: str
    name: str
    inputs: Sequence[Node]
    outputs: Sequence[Node]
    attributes: Any

    def get_attr(self, name: str):
        """An attribute of the op's record."""
        return self.attributes[name]


class RegisterGradient:
    """A decorator: the function, of an Operation and the gradients by its results, becomes known as `op_type`, for
    `Graph.gradient_override_map`. It returns the gradient by the one input, or a list of them (None: no gradient flows there).
    Raises ArgumentError for a name that is taken.
    """

    def __init__(self, op_type: str):
        if not isinstance(op_type, str):
            raise report(ArgumentError, f"RegisterGradient: {op_type!r:.60} is not a name")
        self._name = op_type

    def __call__(self, function: Callable) -> Callable:
        if self._name in _registered:
            raise report(ArgumentError, f"RegisterGradient: the name {self._name!r} is taken",
                         rule=f"by {_registered[self._name].__qualname__}")
        _registered[self._name] = function
        return function


def op_of_type(name: str) -> Op:
    """The op that TensorFlow calls `name`. Raises ArgumentError."""
    wanted = _TYPES.get(name, name)
    by_name = {op.name.replace("_", ""): op for op in OPS.values()}
    found = by_name.get(wanted.lower().replace("_", ""))
    if found is None:
        import difflib
        near = difflib.get_close_matches(name.lower(), by_name, 3)
        raise report(ArgumentError, f"gradient_override_map: there is no op {name!r}",
                     rule=f"the nearest are {', '.join(by_name[n].name for n in near)}" if near else "",
                     hint="functions made of several ops have no gradient of their own: use graphc.custom_gradient")
    return found


def _overridden(made: Node, name: str) -> Node:
    """A node whose gradient is that of the function registered as `name`."""
    function = _registered.get(name)
    if function is None or isinstance(made.type, tuple):
        raise report(ArgumentError, f"gradient_override_map: {made.op.name} cannot have the gradient {name!r}",
                     [("op", made.describe())], f"RegisterGradient({name!r}) registers one" if function is None else
                     "it has several results, or none: use graphc.custom_gradient")
    view = Operation(made.op.name, made.name, made.inputs, [made], made.attrs)

    def gradient(dy):
        with made.graph.gradient_override_map({}):
            found = function(view, dy)
        found = list(found) if isinstance(found, (list, tuple)) else [found]
        if len(found) != len(made.inputs):
            raise report(ArgumentError, f"{function.__qualname__}: it returns {len(found)} gradients for {len(made.inputs)} "
                                        f"inputs of {made.op.name}")
        return [None if g is None else as_node(g, made.dtype) for g in found]
    body = trace("gradient", gradient, [made.type])
    rest = iter(body.outputs)
    places = [(k, next(rest)) for k, g in enumerate(flatten(body.nest)) if g is not None]
    return with_traced_gradient(name, [made], made.inputs, body, places)[0]


OPERATORS["overridden"] = _overridden
OPERATORS["op_of_type"] = op_of_type
