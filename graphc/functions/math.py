"""Public elementwise functions, and what Python's operators do with tensors.

Arguments are tensors, variables, numbers or arrays; numbers and arrays take the dtype of the first tensor among the
arguments. Operands broadcast as in NumPy; dtypes do not promote. `name` names the result. All raise ShapeError and
DTypeError, with the operands and the user's line.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphc.errors import ArgumentError, DTypeError, report
from graphc.functions.selection import positions
from graphc.ir.node import OPERATORS, Node, as_node, dtype_of, is_tensor
from graphc.ir.op import Op
from graphc.ir.types import DType, as_dtype, bfloat16, float32, float64, int32, int64
from graphc.ops import activations, arithmetic, compare, composite, elementwise, transcendental
from graphc.ops.movement import reshape_to


def _of_one(op: Op, name: str = "") -> Callable[..., Node]:
    """The public function of an op with one input."""
    def function(x, name=None):
        return op(x, name=name)
    return _described(function, op, name)


def _of_two(op: Op, name: str = "") -> Callable[..., Node]:
    """The public function of an op with two inputs."""
    def function(x, y, name=None):
        return op(x, y, name=name)
    return _described(function, op, name)


def _described(function, op: Op, name: str):
    function.__name__ = function.__qualname__ = name or op.name
    function.__doc__ = op.doc
    return function


def _pair(x, y, what: str) -> tuple[Node, Node]:
    """Two operands as nodes; a number takes the other's dtype."""
    dtype = next((dtype_of(v) for v in (x, y) if is_tensor(v)), None)
    return as_node(x, dtype, what), as_node(y, dtype, what)


# arithmetic ------------------------------------------------------------------------------------------

add = _of_two(elementwise.add)
subtract = _of_two(elementwise.subtract)
multiply = _of_two(elementwise.multiply)
div_no_nan = _of_two(elementwise.div_no_nan)
maximum = _of_two(elementwise.maximum)
minimum = _of_two(elementwise.minimum)
negative = _of_one(elementwise.negative)
square = _of_one(elementwise.square)
abs = _of_one(elementwise.absolute)
sign = _of_one(compare.sign)


def truediv(x, y, name=None) -> Node:
    """x / y. Integers become floats first, as in TensorFlow: those of up to 16 bits float32, others float64."""
    x, y = _pair(x, y, "truediv")
    if x.dtype.is_integer and x.dtype == y.dtype:
        wide = float32 if x.dtype.size <= 2 else float64
        x, y = cast(x, wide), cast(y, wide)
    return elementwise.divide(x, y, name=name)


divide = truediv
realdiv = truediv


def floordiv(x, y, name=None) -> Node:
    """x / y rounded down. Of integers, y = 0 is an error when it runs."""
    x, y = _pair(x, y, "floordiv")
    return (compare.floordiv_int if x.dtype.is_integer else elementwise.floordiv)(x, y, name=name)


def div(x, y, name=None) -> Node:
    """x / y as in Python 2: rounded down for integers."""
    x, y = _pair(x, y, "div")
    return (floordiv if x.dtype.is_integer else truediv)(x, y, name=name)


def floormod(x, y, name=None) -> Node:
    """What floordiv leaves over, with the sign of y. Of integers, y = 0 is an error when it runs."""
    x, y = _pair(x, y, "floormod")
    return (compare.floormod_int if x.dtype.is_integer else elementwise.floormod)(x, y, name=name)


mod = floormod


def truncatediv(x, y, name=None) -> Node:
    """x / y of integers rounded toward 0, as in C. y = 0 is an error when it runs."""
    return composite.truncatediv(*_pair(x, y, "truncatediv"), name=name)


def pow(x, y, name=None) -> Node:
    """x to the power of y. Of integers, a negative y is an error: at once when it is a number, else when it runs."""
    exponent = y if isinstance(y, (int, float)) and not isinstance(y, bool) else None
    x, y = _pair(x, y, "pow")
    if exponent == 2:
        return elementwise.square(x, name=name)
    if not x.dtype.is_integer:
        return elementwise.pow(x, y, name=name)
    if exponent is not None and exponent < 0:
        raise report(ArgumentError, "pow: integer to a negative power", [("x", x.describe())], f"y = {exponent}")
    return compare.pow_int(x, y, name=name) if exponent is None else identity(_whole_power(x, int(exponent)), name=name)


