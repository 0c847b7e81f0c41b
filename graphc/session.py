"""`Session`: compiles what is fetched, keeps the variables, runs programs as transactions.

What compiles and runs is imported with the first session: importing graphc is to be quick.
"""
from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphc.config import memory_size, options
from graphc.errors import FeedError, SessionError, StateError, report
from graphc.feeds import feed_array, spread
from graphc.fetches import LEAVES, Run, nest_key
from graphc.ir.container import Graph, get_default_graph
from graphc.ir.node import OPERATORS, Node
from graphc.variable import Variable

if TYPE_CHECKING:
    from graphc.compiler import Compiled
    from graphc.memory import Memory

_defaults = threading.local()


def _stack() -> list[Session]:
    if not hasattr(_defaults, "stack"):
        _defaults.stack = []
    return _defaults.stack


def get_default_session() -> Session | None:
    """The session that `eval` and `run` use, or None."""
    return _stack()[-1] if _stack() else None


class Store:
    """The variables' values in one session: arrays at fixed addresses. `counter` is the number of the next run, which random
    ops count; `access` says who may touch the values; `budget`: bytes that a run may take.
    """

    def __init__(self, budget: int | None):
        from graphc.runtime.access import Access
        self.budget = budget
        self.arrays: dict[Node, np.ndarray] = {}
        self.initialised: set[Node] = set()
        self.counter = np.zeros(1, np.int64)
        self.access = Access()

    def array(self, handle: Node) -> np.ndarray:
        """The memory of a variable, made when first asked for; its content counts only once it is initialised."""
        if handle not in self.arrays:
            from graphc.runtime.memory import aligned
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
    commits what it writes at its end; a run that fails changes nothing. Runs may come from several Python threads: those
    that only read overlap, one that writes waits for the others and they for it. Each run of a session, whatever it
    fetches, has its own number, which random ops count: two sessions that do the same runs get the same numbers from
    seeded ops.
    """

    def __init__(self, target: str = "", graph: Graph | None = None, config=None, memory_budget: int | str | None = None):
        """memory_budget: bytes that a program may take, or a text such as "512M"; by default what GRAPHC_MEMORY_BUDGET says.
        A run that would take more raises BudgetError before anything is computed. Raises ValueError for another text.
        """
        if graph is not None and not isinstance(graph, Graph):
            raise report(SessionError, f"Session: graph={graph!r:.60} is not a graphc.Graph")
        self.graph = graph if graph is not None else get_default_graph()
        self.store = Store(options.memory_budget if memory_budget is None else memory_size(memory_budget, "memory_budget"))
        self.closed = False
        self._runs: dict = {}
        self._compiled: dict = {}
        self._entered: list = []
        _sessions.add(self)

    # running -----------------------------------------------------------------------------------------------------------

    def run(self, fetches, feed_dict=None, options=None, run_metadata=None):
        """The values of `fetches`: a tensor, variable, operation (gives None) or name, or a nest of tuples, lists and dicts.

        feed_dict  tensor, or its name, -> value. Any tensor can be fed; feeding a variable feeds all its reads.
        The arrays that it returns are the caller's own: no later run changes them.
        Raises FetchError, FeedError, ShapeError, StateError (an uninitialised variable), RunError, BudgetError, SessionError.
        """
        feeds = {} if feed_dict is None else feed_dict
        kind = type(fetches)
        try:
            found = self._runs.get((fetches if kind in LEAVES else (kind, *fetches), *feeds))
        except TypeError:
            found = None
        if found is None:
            feeds = spread(feeds)
            found = self.prepared(fetches, feeds)
        return found(feeds.values())

    def prepared(self, fetches, feeds) -> Run:
        """The Run for these fetches and feeds, kept for the next time. Nests of leaves alone have the short key of `run`."""
        if not isinstance(feeds, Mapping):
            raise report(FeedError, f"feed_dict is a dict from tensors to values, not {feeds!r:.60}")
        kind = type(fetches)
        if kind in LEAVES:
            key: tuple = (fetches, *feeds)
        elif isinstance(fetches, (list, tuple)) and all(type(f) in LEAVES for f in fetches):
            key = ((kind, *fetches), *feeds)
        else:
            key = (nest_key(fetches), None, *feeds)
        try:
            found = self._runs.get(key)
        except TypeError:  # something that cannot be fetched: `Run` says so
            found = None
        if found is None:
            found = Run(self, fetches, list(feeds), any_order=True)
            self._runs[key] = found
        return found

    def make_callable(self, fetches, feed_list=None, accept_options: bool = False) -> Callable:
        """A function of the values of `feed_list` that returns what `run` would: the fastest way to run something often."""
        return Run(self, fetches, list(feed_list or ())).bound()

    def run_steps(self, fetches, data=None, batch_size: int | None = None, steps: int | None = None, shuffle: bool = False, *,
                  seed: int | None = None, drop_remainder: bool = False, feed_dict=None, progress=None):
        """Many runs on batches of arrays, as `run` would do them one by one, without Python in between.

        data            tensor, or its name, -> array of rows; the same number of rows in each. Or an iterable of such dicts,
                        one for each step, for batches that Python makes; or None: nothing is cut into batches.
        batch_size      rows of a step; None: all. The last batch of an epoch has the rows that are left, or is left out with
                        `drop_remainder`. Arrays of the right dtype in C order are used in place; others are converted first.
        steps           how many; None: one epoch. After an epoch comes the next.
        shuffle         take the rows in a random order, another one in each epoch: those of `data.batches` with the same
                        `seed`; without one, by the graph's seed and the number of the run.
        feed_dict       what is fed in the same way in all steps.
        progress        is called as progress(done, values) some times a second and at the end: how many steps are done, and
                        what they fetched. An error that it raises ends the steps.

        Gives the nest of `fetches` with the values of all steps: an array [steps, ...] for each tensor whose shape is known,
        as a scalar's is, and a list of arrays for others; None for operations. Each step is a transaction: what the steps
        before an error or Ctrl-C wrote is kept; the error says which step it was. A graph with host ops, and an iterable,
        are run step by step, with the same results.
        """
        from graphc.steps import run_many
        return run_many(self, fetches, data, batch_size, steps, shuffle, seed, drop_remainder, feed_dict, progress)

    def memory(self, fetches, feed_list=()) -> Memory:
        """What a run of `fetches`, fed with `feed_list`, takes: compiles it and runs nothing.

        The result prints as a table; `.peak` is an expression of the named dims, `.bytes(N=32)` its value, `.at_peak(N=32)` the
        tensors that make it, with their lines.
        """
        found = Run(self, fetches, list(feed_list), any_order=True)
        return self.compiled(found.fetches, found.program_feeds, None).memory

    def partial_run(self, *_, **__):
        """Not supported: a run is one transaction."""
        raise report(SessionError, "partial_run is not supported", rule="a run is one transaction: use several runs")

    # life --------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Forget the variables and programs. A closed session runs nothing; a run in another thread comes to its end."""
        self.closed = True
        self._runs.clear()
        self._compiled.clear()
        self.store = Store(self.store.budget)

    def as_default(self):
        """Make this the default session inside a `with` block; does not close it at the end."""
        return _Default(self)

    def __enter__(self) -> Session:
        entered = _Default(self), self.graph.as_default()
        for context in entered:
            context.__enter__()
        self._entered.append(entered)
        return self

    def __exit__(self, *error) -> None:
        for context in reversed(self._entered.pop()):
            context.__exit__(*error)
        self.close()

    def check_open(self) -> None:
        """Raise SessionError when the session is closed."""
        if self.closed:
            raise report(SessionError, "the session is closed")

    # programs ----------------------------------------------------------------------------------------------------------

    def compiled(self, fetches: tuple[Node, ...], feeds: tuple[Node, ...], arrays: Sequence[np.ndarray] | None) -> Compiled:
        """The compiled program of fetched and fed tensors."""
        from graphc.compiler import compile_graph
        key = (fetches, feeds)
        store = self.store
        with store.access.preparing:
            self.check_open()
            found = self._compiled.get(key)
            if found is None:
                found = self._compiled[key] = compile_graph(store, fetches, feeds, arrays)
        return found

    def load_variable(self, variable: Variable, value) -> None:
        """Set a variable's value, outside any run."""
        if variable.graph is not self.graph:
            raise report(StateError, f"the variable {variable.name!r} is not an element of the session's graph",
                         [("variable", variable.handle.describe())])
        array = feed_array(variable.handle, value)
        store = self.store

        def load() -> None:
            self.check_open()
            store.array(variable.handle)[...] = array
            store.initialised.add(variable.handle)
        store.access.write(load)


