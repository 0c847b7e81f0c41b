"""THE list of passes, in order, each with the reason for its place."""
from __future__ import annotations

from graphc.passes.differentiate import differentiate
from graphc.passes.fuse import fuse
from graphc.passes.infer_shapes import infer_shapes
from graphc.passes.layout import layout
from graphc.passes.loops import loops
from graphc.passes.place import place
from graphc.passes.resolve_state import resolve_state
from graphc.passes.segment import segment
from graphc.passes.simplify import simplify
from graphc.passes.sparse_updates import sparse_updates
from graphc.passes.thin_products import thin_products
from graphc.passes.widen import widen

# What a graph means; the interpreter runs these alone.
SEMANTICS = [
    infer_shapes,    # re-derives every type, and gives dims that must be equal one name
    differentiate,   # before rewrites: they may remove the very node that we differentiate by
    resolve_state,   # after differentiate: gradients flow to reads of variables, which vanish here
]

PIPELINE = [
    *SEMANTICS,
    simplify,        # gradients leave many x*1 and copies; equal pure nodes merge here
    sparse_updates,  # after simplify, which leaves reads of variables bare; before fuse, which would join the sums
    loops,           # after simplify, which shows what is a plain sum of products
    segment,         # after simplify: fewer nodes are left to carry over; before what works on kernels alone
    thin_products,   # before fuse: a product with one row or column becomes a sum, which fuses with its neighbours
    widen,           # before fuse, which makes the casts a part of each kernel's loads and stores
    fuse,            # nodes -> regions, one kernel each
    layout,          # after fuse: what passes between regions may lie in memory in any order
    place,           # after fuse: a device is chosen for whole regions
]


def pipeline(few: bool) -> list:
    """The list for a program; `few`: for batches that do not fill vectors, which gain nothing from lying innermost."""
    return [p for p in PIPELINE if not (few and p is layout)]
