"""`graphc.dtypes`: the dtypes, and what converts between them."""
# ruff: noqa: F401  (this file only hands names on)
from __future__ import annotations

from graphc.functions.math import cast, saturate_cast
from graphc.ir.types import (
    DType,
    as_dtype,
    bfloat16,
    double,
    float16,
    float32,
    float64,
    half,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from graphc.ir.types import bool_ as bool
