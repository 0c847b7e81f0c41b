"""The source of contractions: loops over tiles around one emitted tile."""
from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from graphc.codegen.cpu.blocks import Blocks, from_blocks, with_rooms
from graphc.codegen.cpu.bodies import HELPERS, Body, make_body, place
from graphc.codegen.cpu.source import KernelSource, Skeleton
from graphc.codegen.kernel import ContractKernel, Load, Operand, Packing, Store
from graphc.codegen.statements import made_by
from graphc.ir.types import BY_SHORT


def emit_contract(kernel: ContractKernel, lanes: int) -> KernelSource:
    """The source of a contraction for vectors of `lanes` elements."""
    s = Skeleton(kernel, lanes)
    width, item = kernel.vectors // kernel.groups * lanes, BY_SHORT[kernel.dtype].size
    epilogue = _epilogue(kernel)
    kept = (kernel.a if kernel.rows_first else kernel.b).packing  # what stays packed for several tiles in a row
    s.bodies.append(epilogue)
    s.line(f"tiles = ({kernel.m} + {kernel.rows - 1}) // {kernel.rows}")
    single = isinstance(kernel.m, str) and kernel.rows > 1
    s.line(f"width = {width}")
    if kernel.row_vectors:
        s.line(f"width = {kernel.row_vectors // kernel.groups * lanes} if {kernel.m} == 1 else width")
    s.line(f"panels = ({kernel.n} + width - 1) // width")
    for name, operand, part in (("a", kernel.a, kernel.rows), ("b", kernel.b, width)):
        if operand.packing:
            s.line(f"{name} = {operand.access.buffer} + thread * {kernel.part or kernel.k} * {part * item}")
    if kept:
        s.line("packed = -1")
    _rows(s, kernel, bool(kept))
    rooms: dict[str, int] = {}
    for name, operand in (("a", kernel.a), ("b", kernel.b)):
        if operand.packing:
            rooms |= _pack(s, kernel, name, operand, operand.packing, lanes, once=operand.packing is kept)
    s.line(f"m = tile_number * {kernel.rows}")
    s.line("n = panel_number * width")
    for name, operand, free in (("a", kernel.a, "m"), ("b", kernel.b, "n")):
        if not operand.packing:
            s.line(f"{name} = {_address(kernel, operand, free)}")
    others = [p for p in epilogue.parameters if p not in ("m", "n", "mask", *_sums(kernel))]
    size = "k_stop - k_first" if kernel.part else kernel.k
    arguments = [f"a, {kernel.a.free}, {kernel.a.summed}, b, {kernel.b.summed}, {size}, "
                 f"{kernel.m} - m, {kernel.n} - n, m, n", *others]
    cases = [("tile_only_row", kernel.m)] if kernel.row_vectors else []
    cases += [("tile_one_row", f"{kernel.m} - m")] if single else []
    for name, rows in cases:
        s.open(f"if {rows} == 1:")
        s.line(f"{name}({', '.join(arguments)})")
        s.close()
        s.open("else:")
    s.line(f"tile({', '.join(arguments)})")
    source = with_rooms(s.source(HELPERS), rooms)
    text = "\n\n".join(body.text() for body in (epilogue, _ahead(kernel), *_needed(kernel)))
    source.text = source.text.replace("\n\ndef kernel(", f"\n\n{text}\n\ndef kernel(", 1)
    source.tiles["tile"] = partial(_make_tile, kernel, kernel.rows, kernel.vectors, lanes)
    if single:
        source.tiles["tile_one_row"] = partial(_make_tile, kernel, 1, kernel.vectors, lanes)
    if kernel.row_vectors:
        source.tiles["tile_only_row"] = partial(_make_tile, kernel, 1, kernel.row_vectors, lanes)
    return source


def _rows(s: Skeleton, kernel: ContractKernel, keeps: bool) -> None:
    """Open the loop over this thread's tiles, and work out the coordinates; with `keeps`, the number `wanted` of what stays
    packed for several tiles in a row.
    """
    inner = [("tile_number", "tiles"), ("panel_number", "panels")]
    if kernel.rows_first:
        inner.reverse()
    batch = list(kernel.batch)
    if kernel.part:
        s.line(f"parts = ({kernel.k} + {kernel.part} - 1) // {kernel.part}")
        batch.insert(0, ("part", "parts"))
    axes = [*batch, *reversed(inner)]
    s.line(f"rows = {' * '.join(str(size) for _, size in axes)}")
    s.loop("row", "rows * thread // threads", "rows * (thread + 1) // threads")
    s.line(f"{inner[0][0]}, rest = row % {inner[0][1]}, row // {inner[0][1]}")
    if keeps:
        s.line("wanted = rest")
    s.line(f"{inner[1][0]}, rest = rest % {inner[1][1]}, rest // {inner[1][1]}")
    for axis, size in reversed(batch[1:]):
        s.line(f"{axis}, rest = rest % {size}, rest // {size}")
    if batch:
        s.line(f"{batch[0][0]} = rest")
    if kernel.part:
        s.line(f"k_first = part * {kernel.part}")
        s.minimum("k_stop", f"k_first + {kernel.part}", str(kernel.k))


def _make_tile(kernel: ContractKernel, rows: int, vectors: int, lanes: int, space):
    from graphc.codegen.cpu.tile import product_tile
    stored, masked = (kernel.a.access.dtype, kernel.b.access.dtype), not kernel.b.packing
    return product_tile(rows, vectors, lanes, kernel.dtype, stored, masked, space["epilogue"], space["ahead"],
                        space.get("needed"), _sums(kernel))


