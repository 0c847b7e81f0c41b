"""Every op record, on its own samples: type, value, dtypes, named and zero sizes, gradients, text, errors.

Adding an op edits nothing here.
"""
import importlib
import pkgutil
import re
from functools import cache

import numpy as np
import pytest

import graphc.functions.arrays
import graphc.functions.linalg
import graphc.functions.math
import graphc.ops
from graphc.errors import GraphcError, Location, RuleError, RunError
from graphc.ir import dims
from graphc.ir.container import detached
from graphc.ir.graph import Graph, is_required
from graphc.ir.interpreter import ARITHMETIC, interpret, widened
from graphc.ir.node import RESULT, input_node, make
from graphc.ir.op import OPS, REQUIRED, Kind
from graphc.ir.parser import parse
from graphc.ir.printer import large_constants, print_graph
from graphc.ir.types import DTYPES, Equations, TensorType, as_dtype, float64, float_info, kind_of
from graphc.ir.verify import verify
from graphc.passes.manager import Skipper, run_passes
from graphc.passes.pipeline import PIPELINE
from graphc.testing import assert_equal_values, check_gradients
from graphc.testing.compiled import CompiledGraph

for module in pkgutil.iter_modules(graphc.ops.__path__):
    importlib.import_module(f"graphc.ops.{module.name}")

# Kinds that have no value of their own to test here: other tests run whole graphs of them.
OUTSIDE = {Kind.INPUT, Kind.CONSTANT, Kind.EFFECT, Kind.STRUCTURE, Kind.GRAD, Kind.CUSTOM, Kind.REGION, Kind.SEGMENT, Kind.COND,
           Kind.WHILE, Kind.SCAN}
TESTED = [op for op in OPS.values() if op.kind not in OUTSIDE]
CASES = [pytest.param(op, s, id=f"{op.name}-{k}") for op in TESTED for k, s in enumerate(op.samples)]
DIFFERENTIABLE = [p for p in CASES if callable(p.values[0].grad) and p.values[1].inputs and p.values[0].orders != 0]
ERRORS = [pytest.param(op, s, text, id=f"{op.name}-{k}") for op in TESTED for k, (s, text) in enumerate(op.errors)]
ULP = {Kind.ELEMENTWISE: 4.0, Kind.RANDOM: 8.0}
SUMS = {Kind.REDUCE, Kind.CONTRACT}


def runners(graph):
    """Functions of the values of the graph's inputs that give its outputs: the oracle, then native code, which runs at one
    and two threads and checks that they give the same bits.
    """
    native = cache(lambda: CompiledGraph(graph))  # compiled when first called
    return [lambda values: interpret(graph, values), lambda values: native()(values)]


# making graphs and values of samples -----------------------------------------------------------------


def arrays_of(sample, dtype=None, seed=0):
    """The sample's inputs; `dtype` (a name) for those that leave it open."""
    rng = np.random.default_rng(seed)
    found = []
    for spec in sample.inputs:
        if dtype is not None and spec.dtype is None and as_dtype(dtype).is_integer:
            low, high = int(np.floor(spec.low)), int(np.ceil(spec.high))
            low = max(low, 0) if as_dtype(dtype).is_unsigned else low
            low = max(low, 1) if spec.kind == "real" and spec.low > 0 else low
            found.append(rng.integers(low, max(high, low + 1), spec.shape).astype(dtype))
        elif dtype == "bool" and spec.dtype is None:
            found.append(rng.integers(0, 2, spec.shape).astype(bool))
        else:
            found.append(spec.array(rng, dtype))
    return found


def types_of(arrays):
    return [TensorType(as_dtype(a.dtype), a.shape) for a in arrays]


def graph_of(op, types, attrs):
    inputs = tuple(input_node(f"x{k}", t) for k, t in enumerate(types))
    with detached():
        node = make(op, inputs, attrs, location=Location("net.py", 7))
        return Graph("sample", inputs, results_of(node), (), tuple(n for n in (node,) if is_required(n)))


