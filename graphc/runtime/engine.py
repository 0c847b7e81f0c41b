"""The native driver: walks the records of a frame, alone or with workers.  `layout.py` names every word used here.

Built and loaded once per process, on first use (`engine()`).  The native functions stand below in the order in which
they build on each other: gates, barrier, a thread's share of a run, the worker loop, a run, the entry of a bound call.
"""
import ctypes
import platform

from graphc.runtime.layout import (
    INTERRUPTED,
    AccessWord,
    ArgumentFlag,
    ArgumentWord,
    Busy,
    ErrorWord,
    FrameWord,
    GateWord,
    LoopWord,
    MoveWord,
    PoolWord,
    RecordFlag,
    RecordWord,
    Result,
)
from graphc.runtime.loader import load_objects, once, optimised_object
from graphc.runtime.native import BYTES, External, Global, native, native_inline, native_module

TRIAL_RUNS, WARM_UP, TRIAL_PERIOD = 8, 2, 512   # runs of each kind in a trial, of them not timed, runs between trials
PATIENCE = 1 << 27 if platform.machine().lower() in ("x86_64", "amd64") else 1 << 20    # clock ticks: 50 ms or less

# Byte offsets in CPython's and NumPy's objects; `driver.check_array_layout` compares them with a real array.
TYPE_OF_OBJECT = 8
ARRAY_DATA, ARRAY_NDIM, ARRAY_DIMS, ARRAY_DTYPE, ARRAY_FLAGS = 16, 24, 32, 56, 64
C_CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400      # NPY_ARRAY_*

ARRAY_TYPE = Global("array_type")       # address of numpy.ndarray
POOL = Global("pool")                   # address of the pool, or 0: nobody has asked for threads yet
START_POOL = Global("start_pool")       # address of `void (*)(void)` that sets POOL; called with the GIL held

PY_LONG = External("PyLong_FromLong", 1)
SAVE_THREAD = External("PyEval_SaveThread", 0)
RESTORE_THREAD = External("PyEval_RestoreThread", 1)
GIL_ENSURE = External("PyGILState_Ensure", 0)
GIL_RELEASE = External("PyGILState_Release", 1)
INTERRUPT_OCCURRED = External("PyOS_InterruptOccurred", 0)
SCHED_YIELD = External("sched_yield", 0)
MUTEX_INIT = External("pthread_mutex_init", 2)
MUTEX_LOCK = External("pthread_mutex_lock", 1)
MUTEX_UNLOCK = External("pthread_mutex_unlock", 1)
CONDITION_INIT = External("pthread_cond_init", 2)
CONDITION_WAIT = External("pthread_cond_wait", 2)
CONDITION_BROADCAST = External("pthread_cond_broadcast", 1)

PYTHON_SYMBOLS = [PY_LONG, SAVE_THREAD, RESTORE_THREAD, GIL_ENSURE, GIL_RELEASE, INTERRUPT_OCCURRED]
LIBC_SYMBOLS = [SCHED_YIELD, MUTEX_INIT, MUTEX_LOCK, MUTEX_UNLOCK, CONDITION_INIT, CONDITION_WAIT, CONDITION_BROADCAST]


# A gate: a counter that only grows.  `advance` adds one, `reach` waits until the counter has come to some value.

@native
def make_gate(c, gate):
    MUTEX_INIT(c, gate.at(GateWord.MUTEX), 0)
    CONDITION_INIT(c, gate.at(GateWord.CONDITION), 0)


@native
def advance(c, gate):
    # First the count, then the look at the sleepers; a sleeper does it in the other order, so one sees the other.
    c.atomic_add(gate.at(GateWord.COUNT), 1)
    with c.if_(c.atomic_load(gate.at(GateWord.SLEEPERS)) != 0, likely=False):
        MUTEX_LOCK(c, gate.at(GateWord.MUTEX))
        CONDITION_BROADCAST(c, gate.at(GateWord.CONDITION))
        MUTEX_UNLOCK(c, gate.at(GateWord.MUTEX))


