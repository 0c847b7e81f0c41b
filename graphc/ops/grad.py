"""`gradients`: symbolic gradient nodes, which the `differentiate` pass replaces."""
from __future__ import annotations

from graphc.errors import ArgumentError, DTypeError, RuleError, report
from graphc.ir.graph import topological
from graphc.ir.node import Node, apply, as_node, is_tensor, result
from graphc.ir.op import REQUIRED, Kind, Op
from graphc.ir.types import same_shape
from graphc.ops.elementwise import add


def _grad_type(*types, ys, xs):
    for y, dy in zip(types[:ys], types[ys:2 * ys], strict=True):
        if y.dtype != dy.dtype:
            raise RuleError("grad_ys has another dtype than ys", f"{y.dtype} != {dy.dtype}", DTypeError)
        same_shape(y.shape, dy.shape, "grad_ys has another shape than ys")
    return tuple(types[2 * ys:])


def _not_run(*_, **__):
    raise AssertionError("differentiate replaces gradients before anything runs")


grad = Op("grad", Kind.GRAD, ("*tensors",), attrs={"ys": REQUIRED, "xs": REQUIRED}, infer=_grad_type, numpy=_not_run,
          grad="differentiate replaces inner gradients first",
          doc="The gradients of sum(ys * grad_ys) by xs; the inputs are `ys` ys, as many grad_ys, then `xs` xs.")


def connected(ys, xs) -> set[Node]:
    """The nodes on a differentiable way from any of `xs` to any of `ys`, ends included."""
    found = set(xs)
    for node in topological(ys):
        if node in found:
            continue
        if node.op.kind is Kind.GRAD:  # counts as connected to everything that it was built from
            live = any(i in found for i in node.inputs)
        else:
            live = any(i in found and node.op.differentiable(k) and _carries(i) for k, i in enumerate(node.inputs))
        if live and _carries(node):
            found.add(node)
    return found


def _carries(node: Node) -> bool:
    """Whether a gradient can flow through the node's value: it holds floats."""
    types = node.type if isinstance(node.type, tuple) else (node.type,)
    return any(t.dtype.is_floating for t in types)


def gradients(ys, xs, grad_ys=None, name: str = "gradients") -> list:
    """The gradients of the sum of `ys` by each of `xs`: a list with one tensor of x's shape and dtype, or None, for each.

    ys, xs   a tensor or variable, or a list of them. None stands for an x that no differentiable way leads to: an integer,
             or a tensor that no y depends on.
    grad_ys  the gradient that flows into each y (default: ones); None entries are ones.
    Raises ArgumentError when grad_ys and ys differ in length.
    """
    from graphc.ops.composite import ones_like
    ys = [as_node(y) for y in (ys if isinstance(ys, (list, tuple)) else [ys])]
    xs = list(xs) if isinstance(xs, (list, tuple)) else [xs]
    for x in xs:
        if not is_tensor(x):
            raise report(ArgumentError, f"gradients: {x!r:.60} is not a tensor or variable")
    grad_ys = [None] * len(ys) if grad_ys is None else list(grad_ys) if isinstance(grad_ys, (list, tuple)) else [grad_ys]
    if len(grad_ys) != len(ys):
        raise report(ArgumentError, f"gradients: {len(grad_ys)} grad_ys for {len(ys)} ys")
    places = [_places(x, ys) for x in xs]
    on_way = connected(ys, [p for group in places for p in group])
    ys_live = [(y, g) for y, g in zip(ys, grad_ys, strict=True) if y in on_way and y.dtype.is_floating]
    live_sources = _sources([y for y, _ in ys_live], on_way)
    groups = [[p for p in group if p in live_sources and p.dtype.is_floating] for group in places]
    flat = list(dict.fromkeys(p for group in groups for p in group))
    if not flat:
        return [None] * len(xs)
    seeds = [ones_like(y) if g is None else as_node(g, y.dtype, "grad_ys") for y, g in ys_live]
    node = apply(grad, (*[y for y, _ in ys_live], *seeds, *flat), {"ys": len(ys_live), "xs": len(flat)}, name=name)
    found = {p: result(node, k) for k, p in enumerate(flat)}
    return [_total([found[p] for p in group]) for group in groups]


def _places(x, ys) -> list[Node]:
    """Where x enters the graph: a tensor itself, a variable at each of its reads."""
    if isinstance(x, Node):
        return [x]
    return [n for n in topological(ys) if n.op.kind is Kind.EFFECT and n.inputs[0] is x.handle and n.op.rule.action == "read"]


def _sources(ys, on_way) -> set[Node]:
    """The nodes of `on_way` that a gradient reaches when it starts from `ys`."""
    reached = set(ys)
    for node in reversed(topological(ys)):
        if node in reached:
            for k, i in enumerate(node.inputs):
                if i in on_way and (node.op.kind is Kind.GRAD or node.op.differentiable(k)):
                    reached.add(i)
    return reached


def _total(parts: list[Node]):
    if not parts:
        return None
    total = parts[0]
    for part in parts[1:]:
        total = add(total, part)
    return total
