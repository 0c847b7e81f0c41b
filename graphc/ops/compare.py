"""Comparisons, logic, choice, sign and rounding, casts, whole numbers and bits, checks: one block per op.

The lowest op module: gradient rules of the others use `where` and the comparisons from here.
"""
from __future__ import annotations

import numpy as np

from graphc.errors import DTypeError, RuleError, RunError
from graphc.ir.node import as_node, is_tensor
from graphc.ir.op import REQUIRED, Op
from graphc.ir.types import (
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from graphc.ops.define import elementwise, sample
from graphc.ops.samples import boolean, integer, real

STEPS = "its value is constant between jumps"


def refuse(bad, culprit: str, value, message: str) -> None:
    """Raise the run-time error of an op for the first element that is `bad`; `value` is the input called `culprit`.

    Arrays broadcast; the index counts in the result.
    """
    if np.any(bad):
        bad, value = np.broadcast_arrays(bad, value)
        index = np.unravel_index(int(np.argmax(bad)), bad.shape)
        place = f"[{', '.join(str(int(i)) for i in index)}]" if index else ""
        raise RunError(f"{message}: {culprit}{place} = {value[index]}")


# comparisons and logic ----------------------------------------------------------------------------


def _comparison(name: str, symbol: str, numpy, accepts: str = "number") -> Op:
    few = integer(3, 4, low=0, high=3)  # so that some are equal
    return elementwise(
        name, "x y",
        doc=f"Whether x {symbol} y, element by element. Any comparison with NaN is false, but `!=` is true.",
        scalar=f"{{x}} {symbol} {{y}}", accepts=accepts, result=bool_,
        numpy=numpy, grad=STEPS,
        samples=[(real(3, 4), real(3, 4)), (few, few), (real(3, 1), real(4)), (real(0, 4), real(4))],
        errors=[(sample(real(3, 4), real(3)), "shapes do not broadcast"),
                (sample(real(3, dtype="float32"), real(3, dtype="float64")), "dtypes differ")],
    )


equal = _comparison("equal", "==", np.equal, "any")
not_equal = _comparison("not_equal", "!=", np.not_equal, "any")
less = _comparison("less", "<", np.less)
less_equal = _comparison("less_equal", "<=", np.less_equal)
greater = _comparison("greater", ">", np.greater)
greater_equal = _comparison("greater_equal", ">=", np.greater_equal)


def _logic(name: str, symbol: str, numpy, doc: str) -> Op:
    return elementwise(
        name, "x y", doc=doc,
        scalar=f"{{x}} {symbol} {{y}}", accepts="bool",
        numpy=numpy, grad="a bool has no gradient",
        samples=[(boolean(3, 4), boolean(3, 4)), (boolean(3, 1), boolean(4))],
        errors=[(sample(real(3, dtype="float32"), real(3, dtype="float32")), "float32 is not accepted")],
    )


logical_and = _logic("logical_and", "&", np.logical_and, "Whether both are true.")
logical_or = _logic("logical_or", "|", np.logical_or, "Whether one or both are true.")
logical_xor = _logic("logical_xor", "^", np.logical_xor, "Whether one is true and not both.")

logical_not = elementwise(
    "logical_not", "x",
    doc="Whether x is false.",
    scalar="~{x}", accepts="bool",
    numpy=np.logical_not, grad="a bool has no gradient",
    samples=[boolean(3, 4), boolean(), boolean(0, 4)],
)


def _float_test(name: str, numpy, doc: str) -> Op:
    return elementwise(name, "x", doc=doc, scalar=f"{name}({{x}})", accepts="float", result=bool_, numpy=numpy,
                       grad="a bool has no gradient", samples=[real(3, 4), real(), real(0, 4)])


isnan = _float_test("isnan", np.isnan, "Whether x is no number.")
isinf = _float_test("isinf", np.isinf, "Whether x is infinite.")
isfinite = _float_test("isfinite", np.isfinite, "Whether x is neither infinite nor NaN.")

# choice -------------------------------------------------------------------------------------------

select = elementwise(
    "select", "condition x y",
    doc="x where the condition is true, y elsewhere. The gradient of the side not taken is 0, whatever dy is.",
    scalar="select({condition}, {x}, {y})", accepts="any", fixed={"condition": bool_},
    numpy=np.where,
    grad=lambda dy, z, condition, x, y: [None, where(condition, dy, 0), where(condition, 0, dy)],
    nondiff=("condition",),
    samples=[(boolean(3, 4), real(3, 4), real(3, 4)), (boolean(3, 1), real(4), real()), (boolean(), real(3), real(3)),
             (boolean(3, 4), boolean(3, 4), boolean(4))],
    errors=[(sample(*[real(3, dtype="float32")] * 3), "condition must be bool")],
)


def where(condition, x, y, name: str | None = None):
    """`select` whose sides may be numbers: they take the dtype of the other side."""
    dtype = next((v.dtype for v in (x, y) if is_tensor(v)), None)
    return select(condition, as_node(x, dtype, "where"), as_node(y, dtype, "where"), name=name)


# sign and rounding --------------------------------------------------------------------------------

sign = elementwise(
    "sign", "x",
    doc="-1, 0 or 1; NaN stays. The gradient is 0 everywhere.",
    scalar="select({x} > 0, 1, select({x} < 0, -1, {x}))", cost=4,
    numpy=np.sign, grad=lambda dy, y, x: [0],
    samples=[real(3, 4), integer(3, 4, dtype="int32"), real(), real(0, 5)],
)


def _rounding(name: str, numpy, doc: str) -> Op:
    return elementwise(name, "x", doc=doc, scalar=f"{name}({{x}})", accepts="float", numpy=numpy, grad=STEPS,
                       samples=[real(3, 4), real(50, low=-9, high=9), real(), real(0, 5)],
                       errors=[(sample(integer(3, dtype="int32")), "int32 is not accepted")])


floor = _rounding("floor", np.floor, "The largest whole number that is not above x.")
ceil = _rounding("ceil", np.ceil, "The smallest whole number that is not below x.")
trunc = _rounding("trunc", np.trunc, "x without its fraction.")
rint = _rounding("rint", np.rint, "The nearest whole number; of two, the even one.")

# casts --------------------------------------------------------------------------------------------


def _cast_numpy(x, *, dtype):
    """NumPy's astype, but floats out of an integer's range become its nearest value, and NaN becomes 0; to float16 and
    bfloat16 all go through float32.
    """
    if x.dtype.kind != "f" or not dtype.is_integer:
        return x.astype(dtype.arithmetic.numpy).astype(dtype.numpy)
    info = np.iinfo(dtype.numpy)
    below, above = x <= info.min, x >= 2.0 ** (info.bits - (info.min < 0))  # exact in any float dtype
    whole = np.where(below | above | np.isnan(x), 0, x).astype(dtype.numpy)
    return np.where(below, dtype.numpy.type(info.min), np.where(above, dtype.numpy.type(info.max), whole))


cast = elementwise(
    "cast", "x", attrs={"dtype": REQUIRED},
    doc="x as another dtype. Fractions are cut off; floats out of an integer's range become the nearest value, NaN 0; "
        "integers too large for a smaller dtype wrap; anything but 0 is true. To float16 and bfloat16 numbers go through "
        "float32.",
    scalar="to_{dtype}({x})", accepts="any", result=lambda dtype, attrs: attrs["dtype"], cost=2,
    numpy=_cast_numpy,
    grad=lambda dy, y, x, *, dtype: [cast(dy, dtype=x.dtype) if x.dtype.is_floating and dtype.is_floating else None],
    samples=[*(sample(real(3, 4, low=-9, high=300), dtype=d) for d in (float32, float64, int32, uint8, bool_)),
             sample(integer(3, 4, low=-300, high=300, dtype="int64"), dtype=uint8),
             sample(integer(3, 4, dtype="int64"), dtype=float32),
             sample(integer(3, 4, low=0, dtype="uint8"), dtype=int32),
             sample(boolean(3, 4), dtype=float32), sample(boolean(3, 4), dtype=uint8),
             sample(real(0, 4), dtype=float32)],
)


def _bitcast_type(source, attrs):
    if attrs["source"] != source:
        raise RuleError("the bits are those of another dtype", f"{attrs['source']} != {source}", DTypeError)
    if source.is_bool or attrs["dtype"].is_bool or source.size != attrs["dtype"].size:
        raise RuleError("the sizes of the dtypes differ", f"{source} and {attrs['dtype']}", DTypeError)
    return attrs["dtype"]


bitcast = elementwise(
    "bitcast", "x", attrs={"source": REQUIRED, "dtype": REQUIRED},
    doc="The bits of x, of the dtype `source`, as those of another dtype of the same size.",
    scalar="from_bits_{dtype}(bits_{source}({x}))", accepts="number", result=_bitcast_type,
    numpy=lambda x, *, source, dtype: x.astype(source.numpy).view(dtype.numpy), grad="bits have no gradient",
    samples=[sample(real(3, 4, dtype="float32"), source=float32, dtype=int32),
             *(sample(integer(3, 4, low=0, high=100, dtype=s.name), source=s, dtype=d) for s, d in (
                 (int64, float64), (uint32, float32), (int16, float16), (uint16, bfloat16), (int8, uint8), (float16, uint16),
                 (bfloat16, int16), (float16, bfloat16), (uint64, int64)))],
    errors=[(sample(real(3, dtype="float32"), source=float32, dtype=float64), "the sizes of the dtypes differ"),
            (sample(real(3, dtype="float32"), source=int32, dtype=float32), "those of another dtype")],
)

# whole numbers ------------------------------------------------------------------------------------

WHOLE = "integers have no gradient"
DIVISIONS = [(integer(3, 4), integer(3, 4, low=1)),
             (integer(3, 4, dtype="int32"), integer(4, low=-5, high=0, dtype="int32"))]


def _guarded(numpy):
    def rule(x, y):
        x, y = np.broadcast_arrays(x, y)
        refuse(y == 0, "y", y, "integer division by zero")
        return numpy(x, y)
    return rule


floordiv_int = elementwise(
    "floordiv_int", "x y",
    doc="x / y of integers, rounded down. y = 0 is an error when it runs; the smallest integer by -1 wraps.",
    scalar="{x} // {y}", accepts="integer", cost=12,
    fails="{y} == 0", message="integer division by zero", culprit="y",
    numpy=_guarded(np.floor_divide), grad=WHOLE,
    samples=DIVISIONS,
)

floormod_int = elementwise(
    "floormod_int", "x y",
    doc="What x // y leaves over; it has the sign of y. y = 0 is an error when it runs.",
    scalar="{x} % {y}", accepts="integer", cost=12,
    fails="{y} == 0", message="integer division by zero", culprit="y",
    numpy=_guarded(np.remainder), grad=WHOLE,
    samples=DIVISIONS,
)


def _pow_int_numpy(x, y):
    x, y = np.broadcast_arrays(x, y)
    refuse(y < 0, "y", y, "integer to a negative power")
    return np.power(x, y)


pow_int = elementwise(
    "pow_int", "x y",
    doc="x to the power of y, of integers; too large values wrap. A negative y is an error when it runs.",
    scalar="pow({x}, {y})", accepts="integer", cost=60,
    fails="{y} < 0", message="integer to a negative power", culprit="y",
    numpy=_pow_int_numpy, grad=WHOLE,
    samples=[(integer(3, 4), integer(3, 4, low=0)), (integer(3, 1), integer(4, low=0, high=40))],
)


def _bits(name: str, text: str, numpy, doc: str, right=None) -> Op:
    return elementwise(
        name, "x y", doc=doc, scalar=text, accepts="integer", numpy=numpy, grad=WHOLE,
        samples=[(integer(3, 4), right or integer(3, 4)), (integer(3, 1), right or integer(3, 4))],
        errors=[(sample(real(3, dtype="float32"), real(3, dtype="float32")), "float32 is not accepted")],
    )


bitwise_and = _bits("bitwise_and", "{x} & {y}", np.bitwise_and, "The bits that both have.")
bitwise_or = _bits("bitwise_or", "{x} | {y}", np.bitwise_or, "The bits that one or both have.")
bitwise_xor = _bits("bitwise_xor", "{x} ^ {y}", np.bitwise_xor, "The bits that one has and not both.")
left_shift = _bits("left_shift", "{x} << {y}", np.left_shift, right=integer(3, 4, low=0, high=70),
                   doc="x moved left by y bits; 0 when y is negative or too large.")
right_shift = _bits("right_shift", "{x} >> {y}", np.right_shift, right=integer(3, 4, low=0, high=70),
                    doc="x moved right by y bits, keeping its sign; 0 or -1 when y is negative or too large.")

invert = elementwise(
    "invert", "x",
    doc="All bits of x turned round.",
    scalar="~{x}", accepts="integer",
    numpy=np.invert, grad=WHOLE,
    samples=[integer(3, 4), integer(), integer(0, 4)],
)

# checks -------------------------------------------------------------------------------------------


def _check_numerics_numpy(x, *, message):
    refuse(~np.isfinite(x), "x", x, f"{message}: the tensor has NaN or Inf values")
    return np.array(x)


check_numerics = elementwise(
    "check_numerics", "x", attrs={"message": REQUIRED},
    doc="x itself; NaN and infinite values are an error when it runs.",
    scalar="{x}", accepts="float",
    fails="~isfinite({x})", message="{message}: the tensor has NaN or Inf values", culprit="x",
    numpy=_check_numerics_numpy, grad=lambda dy, y, x, *, message: [dy],
    samples=[sample(real(3, 4), message="loss"), sample(real(0, 4), message="loss")],
)


def _in_range_numpy(x, low, high, *, message):
    refuse((x < low) | (x >= high), "x", x, message)
    return np.broadcast_arrays(x, low, high)[0].copy()


in_range = elementwise(
    "in_range", "x low high", attrs={"message": REQUIRED},
    doc="x itself; a value that is not in [low, high) is an error, `message`, when it runs.",
    scalar="{x}", accepts="integer", cost=4,
    fails="({x} < {low}) | ({x} >= {high})", message="{message}", culprit="x",
    numpy=_in_range_numpy, grad=WHOLE,
    samples=[sample(x, integer(low=0, high=1), integer(low=5, high=6), message="wrong label")
             for x in (integer(3, 4, low=0, high=5), integer(0, low=0, high=5))],
)
