"""Gets a graph out of what the command line names: a script, run up to its first run of a session, or a dumped text."""
from __future__ import annotations

import contextlib
import difflib
import linecache
import os
import re
import runpy
import sys
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np

from graphc.errors import GraphcError, Location, report
from graphc.ir import dims
from graphc.ir.container import Graph as Container
from graphc.ir.container import get_default_graph, reset_default_graph
from graphc.ir.graph import Graph, capture, new_dims, topological, used_dims
from graphc.ir.node import Node
from graphc.ir.op import Kind
from graphc.ir.parser import parse
from graphc.passes.segment import native_graphs
from graphc.session import Session
from graphc.variable import Variable


class InputError(GraphcError, ValueError):
    """What a command was given cannot be used."""


@dataclass(frozen=True)
class Loaded:
    """A graph, before any pass. Of a script also the nodes that were fetched, in the user's graph; of a text none."""

    path: Path
    graph: Graph
    roots: tuple[Node, ...] = ()
    container: Container | None = None

    @property
    def is_fused(self) -> bool:
        """Whether a text was dumped after fusion: no pass applies any more."""
        return any(n.op.kind is Kind.REGION for graph in native_graphs(self.graph) for n in graph.nodes())


def load(target: str, arguments: Sequence[str] = ()) -> Loaded:
    """The graph of `FILE[:NAME]`; `arguments` are the script's. Raises InputError, ParseError, errors of the script."""
    path, name = split_target(target)
    if path.suffix == ".py":
        return _load_script(path, name, arguments)
    return _load_text(path, name)


def note(text: str) -> None:
    """A message for the user: never on stdout."""
    print(f"graphc: {text}", file=sys.stderr)


def split_target(target: str) -> tuple[Path, str]:
    """The file and the name behind the colon; names such as "loss:0" and files with a colon are no problem."""
    ends = [len(target), *(m.start() for m in reversed(list(re.finditer(":", target))))]
    for end in ends:
        if Path(target[:end]).is_file():
            return Path(target[:end]).resolve(), target[end + 1:]
    shown = target.partition(":")[0]
    if Path(shown).is_dir():
        raise report(InputError, f"{shown} is a folder, not a script or a dumped text")
    folder = Path(shown).parent
    near = difflib.get_close_matches(Path(shown).name, os.listdir(folder), n=3) if folder.is_dir() else []
    raise report(InputError, f"there is no file {shown}", rule=f"nearest names: {', '.join(near)}" if near else "")


def _program_name(path: Path) -> str:
    name = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    return name if not name[:1].isdigit() else "_" + name


# texts --------------------------------------------------------------------------------------------


def _load_text(path: Path, name: str) -> Loaded:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise report(InputError, f"{path.name} is neither a Python script (.py) nor a dumped text") from None
    sections = re.split(r"^=== (.*)\n", text, flags=re.MULTILINE)
    if len(sections) > 1 and not sections[0].strip():
        note(f"{path.name} holds {len(sections) // 2} stages; reading the first, {sections[1].strip()!r}")
        text = sections[2]
    graph = parse(text, _arrays_beside(path))
    if name:
        graph = _narrowed(graph, [_named_node(graph, n, path) for n in name.split(",")])
    return Loaded(path, graph)


def _arrays_beside(path: Path) -> Mapping[str, np.ndarray]:
    """The large constants of a text: in the .npz of its name."""
    beside = path.with_suffix(".npz")
    if not beside.is_file():
        return {}
    try:
        with np.load(beside, allow_pickle=False) as arrays:
            return {digest: arrays[digest] for digest in arrays.files}
    except (ValueError, zipfile.BadZipFile):
        raise report(InputError, f"{beside.name} does not hold the constants of {path.name}") from None


def _named_node(graph: Graph, name: str, path: Path) -> Node:
    known = {n.name: n for n in graph.nodes()}
    wanted = name.removeprefix("%").removesuffix(":0")
    if wanted not in known:
        raise _unknown_name(name, known, path)
    return known[wanted]


