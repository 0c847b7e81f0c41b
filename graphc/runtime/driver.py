"""Frames and bound calls: what Python needs to run a program natively.

A frame holds the addresses of records, argument descriptors and error slot; `bind` makes a builtin function of it that
checks its array arguments, writes their data pointers into the kernels' argument tables and runs all records, in one
native call.
"""
import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from graphc.records import record
from graphc.runtime import layout
from graphc.runtime import threads as thread_pool
from graphc.runtime.layout import ArgumentFlag, ArgumentWord, FrameWord, RecordFlag, RecordWord, Result
from graphc.runtime.library import engine as native_engine
from graphc.runtime.loader import once

__all__ = ["Argument", "ArgumentFlag", "Frame", "RecordFlag", "Result", "RunError", "bind", "check_array_layout",
           "decode_error", "new_frame", "run"]

METH_FASTCALL = 0x80


class LayoutError(RuntimeError):
    """Array objects of this Python or NumPy are not laid out as the native code expects."""


class Frame(np.ndarray):
    """Words by `FrameWord`, and in `keep` every object whose memory a run uses."""

    keep: tuple = ()


@record(frozen=True)
class Argument:
    """An array argument of the bound call.  `patches` are addresses of words that receive the array's data pointer."""

    dtype: object
    shape: tuple
    patches: Sequence[int]
    flags: int = 0      # ArgumentFlag


class RunError(NamedTuple):
    """The error slot after a failed run, by `ErrorWord`."""

    state: int
    record: int
    index: int  # type: ignore[assignment]
    value: int
    stopped_at: int


def new_frame(records, arguments=(), *, threads=1, release_gil=False, error=0, counter=0, keep=()):
    """A frame for `records`, an int64 array or rows of (kernel address, table address, flags).

    `error` and `counter` are addresses of an error slot and a run counter to use instead of the frame's own: several
    frames may count together.  Everything in `keep` lives as long as the frame.
    """
    rows = np.zeros((len(records), RecordWord.SIZE), np.int64)
    for row, words in zip(rows, records, strict=True):
        row[:len(words)] = words
    frame = np.zeros(FrameWord.SIZE, np.int64).view(Frame)
    descriptors, kept = _descriptors(arguments)
    frame.keep = (rows, descriptors, kept, keep)
    frame[FrameWord.RECORDS] = rows.ctypes.data
    frame[FrameWord.RECORD_COUNT] = len(rows)
    frame[FrameWord.THREADS] = threads
    frame[FrameWord.ERROR] = error or _word_address(frame, FrameWord.OWN_ERROR)
    frame[FrameWord.ARGUMENTS] = descriptors.ctypes.data
    frame[FrameWord.ARGUMENT_COUNT] = len(descriptors)
    frame[FrameWord.RELEASE_GIL] = release_gil
    frame[FrameWord.COUNTER] = counter or _word_address(frame, FrameWord.OWN_COUNTER)
    frame[FrameWord.TRIAL] = -1
    frame[FrameWord.BUSY_AT] = _word_address(frame, FrameWord.BUSY)
    return frame


def _word_address(array, index):
    return array.ctypes.data + 8 * int(index)


def _descriptors(arguments):
    descriptors = np.zeros((len(arguments), ArgumentWord.SIZE), np.int64)
    kept = []
    for row, argument in zip(descriptors, arguments, strict=True):
        dtype = np.dtype(argument.dtype)
        dims, patches = np.array(argument.shape, np.int64), np.array(argument.patches, np.int64)
        kept += [dtype, dims, patches]
        row[ArgumentWord.DTYPE] = id(dtype)
        row[ArgumentWord.NDIM] = len(dims)
        row[ArgumentWord.DIMS] = dims.ctypes.data
        row[ArgumentWord.PATCHES] = patches.ctypes.data
        row[ArgumentWord.PATCH_COUNT] = len(patches)
        row[ArgumentWord.FLAGS] = argument.flags
    return descriptors, kept


