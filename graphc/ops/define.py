"""Short forms for op records: one function for each kind, which supplies what all ops of that kind share."""
from __future__ import annotations

from collections.abc import Callable, Mapping

from graphc.errors import DTypeError, RuleError
from graphc.ir.op import Assemble, Batch, Contract, Elementwise, Kind, Move, Op, Reduce, Sample
from graphc.ir.types import DType, TensorType, broadcast_shapes
from graphc.ops.samples import Values

CLASSES: Mapping[str, Callable[[DType], bool]] = {
    "any": lambda d: True,
    "number": lambda d: not d.is_bool,
    "float": lambda d: d.is_floating,
    "single": lambda d: d.is_floating and d.size == 4,
    "integer": lambda d: d.is_integer,
    "signed": lambda d: d.is_floating or d.short[0] == "i",
    "bool": lambda d: d.is_bool,
    "bits": lambda d: d.is_integer or d.is_bool,
}


def as_samples(samples) -> tuple[Sample, ...]:
    """Bare specifications become samples with one input."""
    return tuple(s if isinstance(s, Sample) else Sample((s,) if isinstance(s, Values) else tuple(s)) for s in samples)


def sample(*inputs: Values, **attrs) -> Sample:
    """Inputs and attributes on which an op is tested."""
    return Sample(inputs, attrs)


def common_dtype(types, names, accepts: str, what: str = "dtypes differ") -> DType:
    """The one dtype of all `types`, which must be in the class `accepts`. Dtypes do not promote. Raises RuleError."""
    first = types[0].dtype
    for type_ in types:
        if type_.dtype != first:
            raise RuleError(what, f"{first} != {type_.dtype}", DTypeError, "graphc.cast(x, dtype) converts")
    if not CLASSES[accepts](first):
        raise RuleError(f"{first.name} is not accepted", f"it takes a dtype of the class {accepts!r}", DTypeError)
    return first


def elementwise(name: str, inputs: str, *, doc: str, scalar: str, numpy: Callable, grad, samples, accepts: str = "number",
                fixed: Mapping[str, DType] | None = None, result: DType | Callable | None = None, attrs=None, fails: str = "",
                message: str = "", culprit: str = "", cost: int = 1, ulp: float = 4.0, errors=(), nondiff=()) -> Op:
    """An op that computes each element by itself. Inputs broadcast; those not in `fixed` share one dtype of `accepts`.

    result: the dtype of the result (default: the shared one), or a function of (shared dtype, attrs).
    """
    names = tuple(inputs.split())
    fixed = fixed or {}

    def infer(*types, **attrs):
        free = [(t, n) for t, n in zip(types, names, strict=True) if n not in fixed]
        for t, n in zip(types, names, strict=True):
            if n in fixed and t.dtype != fixed[n]:
                raise RuleError(f"{n} must be {fixed[n].name}", f"{t.dtype} != {fixed[n]}", DTypeError)
        dtype = common_dtype([t for t, _ in free], [n for _, n in free], accepts) if free else fixed[names[0]]
        out = result(dtype, attrs) if callable(result) else result or dtype
        return TensorType(out, broadcast_shapes(*(t.shape for t in types)))
    return Op(name, Kind.ELEMENTWISE, names, infer=infer, numpy=numpy, grad=grad, doc=doc, attrs=attrs or {},
              rule=Elementwise(scalar, fails, message, culprit, cost, ulp), samples=as_samples(samples), errors=tuple(errors),
              nondiff=tuple(nondiff), batch=Batch(operands="broadcast"))


def behind(*names: str) -> Batch:
    """The op counts its axes in the attributes `names`; they move by one place."""
    def moved(value):
        return tuple(a + 1 for a in value) if isinstance(value, tuple) else value + 1
    return Batch(lambda rows, marks, attrs: {**attrs, **{name: moved(attrs[name]) for name in names}})


def without_axes(type_: TensorType, axes) -> tuple:
    """The shape without `axes`. Raises RuleError for an axis out of range or twice."""
    for axis in axes:
        if not 0 <= axis < type_.rank:
            raise RuleError("axis out of range", f"axis {axis} of rank {type_.rank}")
    if len(set(axes)) != len(axes):
        raise RuleError("an axis appears twice", f"axes {tuple(axes)}")
    return tuple(d for k, d in enumerate(type_.shape) if k not in axes)


def reduction(name: str, *, doc: str, combine: str, horizontal: str, init, numpy, grad, samples, accepts="number",
              result: DType | None = None, arg: str = "", errors=()) -> Op:
    """An op that combines elements along `axes`, a tuple of axes counted from 0; those axes disappear."""
    def infer(x, *, axes):
        dtype = common_dtype([x], ["x"], accepts)
        return TensorType(result or dtype, without_axes(x, axes))
    return Op(name, Kind.REDUCE, ("x",), infer=infer, numpy=numpy, grad=grad, doc=doc, attrs={"axes": ()},
              rule=Reduce(combine, horizontal, init, arg), samples=as_samples(samples), errors=tuple(errors),
              batch=behind("axes"))


def move(name: str, *, doc: str, infer, access, numpy, grad, attrs, samples, batch: Batch | None = None, errors=()) -> Op:
    """An op whose elements are elements of its input, found by an affine index map."""
    return Op(name, Kind.MOVE, ("x",), infer=infer, numpy=numpy, grad=grad, doc=doc, attrs=attrs, rule=Move(access),
              samples=as_samples(samples), errors=tuple(errors), batch=batch)


def assembly(name: str, inputs: str, *, doc: str, infer, parts, fill, numpy, grad, attrs, samples, batch: Batch | None = None,
             errors=()) -> Op:
    """An op that copies its inputs into parts of its result and fills the rest."""
    return Op(name, Kind.ASSEMBLE, tuple(inputs.split()), infer=infer, numpy=numpy, grad=grad, doc=doc, attrs=attrs,
              rule=Assemble(parts, fill), samples=as_samples(samples), errors=tuple(errors), batch=batch)


def contraction(name: str, inputs: str, *, doc: str, infer, labels, numpy, grad, attrs, samples,
                batch: Batch | None = None, errors=(), windows=lambda types, attrs: ()) -> Op:
    """A sum of products of two operands, as an einsum; `windows` make it a convolution."""
    return Op(name, Kind.CONTRACT, tuple(inputs.split()), infer=infer, numpy=numpy, grad=grad, doc=doc, attrs=attrs,
              rule=Contract(labels, windows), samples=as_samples(samples), errors=tuple(errors),
              batch=batch)
