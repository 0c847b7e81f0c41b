"""What this machine can do at best: copy bandwidth and multiply-add peak.  `python -m benchmarks.machine` prints JSON.

The header of every table states them, because a time means little without the limit that it is held against.
"""
from __future__ import annotations

import ctypes
import json
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.workloads import Workload

COPIED_BYTES = 64 * 2**20       # the size of gelu_fwd's input, well beyond the caches
CHAINS = 12         # independent sums: enough to hide the latency (4 cycles, 2 a cycle), few enough for 16 registers
ROUNDS = 2_000_000
FOOTPRINTS = tuple(2**n for n in (15, 17, *range(19, 28)))     # bytes; the last is beyond every cache
SWEPT = 2**28           # bytes, about, that one measurement goes over
UNROLLED = 8            # vectors of a sweep at a time, each with a sum of its own


def cpu_name() -> str:
    """The processor's model as it calls itself, less the number of its cores."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        name = found[1] if found else name
    return re.sub(r"\s*\d+-Core Processor|\s+@.*|\((R|TM)\)", "", name).strip()


def vectors() -> tuple[str, int]:
    """The widest vector instructions that LLVM sees on this host, and how many float32 such a vector holds."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    for feature, name, lanes in (("avx512f", "AVX-512", 16), ("avx2", "AVX2", 8), ("neon", "NEON", 4)):
        if features.get(feature):
            return name, lanes
    return "128-bit vectors", 4


def copy_bandwidth(threads: int, rounds: int = 12) -> float:
    """Bytes read and written per second while `np.copyto` copies large arrays, best of several rounds."""
    source, target = np.ones(COPIED_BYTES // 4, np.float32), np.zeros(COPIED_BYTES // 4, np.float32)
    pairs = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        def copy():
            list(pool.map(lambda pair: np.copyto(*pair), pairs))

        return 2 * source.nbytes / min(_seconds(copy) for _ in range(rounds))


def multiply_add_peak(lanes: int) -> float:
    """Float32 operations per second of one core that does nothing but vector multiply-adds in registers."""
    return 2 * lanes * CHAINS / _round_seconds(_chains(lanes, CHAINS, add=True))


def multiply_seconds() -> float:
    """Seconds from a multiplication's start to that of one that needs its result."""
    return _round_seconds(_chains(1, 1, add=False))


def _round_seconds(text: str, rounds: int = 9) -> float:
    """Seconds that one round of the function made by `_chains` takes."""
    library, addresses = _compiled(text, "chains")
    call = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int64, ctypes.c_float, ctypes.c_float)(addresses["chains"])
    call(ROUNDS, 0.5, 1.0)      # wakes the clock and the vector units
    # The upper quartile of speed: the best may be a measuring error on a shared machine, the median another's work.
    fast = statistics.quantiles((_seconds(lambda: call(ROUNDS, 0.5, 1.0)) for _ in range(rounds)), n=4)[0]
    del library                 # owns the code, so it must live until here
    return fast / ROUNDS


