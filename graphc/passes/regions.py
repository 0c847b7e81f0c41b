"""What a region is: nodes that one loop nest can compute. `fuse` asks whether a set of nodes is one; `lower` asks how.

A region works on a *domain*: a list of axes, none of size 1. Each computed node gets a *placement*: the domain axis of each
of its own axes (None where its size is 1). Axes that the region's reductions remove are *reduced*, the others *parallel*.
A node without a reduced axis is at *row* level: it is computed once for each point of the parallel axes.
Values from outside are *loads*: a chain of views and moves from a parameter, composed into one affine index map.
"""
from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from graphc.ir.dims import Size, product
from graphc.ir.node import Node
from graphc.ir.op import IndexMap, Kind

COMPUTED = {Kind.ELEMENTWISE, Kind.REDUCE, Kind.INDEX, Kind.RANDOM, Kind.GATHER}
MOVEMENT = {Kind.MOVE, Kind.VIEW}
Placement = tuple[int | None, ...]


class NotARegion(Exception):
    """A set of nodes is no region; the text says why."""


@dataclass(frozen=True)
class Bound:
    """A condition on a load: offset + sum(strides[a] * coordinate a of the loaded value) is in [0, limit)."""

    strides: tuple[Size, ...]
    offset: Size
    limit: Size


@dataclass(frozen=True)
class Source:
    """Where a load's elements are: in `node`'s memory at offset + sum(strides[a] * coordinate a of the loaded value).

    Where a bound does not hold, the element is `fill` and nothing is read.
    """

    node: Node
    strides: tuple[Size, ...]
    offset: Size
    bounds: tuple[Bound, ...] = ()
    fill: float | int | bool = 0


def is_size_value(node: Node) -> bool:
    """Whether a node is a number computed from sizes alone, such as 1 / N: every region that needs it computes it itself."""
    if node.op.kind is Kind.INDEX:
        return node.type.shape == ()
    if node.op.kind is not Kind.ELEMENTWISE or node.type.shape != () or node.op.rule.fails or not node.inputs:
        return False
    return all(i.op.kind is Kind.CONSTANT and i.type.shape == () or is_size_value(i) for i in node.inputs)


def size_nodes(node: Node) -> set[Node]:
    """A number computed from sizes, and the numbers that it is computed from."""
    return {node}.union(*(size_nodes(i) for i in node.inputs if is_size_value(i)))


def contiguous(shape: Sequence[Size]) -> tuple[Size, ...]:
    """Row-major strides, in elements."""
    return _contiguous(tuple(shape))


@functools.lru_cache(4096)
def _contiguous(shape: tuple[Size, ...]) -> tuple[Size, ...]:
    strides: list[Size] = []
    step: Size = 1
    for d in reversed(shape):
        strides.append(step)
        step = step * d
    return tuple(reversed(strides))


def index_map(node: Node) -> IndexMap:
    """The index map of a MOVE node."""
    return node.op.rule.access(node.inputs[0].type, node.type, node.attrs)


def source_of(node: Node, inside) -> Source:
    """The memory behind `node` through views and moves that are `inside`; the node's own memory when it is not movement.

    Raises NotARegion when a view stands on memory that is no longer in order, so that a copy is needed.
    """
    chain = [node]
    while chain[-1].op.kind in MOVEMENT and inside(chain[-1]):
        chain.append(chain[-1].inputs[0])
    root = chain.pop()
    found = Source(root, contiguous(root.type.shape), 0)
    for step in reversed(chain):
        found = through(found, step)
    return found


def through(source: Source, step: Node) -> Source:
    """The source of a movement node's value, from that of its input."""
    shape = step.inputs[0].type.shape
    if step.op.kind is Kind.VIEW:
        bounds = tuple(Bound(_through_bound(shape, b.strides, step.type.shape), b.offset, b.limit) for b in source.bounds)
        return Source(source.node, _viewed(shape, source.strides, step.type.shape), source.offset, bounds, source.fill)
    found = index_map(step)

    def moved(strides, offset) -> tuple[tuple[Size, ...], Size]:
        new: list[Size] = [0] * step.type.rank
        for a, axis in enumerate(found.axes):
            offset = offset + strides[a] * found.offsets[a]
            if axis is not None:
                new[axis] = new[axis] + strides[a] * found.steps[a]
        for a, axis, term in found.more:
            new[axis] = new[axis] + strides[a] * term
        return tuple(new), offset
    old = [Bound(*moved(b.strides, b.offset), b.limit) for b in source.bounds]
    own = [Bound(*moved([int(k == a) for k in range(len(shape))], 0), shape[a]) for a in range(len(shape))] \
        if found.fill is not None else []
    own = [b for b in own if not _always_holds(b, step.type.shape)]
    if old and own and source.fill != found.fill:
        raise NotARegion("elements from outside an array within another array's outside")
    return Source(source.node, *moved(source.strides, source.offset), (*old, *own), found.fill if own else source.fill)


