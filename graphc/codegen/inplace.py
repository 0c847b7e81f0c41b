"""When a new value may be computed straight into the memory of the old one."""
from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from graphc.codegen.kernel import Access, ContractKernel, Int, Kernel, Load, LoopKernel, Store, WindowKernel, statements
from graphc.codegen.lower import Buffer, Call
from graphc.ir import dims
from graphc.ir.dims import Size

if TYPE_CHECKING:
    from graphc.codegen.control import Loop, Row, Step


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


def reusable_rows(loop: Loop, real: Callable[[Buffer], Buffer]) -> Iterator[tuple[Row, Row]]:
    """(old, new) rows of a loop that calls kernels only, such that the new one may be made in the memory of the old one, if
    nobody needs that later. `real` gives the memory behind a buffer.
    """
    calls = loop.body
    if loop.condition is not None or not all(isinstance(c, Call) for c in calls):
        return
    made = {b for c in calls for b in c.writes}
    for new in (row for row in loop.rows if row in made):
        for old in (row for row in loop.rows if row not in made):
            writer = next(c for c in calls if new in c.writes)
            shared = {b for c in calls for b in c.reads | c.writes if real(b) in (real(old), real(new))}
            alone = shared == {old, new} and all(old not in c.reads for c in calls if c is not writer)
            if alone and _geometry(old) == _geometry(new) and may_overwrite(calls, old, new):
                yield old, new


def _geometry(row: Buffer) -> tuple:
    """Where the rows of a buffer lie in it, and its size."""
    found: list = [row.bytes, row.per_thread]
    while (whole := getattr(row, "whole", None)) is not None:
        found += [getattr(row, name, 0) for name in ("step", "outer", "inner")] + [whole.bytes, whole.per_thread]
        row = whole
    return tuple(found)


def initial(step: Step) -> Buffer | None:
    """The buffer of which a step is a copy that others change."""
    return step.initial if isinstance(step, Call) else None


def is_needless(step: Step, real: Callable[[Buffer], Buffer] = lambda b: b) -> bool:
    """Whether a step copies a buffer onto itself."""
    start = initial(step)
    return start is not None and any(real(start) is real(b) for b in step.writes)


def _elementwise(call: Call, old: Buffer, new: Buffer) -> bool:
    """Whether a kernel reads `old` only at the very elements of `new` that it writes next, once for each: a loop kernel for
    each row, a contraction in its epilogue.
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
    stored: list[Access] = []
    for touch in touches:
        access = replace(touch.access, buffer=place[new])
        if isinstance(touch, Load) and (touch.access.buffer != place[old] or access in stored):
            return False
        if isinstance(touch, Store):
            stored.append(access)
    loaded = {replace(t.access, buffer=place[new]) for t in touches if isinstance(t, Load)}
    return loaded <= set(stored) and len(set(stored)) == len(stored) and (len(stored) == 1 or _are_apart(call, stored))


def _are_apart(call: Call, accesses: Sequence[Access]) -> bool:
    """Whether no element is addressed twice: as digits of a number are, whose places are the axes, and another one which of
    the accesses it is.
    """
    kernel, sizes = call.kernel, dict(zip(call.kernel.sizes, call.sizes, strict=True))
    if isinstance(kernel, LoopKernel):
        axes = kernel.parallel
    elif isinstance(kernel, ContractKernel):
        axes = (*kernel.batch, ("m", kernel.m), ("n", kernel.n))
    else:
        return False

    def value(number: Int) -> Size:
        return sizes[number] if isinstance(number, str) else number
    first, offsets = accesses[0], [value(a.offset) for a in accesses]
    if any((a.strides, a.dtype) != (first.strides, first.dtype) for a in accesses) or \
            any(value(size) != 1 and first.stride(axis) == 0 for axis, size in axes):
        return False
    digits = [(value(stride), value(dict(axes)[axis])) for axis, stride in first.strides]
    numbers = [*offsets, *(stride for stride, _ in digits)]
    if not all(isinstance(n, int) for n in numbers):
        return False
    start, *others = sorted(offsets)  # type: ignore[type-var]
    step = others[0] - start
    if any((o - start) % step != 0 for o in others):
        return False
    digits = sorted([*digits, (step, dims.floordiv(others[-1] - start, step) + 1)], key=lambda digit: digit[0])  # type: ignore[misc]
    return all(isinstance(size, int) and stride * size <= following for (stride, size), (following, _) in
               zip(digits, digits[1:], strict=False))


def _operands(kernel: Kernel) -> list[str]:
    """The buffers that a contraction's operands are in."""
    if isinstance(kernel, ContractKernel):
        return [kernel.a.access.buffer, kernel.b.access.buffer]
    return [kernel.a.buffer, kernel.b.buffer] if isinstance(kernel, WindowKernel) else []
