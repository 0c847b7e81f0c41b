"""The values of a traced vector body, and the instructions that their operators emit.

A body is a plain Python function that runs once, at code-generation time, on `Vector` and `Int` objects; each operator
appends LLVM instructions to a builder.  In: an llvmlite builder and a lane count.  Out: instructions; never undefined
behaviour, never a trap, never a fast-math flag.  `simd.Tracer` adds the named functions that a body may call.
"""
from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from llvmlite import ir

from graphc.codegen.cpu.host import host as this_host

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
POINTER = ir.PointerType()
NUMBERS = (int, float, np.number, np.bool_)


@dataclass(frozen=True)
class Dtype:
    """An element type.  `kind` is f, i, u, b (bool: one bit in a register, one byte in memory) or h: a float of 16 bits,
    which is f32 in registers.
    """

    name: str
    kind: str
    bits: int

    @property
    def register(self):
        """LLVM type of one lane."""
        if self.kind in "fh":
            return ir.DoubleType() if self.bits == 64 else ir.FloatType()
        return ir.IntType(self.bits)

    @property
    def memory(self):
        """LLVM type of one element in memory."""
        return I8 if self.kind == "b" else I16 if self.kind == "h" else self.register

    @property
    def item_bytes(self):
        return max(self.bits // 8, 1)

    @property
    def is_float(self):
        return self.kind == "f"

    @property
    def signed(self):
        return self.kind == "i"


DTYPES = {d.name: d for d in (
    Dtype("f32", "f", 32), Dtype("f64", "f", 64), Dtype("bool", "b", 1),
    *(Dtype(f"{kind}{bits}", kind, bits) for kind in "iu" for bits in (8, 16, 32, 64)))}
F32, F64, BOOL = DTYPES["f32"], DTYPES["f64"], DTYPES["bool"]
HALVES = {name: Dtype(name, "h", 16) for name in ("f16", "bf16")}  # how memory may hold f32 vectors; no Vector has them


def register_dtype(name: str) -> str:
    """The dtype of the vectors that hold elements of a dtype."""
    return "f32" if name in HALVES else name


class Int:
    """An i64 scalar: an address, an index or a size."""

    __slots__ = ("emitter", "ir")
    __array_ufunc__ = None

    def __init__(self, value, emitter):
        self.ir, self.emitter = value, emitter

    def _binary(self, other, emit, swap=False):
        if not isinstance(other, (Int, int, np.integer)):
            return NotImplemented
        a, b = self.ir, self.emitter.int_value(other)
        return Int(emit(b, a) if swap else emit(a, b), self.emitter)

    def __add__(self, other):
        return self._binary(other, self.emitter.builder.add)

    def __sub__(self, other):
        return self._binary(other, self.emitter.builder.sub)

    def __rsub__(self, other):
        return self._binary(other, self.emitter.builder.sub, swap=True)

    def __mul__(self, other):
        return self._binary(other, self.emitter.builder.mul)

    def __neg__(self):
        return 0 - self

    def __floordiv__(self, other):
        return self._binary(other, lambda a, b: self.emitter.int_divide(a, b)[0])

    def __rfloordiv__(self, other):
        return self._binary(other, lambda a, b: self.emitter.int_divide(a, b)[0], swap=True)

    def __mod__(self, other):
        return self._binary(other, lambda a, b: self.emitter.int_divide(a, b)[1])

    def __rmod__(self, other):
        return self._binary(other, lambda a, b: self.emitter.int_divide(a, b)[1], swap=True)

    __radd__, __rmul__ = __add__, __mul__

    def __bool__(self):
        raise TypeError("an Int has no truth value while a body is traced")


def _operator(name, swap=False):
    def method(self, other):
        return self.emitter.binary(name, self, other, swap)
    return method


def _comparison(name):
    def method(self, other):
        return self.emitter.compare(name, self, other)
    return method


class Vector:
    """`lanes` elements of one dtype.  Operators emit instructions; numbers as operands are put in every lane."""

    __slots__ = ("dtype", "emitter", "ir")
    __array_ufunc__ = None          # np.float32(2) * v must come to v.__rmul__
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value, dtype, emitter):
        self.ir, self.dtype, self.emitter = value, dtype, emitter

    __add__, __radd__ = _operator("add"), _operator("add", swap=True)
    __sub__, __rsub__ = _operator("sub"), _operator("sub", swap=True)
    __mul__, __rmul__ = _operator("mul"), _operator("mul", swap=True)
    __truediv__, __rtruediv__ = _operator("truediv"), _operator("truediv", swap=True)
    __floordiv__, __rfloordiv__ = _operator("floordiv"), _operator("floordiv", swap=True)
    __mod__, __rmod__ = _operator("mod"), _operator("mod", swap=True)
    __and__, __rand__ = _operator("and"), _operator("and", swap=True)
    __or__, __ror__ = _operator("or"), _operator("or", swap=True)
    __xor__, __rxor__ = _operator("xor"), _operator("xor", swap=True)
    __lshift__, __rlshift__ = _operator("lshift"), _operator("lshift", swap=True)
    __rshift__, __rrshift__ = _operator("rshift"), _operator("rshift", swap=True)
    __lt__, __le__, __gt__, __ge__ = (_comparison(c) for c in ("<", "<=", ">", ">="))
    __eq__, __ne__ = _comparison("=="), _comparison("!=")

    def __neg__(self):
        return self.emitter.negate(self)

    def __invert__(self):
        return self.emitter.invert(self)

    def __bool__(self):
        raise TypeError("a Vector has no truth value while a body is traced; use select")


