"""Variables: reads and writes. A run is a transaction (DESIGN 4); `resolve_state` makes its dataflow explicit."""
from __future__ import annotations

from graphc.errors import DTypeError, RuleError
from graphc.ir.op import Effect, Kind, Op
from graphc.ir.types import same_shape


def _written_type(variable, value):
    if variable.dtype != value.dtype:
        raise RuleError("dtypes differ", f"{variable.dtype} != {value.dtype}", DTypeError, "graphc.cast(x, dtype) converts")
    same_shape(variable.shape, value.shape, "the value has another shape than the variable")
    return variable


def _effect(name: str, action: str, doc: str, inputs: str = "variable value", infer=_written_type,
            numpy=lambda variable, value: value, grad="a write is not differentiated: it happens after the run") -> Op:
    return Op(name, Kind.EFFECT, tuple(inputs.split()), infer=infer, numpy=numpy, grad=grad, doc=doc, rule=Effect(action))


read = _effect("read", "read", "The value of a variable.", "variable", infer=lambda variable: variable,
               numpy=lambda variable: variable, grad=lambda dy, y, variable: [dy])
assign = _effect("assign", "assign", "Give a variable a value at the end of the run; the result is that value.")
assign_add = _effect("assign_add", "add", "Add to a variable at the end of the run; the result is the sum.",
                     numpy=lambda variable, value: variable + value)
assign_sub = _effect("assign_sub", "sub", "Subtract from a variable at the end of the run; the result is the difference.",
                     numpy=lambda variable, value: variable - value)
write = _effect("write", "write", "The new state of a variable: an output of a pure graph.")
