"""`graphc.nn`: activations, cross entropies and small layers' arithmetic, as TensorFlow 1 spells them."""
from __future__ import annotations

import math
from types import SimpleNamespace

from graphc import rnn_cell
from graphc.errors import ArgumentError, ShapeError, report
from graphc.functions.attention import masked_softmax, multi_head_attention, scaled_dot_product_attention
from graphc.functions.convolution import (
    atrous_conv2d,
    atrous_conv2d_transpose,
    conv1d,
    conv1d_transpose,
    conv2d,
    conv2d_backprop_filter,
    conv2d_backprop_input,
    conv2d_transpose,
    conv3d,
    conv3d_transpose,
    convolution,
    depthwise_conv2d,
    depthwise_conv2d_native,
    separable_conv2d,
)
from graphc.functions.ctc import ctc_beam_search_decoder, ctc_greedy_decoder, ctc_loss, ctc_loss_v2
from graphc.functions.gathering import embedding_lookup
from graphc.functions.math import log_sigmoid, sigmoid, tanh
from graphc.functions.normalization import (
    batch_norm,
    batch_norm_with_global_normalization,
    batch_normalization,
    fused_batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    local_response_normalization,
    lrn,
    moments,
    normalize_moments,
    sufficient_statistics,
    weighted_moments,
)
from graphc.functions.pooling import (
    avg_pool,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool,
    max_pool1d,
    max_pool2d,
    max_pool3d,
    max_pool_with_argmax,
    pool,
)
from graphc.functions.random import dropout
from graphc.functions.recurrent import (
    bidirectional_dynamic_rnn,
    dynamic_rnn,
    raw_rnn,
    rnn_decoder,
    static_bidirectional_rnn,
    static_rnn,
)
from graphc.functions.running import top_k
from graphc.functions.sampled import (
    log_uniform_candidate_sampler,
    nce_loss,
    sampled_softmax_loss,
    sequence_loss,
    sequence_loss_by_example,
    uniform_candidate_sampler,
)
from graphc.functions.sparse import embedding_lookup_sparse, safe_embedding_lookup_sparse
from graphc.ir.node import Node, as_node, is_tensor
from graphc.ir.types import float32
from graphc.ops import activations, compare, composite, elementwise, transcendental
from graphc.ops.contract import matmul_to
from graphc.ops.movement import reshape_to

__all__ = [
    "atrous_conv2d", "atrous_conv2d_transpose", "avg_pool", "avg_pool1d", "avg_pool2d", "avg_pool3d", "batch_norm",
    "batch_norm_with_global_normalization", "batch_normalization", "bias_add", "bidirectional_dynamic_rnn", "conv1d",
    "conv1d_transpose", "conv2d", "conv2d_backprop_filter", "conv2d_backprop_input", "conv2d_transpose", "conv3d",
    "conv3d_transpose", "convolution", "crelu", "ctc_beam_search_decoder", "ctc_greedy_decoder", "ctc_loss", "ctc_loss_v2",
    "deconv2d", "depthwise_conv2d", "depthwise_conv2d_native", "dropout", "dynamic_rnn", "elu", "embedding_lookup",
    "embedding_lookup_sparse", "fused_batch_norm", "gelu", "group_norm", "hard_sigmoid", "in_top_k", "instance_norm",
    "l2_loss", "l2_normalize", "layer_norm", "leaky_relu", "local_response_normalization", "log_poisson_loss", "log_sigmoid",
    "log_softmax", "log_uniform_candidate_sampler", "lrn", "masked_softmax", "max_pool", "max_pool1d", "max_pool2d",
    "max_pool3d", "max_pool_with_argmax", "moments", "multi_head_attention", "nce_loss", "normalize_moments", "pool",
    "raw_rnn", "relu", "relu6", "rnn_cell", "safe_embedding_lookup_sparse", "sampled_softmax_loss",
    "scaled_dot_product_attention", "selu", "separable_conv2d", "seq2seq", "sequence_loss", "sigmoid",
    "sigmoid_cross_entropy_with_logits", "silu", "softmax", "softmax_cross_entropy_with_logits",
    "softmax_cross_entropy_with_logits_v2", "softplus", "softsign", "sparse_softmax_cross_entropy_with_logits",
    "static_bidirectional_rnn", "static_rnn", "sufficient_statistics", "swish", "tanh", "top_k", "uniform_candidate_sampler",
    "weighted_cross_entropy_with_logits", "weighted_moments", "xw_plus_b", "zero_fraction",
]

