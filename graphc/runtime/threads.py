"""The worker threads of the process: how many, and their life from the first parallel run to exit.

Workers are Python threads that enter native code once (`engine.worker_loop`) and wait there, without the GIL, for
shares of jobs.
"""
import atexit
import ctypes
import functools
import math
import os
import threading
import time
from pathlib import Path

import numpy as np

from graphc.runtime.layout import GateWord, PoolWord
from graphc.runtime.library import engine

SPINS = 200          # pauses before the first yield: 2 to 10 microseconds, by processor
YIELDS = 200         # yields before sleep: about 100 microseconds, as long as Python takes between two steps, when nobody
                     # else wants the processor
LINE_WORDS = 16      # 128 bytes

_lock = threading.Lock()
_pool = None
_chosen_threads = None


class ThreadPool:
    """`workers` native worker threads; jobs come from native code, which sees the pool at `address`.

    Fewer workers are started if the system refuses a thread: see `workers`.  Uses no Python thread when `workers` is 0.
    """

    def __init__(self, workers):
        self._engine = engine()
        self._words = _permanent_words(PoolWord.MAILBOXES + GateWord.SIZE * workers)
        self.address = self._words.ctypes.data
        self._words[PoolWord.SPINS] = SPINS
        self._words[PoolWord.YIELDS] = YIELDS
        for gate in (PoolWord.PHASE, PoolWord.DONE, PoolWord.READY):
            self._engine.make_gate(self._at(gate))
        self._threads = []
        for number in range(1, workers + 1):
            self._engine.make_gate(self._mailbox(number))
            thread = threading.Thread(target=self._engine.worker_loop, args=(self.address, number),
                                      name=f"graphc-worker-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError:         # no more threads: a limit of the system, or the interpreter is shutting down
                break
            self._threads.append(thread)
        # A worker needs the GIL to come as far as native code; a job whose caller holds the GIL must not wait for it.
        self._engine.reach(self.address, self._at(PoolWord.READY), self.workers)
        self._words[PoolWord.THREADS] = self.workers + 1

    @property
    def workers(self):
        return len(self._threads)

    def _at(self, index):
        return self.address + 8 * int(index)

    def _mailbox(self, worker):
        return self._at(PoolWord.MAILBOXES + GateWord.SIZE * (worker - 1))

    def set_patience(self, spins, yields):
        """How long a waiting thread spins and yields before it sleeps, in rounds."""
        self._words[PoolWord.SPINS], self._words[PoolWord.YIELDS] = spins, yields

    def shutdown(self, timeout=0.2):
        """Sends the workers home and waits for them, at most `timeout` seconds.  Later callers run alone.

        A job in progress is waited for.  If it lasts longer, the workers stay: they never return to Python and what
        they touch is never freed, so that the process may end around them.
        """
        deadline = time.monotonic() + timeout
        while not self._engine.take_lock(self._at(PoolWord.LOCK)):        # for good: nobody may post a job any more
            if time.monotonic() >= deadline:
                return
            time.sleep(0.001)
        self._words[PoolWord.LEAVE] = 1
        for number in range(1, self.workers + 1):
            self._engine.advance(self._mailbox(number))
        for thread in self._threads:
            thread.join(None if timeout == math.inf else max(0.0, deadline - time.monotonic()))


def _permanent_words(count):
    """Zeroed words on a cache line of their own, never freed: native threads may outlast every Python reference."""
    words = np.zeros(int(count) + LINE_WORDS, np.int64)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(words))
    first = -words.ctypes.data % (8 * LINE_WORDS) // 8
    return words[first:first + int(count)]


def pool():
    """The pool of this process, started on first use with `num_threads() - 1` workers."""
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPool(num_threads() - 1)
            engine().pool.value = _pool.address
        return _pool


def is_started():
    """Whether this process has its pool."""
    return _pool is not None


generation = 0  # counts calls of set_num_threads, so that others can keep what num_threads() said


def num_threads():
    """Threads that a run may use: by `set_num_threads`, else GRAPHC_NUM_THREADS, else the processors we may use."""
    if _chosen_threads is not None:
        return _chosen_threads
    text = os.environ.get("GRAPHC_NUM_THREADS", "").strip()
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(f"GRAPHC_NUM_THREADS={text!r}: must be a whole number from 1")
        return int(text)
    return available_processors()


def set_num_threads(count):
    """Threads per run from now on, the caller included; None for the default.  A present run is waited for."""
    global _chosen_threads, _pool, generation
    if count is not None and (int(count) != count or count < 1):
        raise ValueError(f"set_num_threads({count!r}): must be a whole number from 1, or None")
    with _lock:
        _chosen_threads = None if count is None else int(count)
        generation += 1
        old, _pool = _pool, None
        if old is not None:
            engine().pool.value = 0         # the next run that wants threads starts a new pool
    if old is not None:
        old.shutdown(timeout=math.inf)


@functools.cache
def available_processors():
    """Processors of our affinity mask, or fewer if the control group grants less time; looked up once."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(affinity, cgroup_processors())))


def cgroup_processors(proc=Path("/proc/self/cgroup"), root=Path("/sys/fs/cgroup")):
    """Processors' time that the control groups grant, version 2 (`cpu.max`) or 1; infinity without a limit."""
    try:
        groups = [line.split(":", 2) for line in proc.read_text().splitlines()]
    except OSError:
        return math.inf
    limits = [math.inf]
    for _, controllers, path in groups:
        if controllers == "":
            tops, read = [root], _quota_v2
        elif "cpu" in controllers.split(","):
            tops, read = [root / "cpu", root / controllers], _quota_v1
        else:
            continue
        for top in tops:
            folder = top / path.lstrip("/")
            limits += [read(level) for level in (folder, *folder.parents) if level == top or top in level.parents]
    return min(limits)


def _quota_v2(folder):
    return _quota(lambda: (folder / "cpu.max").read_text().split())


def _quota_v1(folder):
    return _quota(lambda: [(folder / name).read_text() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")])


def _quota(read):
    """Quota by period; `max` and -1 stand for no limit, and so does a missing or odd file."""
    try:
        quota, period = map(int, read())
    except (OSError, ValueError):
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


def _after_fork():
    """In the child no worker exists, and the lock may be held by a thread that does not exist either. It may get processors of
    its own: they are counted again.
    """
    global _pool, _lock, generation
    _lock = threading.Lock()
    generation += 1
    available_processors.cache_clear()
    if _pool is not None:
        _pool = None
        engine().pool.value = 0


def _at_exit():
    if _pool is not None:
        _pool.shutdown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
