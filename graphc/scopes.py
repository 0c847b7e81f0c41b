"""Variable scopes: `get_variable` finds a variable by its name or makes it, in the scope that `variable_scope` opens."""
from __future__ import annotations

import contextlib
import functools

from graphc.control import GraphKeys
from graphc.errors import ArgumentError, DTypeError, ShapeError, report
from graphc.initializers import Zeros, glorot_uniform_initializer
from graphc.ir.container import Graph, get_default_graph
from graphc.ir.node import as_node, is_tensor
from graphc.ir.types import as_dtype, as_shape, float32, shape_text
from graphc.variable import Variable


class _AutoReuse:
    """`reuse=AUTO_REUSE`: take the variable if it exists, else make it."""

    def __repr__(self) -> str:
        return "graphc.AUTO_REUSE"


AUTO_REUSE = _AutoReuse()


class VariableScope:
    """What `variable_scope` opens: a prefix of names, and defaults for `get_variable`.

    reuse  False: names must be new; True: they must exist; AUTO_REUSE: either.
    """

    def __init__(self, name: str, reuse=False, initializer=None, regularizer=None, dtype=float32, name_scope: str = "",
                 custom_getter=None):
        self.name, self.reuse, self.initializer, self.regularizer, self.dtype = name, reuse, initializer, regularizer, dtype
        self.custom_getter = custom_getter
        self.original_name_scope = name_scope

    def reuse_variables(self) -> None:
        """From now on names must exist."""
        self.reuse = True

    def set_initializer(self, initializer) -> None:
        """The initializer of variables that name none."""
        self.initializer = initializer

    def set_regularizer(self, regularizer) -> None:
        """The regularizer of variables that name none."""
        self.regularizer = regularizer

    def global_variables(self) -> list[Variable]:
        """The variables whose names start with the scope's."""
        return get_default_graph().get_collection(GraphKeys.GLOBAL_VARIABLES, self._prefix())

    def trainable_variables(self) -> list[Variable]:
        """Those of them that optimizers update."""
        return get_default_graph().get_collection(GraphKeys.TRAINABLE_VARIABLES, self._prefix())

    def _prefix(self) -> str:
        return self.name + "/" if self.name else ""

    def __repr__(self) -> str:
        return f"<graphc.VariableScope {self.name!r}, reuse={self.reuse}>"


class _Variables:
    """What a graph knows of its scopes: the open ones, the variables by name, and the default names that are taken."""

    def __init__(self):
        self.open = [VariableScope("")]
        self.found: dict[str, Variable] = {}
        self.taken: dict[str, int] = {}


def _state(graph: Graph) -> _Variables:
    return graph.scope_state.setdefault("variables", _Variables())


def get_variable_scope() -> VariableScope:
    """The innermost scope that is open in the default graph."""
    return _state(get_default_graph()).open[-1]


@contextlib.contextmanager
def variable_scope(name_or_scope, default_name: str | None = None, values=None, initializer=None, regularizer=None,
                   caching_device=None, partitioner=None, custom_getter=None, reuse=None, dtype=None, use_resource=None,
                   constraint=None, auxiliary_name_scope: bool = True):
    """A context in which `get_variable` prefixes names and has these defaults; yields the VariableScope.

    name_or_scope  a name, which is put behind the name of the scope outside, or a VariableScope to open again; with None,
                   `default_name` is made unique: dense, dense_1, ...
    reuse          True or AUTO_REUSE; scopes inside inherit it.
    custom_getter  a function (getter, name, shape=..., dtype=..., ...) that `get_variable` calls instead; `getter` is that of
                   the scope outside, or what makes and finds variables. Its result is what `get_variable` returns.
    Operations made inside get a name scope of that name, numbered when the name is taken.
    """
    graph = get_default_graph()
    state = _state(graph)
    outer = state.open[-1]
    if reuse not in (None, False, True, AUTO_REUSE):
        raise report(ArgumentError, f"variable_scope: reuse={reuse!r:.40}", rule="it is True, False, None or AUTO_REUSE")
    if isinstance(name_or_scope, VariableScope):
        base, name = name_or_scope, name_or_scope.name
    else:
        base, name = outer, _scope_name(state, outer, name_or_scope, default_name, reuse)
    scope = VariableScope(name, reuse or base.reuse, initializer if initializer is not None else base.initializer,
                          regularizer if regularizer is not None else base.regularizer,
                          as_dtype(dtype) if dtype is not None else base.dtype,
                          custom_getter=_nested(custom_getter, base.custom_getter))
    leaf = name.rpartition("/")[2] if isinstance(name_or_scope, VariableScope) else name[len(outer._prefix()):]
    opened = graph.name_scope(leaf) if auxiliary_name_scope and leaf else contextlib.nullcontext(graph.scope)
    before = dict(state.taken)
    state.taken[name] = state.taken.get(name, 0) + 1
    with opened as name_scope:
        scope.original_name_scope = name_scope
        state.open.append(scope)
        try:
            yield scope
        finally:
            state.open.pop()
            # A scope that is opened again gives the same default names inside again.
            state.taken = before if base is name_or_scope else {
                k: n for k, n in state.taken.items() if not k.startswith(name + "/")}


def _nested(inner, outer):
    """One getter that calls `inner` with `outer` as its way to variables."""
    if inner is None or outer is None:
        return inner or outer
    return lambda getter, name, *arguments, **keywords: inner(functools.partial(outer, getter), name, *arguments, **keywords)


