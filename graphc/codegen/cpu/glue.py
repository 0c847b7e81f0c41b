"""Traced vector bodies as Numba intrinsics, and the few scalar ones that loop skeletons need.

In: a body function (or its source) and a lane count.  Out: an intrinsic to call from the generated Numba source.  The
loops around a body are compiled by Numba; the body itself costs no typing, its instructions are emitted directly.
"""
import functools
import inspect

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from graphc.codegen.cpu.simd import DTYPES, Int, Tracer, Vector, function_of_source
from graphc.codegen.cpu.simd_core import I64, POINTER


class Simd(types.Type):
    """A vector of `lanes` elements of one dtype in a register."""

    def __init__(self, dtype, lanes):
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"simd_{dtype}x{lanes}")


@register_model(Simd)
class _SimdModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.VectorType(DTYPES[kind.dtype].register, kind.lanes))


def traced(function, lanes, results=(), constants=None, wide=1):
    """Intrinsic that runs the trace of `function`, a function or the source of one.

    Its arguments are the function's parameters without those in `constants`, which are bound to Python values when the
    body is traced (`constants={"mask": None}`).  An integer argument arrives as an Int, a Simd as a Vector.  `results`
    names what the function returns: dtype names, or "int" for an Int.  One name: the value; several: a tuple; none:
    None.  Vectors that the function makes have `wide` times as many lanes.
    """
    if isinstance(function, str):
        function = function_of_source(function)
    constants = dict(constants or {})
    results = (results,) if isinstance(results, str) else tuple(results)
    parameters = [p for p in inspect.signature(function).parameters if p not in constants]
    returned = [types.intp if r == "int" else Simd(r, lanes) for r in results]
    returned = types.void if not returned else returned[0] if len(returned) == 1 else types.Tuple(returned)

    def typed(_, *kinds):
        def codegen(context, builder, signature, values):
            tracer = Tracer(builder, lanes * wide)
            arguments = [_wrap(tracer, kind, value) for kind, value in zip(signature.args, values, strict=True)]
            found = tracer.run(function, arguments, constants)
            return _unwrap(context, builder, tracer, function, results, returned, found)
        return returned(*(_argument(function, kind) for kind in kinds)), codegen

    return intrinsic(_with_parameters(typed, parameters, function.__name__))


def _argument(function, kind):
    if isinstance(kind, (Simd, types.Integer)):
        return kind if isinstance(kind, Simd) else types.intp
    raise TypeError(f"{function.__name__} takes integers and vectors, not {kind}")


def _wrap(tracer, kind, value):
    return Vector(value, DTYPES[kind.dtype], tracer) if isinstance(kind, Simd) else Int(value, tracer)


def _unwrap(context, builder, tracer, function, results, returned, found):
    """The LLVM value that the intrinsic returns for what the traced function returned."""
    found = () if found is None else found if isinstance(found, tuple) else (found,)
    if len(found) != len(results):
        raise TypeError(f"{function.__name__} returned {len(found)} values, {len(results)} were declared")
    values = [tracer.int_value(v) if name == "int" else tracer.same(v, DTYPES[name]).ir
              for name, v in zip(results, found, strict=True)]
    if not values:
        return context.get_dummy_value()
    return values[0] if len(values) == 1 else context.make_tuple(builder, returned, values)


def _with_parameters(function, parameters, name):
    """`function(typing, *arguments)` with named parameters: Numba reads an intrinsic's signature."""
    names = "".join(", " + p for p in parameters)
    space = {"function": function}
    exec(f"def {name}(typing{names}):\n    return function(typing{names})\n", space)
    return space[name]


@functools.cache
def splat(dtype, lanes, value=0):
    """Intrinsic without arguments: the number `value` in every lane, to start an accumulator."""
    return traced(f"def splat_value(value):\n    return splat_{dtype}(value)\n", lanes, (dtype,), {"value": value})


@intrinsic
def arg(typing, table, index):
    """Word `index` of a table of i64: an address or a size."""
    def codegen(context, builder, signature, values):
        pointer = builder.gep(builder.inttoptr(values[0], POINTER), [values[1]], source_etype=I64)
        return builder.load(pointer, typ=I64)
    return types.intp(types.intp, types.intp), codegen
