"""The kernel IR: what a kernel does, with every choice made and no target in it. The only input of the emitters.

Sizes, strides and offsets are `Int`s: a number, or the name of a parameter that a call supplies, so that one kernel serves
all sizes. Two calls whose kernels compare equal share one compiled kernel.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

Int = int | str


@dataclass(frozen=True)
class Access:
    """The address of an element: `buffer` + offset + sum of stride * axis, in elements of `dtype`. whole: there is room for
    whole vectors, so that lanes beyond the last element may be read and written like others.
    """

    buffer: str
    dtype: str
    strides: tuple[tuple[str, Int], ...] = ()
    offset: Int = 0
    whole: bool = False

    def stride(self, axis: str) -> Int:
        """The stride along `axis`; 0 when the access does not vary along it."""
        return dict(self.strides).get(axis, 0)


@dataclass(frozen=True)
class Load:
    """name = the element at `access`. With `index`, the name of an integer value, `index * scale` is added to the place;
    lanes whose index is outside [0, limit) read nothing, give 0, and are reported as failure number `failure`. With `where`,
    the name of a bool value, lanes where that is false read nothing and are `fill`. ahead: an axis, one step along which lies
    what is read soon: it is fetched into the caches.
    """

    name: str
    access: Access
    index: str = ""
    scale: Int = 0
    limit: Int = 0
    failure: int = -1
    element: tuple[tuple[str, Int], ...] = ()  # strides that number the elements of the index tensor
    where: str = ""
    fill: float | int | bool = 0
    ahead: str = ""

    @property
    def dtype(self) -> str:
        return self.access.dtype


@dataclass(frozen=True)
class Literal:
    """name = a number."""

    name: str
    dtype: str
    value: float | int | bool


@dataclass(frozen=True)
class Coordinate:
    """name = offset + sum of stride * axis, as a number of `dtype`."""

    name: str
    dtype: str
    strides: tuple[tuple[str, Int], ...]
    offset: Int = 0


@dataclass(frozen=True)
class Compute:
    """name = text, an expression over earlier names."""

    name: str
    dtype: str
    text: str
    uses: tuple[str, ...]
    line: str = field(default="", compare=False)  # the user's line, for the reader of the source


@dataclass(frozen=True)
class Check:
    """Where `condition` (an expression) holds, the run has failed: report `value` and the element's number."""

    condition: str
    value: str
    failure: int
    element: tuple[tuple[str, Int], ...]
    uses: tuple[str, ...]
    name: str = ""


@dataclass(frozen=True)
class Store:
    """Put `value` at `access`; with `index`, add it at `index * scale` further on (see Load), or with action "set" put it
    there. Without a `failure`, values with an index out of range are dropped in silence. With action "sum" and no index, it is
    added to what is there.
    """

    value: str
    access: Access
    index: str = ""
    scale: Int = 0
    limit: Int = 0
    failure: int = -1
    element: tuple[tuple[str, Int], ...] = ()
    name: str = ""
    action: str = "add"


Statement = Load | Literal | Coordinate | Compute | Check | Store


@dataclass(frozen=True)
class Accumulator:
    """name = `value` combined over the reduced axes, from `init`. `arg`: "min" or "max" when the position is wanted;
    then `name` holds the value, `position` the coordinate along the reduced axis.
    """

    name: str
    dtype: str
    value: str
    combine: str
    horizontal: str
    init: float | int | bool
    arg: str = ""
    position: str = ""

    @property
    def in_any_order(self) -> bool:
        """Whether the result is the same in whatever order values are combined: not that of rounded sums and products."""
        return self.dtype not in ("f32", "f64") or self.horizontal in ("horizontal_max", "horizontal_min")


@dataclass(frozen=True)
class Phase:
    """One pass over the reduced axes, then what is computed once per row from its accumulators."""

    body: tuple[Statement, ...]
    accumulators: tuple[Accumulator, ...]
    after: tuple[Statement, ...]


