"""Attention as compositions: two contractions and a softmax, with nothing of its own to compile."""
from __future__ import annotations

import math

from graphc.errors import ArgumentError, DTypeError, ShapeError, report
from graphc.functions.custom import custom_gradient
from graphc.functions.linalg import matmul, tensordot
from graphc.functions.random import dropout
from graphc.initializers import zeros_initializer
from graphc.ir.node import Node, as_node
from graphc.ir.types import int32
from graphc.ops import compare, composite, elementwise
from graphc.ops.index import iota
from graphc.ops.movement import reshape_to, transpose_to
from graphc.ops.reduce import reduce_max, reduce_sum
from graphc.ops.transcendental import exp
from graphc.scopes import get_variable, variable_scope


def masked_softmax(logits, mask=None, axis=-1, name=None) -> Node:
    """The softmax of those logits along `axis` where `mask` (bool, broadcasts) is true, and 0 elsewhere.

    A row without any true place is all 0, where the softmax of minus infinities would be NaN; its gradient is 0. What
    stands at a false place, NaN included, has no influence.
    """
    logits = as_node(logits)
    composite.require_floats("masked_softmax", logits=logits)
    axes = composite.axes_of(logits, axis, "masked_softmax")
    masks = [] if mask is None else [as_node(mask, None, "masked_softmax")]
    return elementwise.identity(_weights(_where_all(masks, logits, -math.inf), axes=axes, masks=masks), name=name)


def _where_all(masks, x, other):
    """x where all masks are true. None of them, nor what they are together, need be in memory: a matrix of their own."""
    for mask in masks:
        x = compare.where(mask, x, other)
    return x


@custom_gradient
def _weights(logits, axes, masks):
    """The softmax, whose gradient needs nothing but the result. A row of minus infinities is all 0. Where one of the masks is
    false, logits are minus infinity: nobody takes the gradient by those weights, so that it need not be computed.
    """
    shape = tuple(logits.type.shape)
    top = elementwise.stop_gradient(reduce_max(logits, axes=axes))
    top = compare.where(compare.equal(top, -math.inf), 0, top)
    powers = exp(logits - composite.keep(top, shape, axes))
    total = reduce_sum(powers, axes=axes)
    total = compare.where(compare.equal(total, 0), 1, total)  # only where all is masked: else the largest power is 1
    weights = powers * composite.keep(1 / total, shape, axes)

    def gradient(dy):
        part = _where_all(masks, dy, 0) * weights     # one matrix of this size, where weights * (dy - sum) would need two
        return part - weights * composite.keep(reduce_sum(part, axes=axes), shape, axes)
    return weights, gradient


def scaled_dot_product_attention(query, key, value, mask=None, causal=False, scale=None, dropout_rate=0.0, seed=None,
                                 name=None) -> Node:
    """softmax(query @ key^T * scale) @ value, of shape [..., queries, value size] (Vaswani et al., 2017).

    query [..., queries, size], key [..., keys, size], value [..., keys, value size]: leading axes broadcast.
    mask      bool, broadcasts to [..., queries, keys]: where it is false, nothing is attended to. A query that may
              attend to nothing gets zeros, not NaN. A float mask is added to the scaled products instead.
    causal    query t attends to keys 0 ... t only.
    scale     1 / sqrt(size) unless given.
    dropout_rate  the part of the attention weights that is dropped, the rest scaled up.
    """
    query = as_node(query)
    key, value = as_node(key, query.dtype), as_node(value, query.dtype)
    what = "scaled_dot_product_attention"
    composite.require_floats(what, query=query, key=key, value=value)
    if min(t.type.rank for t in (query, key, value)) < 2:
        raise report(ShapeError, f"{what}: the operands have at least 2 axes, places and size",
                     [(n, t.describe()) for n, t in (("query", query), ("key", key), ("value", value))])
    if scale is None:
        size = query.type.shape[-1]
        scale = 1 / math.sqrt(size) if isinstance(size, int) and size else elementwise.rsqrt(
            composite.count(query, (query.type.rank - 1,), query.dtype))
    products = matmul(query, key, transpose_b=True) * scale
    if mask is not None:
        mask = as_node(mask, None, what)
        if mask.dtype.is_floating:
            products, mask = products + mask, None
        elif not mask.dtype.is_bool:
            raise report(DTypeError, f"{what}: the mask must be bool or float", [("mask", mask.describe())])
    masks = [] if mask is None else [mask]
    if causal:      # first, and of the shape of the products: so it is found out again where it is needed, and never stored
        shape = tuple(products.type.shape)
        places = [iota(shape=shape, axis=axis, dtype=int32) for axis in (len(shape) - 2, len(shape) - 1)]
        masks.insert(0, compare.greater_equal(*places))
    logits = _where_all(masks, products, -math.inf)
    weights = _weights(logits, axes=(logits.type.rank - 1,), masks=masks)
    if dropout_rate:
        weights = dropout(weights, rate=dropout_rate, seed=seed)
    return matmul(weights, value, name=name)


