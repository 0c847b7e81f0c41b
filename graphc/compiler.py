"""From fetched tensors to something that runs: passes, build, and the two ways of running a program."""
from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from graphc.cache import warn_once
from graphc.config import options
from graphc.errors import CompileError, FeedError, GraphcError, SessionError, ShapeError, report
from graphc.feeds import violated_equation
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.graph import Graph, capture, new_dims, substitute, topological
from graphc.ir.images import FULL, named_batches
from graphc.ir.interpreter import bind_dims, check_equations, interpret
from graphc.ir.node import Node, input_node
from graphc.ir.op import Kind
from graphc.memory import Few, Memory, reuse_text
from graphc.portable import KeptGraph, kept_graph, named_like
from graphc.program import Program
from graphc.records import record
from graphc.runtime.layout import Result

if TYPE_CHECKING:
    from graphc.chain import Chain
    from graphc.runtime.executor import Instance
    from graphc.steps import Batches, Results, Span

T = TypeVar("T")


@record(frozen=True)
class State:
    """The handles of the variables that a program takes, of those whose values it reads, and of those that it writes."""

    variables: list[Node]
    read: list[Node]
    written: list[Node]

    @staticmethod
    def of(graph: Graph) -> State:
        """That of a pure graph."""
        variables = _variables(graph)
        read, written = _state(graph)
        return State(variables, [v for v in variables if v in read], written)

    def numbers(self) -> dict[str, list[int]]:
        """The state as numbers of variables."""
        place = {v: k for k, v in enumerate(self.variables)}
        return {"read": [place[v] for v in self.read], "written": [place[v] for v in self.written]}

    @staticmethod
    def of_numbers(graph: Graph, numbers: Mapping[str, list[int]]) -> State:
        """What `numbers` gave, for the variables of a graph."""
        variables = _variables(graph)
        read, written = ([variables[k] for k in numbers[key]] for key in ("read", "written"))
        return State(variables, read, written)


class Compiled:
    """What a session runs: prepared once for its fetches and feeds, for all sizes of named dims.

    origin is the graph as the user wrote it.
    """

    def __init__(self, store, origin: Graph, state: State):
        self.store = store
        self.origin = origin
        self.variables, self.read, self.written = state.variables, state.read, state.written

    def run(self, arrays: Sequence[np.ndarray]) -> list:
        """The fetched values for feeds of the right dtypes."""
        raise NotImplementedError

    @property
    def memory(self) -> Memory:
        """What a run takes. Raises SessionError for the interpreter, which plans nothing."""
        if not self.programs:
            raise report(SessionError, "the interpreter plans no memory", rule=f"the device is {options.device!r}")
        from graphc.runtime.executor import thread_count
        return Memory(self.programs, thread_count())

    def run_fast(self, values) -> list | None:
        """The fetched values if the feeds need no look at all; else None, and nothing was run."""
        return None

    def run_steps(self, batches: Batches, results: Results) -> None:
        """Run on each of the batches."""
        for span in batches.spans():
            self.run_span(batches, span, results)

    def run_span(self, batches: Batches, span: Span, results: Results) -> None:
        """Run on batches of one size."""
        for step in range(span.steps):
            results.add(self.run(batches.feeds(span, step)))
            results.look()

    @property
    def programs(self) -> Sequence[Program]:
        """The native programs that it runs."""
        return ()

    def misfit(self, arrays: Sequence[np.ndarray], error: GraphcError, values: Mapping[Node, Any] | None = None) -> GraphcError:
        """The error for sizes that do not fit together, of feeds and of the values that host ops gave so far: that of the first
        node that needs them to fit, else `error`.
        """
        shapes = iter([a.shape for a in arrays])
        known = [next(shapes) if n.attrs["role"] == "feed" else tuple(n.type.shape) for n in self.origin.inputs]
        results = {n.name: [np.shape(v) for v in (value if isinstance(n.type, tuple) else (value,))]
                   for n, value in (values or {}).items() if n.op.kind is Kind.HOST}
        return violated_equation(self.origin, known, results) or error


