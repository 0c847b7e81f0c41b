"""Public functions that make constants and move elements: constant, reshape, concat, pad, gather and their kin.

Shapes are ints, named dims ("N"), dim expressions, and tensors computed from shapes (`shape(x)[0]`). Axes count from 0,
or from the back when negative. All raise ShapeError, DTypeError or ArgumentError with the operands and the user's line.
"""
from __future__ import annotations

import builtins

import numpy as np

from graphc.errors import ArgumentError, DTypeError, ShapeError, report
from graphc.functions.fed import filled_shape, row_sizes
from graphc.functions.indexing import bounds, getitem, index_tensor
from graphc.functions.sizes import as_axis, as_size, as_sizes, full_shape, is_fed, sizes_of
from graphc.ir import dims
from graphc.ir.dims import Dim, Size
from graphc.ir.node import Node, as_node, constant_array, dtype_of, is_tensor
from graphc.ir.types import as_dtype, float32, int32, shape_text
from graphc.ops import assemble, compare, composite, elementwise, index, movement

# constants -------------------------------------------------------------------------------------------


def constant(value, dtype=None, shape=None, name="constant", verify_shape=False) -> Node:
    """A constant. Floats are float32 and ints int32 unless `dtype` says otherwise; NumPy arrays keep their dtype.

    shape: one number fills it; a shorter list is continued with its last number, as in TensorFlow 1.
    """
    array = constant_array(value, None if dtype is None else as_dtype(dtype), "constant")
    if shape is not None:
        sizes = full_shape(shape, "constant")
        count = dims.product(sizes)
        if not isinstance(count, int):
            return fill(sizes, as_node(array), name)
        if array.size > count or verify_shape and array.shape != sizes or not array.size and count:
            raise report(ShapeError, "constant: the value does not fit the shape", rule=f"{array.size} elements for "
                                                                                        f"[{shape_text(sizes)}]")
        flat = np.concatenate([array.ravel(), np.repeat(array.ravel()[-1:], count - array.size)])
        array = flat.reshape(sizes)
    return as_node(array, None, "constant", name)


def convert_to_tensor(value, dtype=None, name=None, preferred_dtype=None) -> Node:
    """`value` as a tensor: itself, a variable's value, a list that holds tensors stacked, or a constant."""
    dtype = None if dtype is None else as_dtype(dtype)
    if isinstance(value, list | tuple) and any(is_tensor(v) for v in value):
        value = stack(value, name=name)
    found = as_node(value, dtype, "convert_to_tensor", name)
    if dtype is not None and found.dtype != dtype:
        raise report(DTypeError, f"convert_to_tensor: the tensor is not {dtype.name}", [("value", found.describe())],
                     hint="graphc.cast(x, dtype) converts")
    return found


def fill(dims, value, name=None) -> Node:
    """A tensor of shape `dims` full of the scalar `value`."""
    value = as_node(value, None, "fill")
    if value.type.rank:
        raise report(ShapeError, "fill: the value must be a scalar", [("value", value.describe())])
    return movement.broadcast_to(value, shape=full_shape(dims, "fill"), name=name)


def _full(what: str, shape, number, dtype, name) -> Node:
    dtype = as_dtype(dtype)
    sizes = full_shape(shape, what)
    value = bool(number) if dtype.is_bool else number
    if not sizes:
        return as_node(value, dtype, what, name)
    return movement.broadcast_to(as_node(value, dtype, what), shape=sizes, name=name)


def zeros(shape, dtype=float32, name=None) -> Node:
    """Zeros (False for bool)."""
    return _full("zeros", shape, 0, dtype, name)


def ones(shape, dtype=float32, name=None) -> Node:
    """Ones (True for bool)."""
    return _full("ones", shape, 1, dtype, name)


def zeros_like(tensor, dtype=None, name=None, optimize=True) -> Node:
    """Zeros of the tensor's shape and, unless given, dtype."""
    return composite.zeros_like(tensor, None if dtype is None else as_dtype(dtype), name)


def ones_like(tensor, dtype=None, name=None, optimize=True) -> Node:
    """Ones of the tensor's shape and, unless given, dtype."""
    return composite.ones_like(tensor, None if dtype is None else as_dtype(dtype), name)


def eye(num_rows, num_columns=None, batch_shape=None, dtype=float32, name=None) -> Node:
    """The identity matrix, or one for each place of `batch_shape`; more rows or columns are zeros."""
    rows = as_size(num_rows, "eye")
    columns = rows if num_columns is None else as_size(num_columns, "eye")
    shape = full_shape((*(as_sizes(batch_shape, "eye") if batch_shape is not None else ()), rows, columns), "eye")
    rank = len(shape)
    diagonal = compare.equal(index.iota(shape=shape, axis=rank - 2), index.iota(shape=shape, axis=rank - 1))
    return compare.cast(diagonal, dtype=as_dtype(dtype), name=name)


