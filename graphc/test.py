"""To test ops and models, yours too: gradients against differences, and TensorFlow 1's helpers for unit tests."""
# ruff: noqa: PT009  (what is written with unittest is to fail as unittest does)
from __future__ import annotations

import inspect
import tempfile
import unittest
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from graphc.errors import ArgumentError, report
from graphc.functions.bodies import flatten
from graphc.functions.math import to_double
from graphc.ir.container import Graph as Container
from graphc.ir.container import get_default_graph, reset_default_graph
from graphc.ir.graph import capture
from graphc.ir.interpreter import interpret
from graphc.ir.node import Node, as_node, is_tensor, result
from graphc.ir.op import Op
from graphc.ir.types import as_dtype
from graphc.ops.elementwise import add, multiply
from graphc.ops.grad import gradients
from graphc.ops.reduce import reduce_sum
from graphc.passes.differentiate import differentiate
from graphc.placeholders import placeholder
from graphc.session import Session, get_default_session
from graphc.variable import Variable

STEP = 2e-5  # near the cube root of float64's eps, where rounding and curvature err equally little
TOLERANCE = 1e-6


# gradients against differences ---------------------------------------------------------------------------------------------


def central_differences(function: Callable[..., float], values: Sequence[np.ndarray], k: int,
                        step: float = STEP) -> np.ndarray:
    """The gradient of a number `function(*values)` by values[k], by differences of `step` in each element."""
    values = [np.array(v) for v in values]
    found = np.zeros(values[k].shape)
    for at in np.ndindex(values[k].shape):
        ends = []
        for sign in (1, -1):
            moved = [v.copy() if n == k else v for n, v in enumerate(values)]
            moved[k][at] += sign * step
            ends.append(float(function(*moved)))
        found[at] = (ends[0] - ends[1]) / (2 * step)
    return found


def check_gradients(function: Callable | Op, *values, order: int = 2, tolerance: float = TOLERANCE, step: float = STEP,
                    seed: int = 0, compiled: bool = True) -> None:
    """Raise AssertionError unless the gradients of `function` at `values` equal central differences, up to `order`.

    function   an op, or a function of a tensor for each of `values` that gives a tensor, or a nest of them.
    values     arrays; gradients are taken by those of floats, which become float64. None of them should be at a kink:
               differences mean nothing there.
    order      2: the gradients' gradients too; and so on.
    tolerance  of each element's error, relative to the largest component, or to 1 if all are smaller.
    step       of the differences.
    compiled   check what a session computes, too: the gradients after all passes. They are float64's.

    The error names the function, the input, the worst element and both values. Raises ArgumentError for values without floats,
    and for results without floats.
    """
    what = f"check_gradients: {_name(function)}"
    if not callable(function) or order < 1:
        raise report(ArgumentError, "check_gradients takes an op or a function, and an order from 1",
                     rule=f"function={function!r:.60}, order={order}")
    arrays = [np.asarray(v, np.float64) if np.asarray(v).dtype.kind == "f" else np.asarray(v) for v in values]
    if all(a.dtype.kind != "f" for a in arrays):
        raise report(ArgumentError, f"{what}: none of the values is of floats",
                     rule=f"the dtypes are {', '.join(str(a.dtype) for a in arrays) or 'none'}")
    names = _input_names(function, len(arrays))
    number = _weighted(function, seed, what)
    for level in range(1, order + 1):
        label = what if level == 1 else f"{what}: order {level}"
        _check(number, arrays, names, label, tolerance, step, compiled)
        number = _slopes_in_one(number, arrays, seed + level)


def _check(number: Callable[..., Node], arrays: list[np.ndarray], names: list[str], what: str, tolerance: float, step: float,
           compiled: bool) -> None:
    """Compare the gradients of a function of tensors that gives one number."""
    wanted = [k for k, a in enumerate(arrays) if a.dtype.kind == "f"]

    def slopes(*tensors):
        found = gradients(number(*tensors), [tensors[k] for k in wanted])
        return [as_node(np.zeros(arrays[k].shape)) if g is None else g for k, g in zip(wanted, found, strict=True)]
    forward = _traced(number, arrays)
    runs = {"": _traced(slopes, arrays)(arrays)}
    if compiled:
        runs["compiled, "] = _run(slopes, arrays)
    for place, k in enumerate(wanted):
        numeric = central_differences(lambda *v: forward(v)[0], arrays, k, step)
        scale = max(np.max(np.abs(numeric), initial=0.0), 1.0)
        for kind, found in runs.items():
            got = np.asarray(found[place])
            assert got.shape == arrays[k].shape, \
                f"{what}: {kind}the gradient by {names[k]} has shape {got.shape}, the input {arrays[k].shape}"
            error = np.abs(got - numeric)
            worst = np.where(np.isnan(error), np.inf, error)
            if np.any(worst > tolerance * scale):
                at = np.unravel_index(np.argmax(worst), worst.shape)
                raise AssertionError(
                    f"{what}: {kind}the gradient by {names[k]} is wrong at {[int(n) for n in at]}: {got[at]:.10g}, by "
                    f"differences {numeric[at]:.10g}; {np.sum(worst > tolerance * scale)} of {got.size} elements are off by "
                    f"more than {tolerance * scale:.1e}")


