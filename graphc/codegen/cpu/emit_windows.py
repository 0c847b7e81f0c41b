"""Convolution kernels as Numba source: loops over tiles, and the part of each window that exists, around one tile intrinsic."""
from __future__ import annotations

import math
from functools import partial

from graphc.codegen.cpu.bodies import HELPERS, Body, make_body, place
from graphc.codegen.cpu.source import KernelSource, Skeleton
from graphc.codegen.kernel import Int, Sum, WindowKernel
from graphc.ir.types import BY_SHORT


def emit_windows(kernel: WindowKernel, lanes: int) -> KernelSource:
    """The source of a convolution for vectors of `lanes` elements."""
    s = Skeleton(kernel, lanes)
    width, item = kernel.vectors * (1 if kernel.dot else lanes), BY_SHORT[kernel.a.dtype].size
    epilogue = _epilogue(kernel)
    s.bodies.append(epilogue)
    s.line(f"tiles = ({kernel.m} + {kernel.rows - 1}) // {kernel.rows}")
    s.line(f"panels = ({kernel.n} + {width - 1}) // {width}")
    axes = [*kernel.loops, ("panel", "panels"), ("tile_number", "tiles")]
    s.line(f"rows = {' * '.join(str(size) for _, size in axes)}")
    s.loop("row", "rows * thread // threads", "rows * (thread + 1) // threads")
    s.line("rest = row")
    for axis, size in reversed(axes[1:]):
        s.line(f"{axis} = rest % {size}")
        s.line(f"rest = rest // {size}")
    s.line(f"{axes[0][0]} = rest")
    s.line(f"m = tile_number * {kernel.rows}")
    s.line(f"n = panel * {width}")
    for side, access, free, axis in (("a", kernel.a, kernel.a_free, "m"), ("b", kernel.b, kernel.b_free, "n")):
        s.line(f"{side}_at = {place(access.offset, (*access.strides, *(((axis, free),) if free != 0 else ())))}")
    arguments = []
    for k, summed in enumerate(kernel.sums):
        arguments += _span(s, k, summed) if summed.span else [summed.size, summed.a, summed.b]
    arguments = arguments or [1, 0, 0]
    others = [p for p in epilogue.parameters if p not in ("m", "n", "acc", "mask")]
    text = ", ".join(str(x) for x in (
        f"{kernel.a.buffer} + {item} * a_at", kernel.a_free, f"{kernel.b.buffer} + {item} * b_at", kernel.b_free, *arguments,
        f"{kernel.m} - m", f"{kernel.n} - n", "m", "n", *others))
    s.line(f"tile({text})")
    source = s.source(HELPERS)
    source.text = source.text.replace("\n\ndef kernel(", f"\n\n{epilogue.text()}\n\ndef kernel(", 1)
    source.tiles["tile"] = partial(_make_tile, kernel, lanes, len(arguments) // 3)
    return source


def _make_tile(kernel: WindowKernel, lanes: int, sums: int, space):
    from graphc.codegen.cpu.nest import nest_tile
    stored = kernel.a.dtype, kernel.b.dtype
    return nest_tile(kernel.rows, kernel.vectors, lanes, kernel.dtype, stored, kernel.dot, kernel.full, sums, space["epilogue"])


def _epilogue(kernel: WindowKernel) -> Body:
    integers = ["m", "n", *(a for a, _ in kernel.loops), *kernel.buffers, *kernel.sizes, "error", "record"]
    return make_body("epilogue", kernel.epilogue, "n", integers, ["acc", "mask"], [])


def _span(s: Skeleton, k: int, summed: Sum) -> list[Int]:
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

