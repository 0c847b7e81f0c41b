"""Numba's front end for the loops of a kernel: a Python function to LLVM text, with as little of Numba as that needs.

A kernel is loops and integer arithmetic around intrinsics. So the contexts hold only the builtin declarations, not those of
arrays, strings and random numbers, among which every operator would be looked up, and the pipeline holds only the passes from
bytecode to LLVM. Importing this imports Numba.
"""
from __future__ import annotations

import functools

from numba import extending
from numba.core import compiler, compiler_machinery, cpu, lowering, typed_passes, types, typing, untyped_passes
from numba.core.compiler_lock import global_compiler_lock
from numba.core.typing import builtins as _declared  # noqa: F401 (importing it declares)
from numba.core.typing import templates


class _Typing(typing.Context):
    """The types of what is builtin, and of intrinsics. Numba would look for the code of these in the context of its own
    functions, and fill that first.
    """

    def __init__(self):
        super().__init__()
        self.target = _Target(self, "cpu")
        self.intrinsics: dict[object, types.Function] = {}

    def refresh(self):
        """Nothing that is declared later is for kernels."""

    def load_builtins(self) -> None:
        """Declare operators, `range` and the like, but not what Numba overloads for other types: that would import SciPy."""
        def is_plain(template) -> bool:
            return not issubclass(template, templates._TemplateTargetHelperMixin)
        wanted, known = templates.Registry(), templates.builtin_registry
        wanted.functions = list(filter(is_plain, known.functions))
        wanted.attributes = list(filter(is_plain, known.attributes))
        wanted.globals = [(value, kind) for value, kind in known.globals
                          if not isinstance(kind, types.Function) or all(map(is_plain, kind.templates))]
        self.install_registry(wanted)

    def resolve_value_type(self, val):
        if not isinstance(val, extending._Intrinsic):
            return super().resolve_value_type(val)
        if val not in self.intrinsics:
            self.intrinsics[val] = types.Function(_template(val, self.target))
        return self.intrinsics[val]


def _template(intrinsic, target: _Target):
    """The declaration of an intrinsic."""
    known: dict[tuple, object] = {}

    def generic(self, args, kws):
        if args not in known:
            known[args], code = intrinsic._defn(self.context, *args)
            target.insert_func_defn([(code, intrinsic, known[args].args)])
        return known[args]
    return type(intrinsic._name, (templates.AbstractTemplate,),
                {"key": intrinsic, "generic": generic, "prefer_literal": intrinsic._prefer_literal})


class _Target(cpu.CPUContext):
    """The code of what is builtin: numbers, ranges and tuples."""

    def load_additional_registries(self):
        from numba.cpython import builtins, numbers, rangeobj, tupleobj  # noqa: F401 (each declares what it implements)

    def post_lowering(self, mod, library):
        """Nothing is linked: a kernel calls no runtime."""


class _Lower(lowering.Lower):
    """Numba's lowering without debug information, for which it would ask LLVM for the size of every variable."""

    def alloca_lltype(self, name, lltype, datamodel=None):
        return lowering.cgutils.alloca_once(self.builder, lltype, name=name, zfill=False)


@compiler_machinery.register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(typed_passes.NativeLowering):
    _name = "graphc_kernel_lowering"

    @property
    def lowering_class(self):
        return _Lower


class _Compiler(compiler.CompilerBase):
    """The passes that a skeleton needs. Numba's others serve closures, inlining, literals and array expressions, of which a
    kernel has none, and take half of the time.
    """

    def define_pipelines(self):
        manager = compiler_machinery.PassManager("graphc kernel")
        for step in (untyped_passes.TranslateByteCode, untyped_passes.FixupArgs, untyped_passes.IRProcessing,
                     typed_passes.NopythonTypeInference, typed_passes.IRLegalization, _Lowering, typed_passes.NoPythonBackend):
            manager.add_pass(step, step.__doc__ or step.__name__)
        manager.finalize()
        return [manager]


@functools.cache
def _typing() -> _Typing:
    found = _Typing()
    found.target.refresh()
    found.load_builtins()
    return found


def unoptimised(function) -> tuple[str, str]:
    """(LLVM module text, name of the compiled function) of a kernel, before any optimisation."""
    flags = compiler.Flags()
    flags.no_compile = True
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.nrt = False
    flags.error_model = "numpy"
    flags.release_gil = True
    with global_compiler_lock:
        context = _typing()
        texts: list[str] = []
        library = context.target.codegen().create_library("graphc kernel")
        library.add_ir_module = lambda module: texts.append(str(module))  # else it would be parsed and optimised here
        compiled = compiler.compile_extra(context, context.target, function, (types.intp, types.intp, types.intp), types.void,
                                          flags, {}, library=library, pipeline_class=_Compiler)
        return texts[-1], compiled.fndesc.mangled_name
