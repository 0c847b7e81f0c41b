"""What a program takes is known before it runs; a budget stops it before it starts; fetched arrays are recycled."""
import resource

import numpy as np
import pytest

import graphc as tf
from graphc.cli import main
from graphc.codegen.arena import Arena, Life, threads_times
from graphc.codegen.lower import Buffer
from graphc.config import Options, memory_size, options
from graphc.errors import ArgumentError, BudgetError, SessionError
from graphc.ir import dims

native = pytest.mark.skipif(options.device != "cpu", reason="the interpreter plans no memory")


@pytest.fixture(autouse=True)
def _own_graph():
    tf.reset_default_graph()


def network(layers=3, width=32):
    """(input, loss, training step) of a deep net."""
    x = tf.placeholder(tf.float32, ["N", width], name="x")
    h = x
    for k in range(layers):
        w = tf.Variable(np.full((width, width), 0.01, np.float32), name=f"w{k}")
        h = tf.tanh(tf.matmul(h, w), name=f"h{k}")
    loss = tf.reduce_mean(tf.square(h), name="loss")
    return x, loss, tf.train.MomentumOptimizer(0.1, 0.9).minimize(loss)


def taken(program, sizes):
    """Bytes that the arena, the variables and the arrays of a program take on feeds with these sizes."""
    executable = program.executable
    instance, = [i for lane in executable.lanes for i in lane.instances.values() if i.sizes == sizes]
    arrays = sum(np.prod(s, dtype=int) * np.dtype(spec.dtype).itemsize for s, spec in zip(
        [[eval(d, dict(zip(executable.program.names, sizes, strict=True))) for d in spec.shape]
         for spec in (*program.program.feeds, *program.program.outputs)],
        (*program.program.feeds, *program.program.outputs), strict=True))
    return instance.lane.arena[0].nbytes + sum(v.nbytes for v in executable.variables) + arrays


@native
@pytest.mark.parametrize("rows", [0, 1, 7, 300])
def test_the_formula_is_what_a_run_takes(rows):
    x, loss, step = network()
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        memory = session.memory([loss, step], [x])
        session.run([loss, step], {x: np.ones((rows, 32), np.float32)})
        found = taken(list(session._compiled.values())[-1], (rows,))
    assert found == memory.bytes(N=rows)
    assert memory.dims == {"N": "axis 0 of x"}
    assert sum(part if isinstance(part, int) else 0 for part in memory.parts.values()) > 0 and "N" in str(memory.peak)


@native
def test_small_batches_of_images_have_a_formula_of_their_own():
    x = tf.placeholder(tf.float32, ["N", 9, 8, 3], name="x")
    h = tf.nn.relu(tf.nn.conv2d(x, tf.ones([3, 3, 3, 20]), [1, 1, 1, 1], "SAME"))
    y = tf.nn.conv2d(h, tf.ones([3, 3, 20, 2]), [1, 1, 1, 1], "VALID")
    with tf.Session(memory_budget="1G") as session:       # with a budget the arena is as large as it must be
        memory = session.memory(y, [x])
        program, = session._compiled.values()
        for size in (0, 3, 15, 16, 50):
            image = np.ones((size, 9, 8, 3), np.float32)
            session.run(y, {x: image})
            assert taken(program.part([image]), (size,)) == memory.bytes(N=size)
    assert str(memory.few.memory.peak) != str(memory.peak)
    assert memory.table(N=15) == memory.few.memory.table(N=15) and memory.at_peak(N=3) == memory.few.memory.at_peak(N=3)
    assert str(memory).endswith(f"where N < 16: {memory.few.memory}") and str(memory.few.memory.peak) in str(memory)
    with pytest.raises(ArgumentError, match="do not fit the named dims: M, N"):
        memory.bytes(M=1)


