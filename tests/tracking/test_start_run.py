"""`start_run`: what is logged and captured, runs within runs, runs that go on, and bad input."""

import math
import os
import subprocess
import sys
import threading
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import noria
from noria.clock import WallClock
from noria.errors import ConfigError, Conflict, LeaseHeld, NotFound, ProjectNotFound
from noria.ledger.store import Ledger
from noria.records import Run, RunId, RunState
from noria.storage.local import LocalStorage
from noria.tracking.active_run import ActiveRun
from noria.tracking.artifacts import ArtifactStore
from noria.tracking.beginning import RunStores, WantedRun
from noria.tracking.experiments import ExperimentBook
from noria.tracking.run_desk import PARENT_TAG, RunDesk
from noria.tracking.store import TrackingStore


@pytest.fixture
def stores(either_ledger: Ledger, tmp_path: Path) -> RunStores:
    storage = LocalStorage(tmp_path / "storage")
    ledger = Ledger(either_ledger.database, storage=storage, clock=WallClock())
    return RunStores(
        ledger, ArtifactStore(ledger.database, storage, tmp_path / "staging"), tmp_path / "tracking"
    )


def start(stores: RunStores, *, nested: bool = False, **wanted: Any) -> ActiveRun:
    return ActiveRun(nullcontext(stores), WantedRun(**wanted), nested=nested, system_metrics=False)


