"""Fit the polynomials of graphc's vector math and print graphc/codegen/cpu/math_coefficients.py.

    python tools/fit_polynomials.py > graphc/codegen/cpu/math_coefficients.py

Each entry interpolates a smooth function in the Chebyshev points of its interval, in 80-digit arithmetic; that is
within a small factor of the best polynomial.  Coefficients are rounded at the end, lowest power first.
`--check` prints the largest error of every fit instead.
"""
import struct
import sys

import mpmath as mp

HEADER = '''"""Coefficients of the vector math, lowest power first.

Made by tools/fit_polynomials.py: interpolation in Chebyshev points in 80-digit arithmetic, then rounded.
"""
'''
mp.mp.dps = 80
HALF_LN2 = mp.log(2) / 2 * mp.mpf("1.01")
SQRT_HALF = mp.sqrt(mp.mpf(1) / 2)
QUARTER_PI = mp.pi / 4 * mp.mpf("1.01")
TAN_EIGHTH = (mp.sqrt(2) - 1) * mp.mpf("1.001")
ATANH_LIMIT = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2 * mp.mpf("1.01")
ERFC_POLE = 4


def root(function):
    """The function of z = x**2."""
    return lambda z: function(mp.sqrt(z))


def erfc_scaled(q):
    """(1 + 2x) exp(x**2) erfc(x) at x = 4 (1 + q) / (1 - q)."""
    x = ERFC_POLE * (1 + q) / (1 - q)
    return (1 + 2 * x) * mp.exp(x * x) * mp.erfc(x)


def stirling_rest(w):
    """x (lgamma(x) - Stirling's formula) at x = 1 / sqrt(w)."""
    x = 1 / mp.sqrt(w)
    return x * (mp.loggamma(x) - ((x - mp.mpf(1) / 2) * mp.log(x) - x + mp.log(2 * mp.pi) / 2))


def digamma_rest(w):
    """x**2 (log(x) - 1/(2 x) - digamma(x)) at x = 1 / sqrt(w)."""
    x = 1 / mp.sqrt(w)
    return x * x * (mp.log(x) - 1 / (2 * x) - mp.digamma(x))


def bessel_far(order):
    """sqrt(x) exp(-x) I(x), u = 16/x - 1."""
    def function(u):
        x = 16 / (1 + u) if abs(1 + u) > mp.mpf("1e-3") else mp.mpf(16000)
        return mp.sqrt(x) * mp.exp(-x) * mp.besseli(order, x)
    return function


def bessel_near(order):
    """exp(-x) I(x) / x**order, u = x/4 - 1."""
    def function(u):
        x = 4 * (1 + u)
        return mp.exp(-x) * (mp.besseli(order, x) / x**order if x else mp.mpf(1) / 2**order)
    return function


DIGAMMA_ROOT = mp.findroot(mp.digamma, mp.mpf("1.4616321449683623"))

