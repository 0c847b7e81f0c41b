"""`graphc.losses`: weighted losses reduced to one number, as in `tf.losses`; each joins the collection "losses"."""
from __future__ import annotations

from graphc.errors import ArgumentError, ShapeError, report
from graphc.functions import math as functions
from graphc.ir.container import get_default_graph
from graphc.ir.node import Node, as_node, is_tensor
from graphc.ops import activations, compare, composite, elementwise, transcendental
from graphc.ops.movement import reshape_to
from graphc.ops.reduce import reduce_sum

LOSSES = "losses"


class Reduction:
    """How a weighted loss becomes one number."""

    NONE = "none"                                        # it does not
    SUM = "weighted_sum"
    SUM_OVER_BATCH_SIZE = "weighted_sum_over_batch_size"  # by the number of elements
    MEAN = "weighted_mean"                               # by the sum of the weights
    SUM_OVER_NONZERO_WEIGHTS = "weighted_sum_by_nonzero_weights"
    SUM_BY_NONZERO_WEIGHTS = SUM_OVER_NONZERO_WEIGHTS    # by the number of elements whose weight is not 0

    @classmethod
    def all(cls):
        """The names of all reductions."""
        return (cls.NONE, cls.SUM, cls.MEAN, cls.SUM_OVER_BATCH_SIZE, cls.SUM_BY_NONZERO_WEIGHTS)


MEAN = Reduction.SUM_BY_NONZERO_WEIGHTS


def add_loss(loss, loss_collection=LOSSES) -> None:
    """Put `loss` into a collection of the default graph."""
    if loss_collection:
        get_default_graph().add_to_collection(loss_collection, loss)


def get_losses(scope=None, loss_collection=LOSSES) -> list:
    """The losses collected so far in the default graph."""
    return get_default_graph().get_collection(loss_collection, scope)


def get_total_loss(add_regularization_losses=True, name="total_loss", scope=None) -> Node:
    """The sum of the collected losses, and of the regularization losses unless told otherwise."""
    losses = get_losses(scope)
    if add_regularization_losses:
        losses += get_default_graph().get_collection("regularization_losses", scope)
    return functions.add_n(losses, name=name)


def compute_weighted_loss(losses, weights=1.0, scope=None, loss_collection=LOSSES,
                          reduction=Reduction.SUM_BY_NONZERO_WEIGHTS) -> Node:
    """losses * weights, reduced as `reduction` says (default: the mean of those whose weight is not 0). Of none: 0.

    weights: a number, or a tensor that has losses' rank and, on each axis, its size or 1.
    Raises ArgumentError for an unknown reduction, ShapeError for weights that do not fit.
    """
    if reduction not in Reduction.all():
        raise report(ArgumentError, f"losses: {reduction!r} is no reduction", rule=f"it is one of {Reduction.all()}")
    losses = as_node(losses)
    dtype = losses.dtype
    if dtype.arithmetic is not dtype:  # a sum or a count may be larger than any float16
        losses = compare.cast(losses, dtype=dtype.arithmetic)
    weights = _weights(losses, weights)
    weighted = losses if _is_one(weights) else losses * weights
    if reduction != Reduction.NONE:
        axes = tuple(range(losses.type.rank))
        weighted = _divided(reduce_sum(weighted, axes=axes), losses, weights, axes, reduction)
    if dtype.arithmetic is not dtype:
        weighted = compare.cast(weighted, dtype=dtype)
    add_loss(weighted, loss_collection)
    return weighted


def _weights(losses: Node, weights) -> Node:
    """The weights as floats of losses' dtype, with an axis of size 1 too many or too few put right."""
    weights = functions.cast(weights, losses.dtype) if is_tensor(weights) else as_node(weights, losses.dtype)
    rank, shape = losses.type.rank, weights.type.shape
    if len(shape) == rank + 1 and shape[-1] == 1:
        weights = reshape_to(weights, shape=shape[:-1])
    elif len(shape) == rank - 1 and shape and losses.type.shape[-1] == 1:
        weights = reshape_to(weights, shape=(*shape, 1))
    elif len(shape) not in (0, rank):
        raise report(ShapeError, "losses: weights do not fit the losses",
                     [("losses", losses.describe()), ("weights", weights.describe())],
                     "weights have rank 0, or the rank of losses")
    return weights


