"""The native driver: loading object code, checking arguments, records alone and in a team."""
import gc
import random
import sys
import threading
import time

import numpy as np
import pytest
from driver_kernels import Program, add_one, fail, load_kernels, mark, reverse, start_waiting_run, wait_for

from graphc.runtime import driver, layout, threads
from graphc.runtime.driver import Argument, ArgumentFlag, RecordFlag, Result
from graphc.runtime.layout import Busy, ErrorWord, FrameWord
from graphc.runtime.loader import LoadError, load_objects, optimised_object, undefined_symbols
from graphc.runtime.native import native_module

SERIAL, BARRIER, MAY_FAIL = RecordFlag.SERIAL, RecordFlag.BARRIER, RecordFlag.MAY_FAIL


@pytest.fixture(scope="module")
def kernels():
    return load_kernels()


@pytest.fixture
def team():
    """Sets the number of threads for one test."""
    yield threads.set_num_threads
    threads.set_num_threads(None)


# Loading.

def test_libraries_are_independent(kernels):
    a = load_objects({"add_one": optimised_object(native_module("a", [add_one]))})
    b = load_objects({"add_one": optimised_object(native_module("b", [add_one])),
                      "mark": optimised_object(native_module("c", [mark]))})
    assert len({a.address("add_one"), b.address("add_one"), kernels.address("add_one")}) == 3
    with pytest.raises(LoadError, match="no symbol 'mark'"):
        a.address("mark")


def test_damaged_object_code_is_refused():
    code = optimised_object(native_module("a", [add_one, mark]))
    for length in (0, 3, 20, 70, len(code) // 2, len(code) - 1):
        with pytest.raises(LoadError):
            load_objects({"add_one": code[:length]})
    with pytest.raises(LoadError, match="no_such"):
        load_objects({"no_such": code})


@pytest.mark.skipif(sys.platform != "linux", reason="symbol tables are read from ELF only")
def test_undefined_symbols():
    code = optimised_object("""
        declare i32 @system(ptr)
        declare ptr @memcpy(ptr, ptr, i64)
        define void @k(ptr %a, ptr %b, i64 %n) {
            %x = call i32 @system(ptr %a)
            %y = call ptr @memcpy(ptr %a, ptr %b, i64 %n)
            ret void
        }""")
    assert undefined_symbols(code) == {"system", "memcpy"}
    with pytest.raises(LoadError, match="needs system"):
        load_objects({"k": code})
    assert load_objects({"k": code}, allowed={"system", "memcpy"}).address("k")
    missing = optimised_object("""
        declare void @graphc_missing()
        define void @k() {
            call void @graphc_missing()
            ret void
        }""")
    with pytest.raises(LoadError, match="graphc_missing"):
        load_objects({"k": missing}, allowed={"graphc_missing"})


# The bound call and its checks.

def adding_call(kernels, shape=(4, 3), dtype=np.int64, flags=0, **options):
    program = Program(kernels)
    table = program.add(add_one, 0, int(np.prod(shape)))
    frame = program.frame([Argument(dtype, shape, (table.ctypes.data,), flags)], **options)
    return driver.bind(frame)


def test_bound_call_runs_on_the_given_array(kernels):
    call = adding_call(kernels)
    gc.collect()                                     # the call alone owns frame, tables and library
    for _ in range(3):
        x = np.arange(12).reshape(4, 3)
        references = sys.getrefcount(x)
        for _ in range(5):
            assert call(x) == Result.OK
        assert np.array_equal(x, np.arange(12).reshape(4, 3) + 5)
        assert sys.getrefcount(x) == references


class Subclass(np.ndarray):
    pass


def unaligned(shape):
    return np.frombuffer(np.zeros(8 * int(np.prod(shape)) + 1, np.uint8).data, np.int64, offset=1).reshape(shape)


@pytest.mark.parametrize("bad", [
    np.zeros((4, 3), np.float64), np.zeros((4, 3), np.uint64), np.zeros((4, 3), ">i8"), np.zeros((3, 4), np.int64),
    np.zeros(12, np.int64), np.zeros((1, 4, 3), np.int64), np.zeros((0, 3), np.int64), np.zeros((8, 3), np.int64)[::2],
    np.zeros((3, 4), np.int64).T, np.zeros((4, 3), np.int64).view(Subclass), unaligned((4, 3)), [1, 2], None, 7,
    np.int64(3), "text"], ids=lambda bad: f"{type(bad).__name__}-{getattr(bad, 'dtype', '')}")
def test_what_does_not_fit_is_refused(kernels, bad):
    program = Program(kernels)
    table = program.add(add_one, 0, 12)
    argument = Argument(np.int64, (4, 3), (table.ctypes.data,))
    call = driver.bind(program.frame([argument, argument]))
    good = np.zeros((4, 3), np.int64)
    assert call(bad, good) == Result.MISMATCH
    assert call(good, bad) == Result.MISMATCH + 1
    assert not good.any() and table[0] == 0
    assert call(good, good) == Result.OK


def test_number_of_arguments(kernels):
    call = adding_call(kernels)
    x = np.zeros((4, 3), np.int64)
    assert call() == call(x, x) == Result.COUNT
    with pytest.raises(TypeError):
        call(x=x)


def test_writeable_and_trusted(kernels):
    x = np.zeros((4, 3), np.int64)
    x.flags.writeable = False
    assert adding_call(kernels)(x) == Result.OK                # feeds may be read-only
    assert adding_call(kernels, flags=ArgumentFlag.WRITEABLE)(x) == Result.MISMATCH
    assert adding_call(kernels, flags=ArgumentFlag.TRUSTED | ArgumentFlag.WRITEABLE)(x.T.astype(np.int64)) == Result.OK


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (2, 1, 2, 1, 2, 1, 2)])
def test_odd_shapes(kernels, shape):
    x = np.zeros(shape, np.int64)
    assert adding_call(kernels, shape)(x) == Result.OK
    assert (x == 1).all()
    assert adding_call(kernels, (*shape, 1))(x) == Result.MISMATCH


