"""`record`: the frozen dataclasses of graphc, without what makes dataclasses slow to define.

A dataclass writes six methods as text and compiles them. Importing graphc defines dozens of classes, which took a quarter of
its time: here all share their methods but `__init__`, which is compiled when a class makes its first record.
"""
from __future__ import annotations

from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

NOTHING: Any = MappingProxyType({})     # the default of a field that holds a mapping: nobody can change it
Record = TypeVar("Record")


def _record(*, frozen: bool, eq: bool = True):
    """What `dataclasses.dataclass` does. The fields are the annotated names, those of the base first; values in the class body
    are their defaults; `__post_init__` is called at the end. Records are frozen; with `eq` they compare and hash by their
    fields.
    """
    assert frozen

    def make(cls: Any) -> Any:
        own = cls.__dict__.get("__annotations__", {})
        names = cls.__match_args__ = (*getattr(cls, "__match_args__", ()), *own)  # type: ignore[misc]

        def first(self, *values, **named):
            cls.__init__ = _initialiser(cls, names)
            cls.__init__(self, *values, **named)
        cls.__init__, cls.__setattr__, cls.__delattr__ = first, _refuse, _refuse
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = _text
        if eq:
            cls.__eq__, cls.__hash__ = _comparison(attrgetter(*names))
        return cls
    return make


def _initialiser(cls: type, names: tuple[str, ...]):
    defaults = {f"default_{n}": getattr(cls, n) for n in names if hasattr(cls, n)}
    arguments = [f"{n}=default_{n}" if f"default_{n}" in defaults else n for n in names]
    after = ["    self.__post_init__()"] if hasattr(cls, "__post_init__") else []
    space = {**defaults, "put": object.__setattr__}
    lines = [f"def __init__(self, {', '.join(arguments)}):", *(f"    put(self, {n!r}, {n})" for n in names), *after]
    exec("\n".join(lines), space)
    return space["__init__"]


def _comparison(fields):
    def __eq__(self, other):
        return fields(self) == fields(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self):
        return hash(fields(self))
    return __eq__, __hash__


def _text(self) -> str:
    return f"{type(self).__name__}({', '.join(f'{n}={getattr(self, n)!r}' for n in self.__match_args__)})"


def _refuse(self, name, *_):
    raise AttributeError(f"{type(self).__name__}.{name} cannot be changed: records are frozen")


def changed(one: Record, **fields) -> Record:
    """The record with some fields changed."""
    return type(one)(**{n: getattr(one, n) for n in one.__match_args__} | fields)  # type: ignore[attr-defined]


if TYPE_CHECKING:
    from dataclasses import dataclass as record
else:
    record = _record
