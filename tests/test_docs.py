"""Runs what the documentation shows, in README.md and docs/*.md, and compares what it prints.

    ```python     runs; the blocks of a page share their names. A first line `# net.py` names (and saves) the block as a file.
    ```text       right behind a python block: what it must print, on stdout and stderr.
    ```console    lines `$ command` run in the folder of the saved files; the lines below one are what it must print.

Times may differ. `python -m pytest --update-golden` rewrites the outputs.
"""
import contextlib
import io
import linecache
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import graphc as tf
from graphc.config import Options, options

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
TIMES = re.compile(r"\b\d+(\.\d+)? (ms|s|us)\b")


@dataclass
class Block:
    """A fenced block: its language, text, and where the text lies in the page."""

    kind: str
    text: str
    start: int
    end: int
    follows: bool  # nothing but blank lines between the block before and this one


def blocks(page: str) -> list[Block]:
    found, last = [], -1
    for match in FENCE.finditer(page):
        follows = last >= 0 and not page[last:match.start()].strip()
        found.append(Block(match[1], match[2], match.start(2), match.end(2), follows))
        last = match.end()
    return found


def same(a: str, b: str) -> bool:
    """Whether two outputs are equal but for times and blanks at line ends."""
    def plain(text):
        return [TIMES.sub(r"_ \2", line).rstrip() for line in text.strip().splitlines()]
    return plain(a) == plain(b)


def run_python(text: str, names: dict, folder: Path, page: str) -> str:
    """What a block prints."""
    named = re.match(r"# (\w+\.py)\n", text)
    file = named[1] if named else f"{page}.py"
    if named:
        (folder / file).write_text(text)
    linecache.cache[file] = (len(text), None, text.splitlines(True), file)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        exec(compile(text, file, "exec"), names)
    return out.getvalue()


def run_console(text: str, folder: Path) -> str:
    """The block as it should be: each command with what it prints now."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    lines = []
    for command in re.findall(r"^\$ (.*)$", text, re.M):
        words = re.sub(r"(^| )graphc ", r"\1python -m graphc ", command)
        words = re.sub(r"(^|[ ;|])python ", lambda m: f"{m[1]}'{sys.executable}' ", words)
        done = subprocess.run(words, shell=True, cwd=folder, capture_output=True, text=True, timeout=120, check=False,
                              env={**os.environ, "PYTHONPATH": path})
        lines.append(f"$ {command}\n{done.stdout}{done.stderr}")
    return "".join(lines)


@pytest.fixture(autouse=True)
def fresh():
    """Options and the default graph as a new process has them."""
    before = dict(vars(options))
    vars(options).update(vars(Options()))
    with tf.Graph().as_default():
        yield
    vars(options).update(before)


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_page(path, tmp_path, request):
    update = request.config.getoption("--update-golden")
    page = path.read_text(encoding="utf-8")
    names: dict = {"__name__": "__main__"}
    printed: str | None = None
    edits: list[tuple[Block, str]] = []
    for block in blocks(page):
        if block.kind == "text" and block.follows and printed is not None:
            if not same(block.text, printed):
                edits.append((block, printed))
            printed = None
        elif block.kind == "python":
            assert printed is None or not printed.strip(), f"{path.name} does not show what a block prints: {printed[:500]}"
            printed = run_python(block.text, names, tmp_path, path.stem)
        elif block.kind == "console":
            found = run_console(block.text, tmp_path)
            if not same(block.text, found):
                edits.append((block, found))
    if update:
        for block, text in reversed(edits):
            page = page[:block.start] + "\n".join(t.rstrip() for t in text.strip("\n").split("\n")) + "\n" + page[block.end:]
        path.write_text(page, encoding="utf-8")
        return
    for block, text in edits:
        line = page[:block.start].count("\n") + 1
        assert text.strip().splitlines() == block.text.strip().splitlines(), \
            f"{path.name}:{line} shows another output; if that is meant, python -m pytest --update-golden"
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page):
        assert (path.parent / target).exists(), f"{path.name} links to {target}, which does not exist"
