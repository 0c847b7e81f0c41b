"""Random graphs: compiled equals interpreted, every pass keeps values, and one and two threads give the same bits.

All values are small whole numbers, also as floats, so that every sum is exact in any order and results must be equal; but
for graphs with exp, tanh and the like, whose errors are bounded node by node (CORRECTNESS.md has the tolerances).
"""
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from graphc.ir import dims
from graphc.ir.container import detached
from graphc.ir.graph import Graph
from graphc.ir.interpreter import bind_dims, evaluate, interpret
from graphc.ir.node import input_node
from graphc.ir.op import Kind
from graphc.ir.parser import parse
from graphc.ir.printer import large_constants, print_graph
from graphc.ir.types import TensorType, as_dtype, int64, kind_of
from graphc.ops.assemble import concat_values, place
from graphc.ops.compare import cast, less, select, sign
from graphc.ops.contract import contract, matmul_to
from graphc.ops.elementwise import absolute, clip, divide, maximum, minimum, pow, relu, rsqrt, sqrt, square
from graphc.ops.gather import gather_rows, scatter_sum
from graphc.ops.index import iota
from graphc.ops.movement import broadcast_to, reshape_to, strided_slice, transpose_to
from graphc.ops.reduce import argmax, argmin, reduce_max, reduce_min, reduce_sum
from graphc.ops.transcendental import (
    asinh,
    atan,
    atan2,
    cos,
    erf,
    exp,
    expm1,
    log,
    log1p,
    sigmoid,
    sin,
    softplus,
    tanh,
)
from graphc.passes.manager import ValueCheck, Verifier, run_passes
from graphc.passes.pipeline import PIPELINE
from graphc.testing.compiled import CompiledGraph

N, M = dims.name("N"), dims.name("M")
SIZES = [{"N": 3, "M": 2}, {"N": 17, "M": 5}, {"N": 1, "M": 33}, {"N": 0, "M": 3}]
INPUTS = [(N, 4), (4,), (N, 1), (M, 4), (N, M), (4, M), (2, 3), (3, 4), (), (5,), (1, 4), (N, M, 2), (2, N, 4)]
UNARY = [relu, absolute, sign, square, lambda x: -x, lambda x: x + 1, lambda x: 2 * x - 1]
BINARY = [lambda x, y: x + y, lambda x, y: x - y, lambda x, y: x * y, maximum, minimum, lambda x, y: select(less(x, y), y, x)]
LIMIT = 6


def small(x):
    """x cut to a few whole numbers, so that nothing grows out of the range where sums are exact."""
    return clip(x, -LIMIT, LIMIT)


def broadcasts(a, b) -> bool:
    return all(x == y or x == 1 or y == 1 for x, y in zip(reversed(a.shape), reversed(b.shape), strict=False))