deconv2d = conv2d_transpose  # as TensorFlow called it first
seq2seq = SimpleNamespace(rnn_decoder=rnn_decoder, sequence_loss_by_example=sequence_loss_by_example)

# activations -----------------------------------------------------------------------------------------


def relu(features, name=None) -> Node:
    """features where positive, else 0; NaN stays. The gradient at 0 is 0."""
    return elementwise.relu(features, name=name)


def relu6(features, name=None) -> Node:
    """features between 0 and 6, else the nearer of the two. The gradient at 0 and 6 is 0."""
    return elementwise.relu6(features, name=name)


def leaky_relu(features, alpha=0.2, name=None) -> Node:
    """features where positive, else alpha * features. The gradient at 0 is alpha, which is a number or a tensor."""
    if not is_tensor(alpha):
        return elementwise.leaky_relu(features, alpha=float(alpha), name=name)
    features = as_node(features)
    return compare.where(features > 0, features, features * alpha, name=name)


def elu(features, name=None) -> Node:
    """features where positive, else exp(features) - 1. The gradient at 0 is 1."""
    return transcendental.elu(features, name=name)


def selu(features, name=None) -> Node:
    """The scaled elu that keeps mean 0 and variance 1 (Klambauer et al., 2017)."""
    return transcendental.selu(features, name=name)


def softplus(features, name=None) -> Node:
    """log(1 + exp(features)), without overflow."""
    return transcendental.softplus(features, name=name)


def softsign(features, name=None) -> Node:
    """features / (1 + |features|)."""
    return activations.softsign(features, name=name)


def swish(features, beta=1.0, name=None) -> Node:
    """features * sigmoid(beta * features)."""
    if not is_tensor(beta) and beta == 1:
        return activations.silu(features, name=name)
    features = as_node(features)
    return elementwise.multiply(features, transcendental.sigmoid(features * beta), name=name)


silu = swish


def gelu(features, approximate=False, name=None) -> Node:
    """features * P(X <= features) for a standard normal X; `approximate`: by the formula with tanh."""
    return (activations.gelu_tanh if approximate else activations.gelu)(features, name=name)


def hard_sigmoid(x, name=None) -> Node:
    """0.2 * x + 0.5 between 0 and 1."""
    return activations.hard_sigmoid(x, name=name)


def crelu(features, axis=-1, name=None) -> Node:
    """relu of features and of -features, side by side along `axis`."""
    from graphc.functions.arrays import concat
    features = as_node(features)
    return elementwise.relu(concat([features, -features], axis), name=name)


def _axes(x: Node, axis, dim, what: str) -> tuple[int, ...]:
    """`axis`, or under its old name `dim`; the last one by default."""
    if axis is not None and dim is not None:
        raise report(ArgumentError, f"{what}: both axis and dim are given; they are two names of one argument")
    axis = dim if axis is None else axis
    return composite.axes_of(x, -1 if axis is None else axis, what)


def softmax(logits, axis=None, name=None, dim=None) -> Node:
    """exp(logits) / sum(exp(logits)) along `axis` (default: the last), without overflow."""
    logits = as_node(logits)
    return composite.softmax(logits, _axes(logits, axis, dim, "softmax"), name)