@pytest.fixture
def project_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "noria.toml").write_text('[project]\nname = "shop"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_logged_is_on_record_when_the_block_has_ended(stores: RunStores) -> None:
    with start(stores, name="first", params={"depth": 3}, tags={"team": "ops"}, seed=7) as run:
        for number in range(5):
            run.log_metric("loss", 1 / (number + 1))
        run.log_metrics({"auc": 0.7, "größe": np.float32(0.5)}, step=9)
        run.log_param("rate", 0.1)
        run.log_params({"layers": (64, 32), "path": Path("a/b"), "rows": np.int64(5), "none": None})
        run.put_tag("why", "first try")
        run.put_tags({"why": "second thought", "größe": "ü"})
    store, ended = TrackingStore(stores.ledger.database), run.run
    assert ended == stores.ledger.get_run(run.id)
    assert (ended.kind, ended.name, ended.state, ended.seed) == ("experiment", "first", RunState.FINISHED, 7)
    params = {"depth": 3, "rate": 0.1, "layers": [64, 32], "path": "a/b", "rows": 5, "none": None}
    assert ended.params == run.params == store.params(run.id) == params
    assert ended.metrics == run.metrics == {"loss": 0.2, "auc": 0.7, "größe": 0.5}
    points = [(each.step, each.value) for each in store.list_points(run.id, "loss")]
    assert points == [(number, 1 / (number + 1)) for number in range(5)]
    tags = store.list_tags(run.id)
    assert tags == run.tags
    assert (tags["why"], tags["team"], tags["größe"], run.name) == ("second thought", "ops", "ü", "first")
    assert stores.ledger.verify().ok
    assert list(stores.spools.iterdir()) == []


def test_what_nobody_asked_for_is_recorded_as_well(project_folder: Path) -> None:
    (project_folder / ".gitignore").write_text(".noria\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *words], check=True)
    (project_folder / "train.py").write_text(
        "import noria\n\nwith noria.start_run() as run:\n    sum(n * n for n in range(200_000))\n"
    )
    subprocess.run([sys.executable, "train.py", "--depth", "3 4"], check=True)
    with noria.open() as project:
        (run,) = project.ledger.list_runs(kind="experiment")
        tags = TrackingStore(project.ledger.database).list_tags(run.id)
        patch = project.storage.get(run.code_diff or "").decode()
        distributions = project.storage.get(run.runtime).decode()
    assert tags["command"].endswith("train.py --depth '3 4'")
    assert tags["host"] == os.uname().nodename
    assert tags["mlflow.source.name"] == "train.py"
    assert tags["mlflow.source.git.commit"] == run.code != "none"
    assert "+with noria.start_run() as run:" in patch
    assert "python==" in distributions
    assert run.cost is not None
    assert 0 < run.cost.cpu_s < 60


def test_steps_count_up_for_each_metric_unless_they_are_given(stores: RunStores) -> None:
    with start(stores) as run:
        for step in (None, None, 10, None, 3, None):
            run.log_metric("loss", 1, step=step)
        run.log_metric("other", 1)
    store = TrackingStore(stores.ledger.database)
    assert [each.step for each in store.list_points(run.id, "loss")] == [0, 1, 3, 10, 11, 12]
    assert [each.step for each in store.list_points(run.id, "other")] == [0]


def test_an_instant_may_be_told_and_the_same_point_twice_is_one(stores: RunStores) -> None:
    at = datetime(2024, 5, 1, tzinfo=UTC)
    with start(stores) as run:
        run.log_metric("loss", 1, step=1, at=at)
        run.log_metric("loss", 1, step=1, at=at)
        run.log_metric("loss", 0, step=1, at=at - timedelta(seconds=1))
        assert run.metrics == {"loss": 1}
        with pytest.raises(ConfigError, match="time zone"):
            run.log_metric("loss", 1, at=datetime(2024, 5, 1))
    points = TrackingStore(stores.ledger.database).list_points(run.id)
    assert sorted((each.recorded_at, each.value) for each in points) == [
        (at - timedelta(seconds=1), 0),
        (at, 1),
    ]


def test_values_that_are_no_numbers_survive(stores: RunStores) -> None:
    with start(stores) as run:
        run.log_metrics({"a": math.nan, "b": -math.inf, "c": True, "d": Fraction(1, 4), "e": 10**18})
    metrics = stores.ledger.get_run(run.id).metrics
    assert math.isnan(metrics.pop("a"))
    assert metrics == {"b": -math.inf, "c": 1, "d": 0.25, "e": 1e18}


@pytest.mark.parametrize(
    ("name", "value", "step", "told"),
    [
        ("loss", "0.5", None, "metric 'loss': found '0.5', a str, wanted one number"),
        ("loss", None, None, "metric 'loss': found None"),
        ("loss", [1.0, 2.0], None, "metric 'loss': found .*, a list"),
        ("loss", np.zeros(3), None, "metric 'loss': found .*, a ndarray"),
        ("loss", 1j, None, "metric 'loss': found 1j"),
        ("loss", 10**400, None, "metric 'loss': .*too large"),
        ("loss", 1.0, 0.5, "metric 'good': the step is 0.5"),
        ("loss", 1.0, 2**63, "metric 'good': the step is 9223372036854775808"),
        ("", 1.0, None, "Invalid metric name ''"),
        ("a\nb", 1.0, None, "Invalid metric name"),
        ("../a", 1.0, None, "Invalid metric name '../a'"),
        ("x" * 251, 1.0, None, "of 251 characters"),
        (7, 1.0, None, "a metric is named 7"),
    ],
)
def test_a_metric_that_is_none_is_refused_by_name(
    project_folder: Path, name: Any, value: Any, step: Any, told: str
) -> None:
    with noria.start_run() as run:
        with pytest.raises(ConfigError, match=told):
            run.log_metrics({"good": 1.0, name: value}, step=step)
        assert run.metrics == {}
        run.log_metric("good", 2)
    assert run.run.metrics == {"good": 2}


@pytest.mark.parametrize("value", [object(), {1, object()}, "a\0b", "\ud800", ["a\0b"], 2**70, print])
def test_a_parameter_that_cannot_be_kept_is_refused_by_name(project_folder: Path, value: Any) -> None:
    with noria.start_run() as run:
        with pytest.raises(ConfigError, match="param 'odd'"):
            run.log_params({"good": 1, "odd": value})
        assert run.params == {}
    with pytest.raises(ConfigError, match="param 'odd'"), noria.start_run(params={"odd": value}):
        pass
    with noria.open() as project:
        assert len(project.ledger.list_runs()) == 1


def test_numbers_that_json_has_not_are_texts_as_parameters(stores: RunStores) -> None:
    params = {"missing": math.nan, "bounds": [-math.inf, np.float32("inf")], "kinds": {"b", "a"}}
    with start(stores, params=params) as run:
        pass
    told = {"missing": "nan", "bounds": ["-inf", "inf"], "kinds": ["a", "b"]}
    assert run.params == run.run.params == TrackingStore(stores.ledger.database).params(run.id) == told
    with start(stores, run=run.id, params=params) as again:
        assert again.params == told


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"name": 7}, "the run is named 7, a int"),
        ({"name": "a\0b"}, "the run name: the text .* has a NUL"),
        ({"name": "\ud800"}, "is no Unicode"),
        ({"name": "x" * 501}, "501 characters: it may have 500"),
        ({"tags": {"mlflow.runName": "x" * 501}}, "501 characters: it may have 500"),
        ({"experiment": ""}, "experiment's name is empty"),
        ({"experiment": None}, "the experiment is named None"),
        ({"experiment": "x" * 501}, "501 characters: it may have 500"),
        ({"seed": "7"}, "the seed is '7', a str"),
        ({"seed": 0.5}, "the seed is 0.5, a float"),
        ({"seed": 2**63}, "wanted one of 64 bits"),
        ({"run": 7}, "the run to go on with: found 7"),
        ({"params": [1]}, r"found \[1\], a list, wanted a dict: each param by its name"),
        ({"tags": "a"}, "found 'a', a str, wanted a dict"),
    ],
)
def test_what_cannot_begin(stores: RunStores, wanted: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        start(stores, **wanted).__enter__()
    assert stores.ledger.list_runs() == []
    assert [each.name for each in ExperimentBook(stores.ledger).list_all()] == ["Default"]


def test_numbers_and_texts_of_numpy_are_what_they_look_like(stores: RunStores) -> None:
    with start(stores, seed=np.int64(7)) as run:
        run.log_metric(np.str_("loss"), np.float32(0.5), step=np.int32(2))
        run.log_metrics({np.str_("loss"): True})
    assert (run.run.seed, run.run.metrics) == (7, {"loss": 1})


def test_a_long_name_in_any_script_can_be_kept(stores: RunStores) -> None:
    name = "".join(chr(0x20000 + number * 7) for number in range(500))  # does not compress
    with start(stores, name=name, experiment=name) as run:
        pass
    assert RunDesk(stores.ledger).get(run.id).info.name == name


@pytest.mark.parametrize("context", [None, 5, "a\0b", "\ud800"])
def test_a_context_that_is_none_does_not_harm_the_log(stores: RunStores, context: Any) -> None:
    with stores.ledger.running("ingest", "flows") as ingest:
        ingest.record_version("dataset", "flows", sha256="1" * 64, uri="lake:flows")
    with start(stores) as run:
        run.log_metric("loss", 1)
        with pytest.raises(ConfigError, match="the context of an input"):
            run.log_input("flows", context=context)
        with pytest.raises(ConfigError, match="the input: found 5"):
            run.log_input(5)  # type: ignore[arg-type]
        assert run.flush()


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.FINISHED])
def test_a_run_that_somebody_else_closes_ends_no_training(
    stores: RunStores, caplog: pytest.LogCaptureFixture, state: RunState
) -> None:
    with start(stores) as run:
        RunDesk(stores.ledger).update(run.id, state=state)
        run.log_metric("loss", 1)
    assert run.run.state is state
    assert TrackingStore(stores.ledger.database).latest_points(run.id)["loss"].value == 1
    assert ("somebody else has closed the run" in caplog.text) == (state is RunState.FAILED)


