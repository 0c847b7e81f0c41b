"""The public elementwise functions, operators, activations and losses against NumPy, and bad arguments."""
from __future__ import annotations

import math

import numpy as np
import pytest
from test_hard_gradients import EVALUATORS, feed

import graphc.functions.math as f
from graphc import losses, nn
from graphc.errors import ArgumentError, DTypeError, RunError, ShapeError
from graphc.ir import types
from graphc.ir.container import Graph
from graphc.ir.node import INPUT, apply
from graphc.ir.types import TensorType
from graphc.ops import composite

FLOATS = ["float32", "float64"]
RNG = np.random.default_rng(7)
NAN, INF = float("nan"), float("inf")


@pytest.fixture(params=[EVALUATORS[0], pytest.param(EVALUATORS[1], marks=pytest.mark.slow)], ids=lambda e: e.__name__)
def evaluate(request):
    """A way to run a graph: (fetches, {input: array}) -> arrays."""
    return request.param


def run(evaluate, function, *arrays):
    """function(tensors fed with the arrays), evaluated; a tuple gives a list."""
    arrays = [np.asarray(a) for a in arrays]
    with Graph().as_default():
        inputs = [feed(a) for a in arrays]
        found = function(*inputs)
        several = isinstance(found, tuple)
        values = evaluate(list(found) if several else [found], dict(zip(inputs, arrays, strict=True)))
        return values if several else values[0]


def close(got, expected, dtype, ulps=8):
    """Equal but for `ulps`, with the same dtype, and NaN in the same places."""
    assert got.dtype == dtype
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(got, np.asarray(expected, dtype), rtol=ulps * eps, atol=ulps * eps)


ONE = np.array([[-1.7, -0.3, 0.2], [0.9, 1.6, -0.8]])
INSIDE = ONE / 2
ABOVE = np.abs(ONE) + 1
UNARY = [
    ("abs", np.abs, ONE), ("negative", np.negative, ONE), ("sign", np.sign, ONE), ("square", np.square, ONE),
    ("sqrt", np.sqrt, ABOVE), ("rsqrt", lambda x: 1 / np.sqrt(x), ABOVE), ("reciprocal", lambda x: 1 / x, ONE),
    ("exp", np.exp, ONE), ("expm1", np.expm1, ONE), ("log", np.log, ABOVE), ("log1p", np.log1p, ABOVE),
    ("sin", np.sin, ONE), ("cos", np.cos, ONE), ("tan", np.tan, INSIDE), ("asin", np.arcsin, INSIDE),
    ("acos", np.arccos, INSIDE), ("atan", np.arctan, ONE), ("sinh", np.sinh, ONE), ("cosh", np.cosh, ONE),
    ("tanh", np.tanh, ONE), ("asinh", np.arcsinh, ONE), ("acosh", np.arccosh, ABOVE), ("atanh", np.arctanh, INSIDE),
    ("erf", np.vectorize(math.erf), ONE), ("erfc", np.vectorize(math.erfc), ONE),
    ("sigmoid", lambda x: 1 / (1 + np.exp(-x)), ONE), ("log_sigmoid", lambda x: -np.log1p(np.exp(-x)), ONE),
    ("floor", np.floor, ONE), ("ceil", np.ceil, ONE), ("rint", np.rint, ONE), ("round", np.round, ONE),
    ("trunc", np.trunc, ONE), ("identity", np.array, ONE), ("stop_gradient", np.array, ONE),
]
BINARY = [
    ("add", np.add), ("subtract", np.subtract), ("multiply", np.multiply), ("divide", np.divide), ("div", np.divide),
    ("truediv", np.divide), ("floordiv", np.floor_divide), ("mod", np.mod), ("floormod", np.mod), ("pow", np.power),
    ("maximum", np.maximum), ("minimum", np.minimum), ("squared_difference", lambda x, y: (x - y) ** 2),
    ("atan2", np.arctan2), ("div_no_nan", np.divide), ("xlogy", lambda x, y: x * np.log(y)), ("xdivy", np.divide),
]
COMPARISONS = [("equal", np.equal), ("not_equal", np.not_equal), ("less", np.less), ("less_equal", np.less_equal),
               ("greater", np.greater), ("greater_equal", np.greater_equal)]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("name", "numpy", "x"), UNARY, ids=[u[0] for u in UNARY])
