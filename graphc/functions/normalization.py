"""Normalisation: moments, batch, layer, group, instance and local response normalisation, all as compositions that fuse."""
from __future__ import annotations

from graphc.control import GraphKeys
from graphc.errors import ArgumentError, DTypeError, ShapeError, report
from graphc.ir.container import get_default_graph
from graphc.ir.node import Node, as_node, is_tensor
from graphc.ops import assemble, compare, composite, elementwise, movement
from graphc.ops.reduce import reduce_sum

# moments ---------------------------------------------------------------------------------------------


def moments(x, axes, shift=None, name=None, keep_dims=None, keepdims=None) -> tuple[Node, Node]:
    """(mean, variance) of x over `axes`; with `keepdims` they keep size 1. `shift` is ignored, as in TensorFlow."""
    x = as_node(x)
    found = composite.axes_of(x, axes, "moments")
    mean, variance = composite.moments(x, found)
    if keepdims or keep_dims:
        return composite.keep(mean, x.type.shape, found), composite.keep(variance, x.type.shape, found)
    return mean, variance


def weighted_moments(x, axes, frequency_weights, name=None, keep_dims=None, keepdims=None) -> tuple[Node, Node]:
    """(mean, variance) of x over `axes`, in which each element counts as often as its weight says.

    The weights broadcast to x. Weights that sum to 0 give NaN.
    """
    x = as_node(x)
    composite.require_floats("weighted_moments", x=x)
    weights = as_node(frequency_weights, x.dtype, "weighted_moments")
    weights = elementwise.add(weights if weights.dtype == x.dtype else compare.cast(weights, dtype=x.dtype),
                              composite.zeros_like(x))
    found = composite.axes_of(x, axes, "weighted_moments")
    total = reduce_sum(weights, axes=found)
    mean = reduce_sum(weights * x, axes=found) / total
    distance = x - composite.keep(mean, x.type.shape, found)
    variance = elementwise.divide(reduce_sum(weights * elementwise.square(distance), axes=found), total, name=name)
    if keepdims or keep_dims:
        return composite.keep(mean, x.type.shape, found), composite.keep(variance, x.type.shape, found)
    return mean, variance


def sufficient_statistics(x, axes, shift=None, keep_dims=None, name=None, keepdims=None):
    """(count, sum, sum of squares, shift) of x - shift over `axes`: what `normalize_moments` needs.

    count has rank 0. A shift near the mean keeps the sum of squares exact; None stays None.
    """
    x = as_node(x)
    composite.require_floats("sufficient_statistics", x=x)
    found = composite.axes_of(x, axes, "sufficient_statistics")
    moved = x if shift is None else x - shift
    sums = reduce_sum(moved, axes=found), reduce_sum(elementwise.square(moved), axes=found)
    if keepdims or keep_dims:
        sums = tuple(composite.keep(s, x.type.shape, found) for s in sums)  # type: ignore[assignment]
    return composite.count(x, found, x.dtype), *sums, None if shift is None else as_node(shift, x.dtype)


def normalize_moments(counts, mean_ss, variance_ss, shift, name=None) -> tuple[Node, Node]:
    """(mean, variance) from what `sufficient_statistics` gives."""
    mean_ss = as_node(mean_ss)
    shifted = mean_ss / counts
    mean = shifted if shift is None else shifted + shift
    variance = elementwise.subtract(as_node(variance_ss) / counts, elementwise.square(shifted), name=name)
    return mean, variance


# normalisation by given moments ----------------------------------------------------------------------


def batch_normalization(x, mean, variance, offset, scale, variance_epsilon, name=None) -> Node:
    """(x - mean) / sqrt(variance + variance_epsilon) * scale + offset; offset and scale may be None."""
    x = as_node(x)
    factor = elementwise.rsqrt(as_node(variance, x.dtype) + variance_epsilon)
    if scale is not None:
        factor = factor * scale
    centred = x - mean
    if offset is None:
        return elementwise.multiply(centred, factor, name=name)
    return elementwise.add(centred * factor, offset, name=name)


def batch_norm_with_global_normalization(t=None, m=None, v=None, beta=None, gamma=None, variance_epsilon=None,
                                         scale_after_normalization=None, name=None, input=None, mean=None,
                                         variance=None) -> Node:
    """The older form of `batch_normalization`: gamma counts only when `scale_after_normalization` is true."""
    t, m, v = (a if a is not None else b for a, b in ((t, input), (m, mean), (v, variance)))
    return batch_normalization(t, m, v, beta, gamma if scale_after_normalization else None, variance_epsilon, name)


