"""Runs passes over a graph. Everything that prints, times, verifies, dumps or skips is an instrument around the passes."""
from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from graphc.config import options
from graphc.errors import CompileError, GraphError, VerifyError, report
from graphc.ir.graph import Graph, map_nested, named
from graphc.ir.interpreter import interpret
from graphc.ir.printer import large_constants
from graphc.ir.verify import untold_dims, verify


@dataclass(frozen=True)
class Pass:
    """A function from graph to graph, with the properties that it needs and gives (see ir.verify). `fallback` gives the same
    properties in the plainest way: it runs when the pass is skipped. A pass that gives properties and has none is required.
    nested: it runs on the bodies of segments, branches and loops first, by itself.
    """

    function: Callable[[Graph], Graph]
    needs: frozenset[str]
    gives: frozenset[str]
    fallback: Callable[[Graph], Graph] | None = None
    nested: bool = False

    @property
    def name(self) -> str:
        return self.function.__name__

    def __call__(self, graph: Graph) -> Graph:
        return self.apply(self.function, graph)

    def apply(self, function: Callable[[Graph], Graph], graph: Graph) -> Graph:
        """`function`, the pass's own or its fallback, on the graph and the bodies that it is for."""
        if self.nested:
            graph = map_nested(graph, lambda body: self.apply(function, body))
        return function(graph)


def graph_pass(needs: Sequence[str] = (), gives: Sequence[str] = (), fallback: Callable[[Graph], Graph] | None = None,
               nested: bool = False):
    """Decorator that makes a pass of a function from graph to graph."""
    return lambda function: Pass(function, frozenset(needs), frozenset(gives), fallback, nested)


class Instrument:
    """What happens around passes. All methods are optional to override."""

    def start(self, graph: Graph) -> None:
        """Before the first pass."""

    def skip(self, pass_: Pass) -> bool:
        """Whether to leave `pass_` out."""
        return False

    def after(self, pass_: Pass, before: Graph, after: Graph, properties: frozenset[str], seconds: float) -> None:
        """After a pass."""

    def end(self, graph: Graph) -> None:
        """After the last pass."""


def run_passes(graph: Graph, passes: Sequence[Pass], instruments: Sequence[Instrument] = ()) -> Graph:
    """`graph` through `passes` in order. Raises CompileError when a pass lacks a property that it needs."""
    properties: frozenset[str] = frozenset()
    graph = named(graph)
    for instrument in instruments:
        instrument.start(graph)
    for pass_ in passes:
        function: Callable[[Graph], Graph] | None = pass_.function
        if any(i.skip(pass_) for i in instruments):
            function = pass_.fallback
            if function is None and pass_.gives:
                raise report(CompileError, f"the pass {pass_.name} cannot be skipped",
                             rule=f"later stages need a graph that is {', '.join(sorted(pass_.gives))}")
        if function is None:
            continue
        if missing := pass_.needs - properties:
            raise report(CompileError, f"the pass {pass_.name} needs a graph that is {', '.join(sorted(missing))}",
                         rule="a pass that gives it was skipped or comes later")
        start = time.perf_counter()
        new = named(pass_.apply(function, graph))
        seconds = time.perf_counter() - start
        properties |= pass_.gives
        for instrument in instruments:
            instrument.after(pass_, graph, new, properties, seconds)
        graph = new
    for instrument in instruments:
        instrument.end(graph)
    return graph


def changed(before: Graph, after: Graph) -> bool:
    """Whether a pass changed the graph."""
    return before is not after and before != after


class Verifier(Instrument):
    """GRAPHC_CHECK=1: the invariants hold after each pass, or the error names it."""

    def start(self, graph):
        verify(graph)

    def after(self, pass_, before, after, properties, seconds):
        try:
            verify(after, properties)
            if lost := untold_dims(after) - untold_dims(before):
                raise report(VerifyError, f"nothing tells the sizes {', '.join(sorted(lost))} any more",
                             rule="a pass must keep Graph.required")
        except (VerifyError, GraphError) as e:
            raise type(e)(f"after {pass_.name}: {e}") from None


class Printer(Instrument):
    """GRAPHC_DEBUG: times and graphs to stderr."""

    def __init__(self, level: int):
        self.level = level

    def start(self, graph):
        if self.level >= 2:
            print(f"=== built\n{graph}", file=sys.stderr, end="")

    def after(self, pass_, before, after, properties, seconds):
        is_changed = changed(before, after)
        print(f"graphc: {after.name}: {pass_.name} {seconds * 1e3:.1f} ms, {len(after.nodes())} nodes"
              + ("" if is_changed else ", unchanged"), file=sys.stderr)
        if self.level >= 3 and is_changed:
            print(f"=== {pass_.name}\n{after}", file=sys.stderr, end="")

    def end(self, graph):
        if self.level == 2:
            print(f"=== compiled\n{graph}", file=sys.stderr, end="")


class Skipper(Instrument):
    """GRAPHC_SKIP: leaves passes out by name."""

    def __init__(self, names: Sequence[str]):
        self.names = names

    def skip(self, pass_):
        return pass_.name in self.names


@dataclass
class Dumper(Instrument):
    """GRAPHC_DUMP: a file for each stage in a folder for each compile; each text can be fed back to the CLI."""

    folder: Path
    count: int = 0

    def start(self, graph):
        self.write("built", graph)

    def after(self, pass_, before, after, properties, seconds):
        self.write(pass_.name, after)

    def write(self, stage: str, graph: Graph) -> None:
        """One graph, and its large constants beside it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.count:02}-{stage}.graph"
        path.write_text(str(graph))
        if constants := large_constants(graph):
            np.savez(path.with_suffix(".npz"), **constants)  # type: ignore[arg-type]
        self.count += 1


@dataclass
class Recorder(Instrument):
    """Keeps the graph after each pass: stage name -> graph. The CLI shows them."""

    stages: dict[str, Graph] = field(default_factory=dict)

    def start(self, graph):
        self.stages["built"] = graph

    def after(self, pass_, before, after, properties, seconds):
        self.stages[pass_.name] = after


class ValueCheck(Instrument):
    """GRAPHC_CHECK=2: the interpreter gives the same values before and after each pass, on the real feeds.

    It starts once the graph is pure: before that, effects have no value of their own. Only outputs that hold data are
    compared; the outputs of a pure graph never change in number.
    """

    def __init__(self, values: Sequence[np.ndarray], run: int, compare: Callable[[str, list, list], None]):
        self.values, self.run, self.compare = values, run, compare

    def after(self, pass_, before, after, properties, seconds):
        if "pure" in properties and "pure" not in pass_.gives and changed(before, after):
            old, new = (interpret(g, self.values, self.run) for g in (before, after))
            self.compare(pass_.name, old, new)


def standard_instruments(folder_name: str, known: Sequence[Pass]) -> list[Instrument]:
    """The instruments that the options ask for. Raises CompileError when GRAPHC_SKIP names none of the `known` passes."""
    chosen: list[Instrument] = []
    if options.skip:
        names = [p.name for p in known]
        for name in options.skip:
            if name not in names:
                raise report(CompileError, f"GRAPHC_SKIP: there is no pass {name!r}", rule=f"the passes are {', '.join(names)}")
        chosen.append(Skipper(options.skip))
    if options.check:
        chosen.append(Verifier())
    if options.debug:
        chosen.append(Printer(options.debug))
    if options.dump:
        root = Path(options.dump)
        number = len(list(root.glob("*"))) if root.exists() else 0
        chosen.append(Dumper(root / f"{number:03}-{folder_name}"))
    return chosen
