"""A model that reads texts and vectors of a view: trained, served, logged, verified, traced."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import noria
from noria.audit.trace import trace
from noria.deploy.collecting import collect_predictions
from noria.deploy.environments import deploy
from noria.deploy.releases import record_release
from noria.deploy.shipping import PREDICTIONS
from noria.features.backends.lmdb import LmdbOnlineStore
from noria.features.materialize import with_features
from noria.serving.records import Input
from noria.training.engine import build_training_set, fit
from noria.workspace.features.parity import verify_deployment
from noria.workspace.project import Project

DAY = datetime(2024, 3, 1, tzinfo=UTC)
INSTANT = pa.timestamp("us", "UTC")
INPUTS = ("guest__visits", "guest__room", "guest__taste_0", "guest__taste_1", "guest__late_room")
DECLARED = """
import noria
from noria import agg

visits = noria.Dataset("visits", key="id", event_at="seen_at", known_at="seen_at")
guest = noria.FeatureView("guest", source=visits, entity="guest", defaults={"late_room": "never late"},
    features={
    "visits": agg.count("30d"), "room": agg.last_text("room"), "taste": agg.embedding("taste", 2),
    "late_room": agg.last_text("room", where=[("late", "==", 1)])})


@noria.train(
    "late_visit", spine=noria.Spine(visits, id="id", at="asked_at"), features=[guest], seed=1,
    label=noria.Label("late", source=visits, column="late", on="id"))
def late_visit(data: noria.TrainingSet, run: noria.TrainingRun) -> noria.Estimator:
    import lightgbm

    params = run.lightgbm_params(num_leaves=4, min_child_samples=2)
    rows = lightgbm.Dataset(data.X, data.y, feature_name=list(data.names),
                            categorical_feature=list(data.category_columns))
    return lightgbm.train(params, rows, 5)
"""


def visits(many: int) -> pa.Table:
    """Give visits, three an hour, whose room tells whether the next one is late."""
    numbers = range(many)
    seen = [DAY + timedelta(minutes=20 * number) for number in numbers]
    return pa.table(
        {
            "id": [f"visit-{number:04d}" for number in numbers],
            "guest": [["ann", "ben", "cleo", "dan", "eve"][number % 5] for number in numbers],
            "room": [("red", "blue", None, "green")[number * 7 % 4] for number in numbers],
            "taste": [None if number % 6 == 0 else [number % 3, 0.5] for number in numbers],
            "late": pa.array([int((number - 5) * 7 % 4 == 1) for number in numbers], pa.int64()),
            "seen_at": pa.array(seen, INSTANT),
            "asked_at": pa.array([each - timedelta(minutes=1) for each in seen], INSTANT),
        }
    )


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    name = f"texts_{tmp_path.name.replace('-', '_')}"
    settings = f'[project]\nname = "hotel"\nmodules = ["{name}"]\n[environments.production]\n'
    (tmp_path / "noria.toml").write_text(settings)
    (tmp_path / f"{name}.py").write_text(DECLARED)
    with noria.open(tmp_path) as opened:
        opened.ingest("visits", visits(200))
        yield opened


def served(
    project: Project, guests: list[str | None], ids: list[str], *, online: pa.Table | None = None
) -> tuple[Any, pa.Table]:
    """Train, deploy and ask; give the model version and the log."""
    training, lake = project.declarations.trainings["late_visit"], project.lake
    rows = lake.read("visits")
    made = with_features(rows.select(["id", "asked_at", "guest"]), training, read=lake.read)
    data = build_training_set(training, made, rows, until=DAY + timedelta(days=30))
    fitted = fit(training, data, ledger=project.ledger, registry=project.registry)
    manifest = project.registry.read_manifest(fitted.version)
    release = record_release(
        project.ledger,
        fitted.version,
        file_digest=manifest.parts["model"].sha256,
        inputs=[
            Input(name=each.name, kind=each.kind, categories=each.categories)
            for each in manifest.signature.inputs
        ],
        views=[view.spec() for view in training.views],
    )
    project.features.materialize()
    if online is not None:
        with LmdbOnlineStore(project.root / ".noria" / "online") as store:
            store.load(training.views[0], online)
    with project.supervisor("production") as supervisor:
        place = replace(project.deployment("production", "late_visit", supervisor=supervisor), gated=False)
        deploy(place, release, key="first")
        with supervisor.client() as client:
            client.infer("late_visit", {"guest": guests}, ids=ids)
        collect_predictions(supervisor, "late_visit", lake)
    return fitted.version, lake.read(PREDICTIONS)


def test_a_model_of_texts_and_vectors_answers_with_what_it_was_trained_on(project: Project) -> None:
    version, log = served(project, ["ann", "ben", "zoe", None], ["p-0", "p-1", "p-2", "p-3"])
    model = project.registry.load(version)
    assert model.signature.names == INPUTS
    kinds = ["feature", "text", "feature", "feature", "text"]
    assert [each.kind for each in model.signature.inputs] == kinds
    assert model.signature.inputs[1].categories == ("blue", "green", "red")
    log = log.sort_by("prediction_id")
    features = log["features"].combine_chunks()
    assert features.type.field("guest__room").type == pa.string()
    rows = visits(200)
    for place, guest in enumerate(["ann", "ben"]):
        newest = rows.filter(pa.compute.equal(rows["guest"], guest)).to_pylist()[-1]
        logged = features[place].as_py()
        assert logged["guest__room"] == newest["room"]
        taste = newest["taste"] or [None, None]
        assert [logged["guest__taste_0"], logged["guest__taste_1"]] == taste
    assert features[2].as_py()["guest__room"] is None
    assert features.field("guest__late_room").to_pylist()[2:] == ["never late", "never late"]
    again = pa.table({name: features.field(name) for name in INPUTS})
    np.testing.assert_array_equal(model.score_rows(again), log["score"].to_numpy())
    assert model.profile.columns["guest__room"].kind == "category"


def test_what_was_served_of_them_is_verified_and_traced(project: Project) -> None:
    served(project, ["cleo", "dan", "zoe"], ["p-0", "p-1", "p-2"])
    found = verify_deployment(project, "production", "late_visit")
    assert (found.rows, found.differing, found.is_broken) == (3, 0, False)
    traced = trace(
        "p-1",
        ledger=project.ledger,
        lake=project.lake,
        registry=project.registry,
        trainings=project.declarations.trainings,
    )
    assert [each.name for each in traced.features] == list(INPUTS)
    assert all(each.equal for each in traced.features), traced.features


def test_a_text_or_a_vector_that_was_served_wrong_is_found(project: Project) -> None:
    rows = visits(200)
    wrong = rows.set_column(2, "room", pa.array(["cellar"] * 200))
    wrong = wrong.set_column(3, "taste", pa.array([[7.0, 0.5]] * 200))
    served(project, ["cleo", "dan"], ["p-0", "p-1"], online=wrong)
    found = verify_deployment(project, "production", "late_visit")
    assert (found.rows, found.differing, found.is_broken) == (2, 2, True)
    (view,) = found.views
    assert {"guest__room", "guest__taste_0"} <= set(view.columns)
    assert "guest__visits" not in view.columns
