"""Replaces symbolic gradients by the nodes that compute them: reverse mode, driven by the ops' records."""
from __future__ import annotations

from collections.abc import Collection, Sequence

from graphc.errors import CompileError, report
from graphc.ir.container import detached
from graphc.ir.graph import Graph, map_nested, rebuild, topological
from graphc.ir.node import GROUP, RESULT, Node, as_node, input_node, make
from graphc.ir.op import Kind
from graphc.ops.composite import factored_sum, zeros_like
from graphc.ops.elementwise import add
from graphc.ops.grad import connected, takes_gradient
from graphc.ops.movement import broadcast_to, reshape_to
from graphc.passes.batch import batched, in_turn
from graphc.passes.infer_shapes import infer_shapes
from graphc.passes.manager import graph_pass


@graph_pass(needs=["typed"], gives=["no_grad"])
def differentiate(graph: Graph) -> Graph:
    """Replace each grad(ys, grad_ys, xs) by nodes that compute it; inner gradients first, so any order works. Gradients of
    loops and branches put symbolic ones into new bodies: those are replaced last. Values with gradients of their own become
    plain values: nothing asks for their gradients any more. Where sizes are equal by an equation alone, gradients are written
    in one of the two, as everything else is.
    """
    found = map_nested(_plain(graph), differentiate.function)
    return infer_shapes.function(found) if graph.equations else found


def _without_customs(graph: Graph) -> Graph:
    customs: dict[Node, tuple[Node, ...]] = {}

    def replace(node, inputs, control):
        if node.op.kind is Kind.CUSTOM:
            customs[node] = inputs
            return make(GROUP, (), location=node.location)
        if node.op is RESULT and node.inputs[0] in customs:
            return customs[node.inputs[0]][node.attrs["index"]]
        return None
    return rebuild(graph, replace)


def without_gradients(graph: Graph) -> Graph:
    """The graph with symbolic gradients replaced, as one that may be differentiated again."""
    gradients: dict[Node, list[Node]] = {}

    def replace(node, inputs, control):
        if node.op.kind is Kind.GRAD:
            ys, xs = node.attrs["ys"], node.attrs["xs"]
            first = 2 * ys + xs
            with detached(node.location):
                gradients[node] = _backward(node.attrs["rows"], inputs[:ys], inputs[ys:2 * ys], inputs[2 * ys:first],
                                            set(inputs[first:]))
            return make(GROUP, (), location=node.location)  # stands where the symbolic node stood; nothing needs it
        if node.op is RESULT and node.inputs[0] in gradients:
            return gradients[node.inputs[0]][node.attrs["index"]]
        return None
    return rebuild(graph, replace)


def backward(ys: Sequence[Node], grad_ys: Sequence[Node], xs: Sequence[Node], stops: Collection[Node] = ()) -> list[Node]:
    """The gradient of sum(ys * grad_ys) by each of xs, as new nodes. None goes through one of `stops`."""
    on_way = connected(ys, xs, stops)
    collected: dict[tuple[Node, int], list[Node]] = {}  # contributions to (node, number of its result)
    for y, dy in zip(ys, grad_ys, strict=True):
        collected.setdefault((y, 0), []).append(dy)
    found: dict[Node, Node] = {}
    wanted = set(xs)
    for node in reversed(topological(ys)):
        if node not in on_way:
            continue
        slots = [k for n, k in _slots(node) if (n, k) in collected]
        if not slots:
            continue
        with detached(node.location):
            totals = {k: _sum(collected.pop((node, k))) for k in slots}
            if node in wanted:
                found[node] = totals[0]
            if node in stops:
                continue
            if node.op is RESULT:
                collected.setdefault((node.inputs[0], node.attrs["index"]), []).append(totals[0])
            elif any(i in on_way for i in node.inputs):
                _propagate(node, totals, on_way, collected)
    return [found[x] if x in found else zeros_like(x) for x in xs]


def _backward(how: str, ys: Sequence[Node], grad_ys: Sequence[Node], xs: Sequence[Node], stops: Collection[Node]) -> list[Node]:
    """The same; with `how`, "at once" or "in turn", for each row of grad_ys, which have one more axis in front."""
    if not how:
        return backward(ys, grad_ys, xs, stops)
    seeds = {input_node("", y.type): dy for y, dy in zip(ys, grad_ys, strict=True)}
    rows = grad_ys[0].type.shape[0]
    found = backward(ys, tuple(seeds), xs, stops)
    return batched(found, seeds, rows, _plain) if how == "at once" else in_turn(found, seeds, rows)


def _plain(graph: Graph) -> Graph:
    return _without_customs(without_gradients(graph))


def _slots(node: Node):
    count = len(node.type) if isinstance(node.type, tuple) else 1
    return [(node, k) for k in range(count)]


def _sum(parts: list[Node]) -> Node:
    total = parts[0]
    for part in parts[1:]:
        total = add(total, part)
    return total


def _propagate(node: Node, totals: dict[int, Node], on_way: set[Node], collected) -> None:
    """Apply the op's gradient rule and hand the parts to the inputs, each summed to the input's shape."""
    if isinstance(node.type, tuple):
        y: object = tuple(make(RESULT, (node,), {"index": k}, location=node.location) for k in range(len(node.type)))
        dy: object = tuple(totals[k] if k in totals else zeros_like(r) for k, r in enumerate(y))  # type: ignore[arg-type]
    else:
        y, dy = node, totals[0]
    parts = node.op.grad(dy, y, *node.inputs, **node.attrs)
    if len(parts) != len(node.inputs):
        raise report(CompileError, f"{node.op.name}: its gradient rule gives {len(parts)} parts for {len(node.inputs)} inputs")
    for k, (source, part) in enumerate(zip(node.inputs, parts, strict=True)):
        if part is not None and source in on_way and takes_gradient(node, k) and source.type.dtype.is_floating:
            part = sum_to(as_node(part, source.type.dtype), source.type.shape)
            if part.type.dtype != source.type.dtype:
                raise report(CompileError, f"{node.op.name}: its gradient by {node.op.input_name(k)} is {part.type}, "
                                           f"the input is {source.type}")
            collected.setdefault((source, 0), []).append(part)


def sum_to(x: Node, shape) -> Node:
    """x summed over the axes along which `shape` was broadcast to x's shape; or x broadcast to `shape`."""
    shape = tuple(shape)
    if x.type.shape == shape:
        return x
    lead = x.type.rank - len(shape)
    axes = tuple(range(lead)) + tuple(a + lead for a, d in enumerate(shape)
                                      if lead + a >= 0 and d == 1 and x.type.shape[a + lead] != 1)
    if axes:
        x = factored_sum(x, axes)
    kept = tuple(d for a, d in enumerate(shape) if a + lead not in axes)
    if len(kept) != len(shape):
        return reshape_to(x, shape=shape)
    return x if lead >= 0 else broadcast_to(x, shape=shape)
