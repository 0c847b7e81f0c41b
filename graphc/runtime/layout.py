"""The words that the native driver and Python share.

All memory is int64 words (8 bytes) in NumPy arrays; every name of a class `...Word` is the index of a word in its table.
Addresses are plain integers.  Python fills the tables; the native code of `engine.py` reads them by the same names.
"""
from enum import IntEnum, IntFlag

TRIAL_RUNS, WARM_UP = 8, 2      # runs of each kind in a trial of whether other threads pay, of them not timed
SHORT_PERIOD, LONG_PERIOD = 64, 512     # runs to the next trial after one with a new answer, and after many with the same

# Byte offsets in CPython's and NumPy's objects; `driver.check_array_layout` compares them with a real array.
TYPE_OF_OBJECT = 8
ARRAY_DATA, ARRAY_NDIM, ARRAY_DIMS, ARRAY_DTYPE, ARRAY_FLAGS = 16, 24, 32, 56, 64
C_CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400      # NPY_ARRAY_*


class FrameWord:
    """One bound program instance: all that a run needs.  One run at a time uses a frame (`BUSY_AT`)."""

    BUSY = 0             # `Busy`
    RECORDS = 1          # address of the records, `RecordWord.SIZE` words each
    RECORD_COUNT = 2
    THREADS = 3          # most threads to use; 1 = the caller alone
    ERROR = 4            # address of the error slot (`ErrorWord`)
    ARGUMENTS = 5        # address of the argument descriptors, `ArgumentWord.SIZE` words each
    ARGUMENT_COUNT = 6
    RELEASE_GIL = 7      # not 0: other Python threads may go on during a run
    COUNTER = 8          # address of the run counter; each run takes its value and adds one, atomically
    RUN = 9              # number of this run, taken from the counter before the first record
    OWN_COUNTER = 10     # the run counter unless another one is given
    ACCESS = 11          # address of the `AccessWord`s of the variables that the run touches; 0: it touches none
    OWN_ERROR = 12       # five words: the error slot unless another one is given
    TRIAL = 17           # runs since the last trial of whether other threads pay began; -1: no trials, always use them
    TEAM_TIME = 18       # clock ticks of the trial's runs with other threads
    ALONE_TIME = 19      # clock ticks of its runs without
    WRITES = 20          # not 0: the run writes variables
    BUSY_AT = 21         # address of the word that says `Busy`: BUSY, unless frames share an arena and so a word
    LOOKED = 22          # clock at which a loop last looked whether the user wants to stop
    SPAN = 23            # bytes from the words of thread 0 to those of thread 1, to those of thread 2 ...: see `ShareWord`
    PAYS = 24            # 1 if other threads paid in the last trial, or, before the first, are thought to
    PERIOD = 25          # runs from this trial to the next
    SIZE = 26


class AccessWord:
    """Who touches the variables of a session: any number of runs that read, or one that writes.

    A run steps back (gives BUSY) where it would have to wait; Python waits.
    """

    READERS = 0          # runs that read now
    WRITER = 16          # 1 while a run writes
    WANTED = 17          # not 0: Python wants the variables; no run begins any more
    SIZE = 32


class Busy(IntEnum):
    FREE = 0
    RUNNING = 1


class RecordWord:
    """One kernel call: `void kernel(int64 *table, int64 thread, int64 threads)`; or a step of control flow."""

    KERNEL = 0           # address of the kernel
    TABLE = 1            # address of its argument table, passed as it is; of a loop's table, by `LoopWord`
    FLAGS = 2            # `RecordFlag`
    TARGET = 3           # number of the record that control flow may go to
    SIZE = 4


class RecordFlag(IntFlag):
    """SERIAL to MAY_FAIL go with any record; a record with one of the others calls no kernel."""

    SERIAL = 1           # thread 0 alone calls the kernel, as thread 0 of 1, or runs the LOOP, up to the MEET at TARGET
    BARRIER = 2          # all threads meet after this record
    MAY_FAIL = 4         # all threads meet, and the run stops here if the error slot is set
    LOOP = 8             # all meet, the loop starts; go to TARGET if there is nothing to do
    NEXT = 16            # all meet, the loop's next iteration starts; go to TARGET, or on after the last one
    UNLESS = 32          # go to TARGET if the byte at the address in TABLE[0] is 0
    JUMP = 64            # go to TARGET
    MEET = 128           # only a place to meet. SERIAL: thread 0 comes here from the loop that it ran by itself
    SHARE = 256          # with LOOP, NEXT and MEET: each thread does its share of the iterations by itself, up to the MEET
    TOGETHER = 512       # with SHARE and LOOP: where there is one iteration, all threads do it, and meet in it as records say


class LoopWord:
    """A loop's table. The row of an iteration is its number, or, in reverse, counts down to 0."""

    COUNT = 0            # address of a word: iterations that have ended
    LIMIT = 1            # most iterations
    REVERSE = 2          # not 0: rows count down
    PARENT = 3           # address of the run number outside of the loop
    RUN = 4              # address of a word: the run number of an iteration, as `ir.interpreter.iteration_number` says
    MOVES = 5            # number of `MoveWord` entries, which follow
    SIZE = 6