def test_functions_of_one_tensor(evaluate, name, numpy, x, dtype):
    x = x.astype(dtype)
    close(run(evaluate, getattr(f, name), x), numpy(x.astype("float64")), dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("name", "numpy"), BINARY, ids=[b[0] for b in BINARY])
def test_functions_of_two_tensors_broadcast(evaluate, name, numpy, dtype):
    x, y = RNG.uniform(0.5, 3, (3, 1)).astype(dtype), RNG.uniform(0.5, 3, 4).astype(dtype)
    close(run(evaluate, getattr(f, name), x, y), numpy(x.astype("float64"), y.astype("float64")), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8"])
@pytest.mark.parametrize(("name", "numpy"), COMPARISONS, ids=[c[0] for c in COMPARISONS])
def test_comparisons(evaluate, name, numpy, dtype):
    x, y = RNG.integers(0, 3, (4, 5)).astype(dtype), RNG.integers(0, 3, 5).astype(dtype)
    np.testing.assert_array_equal(run(evaluate, getattr(f, name), x, y), numpy(x, y))


def test_comparisons_with_nan(evaluate):
    x = np.array([NAN, 1.0])
    assert run(evaluate, f.equal, x, x).tolist() == [False, True]
    assert run(evaluate, f.not_equal, x, x).tolist() == [True, False]


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_integer_arithmetic(evaluate, dtype):
    x, y = np.array([[7, 250, 0, 9]], dtype), np.array([[2], [3]], dtype)
    for name, numpy in [("add", np.add), ("subtract", np.subtract), ("multiply", np.multiply), ("pow", np.power),
                        ("floordiv", np.floor_divide), ("div", np.floor_divide), ("mod", np.mod),
                        ("truncatediv", np.floor_divide),
                        ("maximum", np.maximum), ("minimum", np.minimum), ("bitwise_and", np.bitwise_and),
                        ("bitwise_or", np.bitwise_or), ("bitwise_xor", np.bitwise_xor), ("left_shift", np.left_shift),
                        ("right_shift", np.right_shift)]:
        got = run(evaluate, getattr(f, name), x, y)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, numpy(x, y), err_msg=name)
    np.testing.assert_array_equal(run(evaluate, f.invert, x), ~x)


def test_signs_of_integer_division(evaluate):
    x, y = np.array([7, -7, 7, -7, 6, -6]), np.array([2, 2, -2, -2, -3, 3])
    np.testing.assert_array_equal(run(evaluate, f.floordiv, x, y), [3, -4, -4, 3, -2, -2])
    np.testing.assert_array_equal(run(evaluate, f.floormod, x, y), [1, 1, -1, -1, 0, 0])
    np.testing.assert_array_equal(run(evaluate, f.truncatediv, x, y), [3, -3, -3, 3, -2, -2])


@pytest.mark.parametrize("function", [f.floordiv, f.floormod, f.truncatediv, f.div])
def test_integer_division_by_zero(evaluate, function):
    with pytest.raises(RunError, match=r"(?s)integer division by zero.*\[1\]"):
        run(evaluate, function, np.array([1, 2]), np.array([1, 0]))


def test_float_division_by_zero_is_no_error(evaluate):
    np.testing.assert_array_equal(run(evaluate, f.divide, np.array([1.0, -1.0, 0.0]), np.zeros(3)), [INF, -INF, NAN])


def test_integer_to_a_negative_power(evaluate):
    with pytest.raises(RunError, match="integer to a negative power"):
        run(evaluate, f.pow, np.array([1, 2]), np.array([1, -1]))
    with Graph().as_default(), pytest.raises(ArgumentError, match="(?s)integer to a negative power.*y = -1"):
        feed(np.array([1, 2])) ** -1


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 4, 7, 33])
def test_integer_to_a_constant_power(evaluate, exponent):
    x = np.array([-3, 0, 2, 5], "int32")
    np.testing.assert_array_equal(run(evaluate, lambda t: t ** exponent, x), x ** np.int32(exponent))