def _whole_power(x: Node, exponent: int) -> Node:
    """x ** exponent by squaring: few products, which wrap as one power would."""
    if exponent == 0:
        return composite.ones_like(x)
    if exponent == 1:
        return x
    half = _whole_power(x, exponent // 2)
    return half * half * x if exponent % 2 else half * half


reciprocal = _of_one(arithmetic.reciprocal)
reciprocal_no_nan = _of_one(arithmetic.reciprocal_no_nan)
squared_difference = _of_two(arithmetic.squared_difference)
multiply_no_nan = _of_two(arithmetic.multiply_no_nan)


def nextafter(x1, x2, name=None) -> Node:
    """The number next to x1 on the way to x2, of float32 or float64."""
    x1, x2 = _pair(x1, x2, "nextafter")
    return arithmetic.nextafter(x1, x2, dtype=x1.dtype, name=name)


def approximate_equal(x, y, tolerance=1e-05, name=None) -> Node:
    """Whether |x - y| < tolerance, element by element."""
    return arithmetic.approximate_equal(x, y, tolerance=float(tolerance), name=name)


def add_n(inputs, name=None) -> Node:
    """The sum of a list of tensors of one shape and dtype, from the first to the last.

    Raises ArgumentError for an empty list and ShapeError for differing shapes.
    """
    tensors = [as_node(t) for t in (inputs if isinstance(inputs, (list, tuple)) else [inputs])]
    if not tensors:
        raise report(ArgumentError, "add_n: the list of tensors is empty")
    for tensor in tensors[1:]:
        composite.require_same_shape("add_n", first=tensors[0], other=tensor)
    total = tensors[0]
    for tensor in tensors[1:-1]:
        total = elementwise.add(total, tensor)
    return elementwise.add(total, tensors[-1], name=name) if len(tensors) > 1 else identity(total, name=name)


accumulate_n = add_n

# roots, exponentials, angles -------------------------------------------------------------------------

sqrt = _of_one(elementwise.sqrt)
rsqrt = _of_one(elementwise.rsqrt)
exp = _of_one(transcendental.exp)
expm1 = _of_one(transcendental.expm1)
log = _of_one(transcendental.log)
log1p = _of_one(transcendental.log1p)
exp2, log2, log10 = _of_one(transcendental.exp2), _of_one(transcendental.log2), _of_one(transcendental.log10)
xlogy = _of_two(transcendental.xlogy)
xdivy = _of_two(transcendental.xdivy)
sin = _of_one(transcendental.sin)
cos = _of_one(transcendental.cos)
tan = _of_one(transcendental.tan)
asin = _of_one(transcendental.asin)
acos = _of_one(transcendental.acos)
atan = _of_one(transcendental.atan)
sinh = _of_one(transcendental.sinh)
cosh = _of_one(transcendental.cosh)
tanh = _of_one(transcendental.tanh)
asinh = _of_one(transcendental.asinh)
acosh = _of_one(transcendental.acosh)
atanh = _of_one(transcendental.atanh)
erf = _of_one(transcendental.erf)
erfc = _of_one(transcendental.erfc)
sigmoid = _of_one(transcendental.sigmoid)
log_sigmoid = _of_one(activations.log_sigmoid)
logaddexp = _of_two(activations.logaddexp)


def atan2(y, x, name=None) -> Node:
    """The angle of the point (x, y), in [-pi, pi]."""
    return transcendental.atan2(y, x, name=name)


# rounding --------------------------------------------------------------------------------------------

floor = _of_one(compare.floor)
ceil = _of_one(compare.ceil)
rint = _of_one(compare.rint)
trunc = _of_one(compare.trunc)


def round(x, name=None) -> Node:
    """The nearest whole number; of two, the even one. Integers stay."""
    x = as_node(x)
    return identity(x, name=name) if x.dtype.is_integer else compare.rint(x, name=name)


# comparisons, logic, choice --------------------------------------------------------------------------

equal = _of_two(compare.equal)
not_equal = _of_two(compare.not_equal)
less = _of_two(compare.less)
less_equal = _of_two(compare.less_equal)
greater = _of_two(compare.greater)
greater_equal = _of_two(compare.greater_equal)
logical_and = _of_two(compare.logical_and)
logical_or = _of_two(compare.logical_or)
logical_xor = _of_two(compare.logical_xor)
logical_not = _of_one(compare.logical_not)
is_nan = _of_one(compare.isnan, "is_nan")
is_inf = _of_one(compare.isinf, "is_inf")
is_finite = _of_one(compare.isfinite, "is_finite")


def where(condition, x=None, y=None, name=None) -> Node:
    """x where `condition` (bool) is true, y elsewhere.

    As in TensorFlow 1, a condition of rank 1 picks rows of an x of higher rank; otherwise all three broadcast. Where a
    side is NaN or infinite in value or slope although not taken, its gradient may be NaN: see `safe_where`.
    Without x and y: the coordinates of the true elements, in order, int64 of shape (how many, rank).
    """
    if x is None and y is None:
        return positions(condition, name)
    if x is None or y is None:
        raise report(ArgumentError, "where: it takes x and y, or neither")
    condition = as_node(condition)
    x, y = _pair(x, y, "where")
    rank = max(x.type.rank, y.type.rank)
    if condition.type.rank == 1 and rank > 1:
        condition = reshape_to(condition, shape=(*condition.type.shape, *[1] * (rank - 1)))
    return compare.select(condition, x, y, name=name)


def where_v2(condition, x=None, y=None, name=None) -> Node:
    """x where `condition` (bool) is true, y elsewhere; all three broadcast as in NumPy. Without x and y: see `where`."""
    if x is None or y is None:
        return where(condition, x, y, name)
    return compare.select(condition, *_pair(x, y, "where"), name=name)


def safe_where(condition, function: Callable[[Node], Node], x, otherwise, safe=1, name=None) -> Node:
    """function(x) where `condition` is true, `otherwise` elsewhere, with gradient 0 there whatever the function does.

    The function is given `safe` in place of x where the condition is false, so that neither its value nor its slope can
    be NaN: `safe_where(x > 0, lambda v: 1 / v, x, 0)` has gradient 0 at x = 0, where `where(x > 0, 1 / x, 0)` has NaN.
    """
    x = as_node(x)
    return compare.where(condition, function(compare.where(condition, x, safe)), otherwise, name=name)


def clip_by_value(t, clip_value_min, clip_value_max, name=None) -> Node:
    """t, but at least `clip_value_min` and at most `clip_value_max`. NaN stays. The gradient at an edge goes to t.

    Raises ArgumentError when both bounds are constants and the lower is above the upper; where that shows only when it
    runs, the result is the lower one.
    """
    t = as_node(t)
    low, high = (as_node(v, t.dtype, "clip_by_value") for v in (clip_value_min, clip_value_max))
    known = [elementwise.constant_value(v) for v in (low, high)]
    if known[0] is not None and known[1] is not None and np.any(known[0] > known[1]):
        raise report(ArgumentError, "clip_by_value: the lower bound is above the upper one",
                     [("t", t.describe())], f"{known[0]} > {known[1]}")
    return elementwise.clip(t, low, high, name=name)


# casts -----------------------------------------------------------------------------------------------


def cast(x, dtype, name=None) -> Node:
    """x as another dtype; x itself when it has that dtype.

    Fractions are cut off; floats out of an integer's range become the nearest value, NaN 0; integers too large for a
    smaller dtype wrap; anything but 0 is True. A gradient flows from floats to floats only.
    """
    x, dtype = as_node(x), as_dtype(dtype)
    return x if x.dtype == dtype and name is None else compare.cast(x, dtype=dtype, name=name)


def _to(dtype: DType):
    def function(x, name=None):
        return cast(x, dtype, name)
    function.__name__ = function.__qualname__ = f"to_{dtype.name}"
    function.__doc__ = f"x as {dtype.name}: see `cast`."
    return function


to_float, to_double, to_int32, to_int64 = _to(float32), _to(float64), _to(int32), _to(int64)
to_bfloat16 = _to(bfloat16)


def saturate_cast(value, dtype, name=None) -> Node:
    """`cast` that brings integers, and floats that would become infinite, to the nearest value in range, too."""
    value, dtype = as_node(value), as_dtype(dtype)
    same_kind = value.dtype.is_integer and dtype.is_integer or value.dtype.is_floating and dtype.is_floating
    if same_kind and value.dtype != dtype:
        (own_low, own_high), (low, high) = value.dtype.limits, dtype.limits
        if own_low < low or own_high > high:
            value = elementwise.clip(value, max(own_low, low), min(own_high, high))
    return cast(value, dtype, name)


def bitcast(input, type, name=None) -> Node:
    """The bits of `input` as another dtype. Unequal sizes change the last axis, as in TensorFlow: they are not supported."""
    x = as_node(input)
    return compare.bitcast(x, source=x.dtype, dtype=as_dtype(type), name=name)


# bits ------------------------------------------------------------------------------------------------

bitwise_and = _of_two(compare.bitwise_and)
bitwise_or = _of_two(compare.bitwise_or)
bitwise_xor = _of_two(compare.bitwise_xor)
left_shift = _of_two(compare.left_shift)
right_shift = _of_two(compare.right_shift)
invert = _of_one(compare.invert)
population_count = _of_one(arithmetic.population_count)

# x itself --------------------------------------------------------------------------------------------


def identity(input, name=None) -> Node:
    """`input` itself, under another name."""
    return elementwise.identity(input, name=name)


def stop_gradient(input, name=None) -> Node:
    """`input` itself; gradients take it for a constant."""
    return elementwise.stop_gradient(input, name=name)


def check_numerics(tensor, message, name=None) -> Node:
    """`tensor` itself; a NaN or infinite value is a RunError, which says `message`, when it runs."""
    return compare.check_numerics(tensor, message=str(message), name=name)


# norms of lists --------------------------------------------------------------------------------------


def global_norm(t_list, name=None) -> Node:
    """The euclidean norm of all elements of all tensors of a list; None entries do not count."""
    present = [as_node(t) for t in t_list if t is not None]
    if not present:
        raise report(ArgumentError, "global_norm: the list has no tensor")
    dtype = present[0].dtype
    if dtype.arithmetic is not dtype:  # the squares of gradients are often too large or too small for 16 bits
        return cast(global_norm([cast(t, dtype.arithmetic) for t in present]), dtype, name)
    squares = [composite.reduce_sum(elementwise.square(t), axes=tuple(range(t.type.rank))) for t in present]
    return composite.root(add_n(squares), name=name)


def clip_by_global_norm(t_list, clip_norm, use_norm=None, name=None) -> tuple[list, Node]:
    """(the tensors scaled so that their global norm is at most `clip_norm`, the global norm before).

    None entries stay None. An infinite or NaN norm makes all of them NaN, as in TensorFlow.
    """
    norm = global_norm(t_list) if use_norm is None else as_node(use_norm)
    bound = as_node(clip_norm, norm.dtype)
    scale = bound * elementwise.minimum(1 / norm, 1 / bound) + (norm - norm)
    return [None if t is None else elementwise.multiply(t, scale) for t in t_list], norm


def clip_by_norm(t, clip_norm, axes=None, name=None) -> Node:
    """t scaled so that its euclidean norm over `axes` (default: all) is at most `clip_norm`. 0 stays 0."""
    t = as_node(t)
    found = composite.axes_of(t, axes, "clip_by_norm")
    norm = composite.keep(composite.norm(t, found), t.type.shape, found)
    return elementwise.multiply(t, clip_norm / elementwise.maximum(norm, clip_norm), name=name)


def clip_by_average_norm(t, clip_norm, name=None) -> Node:
    """t scaled so that its euclidean norm by the number of its elements is at most `clip_norm`. 0 stays 0."""
    t = as_node(t)
    axes = tuple(range(t.type.rank))
    average = composite.norm(t, axes) / composite.count(t, axes, t.dtype)
    return elementwise.multiply(t, clip_norm / elementwise.maximum(average, clip_norm), name=name)


# Python's operators ----------------------------------------------------------------------------------


def _by_dtype(symbol: str, for_bool: Callable, for_int: Callable):
    def operator(x, y):
        x, y = _pair(x, y, symbol)
        if x.dtype.is_floating:
            raise report(DTypeError, f"the operator {symbol}: {x.dtype.name} is not accepted",
                         [("x", x.describe()), ("y", y.describe())], "it takes bools, or integers for their bits")
        return (for_bool if x.dtype.is_bool else for_int)(x, y)
    return operator


def _inverted(x):
    return (logical_not if as_node(x).dtype.is_bool else invert)(x)


# `==` is not among them: it compares identity, as in TensorFlow 1; use `equal`.
OPERATORS.update({
    "+": add, "-": subtract, "*": multiply, "/": truediv, "//": floordiv, "%": floormod, "**": pow,
    "&": _by_dtype("&", logical_and, bitwise_and), "|": _by_dtype("|", logical_or, bitwise_or),
    "^": _by_dtype("^", logical_xor, bitwise_xor), "~": _inverted,
    "<": less, "<=": less_equal, ">": greater, ">=": greater_equal, "neg": negative, "abs": abs,
})
