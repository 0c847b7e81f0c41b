"""Linear algebra on the last two axes, leading axes a batch: host ops, which call LAPACK through NumPy between kernels.

Gradients are compositions, of any order. Their formulas: M. Giles, "Collected matrix derivative results for forward and
reverse mode algorithmic differentiation" (2008), where no other source is named.
"""
from __future__ import annotations

import math

import numpy as np

from graphc.errors import DTypeError, RuleError, RunError, ShapeError, report
from graphc.ir.node import RESULT, apply
from graphc.ir.op import Batch, Host, Kind, Op
from graphc.ir.types import TensorType, same_dim
from graphc.ops.assemble import concat_values
from graphc.ops.compare import equal, greater, greater_equal, where
from graphc.ops.contract import matmul_to
from graphc.ops.define import as_samples, common_dtype, sample
from graphc.ops.index import iota
from graphc.ops.movement import reshape_to, strided_slice, transpose_to
from graphc.ops.samples import definite, real

NOT_SQUARE = [(sample(real(3, 4)), "the matrix is not square"), (sample(real(3)), "at least 2 axes")]


def _host(name: str, inputs: str, *, doc: str, infer, numpy, grad, samples, attrs=None, errors=()) -> Op:
    def rule(*arrays, **given):
        try:
            return numpy(*arrays, **given)
        except np.linalg.LinAlgError as e:
            raise RunError(_problem(str(e))) from None
    return Op(name, Kind.HOST, tuple(inputs.split()), infer=infer, numpy=rule, grad=grad, doc=doc, attrs=attrs or {},
              rule=Host(), samples=as_samples(samples), errors=tuple(errors), batch=Batch())


def _finite(x) -> np.ndarray:
    """x itself; RunError where it is not finite: LAPACK's iterations may then never end."""
    if not np.isfinite(x).all():
        raise RunError("the matrix has NaN or infinite values")
    return x


def _problem(text: str) -> str:
    """LAPACK's complaint in our words."""
    if "ositive definite" in text:
        return "the matrix is not positive definite"
    return "the matrix is singular" if "ingular" in text else f"no result: {text[:1].lower()}{text[1:]}"


# shapes -----------------------------------------------------------------------------------------------


def _matrix(x: TensorType) -> tuple:
    """(batch shape, rows, columns)."""
    if common_dtype([x], ["x"], "float").size < 4:
        raise RuleError(f"{x.dtype.name} is not accepted", "LAPACK computes in float32 or float64", DTypeError)
    if x.rank < 2:
        raise RuleError("the operand must have at least 2 axes", f"its rank is {x.rank}")
    return tuple(x.shape[:-2]), x.shape[-2], x.shape[-1]


def _square(x: TensorType) -> tuple:
    """(batch shape, size)."""
    batch, rows, columns = _matrix(x)
    return batch, same_dim(rows, columns, "the matrix is not square")


def _square_type(x, **_):
    _square(x)
    return x


def _number_type(x):
    return x.with_shape(_square(x)[0])


def _solve_type(matrix, rhs, **_):
    common_dtype([matrix, rhs], ["matrix", "rhs"], "float")
    batch, size = _square(matrix)
    other, rows, _ = _matrix(rhs)
    if len(batch) != len(other):
        raise RuleError("the batches differ", f"{len(batch)} axes != {len(other)}")
    for a, b in zip(batch, other, strict=True):
        same_dim(a, b, "the batches differ")
    same_dim(size, rows, "the matrix and the right-hand side do not fit")
    return rhs


# parts of matrices, for gradients ---------------------------------------------------------------------


def transposed(x):
    """The last two axes exchanged."""
    rank = x.type.rank
    return transpose_to(x, perm=(*range(rank - 2), rank - 1, rank - 2))


def product(a, b, transpose_a=False, transpose_b=False):
    return matmul_to(a, b, transpose_a=transpose_a, transpose_b=transpose_b)


def triangle(x, strict=False, upper=False):
    """x with zeros above its diagonal (`upper`: below it); with `strict`, on it too."""
    shape = tuple(x.type.shape[-2:])
    down, along = iota(shape=shape, axis=0), iota(shape=shape, axis=1)
    low, high = (along, down) if upper else (down, along)
    return where(greater(low, high) if strict else greater_equal(low, high), x, 0)