def _always_holds(bound: Bound, shape: Sequence[Size]) -> bool:
    """Whether a bound surely holds for all coordinates below `shape`."""
    terms = [(s, d) for s, d in zip(bound.strides, shape, strict=True) if s != 0]
    if terms == [(1, bound.limit)] and bound.offset == 0:
        return True
    numbers = [bound.offset, bound.limit, *(n for term in terms for n in term)]
    if not all(isinstance(n, int) for n in numbers):
        return False
    ends = [s * (d - 1) for s, d in terms]  # type: ignore[operator]
    return bound.offset + sum(e for e in ends if e < 0) >= 0 and \
        bound.offset + sum(e for e in ends if e > 0) < bound.limit  # type: ignore[operator]


def _through_bound(shape, strides, new_shape) -> tuple[Size, ...]:
    """The strides of a bound after a reshape, which may only add and drop axes of size 1."""
    kept = [(d, s) for d, s in zip(shape, strides, strict=True) if d != 1]
    if [d for d, _ in kept] != [d for d in new_shape if d != 1]:
        raise NotARegion("a view of elements of which some lie outside an array")
    rest = iter(kept)
    return tuple(0 if d == 1 else next(rest)[1] for d in new_shape)


def _viewed(shape, strides, new_shape) -> tuple[Size, ...]:
    """Strides after a reshape: axes that together keep their size are split and joined where they are in order in memory."""
    old = [(d, s) for d, s in zip(shape, strides, strict=True) if d != 1]
    new = [k for k, d in enumerate(new_shape) if d != 1]
    if all(s == c for d, s, c in zip(shape, strides, contiguous(shape), strict=True) if d != 1):
        return contiguous(new_shape)
    found: list[Size] = [0] * len(new_shape)
    while old and new:
        before, after = [old.pop(0)], [new.pop(0)]
        while (left := product(d for d, _ in before)) != (right := product(new_shape[k] for k in after)):
            if not isinstance(left, int) or not isinstance(right, int) or not (old if left < right else new):
                raise NotARegion("a view of elements that are not in order in memory")
            if left < right:
                before.append(old.pop(0))
            else:
                after.append(new.pop(0))
        if any(s != t * d for (_, s), (d, t) in zip(before, before[1:], strict=False)):
            raise NotARegion("a view of elements that are not in order in memory")
        for k, step in zip(after, contiguous([new_shape[k] for k in after]), strict=True):
            found[k] = step * before[-1][1]
    if old or new:
        raise NotARegion("a view of elements that are not in order in memory")
    return tuple(found)


def stored_root(output: Node) -> tuple[Node, tuple[int, ...] | None]:
    """(the computed node behind an output that only has its axes in another order, its axes in that order); the output itself
    and None where it is something else.
    """
    if output.op.kind is Kind.MOVE and output.inputs[0].op.kind in COMPUTED | {Kind.CONTRACT}:
        found = index_map(output)
        if found.is_plain and None not in found.axes and output.type.rank == len(found.axes):
            return output.inputs[0], tuple(found.axes.index(axis) for axis in range(output.type.rank))
    return output, None


