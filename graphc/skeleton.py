"""A segmented graph as JSON: what Python does between native programs, and with which nodes.

Segments are left out: each is the number of a program. What belongs to the graph at hand (functions, lines, names, seeds,
large constants) is a number in its `Canonical` form.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from graphc.errors import Place
from graphc.ir import dims
from graphc.ir.canonical import Canonical, Encoder, renamed
from graphc.ir.graph import Equation, Graph
from graphc.ir.node import INPUT, Node
from graphc.ir.op import OPS, Array, Drawn, Kind, WatchedArray
from graphc.ir.types import BY_SHORT, TensorType
from graphc.ops.state import write
from graphc.passes.segment import SEGMENT
from graphc.program import array_dtype


class Writer(Encoder):
    """Writes a segmented graph that comes from the `watched` graph of `form`."""

    def __init__(self, form: Canonical, programs: Mapping[Graph, int], name: Callable[[str], str], blobs: list[bytes]):
        """programs: the number of each segment's program; name: the canonical names of dims; blobs receives large arrays."""
        self.form, self.programs, self.blobs = form, programs, blobs
        self.functions, self.drawn = form.functions, form.drawn
        self.canonical_name = name
        self.labels: dict[str, int] = {}
        for k, node in enumerate(form.nodes):
            self.labels.setdefault(node.name, k)
        self.inputs = {n.attrs["variable"]: k for k, n in enumerate(form.whole.inputs) if n.attrs["role"] == "variable"}

    def name(self, name: str) -> str:
        return self.canonical_name(name)

    def graph(self, graph: Graph) -> dict:
        order = graph.nodes()
        place = {n: k for k, n in enumerate(order)}
        return {"name": graph.name, "nodes": [self.node(n, place) for n in order],
                "inputs": [place[n] for n in graph.inputs], "outputs": [place[n] for n in graph.outputs],
                "required": [place[n] for n in graph.required],
                "equations": [[self.dim(e.left), self.dim(e.right), _number(e.location)] for e in graph.equations]}

    def node(self, node: Node, place: Mapping[Node, int]) -> list:
        attrs = self.segment(node.attrs["body"]) if node.op.kind is Kind.SEGMENT else \
            {k: self.value(v) for k, v in node.attrs.items() if k != "variable"}
        if node.op.kind is Kind.INPUT and node.attrs["variable"] is not None:
            attrs["variable"] = self.inputs[node.attrs["variable"]]
        name = self.labels.get(node.name, node.name)
        return [node.op.name, [place[i] for i in node.inputs], attrs, self.type(node.type), name, _number(node.location)]

    def type(self, type_):
        return [self.value(t) for t in type_] if isinstance(type_, tuple) else self.value(type_)

    def segment(self, body: Graph) -> dict:
        outputs = [[self.type(o.type), is_write(o)] for o in body.outputs]
        return {"program": self.programs[body], "name": body.name, "outputs": outputs}

    def array(self, array: Array) -> list:
        if isinstance(array, WatchedArray):
            return ["A", array.number]
        self.blobs.append(array.content.tobytes())
        return ["b", array.dtype.name, list(array.shape), len(self.blobs) - 1]


class Reader:
    """Makes the graph that a `Writer` wrote, for the graph at hand.

    programs: body -> number of its program; orders: the nodes of each graph in the order in which they run.
    """

    def __init__(self, form: Canonical, name: Callable[[str], str], blobs: list[bytes]):
        self.form, self.name, self.blobs = form, name, blobs
        self.programs: dict[Graph, int] = {}
        self.orders: dict[Graph, list[Node]] = {}

    def graph(self, document: Mapping) -> Graph:
        nodes: list[Node] = []
        for row in document["nodes"]:
            nodes.append(self.node(row, nodes))
        inputs, outputs, required = (tuple(nodes[k] for k in document[key]) for key in ("inputs", "outputs", "required"))
        equations = tuple(Equation(self.dim(a), self.dim(b), self.location(at)) for a, b, at in document["equations"])
        made = Graph(document["name"], inputs, outputs, equations, required)
        self.orders[made] = nodes
        return made

    def node(self, row: list, nodes: list[Node]) -> Node:
        name, inputs, attrs, type_, label, at = row
        op = SEGMENT if name == SEGMENT.name else OPS[name]
        if op is SEGMENT:
            values: dict = {"body": self.segment(attrs)}
        else:
            values = {k: self.value(v) for k, v in attrs.items() if k != "variable"}
        if op is INPUT:
            known = attrs.get("variable")
            values["variable"] = None if known is None else self.form.whole.inputs[known].attrs["variable"]
        label = label if isinstance(label, str) else self.form.nodes[label].name
        return Node(op, tuple(nodes[k] for k in inputs), values, self.type(type_), name=label, location=self.location(at))

    def segment(self, attrs: Mapping) -> Graph:
        """What stands for a segment's graph: only the types of its outputs."""
        outputs = tuple(Node(write if writes else INPUT, (), {}, self.type(type_)) for type_, writes in attrs["outputs"])
        body = Graph(attrs["name"], (), outputs)
        self.programs[body] = attrs["program"]
        return body

    def type(self, value):
        return self.value(value) if value and isinstance(value[0], str) else tuple(map(self.value, value))

    def value(self, value):
        """An attribute."""
        if not isinstance(value, list):
            return value
        kind, *rest = value
        return self.readers[kind](self, *rest)

    def dim(self, value: int | str) -> dims.Size:
        return value if isinstance(value, int) else dims.parse(renamed(value, self.name))

    def location(self, number: int):
        return self.form.nodes[number].location if number >= 0 else None

    def array(self, dtype: str, shape: list[int], data: bytes) -> Array:
        return Array(np.frombuffer(data, array_dtype(dtype)).reshape(shape))

    readers: Mapping[str, Callable] = {
        "t": lambda self, *values: tuple(map(self.value, values)),
        "d": lambda self, short: BY_SHORT[short],
        "T": lambda self, short, *shape: TensorType(BY_SHORT[short], tuple(map(self.dim, shape))),
        "D": lambda self, text: self.dim(text),
        "s": lambda self, number: Drawn(self.form.drawn[number]),
        "p": lambda self, number: self.form.functions[number],
        "a": lambda self, dtype, shape, digits: self.array(dtype, shape, bytes.fromhex(digits)),
        "A": lambda self, number: self.form.arrays[number],
        "b": lambda self, dtype, shape, blob: self.array(dtype, shape, self.blobs[blob]),
        "G": lambda self, document: self.graph(document),
        "n": lambda self, dtype, digits: np.frombuffer(bytes.fromhex(digits), array_dtype(dtype))[0],
    }


def is_write(node: Node) -> bool:
    """Whether an output of a pure graph is a variable's new state."""
    return node.op.kind is Kind.EFFECT and node.op.rule.action == "write"


def _number(location) -> int:
    return location.number if isinstance(location, Place) else -1
