"""A recorded run that failed, again; and what is told of files and models that come out otherwise."""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from sklearn.linear_model import LinearRegression
from tests.pipelines.conftest import MakeProject

import noria
from noria.errors import ConfigError, StepFailed
from noria.pipelines.comparing import compare_values
from noria.records import Run, RunState

WORK = """
import os
import time
from pathlib import Path

import noria
import numpy as np
from sklearn.linear_model import LinearRegression

SLOPE = 2.0


@noria.step
def load(n: int) -> list[float]:
    return [float(number) for number in range(n)]


@noria.step(retries=1, backoff="1s")
def check(values: list[float]) -> int:
    if len(values) > 3:
        raise ValueError(f"{len(values)} are too many")
    return len(values)


@noria.step(cache=False)
def send(values: list[float]) -> int:
    raise OSError("nobody listens")


@noria.step
def leave(values: list[float]) -> int:
    os._exit(3)


@noria.step
def write(values: list[float], run: noria.StepRun = noria.given) -> Path:
    path = run.folder / "report.txt"
    path.write_text("".join(f"{value * SLOPE}\\n" for value in values))
    return path


@noria.step
def pages(values: list[float], run: noria.StepRun = noria.given) -> Path:
    folder = run.folder / "site"
    folder.mkdir()
    (folder / "index.txt").write_text("always the same\\n")
    (folder / "one.txt").write_text(f"slope\\n{SLOPE}\\n")
    (folder / f"of-{SLOPE:g}.bin").write_bytes(b"\\0" * 10)
    return folder


@noria.step
def fit(values: list[float]) -> LinearRegression:
    x = np.array(values)
    return LinearRegression().fit(x[:, None], x * SLOPE)


@noria.pipeline
def checked(n: int = 5) -> int:
    return check(load(n))


@noria.pipeline
def sent(n: int = 5) -> int:
    return send(load(n))


@noria.pipeline
def left(n: int = 5) -> int:
    return leave(load(n))


@noria.pipeline
def made(n: int = 5) -> tuple[Path, Path, LinearRegression]:
    values = load(n)
    return write(values), pages(values), fit(values)
"""


@pytest.fixture
def folder(make_project: MakeProject) -> Path:
    return make_project({"again.py": WORK}, '[compute]\nexecutor = "inline"\n')


def failed(folder: Path, pipeline: str, *, executor: str | None = None) -> Run:
    """Let a pipeline fail and give its run."""
    with noria.open(folder) as project:
        with pytest.raises(StepFailed):
            project.run_pipeline(pipeline, executor=executor)
        return project.runs.get(pipeline)


def edit(folder: Path, before: str, after: str) -> None:
    path = folder / "again.py"
    source = path.read_text()
    assert before in source
    path.write_text(source.replace(before, after))


def test_a_run_that_failed_fails_alike(folder: Path) -> None:
    run = failed(folder, "checked")
    with noria.open(folder) as project:
        told = project.runs.reproduce(run.id)
        alone = project.runs.reproduce(project.runs.steps(run)[-1].id)
    assert (told.verdict, told.failure, told.steps, told.differences) == ("fails alike", "fails alike", 2, ())
    assert told.told == (
        f"pipeline checked ({run.id[:16]}) was recorded as failed. It fails alike: check with ValueError: "
        "5 are too many. Of what it had finished, 1 step bit-equal."
    )
    assert (alone.verdict, alone.steps) == ("fails alike", 1)


def test_an_error_of_the_same_kind_that_says_something_else_is_noted(folder: Path) -> None:
    run = failed(folder, "checked")
    edit(folder, "are too many", "are by far too many")
    with noria.open(folder) as project:
        told = project.runs.reproduce(run.id, current=True)
    assert told.verdict == "fails alike"
    assert "check said then: ValueError: 5 are too many" in told.notes


def test_a_run_that_failed_and_succeeds_now_is_different(folder: Path) -> None:
    run = failed(folder, "checked")
    edit(folder, "len(values) > 3", "len(values) > 30")
    with noria.open(folder) as project:
        told = project.runs.reproduce(run.id, current=True)
    assert (told.verdict, told.failure) == ("different", "succeeds now")
    assert "It succeeds now: check, which failed with ValueError: 5 are too many." in told.told
    assert [(each.where, each.told) for each in told.differences] == [
        ("check", "failed with ValueError: 5 are too many; succeeds now")
    ]


