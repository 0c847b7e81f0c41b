"""`graphc bench`: compiles a graph, runs it on random feeds, and says how long it takes and what it does meanwhile."""
from __future__ import annotations

import argparse
import difflib
import importlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from graphc.chain import Chain
from graphc.cli.dump import write
from graphc.cli.load import InputError, Loaded, load, note
from graphc.cli.measure import Memory, Times, Work, memory_of, time_calls, time_kernels, work_of
from graphc.cli.stages import Stages
from graphc.codegen.build import build, lower
from graphc.compiler import BySize, Chained
from graphc.config import options
from graphc.errors import RunError, report
from graphc.ir import dims
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.passes.infer_shapes import infer_shapes
from graphc.passes.manager import run_passes
from graphc.passes.segment import native_graphs
from graphc.runtime import threads
from graphc.runtime.executor import Executable
from graphc.runtime.memory import aligned
from graphc.session import Session

HELP = "time a graph: milliseconds, operations, bytes, memory"
DESCRIPTION = """\
Compiles a graph and times it on random feeds: floats in [0, 1), whole numbers in --range. Variables get their values
from the script's own initialisers (small random numbers for a dumped text). Operations and bytes are counted from the
kernel calls: a buffer that a call reads or writes counts once, wherever it lies. Memory is that of arena, variables,
constants and results."""
DEFAULT_SIZE = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--size", action="append", default=[], metavar="N=32", type=_size,
                        help="size of a named dim, or of all with --size 32; may be repeated (default: 32)")
    parser.add_argument("--range", nargs=2, type=int, default=(0, 2), metavar=("LOW", "HIGH"),
                        help="feeds of whole numbers are in [LOW, HIGH) (default: 0 2)")
    parser.add_argument("--seconds", type=_positive(float), default=1.0, help="measure each way so long (default: 1)")
    parser.add_argument("--threads", type=_positive(int), help="threads that a run may use (default: all there are)")
    parser.add_argument("--seed", type=int, default=0, help="of the random feeds (default: 0)")
    parser.add_argument("--kernels", action="store_true", help="also time each kernel call alone")
    parser.add_argument("--json", action="store_true", help="print JSON, in seconds and bytes")


def _size(text: str) -> tuple[str, int]:
    name, _, number = text.rpartition("=")
    if not number.isdecimal() or name and not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not like N=32")
    return name, int(number)


