"""Losses over many classes that look at a few drawn ones: noise-contrastive estimation and the sampled softmax."""
from __future__ import annotations

import math
from typing import NamedTuple

from graphc.errors import ArgumentError, ShapeError, report
from graphc.functions import arrays
from graphc.functions import math as functions
from graphc.functions.gathering import gather
from graphc.functions.linalg import matmul
from graphc.functions.random import get_seed, random_uniform
from graphc.ir.node import Node, as_node, result
from graphc.ir.types import float32, float64, int64
from graphc.ops import compare, composite, elementwise, random_host
from graphc.ops.reduce import reduce_any, reduce_sum
from graphc.ops.transcendental import exp, expm1, log, log1p


class Candidates(NamedTuple):
    """What a sampler gives: class numbers, and how often each true and each drawn class is expected among them."""

    sampled_candidates: Node
    true_expected_count: Node
    sampled_expected_count: Node


def _sampler(what: str, true_classes, num_true, num_sampled, unique, range_max, seed, log_uniform: bool, chance) -> Candidates:
    true = functions.cast(as_node(true_classes, int64), int64)
    if true.type.rank != 2 or true.type.shape[1] != num_true:
        raise report(ShapeError, f"{what}: true_classes have the shape [N, {num_true}]", [("true_classes", true.describe())])
    if unique and not 0 < num_sampled <= range_max:
        raise report(ArgumentError, f"{what}: there are not {num_sampled} different classes", rule=f"range_max = {range_max}")
    if unique:
        graph_seed, op_seed = get_seed(seed)
        node = random_host.unique_candidates(classes=int(range_max), count=int(num_sampled), log_uniform=log_uniform,
                                             seed=graph_seed, op_seed=op_seed)
        drawn, tries = result(node, 0), functions.cast(result(node, 1), float32)
    else:
        u = random_uniform((num_sampled,), dtype=float64, seed=seed)
        place = exp(u * math.log(range_max + 1)) - 1 if log_uniform else u * float(range_max)
        drawn = elementwise.minimum(functions.cast(place, int64), range_max - 1)

    def expected(classes: Node) -> Node:
        p = chance(functions.cast(classes, float32))
        return -expm1(tries * log1p(-p)) if unique else p * float(num_sampled)
    return Candidates(elementwise.stop_gradient(drawn), expected(true), expected(drawn))


def log_uniform_candidate_sampler(true_classes, num_true, num_sampled, unique, range_max, seed=None, name=None) -> Candidates:
    """`num_sampled` classes of [0, range_max), class k in proportion to log((k + 2) / (k + 1)): Zipf's law, for words that
    are numbered from the most frequent on. `unique`: no class twice.
    """
    def chance(k: Node) -> Node:
        return log1p(1 / (k + 1)) / math.log(range_max + 1)
    return _sampler("log_uniform_candidate_sampler", true_classes, num_true, num_sampled, unique, range_max, seed, True, chance)


def uniform_candidate_sampler(true_classes, num_true, num_sampled, unique, range_max, seed=None, name=None) -> Candidates:
    """`num_sampled` classes of [0, range_max), all with equal chance. `unique`: no class twice."""
    def chance(k: Node) -> Node:
        return composite.full_like(k, 1 / range_max)
    return _sampler("uniform_candidate_sampler", true_classes, num_true, num_sampled, unique, range_max, seed, False, chance)


def _logits(what: str, weights, biases, labels, inputs, num_sampled, num_classes, num_true, sampled_values, remove_hits,
            seed) -> tuple[Node, Node]:
    """(labels, logits) [N, num_true + num_sampled] of the true and the drawn classes, less the logs of expected counts."""
    weights, biases = (arrays.concat(list(v), 0) if isinstance(v, list | tuple) else as_node(v) for v in (weights, biases))
    labels, inputs = functions.cast(as_node(labels, int64), int64), as_node(inputs)
    if labels.type.rank == 1:
        labels = arrays.expand_dims(labels, 1)
    composite.require_floats(what, weights=weights, biases=biases, inputs=inputs)
    if weights.type.rank != 2 or inputs.type.rank != 2 or labels.type.rank != 2 or labels.type.shape[1] != num_true:
        raise report(ShapeError, f"{what}: weights [classes, size], inputs [N, size] and labels [N, {num_true}]",
                     [("weights", weights.describe()), ("inputs", inputs.describe()), ("labels", labels.describe())])
    values = sampled_values or log_uniform_candidate_sampler(labels, num_true, num_sampled, True, num_classes, seed)
    drawn, true_count, drawn_count = values
    own = reduce_sum(gather(weights, labels) * arrays.expand_dims(inputs, 1), axes=(2,))
    own = own + gather(biases, labels)
    others = matmul(inputs, gather(weights, drawn), transpose_b=True) + gather(biases, drawn)
    if remove_hits:
        hits = compare.equal(arrays.expand_dims(labels, 2), arrays.reshape(drawn, [1, 1, -1]))
        others = compare.where(reduce_any(hits, axes=(1,)), float(inputs.dtype.min), others)
    own, others = (v - functions.cast(elementwise.stop_gradient(log(count)), inputs.dtype)
                   for v, count in ((own, true_count), (others, drawn_count)))
    marks = composite.full_like(own, 1 / num_true), composite.zeros_like(others)
    return arrays.concat(list(marks), 1), arrays.concat([own, others], 1)