def test_a_run_that_fails_otherwise_is_different(folder: Path) -> None:
    run = failed(folder, "checked")
    edit(folder, "raise ValueError(", "raise KeyError(")
    with noria.open(folder) as project:
        told = project.runs.reproduce(run.id, current=True)
    assert (told.verdict, told.failure) == ("different", "fails otherwise")
    (difference,) = told.differences
    assert difference.told.startswith("failed with ValueError: 5 are too many; fails now with KeyError:")


def test_a_step_that_acts_or_was_ended_from_outside_is_left_out(folder: Path) -> None:
    sent, left = failed(folder, "sent"), failed(folder, "left", executor="processes")
    with noria.open(folder) as project:
        told = project.runs.reproduce(sent.id)
        assert (told.verdict, told.failure, told.steps) == ("bit-equal", None, 1)
        assert told.told.endswith("was recorded as failed. Of what it had finished, 1 step bit-equal.")
        assert any("left out: sent/send, for it is declared with cache=False" in each for each in told.notes)
        (step,) = [each for each in project.runs.steps(left) if each.state is RunState.FAILED]
        with pytest.raises(ConfigError, match="it was ended from outside"):
            project.runs.reproduce(step.id)


def test_files_and_models_that_differ_are_told_by_file_line_and_attribute(folder: Path) -> None:
    with noria.open(folder) as project:
        run = project.run_pipeline("made").run.id
        assert project.runs.reproduce(run).verdict == "bit-equal"
    edit(folder, "SLOPE = 2.0", "SLOPE = 3.0")
    with noria.open(folder) as project:
        told = {each.where: each.told for each in project.runs.reproduce(run, current=True).differences}
    assert {"write", "pages/of-2.bin", "pages/of-3.bin", "pages/one.txt", "fit.coef_"} <= set(told)
    assert "pages/index.txt" not in told
    assert "20 bytes (" in told["write"]
    assert "line 2: `2.0` became `3.0`" in told["write"]
    assert "one.txt line 2: `2.0` became `3.0`" in told["pages/one.txt"]
    assert told["pages/of-2.bin"].startswith("it is gone; it was 10 bytes (01d448afd928")
    assert told["pages/of-3.bin"].startswith("it is new: 10 bytes (")
    assert told["fit.coef_"] == "1 of 1 values differ, by at most 1"


def test_bytes_and_texts_are_told_with_sizes_digests_and_the_first_line() -> None:
    (binary,) = compare_values(b"\0a", b"\0bc", "x", 0.0)
    assert binary.told.startswith("2 bytes (")
    assert " became 3 bytes (" in binary.told
    (text,) = compare_values("a\nb\nc\n", "a\nB\nc\n", "x", 0.0)
    assert text.told.endswith("text line 2: `b` became `B`")
    (word,) = compare_values("a", "b", "x", 0.0)
    assert word.told == "'a' became 'b'"


def test_frames_are_compared_by_their_columns() -> None:
    before, after = pl.DataFrame({"a": [1.0, 2.0]}), pl.DataFrame({"a": [1.0, 2.5]})
    assert [each.where for each in compare_values(before, after, "x", 0.0)] == ["x.a"]
    assert compare_values(before, before.clone(), "x", 0.0) == []
    assert compare_values(pa.table({"a": [1]}), pa.table({"a": [1]}), "x", 0.0) == []


def test_what_is_not_within_the_tolerance_is_told_however_much_else_differs() -> None:
    before = {str(number): 1.0 for number in range(30)} | {"far": 1.0}
    after = dict.fromkeys(before, 1.0 + 1e-12) | {"far": 2.0}
    found = compare_values(before, after, "x", 1e-9)
    assert found[0].where == "x['far']"
    assert not found[0].within


def test_a_model_is_compared_by_what_it_has_learned() -> None:
    x = np.arange(4.0)
    one, other = LinearRegression().fit(x[:, None], x), LinearRegression().fit(x[:, None], 2 * x + 1)
    where = {each.where for each in compare_values(one, other, "m", 1e-9)}
    assert {"m.coef_", "m.intercept_"} <= where
    assert compare_values(one, LinearRegression().fit(x[:, None], x), "m", 0.0) == []
