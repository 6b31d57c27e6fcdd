"""A step that is given an object depends on the code of its class, whether it imports that or not."""

import noria

SHAPES = """
from dataclasses import dataclass
from enum import Enum


@dataclass
class Square:
    side: int

    def area(self) -> int:
        return self.side * self.side


class Plain:
    def __init__(self, side: int) -> None:
        self.side = side

    def area(self) -> int:
        return self.side * self.side
"""
MAKING = """
import noria
import shapes


@noria.step
def make(side: int):
    return [shapes.Square(side)]


@noria.step
def make_plain(side: int):
    return shapes.Plain(side)


@noria.step
def make_part(side: int) -> shapes.Square:
    return shapes.Square(side)
"""
USING = """
import noria


@noria.step
def total(found) -> int:
    return sum(each.area() for each in found)


@noria.step
def one(found) -> int:
    return found.area()


@noria.step
def side(found) -> int:
    return found
"""
WORK = """
import making
import noria
import using


@noria.pipeline
def areas() -> list[int]:
    part = making.make_part(4)
    return [
        using.total(making.make(2)), using.one(making.make_plain(3)), using.one(part), using.side(part.side),
    ]
"""


def test_an_edited_method_runs_its_callers_again(make_project) -> None:  # type: ignore[no-untyped-def]
    root = make_project({"shapes.py": SHAPES, "making.py": MAKING, "using.py": USING, "work.py": WORK})
    with noria.open(root) as project:
        assert project.run_pipeline("areas").value == [4, 9, 16, 4]
        assert project.run_pipeline("areas").counts == {"cached": 7}
    (root / "shapes.py").write_text(SHAPES.replace("self.side * self.side", "self.side * self.side * 10"))
    with noria.open(root) as project:
        plan = {each.task: each for each in project.plan_pipeline("areas").items}
        again = project.run_pipeline("areas")
        assert again.value == [40, 90, 160, 4]
        # What made the objects gave equal bytes; the part that is a number concerns nobody.
        assert again.counts == {"ran": 6, "cached": 1}
        assert plan["side"].state == "open"
    fresh = {"shapes.py": (root / "shapes.py").read_text(), "making.py": MAKING, "using.py": USING}
    with noria.open(make_project({**fresh, "work.py": WORK}, name="fresh")) as project:
        assert project.run_pipeline("areas").value == [40, 90, 160, 4]