@pytest.mark.parametrize("is_closed_before", [True, False])
def test_ctrl_c_while_a_run_is_closed_leaves_none_open(
    stores: RunStores, monkeypatch: pytest.MonkeyPatch, is_closed_before: bool
) -> None:
    close, left = Ledger.finish_run, [1]

    def interrupted(ledger: Ledger, *ids: str, **told: Any) -> Run:
        if left and not is_closed_before:
            left.clear()
            raise KeyboardInterrupt
        run = close(ledger, *ids, **told)
        if left:
            left.clear()
            raise KeyboardInterrupt
        return run

    monkeypatch.setattr(Ledger, "finish_run", interrupted)
    with pytest.raises(KeyboardInterrupt), start(stores) as run:
        run.log_metric("loss", 1)
    wanted = RunState.FINISHED if is_closed_before else RunState.CANCELLED
    assert run.run == stores.ledger.get_run(run.id)
    assert (run.run.state, run.run.metrics) == (wanted, {"loss": 1})
    assert list(stores.spools.iterdir()) == []


def test_a_parameter_does_not_change(stores: RunStores) -> None:
    with start(stores, params={"depth": 3}) as run:
        run.log_param("depth", 3)
        run.log_param("depth", "3")  # reads the same
        with pytest.raises(Conflict, match=r"'depth' of run .* is 3 and cannot become 4"):
            run.log_params({"new": 1, "depth": 4})
        assert run.params == {"depth": 3}


