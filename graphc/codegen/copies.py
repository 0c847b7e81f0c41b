"""Lowering of what only moves data: copies, fills, assemblies of parts, and sums into rows picked by an index."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphc.codegen.kernel import Check, Compute, LoopKernel, Phase, Store
from graphc.codegen.loops import LoopLowering
from graphc.codegen.lower import Buffer, Call, Failure, Parameters
from graphc.codegen.statements import Strides, Writer, item_bytes
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.node import CONSTANT, INPUT, Node
from graphc.ir.op import Array
from graphc.ir.types import TensorType, int32, uint8
from graphc.passes.regions import MOVEMENT, Region, Source, contiguous, part_places, source_of


def stand_in(type_: TensorType) -> Node:
    """A node that stands for memory which no node of the graph describes."""
    return Node(INPUT, (), {"type": type_, "role": "feed", "variable": None}, type_, name="memory")


def whole_domain(shape: Sequence[Size]) -> tuple[list[Size], tuple[int | None, ...]]:
    """(sizes of the domain, placement) of a value that spans the domain alone."""
    sizes: list[Size] = []
    placement: list[int | None] = []
    for d in shape:
        placement.append(None if d == 1 else len(sizes))
        if d != 1:
            sizes.append(d)
    return sizes, tuple(placement)


class _Copy(LoopLowering):
    """A region without arithmetic: its output is its load."""

    def row_targets(self, phase, stores=True):
        return [(n, True) for n in self.region.outputs]


def copy_call(name: str, value: Node, source: Source, read: Buffer | None, written: Buffer,
              stored: tuple[tuple[Size, ...], Size] | None = None, line=None) -> Call:
    """A kernel that copies something of `value`'s type from `source` into `written` (at `stored`, else filling it)."""
    value = stand_in(value.type)  # it must not be the node that it is copied from
    sizes, placement = whole_domain(value.type.shape)
    region = Region([], sizes, {value: placement}, frozenset(), {value: source}, (value,),
                    stores={value: stored} if stored else {})
    buffers = {value: written} | ({source.node: read} if read is not None else {})
    return _Copy(name, region, buffers, line).whole()


