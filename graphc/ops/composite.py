"""Functions built from ops: no op of their own, because fusion makes them one kernel and gradients come for free.

All take tensors and axes counted from 0 (`axes_of` makes them); reduced axes disappear (`keep` brings them back as 1).
"""
from __future__ import annotations

import functools
import inspect
import math

import numpy as np

from graphc.errors import DTypeError, RuleError, ShapeError, report
from graphc.ir import dims
from graphc.ir.node import Node, as_node
from graphc.ir.types import int32, int64, same_shape, shape_text
from graphc.ops.activations import logistic_loss
from graphc.ops.compare import cast, equal, floordiv_int, floormod_int, in_range, isfinite, less, logical_and, where
from graphc.ops.elementwise import (
    absolute,
    add,
    divide,
    maximum,
    multiply,
    negative,
    pow,
    rsqrt,
    sqrt,
    square,
    stop_gradient,
    subtract,
)
from graphc.ops.index import dim_value, iota
from graphc.ops.movement import broadcast_to, reshape_to
from graphc.ops.reduce import reduce_max, reduce_sum
from graphc.ops.transcendental import exp, log

# shapes and arguments --------------------------------------------------------------------------------


def axes_of(x: Node, axis, what: str) -> tuple[int, ...]:
    """`axis` (an int, several, or None for all) as axes counted from 0. Raises ShapeError for one that x has not."""
    rank = x.type.rank
    if axis is None:
        return tuple(range(rank))
    given = np.asarray(axis).ravel().tolist()
    for a in given:
        if not isinstance(a, int) or not -rank <= a < rank:
            raise report(ShapeError, f"{what}: axis out of range", [("x", x.describe())], f"axis {a} of rank {rank}")
    return tuple(a % rank for a in given)


def keep(reduced: Node, shape, axes) -> Node:
    """`reduced`, which lost `axes` of `shape`, with size 1 along them: it broadcasts against what it came from."""
    return reshape_to(reduced, shape=tuple(1 if a in axes else d for a, d in enumerate(shape)))


FACTORS = 12    # of a product whose sum is looked at


def factored_sum(x: Node, axes: tuple[int, ...]) -> Node:
    """The sum of x over `axes`. Of a product, factors that vary along other axes alone are multiplied with the sum: it does not
    wait for them, and one pass can make it together with what they depend on (the gradient of a normalisation).
    """
    shape, rank = tuple(x.type.shape), x.type.rank
    outside: list[Node] = []
    inside: list[Node] = []
    waiting, sign = [x], 1
    while waiting and len(inside) + len(outside) + len(waiting) <= FACTORS:
        factor = waiting.pop()
        if factor.op is multiply:
            waiting += reversed(factor.inputs)
        elif factor.op is negative:
            waiting.append(factor.inputs[0])
            sign = -sign
        else:
            bare = factor
            while bare.op is broadcast_to:
                bare = bare.inputs[0]
            sizes = (1,) * (rank - bare.type.rank) + tuple(bare.type.shape)
            varies = any(d != 1 for d in sizes)
            (outside if varies and all(sizes[a] == 1 for a in axes) else inside).append(factor)
    covered = {a for f in inside for a in axes if a >= rank - f.type.rank and f.type.shape[a - rank] == shape[a]}
    if waiting or not outside or covered != set(axes) or x.type.dtype.size < 4:     # halves may overflow before the factor
        return reduce_sum(x, axes=axes)
    product = functools.reduce(multiply, inside)
    total = reduce_sum(product, axes=tuple(a - rank + product.type.rank for a in axes))
    for factor in outside:
        while factor.op is broadcast_to:
            factor = factor.inputs[0]
        kept = tuple(d for a, d in enumerate(factor.type.shape, rank - factor.type.rank) if a not in axes)
        total = multiply(total, reshape_to(factor, shape=kept))
    left = tuple(d for a, d in enumerate(shape) if a not in axes)
    total = total if total.type.shape == left else broadcast_to(total, shape=left)
    return total if sign > 0 else negative(total)