class Interpreted(Compiled):
    """GRAPHC_DEVICE=numpy: the ops' reference rules, one node at a time."""

    def __init__(self, store, origin: Graph, graph: Graph):
        super().__init__(store, origin, State.of(graph))
        self.graph = graph

    def run(self, arrays: Sequence[np.ndarray]) -> list:
        return self.store.access.write(lambda: self.run_alone(arrays))

    def run_alone(self, arrays: Sequence[np.ndarray]) -> list:
        """Like `run`, while nothing else runs."""
        self.store.check(self.read)
        values = iter(arrays)
        inputs = [self.store.array(_handle(n)) if n.attrs["role"] == "variable" else next(values) for n in self.graph.inputs]
        try:
            env = bind_dims(self.graph.inputs, [np.shape(v) for v in inputs])
            check_equations(self.graph.equations, env)
        except GraphcError as e:
            raise self.misfit(arrays, e) from None
        number = int(self.store.counter[0])
        self.store.counter[0] += 1
        kept: dict[Node, Any] = {}
        try:
            found = interpret(self.graph, inputs, number, env, kept)
        except ShapeError as e:
            raise self.misfit(arrays, e, kept) from None
        count = len(self.graph.outputs) - len(self.written)
        results = [np.array(v)[()] for v in found[:count]]
        new = [np.array(v) for v in found[count:]]
        for handle, value in zip(self.written, new, strict=True):
            self.store.array(handle)[...] = value
        self.store.initialised.update(self.written)
        return results


class Native(Compiled):
    """A program of native kernels."""

    def __init__(self, store, origin: Graph, state: State, program: Program, graph: Graph | None = None):
        """graph: what the passes made of origin, if it was made in this process."""
        super().__init__(store, origin, state)
        from graphc.runtime.executor import Executable
        self.program, self.graph = program, graph
        self.executable = Executable(program, [store.array(h) for h in self.variables], store.counter, store.access,
                                     bool(self.written), store.budget)
        self.last: tuple[Instance, ...] = ()  # for the sizes of the last run: one for each run that overlapped

    def serve_only(self, batches: Sequence[Size], few: frozenset[str]) -> None:
        """Leave to other programs the sizes with which other dims of `batches` than those of the names `few` are small."""
        from graphc.runtime.formulas import chooser
        self.executable.serves = chooser(self.program, batches, few, FULL)

    @property
    def programs(self) -> Sequence[Program]:
        return [self.program]

    def run(self, arrays: Sequence[np.ndarray]) -> list:
        while True:
            instance = self.instance(arrays)
            found = instance.try_run(arrays)
            if found is None:       # it would have to wait for the variables
                found = self.with_variables(partial(instance.run_if_free, arrays))
            if found is not None:   # else another thread was faster: take another lane
                break
        if not self.last:
            self.store.initialised.update(self.written)
        if instance not in self.last:
            same = self.last and self.last[0].is_current() and self.last[0].sizes == instance.sizes
            self.last = (*self.last, instance) if same else (instance,)
        return found

    def with_variables(self, work: Callable[[], T]) -> T:
        """What `work()` gives, when no other run is in its way. Waits."""
        access = self.store.access
        return access.write(work) if self.written else access.read(work)

    def run_span(self, batches: Batches, span: Span, results: Results) -> None:
        from graphc.runtime.steps import Series
        series, feeds = None, batches.feeds(span, 0)
        while series is None or series.done < span.steps:
            instance = self.instance(feeds)
            if series is None:
                room = results.room(span.steps, instance.output_shapes)
                series = Series(batches.arrays, batches.cut, room, span.batch, span.steps, span.row, span.rows, span.order)
                before = results.done
            status = series.run(instance)
            if status == Result.BUSY:
                status = self.with_variables(partial(series.run_one, instance))
            results.done = before + series.done
            if series.done:
                self.store.initialised.update(self.written)
            if status == Result.FAILED:
                raise self.executable.failure(instance, series.error)
            results.look()

    def instance(self, arrays: Sequence[np.ndarray]) -> Instance:
        """An instance for feeds of these sizes that nobody runs at the moment."""
        with self.store.access.preparing:
            if not self.last:
                self.store.check(self.read)
            try:
                return self.executable.instance(arrays)
            except FeedError as e:
                raise self.misfit(arrays, e) from None

    def run_fast(self, values) -> list | None:
        for instance in self.last:
            if instance.is_current():
                found = instance.try_run(values)
                if found is not None:
                    return found
        if not self.last:
            return None
        with self.store.access.preparing:
            other = self.executable.fitting(values)
        if other is None or other in self.last:
            return None
        found = other.try_run(values)
        if found is not None:
            self.last = (other,)
        return found


class Chained(Compiled):
    """Native programs with host ops between them."""

    def __init__(self, store, origin: Graph, state: State, chain: Callable[[Sequence[np.ndarray]], Chain]):
        super().__init__(store, origin, state)
        self.chain = chain([store.array(h) for h in self.variables])

    @property
    def programs(self) -> Sequence[Program]:
        return self.chain.programs

    def run(self, arrays: Sequence[np.ndarray]) -> list:
        return self.store.access.write(lambda: self.run_alone(arrays))

    def run_alone(self, arrays: Sequence[np.ndarray]) -> list:
        """Like `run`, while nothing else runs."""
        self.store.check(self.read)
        try:
            env = self.chain.sizes(arrays)
        except GraphcError as e:
            raise self.misfit(arrays, e) from None
        number = int(self.store.counter[0])
        self.store.counter[0] += 1
        values: dict[Node, Any] = {}
        try:
            found = self.chain.run(arrays, env, number, values)
        except ShapeError as e:
            raise self.misfit(arrays, e, values) from None
        self.store.initialised.update(self.written)
        return [np.array(v)[()] for v in found[:len(found) - len(self.written)]]


