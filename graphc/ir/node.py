"""Nodes: immutable, typed when made, with the user's line. A user's tensor is a node."""
from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphc.errors import DTypeError, GraphcError, GraphError, Location, OperatorError, RuleError, report, user_location
from graphc.ir import dims
from graphc.ir.container import Graph as Container
from graphc.ir.container import current_container, inherited_location
from graphc.ir.op import Array, Kind, Op
from graphc.ir.types import DType, TensorType, Type, as_dtype, float32, int32, kind_of, type_text, whole_numbers

_serial = itertools.count()
# What Python's operators and some methods do with nodes; filled by the layers above (graphc.ops, graphc.session).
OPERATORS: dict[str, Callable] = {}


class TensorShape(tuple):
    """A shape as TensorFlow 1 shows it: a tuple of dims with `as_list()` and `ndims`."""

    ndims = property(len)
    rank = property(len)

    def __repr__(self) -> str:
        return f"({', '.join(str(d) for d in self)}{',' if len(self) == 1 else ''})"

    def as_list(self) -> list[int | None]:
        """Sizes as ints, None where only a run knows."""
        return [d if isinstance(d, int) else None for d in self]

    def is_fully_defined(self) -> bool:
        """Whether all sizes are numbers."""
        return all(isinstance(d, int) for d in self)

    def num_elements(self) -> int | None:
        """The number of elements, None when unknown."""
        return int(np.prod(tuple(self))) if self.is_fully_defined() else None


class Node:
    """One operation with its inputs, and the value it gives.

    op, inputs, attrs, control (nodes that must run before), type, name, location, graph (the user's container or None),
    serial (order of making). Nodes compare by identity.
    """

    __slots__ = ("op", "inputs", "attrs", "control", "type", "name", "location", "graph", "serial", "__weakref__")

    op: Op
    inputs: tuple[Node, ...]
    attrs: Mapping[str, Any]
    control: tuple[Node, ...]
    type: Any
    name: str
    location: Location | None
    graph: Container | None
    serial: int

    def __init__(self, op, inputs, attrs, type_, control=(), name="", location=None, graph=None):
        put = object.__setattr__
        put(self, "op", op)
        put(self, "inputs", tuple(inputs))
        put(self, "attrs", attrs)
        put(self, "type", type_)
        put(self, "control", tuple(control))
        put(self, "name", name)
        put(self, "location", location)
        put(self, "graph", graph)
        put(self, "serial", next(_serial))

    def __setattr__(self, name, value):
        raise AttributeError(f"nodes are immutable: cannot set {name!r} on {self.label}")

    # what users ask ----------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> TensorShape:
        """The shape, a tuple of ints and named dims."""
        return TensorShape(self._tensor_type().shape)

    @property
    def dtype(self) -> DType:
        return self._tensor_type().dtype

    def get_shape(self) -> TensorShape:
        """The shape, as TensorFlow 1 spells it."""
        return self.shape

    def eval(self, feed_dict=None, session=None):
        """The value, from `session` or the default session."""
        return OPERATORS["eval"](self, feed_dict, session)

    def run(self, feed_dict=None, session=None) -> None:
        """Run this operation in `session` or the default session."""
        OPERATORS["eval"](self, feed_dict, session)

    def _tensor_type(self) -> TensorType:
        if isinstance(self.type, tuple):
            raise report(OperatorError, f"{self.label} is an operation, not one tensor",
                         rule=f"it gives {len(self.type)} results" if self.type else "it has no value")
        return self.type

    # texts -------------------------------------------------------------------------------------------------------------

    @property
    def label(self) -> str:
        """The name, or the op when there is none."""
        return self.name or self.op.name

    def describe(self) -> str:
        """`h: f32[N,784]  made at train.py:12`, for error messages."""
        born = f"  made at {self.location}" if self.location else ""
        return f"{self.label}: {type_text(self.type)}{born}"

    def __repr__(self) -> str:
        return f"<graphc.Tensor {self.label}: {type_text(self.type)}>"

    # operators ---------------------------------------------------------------------------------------------------------

    __hash__ = object.__hash__
    __array_priority__ = 1000  # NumPy arrays and scalars on the left leave the operation to us

    def __bool__(self):
        raise report(OperatorError, f"the tensor {self.label} has no truth value while the graph is built",
                     rule="use graphc.where(condition, a, b), or compare values that Session.run returned")

    def __len__(self):
        raise report(OperatorError, f"len() of the tensor {self.label}", rule=f"its shape is [{self.shape}]; use .shape[0]")

    def __iter__(self):
        raise report(OperatorError, f"the tensor {self.label} cannot be iterated while the graph is built",
                     rule="use graphc.unstack(x) for a list of its rows")

    def __array__(self, *_args, **_kwargs):
        raise report(OperatorError, f"the tensor {self.label} has no value while the graph is built",
                     rule="NumPy functions need values: use graphc's functions, or values that Session.run returned")

    def __getitem__(self, key):
        return OPERATORS["getitem"](self, key)


