"""Text to graph: a tokenizer of one regular expression and a recursive-descent parser. The grammar is in docs/ir.md."""
from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from graphc.errors import GraphcError, Location, ParseError, report
from graphc.ir import dims
from graphc.ir.graph import Equation, Graph, is_required
from graphc.ir.node import Node, input_node, make
from graphc.ir.op import OPS, Array, Kind
from graphc.ir.types import BY_SHORT, TensorType, type_text

_TOKENS = re.compile(r"""
    (?P<space>[ \t\r]+) | (?P<newline>\n) | (?P<comment>\#[^\n]*)
  | (?P<string>"(?:[^"\\\n]|\\.)*")
  | (?P<ref>%[A-Za-z0-9_.\-/]+)
  | (?P<number>(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)
  | (?P<word>[A-Za-z_.][A-Za-z0-9_.\-/]*)
  | (?P<mark>//|==|[(){}\[\],:=+*\-/])
""", re.VERBOSE)
_KINDS = {"ref": "%name", "word": "a name", "number": "a number", "string": "a text"}
_LOCATION = re.compile(r"#\s*(\S+):(\d+)\s*$")


def parse(text: str, arrays: Mapping[str, np.ndarray] | None = None) -> Graph:
    """The graph that `text` spells. `arrays`: digest -> value of the constants that the text only names.

    Raises ParseError with line and column; a node may only use nodes above it, so a cycle is an error with its name.
    """
    parser = _Parser(text, arrays or {})
    graph = parser.graph({})
    parser.skip_newlines()
    if parser.kind != "end":
        raise parser.error("text after the graph")
    return graph


