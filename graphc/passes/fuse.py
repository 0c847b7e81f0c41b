"""Fusion: puts nodes that one loop nest can compute into one region.

Nodes start alone. Going through the graph in order, each node joins the groups that make its inputs, as long as the joined
set is a region (`regions.analyse` decides), makes no cycle, and pays. Views, moves and numbers computed from sizes are free
inside a region (views and moves become index maps of its loads), so every region takes a copy of those that it needs; and of
random values that several need (`drawn`). What an operand of a contraction is computed from joins last: in an epilogue it would
be computed once, in a prologue often.
"""
from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from graphc.config import options
from graphc.ir.graph import Graph, copied, users, with_inputs
from graphc.ir.node import INPUT, RESULT, Node, make
from graphc.ir.op import Array, Kind, Op
from graphc.ir.types import TensorType
from graphc.passes.drawn import drawn_again
from graphc.passes.manager import graph_pass
from graphc.passes.regions import COMPUTED, MOVEMENT, NotARegion, is_size_value, size_nodes, source_of
from graphc.passes.verdict import CHEAP, analysed, verdict

MAX_NODES = 64      # computed nodes in one region: keeps compile time and register pressure sane


def _region_type(*types, body, device):
    found = tuple(o.type for o in body.outputs)
    return found if len(found) > 1 else found[0]


def _no_rule(*_, **__):
    raise AssertionError("the interpreter runs the body")


FUSED = Op("fused", Kind.REGION, ("*inputs",), attrs={"body": None, "device": ""}, infer=_region_type, numpy=_no_rule,
           grad="fusion comes after differentiation", doc="A region: nodes that one kernel computes.")


def separate(graph: Graph) -> Graph:
    """What stands in for `fuse` when that is skipped: every computed node is a region of its own."""
    return _Fuser(graph).run(join=False)


@graph_pass(needs=["pure"], gives=["fused"], fallback=separate, nested=True)
def fuse(graph: Graph) -> Graph:
    """Replace what must be computed by regions; inputs, constants, views and results of regions stay as they are."""
    return _Fuser(graph).run()


class _Group:
    """Nodes that will be one region. `anchor` is its contraction, if it has one."""

    def __init__(self, node: Node, place: int):
        self.nodes = {node}
        self.first = self.last = place  # the first and the last place of a node in the graph's order
        self.anchor = node if node.op.kind is Kind.CONTRACT else None
        self.can_grow = node.op.kind in COMPUTED or self.anchor is not None
        self.members: set[Node] | None = None   # see `_Fuser.members`

    @property
    def is_plain(self) -> bool:
        """Whether all nodes are elementwise or of that sort: nothing is reduced or contracted."""
        return self.can_grow and self.anchor is None and all(n.op.kind is not Kind.REDUCE for n in self.nodes)