# shapes ----------------------------------------------------------------------------------------------


def _sizes_tensor(sizes, dtype, name) -> Node:
    """A rank-1 integer tensor of sizes: a constant, or one with parts that are bound when it runs."""
    if all(isinstance(d, int) for d in sizes):
        return as_node(np.array(sizes, np.int64), dtype, "shape", name)
    parts = [compare.cast(index.dim_value(dim=d), dtype=dtype) if isinstance(d, Dim) else as_node(d, dtype)
             for d in sizes]
    return stack(parts, name=name)


def shape(input, name=None, out_type=int32) -> Node:
    """The shape as a rank-1 tensor of int32 (or `out_type`). Functions that take shapes see the dims behind it."""
    return _sizes_tensor(as_node(input).type.shape, as_dtype(out_type), name)


def size(input, name=None, out_type=int32) -> Node:
    """The number of elements, as a scalar."""
    count, dtype = as_node(input).type.elements, as_dtype(out_type)
    if isinstance(count, int):
        return as_node(count, dtype, "size", name)
    return compare.cast(index.dim_value(dim=count), dtype=dtype, name=name)


def rank(input, name=None) -> Node:
    """The number of axes, as an int32 scalar."""
    return as_node(as_node(input).type.rank, int32, "rank", name)


def reshape(tensor, shape, name=None) -> Node:
    """The same elements in another shape, in which one size may be -1: what is left. A fed shape may hold the -1, too.

    Raises ShapeError when the numbers of elements differ, ArgumentError for two -1. What depends on named dims is
    checked when they are bound.
    """
    x = as_node(tensor)
    sizes = list(as_sizes(filled_shape(shape, x.type.elements, "reshape"), "reshape"))
    holes = [k for k, d in enumerate(sizes) if d == -1]
    operands = [("tensor", x.describe()), ("shape", f"[{shape_text(sizes)}]")]
    if len(holes) > 1:
        raise report(ArgumentError, "reshape: two sizes are -1", operands, "only one size can be left to be found")
    if any(isinstance(d, int) and d < -1 for d in sizes):
        raise report(ArgumentError, "reshape: a size is negative", operands)
    if holes:
        others = dims.product(d for k, d in enumerate(sizes) if k not in holes)
        if others == 0:
            raise report(ShapeError, "reshape: -1 beside a size of 0 says nothing", operands)
        total = x.type.elements
        if isinstance(total, int) and isinstance(others, int) and total % others:
            raise report(ShapeError, f"reshape: {total} elements do not fill the shape", operands,
                         f"{total} % {others} != 0")
        sizes[holes[0]] = dims.floordiv(total, others)
    return movement.reshape_to(x, shape=tuple(sizes), name=name)


def expand_dims(input, axis=None, name=None, dim=None) -> Node:
    """A new axis of size 1 at `axis` (or `dim`)."""
    x = as_node(input)
    at = as_axis(dim if axis is None else axis, x.type.rank + 1, "expand_dims", x)
    return movement.reshape_to(x, shape=(*x.type.shape[:at], 1, *x.type.shape[at:]), name=name)


def squeeze(input, axis=None, name=None, squeeze_dims=None) -> Node:
    """Without the axes of size 1, or without those of `axis`. A named size counts as 1 only when `axis` names it; then
    it is checked when it is bound. Raises ShapeError for another size.
    """
    x = as_node(input)
    axis = squeeze_dims if axis is None else axis
    if axis is None or isinstance(axis, list | tuple) and not axis:
        axes = [a for a, d in enumerate(x.type.shape) if d == 1]
    else:
        axes = [as_axis(a, x.type.rank, "squeeze", x) for a in (axis if isinstance(axis, list | tuple) else [axis])]
    for a in axes:
        if isinstance(x.type.shape[a], int) and x.type.shape[a] != 1:
            raise report(ShapeError, "squeeze: the size is not 1", [("input", x.describe())],
                         f"axis {a} has {x.type.shape[a]}")
    return movement.reshape_to(x, shape=tuple(d for a, d in enumerate(x.type.shape) if a not in axes), name=name)


