"""Logged models: made, uploaded, measured, tagged, deleted, and versions of the ledger; on both databases."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from noria.errors import ConfigError, Conflict, NotFound
from noria.ledger.store import Ledger
from noria.records import RunId
from noria.storage.local import LocalStorage
from noria.tracking.artifacts import ArtifactStore
from noria.tracking.experiments import ExperimentBook
from noria.tracking.models.logged_models import INPUT, OUTPUT, LoggedModels
from noria.tracking.models.records import LoggedModel, ModelPoint, ModelStatus
from noria.tracking.records import LinkedModel, MetricPoint
from noria.tracking.run_desk import RunDesk

NOBODY = "m-" + "0" * 32


@pytest.fixture
def models(either_ledger: Ledger) -> LoggedModels:
    return LoggedModels(either_ledger)


@pytest.fixture
def run(either_ledger: Ledger) -> RunId:
    return RunDesk(either_ledger).start("0", name="night", owner="ada").info.id


@pytest.fixture
def files(either_ledger: Ledger, tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(either_ledger.database, LocalStorage(tmp_path / "storage"), tmp_path / "staging")


def _put(files: ArtifactStore, model: LoggedModel, name: str, content: str) -> None:
    with files.writing(f"{model.artifact_uri.removeprefix('mlflow-artifacts:/')}/{name}") as writer:
        writer.write(content.encode())


def _point(model: str, run: RunId, value: float, *, name: str = "acc", step: int = 0) -> ModelPoint:
    point = MetricPoint(name=name, value=value, step=step, at_us=1_000)
    return ModelPoint(model=model, run=run, point=point)


def test_a_model_is_made_in_an_experiment(models: LoggedModels, run: RunId) -> None:
    made = models.create(
        "0", name="forest", type="classifier", source_run=run, params={"a": "1"}, tags={"t": "ü"}
    )
    assert made == models.get(made.id)
    assert made.id.startswith("m-")
    assert int(made.id[2:], 16) >= 0
    assert len(made.id) == 34
    assert (made.name, made.type, made.status, made.source_run) == (
        "forest",
        "classifier",
        ModelStatus.PENDING,
        run,
    )
    assert (made.params, made.tags, made.metrics, made.version) == ({"a": "1"}, {"t": "ü"}, (), None)
    assert made.artifact_uri == f"mlflow-artifacts:/0/models/{made.id}/artifacts"
    assert made.created_at == made.updated_at


def test_names_need_not_differ_and_may_be_left_out(models: LoggedModels) -> None:
    first, second = models.create("0", name="forest"), models.create("0", name="forest")
    assert first.id != second.id
    assert models.create("0").name.count("-") == 2


@pytest.mark.parametrize("name", ["", "a/b", "a:1", "a.b", "100%", 'say "x"', "it's"])
def test_names_that_would_lead_elsewhere_are_refused(models: LoggedModels, name: str) -> None:
    with pytest.raises(ConfigError, match="Invalid model name"):
        models.create("0", name=name)


def test_files_are_at_the_place_of_the_experiment(models: LoggedModels, either_ledger: Ledger) -> None:
    folder = ExperimentBook(either_ledger).create("far", artifact_uri="s3://bucket/far")
    made = models.create(folder.id)
    assert made.artifact_uri == f"s3://bucket/far/models/{made.id}/artifacts"


def test_a_ready_model_is_a_version_that_its_run_made(
    models: LoggedModels, either_ledger: Ledger, files: ArtifactStore, run: RunId
) -> None:
    made = models.create("0", name="forest", type="classifier", source_run=run)
    _put(files, made, "MLmodel", "flavors: {}")
    _put(files, made, "data/model.txt", "tree")
    models.link(run, role=OUTPUT, models=[LinkedModel(model=made.id, step=3)])
    assert either_ledger.list_edges(run=run) == []
    ready = models.finish(made.id, ModelStatus.READY)
    assert ready.status is ModelStatus.READY
    assert ready.updated_at > made.updated_at
    (version,) = either_ledger.list_versions(kind="logged_model")
    assert (ready.version, version.name, version.uri) == (version.id, "forest", made.artifact_uri)
    assert version.facts == {"model_id": made.id, "type": "classifier", "files": 2, "size_bytes": 15}
    (edge,) = either_ledger.list_edges(run=run)
    assert (edge.version, edge.role) == (version.id, "output")
    events = either_ledger.list_events(verb="logged_model.*")
    assert [(each.verb, each.actor) for each in events] == [("logged_model.created", "ada")]
    assert models.finish(made.id, ModelStatus.READY).version == version.id
    _put(files, made, "data/model.txt", "another tree")
    assert models.finish(made.id, ModelStatus.READY).version != version.id
    assert either_ledger.verify().ok


def test_models_with_the_same_files_are_told_apart_by_name_alone(
    models: LoggedModels, either_ledger: Ledger, files: ArtifactStore
) -> None:
    made = [models.create("0", name=name) for name in ("a", "a", "b")]
    for each in made:
        _put(files, each, "MLmodel", "same")
        models.finish(each.id, ModelStatus.READY)
    assert [each.ref for each in either_ledger.list_versions(kind="logged_model")] == ["a:1", "b:1"]


def test_a_model_whose_files_are_elsewhere_is_a_version_of_its_place(
    models: LoggedModels, either_ledger: Ledger
) -> None:
    folder = ExperimentBook(either_ledger).create("far", artifact_uri="s3://bucket/far")
    made = [models.finish(models.create(folder.id, name="a").id, ModelStatus.READY) for _ in range(2)]
    assert len({each.version for each in made}) == 2


def test_a_model_that_failed_is_none_of_the_ledger(models: LoggedModels, either_ledger: Ledger) -> None:
    made = models.create("0")
    assert models.finish(made.id, ModelStatus.FAILED).status is ModelStatus.FAILED
    assert either_ledger.list_versions(kind="logged_model") == []


def test_a_run_that_reads_a_model_gets_an_edge_before_and_after_it_is_ready(
    models: LoggedModels, either_ledger: Ledger, run: RunId
) -> None:
    desk = RunDesk(either_ledger)
    made = models.create("0", source_run=run)
    early, late = (desk.start("0").info.id for _ in range(2))
    models.link(early, role=INPUT, models=[LinkedModel(model=made.id)])
    models.link(run, role=INPUT, models=[LinkedModel(model=made.id)])  # it measures what it makes
    version = models.finish(made.id, ModelStatus.READY).version
    models.link(late, role=INPUT, models=[LinkedModel(model=made.id), LinkedModel(model=made.id)])
    models.link(late, role=INPUT, models=[LinkedModel(model=made.id)])
    edges = {(each.run, each.role) for each in either_ledger.list_edges(version=version)}
    assert edges == {(run, "output"), (early, "input"), (late, "input")}
    assert desk.get(late).models_read == (LinkedModel(model=made.id),)
    assert desk.get(late).models_made == ()
    models.link(late, role=OUTPUT, models=[LinkedModel(model=made.id, step=1)])
    models.link(late, role=OUTPUT, models=[LinkedModel(model=made.id, step=2)])
    assert desk.get(late).models_made == (LinkedModel(model=made.id, step=2),)
    assert either_ledger.verify().ok


def test_what_runs_measure_of_a_model_is_kept_once(models: LoggedModels, run: RunId) -> None:
    made = models.create("0")
    one = _point(made.id, run, 0.5)
    on_data = ModelPoint(
        model=made.id, run=run, point=one.point, dataset_name="flights", dataset_digest="ab12"
    )
    nan, far = _point(made.id, run, math.nan, step=1), _point(made.id, run, math.inf, step=2)
    models.log_points([one, on_data, nan, far])
    models.log_points([one, on_data])
    found = models.get(made.id).metrics
    assert [repr(each.point.value) for each in found] == ["0.5", "0.5", "nan", "inf"]
    assert {each.dataset_name for each in found} == {None, "flights"}
    assert on_data in found


def test_points_of_one_unknown_model_keep_nothing(models: LoggedModels, run: RunId) -> None:
    made = models.create("0")
    with pytest.raises(NotFound, match=NOBODY):
        models.log_points([_point(made.id, run, 1.0), _point(NOBODY, run, 1.0)])
    assert models.get(made.id).metrics == ()


def test_tags_change_and_parameters_do_not(models: LoggedModels) -> None:
    made = models.create("0", tags={"a": "1"}, params={"p": "1"})
    assert models.put_tags(made.id, {"a": "2", "b": "3"}).tags == {"a": "2", "b": "3"}
    models.remove_tag(made.id, "a")
    with pytest.raises(NotFound, match="no tag named 'a'"):
        models.remove_tag(made.id, "a")
    models.add_params(made.id, {"p": "1", "q": "2"})
    with pytest.raises(Conflict, match=r"'q' .* is '2' and cannot become '3'"):
        models.add_params(made.id, {"r": "1", "q": "3"})
    found = models.get(made.id)
    assert (found.tags, found.params) == ({"b": "3"}, {"p": "1", "q": "2"})
    assert found.updated_at > made.updated_at


def test_a_deleted_model_is_a_tombstone(models: LoggedModels, either_ledger: Ledger, run: RunId) -> None:
    made = models.create("0", name="forest")
    models.delete(made.id)
    models.delete(made.id)
    with pytest.raises(NotFound, match="logged model"):
        models.get(made.id)
    kept = models.get(made.id, with_deleted=True)
    assert kept.deleted_at is not None
    models.log_points([_point(made.id, run, 1.0)])
    assert len(models.read([made.id])[0].metrics) == 1
    with pytest.raises(Conflict, match="is deleted"):
        models.put_tags(made.id, {"a": "1"})
    with pytest.raises(Conflict, match="is deleted"):
        models.remove_tag(made.id, "a")
    with pytest.raises(Conflict, match="is deleted"):
        models.add_params(made.id, {"a": "1"})
    with pytest.raises(Conflict, match="is deleted"):
        models.finish(made.id, ModelStatus.READY)
    verbs = [each.verb for each in either_ledger.list_events(subject=f"logged_model/{made.id}")]
    assert verbs == ["logged_model.created", "logged_model.deleted"]


def test_what_is_not_there_or_deleted_takes_no_model(
    models: LoggedModels, either_ledger: Ledger, run: RunId
) -> None:
    book, desk = ExperimentBook(either_ledger), RunDesk(either_ledger)
    folder, gone = book.create("night"), desk.start("0").info.id
    book.delete(folder.id)
    desk.delete(gone)
    made = models.create("0")
    link = [LinkedModel(model=made.id)]
    with pytest.raises(Conflict, match="restore it first"):
        models.create(folder.id)
    with pytest.raises(Conflict, match="restore it first"):
        models.create("0", source_run=gone)
    with pytest.raises(Conflict, match="restore it first"):
        models.link(gone, role=OUTPUT, models=link)
    for wrong in ("7", "x", "²"):
        with pytest.raises(NotFound, match="no experiment named"):
            models.create(wrong)
    with pytest.raises(NotFound, match="no run named"):
        models.create("0", source_run=RunId("0" * 32))
    with pytest.raises(NotFound, match="no run named"):
        models.link(RunId("0" * 32), role=OUTPUT, models=link)
    with pytest.raises(NotFound, match="no logged model named"):
        models.link(run, role=OUTPUT, models=[*link, LinkedModel(model=NOBODY)])
    assert desk.get(run).models_made == ()
    with pytest.raises(NotFound):
        models.get(NOBODY)
    with pytest.raises(NotFound):
        models.delete(NOBODY)
    with pytest.raises(NotFound):
        models.finish(NOBODY, ModelStatus.READY)
    with pytest.raises(NotFound):
        models.put_tags(NOBODY, {"a": "1"})


def test_many_at_once_lose_nothing(models: LoggedModels, either_ledger: Ledger, run: RunId) -> None:
    shared = models.create("0", name="shared").id

    def work(who: int) -> None:
        for turn in range(5):
            mine = models.create("0", name="forest", source_run=run, tags={"who": str(who)})
            models.link(run, role=OUTPUT, models=[LinkedModel(model=mine.id, step=turn)])
            models.log_points([_point(shared, run, who, step=turn), _point(mine.id, run, turn)])
            models.put_tags(shared, {f"t{who}": str(turn)})
            models.finish(mine.id, ModelStatus.READY)

    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(work, range(8)))) == 8
    assert len(models.get(shared).metrics) == 40
    assert models.get(shared).tags == {f"t{who}": "4" for who in range(8)}
    versions = either_ledger.list_versions(kind="logged_model")
    assert [each.number for each in versions] == list(range(1, 41))
    assert len(RunDesk(either_ledger).get(run).models_made) == 40
    assert either_ledger.verify().ok
