"""A program's frame, records, descriptors and argument table as one block of words that is copied for each new size.

A new batch size must cost tens of microseconds, not hundreds: all that does not depend on sizes is laid out once, addresses
within the block relative to its start; an instance is a copy, a few slices, and one native function.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphc.errors import ParseError, report
from graphc.program import Program, array_dtype
from graphc.runtime import driver
from graphc.runtime.layout import TRIAL_PERIOD, ArgumentFlag, ArgumentWord, FrameWord, RecordFlag, RecordWord

RUNS_ALONE = 32
CONTROL = {k: int(RecordFlag[k.upper()]) for k in ("loop", "next", "unless", "jump", "meet")}
CONTROL |= {k: int(RecordFlag.SHARE) | CONTROL[kind] for k, kind in (("share", "loop"), ("part", "next"), ("join", "meet"))}
CONTROL_FLAGS = int(RecordFlag.LOOP | RecordFlag.NEXT | RecordFlag.UNLESS | RecordFlag.JUMP | RecordFlag.MEET)


class Template:
    """The block of a program. `positions` (of feeds, outputs, slots, run number and error slot in the argument table) come
    from the executor's layout.
    """

    def __init__(self, program: Program, addresses: Mapping[str, int], positions, counter: int, access: int, writes: bool):
        feeds, outputs = program.feeds, program.outputs
        ranks = [len(s.shape) for s in (*feeds, *outputs)]
        patches = [*positions.feed_words, *positions.output_words]
        count = sum(len(r.words) for r in program.records)
        self.rows = int(FrameWord.SIZE)
        self.descriptors = self.rows + RecordWord.SIZE * len(program.records)
        self.dims = self.descriptors + ArgumentWord.SIZE * len(ranks)
        patch_start = self.dims + sum(ranks)
        self.table = patch_start + sum(map(len, patches))
        self.end = self.table + count
        self.block = np.zeros(self.end, np.int64)
        self.inner: list[int] = []      # words that hold a place in the block: they get its address added
        self.keep: list = []
        self._records(program, addresses)
        self._arguments([array_dtype(s.dtype) for s in (*feeds, *outputs)], ranks, patches, patch_start, len(feeds))
        self._frame(len(program.records), len(ranks), counter, access, writes)
        self.relocated = np.array(self.inner, np.intp)
        self.slot_words = np.array(positions.slot_words, np.intp) + self.table
        self.run_words = np.array(positions.run_words, np.intp) + self.table
        self.error_words = np.array(positions.error_words, np.intp) + self.table
        places = np.array(positions.places, np.intp).reshape(-1, 2) + self.table
        self.place_words, self.places = places[:, 0], 8 * places[:, 1]
        self.span_words = np.array(positions.span_words, np.intp) + self.table

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

    def _arguments(self, dtypes: Sequence[np.dtype], ranks, patches, patch_start: int, feeds: int) -> None:
        dims, at = self.dims, patch_start
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
        self.block[FrameWord.ACCESS] = access
        self.block[FrameWord.WRITES] = writes

    def instance(self, words: Sequence[int], sizes: Sequence[int], arena: int, busy: int, error: int, serial: Sequence[bool],
                 threads: int, *, alone_first: bool, release_gil: bool, keep: tuple) -> np.ndarray:
        """The frame for one set of sizes.

        words: the argument table, slots relative to the arena; sizes: the dims of all array arguments; busy, error: addresses
        of the busy word and the error slot that go with the arena; serial: which records one thread does alone; alone_first:
        try other threads only after some runs, since waking them costs as much as a short run.
        """
        block = self.block.copy() if threads == 1 or not self.has_shares else np.resize(self.block, self.end * threads)
        address = block.ctypes.data
        block[self.relocated] += address
        block[self.table:self.end] = words
        block[self.span_words] = block[FrameWord.SPAN] = 8 * self.end
        block[self.slot_words] += arena
        block[self.run_words] = address + 8 * int(FrameWord.RUN)
        block[self.error_words] = block[FrameWord.ERROR] = error
        block[self.place_words] = self.places + address
        block[FrameWord.BUSY_AT] = busy
        block[self.dims:self.dims + len(sizes)] = sizes
        block[self.rows + RecordWord.FLAGS:self.descriptors:int(RecordWord.SIZE)] = self.flags_for(serial)
        block[FrameWord.THREADS] = threads
        block[FrameWord.RELEASE_GIL] = release_gil
        if alone_first:
            block[FrameWord.TRIAL], block[FrameWord.TEAM_TIME] = TRIAL_PERIOD - RUNS_ALONE, 1
        frame = block[:int(FrameWord.SIZE)].view(driver.Frame)
        frame.keep = (block, self.keep, keep)
        return frame

    def flags_for(self, serial: Sequence[bool]) -> list[int]:
        """The records' flags, where one thread does those of `serial` alone. A loop of nothing else it runs by itself; of one
        that is shared out each thread does its share.
        """
        own = int(RecordFlag.SERIAL)
        flags = [f | own if s and not f & CONTROL_FLAGS else f for f, s in zip(self.flags, serial, strict=True)]
        end = 0
        for start, stop in self.spans.items():
            if flags[start] & RecordFlag.SHARE:
                end = max(end, stop)
            elif start >= end and all(f & (own | CONTROL_FLAGS) for f in flags[start:stop]):
                flags[start] |= own
                flags[stop] |= own | int(RecordFlag.BARRIER | RecordFlag.MAY_FAIL)
                end = stop
        return flags
