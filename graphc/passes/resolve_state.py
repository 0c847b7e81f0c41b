"""Makes the transaction explicit: reads and writes of variables become plain dataflow (DESIGN 4)."""
from __future__ import annotations

from graphc.errors import StateError, report
from graphc.ir.container import detached
from graphc.ir.graph import Graph, is_required, with_inputs
from graphc.ir.node import Node, make
from graphc.ir.op import Kind
from graphc.ops.elementwise import add, subtract
from graphc.ops.state import read, write
from graphc.passes.manager import graph_pass


@graph_pass(needs=["no_grad"], gives=["pure"])
def resolve_state(graph: Graph) -> Graph:
    """Replace effects by values: a read is the variable's value at the start of the run, or what the writes ordered before
    it leave; each written variable gets one `write` among the outputs. Control inputs vanish.

    Raises StateError for two writes of one variable without an order, unless both add or subtract.
    """
    return _Resolver(graph).run()


class _Resolver:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.order = graph.nodes()
        self.place = {n: k for k, n in enumerate(self.order)}
        self.writes = [n for n in self.order if n.op.kind is Kind.EFFECT and n.op.rule.action in ("assign", "add", "sub")]
        self.bit = {w: 1 << k for k, w in enumerate(self.writes)}
        self.before = self.earlier_writes()
        self.new: dict[Node, Node] = {}
        self.states: dict[tuple, Node] = {}

    def earlier_writes(self) -> dict[Node, int]:
        """For each node the set of writes that come before it, as bits."""
        before: dict[Node, int] = {}
        for node in self.order:
            mask = 0
            for needed in node.inputs + node.control:
                mask |= before[needed] | self.bit.get(needed, 0)
            before[node] = mask
        return before

    def run(self) -> Graph:
        for node in self.order:
            self.new[node] = self.replacement(node)
        outputs = [self.new[o] for o in self.graph.outputs if o.type != ()]
        for variable in dict.fromkeys(w.inputs[0] for w in self.writes):
            every = tuple(w for w in self.writes if w.inputs[0] is variable)
            value = self.state(variable, every)
            outputs.append(make(write, (self.new[variable], value), location=every[-1].location))
        required = tuple(self.new[n] for n in self.order if is_required(n))
        return Graph(self.graph.name, tuple(self.new[i] for i in self.graph.inputs), tuple(outputs), self.graph.equations,
                     required)

    def replacement(self, node: Node) -> Node:
        inputs = tuple(self.new[i] for i in node.inputs)
        if node.op.kind is Kind.EFFECT and node.op.rule.action != "write":
            earlier = tuple(w for w in self.writes if w.inputs[0] is node.inputs[0] and self.before[node] & self.bit[w])
            if node.op.rule.action == "read":
                return make(read, (self.state(node.inputs[0], earlier),), location=node.location, name=node.name)
            return make(read, (self.state(node.inputs[0], (*earlier, node)),), location=node.location, name=node.name)
        return with_inputs(node, inputs)

    def state(self, variable: Node, writes: tuple[Node, ...]) -> Node:
        """The variable's value after `writes`, which come in graph order."""
        if not writes:
            return self.new[variable]
        if writes not in self.states:
            last = writes[-1]
            for other in writes[:-1]:
                self.check_order(variable, other, last)
            value = self.new[last.inputs[1]]
            with detached(last.location):
                if last.op.rule.action == "assign":
                    self.states[writes] = value
                else:
                    step = add if last.op.rule.action == "add" else subtract
                    self.states[writes] = step(self.state(variable, writes[:-1]), value)
        return self.states[writes]

    def check_order(self, variable: Node, first: Node, second: Node) -> None:
        ordered = self.before[second] & self.bit[first] or self.before[first] & self.bit[second]
        both_add = all(w.op.rule.action in ("add", "sub") for w in (first, second))
        if not ordered and not both_add:
            raise report(StateError, f"two writes of the variable {variable.name} have no order",
                         [("first", first.describe()), ("second", second.describe())],
                         "either could come last", "order them with graphc.control_dependencies([...])",
                         location=second.location)
