"""Makes loops and branches smaller: what nobody uses goes (see `trim`), and products move out of scans, where one product does
the work of all iterations.

In a scan's body a value is *carried* when it depends on a loop variable or on the iteration's random numbers, *along* when it
depends on rows of sequences, else it is the same in all iterations. Three moves, each with an axis more for the iterations:

- lift: a product of values that are not carried is taken for all iterations before the loop, its rows are a new sequence;
- sink: a product of a carried value and one that stays, which is only stacked, is taken of the stacked factor after the loop;
- sum: a loop variable to which each iteration adds a product, or the sum of a value, becomes one product (sum) after the loop.

What stays of a product is read in order (`straighten`). So the time steps of a recurrent layer keep one product, that of
the state, and its weights' gradients are one product each.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from string import ascii_letters

from graphc.ir.container import detached
from graphc.ir.graph import Graph, rebuild, substitute, topological
from graphc.ir.node import GROUP, RESULT, Node, input_node, make
from graphc.ir.op import Kind
from graphc.ops.contract import contract
from graphc.ops.elementwise import add
from graphc.ops.movement import reshape_to, transpose_to
from graphc.ops.reduce import reduce_sum
from graphc.passes.manager import graph_pass
from graphc.passes.rewrite import constant_number
from graphc.passes.simplify import merge_equal
from graphc.passes.trim import trim


@graph_pass(needs=["pure"], nested=True)
def loops(graph: Graph) -> Graph:
    """Trim branches and loops, and apply the three moves to every scan."""
    graph = trim(graph)
    if all(n.op.kind is not Kind.SCAN for n in graph.nodes()):
        return graph
    found: dict[Node, list[Node]] = {}

    def replace(node, inputs, control):
        if node.op is RESULT and node.inputs[0] in found:
            return found[node.inputs[0]][node.attrs["index"]]
        if node.op.kind is not Kind.SCAN:
            return None
        with detached(node.location):
            found[node] = _Loop(node, inputs).moved()
        return make(GROUP, (), location=node.location)  # nothing needs it: its results have new ones
    return trim(merge_equal(rebuild(graph, replace)))


@dataclass
class _Later:
    """A result of the old loop, made from results of the new one: a stack, or sums of products of stacks."""

    base: int                                             # number of the stack, or of the loop variable to add to
    is_state: bool
    terms: list = field(default_factory=list)             # functions of the stacks' tensors


class _Loop:
    """A scan that is being taken apart."""

    def __init__(self, node: Node, inputs: tuple[Node, ...]):
        attrs = node.attrs
        self.node, self.length = node, attrs["length"]
        states, sequences = attrs["states"], attrs["sequences"]
        self.inner = list(attrs["body"].inputs)
        self.starts, self.sequences = list(inputs[:states]), list(inputs[states:states + sequences])
        self.shared = list(inputs[states + sequences:])
        self.states, self.rows = self.inner[:states], self.inner[states:states + sequences]
        self.same = self.inner[states + sequences:]
        self.new = list(attrs["body"].outputs[:states])
        self.stacked: list[Node] = []
        self.results: list[_Later] = [_Later(k, True) for k in range(states)]
        for output in attrs["body"].outputs[states:]:
            self.results.append(_Later(self.stack(output), False))

    def moved(self) -> list[Node]:
        """The new results, in the order of the old ones."""
        self.classify()
        for k in range(len(self.states)):
            self.sum(k)
        self.lift()
        for later in self.results:
            if not later.is_state:
                self.sink(later)
        self.straighten()
        return self.build()

    def stack(self, node: Node) -> int:
        """The number of the stack of a value."""
        if node not in self.stacked:
            self.stacked.append(node)
        return self.stacked.index(node)

    def classify(self) -> None:
        """Find what is carried and what is along."""
        self.carried, self.along = set(self.states), set(self.rows)
        self.uses: dict[Node, int] = {}
        for node in topological((*self.new, *self.stacked)):
            for i in node.inputs:
                self.uses[i] = self.uses.get(i, 0) + 1
            if node.op.kind in (Kind.COND, Kind.WHILE, Kind.SCAN, Kind.RANDOM, Kind.HOST) or \
                    any(i in self.carried for i in node.inputs):
                self.carried.add(node)
            elif any(i in self.along for i in node.inputs):
                self.along.add(node)
        for node in (*self.new, *self.stacked):
            self.uses[node] = self.uses.get(node, 0) + 1

    # lift --------------------------------------------------------------------------------------------------------------

    def lift(self) -> None:
        """Products of values that are not carried go before the loop, and what is added to them there and nowhere else."""
        outside: dict[Node, Node | None] = dict(zip((*self.rows, *self.same), (*self.sequences, *self.shared), strict=True))
        new: dict[Node, Node] = {}
        for node in topological((*self.new, *self.stacked)):
            if node in self.along and (node.op.kind is Kind.CONTRACT or self.ends_product(node, new)):
                made = self.for_all(node, outside)
                if made is not None:
                    outside[node] = made
                    new[node] = input_node("", node.type, location=node.location)
                    self.rows.append(new[node])
                    self.sequences.append(made)
        self.replace(new)

    def ends_product(self, node: Node, lifted: dict[Node, Node]) -> bool:
        """Whether an elementwise op is all that is done with a product that goes before the loop: there it costs nothing."""
        return node.op.kind is Kind.ELEMENTWISE and node.op.rule.cost == 1 and any(
            i in lifted and i.type == node.type and self.uses[i] == 1 for i in node.inputs)

    def replace(self, new: dict[Node, Node]) -> None:
        """Put other nodes in the place of some in the body."""
        if new:
            inputs = tuple(n for n in topological((*self.new, *self.stacked)) if n.op.kind is Kind.INPUT)
            outputs = substitute(Graph("body", inputs, (*self.new, *self.stacked)), new).outputs
            self.new, self.stacked = list(outputs[:len(self.new)]), list(outputs[len(self.new):])
            self.classify()

    def straighten(self) -> None:
        """A factor that stays is transposed before the loop where a product in it would read it across, in each iteration."""
        new: dict[Node, Node] = {}
        for node in topological((*self.new, *self.stacked)):
            attrs = self.product(node, summed=False) if node.op.kind is Kind.CONTRACT and node in self.carried else None
            if attrs is None or node.type.rank == 0:
                continue
            labels = [attrs["a_labels"].removeprefix("a"), attrs["b_labels"].removeprefix("a")]
            inputs, last = list(node.inputs), attrs["out_labels"][-1]
            for side, own in enumerate(labels):
                if inputs[side] in self.same and last in own[:-1]:
                    labels[side] = own.replace(last, "") + last
                    perm = tuple(own.index(x) for x in labels[side])
                    self.shared.append(transpose_to(self.shared[self.same.index(inputs[side])], perm=perm))
                    inputs[side] = input_node("", self.shared[-1].type, location=node.location)
                    self.same.append(inputs[side])
            if tuple(inputs) != node.inputs:
                new[node] = make(contract, tuple(inputs), {"a_labels": labels[0], "b_labels": labels[1],
                                                           "out_labels": attrs["out_labels"][1:]}, location=node.location)
        self.replace(new)

    def for_all(self, node: Node, outside: dict[Node, Node | None]) -> Node | None:
        """A value of all iterations, with an axis in front when it is along; None where there is no rule for it."""
        if node not in outside:
            inputs = [None if i in self.carried else self.for_all(i, outside) for i in node.inputs]
            outside[node] = None if any(i is None for i in inputs) else self.extended(node, inputs)
        return outside[node]

    def extended(self, node: Node, inputs: list) -> Node | None:
        """The node on values of all iterations."""
        if node not in self.along:
            return make(node.op, tuple(inputs), node.attrs, location=node.location)
        if node.op.kind is Kind.ELEMENTWISE and not node.op.rule.fails:
            return make(node.op, tuple(self.aligned(i, x, node.type.rank) for i, x in zip(node.inputs, inputs, strict=True)),
                        node.attrs, location=node.location)
        if node.op.kind is Kind.VIEW:
            return reshape_to(inputs[0], shape=(self.length, *node.type.shape))
        if node.op.kind is Kind.CONTRACT:
            attrs = self.product(node, summed=False)
            return None if attrs is None else make(contract, tuple(inputs), attrs, location=node.location)
        return None

    def aligned(self, inner: Node, outer: Node, rank: int) -> Node:
        """An operand of an elementwise op, with axes of size 1 behind the iterations' where it has fewer axes than others."""
        if inner not in self.along or inner.type.rank == rank:
            return outer
        return reshape_to(outer, shape=(self.length, *(1,) * (rank - inner.type.rank), *inner.type.shape))

    def product(self, node: Node, summed: bool) -> dict | None:
        """The attributes of a contraction's like of all iterations' operands: one for each, or summed over them."""
        labels = node.op.rule.labels(tuple(i.type for i in node.inputs), node.attrs)
        if any(label is None or isinstance(label, tuple) for group in labels for label in group):
            return None
        letters = dict(zip(dict.fromkeys(x for group in labels for x in group), ascii_letters[1:], strict=False))
        a, b, out = ("".join(letters[x] for x in group) for group in labels)
        a, b = (("a" if self.varies(i) else "") + text for i, text in zip(node.inputs, (a, b), strict=True))
        return {"a_labels": a, "b_labels": b, "out_labels": out if summed else "a" + out}

    # sum and sink ------------------------------------------------------------------------------------------------------

    def varies(self, node: Node) -> bool:
        return node in self.carried or node in self.along

    def getter(self, node: Node):
        """A function of the new loop's stacks that gives all iterations' values of a node, or the value that stays."""
        if node in self.rows:
            outer = self.sequences[self.rows.index(node)]
            return lambda stacks: outer
        if node in self.same:
            same = self.shared[self.same.index(node)]
            return lambda stacks: same
        number = self.stack(node)
        return lambda stacks: stacks[number]

    def sum(self, k: int) -> None:
        """Take from a loop variable what each iteration adds to it."""
        state, terms, waiting = self.states[k], [], [self.new[k]]
        while waiting:
            node = waiting.pop()
            if node.op is add and self.uses[node] == 1 and all(i.type == node.type for i in node.inputs):
                waiting += reversed(node.inputs)
            else:
                terms.append(node)
        if terms.count(state) != 1 or self.uses[state] != 1:
            return
        rest = [state]
        for term in terms:
            if term is not state:
                later = self.total(term, terms.count(term))
                if later is None:
                    rest.append(term)
                else:
                    self.results[k].terms.append(later)
        total = rest[0]
        for term in rest[1:]:
            total = add(total, term)
        self.new[k] = total

    def total(self, term: Node, count: int):
        """A function that gives the sum over all iterations of a value that is used `count` times in its sum; None where that
        is not worth it.
        """
        if self.uses[term] != count:
            return None
        if term.op.kind is Kind.CONTRACT and all(self.varies(i) for i in term.inputs):
            attrs = self.product(term, summed=True)
            if attrs is None:
                return None
            get = [self.getter(i) for i in term.inputs]
            return lambda stacks: make(contract, tuple(g(stacks) for g in get), attrs, location=term.location)
        if self.is_stacked(term):
            whole = self.getter(term)
            return lambda stacks: reduce_sum(whole(stacks), axes=(0,))
        if term.op is reduce_sum and self.varies(term.inputs[0]) and self.is_stacked(term.inputs[0]):
            source = self.getter(term.inputs[0])
            return lambda stacks: reduce_sum(source(stacks), axes=(0, *(a + 1 for a in term.attrs["axes"])))
        return None

    def is_stacked(self, node: Node) -> bool:
        """Whether the values of all iterations are in memory anyway."""
        return node in self.rows or node in self.stacked

    def sink(self, later: _Later) -> None:
        """Take a product that is only stacked of the stacked factor."""
        node = self.stacked[later.base]
        if node.op.kind is not Kind.CONTRACT or node not in self.carried or self.uses[node] != 1:
            return
        if all(self.varies(i) for i in node.inputs) or not all(self.varies(i) or i in self.same for i in node.inputs):
            return
        attrs = self.product(node, summed=False)
        if attrs is not None:
            get = [self.getter(i) for i in node.inputs]
            later.terms.append(lambda stacks: make(contract, tuple(g(stacks) for g in get), attrs, location=node.location))

    # building ----------------------------------------------------------------------------------------------------------

    def build(self) -> list[Node]:
        """The new loop, and the old one's results made from its."""
        body = Graph(self.node.attrs["body"].name, (*self.states, *self.rows, *self.same), (*self.new, *self.stacked))
        attrs = {**self.node.attrs, "body": body, "sequences": len(self.rows), "history": 0}
        node = make(self.node.op, (*self.starts, *self.sequences, *self.shared), attrs, name=self.node.name,
                    location=self.node.location)
        made = [make(RESULT, (node,), {"index": k}, location=self.node.location) for k in range(len(node.type))]
        finals, stacks = made[:len(self.states)], made[len(self.states):]
        found = []
        for later in self.results:
            value = finals[later.base] if later.is_state else stacks[later.base]
            if later.terms and not later.is_state:
                value = later.terms[0](stacks)
            elif later.terms:
                is_zero = self.new[later.base] is self.states[later.base] and constant_number(self.starts[later.base]) == 0
                parts = [*([] if is_zero else [value]), *(term(stacks) for term in later.terms)]
                value = reduce(add, parts)
            found.append(value)
        return found