def on_diagonal(x):
    """Where a matrix of x's last two sizes has its diagonal."""
    shape = tuple(x.type.shape[-2:])
    return equal(iota(shape=shape, axis=0), iota(shape=shape, axis=1))


def column(vector):
    """A vector [..., n] as [..., n, 1]."""
    return reshape_to(vector, shape=(*vector.type.shape, 1))


def row(vector):
    """A vector [..., n] as [..., 1, n]."""
    return reshape_to(vector, shape=(*vector.type.shape[:-1], 1, vector.type.shape[-1]))


def number(x):
    """Numbers [...] as matrices [..., 1, 1]."""
    return reshape_to(x, shape=(*x.type.shape, 1, 1))


def columns(x, begin: int, count: int):
    """`count` columns of a matrix."""
    rank = x.type.rank
    return strided_slice(x, begin=(*[0] * (rank - 1), begin), steps=(1,) * rank, sizes=(*x.type.shape[:-1], count))


def folded(x):
    """The gradient by a symmetric matrix as one by its lower triangle, which alone is read."""
    return triangle(where(on_diagonal(x), x * 0.5, x) + where(on_diagonal(x), transposed(x) * 0.5, transposed(x)))


def _results(node, count: int) -> list:
    return [apply(RESULT, (node,), {"index": k}) for k in range(count)]


# solving ----------------------------------------------------------------------------------------------


def _solve_numpy(matrix, rhs, *, adjoint):
    return np.linalg.solve(np.swapaxes(matrix, -1, -2) if adjoint else matrix, rhs)


def _solve_grad(dy, y, matrix, rhs, *, adjoint):
    inner = matrix_solve(matrix, dy, adjoint=not adjoint)
    return [-(product(y, inner, transpose_b=True) if adjoint else product(inner, y, transpose_b=True)), inner]


matrix_solve = _host(
    "matrix_solve", "matrix rhs", attrs={"adjoint": False},
    doc="The x with matrix @ x = rhs; `adjoint`: with the transposed matrix. A singular matrix is a run-time error.",
    infer=_solve_type, numpy=_solve_numpy, grad=_solve_grad,
    samples=[sample(definite(3, 3), real(3, 2)), sample(definite(2, 3, 3), real(2, 3, 1), adjoint=True),
             sample(definite(0, 2, 2), real(0, 2, 3))],
    errors=[(sample(real(3, 4), real(3, 2)), "the matrix is not square"), (sample(real(3, 3), real(2, 2)), "do not fit"),
            (sample(real(2, 3, 3), real(3, 2)), "the batches differ"),
            (sample(real(2, 2, low=1, high=1), real(2, 2)), "the matrix is singular")],
)


def _triangular_numpy(matrix, rhs, *, lower, adjoint):
    """By substitution, a row at a time."""
    diagonal = np.diagonal(matrix, axis1=-2, axis2=-1)
    if np.any(diagonal == 0):
        raise RunError("the matrix is singular: a zero on its diagonal")
    if adjoint:
        matrix, lower = np.swapaxes(matrix, -1, -2), not lower
    x, size = np.array(rhs), matrix.shape[-1]
    for k in range(size) if lower else range(size - 1, -1, -1):
        known = slice(0, k) if lower else slice(k + 1, size)
        done = (matrix[..., k:k + 1, known] @ x[..., known, :])[..., 0, :]
        x[..., k, :] = (x[..., k, :] - done) / diagonal[..., k:k + 1]
    return x


def _triangular_grad(dy, y, matrix, rhs, *, lower, adjoint):
    inner = matrix_triangular_solve(matrix, dy, lower=lower, adjoint=not adjoint)
    whole = product(y, inner, transpose_b=True) if adjoint else product(inner, y, transpose_b=True)
    return [-triangle(whole, upper=not lower), inner]


matrix_triangular_solve = _host(
    "matrix_triangular_solve", "matrix rhs", attrs={"lower": True, "adjoint": False},
    doc="The x with matrix @ x = rhs, of which only the lower (or upper) triangle is read; `adjoint`: with the transposed "
        "matrix. A zero on the diagonal is a run-time error.",
    infer=_solve_type, numpy=_triangular_numpy, grad=_triangular_grad,
    samples=[sample(definite(3, 3), real(3, 2)), sample(definite(3, 3), real(3, 2), lower=False),
             sample(definite(2, 3, 3), real(2, 3, 1), adjoint=True),
             sample(definite(2, 2), real(2, 3), lower=False, adjoint=True), sample(definite(0, 2, 2), real(0, 2, 3))],
    errors=[(sample(real(3, 3), real(2, 2)), "do not fit"), (sample(real(2, 2, low=0, high=0), real(2, 2)), "singular")],
)

