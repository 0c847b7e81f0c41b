"""Recurrent layers: a cell applied along time, as one loop (`dynamic_rnn`) or step by step (`static_rnn`)."""
from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import ArgumentError, ShapeError, report
from graphc.functions.arrays import concat, expand_dims, transpose, zeros_like
from graphc.functions.bodies import flatten, pack_like
from graphc.functions.control_flow import loop_over, while_loop
from graphc.functions.math import less, logical_not, logical_or, where_v2
from graphc.functions.reduce import reduce_all
from graphc.functions.sizes import as_size
from graphc.ir.node import Node, as_node
from graphc.ir.types import int32
from graphc.ops.compare import cast
from graphc.ops.index import iota
from graphc.rnn_cell import RNNCell
from graphc.scopes import variable_scope


def _check_cell(cell, what: str) -> None:
    if not isinstance(cell, RNNCell):
        raise report(ArgumentError, f"{what}: {cell!r:.60} is not a cell", rule="it is made from graphc.nn.rnn_cell.RNNCell")


def _start(cell: RNNCell, batch, initial_state, dtype, what: str):
    """The state before the first step."""
    if initial_state is not None:
        leaves = [as_node(s, what=what) for s in flatten(initial_state)]
        if len(leaves) != len(flatten(cell.state_size)):
            raise report(ArgumentError, f"{what}: initial_state has {len(leaves)} tensors, the cell's state has "
                                        f"{len(flatten(cell.state_size))}")
        return pack_like(initial_state, leaves)
    if dtype is None:
        raise report(ArgumentError, f"{what}: without initial_state, dtype must be given")
    return cell.zero_state(batch, dtype)


def _lengths(sequence_length, batch, what: str) -> Node | None:
    if sequence_length is None:
        return None
    lengths = as_node(sequence_length, int32, what)
    if lengths.type.rank != 1 or not lengths.dtype.is_integer:
        raise report(ShapeError, f"{what}: sequence_length must be one integer for each row of the batch",
                     [("sequence_length", lengths.describe())])
    return cast(lengths, dtype=int32)


def _chosen(alive: Node | None, new, old) -> list:
    """The leaves of `new` in rows that are alive, else those of `old`."""
    if alive is None:
        return flatten(new)
    return [where_v2(expand_dims(alive, 1), a, b) for a, b in zip(flatten(new), flatten(old), strict=True)]


def dynamic_rnn(cell, inputs, sequence_length=None, initial_state=None, dtype=None, parallel_iterations=None,
                swap_memory: bool = False, time_major: bool = False, scope=None):
    """(outputs, last state) of a cell applied along time, in one native loop.

    inputs           [batch, time, size], or [time, batch, size] with time_major; both sizes may be None.
    sequence_length  [batch], integers: past its length a row's outputs are zero and its state stays.
    initial_state    a nest like `cell.state_size`; without it zeros of `dtype`.
    outputs          [batch, time, cell.output_size], or time first.
    Raises ArgumentError, ShapeError.
    """
    _check_cell(cell, "dynamic_rnn")
    with variable_scope(scope or "rnn"):
        return _along(cell, inputs, sequence_length, initial_state, dtype, time_major, False, "dynamic_rnn")


def _along(cell: RNNCell, inputs, sequence_length, initial_state, dtype, time_major: bool, reverse: bool, what: str):
    x = as_node(inputs, what=what)
    if x.type.rank != 3:
        raise report(ShapeError, f"{what}: inputs must have 3 axes: batch, time and size", [("inputs", x.describe())])
    if not time_major:
        x = transpose(x, [1, 0, 2])
    length, batch = x.type.shape[0], x.type.shape[1]
    lengths = _lengths(sequence_length, batch, what)
    start = _start(cell, batch, initial_state, dtype, what)
    rows = [x] if lengths is None else [x, iota(shape=(length,), axis=0, dtype=int32)]

    def step(state, row):
        state = pack_like(start, state)
        alive = None if lengths is None else less(row[1], lengths)
        output, new = cell(row[0], state)
        outputs = _chosen(alive, output, [zeros_like(o) for o in flatten(output)])
        form.append(output)
        return _chosen(alive, new, state), outputs
    form: list = []
    finals, stacks = loop_over(step, flatten(start), rows, length, reverse, "while")
    if not time_major:
        stacks = [transpose(s, [1, 0, *range(2, s.type.rank)]) for s in stacks]
    return pack_like(form[0], stacks), pack_like(start, finals)


def bidirectional_dynamic_rnn(cell_fw, cell_bw, inputs, sequence_length=None, initial_state_fw=None, initial_state_bw=None,
                              dtype=None, parallel_iterations=None, swap_memory: bool = False, time_major: bool = False,
                              scope=None):
    """((outputs forward, outputs backward), (last state forward, last state backward)). See `dynamic_rnn`.

    The backward cell goes from the last step to the first, with sequence_length from each row's own last.
    """
    for cell in (cell_fw, cell_bw):
        _check_cell(cell, "bidirectional_dynamic_rnn")
    what = "bidirectional_dynamic_rnn"
    with variable_scope(scope or "bidirectional_rnn"):
        with variable_scope("fw"):
            forward = _along(cell_fw, inputs, sequence_length, initial_state_fw, dtype, time_major, False, what)
        with variable_scope("bw"):
            backward = _along(cell_bw, inputs, sequence_length, initial_state_bw, dtype, time_major, True, what)
    return (forward[0], backward[0]), (forward[1], backward[1])


