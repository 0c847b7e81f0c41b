"""Kernel source to LLVM: Numba's front end for the loops, the tracer for the bodies.

Numba would optimise the function, wrap it for Python and load it; a kernel needs none of that, so Numba's part ends with the
LLVM module, of which `host.optimised_object` makes an object file.
"""
from __future__ import annotations

import hashlib
import linecache

from graphc.codegen.cpu.source import KernelSource

UNNAMED = "graphc_kernel_without_a_name"


def llvm_text(source: KernelSource) -> tuple[str, str]:
    """(symbol, LLVM module) of a kernel: the module defines the symbol, a function void(i64 *args, i64 thread, i64 threads).

    The symbol holds a digest of the module, so that only kernels of the same code share one.
    """
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
    text = unoptimised(space["kernel"], UNNAMED, source.is_skeleton)
    readable = "".join(c if c.isalnum() else "_" for c in source.name)
    symbol = f"graphc_{readable}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return symbol, text.replace(UNNAMED, symbol)


def _execute(source: KernelSource) -> dict:
    """Run the source, registered so that tracebacks and Numba's errors can quote it."""
    digest = hashlib.sha256(source.text.encode()).hexdigest()[:12]
    file = f"<graphc kernel {source.name} {digest}>"
    linecache.cache[file] = (len(source.text), None, source.text.splitlines(True), file)
    space: dict = {"__name__": "graphc.kernels"}
    exec(compile(source.text, file, "exec"), space)
    return space
