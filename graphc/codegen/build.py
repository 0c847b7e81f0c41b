"""Builds programs: fused graph to lowered calls, plan, native kernels, and a `Program` record that needs no compiler."""
from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from graphc.codegen.arena import threads_times
from graphc.codegen.control import Part, Row, times
from graphc.codegen.copies import copy_call
from graphc.codegen.cuts import Rest
from graphc.codegen.kernel import ContractKernel, Kernel, LoopKernel, RecurrenceKernel, WindowKernel
from graphc.codegen.kernel_text import kernel_text
from graphc.codegen.lower import Buffer, Call, Target
from graphc.codegen.plan import Control, Plan, Planner, Record
from graphc.codegen.regions import Lowered, lower_graph
from graphc.codegen.statements import RUN
from graphc.config import options
from graphc.errors import Location, Place
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.op import Drawn, Kind, WatchedArray
from graphc.ir.types import TensorType
from graphc.passes.regions import Source, contiguous
from graphc.program import NO_LIMIT, ArraySpec, BufferSpec, FailureSpec, Program, RecordSpec, plain_array
from graphc.records import changed

MOVE_WORDS, PART_WORDS, FIX_WORDS = 3, 6, 2     # as in `runtime.layout`
BACK_THREADS = 2        # threads in which LLVM makes machine code
GUESSED_TIMES = 1000    # iterations of a loop whose number only a run finds out


@functools.cache
def cpu_target() -> Target:
    """The lowering target for this machine's processor."""
    from graphc.codegen.cpu.host import host
    found = host()
    return Target(found.vector_bytes, found.vector_registers, cheap_masks=found.vector_bytes == 64)


def lower(graph: Graph, target: Target | None = None) -> tuple[Lowered, Plan]:
    """The kernel calls of a fused graph and the plan of its program."""
    lowered = lower_graph(graph, target or cpu_target())

    def copy(value: Node, source: Buffer, written: Buffer) -> Call:
        memory = Source(value, contiguous(value.type.shape), 0)
        return copy_call("copy", value, memory, source, written, line=value.location)
    return lowered, Planner(lowered, copy).plan()


_compiled: dict[tuple[Kernel, int, str], tuple[str, bytes]] = {}
_compiling = threading.Lock()


def emit(kernel: Kernel):
    """The source of a kernel, for this machine's vectors."""
    from graphc.codegen.cpu.emit_contract import emit_contract
    from graphc.codegen.cpu.emit_loops import emit_loops
    from graphc.codegen.cpu.emit_recurrence import emit_recurrence
    from graphc.codegen.cpu.emit_routine import emit_routine
    from graphc.codegen.cpu.emit_together import emit_together
    from graphc.codegen.cpu.emit_windows import emit_windows
    if isinstance(kernel, RecurrenceKernel):
        return emit_recurrence(kernel)
    lanes = cpu_target().vector_bytes // kernel.item_bytes
    if isinstance(kernel, LoopKernel):
        return emit_together(kernel, lanes) if kernel.together else emit_loops(kernel, lanes)
    if isinstance(kernel, WindowKernel):
        return emit_windows(kernel, lanes)
    return emit_contract(kernel, lanes) if isinstance(kernel, ContractKernel) else emit_routine(kernel, lanes)


def compile_kernels(kernels: Iterable[Kernel]) -> None:
    """Compile what was not yet compiled in this process: equal kernels are compiled once.

    This thread writes one kernel after the other as LLVM text, others make machine code of each meanwhile: LLVM runs without
    Python's lock, and takes half as long again.
    """
    with _compiling:
        missing = [k for k in dict.fromkeys(kernels) if _key(k) not in _compiled]
        if missing:
            with _short_turns(), ThreadPoolExecutor(BACK_THREADS, "graphc-llvm") as back:
                try:
                    _compile(missing, back)
                except BaseException:
                    back.shutdown(cancel_futures=True)
                    raise


def _compile(kernels: Sequence[Kernel], back: ThreadPoolExecutor) -> None:
    from graphc.codegen.cpu.compile import llvm_text
    from graphc.codegen.cpu.host import optimised_object
    waiting = []
    for kernel in kernels:
        start = time.thread_time()
        source = emit(kernel)
        if options.debug >= 4:
            print(f"{kernel_text(kernel)}\n{source.text}", file=sys.stderr)
        symbol, text = llvm_text(source)
        waiting.append((kernel, symbol, time.thread_time() - start, back.submit(_timed, optimised_object, text)))
    for kernel, symbol, front_seconds, found in waiting:
        code, seconds = found.result()
        _compiled[_key(kernel)] = symbol, code
        if options.debug:
            print(f"graphc: kernel {kernel.name} compiled in {(front_seconds + seconds) * 1e3:.0f} ms", file=sys.stderr)