@pytest.mark.parametrize(("dtype", "wide"), [("int32", "float64"), ("int64", "float64"), ("uint8", "float32")])
def test_true_division_of_integers_gives_floats(evaluate, dtype, wide):
    got = run(evaluate, lambda x: x / 2, np.array([1, 2, 3], dtype))
    assert got.dtype == wide
    assert got.tolist() == [0.5, 1, 1.5]


def test_round_takes_halves_to_even(evaluate):
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.4])
    np.testing.assert_array_equal(run(evaluate, f.round, x), [-2, -2, 0, 0, 2, 2, 2])
    np.testing.assert_array_equal(run(evaluate, f.round, np.array([3, 4])), [3, 4])


def test_logic(evaluate):
    x, y = np.array([True, True, False, False]), np.array([True, False, True, False])
    for function, symbol, numpy in [(f.logical_and, lambda a, b: a & b, np.logical_and),
                                    (f.logical_or, lambda a, b: a | b, np.logical_or),
                                    (f.logical_xor, lambda a, b: a ^ b, np.logical_xor)]:
        np.testing.assert_array_equal(run(evaluate, function, x, y), numpy(x, y))
        np.testing.assert_array_equal(run(evaluate, symbol, x, y), numpy(x, y))
    np.testing.assert_array_equal(run(evaluate, lambda a: ~a, x), ~x)


def test_classes_of_floats(evaluate):
    x = np.array([NAN, INF, -INF, 0.0])
    assert run(evaluate, f.is_nan, x).tolist() == [True, False, False, False]
    assert run(evaluate, f.is_inf, x).tolist() == [False, True, True, False]
    assert run(evaluate, f.is_finite, x).tolist() == [False, False, False, True]


# operators -------------------------------------------------------------------------------------------

OPERATORS = [
    ("+", lambda a, b: a + b), ("-", lambda a, b: a - b), ("*", lambda a, b: a * b), ("/", lambda a, b: a / b),
    ("//", lambda a, b: a // b), ("%", lambda a, b: a % b), ("**", lambda a, b: a ** b), ("<", lambda a, b: a < b),
    ("<=", lambda a, b: a <= b), (">", lambda a, b: a > b), (">=", lambda a, b: a >= b),
]
OTHERS = [2, 1.5, np.float32(1.5), np.float64(1.5), np.int64(2), np.array(1.5), np.array([1.5, 2.0, 0.5]),
          [1.5, 2.0, 0.5]]


@pytest.mark.parametrize("other", OTHERS, ids=lambda o: f"{type(o).__name__}{np.shape(o)}")
@pytest.mark.parametrize(("symbol", "operate"), OPERATORS, ids=[o[0] for o in OPERATORS])
def test_operators_with_numbers_and_arrays_on_both_sides(evaluate, symbol, operate, other):
    x = np.array([[0.5, 1.5, 2.5], [3.0, 0.25, 1.0]], "float32")
    wide = np.asarray(other, "float32")
    for function, expected in [(lambda t: operate(t, other), operate(x, wide)),
                               (lambda t: operate(other, t), operate(wide, x))]:
        got = run(evaluate, function, x)
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_operators_with_one_operand(evaluate):
    x = np.array([-1.5, 2.0], "float32")
    np.testing.assert_array_equal(run(evaluate, lambda t: -t, x), -x)
    np.testing.assert_array_equal(run(evaluate, lambda t: abs(t), x), np.abs(x))


def test_bit_operators_of_integers(evaluate):
    x = np.array([6, 3, 250], "uint8")
    np.testing.assert_array_equal(run(evaluate, lambda t: (t & 5) | 8, x), (x & 5) | 8)
    np.testing.assert_array_equal(run(evaluate, lambda t: ~t ^ 1, x), ~x ^ 1)


def test_equals_is_identity():
    with Graph().as_default():
        x, y = feed(np.zeros(2)), feed(np.zeros(2))
        assert (x == y) is False
        assert x in [y, x]


# casts, choice, clipping -----------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["float32", "float64", "int32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("source", ["float32", "float64", "int32", "int64", "uint8", "bool"])
def test_cast_between_all_dtypes(evaluate, source, target):
    x = np.array([0, 1, 2, 100, 200], "float64").astype(source)
    got = run(evaluate, lambda t: f.cast(t, target), x)
    assert got.dtype == target
    np.testing.assert_array_equal(got, x.astype(target))


@pytest.mark.parametrize("source", FLOATS)
@pytest.mark.parametrize("target", ["int32", "int64", "uint8"])
def test_cast_of_floats_out_of_range(evaluate, source, target):
    info = np.iinfo(target)
    x = np.array([NAN, INF, -INF, 1e30, -1e30, 1.9, -0.9, 2.0 ** info.bits, float(info.min)], source)
    got = run(evaluate, lambda t: f.cast(t, target), x)
    assert got.tolist() == [0, info.max, info.min, info.max, info.min, 1, 0, info.max, info.min]


def test_casts_by_name(evaluate):
    x = np.array([1.5, -2.5])
    for function, dtype in [(f.to_float, "float32"), (f.to_double, "float64"), (f.to_int32, "int32"),
                            (f.to_int64, "int64")]:
        got = run(evaluate, function, x)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, x.astype(dtype))
    assert run(evaluate, lambda t: f.saturate_cast(t, "uint8"), np.array([-5, 300, 7])).tolist() == [0, 255, 7]


