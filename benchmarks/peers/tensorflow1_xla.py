"""TensorFlow's Session with the graph compiled by XLA as one cluster (`jit_scope`)."""
from benchmarks.peers import tensorflow1

LABELS = tensorflow1.LABELS
BUILDERS = tensorflow1.BUILDERS


def start(threads: int) -> None:
    tensorflow1.start(threads, xla=True)


def version() -> str:
    return f"XLA in {tensorflow1.version()}"
