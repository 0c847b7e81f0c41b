"""Public linear algebra against NumPy and SciPy, interpreted and compiled; gradients of what is composed; errors."""
import numpy as np
import pytest
import scipy.linalg
from test_normalization import evaluate

import graphc as tf
from graphc.errors import ArgumentError, RunError, ShapeError
from graphc.testing import check_gradients

RNG = np.random.default_rng(5)
A = RNG.normal(size=(2, 4, 4))
S = A @ np.swapaxes(A, -1, -2) + np.eye(4)
B = RNG.normal(size=(2, 4, 3))


def swap(x):
    return np.swapaxes(x, -1, -2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values(dtype):
    a, s, b = A.astype(dtype), S.astype(dtype), B.astype(dtype)
    got = evaluate(lambda a, s, b: [
        tf.matrix_solve(a, b), tf.matrix_solve(a, b, adjoint=True), tf.cholesky(s), tf.cholesky_solve(tf.cholesky(s), b),
        tf.matrix_inverse(a), tf.matrix_determinant(a), *tf.linalg.slogdet(a), tf.linalg.logdet(s),
        tf.matrix_triangular_solve(a, b), tf.matrix_triangular_solve(a, b, lower=False, adjoint=True), tf.linalg.expm(a),
        tf.self_adjoint_eigvals(s), tf.svd(b, compute_uv=False)], a, s, b)
    lower, upper = np.tril(A), np.triu(A)
    sign, log = np.linalg.slogdet(A)
    expected = [np.linalg.solve(A, B), np.linalg.solve(swap(A), B), np.linalg.cholesky(S), np.linalg.solve(S, B),
                np.linalg.inv(A), np.linalg.det(A), sign, log, np.linalg.slogdet(S)[1], np.linalg.solve(lower, B),
                np.linalg.solve(swap(upper), B), np.stack([scipy.linalg.expm(m) for m in A]), np.linalg.eigvalsh(S),
                np.linalg.svd(B, compute_uv=False)]
    for g, e in zip(got, expected, strict=True):
        assert g.dtype == dtype
        rtol, atol = (2e-3, np.abs(e).max() * 1e-4) if dtype == "float32" else (1e-9, 0)
        np.testing.assert_allclose(g, e, rtol=rtol, atol=atol)


def test_decompositions_give_their_matrix_back():
    q, r, w, v, s, u, t = evaluate(lambda b, m: [*tf.qr(b), *tf.self_adjoint_eig(m), *tf.svd(b)], B, S)
    np.testing.assert_allclose(q @ r, B, atol=1e-12)
    np.testing.assert_allclose(v * w[..., None, :] @ swap(v), S, atol=1e-12)
    np.testing.assert_allclose(u * s[..., None, :] @ swap(t), B, atol=1e-12)


def test_a_symmetric_matrix_has_a_symmetric_gradient():
    slope, = evaluate(lambda s: [tf.gradients(tf.cholesky(s) * np.tri(4), s)[0]], S)
    np.testing.assert_allclose(slope, swap(slope), rtol=1e-12)


@pytest.mark.parametrize(("shape", "regularizer", "fast"), [
    ((5, 3), 0.0, True), ((5, 3), 0.5, True), ((3, 5), 0.5, True), ((3, 5), 0.0, True), ((5, 3), 0.0, False),
    ((5, 3), 0.5, False), ((3, 5), 0.5, False), ((3, 5), 0.0, False)])
def test_least_squares(shape, regularizer, fast):
    a, b = RNG.normal(size=shape), RNG.normal(size=(shape[0], 2))
    got, = evaluate(lambda a, b: [tf.matrix_solve_ls(a, b, regularizer, fast)], a, b)
    whole = np.concatenate([a, np.sqrt(regularizer) * np.eye(shape[1])])
    np.testing.assert_allclose(got, np.linalg.lstsq(whole, np.concatenate([b, np.zeros((shape[1], 2))]))[0], rtol=1e-9)


@pytest.mark.parametrize("function", [
    lambda s: tf.linalg.logdet(s + 9 * np.eye(4)), lambda a: tf.cholesky_solve(tf.cholesky(a + 20 * np.eye(4)), a),
    lambda a: tf.matrix_solve_ls(a, a[..., :2], 0.1), lambda a: tf.matrix_solve_ls(a[..., :2], a[..., 2:], fast=False),
    lambda a: tf.norm(a, 2, axis=[0, 2]), lambda a: tf.norm(a, 1, axis=[1, 2]), lambda a: tf.norm(a, 3, axis=1),
    lambda a: tf.cross(a[..., :3], a[..., 1:]), lambda a: tf.linalg.expm(a * 0.5)])
def test_gradients(function):
    check_gradients(function, A, order=1)


def test_norms_and_cross_product():
    x, y = RNG.normal(size=(3, 4)), RNG.normal(size=(2, 3))
    orders = [("euclidean", None, "fro"), ("fro", [0, 1], "fro"), (1, [0, 1], 1), (np.inf, [0, 1], np.inf), (2, [0, 1], 2),
              (1, [1, 0], 1)]
    got = evaluate(lambda x, y: [*(tf.norm(x, o, a) for o, a, _ in orders), tf.norm(x, 2, 1, keepdims=True),
                                 tf.cross(y, y[::-1])], x, y)
    expected = [np.linalg.norm(x if a != [1, 0] else x.T, o) for _, a, o in orders]
    expected += [np.linalg.norm(x, axis=1, keepdims=True), np.cross(y, y[::-1])]
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-12)


