"""Python functions as graphs: what `cond`, `while_loop` and `scan` hold.

A function is called once, on placeholders. What it takes from outside becomes operands; variables that it reads are read
before, and those that it writes are written after, so that a body is a pure function.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from graphc.errors import ArgumentError, GraphError, report
from graphc.ir.container import get_default_graph
from graphc.ir.graph import Graph, capture, is_required, new_dims, substitute, topological, used_dims
from graphc.ir.node import INPUT, RESULT, Node, as_node, input_node, is_tensor, make
from graphc.ir.op import Kind
from graphc.ir.types import Type
from graphc.ops.python import after


def flatten(nest) -> list:
    """The leaves of a nest of lists, tuples and dicts."""
    if isinstance(nest, dict):
        return [leaf for key in nest for leaf in flatten(nest[key])]
    if isinstance(nest, (list, tuple)):
        return [leaf for item in nest for leaf in flatten(item)]
    return [nest]


def pack_like(nest, leaves: Sequence):
    """`leaves` in the form of `nest`."""
    rest = iter(leaves)

    def fill(value):
        if isinstance(value, dict):
            return type(value)((k, fill(v)) for k, v in value.items())
        if isinstance(value, (list, tuple)):
            items = [fill(v) for v in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        return next(rest)
    return fill(nest)


class Body:
    """A traced function.

    arguments  its placeholders; outputs its flat results as tensors; nest the form in which it gave them.
    captured   tensors from outside; read and written: handles of the variables that it uses and changes.
    token      True, once what has effects outside of the graph has run (Python's functions, assertions); None without any.
    """

    def __init__(self, name: str, nest: object):
        self.name, self.nest = name, nest
        self.arguments: tuple[Node, ...] = ()
        self.outputs: tuple[Node, ...] = ()
        self.captured: list[Node] = []
        self.read: list[Node] = []
        self.written: dict[Node, Node] = {}     # handle -> its new value
        self.inputs: dict[Node, Node] = {}      # captured tensor or handle -> the parameter that stands for it
        self.token: Node | None = None

    def graph(self, operands: Sequence[Node], extra: Sequence[Node] = ()) -> Graph:
        """The function of `operands` (captured tensors and handles, behind the arguments) to its outputs, then `extra`."""
        parameters = [self.inputs[o] if o in self.inputs else input_node("", o.type) for o in operands]
        return Graph(self.name, (*self.arguments, *parameters), (*self.outputs, *extra))

    def replace(self, mapping: Mapping[Node, Node]) -> None:
        """Put other nodes in the place of some."""
        count = len(self.outputs)
        first = tuple(n for n in topological((*self.outputs, *self.written.values())) if n.op.kind is Kind.INPUT)
        new = substitute(Graph(self.name, first, (*self.outputs, *self.written.values())), mapping).outputs
        self.outputs = new[:count]
        self.written = dict(zip(self.written, new[count:], strict=True))

    def value(self, handle: Node) -> Node:
        """A written variable's new value, or its old one."""
        return self.written.get(handle, self.inputs[handle])


def trace(name: str, function: Callable, types: Sequence[Type], form=None, labels: Sequence[str] = ()) -> Body:
    """The body of `function`, called on placeholders of `types` (in the form of `form` when given).

    Raises GraphError for a tensor from inside of another body.
    """
    container = get_default_graph()
    container.check_open()
    with container.body() as key, container.name_scope(name):
        arguments = []
        for k, type_ in enumerate(types):
            label = labels[k] if k < len(labels) else f"arg{k}"
            node = Node(INPUT, (), {"type": type_, "role": "body", "variable": None}, type_,
                        name=container.unique_name(label), graph=container)
            container.add(node)
            arguments.append(node)
        found = function(*(arguments if form is None else form(arguments)))
        nodes = [as_node(leaf) for leaf in flatten(found) if leaf is not None]
        effects = [n for n in nodes if n.type == ()]
        outputs = [n for n in nodes if n.type != ()]
        body = Body(name, found)
        _capture(body, container, key, arguments, outputs, effects)
    return body


def _capture(body: Body, container, key, arguments, outputs, effects) -> None:
    """Cut the function out of the user's graph, and make it pure."""
    from graphc.passes.differentiate import without_gradients  # here: most programs need no pass where they are built
    from graphc.passes.resolve_state import resolve_state
    inner = {node for node, k in container.body_of.items() if k is key}
    binders = {name: n for name, n in container.binders.items() if n in inner}
    body.captured = _outside(body.name, container, inner, [*outputs, *effects, *binders.values()])
    graph = without_gradients(capture(body.name, (*outputs, *effects), (*arguments, *body.captured), binders))
    if any(n.op.kind is Kind.EFFECT or n.control or is_required(n) for n in topological(graph.outputs)):
        graph = resolve_state(graph)
    writes = [o for o in graph.outputs if o.op.kind is Kind.EFFECT and o.op.rule.action == "write"]
    values = [o for o in graph.outputs if o.type != () and o not in writes]
    new_values = [w.inputs[1] for w in writes]
    names = _Names()
    stand_ins = {i: input_node(names.unique(i.label.rpartition("/")[2]), i.type, location=i.location) for i in graph.inputs}
    needed = _tensors(graph.required)
    has_effect = any(n.op.rule.effect for n in graph.required)
    new = [make(after, (v, *needed), location=v.location) if needed else v
           for v in (*values, *new_values, *([as_node(True)] if has_effect else []))]
    pure = substitute(Graph(body.name, graph.inputs, tuple(new)), stand_ins)
    count = len(arguments) + len(body.captured)
    body.read = list(graph.inputs[count:])
    body.arguments = pure.inputs[:len(arguments)]
    body.inputs = dict(zip((*body.captured, *body.read), pure.inputs[len(arguments):], strict=True))
    body.outputs = pure.outputs[:len(values)]
    body.written = dict(zip((w.inputs[0] for w in writes), pure.outputs[len(values):len(new) - has_effect], strict=True))
    body.token = pure.outputs[-1] if has_effect else None


def _tensors(nodes: Sequence[Node]) -> list[Node]:
    """What stands for nodes as inputs: of one with several results the first."""
    return [make(RESULT, (n,), {"index": 0}) if isinstance(n.type, tuple) and n.type else n for n in nodes]


def _outside(name: str, container, inner: set[Node], roots) -> list[Node]:
    """The tensors from outside that `roots` need. Raises GraphError for one from inside of another body."""
    found, seen, waiting = [], set(), list(roots)
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if not container.is_visible(node):
            raise report(GraphError, f"{name}: the tensor {node.label!r} is from inside of another loop or branch",
                         [("tensor", node.describe())], "its value is known only in there: return it from that function")
        if node.op.kind is Kind.INPUT and node.attrs["role"] == "variable":
            continue
        if node in inner and not (node.op.kind is Kind.INPUT and node.attrs["role"] == "feed"):
            waiting += [*node.inputs, *node.control]
        else:
            found.append(node)
    return sorted(found, key=lambda n: n.serial)


class _Names:
    def __init__(self):
        self.taken: set[str] = set()

    def unique(self, name: str) -> str:
        number, found = 0, name
        while found in self.taken:
            number += 1
            found = f"{name}_{number}"
        self.taken.add(found)
        return found


LIFTED = {Kind.ELEMENTWISE, Kind.REDUCE, Kind.MOVE, Kind.VIEW, Kind.ASSEMBLE, Kind.CONTRACT, Kind.INDEX}


def lift(bodies: Sequence[Body], varying: Sequence[Node], operands: Mapping[Node, Node],
         free: Sequence[str] = ()) -> dict[Node, Node]:
    """Compute what is the same in all iterations before the loop. Changes the bodies' outputs, and gives all that they then
    take from outside: parameter -> tensor.

    varying: parameters that change from one iteration to the next; operands: the tensors that the other parameters stand for;
    free: names of sizes that change.
    Gradients by such values are summed over the iterations before they go on.
    """
    container = get_default_graph()
    found = dict(operands)
    changes: set[Node] = set(varying)
    outside: dict[Node, Node] = dict(operands)
    for body in bodies:
        order = topological((*body.outputs, *body.written.values()))
        told = {*free, *(name for node in order for name in new_dims(node))}  # what uses these stays inside
        for node in order:
            fixed = node.op.kind in LIFTED and not getattr(node.op.rule, "fails", "") and told.isdisjoint(used_dims(node))
            fixed = fixed or node.op.kind is Kind.CONSTANT
            if node.op.kind is not Kind.INPUT and (not fixed or any(i in changes for i in node.inputs)):
                changes.add(node)
        frontier = {i for n in order if n in changes for i in n.inputs if i not in changes and i.op.kind in LIFTED}
        stand_ins: dict[Node, Node] = {}
        for node in topological(frontier):
            if node.op.kind is Kind.INPUT:
                continue
            made = Node(node.op, tuple(outside[i] for i in node.inputs), node.attrs, node.type, location=node.location,
                        name=container.unique_name(node.op.name), graph=container)
            container.add(made)
            outside[node] = made
            if node in frontier:
                stand_ins[node] = input_node(made.name.rpartition("/")[2], node.type, location=node.location)
                found[stand_ins[node]] = made
        body.replace(stand_ins)
    return found


def all_operands(bodies: Sequence[Body]) -> tuple[list[Node], list[Node]]:
    """(captured tensors, handles of variables) of several bodies, without repeats."""
    captured = dict.fromkeys(n for body in bodies for n in body.captured)
    handles = dict.fromkeys(n for body in bodies for n in body.read)
    return list(captured), list(handles)


def require_function(value, what: str) -> None:
    """Raise ArgumentError for anything but a function."""
    if not callable(value) or is_tensor(value):
        raise report(ArgumentError, f"{what} must be a function, not {value!r:.60}")
