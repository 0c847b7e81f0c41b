"""The source of routines, which Numba's front end compiles: a loop over a thread's items around the op's own statements."""
from __future__ import annotations

import re
from functools import partial

from graphc.codegen.cpu.bodies import place
from graphc.codegen.cpu.source import KernelSource, Skeleton
from graphc.codegen.kernel import Argument, RoutineKernel
from graphc.ir.types import BY_SHORT

_FAIL = re.compile(r"\bfail\((\d+), ")
_CALL = re.compile(r"\b(wide|lowest|highest|fail|[a-z]\w*64)\(")


def emit_routine(kernel: RoutineKernel, lanes: int) -> KernelSource:
    """The source of a routine. `lanes` plays no part: the code is scalar."""
    s = Skeleton(kernel, lanes)
    for name, number in kernel.numbers:
        s.line(f"{name} = {number}")
    for argument in kernel.arguments:
        if argument.scratch:
            s.line(pointer(argument, f"thread * {argument.scratch}"))
    if kernel.items:
        s.line(f"items = {' * '.join(str(size) for _, size in kernel.items)}")
        s.open("for item in range(items * thread // threads, items * (thread + 1) // threads):")
        s.line("rest = item")
        for axis, size in reversed(kernel.items[1:]):
            s.line(f"{axis} = rest % {size}")
            s.line(f"rest = rest // {size}")
        s.line(f"{kernel.items[0][0]} = rest")
    for argument in kernel.arguments:
        if not argument.scratch:
            s.line(pointer(argument, place(argument.access.offset, argument.access.strides)))
    for k, access in enumerate(kernel.culprits):
        s.line(f"culprit{k} = {place(access.offset, access.strides)}")
    for line in kernel.body.splitlines():
        s.line(_FAIL.sub(r"fail(error, record + \1, culprit\1 + ", line))
    source = s.source()
    source.is_skeleton = False
    used = {f"pointer_{a.access.dtype}" for a in kernel.arguments} | set(_CALL.findall(kernel.body))
    source.tiles = {name: partial(_intrinsic, name) for name in sorted(used)}
    return source


def pointer(argument: Argument, start: str) -> str:
    """The line that makes an argument: a pointer to element `start` of its buffer."""
    access = argument.access
    address = access.buffer if start == "0" else f"{access.buffer} + ({start}) * {BY_SHORT[access.dtype].size}"
    return f"{argument.name} = pointer_{access.dtype}({address})"


def _intrinsic(name: str, space: dict):
    """The intrinsic that a routine's text calls by `name`."""
    from graphc.codegen.cpu import pointers
    return pointers.pointers[name] if name in pointers.pointers else getattr(pointers, name)