def _scope_name(state: _Variables, outer: VariableScope, name, default_name, reuse) -> str:
    if name is None:
        if not default_name:
            raise report(ArgumentError, "variable_scope: it needs a name or a default_name")
        if reuse:
            raise report(ArgumentError, "variable_scope: reuse with a default_name", rule="what to reuse must be named")
        full, count = outer._prefix() + default_name, 0
        while state.taken.get(f"{full}_{count}" if count else full):
            count += 1
        return f"{full}_{count}" if count else full
    if not isinstance(name, str) or not name:
        raise report(ArgumentError, f"variable_scope: {name!r:.60} is not a name or a VariableScope")
    return outer._prefix() + name


def get_variable(name: str, shape=None, dtype=None, initializer=None, regularizer=None, trainable: bool | None = None,
                 collections=None, caching_device=None, partitioner=None, validate_shape: bool = True, use_resource=None,
                 custom_getter=None, constraint=None, synchronization=None, aggregation=None) -> Variable:
    """The variable of this name in the scope that is open: made, or found, as the scope's `reuse` says.

    shape        numbers; not needed when `initializer` is a value.
    initializer  an initializer (by default the scope's, else Glorot's uniform one for floats and zeros for others), a
                 function of no argument, or a value: a tensor, array or number.
    regularizer  a function of the variable; its result goes to the collection REGULARIZATION_LOSSES.
    Raises ArgumentError for a name that exists and may not be reused, or must be and does not; ShapeError and DTypeError
    when what is found has another type.
    """
    scope = get_variable_scope()
    if not isinstance(name, str) or not name:
        raise report(ArgumentError, f"get_variable: {name!r:.60} is not a name")
    getter = custom_getter or scope.custom_getter
    given: dict = {"shape": shape, "dtype": dtype, "initializer": initializer, "regularizer": regularizer,
                   "trainable": trainable is not False, "collections": collections, "constraint": constraint}
    if getter is None:
        return _variable(scope._prefix() + name, **given)
    given["dtype"] = as_dtype(dtype) if dtype is not None else scope.dtype
    return getter(_variable, scope._prefix() + name, **given)


def _variable(full: str, shape=None, dtype=None, initializer=None, regularizer=None, trainable: bool = True, collections=None,
              constraint=None, **unused) -> Variable:
    """The variable whose whole name is `full`, made or found."""
    graph = get_default_graph()
    state, scope = _state(graph), get_variable_scope()
    found = state.found.get(full)
    if found is not None:
        return _reused(scope, full, found, shape, dtype)
    if scope.reuse is True:
        near = [n for n in state.found if n.rpartition("/")[2] == full.rpartition("/")[2]]
        raise report(ArgumentError, f"get_variable: the variable {full!r} does not exist", rule="the scope has reuse=True"
                     + (f"; there is {', '.join(near)}" if near else ""), hint="reuse=graphc.AUTO_REUSE makes it when needed")
    wanted = as_dtype(dtype) if dtype is not None else scope.dtype
    with graph.outside_bodies():
        value = _initial_value(full, shape, wanted, dtype is not None,
                               initializer if initializer is not None else scope.initializer)
    head, _, leaf = full.rpartition("/")
    with graph.name_scope(head + "/" if head else None):
        made = Variable(value, trainable=trainable, collections=collections, name=leaf, constraint=constraint)
    state.found[full] = made
    regularizer = regularizer if regularizer is not None else scope.regularizer
    if regularizer is not None:
        with graph.outside_bodies(), graph.name_scope((head + "/" if head else "") + leaf + "/Regularizer/"):
            loss = regularizer(made)
        if loss is not None:
            graph.add_to_collection(GraphKeys.REGULARIZATION_LOSSES, loss)
    return made


def _reused(scope: VariableScope, full: str, found: Variable, shape, dtype) -> Variable:
    described = [("variable", found.handle.describe())]
    if not scope.reuse:
        raise report(ArgumentError, f"get_variable: the variable {full!r} exists already", described,
                     "the scope has reuse=False", "use graphc.variable_scope(..., reuse=True) or reuse=graphc.AUTO_REUSE")
    if shape is not None and as_shape(shape) != found.type.shape:
        raise report(ShapeError, f"get_variable: the variable {full!r} has another shape", described,
                     f"[{shape_text(found.type.shape)}] != [{shape_text(as_shape(shape))}]")
    if dtype is not None and as_dtype(dtype) != found.dtype:
        raise report(DTypeError, f"get_variable: the variable {full!r} has another dtype", described,
                     f"{found.dtype.name} != {as_dtype(dtype).name}")
    return found


def _initial_value(full: str, shape, dtype, is_dtype_given: bool, initializer):
    """What `Variable` is made from."""
    if isinstance(initializer, type):
        initializer = initializer()
    if initializer is None:
        initializer = glorot_uniform_initializer() if dtype.is_floating else Zeros()
    if callable(initializer) and not is_tensor(initializer):
        if shape is None:
            raise report(ArgumentError, f"get_variable: the variable {full!r} is new and needs a shape")
        sizes = as_shape(shape)
        if any(not isinstance(d, int) for d in sizes):
            raise report(ShapeError, f"get_variable: the shape of {full!r} must be numbers", rule=f"[{shape_text(sizes)}]")
        return initializer(sizes, dtype=dtype)
    value = as_node(initializer, dtype if is_dtype_given else None, "get_variable")
    if shape is not None and as_shape(shape) != value.type.shape:
        raise report(ShapeError, f"get_variable: the initial value of {full!r} has another shape",
                     [("value", value.describe())], f"[{shape_text(value.type.shape)}] != [{shape_text(as_shape(shape))}]")
    return value