class BySize(Compiled):
    """One graph as two programs: for batches of images that fill vectors, and for smaller ones. Each is made once, when it is
    first needed.
    """

    def __init__(self, store, graph: Graph, batches: Sequence[Size], make: Callable[[frozenset[str]], Compiled]):
        """batches: the sizes that decide. make: the program for graphs in which the dims of these names are small."""
        super().__init__(store, graph, State(_variables(graph), [], []))
        self.batches, self.make = batches, make
        self.parts: dict[frozenset[str], Compiled] = {}

    @property
    def programs(self) -> Sequence[Program]:
        return [p for part in self.parts.values() for p in part.programs]

    @property
    def memory(self) -> Memory:
        """What the program for batches that fill vectors takes, and what the one for small ones takes. Makes both."""
        names = frozenset(name for size in self.batches for name in dims.names(size))
        full, few = self.part_for(frozenset()).memory, self.part_for(names).memory

        def holds(sizes: Mapping[str, int]) -> bool:
            return sizes.keys() >= names and all(dims.substitute(size, sizes) < FULL for size in self.batches)
        return Memory(full.programs, full.threads, Few(" and ".join(f"{s} < {FULL}" for s in self.batches), holds, few))

    def part(self, arrays: Sequence[np.ndarray]) -> Compiled:
        """The program for feeds of these sizes."""
        shapes = iter([a.shape for a in arrays])
        known = [next(shapes) if n.attrs["role"] == "feed" else tuple(n.type.shape) for n in self.origin.inputs]
        try:
            env = bind_dims(self.origin.inputs, known)
        except GraphcError as e:
            raise self.misfit(arrays, e) from None
        few = frozenset(name for size in self.batches for name in dims.names(size)
                        if env.keys() >= {*dims.names(size)} and dims.substitute(size, env) < FULL)
        return self.part_for(few)

    def part_for(self, few: frozenset[str]) -> Compiled:
        """The program for which the dims of these names are small."""
        with self.store.access.preparing:
            if few not in self.parts:
                part = self.parts[few] = self.make(few)
                if isinstance(part, Native):
                    part.serve_only(self.batches, few)
            return self.parts[few]

    def run(self, arrays: Sequence[np.ndarray]) -> list:
        return self.part(arrays).run(arrays)

    def run_span(self, batches: Batches, span: Span, results: Results) -> None:
        self.part(batches.feeds(span, 0)).run_span(batches, span, results)

    def run_fast(self, values) -> list | None:
        for part in self.parts.values():
            found = part.run_fast(values)
            if found is not None:
                return found
        return None


def _state(graph: Graph) -> tuple[set[Node], list[Node]]:
    """The handles of the variables whose values a pure graph reads, and of those that it writes."""
    order = graph.nodes()
    read: set[Node] = set()
    written: list[Node] = []
    for body in (n.attrs["body"] for n in order if n.op.kind is Kind.SEGMENT):
        inner_read, inner_written = _state(body)
        read |= inner_read
        written += inner_written
    writes = [n for n in graph.outputs if n.op.kind is Kind.EFFECT and n.op.rule.action == "write"]
    used = {i for n in order if n not in writes and n.op.kind is not Kind.SEGMENT for i in n.inputs}
    used |= {w.inputs[1] for w in writes} | set(graph.outputs)
    read |= {_handle(n) for n in used if n.op.kind is Kind.INPUT and n.attrs["role"] == "variable"}
    return read, written + [_handle(w.inputs[0]) for w in writes]


def _variables(graph: Graph) -> list[Node]:
    return [_handle(n) for n in graph.inputs if n.attrs["role"] == "variable"]


def _handle(node: Node) -> Node:
    """The user's handle behind a variable input, which passes may have rebuilt."""
    return node.attrs["variable"].handle


def compile_graph(store, fetches: Sequence[Node], feeds: Sequence[Node], arrays: Sequence[np.ndarray] | None) -> Compiled:
    """The program that computes `fetches` from `feeds`; `arrays` are the first feeds, if there are any, for the value check."""
    name = _program_name(fetches)
    graph = fed_variables(captured(name, fetches, feeds), feeds)
    check_feeds(graph, feeds)
    if options.device == "numpy":
        from graphc.making import meaning
        return Interpreted(store, graph, meaning(graph, name))
    if options.device != "cpu":
        raise report(CompileError, f"there is no device {options.device!r}", rule="the devices are cpu and numpy")
    if options.front_end not in ("graphc", "numba"):
        raise report(CompileError, f"there is no front end {options.front_end!r}", rule="the front ends are graphc and numba")
    batches = named_batches(graph)
    if not batches:
        return _compiled(store, graph, name, arrays, frozenset())
    found = BySize(store, graph, batches, lambda few: _compiled(store, graph, name, arrays, few))
    if arrays is not None:
        found.part(arrays)
    return found