def transpose(a, perm=None, name="transpose", conjugate=False) -> Node:
    """Axes in the order `perm`, in reverse when not given. Raises ShapeError when it is no permutation."""
    x = as_node(a)
    order = tuple(reversed(builtins.range(x.type.rank))) if perm is None else as_sizes(perm, "transpose")
    order = tuple(p + x.type.rank if isinstance(p, int) and p < 0 else p for p in order)
    return movement.transpose_to(x, perm=order, name=name)


def matrix_transpose(a, name="matrix_transpose") -> Node:
    """The last two axes exchanged."""
    x = as_node(a)
    if x.type.rank < 2:
        raise report(ShapeError, "matrix_transpose: it takes at least 2 axes", [("a", x.describe())])
    order = (*builtins.range(x.type.rank - 2), x.type.rank - 1, x.type.rank - 2)
    return movement.transpose_to(x, perm=order, name=name)


def broadcast_to(input, shape, name=None) -> Node:
    """The input repeated along new axes and axes of size 1 to fill `shape`."""
    return movement.broadcast_to(as_node(input), shape=full_shape(shape, "broadcast_to"), name=name)


def tile(input, multiples, name=None) -> Node:
    """The input repeated `multiples[a]` times along each axis a."""
    x, times = as_node(input), full_shape(multiples, "tile")
    if len(times) != x.type.rank:
        raise report(ShapeError, "tile: it takes one number for each axis", [("input", x.describe())],
                     f"{len(times)} multiples for rank {x.type.rank}")
    before = tuple(d for size in x.type.shape for d in (1, size))
    between = tuple(d for pair in zip(times, x.type.shape, strict=True) for d in pair)
    after = tuple(n * d for n, d in zip(times, x.type.shape, strict=True))
    repeated = movement.broadcast_to(movement.reshape_to(x, shape=before), shape=between)
    return movement.reshape_to(repeated, shape=after, name=name)


def reverse(tensor, axis, name=None) -> Node:
    """The elements in reverse order along the axes of `axis`."""
    x = as_node(tensor)
    axes = [as_axis(a, x.type.rank, "reverse", x) for a in as_sizes(axis, "reverse")]
    begin = tuple(d - 1 if a in axes else 0 for a, d in enumerate(x.type.shape))
    begin = tuple(0 if d == 0 else b for b, d in zip(begin, x.type.shape, strict=True))
    steps = tuple(-1 if a in axes else 1 for a in builtins.range(x.type.rank))
    return movement.strided_slice(x, begin=begin, steps=steps, sizes=tuple(x.type.shape), name=name)


# parts and wholes ------------------------------------------------------------------------------------


def _as_list(values, what: str, dtype=None) -> list[Node]:
    """Several tensors: numbers and arrays among them take the dtype of the first tensor."""
    if is_tensor(values):
        return unstack(values)
    values = list(values)
    dtype = next((dtype_of(v) for v in values if is_tensor(v)), dtype)
    return [as_node(v, dtype, what) if not isinstance(v, list | tuple) or not any(map(is_tensor, v)) else stack(v)
            for v in values]


def concat(values, axis=None, name="concat", concat_dim=None) -> Node:
    """The tensors one behind the other along `axis`. The older order of arguments, axis first, works too."""
    axis = concat_dim if axis is None else axis
    if isinstance(values, int) and isinstance(axis, list | tuple):
        values, axis = axis, values
    nodes = _as_list([values] if is_tensor(values) else values, "concat")
    if not nodes or axis is None:
        raise report(ArgumentError, "concat: it takes a list of tensors and an axis")
    if not nodes[0].type.rank:
        raise report(ShapeError, "concat: scalars have no axis", [("values", nodes[0].describe())], "use stack")
    return assemble.concat_values(*nodes, axis=as_axis(axis, nodes[0].type.rank, "concat", nodes[0]), name=name)


def stack(values, axis=0, name="stack") -> Node:
    """The tensors, of one shape, side by side along a new axis. Raises ShapeError when shapes differ."""
    nodes = _as_list(values, "stack")
    if not nodes:
        raise report(ArgumentError, "stack: the list is empty")
    for node in nodes[1:]:
        composite.require_same_shape("stack", first=nodes[0], other=node)
    at = as_axis(axis, nodes[0].type.rank + 1, "stack", nodes[0])
    return assemble.concat_values(*(expand_dims(n, at) for n in nodes), axis=at, name=name)


