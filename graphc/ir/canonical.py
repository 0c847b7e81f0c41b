"""A graph without what does not change its program: names, lines, Python functions, drawn seeds, elements of large constants.

Two graphs of one canonical form have one program, but for what they leave out: that each of them numbers, in order of
appearance. What a program says of it, it says by these numbers.
"""
from __future__ import annotations

import json
import re

import numpy as np

from graphc.errors import Place
from graphc.ir.dims import Dim, Size
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.op import LARGE, Array, Drawn, PythonFunction, WatchedArray
from graphc.ir.types import DType, TensorType

_NAMES = re.compile(r"[A-Za-z_]\w*")
_FUNCTIONS = {"max", "min"}


class NotPortable(Exception):
    """The graph holds what only this process knows: a program of it is of no use to another one."""


def renamed(text: str, names) -> str:
    """The text of a dim with other names: `names(name)` gives the new one."""
    return _NAMES.sub(lambda m: m[0] if m[0] in _FUNCTIONS else names(m[0]), text)


class Encoder:
    """Attributes of nodes as JSON; those who derive from it say how they write sizes, large arrays and graphs.

    functions: what host ops call; drawn: the seeds of the system. Their numbers stand for them.
    """

    functions: list[PythonFunction]
    drawn: list[int]

    def value(self, value):
        """An attribute as JSON. Raises NotPortable."""
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return value
        if isinstance(value, tuple):
            return ["t", *map(self.value, value)]
        if kind is DType:
            return ["d", value.short]
        if kind is TensorType:
            return ["T", value.dtype.short, *map(self.dim, value.shape)]
        if kind is Dim:
            return ["D", self.dim(value)]
        if kind is Drawn:
            return ["s", _number(self.drawn, value)]
        if kind is PythonFunction:
            return ["p", _number(self.functions, value)]
        if isinstance(value, Array):
            return self.array(value) if value.content.nbytes > LARGE else \
                ["a", value.dtype.name, list(value.shape), value.content.tobytes().hex()]
        if kind is Graph:
            return ["G", self.graph(value)]
        if isinstance(value, np.generic):
            return ["n", value.dtype.name, value.tobytes().hex()]
        raise NotPortable(f"an attribute is a {kind.__name__}")

    def dim(self, dim: Size) -> int | str:
        """A size."""
        return dim if isinstance(dim, int) else renamed(str(dim), self.name)

    def name(self, name: str) -> str:
        """What stands for a dim's name."""
        raise NotImplementedError

    def array(self, array: Array) -> list:
        """What stands for a large constant."""
        raise NotImplementedError

    def graph(self, graph: Graph):
        """A graph as JSON."""
        raise NotImplementedError


class Canonical(Encoder):
    """The canonical form of a graph, as a text, and what it leaves out.

    nodes      of the graph and of the bodies in it; functions: those that host ops call; drawn: the seeds of the system;
    arrays     the large constants, each content once; dims: name -> canonical name.
    Raises NotPortable.
    """

    def __init__(self, graph: Graph):
        self.whole = graph
        self.nodes: list[Node] = []
        self.dims: dict[str, str] = {}
        self.functions, self.drawn = [], []
        self.arrays: list[Array] = []
        self._arrays: dict[Array, int] = {}
        self.text = json.dumps(self.graph(graph), separators=(",", ":"))

    def graph(self, graph: Graph) -> list:
        order = graph.nodes()
        self.nodes += order
        place = {n: k for k, n in enumerate(order)}
        rows = [self._node(n, place) for n in order]
        equations = [[self.dim(e.left), self.dim(e.right)] for e in graph.equations]
        ends = [[place[n] for n in group] for group in (graph.inputs, graph.outputs, graph.required)]
        return [rows, ends, equations]

    def _node(self, node: Node, place: dict[Node, int]) -> list:
        op = node.op
        if op.is_users:
            raise NotPortable(f"the op {op.name} is defined outside of graphc")
        attrs = {k: self.value(v) for k, v in node.attrs.items() if k != "variable"}
        return [op.name, [place[i] for i in node.inputs], [place[c] for c in node.control], attrs]

    def name(self, name: str) -> str:
        return self.dims.setdefault(name, f"d{len(self.dims)}")

    def array(self, array: Array) -> list:
        number = self._arrays.setdefault(array, len(self.arrays))
        if number == len(self.arrays):
            self.arrays.append(array)
        return ["A", array.dtype.name, list(array.shape), number]

    def watched(self) -> Graph:
        """The graph with its nodes' numbers along with their lines, and large constants that note who looks at them."""
        number = {}
        for k, node in enumerate(self.nodes):
            number.setdefault(node, k)
        return _Watched(number, self._arrays).graph(self.whole)


def _number(known: list, value) -> int:
    if value not in known:
        known.append(value)
    return known.index(value)


class _Watched:
    def __init__(self, number: dict[Node, int], arrays: dict[Array, int]):
        self.number = number
        self.arrays = {a: WatchedArray(a, k) for a, k in arrays.items()}
        self.new: dict[Node, Node] = {}
        self.graphs: dict[int, Graph] = {}

    def graph(self, graph: Graph) -> Graph:
        if id(graph) not in self.graphs:
            for node in graph.nodes():
                if node not in self.new:
                    self.new[node] = self.node(node)
            self.graphs[id(graph)] = graph.mapped(self.new)
        return self.graphs[id(graph)]

    def node(self, node: Node) -> Node:
        attrs = {k: self.graph(v) if isinstance(v, Graph) else self.arrays[v] if self.is_large(v) else v
                 for k, v in node.attrs.items()}
        line = node.location
        place = Place(line.file, line.line, self.number[node]) if line else None
        inputs, control = (tuple(self.new[n] for n in group) for group in (node.inputs, node.control))
        return Node(node.op, inputs, attrs, node.type, control, node.name, place)

    @staticmethod
    def is_large(value) -> bool:
        return isinstance(value, Array) and value.content.nbytes > LARGE
