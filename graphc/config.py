"""The few switches of graphc: an environment variable each, and a Python twin in `options`."""
from __future__ import annotations

import os
from dataclasses import dataclass, field


def _words(name: str) -> tuple[str, ...]:
    return tuple(word for word in os.environ.get(name, "").replace(" ", "").split(",") if word)


def _number(name: str) -> int:
    text = os.environ.get(name, "0") or "0"
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name} must be a whole number, not {text!r}") from None


@dataclass
class Options:
    """Settings read once from the environment; assign to them to change them later. (The number of threads is set by
    GRAPHC_NUM_THREADS and graphc.set_num_threads.)

    debug    GRAPHC_DEBUG   1 a line per compile and pass, 2 first and last IR, 3 IR after each pass, 4 kernel sources
    dump     GRAPHC_DUMP    folder that gets one folder per compile, with the IR after each pass and kernel sources
    check    GRAPHC_CHECK   1 verify after each pass, 2 also compare values with the interpreter on the real feeds
    device   GRAPHC_DEVICE  "cpu" compiles, "numpy" interprets
    skip     GRAPHC_SKIP    names of passes to leave out
    explain  GRAPHC_EXPLAIN any of "fuse", "memory": why a decision was made
    """

    debug: int = field(default_factory=lambda: _number("GRAPHC_DEBUG"))
    dump: str = field(default_factory=lambda: os.environ.get("GRAPHC_DUMP", ""))
    check: int = field(default_factory=lambda: _number("GRAPHC_CHECK"))
    device: str = field(default_factory=lambda: os.environ.get("GRAPHC_DEVICE", "cpu"))
    skip: tuple[str, ...] = field(default_factory=lambda: _words("GRAPHC_SKIP"))
    explain: tuple[str, ...] = field(default_factory=lambda: _words("GRAPHC_EXPLAIN"))


options = Options()
