"""What a program's texts say about sizes, as Python functions that are made once: from feeds' shapes to the named dims, and
from those to the words of an instance.

A first call with a new size runs while the processor's caches are full of the last call's data, where Python takes four times
as long as usual: only what really depends on sizes is computed then.
"""
from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Sequence

from graphc.errors import FeedError, ParseError, report
from graphc.ir import dims
from graphc.ir.dims import Size
from graphc.memory import THREADS
from graphc.program import ArraySpec, Program

DENSE_RATE = 60e3           # multiply-adds and loop operations that one core does in a microsecond, roughly
LOOP_RATE = 40e3

_DIM = re.compile(r"[\w+\-*/(), ]*\Z")
WORDS = re.compile(r"[A-Za-z_]\w*")
_PLAIN = {THREADS, "max", "min"}
_INNERMOST = re.compile(r"[a-z]*\([^()]*\)")


def _checked(text: str, names: Collection[str]) -> str:
    """A dim text that is safe to evaluate: numbers, operators, known names, max and min. Names get a prefix, lest they be those
    of other things in the generated function.
    """
    if text.isdecimal() and text.isascii():
        return text
    if not _DIM.match(text) or any(w not in names for w in WORDS.findall(text)):
        raise report(ParseError, f"the program is damaged: {text!r} is not a dim")
    return WORDS.sub(lambda word: word[0] if word[0] in _PLAIN else f"n_{word[0]}", text)


class _Lines:
    """The body of a generated function. What stands between parentheses is computed once, however many texts have it: the
    places of an arena are sums of the same few maxima.
    """

    def __init__(self):
        self.lines: list[str] = []
        self.known: dict[str, str] = {}

    def value(self, text: str) -> str:
        """A text without parentheses, of the same value."""
        while found := _INNERMOST.search(text):
            part = found[0]
            if part not in self.known:
                self.known[part] = f"p{len(self.known)}"
                self.lines.append(f"    {self.known[part]} = {part}")
            text = text[:found.start()] + self.known[part] + text[found.end():]
        return text

    def add(self, name: str, text: str) -> None:
        """One more assignment."""
        value = self.value(text)        # before its own line: it may add others
        self.lines.append(f"    {name} = {value}")