def _timed(function, *arguments):
    """(the function's result, the seconds of work that this thread did for it)."""
    start = time.thread_time()
    return function(*arguments), time.thread_time() - start


@contextmanager
def _short_turns():
    """Let threads hold Python's lock for a short time only: LLVM's needs it for moments, but some twenty times a kernel."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def compile_kernel(kernel: Kernel) -> tuple[str, bytes]:
    """(symbol, object code) of a kernel."""
    if _key(kernel) not in _compiled:
        compile_kernels([kernel])
    return _compiled[_key(kernel)]


def _key(kernel: Kernel) -> tuple[Kernel, int, str]:
    return kernel, cpu_target().vector_bytes, options.front_end


def build(graph: Graph, dump: Path | None = None, few: frozenset[str] = frozenset()) -> Program:
    """The program of a fused graph, made for small sizes of the dims of the names `few`."""
    _, plan = lower(graph, replace(cpu_target(), few=few))
    compile_kernels(r.call.kernel for r in plan.calls)
    objects = dict(compile_kernel(r.call.kernel) for r in plan.calls)
    if dump is not None:
        write_kernels(plan, dump)
    records, failures, drawn = _records(plan)
    return changed(outline(graph, plan), records=tuple(records), failures=tuple(failures), drawn=tuple(drawn), objects=objects)


def write_kernels(plan: Plan, folder: Path) -> None:
    """The kernel IR and the generated source of every kernel, as files."""
    folder.mkdir(parents=True, exist_ok=True)
    for kernel in dict.fromkeys(r.call.kernel for r in plan.calls):
        symbol, _ = compile_kernel(kernel)
        (folder / f"{symbol}.kernel").write_text(kernel_text(kernel) + "\n")
        (folder / f"{symbol}.py").write_text(emit(kernel).text)


def outline(graph: Graph, plan: Plan) -> Program:
    """A program without its kernel calls: what goes in and out, and its memory. Everything in it is numbers and texts."""
    def spec(node):
        return ArraySpec(node.label, node.type.dtype.name, tuple(str(d) for d in node.type.shape), _place(node.location))
    inputs = {role: tuple(spec(n) for n in graph.inputs if n.attrs["role"] == role) for role in ("feed", "variable")}
    outputs = tuple(spec(o) for o in graph.outputs if o.op.kind is not Kind.EFFECT or o.op.rule.action != "write")
    values = [b.node.attrs["value"] for b in plan.constants if b.node is not None]
    given = tuple(v.number if isinstance(v, WatchedArray) else -1 for v in values)
    names = sorted({n for node in graph.inputs for d in node.type.shape for n in dims.names(d)})
    written = tuple(o.inputs[0].label for o in graph.outputs if o.op.kind is Kind.EFFECT and o.op.rule.action == "write")
    equations = tuple((str(e.left), str(e.right), _place(e.location)) for e in graph.equations)
    updates = tuple((plan.variables.index(v), why) for v, why in plan.updates)
    return Program(graph.name, tuple(names), inputs["feed"], inputs["variable"], tuple(plain_array(v.content) for v in values),
                   outputs, written, equations, (), str(plan.arena), tuple(str(s) for s in plan.slots), _buffers(plan), updates,
                   (), (), given, {})


def _buffers(plan: Plan) -> tuple[BufferSpec, ...]:
    """What is in the arena."""
    makers = {b: r.call for r in reversed(plan.calls) for b in r.call.writes}

    def spec(buffer: Buffer, slot: int) -> BufferSpec:
        node, (first, last) = buffer.node, plan.lives[buffer]
        holds = node.type if node is not None and isinstance(node.type, TensorType) else None
        maker = makers.get(buffer)
        line = node.location if node is not None else maker.location if maker is not None else None
        name = maker.kernel.name if buffer.name.isdigit() and maker is not None else buffer.name
        return BufferSpec(name, slot, str(threads_times(buffer)), first, last, holds.dtype.short if holds else "",
                          tuple(str(d) for d in holds.shape) if holds else (), buffer.per_thread, _place(line))
    return tuple(spec(b, s) for b, s in plan.slot_of.items())


def _place(location: Location | None) -> str:
    """A user's line; of a node that has a number only that, for it may have another line in the next process."""
    return f"#{location.number}" if isinstance(location, Place) else str(location or "")


Words = list[Buffer | Rest | str]   # of a record's table: buffers stand for their addresses


