"""Where temporaries lie in the arena: buffers whose lives do not meet may lie at the same place."""
from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from graphc.codegen.lower import TYPICAL, Buffer
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.memory import ALIGNMENT, THREADS

FEW_THREADS = 4         # for guesses
GAPS = 4                # that are looked at before a buffer is put behind all others
FEW_BUFFERS = 500       # of more, only one way to place them is tried


@dataclass(frozen=True)
class Life:
    """The first and the last call that touches a buffer, and how often threads have met before each."""

    first: int
    last: int
    meetings_first: int
    meetings_last: int

    def is_apart(self, other: Life) -> bool:
        """Whether one ends so long before the other begins that both may have one memory: threads meet in between anyway, or
        there is a call in between, so that one more meeting makes nobody wait for long.
        """
        return (self.meetings_last < other.meetings_first or self.last + 1 < other.first
                or other.meetings_last < self.meetings_first or other.last + 1 < self.first)


class Arena:
    """A room for each buffer. `places`: where it starts, in bytes from the start of the arena; `size`: bytes in all.

    Sizes are expressions of dims, and rooms may lie one behind the other only where that holds for all sizes. There are two
    ways to see to that, of which the better one is taken.
    """

    def __init__(self, lives: Mapping[Buffer, Life]):
        order = sorted(lives, key=lambda b: (-_guess(threads_times(b)), lives[b].first))  # small ones fill the gaps
        self.way: _Packed | _Slots = _Packed(lives, order)
        if len(order) <= FEW_BUFFERS and _guess((slots := _Slots(lives, order)).size) < _guess(self.way.size):
            self.way = slots
        self.size = self.way.size
        rounded = {offset: dims.floordiv(offset + ALIGNMENT - 1, ALIGNMENT) * ALIGNMENT for offset in self.way.offsets.values()}
        self.places = {b: rounded[offset] for b, offset in self.way.offsets.items()}

    def meet(self, a: Buffer, b: Buffer) -> bool:
        """Whether two buffers may have a byte in common."""
        return a is b or a in self.places and b in self.places and self.way.meet(a, b)