matrix_inverse = _host(
    "matrix_inverse", "x", attrs={"adjoint": False},
    doc="The inverse; `adjoint`: of the transposed matrix. A singular matrix is a run-time error.",
    infer=_square_type,
    numpy=lambda x, *, adjoint: np.linalg.inv(np.swapaxes(x, -1, -2) if adjoint else x),
    grad=lambda dy, y, x, *, adjoint: [-(product(y, product(dy, y, transpose_a=True)) if adjoint else
                                         product(y, product(dy, y, transpose_b=True), transpose_a=True))],
    samples=[definite(3, 3), sample(definite(2, 3, 3), adjoint=True), definite(0, 2, 2)],
    errors=[*NOT_SQUARE, (sample(real(2, 2, low=1, high=1)), "the matrix is singular")],
)

# determinants -----------------------------------------------------------------------------------------

matrix_determinant = _host(
    "matrix_determinant", "x",
    doc="The determinant. The gradient needs the inverse: at a singular matrix it is a run-time error.",
    infer=_number_type, numpy=lambda x: np.asarray(np.linalg.det(x), x.dtype),
    grad=lambda dy, y, x: [number(dy * y) * matrix_inverse(x, adjoint=True)],
    samples=[definite(3, 3), definite(2, 3, 3), real(1, 1), definite(0, 2, 2)], errors=NOT_SQUARE,
)


def _slogdet_numpy(x):
    sign, log = np.linalg.slogdet(x)
    return np.asarray(sign, x.dtype), np.asarray(log, x.dtype)


log_matrix_determinant = _host(
    "log_matrix_determinant", "x",
    doc="(the sign of the determinant, the logarithm of its absolute value): of a singular matrix 0 and -inf.",
    infer=lambda x: (_number_type(x), _number_type(x)), numpy=_slogdet_numpy,
    grad=lambda dy, y, x: [number(dy[1]) * matrix_inverse(x, adjoint=True)],
    samples=[definite(3, 3), definite(2, 3, 3), definite(0, 2, 2)], errors=NOT_SQUARE,
)

# decompositions ---------------------------------------------------------------------------------------


def _cholesky_grad(dy, y, x):
    """I. Murray, "Differentiation of the Cholesky decomposition" (2016)."""
    inner = triangle(product(y, dy, transpose_a=True))
    inner = where(on_diagonal(inner), inner * 0.5, inner)
    left = matrix_triangular_solve(y, inner, lower=True, adjoint=True)
    both = matrix_triangular_solve(y, transposed(left), lower=True, adjoint=True)
    return [folded((both + transposed(both)) * 0.5)]


cholesky = _host(
    "cholesky", "x",
    doc="The lower triangular L with L @ L^T = x. Only the lower triangle of x is read. A matrix that is not positive "
        "definite is a run-time error.",
    infer=_square_type, numpy=np.linalg.cholesky, grad=_cholesky_grad,
    samples=[definite(3, 3), definite(2, 3, 3), definite(0, 2, 2)],
    errors=[*NOT_SQUARE, (sample(real(2, 2, low=-1, high=-0.5)), "the matrix is not positive definite")],
)


def _qr_type(x, *, full_matrices):
    batch, m, n = _matrix(x)
    if not (isinstance(m, int) and isinstance(n, int)):
        raise RuleError("the sizes of the matrix must be numbers", f"{m} rows, {n} columns")
    k = m if full_matrices else min(m, n)
    return x.with_shape((*batch, m, k)), x.with_shape((*batch, k, n))


def _qr_numpy(x, *, full_matrices):
    q, r = np.linalg.qr(x, "complete" if full_matrices else "reduced")
    return q, r


