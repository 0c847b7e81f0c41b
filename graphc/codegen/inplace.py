"""When a new value may be computed straight into the memory of the old one."""
from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from graphc.codegen.kernel import ContractKernel, Kernel, Load, LoopKernel, Store, WindowKernel, statements
from graphc.codegen.lower import Buffer, Call

if TYPE_CHECKING:
    from graphc.codegen.control import Step


def late_last(steps: Sequence[Step], values: Collection[Buffer]) -> list[Step]:
    """The steps in their order, but those that make `values`, and what needs them, after all others: they may then
    overwrite old values that others read. What is changed into one of `values` is made late, too.
    """
    wanted, made = set(values), frozenset(b for step in steps for b in step.writes)
    for step in reversed(steps):
        if step.writes & wanted and (start := initial(step)) in made:
            wanted.add(start)
    delayed: set[Buffer] = set()
    first: list[Step] = []
    second: list[Step] = []
    for step in steps:
        writes = step.writes
        if writes & wanted or step.reads & delayed or writes & delayed:
            delayed |= writes
            second.append(step)
        else:
            first.append(step)
    return first + second


def may_overwrite(order: Sequence[Step], old: Buffer, new: Buffer) -> bool:
    """Whether `new` may be computed into the memory of `old`: nothing reads the old value later, and the one step that makes
    the new one reads it, if at all, only where it writes. Or the first step is a copy of the old value, which is changed then.
    """
    writers = [k for k, step in enumerate(order) if new in step.writes]
    if not writers or any(old in s.reads for s in order[writers[0] + 1:]):
        return False
    step = order[writers[0]]
    if len(writers) > 1:
        return initial(step) is old
    return old not in step.reads or isinstance(step, Call) and _elementwise(step, old, new)


def initial(step: Step) -> Buffer | None:
    """The buffer of which a step is a copy that others change."""
    return step.initial if isinstance(step, Call) else None


def is_needless(step: Step, real: Callable[[Buffer], Buffer] = lambda b: b) -> bool:
    """Whether a step copies a buffer onto itself."""
    start = initial(step)
    return start is not None and any(real(start) is real(b) for b in step.writes)


def _elementwise(call: Call, old: Buffer, new: Buffer) -> bool:
    """Whether a kernel reads `old` only at the very element of `new` that it writes next, once for each: a loop kernel for each
    row, a contraction in its epilogue.
    """
    kernel = call.kernel
    if isinstance(kernel, LoopKernel) and not kernel.chunk:
        single = [*kernel.before, *(s for phase in kernel.phases for s in phase.after)]
    elif isinstance(kernel, ContractKernel | WindowKernel):
        single = list(kernel.epilogue)
    else:
        return False
    place = {b: f"a{k}" for k, b in enumerate(call.buffers)}
    touches = [s for s in statements(kernel) if isinstance(s, Load | Store) and s.access.buffer in (place[old], place[new])]
    if any(s not in single or s.index for s in touches) or place[old] in _operands(kernel):
        return False
    loads = [s.access for s in touches if isinstance(s, Load)]
    *_, last = touches
    return isinstance(last, Store) and len(touches) == len(loads) + 1 and all(
        replace(last.access, buffer=place[old]) == access for access in loads)


def _operands(kernel: Kernel) -> list[str]:
    """The buffers that a contraction's operands are in."""
    if isinstance(kernel, ContractKernel):
        return [kernel.a.access.buffer, kernel.b.access.buffer]
    return [kernel.a.buffer, kernel.b.buffer] if isinstance(kernel, WindowKernel) else []
