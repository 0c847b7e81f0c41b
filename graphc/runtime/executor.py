"""Runs programs: binds them to sizes and memory, calls the native driver, turns its results into arrays and errors."""
from __future__ import annotations

import itertools
import os
import re
import signal
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np

from graphc.errors import FeedError, Location, ParseError, RunError, report
from graphc.ir import dims
from graphc.memory import THREADS, Memory, over_budget
from graphc.program import ArraySpec, FailureSpec, Program, array_dtype
from graphc.runtime import driver, threads
from graphc.runtime.access import Access
from graphc.runtime.layout import INTERRUPTED, Busy, ErrorWord, Result
from graphc.runtime.library import engine
from graphc.runtime.loader import load_objects
from graphc.runtime.memory import Pool, Slot, aligned
from graphc.runtime.template import Template

TEAM_MICROSECONDS = 12      # shorter runs use one thread; longer ones may use others, where that is measured to pay
PARALLEL_MICROSECONDS = 50  # longer runs use others from the first on
RELEASE_MICROSECONDS = 5    # shorter runs keep Python's lock
SERIAL_MICROSECONDS = 2     # a kernel shorter than this is not worth splitting
DENSE_RATE = 60e3           # multiply-adds and loop operations that one core does in a microsecond, roughly
LOOP_RATE = 40e3
KEPT_SIZES = 64             # bound instances kept for different sizes of the named dims