@functools.lru_cache(1024)
def _constant(dtype: Dtype, numbers: tuple[str, ...]) -> ir.Constant:
    """A vector of numbers, which are given as text: 0.0 and -0.0 are equal. It knows its own text once it was written."""
    number = float if dtype.is_float else int
    return ir.Constant(ir.VectorType(dtype.register, len(numbers)), [number(n) for n in numbers])


@functools.lru_cache(64)
def _undefined(kind: ir.VectorType) -> ir.Constant:
    return ir.Constant(kind, ir.Undefined)


def broadcast(builder, scalar, lanes: int):
    """A scalar of LLVM in every lane."""
    undefined = _undefined(ir.VectorType(scalar.type, lanes))
    first = builder.insert_element(undefined, scalar, I32(0))
    return builder.shuffle_vector(first, undefined, _constant(DTYPES["i32"], ("0",) * lanes))


class Emitter:
    """Emits the instructions behind `Vector` and `Int` through one builder."""

    def __init__(self, builder, lanes, host=None):
        self.builder, self.lanes, self.host = builder, lanes, host or this_host()

    # -- types and constants

    def vector_type(self, dtype):
        return ir.VectorType(dtype.register, self.lanes)

    def vector(self, value, dtype):
        return Vector(value, dtype, self)

    def constant(self, values, dtype):
        """Vector of the given numbers, one per lane; integers wrap around."""
        if dtype.is_float:
            values = [float(v) for v in values]
        else:
            values = [int(bool(v)) if dtype is BOOL else int(v) & (2**dtype.bits - 1) for v in values]
        return self.vector(_constant(dtype, tuple(map(repr, values))), dtype)

    def splat(self, value, dtype):
        """A number, an `Int` (truncated to an integer dtype), or a scalar of LLVM in every lane."""
        if isinstance(value, Vector):
            return self.same(value, dtype)
        if isinstance(value, NUMBERS):
            return self.constant([value] * self.lanes, dtype)
        if isinstance(value, Int):
            value = self._int_to_scalar(value.ir, dtype)
        return self.vector(broadcast(self.builder, value, self.lanes), dtype)

    def _int_to_scalar(self, value, dtype):
        if dtype.is_float:
            return self.builder.sitofp(value, dtype.register)
        if dtype is BOOL:
            return self.builder.icmp_signed("!=", value, I64(0))
        return value if dtype.bits == 64 else self.builder.trunc(value, dtype.register)

    def same(self, value, dtype):
        """`value` as a Vector of `dtype`: numbers are splatted, another dtype is a compiler bug."""
        if not isinstance(value, Vector):
            return self.splat(value, dtype)
        if value.dtype is not dtype:
            raise TypeError(f"a vector of {dtype.name} meets one of {value.dtype.name}")
        return value

    def pair(self, a, b):
        """Both operands as Vectors of one dtype; at least one is a Vector."""
        dtype = a.dtype if isinstance(a, Vector) else b.dtype
        return self.same(a, dtype), self.same(b, dtype)

    def int_value(self, value):
        """LLVM i64 of an Int or a number."""
        return value.ir if isinstance(value, Int) else I64(int(value))

    def call(self, name, result, arguments, flags=()):
        """Call an LLVM intrinsic (or any function of this module) by its full name; flags: what LLVM may take for granted."""
        function = self.builder.module.globals.get(name)
        if function is None:
            function = ir.Function(self.builder.module, ir.FunctionType(result, [a.type for a in arguments]), name)
        return self.builder.call(function, arguments, fastmath=flags)

    def suffix(self, dtype):
        """How LLVM's intrinsics spell this vector type."""
        return f"v{self.lanes}{'f' if dtype.is_float else 'i'}{dtype.bits}"

    def elementwise(self, name, *vectors):
        """llvm.<name> over vectors of one type."""
        dtype = vectors[0].dtype
        value = self.call(f"llvm.{name}.{self.suffix(dtype)}", self.vector_type(dtype), [v.ir for v in vectors])
        return self.vector(value, dtype)

    # -- operators

    def binary(self, name, a, b, swap=False):
        if not isinstance(b, (Vector, *NUMBERS)):
            return NotImplemented
        b = self.same(b, a.dtype)
        a, b = (b, a) if swap else (a, b)
        return getattr(self, "emit_" + name)(a, b)

    def _plain(self, a, b, for_float, for_int, for_bool=None):
        name = for_float if a.dtype.is_float else for_bool if a.dtype is BOOL else for_int
        if name is None:
            raise TypeError(f"this operator is not defined for {a.dtype.name}")
        return self.vector(getattr(self.builder, name)(a.ir, b.ir), a.dtype)

    def emit_add(self, a, b):
        return self._plain(a, b, "fadd", "add", "or_")

    def emit_sub(self, a, b):
        return self._plain(a, b, "fsub", "sub")

    def emit_mul(self, a, b):
        return self._plain(a, b, "fmul", "mul", "and_")

    def emit_truediv(self, a, b):
        return self._plain(a, b, "fdiv", None)

    def emit_and(self, a, b):
        return self._plain(a, b, None, "and_", "and_")

    def emit_or(self, a, b):
        return self._plain(a, b, None, "or_", "or_")

    def emit_xor(self, a, b):
        return self._plain(a, b, None, "xor", "xor")

    def emit_lshift(self, a, b):
        in_range, count = self._shift_count(a, b)
        shifted = self.vector(self.builder.shl(a.ir, count.ir), a.dtype)
        return self.select(in_range, shifted, self.splat(0, a.dtype))

    def emit_rshift(self, a, b):
        in_range, count = self._shift_count(a, b)
        if a.dtype.signed:
            count = self.select(in_range, b, self.splat(a.dtype.bits - 1, a.dtype))
            return self.vector(self.builder.ashr(a.ir, count.ir), a.dtype)
        shifted = self.vector(self.builder.lshr(a.ir, count.ir), a.dtype)
        return self.select(in_range, shifted, self.splat(0, a.dtype))

    def _shift_count(self, a, b):
        """(lanes whose count is below the width, the count or 0): LLVM leaves wider shifts undefined."""
        if a.dtype.kind not in "iu":
            raise TypeError(f"shifts are not defined for {a.dtype.name}")
        width = self.splat(a.dtype.bits, a.dtype)
        in_range = self.vector(self.builder.icmp_unsigned("<", b.ir, width.ir), BOOL)
        return in_range, self.select(in_range, b, self.splat(0, a.dtype))

    def emit_floordiv(self, a, b):
        return self.divide(a, b)[0]

    def emit_mod(self, a, b):
        return self.divide(a, b)[1]

    def negate(self, v):
        if v.dtype.is_float:
            return self.vector(self.builder.fneg(v.ir), v.dtype)
        return self.splat(0, v.dtype) - v

    def invert(self, v):
        if v.dtype.is_float:
            raise TypeError(f"~ is not defined for {v.dtype.name}")
        return self.vector(self.builder.not_(v.ir), v.dtype)

    def compare(self, name, a, b):
        if not isinstance(b, (Vector, *NUMBERS)):
            return NotImplemented
        b = self.same(b, a.dtype)
        if a.dtype.is_float:
            ordered = self.builder.fcmp_unordered if name == "!=" else self.builder.fcmp_ordered
            return self.vector(ordered(name, a.ir, b.ir), BOOL)
        compare = self.builder.icmp_signed if a.dtype.signed else self.builder.icmp_unsigned
        return self.vector(compare(name, a.ir, b.ir), BOOL)

    def select(self, mask, a, b):
        """Lanes of `a` where `mask` is set, of `b` elsewhere."""
        a, b = self.pair(a, b)
        return self.vector(self.builder.select(self.same(mask, BOOL).ir, a.ir, b.ir), a.dtype)

    # -- conversions

    def convert(self, v, dtype):
        """As NumPy's astype where that is defined; floats out of an integer's range saturate, NaN becomes 0."""
        source, build = v.dtype, self.builder
        if source is dtype:
            return v
        if dtype is BOOL:
            return v != 0
        target = self.vector_type(dtype)
        if source.is_float and dtype.is_float:
            value = (build.fpext if dtype.bits > source.bits else build.fptrunc)(v.ir, target)
        elif source.is_float:
            name = f"llvm.fpto{'s' if dtype.signed else 'u'}i.sat.{self.suffix(dtype)}.{self.suffix(source)}"
            value = self.call(name, target, [v.ir])
        elif dtype.is_float:
            value = (build.sitofp if source.signed else build.uitofp)(v.ir, target)
        elif dtype.bits == source.bits:
            value = v.ir
        elif dtype.bits < source.bits:
            value = build.trunc(v.ir, target)
        else:
            value = (build.sext if source.signed else build.zext)(v.ir, target)
        return self.vector(value, dtype)

    def bitcast(self, v, dtype):
        """The same bits as another dtype of the same size."""
        if v.dtype.bits != dtype.bits:
            raise TypeError(f"bitcast of {v.dtype.name} to {dtype.name}: sizes differ")
        if v.dtype.is_float == dtype.is_float:
            return self.vector(v.ir, dtype)
        return self.vector(self.builder.bitcast(v.ir, self.vector_type(dtype)), dtype)

    def shuffle(self, v, order):
        """Lane `order[k]` of `v` in lane k."""
        lanes = ir.Constant(ir.VectorType(I32, self.lanes), list(order))
        return self.vector(self.builder.shuffle_vector(v.ir, ir.Constant(v.ir.type, ir.Undefined), lanes), v.dtype)

    # -- control flow

    def when(self, condition, work, otherwise=()):
        """Run `work()` only if the i1 scalar `condition` is set.

        `work` returns Vectors; the results are those, or the Vectors of `otherwise` where the branch was not taken.
        """
        before = self.builder.block
        taken = self.builder.append_basic_block("rare")
        after = self.builder.append_basic_block("after")
        self.builder.cbranch(condition, taken, after)
        self.builder.position_at_end(taken)
        results = work() or ()
        last = self.builder.block
        self.builder.branch(after)
        self.builder.position_at_end(after)
        merged = []
        for old, new in zip(otherwise, results, strict=True):
            phi = self.builder.phi(new.ir.type)
            phi.add_incoming(old.ir, before)
            phi.add_incoming(new.ir, last)
            merged.append(self.vector(phi, new.dtype))
        return merged

    def repeat_while(self, condition, step, state):
        """while any lane of condition(*state): state = step(*state).  Vectors in, Vectors out."""
        before = self.builder.block
        head, body, after = (self.builder.append_basic_block(n) for n in ("head", "body", "after"))
        self.builder.branch(head)
        self.builder.position_at_end(head)
        phis = [self.builder.phi(v.ir.type) for v in state]
        current = [self.vector(phi, v.dtype) for phi, v in zip(phis, state, strict=True)]
        for phi, v in zip(phis, state, strict=True):
            phi.add_incoming(v.ir, before)
        self.builder.cbranch(self.any_lane(condition(*current)), body, after)
        self.builder.position_at_end(body)
        for phi, v in zip(phis, step(*current), strict=True):
            phi.add_incoming(v.ir, self.builder.block)
        self.builder.branch(head)
        self.builder.position_at_end(after)
        return current

    def outline(self, name, work, arguments, results):
        """`work(emitter, *arguments)` as a function of its own, shared by all calls in this module: rare, long code.

        `results` are the dtypes of the Vectors that it returns.
        """
        name = f"{name}_x{self.lanes}"
        function = self.builder.module.globals.get(name)
        if function is None:
            kind = ir.LiteralStructType([self.vector_type(d) for d in results])
            function = ir.Function(
                self.builder.module, ir.FunctionType(kind, [v.ir.type for v in arguments]), name)
            function.linkage = "internal"
            function.attributes.add("noinline")
            function.attributes.add("cold")
            inner = type(self)(ir.IRBuilder(function.append_basic_block("entry")), self.lanes, self.host)
            given = [inner.vector(a, v.dtype) for a, v in zip(function.args, arguments, strict=True)]
            value = ir.Constant(kind, ir.Undefined)
            for k, v in enumerate(work(inner, *given)):
                value = inner.builder.insert_value(value, v.ir, k)
            inner.builder.ret(value)
        packed = self.builder.call(function, [v.ir for v in arguments])
        return [self.vector(self.builder.extract_value(packed, k), d) for k, d in enumerate(results)]

    def any_lane(self, mask):
        """i1 scalar: is any lane of `mask` set?"""
        bits = self.builder.bitcast(mask.ir, ir.IntType(self.lanes))
        return self.builder.icmp_unsigned("!=", bits, ir.IntType(self.lanes)(0))

    def mask_bits(self, mask):
        """The mask as an integer of `lanes` bits, lane 0 lowest."""
        return self.builder.bitcast(mask.ir, ir.IntType(self.lanes))