def _channel_axis(what: str, x: Node, data_format: str | None) -> int:
    """The axis of the channels: the last, or with "NCHW" and the like the second."""
    if data_format is not None and (data_format[:2] not in ("NH", "NC", "ND", "NW") or len(data_format) < 2):
        raise report(ArgumentError, f"{what}: data_format {data_format!r} is unknown", rule='it is "NHWC" or "NCHW"')
    if x.type.rank < 2:
        raise report(ShapeError, f"{what}: it takes at least 2 axes", [("x", x.describe())])
    return 1 if (data_format or "NHWC").startswith("NC") else x.type.rank - 1


def _along(x: Node, vector, axis: int):
    """A vector (or None) so that it broadcasts along `axis` of x."""
    if vector is None:
        return None
    vector = as_node(vector, x.dtype)
    if axis == x.type.rank - 1 or vector.type.rank != 1:
        return vector
    return movement.reshape_to(vector, shape=(*vector.type.shape, *[1] * (x.type.rank - 1 - axis)))


def _by_channel(x: Node, axis: int, mean, variance, offset, scale, epsilon, name) -> Node:
    """`batch_normalization` with vectors that go along `axis`."""
    return batch_normalization(x, _along(x, mean, axis), _along(x, variance, axis), _along(x, offset, axis),
                               _along(x, scale, axis), epsilon, name)


def fused_batch_norm(x, scale, offset, mean=None, variance=None, epsilon=0.001, data_format="NHWC", is_training=True,
                     name=None, exponential_avg_factor=1.0) -> tuple[Node, Node, Node]:
    """(y, mean, variance): x normalised for each channel.

    is_training  True: by the moments of this batch. The mean and variance returned are theirs, the variance by n - 1
                 (by 1 for one sample), moved from the given ones by `exponential_avg_factor` when that is not 1.
                 False: by the given mean and variance, which are returned.
    scale, offset, mean, variance  vectors, one number for each channel.
    """
    x = as_node(x)
    composite.require_floats("fused_batch_norm", x=x)
    axis = _channel_axis("fused_batch_norm", x, data_format)
    if not is_training:
        if mean is None or variance is None:
            raise report(ArgumentError, "fused_batch_norm: without training it needs mean and variance")
        mean, variance = as_node(mean, x.dtype), as_node(variance, x.dtype)
        y = _by_channel(x, axis, mean, variance, offset, scale, epsilon, name)
        return y, mean, variance
    axes = tuple(a for a in range(x.type.rank) if a != axis)
    found, spread = composite.moments(x, axes)
    y = _by_channel(x, axis, found, spread, offset, scale, epsilon, name)
    count = composite.count(x, axes, x.dtype)
    spread = spread * (count / elementwise.maximum(count - 1, 1))
    if exponential_avg_factor != 1:
        if mean is None or variance is None:
            raise report(ArgumentError, "fused_batch_norm: a moving average needs mean and variance")
        found, spread = (old + (new - old) * exponential_avg_factor
                         for old, new in ((as_node(mean, x.dtype), found), (as_node(variance, x.dtype), spread)))
    return y, found, spread


def batch_norm(x, moving_mean, moving_variance, offset=None, scale=None, training=False, axis=-1, momentum=0.99,
               epsilon=1e-3, name=None) -> Node:
    """x normalised for each place along `axis`, with moving averages as state: what a layer of that name does.

    training         True: by the moments of this batch; operations that move the averages, average = momentum * average
                     + (1 - momentum) * moment, join the collection UPDATE_OPS: run them with the training step.
                     False: by the averages. A bool tensor: decided when it runs.
    moving_mean, moving_variance   variables, one number for each place along `axis`.
    """
    x = as_node(x)
    composite.require_floats("batch_norm", x=x)
    axis, = composite.axes_of(x, axis, "batch_norm")
    if not is_tensor(training) and not training:
        return _by_channel(x, axis, moving_mean, moving_variance, offset, scale, epsilon, name)
    batch = composite.moments(x, tuple(a for a in range(x.type.rank) if a != axis))
    used = []
    for variable, moment in zip((moving_mean, moving_variance), batch, strict=True):
        step = (variable - moment) * (1 - momentum)
        if is_tensor(training):
            step = compare.where(training, step, 0)
            moment = compare.where(training, moment, variable.as_tensor())
        get_default_graph().add_to_collection(GraphKeys.UPDATE_OPS, variable.assign_sub(step))
        used.append(moment)
    return _by_channel(x, axis, used[0], used[1], offset, scale, epsilon, name)