@native
def sleep_until(c, gate, target):
    MUTEX_LOCK(c, gate.at(GateWord.MUTEX))
    c.atomic_add(gate.at(GateWord.SLEEPERS), 1)
    with c.loop() as loop:
        loop.leave_if(c.atomic_load(gate.at(GateWord.COUNT)) >= target)
        CONDITION_WAIT(c, gate.at(GateWord.CONDITION), gate.at(GateWord.MUTEX))
    c.atomic_add(gate.at(GateWord.SLEEPERS), -1)
    MUTEX_UNLOCK(c, gate.at(GateWord.MUTEX))


@native
def reach(c, pool, gate, target):
    """Spins for microseconds; then yields, since the one waited for may need this very processor; then sleeps."""
    with c.count(pool[PoolWord.SPINS]):
        with c.if_(c.atomic_load(gate.at(GateWord.COUNT)) >= target):
            c.return_()
        c.pause()
    with c.count(pool[PoolWord.YIELDS]):
        with c.if_(c.atomic_load(gate.at(GateWord.COUNT)) >= target):
            c.return_()
        SCHED_YIELD(c)
    sleep_until(c, gate, target)


def failed(c, frame):
    """1 if the error slot is set."""
    return (frame[FrameWord.ERROR][ErrorWord.STATE] != 0).choose(1, 0)


@native
def barrier(c, frame, pool, threads, target, record):
    """Waits until all threads are here: the phase gate reaches `target`.

    The last to arrive decides for all whether the run stops: when each looked for itself, a fast thread's next kernel
    could set the error slot before a slow one has looked.  STOP holds until all are at the next barrier.  It also
    turns the loop whose LOOP or NEXT `record` is (0: none), while nobody looks at the loop's words.
    """
    with c.if_else(c.atomic_add(pool.at(PoolWord.ARRIVED), 1) == threads - 1) as (last, others):
        with last:
            c.atomic_store(pool.at(PoolWord.ARRIVED), 0)
            pool[PoolWord.STOP] = failed(c, frame)
            with c.if_(record != 0):
                turn(c, record)
            advance(c, pool.at(PoolWord.PHASE))
        with others:
            reach(c, pool, pool.at(PoolWord.PHASE), target)


# Loops.  All threads walk the same records and decide alike: what they decide by changes only while all of them meet.

ITERATION = 0x5851F42D4C957F2D      # as in `ir.interpreter.iteration_number`


@native
def turn(c, record):
    """Starts a loop, or its next iteration: counts, numbers the random ops' run, and moves the addresses of rows."""
    table = record[RecordWord.TABLE]
    counter = table[LoopWord.COUNT]
    count = c.variable(0)
    with c.if_((record[RecordWord.FLAGS] & RecordFlag.LOOP) == 0):
        count.value = counter[0] + 1
    counter[0] = count.value
    with c.if_(count.value < table[LoopWord.LIMIT]):        # else there is no such row
        row = (table[LoopWord.REVERSE] != 0).choose(table[LoopWord.LIMIT] - 1 - count.value, count.value)
        table[LoopWord.RUN][0] = table[LoopWord.PARENT][0] * ITERATION + row + 1
        move = c.variable(table.at(LoopWord.SIZE))
        with c.count(table[LoopWord.MOVES]):
            now = move.value
            now[MoveWord.PLACE][0] = now[MoveWord.BASE] + row * now[MoveWord.STEP]
            move.value = now.at(MoveWord.SIZE)


def goes_on(record):
    """Whether the loop of a LOOP or NEXT has another iteration."""
    table = record[RecordWord.TABLE]
    return table[LoopWord.COUNT][0] < table[LoopWord.LIMIT]


@native
def heed_user(c, frame):
    """Sets the error slot when Ctrl-C was pressed; looks only now and then, since it takes Python's lock."""
    now = c.clock()
    with c.if_(now - frame[FrameWord.LOOKED] > PATIENCE, likely=False):
        frame[FrameWord.LOOKED] = now
        lock = GIL_ENSURE(c)
        error = frame[FrameWord.ERROR]
        with c.if_((INTERRUPT_OCCURRED(c) & 0xFFFFFFFF) != 0), c.if_(c.take(error.at(ErrorWord.STATE))):
            error[ErrorWord.RECORD] = INTERRUPTED
        GIL_RELEASE(c, lock)


