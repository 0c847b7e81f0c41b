"""Contraction kernels as Numba source: loops over tiles around one tile intrinsic."""
from __future__ import annotations

from functools import partial

from graphc.codegen.cpu.bodies import HELPERS, Body, make_body, place
from graphc.codegen.cpu.source import KernelSource, Skeleton
from graphc.codegen.kernel import ContractKernel, Operand

SIZES = {"f32": 4, "f64": 8, "i32": 4, "i64": 8, "u8": 1, "bool": 1}


def emit_contract(kernel: ContractKernel, lanes: int) -> KernelSource:
    """The source of a contraction for vectors of `lanes` elements."""
    s = Skeleton(kernel, lanes)
    width, item = kernel.vectors * lanes, SIZES[kernel.dtype]
    epilogue = _epilogue(kernel)
    s.bodies.append(epilogue)
    s.line(f"tiles = ({kernel.m} + {kernel.rows - 1}) // {kernel.rows}")
    s.line(f"panels = ({kernel.n} + {width - 1}) // {width}")
    if kernel.pack:
        s.line(f"panel = {kernel.pack} + thread * {kernel.k} * {width * item}")
        s.line("packed = -1")
    inner = [("tile_number", "tiles"), ("panel_number", "panels")]
    if kernel.rows_first:
        inner.reverse()
    axes = [*kernel.batch, *reversed(inner)]
    s.line(f"rows = {' * '.join(str(size) for _, size in axes)}")
    s.open("for row in range(rows * thread // threads, rows * (thread + 1) // threads):")
    s.line(f"{inner[0][0]}, rest = row % {inner[0][1]}, row // {inner[0][1]}")
    if kernel.pack:
        s.line("wanted = rest")
    s.line(f"{inner[1][0]}, rest = rest % {inner[1][1]}, rest // {inner[1][1]}")
    for axis, size in reversed(kernel.batch[1:]):
        s.line(f"{axis}, rest = rest % {size}, rest // {size}")
    if kernel.batch:
        s.line(f"{kernel.batch[0][0]} = rest")
    s.line(f"m = tile_number * {kernel.rows}")
    s.line(f"n = panel_number * {width}")
    s.line(f"a = {_address(kernel.a, 'm', item)}")
    s.line(f"b = {_address(kernel.b, 'n', item)}")
    b_stride = kernel.b.summed
    if kernel.pack:
        _pack(s, kernel, lanes, width)
        b_stride = width
    others = [p for p in epilogue.parameters if p not in ("m", "n", "acc", "mask")]
    arguments = [f"a, {kernel.a.free}, {kernel.a.summed}, {'panel' if kernel.pack else 'b'}, {b_stride}, {kernel.k}, "
                 f"{kernel.m} - m, {kernel.n} - n, m, n", *others]
    single = isinstance(kernel.m, str) and kernel.rows > 1
    if single:
        s.open(f"if {kernel.m} - m == 1:")
        s.line(f"tile_one_row({', '.join(arguments)})")
        s.close()
        s.open("else:")
    s.line(f"tile({', '.join(arguments)})")
    source = s.source(HELPERS)
    source.text = source.text.replace("\n\ndef kernel(", f"\n\n{epilogue.text()}\n\ndef kernel(", 1)
    masked = not kernel.pack
    source.tiles["tile"] = partial(_make_tile, kernel.rows, kernel.vectors, lanes, kernel.dtype, masked)
    if single:
        source.tiles["tile_one_row"] = partial(_make_tile, 1, kernel.vectors, lanes, kernel.dtype, masked)
    return source


def _make_tile(rows, vectors, lanes, dtype, masked, space):
    from graphc.codegen.cpu.tile import product_tile
    return product_tile(rows, vectors, lanes, dtype, masked, space["epilogue"])


def _epilogue(kernel: ContractKernel) -> Body:
    integers = ["m", "n", *(a for a, _ in kernel.batch), *kernel.buffers, *kernel.sizes, "error", "record"]
    return make_body("epilogue", kernel.epilogue, "n", integers, ["acc", "mask"], [])


def _address(operand: Operand, free: str, item: int) -> str:
    access = operand.access
    strides = (*access.strides, *(((free, operand.free),) if operand.free != 0 else ()))
    return f"{access.buffer} + {item} * ({place(access.offset, strides)})"


def _pack(s: Skeleton, kernel: ContractKernel, lanes: int, width: int) -> None:
    """Copy B's panel into memory in the order in which the tile reads it, padded with zeros."""
    free, summed = kernel.b.free, kernel.b.summed
    step = 1 if free == 1 else free
    lines = []
    for v in range(kernel.vectors):
        at = f"p * {summed} + {v * lanes} * {free}"
        load = f"load_{kernel.dtype}(b, {at}, tail(live_columns - {v * lanes}))" if step == 1 else \
            f"strided_{kernel.dtype}(b, {at}, {free}, tail(live_columns - {v * lanes}))"
        lines.append(f"store_{kernel.dtype}(panel, p * {width} + {v * lanes}, {load})")
    integers = ["b", "panel", "p", "live_columns", *kernel.sizes]
    body = make_body("pack_row", [], "n", integers, [], [], first=lines, masked=False)
    s.bodies.append(body)
    s.open("if wanted != packed:")
    s.line("packed = wanted")
    s.line(f"live_columns = {kernel.n} - n")
    s.open(f"for p in range({kernel.k}):")
    s.call(body)
    s.close()
    s.close()
