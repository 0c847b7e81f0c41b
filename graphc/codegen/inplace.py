"""When a new value may be computed straight into the memory of the old one."""
from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from graphc.codegen.kernel import Load, LoopKernel, Store, statements
from graphc.codegen.lower import Buffer, Call

if TYPE_CHECKING:
    from graphc.codegen.control import Step


def late_last(steps: Sequence[Step], values: Collection[Buffer]) -> list[Step]:
    """The steps in their order, but those that make `values`, and what needs them, after all others: they may then
    overwrite old values that others read.
    """
    wanted = frozenset(values)
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
    """Whether `new` may be computed into the memory of `old`: one step makes it, nothing reads the old value later, and a
    kernel that does so itself reads it only where it writes.
    """
    writers = [k for k, step in enumerate(order) if new in step.writes]
    if len(writers) != 1:
        return False
    step = order[writers[0]]
    if any(old in s.reads for s in order[writers[0] + 1:]):
        return False
    return old not in step.reads or isinstance(step, Call) and _elementwise(step, old, new)


def _elementwise(call: Call, old: Buffer, new: Buffer) -> bool:
    """Whether a kernel reads `old` only at the very element of `new` that it writes next."""
    kernel = call.kernel
    if not isinstance(kernel, LoopKernel) or kernel.phases:
        return False
    place = {b: f"a{k}" for k, b in enumerate(call.buffers)}
    loads = [s.access for s in statements(kernel) if isinstance(s, Load) and s.access.buffer == place[old]]
    stores = [s.access for s in statements(kernel) if isinstance(s, Store) and s.access.buffer == place[new]]
    indexed = any(getattr(s, "index", "") for s in statements(kernel))
    return not indexed and len(stores) == 1 and all(
        (a.strides, a.offset, a.dtype) == (stores[0].strides, stores[0].offset, stores[0].dtype) for a in loads)
