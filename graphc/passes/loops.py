"""Makes loops and branches smaller: what nobody uses goes (see `trim`), and products move out of scans, where one product does
the work of all iterations.

In a scan's body a value is *carried* when it depends on a loop variable or on the iteration's random numbers, *along* when it
depends on rows of sequences, else it is the same in all iterations. Three moves, each with an axis more for the iterations:

- lift: a product of values that are not carried is taken for all iterations before the loop, its rows are a new sequence; where
  another loop has computed it, that one stacks it (see `recall`);
- sink: a product of a carried value and one that stays, which is only stacked, or a sum of such, is taken of the stacked
  factors after the loop;
- sum: a loop variable to which each iteration adds a product, or the sum of a value, becomes one product (sum) after the loop.

What stays of a product is read in order (`straighten`), from where it lies (`take_whole`). So the time steps of a recurrent
layer keep one product, that of the state, and its weights' gradients are one product each.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from string import ascii_letters

from graphc.ir.container import detached
from graphc.ir.graph import Graph, rebuild, topological, with_inputs
from graphc.ir.node import GROUP, RESULT, Node, input_node, make
from graphc.ir.op import Kind
from graphc.ops.contract import contract
from graphc.ops.elementwise import add
from graphc.ops.movement import reshape_to, transpose_to
from graphc.ops.reduce import reduce_sum
from graphc.passes.manager import graph_pass
from graphc.passes.recall import Scans, Twins
from graphc.passes.regions import contiguous, source_of
from graphc.passes.rewrite import constant_number
from graphc.passes.simplify import merge_equal
from graphc.passes.trim import trim

READ_COST = 4       # vector instructions that an element may cost before reading it is cheaper


@graph_pass(needs=["pure"], nested=True)
def loops(graph: Graph) -> Graph:
    """Trim branches and loops, and apply the three moves to every scan."""
    graph = trim(graph)
    if all(n.op.kind is not Kind.SCAN for n in graph.nodes()):
        return graph
    scans = Scans()
    graph = _each_scan(graph, lambda loop: loop.moved(), scans)
    return trim(merge_equal(_each_scan(scans.applied(graph), lambda loop: loop.straightened(), scans)))


def _each_scan(graph: Graph, change: Callable[[_Loop], list[Node]], scans: Scans) -> Graph:
    """The graph with each scan's results replaced by what `change` makes of them."""
    found: dict[Node, list[Node]] = {}

    def replace(node, inputs, control):
        if node.op is RESULT and node.inputs[0] in found:
            return found[node.inputs[0]][node.attrs["index"]]
        if node.op.kind is not Kind.SCAN:
            return None
        with detached(node.location):
            found[node] = change(_Loop(node, inputs, scans))
        return make(GROUP, (), location=node.location)  # nothing needs it: its results have new ones
    return rebuild(graph, replace)


@dataclass
class _Later:
    """A result of the old loop, made from results of the new one: a stack, or sums of products of stacks."""

    base: int                                             # number of the stack, or of the loop variable to add to
    is_state: bool
    terms: list = field(default_factory=list)             # functions of the stacks' tensors


