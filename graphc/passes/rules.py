"""The rewrite rules of `simplify`. Each is exact: the same value for every input, NaN and Inf included."""
from __future__ import annotations

from graphc.ir.node import Node
from graphc.passes.rewrite import Letter, Rule, call

x, y = Letter("x"), Letter("y")


def rule(name: str, pattern, result, condition=None, dtypes: str = "any") -> Rule:
    """A rule; see rewrite.Rule."""
    return Rule(name, pattern, result, condition, dtypes)


def _same_type(node: Node, found) -> bool:
    return found["x"].type == node.type


def _is_identity(node: Node, found) -> bool:
    perm = node.attrs["perm"]
    return tuple(perm) == tuple(range(len(perm)))


RULES = [
    rule("read", call("read", x), x),
    rule("identity", call("identity", x), x),
    rule("stop-gradient", call("stop_gradient", x), x),
    rule("mul-one", x * 1, x),
    rule("one-mul", 1 * x, x),
    rule("div-one", x / 1, x),
    rule("sub-zero", x - 0, x),
    rule("mul-minus-one", x * -1, -x, dtypes="number"),
    rule("minus-one-mul", -1 * x, -x, dtypes="number"),
    rule("neg-neg", -(-x), x),  # noqa: B002 (it is no decrement)
    rule("add-neg", x + (-y), x - y),
    rule("neg-add", (-x) + y, y - x),
    rule("sub-neg", x - (-y), x + y),
    rule("mul-neg-neg", (-x) * (-y), x * y),
    rule("not-not", call("logical_not", call("logical_not", x)), x),
    rule("reshape-same", call("reshape", x), x, _same_type),
    rule("broadcast-same", call("broadcast_to", x), x, _same_type),
    rule("transpose-same", call("transpose", x), x, _is_identity),
    rule("cast-same", call("cast", x), x, _same_type),
]
