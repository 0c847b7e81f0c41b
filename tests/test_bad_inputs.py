"""Bad inputs: each is refused with a clear error that names what is wrong and the user's own line, and nothing is lost.

The numbers are the rows of the table "Bad inputs" in CORRECTNESS.md, of which rows 32, 34, 40, 44 and 48 concern what does
not exist yet.
"""
import os
import sys

import numpy as np
import pytest

import graphc as tf
from graphc import errors
from graphc.config import options

pytestmark = pytest.mark.usefixtures("fresh_graph")


class refused:
    """Expects an error of a class whose text holds `words`, and that names a line of the `with` block, or one up to
    `above` lines before it; of a node `at`, its line.
    """

    def __init__(self, error, *words, at=None, above=0):
        self.error, self.words, self.at, self.above = error, words, at, above

    def __enter__(self):
        self.start = sys._getframe(1).f_lineno - self.above

    def __exit__(self, kind, error, traceback):
        assert kind is not None, "nothing was refused"
        assert isinstance(error, errors.GraphcError), f"{kind.__name__}: {error}"
        assert isinstance(error, self.error), f"{kind.__name__}: {error}"
        text = str(error)
        missing = [w for w in self.words if w not in text]
        assert not missing, f"{missing} not in:\n{text}"
        line = error.location.line
        assert os.path.basename(error.location.file) == os.path.basename(__file__), text
        assert f"in test_bad_inputs.py:{line}" in text
        assert line == self.at.location.line if self.at is not None else self.start <= line <= traceback.tb_lineno
        return True


def placeholder(shape=(2,), dtype=tf.float32, name="x"):
    return tf.placeholder(dtype, shape, name)


# feeds -------------------------------------------------------------------------------------------------------------------


def test_row_1_placeholder_not_fed():
    y = placeholder() * 2
    with tf.Session() as session:
        with refused(errors.FeedError, "'x' must be fed", "float32", "(2)", "x: f32[2]"):
            session.run(y)


@pytest.mark.parametrize("value", [np.zeros((2, 4), np.float32), np.zeros((2, 4)), [[0] * 4] * 2])
def test_row_2_feed_of_wrong_shape(value):
    x = placeholder((None, 3))
    y = x * 2
    with tf.Session() as session:
        with refused(errors.FeedError, "'x'", "(2, 4)", "N,3"):
            session.run(y, {x: value})
        call = session.make_callable(y, [x])
        call(np.ones((5, 3), np.float32))
        with refused(errors.FeedError, "'x'", "(2, 4)", "N,3"):
            call(value)


@pytest.mark.parametrize(("value", "shape"), [(np.float32(1), "()"), (np.zeros((1, 2, 3), np.float32), "(1, 2, 3)")])
def test_row_3_feed_of_wrong_rank(value, shape):
    x = placeholder((None, 3))
    with tf.Session() as session:
        with refused(errors.FeedError, "'x'", shape, "N,3", "rank"):
            session.run(x * 2, {x: value})


FEEDS = [
    (4, tf.int32, "abc", ["str", "int32"]),
    (4, tf.int32, ["1", "2"], ["str", "int32"]),
    (4, tf.float32, b"abc", ["bytes", "float32"]),
    (5, tf.int32, 1.5, ["1.5", "int32", "fraction"]),
    (5, tf.uint8, np.float64(0.5), ["0.5", "uint8", "fraction"]),
    (6, tf.float32, 1 + 2j, ["complex128", "float32", "imaginary"]),
    (7, tf.int32, 2**40, [str(2**40), "int32", str(2**31 - 1)]),
    (7, tf.int64, 2**70, [str(2**70), "int64", str(2**63 - 1)]),
    (7, tf.int64, np.uint64(2**63), [str(2**63), "int64"]),
    (7, tf.uint8, -1, ["-1", "uint8", "[0, 255]"]),
    (7, tf.int32, 1e20, ["1e+20", "int32"]),
    (7, tf.int32, float("nan"), ["nan", "int32"]),
    (7, tf.float32, 1e300, ["1e+300", "float32", "too large"]),
    (8, tf.float32, [[1, 2], [3]], ["rows differ in length"]),
    (9, tf.float32, None, ["None"]),
    (9, tf.float32, {1: 2}, ["float32"]),
    (0, tf.bool, 1, ["int64", "bool"]),
    (0, tf.float32, True, ["bool", "float32"]),
    (0, tf.float32, np.datetime64("2020-01-01"), ["datetime", "float32"]),
]


