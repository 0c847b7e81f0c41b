"""What a kernel's source calls by name as Numba intrinsics, for Numba's front end (`GRAPHC_FRONT_END=numba`)."""
from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from graphc.codegen.cpu.glue import INT, Code
from graphc.codegen.cpu.simd import DTYPES


class Simd(types.Type):
    """A vector of `lanes` elements of one dtype in a register."""

    def __init__(self, dtype: str, lanes: int):
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"simd_{dtype}x{lanes}")


@register_model(Simd)
class _SimdModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.VectorType(DTYPES[kind.dtype].register, kind.lanes))


def as_intrinsic(code: Code, lanes: int):
    """The intrinsic that emits this code. One result: the value; several: a tuple; none: None."""
    results = [types.intp if kind == INT else Simd(kind, lanes) for kind in code.results]
    returned = types.void if not results else results[0] if len(results) == 1 else types.Tuple(results)

    def definition(_, *kinds):
        def codegen(context, builder, signature, values):
            found = code.emit(builder, [k.dtype if isinstance(k, Simd) else INT for k in signature.args], values)
            if not found:
                return context.get_dummy_value()
            return found[0] if len(found) == 1 else context.make_tuple(builder, signature.return_type, found)
        return returned(*(k if isinstance(k, Simd) else types.intp for k in kinds)), codegen
    return intrinsic(definition)
