"""Host ops on lists of things: the edit distance of sequences, boxes that overlap, and the likeliest labels."""
from __future__ import annotations

import numpy as np

from graphc.errors import DTypeError, RuleError
from graphc.ir.dims import name
from graphc.ir.op import REQUIRED, Host, Kind, Op
from graphc.ir.types import TensorType, int32, int64, same_dim
from graphc.ops.define import as_samples, common_dtype, sample
from graphc.ops.samples import integer, positive, real


def _distance_type(hypothesis, truth, hypothesis_length, truth_length):
    common_dtype([hypothesis, truth], ["hypothesis", "truth"], "integer")
    lengths = (hypothesis_length, truth_length)
    if hypothesis.rank != 2 or truth.rank != 2 or any(v.rank != 1 for v in lengths):
        raise RuleError("sequences must have two axes, lengths one", f"ranks {hypothesis.rank}, {truth.rank}")
    if not all(v.dtype.is_integer for v in lengths):
        raise RuleError("lengths must be integers", f"they are {lengths[0].dtype.name}", DTypeError)
    rows = hypothesis.shape[0]
    for other in (truth, *lengths):
        rows = same_dim(rows, other.shape[0], "the numbers of sequences differ")
    return TensorType(int32, (rows,))


def _distance_numpy(hypothesis, truth, hypothesis_length, truth_length):
    """V. Levenshtein's distance, row by row of its table; the running minimum takes what insertions cost."""
    found = np.zeros(len(hypothesis), np.int32)
    for at, (h, t) in enumerate(zip(hypothesis, truth, strict=True)):
        h, t = h[:max(int(hypothesis_length[at]), 0)], t[:max(int(truth_length[at]), 0)]
        steps = np.arange(len(t) + 1)
        line = steps
        for k, symbol in enumerate(h, 1):
            best = np.concatenate([[k], np.minimum(line[1:] + 1, line[:-1] + (t != symbol))])
            line = np.minimum.accumulate(best - steps) + steps
        found[at] = line[-1]
    return found


edit_distance = Op(
    "edit_distance", Kind.HOST, ("hypothesis", "truth", "hypothesis_length", "truth_length"),
    doc="How many insertions, removals and exchanges of elements make each truth of its hypothesis, as int32: rows of two "
        "matrices of integers, of which the first `length` elements count.",
    infer=_distance_type, numpy=_distance_numpy, rule=Host(), grad="a count of changes is a whole number",
    samples=as_samples([sample(integer(3, 6, low=0, high=3), integer(3, 5, low=0, high=3), integer(3, low=0, high=7),
                               integer(3, low=0, high=6)),
                        sample(integer(2, 0), integer(2, 3), integer(2, low=0, high=1), integer(2, low=3, high=4)),
                        sample(integer(0, 2), integer(0, 2), integer(0), integer(0))]),
    errors=((sample(integer(3), integer(3), integer(3), integer(3)), "sequences must have two axes"),
            (sample(integer(3, 2), integer(3, 2), integer(2), integer(3)), "the numbers of sequences differ"),
            (sample(integer(3, 2), integer(3, 2), real(3), real(3)), "lengths must be integers")),
)


def _boxes_type(boxes, scores, *, most, overlap, least, dim):
    common_dtype([boxes, scores], ["boxes", "scores"], "float")
    if boxes.rank != 2 or scores.rank != 1 or boxes.shape[1] != 4:
        raise RuleError("boxes must be [N, 4] and scores [N]", f"ranks {boxes.rank} and {scores.rank}")
    same_dim(boxes.shape[0], scores.shape[0], "there are more boxes or more scores")
    return TensorType(int32, (dim,))


def _boxes_numpy(boxes, scores, *, most, overlap, least, dim):
    boxes = boxes.astype(np.float64)
    low, high = np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])
    area = np.prod(high - low, axis=1)
    taken: list[int] = []
    for k in np.argsort(-scores, kind="stable"):
        if len(taken) == most or not scores[k] > least:
            break
        common = np.prod(np.maximum(np.minimum(high[k], high[taken]) - np.maximum(low[k], low[taken]), 0), axis=1)
        union = area[k] + area[taken] - common
        if not np.any(common > overlap * np.where(union > 0, union, np.inf)):
            taken.append(int(k))
    return np.array(taken, np.int32)


