"""Pictures of graphs as DOT, for Graphviz and its relatives."""
from __future__ import annotations

from graphc.cli.picture import Item, Line, Picture
from graphc.cli.style import STYLES

SHAPES = {"feed": "invhouse", "variable": "cylinder", "constant": "note", "port": "plaintext", "result": "house"}


def dot(picture: Picture) -> str:
    """The DOT text of a picture. Regions are clusters; values enter and leave them by ports."""
    lines = [f"digraph {quoted(picture.name)} {{", "  rankdir=TB; ranksep=0.45; nodesep=0.25;",
             '  node [shape=box, style="filled,rounded", fontname="monospace", fontsize=11, margin="0.12,0.06"];',
             '  edge [fontname="monospace", fontsize=9, color="#667085", fontcolor="#667085", arrowsize=0.6];']
    _items(picture, lines, "  ")
    return "\n".join([*lines, "}"]) + "\n"


def quoted(text: str) -> str:
    """A DOT string: backslashes stay what they are, lines are kept."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "") + '"'


def _items(picture: Picture, lines: list[str], indent: str) -> None:
    for item in picture.items:
        if item.inner is None:
            fill, border, _ = STYLES[item.style]
            shape = f", shape={SHAPES[item.style]}" if item.style in SHAPES else ""
            label = "\n".join(item.lines)
            lines.append(f"{indent}{item.key} [label={quoted(label)}, tooltip={quoted(item.tooltip)}, "
                         f'fillcolor="{fill}", color="{border}"{shape}];')
            continue
        fill, border, _ = STYLES["region"]
        lines.append(f"{indent}subgraph {quoted('cluster_' + item.key)} {{")
        lines.append(f"{indent}  label={quoted(item.lines[0])}; tooltip={quoted(item.tooltip)}; labeljust=l; "
                     f'fontname="monospace"; fontsize=11; style="filled,rounded"; fillcolor="{fill}"; '
                     f'color="{border}";')
        _items(item.inner, lines, indent + "  ")
        lines.append(indent + "}")
    for line in picture.lines:
        lines.append(indent + _line(line))


def _line(line: Line) -> str:
    source, target = _end(line.source, line.out, "results"), _end(line.target, line.into, "parameters")
    if line.is_control:
        return f"{source} -> {target} [style=dashed];"
    label = line.source.outs[line.out]
    return f"{source} -> {target}" + (f" [label={quoted(label)}]" if label else "") + ";"


def _end(item: Item, port: int, side: str) -> str:
    """The node that a line ends at: a region's port, or the item."""
    return getattr(item.inner, side)[port].key if item.inner is not None else item.key
