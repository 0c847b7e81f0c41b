"""Reductions: elements combined along axes."""
from __future__ import annotations

import numpy as np

from graphc.ops.define import reduction, sample
from graphc.ops.movement import expand
from graphc.ops.samples import real

reduce_sum = reduction(
    "reduce_sum",
    doc="Sum over `axes`; those axes disappear. Of nothing: 0.",
    combine="{acc} + {x}", horizontal="horizontal_add", init=lambda dtype: 0,
    numpy=lambda x, *, axes: np.sum(x, axis=axes, dtype=x.dtype),
    grad=lambda dy, y, x, *, axes: [expand(dy, x.shape, axes)],
    samples=[sample(real(3, 4), axes=(0,)), sample(real(3, 4), axes=(1,)), sample(real(3, 4), axes=(0, 1)),
             sample(real(2, 3, 4), axes=(1,)), sample(real(2, 3, 4), axes=(0, 2)), sample(real(0, 4), axes=(0,))],
)