def require_same_shape(what: str, **tensors: Node) -> None:
    """Raise ShapeError unless the two tensors have one shape."""
    a, b = tensors.values()
    try:
        same_shape(a.type.shape, b.type.shape, "shapes differ")
    except RuleError as e:
        raise report(ShapeError, f"{what}: {' and '.join(tensors)} differ in shape",
                     [(n, t.describe()) for n, t in tensors.items()], e.rule) from None


def require_floats(what: str, **tensors: Node) -> None:
    """Raise DTypeError unless all tensors hold floats, of one dtype."""
    first = next(iter(tensors.values())).dtype
    for tensor in tensors.values():
        if not tensor.dtype.is_floating or tensor.dtype != first:
            problem = "dtypes differ" if tensor.dtype != first else f"{first.name} is not accepted"
            raise report(DTypeError, f"{what}: {problem}", [(n, t.describe()) for n, t in tensors.items()],
                         "it takes floats of one dtype", "graphc.cast(x, dtype) converts")


# constants -------------------------------------------------------------------------------------------


def full_like(x, value, dtype=None, name: str | None = None) -> Node:
    """A tensor of x's shape full of the number `value`, of x's dtype unless given."""
    x = as_node(x)
    shape = tuple(x.type.shape)
    if not shape:
        return as_node(value, dtype or x.dtype, "full_like", name)
    return broadcast_to(as_node(value, dtype or x.dtype, "full_like"), shape=shape, name=name)


def zeros_like(x, dtype=None, name: str | None = None) -> Node:
    """Zeros (False for bool) of x's shape."""
    x = as_node(x)
    return full_like(x, False if (dtype or x.dtype).is_bool else 0, dtype, name)


def ones_like(x, dtype=None, name: str | None = None) -> Node:
    """Ones (True for bool) of x's shape."""
    x = as_node(x)
    return full_like(x, True if (dtype or x.dtype).is_bool else 1, dtype, name)


