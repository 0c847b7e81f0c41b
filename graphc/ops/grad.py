"""Symbolic gradient nodes, which the `differentiate` pass replaces; values with a gradient of the user's; barriers."""
from __future__ import annotations

from collections.abc import Collection, Sequence

from graphc.errors import ArgumentError, DTypeError, RuleError, report
from graphc.ir.graph import substitute, topological
from graphc.ir.node import Node, apply, as_node, is_tensor, result
from graphc.ir.op import REQUIRED, Batch, Kind, Op
from graphc.ir.types import same_shape
from graphc.ops.composite import ones_like, zeros_like
from graphc.ops.define import as_samples, sample
from graphc.ops.elementwise import add
from graphc.ops.samples import real


def _grad_type(*types, ys, xs, stops, rows):
    found = types[2 * ys:2 * ys + xs]
    for y, dy in zip(types[:ys], types[ys:2 * ys], strict=True):
        if rows and not dy.rank:
            raise RuleError("grad_ys has no rows", "its shape is []")
        if y.dtype != dy.dtype:
            raise RuleError("grad_ys has another dtype than ys", f"{y.dtype} != {dy.dtype}", DTypeError)
        same_shape(y.shape, dy.shape[1:] if rows else dy.shape, "grad_ys has another shape than ys")
    return tuple(x.with_shape((types[ys].shape[0], *x.shape)) for x in found) if rows else tuple(found)


def _not_run(*_, **__):
    raise AssertionError("differentiate replaces gradients before anything runs")


grad = Op("grad", Kind.GRAD, ("*tensors",), attrs={"ys": REQUIRED, "xs": REQUIRED, "stops": 0, "rows": ""},
          infer=_grad_type,
          numpy=_not_run, grad="differentiate replaces inner gradients first",
          doc="The gradients of sum(ys * grad_ys) by xs; the inputs are `ys` ys, as many grad_ys, `xs` xs, then `stops` "
              "tensors that no gradient goes through. With `rows`, grad_ys have one more axis in front: there are gradients "
              "for each of its rows, computed \"at once\" or \"in turn\".")


# values with a gradient of their own ---------------------------------------------------------------


def _custom_type(*types, ys, xs, positions, body):
    for position, output in zip(positions, body.outputs, strict=True):
        x = types[ys + position]
        if output.type.dtype != x.dtype:
            raise RuleError(f"gradient {position} has another dtype than its argument", f"{output.type.dtype} != {x.dtype}",
                            DTypeError, "graphc.cast(x, dtype) converts")
        same_shape(output.type.shape, x.shape, f"gradient {position} has another shape than its argument")
    return tuple(types[:ys])


def _custom_grad(dy, y, *inputs, ys, xs, positions, body):
    values = dict(zip(body.inputs, (*dy, *inputs[ys + xs:]), strict=True))
    found = dict(zip(positions, substitute(body, values).outputs, strict=True))
    return [None] * ys + [found.get(k) for k in range(len(inputs) - ys)]


custom = Op("custom_gradient", Kind.CUSTOM, ("*tensors",),
            attrs={"ys": REQUIRED, "xs": REQUIRED, "positions": REQUIRED, "body": REQUIRED}, infer=_custom_type,
            numpy=lambda *tensors, ys, xs, positions, body: tensors[:ys], grad=_custom_grad,
            doc="The first `ys` tensors, as functions of the next `xs`: the graph `body` takes a gradient for each result, "
                "then the other tensors, and gives the gradients by the xs at `positions`.")

barrier = Op(
    "barrier", Kind.VIEW, ("x", "*after"), attrs={"number": REQUIRED},
    doc="x itself, once the tensors `after` are known. It is equal to no other node: what is computed from it is not merged "
        "with the same computed from x, so it is computed again.",
    infer=lambda x, *after, number: x, numpy=lambda x, *after, number: x,
    grad=lambda dy, y, x, *after, number: [dy] + [None] * len(after), nondiff=("after",),
    samples=as_samples([sample(real(3, 4), number=0), sample(real(0, 2), real(3), number=1)]), batch=Batch(operands="own"),
)


# connections ---------------------------------------------------------------------------------------


def takes_gradient(node: Node, k: int) -> bool:
    """Whether a gradient can flow to a node's input k."""
    if node.op.kind is Kind.CUSTOM:
        return k - node.attrs["ys"] in node.attrs["positions"]
    return node.op.kind is Kind.GRAD or node.op.differentiable(k)  # a gradient: to all that it was built from


def connected(ys, xs, stops: Collection[Node] = ()) -> set[Node]:
    """The nodes on a differentiable way from any of `xs` to any of `ys`, ends included, that goes through none of `stops`."""
    found = set(xs)
    for node in topological(ys):
        if node in found or node in stops:
            continue
        live = any(i in found and takes_gradient(node, k) and _carries(i) for k, i in enumerate(node.inputs))
        if live and _carries(node):
            found.add(node)
    return found


def _carries(node: Node) -> bool:
    """Whether a gradient can flow through the node's value: it holds floats."""
    types = node.type if isinstance(node.type, tuple) else (node.type,)
    return any(t.dtype.is_floating for t in types)


