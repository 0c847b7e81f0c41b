"""Which values are made anew wherever they are needed, instead of kept in memory: a dropout mask, or numbers of elements.

A random node is a pure function of seeds, run and element, and an index node one of the element. So the backward pass can
compute a mask again, in the kernel that needs it, and the forward pass stores none.
"""
from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from graphc.config import options
from graphc.ir.node import Node
from graphc.ir.op import Kind
from graphc.passes.regions import is_size_value, size_nodes


def drawn_again(order: Sequence[Node], users: Mapping[Node, Sequence[Node]], outputs: set[Node]) -> dict[Node, set[Node]]:
    """node -> the nodes that it is computed from, itself included, for each value that every region draws for itself.

    Such a value comes from random and index nodes, single numbers and nothing else, by elementwise ops. What needs it is
    elementwise and of its shape, so that nothing is drawn more than once for an element; and there are two or more of
    those, for one user is joined with it in any case.
    """
    behind: dict[Node, set[Node]] = {}
    for node in order:
        if node.op.kind is Kind.RANDOM or node.op.kind is Kind.INDEX and node.type.shape != ():
            behind[node] = {node}
        elif node.op.kind is Kind.ELEMENTWISE and not node.op.rule.fails and any(i in behind for i in node.inputs) and all(
                i in behind and i.type.shape == node.type.shape or _is_number(i) for i in node.inputs):
            behind[node] = {node}.union(*(behind[i] if i in behind else size_nodes(i) for i in node.inputs
                                          if i in behind or is_size_value(i)))
    for family in _families(behind, users):
        takers = {u for n in family for u in users.get(n, ()) if u not in behind}
        fits = all(u.op.kind is Kind.ELEMENTWISE and u.type.shape == n.type.shape
                   for n in family for u in users.get(n, ()))
        if len(takers) < 2 or not fits or family & outputs:
            for node in family:
                del behind[node]
        elif "memory" in options.explain:
            for node in family:
                if count := sum(u not in behind for u in users[node]):
                    print(f"graphc: memory: {node.label} is drawn again in each of {count} places instead of stored: "
                          f"{node.type.bytes} bytes", file=sys.stderr)
    return behind


def _is_number(node: Node) -> bool:
    return node.op.kind is Kind.CONSTANT and node.type.shape == () or is_size_value(node)


def _families(behind: Mapping[Node, set[Node]], users: Mapping[Node, Sequence[Node]]) -> list[set[Node]]:
    """The nodes of `behind`, those that depend on one another together."""
    found: list[set[Node]] = []
    seen: set[Node] = set()
    for node in behind:
        family: set[Node] = set()
        stack = [node]
        while stack:
            member = stack.pop()
            if member not in behind or member in seen:
                continue
            seen.add(member)
            family.add(member)
            stack += [*member.inputs, *users.get(member, ())]
        if family:
            found.append(family)
    return found
