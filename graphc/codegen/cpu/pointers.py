"""Numba intrinsics for the scalar code of routines: typed pointers, and the functions that graphc.ops.routine names.

`p[k]` and `p[k] = v` on a pointer are Numba's own; a bool in memory is a byte that is 0 or 1.
"""
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from graphc.codegen.cpu.simd import Tracer
from graphc.codegen.cpu.simd_core import F64, I32, I64, POINTER, Int

ELEMENTS = {"f32": types.float32, "f64": types.float64, "bool": types.uint8,
            **{f"i{bits}": getattr(types, f"int{bits}") for bits in (8, 16, 32, 64)},
            **{f"u{bits}": getattr(types, f"uint{bits}") for bits in (8, 16, 32, 64)}}


def _pointer(dtype):
    kind = types.CPointer(ELEMENTS[dtype])

    @intrinsic
    def pointer(typing, address):
        def codegen(context, builder, signature, values):
            return builder.inttoptr(values[0], context.get_value_type(kind))
        return kind(types.intp), codegen
    return pointer


pointers = {f"pointer_{dtype}": _pointer(dtype) for dtype in ELEMENTS}


@intrinsic(prefer_literal=True)
def wide(typing, x, number):
    """A whole number (a constant) as float64, uint64 or int64, in which sums of x's elements are taken."""
    kind = types.float64 if isinstance(x.dtype, types.Float) else types.uint64 if x.dtype is types.uint64 else types.int64

    def codegen(context, builder, signature, values):
        return context.get_constant(kind, number.literal_value)
    return kind(x, number), codegen


def _end(sign):
    @intrinsic
    def end(typing, x):
        kind = x.dtype
        limits = np.iinfo(kind.name) if isinstance(kind, types.Integer) else None
        value = sign * float("inf") if limits is None else int(limits.max if sign > 0 else limits.min)

        def codegen(context, builder, signature, values):
            return context.get_constant(kind, value)
        return kind(x), codegen
    return end


lowest, highest = _end(-1), _end(1)  # the smallest and the largest value of x's elements


def _function(name):
    """A vector function as one of a float64."""
    @intrinsic
    def scalar(typing, x):
        def codegen(context, builder, signature, values):
            tracer = Tracer(builder, 1)
            return builder.extract_element(tracer.namespace()[name](tracer.splat(values[0], F64)).ir, I32(0))
        return types.float64(types.float64), codegen
    return scalar


exp64, log64, log1p64, sqrt64, cos64, floor64 = map(_function, ("exp", "log", "log1p", "sqrt", "cos", "floor"))
lgamma64, digamma64 = map(_function, ("lgamma", "digamma"))


@intrinsic
def uniform64(typing, element, attempt, first, second):
    """See graphc.ops.routine."""
    def codegen(context, builder, signature, values):
        t = Tracer(builder, 1)
        at, *rest = (Int(v, t) for v in values)
        place = t.cast(at, "i64")
        words = t.namespace()["philox"]((place, place >> 32, 0, rest[0]), rest[1:])
        bits = (t.cast(words[0], "u64") << 20) | (t.cast(words[1], "u64") >> 12)
        return builder.extract_element(((t.cast(t.cast(bits, "i64"), "f64") + 0.5) * 2.0**-52).ir, I32(0))
    return types.float64(*[types.int64] * 4), codegen


@intrinsic
def fail(typing, error, record, element, value):
    """Write (1, record, element, value) to the error slot, unless an error is already there."""
    def codegen(context, builder, signature, values):
        slot = builder.inttoptr(values[0], POINTER)
        swapped = builder.cmpxchg(slot, I64(0), I64(1), "acq_rel", "acquire")
        with builder.if_then(builder.extract_value(swapped, 1), likely=False):
            for k, word in enumerate((*values[1:3], _bits(builder, value, values[3])), start=1):
                builder.store(word, builder.gep(slot, [I64(k)], source_etype=I64)).align = 8
        return context.get_dummy_value()
    return types.void(types.intp, types.intp, types.intp, value), codegen


def _bits(builder, kind, value):
    """A number as an i64 word: an integer extended, a float's own bits."""
    if isinstance(kind, types.Float):
        value = builder.bitcast(value, ir.IntType(kind.bitwidth))
    if value.type.width == 64:
        return value
    return (builder.sext if getattr(kind, "signed", False) else builder.zext)(value, I64)