def log_softmax(logits, axis=None, name=None, dim=None) -> Node:
    """log(softmax(logits)), finite also where the softmax rounds to 0."""
    logits = as_node(logits)
    return composite.log_softmax(logits, _axes(logits, axis, dim, "log_softmax"), name)


# cross entropies -------------------------------------------------------------------------------------


def _labels_and_logits(sentinel, labels, logits, what: str) -> tuple[Node, Node]:
    if sentinel is not None or labels is None or logits is None:
        raise report(ArgumentError, f"{what}: call it as {what}(labels=..., logits=...)",
                     rule="without names the two are too easy to mix up")
    logits = as_node(logits)
    return as_node(labels, None if is_tensor(labels) else logits.dtype, what), logits


def sigmoid_cross_entropy_with_logits(_sentinel=None, labels=None, logits=None, name=None) -> Node:
    """-labels * log(sigmoid(logits)) - (1 - labels) * log(1 - sigmoid(logits)) of each element, without overflow.

    labels and logits have one shape and one float dtype; so has the result.
    """
    labels, logits = _labels_and_logits(_sentinel, labels, logits, "sigmoid_cross_entropy_with_logits")
    return composite.sigmoid_cross_entropy(labels, logits, name)


def weighted_cross_entropy_with_logits(labels=None, logits=None, pos_weight=None, name=None, targets=None) -> Node:
    """`sigmoid_cross_entropy_with_logits` in which the positive term counts `pos_weight` times."""
    labels = targets if labels is None else labels
    labels, logits = _labels_and_logits(None, labels, logits, "weighted_cross_entropy_with_logits")
    composite.require_same_shape("weighted_cross_entropy_with_logits", labels=labels, logits=logits)
    weight = 1 + (as_node(pos_weight, logits.dtype) - 1) * labels
    return elementwise.add((1 - labels) * logits, weight * transcendental.softplus(-logits), name=name)


def log_poisson_loss(targets, log_input, compute_full_loss=False, name=None) -> Node:
    """exp(log_input) - targets * log_input of each element: the Poisson likelihood's loss, up to a constant.

    compute_full_loss  adds Stirling's approximation of log(targets!), where targets are above 1.
    """
    log_input = as_node(log_input)
    targets = as_node(targets, log_input.dtype, "log_poisson_loss")
    composite.require_floats("log_poisson_loss", targets=targets, log_input=log_input)
    composite.require_same_shape("log_poisson_loss", targets=targets, log_input=log_input)
    loss = transcendental.exp(log_input) - targets * log_input
    if not compute_full_loss:
        return elementwise.identity(loss, name=name)
    inside = compare.where(targets > 1, targets, 1)
    rest = inside * transcendental.log(inside) - inside + 0.5 * transcendental.log(2 * math.pi * inside)
    return elementwise.add(loss, compare.where(targets > 1, rest, 0), name=name)


def softmax_cross_entropy_with_logits_v2(_sentinel=None, labels=None, logits=None, axis=None, name=None,
                                         dim=None) -> Node:
    """-sum(labels * log(softmax(logits))) along `axis` (default: the last), which vanishes. Differentiable by both."""
    what = "softmax_cross_entropy_with_logits"
    labels, logits = _labels_and_logits(_sentinel, labels, logits, what)
    return composite.softmax_cross_entropy(labels, logits, _axes(logits, axis, dim, what), name)


def softmax_cross_entropy_with_logits(_sentinel=None, labels=None, logits=None, dim=None, name=None, axis=None) -> Node:
    """`softmax_cross_entropy_with_logits_v2` that takes labels for constants, as TensorFlow 1 does."""
    what = "softmax_cross_entropy_with_logits"
    labels, logits = _labels_and_logits(_sentinel, labels, logits, what)
    axes = _axes(logits, axis, dim, what)
    return composite.softmax_cross_entropy(elementwise.stop_gradient(labels), logits, axes, name)


