"""Statements as the text of traced bodies: straight-line vector code, one line a statement."""
from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from graphc.codegen.cpu.simd_core import HALVES
from graphc.codegen.kernel import Access, Check, Compute, Coordinate, Int, Literal, Load, Statement, Store

HELPERS = '''
def both(mask, other):
    """The lanes that are in `mask` (None: all) and in `other`."""
    return other if mask is None else mask & other
'''


@dataclass
class Body:
    """A traced function: its name, parameters, result names with dtypes, and lines. Its vectors are `wide` registers long,
    those that come from outside and the results are one.
    """

    name: str
    lines: list[str]
    results: list[tuple[str, str]]
    vectors: list[str] = field(default_factory=list)   # values that come from outside
    parameters: list[str] = field(default_factory=list)
    wide: int = 1

    def text(self) -> str:
        """The function's source."""
        lines = [f"def {self.name}({', '.join(self.parameters)}):"]
        lines += [f"    {line}" for line in self.lines]
        if self.results:
            lines.append(f"    return {', '.join(name for name, _ in self.results)}")
        elif not self.lines:
            lines.append("    pass")
        return "\n".join(lines) + "\n"


class Lines:
    """Writes statements. `vector` is the axis that lanes run along; with `stream`, stores bypass the caches."""

    def __init__(self, vector: str, unmasked: bool = False):
        self.vector, self.unmasked = vector, unmasked
        self.lines: list[str] = []

    def add(self, statement: Statement) -> None:
        """Append the lines of one statement."""
        getattr(self, "write_" + type(statement).__name__.lower())(statement)

    def write_literal(self, s: Literal) -> None:
        self.lines.append(f"{s.name} = splat_{s.dtype}({number(s.value)})")

    def write_coordinate(self, s: Coordinate) -> None:
        self.lines.append(f"{s.name} = {self.ramp(s.dtype, s.strides, s.offset)}")

    def write_compute(self, s: Compute) -> None:
        text = f"round_{s.dtype}({s.text})" if s.dtype in HALVES else s.text
        self.lines.append(f"{s.name} = {text}" + (f"  # {s.line}" if s.line else ""))

    def write_check(self, s: Check) -> None:
        self.report(s.condition, s.failure, s.element, s.value)

    def write_load(self, s: Load) -> None:
        if s.index:
            self.gather(s)
        elif s.where:
            self.lines.append(f"{s.name} = select({s.where}, {self.loaded_where(s.access, s.where)}, {number(s.fill)})")
        else:
            self.lines.append(f"{s.name} = {self.loaded(s.access)}")
            if s.ahead:
                at = place(s.access.offset, (*s.access.strides, ("1", s.access.stride(s.ahead))))
                self.lines.append(f"fetch_{s.dtype}({s.access.buffer}, {at})")

    def write_store(self, s: Store) -> None:
        if s.index:
            self.scatter(s)
            return
        access, index = s.access, place(s.access.offset, s.access.strides)
        stride = access.stride(self.vector)
        if s.action == "sum":
            self.lines.append(f"accumulate_{access.dtype}({access.buffer}, {index}, {s.value}, mask)")
        elif stride == 0:
            self.lines.append(f"store_lane_{access.dtype}({access.buffer}, {index}, {s.value})")
        elif stride == 1:
            mask = "None" if access.whole else "mask"
            self.lines.append(f"store_{access.dtype}({access.buffer}, {index}, {s.value}, {mask})")
        else:
            self.lines.append(f"scatter_strided_{access.dtype}({access.buffer}, {index}, {stride}, {s.value}, mask)")

    # parts -------------------------------------------------------------------------------------------------------------

    def loaded(self, access: Access) -> str:
        index, stride = place(access.offset, access.strides), access.stride(self.vector)
        if stride == 0:
            return f"broadcast_{access.dtype}({access.buffer}, {index})"
        if stride == 1:
            return f"load_{access.dtype}({access.buffer}, {index}, {'None' if access.whole else 'mask'})"
        return f"strided_{access.dtype}({access.buffer}, {index}, {stride}, mask)"

    def loaded_where(self, access: Access, where: str) -> str:
        """A load under a mask, and only that: one element for all lanes is read by each of them."""
        index, stride = place(access.offset, access.strides), access.stride(self.vector)
        if stride == 1:
            return f"load_{access.dtype}({access.buffer}, {index}, both(mask, {where}))"
        return f"strided_{access.dtype}({access.buffer}, {index}, {stride}, both(mask, {where}))"

    def ramp(self, dtype: str, strides, offset: Int) -> str:
        step = dict(strides).get(self.vector, 0)
        start = place(offset, strides)
        return f"splat_{dtype}({start})" if step == 0 else f"ramp_{dtype}({start}, {step})"

    def report(self, condition: str, failure: int, element, value: str) -> None:
        self.lines.append(f"record_error(both(mask, {condition}), error, record + {failure}, "
                          f"{self.ramp('i64', element, 0)}, {value})")

    def valid_rows(self, s) -> tuple[str, str]:
        """Names of (the index as i64, the mask of lanes whose index is valid); invalid ones are reported as failure, if any."""
        row, ok = (f"row{s.failure}", f"ok{s.failure}") if s.failure >= 0 else ("row", "ok")
        self.lines.append(f"{row} = to_i64({s.index})")
        self.lines.append(f"{ok} = ({row} >= 0) & ({row} < splat_i64({s.limit}))")
        if s.failure >= 0:
            self.report(f"~{ok}", s.failure, s.element, row)
        return row, ok

    def varies(self, s) -> bool:
        return any(axis == self.vector for axis, _ in s.element)

    def gather(self, s: Load) -> None:
        row, ok = self.valid_rows(s)
        access, start = s.access, place(s.access.offset, s.access.strides)
        if not self.varies(s) and access.stride(self.vector) == 1:
            self.lines.append(f"{s.name} = load_{access.dtype}({access.buffer}, {start} + to_int(select({ok}, {row}, 0)) "
                              f"* {s.scale}, both(mask, {ok}))")
        else:
            self.lines.append(f"{s.name} = gather_{access.dtype}({access.buffer}, "
                              f"{self.ramp('i64', access.strides, access.offset)} + {row} * splat_i64({s.scale}), "
                              f"both(mask, {ok}))")

    def scatter(self, s: Store) -> None:
        """Add or put a row: the index is the same in all lanes, which run along the row."""
        row, ok = self.valid_rows(s)
        access = s.access
        at, stride = f"{row}_at", access.stride(self.vector)
        self.lines.append(f"{at} = {place(access.offset, access.strides)} + to_int(select({ok}, {row}, 0)) * {s.scale}")
        if stride in (0, 1):
            old, store = f"load_{access.dtype}({access.buffer}, {at}, both(mask, {ok}))", f"store_{access.dtype}"
        else:
            at = f"{at}, {stride}"
            old, store = f"strided_{access.dtype}({access.buffer}, {at}, both(mask, {ok}))", f"scatter_strided_{access.dtype}"
        value = s.value if s.action == "set" else f"{old} + {s.value}"
        self.lines.append(f"{store}({access.buffer}, {at}, {value}, both(mask, {ok}))")


