"""Numba's front end: a Python function to LLVM text, with as little of Numba as that needs.

It is for routines, scalar code as an op's author writes it, and for the loops of other kernels if asked. Numba reads the
bytecode, infers the types and lowers each instruction. What it would do besides is left out: the pipeline between these three
serves closures, array expressions and exceptions; the contexts hold the builtin declarations alone, not those of arrays and
strings, among which every operator would be looked up; variables are freed by nobody; and the function is a plain C one. No
call of LLVM is made here, so that another thread may be in it. Importing this imports Numba.
"""
from __future__ import annotations

import functools

from llvmlite import ir
from numba import extending
from numba.core import bytecode, callconv, compiler, cpu, funcdesc, interpreter, lowering, typed_passes, types, typing
from numba.core.compiler_lock import global_compiler_lock
from numba.core.targetconfig import ConfigStack
from numba.core.typing import builtins as _declared  # noqa: F401 (importing it declares)
from numba.core.typing import templates

from graphc.codegen.cpu.simd_core import I64

PARAMETERS = (types.intp, types.intp, types.intp)   # address of the arguments, number of this thread, number of threads


class _Code(types.Callable):
    """The type of one intrinsic, which knows its code for each signature."""

    def __init__(self, intrinsic):
        self.intrinsic = intrinsic
        self.known: dict[tuple, tuple] = {}
        super().__init__(f"intrinsic {intrinsic._name}")

    @property
    def key(self):
        return self.intrinsic

    def get_call_type(self, context, args, kws):
        if not self.intrinsic._prefer_literal:
            args = tuple(types.unliteral(a) for a in args)
        if args not in self.known:
            self.known[args] = self.intrinsic._defn(context, *args)
        signature, _ = self.known[args]
        self.known.setdefault(signature.args, self.known[args])
        return signature

    def get_call_signatures(self):
        return [signature for signature, _ in self.known.values()], False

    def get_impl_key(self, sig):
        return self.intrinsic


class _Typing(typing.Context):
    """The types of what is builtin, and of intrinsics. Numba would look for the code of these in the context of its own
    functions, and fill that first.
    """

    def __init__(self):
        super().__init__()
        self.builtin_calls: dict[tuple, object] = {}

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
        return _Code(val) if isinstance(val, extending._Intrinsic) else super().resolve_value_type(val)

    def resolve_function_type(self, func, args, kws):
        if isinstance(func, _Code):
            return func.get_call_type(self, args, kws)
        if kws:
            return super().resolve_function_type(func, args, kws)
        if (func, args) not in self.builtin_calls:
            self.builtin_calls[func, args] = super().resolve_function_type(func, args, kws)
        return self.builtin_calls[func, args]


class _Entry(callconv.BaseCallConv):
    """void(i64, i64, i64). A kernel gives no value and raises nothing: where Numba would, it returns."""

    def _make_call_helper(self, builder):
        return None

    def _return_errcode_raw(self, builder, code):
        builder.ret_void()

    def return_value(self, builder, retval):
        builder.ret_void()

    def return_user_exc(self, builder, exc, exc_args=None, loc=None, func_name=None):
        builder.ret_void()

    def get_arguments(self, func):
        return func.args


class _Target(cpu.CPUContext):
    """The code of what is builtin: numbers, ranges and tuples."""

    call_conv = property(_Entry)

    def load_additional_registries(self):
        from numba.cpython import builtins, numbers, rangeobj, tupleobj  # noqa: F401 (each declares what it implements)

    def post_lowering(self, mod, library):
        """Nothing is linked: a kernel calls no runtime."""

    def add_linking_libs(self, libs):
        """Nothing is linked."""


class _Library:
    """Stands for the library that Numba would add the module to, which would parse and optimise it."""

    def __init__(self):
        self.text = ""

    def create_ir_module(self, name: str) -> ir.Module:
        return ir.Module(name)

    def add_ir_module(self, module: ir.Module) -> None:
        self.text = str(module)


class _Lower(lowering.Lower):
    """Numba's lowering without what it does for debuggers and for reference counts."""

    def emit_environment_object(self):
        """No Python object is needed."""

    def setup_function(self, fndesc):
        self.function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [I64] * len(PARAMETERS)), fndesc.qualname)
        self.entry_block = self.function.append_basic_block("entry")
        self.builder = ir.IRBuilder(self.entry_block)

    def alloca_lltype(self, name, lltype, datamodel=None):
        with self.builder.goto_entry_block():
            return self.builder.alloca(lltype, name=name)

    def storevar(self, value, name, argidx=None):
        if name in self._singly_assigned_vars:
            self._blk_local_varmap[name] = value
        else:
            self.builder.store(value, self.getvar(name))

    def lower_assign(self, ty, inst):
        return self.context.get_dummy_value() if isinstance(ty, _Code) else super().lower_assign(ty, inst)

    def lower_call(self, resty, expr):
        kind, signature = self.typeof(expr.func.name), self.fndesc.calltypes[expr]
        if not isinstance(kind, _Code):
            return super().lower_call(resty, expr)
        _, code = kind.known[signature.args]
        arguments = self.fold_call_args(kind, signature, expr.args, expr.vararg, expr.kws)
        found = code(self.context, self.builder, signature, arguments)
        return self.context.cast(self.builder, found, signature.return_type, resty)


class _Interpreter(interpreter.Interpreter):
    """Bytecode to Numba's IR; no kernel has a `with`, whose end would be looked for at every instruction."""

    def post_process(self, peepholes, func_ir):
        return super().post_process([p for p in peepholes if p is not interpreter.peep_hole_delete_with_exit], func_ir)


@functools.cache
def _contexts() -> tuple[_Typing, _Target]:
    types_of = _Typing()
    target = _Target(types_of, "cpu")
    target.refresh()
    types_of.load_builtins()
    target.error_model = callconv.create_error_model("numpy", target)
    return types_of, target


def unoptimised(function, symbol: str) -> str:
    """The text of an LLVM module that defines `symbol`, void(i64 *args, i64 thread, i64 threads), from a kernel's function.

    Division is NumPy's, also by 0.
    """
    function.__qualname__ = symbol
    with global_compiler_lock, ConfigStack().enter(compiler.Flags()):
        types_of, target = _contexts()
        identity = bytecode.FunctionIdentity.from_function(function)
        instructions = _Interpreter(identity).interpret(bytecode.ByteCode(identity))
        found = typed_passes.type_inference_stage(types_of, target, instructions, PARAMETERS, types.void)
        described = funcdesc.PythonFunctionDescriptor.from_specialized_function(
            instructions, found.typemap, found.return_type, found.calltypes, target.mangler, inline=False, noalias=False,
            abi_tags=())
        library = _Library()
        _Lower(target, library, described, instructions).lower()
        return library.text
