"""What the processor of this machine can do, and how LLVM text becomes object code for it.

In: nothing, or an LLVM module.  Out: a `Host` record, or the bytes of an object file.  Needs llvmlite alone, so that a
process that only loads cached programs never imports Numba.
"""
from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass

import llvmlite.binding as llvm
from llvmlite.binding import ffi


@dataclass(frozen=True)
class Host:
    """The facts about a processor that decide how kernels are written."""

    name: str
    features: str               # flattened LLVM feature list, part of every cache key
    vector_bytes: int           # 64, 32 or 16
    vector_registers: int       # 32 or 16
    has_fma: bool
    has_rounding: bool          # floor, rint... are instructions; otherwise LLVM would call libm
    has_half: bool              # conversions between float16 and float32 are instructions

    def lanes(self, item_bytes):
        """How many elements of `item_bytes` fill one register."""
        return self.vector_bytes // item_bytes


def describe(name, features, architecture):
    """`Host` for a processor: its LLVM name, {feature: present}, and the first part of its triple."""
    def has(feature):
        return bool(features.get(feature))

    flat = features.flatten() if hasattr(features, "flatten") else ",".join(
        ("+" if present else "-") + feature for feature, present in sorted(features.items()))
    if architecture in ("aarch64", "arm64"):
        return Host(name, flat, 16, 32, True, True, True)
    # Every form of 512-bit code that graphc emits (bytes, words, masks) needs BW, DQ and VL too.
    if all(has(f) for f in ("avx512f", "avx512bw", "avx512dq", "avx512vl")):
        return Host(name, flat, 64, 32, True, True, True)
    if has("avx2") or has("avx"):
        return Host(name, flat, 32, 16, has("fma"), True, has("f16c"))
    return Host(name, flat, 16, 16, has("fma"), has("sse4.1"), has("f16c"))


@functools.cache
def host():
    """The processor that this process runs on."""
    architecture = llvm.get_default_triple().split("-")[0]
    return describe(llvm.get_host_cpu_name(), llvm.get_host_cpu_features(), architecture)


@functools.cache
def _initialise():
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def target_machine():
    """LLVM's description of this processor, for position-independent code."""
    _initialise()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=host().name, features=host().features, opt=3, reloc="pic", jit=True)


@functools.cache
def _unlocked():
    """LLVM without the lock that llvmlite puts around every call: threads may be in it at the same time, with modules that are
    each in a context of its own.
    """
    library = ctypes.CDLL(ffi.lib._name, handle=ffi.lib._handle)
    for name in ("LLVMPY_ParseAssembly", "LLVMPY_RunNewFunctionPassManager", "LLVMPY_TargetMachineEmitToMemory"):
        known, function = getattr(ffi.lib, name), getattr(library, name)
        function.argtypes, function.restype = known.argtypes, known.restype
    return library


def optimised_object(text: str) -> bytes:
    """Object file for an LLVM module.

    Each function is simplified as at level 2 and nothing more is done: a kernel is one function, whose loops say themselves
    what is a vector. The rest of that level takes as much time again and finds nothing to change in its loops.
    """
    library, context, machine = _unlocked(), llvm.create_context(), target_machine()
    with ffi.OutputString() as problem:
        module = llvm.ModuleRef(library.LLVMPY_ParseAssembly(context, text.encode(), problem), context)
        if problem:
            raise RuntimeError(f"LLVM cannot read a kernel: {problem}")
    module.verify()
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False  # kernels say it all themselves
    builder = llvm.create_pass_builder(machine, options)
    passes = builder.getFunctionPassManager()
    for function in module.functions:
        if not function.is_declaration:
            library.LLVMPY_RunNewFunctionPassManager(passes, function, builder)
    with ffi.OutputString() as problem:
        memory = library.LLVMPY_TargetMachineEmitToMemory(machine, module, 1, problem)
        if not memory:
            raise RuntimeError(f"LLVM makes no code of a kernel: {problem}")
    try:
        return ctypes.string_at(ffi.lib.LLVMPY_GetBufferStart(memory), ffi.lib.LLVMPY_GetBufferSize(memory))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(memory)


def load_object(code, names):
    """Load object code into this process: (library, {name: address}).  The code lives as long as the library object.

    Nothing of this process is offered to it, so a call of libm is an error here.  LLJIT reports an unresolved symbol or
    a truncated object as an error, where MCJIT crashes at the first call.
    """
    _initialise()
    jit = llvm.create_lljit_compiler()
    builder = llvm.JITLibraryBuilder().add_object_img(code)
    for name in names:
        builder.export_symbol(name)
    library = builder.link(jit, "graphc_objects_" + str(id(code)))
    return library, {name: library[name] for name in names}