@native
def test_what_is_held_at_the_peak_with_its_line():
    x = tf.placeholder(tf.float32, ["N", 8], name="x")
    wide = tf.exp(tf.matmul(x, np.ones((8, 4096), np.float32)), name="wide")
    total = tf.reduce_sum(tf.matmul(wide, np.ones((4096, 8), np.float32)) * 2, axis=1)
    line = wide.location.line
    with tf.Session() as session:
        memory = session.memory(total, [x])
    largest = memory.at_peak(N=100)[0]
    assert (largest.what, largest.type, largest.bytes) == ("temporary", "f32[N,4096]", 100 * 4096 * 4)
    assert largest.location == f"test_memory.py:{line}"
    assert str(memory.at_peak()[0].bytes) == "16384*N"
    assert "1.562 MiB" in memory.table(N=100) and f"test_memory.py:{line}" in str(memory)
    with pytest.raises(ArgumentError, match="the sizes do not fit the named dims: M, N\n.*N  axis 0 of x"):
        memory.bytes(M=1)


@native
def test_temporaries_share_places():
    """A long chain of products needs room for two of its values, however long it is."""
    x = tf.placeholder(tf.float32, ["N", 64], name="x")
    found = []
    for length in (4, 12):
        h = x
        for _ in range(length):
            h = tf.matmul(h, np.full((64, 64), 0.01, np.float32))
        with tf.Session() as session:
            found.append(session.memory(h, [x]).parts["temporaries"])
    assert found[0] == found[1]


@native
def test_a_budget_stops_a_run_before_it_writes():
    x, loss, step = network()
    with tf.Session() as session:
        needed = session.memory([loss, step], [x])
    budget = needed.bytes(N=200)
    with tf.Session(memory_budget=budget) as session:
        session.run(tf.global_variables_initializer())
        session.run([loss, step], {x: np.ones((200, 32), np.float32)})
        before = session.run(tf.global_variables())
        with pytest.raises(BudgetError) as caught:
            session.run([loss, step], {x: np.ones((201, 32), np.float32)})
        for a, b in zip(before, session.run(tf.global_variables()), strict=True):
            assert np.array_equal(a, b)
        session.run([loss, step], {x: np.ones((3, 32), np.float32)})
    text = str(caught.value)
    assert "a run takes" in text and f"{needed.bytes(N=201)} > {budget} bytes; N = 201, axis 0 of x" in text
    assert "hint: with N = 200 it takes" in text
    assert "feed x: f32[N,32]" in text and "made at test_memory.py:" in text
    assert isinstance(caught.value, MemoryError)


@native
def test_a_budget_for_a_program_of_fixed_sizes():
    tf.Variable(np.zeros((64, 64), np.float32), name="w")
    with tf.Session(memory_budget="1K") as session, pytest.raises(BudgetError, match="more than the budget of 1 KiB"):
        session.run(tf.global_variables_initializer())


@native
def test_a_budget_for_a_graph_with_host_ops():
    x = tf.placeholder(tf.float32, ["N", 16], name="x")
    middle = tf.py_func(lambda v: v * 2, [tf.exp(x)], tf.float32, shape=["N", 16])
    y = tf.reduce_sum(tf.tanh(middle))
    with tf.Session(memory_budget="16K") as session:
        assert session.memory(y, [x]).peak is not None
        session.run(y, {x: np.zeros((4, 16), np.float32)})
        with pytest.raises(BudgetError, match="x: f32"):
            session.run(y, {x: np.zeros((4000, 16), np.float32)})


def test_sizes_of_budgets(monkeypatch):
    assert [memory_size(t) for t in (4096, "4096", "2K", "3 GiB", "3mb", " 7 B ")] == [
        4096, 4096, 2048, 3 * 2**30, 3 * 2**20, 7]
    for wrong in ("", "lots", "-1", "3X", True):
        with pytest.raises(ValueError, match="must be a number of bytes, such as 500M"):
            memory_size(wrong)
    monkeypatch.setenv("GRAPHC_MEMORY_BUDGET", "512M")
    assert Options().memory_budget == 2**29
    monkeypatch.setenv("GRAPHC_MEMORY_BUDGET", "a bit")
    with pytest.raises(ValueError, match="GRAPHC_MEMORY_BUDGET must be a number of bytes"):
        Options()
    monkeypatch.setattr(options, "memory_budget", 64)
    if options.device == "cpu":
        with tf.Session() as session, pytest.raises(BudgetError):
            session.run(tf.constant(np.zeros(100, np.float32)) * 2)


