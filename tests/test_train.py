"""Optimizers against NumPy implementations of TensorFlow 1's formulas, over several steps; and learning-rate schedules."""
import math

import numpy as np
import pytest

import graphc as tf

STEPS = 5
START = {"a": np.array([[1.0, -2.0], [3.0, 0.5]]), "b": np.array([0.25, -1.5])}


pytestmark = pytest.mark.usefixtures("fresh_graph")


# The formulas: (state, gradient, rate) -> step to subtract; `state` is a dict of what is kept, and "value".


def descent(state, g, rate):
    return rate * g


def momentum(state, g, rate, nesterov=False):
    state["m"] = state.get("m", 0) * 0.9 + g
    return rate * (g + 0.9 * state["m"]) if nesterov else rate * state["m"]


def adagrad(state, g, rate):
    state["a"] = state.get("a", 0.1) + g * g
    return rate * g / np.sqrt(state["a"])


def rmsprop(state, g, rate, centered=False, mu=0.0):
    state["s"] = 0.9 * state.get("s", 1.0) + (1 - 0.9) * g * g
    state["g"] = 0.9 * state.get("g", 0.0) + (1 - 0.9) * g
    spread = state["s"] - state["g"] ** 2 if centered else state["s"]
    state["m"] = mu * state.get("m", 0.0) + rate * g / np.sqrt(spread + 1e-10)
    return state["m"]


def adadelta(state, g, rate):
    state["a"] = 0.95 * state.get("a", 0.0) + (1 - 0.95) * g * g
    step = g * np.sqrt(state.get("u", 0.0) + 1e-8) / np.sqrt(state["a"] + 1e-8)
    state["u"] = 0.95 * state.get("u", 0.0) + (1 - 0.95) * step * step
    return rate * step


def shrunk(moved, rate, l1=0.05, l2=0.1):
    return np.sign(moved) * np.maximum(np.abs(moved) - rate * l1, 0) / (1 + rate * l2)


def proximal(state, g, rate):
    return state["value"] - shrunk(state["value"] - rate * g, rate)


def proximal_adagrad(state, g, rate):
    state["a"] = state.get("a", 0.1) + g * g
    own = rate / np.sqrt(state["a"])
    return state["value"] - shrunk(state["value"] - own * g, own)


def ftrl(state, g, rate, p=0.5, l1=0.0, l2=0.0, shrinkage=0.0):
    a, v = state.get("a", 0.1), state["value"]
    state["a"] = a + g * g
    state["z"] = state.get("z", 0.0) + g + 2 * shrinkage * v - (state["a"] ** p - a ** p) / rate * v
    z = state["z"]
    return v - np.where(np.abs(z) > l1, (np.sign(z) * l1 - z) / (state["a"] ** p / rate + 2 * l2), 0)


def adam(state, g, rate):
    state["t"] = t = state.get("t", 0) + 1
    state["m"] = 0.9 * state.get("m", 0) + (1 - 0.9) * g
    state["v"] = 0.999 * state.get("v", 0) + (1 - 0.999) * g * g
    return rate * math.sqrt(1 - 0.999**t) / (1 - 0.9**t) * state["m"] / (np.sqrt(state["v"]) + 1e-8)


OPTIMIZERS = {
    "descent": (lambda r: tf.train.GradientDescentOptimizer(r), descent, []),
    "momentum": (lambda r: tf.train.MomentumOptimizer(r, 0.9), momentum, ["momentum"]),
    "nesterov": (lambda r: tf.train.MomentumOptimizer(r, 0.9, use_nesterov=True), lambda s, g, r: momentum(s, g, r, True),
                 ["momentum"]),
    "adagrad": (lambda r: tf.train.AdagradOptimizer(r), adagrad, ["accumulator"]),
    "rmsprop": (lambda r: tf.train.RMSPropOptimizer(r), rmsprop, ["momentum", "rms"]),
    "rmsprop with momentum": (lambda r: tf.train.RMSPropOptimizer(r, momentum=0.5), lambda s, g, r: rmsprop(s, g, r, mu=0.5),
                              ["momentum", "rms"]),
    "centered": (lambda r: tf.train.RMSPropOptimizer(r, centered=True, momentum=0.5),
                 lambda s, g, r: rmsprop(s, g, r, True, 0.5), ["mg", "momentum", "rms"]),
    "adadelta": (lambda r: tf.train.AdadeltaOptimizer(r), adadelta, ["accum", "accum_update"]),
    "proximal": (lambda r: tf.train.ProximalGradientDescentOptimizer(r, 0.05, 0.1), proximal, []),
    "proximal adagrad": (lambda r: tf.train.ProximalAdagradOptimizer(r, 0.1, 0.05, 0.1), proximal_adagrad, ["accumulator"]),
    "ftrl": (lambda r: tf.train.FtrlOptimizer(r), ftrl, ["accum", "linear"]),
    "ftrl with penalties": (
        lambda r: tf.train.FtrlOptimizer(r, -0.7, 0.1, 0.3, 0.2, l2_shrinkage_regularization_strength=0.1),
        lambda s, g, r: ftrl(s, g, r, 0.7, 0.3, 0.2, 0.1), ["accum", "linear"]),
    "adam": (lambda r: tf.train.AdamOptimizer(r), adam, ["m", "v"]),
}


