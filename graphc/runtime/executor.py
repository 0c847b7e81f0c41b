"""Runs programs: binds them to sizes and memory, calls the native driver, turns its results into arrays and errors."""
from __future__ import annotations

import os
import signal
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from graphc.errors import FeedError, Location, RunError, report
from graphc.memory import Memory, over_budget
from graphc.program import ArraySpec, FailureSpec, Program, array_dtype
from graphc.runtime import driver, threads
from graphc.runtime.access import Access
from graphc.runtime.formulas import WORDS, Words, binder, spec_text, told_sizes
from graphc.runtime.layout import INTERRUPTED, Busy, ErrorWord, Result
from graphc.runtime.library import engine
from graphc.runtime.loader import load_objects
from graphc.runtime.machine import machine
from graphc.runtime.memory import aligned, supplier
from graphc.runtime.template import Template

TEAM_MICROSECONDS = 12      # shorter runs use one thread; longer ones may use others, where that is measured to pay
PARALLEL_MICROSECONDS = 50  # longer runs use others from the first on
RELEASE_MICROSECONDS = 5    # shorter runs keep Python's lock
SERIAL_MICROSECONDS = 0.5   # a kernel shorter than this is not worth splitting, where nothing is known about the machine
KEPT_SIZES = 64             # bound instances kept for different sizes of the named dims

_known_count = [-1, 1]  # (generation, number) of the last look


def thread_count() -> int:
    """threads.num_threads(), looked up again only after set_num_threads: it reads files of the system."""
    if _known_count[0] != threads.generation:
        _known_count[:] = threads.generation, threads.num_threads()
    return _known_count[1]


