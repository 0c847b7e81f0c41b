"""One way of running a session: which tensors are fetched and fed, and how the fetched values are nested."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING

from graphc.errors import FeedError, FetchError, GraphError, report
from graphc.feeds import feed_array
from graphc.ir.node import Node
from graphc.ir.op import Kind
from graphc.slices import IndexedSlices
from graphc.variable import Variable

if TYPE_CHECKING:
    from graphc.compiler import Compiled
    from graphc.session import Session

LEAVES = (Node, Variable, IndexedSlices, str)


class Leaf:
    """A place in a nest."""

    __slots__ = ("index",)

    def __init__(self, index: int):
        self.index = index


def nest_key(value):
    """A hashable that is equal for equal nests only: a tuple and a named tuple of the same tensors differ."""
    if isinstance(value, (list, tuple)):
        return (type(value), *map(nest_key, value))
    if isinstance(value, dict):
        return (type(value), *((k, nest_key(v)) for k, v in value.items()))
    return value


class Run:
    """What `Session.run` does for one set of fetches and feeds: prepared once, called with the values of the feeds."""

    def __init__(self, session: Session, fetches, feeds: Sequence, any_order: bool = False):
        """any_order: the feeds come in no order that means anything, so that {x: 1, y: 2} and {y: 2, x: 1} share a program."""
        session.check_open()
        if not session.graph.nodes:
            raise report(GraphError, "the graph of the session is empty", rule="make tensors before running them")
        self.session = session
        self.flat: list[Node] = []
        self.nest = self.structure(fetches, "fetches")
        self.feeds = tuple(self.feed_node(f) for f in feeds)
        if len(set(self.feeds)) != len(self.feeds):
            twice = next(f for f in self.feeds if self.feeds.count(f) > 1)
            raise report(FeedError, f"the tensor {twice.label!r} is fed twice", [("tensor", twice.describe())])
        order = sorted(range(len(self.feeds)), key=lambda k: self.feeds[k].serial) if any_order else []
        self.reorder = itemgetter(*order) if len(order) > 1 and order != sorted(order) else None
        self.program_feeds = self.reorder(self.feeds) if self.reorder else self.feeds
        tensors = dict.fromkeys(n for n in self.flat if n.type != ())
        self.position = {n: k for k, n in enumerate(tensors)}
        operations = dict.fromkeys(n for n in self.flat if n.type == ())
        self.fetches = (*tensors, *operations)
        self.program: Compiled | None = None
        self.rebuild = self.nest_builder()

    # fetches -----------------------------------------------------------------------------------------------------------

    def structure(self, value, position: str):
        """The nest of `value` with each leaf replaced by its place in `flat`."""
        if isinstance(value, (list, tuple)):
            items = [self.structure(v, f"{position}[{k}]") for k, v in enumerate(value)]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        if isinstance(value, dict):
            return {k: self.structure(v, f"{position}[{k!r}]") for k, v in value.items()}
        self.flat.append(self.fetch_node(value, position))
        return Leaf(len(self.flat) - 1)

    def fetch_node(self, value, position: str) -> Node:
        """The tensor or operation that a fetch means."""
        given = value
        if isinstance(value, str):
            value = self.named(value, FetchError, f"{position}: the fetch")
        if isinstance(value, Variable):
            value = value.snapshot
        if isinstance(value, IndexedSlices):
            value = value.fetched()
        if not isinstance(value, Node):
            raise report(FetchError, f"{position}: {given!r:.60} is not a tensor, variable, operation or name",
                         rule="None cannot be fetched" if value is None else "")
        if value.graph is not self.session.graph:
            raise report(FetchError, f"{position}: {value.label!r} is not an element of the session's graph",
                         [("fetch", value.describe())], "it belongs to another graphc.Graph than the session",
                         "pass graph= to graphc.Session")
        if value.op.kind is Kind.INPUT and value.attrs["role"] == "variable":
            return value.attrs["variable"].snapshot
        if isinstance(value.type, tuple) and value.type:
            raise report(FetchError, f"{position}: {value.label!r} has several results; fetch them one by one")
        return value

    def named(self, name: str, error, what: str) -> Node:
        """The node called `name`."""
        graph = self.session.graph
        try:
            return graph.get_tensor_by_name(name)
        except GraphError:
            import difflib
            near = difflib.get_close_matches(name.removesuffix(":0"), [n.name for n in graph.nodes], n=3)
            raise report(error, f"{what} {name!r} is not in the session's graph",
                         rule=f"nearest names: {', '.join(near)}" if near else "") from None

    def nest_builder(self) -> Callable[[list], object]:
        """A function from the values of the fetched tensors to the nest that the user asked for. A tensor that is fetched
        twice gives two arrays.
        """
        places = [self.position.get(n) for n in self.flat]
        again = {k for k, p in enumerate(places) if p is not None and p in places[:k]}

        def pick(k, values):
            place = places[k]
            if place is None:
                return None
            return values[place].copy() if k in again else values[place]
        if isinstance(self.nest, Leaf):
            return itemgetter(0) if places[0] is not None else lambda values: None
        if type(self.nest) in (list, tuple) and all(isinstance(i, Leaf) for i in self.nest):
            kind, count = type(self.nest), range(len(places))
            if places == list(count):
                return kind if kind is tuple else lambda values: values
            return lambda values: kind([pick(k, values) for k in count])

        def fill(nest, values):
            if isinstance(nest, Leaf):
                return pick(nest.index, values)
            if isinstance(nest, dict):
                return {k: fill(v, values) for k, v in nest.items()}
            items = [fill(v, values) for v in nest]
            return type(nest)(*items) if hasattr(nest, "_fields") else type(nest)(items)
        return lambda values: fill(self.nest, values)

    # feeds -------------------------------------------------------------------------------------------------------------

    def feed_node(self, key) -> Node:
        """The tensor that a feed's key means; of a variable its handle: all reads see the fed value."""
        value = key
        if isinstance(value, str):
            value = self.named(value, FeedError, "the feed key")
        if isinstance(value, Variable):
            value = value.handle
        if not isinstance(value, Node):
            raise report(FeedError, f"the feed key {key!r:.60} is not a tensor or a name")
        if value.graph is not self.session.graph:
            raise report(FeedError, f"the feed key {value.label!r} is not an element of the session's graph",
                         [("key", value.describe())], "it belongs to another graphc.Graph than the session")
        if isinstance(value.type, tuple):
            raise report(FeedError, f"the feed key {value.label!r} is an operation, not a tensor", [("key", value.describe())])
        return value

    # running -----------------------------------------------------------------------------------------------------------

    def __call__(self, values):
        """Run on values in the order of the feeds; the nest of fetched values."""
        session, program = self.session, self.program
        values = values if self.reorder is None else self.reorder(tuple(values))
        if program is not None and not session.closed:
            found = program.run_fast(values)
            if found is not None:
                return self.rebuild(found)
            values = tuple(values)
        return self.rebuild(self.run_slowly(values))

    def run_slowly(self, values) -> list:
        """The fetched values; feeds are checked and converted, and the program is made if there is none."""
        arrays = [feed_array(n, v) for n, v in zip(self.program_feeds, values, strict=True)]
        session = self.session
        session.check_open()
        program = self.program or session.compiled(self.fetches, self.program_feeds, arrays)
        found = program.run(arrays)
        self.program = program
        return found

    def bound(self) -> Callable:
        """The function that `make_callable` returns."""
        session, count, rebuild = self.session, len(self.feeds), self.rebuild

        def call(*values):
            program = self.program
            if program is not None and not session.closed:
                found = program.run_fast(values)
                if found is not None:
                    return rebuild(found)
            if len(values) != count:
                raise report(FeedError, f"the callable takes {count} values, not {len(values)}",
                             [("feed", n.describe()) for n in self.feeds])
            return rebuild(self.run_slowly(values))
        return call
