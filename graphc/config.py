"""The few switches of graphc: an environment variable each, and a Python twin in `options`."""
from __future__ import annotations

import os
import re
from typing import TypeVar


def _words(name: str) -> tuple[str, ...]:
    return tuple(word for word in os.environ.get(name, "").replace(" ", "").split(",") if word)


def _number(name: str) -> int:
    text = os.environ.get(name, "0") or "0"
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name} must be a whole number, not {text!r}") from None


_Default = TypeVar("_Default", int, None)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def memory_size(value: int | str, what: str = "a memory size") -> int:
    """Bytes: a whole number, or a text such as "512M" or "2 GiB". Raises ValueError."""
    match = re.fullmatch(r"(\d+)\s*([KMGT]?)(?:i?B)?", str(value).strip(), re.IGNORECASE)
    if match is None or isinstance(value, bool):
        raise ValueError(f"{what} must be a number of bytes, such as 500M or 2G, not {value!r}")
    return int(match[1]) * _UNITS[match[2].upper()]


def _bytes(name: str, default: _Default) -> int | _Default:
    text = os.environ.get(name, "")
    return memory_size(text, name) if text else default


class Options:
    """Settings read once from the environment; assign to them to change them later. (The number of threads is set by
    GRAPHC_NUM_THREADS and graphc.set_num_threads.)

    debug    GRAPHC_DEBUG   1 a line per compile and pass, 2 first and last IR, 3 IR after each pass, 4 kernel sources
    dump     GRAPHC_DUMP    folder that gets one folder per compile, with the IR after each pass and kernel sources
    check    GRAPHC_CHECK   1 verify after each pass, 2 also compare values with the interpreter on the real feeds
    device   GRAPHC_DEVICE  "cpu" compiles, "numpy" interprets
    front_end  GRAPHC_FRONT_END  what reads the loops of kernels: "graphc", or "numba", which takes longer
    skip     GRAPHC_SKIP    names of passes to leave out
    explain  GRAPHC_EXPLAIN any of "fuse", "memory": why a decision was made
    cache        GRAPHC_CACHE        whether compiled programs are kept for later processes; 0 is no
    cache_dir    GRAPHC_CACHE_DIR    the folder for them; default: a folder graphc where the system keeps a user's caches
    cache_limit  GRAPHC_CACHE_LIMIT  bytes of all of them together (default 1G); those not used for longest go first
    memory_budget  GRAPHC_MEMORY_BUDGET  bytes that a program may take ("512M"): a run that needs more fails before it starts
    """

    def __init__(self):
        self.debug: int = _number("GRAPHC_DEBUG")
        self.dump = os.environ.get("GRAPHC_DUMP", "")
        self.check: int = _number("GRAPHC_CHECK")
        self.device = os.environ.get("GRAPHC_DEVICE", "cpu")
        self.front_end = os.environ.get("GRAPHC_FRONT_END", "graphc")
        self.skip: tuple[str, ...] = _words("GRAPHC_SKIP")
        self.explain: tuple[str, ...] = _words("GRAPHC_EXPLAIN")
        self.cache = os.environ.get("GRAPHC_CACHE", "1") != "0"
        self.cache_dir = os.environ.get("GRAPHC_CACHE_DIR", "")
        self.cache_limit: int = _bytes("GRAPHC_CACHE_LIMIT", 2**30)
        self.memory_budget: int | None = _bytes("GRAPHC_MEMORY_BUDGET", None)


options = Options()
