"""`Variable`: state that lives in sessions. Not a node: each use makes a `read` node."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator

from graphc.errors import ArgumentError, DTypeError, ShapeError, report, user_location
from graphc.ir.container import get_default_graph
from graphc.ir.node import GROUP, INPUT, OPERATORS, Node, TensorShape, apply, as_node
from graphc.ir.types import TensorType, as_dtype, as_shape
from graphc.ops import state
from graphc.ops.compare import cast, logical_and, where

GLOBAL_VARIABLES, TRAINABLE_VARIABLES, LOCAL_VARIABLES = "variables", "trainable_variables", "local_variables"


CONDITION = "condition of writes"


@contextlib.contextmanager
def writes_only_if(condition: Node) -> Iterator[None]:
    """Variables written to inside keep their values in runs in which `condition`, a bool of rank 0, is false."""
    scope = get_default_graph().scope_state
    outer = scope.get(CONDITION)
    scope[CONDITION] = condition if outer is None else logical_and(outer, condition)
    try:
        yield
    finally:
        scope[CONDITION] = outer


class Variable:
    """A tensor that a session keeps between runs.

    initial_value  a tensor, array or number, or a function that returns one; its shape must be fully known.
    trainable      whether optimizers update it by default.
    dtype          converts numbers and arrays; a tensor must have it.
    handle is the graph's input node that stands for it; `initializer` the operation that gives it its initial value.
    """

    def __init__(self, initial_value=None, trainable: bool = True, collections=None, validate_shape: bool = True,
                 name: str | None = None, dtype=None, expected_shape=None, constraint=None):
        if initial_value is None:
            raise report(ArgumentError, "Variable: an initial value is needed")
        graph = get_default_graph()
        graph.check_open()
        with graph.outside_bodies():
            value = initial_value() if callable(initial_value) and not isinstance(initial_value, Node) else initial_value
            value = as_node(value, as_dtype(dtype) if dtype is not None else None, "Variable")
            if dtype is not None and value.dtype != as_dtype(dtype):
                raise report(DTypeError, f"Variable: the initial value is {value.dtype.name}, dtype is {as_dtype(dtype).name}",
                             [("value", value.describe())], hint="graphc.cast(x, dtype) converts")
            if not value.type.is_static:
                raise report(ShapeError, "Variable: its shape must be known when the graph is built",
                             [("value", value.describe())])
            if expected_shape is not None and as_shape(expected_shape) != value.type.shape:
                raise report(ShapeError, "Variable: the initial value has another shape than expected_shape",
                             [("value", value.describe())])
            self.name = graph.unique_name(name or "Variable")
            self.graph, self.trainable, self.constraint = graph, trainable, constraint
            self.location = user_location()
            self.initial_value = value
            attrs = {"type": value.type, "role": "variable", "variable": self}
            self.handle = Node(INPUT, (), attrs, value.type, name=self.name, location=self.location, graph=graph)
            graph.add(self.handle)
            self.initializer = apply(GROUP, (apply(state.assign, (self.handle, value), {}, name=f"{name or 'Variable'}_init"),),
                                     {}, name=f"{name or 'Variable'}_initializer")
            self.snapshot = apply(state.read, (self.handle,), {}, name=f"{name or 'Variable'}_read")
        graph.variables.append(self)
        for collection in collections or [GLOBAL_VARIABLES]:
            graph.add_to_collection(collection, self)
        if trainable:
            graph.add_to_collection(TRAINABLE_VARIABLES, self)

    dtype = property(lambda self: self.handle.dtype)
    shape = property(lambda self: TensorShape(self.handle.type.shape))
    op = property(lambda self: self.handle)

    def get_shape(self) -> TensorShape:
        """The shape, as TensorFlow 1 spells it."""
        return self.shape

    @property
    def type(self) -> TensorType:
        return self.handle.type

    def as_tensor(self) -> Node:
        """A tensor that reads the variable, after the control inputs of this moment."""
        return apply(state.read, (self.handle,), {}, name=self.name.rpartition("/")[2] + "_read")

    value = read_value = as_tensor

    def initialized_value(self) -> Node:
        """The initial value as a tensor."""
        return self.initial_value

    def assign(self, value, use_locking=None, name=None, read_value=True) -> Node:
        """Give it `value` at the end of the run; the result is that value. Raises on another dtype or shape."""
        return self._write(state.assign, value, name)

    def assign_add(self, delta, use_locking=None, name=None, read_value=True) -> Node:
        """Add `delta` at the end of the run; the result is the sum."""
        return self._write(state.assign_add, delta, name)

    def assign_sub(self, delta, use_locking=None, name=None, read_value=True) -> Node:
        """Subtract `delta` at the end of the run; the result is the difference."""
        return self._write(state.assign_sub, delta, name)

    def _write(self, op, value, name) -> Node:
        value = as_node(value, self.dtype, op.name)
        condition = self.graph.scope_state.get(CONDITION)
        if condition is not None:
            value = where(condition, value, self.as_tensor() if op is state.assign else 0)
        return apply(op, (self.handle, value), {}, name=name)

    def eval(self, session=None):
        """The value in `session` or the default session."""
        return self.snapshot.eval(session=session)

    def load(self, value, session=None) -> None:
        """Set the value in `session` or the default session, outside any run."""
        OPERATORS["load"](self, value, session)

    def __repr__(self) -> str:
        return f"<graphc.Variable {self.name}: {self.type}>"

    def __getitem__(self, key):
        return OPERATORS["getitem"](self.as_tensor(), key)

    def __bool__(self):
        return bool(self.snapshot)

    def __iter__(self):
        return iter(self.snapshot)

    __array_priority__ = 1000


class WideVariable:
    """A variable of float16 or bfloat16 as float32, in which it is computed: what is written is rounded."""

    def __init__(self, variable: Variable):
        self.variable = variable

    dtype = property(lambda self: self.variable.dtype.arithmetic)
    shape = property(lambda self: self.variable.shape)
    name = property(lambda self: self.variable.name)

    def as_tensor(self) -> Node:
        """A tensor that reads the variable."""
        return cast(self.variable.as_tensor(), dtype=self.dtype)

    value = read_value = as_tensor

    def assign(self, value) -> Node:
        """Give it `value`, rounded."""
        return self.variable.assign(self._rounded(value))

    def assign_add(self, delta) -> Node:
        """Add `delta`, rounded."""
        return self.variable.assign_add(self._rounded(delta))

    def assign_sub(self, delta) -> Node:
        """Subtract `delta`, rounded."""
        return self.variable.assign_sub(self._rounded(delta))

    def _rounded(self, value) -> Node:
        return cast(as_node(value, self.dtype), dtype=self.variable.dtype)

    __array_priority__ = 1000


def _forward(method: str):
    return lambda self, *others: getattr(self.as_tensor(), method)(*others)


for _class in (Variable, WideVariable):
    for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"):
        for _form in (f"__{_name}__", f"__r{_name}__"):
            setattr(_class, _form, _forward(_form))
    for _name in ("lt", "le", "gt", "ge", "neg", "invert", "abs"):
        setattr(_class, f"__{_name}__", _forward(f"__{_name}__"))