def test_cast_to_the_same_dtype_is_the_tensor_itself():
    with Graph().as_default():
        x = feed(np.zeros(2))
        assert f.cast(x, types.float64) is x


def test_where(evaluate):
    c, x, y = np.array([True, False]), np.array([[1.0, 2], [3, 4]]), np.zeros((2, 2))
    np.testing.assert_array_equal(run(evaluate, f.where, c, x, y), [[1, 2], [0, 0]])       # TensorFlow 1 picks rows
    np.testing.assert_array_equal(run(evaluate, f.where_v2, c, x, y), [[1, 0], [3, 0]])    # NumPy broadcasts
    np.testing.assert_array_equal(run(evaluate, lambda a, b: f.where(a, b, 0), x > 2, x), [[0, 0], [3, 4]])
    np.testing.assert_array_equal(run(evaluate, f.where, x > 1), [[0, 1], [1, 0], [1, 1]])
    with Graph().as_default(), pytest.raises(ArgumentError, match="where: it takes x and y, or neither"):
        f.where(feed(c), feed(c))


def test_clip_with_bounds_crossed_at_run_gives_the_lower_one(evaluate):
    got = run(evaluate, f.clip_by_value, np.array([-5.0, 0.0, 5.0]), np.array(1.0), np.array(-1.0))
    assert got.tolist() == [1, 1, 1]


def test_add_n(evaluate):
    x = np.arange(3.0)
    np.testing.assert_array_equal(run(evaluate, lambda a, b, c: f.add_n([a, b, c]), x, x, x), 3 * x)
    np.testing.assert_array_equal(run(evaluate, lambda a: f.add_n([a]), x), x)
    with Graph().as_default():
        with pytest.raises(ArgumentError, match="empty"):
            f.add_n([])
        with pytest.raises(ShapeError, match=r"(?s)add_n: first and other differ in shape.*3 != 2"):
            f.add_n([feed(x), feed(x[:2])])


def test_norms_of_lists(evaluate):
    a, b = np.array([3.0, 0.0]), np.array([[4.0]])
    assert run(evaluate, lambda x, y: f.global_norm([x, None, y]), a, b) == 5
    got = run(evaluate, lambda x, y: (*f.clip_by_global_norm([x, y], 2.5)[0], f.clip_by_norm(x, 1.0)), a, b)
    np.testing.assert_allclose(got[0], a / 2)
    np.testing.assert_allclose(got[1], b / 2)
    np.testing.assert_allclose(got[2], [1, 0])
    with Graph().as_default():
        assert f.clip_by_global_norm([None, feed(a)], 1.0)[0][0] is None


def test_check_numerics(evaluate):
    x = np.array([1.0, 2.0])
    np.testing.assert_array_equal(run(evaluate, lambda t: f.check_numerics(t, "bad"), x), x)
    for wrong in (NAN, INF):
        with pytest.raises(RunError, match=r"bad: the tensor has NaN or Inf values"):
            run(evaluate, lambda t: f.check_numerics(t, "bad"), np.array([1.0, wrong]))


