"""`ir.Graph`: a pure function of its inputs, which passes map to another one; and the ways to walk and rebuild it."""
from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from graphc.errors import GraphError, Location, report
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.ir.node import INPUT, Node, make
from graphc.ir.op import Kind
from graphc.records import record


@record(frozen=True, eq=False)
class Equation:
    """Two dims that must be equal when the graph runs, and the user's line that says so. Equal are those of equal dims."""

    left: Size
    right: Size
    location: Location | None = None

    def __eq__(self, other) -> bool:
        return isinstance(other, Equation) and (self.left, self.right) == (other.left, other.right)

    def __hash__(self) -> int:
        return hash((self.left, self.right))


@record(frozen=True, eq=False)
class Graph:
    """A function: `inputs` are input nodes, `outputs` any nodes that they reach. `equations` must hold on entry.

    Before `resolve_state`, outputs may be operations with effects. After it, the graph is pure: a variable's state is an
    input, and its new state is an output of kind EFFECT with the action "write".

    required  host nodes that run although no output needs their values: they tell sizes that other nodes name, or check
              something. They come before everything that does not need them.
    """

    name: str
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    equations: tuple[Equation, ...] = ()
    required: tuple[Node, ...] = ()

    def nodes(self) -> list[Node]:
        """All nodes in an order in which inputs come first, and what tells a size before all that name it; the same order every
        time.
        """
        return list(self._order)

    @functools.cached_property
    def _order(self) -> list[Node]:
        return ordered(self)

    def mapped(self, new: Mapping[Node, Node], equations: tuple[Equation, ...] | None = None) -> Graph:
        """The graph of the nodes that stand for this one's; itself where that are the same."""
        groups = self.inputs, self.outputs, self.required
        found = inputs, outputs, required = tuple(tuple([new[n] for n in group]) for group in groups)
        if found == groups and equations in (None, self.equations):
            return self
        return Graph(self.name, inputs, outputs, self.equations if equations is None else equations, required)

    def __eq__(self, other) -> bool:
        return isinstance(other, Graph) and equal(self, other)

    __hash__ = object.__hash__

    def __str__(self) -> str:
        from graphc.ir.printer import print_graph
        return print_graph(self)


def ordered(graph: Graph) -> list[Node]:
    """The nodes of a graph, found again. Raises GraphError for a cycle."""
    order = topological(graph.outputs, first=(*graph.inputs, *graph.required))
    binders: dict[str, Node] = {}
    for node in order:
        for name in new_dims(node):
            binders.setdefault(name, node)
    if not binders:
        return order
    told = {n: tuple(dict.fromkeys(binders[d] for d in used_dims(n) if d in binders and binders[d] is not n))
            for n in order if n.op.kind is not Kind.INPUT}
    return topological(graph.outputs, first=(*graph.inputs, *graph.required), after=told)


def topological(outputs: Iterable[Node], first: Iterable[Node] = (),
                after: Mapping[Node, tuple[Node, ...]] | None = None) -> list[Node]:
    """The nodes that `outputs` need, `first` ones first, each after its inputs and control inputs, and after those of `after`.

    Iterative: a chain of a hundred thousand nodes is no problem. Raises GraphError for a cycle, naming it.
    """
    order: list[Node] = []
    state: dict[Node, int] = {}  # 1: its inputs are being visited; 2: done
    for root in itertools.chain(first, outputs):
        stack = [root]
        while stack:
            node = stack[-1]
            seen = state.get(node)
            if seen == 2:
                stack.pop()
            elif seen == 1:
                state[node] = 2
                order.append(node)
                stack.pop()
            else:
                state[node] = 1
                for needed in reversed(node.inputs + node.control + (after.get(node, ()) if after else ())):
                    if state.get(needed) == 1:
                        path = [n for n in stack if state.get(n) == 1]
                        cycle = [n.label for n in path[path.index(needed):]] + [needed.label]
                        raise report(GraphError, f"the graph has a cycle: {' -> '.join(cycle)}")
                    if needed not in state:
                        stack.append(needed)
    return order


