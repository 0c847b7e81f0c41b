"""A thread's way through the records of a frame: gates, barriers, loops, shares of loops.  `layout.py` names every word used
here.

All threads walk the same records and decide alike: what they decide by changes only while all of them meet.
"""
import platform

from graphc.runtime.layout import (
    INTERRUPTED,
    ErrorWord,
    FixWord,
    FrameWord,
    GateWord,
    LoopWord,
    MoveWord,
    PartWord,
    PoolWord,
    RecordFlag,
    RecordWord,
    ShareWord,
)
from graphc.runtime.native import BYTES, External, native

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
def barrier(c, frame, pool, threads, target, table, starts):
    """Waits until all threads are here: the phase gate reaches `target`.

    The last to arrive decides for all whether the run stops: when each looked for itself, a fast thread's next kernel
    could set the error slot before a slow one has looked.  STOP holds until all are at the next barrier.  It also
    turns the loop with that `table` (0: none), or begins the one part of a loop that all share (`starts` is `PART`), while
    nobody looks at the loop's words.
    """
    with c.if_else(c.atomic_add(pool.at(PoolWord.ARRIVED), 1) == threads - 1) as (last, others):
        with last:
            c.atomic_store(pool.at(PoolWord.ARRIVED), 0)
            pool[PoolWord.STOP] = failed(c, frame)
            with c.if_(table != 0), c.if_else(starts == PART) as (part, loop):
                with part:
                    begin_share(c, frame, table, 0, 1)
                    next_part(c, table)
                with loop:
                    turn(c, table, starts)
            advance(c, pool.at(PoolWord.PHASE))
        with others:
            reach(c, pool, pool.at(PoolWord.PHASE), target)


# Loops.

ITERATION = 0x5851F42D4C957F2D      # as in `ir.interpreter.iteration_number`


@native
def turn(c, table, starts):
    """Starts a loop, or its next iteration: counts, numbers the random ops' run, and moves the addresses of rows."""
    counter = table[LoopWord.COUNT]
    count = c.variable(0)
    with c.if_(starts == 0):
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


def goes_on(table):
    """Whether the loop of a LOOP or NEXT has another iteration."""
    return table[LoopWord.COUNT][0] < table[LoopWord.LIMIT]


# Shares of a loop whose iterations touch nothing in common but what they only read.

@native
def begin_share(c, frame, table, thread, threads):
    """Makes the words of this thread, where it is not the first, and gives it a part of the iterations."""
    offset = thread * frame[FrameWord.SPAN]
    own = table + offset
    with c.if_(thread != 0):
        with c.count(table[ShareWord.WORDS]) as k:
            own[k] = table[k]
        fix = c.variable(table.at(ShareWord.SIZE) + table[ShareWord.MOVES] * (PartWord.SIZE * BYTES))
        with c.count(table[ShareWord.FIXES]):
            place = fix.value[FixWord.PLACE] + offset
            place[0] = place[0] + thread * fix.value[FixWord.STEP]
            fix.value = fix.value.at(FixWord.SIZE)
    own[ShareWord.NOW] = table[ShareWord.TOTAL] * thread // threads
    own[ShareWord.END] = table[ShareWord.TOTAL] * (thread + 1) // threads


@native
def next_part(c, table):
    """Moves the addresses to the thread's next iteration; 0 if there is none."""
    now = table[ShareWord.NOW]
    with c.if_(now >= table[ShareWord.END]):
        c.return_(0)
    table[ShareWord.NOW] = now + 1
    rows = now // table[ShareWord.PARTS]
    part = now - rows * table[ShareWord.PARTS]
    block = rows // table[ShareWord.INNER]
    row = rows - block * table[ShareWord.INNER]
    move = c.variable(table.at(ShareWord.SIZE))
    with c.count(table[ShareWord.MOVES]):
        entry = move.value
        along, most = part * entry[PartWord.STEP], entry[PartWord.MOST]
        entry[PartWord.PLACE][0] = entry[PartWord.BASE] + block * entry[PartWord.OUTER] + row * entry[PartWord.INNER] \
            + (along > most).choose(most, along)
        move.value = entry.at(PartWord.SIZE)
    c.return_(1)


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
PART = 2


