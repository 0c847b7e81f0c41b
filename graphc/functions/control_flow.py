"""Branches and loops, in TensorFlow 1's terms, built on the ops `cond`, `while_loop` and `scan`."""
from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.errors import ArgumentError, RuleError, ShapeError, report
from graphc.functions.bodies import Body, all_operands, flatten, lift, pack_like, require_function, trace
from graphc.ir.container import get_default_graph
from graphc.ir.dims import Dim, Size
from graphc.ir.graph import Graph, topological
from graphc.ir.node import GROUP, Node, apply, as_node, input_node, result
from graphc.ir.types import as_shape, int32, same_dim
from graphc.ops import control_flow as ops
from graphc.ops import selection, state
from graphc.ops.compare import less, logical_and
from graphc.ops.elementwise import identity
from graphc.ops.python import settle


def _reads(handles: Sequence[Node]) -> list[Node]:
    return [apply(state.read, (h,), {}, name=h.label.rpartition("/")[2] + "_read") for h in handles]


def _committed(values: list[Node], writes: Sequence[tuple[Node, Node]]) -> list[Node]:
    """`values`, tied to the writes of variables that come with them. Without a value: an operation."""
    if not writes:
        return values
    done = [apply(state.assign, (handle, value), {}, name=handle.label.rpartition("/")[2] + "_assign")
            for handle, value in writes]
    with get_default_graph().control_dependencies(done):
        return [identity(v) for v in values] if values else [apply(GROUP, (), {}, name="done")]


def _settled(results: list[Node], bodies: Sequence[Body]) -> list[Node]:
    """The results of a branch or a loop. What waits for one of them makes it run, if its bodies have effects outside."""
    if not results or all(body.token is None for body in bodies):
        return results
    with get_default_graph().control_dependencies([apply(settle, results[:1], {})]):
        return [identity(r) for r in results]


# branches ------------------------------------------------------------------------------------------------------------------


def cond(pred, true_fn: Callable | None = None, false_fn: Callable | None = None, strict: bool = False,
         name: str | None = None, fn1=None, fn2=None):
    """What `true_fn()` returns where the scalar bool `pred` is true, else what `false_fn()` returns.

    Only the chosen branch runs, and only it passes gradients on. Both return the same number of tensors of the same dtypes and
    shapes, in any nest; a list of one tensor gives that tensor, except with strict=True. Variables may be read and written.
    Raises ArgumentError, ShapeError, DTypeError.
    """
    true_fn, false_fn = true_fn or fn1, false_fn or fn2
    require_function(true_fn, "cond: true_fn")
    require_function(false_fn, "cond: false_fn")
    pred = as_node(pred, what="cond")
    graph = get_default_graph()
    with graph.name_scope(name or "cond"):
        bodies = [trace(label, function, ()) for label, function in (("then", true_fn), ("otherwise", false_fn))]
        has_results = any(body.outputs for body in bodies)
        if not has_results and any(body.token is not None for body in bodies):
            for body in bodies:
                body.outputs = (as_node(True) if body.token is None else body.token,)
        outputs = _cond(pred, bodies)
        if not has_results:
            with graph.control_dependencies(outputs):
                return apply(GROUP, (), {}, name="done")
    nest = bodies[0].nest
    if isinstance(nest, (list, tuple)) and len(nest) == 1 and not strict:
        return outputs[0]
    return pack_like(nest, outputs)


def _cond(pred: Node, bodies: Sequence[Body]) -> list[Node]:
    captured, handles = all_operands(bodies)
    written = list(dict.fromkeys(h for body in bodies for h in body.written))
    operands = [*captured, *handles]
    for body in bodies:
        for handle in written:
            body.inputs.setdefault(handle, input_node("", handle.type))
    graphs = [body.graph(operands, [body.value(h) for h in written]) for body in bodies]
    node = apply(ops.cond, (pred, *captured, *_reads(handles)), {"then": graphs[0], "otherwise": graphs[1]}, name="cond")
    found = _settled([result(node, k) for k in range(len(node.type))], bodies)
    count = len(found) - len(written)
    return _committed(found[:count], list(zip(written, found[count:], strict=True)))


