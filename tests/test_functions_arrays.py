"""Public reductions, movement, indexing and products against NumPy, with a number and a name as first size; errors."""
import numpy as np
import pytest

import graphc.functions.math
from graphc.errors import ArgumentError, DTypeError, GraphcError, RunError, ShapeError
from graphc.functions import arrays, gathering, linalg, ranges, reduce
from graphc.functions.math import cast
from graphc.ir import dims
from graphc.ir.container import detached
from graphc.ir.graph import Graph
from graphc.ir.interpreter import interpret
from graphc.ir.node import Node, input_node
from graphc.ir.types import TensorType, as_dtype, int32, int64
from graphc.ir.verify import verify
from graphc.ops.grad import gradients
from graphc.passes.differentiate import differentiate
from graphc.passes.infer_shapes import infer_shapes
from graphc.testing import assert_equal_values, check_gradients

RNG = np.random.default_rng(0)
X = RNG.uniform(-2, 2, (5, 4, 3))


pytestmark = pytest.mark.usefixtures("fresh_graph")


def traced(function, values, named=False):
    """The graph of a function of tensors like `values`; `named`: the first size of each is the dim N."""
    values = [np.asarray(v) for v in values]
    shapes = [(dims.name("N"), *v.shape[1:]) if named and v.ndim else v.shape for v in values]
    with detached():
        inputs = tuple(input_node(f"x{k}", TensorType(as_dtype(v.dtype), s))
                       for k, (v, s) in enumerate(zip(values, shapes, strict=True)))
        found = function(*inputs)
    graph = Graph("f", inputs, (found,) if isinstance(found, Node) else tuple(found))
    verify(graph)
    return graph


def value(function, *values, named=False):
    """The value, or values, of a function of tensors."""
    graph = traced(function, values, named)
    found = interpret(graph, [np.asarray(v) for v in values])
    for got, node in zip(found, graph.outputs, strict=True):
        env = {"N": np.shape(values[0])[0]} if named else {}
        assert got.shape == tuple(dims.substitute(d, env) for d in node.type.shape)
    return found if len(found) > 1 else found[0]


def same(function, reference, *values, named=True):
    """`function` of tensors gives what `reference` of arrays gives, with numbers and with a named first size."""
    want = reference(*values)
    for is_named in (False, True) if named else (False,):
        np.testing.assert_allclose(value(function, *values, named=is_named), want, rtol=1e-12, atol=1e-12)


# indexing --------------------------------------------------------------------------------------------

KEYS = [0, -1, slice(1, None), slice(None, None, 2), slice(None, -1), slice(None, None, -1), slice(-2, None),
        slice(3, 1), slice(4, None, -2), slice(1, 100), (slice(None), 1), (..., 0), (None, 0),
        (slice(1, 3), None, ..., slice(None, None, -2)),
        (2, 3, 1), (), ..., None, (slice(-100, 2), -2), np.int64(2)]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_getitem_is_numpys(key):
    same(lambda x: x[key], lambda x: x[key], X)


def test_named_slices_are_exact_at_all_sizes():
    for key in (slice(1, None), slice(None, None, 2), slice(-2, None), slice(None, None, -1), slice(2, 4),
                slice(3, None, -2)):
        graph = traced(lambda x, key=key: x[key], [np.zeros(3)], named=True)
        for n in range(7):
            np.testing.assert_array_equal(interpret(graph, [np.arange(n * 1.0)])[0], np.arange(n * 1.0)[key])
    text = [str(traced(lambda x, k=k: x[k], [np.zeros(3)], True).outputs[0].shape[0])
            for k in (slice(1, None), slice(None, None, 2))]
    assert text == ["max(N-1,0)", "(N+1)//2"]


def test_index_of_a_named_size_is_checked_on_entry():
    graph = infer_shapes(traced(lambda x: x[4], [X], named=True))
    assert [f"{e.left} == {e.right}" for e in graph.equations]
    assert dims.substitute(graph.equations[0].left, {"N": 5}) == dims.substitute(graph.equations[0].right, {"N": 5})
    assert dims.substitute(graph.equations[0].left, {"N": 4}) != dims.substitute(graph.equations[0].right, {"N": 4})


