"""Writes the statements of a kernel for the nodes of a region."""
from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from graphc.codegen.kernel import (
    Access,
    Accumulator,
    Check,
    Compute,
    Coordinate,
    Int,
    Literal,
    Load,
    Phase,
    Statement,
    Store,
    uses,
)
from graphc.codegen.lower import Buffer, Failure, Parameters
from graphc.ir.dims import Size
from graphc.ir.node import Node
from graphc.ir.op import Array, Kind
from graphc.ir.types import DType
from graphc.passes.fuse import is_literal
from graphc.passes.regions import MOVEMENT, Region, Source, contiguous

RUN = Buffer("run number", 8)  # a word that the driver counts up; random ops read it


class Strides:
    """Turns strides over a domain into strides over a kernel's named axes."""

    def __init__(self, region: Region, parameters: Parameters, axes: Sequence[tuple[str, list[int]]]):
        self.region, self.parameters, self.axes = region, parameters, axes

    def over_axes(self, strides: Sequence[Size], placement) -> tuple[tuple[str, Int], ...]:
        """Strides over a value's own axes, as (axis name, stride) pairs without zeros."""
        by_axis = {axis: s for s, axis in zip(strides, placement, strict=True) if axis is not None}
        found = [(name, self.parameters.size(by_axis.get(group[-1], 0) if group else 0)) for name, group in self.axes]
        return tuple((name, s) for name, s in found if s != 0)