def _narrowed(graph: Graph, roots: Sequence[Node]) -> Graph:
    """The part of a graph that `roots` need."""
    required: tuple[Node, ...] = ()
    while True:
        order = topological((*required, *roots))
        used = {name for n in order for name in used_dims(n)}
        more = tuple(n for n in graph.required if n in order or not used.isdisjoint(new_dims(n)))
        if more == required:
            break
        required = more
    needed = set(order)
    inputs = tuple(i for i in graph.inputs if i in needed)
    known = {n for i in inputs for d in i.type.shape for n in dims.names(d)} | {n for r in required for n in new_dims(r)}
    equations = tuple(e for e in graph.equations if known.issuperset((*dims.names(e.left), *dims.names(e.right))))
    return Graph(graph.name, inputs, tuple(roots), equations, required)


def _unknown_name(name: str, known, path: Path) -> GraphcError:
    near = difflib.get_close_matches(name.removesuffix(":0"), [k for k in known if k], n=3)
    return report(InputError, f"{path.name} has no tensor, operation or variable called {name!r}",
                  rule=f"nearest names: {', '.join(near)}" if near else "", location=None)


# scripts ------------------------------------------------------------------------------------------


def _load_script(path: Path, name: str, arguments: Sequence[str]) -> Loaded:
    script = run_script(path, arguments)
    graph = script.graph
    if name:
        roots = [node for word in name.split(",") for node in script.find(word)]
        graph = roots[0].graph or graph
        if any(r.graph is not graph for r in roots):
            raise report(InputError, f"the tensors of {name!r} are in different graphs")
    else:
        roots = sinks(graph)
        if not roots:
            what = "builds no graph" if not graph.nodes else "builds nothing but variables, placeholders and constants"
            raise report(InputError, f"{path.name} {what}", hint=f"name one of them: {path.name}:{graph.nodes[-1].name}"
                         if graph.nodes else "")
    if len(script.graphs) > 1:
        note(f"{path.name} builds {len(script.graphs)} graphs; "
             + ("taking the one of the named tensor" if name else "taking the one that it used last"))
    return Loaded(path, capture(_program_name(path), list(dict.fromkeys(roots))), tuple(dict.fromkeys(roots)), graph)


def sinks(graph: Container) -> list[Node]:
    """What nothing else in the graph needs, but for initialisers, plain inputs and reads of variables."""
    needed = {i for node in graph.nodes for i in node.inputs + node.control}
    needed |= {graph.binders[name] for n in graph.nodes for name in used_dims(n)
               if name in graph.binders and graph.binders[name] is not n}
    initial = initialisers(graph)
    plain = (Kind.INPUT, Kind.CONSTANT)

    def counts(node: Node) -> bool:
        if node in needed or node in initial or node.op.kind in plain:
            return False
        if node.op.kind is Kind.EFFECT and node.op.rule.action == "read":
            return False
        if isinstance(node.type, tuple):
            return not node.type and bool(node.inputs + node.control)  # an operation that does something
        return True
    return [n for n in graph.nodes if counts(n)]


def initialisers(graph: Container) -> set[Node]:
    """The operations that do nothing but give variables their initial values."""
    found = {v.initializer for v in graph.variables} | {i for v in graph.variables for i in v.initializer.inputs}
    for node in graph.nodes:
        if node.type == () and node.inputs and not node.control and all(i in found for i in node.inputs):
            found.add(node)
    return found


@dataclass
class Script:
    """What a script left behind: its graphs, the one that it used last, and its Python variables."""

    path: Path
    graph: Container
    graphs: tuple[Container, ...]
    variables: Mapping[str, Any]

    def find(self, name: str) -> list[Node]:
        """The nodes that `name` stands for: a name in the graph, else a Python variable that holds tensors."""
        held = _nodes_in(self.variables.get(name))
        try:
            node = _fetched(self.graph.get_tensor_by_name(name))
        except GraphcError:
            if held:
                return held
            known = [n.name for n in self.graph.nodes] + [k for k, v in self.variables.items() if _nodes_in(v)]
            raise _unknown_name(name, known, self.path) from None
        if held and held != [node]:
            note(f"{name!r} is the tensor of that name; the Python variable {name} holds {held[0].name!r}")
        return [node]


def _nodes_in(value) -> list[Node]:
    if isinstance(value, (Node, Variable)):
        return [_fetched(value)]
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, (Node, Variable)) for v in value):
        return [_fetched(v) for v in value]
    return []


