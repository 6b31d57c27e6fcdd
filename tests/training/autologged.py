"""A project in the current folder, autolog on, and what came of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest

import noria
from noria.records import Run, RunId
from noria.tracking.models.logged_models import LoggedModels
from noria.tracking.records import RunDetails
from noria.tracking.run_desk import RunDesk
from noria.tracking.store import TrackingStore

Frame = tuple[pd.DataFrame, pd.Series]


def make_frame(rows: int = 300) -> Frame:
    draw = np.random.default_rng(7)
    data = pd.DataFrame(draw.normal(size=(rows, 3)), columns=["a", "b", "c"])
    return data, (data.a + 0.3 * data.b + 0.2 * draw.normal(size=rows) > 0).astype(int)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a project, in which the test runs; autolog is off at its end."""
    (tmp_path / "noria.toml").write_text('[project]\nname = "shop"\n')
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    noria.autolog(False)


class Told:
    """What is on record of the project in the current folder."""

    def __init__(self) -> None:
        with noria.open() as project:
            desk, models = RunDesk(project.ledger), LoggedModels(project.ledger)
            store = TrackingStore(project.ledger.database)
            self.runs: list[Run] = project.ledger.list_runs(kind="experiment", newest_first=False)
            self.details: dict[str, RunDetails] = {each.id: desk.get(each.id) for each in self.runs}
            self.points = {each.id: store.list_points(each.id) for each in self.runs}
            self.models = {
                each.id: [models.get(one.model) for one in self.details[each.id].models_made]
                for each in self.runs
            }
            paths = [each.path for each in project.artifacts.tree()]
            self.files = {
                each.id: [path.partition("/artifacts/")[2] for path in paths if f"/{each.id}/" in path]
                for each in self.runs
            }
            assert project.ledger.verify().ok

    @property
    def run(self) -> Run:
        """The only run that is part of no other."""
        (found,) = [each for each in self.runs if each.parent is None]
        return found

    @property
    def detail(self) -> RunDetails:
        return self.details[self.run.id]

    @property
    def metrics(self) -> dict[str, float]:
        return {each.name: each.value for each in self.detail.metrics}

    def steps(self, name: str) -> list[tuple[int, float]]:
        return [(each.step, each.value) for each in self.points[self.run.id] if each.name == name]

    def children(self) -> list[RunDetails]:
        return [self.details[each.id] for each in self.runs if each.parent == self.run.id]


def predicted(run: RunId, rows: Any) -> Any:
    with noria.open() as project:
        return np.asarray(project.load_model(f"runs:/{run}/model").predict(rows))