class Growth:
    """A graph that grows by one random node at a time."""

    UNARY, BINARY = UNARY, BINARY
    KINDS = ("unary", "binary", "binary", "reduce", "transpose", "reshape", "broadcast", "slice", "concat", "place",
             "matmul", "contract", "position", "gather", "scatter", "iota", "again")

    def __init__(self, draw, dtype):
        self.draw, self.dtype = draw, dtype
        shapes = draw(st.lists(st.sampled_from(INPUTS), min_size=2, max_size=4))
        self.inputs = [input_node(f"x{k}", TensorType(as_dtype(dtype), s)) for k, s in enumerate(shapes)]
        self.nodes = list(self.inputs)

    def pick(self, choices):
        return self.draw(st.sampled_from(list(choices)))

    def number(self, low, high):
        return self.draw(st.integers(low, high))

    def node(self, wanted=lambda n: True):
        """One of the last nodes that fit, the later the likelier; None where none does."""
        fitting = [n for n in self.nodes if wanted(n)]
        return fitting[-1 - min(self.number(0, 3), len(fitting) - 1)] if fitting else None

    def step(self):
        kind = self.pick(self.KINDS)
        x = self.node(lambda n: n.type.rank <= 3)
        made = getattr(self, kind)(x)
        if made is not None:
            assert made.dtype == as_dtype(self.dtype)
            self.nodes.append(made)

    def unary(self, x):
        return small(self.pick(self.UNARY)(x))

    def binary(self, x):
        return small(self.pick(self.BINARY)(x, self.node(lambda n: broadcasts(n, x))))

    def again(self, x):
        """What softmax and normalisations do: an element meets what its row was reduced to."""
        if x.type.rank == 0:
            return None
        axis = self.number(0, x.type.rank - 1)
        kept = tuple(1 if a == axis else d for a, d in enumerate(x.shape))
        reduced = small(self.pick([reduce_sum, reduce_max])(x, axes=(axis,)))
        return small(self.pick(self.BINARY)(x, reshape_to(reduced, shape=kept)))

    def axes(self, x):
        return tuple(a for a in range(x.type.rank) if self.draw(st.booleans()))

    def reduce(self, x):
        return small(self.pick([reduce_sum, reduce_sum, reduce_max, reduce_min])(x, axes=self.axes(x)))

    def position(self, x):
        axes = [a for a, d in enumerate(x.shape) if isinstance(d, int) and d > 0]
        if not axes:
            return None
        return small(cast(self.pick([argmax, argmin])(x, axes=(self.pick(axes),)), dtype=x.dtype))

    def transpose(self, x):
        return transpose_to(x, perm=tuple(self.draw(st.permutations(range(x.type.rank)))))

    def reshape(self, x):
        shape = list(x.shape)
        how = self.pick(["join", "one", "drop", "flat"])
        if how == "join" and len(shape) > 1:
            at = self.number(0, len(shape) - 2)
            shape[at:at + 2] = [shape[at] * shape[at + 1]]
        elif how == "one":
            shape.insert(self.number(0, len(shape)), 1)
        elif how == "drop" and 1 in shape:
            shape.remove(1)
        elif how == "flat":
            shape = [dims.product(shape)]
        return reshape_to(x, shape=tuple(shape))

    def broadcast(self, x):
        shape = [self.pick([d, N, 3]) if d == 1 else d for d in x.shape]
        return broadcast_to(x, shape=(*self.pick([(), (), (2,), (M,)]), *shape))

    def slice(self, x):
        begin, steps, sizes = [], [], []
        for d in x.shape:
            if not isinstance(d, int) or d < 2 or self.draw(st.booleans()):
                begin.append(0), steps.append(1), sizes.append(d)
                continue
            step = self.pick([1, 1, 2, -1, -2])
            first = self.number(0, d - 1)
            room = (d - 1 - first) // step if step > 0 else first // -step
            begin.append(first), steps.append(step), sizes.append(self.number(1, room + 1))
        return strided_slice(x, begin=tuple(begin), steps=tuple(steps), sizes=tuple(sizes))

    def concat(self, x):
        if x.type.rank == 0:
            return None
        axis = self.number(0, x.type.rank - 1)
        other = self.node(lambda n: n.type.rank == x.type.rank and all(
            a == axis or n.shape[a] == x.shape[a] for a in range(x.type.rank)))
        return concat_values(*self.pick([(x, other), (other, x), (x, x)]), axis=axis)

    def place(self, x):
        before = [self.number(0, 1) for _ in x.shape]
        shape = tuple(d + b + self.number(0, 2) for d, b in zip(x.shape, before, strict=True))
        return place(x, shape=shape, begin=tuple(before), steps=(1,) * x.type.rank, fill=self.pick([0, 0, 2]))

    def matmul(self, x):
        if x.type.rank != 2:
            return None
        a, b = self.draw(st.booleans()), self.draw(st.booleans())
        k = x.shape[0 if a else 1]
        other = self.node(lambda n: n.type.rank == 2 and n.shape[1 if b else 0] == k)
        return None if other is None else small(matmul_to(x, other, transpose_a=a, transpose_b=b))

    def contract(self, x):
        other = self.node(lambda n: n.type.rank <= 3 and set(n.shape) & set(x.shape))
        if other is None:
            return None
        left, right, sizes = "abc"[:x.type.rank], "", dict(zip("abc", x.shape, strict=False))
        for d, own in zip(other.shape, "def", strict=False):
            same = [c for c in left if sizes[c] == d and c not in right]
            right += self.pick(same) if same and self.draw(st.booleans()) else own
        both = set(left) & set(right)
        out = [c for c in dict.fromkeys(left + right) if c not in both or self.draw(st.booleans())]
        out = "".join(self.draw(st.permutations(out)))
        return small(contract(x, other, a_labels=left, b_labels=right, out_labels=out)) if len(out) <= 4 else None

    def gather(self, x):
        axes = [a for a, d in enumerate(x.shape) if isinstance(d, int) and d > 1]
        if not axes:
            return None
        axis = self.pick(axes)
        indices = self.index(x.shape[axis])
        return gather_rows(x, indices, axis=axis) if x.type.rank + indices.type.rank <= 4 else None

    def scatter(self, x):
        if x.type.rank == 0:
            return None
        rows = self.number(1, 4)
        return small(scatter_sum(self.index(rows, (x.shape[0],)), x, axis=0, rows=rows))

    def index(self, limit, shape=None):
        """Valid indices: some count, or values of the graph, cut to the range."""
        node = self.node(lambda n: shape is None and n.type.rank <= 2 or n.shape == shape)
        if node is None or self.draw(st.booleans()):
            shape = shape or self.pick([(), (3,), (N,), (2, M)])
            node = iota(shape=shape, axis=0, dtype=int64) if shape else self.node()
            node = node if node.dtype is int64 else reshape_to(reduce_max(node, axes=tuple(range(node.type.rank))), shape=())
        return clip(cast(node, dtype=int64), 0, limit - 1)

    def iota(self, x):
        return small(iota(shape=x.shape, axis=self.number(0, x.type.rank - 1), dtype=x.dtype)) if x.type.rank else None


