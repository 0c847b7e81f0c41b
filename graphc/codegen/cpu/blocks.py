"""Blocks of lanes x lanes elements, which are read along one axis and turned in registers, for lanes that run along another;
and rooms on a kernel's stack, where they lie.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from llvmlite import ir

from graphc.codegen.cpu.bodies import Body, place
from graphc.codegen.cpu.glue import INT, Code
from graphc.codegen.cpu.simd_core import DTYPES, I8, I64, register_dtype
from graphc.codegen.cpu.source import KernelSource, Skeleton
from graphc.codegen.kernel import Access, Load, Statement


@dataclass
class Blocks:
    """Loads of which blocks are turned: (name of its room, what it reads). Lanes run along `axis`, memory along `turned`."""

    axis: str
    turned: str
    lanes: int
    loads: list[tuple[str, Access]]

    @property
    def rooms(self) -> dict[str, int]:
        """The code that makes each room -> its bytes."""
        return {f"{room}_made": self.lanes * self.lanes * _width(access) for room, access in self.loads}

    @property
    def names(self) -> list[str]:
        """What the statements that read from rooms call them."""
        return [room for room, _ in self.loads]

    def make(self, s: Skeleton) -> None:
        """The lines that make the rooms."""
        for room in self.names:
            s.line(f"{room}_start = {room}_made()")

    def locate(self, s: Skeleton) -> None:
        """The lines that say where element 0 would be, at the first element of a block."""
        for room, access in self.loads:
            s.line(f"{room} = {room}_start - {_width(access)} * ({self.turned} * {self.lanes} + {self.axis})")

    def walk(self, s: Skeleton, fill: Body, each: Body, stop: str) -> None:
        """The lines that turn a block, `along` by `across` elements, and do `each` up to `stop`; whole blocks unmasked."""
        for start, count in ((f"if across >= {self.lanes} and along == {self.lanes}:", None), ("else:", "across")):
            s.open(start)
            s.call(fill, count=count)
            s.loop(self.turned, self.turned, stop)
            s.call(each, count=count)
            s.close()
            s.close()

    def body(self, name: str, integers: Sequence[str]) -> Body:
        """What reads and turns a block for each load: `along` elements along `turned`, `count` along the axis (None: all)."""
        lines = [f"turn_{a.dtype}({a.buffer}, {place(a.offset, a.strides)}, {a.stride(self.axis)}, {room}_start, along, count)"
                 for room, a in self.loads]
        known = [*integers, *(f"{room}_start" for room in self.names), "along", "count"]
        words = set(re.findall(r"\w+", " ".join(lines)))
        return Body(name, lines, [], [], [n for n in known if n in words])


def from_blocks(statements: Sequence[Statement], is_turned: Callable[[Statement], bool], axis: str, turned: str,
                lanes: int) -> tuple[list[Statement], Blocks]:
    """The statements, where loads that are turned read rooms, and the blocks that come there."""
    found: list[Statement] = []
    blocks = Blocks(axis, turned, lanes, [])
    for s in statements:
        if isinstance(s, Load) and is_turned(s):
            room = f"room{len(blocks.loads)}"
            blocks.loads.append((room, s.access))
            s = replace(s, access=Access(room, register_dtype(s.access.dtype), ((turned, lanes), (axis, 1)), whole=True))
        found.append(s)
    return found, blocks


def with_rooms(source: KernelSource, rooms: Mapping[str, int]) -> KernelSource:
    """The source with the codes that make these rooms: name -> bytes."""
    for name, size in rooms.items():
        source.tiles[name] = partial(_room, size)
    return source


def _width(access: Access) -> int:
    """Bytes of an element in the vectors that hold what is read there."""
    return DTYPES[register_dtype(access.dtype)].item_bytes


def _room(size: int, space) -> Code:
    """room(): the address of so many bytes of the kernel's stack."""
    def emit(builder, kinds, values):
        with builder.goto_entry_block():
            room = builder.alloca(ir.ArrayType(I8, size))
            room.align = 64
            return [builder.ptrtoint(room, I64)]
    return Code("room", (INT,), emit)
