"""Gradients of every op on awkward shapes, against differences: scalars, sizes 0, 1 and odd ones, broadcasting anywhere.

Adding an op edits nothing here.
"""
import numpy as np
import pytest
from test_ops import DIFFERENTIABLE, check_slopes, graph_of, inferred, resized, types_of, with_first_size

from graphc.errors import RunError
from graphc.ir import dims
from graphc.ir.container import detached
from graphc.ir.graph import Graph
from graphc.ir.interpreter import interpret
from graphc.ir.node import input_node, make
from graphc.ir.op import Kind
from graphc.ir.types import Equations, TensorType, float64
from graphc.ops.grad import gradients
from graphc.passes.differentiate import differentiate
from graphc.testing.compiled import CompiledGraph

ELEMENTWISE = [c for c in DIFFERENTIABLE if c.values[0].kind is Kind.ELEMENTWISE]
OTHERS = [c for c in DIFFERENTIABLE if c.values[0].kind is not Kind.ELEMENTWISE]


def in_float64(sample, shapes):
    """Values of the sample in these shapes."""
    return [a.astype(np.float64) if a.dtype.kind == "f" else a for a in resized(sample, shapes, None)]


def is_checked(op, arrays, attrs):
    """Whether the op takes these inputs, has floats to differentiate, and does not refuse the values."""
    result = inferred(op, types_of(arrays), attrs)
    if not isinstance(result, TensorType) or result.dtype is not float64 or all(a.dtype.kind != "f" for a in arrays):
        return False
    try:
        interpret(graph_of(op, types_of(arrays), attrs), arrays)
    except RunError:  # an index out of range
        return False
    return True


def shapes_of(count):
    """Shapes for the inputs of an elementwise op: all alike, and each input in turn broadcast along with the others."""
    for shape in ((), (1,), (0, 3), (5,), (1, 1)):
        yield [shape] * count
    for k in range(count) if count > 1 else ():
        for own, other in (((), (2, 3)), ((1,), (5,)), ((3, 1), (1, 2)), ((2,), (3, 1)), ((1, 3), (0, 3))):
            yield [own if n == k else other for n in range(count)]


@pytest.mark.parametrize(("op", "sample"), ELEMENTWISE)
def test_elementwise(op, sample):
    count = len(sample.inputs)
    given = [in_float64(sample, shapes) for shapes in shapes_of(count)]
    checked = [arrays for arrays in given if is_checked(op, arrays, sample.attrs)]
    assert len(checked) in (0, len(given)), "an elementwise op takes all shapes that broadcast"
    for arrays in checked:
        check_slopes(op, sample, arrays, 2 if arrays[0].ndim == 0 else 1)


@pytest.mark.parametrize(("op", "sample"), [c for c in OTHERS if any(s.shape for s in c.values[1].inputs)])
def test_first_size(op, sample):
    """0, 1 and an odd number, for all inputs that begin with it or for the first one alone, as far as the op takes them."""
    for size in (0, 1, 5):
        for only_first in (False, True):
            arrays = in_float64(sample, with_first_size(sample, size, only_first))
            if sum(a.size for a in arrays) < 60 and is_checked(op, arrays, sample.attrs):
                check_slopes(op, sample, arrays, 1)


# compiled --------------------------------------------------------------------------------------------


def gradients_of(cases, shapes_for):
    """(graph of the gradients of many ops, a function of a size that gives its inputs' values, the cases of its outputs)."""
    inputs, outputs, samples, owners = [], [], [], []
    for k, (op, sample) in enumerate(cases):
        shapes = shapes_for(sample, dims.name(f"N{k}"))
        plain = in_float64(sample, shapes_for(sample, 3))
        types = [TensorType(t.dtype, s) for t, s in zip(types_of(plain), shapes, strict=True)]
        with Equations() as equations:
            result = inferred(op, types, sample.attrs)
        if result is None or equations.found or not is_checked(op, plain, sample.attrs):
            continue
        nodes = [input_node(f"x{len(inputs) + n}", t) for n, t in enumerate(types)]
        with detached():
            found = gradients(make(op, tuple(nodes), sample.attrs), [n for n in nodes if n.type.dtype is float64])
        inputs += nodes
        outputs += [g for g in found if g is not None]
        owners += [(op, sample) for g in found if g is not None]
        samples.append(sample)
    return (Graph("slopes", tuple(inputs), tuple(outputs)),
            lambda size: [a for s in samples for a in in_float64(s, shapes_for(s, size))], owners)


def alternating(even, odd):
    return lambda sample, n: [tuple(n if d == "N" else d for d in (odd if k % 2 else even)) for k in range(len(sample.inputs))]


GROUPS = {"first": (ELEMENTWISE, alternating(("N", 1), (1, 3))), "second": (ELEMENTWISE, alternating((1, 3), ("N", 1))),
          "scalars": (ELEMENTWISE, alternating((), ("N",))), "others": (OTHERS, with_first_size)}


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_compiled(group):
    """Gradients of all ops in one program for sizes 0, 1 and 5, of values that are not contiguous: the interpreter's."""
    cases, shapes_for = GROUPS[group]
    firsts = {c.values[0]: c.values for c in reversed(cases)}
    graph, values, owners = gradients_of(firsts.values(), shapes_for)
    assert len({op for op, _ in owners}) > 15
    meaning, program = differentiate(graph), CompiledGraph(graph)
    for size in (3, 1, 0, 5):
        arrays = values(size)
        strided = [np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a for a in arrays]
        for (op, sample), got, want in zip(owners, program(strided), interpret(meaning, arrays), strict=True):
            if is_checked(op, in_float64(sample, shapes_for(sample, size)), sample.attrs):  # not five rows where four have room
                assert (got.shape, got.dtype) == (want.shape, want.dtype), op.name
                np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9 * np.max(np.abs(want), initial=1), err_msg=op.name)
