"""Products that are summed in parts: each adds to sums in memory; a kernel at the end does what the product did with them."""
from __future__ import annotations

from dataclasses import replace

from graphc.codegen.kernel import (
    Access,
    Accumulator,
    Compute,
    ContractKernel,
    Coordinate,
    Int,
    Load,
    LoopKernel,
    Phase,
    Statement,
    Store,
)
from graphc.codegen.lower import Buffer, Call
from graphc.ir.dims import Size
from graphc.ir.types import BY_SHORT, TensorType
from graphc.passes.regions import contiguous


def adding(call: Call, partial: Buffer) -> Call:
    """The product, added to what is in `partial`, which comes last among its buffers."""
    kernel, (names, sizes), access = _with_partial(call)
    added = Compute("total", kernel.dtype, "before + acc", ("before", "acc"))
    epilogue = (Load("before", access), added, Store("total", access))
    made = replace(kernel, buffers=(*kernel.buffers, access.buffer), sizes=tuple(names), epilogue=epilogue)
    own = {b for b in call.writes if b.per_thread}
    return replace(call, kernel=made, buffers=(*call.buffers, partial), sizes=tuple(sizes), reads=call.reads | {partial},
                   writes=frozenset(own | {partial}))


def total(call: Call, partial: Buffer, groups: int) -> Call:
    """What the product does with its sums, on those of all groups in `partial`."""
    kernel, (names, sizes), access = _with_partial(call)
    axes = {name: f"p{k}" for k, (name, _) in enumerate((*kernel.batch, ("m", 0), ("n", 0)))}
    buffers = list(dict.fromkeys(s.access.buffer for s in kernel.epilogue if isinstance(s, Load | Store)))
    old = [call.buffers[kernel.buffers.index(b)] for b in buffers] + [partial]

    def moved(strides):
        return tuple((axes.get(a, a), s) for a, s in strides)

    def renamed(s: Statement) -> Statement:
        if isinstance(s, Coordinate):
            return replace(s, strides=moved(s.strides))
        if isinstance(s, Load | Store):
            name = f"a{[*buffers, access.buffer].index(s.access.buffer)}"
            return replace(s, access=replace(s.access, buffer=name, strides=moved(s.access.strides)))
        return s
    names += [f"n{len(names)}", f"n{len(names) + 1}"]
    sizes += [results(call).elements, groups]
    parts = replace(access, strides=(*access.strides, ("r0", names[-2])))
    phase = Phase((renamed(Load("part", parts)),),
                  (Accumulator("acc", kernel.dtype, "part", "{acc} + {x}", "horizontal_add", 0),),
                  tuple(map(renamed, kernel.epilogue)))
    parallel = tuple((axes[a], n) for a, n in (*kernel.batch, ("m", kernel.m), ("n", kernel.n)))
    made = LoopKernel(f"{kernel.name}_total", tuple(f"a{k}" for k in range(len(old))), tuple(names), parallel,
                      (("r0", names[-1]),), parallel[-1][0], (), (phase,), kernel.item_bytes)
    reads, writes = frozenset({partial, *(b for b in old if b in call.reads)}), frozenset(b for b in old if b in call.writes)
    return Call(made, tuple(old), tuple(sizes), reads, writes, operations=results(call).elements * groups,
                location=call.location)


def _with_partial(call: Call) -> tuple[ContractKernel, tuple[list[str], list[Size]], Access]:
    """(the kernel, its sizes and more, where its results are in a buffer with nothing else)."""
    kernel = call.kernel
    assert isinstance(kernel, ContractKernel)
    names, sizes = list(kernel.sizes), list(call.sizes)
    axes = [*(name for name, _ in kernel.batch), "m", "n"]
    strides: list[tuple[str, Int]] = []
    for name, stride in zip(axes, contiguous(results(call).shape), strict=True):
        names.append(f"n{len(names)}")
        sizes.append(stride)
        strides.append((name, names[-1] if name != "n" else 1))
    return kernel, (names, sizes), Access(f"a{len(kernel.buffers)}", kernel.dtype, tuple(strides))


def results(call: Call) -> TensorType:
    """The type of a product's sums."""
    kernel = call.kernel
    assert isinstance(kernel, ContractKernel)
    shape = tuple(call.size(n) for _, n in (*kernel.batch, ("m", kernel.m), ("n", kernel.n)))
    return TensorType(BY_SHORT[kernel.dtype], shape)
