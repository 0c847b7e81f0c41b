"""Connectionist temporal classification: labels without places in time (A. Graves et al., 2006), as scans over time."""
from __future__ import annotations

from graphc.errors import ArgumentError, ShapeError, report
from graphc.functions.arrays import concat, transpose
from graphc.functions.control_flow import loop_over
from graphc.functions.gathering import gather, gather_nd
from graphc.functions.running import cumsum
from graphc.functions.segments import unsorted_segment_sum
from graphc.functions.selection import positions
from graphc.functions.sizes import as_size
from graphc.functions.sparse import SparseTensor, parts, sparse_tensor_to_dense
from graphc.ir.node import Node, as_node, is_tensor, result
from graphc.ir.types import int32, int64
from graphc.ops import composite
from graphc.ops.compare import cast, equal, greater_equal, less, logical_and, logical_or, not_equal, where
from graphc.ops.elementwise import maximum, negative, stop_gradient, subtract
from graphc.ops.index import dim_value, iota
from graphc.ops.lines import beam_search
from graphc.ops.movement import broadcast_to, reshape_to
from graphc.ops.reduce import argmax, reduce_max, reduce_sum
from graphc.ops.transcendental import exp, log

NEVER = -1e30  # the logarithm of a probability of 0 that can be added to and subtracted from


def _log_sum(*terms: Node) -> Node:
    """log(sum(exp)), also of terms that are all NEVER."""
    top = terms[0]
    for term in terms[1:]:
        top = maximum(top, term)
    top = stop_gradient(top)
    total = exp(terms[0] - top)
    for term in terms[1:]:
        total = total + exp(term - top)
    return top + log(total)


def _moved(x: Node, by: int) -> Node:
    """x moved by `by` places along the last axis, NEVER where nothing comes from."""
    rows = x.type.shape[0]
    return concat([broadcast_to(as_node(NEVER, x.dtype), shape=(rows, by)), x[:, :-by]], 1)


def _checked(what: str, logits, lengths) -> tuple[Node, Node]:
    x, counts = as_node(logits), as_node(lengths, int32, what)
    composite.require_floats(what, logits=x)
    if x.type.rank != 3 or counts.type.rank != 1:
        raise report(ShapeError, f"{what}: logits have three axes, lengths one",
                     [("logits", x.describe()), ("lengths", counts.describe())], "time, batch and classes")
    return x, cast(counts, dtype=int64)


def _loss(labels: Node, label_length: Node, logits: Node, logit_length: Node, blank: int, ignore: bool) -> Node:
    """The loss of each row of the batch: minus the log of the probability of all ways that give the labels.

    A state is a place among the labels with a blank before, between and behind them. From one step to the next a way stays,
    goes on by one, or leaves out a blank between two labels that differ.
    """
    length, batch, _ = logits.type.shape
    count = labels.type.shape[1]
    states = 2 * count + 1
    emitted = transpose(composite.log_softmax(logits, (2,)), [1, 0, 2])
    blanks = broadcast_to(as_node(blank, int64), shape=(batch, count, 1))
    pairs = concat([blanks, reshape_to(labels, shape=(batch, count, 1))], 2)
    wanted = concat([reshape_to(pairs, shape=(batch, 2 * count)), blanks[:, :1, 0] if count != 0 else
                     broadcast_to(as_node(blank, int64), shape=(batch, 1))], 1)
    before = concat([broadcast_to(as_node(blank, int64), shape=(batch, 2)), wanted], 1)[:, :-2]
    leaps = logical_and(not_equal(wanted, blank), not_equal(wanted, before))
    picks = broadcast_to(reshape_to(wanted, shape=(batch, 1, states)), shape=(batch, length, states))
    rows = transpose(gather(emitted, picks, axis=2, batch_dims=2), [1, 0, 2])
    place = broadcast_to(iota(shape=(states,), axis=0, dtype=int64), shape=(batch, states))
    start = where(equal(place, 0), as_node(0, logits.dtype), as_node(NEVER, logits.dtype))

    def step(state, row):
        alpha, (now, time) = state[0], row
        far = where(leaps, _moved(alpha, 2), NEVER) if count != 0 else alpha + NEVER
        new = maximum(_log_sum(alpha, _moved(alpha, 1), far) + now, NEVER)
        alive = broadcast_to(reshape_to(less(time, logit_length), shape=(batch, 1)), shape=(batch, states))
        return [where(alive, new, alpha)], []
    (last,), _ = loop_over(step, [start], [rows, iota(shape=(length,), axis=0, dtype=int64)], length, name="ctc_loss")
    end = reshape_to(2 * label_length, shape=(batch, 1))
    ends = logical_and(greater_equal(end, place), greater_equal(place, end - 1))
    last = where(ends, last, NEVER)
    top = stop_gradient(reduce_max(last, axes=(1,)))
    total = top + log(reduce_sum(exp(last - composite.keep(top, last.type.shape, (1,))), axes=(1,)))
    return where(total > NEVER / 2, negative(total), as_node(0.0 if ignore else float("inf"), logits.dtype))