# A run: the share of each thread, then the two ways to run a frame.

CONTROL = RecordFlag.LOOP | RecordFlag.NEXT | RecordFlag.UNLESS | RecordFlag.JUMP | RecordFlag.MEET
TURNS = RecordFlag.LOOP | RecordFlag.NEXT
STOPS = RecordFlag.MAY_FAIL | TURNS
OWN_LOOP = RecordFlag.LOOP | RecordFlag.SERIAL


@native
def play(c, frame, pool, thread, threads):
    """All records of the frame, as one of `threads` threads; `pool` is not used when alone."""
    phase = c.variable(0)
    with c.if_(threads > 1):
        # It cannot move on before this thread has been at the first barrier.
        phase.value = c.atomic_load(pool.at(PoolWord.PHASE + GateWord.COUNT))
    team = c.variable(threads)      # threads that meet: 1 while thread 0 runs a loop by itself
    end = c.variable(0)             # where it meets the others after that
    following = c.variable(0)
    with c.loop() as loop:
        number = following.value
        loop.leave_if(number >= frame[FrameWord.RECORD_COUNT])
        following.value = number + 1
        record = frame[FrameWord.RECORDS].at(number * RecordWord.SIZE)
        flags = record[RecordWord.FLAGS]
        with c.if_else((flags & CONTROL) == 0) as (call, control):
            with call:
                serial = (flags & RecordFlag.SERIAL) != 0
                with c.if_((thread == 0) | ((flags & RecordFlag.SERIAL) == 0)):
                    c.call_address(record[RecordWord.KERNEL], record[RecordWord.TABLE], thread,
                                   serial.choose(1, team.value))
            with control:
                branch(c, record, flags, threads, team, following)
        with c.if_((flags & (RecordFlag.BARRIER | STOPS)) != 0):
            meet(c, frame, pool, thread, threads, number, record, flags, phase, team, end, following)


def branch(c, record, flags, threads, team, following):
    """The part of a control record before threads meet."""
    target = record[RecordWord.TARGET]
    with c.if_((flags & RecordFlag.UNLESS) != 0), c.if_(record[RecordWord.TABLE][0].byte_at(0) == 0):
        following.value = target
    with c.if_((flags & RecordFlag.JUMP) != 0):
        following.value = target
    with c.if_((flags & (RecordFlag.MEET | RecordFlag.SERIAL)) == (RecordFlag.MEET | RecordFlag.SERIAL)):
        team.value = threads


def meet(c, frame, pool, thread, threads, number, record, flags, phase, team, end, following):
    """All threads meet; a loop turns, a failed run stops."""
    stop = c.variable(0)
    turns = (flags & TURNS) != 0
    with c.if_(((flags & RecordFlag.NEXT) != 0) & (thread == 0)):
        heed_user(c, frame)
    with c.if_else(team.value > 1) as (together, alone):
        with together:
            phase.value = phase.value + 1
            barrier(c, frame, pool, threads, phase.value, turns.choose(record, 0))
            stop.value = pool[PoolWord.STOP]
        with alone:
            stop.value = failed(c, frame)
            with c.if_(turns):
                turn(c, record)
    with c.if_(turns):
        starts = (flags & RecordFlag.LOOP) != 0
        with c.if_(goes_on(record) ^ starts):
            following.value = record[RecordWord.TARGET]
    with c.if_(((flags & STOPS) != 0) & (stop.value != 0), likely=False):
        with c.if_(team.value == threads):
            with c.if_(thread == 0):
                frame[FrameWord.STOPPED_AT] = number
            c.return_()
        following.value = end.value     # where the others wait, and stop with this thread
    with c.if_(((flags & OWN_LOOP) == OWN_LOOP) & (team.value > 1)):
        end.value = record[RecordWord.TARGET]
        with c.if_else(thread == 0) as (first, others):
            with first:
                team.value = 1
            with others:
                following.value = end.value