# normalisation by the example's own moments ----------------------------------------------------------


def layer_norm(x, scale=None, offset=None, axis=-1, epsilon=1e-5, name=None) -> Node:
    """x normalised over `axis` (one or several) of each example, then * scale + offset, which broadcast to x."""
    x = as_node(x)
    axes = composite.axes_of(x, axis, "layer_norm")
    mean, variance = (composite.keep(m, x.type.shape, axes) for m in composite.moments(x, axes))
    return batch_normalization(x, mean, variance, offset, scale, epsilon, name)


def group_norm(x, groups=32, scale=None, offset=None, data_format="NHWC", epsilon=1e-5, name=None) -> Node:
    """x [N, ..., C] normalised over all places and the channels of one group of each example (Wu and He, 2018).

    scale and offset are vectors of one number for each channel. Raises ArgumentError when the channels do not divide
    into `groups` equal groups.
    """
    x = as_node(x)
    axis = _channel_axis("group_norm", x, data_format)
    shape, channels = tuple(x.type.shape), x.type.shape[axis]
    if not isinstance(channels, int) or groups < 1 or channels % groups:
        raise report(ArgumentError, "group_norm: the channels do not divide into groups", [("x", x.describe())],
                     f"{channels} channels into {groups} groups")
    split = (*shape[:axis], groups, channels // groups, *shape[axis + 1:])
    parted = movement.reshape_to(x, shape=split)
    axes = tuple(a for a in range(1, len(split)) if a != axis)
    mean, variance = (composite.keep(m, split, axes) for m in composite.moments(parted, axes))
    y = movement.reshape_to(batch_normalization(parted, mean, variance, None, None, epsilon), shape=shape)
    if scale is not None:
        y = elementwise.multiply(y, _along(x, scale, axis), name=name if offset is None else None)
    return y if offset is None else elementwise.add(y, _along(x, offset, axis), name=name)


def instance_norm(x, scale=None, offset=None, data_format="NHWC", epsilon=1e-6, name=None) -> Node:
    """x [N, ..., C] normalised over all places of each channel of each example (Ulyanov, Vedaldi, Lempitsky, 2016)."""
    x = as_node(x)
    axis = _channel_axis("instance_norm", x, data_format)
    axes = tuple(a for a in range(1, x.type.rank) if a != axis)
    mean, variance = (composite.keep(m, x.type.shape, axes) for m in composite.moments(x, axes))
    return batch_normalization(x, mean, variance, _along(x, offset, axis), _along(x, scale, axis), epsilon, name)


def local_response_normalization(input, depth_radius=5, bias=1.0, alpha=1.0, beta=0.5, name=None) -> Node:
    """input / (bias + alpha * sum of squares of the 2 * depth_radius + 1 nearest channels) ** beta (Krizhevsky, 2012).

    Channels are the last axis; beyond its ends there are zeros.
    """
    x = as_node(input)
    if not x.dtype.is_floating:
        raise report(DTypeError, "local_response_normalization: it takes floats", [("input", x.describe())])
    if not x.type.rank:
        raise report(ShapeError, "local_response_normalization: a scalar has no channels", [("input", x.describe())])
    shape, last, radius = tuple(x.type.shape), x.type.rank - 1, int(depth_radius)
    padded = assemble.place(elementwise.square(x), shape=(*shape[:-1], shape[-1] + 2 * radius),
                            begin=(*[0] * last, radius), steps=(1,) * (last + 1))
    total = None
    for k in range(2 * radius + 1):
        part = movement.strided_slice(padded, begin=(*[0] * last, k), steps=(1,) * (last + 1), sizes=shape)
        total = part if total is None else total + part
    base = bias + alpha * total
    power = elementwise.rsqrt(base) if beta == 0.5 else elementwise.pow(base, as_node(-float(beta), x.dtype))
    return elementwise.multiply(x, power, name=name)


lrn = local_response_normalization
