"""Who may touch the variables of a session: any number of runs that read, or one that writes.

Short runs settle it natively, without any lock (`engine.enter`): a run that may not begin steps back, and its caller comes
here, where waiting is done. Who waits sets WANTED first, so that no further run begins: nobody waits forever.
"""
from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from graphc.errors import SessionError, report
from graphc.runtime.layout import AccessWord

SPINS = 20              # looks before the first sleep
SLEEP, LONGEST = 5e-6, 1e-3  # seconds between looks: twice as many each time


class Access:
    """The words that runs look at, and the ways to wait for them.

    `preparing` is the lock for what comes before a run: programs and instances are made under it, nothing waits under it.
    """

    def __init__(self):
        self.words = np.zeros(AccessWord.SIZE, np.int64)
        self.address = self.words.ctypes.data
        self.preparing = threading.RLock()
        self._queue = threading.RLock()  # held by who waits, and by who writes
        self._add = None
        self._local = threading.local()

    def join(self, engine) -> None:
        """Called before the first native run: from then on words change natively."""
        self._add = engine.add_to_word

    def add(self, word: AccessWord, amount: int) -> int:
        """Add to a word, atomically; gives the value from before."""
        if self._add is not None:
            return self._add(self.address + 8 * int(word), amount)
        before = int(self.words[word])
        self.words[word] = before + amount  # in the queue: nothing runs natively yet
        return before

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Nobody else reads or writes inside. Waits for present runs. Raises SessionError inside `reading()`."""
        if getattr(self._local, "readers", 0):
            raise report(SessionError, "a run that writes variables inside one that reads them",
                         rule="it would wait for the outer run, which waits for it")
        with self._wanted():
            self._wait(AccessWord.WRITER)
            self._wait(AccessWord.READERS)
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Nobody writes inside. Waits for a present run that writes."""
        if getattr(self._local, "readers", 0):  # no waiting: it might be for one that waits for us
            yield
            return
        with self._wanted():
            self._wait(AccessWord.WRITER)
            self.add(AccessWord.READERS, 1)
        self._local.readers = 1
        try:
            yield
        finally:
            self._local.readers = 0
            self.add(AccessWord.READERS, -1)

    @contextmanager
    def _wanted(self) -> Iterator[None]:
        """No run begins inside."""
        with self._queue:
            self.add(AccessWord.WANTED, 1)
            try:
                yield
            finally:
                self.add(AccessWord.WANTED, -1)

    def _wait(self, word: AccessWord) -> None:
        """Until the word is 0. In Python, so that Ctrl-C ends it."""
        looks, sleep = 0, SLEEP
        while self.add(word, 0):
            looks += 1
            if looks > SPINS:
                time.sleep(sleep)
                sleep = min(2 * sleep, LONGEST)

    def after_fork(self) -> None:
        """In the child no other thread exists: what they held is free."""
        self.preparing, self._queue = threading.RLock(), threading.RLock()
        self._local = threading.local()
        self.words[:] = 0
