"""Public linear algebra on the last two axes; leading axes are a batch. LAPACK does the work, between the native segments.

A singular matrix, or one that is not positive definite where that is asked, is a RunError. Symmetric matrices are
symmetrised first, (x + x^T) / 2: so gradients are symmetric, as in TensorFlow.
"""
from __future__ import annotations

import math

from graphc.errors import ArgumentError, ShapeError, report
from graphc.functions.linalg import matmul
from graphc.functions.reduce import one_spelling
from graphc.ir.node import Node, as_node, result
from graphc.ir.types import as_dtype, int32, int64
from graphc.ops import compare, composite, elementwise, factorize, linalg
from graphc.ops.assemble import concat_values
from graphc.ops.movement import broadcast_to, reshape_to, strided_slice, transpose_to
from graphc.ops.reduce import reduce_max, reduce_sum
from graphc.ops.transcendental import log


def _symmetric(x, what: str) -> Node:
    x = as_node(x)
    if x.type.rank < 2 or x.type.shape[-1] != x.type.shape[-2]:
        raise report(ShapeError, f"{what}: it takes square matrices", [("x", x.describe())])
    return (x + linalg.transposed(x)) * 0.5


# solving ----------------------------------------------------------------------------------------------


def matrix_solve(matrix, rhs, adjoint=False, name=None) -> Node:
    """The x with matrix @ x = rhs; `adjoint`: with the transposed matrix."""
    return linalg.matrix_solve(matrix, rhs, adjoint=bool(adjoint), name=name)


def matrix_triangular_solve(matrix, rhs, lower=True, adjoint=False, name=None) -> Node:
    """The x with matrix @ x = rhs, of which only the lower (or upper) triangle is read."""
    return linalg.matrix_triangular_solve(matrix, rhs, lower=bool(lower), adjoint=bool(adjoint), name=name)


def lu(input, output_idx_type=int32, name=None) -> tuple[Node, Node]:
    """(the factors L, without its diagonal of ones, and U in one matrix; the order of the rows): L @ U = input[order]."""
    found = factorize.lu_factors(input, name=name)
    order = result(found, 1)
    return result(found, 0), order if as_dtype(output_idx_type) is int32 else compare.cast(order, dtype=int64)


def lu_solve(lower_upper, perm, rhs, name=None) -> Node:
    """The x with A @ x = rhs, where (lower_upper, perm) = lu(A)."""
    factors = as_node(lower_upper)
    moved = linalg.product(factorize.permutation_matrix(as_node(perm), factors.dtype), as_node(rhs, factors.dtype))
    lower = compare.where(linalg.on_diagonal(factors), 1, linalg.triangle(factors))
    inner = linalg.matrix_triangular_solve(lower, moved, lower=True, adjoint=False)
    return linalg.matrix_triangular_solve(factors, inner, lower=False, adjoint=False, name=name)


def matrix_square_root(input, name=None) -> Node:
    """The Y with Y @ Y = input whose eigenvalues are not negative; where there is no real one, a RunError."""
    return factorize.matrix_square_root(input, name=name)


def tridiagonal_solve(diagonals, rhs, diagonals_format="compact", transpose_rhs=False, name=None) -> Node:
    """The x with A @ x = rhs for a matrix with three diagonals, [..., 3, n]: above, on and below its own. rhs is [..., n] or
    [..., n, columns]. Of the first row the last element does not count, of the last row the first.
    """
    if diagonals_format != "compact" or transpose_rhs:
        raise report(ArgumentError, "tridiagonal_solve: only diagonals_format=\"compact\" without transpose_rhs is supported")
    diagonals = as_node(diagonals)
    rhs = as_node(rhs, diagonals.dtype)
    if rhs.type.rank != diagonals.type.rank - 1:
        return factorize.tridiagonal_solve(diagonals, rhs, name=name)
    found = factorize.tridiagonal_solve(diagonals, linalg.column(rhs))
    return reshape_to(found, shape=tuple(rhs.type.shape), name=name)


def cholesky(input, name=None) -> Node:
    """The lower triangular L with L @ L^T = input, which must be positive definite."""
    return linalg.cholesky(_symmetric(input, "cholesky"), name=name)


