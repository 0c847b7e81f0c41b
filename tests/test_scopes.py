"""`get_variable`, `variable_scope` and initializers."""
import math

import numpy as np
import pytest

import graphc as tf

pytestmark = pytest.mark.usefixtures("fresh_graph")


def test_names_and_reuse():
    with tf.variable_scope("a") as scope:
        w = tf.get_variable("w", [2, 3])
        assert w.name == "a/w" and scope.name == "a" and tf.add(w, 1.0, name="y").name == "a/y"
        with tf.variable_scope("b"):
            assert tf.get_variable("w", [1]).name == "a/b/w"
            assert tf.get_variable_scope().name == "a/b"
        with tf.name_scope("n"):
            assert tf.get_variable("v", [1]).name == "a/v"     # name scopes do not count
    with tf.variable_scope("a", reuse=True):
        assert tf.get_variable("w") is w is tf.get_variable("w", [2, 3], tf.float32)
        assert tf.add(w, 1.0, name="y").name == "a_1/y"        # operations get names of their own
        with tf.variable_scope("b"):
            assert tf.get_variable_scope().reuse is True       # scopes inside inherit it
    with tf.variable_scope(scope, reuse=tf.AUTO_REUSE):
        assert tf.get_variable("w", [2, 3]) is w
        assert tf.get_variable("u", [1]).name == "a/u"
    with tf.variable_scope("c"):
        with tf.variable_scope(scope):
            assert tf.get_variable("t", [1]).name == "a/t"     # a scope object stands for its whole name
        tf.get_variable("w", [1])
        tf.get_variable_scope().reuse_variables()
        assert tf.get_variable("w").name == "c/w"
    assert tf.get_variable_scope().name == "" and tf.get_variable_scope().reuse is False
    assert scope.global_variables()[0] is w
    assert [v.name for v in tf.trainable_variables("a/b")] == ["a/b/w"]


def test_default_names():
    def dense():
        with tf.variable_scope(None, "dense") as scope:
            tf.get_variable("k", [1])
            return scope.name
    assert [dense(), dense()] == ["dense", "dense_1"]
    for _ in range(2):
        with tf.variable_scope("top", reuse=tf.AUTO_REUSE):
            assert [dense(), dense()] == ["top/dense", "top/dense_1"]
    assert dense() == "dense_2"
    for bad in ({"name_or_scope": None}, {"name_or_scope": 3}, {"name_or_scope": "x", "reuse": "yes"},
                {"name_or_scope": None, "default_name": "d", "reuse": True}):
        with pytest.raises(tf.errors.ArgumentError, match="variable_scope"):
            with tf.variable_scope(**bad):
                pass


def test_defaults_of_a_scope_and_values():
    def l2(v):
        return tf.reduce_sum(v * v)
    with tf.variable_scope("s", initializer=tf.constant_initializer(3.0), regularizer=l2, dtype=tf.float64):
        a = tf.get_variable("a", [2])
        b = tf.get_variable("b", [1], tf.int32, initializer=tf.ones_initializer, trainable=False, regularizer=lambda v: None)
        with tf.variable_scope("inner"):
            c = tf.get_variable("c", [])
    value = tf.get_variable("value", initializer=[[1.0, 2.0]])
    array = tf.get_variable("array", initializer=np.arange(3.0))
    whole = tf.get_variable("whole", [2], tf.int32)
    function = tf.get_variable("function", [2], initializer=lambda shape, dtype: tf.zeros(shape, dtype) + 7)
    assert [v.dtype for v in (a, b, c)] == [tf.float64, tf.int32, tf.float64]
    assert b not in tf.trainable_variables()
    losses = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        found = session.run([a, b, c, value, array, whole, function])
        assert [f.tolist() for f in found] == [[3, 3], [1], 3, [[1, 2]], [0, 1, 2], [0, 0], [7, 7]]
        assert session.run(losses) == [18, 9]
    with pytest.raises(tf.errors.ShapeError, match="another shape"):
        tf.get_variable("x", [3], initializer=tf.zeros([2]))
    with pytest.raises(tf.errors.ShapeError, match="numbers"):
        tf.get_variable("x", ["N", 3])


