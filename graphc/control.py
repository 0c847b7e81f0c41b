"""Functions that work on the default graph: control dependencies, groups, scopes, initializers, collections."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator

from graphc.errors import ArgumentError, report
from graphc.ir.container import get_default_graph
from graphc.ir.node import GROUP, Node, apply
from graphc.ops.elementwise import identity
from graphc.variable import GLOBAL_VARIABLES, LOCAL_VARIABLES, TRAINABLE_VARIABLES, Variable


class GraphKeys:
    """Names of the standard collections."""

    GLOBAL_VARIABLES = VARIABLES = GLOBAL_VARIABLES
    TRAINABLE_VARIABLES = TRAINABLE_VARIABLES
    LOCAL_VARIABLES = LOCAL_VARIABLES
    LOSSES = "losses"
    REGULARIZATION_LOSSES = "regularization_losses"
    UPDATE_OPS = "update_ops"
    SUMMARIES = "summaries"
    GLOBAL_STEP = "global_step"


def _operations(values, what: str) -> list[Node]:
    found = []
    for value in values:
        node = value.snapshot if isinstance(value, Variable) else value
        if not isinstance(node, Node):
            raise report(ArgumentError, f"{what}: {value!r:.60} is not a tensor or operation")
        found.append(node)
    return found


def control_dependencies(control_inputs):
    """A context in which everything made runs after `control_inputs` (tensors, operations). None clears outer ones."""
    return get_default_graph().control_dependencies(
        None if control_inputs is None else _operations(control_inputs, "control_dependencies"))


def group(*inputs, name: str | None = None) -> Node:
    """An operation that runs all its inputs (tensors, operations, lists of them). Fetching it gives None."""
    flat = [i for item in inputs for i in (item if isinstance(item, (list, tuple)) else [item])]
    return apply(GROUP, tuple(_operations(flat, "group")), {}, name=name or "group")


def no_op(name: str | None = None) -> Node:
    """An operation that does nothing but wait for its control inputs."""
    return apply(GROUP, (), {}, name=name or "no_op")


def tuple_(tensors, name: str | None = None, control_inputs=None) -> list:
    """The tensors, each available only after all of them and `control_inputs` have been computed."""
    given = [t for t in tensors if t is not None]
    with control_dependencies([*given, *(control_inputs or [])]):
        return [None if t is None else identity(t) for t in tensors]


def name_scope(name, default_name=None, values=None):
    """A context in which names start with `name/`."""
    return get_default_graph().name_scope(name if name is not None else default_name)


@contextlib.contextmanager
def device(device_name_or_function) -> Iterator[None]:
    """A context of TensorFlow's that says where ops are placed: a name such as "/cpu:0", a function of an op, or None.

    It is accepted and has no effect: GRAPHC_DEVICE chooses one device for the whole graph.
    """
    if device_name_or_function is not None and not isinstance(device_name_or_function, str) and \
            not callable(device_name_or_function):
        raise report(ArgumentError, f"device: {device_name_or_function!r:.60} is no device",
                     rule="it is a name, a function or None")
    yield


def global_variables(scope: str | None = None) -> list[Variable]:
    """All variables of the default graph, those whose names start with `scope` if given."""
    return get_default_graph().get_collection(GLOBAL_VARIABLES, scope)


def trainable_variables(scope: str | None = None) -> list[Variable]:
    """The variables that optimizers update by default."""
    return get_default_graph().get_collection(TRAINABLE_VARIABLES, scope)


def local_variables(scope: str | None = None) -> list[Variable]:
    """The variables of the collection LOCAL_VARIABLES."""
    return get_default_graph().get_collection(LOCAL_VARIABLES, scope)


def variables_initializer(var_list, name: str = "init") -> Node:
    """An operation that gives each variable of the list its initial value."""
    return group(*[v.initializer for v in var_list], name=name)


def global_variables_initializer() -> Node:
    """An operation that gives all variables of the default graph their initial values."""
    return variables_initializer(global_variables())


def local_variables_initializer() -> Node:
    """An operation that gives the local variables their initial values."""
    return variables_initializer(local_variables())


def assign(ref: Variable, value, validate_shape=None, use_locking=None, name=None) -> Node:
    """Give the variable `value` at the end of the run; the result is that value."""
    return ref.assign(value, name=name)


def assign_add(ref: Variable, value, use_locking=None, name=None) -> Node:
    """Add `value` to the variable at the end of the run; the result is the sum."""
    return ref.assign_add(value, name=name)


def assign_sub(ref: Variable, value, use_locking=None, name=None) -> Node:
    """Subtract `value` from the variable at the end of the run; the result is the difference."""
    return ref.assign_sub(value, name=name)


def get_collection(key: str, scope: str | None = None) -> list:
    """A copy of a collection of the default graph."""
    return get_default_graph().get_collection(key, scope)


def add_to_collection(name: str, value) -> None:
    """Append to a collection of the default graph."""
    get_default_graph().add_to_collection(name, value)