def test_a_thousand_metrics_at_once(stores: RunStores) -> None:
    metrics = {f"m{number}": number / 7 for number in range(1_000)}
    with start(stores) as run:
        run.log_metrics(metrics)
        assert run.flush()
        latest = TrackingStore(stores.ledger.database).latest_points(run.id)
        assert {name: each.value for name, each in latest.items()} == metrics


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ValueError("no"), RunState.FAILED),
        (KeyboardInterrupt(), RunState.CANCELLED),
        (SystemExit(1), RunState.CANCELLED),
    ],
)
def test_a_block_that_ends_with_an_error_keeps_what_was_logged(
    stores: RunStores, error: BaseException, state: RunState
) -> None:
    with pytest.raises(type(error)), start(stores) as run:
        run.log_metric("loss", 1)
        raise error
    ended = stores.ledger.get_run(run.id)
    assert (ended.state, ended.metrics) == (state, {"loss": 1})
    with pytest.raises(Conflict, match="has ended"):
        run.log_metric("loss", 2)


def test_a_run_within_a_run(stores: RunStores) -> None:
    with start(stores, name="outer") as outer:
        with pytest.raises(Conflict, match=f"run {outer.id} .outer. is at work here; say nested=True"):
            start(stores).__enter__()
        with start(stores, nested=True) as inner:
            inner.log_metric("loss", 1)
            with start(stores, nested=True) as innermost:
                pass
        outer.log_metric("loss", 2)
    assert (outer.run.parent, inner.run.parent, innermost.run.parent) == (None, outer.id, inner.id)
    store = TrackingStore(stores.ledger.database)
    assert store.list_tags(inner.id)[PARENT_TAG] == outer.id
    assert (outer.run.metrics, inner.run.metrics) == ({"loss": 2}, {"loss": 1})
    with start(stores, nested=True) as other:
        pass
    assert other.run.parent is None


def test_a_thread_of_its_own_is_no_part_of_the_run(stores: RunStores) -> None:
    found = []

    def work() -> None:
        with start(stores) as run:
            found.append(run.run.parent)

    with start(stores):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert found == [None]


