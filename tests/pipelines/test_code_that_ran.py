"""The code that ran is the code that the key names: results of anything else are not kept."""

import importlib.util
import os
import py_compile
import time
from pathlib import Path
from typing import Any

import pytest
from tests.pipelines.conftest import MakeProject, write_files

import noria
from noria.errors import StepFailed

RACE = """
    from pathlib import Path

    from noria import pipeline, step

    HERE = Path(__file__).parent


    @step
    def edit(x: int, name: str) -> int:
        if name:
            (HERE / name).write_text("VALUE = 50")
        return x


    @step(files=["data.txt"])
    def use(x: int) -> int:
        import lazy

        return x + lazy.VALUE + int((HERE / "data.txt").read_text().removeprefix("VALUE ="))


    @pipeline
    def flow(name: str = "") -> int:
        return use(edit(1, name))
"""
FILES = {"work.py": RACE, "lazy.py": "VALUE = 1", "data.txt": "1"}


def run(root: Path, params: dict[str, Any] | None = None, *, executor: str = "inline") -> Any:
    with noria.open(root) as project:
        return project.run_pipeline("flow", params or {}, executor=executor)


@pytest.mark.parametrize("executor", ["inline", "processes"])
@pytest.mark.parametrize("name", ["lazy.py", "data.txt"])
def test_what_changes_before_it_is_read_is_not_kept(
    make_project: MakeProject, name: str, executor: str
) -> None:
    root = make_project(FILES, modules=["work"])
    with pytest.raises(StepFailed, match=f"use: CodeChanged: {name} changed after the run had begun"):
        run(root, {"name": name}, executor=executor)
    write_files(root, {name: FILES[name]})
    assert run(root, executor=executor).value == 3


def test_what_changes_after_it_was_loaded_does_not_matter(make_project: MakeProject) -> None:
    eager = RACE.replace("HERE =", "import lazy\n\n    HERE =").replace('files=["data.txt"]', "")
    root = make_project({**FILES, "work.py": eager}, modules=["work"])
    assert run(root, {"name": "lazy.py"}, executor="processes").value == 3
    write_files(root, {"lazy.py": "VALUE = 1"})
    assert run(root, {"name": "lazy.py"}, executor="processes").counts == {"cached": 2}


SLOW = """
    from noria import pipeline, step

    VALUE = {value}


    @step
    def use(x: int) -> int:
        import lazy

        return x + VALUE + lazy.VALUE


    @pipeline
    def flow(x: int) -> int:
        return use(x)
"""


def test_bytecode_that_python_takes_for_the_newest_is_not_run(make_project: MakeProject) -> None:
    root = make_project({"work.py": SLOW.format(value=1), "lazy.py": "VALUE = 1"}, modules=["work"])
    then = int(time.time()) - 1000
    for value in (1, 5):
        write_files(root, {"work.py": SLOW.format(value=value)})
        os.utime(root / "work.py", (then, then))
        if value == 1:
            kept = importlib.util.cache_from_source(str(root / "work.py"))
            py_compile.compile(str(root / "work.py"), cfile=kept)
        assert run(root, {"x": 0}, executor="processes").value == value + 1


def test_processes_that_have_loaded_other_code_are_not_used_again(make_project: MakeProject) -> None:
    root = make_project({"work.py": SLOW.format(value=1), "lazy.py": "VALUE = 1"}, modules=["work"])
    with noria.open(root) as project:
        for x, value in ((1, 1), (2, 1), (3, 5), (4, 1), (5, 1)):
            write_files(root, {"lazy.py": f"VALUE = {value}"})
            assert project.run_pipeline("flow", {"x": x}, executor="processes").value == x + 1 + value


PARTS = """
    from dataclasses import dataclass, field
    from typing import Any, NamedTuple

    from noria import pipeline, step


    @dataclass
    class Base:
        x: int
        y: int = field(init=False, default=7)

        def __post_init__(self) -> None:
            self.x *= 2


    @dataclass
    class Derived(Base):
        z: int = 3


    class Pair(NamedTuple):
        a: int
        b: str


    @step
    def base() -> Base:
        return Base(1)


    @step
    def derived() -> Base:
        made = Derived(1)
        made.z = 99
        return made


    @step
    def pair() -> tuple[int, str]:
        return Pair(1, "x")


    @step
    def see(value: Any) -> str:
        return repr(value)


    @pipeline
    def flow() -> list[str]:
        made = derived()
        return [see(base()), see(made), see(pair()), see(pair()[1]), see(made.x)]
"""


def test_results_with_parts_come_back_as_they_were(make_project: MakeProject) -> None:
    root = make_project({"work.py": PARTS})
    value = ["Base(x=2, y=7)", "Derived(x=2, y=7, z=99)", "Pair(a=1, b='x')", "'x'", "2"]
    assert run(root).value == value
    assert run(root).value == value


CUT_OFF = """
    from noria import pipeline, step

    VALUE = {value}


    @step
    def first(x: int) -> int:
        return x * VALUE


    @pipeline
    def flow(x: int = 1) -> int:
        return first(x)
"""


def test_a_plan_compares_with_a_run_that_found_everything(make_project: MakeProject) -> None:
    root = make_project({"work.py": CUT_OFF.format(value=1)})
    for value in (1, 2, 1):
        write_files(root, {"work.py": CUT_OFF.format(value=value)})
        run(root)
    write_files(root, {"work.py": CUT_OFF.format(value=3)})
    with noria.open(root) as project:
        (item,) = project.plan_pipeline("flow").items
    assert item.reason == "work.py line 4: `VALUE = 1` became `VALUE = 3`"


def test_damaged_small_values_are_healed(make_project: MakeProject) -> None:
    import sqlite3
    from contextlib import closing

    root = make_project({"work.py": CUT_OFF.format(value=3)})
    run(root)
    with closing(sqlite3.connect(root / ".noria/noria.db")) as connection, connection:
        connection.execute("update step_values set data = x'00'")
    assert run(root).counts == {"ran": 1}
    assert run(root).counts == {"cached": 1}