@dataclass(frozen=True)
class LoopKernel:
    """A loop nest: for each point of the `parallel` axes `before`, then the phases.

    axes are (name, size). `vector` is the axis that lanes run along: the last parallel axis, or the last reduced one.
    chunk: with it, one work item is that many steps of the first reduced axis, its number is the axis "item", and only
    `phases[0]` exists. blocked: sums are taken over blocks first. stream: name of a parameter that is nonzero when the
    results are so large that stores should bypass the caches. wide: vectors side by side: that one walk over the reduced axes
    takes in, where lanes run across them; elsewhere, whose instructions alternate, so that none waits for the one before it.
    scratch: buffers of which each thread has a part of so many bytes for itself. turned: an axis; where lanes read across what
    lies together along it, blocks of lanes x lanes elements are read along it and turned in registers. block: with it, one work
    item is that many points of the parallel axes, all but the last one where nothing is reduced; its number is the axis "item",
    and it has a row of each of `sums` to itself, which starts with zeros and is added to by stores with action "sum".
    together: lanes run along a reduced axis, but where something is computed once for each row, they run along the last
    parallel one: a pass is made over as many rows as there are lanes, then what follows is computed for all of them at once.
    "slot" is the number of a row among these.
    """

    name: str = field(compare=False)
    buffers: tuple[str, ...]
    sizes: tuple[str, ...]
    parallel: tuple[tuple[str, Int], ...]
    reduced: tuple[tuple[str, Int], ...]
    vector: str
    before: tuple[Statement, ...]
    phases: tuple[Phase, ...]
    item_bytes: int
    chunk: Int = 0
    blocked: bool = False
    stream: str = ""
    wide: int = 1
    scratch: tuple[tuple[str, Int], ...] = ()
    turned: str = ""
    block: Int = 0
    sums: tuple[Access, ...] = ()
    together: bool = False
    may_fail: bool = False

    def is_turned(self, statement: Statement) -> bool:
        """Whether a load is one of those for which the kernel reads blocks and turns them."""
        return _reads_across(statement, self.vector, self.turned)


def _reads_across(statement: Statement, axis: str, other: str) -> bool:
    """Whether what lanes along an axis read lies together along another one."""
    return isinstance(statement, Load) and not statement.index and not statement.where and \
        statement.access.stride(axis) not in (0, 1) and statement.access.stride(other) == 1


@dataclass(frozen=True)
class Packing:
    """How the part of an operand that the next tiles read is computed into memory first: `value` by the statements of
    `prologue`, over the batch axes, the operand's free axis ("m" or "n") and "k". Lanes run along the axis `along`. turned: an
    axis; where lanes read across what lies together along it, blocks are turned as in a `LoopKernel`.
    """

    along: str
    prologue: tuple[Statement, ...]
    value: str
    turned: str = ""

    def is_turned(self, statement: Statement) -> bool:
        """Whether a load is one of those for which blocks are read and turned."""
        return bool(self.turned) and _reads_across(statement, self.along, self.turned)


@dataclass(frozen=True)
class Operand:
    """One side of a contraction: strides of its batch axes, of its own free axis (m or n), and of the summed axis k.

    With `packing` these are places in a buffer of which each thread has a part: for A a tile's rows, for B a tile's columns.
    """

    access: Access
    free: Int
    summed: Int
    packing: Packing | None = None


