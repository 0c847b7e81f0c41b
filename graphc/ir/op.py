"""The op record: one block of data that says all there is to know about an op.

Passes, the emitters and the runtime ask for an op's `kind` and its `rule` (the payload of that kind), never for its name.
"""
from __future__ import annotations

import enum
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import numpy as np

from graphc.errors import PACKAGE
from graphc.records import NOTHING, record


class Kind(enum.Enum):
    """What an op is to the compiler. `rule` holds the class named here."""

    INPUT = "input"              # a parameter of the graph: a feed or a variable's state
    CONSTANT = "constant"
    ELEMENTWISE = "elementwise"  # Elementwise: one scalar expression for each element; operands broadcast
    INDEX = "index"              # Index: the value is a coordinate or a size, no memory is read
    RANDOM = "random"            # Random: a function of the element's number, the seeds and the run number
    REDUCE = "reduce"            # Reduce: combines elements along `axes`
    MOVE = "move"                # Move: each result element is one input element, found by an affine index map
    VIEW = "view"                # the same bytes in another shape
    ASSEMBLE = "assemble"        # Assemble: inputs copied into parts of a filled result
    GATHER = "gather"            # Gather: elements picked by an index tensor
    SCATTER = "scatter"          # Scatter: rows added into a result at the places an index tensor says
    CONTRACT = "contract"        # Contract: a sum of products, as an einsum of two operands
    ROUTINE = "routine"          # Routine: rows computed by scalar code of their own, such as a sort
    HOST = "host"                # Host: no kernel; the NumPy rule itself is called, between two native segments
    COND = "cond"                # one of two graphs, chosen by a bool
    WHILE = "while"              # a graph that runs on its own results as long as another one says so
    SCAN = "scan"                # a graph that runs once for each row of its sequences
    EFFECT = "effect"            # Effect: reads or writes a variable
    STRUCTURE = "structure"      # result, group, no_op: no arithmetic
    GRAD = "grad"                # a symbolic gradient, replaced by `differentiate`
    CUSTOM = "custom"            # values whose gradient the user gives as a graph; gone after `differentiate`
    REGION = "region"            # a fused region: a node that holds a graph
    SEGMENT = "segment"          # what runs natively between host ops: a node that holds the graph of a program

    __hash__ = object.__hash__   # members are unique; Enum's own hash is a Python function, and passes ask for it all the time


@record(frozen=True)
class Elementwise:
    """`scalar` is the expression; `{x}` stands for input x, `{name}` for attribute name.

    `fails`, when given, is the condition under which an element is an error; `message` says which, and `culprit` names
    the input whose value is reported.
    """

    scalar: str
    fails: str = ""
    message: str = ""
    culprit: str = ""
    cost: int = 1  # about how many vector instructions an element costs: 1 for add, 10 for exp, 30 for pow
    ulp: float = 4.0  # how far a kernel's value may be from the NumPy rule's, in units of the last place


@record(frozen=True)
class Index:
    """`value(type, attrs)` gives (offset, strides over the result's axes): the value is offset + sum(stride * coordinate)."""

    value: Callable[[Any, Mapping], tuple]


@record(frozen=True)
class Random:
    """`scalar` as in Elementwise, with `{index}` the element's number, `{run}` the run number and the seeds' attributes."""

    scalar: str


@record(frozen=True)
class Reduce:
    """`combine` joins `{acc}` and `{x}`; `horizontal` names the function that joins the lanes of a vector.

    `init(dtype)` is the neutral element. `arg` is "min" or "max" when the result is the position, not the value.
    """

    combine: str
    horizontal: str
    init: Callable[[Any], Any]
    arg: str = ""


@record(frozen=True)
class IndexMap:
    """Where an element comes from: input coordinate a = offsets[a] + steps[a] * result coordinate axes[a] (None: no axis).

    more: further terms (a, axis, step), for input coordinates that several result axes move. With `fill`, a coordinate may
    lie outside the input: the element is then `fill`.
    """

    axes: tuple[int | None, ...]
    steps: tuple[int, ...]
    offsets: tuple[Any, ...]
    more: tuple[tuple[int, int, int], ...] = ()
    fill: Any = None

    @property
    def is_plain(self) -> bool:
        """Whether elements only change axes: no offset, no step, nothing outside."""
        return not self.more and self.fill is None and all(s == 1 for s in self.steps) and all(o == 0 for o in self.offsets)


@record(frozen=True)
class Move:
    """`access(input type, result type, attrs)` gives the IndexMap of the result."""

    access: Callable[[Any, Any, Mapping], IndexMap]


@record(frozen=True)
class Assemble:
    """`parts(input types, result type, attrs)` gives one IndexMap per input: where in the RESULT its element (c0, c1, ...)
    goes: result coordinate a = offsets[a] + steps[a] * input coordinate axes[a]. `fill(attrs)` is the value of the rest, or
    None when the parts cover the result.
    """

    parts: Callable[[tuple, Any, Mapping], tuple]
    fill: Callable[[Mapping], Any]


@record(frozen=True)
class Gather:
    """Inputs (params, indices): result[o, i, r] = params[o, indices[i], r] where `axis(attrs)` splits o from r."""

    axis: Callable[[Mapping], int]