def case(pred_fn_pairs, default: Callable | None = None, exclusive: bool = False, strict: bool = False, name: str = "case"):
    """What the function of the first true predicate returns, else what `default` does (without it: the last function).

    pred_fn_pairs  a list of (scalar bool, function) pairs, or a dict. exclusive: at most one predicate is true; it is the
    caller's word, the first true one is taken.
    """
    pairs = list(pred_fn_pairs.items() if isinstance(pred_fn_pairs, dict) else pred_fn_pairs)
    if not pairs and default is None:
        raise report(ArgumentError, "case: there is no function to call")
    chosen = default
    if chosen is None:
        chosen = pairs.pop()[1]
    for pred, function in reversed(pairs):
        chosen = (lambda p, f, otherwise: lambda: cond(p, f, otherwise, strict=strict, name=name))(pred, function, chosen)
    return chosen()


# loops ---------------------------------------------------------------------------------------------------------------------


def while_loop(cond: Callable, body: Callable, loop_vars, shape_invariants=None, parallel_iterations: int = 10,
               back_prop: bool = True, swap_memory: bool = False, name: str | None = None,
               maximum_iterations=None, return_same_structure: bool = False):
    """Calls `body` on the loop variables and its own results as long as `cond` of them is true; the last values.

    loop_vars  a list, tuple or dict of tensors (nested). A variable keeps its dtype and shape, except where shape_invariants
    say None: such sizes may change between iterations. Where they do, `body` is called once more, on sizes without a
    number; Python walks the loop, around a body that stays compiled; and no gradient flows through the loop.
    maximum_iterations  an int or a scalar integer tensor. Raises ArgumentError, ShapeError, DTypeError.
    """
    require_function(cond, "while_loop: cond")
    require_function(body, "while_loop: body")
    if not flatten(loop_vars):
        raise report(ArgumentError, "while_loop: there are no loop variables")
    start = [as_node(v, what="while_loop") for v in flatten(loop_vars)]
    form = loop_vars if isinstance(loop_vars, (list, tuple)) else [loop_vars]
    with get_default_graph().name_scope(name or "while"):
        open_axes = [] if shape_invariants is None else _open_axes(start, flatten_shapes(shape_invariants))
        limit = None if maximum_iterations is None else as_node(maximum_iterations, int32, "while_loop")
        finals = _while(cond, body, start, lambda nodes: pack_like(form, nodes), limit, open_axes)
    if isinstance(loop_vars, (list, tuple)) and len(loop_vars) == 1 and len(finals) == 1 and not return_same_structure:
        return finals[0]
    return pack_like(loop_vars, finals)


def flatten_shapes(invariants) -> list:
    """The shapes in a nest of them: a shape is a list or tuple of sizes, or a TensorShape."""
    if isinstance(invariants, dict):
        return [s for v in invariants.values() for s in flatten_shapes(v)]
    if all(not isinstance(v, (list, tuple, dict)) for v in invariants):
        return [invariants]
    return [s for v in invariants for s in flatten_shapes(v)]


def _open_axes(start: Sequence[Node], shapes: Sequence) -> list[tuple[int, int]]:
    """(variable, axis) of the sizes that may change. Raises ArgumentError, ShapeError."""
    if len(shapes) != len(start):
        raise report(ArgumentError, f"while_loop: {len(shapes)} shape_invariants for {len(start)} loop variables")
    for node, shape in zip(start, shapes, strict=True):
        wanted = as_shape(shape, lambda: None)
        fits = len(wanted) == len(node.shape) and all(w is None or w == d for w, d in zip(wanted, node.shape, strict=True))
        if not fits:
            raise report(ShapeError, "while_loop: a loop variable does not fit its shape invariant",
                         [("variable", node.describe())], f"[{', '.join('None' if w is None else str(w) for w in wanted)}]")
    return [(k, a) for k, shape in enumerate(shapes) for a, d in enumerate(as_shape(shape, lambda: None)) if d is None]


