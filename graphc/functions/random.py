"""Public random functions.

The numbers are a pure function of the graph's seed, the op's seed, the run number and the element
(`graphc.ops.random`).
The seeds follow TensorFlow 1:

    set_random_seed   seed=        the numbers
    not called        None         differ from process to process: the graph draws a seed from the system, once
    called            None         the same in each process, as long as the graph is built in the same order
    not called        given        the same in each process
    called            given        the same in each process, whatever else the graph holds

Each run of a session counts on, so it gives other numbers than the run before.
"""
from __future__ import annotations

import os

from graphc.errors import ArgumentError, DTypeError, ShapeError, report
from graphc.functions.custom import custom_gradient
from graphc.functions.sizes import as_sizes, full_shape
from graphc.ir import dims
from graphc.ir.container import Graph, get_default_graph
from graphc.ir.node import Node, as_node, is_tensor
from graphc.ir.op import Drawn
from graphc.ir.types import as_dtype, as_shape, float32, float64, int64
from graphc.ops import compare, composite, elementwise, random, random_routine
from graphc.ops.gather import gather_rows
from graphc.ops.incomplete import gamma_slope
from graphc.ops.index import iota
from graphc.ops.movement import broadcast_to, reshape_to
from graphc.ops.order import order_of
from graphc.ops.reduce import argmax
from graphc.ops.transcendental import log

DEFAULT_SEED = 87654321  # TensorFlow's, for a graph without a seed in which an op has one


def set_random_seed(seed: int | None) -> None:
    """Set the seed of the default graph, for the ops made from now on; None forgets it."""
    get_default_graph().seed = None if seed is None else int(seed)


def get_seed(op_seed: int | None) -> tuple[int, int]:
    """(graph seed, op seed) for an op made now, 32 bits each."""
    graph = get_default_graph()
    number = len(graph.nodes) if op_seed is None else int(op_seed)
    return graph_seed(graph) if graph.seed is not None or op_seed is None else _word(DEFAULT_SEED), _word(number)


def graph_seed(graph: Graph) -> int:
    """The seed of what has none of its own, 32 bits: the graph's, or one drawn from the system."""
    return Drawn(_word(_entropy(graph))) if graph.seed is None else _word(graph.seed)


def _entropy(graph: Graph) -> int:
    """A seed from the system, the same for all ops of a graph."""
    return graph.scope_state.setdefault("random_entropy", int.from_bytes(os.urandom(4), "little"))


def _word(seed: int) -> int:
    """A seed of any size and sign as 32 bits."""
    return (seed ^ seed >> 32) & 0xFFFFFFFF


def _common(shape, dtype, seed, what: str) -> dict:
    graph_seed, op_seed = get_seed(seed)
    return {"shape": full_shape(shape, what), "dtype": as_dtype(dtype), "seed": graph_seed, "op_seed": op_seed}


def random_uniform(shape, minval=0, maxval=None, dtype=float32, seed=None, name=None) -> Node:
    """Uniform numbers in [minval, maxval): floats (default [0, 1)), or int32 and int64, for which maxval must be given.

    Bounds of floats may be tensors that broadcast to the shape; bounds of integers are numbers.
    """
    dtype = as_dtype(dtype)
    if dtype.is_integer:
        if maxval is None or is_tensor(minval) or is_tensor(maxval):
            raise report(ArgumentError, "random_uniform: integers need minval and maxval as numbers")
        return random.random_integers(**_common(shape, dtype, seed, "random_uniform"), low=int(minval),
                                      high=int(maxval), name=name)
    _floats_only("random_uniform", dtype)
    high = 1 if maxval is None else maxval
    unit = random.random_uniform_01(**_common(shape, dtype, seed, "random_uniform"),
                                    name=name if _is(minval, 0) and _is(high, 1) else None)
    if _is(minval, 0) and _is(high, 1):
        return unit
    span = high - minval if is_tensor(high) or is_tensor(minval) else float(high) - float(minval)
    return _shifted(unit, span, minval, name)


