"""Gradients of tables by the rows that a step used: no tensor of the table's size."""
from __future__ import annotations

from graphc.errors import ArgumentError, report
from graphc.ir import dims
from graphc.ir.graph import topological
from graphc.ir.node import Node, TensorShape, as_node
from graphc.ir.op import Kind
from graphc.ir.types import int64
from graphc.ops.assemble import concat_values
from graphc.ops.compare import cast, equal, where
from graphc.ops.gather import gather_rows, scatter_sum
from graphc.ops.grad import connected, gradients
from graphc.ops.index import iota
from graphc.ops.movement import broadcast_to, reshape_to
from graphc.ops.order import first_equal
from graphc.variable import Variable


class IndexedSlices:
    """The sum of rows: `values[k]` belongs to row `indices[k]` of a tensor of `dense_shape`; rows that are named twice add up.

    Used as a tensor, it becomes the whole one.
    """

    __array_priority__ = 1000

    def __init__(self, values, indices, dense_shape=None):
        self.values, self.indices = as_node(values), as_node(indices)
        self.dense_shape = None if dense_shape is None else tuple(dense_shape)
        self._dense: Node | None = None

    dtype = property(lambda self: self.values.dtype)
    graph = property(lambda self: self.values.graph)
    shape = property(lambda self: TensorShape(self.dense_shape))
    name = property(lambda self: self.values.name)

    def get_shape(self):
        """The shape of the whole tensor."""
        return self.shape

    def as_tensor(self) -> Node:
        """The whole tensor."""
        if self.dense_shape is None:
            raise report(ArgumentError, "IndexedSlices: the whole tensor's shape is not known",
                         [("values", self.values.describe())], hint="give dense_shape")
        return scatter_sum(self.indices, self.values, rows=self.dense_shape[0])

    def fetched(self) -> Node:
        """The whole tensor, made once: a fetch must not make the graph grow with each run."""
        if self._dense is None:
            self._dense = self.as_tensor()
        return self._dense

    def rows(self) -> tuple[Node, Node]:
        """(sums, is_first), for each entry: the sum of all values of its row, and whether it is the first of its row. So that
        each row can be computed from its whole gradient, and changed once.
        """
        count = self.indices.type.shape[0]
        first = first_equal(self.indices)
        sums = gather_rows(scatter_sum(first, self.values, rows=count), first)
        return sums, equal(first, iota(shape=(count,), axis=0, dtype=first.dtype))

    def once(self, changes: Node, is_first: Node) -> Node:
        """A whole tensor with the change of each row, of which all entries of the row have a copy. An update by it touches
        the named rows only.
        """
        kept = reshape_to(is_first, shape=(*is_first.type.shape, *[1] * (changes.type.rank - 1)))
        return scatter_sum(self.indices, where(broadcast_to(kept, shape=tuple(changes.type.shape)), changes, 0),
                           rows=self.dense_shape[0])  # type: ignore[index]

    def __repr__(self) -> str:
        return f"<graphc.IndexedSlices {self.values.label}: rows of {self.dense_shape}>"


def _forward(method: str):
    return lambda self, *others: getattr(self.as_tensor(), method)(*others)


for _name in ("add", "sub", "mul", "truediv", "pow", "matmul"):
    for _form in (f"__{_name}__", f"__r{_name}__"):
        setattr(IndexedSlices, _form, _forward(_form))
for _name in ("lt", "le", "gt", "ge", "neg", "abs", "getitem", "iter", "bool"):
    setattr(IndexedSlices, f"__{_name}__", _forward(f"__{_name}__"))


def gradients_by_rows(ys, variables, grad_ys=None) -> list[Node | IndexedSlices | None]:
    """`gradients` by variables; IndexedSlices for those of which the ys use nothing but gathered rows."""
    ys = [as_node(y) for y in (ys if isinstance(ys, list | tuple) else [ys])]
    gathers = {v: _gathers(v, ys) for v in dict.fromkeys(variables)}
    xs = list(dict.fromkeys(x for v, found in gathers.items() for x in (found or [v])))
    slopes = dict(zip(xs, gradients(ys, xs, grad_ys), strict=True))
    return [_slices(v, gathers[v], slopes) if gathers[v] else slopes[v] for v in variables]


def _gathers(variable: Variable, ys: list[Node]) -> list[Node]:
    """The gathers of rows through which alone ys depend on a variable; [] when there is another way."""
    nodes = topological(ys)
    reads = {n for n in nodes if n.op.kind is Kind.EFFECT and n.inputs[0] is variable.handle and n.op.rule.action == "read"}
    on_way = connected(ys, reads) if reads else set()
    users = [n for n in nodes if n in on_way and n not in reads and any(i in reads for i in n.inputs)]
    plain = all(n.op.kind is Kind.GATHER and n.op.rule.axis(n.attrs) == 0 and n.inputs[0] in reads for n in users)
    return users if plain and not reads & set(ys) else []


def _slices(variable: Variable, gathers: list[Node], slopes) -> IndexedSlices | None:
    values, indices = [], []
    for node in gathers:
        if slopes[node] is not None:
            count = dims.product(node.inputs[1].type.shape)
            values.append(reshape_to(slopes[node], shape=(count, *variable.type.shape[1:])))
            indices.append(reshape_to(node.inputs[1], shape=(count,)))
    if not values:
        return None
    if len({i.dtype for i in indices}) > 1:
        indices = [cast(i, dtype=int64) for i in indices]
    if len(values) > 1:
        return IndexedSlices(concat_values(*values, axis=0), concat_values(*indices, axis=0), variable.type.shape)
    return IndexedSlices(values[0], indices[0], variable.type.shape)
