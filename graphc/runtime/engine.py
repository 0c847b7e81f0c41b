"""The native driver: walks the records of a frame, alone or with workers.  `layout.py` names every word used here.

`library.py` loads it, and imports this file only to build it.  The native functions stand below in the order in which
they build on each other: the worker loop, a run, the entry of a bound call, a series of runs; `walk.py` has a thread's
share of a run.
"""
from graphc.runtime.layout import (
    ALIGNED,
    ARRAY_DATA,
    ARRAY_DIMS,
    ARRAY_DTYPE,
    ARRAY_FLAGS,
    ARRAY_NDIM,
    C_CONTIGUOUS,
    LONG_PERIOD,
    SHORT_PERIOD,
    TRIAL_RUNS,
    TYPE_OF_OBJECT,
    WARM_UP,
    WRITEABLE,
    AccessWord,
    ArgumentFlag,
    ArgumentWord,
    Busy,
    ErrorWord,
    FrameWord,
    GateWord,
    PoolWord,
    Result,
    StepsWord,
    StepWord,
)
from graphc.runtime.loader import optimised_object
from graphc.runtime.native import BYTES, External, Global, native, native_inline, native_module
from graphc.runtime.walk import LIBC_SYMBOLS, PATIENCE, WALK_SYMBOLS, advance, failed, make_gate, play, reach

ARRAY_TYPE = Global("array_type")       # address of numpy.ndarray
POOL = Global("pool")                   # address of the pool, or 0: nobody has asked for threads yet
START_POOL = Global("start_pool")       # address of `void (*)(void)` that sets POOL; called with the GIL held

PY_LONG = External("PyLong_FromLong", 1)
PY_BYTES = External("PyBytes_FromStringAndSize", 2)
SAVE_THREAD = External("PyEval_SaveThread", 0)
RESTORE_THREAD = External("PyEval_RestoreThread", 1)
MEMCPY = External("memcpy", 3)
PYTHON_SYMBOLS = [PY_LONG, PY_BYTES, SAVE_THREAD, RESTORE_THREAD, *WALK_SYMBOLS]


# The two ways to run a frame.

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
    c.return_(frame[FrameWord.PAYS])


@native_inline
def learn(c, frame, time):
    """Count the run, and add its time to those of its kind; the first of a kind only warm up. A trial that says something new
    may have been disturbed: the next one comes soon.
    """
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
    with c.if_(number == 2 * TRIAL_RUNS - 1):
        pays = (frame[FrameWord.TEAM_TIME] <= frame[FrameWord.ALONE_TIME]).choose(1, 0)
        period = frame[FrameWord.PERIOD] * 2
        longer = (period < LONG_PERIOD).choose(period, LONG_PERIOD)
        frame[FrameWord.PERIOD] = (pays == frame[FrameWord.PAYS]).choose(longer, SHORT_PERIOD)
        frame[FrameWord.PAYS] = pays
    frame[FrameWord.TRIAL] = (number + 1 < frame[FrameWord.PERIOD]).choose(number + 1, 0)


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
def hold(c, word, mine):
    """Adds one to a word that many count in, and to the caller's own."""
    c.atomic_add(word, 1)
    mine[0] = mine[0] + 1


@native
def release(c, word, mine):
    """Takes back what the caller has added, if anything."""
    c.atomic_add(word, c.word(0) - mine[0])
    mine[0] = 0


@native
def read(c, word):
    """After all that was written before."""
    c.return_(c.atomic_add(word, 0))


@native
def run_taken(c, frame, threads):
    """Runs a frame whose busy word the caller has set and clears; 1 if it failed: then the error slot says how."""
    frame[FrameWord.ERROR][ErrorWord.STATE] = 0
    frame[FrameWord.ERROR][ErrorWord.STOPPED_AT] = -1
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
    c.return_(failed(c, frame))


@native
def run(c, frame, threads):
    """For Python, called without the GIL."""
    with c.if_(c.take(frame[FrameWord.BUSY_AT])):
        wrong = run_taken(c, frame, threads)
        c.atomic_store(frame[FrameWord.BUSY_AT], Busy.FREE)
        c.return_((wrong != 0).choose(Result.FAILED, Result.OK))
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
def patch(c, data, wanted):
    """Writes a data pointer to where the records' tables want it."""
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
                patch(c, (arguments[k] + ARRAY_DATA)[0], descriptor(frame, k))

    def run_and_leave():
        wrong = run_taken(c, frame, frame[FrameWord.THREADS])
        if asks:
            leave(c, frame)
        return wrong
    with c.if_(frame[FrameWord.RELEASE_GIL] != 0):
        state = SAVE_THREAD(c)
        wrong = run_and_leave()
        RESTORE_THREAD(c, state)
        answer(c, frame, wrong)
    answer(c, frame, run_and_leave())