def raw_rnn(cell, loop_fn, parallel_iterations=None, swap_memory: bool = False, scope=None):
    """(stacked outputs [time, batch, ...], last state, last loop state) of a loop that `loop_fn` directs, step by step.

    loop_fn(time, cell_output, cell_state, loop_state) -> (elements_finished, next_input, next_cell_state, emit_output,
    next_loop_state). It is called once with cell_output and cell_state None, to begin with: next_cell_state is then the state
    to start from, and emit_output one row of what is to be emitted, None for the cell's own output. The loop ends when all
    elements are finished; those that are finished before emit zeros and keep their state. The steps are counted first, in a
    loop of their own: outputs have as many rows as that took, and gradients flow through them.
    """
    _check_cell(cell, "raw_rnn")
    with variable_scope(scope or "rnn"):
        return _directed(cell, loop_fn)


def _directed(cell: RNNCell, loop_fn):
    finished, first_input, first_state, emit_form, loop_form = loop_fn(as_node(0, int32), None, None, None)
    counts_loop_state = loop_form is not None
    inputs, states, loops = (flatten(n) if n is not None else [] for n in (first_input, first_state, loop_form))
    start = [as_node(v) for v in (as_node(0, int32), finished, *inputs, *states, *loops)]

    def step(values):
        time, done, rest = values[0], values[1], list(values[2:])
        given = pack_like(first_input, rest[:len(inputs)])
        state = pack_like(first_state, rest[len(inputs):len(inputs) + len(states)])
        loop_state = pack_like(loop_form, rest[len(inputs) + len(states):]) if counts_loop_state else None
        output, new_state = cell(given, state)
        ends, next_input, next_state, emit, next_loop = loop_fn(time + 1, output, new_state, loop_state)
        emitted = output if emit is None else emit
        form.append(emitted)
        alive = logical_not(done)
        emitted = _chosen(alive, emitted, [zeros_like(o) for o in flatten(emitted)])
        kept = _chosen(alive, next_state, state)
        return [time + 1, logical_or(done, ends), *flatten(next_input), *kept,
                *(flatten(next_loop) if counts_loop_state else [])], emitted
    form: list = []
    count = while_loop(lambda *values: logical_not(reduce_all(values[1])), lambda *values: step(values)[0], start)[0]
    length = as_size(count, "raw_rnn")
    finals, stacks = loop_over(lambda values, _: step(values), start, [iota(shape=(length,), axis=0)], length, name="raw_rnn")
    end = 2 + len(inputs) + len(states)
    return (pack_like(form[-1], stacks), pack_like(first_state, finals[2 + len(inputs):end]),
            pack_like(loop_form, finals[end:]) if counts_loop_state else None)


def static_rnn(cell, inputs: Sequence, initial_state=None, dtype=None, sequence_length=None, scope=None):
    """(list of outputs, last state) of a cell applied to a list of inputs [batch, size], one after the other, unrolled."""
    _check_cell(cell, "static_rnn")
    if not isinstance(inputs, (list, tuple)) or not inputs:
        raise report(ArgumentError, "static_rnn: inputs must be a list of tensors", hint="graphc.unstack(x, axis=1) makes one")
    with variable_scope(scope or "rnn"):
        return _unrolled(cell, [as_node(x) for x in inputs], initial_state, dtype, sequence_length, False, "static_rnn")


def _unrolled(cell: RNNCell, inputs: Sequence[Node], initial_state, dtype, sequence_length, reverse: bool, what: str):
    batch = inputs[0].type.shape[0]
    state = _start(cell, batch, initial_state, dtype, what)
    lengths = _lengths(sequence_length, batch, what)
    outputs: list = [None] * len(inputs)
    for t in reversed(range(len(inputs))) if reverse else range(len(inputs)):
        alive = None if lengths is None else less(as_node(t, int32), lengths)
        output, new = cell(inputs[t], state)
        outputs[t] = pack_like(output, _chosen(alive, output, [zeros_like(o) for o in flatten(output)]))
        state = pack_like(state, _chosen(alive, new, state))
    return outputs, state


def rnn_decoder(decoder_inputs: Sequence, initial_state, cell, loop_function=None, scope=None):
    """(list of outputs, last state) of a cell applied to a list of inputs [batch, size]. loop_function(output, number) gives
    the input of each step but the first from the output before it, in place of that in the list.
    """
    _check_cell(cell, "rnn_decoder")
    outputs: list = []
    with variable_scope(scope or "rnn_decoder"):
        state = initial_state
        for k, given in enumerate(decoder_inputs):
            if loop_function is not None and outputs:
                given = loop_function(outputs[-1], k)
            output, state = cell(as_node(given), state)
            outputs.append(output)
    return outputs, state


def static_bidirectional_rnn(cell_fw, cell_bw, inputs: Sequence, initial_state_fw=None, initial_state_bw=None, dtype=None,
                             sequence_length=None, scope=None):
    """(list of outputs, last state forward, last state backward); an output holds both directions' side by side."""
    what = "static_bidirectional_rnn"
    for cell in (cell_fw, cell_bw):
        _check_cell(cell, what)
    nodes = [as_node(x) for x in inputs]
    with variable_scope(scope or "bidirectional_rnn"):
        with variable_scope("fw"):
            forward, state_fw = _unrolled(cell_fw, nodes, initial_state_fw, dtype, sequence_length, False, what)
        with variable_scope("bw"):
            backward, state_bw = _unrolled(cell_bw, nodes, initial_state_bw, dtype, sequence_length, True, what)
    return [concat([a, b], 1) for a, b in zip(forward, backward, strict=True)], state_fw, state_bw

