"""Programs that another process can use: without the names, lines and seeds of the graph that they were made for.

What they say of a graph they say by the numbers of its `Canonical` form; `Portable.bind` puts in what the graph at hand
has under these numbers.
"""
from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence

import numpy as np

from graphc.cache import folder
from graphc.config import options
from graphc.errors import ParseError, report
from graphc.fingerprint import UnknownCompiler, fingerprint, is_unchanged
from graphc.ir.canonical import Canonical, NotPortable, renamed
from graphc.ir.graph import Graph
from graphc.ir.op import WatchedArray
from graphc.program import Program, plain_array
from graphc.records import changed


def kept_graph(graph: Graph, few: frozenset[str]) -> KeptGraph | None:
    """The graph, if programs of it, made for small sizes of the dims `few`, are kept: not where an option asks to see how they
    are made.
    """
    if not options.cache or options.dump or options.check or options.debug > 1 or options.explain:
        return None
    try:
        return KeptGraph(graph, few)
    except (NotPortable, UnknownCompiler) as e:
        if options.debug:
            print(f"graphc: {graph.name}: not kept: {e or 'source files have changed'}", file=sys.stderr)
        return None


class KeptGraph:
    """A graph whose program may be in the cache."""

    def __init__(self, graph: Graph, few: frozenset[str] = frozenset()):
        self.graph = graph
        self.form = Canonical(graph)
        small = ",".join(sorted(self.form.dims.get(name, name) for name in few))
        self.key = _digest(fingerprint(), ",".join(options.skip), options.front_end, small, self.form.text)

    def load(self) -> tuple[dict, list[bytes]] | None:
        """The document that is kept for the graph. Where its program depends on the elements of large constants, those are a
        part of the key: the first document only says which.
        """
        found = folder().load(self.key)
        if found is not None and found[0].get("looks"):
            found = folder().load(self._key_with(found[0]["looks"]))
        return found

    def save(self, looks: Sequence[int], document: dict, blobs: list[bytes]) -> None:
        """Keep a document for the next process. looks: the large constants at whose elements the compiler has looked."""
        if not is_unchanged():
            return
        kept, key = folder(), self.key
        if looks:
            before = kept.load(key)
            looks = sorted({*looks, *(before[0].get("looks", ()) if before else ())})
            kept.save(key, {"name": self.graph.name, "looks": looks}, [])
            key = self._key_with(looks)
        kept.save(key, {"name": self.graph.name, **document}, blobs)

    def _key_with(self, looks: Sequence[int]) -> str:
        contents = [self.form.arrays[k].content.reshape(-1).view(np.uint8) for k in looks]
        return _digest(self.key, ",".join(map(str, looks)), *(hashlib.sha256(c.data).hexdigest() for c in contents))

    # programs ----------------------------------------------------------------------------------------------------------

    def canonical_names(self) -> Callable[[str], str]:
        """The canonical name of each dim of a program of this graph; those that the compiler made get one, too."""
        made: dict[str, str] = {}
        return lambda name: self.form.dims.get(name) or made.setdefault(name, f"t{len(made)}")

    def own_names(self) -> Callable[[str], str]:
        """The name that each dim of a portable program has in this graph."""
        names = {new: old for old, new in self.form.dims.items()}

        def find(name: str) -> str:
            if name not in names:
                number = len(names)
                while f"size{number}" in self.form.dims:
                    number += 1000
                names[name] = f"size{number}"
            return names[name]
        return find

    def portable(self, program: Program, name: Callable[[str], str]) -> Program:
        """A program of the `watched` graph as every process can use it. name: the `canonical_names`."""
        constants = tuple(np.zeros(0, c.dtype) if k >= 0 else c for c, k in zip(program.constants, program.given, strict=True))
        drawn = tuple(self.form.drawn.index(seed) for seed in program.drawn)
        return with_dims(changed(program, constants=constants, drawn=drawn), name)

    def bound(self, program: Program, name: Callable[[str], str]) -> Program:
        """A portable program as one of this graph. name: its `own_names`."""
        constants = tuple(plain_array(self.form.arrays[k].content) if k >= 0 else c
                          for c, k in zip(program.constants, program.given, strict=True))
        drawn = tuple(self.form.drawn[k] for k in program.drawn)
        return self.with_lines(with_dims(changed(program, constants=constants, drawn=drawn), name))

    def with_lines(self, program: Program) -> Program:
        """The program with the lines of the nodes whose numbers it has."""
        def line(text: str) -> str:
            return str(self.form.nodes[int(text[1:])].location or "") if text.startswith("#") else text

        def located(rows):
            return tuple(changed(r, location=line(r.location)) for r in rows)
        named = tuple(changed(b, name=self.form.nodes[int(b.location[1:])].label) if b.dtype and b.location[:1] == "#" else b
                      for b in program.buffers)
        return changed(program, buffers=located(named), feeds=located(program.feeds), variables=located(program.variables),
                       outputs=located(program.outputs), records=located(program.records), failures=located(program.failures),
                       equations=tuple((a, b, line(at)) for a, b, at in program.equations))

    def looked_at(self, watched: Graph) -> list[int]:
        """The numbers of the large constants of the `watched` graph at which somebody looked."""
        found = {v for n in _all_nodes(watched) for v in n.attrs.values() if isinstance(v, WatchedArray) and v.seen}
        return sorted({v.number for v in found})


