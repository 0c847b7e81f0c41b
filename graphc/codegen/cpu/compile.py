"""Kernel source to object code: Numba's front end for the loops, the tracer for the bodies, LLVM once at the end.

Numba would optimise each function by itself, wrap it for Python and load it; a kernel needs none of that, so compilation
stops at Numba's LLVM module, which gets a plain C entry, is optimised once, and becomes an object file.
"""
from __future__ import annotations

import functools
import hashlib
import linecache

import llvmlite.binding as llvm

from graphc.codegen.cpu.host import optimised_object
from graphc.codegen.cpu.source import KernelSource


def compile_source(source: KernelSource, symbol: str) -> bytes:
    """The object file of a kernel; it exports `symbol`, a function void(i64 *args, i64 thread, i64 threads)."""
    from graphc.codegen.cpu import glue
    space = _execute(source)
    bodies = {name: space[body] for name, (body, _, _) in source.traced.items()}
    for name, (_, results, constants) in source.traced.items():
        space[name] = glue.traced(bodies[name], source.lanes, results, constants)
    for name, (dtype, value) in source.splats.items():
        space[name] = glue.splat(dtype, source.lanes, value)
    for name, make in source.tiles.items():
        space[name] = make(space)
    space["arg"] = glue.arg
    return optimised_object(_with_entry(*_front_end(space["kernel"]), symbol))


def _execute(source: KernelSource) -> dict:
    """Run the source, registered so that tracebacks and Numba's errors can quote it."""
    digest = hashlib.sha256(source.text.encode()).hexdigest()[:12]
    file = f"<graphc kernel {source.name} {digest}>"
    linecache.cache[file] = (len(source.text), None, source.text.splitlines(True), file)
    space: dict = {"__name__": "graphc.kernels"}
    exec(compile(source.text, file, "exec"), space)
    return space


def _front_end(function) -> tuple[str, str]:
    """(LLVM module text, name of the compiled function) from Numba, before any optimisation."""
    from numba.core import compiler, types
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.registry import cpu_target
    flags = compiler.Flags()
    flags.no_compile = True
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.nrt = False
    flags.error_model = "numpy"
    flags.release_gil = True
    with global_compiler_lock:
        typing, target = cpu_target.typing_context, cpu_target.target_context
        typing.refresh()
        target.refresh()
        texts: list[str] = []
        library = target.codegen().create_library("graphc kernel")
        library.add_ir_module = lambda module: texts.append(str(module))  # else it would be parsed and optimised here
        compiled = compiler.compile_extra(typing, target, function, (types.intp, types.intp, types.intp), types.void, flags, {},
                                          library=library, pipeline_class=_pipeline())
        return texts[-1], compiled.fndesc.mangled_name


@functools.cache
def _pipeline():
    """Numba's compiler with the passes that a skeleton needs: bytecode to IR, types, LLVM. The others serve closures,
    inlining, literals and array expressions, of which a kernel has none, and take half of the time.
    """
    from numba.core import compiler, compiler_machinery, typed_passes, untyped_passes

    class KernelCompiler(compiler.CompilerBase):
        """A short pipeline."""

        def define_pipelines(self):
            manager = compiler_machinery.PassManager("graphc kernel")
            for step in (untyped_passes.TranslateByteCode, untyped_passes.FixupArgs, untyped_passes.IRProcessing,
                         typed_passes.NopythonTypeInference, typed_passes.IRLegalization, typed_passes.NativeLowering,
                         typed_passes.NoPythonBackend):
                manager.add_pass(step, step.__doc__ or step.__name__)
            manager.finalize()
            return [manager]
    return KernelCompiler


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