def _qr_grad(dy, y, x, *, full_matrices):
    """S. Walter and L. Lehmann, "Algorithmic differentiation of linear algebra functions with application in optimum
    experimental design" (2010); a wide matrix by the part of R beyond its square.
    """
    (dq, dr), (q, r) = dy, y
    m, n = x.type.shape[-2:]
    if full_matrices and m > n:
        raise report(ShapeError, "qr: no gradient with full_matrices for more rows than columns", [("x", x.describe())],
                     f"{m} rows, {n} columns")
    if m >= n:
        return [_qr_square(dq, dr, q, r)]
    dv = columns(dr, m, n - m)
    moved = dq + product(columns(x, m, n - m), dv, transpose_b=True)
    left = _qr_square(moved, columns(dr, 0, m), q, columns(r, 0, m))
    return [concat_values(left, product(q, dv), axis=x.type.rank - 1)]


def _qr_square(dq, dr, q, r):
    inner = product(r, dr, transpose_b=True) - product(dq, q, transpose_a=True)
    inner = triangle(inner) + transposed(triangle(inner, strict=True))
    whole = dq + product(q, inner)
    return transposed(matrix_triangular_solve(r, transposed(whole), lower=False, adjoint=False))


qr = _host(
    "qr", "x", attrs={"full_matrices": False},
    doc="(Q, R): Q has orthonormal columns, R is upper triangular, Q @ R = x. `full_matrices`: Q is square.",
    infer=_qr_type, numpy=_qr_numpy, grad=_qr_grad,
    samples=[sample(real(3, 3)), sample(real(2, 4, 3)), sample(real(3, 4)), sample(definite(3, 3), full_matrices=True),
             sample(real(0, 3, 2))],
    errors=[(sample(real(3)), "at least 2 axes")],
)


def _svd_type(x, *, full_matrices):
    batch, m, n = _matrix(x)
    if not (isinstance(m, int) and isinstance(n, int)):
        raise RuleError("the sizes of the matrix must be numbers", f"{m} rows, {n} columns")
    k = min(m, n)
    return (x.with_shape((*batch, k)), x.with_shape((*batch, m, m if full_matrices else k)),
            x.with_shape((*batch, n, n if full_matrices else k)))


def _svd_numpy(x, *, full_matrices):
    u, s, vh = np.linalg.svd(_finite(x), full_matrices=full_matrices)
    return s, u, np.swapaxes(vh, -1, -2)


def gaps(values):
    """1 / (values[j] - values[i]) off the diagonal, 0 on it."""
    distance = row(values) - column(values)
    same = on_diagonal(distance)
    return where(same, 0, 1 / where(same, 1, distance))


def _svd_grad(dy, y, x, *, full_matrices):
    """J. Townsend, "Differentiating the singular value decomposition" (2016)."""
    (ds, du, dv), (s, u, v) = dy, y
    m, n = x.type.shape[-2:]
    if full_matrices and m != n:
        raise report(ShapeError, "svd: no gradient with full_matrices of a matrix that is not square",
                     [("x", x.describe())], f"{m} rows, {n} columns")
    f = gaps(s * s)

    def turned(vectors, slopes):
        inner = product(vectors, slopes, transpose_a=True)
        return f * (inner - transposed(inner))
    middle = turned(u, du) * row(s) + column(s) * turned(v, dv)
    middle = middle + where(on_diagonal(middle), row(ds), 0)
    total = product(product(u, middle), v, transpose_b=True)
    if m > n:
        outside = (du - product(u, product(u, du, transpose_a=True))) / row(s)
        total = total + product(outside, v, transpose_b=True)
    if n > m:
        outside = (dv - product(v, product(v, dv, transpose_a=True))) / row(s)
        total = total + product(u, outside, transpose_b=True)
    return [total]


svd = _host(
    "svd", "x", attrs={"full_matrices": False},
    doc="(s, U, V) with x = U @ diag(s) @ V^T: singular values from the largest on, and their vectors as columns. The "
        "gradient by equal singular values is infinite or NaN, as their vectors are not unique.",
    infer=_svd_type, numpy=_svd_numpy, grad=_svd_grad,
    samples=[sample(real(3, 3)), sample(real(2, 4, 3)), sample(real(2, 3)), sample(real(3, 3), full_matrices=True),
             sample(real(0, 3, 2))],
    errors=[(sample(real(3)), "at least 2 axes")],
)


def _singular_grad(dy, y, x):
    _, u, v = _results(svd(x, full_matrices=False), 3)
    return [product(u * row(dy), v, transpose_b=True)]