def _epilogue(kernel: ContractKernel) -> Body:
    integers = ["m", "n", "part", *(a for a, _ in kernel.batch), *kernel.buffers, *kernel.sizes, "error", "record"]
    return make_body("epilogue", kernel.epilogue, "n", integers, [*_sums(kernel), "mask"], [])


def _sums(kernel: ContractKernel) -> list[str]:
    """What an epilogue calls the sums."""
    return ["acc"] if kernel.groups == 1 else [f"acc{g}" for g in range(kernel.groups)]


def _ahead(kernel: ContractKernel) -> Body:
    """Asks for the lines of memory that the epilogue will touch row by row: mostly they are in no near cache."""
    lines: dict[str, bool] = {}
    for statement in kernel.epilogue:
        if isinstance(statement, Load | Store) and not statement.index:
            access = statement.access
            if access.stride("n") == 1 and access.stride("m") != 0:
                at = f"{access.dtype}({access.buffer}, {place(access.offset, access.strides)}"
                lines[at] = lines.get(at, False) or isinstance(statement, Store)
    integers = ["m", "n", "part", *(a for a, _ in kernel.batch), *kernel.buffers, *kernel.sizes]
    return make_body("ahead", (), "n", integers, [], [], masked=False,
                     last=[f"prefetch_{at}{', True' if written else ''})" for at, written in lines.items()])


def _needed(kernel: ContractKernel) -> list[Body]:
    """The lanes in which the product is needed, if not in all."""
    if not kernel.where:
        return []
    integers = ["m", "n", *(a for a, _ in kernel.batch), *kernel.buffers, *kernel.sizes]
    return [make_body("needed", made_by(kernel.epilogue, kernel.where), "n", integers, ["mask"], [(kernel.where, "bool")])]


def _address(kernel: ContractKernel, operand: Operand, free: str) -> str:
    access, item = operand.access, BY_SHORT[operand.access.dtype].size
    own = [(free, operand.free)] + ([("k_first", operand.summed)] if kernel.part else [])
    strides = (*access.strides, *(s for s in own if s[1] != 0))
    return f"{access.buffer} + {item} * ({place(access.offset, strides)})"


def _pack(s: Skeleton, kernel: ContractKernel, name: str, operand: Operand, packing: Packing, lanes: int,
          once: bool) -> dict[str, int]:
    """Compute B's columns of a panel, beyond the last one too so that there are numbers in all lanes, or A's rows of a tile.
    With `once`, only where the last item wanted others. Gives the rooms that this takes.
    """
    dtype = kernel.dtype
    free, number, part, size = ("m", "tile_number", kernel.rows, kernel.m) if name == "a" else \
        ("n", "panel_number", kernel.vectors * lanes, kernel.n)
    k_first, k_stop, k = ("k_first", "k_stop", "(k - k_first)") if kernel.part else (0, kernel.k, "k")
    at = place(0, ((f"({free} - first)", operand.free), (k, operand.summed)))
    masked = "" if name == "b" else ", mask"
    integers = ["m", "n", "k", "k_first", "first", name, *(b for b, _ in kernel.batch), *kernel.buffers, *kernel.sizes, "error",
                "record"]
    statements, blocks = from_blocks(packing.prologue, packing.is_turned, packing.along, packing.turned, lanes)
    integers += blocks.names
    body = make_body(f"pack_{name}", statements, packing.along, integers, [], [],
                     last=[f"store_{dtype}({name}, {at}, {packing.value}{masked})"])
    s.bodies.append(body)
    depth = len(s.indents)
    if once:
        s.open("if wanted != packed:")
        s.line("packed = wanted")
    s.line(f"first = {number} * {part}")
    if name == "a":
        s.minimum("stop", f"first + {part}", str(size))
    if blocks.loads:
        s.loop(free, "first", f"first + {part}", lanes)
        _pack_blocks(s, blocks, body, integers, (k_first, k_stop), f"{size} - {free}")
    elif packing.along == free:
        s.loop("k", k_first, k_stop)
        s.loop(free, "first", "stop" if name == "a" else f"first + {part}", lanes)
        s.call(body, count=f"{'stop' if name == 'a' else size} - {free}")
    else:
        s.loop(free, "first", "stop")
        if kernel.part:
            s.line(f"whole = k_first + (k_stop - k_first) // {lanes} * {lanes}")
        else:
            s.line(f"whole = {kernel.k} // {lanes} * {lanes}")
        s.loop("k", k_first, "whole", lanes)
        s.call(body)
        s.close()
        s.open(f"if whole < {k_stop}:")
        s.line("k = whole")
        s.call(body, count=f"{k_stop} - whole")
    s.close_to(depth)
    return blocks.rooms


def _pack_blocks(s: Skeleton, blocks: Blocks, body: Body, integers: Sequence[str], k: tuple, columns: str) -> None:
    """Compute a vector of columns, of which there are so many, from blocks that are turned."""
    lanes, fill = blocks.lanes, blocks.body("turn", integers)
    s.bodies.append(fill)
    blocks.make(s)
    s.line(f"k = {k[0]}")
    s.open(f"while k < {k[1]}:")
    s.line(f"across = {columns}")
    s.minimum("along", f"{k[1]} - k", str(lanes))
    blocks.locate(s)
    s.line("block_stop = k + along")
    blocks.walk(s, fill, body, "block_stop")
