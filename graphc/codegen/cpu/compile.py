"""Kernel source to LLVM text: the tracer for bodies; for what is around them, `skeleton.py`, or Numba's front end if that was
asked for, and always for routines.

Of the text `host.optimised_object` makes an object file.
"""
from __future__ import annotations

import ast
import hashlib
import linecache
from typing import Any

from graphc.codegen.cpu.glue import Code, arg, splat, traced
from graphc.codegen.cpu.source import KernelSource
from graphc.config import options

UNNAMED = "graphc_kernel_without_a_name"


def llvm_text(source: KernelSource) -> tuple[str, str]:
    """(symbol, LLVM module) of a kernel: the module defines the symbol, a function void(i64 *args, i64 thread, i64 threads).

    The symbol holds a digest of the module, so that only kernels of the same code share one.
    """
    *bodies, kernel = _parsed(source).body
    assert isinstance(kernel, ast.FunctionDef)
    if source.is_skeleton and options.front_end == "graphc":
        from graphc.codegen.cpu.skeleton import unoptimised
        text = unoptimised(kernel, _codes(source, _executed(source, bodies)), UNNAMED)
    else:
        from graphc.codegen.cpu import front_end
        from graphc.codegen.cpu.intrinsics import as_intrinsic
        space = _executed(source, [*bodies, kernel])
        space |= {name: as_intrinsic(code, source.lanes) if isinstance(code, Code) else code
                  for name, code in _codes(source, space).items()}
        text = front_end.unoptimised(space["kernel"], UNNAMED)
    readable = "".join(c if c.isalnum() else "_" for c in source.name)
    symbol = f"graphc_{readable}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return symbol, text.replace(UNNAMED, symbol)


def _codes(source: KernelSource, space: dict) -> dict[str, Any]:
    """What the kernel calls by name, made of the functions that its source defines: a Code each, but a routine calls
    intrinsics of Numba.
    """
    codes = {name: traced(space[body], source.lanes, results, constants, wide)
             for name, (body, results, constants, wide) in source.traced.items()}
    codes |= {name: splat(dtype, source.lanes, value) for name, (dtype, value) in source.splats.items()}
    return codes | {name: make(space) for name, make in source.tiles.items()} | {"arg": arg}


def _file(source: KernelSource) -> str:
    return f"<graphc kernel {source.name} {hashlib.sha256(source.text.encode()).hexdigest()[:12]}>"


def _parsed(source: KernelSource) -> ast.Module:
    """The syntax tree; the text is registered so that tracebacks and Numba's errors can quote it."""
    file = _file(source)
    linecache.cache[file] = (len(source.text), None, source.text.splitlines(True), file)
    return ast.parse(source.text, file)


def _executed(source: KernelSource, parts: list[ast.stmt]) -> dict:
    """What these parts of the source define."""
    space: dict = {"__name__": "graphc.kernels"}
    exec(compile(ast.Module(parts, []), _file(source), "exec"), space)
    return space
