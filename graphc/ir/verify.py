"""The invariants of a graph, each with a name. Run after every pass with GRAPHC_CHECK=1, and in all tests."""
from __future__ import annotations

from graphc.errors import RuleError, VerifyError, report
from graphc.ir import dims
from graphc.ir.graph import Graph, new_dims, ordered, used_dims
from graphc.ir.op import OPS, Kind
from graphc.ir.types import Equations, TensorType, type_text


def verify(graph: Graph, properties: frozenset[str] = frozenset()) -> None:
    """Raise VerifyError, naming the invariant and the node, when `graph` breaks one."""
    order = ordered(graph)  # raises for cycles
    _inputs(graph, order)
    names: set[str] = set()
    for node in order:
        if node.name:
            _require(node.name not in names, "unique-names", node, "two nodes have this name")
            names.add(node.name)
        _node(node)
        _bodies(node)
    if "pure" in properties:
        _pure(graph, order)
    if "no_grad" in properties:
        for node in order:
            _require(node.op.kind is not Kind.GRAD, "no-grad", node, "a symbolic gradient is left")


def untold_dims(graph: Graph) -> set[str]:
    """Names of sizes that neither an input nor a host op of the graph tells."""
    order = graph.nodes()
    told = {name for n in graph.inputs for name in dims.names_in(n.type)} | {name for n in order for name in new_dims(n)}
    return {name for n in order for name in used_dims(n)} - told


def _require(condition: bool, invariant: str, node, what: str) -> None:
    if not condition:
        raise report(VerifyError, f"the graph breaks the invariant {invariant}", [("node", node.describe())], what)


def _inputs(graph: Graph, order) -> None:
    declared = set(graph.inputs)
    for node in order:
        if node.op.kind is Kind.INPUT:
            _require(node in declared, "declared-inputs", node, "it is not among the graph's inputs")
    for node in graph.inputs:
        _require(node.op.kind is Kind.INPUT, "declared-inputs", node, "a parameter must be an input node")


def _node(node) -> None:
    _require(OPS.get(node.op.name) is node.op, "known-op", node, f"the op {node.op.name} is not registered")
    fixed = len(node.op.inputs) - node.op.variadic
    enough = len(node.inputs) >= fixed if node.op.variadic else len(node.inputs) == fixed
    _require(enough, "arity", node, f"{len(node.inputs)} inputs")
    _require(set(node.attrs) == set(node.op.attrs), "attributes", node, f"has {sorted(node.attrs)}")
    try:
        with Equations():
            inferred = node.op.infer(*(i.type for i in node.inputs), **node.attrs)
    except RuleError as e:
        inferred = e
    if isinstance(inferred, RuleError):
        _require(False, "types", node, f"its type rule fails: {inferred.what} {inferred.rule}")
    _require(_alike(inferred, node.type), "types", node, f"its type rule gives {type_text(inferred)}")


def _alike(a, b) -> bool:
    """The same type, but for equal dims with two names."""
    if isinstance(a, tuple) or isinstance(b, tuple):
        return (isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b)
                and all(_alike(x, y) for x, y in zip(a, b, strict=True)))
    return (isinstance(a, TensorType) and a.dtype == b.dtype and len(a.shape) == len(b.shape)
            and all(x == y or not (isinstance(x, int) and isinstance(y, int))
                    for x, y in zip(a.shape, b.shape, strict=True)))


def _bodies(node) -> None:
    for body in node.attrs.values():
        if isinstance(body, Graph):
            if node.op.kind in (Kind.REGION, Kind.SEGMENT):  # for other ops with bodies the type rule says what they take
                _require(len(body.inputs) == len(node.inputs), "body-inputs", node, "the body takes other inputs")
                for outer, inner in zip(node.inputs, body.inputs, strict=True):
                    _require(_alike(outer.type, inner.type), "body-inputs", node, f"{inner.label} has another type")
            verify(body)


def _pure(graph: Graph, order) -> None:
    for node in order:
        _require(not node.control, "pure", node, "it has control inputs")
        if node.op.kind is Kind.EFFECT:
            _require(node.op.rule.action in ("write", "read"), "pure", node, "an effect is left")
            _require(node.op.rule.action == "read" or node in graph.outputs, "pure", node, "a write that is no output")
