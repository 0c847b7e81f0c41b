"""Routines: several results, thread-private memory, failures, what is no routine, and what a dump shows."""
import numpy as np
import pytest

from graphc.codegen.build import lower
from graphc.codegen.kernel import RoutineKernel
from graphc.codegen.kernel_text import kernel_text
from graphc.codegen.routines import body_of
from graphc.errors import CompileError, RunError
from graphc.ir.container import detached
from graphc.ir.graph import Graph
from graphc.ir.node import RESULT, input_node, make
from graphc.ir.op import OPS, Items
from graphc.ir.types import TensorType, float32, int64
from graphc.ops.routine import fail, routine, wide
from graphc.ops.samples import real
from graphc.passes.manager import run_passes
from graphc.passes.pipeline import PIPELINE
from graphc.testing.compiled import CompiledGraph


def spread_row(x, y0, y1, seen, n):
    """The mean of a row, and how many elements lie above it."""
    total = wide(x, 0)
    for k in range(n):
        seen[k] = x[k]
        total = total + x[k]
    y0[0] = total / n
    y1[0] = 0
    for k in range(n):
        if seen[k] > y0[0]:
            y1[0] = y1[0] + 1
        if x[k] > 100:
            fail(0, k, x[k])


@pytest.fixture
def spread():
    """An op with two results, scratch memory and a check."""
    def infer(x):
        return TensorType(x.dtype, x.shape[:1]), TensorType(int64, x.shape[:1])

    def items(types, results, attrs):
        rows, n = types[0].shape
        return Items((rows,), {"x": (n,), "y0": (1,), "y1": (1,)}, {"n": n}, {"seen": (types[0].dtype.short, n)},
                     (("x", "too large", None),))
    op = routine("spread", "x", doc="Mean and count above it.", row=spread_row, items=items, infer=infer,
                 numpy=lambda x: (x.mean(1), (x > x.mean(1, keepdims=True)).sum(1)), grad="it is made for a test",
                 samples=[real(3, 4)])
    yield op
    del OPS["spread"]


def graph_with(op, shape=("N", 5)):
    from graphc.ir.types import as_shape
    x = input_node("x", TensorType(float32, as_shape(shape)))
    with detached():
        both = make(op, (x,))
        parts = [make(RESULT, (both,), {"index": k}) for k in (0, 1)]
        return Graph("f", (x,), (parts[0] * 2, parts[1]))


def test_several_results_and_scratch_at_any_number_of_threads(spread):
    compiled = CompiledGraph(graph_with(spread))
    for rows in (0, 1, 7, 100):
        x = np.random.default_rng(rows).uniform(-1, 1, (rows, 5)).astype(np.float32)
        mean, count = compiled([x], counts=(1, 2, 5))
        np.testing.assert_allclose(mean, 2 * x.mean(1), rtol=1e-5, atol=1e-6)
        assert count.tolist() == (x > x.mean(1, keepdims=True)).sum(1).tolist()


def test_a_failure_names_the_element_of_the_whole_input(spread):
    x = np.zeros((4, 5), np.float32)
    x[2, 3] = 101
    with pytest.raises(RunError, match=r"spread: too large: x\[2, 3\] = 101.0"):
        CompiledGraph(graph_with(spread))([x])


def test_a_number_as_operand_is_put_into_memory():
    with detached():
        from graphc.ir.node import as_node
        graph = Graph("f", (), (OPS["cumsum"](as_node(np.array([3.0], np.float32)), axis=0),))
    assert CompiledGraph(graph)([])[0].tolist() == [3]


def test_the_dump_shows_the_statements(spread):
    _, plan = lower(run_passes(graph_with(spread), PIPELINE))
    kernel, = (r.call.kernel for r in plan.records if isinstance(r.call.kernel, RoutineKernel))
    text = kernel_text(kernel)
    assert "for p0<n1:" in text or "for p0<n0:" in text
    assert "seen: f32 at" in text
    assert "for each thread" in text
    assert "        total = total + x[k]" in text


def returns(x, y):
    return x[0] + y[0]


def clashes(x, a0):
    a0[0] = x[0]


def empty(x, y):
    """Says much, does nothing."""


@pytest.mark.parametrize(("function", "words"), [(returns, "does not return"), (clashes, "the kernel's own names a0"),
                                                 (empty, "it has statements"), (lambda x, y: x, "as `def row"),
                                                 (eval("lambda x: x"), "is not to be found")])
def test_what_is_no_routine_is_refused(function, words):
    with pytest.raises(CompileError, match=words):
        body_of(function)
