"""Convolutions and poolings: values against plain loops, gradients against differences, hard cases, bad inputs."""
import itertools
import math

import numpy as np
import pytest

import graphc as tf
from graphc import nn
from graphc.codegen.build import lower
from graphc.ir import dims
from graphc.ir.container import Graph
from graphc.ir.graph import capture
from graphc.ir.interpreter import interpret
from graphc.ir.node import INPUT, apply
from graphc.ir.types import TensorType, as_dtype
from graphc.passes.differentiate import differentiate
from graphc.passes.manager import run_passes
from graphc.passes.pipeline import PIPELINE
from graphc.testing import assert_equal_values, check_gradients
from graphc.testing.compiled import CompiledGraph

RNG = np.random.default_rng(5)


def random(*shape):
    return RNG.normal(size=shape)


# references ----------------------------------------------------------------------------------------------------------


def padded(sizes, kernel, strides, dilations, padding):
    """[(before, after)] and the number of places, by TensorFlow's rules."""
    pads, places = [], []
    for k, (size, taps, s, d) in enumerate(zip(sizes, kernel, strides, dilations, strict=True)):
        extent = (taps - 1) * d + 1
        if padding == "SAME":
            out = -(-size // s)
            total = max((out - 1) * s + extent - size, 0)
            pads.append((total // 2, total - total // 2))
        else:
            pads.append((0, 0) if padding == "VALID" else padding[k])
            out = (size + sum(pads[-1]) - extent) // s + 1
        places.append(out)
    return pads, places


def windows_of(x, kernel, strides, dilations, padding, fill=0.0):
    """x [batch, spatial..., channels] -> (place, its window [batch, taps..., channels]) for each place."""
    spatial = x.ndim - 2
    pads, places = padded(x.shape[1:-1], kernel, strides, dilations, padding)
    x = np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=fill)
    for at in itertools.product(*(range(p) for p in places)):
        index = [slice(a * s, a * s + (k - 1) * d + 1, d) for a, s, k, d in zip(at, strides, kernel, dilations, strict=True)]
        yield at, x[(slice(None), *index, slice(None))], places
    assert spatial == len(kernel)


def convolved(x, w, strides, dilations, padding, groups=1):
    """The convolution by plain loops, channels last."""
    spatial = x.ndim - 2
    _, places = padded(x.shape[1:-1], w.shape[:spatial], strides, dilations, padding)
    y = np.zeros((x.shape[0], *places, w.shape[-1]))
    inner, outer = x.shape[-1] // groups, w.shape[-1] // groups
    for at, part, _ in windows_of(x, w.shape[:spatial], strides, dilations, padding):
        for g in range(groups):
            own = part[..., g * inner:(g + 1) * inner].reshape(x.shape[0], math.prod(part.shape[1:-1]) * inner)
            filters = w[..., g * outer:(g + 1) * outer].reshape(-1, outer)
            y[(slice(None), *at, slice(g * outer, (g + 1) * outer))] = own @ filters
    return y


def evaluated(function, *arrays, dtype="float64", native=True, named=False):
    """The function's value by the interpreter, and by native code where asked; they must agree."""
    with Graph().as_default():
        inputs = []
        for k, a in enumerate(arrays):
            shape = (dims.name("N"), *a.shape[1:]) if named and k == 0 else a.shape
            type_ = TensorType(as_dtype(dtype), shape)
            inputs.append(apply(INPUT, (), {"type": type_, "role": "feed", "variable": None}, name=f"x{k}"))
        found = function(*inputs)
        graph = capture("test", [found], inputs)
    arrays = [a.astype(dtype) for a in arrays]
    want, = interpret(differentiate(graph), arrays)
    if native:
        got, = CompiledGraph(graph)(arrays)
        np.testing.assert_allclose(got, want, rtol=2e-5 if dtype == "float32" else 1e-12, atol=2e-5)
    return want


def last(format_, array):
    """An array with channels last as one in `format_`."""
    return np.moveaxis(array, -1, 1) if format_.startswith("NC") else array


# convolution ---------------------------------------------------------------------------------------------------------

CASES = [  # image, filter, strides, dilations, padding
    ((2, 5, 5, 3), (3, 3, 3, 4), (1, 1), (1, 1), "VALID"),
    ((2, 5, 5, 3), (3, 3, 3, 4), (1, 1), (1, 1), "SAME"),
    ((2, 7, 5, 2), (3, 3, 2, 3), (2, 2), (1, 1), "SAME"),
    ((2, 6, 7, 2), (2, 4, 2, 3), (2, 3), (1, 1), "SAME"),
    ((1, 9, 8, 2), (3, 2, 2, 3), (1, 1), (2, 3), "SAME"),
    ((1, 9, 9, 2), (3, 3, 2, 3), (1, 1), (2, 2), "VALID"),
    ((2, 4, 7, 2), (1, 3, 2, 3), (1, 2), (1, 1), "SAME"),
    ((2, 4, 7, 2), (4, 1, 2, 3), (1, 2), (1, 1), "VALID"),
    ((2, 5, 6, 2), (3, 3, 2, 2), (2, 1), (1, 1), ((1, 2), (0, 3))),
    ((2, 5, 6, 4), (3, 3, 2, 6), (1, 2), (1, 1), "SAME"),
    ((2, 5, 6, 4), (3, 3, 1, 4), (1, 1), (1, 1), "SAME"),
    ((3, 1, 1, 5), (1, 1, 5, 7), (1, 1), (1, 1), "VALID"),
    ((0, 5, 5, 3), (3, 3, 3, 4), (1, 1), (1, 1), "SAME"),
    ((17, 6, 6, 1), (5, 5, 1, 10), (1, 1), (1, 1), "VALID"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
def test_conv2d(case, data_format):
    image, filters, strides, dilations, padding = case
    x, w = random(*image), random(*filters)
    given = [(0, 0), *padding, (0, 0)] if not isinstance(padding, str) else padding
    if data_format == "NCHW" and not isinstance(padding, str):
        given = [(0, 0), (0, 0), *padding]

    def function(x, w):
        return nn.conv2d(x, w, strides, given, data_format=data_format, dilations=dilations)
    for dtype in ("float64", "float32"):
        got = evaluated(function, last(data_format, x), w, dtype=dtype, named=dtype == "float32")
        want = last(data_format, convolved(x, w, strides, dilations, padding, image[-1] // filters[-2]))
        assert_equal_values(got, want, magnitude=np.abs(want) + np.prod(filters[:-1]) * 9, terms=int(np.prod(filters[:-1])))


@pytest.mark.parametrize("case", [c for c in CASES if c[0][0] < 9], ids=str)
def test_gradients_of_conv2d(case):
    image, filters, strides, dilations, padding = case
    given = [(0, 0), *padding, (0, 0)] if not isinstance(padding, str) else padding

    def function(x, w):
        return nn.conv2d(x, w, strides, given, dilations=dilations)
    check_gradients(function, random(*image), random(*filters), order=2)

    def slopes(x, w):
        y = function(x, w)
        dx, dw = tf.gradients(y, [x, w], [tf.cos(y)])
        return tf.reduce_sum(dx * dx) + tf.reduce_sum(dw) + tf.reduce_sum(dx * x)
    evaluated(slopes, random(*image), random(*filters))
    if image[0]:
        for k in range(2):
            evaluated(lambda *both, k=k: tf.gradients(function(*both), both[k])[0], random(*image), random(*filters),
                      dtype="float32", named=k == 0)


@pytest.mark.parametrize(("spatial", "image", "filters"), [(1, (2, 9, 3), (3, 3, 4)), (3, (1, 4, 5, 6, 2), (2, 3, 2, 2, 3))])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_conv1d_and_3d(spatial, image, filters, padding):
    x, w = random(*image), random(*filters)
    want = convolved(x, w, (2,) * spatial, (1,) * spatial, padding)
    named = {1: lambda x, w: nn.conv1d(x, w, 2, padding), 3: lambda x, w: nn.conv3d(x, w, [1, 2, 2, 2, 1], padding)}[spatial]
    for function in (named, lambda x, w: nn.convolution(x, w, padding, 2)):
        np.testing.assert_allclose(evaluated(function, x, w), want, atol=1e-12)
    check_gradients(named, x, w, order=2)


def test_depthwise_and_separable():
    x, deep, mix = random(2, 6, 5, 3), random(3, 3, 3, 2), random(1, 1, 6, 4)
    parts = [convolved(x[..., c:c + 1], deep[:, :, c:c + 1], (2, 2), (1, 1), "SAME") for c in range(3)]
    want = np.concatenate(parts, -1)
    for function in (nn.depthwise_conv2d, nn.depthwise_conv2d_native):
        got = evaluated(lambda x, w, function=function: function(x, w, [1, 2, 2, 1], "SAME"), x, deep)
        np.testing.assert_allclose(got, want, atol=1e-12)
    got = evaluated(lambda x, d, m: nn.separable_conv2d(x, d, m, [1, 2, 2, 1], "SAME"), x, deep, mix)
    np.testing.assert_allclose(got, want @ mix[0, 0], atol=1e-12)
    check_gradients(lambda x, d, m: nn.separable_conv2d(x, d, m, [1, 2, 2, 1], "SAME"), x, deep, mix, order=2)
    one = random(3, 3, 3, 1)
    got = evaluated(lambda x, w: nn.depthwise_conv2d(x, w, [1, 1, 1, 1], "VALID", rate=[2, 2]), x, one)
    np.testing.assert_allclose(got, convolved(x, np.moveaxis(one, 2, 3), (1, 1), (2, 2), "VALID", groups=3), atol=1e-12)


@pytest.mark.parametrize("case", [c for c in CASES if c[0][-1] == c[1][-2] and c[0][0]], ids=str)
def test_transposes_are_gradients(case):
    """conv2d_transpose and conv2d_backprop_* against the definition: the transpose of a linear map."""
    image, filters, strides, dilations, padding = case
    given = [(0, 0), *padding, (0, 0)] if not isinstance(padding, str) else padding
    x, w = random(*image), random(*filters)
    y = convolved(x, w, strides, dilations, padding)
    dy = random(*y.shape)
    dx = evaluated(lambda dy, w: nn.conv2d_transpose(dy, w, image, strides, given, dilations=dilations), dy, w)
    other = evaluated(lambda dy, w: nn.conv2d_backprop_input(image, w, dy, strides, given, dilations=dilations), dy, w)
    dw = evaluated(lambda x, dy: nn.conv2d_backprop_filter(x, filters, dy, strides, given, dilations=dilations), x, dy)
    np.testing.assert_allclose(dx, other, rtol=1e-12)
    np.testing.assert_allclose(np.sum(dx * x), np.sum(dy * y), rtol=1e-10)
    np.testing.assert_allclose(np.sum(dw * w), np.sum(dy * y), rtol=1e-10)
    check_gradients(lambda dy, w: nn.conv2d_transpose(dy, w, image, strides, given, dilations=dilations), dy, w, order=2)


def test_other_transposes():
    value, w = random(2, 4, 3), random(3, 5, 3)
    wide = evaluated(lambda v, w: nn.conv1d_transpose(v, w, [2, 8, 5], 2), value, w)
    plane = evaluated(lambda v, w: nn.conv2d_transpose(v, w, [2, 8, 1, 5], [1, 2, 1, 1]), value[:, :, None], w[:, None])
    np.testing.assert_allclose(wide, plane[:, :, 0], rtol=1e-12)
    solid = evaluated(lambda v, w: nn.conv3d_transpose(v, w, [8, 1, 1], [2, 1, 1]), value[:, :, None, None], w[:, None, None])
    np.testing.assert_allclose(wide, solid[:, :, 0, 0], rtol=1e-12)
    x, filters = random(2, 6, 6, 3), random(3, 3, 3, 2)
    got = evaluated(lambda x, w: nn.atrous_conv2d(x, w, 2, "SAME"), x, filters)
    np.testing.assert_allclose(got, convolved(x, filters, (1, 1), (2, 2), "SAME"), atol=1e-12)
    back = evaluated(lambda x, w: nn.atrous_conv2d_transpose(x, w, [2, 6, 6, 3], 2, "SAME"), got, filters)
    np.testing.assert_allclose(np.sum(back * x), np.sum(got * got), rtol=1e-10)


def test_unknown_image_size():
    with Graph().as_default():
        x = tf.placeholder(tf.float32, [None, None, None, 2], name="x")
        w = random(3, 3, 2, 4).astype("float32")
        y = nn.max_pool(tf.nn.relu(nn.conv2d(x, w, [1, 2, 2, 1], "SAME")), 2, 2, "SAME")
        dx, = tf.gradients(y, x)
        with tf.Session() as session:
            for shape in ((1, 7, 5, 2), (3, 6, 8, 2)):
                value = random(*shape).astype("float32")
                got, slope = session.run([y, dx], {x: value})
                relu = np.maximum(convolved(value, w, (2, 2), (1, 1), "SAME"), 0)
                np.testing.assert_allclose(got, pooled(relu, (2, 2), (2, 2), "SAME", "MAX"), rtol=1e-4, atol=1e-4)
                assert slope.shape == shape


# pooling -------------------------------------------------------------------------------------------------------------


def pooled(x, kernel, strides, padding, kind):
    """Pooling by plain loops, channels last; NaN marks padding."""
    axes = tuple(range(1, x.ndim - 1))
    reduced = {"MAX": np.nanmax, "AVG": np.nanmean}[kind]
    found = None
    for at, part, places in windows_of(x, kernel, strides, (1,) * len(kernel), padding, np.nan):
        found = np.zeros((x.shape[0], *places, x.shape[-1])) if found is None else found
        found[(slice(None), *at)] = reduced(part, axis=axes)
    return found


POOLS = [((2, 6, 4, 3), 2, 2, "VALID"), ((2, 7, 5, 3), 2, 2, "VALID"), ((2, 7, 5, 3), 2, 2, "SAME"),
         ((2, 7, 5, 3), 3, 2, "SAME"), ((2, 7, 5, 3), 3, 2, "VALID"),
         ((2, 5, 5, 3), 3, 1, "SAME"), ((1, 6, 6, 17), (1, 3), (2, 1), "VALID"),
         ((2, 5, 4, 3), 2, 2, ((1, 0), (0, 1)))]


@pytest.mark.parametrize("case", POOLS, ids=str)
@pytest.mark.parametrize("kind", ["MAX", "AVG"])
@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
def test_pooling(case, kind, data_format):
    image, kernel, strides, padding = case
    given = padding
    if not isinstance(padding, str):
        given = [(0, 0), *padding, (0, 0)] if data_format == "NHWC" else [(0, 0), (0, 0), *padding]
    both = [np.broadcast_to(v, 2) for v in (kernel, strides)]
    x = -np.abs(random(*image)) - 1  # all negative: padding must not win

    def function(x):
        call = {"MAX": nn.max_pool, "AVG": nn.avg_pool}[kind]
        return call(x, kernel, strides, given, data_format=data_format)
    want = last(data_format, pooled(x, *both, padding, kind))
    for dtype in ("float64", "float32"):
        got = evaluated(function, last(data_format, x), dtype=dtype, named=dtype == "float32")
        np.testing.assert_allclose(got, want, rtol=1e-6)
    check_gradients(function, last(data_format, x), order=2)
    evaluated(lambda x: tf.gradients(function(x), x)[0], last(data_format, x), dtype="float32", named=True)


def test_pooling_along_one_and_three_axes():
    x, cube = random(2, 7, 3), random(1, 4, 5, 4, 2)
    for kind, line, solid in (("MAX", nn.max_pool1d, nn.max_pool3d), ("AVG", nn.avg_pool1d, nn.avg_pool3d)):
        np.testing.assert_allclose(evaluated(lambda x, f=line: f(x, 3, 2, "SAME"), x), pooled(x, (3,), (2,), "SAME", kind))
        got = evaluated(lambda x, f=solid: f(x, [1, 2, 2, 2, 1], [1, 2, 1, 2, 1], "SAME"), cube)
        np.testing.assert_allclose(got, pooled(cube, (2, 2, 2), (2, 1, 2), "SAME", kind))
        got = evaluated(lambda x, k=kind: nn.pool(x, [2, 2, 2], k, "VALID"), cube)
        np.testing.assert_allclose(got, pooled(cube, (2, 2, 2), (1, 1, 1), "VALID", kind))


def test_dilated_pooling():
    x = random(1, 7, 7, 2)
    got = evaluated(lambda x: nn.pool(x, [2, 2], "MAX", "VALID", dilation_rate=[2, 3]), x)
    want = np.max([x[:, i:i + 5, j:j + 4] for i in (0, 2) for j in (0, 3)], axis=0)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (2, 1), (3, 2)])
def test_ties_give_the_gradient_to_the_first(size, stride):
    x = np.zeros((1, 4, 4, 1))
    want = np.zeros((1, 4, 4, 1))
    for i in range(0, 5 - size, stride):
        for j in range(0, 5 - size, stride):
            want[0, i, j] += 1
    got = evaluated(lambda x: tf.gradients(nn.max_pool(x, size, stride, "VALID"), x)[0], x)
    np.testing.assert_array_equal(got, want)


def test_nan_stays_and_whole_numbers_pool():
    x = np.array([1, np.nan, 2, 3.0]).reshape(1, 4, 1)
    assert np.isnan(evaluated(lambda x: nn.max_pool1d(x, 2, 2, "VALID"), x)[0, 0, 0])
    assert evaluated(lambda x: nn.max_pool1d(x, 3, 2, "SAME"), np.array([[[1], [5], [-7], [-9]]]), dtype="int32").tolist() \
        == [[[5], [-7]]]


# layout --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [16, pytest.param(33, marks=pytest.mark.slow)])
@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_a_network_with_the_batch_innermost(batch, data_format, padding):
    """Convolutions, pooling and dense layers with their gradients, in an order of memory that is not the user's."""
    shape, arrays = last(data_format, np.zeros((batch, 9, 8, 1))).shape, [random(3, 3, 1, 5), random(5), random(2, 2, 5, 6)]
    with Graph().as_default():
        inputs = [tf.placeholder(tf.float32, s) for s in (shape, *(a.shape for a in arrays))]
        x, w, bias, v = inputs
        y = nn.bias_add(nn.conv2d(x, w, 1, padding, data_format=data_format), bias, data_format)
        y = nn.relu(nn.max_pool(y, 2, 2, padding, data_format=data_format))
        y = nn.avg_pool(tf.tanh(nn.conv2d(y, v, 2, padding, data_format=data_format)), 2, 1, "SAME", data_format=data_format)
        flat = tf.reshape(y, [batch, -1])
        loss = tf.reduce_sum(tf.square(tf.matmul(flat, flat, transpose_b=True))) / batch
        graph = capture("net", [loss, *tf.gradients(loss, inputs)], inputs)
    assert any(isinstance(n.type, TensorType) and n.type.rank > 3 and n.type.shape[-1] == batch
               for n in run_passes(graph, PIPELINE).nodes()), "nothing was turned"
    values = [a.astype("float32") for a in (random(*shape), *arrays)]
    want = interpret(differentiate(graph), values)
    for skip in ((), ("layout",)):
        for got, wanted in zip(CompiledGraph(graph, skip)(values), want, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


def test_a_product_between_convolutions_has_the_batch_innermost():
    """A filter of one tap makes a plain product, whose lanes run along the images like those of its neighbours."""
    weights = [random(3, 3, 2, 5), random(1, 1, 5, 9), random(3, 3, 9, 1)]
    with Graph().as_default():
        inputs = [tf.placeholder(tf.float32, s) for s in ([None, 7, 6, 2], *(w.shape for w in weights))]
        y, a, b, c = inputs
        y = tf.tanh(nn.conv2d(nn.relu(nn.conv2d(nn.relu(nn.conv2d(y, a, 1, "VALID")), b, 1, "SAME")), c, 1, "SAME"))
        loss = tf.reduce_sum(tf.square(y))
        graph = capture("net", [y, *tf.gradients(loss, inputs)], inputs)
    program = CompiledGraph(graph)
    for batch in (1, 17, 40):
        values = [v.astype("float32") for v in (random(batch, 7, 6, 2), *weights)]
        for got, wanted in zip(program(values), interpret(differentiate(graph), values), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_small_and_large_batches_of_one_graph():
    """A session makes one program for batches that fill vectors and one for smaller ones, each when it is first needed."""
    w, v = random(3, 3, 2, 5).astype("float32"), random(2, 3, 5, 20).astype("float32")
    graph = tf.Graph()
    with graph.as_default():
        x = tf.placeholder(tf.float32, [None, 7, 9, 2])
        y = nn.relu(nn.conv2d(nn.max_pool(nn.conv2d(x, w, 1, "SAME"), 2, 2, "VALID"), v, 1, "SAME"))
    with tf.Session(graph=graph) as session:
        call = session.make_callable(y, [x])
        for batch, programs in ((3, 1), (1, 1), (0, 1), (17, 2), (15, 2), (16, 2), (81, 2)):
            image = random(batch, 7, 9, 2).astype("float32")
            with graph.as_default():
                want, = interpret(capture("net", [y], [x]), [image])
            for found in (session.run(y, {x: image}), call(image)):
                np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)
            compiled, = session._compiled.values()
            assert len(compiled.parts) == programs


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_rows_at_the_edge_of_few_images(size, stride):
    """Lanes run along channels, rows of tiles along the image: at its edges not all terms exist, in small images nowhere."""
    x, w = random(1, size, size + 6, 4), random(5, 5, 4, 17)
    for dilation in (1, 3) if stride == 1 else (1,):
        got = evaluated(lambda x, w, d=dilation: nn.conv2d(x, w, stride, "SAME", dilations=d), x, w)
        want = convolved(x, w, (stride, stride), (dilation, dilation), "SAME")
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(40, 14, 13, 3), (2, 40, 41, 4)])
@pytest.mark.parametrize(("padding", "stride"), [("SAME", 1), ("SAME", 2), ("VALID", 1)])
def test_a_long_sum_in_chunks(shape, padding, stride):
    """The gradient by a small filter sums over all pixels of all images: tiles take turns."""
    x, w = random(*shape).astype("float32"), random(3, 3, shape[-1], 7).astype("float32")
    with Graph().as_default():
        inputs = [tf.placeholder(tf.float32, [None, *shape[1:]]), tf.placeholder(tf.float32, w.shape)]
        y = nn.conv2d(nn.relu(nn.conv2d(*inputs, stride, padding)), random(1, 1, 7, 5).astype("float32"), 1, "SAME")
        graph = capture("gradient", tf.gradients(tf.reduce_sum(tf.square(y)), inputs), inputs)
    program = CompiledGraph(graph)
    kernels = [r.call.kernel for r in lower(run_passes(graph, PIPELINE))[1].calls]
    assert any(getattr(k, "chunk", 0) for k in kernels)
    want = interpret(differentiate(graph), [x, w])
    for got, wanted in zip(program([x, w]), want, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_a_step_of_momentum_changes_variables_where_they_are():
    """Nothing is copied at the end, and the numbers of a window's elements are not kept."""
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, [32, 8, 8, 1])
        y = nn.max_pool(nn.conv2d(x, tf.Variable(random(3, 3, 1, 4).astype("float32")), 1, "VALID"), 2, 2, "VALID")
        w = tf.Variable(random(36, 3).astype("float32"))
        loss = tf.reduce_mean(tf.square(tf.matmul(tf.reshape(y, [32, 36]), w)))
        step = tf.train.MomentumOptimizer(0.1, 0.5).minimize(loss)
        _, plan = lower(run_passes(capture("step", [loss, step], [x]), PIPELINE))
    copies = [r.call for r in plan.calls if r.call.kernel.name == "copy"]
    assert len(plan.aliases) == 4 and all(set(c.reads) <= set(plan.feeds) for c in copies)
    kept = [b for r in plan.calls for b in r.call.writes if b.node is not None and b.node.type.dtype.name == "int32"]
    assert all(b.node.type.elements <= 32 * 9 * 4 for b in kept)


# bad inputs ----------------------------------------------------------------------------------------------------------

BAD = [
    (lambda x, w: nn.conv2d(x, np.zeros((3, 3, 2, 4)), 1, "SAME"),
     ["wrong number of channels", "depth of the input (3)", "input depth (2)"]),
    (lambda x, w: nn.conv2d(x, np.zeros((9, 3, 3, 4)), 1, "VALID"), ["negative output size", "5 - 9 < 0", "axis 1"]),
    (lambda x, w: nn.conv2d(x, w, 1, "VALID", dilations=4), ["negative output size", "3 with dilation 4"]),
    (lambda x, w: nn.conv2d(x, w, 1, "SOME"), ["padding 'SOME' is unknown", '"SAME", "VALID"']),
    (lambda x, w: nn.conv2d(x, w, 1, [[0, 0], [1, 1]]), ["padding [[0, 0], [1, 1]] is malformed"]),
    (lambda x, w: nn.conv2d(x, w, 1, [[1, 0], [1, 1], [0, 0], [0, 0]]), ["pads batch or channels"]),
    (lambda x, w: nn.conv2d(x, w, [2, 1, 1, 1], "SAME"), ["strides [2, 1, 1, 1] is not 1 along axis 0 (N)"]),
    (lambda x, w: nn.conv2d(x, w, 0, "SAME"), ["strides 0 is out of range"]),
    (lambda x, w: nn.conv2d(x, w, [1, 2, 3], "SAME"), ["strides has 3 entries"]),
    (lambda x, w: nn.conv2d(x, w, 1, "SAME", data_format="NWHC"), ["data_format 'NWHC' is unknown", '"NHWC" or "NCHW"']),
    (lambda x, w: nn.conv2d(x[0], w, 1, "SAME"), ["the input must have rank 4"]),
    (lambda x, w: nn.conv2d(x, w[0], 1, "SAME"), ["the filter must have rank 4"]),
    (lambda x, w: nn.conv2d(x, 1, 1, "SAME"), ["the filter must have rank 4"]),
    (lambda x, w: nn.conv2d(x, None, 1, "SAME"), ["give one of filter and filters"]),
    (lambda x, w: nn.conv2d(tf.cast(x, tf.int32), tf.cast(w, tf.int32), 1, "SAME"), ["int32 is not accepted"]),
    (lambda x, w: nn.conv2d(x, np.zeros((3, 3, 1, 4)), 1, "SAME"), ["output depth (4) is not a multiple", "groups (3)"]),
    (lambda x, w: nn.depthwise_conv2d(x, np.zeros((3, 3, 2, 4)), 1, "SAME"),
     ["depth of the input (3) is not the filter's (2)"]),
    (lambda x, w: nn.conv2d_transpose(x, w, [2, 5, 5, 3], 1), ["depth of the value (3) is not the filter's last size (4)"]),
    (lambda x, w: nn.conv2d_backprop_input([2, 9, 5, 3], w, np.zeros((2, 5, 5, 4)), 1, "SAME"),
     ["the shapes do not fit together", "gives (2, 9, 5, 4)"]),
    (lambda x, w: nn.max_pool(x, 6, 1, "VALID"), ["max_pool: negative output size"]),
    (lambda x, w: nn.max_pool(x, 2, 1, "same!"), ["max_pool: padding 'same!' is unknown"]),
    (lambda x, w: nn.avg_pool(x, [1, 2, 2, 2], 1, "SAME"), ["avg_pool: ksize [1, 2, 2, 2] is not 1 along axis 3 (C)"]),
    (lambda x, w: nn.max_pool(x, 2, 2, [[0, 0], [0, 2], [0, 0], [0, 0]]), ["padding is as large as the window"]),
    (lambda x, w: nn.pool(x, 2, "MIN", "SAME"), ["pooling_type 'MIN' is unknown"]),
]


@pytest.mark.parametrize(("call", "texts"), BAD, ids=lambda v: v[0][:30] if isinstance(v, list) else "")
def test_bad_inputs(call, texts):
    with Graph().as_default():
        x, w = tf.placeholder(tf.float32, [2, 5, 5, 3], name="x"), tf.placeholder(tf.float32, [3, 3, 3, 4], name="w")
        with pytest.raises((ValueError, TypeError)) as caught:
            call(x, w)
    assert all(text in str(caught.value) for text in texts), str(caught.value)
    assert "test_convolution.py" in str(caught.value)
