"""Runs graphs natively for tests: the whole way through passes, code generation and the runtime, at one and two threads."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from graphc.chain import Chain
from graphc.codegen.build import build
from graphc.feeds import feed_array
from graphc.ir.graph import Graph
from graphc.passes.manager import Instrument, Skipper, Verifier, run_passes
from graphc.passes.pipeline import PIPELINE
from graphc.passes.segment import native_graphs
from graphc.program import Program
from graphc.runtime import executor, threads
from graphc.runtime.executor import Executable
from graphc.runtime.layout import FrameWord


class CompiledGraph:
    """A graph without variables, compiled once for all sizes of its named dims and all thread counts."""

    def __init__(self, graph: Graph, skip: Sequence[str] = ()):
        """skip: names of passes to leave out."""
        self.graph = graph
        instruments: list[Instrument] = [Verifier(), Skipper(skip)]
        fused = run_passes(graph, PIPELINE, instruments)
        self.chain = Chain(fused, [], build) if native_graphs(fused) != [fused] else None
        if self.chain is None:
            self.program: Program = build(fused)
            self.executable = Executable(self.program, [])

    def __call__(self, values: Sequence, counts: Sequence[int] = (1, 2)) -> list:
        """The outputs for these inputs, the same bits at each number of threads. Raises what a run raises."""
        arrays = [feed_array(n, v) for n, v in zip(self.graph.inputs, values, strict=True)]
        results = []
        for count in counts:
            with parallel(count):
                results.append(self.run(arrays))
        for other in results[1:]:
            for k, (a, b) in enumerate(zip(results[0], other, strict=True)):
                assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), f"output {k} depends on the number of threads"
        return results[0]

    def run(self, arrays: list[np.ndarray]) -> list:
        """The outputs, with as many threads as are set."""
        if self.chain is not None:
            return self.chain.run(arrays, self.chain.sizes(arrays), 0)
        self.executable.counter[0] = 0
        instance = self.executable.instance(arrays)
        instance.frame[FrameWord.TRIAL] = -1  # no trial of whether threads pay
        return instance.run(arrays)


@contextmanager
def parallel(count: int) -> Iterator[None]:
    """Runs use `count` threads, for programs and kernels of any size."""
    limits = executor.TEAM_MICROSECONDS, executor.SERIAL_MICROSECONDS
    executor.TEAM_MICROSECONDS = executor.SERIAL_MICROSECONDS = -1
    before = threads._chosen_threads
    try:
        threads.set_num_threads(count)
        threads.pool()
        yield
    finally:
        threads.set_num_threads(before)
        executor.TEAM_MICROSECONDS, executor.SERIAL_MICROSECONDS = limits