def _compiled(store, graph: Graph, name: str, arrays: Sequence[np.ndarray] | None, few: frozenset[str]) -> Compiled:
    """The program of a captured graph, in which the dims of the names `few` are small: an earlier process made it, or it is
    made now.
    """
    start = time.perf_counter()
    kept = kept_graph(graph, few)
    found = _loaded(store, kept) if kept else None
    if found is None:
        found = _built(store, graph, kept, name, arrays, few)
        how = "built"
    else:
        how = "loaded"
    programs = found.programs
    if options.debug:
        print(f"graphc: {name}: {how} in {time.perf_counter() - start:.2f} s, {sum(len(p.records) for p in programs)} kernel "
              f"calls of {len({s for p in programs for s in p.objects})} kernels", file=sys.stderr)
    if "memory" in options.explain:
        for program in programs:
            for line in (*reuse_text(program), *str(program.memory).split("\n")):
                print(f"graphc: {program.name}: {line}", file=sys.stderr)
    return found


def _built(store, graph: Graph, kept: KeptGraph | None, name: str, arrays: Sequence[np.ndarray] | None,
           few: frozenset[str]) -> Compiled:
    """The program of a graph, made by passes and code generation, and kept for the next process."""
    from graphc.making import make
    fused, programs = make(store, graph, kept, name, arrays, few)
    state = State.of(fused)
    if fused in programs:
        return Native(store, graph, state, programs[fused], fused)
    from graphc.chain import Chain
    return Chained(store, graph, state, lambda variables: Chain(
        fused, variables, programs.__getitem__, budget=store.budget))


def _loaded(store, kept: KeptGraph) -> Compiled | None:
    """The program that another process made of a graph; None if there is none that can be used."""
    found = kept.load()
    if found is None:
        return None
    from graphc.runtime.loader import LoadError
    document, blobs = found
    name = kept.own_names()
    try:
        programs = [kept.bound(Program.of_document(p, blobs), name) for p in document["programs"]]
        state = State.of_numbers(kept.graph, document)
        if "skeleton" not in document:
            return Native(store, kept.graph, state, named_like(programs[0], kept.graph))
        from graphc.chain import Chain
        from graphc.skeleton import Reader
        reader = Reader(kept.form, name, blobs)
        graph = reader.graph(document["skeleton"])
        return Chained(store, kept.graph, state, lambda variables: Chain(
            graph, variables, lambda body: programs[reader.programs[body]], reader.orders.__getitem__, store.budget))
    except (GraphcError, LoadError, LookupError, TypeError, ValueError) as e:
        warn_once(f"a compiled program is not used: {str(e).splitlines()[0]}")
        return None


def captured(name: str, fetches: Sequence[Node], feeds: Sequence[Node]) -> Graph:
    """The function from feeds to fetches. Gradients are those of the whole graph, at the values that are fed: feeding a tensor
    in the middle does not cut the way to what it was made of.
    """
    inner = [f for f in feeds if f.op.kind is not Kind.INPUT]
    if not inner or all(n.op.kind is not Kind.GRAD for n in topological(fetches)):
        return capture(name, fetches, feeds)
    from graphc.passes.differentiate import differentiate
    whole = differentiate(capture(name, (*fetches, *inner), [f for f in feeds if f.op.kind is Kind.INPUT]))
    images = dict(zip(inner, whole.outputs[len(fetches):], strict=True))
    binders = {name: n for n in whole.required for name in new_dims(n)}
    return capture(name, whole.outputs[:len(fetches)], [images.get(f, f) for f in feeds], binders)


def fed_variables(graph: Graph, feeds: Sequence[Node]) -> Graph:
    """The graph with variables that are fed as ordinary feeds. Raises FeedError for one that is also written."""
    fed = {n for n in feeds if n.attrs.get("role") == "variable"}
    if not fed:
        return graph
    for node in graph.nodes():
        if node.op.kind is Kind.EFFECT and node.op.rule.action != "read" and node.inputs[0] in fed:
            raise report(FeedError, f"the variable {node.inputs[0].name!r} is fed and written in one run",
                         [("written", node.describe())])
    return substitute(graph, {n: input_node(n.name, n.type, location=n.location) for n in fed})


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
