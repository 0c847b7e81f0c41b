"""Whether nodes are a region, and whether it would pay: what `fuse` asks before it joins two groups."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.node import Node
from graphc.ir.op import Kind
from graphc.passes.products import Product, analyse_product, column_side, other_sizes
from graphc.passes.regions import NotARegion, Region, analyse

MAX_STREAMS = 2     # arrays that an epilogue may stream beside the tile or the reduction before it is a loop of its own
CHEAP = 10          # vector instructions for an element that may be computed a few times over
FEW_COLUMNS = 128   # results so narrow that a row of A meets only a few panels of B
ONE_TILE = 8        # rows, or columns, that always are in one tile


def analysed(members: Sequence[Node], outputs: Sequence[Node], anchor: Node | None) -> Region | Product:
    """The analysis of a region, its nodes and outputs in order. Raises NotARegion."""
    return analyse(members, members, outputs) if anchor is None else analyse_product(members, members, outputs, anchor)


def verdict(members: Sequence[Node], outputs: Sequence[Node], anchor: Node | None) -> str | None:
    """Why nodes are no region, or would not pay; None when they are one."""
    try:
        region = analysed(members, outputs, anchor)
    except NotARegion as e:
        return str(e)
    return product_obstacle(region) if isinstance(region, Product) else cost_obstacle(region)


def cost_obstacle(region: Region) -> str | None:
    """Why a loop region would not pay: its epilogue streams more arrays than the reduction before it."""
    return streams_obstacle(region) if region.reduced else None


def streams_obstacle(region: Region) -> str | None:
    """Why an epilogue would not pay: it streams too many arrays."""
    axes = frozenset(region.parallel)
    streams = sum(1 for load in region.loads if load in region.placement and axes and region.axes(load) == axes)
    return f"its epilogue streams {streams} arrays" if streams > MAX_STREAMS else None


def product_obstacle(product: Product) -> str | None:
    """Why a region around a contraction would not pay.

    Every thread computes the columns of B once for each panel that it works on, and its rows of A once for each tile, in the
    worst case again for each panel. So a prologue of A must be cheap and its rows must meet few panels; one of B may be used
    by many rows but must be cheap, since several threads may work on a panel. One that costs more must be computed but once.
    """
    anchor = product.anchor
    if product.epilogue.reduced:
        return "a reduction of a contraction"
    for side, region in enumerate(product.prologues):
        if region is not None:
            cost = sum(node_cost(n) for n in region.nodes)
            uses = dims.product(other_sizes(anchor, side))
            columns = side == column_side(anchor)
            limit = ONE_TILE if cost > CHEAP else None if columns else FEW_COLUMNS
            if limit is not None and not at_most(uses, limit):
                return f"{anchor.inputs[side].label} would be computed again and again: {uses} " \
                       f"{'rows' if columns else 'columns'} need it, about {cost} instructions each time"
    return streams_obstacle(product.epilogue) or streams_obstacle(product.last)


def node_cost(node: Node) -> int:
    """About how many vector instructions an element of a node costs."""
    if node.op.kind is Kind.ELEMENTWISE:
        return node.op.rule.cost
    return {Kind.RANDOM: 40, Kind.GATHER: 4}.get(node.op.kind, 1)


def at_most(size: Size, limit: int) -> bool:
    """Whether a size surely is no more than `limit`."""
    return isinstance(size, int) and size <= limit