class _MethodDefinition(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = [("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int),
                ("doc", ctypes.c_char_p)]


@once
def _definitions():
    """The definitions behind all bound calls: those that ask for the variables, and those whose caller holds them.  They
    differ in `self`, the frame.  Python keeps pointers to them.
    """
    check_array_layout()
    engine = native_engine()
    engine.array_type.value = id(np.ndarray)
    engine.start_pool.value = ctypes.cast(_start_pool, ctypes.c_void_p).value
    doc = b"Runs a compiled program on arrays; gives a graphc.runtime.layout.Result, or the error's words as bytes."
    definitions = (_MethodDefinition(b"run_program", engine.entry_address, METH_FASTCALL, doc),
                   _MethodDefinition(b"run_program_with_variables", engine.entry_with_variables_address, METH_FASTCALL, doc))
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(definitions))        # a bound call may outlive this module at exit
    return definitions


@ctypes.CFUNCTYPE(None)
def _start_pool():
    thread_pool.pool()


def bind(frame, has_variables=False):
    """A builtin function of the frame's array arguments that runs it and returns a `Result`, or bytes for `decode_error`.

    It owns the frame.
    has_variables: whoever calls it holds the variables already (`Access`); else it asks for them, and gives BUSY where it
    may not have them now.
    """
    _check_frame(frame)
    if not thread_pool.is_started() and frame[FrameWord.THREADS] > 1:
        thread_pool.num_threads()        # a bad GRAPHC_NUM_THREADS is reported here, not inside a run
    make, *addresses = _maker()
    return make(addresses[has_variables], frame, None)


@once
def _maker():
    """(Python's maker of builtin functions, addresses of our two definitions)."""
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
        ("PyCFunction_NewEx", ctypes.pythonapi))
    return make, *map(ctypes.addressof, _definitions())


def run(frame, threads=None):
    """Runs the frame with the data pointers that its tables hold now; gives OK, BUSY or FAILED (the error is in
    the frame's error slot until the next run).  Releases the GIL.
    """
    _check_frame(frame)
    threads = int(frame[FrameWord.THREADS]) if threads is None else threads
    if threads > 1:
        thread_pool.pool()
    return Result(native_engine().run(frame.ctypes.data, threads))


def decode_error(words):
    """The error that a bound call returned as bytes."""
    return RunError(*np.frombuffer(words, np.int64).tolist())


def _check_frame(frame):
    if not (isinstance(frame, np.ndarray) and frame.dtype == np.int64 and frame.flags.carray
            and frame.ndim == 1 and frame.size >= FrameWord.SIZE):
        raise TypeError(f"a frame is a one-dimensional int64 array of {int(FrameWord.SIZE)} words: use new_frame")


def check_array_layout():
    """Raises LayoutError unless array objects lie in memory as the native entry reads them."""
    array = np.zeros((3, 5, 7), np.float32)
    array.flags.writeable = False
    at, word, integer = id(array), ctypes.c_int64, ctypes.c_int32
    flags = layout.C_CONTIGUOUS | layout.ALIGNED | layout.WRITEABLE
    found = {
        "type": word.from_address(at + layout.TYPE_OF_OBJECT).value == id(np.ndarray),
        "data": word.from_address(at + layout.ARRAY_DATA).value == array.ctypes.data,
        "nd": integer.from_address(at + layout.ARRAY_NDIM).value == 3,
        "descr": word.from_address(at + layout.ARRAY_DTYPE).value == id(array.dtype),
        "flags": integer.from_address(at + layout.ARRAY_FLAGS).value & flags == layout.C_CONTIGUOUS | layout.ALIGNED,
    }
    if all(found.values()):      # only then is it safe to follow the pointer
        dims = word.from_address(at + layout.ARRAY_DIMS).value
        found["dimensions"] = tuple((word * 3).from_address(dims)) == array.shape
    wrong = [name for name, good in found.items() if not good]
    if wrong:
        raise LayoutError(f"numpy {np.__version__}: array fields {', '.join(wrong)} are not where the native driver "
                          "expects them; it supports 64-bit CPython 3.10 to 3.13 with the GIL")