@record(frozen=True)
class Scatter:
    """Inputs (indices, updates): result[o, indices[i], r] += updates[o, i, r], in the order of i, from zeros on.

    into    inputs (base, indices, updates): the result starts as base instead.
    action  "add", or "set": the last update of an element is its value.
    """

    axis: Callable[[Mapping], int]
    into: bool = False
    action: str = "add"


@record(frozen=True)
class Window:
    """Three labels that a window ties: position = stride * output + dilation * tap - low.

    Each is on one of the two operands and the result of a contraction. Terms whose position lies outside its axis are 0.
    """

    position: Any
    output: Any
    tap: Any
    stride: int
    dilation: int
    low: Any


@record(frozen=True)
class Contract:
    """`labels(input types, attrs)` gives the axes' labels (a, b, result): label strings or tuples of hashables.

    A label missing in the result is summed. A size-1 axis that broadcasts has the label None. `windows(input types, attrs)`
    gives the Windows among the labels: convolutions have them.
    """

    labels: Callable[[tuple, Mapping], tuple]
    windows: Callable[[tuple, Mapping], tuple[Window, ...]] = lambda types, attrs: ()


@record(frozen=True)
class Host:
    """`binds` names the attributes that hold new dims: sizes of the result that only its values tell. `effect`: the op also
    runs where nothing needs its result, if it is fetched or something is ordered after it.
    """

    binds: tuple[str, ...] = ()
    effect: bool = False


@record(frozen=True)
class Items:
    """How the work of a ROUTINE node is cut into items, which are independent of each other: threads take them in any order.

    axes      sizes; there is an item for each point of them. () is one item.
    steps     operand -> elements from an item's part to the next item's, along each of `axes`; missing: all items share it.
              An operand is the name of an input, or "y", or "y0", "y1", ... of several results. All lie in memory, row-major.
    numbers   sizes and flags (0, 1) that `row` takes
    scratch   name -> (dtype as in the text form, elements): memory of a thread, undefined when an item starts
    failures  (input, message, limit or None) of fail(0, ...), fail(1, ...), ...; the limit is the first value too large.
    work      about how many scalar operations all items take
    """

    axes: tuple[Any, ...] = ()
    steps: Mapping[str, tuple[Any, ...]] = NOTHING
    numbers: Mapping[str, Any] = NOTHING
    scratch: Mapping[str, tuple[str, Any]] = NOTHING
    failures: tuple[tuple[str, str, Any], ...] = ()
    work: Any = 0


@record(frozen=True)
class Routine:
    """`row` is a Python function that computes one item; `items(input types, result type or types, attrs)` gives its Items.

    The parameters of `row` are names of inputs, results, numbers and scratch, in any order: pointers to the item's part,
    where `x[k]` reads and `y[k] = v` writes and converts. It has loops, conditions and arithmetic, and what
    graphc.ops.routine names (`wide`, `fail`, ...), but no return, no calls, no exceptions. Its source is compiled. `ulp` as in
    Elementwise.
    """

    row: Callable
    items: Callable[[tuple, Any, Mapping], Items]
    ulp: float = 0.0


@record(frozen=True)
class Effect:
    """`action`: "read", "assign", "add" or "sub". The first input is the variable, the second the value."""

    action: str


@record(frozen=True)
class Batch:
    """How an op works on many values at once: on inputs of which some have one more axis, of `rows` elements, in front.

    attrs     (rows, marks, attrs) -> the attributes with which it then does so; `marks` says which inputs have the axis.
    operands  what becomes of the inputs first: "all": those without the axis are repeated along it, but for those that no
              gradient flows to, which must be without; "same": all those without are repeated; "broadcast": ranks are filled
              with axes of size 1 behind the new axis, up to the rank of the result; "own": nothing.
    """

    attrs: Callable[[Any, tuple[bool, ...], dict], dict] = lambda rows, marks, attrs: attrs
    operands: str = "all"


@record(frozen=True)
class Sample:
    """Inputs (specifications from graphc.ir.samples) and attributes on which the generic tests run an op."""

    inputs: tuple
    attrs: Mapping[str, Any] = NOTHING


REQUIRED = object()


