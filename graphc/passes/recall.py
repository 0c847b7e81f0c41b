"""What a scan has computed in each iteration, another one need not compute again: the first stacks it.

The gradient of a recurrent layer needs the products of its forward loop. They could be taken for all iterations at once, which
writes as many bytes as the forward loop's stack of them would be, and does all multiplications again.
"""
from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.graph import Graph, rebuild
from graphc.ir.node import RESULT, Node, make
from graphc.ir.op import Kind
from graphc.passes.simplify import MERGED, key_of


class Scans:
    """The scans of a graph that were taken apart and built again, and what others want of them besides."""

    def __init__(self) -> None:
        self.known: dict[tuple, Node] = {}
        self.newest: dict[Node, Node] = {}      # a scan -> itself with more stacks
        self.base: dict[Node, Node] = {}        # that -> the scan

    def one(self, node: Node) -> Node:
        """The node, or the one that was made before and computes the same."""
        return self.known.setdefault(key_of(node, node.inputs), node)

    def stack(self, scan: Node, value: Node) -> Node:
        """The stack of a value of the scan's body; a new one if there is none."""
        now, states = self.newest.get(scan, scan), scan.attrs["states"]
        body = now.attrs["body"]
        if value not in body.outputs[states:]:
            body = Graph(body.name, body.inputs, (*body.outputs, value))
            now = make(now.op, now.inputs, {**now.attrs, "body": body, "history": 0}, name=now.name, location=now.location)
            self.newest[scan], self.base[now] = now, scan
        return self.one(make(RESULT, (now,), {"index": states + body.outputs[states:].index(value)}, location=value.location))

    def applied(self, graph: Graph) -> Graph:
        """The graph with one node for a scan and the same one with more stacks."""
        made: dict[Node, Node] = {}

        def replace(node, inputs, control):
            scan = self.base.get(node, node)
            if scan not in self.newest:
                return None
            if scan not in made:
                last = self.newest[scan]
                made[scan] = make(last.op, inputs, last.attrs, name=last.name, location=last.location)
            return made[scan]
        return rebuild(graph, replace) if self.newest else graph


class Twins:
    """Which values of a scan's body are computed in other scans' bodies too, in the iteration of the same row."""

    def __init__(self, scans: Scans, length, outer: Sequence[tuple[Node, Node]], same: Sequence[tuple[Node, Node]]):
        """outer: (row in the body, its sequence) pairs; same: (value in the body, the operand that it is) pairs."""
        self.scans = scans
        found = {scans.base.get(s.inputs[0], s.inputs[0]): None for _, s in outer if s.op is RESULT}
        self.others = [_Other(scan, outer, same, scans) for scan in found
                       if scan.op.kind is Kind.SCAN and scan.attrs["length"] == length]

    def see(self, node: Node, outside: Node | None = None) -> None:
        """Take note of the next node of the body. outside: its values in all iterations, where they are made outside."""
        for other in self.others:
            other.see(node, outside)

    def is_stacked(self, node: Node) -> bool:
        """Whether the values of all iterations are in memory anyway."""
        return any(other.is_stacked(node) for other in self.others)

    def stack(self, node: Node) -> Node | None:
        """The stack of the value that another scan computes."""
        for other in self.others:
            twin = other.twin.get(node)
            if twin is not None and twin.op.kind is not Kind.INPUT:
                return self.scans.stack(other.scan, twin)
        return None


class _Other:
    """A scan that makes a sequence of the one looked at."""

    def __init__(self, scan: Node, outer: Sequence[tuple[Node, Node]], same: Sequence[tuple[Node, Node]], scans: Scans):
        self.scan, self.body = scan, scan.attrs["body"]
        self.states = states = scan.attrs["states"]
        behind = states + scan.attrs["sequences"]
        self.rows = dict(zip(scan.inputs[states:behind], self.body.inputs[states:behind], strict=True))
        shared = dict(zip(scan.inputs[behind:], self.body.inputs[behind:], strict=True))
        self.computed = {key_of(n, n.inputs): n for n in self.body.nodes() if n.op.kind in MERGED}
        self.twin: dict[Node, Node] = {inner: shared[value] for inner, value in same if value in shared}
        for row, sequence in outer:
            if sequence in self.rows:
                self.twin[row] = self.rows[sequence]
            elif sequence.op is RESULT and scans.base.get(sequence.inputs[0], sequence.inputs[0]) is scan:
                self.twin[row] = scans.newest.get(scan, scan).attrs["body"].outputs[sequence.attrs["index"]]

    def see(self, node: Node, outside: Node | None) -> None:
        if outside in self.rows:
            self.twin[node] = self.rows[outside]
        elif node not in self.twin and node.op.kind in MERGED and all(i in self.twin for i in node.inputs):
            twin = self.computed.get(key_of(node, tuple(self.twin[i] for i in node.inputs)))
            if twin is not None:
                self.twin[node] = twin

    def is_stacked(self, node: Node) -> bool:
        return self.twin.get(node) in self.body.outputs[self.states:]