# name: (what it is, function, low, high, degree for f32, degree for f64); a degree of None leaves that table out
FITS = {
    "EXP": ("(exp(r) - 1 - r) / r**2", lambda r: (mp.exp(r) - 1 - r) / r**2, -HALF_LN2, HALF_LN2, 4, 9),
    "EXP2": ("(2**r - 1) / r", lambda r: (mp.mpf(2) ** r - 1) / r, -mp.mpf("0.501"), mp.mpf("0.501"), 6, 11),
    "LOG": ("(log(1 + f) - f + f**2/2) / f**3", lambda f: (mp.log1p(f) - f + f * f / 2) / f**3,
            SQRT_HALF - 1 - mp.mpf("0.001"), 2 * SQRT_HALF - 1 + mp.mpf("0.001"), 8, None),
    "ATANH": ("(2 atanh(s)/s - 2) / z, z = s**2", root(lambda s: (2 * mp.atanh(s) / s - 2) / s**2),
              0, ATANH_LIMIT, None, 7),
    "ATANH_TAIL": ("((atanh(s)/s - 1)/z - 1/3) / z, z = s**2",
                   root(lambda s: ((mp.atanh(s) / s - 1) / s**2 - mp.mpf(1) / 3) / s**2), 0, ATANH_LIMIT, None, 7),
    "EXP_SHORT": ("(exp(r) - 1 - r) / r**2, for pow in f32", lambda r: (mp.exp(r) - 1 - r) / r**2,
                  -HALF_LN2, HALF_LN2, None, 5),
    "ATANH_SHORT": ("(2 atanh(s)/s - 2) / z, z = s**2, for pow in f32",
                    root(lambda s: (2 * mp.atanh(s) / s - 2) / s**2), 0, ATANH_LIMIT, None, 4),
    "SIN": ("(sin(r)/r - 1) / z, z = r**2", root(lambda r: (mp.sin(r) / r - 1) / r**2), 0, QUARTER_PI**2, 3, 6),
    "COS": ("(cos(r) - 1 + z/2) / z**2, z = r**2", root(lambda r: (mp.cos(r) - 1 + r * r / 2) / r**4),
            0, QUARTER_PI**2, 3, 6),
    "ATAN": ("(atan(a)/a - 1) / z, z = a**2", root(lambda a: (mp.atan(a) / a - 1) / a**2), 0, TAN_EIGHTH**2, 5, 12),
    "ASIN": ("(asin(s)/s - 1) / z, z = s**2", root(lambda s: (mp.asin(s) / s - 1) / s**2), 0, mp.mpf("0.2501"), 6, 13),
    "SINH": ("(sinh(x)/x - 1) / z, z = x**2", root(lambda x: (mp.sinh(x) / x - 1) / x**2), 0, mp.mpf("1.001"), 3, 7),
    "ERF": ("erf(x)/x - 1, z = x**2", root(lambda x: mp.erf(x) / x - 1), 0, mp.mpf("0.95"), 6, 12),
    "LOG2_ERFC": ("log2(erfc(0.875 + t))", lambda t: mp.log(mp.erfc(mp.mpf("0.875") + t), 2), 0, mp.mpf("3.13"), 10,
                  None),
    "ERFC": ("(1 + 2x) exp(x**2) erfc(x), q = (x - 4)/(x + 4)", erfc_scaled,
             mp.mpf("-0.79"), mp.mpf("0.745"), None, 23),
    "LGAMMA": ("lgamma(1 + z) / z", lambda z: mp.loggamma(1 + z) / z, -mp.mpf("0.501"), mp.mpf("0.501"), None, 27),
    "LGAMMA2": ("lgamma(2 + z) / z", lambda z: mp.loggamma(2 + z) / z, -mp.mpf("0.501"), mp.mpf("0.501"), None, 18),
    "STIRLING": ("x (lgamma(x) - (x - 1/2) log(x) + x - log(2 pi)/2), w = 1/x**2", stirling_rest, 0, mp.mpf(1) / 62, None, 8),
    "DIGAMMA": ("digamma(1.5 + t) / (1.5 + t - root)", lambda t: mp.digamma(1.5 + t) / (1.5 + t - DIGAMMA_ROOT),
                -mp.mpf("0.501"), mp.mpf("0.501"), None, 21),
    "DIGAMMA_REST": ("x**2 (log(x) - 1/(2 x) - digamma(x)), w = 1/x**2", digamma_rest, 0, mp.mpf(1) / 62, None, 8),
    "I0E_NEAR": ("exp(-x) I0(x), u = x/4 - 1", bessel_near(0), -1, 1, None, 27),
    "I0E_FAR": ("sqrt(x) exp(-x) I0(x), u = 16/x - 1", bessel_far(0), -1, 1, None, 24),
    "I1E_NEAR": ("exp(-x) I1(x) / x, u = x/4 - 1", bessel_near(1), -1, 1, None, 27),
    "I1E_FAR": ("sqrt(x) exp(-x) I1(x), u = 16/x - 1", bessel_far(1), -1, 1, None, 24),
}