def _is_one(weights: Node) -> bool:
    value = elementwise.constant_value(weights)
    return value is not None and value.ndim == 0 and bool(value == 1)


def _divided(total: Node, losses: Node, weights: Node, axes, reduction: str) -> Node:
    if reduction == Reduction.SUM:
        return total
    size = composite.count(losses, axes, losses.dtype)
    if reduction == Reduction.SUM_OVER_BATCH_SIZE or _is_one(weights):
        known = elementwise.constant_value(size)
        return (elementwise.divide if known is not None and known > 0 else elementwise.div_no_nan)(total, size)
    present = weights
    if reduction == Reduction.SUM_BY_NONZERO_WEIGHTS:
        present = compare.cast(compare.not_equal(weights, 0), dtype=losses.dtype)
    if weights.type.rank == 0:
        return elementwise.div_no_nan(total, present * size)
    return elementwise.div_no_nan(total, reduce_sum(present + composite.zeros_like(losses), axes=axes))


def _operands(what: str, labels, predictions, second: str = "predictions") -> tuple[Node, Node]:
    """Both as floats of the predictions' dtype, of one shape: one that broadcasts is a mistake in a loss."""
    predictions = as_node(predictions)
    dtype = predictions.dtype
    labels = functions.cast(labels, dtype) if is_tensor(labels) else as_node(labels, dtype, what)
    composite.require_floats(what, **{second: predictions})
    composite.require_same_shape(what, labels=labels, **{second: predictions})
    return labels, predictions


# the losses ------------------------------------------------------------------------------------------


def mean_squared_error(labels, predictions, weights=1.0, scope=None, loss_collection=LOSSES, reduction=MEAN) -> Node:
    """(predictions - labels)**2, weighted and reduced: see `compute_weighted_loss`."""
    labels, predictions = _operands("mean_squared_error", labels, predictions)
    losses = functions.squared_difference(predictions, labels)
    return compute_weighted_loss(losses, weights, scope, loss_collection, reduction)


def absolute_difference(labels, predictions, weights=1.0, scope=None, loss_collection=LOSSES, reduction=MEAN) -> Node:
    """|predictions - labels|, weighted and reduced."""
    labels, predictions = _operands("absolute_difference", labels, predictions)
    losses = elementwise.absolute(predictions - labels)
    return compute_weighted_loss(losses, weights, scope, loss_collection, reduction)


def huber_loss(labels, predictions, weights=1.0, delta=1.0, scope=None, loss_collection=LOSSES, reduction=MEAN) -> Node:
    """error**2 / 2 up to |error| = delta, and the tangent beyond (P. Huber, 1964); weighted and reduced."""
    labels, predictions = _operands("huber_loss", labels, predictions)
    if is_tensor(delta):
        size = elementwise.absolute(predictions - labels)
        inner = elementwise.minimum(size, delta)
        losses = 0.5 * elementwise.square(inner) + delta * (size - inner)
    else:
        losses = activations.huber(predictions - labels, delta=float(delta))
    return compute_weighted_loss(losses, weights, scope, loss_collection, reduction)


def mean_pairwise_squared_error(labels, predictions, weights=1.0, scope=None, loss_collection=LOSSES) -> Node:
    """How far the differences between the elements of a row of predictions are from those of its labels: the mean of the
    squares over all pairs of elements of a row, summed over the rows of the batch, each by its weight. Elements of weight 0 are
    not counted. weights: a number, one for each row, or a tensor that broadcasts to the rows.
    """
    what = "mean_pairwise_squared_error"
    labels, predictions = _operands(what, labels, predictions)
    shape, rank = predictions.type.shape, predictions.type.rank
    if not rank:
        raise report(ShapeError, f"{what}: a scalar has no rows", [("predictions", predictions.describe())])
    weights = functions.cast(weights, predictions.dtype) if is_tensor(weights) else as_node(weights, predictions.dtype)
    if weights.type.rank == 1:
        weights = reshape_to(weights, shape=(weights.type.shape[0], *[1] * (rank - 1)))
    axes = tuple(range(1, rank))
    errors = predictions - labels
    counted = compare.cast(compare.not_equal(weights, 0), dtype=errors.dtype) + composite.zeros_like(errors)
    count = composite.keep(reduce_sum(counted, axes=axes), shape, axes)
    squares = composite.keep(reduce_sum(elementwise.square(errors), axes=axes), shape, axes)
    total = composite.keep(reduce_sum(errors, axes=axes), shape, axes)
    pairs = elementwise.maximum(count - 1, 0)
    each = 2 * (elementwise.div_no_nan(squares, pairs) - elementwise.div_no_nan(elementwise.square(total), count * pairs))
    loss = reduce_sum(each * weights, axes=tuple(range(rank)))
    add_loss(loss, loss_collection)
    return loss


