"""Derivatives beyond `gradients`: Jacobians, Hessians, and their products with vectors."""
from __future__ import annotations

from graphc.errors import ArgumentError, ShapeError, report
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.node import Node, as_node, is_tensor
from graphc.ir.types import DType
from graphc.ops.compare import cast, equal
from graphc.ops.composite import zeros_like
from graphc.ops.elementwise import identity
from graphc.ops.grad import gradients, row_gradients
from graphc.ops.index import iota
from graphc.ops.movement import broadcast_to, reshape_to, transpose_to


def jacobian_vector_product(ys, xs, tangents, name: str = "jvp"):
    """How `ys` change when `xs` move along `tangents` (forward mode): for each y the sum over xs of dy/dx @ tangent; None
    where no differentiable way leads from any x.

    ys, xs, tangents  tensors, or lists of them; each tangent has its x's shape. The result has the form of `ys`.

    The gradient by xs is linear in the gradient that flows into ys, whatever that is; the gradient of that linear function is
    what we want (J. Townsend, A new trick for calculating Jacobian vector products, 2017). Only the second is computed.
    """
    is_list = isinstance(ys, (list, tuple))
    outputs = [as_node(y) for y in (ys if is_list else [ys])]
    sources = list(xs) if isinstance(xs, (list, tuple)) else [xs]
    given = list(tangents) if isinstance(tangents, (list, tuple)) and isinstance(xs, (list, tuple)) else [tangents]
    if len(given) != len(sources):
        raise report(ArgumentError, f"{name}: {len(given)} tangents for {len(sources)} xs")
    flowing = [identity(zeros_like(y)) for y in outputs]
    slopes = gradients(outputs, sources, flowing)
    pairs = [(s, as_node(t, s.dtype)) for s, t in zip(slopes, given, strict=True) if s is not None]
    if not pairs:
        return [None] * len(outputs) if is_list else None
    found = gradients([s for s, _ in pairs], flowing, [t for _, t in pairs], name=name)
    return found if is_list else found[0]


def hessian_vector_product(ys, xs, vectors, name: str = "hessian_vector_product") -> list:
    """The Hessian of the sum of `ys` by `xs`, times `vectors`: one tensor of x's shape for each x, at the cost of two
    gradients; no Hessian is made. None for an x that the gradients do not depend on.
    """
    sources = list(xs) if isinstance(xs, (list, tuple)) else [xs]
    given = list(vectors) if isinstance(vectors, (list, tuple)) else [vectors]
    if len(given) != len(sources):
        raise report(ArgumentError, f"{name}: {len(given)} vectors for {len(sources)} xs")
    slopes = gradients(ys, sources)
    pairs = [(s, as_node(v, s.dtype)) for s, v in zip(slopes, given, strict=True) if s is not None]
    if not pairs:
        return [None] * len(sources)
    return gradients([s for s, _ in pairs], sources, [v for _, v in pairs], name=name)


def _identity(size: Size, dtype: DType) -> Node:
    """The square matrix with ones on its diagonal."""
    return cast(equal(iota(shape=(size, size), axis=0), iota(shape=(size, size), axis=1)), dtype=dtype)


def jacobian(output, inputs, use_pfor: bool = True, parallel_iterations=None, name: str = "jacobian"):
    """The derivative of every element of `output` by every element of each of `inputs`: a tensor of the shape
    (*output's shape, *input's shape), or None; a list if `inputs` is one.

    use_pfor  all elements' gradients at once, as one computation with one more axis; False: one after the other, in less
    memory. What they share is computed once in either way. Raises ArgumentError for what is no tensor.
    """
    y = as_node(output)
    sources = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    for x in sources:
        if not is_tensor(x):
            raise report(ArgumentError, f"{name}: {x!r:.60} is not a tensor or variable")
    shape = tuple(y.type.shape)
    rows = dims.product(shape)
    slopes = row_gradients(y, sources, reshape_to(_identity(rows, y.dtype), shape=(rows, *shape)), use_pfor, name)
    found = [None if slope is None else reshape_to(slope, shape=(*shape, *x.shape), name=name)
             for x, slope in zip(sources, slopes, strict=True)]
    return found if isinstance(inputs, (list, tuple)) else found[0]


def batch_jacobian(output, inp, use_pfor: bool = True, parallel_iterations=None, name: str = "batch_jacobian"):
    """The derivative of each row of `output` (its first axis) by the same row of `inp`: a tensor of the shape
    (rows, *shape of an output row, *shape of an input row), or None. Rows must not depend on each other.

    use_pfor as in `jacobian`. Raises ShapeError for a scalar.
    """
    y, x = as_node(output), as_node(inp)
    for what, tensor in (("output", y), ("inp", x)):
        if not tensor.type.rank:
            raise report(ShapeError, f"{name}: {what} has no first axis", [(what, tensor.describe())])
    rows, *inner = y.type.shape
    size = dims.product(inner)
    seeds = reshape_to(_identity(size, y.dtype), shape=(size, 1, *inner))
    slope, = row_gradients(y, [x], broadcast_to(seeds, shape=(size, rows, *inner)), use_pfor, name)
    if slope is None:
        return None
    moved = transpose_to(slope, perm=(1, 0, *range(2, slope.type.rank)))
    return reshape_to(moved, shape=(x.type.shape[0], *inner, *x.type.shape[1:]), name=name)


def hessians(ys, xs, name: str = "hessians", colocate_gradients_with_ops: bool = False, gate_gradients: bool = False,
             aggregation_method=None) -> list:
    """The second derivatives of the sum of `ys` by each of `xs`: a tensor of the shape (*x's shape, *x's shape) for each, or
    None where `ys` do not depend on it.
    """
    sources = list(xs) if isinstance(xs, (list, tuple)) else [xs]
    found = []
    for x, slope in zip(sources, gradients(ys, sources), strict=True):
        if slope is None:
            found.append(None)
            continue
        second = jacobian(slope, x, name=name)
        found.append(zeros_like(_outer_sum(slope)) if second is None else second)
    return found


def _outer_sum(x: Node) -> Node:
    """A tensor of the shape (*x's shape, *x's shape)."""
    shape = tuple(x.type.shape)
    return reshape_to(x, shape=(*shape, *(1,) * len(shape))) + x


def hessian(y, x, name: str = "hessian"):
    """The second derivatives of the sum of `y` by `x`: a tensor of the shape (*x's shape, *x's shape), or None."""
    return hessians(y, [x], name)[0]

