"""Updates of a few rows of a variable: no tensor of the variable's size is made for them.

The gradient of a gather is rows scattered into zeros. What a training step then writes is `v - rate * scattered`, a sweep over
the whole table. This pass makes of it the rows of `- rate * updates`, added to v where they belong; the plan does that in the
variable's own memory.
"""
from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.container import detached
from graphc.ir.graph import Graph
from graphc.ir.node import Node, make
from graphc.ir.op import Kind
from graphc.ops.elementwise import add, divide, multiply, negative, subtract
from graphc.ops.gather import scatter_add
from graphc.ops.movement import reshape_to
from graphc.passes.manager import graph_pass


@dataclass(frozen=True)
class _Rows:
    """A term of a sum: rows scattered into zeros, seen in the shape of the variable; `factors` are scalars: (op, number)."""

    scatter: Node
    factors: tuple[tuple, ...] = ()
    negated: bool = False

    def by(self, op, number: Node) -> _Rows:
        return _Rows(self.scatter, (*self.factors, (op, number)), self.negated)

    def minus(self) -> _Rows:
        return _Rows(self.scatter, self.factors, not self.negated)

    def into(self, base: Node) -> Node:
        """base with the rows added."""
        indices, updates = self.scatter.inputs
        for op, number in self.factors:
            updates = op(updates, number)
        updates = negative(updates) if self.negated else updates
        shape, axis = tuple(base.type.shape), self.scatter.op.rule.axis(self.scatter.attrs)
        if self.scatter.type.shape == shape:
            return scatter_add(base, indices, updates, axis=axis)
        flat = reshape_to(base, shape=tuple(self.scatter.type.shape))
        return reshape_to(scatter_add(flat, indices, updates, axis=axis), shape=shape)


@graph_pass(needs=["pure"])
def sparse_updates(graph: Graph) -> Graph:
    """Turn writes of variable +- scalars * scattered rows into rows that are added to the variable."""
    outputs = [_sparse(o) if o.op.kind is Kind.EFFECT and o.op.rule.action == "write" else o for o in graph.outputs]
    if all(a is b for a, b in zip(outputs, graph.outputs, strict=True)):
        return graph
    return Graph(graph.name, graph.inputs, tuple(outputs), graph.equations, graph.required)


def _sparse(write: Node) -> Node:
    """The write with its rows scattered into the variable, or itself."""
    variable, value = write.inputs
    rows = _changes(value, variable)
    if not rows:
        return write
    with detached(write.location):
        for term in rows:
            variable = term.into(variable)
        return make(write.op, (write.inputs[0], variable), write.attrs, name=write.name, location=write.location)


def _changes(value: Node, variable: Node) -> list[_Rows] | None:
    """The terms that value has beside the variable; None when it is not the variable and scattered rows."""
    if value is variable:
        return []
    if value.op not in (add, subtract):
        return None
    left, right = value.inputs
    for base, other in ((left, right), (right, left)) if value.op is add else ((left, right),):
        before, terms = _changes(base, variable), _terms(other)
        if before is not None and terms is not None and other.type == value.type:
            return before + [t if value.op is add else t.minus() for t in terms]
    return None


def _terms(node: Node) -> list[_Rows] | None:
    """The node as a sum of scattered rows, each times scalars; None when it is something else."""
    if node.op.kind is Kind.SCATTER and not node.op.rule.into:
        return [_Rows(node)]
    if node.op.kind is Kind.VIEW:
        return _terms(node.inputs[0])
    if node.op is negative:
        found = _terms(node.inputs[0])
        return None if found is None else [t.minus() for t in found]
    if node.op in (add, subtract):
        first, second = (_terms(i) for i in node.inputs)
        if first is None or second is None or node.inputs[0].type != node.inputs[1].type:
            return None
        return [*first, *(second if node.op is add else (t.minus() for t in second))]
    if node.op in (multiply, divide):
        for at in (1, 0) if node.op is multiply else (1,):
            if (number := _scalar(node.inputs[at])) is not None and node.inputs[1 - at].type == node.type:
                found = _terms(node.inputs[1 - at])
                return None if found is None else [t.by(node.op, number) for t in found]
    return None


def _scalar(node: Node) -> Node | None:
    """The number of rank 0 that all elements of a node are, if it is plainly one."""
    while node.op.kind in (Kind.MOVE, Kind.VIEW) and node.type.shape != () and node.inputs[0].type.elements == 1:
        node = node.inputs[0]
    return node if node.type.shape == () else None
