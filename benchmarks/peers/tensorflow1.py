"""TensorFlow in its first version's style (`compat.v1`): a graph, a Session, `make_callable`."""
from __future__ import annotations

import contextlib

import numpy as np

from benchmarks.peers import tf1_graphs
from benchmarks.workloads import Workload

LABELS = np.int32
tf = scope = config = None


def start(threads: int, xla: bool = False) -> None:
    """With `xla` every graph is compiled whole, as one cluster."""
    global tf, scope, config
    import tensorflow

    tf = tensorflow.compat.v1
    tf.logging.set_verbosity(tf.logging.ERROR)
    tf.disable_v2_behavior()
    tf.enable_resource_variables()      # XLA and the executor below refuse the older kind
    config = tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=1)
    if xla:
        scope = tensorflow.xla.experimental.jit_scope
    else:
        # A third faster on small steps, within the noise on large ones: these graphs have nothing to run side by side.
        config.experimental.executor_type = "SINGLE_THREADED_EXECUTOR"
        scope = contextlib.nullcontext


def version() -> str:
    return f"TensorFlow {tf.__version__}"


def build(workload: Workload, weights: list[np.ndarray]):
    chosen = config
    if workload.kind == "loop":     # the single-threaded executor knows no loops
        chosen = tf.ConfigProto()
        chosen.CopyFrom(config)
        chosen.experimental.executor_type = ""
    session, placeholders, fetches = tf1_graphs.built(tf, workload, weights, scope, config=chosen)
    session.graph.finalize()
    return session.make_callable(fetches, feed_list=placeholders)


BUILDERS = dict.fromkeys(tf1_graphs.GRAPHS, build)