class _Fuser:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.order = graph.nodes()
        self.place = {n: k for k, n in enumerate(self.order)}
        self.users = users(self.order)
        self.outputs = set(graph.outputs)
        self.group: dict[Node, _Group] = {}
        self.refused: dict[tuple[_Group, int, _Group, int], str] = {}   # pairs that cannot join, until one of them has grown
        self.forms: dict[tuple, int] = {}           # numbers of all different nodes, for `form`
        self.verdicts: dict[tuple, str | None] = {}  # why nodes of this form are no region; None where they are
        self.drawn: dict[Node, set[Node]] = {}

    def run(self, join: bool = True) -> Graph:
        if join:
            self.drawn = drawn_again(self.order, self.users, self.outputs)
        for node in self.order:
            if _needs_kernel(node) and not is_size_value(node) and node not in self.drawn:
                self.group[node] = _Group(node, self.place[node])
        if join:
            self.join()
        self.add_copies()
        return self.build()

    # grouping ----------------------------------------------------------------------------------------------------------

    def join(self) -> None:
        """Let groups grow as far as they can."""
        self.join_all(plain=True)   # first among themselves, so that an optimizer's update joins a product whole or not at all
        self.join_all(plain=False)
        self.join_all(plain=False)  # what did not fit at first may fit a group that has grown a reduction since
        self.join_prologues()
        self.join_siblings()
        self.join_assemblies()

    def join_all(self, plain: bool) -> None:
        """Let every node join its producers; with `plain`, only where neither side reduces or contracts."""
        for node in self.order:
            if node in self.group and node.op.kind in COMPUTED:
                self.join_producers(node, plain)

    def join_prologues(self) -> None:
        """Let every contraction take in what its operands are computed from."""
        for node in self.order:
            if node in self.group and node.op.kind is Kind.CONTRACT:
                self.join_producers(node, plain=False)

    def join_producers(self, node: Node, plain: bool) -> None:
        for source in sorted(dict.fromkeys(node.inputs), key=lambda n: -self.place[n]):
            root = self.root(source)
            if root in self.group and self.group[root] is not self.group[node]:
                if plain and not (self.group[root].is_plain and self.group[node].is_plain):
                    continue
                if (plain or self.group[root].anchor is not None) and self.is_for_totals(node):
                    continue
                self.try_join(self.group[root], self.group[node])

    def is_for_totals(self, node: Node) -> bool:
        """Whether a node is only for sums over everything, which can compute it from the one array that it takes: then it need
        not be in memory beside that.
        """
        taken = [i for i in node.inputs if i.type.elements == node.type.elements]
        return node.op.kind is Kind.ELEMENTWISE and node not in self.outputs and len(set(taken)) == 1 \
            and node.op.rule.cost <= CHEAP and node.type.dtype.size >= taken[0].type.dtype.size \
            and all(u.op.kind is Kind.REDUCE and u.type.elements == 1 for u in self.users[node])

    def join_siblings(self) -> None:
        """Groups that read the same full-size input can share its loads."""
        for node in self.order:
            found = list(dict.fromkeys(self.group[u] for u in self.users.get(node, ()) if u in self.group))
            if isinstance(node.type, TensorType) and node.type.rank:
                for second in found[1:]:
                    if second is not found[0] and all(g.anchor is None for g in (found[0], second)):
                        self.try_join(found[0], second)

    def join_assemblies(self) -> None:
        """What computes the parts of an assembled tensor, and these for nothing else, stores them where they belong."""
        for node in self.order:
            if node.op.kind is not Kind.ASSEMBLE or node not in self.group:
                continue
            groups = [self.group[i] for i in node.inputs if i in self.group]
            for group in sorted(dict.fromkeys(groups), key=groups.count, reverse=True):
                if self.stores_parts(group, node):
                    group.nodes.add(node)
                    group.last = max(group.last, self.place[node])
                    group.can_grow = True
                    self.group[node] = group
                    break

    def stores_parts(self, group: _Group, node: Node) -> bool:
        """Whether a group can store the parts that it computes of an assembled tensor."""
        if not group.is_plain or any(n.op.kind is Kind.ASSEMBLE for n in group.nodes):
            return False
        parts = [i for i in node.inputs if self.root(i) in group.nodes]
        alone = all(i not in self.outputs and all(u is node or u in group.nodes for u in self.users[i]) for i in parts)
        if not alone or len(set(parts)) != len(parts) or any(i not in group.nodes for i in parts):
            return False
        nodes = group.nodes | {node}
        try:
            analysed(*self.parts(nodes), None)
        except NotARegion:
            return False
        return not self.has_way_outside(nodes)

    def try_join(self, first: _Group, second: _Group) -> None:
        pair = first, len(first.nodes), second, len(second.nodes)
        why = self.refused.get(pair) or self.obstacle(first, second)
        if why is None:
            first.nodes |= second.nodes
            first.first, first.last = min(first.first, second.first), max(first.last, second.last)
            first.anchor = second.anchor if first.anchor is None else first.anchor
            for node in second.nodes:
                self.group[node] = first
        elif pair not in self.refused:
            self.refused[pair] = why    # for good: what other groups do only adds ways from one of them to the other
            if "fuse" in options.explain:
                print(f"graphc: fuse: {_label(first)} and {_label(second)} stay apart: {why}", file=sys.stderr)

    def obstacle(self, first: _Group, second: _Group) -> str | None:
        """Why two groups cannot be one region; None when they can."""
        if not (first.can_grow and second.can_grow):
            return "one of them is a kernel of its own"
        if first.anchor is not None and second.anchor is not None:
            return "two contractions"
        nodes = first.nodes | second.nodes
        anchor = first.anchor if first.anchor is not None else second.anchor
        if sum(n.op.kind in COMPUTED for n in nodes) > MAX_NODES:
            return f"more than {MAX_NODES} nodes"
        if self.has_way_outside(nodes):
            return "a value would have to leave the region and come back"
        parts = self.parts(nodes)
        form = self.form(*parts, anchor)
        if form not in self.verdicts or "fuse" in options.explain:  # an explanation names these very nodes
            self.verdicts[form] = verdict(*parts, anchor)
        return self.verdicts[form]

    @staticmethod
    def root(node: Node) -> Node:
        """The node behind views and moves."""
        while node.op.kind in MOVEMENT:
            node = node.inputs[0]
        return node

    def parts(self, nodes: Iterable[Node]) -> tuple[list[Node], list[Node]]:
        """(the members of a region of these nodes, its outputs), in order."""
        return sorted(self.with_movement(nodes), key=self.place.__getitem__), self.region_outputs(nodes)

    def form(self, members: Sequence[Node], outputs: Sequence[Node], anchor: Node | None) -> tuple:
        """All that decides whether nodes are a region, so that it is found out once for a network's equal parts: what each
        node is and takes, by numbers, and what comes from outside.
        """
        number: dict[Node, int] = {}
        found: list[int] = []
        for node in members:
            for source in node.inputs:
                if source not in number:
                    number[source] = len(number)
                    found.append(self.kind((source.op.kind, source.type, is_literal(source))))
            number[node] = len(number)
            found.append(self.kind((node.op, node.type, *node.attrs.items())))
            found += [-1 - number[source] for source in node.inputs]
        return tuple(found), tuple(number[o] for o in outputs), None if anchor is None else number[anchor]

    def kind(self, key: tuple) -> int:
        """A number for each key."""
        return self.forms.setdefault(key, len(self.forms))

    def with_movement(self, nodes: Iterable[Node]) -> set[Node]:
        """`nodes` and the views and moves before them, as far back as loads can be composed."""
        members = set(nodes)
        for node in list(members):
            for source in node.inputs if node.op.kind is not Kind.ASSEMBLE else ():
                chain = [source]
                while chain[-1].op.kind in MOVEMENT:
                    chain.append(chain[-1].inputs[0])
                root = chain.pop()
                if is_size_value(root):
                    members.update(chain, size_nodes(root))
                    continue
                if root in self.drawn:
                    members.update(self.drawn[root])
                    continue
                if root in members and root.op.kind in COMPUTED | {Kind.CONTRACT}:
                    members.update(chain)
                    continue
                while chain:  # the longest part, from the consumer's side, whose index map composes
                    try:
                        found = source_of(source, set(chain).__contains__)
                        if not _reads_all(node, source) or not (found.bounds or is_literal(root)):
                            break
                        chain.pop()  # all that it addresses must be there
                    except NotARegion:
                        chain.pop()
                members.update(chain)
        return members

    def region_outputs(self, nodes: Iterable[Node]) -> list[Node]:
        """Computed nodes that something outside takes, through views and moves too."""
        inside = set(nodes)
        found = []
        for node in sorted(inside, key=self.place.__getitem__):
            if node in self.outputs or any(u not in inside and not self.only_feeds(u, inside)
                                           for u in self.users.get(node, ())):
                found.append(node)
        return found

    def only_feeds(self, node: Node, inside: set[Node]) -> bool:
        """Whether a view or move is used by nothing but `inside`."""
        return node.op.kind in MOVEMENT and node not in self.outputs and all(
            u in inside or self.only_feeds(u, inside) for u in self.users.get(node, ()))

    def has_way_outside(self, nodes: set[Node]) -> bool:
        """Whether a path leaves `nodes` and returns: joined, they would depend on themselves. Looked for from both ends
        at once, since one of them often is a dead end near by, and short ways first: in a network over many
        steps, there is one of a few edges or none.
        """
        for answers in zip(self.way_forwards(nodes), self.way_backwards(nodes), strict=False):
            for answer in answers:
                if answer is not None:
                    return answer
        raise AssertionError("a search ends with an answer")

    def way_forwards(self, nodes: set[Node]) -> Iterator[bool | None]:
        """None for each step of a search for a way from users of `nodes` back into them; at last, whether there is one."""
        last = max(self.place[n] for n in nodes)
        waiting = deque(u for n in nodes for u in self.users.get(n, ()) if u not in nodes)
        seen: set[Node | _Group] = set()
        while waiting:
            node = waiting.popleft()
            group = self.group.get(node)
            if (group or node) in seen:
                continue
            yield None
            seen.add(group or node)
            if (group.first if group else self.place[node]) > last:
                continue
            for member in group.nodes if group else (node,):
                for user in self.users.get(member, ()):
                    if user not in nodes:
                        waiting.append(user)
                    elif not self.is_inner_movement(member, nodes):
                        yield True
        yield False

    def way_backwards(self, nodes: set[Node]) -> Iterator[bool | None]:
        """The same search from what `nodes` take."""
        first = min(self.place[n] for n in nodes)
        waiting = deque(i for n in nodes for i in n.inputs if i not in nodes and not self.is_inner_movement(i, nodes))
        seen: set[Node | _Group] = set()
        while waiting:
            node = waiting.popleft()
            group = self.group.get(node)
            if (group or node) in seen:
                continue
            yield None
            seen.add(group or node)
            if (group.last if group else self.place[node]) < first:
                continue
            for member in group.nodes if group else (node,):
                for source in member.inputs:
                    if source in nodes:
                        yield True
                    waiting.append(source)
        yield False

    def is_inner_movement(self, node: Node, nodes: set[Node]) -> bool:
        """Whether a node outside only moves what `nodes` compute, so that a region of them moves it itself."""
        while node.op.kind in MOVEMENT and len(node.inputs) == 1:  # a view that waits for something else is no inner one
            node = node.inputs[0]
        return node in nodes

    # building ----------------------------------------------------------------------------------------------------------

    def add_copies(self) -> None:
        """Moves that no region absorbs need a kernel of their own: their result must lie in memory."""
        needed: set[Node] = set()
        absorbed = {id(g): self.members(g) for g in self.group.values()}

        def is_wanted(node: Node) -> bool:
            for user in self.users.get(node, ()):
                if user in self.group:
                    if node not in absorbed[id(self.group[user])]:
                        return True
                elif user in self.drawn:
                    continue
                elif not _is_free(user) or user in needed or any(node not in absorbed[id(g)] for g in self.groups_behind(user)):
                    return True
            return node in self.outputs

        for node in reversed(self.order):
            if _is_free(node) and is_wanted(node):
                needed.add(node)
                if node.op.kind is not Kind.VIEW:
                    group = self.group[node] = _Group(node, self.place[node])
                    absorbed[id(group)] = self.members(group)

    def members(self, group: _Group) -> set[Node]:
        """The nodes of a group that grows no more: its own, and the views and moves that its loads absorb."""
        if group.members is None:
            group.members = self.with_movement(group.nodes) if group.can_grow or _is_move(group) else set(group.nodes)
        return group.members

    def groups_behind(self, node: Node) -> list[_Group]:
        """The groups that a movement node finally feeds."""
        found: list[_Group] = []
        for user in self.users.get(node, ()):
            if user in self.group:
                found.append(self.group[user])
            elif _is_free(user):
                found += self.groups_behind(user)
        return found

    def build(self) -> Graph:
        new: dict[Node, Node] = {}
        built: set[int] = set()
        stack = [*reversed(self.graph.outputs), *reversed(self.graph.required)]
        for node in self.graph.inputs:
            new[node] = node
        while stack:
            node = stack[-1]
            if node in new:
                stack.pop()
                continue
            group = self.group.get(node)
            needed = self.region_inputs(group) if group else node.inputs
            missing = [i for i in needed if i not in new]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            if group is None:
                new[node] = self.plain(node, new)
            elif id(group) not in built:
                built.add(id(group))
                self.make_region(group, new)
        return self.graph.mapped(new)

    def plain(self, node: Node, new: dict[Node, Node]) -> Node:
        return with_inputs(node, tuple(new[i] for i in node.inputs))

    def region_inputs(self, group: _Group) -> list[Node]:
        members = self.members(group)
        found = {i: None for n in sorted(members, key=self.place.__getitem__) for i in n.inputs
                 if i not in members and (not is_literal(i) or n.op.kind is Kind.CONTRACT)}
        return list(found)

    def make_region(self, group: _Group, new: dict[Node, Node]) -> None:
        members = self.members(group)
        inputs = self.region_inputs(group)
        outputs = self.region_outputs(group.nodes)
        inner: dict[Node, Node] = {}
        for k, node in enumerate(inputs):
            inner[node] = Node(INPUT, (), {"type": node.type, "role": "feed", "variable": None}, node.type, name=f"p{k}",
                               location=node.location)
        for node in sorted(members, key=self.place.__getitem__):
            for i in node.inputs:
                if i not in inner and is_literal(i):
                    inner[i] = i
            inner[node] = copied(node, tuple(inner[i] for i in node.inputs))
        main = outputs[-1]
        made = tuple(inner[o] for o in outputs)
        if isinstance(main.type, tuple):  # it stands alone; its results are those of the region
            made = tuple(make(RESULT, made, {"index": k}, location=main.location) for k in range(len(main.type)))
        body = Graph(region_name(sorted(members, key=self.place.__getitem__)), tuple(inner[n] for n in inputs), made)
        region = make(FUSED, tuple(new[i] for i in inputs), {"body": body}, location=main.location,
                      name=main.name if len(outputs) == 1 else "")
        for k, output in enumerate(outputs):
            new[output] = region if len(outputs) == 1 else \
                make(RESULT, (region,), {"index": k}, name=output.name, location=output.location)


