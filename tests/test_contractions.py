"""Products of all kinds through the compiler: sizes around the tiles' edges, dtypes, operands that are not plain matrices,
epilogues; compared with the interpreter, at one and two threads.
"""
import numpy as np
import pytest

from graphc.codegen.kernel import ContractKernel, LoopKernel
from graphc.codegen.lower import Target
from graphc.codegen.regions import lower_graph
from graphc.ir import dims
from graphc.ir.container import detached
from graphc.ir.graph import Graph
from graphc.ir.interpreter import interpret
from graphc.ir.node import as_node, input_node
from graphc.ir.types import TensorType, as_dtype
from graphc.ops.activations import gelu
from graphc.ops.compare import where
from graphc.ops.contract import contract, matmul_to
from graphc.ops.elementwise import relu, rsqrt, square
from graphc.ops.movement import broadcast_to, reshape_to, strided_slice, transpose_to
from graphc.ops.reduce import reduce_sum
from graphc.passes.manager import run_passes
from graphc.passes.pipeline import PIPELINE
from graphc.testing import assert_equal_values
from graphc.testing.compiled import CompiledGraph

RNG = np.random.default_rng(3)
N, M, K = (dims.name(n) for n in "NMK")


SIZES = [0, 1, 2, 7, 15, 16, 17, 33, 127]


def values(dtype, *shape):
    found = RNG.normal(size=shape) * 3
    return found.astype(dtype)


def graph_of(function, shapes, dtype):
    with detached():
        inputs = tuple(input_node(f"x{k}", TensorType(as_dtype(dtype), s)) for k, s in enumerate(shapes))
        return Graph("product", inputs, (function(*inputs),))


class Checked:
    """A function of tensors, compiled for symbolic shapes; calls compare it with the interpreter in float64."""

    def __init__(self, function, shapes, dtype="float32", skip=()):
        self.graph = graph_of(function, shapes, dtype)
        self.wide = graph_of(function, shapes, "float64") if dtype == "float32" else self.graph
        self.native = CompiledGraph(self.graph, skip)
        self.dtype = dtype

    def __call__(self, *shapes, terms):
        arrays = [values(self.dtype, *s) for s in shapes]
        got, = self.native(arrays)
        if self.dtype == "int32":
            assert_equal_values(got, interpret(self.graph, arrays)[0])
            return
        want, = interpret(self.wide, [a.astype(np.float64) for a in arrays])
        magnitude, = interpret(self.wide, [np.abs(a).astype(np.float64) for a in arrays])
        assert_equal_values(got, want, magnitude=2 * np.abs(magnitude) + 1e-3, terms=max(terms, 1))


def check(function, *shapes, terms, dtype="float32", skip=()):
    """The function with static shapes."""
    Checked(function, shapes, dtype, skip)(*shapes, terms=terms)


# sizes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize(("transpose_a", "transpose_b"), [(False, False), (True, False), (False, True), (True, True)])
def test_all_sizes_with_one_kernel(dtype, transpose_a, transpose_b):
    def of(m, n, k):
        return (k, m) if transpose_a else (m, k), (n, k) if transpose_b else (k, n)
    product = Checked(lambda a, b: matmul_to(a, b, transpose_a=transpose_a, transpose_b=transpose_b), of(M, N, K), dtype)
    for size in SIZES:
        for m, n, k in ((size, 17, 5), (17, size, 5), (17, 33, size), (size, size, size)):
            product(*of(m, n, k), terms=k)
    for m, n, k in ((3, 700, 16), (700, 3, 16), (5, 7, 1024), (5, 33, 2100)):
        product(*of(m, n, k), terms=k)


@pytest.mark.parametrize(("m", "n", "k"), [
    (0, 4, 5), (4, 0, 5), (4, 5, 0), (1, 1, 1), (1, 16, 4), (16, 1, 4), (2, 2, 1), (16, 16, 16), (15, 17, 33), (127, 33, 2),
    (33, 127, 127), (7, 10, 784), (4, 4, 1500), (700, 64, 3)])
def test_static_sizes(m, n, k):
    check(lambda a, b: matmul_to(a, b), (m, k), (k, n), terms=k)


@pytest.mark.parametrize(("m", "n", "k"), [(0, 4, 5), (4, 5, 0), (1, 9, 4), (9, 1, 4), (5, 5, 1), (1, 1, 7)])
def test_thin_products_as_tiles(m, n, k):
    """What thin_products would make sums of, as contractions."""
    check(lambda a, b: matmul_to(a, b), (m, k), (k, n), terms=k, skip=("thin_products",))


