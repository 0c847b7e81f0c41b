"""The systems that are compared, one module each.

A peer's module offers

    LABELS                      the integer type that it likes class labels to have
    start(threads)              import the system and set its number of threads; called once, before anything else
    version()                   its name and version, for the table's header
    BUILDERS                    workload kind -> build(workload, weights), which returns a callable, or a dict of
                                callables with "" for the one that counts and a name for each other way to call

The callable takes NumPy arrays and returns what the workload asks for where the host can read it: the loss as a number
(or first in a list), else an array or a list of them.  It keeps its weights itself.  Importing the module alone imports
no system.
"""
import importlib

# In the order of the table's columns: name on the command line -> module.
PEERS = {
    "graphc": "graphc_peer",
    "numpy": "numpy_hand",
    "torch": "torch_eager",
    "torch_compile": "torch_compiled",
    "jax": "jax_jit",
    "tensorflow": "tensorflow1",
    "tensorflow_xla": "tensorflow1_xla",
    "pytensor": "pytensor_numba",
    "onnxruntime": "onnx_runtime",
    "tinygrad": "tinygrad_jit",
    "numba": "numba_plain",
}


def load(name: str):
    """The module of a peer."""
    return importlib.import_module(f"benchmarks.peers.{PEERS[name]}")
