"""Python inside of graphs: py_func, Print and Assert. Each ends a native segment where it runs.

Functions run once for each run that needs them, on copies of the values. With GRAPHC_CHECK=2 they run several times.
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from graphc.errors import ArgumentError, report
from graphc.ir.container import get_default_graph
from graphc.ir.node import Node, as_node, result
from graphc.ir.op import PythonFunction
from graphc.ir.types import TensorType, as_dtype, as_shape
from graphc.ops import python


def py_func(func: Callable, inp: Sequence, Tout, stateful: bool = True, name: str | None = None, shape=None):
    """What the Python function `func` of the arrays `inp` gives: a tensor of dtype Tout, or a list of them for a list.

    shape  of the result, or a list of shapes; None in it is a size that only the function knows. It must be given: types are
           settled when the graph is built.
    The function runs in each run that needs it, or that runs something ordered after it; with Tout=[] it is an operation. What
    it raises, the run raises; variables then stay as they were. No gradient flows through it.
    Raises ArgumentError without shapes.
    """
    single = not isinstance(Tout, list | tuple)
    dtypes = [as_dtype(t) for t in ([Tout] if single else Tout)]
    shapes = [shape] if single else [None] * len(dtypes) if shape is None else list(shape)
    if any(s is None for s in shapes) or len(shapes) != len(dtypes):
        raise report(ArgumentError, "py_func: the shape of each result must be given",
                     rule=f"{len(dtypes)} results" + ("" if shape is None else f", shape={shape!r:.60}"),
                     hint="shape=[None, 3]: None is a size that only the function knows")
    graph = get_default_graph()
    new: list = []

    def fresh():
        new.append(graph.fresh_dim())
        return new[-1]
    types = tuple(TensorType(d, as_shape(s, fresh)) for d, s in zip(dtypes, shapes, strict=True))
    function = PythonFunction(func, getattr(func, "__name__", type(func).__name__))
    made = python.python_call(*inp, function=function, types=types, dims=tuple(new), name=name or "py_func")
    if not types:
        return made
    found = [result(made, k) for k in range(len(types))]
    return found[0] if single else found


def numpy_function(func: Callable, inp: Sequence, Tout, name: str | None = None, stateful: bool = True, shape=None):
    """`py_func` by its newer name."""
    return py_func(func, inp, Tout, stateful, name, shape)


class _Print:
    """Writes a line for each of the first `first_n` looks (all when it is None or negative)."""

    def __init__(self, message: str, parts, first_n: int | None, summarize: int | None):
        self.message, self.parts, self.summarize = message, parts, summarize
        self.left = -1 if first_n is None else first_n

    def __call__(self, *data) -> None:
        if self.left:
            self.left -= 1
            print(f"{self.message}{python.summary(data, self.parts, self.summarize)}", file=sys.stderr, flush=True)


def Print(input_, data, message: str | None = None, first_n: int | None = None, summarize: int | None = None,
          name: str | None = None) -> Node:
    """input_ itself; when it is computed, `message` and the values of the list `data` go to stderr.

    first_n    how many times; default always. summarize: elements of each tensor, default 3; -1: all.
    """
    tensors, parts = _parts(data, "Print")
    function = PythonFunction(_Print(message or "", parts, first_n, summarize), "Print")
    return python.watch(input_, *tensors, function=function, name=name or "Print")


def Assert(condition, data, summarize: int | None = None, name: str | None = None) -> Node:
    """An operation that fails with the values of the list `data` unless all of `condition` is true.

    It runs when it is fetched or when something is ordered after it by `control_dependencies`. A run that it fails changes no
    variable.
    """
    tensors, parts = _parts(data, "Assert")
    return python.require(condition, *tensors, parts=parts, summarize=summarize, name=name or "Assert")


def _parts(data, what: str) -> tuple[list[Node], tuple[str | None, ...]]:
    """The tensors among `data`, and its form: texts, and None for each tensor."""
    if not isinstance(data, list | tuple):
        raise report(ArgumentError, f"{what}: data is a list of tensors and texts, not {data!r:.60}")
    return [as_node(d) for d in data if not isinstance(d, str)], tuple(d if isinstance(d, str) else None for d in data)