def rebuild(graph: Graph, replace: Callable[[Node, tuple[Node, ...], tuple[Node, ...]], Node | None]) -> Graph:
    """A new graph: each node in order becomes `replace(node, new inputs, new control)`, or, when that gives None, the same
    node on the new inputs. Nodes that do not change stay the same objects. Nodes that nothing needs any more vanish.
    """
    new: dict[Node, Node] = {}
    for node in graph.nodes():
        inputs = tuple([new[i] for i in node.inputs])  # a list first: a generator takes twice as long
        control = tuple([new[c] for c in node.control])
        made = replace(node, inputs, control)
        new[node] = with_inputs(node, inputs, control) if made is None else made
    return graph.mapped(new)


def with_inputs(node: Node, inputs: tuple[Node, ...], control: tuple[Node, ...] = ()) -> Node:
    """`node` on other inputs: itself when they are the same."""
    return node if inputs == node.inputs and control == node.control else copied(node, inputs, control)


def copied(node: Node, inputs: tuple[Node, ...], control: tuple[Node, ...] = ()) -> Node:
    """Another node like `node` on other inputs; its type is inferred where theirs differ."""
    if all(new.type is old.type or new.type == old.type for new, old in zip(inputs, node.inputs, strict=True)):
        return Node(node.op, inputs, node.attrs, node.type, control, node.name, node.location)
    return make(node.op, inputs, node.attrs, control=control, name=node.name, location=node.location)


def substitute(graph: Graph, mapping: Mapping[Node, Node]) -> Graph:
    """The graph with nodes replaced as `mapping` says."""
    return rebuild(graph, lambda node, inputs, control: mapping.get(node))


def nested(node: Node) -> dict[str, Graph]:
    """The graphs that a segment, a branch or a loop holds, by attribute. A region's body is no such graph: it is one kernel."""
    if node.op.kind not in (Kind.SEGMENT, Kind.COND, Kind.WHILE, Kind.SCAN):
        return {}
    return {name: value for name, value in node.attrs.items() if isinstance(value, Graph)}


def map_nested(graph: Graph, function: Callable[[Graph], Graph]) -> Graph:
    """The graph with `function` applied to the graphs that its branches and loops hold; those hold theirs: it sees to them."""
    if not any(nested(node) for node in graph.nodes()):
        return graph

    def replace(node, inputs, control):
        bodies = {name: function(body) for name, body in nested(node).items()}
        if all(bodies[name] is node.attrs[name] for name in bodies):
            return None
        return make(node.op, inputs, {**node.attrs, **bodies}, control=control, name=node.name, location=node.location)
    return rebuild(graph, replace)


def named(graph: Graph) -> Graph:
    """The graph with a name for every node: unnamed ones get the next free numbers. Names already given stay."""
    graph = map_nested(graph, named)
    order = graph.nodes()
    taken: set[str] = set()
    rename: dict[Node, str] = {}
    for node in order:
        if node.name and node.name not in taken:
            taken.add(node.name)
        else:
            rename[node] = ""
    if not rename:
        return graph
    numbers = (str(n) for n in itertools.count() if str(n) not in taken)
    for node in rename:
        rename[node] = next(numbers)

    def renamed(node, inputs, control):
        if node in rename or inputs != node.inputs or control != node.control:
            return Node(node.op, inputs, node.attrs, node.type, control, rename.get(node, node.name), node.location)
        return None
    return rebuild(graph, renamed)


def users(order: Iterable[Node]) -> dict[Node, list[Node]]:
    """For each node the nodes that take it as an input, in order, without repeats."""
    found: dict[Node, list[Node]] = {}
    for node in order:
        for needed in dict.fromkeys(node.inputs):
            found.setdefault(needed, []).append(node)
    return found


def equal(a: Graph, b: Graph) -> bool:
    """Whether two graphs are the same but for user lines: same ops, attributes, types, names and edges, in order."""
    if a is b:
        return True
    left, right = a.nodes(), b.nodes()
    if a.name != b.name or len(left) != len(right) or a.equations != b.equations:
        return False
    place_a = {n: i for i, n in enumerate(left)}
    place_b = {n: i for i, n in enumerate(right)}

    def form(node, place):
        return (node.op.name, node.name, node.type, tuple(place[i] for i in node.inputs),
                tuple(place[c] for c in node.control), {k: v for k, v in node.attrs.items() if k != "variable"})
    return (all(form(x, place_a) == form(y, place_b) for x, y in zip(left, right, strict=True))
            and [place_a[o] for o in a.outputs] == [place_b[o] for o in b.outputs]
            and [place_a[n] for n in a.required] == [place_b[n] for n in b.required])