def results_of(node):
    """The tensors that an op gives."""
    if not isinstance(node.type, tuple):
        return (node,)
    return tuple(make(RESULT, (node,), {"index": k}) for k in range(len(node.type)))


def assert_fits(types, values):
    """Arrays are of their types; a dim that the op itself names is one size in all of them."""
    sizes = {}
    for type_, value in zip(types, values, strict=True):
        assert as_dtype(value.dtype) is type_.dtype
        sizes |= {str(d): n for d, n in zip(type_.shape, value.shape, strict=True) if dims.is_name(d) and str(d) not in sizes}
        assert value.shape == type_.substitute(sizes).shape


def dtypes_of(op, sample, among=DTYPES[:6]):
    """The dtypes that the type rule accepts for inputs that leave it open; None alone when there are none."""
    if all(spec.dtype is not None for spec in sample.inputs):
        return [None]
    fits = [d.name for d in among if not any(s.kind == "integer" and s.dtype is None and d.is_floating
                                             for s in sample.inputs)]
    return [name for name in fits if inferred(op, types_of(arrays_of(sample, name)), sample.attrs) is not None]


def inferred(op, types, attrs):
    """The result's type, None where the rule refuses."""
    try:
        return op.infer(*types, **op.full_attrs(attrs))
    except RuleError:
        return None


FLOATING = [c for c in CASES if any(s.dtype is None and s.kind == "real" and s.shape for s in c.values[1].inputs)
            and "float64" in dtypes_of(*c.values)]


def as_seen(op, arrays):
    """The arrays as the op's NumPy rule gets them."""
    return [widened(a) for a in arrays] if op.kind in ARITHMETIC else arrays


def by_numpy(op, arrays, attrs):
    """A list of what the op's NumPy rule gives."""
    extra = {"run": 0} if "run" in op.context else {}
    with np.errstate(all="ignore"):
        found = op.numpy(*arrays, **op.full_attrs(attrs), **extra)
    return [np.asarray(f) for f in (found if isinstance(found, tuple) else (found,))]


def check_values(op, found, arrays, attrs):
    """What a run found equals the op's NumPy rule by the tolerance of its kind; float32 against a float64 reference."""
    arrays = as_seen(op, arrays)
    wide = [a.astype(np.float64) if a.dtype == np.float32 and op.kind in SUMS | {Kind.ELEMENTWISE} else a
            for a in arrays]
    for k, got in enumerate(found):
        if got.dtype.itemsize == 2 and kind_of(got.dtype) == "f":  # arithmetic is float32's: its errors are far below 1 ulp
            want, ulp = by_numpy(op, wide, attrs)[k], 0.51
            if op.kind in SUMS:  # but where terms cancel
                error = 8 * np.finfo(np.float32).eps * np.float64(by_numpy(op, [np.abs(a) for a in wide], attrs)[k])
                info, size = float_info(got.dtype), np.abs(np.float64(want))
                ulp = ulp + error / np.ldexp(1.0, np.frexp(np.maximum(size, float(info.tiny)))[1] - 1 - info.nmant)
            assert_equal_values(got, want, ulp=ulp)
        elif op.kind in SUMS and got.dtype.kind == "f":
            magnitude = by_numpy(op, [np.abs(a) for a in wide], attrs)[k]
            assert_equal_values(got, by_numpy(op, wide, attrs)[k], magnitude=magnitude,
                                terms=max((a.size for a in arrays), default=1))
        else:
            ulp = getattr(op.rule, "ulp", ULP.get(op.kind, 0)) if got.dtype.kind == "f" else 0
            assert_equal_values(got, by_numpy(op, wide if ulp else arrays, attrs)[k], ulp=ulp)


