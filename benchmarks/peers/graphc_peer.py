"""graphc itself, through its public API: `make_callable` for the figure that counts, `Session.run` beside it."""
from __future__ import annotations

import numpy as np

from benchmarks.peers import tf1_graphs
from benchmarks.workloads import Workload

LABELS = np.int32
graphc = None


def start(threads: int) -> None:
    """The number of threads is in the environment (GRAPHC_NUM_THREADS), which graphc reads itself."""
    global graphc
    import graphc


def version() -> str:
    return f"graphc {getattr(graphc, '__version__', 'of no known version')}"


def build(workload: Workload, weights: list[np.ndarray]) -> dict:
    session, placeholders, fetches = tf1_graphs.built(graphc, workload, weights)

    def run(*arrays):
        return session.run(fetches, dict(zip(placeholders, arrays, strict=True)))

    return {"": session.make_callable(fetches, feed_list=placeholders), "Session.run": run}


BUILDERS = dict.fromkeys(tf1_graphs.GRAPHS, build)
