"""Lowering: fused graph to kernel calls. Every scheduling choice is made here and in the two files that it calls."""
from __future__ import annotations

from dataclasses import dataclass

from graphc.codegen.kernel import Int, Kernel
from graphc.errors import Location
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.node import Node

THREADS = dims.name("threads_")     # a size that the runtime knows
TYPICAL = 64            # the size that an unknown dim is taken to have where one must be guessed


@dataclass(frozen=True)
class Target:
    """What lowering must know about the machine: the size and number of vector registers, and whether loads under a mask
    cost no more than others; and about the feeds: names of dims that will be `few`, less than a vector.
    """

    vector_bytes: int
    registers: int
    cheap_masks: bool
    few: frozenset[str] = frozenset()


@dataclass(eq=False)
class Buffer:
    """Memory that kernels read and write: a value of the graph, or a temporary. Sizes in bytes, may be expressions."""

    name: str
    bytes: Size
    node: Node | None = None  # the value it holds; None for a temporary
    per_thread: bool = False  # `bytes` for each thread


@dataclass(frozen=True)
class Failure:
    """What a failed check means, for the error message."""

    op: str
    message: str
    culprit: str
    dtype: str
    shape: tuple[Size, ...]          # of the tensor whose element is wrong, to turn its number into an index
    limit: Size | None = None
    location: Location | None = None


@dataclass(eq=False)
class Call:
    """A kernel with what it is called on. `reads` and `writes` say which buffers, for scheduling and planning. `initial`: the
    call does nothing but copy that buffer, whole, into the one that it writes, to be changed there.
    """

    kernel: Kernel
    buffers: tuple[Buffer, ...]
    sizes: tuple[Size, ...]
    reads: frozenset[Buffer]
    writes: frozenset[Buffer]
    failures: tuple[Failure, ...] = ()
    serial: bool = False               # one thread does it all
    operations: Size = 0               # scalar operations, for the thread decision and the benchmark
    location: Location | None = None
    initial: Buffer | None = None

    @property
    def may_fail(self) -> bool:
        return bool(self.failures)

    def size(self, number: Int) -> Size:
        """What a number of the kernel is here."""
        return self.sizes[self.kernel.sizes.index(number)] if isinstance(number, str) else number


class Parameters:
    """Collects a kernel's buffers and sizes, and gives them names. Equal sizes share a name."""

    def __init__(self):
        self.buffers: list[Buffer] = []
        self.sizes: list[Size] = []
        self.offsets: dict[str, Size | None] = {}   # those of the sizes that are places; None: nobody shares it
        self.reads: set[Buffer] = set()
        self.writes: set[Buffer] = set()
        self.failures: list[Failure] = []

    def buffer(self, buffer: Buffer, write: bool = False) -> str:
        """The name of a buffer parameter."""
        (self.writes if write else self.reads).add(buffer)
        if buffer not in self.buffers:
            self.buffers.append(buffer)
        return f"a{self.buffers.index(buffer)}"

    def size(self, value: Size, keep=(0, 1)) -> Int:
        """The name of a size parameter; numbers in `keep` stay numbers, because the code for them differs."""
        if isinstance(value, int) and value in keep:
            return value
        for k, known in enumerate(self.sizes):
            if known == value and type(known) is type(value) and f"n{k}" not in self.offsets:
                return f"n{k}"
        self.sizes.append(value)
        return f"n{len(self.sizes) - 1}"

    def offset(self, value: Size, alone: bool = False) -> Int:
        """The name of a place in a buffer, which only equal places share, or with `alone` none: for a slice that happens to
        begin at the number of some size needs no kernel of its own.
        """
        if isinstance(value, int) and value == 0:
            return value
        found = None if alone else next((n for n, known in self.offsets.items() if known == value), None)
        if found is None:
            self.sizes.append(value)
            found = f"n{len(self.sizes) - 1}"
            self.offsets[found] = None if alone else value
        return found

    def failure(self, failure: Failure) -> int:
        """The number of a failure."""
        self.failures.append(failure)
        return len(self.failures) - 1

    @property
    def buffer_names(self) -> tuple[str, ...]:
        return tuple(f"a{k}" for k in range(len(self.buffers)))

    @property
    def size_names(self) -> tuple[str, ...]:
        return tuple(f"n{k}" for k in range(len(self.sizes)))

    def call(self, kernel: Kernel, **details) -> Call:
        """The call of `kernel` on the collected parameters."""
        return Call(kernel, tuple(self.buffers), tuple(self.sizes), frozenset(self.reads), frozenset(self.writes),
                    tuple(self.failures), **details)


def typical(size: Size, dim: int = TYPICAL) -> int:
    """A guess of a size, where unknown dims are taken to be `dim`."""
    return size if isinstance(size, int) else int(dims.substitute(size, dict.fromkeys(dims.names(size), dim)))