class _Packed:
    """Buffers whose sizes depend on the same names have a part of the arena for themselves, in which sizes can be compared.
    Each takes the lowest room that is free for its life.

    A size is a row of coefficients, one for each product of names: one is at most another if that holds for each coefficient.
    """

    def __init__(self, lives: Mapping[Buffer, Life], order: Sequence[Buffer]):
        raw = {b: threads_times(b) for b in order}
        sizes = {b: raw[b] if _is_aligned(raw[b]) else raw[b] + ALIGNMENT - 1 for b in order}
        self.products = list(dict.fromkeys(p for s in sizes.values() for p in dims.terms(s)))
        self.signed = [dims.is_positive(dims.of_terms({p: 1})) for p in self.products]
        self.all_signed = all(self.signed)
        self.weights = np.array([_guess(dims.of_terms({p: 1})) for p in self.products], np.float64)
        alike: dict[tuple[bool, tuple[str, ...]], list[Buffer]] = {}
        for buffer in order:  # those whose ends are no multiples of the alignment come last
            alike.setdefault((not _is_aligned(raw[buffer]), dims.names(raw[buffer])), []).append(buffer)
        self.start: dict[Buffer, np.ndarray] = {}
        self.end: dict[Buffer, np.ndarray] = {}
        top = np.zeros(len(self.products), np.int64)
        for names in sorted(alike):
            terms = [dims.terms(sizes[b]) for b in alike[names]]
            rows = np.array([[t.get(p, 0) for p in self.products] for t in terms])
            starts, top = self._part(rows, [lives[b] for b in alike[names]], top)
            self.start |= zip(alike[names], starts, strict=True)
            self.end |= zip(alike[names], starts + rows, strict=True)
        self.size = self._dim(top)
        self.offsets = {b: self._dim(start) for b, start in self.start.items()}

    def _part(self, sizes: np.ndarray, lives: Sequence[Life], bottom: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(starts, end of all) of buffers with these sizes and lives, from `bottom` on."""
        starts, ends, top = np.zeros_like(sizes), np.zeros_like(sizes), bottom
        first, last, meetings_first, meetings_last = np.array([astuple(life) for life in lives]).T
        for k, size in enumerate(sizes):  # near: those placed so far that are not `Life.is_apart`
            near = (meetings_last[:k] >= meetings_first[k]) & (last[:k] + 1 >= first[k]) & \
                (meetings_last[k] >= meetings_first[:k]) & (last[k] + 1 >= first[:k])
            starts[k] = start = self._lowest(size, starts[:k][near], ends[:k][near], bottom, top)
            ends[k] = start + size
            if not self._at_most(ends[k], top):     # the top is a sum, not a maximum of many ends that grows and grows
                top = ends[k] if self._at_most(top, ends[k]) else top + size
        return starts, top

    def _lowest(self, size: np.ndarray, starts: np.ndarray, ends: np.ndarray, bottom: np.ndarray,
                top: np.ndarray) -> np.ndarray:
        """The lowest place, from `bottom` on, for `size` bytes that surely meet none of some rooms; at `top` they always do."""
        if not len(starts):
            return bottom
        order = np.argsort(starts @ self.weights, kind="stable")
        starts, ends = starts[order], ends[order]
        guessed_ends = np.concatenate([[bottom @ self.weights], ends @ self.weights])
        reached = np.maximum.accumulate(guessed_ends)       # by the rooms before each, and by all
        gaps = np.flatnonzero(reached[:-1] + size @ self.weights <= starts @ self.weights)[:GAPS]
        for k in (*gaps, len(starts)):
            largest = int(np.argmax(guessed_ends[:k + 1]))
            gap = ends[largest - 1] if largest else bottom
            if np.all(self._at_most(gap + size, starts) | self._at_most(ends, gap)):
                return gap
        return top

    def _at_most(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Whether a <= b for all sizes, as far as can be told. A product that may be negative must have equal coefficients."""
        found = a <= b if self.all_signed else np.where(self.signed, a <= b, a == b)
        return np.logical_and.reduce(found, axis=-1)

    def _dim(self, row: np.ndarray) -> Size:
        return dims.of_terms({p: int(c) for p, c in zip(self.products, row, strict=True)})

    def meet(self, a: Buffer, b: Buffer) -> bool:
        """Whether two buffers may have a byte in common."""
        return not (self._at_most(self.end[a], self.start[b]) or self._at_most(self.end[b], self.start[a]))


class _Slots:
    """Buffers that share memory start at the same place, and the next place is behind the largest of them: so sizes that
    cannot be compared share memory, too.
    """

    def __init__(self, lives: Mapping[Buffer, Life], order: Sequence[Buffer]):
        sizes: list[Size] = []
        users: list[list[Life]] = []
        self.slot: dict[Buffer, int] = {}
        for buffer in order:
            life, size = lives[buffer], threads_times(buffer)
            free = [k for k, found in enumerate(users) if all(life.is_apart(other) for other in found)]
            best = min(free, key=lambda k: _guess(sizes[k]), default=len(sizes))
            if best == len(sizes):
                sizes.append(size)
                users.append([])
            sizes[best] = dims.maximum(sizes[best], size)
            users[best].append(life)
            self.slot[buffer] = best
        self.size: Size = 0
        starts: dict[int, Size] = {}
        for k in sorted(range(len(sizes)), key=lambda k: not _is_aligned(sizes[k])):
            starts[k] = self.size
            self.size = self.size + (sizes[k] if _is_aligned(sizes[k]) else sizes[k] + ALIGNMENT - 1)
        self.offsets = {b: starts[k] for b, k in self.slot.items()}

    def meet(self, a: Buffer, b: Buffer) -> bool:
        """Whether two buffers may have a byte in common."""
        return self.slot[a] == self.slot[b]


@functools.lru_cache(1 << 16)
def _guess(size: Size) -> int:
    """A size where dims and the number of threads are usual ones."""
    if isinstance(size, int):
        return size
    return int(dims.substitute(size, {**dict.fromkeys(dims.names(size), TYPICAL), THREADS: FEW_THREADS}))


@functools.lru_cache(1 << 16)
def _is_aligned(size: Size) -> bool:
    """Whether a size surely is a multiple of the alignment. What is behind another size may start too early: then it needs
    room to start later, at a multiple.
    """
    return dims.floordiv(size, ALIGNMENT) * ALIGNMENT == size


def threads_times(buffer: Buffer) -> Size:
    """The bytes of a buffer, one part for each thread if it has parts."""
    return buffer.bytes * dims.name(THREADS) if buffer.per_thread else buffer.bytes