class Words:
    """The words of the argument table, and behind them the dims of feeds and outputs, one after the other.

    fixed, fixed_dims    the words of both, 0 where something else is written.
    feeds, outputs       for each array, the positions of the words that hold its address.
    runs, spans          positions of words: the address of the run number, and `FrameWord.SPAN`.
    places               (position, position of the word whose address is wanted there).

    needs(threads, least, *sizes) gives the bytes of the arena, for each record whether it takes less than `least` microseconds
    of one core, the microseconds of all with their repeats, and the outputs' shapes. fill(table, threads, arena, error, *sizes)
    writes the other words that an instance has of its own, for an arena and an error slot at these addresses; item by item, for
    that takes less code than an array's ways do.
    """

    def __init__(self, program: Program, constants: list[int], variables: list[int]):
        """constants, variables: addresses."""
        self.known = {"constant": constants, "variable": variables, "drawn": [int(d) for d in program.drawn]}
        self.feeds: list[list[int]] = [[] for _ in program.feeds]
        self.outputs: list[list[int]] = [[] for _ in program.outputs]
        self.runs: list[int] = []
        self.spans: list[int] = []
        self.fixed: list[int] = []
        self.formulas: dict[str, list[int]] = {}     # text -> where its value is written
        self.names = {*program.names, *_PLAIN}
        self.slots = len(program.slots)
        for record in program.records:
            for word in record.words:
                self._add(word)
        self.places = _place_words(program)
        self.fixed_dims: list[int] = []
        for dim in (d for spec in (*program.feeds, *program.outputs) for d in spec.shape):
            if not dim.isdecimal():
                self._vary(_checked(dim, self.names), len(self.fixed) + len(self.fixed_dims))
            self.fixed_dims.append(int(dim) if dim.isdecimal() else 0)
        space = {"max": max, "min": min, "__builtins__": {}}
        exec("\n".join([*self._needs(program), *self._fill(program)]), space)
        self.needs, self.fill = space["needs"], space["fill"]

    def _vary(self, formula: str, position: int) -> None:
        self.formulas.setdefault(formula, []).append(position)

    def _add(self, word: str) -> None:
        """One more word of the table."""
        kind, _, rest = word.partition(" ")
        place, value = len(self.fixed), 0
        number = int(rest) if rest.isdecimal() else -1
        if kind == "=" and 0 <= number < 2**63:
            value = number
        elif kind == "=":
            self._vary(_checked(rest, self.names), place)
        elif kind in self.known and 0 <= number < len(self.known[kind]):
            value = self.known[kind][number]
        elif kind == "slot" and 0 <= number < self.slots:
            self._vary(f"slot{number}", place)
        elif kind == "feed" and 0 <= number < len(self.feeds):
            self.feeds[number].append(place)
        elif kind == "output" and 0 <= number < len(self.outputs):
            self.outputs[number].append(place)
        elif word == "error":
            self._vary("error", place)
        elif word in ("run", "span"):
            {"run": self.runs, "span": self.spans}[word].append(place)
        elif kind != "place" and word != "row":
            raise report(ParseError, f"the program is damaged: {word!r} is not an argument of a kernel")
        self.fixed.append(value)

    def _needs(self, program: Program) -> list[str]:
        """The lines of `needs`. Counts of operations are compared and summed up, so that few are divided."""
        body, short, counts = _Lines(), [], {DENSE_RATE: ["0"], LOOP_RATE: ["0"]}
        for k, record in enumerate(program.records):
            rate = DENSE_RATE if record.dense else LOOP_RATE
            body.add(f"w{k}", _checked(record.work, self.names))
            short.append(f"w{k} < least * {rate}, ")
            repeats = _checked(record.repeats, self.names)
            counts[rate].append(f"w{k}" if repeats == "1" else f"w{k} * {body.value(f'({repeats})')}")
        shapes = ["(" + "".join(body.value(_checked(d, self.names)) + ", " for d in s.shape) + ")" for s in program.outputs]
        arena = body.value(_checked(program.arena, self.names))
        total = " + ".join(f"({' + '.join(found)}) / {rate}" for rate, found in counts.items())
        return [f"def needs({', '.join((THREADS, 'least', *_variables(program)))}):", *body.lines,
                f"    return {arena}, ({''.join(short)}), {total}, [{', '.join(shapes)}]"]

    def _fill(self, program: Program) -> list[str]:
        """The lines of `fill`."""
        body = _Lines()
        for k, place in enumerate(program.slots):
            body.add(f"slot{k}", f"arena + {_checked(place, self.names)}")
        for formula, places in self.formulas.items():
            body.add(" = ".join(f"table[{place}]" for place in places), formula)
        names = ", ".join(("table", THREADS, "arena", "error", *_variables(program)))
        return [f"def fill({names}):", *body.lines, "    return"]


def _variables(program: Program) -> list[str]:
    """The names of a program's sizes as `_checked` gives them."""
    return [f"n_{n}" for n in program.names]


def _place_words(program: Program) -> list[tuple[int, int]]:
    """(position, position of the word whose address is wanted there) of the words that say so."""
    starts = list(itertools.accumulate((len(r.words) for r in program.records), initial=0))
    found = []
    for start, record in zip(starts, program.records, strict=False):
        for k, word in enumerate(record.words):
            if word.startswith("place"):
                match = re.fullmatch(r"place (\d+) (\d+)", word)
                number, place = map(int, match.groups()) if match else (-1, 0)
                if not (0 <= number < len(program.records) and place < len(program.records[number].words)):
                    raise report(ParseError, f"the program is damaged: {word!r} is not a place")
                found.append((start + k, starts[number] + place))
    return found