def unstack(value, num=None, axis=0, name="unstack") -> list[Node]:
    """The parts along `axis`, which disappears: a list of tensors. Raises ArgumentError when how many is not known."""
    x = as_node(value)
    at = as_axis(axis, x.type.rank, "unstack", x)
    count = x.type.shape[at]
    if isinstance(count, Dim) and num is None:
        raise report(ArgumentError, "unstack: the number of parts is known only when the graph runs",
                     [("value", x.describe())],
                     hint="give num")
    if num is not None and isinstance(count, int) and num != count:
        raise report(ShapeError, "unstack: num is not the size of the axis", [("value", x.describe())],
                     f"{num} != {count}")
    if isinstance(count, Dim):  # the reshape asks that the size be num
        x = movement.reshape_to(x, shape=(*x.type.shape[:at], int(num), *x.type.shape[at + 1:]))
        count = int(num)
    return [getitem(x, (*[builtins.slice(None)] * at, k), name) for k in builtins.range(count)]


reverse_v2, pack, unpack = reverse, stack, unstack  # older names


def split(value, num_or_size_splits=None, axis=0, num=None, name="split", split_dim=None) -> list[Node]:
    """Parts along `axis`: so many equal ones, or ones of the given sizes, of which one may be -1. A list of tensors.

    The order of arguments before TensorFlow 1.0, split(axis, number, value), works too. Raises ShapeError when the
    sizes do not add up.
    """
    axis = axis if split_dim is None else split_dim
    if isinstance(value, int) and is_tensor(axis):
        value, axis = axis, value
    x = as_node(value)
    at = as_axis(axis, x.type.rank, "split", x)
    total = x.type.shape[at]
    if isinstance(num_or_size_splits, int | np.integer):
        sizes = _equal_parts(x, at, int(num_or_size_splits))
        if isinstance(total, Dim):  # asks that the parts have one size
            x = movement.reshape_to(x, shape=(*x.type.shape[:at], sizes[0] * len(sizes), *x.type.shape[at + 1:]))
    else:
        sizes = list(as_sizes(num_or_size_splits, "split"))
        if -1 in sizes:
            hole = sizes.index(-1)
            sizes[hole] = total - sum((d for k, d in enumerate(sizes) if k != hole), 0)
        together = sum(sizes, 0)
        if isinstance(together, Dim) and together != total:  # asks that they add up
            x = movement.reshape_to(x, shape=(*x.type.shape[:at], together, *x.type.shape[at + 1:]))
        elif together != total or any(isinstance(d, int) and d < 0 for d in sizes):
            raise report(ShapeError, "split: the sizes do not add up", [("value", x.describe())],
                         f"{' + '.join(map(str, sizes))} != {total}")
    found, begin = [], 0
    for part in sizes:
        found.append(_part(x, at, begin, 1, part, name))
        begin = begin + part
    return found


def _equal_parts(x: Node, axis: int, count: int) -> list[Size]:
    total = x.type.shape[axis]
    if count < 1 or isinstance(total, int) and total % count:
        raise report(ShapeError, "split: the axis does not divide into equal parts", [("value", x.describe())],
                     f"{total} elements into {count} parts")
    return [dims.floordiv(total, count)] * count


def _part(x: Node, axis: int, begin: Size, step: int, size: Size, name=None) -> Node:
    """`size` elements along one axis, all of the others."""
    rank = x.type.rank
    return movement.strided_slice(x, begin=tuple(begin if a == axis else 0 for a in builtins.range(rank)),
                                  steps=tuple(step if a == axis else 1 for a in builtins.range(rank)),
                                  sizes=tuple(size if a == axis else d for a, d in enumerate(x.type.shape)), name=name)


def slice(input_, begin, size, name=None) -> Node:
    """The part of `size` elements (-1: all the rest) from `begin` on, along each axis. Raises ShapeError when it leaves
    the tensor.

    A size that is fed, or along a named axis, is checked when it is known.
    """
    x = as_node(input_)
    first, sizes = row_sizes(begin, size, x.type.shape, "slice")
    if not len(first) == len(sizes) == x.type.rank:
        raise report(ShapeError, "slice: it takes one begin and one size for each axis", [("input_", x.describe())],
                     f"{len(first)} and {len(sizes)} for rank {x.type.rank}")
    wanted = sizes
    there = tuple(w if all(isinstance(v, int) for v in (w, b, d)) or w == d - b else bounds(builtins.slice(b, b + w), d)[2]
                  for b, w, d in zip(first, wanted, x.type.shape, strict=True))
    found = movement.strided_slice(x, begin=first, steps=(1,) * x.type.rank, sizes=there, name=name)
    return found if there == wanted else movement.reshape_to(found, shape=wanted)


def strided_slice(input_, begin, end, strides=None, name=None) -> Node:
    """`input_[begin[0]:end[0]:strides[0], ...]`."""
    first, last = (unstack(v) if is_tensor(v) and is_fed(v) else as_sizes(v, "strided_slice") for v in (begin, end))
    steps = (1,) * len(first) if strides is None else as_sizes(strides, "strided_slice")
    return getitem(input_, tuple(builtins.slice(*ends) for ends in zip(first, last, steps, strict=True)), name)