@dataclass
class Region:
    """The analysis of a set of nodes. See the module's text."""

    nodes: list[Node]                         # computed ones, in order
    sizes: list[Size]                         # of the domain's axes
    placement: dict[Node, Placement]
    reduced: frozenset[int]
    loads: dict[Node, Source]                 # values that computed nodes take from outside
    outputs: tuple[Node, ...]
    phase: dict[Node, int] = field(default_factory=dict)  # see `_phases`
    stores: dict[Node, tuple[tuple[Size, ...], Size]] = field(default_factory=dict)  # (strides, offset) of outputs, where
    # they do not simply fill a buffer of their own
    memory: tuple[int, ...] = ()              # the axes in the order of the outputs' memory, where that is another one

    @property
    def parallel(self) -> list[int]:
        return [a for a in self.memory or range(len(self.sizes)) if a not in self.reduced]

    def axes(self, node: Node) -> frozenset[int]:
        """The domain axes that a value varies along, by its placement."""
        return frozenset(a for a in self.placement[node] if a is not None)

    def stored(self, node: Node) -> tuple[tuple[Size, ...], Size]:
        """(strides, offset) with which an output is stored."""
        return self.stores.get(node, (contiguous(node.type.shape), 0))

    def reduces(self, node: Node) -> bool:
        """Whether a node is a reduction with something to reduce: over axes of size 1 it is a view of its input."""
        return node.op.kind is Kind.REDUCE and bool(self.axes(node.inputs[0]) - self.axes(node))

    def is_row(self, node: Node) -> bool:
        """Whether a value is computed once for each point of the parallel axes."""
        return not self.axes(node) & self.reduced


def analyse(order: Sequence[Node], members: Iterable[Node], outputs: Sequence[Node], anchor: Node | None = None) -> Region:
    """The region of the computed nodes among `members`, which come in `order`. `anchor`: a node (a contraction) that is
    produced by something else but spans the domain. Raises NotARegion.
    """
    inside = set(members)
    nodes = [n for n in order if n in inside and n.op.kind in COMPUTED]
    if not nodes and anchor is None:
        raise NotARegion("nothing to compute")
    placer = _Placer(nodes, inside, anchor)
    placer.run()
    stores = part_stores(inside, nodes)
    found = (*(o for o in outputs if o.op.kind is not Kind.ASSEMBLE), *stores)
    region = Region(nodes, placer.sizes, placer.placement, placer.reduced(), placer.loads(), found, stores=stores)
    _check_outputs(region, found)
    _phases(region)
    return region


def part_places(node: Node) -> list[tuple[tuple[Size, ...], Size]]:
    """(strides, offset) of each input's elements in the result of an ASSEMBLE node."""
    whole = contiguous(node.type.shape)
    found = []
    for source, where in zip(node.inputs, node.op.rule.parts(tuple(i.type for i in node.inputs), node.type, node.attrs),
                             strict=True):
        offset: Size = 0
        strides: list[Size] = [0] * source.type.rank
        for a, axis in enumerate(where.axes):
            offset = offset + whole[a] * where.offsets[a]
            if axis is not None:
                strides[axis] = whole[a] * where.steps[a]
        found.append((tuple(strides), offset))
    return found


def part_stores(inside, nodes) -> dict[Node, tuple[tuple[Size, ...], Size]]:
    """Where the computed nodes of a region that an ASSEMBLE node in it takes are stored: in its result."""
    return {source: place for node in inside if node.op.kind is Kind.ASSEMBLE
            for source, place in zip(node.inputs, part_places(node), strict=True) if source in nodes}


