"""Functions with gradients of their own: `custom_gradient`, `recompute_grad`, `grad_pass_through`."""
from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence

from graphc.errors import ArgumentError, DTypeError, GraphError, RuleError, ShapeError, report
from graphc.functions.bodies import Body, flatten, pack_like, require_function, trace
from graphc.ir.container import detached
from graphc.ir.graph import Graph, topological
from graphc.ir.node import Node, apply, as_node, input_node, make, result
from graphc.ir.op import Kind
from graphc.ir.types import same_shape
from graphc.ops.elementwise import identity, stop_gradient
from graphc.ops.grad import barrier, custom, gradients
from graphc.ops.state import read


def custom_gradient(f: Callable) -> Callable:
    """A decorator: a function that gives its results together with its gradient.

    f(*xs) returns (ys, grad_fn); grad_fn(*dys) takes the gradient by each of ys and returns one for each of xs (None: no
    gradient flows there). The decorated function returns ys. grad_fn is built from ops, so it is differentiated in turn.
    Variables that f reads need a grad_fn with the keyword `variables`: it gets them as a list, and returns
    (gradients by xs, gradients by the variables). Through anything else that f uses no gradient flows.
    Raises ArgumentError when f or grad_fn return something else, ShapeError and DTypeError for a gradient unlike its x.
    """
    require_function(f, "custom_gradient: f")

    @functools.wraps(f)
    def decorated(*args, **kwargs):
        start = _made_now()
        xs = [identity(a) for a in args]
        found = f(*xs, **kwargs)
        if not isinstance(found, tuple) or len(found) != 2 or not callable(found[1]):
            raise report(ArgumentError, f"custom_gradient: {f.__name__} must return its results and a gradient function",
                         rule=f"it returned {found!r:.80}")
        nest, grad_fn = found
        ys = [as_node(y) for y in flatten(nest)]
        reads = _reads(ys, xs, start)
        body = _traced_gradient(f.__name__, grad_fn, ys, reads)
        places = _gradient_list(f.__name__, body, len(xs), len(reads))
        return pack_like(nest, with_traced_gradient(f.__name__, ys, [*xs, *reads], body, places))
    return decorated


def with_traced_gradient(name: str, ys: Sequence[Node], xs: Sequence[Node], body: Body,
                         places: Sequence[tuple[int, Node]]) -> list[Node]:
    """`ys` as functions of `xs`, whose gradients are (position, output of the body). Raises ShapeError and DTypeError."""
    body.outputs = tuple(_fitting(name, xs[k], gradient) for k, gradient in places)
    operands = [*body.captured, *(apply(read, (handle,), {}) for handle in body.read)]
    return _with_gradient(ys, xs, operands, [k for k, _ in places], body.graph((*body.captured, *body.read)))


def _made_now() -> int:
    """A number that all nodes made from now on reach."""
    return input_node("", as_node(0.0).type).serial


def _with_gradient(ys: Sequence[Node], xs: Sequence[Node], operands: Sequence[Node], positions: Sequence[int],
                   body: Graph) -> list[Node]:
    """`ys` as functions of `xs` with the gradient `body`, a graph of a gradient for each y and of `operands`."""
    attrs = {"ys": len(ys), "xs": len(xs), "positions": tuple(positions), "body": body}
    node = apply(custom, (*ys, *xs, *operands), attrs)
    return [result(node, k) for k in range(len(ys))]


def _reads(ys: Sequence[Node], xs: Sequence[Node], start: int) -> list[Node]:
    """One read for each variable that ys depend on through what was made since `start`, other than through xs."""
    found: dict[Node, Node] = {}
    seen, waiting = set(xs), list(ys)
    while waiting:
        node = waiting.pop()
        if node in seen or node.serial < start:
            continue
        seen.add(node)
        if node.op.kind is Kind.EFFECT and node.op.rule.action == "read":
            known = found.setdefault(node.inputs[0], node)
            found[node.inputs[0]] = min(known, node, key=lambda n: n.serial)
        else:
            waiting += node.inputs
    return sorted(found.values(), key=lambda n: n.serial)


def _traced_gradient(name: str, grad_fn: Callable, ys: Sequence[Node], reads: Sequence[Node]) -> Body:
    variables = [r.inputs[0].attrs["variable"] for r in reads]
    parameters = inspect.signature(grad_fn).parameters.values()
    takes_variables = any(p.name == "variables" or p.kind is p.VAR_KEYWORD for p in parameters)
    if variables and not takes_variables:
        raise report(ArgumentError, f"custom_gradient: {name} reads variables; its gradient function must take `variables`",
                     [("variable", v.handle.describe()) for v in variables],
                     "it then returns (gradients by the arguments, gradients by the variables)")
    call = functools.partial(grad_fn, variables=variables) if variables else grad_fn
    body = trace("custom_gradient", _listed(call), [y.type for y in ys], labels=[f"d{k}" for k in range(len(ys))])
    if body.written:
        raise report(GraphError, f"custom_gradient: the gradient function of {name} changes variables",
                     [("variable", handle.describe()) for handle in body.written])
    return body


