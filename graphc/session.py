"""`Session`: compiles what is fetched, keeps the variables, runs programs as transactions."""
from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Sequence

import numpy as np

from graphc.compiler import Compiled, compile_graph
from graphc.errors import FeedError, FetchError, GraphError, SessionError, StateError, report
from graphc.feeds import feed_array
from graphc.ir.container import Graph, get_default_graph
from graphc.ir.node import OPERATORS, Node
from graphc.ir.op import Kind
from graphc.runtime.memory import aligned
from graphc.variable import Variable

_sessions = threading.local()


def _stack() -> list[Session]:
    if not hasattr(_sessions, "stack"):
        _sessions.stack = []
    return _sessions.stack


def get_default_session() -> Session | None:
    """The session that `eval` and `run` use, or None."""
    return _stack()[-1] if _stack() else None


class Store:
    """The variables' values in one session: arrays at fixed addresses."""

    def __init__(self):
        self.arrays: dict[Node, np.ndarray] = {}
        self.initialised: set[Node] = set()

    def array(self, handle: Node) -> np.ndarray:
        """The memory of a variable, made when first asked for; its content counts only once it is initialised."""
        if handle not in self.arrays:
            self.arrays[handle] = aligned(tuple(handle.type.shape), handle.type.dtype.numpy)[0]
        return self.arrays[handle]

    def check(self, handles: Sequence[Node]) -> None:
        """Raise StateError for a variable without a value."""
        for handle in handles:
            if handle not in self.initialised:
                raise report(StateError, f"the variable {handle.name!r} is not initialised", [("variable", handle.describe())],
                             hint="run graphc.global_variables_initializer() first")


class Session:
    """Runs parts of a graph and keeps its variables between runs.

    Use as a context manager, or call `close()`. A run is a transaction: it reads variables as they were when it started and
    commits what it writes at its end; a run that fails changes nothing. Runs of one session are done one after another;
    they may come from several Python threads.
    """

    def __init__(self, target: str = "", graph: Graph | None = None, config=None):
        self.graph = graph if graph is not None else get_default_graph()
        self.store = Store()
        self.lock = threading.RLock()
        self._runs: dict = {}
        self._compiled: dict = {}
        self._closed = False
        self._entered: list = []

    # running -----------------------------------------------------------------------------------------------------------

    def run(self, fetches, feed_dict=None, options=None, run_metadata=None):
        """The values of `fetches`: a tensor, variable, operation (gives None) or name, or a nest of tuples, lists and dicts.

        feed_dict  tensor, or its name, -> value. Any tensor can be fed.
        Raises FetchError, FeedError, ShapeError, StateError (an uninitialised variable), RunError, SessionError.
        """
        feeds = feed_dict or {}
        try:
            key = (fetches if type(fetches) in (Node, Variable, str) else (type(fetches), tuple(fetches)), tuple(feeds))
            found = self._runs.get(key)
        except TypeError:
            key = found = None
        if found is None:
            found = _Run(self, fetches, list(feeds))
            if key is not None and not isinstance(fetches, dict):
                self._runs[key] = found
        return found(feeds.values())

    def make_callable(self, fetches, feed_list=None, accept_options: bool = False) -> Callable:
        """A function of the values of `feed_list` that returns what `run` would: the fastest way to run something often."""
        return _Run(self, fetches, list(feed_list or ())).bound()

    def partial_run(self, *_, **__):
        """Not supported: a run is one transaction."""
        raise report(SessionError, "partial_run is not supported", rule="a run is one transaction: use several runs")

    # life --------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Forget the variables and programs. A closed session runs nothing."""
        self._closed = True
        self._runs.clear()
        self._compiled.clear()
        self.store = Store()

    def as_default(self):
        """Make this the default session inside a `with` block; does not close it at the end."""
        return _Default(self)

    def __enter__(self) -> Session:
        entered = _Default(self)
        graph = self.graph.as_default()
        graph.__enter__()
        entered.__enter__()
        self._entered.append((entered, graph))
        return self

    def __exit__(self, *error) -> None:
        entered, graph = self._entered.pop()
        entered.__exit__(*error)
        graph.__exit__(*error)
        self.close()

    def check_open(self) -> None:
        """Raise SessionError when the session is closed."""
        if self._closed:
            raise report(SessionError, "the session is closed")

    # programs ----------------------------------------------------------------------------------------------------------

    def compiled(self, fetches: tuple[Node, ...], feeds: tuple[Node, ...], arrays: Sequence[np.ndarray]) -> Compiled:
        """The compiled program of fetched and fed tensors."""
        key = (fetches, feeds)
        if key not in self._compiled:
            self._compiled[key] = compile_graph(self.store, fetches, feeds, arrays)
        return self._compiled[key]

    def load_variable(self, variable: Variable, value) -> None:
        """Set a variable's value, outside any run."""
        self.check_open()
        array = feed_array(variable.handle, np.asarray(value))
        with self.lock:
            self.store.array(variable.handle)[...] = array
            self.store.initialised.add(variable.handle)


