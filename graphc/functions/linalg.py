"""Public products: matmul, einsum, tensordot and what follows from them, all on the contraction ops."""
from __future__ import annotations

from graphc.errors import ArgumentError, ShapeError, report
from graphc.functions import arrays
from graphc.functions.sizes import as_axis
from graphc.ir.node import OPERATORS, Node, as_node, dtype_of, is_tensor
from graphc.ops.contract import contract, matmul_to
from graphc.ops.movement import reshape_to, transpose_to
from graphc.ops.reduce import reduce_sum

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"  # of einsum


def _both(a, b, what: str) -> tuple[Node, Node]:
    dtype = next((dtype_of(v) for v in (a, b) if is_tensor(v)), None)
    return as_node(a, dtype, what), as_node(b, dtype, what)


def matmul(a, b, transpose_a=False, transpose_b=False, adjoint_a=False, adjoint_b=False, a_is_sparse=False,
           b_is_sparse=False, name=None) -> Node:
    """The matrix product over the last two axes; leading axes broadcast. The flags swap an operand's last axes first.

    Raises ShapeError when the inner sizes differ or an operand has fewer than 2 axes.
    """
    a, b = _both(a, b, "matmul")
    return matmul_to(a, b, transpose_a=bool(transpose_a or adjoint_a), transpose_b=bool(transpose_b or adjoint_b),
                     name=name)


batch_matmul = matmul


def matvec(a, b, transpose_a=False, name=None) -> Node:
    """The product of matrices [..., m, n] and vectors [..., n]: [..., m]."""
    a, b = _both(a, b, "matvec")
    found = matmul(a, arrays.expand_dims(b, -1), transpose_a=transpose_a)
    return arrays.squeeze(found, -1, name=name)


def _letters(rank: int, taken: str = "") -> str:
    """`rank` labels that are not in `taken`."""
    free = [c for c in LETTERS if c not in taken]
    if len(free) < rank:
        raise report(ArgumentError, "too many axes for one contraction", rule=f"{rank} labels needed")
    return "".join(free[:rank])


def tensordot(a, b, axes, name=None) -> Node:
    """The sum of products over pairs of axes: the last `axes` of a with the first of b, or (axes of a, axes of b).

    The other axes of a, then those of b, remain. Raises ShapeError when sizes differ.
    """
    a, b = _both(a, b, "tensordot")
    if isinstance(axes, int):
        if not 0 <= axes <= min(a.type.rank, b.type.rank):
            raise report(ShapeError, "tensordot: more axes than an operand has",
                         [("a", a.describe()), ("b", b.describe())],
                         f"axes {axes}")
        left, right = list(range(a.type.rank - axes, a.type.rank)), list(range(axes))
    else:
        sides = [[s] if isinstance(s, int) else list(s) for s in axes]
        left, right = ([as_axis(k, n.type.rank, "tensordot", n) for k in side]
                       for side, n in zip(sides, (a, b), strict=True))
    if len(left) != len(right):
        raise report(ShapeError, "tensordot: the axes do not pair up", rule=f"{len(left)} of a, {len(right)} of b")
    a_labels = _letters(a.type.rank)
    fresh = iter(_letters(b.type.rank, a_labels))
    b_labels = "".join(a_labels[left[right.index(k)]] if k in right else next(fresh) for k in range(b.type.rank))
    out = "".join(c for c in a_labels if c not in b_labels) + "".join(c for c in b_labels if c not in a_labels)
    return contract(a, b, a_labels=a_labels, b_labels=b_labels, out_labels=out, name=name)


def dot(a, b, name=None) -> Node:
    """NumPy's dot for vectors and matrices: the last axis of a with the only, or the last but one, of b."""
    a, b = _both(a, b, "dot")
    return tensordot(a, b, ([a.type.rank - 1], [max(b.type.rank - 2, 0)]), name=name)


def outer(a, b, name=None) -> Node:
    """All products of an element of vector a with one of vector b: a matrix."""
    return einsum("i,j->ij", a, b, name=name)


# einsum ----------------------------------------------------------------------------------------------


def einsum(equation, *inputs, name=None) -> Node:
    """Sums of products, as in numpy.einsum: "ij,jk->ik", implicit results ("ij,jk"), `...` for axes that broadcast.

    More than two operands are taken from left to right. Raises ArgumentError for a malformed equation and for a label
    twice in one operand (diagonals are not supported), ShapeError when sizes or ranks differ.
    """
    dtype = next((dtype_of(v) for v in inputs if is_tensor(v)), None)
    operands = [as_node(v, dtype, "einsum") for v in inputs]
    terms, out = _terms(equation, operands)
    done, labels = operands[0], terms[0]
    if len(operands) == 1:
        return _arranged(done, labels, out, name)
    for k in range(1, len(operands)):
        later = "".join(terms[k + 1:]) + out
        last = k == len(operands) - 1
        done, labels = _product(equation, done, labels, operands[k], terms[k], later, out if last else None,
                                name if last else None)
    return done


