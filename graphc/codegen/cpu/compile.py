"""Kernel source to object code: Numba's front end for the loops, the tracer for the bodies, LLVM once at the end.

Numba would optimise each function by itself, wrap it for Python and load it; a kernel needs none of that, so compilation
stops at Numba's LLVM module, which gets a plain C entry, is optimised once, and becomes an object file.
"""
from __future__ import annotations

import hashlib
import linecache

import llvmlite.binding as llvm

from graphc.codegen.cpu.host import optimised_object
from graphc.codegen.cpu.source import KernelSource


def compile_source(source: KernelSource, symbol: str) -> bytes:
    """The object file of a kernel; it exports `symbol`, a function void(i64 *args, i64 thread, i64 threads)."""
    from graphc.codegen.cpu import glue
    from graphc.codegen.cpu.front_end import unoptimised
    space = _execute(source)
    bodies = {name: space[body] for name, (body, _, _) in source.traced.items()}
    for name, (_, results, constants) in source.traced.items():
        space[name] = glue.traced(bodies[name], source.lanes, results, constants)
    for name, (dtype, value) in source.splats.items():
        space[name] = glue.splat(dtype, source.lanes, value)
    for name, make in source.tiles.items():
        space[name] = make(space)
    space["arg"] = glue.arg
    return optimised_object(_with_entry(*unoptimised(space["kernel"]), symbol))


def _execute(source: KernelSource) -> dict:
    """Run the source, registered so that tracebacks and Numba's errors can quote it."""
    digest = hashlib.sha256(source.text.encode()).hexdigest()[:12]
    file = f"<graphc kernel {source.name} {digest}>"
    linecache.cache[file] = (len(source.text), None, source.text.splitlines(True), file)
    space: dict = {"__name__": "graphc.kernels"}
    exec(compile(source.text, file, "exec"), space)
    return space


def _with_entry(text: str, inner: str, symbol: str) -> llvm.ModuleRef:
    """The module with a C entry `symbol` around Numba's function, whose status nothing reads: kernels never raise."""
    module = llvm.parse_assembly(text)
    module.link_in(llvm.parse_assembly(f"""
        declare i32 @{_quoted(inner)}(ptr, ptr, i64, i64, i64)
        define void @{symbol}(i64 %args, i64 %thread, i64 %threads) {{
            %result = alloca ptr
            %error = alloca ptr
            %status = call i32 @{_quoted(inner)}(ptr %result, ptr %error, i64 %args, i64 %thread, i64 %threads)
            ret void
        }}"""))
    for function in module.functions:
        if not function.is_declaration and function.name != symbol:
            function.linkage = "internal"
    for variable in module.global_variables:
        if not variable.is_declaration:
            variable.linkage = "internal"
    return module


def _quoted(name: str) -> str:
    return f'"{name}"'
