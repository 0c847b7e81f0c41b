"""The loops of a kernel as LLVM text, straight from the syntax tree of its source.

A skeleton is a small part of Python: assignments of whole numbers and vectors, `while`, `if`, `break`, and calls of what is
emitted in place (`glue.Code`). So little needs no type inference: an expression has the kind of what it is made of, a name
that of what it is given first. Whatever divides is a size, or a number of threads, and so positive. No call of LLVM is made
here, so that another thread may be in it.
"""
from __future__ import annotations

import ast
import functools
from collections import ChainMap, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llvmlite import ir

from graphc.codegen.cpu.glue import INT, Code
from graphc.codegen.cpu.simd_core import I64

Value = tuple[str, Any]      # its kind, as in `glue`, and the LLVM value


def unoptimised(kernel: ast.FunctionDef, codes: Mapping[str, Code], symbol: str) -> str:
    """The text of an LLVM module that defines `symbol`, void(i64 *args, i64 thread, i64 threads), for a kernel that calls
    `codes` by name.
    """
    module = ir.Module(symbol)
    names = [a.arg for a in kernel.args.args]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * len(names)), symbol)
    _Writer(function, kernel, codes).write(kernel, names)
    return str(module)


class _Writer:
    """Emits the statements of a kernel.

    Names that are assigned once and used only after that are values; others have a place on the stack, which LLVM turns into
    registers.
    """

    def __init__(self, function: ir.Function, kernel: ast.FunctionDef, codes: Mapping[str, Code]):
        self.codes, self.once = codes, _assigned_once(kernel)
        self.entry = function.append_basic_block("entry")
        self.builder = ir.IRBuilder(function.append_basic_block("start"))
        self.known: ChainMap[str, Value] = ChainMap()   # by block
        self.places: dict[str, Value] = {}
        self.after: list[ir.Block] = []                 # where a `break` of each open loop goes

    def write(self, kernel: ast.FunctionDef, names: Sequence[str]) -> None:
        """The whole function, whose parameters have these names."""
        start = self.builder.block
        for name, value in zip(names, start.function.args, strict=True):
            self.known[name] = INT, value
        self.block(kernel.body)
        if not self.builder.block.is_terminated:
            self.builder.ret_void()
        self.builder.position_at_end(self.entry)
        self.builder.branch(start)

    # statements --------------------------------------------------------------------------------------------------------

    def block(self, statements: Sequence[ast.stmt]) -> None:
        self.known = self.known.new_child()
        for statement in statements:
            write = getattr(self, f"write_{type(statement).__name__.lower()}", None)
            if write is None:
                raise _unknown(statement)
            write(statement)
        self.known = self.known.parents

    def write_assign(self, s: ast.Assign) -> None:
        for target in s.targets:
            if isinstance(target, ast.Tuple):
                parts = s.value.elts if isinstance(s.value, ast.Tuple) else None
                values = [self.value(p) for p in parts] if parts else self.call(s.value)
                for name, value in zip(target.elts, values, strict=True):
                    self.assign(_named(name), value)
            else:
                self.assign(_named(target), self.value(s.value))

    def write_augassign(self, s: ast.AugAssign) -> None:
        name = _named(s.target)
        self.assign(name, self.arithmetic(s, s.op, self.name(name), self.value(s.value)))

    def write_expr(self, s: ast.Expr) -> None:
        self.call(s.value)

    def write_break(self, _: ast.Break) -> None:
        self.builder.branch(self.after[-1])

    def write_if(self, s: ast.If) -> None:
        build, test = self.builder, self.condition(s.test)
        then, after = build.append_basic_block("then"), build.append_basic_block("after")
        otherwise = build.append_basic_block("otherwise") if s.orelse else after
        build.cbranch(test, then, otherwise)
        for place, statements in ((then, s.body), (otherwise, s.orelse)):
            if statements:
                build.position_at_end(place)
                self.block(statements)
                if not build.block.is_terminated:
                    build.branch(after)
        build.position_at_end(after)

    def write_while(self, s: ast.While) -> None:
        build = self.builder
        body, after = build.append_basic_block("loop"), build.append_basic_block("done")

        def again() -> None:    # the test stands before the loop and at its end
            if isinstance(s.test, ast.Constant) and s.test.value is True:
                build.branch(body)
            else:
                build.cbranch(self.condition(s.test), body, after)
        again()
        build.position_at_end(body)
        self.after.append(after)
        self.block(s.body)
        if not build.block.is_terminated:
            again()
        self.after.pop()
        build.position_at_end(after)

    # names -------------------------------------------------------------------------------------------------------------

    def assign(self, name: str, value: Value) -> None:
        kind, found = value
        if name in self.once:
            self.known[name] = value
            return
        if name not in self.places:
            with self.builder.goto_block(self.entry):
                self.places[name] = kind, self.builder.alloca(found.type, name=name)
        known, place = self.places[name]
        if kind != known or found.type != place.allocated_type:
            raise TypeError(f"{name} is a {known} and becomes a {kind}")
        self.builder.store(found, place)

    def name(self, name: str) -> Value:
        if name in self.known:
            return self.known[name]
        if name not in self.places:
            raise TypeError(f"a kernel's source: {name!r} has no value")
        kind, place = self.places[name]
        return kind, self.builder.load(place, typ=place.allocated_type)

    # expressions -------------------------------------------------------------------------------------------------------

    def value(self, e: ast.expr) -> Value:
        if isinstance(e, ast.Name):
            return self.name(e.id)
        if isinstance(e, ast.Constant) and type(e.value) is int:
            return INT, I64(e.value)
        if isinstance(e, ast.BinOp):
            return self.arithmetic(e, e.op, self.value(e.left), self.value(e.right))
        if isinstance(e, ast.UnaryOp) and isinstance(e.op, ast.USub):
            return self.arithmetic(e, ast.Sub(), (INT, I64(0)), self.value(e.operand))
        if isinstance(e, ast.Call):
            found, = self.call(e)
            return found
        if isinstance(e, ast.IfExp):
            return self.choice(e)
        raise _unknown(e)

    def arithmetic(self, e: ast.AST, operator: ast.operator, a: Value, b: Value) -> Value:
        """Of whole numbers; e: where it stands."""
        if a[0] != INT or b[0] != INT or type(operator) not in _ARITHMETIC:
            raise _unknown(e)
        return INT, _ARITHMETIC[type(operator)](self.builder, a[1], b[1])

    def call(self, e: ast.expr) -> list[Value]:
        if not isinstance(e, ast.Call):
            raise _unknown(e)
        code = self.codes[_named(e.func)]
        arguments = [self.value(a) for a in e.args]
        found = code.emit(self.builder, [kind for kind, _ in arguments], [value for _, value in arguments])
        return list(zip(code.results, found, strict=True))

    def choice(self, e: ast.IfExp) -> Value:
        """`a if test else b`: both are computed, but where one may divide by 0."""
        test = self.condition(e.test)
        if not any(map(_may_trap, (e.body, e.orelse))):
            (kind, a), (_, b) = self.value(e.body), self.value(e.orelse)
            return kind, self.builder.select(test, a, b)
        with self.builder.if_else(test) as (then, otherwise):
            with then:
                kind, a = self.value(e.body)
                first = self.builder.block
            with otherwise:
                _, b = self.value(e.orelse)
                second = self.builder.block
        found = self.builder.phi(a.type)
        found.add_incoming(a, first)
        found.add_incoming(b, second)
        return kind, found

    def condition(self, e: ast.expr):
        """An i1. Of several, joined by `and` or `or`, all are computed."""
        if isinstance(e, ast.BoolOp) and not any(map(_may_trap, e.values)):
            join = self.builder.and_ if isinstance(e.op, ast.And) else self.builder.or_
            return functools.reduce(join, map(self.condition, e.values))
        if isinstance(e, ast.Compare) and len(e.ops) == 1:
            (_, a), (_, b) = self.value(e.left), self.value(e.comparators[0])
            return self.builder.icmp_signed(_SIGNS[type(e.ops[0])], a, b)
        raise _unknown(e)