# tests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", TESTED, ids=lambda op: op.name)
def test_record_is_complete(op):
    assert op.doc.rstrip().endswith("."), "the doc is sentences"
    assert op.samples, "an op without samples is not tested"
    assert type(op.rule).__name__.lower() == op.kind.value or op.kind is Kind.VIEW
    assert callable(op.grad) or len(op.grad.split()) > 2, "say in words why there is no gradient"
    assert set(op.nondiff) <= {i.lstrip("*") for i in op.inputs}
    for s in op.samples:
        assert op.variadic or len(s.inputs) == len(op.inputs)
        assert all(a in s.attrs for a, default in op.attrs.items() if default is REQUIRED)


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_type_and_value_in_each_dtype(op, sample):
    for dtype in dtypes_of(op, sample, DTYPES):
        arrays = arrays_of(sample, dtype)
        graph = graph_of(op, types_of(arrays), sample.attrs)
        verify(graph)
        values = [v.astype(o.type.dtype.numpy) if v.dtype == o.type.dtype.arithmetic else v
                  for v, o in zip(by_numpy(op, as_seen(op, arrays), sample.attrs), graph.outputs, strict=True)]
        assert_fits([o.type for o in graph.outputs], values)
        # A kernel takes 80 ms to compile; those of the other dtypes are compiled together, below.
        native = dtype in (None, "float32", "float64") or sample is op.samples[0] and as_dtype(dtype) in DTYPES[:6]
        for run in runners(graph)[:1 + native]:
            check_values(op, run(arrays), arrays, sample.attrs)


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_text_round_trip(op, sample):
    for dtype in dtypes_of(op, sample, DTYPES):
        graph = graph_of(op, types_of(arrays_of(sample, dtype)), sample.attrs)
        text = print_graph(graph)
        again = parse(text, large_constants(graph))
        assert print_graph(again) == text


SELDOM = [pytest.param(d.name, marks=[pytest.mark.slow] if d.name in ("int16", "uint16", "uint32") else [])
          for d in DTYPES[6:]]
FAMILIES = {"elementwise": {Kind.ELEMENTWISE}, "sums": SUMS | {Kind.SCATTER},
            "moves": {Kind.MOVE, Kind.VIEW, Kind.ASSEMBLE, Kind.GATHER, Kind.ROUTINE}}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", SELDOM)
def test_compiled_in_seldom_dtypes(dtype, family):
    """The first samples of a family's ops in one program for each dtype; floats also with hard numbers among them."""
    inputs, outputs, ops = [], [], []
    for op in TESTED:
        for s in op.samples if op.kind in FAMILIES[family] else ():
            if dtype not in dtypes_of(op, s, [as_dtype(dtype)]) or s is not op.samples[0]:
                continue
            given = arrays_of(s, dtype)
            nodes = tuple(input_node(f"x{len(inputs) + k}", t) for k, t in enumerate(types_of(given)))
            with detached():
                results = results_of(make(op, nodes, s.attrs))
            ops.append((op, given, s.attrs, slice(len(outputs), len(outputs) + len(results))))
            inputs += nodes
            outputs += results
    runs = runners(Graph("sample", tuple(inputs), tuple(outputs)))
    hard = [(op, hardened_if_taken(op, given, attrs), attrs, own) for op, given, attrs, own in ops]
    for values in (ops, hard):
        for run in runs:
            found = run([a for _, given, *_ in values for a in given])
            for op, given, attrs, own in values:
                check_values(op, found[own], given, attrs)


HARD = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1.0, 1.0, 0.5, -0.5, 2.0, 1e4, -1e4]


def hardened(op, arrays):
    """The arrays with hard numbers in the place of some floats."""
    rng = np.random.default_rng(1)
    arrays = [np.array(a) for a in arrays]
    for a in arrays:
        if kind_of(a.dtype) == "f":
            hard = HARD[:5] if op.kind in SUMS else HARD  # sums of others depend on their order where they overflow
            a[...] = np.where(rng.random(a.shape) < 0.5, rng.choice(hard, a.shape), a)
    return arrays


