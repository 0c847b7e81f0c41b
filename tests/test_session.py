"""`Session`: nested fetches, feeds of any tensor, results that nobody else touches, sizes, random numbers, default stacks."""
import collections
import gc

import numpy as np
import pytest

import graphc as tf
from graphc.codegen import build
from graphc.config import options

pytestmark = pytest.mark.usefixtures("fresh_graph")


@pytest.fixture
def kernels():
    """A function that says how many kernels were compiled since it was last asked."""
    seen = [len(build._compiled)]

    def count():
        seen.append(len(build._compiled))
        return seen[-1] - seen[-2]
    return count


Pair = collections.namedtuple("Pair", "a b")


# fetches -----------------------------------------------------------------------------------------------------------------


def plain(value):
    """Arrays as lists, all else as it is."""
    if isinstance(value, (list, tuple)):
        items = [plain(v) for v in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value


def test_fetches_of_every_kind():
    x = tf.placeholder(tf.float32, [2], name="x")
    y = tf.add(x, 1.0, name="y")
    v = tf.Variable([5.0, 6.0], name="v")
    done = tf.group(y)
    a, b, c = [1, 2], [2, 3], [5, 6]
    cases = [(y, b), ([y], [b]), ((x, y), (a, b)), ([y, x, y], [b, a, b]), ("y", b), ("y:0", b), (["y:0", x], [b, a]),
             (done, None), ([done, y], [None, b]), (v, c), (v.op, c), ({"k": y, 3: v}, {"k": b, 3: c}),
             (Pair(x, y), Pair(a, b)),
             (Pair(x, [y]), Pair(a, [b])), ((x, [y]), (a, [b])), ([(x, y)], [(a, b)]), ([Pair(x, y)], [Pair(a, b)]),
             ([], []), ((), ()), ({}, {}), ([[], {}], [[], {}]), ({"k": [Pair((x,), {"l": done}), "v"]},
                                                                  {"k": [Pair((a,), {"l": None}), c]}),
             (collections.OrderedDict(z=x, a=y), {"z": a, "a": b})]
    with tf.Session() as session:
        session.run(v.initializer)
        for _ in range(3):
            for fetches, expected in cases:
                found = session.run(fetches, {x: a})
                assert plain(found) == expected
                assert type(found) is not list or isinstance(fetches, list)
                assert plain(session.make_callable(fetches, [x])(np.array(a, np.float32))) == expected
        assert list(session.run(collections.OrderedDict(z=x, a=y), {x: a})) == ["z", "a"]


def test_eval_run_and_the_default_session():
    x = tf.placeholder(tf.float32, [], name="x")
    v = tf.Variable(3.0)
    y = x * v
    assert tf.get_default_session() is None
    with tf.Session() as session:
        assert tf.get_default_session() is session
        assert tf.global_variables_initializer().run() is None
        assert y.eval({x: 2}) == 6 == y.eval(feed_dict={"x:0": 2}) == v.eval() * 2
        with tf.Session() as inner:
            assert tf.get_default_session() is inner
            with session.as_default():
                assert y.eval({x: 2}) == 6
            assert tf.get_default_session() is inner
        assert tf.get_default_session() is session
    assert tf.get_default_session() is None
    other = tf.Session()
    v.load(4, other)
    assert y.eval({x: 2}, session=other) == 8


def test_interactive_session():
    graph = tf.Graph()
    session = tf.InteractiveSession(graph=graph)
    assert tf.get_default_graph() is graph
    assert tf.get_default_session() is session
    assert tf.constant(3).eval() == 3
    session.close()
    assert tf.get_default_session() is None
    assert tf.get_default_graph() is not graph
    session = tf.InteractiveSession()
    tf.Variable(1.0).initializer.run()
    session.close()


def test_default_graphs():
    outer = tf.get_default_graph()
    inner = tf.Graph()
    with inner.as_default():
        tf.constant(1, name="c")
        assert tf.get_default_graph() is inner
        with tf.Session(graph=outer):
            assert tf.get_default_graph() is outer
        with tf.Session() as session:
            assert session.run("c") == 1
    assert tf.get_default_graph() is outer
    with tf.Session(graph=inner) as session:
        assert session.run("c:0") == 1
        assert inner.get_tensor_by_name("c:0") is inner.get_operations()[0]
    with pytest.raises(tf.errors.SessionError, match="not a graphc.Graph"):
        tf.Session(graph="c")


def test_names_scopes_and_collections():
    assert [tf.constant(1, name="c").name for _ in range(3)] == ["c", "c_1", "c_2"]
    assert tf.constant(1, name="c_1").name == "c_1_1"
    with tf.name_scope("s") as scope:
        assert scope == "s/"
        inside = tf.constant(1, name="c")
        with tf.name_scope("t"):
            v = tf.Variable(1.0, name="v", trainable=False)
    with tf.name_scope("s"):
        assert tf.constant(1, name="c").name == "s_1/c"
    with tf.name_scope(scope):
        assert tf.constant(1, name="d").name == "s/d"
    assert (inside.name, v.name) == ("s/c", "s/t/v")
    w = tf.Variable(2.0)
    assert tf.global_variables() == [v, w]
    assert tf.trainable_variables() == [w] == tf.get_collection(tf.GraphKeys.TRAINABLE_VARIABLES)
    assert tf.global_variables("s/t") == [v]
    tf.add_to_collection("mine", 3)
    found = tf.get_collection("mine")
    found.append(4)
    assert tf.get_collection("mine") == [3]
    with tf.Graph().as_default():
        assert tf.get_collection("mine") == []


# whose memory it is ------------------------------------------------------------------------------------------------------


def test_results_are_the_callers_own():
    x = tf.placeholder(tf.float32, [None], name="x")
    v = tf.Variable(np.arange(4, dtype=np.float32))
    y, view = x + 1, tf.reshape(x + 1, [-1, 1])
    constant = tf.constant(np.ones(4, np.float32))
    fed = np.ones(4, np.float32)
    with tf.Session() as session:
        session.run(v.initializer)
        fetches = [x, y, view, y, v, v.read_value(), constant, x, tf.reshape(v, [2, 2]), v.assign_add(constant)]
        call = session.make_callable(fetches, [x])
        for use in (lambda: session.run(fetches, {x: fed}), lambda: call(fed)):
            found = use()
            for k, a in enumerate(found):
                assert a.flags.writeable and a.flags.c_contiguous
                assert not any(np.shares_memory(a, b) for b in [*found[:k], fed, *session.store.arrays.values()])
            before = [a.copy() for a in found]
            for a in found:
                a[...] = -7
            again = use()
            assert [a.tolist() for a in again[:4]] == [a.tolist() for a in before[:4]]
            assert fed.tolist() == [1] * 4
    assert found[0].tolist() == [-7] * 4  # also after the session is gone


@pytest.mark.parametrize("size", [5, 40_000])
def test_held_results_and_views_stay_as_they_are(size):
    x = tf.placeholder(tf.float32, [None], name="x")
    y = x * 2
    z = tf.reduce_sum(x)
    with tf.Session() as session:
        call = session.make_callable([y, z], [x])
        held = []
        for k in range(60):
            found, total = call(np.full(size, k, np.float32))
            if k % 5 == 0:
                held.append((k, found, total))
            elif k % 5 == 1:
                held.append((k, found[1:3], total))
            elif k % 5 == 2:
                held.append((k, memoryview(found), total))
            elif k % 5 == 3:
                held.append((k, found.reshape(-1, 5).T[0], total))
            del found
            if k % 20 == 19:
                del held[::2]
                gc.collect()
        for k, part, total in held:
            assert np.all(np.asarray(part) == 2 * k)
            assert total == np.float32(k) * size


def test_large_results_are_recycled():
    x = tf.placeholder(tf.float32, [None], name="x")
    fed = np.ones(100_000, np.float32)
    with tf.Session() as session:
        call = session.make_callable(x + 1, [x])
        addresses = {call(fed).ctypes.data for _ in range(10)}
        assert len(addresses) == 1
        kept = [call(fed) for _ in range(12)]
        assert len({a.ctypes.data for a in kept}) == 12
        assert all(a[0] == 2 for a in kept)


def test_scalars_are_values():
    x = tf.placeholder(tf.float64, [], name="x")
    with tf.Session() as session:
        one, two = (session.run([x + 1, tf.cast(x, tf.int64) * 2], {x: k}) for k in (1, 2))
    assert (one, two) == ([2, 2], [3, 4])
    assert [type(a) for a in one] == [np.float64, np.int64]


class Subclass(np.ndarray):
    pass


def test_feeds_are_used_in_place_and_never_written():
    x = tf.placeholder(tf.float32, [None, 3], name="x")
    v = tf.Variable(tf.zeros([2, 3]))
    y = [x * 2, v.assign(x)]
    fed = np.arange(6, dtype=np.float32).reshape(2, 3)
    fed.flags.writeable = False
    odd = np.zeros(25, np.uint8)[1:].view(np.float32).reshape(2, 3)
    wanted = fed.tolist()
    with tf.Session() as session:
        call = session.make_callable(y, [x])
        forms = [fed, fed.astype(np.float64), fed.astype(">f4"), np.asfortranarray(fed), fed.tolist(), fed.astype(np.int8),
                 np.repeat(fed, 2, axis=0)[::2], fed[::-1][::-1], fed.view(Subclass), odd]
        odd[...] = fed
        for form in forms + forms[::-1]:
            for found in (session.run(y, {x: form}), call(form)):
                assert found[0].tolist() == (fed * 2).tolist()
                assert type(found[0]) is np.ndarray
        assert fed.tolist() == wanted


# feeding anything --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "numpy"])
def test_any_tensor_can_be_fed(device, monkeypatch):
    monkeypatch.setattr(options, "device", device)
    x = tf.placeholder(tf.float32, [2], name="x")
    c = tf.constant([10.0, 20.0], name="c")
    v = tf.Variable([3.0, 4.0], name="v")
    middle = tf.multiply(x, c, name="middle")
    read = v.read_value()
    y = middle + read + v
    half = tf.placeholder_with_default(0.5, [], name="half")
    scaled = y * half
    with tf.Session() as session:
        session.run(v.initializer)

        def get(feeds, fetch=y):
            return session.run(fetch, feeds).tolist()
        assert get({x: [1, 2]}) == [16, 48]
        assert get({middle: [1, 2]}) == [7, 10]              # x is not needed then
        assert get({middle: [1, 2], x: [9, 9]}) == [7, 10]
        assert get({x: [1, 2], c: [1, 1]}) == [7, 10]
        assert get({x: [1, 2], read: [0, 0]}) == [13, 44]
        assert get({x: [1, 2], v: [1, 1]}) == [12, 42]       # all reads
        assert get({"middle:0": [1, 2], "v": [0, 0]}) == [1, 2]
        assert get({y: [8, 9]}) == [8, 9]
        assert get({x: [1, 2]}, scaled) == [8, 24]
        assert get({x: [1, 2], half: 1}, scaled) == [16, 48]
        assert get({}, v) == [3, 4]
        with pytest.raises(tf.errors.FeedError, match="'v' is fed and written"):
            get({v: [1, 1]}, v.assign_add([1, 1]))
    with tf.Session() as session:                            # a fed variable needs no value
        assert get({middle: [1, 2], v: [1, 1]}) == [3, 4]


def test_gradients_through_what_is_fed():
    x = tf.placeholder(tf.float32, [], name="x")
    y = x * x
    dx = tf.gradients(y * y, [x, y])
    with tf.Session() as session:
        assert session.run(dx, {x: 2}) == [32, 8]
        assert session.run(dx, {x: 2, y: 5}) == [40, 10]


def test_the_order_of_feeds_means_nothing():
    x, y = tf.placeholder(tf.float32, [], name="x"), tf.placeholder(tf.float32, [], name="y")
    z = x - y
    with tf.Session() as session:
        for feeds in ({x: 5, y: 1}, {y: 1, x: 5}, {"y": 1, x: 5}, {x: np.float32(5), y: np.float32(1)}):
            assert session.run(z, feeds) == 4
        assert len(session._compiled) == 1
        assert session.make_callable(z, [y, x])(1, 5) == 4
        assert session.make_callable(z, ["x", "y"])(5, 1) == 4


def test_placeholder_with_default_checks_its_shape():
    with pytest.raises(tf.errors.ShapeError, match=r"has another shape"):
        tf.placeholder_with_default([1.0, 2.0], [3])
    with pytest.raises(tf.errors.ShapeError, match=r"has another shape"):
        tf.placeholder_with_default([1.0, 2.0], [])
    assert tf.placeholder_with_default([1.0, 2.0], [None]).shape == (2,)


# sizes -------------------------------------------------------------------------------------------------------------------


def test_a_new_size_compiles_nothing(kernels):
    x = tf.placeholder(tf.float32, [None, 3], name="x")
    w = tf.Variable(np.ones((3, 2), np.float32))
    y = tf.nn.softmax(tf.matmul(x, w))
    with tf.Session() as session:
        session.run(w.initializer)
        call = session.make_callable([y, tf.reduce_mean(y)], [x])
        call(np.ones((4, 3), np.float32))
        kernels()
        for size in (1, 7, 0, 4, 1000, 7, 64, 4) * 2:
            found, mean = call(np.ones((size, 3), np.float32))
            assert found.shape == (size, 2) and np.allclose(found, 0.5)
            assert np.isnan(mean) if size == 0 else np.isclose(mean, 0.5)
            assert session.run(y, {x: np.ones((size, 3))}).shape == (size, 2)
        assert kernels() == 0
        assert len(session._compiled) == 3


def test_many_sizes():
    x = tf.placeholder(tf.float32, [None], name="x")
    total = tf.reduce_sum(x)
    with tf.Session() as session:
        call = session.make_callable(total, [x])
        for size in [*range(100), *range(100)]:
            assert call(np.ones(size, np.float32)) == size


def test_several_named_dims_and_expressions():
    a = tf.placeholder(tf.float32, ["N", "M"], name="a")
    b = tf.placeholder(tf.float32, ["M", "2*N"], name="b")
    c = tf.placeholder(tf.float32, ["N*M+1"], name="c")
    product = tf.matmul(a, b)
    assert [str(d) for d in product.shape] == ["N", "2*N"]
    flat = tf.reshape(a, [-1])
    total = tf.reduce_sum(product) + tf.reduce_sum(tf.concat([flat, [1.0]], 0) * c)
    with tf.Session() as session:
        call = session.make_callable([total, product], [a, b, c])

        def arrays(n, m, n2, size):
            return [np.ones(s, np.float32) for s in ((n, m), (m, n2), (size,))]
        for n, m in ((3, 4), (5, 2), (0, 4), (4, 0), (3, 4)):
            value, found = call(*arrays(n, m, 2 * n, n * m + 1))
            assert found.shape == (n, 2 * n) and value == 2 * n * n * m + n * m + 1
        for sizes, what in (((3, 4, 7, 13), r"2\*N = 6 != 7"), ((3, 4, 6, 14), r"M\*N\+1 = 13 != 14")):
            for use in (call, lambda *v: session.run(total, dict(zip((a, b, c), v, strict=True)))):
                with pytest.raises(tf.errors.FeedError, match=what) as caught:
                    use(*arrays(*sizes))
                assert "with    a: " in str(caught.value)


def test_a_dim_that_is_told_only_by_an_expression():
    x = tf.placeholder(tf.float32, ["K"], name="x")
    twice = tf.concat([x, x], 0)
    y = twice * 2
    lone = tf.placeholder(tf.float32, ["3*J+1", "J+L", "L"], name="lone")
    with tf.Session() as session:
        assert session.run(y, {twice: [1, 2, 3, 4]}).tolist() == [2, 4, 6, 8]
        with pytest.raises(tf.errors.FeedError, match=r"2\*K = 2 != 3"):
            session.run(y, {twice: [1, 2, 3]})
        assert session.run(lone + 1, {lone: np.zeros((7, 7, 5))}).shape == (7, 7, 5)
        for shape in ((7, 8, 5), (8, 7, 5)):
            with pytest.raises(tf.errors.FeedError, match="J"):
                session.run(lone + 1, {lone: np.zeros(shape)})


def test_equations_of_dims_that_operations_need():
    a = tf.placeholder(tf.float32, ["N"], name="a")
    b = tf.placeholder(tf.float32, ["M"], name="b")
    c = tf.placeholder(tf.float32, ["K", 2], name="c")
    ok = a * 2
    total = tf.reshape(c, [-1]) + a + b
    with tf.Session() as session:
        assert session.run(total, {a: np.ones(4), b: np.ones(4), c: np.ones((2, 2))}).tolist() == [3] * 4
        for n, m, k in ((4, 4, 3), (4, 5, 2), (5, 5, 2)):
            with pytest.raises(tf.errors.ShapeError, match="of shape") as caught:
                session.run(total, {a: np.ones(n), b: np.ones(m), c: np.ones((k, 2))})
            assert "!=" in str(caught.value) and "add" in str(caught.value)
        # what is not fetched needs no equation
        assert session.run([ok, b], {a: np.ones(4), b: np.ones(5)})[1].shape == (5,)


# random numbers ----------------------------------------------------------------------------------------------------------


def numbers(device, seed=1, runs=3, op_seed=None):
    """What the runs of a fresh session give, and a second fetch in between."""
    with pytest.MonkeyPatch.context() as patch, tf.Graph().as_default():
        patch.setattr(options, "device", device)
        if seed is not None:
            tf.set_random_seed(seed)
        one, two = tf.random_uniform([5], seed=op_seed), tf.random_normal([3])
        with tf.Session() as session:
            found = []
            for _ in range(runs):
                found += [session.run(one), *session.run([one, two])]
            return found


@pytest.mark.parametrize("device", ["cpu", "numpy"])
def test_each_run_has_other_numbers(device):
    found = [a for a in numbers(device) if a.size == 5]
    assert len({a.tobytes() for a in found}) == len(found) == 6
    assert [a.tolist() for a in numbers(device)] == [a.tolist() for a in numbers(device)]
    assert numbers(device)[0].tolist() != numbers(device, seed=2)[0].tolist()
    assert numbers(device, None)[0].tolist() != numbers(device, None)[0].tolist()
    assert numbers(device, None, op_seed=3)[0].tolist() == numbers(device, None, op_seed=3)[0].tolist()


def test_random_numbers_are_those_of_the_interpreter():
    for a, b in zip(numbers("cpu"), numbers("numpy"), strict=True):
        assert a.tobytes() == b.tobytes() if a.size == 5 else np.allclose(a, b, rtol=1e-6)


def test_one_random_tensor_is_one_value_in_a_run():
    x = tf.random_uniform([4])
    with tf.Session() as session:
        assert not session.run([x - x, x])[0].any()
        a, b = session.run([tf.random_uniform([4]), tf.random_uniform([4])])
        assert a.tolist() != b.tolist()


def test_other_devices_are_refused(monkeypatch):
    monkeypatch.setattr(options, "device", "gpu")
    with tf.Session() as session, pytest.raises(tf.errors.CompileError, match="'gpu'"):
        session.run(tf.constant(1) + 1)


@pytest.mark.slow
def test_what_a_call_costs():
    """On a quiet machine: `run` at most 8 microseconds, a bound call at most 3 (measured 1.5 and 0.9)."""
    import time
    x, y = tf.placeholder(tf.float32, [4], name="x"), tf.placeholder(tf.float32, [4], name="y")
    a = np.ones(4, np.float32)
    with tf.Session() as session:
        total = tf.reduce_sum(x * y)
        call = session.make_callable(total, [x, y])
        feeds = {x: a, y: a}
        for use, limit in ((lambda: call(a, a), 3e-6), (lambda: session.run(total, feeds), 8e-6)):
            use()
            best = np.inf
            for _ in range(20):
                start = time.perf_counter()
                for _ in range(2000):
                    use()
                best = min(best, (time.perf_counter() - start) / 2000)
            assert best < limit
