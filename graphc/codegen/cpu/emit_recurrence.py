"""The source of recurrences: a plain loop around traced bodies of vectors with one lane, which LLVM keeps in registers."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.cpu.bodies import HELPERS, Body, make_body
from graphc.codegen.cpu.simd_core import register_dtype
from graphc.codegen.cpu.source import KernelSource, Skeleton
from graphc.codegen.kernel import RecurrenceKernel, Statement, statements


def emit_recurrence(kernel: RecurrenceKernel) -> KernelSource:
    """The source of a recurrence. Thread 0 runs it alone."""
    emitter = _RecurrenceEmitter(kernel)
    emitter.emit()
    return emitter.skeleton.source(HELPERS)


class _RecurrenceEmitter:
    def __init__(self, kernel: RecurrenceKernel):
        self.kernel, self.skeleton = kernel, Skeleton(kernel, 1)
        self.dtypes = {s.name: register_dtype(s.dtype) for s in statements(kernel) if hasattr(s, "dtype")}
        self.integers = [*kernel.buffers, *kernel.sizes, "t", "count", "going", "error", "record"]
        loaded = [s.name for s in kernel.before if s.name in self.dtypes]
        self.vectors = [*loaded, *(n for n, _ in kernel.states if n not in loaded)]

    def emit(self) -> None:
        kernel, s = self.kernel, self.skeleton
        self.call("before", kernel.before, self.vectors, self.vectors)
        if kernel.condition:
            s.line(f"turns = arg({kernel.turns}, 0)")
            s.open("if turns > 0:")
            self.call("again", kernel.again, [n for n, _ in kernel.states], [n for n, _ in kernel.states])
            s.close()
            s.line("count = 0")
            s.open("while True:")
            self.call("test", kernel.test, ["found"], ["going"], [("found", "int")],
                      [f"found = to_int(to_i64({kernel.condition}))"])
            s.open("if going == 0:")
            s.line("break")
            s.close()
        else:
            s.loop("count", 0, kernel.length)
            s.line(f"t = {kernel.length} - 1 - count" if kernel.reverse else "t = count")
        self.call("body", kernel.body, kernel.new, [n for n, _ in kernel.states])
        if kernel.condition:
            s.line("count = count + 1")
            s.open(f"if count == {kernel.turn}:")
            s.line("break")
            s.close()
        if kernel.may_fail:
            s.open("if arg(error, 0) != 0:")
            s.line("break")
            s.close()
        s.close()
        if kernel.condition:
            s.line(f"count = count + turns * {kernel.turn}")
        self.call("after", kernel.after, [], [])

    def call(self, name: str, part: Sequence[Statement], results: Sequence[str], targets: Sequence[str],
             typed: list[tuple[str, str]] | None = None, last: Sequence[str] = ()) -> None:
        """targets = name(...): a traced function of these statements that returns `results`."""
        typed = [(r, self.dtypes[r]) for r in results] if typed is None else typed
        body: Body = make_body(name, part, "", self.integers, self.vectors, list(dict.fromkeys(typed)), last=last, masked=False)
        body.results = typed
        if not body.lines and not typed:
            return
        s = self.skeleton
        s.bodies.append(body)
        s.traced[name] = (name, tuple(d for _, d in typed), {}, 1)
        text = f"{name}({', '.join(body.parameters)})"
        s.line(f"{', '.join(targets)} = {text}" if targets else text)
