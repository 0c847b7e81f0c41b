"""`graphc viz`: a graph as a picture, in DOT or SVG."""
from __future__ import annotations

import argparse
from pathlib import Path

from graphc.cli.dot import dot
from graphc.cli.dump import write
from graphc.cli.load import load
from graphc.cli.picture import picture
from graphc.cli.stages import GRAPHS, PASSES, Stages
from graphc.cli.svg import svg

HELP = "draw a graph at any stage, as DOT or SVG"
DESCRIPTION = f"""\
Draws a graph. Feeds are funnels, variables drums, constants dashed; fused regions are boxes around their nodes. Types
stand at the start of each line, user lines are tooltips. SVG needs no other program; DOT is for Graphviz.

Stages: built, {', '.join(PASSES)}, fused (the default: after all passes)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--stage", choices=GRAPHS, default="fused", metavar="STAGE", help="default: fused")
    parser.add_argument("--format", choices=["svg", "dot"], help="default: dot for a FILE in .dot or .gv, else svg")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write here instead of stdout")


def command(arguments: argparse.Namespace) -> None:
    """Draw what was asked for."""
    loaded = load(arguments.target, arguments.script_arguments)
    drawn = picture(Stages(loaded).graph(arguments.stage), str(loaded.path.parent))
    suffix = arguments.output.suffix if arguments.output else ""
    form = arguments.format or ("dot" if suffix in (".dot", ".gv") else "svg")
    write(dot(drawn) if form == "dot" else svg(drawn), arguments.output)
