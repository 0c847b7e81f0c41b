"""The source of convolutions: loops over tiles, and the part of each window that exists, around one emitted tile."""
from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from graphc.codegen.cpu.bodies import HELPERS, Body, Lines, make_body, number, place
from graphc.codegen.cpu.source import KernelSource, Skeleton
from graphc.codegen.kernel import GROUP, Int, Pool, Statement, Sum, WindowKernel
from graphc.ir.types import BY_SHORT


def emit_windows(kernel: WindowKernel, lanes: int) -> KernelSource:
    """The source of a convolution for vectors of `lanes` elements."""
    s = Skeleton(kernel, lanes)
    width, item = kernel.vectors * (1 if kernel.dot else lanes), BY_SHORT[kernel.a.dtype].size
    epilogue = _epilogue(kernel)
    s.bodies.append(epilogue)
    split = isinstance(kernel.n, str) and kernel.vectors > 1 and not kernel.dot and kernel.edge < 0
    _tiles(s, kernel, width, lanes if split else 0)
    depth = len(s.indents)
    if kernel.pool:
        _taps(s, kernel.pool, width)
    for side, access, free, axis in (("a", kernel.a, kernel.a_free, "m"), ("b", kernel.b, kernel.b_free, "n")):
        moved = free != 0 and (side == "b" or kernel.edge < 0)  # the span on an edge sees to it
        s.line(f"{side}_at = {place(access.offset, (*access.strides, *(((axis, free),) if moved else ())))}")
    if kernel.paired:
        s.line("a_at += n")
    arguments = []
    for k, summed in enumerate(kernel.sums):
        chunk = kernel.chunk if k == 0 else 0
        if summed.span:
            arguments += _span(s, k, summed, chunk)
        elif chunk:
            arguments += _part(s, summed, chunk)
        else:
            arguments += [summed.size, summed.a, summed.b]
    arguments = arguments or [1, 0, 0]
    others = [p for p in epilogue.parameters if p not in ("m", "n", "acc", "mask")]
    live = "high - m" if kernel.edge >= 0 else f"{kernel.m} - m"
    text = ", ".join(str(x) for x in (
        f"{kernel.a.buffer} + {item} * a_at", kernel.a_free, f"{kernel.b.buffer} + {item} * b_at", kernel.b_free, *arguments,
        live, f"{kernel.n} - n", *_totals(s, kernel, lanes), "m", "n", *others))
    if split or kernel.edge >= 0:
        s.open("if panel >= whole:" if split else "if alone == 1:")
        s.line(f"tile_last({text})" if split else f"tile_row({text.replace(live, '1')})")
        s.close()
        s.open("else:")
    s.line(f"tile({text})")
    if kernel.pool:
        s.close_to(depth)
        _pooled(s, kernel, kernel.pool, f"n + ({width} if panel < whole else {lanes})" if split else f"n + {width}", lanes)
    source = s.source(HELPERS)
    source.text = source.text.replace("\n\ndef kernel(", f"\n\n{epilogue.text()}\n\ndef kernel(", 1)
    make = partial(_make_tile, kernel, lanes, len(arguments) // 3)
    source.tiles["tile"] = partial(make, kernel.rows, kernel.vectors, kernel.full or split)
    if split:
        source.tiles["tile_last"] = partial(make, kernel.rows, 1, False)
    if kernel.edge >= 0:
        source.tiles["tile_row"] = partial(make, 1, kernel.vectors, kernel.full)
    return source


def _tiles(s: Skeleton, kernel: WindowKernel, width: int, lanes: int) -> None:
    """Open the loop over tiles of `width` columns and work out where each is; with `lanes`, what is left of the columns goes
    vector by vector.
    """
    if kernel.edge >= 0:
        _inner_rows(s, kernel)
    else:
        s.line(f"tiles = ({kernel.m} + {kernel.rows - 1}) // {kernel.rows}")
    if lanes:
        s.line(f"whole = {kernel.n} // {width}")
        s.line(f"panels = whole + ({kernel.n} - whole * {width} + {lanes - 1}) // {lanes}")
    else:
        s.line(f"panels = ({kernel.n} + {width - 1}) // {width}")
    axes = [*kernel.loops, ("panel", "panels"), ("tile_number", "tiles")]
    if kernel.chunk:    # what a panel reads is needed by all tiles of a group
        axes = [("panel", "panels"), *kernel.loops, ("tile_number", "tiles")]
    elif kernel.paired:     # what the windows of a tile's rows share stays in the first cache
        axes = [("tile_number", "tiles"), *kernel.loops, ("panel", "panels")]
    s.line(f"rows = {' * '.join(str(size) for _, size in axes)}")
    if kernel.chunk:
        s.loop("group", "rows * thread // threads", "rows * (thread + 1) // threads", GROUP)
        s.minimum("group_stop", f"group + {GROUP}", "group_end")
        s.line("chunk = 0")
        s.open(f"while chunk < {kernel.sums[0].size} or chunk == 0:", f"chunk += {kernel.chunk}")
        s.points(axes, "group", "group_stop")
    else:
        s.points(axes, "rows * thread // threads", "rows * (thread + 1) // threads")
    s.line(f"m = tile_number * {kernel.rows}")
    if kernel.edge >= 0:
        s.line("alone = 1 if tile_number < low or tile_number >= low + inner else 0")
        s.line(f"m = tile_number if tile_number < low else low + (tile_number - low) * {kernel.rows}")
        s.line("m = m if tile_number < low + inner else high + tile_number - low - inner")
    s.line(f"n = panel * {width}")
    if lanes:
        s.line(f"n = n if panel < whole else panel * {lanes} + whole * {width - lanes}")


def _taps(s: Skeleton, pool: Pool, width: int) -> None:
    """Open the loops over the places of a pooling window. Say where a tile's elements are kept."""
    item = BY_SHORT[pool.access.dtype].size
    s.line(f"{pool.access.buffer} = {pool.kept} + {item} * (thread * {pool.elements} - m * {width} - n)")
    for tap, size in pool.taps:
        s.loop(tap, 0, size)
    for axis, window, tap, step in pool.moves:
        s.line(f"{axis} = {f'{window} * {step} + ' if window else ''}{tap}")


def _pooled(s: Skeleton, kernel: WindowKernel, pool: Pool, stop: str, lanes: int) -> None:
    """Pool what was kept of a tile, whose columns end at `stop`."""
    lines = _lines(pool.before)
    for phase in pool.phases:
        lines += [f"{a.name} = splat_{a.dtype}({number(a.init)})" for a in phase.accumulators]
        lines += [f"{'    ' * depth}for {tap} in range({size}):" for depth, (tap, size) in enumerate(pool.taps)]
        combined = [f"{a.name} = {a.combine.format(acc=a.name, x=a.value)}" for a in phase.accumulators]
        lines += [f"{'    ' * len(pool.taps)}{line}" for line in [*_lines(phase.body), *combined]]
        lines += _lines(phase.after)
    integers = ["m", "n", *(a for a, _ in kernel.loops), pool.access.buffer, *kernel.buffers, *kernel.sizes]
    body = make_body("pooled", [], "n", integers, [], [], first=lines)
    s.bodies.append(body)
    s.minimum("m_stop", f"m + {kernel.rows}", str(kernel.m))
    s.minimum("n_stop", stop, str(kernel.n))
    s.line("n_start = n")
    s.open("while m < m_stop:", "m += 1")
    s.loop("n", "n_start", "n_stop", lanes)
    s.call(body, count=f"{kernel.n} - n")
    s.close_to(len(s.indents) - 2)


def _lines(statements: Sequence[Statement]) -> list[str]:
    writer = Lines("n")
    for statement in statements:
        writer.add(statement)
    return writer.lines


def _inner_rows(s: Skeleton, kernel: WindowKernel) -> None:
    """Work out the rows [low, high) all of whose terms exist, and the number of tiles: other rows are tiles of their own."""
    summed = kernel.sums[kernel.edge]
    span = summed.span
    assert span is not None
    reach = f"{abs(span.step)} * ({summed.size} - 1)"
    below, above = (0, reach) if span.step > 0 else (reach, 0)
    s.line(f"low = ({below} - {span.offset} + {span.scale - 1}) // {span.scale}")
    s.line(f"high = ({span.limit} - 1 - {above} - {span.offset}) // {span.scale} + 1")
    s.line("low = low if low > 0 else 0")
    s.line(f"low = low if low < {kernel.m} else {kernel.m}")
    s.line(f"high = high if high < {kernel.m} else {kernel.m}")
    s.line("high = high if high > low else low")
    s.line(f"inner = (high - low + {kernel.rows - 1}) // {kernel.rows}")
    s.line(f"tiles = low + inner + {kernel.m} - high")


def _make_tile(kernel: WindowKernel, lanes: int, sums: int, rows: int, vectors: int, full: bool, space):
    from graphc.codegen.cpu.nest import NestForm, nest_tile
    stored = kernel.a.dtype, kernel.b.dtype
    whole = kernel.whole or rows == 1
    form = NestForm(kernel.dot, kernel.across, kernel.paired, full, whole, kernel.short, sums, bool(kernel.chunk))
    return nest_tile(rows, vectors, lanes, kernel.dtype, stored, form, space["epilogue"])


def _epilogue(kernel: WindowKernel) -> Body:
    own = [*kernel.pool.axes, kernel.pool.access.buffer] if kernel.pool else []
    integers = ["m", "n", *(a for a, _ in kernel.loops), *own, *kernel.buffers, *kernel.sizes, "error", "record"]
    return make_body("epilogue", kernel.epilogue, "n", integers, ["acc", "mask"], [])


def _totals(s: Skeleton, kernel: WindowKernel, lanes: int) -> list[str]:
    """The arguments that say where the sums of earlier chunks are, and whether this chunk is the first or the last one."""
    if not kernel.chunk:
        return []
    s.line("is_first = 1 if chunk == 0 else 0")
    s.line(f"is_last = 1 if chunk + {kernel.chunk} >= {kernel.sums[0].size} else 0")
    size = kernel.rows * kernel.vectors * lanes * BY_SHORT[kernel.dtype].size
    return [f"{kernel.totals} + (thread * {GROUP} + row - group) * {size}", "is_first", "is_last"]


def _part(s: Skeleton, summed: Sum, chunk: Int) -> list[Int]:
    """The chunk of a sum: its size and steps; the operands move there."""
    s.line(f"count0 = {summed.size} - chunk if {summed.size} - chunk < {chunk} else {chunk}")
    for side in ("a", "b"):
        if getattr(summed, side) != 0:
            s.line(f"{side}_at += chunk * {getattr(summed, side)}")
    return ["count0", summed.a, summed.b]


def _span(s: Skeleton, k: int, summed: Sum, chunk: Int) -> list[Int]:
    """Work out where the sum over axis k begins, how many terms it has, and how far the operands move with each."""
    span = summed.span
    assert span is not None
    other = "b" if span.moved == "a" else "a"
    stride = getattr(summed, other)
    s.line(f"start{k} = {place(span.offset, ((span.axis, span.scale),) if span.axis else ())}")
    if span.step > 0:
        s.line(f"first{k} = (0 - start{k} + {span.step - 1}) // {span.step}")
        s.line(f"end{k} = ({span.limit} - 1 - start{k}) // {span.step} + 1")
    else:
        s.line(f"first{k} = 0 - ({span.divisor} * ({span.limit} - 1) - start{k}) // {-span.step}")
        s.line(f"end{k} = start{k} // {-span.step} + 1")
    s.line(f"first{k} = first{k} if first{k} > 0 else 0")
    s.line(f"end{k} = end{k} if end{k} < {summed.size} else {summed.size}")
    if chunk:
        s.line(f"first{k} = first{k} if first{k} > chunk else chunk")
        s.line(f"end{k} = end{k} if end{k} < chunk + {chunk} else chunk + {chunk}")
    hop = span.divisor // math.gcd(span.divisor, span.step)
    if span.divisor > 1:
        s.open(f"while first{k} < end{k} and (start{k} + {span.step} * first{k}) % {span.divisor} != 0:")
        s.line(f"first{k} += 1")
        s.close()
    s.line(f"count{k} = (end{k} - first{k} + {hop - 1}) // {hop} if end{k} > first{k} else 0")
    s.line(f"{span.moved}_at += (start{k} + {span.step} * first{k}) // {span.divisor} * {span.stride}")
    if stride != 0:
        s.line(f"{other}_at += first{k} * {stride}")
    per = span.step * hop // span.divisor
    steps: dict[str, Int] = {span.moved: f"{per} * {span.stride}", other: f"{hop} * {stride}" if stride != 0 else 0}
    return [f"count{k}", steps["a"], steps["b"]]