def test_variables_of_two_graphs_do_not_meet():
    one = tf.get_variable("w", [1])
    with tf.Graph().as_default():
        assert tf.get_variable("w", [1]) is not one


SHAPE = (300, 200)
MOMENTS = {  # mean, standard deviation, largest size
    "random_normal": (lambda: tf.random_normal_initializer(1.0, 2.0, seed=1), 1, 2, np.inf),
    "truncated_normal": (lambda: tf.truncated_normal_initializer(0.0, 1.0, seed=1), 0, 0.8796, 2),
    "random_uniform": (lambda: tf.random_uniform_initializer(-1, 1, seed=1), 0, 1 / math.sqrt(3), 1),
    "glorot_uniform": (lambda: tf.glorot_uniform_initializer(seed=1), 0, math.sqrt(2 / 500), math.sqrt(6 / 500)),
    "glorot_normal": (lambda: tf.glorot_normal_initializer(seed=1), 0, math.sqrt(2 / 500), 2 * math.sqrt(2 / 500) / 0.8796),
    "variance_scaling": (lambda: tf.variance_scaling_initializer(seed=1), 0, math.sqrt(1 / 300), np.inf),
    "he_normal": (lambda: tf.initializers.he_normal(1), 0, math.sqrt(2 / 300), np.inf),
    "lecun_uniform": (lambda: tf.initializers.lecun_uniform(1), 0, math.sqrt(1 / 300), math.sqrt(3 / 300)),
    "untruncated": (lambda: tf.variance_scaling_initializer(2.0, "fan_out", "untruncated_normal", seed=1), 0, 0.1, np.inf),
    "xavier": (lambda: tf.initializers.xavier_initializer(uniform=False, seed=1), 0, math.sqrt(2 / 500), np.inf),
}


def test_random_initializers():
    made = {name: make()(SHAPE) for name, (make, *_) in MOMENTS.items()}
    with tf.Session() as session:
        found = session.run(made)
    for name, (_, mean, deviation, limit) in MOMENTS.items():
        value = found[name]
        assert value.dtype == np.float32 and value.shape == SHAPE
        assert abs(value.mean() - mean) < 0.02 * deviation, name
        assert abs(value.std() - deviation) < 0.02 * deviation, name
        assert np.abs(value).max() <= limit * (1 + 1e-6), name


def test_constant_initializers():
    made = [tf.zeros_initializer()([2], tf.bool), tf.ones_initializer(tf.int32)([2]), tf.constant_initializer(2.5)([]),
            tf.constant_initializer([1, 2])([2, 2]), tf.constant_initializer(np.eye(2))([2, 2], tf.float64),
            tf.random_uniform_initializer(0, 10, seed=3)([4], tf.int64)]
    with tf.Session() as session:
        found = session.run(made)
    assert [f.tolist() for f in found[:5]] == [[False] * 2, [1, 1], 2.5, [[1, 2], [2, 2]], [[1, 0], [0, 1]]]
    assert found[4].dtype == np.float64 and found[5].dtype == np.int64
    assert tf.initializers.fans((3, 3, 8, 16)) == (72, 144)
    for bad in (lambda: tf.variance_scaling_initializer(-1.0), lambda: tf.variance_scaling_initializer(mode="fan"),
                lambda: tf.glorot_uniform_initializer()([None, 2]), lambda: tf.variance_scaling_initializer(distribution="x")):
        with pytest.raises(tf.errors.ArgumentError):
            bad()
    with pytest.raises(tf.errors.DTypeError, match="int32"):
        tf.glorot_uniform_initializer()([2, 2], tf.int32)