singular_values = _host(
    "singular_values", "x",
    doc="The singular values, from the largest on.",
    infer=lambda x: _svd_type(x, full_matrices=False)[0],
    numpy=lambda x: np.linalg.svd(_finite(x), compute_uv=False), grad=_singular_grad,
    samples=[real(3, 3), real(2, 4, 3), real(2, 3), real(0, 3, 2)], errors=[(sample(real(3)), "at least 2 axes")],
)


def _eigh_grad(dy, y, x):
    (de, dv), (e, v) = dy, y
    middle = gaps(e) * product(v, dv, transpose_a=True)
    middle = middle + where(on_diagonal(middle), row(de), 0)
    whole = product(product(v, middle), v, transpose_b=True)
    return [folded((whole + transposed(whole)) * 0.5)]


self_adjoint_eig = _host(
    "self_adjoint_eig", "x",
    doc="(eigenvalues, eigenvectors as columns) of a symmetric matrix, from the smallest value on. Only the lower triangle "
        "is read. The gradient by equal eigenvalues is infinite or NaN, as their vectors are not unique.",
    infer=lambda x: (x.with_shape((*_square(x)[0], _square(x)[1])), x),
    numpy=lambda x: tuple(np.linalg.eigh(_finite(x))), grad=_eigh_grad,
    samples=[definite(3, 3), definite(2, 3, 3), definite(0, 2, 2)], errors=NOT_SQUARE,
)


def _eigvalsh_grad(dy, y, x):
    _, v = _results(self_adjoint_eig(x), 2)
    return [folded(product(v * row(dy), v, transpose_b=True))]


self_adjoint_eigvals = _host(
    "self_adjoint_eigvals", "x",
    doc="The eigenvalues of a symmetric matrix, from the smallest on. Only the lower triangle is read.",
    infer=lambda x: x.with_shape((*_square(x)[0], _square(x)[1])),
    numpy=lambda x: np.linalg.eigvalsh(_finite(x)), grad=_eigvalsh_grad,
    samples=[definite(3, 3), definite(2, 3, 3), definite(0, 2, 2)], errors=NOT_SQUARE,
)

# functions of matrices --------------------------------------------------------------------------------

# The diagonal Pade approximant of order 13 of exp, and how large a 1-norm it takes: N. Higham, "The scaling and squaring
# method for the matrix exponential revisited" (2005).
PADE = [math.comb(13, k) * math.factorial(26 - k) / math.factorial(26) for k in range(14)]
PADE_NORM = 5.371920351148152


def _expm_numpy(x):
    a = x.astype(np.float64)
    norm = np.max(np.sum(np.abs(a), axis=-2), axis=-1, initial=0.0)
    with np.errstate(all="ignore"):
        halvings = np.where(norm > PADE_NORM, np.ceil(np.log2(norm / PADE_NORM)), 0)
    if not np.all(np.isfinite(halvings)):
        raise RunError("the matrix is not finite")
    a = a * np.exp2(-halvings)[..., None, None]
    one, power, even, odd = np.eye(x.shape[-1]), np.eye(x.shape[-1]), 0.0, 0.0
    square = a @ a
    for k in range(0, 14, 2):
        even, odd = even + PADE[k] * power, odd + PADE[k + 1] * power
        power = power @ square if k else one @ square
    odd = a @ odd
    found = np.linalg.solve(even - odd, even + odd)
    for k in range(int(np.max(halvings, initial=0))):
        found = np.where((halvings > k)[..., None, None], found @ found, found)
    return found.astype(x.dtype)


def _expm_grad(dy, y, x):
    """The upper right part of exp([[x^T, dy], [0, x^T]]) (A. Al-Mohy and N. Higham, 2009)."""
    rank, size = x.type.rank, x.type.shape[-1]
    turned = transposed(x)
    upper = concat_values(turned, dy, axis=rank - 1)
    lower = concat_values(turned * 0, turned, axis=rank - 1)
    whole = matrix_exponential(concat_values(upper, lower, axis=rank - 2))
    return [strided_slice(whole, begin=(*[0] * (rank - 1), size), steps=(1,) * rank, sizes=tuple(x.type.shape))]


matrix_exponential = _host(
    "matrix_exponential", "x",
    doc="exp(x) as a matrix: the sum of x^k / k!, by scaling and squaring.",
    infer=_square_type, numpy=_expm_numpy, grad=_expm_grad,
    samples=[real(3, 3), real(2, 2, 2, low=-9, high=9), real(0, 2, 2)], errors=NOT_SQUARE,
)