def place(offset: Int, strides) -> str:
    """`n2 + p0 * n1 + p1`: where an element is."""
    terms = [str(offset)] if offset != 0 else []
    terms += [axis if stride == 1 else f"{axis} * {stride}" for axis, stride in strides]
    return " + ".join(terms) or "0"


def number(value) -> str:
    """A number as Python text that reads back to the same value."""
    if isinstance(value, float) and value != value:
        return 'float("nan")'
    if value in (float("inf"), float("-inf")) and isinstance(value, float):
        return f'float("{value}")'
    return repr(value)


_WORD = re.compile(r"[A-Za-z_]\w*")


def make_body(name: str, statements: Sequence[Statement], vector: str, integers: Sequence[str], vectors: Sequence[str],
              results: Sequence[tuple[str, str]], first: Sequence[str] = (), last: Sequence[str] = (),
              masked: bool = True, wide: int = 1) -> Body:
    """The traced function of a section.

    integers: names of scalars that may be needed; vectors: names of incoming values that may be. `first` and `last` are
    lines around the statements. With `masked`, the parameter `count` says how many lanes are live (None: all); with
    "mask" in `vectors` the mask itself is a parameter.
    """
    writer = Lines(vector)
    for statement in statements:
        writer.add(statement)
    lines = [*first, *writer.lines, *last]
    if "mask" in vectors:
        lines.insert(0, "")
    elif masked:
        lines.insert(0, "mask = None if count is None else tail(count)")
    else:
        lines.insert(0, "mask = None")
    words = {w for line in lines for w in _WORD.findall(line.split("  # ")[0])}
    masked = "mask" not in vectors and masked
    if not lines[0] or "mask" not in {w for line in lines[1:] for w in _WORD.findall(line)}:
        del lines[0]
        masked = False
    own = {s.name for s in statements if getattr(s, "name", "")}
    taken = [v for v in vectors if v in words and v not in own]
    words |= {n for n, _ in results}
    taken += [n for n, _ in results if n in vectors and n not in taken and n not in own]
    parameters = [i for i in integers if i in words] + taken + (["count"] if masked else [])
    if wide > 1:
        carried = {n for n, _ in results}
        lines = [*(f"{v} = repeated({v})" for v in taken if v not in carried), *lines]
    return Body(name, lines, list(results), taken, parameters, wide)