def is_required(node: Node) -> bool:
    """Whether a graph that reaches this node must run it, whoever needs its value: see Graph.required."""
    return node.op.kind is Kind.HOST and bool(node.op.rule.effect or node.op.rule.binds)


def new_dims(node: Node) -> tuple[str, ...]:
    """The names of the sizes that only the node's result tells."""
    if node.op.kind is not Kind.HOST:
        return ()
    return dims.names_in(tuple(node.attrs[a] for a in node.op.rule.binds))


def used_dims(node: Node) -> tuple[str, ...]:
    """The names of sizes in a node's type and attributes; of graphs that it holds, those that nothing in them tells."""
    found = dict.fromkeys(dims.names_in((node.type, tuple(v for v in node.attrs.values() if not isinstance(v, Graph)))))
    for body in nested(node).values():
        order = body.nodes()
        told = {n for inner in order for n in new_dims(inner)}
        found |= dict.fromkeys(n for inner in order for n in used_dims(inner) if n not in told)
    return tuple(found)


def capture(name: str, fetches: Iterable[Node], feeds: Iterable[Node] = (), binders: Mapping[str, Any] | None = None) -> Graph:
    """The function from `feeds` (any tensors) and variables to `fetches`, cut out of the user's graph.

    Fed tensors and placeholders become inputs. Variables' handles are inputs already. Raises nothing: a placeholder that is
    needed and not fed becomes an input too, and the session checks that it was fed.

    binders  dim -> the host node that tells it, for dims that no input tells. Default: those of the user's graph.
    """
    fed = set(feeds)
    fetches = tuple(fetches)
    if binders is None:
        binders = next((n.graph.binders for n in fetches if n.graph is not None), {})
    required = _required(fetches, fed, binders)
    new: dict[Node, Node] = {}
    for node in feeds:
        new[node] = node if node.op.kind is Kind.INPUT else Node(
            INPUT, (), {"type": node.type, "role": "feed", "variable": None}, node.type, name=node.name, location=node.location)
    others: list[Node] = []
    for node in _reached((*required, *fetches), fed):
        if node not in new:
            new[node] = with_inputs(node, tuple(new[i] for i in node.inputs), tuple(new[c] for c in node.control))
            if node.op.kind is Kind.INPUT:
                others.append(node)
    others.sort(key=lambda n: (n.attrs["role"] != "feed", n.serial))
    return Graph(name, (*(new[f] for f in feeds), *others), tuple(new[f] for f in fetches), (),
                 tuple(new[n] for n in required))


def _required(fetches: tuple[Node, ...], fed: set[Node], binders: Mapping[str, Any]) -> list[Node]:
    """The host nodes that tell sizes which the fetches need, in the order in which they were made."""
    found: set[Node] = set()
    while binders:
        order = _reached((*found, *fetches), fed)
        inputs = fed | {n for n in order if n.op.kind is Kind.INPUT}
        told = {n for node in inputs for d in node.type.shape if (n := dims.linear_in(d)) is not None}
        used = {n for node in order for n in used_dims(node)} - told
        missing = {binders[n] for n in used if n in binders} - found - fed
        missing |= {n for n in order if n not in fed and new_dims(n)} - found
        if not missing:
            break
        found |= missing
    return sorted(found, key=lambda n: n.serial)


def _reached(fetches, fed) -> list[Node]:
    """Nodes that fetches need, inputs first; the way stops at fed nodes."""
    order: list[Node] = []
    state: dict[Node, int] = {}
    for root in fetches:
        stack = [root]
        while stack:
            node = stack[-1]
            if state.get(node) is None:
                state[node] = 1
                if node not in fed:
                    stack.extend(n for n in reversed(node.inputs + node.control) if n not in state)
            else:
                stack.pop()
                if state[node] == 1:
                    state[node] = 2
                    order.append(node)
    return order
