"""Lowering of routines: each ROUTINE node is one kernel call, whose body is the text of the op's own function."""
from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence

from graphc.codegen.copies import fill_call
from graphc.codegen.kernel import Access, Argument, RoutineKernel
from graphc.codegen.lower import Buffer, Call, Failure, Parameters
from graphc.errors import CompileError, report
from graphc.ir.dims import Size
from graphc.ir.node import Node
from graphc.ir.op import Items
from graphc.ir.types import BY_SHORT, TensorType
from graphc.passes.fuse import is_literal

RESERVED = re.compile(r"[anp]\d+|args|thread|threads|error|record|item|items|rest|culprit\d+")  # names of the skeleton


@functools.cache
def body_of(function: Callable) -> tuple[tuple[str, ...], str]:
    """(parameters, text of the statements) of a routine's function. Raises CompileError for what no kernel can be made of."""
    try:
        text = textwrap.dedent(inspect.getsource(function))
    except OSError:
        raise report(CompileError, f"the source of {function.__qualname__} is not to be found",
                     rule="a routine is compiled from its source: define it in a file") from None
    tree = ast.parse(text).body[0]
    if not isinstance(tree, ast.FunctionDef):
        raise report(CompileError, f"{function!r:.60} is not a function of its own", rule="write a routine as `def row(...):`")
    first = 1 if ast.get_docstring(tree) is not None else 0
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | {a.arg for a in tree.args.args}
    taken = sorted(n for n in names if RESERVED.fullmatch(n))
    if taken or any(isinstance(n, ast.Return) for n in ast.walk(tree)) or len(tree.body) == first:
        raise report(CompileError, f"{function.__qualname__} is no routine",
                     rule=f"it uses the kernel's own names {', '.join(taken)}" if taken else
                     "it has statements, and does not return")
    start = tree.body[first].lineno - 1 if first == 0 else tree.body[0].end_lineno
    return tuple(a.arg for a in tree.args.args), textwrap.dedent("\n".join(text.splitlines()[start:])).strip("\n")


def routine_calls(node: Node, buffers: Mapping[Node, Buffer], results: Sequence[Buffer]) -> list[Call]:
    """The call of a ROUTINE node, after fills for inputs that are literals: a routine reads memory."""
    rule, calls, held = node.op.rule, [], {}
    for source in node.inputs:
        if is_literal(source):
            held[source] = Buffer(f"{source.label}_held", source.type.bytes)
            value = source.attrs["value"].value.reshape(-1)[0].item()
            calls.append(fill_call(source.type, value, held[source], node.location))
        else:
            held[source] = buffers[source]
    types = node.type if isinstance(node.type, tuple) else (node.type,)
    made: Items = rule.items(tuple(i.type for i in node.inputs), node.type, node.attrs)
    outputs = ["y"] if len(types) == 1 else [f"y{k}" for k in range(len(types))]
    operands = {name: (held[i], i.type) for name, i in zip(node.op.inputs, node.inputs, strict=True)}
    operands |= {name: (b, t) for name, b, t in zip(outputs, results, types, strict=True)}
    return [*calls, _Lowering(node, made, operands, outputs).call()]


class _Lowering:
    """Makes the kernel and the call of one node."""

    def __init__(self, node: Node, items: Items, operands: Mapping[str, tuple[Buffer, TensorType]], outputs: Sequence[str]):
        self.node, self.items, self.operands, self.outputs = node, items, operands, outputs
        self.parameters = Parameters()
        self.axes = [(f"p{k}", size) for k, size in enumerate(items.axes)]

    def call(self) -> Call:
        items, parameters = self.items, self.parameters
        wanted, body = body_of(self.node.op.rule.row)
        arguments = tuple(self.argument(name) for name in wanted if name not in items.numbers)
        numbers = tuple((name, parameters.size(items.numbers[name])) for name in wanted if name in items.numbers)
        culprits = tuple(self.failure(*f) for f in items.failures)
        axes = tuple((name, parameters.size(size, keep=(1,))) for name, size in self.axes if size != 1)
        kernel = RoutineKernel(self.node.op.name, parameters.buffer_names, parameters.size_names, axes, arguments, numbers,
                               culprits, body, may_fail=bool(culprits))
        return parameters.call(kernel, serial=not axes, location=self.node.location,
                               operations=items.work or sum((t.elements for _, t in self.operands.values()), 0))

    def argument(self, name: str) -> Argument:
        """The argument called `name`: an operand or scratch."""
        if name in self.operands:
            return Argument(name, self.access(name))
        dtype, elements = self.items.scratch[name]
        buffer = Buffer(f"{self.node.op.name}_{name}", elements * BY_SHORT[dtype].size, per_thread=True)
        access = Access(self.parameters.buffer(buffer, write=True), dtype)
        return Argument(name, access, self.parameters.size(elements, keep=()))

    def access(self, name: str) -> Access:
        """Where an item's part of an operand is."""
        buffer, type_ = self.operands[name]
        strides = zip(self.axes, self.items.steps.get(name, (0,) * len(self.axes)), strict=True)
        return Access(self.parameters.buffer(buffer, write=name in self.outputs), type_.dtype.short,
                      tuple((axis, self.parameters.size(step)) for (axis, size), step in strides if step != 0 and size != 1))

    def failure(self, culprit: str, message: str, limit: Size | None) -> Access:
        """Register a failure; the place from which its elements are counted."""
        type_ = self.operands[culprit][1]
        self.parameters.failure(Failure(self.node.op.name, message, culprit, type_.dtype.name, tuple(type_.shape), limit,
                                        self.node.location))
        return self.access(culprit)
