"""Projects with something of everything in them, to be moved; and what two exports of them differ in."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from tests.workspace.mlflow_stores import make_project

import noria
from noria.api.mlflow.source_roots import source_roots
from noria.profiles.build import build_profile
from noria.records import RunId, RunState, Version, sha256_hex
from noria.registry.cards import CardBook
from noria.registry.catalogue import ModelCatalogue
from noria.registry.catalogue_records import Stage
from noria.registry.formats import dump_estimator
from noria.registry.matrix import encode
from noria.registry.records import Input, Signature
from noria.registry.version_catalogue import VersionCatalogue
from noria.tracking.experiments import ExperimentBook
from noria.tracking.models.logged_models import LoggedModels
from noria.tracking.models.records import ModelPoint, ModelStatus
from noria.tracking.records import LinkedModel, LoggedDataset, MetricPoint
from noria.tracking.run_desk import PARENT_TAG, RunDesk
from noria.tracking.store import TrackingStore
from noria.workspace.moving.exporting_records import SCHEMAS

__all__ = ["PLANS", "differences", "fill", "make_project", "register_native", "tables"]

_NAMES = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="%"), min_size=1, max_size=12
)
_VALUES = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 5e-324])
_POINTS = st.lists(st.tuples(_VALUES, st.integers(-(2**40), 2**40), st.integers(0, 10**15)), max_size=5)
_RUN = st.fixed_dictionaries(
    {
        "name": _NAMES,
        "experiment": st.integers(0, 2),
        "parent": st.none() | st.integers(0, 5),
        "points": _POINTS,
        "param": _NAMES | st.floats(allow_nan=False) | st.lists(st.integers(), max_size=2) | st.none(),
        "tag": _NAMES,
        "file": st.sampled_from(
            ["a.txt", "A.txt", "model/con", "größe/ü.txt", "b:c?.txt", "x" * 200, "日本.bin"]
        ),
        "state": st.sampled_from(list(RunState)),
        "is_deleted": st.booleans(),
        "with_model": st.booleans(),
    }
)
_MODEL = st.fixed_dictionaries(
    {
        "versions": st.integers(1, 4),
        "deleted": st.sets(st.integers(1, 4), max_size=2),
        "renamed": st.booleans(),
        "is_deleted": st.booleans(),
        "alias": st.integers(1, 4),
        "text": st.none() | _NAMES,
    }
)
PLANS = st.fixed_dictionaries(
    {
        "runs": st.lists(_RUN, min_size=1, max_size=6),
        "models": st.lists(_MODEL, max_size=2),
        "names": st.lists(_NAMES.filter(str.strip), min_size=2, max_size=2, unique=True),
        "deleted": st.booleans(),
    }
)
_SIGNATURE = Signature((Input("weight", "number"),), "late")


def fill(project: noria.Project, plan: dict[str, Any]) -> list[RunId]:
    """Make what a plan says; give the runs."""
    book, desk = ExperimentBook(project.ledger), RunDesk(project.ledger)
    made = [book.create(f"{name}{number}") for number, name in enumerate(plan["names"])]
    numbers = ["0", *(each.id for each in made)]
    book.put_tag(numbers[1], "team", "ö")
    runs: list[RunId] = []
    for number, told in enumerate(plan["runs"]):
        runs.append(_fill_run(project, desk, told, numbers[told["experiment"]], runs, number))
    for number, told in enumerate(plan["models"]):
        _fill_model(project, told, f"model {number}", numbers[plan["runs"][0]["experiment"]], runs[0])
    for run, told in zip(runs, plan["runs"], strict=True):
        if told["is_deleted"]:
            desk.delete(run)
    if plan["deleted"]:
        book.delete(numbers[2])
    book.rename(numbers[1], f"renamed {plan['names'][0]}")
    return runs


def _fill_run(
    project: noria.Project,
    desk: RunDesk,
    told: dict[str, Any],
    experiment: str,
    runs: Sequence[RunId],
    number: int,
) -> RunId:
    tags = {"said": told["tag"]}
    if told["parent"] is not None and told["parent"] < len(runs):
        tags[PARENT_TAG] = runs[told["parent"]]
    run = desk.start(experiment, name=told["name"], owner="ädä", tags=tags).info.id
    points = [
        MetricPoint(name=f"m{at % 2}", value=v, step=s, at_us=us)
        for at, (v, s, us) in enumerate(told["points"])
    ]
    TrackingStore(project.ledger.database).log(run, points=points, params={"p": told["param"]})
    path = project.root / "given"
    path.write_text(f"{number} of {told['name']}")
    project.artifacts.put_file(f"{experiment}/{run}/artifacts/{told['file']}", path)
    data = LoggedDataset(
        name="rows", digest=str(number % 2), source_type="local", source="{}", schema="{}", context="train",
        tags={"a": told["tag"]},
    )  # fmt: skip
    desk.log_datasets(run, [data])
    sha256 = sha256_hex(f"rows {number % 3}".encode())
    rows = project.ledger.record_version(
        "dataset", "rows", sha256=sha256, uri=f"delta:rows@{number}", run=run, facts={"rows": 3}
    )
    if runs:
        project.ledger.add_input(runs[0], rows.id)
    project.registry.record_report(
        "explanation", "tree", f'{{"of":{number}}}'.encode(), run=run, facts={"unit": told["tag"]}
    )
    if told["with_model"]:
        models = LoggedModels(project.ledger)
        model = models.create(
            experiment, name="tree", source_run=run, params={"a": "1"}, tags={"b": told["tag"]}
        )
        project.artifacts.put_file(f"{experiment}/models/{model.id}/artifacts/MLmodel", path)
        models.log_points(
            ModelPoint(model=model.id, run=run, point=each, dataset_name="rows", dataset_digest="1")
            for each in points
        )
        models.link(run, role="output", models=[LinkedModel(model=model.id, step=3)])
        models.finish(model.id, ModelStatus.READY)
    if told["state"] is not RunState.RUNNING:
        latest = TrackingStore(project.ledger.database).latest_points(run)
        metrics = {name: point.value for name, point in latest.items()}
        project.ledger.finish_run(run, state=told["state"], metrics=metrics)
    return run


def catalogues(project: noria.Project) -> tuple[ModelCatalogue, VersionCatalogue]:
    """Give what keeps the labels of models."""
    ledger = project.ledger
    roots = source_roots(RunDesk(ledger), ExperimentBook(ledger), LoggedModels(ledger))
    return ModelCatalogue(ledger), VersionCatalogue(ledger, project.storage, project.artifacts, roots)


def _fill_model(project: noria.Project, told: dict[str, Any], name: str, experiment: str, run: RunId) -> None:
    models, versions = catalogues(project)
    models.create(name, description=told["text"], tags={"a": "b"})
    for number in range(1, told["versions"] + 1):
        source = f"runs:/{run}" if number % 2 else f"s3://bucket/{number}"
        if number % 2:
            source = f"mlflow-artifacts:/{experiment}/{run}/artifacts"
        versions.register(name, source, run=run, description=told["text"], tags={"n": str(number)})
    (first, *_) = project.ledger.list_versions(kind="model", name=name)
    cards = CardBook(project.ledger, project.storage)
    for text in ("for trying out", told["text"] or "for nothing"):
        cards.put(first, {"Intended use": text}, actor="ädä")
    versions.put_stage(name, 1, Stage.PRODUCTION)
    if told["alias"] <= told["versions"]:
        models.put_alias(name, "best", told["alias"])
    for number in told["deleted"]:
        if number <= told["versions"]:
            versions.delete(name, number)
    if told["renamed"]:
        models.rename(name, f"{name} again")
    if told["is_deleted"]:
        models.delete(f"{name} again" if told["renamed"] else name)


def register_native(project: noria.Project, name: str, *, seed: int, run: RunId | None = None) -> Version:
    """Register a model that noria keeps whole."""
    rng = np.random.default_rng(seed)
    rows = pa.table({"weight": rng.random(200)})
    matrix = encode(_SIGNATURE, rows)
    params = {"objective": "binary", "verbosity": -1, "num_threads": 1, "num_leaves": 3, "seed": seed}
    booster = lightgbm.train(params, lightgbm.Dataset(matrix, matrix[:, 0] > rng.random()), num_boost_round=2)
    model_format, data = dump_estimator(booster)
    samples = rows.slice(0, 20)
    samples = samples.append_column("late", pa.array(np.asarray(booster.predict(matrix[:20]))))
    return project.registry.register(
        name,
        model_bytes=data,
        format=model_format,
        signature=_SIGNATURE,
        profile=build_profile({"weight": matrix[:, 0]}, window_rows=50),
        samples=samples,
        metrics={"auc": 0.5 + seed / 100},
        run=run,
        facts={"seed": seed},
    )


def tables(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Read the tables of an export, NaN as a text that equals itself."""
    found = {}
    for name in SCHEMAS:
        rows = pq.read_table(folder / "tables" / f"{name}.parquet").to_pylist()
        found[name] = [
            {
                key: "nan" if isinstance(value, float) and math.isnan(value) else value
                for key, value in row.items()
            }
            for row in rows
        ]
    return found


def differences(one: Path, other: Path) -> list[str]:
    """Name the tables of two exports that differ, with the first rows that do."""
    first, second = tables(one), tables(other)
    told = []
    for name in SCHEMAS:
        if first[name] != second[name]:
            rows = [pair for pair in zip(first[name], second[name], strict=False) if pair[0] != pair[1]]
            told.append(f"{name}: {len(first[name])} and {len(second[name])} rows, such as {rows[:1]}")
    return told