def _positive(kind: type) -> Callable:
    def number(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < 1e9:
            raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
        return value
    return number


@dataclass
class Bench:
    """A compiled graph, ready to be timed. `parts`: native programs, their graphs and feeds; one, or several between host
    ops. `ways`: what is timed, by name, the fastest first.
    """

    parts: list[tuple[Executable, Graph, list[np.ndarray]]]
    ways: dict[str, Callable[[], Any]]
    compile_seconds: float


@dataclass
class Report:
    """All figures of a measurement."""

    target: str
    sizes: dict[str, int]
    threads: int
    times: dict[str, Times]
    work: list[Work]
    memory: Memory
    compile_seconds: float
    kernels: int
    kernel_seconds: list[float] | None


def command(arguments: argparse.Namespace) -> None:
    """Compile, measure, print."""
    if options.device != "cpu":
        raise report(InputError, f"bench times compiled programs, and GRAPHC_DEVICE is {options.device!r}")
    if arguments.range[0] >= arguments.range[1]:
        raise report(InputError, f"--range {arguments.range[0]} {arguments.range[1]} holds no number")
    if arguments.threads:
        threads.set_num_threads(arguments.threads)
    loaded = load(arguments.target, arguments.script_arguments)
    importlib.import_module("graphc.codegen.cpu.compile")   # its import is no part of a graph's compile time
    sizes, shapes = feed_shapes(loaded.graph, dict(arguments.size))
    rng = np.random.default_rng(arguments.seed)
    arrays = [_random(node, shape, rng, arguments.range) for node, shape in shapes.items()]
    kept, options.cache = options.cache, False      # compiling is a part of what is measured
    try:
        found = _measure(arguments, loaded, sizes, list(shapes), arrays)
    except RunError as e:
        made = RunError(f"{e}\n    the random feeds do not suit the graph: see --range")
        made.location = getattr(e, "location", None)  # type: ignore[attr-defined]
        raise made from e
    finally:
        options.cache = kept
    write(json.dumps(_record(found), indent=1) + "\n" if arguments.json else _table(found), None)


def _measure(arguments, loaded: Loaded, sizes: dict[str, int], feeds: list[Node], arrays: list[np.ndarray]) -> Report:
    ready = _of_script(loaded, feeds, arrays) if loaded.container is not None else _of_text(loaded, arrays)
    times = dict(zip(ready.ways, time_calls(list(ready.ways.values()), arguments.seconds), strict=True))
    count = threads.num_threads()
    memory, work = Memory(0, 0, 0, 0, 0), []
    for executable, graph, feeds_of_part in ready.parts:
        memory += memory_of(executable, feeds_of_part, executable.instance(feeds_of_part).run(feeds_of_part))
        known = dict(zip(executable.program.names, executable.sizes(feeds_of_part), strict=True))
        work += work_of(lower(graph)[1], known, count)
    kernels = {symbol for executable, *_ in ready.parts for symbol in executable.program.objects}
    alone = [s for executable, _, given in ready.parts for s in time_kernels(executable, given, arguments.seconds)] \
        if arguments.kernels else None
    seconds = None if alone is None else [s * w.times for s, w in zip(alone, work, strict=True)]
    return Report(arguments.target, sizes, count, times, work, memory, ready.compile_seconds, len(kernels), seconds)


# making what is timed -----------------------------------------------------------------------------


def feed_shapes(graph: Graph, asked: Mapping[str, int]) -> tuple[dict[str, int], dict[Node, tuple[int, ...]]]:
    """The sizes of the named dims, and the shape of each feed. Dims that must be equal have one size."""
    merged = run_passes(graph, [infer_shapes])
    sizes: dict[str, int] = {}
    known: set[str] = set()
    for before, after in zip(graph.inputs, merged.inputs, strict=True):
        for old, new in zip(before.type.shape, after.type.shape, strict=True):
            known |= {*dims.names(old), *dims.names(new)}
            if dims.is_name(old) and dims.is_name(new) and str(old) in asked:
                sizes[str(new)] = asked[str(old)]
    for name in asked:
        if name and name not in known:
            near = difflib.get_close_matches(name, known, n=3) or sorted(known)
            raise report(InputError, f"the graph has no dim called {name!r}",
                         rule=f"its dims: {', '.join(near)}" if near else "all its sizes are fixed")
    names = {n for i in merged.inputs for d in i.type.shape for n in dims.names(d)}
    guessed = sorted(n for n in names if n not in sizes and n not in asked)
    if guessed and "" not in asked:
        note(f"sizes not given: {', '.join(f'{n}={DEFAULT_SIZE}' for n in guessed)}")
    env = {n: sizes.get(n, asked.get(n, asked.get("", DEFAULT_SIZE))) for n in sorted(names)}
    shapes = {before: tuple(int(dims.substitute(d, env)) for d in after.type.shape)
              for before, after in zip(graph.inputs, merged.inputs, strict=True) if before.attrs["role"] == "feed"}
    return env, shapes


def _random(node: Node, shape: tuple[int, ...], rng: np.random.Generator, limits: Sequence[int]) -> np.ndarray:
    dtype = node.type.dtype
    if dtype.is_bool:
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.is_integer:
        return rng.integers(limits[0], limits[1], shape).astype(dtype.numpy)
    return rng.random(shape).astype(dtype.numpy)


def _of_script(loaded: Loaded, feeds: Sequence[Node], arrays: list[np.ndarray]) -> Bench:
    """Through a session, with the script's own initialisers."""
    assert loaded.container is not None
    session = Session(graph=loaded.container)
    used = [n.attrs["variable"] for n in loaded.graph.inputs if n.attrs["role"] == "variable"]
    if used:
        session.run([v.initializer for v in used])
    tensors = tuple(n for n in loaded.roots if n.type != ())
    fetches = (*tensors, *(n for n in loaded.roots if n.type == ()))    # a session's order: it finds the program
    Stages(loaded).graph("fused")                                       # an error of a pass names the roots
    start = time.perf_counter()
    compiled = session.compiled(fetches, tuple(feeds), arrays)
    seconds = time.perf_counter() - start
    if isinstance(compiled, BySize):
        compiled = compiled.part(arrays)
    parts = compiled.chain.parts(arrays) if isinstance(compiled, Chained) else [
        (compiled.executable, compiled.graph, arrays)]  # type: ignore[attr-defined]
    call = session.make_callable(list(fetches), list(feeds))
    feed_dict = dict(zip(feeds, arrays, strict=True))
    ways = {"bound call": lambda: call(*arrays), "Session.run": lambda: session.run(list(fetches), feed_dict)}
    return Bench(parts, ways, seconds)


def _of_text(loaded: Loaded, arrays: list[np.ndarray]) -> Bench:
    """A program by itself: a text has no session, and no initial values."""
    start = time.perf_counter()
    fused = Stages(loaded).graph("fused")
    rng = np.random.default_rng(1)
    variables = [aligned(tuple(n.type.shape), n.type.dtype.numpy)[0] for n in fused.inputs
                 if n.attrs["role"] == "variable"]
    for array in variables:
        array[...] = 0.1 * rng.random(array.shape) if array.dtype.kind == "f" else 1
    if native_graphs(fused) != [fused]:
        chain = Chain(fused, variables, build)
        seconds = time.perf_counter() - start
        env = chain.sizes(arrays)
        return Bench(chain.parts(arrays), {"program": lambda: chain.run(arrays, dict(env), 0)}, seconds)
    executable = Executable(build(fused), variables)
    seconds = time.perf_counter() - start
    instance = executable.instance(arrays)
    return Bench([(executable, fused, arrays)], {"program": lambda: instance.run(arrays)}, seconds)


# printing -----------------------------------------------------------------------------------------


def _table(found: Report) -> str:
    sizes = "".join(f", {n}={s}" for n, s in found.sizes.items())
    lines = [f"{found.target}{sizes}, {_count(found.threads, 'thread')}", "",
             f"{'ms':<14}{'median':>10}{'min':>10}{'25 %':>10}{'75 %':>10}{'samples':>10}"]
    for way, t in found.times.items():
        lines.append(f"{way:<14}" + "".join(f"{1e3 * v:>10.4g}" for v in (t.median, t.low, t.quarter, t.three_quarters))
                     + f"{t.samples:>10}")
    best = next(iter(found.times.values())).median
    operations, moved = sum(w.operations for w in found.work), sum(w.bytes for w in found.work)
    memory = found.memory
    parts = ", ".join(f"{name} {_bytes(size)}" for name, size in asdict(memory).items() if name != "feeds")
    each = f", {found.compile_seconds / found.kernels * 1e3:.0f} ms each" if found.kernels else ""
    lines += ["",
              f"operations    {_amount(operations):>12}  {operations / best / 1e9:.4g} GFLOP/s",
              f"bytes moved   {_bytes(moved):>12}  {moved / best / 1e9:.4g} GB/s",
              f"peak memory   {_bytes(memory.peak):>12}  {parts}",
              f"compile       {found.compile_seconds:>10.3g} s  {_count(found.kernels, 'kernel')}{each}; "
              f"{_count(len(found.work), 'kernel call')}"]
    if found.kernel_seconds is not None:
        lines += ["", *_kernel_rows(found)]
    return "\n".join(lines) + "\n"


def _kernel_rows(found: Report) -> list[str]:
    assert found.kernel_seconds is not None
    total = sum(found.kernel_seconds) or 1.0
    width = max([len(w.name) for w in found.work] + [6])
    lines = [f"{'kernel call':<{width + 4}}{'µs alone':>10}{'share':>8}{'operations':>12}{'bytes':>11}"
             f"{'GFLOP/s':>9}{'GB/s':>8}  line"]
    for number, (work, seconds) in enumerate(zip(found.work, found.kernel_seconds, strict=True)):
        seconds = max(seconds, 1e-12)
        lines.append(f"{number:>2}  {work.name:<{width}}{1e6 * seconds:>10.4g}{seconds / total:>8.0%}"
                     f"{_amount(work.operations):>12}{_bytes(work.bytes):>11}{work.operations / seconds / 1e9:>9.3g}"
                     f"{work.bytes / seconds / 1e9:>8.3g}  {work.location}")
    lines.append(f"{'all':<{width + 4}}{1e6 * total:>10.4g}{1:>8.0%}")
    return lines


def _record(found: Report) -> dict[str, Any]:
    best = next(iter(found.times.values())).median
    operations, moved = sum(w.operations for w in found.work), sum(w.bytes for w in found.work)
    calls: list[dict[str, Any]] = [asdict(w) for w in found.work]
    for call, seconds in zip(calls, found.kernel_seconds or (), strict=False):
        call["seconds_alone"] = seconds
    return {"target": found.target, "sizes": found.sizes, "threads": found.threads,
            "seconds": {way: asdict(t) for way, t in found.times.items()},
            "operations": operations, "bytes_moved": moved,
            "gflops": operations / best / 1e9, "gbytes_per_second": moved / best / 1e9,
            "memory": {**asdict(found.memory), "peak": found.memory.peak},
            "compile_seconds": found.compile_seconds, "kernels": found.kernels, "calls": calls}


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)


def _amount(number: float) -> str:
    return _scaled(number, 1000, ("", " k", " M", " G", " T"))


def _bytes(number: float) -> str:
    return _scaled(number, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def _scaled(number: float, base: int, units: Sequence[str]) -> str:
    for unit in units[:-1]:
        if number < base:
            return (f"{number:.4g}" if number % 1 else f"{number:.0f}") + unit
        number /= base
    return f"{number:.4g}{units[-1]}"


