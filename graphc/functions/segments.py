"""Public sums, means, products and extremes of rows that share a number, and counts: bincount, histograms."""
from __future__ import annotations

import numpy as np

from graphc.errors import ArgumentError, DTypeError, ShapeError, report
from graphc.functions.gathering import checked, number
from graphc.functions.indexing import index_tensor
from graphc.functions.sizes import as_size
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.node import Node, as_node, is_tensor
from graphc.ir.types import as_dtype, int32, int64
from graphc.ops import composite, elementwise, movement, segment
from graphc.ops.compare import cast, floor, in_range, where
from graphc.ops.elementwise import clip, constant_value
from graphc.ops.gather import scatter_sum
from graphc.ops.running import shifted

INTEGERS = 2**31 - 1

# sorted segments -------------------------------------------------------------------------------------


def _sorted(what: str, data, segment_ids, num_segments) -> tuple[Node, Node, Size]:
    """(data, ids, number of segments): ids that are known are checked here, others when they run."""
    x, ids = as_node(data), index_tensor(segment_ids)
    operands = [("data", x.describe()), ("segment_ids", ids.describe())]
    if ids.type.rank != 1 or not x.type.rank or not ids.dtype.is_integer:
        raise report(ShapeError, f"{what}: segment_ids has one axis of integers, data at least one axis", operands)
    known = constant_value(ids)
    if known is not None:
        if known.size and (known[0] < 0 or (np.diff(known) < 0).any()):
            raise report(ArgumentError, f"{what}: the segment ids are not sorted", operands, "they grow, from 0 on",
                         f"unsorted_{what} takes them in any order")
        found = int(known[-1]) + 1 if known.size else 0
        return x, ids, found if num_segments is None else as_size(num_segments, what)
    if num_segments is None:
        raise report(ArgumentError, f"{what}: the number of segments is known only when the graph runs", operands,
                     hint="give num_segments")
    before = shifted(ids, 0, 1)
    steps = in_range(ids - before, 0, as_node(INTEGERS, ids.dtype), message=f"{what}: the segment ids are not sorted")
    return x, before + steps, as_size(num_segments, what)


def _counts(ids: Node, x: Node, rows: Size) -> Node:
    """How many rows each segment has, as x's dtype, to broadcast against the segments of x."""
    ones = movement.broadcast_to(as_node(1, x.dtype), shape=tuple(ids.type.shape))
    return movement.reshape_to(scatter_sum(ids, ones, rows=rows), shape=(rows, *[1] * (x.type.rank - 1)))


def segment_sum(data, segment_ids, name=None, num_segments=None) -> Node:
    """Sums of the rows of data with equal numbers in segment_ids, which grow: row s of the result is the sum for number s.

    num_segments  the number of rows of the result; needed where segment_ids is no constant. As an extension of TensorFlow.
    """
    x, ids, rows = _sorted("segment_sum", data, segment_ids, num_segments)
    return scatter_sum(ids, x, rows=rows, name=name)


def segment_mean(data, segment_ids, name=None, num_segments=None) -> Node:
    """Means of the rows with equal numbers; 0 where there are none. See `segment_sum`."""
    x, ids, rows = _sorted("segment_mean", data, segment_ids, num_segments)
    composite.require_floats("segment_mean", data=x)
    return elementwise.divide(scatter_sum(ids, x, rows=rows), elementwise.maximum(_counts(ids, x, rows), 1), name=name)


def segment_prod(data, segment_ids, name=None, num_segments=None) -> Node:
    """Products of the rows with equal numbers; 1 where there are none. See `segment_sum`."""
    x, ids, rows = _sorted("segment_prod", data, segment_ids, num_segments)
    return segment.segment_prod(x, ids, rows=rows, name=name)


def segment_max(data, segment_ids, name=None, num_segments=None) -> Node:
    """The largest of the rows with equal numbers; 0 where there are none. See `segment_sum`."""
    x, ids, rows = _sorted("segment_max", data, segment_ids, num_segments)
    return where(_counts(ids, x, rows) > 0, segment.segment_max(x, ids, rows=rows), 0, name=name)


def segment_min(data, segment_ids, name=None, num_segments=None) -> Node:
    """The smallest of the rows with equal numbers; 0 where there are none. See `segment_sum`."""
    x, ids, rows = _sorted("segment_min", data, segment_ids, num_segments)
    return where(_counts(ids, x, rows) > 0, segment.segment_min(x, ids, rows=rows), 0, name=name)


