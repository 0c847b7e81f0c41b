"""What a graph's picture shows: items, lines between their ports, and fused regions as items with a picture inside.

DOT and SVG are both written from this.
"""
from __future__ import annotations

import linecache
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from graphc.errors import Location
from graphc.ir.graph import Graph, named
from graphc.ir.node import RESULT, Node
from graphc.ir.op import Array, Kind
from graphc.ir.printer import attribute_text
from graphc.ir.types import TensorType, type_text

LONGEST = 34        # characters of a line in a box
FAMILIES = {        # kind -> style; what is not here is plain
    Kind.CONSTANT: "constant", Kind.ELEMENTWISE: "elementwise", Kind.REDUCE: "reduce", Kind.CONTRACT: "contract",
    Kind.MOVE: "move", Kind.VIEW: "move", Kind.ASSEMBLE: "move", Kind.GATHER: "move", Kind.SCATTER: "move",
    Kind.INDEX: "elementwise", Kind.RANDOM: "random", Kind.EFFECT: "effect", Kind.GRAD: "grad", Kind.HOST: "effect",
}
NESTED = (Kind.REGION, Kind.SEGMENT)    # drawn with the graph inside


@dataclass(eq=False)
class Item:
    """A box: style, lines of text, tooltip. `outs`: the type of each output port. `inner`: a region's picture."""

    key: str
    style: str
    lines: list[str]
    tooltip: str
    outs: list[str] = field(default_factory=lambda: [""])
    ins: int = 1
    inner: Picture | None = None


@dataclass(eq=False)
class Line:
    """From an output port to an input port. Control lines carry no value."""

    source: Item
    target: Item
    out: int = 0
    into: int = 0
    is_control: bool = False


@dataclass(eq=False)
class Picture:
    """Items, sources first, and lines. A region's picture has its parameters and results as ports, in order."""

    name: str
    items: list[Item]
    lines: list[Line]
    parameters: list[Item]
    results: list[Item]


def picture(graph: Graph, folder: str = "") -> Picture:
    """The picture of a graph; `folder` is where user lines without a path are looked for."""
    return _Painter(named(graph), "n", folder, outer=None).paint()


class _Painter:
    def __init__(self, graph: Graph, prefix: str, folder: str, outer: Node | None):
        self.graph, self.prefix, self.folder, self.outer = graph, prefix, folder, outer
        self.items: list[Item] = []
        self.lines: list[Line] = []
        self.made: dict[Node, tuple[Item, int]] = {}    # a node's value: the item and port that give it

    def paint(self) -> Picture:
        order = self.graph.nodes()
        for node in order:
            origin = node.inputs[0] if node.op is RESULT else None
            if origin is not None and origin.op.kind in NESTED:
                self.made[node] = (self.made[origin][0], node.attrs["index"])   # regions show their results themselves
                continue
            if _is_scalar(node):    # drawn anew beside each user: long lines to one box would say less
                continue
            item = self.item(node)
            self.items.append(item)
            self.made[node] = (item, 0)
            for position, source in enumerate(node.inputs):
                if not (position == 0 and is_write(node)):  # the box names what is written to
                    self.line(source, item, position)
            for source in node.control:
                self.line(source, item, 0, is_control=True)
        parameters = [self.made[i][0] for i in self.graph.inputs]
        return Picture(self.graph.name, self.items, self.lines, parameters, self.results())

    def line(self, source: Node, target: Item, into: int, is_control: bool = False) -> None:
        if _is_scalar(source):
            item, port = self.item(source), 0
            self.items.insert(self.items.index(target), item)
        else:
            item, port = self.made[source]
        self.lines.append(Line(item, target, port, into, is_control))

    def results(self) -> list[Item]:
        """A port for each value that the graph returns. Effects and operations return nothing that flows on."""
        found = []
        for position, node in enumerate(self.graph.outputs):
            if node.op.kind is Kind.EFFECT or node.type == ():
                continue
            style = "result" if self.outer is None else "port"
            port = Item(f"{self.prefix}r{position}", style, [_short(node.name)], f"returned: {node.describe()}")
            self.items.append(port)
            self.line(node, port, 0)
            found.append(port)
        return found

    def item(self, node: Node) -> Item:
        key = f"{self.prefix}{len(self.items)}"
        tip = tooltip(node, self.folder)
        kind = node.op.kind
        if kind is Kind.INPUT:
            style = "port" if self.outer is not None else node.attrs["role"]
            return Item(key, style, [_short(node.name)], tip, _outs(node) if self.outer is None else [""], ins=1)
        if kind in NESTED:
            body = next(v for v in node.attrs.values() if isinstance(v, Graph))
            inner = _Painter(named(body), key + "_", self.folder, node).paint()
            return Item(key, "region", [body.name], tip, _outs(node), ins=len(node.inputs), inner=inner)
        if kind is Kind.CONSTANT:
            return Item(key, "constant", [_constant_text(node)], tip, _outs(node))
        lines = [node.op.name]
        if is_write(node):
            lines.append(_short(node.inputs[0].label))
        elif node.name and node.name != node.op.name:
            lines.append(_short(node.name))
        lines += [_short(text) for text in _attributes(node)]
        return Item(key, FAMILIES.get(kind, "plain"), lines, tip, _outs(node), ins=max(1, len(node.inputs)))


def _is_scalar(node: Node) -> bool:
    return node.op.kind is Kind.CONSTANT and node.attrs["value"].size == 1


def is_write(node: Node) -> bool:
    """Whether a node changes the variable that is its first input."""
    return node.op.kind is Kind.EFFECT and node.op.rule.action != "read"


def _outs(node: Node) -> list[str]:
    if node.op.kind in NESTED and isinstance(node.type, tuple):
        return [type_text(t) for t in node.type]
    return [type_text(node.type) if isinstance(node.type, TensorType) or node.op.kind is not Kind.STRUCTURE else ""]


def _attributes(node: Node) -> list[str]:
    """The attributes that are not the usual ones, without what the type says already."""
    if node.op.kind is Kind.INPUT:
        return []
    shown: Mapping = {k: v for k, v in node.attrs.items() if v != node.op.attrs.get(k)}
    return [f"{k}={attribute_text(v)}" for k, v in shown.items()
            if k not in ("shape", "message") and not isinstance(v, (Graph, Array))]


def _constant_text(node: Node) -> str:
    value = node.attrs["value"]
    text = attribute_text(value)
    return text if len(text) <= 16 else f"constant {value.digest[:6]}"


def _short(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST // 2 - 1]}…{text[-(LONGEST // 2):]}"


def tooltip(node: Node, folder: str = "") -> str:
    """The node in full, and the user's line."""
    arguments = [i.label for i in node.inputs] + _attributes(node)
    head = f"{node.label}: {type_text(node.type)}"
    if node.op.kind is not Kind.INPUT:
        head += f" = {node.op.name}({', '.join(arguments)})"
    elif node.attrs["role"] == "variable":
        head += "  variable"
    line = source_line(node.location, folder)
    return head + (f"\n{node.location}" if node.location else "") + (f"  {line}" if line else "")


def source_line(location: Location | None, folder: str = "") -> str:
    """The text of the user's line, if its file is to be found."""
    if location is None:
        return ""
    found = linecache.getline(location.file, location.line).strip()
    if not found and folder and not os.path.isabs(location.file):
        found = linecache.getline(os.path.join(folder, location.file), location.line).strip()
    return found
