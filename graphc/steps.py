"""`Session.run_steps`: many runs at once, on batches of arrays or on feeds from an iterator."""
from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from graphc.errors import ArgumentError, FeedError, GraphcError, report, with_line
from graphc.feeds import check_shape, in_order, to_array
from graphc.fetches import Run
from graphc.functions.random import graph_seed
from graphc.ir.node import Node
from graphc.runtime.memory import stacked

if TYPE_CHECKING:
    from graphc.session import Session

LOOK_SECONDS = 0.05     # between calls of the user's `progress`
ORDER_ROWS = 1 << 16    # short epochs are shuffled several at a time, up to so many rows


class Span(NamedTuple):
    """Steps in a row that have the same number of rows: step k has the `batch` rows from `row + k * batch` on, of `order` if
    there is one; behind `rows` it goes on at row 0.
    """

    steps: int
    batch: int
    row: int
    rows: int
    order: np.ndarray | None

    def rows_of(self, step: int) -> slice | np.ndarray:
        """Which rows of the arrays a step works on."""
        start = (self.row + step * self.batch) % self.rows
        part = slice(start, start + self.batch)
        return part if self.order is None else self.order[part]


class Batches:
    """The feeds of each step: rows of arrays, epoch after epoch, and what is the same in all steps.

    arrays   one for each feed of the program; `cut` says which are cut into batches.
    steps    how many; None: one epoch.
    """

    def __init__(self, nodes: Sequence[Node], values: Sequence, cut: Sequence[bool], size: int | None, steps: int | None,
                 drop_remainder: bool, generator: Callable[[], np.random.Generator] | None):
        self.cut, self.generator = cut, generator
        arrays = [to_array(n, v) for n, v in zip(nodes, values, strict=True)]
        whole = [(n, a) for n, a, moves in zip(nodes, arrays, cut, strict=True) if moves]
        for _, array in whole:
            if not array.ndim or len(array) != len(whole[0][1]):
                raise report(FeedError, "run_steps: the arrays need a first axis of rows, the same number in each",
                             [("feed", f"{n.label} of shape {a.shape}") for n, a in whole])
        self.rows = len(whole[0][1]) if whole else 1
        if size is not None and drop_remainder and size > self.rows:
            raise report(ArgumentError, f"run_steps: no batch of {size} can be made of {self.rows} rows",
                         rule="drop_remainder leaves the rest out")
        self.size = max(1, self.rows) if size is None else max(1, min(size, self.rows))
        self.full, self.rest = divmod(self.rows, self.size)
        self.rest *= not drop_remainder
        epoch = self.full + bool(self.rest)
        self.steps = epoch if steps is None else steps
        if self.steps and not epoch:
            raise report(ArgumentError, f"run_steps: {self.steps} steps on arrays of no rows")
        for node, array, moves in zip(nodes, arrays, cut, strict=True):
            check_shape(node, (self.size, *array.shape[1:]) if moves else array.shape)
            if moves and self.rest and self.steps > self.full and isinstance(node.type.shape[0], int):
                raise report(FeedError, f"run_steps: the last batch of {self.rest} rows does not fit {node.label!r}",
                             [("tensor", node.describe())], f"{self.rest} != {node.type.shape[0]}",
                             "drop_remainder=True leaves it out")
        self.arrays = [in_order(n, a) for n, a in zip(nodes, arrays, strict=True)]

    def feeds(self, span: Span, step: int) -> list[np.ndarray]:
        """The arrays that a step of a span works on."""
        rows = span.rows_of(step)
        return [a[rows] if moves else a for a, moves in zip(self.arrays, self.cut, strict=True)]

    def spans(self) -> Iterator[Span]:
        """All steps, in order."""
        left = self.steps
        if self.generator is None and not self.rest:
            if left:
                yield Span(left, self.size, 0, self.full * self.size, None)
            return
        generator = self.generator() if self.generator else None
        while left:
            order, rows = None, self.full * self.size
            if generator is not None:
                epochs = 1 if self.rest else max(1, min(-(-left // self.full), ORDER_ROWS // self.rows))
                order = np.concatenate([generator.permutation(self.rows)[:rows + self.rest] for _ in range(epochs)])
                rows *= epochs
            steps = min(left, rows // self.size)
            yield Span(steps, self.size, 0, rows, order)
            left -= steps
            if self.rest and left:
                yield Span(1, self.rest, rows, rows + self.rest, order)
                left -= 1

    def describe(self, number: int) -> str:
        """Which rows a step works on, for an error's text."""
        for span in self.spans():
            if number < span.steps:
                rows = span.rows_of(number)
                if isinstance(rows, slice):
                    return f"rows {rows.start} to {rows.stop - 1} of the data" if any(self.cut) else ""
                return f"rows {', '.join(map(str, rows[:8]))}{', ...' * (len(rows) > 8)} of the data"
            number -= span.steps
        return ""


class Column:
    """What the steps fetch of one tensor: an array [steps, ...] where its shape is known, else a list of arrays.

    steps   how many there will be; None: nobody knows.
    """

    def __init__(self, node: Node, steps: int | None):
        shape = node.type.shape
        self.dtype, self.is_list = node.type.dtype.numpy, not all(isinstance(d, int) for d in shape)
        self.items: list[np.ndarray] = []
        self.array = None if self.is_list else stacked(1 if steps is None else steps, tuple(shape), self.dtype)
        self.taken = 0

    def take(self, count: int, shape: tuple[int, ...]) -> np.ndarray:
        """Room for the values of the next steps, [count, *shape]."""
        start = self.taken
        self.taken += count
        if self.array is None:
            room = stacked(count, shape, self.dtype)
            self.items.extend(room)
            return room
        if self.taken > len(self.array):  # only where nobody knows how many there will be
            old, self.array = self.array, stacked(2 * self.taken, shape, self.dtype)
            self.array[:start] = old[:start]
        return self.array[start:self.taken]

    def values(self, done: int) -> np.ndarray | list[np.ndarray]:
        """Of the steps done."""
        return self.items[:done] if self.array is None else self.array[:done]


class Results:
    """What the steps fetch, how many are done, and the user's `progress`, called now and then."""

    def __init__(self, run: Run, steps: int | None, progress: Callable[[int, Any], object] | None):
        self.rebuild, self.progress, self.done = run.rebuild, progress, 0
        self.columns = [Column(n, steps) for n in run.fetches if n.type != ()]
        self.told, self.looked = 0, time.perf_counter()

    def room(self, count: int, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        """Memory for the values of the next steps."""
        return [c.take(count, s) for c, s in zip(self.columns, shapes, strict=True)]

    def add(self, values: Sequence) -> None:
        """The values of one step more."""
        for column, value in zip(self.columns, values, strict=True):
            column.take(1, np.shape(value))[0] = value
        self.done += 1

    def nest(self):
        """The nest that the user asked for."""
        return self.rebuild([c.values(self.done) for c in self.columns])

    def look(self, last: bool = False) -> None:
        """Call `progress` if it is time, or if these are the last steps and it has not heard of them."""
        if self.progress is not None and (self.told < self.done if last else time.perf_counter() - self.looked > LOOK_SECONDS):
            self.told = self.done
            self.progress(self.done, self.nest())
            self.looked = time.perf_counter()


def run_many(session: Session, fetches, data: Mapping | Iterable[Mapping] | None, batch_size: int | None, steps: int | None,
             shuffle: bool, seed: int | None, drop_remainder: bool, feed_dict: Mapping | None, progress):
    """See `Session.run_steps`."""
    session.check_open()
    for name, value, least in (("batch_size", batch_size, 1), ("steps", steps, 0)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least):
            raise report(ArgumentError, f"run_steps: {name} is a whole number from {least}, not {value!r}")
    fixed = {} if feed_dict is None else feed_dict
    data = {} if data is None else data
    if isinstance(data, Mapping) and data:
        return _on_arrays(session, fetches, data, fixed, batch_size, steps, shuffle, seed, drop_remainder, progress)
    if batch_size is not None or shuffle or drop_remainder or seed is not None:
        raise report(ArgumentError, "run_steps: batch_size, shuffle, seed and drop_remainder are for arrays, "
                                    "given as a dict from tensors to arrays")
    if isinstance(data, Mapping):
        if steps is None:
            raise report(ArgumentError, "run_steps: without arrays it must be told how many steps to do")
        return _on_arrays(session, fetches, data, fixed, None, steps, False, None, False, progress)
    return _on_feeds(session, fetches, data, fixed, steps, progress)


def _both(data: Mapping, fixed: Mapping) -> dict:
    feeds = {**data, **fixed}
    if len(feeds) != len(data) + len(fixed):
        twice = next(k for k in data if k in fixed)
        raise report(FeedError, f"run_steps: {getattr(twice, 'name', twice)!r} is fed twice",
                     rule="by the data and by feed_dict")
    return feeds


def _on_arrays(session: Session, fetches, data, fixed, batch_size, steps, shuffle, seed, drop_remainder, progress):
    feeds = _both(data, fixed)
    run = session.prepared(fetches, feeds)

    def generator():
        return np.random.default_rng((graph_seed(session.graph), number) if seed is None else seed)
    number = int(session.store.counter[0])
    places = (lambda values: values) if run.reorder is None else run.reorder
    cut = places((True,) * len(data) + (False,) * len(fixed))
    batches = Batches(run.program_feeds, places(tuple(feeds.values())), cut, batch_size, steps, drop_remainder,
                      generator if shuffle and data else None)
    results = Results(run, batches.steps, progress)
    if batches.steps:
        first = batches.feeds(next(batches.spans()), 0)
        program = run.program = run.program or session.compiled(run.fetches, run.program_feeds, first)
        try:
            program.run_steps(batches, results)
        except GraphcError as e:
            raise _at_step(e, results.done, batches.steps, batches.describe(results.done)) from None
    results.look(last=True)
    return results.nest()


def _on_feeds(session: Session, fetches, data: Iterable[Mapping], fixed, steps, progress):
    results = None
    iterator = iter(data)
    while steps is None or results is None or results.done < steps:
        fed = next(iterator, None)
        if fed is None:
            break
        feeds = _both(fed, fixed)
        run = session.prepared(fetches, feeds)
        results = results or Results(run, steps, progress)
        values = tuple(feeds.values()) if run.reorder is None else run.reorder(tuple(feeds.values()))
        try:
            session.check_open()
            found = run.program.run_fast(values) if run.program is not None else None
            results.add(run.run_slowly(values) if found is None else found)
        except GraphcError as e:
            raise _at_step(e, results.done, steps, "") from None
        results.look()
    if results is None:
        results = Results(session.prepared(fetches, fixed), 0, progress)
    results.look(last=True)
    return results.nest()


def _at_step(error: GraphcError, done: int, steps: int | None, rows: str) -> GraphcError:
    """The error with a line that says which step met it."""
    of = f" of {steps}" if steps is not None else ""
    kept = f"; the {done} before it {'is' if done == 1 else 'are'} done" if done else ""
    return with_line(error, f"in step {done + 1}{of}{', ' * bool(rows)}{rows}{kept}")
