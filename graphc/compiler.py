"""From fetched tensors to something that runs: passes, build, and the two ways of running a program."""
from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from graphc.config import options
from graphc.errors import CompileError, FeedError, report
from graphc.ir.graph import Graph, capture
from graphc.ir.interpreter import interpret
from graphc.ir.node import Node
from graphc.ir.op import Kind
from graphc.passes.manager import Dumper, Instrument, ValueCheck, run_passes, standard_instruments
from graphc.passes.pipeline import PIPELINE, SEMANTICS


class Compiled:
    """What a session runs: prepared once for its fetches and feeds, for all sizes of named dims."""

    def __init__(self, store, graph: Graph):
        variables = [n for n in graph.inputs if n.attrs["role"] == "variable"]
        writes = [n for n in graph.outputs if n.op.kind is Kind.EFFECT and n.op.rule.action == "write"]
        used = {i for n in graph.nodes() if n not in writes for i in n.inputs} | {w.inputs[1] for w in writes}
        self.store = store
        self.graph = graph
        self.written = [_handle(w.inputs[0]) for w in writes]
        self.read = [_handle(v) for v in variables if v in used or v in graph.outputs]
        self.ready = False
        self.variables = [_handle(v) for v in variables]

    def prepare(self) -> None:
        """Before the first run that succeeds: all variables that it reads must have values."""
        self.store.check(self.read)

    def finish(self) -> None:
        """After the first run: what it wrote has values now."""
        self.store.initialised.update(self.written)
        self.ready = True


class Interpreted(Compiled):
    """GRAPHC_DEVICE=numpy: the ops' reference rules, one node at a time."""

    def __init__(self, store, graph: Graph):
        super().__init__(store, graph)
        self.number = 0

    def run(self, arrays: Sequence[np.ndarray]) -> list:
        """The fetched values for these feeds."""
        self.prepare()
        values = iter(arrays)
        inputs = [self.store.array(_handle(n)) if n.attrs["role"] == "variable" else next(values) for n in self.graph.inputs]
        found = interpret(self.graph, inputs, self.number)
        self.number += 1
        count = len(self.graph.outputs) - len(self.written)
        results = [np.array(v)[()] for v in found[:count]]
        new = [np.array(v) for v in found[count:]]
        for handle, value in zip(self.written, new, strict=True):
            self.store.array(handle)[...] = value
        self.finish()
        return results

    def run_fast(self, values) -> None:
        """There is no fast way."""
        return None


class Native(Compiled):
    """A program of native kernels."""

    def __init__(self, store, graph: Graph, program):
        super().__init__(store, graph)
        from graphc.runtime.executor import Executable
        self.program = program
        self.executable = Executable(program, [store.array(h) for h in self.variables])
        self.last = None

    def run(self, arrays: Sequence[np.ndarray]) -> list:
        """The fetched values for feeds of the right dtypes."""
        if not self.ready:
            self.prepare()
        self.last = instance = self.executable.instance(arrays)
        found = instance.run(arrays)
        if not self.ready:
            self.finish()
        return found

    def run_fast(self, values) -> list | None:
        """The fetched values if the feeds fit the sizes of the last run; else None, and nothing was run."""
        instance = self.last
        return instance.try_run(values) if instance is not None and self.ready else None


def _handle(node: Node) -> Node:
    """The user's handle behind a variable input, which passes may have rebuilt."""
    return node.attrs["variable"].handle


def compile_graph(store, fetches: Sequence[Node], feeds: Sequence[Node], arrays: Sequence[np.ndarray]) -> Compiled:
    """The program that computes `fetches` from `feeds`; `arrays` are the first feeds, for the value check."""
    start = time.perf_counter()
    name = _program_name(fetches)
    graph = capture(name, fetches, feeds)
    check_feeds(graph, feeds)
    if options.device == "numpy":
        return Interpreted(store, run_passes(graph, SEMANTICS, standard_instruments(name)))
    if options.device != "cpu":
        raise report(CompileError, f"there is no device {options.device!r}", rule="the devices are cpu and numpy")
    instruments = standard_instruments(name)
    if options.check >= 2:
        instruments.append(_value_check(store, graph, arrays))
    fused = run_passes(graph, PIPELINE, instruments)
    from graphc.codegen.build import build
    program = build(fused, _kernel_folder(instruments))
    native = Native(store, fused, program)
    if options.debug:
        print(f"graphc: {name}: built in {time.perf_counter() - start:.2f} s, {len(program.records)} kernel calls of "
              f"{len(program.objects)} kernels", file=sys.stderr)
    if "memory" in options.explain:
        print(f"graphc: {name}: temporaries take {program.memory()} bytes", file=sys.stderr)
    return native


def check_feeds(graph: Graph, feeds: Sequence[Node]) -> None:
    """Raise FeedError for a placeholder that is needed and not fed."""
    fed = {f.name for f in feeds}
    for node in graph.inputs:
        if node.attrs["role"] == "feed" and node.name not in fed:
            raise report(FeedError, f"the placeholder {node.name!r} must be fed", [("tensor", node.describe())],
                         f"it has the dtype {node.type.dtype.name} and the shape ({', '.join(map(str, node.type.shape))})")


def _program_name(fetches: Sequence[Node]) -> str:
    words = [re.sub(r"\W", "_", n.name) for n in fetches[:3]]
    return "_".join(words)[:60] or "empty"


def _kernel_folder(instruments: Sequence[Instrument]) -> Path | None:
    return next((i.folder for i in instruments if isinstance(i, Dumper)), None)


def _value_check(store, graph: Graph, arrays: Sequence[np.ndarray]) -> ValueCheck:
    fed = iter(arrays)
    values = []
    for node in graph.inputs:
        if node.attrs["role"] == "variable":
            store.array(_handle(node))
            ready = _handle(node) in store.initialised
            values.append(store.array(_handle(node)) if ready else np.zeros(tuple(node.type.shape), node.type.dtype.numpy))
        else:
            values.append(next(fed))

    def compare(name, old, new):
        for k, (a, b) in enumerate(zip(old, new, strict=True)):
            if not _close(a, b):
                raise report(CompileError, f"the pass {name} changes the value of output {k}",
                             rule=f"the largest difference is {np.nanmax(np.abs(np.asarray(a, float) - np.asarray(b, float)))}")
    return ValueCheck(values, 0, compare)


def _close(a, b) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind != "f":
        return np.array_equal(a, b)
    scale = np.max(np.abs(a[np.isfinite(a)]), initial=1.0)
    return np.allclose(a, b, rtol=64 * np.finfo(a.dtype).eps, atol=1024 * np.finfo(a.dtype).eps * scale, equal_nan=True)
