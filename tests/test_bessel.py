"""Bessel functions and integrals over their whole range, by the kernels and by the NumPy rules, against SciPy and mpmath.

Where a function swings around 0 its error is measured against its amplitude; elsewhere in units of the last place.
"""
import functools

import mpmath
import numpy as np
import pytest
from scipy import special as scipy_special
from traced_kernels import elementwise

import graphc.ops.bessel  # noqa: F401
from graphc.ir.op import OPS


def swing(x):
    """The amplitude of J and Y."""
    return np.sqrt(2 / (np.pi * np.maximum(np.abs(x), 1)))


def root_of_expint(x):
    return np.where(np.abs(x - 0.3725) < 0.2, 1.0, 0.0)


def log_of_normal(z):
    """log(erfc(-z) / 2), of large z without cancellation."""
    return mpmath.log(mpmath.erfc(-z) / 2) if z < 0 else mpmath.log1p(-mpmath.erfc(z) / 2)


# name: (SciPy's function, mpmath's, ulp, amplitude)
REFERENCES = {
    "bessel_i0": (scipy_special.i0, functools.partial(mpmath.besseli, 0), 5, None),
    "bessel_i1": (scipy_special.i1, functools.partial(mpmath.besseli, 1), 6, None),
    "bessel_k0": (scipy_special.k0, functools.partial(mpmath.besselk, 0), 5, None),
    "bessel_k1": (scipy_special.k1, functools.partial(mpmath.besselk, 1), 5, None),
    "bessel_k0e": (scipy_special.k0e, lambda x: mpmath.exp(x) * mpmath.besselk(0, x), 5, None),
    "bessel_k1e": (scipy_special.k1e, lambda x: mpmath.exp(x) * mpmath.besselk(1, x), 5, None),
    "bessel_j0": (scipy_special.j0, functools.partial(mpmath.besselj, 0), 8, swing),
    "bessel_j1": (scipy_special.j1, functools.partial(mpmath.besselj, 1), 8, swing),
    "bessel_y0": (scipy_special.y0, functools.partial(mpmath.bessely, 0), 8, swing),
    "bessel_y1": (scipy_special.y1, functools.partial(mpmath.bessely, 1), 8, swing),
    "dawsn": (scipy_special.dawsn, lambda x: mpmath.sqrt(mpmath.pi) / 2 * mpmath.exp(-x * x) * mpmath.erfi(x), 8, None),
    "expint": (scipy_special.expi, mpmath.ei, 8, root_of_expint),
    "fresnel_sin": (lambda x: scipy_special.fresnel(x)[0], mpmath.fresnels, 6, None),
    "fresnel_cos": (lambda x: scipy_special.fresnel(x)[1], mpmath.fresnelc, 6, None),
    "spence": (scipy_special.spence, lambda x: mpmath.re(mpmath.polylog(2, 1 - x)), 6, None),
    "log_ndtr": (scipy_special.log_ndtr, lambda x: log_of_normal(x / mpmath.sqrt(2)), 8, None),
}
ONE_SIDED = ("bessel_k0", "bessel_k1", "bessel_k0e", "bessel_k1e", "bessel_y0", "bessel_y1", "spence")


def points(name, count):
    """Numbers of all sizes and where pieces meet, in float32's range and exact in it."""
    rng = np.random.default_rng(3)
    edges = [0.5, 1, 1.5, 1.66, 1.675, 1.7, 2, 3, 5, 6, 8, 9, 12, 24]
    near = [np.nextafter(e, to) for e in edges for to in (0, np.inf)]
    parts = [rng.uniform(0, top, count) for top in (1, 3, 10, 30, 80)]
    found = np.concatenate([edges, near, *parts, np.exp2(rng.uniform(-60, 8, count))])
    return found if name in ONE_SIDED else np.concatenate([found, -found])


@functools.cache
def kernel(name, dtype):
    return elementwise(f"{name}(a)", [dtype], dtype, 16)


@functools.cache
def exact(name, count=60):
    """(points, values by mpmath, as float64, and what those lack)."""
    x = points(name, count)
    with mpmath.workdps(60):
        values = [REFERENCES[name][1](mpmath.mpf(float(v))) for v in x]
        high = np.array([float(v) for v in values])
        low = np.array([float(v - h) if np.isfinite(h) else 0 for v, h in zip(values, map(float, high), strict=True)])
    return x, high, low


