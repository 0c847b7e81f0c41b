"""Indices: values that are computed from coordinates and sizes alone; no memory is read."""
from __future__ import annotations

import numpy as np

from graphc.errors import DTypeError, RuleError
from graphc.ir.op import REQUIRED, Index, Kind, Op
from graphc.ir.types import TensorType, int64
from graphc.ops.define import as_samples, sample


def _iota_type(*, shape, axis, dtype):
    if dtype.is_bool:
        raise RuleError("bool does not count", error=DTypeError)
    if not 0 <= axis < len(shape):
        raise RuleError("axis out of range", f"axis {axis} of rank {len(shape)}")
    return TensorType(dtype, tuple(shape))


def _iota_numpy(*, shape, axis, dtype):
    along = np.arange(shape[axis]).astype(dtype.numpy).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return np.broadcast_to(along, shape)


iota = Op(
    "iota", Kind.INDEX, (), attrs={"shape": REQUIRED, "axis": 0, "dtype": int64},
    doc="Each element is its own coordinate along `axis`: 0, 1, 2, ...",
    infer=_iota_type,
    rule=Index(lambda type_, attrs: (0, tuple(int(a == attrs["axis"]) for a in range(type_.rank)))),
    numpy=_iota_numpy,
    grad="coordinates depend on no input",
    samples=as_samples([sample(shape=(5,), axis=0), sample(shape=(2, 3, 4), axis=1), sample(shape=(0, 3), axis=1)]),
    errors=((sample(shape=(2, 3), axis=2), "axis out of range"),),
)

dim_value = Op(
    "dim_value", Kind.INDEX, (), attrs={"dim": REQUIRED},
    doc="The size `dim`, a number or an expression of named dims, as an int64 of rank 0.",
    infer=lambda *, dim: TensorType(int64, ()),
    rule=Index(lambda type_, attrs: (attrs["dim"], ())),
    numpy=lambda *, dim: np.int64(dim),
    grad="a size depends on no input's values",
    samples=as_samples([sample(dim=7)]),
)
