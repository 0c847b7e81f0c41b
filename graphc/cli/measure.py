"""Times a program and counts what it does: the figures behind `graphc bench`."""
from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from graphc.codegen.control import times
from graphc.codegen.lower import Buffer
from graphc.codegen.plan import Plan, Record
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.runtime import driver
from graphc.runtime.executor import Executable
from graphc.runtime.layout import FrameWord, RecordFlag, RecordWord

SAMPLE = 50e-6          # seconds that a sample takes at least: shorter calls are timed several at a time


@dataclass(frozen=True)
class Times:
    """Seconds of one call, over `samples` samples."""

    median: float
    low: float
    quarter: float
    three_quarters: float
    samples: int


def time_calls(calls: Sequence[Callable[[], object]], seconds: float) -> list[Times]:
    """The times of each call, sampled in turn for `seconds` each: a slow moment of the machine meets all alike."""
    repeats = []
    for call in calls:
        call()
        start = time.perf_counter()
        call()
        repeats.append(max(1, min(10_000, int(SAMPLE / max(time.perf_counter() - start, 1e-9)))))
    samples: list[list[float]] = [[] for _ in calls]
    spent = 0.0
    while spent < seconds * len(calls) or len(samples[0]) < 3:
        for call, repeat, found in zip(calls, repeats, samples, strict=True):
            start = time.perf_counter()
            for _ in range(repeat):
                call()
            taken = time.perf_counter() - start
            found.append(taken / repeat)
            spent += taken
    return [_times(found) for found in samples]


def _times(samples: Sequence[float]) -> Times:
    quarter, median, three = (float(np.percentile(samples, p)) for p in (25, 50, 75))
    return Times(median, min(samples), quarter, three, len(samples))


# work ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What one kernel call does for given sizes: operations, and bytes read and written (each buffer once), in all `times`
    that a run calls it; those in a loop that ends by itself are taken for one iteration.
    """

    name: str
    location: str
    operations: int
    bytes: int
    times: int = 1


def work_of(plan: Plan, sizes: Mapping[str, int], threads: int) -> list[Work]:
    """The work of each kernel call of a plan."""
    env = {**sizes, "threads_": threads}
    found = []
    for record in plan.calls:
        call = record.call
        often = _number(dims.product(times(loop, 1) for loop in record.loops), env)
        found.append(Work(call.kernel.name, str(call.location or ""), often * _number(call.operations, env),
                          often * _traffic(record, env), often))
    return found


def _number(size: Size, env: Mapping[str, int]) -> int:
    return size if isinstance(size, int) else int(dims.substitute(size, env))


def _traffic(record: Record, env: Mapping[str, int]) -> int:
    def total(buffers: frozenset[Buffer]) -> int:
        return sum(_number(b.bytes, env) * (env["threads_"] if b.per_thread else 1) for b in buffers)
    return total(record.call.reads) + total(record.call.writes)


@dataclass(frozen=True)
class Memory:
    """Bytes that a run needs, by what holds them."""

    arena: int
    variables: int
    outputs: int
    constants: int
    feeds: int

    def __add__(self, other: Memory) -> Memory:
        return Memory(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def peak(self) -> int:
        """All but the feeds, which are the caller's."""
        return self.arena + self.variables + self.outputs + self.constants


def memory_of(executable: Executable, arrays: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> Memory:
    """The memory of a program that has run on `arrays`."""
    def total(values) -> int:
        return sum(np.asarray(v).nbytes for v in values)
    return Memory(executable.arena_bytes(), total(executable.variables), total(outputs), total(executable.constants),
                  total(arrays))


# single kernels -----------------------------------------------------------------------------------


def time_kernels(executable: Executable, arrays: Sequence[np.ndarray], seconds: float) -> list[float]:
    """Seconds that each kernel call takes when it is repeated alone, with all threads that the program uses for it; one in a
    loop works on the row of the last iteration.

    Its data are warm, so the sum is about the time of a run that stays in the caches. Changes the variables' values.
    """
    instance = executable.instance(arrays)
    outputs = instance.run(arrays)          # fills the argument table with addresses, which `outputs` keeps valid
    frame = instance.frame
    count = int(frame[FrameWord.RECORD_COUNT])
    words = (np.ctypeslib.as_array(_pointer(int(frame[FrameWord.RECORDS])), (count * RecordWord.SIZE,)) if count
             else np.zeros(0, np.int64))
    rows = words.reshape(count, RecordWord.SIZE)
    threads = int(frame[FrameWord.THREADS])
    keep = (executable, instance, outputs, arrays)
    found = []
    for row, record in zip(rows, executable.program.records, strict=True):
        if record.kind != "call":
            continue
        table = _pointer(int(row[RecordWord.TABLE]))
        if any(word == "row" and not table[k] for k, word in enumerate(record.words)):
            found.append(0.0)               # of a loop that had no iterations
            continue
        alone = np.array(row)
        alone[RecordWord.FLAGS] |= int(RecordFlag.BARRIER)  # a repetition starts when the one before it has ended
        repeats = 1
        while True:
            many = driver.new_frame([alone] * repeats, threads=threads, error=int(frame[FrameWord.ERROR]),
                                    counter=int(frame[FrameWord.COUNTER]), keep=keep)
            start = time.perf_counter()
            driver.run(many)
            taken = time.perf_counter() - start
            if taken > 500e-6 or repeats >= 4096:
                break
            repeats *= 4
        samples = []
        end = time.perf_counter() + seconds / max(count, 1)
        while time.perf_counter() < end or len(samples) < 3:
            start = time.perf_counter()
            driver.run(many)
            samples.append((time.perf_counter() - start) / repeats)
        found.append(float(np.median(samples)))
    return found


def _pointer(address: int):
    import ctypes
    return ctypes.cast(address, ctypes.POINTER(ctypes.c_int64))
