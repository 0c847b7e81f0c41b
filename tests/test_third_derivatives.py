"""Third derivatives of every elementwise op, against central differences of the second, in float64 on the interpreter."""
import numpy as np
import pytest

from graphc.errors import RuleError
from graphc.ir.op import OPS, Kind
from graphc.ir.types import TensorType, as_dtype, float64
from graphc.testing import check_gradients

SMOOTH = sorted((op for op in OPS.values() if op.kind is Kind.ELEMENTWISE and callable(op.grad) and op.samples
                 and not op.rule.fails), key=lambda op: op.name)


@pytest.mark.parametrize("op", SMOOTH, ids=lambda op: op.name)
def test_third_derivatives(op):
    sample, rng = op.samples[0], np.random.default_rng(0)
    arrays = [s.array(rng, "float64") if s.kind == "real" and s.dtype is None else s.array(rng) for s in sample.inputs]
    try:
        result = op.infer(*(TensorType(as_dtype(a.dtype), a.shape) for a in arrays), **op.full_attrs(sample.attrs))
    except RuleError:
        pytest.skip("it takes no float64")
    if result.dtype != float64 or not any(a.dtype == np.float64 for a in arrays):
        pytest.skip("no way from float64 to float64")
    check_gradients(lambda *tensors: op(*tensors, **sample.attrs), *arrays, order=3)
