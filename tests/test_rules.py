"""Rewrite rules: each is true for every value, each is alive, and an endless loop names the rules in it."""
import itertools

import numpy as np
import pytest

from graphc.errors import CompileError, GraphcError
from graphc.ir.container import detached
from graphc.ir.graph import Graph
from graphc.ir.interpreter import interpret
from graphc.ir.node import Node, input_node, make
from graphc.ir.op import OPS
from graphc.ir.parser import parse
from graphc.ir.types import DTYPES, TensorType
from graphc.ops.define import CLASSES
from graphc.passes.rewrite import Letter, Pattern, Rule, apply_rules, construct, rewrite_once
from graphc.passes.rules import RULES

SHAPE = (3, 4)
# Attributes with which a rule's left side meets the rule's condition. They are of no interest to the pattern.
ATTRIBUTES = {"reshape-same": {"shape": SHAPE}, "broadcast-same": {"shape": SHAPE}, "transpose-same": {"perm": (0, 1)}}
BY_NAME = {r.name: r for r in RULES}


def letters(pattern) -> list[str]:
    """The letters of a pattern, each once."""
    if isinstance(pattern, Letter):
        return [pattern.name]
    inner = pattern.inputs if isinstance(pattern, Pattern) else ()
    return list(dict.fromkeys(itertools.chain.from_iterable(letters(i) for i in inner)))


def sides(rule: Rule, dtype) -> tuple[Graph, Graph] | None:
    """Both sides of a rule as graphs of its letters; None when the rule says nothing about this dtype."""
    with detached():
        found = {name: input_node(name, TensorType(dtype, SHAPE)) for name in letters(rule.pattern)}
        attrs = dict(rule.pattern.attrs) | ATTRIBUTES.get(rule.name, {})
        if "dtype" in OPS[rule.pattern.op].attrs:
            attrs["dtype"] = dtype
        try:
            inner = [construct(i, found, next(iter(found.values()))) for i in rule.pattern.inputs]
            left = make(OPS[rule.pattern.op], tuple(inner), attrs)
        except GraphcError:
            return None
        step = rewrite_once(left, [rule])
    if step is None:
        return None
    inputs = tuple(found.values())
    return Graph("left", inputs, (left,)), Graph("right", inputs, (step[0],))


def values(dtype, rng) -> np.ndarray:
    """Random values, the hard ones among them."""
    if dtype.is_bool:
        return rng.integers(0, 2, SHAPE).astype(bool)
    if dtype.is_floating:
        hard = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, 1e-45, 1.7e308, 3.4e38, -1.0, 1.0, 1e-310])
        with np.errstate(over="ignore"):
            hard = hard.astype(dtype.numpy)
        mixed = np.where(rng.random(SHAPE) < 0.6, rng.permutation(hard).reshape(SHAPE), rng.normal(size=SHAPE))
        return mixed.astype(dtype.numpy)
    limits = np.iinfo(dtype.numpy)
    hard = np.array([limits.min, limits.max, 0, 1, limits.min + 1, limits.max - 1], dtype.numpy)
    return rng.choice(np.append(hard, rng.integers(limits.min, limits.max, 6, dtype.numpy)), SHAPE)


@pytest.mark.parametrize("name", BY_NAME)
def test_left_equals_right(name):
    """Exactly: NaN where NaN is, and zeros of the same sign."""
    rng = np.random.default_rng(0)
    tried = 0
    for dtype in DTYPES:
        both = sides(BY_NAME[name], dtype)
        if both is None:
            continue
        assert CLASSES[BY_NAME[name].dtypes](dtype)
        for _ in range(40):
            given = [values(dtype, rng) for _ in both[0].inputs]
            (left,), (right,) = (interpret(g, given) for g in both)
            assert left.dtype == right.dtype
            assert np.array_equal(left, right, equal_nan=dtype.is_floating), f"{dtype}: {left} {right}"
            if dtype.is_floating:
                numbers = ~np.isnan(left)
                assert np.array_equal(np.signbit(left)[numbers], np.signbit(right)[numbers]), f"{dtype}: {left} {right}"
            tried += 1
    assert tried, "no dtype: the rule never applies"


@pytest.mark.parametrize("name", BY_NAME)
def test_no_other_rule_takes_the_left_side_away(name):
    rule = BY_NAME[name]
    others = [r for r in RULES if r is not rule]
    for dtype in DTYPES:
        if (both := sides(rule, dtype)) is not None:
            left = both[0].outputs[0]
            assert apply_rules(both[0], others).outputs[0] is left, f"dead: {rewrite_once(left, others)[1]} comes first"
            return


def test_names_are_unique():
    assert len(BY_NAME) == len(RULES)


def rewritten(text: str) -> Node:
    return apply_rules(parse(text), RULES).outputs[0]


def test_a_broadcasting_left_side_keeps_its_shape():
    node = rewritten("""graph f(x: f32[4]) {
  %one: f32[2,4] = constant(value=[[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
  %0: f32[2,4] = multiply(x, %one)
  return %0
}""")
    assert str(node.type) == "f32[2,4]"
    assert node.inputs[0].name == "x"


def test_the_sign_of_a_zero_counts():
    text = "graph f(x: f32[4]) {{\n  %0: f32[] = constant(value={})\n  %1: f32[4] = subtract(x, %0)\n  return %1\n}}"
    assert rewritten(text.format("0.0")).name == "x"
    assert rewritten(text.format("-0.0")).name == "1"  # -0.0 - -0.0 is 0.0


def test_one_letter_is_one_node():
    x, y = Letter("x"), Letter("y")
    rule = Rule("sub-same", x - x, 0)
    a, b = (input_node(n, TensorType(DTYPES[2], SHAPE)) for n in "ab")
    assert rewrite_once(make(OPS["subtract"], (a, b)), [rule]) is None
    found, name = rewrite_once(make(OPS["subtract"], (a, a)), [rule])
    assert name == "sub-same"
    assert found.type.shape == SHAPE
    assert letters(x - y) == ["x", "y"]


def test_an_endless_loop_names_its_rules():
    x, y = Letter("x"), Letter("y")
    rules = [Rule("there", x + y, y * x), Rule("back", x * y, y + x)]
    graph = parse("graph f(x: f32[4], y: f32[4]) {\n  %0: f32[4] = add(x, y)\n  return %0\n}")
    with pytest.raises(CompileError, match="rewrite rules go round in circles: (there, back|back, there)"):
        apply_rules(graph, rules)
