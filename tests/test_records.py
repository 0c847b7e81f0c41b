"""Records: what `graphc.records.record` gives and refuses."""
from collections.abc import Mapping

import pytest

from graphc.records import NOTHING, changed, record


@record(frozen=True)
class Point:
    x: int
    y: int = 2
    marks: Mapping = NOTHING


@record(frozen=True)
class Named(Point):
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name} at {self.x}"


@record(frozen=True, eq=False)
class Checked:
    size: int

    def __post_init__(self):
        if self.size < 0:
            raise ValueError("negative")


def test_fields_and_defaults():
    point = Point(1)
    assert (point.x, point.y, dict(point.marks)) == (1, 2, {}) and list(vars(point)) == ["x", "y", "marks"]
    assert Point(y=5, x=4) == Point(4, 5) and repr(Point(1, 3)) == "Point(x=1, y=3, marks=mappingproxy({}))"
    named = Named(1, name="a")
    assert (named.x, named.y, named.name, str(named)) == (1, 2, "a", "a at 1")
    assert Named.__match_args__ == ("x", "y", "marks", "name")


@pytest.mark.parametrize(("values", "named"), [((), {}), ((1, 2, {}, 4), {}), ((1,), {"x": 2}), ((1,), {"z": 2})])
def test_wrong_fields(values, named):
    for _ in range(2):      # the first record of a class, and later ones
        with pytest.raises(TypeError):
            Point(*values, **named)


def test_equality():
    assert Point(1) == Point(1, 2) != Point(1, 3)
    assert Point(1) != Named(1)
    assert hash(changed(Named(1, name="a"), y=3, marks=(1,))) == hash(Named(1, 3, (1,), "a"))
    one = Checked(1)
    assert one == one != Checked(1) and len({one, Checked(1)}) == 2


def test_frozen():
    for change in (lambda p: setattr(p, "x", 3), lambda p: delattr(p, "x"), lambda p: setattr(p, "new", 3)):
        with pytest.raises(AttributeError, match="Point"):
            change(Point(1))
    with pytest.raises(TypeError):
        Point(1).marks["a"] = 1


def test_changed():
    named = changed(Named(1, name="a"), y=3)
    assert named == Named(1, 3, name="a")
    with pytest.raises(ValueError, match="negative"):
        changed(Checked(1), size=-1)
    with pytest.raises(TypeError):
        changed(Checked(1), width=1)