class Executable:
    """A loaded program: native kernels, and lanes with instances for the sizes met so far."""

    def __init__(self, program: Program, variables: Sequence[np.ndarray], counter: np.ndarray | None = None,
                 access: Access | None = None, writes: bool = False, budget: int | None = None):
        """variables: the arrays that hold the variables' values, one for each of `program.variables`, at fixed addresses.
        counter: one int64, the number of the next run; programs of one session count together.
        access: who may touch the variables; without one, the caller sees to it. writes: whether a run writes variables.
        budget: bytes that a run may take.
        """
        self.program = program
        self.variables = tuple(variables)
        self.library = load_objects(program.objects) if program.objects else None
        self.addresses = {s: self.library.address(s) for s in program.objects} if self.library else {}
        self.constants = tuple(_aligned_copy(c) for c in program.constants)
        self.binder = binder(program)
        self.words = Words(program, [c.ctypes.data for c in self.constants], [v.ctypes.data for v in self.variables])
        self.serves: Callable[..., bool] | None = None      # of sizes: not another program; None: there is no other
        self.lanes = [Lane()]
        self.counter = np.zeros(1, np.int64) if counter is None else counter
        self.output_dtypes = [array_dtype(spec.dtype) for spec in program.outputs]
        self.scalars = [not spec.shape for spec in program.outputs]
        self.only_scalars = all(self.scalars)
        self._least_work: dict[int, float] = {}
        self.may_run_long = program.may_run_long
        self.template = Template(program, self.addresses, self.words, self.counter.ctypes.data,
                                 access.address if access else 0, writes)
        self.budget = budget
        self.access = access
        if access is not None:
            access.join(engine())

    def instance(self, arrays: Sequence[np.ndarray]) -> Instance:
        """The instance for the sizes of these feeds, on a lane that nobody runs at the moment. Raises ShapeError, FeedError or
        BudgetError.

        Not for several Python threads at once.
        """
        lane = self.lanes[0]
        if not lane.is_free():
            lane = next((other for other in self.lanes if other.is_free()), Lane())
            if lane not in self.lanes:
                self.lanes.append(lane)
        key = (thread_count(), *[a.shape for a in arrays])
        found = lane.instances.get(key)
        if found is None:
            found = self._add(lane, key, self.sizes(arrays))
        else:
            lane.instances.move_to_end(key)
            found.generation = threads.generation   # the number may have changed and come back
        return found

    def fitting(self, values: Sequence) -> Instance | None:
        """Like `instance`, for values that may be anything, but somebody may run it now. None where shapes do not fit, or where
        another program serves their sizes.
        """
        lane = self.lanes[0]
        try:
            shapes = [v.shape for v in values]
            key = (thread_count(), *shapes)
            found = lane.instances.get(key)
            sizes = self.binder(*shapes) if found is None else None
        except (AttributeError, TypeError, ValueError):
            return None
        if sizes is None or not (self.serves is None or self.serves(*sizes)):
            return found
        return self._add(lane, key, sizes)

    def least_work(self, threads: int) -> float:
        """Microseconds that a kernel must take on one core to be worth splitting among so many threads."""
        if threads not in self._least_work:
            self._least_work[threads] = SERIAL_MICROSECONDS * machine(threads).least_work
        return self._least_work[threads]

    def _add(self, lane: Lane, key: tuple, sizes: tuple[int, ...]) -> Instance:
        found = lane.instances[key] = Instance(self, lane, sizes)
        if len(lane.instances) > KEPT_SIZES:
            lane.instances.popitem(last=False)
        return found

    def check_budget(self, sizes: Sequence[int]) -> None:
        """Raise BudgetError where a run on these sizes of the named dims takes too much."""
        memory, env = Memory([self.program], thread_count()), dict(zip(self.program.names, sizes, strict=True))
        if self.budget is not None and memory.bytes(**env) > self.budget:
            raise over_budget(memory, self.budget, env)

    def arena_bytes(self) -> int:
        """Memory of all arenas."""
        return sum(lane.arena[0].nbytes for lane in self.lanes)

    def sizes(self, arrays: Sequence[np.ndarray]) -> tuple[int, ...]:
        """The sizes of the program's named dims. Raises FeedError when a shape does not fit."""
        try:
            values = self.binder(*(a.shape for a in arrays))
        except ValueError:
            values = None
        if values is None:
            raise self.mismatch(arrays)
        return values

    def mismatch(self, arrays: Sequence[np.ndarray]) -> Exception:
        """The error for feeds whose shapes do not fit: found out slowly, said clearly."""
        env: dict[str, int] = {}
        source: dict[str, ArraySpec] = {}
        functions = {"max": max, "min": min, "__builtins__": {}}
        for spec, array in zip(self.program.feeds, arrays, strict=True):
            if len(spec.shape) != array.ndim:
                return _shape_error(spec, array)
        for name, k, axis, rest, factor in told_sizes(self.program):
            env[name] = (arrays[k].shape[axis] - eval(str(rest), functions, env)) // factor
            source[name] = self.program.feeds[k]
            if env[name] < 0:
                return _shape_error(source[name], arrays[k], f"{name} = {env[name]} is negative")
        for spec, array in zip(self.program.feeds, arrays, strict=True):
            for dim, size in zip(spec.shape, array.shape, strict=True):
                expected = eval(dim, functions, env)  # checked by _checked: names, numbers and operators only
                if expected != size:
                    other = next((source[w] for w in WORDS.findall(dim) if w in source and source[w] is not spec), None)
                    return _shape_error(spec, array, f"{dim} = {expected} != {size}" if dim != str(expected)
                                        else f"{expected} != {size}", other)
        for left, right, line in self.program.equations:
            a, b = eval(left, functions, env), eval(right, functions, env)
            if a != b:
                return report(FeedError, f"the sizes of the feeds do not fit together: {left} != {right}",
                              [(s.name, spec_text(s)) for s in self.program.feeds], f"{a} != {b}",
                              location=_location(line))
        raise AssertionError("the feeds fit")

    def failure(self, instance: Instance, words: bytes) -> BaseException:
        """The error that a kernel reported in a run of this instance, or KeyboardInterrupt. `words`: of the error slot."""
        taken = driver.decode_error(words)
        if taken.record == INTERRUPTED:
            signal.raise_signal(signal.SIGINT)  # whoever handles it may have an exception of his own
            return KeyboardInterrupt()
        spec = self.program.failures[taken.record]
        env = dict(zip(self.program.names, instance.sizes, strict=True))
        functions = {"max": max, "min": min, "__builtins__": {}}
        shape = [eval(d, functions, env) for d in spec.shape]
        index = [int(i) for i in np.unravel_index(taken.index, shape)] if shape else []
        place = f"{spec.culprit}[{', '.join(map(str, index))}]" if shape else spec.culprit
        return run_error(spec, place, _value(taken.value, spec.dtype), None if spec.limit is None else
                         eval(spec.limit, functions, env))


def run_error(spec: FailureSpec, place: str, value, limit: int | None) -> Exception:
    """The error for a value that a kernel cannot work on."""
    rule = f" is not in [0, {limit})" if limit is not None else ""
    return report(RunError, f"{spec.op}: {spec.message}: {place} = {value}{rule}", location=_location(spec.location))


class Lane:
    """What one run of a program at a time uses: an arena, an error slot, and a word that says whether a run is on. Instances
    for different sizes share it; runs that overlap need a lane each.
    """

    def __init__(self):
        self.words = np.zeros(1 + ErrorWord.SIZE, np.int64)
        self.busy = self.words.ctypes.data
        self._take_arena(0)
        self.instances: OrderedDict[tuple, Instance] = OrderedDict()
        self.process = os.getpid()

    def is_free(self) -> bool:
        """Whether no run is on. What another thread ran here when this process was forked off counts as over."""
        if self.process != os.getpid():
            self.words[:] = 0
            self.process = os.getpid()
        return self.words.item(0) == Busy.FREE

    def room(self, size: int, exactly: bool) -> int:
        """The address of the arena, at least `size` bytes; where it must grow, with `exactly` no more, and the old one is let
        go.
        """
        if self.arena[0].size < size:
            if exactly:
                self.instances.clear()
            else:
                size = max(size, 2 * self.arena[0].size)  # or every larger batch would touch fresh pages again
            self._take_arena(size)
        return self.address

    def _take_arena(self, size: int) -> None:
        self.arena = aligned((size,), np.dtype(np.uint8))
        self.address = self.arena[0].ctypes.data