def told_sizes(program: Program) -> list[tuple[str, int, int, Size, int]]:
    """Which axis of which feed tells each named dim, in the order in which they can be found: (name, feed, axis, rest, factor)
    where the axis has the size factor * name + rest.
    """
    axes = [(k, axis, dim) for k, spec in enumerate(program.feeds) for axis, dim in enumerate(spec.shape)]
    found: dict[str, tuple[str, int, int, Size, int]] = {}
    for k, axis, dim in axes:
        if dim.isidentifier():
            found.setdefault(dim, (dim, k, axis, 0, 1))
    waiting = [(k, axis, dims.parse(dim)) for k, axis, dim in axes if not dim.isidentifier() and not dim.isdecimal()]
    while True:
        for k, axis, size in waiting:
            unknown = [n for n in dims.names(size) if n not in found]
            factor = dict(size.terms).get((unknown[0],)) if len(unknown) == 1 and isinstance(size, dims.Dim) else None
            rest = size - dims.name(unknown[0]) * factor if factor else size
            if factor and unknown[0] not in dims.names(rest):
                found[unknown[0]] = unknown[0], k, axis, rest, factor
                break
        else:
            return list(found.values())


def binder(program: Program):
    """A generated function from the feeds' shapes to the sizes of the named dims; None where they do not fit."""
    names = {*program.names, "max", "min"}
    lines = [f"def bind({', '.join(f's{k}' for k in range(len(program.feeds)))}):"]
    for k, spec in enumerate(program.feeds):
        sizes = [f"d{k}_{axis}, " for axis in range(len(spec.shape))]
        lines.append(f"    {''.join(sizes)} = s{k}" if sizes else f"    () = s{k}")
    found = told_sizes(program)
    plain = {(k, axis) for _, k, axis, rest, factor in found if not rest and factor == 1}
    checks = [f"d{k}_{axis} == {_checked(dim, names)}" for k, spec in enumerate(program.feeds)
              for axis, dim in enumerate(spec.shape) if (k, axis) not in plain]
    for name, k, axis, rest, factor in found:
        value = f"d{k}_{axis}" if (k, axis) in plain else f"(d{k}_{axis} - ({_checked(str(rest), names)})) // {factor}"
        lines.append(f"    {_checked(name, names)} = {value}")
        checks += [f"n_{name} >= 0"] if rest else []
    checks += [f"{_checked(a, names)} == {_checked(b, names)}" for a, b, _ in program.equations]
    missing = [n for n in program.names if n not in [name for name, *_ in found]]
    if missing:
        raise report(FeedError, f"no feed tells the size of {', '.join(missing)}",
                     [(s.name, spec_text(s)) for s in program.feeds],
                     "a named dim must be an axis of a tensor that is fed")
    lines.append(f"    return ({''.join(f'{n}, ' for n in _variables(program))}) if {' and '.join(checks) or 'True'} else None")
    space = {"max": max, "min": min, "__builtins__": {}}
    exec("\n".join(lines), space)
    return space["bind"]


def chooser(program: Program, sizes: Sequence[Size], small: Collection[str], limit: int) -> Callable[..., bool]:
    """A generated function of a program's sizes: whether the named dims of those of `sizes` that are below `limit` are just the
    `small` ones. It says no where the program does not know them all.
    """
    names = {*program.names, "max", "min"}
    if any(name not in names for size in sizes for name in dims.names(size)):
        return lambda *_: False
    known = [(frozenset(dims.names(size)), f"({_checked(str(size), names)})") for size in sizes]
    tests = [f"{text} >= {limit}" for found, text in known if not found <= {*small}]
    tests += ["(" + " or ".join(f"{text} < {limit}" for found, text in known if name in found) + ")" for name in sorted(small)]
    return eval(f"lambda {', '.join(_variables(program))}: {' and '.join(tests)}", {"max": max, "min": min, "__builtins__": {}})


def spec_text(spec: ArraySpec) -> str:
    """`x: float32[N,3]`, and where it was made."""
    return f"{spec.name}: {spec.dtype}[{','.join(spec.shape)}]" + (f"  made at {spec.location}" if spec.location else "")