def _name(function) -> str:
    return getattr(function, "name", None) or getattr(function, "__name__", None) or type(function).__name__


def _input_names(function, count: int) -> list[str]:
    """What to call the inputs: input 0 (x)."""
    if isinstance(function, Op):
        found = [name.lstrip("*") for name in function.inputs]
    else:
        try:
            found = [p.name for p in inspect.signature(function).parameters.values()
                     if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        except (TypeError, ValueError):
            found = []
    return [f"input {k} ({found[k]})" if k < len(found) else f"input {k}" for k in range(count)]


def _weighted(function: Callable, seed: int, what: str) -> Callable[..., Node]:
    """One number that all results of floats enter, with random weights: so one gradient checks them all."""
    def number(*tensors):
        leaves = [y for y in flatten(function(*tensors)) if is_tensor(y)]
        found = [r for y in leaves for r in ([result(y, k) for k in range(len(y.type))] if isinstance(y.type, tuple) else [y])]
        found = [y for y in found if y.type.dtype.is_floating]
        if not found:
            raise report(ArgumentError, f"{what} gives no tensor of floats")
        return _total([to_double(_dot(y, seed + 100 * k)) for k, y in enumerate(found)])
    return number


def _slopes_in_one(number: Callable[..., Node], arrays: Sequence[np.ndarray], seed: int) -> Callable[..., Node]:
    """The gradients of `number`, all together as one number again."""
    def bent(*tensors):
        floats = [t for t, a in zip(tensors, arrays, strict=True) if a.dtype.kind == "f"]
        found = gradients(number(*tensors), floats)
        return _total([_dot(g, seed + k) for k, g in enumerate(found) if g is not None] or [as_node(0.0, as_dtype("float64"))])
    return bent


def _total(parts: Sequence[Node]) -> Node:
    total = parts[0]
    for part in parts[1:]:
        total = add(total, part)
    return total


def _dot(y: Node, seed: int) -> Node:
    """The sum of y's elements, each with a random weight near 1; without weights where only a run tells how many there are."""
    if not y.type.is_static:
        return reduce_sum(y, axes=tuple(range(y.type.rank)))
    weights = np.random.default_rng(seed).uniform(0.5, 1.5, tuple(int(d) for d in y.type.shape))
    return reduce_sum(multiply(y, as_node(weights, y.type.dtype)), axes=tuple(range(y.type.rank)))


def _traced(function: Callable[..., Node | Sequence[Node]], values: Sequence[np.ndarray]) -> Callable[[Sequence], list]:
    """What the ops' NumPy rules give for `function` of tensors, as a function of arrays like `values`."""
    with Container().as_default():
        inputs = [placeholder(as_dtype(v.dtype), list(v.shape), f"x{k}") for k, v in enumerate(values)]
        found = function(*inputs)
        graph = differentiate(capture("checked", [found] if isinstance(found, Node) else found, inputs))
    places = [int(i.name[1:]) for i in graph.inputs]
    return lambda arrays: interpret(graph, [arrays[k] for k in places])


def _run(function: Callable[..., Sequence[Node]], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What a session gives for `function` of tensors that are fed `arrays`."""
    with Container().as_default() as graph:
        inputs = [placeholder(as_dtype(a.dtype), list(a.shape)) for a in arrays]
        fetches = list(function(*inputs))
    with Session(graph=graph) as session:
        return session.run(fetches, dict(zip(inputs, arrays, strict=True)))


# TensorFlow 1's helpers ------------------------------------------------------------------------------------------------------


def compute_gradient(x, x_shape, y, y_shape, x_init_value=None, delta: float = 1e-3, init_targets=None,
                     extra_feed_dict=None):
    """(J, J by differences): the Jacobian of the tensor y by x, [elements of x, elements of y], in the default session.

    x              a tensor or a list of them: then the result is a list of pairs. x_shape fits it.
    x_init_value   where; default: random numbers in [0, 1) of x's dtype.
    init_targets   operations to run first. extra_feed_dict: what else to feed.
    """
    if init_targets is not None:
        _session().run(init_targets)
    if isinstance(x, (list, tuple)):
        starts = [None] * len(x) if x_init_value is None else x_init_value
        points = [_start(t, s, v) for t, s, v in zip(x, x_shape, starts, strict=True)]
        return [_jacobians(t, y, y_shape, delta, dict(zip(x, points, strict=True)) | (extra_feed_dict or {})) for t in x]
    return _jacobians(x, y, y_shape, delta, {x: _start(x, x_shape, x_init_value)} | (extra_feed_dict or {}))


def compute_gradient_error(x, x_shape, y, y_shape, x_init_value=None, delta: float = 1e-3, init_targets=None,
                           extra_feed_dict=None) -> float:
    """The largest difference between the two Jacobians of `compute_gradient`; NaN when one of them has a NaN."""
    found = compute_gradient(x, x_shape, y, y_shape, x_init_value, delta, init_targets, extra_feed_dict)
    pairs = found if isinstance(found, list) else [found]
    return max(float(np.max(np.abs(a - b), initial=0.0)) for a, b in pairs)


def _session() -> Session:
    session = get_default_session()
    if session is None:
        raise report(ArgumentError, "compute_gradient: there is no default session", rule="use it in `with Session():`")
    return session


def _start(x, shape, value) -> np.ndarray:
    if value is None:
        value = np.random.default_rng(0).random(tuple(shape))
    value = np.array(value, dtype=x.dtype.numpy)
    if value.shape != tuple(shape):
        raise report(ArgumentError, "compute_gradient: the value is not of the shape given", rule=f"{value.shape} != {shape}")
    return value


def _jacobians(x, y, y_shape, delta: float, feeds: dict) -> tuple[np.ndarray, np.ndarray]:
    session, size = _session(), int(np.prod(y_shape))
    start = feeds[x]
    with get_default_graph().as_default():
        seed = placeholder(y.dtype, list(y_shape))
        slope, = gradients(y, [x], grad_ys=[seed])
    shape = (start.size, size)
    theoretical, numeric = np.zeros(shape, start.dtype), np.zeros(shape, start.dtype)
    for k in range(size if slope is not None else 0):
        one = np.zeros(size, y.dtype.numpy)
        one[k] = 1
        theoretical[:, k] = np.ravel(session.run(slope, {**feeds, seed: one.reshape(y_shape)}))
    for k in range(start.size):
        ends = []
        for sign in (1, -1):
            moved = start.copy()
            moved.flat[k] += sign * delta
            ends.append(np.ravel(session.run(y, {**feeds, x: moved})))
        numeric[k] = (ends[0] - ends[1]) / (2 * delta)
    return theoretical, numeric


class TestCase(unittest.TestCase):
    """unittest's TestCase with a new default graph for each test, a session, and comparisons of arrays and tensors."""

    __test__ = False  # test runners collect the classes that are derived from it, not this one

    def __init_subclass__(cls, **more):
        super().__init_subclass__(**more)
        cls.__test__ = True

    def setUp(self) -> None:
        super().setUp()
        if self._testMethodName == "test_session":
            self.skipTest("test_session is TensorFlow 1's first name for session")
        reset_default_graph()

    @contextmanager
    def session(self, graph=None, config=None, use_gpu: bool = False, force_gpu: bool = False) -> Iterator[Session]:
        """A session as the default one, closed at the end."""
        with Session(graph=graph) as session:
            yield session

    cached_session = test_session = session

    def evaluate(self, tensors):
        """The values of tensors in a nest, in the default session or a new one."""
        session = get_default_session()
        if session is not None:
            return session.run(tensors)
        with Session() as session:
            return session.run(tensors)

    def get_temp_dir(self) -> str:
        """A folder that is gone after the test."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return folder.name

    def _array(self, value) -> np.ndarray:
        return np.asarray(self.evaluate(value) if is_tensor(value) or isinstance(value, Variable) else value)

    def assertAllEqual(self, a, b, msg: str | None = None) -> None:
        """Both have one shape and the same elements; NaN equals NaN."""
        a, b = self._array(a), self._array(b)
        self.assertEqual(a.shape, b.shape, msg)
        np.testing.assert_array_equal(a, b, err_msg=msg or "")

    def assertAllClose(self, a, b, rtol: float = 1e-6, atol: float = 1e-6, msg: str | None = None) -> None:
        """|a - b| <= atol + rtol * |b| for each element, also of nests."""
        if isinstance(a, dict) or isinstance(b, dict):
            self.assertEqual(set(a), set(b), msg)
            for key in a:
                self.assertAllClose(a[key], b[key], rtol, atol, f"{msg or ''} [{key!r}]")
        elif isinstance(a, (list, tuple)) and any(np.ndim(self._array(v)) for v in a):
            self.assertEqual(len(a), len(b), msg)
            for k, (x, y) in enumerate(zip(a, b, strict=True)):
                self.assertAllClose(x, y, rtol, atol, f"{msg or ''} [{k}]")
        else:
            a, b = self._array(a), self._array(b)
            self.assertEqual(a.shape, b.shape, msg)
            np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=msg or "")

    def assertShapeEqual(self, array, tensor, msg: str | None = None) -> None:
        """An array has the shape that a tensor states."""
        self.assertEqual(tuple(np.shape(array)), tuple(tensor.shape.as_list()), msg)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tests of the script that calls it: unittest.main."""
    unittest.main(argv=None if argv is None else list(argv))