def _terms(equation: str, operands: list[Node]) -> tuple[list[str], str]:
    """The labels of each operand and of the result, `...` replaced by letters."""
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    shown = [(f"operand {k}", n.describe()) for k, n in enumerate(operands)]
    if len(terms) != len(operands):
        raise report(ArgumentError, f"einsum: {equation!r} is for {len(terms)} operands, {len(operands)} are given",
                     shown)
    for term in (*terms, right):
        bare = term.replace("...", "", 1)
        if bare and not (bare.isascii() and bare.isalpha()):
            raise report(ArgumentError, f"einsum: {equation!r} is malformed", shown, f"{term!r}: a label is a letter")
        twice = [c for c in bare if bare.count(c) > 1]
        if twice:
            raise report(ArgumentError, f"einsum: the label {twice[0]!r} appears twice in {term!r}", shown,
                         "diagonals are not supported")
    hidden = [n.type.rank - len(t.replace("...", "")) for t, n in zip(terms, operands, strict=True)]
    for term, rest, node in zip(terms, hidden, operands, strict=True):
        if rest < 0 or rest and "..." not in term:
            raise report(ShapeError, f"einsum: {term!r} does not fit the rank of its operand",
                         [("operand", node.describe())])
    dots = _letters(max([h for t, h in zip(terms, hidden, strict=True) if "..." in t], default=0), text)
    terms = [t.replace("...", dots[len(dots) - h:]) if "..." in t else t for t, h in zip(terms, hidden, strict=True)]
    joined = "".join(terms)
    if arrow:
        out = right.replace("...", dots)
    else:
        out = dots + "".join(sorted(c for c in set(joined) if joined.count(c) == 1 and c not in dots))
    lost = [c for c in out if c not in joined]
    if lost:
        raise report(ArgumentError, f"einsum: {equation!r} has the label {lost[0]!r} in the result only", shown)
    return _without_broadcast(operands, terms, dots), out


def _without_broadcast(operands: list[Node], terms: list[str], dots: str) -> list[str]:
    """Drops the axes behind `...` that have size 1 where another operand has more: they broadcast."""
    largest: dict[str, object] = {}
    for node, term in zip(operands, terms, strict=True):
        for label, size in zip(term, node.type.shape, strict=True):
            if size != 1 or label not in largest:
                largest[label] = size
    for k, (node, term) in enumerate(zip(operands, terms, strict=True)):
        gone = [a for a, (c, d) in enumerate(zip(term, node.type.shape, strict=True))
                if c in dots and d == 1 and largest[c] != 1]
        if gone:
            operands[k] = reshape_to(node, shape=tuple(d for a, d in enumerate(node.type.shape) if a not in gone))
            terms[k] = "".join(c for a, c in enumerate(term) if a not in gone)
    return terms


def _arranged(x: Node, labels: str, out: str, name=None) -> Node:
    """x with the axes `labels` summed and ordered to `out`."""
    gone = tuple(a for a, c in enumerate(labels) if c not in out)
    if gone:
        x = reduce_sum(x, axes=gone)
        labels = "".join(c for c in labels if c in out)
    return transpose_to(x, perm=tuple(labels.index(c) for c in out), name=name)


def _product(equation, a: Node, a_labels: str, b: Node, b_labels: str, later: str, out: str | None,
             name) -> tuple[Node, str]:
    """One step of an einsum: what neither the other operand nor anything later needs is summed first."""
    for labels, node in ((a_labels, a), (b_labels, b)):
        for other_labels, other in ((a_labels, a), (b_labels, b)):
            for c, d in zip(labels, node.type.shape, strict=True):
                size = dict(zip(other_labels, other.type.shape, strict=True)).get(c, d)
                if isinstance(size, int) and isinstance(d, int) and size != d:
                    raise report(ShapeError, f"einsum: in {equation!r} the label {c!r} has two sizes",
                                 [("a", a.describe()), ("b", b.describe())], f"{d} != {size}")
    keep_a = "".join(c for c in a_labels if c in b_labels + later)
    keep_b = "".join(c for c in b_labels if c in a_labels + later)
    a = a if keep_a == a_labels else _arranged(a, a_labels, keep_a)
    b = b if keep_b == b_labels else _arranged(b, b_labels, keep_b)
    if out is None:
        out = "".join(dict.fromkeys(c for c in keep_a + keep_b if c in later))
    return contract(a, b, a_labels=keep_a, b_labels=keep_b, out_labels=out, name=name), out


def trace(x, name=None) -> Node:
    """The sum of the diagonal of the last two axes."""
    x = as_node(x)
    if x.type.rank < 2:
        raise report(ShapeError, "trace: it takes at least 2 axes", [("x", x.describe())])
    picked = x * arrays.eye(x.type.shape[-2], x.type.shape[-1], dtype=x.dtype)
    return reduce_sum(picked, axes=(x.type.rank - 2, x.type.rank - 1), name=name)


OPERATORS["@"] = matmul