@pytest.mark.parametrize(("row", "dtype", "value", "words"), FEEDS)
def test_rows_4_to_9_values_that_do_not_convert(row, dtype, value, words):
    x = placeholder((), dtype)
    y = tf.identity(x)
    with tf.Session() as session:
        with refused(errors.FeedError, "'x'", *words):
            session.run(y, {x: value})
        with refused(errors.FeedError, "'x'", *words):
            session.make_callable(y, [x])(value)


def test_what_is_only_rounded_is_accepted():
    x = placeholder((), tf.float32)
    y = tf.identity(x)
    with tf.Session() as session:
        assert session.run(y, {x: 0.1}) == np.float32(0.1)
        assert session.run(y, {x: 7}) == 7
        assert session.run(y, {x: np.float64("inf")}) == np.inf
        assert session.run(y, {x: np.float16(2)}) == 2


def test_row_10_feed_a_tensor():
    x, other = placeholder(), placeholder(name="other")
    variable = tf.Variable([1.0, 2.0], name="v")
    with tf.Session() as session:
        with refused(errors.FeedError, "'x'", "'other'", "a feed must be a value"):
            session.run(x * 2, {x: other})
        with refused(errors.FeedError, "'x'", "'v'"):
            session.run(x * 2, {x: variable})


def test_rows_11_and_12_feed_keys_that_are_no_tensors():
    x = placeholder()
    y = x * 2
    done = tf.no_op(name="done")
    with tf.Session() as session:
        with refused(errors.FeedError, "'done'", "operation"):
            session.run(y, {done: 1})
        with refused(errors.FeedError, "'xx:0'", "nearest names: x"):
            session.run(y, {"xx:0": 1})
        with refused(errors.FeedError, "3.0"):
            session.run(y, {3.0: 1})
        with refused(errors.FeedError, "twice", "'x'"):
            session.run(y, {x: [1, 2], "x:0": [1, 2]})
        with refused(errors.FeedError, "feed_dict is a dict"):
            session.run(y, [x])


def test_rows_13_and_14_elements_of_another_graph():
    x = placeholder()
    y = x * 2
    with tf.Graph().as_default():
        alien = placeholder(name="alien")
    with tf.Session() as session:
        with refused(errors.FeedError, "'alien'", "session's graph", "alien: f32[2]"):
            session.run(y, {alien: [1, 2]})
        with refused(errors.FetchError, "'alien'", "session's graph", "fetches[1]"):
            session.run([y, alien], {x: [1, 2]})


def test_a_placeholder_without_a_shape_is_a_scalar():
    keep = tf.placeholder(tf.float32, name="keep")
    y = keep * 2
    with tf.Session() as session:
        assert session.run(y, {keep: 0.5}) == 1
        with refused(errors.FeedError, "'keep'", "(2, 3)", "write shape=[None, None]"):
            session.run(y, {keep: np.zeros((2, 3))})


# fetches -----------------------------------------------------------------------------------------------------------------


def test_row_15_tensors_of_two_graphs():
    with tf.Graph().as_default():
        alien = placeholder(name="alien")
    x = placeholder()
    with refused(errors.GraphError, "add", "different graphs", "x: f32[2]", "alien: f32[2]"):
        x + alien


def test_row_16_empty_graph():
    with tf.Session() as session:
        with refused(errors.GraphError, "empty"):
            session.run("x")