def multi_head_attention(query, key=None, value=None, num_heads=8, head_size=None, output_size=None, mask=None,
                         causal=False, dropout_rate=0.0, use_bias=True, kernel_initializer=None, seed=None,
                         name=None, reuse=None) -> Node:
    """Attention of several heads between learned projections: [N, queries, output size] (Vaswani et al., 2017).

    query [N, queries, size]; key [N, keys, size], the query itself by default; value, the key by default.
    head_size    the query's size by the number of heads unless given. output_size: the query's size unless given.
    mask         bool [N, keys] (which keys count), [N, queries, keys] or [N, heads, queries, keys]; see
                 `scaled_dot_product_attention` for it, `causal` and `dropout_rate`.
    The weights are variables of the scope `name` (by default a new one): query, key, value and output, each with
    kernel and bias.
    """
    query = as_node(query)
    key = query if key is None else as_node(key)
    value = key if value is None else as_node(value)
    size = query.type.shape[-1]
    if query.type.rank != 3 or key.type.rank != 3 or value.type.rank != 3:
        raise report(ShapeError, "multi_head_attention: the operands have 3 axes: example, place, size",
                     [("query", query.describe()), ("key", key.describe()), ("value", value.describe())])
    if head_size is None:
        if not isinstance(size, int) or num_heads < 1 or size % num_heads:
            raise report(ArgumentError, "multi_head_attention: the size does not divide into heads",
                         [("query", query.describe())], f"{size} into {num_heads} heads", "give head_size")
        head_size = size // num_heads
    with variable_scope(name, default_name="multi_head_attention", reuse=reuse):
        def heads(x, role):
            flat = _projection(x, num_heads * head_size, role, use_bias, kernel_initializer)
            parted = reshape_to(flat, shape=(*flat.type.shape[:2], num_heads, head_size))
            return transpose_to(parted, perm=(0, 2, 1, 3))
        found = scaled_dot_product_attention(heads(query, "query"), heads(key, "key"), heads(value, "value"),
                                             _mask_of_heads(mask), causal, None, dropout_rate, seed)
        joined = transpose_to(found, perm=(0, 2, 1, 3))
        joined = reshape_to(joined, shape=(*joined.type.shape[:2], num_heads * head_size))
        return _projection(joined, output_size or size, "output", use_bias, kernel_initializer)


def _projection(x: Node, size: int, role: str, use_bias: bool, initializer) -> Node:
    """x @ kernel + bias over the last axis, with variables of the scope `role`."""
    with variable_scope(role):
        kernel = get_variable("kernel", [x.type.shape[-1], size], dtype=x.dtype, initializer=initializer)
        found = tensordot(x, kernel, 1)
        if not use_bias:
            return found
        return elementwise.add(found, get_variable("bias", [size], dtype=x.dtype, initializer=zeros_initializer()))


def _mask_of_heads(mask):
    """A mask of 2, 3 or 4 axes so that it broadcasts to [N, heads, queries, keys]."""
    if mask is None:
        return None
    mask = as_node(mask)
    shape = tuple(mask.type.shape)
    if len(shape) == 2:
        return reshape_to(mask, shape=(shape[0], 1, 1, shape[1]))
    if len(shape) == 3:
        return reshape_to(mask, shape=(shape[0], 1, *shape[1:]))
    if len(shape) == 4:
        return mask
    raise report(ShapeError, "multi_head_attention: the mask has 2, 3 or 4 axes", [("mask", mask.describe())])