def sparse_softmax_cross_entropy_with_logits(_sentinel=None, labels=None, logits=None, name=None) -> Node:
    """-log(softmax(logits))[label] for each row.

    logits: floats [..., classes]. labels: int32, int64 or uint8 [...], each in [0, classes); another value is a
    RunError when it runs. The result has the shape of labels.
    """
    what = "sparse_softmax_cross_entropy_with_logits"
    if labels is not None and not is_tensor(labels):
        labels = as_node(labels, None, what)  # they are integers: not of the dtype of logits
    labels, logits = _labels_and_logits(_sentinel, labels, logits, what)
    return composite.sparse_softmax_cross_entropy(labels, logits, name)


# parts of layers -------------------------------------------------------------------------------------


def bias_add(value, bias, data_format=None, name=None) -> Node:
    """value + bias, where bias has one axis: it goes along value's last axis, or axis 1 with data_format "NCHW".

    Raises ShapeError when the sizes differ: a bias of size 1 does not broadcast.
    """
    value = as_node(value)
    bias = as_node(bias, value.dtype)
    operands = [("value", value.describe()), ("bias", bias.describe())]
    if data_format is not None and data_format[:2] not in ("NH", "NC", "ND", "NW"):
        raise report(ArgumentError, f"bias_add: data_format {data_format!r} is unknown", rule='it is "NHWC" or "NCHW"')
    if bias.type.rank != 1 or value.type.rank < 2:
        raise report(ShapeError, "bias_add: bias must have one axis, value at least two", operands)
    axis = 1 if (data_format or "NHWC").startswith("NC") else value.type.rank - 1
    size, own = value.type.shape[axis], bias.type.shape[0]
    if isinstance(size, int) and isinstance(own, int) and size != own:
        raise report(ShapeError, "bias_add: bias does not fit value", operands, f"{size} != {own}")
    if axis != value.type.rank - 1:
        bias = reshape_to(bias, shape=(own, *[1] * (value.type.rank - 2)))
    return elementwise.add(value, bias, name=name)


def xw_plus_b(x, weights, biases, name=None) -> Node:
    """x @ weights + biases, for matrices x [N, in] and weights [in, out] and a vector of biases [out]."""
    return bias_add(matmul_to(x, weights), biases, name=name)


def l2_loss(t, name=None) -> Node:
    """sum(t * t) / 2, of rank 0."""
    t = as_node(t)
    composite.require_floats("l2_loss", t=t)
    return composite.l2_loss(t, name)


def l2_normalize(x, axis=None, epsilon=1e-12, name=None, dim=None) -> Node:
    """x / sqrt(max(sum(x * x), epsilon)), the sum over `axis` (default: all)."""
    x = as_node(x)
    composite.require_floats("l2_normalize", x=x)
    axes = composite.axes_of(x, dim if axis is None else axis, "l2_normalize")
    return composite.l2_normalize(x, axes, epsilon, name)


# measures --------------------------------------------------------------------------------------------


def zero_fraction(value, name=None) -> Node:
    """How large a part of the elements is 0, as a float32 of rank 0."""
    value = as_node(value)
    zeros = compare.cast(compare.equal(value, 0), dtype=float32)
    return composite.reduce_mean(zeros, tuple(range(value.type.rank)), name)


def in_top_k(predictions, targets, k, name=None) -> Node:
    """Whether the target's prediction is among the k largest of its row; ties at the edge count as inside.

    predictions: floats [N, classes]. targets: integers [N]; one out of range gives False.
    """
    predictions, targets = as_node(predictions), as_node(targets)
    composite.require_floats("in_top_k", predictions=predictions)
    if predictions.type.rank != 2 or targets.type.rank != 1 or not targets.dtype.is_integer:
        raise report(ShapeError, "in_top_k: it takes predictions of rank 2 and integer targets of rank 1",
                     [("predictions", predictions.describe()), ("targets", targets.describe())])
    return composite.in_top_k(predictions, targets, k, name)