def pad(tensor, paddings, mode="CONSTANT", name=None, constant_values=0) -> Node:
    """(before, after) more elements along each axis: `constant_values`, or (REFLECT, SYMMETRIC) the mirrored tensor.

    REFLECT leaves the edge out, SYMMETRIC repeats it. Raises ShapeError when the mirror is too small.
    """
    x = as_node(tensor)
    pairs = _paddings(x, paddings)
    mode = mode.upper()
    if mode == "CONSTANT":
        return assemble.place(x, shape=tuple(a + d + b for d, (a, b) in zip(x.type.shape, pairs, strict=True)),
                              begin=tuple(a for a, _ in pairs), steps=(1,) * x.type.rank,
                              fill=_scalar(constant_values, x), name=name)
    if mode not in ("REFLECT", "SYMMETRIC"):
        raise report(ArgumentError, f"pad: {mode!r} is not a mode", rule="CONSTANT, REFLECT or SYMMETRIC")
    edge = int(mode == "REFLECT")
    for axis, (before, after) in enumerate(pairs):
        d = x.type.shape[axis]
        if all(isinstance(v, int) for v in (d, before, after)) and builtins.max(before, after) > d - edge:
            raise report(ShapeError, f"pad: {mode} needs more elements", [("tensor", x.describe())],
                         f"{builtins.max(before, after)} mirrored elements of axis {axis}, which has {d}")
        front = _mirror(x, axis, builtins.slice(before + edge - 1, edge - 1 if edge else None, -1), before)
        back = _mirror(x, axis, builtins.slice(-1 - edge, -1 - edge - after, -1), after)
        parts = [p for p, n in ((front, before), (x, 1), (back, after)) if n]
        x = assemble.concat_values(*parts, axis=axis) if len(parts) > 1 else x
    return elementwise.identity(x, name=name) if name else x


def _paddings(x: Node, paddings) -> list[tuple[Size, Size]]:
    if is_tensor(paddings):
        paddings = sizes_of(as_node(paddings), "pad").tolist()
    pairs = [tuple(as_size(n, "pad") for n in pair) for pair in paddings]
    if len(pairs) != x.type.rank or any(len(p) != 2 or any(isinstance(n, int) and n < 0 for n in p)
                                        for p in pairs):
        raise report(ShapeError, "pad: it takes two numbers of at least 0 for each axis", [("tensor", x.describe())],
                     f"paddings {pairs}")
    return pairs  # type: ignore[return-value]


def _scalar(value, x: Node):
    number = constant_array(value, x.dtype, "pad").item()
    return int(number) if x.dtype.is_integer else number


def _mirror(x: Node, axis: int, selection, count: Size) -> Node | None:
    """`count` elements of one axis; along a named axis, a reshape asks that there be so many."""
    if not count:
        return None
    begin, step, there = bounds(selection, x.type.shape[axis])
    found = _part(x, axis, begin, step, there)
    wanted = tuple(count if a == axis else d for a, d in enumerate(x.type.shape))
    return found if found.type.shape == wanted else movement.reshape_to(found, shape=wanted)


# one-hot -------------------------------------------------------------------------------------------


def one_hot(indices, depth, on_value=None, off_value=None, axis=-1, dtype=None, name=None) -> Node:
    """A new axis of size `depth` at `axis`: `on_value` (default 1) at the index, `off_value` (default 0) elsewhere.

    An index out of range gives only off_value. dtype: that of the values, else float32.
    """
    picks = index_tensor(indices)
    if not picks.dtype.is_integer:
        raise report(DTypeError, "one_hot: indices must be integers", [("indices", picks.describe())])
    given = next((dtype_of(v) for v in (on_value, off_value) if is_tensor(v)), None)
    kind = as_dtype(dtype) if dtype is not None else given or float32
    at = as_axis(axis, picks.type.rank + 1, "one_hot", picks)
    classes = full_shape((depth,), "one_hot")
    line = tuple(classes[0] if a == at else 1 for a in builtins.range(picks.type.rank + 1))
    hit = compare.equal(expand_dims(picks, at), index.iota(shape=line, axis=at, dtype=picks.dtype))
    if on_value is None and off_value is None:
        return compare.cast(hit, dtype=kind, name=name)
    on, off = (as_node(default if v is None else v, kind, "one_hot") for v, default in ((on_value, 1), (off_value, 0)))
    return compare.select(hit, on, off, name=name)
