"""Traced vector bodies as what a skeleton calls by name, and the few scalar ones that loops need.

In: a body function (or its source) and a lane count.  Out: a `Code`, whose instructions are emitted where it is called.
"""
from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.codegen.cpu.simd import DTYPES, Int, Tracer, Vector, function_of_source
from graphc.codegen.cpu.simd_core import I64, POINTER

INT = "int"     # the kind of an i64; that of a vector is its dtype's name


@dataclass(frozen=True)
class Code:
    """What a kernel's source calls by name. results: the kinds of what it gives; emit(builder, kinds, values): emits the
    instructions for arguments of these kinds, and gives the LLVM values of the results.
    """

    name: str
    results: tuple[str, ...]
    emit: Callable[[object, Sequence[str], Sequence], Sequence]


def traced(function, lanes, results=(), constants=None, wide=1) -> Code:
    """The trace of `function`, a function or the source of one.

    Its arguments are the function's parameters without those in `constants`, which are bound to Python values when the
    body is traced (`constants={"mask": None}`).  An i64 arrives as an Int, a vector as a Vector.  `results` names what the
    function returns: dtype names, or "int" for an Int.  Vectors that the function makes have `wide` times as many lanes.
    """
    if isinstance(function, str):
        function = function_of_source(function)
    constants = dict(constants or {})
    results = (results,) if isinstance(results, str) else tuple(results)
    parameters = [p for p in inspect.signature(function).parameters if p not in constants]

    def emit(builder, kinds, values):
        if len(values) != len(parameters):
            raise TypeError(f"{function.__name__} takes {len(parameters)} arguments, not {len(values)}")
        tracer = Tracer(builder, lanes * wide)
        arguments = [Int(v, tracer) if k == INT else Vector(v, DTYPES[k], tracer) for k, v in zip(kinds, values, strict=True)]
        found = tracer.run(function, (), {**dict(zip(parameters, arguments, strict=True)), **constants})
        found = () if found is None else found if isinstance(found, tuple) else (found,)
        if len(found) != len(results):
            raise TypeError(f"{function.__name__} returned {len(found)} values, {len(results)} were declared")
        return [tracer.int_value(v) if name == INT else tracer.same(v, DTYPES[name]).ir
                for name, v in zip(results, found, strict=True)]
    return Code(function.__name__, results, emit)


@functools.cache
def splat(dtype, lanes, value=0) -> Code:
    """Without arguments: the number `value` in every lane, to start an accumulator."""
    return traced(f"def splat_value(value):\n    return splat_{dtype}(value)\n", lanes, (dtype,), {"value": value})


def _word(builder, _, values):
    table, index = values
    return [builder.load(builder.gep(builder.inttoptr(table, POINTER), [index], source_etype=I64), typ=I64)]


arg = Code("arg", (INT,), _word)    # word `index` of a table of i64: an address or a size