class Writer:
    """Writes sections of statements. A value has one name in the whole kernel; full values are recomputed in each phase."""

    def __init__(self, region: Region, buffers: Mapping[Node, Buffer], parameters: Parameters, strides: Strides,
                 anchor: tuple[Node, str] | None = None):
        self.region, self.buffers, self.parameters, self.strides = region, buffers, parameters, strides
        self.names: dict[Node, str] = {}
        self.known: set[Node] = set()
        self.statements: list[Statement] = []
        self.keep: dict[Node, Access] = {}  # dear values that several phases need -> where they wait
        self.kept: set[Node] = set()
        if anchor:
            self.names[anchor[0]] = anchor[1]
            self.known.add(anchor[0])
        self.anchor = anchor[0] if anchor else None

    def section(self, targets: Iterable[tuple[Node, bool]], known_reductions: bool = False) -> list[Statement]:
        """Statements that compute the targets, and store those that say so."""
        self.statements = []
        for node, store in targets:
            if known_reductions and self.region.reduces(node):
                self.known.add(node)
            self.value(node)
            if store:
                self.store(node)
        return self.statements

    def value(self, node: Node) -> str:
        """The name of a node's value; writes the statements for it if it is not known here."""
        while node.op.kind in MOVEMENT and node not in self.region.loads:
            node = node.inputs[0]
        if node not in self.known:
            self.known.add(node)
            if node in self.kept:
                self.statements.append(Load(self.name(node), self.keep[node]))
            else:
                self.write(node)
                if node in self.keep:
                    self.kept.add(node)
                    self.statements.append(Store(self.name(node), self.keep[node]))
        return self.names[node]

    def name(self, node: Node) -> str:
        if node not in self.names:
            self.names[node] = f"v{len(self.names)}"
        return self.names[node]

    def write(self, node: Node) -> None:
        if node in self.region.loads and node not in self.region.nodes:
            self.load(node)
        elif node.op.kind is Kind.ELEMENTWISE:
            self.elementwise(node)
        elif node.op.kind is Kind.INDEX:
            offset, strides = node.op.rule.value(node.type, node.attrs)
            self.statements.append(Coordinate(self.name(node), node.type.dtype.short,
                                              self.strides.over_axes(strides, self.region.placement[node]),
                                              self.parameters.size(offset)))
        elif node.op.kind is Kind.RANDOM:
            self.random(node)
        elif node.op.kind is Kind.GATHER:
            self.gather(node)
        elif self.region.reduces(node):
            raise AssertionError(f"{node.label} is used before its reduction has ended")
        else:
            self.reduce_nothing(node)

    # statements --------------------------------------------------------------------------------------------------------

    def load(self, node: Node) -> None:
        source = self.region.loads[node]
        name, dtype = self.name(node), node.type.dtype.short
        inside = self.inside(node, source) if source.bounds else ""
        if is_literal(source.node):
            self.literal(f"{name}c" if inside else name, dtype, source.node.attrs["value"].value.reshape(-1)[0])
            if inside:
                self.statements.append(Compute(name, dtype, f"select({inside}, {name}c, {_attribute(source.fill)})",
                                               (inside, f"{name}c")))
            return
        strides = self.strides.over_axes(source.strides, self.region.placement[node])
        buffer = self.parameters.buffer(self.buffers[source.node])
        self.statements.append(Load(name, Access(buffer, dtype, strides, self.parameters.offset(source.offset)), where=inside,
                                    fill=source.fill))

    def literal(self, name: str, dtype: str, value) -> None:
        """A number: in the code, but of random values an argument, so that the initial values of all variables share a kernel,
        whose ranges differ with their sizes.
        """
        if dtype not in ("f32", "f64") or all(n.op.kind is not Kind.RANDOM for n in self.region.nodes):
            self.statements.append(Literal(name, dtype, value.item()))
            return
        integer = f"i{dtype[1:]}"
        bits = self.parameters.size(int(value.view(getattr(np, f"int{dtype[1:]}"))), keep=())
        self.statements.append(Compute(name, dtype, f"from_bits_{dtype}(splat_{integer}({bits}))", ()))

    def inside(self, node: Node, source: Source) -> str:
        """The name of a bool value: whether the bounds of a load hold."""
        texts, names = [], []
        for k, bound in enumerate(source.bounds):
            at = f"{self.name(node)}b{k}"
            self.statements.append(Coordinate(at, "i64", self.strides.over_axes(bound.strides, self.region.placement[node]),
                                              self.parameters.size(bound.offset)))
            texts.append(f"({at} >= 0) & ({at} < splat_i64({self.parameters.size(bound.limit, keep=())}))")
            names.append(at)
        name = f"{self.name(node)}w"
        self.statements.append(Compute(name, "bool", " & ".join(texts), tuple(names)))
        return name

    def scratch(self, buffer: Buffer, dtype: str, strides) -> Access:
        """A temporary's elements."""
        return Access(self.parameters.buffer(buffer, write=True), dtype, strides)

    def load_at(self, name: str, buffer: Buffer, dtype: str, strides) -> Load:
        """A load from a temporary."""
        return Load(name, Access(self.parameters.buffer(buffer), dtype, strides))

    def store(self, node: Node) -> None:
        self.statements.append(Store(self.names[node], self.output_access(node)))

    def output_access(self, node: Node) -> Access:
        """Where an output is stored."""
        strides, offset = self.region.stored(node)
        return Access(self.parameters.buffer(self.buffers[node], write=True), node.type.dtype.short,
                      self.strides.over_axes(strides, self.region.placement[node]), self.parameters.offset(offset))

    def store_at(self, value: str, buffer: Buffer, dtype: str, strides) -> Store:
        """A store to a temporary."""
        return Store(value, Access(self.parameters.buffer(buffer, write=True), dtype, strides))

    def elementwise(self, node: Node) -> None:
        values = [self.value(i) for i in node.inputs]
        words = dict(zip(node.op.inputs, values, strict=True)) | {k: _attribute(v) for k, v in node.attrs.items()}
        rule = node.op.rule
        if rule.fails:
            self.check(node, rule, words, values)
        self.statements.append(Compute(self.name(node), node.type.dtype.short, rule.scalar.format(**words),
                                       tuple(dict.fromkeys(values)), str(node.location or "")))

    def check(self, node: Node, rule, words, values) -> None:
        culprit = node.inputs[node.op.inputs.index(rule.culprit)] if rule.culprit else node.inputs[0]
        number = self.parameters.failure(Failure(
            node.op.name, rule.message.format(**node.attrs), rule.culprit, culprit.type.dtype.name, tuple(node.type.shape),
            None, node.location))
        self.statements.append(Check(rule.fails.format(**words), self.value(culprit), number, self.element(node),
                                     tuple(dict.fromkeys([*values, self.value(culprit)]))))

    def element(self, node: Node) -> tuple[tuple[str, Int], ...]:
        """Strides that number the elements of a node's value."""
        return self.strides.over_axes(contiguous(node.type.shape), self.region.placement[node])

    def reduce_nothing(self, node: Node) -> None:
        """A reduction over axes of size 1: its one element, or that element's position."""
        if node.op.rule.arg:
            self.statements.append(Literal(self.name(node), node.type.dtype.short, 0))
        else:
            self.names[node] = self.value(node.inputs[0])

    def random(self, node: Node) -> None:
        name = self.name(node)
        index, run = f"{name}i", f"{name}r"
        self.statements.append(Coordinate(index, "i64", self.element(node)))
        self.statements.append(self.load_at(run, RUN, "i64", ()))
        seeds = {k: self.parameters.size(node.attrs[k], keep=()) for k in ("seed", "op_seed")}  # equal draws share a kernel
        words = {k: _attribute(v) for k, v in node.attrs.items()} | seeds | {"index": index, "run": run}
        self.statements.append(Compute(name, node.type.dtype.short, node.op.rule.scalar.format(**words), (index, run),
                                       str(node.location or "")))

    def gather(self, node: Node) -> None:
        from graphc.codegen.loops import gather_strides
        params, indices = node.inputs
        source = self.region.loads[params]
        strides, scale = gather_strides(self.region, node)
        axis = node.op.rule.axis(node.attrs)
        rows = params.type.shape[axis]
        index = self.value(indices)
        failure = self.parameters.failure(Failure(node.op.name, "index out of range", node.op.inputs[1],
                                                  indices.type.dtype.name,
                                                  tuple(indices.type.shape), rows, node.location))
        element = self.strides.over_axes(contiguous(indices.type.shape), self.region.placement[indices])
        access = Access(self.parameters.buffer(self.buffers[source.node]), node.type.dtype.short,
                        self.strides.over_axes(strides, tuple(range(len(strides)))), self.parameters.offset(source.offset))
        self.statements.append(Load(self.name(node), access, index, self.parameters.size(scale),
                                    self.parameters.size(rows, keep=()), failure, element))