@native
def play(c, frame, pool, thread, threads):
    """All records of the frame, as one of `threads` threads; `pool` is not used when alone."""
    phase = c.variable(0)
    with c.if_(threads > 1):
        # It cannot move on before this thread has been at the first barrier.
        phase.value = c.atomic_load(pool.at(PoolWord.PHASE + GateWord.COUNT))
    team = c.variable(threads)      # threads that meet: 1 while this thread does a loop, or its share of one, by itself
    me = c.variable(thread)         # its number among these
    own = c.variable(0)             # bytes from the records' tables to those of this thread
    end = c.variable(0)             # where it meets the others after that
    following = c.variable(0)
    with c.loop() as loop:
        number = following.value
        loop.leave_if(number >= frame[FrameWord.RECORD_COUNT])
        following.value = number + 1
        record = frame[FrameWord.RECORDS].at(number * RecordWord.SIZE)
        flags, table = record[RecordWord.FLAGS], record[RecordWord.TABLE] + own.value
        with c.if_else((flags & CONTROL) == 0) as (call, control):
            with call:
                serial = (flags & RecordFlag.SERIAL) != 0
                with c.if_((me.value == 0) | ((flags & RecordFlag.SERIAL) == 0)):
                    c.call_address(record[RecordWord.KERNEL], table, me.value, serial.choose(1, team.value))
            with control:
                branch(c, record, flags, table, following)
                with c.if_(((flags & RecordFlag.MEET) != 0) & ((flags & (RecordFlag.SERIAL | RecordFlag.SHARE)) != 0)
                           & (number == end.value)):
                    team.value, me.value, own.value, end.value = threads, thread, 0, 0
        with c.if_((flags & (RecordFlag.BARRIER | STOPS)) != 0):
            meet(c, frame, pool, (thread, threads), number, record, table, phase, (team, me, own, end), following)


def branch(c, record, flags, table, following):
    """The part of a control record before threads meet."""
    target = record[RecordWord.TARGET]
    with c.if_((flags & RecordFlag.UNLESS) != 0), c.if_(table[0].byte_at(0) == 0):
        following.value = target
    with c.if_((flags & RecordFlag.JUMP) != 0):
        following.value = target


def meet(c, frame, pool, numbers, number, record, table, phase, state, following):
    """All threads meet; a loop turns, a failed run stops."""
    (thread, threads), (team, _, _, end) = numbers, state
    stop = c.variable(0)
    flags, target = record[RecordWord.FLAGS], record[RecordWord.TARGET]
    shares = (flags & RecordFlag.SHARE) != 0
    starts = (flags & RecordFlag.LOOP) != 0
    turns = ((flags & TURNS) != 0) & ((flags & RecordFlag.SHARE) == 0)
    begins = c.variable(starts.choose(1, 0))
    with c.if_((flags & RecordFlag.TOGETHER) != 0), c.if_((table[ShareWord.TOTAL] == 1) & (team.value > 1)):
        begins.value = PART
    opens = begins.value == PART
    with c.if_(((flags & RecordFlag.NEXT) != 0) & (thread == 0)):
        heed_user(c, frame)
    with c.if_else(team.value > 1) as (together, alone):
        with together:
            phase.value = phase.value + 1
            barrier(c, frame, pool, threads, phase.value, (turns | opens).choose(table, 0), begins.value)
            stop.value = pool[PoolWord.STOP]
        with alone:
            stop.value = failed(c, frame)
            with c.if_(turns):
                turn(c, table, starts.choose(1, 0))
    with c.if_(turns), c.if_(goes_on(table) ^ starts):
        following.value = target
    with c.if_(((flags & STOPS) != 0) & (stop.value != 0), likely=False):
        with c.if_(team.value == threads):
            with c.if_(thread == 0):
                frame[FrameWord.ERROR][ErrorWord.STOPPED_AT] = number
            c.return_()
        following.value = end.value     # where the others wait, and stop with this thread
    with c.if_(((flags & OWN_LOOP) == OWN_LOOP) & (team.value > 1)):
        end.value = target
        with c.if_else(thread == 0) as (first, others):
            with first:
                team.value = 1
            with others:
                following.value = target
    own = (starts & (begins.value != PART)) | (team.value == 1)     # else all do one part, which ends here
    with c.if_(shares & ((flags & TURNS) != 0) & (stop.value == 0) & own):
        share(c, frame, (thread, threads), record, starts, table, state, following)


def share(c, frame, numbers, record, starts, table, state, following):
    """The start of a thread's share of a loop, or its next iteration."""
    (thread, threads), (team, me, own, end) = numbers, state
    target = record[RecordWord.TARGET]
    with c.if_(starts):
        with c.if_else(team.value > 1) as (together, alone):
            with together:
                begin_share(c, frame, table, thread, threads)
                team.value, me.value, own.value, end.value = 1, 0, thread * frame[FrameWord.SPAN], target
            with alone:
                begin_share(c, frame, table, 0, 1)
    more = next_part(c, record[RecordWord.TABLE] + own.value) != 0
    with c.if_(more ^ starts):
        following.value = target