def nce_loss(weights, biases, labels, inputs, num_sampled, num_classes, num_true=1, sampled_values=None,
             remove_accidental_hits=False, partition_strategy="mod", name="nce_loss", seed=None) -> Node:
    """The loss [N] of telling the true classes from `num_sampled` drawn ones (M. Gutmann and A. Hyvaerinen, 2010).

    weights [num_classes, size], biases [num_classes], labels integers [N, num_true], inputs [N, size].
    sampled_values  what a candidate sampler gave; log-uniform and unique by default.
    """
    marks, logits = _logits("nce_loss", weights, biases, labels, inputs, num_sampled, num_classes, num_true, sampled_values,
                            remove_accidental_hits, seed)
    return reduce_sum(composite.sigmoid_cross_entropy(marks, logits), axes=(1,), name=name)


def sampled_softmax_loss(weights, biases, labels, inputs, num_sampled, num_classes, num_true=1, sampled_values=None,
                         remove_accidental_hits=True, partition_strategy="mod", name="sampled_softmax_loss",
                         seed=None) -> Node:
    """The cross entropy [N] of a softmax over the true and `num_sampled` drawn classes (S. Jean et al., 2014)."""
    marks, logits = _logits("sampled_softmax_loss", weights, biases, labels, inputs, num_sampled, num_classes, num_true,
                            sampled_values, remove_accidental_hits, seed)
    return composite.softmax_cross_entropy(marks, logits, (1,), name)


def sequence_loss_by_example(logits, targets, weights, average_across_timesteps=True, softmax_loss_function=None,
                             name=None) -> Node:
    """The weighted cross entropy of each row of the batch, [N]: lists with logits [N, classes], targets [N] and weights [N] for
    each step. Averaged, by the sum of the row's weights. softmax_loss_function(labels=, logits=) replaces the cross entropy.
    """
    if not logits or not len(logits) == len(targets) == len(weights):
        raise report(ArgumentError, "sequence_loss_by_example: logits, targets and weights are lists of the same length",
                     rule=f"{len(logits)}, {len(targets)} and {len(weights)}")
    given = [as_node(x) for x in logits]
    parts = [as_node(w, given[0].dtype) for w in weights]
    cross = softmax_loss_function or (lambda labels, logits: composite.sparse_softmax_cross_entropy(labels, logits))
    total = functions.add_n([cross(labels=as_node(t), logits=x) * w for x, t, w in zip(given, targets, parts, strict=True)])
    return elementwise.divide(total, functions.add_n(parts) + 1e-12, name=name) if average_across_timesteps else total


def sequence_loss(logits, targets, weights, average_across_timesteps=True, average_across_batch=True,
                  softmax_loss_function=None, name=None) -> Node:
    """The weighted cross entropy of sequences: logits [N, time, classes], targets [N, time], weights [N, time].

    Averaged over both axes it is the sum by the sum of the weights; over one, a vector of the other axis; over none, [N,
    time]. softmax_loss_function(labels=, logits=) replaces the cross entropy.
    """
    logits = as_node(logits)
    targets, weights = as_node(targets), as_node(weights, logits.dtype)
    if logits.type.rank != 3 or targets.type.rank != 2 or weights.type.rank != 2:
        raise report(ShapeError, "sequence_loss: logits [N, time, classes], targets [N, time] and weights [N, time]",
                     [("logits", logits.describe()), ("targets", targets.describe()), ("weights", weights.describe())])
    if softmax_loss_function is None:
        losses = composite.sparse_softmax_cross_entropy(targets, logits)
    else:
        losses = softmax_loss_function(labels=targets, logits=logits)
    losses = losses * weights
    axes = tuple(a for a, averaged in ((0, average_across_batch), (1, average_across_timesteps)) if averaged)
    if not axes:
        return elementwise.identity(losses, name=name)
    total = reduce_sum(weights, axes=axes)
    return elementwise.divide(reduce_sum(losses, axes=axes), total + 1e-12, name=name)