@record(frozen=True, eq=False)
class Op:
    """An op. See DESIGN 3 and docs/ops.md for how to write one.

    inputs  names of the inputs, separated by spaces; the last may be `*name` (any number).
    attrs   name -> default, or REQUIRED.
    infer   (*input types, **attrs) -> type or tuple of types; raises RuleError.
    numpy   (*arrays, **attrs) -> array or tuple of arrays: the meaning of the op, and the oracle of all tests.
    grad    (dy, y, *inputs, **attrs) -> one gradient per input (a tensor, or None), written with the same operators as
            users write, or a sentence that says why there is none. Never sums over broadcast axes: the driver does.
    nondiff inputs that no gradient flows to.
    context extra keywords that the interpreter passes to `numpy`: "run" (the run number).
    batch   how it works on many values at once; None: they are computed one after the other.
    orders  how often its gradient may be taken; beyond, derivatives are NaN. None: as often as one likes.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    infer: Callable
    numpy: Callable
    grad: Callable | str
    doc: str
    rule: Any = None
    attrs: Mapping[str, Any] = NOTHING
    nondiff: tuple[str, ...] = ()
    samples: tuple[Sample, ...] = ()
    errors: tuple[tuple[Sample, str], ...] = ()
    context: tuple[str, ...] = ()
    fetchable: bool = True
    batch: Batch | None = None
    orders: int | None = None

    is_users = False    # whether it was made outside of graphc

    def __post_init__(self):
        for name in ("name", "infer", "numpy", "grad", "doc"):
            if not getattr(self, name):
                raise ValueError(f"op {self.name!r} lacks the field {name!r}: every op needs one to be compiled and trained")
        if self.name in OPS:
            raise ValueError(f"the op {self.name!r} exists already; choose another name")
        OPS[self.name] = self
        frame: FrameType | None = sys._getframe(2)      # who called __init__
        while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
            frame = frame.f_back
        object.__setattr__(self, "is_users", frame is None or not frame.f_code.co_filename.startswith("<frozen importlib"))

    @property
    def variadic(self) -> bool:
        return bool(self.inputs) and self.inputs[-1].startswith("*")

    def input_name(self, position: int) -> str:
        """The name of the input at `position`, for messages and for `nondiff`."""
        if self.variadic and position >= len(self.inputs) - 1:
            return self.inputs[-1][1:]
        return self.inputs[position]

    def full_attrs(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        """`attrs` with defaults filled in; TypeError for unknown and missing ones."""
        if list(attrs) == list(self.attrs):
            return dict(attrs)
        unknown = [a for a in attrs if a not in self.attrs]
        missing = [a for a, default in self.attrs.items() if default is REQUIRED and a not in attrs]
        if unknown or missing:
            raise TypeError(f"{self.name}() has the attributes {', '.join(self.attrs) or 'none'}; "
                            + (f"unknown: {', '.join(unknown)}" if unknown else f"missing: {', '.join(missing)}"))
        return {name: attrs.get(name, default) for name, default in self.attrs.items()}

    def differentiable(self, position: int) -> bool:
        """Whether a gradient can flow to the input at `position`."""
        return callable(self.grad) and self.input_name(position) not in self.nondiff

    def __call__(self, *inputs, name: str | None = None, **attrs):
        from graphc.ir.node import apply
        return apply(self, inputs, attrs, name=name)

    def __repr__(self) -> str:
        return f"<op {self.name}>"


OPS: dict[str, Op] = {}


@record(frozen=True, eq=False)
class PythonFunction:
    """A Python function as an attribute. Texts hold only its name: a graph that was read from a text cannot call it."""

    function: Callable
    name: str

    def __str__(self) -> str:
        return self.name


class Drawn(int):
    """A number that the system drew when the graph was built, another one in each process: programs take it as an argument."""


LARGE = 1024    # bytes; a larger constant is an argument of the program too, unless the compiler has looked at its elements


class Array:
    """A constant's value: a read-only array that compares and hashes by content."""

    __slots__ = ("content", "_key")

    def __init__(self, value: np.ndarray):
        value = np.array(value, order="C")
        value.flags.writeable = False
        self.content = value
        self._key: tuple | None = None

    @property
    def value(self) -> np.ndarray:
        """The array, to look at its elements. (`content` is for those who only pass it on.)"""
        return self.content

    dtype = property(lambda self: self.content.dtype)
    shape = property(lambda self: self.content.shape)
    size = property(lambda self: self.content.size)

    @property
    def key(self) -> tuple:
        """Content as a hashable: dtype, shape, bytes. All NaNs count as one: the text form knows no other."""
        if self._key is None:
            value = self.value
            name = value.dtype.name if value.dtype.kind == "V" else value.dtype.str  # bfloat16's is that of raw bytes
            if value.dtype.kind in "fV" and np.isnan(value).any():
                value = np.where(np.isnan(value), value.dtype.type(np.nan), value)
            self._key = (name, value.shape, value.tobytes())
        return self._key

    @property
    def digest(self) -> str:
        """A short hash of the content."""
        import hashlib
        return hashlib.sha256(repr(self.key[:2]).encode() + self.key[2]).hexdigest()[:16]

    def __eq__(self, other) -> bool:
        return (isinstance(other, Array) and self.shape == other.shape and self.dtype == other.dtype
                and self.key == other.key)

    def __hash__(self) -> int:
        large = self.content.nbytes > LARGE
        return hash((self.dtype.name, self.shape) if large else self.key)


class WatchedArray(Array):
    """A large constant of a graph that is being compiled. `seen`: its elements have been looked at; until then the program is
    right for any others. Equal ones have equal numbers.
    """

    __slots__ = ("number", "seen")

    def __init__(self, array: Array, number: int):
        self.content, self._key = array.content, None
        self.number, self.seen = number, False

    @property
    def value(self) -> np.ndarray:
        self.seen = True
        return self.content

    def __eq__(self, other) -> bool:
        if isinstance(other, WatchedArray):
            return self.number == other.number
        return super().__eq__(other)

    __hash__ = Array.__hash__
