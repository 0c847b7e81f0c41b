"""The interpreter: runs a graph by the ops' NumPy rules, one node at a time. It is right by being obvious: the oracle."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import RunError, ShapeError, report
from graphc.ir import dims
from graphc.ir.dims import Dim
from graphc.ir.graph import Equation, Graph
from graphc.ir.node import Node
from graphc.ir.op import Kind
from graphc.ir.types import TensorType, kind_of

# What computes: a rule of these kinds sees float32 for float16 and bfloat16, and its result is rounded once.
ARITHMETIC = {Kind.ELEMENTWISE, Kind.REDUCE, Kind.CONTRACT, Kind.SCATTER, Kind.ROUTINE}


def interpret(graph: Graph, values: Sequence[np.ndarray], run: int = 0, env: Mapping[str, int] | None = None,
              keep: dict[Node, object] | None = None) -> list:
    """The values of the graph's outputs for the values of its inputs.

    run   the run number, which random ops count.
    env   sizes of named dims; bound from the inputs' shapes when not given.
    keep  a dict that receives the value of every node.
    """
    env = dict(env) if env is not None else bind_dims(graph.inputs, [np.shape(v) for v in values])
    equations = check_equations(graph.equations, env)
    value: dict[Node, object] = {} if keep is None else keep
    for node, given in zip(graph.inputs, values, strict=True):
        value[node] = np.asarray(given)
    with np.errstate(all="ignore"):
        for node in graph.nodes():
            if node.op.kind is not Kind.INPUT:
                value[node] = evaluate(node, [value[i] for i in node.inputs], run, env)
            if node.op.kind is Kind.HOST:
                bind_result(node, value[node], env)
                equations = check_equations(equations, env)
    return [value[o] for o in graph.outputs]


def evaluate(node: Node, inputs: Sequence, run: int = 0, env: Mapping[str, int] | None = None, call: Callable = interpret):
    """The value of one node for the values of its inputs, of exactly the node's dtype. `call` runs the graphs that a branch or
    a loop holds.
    """
    attrs = {k: _concrete(v, env or {}) for k, v in node.attrs.items()}
    if node.op.kind in (Kind.REGION, Kind.SEGMENT):
        outputs = tuple(interpret(attrs["body"], inputs, run, env))
        return outputs if isinstance(node.type, tuple) else outputs[0]
    context: dict[str, Any] = {"run": run, "env": env or {}, "call": call}
    if "type" in node.op.context:
        context["type"] = node.type.substitute(env or {})
    extra = {name: context[name] for name in node.op.context}
    if node.op.kind in ARITHMETIC:
        inputs = [widened(i) for i in inputs]
    try:
        found = node.op.numpy(*inputs, **attrs, **extra)
    except RunError as e:  # the rule says which element is wrong; the node knows the op and the user's line
        if node.op.kind in (Kind.COND, Kind.WHILE, Kind.SCAN):
            raise              # a node of its body has said all that
        raise report(RunError, f"{node.op.name}: {e}", location=node.location) from None
    if isinstance(node.type, tuple):
        return tuple(_typed(f, t) for f, t in zip(found, node.type, strict=True))
    return _typed(found, node.type)


def iteration_number(run: int, iteration: int) -> int:
    """What random ops in a loop's body count as the run number: another one for each iteration of each run."""
    number = (run * 0x5851F42D4C957F2D + iteration + 1) & (2**64 - 1)
    return number - 2**64 if number >= 2**63 else number


def widened(array):
    """Numbers of float16 and bfloat16 as float32, which all arithmetic on them uses; anything else as it is."""
    dtype = array.dtype
    return array.astype(np.float32) if dtype.itemsize == 2 and kind_of(dtype) == "f" else array


def _typed(value, type_: TensorType) -> np.ndarray:
    array = np.asarray(value)
    return array if array.dtype == type_.dtype.numpy else array.astype(type_.dtype.numpy)