def _while(condition: Callable, function: Callable, start: list[Node], form: Callable, limit: Node | None,
           open_axes: Sequence[tuple[int, int]] = (), moving: dict[tuple[int, int], Dim] | None = None) -> list[Node]:
    """moving: (variable, axis) -> the name, in the bodies, of a size that changes from one iteration to the next."""
    moving = moving or {}
    types = [n.type.with_shape(moving.get((k, a), d) for a, d in enumerate(n.type.shape)) for k, n in enumerate(start)]
    labels = [n.label.rpartition("/")[2] for n in start]
    if limit is not None:
        start, types, labels = [*start, as_node(0, limit.dtype)], [*types, limit.type], [*labels, "count"]

    def arguments(nodes):
        return form(nodes[:len(nodes) - (limit is not None)])

    def goes_on(*values):
        found = as_node(condition(*values[0]), what="while_loop")
        return found if limit is None else logical_and(less(values[1], limit), found)

    def step(*values):
        found = function(*values[0])
        if moving:
            found = [_measured(as_node(v), [a for j, a in moving if j == k]) for k, v in enumerate(flatten(found))]
        return found if limit is None else [found, values[1] + 1]

    def called(nodes):
        inner = arguments(nodes)
        inner = list(inner.values()) if isinstance(inner, dict) else inner
        return [inner] if limit is None else [inner, nodes[-1]]
    test = trace("condition", goes_on, types, called, labels)
    body = trace("body", step, types, called, labels)
    if len(body.outputs) != len(start):
        raise report(ArgumentError, f"while_loop: body returns {len(body.outputs)} tensors for {len(start)} loop variables")
    changed = [(k, a) for k, a in open_axes if (k, a) not in moving and len(body.outputs[k].type.shape) == len(types[k].shape)
               and body.outputs[k].type.shape[a] != types[k].shape[a]]
    if changed:
        graph = get_default_graph()
        return _while(condition, function, start[:len(start) - (limit is not None)], form, limit, open_axes,
                      {**moving, **{place: graph.fresh_dim() for place in changed}})
    for handle in body.written:  # the condition sees what the iterations before have written
        test.inputs.setdefault(handle, input_node("", handle.type))
    written = list(body.written)
    state = [(*b.arguments, *(b.inputs[h] for h in written)) for b in (test, body)]
    operands = _from_outside([test, body], written, (*state[0], *state[1]), [str(d) for d in moving.values()])
    new = (*body.outputs, *(body.written[h] for h in written))
    shared = list(operands.items())
    graphs = []
    for b, inner, outputs in ((test, state[0], test.outputs), (body, state[1], new)):
        used = set(topological(outputs))
        graphs.append(Graph(b.name, (*inner, *(p if p in used else input_node("", p.type) for p, _ in shared)), outputs))
    node = apply(ops.while_loop, (*start, *_reads(written), *(outer for _, outer in shared)),
                 {"condition": graphs[0], "body": graphs[1], "states": len(state[1]), "free": tuple(moving.values())},
                 name="loop")
    results = [_measured(result(node, k), [a for j, a in moving if j == k]) for k in range(len(start) + len(written))]
    finals = _settled(results, [test, body])
    done = _committed(finals[:len(start)], list(zip(written, finals[len(start):], strict=True)))
    return done if limit is None else done[:-1]


def _measured(value: Node, axes: Sequence[int]) -> Node:
    """A value whose sizes along `axes` are known when it is there."""
    if not axes:
        return value
    graph = get_default_graph()
    return apply(selection.measured, (value,), {"axes": tuple(axes), "dims": tuple(graph.fresh_dim() for _ in axes)})


def _from_outside(bodies: Sequence[Body], written: Sequence[Node], varying: Sequence[Node],
                  free: Sequence[str] = ()) -> dict[Node, Node]:
    """parameter -> tensor for what the bodies of a loop take from outside."""
    captured, handles = all_operands(bodies)
    read = [h for h in handles if h not in written]
    outer = dict(zip(read, _reads(read), strict=True)) | {n: n for n in captured}
    operands = {body.inputs[n]: outer[n] for body in bodies for n in (*body.captured, *body.read) if n in outer}
    found = lift(bodies, varying, operands, free)
    used = set(topological([o for body in bodies for o in (*body.outputs, *body.written.values())]))
    return {p: tensor for p, tensor in found.items() if p in used}


def loop_over(function: Callable, start: Sequence[Node], sequences: Sequence[Node], length: Size, reverse: bool = False,
              name: str = "scan") -> tuple[list[Node], list[Node]]:
    """(last values of the loop variables, stacked further results) of function(variables, rows) -> (new variables, results),
    called once for each row of the sequences.
    """
    count = len(start)
    new_count = [0]

    def step(states, rows):
        new, further = function(list(states), list(rows))
        new_count[0] = len(new)
        return [*new, *further]
    types = [n.type for n in start] + [s.type.with_shape(s.type.shape[1:]) for s in sequences]
    body = trace(name, step, types, lambda nodes: (nodes[:count], nodes[count:]))
    if new_count[0] != count:
        raise report(ArgumentError, f"{name}: the function returns {new_count[0]} values for {count} loop variables")
    written = [h for h in body.read if h in body.written]
    state = (*body.arguments[:count], *(body.inputs[h] for h in written))
    operands = _from_outside([body], written, (*state, *body.arguments[count:]))
    outputs = (*body.outputs[:count], *(body.written[h] for h in written), *body.outputs[count:], *state)
    states = len(state)
    graph = Graph(body.name, (*state, *body.arguments[count:], *operands), outputs)
    node = apply(ops.scan, (*start, *_reads(written), *sequences, *operands.values()),
                 {"body": graph, "states": states, "sequences": len(sequences), "length": length, "reverse": reverse,
                  "history": states}, name=name)
    found = _settled([result(node, k) for k in range(len(node.type) - states)], [body])
    finals, stacks = found[:states], found[states:]
    done = _committed([*finals[:count], *stacks], list(zip(written, finals[count:], strict=True)))
    return (done[:count], done[count:]) if finals[:count] or stacks else ([], done)


