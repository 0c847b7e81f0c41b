"""Re-derives every type and settles which named dims are one."""
from __future__ import annotations

from collections.abc import Iterator

from graphc.ir import dims
from graphc.ir.dims import Dim, Size
from graphc.ir.graph import Equation, Graph, nested, new_dims
from graphc.ir.node import INPUT, Node, make
from graphc.ir.op import Kind
from graphc.ir.types import Equations, TensorType
from graphc.ops.movement import reshape_to
from graphc.passes.manager import graph_pass


@graph_pass(gives=["typed"])
def infer_shapes(graph: Graph) -> Graph:
    """Give each dim one name: where a node needs `N == M`, M becomes N in the whole graph.

    Equations that no renaming settles (`N*M == 12`) stay with the graph and are checked as soon as their dims are known. A
    dim that a host op tells is only written in terms of dims that are known before.
    """
    env: dict[str, Size] = {}
    left: list[Equation] = list(graph.equations)
    for node in _all_nodes(graph):
        with Equations() as equations:
            node.op.infer(*(i.type for i in node.inputs), **node.attrs)
        left += [Equation(a, b, node.location) for a, b in equations.found]
    order = {n: k for k, n in enumerate(_names_in_order(graph))}
    first_late = len(order)
    for name in (n for node in _all_nodes(graph) for n in new_dims(node)):
        order.setdefault(name, len(order))
    open_equations = []
    for equation in left:
        a, b = (_settled(d, env) for d in (equation.left, equation.right))
        if a == b:
            continue
        solved = _solve(a, b, order, first_late)
        if solved is None:
            open_equations.append(Equation(a, b, equation.location))
            continue
        name, value = solved
        env = {k: dims.substitute(v, {name: value}) for k, v in env.items()} | {name: value}
    remaining = [Equation(_settled(e.left, env), _settled(e.right, env), e.location) for e in open_equations]
    remaining = list(dict.fromkeys(e for e in remaining if e.left != e.right))
    if not env and tuple(remaining) == graph.equations:
        return graph
    return _renamed(graph, env, tuple(remaining))


def _all_nodes(graph: Graph) -> Iterator[Node]:
    """The nodes of a graph and of the bodies in it, whose dims are the same ones."""
    for node in graph.nodes():
        yield node
        for body in nested(node).values():
            yield from _all_nodes(body)


def _settled(dim: Size, env) -> Size:
    return dims.substitute(dim, env)


def _names_in_order(graph: Graph) -> list[str]:
    """Dim names, those that an input binds first."""
    found: dict[str, None] = {}
    for only_names in (True, False):
        for node in graph.inputs:
            for dim in node.type.shape:
                if dims.is_name(dim) or not only_names:
                    found.update(dict.fromkeys(dims.names(dim)))
    return list(found)


def _solve(a: Size, b: Size, order, first_late: int) -> tuple[str, Size] | None:
    """(name, its value) from a == b, eliminating the name that comes last; None when no renaming does it. Names from
    `first_late` on become known only when the graph runs, in their order.
    """
    rank = {n: order.get(n, len(order)) for d in (a, b) for n in dims.names(d)}
    last = max(rank.values(), default=0)
    candidates = []
    for left, right in ((a, b), (b, a)):
        difference = left - right
        terms = dict(difference.terms) if isinstance(difference, Dim) else {}
        for name in dims.names(left):
            coefficient = terms.get((name,))
            if coefficient in (1, -1):
                value = difference * -coefficient + dims.name(name)  # name = name - coefficient * difference
                if name not in dims.names(value) and (last < first_late or rank[name] == last):
                    candidates.append((rank[name], name, value))
    if not candidates:
        return None
    _, name, value = max(candidates, key=lambda c: (c[0], c[1]))
    return name, value


def _renamed(graph: Graph, env, equations) -> Graph:
    new: dict[Node, Node] = {}
    for node in graph.nodes():
        inputs, control = tuple(new[i] for i in node.inputs), tuple(new[c] for c in node.control)
        if node.op.kind is Kind.INPUT:
            type_ = node.type.substitute(env)
            attrs = {**node.attrs, "type": type_}
            new[node] = node if type_ == node.type else Node(INPUT, (), attrs, type_, name=node.name, location=node.location)
        else:
            attrs = {k: _attr(v, env) for k, v in node.attrs.items()}
            if node.op.kind is Kind.ELEMENTWISE:
                inputs = _of_one_size(node, inputs, attrs)
            same = attrs == dict(node.attrs) and inputs == node.inputs and control == node.control
            new[node] = node if same else make(node.op, inputs, attrs, control=control, name=node.name, location=node.location)
    return graph.mapped(new, equations)


def _of_one_size(node: Node, inputs: tuple[Node, ...], attrs) -> tuple[Node, ...]:
    """The inputs with their sizes written as the result's, where an equation that no renaming settles says that they are
    equal: `max(N-1,0)` as 5. The equation is checked before anything runs, so it is the same memory under another shape.
    """
    result, written = node.op.infer(*(i.type for i in inputs), **attrs).shape, []
    for source in inputs:
        own = tuple(source.type.shape)
        wanted = tuple(1 if d == 1 else r for d, r in zip(own, result[len(result) - len(own):], strict=True))
        written.append(source if own == wanted else make(reshape_to, (source,), {"shape": wanted}, location=node.location))
    return tuple(written)


def _attr(value, env):
    if isinstance(value, Dim):
        return dims.substitute(value, env)
    if isinstance(value, tuple):
        return tuple(_attr(v, env) for v in value)
    if isinstance(value, TensorType):
        return value.substitute(env)
    if isinstance(value, Graph):
        return _renamed(value, env, value.equations)
    return value