# segments in any order -------------------------------------------------------------------------------


def _unsorted(what: str, data, segment_ids, num_segments) -> tuple[Node, Node, Size]:
    """(data, ids of one axis, number of segments)."""
    x, ids, rows = as_node(data), index_tensor(segment_ids), as_size(num_segments, what)
    rank = ids.type.rank
    if not ids.dtype.is_integer or rank > x.type.rank or rows < 0:
        raise report(ShapeError, f"{what}: segment_ids are integers for the first axes of data, num_segments is at least 0",
                     [("data", x.describe()), ("segment_ids", ids.describe())], f"num_segments = {rows}")
    if rank == 1:
        return x, ids, rows
    count = dims.product(ids.type.shape)
    return (movement.reshape_to(x, shape=(count, *x.type.shape[rank:])), movement.reshape_to(ids, shape=(count,)), rows)


def _added(x: Node, ids: Node, rows: Size) -> Node:
    """The sums of the rows for each number; rows with a negative number do not count."""
    known = constant_value(ids)
    if known is None or (known < 0).any():
        counts = movement.reshape_to(ids >= 0, shape=(ids.type.shape[0], *[1] * (x.type.rank - 1)))
        x, ids = where(movement.broadcast_to(counts, shape=tuple(x.type.shape)), x, 0), elementwise.maximum(ids, 0)
    return scatter_sum(ids, x, rows=rows)


def _shares(x: Node, ids: Node, rows: Size) -> Node:
    """How many rows each segment has, at least 1."""
    ones = movement.broadcast_to(as_node(1, x.dtype), shape=tuple(ids.type.shape))
    counts = movement.reshape_to(_added(ones, ids, rows), shape=(rows, *[1] * (x.type.rank - 1)))
    return elementwise.maximum(counts, 1)


def unsorted_segment_sum(data, segment_ids, num_segments, name=None) -> Node:
    """Sums of the rows of data with each number 0 ... num_segments - 1 in segment_ids; a negative number drops its row.

    segment_ids may have several axes: the first ones of data. Sums are taken in order of appearance.
    """
    x, ids, rows = _unsorted("unsorted_segment_sum", data, segment_ids, num_segments)
    return elementwise.identity(_added(x, ids, rows), name=name)


def unsorted_segment_mean(data, segment_ids, num_segments, name=None) -> Node:
    """Means of the rows with each number; 0 where there are none. See `unsorted_segment_sum`."""
    x, ids, rows = _unsorted("unsorted_segment_mean", data, segment_ids, num_segments)
    composite.require_floats("unsorted_segment_mean", data=x)
    return elementwise.divide(_added(x, ids, rows), _shares(x, ids, rows), name=name)


def unsorted_segment_sqrt_n(data, segment_ids, num_segments, name=None) -> Node:
    """Sums of the rows with each number, divided by the root of how many there are. See `unsorted_segment_sum`."""
    x, ids, rows = _unsorted("unsorted_segment_sqrt_n", data, segment_ids, num_segments)
    composite.require_floats("unsorted_segment_sqrt_n", data=x)
    return elementwise.divide(_added(x, ids, rows), elementwise.sqrt(_shares(x, ids, rows)), name=name)


def unsorted_segment_prod(data, segment_ids, num_segments, name=None) -> Node:
    """Products of the rows with each number; 1 where there are none. See `unsorted_segment_sum`."""
    x, ids, rows = _unsorted("unsorted_segment_prod", data, segment_ids, num_segments)
    return segment.segment_prod(x, ids, rows=rows, name=name)


def unsorted_segment_max(data, segment_ids, num_segments, name=None) -> Node:
    """The largest of the rows with each number; of none the smallest value there is. See `unsorted_segment_sum`."""
    x, ids, rows = _unsorted("unsorted_segment_max", data, segment_ids, num_segments)
    return segment.segment_max(x, ids, rows=rows, name=name)


def unsorted_segment_min(data, segment_ids, num_segments, name=None) -> Node:
    """The smallest of the rows with each number; of none the largest value there is. See `unsorted_segment_sum`."""
    x, ids, rows = _unsorted("unsorted_segment_min", data, segment_ids, num_segments)
    return segment.segment_min(x, ids, rows=rows, name=name)