def random_normal(shape, mean=0.0, stddev=1.0, dtype=float32, seed=None, name=None) -> Node:
    """Numbers of the normal distribution. mean and stddev are numbers or tensors that broadcast to the shape."""
    _floats_only("random_normal", as_dtype(dtype))
    return _shifted(random.random_normal_01(**_common(shape, dtype, seed, "random_normal")), stddev, mean, name)


def truncated_normal(shape, mean=0.0, stddev=1.0, dtype=float32, seed=None, name=None) -> Node:
    """Numbers of the normal distribution within two standard deviations of the mean: others are never drawn."""
    _floats_only("truncated_normal", as_dtype(dtype))
    unit = random.random_truncated_normal_01(**_common(shape, dtype, seed, "truncated_normal"))
    return _shifted(unit, stddev, mean, name)


def _floats_only(what: str, dtype) -> None:
    if not dtype.is_floating:
        raise report(DTypeError, f"{what}: {dtype.name} is not accepted", rule="the dtype is float32 or float64")


def _is(value, number) -> bool:
    return not is_tensor(value) and isinstance(value, int | float) and value == number


def _shifted(unit: Node, scale, offset, name) -> Node:

    last = name if _is(offset, 0) else None
    scaled = unit if _is(scale, 1) else elementwise.multiply(unit, as_node(scale, unit.dtype), name=last)
    return scaled if _is(offset, 0) else elementwise.add(scaled, as_node(offset, unit.dtype), name=name)


def random_gamma(shape, alpha, beta=None, dtype=float32, seed=None, name=None) -> Node:
    """Numbers of the gamma distribution: `shape` of them for each alpha, so of the shape `shape` + alpha's.

    beta (default 1) is the inverse scale, which broadcasts with alpha. Gradients flow to both, to alpha implicitly: a number
    keeps its place in the distribution while that changes (`gamma_slope`). alpha <= 0 is a RunError.
    """
    dtype = as_dtype(dtype)
    _floats_only("random_gamma", dtype)
    alpha = as_node(alpha, dtype)
    if beta is not None:
        beta = as_node(beta, dtype)
        alpha = elementwise.add(alpha, composite.zeros_like(beta))
    drawn = _gamma(_repeated(shape, alpha, "random_gamma"), seed)
    return elementwise.identity(drawn, name=name) if beta is None else elementwise.divide(drawn, beta, name=name)


def _gamma(alpha: Node, seed) -> Node:
    @custom_gradient
    def drawn(alpha):
        y = random_routine.gamma_draws(alpha, *_draws(alpha, seed, "random_gamma"))
        return y, lambda dy: dy * compare.where(y > 0, gamma_slope(alpha, y), 0)
    return drawn(alpha)


def _draws(parameters: Node, seed, what: str) -> tuple[Node, Node]:
    """The numbers of the elements, and a seed for this run."""
    shape = tuple(parameters.type.shape)
    number = reshape_to(iota(shape=(dims.product(shape),), axis=0, dtype=int64), shape=shape)
    return number, random.random_integers(**_common((2,), int64, seed, what), low=0, high=2**32)


def random_poisson(lam, shape, dtype=float32, seed=None, name=None) -> Node:
    """Numbers of the Poisson distribution: `shape` of them for each mean, so of the shape `shape` + lam's.

    dtype: a float or integer dtype. No gradient flows to lam. A negative mean is a RunError.
    """
    dtype = as_dtype(dtype)
    lam = as_node(lam, None if is_tensor(lam) else float32)
    mean = _repeated(shape, lam, "random_poisson")
    drawn = random_routine.poisson_draws(mean, *_draws(mean, seed, "random_poisson"), name=name if lam.dtype == dtype else None)
    return drawn if lam.dtype == dtype else compare.cast(drawn, dtype=dtype, name=name)


def _repeated(shape, parameters: Node, what: str) -> Node:
    return broadcast_to(parameters, shape=(*full_shape(shape, what), *parameters.type.shape))


def random_shuffle(value, seed=None, name=None) -> Node:
    """The rows of `value` in random order: that of random keys."""
    value = as_node(value)
    if not value.type.rank:
        raise report(ShapeError, "random_shuffle: a scalar has no rows", [("value", value.describe())])
    keys = random.random_uniform_01(**_common(value.type.shape[:1], float64, seed, "random_shuffle"))
    return gather_rows(value, order_of(keys, axis=0), axis=0, name=name)