def _records(plan: Plan) -> tuple[list[RecordSpec], list[FailureSpec], list[int]]:
    """The records, what the failures mean that their kernels report, and the drawn seeds that they take."""
    tables: list[Words] = []
    failures: list[FailureSpec] = []
    drawn: list[int] = []

    def word(size: Size) -> str | Rest:
        if isinstance(size, Rest):
            return size
        if not isinstance(size, Drawn):
            return f"= {size}"
        if size not in drawn:
            drawn.append(size)
        return f"drawn {drawn.index(size)}"
    for record in plan.records:
        words: Words = []
        if isinstance(record, Record):
            call = record.call
            words = [*call.buffers, *map(word, call.sizes)]
            if call.kernel.may_fail:
                words += ["error", f"= {len(failures)}"]
                failures += [FailureSpec(f.op, f.message, f.culprit, f.dtype, tuple(str(d) for d in f.shape),
                                         None if f.limit is None else str(f.limit), _place(f.location))
                             for f in call.failures]
        elif record.test is not None:
            words = [record.test]
        elif record.kind == "share" and record.loop is not None and (shares := record.loop.shares):
            total = shares.parts * shares.outer * shares.inner
            words = ["= 0", "= 0", f"= {total}", f"= {shares.parts}", f"= {shares.inner}"]
        elif record.kind == "loop" and record.loop is not None:
            loop = record.loop
            words = [loop.count, f"= {NO_LIMIT if loop.length is None else loop.length}", f"= {int(loop.reverse)}", loop.parent,
                     loop.run]
        tables.append(words)
    _add_moves(plan, tables)
    where = _places(plan)
    texts = [tuple(w if isinstance(w, str) else where.get(w, "row") if isinstance(w, Buffer) else "row" for w in words)
             for words in tables]
    return [_record(record, words) for record, words in zip(plan.records, texts, strict=True)], failures, drawn


def _record(record: Record | Control, words: tuple[str, ...]) -> RecordSpec:
    repeats = str(dims.product(times(loop, GUESSED_TIMES) for loop in record.loops))
    if isinstance(record, Control):
        return RecordSpec("", words, False, record.barrier, False, "0", False, "", record.kind, record.target, repeats)
    call = record.call
    return RecordSpec(compile_kernel(call.kernel)[0], words, call.serial, record.barrier, call.kernel.may_fail,
                      str(call.operations), isinstance(call.kernel, ContractKernel | WindowKernel), _place(call.location),
                      repeats=repeats)


def _places(plan: Plan) -> dict[Buffer, str]:
    """Where each buffer is."""
    where: dict[Buffer, str] = {RUN: "run"}
    for kind, buffers in (("feed", plan.feeds), ("variable", plan.variables), ("constant", plan.constants),
                          ("output", plan.outputs)):
        for k, buffer in enumerate(buffers):
            where.setdefault(buffer, f"{kind} {k}")
    for buffer, slot in plan.slot_of.items():
        where[buffer] = f"slot {slot}"
    for buffer, target in plan.aliases.items():
        where[buffer] = where[target]
    return where


def _add_moves(plan: Plan, tables: list[Words]) -> None:
    """To each loop's table, the words that its iterations change: inner loops first, whose own words an outer one may move."""
    for number in reversed(range(len(tables))):
        start = plan.records[number]
        if not isinstance(start, Control) or start.kind not in ("loop", "share") or start.loop is None:
            continue
        rows = set(start.loop.rows)
        moves: Words = []
        for inner in range(number + 1, start.target):
            for k, word in enumerate(tables[inner]):
                if isinstance(word, Row) and word in rows:
                    moves += [f"place {inner} {k}", word.whole]
                    if isinstance(word, Part):
                        moves += [f"= {size}" for size in (word.outer, word.inner, word.step, word.whole.bytes)]
                    else:
                        moves.append(f"= {word.step}")
                elif isinstance(word, Rest) and start.loop.shares is not None:
                    part, whole = word.step, word.whole
                    moves += [f"place {inner} {k}", f"= {whole}", "= 0", "= 0", f"= {-part}", f"= {part - whole}"]
        if start.loop.shares is None:
            tables[number] += [f"= {len(moves) // MOVE_WORDS}", *moves]
        else:
            _add_fixes(plan, tables, number, start.target, moves)


def _add_fixes(plan: Plan, tables: list[Words], number: int, end: int, moves: Words) -> None:
    """To the table of a loop that is shared out, its moves and what is another word in each thread's copy: places in the
    copy, and addresses of temporaries.
    """
    table = tables[number]
    first = len(table) + 3
    places = [(number, first + k) for k in range(0, len(moves), PART_WORDS)]
    places += [(inner, k) for inner in range(number + 1, end) for k, word in enumerate(tables[inner])
               if isinstance(word, str) and word.startswith("place")]
    fixes: Words = [text for inner, k in places for text in (f"place {inner} {k}", "span")]
    for inner in range(number + 1, end):
        for k, word in enumerate(tables[inner]):
            if isinstance(word, Buffer) and word.per_thread and word in plan.slot_of:
                fixes += [f"place {inner} {k}", f"= {word.bytes}"]
    count = len(fixes) // FIX_WORDS
    words = first + len(moves) + len(fixes) + sum(len(t) for t in tables[number + 1:end])
    table += [f"= {words}", f"= {len(moves) // PART_WORDS}", f"= {count}", *moves, *fixes]