def chebyshev_fit(function, low, high, degree):
    """Coefficients, lowest power first, of the interpolation in the Chebyshev points."""
    count = degree + 1
    middle, radius = (mp.mpf(low) + high) / 2, (mp.mpf(high) - low) / 2
    points = [middle + radius * mp.cos(mp.pi * (2 * k + 1) / (2 * count)) for k in range(count)]
    # The formulas are 0/0 at 0, where an odd count has a point.
    values = [function(p if abs(p) > mp.mpf("1e-20") else mp.mpf("1e-20")) for p in points]
    # Newton's divided differences, then expand to powers; 80 digits leave plenty after cancellation.
    for order in range(1, count):
        for k in range(count - 1, order - 1, -1):
            values[k] = (values[k] - values[k - 1]) / (points[k] - points[k - order])
    powers = [mp.mpf(0)]
    for k in range(count - 1, -1, -1):
        shifted = [mp.mpf(0), *powers]
        powers = [a - points[k] * b for a, b in zip(shifted, [*powers, mp.mpf(0)], strict=True)]
        powers[0] += values[k]
    return powers[:count]


def rounded(value, bits):
    value = float(value)
    return struct.unpack("f", struct.pack("f", value))[0] if bits == 32 else value


def largest_error(function, low, high, coefficients):
    points = [low + (mp.mpf(high) - low) * (k + mp.mpf("0.5")) / 300 for k in range(300)]
    return max(abs(mp.polyval(coefficients[::-1], p) - function(p)) for p in points)


# name: (value, bits of each part per format; the last part takes what is left)
CONSTANTS = {
    "LN2": (mp.log(2), {32: (10, 24), 64: (32, 53)}),
    "LOG2E": (1 / mp.log(2), {32: (12, 24), 64: (26, 53)}),
    "LOG10E": (1 / mp.log(10), {32: (12, 24), 64: (26, 53)}),
    "LOG10_2": (mp.log10(2), {32: (12, 24), 64: (32, 53)}),
    "HALF_PI": (mp.pi / 2, {32: (24, 24), 64: (53, 53)}),
    "PI": (mp.pi, {32: (24, 24), 64: (53, 53)}),
    "HALF_PI_SHORT": (mp.pi / 2, {32: (24, 24, 24)}),
    "HALF_PI_LONG": (mp.pi / 2, {64: (33, 33, 33, 53)}),
    "TWO_OVER_PI": (2 / mp.pi, {32: (24,), 64: (53,)}),
    "DIGAMMA_ROOT": (DIGAMMA_ROOT, {64: (53, 53)}),
    "THIRD": (mp.mpf(1) / 3, {64: (53, 53)}),
}


def parts(value, sizes):
    """`value` as a sum of floats with the given numbers of significant bits."""
    found = []
    for bits in sizes:
        with mp.workprec(bits):
            part = +mp.mpf(value)
        found.append(float(part))
        value -= part
    return found


def two_over_pi(bits):
    """floor(2/pi * 2**bits)."""
    with mp.workprec(bits + 64):
        return int(mp.floor(2 / mp.pi * mp.mpf(2) ** bits))


def main():
    check = "--check" in sys.argv
    if not check:
        print(HEADER)
    for name, (text, function, low, high, *degrees) in FITS.items():
        for bits, degree in zip((32, 64), degrees, strict=True):
            if degree is None:
                continue
            coefficients = [rounded(c, bits) for c in chebyshev_fit(function, low, high, degree)]
            if check:
                print(f"{name}_F{bits}", mp.nstr(largest_error(function, low, high, coefficients), 3))
                continue
            print(f"# {text}, for {mp.nstr(mp.mpf(low), 4)} to {mp.nstr(mp.mpf(high), 4)}")
            print(f"{name}_F{bits} = (")
            for c in coefficients:
                print(f"    {c!r},")
            print(")")
    if not check:
        print("\n# Constants in parts: the first are short, so that their products with small integers are exact.")
        for name, (value, formats) in CONSTANTS.items():
            for bits, sizes in formats.items():
                print(f"{name}_F{bits} = {tuple(parts(value, sizes))!r}")
        print("\n# floor(2/pi * 2**1216), for the reduction of large angles")
        digits = f"{two_over_pi(1216):x}"
        print("TWO_OVER_PI_BITS = 1216\nTWO_OVER_PI = int(")
        for k in range(0, len(digits), 100):
            print(f'    "{digits[k:k + 100]}"')
        print("    , 16)")


if __name__ == "__main__":
    main()