best_boxes = Op(
    "best_boxes", Kind.HOST, ("boxes", "scores"),
    attrs={"most": REQUIRED, "overlap": REQUIRED, "least": REQUIRED, "dim": REQUIRED},
    doc="Numbers of boxes (two corners each), the best score first: none that shares more than the part `overlap` of their "
        "union with a better one, none with a score of `least` or less, at most `most`.",
    infer=_boxes_type, numpy=_boxes_numpy, rule=Host(binds=("dim",)), grad="numbers of boxes are whole numbers",
    samples=as_samples([sample(positive(9, 4), real(9), most=5, overlap=0.3, least=-9.0, dim=name("A")),
                        sample(positive(9, 4), real(9), most=9, overlap=0.9, least=0.0, dim=name("A")),
                        sample(positive(0, 4), real(0), most=3, overlap=0.5, least=-9.0, dim=name("A"))]),
    errors=((sample(positive(3, 3), real(3), most=1, overlap=0.5, least=0.0, dim=name("A")), "boxes must be [N, 4]"),
            (sample(positive(3, 4), real(2), most=1, overlap=0.5, least=0.0, dim=name("A")), "more boxes or more scores")),
)


def _beam_type(logits, lengths, *, width, top, blank):
    common_dtype([logits], ["logits"], "float")
    if logits.rank != 3 or lengths.rank != 1 or not lengths.dtype.is_integer:
        raise RuleError("logits must be [time, batch, classes], lengths [batch] integers",
                        f"ranks {logits.rank} and {lengths.rank}, {lengths.dtype.name}")
    batch = same_dim(logits.shape[1], lengths.shape[0], "the numbers of sequences differ")
    if not 0 < top <= width:
        raise RuleError("there must be at least as many beams as paths", f"{top} paths of {width} beams")
    return TensorType(int64, (batch, top, logits.shape[0])), TensorType(int64, (batch, top)), logits.with_shape((batch, top))


def _beams(log_p: np.ndarray, width: int, blank: int) -> list[tuple[tuple[int, ...], float]]:
    """(labels, log of their probability) of the beams that are left, the best first.

    Of each the probabilities of ways that end in a blank and in a label are kept apart (A. Graves, Sequence transduction with
    recurrent neural networks, 2012; A. Hannun et al., 2014).
    """
    beams: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -np.inf)}
    for row in log_p:
        new: dict[tuple[int, ...], list[float]] = {}
        for labels, (with_blank, with_label) in beams.items():
            total = np.logaddexp(with_blank, with_label)
            stays = new.setdefault(labels, [-np.inf, -np.inf])
            stays[0] = np.logaddexp(stays[0], total + row[blank])
            if labels:
                stays[1] = np.logaddexp(stays[1], with_label + row[labels[-1]])
            for c in range(len(row)):
                if c != blank:
                    longer = new.setdefault((*labels, c), [-np.inf, -np.inf])
                    start = with_blank if labels and labels[-1] == c else total
                    longer[1] = np.logaddexp(longer[1], start + row[c])
        ranked = sorted(new.items(), key=lambda item: (-np.logaddexp(item[1][0], item[1][1]), item[0]))
        beams = {labels: (parts[0], parts[1]) for labels, parts in ranked[:width]}
    return [(labels, float(np.logaddexp(*parts))) for labels, parts in beams.items()]


def _beam_numpy(logits, lengths, *, width, top, blank):
    steps, batch, _ = logits.shape
    labels, counts = np.full((batch, top, steps), blank, np.int64), np.zeros((batch, top), np.int64)
    scores = np.full((batch, top), -np.inf)
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(2, keepdims=True) if wide.size else wide
    log_p = shifted - np.log(np.exp(shifted).sum(2, keepdims=True))
    for b in range(batch):
        for k, (path, score) in enumerate(_beams(log_p[:max(int(lengths[b]), 0), b], width, blank)[:top]):
            labels[b, k, :len(path)], counts[b, k], scores[b, k] = path, len(path), score
    return labels, counts, scores.astype(logits.dtype)


beam_search = Op(
    "beam_search", Kind.HOST, ("logits", "lengths"), attrs={"width": REQUIRED, "top": REQUIRED, "blank": REQUIRED},
    doc="(labels, how many they are, logs of their probabilities) of the `top` best labellings of each sequence, found with "
        "`width` beams: logits [time, batch, classes], of which the first `lengths` count, with a class `blank` for no label.",
    infer=_beam_type, numpy=_beam_numpy, rule=Host(), grad="labels are whole numbers, and beams are cut off",
    samples=as_samples([sample(real(4, 2, 3), integer(2, low=0, high=5, dtype="int64"), width=5, top=2, blank=2),
                        sample(real(2, 3, 2), integer(3, low=1, high=3, dtype="int32"), width=9, top=4, blank=0),
                        sample(real(0, 1, 2), integer(1, low=0, high=1, dtype="int64"), width=1, top=1, blank=1)]),
    errors=((sample(real(4, 3), integer(2), width=2, top=1, blank=0), "logits must be [time, batch, classes]"),
            (sample(real(4, 3, 2), integer(2), width=2, top=1, blank=0), "the numbers of sequences differ"),
            (sample(real(4, 3, 2), integer(3), width=2, top=3, blank=0), "3 paths of 2 beams")),
)