def test_the_interpreter_plans_nothing(monkeypatch):
    monkeypatch.setattr(options, "device", "numpy")
    with tf.Session() as session, pytest.raises(SessionError, match="the interpreter plans no memory"):
        session.memory(tf.constant([1.0]) * 2)


@native
def test_explained(monkeypatch, capsys):
    monkeypatch.setattr(options, "explain", ("memory",))
    x, loss, step = network()
    rate = tf.Variable(np.float32(1), name="rate")
    dropped = tf.reduce_mean(tf.nn.dropout(tf.matmul(tf.nn.dropout(x, 0.5, seed=1, name="drop"), np.ones((32, 4), np.float32)),
                                           0.5, seed=2))
    slope, = tf.gradients(dropped, x)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        capsys.readouterr()
        session.run([step, rate.assign(rate * 2)], {x: np.ones((5, 32), np.float32)})
        text = capsys.readouterr().err
        assert "rate is updated in place" in text
        assert "one place, at byte " in text and "held at the peak:" in text and "test_memory.py:" in text
        session.run([dropped, slope], {x: np.ones((5, 32), np.float32)})
        assert "drawn again in each of 2 places instead of stored: " in capsys.readouterr().err


@native
def test_dumped(tmp_path, capsys):
    script = tmp_path / "net.py"
    script.write_text("import graphc as tf\nx = tf.placeholder(tf.float32, ['N', 4], name='x')\n"
                      "y = tf.reduce_sum(tf.exp(x), name='y')\n")
    assert main(["dump", f"{script}:y", "--stage", "memory"]) == 0
    text = capsys.readouterr().out
    assert "N is axis 0 of x" in text and "net.py:2" in text and "16*N" in text
    assert main(["dump", f"{script}:y", "--stage", "memory", "--format", "json"]) == 0
    assert '"dims": {\n    "N": "axis 0 of x"' in capsys.readouterr().out


@native
def test_a_large_fetch_costs_no_page_faults():
    """Once nobody holds the former result its memory is used again; while a view of it is held, it is not."""
    x = tf.placeholder(tf.float32, [None], name="x")
    fed = np.ones(2**22, np.float32)  # 16 MiB: 4096 pages
    with tf.Session() as session:
        call = session.make_callable(x + 1, [x])
        for _ in range(3):
            found = call(fed)
            del found
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            found = call(fed)
            del found
        assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 1000
        held = call(fed)[::2].reshape(-1, 2).T
        other = call(fed)
        assert not np.shares_memory(held, other)
        other[:] = 7
        assert held.min() == held.max() == 2


@pytest.mark.parametrize("seed", range(6))
def test_rooms_are_apart_and_inside_for_all_sizes(seed):
    rng = np.random.default_rng(seed)
    n, m = dims.name("N"), dims.name("M")
    kinds = [64, 100, 4096, 4 * n, 64 * n, 256 * n, 100 * n + 4, 8 * m, 128 * m * n, 4 * dims.floordiv(n + 99, 100),
             dims.maximum(16 * n, 500), dims.maximum(4 * n - 20, 0)][:4 + 2 * seed]
    lives = {}
    for k in range(40):
        first = int(rng.integers(0, 30))
        last = first + int(rng.integers(0, 12))
        buffer = Buffer(f"b{k}", kinds[rng.integers(len(kinds))], per_thread=bool(rng.integers(8) == 0))
        lives[buffer] = Life(first, last, first // 2, last // 2)
    arena = Arena(lives)
    for sizes in ({"N": 0, "M": 0}, {"N": 1, "M": 5}, {"N": 7, "M": 300}, {"N": 1000, "M": 3}):
        def number(size, sizes=sizes):
            return size if isinstance(size, int) else int(dims.substitute(size, {**sizes, "threads_": 3}))
        rooms = {b: (number(arena.places[b]), number(arena.places[b]) + number(threads_times(b))) for b in lives}
        assert all(start % 64 == 0 and end <= number(arena.size) for start, end in rooms.values())
        for a in lives:
            for b in lives:
                together = a is not b and rooms[a][0] < rooms[b][1] and rooms[b][0] < rooms[a][1]
                assert not together or lives[a].is_apart(lives[b]) and arena.meet(a, b), (a.name, b.name, sizes)