def answer(c, frame, wrong):
    """Returns what the run gave; its frame is free again. Python's lock is held."""
    with c.if_(wrong != 0, likely=False):
        error = PY_BYTES(c, frame[FrameWord.ERROR], ErrorWord.SIZE * BYTES)     # before another run's error comes here
        c.atomic_store(frame[FrameWord.BUSY_AT], Busy.FREE)
        c.return_(error)
    c.atomic_store(frame[FrameWord.BUSY_AT], Busy.FREE)
    c.return_(PY_LONG(c, Result.OK))


@native
def entry(c, self, arguments, count):
    bound_call(c, self, arguments, count, asks=True)


@native
def entry_with_variables(c, self, arguments, count):
    bound_call(c, self, arguments, count, asks=False)


# A series of runs of one frame on rows of the same arrays.

@native
def gather(c, source, row_bytes, order, count, room):
    """Puts rows with the numbers at `order` side by side."""
    to = c.variable(room)
    with c.count(count) as i:
        row = source + order[i] * row_bytes
        with c.if_else(row_bytes == BYTES) as (word, other):      # labels: a call for each would take longer than a step
            with word:
                to.value[0] = row[0]
            with other:
                with c.if_else(row_bytes == BYTES // 2) as (half, more):
                    with half:
                        to.value.set_int32(row.int32_at(0))
                    with more:
                        MEMCPY(c, to.value, row, row_bytes)
        to.value = to.value + row_bytes


@native
def place_step(c, steps):
    """Writes the addresses of the next step's data to where the records want them."""
    frame, row, order = steps[StepsWord.FRAME], steps[StepsWord.ROW], steps[StepsWord.ORDER]
    with c.count(frame[FrameWord.ARGUMENT_COUNT]) as k:
        step = steps.at(StepsWord.SIZE) + k * (StepWord.SIZE * BYTES)
        data = c.variable(step[StepWord.BASE])
        with c.if_else(step[StepWord.BUFFER] != 0) as (gathered, direct):
            with gathered:
                gather(c, data.value, step[StepWord.BY_ROW], order.at(row), steps[StepsWord.BATCH], step[StepWord.BUFFER])
                data.value = step[StepWord.BUFFER]
            with direct:
                data.value = data.value + row * step[StepWord.BY_ROW] + steps[StepsWord.DONE] * step[StepWord.BY_STEP]
        patch(c, data.value, descriptor(frame, k))


@native
def run_step(c, steps):
    """The next step: gives a Result. The caller has taken the frame."""
    frame = steps[StepsWord.FRAME]
    place_step(c, steps)
    asks = steps[StepsWord.ASKS] != 0
    with c.if_(asks):
        with c.if_(enter(c, frame) == 0):
            c.return_(Result.BUSY)
    wrong = run_taken(c, frame, frame[FrameWord.THREADS])
    with c.if_(asks):
        leave(c, frame)
    with c.if_(wrong != 0, likely=False):
        MEMCPY(c, steps.at(StepsWord.ERROR), frame[FrameWord.ERROR], ErrorWord.SIZE * BYTES)
        c.return_(Result.FAILED)
    following = steps[StepsWord.ROW] + steps[StepsWord.BATCH]
    steps[StepsWord.ROW] = (following < steps[StepsWord.ROWS]).choose(following, 0)
    steps[StepsWord.DONE] = steps[StepsWord.DONE] + 1


@native
def run_steps(c, steps):
    """Steps until LIMIT, an error, one that would have to wait (BUSY), or until Python wants to look around."""
    frame = steps[StepsWord.FRAME]
    result = c.variable(Result.BUSY)
    with c.if_(c.take(frame[FrameWord.BUSY_AT])):
        result.value = Result.OK
        start = c.clock()
        with c.loop() as loop:
            loop.leave_if(steps[StepsWord.DONE] >= steps[StepsWord.LIMIT])
            result.value = run_step(c, steps)
            loop.leave_if(result.value != Result.OK)
            loop.leave_if(c.clock() - start > PATIENCE)
        c.atomic_store(frame[FrameWord.BUSY_AT], Busy.FREE)
    c.return_(result.value)


EXPORTED = [entry, entry_with_variables, run, run_steps, worker_loop, make_gate, advance, reach, take_lock, hold, release, read]


WORDS = [ARRAY_TYPE, POOL, START_POOL]


def build():
    """(what is in it, object code) of the driver for this machine."""
    module = native_module("graphc_driver", EXPORTED, WORDS)
    content = {"functions": {f.name: f.arity for f in EXPORTED}, "words": [w.name for w in WORDS],
               "python": [s.name for s in PYTHON_SYMBOLS], "libc": [s.name for s in [MEMCPY, *LIBC_SYMBOLS]]}
    return content, optimised_object(module, thorough=False)