def mailbox(pool, worker):
    return pool.at(PoolWord.MAILBOXES) + (worker - 1) * (GateWord.SIZE * BYTES)


@native
def take_lock(c, lock):
    """1 if the word was 0 and now is 1."""
    c.return_(c.take(lock).choose(1, 0))


@native
def worker_loop(c, pool, worker):
    """What a worker thread does all its life: one share of each job that is posted to its mailbox."""
    jobs = c.variable(0)
    advance(c, pool.at(PoolWord.READY))
    with c.loop() as loop:
        jobs.value = jobs.value + 1
        reach(c, pool, mailbox(pool, worker), jobs.value)
        loop.leave_if(pool[PoolWord.LEAVE] != 0)
        play(c, pool[PoolWord.JOB_FRAME], pool, worker, pool[PoolWord.JOB_THREADS])
        advance(c, pool.at(PoolWord.DONE))


@native
def play_with_team(c, frame, pool, threads):
    """The caller is thread 0.  When this returns no worker touches the frame any more."""
    all_done = c.atomic_load(pool.at(PoolWord.DONE + GateWord.COUNT)) + threads - 1
    pool[PoolWord.JOB_FRAME] = frame
    pool[PoolWord.JOB_THREADS] = threads
    with c.count(threads, first=1) as worker:
        advance(c, mailbox(pool, worker))
    play(c, frame, pool, 0, threads)
    reach(c, pool, pool.at(PoolWord.DONE), all_done)


# Whether other threads pay is measured, again and again: they cost wake-ups and barriers, and on a loaded machine a late
# thread costs more than it saves. Results do not depend on the choice.

@native_inline
def team_pays(c, frame):
    """1 if this run should use its team: in a trial the first runs do, the next do not, later ones do what was faster."""
    number = frame[FrameWord.TRIAL]
    with c.if_(number < TRIAL_RUNS):
        c.return_(1)
    with c.if_(number < 2 * TRIAL_RUNS):
        c.return_(0)
    c.return_((frame[FrameWord.TEAM_TIME] <= frame[FrameWord.ALONE_TIME]).choose(1, 0))


@native_inline
def learn(c, frame, time):
    """Count the run, and add its time to those of its kind; the first of a kind only warm up."""
    number = frame[FrameWord.TRIAL]
    with c.if_(number < 0):
        c.return_()
    with c.if_(number == 0):
        frame[FrameWord.TEAM_TIME] = 0
        frame[FrameWord.ALONE_TIME] = 0
    with c.if_((number >= WARM_UP) & (number < TRIAL_RUNS)):
        frame[FrameWord.TEAM_TIME] = frame[FrameWord.TEAM_TIME] + time
    with c.if_((number >= TRIAL_RUNS + WARM_UP) & (number < 2 * TRIAL_RUNS)):
        frame[FrameWord.ALONE_TIME] = frame[FrameWord.ALONE_TIME] + time
    frame[FrameWord.TRIAL] = (number + 1 < TRIAL_PERIOD).choose(number + 1, 0)


# Variables: many runs may read them at once, or one may write. A run that may not begin steps back at once; waiting is
# Python's part (`access.py`), which sets WANTED and waits until the words are free. Whoever comes sets his own word
# first and looks at the others' then, so of two that exclude each other at least one steps back.

@native
def enter(c, frame):
    """1 if the run may begin: then `leave` must follow."""
    access = frame[FrameWord.ACCESS]
    readers, writer = access.at(AccessWord.READERS), access.at(AccessWord.WRITER)
    with c.if_(access == 0):
        c.return_(1)
    with c.if_(frame[FrameWord.WRITES] != 0):
        with c.if_(c.take(writer)):
            with c.if_((c.atomic_load(readers) == 0) & (c.atomic_load(access.at(AccessWord.WANTED)) == 0)):
                c.return_(1)
            c.atomic_store(writer, 0)
        c.return_(0)
    c.atomic_add(readers, 1)
    with c.if_((c.atomic_load(writer) == 0) & (c.atomic_load(access.at(AccessWord.WANTED)) == 0)):
        c.return_(1)
    c.atomic_add(readers, -1)


