"""Control flow: ops that hold graphs and run one of two, or one of them again and again.

A graph that they hold is a pure function of its inputs: what it needs from outside is an operand like any other. Its nodes
use the named dims of the graph around it. Random ops in a loop count the iteration along with the run.
"""
from __future__ import annotations

import numpy as np

from graphc.errors import DTypeError, RuleError
from graphc.ir import dims
from graphc.ir.container import inherited_location
from graphc.ir.graph import Graph
from graphc.ir.interpreter import iteration_number
from graphc.ir.node import RESULT, Node, input_node, make
from graphc.ir.op import REQUIRED, Kind, Op
from graphc.ir.types import TensorType, bool_, int64, same_dim, same_shape, shape_text, type_text
from graphc.ops.composite import zeros_like
from graphc.ops.grad import connected, grad, reached
from graphc.ops.movement import reshape_to
from graphc.ops.selection import no_way_back, read_sizes


def _takes(body: Graph, types, what: str, free: tuple = ()) -> None:
    """Check that a graph takes operands of `types`, of any size where the graph has one of `free`. Raises RuleError."""
    if len(body.inputs) != len(types):
        raise RuleError(f"{what} takes {len(body.inputs)} operands", f"it is given {len(types)}")
    for inner, outer in zip(body.inputs, types, strict=True):
        if inner.type.dtype != outer.dtype:
            raise RuleError(f"{what}: {inner.label} has another dtype", f"{inner.type.dtype} != {outer.dtype}", DTypeError)
        own = [o if i in free else i for i, o in zip(inner.type.shape, outer.shape, strict=False)]
        same_shape((*own, *inner.type.shape[len(own):]), outer.shape, f"{what}: {inner.label} has another shape")


def _is_truth(type_: TensorType, what: str) -> None:
    if type_.shape != ():
        raise RuleError(f"{what} must be a scalar", f"its shape is [{shape_text(type_.shape)}]")
    if type_.dtype != bool_:
        raise RuleError(f"{what} must be a bool", f"it is {type_.dtype.name}", DTypeError)


def pullback(body: Graph, given: list[bool], wanted: list[bool]) -> tuple[Graph, list[int]]:
    """(graph, positions): the gradients of a graph's outputs as a graph.

    Its inputs are those of `body`, then a gradient for each output that `given` marks; its outputs the gradients by the inputs
    that `wanted` marks and that a differentiable way leads to: their positions come along.
    """
    ys = [o for o, g in zip(body.outputs, given, strict=True) if g]
    seeds = [input_node("", y.type, location=y.location) for y in ys]
    on_way = connected(ys, [i for i, w in zip(body.inputs, wanted, strict=True) if w]) if ys else set()
    live = [y in on_way for y in ys]
    sources = reached([y for y, alive in zip(ys, live, strict=True) if alive], on_way)
    positions = [k for k, i in enumerate(body.inputs) if wanted[k] and i in sources]
    xs = [body.inputs[k] for k in positions]
    if not xs:
        return Graph(f"{body.name}_gradient", (*body.inputs, *seeds), ()), []
    pairs = [(y, s) for y, s, alive in zip(ys, seeds, live, strict=True) if alive]
    node = make(grad, (*[y for y, _ in pairs], *[s for _, s in pairs], *xs), {"ys": len(pairs), "xs": len(xs)})
    outputs = tuple(make(RESULT, (node,), {"index": k}) for k in range(len(xs)))
    return Graph(f"{body.name}_gradient", (*body.inputs, *seeds), outputs), positions


def _floats(values) -> list[bool]:
    return [v.type.dtype.is_floating for v in values]


def _is_zero(node: Node) -> bool:
    """Whether a tensor is a constant zero, such as a gradient that nothing flows into."""
    while node.op.kind in (Kind.VIEW, Kind.MOVE):
        node = node.inputs[0]
    return node.op.kind is Kind.CONSTANT and not node.attrs["value"].value.any()


def _chosen(values, marks) -> list:
    return [v for v, m in zip(values, marks, strict=True) if m]


def results(node: Node) -> list[Node]:
    """A node for each result of a node that has several."""
    return [make(RESULT, (node,), {"index": k}, location=node.location) for k in range(len(node.type))]


# one of two ----------------------------------------------------------------------------------------


def _cond_type(pred, *operands, then, otherwise):
    _is_truth(pred, "the predicate")
    _takes(then, operands, "the true branch")
    _takes(otherwise, operands, "the false branch")
    if len(then.outputs) != len(otherwise.outputs):
        raise RuleError("the branches give different numbers of results", f"{len(then.outputs)} != {len(otherwise.outputs)}")
    found = []
    for k, (a, b) in enumerate(zip(then.outputs, otherwise.outputs, strict=True)):
        if a.type.dtype != b.type.dtype:
            raise RuleError(f"result {k} of the branches has different dtypes", f"{a.type.dtype} != {b.type.dtype}", DTypeError)
        found.append(a.type.with_shape(same_shape(a.type.shape, b.type.shape, f"result {k} of the branches differs in shape")))
    return tuple(found)


