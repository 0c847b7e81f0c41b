"""What this machine can do, as far as it decides which kernels of a run several threads share.

Two figures, measured once for a processor and a number of threads, and kept in the folder of compiled programs. A process that
has compiled something measures them at its end, in some 20 ms; later ones read them. Until then, and with the cache off,
guesses stand. No sum depends on them: a kernel gives the same bits whoever computes it.
"""
from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from graphc.cache import folder, warn_once
from graphc.config import options
from graphc.fingerprint import processor
from graphc.runtime import driver
from graphc.runtime import threads as thread_pool
from graphc.runtime.library import engine
from graphc.runtime.loader import LoadError, load_objects, optimised_object

ROUNDS = 20_000     # of the loop of multiply-adds: half a millisecond
CHAINS = 12         # sums that do not wait for each other: enough to hide the latency, few enough for 16 registers
MEETINGS = 256
REPEATS = 9
FORMAT = 1
LIKELY = {"peak": (1e3, 1e6), "meeting": (0.01, 50.0)}     # what is outside was no measurement


@dataclass(frozen=True)
class Machine:
    """peak: float32 operations that one core does in a microsecond with vector multiply-adds; meeting: microseconds that it
    takes all threads to meet.
    """

    peak: float
    meeting: float

    def __str__(self) -> str:
        return f"{self.peak / 1e3:.0f} GFLOP/s a core, threads meet in {self.meeting:.2f} us"

    @property
    def least_work(self) -> float:
        """How much work is worth sharing here, compared with the machine that is assumed: as meetings cost more."""
        return self.peak * self.meeting / (ASSUMED.peak * ASSUMED.meeting)


ASSUMED = Machine(115e3, 0.5)


def machine(threads: int) -> Machine:
    """What is known about this machine, with so many threads."""
    return (measured(threads, options.cache_dir) if options.cache else None) or ASSUMED


@functools.cache
def measured(threads: int, place: str) -> Machine | None:
    """The figures in the folder, which the option `cache_dir` names; None if there are none that can be used."""
    found = folder().load(_key(threads))
    if found is None:
        return None
    try:
        figures = {name: float(found[0]["machine"][name]) for name in LIKELY}
    except (LookupError, TypeError, ValueError):
        return None
    return Machine(**figures) if all(low <= figures[n] <= high for n, (low, high) in LIKELY.items()) else None


@functools.cache
def measure_later(lanes: int) -> None:
    """Measure when this process ends, if it has used threads and nobody has measured before. lanes: float32 of a vector."""
    atexit.register(_at_exit, lanes)


def measure(threads: int, lanes: int) -> Machine:
    """Measures now. Raises LoadError, or LLVM's RuntimeError."""
    return Machine(_peak(lanes), _meeting(threads))


def keep(figures: Machine, threads: int) -> None:
    """Keep figures for later processes."""
    folder().save(_key(threads), {"name": "(machine)", "machine": asdict(figures)}, [])


def _key(threads: int) -> str:
    return hashlib.sha256("\n".join(("machine", str(FORMAT), str(threads), *processor())).encode()).hexdigest()


def _at_exit(lanes: int) -> None:
    count = thread_pool.num_threads()
    if options.cache and thread_pool.is_started() and count > 1 and measured(count, options.cache_dir) is None:
        try:
            keep(measure(count, lanes), count)
        except (LoadError, RuntimeError) as e:
            warn_once(f"this machine was not measured: {str(e).splitlines()[0]}")


def _quickest(call: Callable[[], object]) -> float:
    """Microseconds of the quickest of several calls: others may have been disturbed."""
    best = math.inf
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best * 1e6


def _peak(lanes: int) -> float:
    library = load_objects({"chains": optimised_object(_chains(lanes))}, allowed=frozenset())
    call = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int64, ctypes.c_float)(library.address("chains"))
    return 2 * lanes * CHAINS * ROUNDS / _quickest(lambda: call(ROUNDS, 0.5))


def _chains(lanes: int) -> str:
    """LLVM text of sums a, each a = a * x + x in every round."""
    vector, numbers = f"<{lanes} x float>", range(CHAINS)
    lines = [f"declare {vector} @llvm.fmuladd.v{lanes}f32({vector}, {vector}, {vector})",
             "define float @chains(i64 %rounds, float %x) {", "entry:",
             f"  %first = insertelement {vector} poison, float %x, i32 0",
             f"  %xs = shufflevector {vector} %first, {vector} poison, <{lanes} x i32> zeroinitializer"]
    starts = {n: ", ".join([f"float {n + 1}.0"] * lanes) for n in numbers}     # all different, or they would be one sum
    lines += [f"  %s{n} = fmul {vector} %xs, <{starts[n]}>" for n in numbers]
    lines += ["  br label %loop", "loop:", "  %round = phi i64 [ 0, %entry ], [ %next, %loop ]"]
    lines += [f"  %a{n} = phi {vector} [ %s{n}, %entry ], [ %b{n}, %loop ]" for n in numbers]
    lines += [f"  %b{n} = call {vector} @llvm.fmuladd.v{lanes}f32({vector} %a{n}, {vector} %xs, {vector} %xs)" for n in numbers]
    lines += ["  %next = add i64 %round, 1", "  %more = icmp slt i64 %next, %rounds", "  br i1 %more, label %loop, label %done",
              "done:"]
    lines += [f"  %t{n} = fadd {vector} {'%b0' if n == 1 else f'%t{n - 1}'}, %b{n}" for n in numbers[1:]]
    return "\n".join([*lines, f"  %sum = extractelement {vector} %t{CHAINS - 1}, i32 0", "  ret float %sum", "}"])


def _meeting(threads: int) -> float:
    """What a barrier costs where nobody is late: one thread alone does next to nothing before each."""
    word = np.zeros(1, np.int64)
    record = engine().library.address("read"), word.ctypes.data, int(driver.RecordFlag.SERIAL | driver.RecordFlag.BARRIER)
    frame = driver.new_frame([record] * MEETINGS, threads=threads, keep=(word,))
    return _quickest(lambda: driver.run(frame)) / MEETINGS