def test_several_patches(kernels):
    places = np.zeros(5, np.int64)
    arguments = [Argument(np.float32, (2,), tuple(places.ctypes.data + 8 * i for i in wanted))
                 for wanted in ((0, 3), (), (1, 2, 4))]
    call = driver.bind(driver.new_frame([], arguments))
    x, y, z = (np.zeros(2, np.float32) for _ in range(3))
    assert call(x, y, z) == Result.OK
    assert places.tolist() == [a.ctypes.data for a in (x, z, z, x, z)]


def test_frame_must_be_a_frame():
    for wrong in (np.zeros(3, np.int64), np.zeros(64), [0] * 64, np.zeros(64, np.int64)[::2]):
        with pytest.raises(TypeError, match="new_frame"):
            driver.bind(wrong)


def test_array_layout_is_checked(monkeypatch):
    driver.check_array_layout()
    monkeypatch.setattr(layout, "ARRAY_NDIM", layout.ARRAY_NDIM + 4)
    with pytest.raises(driver.LayoutError, match="fields nd are"):
        driver.check_array_layout()


def test_run_counter_is_shared(kernels):
    shared = np.array([7], np.int64)
    program = Program(kernels)
    first, second = program.frame(counter=shared.ctypes.data), program.frame(counter=shared.ctypes.data)
    own = program.frame()
    for expected, frame in enumerate([first, second, second, first, own], 7):
        assert driver.run(frame) == Result.OK
        assert frame[FrameWord.RUN] == (expected if frame is not own else 0)
    assert shared[0] == 11


# Errors.

@pytest.mark.parametrize("team_size", [1, 2, 3])
def test_an_error_stops_all_threads_at_the_same_record(kernels, team, team_size):
    team(team_size)
    rng = random.Random(team_size)
    for _ in range(150):
        length, x, slot = rng.randrange(1, 12), np.zeros(8, np.int64), np.zeros(ErrorWord.SIZE, np.int64)
        culprits = [rng.choice([-1, -1, -1, *range(team_size)]) for _ in range(length)]
        program = Program(kernels)
        for number, culprit in enumerate(culprits):
            program.add(fail, slot, culprit, number, flags=MAY_FAIL)
            program.add(add_one, x, 8, flags=rng.choice([0, BARRIER]))
        frame = program.frame(threads=team_size, error=slot.ctypes.data)
        result = driver.bind(frame)()
        bad = [n for n, culprit in enumerate(culprits) if culprit >= 0]
        if bad:
            assert driver.decode_error(result) == (1, bad[0], culprits[bad[0]], team_size, 2 * bad[0])
        else:
            assert result == Result.OK
        assert x.tolist() == [bad[0] if bad else length] * 8


