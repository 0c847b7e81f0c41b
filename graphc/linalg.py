"""`graphc.linalg`: linear algebra by the names of `tf.linalg`."""
# ruff: noqa: F401, I001  (this file only hands names on)
from graphc.functions.arrays import eye, matrix_transpose
from graphc.functions.diagonals import diag as tensor_diag
from graphc.functions.diagonals import diag_part as tensor_diag_part
from graphc.functions.diagonals import matrix_band_part as band_part
from graphc.functions.diagonals import matrix_diag as diag
from graphc.functions.diagonals import matrix_diag_part as diag_part
from graphc.functions.diagonals import matrix_set_diag as set_diag
from graphc.functions.linalg import einsum, matmul, matvec, tensordot, trace
from graphc.functions.math import global_norm
from graphc.functions.matrices import (
    cholesky, cholesky_solve, cross, expm, logdet, lu, lu_solve, norm, qr, slogdet, svd, tridiagonal_solve,
)
from graphc.functions.matrices import matrix_determinant as det
from graphc.functions.matrices import matrix_inverse as inv
from graphc.functions.matrices import matrix_solve as solve
from graphc.functions.matrices import matrix_square_root as sqrtm
from graphc.functions.matrices import matrix_solve_ls as lstsq
from graphc.functions.matrices import matrix_triangular_solve as triangular_solve
from graphc.functions.matrices import self_adjoint_eig as eigh
from graphc.functions.matrices import self_adjoint_eigvals as eigvalsh
from graphc.nn import l2_normalize

log_matrix_determinant, transpose = slogdet, matrix_transpose
