"""Many runs of one program in one native call, each on other rows of the same arrays."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphc.runtime import threads
from graphc.runtime.layout import ErrorWord, FrameWord, Result, StepsWord, StepWord
from graphc.runtime.library import engine
from graphc.runtime.memory import aligned

if TYPE_CHECKING:
    from graphc.runtime.executor import Instance


class Series:
    """`count` steps: step k works on the `batch` rows from `row + k * batch` on; behind `rows` rows it goes on at row 0.

    feeds     arrays in C order; of those whose `cut` is true a step gets its rows, of others the whole.
    outputs   arrays [count, ...]: step k writes item k.
    order     int64: numbers of the rows to be taken (then `row` and `rows` count its entries); None: as they are.
    """

    def __init__(self, feeds: Sequence[np.ndarray], cut: Sequence[bool], outputs: Sequence[np.ndarray], batch: int, count: int,
                 row: int, rows: int, order: np.ndarray | None):
        size = int(StepsWord.SIZE)
        self.words = np.zeros(size + StepWord.SIZE * (len(feeds) + len(outputs)), np.int64)
        self.words[StepsWord.BATCH], self.words[StepsWord.ROW], self.words[StepsWord.ROWS] = batch, row, rows
        self.words[StepsWord.ORDER] = 0 if order is None else order.ctypes.data
        self.count = count
        self.keep = [feeds, outputs, order]
        entries = self.words[size:].reshape(-1, StepWord.SIZE)
        for entry, feed, moves in zip(entries, feeds, cut, strict=False):
            entry[StepWord.BASE] = feed.ctypes.data
            if moves:
                entry[StepWord.BY_ROW] = feed.strides[0]
            if moves and order is not None:
                room, owner = aligned((batch, *feed.shape[1:]), feed.dtype)
                entry[StepWord.BUFFER] = room.ctypes.data
                self.keep.append(owner)
        for entry, output in zip(entries[len(feeds):], outputs, strict=True):
            entry[StepWord.BASE], entry[StepWord.BY_STEP] = output.ctypes.data, output.strides[0]

    @property
    def done(self) -> int:
        """Steps done."""
        return int(self.words[StepsWord.DONE])

    @property
    def error(self) -> bytes:
        """The error slot of the step that failed."""
        return self.words[StepsWord.ERROR:StepsWord.ERROR + ErrorWord.SIZE].tobytes()

    def run(self, instance: Instance) -> Result:
        """Steps for some time, or until one fails. BUSY: the next would have to wait."""
        return self._run(instance, self.count, True)

    def run_one(self, instance: Instance) -> Result:
        """The next step. The caller has access to the variables. BUSY: another thread runs on this lane."""
        return self._run(instance, self.done + 1, False)

    def _run(self, instance: Instance, limit: int, asks: bool) -> Result:
        if instance.frame[FrameWord.THREADS] > 1:
            threads.pool()
        self.words[StepsWord.FRAME] = instance.frame.ctypes.data
        self.words[StepsWord.LIMIT], self.words[StepsWord.ASKS] = limit, asks
        return Result(engine().run_steps(self.words.ctypes.data))