def bandwidths(lanes: int, threads: int) -> list[dict]:
    """Bytes per second of copying (reads and writes) and of reading, by bytes in use, each thread having its part of them."""
    library, addresses = _compiled(_sweeps(lanes), "copy", "read")
    sweep = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    calls = {name: sweep(address) for name, address in addresses.items()}       # ctypes calls them without Python's lock
    found = []
    with ThreadPoolExecutor(threads) as pool:
        for footprint in FOOTPRINTS:
            part = footprint // threads // 4096 * 4096
            memory = [_aligned_floats(part) for _ in range(threads)]
            starts = [array.ctypes.data for array in memory]
            times = max(1, SWEPT // footprint)
            speeds = {"bytes": footprint}
            for name, call in calls.items():
                length = part // 2 if name == "copy" else part
                jobs = [(start + part - length, start, length, times) for start in starts]
                seconds = [_seconds(partial(_all_of, pool, call, jobs)) for _ in range(5)]
                speeds[name] = part * threads * times / min(seconds)
            found.append(speeds)
    del library
    return found


def _all_of(pool: ThreadPoolExecutor, call: Callable, jobs: list[tuple]) -> None:
    """One call for each job, all at the same time."""
    list(pool.map(lambda job: call(*job), jobs))


def _aligned_floats(size: int) -> np.ndarray:
    """Zeros of so many bytes, written once so that the pages are there."""
    space = np.ones(size // 4 + 1024, np.float32)
    start = -space.ctypes.data % 4096 // 4
    return space[start : start + size // 4]


def _chains(lanes: int, chains: int, add: bool) -> str:
    """LLVM text: accumulators a, each a = a * x + y or a * x per round; all start differently, or they would be one."""
    vector = f"<{lanes} x float>"

    def spread(name: str, scalar: str) -> list[str]:
        return [f"  %{name}_first = insertelement {vector} poison, float {scalar}, i32 0",
                f"  %{name} = shufflevector {vector} %{name}_first, {vector} poison, <{lanes} x i32> zeroinitializer"]

    lines = [f"declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})",
             "define float @chains(i64 %rounds, float %x, float %y) {", "entry:",
             *spread("xs", "%x"), *spread("ys", "%y")]
    for chain in range(chains):
        lines += spread(f"start{chain}", f"{float(chain):.1f}")
    lines += ["  br label %loop", "loop:", "  %round = phi i64 [ 0, %entry ], [ %next, %loop ]"]
    for chain in range(chains):
        lines.append(f"  %a{chain} = phi {vector} [ %start{chain}, %entry ], [ %b{chain}, %loop ]")
    for chain in range(chains):
        lines.append(f"  %b{chain} = call {vector} @llvm.fma.v{lanes}f32({vector} %a{chain}, {vector} %xs, {vector} %ys)"
                     if add else f"  %b{chain} = fmul {vector} %a{chain}, %xs")
    lines += ["  %next = add i64 %round, 1", "  %more = icmp slt i64 %next, %rounds",
              "  br i1 %more, label %loop, label %done", "done:", *_sum_of(vector, "%b", chains), "}"]
    return "\n".join(lines)


def _sum_of(vector: str, name: str, count: int) -> list[str]:
    """Lines that return one element of the sum of so many vectors, so that all of them are needed."""
    lines, total = [], f"{name}0"
    for n in range(1, count):
        lines.append(f"  %sum{n} = fadd {vector} {total}, {name}{n}")
        total = f"%sum{n}"
    return [*lines, f"  %result = extractelement {vector} {total}, i32 0", "  ret float %result"]


def _sweeps(lanes: int) -> str:
    """LLVM text of `copy` and `read`: (target, source, bytes, times) go over memory that often, UNROLLED vectors at a time."""
    vector, size = f"<{lanes} x float>", 4 * lanes
    lines = []
    for name in ("copy", "read"):
        lines += [f"define float @{name}(ptr %target, ptr %source, i64 %bytes, i64 %times) {{", "entry:", "  br label %sweep",
                  "sweep:", "  %time = phi i64 [ 0, %entry ], [ %later, %swept ]"]
        lines += [f"  %s{n} = phi {vector} [ zeroinitializer, %entry ], [ %a{n}, %swept ]" for n in range(UNROLLED)]
        lines += ["  br label %loop", "loop:", "  %offset = phi i64 [ 0, %sweep ], [ %next, %loop ]"]
        lines += [f"  %t{n} = phi {vector} [ %s{n}, %sweep ], [ %a{n}, %loop ]" for n in range(UNROLLED)]
        for n in range(UNROLLED):
            lines += [f"  %o{n} = add i64 %offset, {n * size}", f"  %p{n} = getelementptr i8, ptr %source, i64 %o{n}",
                      f"  %v{n} = load {vector}, ptr %p{n}, align {size}"]
            if name == "copy":
                lines += [f"  %q{n} = getelementptr i8, ptr %target, i64 %o{n}",
                          f"  store {vector} %v{n}, ptr %q{n}, align {size}", f"  %a{n} = select i1 true, {vector} %v{n}, "
                          f"{vector} %t{n}"]
            else:
                lines.append(f"  %a{n} = fadd {vector} %t{n}, %v{n}")
        lines += [f"  %next = add i64 %offset, {UNROLLED * size}", "  %more = icmp slt i64 %next, %bytes",
                  "  br i1 %more, label %loop, label %swept", "swept:", "  %later = add i64 %time, 1",
                  "  %again = icmp slt i64 %later, %times", "  br i1 %again, label %sweep, label %done", "done:",
                  *_sum_of(vector, "%a", UNROLLED), "}"]
    return "\n".join(lines)


def _compiled(text: str, *symbols: str):
    """The library that holds the code of an LLVM module for this very host, and the addresses of functions in it."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten(), opt=2)
    compiler = binding.create_lljit_compiler(machine)
    builder = binding.JITLibraryBuilder().add_ir(text)
    for symbol in symbols:
        builder = builder.export_symbol(symbol)
    library = builder.link(compiler, f"benchmarks.machine.{symbols[0]}")
    return (compiler, library), {symbol: library[symbol] for symbol in symbols}


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def smallest_call() -> float:
    """Seconds of the smallest call from Python that computes something on two arrays."""
    a, b = np.ones(4, np.float32), np.ones(4, np.float32)
    return min(_seconds(lambda: [np.dot(a, b) for _ in range(1000)]) for _ in range(7)) / 1000


def measure(threads: int) -> dict:
    """All of it; what needs llvmlite is None, and `reason` says why, where that is not installed."""
    facts = {
        "cpu": cpu_name(), "threads": threads, "vectors": None, "peak_flops": None, "step_seconds": None, "bandwidths": None,
        "reason": None, "call_seconds": smallest_call(), "copy_bytes_1": copy_bandwidth(1),
        "copy_bytes": copy_bandwidth(threads),
    }
    try:
        facts["vectors"], lanes = vectors()
        facts["peak_flops"] = multiply_add_peak(lanes)
        facts["step_seconds"] = multiply_seconds()
        facts["bandwidths"] = bandwidths(lanes, threads)
    except ImportError as error:
        facts["reason"] = f"no multiply-add peak: {error}"
    return facts


def better(one: dict, other: dict) -> dict:
    """The best of two measurements of one machine, limit by limit."""
    if not (one["peak_flops"] and other["peak_flops"]):
        return other
    best = dict(other)
    for key in ("peak_flops", "copy_bytes_1", "copy_bytes"):
        best[key] = max(one[key], other[key])
    for key in ("step_seconds", "call_seconds"):
        best[key] = min(one[key], other[key])
    known = {speeds["bytes"]: speeds for speeds in one["bandwidths"]}
    best["bandwidths"] = [{key: max(value, known.get(speeds["bytes"], speeds)[key]) for key, value in speeds.items()}
                          for speeds in other["bandwidths"]]
    return best


def floor(workload: Workload, facts: dict) -> float | None:
    """Seconds that one call takes at least on a machine with these `facts`: the largest of four bounds.

    Operations over the multiply-add peak of all threads; bytes over the bandwidth of whatever memory can hold the
    workload's footprint (read and written in pairs at the speed of copying, the rest at that of reading); operations that
    wait for each other; a call from Python that does next to nothing.  None where nothing is known of costs or machine.
    """
    if not facts["peak_flops"] or not (workload.flops or workload.reads):
        return None
    fitting = [speeds for speeds in facts["bandwidths"] if speeds["bytes"] <= workload.footprint] or facts["bandwidths"][:1]
    copy, read = fitting[-1]["copy"], fitting[-1]["read"]
    if fitting[-1] is facts["bandwidths"][-1]:
        copy = max(copy, facts["copy_bytes"])       # NumPy's copy of large arrays does not read what it overwrites
    pairs = min(workload.reads, workload.writes)
    moving = 2 * pairs / copy + (workload.reads - pairs) / max(read, copy) + (workload.writes - pairs) / copy
    return max(workload.flops / (facts["peak_flops"] * facts["threads"]), moving, workload.chain * facts["step_seconds"],
               facts["call_seconds"])


def sentence(facts: dict) -> str:
    """The facts as one line of the table's header."""
    parts = [facts["cpu"]]
    if facts["vectors"]:
        parts.append(facts["vectors"])
    parts.append(f"{facts['threads']} thread" + ("s" if facts["threads"] != 1 else ""))
    copies = f"copy {facts['copy_bytes'] / 1e9:.1f} GB/s"
    if facts["threads"] != 1:
        copies += f" (one thread {facts['copy_bytes_1'] / 1e9:.1f})"
    parts.append(copies)
    parts.append(f"multiply-add peak {facts['peak_flops'] / 1e9:.0f} GFLOP/s a core"
                 if facts["peak_flops"] else facts["reason"])
    return ", ".join(parts)


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1)))