def gradients(ys, xs, grad_ys=None, name: str = "gradients", colocate_gradients_with_ops: bool = False,
              gate_gradients: bool = False, aggregation_method=None, stop_gradients=None,
              unconnected_gradients: str = "none") -> list:
    """The gradients of the sum of `ys` by each of `xs`: a list with one tensor of x's shape and dtype, or None, for each.

    ys, xs   a tensor or variable, or a list of them. None stands for an x that no differentiable way leads to: an integer,
             or a tensor that no y depends on.
    grad_ys  the gradient that flows into each y (default: ones); None entries are ones.
    stop_gradients         tensors and variables that are taken for constants: no gradient goes through them. Those that are
                           among xs get their own gradient.
    unconnected_gradients  "zero" gives zeros in place of None.
    The other arguments are TensorFlow's and make no difference here.
    Raises ArgumentError when grad_ys and ys differ in length.
    """
    ys, xs, stops = _tensors(ys), _list(xs), _list(stop_gradients)
    for x in [*xs, *stops]:
        if not is_tensor(x):
            raise report(ArgumentError, f"gradients: {x!r:.60} is not a tensor or variable")
    if unconnected_gradients not in (UnconnectedGradients.NONE, UnconnectedGradients.ZERO):
        raise report(ArgumentError, f"gradients: unconnected_gradients is 'none' or 'zero', not {unconnected_gradients!r:.60}")
    grad_ys = [None] * len(ys) if grad_ys is None else _list(grad_ys)
    if len(grad_ys) != len(ys):
        raise report(ArgumentError, f"gradients: {len(grad_ys)} grad_ys for {len(ys)} ys")
    found = _gradients(ys, xs, grad_ys, [p for s in stops for p in _places(s, ys)], name)
    if unconnected_gradients == UnconnectedGradients.ZERO:
        return [zeros_like(x) if g is None else g for x, g in zip(xs, found, strict=True)]
    return found


class UnconnectedGradients:
    """What `gradients` gives for an x that no y depends on."""

    NONE, ZERO = "none", "zero"


class AggregationMethod:
    """How TensorFlow 1 adds gradients up. They are added in one way here."""

    ADD_N, DEFAULT, EXPERIMENTAL_TREE, EXPERIMENTAL_ACCUMULATE_N = 0, 0, 1, 2


def _list(values) -> list:
    return [] if values is None else list(values) if isinstance(values, (list, tuple)) else [values]


def _tensors(values) -> list[Node]:
    return [as_node(v) for v in _list(values)]


def row_gradients(y: Node, xs: Sequence, grad_ys: Node, at_once: bool, name: str) -> list:
    """The gradients of y by each of xs for each row of grad_ys, which has an axis in front of y's, as have the results. All at
    once, as if that axis were a batch; or one after the other, in less memory.
    """
    return _gradients([y], xs, [grad_ys], (), name, "at once" if at_once else "in turn")


def _gradients(ys: Sequence[Node], xs: Sequence, grad_ys: Sequence, stops: Sequence[Node], name: str, rows: str = "") -> list:
    places = [_places(x, ys) for x in xs]
    on_way = connected(ys, [p for group in places for p in group], stops)
    ys_live = [(y, g) for y, g in zip(ys, grad_ys, strict=True) if y in on_way and y.dtype.is_floating]
    live_sources = reached([y for y, _ in ys_live], on_way, stops)
    groups = [[p for p in group if p in live_sources and p.dtype.is_floating] for group in places]
    flat = list(dict.fromkeys(p for group in groups for p in group))
    if not flat:
        return [None] * len(xs)
    seeds = [ones_like(y) if g is None else as_node(g, y.dtype, "grad_ys") for y, g in ys_live]
    stops = [n for n in (topological(ys) if stops else ()) if n in stops]
    node = apply(grad, (*[y for y, _ in ys_live], *seeds, *flat, *stops),
                 {"ys": len(ys_live), "xs": len(flat), "stops": len(stops), "rows": rows}, name=name)
    found = {p: result(node, k) for k, p in enumerate(flat)}
    return [_total([found[p] for p in group]) for group in groups]


def _places(x, ys) -> list[Node]:
    """Where x enters the graph: a tensor itself, a variable at each of its reads."""
    if isinstance(x, Node):
        return [x]
    return [n for n in topological(ys) if n.op.kind is Kind.EFFECT and n.inputs[0] is x.handle and n.op.rule.action == "read"]


def reached(ys, on_way, stops: Collection[Node] = ()) -> set[Node]:
    """The nodes of `on_way` that a gradient reaches when it starts from `ys` and goes through none of `stops`."""
    found = set(ys)
    for node in reversed(topological(ys)):
        if node in found and node not in stops:
            found.update(i for k, i in enumerate(node.inputs) if i in on_way and takes_gradient(node, k))
    return found


def _total(parts: list[Node]):
    if not parts:
        return None
    total = parts[0]
    for part in parts[1:]:
        total = add(total, part)
    return total
