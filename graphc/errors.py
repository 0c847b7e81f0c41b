"""Every error graphc raises, and the one function that lays out their text.

An error says what is wrong, which operands are involved (with names, types and birthplaces), the rule that failed, and
the user's line. `report` builds that text; nothing else in graphc formats an error.
"""
from __future__ import annotations

import contextlib
import os
import sys
from types import FrameType

from graphc.records import record

PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class GraphcError(Exception):
    """Base class of all errors that graphc raises on purpose."""


class ShapeError(GraphcError, ValueError):
    """Shapes do not fit together."""


class DTypeError(GraphcError, TypeError):
    """Dtypes do not fit together."""


class ArgumentError(GraphcError, ValueError):
    """An argument has a value that the function does not accept."""


class GraphError(GraphcError, RuntimeError):
    """A graph is used against its rules: finalized, foreign, cyclic, empty."""


class OperatorError(GraphcError, TypeError):
    """A tensor is used where Python wants a value: `if tensor:`, `for a in tensor`."""


class FeedError(GraphcError, ValueError):
    """A feed is missing or does not fit its tensor."""


class FetchError(GraphcError, ValueError):
    """A fetch is not something that this session can compute."""


class StateError(GraphcError, RuntimeError):
    """A variable is uninitialised, or its writes have no order."""


class SessionError(GraphcError, RuntimeError):
    """A session is closed, or there is none."""


class RunError(GraphcError, ArithmeticError, IndexError):
    """A kernel met a value it cannot work on: a zero divisor, an index out of range, a failed check."""


class BudgetError(GraphcError, MemoryError):
    """A run would take more memory than the budget allows. Nothing was run."""


class ParseError(GraphcError, ValueError):
    """A text is not a graph."""


class VerifyError(GraphcError, AssertionError):
    """A graph breaks an invariant of the IR: a bug in a pass, or a text written by hand."""


class CompileError(GraphcError, RuntimeError):
    """A program cannot be built."""


@record(frozen=True)
class Location:
    """A line of the user's program."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{os.path.basename(self.file)}:{self.line}"


@record(frozen=True)
class Place(Location):
    """The line of a node, and the number of the node in the graph that is being compiled."""

    number: int = 0

    __str__ = Location.__str__


def user_location() -> Location | None:
    """The first frame outside graphc (and outside contextlib, which calls graphc's context managers), or None."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not frame.f_code.co_filename.startswith(PACKAGE) and frame.f_code.co_filename != contextlib.__file__:
            return Location(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None


def report(error: type[GraphcError], what: str, operands=(), rule: str = "", hint: str = "",
           location: Location | None = None) -> GraphcError:
    """An error of class `error` with graphc's one layout.

    what      what is wrong, in one line, starting with the op or call.
    operands  (role, description) pairs, one line each.
    rule      the rule that failed, with its values.
    hint      only when the fix is certain.
    location  the user's line; the current one when not given.
    """
    location = location or user_location()
    rows = [(str(role), *(str(description).split("  ", 1) + [""])[:2]) for role, description in operands]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    lines = [what]
    for role, subject, birthplace in rows:
        lines.append(f"    {role:<{widths[0]}}  {subject:<{widths[1]}}  {birthplace.strip()}".rstrip())
    if rule:
        lines.append(f"    {rule}")
    if hint:
        lines.append(f"    hint: {hint}")
    if location:
        lines.append(f"  in {location}")
    made = error("\n".join(lines))
    made.location = location  # type: ignore[attr-defined]
    return made


def with_line(error: GraphcError, text: str) -> GraphcError:
    """The same error with one line more, behind the first."""
    first, *others = str(error).split("\n")
    made = type(error)("\n".join([first, f"    {text}", *others]))
    made.location = getattr(error, "location", None)  # type: ignore[attr-defined]
    return made


class RuleError(Exception):
    """Raised by an op's type rule; the node maker dresses it with operands and the user's line."""

    def __init__(self, what: str, rule: str = "", error: type[GraphcError] = ShapeError, hint: str = ""):
        super().__init__(what)
        self.what, self.rule, self.error, self.hint = what, rule, error, hint