def _binary(symbol: str, reverse: bool = False):
    if reverse:
        def method(self, other):
            return OPERATORS[symbol](other, self)
    else:
        def method(self, other):
            return OPERATORS[symbol](self, other)
    return method


for _symbol, _method in {"+": "add", "-": "sub", "*": "mul", "/": "truediv", "//": "floordiv", "%": "mod", "**": "pow",
                         "@": "matmul", "&": "and", "|": "or", "^": "xor"}.items():
    setattr(Node, f"__{_method}__", _binary(_symbol))
    setattr(Node, f"__r{_method}__", _binary(_symbol, reverse=True))
for _symbol, _method in {"<": "lt", "<=": "le", ">": "gt", ">=": "ge"}.items():
    setattr(Node, f"__{_method}__", _binary(_symbol))
for _symbol, _method in {"neg": "neg", "~": "invert", "abs": "abs"}.items():
    setattr(Node, f"__{_method}__", lambda self, _symbol=_symbol: OPERATORS[_symbol](self))


# making nodes ----------------------------------------------------------------------------------------------------------


def make(op: Op, inputs: tuple[Node, ...], attrs: Mapping[str, Any] | None = None, *, control=(), name: str = "",
         location: Location | None = None, graph: Container | None = None) -> Node:
    """A node with its type inferred. Raises the type rule's error, dressed with operands and the user's line."""
    attrs = op.full_attrs(attrs or {})
    try:
        type_ = op.infer(*(i.type for i in inputs), **attrs)
    except RuleError as e:
        raise operand_error(op, inputs, e, location) from None
    return Node(op, inputs, attrs, type_, control, name, location, graph)


def operand_error(op: Op, inputs, rule: RuleError, location: Location | None = None) -> GraphcError:
    """The error for a failed type rule."""
    operands = [(op.input_name(k), node.describe()) for k, node in enumerate(inputs)]
    unshaped = next((n for n in inputs if n.graph is not None and n in n.graph.unshaped), None)
    hint = rule.hint
    if not hint and unshaped is not None:
        hint = f"{unshaped.label} was made without a shape, which stands for a scalar: write shape=[None, None] or the like"
    return report(rule.error, f"{op.name}: {rule.what}", operands, rule.rule, hint, location)


def apply(op: Op, inputs, attrs: Mapping[str, Any], name: str | None = None) -> Node:
    """A node in the current graph from what users pass: tensors, variables, numbers, arrays."""
    container = current_container()
    nodes = as_nodes(op, inputs)
    if container is None:
        return make(op, nodes, attrs, location=inherited_location())
    container.check_open()
    location = user_location()
    for node in nodes:
        if node.graph is not container:
            raise report(GraphError, f"{op.name}: the tensors are from different graphs",
                         [(op.input_name(k), n.describe()) for k, n in enumerate(nodes)],
                         "all operands, and the default graph, must be one graph", location=location)
    made = make(op, nodes, attrs, control=container.control_inputs(), location=location, graph=container,
                name=container.unique_name(name or op.name))
    container.add(made)
    if op.kind is Kind.HOST:
        container.binders.update((n, made) for a in op.rule.binds for n in dims.names_in((made.attrs[a],)))
    if op in container.gradient_overrides:
        return OPERATORS["overridden"](made, container.gradient_overrides[op])
    return made


def as_nodes(op: Op, inputs) -> tuple[Node, ...]:
    """The operands as nodes; numbers and arrays take the dtype of the first tensor among them."""
    dtype = next((dtype_of(i) for i in inputs if is_tensor(i) and not isinstance(getattr(i, "type", None), tuple)), None)
    return tuple(as_node(i, dtype, what=op.name) for i in inputs)


def is_tensor(value) -> bool:
    """Whether `value` is a node or stands for one (a variable)."""
    return isinstance(value, Node) or hasattr(value, "as_tensor")


def dtype_of(value) -> DType:
    """The dtype of a node or variable."""
    return value.dtype


