"""Helpers of the vector tests: run a traced body over NumPy arrays, with llvmlite alone."""
import ctypes

import ml_dtypes
import numpy as np
from llvmlite import ir

from graphc.codegen.cpu.host import host, load_object, optimised_object
from graphc.codegen.cpu.simd import DTYPES, Int, Tracer
from graphc.codegen.cpu.simd_core import HALVES

I64 = ir.IntType(64)
NUMPY = {"f32": np.dtype("f4"), "f64": np.dtype("f8"), "bool": np.dtype("?"), "f16": np.dtype("f2"),
         "bf16": np.dtype(ml_dtypes.bfloat16)} | {
    f"{kind}{bits}": np.dtype(f"{kind}{bits // 8}") for kind in "iu" for bits in (8, 16, 32, 64)}
LANES = [4, 8, 16]
FLOATS = ["f32", "f64"]
INTEGERS = [f"{kind}{bits}" for kind in "iu" for bits in (8, 16, 32, 64)]
NUMBERS = FLOATS + INTEGERS


def edge_values(dtype, count=40, seed=0):
    """Limits, small numbers and random ones of a dtype."""
    rng, kind = np.random.default_rng(seed), NUMPY[dtype]
    if dtype == "bool":
        return np.array([False, True])
    if dtype in FLOATS:
        info = np.finfo(kind)
        special = np.array([0, 0.25, 0.5, 1, 1.5, 2.5, 3, 7, 1e10, 2.0**23 - 0.5, 2.0**52 + 1, info.max, info.tiny,
                            info.smallest_subnormal, np.inf], kind)
        wide = np.exp2(rng.uniform(-60, 60, count)).astype(kind)
        return np.concatenate([special, -special, wide * rng.choice([-1, 1], count).astype(kind), [kind.type(np.nan)]])
    info = np.iinfo(kind)
    special = [v for v in (0, 1, 2, 3, 7, 10, 63, 100, -1, -2, -3, -7, -100, info.min, info.min + 1, info.max,
                           info.max - 1) if info.min <= v <= info.max]
    return np.concatenate([np.array(special, kind), rng.integers(info.min, info.max, count, kind, endpoint=True)])


def quietly(function, *arrays):
    with np.errstate(all="ignore"):
        return function(*arrays)


def compiled(trace, parameters):
    """Native function of i64 arguments; `trace(builder, arguments)` emits its body and leaves the builder at its end."""
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * parameters), "kernel")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    trace(builder, function.args)
    builder.ret_void()
    library, addresses = load_object(optimised_object(str(module)), ["kernel"])
    native = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * parameters)(addresses["kernel"])

    def call(*arguments):
        """Arrays are passed by address and kept alive."""
        return native(*(a.ctypes.data if isinstance(a, np.ndarray) else int(a) for a in arguments))
    call.library = library
    return call


def straight(body, parameters, lanes=16, on=None):
    """The native form of a body without a loop; its parameters arrive as Ints."""
    def trace(builder, arguments):
        tracer = Tracer(builder, lanes, on or host())
        tracer.run(body, [Int(a, tracer) for a in arguments])
    return compiled(trace, parameters)


def looped(body, arrays, lanes=16, on=None):
    """A loop that runs `body(i, mask, *addresses)` over all elements; call with (*arrays, count)."""
    def trace(builder, arguments):
        entry, head = builder.block, builder.append_basic_block("head")
        count = arguments[-1]
        work, done = builder.append_basic_block("work"), builder.append_basic_block("done")
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(I64)
        index.add_incoming(I64(0), entry)
        builder.cbranch(builder.icmp_signed("<", index, count), work, done)
        builder.position_at_end(work)
        tracer = Tracer(builder, lanes, on or host())
        i = Int(index, tracer)
        mask = tracer.tail(Int(count, tracer) - i)
        tracer.run(body, [i, mask, *(Int(a, tracer) for a in arguments[:-1])])
        index.add_incoming(builder.add(index, I64(lanes)), builder.block)
        builder.branch(head)
        builder.position_at_end(done)
    return compiled(trace, arrays + 1)


def elementwise(expression, inputs, output, lanes=16, on=None):
    """NumPy function of an expression over a, b, c: `elementwise("a + b", ["f32", "f32"], "f32")(x, y)`."""
    names = "abc"[:len(inputs)]
    lines = [f"    {n} = load_{d}(p{n}, i, mask)" for n, d in zip(names, inputs, strict=True)]
    source = f"def body(i, mask, out, {', '.join('p' + n for n in names)}):\n" + "\n".join(lines) + (
        f"\n    store_{output}(out, i, {expression}, mask)\n")
    native = looped(source, len(inputs) + 1, lanes, on)

    def call(*arrays):
        arrays = [np.ascontiguousarray(a, NUMPY[d]) for a, d in zip(arrays, inputs, strict=True)]
        out = np.empty(arrays[0].shape, NUMPY[output])
        native(out, *arrays, out.size)
        return out
    return call


assert set(NUMPY) == {*DTYPES, *HALVES}