def _listed(call: Callable) -> Callable:
    """`call` with variables among its results as tensors."""
    def listed(*dys):
        found = call(*dys)
        return pack_like(found, [None if leaf is None else as_node(leaf) for leaf in flatten(found)])
    return listed


def _gradient_list(name: str, body: Body, xs: int, variables: int) -> list[tuple[int, Node]]:
    """(position among arguments and variables, gradient) of what the gradient function returned."""
    nest = body.nest
    if variables:
        if not isinstance(nest, (list, tuple)) or len(nest) != 2:
            raise report(ArgumentError, f"custom_gradient: the gradient function of {name} must return (gradients by the "
                                        "arguments, gradients by the variables)")
        counts = [(flatten(nest[0]), xs, "arguments"), (flatten(nest[1]), variables, "variables")]
    else:
        counts = [(flatten(nest), xs, "arguments")]
    for found, count, what in counts:
        if len(found) != count:
            raise report(ArgumentError, f"custom_gradient: the gradient function of {name} gives {len(found)} gradients for "
                                        f"{count} {what}")
    rest = iter(body.outputs)
    leaves = [leaf for found, _, _ in counts for leaf in found]
    return [(k, next(rest)) for k, leaf in enumerate(leaves) if leaf is not None]


def _fitting(name: str, x: Node, gradient: Node) -> Node:
    """The gradient, if it has the type of x."""
    operands = [("argument", x.describe()), ("gradient", gradient.describe())]
    if gradient.type.dtype != x.type.dtype:
        raise report(DTypeError, f"custom_gradient: a gradient of {name} has another dtype than its argument", operands,
                     f"{gradient.type.dtype} != {x.type.dtype}")
    try:
        same_shape(gradient.type.shape, x.type.shape, "shapes differ")
    except RuleError as e:
        raise report(ShapeError, f"custom_gradient: a gradient of {name} has another shape than its argument", operands,
                     e.rule) from None
    return gradient


def grad_pass_through(f: Callable) -> Callable:
    """A function like `f`, of one tensor to one of the same shape, whose gradient is that of the identity: what comes in goes
    on unchanged ("straight-through estimator").
    """
    require_function(f, "grad_pass_through: f")

    @functools.wraps(f)
    def decorated(x, *args, **kwargs):
        x = as_node(x)
        y = f(stop_gradient(x), *args, **kwargs)
        body = Graph("pass_through", (d := input_node("d0", as_node(y).type),), (d,))
        return _with_gradient([as_node(y)], [x], [], [0], body)[0]
    return decorated


# computed again ------------------------------------------------------------------------------------


def recompute_grad(f: Callable) -> Callable:
    """A decorator: the gradient of the function computes again what it needs of the function, from its arguments, so that
    nothing inside has to be kept in memory until then ("checkpointing").

    Everything that f makes is computed again but reads and writes of variables; random numbers are the same ones.
    """
    require_function(f, "recompute_grad: f")

    @functools.wraps(f)
    def decorated(*args, **kwargs):
        start = _made_now()
        nest = f(*[identity(a) for a in args], **kwargs)
        ys = [as_node(y) for y in flatten(nest)]
        frontier = _frontier(ys, start)
        graph, positions = _recomputation(ys, frontier)
        return pack_like(nest, _with_gradient(ys, frontier, frontier, positions, graph))
    return decorated


def _frontier(ys: Sequence[Node], start: int) -> list[Node]:
    """What the function takes: tensors from outside, and the results of effects inside."""
    found, seen, waiting = [], set(), list(ys)
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.serial < start or node.op.kind in (Kind.EFFECT, Kind.INPUT):
            found.append(node)
        else:
            waiting += node.inputs
    return sorted(found, key=lambda n: n.serial)


def _recomputation(ys: Sequence[Node], frontier: Sequence[Node]) -> tuple[Graph, list[int]]:
    """(graph, positions): the gradients by `frontier` at `positions`, as a function of a gradient for each y and of `frontier`.
    What it computes again waits for the gradients, behind barriers.
    """
    seeds = [input_node(f"d{k}", y.type) for k, y in enumerate(ys)]
    operands = [input_node(f"x{k}", n.type) for k, n in enumerate(frontier)]
    floats = [(y, s) for y, s in zip(ys, seeds, strict=True) if y.type.dtype.is_floating]
    with detached(ys[0].location):
        first = [make(barrier, (o, *(s for _, s in floats)), {"number": n.serial})
                 for o, n in zip(operands, frontier, strict=True)]
        new: dict[Node, Node] = dict(zip(frontier, first, strict=True))
        for node in topological(ys):
            if node not in new and all(i in new for i in node.inputs):
                new[node] = Node(node.op, tuple(new[i] for i in node.inputs), node.attrs, node.type, location=node.location)
        again = [new[y] for y, _ in floats]
        found = gradients(again, first, [s for _, s in floats]) if floats else [None] * len(first)
    positions = [k for k, g in enumerate(found) if g is not None]
    graph = Graph("recompute", (*seeds, *operands), tuple(g for g in found if g is not None))
    from graphc.passes.differentiate import without_gradients
    return without_gradients(graph), positions