class _Parser:
    def __init__(self, text: str, arrays: Mapping[str, np.ndarray]):
        self.lines = text.split("\n")
        self.arrays = arrays
        self.tokens = list(_tokens(text, self.lines))
        self.position = 0

    # tokens ------------------------------------------------------------------------------------------------------------

    @property
    def kind(self) -> str:
        return self.tokens[self.position][0]

    @property
    def text(self) -> str:
        return self.tokens[self.position][1]

    def error(self, what: str) -> GraphcError:
        _, text, line, column = self.tokens[min(self.position, len(self.tokens) - 1)]
        return parse_error(what, self.lines, line, column, text)

    def take(self, text: str | None = None, kind: str | None = None) -> str:
        if (text is not None and self.text != text) or (kind is not None and self.kind != kind):
            where = {"end": "the text ends", "newline": "the line ends"}.get(self.kind)
            wanted = text or _KINDS[kind or ""]
            raise self.error(f"{where} where {wanted} should be" if where else f"expected {wanted}, found {self.text!r}")
        self.position += 1
        return self.tokens[self.position - 1][1]

    def accept(self, text: str) -> bool:
        if self.text == text and self.kind in ("mark", "word", "newline"):
            self.position += 1
            return True
        return False

    def skip_newlines(self) -> None:
        while self.kind in ("newline", "comment"):
            self.position += 1

    # grammar -----------------------------------------------------------------------------------------------------------

    def graph(self, outer: dict) -> Graph:
        self.skip_newlines()
        self.take("graph")
        name = self.take(kind="word")
        values: dict[str, Node] = {}
        inputs = self.parameters(values)
        self.take("{")
        self.skip_newlines()
        equations = []
        while self.accept("require"):
            left = self.dim(("==",))
            self.take("==")
            right = self.dim(("",))
            equations.append(Equation(left, right, self.location()))
            self.skip_newlines()
        while self.text != "return":
            self.statement(values)
            self.skip_newlines()
        self.take("return")
        outputs = []
        while self.kind in ("ref", "word"):
            outputs.append(self.value(values))
            if not self.accept(","):
                break
        self.skip_newlines()
        self.take("}")
        required = tuple(n for n in values.values() if is_required(n))
        return Graph(name, tuple(inputs), tuple(outputs), tuple(equations), required)

    def parameters(self, values) -> list[Node]:
        inputs = []
        self.take("(")
        while not self.accept(")"):
            name = self.take(kind="ref" if self.kind == "ref" else "word")
            self.take(":")
            type_ = self.type()
            role = self.take("variable") if self.kind == "word" else "feed"
            if name in values:
                raise self.error(f"a second parameter called {name}")
            values[name] = input_node(name.removeprefix("%"), type_, role)
            inputs.append(values[name])
            if self.text != ")":
                self.take(",")
        return inputs

    def statement(self, values) -> None:
        start = self.position
        ref = self.take(kind="ref")
        if ref in values:
            self.position = start
            raise self.error(f"a second value called {ref}")
        self.take(":")
        declared = self.type()
        self.take("=")
        op_name = self.take(kind="word")
        if op_name not in OPS:
            self.position -= 1
            raise self.error(f"there is no op called {op_name}")
        op = OPS[op_name]
        inputs, attrs = self.arguments(values, op, declared)
        control = self.control(values)
        location = self.body(op, attrs)
        try:
            node = make(op, tuple(inputs), attrs, control=control, name=ref[1:], location=location)
        except (GraphcError, TypeError, ValueError, IndexError, AttributeError, KeyError) as e:
            self.position = start
            raise self.error(f"{op_name}: {str(e).splitlines()[0]}") from None
        if node.type != declared:
            self.position = start
            raise self.error(f"{ref} is declared {type_text(declared)}, but {op_name} gives {type_text(node.type)}")
        values[ref] = node

    def arguments(self, values, op, declared) -> tuple[list[Node], dict]:
        inputs, attrs = [], {}
        self.take("(")
        while not self.accept(")"):
            if self.kind == "word" and self.tokens[self.position + 1][1] == "=":
                key = self.take()
                self.take("=")
                is_number = op.kind is Kind.CONSTANT and self.text not in ("[", "empty", "array")
                attrs[key] = Array(self.number_of(declared)) if is_number else self.attribute(declared)
            else:
                inputs.append(self.value(values))
            if self.text != ")":
                self.take(",")
        return inputs, attrs

    def control(self, values) -> list[Node]:
        control = []
        if self.accept("after"):
            self.take("(")
            while not self.accept(")"):
                control.append(self.value(values))
                if self.text != ")":
                    self.take(",")
        return control

    def body(self, op, attrs) -> Location | None:
        """The nested graphs of an op that has some, and the user line behind the statement."""
        location = None
        if self.accept("{"):
            location = self.location()
            self.skip_newlines()
            while self.text != "}":
                key = "body"
                if self.text != "graph":
                    key = self.take(kind="word")
                    self.take("=")
                if key not in op.attrs or key in attrs:
                    raise self.error(f"{op.name} has no place for a graph called {key!r}")
                attrs[key] = self.graph({})
                self.skip_newlines()
            self.take("}")
        return self.location() or location

    def location(self) -> Location | None:
        if self.kind != "comment":
            return None
        match = _LOCATION.match(self.take())
        return Location(match[1], int(match[2])) if match else None

    def value(self, values) -> Node:
        name = self.text
        if name not in values:
            later = any(t[1] == name for t in self.tokens[self.position + 1:]) and name.startswith("%")
            raise self.error(f"{name} is used before it is made: a cycle, or lines out of order" if later
                             else f"there is no value called {name}")
        self.position += 1
        return values[name]

    def type(self):
        if self.accept("("):
            types = []
            while not self.accept(")"):
                types.append(self.type())
                if self.text != ")":
                    self.take(",")
            return tuple(types)
        short = self.take(kind="word")
        if short not in BY_SHORT:
            self.position -= 1
            raise self.error(f"there is no dtype called {short}")
        self.take("[")
        shape = []
        while not self.accept("]"):
            shape.append(self.dim((",", "]")))
            if self.text != "]":
                self.take(",")
        return TensorType(BY_SHORT[short], tuple(shape))

    def dim(self, ends) -> dims.Size:
        """A dim expression: the tokens up to a comma or bracket of this level."""
        depth, words, start = 0, [], self.position
        while depth or self.text not in ends:
            if self.kind in ("end", "newline", "comment"):
                if "" in ends and not depth:
                    break
                raise self.error("a dim that does not end")
            depth += {"(": 1, ")": -1}.get(self.text, 0)
            words.append(self.take())
        try:
            return dims.parse("".join(words))
        except ValueError as e:
            self.position = start
            raise self.error(str(e)) from None

    def attribute(self, declared):
        if self.kind == "string":
            return re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], self.take()[1:-1])
        if self.text == "(" and not self.is_dim_ahead():
            return self.tuple_attribute(declared)
        if self.text == "[" or self.text == "empty":
            return self.array(declared)
        if self.text == "array":
            return self.stored_array(declared)
        words = {"true": True, "false": False, "none": None, "inf": float("inf"), "nan": float("nan")}
        if self.text in words:
            return words[self.take()]
        if self.text in BY_SHORT:
            if self.tokens[self.position + 1][1] == "[":
                return self.type()
            return BY_SHORT[self.take()]
        return self.number_or_dim()

    def is_dim_ahead(self) -> bool:
        """Whether the bracket here opens a dim such as `(N+1)//2`: the token behind its end is an operator."""
        depth = 0
        for at in range(self.position, len(self.tokens)):
            depth += {"(": 1, ")": -1}.get(self.tokens[at][1], 0)
            if depth == 0:
                return self.tokens[at + 1][1] in ("//", "*", "+", "-")
        return False

    def tuple_attribute(self, declared) -> tuple:
        self.take("(")
        items = []
        while not self.accept(")"):
            items.append(self.attribute(declared))
            if self.text != ")":
                self.take(",")
        return tuple(items)

    def number_or_dim(self):
        at = self.position + (self.text == "-")
        (kind, text, *_), behind = self.tokens[at], self.tokens[min(at + 1, len(self.tokens) - 1)][1]
        if (kind == "number" or text in ("inf", "nan")) and behind in (",", ")", "]"):
            return self.number()
        return self.dim((",", ")"))

    def number(self):
        sign = -1 if self.accept("-") else 1
        if self.kind == "word":
            word = self.take()
            values = {"inf": float("inf"), "nan": float("nan"), "true": True, "false": False}
            if word not in values:
                self.position -= 1
                raise self.error(f"{word!r} is not a number")
            return sign * values[word] if sign < 0 else values[word]
        text = self.take(kind="number")
        return sign * (int(text) if text.isdigit() else float(text))

    def number_of(self, declared) -> np.ndarray:
        """A number of the declared dtype."""
        start = self.position
        try:
            return np.array(self.number(), declared.dtype.numpy)
        except (OverflowError, AttributeError) as e:
            self.position = start
            raise self.error(f"the number does not fit: {e}") from None

    def array(self, declared) -> Array:
        if self.accept("empty"):
            return Array(np.empty(self.nested(), declared.dtype.numpy))
        start = self.position
        try:
            return Array(np.array(self.nested(), declared.dtype.numpy))
        except (ValueError, OverflowError, AttributeError) as e:
            self.position = start
            raise self.error(f"the array does not fit: {e}") from None

    def nested(self):
        if not self.accept("["):
            return self.number()
        items = []
        while not self.accept("]"):
            items.append(self.nested())
            if self.text != "]":
                self.take(",")
        return items

    def stored_array(self, declared) -> Array:
        self.take("array")
        self.take("(")
        digest = self.take(kind="string")[1:-1]
        self.take(")")
        if digest not in self.arrays:
            raise self.error(f"the data of the constant {digest} is missing: keep the .npz file beside the text")
        value = np.asarray(self.arrays[digest])
        return Array(value.view(declared.dtype.numpy) if value.dtype.kind == "V" else value)  # .npz files know no bfloat16


def parse_error(what: str, lines, line: int, column: int, text: str = "") -> GraphcError:
    """A ParseError that shows the line."""
    shown = lines[line - 1] if line <= len(lines) else ""
    return report(ParseError, f"line {line}, column {column}: {what}", [("", shown.strip())])


def _tokens(text: str, lines):
    position, line, start = 0, 1, 0
    while position < len(text):
        match = _TOKENS.match(text, position)
        if not match:
            raise parse_error(f"{text[position]!r} has no meaning here", lines, line, position - start + 1)
        kind = match.lastgroup or ""
        if kind != "space":
            yield kind, match[0], line, position - start + 1
        if kind == "newline":
            line, start = line + 1, match.end()
        position = match.end()
    yield "end", "", line, position - start + 1
