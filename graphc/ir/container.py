"""`graphc.Graph`, the user's container: names, scopes, collections, seeds, control dependencies. No pass ever sees it."""
from __future__ import annotations

import contextlib
import re
import threading
from typing import Any

from graphc.errors import ArgumentError, GraphError, Location, report
from graphc.ir import dims
from graphc.ir.dims import Dim

_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.\-/]*\Z")


class _State(threading.local):
    def __init__(self):
        self.stack: list[Graph | None] = []
        self.locations: list[Location | None] = []


_state = _State()
_default: list[Graph] = []


class Graph:
    """A graph under construction. Tensors made while it is the default belong to it."""

    def __init__(self):
        self._names: dict[str, object] = {}
        self._taken: dict[str, int] = {}
        self._scopes: list[str] = [""]
        self._control: list[tuple] = []
        self._dims = 0
        self._dim_names: set[str] = set()
        self.binders: dict[str, Any] = {}  # dim -> the host node whose result tells it
        self.nodes: list = []
        self.variables: list = []
        self.collections: dict[str, list] = {}
        self.seed: int | None = None
        self.finalized = False
        self.scope_state: dict = {}
        self.unshaped: set = set()           # placeholders that were made without a shape
        self.gradient_overrides: dict = {}   # op -> the name of the gradient that its nodes get now
        self._bodies: list[object] = []      # bodies of loops and branches that are being built, outermost first
        self.body_of: dict = {}              # node -> the body that it was made in, for those made in one

    # names -------------------------------------------------------------------------------------------------------------

    def unique_name(self, name: str) -> str:
        """`name` in the current scope, with a number behind it when taken. Raises ArgumentError for an invalid name."""
        if not _NAME.match(name):
            raise report(ArgumentError, f"{name!r} is not a valid name",
                         rule="a name has letters, digits and _ . - / only, and starts with a letter, a digit, _ or .")
        full = self._scopes[-1] + name
        count = self._taken.get(full, 0)
        self._taken[full] = count + 1
        if not count:
            return full
        candidate = f"{full}_{count}"
        while candidate in self._taken:
            count += 1
            self._taken[full] = count + 1
            candidate = f"{full}_{count}"
        self._taken[candidate] = 1
        return candidate

    @contextlib.contextmanager
    def gradient_override_map(self, op_type_map):
        """The ops named in `op_type_map`, made inside, get the gradients registered by the names that it gives them; an empty
        map gives all ops their own again. Raises ArgumentError.
        """
        from graphc.ir.node import OPERATORS
        before = self.gradient_overrides
        found = {OPERATORS["op_of_type"](op): name for op, name in dict(op_type_map).items()}
        self.gradient_overrides = {**before, **found} if found else {}
        try:
            yield
        finally:
            self.gradient_overrides = before

    @contextlib.contextmanager
    def name_scope(self, name: str | None):
        """Names made inside start with `name/`; yields that prefix. None or "" goes back to the top."""
        if not name:
            scope = ""
        elif name.endswith("/"):
            scope = name
        else:
            scope = self.unique_name(name) + "/"
        self._scopes.append(scope)
        try:
            yield scope
        finally:
            self._scopes.pop()

    @property
    def scope(self) -> str:
        """The current name prefix: "" or "a/b/"."""
        return self._scopes[-1]

    def fresh_dim(self) -> Dim:
        """A dim name that this graph has not used: N, N1, N2, ..."""
        while True:
            name = "N" if self._dims == 0 else f"N{self._dims}"
            self._dims += 1
            if name not in self._dim_names:
                self._dim_names.add(name)
                return dims.name(name)

    def reserve_dims(self, names) -> None:
        """Tell the graph that a user wrote these dim names."""
        self._dim_names.update(names)

    # nodes -------------------------------------------------------------------------------------------------------------

    def add(self, node) -> None:
        """Register a new node under its name."""
        self.nodes.append(node)
        self._names[node.name] = node
        if self._bodies:
            self.body_of[node] = self._bodies[-1]

    @contextlib.contextmanager
    def body(self):
        """What is made inside belongs to the body of a loop or a branch; yields a key for it."""
        key = object()
        self._bodies.append(key)
        try:
            with self.control_dependencies(None):
                yield key
        finally:
            self._bodies.pop()

    @contextlib.contextmanager
    def outside_bodies(self):
        """What is made inside belongs to no body, whatever is being built: variables, and what they start from."""
        saved, self._bodies = self._bodies, []
        try:
            with self.control_dependencies(None):
                yield
        finally:
            self._bodies = saved

    @contextlib.contextmanager
    def beside(self, node):
        """What is made inside belongs to the body that `node` was made in, which may be an outer one."""
        saved, key = self._bodies, self.body_of.get(node)
        self._bodies = [] if key is None or key not in saved else saved[:saved.index(key) + 1]
        try:
            with self.control_dependencies(None):
                yield
        finally:
            self._bodies = saved

    def is_visible(self, node) -> bool:
        """Whether a node may be used here: it was made in no body, or in one that is being built."""
        key = self.body_of.get(node)
        return key is None or key in self._bodies

    def check_open(self) -> None:
        """Raise GraphError when the graph is finalized."""
        if self.finalized:
            raise report(GraphError, "this graph is finalized and takes no more operations")

    def control_inputs(self) -> tuple:
        """The nodes that everything made now must run after."""
        return tuple(dict.fromkeys(node for frame in self._control for node in frame))

    @contextlib.contextmanager
    def control_dependencies(self, nodes):
        """What is made inside runs after `nodes`. None inside clears all outer ones."""
        saved = self._control
        self._control = [] if nodes is None else [*saved, tuple(nodes)]
        try:
            yield
        finally:
            self._control = saved

    def get_tensor_by_name(self, name: str):
        """The tensor or operation called `name` ("x" or "x:0"). Raises GraphError that names the nearest ones."""
        found = self._names.get(name.removesuffix(":0"))
        if found is None:
            import difflib
            near = difflib.get_close_matches(name.removesuffix(":0"), self._names, n=3)
            raise report(GraphError, f"the graph has no tensor called {name!r}",
                         rule=f"nearest names: {', '.join(near)}" if near else f"it has {len(self._names)} tensors")
        return found

    get_operation_by_name = as_graph_element = get_tensor_by_name

    def get_operations(self) -> list:
        """All nodes in the order they were made."""
        return list(self.nodes)

    def finalize(self) -> None:
        """Refuse further operations."""
        self.finalized = True

    # collections -------------------------------------------------------------------------------------------------------

    def add_to_collection(self, name: str, value) -> None:
        """Append `value` to the collection called `name`."""
        self.collections.setdefault(name, []).append(value)

    def get_collection(self, name: str, scope: str | None = None) -> list:
        """A copy of the collection, of the items whose names start with `scope` if given."""
        items = self.collections.get(name, [])
        return [i for i in items if not scope or getattr(i, "name", "").startswith(scope)]

    # the default graph -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def as_default(self):
        """Make this the default graph inside a `with` block."""
        _state.stack.append(self)
        try:
            yield self
        finally:
            _state.stack.pop()


def get_default_graph() -> Graph:
    """The graph that new tensors go to."""
    current = current_container()
    return current if current is not None else _base()


def _base() -> Graph:
    if not _default:
        _default.append(Graph())
    return _default[0]


def current_container() -> Graph | None:
    """The default graph, or None inside `detached`."""
    return _state.stack[-1] if _state.stack else _base()


def reset_default_graph() -> None:
    """Forget the default graph and start an empty one. Not inside a `with graph.as_default()`."""
    if _state.stack:
        raise report(GraphError, "reset_default_graph() inside `with graph.as_default()`")
    _default[:] = [Graph()]


@contextlib.contextmanager
def detached(location: Location | None = None):
    """Nodes made inside belong to no container (passes work here); they take `location` as their user line."""
    _state.stack.append(None)
    _state.locations.append(location)
    try:
        yield
    finally:
        _state.stack.pop()
        _state.locations.pop()


def inherited_location() -> Location | None:
    """The user line that `detached` was given."""
    return _state.locations[-1] if _state.locations else None