def _cond_numpy(pred, *operands, then, otherwise, run, env, call):
    return tuple(call(then if pred else otherwise, operands, run, env))


def _cond_grad(dy, y, pred, *operands, then, otherwise):
    """The chosen branch's gradient; the branch not taken contributes nothing, not even a NaN."""
    given, wanted = _floats(then.outputs), _floats(operands)
    parts = [pullback(body, given, wanted) for body in (then, otherwise)]
    positions = sorted({p for _, found in parts for p in found})
    bodies = []
    for graph, found in parts:
        by_position = dict(zip(found, graph.outputs, strict=True))
        outputs = tuple(by_position[p] if p in by_position else zeros_like(graph.inputs[p]) for p in positions)
        bodies.append(Graph(graph.name, graph.inputs, outputs))
    node = make(cond, (pred, *operands, *_chosen(dy, given)), {"then": bodies[0], "otherwise": bodies[1]},
                location=inherited_location())
    found = dict(zip(positions, results(node), strict=True))
    return [None, *(found.get(k) for k in range(len(operands)))]


cond: Op = Op(
    "cond", Kind.COND, ("pred", "*operands"), attrs={"then": REQUIRED, "otherwise": REQUIRED},
    doc="The results of the graph `then` on the operands where the scalar pred is true, else those of `otherwise`.",
    infer=_cond_type, numpy=_cond_numpy, grad=_cond_grad, nondiff=("pred",), context=("run", "env", "call"))


# as long as ----------------------------------------------------------------------------------------


def _while_type(*types, condition, body, states, free):
    _takes(condition, types, "the condition", free)
    _takes(body, types, "the body", free)
    if len(condition.outputs) != 1:
        raise RuleError("the condition gives one result", f"it gives {len(condition.outputs)}")
    _is_truth(condition.outputs[0].type, "the condition")
    _keeps_state(body, types[:states], states, free)
    return (*(t.with_shape(i if i in free else d for i, d in zip(inner.type.shape, t.shape, strict=True))
              for inner, t in zip(body.inputs, types[:states], strict=False)), TensorType(int64, ()))


def _keeps_state(body: Graph, types, states: int, free: tuple = ()) -> None:
    """Check that the first outputs of a body have the types of the loop's variables. Raises RuleError."""
    if len(body.outputs) < states:
        raise RuleError(f"the body gives {len(body.outputs)} new values", f"there are {states} loop variables")
    for new, old, inner in zip(body.outputs, types, body.inputs, strict=False):
        if new.type.dtype != old.dtype or len(new.type.shape) != len(old.shape):
            error = DTypeError if new.type.dtype != old.dtype else None
            what = f"the loop variable {inner.label} changes its type"
            rule = f"it starts as {type_text(old)} and is {type_text(new.type)} after one iteration"
            raise RuleError(what, rule, error) if error else RuleError(what, rule)
        for a, b, own in zip(new.type.shape, old.shape, inner.type.shape, strict=True):
            if own in free:
                continue
            try:
                same_dim(a, b, f"the loop variable {inner.label} changes its shape: it starts as {type_text(old)} and is "
                               f"{type_text(new.type)} after one iteration")
            except RuleError as e:
                rule = f"{e.rule}: a loop variable keeps its size, but for axes that shape_invariants leave open with None"
                hint = "what each iteration adds is stacked by graphc.scan or map_fn"
                raise RuleError(e.what, rule, e.error, hint) from None


def _while_numpy(*values, condition, body, states, free, run, env, call):
    state, shared, count = values[:states], values[states:], 0

    def known():
        return env if not free else {**env, **{str(d): n for inner, v in zip(body.inputs, state, strict=False) for d, n in zip(
            inner.type.shape, np.shape(v), strict=True) if d in free}}
    while call(condition, (*state, *shared), iteration_number(run, count), known())[0]:
        state = call(body, (*state, *shared), iteration_number(run, count), known())
        count += 1
    return (*state, np.int64(count))


def _while_grad(dy, y, *inputs, condition, body, states, free):
    """The loop once more, as a scan of as many steps as it took, which keeps what each step started from."""
    if free:
        raise no_way_back(y[0])
    count = y[-1]
    trips = dims.name(f"trips_{count.inputs[0].serial}")
    told = read_sizes(reshape_to(count, shape=(1,)), dims=(trips,))
    again = make_scan(body, inputs[:states], (), inputs[states:], trips, False, after=told)
    finals = results(again)
    zeros = [zeros_like(r) for r in finals[states:]]
    return _scan_grad((*dy[:states], *zeros), finals, *again.inputs, **again.attrs)[:len(inputs)]