@pytest.mark.parametrize(("m", "n"), [(1, 33), (33, 1), (1, 128)])
@pytest.mark.parametrize(("transpose_a", "transpose_b"), [(False, False), (True, False), (False, True), (True, True)])
def test_vectors(m, n, transpose_a, transpose_b):
    """One row or column, each way in which the matrix may lie, with an epilogue, and for several vectors and matrices."""
    def function(a, b):
        return relu(matmul_to(a, b, transpose_a=transpose_a, transpose_b=transpose_b) + 1)
    a, b = (20, m) if transpose_a else (m, 20), (n, 20) if transpose_b else (20, n)
    check(function, a, b, terms=200)
    check(function, (3, *a), (3, *b), terms=200, dtype="float64")


@pytest.mark.parametrize(("transpose_b", "n", "want"), [
    (False, 10, "p0"), (True, 10, "r0"), (True, 128, "r0"), (False, 128, "tile"), (False, N, "tile"), (True, N, "r0")])
def test_a_vector_product_reads_its_matrix_in_order(transpose_b, n, want):
    """Lanes run along the axis on which the matrix lies in order, in a loop or a tile."""
    shape = (n, 784) if transpose_b else (784, n)
    graph = run_passes(graph_of(lambda a, b: matmul_to(a, b, transpose_b=transpose_b), ((1, 784), shape), "float32"), PIPELINE)
    kernel, = (c.kernel for c in lower_graph(graph, Target(64, 32, True)).steps)
    assert (kernel.vector if isinstance(kernel, LoopKernel) else "tile") == want


# batches, einsums ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b"), [((3, 4, 5), (3, 5, 6)), ((3, 4, 5), (5, 6)), ((4, 5), (3, 5, 6)),
                                      ((2, 1, 4, 5), (3, 5, 6)), ((1, 3, 4, 5), (2, 1, 5, 6)), ((0, 4, 5), (0, 5, 6)),
                                      ((2, 3, 17, 9), (2, 3, 9, 33)), ((7, 1, 5), (7, 5, 6)), ((7, 3, 5), (7, 5, 1))])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batches(a, b, dtype):
    check(lambda x, y: matmul_to(x, y), a, b, terms=a[-1], dtype=dtype)


def test_named_batch():
    product = Checked(lambda a, b: matmul_to(a, b, transpose_b=True), ((N, 2, M, 8), (N, 2, M, 8)))
    for n, m in ((1, 5), (3, 17), (0, 4), (2, 33)):
        product((n, 2, m, 8), (n, 2, m, 8), terms=8)


EINSUMS = ["ab,bc->ac", "ab,bc->ca", "abc,cd->abd", "abc,bd->acd", "abc,dca->db", "abc,dca->bd", "abc,abd->cd", "abc,bad->dc",
           "abcd,cdef->abef", "abcd,dcef->feab", "abcd,ebfd->acef", "abc,bcd->da", "abcd,bd->ac", "bacd,acbe->de", "ab,ab->ab",
           "ab,ab->", "a,b->ab", "abc,a->bc", "bmhd,bnhd->bhmn", "bhmn,bnhd->bmhd"]


@pytest.mark.parametrize("text", EINSUMS)
def test_einsum(text):
    size = dict(zip("abcdefmnh", (3, 4, 5, 17, 6, 2, 9, 10, 2), strict=True))
    (a, b), out = text.split("->")[0].split(","), text.split("->")[1]
    terms = int(np.prod([size[x] for x in set(a) - set(out)]))
    check(lambda x, y: contract(x, y, a_labels=a, b_labels=b, out_labels=out), tuple(size[x] for x in a),
          tuple(size[x] for x in b), terms=terms)


# operands -----------------------------------------------------------------------------------------------------------


