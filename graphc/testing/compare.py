"""When two values count as equal: the tolerances of CORRECTNESS.md as functions.

    integers, bools, moved elements, comparisons, largest and smallest   exact
    elementwise float functions                                          `ulp` units in the last place
    sums, products, contractions                                         (4 + log2(terms)) * eps * sum of absolute terms
"""
from __future__ import annotations

import math

import numpy as np

from graphc.ir.types import float_info, kind_of

ULP = 4.0


def assert_equal_values(got, want, ulp: float = 0.0, magnitude=None, terms: int = 1, what: str = "value") -> None:
    """Raise AssertionError unless `got` equals `want` in dtype, shape and values; NaN and Inf in the same places.

    ulp        allowed distance in units in the last place of `want`; 0 is exact. `want` may be wider than `got`
    (float64
               references of float32 values).
    magnitude  for sums: the sum of the absolute values of what was added, an array of want's shape or a number.
    terms      for sums: how many terms an element has.
    """
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, f"{what}: shape {got.shape} != {want.shape}"
    is_float = kind_of(got.dtype) == "f"
    assert got.dtype == want.dtype or is_float and kind_of(want.dtype) == "f", f"{what}: dtype {got.dtype} != {want.dtype}"
    if not is_float:
        _require(got == want, got, want, what, "exact")
        return
    with np.errstate(all="ignore"):
        finite = np.isfinite(got) & np.isfinite(want)
        rounded = want.astype(got.dtype)
        same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
        if magnitude is not None:
            bound = (4 + math.log2(max(terms, 1))) * float(float_info(got.dtype).eps) * np.asarray(magnitude, np.float64)
            close = finite & (np.abs(got.astype(np.float64) - want) <= bound)
            _require(same | close, got, want, what, f"a sum of {terms} terms")
        else:
            _require(same | finite & (ulp_distance(got, want) <= ulp), got, want, what, f"{ulp} ulp")


def ulp_distance(got, want) -> np.ndarray:
    """|got - want| in units in the last place of `want`, at got's precision; `want` may be wider."""
    got, want = np.asarray(got), np.asarray(want)
    wide = np.longdouble if want.dtype == np.longdouble or got.dtype == np.float64 else np.float64
    info = float_info(got.dtype)
    size = np.maximum(np.abs(want.astype(wide)), wide(float(info.tiny)))
    unit = np.ldexp(wide(1), np.frexp(size)[1] - 1 - info.nmant)
    return np.abs(got.astype(wide) - want.astype(wide)) / unit


def _require(fine, got, want, what: str, rule: str) -> None:
    if np.all(fine):
        return
    at = tuple(int(k) for k in np.argwhere(~np.atleast_1d(fine))[0]) if np.ndim(fine) else ()
    raise AssertionError(f"{what} at {list(at)}: {got[at]!r} != {want[at]!r} ({rule}); {int(np.sum(~fine))} of "
                         f"{np.size(got)} differ")