class _Placer:
    """Finds placements: starts at one node and follows edges both ways until every node has one."""

    def __init__(self, nodes: list[Node], inside: set[Node], anchor: Node | None):
        self.nodes, self.inside, self.anchor = nodes, inside, anchor
        self.placement: dict[Node, Placement] = {}
        self.sizes: list[Size] = []
        self.used: dict[Node, list[Node]] = {}
        members = [n for n in inside if n.op.kind in COMPUTED or n.op.kind in MOVEMENT]
        for node in members:
            for i in node.inputs:
                self.used.setdefault(i, []).append(node)

    def run(self) -> None:
        first = self.first()
        axes: list[int | None] = []
        for d in first.type.shape:
            axes.append(None if d == 1 else len(self.sizes))
            if d != 1:
                self.sizes.append(d)
        self.place(first, tuple(axes))
        waiting = [first]
        while waiting:
            node = waiting.pop()
            for other, placement in self.neighbours(node):
                known = self.placement.get(other)
                if known is None:
                    self.place(other, placement)
                    waiting.append(other)
                elif None in placement or None in known:
                    merged = self.merge(other, known, placement)
                    if merged != known:
                        self.place(other, merged)
                        waiting.append(other)
                elif known != placement:
                    raise NotARegion(f"{other.label} would be needed at two places of the loop nest")
        for node in self.nodes:
            if node not in self.placement:
                raise NotARegion(f"{node.label} has no place in the loop nest")
            self.check_complete(node)

    def first(self) -> Node:
        """The node that spans the domain."""
        if self.anchor is not None:
            return self.anchor
        reductions = [n for n in self.nodes if n.op.kind is Kind.REDUCE]
        return reductions[0].inputs[0] if reductions else max(self.nodes, key=lambda n: sum(d != 1 for d in n.type.shape))

    def merge(self, node: Node, a: Placement, b: Placement) -> Placement:
        merged = tuple(y if x is None else x for x, y in zip(a, b, strict=True))
        if any(y is not None and x != y for x, y in zip(merged, b, strict=True)):
            raise NotARegion(f"{node.label} would be needed at two places of the loop nest")
        return merged

    def place(self, node: Node, placement: Placement) -> None:
        real = [a for a in placement if a is not None]
        if len(set(real)) != len(real):
            raise NotARegion(f"{node.label} would lie on a diagonal")
        for d, a in zip(node.type.shape, placement, strict=True):
            if a is not None and self.sizes[a] != d:
                raise NotARegion(f"{node.label} has another size than the loop nest")
        self.placement[node] = placement

    def check_complete(self, node: Node) -> None:
        for d, a in zip(node.type.shape, self.placement[node], strict=True):
            if a is None and d != 1:
                raise NotARegion(f"an axis of {node.label} has no place in the loop nest")

    def neighbours(self, node: Node):
        """(other node, its placement as far as this edge tells) for the edges of a placed node."""
        placement = self.placement[node]
        if node in self.inside and (node.op.kind in COMPUTED or node.op.kind in MOVEMENT) and node is not self.anchor:
            yield from self.inputs_of(node, placement)
        for user in self.used.get(node, ()):
            if user.op.kind in MOVEMENT and not self.is_computed(user):
                continue  # another view of memory from outside is a load of its own
            found = self.user_placement(node, placement, user)
            if found is not None:
                yield user, found

    def inputs_of(self, node: Node, placement: Placement):
        kind = node.op.kind
        if kind is Kind.REDUCE:
            yield node.inputs[0], self.before_reduce(node, placement)
        elif kind is Kind.ELEMENTWISE:
            for source in node.inputs:
                lead = node.type.rank - source.type.rank
                yield source, tuple(None if d == 1 else placement[k + lead] for k, d in enumerate(source.type.shape))
        elif kind is Kind.GATHER:
            axis, indices = node.op.rule.axis(node.attrs), node.inputs[1]
            yield indices, placement[axis:axis + indices.type.rank]
        elif kind in MOVEMENT:
            yield from self.moved_input(node, placement)

    def before_reduce(self, node: Node, placement: Placement) -> Placement:
        rest = iter(placement)
        return tuple(None if k in node.attrs["axes"] else next(rest) for k in range(node.inputs[0].type.rank))

    def moved_input(self, node: Node, placement: Placement):
        source = node.inputs[0]
        if not self.is_computed(source):
            return
        if node.op.kind is Kind.VIEW:
            yield source, _through_view(node.type.shape, placement, source.type.shape)
        else:
            found = index_map(node)
            if not found.is_plain:
                raise NotARegion(f"{node.label} moves elements that the region computes")
            if any(axis is not None and d not in (1, node.type.shape[axis])
                   for d, axis in zip(source.type.shape, found.axes, strict=True)):
                raise NotARegion(f"{node.label} is a part of what the region computes")
            yield source, tuple(None if axis is None or source.type.shape[a] == 1 else placement[axis]
                                for a, axis in enumerate(found.axes))

    def user_placement(self, node: Node, placement: Placement, user: Node) -> Placement | None:
        kind = user.op.kind
        if kind is Kind.REDUCE:
            return tuple(a for k, a in enumerate(placement) if k not in user.attrs["axes"])
        if kind is Kind.ELEMENTWISE:
            lead = user.type.rank - node.type.rank
            return tuple(placement[k - lead] if k >= lead and user.type.shape[k] == node.type.shape[k - lead] else None
                         for k in range(user.type.rank))
        if kind is Kind.VIEW:
            return _through_view(node.type.shape, placement, user.type.shape)
        if kind is Kind.MOVE:
            found = index_map(user)
            if not found.is_plain:
                return None
            result: list[int | None] = [None] * user.type.rank
            for a, axis in enumerate(found.axes):
                if axis is not None and user.type.shape[axis] == node.type.shape[a]:
                    result[axis] = placement[a]
            return tuple(result)
        if kind is Kind.GATHER and user.inputs[1] is node and user.inputs[0] is not node:
            axis = user.op.rule.axis(user.attrs)
            whole: list[int | None] = [None] * user.type.rank
            whole[axis:axis + node.type.rank] = placement
            return tuple(whole)
        return None

    def is_computed(self, node: Node) -> bool:
        """Whether a value comes, through movement inside the region, from a computed node or the anchor."""
        while node.op.kind in MOVEMENT and node in self.inside:
            node = node.inputs[0]
        return node is self.anchor or node in self.inside and node.op.kind in COMPUTED

    def reduced(self) -> frozenset[int]:
        found: set[frozenset[int]] = set()
        for node in self.nodes:
            if node.op.kind is Kind.REDUCE:
                placement = self.placement[node.inputs[0]]
                found.add(frozenset(a for k, a in enumerate(placement) if k in node.attrs["axes"] and a is not None))
        found.discard(frozenset())
        if len(found) > 1:
            raise NotARegion("reductions along different axes")
        return next(iter(found), frozenset())

    def loads(self) -> dict[Node, Source]:
        found: dict[Node, Source] = {}
        for node in self.nodes:
            for k, source in enumerate(node.inputs):
                if node.op.kind is Kind.GATHER and k == 0:
                    if self.is_computed(source):
                        raise NotARegion("a gather from a value that the region computes")
                    found[source] = source_of(source, self.inside.__contains__)
                    if found[source].bounds:
                        raise NotARegion("a gather from an array that has an outside")
                elif not self.is_computed(source) and source not in found:
                    found[source] = source_of(source, self.inside.__contains__)
                    if source not in self.placement:
                        raise NotARegion(f"{source.label} has no place in the loop nest")
                    self.check_complete(source)
        return found