@dataclass(frozen=True)
class ContractKernel:
    """C[batch, m, n] = sum over k of A[batch, m, k] B[batch, k, n], then `epilogue` on each element, named "acc".

    The axes of epilogue statements are the batch axes' names, "m" and "n". A tile of `rows` x `vectors` registers is
    computed at a time. rows_first: work is handed out by rows of tiles, not by columns: what a thread writes then lies
    together, as the sweeps over the result that follow hand it out. Sums run over k in blocks of fixed size, each in order,
    so that results depend on shapes alone. row_vectors: where not 0, the vectors of a tile where m turns out to be 1.
    part: where not 0, k is cut into parts of so many, and there is one more axis, "part", outside of all others: results are
    sums over one part. where: a bool value of the epilogue without which nobody takes "acc": tiles in which it is nowhere true
    sum nothing up. groups: where more than 1, B has so many times n columns; the epilogue gets the sums of columns j, n + j,
    2 n + j ..., named "acc0", "acc1" ..., and a tile has `vectors` for all groups together.
    """

    name: str = field(compare=False)
    buffers: tuple[str, ...]
    sizes: tuple[str, ...]
    dtype: str
    batch: tuple[tuple[str, Int], ...]
    m: Int
    n: Int
    k: Int
    a: Operand
    b: Operand
    rows: int
    vectors: int
    epilogue: tuple[Statement, ...]
    item_bytes: int
    part: Int = 0
    rows_first: bool = False
    row_vectors: int = 0
    where: str = ""
    groups: int = 1
    may_fail: bool = False


@dataclass(frozen=True)
class RecurrenceKernel:
    """A loop over a few numbers, which stay in registers: `before` loads them; `body` computes `new` ones from `states`, as
    long as `test` finds `condition` to hold, or without one `length` times; `after` stores them.

    Names besides those of values: "t", the row of the iteration (from the last one on with `reverse`); for `after`, "count",
    the number of iterations, and "going", 1 if there are more to come. A failed check ends the loop.

    turn, turns  a loop without a length ends after `turn` iterations, so that its caller may look whether the user wants
                 to stop; the word at `turns` says how often it was called before, and `again` loads the states from then.
    """

    name: str = field(compare=False)
    buffers: tuple[str, ...]
    sizes: tuple[str, ...]
    before: tuple[Statement, ...]
    states: tuple[tuple[str, str], ...]  # (name, dtype)
    test: tuple[Statement, ...]
    condition: str
    length: Int
    reverse: bool
    body: tuple[Statement, ...]
    new: tuple[str, ...]
    after: tuple[Statement, ...]
    turn: int = 0
    turns: str = ""
    again: tuple[Statement, ...] = ()
    may_fail: bool = False


@dataclass(frozen=True)
class Argument:
    """A pointer that a routine takes, to an item's part of an operand; with `scratch`, to so many elements of a thread."""

    name: str
    access: Access
    scratch: Int = 0


@dataclass(frozen=True)
class RoutineKernel:
    """For each point of `items` the statements of `body`: scalar Python on the pointers `arguments` and integers `numbers`.

    `fail(k, element, value)` in the body reports failure k; its element counts from the place of `culprits[k]`.
    """

    name: str = field(compare=False)
    buffers: tuple[str, ...]
    sizes: tuple[str, ...]
    items: tuple[tuple[str, Int], ...]
    arguments: tuple[Argument, ...]
    numbers: tuple[tuple[str, Int], ...]
    culprits: tuple[Access, ...]
    body: str
    item_bytes: int = 8
    may_fail: bool = False


@dataclass(frozen=True)
class Span:
    """The part of a summed axis whose terms exist: the k in it with offset + scale * axis + step * k = divisor * place, place
    in [0, limit). `moved`, "a" or "b", is the operand that is read at `place`, with the stride `stride`.
    """

    moved: str
    axis: str       # a loop, or "m"; "" where only one element of it exists
    scale: int
    step: int
    offset: Int
    divisor: int
    limit: Int
    stride: Int


@dataclass(frozen=True)
class Sum:
    """A summed axis of a WindowKernel: its size and its strides in both operands (the one that a span moves: 0)."""

    size: Int
    a: Int
    b: Int
    span: Span | None = None


GROUP = 128     # tiles of a WindowKernel whose sums are kept in memory


