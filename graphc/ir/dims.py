"""Dims: whole numbers, names, and exact expressions of names (`N`, `2*N+1`, `N*T`, `(N+1)//2`, `max(N-1,0)`).

A dim is a Python int or a `Dim`: a polynomial with integer coefficients over atoms. An atom is a name or a call
(`//`, `max`, `min`) of dims. Two dims with one value have one form wherever polynomial algebra can tell, so equality of
dims is equality of objects. Names stand for sizes, so they are never negative.
"""
from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import total_ordering


@total_ordering
class Dim:
    """A size that is not a number. `terms` maps a monomial (sorted tuple of atoms) to its coefficient."""

    __slots__ = ("terms", "_text")

    def __init__(self, terms: Mapping[tuple, int]):
        self.terms = tuple(sorted(((m, c) for m, c in terms.items() if c), key=lambda t: (-len(t[0]), str(t[0]))))
        self._text = _polynomial_text(self.terms)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Dim({self._text})"

    def __eq__(self, other) -> bool:
        return isinstance(other, Dim) and self._text == other._text

    def __lt__(self, other) -> bool:
        return str(self) < str(other)

    def __hash__(self) -> int:
        return hash(self._text)

    def __add__(self, other):
        total = dict(self.terms)
        for monomial, coefficient in _terms(other):
            total[monomial] = total.get(monomial, 0) + coefficient
        return _reduced(total)

    def __mul__(self, other):
        if isinstance(other, int) and other == 1:
            return self
        product: dict[tuple, int] = {}
        for m1, c1 in self.terms:
            for m2, c2 in _terms(other):
                monomial = tuple(sorted(m1 + m2, key=str))
                product[monomial] = product.get(monomial, 0) + c1 * c2
        return _reduced(product)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self):
        return self * -1

    def __sub__(self, other):
        return self + (-other)

    def __rsub__(self, other):
        return -self + other

    def __floordiv__(self, other):
        return floordiv(self, other)

    def __rfloordiv__(self, other):
        return floordiv(other, self)

    def __int__(self):
        raise TypeError(f"the size {self} is known only when the graph runs")

    __index__ = __int__


Size = int | Dim


class Call:
    """An atom that is no name: `floor` division, `max` or `min` of two dims."""

    __slots__ = ("function", "arguments")

    def __init__(self, function: str, *arguments: Size):
        self.function, self.arguments = function, arguments

    def __str__(self) -> str:
        a, b = self.arguments
        return f"{_operand_text(a)}//{_operand_text(b)}" if self.function == "//" else f"{self.function}({a},{b})"

    __repr__ = __str__  # the order of terms goes by their texts

    def __eq__(self, other) -> bool:
        return str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def _terms(value):
    return value.terms if isinstance(value, Dim) else (((), int(value)),)


def _reduced(terms: Mapping[tuple, int]) -> Size:
    live = {m: c for m, c in terms.items() if c}
    if not live:
        return 0
    if set(live) == {()}:
        return live[()]
    return Dim(live)


def _polynomial_text(terms) -> str:
    parts = []
    for monomial, coefficient in terms:
        factors = [str(atom) for atom in monomial]
        if coefficient != 1 or len(factors) > 1:  # a division inside a product or behind a minus needs brackets
            factors = [f"({f})" if isinstance(a, Call) and a.function == "//" else f
                       for f, a in zip(factors, monomial, strict=True)]
        if abs(coefficient) != 1 or not factors:
            factors.insert(0, str(abs(coefficient)))
        parts.append(("-" if coefficient < 0 else "+") + "*".join(factors))
    return "".join(parts).removeprefix("+")


def _operand_text(value: Size) -> str:
    text = str(value)
    return text if text.isalnum() else f"({text})"


