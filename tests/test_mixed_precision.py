"""Loss scaling, float32 variables under 16-bit computation, and steps that are left out."""
import numpy as np
import pytest

import graphc as tf
from graphc.errors import ArgumentError


@pytest.fixture
def session():
    with tf.Graph().as_default(), tf.Session() as opened:
        yield opened


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype(np.float32)
    return x, x @ np.array([[1.0], [-2.0], [0.5]], np.float32) + 0.25


def network(dtype, x, y):
    """(loss, w, b): linear regression computed in `dtype` on float32 variables."""
    with tf.variable_scope("net", dtype=dtype, custom_getter=tf.mixed_precision.float32_variables):
        w = tf.get_variable("w", [3, 1], initializer=tf.zeros_initializer())
        b = tf.get_variable("b", [1], initializer=tf.zeros_initializer())
    assert w.dtype is dtype
    error = tf.cast(tf.matmul(tf.cast(x, dtype), w) + b - tf.cast(y, dtype), tf.float32)
    return tf.reduce_mean(tf.square(error)), w, b


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16], ids=lambda d: d.name)
@pytest.mark.parametrize("loss_scale", ["dynamic", 128.0])
def test_linear_regression_converges(session, dtype, loss_scale):
    x, y = data()
    loss, *_ = network(dtype, x, y)
    optimizer = tf.train.experimental.enable_mixed_precision_graph_rewrite(tf.train.AdamOptimizer(0.05), loss_scale)
    train = optimizer.minimize(loss)
    variables = tf.trainable_variables()
    assert [v.dtype for v in variables] == [tf.float32, tf.float32]
    session.run(tf.global_variables_initializer())
    for _ in range(300):
        session.run(train)
    w, b = session.run(variables)
    np.testing.assert_allclose(w.ravel(), [1, -2, 0.5], atol=0.02)
    np.testing.assert_allclose(b, [0.25], atol=0.02)


def test_small_updates_add_up_in_float32_variables(session):
    with tf.variable_scope("net", dtype=tf.bfloat16, custom_getter=tf.mixed_precision.float32_variables):
        w = tf.get_variable("w", [1], initializer=tf.ones_initializer())
    train = tf.train.GradientDescentOptimizer(1e-3).minimize(tf.reduce_sum(w))
    session.run(tf.global_variables_initializer())
    for _ in range(100):
        session.run(train)     # each step is less than half of a bfloat16's last place
    assert session.run(w).astype(np.float32).item() == pytest.approx(0.9, abs=0.004)


def test_overflowing_step_is_left_out(session):
    """The scale overflows float16: no variable, slot or step counter changes, the scale is halved; then all goes on."""
    v = tf.Variable(np.array([1.0, 2.0], np.float32), name="v")
    x = tf.placeholder(tf.float32, [2])
    loss = tf.reduce_sum(tf.cast(v, tf.float16) * tf.cast(x, tf.float16))
    step = tf.train.get_or_create_global_step()
    inner = tf.train.AdamOptimizer(0.1)
    scale = tf.mixed_precision.DynamicLossScale(initial_loss_scale=2.0 ** 15, increment_period=3)
    optimizer = tf.mixed_precision.MixedPrecisionLossScaleOptimizer(inner, scale)
    train = optimizer.minimize(loss, global_step=step, var_list=[v])
    session.run(tf.global_variables_initializer())
    watched = [v, step, *inner.variables()]
    before = session.run(watched)
    session.run(train, {x: [1.0, 30.0]})                       # 30 * 2**15 is no float16
    for old, new in zip(before, session.run(watched), strict=True):
        np.testing.assert_array_equal(old, new)
    assert session.run(scale()) == 2.0 ** 14
    session.run(train, {x: [np.nan, 1.0]})
    assert session.run(scale()) == 2.0 ** 13
    assert session.run(step) == 0
    for _ in range(3):
        session.run(train, {x: [1.0, 0.5]})
    np.testing.assert_allclose(session.run(v), [0.7, 1.7], atol=1e-3)     # Adam's first steps are learning_rate each
    assert session.run([step, scale()]) == [3, 2.0 ** 14]