def test_a_run_may_end_in_another_thread_than_it_began_in(stores: RunStores) -> None:
    run = start(stores)
    thread = threading.Thread(target=run.__enter__)
    thread.start()
    thread.join()
    run.__exit__(None, None, None)
    assert run.run.state is RunState.FINISHED
    run = start(stores).__enter__()
    thread = threading.Thread(target=run.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    with start(stores) as other:  # not within the one that has ended
        assert other.run.parent is None


def test_a_run_goes_on(stores: RunStores) -> None:
    with start(stores, name="first", params={"depth": 3}, experiment="trees") as run:
        run.log_metric("loss", 1)
    before = run.run.cost
    assert before is not None
    with start(stores, run=run.id, experiment="trees", name="second") as again:
        assert again.id == run.id
        assert stores.ledger.get_run(run.id).state is RunState.RUNNING
        assert (again.params, again.metrics, again.name) == ({"depth": 3}, {"loss": 1}, "second")
        again.log_metric("loss", 0.5)
        with pytest.raises(Conflict, match="cannot become 4"):
            again.log_param("depth", 4)
        with pytest.raises(LeaseHeld, match=f"run {run.id} is in use by pid {os.getpid()}"):
            start(stores, run=run.id, nested=True).__enter__()
    ended = again.run
    assert ended.metrics == {"loss": 0.5}
    assert ended.cost is not None
    assert ended.cost.wall_s > before.wall_s
    points = TrackingStore(stores.ledger.database).list_points(run.id)
    assert [(each.step, each.value) for each in points] == [(0, 1), (1, 0.5)]
    assert RunDesk(stores.ledger).get(run.id).info.name == "second"
    assert stores.ledger.verify().ok


def test_what_cannot_go_on(stores: RunStores) -> None:
    with pytest.raises(NotFound):
        start(stores, run="0" * 32).__enter__()
    with start(stores, seed=1) as run:
        pass
    with pytest.raises(Conflict, match="seed 1, which cannot become 2"):
        start(stores, run=run.id, seed=2).__enter__()
    with pytest.raises(Conflict, match="is in experiment 'Default', not in 'other'"):
        start(stores, run=run.id, experiment="other").__enter__()
    RunDesk(stores.ledger).delete(run.id)
    with pytest.raises(Conflict, match="is deleted"):
        start(stores, run=run.id).__enter__()
    told_of = RunDesk(stores.ledger).start("0").info.id
    with pytest.raises(LeaseHeld, match="over HTTP"):
        start(stores, run=told_of).__enter__()
    trained = stores.ledger.start_run("train", "of no experiment")
    with pytest.raises(NotFound):
        start(stores, run=trained.id).__enter__()


def test_a_deleted_experiment_takes_no_run(stores: RunStores) -> None:
    book = ExperimentBook(stores.ledger)
    book.delete(book.create("old").id)
    with pytest.raises(Conflict, match=r"experiment 'old' .* is deleted"):
        start(stores, experiment="old").__enter__()
    assert stores.ledger.list_runs() == []


def test_what_a_run_read_is_in_its_lineage(stores: RunStores) -> None:
    with stores.ledger.running("ingest", "flows") as ingest:
        made = [
            ingest.record_version("dataset", "flows", sha256=f"{number}" * 64, uri="lake:flows")
            for number in (1, 2)
        ]
    with start(stores) as run:
        run.log_input("flows", context="training")
        run.log_input("flows:1")
        run.log_input(made[0])
        with pytest.raises(NotFound):
            run.log_input("nothing")
        with pytest.raises(ConfigError, match="wanted is a dataset"):
            run.log_input("flows@production")
    assert {each.version for each in stores.ledger.list_edges(run=run.id)} == {each.id for each in made}
    datasets = RunDesk(stores.ledger).get(run.id).datasets
    assert {(each.source, each.context) for each in datasets} == {
        ("dataset/flows:2", "training"),
        ("dataset/flows:1", None),
    }


def test_a_run_begins_once_and_in_a_block(stores: RunStores) -> None:
    run = start(stores)
    with pytest.raises(RuntimeError, match="use it in a `with` block"):
        run.log_metric("loss", 1)
    with run:
        pass
    with pytest.raises(RuntimeError, match="begins once"):
        run.__enter__()


def test_the_projects_own_verb_and_that_of_the_folder(project_folder: Path, tmp_path: Path) -> None:
    with noria.open() as project:
        with project.start_run("one", experiment="trees") as one:
            one.log_table(pa.table({"a": [1]}), "t.parquet")
        with noria.start_run("two", experiment="trees", project=project) as two:
            pass
        with noria.start_run("three", experiment="trees", project=project_folder) as three:
            pass
        number = ExperimentBook(project.ledger).get("trees").id
        names = [each.name for each in project.ledger.list_runs(experiment=number, newest_first=False)]
        assert names == ["one", "two", "three"]
        assert [each.path for each in project.artifacts.tree()] == [f"{number}/{one.id}/artifacts/t.parquet"]
        assert len({one.id, two.id, three.id}) == 3


def test_without_a_project_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ProjectNotFound):
        noria.start_run(project=tmp_path).__enter__()


def test_runs_of_two_projects_are_not_within_each_other(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "noria.toml").write_text(f'[project]\nname = "{name}"\n')
    with noria.start_run(project=tmp_path / "a"), noria.start_run(project=tmp_path / "b") as inner:
        assert inner.run.parent is None


def test_the_points_of_a_killed_run_are_there_and_it_can_go_on(project_folder: Path) -> None:
    (project_folder / "train.py").write_text(
        "import os, noria\n\nwith noria.start_run() as run:\n    run.log_metrics({'loss': 1.5})\n"
        "    print(run.id, flush=True)\n    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "train.py"], capture_output=True, text=True, check=False)
    assert done.returncode == -9
    id = RunId(done.stdout.strip())
    with noria.open() as project:
        assert TrackingStore(project.ledger.database).latest_points(id)["loss"].value == 1.5
        with project.start_run(run=id) as run:
            run.log_metric("loss", 1.0)
        assert project.ledger.get_run(id).metrics == {"loss": 1.0}
        assert [each.step for each in TrackingStore(project.ledger.database).list_points(id)] == [0, 1]
