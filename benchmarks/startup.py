"""What it costs to start: importing, compiling the first step, the same in a second process, and megabytes on disk.

`measure` starts a fresh process for each figure: `python -m benchmarks.startup import|first|installed PEER THREADS`, which
prints a line of JSON.  Python's own compiled files and the systems' caches are those of the run: the first process finds
none (but of Python's), later ones what the first has left.
"""
from __future__ import annotations

import importlib.metadata
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import peers  # and nothing at this level that imports NumPy, which is to be timed

ROOT = Path(__file__).resolve().parent.parent
REPEATS = 3
# The first of these that a peer can do is its first step.
STEPS = ("lenet_train_b64", "lenet_infer_b64", "mlp128_train_b32")
DISTRIBUTIONS = {
    "graphc": ["numpy", "numba", "ml_dtypes"],      # beside its own folder
    "numpy": ["numpy"], "torch": ["torch"], "torch_compile": ["torch"], "jax": ["jax"], "tensorflow": ["tensorflow"],
    "tensorflow_xla": ["tensorflow"], "pytensor": ["pytensor", "numba"], "onnxruntime": ["onnxruntime"],
    "tinygrad": ["tinygrad", "numpy"], "numba": ["numba"],
}


def measure(peer: str, python: str, threads: int, limit: float) -> dict:
    """All figures of one peer; what it cannot do is missing, what takes too long is a text that says so."""
    from benchmarks.runner import environment

    with tempfile.TemporaryDirectory(prefix="graphc-startup-", ignore_cleanup_errors=True) as folder:
        variables = environment(threads, Path(folder))

        def run(what: str) -> dict:
            began = time.time()
            done = subprocess.run([python, "-m", "benchmarks.startup", what, peer, str(threads)], cwd=ROOT, env=variables,
                                  timeout=limit, capture_output=True, text=True, check=True)
            reply = json.loads(done.stdout.splitlines()[-1])
            if "finished" in reply:
                reply["whole"] = reply.pop("finished") - began
            return reply

        imports = [run("import") for _ in range(REPEATS + 1)][1:]       # the first one writes Python's compiled files
        found = {key: statistics.median(one[key] for one in imports) for key in imports[0]}
        found |= run("installed")
        try:
            first = run("first")
            if first:
                found |= {"workload": first["workload"], "cold": first["seconds"],
                          "warm": statistics.median(run("first")["whole"] for _ in range(REPEATS))}
        except subprocess.TimeoutExpired:
            found["cold"] = f"> {limit:.0f}"
        return found


def resident() -> int:
    """Bytes of memory in use now where the system tells, else at most until now."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def import_cost(peer: str, threads: int) -> dict:
    """Seconds and memory of NumPy and then of the system; memory is that of the whole process."""
    began = time.perf_counter()
    import numpy  # noqa: F401

    numpy_seconds, numpy_memory = time.perf_counter() - began, resident()
    module = peers.load(peer)       # imports no system
    began = time.perf_counter()
    module.start(threads)
    seconds, memory = time.perf_counter() - began, resident()
    return {"import": numpy_seconds + seconds, "import_beyond": seconds, "resident": memory,
            "resident_beyond": memory - numpy_memory}


def first_step(peer: str, threads: int) -> dict:
    """Build and call once: seconds, and the time of day when that was done."""
    from benchmarks.data import feeds, initial_weights
    from benchmarks.workloads import WORKLOADS

    module = peers.load(peer)
    module.start(threads)
    workload = next((WORKLOADS[name] for name in STEPS if WORKLOADS[name].kind in module.BUILDERS), None)
    if workload is None:
        return {}
    weights, feed = initial_weights(workload), feeds(workload, module.LABELS)[0]
    began = time.perf_counter()
    built = module.BUILDERS[workload.kind](workload, weights)
    (built[""] if isinstance(built, dict) else built)(*feed)
    return {"workload": workload.name, "seconds": time.perf_counter() - began, "finished": time.time()}


def installed(peer: str, threads: int) -> dict:
    """Bytes of the files of a system and of all that it requires, Python's compiled files left out."""
    size = 0
    if peer == "graphc":
        size += sum(path.stat().st_size for path in (ROOT / "graphc").rglob("*") if path.is_file() and path.suffix != ".pyc")
    wanted, done = list(DISTRIBUTIONS[peer]), set()
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in done:
            continue
        done.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:     # for another platform or release of Python
            continue
        for requirement in distribution.requires or []:
            needs, _, condition = requirement.partition(";")
            if "extra" not in condition:
                wanted.append(re.match(r"[\w.-]+", needs)[0])
        for file in distribution.files or []:
            path = Path(distribution.locate_file(file))
            if path.suffix != ".pyc" and path.is_file():
                size += path.stat().st_size
    return {"installed": size}


if __name__ == "__main__":
    answer = {"import": import_cost, "first": first_step, "installed": installed}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
    print(json.dumps(answer), flush=True)
    os._exit(0)         # some systems' threads make an ordinary exit take seconds
