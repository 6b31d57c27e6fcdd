"""A run with a key is one run, whatever changes afterwards; versions arrive as what a step asks for."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.pipelines.conftest import MakeProject

import noria
from noria.errors import Conflict, StepFailed
from noria.records import Version

WORK = """
import noria
from noria.records import Version


@noria.step
def double(x: int) -> int:
    return x * 2


@noria.pipeline
def doubled(x: int) -> list[int]:
    return [double(x), double(x + 1)]


@noria.step(cache=False)
def send(x: int, run: noria.StepRun = noria.given) -> int:
    with open("sent.txt", "a") as file:
        file.write("sent\\n")
    return x


@noria.step
def boom(x: int) -> int:
    raise ValueError("no")


@noria.pipeline
def sending(x: int = 1) -> int:
    return boom(send(x))


rows = noria.Dataset("rows", key="id", event_at="at", known_at="at")


@noria.step
def kinds(found: list[Version]) -> list[str]:
    return [type(each).__name__ for each in found]


@noria.step
def maybe(found: Version | None) -> str:
    return type(found).__name__


@noria.step
def table(found) -> str:
    return type(found).__name__


@noria.step
def pick(found: Version) -> Version:
    return found


@noria.pipeline
def asking() -> list[object]:
    return [kinds([rows, rows]), maybe(rows), table(rows), pick(rows)]
"""


@pytest.fixture
def root(make_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = make_project({"work.py": WORK})
    monkeypatch.chdir(made)
    return made


def test_a_finished_run_is_given_as_it_was_after_an_edit(root: Path) -> None:
    with noria.open(root) as project:
        first = project.run_pipeline("doubled", {"x": 3}, key="K", executor="inline")
        assert first.value == [6, 8]
    (root / "work.py").write_text(WORK.replace("x * 2", "x * 3"))
    with noria.open(root) as project:
        again = project.run_pipeline("doubled", {"x": 3}, key="K", executor="inline")
        assert (again.run.id, again.value, again.outputs) == (first.run.id, [6, 8], first.outputs)
        assert again.runs == first.runs
        assert again.counts == {"ran": 2}
        with pytest.raises(Conflict, match="had other parameters"):
            project.run_pipeline("doubled", {"x": 4}, key="K", executor="inline")
        assert project.run_pipeline("doubled", {"x": 3}, executor="inline").value == [9, 12]


def test_many_results_are_kept_with_the_run(root: Path) -> None:
    (root / "work.py").write_text(WORK.replace("[double(x), double(x + 1)]", "double.map(x=range(200))()"))
    with noria.open(root) as project:
        first = project.run_pipeline("doubled", {"x": 3}, key="K", executor="inline")
        again = project.run_pipeline("doubled", {"x": 3}, key="K", executor="inline")
        assert again.value == first.value == [2 * each for each in range(200)]


def test_a_retry_of_a_failed_run_with_a_key_repeats_nothing_that_was_done(root: Path) -> None:
    with noria.open(root) as project:
        with pytest.raises(StepFailed):
            project.run_pipeline("sending", key="S", executor="inline")
        run = project.runs.get("sending")
        with pytest.raises(StepFailed):
            project.runs.retry(run.id, executor="inline")
        assert (root / "sent.txt").read_text() == "sent\n"
        (root / "work.py").write_text(WORK.replace('raise ValueError("no")', "return x"))
        assert project.runs.retry("sending", executor="inline").value == 1


def test_who_asks_for_versions_gets_versions(root: Path) -> None:
    at = pa.array([1], pa.timestamp("us", "UTC"))
    with noria.open(root) as project:
        project.lake.ingest(project.declarations.dataset("rows"), pa.table({"id": [1], "at": at}), batch=1)
        found: Any = project.run_pipeline("asking", executor="inline").value
        assert found[:3] == [["Version", "Version"], "Version", "Table"]
        assert isinstance(found[3], Version)
        told = project.runs.reproduce("asking")
        assert told.verdict == "bit-equal", told