def model(dtype):
    """(variables, loss, its gradients in NumPy): a loss of two variables with axes that differ."""
    a, b = (tf.Variable(START[n].astype(dtype), name=n) for n in "ab")
    loss = tf.reduce_sum(tf.square(a) * b) + tf.reduce_sum(tf.sin(b))

    def gradients(values):
        x, y = values
        return 2 * x * y, np.sum(x * x, axis=0) + np.cos(y)
    return [a, b], loss, gradients


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_follow_the_formulas(name, dtype):
    make, formula, slots = OPTIMIZERS[name]
    variables, loss, gradients = model(dtype)
    rate = tf.placeholder(dtype, [], "rate")
    optimizer = make(rate)
    step = tf.Variable(0, trainable=False, name="step")
    train = optimizer.minimize(loss, global_step=step)
    assert optimizer.get_slot_names() == slots
    for slot in slots:
        assert [optimizer.get_slot(v, slot).shape for v in variables] == [v.shape for v in variables]
        assert all(optimizer.get_slot(v, slot) not in tf.trainable_variables() for v in variables)
    assert optimizer.get_slot(variables[0], "nothere") is None
    values = [START[n].astype(dtype) for n in "ab"]
    states = [{}, {}]
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        call = session.make_callable([train, loss], [rate])
        for k in range(STEPS):
            speed = np.asarray(0.1 / (k + 1), dtype)
            expected = np.sum(values[0] ** 2 * values[1]) + np.sum(np.sin(values[1]))
            done, found = call(speed)
            assert done is None
            assert np.isclose(found, expected, rtol=1e-4 if dtype == "float32" else 1e-12)
            for state, value in zip(states, values, strict=True):
                state["value"] = value
            steps = [formula(s, g, float(speed)) for s, g in zip(states, gradients(values), strict=True)]
            values = [(v - d).astype(dtype) for v, d in zip(values, steps, strict=True)]
        tolerance = 3e-5 if dtype == "float32" else 1e-12
        for v, expected in zip(variables, values, strict=True):
            assert np.allclose(session.run(v), expected, rtol=tolerance, atol=tolerance)
        assert session.run(step) == STEPS


def test_processed_gradients():
    variables, loss, gradients = model("float32")
    other = tf.Variable([1.0], name="other")
    optimizer = tf.train.GradientDescentOptimizer(0.5)
    pairs = optimizer.compute_gradients(loss)
    assert [v for _, v in pairs] == [*variables, other] and pairs[2][0] is None
    clipped = [(tf.clip_by_value(g, -1.0, 1.0), v) for g, v in pairs if g is not None]
    train = optimizer.apply_gradients([*clipped, (None, other)])
    norms, norm = tf.clip_by_global_norm([g for g, _ in pairs[:2]], 1.0)
    by_norm = optimizer.apply_gradients(zip(norms, variables, strict=True))
    given = optimizer.apply_gradients([(np.ones((2, 2)), variables[0])])
    start = [START[n] for n in "ab"]
    with tf.Session() as session:
        def step(what):
            session.run(tf.global_variables_initializer())
            session.run(what)
            return session.run(variables)
        for found, v, g in zip(step(train), start, gradients(start), strict=True):
            assert np.allclose(found, v - 0.5 * np.clip(g, -1, 1), atol=1e-6)
        whole = math.sqrt(sum(np.sum(g * g) for g in gradients(start)))
        assert np.isclose(session.run(norm, {variables[0]: start[0], variables[1]: start[1]}), whole)
        for found, v, g in zip(step(by_norm), start, gradients(start), strict=True):
            assert np.allclose(found, v - 0.5 * g / whole, atol=1e-6)
        assert np.allclose(step(given)[0], start[0] - 0.5)
        assert session.run(other).tolist() == [1]