def in_arithmetic(function):
    """A composite of one tensor of float16 or bfloat16 is computed in float32 and rounded once: a count or a sum of these
    may be larger than any number that the dtype has.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def computed(x, *arguments, **keywords):
        x = as_node(x)
        if x.dtype.arithmetic is x.dtype:
            return function(x, *arguments, **keywords)
        bound = signature.bind(cast(x, dtype=x.dtype.arithmetic), *arguments, **keywords)
        name = bound.arguments.pop("name", None)
        found = function(*bound.args, **bound.kwargs)
        if isinstance(found, tuple):
            return *(cast(f, dtype=x.dtype) for f in found[:-1]), cast(found[-1], dtype=x.dtype, name=name)
        return cast(found, dtype=x.dtype, name=name)
    return computed


# arithmetic ------------------------------------------------------------------------------------------


def truncatediv(x, y, name: str | None = None) -> Node:
    """x / y of integers, rounded toward 0, as in C. y = 0 is an error when it runs."""
    down, rest = floordiv_int(x, y), floormod_int(x, y)
    negative = down < 0  # rounded down past 0, unless nothing is left over
    return where(negative & ~equal(rest, 0), down + 1, down, name=name)


def root(x, name: str | None = None) -> Node:
    """Square root with gradient 0 at 0, where that of `sqrt` is infinite: for norms and deviations."""
    is_zero = equal(x, 0)
    return where(is_zero, 0, sqrt(where(is_zero, 1, x)), name=name)


# reductions ------------------------------------------------------------------------------------------


def count(x: Node, axes, dtype) -> Node:
    """How many elements of x one element of a reduction over `axes` stands for, as a 0-d tensor."""
    size = dims.product(x.type.shape[a] for a in axes)
    if isinstance(size, int):
        return as_node(size, dtype)
    return cast(dim_value(dim=size), dtype=dtype)


@in_arithmetic
def reduce_mean(x, axes, name: str | None = None) -> Node:
    """Mean over `axes`: the sum by the count. Of nothing: NaN. Integers are rounded toward 0, as in TensorFlow."""
    x = as_node(x)
    if x.dtype.is_integer:
        total = reduce_sum(cast(x, dtype=int64), axes=axes)
        return cast(truncatediv(total, count(x, axes, int64)), dtype=x.dtype, name=name)
    return divide(reduce_sum(x, axes=axes), count(x, axes, x.dtype), name=name)


@in_arithmetic
def moments(x, axes, name: str | None = None) -> tuple[Node, Node]:
    """(mean, variance) over `axes`; the variance, called `name`, is that of the whole population (by n, not n - 1)."""
    x = as_node(x)
    require_floats("moments", x=x)
    mean = reduce_mean(x, axes)
    return mean, reduce_mean(square(x - keep(mean, x.type.shape, axes)), axes, name)


@in_arithmetic
def reduce_variance(x, axes, name: str | None = None) -> Node:
    """Variance over `axes`: the mean of the squared distances from the mean."""
    return moments(x, axes, name)[1]


@in_arithmetic
def reduce_std(x, axes, name: str | None = None) -> Node:
    """Standard deviation over `axes`. The gradient at equal values is 0."""
    return root(reduce_variance(x, axes), name=name)


@in_arithmetic
def reduce_logsumexp(x, axes, name: str | None = None) -> Node:
    """log(sum(exp(x))) over `axes`, without overflow: the largest value is taken out first.

    An infinite largest value is not: then exp and log give the right infinity, where inf - inf would be NaN.
    """
    x = as_node(x)
    top = stop_gradient(reduce_max(x, axes=axes))
    top = where(isfinite(top), top, 0)
    return add(log(reduce_sum(exp(x - keep(top, x.type.shape, axes)), axes=axes)), top, name=name)


@in_arithmetic
def norm(x, axes, order="euclidean", name: str | None = None) -> Node:
    """The vector norm over `axes`: "euclidean" (or 2), 1, inf, or any p > 0. The gradient at 0 is 0."""
    x = as_node(x)
    require_floats("norm", x=x)
    if order in ("euclidean", "fro", 2):
        return root(reduce_sum(square(x), axes=axes), name=name)
    if order == math.inf:
        return reduce_max(absolute(x), axes=axes, name=name)
    if order == 1:
        return reduce_sum(absolute(x), axes=axes, name=name)
    total = reduce_sum(pow(absolute(x), order), axes=axes)
    is_zero = equal(total, 0)
    return where(is_zero, 0, pow(where(is_zero, 1, total), 1 / order), name=name)


@in_arithmetic
def l2_loss(x, name: str | None = None) -> Node:
    """sum(x * x) / 2, of rank 0."""
    return divide(reduce_sum(square(x), axes=tuple(range(x.type.rank))), 2, name=name)


@in_arithmetic
def l2_normalize(x, axes, epsilon, name: str | None = None) -> Node:
    """x / sqrt(max(sum(x * x), epsilon)), the sum over `axes`."""
    total = keep(reduce_sum(square(x), axes=axes), x.type.shape, axes)
    return multiply(x, rsqrt(maximum(total, epsilon)), name=name)


# activations -----------------------------------------------------------------------------------------


def _shifted(x: Node, axes) -> Node:
    """x minus its largest value along `axes`: its exp does not overflow."""
    return x - keep(stop_gradient(reduce_max(x, axes=axes)), x.type.shape, axes)


@in_arithmetic
def softmax(x, axes, name: str | None = None) -> Node:
    """exp(x) / sum(exp(x)) along `axes`, without overflow."""
    x = as_node(x)
    require_floats("softmax", logits=x)
    powers = exp(_shifted(x, axes))
    return multiply(powers, keep(1 / reduce_sum(powers, axes=axes), x.type.shape, axes), name=name)


@in_arithmetic
def log_softmax(x, axes, name: str | None = None) -> Node:
    """log(softmax(x)), finite also where softmax(x) is 0 for being too small."""
    x = as_node(x)
    require_floats("log_softmax", logits=x)
    shifted = _shifted(x, axes)
    return subtract(shifted, keep(log(reduce_sum(exp(shifted), axes=axes)), x.type.shape, axes), name=name)


# cross entropies -------------------------------------------------------------------------------------


def sigmoid_cross_entropy(labels: Node, logits: Node, name: str | None = None) -> Node:
    """-labels * log(sigmoid(logits)) - (1 - labels) * log(1 - sigmoid(logits)), element by element, finite for all x.

    As max(x, 0) - x * z + softplus(-|x|).
    """
    require_floats("sigmoid_cross_entropy_with_logits", labels=labels, logits=logits)
    require_same_shape("sigmoid_cross_entropy_with_logits", labels=labels, logits=logits)
    return logistic_loss(logits, labels, name=name)


def softmax_cross_entropy(labels: Node, logits: Node, axes, name: str | None = None) -> Node:
    """-sum(labels * log_softmax(logits)) along `axes`. Differentiable by both."""
    require_floats("softmax_cross_entropy_with_logits", labels=labels, logits=logits)
    require_same_shape("softmax_cross_entropy_with_logits", labels=labels, logits=logits)
    return negative(reduce_sum(labels * log_softmax(logits, axes), axes=axes), name=name)


def hits(labels: Node, shape) -> Node:
    """Where the coordinate along the last axis of `shape` is the label: one-hot rows, as bools."""
    last = len(shape) - 1
    return equal(iota(shape=tuple(shape), axis=last, dtype=labels.dtype), keep(labels, shape, (last,)))


def sparse_softmax_cross_entropy(labels: Node, logits: Node, name: str | None = None) -> Node:
    """-log_softmax(logits)[label] along the last axis.

    labels: integers in [0, number of classes), of the shape of logits without the last axis; another value is an error
    when it runs. The label's logit is picked by comparing coordinates, not by a gather: so the loss is one kernel over
    the rows, and its gradient, softmax minus one-hot, another one.
    """
    what = "sparse_softmax_cross_entropy_with_logits"
    require_floats(what, logits=logits)
    operands = [("labels", labels.describe()), ("logits", logits.describe())]
    if not labels.dtype.is_integer:
        raise report(DTypeError, f"{what}: labels must be integers", operands, f"they are {labels.dtype.name}")
    shape = tuple(logits.type.shape)
    if labels.type.rank != len(shape) - 1:
        raise report(ShapeError, f"{what}: labels must have one axis less than logits", operands,
                     f"rank {labels.type.rank} != {len(shape)} - 1")
    try:
        same_shape(labels.type.shape, shape[:-1], "")
    except RuleError:
        raise report(ShapeError, f"{what}: labels do not fit logits", operands,
                     f"[{shape_text(labels.type.shape)}] != [{shape_text(shape[:-1])}]") from None
    axes = (len(shape) - 1,)
    labels = cast(labels, dtype=int32) if labels.dtype.short == "u8" else labels  # a uint8 would count only to 255
    labels = in_range(labels, 0, count(logits, axes, labels.dtype), message=f"label value outside [0, {shape[-1]})")
    shifted = _shifted(logits, axes)
    picked = reduce_sum(where(hits(labels, shape), shifted, 0), axes=axes)
    return subtract(log(reduce_sum(exp(shifted), axes=axes)), picked, name=name)


def in_top_k(predictions: Node, targets: Node, k: int, name: str | None = None) -> Node:
    """Whether fewer than `k` predictions of a row are larger than its target's; False where that is not finite."""
    axes = (predictions.type.rank - 1,)
    shape = tuple(predictions.type.shape)
    targets = cast(targets, dtype=int64)
    own = reduce_sum(where(hits(targets, shape), predictions, 0), axes=axes)
    larger = reduce_sum(cast(predictions > keep(own, shape, axes), dtype=int32), axes=axes)
    known = (targets >= 0) & (targets < count(predictions, axes, int64))
    return logical_and(less(larger, int(k)), isfinite(own) & known, name=name)
