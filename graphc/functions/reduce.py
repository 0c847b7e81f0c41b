"""Public reductions. `axis` is an int, several, or None for all axes; negative ones count from the back.

Old spellings work too: `reduction_indices` and `dimension` for `axis`, `keep_dims` for `keepdims`. All raise ShapeError
for an axis that the tensor has not or that appears twice.
"""
from __future__ import annotations

from graphc.errors import ArgumentError, report
from graphc.functions.sizes import as_sizes
from graphc.ir.node import Node, as_node, is_tensor
from graphc.ir.types import as_dtype, int64
from graphc.ops import composite, reduce
from graphc.ops.compare import cast, not_equal


def one_spelling(what: str, default, **spellings):
    """The one argument that was given under any of its names. Raises ArgumentError when two were."""
    given = {name: value for name, value in spellings.items() if value is not default}
    if len(given) > 1:
        raise report(ArgumentError, f"{what}: {' and '.join(given)} are two names of one argument")
    return next(iter(given.values()), default)


def _reduce(what: str, compute, x, axis, keepdims, name, reduction_indices, keep_dims) -> Node:
    x = as_node(x)
    axis = one_spelling(what, None, axis=axis, reduction_indices=reduction_indices)
    keepdims = bool(one_spelling(what, None, keepdims=keepdims, keep_dims=keep_dims))
    if axis is not None and is_tensor(axis):
        axis = as_sizes(axis, what)
    axes = composite.axes_of(x, axis, what)
    if not keepdims:
        return compute(x, axes, name)
    return composite.keep(compute(x, axes, name), x.type.shape, axes)


def _public(op, doc: str = "", name: str = ""):
    """The public function of a reduction op, or of a composite (x, axes, name)."""
    compute = op if not hasattr(op, "kind") else lambda x, axes, name: op(x, axes=axes, name=name)

    def function(input_tensor, axis=None, keepdims=None, name=None, reduction_indices=None, keep_dims=None):
        return _reduce(function.__name__, compute, input_tensor, axis, keepdims, name, reduction_indices, keep_dims)
    function.__name__ = function.__qualname__ = name or (op.name if hasattr(op, "kind") else op.__name__)
    function.__doc__ = doc or (op.doc if hasattr(op, "kind") else op.__doc__)
    return function


reduce_sum = _public(reduce.reduce_sum)
reduce_prod = _public(reduce.reduce_prod)
reduce_max = _public(reduce.reduce_max)
reduce_min = _public(reduce.reduce_min)
reduce_any = _public(reduce.reduce_any)
reduce_all = _public(reduce.reduce_all)
reduce_mean = _public(composite.reduce_mean)
reduce_logsumexp = _public(composite.reduce_logsumexp)
reduce_variance = _public(lambda x, axes, name: composite.reduce_variance(x, axes),
                          str(composite.reduce_variance.__doc__), "reduce_variance")
reduce_std = _public(composite.reduce_std)
reduce_euclidean_norm = _public(lambda x, axes, name: composite.norm(x, axes, name=name),
                                "Square root of the sum of squares. The gradient at 0 is 0.", "reduce_euclidean_norm")


def count_nonzero(input_tensor, axis=None, keepdims=None, dtype=int64, name=None, reduction_indices=None,
                  keep_dims=None) -> Node:
    """How many elements are not 0 (NaN is not 0; of bools: how many are true), as `dtype`."""
    def compute(x, axes, name):
        counted = x if x.dtype.is_bool else not_equal(x, 0)
        return reduce.reduce_sum(cast(counted, dtype=as_dtype(dtype)), axes=axes, name=name)
    return _reduce("count_nonzero", compute, input_tensor, axis, keepdims, name, reduction_indices, keep_dims)


def _position(op):
    def function(input, axis=None, name=None, dimension=None, output_type=int64):
        x = as_node(input)
        found = one_spelling(op.name, None, axis=axis, dimension=dimension)
        axes = composite.axes_of(x, 0 if found is None else found, op.name)
        if as_dtype(output_type) is int64:
            return op(x, axes=axes, name=name)
        return cast(op(x, axes=axes), dtype=as_dtype(output_type), name=name)
    function.__name__ = function.__qualname__ = op.name
    function.__doc__ = (f"{op.doc}\n\n    `axis` (or `dimension`) is one axis, by default the first; `output_type` is "
                        "another integer dtype.")
    return function


argmax = arg_max = _position(reduce.argmax)
argmin = arg_min = _position(reduce.argmin)