class InteractiveSession(Session):
    """A session that makes itself the default one when it is made, and its graph, if it is given one, the default graph."""

    def __init__(self, target: str = "", graph: Graph | None = None, config=None, memory_budget: int | str | None = None):
        super().__init__(target, graph, config, memory_budget)
        self._graph_context = None if graph is None else graph.as_default()
        if self._graph_context is not None:
            self._graph_context.__enter__()
        _stack().append(self)

    def close(self) -> None:
        """Stop being the default session, and close."""
        _leave(self)
        if self._graph_context is not None:
            self._graph_context.__exit__(None, None, None)
            self._graph_context = None
        super().close()


class _Default:
    def __init__(self, session: Session):
        self.session = session

    def __enter__(self) -> Session:
        _stack().append(self.session)
        return self.session

    def __exit__(self, *_) -> None:
        _leave(self.session)


def _leave(session: Session) -> None:
    """Take the last entry of a session off the stack of default sessions."""
    stack = _stack()
    for k in range(len(stack) - 1, -1, -1):
        if stack[k] is session:
            del stack[k]
            return


def set_num_threads(count: int | None) -> None:
    """Threads that a run may use from now on, the caller's included; None: as many as the machine lends to this process.

    Results do not depend on it. Raises ValueError for anything but a whole number from 1, or None.
    """
    from graphc.runtime import threads
    threads.set_num_threads(count)


def num_threads() -> int:
    """Threads that a run may use."""
    from graphc.runtime import threads
    return threads.num_threads()


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _after_fork() -> None:
    """In the child no other thread exists: what one of them held would never be free."""
    for session in list(_sessions):
        session.store.access.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


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
