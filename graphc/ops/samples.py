"""Specifications of random inputs, from which the generic tests make arrays."""
from __future__ import annotations

import numpy as np

from graphc.ir.types import as_dtype
from graphc.records import record


@record(frozen=True)
class Values:
    """Random values of a shape: `kind` "real" in [low, high), "integer" in [low, high), "boolean", "definite" matrices,
    "ordered" (real, growing along the last axis) or "permutation" (of 0, 1, ...).

    `dtype` None lets the test choose among the dtypes that the op accepts. `distinct` forbids ties. `named` axes may be
    replaced by named dims in tests (default: the first).
    """

    shape: tuple[int, ...]
    kind: str = "real"
    low: float = -2.0
    high: float = 2.0
    dtype: str | None = None
    distinct: bool = False

    def array(self, rng: np.random.Generator, dtype: str | None = None) -> np.ndarray:
        """An array as specified, of `dtype` when the specification leaves it open (default float64, int64)."""
        if self.kind == "boolean":
            return rng.integers(0, 2, self.shape).astype(bool)
        if self.kind == "integer":
            whole = rng.integers(int(self.low), int(self.high), self.shape)
            return whole.astype(as_dtype(self.dtype or dtype or "int64").numpy)
        if self.kind == "permutation":
            return rng.permutation(self.shape[0]).astype(as_dtype(self.dtype or dtype or "int64").numpy)
        values = rng.uniform(self.low, self.high, self.shape)
        if self.kind == "definite" and self.shape[-2:-1] == self.shape[-1:]:
            values = values @ np.swapaxes(values, -1, -2) + np.eye(self.shape[-1])
        if self.kind == "ordered":
            values = np.sort(values)
        if self.distinct and values.size:
            ranks = np.argsort(np.argsort(values.ravel())).reshape(self.shape)
            values = self.low + (ranks + 0.5) * (self.high - self.low) / values.size
        return np.asarray(values, dtype=as_dtype(self.dtype or dtype or "float64").numpy)


def real(*shape: int, low: float = -2.0, high: float = 2.0, distinct: bool = False, dtype: str | None = None) -> Values:
    """Real numbers in [low, high)."""
    return Values(shape, "real", low, high, dtype, distinct)


def positive(*shape: int) -> Values:
    """Real numbers in [0.1, 3)."""
    return Values(shape, "real", 0.1, 3.0)


def integer(*shape: int, low: int = -5, high: int = 6, dtype: str | None = None) -> Values:
    """Whole numbers in [low, high)."""
    return Values(shape, "integer", low, high, dtype)


def boolean(*shape: int) -> Values:
    """True and False."""
    return Values(shape, "boolean", dtype="bool")


def definite(*shape: int) -> Values:
    """Symmetric positive definite matrices."""
    return Values(shape, "definite")


def ordered(*shape: int, dtype: str = "float32") -> Values:
    """Real numbers in [-2, 2) that grow along the last axis."""
    return Values(shape, "ordered", dtype=dtype)


def permutation(size: int, dtype: str = "int32") -> Values:
    """0, 1, ... size - 1 in any order."""
    return Values((size,), "permutation", dtype=dtype)