# activations and losses ------------------------------------------------------------------------------


def _softmax(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


ACTIVATIONS = [
    ("relu", lambda x: np.maximum(x, 0)), ("relu6", lambda x: np.clip(x, 0, 6)),
    ("elu", lambda x: np.where(x > 0, x, np.expm1(x))),
    ("leaky_relu", lambda x: np.where(x > 0, x, 0.2 * x)), ("softplus", lambda x: np.logaddexp(x, 0)),
    ("selu", lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x))),
    ("softsign", lambda x: x / (1 + np.abs(x))), ("swish", lambda x: x / (1 + np.exp(-x))), ("softmax", _softmax),
    ("gelu", lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))),
    ("log_softmax", lambda x: np.log(_softmax(x))),
    ("hard_sigmoid", lambda x: np.clip(0.2 * x + 0.5, 0, 1)),
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("name", "numpy"), ACTIVATIONS, ids=[a[0] for a in ACTIVATIONS])
def test_activations(evaluate, name, numpy, dtype):
    x = np.array([[-3.0, -1, 0.5], [2, 8, 0]], dtype)
    close(run(evaluate, getattr(nn, name), x), numpy(x.astype("float64")), dtype, ulps=32)


def test_gelu_by_tanh(evaluate):
    x = np.linspace(-3, 3, 7)
    expected = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    close(run(evaluate, lambda t: nn.gelu(t, approximate=True), x), expected, "float64")


def test_softmax_along_another_axis(evaluate):
    x = RNG.normal(size=(2, 3, 4))
    first, middle = (np.moveaxis(_softmax(np.moveaxis(x, axis, -1)), -1, axis) for axis in (0, 1))
    close(run(evaluate, lambda t: nn.softmax(t, axis=0), x), first, "float64")
    close(run(evaluate, lambda t: nn.softmax(t, dim=-2), x), middle, "float64")


