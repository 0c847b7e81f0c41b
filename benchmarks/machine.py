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
from pathlib import Path

import numpy as np

COPIED_BYTES = 64 * 2**20       # the size of gelu_fwd's input, well beyond the caches
CHAINS = 12         # independent sums: enough to hide the latency (4 cycles, 2 a cycle), few enough for 16 registers
ROUNDS = 2_000_000


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


def multiply_add_peak(lanes: int, rounds: int = 9) -> float:
    """Float32 operations per second of one core that does nothing but vector multiply-adds in registers."""
    library, address = _compiled(_multiply_adds(lanes), "multiply_adds")
    call = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int64, ctypes.c_float, ctypes.c_float)(address)
    call(ROUNDS, 0.5, 1.0)      # wakes the clock and the vector units
    # The upper quartile of speed: the best may be a measuring error on a shared machine, the median another's work.
    fast = statistics.quantiles((_seconds(lambda: call(ROUNDS, 0.5, 1.0)) for _ in range(rounds)), n=4)[0]
    del library                 # owns the code, so it must live until here
    return 2 * lanes * CHAINS * ROUNDS / fast


def _multiply_adds(lanes: int) -> str:
    """LLVM text: `CHAINS` accumulators a, each a = a * x + y per round; all start differently, or they would be one."""
    vector = f"<{lanes} x float>"

    def spread(name: str, scalar: str) -> list[str]:
        return [f"  %{name}_first = insertelement {vector} poison, float {scalar}, i32 0",
                f"  %{name} = shufflevector {vector} %{name}_first, {vector} poison, <{lanes} x i32> zeroinitializer"]

    lines = [f"declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})",
             "define float @multiply_adds(i64 %rounds, float %x, float %y) {", "entry:",
             *spread("xs", "%x"), *spread("ys", "%y")]
    for chain in range(CHAINS):
        lines += spread(f"start{chain}", f"{float(chain):.1f}")
    lines += ["  br label %loop", "loop:", "  %round = phi i64 [ 0, %entry ], [ %next, %loop ]"]
    for chain in range(CHAINS):
        lines.append(f"  %a{chain} = phi {vector} [ %start{chain}, %entry ], [ %b{chain}, %loop ]")
    for chain in range(CHAINS):
        lines.append(f"  %b{chain} = call {vector} @llvm.fma.v{lanes}f32"
                     f"({vector} %a{chain}, {vector} %xs, {vector} %ys)")
    lines += ["  %next = add i64 %round, 1", "  %more = icmp slt i64 %next, %rounds",
              "  br i1 %more, label %loop, label %done", "done:"]
    total = "%b0"
    for chain in range(1, CHAINS):
        lines.append(f"  %sum{chain} = fadd {vector} {total}, %b{chain}")
        total = f"%sum{chain}"
    lines += [f"  %result = extractelement {vector} {total}, i32 0", "  ret float %result", "}"]
    return "\n".join(lines)


def _compiled(text: str, symbol: str):
    """The library that holds the code of an LLVM module for this very host, and the address of one function in it."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten(), opt=2)
    compiler = binding.create_lljit_compiler(machine)
    library = binding.JITLibraryBuilder().add_ir(text).export_symbol(symbol).link(compiler, "benchmarks.machine")
    return (compiler, library), library[symbol]


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure(threads: int) -> dict:
    """All of it; what needs llvmlite is None, and `reason` says why, where that is not installed."""
    facts = {
        "cpu": cpu_name(), "threads": threads, "vectors": None, "peak_flops": None, "reason": None,
        "copy_bytes_1": copy_bandwidth(1), "copy_bytes": copy_bandwidth(threads),
    }
    try:
        facts["vectors"], lanes = vectors()
        facts["peak_flops"] = multiply_add_peak(lanes)
    except ImportError as error:
        facts["reason"] = f"no multiply-add peak: {error}"
    return facts


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