OPERANDS = {
    "transposed": (lambda a, b: matmul_to(transpose_to(a, perm=(1, 0)), transpose_to(b, perm=(1, 0))), (9, 18), (19, 9)),
    "sliced rows": (lambda a, b: matmul_to(strided_slice(a, begin=(1, 2), steps=(2, 1), sizes=(4, 9)), b), (9, 12), (9, 19)),
    "sliced columns": (lambda a, b: matmul_to(a, strided_slice(b, begin=(0, 3), steps=(1, 2), sizes=(9, 19))), (5, 9), (9, 45)),
    "backwards": (lambda a, b: matmul_to(a, strided_slice(b, begin=(8, 18), steps=(-1, -1), sizes=(9, 19))), (5, 9), (9, 19)),
    "broadcast": (lambda a, b: matmul_to(broadcast_to(a, shape=(17, 9)), b), (1, 9), (9, 19)),
    "broadcast number": (lambda a, b: matmul_to(broadcast_to(as_node(2, b.dtype), shape=(17, 9)), b), (1, 9), (9, 19)),
    "number": (lambda a, b: matmul_to(a, as_node([[2]], a.dtype)), (17, 1), (1, 19)),
    "broadcast k": (lambda a, b: matmul_to(a, broadcast_to(b, shape=(9, 19))), (17, 9), (1, 19)),
    "broadcast n": (lambda a, b: matmul_to(a, broadcast_to(b, shape=(9, 19))), (17, 9), (9, 1)),
    "reshaped": (lambda a, b: matmul_to(reshape_to(a, shape=(6, 12)), b), (6, 3, 4), (12, 19)),
    "transposed, reshaped": (lambda a, b: matmul_to(reshape_to(transpose_to(a, perm=(1, 0, 2)), shape=(6, 12)), b),
                             (3, 6, 4), (12, 19)),
    "computed": (lambda a, b: matmul_to(relu(a) + 1, b * b), (6, 12), (12, 19)),
    "computed, transposed": (lambda a, b: matmul_to(transpose_to(a * 2 - a, perm=(1, 0)), b), (12, 6), (12, 19)),
    "twice the same": (lambda a, b: matmul_to(a, a, transpose_b=True) + matmul_to(b, b, transpose_b=True), (17, 5), (17, 8)),
    "chain": (lambda a, b: matmul_to(matmul_to(a, b), b, transpose_b=True), (6, 12), (12, 19)),
    "part of a product": (lambda a, b: strided_slice(matmul_to(a, b), begin=(1, 1), steps=(1, 2), sizes=(4, 9)),
                          (6, 12), (12, 19)),
    "transposed product": (lambda a, b: relu(transpose_to(matmul_to(a, b), perm=(1, 0))), (6, 12), (12, 19)),
    "reshaped product": (lambda a, b: relu(reshape_to(matmul_to(a, b), shape=(2, 3, 19))), (6, 12), (12, 19)),
    "k of two axes, not in order": (lambda a, b: contract(transpose_to(a, perm=(0, 2, 1)), b, a_labels="acb", b_labels="bcd",
                                                          out_labels="ad"), (5, 3, 4), (3, 4, 18)),
    "k of two axes, sliced": (lambda a, b: contract(strided_slice(a, begin=(0, 0, 1), steps=(1, 1, 1), sizes=(5, 3, 4)), b,
                                                    a_labels="abc", b_labels="bcd", out_labels="ad"), (5, 3, 6), (3, 4, 18)),
}


@pytest.mark.parametrize("name", OPERANDS)
def test_operands(name):
    function, a, b = OPERANDS[name]
    check(function, a, b, terms=400)


# epilogues ----------------------------------------------------------------------------------------------------------


EPILOGUES = {
    "bias": lambda p, bias, column, other: p + bias,
    "bias, relu": lambda p, bias, column, other: relu(p + bias),
    "column": lambda p, bias, column, other: p * column,
    "residual": lambda p, bias, column, other: other + p,
    "residual, transposed": lambda p, bias, column, other: p + transpose_to(transpose_to(other, perm=(1, 0)) * 1.5,
                                                                            perm=(1, 0)),
    "gelu": lambda p, bias, column, other: gelu(p + bias) + other,
    "twice": lambda p, bias, column, other: p * other + relu(p),
    "all": lambda p, bias, column, other: relu(p + bias) * 0.5 + other * column,
}