def check(name, found, x, high, low, ulp):
    """`found` is within `ulp` units of the last place of the value, or of the amplitude where that is larger."""
    amplitude = REFERENCES[name][3]
    size = np.abs(high) if amplitude is None else np.maximum(np.abs(high), amplitude(x))
    finite = np.isfinite(high)
    assert np.array_equal(found[~finite], high[~finite])
    with np.errstate(invalid="ignore"):
        error = np.abs((found.astype(np.float64) - high) - low) / np.spacing(size.astype(found.dtype)).astype(np.float64)
    k = int(np.argmax(np.where(finite, error, 0)))
    assert error[finite].max() <= ulp, f"{error[k]:.2f} ulp at {x[k]!r}: {found[k]!r}, {high[k]!r}"


@pytest.mark.slow  # mpmath takes its time
@pytest.mark.parametrize("name", REFERENCES)
def test_kernel_against_mpmath(name):
    x, high, low = exact(name)
    check(name, kernel(name, "f64")(x), x, high, low, REFERENCES[name][2])


@pytest.mark.parametrize("name", REFERENCES)
def test_numpy_rule_against_mpmath(name):
    x, high, low = exact(name)
    with np.errstate(all="ignore"):
        check(name, OPS[name].numpy(x), x, high, low, 4 if name == "log_ndtr" else 1)  # C's erfc is in it


@pytest.mark.parametrize("name", REFERENCES)
def test_float32_against_the_numpy_rule(name):
    """Also of the largest numbers, where mpmath takes long."""
    rng = np.random.default_rng(5)
    x = np.concatenate([points(name, 2000), np.exp2(rng.uniform(-120, 120, 2000))]).astype(np.float32)
    with np.errstate(all="ignore"):
        want = OPS[name].numpy(x.astype(np.float64))
        found = kernel(name, "f32")(x)
        rounded = want.astype(np.float32)
        finite = np.isfinite(rounded) & np.isfinite(found)
        assert np.array_equal(np.isfinite(rounded), np.isfinite(found))
        error = np.abs(found - want)[finite] / np.spacing(np.abs(rounded[finite])).astype(np.float64)
    assert error.max() <= (4 if REFERENCES[name][3] is None else 30), x[finite][np.argmax(error)]


LIMITS = {  # at 0, inf and -inf
    "bessel_i0": (1, np.inf, np.inf), "bessel_i1": (0, np.inf, -np.inf), "bessel_k0": (np.inf, 0, np.nan),
    "bessel_k1": (np.inf, 0, np.nan), "bessel_k0e": (np.inf, 0, np.nan), "bessel_k1e": (np.inf, 0, np.nan),
    "bessel_j0": (1, 0, 0), "bessel_j1": (0, 0, 0), "bessel_y0": (-np.inf, 0, np.nan), "bessel_y1": (-np.inf, 0, np.nan),
    "dawsn": (0, 0, 0), "expint": (-np.inf, np.inf, 0), "fresnel_sin": (0, 0.5, -0.5), "fresnel_cos": (0, 0.5, -0.5),
    "spence": (np.pi**2 / 6, -np.inf, np.nan), "log_ndtr": (np.log(0.5), 0, -np.inf),
}


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", REFERENCES)
def test_limits_and_nan(name, dtype):
    x, want = np.array([0, np.inf, -np.inf, np.nan], dtype), np.array([*LIMITS[name], np.nan], dtype)
    with np.errstate(all="ignore"):
        rule = OPS[name].numpy(x)
    for found in (kernel(name, dtype.replace("4", "32").replace("8", "64"))(x), rule):
        np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize("name", REFERENCES)
def test_about_the_same_as_scipy(name):
    x = points(name, 300)
    with np.errstate(all="ignore"):
        want, amplitude = REFERENCES[name][0](x), REFERENCES[name][3]
        scale = np.abs(want) if amplitude is None else np.maximum(np.abs(want), amplitude(x))
        error = np.abs(kernel(name, "f64")(x) - want) / scale
    assert np.all(error[np.isfinite(want) & (want != 0)] < 1e-11)


@pytest.mark.parametrize("name", ["bessel_i0", "bessel_i1", "expint"])
def test_too_large_numbers_give_infinity(name):
    x = np.array([721, 1e20, 1e300])
    assert np.all(kernel(name, "f64")(x) == np.inf)