def test_var_list_and_two_optimizers_and_names():
    variables, loss, gradients = model("float32")
    first = tf.train.GradientDescentOptimizer(0.5).minimize(loss, var_list=[variables[0]])
    second = tf.train.AdamOptimizer(0.5).minimize(loss, var_list=variables[1])
    named = tf.train.GradientDescentOptimizer(0.5, name="mine").minimize(-loss, var_list=variables, name="ascent")
    assert first.name.startswith("GradientDescent/") and named.name.startswith("ascent/")
    start = [START[n] for n in "ab"]
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        session.run([first, second])
        found = session.run(variables)
        assert np.allclose(found[0], start[0] - 0.5 * gradients(start)[0])
        assert np.allclose(found[1], start[1] - 0.5 * np.sign(gradients(start)[1]), atol=1e-4)


def test_a_loss_with_axes_is_summed():
    v = tf.Variable([1.0, 2.0])
    losses = v * v
    train = tf.train.GradientDescentOptimizer(0.5).minimize(losses)
    weighted = tf.train.GradientDescentOptimizer(0.5).minimize(losses, grad_loss=[1.0, 0.5])
    with tf.Session() as session:
        for what, expected in ((train, [0, 0]), (weighted, [0, 1])):
            session.run(v.initializer)
            session.run(what)
            assert session.run(v).tolist() == expected


@pytest.mark.parametrize("kind", ["number", "variable", "function", "float64 tensor", "int tensor", "numpy"])
def test_forms_of_the_learning_rate(kind):
    rate = tf.Variable(2.0, trainable=False)
    forms = {"number": 2, "variable": rate, "function": lambda: 2.0, "float64 tensor": tf.constant(2.0, tf.float64),
             "int tensor": tf.constant(2), "numpy": np.float64(2)}
    v = tf.Variable([3.0])
    train = tf.train.GradientDescentOptimizer(forms[kind]).minimize(v * 1.0)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        session.run(train)
        assert session.run(v).tolist() == [1]


def test_no_subclass_without_an_update():
    class Mine(tf.train.Optimizer):
        pass
    v = tf.Variable([1.0])
    with pytest.raises(NotImplementedError, match="Mine"):
        Mine(0.1).minimize(v * v)
    with pytest.raises(tf.errors.ArgumentError, match="positive"):
        tf.train.AdagradOptimizer(0.1, initial_accumulator_value=0)


def test_linear_regression_converges():
    rng = np.random.default_rng(0)
    x_values = rng.normal(size=(64, 3)).astype(np.float32)
    truth = np.array([[1.0], [-2.0], [0.5]], np.float32)
    x, y = tf.placeholder("float", [None, 3]), tf.placeholder("float", [None, 1])
    w, b = tf.get_variable("w", [3, 1]), tf.get_variable("b", [1], initializer=tf.zeros_initializer())
    loss = tf.reduce_mean(tf.square(tf.matmul(x, w) + b - y))
    train = tf.train.AdamOptimizer(0.1).minimize(loss)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        step = session.make_callable([train, loss], [x, y])
        for _ in range(300):
            _, last = step(x_values, x_values @ truth + 3)
        assert last < 1e-4
        assert np.allclose(session.run(w), truth, atol=0.02)


# schedules ---------------------------------------------------------------------------------------------------------------

