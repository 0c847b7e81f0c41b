"""Pooling of a convolution's result: of windows side by side within the convolution's kernel, else by a kernel of its own."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graphc.codegen.kernel import Access, Load, Phase, Pool, Statement
from graphc.codegen.loops import LoopLowering
from graphc.codegen.lower import Buffer, Call, Parameters
from graphc.codegen.statements import Strides, Writer
from graphc.ir.dims import Size
from graphc.ir.node import Node
from graphc.ir.op import Kind
from graphc.passes.products import Pooled, Pooling
from graphc.passes.regions import Region, Source, contiguous

KEPT = "kept"       # what statements call the place where a tile's element (m, n) = (0, 0) would be kept


class PoolLowering:
    """The pooling behind a convolution. `epilogue` is the region that makes the pooled value."""

    def __init__(self, name: str, pooling: Pooling, epilogue: Region):
        self.name, self.pooling, self.region, self.value = name, pooling, pooling.region, pooling.value
        self.axis: dict[int, Pooled] = {axis: p for p, axis in zip(pooling.axes, epilogue.placement[self.value], strict=True)
                                        if axis is not None}
        self.map = Buffer(f"{name}_map", self.value.type.bytes)
        self.order_map(epilogue)

    def order_map(self, epilogue: Region) -> None:
        """Let the pooled value, where it lies in memory, have its axes in the order of those of the outputs."""
        placement, order = epilogue.placement[self.value], list(range(self.value.type.rank))
        if self.region.memory:
            windows = [p.window for p in self.pooling.axes]
            order.sort(key=lambda a: -1 if windows[a] is None else self.region.memory.index(windows[a]))
            epilogue.memory = tuple(axis for a in order if (axis := placement[a]) is not None)
        strides = contiguous([self.value.type.shape[a] for a in order])
        self.strides = tuple(strides[order.index(a)] for a in range(len(order)))
        epilogue.stores[self.value] = self.strides, 0

    def taking(self, strides: Mapping[int, Size]) -> Region:
        """The region with these strides, over its axes, of the value that it pools."""
        loads = dict(self.region.loads)
        for load, source in loads.items():
            if source.node is self.value:
                over = tuple(0 if a is None else strides.get(a, 0) for a in self.region.placement[load])
                loads[load] = Source(self.value, over, 0)
        return replace(self.region, loads=loads)

    def apart(self, buffers: Mapping[Node, Buffer], line) -> list[Call]:
        """The kernel calls that pool the value from memory."""
        strides: dict[int, Size] = {}
        for p, stride in zip(self.pooling.axes, self.strides, strict=True):
            strides |= {a: s for a, s in ((p.window, p.step * stride), (p.tap, stride)) if a is not None}
        return LoopLowering(self.name, self.taking(strides), {**buffers, self.value: self.map}, line).calls()

    # within the kernel -------------------------------------------------------------------------------------------------

    def windows(self, axis: int, size: Size) -> Size:
        """The number of windows along an axis of the epilogue that has this size."""
        p = self.axis[axis]
        return size if p.tap is None else 1 if p.window is None else self.region.sizes[p.window]

    def step(self, axis: int | None) -> Pooled:
        """How an axis of the epilogue is walked."""
        return Pooled(axis) if axis is None else self.axis[axis]

    def loops(self, pool: Pool, axes: Mapping[str, int], sizes: Sequence[tuple[str, Size]]) -> list[tuple[str, Size]]:
        """The kernel's loops in place of loops of these names and sizes."""
        windows = {axis: window for axis, window, *_ in pool.moves}
        return [(windows.get(name, name), self.windows(axes[name], size)) for name, size in sizes if windows.get(name, name)]

    def fits(self, epilogue: Region, rows: int | None, columns: int) -> bool:
        """Whether tiles with these axes of the epilogue as rows and columns may be pooled at once: nothing that the epilogue
        takes may vary along rows, which number windows.
        """
        simple = all(n.op.kind is Kind.ELEMENTWISE and not n.op.rule.fails for n in epilogue.nodes)
        if not simple or any(self.region.reduces(n) and n.op.rule.arg for n in self.region.nodes):
            return False
        if rows is not None and self.axis[rows].tap is not None:
            taken = any(rows in epilogue.axes(n) for n in epilogue.loads if n in epilogue.placement)
            return self.axis[rows].window is not None and not taken and self.axis[columns].tap is None
        return self.axis[columns].tap is None

    def kernel_part(self, buffers: Mapping[Node, Buffer], parameters: Parameters, axes: Mapping[str, int],
                    tile: tuple[int, int]) -> Pool:
        """What the kernel does with tiles of (rows, columns). axes: the epilogue's axis of each loop, of "m" and "n"."""
        rows, width = tile
        groups: list[tuple[str, list[int]]] = []
        taps: list[tuple[str, int]] = []
        moves: list[tuple[str, str, str, int]] = []
        strides: dict[int, int] = {}
        for name, axis in axes.items():
            p, own = self.axis[axis], name in ("m", "n")
            window = name if own or p.tap is None else f"w{name[1:]}"
            groups.append((window, [] if p.window is None else [p.window]))
            if own and p.window is not None:
                strides[p.window] = width if name == "m" else 1
            if p.tap is not None:
                tap = f"t{name[1:] if not own else name}"
                taps.append((tap, p.taps))
                groups.append((tap, [p.tap]))
                moves += [] if own else [(name, "" if p.window is None else window, tap, p.step)]
        step = rows * width
        for tap, size in reversed(taps):
            strides[dict(groups)[tap][0]] = step
            step *= size
        kept = Buffer(f"{self.name}_kept", step * self.value.type.dtype.size, per_thread=True)
        region = self.taking(strides)
        name = parameters.buffer(kept, write=True)
        inner = {**buffers, self.value: kept}
        lowering = LoopLowering(self.name, region, inner)
        writer = Writer(region, inner, parameters, Strides(region, parameters, groups))
        before = writer.section(lowering.row_targets(0))
        phases = [lowering.phase(writer, k, "n") for k in range(lowering.phase_count())]
        at = (*((tap, strides[dict(groups)[tap][0]]) for tap, _ in taps), ("m", width), ("n", 1))
        found = [Phase(self.renamed(p.body, name), p.accumulators, self.renamed(p.after, name)) for p in phases]
        return Pool(tuple(taps), tuple(moves), name, Access(KEPT, self.value.type.dtype.short, at, whole=True), step,
                    self.renamed(before, name), tuple(found))

    @staticmethod
    def renamed(statements: Sequence[Statement], kept: str) -> tuple[Statement, ...]:
        """The statements with `KEPT` in place of a buffer."""
        return tuple(replace(s, access=replace(s.access, buffer=KEPT, whole=True))
                     if isinstance(s, Load) and s.access.buffer == kept else s for s in statements)