class SmoothGrowth(Growth):
    """A graph of functions without jumps: no value decides which way is taken."""

    UNARY = (exp, expm1, tanh, sigmoid, erf, sin, cos, atan, asinh, softplus, relu, square, lambda x: log(square(x) + 0.5),
             lambda x: log1p(absolute(x)), lambda x: sqrt(absolute(x) + 1), lambda x: rsqrt(square(x) + 1), lambda x: 0.3 * x)
    BINARY = (*BINARY[:5], lambda x, y: divide(x, absolute(y) + 1), lambda x, y: pow(absolute(x) + 1, y),
              lambda x, y: atan2(y, absolute(x) + 0.5))
    KINDS = (*["unary"] * 8, *["binary"] * 4, "reduce", "transpose", "reshape", "broadcast", "slice", "concat", "place",
             "matmul", "contract", "iota", "again")


@st.composite
def graphs(draw):
    return grown(draw, Growth(draw, draw(st.sampled_from(
        ["float32", "float32", "float64", "int32", "float16", "bfloat16", "int8"]))))


@st.composite
def smooth_graphs(draw):
    return grown(draw, SmoothGrowth(draw, draw(st.sampled_from(["float32", "float64"]))), least=5)


def grown(draw, growth, least=2):
    with detached():
        for _ in range(draw(st.integers(least, 9))):
            growth.step()
    made = growth.nodes[len(growth.inputs):] or growth.nodes
    outputs = [made[-1], *draw(st.lists(st.sampled_from(made), max_size=2))]
    return Graph("random", tuple(growth.inputs), tuple(outputs))


def values_of(graph, sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(-3, 4, [dims.substitute(d, sizes) for d in n.shape]).astype(n.type.dtype.numpy) for n in graph.inputs]


def same(name, old, new):
    for k, (a, b) in enumerate(zip(old, new, strict=True)):
        assert a.dtype == b.dtype and np.shape(a) == np.shape(b), f"{name}: output {k}"
        assert np.array_equal(a, b, equal_nan=kind_of(a.dtype) == "f"), f"{name}: output {k}"


