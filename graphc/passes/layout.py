"""Puts the batch innermost in memory where that serves convolutions: lanes then run along it in all that they read and write.

A convolution whose numbers of channels do not fill vectors wastes lanes if they run along the channels; the batch of a training
step fills them. What regions hand to each other may lie in memory in any order, as long as nobody else looks at it. This pass
turns the first axis of such values to the last place: the region that makes one ends with a transpose, which its stores absorb;
those that take it begin with the opposite one, which their loads absorb.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

from graphc.ir.container import detached
from graphc.ir.dims import Size
from graphc.ir.graph import Graph, named, rebuild, users
from graphc.ir.images import FULL, image_batch, labels_and_windows
from graphc.ir.node import INPUT, RESULT, Node, make
from graphc.ir.op import Kind
from graphc.ir.types import TensorType
from graphc.ops.movement import transpose_to
from graphc.passes.manager import graph_pass
from graphc.passes.products import analyse_product
from graphc.passes.regions import COMPUTED, MOVEMENT, NotARegion, analyse, source_of, stored_root

WELL_USED = 0.75    # of the lanes: the batch innermost is no better, and worse where it fills only a few vectors
LEAST_RANK = 3      # of a value with a batch, channels and an axis that a window moves along
KNOWN = COMPUTED | MOVEMENT | {Kind.CONTRACT, Kind.INPUT, Kind.CONSTANT}


@graph_pass(needs=["fused"], nested=True)
def layout(graph: Graph) -> Graph:
    """Turn the first axis of values around convolutions to the last place in memory."""
    return _Turner(graph).run()


class _Turner:
    def __init__(self, graph: Graph):
        self.graph = graph
        order = graph.nodes()
        self.regions = [n for n in order if n.op.kind is Kind.REGION]
        self.users = users(order)
        self.results: dict[Node, list[tuple[int, Node]]] = {}  # region -> (number of the result, value)
        for node in order:
            if node.op is RESULT and node.inputs[0].op.kind is Kind.REGION:
                self.results.setdefault(node.inputs[0], []).append((node.attrs["index"], node))
            elif node.op.kind is Kind.REGION and not isinstance(node.type, tuple):
                self.results[node] = [(0, node)]

    def run(self) -> Graph:
        turned = self.turned()

        def replace(node, inputs, control):
            starts, ends = self.parts(node, turned) if node.op.kind is Kind.REGION else ([], [])
            if not starts and not ends:
                return None
            return make(node.op, inputs, {**node.attrs, "body": with_order(node.attrs["body"], starts, ends)}, name=node.name,
                        location=node.location)
        return rebuild(self.graph, replace) if turned else self.graph

    def parts(self, region: Node, turned: set[Node]) -> tuple[list[int], list[int]]:
        """(numbers of a region's inputs, of its outputs) that are turned."""
        return ([k for k, i in enumerate(region.inputs) if i in turned],
                [k for k, value in self.results.get(region, ()) if value in turned])

    def turned(self) -> set[Node]:
        """The values to turn: those between convolutions, and between them and the regions that work on the same values."""
        seeds = [r for r in self.regions if _fills(_batch(r))]
        if not _waste_lanes(seeds):
            return set()
        sizes = {_batch(r) for r in seeds}
        free = {value for r in self.regions for k, value in self.results.get(r, ()) if self.is_free(r, k, value, sizes)}
        reached, waiting = set(), list(seeds)
        found: set[Node] = set()
        while waiting:
            region = waiting.pop()
            if region in reached:
                continue
            reached.add(region)
            for value in (*region.inputs, *(v for _, v in self.results.get(region, ()))):
                if value in free and value not in found:
                    found.add(value)
                    maker = value.inputs[0] if value.op is RESULT else value
                    waiting += [r for r in (maker, *self.users[value]) if _anchor(r) is None or _batch(r) is not None]
        return self.feasible(found)

    def feasible(self, turned: set[Node]) -> set[Node]:
        """Without the values that some region cannot take or give that way."""
        waiting = list(self.regions)
        while waiting:
            region = waiting.pop()
            starts, ends = self.parts(region, turned)
            if (starts or ends) and not _fits(region.attrs["body"], starts, ends):
                turned = turned - {region.inputs[k] for k in starts} - {v for k, v in self.results[region] if k in ends}
                waiting = list(self.regions)
        return turned

    def is_free(self, region: Node, k: int, value: Node, sizes: set) -> bool:
        """Whether nobody but regions looks at a result, and it has the shape that makes turning it worth while."""
        root = region.attrs["body"].outputs[k]
        return isinstance(value.type, TensorType) and value.type.rank >= LEAST_RANK and value.type.shape[0] in sizes and \
            value not in self.graph.outputs and root.op.kind in COMPUTED | {Kind.CONTRACT} and \
            all(u.op.kind is Kind.REGION for u in self.users.get(value, ()))


def _anchor(region: Node) -> Node | None:
    return next((n for n in region.attrs["body"].nodes() if n.op.kind is Kind.CONTRACT), None)


def _batch(region: Node) -> Size | None:
    """The size of the axis that a region's convolution has first in both its images; None if it has no convolution."""
    anchor = _anchor(region)
    return None if anchor is None else image_batch(anchor)


def _fills(batch: Size | None) -> bool:
    """Whether a batch fills vectors. One of no known size does: this pass is left out where it is smaller."""
    return batch is not None and (not isinstance(batch, int) or batch >= FULL)


def _waste_lanes(regions: Sequence[Node]) -> bool:
    """Whether lanes along the channels would be empty for much of the work of these regions' convolutions: of each, along the
    axis of its result that fills them best.
    """
    done = taken = 0.0
    for region in regions:
        work, filled = _use_of_lanes(region)
        done, taken = done + work, taken + work / filled
    return done < WELL_USED * taken


def _use_of_lanes(region: Node) -> tuple[int, float]:
    """(multiply-adds of a convolution for one image, the part of all lanes that its channels fill)."""
    anchor = _anchor(region)
    assert anchor is not None
    tensors, windows = labels_and_windows(anchor)
    tied = {x for w in windows for x in (w.position, w.output, w.tap)}
    first = next(labels[0] for labels in tensors if any(w.tap not in labels for w in windows))
    sizes = {x: d if isinstance(d, int) else FULL for labels, node in zip(tensors, (*anchor.inputs, anchor), strict=True)
             for x, d in zip(labels, node.type.shape, strict=True) if x is not None}
    terms = [d for x, d in sizes.items() if x != first and x not in {w.position for w in windows}]
    return math.prod(terms), max((d / (-(-d // FULL) * FULL) for x, d in sizes.items()
                                  if x in tensors[2] and x not in tied and x != first and d > 0), default=1 / FULL)


def with_order(body: Graph, starts: Sequence[int], ends: Sequence[int]) -> Graph:
    """A region's body whose inputs `starts` come, and whose outputs `ends` go, with their first axis last."""
    inputs = list(body.inputs)
    straight: dict[Node, Node] = {}
    with detached():
        for k in starts:
            old = inputs[k]
            type_ = old.type.with_shape((*old.type.shape[1:], old.type.shape[0]))
            inputs[k] = Node(INPUT, (), {**old.attrs, "type": type_}, type_, name=old.name, location=old.location)
            straight[old] = transpose_to(inputs[k], perm=(type_.rank - 1, *range(type_.rank - 1)))
        changed = rebuild(Graph(body.name, (), body.outputs), lambda node, new, control: straight.get(node))
        outputs = [transpose_to(o, perm=(*range(1, o.type.rank), 0)) if k in ends else o for k, o in enumerate(changed.outputs)]
    return named(Graph(body.name, tuple(inputs), tuple(outputs)))


def _fits(body: Graph, starts: Sequence[int], ends: Sequence[int]) -> bool:
    """Whether one kernel can still compute a body in that order."""
    new = with_order(body, starts, ends)
    order = new.nodes()
    if any(n.op.kind not in KNOWN for n in order):
        return False
    members = [n for n in order if n.op.kind not in (Kind.INPUT, Kind.CONSTANT)]
    anchor = next((n for n in members if n.op.kind is Kind.CONTRACT), None)
    roots = [stored_root(o)[0] for o in new.outputs]
    try:
        if anchor is not None:
            analyse_product(order, members, roots, anchor)
        elif any(n.op.kind in COMPUTED for n in members):
            analyse(order, members, roots)
        else:
            source_of(members[-1], lambda n: n.op.kind in MOVEMENT)
    except NotARegion:
        return False
    return True
