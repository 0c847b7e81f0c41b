"""Rewrite rules: a pattern, and what takes its place; and the engine that applies a list of them.

A pattern is written like user code: `rule("mul-one", x * 1, x)`. Letters stand for any tensor; the same letter twice means
the same node; a number stands for a constant of that value in every element.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.errors import CompileError, report
from graphc.ir.container import detached
from graphc.ir.graph import Graph, rebuild
from graphc.ir.node import Node, as_node, make
from graphc.ir.op import OPS, Kind
from graphc.ir.types import TensorType
from graphc.ops.movement import broadcast_to

MAX_ROUNDS = 50


class Pattern:
    """A node of a pattern. Built by operators, `call`, and `Letter`."""

    def __init__(self, op: str, inputs: Sequence, attrs: dict | None = None):
        self.op, self.inputs, self.attrs = op, tuple(inputs), attrs or {}

    def __add__(self, other):
        return Pattern("add", (self, other))

    def __sub__(self, other):
        return Pattern("subtract", (self, other))

    def __mul__(self, other):
        return Pattern("multiply", (self, other))

    def __rmul__(self, other):
        return Pattern("multiply", (other, self))

    def __truediv__(self, other):
        return Pattern("divide", (self, other))

    def __neg__(self):
        return Pattern("negative", (self,))


class Letter(Pattern):
    """Stands for any tensor."""

    def __init__(self, name: str):
        super().__init__("", ())
        self.name = name


def call(op: str, *inputs, **attrs) -> Pattern:
    """The op called `op` on patterns."""
    return Pattern(op, inputs, attrs)


@dataclass(frozen=True)
class Rule:
    """`pattern` becomes `result`, where `condition(node, found)` holds: found maps letters to nodes. `dtypes`: a class of
    dtypes for which the rule is true ("any", "float", "integer").
    """

    name: str
    pattern: Pattern
    result: object
    condition: Callable[[Node, dict], bool] | None = None
    dtypes: str = "any"


def match(pattern, node: Node, found: dict[str, Node]) -> bool:
    """Whether `node` has the form of `pattern`; fills `found`."""
    if isinstance(pattern, Letter):
        return found.setdefault(pattern.name, node) is node
    if not isinstance(pattern, Pattern):
        return constant_number(node) == pattern and np.signbit(constant_number(node)) == np.signbit(pattern)
    return (node.op.name == pattern.op and len(node.inputs) == len(pattern.inputs)
            and all(node.attrs.get(k) == v for k, v in pattern.attrs.items())
            and all(match(p, i, found) for p, i in zip(pattern.inputs, node.inputs, strict=True)))


def constant_number(node: Node):
    """The one number that every element of a constant is, through views and moves; else None."""
    while node.op.kind in (Kind.VIEW, Kind.MOVE):
        node = node.inputs[0]
    if node.op.kind is not Kind.CONSTANT:
        return None
    values = node.attrs["value"].value
    if values.size == 0 or values.size > 1 and not (values == values.flat[0]).all():
        return None
    return values.flat[0]


def construct(result, found: dict[str, Node], like: Node) -> Node:
    """The nodes that `result` describes."""
    if isinstance(result, Letter):
        return found[result.name]
    if not isinstance(result, Pattern):
        return as_node(result, like.type.dtype)
    inputs = [construct(i, found, like) for i in result.inputs]
    return make(OPS[result.op], tuple(inputs), result.attrs, location=like.location)


def rewrite_once(node: Node, rules: Sequence[Rule]) -> tuple[Node, str] | None:
    """(the node that takes `node`'s place, the rule's name), or None when no rule applies."""
    from graphc.ops.define import CLASSES
    if not isinstance(node.type, TensorType):
        return None
    for rule in rules:
        found: dict[str, Node] = {}
        if not match(rule.pattern, node, found):
            continue
        if not CLASSES[rule.dtypes](node.type.dtype) or rule.condition and not rule.condition(node, found):
            continue
        with detached(node.location):
            new = construct(rule.result, found, node)
            if new.type.dtype != node.type.dtype:
                continue
            if new.type.shape != node.type.shape:
                new = broadcast_to(new, shape=tuple(node.type.shape))
        return new, rule.name
    return None


def apply_rules(graph: Graph, rules: Sequence[Rule]) -> Graph:
    """The graph with every rule applied wherever it can be. Raises CompileError, naming the rules, for an endless loop."""
    def replace(node, inputs, control):
        current = node if inputs == node.inputs else make(node.op, inputs, node.attrs, name=node.name, location=node.location)
        used: list[str] = []
        while (step := rewrite_once(current, rules)) is not None:
            current, name = step
            used.append(name)
            if len(used) > MAX_ROUNDS:
                raise report(CompileError, f"rewrite rules go round in circles: {', '.join(dict.fromkeys(used[-10:]))}",
                             [("node", node.describe())])
        return current
    return rebuild(graph, replace)
