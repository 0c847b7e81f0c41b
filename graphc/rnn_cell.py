"""Recurrent cells: `cell(inputs, state)` gives (output, new state) for one time step.

Variables have TensorFlow 1's names, shapes and order of gates, so its checkpoints fit: `kernel` of shape
[inputs + units, gates * units] and `bias`, in the scope that is open when the cell is first called.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from graphc.errors import ArgumentError, ShapeError, report
from graphc.functions.arrays import concat, split, zeros
from graphc.functions.bodies import flatten, pack_like
from graphc.functions.math import cast, clip_by_value, less, sigmoid, tanh
from graphc.functions.random import dropout, random_uniform
from graphc.initializers import constant_initializer, zeros_initializer
from graphc.ir.container import get_default_graph
from graphc.ir.node import Node, as_node
from graphc.ir.types import as_dtype, float32
from graphc.ops.contract import matmul_to
from graphc.scopes import get_variable, variable_scope


class LSTMStateTuple(NamedTuple):
    """The state of an LSTM cell: `c`, the memory, and `h`, the output, each [batch, units]."""

    c: Any
    h: Any


class RNNCell:
    """The base of all cells. A cell of one's own gives `state_size`, `output_size` and `call(inputs, state)`.

    state_size is a number, or a nest of numbers: the state is a nest of tensors [batch, size] of the same form.
    """

    scope_name = "rnn_cell"

    def __init__(self, name: str | None = None, reuse=None, dtype=None):
        self.name, self._reuse = name or self.scope_name, reuse
        self._dtype = None if dtype is None else as_dtype(dtype)
        self._weights: dict[str, Node] = {}
        self.variables: list = []

    @property
    def state_size(self) -> Any:
        raise NotImplementedError

    @property
    def output_size(self) -> int:
        raise NotImplementedError

    def call(self, inputs, state):
        """(output, new state) of one step."""
        raise NotImplementedError

    def __call__(self, inputs, state, scope=None):
        with variable_scope(scope or self.name, reuse=self._reuse):
            return self.call(inputs, state)

    def zero_state(self, batch_size, dtype=float32):
        """A state of zeros for `batch_size` (an int, a dim or a scalar tensor) rows."""
        with get_default_graph().name_scope(f"{self.name}_zero_state"):
            return pack_like(self.state_size, [zeros([batch_size, size], dtype) for size in flatten(self.state_size)])

    def weight(self, name: str, shape: Sequence[int], initializer=None, dtype=float32) -> Node:
        """A weight of the cell as a tensor: made, or found, at the first call and read once."""
        if name not in self._weights:
            variable = get_variable(name, list(shape), dtype, initializer=initializer)
            with get_default_graph().outside_bodies():
                self._weights[name] = variable.as_tensor()
            self.variables.append(variable)
        return self._weights[name]

    def linear(self, parts: Sequence[Node], units: int, prefix: str = "", bias_initializer=None, initializer=None) -> Node:
        """The parts side by side times `kernel`, plus `bias`: [batch, units]. One product for each part: that of the inputs
        does not wait for the state, so in a loop all steps' can be taken at once.
        """
        sizes = [_width(part, self.name) for part in parts]
        dtype = parts[0].dtype
        kernel = self.weight(f"{prefix}kernel", [sum(sizes), units], initializer, dtype)
        key = f"{prefix}kernel rows"
        if key not in self._weights:
            with get_default_graph().outside_bodies():
                self._weights[key] = split(kernel, sizes, 0)  # type: ignore[assignment]
        total = self.weight(f"{prefix}bias", [units], bias_initializer or zeros_initializer(), dtype)
        for part, rows in zip(parts, self._weights[key], strict=True):
            total = matmul_to(part, rows) + total
        return total


def _width(tensor: Node, what: str) -> int:
    size = tensor.type.shape[-1] if tensor.type.rank == 2 else None
    if not isinstance(size, int):
        raise report(ShapeError, f"{what}: it takes tensors of shape [batch, size] with a known size",
                     [("tensor", tensor.describe())])
    return size


class BasicRNNCell(RNNCell):
    """output = state = activation([inputs, state] kernel + bias)."""

    scope_name = "basic_rnn_cell"

    def __init__(self, num_units: int, activation: Callable | None = None, reuse=None, name=None, dtype=None):
        super().__init__(name, reuse, dtype)
        self._units, self._activation = num_units, activation or tanh

    state_size = output_size = property(lambda self: self._units)  # type: ignore[assignment]

    def call(self, inputs, state):
        output = self._activation(self.linear([as_node(inputs), state], self._units))
        return output, output


class GRUCell(RNNCell):
    """Gated recurrent unit (Cho et al. 2014, arXiv:1406.1078): r, u = sigmoid([x, h] W + b), c = act([x, r h] V + d),
    h' = u h + (1 - u) c. The gates' bias starts as ones.
    """

    scope_name = "gru_cell"

    def __init__(self, num_units: int, activation: Callable | None = None, reuse=None, kernel_initializer=None,
                 bias_initializer=None, name=None, dtype=None):
        super().__init__(name, reuse, dtype)
        self._units, self._activation = num_units, activation or tanh
        self._kernel, self._bias = kernel_initializer, bias_initializer

    state_size = output_size = property(lambda self: self._units)  # type: ignore[assignment]

    def call(self, inputs, state):
        x = as_node(inputs)
        gates = self.linear([x, state], 2 * self._units, "gates/", self._bias or constant_initializer(1.0), self._kernel)
        reset, update = split(sigmoid(gates), 2, 1)
        candidate = self._activation(self.linear([x, reset * state], self._units, "candidate/", self._bias, self._kernel))
        new = update * state + (1 - update) * candidate
        return new, new


class LSTMCell(RNNCell):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), with the gates i, j, f, o of [x, h] kernel + bias:
    c' = sigmoid(f + forget_bias) c + sigmoid(i) act(j), h' = sigmoid(o) act(c').

    use_peepholes  the gates also see c (o: c'), through diagonal weights (Gers et al. 2000).
    cell_clip      c' is kept in [-cell_clip, cell_clip]. num_proj, proj_clip: h' is projected to so many units, and clipped.
    state_is_tuple False: the state is one tensor [batch, units + output size], c first.
    """

    scope_name = "lstm_cell"

    def __init__(self, num_units: int, use_peepholes: bool = False, cell_clip=None, initializer=None, num_proj=None,
                 proj_clip=None, num_unit_shards=None, num_proj_shards=None, forget_bias: float = 1.0,
                 state_is_tuple: bool = True, activation: Callable | None = None, reuse=None, name=None, dtype=None):
        super().__init__(name, reuse, dtype)
        self._units, self._peepholes, self._cell_clip, self._initializer = num_units, use_peepholes, cell_clip, initializer
        self._projection, self._projection_clip = num_proj, proj_clip
        self._forget_bias, self._tuple, self._activation = forget_bias, state_is_tuple, activation or tanh

    @property
    def output_size(self) -> int:
        return self._projection or self._units

    @property
    def state_size(self):
        return LSTMStateTuple(self._units, self.output_size) if self._tuple else self._units + self.output_size

    def call(self, inputs, state):
        x = as_node(inputs)
        c, h = state if self._tuple else split(state, [self._units, self.output_size], 1)
        i, j, f, o = split(self.linear([x, h], 4 * self._units, initializer=self._initializer), 4, 1)
        if self._peepholes:
            i, f = i + self._peephole("i", x) * c, f + self._peephole("f", x) * c
        new_c = sigmoid(f + self._forget_bias) * c + sigmoid(i) * self._activation(j)
        if self._cell_clip is not None:
            new_c = clip_by_value(new_c, -self._cell_clip, self._cell_clip)
        if self._peepholes:
            o = o + self._peephole("o", x) * new_c
        new_h = sigmoid(o) * self._activation(new_c)
        if self._projection:
            shape = [self._units, self._projection]
            new_h = matmul_to(new_h, self.weight("projection/kernel", shape, self._initializer, x.dtype))
            if self._projection_clip is not None:
                new_h = clip_by_value(new_h, -self._projection_clip, self._projection_clip)
        return new_h, LSTMStateTuple(new_c, new_h) if self._tuple else concat([new_c, new_h], 1)

    def _peephole(self, gate: str, x: Node) -> Node:
        return self.weight(f"w_{gate}_diag", [self._units], self._initializer, x.dtype)