def _fetched(value: Node | Variable) -> Node:
    """The node that a fetch of `value` computes: a variable's value, not the variable."""
    if isinstance(value, Node) and value.op.kind is Kind.INPUT and value.attrs["role"] == "variable":
        value = value.attrs["variable"]
    return value.snapshot if isinstance(value, Variable) else value


class Stopped(BaseException):
    """Ends a script where it would run a session. Not an Exception: scripts that catch those must not go on."""


def run_script(path: Path, arguments: Sequence[str] = ()) -> Script:
    """Run a script as `python path arguments` would, up to its first run of a session; its stdout is stderr."""
    graphs: dict[Container, None] = {}
    reset_default_graph()
    space: Mapping[str, Any] = {}
    with _running_as_main(path, arguments), _stdout_to_stderr(), _stopping(graphs):
        try:
            space = runpy.run_path(str(path), run_name="__main__")
        except Stopped as e:
            space = _variables_at(e, path)
        except SystemExit as e:
            space = _variables_at(e, path)
            if e.code not in (None, 0):
                raise report(InputError, f"{path.name} ends with exit status {e.code} before it runs a session",
                             location=_line_of(e, path)) from e
        except GraphcError:
            raise
        except Exception as e:
            raise _script_error(path, e) from e
    used = list(graphs)
    return Script(path, used[-1] if used else get_default_graph(), tuple(used), space)


def _script_error(path: Path, error: Exception) -> GraphcError:
    if isinstance(error, SyntaxError):
        where = Location(error.filename or str(path), error.lineno or 1)
        return report(InputError, f"{Path(where.file).name} is not Python: {error.msg}",
                      [("line", (error.text or "").strip())], location=where)
    line = _line_of(error, path)
    shown = linecache.getline(line.file, line.line).strip() if line else ""
    return report(InputError, f"{path.name} raises {type(error).__name__}: {error}", [("line", shown)] if shown else (),
                  location=line)


def _frames(error: BaseException, path: Path) -> list[tuple[FrameType, int]]:
    """The frames of the script's own file on the way to an error, outermost first."""
    return [(f, line) for f, line in traceback.walk_tb(error.__traceback__) if f.f_code.co_filename == str(path)]


def _line_of(error: BaseException, path: Path) -> Location | None:
    frames = _frames(error, path)
    return Location(str(path), frames[-1][1]) if frames else None


def _variables_at(error: BaseException, path: Path) -> Mapping[str, Any]:
    """The script's variables where it was stopped: its globals, and the locals of its functions on the way."""
    found: dict[str, Any] = {}
    for frame, _ in _frames(error, path):
        found |= frame.f_globals if not found else {}
        found |= frame.f_locals
    return found


@contextlib.contextmanager
def _running_as_main(path: Path, arguments: Sequence[str]) -> Iterator[None]:
    saved = sys.argv, sys.path
    sys.argv, sys.path = [str(path), *arguments], [str(path.parent), *sys.path]
    try:
        yield
    finally:
        sys.argv, sys.path = saved


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """What is printed inside goes to stderr, also by subprocesses and native code."""
    sys.stdout.flush()
    with contextlib.redirect_stdout(sys.stderr):
        try:
            kept = os.dup(1)
        except OSError:  # there is no stdout
            yield
            return
        try:
            os.dup2(2, 1)
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 1)
            os.close(kept)


@contextlib.contextmanager
def _stopping(graphs: dict[Container, None]) -> Iterator[None]:
    """Sessions stop the script instead of running; `graphs` receives the graphs in use, the last used last."""
    def use(graph: Container) -> None:
        graphs.pop(graph, None)
        graphs[graph] = None

    def stop(session: Session) -> NoReturn:
        use(session.graph)
        raise Stopped

    def run(session, *_, **__):
        stop(session)

    def make_callable(session, *_, **__):
        return lambda *_, **__: stop(session)

    def add(graph, node):
        use(graph)
        original(graph, node)

    original = Container.add
    with (_replaced(Session, "run", run), _replaced(Session, "run_steps", run),
          _replaced(Session, "make_callable", make_callable), _replaced(Container, "add", add)):
        yield


@contextlib.contextmanager
def _replaced(owner: type, name: str, value: Callable) -> Iterator[None]:
    kept = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)
