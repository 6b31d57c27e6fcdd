"""Kept results: never a wrong one, never a step too many. The model in `changing` says which steps run."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.pipelines.changing import COUNTED, Shape, Task
from tests.pipelines.conftest import forget_modules, write_files

import noria
from noria.pipelines.records import Plan

TOML = """
[project]
name = "changing"
modules = ["flow"]
"""
CHANGES: dict[str, st.SearchStrategy[Any]] = {
    "deep": st.integers(1, 3),
    "own": st.integers(1, 3),
    "loading": st.integers(1, 3),
    "file": st.sampled_from(["3 4", "3  4", "7", "23"]),
    "factor": st.sampled_from([1, 1.0, True, "1", -1, 0.0, -0.0]),
    "n": st.integers(0, 3),
    "month": st.sampled_from(["May", "Jun", "July"]),
    "runtime": st.sampled_from(["numpy==1", "numpy==2"]),
    "is_split": st.booleans(),
    "is_turned": st.booleans(),
    "comment": st.sampled_from(["", "one", "two"]),
}


class Changing:
    """The project in a folder, and what the model remembers of earlier runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True)
        (root / "noria.toml").write_text(TOML, encoding="utf-8")
        self.written: dict[str, str] = {}
        self.kept: set[tuple[Any, ...]] = set()

    def write(self, shape: Shape) -> None:
        files = shape.files()
        write_files(self.root, {name: text for name, text in files.items() if self.written.get(name) != text})
        self.written = files

    @contextmanager
    def opened(self, shape: Shape) -> Iterator[noria.Project]:
        with noria.open(self.root) as project:
            state = project.ledger.code_state()
            runtime = project.storage.put(shape.runtime.encode())
            project.ledger._code = replace(state, runtime=runtime)
            yield project

    def run(self, shape: Shape) -> tuple[Any, Counter[str]]:
        """Give what a run gives, and which steps it ran."""
        log = self.root / COUNTED
        log.unlink(missing_ok=True)
        with self.opened(shape) as project:
            value = project.run_pipeline("flow", shape.params, executor="inline").value
        return value, Counter(log.read_text().splitlines() if log.exists() else ())

    def plan(self, shape: Shape) -> Plan:
        with self.opened(shape) as project:
            return project.plan_pipeline("flow", shape.params)

    def expected(self, shape: Shape) -> dict[str, Task]:
        """Give the tasks that have to run, and remember that they did."""
        stale = {}
        for task in shape.tasks():
            key = (task.noted.partition(" ")[0], shape.runtime, *task.depends_on)
            if key not in self.kept or not task.is_kept:
                stale[task.id] = task
            self.kept.add(key)
        return stale

    def content(self) -> dict[str, bytes]:
        """Give everything that is on record and on disk."""
        names = ("noria.db", "noria.db-wal", "noria.db-shm")
        found = {
            str(path): path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file() and path.name not in names
        }
        with sqlite3.connect(self.root / ".noria/noria.db") as connection:
            found["database"] = "\n".join(connection.iterdump()).encode()
        connection.close()
        return found


def check(changing: Changing, shape: Shape) -> None:
    """Run a shape, and hold the plan, the steps that ran and the value against the model."""
    changing.write(shape)
    plan = changing.plan(shape) if (changing.root / ".noria/noria.db").exists() else None
    expected = changing.expected(shape)
    value, ran = changing.run(shape)
    assert value == shape.value
    assert ran == Counter(task.noted for task in expected.values())
    if plan is None:
        return
    states = {each.task: each.state for each in plan.items}
    for task in shape.tasks():
        state = states.get(task.id) or states[f"{task.id.partition('[')[0]}[?]"]
        if state != "open":
            assert (state, task.id) == ("run" if task.id in expected else "cached", task.id)
    assert set(states.values()) <= {"run", "cached", "open"}


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[Changing]:
    yield Changing(tmp_path / "project")
    forget_modules(tmp_path)


@st.composite
def histories(draw: st.DrawFn) -> list[Shape]:
    """Draw shapes that differ from one another in one thing at a time."""
    shapes = [Shape(**draw(st.fixed_dictionaries({}, optional=CHANGES)))]
    for name in draw(st.lists(st.sampled_from(sorted(CHANGES)), min_size=1, max_size=5)):
        shapes.append(replace(shapes[-1], **{name: draw(CHANGES[name])}))
    return shapes


def follow(folder: Path, shapes: list[Shape]) -> None:
    try:
        changing = Changing(folder / "project")
        for shape in shapes:
            check(changing, shape)
        fresh = Changing(folder / "fresh")
        fresh.write(shapes[-1])
        assert fresh.run(shapes[-1])[0] == shapes[-1].value
    finally:
        forget_modules(folder)


