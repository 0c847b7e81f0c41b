"""Kernel source to LLVM: Numba's front end for the loops, the tracer for the bodies.

Numba would optimise the function, wrap it for Python and load it; a kernel needs none of that, so Numba's part ends with the
LLVM module, of which `host.optimised_object` makes an object file.
"""
from __future__ import annotations

import hashlib
import linecache

from graphc.codegen.cpu.source import KernelSource


def llvm_text(source: KernelSource, symbol: str) -> str:
    """The LLVM module of a kernel; it defines `symbol`, a function void(i64 *args, i64 thread, i64 threads)."""
    from graphc.codegen.cpu import glue
    from graphc.codegen.cpu.front_end import unoptimised
    space = _execute(source)
    bodies = {name: space[body] for name, (body, *_) in source.traced.items()}
    for name, (_, results, constants, wide) in source.traced.items():
        space[name] = glue.traced(bodies[name], source.lanes, results, constants, wide)
    for name, (dtype, value) in source.splats.items():
        space[name] = glue.splat(dtype, source.lanes, value)
    for name, make in source.tiles.items():
        space[name] = make(space)
    space["arg"] = glue.arg
    return unoptimised(space["kernel"], symbol, source.is_skeleton)


def _execute(source: KernelSource) -> dict:
    """Run the source, registered so that tracebacks and Numba's errors can quote it."""
    digest = hashlib.sha256(source.text.encode()).hexdigest()[:12]
    file = f"<graphc kernel {source.name} {digest}>"
    linecache.cache[file] = (len(source.text), None, source.text.splitlines(True), file)
    space: dict = {"__name__": "graphc.kernels"}
    exec(compile(source.text, file, "exec"), space)
    return space
