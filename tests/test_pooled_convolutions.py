"""Convolutions whose kernels pool their own tiles: values, gradients, shapes that do and do not suit, one kernel for both."""
import dataclasses

import numpy as np
import pytest

import graphc as tf
from graphc import nn
from graphc.codegen.build import cpu_target, emit
from graphc.codegen.cpu.compile import llvm_text
from graphc.codegen.kernel import WindowKernel
from graphc.codegen.regions import lower_graph
from graphc.ir.container import Graph
from graphc.ir.graph import capture
from graphc.ir.interpreter import interpret
from graphc.passes.differentiate import differentiate
from graphc.passes.manager import run_passes
from graphc.passes.pipeline import pipeline
from graphc.testing.compiled import CompiledGraph

RNG = np.random.default_rng(8)


def largest(y, size, stride, padding):
    return nn.relu(nn.max_pool(y, size, stride, padding))


def mean(y, size, stride, padding):
    return nn.avg_pool(tf.tanh(y), size, stride, padding)


def both(y, size, stride, padding):
    y = tf.tanh(y)
    return nn.max_pool(y, size, stride, padding) * nn.avg_pool(y, size, stride, padding)


def built(pool, image, filter_, dtype, size, stride, padding="VALID", filter_padding="VALID", filter_stride=1, gradients=True):
    """(the graph of a pooled convolution and of its gradients, values of its inputs but the image)."""
    with Graph().as_default():
        x = tf.placeholder(dtype, [None, *image])
        w, b = tf.placeholder(dtype, filter_), tf.placeholder(dtype, filter_[-1:])
        y = pool(nn.conv2d(x, w, filter_stride, filter_padding) + b, size, stride, padding)
        found = [y, *(tf.gradients(tf.reduce_sum(tf.square(y)), [x, w, b]) if gradients else ())]
        graph = capture("pooled", found, [x, w, b])
    return graph, [RNG.normal(size=filter_).astype(dtype), RNG.normal(size=filter_[-1:]).astype(dtype)]


def check(graph, image, weights, batches):
    program = CompiledGraph(graph)
    for batch in batches:
        values = [RNG.normal(size=(batch, *image)).astype(weights[0].dtype), *weights]
        accuracy = 1e-3 if weights[0].dtype == np.float32 else 1e-9
        for got, want in zip(program(values), interpret(differentiate(graph), values), strict=True):
            np.testing.assert_allclose(got, want, rtol=accuracy, atol=accuracy * max(1, np.abs(want).max(initial=0)))


@pytest.mark.parametrize(("image", "filter_", "size", "options"), [
    ((12, 12, 1), (5, 5, 1, 10), 2, {}),
    ((12, 12, 3), (3, 3, 3, 17), 2, {"filter_padding": "SAME"}),
    ((9, 11, 3), (3, 3, 3, 5), 2, {}),                               # rows and columns that no window holds
    ((13, 7, 2), (2, 2, 2, 6), 3, {}),
    ((13, 8, 2), (2, 2, 2, 6), (2, 1), {}),
    ((9, 12, 17), (3, 3, 17, 3), 2, {"filter_stride": 2, "filter_padding": "SAME"}),
    ((4, 4, 2), (3, 3, 2, 3), 2, {}),                                # one window
], ids=str)
@pytest.mark.parametrize("pool", [largest, mean, both])
def test_pooled_convolutions(pool, image, filter_, size, options):
    """Batches of each sort, float32; the gradients go to the pooled elements."""
    graph, weights = built(pool, image, filter_, "float32", size, size, **options)
    check(graph, image, weights, (1, 0, 5, 20))


@pytest.mark.parametrize("pool", [largest, mean])
def test_doubles(pool):
    graph, weights = built(pool, (10, 10, 3), (3, 3, 3, 9), "float64", 2, 2)
    check(graph, (10, 10, 3), weights, (3, 17))


@pytest.mark.parametrize("few", [False, True])
def test_one_kernel_for_both(few):
    """What is pooled is in no buffer but each thread's own."""
    graph, _ = built(largest, (12, 12, 1), (5, 5, 1, 10), "float32", 2, 2, gradients=False)
    fused = run_passes(graph, pipeline(few))
    call, *others = [s for s in lower_graph(fused, cpu_target()).steps if isinstance(s.kernel, WindowKernel)]
    assert not others
    assert call.kernel.pool is not None
    assert [b.per_thread for b in call.writes if b.name.endswith("_kept")] == [True]
    assert sum(not b.per_thread for b in call.writes) == 1


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 2, "VALID"), (2, 2, "SAME"), (2, 1, "VALID"), (6, 6, "VALID")])
def test_windows_that_overlap_leave_the_image_or_are_large(size, stride, padding):
    graph, weights = built(largest, (9, 8, 2), (3, 3, 2, 5), "float32", size, stride, padding, filter_padding="SAME")
    check(graph, (9, 8, 2), weights, (1, 18))


def test_long_sums_are_pooled_apart():
    """Tiles that keep the sums of a part of their terms are not pooled at once."""
    graph, weights = built(largest, (6, 6, 240), (3, 3, 240, 4), "float32", 2, 2, gradients=False)
    check(graph, (6, 6, 240), weights, (2, 16))


def test_nan_is_the_largest_and_infinity_stays():
    graph, (w, b) = built(largest, (4, 4, 1), (1, 1, 1, 2), "float32", 2, 2, gradients=False)
    x = np.zeros((2, 4, 4, 1), np.float32)
    x[0, 1, 1], x[0, 2, 3], x[1, 3, 0] = np.nan, np.inf, -np.inf
    values = [x, np.abs(w), b]
    with np.errstate(invalid="ignore"):
        want, = interpret(graph, values)
    got, = CompiledGraph(graph)(values)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_what_is_pooled_may_be_fetched():
    with Graph().as_default():
        x, w = tf.placeholder("float32", [None, 6, 6, 2]), tf.placeholder("float32", [3, 3, 2, 5])
        y = tf.tanh(nn.conv2d(x, w, 1, "VALID"))
        graph = capture("pooled", [y, nn.max_pool(y, 2, 2, "VALID")], [x, w])
    check(graph, (6, 6, 2), [RNG.normal(size=(3, 3, 2, 5)).astype("float32")], (2, 19))


@pytest.mark.parametrize("field", ["full", "short", "dot"])
def test_kernels_of_other_code_have_other_symbols(field):
    """A program knows a kernel's code by its symbol."""
    graph, _ = built(largest, (12, 12, 1), (5, 5, 1, 10), "float32", 2, 2, gradients=False)
    kernel = next(s.kernel for s in lower_graph(run_passes(graph, pipeline(False)), cpu_target()).steps
                  if isinstance(s.kernel, WindowKernel))
    other = dataclasses.replace(kernel, **{field: not getattr(kernel, field)})
    assert llvm_text(emit(kernel))[0] != llvm_text(emit(other))[0]