@given(shapes=histories())
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_step_runs_if_and_only_if_something_that_it_depends_on_changed(
    shapes: list[Shape], tmp_path_factory: pytest.TempPathFactory
) -> None:
    follow(tmp_path_factory.mktemp("changing"), shapes)


@pytest.mark.soak
@given(shapes=histories())
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_step_runs_if_and_only_if_something_changed_in_long(
    shapes: list[Shape], tmp_path_factory: pytest.TempPathFactory
) -> None:
    follow(tmp_path_factory.mktemp("changing"), shapes)


EACH: list[tuple[dict[str, Any], list[str], str]] = [
    (
        {"deep": 2},
        ["coarse", "square 1", "square 2", "joined"],
        "library/deep.py line 1: `DEEP = 1` became `DEEP = 2`",
    ),
    ({"own": 2}, ["coarse", "square 1", "square 2", "joined"], "squares.py line "),
    (
        {"loading": 2},
        ["base", "numbers 2", "numbers 3", "square 3"],
        "loading.py line 8: `START = 1` became `START = 2`",
    ),
    ({"file": "3 5"}, ["base", "coarse"], "data/table.txt line 1: `3 4` became `3 5`"),
    ({"file": "3  4"}, ["base"], "data/table.txt line 1: `3 4` became `3  4`"),
    ({"factor": 1.0}, ["square 1", "square 2", "joined"], "parameter 'factor' changed: 1 became 1.0"),
    ({"factor": True}, ["square 1", "square 2"], "parameter 'factor' changed: 1 became True"),
    ({"factor": "1"}, ["square 1", "square 2"], "parameter 'factor' changed: 1 became '1'"),
    ({"n": 3}, ["numbers 3", "numbers 4", "square 3"], "parameter 'n' changed: 2 became 3"),
    ({"month": "July"}, ["base", "coarse"], "parameter 'month' changed: 'May' became 'July'"),
    (
        {"runtime": "numpy==2"},
        ["base", "numbers 2", "square 1", "size"],
        "installed distributions changed: numpy 1 -> 2",
    ),
    ({"is_split": False}, ["numbers 2", "square 5"], "its results are kept as one now"),
    ({"is_turned": True}, [], ""),
    ({"comment": "nothing"}, [], ""),
]


@pytest.mark.parametrize(("change", "run", "reason"), EACH)
def test_one_change_runs_what_depends_on_it_and_says_why(
    changing: Changing, change: dict[str, Any], run: list[str], reason: str
) -> None:
    before, after = Shape(), replace(Shape(), **change)
    changing.write(before)
    changing.expected(before)
    changing.run(before)
    changing.write(after)
    plan = changing.plan(after)
    stale = changing.expected(after)
    _, ran = changing.run(after)
    assert ran == Counter(task.noted for task in stale.values())
    assert set(run) <= set(ran)
    reasons = [each.reason for each in plan.items if each.state == "run" and each.task != "stamp"]
    assert any(reason in each for each in reasons) if reason else not reasons


def test_every_change_is_among_those_that_are_drawn() -> None:
    assert set(CHANGES) == {each.name for each in fields(Shape)}


def test_a_plan_runs_nothing_and_writes_nothing(changing: Changing) -> None:
    changing.write(Shape())
    changing.run(Shape())
    for change in ({}, {"deep": 2}, {"n": 3}, {"factor": "x" * 50_000}, {"file": "9"}):
        shape = replace(Shape(), **change)
        changing.write(shape)
        before = changing.content()
        changing.plan(shape)
        assert changing.content() == before


def test_what_was_changed_back_is_found_again(changing: Changing) -> None:
    for deep in (1, 2, 1):
        check(changing, Shape(deep=deep))
    assert changing.run(Shape(deep=1))[1] == Counter(["stamp"])


def test_one_project_that_stays_open_sees_the_newest_code(changing: Changing) -> None:
    changing.write(Shape())
    with noria.open(changing.root) as project:
        for shape in (Shape(), Shape(deep=2), Shape(deep=2, n=3, own=4), Shape(), Shape(factor="z")):
            changing.write(shape)
            plan = project.plan_pipeline("flow", shape.params)
            result = project.run_pipeline("flow", shape.params, executor="inline")
            assert result.value == shape.value
            assert {each.state for each in plan.items} <= {"run", "open", "cached"}


def test_two_projects_with_modules_of_one_name_do_not_meet(changing: Changing, tmp_path: Path) -> None:
    other = Changing(tmp_path / "other")
    shapes = {changing: Shape(), other: Shape(deep=3, own=2)}
    for each, shape in shapes.items():
        each.write(shape)
    with noria.open(changing.root) as one, noria.open(other.root) as two:
        for project, shape in (
            (one, Shape()),
            (two, shapes[other]),
            (one, Shape(n=3)),
            (two, Shape(deep=3, own=2, n=1)),
        ):
            assert project.run_pipeline("flow", shape.params, executor="inline").value == shape.value