@native_inline
def leave(c, frame):
    access = frame[FrameWord.ACCESS]
    with c.if_(access != 0):
        with c.if_else(frame[FrameWord.WRITES] != 0) as (writes, reads):
            with writes:
                c.atomic_store(access.at(AccessWord.WRITER), 0)
            with reads:
                c.atomic_add(access.at(AccessWord.READERS), -1)


@native
def add_to_word(c, address, amount):
    """Adds atomically, and gives the value from before."""
    c.return_(c.atomic_add(address, amount))


@native
def run_taken(c, frame, threads):
    """Runs a frame whose busy word the caller has set; gives OK or FAILED."""
    frame[FrameWord.ERROR][ErrorWord.STATE] = 0
    frame[FrameWord.STOPPED_AT] = -1
    frame[FrameWord.RUN] = c.atomic_add(frame[FrameWord.COUNTER], 1)
    pool = POOL.address(c)[0]
    alone = c.variable(1)
    start = c.clock()
    frame[FrameWord.LOOKED] = start
    with c.if_((threads > 1) & (pool != 0) & (team_pays(c, frame) != 0)):
        size = pool[PoolWord.THREADS]
        team = (threads < size).choose(threads, size)
        with c.if_(team > 1):
            with c.if_(c.take(pool.at(PoolWord.LOCK))):         # taken by another run: do it alone rather than wait
                play_with_team(c, frame, pool, team)
                c.atomic_store(pool.at(PoolWord.LOCK), 0)
                alone.value = 0
    with c.if_(alone.value != 0):
        play(c, frame, 0, 0, 1)
    learn(c, frame, c.clock() - start)
    with c.if_(failed(c, frame) != 0, likely=False):
        # Not free, lest another thread's run clears the error before this one's caller has read it.
        c.atomic_store(frame[FrameWord.BUSY_AT], Busy.FAILED)
        c.return_(Result.FAILED)
    c.atomic_store(frame[FrameWord.BUSY_AT], Busy.FREE)
    c.return_(Result.OK)


@native
def run(c, frame, threads):
    """For Python's slow path, called without the GIL."""
    with c.if_(c.take(frame[FrameWord.BUSY_AT])):
        c.return_(run_taken(c, frame, threads))
    c.return_(Result.BUSY)


# The bound call: `PyObject *entry(PyObject *self, PyObject *const *arguments, Py_ssize_t count)`.

@native_inline
def fits(c, array, wanted):
    """1 if the object is an array as its descriptor wants it."""
    flags = wanted[ArgumentWord.FLAGS]
    with c.if_((flags & ArgumentFlag.TRUSTED) != 0):
        c.return_(1)
    with c.if_((array + TYPE_OF_OBJECT)[0] != ARRAY_TYPE.address(c)[0]):       # first: the rest reads array fields
        c.return_(0)
    needed = ((flags & ArgumentFlag.WRITEABLE) != 0).choose(C_CONTIGUOUS | ALIGNED | WRITEABLE, C_CONTIGUOUS | ALIGNED)
    ndim = wanted[ArgumentWord.NDIM]
    same = (array + ARRAY_DTYPE)[0] == wanted[ArgumentWord.DTYPE]
    same = same & (array.int32_at(ARRAY_NDIM) == ndim)
    same = same & ((array.int32_at(ARRAY_FLAGS) & needed) == needed)
    with c.if_(same):
        dims = (array + ARRAY_DIMS)[0]
        with c.count(ndim) as axis:
            with c.if_(dims[axis] != wanted[ArgumentWord.DIMS][axis]):
                c.return_(0)
        c.return_(1)


@native_inline
def patch(c, array, wanted):
    """Writes the array's data pointer to where the records' tables want it."""
    data = (array + ARRAY_DATA)[0]
    places = wanted[ArgumentWord.PATCHES]
    with c.count(wanted[ArgumentWord.PATCH_COUNT]) as i:
        places[i][0] = data