def test_rows_17_to_19_fetches_that_are_nothing():
    x = placeholder(name="weights")
    with tf.Session() as session:
        with refused(errors.FetchError, "fetches: None"):
            session.run(None)
        with refused(errors.FetchError, "fetches[1]['a']", "None"):
            session.run([x, {"a": None}])
        with refused(errors.FetchError, "1.0"):
            session.run(1.0)
        with refused(errors.FetchError, "array"):
            session.run(np.zeros(3))
        with refused(errors.FetchError, "'weighst'", "nearest names: weights"):
            session.run("weighst")


def test_row_20_uninitialised_variable():
    v = tf.Variable([1.0, 2.0], name="v")
    w = tf.Variable([1.0, 2.0], name="w")
    with tf.Session() as session:
        for fetch in (v, v * 2, v.assign_add([1, 1]), [w.assign([1, 1]), v]):
            with refused(errors.StateError, "'v'", "v: f32[2]", "global_variables_initializer"):
                session.run(fetch)
        with refused(errors.StateError, "'w'"):
            session.run(w)  # the failed run gave it no value
        session.run(v.assign([3, 4]))
        assert session.run(v).tolist() == [3, 4]


def test_row_21_closed_session():
    x = placeholder(())
    y = x * 2
    session = tf.Session()
    call = session.make_callable(y, [x])
    assert call(np.float32(1)) == session.run(y, {x: 1}) == 2
    session.close()
    for use in (lambda: session.run(y, {x: 1}), lambda: call(np.float32(1)), lambda: session.make_callable(y, [x]),
                lambda: y.eval({x: 1}, session)):
        with refused(errors.SessionError, "closed", above=2):
            use()
    with refused(errors.SessionError, "no default session"):
        y.eval({x: 1})


# ops ---------------------------------------------------------------------------------------------------------------------