def cholesky_solve(chol, rhs, name=None) -> Node:
    """The x with A @ x = rhs, where chol = cholesky(A)."""
    inner = linalg.matrix_triangular_solve(chol, rhs, lower=True, adjoint=False)
    return linalg.matrix_triangular_solve(chol, inner, lower=True, adjoint=True, name=name)


def matrix_solve_ls(matrix, rhs, l2_regularizer=0.0, fast=True, name=None) -> Node:
    """The x that makes |matrix @ x - rhs|**2 + l2_regularizer * |x|**2 smallest; of several, the shortest.

    The matrix has full rank, or the regularizer is positive. `fast`: by Cholesky's decomposition of the normal equations,
    which squares the condition number; else by QR.
    """
    matrix = as_node(matrix)
    rhs = as_node(rhs, matrix.dtype)
    if matrix.type.rank < 2:
        raise report(ShapeError, "matrix_solve_ls: it takes matrices", [("matrix", matrix.describe())])
    m, n = matrix.type.shape[-2:]
    if not (isinstance(m, int) and isinstance(n, int)):
        raise report(ShapeError, "matrix_solve_ls: the sizes of the matrix must be numbers", [("matrix", matrix.describe())])
    if not fast:
        return _by_qr(matrix, rhs, float(l2_regularizer), name)
    tall = m >= n
    gram = matmul(matrix, matrix, transpose_a=tall, transpose_b=not tall)
    if l2_regularizer:
        gram = gram + compare.where(linalg.on_diagonal(gram), as_node(l2_regularizer, gram.dtype), 0)
    factor = linalg.cholesky(gram)
    if tall:
        return cholesky_solve(factor, matmul(matrix, rhs, transpose_a=True), name)
    return matmul(matrix, cholesky_solve(factor, rhs), transpose_a=True, name=name)


def _by_qr(matrix: Node, rhs: Node, regularizer: float, name) -> Node:
    """Least squares by QR of the matrix, under which stands the root of the regularizer times the identity."""
    m, n = matrix.type.shape[-2:]
    axis = matrix.type.rank - 2
    if regularizer:
        below = broadcast_to(as_node(math.sqrt(regularizer), matrix.dtype), shape=(*matrix.type.shape[:-2], n, n))
        zeros = broadcast_to(as_node(0.0, rhs.dtype), shape=(*rhs.type.shape[:-2], n, rhs.type.shape[-1]))
        below = compare.where(linalg.on_diagonal(below), below, 0)
        matrix, rhs = concat_values(matrix, below, axis=axis), concat_values(rhs, zeros, axis=axis)
    elif m < n:
        q, r = qr(linalg.transposed(matrix))
        return matmul(q, linalg.matrix_triangular_solve(r, rhs, lower=False, adjoint=True), name=name)
    q, r = qr(matrix)
    return linalg.matrix_triangular_solve(r, matmul(q, rhs, transpose_a=True), lower=False, adjoint=False, name=name)


def matrix_inverse(input, adjoint=False, name=None) -> Node:
    """The inverse; `adjoint`: of the transposed matrix."""
    return linalg.matrix_inverse(input, adjoint=bool(adjoint), name=name)


# determinants -----------------------------------------------------------------------------------------


def matrix_determinant(input, name=None) -> Node:
    """The determinant."""
    return linalg.matrix_determinant(input, name=name)


def slogdet(input, name=None) -> tuple[Node, Node]:
    """(sign of the determinant, logarithm of its absolute value)."""
    node = linalg.log_matrix_determinant(input, name=name)
    return result(node, 0), result(node, 1)


def logdet(matrix, name=None) -> Node:
    """The logarithm of the determinant of a symmetric positive definite matrix."""
    factor = cholesky(matrix)
    logs = log(compare.where(linalg.on_diagonal(factor), factor, 1))
    return elementwise.multiply(reduce_sum(logs, axes=(factor.type.rank - 2, factor.type.rank - 1)), 2, name=name)


# decompositions ---------------------------------------------------------------------------------------


def qr(input, full_matrices=False, name=None) -> tuple[Node, Node]:
    """(Q, R) with Q @ R = input, Q of orthonormal columns and R upper triangular."""
    node = linalg.qr(input, full_matrices=bool(full_matrices), name=name)
    return result(node, 0), result(node, 1)


