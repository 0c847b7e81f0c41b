"""More of linear algebra as host ops: LU factors, square roots and tridiagonal systems. See graphc.ops.linalg."""
from __future__ import annotations

import numpy as np

from graphc.errors import DTypeError, RuleError, RunError
from graphc.ir.node import as_node
from graphc.ir.op import Batch, Host, Kind, Op
from graphc.ir.types import TensorType, int32, same_dim
from graphc.ops.assemble import concat_values
from graphc.ops.compare import cast, equal, where
from graphc.ops.define import as_samples, common_dtype, sample
from graphc.ops.index import iota
from graphc.ops.linalg import (
    NOT_SQUARE,
    _square,
    column,
    matrix_solve,
    matrix_triangular_solve,
    on_diagonal,
    product,
    row,
    transposed,
    triangle,
)
from graphc.ops.movement import broadcast_to, reshape_to, strided_slice
from graphc.ops.reduce import reduce_sum
from graphc.ops.running import shifted
from graphc.ops.samples import definite, real


def _host(name: str, inputs: str, *, doc: str, infer, numpy, grad, samples, errors=()) -> Op:
    return Op(name, Kind.HOST, tuple(inputs.split()), infer=infer, numpy=numpy, grad=grad, doc=doc, rule=Host(),
              samples=as_samples(samples), errors=tuple(errors), batch=Batch())


# LU factors -------------------------------------------------------------------------------------------


def _lu_type(x):
    batch, size = _square(x)
    return x, TensorType(int32, (*batch, size))


def _lu_numpy(x):
    """Gauss' elimination with the largest pivot of each column, all matrices of the batch at once."""
    lu = np.array(x).reshape(-1, *x.shape[-2:])
    count, size = lu.shape[0], x.shape[-1]
    order = np.tile(np.arange(size, dtype=np.int32), (count, 1))
    every = np.arange(count)
    for k in range(size):
        pivot = k + np.argmax(np.abs(lu[:, k:, k]), axis=1)
        if np.any(lu[every, pivot, k] == 0):
            raise RunError("the matrix is singular")
        for a in (lu, order):
            a[every, k], a[every, pivot] = a[every, pivot].copy(), a[every, k].copy()
        lu[:, k + 1:, k] /= lu[:, k, k, None]
        lu[:, k + 1:, k + 1:] -= lu[:, k + 1:, k, None] * lu[:, k, None, k + 1:]
    return lu.reshape(x.shape), order.reshape(x.shape[:-1])


def _lu_grad(dy, y, x):
    """P^T L^-T (tril(L^T dL, -1) + triu(dU U^T)) U^-T: S. Walter and L. Lehmann, "Algorithmic differentiation of linear
    algebra functions" (2010).
    """
    lu, order = y
    lower = where(on_diagonal(lu), 1, triangle(lu))
    upper = triangle(lu, upper=True)
    inner = triangle(product(lower, triangle(dy[0], strict=True), transpose_a=True), strict=True) + triangle(
        product(triangle(dy[0], upper=True), upper, transpose_b=True), upper=True)
    left = matrix_triangular_solve(lower, inner, lower=True, adjoint=True)
    both = transposed(matrix_triangular_solve(upper, transposed(left), lower=False, adjoint=False))
    return [product(permutation_matrix(order, lu.dtype), both, transpose_a=True)]


def permutation_matrix(order, dtype):
    """The matrix P with P @ x = x[order]."""
    n = order.type.shape[-1]
    places = iota(shape=(*order.type.shape, n), axis=order.type.rank, dtype=order.dtype)
    return cast(equal(column(order), places), dtype=dtype)


lu_factors = _host(
    "lu", "x",
    doc="(L below the diagonal, whose own diagonal is 1, and U from it on, in one matrix; the order of x's rows, as int32), so "
        "that L @ U = x[order]. A singular matrix is a run-time error.",
    infer=_lu_type, numpy=_lu_numpy, grad=_lu_grad,
    samples=[definite(3, 3), real(2, 3, 3), definite(0, 2, 2), real(1, 1)],
    errors=[*NOT_SQUARE, (sample(real(2, 2, low=1, high=1)), "the matrix is singular")],
)