def random_crop(value, size, seed=None, name=None) -> Node:
    """A part of `size` of the tensor, at a random place. -1 stands for the whole axis. Raises ShapeError where it is larger."""
    value = as_node(value)
    sizes = [whole if part == -1 else part for part, whole in zip(as_sizes(size, "random_crop"), value.type.shape,
                                                                strict=True)]
    for axis, (part, whole) in enumerate(zip(sizes, value.type.shape, strict=True)):
        if part == whole:
            continue
        if not isinstance(part, int) or not isinstance(whole, int) or part > whole:
            raise report(ShapeError, "random_crop: the part must be smaller than the tensor, by numbers",
                         [("value", value.describe())], f"{part} of {whole} along axis {axis}")
        own = None if seed is None else seed + axis
        start = random_uniform((), 0, whole - part + 1, dtype=int64, seed=own)
        value = gather_rows(value, start + iota(shape=(part,), axis=0, dtype=int64), axis=axis)
    return elementwise.identity(value, name=name)


def multinomial(logits, num_samples, seed=None, name=None, output_dtype=None) -> Node:
    """Class numbers [N, num_samples], int64 unless `output_dtype` says otherwise, for each row of logits [N, classes].

    A class is drawn with the probability softmax(logits): the one whose logit plus a random number of Gumbel's distribution
    is largest (E. Gumbel, 1954). Those numbers are drawn inside the search and never stored.
    """
    logits = as_node(logits)
    composite.require_floats("multinomial", logits=logits)
    if logits.type.rank != 2:
        raise report(ShapeError, "multinomial: logits have two axes", [("logits", logits.describe())])
    (rows, classes), count = logits.type.shape, full_shape((num_samples,), "multinomial")[0]
    unit = random.random_uniform_01(**_common((rows, count, classes), float64, seed, "multinomial"))
    gumbel = elementwise.negative(log(elementwise.negative(log(unit))))
    keys = compare.cast(reshape_to(logits, shape=(rows, 1, classes)), dtype=float64) + gumbel
    found = argmax(keys, axes=(2,), name=name if output_dtype is None else None)
    return found if output_dtype is None else compare.cast(found, dtype=as_dtype(output_dtype), name=name)


categorical = multinomial


# dropout --------------------------------------------------------------------------------------------


def dropout(x, keep_prob=None, noise_shape=None, seed=None, name=None, rate=None) -> Node:
    """x with each element 0 with probability `rate` = 1 - `keep_prob`, and the others divided by `keep_prob`.

    keep_prob, rate  one of the two: a number in (0, 1] or [0, 1), or a tensor of rank 0.
    noise_shape      a shape that broadcasts to x's: elements that share a number are dropped together.
    Raises ArgumentError for a number out of range, and for none or both of the two.
    """
    x = as_node(x)
    if not x.dtype.is_floating:
        raise report(DTypeError, "dropout: it takes floats", [("x", x.describe())], f"{x.dtype.name} is not accepted")
    if (keep_prob is None) == (rate is None):
        raise report(ArgumentError, "dropout: give one of keep_prob and rate")
    kept = keep_prob if rate is None else 1 - rate
    if not is_tensor(kept):
        if not 0 < kept <= 1:
            given = f"keep_prob = {keep_prob}" if rate is None else f"rate = {rate}"
            raise report(ArgumentError, f"dropout: {given} is out of range",
                         rule="keep_prob is in (0, 1], rate = 1 - keep_prob in [0, 1)")
        if kept == 1:
            return elementwise.identity(x, name=name)
    shape = x.type.shape if noise_shape is None else [
        size if d is None else d for d, size in zip(noise_shape, x.type.shape, strict=True)]
    if noise_shape is not None:
        shape = as_shape(shape)
    kept = as_node(kept, x.dtype)
    keeps = random_uniform(shape, dtype=x.dtype, seed=seed) < kept
    return compare.where(keeps, x / kept, 0, name=name)