class _Loop:
    """A scan that is being taken apart."""

    def __init__(self, node: Node, inputs: tuple[Node, ...], scans: Scans):
        attrs = node.attrs
        self.node, self.length, self.scans = node, attrs["length"], scans
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
        return self.build()

    def straightened(self) -> list[Node]:
        """The results, with each product in the loop read in order, and from where its factors lie."""
        self.classify()
        self.straighten()
        self.take_whole()
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
        given = len(self.rows)
        twins = Twins(self.scans, self.length, list(zip(self.rows, self.sequences, strict=True)),
                      list(zip(self.same, self.shared, strict=True)))
        for node in topological((*self.new, *self.stacked)):
            made = None
            twins.see(node)
            if node in self.along and (node.op.kind is Kind.CONTRACT or self.ends_product(node, new) or
                                       _is_dear(node) and twins.is_stacked(node)):
                recalled = twins.stack(node)
                made = outside[node] = self.for_all(node, outside) if recalled is None else recalled
            if made is not None:
                new[node] = input_node("", node.type, location=node.location)
                self.rows.append(new[node])
                self.sequences.append(made)
                twins.see(node, made)
        if not new:
            return
        self.replace(lambda node, inputs, control: new.get(node))
        used = [k for k, row in enumerate(self.rows) if row in self.uses or k < given]
        self.rows, self.sequences = ([x[k] for k in used] for x in (self.rows, self.sequences))

    def ends_product(self, node: Node, lifted: dict[Node, Node]) -> bool:
        """Whether an elementwise op is all that is done with a product that goes before the loop: there it costs nothing."""
        return node.op.kind is Kind.ELEMENTWISE and node.op.rule.cost == 1 and any(
            i in lifted and i.type == node.type and self.uses[i] == 1 for i in node.inputs)

    def replace(self, new: Callable[[Node, tuple[Node, ...], tuple[Node, ...]], Node | None]) -> None:
        """Rebuild the body with other nodes in the place of some; see `rebuild`."""
        inputs = tuple(n for n in topological((*self.new, *self.stacked)) if n.op.kind is Kind.INPUT)
        outputs = rebuild(Graph("body", inputs, (*self.new, *self.stacked)), new).outputs
        self.new, self.stacked = list(outputs[:len(self.new)]), list(outputs[len(self.new):])
        self.classify()

    def straighten(self) -> None:
        """A factor that stays is transposed before the loop where a product in it would read it across, in each iteration."""
        turned: dict[Node, tuple[dict[int, Node], dict]] = {}
        for node in topological((*self.new, *self.stacked)):
            attrs = self.product(node, summed=False) if node.op.kind is Kind.CONTRACT and node in self.carried else None
            if attrs is None or node.type.rank == 0:
                continue
            labels = [attrs["a_labels"].removeprefix("a"), attrs["b_labels"].removeprefix("a")]
            factors, last = {}, attrs["out_labels"][-1]
            for side, own in enumerate(labels):
                factor = node.inputs[side]
                if factor in self.same and last in own[:-1]:
                    labels[side] = own.replace(last, "") + last
                    perm = tuple(own.index(x) for x in labels[side])
                    self.shared.append(transpose_to(self.shared[self.same.index(factor)], perm=perm))
                    factors[side] = input_node("", self.shared[-1].type, location=node.location)
                    self.same.append(factors[side])
            if factors:
                turned[node] = factors, {"a_labels": labels[0], "b_labels": labels[1], "out_labels": attrs["out_labels"][1:]}

        def replace(node, inputs, control):
            if node not in turned:
                return None
            factors, attrs = turned[node]
            return make(contract, tuple(factors.get(side, i) for side, i in enumerate(inputs)), attrs, location=node.location)
        if turned:
            self.replace(replace)

    def take_whole(self) -> None:
        """A factor that stays, and is a piece of a tensor in the order of memory, such as some rows of a matrix, is cut out in
        the loop, which costs nothing there, not copied before it.
        """
        pieces: dict[Node, Node] = {}
        others = {i for n in topological((*self.new, *self.stacked)) if n.op.kind is not Kind.CONTRACT for i in n.inputs}
        for inner, outer in list(zip(self.same, self.shared, strict=True)):
            if outer.op.kind is not Kind.MOVE or inner in others or inner in (*self.new, *self.stacked):
                continue
            source = source_of(outer, {outer}.__contains__)
            if not source.bounds and source.strides == contiguous(outer.type.shape):
                whole = input_node("", source.node.type, location=outer.location)
                self.same.append(whole)
                self.shared.append(source.node)
                pieces[inner] = make(outer.op, (whole,), outer.attrs, name=outer.name, location=outer.location)
        if pieces:
            self.replace(lambda node, inputs, control: with_inputs(node, tuple(pieces.get(i, i) for i in inputs), control))

    def for_all(self, node: Node, outside: dict[Node, Node | None]) -> Node | None:
        """A value of all iterations, with an axis in front when it is along; None where there is no rule for it."""
        if node not in outside:
            inputs = [None if i in self.carried else self.for_all(i, outside) for i in node.inputs]
            made = None if any(i is None for i in inputs) else self.extended(node, inputs)
            outside[node] = None if made is None else self.scans.one(made)
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
        return self.scans.one(reshape_to(outer, shape=(self.length, *(1,) * (rank - inner.type.rank), *inner.type.shape)))

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
        state, terms = self.states[k], self.summands(self.new[k])
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
            return self.product_later(term, attrs)
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
        """Take a product, or a sum of products, that is only stacked of the stacked factors."""
        found = []
        for node in self.summands(self.stacked[later.base]):
            if node.op.kind is not Kind.CONTRACT or node not in self.carried or self.uses[node] != 1 or \
                    all(self.varies(i) for i in node.inputs) or not all(self.varies(i) or i in self.same for i in node.inputs):
                return
            attrs = self.product(node, summed=False)
            if attrs is None:
                return
            found.append((node, attrs))
        for node, attrs in found:
            later.terms.append(self.product_later(node, attrs))

    def product_later(self, node: Node, attrs: dict):
        """A function of the stacks that gives a contraction with other attributes of all iterations' operands."""
        get = [self.getter(i) for i in node.inputs]
        return lambda stacks: make(contract, tuple(g(stacks) for g in get), attrs, location=node.location)

    def summands(self, node: Node) -> list[Node]:
        """The terms of the sum that a value is, in order."""
        terms, waiting = [], [node]
        while waiting:
            term = waiting.pop()
            if term.op is add and self.uses[term] == 1 and all(i.type == term.type for i in term.inputs):
                waiting += reversed(term.inputs)
            else:
                terms.append(term)
        return terms

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
                value = reduce(add, [term(stacks) for term in later.terms])
            elif later.terms:
                is_zero = self.new[later.base] is self.states[later.base] and constant_number(self.starts[later.base]) == 0
                parts = [*([] if is_zero else [value]), *(term(stacks) for term in later.terms)]
                value = reduce(add, parts)
            found.append(value)
        return found


def _is_dear(node: Node) -> bool:
    """Whether an element of a value costs more to compute than to read."""
    return node.op.kind is Kind.ELEMENTWISE and node.op.rule.cost > READ_COST