# square roots -----------------------------------------------------------------------------------------


def _root_numpy(x):
    """By eigenvectors; a matrix with fewer than its size, or with negative eigenvalues, has none here."""
    if not np.isfinite(x).all():
        raise RunError("the matrix has NaN or infinite values")
    values, vectors = np.linalg.eig(x.astype(np.float64))
    roots = np.sqrt(values.astype(np.complex128))
    try:
        found = np.linalg.solve(np.swapaxes(vectors, -1, -2), np.swapaxes(vectors * roots[..., None, :], -1, -2))
    except np.linalg.LinAlgError:
        raise RunError("the matrix has too few eigenvectors") from None
    found = np.swapaxes(found, -1, -2)
    scale = np.max(np.abs(x), axis=(-1, -2), initial=0)
    if np.any(np.max(np.abs(found.imag), axis=(-1, -2), initial=0) > 1e-6 * np.sqrt(scale)):
        raise RunError("the matrix has no real square root")
    if np.any(np.max(np.abs(found.real @ found.real - x), axis=(-1, -2), initial=0) > 1e-6 * scale):
        raise RunError("the matrix has too few eigenvectors")
    return found.real.astype(x.dtype)


def _root_grad(dy, y, x):
    """The G with Y^T G + G Y^T = dy: a linear system of all its elements."""
    n, batch = y.type.shape[-1], tuple(y.type.shape[:-2])
    eye = where(on_diagonal(y), broadcast_to(as_node(1, y.dtype), shape=tuple(y.type.shape)), 0)

    def spread(a, b):
        """The Kronecker product."""
        a = reshape_to(a, shape=(*batch, n, 1, n, 1))
        b = reshape_to(b, shape=(*batch, 1, n, 1, n))
        return reshape_to(a * b, shape=(*batch, n * n, n * n))
    system = spread(transposed(y), eye) + spread(eye, y)
    return [reshape_to(matrix_solve(system, reshape_to(dy, shape=(*batch, n * n, 1))), shape=tuple(y.type.shape))]


matrix_square_root = _host(
    "matrix_square_root", "x",
    doc="The Y with Y @ Y = x whose eigenvalues are not negative. A matrix without a real one is a run-time error.",
    infer=lambda x: x.with_shape((*_square(x)[0], _square(x)[1], _square(x)[1])), numpy=_root_numpy, grad=_root_grad,
    samples=[definite(3, 3), definite(2, 2, 2), definite(0, 2, 2), definite(1, 1)],
    errors=[*NOT_SQUARE, (sample(real(1, 1, low=-2, high=-1)), "no real square root")],
)

# tridiagonal systems ----------------------------------------------------------------------------------


def _tridiagonal_type(diagonals, rhs):
    if common_dtype([diagonals, rhs], ["diagonals", "rhs"], "float").size < 4:
        raise RuleError(f"{rhs.dtype.name} is not accepted", "it computes in float32 or float64", DTypeError)
    if diagonals.rank < 2 or diagonals.rank != rhs.rank or diagonals.shape[-2] != 3:
        raise RuleError("diagonals must be [..., 3, n] and the right-hand side [..., n, columns]",
                        f"ranks {diagonals.rank} and {rhs.rank}")
    for a, b in zip((*diagonals.shape[:-2], diagonals.shape[-1]), rhs.shape[:-1], strict=True):
        same_dim(a, b, "the diagonals and the right-hand side do not fit")
    return rhs