@pytest.mark.parametrize("name", EPILOGUES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_epilogues(name, dtype):
    def function(a, b, bias, column, other):
        return EPILOGUES[name](matmul_to(a, b), bias, column, other)
    run = Checked(function, ((M, 12), (12, 20), (20,), (M, 1), (M, 20)), dtype)
    for m in (1, 2, 13, 64, 0):
        run((m, 12), (12, 20), (20,), (m, 1), (m, 20), terms=200)


def test_several_results():
    """A product that is fetched itself, and what is computed from it."""
    with detached():
        a, b = (input_node(n, TensorType(as_dtype("float32"), s)) for n, s in (("a", (M, 12)), ("b", (12, 20))))
        product = matmul_to(a, b)
        graph = Graph("several", (a, b), (product, relu(product), relu(product) - product))
    native = CompiledGraph(graph)
    for m in (1, 5, 33):
        arrays = [values("float32", m, 12), values("float32", 12, 20)]
        for got, want in zip(native(arrays), interpret(graph, arrays), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)


def test_what_only_a_sum_takes_is_not_stored_beside_the_product():
    """The squares for a norm are made as the sum reads the product, which others need."""
    with detached():
        a, b = (input_node(n, TensorType(as_dtype("float32"), s)) for n, s in (("a", (M, 12)), ("b", (12, 200))))
        product = relu(matmul_to(a, b))
        graph = Graph("norm", (a, b), (product * rsqrt(reduce_sum(square(product), axes=(0, 1)) + 1),))
    first, *others = lower_graph(run_passes(graph, PIPELINE), Target(64, 32, True)).steps
    assert isinstance(first.kernel, ContractKernel) and len([b for b in first.writes if not b.per_thread]) == 1
    assert all(isinstance(s.kernel, LoopKernel) for s in others)
    native = CompiledGraph(graph)
    for m in (0, 1, 33, 200):
        arrays = [values("float32", m, 12), values("float32", 12, 200)]
        np.testing.assert_allclose(native(arrays)[0], interpret(graph, arrays)[0], rtol=1e-4, atol=1e-5)


def test_an_operand_of_one_number():
    """A broadcast number has no memory of its own; the kernel gets some for it."""
    def products(x):
        numbers = broadcast_to(as_node(0.5, x.dtype), shape=(4, 3))
        return matmul_to(x, numbers) + transpose_to(matmul_to(numbers, x, transpose_a=True, transpose_b=True), perm=(1, 0))
    graph = graph_of(products, [(N, 4)], "float32")
    native = CompiledGraph(graph)
    for size in (0, 1, 5):
        x = values("float32", size, 4)
        np.testing.assert_allclose(native([x])[0], interpret(graph, [x])[0], rtol=1e-5)


@pytest.mark.parametrize("also", [False, True])
def test_tiles_that_nobody_takes_are_not_summed(also):
    """NaN in what a mask leaves out has no influence, whether a tile is computed or not."""
    with detached():
        a, b, mask = (input_node(n, TensorType(as_dtype(d), s)) for n, d, s in
                      (("a", "float32", (M, 40)), ("b", "float32", (40, 150)), ("mask", "bool", (M, 150))))
        product = matmul_to(a, b)
        graph = Graph("masked", (a, b, mask), (where(mask, product * 2, -1), *([product] if also else [])))
    kernels = [s.kernel for s in lower_graph(run_passes(graph, PIPELINE), Target(64, 32, True)).steps]
    assert [bool(k.where) for k in kernels] == [not also]
    native = CompiledGraph(graph)
    for m in (0, 1, 5, 33, 100):
        arrays = [values("float32", m, 40), values("float32", 40, 150), RNG.random((m, 150)) < 0.5]
        arrays[2][:m // 2, 3:] = arrays[2][:, 70:] = False
        arrays[0][:m // 3] = np.nan
        for got, want in zip(native(arrays), interpret(graph, arrays), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)


ONE_KERNEL = {
    "bias, relu": (lambda x, w, b: relu(matmul_to(x, w) + b), (N, 96), (96, 64), (64,)),
    "bias, gelu, residual": (lambda x, w, b, r: gelu(matmul_to(x, w) + b) + r, (N, 96), (96, 64), (64,), (N, 64)),
    "two residuals": (lambda x, w, r, q: matmul_to(x, w) + r + q, (N, 96), (96, 64), (N, 64), (N, 64)),
    "scaled": (lambda x, w, number, row, column: matmul_to(x, w) * number * row * column, (N, 96), (96, 64), (), (N, 1), (64,)),
    "an activation's gradient behind": (lambda dy, w, h: matmul_to(dy, w, transpose_b=True) * (1 - h * h),
                                        (N, 64), (96, 64), (N, 96)),
    "an activation's gradient before": (lambda x, dy, h: matmul_to(x, dy * (1 - h * h), transpose_a=True),
                                        (N, 300), (N, 64), (N, 64)),
    "A^T B": (lambda a, b: matmul_to(a, b, transpose_a=True), (300, N), (300, 700)),
    "A B^T": (lambda a, b: matmul_to(a, b, transpose_b=True), (N, 300), (700, 300)),
    "A^T B^T": (lambda a, b: matmul_to(a, b, transpose_a=True, transpose_b=True), (300, N), (700, 300)),
    "batched A B^T": (lambda a, b: matmul_to(a, b, transpose_b=True), (4, N, 64), (4, N, 64)),
}


@pytest.mark.parametrize("name", ONE_KERNEL)
def test_a_product_and_what_surrounds_it_are_one_kernel(name):
    """Nothing is copied, transposed or computed apart."""
    function, *shapes = ONE_KERNEL[name]
    steps = lower_graph(run_passes(graph_of(function, shapes, "float32"), PIPELINE), Target(64, 32, True)).steps
    assert [type(s.kernel) for s in steps] == [ContractKernel]