_DIM = re.compile(r"[\w+\-*/(), ]*\Z")
_WORDS = re.compile(r"[A-Za-z_]\w*")
_PLAIN = {THREADS, "max", "min"}


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
        self.layout = _layout_function(program)
        self.binder = _binder(program)
        self.lanes = [Lane()]
        self.counter = np.zeros(1, np.int64) if counter is None else counter
        self.constant_addresses = [c.ctypes.data for c in self.constants]
        self.variable_addresses = [v.ctypes.data for v in self.variables]
        self.dense = [r.dense for r in program.records]
        self.always_serial = [r.serial or r.kind != "call" for r in program.records]
        self.template = Template(program, self.addresses, self.layout, self.counter.ctypes.data,
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
        lane = next((lane for lane in self.lanes if lane.is_free()), None)
        if lane is None:
            lane = Lane()
            self.lanes.append(lane)
        key = (thread_count(), *(a.shape for a in arrays))
        found = lane.instances.get(key)
        if found is None:
            found = lane.instances[key] = Instance(self, lane, self.sizes(arrays))
            if len(lane.instances) > KEPT_SIZES:
                lane.instances.popitem(last=False)
        else:
            lane.instances.move_to_end(key)
        return found

    def check_budget(self, sizes: Mapping[str, int]) -> None:
        """Raise BudgetError where a run on these sizes of the named dims takes too much."""
        if self.budget is not None:
            memory = Memory([self.program], thread_count())
            if memory.bytes(**sizes) > self.budget:
                raise over_budget(memory, self.budget, sizes)

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
        for name, k, axis, rest, factor in _told_sizes(self.program):
            env[name] = (arrays[k].shape[axis] - eval(str(rest), functions, env)) // factor
            source[name] = self.program.feeds[k]
            if env[name] < 0:
                return _shape_error(source[name], arrays[k], f"{name} = {env[name]} is negative")
        for spec, array in zip(self.program.feeds, arrays, strict=True):
            for dim, size in zip(spec.shape, array.shape, strict=True):
                expected = eval(dim, functions, env)  # checked by _checked: names, numbers and operators only
                if expected != size:
                    other = next((source[w] for w in _WORDS.findall(dim) if w in source and source[w] is not spec), None)
                    return _shape_error(spec, array, f"{dim} = {expected} != {size}" if dim != str(expected)
                                        else f"{expected} != {size}", other)
        for left, right, line in self.program.equations:
            a, b = eval(left, functions, env), eval(right, functions, env)
            if a != b:
                return report(FeedError, f"the sizes of the feeds do not fit together: {left} != {right}",
                              [(s.name, f"{_spec_text(s)}") for s in self.program.feeds], f"{a} != {b}",
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
        self.arena = aligned((0,), np.dtype(np.uint8))
        self.instances: OrderedDict[tuple, Instance] = OrderedDict()
        self.process = os.getpid()

    def is_free(self) -> bool:
        """Whether no run is on. What another thread ran here when this process was forked off counts as over."""
        if self.process != os.getpid():
            self.words[:] = 0
            self.process = os.getpid()
        return self.words[0] == Busy.FREE

    def room(self, size: int, exactly: bool) -> tuple[np.ndarray, np.ndarray]:
        """The arena, at least `size` bytes; where it must grow, with `exactly` no more, and the old one is let go."""
        if self.arena[0].size < size:
            if exactly:
                self.instances.clear()
            else:
                size = max(size, 2 * self.arena[0].size)  # or every larger batch would touch fresh pages again
            self.arena = aligned((size,), np.dtype(np.uint8))
        return self.arena


class Instance:
    """A program bound to sizes: the argument table, the arena, and the native calls."""

    def __init__(self, executable: Executable, lane: Lane, sizes: tuple[int, ...]):
        program = executable.program
        self.executable, self.lane, self.sizes = executable, lane, sizes
        count = thread_count()
        executable.check_budget(dict(zip(program.names, sizes, strict=True)))
        words, shapes, outputs, work, total = executable.layout(
            count, 0, executable.constant_addresses, executable.variable_addresses, *sizes)
        arena = lane.room(total, exactly=executable.budget is not None)
        busy = lane.words.ctypes.data
        times = [w / (DENSE_RATE if dense else LOOP_RATE) for (w, _), dense in zip(work, executable.dense, strict=True)]
        total_time = sum(t * repeats for t, (_, repeats) in zip(times, work, strict=True))
        serial = [t < SERIAL_MICROSECONDS for t in times]
        if total_time <= TEAM_MICROSECONDS or all(a or b for a, b in zip(serial, executable.always_serial, strict=True)):
            count = 1
        self.frame = executable.template.instance(
            words, [d for shape in (*shapes, *outputs) for d in shape], arena[0].ctypes.data, busy, busy + 8,
            serial, count, alone_first=total_time < PARALLEL_MICROSECONDS,
            release_gil=total_time > RELEASE_MICROSECONDS or program.may_run_long, keep=(executable, arena, lane))
        self.call, self.call_with_variables = driver.bind(self.frame), driver.bind(self.frame, has_variables=True)
        self.generation = threads.generation
        self.output_shapes = outputs
        self.scalars = [not shape for shape in outputs]
        self.dtypes = [array_dtype(spec.dtype) for spec in program.outputs]
        self.spare: list[list[np.ndarray]] = []  # memory for scalars, which leave as values: none that a run uses now
        self.pools = None if all(self.scalars) else [
            Slot(d) if scalar else Pool(shape, d) for shape, d, scalar in zip(outputs, self.dtypes, self.scalars, strict=True)]

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
        if self.pools is None:
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
            outputs = [pool.take() for pool in self.pools]
            status = self.call(*values, *outputs)
            if not status:
                return self.results(outputs)
        if type(status) is bytes:
            raise self.executable.failure(self, status)
        return None

    def take_outputs(self) -> list[np.ndarray]:
        """Memory for the results that nobody else uses."""
        return [np.empty((), d) for d in self.dtypes] if self.pools is None else [pool.take() for pool in self.pools]

    def results(self, outputs: list[np.ndarray]) -> list:
        """The fetched values of a run that is over."""
        return [o[()] if scalar else o for o, scalar in zip(outputs, self.scalars, strict=True)]


# layout ------------------------------------------------------------------------------------------------------------------


class _Layout:
    """A generated function from sizes to all words of the argument table, and the positions of words to patch."""

    slot_words: list[int]
    run_words: list[int]
    error_words: list[int]
    feed_words: list[list[int]]
    output_words: list[list[int]]
    span_words: list[int]          # see FrameWord.SPAN
    places: list[tuple[int, int]]  # a word, and the word whose address it holds

    def __init__(self, function):
        self.function = function

    def __call__(self, *args):
        return self.function(*args)


def _checked(text: str, names) -> str:
    """A dim text that is safe to evaluate: numbers, operators, known names, max and min. Names get a prefix, lest they be those
    of other things in the generated function.
    """
    if not _DIM.match(text) or any(w not in names for w in _WORDS.findall(text)):
        raise report(ParseError, f"the program is damaged: {text!r} is not a dim")
    return _WORDS.sub(lambda word: word[0] if word[0] in _PLAIN else f"n_{word[0]}", text)


def _layout_function(program: Program) -> _Layout:
    names = {*program.names, *_PLAIN}
    lines = [f"def layout({THREADS}, base, constants, variables{''.join(', n_' + n for n in program.names)}):"]
    lines += [f"    slot{k} = base + {_checked(place, names)}" for k, place in enumerate(program.slots)]
    words: list[str] = []
    limits = {"feed": len(program.feeds), "variable": len(program.variables), "constant": len(program.constants),
              "output": len(program.outputs), "slot": len(program.slots), "drawn": len(program.drawn), "run": 0, "error": 0}
    layout = _Layout(None)
    layout.slot_words, layout.run_words, layout.error_words, layout.span_words = [], [], [], []
    layout.feed_words, layout.output_words = [[] for _ in program.feeds], [[] for _ in program.outputs]
    patched = {"feed": layout.feed_words, "output": layout.output_words}
    layout.places = _place_words(program)
    for record in program.records:
        for word in record.words:
            kind, _, rest = word.partition(" ")
            if word == "span":
                layout.span_words.append(len(words))
            if kind == "=" or kind == "place" or word in ("row", "span"):
                words.append(_checked(rest, names) if kind == "=" else "0")
                continue
            if kind not in limits or not (rest.isdecimal() and int(rest) < limits[kind] or rest == "" and not limits[kind]):
                raise report(ParseError, f"the program is damaged: {word!r} is not an argument of a kernel")
            if kind == "slot":
                layout.slot_words.append(len(words))
            elif kind in patched:
                patched[kind][int(rest)].append(len(words))
            elif kind in ("run", "error"):
                (layout.run_words if kind == "run" else layout.error_words).append(len(words))
            if kind == "drawn":
                words.append(str(int(program.drawn[int(rest)])))
                continue
            texts = {"slot": f"slot{rest}", "constant": f"constants[{rest}]", "variable": f"variables[{rest}]"}
            words.append(texts.get(kind, "0"))

    def shapes(specs) -> str:
        return "[" + ", ".join("(" + "".join(_checked(d, names) + ", " for d in s.shape) + ")" for s in specs) + "]"
    work = ", ".join(f"({_checked(r.work, names)}, {_checked(r.repeats, names)})" for r in program.records)
    lines.append(f"    return [{', '.join(words)}], {shapes(program.feeds)}, {shapes(program.outputs)}, [{work}], "
                 f"{_checked(program.arena, names)}")
    space = {"max": max, "min": min, "__builtins__": {}}
    exec("\n".join(lines), space)
    layout.function = space["layout"]
    return layout


def _place_words(program: Program) -> list[tuple[int, int]]:
    """(position, position of the word whose address is wanted there) of the words that say so."""
    starts = list(itertools.accumulate((len(r.words) for r in program.records), initial=0))
    found = []
    for start, record in zip(starts, program.records, strict=False):
        for k, word in enumerate(record.words):
            if word.startswith("place"):
                match = re.fullmatch(r"place (\d+) (\d+)", word)
                number, place = map(int, match.groups()) if match else (-1, 0)
                if not (0 <= number < len(program.records) and place < len(program.records[number].words)):
                    raise report(ParseError, f"the program is damaged: {word!r} is not a place")
                found.append((start + k, starts[number] + place))
    return found


def _told_sizes(program: Program) -> list[tuple[str, int, int, dims.Size, int]]:
    """Which axis of which feed tells each named dim, in the order in which they can be found: (name, feed, axis, rest, factor)
    where the axis has the size factor * name + rest.
    """
    axes = [(k, axis, dim) for k, spec in enumerate(program.feeds) for axis, dim in enumerate(spec.shape)]
    found: dict[str, tuple[str, int, int, dims.Size, int]] = {}
    for k, axis, dim in axes:
        if dim.isidentifier():
            found.setdefault(dim, (dim, k, axis, 0, 1))
    waiting = [(k, axis, dims.parse(dim)) for k, axis, dim in axes if not dim.isidentifier() and not dim.isdecimal()]
    while True:
        for k, axis, size in waiting:
            unknown = [n for n in dims.names(size) if n not in found]
            factor = dict(size.terms).get((unknown[0],)) if len(unknown) == 1 and isinstance(size, dims.Dim) else None
            rest = size - dims.name(unknown[0]) * factor if factor else size
            if factor and unknown[0] not in dims.names(rest):
                found[unknown[0]] = unknown[0], k, axis, rest, factor
                break
        else:
            return list(found.values())


def _binder(program: Program):
    """A generated function from the feeds' shapes to the sizes of the named dims; None where they do not fit."""
    names = {*program.names, "max", "min"}
    lines = [f"def bind({', '.join(f's{k}' for k in range(len(program.feeds)))}):"]
    for k, spec in enumerate(program.feeds):
        sizes = [f"d{k}_{axis}, " for axis in range(len(spec.shape))]
        lines.append(f"    {''.join(sizes)} = s{k}" if sizes else f"    () = s{k}")
    found = _told_sizes(program)
    plain = {(k, axis) for _, k, axis, rest, factor in found if not rest and factor == 1}
    checks = [f"d{k}_{axis} == {_checked(dim, names)}" for k, spec in enumerate(program.feeds)
              for axis, dim in enumerate(spec.shape) if (k, axis) not in plain]
    for name, k, axis, rest, factor in found:
        value = f"d{k}_{axis}" if (k, axis) in plain else f"(d{k}_{axis} - ({_checked(str(rest), names)})) // {factor}"
        lines.append(f"    {_checked(name, names)} = {value}")
        checks += [f"n_{name} >= 0"] if rest else []
    checks += [f"{_checked(a, names)} == {_checked(b, names)}" for a, b, _ in program.equations]
    missing = [n for n in program.names if n not in [name for name, *_ in found]]
    if missing:
        raise report(FeedError, f"no feed tells the size of {', '.join(missing)}",
                     [(s.name, _spec_text(s)) for s in program.feeds],
                     "a named dim must be an axis of a tensor that is fed")
    lines.append(f"    return ({''.join(f'n_{n}, ' for n in program.names)}) if {' and '.join(checks) or 'True'} else None")
    space = {"max": max, "min": min, "__builtins__": {}}
    exec("\n".join(lines), space)
    return space["bind"]


# texts -------------------------------------------------------------------------------------------------------------------


def _spec_text(spec: ArraySpec) -> str:
    return f"{spec.name}: {spec.dtype}[{','.join(spec.shape)}]" + (f"  made at {spec.location}" if spec.location else "")


def _shape_error(spec: ArraySpec, array: np.ndarray, rule: str = "", other: ArraySpec | None = None):
    operands = [("tensor", _spec_text(spec))] + ([("with", _spec_text(other))] if other else [])
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