def accumulator_of(node: Node, names: dict[Node, str], value: str) -> Accumulator:
    """The accumulator of a reduction over `value`."""
    rule, source = node.op.rule, node.inputs[0].type.dtype.arithmetic
    name = names.setdefault(node, f"v{len(names)}")
    if rule.arg:
        return Accumulator(f"{name}x", source.short, value, rule.combine, rule.horizontal, rule.init(source), rule.arg, name)
    return Accumulator(name, source.short, value, rule.combine, rule.horizontal, rule.init(source))


def _attribute(value) -> str:
    """An attribute as it stands in a scalar text, a Python expression."""
    if isinstance(value, DType):
        return value.short
    if isinstance(value, Array):
        value = value.value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)


def item_bytes(before: Sequence[Statement], phases: Sequence[Phase]) -> int:
    """The width that fixes the number of lanes: 8 when all numbers are 8 bytes wide, else 4."""
    found = set()
    for statement in [*before, *(s for p in phases for s in (*p.body, *p.after))]:
        dtype = getattr(statement, "dtype", None)
        if dtype and not isinstance(statement, Coordinate) and dtype != "bool":
            found.add(dtype)
    found |= {a.dtype for p in phases for a in p.accumulators}
    return 8 if found and all(d.endswith("64") for d in found) else 4


_SELECT = re.compile(r"select\((\w+), (\w+), (\w+)\)")


def guard_of(section: Sequence[Statement], name: str) -> str:
    """The bool value that decides whether anybody takes the value `name`: all that is stored takes it through selections by
    that one. "" where there is no such value.
    """
    taking, guards = {name}, set()
    for s in section:
        if taking.isdisjoint(uses(s)):
            continue
        found = _SELECT.fullmatch(s.text) if isinstance(s, Compute) else None
        if found and taking.isdisjoint((found[1], found[3])):
            guards.add(found[1])
        elif isinstance(s, Compute):
            taking.add(s.name)
        else:
            return ""
    return guards.pop() if len(guards) == 1 else ""


def made_by(section: Sequence[Statement], name: str) -> list[Statement]:
    """The statements of a section that the value `name` needs."""
    wanted = {name}
    found: list[Statement] = []
    for s in reversed(section):
        if getattr(s, "name", "") in wanted and not isinstance(s, Store):
            found.append(s)
            wanted.update(uses(s))
    return found[::-1]


def needed_later(sections: Sequence[Sequence[Statement]], extra: Iterable[str] = ()) -> list[list[str]]:
    """For each section the names that it makes and a later one (or `extra`) takes."""
    result: list[list[str]] = []
    for k, section in enumerate(sections):
        later = set(extra) | {u for s in sections[k + 1:] for statement in s for u in uses(statement)}
        made = [s.name for s in section if not isinstance(s, Store | Check)]
        result.append([m for m in dict.fromkeys(made) if m in later])
    return result