def ctc_loss_v2(labels, logits, label_length, logit_length, logits_time_major=True, unique=None, blank_index=None,
                name=None) -> Node:
    """The loss of each row of the batch, of dense labels. Differentiable by the logits, to any order.

    labels [batch, most labels], integers, of which the first `label_length` [batch] count; logits [time, batch, classes]
    (batch first without logits_time_major), of which the first `logit_length` [batch] steps count. blank_index: the class
    that stands for no label (default 0; from the end if negative). Labels that do not fit into their steps: inf.
    """
    what = "ctc_loss_v2"
    x, steps = _checked(what, logits, logit_length)
    x = x if logits_time_major else transpose(x, [1, 0, 2])
    given = cast(as_node(labels), dtype=int64)
    if given.type.rank != 2:
        raise report(ShapeError, f"{what}: labels have two axes", [("labels", given.describe())], "batch and place")
    counts = cast(as_node(label_length, int32, what), dtype=int64)
    return _loss(given, counts, x, steps, _blank(what, x, 0 if blank_index is None else blank_index), False)


def _blank(what: str, logits: Node, index: int) -> int:
    classes = logits.type.shape[2]
    if is_tensor(index) or not isinstance(classes, int) or not -classes <= index < classes:
        raise report(ArgumentError, f"{what}: the blank must be one of the classes", [("logits", logits.describe())],
                     f"blank {index!r:.20} of {classes}")
    return int(index) % classes


def ctc_loss(labels, inputs=None, sequence_length=None, preprocess_collapse_repeated=False, ctc_merge_repeated=True,
             ignore_longer_outputs_than_inputs=False, time_major=True, logits=None) -> Node:
    """The loss of each row of the batch, of a SparseTensor of labels [batch, most labels]; the last class is the blank.

    inputs [time, batch, classes] are logits, of which the first `sequence_length` [batch] steps count. Labels that do not fit
    into their steps: inf, or 0 without a gradient with ignore_longer_outputs_than_inputs. `ctc_loss_v2` takes dense labels.
    """
    if preprocess_collapse_repeated or not ctc_merge_repeated:
        raise report(ArgumentError, "ctc_loss: repeated labels are told apart by a blank between them, always",
                     rule="preprocess_collapse_repeated=False and ctc_merge_repeated=True")
    x, steps = _checked("ctc_loss", inputs if logits is None else logits, sequence_length)
    x = x if time_major else transpose(x, [1, 0, 2])
    indices, values, shape = parts("ctc_loss", labels)
    dense = sparse_tensor_to_dense(SparseTensor(indices, cast(values, dtype=int64), shape))
    counts = unsorted_segment_sum(composite.ones_like(cast(values, dtype=int64)), indices[:, 0], x.type.shape[1])
    return _loss(dense, counts, x, steps, _blank("ctc_loss", x, -1), ignore_longer_outputs_than_inputs)


