"""Kernels as text, for dumps."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.kernel import (
    Access,
    Check,
    ContractKernel,
    Coordinate,
    Int,
    Kernel,
    Literal,
    Load,
    Operand,
    Phase,
    Pool,
    RecurrenceKernel,
    RoutineKernel,
    Statement,
    Store,
    WindowKernel,
)


def kernel_text(kernel: Kernel) -> str:
    """A kernel as text, for dumps: the fields, one statement a line."""
    head = f"kernel {kernel.name}({', '.join(kernel.buffers + kernel.sizes)}) "
    if isinstance(kernel, ContractKernel):
        batch = "".join(f"{a}<{n}, " for a, n in kernel.batch)
        sums = "acc" if kernel.groups == 1 else f"acc0 to acc{kernel.groups - 1}"
        lines = [head + "{", f"  for {batch}m<{kernel.m}, n<{kernel.n}: {sums} = sum over k<{kernel.k} of a * b"
                 f"{f', {kernel.part} at a time' if kernel.part else ''}  # tile {kernel.rows}x{kernel.vectors} vectors"
                 f"{f' with {kernel.where}' if kernel.where else ''}",
                 *_operand_lines("a", kernel.a), *_operand_lines("b", kernel.b)]
        return "\n".join(lines + [f"    {_line(s)}" for s in kernel.epilogue] + ["}"])
    if isinstance(kernel, RecurrenceKernel):
        return "\n".join([head + "{", *_recurrence_lines(kernel), "}"])
    if isinstance(kernel, RoutineKernel):
        lines = [head + "{", f"  for {', '.join(f'{a}<{n}' for a, n in kernel.items) or 'once'}:"]
        for taken in kernel.arguments:
            lines.append(f"    {taken.name}: {taken.access.dtype} at {_at(taken.access, '', 0)}" +
                         (f", {taken.scratch} for each thread" if taken.scratch else ""))
        lines += [f"    {name} = {number}" for name, number in kernel.numbers]
        return "\n".join([*lines, *(f"    {line}".rstrip() for line in kernel.body.splitlines()), "}"])
    if isinstance(kernel, WindowKernel):
        return "\n".join([head + "{", *_window_lines(kernel), *(f"    {_line(s)}" for s in kernel.epilogue),
                          *_pool_lines(kernel.pool), "}"])
    axes = ", ".join(f"{a}<{n}" for a, n in kernel.parallel) or "once"
    lines = [head + "{", f"  for {axes}:  # vectors along {kernel.vector}"
             f"{f', turned from along {kernel.turned}' if kernel.turned else ''}"
             f"{f', {kernel.block} points an item' if kernel.block else ''}"
             f"{f', of what follows along {kernel.parallel[-1][0]}' if kernel.together else ''}"]
    lines += [f"    {_line(s)}" for s in kernel.before]
    return "\n".join([*lines, *_phase_lines(kernel.phases, kernel.reduced), "}"])


def _phase_lines(phases: Sequence[Phase], axes: Sequence[tuple[str, Int]]) -> list[str]:
    lines = []
    for phase in phases:
        lines.append(f"    for {', '.join(f'{a}<{n}' for a, n in axes)}:")
        lines += [f"      {_line(s)}" for s in phase.body]
        for a in phase.accumulators:
            lines.append(f"      {a.name} <- {a.arg or a.combine.format(acc=a.name, x=a.value)}")
        lines += [f"    {_line(s)}" for s in phase.after]
    return lines


def _pool_lines(pool: Pool | None) -> list[str]:
    if pool is None:
        return []
    moves = ", ".join(f"{axis} = {f'{step}*{window} + ' if window else ''}{tap}" for axis, window, tap, step in pool.moves)
    lines = [f"  pooled, {moves or 'tile by tile'}:", *(f"    {_line(s)}" for s in pool.before)]
    return lines + _phase_lines(pool.phases, pool.taps)


def _operand_lines(name: str, operand: Operand) -> list[str]:
    packing = operand.packing
    if packing is None:
        return [f"    {name}: {_place(operand)}"]
    head = f"    {name}: {packing.value}, packed to {_place(operand)}  # vectors along {packing.along}" \
        f"{f', turned from along {packing.turned}' if packing.turned else ''}"
    return [head, *(f"      {_line(s)}" for s in packing.prologue)]


def _recurrence_lines(kernel: RecurrenceKernel) -> list[str]:
    lines = [f"  {_line(s)}" for s in kernel.before]
    if kernel.condition:
        lines += [f"  if {kernel.turns} > 0:", *(f"    {_line(s)}" for s in kernel.again)]
        lines += [f"  while, at most {kernel.turn} times:", *(f"    {_line(s)}" for s in kernel.test)]
        lines.append(f"    until not {kernel.condition}")
    else:
        lines.append(f"  for t<{kernel.length}{', from the last on' if kernel.reverse else ''}:")
    lines += [f"    {_line(s)}" for s in kernel.body]
    if kernel.states:
        lines.append(f"    {', '.join(n for n, _ in kernel.states)} = {', '.join(kernel.new)}")
    return lines + [f"  {_line(s)}" for s in kernel.after]


def _window_lines(kernel: WindowKernel) -> list[str]:
    loops = "".join(f"{a}<{n}, " for a, n in kernel.loops)
    lines = [f"  for {loops}m<{kernel.m}, n<{kernel.n}: acc = sum over k of a * b"
             f"  # tile {kernel.rows}x{kernel.vectors} {'sums of vectors' if kernel.dot else 'vectors'}"
             + (", a vector of the last sum at a time" if kernel.dot and kernel.across else "")
             + (f", {kernel.chunk} of k0 at a time" if kernel.chunk else "")]
    for side, access, free in (("a", kernel.a, kernel.a_free), ("b", kernel.b, kernel.b_free)):
        terms = "".join(f" + {getattr(s, side)}*k{k}" for k, s in enumerate(kernel.sums) if getattr(s, side) != 0)
        lines.append(f"    {side}: {_at(access, '', 0)[:-1]} + {free}*{'m' if side == 'a' else 'n'}{terms}]")
    for k, s in enumerate(kernel.sums):
        span = s.span
        moved = f", {span.moved} at {span.stride}*({span.offset} + {span.scale}*{span.axis or 0} + {span.step}*k{k})" \
            f"/{span.divisor} in [0, {span.limit})" if span else ""
        lines.append(f"    k{k}<{s.size}{moved}")
    return lines


def _place(operand: Operand) -> str:
    terms = "".join(f" + {s}*{a}" for a, s in operand.access.strides)
    return f"{operand.access.buffer}[{operand.access.offset}{terms} + {operand.free}*free + {operand.summed}*k]"


def _at(access: Access, index: str, scale: Int) -> str:
    terms = [str(access.offset)] if access.offset != 0 or not access.strides else []
    terms += [a if s == 1 else f"{s}*{a}" for a, s in access.strides] + ([f"{scale}*{index}"] if index else [])
    return f"{access.buffer}[{' + '.join(terms)}]"


def _line(s: Statement) -> str:
    if isinstance(s, Load):
        inside = f" where {s.where} else {s.fill}" if s.where else ""
        return f"{s.name}: {s.dtype} = {_at(s.access, s.index, s.scale)}{inside}"
    if isinstance(s, Store):
        adds = s.action == "sum" or s.index and s.action == "add"
        return f"{_at(s.access, s.index, s.scale)} {'+=' if adds else '='} {s.value}"
    if isinstance(s, Literal):
        return f"{s.name}: {s.dtype} = {s.value}"
    if isinstance(s, Coordinate):
        return f"{s.name}: {s.dtype} = {s.offset}" + "".join(f" + {k}*{a}" for a, k in s.strides)
    if isinstance(s, Check):
        return f"fail {s.failure} where {s.condition}"
    return f"{s.name}: {s.dtype} = {s.text}" + (f"  # {s.line}" if s.line else "")