def raw_copy(type_: TensorType, read: Buffer, written: Buffer) -> Call:
    """A kernel that copies a whole value, whatever it holds: as words of 4 bytes, or as bytes, so that few kernels do."""
    width = 4 if type_.dtype.size >= 4 else 1
    words = TensorType(int32 if width == 4 else uint8, (type_.elements * (type_.dtype.size // width),))
    value = stand_in(words)
    return copy_call("copy", value, Source(value, (1,), 0), read, written)


def fill_call(type_: TensorType, number, written: Buffer, line=None) -> Call:
    """A kernel that fills `written` with a number."""
    array = np.array(number, type_.dtype.numpy)
    literal = Node(CONSTANT, (), {"value": Array(array)}, TensorType(type_.dtype, ()))
    return copy_call("fill", stand_in(type_), Source(literal, (0,) * type_.rank, 0), None, written, line=line)


def assemble_calls(node: Node, buffers: Mapping[Node, Buffer], inside=frozenset(), computed=frozenset()) -> list[Call]:
    """The fill and the copies of an ASSEMBLE node in a region of the nodes `inside`, which stores what is `computed` itself."""
    calls = []
    fill = node.op.rule.fill(node.attrs)
    if fill is not None:
        calls.append(fill_call(node.type, fill, buffers[node], node.location))
    for source, place in zip(node.inputs, part_places(node), strict=True):
        if source not in computed:
            memory = source_of(source, lambda n: n in inside and n.op.kind in MOVEMENT)
            # A constant of one element has no memory: it is a literal.
            calls.append(copy_call(node.op.name, stand_in(source.type), memory, buffers.get(memory.node), buffers[node], place,
                                   node.location))
    return calls


def scatter_calls(node: Node, buffers: Mapping[Node, Buffer]) -> list[Call]:
    """A start, then each update put into its row, in order: the same bits at any number of threads.

    The start is zeros, or a copy of what is scattered into. That copy the plan may spare, so that the rows of a variable
    are changed where they are. Then no kernel may fail any more: so the indices are checked by a kernel of their own, first.
    """
    rule, result = node.op.rule, buffers[node]
    if not rule.into:
        return [fill_call(node.type, 0, result, node.location), _scattered(node, buffers, checks=True)]
    base = node.inputs[0]
    source = Source(base, contiguous(base.type.shape), 0)
    start = copy_call("copy", stand_in(base.type), source, buffers.get(base), result, line=node.location)
    start.initial = buffers.get(base)
    return [_check_indices(node, buffers), start, _scattered(node, buffers, checks=False)]


def _index_failure(node: Node) -> Failure:
    """What it means that an index of a SCATTER node is out of range."""
    indices, axis = node.inputs[-2], node.op.rule.axis(node.attrs)
    return Failure(node.op.name, "index out of range", node.op.inputs[-2], indices.type.dtype.name,
                   tuple(indices.type.shape), node.type.shape[axis], node.location)


def _check_indices(node: Node, buffers: Mapping[Node, Buffer]) -> Call:
    """A kernel that only looks whether all indices are in range."""
    indices = node.inputs[-2]
    count = dims.product(indices.type.shape)
    sizes, placement = whole_domain((count,))
    flat = stand_in(TensorType(indices.type.dtype, (count,)))
    region = Region([], sizes, {flat: placement}, frozenset(), {flat: Source(indices, (1,), 0)}, ())
    parameters = Parameters()
    over = Strides(region, parameters, [("p0", list(range(len(sizes))))])
    writer = Writer(region, buffers, parameters, over)
    body = writer.section([(flat, False)])
    limit = parameters.size(node.type.shape[node.op.rule.axis(node.attrs)], keep=())
    number = parameters.failure(_index_failure(node))
    body.append(Compute("row", "i64", f"to_i64({writer.names[flat]})", (writer.names[flat],)))
    body.append(Check(f"(row < 0) | (row >= splat_i64({limit}))", "row", number, over.over_axes((1,), placement), ("row",)))
    axes = (("p0", parameters.size(count, keep=(1,))),)
    kernel = LoopKernel("check_indices", parameters.buffer_names, parameters.size_names,
                        axes, (), "p0", tuple(body), (), item_bytes(body, ()), may_fail=True)
    return parameters.call(kernel, operations=count, location=node.location)


def _scattered(node: Node, buffers: Mapping[Node, Buffer], checks: bool) -> Call:
    """The kernel that adds or puts the updates; with `checks`, it reports an index out of range."""
    indices, updates = node.inputs[-2:]
    rule = node.op.rule
    axis, count = rule.axis(node.attrs), indices.type.rank
    sizes, placement = whole_domain(updates.type.shape)
    index_placement = placement[axis:axis + count]
    walked = [a for a in index_placement if a is not None]
    parallel = [a for a in range(len(sizes)) if a not in walked]
    region = Region([], sizes, {updates: placement, indices: index_placement}, frozenset(walked),
                    {n: Source(n, contiguous(n.type.shape), 0) for n in (updates, indices)}, ())
    parameters = Parameters()
    names = [(f"p{k}", [a]) for k, a in enumerate(parallel)] + [(f"r{k}", [a]) for k, a in enumerate(walked)]
    over = Strides(region, parameters, names)
    writer = Writer(region, buffers, parameters, over)
    body = writer.section([(indices, False), (updates, False)])
    result = contiguous(node.type.shape)
    row, rest = result[axis], (*result[:axis], *result[axis + 1:])
    access_placement = (*placement[:axis], *placement[axis + count:])
    failure = parameters.failure(_index_failure(node)) if checks else -1
    target = writer.store_at(writer.names[updates], buffers[node], node.type.dtype.short,
                             over.over_axes(rest, access_placement))
    body.append(Store(target.value, target.access, writer.names[indices], parameters.size(row),
                      parameters.size(node.type.shape[axis], keep=()), failure,
                      over.over_axes(contiguous(indices.type.shape), index_placement), action=rule.action))
    axes_p = tuple((n, parameters.size(sizes[a], keep=(1,))) for n, (a,) in names if n[0] == "p") or (("p0", 1),)
    axes_r = tuple((n, parameters.size(sizes[a], keep=(1,))) for n, (a,) in names if n[0] == "r") or (("r0", 1),)
    phase = Phase(tuple(body), (), ())
    kernel = LoopKernel(node.op.name, parameters.buffer_names, parameters.size_names, axes_p, axes_r, axes_p[-1][0], (),
                        (phase,), item_bytes((), (phase,)), may_fail=checks)
    return parameters.call(kernel, serial=not parallel, operations=dims.product(sizes), location=node.location)