OPS = [
    (22, errors.ShapeError, lambda a: tf.matmul(a(2, 3), a(4, 5)), ["matmul", "f32[2,3]", "f32[4,5]", "3 != 4"]),
    (23, errors.ShapeError, lambda a: tf.matmul(tf.placeholder(tf.float32, name="v"), a(2, 3)),
     ["matmul", "its rank is 0", "v was made without a shape, which stands for a scalar: write shape=[None, None]"]),
    (23, errors.ShapeError, lambda a: tf.matmul(a(3), a(3, 2)), ["matmul", "rank", "f32[3]"]),
    (24, errors.ShapeError, lambda a: a(2, 3) + a(4), ["add", "f32[2,3]", "f32[4]", "3 != 4"]),
    (26, errors.DTypeError, lambda a: a(2, dtype=tf.int32) + a(2), ["add", "i32[2]", "f32[2]", "i32 != f32"]),
    (26, errors.DTypeError, lambda a: a(2, dtype=tf.int32) * 1.5, ["1.5", "int32"]),
    (27, errors.ShapeError, lambda a: tf.reshape(a(6), [4, 2]), ["reshape", "6", "8"]),
    (27, errors.GraphcError, lambda a: tf.reshape(a(6), [-1, -1]), ["reshape", "-1"]),
    (28, errors.ShapeError, lambda a: tf.reduce_sum(a(2, 3), 2), ["reduce_sum", "axis 2", "rank 2"]),
    (28, errors.ShapeError, lambda a: tf.reduce_sum(a(2, 3), [1, 1]), ["reduce_sum", "twice"]),
    (29, errors.ShapeError, lambda a: tf.concat([a(2, 3), a(4, 5)], 0), ["concat", "f32[2,3]", "f32[4,5]"]),
    (30, errors.GraphcError, lambda a: tf.transpose(a(2, 3), [0, 0]), ["transpose", "0, 0"]),
    (32, errors.ShapeError, lambda a: tf.cond(a(2, dtype=tf.bool), lambda: 1.0, lambda: 2.0), ["cond", "scalar", "bool[2]"]),
    (32, errors.DTypeError, lambda a: tf.cond(a(), lambda: 1.0, lambda: 2.0), ["cond", "predicate", "float32"]),
    (33, errors.OperatorError, lambda a: bool(a(2)), ["truth value", "where"]),
    (33, errors.OperatorError, lambda a: list(a(2)), ["iterated", "unstack"]),
    (33, errors.OperatorError, lambda a: np.sin(a(2)), ["no value"]),
    (34, errors.ShapeError, lambda a: tf.while_loop(lambda x: True, lambda x: tf.concat([x, x], 0), [tf.zeros([2], name="v")]),
     ["while_loop", "v changes its shape", "f32[2]", "f32[4]", "shape_invariants leave open", "stacked by graphc.scan"]),
    (34, errors.DTypeError, lambda a: tf.while_loop(lambda x: x < 9, lambda x: tf.to_float(x) + 1, [tf.constant(0, name="v")]),
     ["while_loop", "v changes its type", "i32[]", "f32[]"]),
    (34, errors.ShapeError, lambda a: tf.scan(lambda x, r: tf.stack([x, r]), a(3), tf.constant(0.0)),
     ["scan", "changes its type", "f32[]", "f32[2]"]),
    (34, errors.ArgumentError, lambda a: tf.while_loop(lambda x, y: True, lambda x, y: x, [a(), a()]),
     ["while_loop", "1 tensors for 2 loop variables"]),
    (35, errors.ArgumentError, lambda a: tf.placeholder(tf.float32, [], "a b;import os"), ["a b;import os", "letters"]),
    (36, errors.ArgumentError, lambda a: tf.placeholder(tf.float32, [-3]), ["-3", "negative"]),
    (37, errors.ArgumentError, lambda a: tf.zeros([2**40, 2**40]), ["too many elements"]),
    (42, errors.GraphcError, lambda a: tf.clip_by_value(a(2), 1.0, 0.0), ["clip", "1.0", "0.0"]),
    (0, errors.DTypeError, lambda a: tf.placeholder("complex64", []), ["complex64", "float32"]),
    (0, errors.DTypeError, lambda a: tf.log(a(2, dtype=tf.int32)), ["log", "int32"]),
]


@pytest.mark.parametrize(("row", "error", "build", "words"), OPS)
def test_ops_on_operands_that_do_not_fit(row, error, build, words):
    def a(*shape, dtype=tf.float32):
        return tf.placeholder(dtype, list(shape))
    try:
        build(a)
    except errors.GraphcError as e:
        found = e
    else:
        raise AssertionError("nothing was refused")
    assert isinstance(found, error), found
    assert [w for w in words if w not in str(found)] == [], found
    assert (found.location.file, found.location.line) == (__file__, build.__code__.co_firstlineno)


@pytest.mark.parametrize("device", ["cpu", "numpy"])
def test_row_25_shapes_that_differ_when_it_runs(device, monkeypatch):
    monkeypatch.setattr(options, "device", device)
    x, y = placeholder((None,), name="x"), placeholder((None,), name="y")
    total = x + y
    with tf.Session() as session:
        with refused(errors.ShapeError, "add", "x: f32[N] of shape [3]", "y: f32[N1] of shape [4]", "3 != ", at=total):
            session.run(total, {x: np.ones(3), y: np.ones(4)})
        assert session.run(total, {x: np.ones(2), y: np.ones(2)}).tolist() == [2, 2]
        with refused(errors.ShapeError, "add", "of shape [3]", "of shape [4]", at=total):
            session.run(total, {x: np.ones(3, np.float32), y: np.ones(4, np.float32)})


