"""Makes programs of graphs: passes, then code generation. Imported only where there is something to make."""
from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from graphc.codegen.build import build
from graphc.codegen.cpu.host import host
from graphc.compiler import State
from graphc.config import options
from graphc.errors import CompileError, report
from graphc.ir.canonical import NotPortable
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import float_info, kind_of
from graphc.passes.manager import Dumper, Instrument, ValueCheck, run_passes, standard_instruments
from graphc.passes.pipeline import PIPELINE, SEMANTICS, pipeline
from graphc.passes.segment import native_graphs
from graphc.portable import KeptGraph
from graphc.program import Program
from graphc.runtime.machine import measure_later


def meaning(graph: Graph, name: str) -> Graph:
    """What the interpreter runs."""
    return run_passes(graph, SEMANTICS, standard_instruments(name, PIPELINE))


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without searches for cycles of garbage meanwhile: each walks all nodes of large graphs, which have no cycles, and
    together they take a seventh of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@uncollected()
def make(store, graph: Graph, kept: KeptGraph | None, name: str,
         arrays: Sequence[np.ndarray] | None, few: frozenset[str]) -> tuple[Graph, dict[Graph, Program]]:
    """(what the passes make of a graph, the programs of its `native_graphs`), which another process can load if it is kept.

    arrays: the first feeds, for the value check. few: names of dims that are small: no batch fills vectors.
    """
    instruments = standard_instruments(name, PIPELINE)
    if options.check >= 2 and arrays is not None:
        instruments.append(_value_check(store, graph, arrays))
    watched = kept.form.watched() if kept else graph
    fused = run_passes(watched, pipeline(bool(few)), instruments)
    folder = _kernel_folder(instruments)
    programs = {body: build(body, folder, few) for body in native_graphs(fused)}
    if kept:
        _keep(kept, watched, fused, programs)
        programs = {body: kept.with_lines(program) for body, program in programs.items()}
    return fused, programs


def _keep(kept: KeptGraph, watched: Graph, fused: Graph, programs: Mapping[Graph, Program]) -> None:
    blobs: list[bytes] = []
    name = kept.canonical_names()
    document = {"programs": [kept.portable(p, name).document(blobs) for p in programs.values()], **State.of(fused).numbers()}
    if fused not in programs:
        from graphc.skeleton import Writer
        numbers = {body: k for k, body in enumerate(programs)}
        try:
            document["skeleton"] = Writer(kept.form, numbers, name, blobs).graph(fused)
        except NotPortable:
            return
    kept.save(kept.looked_at(watched), document, blobs)
    measure_later(host().lanes(4))


def _kernel_folder(instruments: Sequence[Instrument]) -> Path | None:
    return next((i.folder for i in instruments if isinstance(i, Dumper)), None)


def _value_check(store, graph: Graph, arrays: Sequence[np.ndarray]) -> ValueCheck:
    fed = iter(arrays)

    def value(node: Node) -> np.ndarray:
        if node.attrs["role"] != "variable":
            return next(fed)
        handle = node.attrs["variable"].handle
        if handle in store.initialised:
            return store.array(handle).copy()
        return np.zeros(tuple(node.type.shape), node.type.dtype.numpy)
    values = store.access.write(lambda: [value(node) for node in graph.inputs])

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
    if kind_of(a.dtype) != "f":
        return np.array_equal(a, b)
    eps = float(float_info(a.dtype).eps)
    a, b = (v.astype(np.float64) for v in (a, b))
    scale = np.max(np.abs(a[np.isfinite(a)]), initial=1.0)
    return np.allclose(a, b, rtol=64 * eps, atol=1024 * eps * scale, equal_nan=True)