# counts ----------------------------------------------------------------------------------------------


def bincount(arr, weights=None, minlength=None, maxlength=None, dtype=int32, name=None) -> Node:
    """How often each number 0, 1, ... is in arr, or the sum of the weights there. Numbers of maxlength or more do not count.

    The length is known for a constant; for other tensors minlength and maxlength must be given, and equal.
    """
    values = index_tensor(arr)
    flat = movement.reshape_to(values, shape=(dims.product(values.type.shape),))
    known = constant_value(values)
    low, high = (None if v is None else as_size(v, "bincount") for v in (minlength, maxlength))
    if known is not None:
        size = dims.maximum(int(known.max(initial=-1)) + 1, low or 0)
        size = size if high is None else dims.minimum(size, high)
    elif low is not None and low == high:
        size = low
    else:
        raise report(ArgumentError, "bincount: the length of the result is known only when the graph runs",
                     [("arr", values.describe())], hint="give minlength and maxlength, equal")
    kind = as_dtype(dtype) if weights is None else None
    given = as_node(1, kind) if weights is None else as_node(weights)
    given = movement.reshape_to(given, shape=flat.type.shape) if given.type.rank else \
        movement.broadcast_to(given, shape=tuple(flat.type.shape))
    inside = flat < size
    return scatter_sum(where(inside, flat, 0), where(inside, given, 0), rows=size, name=name)


def histogram_fixed_width_bins(values, value_range, nbins=100, dtype=int32, name=None) -> Node:
    """Which of `nbins` bins of equal width between the two numbers of value_range each value is in; the outer bins take
    what lies beyond them.
    """
    x = as_node(values)
    composite.require_floats("histogram_fixed_width", values=x)
    low, high = (value_range[k] if not is_tensor(value_range) else as_node(value_range)[k] for k in (0, 1))
    low, high = as_node(low, x.dtype), as_node(high, x.dtype)
    place = floor((x - low) / (high - low) * float(nbins))
    return cast(clip(place, 0, float(nbins - 1)), dtype=as_dtype(dtype), name=name)


def histogram_fixed_width(values, value_range, nbins=100, dtype=int32, name=None) -> Node:
    """How many values are in each of `nbins` bins of equal width; see `histogram_fixed_width_bins`."""
    places = histogram_fixed_width_bins(values, value_range, nbins)
    flat = movement.reshape_to(places, shape=(dims.product(places.type.shape),))
    ones = movement.broadcast_to(as_node(1, as_dtype(dtype)), shape=tuple(flat.type.shape))
    return scatter_sum(flat, ones, rows=nbins, name=name)


def confusion_matrix(labels, predictions, num_classes=None, dtype=int32, name=None, weights=None) -> Node:
    """How often each pair of a label (row) and a prediction (column) occurs, or the sum of the weights there.

    num_classes may be left out where both are constants: then the largest number tells. A number out of range is a RunError.
    """
    rows, columns = index_tensor(labels), index_tensor(predictions)
    known = [constant_value(v) for v in (rows, columns)]
    if num_classes is None:
        if any(v is None for v in known):
            raise report(ArgumentError, "confusion_matrix: the number of classes is known only when the graph runs",
                         [("labels", rows.describe()), ("predictions", columns.describe())], hint="give num_classes")
        num_classes = 1 + max(int(v.max(initial=-1)) for v in known)  # type: ignore[union-attr]
    count = as_size(num_classes, "confusion_matrix")
    kind = as_dtype(dtype)
    if rows.type.rank != 1 or columns.type.rank != 1:
        raise report(ShapeError, "confusion_matrix: labels and predictions have one axis",
                     [("labels", rows.describe()), ("predictions", columns.describe())])
    places: Node = checked(rows, count, "confusion_matrix") * number(count, int64) + checked(columns, count, "confusion_matrix")
    given = as_node(1, kind) if weights is None else as_node(weights, kind)
    if given.dtype != kind:
        raise report(DTypeError, "confusion_matrix: the weights have another dtype", [("weights", given.describe())],
                     f"{given.dtype} != {kind}")
    given = movement.broadcast_to(given, shape=tuple(places.type.shape))
    return movement.reshape_to(scatter_sum(places, given, rows=count * count), shape=(count, count), name=name)