@pytest.mark.parametrize("device", ["cpu", "numpy"])
def test_rows_31_41_43_45_errors_of_kernels_lose_nothing(device, monkeypatch):
    monkeypatch.setattr(options, "device", device)
    k = placeholder((2,), tf.int32, "k")
    x = placeholder((3,), tf.float32, "x")
    v, w = tf.Variable([1.0, 2.0, 3.0], name="v"), tf.Variable([4.0, 5.0, 6.0], name="w")
    picked = tf.gather(x, k)
    ratio = tf.constant([7, 8]) // k
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=k, logits=tf.stack([x, x]))
    checked = tf.check_numerics(tf.log(x), "bad")
    cases = [
        (picked, [0, 5], [1, 2, 3], ["gather", "[1]", "5", "[0, 3)"]),
        (picked, [-1, 0], [1, 2, 3], ["gather", "[0]", "-1", "[0, 3)"]),
        (ratio, [1, 0], [1, 2, 3], ["division by zero", "[1]", "0"]),
        (loss, [0, 7], [1, 2, 3], ["7", "3"]),
        (checked, [0, 0], [1, -2, 3], ["check_numerics", "bad", "[1]", "nan"]),
        (checked, [0, 0], [1, 0, 3], ["check_numerics", "bad", "[1]", "-inf"]),
    ]
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        updates = {}
        for node, index, values, words in cases:
            # The updates come before and after what fails, in place and not, and depend on it or do not.
            scaled = tf.cast(tf.reduce_sum(node), tf.float32)
            first, last = [v.assign_add(x), w.assign(v * 2)], [w.assign_sub(x), v.assign(v + scaled)]
            updates.setdefault(node, [[*first, node], [node, *first], [node, *last], [last[1], first[1], node]])
            for fetches in updates[node]:
                with refused(errors.RunError, *words, at=node):
                    session.run(fetches, {k: index, x: values})
                assert [a.tolist() for a in session.run([v, w])] == [[1, 2, 3], [4, 5, 6]]
        found = session.run(updates[picked][0], {k: [2, 0], x: [1, 2, 3]})
        assert found[2].tolist() == [3, 1]
        assert [a.tolist() for a in session.run([v, w])] == [[2, 4, 6], [2, 4, 6]]


def test_row_38_finalized_graph():
    x = placeholder()
    y = tf.gradients(tf.reduce_sum(x * x), x)[0]
    v = tf.Variable([1.0, 2.0], name="v")
    done = tf.global_variables_initializer()
    tf.get_default_graph().finalize()
    for make in (lambda: x + 1, lambda: tf.placeholder(tf.float32, []), lambda: tf.Variable(1.0), lambda: tf.constant(1.0),
                 lambda: tf.no_op(), lambda: v.assign([1, 2])):
        with refused(errors.GraphError, "finalized", above=2):
            make()
    with tf.Session() as session:
        session.run(done)
        assert session.run([y, v], {x: [1, 2]})[0].tolist() == [2, 4]


def test_row_39_assign_of_another_shape_or_dtype():
    v = tf.Variable([1.0, 2.0], name="v")
    for write in (v.assign, v.assign_add, v.assign_sub):
        with refused(errors.ShapeError, "v: f32[2]", "f32[3]", "2 != 3"):
            write([1.0, 2.0, 3.0])
        with refused(errors.DTypeError, "v: f32[2]", "i32[2]"):
            write(tf.constant([1, 2]))
    with tf.Session() as session:
        with refused(errors.FeedError, "'v'", "(3,)"):
            v.load([1, 2, 3], session)


def test_row_46_gradients_without_a_way():
    k, x = placeholder((2,), tf.int32, "k"), placeholder()
    assert tf.gradients(tf.cast(k, tf.float32) * x, k) == [None]
    assert tf.gradients(tf.cast(tf.argmax(x, 0), tf.float32), x) == [None]
    assert tf.gradients(tf.constant(1.0), x) == [None]
    v = tf.Variable([1, 2], name="v")
    w = tf.Variable([1.0, 2.0], name="w")
    optimizer = tf.train.GradientDescentOptimizer(0.1)
    with refused(errors.ArgumentError, "GradientDescent", "none of the variables", "v, w"):
        optimizer.minimize(tf.reduce_sum(x))
    with refused(errors.ArgumentError, "no gradient", "v, w"):
        optimizer.apply_gradients([(None, v), (None, w)])
    with refused(errors.DTypeError, "floats", "reduce_sum"):
        optimizer.minimize(tf.reduce_sum(v))
    with refused(errors.ArgumentError, "'abc'", "variable"):
        optimizer.minimize(tf.reduce_sum(w * x), var_list=["abc"])
    with refused(errors.ArgumentError, "pair"):
        optimizer.apply_gradients([w])