@pytest.mark.parametrize("label_dtype", ["int32", "int64", "uint8"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_cross_entropies(evaluate, dtype, label_dtype):
    x, labels = RNG.normal(size=(4, 300)).astype(dtype), np.array([0, 200, 255, 3], label_dtype)
    onehot = np.eye(300, dtype=dtype)[labels]
    expected = -np.log(_softmax(x.astype("float64")))[np.arange(4), labels]
    close(run(evaluate, lambda z, t: nn.sparse_softmax_cross_entropy_with_logits(labels=z, logits=t), labels, x),
          expected, dtype, ulps=64)
    close(run(evaluate, lambda z, t: nn.softmax_cross_entropy_with_logits(labels=z, logits=t), onehot, x),
          expected, dtype, ulps=64)


def test_sigmoid_cross_entropies(evaluate):
    x, z = RNG.normal(size=(4, 3)), RNG.uniform(size=(4, 3))
    p = 1 / (1 + np.exp(-x))
    close(run(evaluate, lambda a, b: nn.sigmoid_cross_entropy_with_logits(labels=a, logits=b), z, x),
          -z * np.log(p) - (1 - z) * np.log(1 - p), "float64", ulps=64)
    close(run(evaluate, lambda a, b: nn.weighted_cross_entropy_with_logits(labels=a, logits=b, pos_weight=3), z, x),
          -3 * z * np.log(p) - (1 - z) * np.log(1 - p), "float64", ulps=64)


def test_reductions_of_composites_with_a_named_dim(evaluate):
    x = RNG.normal(size=(5, 3))
    with Graph().as_default() as graph:
        dim = graph.fresh_dim()
        t = apply(INPUT, (), {"type": TensorType(types.float64, (dim, 3)), "role": "feed", "variable": None}, name="x")
        fetches = [composite.reduce_mean(t, (0, 1)), *nn.moments(t, [0]), nn.l2_loss(t), nn.zero_fraction(t),
                   losses.mean_squared_error(composite.zeros_like(t), t), composite.reduce_std(t, (1,))]
        found = evaluate(fetches, {t: x})
    expected = [x.mean(), x.mean(0), x.var(0), (x**2).sum() / 2, 0, (x**2).mean(), x.std(1)]
    for got, value in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, value, rtol=1e-12)


def test_mean_of_integers_rounds_toward_zero(evaluate):
    assert run(evaluate, lambda t: composite.reduce_mean(t, (0,)), np.array([1, 0, 1, 0], "int32")) == 0
    assert run(evaluate, lambda t: composite.reduce_mean(t, (0,)), np.array([-3, -2], "int32")) == -2
    assert run(evaluate, lambda t: composite.reduce_mean(t, (0,)), np.full(300, 200, "uint8")) == 200


def test_parts_of_layers(evaluate):
    x, w, b = RNG.normal(size=(4, 3)), RNG.normal(size=(3, 2)), RNG.normal(size=2)
    close(run(evaluate, nn.xw_plus_b, x, w, b), x @ w + b, "float64")
    images = RNG.normal(size=(2, 3, 4, 5))
    close(run(evaluate, lambda v, c: nn.bias_add(v, c, data_format="NCHW"), images, b3 := RNG.normal(size=3)),
          images + b3[:, None, None], "float64")
    close(run(evaluate, lambda t: nn.l2_normalize(t, 1), x), x / np.linalg.norm(x, axis=1, keepdims=True), "float64")
    top = run(evaluate, lambda p, t: nn.in_top_k(p, t, 2), np.array([[0.1, 0.5, 0.4]] * 4), np.array([0, 1, 2, 7]))
    assert top.tolist() == [False, True, True, False]


def test_a_named_number_of_classes(evaluate):
    with Graph().as_default() as graph:
        type_ = TensorType(types.float32, (2, graph.fresh_dim()))
        logits = apply(INPUT, (), {"type": type_, "role": "feed", "variable": None}, name="x")
        labels = feed(np.zeros(2, "int32"))
        loss = nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        x = np.zeros((2, 4), "float32")
        value, = evaluate([loss], {logits: x, labels: np.array([0, 3], "int32")})
        np.testing.assert_allclose(value, np.log(4), rtol=1e-6)
        with pytest.raises(RunError, match="label value outside"):
            evaluate([loss], {logits: x, labels: np.array([0, 4], "int32")})


def test_dropout(evaluate):
    x = np.ones((50, 40), "float32")
    got = run(evaluate, lambda t: nn.dropout(t, 0.75, seed=3), x)
    assert set(np.unique(got)) == {0, np.float32(1 / 0.75)}
    assert abs((got == 0).mean() - 0.25) < 0.05
    np.testing.assert_array_equal(run(evaluate, lambda t: nn.dropout(t, rate=0.25, seed=3), x), got)
    np.testing.assert_array_equal(run(evaluate, lambda t, k: nn.dropout(t, k, seed=3), x, np.float32(0.75)), got)
    np.testing.assert_array_equal(run(evaluate, lambda t: nn.dropout(t, 1.0), x), x)
    rows = run(evaluate, lambda t: nn.dropout(t, 0.5, noise_shape=[None, 1], seed=3), x)
    assert (rows == rows[:, :1]).all()
    assert 0 < (rows == 0).mean() < 1


def test_crelu(evaluate):
    np.testing.assert_array_equal(run(evaluate, nn.crelu, np.array([[-1.0, 2.0]])), [[0, 2, 1, 0]])


def test_losses_are_weighted_and_collected(evaluate):
    labels, x = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[0.5, 0.5], [3.0, -3.0]])
    with Graph().as_default() as graph:
        z, t = feed(labels), feed(x)
        made = [losses.mean_squared_error(z, t), losses.absolute_difference(z, t, weights=[[1.0], [0.0]]),
                losses.huber_loss(z, t), losses.hinge_loss(z, t), losses.sigmoid_cross_entropy(z, t),
                losses.softmax_cross_entropy(z, t), losses.softmax_cross_entropy(z, t, label_smoothing=0.2),
                losses.sparse_softmax_cross_entropy([1, 0], t), losses.log_loss(z, f.sigmoid(t)),
                losses.mean_squared_error(z, t, weights=0.0), losses.mean_squared_error(z, t, weights=2.0)]
        assert graph.get_collection("losses") == made
        found = evaluate([*made, losses.get_total_loss()], {z: labels, t: x})
    error = np.abs(labels - x)
    entropy = np.logaddexp(x, 0) - x * labels
    logs = np.log(_softmax(x))
    expected = [np.mean(error**2), 0.5, np.mean(np.where(error < 1, error**2 / 2, error - 0.5)),
                np.mean(np.maximum(0, 1 - (2 * labels - 1) * x)), np.mean(entropy), -np.mean((labels * logs).sum(1)),
                -np.mean(((labels * 0.8 + 0.1) * logs).sum(1)), -np.mean((labels * logs).sum(1)), np.mean(entropy), 0,
                2 * np.mean(error**2)]
    np.testing.assert_allclose(found, [*expected, np.sum(expected)], rtol=1e-6)