def descriptor(frame, number):
    return frame[FrameWord.ARGUMENTS] + number * (ArgumentWord.SIZE * BYTES)


def bound_call(c, self, arguments, count, asks):
    """asks: the run asks for the variables; else its caller holds them already."""
    frame = (self + ARRAY_DATA)[0]
    with c.if_((frame[FrameWord.THREADS] > 1) & (POOL.address(c)[0] == 0), likely=False):
        c.call_address(START_POOL.address(c)[0])          # before the checks: it lets other Python threads run
    with c.if_(count != frame[FrameWord.ARGUMENT_COUNT], likely=False):
        c.return_(PY_LONG(c, Result.COUNT))
    with c.count(count) as k:
        with c.if_(fits(c, arguments[k], descriptor(frame, k)) == 0, likely=False):
            c.return_(PY_LONG(c, k + Result.MISMATCH))
    with c.if_else(c.take(frame[FrameWord.BUSY_AT])) as (free, taken):
        with taken:
            c.return_(PY_LONG(c, Result.BUSY))
        with free:
            if asks:
                with c.if_(enter(c, frame) == 0, likely=False):
                    c.atomic_store(frame[FrameWord.BUSY_AT], Busy.FREE)
                    c.return_(PY_LONG(c, Result.BUSY))
            with c.count(count) as k:                      # only now: a run in progress reads the patched words
                patch(c, arguments[k], descriptor(frame, k))

    def run_and_leave():
        result = run_taken(c, frame, frame[FrameWord.THREADS])
        if asks:
            leave(c, frame)
        return result
    with c.if_(frame[FrameWord.RELEASE_GIL] != 0):
        state = SAVE_THREAD(c)
        result = run_and_leave()
        RESTORE_THREAD(c, state)
        c.return_(PY_LONG(c, result))
    c.return_(PY_LONG(c, run_and_leave()))


@native
def entry(c, self, arguments, count):
    bound_call(c, self, arguments, count, asks=True)


@native
def entry_with_variables(c, self, arguments, count):
    bound_call(c, self, arguments, count, asks=False)


EXPORTED = [entry, entry_with_variables, run, worker_loop, make_gate, advance, reach, take_lock, add_to_word]


class Engine:
    """The loaded driver: functions callable from Python (they release the GIL) and its static words."""

    def __init__(self, object_code):
        functions, words = [f.name for f in EXPORTED], [ARRAY_TYPE.name, POOL.name, START_POOL.name]
        imports = _symbol_addresses()
        self.library = load_objects({"driver": object_code}, exports=functions + words,
                                    allowed=imports, imports=imports)
        self.entry_address = self.library.address(entry.name)
        self.entry_with_variables_address = self.library.address(entry_with_variables.name)
        self.run = self._callable(run)
        self.worker_loop = self._callable(worker_loop)
        self.make_gate = self._callable(make_gate)
        self.advance = self._callable(advance)
        self.reach = self._callable(reach)
        self.take_lock = self._callable(take_lock)
        self.add_to_word = self._callable(add_to_word)
        self.array_type, self.pool, self.start_pool = (
            ctypes.c_int64.from_address(self.library.address(word)) for word in words)
        # Worker threads may still be inside this code when the interpreter takes its modules apart: never unload it.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.library))

    def _callable(self, function):
        kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * function.arity)
        return kind(self.library.address(function.name))


def _symbol_addresses():
    """Looked up through ctypes: where libpython is loaded privately (embedding) LLVM's own search would not find it."""
    places = [(ctypes.pythonapi, PYTHON_SYMBOLS), (ctypes.CDLL(None), LIBC_SYMBOLS)]
    return {symbol.name: ctypes.cast(getattr(library, symbol.name), ctypes.c_void_p).value
            for library, symbols in places for symbol in symbols}


def build():
    """Object code of the driver for this machine."""
    module = native_module("graphc_driver", EXPORTED, [ARRAY_TYPE, POOL, START_POOL])
    return optimised_object(module, thorough=False)


@once
def engine():
    return Engine(build())