def test_tensor_index_gathers():
    picks = np.array([3, 0, 3])
    same(lambda x: x[[3, 0, 3]], lambda x: x[[3, 0, 3]], X)
    same(lambda x, i: x[:, i], lambda x, i: x[:, i], X, picks, named=False)
    same(lambda x, i: x[1:, i, ::-1], lambda x, i: x[1:, i, ::-1], X, picks, named=False)
    same(lambda x, i: x[i], lambda x, i: x[i], X, np.array(2), named=False)


def test_sizes_follow_shape_tensors():
    same(lambda x: arrays.reshape(x, [arrays.shape(x)[0], -1]), lambda x: x.reshape(5, 12), X)
    same(lambda x: x[:arrays.shape(x)[0] - 1], lambda x: x[:-1], X)
    same(lambda x: arrays.zeros(arrays.shape(x)), np.zeros_like, X)
    same(lambda x: arrays.reshape(x, [reduce.reduce_prod(arrays.shape(x))]), np.ravel, X)
    same(lambda x: arrays.reshape(x, arrays.stack([arrays.shape(x)[0] * 2,
                                                   arrays.size(x) // (2 * arrays.shape(x)[0])])),
         lambda x: x.reshape(10, 6), X)
    same(lambda x: arrays.shape(x), lambda x: [5, 4, 3], X)
    same(lambda x: ranges.range(arrays.shape(x)[0]), lambda x: np.arange(5), X)


# movement --------------------------------------------------------------------------------------------

MOVES = [
    (lambda x: arrays.reshape(x, [-1, 3]), lambda x: x.reshape(-1, 3)), (lambda x: arrays.transpose(x), np.transpose),
    (lambda x: arrays.transpose(x, [1, 0, 2]), lambda x: x.transpose(1, 0, 2)),
    (lambda x: arrays.expand_dims(x, -1), lambda x: x[..., None]),
    (lambda x: arrays.squeeze(arrays.expand_dims(x, 1), [1]), lambda x: x),
    (lambda x: arrays.squeeze(x[:, :1]), lambda x: x[:, 0]),
    (lambda x: arrays.concat([x, x[1:]], 0), lambda x: np.concatenate([x, x[1:]])),
    (lambda x: arrays.concat(2, [x, x]), lambda x: np.concatenate([x, x], 2)),
    (lambda x: arrays.stack([x, x + 1], axis=-1), lambda x: np.stack([x, x + 1], -1)),
    (lambda x: arrays.tile(x, [2, 1, 3]), lambda x: np.tile(x, (2, 1, 3))),
    (lambda x: arrays.unstack(x, axis=1)[2], lambda x: x[:, 2]),
    (lambda x: arrays.unstack(x, num=5)[4], lambda x: x[4]),
    (lambda x: arrays.split(x, 2, axis=1)[1], lambda x: x[:, 2:]),
    (lambda x: arrays.split(x, [1, -1], 0)[1], lambda x: x[1:]),
    (lambda x: arrays.split(1, 2, x)[0], lambda x: x[:, :2]), (lambda x: arrays.split(x, 5, 0)[3], lambda x: x[3:4]),
    (lambda x: arrays.slice(x, [1, 0, 2], [2, -1, 1]), lambda x: x[1:3, :, 2:3]),
    (lambda x: arrays.strided_slice(x, [1], [5], [2]), lambda x: x[1:5:2]),
    (lambda x: arrays.pad(x, [[1, 2], [0, 0], [0, 1]], constant_values=7.5),
     lambda x: np.pad(x, [(1, 2), (0, 0), (0, 1)], constant_values=7.5)),
    (lambda x: arrays.pad(x, [[2, 1], [3, 0], [0, 0]], "REFLECT"),
     lambda x: np.pad(x, [(2, 1), (3, 0), (0, 0)], "reflect")),
    (lambda x: arrays.pad(x, [[2, 5], [4, 0], [0, 1]], "symmetric"),
     lambda x: np.pad(x, [(2, 5), (4, 0), (0, 1)], "symmetric")),
    (lambda x: gathering.gather(x, [1, 1, 0], axis=1), lambda x: x[:, [1, 1, 0]]),
    (lambda x: arrays.reverse(x, [0, -1]), lambda x: x[::-1, :, ::-1]),
    (lambda x: gathering.embedding_lookup(x, [[0, 2]]), lambda x: x[[[0, 2]]]),
    (lambda x: arrays.broadcast_to(x[0, 0], [2, 3]), lambda x: x[:2, 0] * 0 + x[0, 0]),
]


@pytest.mark.parametrize(("function", "reference"), MOVES, ids=range(len(MOVES)))
def test_movement_is_numpys(function, reference):
    same(function, reference, X)


@pytest.mark.parametrize("function", [m[0] for m in MOVES], ids=range(len(MOVES)))
def test_movement_has_right_gradients(function):
    check_gradients(function, X, order=1)


def test_constants():
    assert_equal_values(value(lambda: arrays.constant([1, 2, 3], shape=[2, 3])),
                        np.array([[1, 2, 3], [3, 3, 3]], np.int32))
    assert_equal_values(value(lambda: arrays.constant(2.5, shape=[2])), np.array([2.5, 2.5], np.float32))
    assert_equal_values(value(lambda: arrays.eye(2, 3)), np.eye(2, 3, dtype=np.float32))
    assert_equal_values(value(lambda: arrays.eye(2, batch_shape=[2], dtype="int32")),
                        np.stack([np.eye(2, dtype=np.int32)] * 2))
    assert_equal_values(value(lambda: ranges.range(2, 11, 3)), np.arange(2, 11, 3, dtype=np.int32))
    assert_equal_values(value(lambda: ranges.range(5, 0, -2)), np.array([5, 3, 1], np.int32))
    assert_equal_values(value(lambda: ranges.range(0.0, 1.0, 0.25)), np.array([0, 0.25, 0.5, 0.75], np.float32))
    assert_equal_values(value(lambda: ranges.linspace(0.0, 1.0, 5)), np.linspace(0, 1, 5).astype(np.float32))
    assert_equal_values(value(lambda: arrays.fill([2, 2], 9)), np.full((2, 2), 9, np.int32))
    assert_equal_values(value(lambda: arrays.zeros([2], "bool")), np.zeros(2, bool))
    assert_equal_values(value(lambda: arrays.ones([])), np.float32(1))
    assert_equal_values(value(lambda: arrays.convert_to_tensor([arrays.constant(1.0), 2.0])),
                        np.array([1, 2], np.float32))


def test_one_hot():
    labels = np.array([[0, 2], [5, -1]])
    want = (labels[..., None] == np.arange(3)).astype(np.float32)
    same(lambda i: arrays.one_hot(i, 3), lambda i: want, labels)
    same(lambda i: arrays.one_hot(i, 3, axis=0), lambda i: want.transpose(2, 0, 1), labels)
    same(lambda i: arrays.one_hot(i, 3, 5, -1, dtype="int32"), lambda i: np.where(want, 5, -1), labels)


# reductions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "mean"])
@pytest.mark.parametrize("axis", [None, 0, -1, [0, 2], (1,), []])
def test_reductions_are_numpys(name, axis):
    ours, numpy = getattr(reduce, f"reduce_{name}"), getattr(np, name)
    numpy_axis = tuple(axis) if isinstance(axis, list) else axis
    same(lambda x: ours(x, axis), lambda x: numpy(x, axis=numpy_axis), X)
    same(lambda x: ours(x, reduction_indices=axis, keep_dims=True), lambda x: numpy(x, axis=numpy_axis, keepdims=True),
         X)


def test_other_reductions():
    flags = X > 0
    same(lambda b: reduce.reduce_any(b, 1), lambda b: b.any(1), flags)
    same(lambda b: reduce.reduce_all(b, 0, keepdims=True), lambda b: b.all(0, keepdims=True), flags)
    same(lambda b: reduce.count_nonzero(b, [0, 1]), lambda b: np.count_nonzero(b, (0, 1)), flags)
    same(lambda x: reduce.reduce_logsumexp(x, -1), lambda x: np.log(np.exp(x).sum(-1)), X)
    same(lambda x: reduce.argmax(x, 1), lambda x: x.argmax(1), X)
    same(lambda x: reduce.arg_min(x, dimension=2), lambda x: x.argmin(2), X)
    assert value(lambda x: reduce.argmax(x, 1, output_type=int32), X).dtype == np.int32
    assert reduce.argmax(arrays.constant([1.0])).dtype is int64
    same(lambda x: reduce.reduce_std(x, 1), lambda x: x.std(1), X)


def test_hard_values():
    inf, nan = np.inf, np.nan
    assert value(reduce.reduce_max, np.array([1, nan, 2])) != value(reduce.reduce_max, np.array([1, nan, 2]))
    assert value(reduce.reduce_max, np.zeros(0)) == -inf
    assert value(reduce.reduce_min, np.zeros(0, np.int32)) == 2**31 - 1
    assert value(reduce.reduce_sum, np.zeros(0)) == 0
    assert np.isnan(value(reduce.reduce_mean, np.zeros(0)))
    assert value(lambda x: reduce.argmax(x), np.array([1.0, nan, 3.0, nan])) == 1
    assert value(lambda x: reduce.argmax(x), np.array([1.0, 3.0, 3.0])) == 1
    assert_equal_values(value(reduce.reduce_sum, np.full(3, 200, np.uint8)), np.uint8(600 % 256))


def slope(function, *values, named=False):
    """The gradients of a function's sum by all inputs."""
    return interpret(differentiate(traced(lambda *x: gradients(function(*x), list(x)), values, named)), values)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(("x", "want"), [([0, 2, 3], [6, 0, 0]), ([0, 0, 3], [0, 0, 0]), ([2, 3, 4], [12, 8, 6]),
                                         ([1e-200, 1e-200, 1e300], [1e100, 1e100, 0]), ([5], [1]), ([], [])])
def test_gradient_of_a_product_divides_by_nothing(x, want, named):
    got, = slope(reduce.reduce_prod, np.array(x, float), named=named)
    np.testing.assert_allclose(got, want, rtol=1e-14)


@pytest.mark.parametrize("named", [False, True])
def test_second_gradient_of_a_product_at_zeros(named):
    x = np.array([0.0, 0.0, 3.0])
    got, = slope(lambda v: gradients(reduce.reduce_prod(v), v)[0][0], x, named=named)
    np.testing.assert_array_equal(got, [0, 3, 0])


def test_ties_share_the_gradient():
    np.testing.assert_array_equal(slope(reduce.reduce_max, np.array([2.0, 1.0, 2.0]))[0], [0.5, 0, 0.5])
    np.testing.assert_array_equal(slope(reduce.reduce_min, np.array([2.0, 1.0, 1.0]))[0], [0, 0.5, 0.5])
    assert np.isnan(slope(reduce.reduce_max, np.array([np.nan, 1.0]))[0]).all()


def test_gather_gradient_sums_duplicates():
    got = slope(lambda x: gathering.gather(x, [0, 0, 1]), np.array([5.0, 6.0, 7.0]))[0]
    np.testing.assert_array_equal(got, [2, 1, 0])


# products --------------------------------------------------------------------------------------------

A, B = RNG.uniform(-1, 1, (5, 2, 3)), RNG.uniform(-1, 1, (5, 3, 4))
EINSUMS = ["nij,njk->nik", "nij,njk->ik", "nij,njk", "...ij,...jk->...ik", "nij,mjk->nmik", "nab,nbc->", "nij,njk->kin",
           "nij,njk->j"]


@pytest.mark.parametrize("equation", EINSUMS)
def test_einsum_is_numpys(equation):
    same(lambda a, b: linalg.einsum(equation, a, b), lambda a, b: np.einsum(equation, a, b), A, B,
         named="m" not in equation)
    check_gradients(lambda a, b: linalg.einsum(equation, a, b), A[:2], B[:2], order=1)


def test_einsum_with_one_and_with_three_operands():
    same(lambda a: linalg.einsum("nij->jn", a), lambda a: np.einsum("nij->jn", a), A)
    same(lambda a: linalg.einsum("...i->i...", a), lambda a: np.einsum("...i->i...", a), A)
    same(lambda a, b, c: linalg.einsum("nij,njk,n->ik", a, b, c), lambda a, b, c: np.einsum("nij,njk,n->ik", a, b, c),
         A, B, A[:, 0, 0])
    same(lambda a, b: linalg.einsum("...ij,...jk->...ik", a, b), lambda a, b: a @ b, A[:1], B, named=False)


def test_products_are_numpys():
    same(lambda a, b: a @ b, np.matmul, A, B)
    same(lambda a, b: linalg.matmul(a, b, transpose_a=True, adjoint_b=True),
         lambda a, b: a.swapaxes(1, 2) @ b.swapaxes(1, 2), A, B[:, :, :2])
    same(lambda a, b: linalg.tensordot(a, b, 1), lambda a, b: np.tensordot(a, b, 1), A, B[0], named=False)
    same(lambda a, b: linalg.tensordot(a, b, [[0, 2], [0, 1]]), lambda a, b: np.tensordot(a, b, [[0, 2], [0, 1]]), A, B)
    same(lambda a, b: linalg.tensordot(a, b, 0), lambda a, b: np.tensordot(a, b, 0), A[0], B[0], named=False)
    same(lambda a, b: linalg.matvec(a, b), lambda a, b: np.einsum("nij,nj->ni", a, b), A, A[:, 0])
    same(lambda a, b: linalg.outer(a, b), np.outer, A[0, 0], B[0, 0], named=False)
    same(lambda a, b: linalg.dot(a, b), np.dot, A[0], B[0], named=False)
    same(lambda a: linalg.trace(a), lambda a: np.trace(a, axis1=1, axis2=2), A)


# bad input -------------------------------------------------------------------------------------------


def x23():
    return arrays.constant(np.zeros((2, 3), np.float32), name="x")


BAD = [  # the rows of CORRECTNESS.md, and what the message names
    (lambda: linalg.matmul(arrays.zeros([2, 3]), arrays.zeros([4, 5])), ShapeError,
     ["matmul", "f32[2,3]", "f32[4,5]", "3 != 4"]),
    (lambda: linalg.matmul(arrays.zeros([3]), arrays.zeros([3, 5])), ShapeError, ["matmul", "rank is 1"]),
    (lambda: arrays.reshape(x23(), [4, 2]), ShapeError, ["reshape", "6 elements", "x: f32[2,3]"]),
    (lambda: arrays.reshape(x23(), [4, -1]), ShapeError, ["reshape", "6 % 4"]),
    (lambda: arrays.reshape(x23(), [-1, -1]), ArgumentError, ["reshape", "two sizes are -1"]),
    (lambda: arrays.reshape(x23(), [-2, 3]), ArgumentError, ["negative"]),
    (lambda: reduce.reduce_sum(x23(), 2), ShapeError, ["reduce_sum", "axis 2 of rank 2", "x: f32[2,3]"]),
    (lambda: reduce.reduce_sum(x23(), [0, 0]), ShapeError, ["reduce_sum", "appears twice"]),
    (lambda: reduce.reduce_mean(x23(), [0, -2]), ShapeError, ["appears twice"]),
    (lambda: reduce.reduce_sum(x23(), 0, reduction_indices=1), ArgumentError, ["two names of one argument"]),
    (lambda: reduce.argmax(x23(), [0, 1]), ShapeError, ["argmax", "one axis"]),
    (lambda: arrays.concat([x23(), arrays.zeros([3, 4])], 0), ShapeError, ["concat", "[2,3]", "[3,4]"]),
    (lambda: arrays.concat([x23()], 2), ArgumentError, ["concat", "axis 2 of rank 2"]),
    (lambda: arrays.stack([x23(), arrays.zeros([2, 4])]), ShapeError, ["stack", "f32[2,3]", "f32[2,4]"]),
    (lambda: arrays.transpose(x23(), [0, 0]), ShapeError, ["transpose", "no permutation"]),
    (lambda: gathering.gather(x23(), [0, 5]), ShapeError, ["gather", "5 is not in [0, 2)"]),
    (lambda: gathering.gather(x23(), [-1]), ShapeError, ["-1 is not in [0, 2)"]),
    (lambda: gathering.gather(x23(), [0.5]), DTypeError, ["indices must be int32 or int64"]),
    (lambda: arrays.zeros([-3]), ArgumentError, ["-3"]),
    (lambda: arrays.zeros([2**40, 2**40]), ArgumentError, ["too many elements"]),
    (lambda: x23()[2], ShapeError, ["index 2 of axis 0"]),
    (lambda: x23()[0, 0, 0], ShapeError, ["too many indices"]),
    (lambda: x23()["a"], ArgumentError, ["is not"]),
    (lambda: x23()[::0], ArgumentError, ["step"]),
    (lambda: x23()[1.5], ArgumentError, ["whole number"]),
    (lambda: arrays.slice(x23(), [0, 2], [2, 2]), ShapeError, ["leaves the tensor"]),
    (lambda: arrays.split(x23(), 2, axis=1), ShapeError, ["3 elements into 2 parts"]),
    (lambda: arrays.split(x23(), [1, 1], axis=1), ShapeError, ["1 + 1 != 3"]),
    (lambda: arrays.squeeze(x23(), 0), ShapeError, ["axis 0 has 2"]),
    (lambda: arrays.tile(x23(), [2]), ShapeError, ["1 multiples for rank 2"]),
    (lambda: arrays.pad(x23(), [[0, 0], [3, 0]], "REFLECT"), ShapeError, ["REFLECT", "axis 1, which has 3"]),
    (lambda: arrays.pad(x23(), [[0, 0], [3, 0]], "EDGE"), ArgumentError, ["EDGE"]),
    (lambda: arrays.unstack(x23(), num=3), ShapeError, ["3 != 2"]),
    (lambda: arrays.constant([1, 2, 3], shape=[2]), ShapeError, ["3 elements for [2]"]),
    (lambda: arrays.reshape(x23(), x23()[0, :2]), ArgumentError, ["cannot say sizes", "float32 is no integer dtype"]),
    (lambda: arrays.expand_dims(x23(), cast(x23()[0, 0], int32)), ArgumentError, ["an axis must be known"]),
    (lambda: linalg.einsum("ii->i", arrays.zeros([2, 2])), ArgumentError, ["'i' appears twice"]),
    (lambda: linalg.einsum("ij,jk->iz", x23(), arrays.zeros([3, 2])), ArgumentError, ["'z' in the result only"]),
    (lambda: linalg.einsum("ij,jk", x23(), arrays.zeros([2, 3])), ShapeError, ["two sizes", "3 != 2"]),
    (lambda: linalg.einsum("ijk->i", x23()), ShapeError, ["rank"]),
    (lambda: linalg.einsum("ij,jk", x23()), ArgumentError, ["2 operands, 1 are given"]),
    (lambda: linalg.tensordot(x23(), x23(), 3), ShapeError, ["axes 3"]),
]


@pytest.mark.parametrize(("make", "error", "words"), BAD, ids=range(len(BAD)))
def test_bad_input_is_named(make, error, words):
    with pytest.raises(GraphcError) as caught:
        make()
    assert isinstance(caught.value, error)
    for word in words:
        assert word in str(caught.value)
    assert "in test_functions_arrays.py:" in str(caught.value)


def test_gather_out_of_range_when_it_runs():
    graph = traced(lambda x, i: gathering.gather(x, i), [X, np.array([1, 5])])
    for picks, text in (([1, 5], r"indices\[1\] = 5 is not in \[0, 5\)"), ([-1, 0], r"indices\[0\] = -1")):
        with pytest.raises(RunError, match=text):
            interpret(graph, [X, np.array(picks)])


def test_gradients_reach_through_everything():
    def net(x, w):
        h = arrays.concat([x @ w, x[:, ::-1] @ w], 1)[1:]
        return reduce.reduce_max(h, 1) * reduce.reduce_prod(arrays.tile(h, [1, 2]), 1)
    check_gradients(net, RNG.uniform(0.5, 1, (3, 2)), RNG.uniform(0.5, 1, (2, 2)), order=2, tolerance=1e-5)


assert graphc.functions.math.OPERATORS["@"] is linalg.matmul
