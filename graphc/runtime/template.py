"""A program's frame, records, descriptors and argument table as one block of words that is copied for each new size.

A new batch size must cost tens of microseconds, not hundreds: all that does not depend on sizes is laid out once, addresses
within the block relative to its start; an instance is a copy, a few slices, and one native function.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from graphc.errors import ParseError, report
from graphc.program import Program, array_dtype
from graphc.runtime import driver
from graphc.runtime.formulas import Words
from graphc.runtime.layout import SHORT_PERIOD, ArgumentFlag, ArgumentWord, FrameWord, RecordFlag, RecordWord

RUNS_ALONE = 32
BLANKS, BLANK_WORDS = 8, 4096   # frames made in advance, and words of all together at most
KEPT_PATTERNS = 64      # of records that one thread does alone: sizes that are near have one and the same
CONTROL = {k: int(RecordFlag[k.upper()]) for k in ("loop", "next", "unless", "jump", "meet")}
CONTROL |= {k: int(RecordFlag.SHARE) | CONTROL[kind] for k, kind in (("share", "loop"), ("part", "next"), ("join", "meet"))}
CONTROL_FLAGS = int(RecordFlag.LOOP | RecordFlag.NEXT | RecordFlag.UNLESS | RecordFlag.JUMP | RecordFlag.MEET)
BUSY_AT, ERROR, THREADS, RELEASE_GIL, TRIAL, PAYS = map(int, (
    FrameWord.BUSY_AT, FrameWord.ERROR, FrameWord.THREADS, FrameWord.RELEASE_GIL, FrameWord.TRIAL, FrameWord.PAYS))

Blank = tuple[driver.Frame, Callable, memoryview]   # a frame, its bound call, and its words


class Template:
    """The block of a program."""

    def __init__(self, program: Program, addresses: Mapping[str, int], words: Words, counter: int, access: int, writes: bool):
        """addresses: of kernels; counter, access: addresses as FrameWord has them."""
        feeds, outputs = program.feeds, program.outputs
        ranks = [len(s.shape) for s in (*feeds, *outputs)]
        patches = [*words.feeds, *words.outputs]
        self.rows = int(FrameWord.SIZE)
        self.descriptors = self.rows + RecordWord.SIZE * len(program.records)
        self.table = self.descriptors + ArgumentWord.SIZE * len(ranks)
        dims = self.table + len(words.fixed)
        patch_start = dims + len(words.fixed_dims)
        self.end = patch_start + sum(map(len, patches))
        self.block = np.zeros(self.end, np.int64)
        self.block[self.table:patch_start] = words.fixed + words.fixed_dims
        self.inner: list[int] = []      # words that hold a place in the block: they get its address added
        self.keep: list = []
        self._records(program, addresses)
        self._arguments([array_dtype(s.dtype) for s in (*feeds, *outputs)], ranks, patches, dims, patch_start, len(feeds))
        self._frame(len(program.records), len(ranks), counter, access, writes)
        for word in words.runs:
            self._point(self.table + word, int(FrameWord.RUN))
        for word, place in words.places:
            self._point(self.table + word, self.table + place)
        for word in (FrameWord.SPAN, *(self.table + s for s in words.spans)):
            self.block[word] = 8 * self.end
        self.fill = words.fill
        self.relocated = np.zeros(self.end, np.int64)
        self.relocated[self.inner] = 1
        self.flag_words = slice(self.rows + RecordWord.FLAGS, self.descriptors, int(RecordWord.SIZE))
        self.flags_for = lru_cache(KEPT_PATTERNS)(self._flags)
        self.made = 0
        self.blanks: dict[int, list[Blank]] = {}

    def _point(self, word: int, place: int) -> None:
        self.block[word] = 8 * place
        self.inner.append(word)

    def _records(self, program: Program, addresses: Mapping[str, int]) -> None:
        at = self.table
        self.flags: list[int] = []
        self.spans: dict[int, int] = {}     # record that starts a loop -> the one where threads meet after it
        self.has_shares = False
        tables: list[int] = []
        for k, record in enumerate(program.records):
            row = self.rows + RecordWord.SIZE * k
            if not 0 <= record.target <= len(program.records) or record.kind != "call" and record.kind not in CONTROL:
                raise report(ParseError, f"the program is damaged: a {record.kind!r} goes to record {record.target}")
            self.block[row + RecordWord.KERNEL] = addresses.get(record.symbol, 0)
            self.block[row + RecordWord.TARGET] = record.target
            tables.append(tables[record.target - 1] if record.kind in ("next", "part") else at)
            self._point(row + RecordWord.TABLE, tables[k])
            at += len(record.words)
            self.flags.append(int(RecordFlag.BARRIER * record.barrier | RecordFlag.MAY_FAIL * record.may_fail
                                  | RecordFlag.SERIAL * record.serial | CONTROL.get(record.kind, 0)))
            if record.kind in ("loop", "share"):
                self.spans[k] = record.target
            self.has_shares |= record.kind == "share"

    def _arguments(self, dtypes: Sequence[np.dtype], ranks, patches, dims: int, at: int, feeds: int) -> None:
        for k, (dtype, rank, places) in enumerate(zip(dtypes, ranks, patches, strict=True)):
            row = self.descriptors + ArgumentWord.SIZE * k
            self.keep.append(dtype)
            self.block[row + ArgumentWord.DTYPE] = id(dtype)
            self.block[row + ArgumentWord.NDIM] = rank
            self._point(row + ArgumentWord.DIMS, dims)
            self._point(row + ArgumentWord.PATCHES, at)
            self.block[row + ArgumentWord.PATCH_COUNT] = len(places)
            self.block[row + ArgumentWord.FLAGS] = 0 if k < feeds else int(ArgumentFlag.TRUSTED)
            dims += rank
            for place in places:
                self._point(at, self.table + place)
                at += 1

    def _frame(self, records: int, arguments: int, counter: int, access: int, writes: bool) -> None:
        self._point(FrameWord.RECORDS, self.rows)
        self.block[FrameWord.RECORD_COUNT] = records
        self._point(FrameWord.ARGUMENTS, self.descriptors)
        self.block[FrameWord.ARGUMENT_COUNT] = arguments
        self.block[FrameWord.COUNTER] = counter
        self.block[FrameWord.PERIOD] = SHORT_PERIOD
        self.block[FrameWord.ACCESS] = access
        self.block[FrameWord.WRITES] = writes

    def instance(self, sizes: tuple[int, ...], counted: int, arena: int, lane: tuple[int, int], flags: memoryview, threads: int,
                 *, alone_first: bool, release_gil: bool, keep: tuple) -> tuple[driver.Frame, Callable]:
        """The frame for one set of sizes, and the bound call of it that asks for the variables.

        counted: threads that the arena at this address is for; lane: addresses of the busy word and the error slot that go with
        it; flags: by `flags_for`; alone_first: try other threads only after some runs, since waking them costs as much as a
        short run. Raises OverflowError.
        """
        copies = threads if self.has_shares else 1
        frame, call, words = (self.blanks.get(copies) or self._prepare(copies)).pop()
        words[BUSY_AT], words[ERROR] = lane
        words[THREADS], words[RELEASE_GIL] = threads, release_gil
        words[TRIAL], words[PAYS] = (SHORT_PERIOD - RUNS_ALONE, 0) if alone_first else (0, 1)
        words[self.flag_words] = flags
        try:
            self.fill(words[self.table:], counted, arena, lane[1], *sizes)
        except ValueError:
            raise OverflowError("a size of a program does not fit 64 bits") from None
        frame.keep = (self.keep, keep)
        return frame, call

    def _prepare(self, copies: int) -> list[Blank]:
        """Frames with bound calls that wait for a size: one for the first, since most programs see no other. Then several: to
        make one for each new size, with cold caches, takes as long as a short run.

        copies: of the words, for threads that share loops out.
        """
        count = max(1, min(BLANKS, BLANK_WORDS // self.end)) if self.made else 1
        rows = np.zeros((count, self.end * copies), np.int64)
        first = rows.ctypes.data
        starts = np.arange(first, first + rows.nbytes, rows.strides[0])[:, None]
        rows[:, :self.end] = self.block + self.relocated * starts
        self.made += count
        self.blanks[copies] = [(f, driver.bind(f), f.data) for f in rows.view(driver.Frame)]
        return self.blanks[copies]

    def _flags(self, serial: tuple[bool, ...]) -> tuple[memoryview, bool]:
        """The records' flags, where one thread does those of `serial` alone, and whether it does everything alone. A loop of
        nothing else it runs by itself; of one that is shared out each thread does its share, or all do the only one together.
        """
        own = int(RecordFlag.SERIAL)
        flags = [f | own if s and not f & CONTROL_FLAGS else f for f, s in zip(self.flags, serial, strict=True)]
        alone = all(f & (own | CONTROL_FLAGS) for f in flags)
        end = 0
        for start, stop in self.spans.items():
            if flags[start] & RecordFlag.SHARE:
                end = max(end, stop)
                if not all(f & (own | CONTROL_FLAGS) for f in flags[start:stop]):
                    flags[start] |= int(RecordFlag.TOGETHER)
            elif start >= end and all(f & (own | CONTROL_FLAGS) for f in flags[start:stop]):
                flags[start] |= own
                flags[stop] |= own | int(RecordFlag.BARRIER | RecordFlag.MAY_FAIL)
                end = stop
        return np.array(flags, np.int64).data, alone
