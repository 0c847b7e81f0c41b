"""Host ops that call Python while the graph runs: functions of the user's, what only looks on, and checks that tell values."""
from __future__ import annotations

import numpy as np

from graphc.errors import DTypeError, RuleError, RunError
from graphc.ir.dims import name
from graphc.ir.node import constant_array
from graphc.ir.op import REQUIRED, Host, Kind, Op, PythonFunction
from graphc.ir.types import TensorType, float32, int64
from graphc.ops.define import as_samples, sample
from graphc.ops.samples import boolean, integer, real

SUMMARIZED = 3  # elements of a tensor that are shown, as in TensorFlow 1


def summary(values, parts, summarize) -> str:
    """Texts and tensors in a line: `parts` holds a text, or None for the next of `values`."""
    rest = iter(values)
    return " ".join(_elements(next(rest), summarize) if part is None else part for part in parts)


def _elements(value, summarize) -> str:
    flat = np.asarray(value).ravel()
    limit = SUMMARIZED if summarize is None else len(flat) if summarize < 0 else summarize
    return f"[{' '.join(str(v) for v in flat[:limit])}{'...' if len(flat) > limit else ''}]"


def _callable(function):
    if not isinstance(function, PythonFunction):
        raise RunError(f"the Python function {function!r} is not part of the text that this graph was read from")
    return function.function


def _call_numpy(*inputs, function, types, dims):
    given = [np.array(i) for i in inputs]  # copies: the function may change or keep them
    found = _callable(function)(*given)
    if len(types) == 1 and not (isinstance(found, list | tuple) and len(found) == 1):
        found = (found,)
    elif not types:
        found = ()
    if len(found) != len(types):
        raise RunError(f"{function.name} gives {len(found)} results, not {len(types)}")
    try:
        return tuple(constant_array(f, t.dtype, function.name) for f, t in zip(found, types, strict=True))
    except DTypeError as e:
        raise RunError(str(e).splitlines()[0]) from None


python_call = Op(
    "python_call", Kind.HOST, ("*inputs",), attrs={"function": REQUIRED, "types": REQUIRED, "dims": ()},
    doc="What a Python function of the arrays gives: results of the `types`, whose new dims are `dims`.",
    infer=lambda *_, function, types, dims: tuple(types), numpy=_call_numpy, rule=Host(binds=("dims",), effect=True),
    grad="nobody knows the gradient of a Python function",
    samples=as_samples([
        sample(real(3, dtype="float32"), function=PythonFunction(lambda x: x[x > 0], "positive"),
               types=(TensorType(float32, (name("A"),)),), dims=(name("A"),)),
        sample(integer(2, 2, dtype="int64"), function=PythonFunction(lambda x: (x.sum(), x.sum(0)), "two"),
               types=(TensorType(int64, ()), TensorType(int64, (2,)))),
    ]),
    errors=((sample(real(3), function=PythonFunction(lambda x: 0.5, "half"), types=(TensorType(int64, ()),)),
             "half: 0.5 is not a value of int64"),
            (sample(real(3), function=PythonFunction(lambda x: (x, x), "twice"),
                    types=(TensorType(int64, ()),) * 3), "twice gives 2 results, not 3")),
)


def _watch_numpy(x, *data, function):
    _callable(function)(*(np.array(d) for d in data))
    return x


watch = Op(
    "watch", Kind.HOST, ("x", "*data"), attrs={"function": REQUIRED},
    doc="x itself; a Python function looks at `data` on the way.",
    infer=lambda x, *_, function: x, numpy=_watch_numpy, rule=Host(effect=True), nondiff=("data",),
    grad=lambda dy, y, x, *data, function: [dy, *[None] * len(data)],
    samples=as_samples([sample(real(3, 2), real(2, dtype="float64"), function=PythonFunction(lambda *_: None, "look"))]),
)


after: Op = Op(
    "after", Kind.HOST, ("x", "*needed"),
    doc="x itself, once `needed` has run: in the bodies of loops and branches, which give nothing but results.",
    infer=lambda x, *_: x, numpy=lambda x, *_: x, rule=Host(), nondiff=("needed",),
    grad=lambda dy, y, x, *needed: [after(dy, *needed), *[None] * len(needed)],
    samples=as_samples([sample(real(3, 2), real(2, dtype="float64"))]),
)


settle = Op(
    "settle", Kind.HOST, ("x",),
    doc="An operation that is done when `x` is known: a branch or a loop with effects runs although nobody takes its results.",
    infer=lambda x: (), numpy=lambda x: (), rule=Host(effect=True), grad="an operation has no value",
    samples=as_samples([real(2, dtype="float32")]),
)


def _require_type(condition, *_, parts, summarize):
    if not condition.dtype.is_bool:
        raise RuleError("the condition must be bool", f"it is {condition.dtype.name}", DTypeError)
    return ()


def _require_numpy(condition, *data, parts, summarize):
    if not np.all(condition):
        raise RunError(f"the assertion failed: {summary(data, parts, summarize)}".removesuffix(": "))
    return ()


require = Op(
    "require", Kind.HOST, ("condition", "*data"), attrs={"parts": (), "summarize": None},
    doc="An operation that fails, and shows `data` between the texts of `parts`, unless all of `condition` is true.",
    infer=_require_type, numpy=_require_numpy, rule=Host(effect=True), grad="an operation has no value",
    samples=as_samples([sample(boolean(0), real(3), parts=("x is", None))]),
    errors=((sample(real(3)), "the condition must be bool"),),
)
