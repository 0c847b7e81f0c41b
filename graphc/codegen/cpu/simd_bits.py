"""Functions of the bits of numbers: neighbours of floats, and how many bits are set.

In: a Tracer and Vectors.  Out: Vectors.
"""
from functools import partial

from graphc.codegen.cpu.simd_core import DTYPES


def functions(t):
    """What a traced body may call from here."""
    return {"nextafter": partial(nextafter, t), "popcount": partial(popcount, t)}


def nextafter(t, x, y):
    """The f32 or f64 number next to x on the way to y: one more or less as an integer, for numbers of one sign."""
    x, y = t.pair(x, y)
    integer = DTYPES[f"i{x.dtype.bits}"]
    bits = t.bitcast(x, integer)
    away = (x < y) == (x > 0)
    moved = t.bitcast(t.select(away, bits + 1, bits - 1), x.dtype)
    smallest = t.copysign(t.bitcast(t.splat(1, integer), x.dtype), y)
    moved = t.select(x == 0, smallest, moved)
    return t.select((x != x) | (y != y), x + y, t.select(x == y, y, moved))


def popcount(t, v):
    """How many bits of each integer are set, in its own dtype."""
    return t.elementwise("ctpop", v)