# bad arguments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("error", "call", "message"), [
    (ShapeError, lambda x, n: f.add(feed(np.zeros((2, 3))), feed(np.zeros(4))),
     r"(?s)add: shapes do not broadcast.*\[2,3\].*\[4\].*3 != 4"),
    (DTypeError, lambda x, n: n + f.to_float(x), r"(?s)add: dtypes differ.*i32.*f32.*i32 != f32.*cast"),
    (DTypeError, lambda x, n: n + 1.5, r"1\.5 is not a value of int32"),
    (DTypeError, lambda x, n: x + "a", r"add"),
    (DTypeError, lambda x, n: x + None, r"None is not an array of numbers"),
    (DTypeError, lambda x, n: f.exp(n), r"(?s)exp: int32 is not accepted.*n: i32"),
    (DTypeError, lambda x, n: nn.relu(f.cast(x, "bool")), r"relu: bool is not accepted"),
    (DTypeError, lambda x, n: x & x, r"(?s)operator &: float64 is not accepted.*bools"),
    (DTypeError, lambda x, n: f.logical_and(x, x), r"logical_and: float64 is not accepted"),
    (DTypeError, lambda x, n: f.bitwise_and(x, x), r"bitwise_and: float64 is not accepted"),
    (DTypeError, lambda x, n: f.where(x, x, x), r"condition must be bool"),
    (DTypeError, lambda x, n: f.cast(x, "complex64"), r"complex64.*not a dtype"),
    (DTypeError, lambda x, n: nn.softmax(n), r"softmax: int32 is not accepted"),
    (DTypeError, lambda x, n: nn.dropout(n, 0.5), r"dropout: it takes floats"),
    (ShapeError, lambda x, n: nn.softmax(x, axis=2), r"(?s)softmax: axis out of range.*axis 2 of rank 1"),
    (ArgumentError, lambda x, n: nn.softmax_cross_entropy_with_logits(x, x), r"call it as"),
    (ShapeError, lambda x, n: nn.sigmoid_cross_entropy_with_logits(labels=feed(np.zeros((1, 3))), logits=x),
     r"labels and logits differ"),
    (ShapeError, lambda x, n: nn.sparse_softmax_cross_entropy_with_logits(labels=n, logits=x), r"one axis less"),
    (DTypeError, lambda x, n: nn.sparse_softmax_cross_entropy_with_logits(labels=feed(np.zeros(())), logits=x),
     r"labels must be integers"),
    (ShapeError, lambda x, n: nn.bias_add(feed(np.zeros((2, 3))), feed(np.zeros(1))), r"(?s)bias does not fit.*3 != 1"),
    (ShapeError, lambda x, n: losses.mean_squared_error(feed(np.zeros((3, 1))), x), r"labels and predictions differ"),
    (ArgumentError, lambda x, n: losses.mean_squared_error(x, x, reduction="sum"), r"no reduction"),
    (ArgumentError, lambda x, n: nn.dropout(x, 1.5), r"keep_prob = 1.5 is out of range"),
    (ArgumentError, lambda x, n: nn.dropout(x), r"one of keep_prob and rate"),
])
def test_bad_arguments_are_named(error, call, message):
    with Graph().as_default():
        x, n = feed(np.zeros(3), "x"), feed(np.zeros(3, "int32"), "n")
        with pytest.raises(error, match=message) as caught:
            call(x, n)
        assert "test_functions_math.py" in str(caught.value)