class Instance:
    """A program bound to sizes: the argument table, the arena, and the native calls."""

    def __init__(self, executable: Executable, lane: Lane, sizes: tuple[int, ...]):
        if executable.budget is not None:       # a look at all parts of the memory, not for nothing
            executable.check_budget(sizes)
        self.executable, self.lane, self.sizes = executable, lane, sizes
        count = thread_count()
        size, short, total, self.output_shapes = executable.words.needs(count, executable.least_work(count), *sizes)
        address = lane.room(size, exactly=executable.budget is not None)
        flags, is_serial = executable.template.flags_for(short)
        threads_used = 1 if total <= TEAM_MICROSECONDS or is_serial else count
        self.frame, self.call = executable.template.instance(
            sizes, count, address, (lane.busy, lane.busy + 8), flags, threads_used, alone_first=total < PARALLEL_MICROSECONDS,
            release_gil=total > RELEASE_MICROSECONDS or executable.may_run_long, keep=(executable, lane.arena, lane))
        self.generation = threads.generation
        self.spare: list[list[np.ndarray]] = []  # memory for scalars, which leave as values: none that a run uses now
        self.suppliers = None if executable.only_scalars else [*map(supplier, self.output_shapes, executable.output_dtypes)]

    @cached_property
    def call_with_variables(self):
        """Like `call`, for who has access to the variables already."""
        return driver.bind(self.frame, has_variables=True)

    def is_current(self) -> bool:
        """Whether the number of threads is still the one that this instance was made for."""
        return self.generation == threads.generation

    def run(self, arrays: Sequence[np.ndarray]) -> list:
        """Run on feeds of exactly this instance's shapes and dtypes, when nobody else runs it; the fetched values. The caller
        has access to the variables. Raises RunError.
        """
        found = self.run_if_free(arrays)
        if found is None:
            raise AssertionError("another thread runs this instance")
        return found

    def run_if_free(self, arrays: Sequence[np.ndarray]) -> list | None:
        """Like `run`; None, and nothing was run, if another thread runs on this lane."""
        outputs = self.take_outputs()
        status = self.call_with_variables(*arrays, *outputs)
        if status == Result.BUSY:
            return None
        if type(status) is bytes:
            raise self.executable.failure(self, status)
        if status:
            raise AssertionError("the driver refused prepared arguments")
        return self.results(outputs)

    def try_run(self, values: Sequence) -> list | None:
        """Like `run` for values that may not fit, by one who has no access yet: None, and nothing was run, if they do not or
        the run would have to wait.
        """
        if self.suppliers is None:
            try:
                outputs = self.spare.pop()
            except IndexError:  # as many are in use as there are
                outputs = self.take_outputs()
            status = self.call(*values, *outputs)
            if not status:
                found = [o[()] for o in outputs]
                self.spare.append(outputs)
                return found
        else:
            outputs = [take() for take in self.suppliers]
            status = self.call(*values, *outputs)
            if not status:
                return self.results(outputs)
        if type(status) is bytes:
            raise self.executable.failure(self, status)
        return None

    def take_outputs(self) -> list[np.ndarray]:
        """Memory for the results that nobody else uses."""
        if self.suppliers is None:
            return [np.empty((), d) for d in self.executable.output_dtypes]
        return [take() for take in self.suppliers]

    def results(self, outputs: list[np.ndarray]) -> list:
        """The fetched values of a run that is over."""
        return [o[()] if scalar else o for o, scalar in zip(outputs, self.executable.scalars, strict=True)]


# texts -------------------------------------------------------------------------------------------------------------------


def _shape_error(spec: ArraySpec, array: np.ndarray, rule: str = "", other: ArraySpec | None = None):
    operands = [("tensor", spec_text(spec))] + ([("with", spec_text(other))] if other else [])
    expected = ", ".join(spec.shape) + ("," if len(spec.shape) == 1 else "")
    return report(FeedError, f"the value of shape {array.shape} does not fit {spec.name!r} of shape ({expected})", operands,
                  rule or f"rank {array.ndim} != {len(spec.shape)}")


def _location(text: str) -> Location | None:
    file, _, line = text.rpartition(":")
    return Location(file, int(line)) if file and line.isdigit() else None


def _value(bits: int, dtype: str):
    """A value from the 64 bits of the error slot."""
    if dtype in ("float32", "float16", "bfloat16"):  # the last two are float32 in registers
        return np.uint32(bits & 0xFFFFFFFF).view(np.float32)
    if dtype == "float64":
        return np.int64(bits).view(np.float64)
    if dtype == "uint64":
        return bits & (2**64 - 1)
    return bool(bits) if dtype == "bool" else bits


def _aligned_copy(array: np.ndarray) -> np.ndarray:
    copy, _ = aligned(array.shape, array.dtype)
    copy[...] = array
    return copy