def check(graph):
    text = print_graph(graph)
    note(text)
    assert print_graph(parse(text, large_constants(graph))) == text
    native = None
    for sizes in SIZES:
        bound = {n for node in graph.inputs for d in node.shape for n in dims.names(d)}
        used = {n for node in graph.nodes() for d in node.shape for n in dims.names(d)}
        if used - bound:
            return  # no feed tells a size
        arrays = values_of(graph, sizes)
        want = interpret(graph, arrays)
        run_passes(graph, PIPELINE, [Verifier(), ValueCheck(arrays, 0, same)])
        native = native or CompiledGraph(graph)
        same("compiled", want, native(arrays))


COMMON = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=150, **COMMON)
@given(graphs())
def test_random_graphs(graph):
    check(graph)


@pytest.mark.slow
@settings(max_examples=500, **COMMON)
@given(graphs())
def test_many_random_graphs(graph):
    check(graph)


# functions that round ----------------------------------------------------------------------------------------------------


def bounds(graph, arrays, eps):
    """(values, bounds of their errors) of the outputs. Each node adds the error that its own arithmetic may make to what its
    inputs' errors do to it.
    """
    env = bind_dims(graph.inputs, [a.shape for a in arrays])
    value = dict(zip(graph.inputs, arrays, strict=True))
    error = {n: np.zeros(a.shape) for n, a in value.items()}
    with np.errstate(all="ignore"):
        for node in graph.nodes():
            if node.op.kind is not Kind.INPUT:
                inputs, errors = ([found[i] for i in node.inputs] for found in (value, error))
                value[node] = evaluate(node, inputs, 0, env)
                error[node] = error_of(node, inputs, errors, value[node], lambda *i, n=node: evaluate(n, i, 0, env), eps)
    return [value[o] for o in graph.outputs], [error[o] for o in graph.outputs]


def error_of(node, inputs, errors, out, function, eps):
    kind = node.op.kind
    if kind is Kind.CONTRACT:
        sizes = [np.abs(i) for i in inputs]
        terms = function(*(np.ones_like(i) for i in inputs))
        whole = function(*sizes)
        return function(*(s + e for s, e in zip(sizes, errors, strict=True))) - whole + sum_error(whole, terms, eps)
    found = np.zeros(np.shape(out))
    for k, e in enumerate(errors):
        changes = [np.abs(function(*inputs[:k], x, *inputs[k + 1:]) - out) for x in (inputs[k] + e, inputs[k] - e)]
        found += np.maximum(*changes)
    if kind is Kind.ELEMENTWISE:
        found += (node.op.rule.ulp if node.op.rule.cost >= 10 else 1) * eps * np.abs(out)
    elif node.op is reduce_sum:
        found += sum_error(function(np.abs(inputs[0])), inputs[0].size, eps)
    return np.where(np.isfinite(out), found, 0)  # infinite: the smallest of nothing


def sum_error(whole, terms, eps):
    return (4 + math.log2(max(np.max(terms, initial=1), 1))) * eps * np.abs(whole)


@settings(max_examples=100, **COMMON)
@given(smooth_graphs())
def test_random_functions(graph):
    """Compiled in float32 or float64 within the bounds around what the interpreter computes in float64."""
    note(text := print_graph(graph))
    wide, native = parse(text.replace("f32", "f64")), None
    dtype = graph.inputs[0].type.dtype.numpy
    for sizes in SIZES:
        rng = np.random.default_rng(1)
        arrays = [rng.normal(size=[dims.substitute(d, sizes) for d in n.shape]).astype(dtype) for n in graph.inputs]
        native = native or CompiledGraph(graph)
        wanted = bounds(wide, [a.astype(np.float64) for a in arrays], np.finfo(dtype).eps)
        for k, (got, want, error) in enumerate(zip(native(arrays), *wanted, strict=True)):
            assert got.dtype == dtype and got.shape == want.shape
            with np.errstate(invalid="ignore"):
                worst = np.max(np.where(got == want, 0, np.abs(got - want) - error), initial=0)
            assert worst <= np.finfo(dtype).tiny, f"output {k} is off by {worst} more than its bound"