SCHEDULES = {
    "exponential": (lambda s: tf.train.exponential_decay(0.5, s, 10, 0.9), lambda t: 0.5 * 0.9 ** (t / 10)),
    "staircase": (lambda s: tf.train.exponential_decay(0.5, s, 10, 0.9, staircase=True), lambda t: 0.5 * 0.9 ** (t // 10)),
    "natural": (lambda s: tf.train.natural_exp_decay(0.5, s, 10, 0.9), lambda t: 0.5 * math.exp(-0.9 * t / 10)),
    "inverse": (lambda s: tf.train.inverse_time_decay(0.5, s, 10, 0.9), lambda t: 0.5 / (1 + 0.9 * t / 10)),
    "polynomial": (lambda s: tf.train.polynomial_decay(0.5, s, 20, 0.1, power=2.0),
                   lambda t: 0.4 * (1 - min(t, 20) / 20) ** 2 + 0.1),
    "cycle": (lambda s: tf.train.polynomial_decay(0.5, s, 20, 0.1, cycle=True),
              lambda t: 0.4 * (1 - t / (20 * max(1, math.ceil(t / 20)))) + 0.1),
    "cosine": (lambda s: tf.train.cosine_decay(0.5, s, 20, alpha=0.1),
               lambda t: 0.5 * (0.9 * 0.5 * (1 + math.cos(math.pi * min(t, 20) / 20)) + 0.1)),
    "piecewise": (lambda s: tf.train.piecewise_constant(s, [5, 20], [1.0, 0.5, 0.1]),
                  lambda t: 1.0 if t <= 5 else 0.5 if t <= 20 else 0.1),
}


def test_schedules():
    step = tf.placeholder(tf.int64, [], "step")
    rates = {name: make(step) for name, (make, _) in SCHEDULES.items()}
    assert all(r.dtype == tf.float32 and r.shape == () for r in rates.values())
    with tf.Session() as session:
        call = session.make_callable(rates, [step])
        for t in (0, 1, 5, 6, 10, 19, 20, 21, 40, 55):
            found = call(np.int64(t))
            for name, (_, formula) in SCHEDULES.items():
                assert np.isclose(found[name], formula(t), rtol=1e-5, atol=1e-6), (name, t)


def test_a_schedule_of_the_global_step():
    step = tf.train.get_or_create_global_step()
    v = tf.Variable([0.0])
    rate = tf.train.exponential_decay(1.0, step, 1, 0.5)
    train = tf.train.GradientDescentOptimizer(rate).minimize(-v, step)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for _ in range(3):
            session.run(train)
        assert session.run([v, step]) == [1.75, 3]
    with pytest.raises(tf.errors.ArgumentError, match="3 values, not 1"):
        tf.train.piecewise_constant(step, [1, 2], [1.0])
    with pytest.raises(tf.errors.ArgumentError, match="global_step"):
        tf.train.exponential_decay(1.0, None, 1, 0.5)


# moving averages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("debias", [False, True])
@pytest.mark.parametrize("counted", [False, True])
def test_moving_averages(debias, counted):
    v = tf.Variable(np.array([1.0, 2.0]), name="scope/v")
    x = tf.placeholder(tf.float64, [])
    square = x * x
    step = tf.Variable(0, trainable=False, name="step")
    average = tf.train.ExponentialMovingAverage(0.9, step if counted else None, zero_debias=debias)
    assert average.average(v) is None and average.average_name(v) == "scope/v/ExponentialMovingAverage"
    with tf.control_dependencies([v.assign_add(tf.stack([x, x])), step.assign_add(1)]):
        update = average.apply([v, square])
    assert average.average(v).name == "scope/v/ExponentialMovingAverage" and tf.moving_average_variables() == [v]
    assert average.average(v) not in tf.trainable_variables()
    value, shadow, biased, other = np.array([1.0, 2.0]), np.array([1.0, 2.0]), 0.0, 0.0
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for k in range(4):
            session.run(update, {x: k + 1})
            value = value + k + 1
            decay = min(0.9, (2 + k) / (11 + k)) if counted else 0.9
            shadow, biased = (decay * s + (1 - decay) * value for s in (shadow, biased))
            other = decay * other + (1 - decay) * (k + 1) ** 2
            weight = 1 - decay ** (k + 1)  # with the decay of now, as in TensorFlow
            found, tensor = session.run([average.average(v), average.average(square)])
            assert np.allclose(found, biased / weight if debias else shadow) and np.isclose(tensor, other / weight)


def test_variables_to_restore():
    v, w = tf.Variable(1.0, name="v"), tf.Variable(2.0, name="w", trainable=False)
    average = tf.train.ExponentialMovingAverage(0.5)
    average.apply()
    assert average.variables_to_restore() == {"v/ExponentialMovingAverage": v, "w": w}
    assert average.variables_to_restore([w]) == {"w/ExponentialMovingAverage": w, "v": v}


def test_what_has_no_moving_average():
    average = tf.train.ExponentialMovingAverage(0.5)
    v = tf.Variable(1.0, name="v")
    for values, error, text in [(["a"], tf.errors.ArgumentError, "'a' in var_list is not a variable"),
                                ([tf.constant(1)], tf.errors.DTypeError, "must hold floats"),
                                ([tf.placeholder(tf.float32, [None])], tf.errors.ShapeError, "must be known"),
                                ([v, v], tf.errors.ArgumentError, "'v' is in var_list twice")]:
        with pytest.raises(error, match=text):
            average.apply(values)


def test_optimizers_refuse_negative_penalties():
    with pytest.raises(tf.errors.ArgumentError, match="l1_regularization_strength must not be negative"):
        tf.train.FtrlOptimizer(0.1, l1_regularization_strength=-1.0)
    with pytest.raises(tf.errors.ArgumentError, match="-learning_rate_power must not be negative"):
        tf.train.FtrlOptimizer(0.1, learning_rate_power=0.5)
    with pytest.raises(tf.errors.ArgumentError, match="must be positive"):
        tf.train.ProximalAdagradOptimizer(0.1, 0.0)


def test_compute_gradients_with_a_gradient_of_the_loss():
    v = tf.Variable([1.0, 2.0])
    optimizer = tf.train.GradientDescentOptimizer(1.0)
    (gradient, _), = optimizer.compute_gradients(v * v, [v], gate_gradients=optimizer.GATE_GRAPH, grad_loss=[3.0, 5.0])
    with tf.Session() as session:
        session.run(v.initializer)
        assert session.run(gradient).tolist() == [6, 20]