class MoveWord:
    """A word that an iteration changes to base + row * step: the address of a row."""

    PLACE = 0            # address of the word
    BASE = 1
    STEP = 2
    SIZE = 3


class ShareWord:
    """The table of a loop that is shared out. Each thread walks its records on words of its own: a copy of those from this
    table on, made where its share begins.

    Iteration i is part i % PARTS of row (i // PARTS) % INNER of block (i // PARTS) // INNER.
    """

    NOW = 0              # the next iteration of this thread
    END = 1              # its last one and 1
    TOTAL = 2            # iterations of all threads
    PARTS = 3
    INNER = 4
    WORDS = 5            # number of words to copy
    MOVES = 6            # number of `PartWord` entries, which follow
    FIXES = 7            # number of `FixWord` entries, which follow those
    SIZE = 8


class PartWord:
    """A word that an iteration changes to BASE + block * OUTER + row * INNER + min(part * STEP, MOST)."""

    PLACE = 0            # address of the word
    BASE = 1
    OUTER = 2
    INNER = 3
    STEP = 4
    MOST = 5
    SIZE = 6


class FixWord:
    """A word to which thread number t adds t * STEP in its copy."""

    PLACE = 0
    STEP = 1
    SIZE = 2


class ErrorWord:
    """What the first failing kernel reports.  The driver clears STATE before a run and copies all of it afterwards."""

    STATE = 0            # 0 = no error; otherwise any number that the compiler chose
    RECORD = 1           # number of the failure; `INTERRUPTED`: a loop was stopped by the user
    INDEX = 2
    VALUE = 3
    STOPPED_AT = 4       # number of the record after which the run stopped, or -1: it went on
    SIZE = 5


INTERRUPTED = -1


class ArgumentWord:
    """What one array argument of the bound call must be, and where its data pointer is wanted."""

    DTYPE = 0            # address of the dtype object; compared by identity
    NDIM = 1
    DIMS = 2             # address of NDIM sizes
    PATCHES = 3          # address of a list of addresses: words that receive the data pointer
    PATCH_COUNT = 4
    FLAGS = 5            # `ArgumentFlag`
    SIZE = 8


class ArgumentFlag(IntFlag):
    TRUSTED = 1          # do not look at the array: the caller made it for this frame
    WRITEABLE = 2        # the run writes it, so it must be writeable


class Result(IntEnum):
    """What a bound call returns, unless it failed: then it returns the words of the error slot, as bytes.  `MISMATCH + k`:
    argument k does not fit.  Nothing was run unless OK or FAILED.
    """

    OK = 0
    BUSY = 1             # another run uses the frame, or the variables are not free
    FAILED = 2           # of runs that are not bound calls
    COUNT = 3            # wrong number of arguments
    MISMATCH = 4


class StepsWord:
    """A series of runs of one frame, each on other rows of the same arrays: what `engine.run_steps` needs."""

    FRAME = 0            # address of the frame
    LIMIT = 1            # run until so many steps are done
    DONE = 2             # steps done
    BATCH = 3            # rows in a step
    ROW = 4              # the first row of the next step
    ROWS = 5             # after so many rows (or, with an order, entries of it) comes row 0 again
    ORDER = 6            # address of row numbers: take the rows in this order; 0: as they are
    ASKS = 7             # not 0: each step asks for the variables; 0: the caller holds them
    ERROR = 8            # five words: the error slot of the step that failed
    SIZE = 16            # a `StepWord` entry for each argument of the frame follows


class StepWord:
    """An argument of the frame: its data are at BASE + row * BY_ROW + step * BY_STEP, or gathered from there."""

    BASE = 0
    BY_ROW = 1           # bytes of a row; 0: the same for all rows
    BY_STEP = 2          # bytes from step to step
    BUFFER = 3           # address of room for a batch, to which rows are gathered by ORDER; 0: not gathered
    SIZE = 4


class GateWord:
    """A counter that only grows, and a place to sleep until it has reached some value."""

    COUNT = 0
    SLEEPERS = 1         # threads that sleep or are about to
    MUTEX = 16           # pthread_mutex_t: at most 64 bytes on Linux and macOS
    CONDITION = 24       # pthread_cond_t: at most 48 bytes
    SIZE = 32


class PoolWord:
    """The threads of a process.  What different threads write lies at least 128 bytes apart (two cache lines)."""

    LOCK = 0             # 1 while a job uses the workers, and for good once they have left
    THREADS = 16         # workers + 1
    SPINS = 17           # how often to look at a gate before yielding
    YIELDS = 18          # how often to yield before sleeping
    LEAVE = 19           # not 0: workers return
    JOB_FRAME = 32       # the job: a frame and the number of threads that share it
    JOB_THREADS = 33
    ARRIVED = 48         # threads at the present barrier
    STOP = 64            # not 0: the last barrier saw an error; written by the last to arrive
    PHASE = 80           # gate: barriers passed
    DONE = 112           # gate: workers that have finished their share, all jobs together
    READY = 144          # gate: workers that have entered their loop
    MAILBOXES = 176      # gate of worker 1, 2, ...: jobs posted to it
