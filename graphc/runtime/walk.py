"""A thread's way through the records of a frame: gates, barriers, loops.  `layout.py` names every word used here.

All threads walk the same records and decide alike: what they decide by changes only while all of them meet.
"""
import platform

from graphc.runtime.layout import (
    INTERRUPTED,
    ErrorWord,
    FrameWord,
    GateWord,
    LoopWord,
    MoveWord,
    PoolWord,
    RecordFlag,
    RecordWord,
)
from graphc.runtime.native import External, native

PATIENCE = 1 << 27 if platform.machine().lower() in ("x86_64", "amd64") else 1 << 20    # clock ticks: 50 ms or less

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

WALK_SYMBOLS = [GIL_ENSURE, GIL_RELEASE, INTERRUPT_OCCURRED]
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


# Loops.

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


# The share of each thread.

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
