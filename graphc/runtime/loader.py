"""Object code in, addresses out, through llvmlite's LLJIT alone: no Numba, no linker, no files.

Undefined symbols are checked against a short list first: object code from a cache must not reach into the process.
"""
import itertools
import struct
import threading
from functools import cache, wraps

import llvmlite.binding as llvm

KERNEL_SYMBOLS = frozenset({"memcpy", "memset", "memmove"})
OFFSET_TABLE = "_GLOBAL_OFFSET_TABLE_"      # position independent code mentions this name; it is the loader's own

_serial = itertools.count()


def once(make):
    """Calls `make()` on first use and keeps its result; two threads never make two."""
    lock, made = threading.Lock(), cache(make)

    @wraps(make)
    def get():
        with lock:
            return made()
    return get


class LoadError(Exception):
    """Object code is damaged, needs a symbol that it may not have, or lacks one that it should have."""


class Library:
    """Loaded object code.  Its addresses are valid as long as it is referenced."""

    def __init__(self, tracker, symbols):
        self._tracker = tracker          # unloads the code when it dies
        self._addresses = {symbol: tracker[symbol] for symbol in symbols}

    def address(self, symbol):
        try:
            return self._addresses[symbol]
        except KeyError:
            raise LoadError(f"no symbol {symbol!r} in this library; it has {', '.join(self._addresses)}") from None


def load_objects(objects, *, exports=None, allowed=KERNEL_SYMBOLS, imports=None):
    """Loads `{symbol: object code}` as one library, independent of all others.

    `exports` are the symbols to find, by default the keys of `objects`.  Undefined symbols must be in `allowed`;
    `imports` gives addresses for them, the others are looked up in the process.  Raises LoadError.
    """
    exports = list(objects if exports is None else exports)
    builder = llvm.JITLibraryBuilder()
    needed = set()
    for symbol, code in objects.items():
        undefined = undefined_symbols(code)
        needed |= undefined
        refused = sorted(undefined - frozenset(allowed))
        if refused:
            raise LoadError(f"object code of {symbol!r} needs {', '.join(refused)}, which generated code may not use")
        builder.add_object_img(code)
    for symbol in exports:
        builder.export_symbol(symbol)
    for symbol, address in (imports or {}).items():
        builder.import_symbol(symbol, address)
    if not exports:
        raise LoadError("nothing to load")
    try:
        tracker = builder.add_current_process().link(_jit(), f"graphc_{next(_serial)}")
    except RuntimeError as error:
        needs = f"; it needs {', '.join(sorted(needed))}" if needed else ""       # LLVM does not say what is missing
        raise LoadError(f"object code of {', '.join(map(repr, objects))} does not load: {error}{needs}") from None
    return Library(tracker, exports)


def undefined_symbols(code):
    """Names that the object code uses and does not define.

    Reads the symbol tables of 64-bit little-endian ELF; of other formats (Mach-O, COFF) nothing is read and the answer
    is empty.  Raises LoadError if the file is damaged or cut off.
    """
    if code[:4] != b"\x7fELF":
        if len(code) < 64:
            raise LoadError(f"{len(code)} bytes are no object code")
        return set()
    if code[4:6] != b"\x02\x01":
        raise LoadError("object code for a machine that is not 64-bit little-endian")
    try:
        return _elf_undefined(code)
    except (struct.error, IndexError, ValueError, UnicodeDecodeError) as error:
        raise LoadError(f"object code is damaged or cut off ({len(code)} bytes): {error}") from None


def _elf_undefined(code):
    symbol_table, no_bits = 2, 8
    start, = struct.unpack_from("<Q", code, 0x28)
    size, count = struct.unpack_from("<HH", code, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", code, start + size * i) for i in range(count)]
    if not sections:
        raise ValueError("no sections")
    names = set()
    for _, kind, _, _, offset, length, link, _, _, _ in sections:
        if kind != no_bits and offset + length > len(code):
            raise ValueError("a section ends behind the file")
        if kind != symbol_table:
            continue
        strings = sections[link][4]
        for name, _, _, section, _, _ in struct.iter_unpack("<IBBHQQ", code[offset:offset + length]):
            if section == 0 and name:
                names.add(code[strings + name:code.index(b"\0", strings + name)].decode())
    return names - {OFFSET_TABLE}


def host_target_machine(level=3):
    """LLVM's machine for this process: its processor with all features, position independent code."""
    _initialize()
    features = llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    cpu = llvm.get_host_cpu_name()
    return target.create_target_machine(cpu=cpu, features=features, opt=level, reloc="pic", jit=True)


def optimised_object(module, thorough=True):
    """Object code for this machine of an llvmlite IR module (or its text), verified and optimised.

    `thorough` is LLVM's level 3.  Otherwise only variables become registers and control flow is tidied: the driver
    costs a nanosecond more per record, and is made in a fifth of the time.
    """
    machine = host_target_machine(level=3 if thorough else 0)
    parsed = llvm.parse_assembly(str(module))
    parsed.triple = machine.triple
    parsed.data_layout = str(machine.target_data)
    parsed.verify()
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    if thorough:
        manager = passes.getModulePassManager()
    else:
        manager = llvm.create_new_module_pass_manager()
        manager.add_always_inliner_pass()
        manager.add_sroa_pass()
        manager.add_instruction_combine_pass()
        manager.add_simplify_cfg_pass()
    manager.run(parsed, passes)
    return machine.emit_object(parsed)


@once
def _initialize():
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()      # the clock of arm64 is read by inline assembly


@once
def _jit():
    """One for the process: libraries in it are independent, and making one costs as much as loading ten kernels."""
    _initialize()
    return llvm.create_lljit_compiler(suppress_errors=True)
