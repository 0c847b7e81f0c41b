"""Who may touch the variables of a session: any number of runs that read, or one that writes.

Short runs settle it natively, without any lock (`engine.enter`): a run that may not begin steps back, and its caller comes
here, where waiting is done. Who waits sets WANTED first, so that no further run begins: nobody waits forever.
"""
from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from graphc.errors import SessionError, report
from graphc.runtime.layout import AccessWord

T = TypeVar("T")
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
        self._engine = None
        self._local = threading.local()

    def join(self, engine) -> None:
        """Called before the first native run: from then on words change natively."""
        self._engine = engine

    # Ctrl-C may come at the beginning of any Python function and after any call, also after one that took something: so that
    # is undone by what the words say, never by what Python would have remembered next, and by stores and native calls alone,
    # which nothing splits. A context manager written in Python would not do: its `__exit__` may be cut off where it begins.

    def write(self, work: Callable[[], T]) -> T:
        """What `work()` gives, while nobody else reads or writes. Waits for present runs. Raises SessionError within `read`."""
        if getattr(self._local, "readers", 0):
            raise report(SessionError, "a run that writes variables inside one that reads them",
                         rule="it would wait for the outer run, which waits for it")
        inside = self._queue._is_owned()  # type: ignore[attr-defined]
        with self._queue:
            try:
                self.words[AccessWord.WANTED] = 1
                self._wait(AccessWord.WRITER)
                self._wait(AccessWord.READERS)
                return work()
            finally:
                self.words[AccessWord.WANTED] = inside

    def read(self, work: Callable[[], T]) -> T:
        """What `work()` gives, while nobody writes. Waits for a present run that writes. After `join`."""
        if getattr(self._local, "readers", 0):  # no waiting: it might be for one that waits for us
            return work()
        inside, engine = self._queue._is_owned(), self._engine  # type: ignore[attr-defined]
        held = np.zeros(1, np.int64)
        mine, readers = held.ctypes.data, self.address + 8 * int(AccessWord.READERS)
        try:
            with self._queue:
                try:
                    self.words[AccessWord.WANTED] = 1
                    self._wait(AccessWord.WRITER)
                    engine.hold(readers, mine)
                finally:
                    self.words[AccessWord.WANTED] = inside
            self._local.readers = 1
            return work()
        finally:
            self._local.readers = 0
            engine.release(readers, mine)

    def _wait(self, word: int) -> None:
        """Until the word is 0. In Python, so that Ctrl-C ends it."""
        looks, sleep = 0, SLEEP
        while self._engine.read(self.address + 8 * int(word)) if self._engine else self.words[word]:
            looks += 1
            if looks > SPINS:
                time.sleep(sleep)
                sleep = min(2 * sleep, LONGEST)

    def after_fork(self) -> None:
        """In the child no other thread exists: what they held is free."""
        self.preparing, self._queue = threading.RLock(), threading.RLock()
        self._local = threading.local()
        self.words[:] = 0
