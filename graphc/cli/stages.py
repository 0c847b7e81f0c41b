"""The stages of a graph on its way to a program, each made when asked for."""
from __future__ import annotations

import functools

from graphc.cli.load import InputError, Loaded
from graphc.codegen.build import lower, outline
from graphc.codegen.kernel import Kernel
from graphc.codegen.plan import Plan, Record
from graphc.errors import GraphcError, StateError, report
from graphc.ir.graph import Graph, named
from graphc.memory import Memory
from graphc.passes.manager import Recorder, run_passes, standard_instruments
from graphc.passes.pipeline import PIPELINE
from graphc.passes.segment import native_graphs

PASSES = [p.name for p in PIPELINE]
GRAPHS = ["built", *PASSES, "fused"]      # "fused" is what the last pass leaves: what kernels are made of
STAGES = [*GRAPHS, "kernels", "memory", "source"]


class Stages:
    """The stages of a loaded graph. A pass that fails costs only the stages behind it."""

    def __init__(self, loaded: Loaded):
        self.loaded = loaded
        self.recorder = Recorder()

    def names(self) -> list[str]:
        """The stages that there are: a text dumped after fusion has no earlier ones. Each once."""
        return ["fused", "kernels", "memory", "source"] if self.loaded.is_fused else [s for s in STAGES if s != "fused"]

    def graph(self, stage: str) -> Graph:
        """The graph at a stage of `GRAPHS`."""
        if self.loaded.is_fused:
            if stage not in ("fused", PASSES[-1]):
                raise report(InputError, f"{self.loaded.path.name} is fused already: it has no stage {stage!r}",
                             rule=f"its stages are {', '.join(self.names())}")
            return named(self.loaded.graph)
        stage = PASSES[-1] if stage == "fused" else stage
        if stage not in self.recorder.stages:
            passes = PIPELINE[:PASSES.index(stage) + 1] if stage in PASSES else []
            graph = self.loaded.graph
            try:
                run_passes(graph, passes, [self.recorder, *standard_instruments(graph.name, PIPELINE)])
            except StateError as e:
                raise self.with_roots(e) from e
        if stage not in self.recorder.stages:
            raise report(InputError, f"there is no stage {stage!r}", rule="GRAPHC_SKIP leaves its pass out")
        return self.recorder.stages[stage]

    def with_roots(self, error: GraphcError) -> GraphcError:
        """A conflict of two roots that a script would never fetch together: say which they are."""
        roots = ", ".join(n.label for n in self.loaded.roots)
        if len(self.loaded.roots) < 2:
            return error
        made = type(error)(f"{error}\n    roots taken together: {roots}\n    hint: name what to run: "
                           f"{self.loaded.path.name}:{self.loaded.roots[-1].label}")
        made.location = getattr(error, "location", None)  # type: ignore[attr-defined]
        return made

    @functools.cached_property
    def programs(self) -> list[tuple[Graph, Plan]]:
        """What runs natively, in order: one graph, or, between host ops, several. With its kernel calls and their memory."""
        return [(graph, lower(graph)[1]) for graph in native_graphs(self.graph("fused"))]

    @property
    def memory(self) -> Memory:
        """What a run takes, on one thread."""
        return Memory([outline(graph, plan) for graph, plan in self.programs])

    @property
    def records(self) -> list[Record]:
        """All kernel calls, in order."""
        return [record for _, plan in self.programs for record in plan.calls]

    @functools.cached_property
    def kernels(self) -> list[Kernel]:
        """The distinct kernels, in the order of their first call."""
        return list(dict.fromkeys(r.call.kernel for r in self.records))