def hardened_if_taken(op, arrays, attrs):
    """The same, or the arrays themselves where a run with hard values is an error."""
    hard = hardened(op, arrays)
    try:
        interpret(graph_of(op, types_of(hard), attrs), hard)
    except RunError:
        return arrays
    return hard


def with_first_size(sample, size, only_first=False):
    """The sample's input shapes with `size` for the first size, wherever an input begins with it."""
    first = next((s.shape[0] for s in sample.inputs if s.shape), None)
    shapes, done = [], False
    for spec in sample.inputs:
        change = bool(spec.shape) and spec.shape[0] == first and not (only_first and done)
        shapes.append((size, *spec.shape[1:]) if change else spec.shape)
        done = done or change
    return shapes


def resized(sample, shapes, dtype):
    specs = [type(s)(shape, s.kind, s.low, s.high, s.dtype, s.distinct)
             for s, shape in zip(sample.inputs, shapes, strict=True)]
    return arrays_of(type(sample)(tuple(specs), sample.attrs), dtype)


@pytest.mark.parametrize(("op", "sample"), [c for c in CASES if any(s.shape for s in c.values[1].inputs)])
@pytest.mark.parametrize("only_first", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_named_first_size_with_two_sizes(op, sample, only_first):
    dtype = dtypes_of(op, sample)[0]
    base = types_of(arrays_of(sample, dtype))
    symbolic = [TensorType(t.dtype, s) for t, s in zip(base, with_first_size(sample, dims.name("N"), only_first),
                                                       strict=True)]
    with Equations() as equations:
        result = inferred(op, symbolic, sample.attrs)
    if result is None or equations.found:
        return  # the type rule ties this size to another one
    graph = graph_of(op, symbolic, sample.attrs)
    verify(graph)
    assert print_graph(parse(print_graph(graph))) == print_graph(graph)
    first = next(s.shape[0] for s in sample.inputs if s.shape)
    both = runners(graph)
    for size in (first, first + 2):
        arrays = resized(sample, with_first_size(sample, size, only_first), dtype)
        static = inferred(op, types_of(arrays), sample.attrs)
        if static is None:
            continue
        several = isinstance(result, tuple)
        assert [t.substitute({"N": size}) for t in (result if several else [result])] == list(static if several else [static])
        for run in both:
            found = run(arrays)
            assert_fits([o.type for o in graph_of(op, types_of(arrays), sample.attrs).outputs], found)
            check_values(op, found, arrays, sample.attrs)


@pytest.mark.parametrize(("op", "sample"), [c for c in CASES if any(s.shape for s in c.values[1].inputs)])
def test_zero_size(op, sample):
    dtype = dtypes_of(op, sample)[0]
    arrays = resized(sample, with_first_size(sample, 0), dtype)
    if inferred(op, types_of(arrays), sample.attrs) is None:
        return
    graph = graph_of(op, types_of(arrays), sample.attrs)
    try:
        interpret(graph, arrays)
    except RunError:  # an index into nothing
        for run in runners(graph):
            with pytest.raises(RunError):
                run(arrays)
        return
    for run in runners(graph):
        found = run(arrays)
        assert_fits([o.type for o in graph.outputs], found)
        check_values(op, found, arrays, sample.attrs)


@pytest.mark.parametrize(("op", "sample"), FLOATING)
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_hard_numbers_in_strided_feeds(op, sample, dtype):
    """NaN, infinities, zeros and denormal numbers in the place of some values, in arrays that are not contiguous."""
    arrays = hardened(op, arrays_of(sample, dtype))
    strided = [np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a for a in arrays]
    graph = graph_of(op, types_of(arrays), sample.attrs)
    try:
        interpret(graph, arrays)
    except RunError as e:
        with pytest.raises(RunError, match=re.escape(str(e).splitlines()[0])):
            CompiledGraph(graph)(strided)
        return
    check_values(op, CompiledGraph(graph)(strided), arrays, sample.attrs)


def bent(x):
    """Some plain computation on a tensor, exact in integers."""
    if x.dtype.is_bool:
        return ~x
    return x * 0.5 + 0.25 if x.dtype.is_floating else x + x


@pytest.mark.parametrize(("op", "sample"), [c for c in CASES if c.id.endswith("-0")])
def test_unfused_and_unoptimised_equal_fused(op, sample):
    """The op between other nodes; a kernel for each node gives the same bits, but for sums, whose order may differ."""
    dtype = next((d for d in dtypes_of(op, sample) if d in (None, "float32")), dtypes_of(op, sample)[0])
    arrays = arrays_of(sample, dtype)
    inputs = tuple(input_node(f"x{k}", t) for k, t in enumerate(types_of(arrays)))
    with detached():
        middle = make(op, tuple(bent(i) if i.dtype.is_floating else i for i in inputs), sample.attrs)
        results = results_of(middle)
        graph = Graph("sample", inputs, (*map(bent, results), *results), (), tuple(n for n in (middle,) if is_required(n)))
    fused = run_passes(graph, PIPELINE)
    plain = run_passes(graph, PIPELINE, [Skipper(("simplify", "thin_products", "fuse"))])
    bodies = [n.attrs["body"] for n in plain.nodes() if n.op.kind is Kind.SEGMENT]
    regions = [n for g in (plain, *bodies) for n in g.nodes() if n.op.kind is Kind.REGION]
    assert len(regions) > (op.kind is not Kind.HOST)
    runs = [interpret(graph, arrays), interpret(fused, arrays), interpret(plain, arrays), CompiledGraph(graph)(arrays),
            CompiledGraph(graph, ("simplify", "thin_products", "fuse"))(arrays)]
    pairs = (0, 1, op.kind is not Kind.CONTRACT), (0, 2, True), (3, 4, op.kind not in SUMS), (0, 3, False)
    for first, second, exact in pairs:
        for a, b in zip(runs[first], runs[second], strict=True):
            if exact or a.dtype.kind != "f":
                assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
            else:
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("op", "sample"), DIFFERENTIABLE)
def test_first_and_second_gradient(op, sample):
    arrays = arrays_of(sample, "float64" if "float64" in dtypes_of(op, sample) else None)
    arrays = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
    result = inferred(op, types_of(arrays), sample.attrs)
    if not isinstance(result, TensorType) or result.dtype is not float64 or not any(a.dtype.kind == "f" for a in arrays):
        return  # float32 is too coarse for differences; whole numbers have no gradient
    check_slopes(op, sample, arrays, op.orders or 2)


