"""Graphs as text. `parse(print_graph(g))` equals `g`. The grammar is in docs/ir.md."""
from __future__ import annotations

import re

import numpy as np

from graphc.ir.dims import Dim
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.op import Array, Kind, PythonFunction
from graphc.ir.types import DType, TensorType, bfloat16, type_text

_WORD = re.compile(r"[A-Za-z_.][A-Za-z0-9_.\-/]*\Z")
SMALL = 64  # constants with more elements are printed by their hash


def print_graph(graph: Graph, locations: bool = True) -> str:
    """The text form of a graph. Nodes without a name get the next free numbers."""
    return "\n".join(_Printer(locations).graph(graph, "", "graph")) + "\n"


def large_constants(graph: Graph) -> dict[str, np.ndarray]:
    """digest -> array, for the constants that the text only names."""
    found = {}
    for node in graph.nodes():
        for value in node.attrs.values():
            if isinstance(value, Array) and value.size > SMALL:
                found[value.digest] = value.value
            if isinstance(value, Graph):
                found.update(large_constants(value))
    return found


class _Printer:
    def __init__(self, locations: bool):
        self.locations = locations

    def graph(self, graph: Graph, indent: str, head: str) -> list[str]:
        order = graph.nodes()
        names = _names(order)
        parameters = ", ".join(_parameter(n, names[n]) for n in graph.inputs)
        lines = [f"{indent}{head} {graph.name}({parameters}) {{"]
        for equation in graph.equations:
            lines.append(f"{indent}  require {equation.left} == {equation.right}" + self.comment(equation.location))
        for node in order:
            if node.op.kind is not Kind.INPUT:
                lines += self.statement(node, names, indent + "  ")
        lines.append(f"{indent}  return {', '.join(names[o] for o in graph.outputs)}".rstrip())
        lines.append(f"{indent}}}")
        return lines

    def statement(self, node: Node, names: dict[Node, str], indent: str) -> list[str]:
        bodies = [(k, v) for k, v in node.attrs.items() if isinstance(v, Graph)]
        arguments = [names[i] for i in node.inputs]
        for key, value in node.attrs.items():
            if value != node.op.attrs.get(key) and not isinstance(value, Graph):
                arguments.append(f"{key}={attribute_text(value)}")
        text = f"{indent}{names[node]}: {type_text(node.type)} = {node.op.name}({', '.join(arguments)})"
        if node.control:
            text += f" after({', '.join(names[c] for c in node.control)})"
        comment = self.comment(node.location)
        if not bodies:
            return [text + comment]
        lines = [text + " {" + comment]
        for key, body in bodies:
            lines += self.graph(body, indent + "  ", "graph" if key == "body" else f"{key} = graph")
        return [*lines, indent + "}"]

    def comment(self, location) -> str:
        return f"  # {location}" if self.locations and location else ""


def _names(order: list[Node]) -> dict[Node, str]:
    taken = {n.name for n in order if n.name}
    numbers = (str(n) for n in range(len(order) + len(taken)) if str(n) not in taken)
    names, used = {}, set()
    for node in order:
        name = node.name if node.name and node.name not in used else next(numbers)
        used.add(name)
        names[node] = name if node.op.kind is Kind.INPUT and _WORD.match(name) else "%" + name
    return names


def _parameter(node: Node, name: str) -> str:
    role = "" if node.attrs["role"] == "feed" else " " + node.attrs["role"]
    return f"{name}: {type_text(node.type)}{role}"


def attribute_text(value) -> str:
    """How the text form spells an attribute."""
    if isinstance(value, Array):
        return _array_text(value)
    if isinstance(value, tuple):
        return "(" + ", ".join(attribute_text(v) for v in value) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, DType | TensorType | Dim):
        return str(value)
    if isinstance(value, PythonFunction):
        value = value.name
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if value is None:
        return "none"
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating) or getattr(value, "dtype", None) == bfloat16:
        return _float_text(value)
    raise TypeError(f"an attribute cannot be a {type(value).__name__}")


def _float_text(value) -> str:
    """The shortest text that reads back to the same number of its dtype; nan, inf and -inf are words of the grammar."""
    return "nan" if value != value else str(value)


def _array_text(array: Array) -> str:
    if array.size > SMALL:
        return f'array("{array.digest}")'
    return _nested(array.value)


def _nested(value: np.ndarray) -> str:
    if value.ndim:
        return "[" + ", ".join(_nested(v) for v in value) + "]" if value.size else f"empty{list(value.shape)}"
    return attribute_text(value[()])