def test_a_failed_run_gives_its_error_and_leaves_the_frame_free(kernels):
    program, slot = Program(kernels), np.zeros(ErrorWord.SIZE, np.int64)
    table = program.add(fail, slot, 0, 42)           # without MAY_FAIL: nothing is skipped, and it is still a failure
    frame = program.frame(error=slot.ctypes.data)
    found = driver.bind(frame)()
    table[1] = -1
    assert driver.run(frame) == driver.bind(frame)() == Result.OK
    assert driver.decode_error(found) == (1, 42, 0, 1, -1)
    table[1] = 0
    assert driver.run(frame) == Result.FAILED
    assert driver.decode_error(slot.tobytes()) == (1, 42, 0, 1, -1)
    assert frame[FrameWord.BUSY] == Busy.FREE


# Teams.

def test_every_thread_takes_part(kernels, team):
    team(3)
    seen, alone = np.zeros(4, np.int64), np.zeros(4, np.int64)
    program = Program(kernels)
    program.add(mark, seen)
    program.add(mark, alone, flags=SERIAL)
    frame = program.frame(threads=8)
    call = driver.bind(frame)
    for wanted, effective in ((8, 3), (3, 3), (2, 2), (1, 1)):
        seen[:] = alone[:] = 0
        frame[FrameWord.THREADS] = wanted
        assert call() == Result.OK
        assert seen.tolist() == [effective] * effective + [0] * (4 - effective)
        assert alone.tolist() == [1, 0, 0, 0]
    seen[:] = 0
    assert driver.run(frame, threads=2) == Result.OK
    assert seen.tolist() == [2, 2, 0, 0]


@pytest.mark.parametrize(("team_size", "programs", "patience"), [(1, 300, None), (2, 1500, None), (3, 500, None),
                                                           (4, 300, None), (3, 150, (0, 0)), (2, 300, (0, 3))])
def test_barriers(kernels, team, team_size, programs, patience):
    team(team_size)
    if patience:
        threads.pool().set_patience(*patience)       # (0, 0): every wait sleeps
    rng = random.Random(programs)
    for _ in range(programs):
        n, length = rng.randrange(1, 40), rng.randrange(1, 20)
        buffers = [np.arange(n), np.zeros(n, np.int64)]
        program = Program(kernels)
        for number in range(length):
            flags = rng.choice([BARRIER, BARRIER, MAY_FAIL, SERIAL | BARRIER])
            program.add(reverse, buffers[number % 2], buffers[1 - number % 2], n, flags=flags)
        call = driver.bind(program.frame(threads=rng.randrange(1, team_size + 1), release_gil=rng.random() < 0.5))
        assert call() == Result.OK
        expected = np.arange(n)
        for _ in range(length):
            expected = expected[::-1] + 1
        assert np.array_equal(buffers[length % 2], expected)