def check_slopes(op, sample, arrays, order):
    """Gradients by the inputs that the op differentiates by, against differences; its other floats stay as they are."""
    takes = [op.differentiable(k) or a.dtype.kind != "f" for k, a in enumerate(arrays)]

    def function(*tensors):
        moving = iter(tensors)
        return op(*(next(moving) if t else a for a, t in zip(arrays, takes, strict=True)), **sample.attrs)
    check_gradients(function, *(a for a, t in zip(arrays, takes, strict=True) if t), order=order)


@pytest.mark.parametrize(("op", "sample", "text"), ERRORS)
def test_error_says_what_is_wrong(op, sample, text):
    arrays = arrays_of(sample)
    if inferred(op, types_of(arrays), sample.attrs) is None:
        with pytest.raises(GraphcError, match=rf"(?s)^{re.escape(op.name)}: .*{re.escape(text)}"):
            graph_of(op, types_of(arrays), sample.attrs)
        return
    graph = graph_of(op, types_of(arrays), sample.attrs)
    texts = []
    for run in runners(graph):
        with pytest.raises(RunError) as caught:
            run(arrays)
        texts.append(str(caught.value))
    first, *others = texts
    assert first.startswith(f"{op.name}: ")
    assert text in first
    assert first.endswith("\n  in net.py:7"), "the user's line"
    assert others == [first]


def test_every_kind_of_op_is_reached():
    assert {op.kind for op in TESTED} == set(Kind) - OUTSIDE
