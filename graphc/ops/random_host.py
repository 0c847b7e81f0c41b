"""Random numbers whose number of attempts nothing bounds, by the host.

Numbers come from the same counters as those of `graphc.ops.random`; the fourth word of a counter counts attempts. So each
element is a pure function of seeds, run and its place, on every device.
"""
from __future__ import annotations

import math

import numpy as np

from graphc.errors import RuleError
from graphc.ir.op import REQUIRED, Host, Kind, Op
from graphc.ir.types import TensorType, int64
from graphc.ops.define import as_samples, sample
from graphc.ops.random import philox

SEEDS = {"seed": REQUIRED, "op_seed": REQUIRED}
NO_GRADIENT = "random numbers that are accepted or rejected jump when the parameters change"


class Draws:
    """The uniform and normal numbers of attempt after attempt, one block of words for each element."""

    def __init__(self, shape: tuple[int, ...], run: int, seed: int, op_seed: int):
        element = np.arange(math.prod(shape), dtype=np.uint64).reshape(shape)
        self.place = (element & np.uint64(0xFFFFFFFF)).astype(np.uint32), (element >> np.uint64(32)).astype(np.uint32)
        self.run, self.key = int(run) & 0xFFFFFFFF, (seed, op_seed)

    def pair(self, attempt: int):
        """Two arrays of uniform numbers in (0, 1)."""
        words = philox((*self.place, self.run, attempt), self.key)
        return tuple(((words[k].astype(np.uint64) << np.uint64(20) | words[k + 1].astype(np.uint64) >> np.uint64(12))
                      .astype(np.float64) + 0.5) * 2.0**-52 for k in (0, 2))


def _host(name: str, inputs: str, *, doc: str, infer, numpy, samples, errors=(), attrs=None) -> Op:
    return Op(name, Kind.HOST, tuple(inputs.split()), infer=infer, numpy=numpy, grad=NO_GRADIENT, doc=doc, rule=Host(),
              attrs={**(attrs or {}), **SEEDS}, samples=as_samples(samples), errors=tuple(errors), context=("run",))


# candidates for sampled losses ------------------------------------------------------------------------


def _candidates_type(*, classes, count, log_uniform, **_):
    if not 0 < count <= classes:
        raise RuleError("there are not so many different classes", f"{count} of {classes}")
    return TensorType(int64, (count,)), TensorType(int64, ())


def _candidates_numpy(*, classes, count, log_uniform, seed, op_seed, run):
    draws, drawn, attempt = Draws((2 * count + 16,), run, seed, op_seed), np.zeros(0, np.int64), 0
    while True:
        u, _ = draws.pair(attempt)
        more = np.exp(u * math.log(classes + 1)) - 1 if log_uniform else u * classes
        drawn = np.concatenate([drawn, np.minimum(more.astype(np.int64), classes - 1)])
        places = np.sort(np.unique(drawn, return_index=True)[1])  # where each class appears first
        if places.size >= count:
            return drawn[places[:count]], places[count - 1] + 1
        attempt += 1


unique_candidates = _host(
    "unique_candidates", "", attrs={"classes": REQUIRED, "count": REQUIRED, "log_uniform": False},
    doc="(`count` different class numbers in the order in which they were drawn, how many draws that took). A class is drawn "
        "with equal chance, or with `log_uniform` in proportion to log((k + 2) / (k + 1)).",
    infer=_candidates_type, numpy=_candidates_numpy,
    samples=[sample(classes=50, count=7, seed=1, op_seed=2), sample(classes=5, count=5, log_uniform=True, seed=1, op_seed=2)],
    errors=[(sample(classes=3, count=4, seed=1, op_seed=2), "not so many different classes")],
)
