"""Products with few results and long sums: the summed axis is cut into parts, which are handed out.

A gradient by the weights of a small layer has one tile of results and thousands of terms: as one sum, one thread's work. So a
first kernel adds up each part into results of its own, and a second one adds those in order and does what follows from the
product. How a sum is cut depends on shapes alone, so that a result has the same bits at any number of threads.

The other products that are cut have few rows and large weights which the program updates. Each thread then reads a range of
the weights in memory: about what the update, which goes through them in order, has handed to it, so that they stay in its
cache. Where the batch is not known its size decides about the parts; of a large one there is one.
"""
from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from graphc.codegen.contractions import ContractLowering, rounded_product
from graphc.codegen.copies import stand_in
from graphc.codegen.kernel import Access, Accumulator, Load, LoopKernel, Phase
from graphc.codegen.loops import LoopLowering
from graphc.codegen.lower import Buffer, Call, Parameters, Target
from graphc.codegen.statements import Writer, item_bytes
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.node import Node
from graphc.ir.types import TensorType
from graphc.passes.products import Product, label_sizes
from graphc.passes.regions import Region, Source, contiguous

RESULTS = 4096          # at most: more of them are tiles enough for all threads
FEW_RESULTS = 1024      # at most where the sum may turn out short
TERMS = 128             # of a part, at least: storing and adding up its results then costs little
WORK = 1 << 16          # multiply-adds of a part, at least: microseconds
PARTS = 64              # at most; fewer where there are many results
PARTIALS = 1 << 14      # results of all parts together, at most
WEIGHTS = 1 << 15       # elements of weights that are worth keeping in the caches of the thread that updates them


def part_size(anchor: Node, weights: Collection[Node]) -> Size:
    """How many terms of the sums a part has; 0 where they are not cut. weights: what the program updates."""
    results, terms = anchor.type.elements, summed(anchor)
    if isinstance(results, int) and 0 < results <= (RESULTS if isinstance(terms, int) else FEW_RESULTS):
        least = max(TERMS, -(-WORK // results))
        most = min(PARTS, PARTIALS // results)
        if not isinstance(terms, int):
            return dims.maximum(least, dims.floordiv(terms + most - 1, most))
        even = 1 << min(most, terms // least).bit_length() >> 1     # so that most numbers of threads have equally many
        return -(-terms // even) if even > 1 else 0
    if isinstance(terms, int) and terms >= 2 * TERMS and any(_is_read_by_rows(anchor, side, weights) for side in (0, 1)):
        parts = dims.maximum(1, dims.minimum(terms // TERMS, dims.floordiv(PARTIALS, dims.maximum(1, results))))
        return dims.floordiv(terms + parts - 1, parts) if parts != 1 else 0
    return 0


def _is_read_by_rows(anchor: Node, side: int, weights: Collection[Node]) -> bool:
    """Whether an operand is large weights, of which a range of the summed axis is a range in memory."""
    operand, (*labels, out) = anchor.inputs[side], anchor.op.rule.labels(tuple(i.type for i in anchor.inputs), anchor.attrs)
    size = operand.type.elements
    return operand in weights and isinstance(size, int) and size >= WEIGHTS and labels[side][0] not in out


def summed(anchor: Node) -> Size:
    """How many terms each sum of a contraction has."""
    *_, out = anchor.op.rule.labels(tuple(i.type for i in anchor.inputs), anchor.attrs)
    return dims.product(d for x, d in label_sizes(anchor).items() if x not in out)


def split_calls(name: str, product: Product, part: Size, inside: Collection[Node], buffers: Mapping[Node, Buffer],
                target: Target, line=None) -> list[Call]:
    """The kernel calls of a product whose sums are cut into parts of `part` terms."""
    anchor, region = product.anchor, product.epilogue
    parts = dims.floordiv(summed(anchor) + part - 1, part)
    memory = stand_in(TensorType(anchor.type.dtype.arithmetic, tuple(anchor.type.shape)))
    partial = Buffer(f"{name}_parts", parts * memory.type.bytes)
    alone = Region([], region.sizes, {anchor: region.placement[anchor]}, frozenset(), {}, (anchor,))
    first = ContractLowering(f"{name}_parts", replace(product, epilogue=alone), inside, {**buffers, anchor: partial}, target,
                             line, part=part)
    return [*first.calls(), _joined(name, region, anchor, memory, partial, parts, buffers, line)]


def _joined(name: str, region: Region, anchor: Node, memory: Node, partial: Buffer, parts: Size,
            buffers: Mapping[Node, Buffer], line) -> Call:
    """The kernel that adds up the parts' results and computes what follows from them."""
    placement, strides = region.placement[anchor], contiguous(memory.type.shape)
    whole = replace(region, loads={**region.loads, memory: Source(memory, strides, 0)},
                    placement={**region.placement, memory: placement})
    lowering = LoopLowering(name, whole, buffers, line)
    parallel, _ = lowering.order
    parameters, dtype = Parameters(), memory.type.dtype
    axes = lowering.strides(parameters, parallel, [])
    step = parameters.size(memory.type.elements)
    access = Access(parameters.buffer(partial), dtype.short, (("r0", step), *axes.over_axes(strides, placement)))
    body = (Load("part", access),)
    total = Accumulator("acc", dtype.short, "part", "{acc} + {x}", "horizontal_add", 0)
    product, rounded = rounded_product(anchor)
    writer = Writer(region, buffers, parameters, axes, (anchor, product))
    after = (*rounded, *writer.section([(n, True) for n in [anchor, *region.nodes] if n in region.outputs]))
    phases = (Phase(body, (total,), after),)
    kernel = LoopKernel(f"{name}_join", parameters.buffer_names, parameters.size_names,
                        lowering.sizes(parameters, parallel, "p"), (("r0", parameters.size(parts, keep=())),),
                        f"p{len(parallel) - 1}" if parallel else "r0", (), phases, item_bytes((), phases),
                        wide=lowering.width((), phases) if parallel else 1, may_fail=bool(parameters.failures))
    kernel = replace(kernel, sizes=parameters.size_names)
    return parameters.call(kernel, serial=not parallel, operations=memory.type.elements * (parts + lowering.cost()),
                           location=line)