def _tridiagonal_numpy(diagonals, rhs):
    """Gauss' elimination with the larger of two pivots; three diagonals are left above."""
    upper, middle, lower = (diagonals[..., k, :].astype(np.float64) for k in range(3))
    n = rhs.shape[-2]
    first, second, x = np.array(upper), np.zeros_like(upper), rhs.astype(np.float64)
    middle = np.array(middle)
    for k in range(n - 1):
        swap = np.abs(lower[..., k + 1]) > np.abs(middle[..., k])
        above = [middle[..., k].copy(), first[..., k].copy(), second[..., k].copy(), x[..., k, :].copy()]
        beyond = first[..., k + 1].copy() if k + 2 < n else 0 * upper[..., 0]
        below = [lower[..., k + 1].copy(), middle[..., k + 1].copy(), beyond, x[..., k + 1, :].copy()]
        wide = swap[..., None]
        top = [np.where(swap, b, a) for a, b in zip(above[:3], below[:3], strict=True)]
        rest = [np.where(swap, a, b) for a, b in zip(above[:3], below[:3], strict=True)]
        top_x, rest_x = np.where(wide, below[3], above[3]), np.where(wide, above[3], below[3])
        if np.any(top[0] == 0):
            raise RunError("the matrix is singular")
        factor = rest[0] / top[0]
        middle[..., k], first[..., k], second[..., k] = top
        x[..., k, :] = top_x
        middle[..., k + 1], first[..., k + 1] = rest[1] - factor * top[1], rest[2] - factor * top[2]
        x[..., k + 1, :] = rest_x - factor[..., None] * top_x
    if n and np.any(middle[..., n - 1] == 0):
        raise RunError("the matrix is singular")
    for k in range(n - 1, -1, -1):
        for step, band in ((1, first), (2, second)):
            if k + step < n:
                x[..., k, :] -= band[..., k, None] * x[..., k + step, :]
        x[..., k, :] /= middle[..., k, None]
    return x.astype(rhs.dtype)


def adjoint_diagonals(diagonals):
    """The diagonals of the transposed matrix."""
    upper, middle, lower = (_diagonal(diagonals, k) for k in range(3))
    axis = upper.type.rank - 1
    return _stacked(shifted(lower, axis, -1), middle, shifted(upper, axis, 1))


def _diagonal(diagonals, k):
    rank, shape = diagonals.type.rank, tuple(diagonals.type.shape)
    part = strided_slice(diagonals, begin=(*[0] * (rank - 2), k, 0), steps=(1,) * rank, sizes=(*shape[:-2], 1, shape[-1]))
    return reshape_to(part, shape=(*shape[:-2], shape[-1]))


def _stacked(*vectors):
    return concat_values(*(row(v) for v in vectors), axis=vectors[0].type.rank - 1)


def _tridiagonal_grad(dy, y, diagonals, rhs):
    """-g y^T on the three diagonals, where g solves the transposed system."""
    g = tridiagonal_solve(adjoint_diagonals(diagonals), dy)
    axis, last = y.type.rank - 2, (y.type.rank - 1,)
    parts = [reduce_sum(g * v, axes=last) for v in (shifted(y, axis, -1), y, shifted(y, axis, 1))]
    return [-_stacked(*parts), g]


tridiagonal_solve = _host(
    "tridiagonal_solve", "diagonals rhs",
    doc="The x with A @ x = rhs [..., n, columns], where A has the diagonals [..., 3, n]: above, on and below its own; the "
        "last element of the first and the first of the last do not count. A singular matrix is a run-time error.",
    infer=_tridiagonal_type, numpy=_tridiagonal_numpy, grad=_tridiagonal_grad,
    samples=[sample(real(3, 5, low=1, high=2), real(5, 2)), sample(real(2, 3, 4, low=-2, high=-1), real(2, 4, 1)),
             sample(real(3, 1, low=1, high=2), real(1, 2)), sample(real(0, 3, 2), real(0, 2, 1))],
    errors=[(sample(real(2, 5), real(5, 2)), "diagonals must be [..., 3, n]"), (sample(real(3, 5), real(4, 2)), "do not fit"),
            (sample(real(3, 2, low=0, high=0), real(2, 1)), "the matrix is singular")],
)
