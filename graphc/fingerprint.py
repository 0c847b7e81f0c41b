"""What a compiled program depends on besides its graph: the compiler, the processor, and the packages that take part."""
from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import sys
import time

import numpy as np

from graphc.errors import PACKAGE

STARTED = time.time()
TICK = 0.05         # seconds; the times of files are coarser than that of the clock
FORMAT = 1          # of what is kept
UNINVOLVED = {"cli", "data", "testing", "__pycache__"}     # folders that no program depends on


class UnknownCompiler(Exception):
    """A source file of graphc has changed since this process started, or there are none: who knows which compiler runs here."""


@functools.cache
def fingerprint() -> str:
    """A text that differs where programs may differ. Raises UnknownCompiler."""
    try:
        digest, newest = sources()
    except OSError:         # imported from an archive
        raise UnknownCompiler from None
    if not STARTED - TICK > newest > 0:
        raise UnknownCompiler
    packages = [_version(name) for name in ("numba", "llvmlite")]
    return "\n".join((str(FORMAT), digest, *packages, np.__version__, sys.version, sys.platform, *processor()))


def is_unchanged() -> bool:
    """Whether the source files are those that this process started with."""
    return all(os.stat(file).st_ctime <= STARTED - TICK for file in source_files())


def sources() -> tuple[str, float]:
    """(a digest of the source files, when one last changed; 0 if there are none)."""
    found, newest = hashlib.sha256(), 0.0
    for file in source_files():
        handle = os.open(file, os.O_RDONLY)     # without a Python file, which costs more than the reading
        try:
            status = os.fstat(handle)
            text = os.read(handle, status.st_size)
        finally:
            os.close(handle)
        newest = max(newest, status.st_ctime)
        found.update(f"{file[len(PACKAGE):]}\n{len(text)}\n".encode() + text)
    return found.hexdigest(), newest


def source_files() -> list[str]:
    """The source files that programs depend on, in order."""
    found, waiting = [], [PACKAGE]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.name.endswith(".py"):
                    found.append(entry.path)
                elif entry.name not in UNINVOLVED and entry.is_dir():
                    waiting.append(entry.path)
    return sorted(found)


def processor() -> tuple[str, str, str]:
    """LLVM's name of this processor, its features, and the kind of machine."""
    import llvmlite.binding as llvm
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten(), llvm.get_process_triple()


def _version(package: str) -> str:
    """Which release of a package is installed, found without importing it."""
    try:
        spec = importlib.util.find_spec(package)
    except ImportError:
        spec = None
    if spec is None or spec.origin is None:
        return f"{package}: none"
    try:
        with open(os.path.join(os.path.dirname(spec.origin), "_version.py"), encoding="utf-8") as stream:
            return f"{package}: {stream.read()}"
    except OSError:
        from importlib.metadata import version
        return f"{package}: {version(package)}"
