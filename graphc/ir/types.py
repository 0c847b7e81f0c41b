"""Dtypes and tensor types."""
from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphc.errors import ArgumentError, DTypeError, RuleError, report
from graphc.ir import dims
from graphc.ir.dims import Dim, Size
from graphc.records import record


@record(frozen=True, eq=False)
class DType:
    """A dtype: `name` as TensorFlow and NumPy spell it, `short` as the text form does.

    Equal to whatever names the same dtype: a DType, a NumPy dtype or type, a word.
    """

    name: str
    short: str

    @property
    def numpy(self) -> np.dtype:
        """The dtype of arrays; that of bfloat16 is from the package ml_dtypes, imported when it is first needed."""
        if self.name == "bfloat16":
            from ml_dtypes import bfloat16 as scalar
            return np.dtype(scalar)
        return np.dtype(self.name)

    kind = property(lambda self: self.short.rstrip("0123456789"))  # f, bf, i, u or bool
    as_numpy_dtype = property(lambda self: self.numpy.type)
    size = property(lambda self: 1 if self.is_bool else int(self.short[len(self.kind):]) // 8)
    is_floating = property(lambda self: self.kind in ("f", "bf"))
    is_integer = property(lambda self: self.kind in ("i", "u"))
    is_unsigned = property(lambda self: self.kind == "u")
    is_bool = property(lambda self: self.short == "bool")
    is_complex = is_quantized = property(lambda self: False)
    is_numpy_compatible = property(lambda self: True)
    base_dtype = real_dtype = property(lambda self: self)

    @property
    def arithmetic(self) -> DType:
        """The dtype that this one is computed in: float32 for float16 and bfloat16, which are ways to store numbers."""
        return float32 if self.is_floating and self.size == 2 else self

    @property
    def min(self):
        """The smallest finite value. Raises DTypeError for bool."""
        return self._limit("min")

    @property
    def max(self):
        """The largest finite value. Raises DTypeError for bool."""
        return self._limit("max")

    @property
    def limits(self) -> tuple:
        """(min, max)."""
        return self.min, self.max

    def _limit(self, which: str):
        if self.is_bool:
            raise report(DTypeError, f"bool has no {which}imum")
        if self.is_integer:
            return int(getattr(np.iinfo(self.numpy), which))
        return getattr(float_info(self.numpy), which)

    def is_compatible_with(self, other) -> bool:
        """Whether `other` names this dtype."""
        return self == other

    def __eq__(self, other) -> bool:
        if isinstance(other, DType):
            return self.name == other.name
        return isinstance(other, str | type | np.dtype) and _find(other) is self

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.short

    def __repr__(self) -> str:
        return f"graphc.{self.name}"


float16, bfloat16 = DType("float16", "f16"), DType("bfloat16", "bf16")
float32, float64 = DType("float32", "f32"), DType("float64", "f64")
int8, int16, int32, int64 = (DType(f"int{bits}", f"i{bits}") for bits in (8, 16, 32, 64))
uint8, uint16, uint32, uint64 = (DType(f"uint{bits}", f"u{bits}") for bits in (8, 16, 32, 64))
bool_ = DType("bool", "bool")
half, double = float16, float64
DTYPES = (float32, float64, int32, int64, uint8, bool_, float16, bfloat16, int8, int16, uint16, uint32, uint64)
BY_SHORT = {d.short: d for d in DTYPES}
_BY_NAME = {d.name: d for d in DTYPES} | BY_SHORT | {"half": float16, "float": float32, "double": float64, "int": int32}


def _find(value) -> DType | None:
    if isinstance(value, DType):
        return value
    if value is float:
        return float32
    if value is int:
        return int32
    found = _BY_NAME.get(value) if isinstance(value, str) else None
    if found is None:
        try:
            found = _BY_NAME.get(np.dtype(value).name)
        except (TypeError, ValueError):
            return None
    return found


def as_dtype(value) -> DType:
    """The dtype that `value` names: a DType, a NumPy dtype or type, or a word such as "float32", "half" or "bf16"."""
    found = None if value is None else _find(value)
    if found is None:
        known = ", ".join(d.name for d in DTYPES)
        raise report(DTypeError, f"{value!r} is not a dtype of graphc", rule=f"the dtypes are {known}")
    return found


def kind_of(dtype: np.dtype) -> str:
    """`dtype.kind`, but "f" for bfloat16, which NumPy takes for raw bytes."""
    return "f" if dtype.name == "bfloat16" else dtype.kind


def whole_numbers(value, array: np.ndarray) -> np.ndarray:
    """`array`, which NumPy made of `value`, without the detour through float64 that it takes where some numbers fit int64 alone
    and others uint64 alone. Of dtype object where 64 bits are too few.
    """
    exact = np.asarray(value, object)
    if not all(isinstance(v, int | np.integer) for v in exact.flat):
        return array
    low, high = min(exact.flat, default=0), max(exact.flat, default=0)
    if -2**63 <= low <= high < 2**63:
        return exact.astype(np.int64)
    return exact.astype(np.uint64) if low >= 0 and high < 2**64 else exact


def float_info(dtype: np.dtype):
    """`np.finfo`, for bfloat16 too."""
    if dtype.name == "bfloat16":
        from ml_dtypes import finfo
        return finfo(dtype)
    return np.finfo(dtype)


@record(frozen=True)
class TensorType:
    """The type of a tensor: dtype and shape. Dims are ints, names, or expressions of names."""

    dtype: DType
    shape: tuple[Size, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def elements(self) -> Size:
        return dims.product(self.shape)

    @property
    def bytes(self) -> Size:
        return self.elements * self.dtype.size

    @property
    def is_static(self) -> bool:
        return all(isinstance(d, int) for d in self.shape)

    def with_shape(self, shape) -> TensorType:
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def substitute(self, env: Mapping[str, Size]) -> TensorType:
        """This type with dims replaced as `env` says."""
        if self.is_static:
            return self
        return TensorType(self.dtype, tuple(dims.substitute(d, env) for d in self.shape))

    def __str__(self) -> str:
        return f"{self.dtype}[{shape_text(self.shape)}]"


Type = TensorType | tuple  # a tuple of types for an op with several results; () for one without a value


def shape_text(shape) -> str:
    """`N,784`: how the text form spells a shape, without brackets."""
    return ",".join(str(d) for d in shape)


def type_text(type_: Type) -> str:
    """How the text form spells a type."""
    return "(" + ", ".join(str(t) for t in type_) + ")" if isinstance(type_, tuple) else str(type_)


MAX_ELEMENTS = 2 ** 48


def as_shape(value, fresh=None) -> tuple[Size, ...]:
    """A shape from what users write: an int, or a sequence of ints, names and None (which calls `fresh()`).

    Raises ArgumentError for negative sizes, for too many elements, and for None where `fresh` is not given.
    """
    if isinstance(value, (int, np.integer, str, Dim)) or value is None:
        value = (value,)
    shape = tuple(_as_dim(d, value, fresh) for d in value)
    count = 1
    for d in shape:
        count *= d if isinstance(d, int) else 1
    if count > MAX_ELEMENTS:
        raise report(ArgumentError, f"shape [{shape_text(shape)}]: too many elements",
                     rule=f"{count} elements are more than any machine holds")
    return shape


def _as_dim(d, shape, fresh) -> Size:
    d = getattr(d, "value", d) if type(d).__name__ == "Dimension" else d
    if d is None and fresh is not None:
        return fresh()
    if isinstance(d, Dim):
        return d
    if isinstance(d, str):
        try:
            return dims.parse(d)
        except ValueError:
            raise report(ArgumentError, f"shape {list(shape)}: {d!r} is not a dim",
                         rule="a dim is a number, a name such as \"N\", or an expression such as \"2*N+1\"") from None
    try:
        size = int(np.asarray(d).astype(np.int64, casting="same_kind"))
    except (TypeError, ValueError):
        raise report(ArgumentError, f"shape {list(shape)}: {d!r} is not a size") from None
    if size < 0:
        raise report(ArgumentError, f"shape {list(shape)}: the dim {size} is negative", rule="a dim is at least 0")
    return size


class Equations:
    """Collects the equations between dims that type rules assume (`N == M`), while it is the active collector."""

    active: list[Equations] = []

    def __init__(self):
        self.found: list[tuple[Size, Size]] = []

    def __enter__(self):
        Equations.active.append(self)
        return self

    def __exit__(self, *_):
        Equations.active.pop()


def same_dim(a: Size, b: Size, what: str) -> Size:
    """The one dim that `a` and `b` both must be; records the equation when only a run can tell. Raises RuleError."""
    if a == b:
        return a
    if isinstance(a, int) and isinstance(b, int) or isinstance(a - b, int):
        raise RuleError(what, f"{a} != {b}")
    if Equations.active:
        Equations.active[-1].found.append((a, b))
    return b if isinstance(b, int) else a


def broadcast_shapes(*shapes: tuple[Size, ...]) -> tuple[Size, ...]:
    """NumPy broadcasting; an unknown dim never broadcasts as 1, only a literal 1 does. Raises RuleError."""
    rank = max((len(s) for s in shapes), default=0)
    result: list[Size] = []
    for axis in range(rank):
        found: Size = 1
        for shape in shapes:
            at = axis - rank + len(shape)
            if at >= 0 and shape[at] != 1:
                found = shape[at] if found == 1 else same_dim(found, shape[at], "shapes do not broadcast")
        result.append(found)
    return tuple(result)


def same_shape(a: tuple[Size, ...], b: tuple[Size, ...], what: str) -> tuple[Size, ...]:
    """The one shape that both must be. Raises RuleError."""
    if len(a) != len(b):
        raise RuleError(what, f"[{shape_text(a)}] != [{shape_text(b)}]")
    return tuple(same_dim(x, y, what) for x, y in zip(a, b, strict=True))