def _unknown(e: ast.AST) -> TypeError:
    return TypeError(f"a kernel's source has {ast.unparse(e)!r}")


def _named(e: ast.expr) -> str:
    """The name that an expression is."""
    if not isinstance(e, ast.Name):
        raise _unknown(e)
    return e.id


def _may_trap(e: ast.expr) -> bool:
    """Whether an expression divides by what is not a number, or calls something."""
    divisions = [n for n in ast.walk(e) if isinstance(n, ast.BinOp) and isinstance(n.op, ast.FloorDiv | ast.Mod)]
    return any(not isinstance(n.right, ast.Constant) for n in divisions) or any(isinstance(n, ast.Call) for n in ast.walk(e))


def _quotient(build, a, b):
    """Floor of a / b for a positive b, without a branch."""
    if _is_power(b):
        return build.ashr(a, I64(b.constant.bit_length() - 1))
    return build.add(build.sdiv(a, b), build.ashr(build.srem(a, b), I64(63)))


def _remainder(build, a, b):
    """a modulo b for a positive b, without a branch."""
    if _is_power(b):
        return build.and_(a, I64(b.constant - 1))
    rest = build.srem(a, b)
    return build.add(rest, build.and_(b, build.ashr(rest, I64(63))))


def _is_power(b) -> bool:
    return isinstance(b, ir.Constant) and b.constant > 0 and b.constant & (b.constant - 1) == 0


def _exact(name: str) -> Callable:
    return lambda build, a, b: getattr(build, name)(a, b, flags=("nsw",))


_ARITHMETIC: dict[type, Callable] = {ast.Add: _exact("add"), ast.Sub: _exact("sub"), ast.Mult: _exact("mul"),
                                     ast.FloorDiv: _quotient, ast.Mod: _remainder}
_SIGNS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}


def _assigned_once(kernel: ast.FunctionDef) -> set[str]:
    """Names that one statement gives a value, and that only later ones of its block use, or of blocks in that."""
    given: dict[str, list[tuple]] = defaultdict(list)
    used: dict[str, set[tuple]] = defaultdict(set)
    for statement, path in _statements(kernel.body, ()):
        for node in _own_parts(statement):
            for name in (n for n in ast.walk(node) if isinstance(n, ast.Name)):
                if isinstance(name.ctx, ast.Store):
                    given[name.id].append(path)
                else:
                    used[name.id].add(path)
        if isinstance(statement, ast.AugAssign):
            given[_named(statement.target)].append(path)
    return {name for name, (path, *others) in given.items()
            if not others and all(other[:len(path)] == path for other in used[name])}


def _statements(block: Sequence[ast.stmt], path: tuple) -> Iterator[tuple[ast.stmt, tuple]]:
    """All statements, each with the numbers of the blocks that it stands in."""
    for statement in block:
        yield statement, path
        for part in ("body", "orelse"):
            yield from _statements(getattr(statement, part, ()), (*path, (id(statement), part)))


def _own_parts(statement: ast.stmt) -> list[ast.AST]:
    """What belongs to a statement itself, not to the blocks in it."""
    return [statement.test] if isinstance(statement, ast.If | ast.While) else [statement]
