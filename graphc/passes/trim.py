"""Takes out of branches and loops what nobody uses: results, loop variables, operands; and moves small constants in."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from graphc.ir.graph import Graph, nested, rebuild, substitute, topological
from graphc.ir.node import GROUP, RESULT, Node, make
from graphc.ir.op import Kind

SMALL_ELEMENTS = 64  # a constant of at most so many elements is written down in each body that uses it


def constants_inside(graph: Graph, again: Callable[[Graph], Graph]) -> Graph:
    """Write small constants that branches and loops take from outside in their bodies, where they can be folded. `again` is
    applied to the bodies that this changes.
    """
    def replace(node, inputs, control):
        bodies = nested(node)
        if node.op.kind not in _FIXED or not bodies:
            return None
        new = {name: _with_constants(body, inputs[len(inputs) - len(body.inputs):], _FIXED[node.op.kind](node.attrs))
               for name, body in bodies.items()}
        if all(new[name] is bodies[name] for name in bodies):
            return None
        new = {name: body if body is bodies[name] else again(body) for name, body in new.items()}
        return make(node.op, inputs, {**node.attrs, **new}, control=control, name=node.name, location=node.location)
    return rebuild(graph, replace)


# Where the operands begin that are the same in all iterations.
_FIXED: dict[Kind, Callable[[Mapping[str, Any]], int]] = {
    Kind.COND: lambda attrs: 0, Kind.WHILE: lambda attrs: attrs["states"],
    Kind.SCAN: lambda attrs: attrs["states"] + attrs["sequences"]}


def _with_constants(body: Graph, operands: Sequence[Node], first: int) -> Graph:
    needed = _needed((*body.outputs, *body.required))
    constants = {inner: outer for inner, outer in zip(body.inputs[first:], operands[first:], strict=True)
                 if inner in needed and outer.op.kind is Kind.CONSTANT and outer.attrs["value"].size <= SMALL_ELEMENTS}
    if not constants:
        return body
    new = substitute(body, constants)
    return Graph(body.name, body.inputs, new.outputs, body.equations, new.required)


def trim(graph: Graph) -> Graph:
    """Drop the results of branches and loops that nothing uses, what is computed for them alone, and operands that are left
    without a use. A loop variable that stays as it is becomes an operand. From the outside in: what an outer body does not
    use, an inner one need not give.
    """
    order = graph.nodes()
    if all(not nested(n) for n in order):
        return graph
    used: dict[Node, set[int]] = {}
    for node in order:
        if node.op is RESULT:
            used.setdefault(node.inputs[0], set()).add(node.attrs["index"])
    found: dict[Node, dict[int, Node]] = {}

    def replace(node, inputs, control):
        if node.op is RESULT and node.inputs[0] in found:
            return found[node.inputs[0]][node.attrs["index"]]
        if node.op.kind not in _TRIMMERS:
            return None
        found[node] = _TRIMMERS[node.op.kind](node, inputs, used.get(node, set()))
        return make(GROUP, (), location=node.location)  # nothing needs it: its results have new ones
    return rebuild(graph, replace)


def _results(node: Node, indices: Iterable[int]) -> dict[int, Node]:
    """Old index of a result -> the new result, for those that were kept, in order."""
    return {index: make(RESULT, (node,), {"index": k}, location=node.location) for k, index in enumerate(indices)}


def _needed(outputs: Sequence[Node]) -> set[Node]:
    return set(topological(outputs))


def _trim_cond(node: Node, inputs, used: set[int]) -> dict[int, Node]:
    keep = sorted(used)
    bodies = {name: trim(Graph(b.name, b.inputs, tuple(b.outputs[k] for k in keep))) for name, b in nested(node).items()}
    needed = [_needed(b.outputs) for b in bodies.values()]
    places = [k for k in range(len(inputs) - 1)
              if any(b.inputs[k] in n for b, n in zip(bodies.values(), needed, strict=True))]
    bodies = {name: Graph(b.name, tuple(b.inputs[k] for k in places), b.outputs) for name, b in bodies.items()}
    made = make(node.op, (inputs[0], *(inputs[k + 1] for k in places)), {**node.attrs, **bodies}, name=node.name,
                location=node.location)
    return _results(made, keep)


def _live_states(bodies: Sequence[Graph], states: int, live: set[int], roots: Sequence[Node]) -> set[int]:
    """The loop variables that matter: those of `live`, and those that `roots` or other ones that matter are computed from."""
    body = bodies[-1]
    while True:
        needed = _needed([*roots, *(body.outputs[k] for k in live)])
        more = {k for k in range(states) if any(b.inputs[k] in needed for b in bodies)}
        if more <= live:
            return live
        live = live | more


def _trim_while(node: Node, inputs, used: set[int]) -> dict[int, Node]:
    states = node.attrs["states"]
    if node.attrs["free"]:  # a variable may be needed for its size alone
        made = make(node.op, inputs, node.attrs, name=node.name, location=node.location)
        return _results(made, range(len(node.type)))
    condition, body = node.attrs["condition"], node.attrs["body"]
    live = _live_states((condition, body), states, {k for k in used if k < states}, condition.outputs)
    moved = {k for k in live if body.outputs[k] is body.inputs[k]}
    keep = sorted(live - moved)
    body = trim(Graph(body.name, body.inputs, tuple(body.outputs[k] for k in keep)))
    condition = trim(condition)
    needed = _needed((*condition.outputs, *body.outputs))
    shared = [k for k in (*sorted(moved), *range(states, len(inputs)))
              if any(b.inputs[k] in needed for b in (condition, body))]
    order = [*keep, *shared]
    bodies = {name: Graph(b.name, tuple(b.inputs[k] for k in order), b.outputs)
              for name, b in (("condition", condition), ("body", body))}
    made = make(node.op, tuple(inputs[k] for k in order), {**node.attrs, **bodies, "states": len(keep)}, name=node.name,
                location=node.location)
    return _results(made, [*keep, states]) | {k: inputs[k] for k in moved}


def _trim_scan(node: Node, inputs, used: set[int]) -> dict[int, Node]:
    states, sequences, body = node.attrs["states"], node.attrs["sequences"], node.attrs["body"]
    stacks = sorted(k for k in used if k >= states)
    live = _live_states((body,), states, {k for k in used if k < states}, [body.outputs[k] for k in stacks])
    moved = {k for k in live if body.outputs[k] is body.inputs[k]}
    keep = sorted(live - moved)
    body = trim(Graph(body.name, body.inputs, tuple(body.outputs[k] for k in (*keep, *stacks))))
    needed = _needed(body.outputs)
    # An operand that a host op made stays: its size may be what tells the length.
    rows, shared = ([k for k in group if body.inputs[k] in needed or inputs[k].op.kind is Kind.HOST] for group in
                    (range(states, states + sequences), (*sorted(moved), *range(states + sequences, len(inputs)))))
    order = [*keep, *rows, *shared]
    body = Graph(body.name, tuple(body.inputs[k] for k in order), body.outputs)
    found = {k: inputs[k] for k in moved}
    if not keep and not stacks:
        return found
    made = make(node.op, tuple(inputs[k] for k in order), {**node.attrs, "body": body, "states": len(keep), "history": 0,
                "sequences": len(rows)}, name=node.name, location=node.location)
    return _results(made, [*keep, *stacks]) | found


_TRIMMERS = {Kind.COND: _trim_cond, Kind.WHILE: _trim_while, Kind.SCAN: _trim_scan}