class BasicLSTMCell(LSTMCell):
    """An LSTM cell without peepholes, clipping and projection. See LSTMCell."""

    scope_name = "basic_lstm_cell"

    def __init__(self, num_units: int, forget_bias: float = 1.0, state_is_tuple: bool = True, activation=None, reuse=None,
                 name=None, dtype=None, input_size=None):
        super().__init__(num_units, forget_bias=forget_bias, state_is_tuple=state_is_tuple, activation=activation,
                         reuse=reuse, name=name, dtype=dtype)


class MultiRNNCell(RNNCell):
    """Cells on top of each other: the output of one is the input of the next; the state is a tuple of their states."""

    scope_name = "multi_rnn_cell"

    def __init__(self, cells: Sequence[RNNCell], state_is_tuple: bool = True):
        super().__init__()
        if not isinstance(cells, (list, tuple)) or not cells:
            raise report(ArgumentError, "MultiRNNCell: it takes a list of cells")
        if not state_is_tuple:
            raise report(ArgumentError, "MultiRNNCell: state_is_tuple=False is not supported", rule="its state is a tuple")
        if len({id(cell) for cell in cells}) != len(cells):
            raise report(ArgumentError, "MultiRNNCell: one cell appears twice",
                         rule="the layers have weights of their own", hint="make a cell for each layer: [cell() for _ in ...]")
        self._cells = list(cells)

    state_size = property(lambda self: tuple(cell.state_size for cell in self._cells))  # type: ignore[assignment]
    output_size = property(lambda self: self._cells[-1].output_size)  # type: ignore[assignment]

    def call(self, inputs, state):
        new = []
        for k, (cell, own) in enumerate(zip(self._cells, state, strict=True)):
            with variable_scope(f"cell_{k}"):
                inputs, own = cell(inputs, own)
            new.append(own)
        return inputs, tuple(new)