def _is_free(node: Node) -> bool:
    """Whether regions take copies of a node instead of its value."""
    return node.op.kind in MOVEMENT or is_size_value(node)


def _reads_all(node: Node, source: Node) -> bool:
    """Whether a node reads its input `source` from memory, wherever it pleases."""
    return node.op.kind is Kind.CONTRACT or node.op.kind is Kind.GATHER and source is node.inputs[0]


def _is_move(group: _Group) -> bool:
    return any(n.op.kind is Kind.MOVE for n in group.nodes)


def _needs_kernel(node: Node) -> bool:
    return node.op.kind in COMPUTED | {Kind.CONTRACT, Kind.ASSEMBLE, Kind.SCATTER, Kind.ROUTINE}


def is_literal(node: Node) -> bool:
    """Whether a constant is one number, which kernels hold as a literal."""
    return node.op.kind is Kind.CONSTANT and isinstance(node.attrs["value"], Array) and node.attrs["value"].size == 1


def region_name(nodes: list[Node]) -> str:
    """A name that tells what a region does: its ops, without repeats."""
    words = list(dict.fromkeys(n.op.name for n in nodes if n.op.kind not in MOVEMENT)) or [nodes[-1].op.name]
    return "_".join(words[:5]) + ("_etc" if len(words) > 5 else "")


def _label(group: _Group) -> str:
    return min(group.nodes, key=lambda n: n.serial).label