def as_node(value, dtype: DType | None = None, what: str = "constant", name: str | None = None) -> Node:
    """`value` as a node: itself, a read of the variable, or a constant of `dtype` (default: float32, int32 or bool)."""
    if isinstance(value, Node):
        return value
    if hasattr(value, "as_tensor"):
        return value.as_tensor()
    array = constant_array(value, dtype, what)
    container = current_container()
    type_ = TensorType(as_dtype(array.dtype), array.shape)
    attrs = {"value": Array(array)}
    if container is None:
        return Node(CONSTANT, (), attrs, type_, location=inherited_location())
    container.check_open()
    node = Node(CONSTANT, (), attrs, type_, name=container.unique_name(name or "constant"), location=user_location(),
                graph=container)
    container.add(node)
    return node


def constant_array(value, dtype: DType | None, what: str) -> np.ndarray:
    """`value` as an array of `dtype` without losing anything but float precision. Raises DTypeError."""
    if isinstance(value, (list, tuple)) and any(is_tensor(v) for v in _leaves(value)):
        raise report(DTypeError, f"{what}: a list that holds tensors is not a constant", hint="use graphc.stack([...])")
    try:
        array = np.asarray(value)
        if array.dtype.kind in "fO" and dtype is not None and dtype.is_integer and not isinstance(value, np.ndarray):
            array = whole_numbers(value, array)
        if array.dtype == object:
            raise ValueError("not numbers")
    except ValueError as e:
        raise report(DTypeError, f"{what}: {value!r:.80} is not an array of numbers", rule=str(e)) from None
    if dtype is None:
        if isinstance(value, np.ndarray | np.generic):
            return array.astype(as_dtype(array.dtype).numpy, copy=False)
        dtype = {"f": float32, "i": int32, "b": as_dtype("bool")}.get(array.dtype.kind) or as_dtype(array.dtype)
        if dtype is int32 and array.size and (array.max() > 2**31 - 1 or array.min() < -2**31):
            dtype = as_dtype("int64")
    return _converted(array, dtype, what)


def _leaves(value):
    for v in value:
        if isinstance(v, (list, tuple)):
            yield from _leaves(v)
        else:
            yield v


def _converted(array: np.ndarray, dtype: DType, what: str) -> np.ndarray:
    kind = kind_of(array.dtype)
    if kind not in "fiub":
        raise report(DTypeError, f"{what}: {array.dtype} does not convert to {dtype.name}")
    if array.size and (kind == "b") != dtype.is_bool:
        raise report(DTypeError, f"{what}: {array.dtype} does not convert to {dtype.name}", hint="use graphc.cast")
    with np.errstate(all="ignore"):
        converted = array.astype(dtype.numpy)
    if dtype.is_integer and kind in "fiu" and not np.array_equal(converted, array):
        raise report(DTypeError, f"{what}: {array.ravel()[(converted != array).ravel()][0]} is not a value of {dtype.name}",
                     rule="a fraction or a number out of range would be lost")
    return converted


# the ops that the IR itself needs ----------------------------------------------------------------------------------------


def _input_type(*, type, role, variable):
    return type


def _no_value(*_, **__):
    raise AssertionError("has no NumPy rule: the interpreter supplies it")


INPUT = Op("input", Kind.INPUT, (), infer=_input_type, numpy=_no_value, grad="an input has no inputs",
           doc="A parameter of a graph: a feed, or (role \"variable\") the state of a variable.",
           attrs={"type": None, "role": "feed", "variable": None})

CONSTANT = Op("constant", Kind.CONSTANT, (), grad="a constant has no inputs", attrs={"value": None},
              infer=lambda *, value: TensorType(as_dtype(value.dtype), value.shape),
              numpy=lambda *, value: value.value, doc="A value that is known when the graph is built.")


def _result_type(tuple_type, *, index):
    return tuple_type[index]


def _result_grad(dy, y, source, *, index):
    raise AssertionError("differentiate collects the gradients of results itself")


RESULT = Op("result", Kind.STRUCTURE, ("source",), infer=_result_type, numpy=lambda source, *, index: source[index],
            grad=_result_grad, attrs={"index": 0}, doc="One result of an op that has several.")

GROUP = Op("group", Kind.STRUCTURE, ("*nodes",), infer=lambda *_: (), numpy=lambda *_: (),
           grad="an operation has no value", doc="An operation that runs all its inputs and has no value.")


def result(node: Node, index: int) -> Node:
    """One result of a node that has several."""
    return apply(RESULT, (node,), {"index": index}, name=node.op.name)


def input_node(name: str, type_: Type, role: str = "feed", location: Location | None = None, variable=None) -> Node:
    """A parameter of an ir.Graph."""
    return Node(INPUT, (), {"type": type_, "role": role, "variable": variable}, type_, name=name, location=location)