@pytest.mark.parametrize("rate", [[0.1, 0.2], "0.1", None, np.zeros(2)])
def test_learning_rates_that_are_no_numbers(rate):
    with refused(errors.ArgumentError, "learning rate"):
        tf.train.AdamOptimizer(rate)


def test_row_47_texts_that_are_no_graphs():
    from graphc.ir.parser import parse
    good = "graph g(x: f32[2]) {\n  %0: f32[2] = add(x, x)\n  return %0\n}\n"
    parse(good)
    cycle = "graph g(x: f32[2]) {\n  %0: f32[2] = add(x, %1)\n  %1: f32[2] = add(x, %0)\n  return %1\n}\n"
    for text, word in [("", "graph"), (good[:-4], "line 3"), (good.replace("add(x, x)", "add(x, %1)"), "%1"),
                       (good.replace("add", "nothere"), "nothere"), (good.replace("f32[2] =", "f32[3] ="), "f32[3]"),
                       (good.replace("add(x, x)", "add(x, %0)"), "%0"), (good.replace("f32", "f99"), "f99"),
                       (cycle, "cycle"),
                       ("\0\1\2", "line 1")]:
        with refused(errors.ParseError, word):
            parse(text)


def test_two_unordered_writes():
    v = tf.Variable([1.0, 2.0], name="v")
    first, second, added = v.assign([3, 4]), v.assign([5, 6]), v.assign_add([1, 1])
    with tf.Session() as session:
        session.run(v.initializer)
        for fetches in ([first, second], [added, second], tf.group(first, added)):
            with refused(errors.StateError, "v have no order", "first", "second", "control_dependencies",
                         at=fetches[1] if isinstance(fetches, list) else added):
                session.run(fetches)
            assert session.run(v).tolist() == [1, 2]


def test_wrong_values_for_a_callable():
    x, y = placeholder((), name="x"), placeholder((None,), name="y")
    with tf.Session() as session:
        call = session.make_callable(x * y, [x, y])
        for _ in range(2):
            with refused(errors.FeedError, "takes 2 values, not 1", "x: f32[]", "y: f32[N]"):
                call(1.0)
            with refused(errors.FeedError, "takes 2 values, not 3"):
                call(1.0, [1.0], 3)
            with refused(errors.FeedError, "'y'", "rank 0 != 1"):
                call(1.0, 1.0)
            with refused(errors.FeedError, "'x'", "str"):
                call("a", [1.0])
            assert call(2, [1, 2]).tolist() == [2, 4]


def test_names_and_scopes():
    with refused(errors.ArgumentError, "'a b'", "letters"):
        with tf.name_scope("a b"):
            pass
    with refused(errors.ArgumentError, "3", "name"):
        tf.get_variable(3, [2])
    with refused(errors.ArgumentError, "'v'", "shape"):
        tf.get_variable("v")
    v = tf.get_variable("v", [2])
    with refused(errors.ArgumentError, "'v'", "exists", "AUTO_REUSE"):
        tf.get_variable("v", [2])
    with tf.variable_scope(tf.get_variable_scope(), reuse=True):
        with refused(errors.ArgumentError, "'w'", "does not exist"):
            tf.get_variable("w", [2])
        with refused(errors.ShapeError, "'v'", "[2] != [3]"):
            tf.get_variable("v", [3])
        with refused(errors.DTypeError, "'v'", "float64"):
            tf.get_variable("v", [2], tf.float64)
        assert tf.get_variable("v") is v