@pytest.mark.parametrize(("call", "message"), [
    (tf.matrix_inverse, r"(?s)matrix_inverse: the matrix is singular.*test_linalg.py"),
    (lambda x: tf.matrix_solve(x, x), r"matrix_solve: the matrix is singular"),
    (lambda x: tf.cholesky(-1 - x), r"cholesky: the matrix is not positive definite"),
    (lambda x: tf.matrix_triangular_solve(x - 1, x), r"matrix_triangular_solve: the matrix is singular"),
    (lambda x: tf.svd(x / 0)[0], r"svd: the matrix has NaN or infinite values"),
    (lambda x: tf.gradients(tf.matrix_determinant(x), x)[0], r"matrix_inverse: the matrix is singular"),
])
def test_a_matrix_that_cannot_be_is_an_error_of_the_run(call, message):
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float64, [2, 2], name="x")
        y = call(x)
        with pytest.raises(RunError, match=message):
            session.run(y, {x: np.ones((2, 2))})


def test_bad_arguments_are_named():
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, [2, 3], name="x")
        for call, error, message in [
                (lambda: tf.cholesky(x), ShapeError, r"(?s)cholesky: it takes square matrices.*x: f32\[2,3\]"),
                (lambda: tf.matrix_inverse(x), ShapeError, r"(?s)matrix_inverse: the matrix is not square.*2 != 3"),
                (lambda: tf.norm(x, "nuclear"), ArgumentError, r"norm: ord = 'nuclear'"),
                (lambda: tf.cross(x[:, :2], x[:, :2]), ShapeError, r"cross: the last axis has size 3")]:
            with pytest.raises(error, match=message):
                call()


def test_one_function_under_several_names():
    pairs = [
        (tf.linalg, "diag", tf.matrix_diag), (tf.linalg, "diag_part", tf.matrix_diag_part), (tf.linalg, "tensor_diag", tf.diag),
        (tf.linalg, "set_diag", tf.matrix_set_diag), (tf.linalg, "band_part", tf.matrix_band_part),
        (tf.linalg, "l2_normalize", tf.nn.l2_normalize), (tf.math, "top_k", tf.nn.top_k), (tf.math, "cumsum", tf.cumsum),
        (tf.math, "in_top_k", tf.nn.in_top_k), (tf.math, "softplus", tf.nn.softplus), (tf.math, "segment_sum", tf.segment_sum)]
    assert [name for module, name, function in pairs if getattr(module, name) is not function] == []
