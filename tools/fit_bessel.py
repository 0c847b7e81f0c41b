"""Fit the polynomials of graphc's Bessel functions and integrals: graphc/codegen/cpu/math_bessel_coefficients.py.

    python tools/fit_bessel.py > graphc/codegen/cpu/math_bessel_coefficients.py

As tools/fit_polynomials.py, for functions of float64 alone. `--check` prints the largest error of every fit instead.
"""
import sys

import mpmath as mp
from fit_polynomials import chebyshev_fit, largest_error

HEADER = '''"""Coefficients of Bessel functions and integrals, lowest power first, as (low, high, coefficients): see `piece`.

Made by tools/fit_bessel.py: interpolation in Chebyshev points in 50-digit arithmetic, then rounded.
"""
'''
mp.mp.dps = 50


def hankel(order, part):
    """P or x * Q of sqrt(pi x / 2) (J + i Y) = (P + i Q) exp(i a), a = x - order pi/2 - pi/4, by z = (8 / x)**2."""
    def function(z):
        x = 8 / mp.sqrt(z)
        j, y, a = mp.besselj(order, x), mp.bessely(order, x), x - (2 * order + 1) * mp.pi / 4
        scale = mp.sqrt(mp.pi * x / 2)
        return scale * (j * mp.cos(a) + y * mp.sin(a)) if part == "P" else x * scale * (y * mp.cos(a) - j * mp.sin(a))
    return function


def square(function):
    """A function of x**2."""
    return lambda z: function(mp.sqrt(z))


def inverse(function):
    """A function of 1 / x."""
    return lambda w: function(1 / w)


def fresnel(part):
    """pi x f(x) or pi**2 x**3 g(x) by w = 1 / x**2: C = 1/2 + f sin(a) - g cos(a), S = 1/2 - f cos(a) - g sin(a)."""
    def function(w):
        x = 1 / mp.sqrt(w)
        a, c, s = mp.pi * x * x / 2, mp.fresnelc(x) - mp.mpf(0.5), mp.fresnels(x) - mp.mpf(0.5)
        if part == "f":
            return mp.pi * x * (c * mp.sin(a) - s * mp.cos(a))
        return -mp.pi**2 * x**3 * (c * mp.cos(a) + s * mp.sin(a))
    return function


def dawson(x):
    return mp.sqrt(mp.pi) / 2 * mp.exp(-x * x) * mp.erfi(x)


def y0_rest(x):
    return mp.bessely(0, x) - 2 / mp.pi * mp.log(x) * mp.besselj(0, x)


def y1_rest(x):
    return (mp.bessely(1, x) - 2 / mp.pi * (mp.log(x) * mp.besselj(1, x) - 1 / x)) / x


# name: (function of the variable, low, high, degree)
FITS = {
    "J0_NEAR": (square(lambda x: mp.besselj(0, x)), 0, 64, 22),
    "J1_NEAR": (square(lambda x: mp.besselj(1, x) / x), 0, 64, 22),
    "Y0_NEAR": (square(y0_rest), 0, 64, 22),
    "Y1_NEAR": (square(y1_rest), 0, 64, 22),
    **{f"{part}{order}": (hankel(order, part), 0, 1, 15) for order in (0, 1) for part in "PQ"},
    "I0_SMALL": (square(lambda x: mp.besseli(0, x)), 0, 4, 11),
    "I1_SMALL": (square(lambda x: mp.besseli(1, x) / x), 0, 4, 11),
    "K0_NEAR": (square(lambda x: mp.besselk(0, x) + mp.log(x / 2) * mp.besseli(0, x)), 0, 4, 11),
    "K1_NEAR": (square(lambda x: (mp.besselk(1, x) - mp.log(x / 2) * mp.besseli(1, x) - 1 / x) / x), 0, 4, 11),
    "K0_FAR": (inverse(lambda x: mp.sqrt(x) * mp.exp(x) * mp.besselk(0, x)), 0, mp.mpf(1) / 2, 25),
    "K1_FAR": (inverse(lambda x: mp.sqrt(x) * mp.exp(x) * mp.besselk(1, x)), 0, mp.mpf(1) / 2, 25),
    "DAWSON_0": (square(lambda x: dawson(x) / x), 0, mp.mpf("2.25"), 14),
    "DAWSON_1": (dawson, mp.mpf("1.5"), 3, 22),
    "DAWSON_2": (lambda x: x * dawson(x), 3, 5, 21),
    "DAWSON_3": (lambda x: x * dawson(x), 5, 8, 21),
    "DAWSON_4": (square(inverse(lambda x: x * dawson(x))), 0, mp.mpf(1) / 64, 17),
    "EI_0": (lambda x: (mp.ei(x) - mp.log(x) - mp.euler) / x, 0, 3, 15),
    "EI_1": (lambda x: mp.exp(-x) * mp.ei(x) * x, 3, 6, 20),
    "EI_2": (lambda x: mp.exp(-x) * mp.ei(x) * x, 6, 12, 22),
    "EI_3": (inverse(lambda x: mp.exp(-x) * mp.ei(x) * x), mp.mpf(1) / 24, mp.mpf(1) / 12, 20),
    "EI_4": (inverse(lambda x: mp.exp(-x) * mp.ei(x) * x), 0, mp.mpf(1) / 24, 20),
    "E1_0": (lambda x: (mp.e1(x) + mp.log(x) + mp.euler) / x, 0, 1, 11),
    "E1_1": (inverse(lambda x: mp.exp(x) * mp.e1(x) * x), mp.mpf(1) / 3, 1, 20),
    "E1_2": (inverse(lambda x: mp.exp(x) * mp.e1(x) * x), mp.mpf(1) / 9, mp.mpf(1) / 3, 20),
    "E1_3": (inverse(lambda x: mp.exp(x) * mp.e1(x) * x), 0, mp.mpf(1) / 9, 20),
    "FRESNEL_S": (lambda z: mp.fresnels(z ** mp.mpf("0.25")) / z ** mp.mpf("0.75"), 0, 8, 14),
    "FRESNEL_C": (lambda z: mp.fresnelc(z ** mp.mpf("0.25")) / z ** mp.mpf("0.25"), 0, 8, 14),
    "FRESNEL_F_0": (fresnel("f"), mp.mpf(1) / 8, mp.mpf("0.36"), 18),
    "FRESNEL_G_0": (fresnel("g"), mp.mpf(1) / 8, mp.mpf("0.36"), 18),
    "FRESNEL_F_1": (fresnel("f"), 0, mp.mpf(1) / 8, 20),
    "FRESNEL_G_1": (fresnel("g"), 0, mp.mpf(1) / 8, 20),
    "SPENCE": (lambda w: mp.polylog(2, -w) / w, -mp.mpf("0.5"), mp.mpf("0.5"), 27),
}


def centred(function, low, high):
    """The function by a variable in [-1, 1]."""
    return lambda u: function(low + (high - low) * (u + 1) / 2)


def main():
    check = "--check" in sys.argv
    if not check:
        print(HEADER)
    for name, (function, low, high, degree) in FITS.items():
        low, high = mp.mpf(low), mp.mpf(high)
        moved = centred(function, low, high)
        coefficients = [float(c) for c in chebyshev_fit(moved, -1, 1, degree)]
        if check:
            print(name, mp.nstr(largest_error(moved, -1, 1, coefficients), 3), flush=True)
            continue
        print(f"{name} = ({float(low)!r}, {float(high)!r}, (")
        for k in range(0, len(coefficients), 5):
            print("    " + " ".join(f"{c!r}," for c in coefficients[k:k + 5]))
        print("))")


if __name__ == "__main__":
    main()
