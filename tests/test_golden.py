"""Passes as text: tests/golden/PASS/*.txt holds a graph, and the graph that PASS makes of it."""
from pathlib import Path

import pytest

from graphc.ir.graph import named
from graphc.ir.parser import parse
from graphc.ir.printer import print_graph
from graphc.ir.verify import verify
from graphc.passes.pipeline import PIPELINE

FOLDER = Path(__file__).parent / "golden"
PASSES = {p.name: p for p in PIPELINE}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*/*.txt")), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_golden(path, golden):
    file = golden(path)
    before = parse(file.given)
    verify(before)
    after = named(PASSES[path.parent.name](before))
    verify(after)
    text = print_graph(after, locations=False)
    assert parse(text) == after
    file.check(text)


def test_every_pass_has_golden_texts():
    assert {p.name for p in FOLDER.iterdir()} == set(PASSES)


def test_a_file_without_its_lower_part_names_the_command(tmp_path, golden):
    path = tmp_path / "simplify" / "new.txt"
    path.parent.mkdir()
    path.write_text("graph f(x: f32[]) {\n  return x\n}\n")
    file = golden(path)
    file.update = False
    message = "new.txt has no lower part `=== simplify`; to write it: python -m pytest --update-golden"
    with pytest.raises(AssertionError, match=message):
        file.check("")
    file.update = True
    file.check("graph\n")
    assert path.read_text().endswith("}\n=== simplify\ngraph\n")
    again = golden(path)
    again.update = False
    again.check("graph\n")
    with pytest.raises(AssertionError, match="new.txt has changed"):
        again.check("other\n")