def ctc_greedy_decoder(inputs, sequence_length, merge_repeated=True, blank_index=None) -> tuple[list[SparseTensor], Node]:
    """([labels], minus the sums of the best logits [batch, 1]): the best class of each step of inputs [time, batch, classes],
    without blanks (by default the last class) and, with merge_repeated, without repetitions. labels is a SparseTensor.
    """
    what = "ctc_greedy_decoder"
    x, steps = _checked(what, inputs, sequence_length)
    blank = _blank(what, x, -1 if blank_index is None else blank_index)
    length, batch, _ = x.type.shape
    x = transpose(x, [1, 0, 2])
    best = argmax(x, axes=(2,))
    time = broadcast_to(iota(shape=(length,), axis=0, dtype=int64), shape=(batch, length))
    alive = less(time, broadcast_to(reshape_to(steps, shape=(batch, 1)), shape=(batch, length)))
    kept = logical_and(alive, not_equal(best, blank))
    if merge_repeated:
        kept = _without_repeats(best, time, kept)
    score = reduce_sum(where(alive, reduce_max(x, axes=(2,)), 0), axes=(1,))
    return [_kept_labels(best, kept)], reshape_to(negative(score), shape=(batch, 1))


def _kept_labels(labels: Node, kept: Node) -> SparseTensor:
    """The labels [batch, time] where `kept` is true, each row's moved together."""
    batch, numbers, places = labels.type.shape[0], cast(kept, dtype=int64), positions(kept)
    rank = subtract(gather_nd(cumsum(numbers, 1), places), 1)
    found = concat([places[:, :1], reshape_to(rank, shape=(rank.type.shape[0], 1))], 1)
    most = reduce_max(concat([reduce_sum(numbers, axes=(1,)), as_node([0], int64)], 0), axes=(0,))
    sizes = concat([reshape_to(_number(batch), shape=(1,)), reshape_to(most, shape=(1,))], 0)
    return SparseTensor(found, gather_nd(labels, places), sizes)


def ctc_beam_search_decoder(inputs, sequence_length, beam_width=100, top_paths=1,
                            merge_repeated=True) -> tuple[list[SparseTensor], Node]:
    """(the `top_paths` likeliest labels of each sequence, as SparseTensors; the logs of their probabilities [batch, top_paths])
    of inputs [time, batch, classes], logits of which the first `sequence_length` [batch] steps count; the last class is the
    blank.

    Found with `beam_width` beams, by the host. merge_repeated: labels that are repeated, although told apart by a blank, are
    merged, as TensorFlow 1 does.
    """
    what = "ctc_beam_search_decoder"
    x, steps = _checked(what, inputs, sequence_length)
    found = beam_search(x, steps, width=int(beam_width), top=int(top_paths), blank=_blank(what, x, -1))
    labels, counts, scores = (result(found, k) for k in range(3))
    place = broadcast_to(iota(shape=labels.type.shape[2:], axis=0, dtype=int64), shape=tuple(labels.type.shape[::2]))
    paths = []
    for k in range(int(top_paths)):
        path = labels[:, k]
        kept = less(place, broadcast_to(counts[:, k:k + 1], shape=tuple(path.type.shape)))
        paths.append(_kept_labels(path, _without_repeats(path, place, kept) if merge_repeated else kept))
    return paths, scores


def _without_repeats(labels: Node, place: Node, kept: Node) -> Node:
    """Where `kept` and another label than the one before."""
    before = concat([labels[:, :1], labels[:, :-1]], 1)
    return logical_and(kept, logical_or(equal(place, 0), not_equal(labels, before)))


def _number(size) -> Node:
    size = as_size(size, "ctc_greedy_decoder")
    return as_node(size, int64) if isinstance(size, int) else dim_value(dim=size)