def svd(tensor, full_matrices=False, compute_uv=True, name=None):
    """(s, U, V) with tensor = U @ diag(s) @ V^T, the singular values s from the largest on; without `compute_uv` only s."""
    if not compute_uv:
        return linalg.singular_values(tensor, name=name)
    node = linalg.svd(tensor, full_matrices=bool(full_matrices), name=name)
    return result(node, 0), result(node, 1), result(node, 2)


def self_adjoint_eig(tensor, name=None) -> tuple[Node, Node]:
    """(eigenvalues from the smallest on, eigenvectors as columns) of a symmetric matrix."""
    node = linalg.self_adjoint_eig(_symmetric(tensor, "self_adjoint_eig"), name=name)
    return result(node, 0), result(node, 1)


def self_adjoint_eigvals(tensor, name=None) -> Node:
    """The eigenvalues of a symmetric matrix, from the smallest on."""
    return linalg.self_adjoint_eigvals(_symmetric(tensor, "self_adjoint_eigvals"), name=name)


def expm(input, name=None) -> Node:
    """The matrix exponential."""
    return linalg.matrix_exponential(input, name=name)


# norms and products -----------------------------------------------------------------------------------


def norm(tensor, ord="euclidean", axis=None, keepdims=None, name=None, keep_dims=None) -> Node:
    """The norm of vectors (`axis` is an int or None: all elements) or of matrices (`axis` is two ints).

    ord  "euclidean" (of a matrix: Frobenius'; also "fro"), 1, 2, inf, or for vectors any p > 0. Of a matrix, 1 is the
         largest column sum, inf the largest row sum, 2 the largest singular value.
    The gradient at 0 is 0.
    """
    x = as_node(tensor)
    composite.require_floats("norm", tensor=x)
    keeps = bool(one_spelling("norm", None, keepdims=keepdims, keep_dims=keep_dims))
    axes = composite.axes_of(x, axis, "norm")
    is_matrix = isinstance(axis, list | tuple) and len(axis) == 2
    known = ord in ("euclidean", "fro", 1, 2, math.inf) or not isinstance(ord, str) and ord > 0 and not is_matrix
    if not known or isinstance(axis, list | tuple) and len(axis) > 2:
        raise report(ArgumentError, f"norm: ord = {ord!r} over axis {axis}", [("tensor", x.describe())],
                     '"euclidean", "fro", 1, 2, inf, or p > 0 for vectors')
    if is_matrix and ord not in ("euclidean", "fro"):
        found = _matrix_norm(x, axes, ord)
    else:
        found = composite.norm(x, axes, ord)
    if keeps:
        return composite.keep(found, x.type.shape, tuple(axes))
    return elementwise.identity(found, name=name) if name else found


def _matrix_norm(x: Node, axes, order) -> Node:
    rows, columns = axes
    if order == 2:
        rest = tuple(a for a in range(x.type.rank) if a not in axes)
        values = linalg.singular_values(transpose_to(x, perm=(*rest, rows, columns)))
        return reduce_max(values, axes=(values.type.rank - 1,))
    first, second = (rows, columns) if order == 1 else (columns, rows)
    sums = reduce_sum(elementwise.absolute(x), axes=(first,))
    return reduce_max(sums, axes=(second - (second > first),))


def cross(a, b, name=None) -> Node:
    """The cross product of vectors of size 3, the last axis. Raises ShapeError for another size."""
    a = as_node(a)
    b = as_node(b, a.dtype)
    composite.require_same_shape("cross", a=a, b=b)
    if not a.type.rank or a.type.shape[-1] != 3:
        raise report(ShapeError, "cross: the last axis has size 3", [("a", a.describe()), ("b", b.describe())])

    def turned(x: Node, by: int) -> Node:
        rank = x.type.rank
        parts = [strided_slice(x, begin=(*[0] * (rank - 1), begin), steps=(1,) * rank, sizes=(*x.type.shape[:-1], count))
                 for begin, count in ((by, 3 - by), (0, by))]
        return concat_values(*parts, axis=rank - 1)
    return elementwise.subtract(turned(a, 1) * turned(b, 2), turned(a, 2) * turned(b, 1), name=name)