def test_scale_stays_at_least_one_and_finite(session):
    scale = tf.mixed_precision.DynamicLossScale(initial_loss_scale=1.0, increment_period=1, multiplier=1e30)
    gradient = tf.placeholder(tf.float32, [1])
    update, good = scale.update([gradient])
    session.run(tf.global_variables_initializer())
    found = []
    for value in (np.inf, 1.0, 1.0, 1.0):
        found.append((session.run([good, update], {gradient: [value]})[0], session.run(scale())))
    assert found == [(False, 1.0), (True, np.float32(1e30)), (True, np.float32(1e30)), (True, np.float32(1e30))]


def test_gradients_are_those_of_the_loss(session):
    v = tf.Variable([3.0])
    half = tf.Variable(np.array([3.0]), dtype=tf.float16)
    optimizer = tf.mixed_precision.LossScaleOptimizer(tf.train.GradientDescentOptimizer(0.1), 1024)
    loss = tf.reduce_sum(v * v) + tf.cast(tf.reduce_sum(half * 1e-4 * 1e-3), tf.float32)
    pairs = optimizer.compute_gradients(loss, [v, half])
    session.run(tf.global_variables_initializer())
    plain, small = session.run([g for g, _ in pairs])
    np.testing.assert_allclose(plain, [6.0])
    np.testing.assert_allclose(small, [1e-7], rtol=0.02)     # too small for a float16 with all its bits


def test_writes_only_if(session):
    from graphc.variable import writes_only_if
    flag = tf.placeholder(tf.bool, [])
    a, b, c = (tf.Variable(10.0) for _ in range(3))
    with writes_only_if(flag):
        writes = tf.group(a.assign(1.0), b.assign_add(np.nan), c.assign_sub(4.0))
    free = c.assign_add(1.0)
    session.run(tf.global_variables_initializer())
    session.run(writes, {flag: False})
    assert session.run([a, b, c]) == [10, 10, 10]
    session.run([writes, free], {flag: True})
    assert session.run(a) == 1
    assert np.isnan(session.run(b))
    assert session.run(c) == 7


def test_custom_getters_nest(session):
    calls = []

    def outer(getter, name, **given):
        calls.append(("outer", name, given["dtype"]))
        return getter(name, **given)

    def inner(getter, name, **given):
        calls.append(("inner", name, given["dtype"]))
        return getter(name, **{**given, "dtype": tf.float64}) * 2

    with tf.variable_scope("a", custom_getter=outer), tf.variable_scope("b", custom_getter=inner):
        x = tf.get_variable("x", [1], initializer=tf.ones_initializer())
        y = tf.get_variable("y", [1], custom_getter=lambda getter, name, **given: getter(name, **given))
    assert calls == [("inner", "a/b/x", tf.float32), ("outer", "a/b/x", tf.float64)]
    assert isinstance(y, tf.Variable)
    session.run(tf.global_variables_initializer())
    assert session.run(x).tolist() == [2.0]


def test_errors():
    with tf.Graph().as_default():
        sgd = tf.train.GradientDescentOptimizer(0.1)
        with pytest.raises(ArgumentError, match="'static' is no scale"):
            tf.mixed_precision.LossScaleOptimizer(sgd, "static")
        with pytest.raises(ArgumentError, match="is not an optimizer"):
            tf.mixed_precision.LossScaleOptimizer(0.1, 2.0)
        with pytest.raises(ArgumentError, match="-1 is not a positive number"):
            tf.mixed_precision.FixedLossScale(-1)
        with pytest.raises(ArgumentError, match="the multiplier is above 1"):
            tf.mixed_precision.DynamicLossScale(multiplier=1)
        enable = tf.mixed_precision.enable_mixed_precision_graph_rewrite
        scaled = enable(sgd)
        with pytest.raises(ArgumentError, match="scales its loss already"):
            enable(scaled)