# Words that mean something else in the text form of a graph.
_RESERVED = {"max", "min", "inf", "nan", "true", "false", "none", "array", "empty", "bool"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def name(text: str) -> Dim:
    """The dim called `text`: letters, digits and _, not a word that the text form of graphs needs. Raises ValueError."""
    if not _NAME.match(text) or text in _RESERVED or re.match(r"[fiu]\d+\Z", text):
        raise ValueError(f"{text!r} is not a name for a dim")
    return Dim({(text,): 1})


def _atom(function: str, *arguments: Size) -> Dim:
    return Dim({(Call(function, *arguments),): 1})


def floordiv(a: Size, b: Size) -> Size:
    """Floor of a / b, exact: terms that b divides leave the division."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if b == 1:
        return a
    divisor = _terms(b)
    if len(divisor) != 1:
        return 1 if a == b else _atom("//", a, b)
    (monomial, coefficient), = divisor
    common = [atom for atom in dict.fromkeys(monomial) if all(atom in m for m, _ in _terms(a))]
    if common and len(monomial) > 1:  # N*M // (N*K) is M // K
        factor = Dim({(common[0],): 1})
        return floordiv(floordiv(a, factor), floordiv(b, factor))
    whole: dict[tuple, int] = {}
    rest: dict[tuple, int] = {}
    for m, c in _terms(a):
        quotient = _quotient(m, monomial)
        if quotient is not None and c % coefficient == 0:
            whole[quotient] = c // coefficient
        else:
            rest[m] = c
    remainder = _reduced(rest)
    if remainder == 0:
        return _reduced(whole)
    if isinstance(remainder, int) and isinstance(b, int):
        return _reduced(whole) + remainder // b
    return _reduced(whole) + _atom("//", remainder, b)


def _quotient(monomial: tuple, divisor: tuple) -> tuple | None:
    left = list(monomial)
    for atom in divisor:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)


def _sign(value: Size) -> int | None:
    """1 when surely >= 0, -1 when surely <= 0, else None."""
    return _sum_sign([_term_sign(monomial, coefficient) for monomial, coefficient in _terms(value)])


def _sum_sign(signs: list[int | None]) -> int | None:
    if all(s == 1 for s in signs):
        return 1
    return -1 if all(s == -1 for s in signs) else None


def _term_sign(monomial: tuple, coefficient: int) -> int | None:
    sign = 1 if coefficient >= 0 else -1
    for atom in monomial:
        factor = 1 if isinstance(atom, str) else _call_sign(atom)
        if factor is None:
            return None
        sign *= factor
    return sign


def _call_sign(call: Call) -> int | None:
    """The sign of an atom: `min(N-5,3)` has none that is sure."""
    first, second = (_sign(a) for a in call.arguments)
    if call.function == "//":
        return None if first is None or second is None else first * second
    decisive = 1 if call.function == "max" else -1
    if decisive in (first, second):
        return decisive
    return None if None in (first, second) else -decisive


def terms(value: Size) -> dict[tuple, int]:
    """The products of atoms in `value`, with their coefficients."""
    return dict(_terms(value))


def of_terms(found: Mapping[tuple, int]) -> Size:
    """The dim of these `terms`."""
    return _reduced(found)


def is_positive(value: Size) -> bool:
    """Whether `value` surely is 0 or more."""
    return _sign(value) == 1


def maximum(a: Size, b: Size) -> Size:
    """The larger of two dims."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    sign = _sign(a - b)
    return _atom("max", a, b) if sign is None else a if sign == 1 else b


def minimum(a: Size, b: Size) -> Size:
    """The smaller of two dims."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    sign = _sign(a - b)
    return _atom("min", a, b) if sign is None else b if sign == 1 else a


def product(dims) -> Size:
    """The product of dims; 1 for none."""
    result: Size = 1
    for dim in dims:
        result = result * dim
    return result


def _mapped(value: Size, atom_value) -> Size:
    """`value` with each atom replaced by `atom_value(atom)`."""
    if isinstance(value, int):
        return value
    total: Size = 0
    for monomial, coefficient in value.terms:
        term: Size = coefficient
        for atom in monomial:
            term = term * atom_value(atom)
        total = total + term
    return total


_CALLS = {"//": floordiv, "max": maximum, "min": minimum}


def substitute(value: Size, env: Mapping[str, Size]) -> Size:
    """`value` with names replaced as `env` says; a number when all are."""
    def atom_value(atom):
        if isinstance(atom, str):
            return env[atom] if atom in env else name(atom)
        return _CALLS[atom.function](*(substitute(a, env) for a in atom.arguments))
    return _mapped(value, atom_value)


def names(value: Size) -> tuple[str, ...]:
    """The names in `value`, sorted."""
    found: set[str] = set()

    def visit(v):
        for monomial, _ in _terms(v):
            for atom in monomial:
                if isinstance(atom, str):
                    found.add(atom)
                else:
                    for argument in atom.arguments:
                        visit(argument)
    visit(value)
    return tuple(sorted(found))


def solve(value: Size, size: int) -> tuple[str, int] | None:
    """(M, its size) when `value` is `c*M+d` and nothing else: the M that makes it `size`, or the next below."""
    terms = dict(_terms(value))
    rest = terms.pop((), 0)
    if len(terms) != 1:
        return None
    (monomial, factor), = terms.items()
    if len(monomial) != 1 or not isinstance(monomial[0], str):
        return None
    return monomial[0], max((size - rest) // factor, 0)


def names_in(value) -> tuple[str, ...]:
    """The names of dims anywhere in `value`: a dim, anything with a `shape`, or tuples of such."""
    if isinstance(value, Dim):
        return names(value)
    if isinstance(value, tuple):
        return tuple(dict.fromkeys(n for v in value for n in names_in(v)))
    return names_in(value.shape) if isinstance(getattr(value, "shape", None), tuple) else ()


def linear_in(value: Size) -> str | None:
    """M when `value` is `c*M+d` and nothing else."""
    solved = solve(value, 0) if isinstance(value, Dim) else None
    return solved[0] if solved else None


def is_name(value: Size) -> bool:
    """Whether `value` is a name alone."""
    return isinstance(value, Dim) and str(value).isidentifier()


def parse(text: str) -> Size:
    """The dim that `text` spells. Raises ValueError."""
    try:
        return _from_ast(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        raise ValueError(f"{text!r} is not a dim") from None


_OPERATORS = {ast.Add: lambda a, b: a + b, ast.Sub: lambda a, b: a - b, ast.Mult: lambda a, b: a * b,
              ast.FloorDiv: floordiv}


def _from_ast(node) -> Size:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        return name(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_from_ast(node.operand)
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_from_ast(node.left), _from_ast(node.right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _CALLS[node.func.id](*(_from_ast(a) for a in node.args))
    raise TypeError(f"a dim has no {type(node).__name__}")
