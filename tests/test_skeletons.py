"""Kernels' loops compiled straight from their source: what they do, and what they refuse."""
import ast
import ctypes
import itertools
import textwrap

import numpy as np
import pytest
from traced_kernels import LANES

from graphc.codegen.cpu.glue import arg, splat, traced
from graphc.codegen.cpu.host import load_object, optimised_object
from graphc.codegen.cpu.skeleton import unoptimised

BODY = """
def body(i, x, b, out, total, mask):
    v = tanh(load_f32(x, i, mask) + broadcast_f32(b, 0))
    store_f32(out, i, v, mask)
    return total + (v if mask is None else select(mask, v, 0)), i + 1
"""
TAIL = BODY.replace("total, mask", "total, count").replace("    v = ", "    mask = tail(count)\n    v = ", 1)


def native(source, codes):
    """The kernel of a skeleton's source."""
    kernel, = ast.parse(textwrap.dedent(source)).body
    library, addresses = load_object(optimised_object(unoptimised(kernel, {"arg": arg, **codes}, "kernel")), ["kernel"])
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(addresses["kernel"])
    call.library = library
    return call


def table_of(*words):
    """The argument table of arrays and numbers, which the arrays must outlive."""
    return np.array([w.ctypes.data if isinstance(w, np.ndarray) else w for w in words], "i8")


@pytest.mark.parametrize("lanes", LANES)
def test_kernel_of_bodies(lanes):
    """A kernel as the emitter writes it: a loop without mask, one masked tail, an accumulator in a register."""
    codes = {"zero": splat("f32", lanes, 0.0), "whole": traced(BODY, lanes, ("f32", "int"), {"mask": None}),
             "rest": traced(TAIL, lanes, ("f32", "int")),
             "total_of": traced("def total_of(total):\n    return horizontal_add(total)\n", lanes, "f32"),
             "finish": traced("def finish(out, total):\n    store_lane_f32(out, 0, total)\n", lanes)}
    kernel = native(f"""
        def kernel(args, thread, threads):
            x, b, out, sums, n = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3), arg(args, 4)
            total = zero()
            i = 0
            while i + {lanes} <= n:
                total, following = whole(i, x, b, out, total)
                i = following + ({lanes} - 1)
            if i < n:
                total, following = rest(i, x, b, out, total, n - i)
            finish(sums, total_of(total))
        """, codes)
    for n in (0, 1, lanes - 1, lanes, lanes + 1, 5 * lanes + 3):
        x, b = np.linspace(-2, 2, n, dtype="f4"), np.array([0.25], "f4")
        out, sums = np.full(n + 1, 9, "f4"), np.zeros(1, "f4")
        kernel(table_of(x, b, out, sums, n).ctypes.data, 0, 1)
        np.testing.assert_allclose(out[:n], np.tanh(x + b[0]), rtol=1e-6)
        assert out[n] == 9
        np.testing.assert_allclose(sums[0], np.tanh(x + b[0]).sum(dtype="f8"), rtol=1e-5, atol=1e-5)


def test_kernel_with_large_angles():
    """A function of its own and a table in a kernel's module; vectors of every kind as arguments and results."""
    read = "def read(x):\n    v = load_f64(x, 0)\n    return sin(v), v > 0, to_i8(v)\n"
    codes = {"read": traced(read, 8, ("f64", "bool", "i8")),
             "write": traced("def write(out, s, mask, small):\n    store_f64(out, 0, select(mask, s, to_f64(small)))\n", 8)}
    kernel = native("""
        def kernel(args, thread, threads):
            s, mask, small = read(arg(args, 0))
            write(arg(args, 1), s, mask, small)
        """, codes)
    x, out = np.array([1e300, 1e22, 3, -7, 0.5, -100, 4e5, 2e6]), np.empty(8)
    kernel(table_of(x, out).ctypes.data, 0, 1)
    np.testing.assert_allclose(out, np.where(x > 0, np.sin(x), x), rtol=1e-15)


@pytest.mark.parametrize(("call", "text"), [
    ("wrong(thread)", "a vector of f64 meets one of f32|a vector of f32 meets one of f64"),
    ("wrong(thread, thread)", "wrong takes 1 arguments, not 2"), ("few(thread)", "few returned 1 values, 2 were declared"),
    ("x = thread\n    x = one()", "x is a int and becomes a f32"), ("x = one() + 1", r"has 'one\(\) \+ 1'"),
    ("x = thread / 2", r"'thread / 2'"), ("x = [1]", r"has '\[1\]'"), ("for x in y: pass", r"has 'for x in y:"),
    ("x = (1)(2)", r"has '1'"),
    ("if thread: x = 1", "has 'thread'"), ("x = y", "'y' has no value")])
def test_skeletons_that_are_none(call, text):
    codes = {"wrong": traced("def wrong(x):\n    return load_f32(x, 0)\n", 8, ("f64",)), "one": splat("f32", 8, 1.0),
             "few": traced("def few(x):\n    return x\n", 8, ("int", "int"))}
    kernel, = ast.parse(f"def kernel(args, thread, threads):\n    {call}").body
    with pytest.raises(TypeError, match=text):
        unoptimised(kernel, codes, "kernel")


SKELETONS = {"divisions": """
    q, r = a // b, a % b
    put(0, q)
    put(1, r)
    put(2, a // 8 + a % 8)
    put(3, (a - 100) // 7 * (a - 100) % 7)
    put(4, -a // 16 if a > b else -a % 16)
""", "choices": """
    x = a if a < b else b
    y = 1 if a < b and b < 9 or a == 3 else 0
    z = a // b if b > 0 else 7
    put(0, x)
    put(1, y)
    put(2, z)
    put(3, 5 if a != b else 6)
    if x == a:
        put(4, x)
    else:
        if y == 1:
            put(4, -1)
        else:
            put(4, -2)
    if x >= b:
        x = b = 3
    put(5, x + b)
""", "loops": """
    total = 0
    i = 0
    while i < a:
        square = i * i
        j = 0
        while j < b and square < 50:
            total += square + j
            j += 1
        if total > 60:
            break
        last = square
        i += 1
    put(0, total)
    put(1, i)
    k = 0
    while True:
        k += 3
        if k > a:
            break
        put(2, k)
    put(3, k)
""", "none": """
    put(0, a)
    if a > b:
        while a > b:
            a = a - 1
            put(1, a)
    put(2, a)
"""}


@pytest.mark.parametrize("name", SKELETONS)
def test_skeletons_do_what_python_does(name):
    """The same source, compiled and run by Python."""
    body = textwrap.indent(textwrap.dedent(SKELETONS[name]), "    ")
    source = f"def kernel(args, thread, threads):\n    out, a, b = arg(args, 0), arg(args, 1), arg(args, 2)\n{body}"
    put = traced("def put(out, k, value):\n    store_lane_i64(out, k, splat_i64(value))\n", 1)
    kernel = native(source.replace("put(", "put(out, "), {"put": put})
    for a, b in itertools.product((0, 1, 3, 5, 17, 64), (1, 2, 4, 7, 9)):
        expected, out = np.full(6, -99), np.full(6, -99)
        space = {"arg": lambda table, k: table[k], "put": expected.__setitem__}
        exec(source, space)
        space["kernel"]((None, a, b), 0, 1)
        kernel(table_of(out, a, b).ctypes.data, 0, 1)
        np.testing.assert_array_equal(out, expected, err_msg=f"a = {a}, b = {b}")