class _Wrapper(RNNCell):
    def __init__(self, cell: RNNCell):
        super().__init__()
        self._cell = cell

    state_size = property(lambda self: self._cell.state_size)  # type: ignore[assignment]
    output_size = property(lambda self: self._cell.output_size)  # type: ignore[assignment]

    def zero_state(self, batch_size, dtype=float32):
        return self._cell.zero_state(batch_size, dtype)


class DropoutWrapper(_Wrapper):
    """Dropout around a cell: of its inputs, its state and its outputs, each kept with the given probability.

    variational_recurrent  one mask for all time steps of a run (Gal and Ghahramani 2016, arXiv:1512.05287); needs dtype, and
    input_size for the inputs'. The memory c of an LSTM's state is never dropped.
    """

    def __init__(self, cell: RNNCell, input_keep_prob=1.0, output_keep_prob=1.0, state_keep_prob=1.0,
                 variational_recurrent: bool = False, input_size=None, dtype=None, seed=None):
        super().__init__(cell)
        self._keep = {"input": input_keep_prob, "output": output_keep_prob, "state": state_keep_prob}
        self._variational, self._seed = variational_recurrent, seed
        self._noise: dict = {}

    def __call__(self, inputs, state, scope=None):
        output, new = self._cell(self._dropped("input", as_node(inputs)), state, scope)
        kept = [v if field == "c" else self._dropped("state", v) for field, v in _fields(new)]
        return self._dropped("output", output), pack_like(new, kept)

    def _dropped(self, place: str, x: Node) -> Node:
        keep = self._keep[place]
        if isinstance(keep, (int, float)) and keep >= 1:
            return x
        if not self._variational:
            return dropout(x, keep_prob=keep, seed=self._seed)
        key = place, x.type.shape[-1]
        if key not in self._noise:  # one row of numbers for all steps and rows of the batch
            with get_default_graph().outside_bodies():
                self._noise[key] = random_uniform([1, x.type.shape[-1]], dtype=x.dtype, seed=self._seed)
        return x / keep * cast(less(self._noise[key], keep), x.dtype)


def _fields(state) -> list[tuple[str, Node]]:
    """(name of the field, tensor) for the leaves of a state."""
    if isinstance(state, LSTMStateTuple):
        return [("c", state.c), ("h", state.h)]
    if isinstance(state, (list, tuple)):
        return [item for part in state for item in _fields(part)]
    return [("", state)]


class ResidualWrapper(_Wrapper):
    """Adds the inputs to the outputs of a cell."""

    def __call__(self, inputs, state, scope=None):
        output, new = self._cell(inputs, state, scope)
        return as_node(inputs) + output, new

