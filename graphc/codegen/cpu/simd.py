"""The names that a traced vector body may use.

A generated kernel's body is an ordinary Python function over vectors; `Tracer.run` executes it once while code is
generated, and every operation appends LLVM instructions.  In: an llvmlite builder, a lane count, a function or its
source.  Out: the function's results as Vectors and Ints.  `glue` puts traces into kernels.
"""
import functools
import types as python_types
from functools import partial

from llvmlite import ir

from graphc.codegen.cpu import math as vector_math
from graphc.codegen.cpu import random as vector_random
from graphc.codegen.cpu import simd_bits, simd_divide, simd_half, simd_lanes, simd_memory
from graphc.codegen.cpu.simd_core import BOOL, DTYPES, F32, I32, I64, Dtype, Emitter, Int, Vector

__all__ = ["BOOL", "DTYPES", "Dtype", "Int", "Tracer", "Vector"]


class Tracer(Emitter):
    """Emits the instructions of one traced body."""

    def run(self, function, arguments=(), constants=None):
        """Trace a function, or the source text of one, and give back what it returns."""
        if isinstance(function, str):
            function = function_of_source(function)
        if function not in self.bound:
            known = dict(function.__globals__) | self.namespace()
            self.bound[function] = python_types.FunctionType(
                function.__code__, known, function.__name__, function.__defaults__, function.__closure__)
        return self.bound[function](*arguments, **(constants or {}))

    @functools.cached_property
    def bound(self):
        """Functions that were traced before, with our names in their reach."""
        return {}

    def namespace(self):
        """Every function that a traced body may call, by name."""
        return self.names

    @functools.cached_property
    def names(self):
        """What `namespace` gives: a tile runs its epilogue for each of its vectors."""
        table = {name: getattr(self, name) for name in (
            "tail", "all_lanes", "any_lane", "select", "fma", "minimum", "maximum", "abs", "sqrt", "floor", "ceil",
            "trunc", "rint", "copysign", "signbit", "isnan", "isinf", "isfinite", "mulhi_u32", "cast", "to_int")}
        for name, dtype in DTYPES.items():
            table[f"splat_{name}"] = partial(self.splat, dtype=dtype)
            table[f"ramp_{name}"] = partial(self.ramp, dtype)
            table[f"to_{name}"] = partial(self.cast, dtype=dtype)
            table[f"bitcast_{name}"] = table[f"from_bits_{name}"] = partial(self.bitcast, dtype=dtype)
            if dtype is not BOOL:
                table[f"bits_{name}"] = partial(self.bitcast, dtype=DTYPES[f"u{dtype.bits}"])
        return (table | simd_half.functions(self) | simd_memory.functions(self) | simd_lanes.functions(self)
                | simd_bits.functions(self) | vector_math.functions(self) | vector_random.functions(self))

    # -- what the operators of Vector and Int need from other files

    def divide(self, a, b):
        return simd_divide.divide(self, a, b)

    def int_divide(self, a, b):
        return simd_divide.divide_scalars(self, a, b)

    # -- masks

    def all_lanes(self):
        """The mask with every lane set."""
        return self.splat(True, BOOL)

    def tail(self, count):
        """The mask of the lanes below `count`: none for 0 or less, all for `lanes` or more."""
        count, build = self.int_value(count), self.builder
        count = build.select(build.icmp_signed("<", count, I64(0)), I64(0), count)
        count = build.select(build.icmp_signed(">", count, I64(self.lanes)), I64(self.lanes), count)
        lane = self.constant(range(self.lanes), DTYPES["u32"])
        return lane < self.splat(build.trunc(count, I32), DTYPES["u32"])

    # -- making vectors and scalars

    def ramp(self, dtype, start=0, step=1):
        """start + step * lane."""
        lane = self.constant(range(self.lanes), dtype)
        return self.splat(start, dtype) + self.splat(step, dtype) * lane

    def cast(self, value, dtype):
        """A Vector converted (see `Emitter.convert`); a number or an Int in every lane."""
        dtype = DTYPES[dtype] if isinstance(dtype, str) else dtype
        return self.convert(value, dtype) if isinstance(value, Vector) else self.splat(value, dtype)

    def to_int(self, v):
        """Lane 0 of an integer vector as an Int: an index that was loaded."""
        if v.dtype.is_float:
            raise TypeError(f"a vector of {v.dtype.name} gives no Int")
        scalar = self.builder.extract_element(v.ir, I32(0))
        if v.dtype.bits < 64:
            scalar = (self.builder.sext if v.dtype.signed else self.builder.zext)(scalar, I64)
        return Int(scalar, self)

    # -- elementwise functions

    def fma(self, a, b, c):
        """a * b + c, rounded once where the processor can do that."""
        dtype = next(v.dtype for v in (a, b, c) if isinstance(v, Vector))
        if not dtype.is_float:
            return a * b + c
        a, b, c = (self.same(v, dtype) for v in (a, b, c))
        return self.elementwise("fma" if self.host.has_fma else "fmuladd", a, b, c)

    def minimum(self, a, b):
        """The smaller; NaN if either is NaN."""
        return self._extreme("<", *self.pair(a, b))

    def maximum(self, a, b):
        """The larger; NaN if either is NaN."""
        return self._extreme(">", *self.pair(a, b))

    def _extreme(self, relation, a, b):
        if not a.dtype.is_float:
            return self.select(self.compare(relation, a, b), a, b)
        if _is_number(a):
            a, b = b, a
        if _is_number(b):
            # The processor's own minimum keeps its second operand when either is NaN: one instruction.
            return self.select(self.compare(relation, b, a), b, a)
        # LLVM looks for NaN in the first operand: not in `a`, the largest so far of a reduction, for which the next one waits.
        name = f"llvm.{'maximum' if relation == '>' else 'minimum'}.v{a.ir.type.count}f{a.dtype.bits}"
        return self.vector(self.call(name, a.ir.type, [b.ir, a.ir], ("nsz",)), a.dtype)

    def abs(self, v):
        if v.dtype.is_float:
            return self.elementwise("fabs", v)
        return self.select(v < 0, -v, v) if v.dtype.signed else v

    def sqrt(self, v):
        return self._float_only("sqrt", v)

    def copysign(self, v, sign):
        v, sign = self.pair(v, sign)
        return self._float_only("copysign", v, sign)

    def _float_only(self, name, *vectors):
        if not vectors[0].dtype.is_float:
            raise TypeError(f"{name} is not defined for {vectors[0].dtype.name}")
        return self.elementwise(name, *vectors)

    def rint(self, v):
        """The nearest integer, halves to the even one."""
        if self.host.has_rounding or not v.dtype.is_float:
            return self._round("roundeven", v)
        # Adding 2**23 (2**52) leaves no room for a fraction; larger numbers have none.
        large = 2.0 ** (23 if v.dtype is F32 else 52)
        size = self.abs(v)
        rounded = self.copysign((size + large) - large, v)
        return self.select(size < large, rounded, v)

    def floor(self, v):
        if self.host.has_rounding or not v.dtype.is_float:
            return self._round("floor", v)
        near = self.rint(v)
        return self.copysign(self.select(near > v, near - 1, near), v)

    def ceil(self, v):
        return self._round("ceil", v) if self.host.has_rounding or not v.dtype.is_float else -self.floor(-v)

    def trunc(self, v):
        if self.host.has_rounding or not v.dtype.is_float:
            return self._round("trunc", v)
        return self.copysign(self.floor(self.abs(v)), v)

    def _round(self, name, v):
        return self.elementwise(name, v) if v.dtype.is_float else v

    def isnan(self, v):
        return v != v if v.dtype.is_float else self.splat(False, BOOL)

    def isinf(self, v):
        return self.abs(v) == float("inf") if v.dtype.is_float else self.splat(False, BOOL)

    def isfinite(self, v):
        return self.abs(v) < float("inf") if v.dtype.is_float else self.splat(True, BOOL)

    def signbit(self, v):
        """Is the sign bit set (also of -0.0)?"""
        return self.bitcast(v, DTYPES[f"i{v.dtype.bits}"]) < 0 if v.dtype.kind != "b" else self.splat(False, BOOL)

    def mulhi_u32(self, a, b):
        """The upper half of the 64-bit product of two u32 vectors."""
        a, b = self.pair(a, b)
        wide = [self.convert(self.same(v, DTYPES["u32"]), DTYPES["u64"]) for v in (a, b)]
        return self.convert((wide[0] * wide[1]) >> 32, DTYPES["u32"])


def _is_number(v):
    """A constant without a NaN."""
    if not isinstance(v.ir, ir.Constant) or not isinstance(v.ir.constant, (list, tuple)):
        return False
    return all(c.constant == c.constant for c in v.ir.constant)


def function_of_source(source, name="traced body"):
    """The one function that a source text defines."""
    space = {"__name__": name}
    exec(compile(source, f"<{name}>", "exec"), space)
    return next(v for v in space.values() if isinstance(v, python_types.FunctionType))