def hinge_loss(labels, logits, weights=1.0, scope=None, loss_collection=LOSSES, reduction=MEAN) -> Node:
    """max(0, 1 - sign * logits), where labels 0 and 1 stand for the signs -1 and 1; weighted and reduced."""
    labels, logits = _operands("hinge_loss", labels, logits, "logits")
    losses = elementwise.relu(1 - (2 * labels - 1) * logits)
    return compute_weighted_loss(losses, weights, scope, loss_collection, reduction)


def log_loss(labels, predictions, weights=1.0, epsilon=1e-7, scope=None, loss_collection=LOSSES,
             reduction=MEAN) -> Node:
    """-labels * log(predictions + epsilon) - (1 - labels) * log(1 - predictions + epsilon); weighted and reduced."""
    labels, predictions = _operands("log_loss", labels, predictions)
    log = transcendental.log
    losses = -(labels * log(predictions + epsilon)) - (1 - labels) * log(1 - predictions + epsilon)
    return compute_weighted_loss(losses, weights, scope, loss_collection, reduction)


def sigmoid_cross_entropy(multi_class_labels, logits, weights=1.0, label_smoothing=0, scope=None,
                          loss_collection=LOSSES, reduction=MEAN) -> Node:
    """`nn.sigmoid_cross_entropy_with_logits`, weighted and reduced. Smoothing moves labels that much towards 1/2."""
    labels, logits = _operands("sigmoid_cross_entropy", multi_class_labels, logits, "logits")
    if label_smoothing:
        labels = labels * (1 - label_smoothing) + 0.5 * label_smoothing
    losses = composite.sigmoid_cross_entropy(labels, logits)
    return compute_weighted_loss(losses, weights, scope, loss_collection, reduction)


def softmax_cross_entropy(onehot_labels, logits, weights=1.0, label_smoothing=0, scope=None, loss_collection=LOSSES,
                          reduction=MEAN) -> Node:
    """`nn.softmax_cross_entropy_with_logits` over the last axis, weighted and reduced. The labels are constants.

    Smoothing moves labels that much towards 1 / number of classes.
    """
    labels, logits = _operands("softmax_cross_entropy", onehot_labels, logits, "logits")
    axes = composite.axes_of(logits, -1, "softmax_cross_entropy")
    if label_smoothing:
        labels = labels * (1 - label_smoothing) + label_smoothing / composite.count(logits, axes, logits.dtype)
    losses = composite.softmax_cross_entropy(elementwise.stop_gradient(labels), logits, axes)
    return compute_weighted_loss(losses, weights, scope, loss_collection, reduction)


def sparse_softmax_cross_entropy(labels, logits, weights=1.0, scope=None, loss_collection=LOSSES,
                                 reduction=MEAN) -> Node:
    """`nn.sparse_softmax_cross_entropy_with_logits`, weighted and reduced. Labels may have one more axis, of size 1."""
    labels, logits = as_node(labels), as_node(logits)
    shape = labels.type.shape
    if len(shape) == logits.type.rank and shape[-1:] == (1,):
        labels = reshape_to(labels, shape=shape[:-1])
    losses = composite.sparse_softmax_cross_entropy(labels, logits)
    return compute_weighted_loss(losses, weights, scope, loss_collection, reduction)


def cosine_distance(labels, predictions, axis=None, weights=1.0, scope=None, loss_collection=LOSSES, reduction=MEAN,
                    dim=None) -> Node:
    """1 - sum(labels * predictions) along `axis`, which keeps size 1, of vectors of length 1; weighted and reduced."""
    labels, predictions = _operands("cosine_distance", labels, predictions)
    axis = dim if axis is None else axis
    if axis is None:
        raise report(ArgumentError, "cosine_distance: it needs the axis of the vectors")
    axes = composite.axes_of(predictions, axis, "cosine_distance")
    losses = 1 - composite.keep(reduce_sum(labels * predictions, axes=axes), predictions.type.shape, axes)
    return compute_weighted_loss(losses, weights, scope, loss_collection, reduction)