class InteractiveSession(Session):
    """A session that makes itself the default one when it is made."""

    def __init__(self, target: str = "", graph: Graph | None = None, config=None):
        super().__init__(target, graph, config)
        _stack().append(self)

    def close(self) -> None:
        """Stop being the default session, and close."""
        if self in _stack():
            _stack().remove(self)
        super().close()


class _Default:
    def __init__(self, session: Session):
        self.session = session

    def __enter__(self) -> Session:
        _stack().append(self.session)
        return self.session

    def __exit__(self, *_) -> None:
        _stack().remove(self.session)


class _Run:
    """One way of running a session: the fetched nodes, how to nest their values, and the fed nodes."""

    def __init__(self, session: Session, fetches, feeds: Sequence):
        session.check_open()
        if not session.graph.nodes:
            raise report(GraphError, "the graph of the session is empty", rule="make tensors before running them")
        self.session = session
        self.flat: list[Node] = []
        self.nest = self.structure(fetches, "fetches")
        self.feeds = tuple(self.feed_node(f) for f in feeds)
        if len(set(self.feeds)) != len(self.feeds):
            raise report(FeedError, "a tensor is fed twice")
        tensors = dict.fromkeys(n for n in self.flat if n.type != ())
        self.position = {n: k for k, n in enumerate(tensors)}
        operations = dict.fromkeys(n for n in self.flat if n.type == ())
        self.fetches = (*tensors, *operations)
        self.dtypes = [n.type.dtype.numpy for n in self.feeds]
        self.program: Compiled | None = None
        self.rebuild = self.compile_nest()

    # structure ---------------------------------------------------------------------------------------------------------

    def structure(self, value, position: str):
        """The nest of `value` with each leaf replaced by its place in `flat`."""
        if isinstance(value, (list, tuple)):
            items = [self.structure(v, f"{position}[{k}]") for k, v in enumerate(value)]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        if isinstance(value, dict):
            return {k: self.structure(v, f"{position}[{k!r}]") for k, v in value.items()}
        self.flat.append(self.fetch_node(value, position))
        return _Leaf(len(self.flat) - 1)

    def fetch_node(self, value, position: str) -> Node:
        graph = self.session.graph
        if isinstance(value, str):
            value = self.named(value, FetchError, "fetch")
        if isinstance(value, Variable):
            value = value.snapshot
        if hasattr(value, "as_tensor"):
            value = value.as_tensor()
        if not isinstance(value, Node):
            raise report(FetchError, f"{position}: {value!r:.60} is not a tensor, variable, operation or name",
                         rule="None cannot be fetched" if value is None else "")
        if value.graph is not graph:
            raise report(FetchError, f"{position}: {value.label!r} is not an element of the session's graph",
                         [("fetch", value.describe())])
        if value.op.kind is Kind.INPUT and value.attrs["role"] == "variable":
            return value.attrs["variable"].snapshot
        if isinstance(value.type, tuple) and value.type:
            raise report(FetchError, f"{position}: {value.label!r} has several results; fetch them one by one")
        return value

    def feed_node(self, value) -> Node:
        key = value
        if isinstance(value, str):
            value = self.named(value, FeedError, "feed")
        if isinstance(value, Variable):
            value = value.snapshot
        if not isinstance(value, Node):
            raise report(FeedError, f"the feed key {key!r:.60} is not a tensor or a name")
        if value.graph is not self.session.graph:
            raise report(FeedError, f"the feed key {value.label!r} is not an element of the session's graph",
                         [("key", value.describe())])
        if isinstance(value.type, tuple):
            raise report(FeedError, f"the feed key {value.label!r} is an operation, not a tensor")
        return value

    def named(self, name: str, error, what: str) -> Node:
        graph = self.session.graph
        try:
            return graph.get_tensor_by_name(name)
        except GraphError:
            near = difflib.get_close_matches(name.removesuffix(":0"), [n.name for n in graph.nodes], n=3)
            raise report(error, f"the {what} {name!r} is not in the session's graph",
                         rule=f"nearest names: {', '.join(near)}" if near else "") from None

    def compile_nest(self) -> Callable[[list], object]:
        """A function from the list of values of the fetched tensors to the nest that the user asked for."""
        places = [self.position.get(n) for n in self.flat]
        if isinstance(self.nest, _Leaf):
            return (lambda values: values[0]) if places[0] is not None else (lambda values: None)
        if type(self.nest) in (list, tuple) and all(isinstance(i, _Leaf) for i in self.nest):
            kind = type(self.nest)
            if kind is list and places == list(range(len(places))):
                return lambda values: values
            return lambda values: kind([None if p is None else values[p] for p in places])

        def fill(nest, values):
            if isinstance(nest, _Leaf):
                place = places[nest.index]
                return None if place is None else values[place]
            if isinstance(nest, dict):
                return {k: fill(v, values) for k, v in nest.items()}
            items = [fill(v, values) for v in nest]
            return type(nest)(*items) if hasattr(nest, "_fields") else type(nest)(items)
        return lambda values: fill(self.nest, values)

    # running -----------------------------------------------------------------------------------------------------------

    def __call__(self, values):
        session = self.session
        arrays = [v if type(v) is np.ndarray and v.dtype is d and v.flags.c_contiguous else feed_array(n, v)
                  for n, v, d in zip(self.feeds, values, self.dtypes, strict=True)]
        with session.lock:
            session.check_open()
            if self.program is None:
                self.program = session.compiled(self.fetches, self.feeds, arrays)
            return self.rebuild(self.program.run(arrays))

    def bound(self) -> Callable:
        """The function that `make_callable` returns."""
        session, lock, count = self.session, self.session.lock, len(self.feeds)
        rebuild = self.rebuild

        def call(*values):
            program = self.program
            if program is not None and not session._closed:
                with lock:
                    found = program.run_fast(values)
                if found is not None:
                    return rebuild(found)
            if len(values) != count:
                raise report(FeedError, f"the callable takes {count} values, not {len(values)}",
                             [("feed", n.describe()) for n in self.feeds])
            return self(values)
        return call


class _Leaf:
    """A place in a nest."""

    __slots__ = ("index",)

    def __init__(self, index: int):
        self.index = index


def _evaluate(node, feed_dict, session):
    session = session or get_default_session()
    if session is None:
        raise report(SessionError, f"{node.label!r} cannot be evaluated: there is no default session",
                     hint="use `with graphc.Session() as session:`, or pass session=")
    return session.run(node, feed_dict)


def _load(variable, value, session):
    session = session or get_default_session()
    if session is None:
        raise report(SessionError, f"{variable.name!r} cannot be set: there is no default session")
    session.load_variable(variable, value)


OPERATORS["eval"] = _evaluate
OPERATORS["load"] = _load
