"""Kernels that the tests of the native driver run, and programs of them."""
import threading
import time

import numpy as np

from graphc.runtime import driver
from graphc.runtime.layout import ErrorWord
from graphc.runtime.loader import load_objects, optimised_object
from graphc.runtime.native import native, native_module

# Each kernel has the table that it wants in its docstring.

def every(c, first, limit, step, body):
    i = c.variable(first)
    with c.loop() as loop:
        loop.leave_if(i.value >= limit)
        body(i.value)
        i.value = i.value + step


@native
def add_one(c, table, thread, count):
    """(x, n): x[i] += 1"""
    def body(i):
        table[0][i] = table[0][i] + 1
    every(c, thread, table[1], count, body)


@native
def reverse(c, table, thread, count):
    """(x, y, n): y[i] = x[n - 1 - i] + 1, so that threads read what others wrote."""
    def body(i):
        table[1][i] = table[0][table[2] - 1 - i] + 1
    every(c, thread, table[2], count, body)


@native
def mark(c, table, thread, count):
    """(seen): seen[thread] = number of threads"""
    table[0][thread] = count


@native
def fail(c, table, thread, count):
    """(error slot, culprit, record): thread `culprit` reports an error; others do nothing."""
    with c.if_(thread == table[1]), c.if_(c.take(table[0].at(ErrorWord.STATE))):
        table[0][ErrorWord.RECORD] = table[2]
        table[0][ErrorWord.INDEX] = thread
        table[0][ErrorWord.VALUE] = count


@native
def wait_for(c, table, thread, count):
    """(flag, started): sets `started`, then waits until `flag` is set."""
    c.atomic_store(table[1], 1)
    with c.loop() as loop:
        loop.leave_if(c.atomic_load(table[0]) != 0)
        c.pause()


KERNELS = [add_one, reverse, mark, fail, wait_for]


def load_kernels():
    return load_objects({"kernels": optimised_object(native_module("kernels", KERNELS), thorough=False)},
                        exports=[k.name for k in KERNELS])


class Program:
    """Collects records and keeps their tables."""

    def __init__(self, library):
        self.library = library
        self.tables = []
        self.records = []

    def add(self, kernel, *table, flags=0):
        words = np.array([w.ctypes.data if isinstance(w, np.ndarray) else int(w) for w in table], np.int64)
        self.tables.append((words, table))
        self.records.append((self.library.address(kernel.name), words.ctypes.data, int(flags)))
        return words

    def frame(self, arguments=(), **options):
        return driver.new_frame(self.records, arguments, keep=(self.library, self.tables), **options)


def start_waiting_run(kernels, **options):
    """A run in another Python thread that lasts until flags[0] is set."""
    program, flags, results = Program(kernels), np.zeros(2, np.int64), []
    program.add(wait_for, flags[0:], flags[1:])
    frame = program.frame(release_gil=True, **options)
    thread = threading.Thread(target=lambda: results.append(driver.bind(frame)()), daemon=True)
    thread.start()
    while not flags[1]:
        time.sleep(0.001)                            # we come this far only if the run has released the GIL
    return frame, flags, thread, results