def _through_view(shape, placement: Placement, new_shape) -> Placement:
    """Placement after a reshape that only adds or drops axes of size 1."""
    kept = [(d, a) for d, a in zip(shape, placement, strict=True) if d != 1]
    if [d for d, _ in kept] != [d for d in new_shape if d != 1]:
        raise NotARegion("a reshape of elements that the region computes")
    rest = iter(kept)
    return tuple(None if d == 1 else next(rest)[1] for d in new_shape)


def _check_outputs(region: Region, outputs: Sequence[Node]) -> None:
    parallel = set(region.parallel)
    for node in region.nodes:
        if node not in outputs and (node.op.kind is Kind.INDEX or is_size_value(node)):
            continue  # costs next to nothing to compute again
        if parallel - region.axes(node):
            raise NotARegion(f"{node.label} is smaller than the loop nest and would be computed again and again")
        if region.axes(node) & region.reduced and not region.axes(node) >= region.reduced:
            raise NotARegion(f"{node.label} lacks a reduced axis")
    if region.reduced and not parallel:
        for node in region.nodes:
            if not region.is_row(node) and any(_after_reduction(region, i) for i in node.inputs):
                raise NotARegion("a whole-array reduction feeds elements of the same array")


def _after_reduction(region: Region, node: Node) -> bool:
    seen, stack = set(), [node]
    while stack:
        n = stack.pop()
        if n in seen:
            continue
        seen.add(n)
        if n in region.nodes and region.reduces(n):
            return True
        if n in region.placement and n not in region.loads:
            stack.extend(n.inputs)
    return False


def _phases(region: Region) -> None:
    """phase[n]: for a full node, the pass over the reduced axes in which its inputs are known; for a row node, the number of
    passes that must have ended before it is known.
    """
    for node in region.nodes:
        phase = 0
        for source in node.inputs:
            phase = max(phase, _ready(region, source))
        region.phase[node] = phase + 1 if region.reduces(node) else phase


def _ready(region: Region, node: Node) -> int:
    while node.op.kind in MOVEMENT and node not in region.loads:
        node = node.inputs[0]
    return region.phase.get(node, 0)
