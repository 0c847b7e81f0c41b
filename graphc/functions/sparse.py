"""Sparse tensors as three plain ones, and what TensorFlow 1's models do with them: embeddings of bags of ids."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from graphc.errors import ArgumentError, ShapeError, report
from graphc.functions.arrays import reshape
from graphc.functions.gathering import embedding_lookup, gather, scatter_nd
from graphc.functions.math import clip_by_norm
from graphc.functions.segments import unsorted_segment_sum
from graphc.functions.sizes import as_sizes
from graphc.ir.container import get_default_graph
from graphc.ir.node import Node, as_node
from graphc.ir.types import int64
from graphc.ops.compare import cast, greater, logical_and, where
from graphc.ops.composite import full_like, ones_like, zeros_like
from graphc.ops.elementwise import div_no_nan, maximum, sqrt, square
from graphc.ops.movement import broadcast_to, reshape_to
from graphc.placeholders import placeholder


class SparseTensor(NamedTuple):
    """The elements that are not 0: their coordinates [N, rank] (int64, in row-major order), their values [N] and the shape
    [rank] of the whole. Each may be a tensor or an array; any function takes them as they are.
    """

    indices: Any
    values: Any
    dense_shape: Any


class SparseTensorValue(NamedTuple):
    """The same with arrays, as results have it."""

    indices: Any
    values: Any
    dense_shape: Any


def sparse_placeholder(dtype, shape=None, name=None) -> SparseTensor:
    """A sparse tensor that every run must be fed: `feed_dict={it: (indices, values, dense_shape)}`.

    shape  its sizes, None for those that each run may choose; the number of axes must be known. Raises ArgumentError.
    """
    if shape is None:
        raise report(ArgumentError, "sparse_placeholder: the number of axes must be known", rule="write shape=[None, None]")
    label, graph = name or "sparse", get_default_graph()
    count, rank = graph.fresh_dim(), len(shape)
    return SparseTensor(placeholder(int64, [count, rank], f"{label}/indices"), placeholder(dtype, [count], f"{label}/values"),
                        placeholder(int64, [rank], f"{label}/shape") if any(d is None for d in shape) else tuple(shape))


def parts(what: str, sparse) -> tuple[Node, Node, Any]:
    """(indices, values, shape) of a sparse tensor. Raises ArgumentError, ShapeError."""
    if not isinstance(sparse, tuple) or len(sparse) != 3:
        raise report(ArgumentError, f"{what}: {sparse!r:.60} is not a sparse tensor",
                     rule="graphc.SparseTensor(indices, values, dense_shape) is one")
    indices, values = cast(as_node(sparse[0]), dtype=int64), as_node(sparse[1])
    if indices.type.rank != 2 or values.type.rank != 1:
        raise report(ShapeError, f"{what}: indices have two axes, values one",
                     [("indices", indices.describe()), ("values", values.describe())])
    return indices, values, sparse[2]


def sparse_tensor_to_dense(sp_input, default_value=0, validate_indices=True, name=None) -> Node:
    """The whole tensor, with `default_value` where there is no element. Elements with the same coordinates add up."""
    indices, values, shape = parts("sparse_tensor_to_dense", sp_input)
    found = scatter_nd(indices, values, shape, name=name if default_value == 0 else None)
    if default_value == 0:
        return found
    there = scatter_nd(indices, ones_like(values), shape)
    return where(there > 0, found, as_node(default_value, values.dtype), name=name)


def _combined(rows: Node, owner: Node, weights: Node | None, count, combiner: str) -> Node:
    """The rows of each owner, weighted, added up and divided as `combiner` says."""
    if combiner not in ("mean", "sqrtn", "sum"):
        raise report(ArgumentError, f"embedding_lookup_sparse: {combiner!r} is no combiner", rule="mean, sqrtn or sum")
    if weights is None:
        weights = full_like(owner, 1, rows.dtype)
    column = reshape(weights, [-1, *[1] * (rows.type.rank - 1)])
    total = unsorted_segment_sum(rows * column, owner, count)
    if combiner == "sum":
        return total
    sizes = unsorted_segment_sum(weights if combiner == "mean" else square(weights), owner, count)
    sizes = reshape_to(sizes, shape=(*sizes.type.shape, *[1] * (rows.type.rank - 1)))
    return div_no_nan(total, sizes if combiner == "mean" else sqrt(sizes))


def embedding_lookup_sparse(params, sp_ids, sp_weights, partition_strategy="mod", name=None, combiner=None,
                            max_norm=None) -> Node:
    """For each row of the sparse matrix of ids the sum, the mean or the sum by the root of the count ("sqrtn") of the rows of
    `params` that they name, each by its weight.

    sp_ids      a SparseTensor of ids; its dense_shape says how many rows the result has. A row without ids gives zeros.
    sp_weights  one with a weight for each id, or None: 1.
    combiner    "mean" (default), "sqrtn" or "sum". max_norm: longer rows of params are shortened to this length.
    """
    indices, ids, shape = parts("embedding_lookup_sparse", sp_ids)
    rows = embedding_lookup(params, ids, partition_strategy)
    if max_norm is not None:
        rows = clip_by_norm(rows, max_norm, axes=list(range(1, rows.type.rank)))
    weights = None if sp_weights is None else cast(parts("embedding_lookup_sparse", sp_weights)[1], dtype=rows.dtype)
    return _combined(rows, indices[:, 0], weights, _first_size(shape), combiner or "mean")


def _first_size(shape):
    return as_sizes(shape, "embedding_lookup_sparse")[0]


def safe_embedding_lookup_sparse(embedding_weights, sparse_ids, sparse_weights=None, combiner="mean", default_id=None,
                                 name=None, partition_strategy="div", max_norm=None) -> Node:
    """`embedding_lookup_sparse` that leaves out ids below 0 and, except for "sum", those with a weight of 0 or less. A row
    without any gives the row `default_id` of the table, or zeros.
    """
    what = "safe_embedding_lookup_sparse"
    indices, ids, shape = parts(what, sparse_ids)
    tables: Sequence = embedding_weights if isinstance(embedding_weights, (list, tuple)) else [embedding_weights]
    dtype = as_node(tables[0]).dtype
    weights = None if sparse_weights is None else cast(parts(what, sparse_weights)[1], dtype=dtype)
    kept = ids >= 0
    if weights is not None and combiner != "sum":
        kept = logical_and(kept, weights > 0)
    rows = embedding_lookup(list(tables), maximum(ids, 0), partition_strategy)
    if max_norm is not None:
        rows = clip_by_norm(rows, max_norm, axes=list(range(1, rows.type.rank)))
    owner, count = where(kept, indices[:, 0], -1), _first_size(shape)
    found = _combined(rows, owner, weights, count, combiner)
    if default_id is None:
        return found
    some = greater(unsorted_segment_sum(cast(kept, dtype=int64), owner, count), 0)
    some = broadcast_to(reshape_to(some, shape=(*some.type.shape, *[1] * (rows.type.rank - 1))), shape=tuple(found.type.shape))
    return where(some, found, gather(tables[0], default_id) + zeros_like(found), name=name)