def _rows(elems, what: str) -> tuple[list[Node], Size]:
    """(the sequences, their common length)."""
    nodes = [as_node(e, what=what) for e in flatten(elems)]
    for node in nodes:
        if node.type.rank == 0:
            raise report(ShapeError, f"{what}: a scalar has no rows", [("elems", node.describe())])
    length = nodes[0].type.shape[0]
    for node in nodes[1:]:
        try:
            same_dim(node.type.shape[0], length, f"{what}: the elements have different lengths")
        except RuleError as e:
            raise report(ShapeError, e.what, [("elems", n.describe()) for n in nodes], e.rule) from None
    return nodes, length


def scan(fn: Callable, elems, initializer=None, parallel_iterations: int = 10, back_prop: bool = True,
         swap_memory: bool = False, infer_shape: bool = True, reverse: bool = False, name: str | None = None):
    """All values that `fn(accumulated, row)` takes along the first axis of `elems`, stacked; nests are allowed.

    initializer  the accumulated value before the first row; without it the first row itself. reverse: from the last row on.
    """
    return _accumulate(fn, elems, initializer, reverse, name or "scan", True)


def foldl(fn: Callable, elems, initializer=None, parallel_iterations: int = 10, back_prop: bool = True,
          swap_memory: bool = False, name: str | None = None):
    """The last value that `fn(accumulated, row)` takes along the first axis of `elems`. See `scan`."""
    return _accumulate(fn, elems, initializer, False, name or "foldl", False)


def foldr(fn: Callable, elems, initializer=None, parallel_iterations: int = 10, back_prop: bool = True,
          swap_memory: bool = False, name: str | None = None):
    """Like `foldl`, from the last row to the first."""
    return _accumulate(fn, elems, initializer, True, name or "foldr", False)


def _accumulate(fn: Callable, elems, initializer, reverse: bool, name: str, keep: bool):
    require_function(fn, f"{name}: fn")
    sequences, length = _rows(elems, name)
    first: list[Node] = []
    if initializer is None:
        if length == 0:
            raise report(ShapeError, f"{name}: no rows and no initializer", [("elems", s.describe()) for s in sequences])
        ends = [s[-1] if reverse else s[0] for s in sequences]
        sequences = [s[:-1] if reverse else s[1:] for s in sequences]
        first, length, form = ends, length - 1, elems
    else:
        ends, form = [as_node(i, what=name) for i in flatten(initializer)], initializer

    def step(states, rows):
        found = flatten(fn(pack_like(form, states), pack_like(elems, rows)))
        new = [as_node(v, s.dtype, name) for v, s in zip(found, states, strict=False)] + found[len(states):]
        return new, new if keep else []
    finals, stacks = loop_over(step, ends, sequences, length, reverse, name)
    if not keep:
        return pack_like(form, finals)
    if first:
        from graphc.functions.arrays import concat, expand_dims
        stacks = [concat([s, expand_dims(f, 0)] if reverse else [expand_dims(f, 0), s], 0)
                  for s, f in zip(stacks, first, strict=True)]
    return pack_like(form, stacks)


def map_fn(fn: Callable, elems, dtype=None, parallel_iterations: int | None = None, back_prop: bool = True,
           swap_memory: bool = False, infer_shape: bool = True, name: str | None = None, fn_output_signature=None):
    """`fn` of each row along the first axis of `elems`, stacked; nests are allowed. dtype is not needed: it is inferred."""
    require_function(fn, "map_fn: fn")
    sequences, length = _rows(elems, "map_fn")
    form: list = []

    def step(states, rows):
        found = fn(pack_like(elems, rows))
        form.append(found)
        return [], flatten(found)
    _, stacks = loop_over(step, [], sequences, length, False, name or "map")
    return pack_like(form[0], stacks)