def _concrete(value, env):
    if isinstance(value, Dim):
        return dims.substitute(value, env)
    if isinstance(value, tuple):
        return tuple(_concrete(v, env) for v in value)
    return value


def bind_dims(inputs: Sequence[Node], shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
    """Sizes of the named dims from the inputs' shapes.

    A dim that is a name binds it, then `2*M+1` binds M where nothing else does. All dims are checked once all names are
    bound. Raises ShapeError naming the inputs.
    """
    env: dict[str, int] = {}
    source: dict[str, Node] = {}
    for node, shape in zip(inputs, shapes, strict=True):
        if len(shape) != node.type.rank:
            raise _mismatch(node, shape)
        source |= dict.fromkeys(_told(node.type.shape, shape, env), node)
    for node, shape in zip(inputs, shapes, strict=True):
        source |= dict.fromkeys(_solved(node.type.shape, shape, env), node)
    for node, shape in zip(inputs, shapes, strict=True):
        for dim, size in zip(node.type.shape, shape, strict=True):
            if dims.substitute(dim, env) != size:
                others = [source[n] for n in dims.names(dim) if n in source and source[n] is not node]
                raise _mismatch(node, shape, others, f"{dim} = {dims.substitute(dim, env)} != {size}")
    return env


def _told(shape, sizes: Sequence[int], env: dict[str, int]) -> list[str]:
    """Bind the names that stand alone in `shape` and have no size yet; which they are."""
    found = {str(d): s for d, s in zip(shape, sizes, strict=True) if dims.is_name(d) and str(d) not in env}
    env |= found
    return list(found)


def _solved(shape, sizes: Sequence[int], env: dict[str, int]) -> list[str]:
    """Bind what `2*M+1` tells of names that have no size yet; which they are."""
    found = []
    for dim, size in zip(shape, sizes, strict=True):
        if (solved := dims.solve(dims.substitute(dim, env), size)) is not None:
            env[solved[0]] = solved[1]
            found.append(solved[0])
    return found


def bind_result(node: Node, value, env: dict[str, int]) -> None:
    """Add to `env` the sizes that a host node's result tells. Raises ShapeError where it does not fit the node's type."""
    several = isinstance(node.type, tuple)
    for type_, array in zip(node.type, value, strict=True) if several else [(node.type, value)]:
        shape = np.shape(array)
        fits = len(shape) == type_.rank
        if fits:
            _told(type_.shape, shape, env)
            _solved(type_.shape, shape, env)
        if not fits or any(dims.substitute(d, env) != s for d, s in zip(type_.shape, shape, strict=True)):
            sizes = ", ".join(f"{d} = {dims.substitute(d, env)}" for d in type_.shape if isinstance(d, Dim)) if fits else ""
            raise report(ShapeError, f"{node.op.name}: a result of shape {shape} does not fit {type_}",
                         [("node", node.describe())], f"with {sizes}" if sizes else "", location=node.location)


def check_equations(equations: Sequence[Equation], env: Mapping[str, int]) -> list[Equation]:
    """The equations that hold names without a size yet. Raises ShapeError for one that is wrong."""
    waiting = []
    for equation in equations:
        try:
            left, right = (dims.substitute(d, env) for d in (equation.left, equation.right))
        except ZeroDivisionError:
            raise report(ShapeError, f"a size is divided by 0: {equation.left} == {equation.right}",
                         location=equation.location) from None
        if isinstance(left, Dim) or isinstance(right, Dim):
            waiting.append(equation)
        elif left != right:
            raise report(ShapeError, f"the sizes do not fit together: {equation.left} != {equation.right}",
                         rule=f"{left} != {right}", location=equation.location)
    return waiting


def _mismatch(node: Node, shape, others=(), rule: str = ""):
    operands = [("fed", node.describe())] + [("with", n.describe()) for n in others]
    expected = ", ".join(str(d) for d in node.type.shape)
    return report(ShapeError, f"the value of shape {tuple(shape)} does not fit {node.label} of shape ({expected})",
                  operands, rule)