def named_like(program: Program, graph: Graph) -> Program:
    """The program of a whole graph with the names that its tensors have there. Raises ParseError if it is of another one."""
    inputs = {role: [n for n in graph.inputs if n.attrs["role"] == role] for role in ("feed", "variable")}
    outputs = [n for n in graph.outputs if n.type != ()]

    def named(rows, nodes):
        if len(rows) != len(nodes) or any(r.dtype != n.type.dtype.name or len(r.shape) != n.type.rank
                                          for r, n in zip(rows, nodes, strict=True)):
            raise report(ParseError, "the program is of another graph")
        return tuple(changed(r, name=n.label) for r, n in zip(rows, nodes, strict=True))
    return changed(program, name=graph.name, feeds=named(program.feeds, inputs["feed"]),
                   variables=named(program.variables, inputs["variable"]), outputs=named(program.outputs, outputs))


def with_dims(program: Program, name: Callable[[str], str]) -> Program:
    """The program with other names for its sizes."""
    def text(dim: str) -> str:
        return renamed(dim, lambda n: n if n == "threads_" else name(n))

    def texts(dims: Sequence[str]) -> tuple[str, ...]:
        return tuple(map(text, dims))

    def shaped(rows):
        return tuple(changed(r, shape=texts(r.shape)) for r in rows)
    records = tuple(changed(r, words=tuple(text(w) if w.startswith("=") else w for w in r.words), work=text(r.work),
                            repeats=text(r.repeats)) for r in program.records)
    failures = tuple(changed(f, shape=texts(f.shape), limit=None if f.limit is None else text(f.limit))
                     for f in program.failures)
    return changed(program, names=texts(program.names), feeds=shaped(program.feeds), variables=shaped(program.variables),
                   outputs=shaped(program.outputs), equations=tuple((text(a), text(b), at) for a, b, at in program.equations),
                   records=records, arena=text(program.arena), slots=texts(program.slots), failures=failures,
                   buffers=tuple(changed(b, bytes=text(b.bytes), shape=texts(b.shape)) for b in program.buffers))


def _all_nodes(graph: Graph):
    for node in graph.nodes():
        yield node
        for value in node.attrs.values():
            if isinstance(value, Graph):
                yield from _all_nodes(value)


def _digest(*parts: str) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(f"{len(part)}\n".encode())
        found.update(part.encode())
    return found.hexdigest()