while_loop = Op(
    "while_loop", Kind.WHILE, ("*inputs",), attrs={"condition": REQUIRED, "body": REQUIRED, "states": REQUIRED, "free": ()},
    doc="Runs the graph `body` on the first `states` inputs and its own results as long as the graph `condition` says so. Both "
        "take the other inputs too. Results: the last values, and the number of iterations. Sizes of variables that the "
        "graphs call by a name in `free` may change from one iteration to the next; such a loop runs on the host.",
    infer=_while_type, numpy=_while_numpy, grad=_while_grad, context=("run", "env", "call"))


# once for each row ---------------------------------------------------------------------------------


def _scan_type(*types, body, states, sequences, length, reverse, history):
    rows = []
    for k, sequence in enumerate(types[states:states + sequences]):
        if sequence.rank == 0:
            raise RuleError(f"sequence {k} is a scalar", "a sequence has an axis to go along")
        same_dim(sequence.shape[0], length, f"sequence {k} has another length")
        rows.append(sequence.with_shape(sequence.shape[1:]))
    _takes(body, (*types[:states], *rows, *types[states + sequences:]), "the body")
    _keeps_state(body, types[:states], states)
    stacked = (o.type for o in body.outputs[states:])
    return (*types[:states], *(t.with_shape((length, *t.shape)) for t in stacked))


def _scan_numpy(*values, body, states, sequences, length, reverse, history, run, env, call):
    state, rows, shared = values[:states], values[states:states + sequences], values[states + sequences:]
    stacked = [np.zeros((length, *(t := o.type.substitute(env)).shape), t.dtype.numpy) for o in body.outputs[states:]]
    for t in reversed(range(length)) if reverse else range(length):
        found = call(body, (*state, *(r[t] for r in rows), *shared), iteration_number(run, t), env)
        state = found[:states]
        for whole, row in zip(stacked, found[states:], strict=True):
            whole[t] = row
    return (*state, *stacked)


def _scan_grad(dy, y, *inputs, body, states, sequences, length, reverse, history):
    """The scan that walks the other way: it carries the gradients by the states and the sums of those by the shared inputs."""
    rows, shared = inputs[states:states + sequences], inputs[states + sequences:]
    past = y[len(y) - history:]
    floats = _floats(body.outputs)
    given = floats[:states] + [f and not _is_zero(d) for f, d in zip(floats[states:], dy[states:], strict=True)]
    graph, positions = pullback(body, given, _floats(body.inputs))
    found = dict(zip(positions, graph.outputs, strict=True))
    inner, seeds = graph.inputs[:len(body.inputs)], graph.inputs[len(body.inputs):]
    moving = sum(given[:states])                              # states that carry a gradient
    sums = [k for k in positions if k >= states + sequences]  # shared inputs that receive one
    along = [k for k in positions if states <= k < states + sequences]
    totals = [input_node("", inner[k].type) for k in sums]
    carried = [found[k] if k in found else zeros_like(inner[k]) for k in range(states) if given[k]]
    outputs = (*carried, *(t + found[k] for t, k in zip(totals, sums, strict=True)), *(found[k] for k in along))
    backward = Graph(graph.name, (*seeds[:moving], *totals, *inner[:states], *inner[states:states + sequences],
                                  *seeds[moving:], *inner[states + sequences:]), outputs)
    starts = [*_chosen(dy[:states], given[:states]), *(zeros_like(inputs[k]) for k in sums)]
    given_rows = (*past, *rows, *_chosen(dy[states:], given[states:]))
    made = results(make_scan(backward, starts, given_rows, shared, length, not reverse))
    by = dict(zip((k for k in range(states) if given[k]), made, strict=False))
    by |= dict(zip(sums, made[moving:], strict=False)) | dict(zip(along, made[moving + len(sums):], strict=False))
    return [by.get(k) for k in range(len(inputs))]


scan = Op(
    "scan", Kind.SCAN, ("*inputs",),
    attrs={"body": REQUIRED, "states": REQUIRED, "sequences": REQUIRED, "length": REQUIRED, "reverse": False, "history": 0},
    doc="Runs the graph `body` on `states` loop variables, a row of each of the next `sequences` inputs, and the other inputs, "
        "once for each of `length` rows (from the last with `reverse`). It gives new values of the variables and further "
        "results, which are stacked. Results: the last values, and the stacks; the last `history` of these hold what each "
        "iteration started from.",
    infer=_scan_type, numpy=_scan_numpy, grad=_scan_grad, context=("run", "env", "call"))


def make_scan(body: Graph, states, sequences, shared, length, reverse: bool, after: Node | None = None) -> Node:
    """A scan with its history, from which gradients are computed; results that nothing uses are dropped later.

    after: a tensor that tells the length, when no sequence does. The body takes it, and does not look at it.
    """
    if after is not None:
        body = Graph(body.name, (*body.inputs, input_node("", after.type)), body.outputs)
        shared = (*shared, after)
    body = Graph(body.name, body.inputs, (*body.outputs, *body.inputs[:len(states)]))
    return make(scan, (*states, *sequences, *shared),
                {"body": body, "states": len(states), "sequences": len(sequences), "length": length, "reverse": reverse,
                 "history": len(states)}, location=inherited_location())