@dataclass(frozen=True)
class Pool:
    """What a WindowKernel does with its tiles instead of storing them: it computes one for each place of a pooling window and
    keeps them in memory of the thread's own, then for each vector does `before` and the `phases`.

    taps    the axes of a window's places, and their sizes.
    moves   (axis, loop over windows or "", axis of places, step): axis = step * window + place. "m" and "n" number windows.
    kept    the memory, of `elements` for each thread; access: where in it an element is stored, counted from the tile's
            place (m, n) = (0, 0).
    """

    taps: tuple[tuple[str, int], ...]
    moves: tuple[tuple[str, str, str, int], ...]
    kept: str
    access: Access
    elements: int
    before: tuple[Statement, ...]
    phases: tuple[Phase, ...]

    @property
    def axes(self) -> list[str]:
        """The names of the axes that only it has."""
        return [*(t for t, _ in self.taps), *(a for a, *_ in self.moves)]


@dataclass(frozen=True)
class WindowKernel:
    """C[loops, m, n] = sum over `sums` of A[loops, m, sums] B[loops, n, sums], then `epilogue` on each element, named "acc".

    A convolution. Nothing is packed: operands are read where they are, and only where they are. Lanes run along n, or with
    `dot` along the last of `sums`: then a tile has `vectors` elements of n, each the sum of a vector's lanes. Sums run over
    each axis in order, in blocks.

    across  with `dot`, for each vector of the last of `sums` all others are walked, instead of the other way around.
    paired  A varies along n, too, one element after the other, as in a convolution of each channel by itself.
    full    n is a multiple of the tile; whole: m is.
    short   there are few terms: sums need no blocks.
    edge    number of the one span that varies along m, so that rows whose terms do not all exist are computed one at a time;
            -1 if none does.
    chunk   with it, a group of tiles goes over so many steps of the first of `sums` before it takes the next ones, so that what
            tiles share stays in a near cache; the sums of a thread's group are kept in `totals`.
    """

    name: str = field(compare=False)
    buffers: tuple[str, ...]
    sizes: tuple[str, ...]
    dtype: str
    loops: tuple[tuple[str, Int], ...]
    m: Int
    n: Int
    sums: tuple[Sum, ...]
    a: Access
    a_free: Int
    b: Access
    b_free: Int
    rows: int
    vectors: int
    dot: bool
    full: bool
    epilogue: tuple[Statement, ...]
    item_bytes: int
    edge: int = -1
    chunk: Int = 0
    totals: str = ""
    paired: bool = False
    across: bool = False
    whole: bool = False
    short: bool = False
    pool: Pool | None = None
    may_fail: bool = False


Kernel = LoopKernel | ContractKernel | RecurrenceKernel | RoutineKernel | WindowKernel


def uses(statement: Statement) -> tuple[str, ...]:
    """The names of values that a statement takes."""
    if isinstance(statement, Compute | Check):
        return statement.uses
    if isinstance(statement, Store):
        return (statement.value, statement.index) if statement.index else (statement.value,)
    return tuple(n for n in (statement.index, statement.where) if n) if isinstance(statement, Load) else ()


def statements(kernel: Kernel) -> Iterator[Statement]:
    """All statements of a kernel."""
    if isinstance(kernel, ContractKernel):
        for operand in (kernel.a, kernel.b):
            if operand.packing:
                yield from operand.packing.prologue
        yield from kernel.epilogue
    elif isinstance(kernel, WindowKernel):
        yield from kernel.epilogue
        yield from pool_statements(kernel)
    elif isinstance(kernel, RecurrenceKernel):
        for part in (kernel.before, kernel.again, kernel.test, kernel.body, kernel.after):
            yield from part
    elif isinstance(kernel, LoopKernel):
        yield from kernel.before
        for phase in kernel.phases:
            yield from phase.body
            yield from phase.after


def pool_statements(kernel: WindowKernel) -> Iterator[Statement]:
    """The statements of a pooling."""
    if kernel.pool is not None:
        yield from kernel.pool.before
        for phase in kernel.pool.phases:
            yield from phase.body
            yield from phase.after
