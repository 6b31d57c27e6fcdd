"""`run.log_model`: models that a run leaves, registered or not, and what is refused."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer

import noria
from noria.errors import ConfigError, Conflict
from noria.records import RunState
from noria.registry.catalogue import ModelCatalogue
from noria.tracking import active_run, places
from noria.tracking.active_run import ActiveRun
from noria.tracking.beginning import begin
from noria.tracking.models.logged_models import LoggedModels, new_model_id
from noria.tracking.models.records import ModelStatus
from noria.tracking.records import LoggedDataset
from noria.tracking.run_desk import RunDesk

DATA = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 0.0, 1.0, 0.0]})
LATE = np.array([0, 0, 1, 1])


@pytest.fixture
def project(tmp_path: Path) -> Iterator[noria.Project]:
    (tmp_path / "noria.toml").write_text('[project]\nname = "shop"\n')
    with noria.open(tmp_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def model() -> LogisticRegression:
    return LogisticRegression().fit(DATA, LATE)


def start(project: noria.Project, **wanted: object) -> ActiveRun:
    return project.start_run(system_metrics=False, **wanted)  # type: ignore[arg-type]


def test_a_model_is_an_output_of_its_run_with_params_and_metrics(
    project: noria.Project, model: LogisticRegression
) -> None:
    with start(project, params={"depth": 3, "layers": [2, 3]}) as run:
        run.log_metric("auc", 0.7, step=4)
        made = run.log_model(model, "late", example=DATA, tags={"team": "ops"})
        run.log_metric("auc", 0.8, step=5)
    kept = LoggedModels(project.ledger).get(made.id)
    assert (kept.name, kept.status, kept.source_run) == ("late", ModelStatus.READY, run.id)
    assert (kept.params, kept.tags) == ({"depth": "3", "layers": "[2, 3]"}, {"team": "ops"})
    assert [(each.point.name, each.point.step, each.point.value) for each in kept.metrics] == [
        ("auc", 4, 0.7)
    ]
    assert [each.model for each in RunDesk(project.ledger).get(run.id).models_made] == [made.id]
    assert (made.flavor, made.number, made.uri) == ("sklearn", None, f"models:/{made.id}")
    (edge,) = [each for each in project.ledger.list_edges(run=run.id) if each.role == "output"]
    version = project.ledger.get_version_by_id(edge.version)
    assert (version.kind, version.name, version.id) == ("logged_model", "late", kept.version)
    assert project.ledger.verify().ok
    for reference in (made.uri, f"runs:/{run.id}/late"):
        assert (project.load_model(reference).predict(DATA) == model.predict(DATA)).all()


def test_the_same_model_twice_is_the_same_content(project: noria.Project, model: LogisticRegression) -> None:
    with start(project) as run:
        for _ in range(2):
            run.log_model(model, "late")
    (version,) = project.ledger.list_versions(kind="logged_model", name="late")
    assert len(RunDesk(project.ledger).get(run.id).models_made) == 2
    assert version.number == 1


def test_a_registered_model_is_the_next_version_of_its_name(
    project: noria.Project, model: LogisticRegression
) -> None:
    with start(project) as run:
        first = run.log_model(model, registered="late_arrival")
        second = run.log_model(model, registered="late_arrival")
    assert (first.number, second.number) == (1, 2)
    registered = ModelCatalogue(project.ledger).get("late_arrival")
    assert [each.logged_model for each in registered.latest] == [second.id]
    tags = LoggedModels(project.ledger).get(first.id).tags
    assert tags == {"mlflow.modelVersions": '[{"name": "late_arrival", "version": 1}]'}
    assert (project.load_model("late_arrival:2").predict(DATA) == model.predict(DATA)).all()


def test_what_cannot_be_stored_is_refused_and_nothing_is_kept(
    project: noria.Project, model: LogisticRegression
) -> None:
    with start(project) as run:
        with pytest.raises(ConfigError, match="FunctionTransformer"):
            run.log_model(FunctionTransformer(lambda rows: rows).fit(DATA))
        with pytest.raises(ConfigError, match="dict"):
            run.log_model({"a": 1})
        with pytest.raises(ConfigError, match="Invalid model name 'a/b'"):
            run.log_model(model, "a/b")
        with pytest.raises(ConfigError, match="Names cannot contain"):
            run.log_model(model, registered="a/b")
        with pytest.raises(ConfigError, match="'json'"):
            run.log_model(model, serialization="json")  # type: ignore[arg-type]
    with pytest.raises(Conflict, match="has ended"):
        run.log_model(model)
    assert project.ledger.list_versions(kind="logged_model") == []
    assert ModelCatalogue(project.ledger).search().models == []


def test_the_same_entry_of_a_model_twice_is_one(
    project: noria.Project,
) -> None:
    id = new_model_id()
    models = LoggedModels(project.ledger)
    with start(project) as run:
        run.flush()
        for _ in range(2):  # as after a kill between the database and the log's mark
            models.put_made(run.id, id, name="late", step=0, params={}, tags={}, points=[])
    assert [each.model for each in RunDesk(project.ledger).get(run.id).models_made] == [id]


def test_described_data_is_an_input(project: noria.Project) -> None:
    told = LoggedDataset(name="rows", digest="abc", source_type="code", source="{}", context="train")
    with start(project) as run:
        run.log_input(told)
        run.log_input(told, context="test")
    contexts = [
        (each.name, each.digest, each.context) for each in RunDesk(project.ledger).get(run.id).datasets
    ]
    assert contexts == [("rows", "abc", "test")]  # the same data once


def test_a_run_within_another_is_in_its_experiment(project: noria.Project) -> None:
    with start(project, experiment="parcels") as run:
        assert ActiveRun.current() is run
        with run.within("inner", params={"a": 1}) as inner:
            assert ActiveRun.current() is inner
    assert ActiveRun.current() is None
    found = RunDesk(project.ledger).read([run.id, inner.id])
    assert found[0].info.experiment == found[1].info.experiment != "0"
    assert inner.run.parent == run.id
    with start(project, run=run.id) as again, again.within() as other:
        assert other.run.parent == run.id
    assert RunDesk(project.ledger).get(other.id).info.experiment == found[0].info.experiment


@pytest.mark.parametrize("place", ["begun", "remembered", "measured"])
def test_an_interrupt_while_a_run_begins_closes_it(
    project: noria.Project, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def begin_and_interrupt(*args: object, **kwargs: object) -> None:
        begin(*args, **kwargs)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    if place == "begun":
        monkeypatch.setattr(places, "begin", begin_and_interrupt)
    elif place == "remembered":
        monkeypatch.setattr(places.LocalPlace, "remembered", interrupted)
    else:
        monkeypatch.setattr(active_run, "SystemMetrics", interrupted)
    with pytest.raises(KeyboardInterrupt), project.start_run():
        pytest.fail("the block has begun")
    (run,) = project.ledger.list_runs(kind="experiment")
    assert run.state is RunState.CANCELLED
    assert ActiveRun.current() is None


def test_a_model_that_a_killed_process_logged_comes_back(project: noria.Project) -> None:
    program = (
        "import os, signal, noria\n"
        "from sklearn.linear_model import LinearRegression\n"
        "with noria.start_run(system_metrics=False) as run:\n"
        "    print(run.log_model(LinearRegression().fit([[1.0], [2.0]], [1, 2])).id, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=project.root, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    with noria.open(project.root) as opened:
        opened.ledger.mark_killed()
        kept = LoggedModels(opened.ledger).get(done.stdout.strip())
        assert kept.status is ModelStatus.READY
        assert opened.load_model(f"models:/{kept.id}").predict(np.array([[3.0]])) == pytest.approx([3.0])