def test_two_callers_share_one_pool(kernels, team):
    team(2)
    wrong = []

    def many_runs():
        x, y = np.zeros(50, np.int64), np.zeros(50, np.int64)
        program = Program(kernels)
        for _ in range(6):
            program.add(reverse, x, y, 50, flags=BARRIER)
            program.add(reverse, y, x, 50, flags=BARRIER)
        call = driver.bind(program.frame(threads=2, release_gil=True))
        for number in range(1, 201):
            if call() != Result.OK or not (x == 12 * number).all():
                wrong.append(number)

    callers = [threading.Thread(target=many_runs) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_busy_and_gil(kernels):
    frame, flags, thread, results = start_waiting_run(kernels)
    assert driver.bind(frame)() == driver.run(frame) == Result.BUSY
    flags[0] = 1
    thread.join(5)
    assert results == [Result.OK]
    assert driver.run(frame) == Result.OK


def test_patches_of_a_running_frame_stay(kernels):
    program, flags, place = Program(kernels), np.zeros(2, np.int64), np.zeros(1, np.int64)
    program.add(wait_for, flags[0:], flags[1:])
    frame = program.frame([Argument(np.int64, (1,), (place.ctypes.data,))], release_gil=True)
    call, first, second = driver.bind(frame), np.zeros(1, np.int64), np.zeros(1, np.int64)
    thread = threading.Thread(target=call, args=(first,))
    thread.start()
    while not flags[1]:
        time.sleep(0.001)
    assert call(second) == Result.BUSY
    assert place[0] == first.ctypes.data
    flags[0] = 1
    thread.join(5)


def test_set_num_threads_waits_for_the_run(kernels, team):
    team(2)
    frame, flags, thread, results = start_waiting_run(kernels, threads=2)
    threading.Timer(0.1, flags.__setitem__, (0, 1)).start()
    team(3)
    assert flags[0] == 1
    thread.join(5)
    assert results == [Result.OK]


# How many threads.

def test_a_trial_with_a_new_answer_is_repeated_soon(kernels, team):
    """What one trial found may have been a disturbance; `mark` tells how many threads a run has."""
    team(2)
    seen = np.zeros(4, np.int64)
    program = Program(kernels)
    program.add(mark, seen)
    frame = program.frame(threads=2)
    call, never = driver.bind(frame), 1 << 60
    frame[FrameWord.PERIOD], frame[FrameWord.PAYS] = layout.SHORT_PERIOD, 1

    def end_of_trial(team_time):
        frame[FrameWord.TRIAL] = 2 * layout.TRIAL_RUNS - 1
        frame[FrameWord.TEAM_TIME], frame[FrameWord.ALONE_TIME] = team_time, 1
        seen[:] = 0
        assert call() == Result.OK and seen.tolist() == [1, 0, 0, 0]     # the last run of a trial is one without others
        seen[:] = 0
        assert call() == Result.OK
        return int(seen[1] == 2), int(frame[FrameWord.PERIOD])
    short, long = layout.SHORT_PERIOD, layout.LONG_PERIOD
    assert [end_of_trial(t) for t in (0, 0, never, never, 0, 0)] == \
        [(1, 2 * short), (1, 4 * short), (0, short), (0, 2 * short), (1, short), (1, 2 * short)]
    assert [end_of_trial(0) for _ in range(3)] == [(1, 4 * short), (1, long), (1, long)]
    frame[FrameWord.TRIAL] = long - 1
    assert call() == Result.OK and frame[FrameWord.TRIAL] == 0


def test_number_of_threads(monkeypatch, team):
    monkeypatch.setenv("GRAPHC_NUM_THREADS", "3")
    assert threads.num_threads() == 3
    team(2)
    assert threads.num_threads() == 2
    team(None)
    for wrong in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv("GRAPHC_NUM_THREADS", wrong)
        with pytest.raises(ValueError, match="GRAPHC_NUM_THREADS"):
            threads.num_threads()
    monkeypatch.delenv("GRAPHC_NUM_THREADS")
    assert threads.num_threads() == threads.available_processors() >= 1
    for wrong in (0, -2, 1.5):
        with pytest.raises(ValueError, match="set_num_threads"):
            team(wrong)


def test_cgroup_quota(tmp_path):
    def limit(line, **files):
        proc = tmp_path / "cgroup"
        proc.write_text(line + "\n")
        for name, (folder, text) in files.items():
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name.replace("__", ".")).write_text(text)
        return threads.cgroup_processors(proc, tmp_path)

    assert limit("0::/a/b") == float("inf")
    assert limit("0::/a/b", cpu__max=("a", "150000 100000")) == 1.5
    assert limit("0::/a/b", cpu__max=("a/b", "max 100000")) == 1.5      # the parent's limit holds
    assert limit("4:cpu,cpuacct:/x", cpu__cfs_quota_us=("cpu,cpuacct/x", "400000"),
                 cpu__cfs_period_us=("cpu,cpuacct/x", "100000")) == 4
    assert limit("4:cpu:/y", cpu__cfs_quota_us=("cpu/y", "-1"), cpu__cfs_period_us=("cpu/y", "100000")) == float("inf")


def test_call_overhead_is_shown(kernels):
    """Measured, never asserted: see it with `pytest -s`."""
    words, x = np.zeros(4, np.int64), np.zeros((4, 3), np.float32)
    arguments = [Argument(np.float32, (4, 3), (words.ctypes.data + 8 * i,)) for i in range(2)]
    for length in (3, 1003):
        program = Program(kernels)
        for _ in range(length):
            program.add(mark, words[2:], flags=SERIAL)
        call, best = driver.bind(program.frame(arguments)), float("inf")
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(1000):
                call(x, x)
            best = min(best, time.perf_counter() - start)
        print(f"\n2 feeds, {length} records: {best * 1e6:.0f} ns", end="")
