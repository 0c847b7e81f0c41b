"""Plain Numba: what one writes when a loop of numbers is too slow in Python. Only for `loop_100k`."""
from __future__ import annotations

import numpy as np

from benchmarks.workloads import LOOP_STEPS, Workload

LABELS = np.int64
numba = None


def start(threads: int) -> None:
    global numba
    import numba


def version() -> str:
    return f"Numba {numba.__version__}"


def loop(workload: Workload, weights: list[np.ndarray]):
    rate, one = np.float32(2.9), np.float32(1)

    @numba.njit
    def iterated(x):
        for _ in range(LOOP_STEPS):
            x = rate * x * (one - x)
        return x

    return lambda x: iterated(x[()])


BUILDERS = {"loop": loop}
