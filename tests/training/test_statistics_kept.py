"""What a training keeps of its features beside the model, and what a gate makes of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import noria.training.statistics as kept
from noria.deploy.declarations import Gate, no_leakage
from noria.deploy.gates import GateEvidence, GateResult, judge
from noria.errors import DigestMismatch, NotFound
from noria.features import agg
from noria.features.declarations import FeatureView
from noria.lake.declarations import Dataset
from noria.training import Label, Training
from noria.training.engine import Fitted, TrainingData, build_training_set
from noria.training.sets import digest_of_set
from noria.training.statistics import list_suspicions, read_statistics, training_statistics

from .parcel_project import HOLDOUT_FROM, UNTIL, Bench, declare, deliveries, make_rows


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def made(rows: pa.Table, labels: pa.Table, training: Training | None = None) -> TrainingData:
    return build_training_set(training or declare(), rows, labels, until=UNTIL, holdout_from=HOLDOUT_FROM)


def leaky(rows: pa.Table, labels: pa.Table) -> pa.Table:
    """Give rows whose feature was made after the fact."""
    late = dict(zip(labels["parcel"].to_pylist(), labels["late"].to_pylist(), strict=True))
    values = pa.array([late[each] + 0.5 for each in rows["parcel_id"].to_pylist()])
    return rows.set_column(rows.schema.get_field_index("depot__late_rate"), "depot__late_rate", values)


def asked(bench: Bench, fitted: Fitted, *, allow: tuple[str, ...] = ()) -> GateResult:
    gate = Gate("production_gate", checks=[no_leakage(allow=allow)])
    found = list_suspicions(bench.ledger, fitted.version)
    evidence = GateEvidence(
        y=[0, 1], at=[0, 1], challenger=[0.1, 0.9], base_rate=0.5, data_version="set:1", suspicions=found
    )
    return judge(gate, evidence)


def test_an_honest_training_keeps_its_statistics_and_passes(bench: Bench) -> None:
    data = made(*make_rows(3_000))
    fitted = bench.fit(declare(), data, key="honest")
    told = read_statistics(bench.ledger, bench.registry, fitted.version)
    assert [(each.name, each.kind) for each in told.features] == [
        ("weight", "number"),
        ("depot", "category"),
        ("depot__late_rate", "number"),
    ]
    assert told.strongest(1)[0].name == "weight"
    assert told.labelled == len(data.training)
    assert told.rows == len(data.population) == told.labelled + 23  # half a day's are not delivered yet
    assert asked(bench, fitted).reason == "passed production_gate: no feature is suspicious"
    assert bench.ledger.list_events(verb="features.*") == []
    assert bench.fit(declare(), data, key="honest") == fitted
    assert len(bench.ledger.list_versions(kind="feature_statistics")) == 1


def test_a_leak_is_an_event_and_closes_the_gate(bench: Bench) -> None:
    rows, labels = make_rows(3_000)
    fitted = bench.fit(declare(), made(leaky(rows, labels), labels))
    (event,) = bench.ledger.list_events(verb="features.suspected")
    assert event.subject == fitted.version.ref
    assert event.payload["model"] == fitted.version.id
    (found,) = event.payload["suspicions"]
    assert (found["feature"], found["rule"]) == ("depot__late_rate", "predicts_too_well")
    refused = asked(bench, fitted)
    assert not refused.passed
    (check,) = refused.checks
    assert check.value is not None
    assert check.value >= check.limit == 0.95
    assert (
        "depot__late_rate (predicts_too_well): alone it ranks the label with an AUC of 1.000" in check.detail
    )
    assert f"surely {check.value:.3f} or more, limit 0.95" in check.detail
    allowed = asked(bench, fitted, allow=("depot__late_rate",))
    assert allowed.passed
    assert "but what is allowed, 1 times" in allowed.reason


def test_statistics_that_cannot_be_computed_take_no_model_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("somewhere in the statistics")

    monkeypatch.setattr(kept, "statistics_of", break_down)
    fitted = bench.fit(declare(), made(*make_rows(3_000)), key="broken")
    assert bench.registry.load(fitted.version).sample_error() == 0
    (event,) = bench.ledger.list_events(verb="features.unmeasured")
    assert event.payload["reason"] == "ZeroDivisionError: somewhere in the statistics"
    refused = asked(bench, fitted)
    assert not refused.passed
    assert refused.checks[0].value is None
    assert "the features were not looked at" in refused.reason
    with pytest.raises(NotFound) as missing:
        read_statistics(bench.ledger, bench.registry, fitted.version)
    assert "somewhere in the statistics" in missing.value.__notes__[0]


def test_a_training_that_was_killed_before_it_kept_them_keeps_them_the_next_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    data = made(*make_rows(3_000))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(kept, "statistics_of", end)
        bench.fit(declare(), data, key="killed")
    (model,) = bench.ledger.list_versions(kind="model")
    assert list_suspicions(bench.ledger, model) is None
    fitted = bench.fit(declare(), data, key="killed")
    assert fitted.version.id == model.id
    assert fitted.version.run != fitted.run.id
    assert asked(bench, fitted).passed
    assert read_statistics(bench.ledger, bench.registry, fitted.version).features


def test_statistics_that_were_changed_are_told_from_those_recorded(bench: Bench, tmp_path: Path) -> None:
    fitted = bench.fit(declare(), made(*make_rows(3_000)))
    sha256 = bench.ledger.get_version("feature_statistics", "late_parcel").sha256
    (stored,) = (
        each
        for each in (tmp_path / "storage").rglob("*")
        if each.is_file() and sha256 in each.as_posix().replace("/", "")
    )
    stored.chmod(0o644)
    stored.write_bytes(stored.read_bytes().replace(b"weight", b"height"))
    with pytest.raises(DigestMismatch):
        read_statistics(bench.ledger, bench.registry, fitted.version)


def rules(training: Training, data: TrainingData) -> set[tuple[str, str]]:
    told = training_statistics(training, data, digest=digest_of_set(data.training, data.signature))
    return {(each.feature, each.rule) for each in told.suspicions}


def test_a_feature_of_the_label_whose_rows_are_known_at_once_sees_its_own_outcome() -> None:
    rows, labels = make_rows(3_000)
    assert rules(declare(), made(rows, labels)) == set()
    early = labels.set_column(
        labels.schema.get_field_index("scanned_at"),
        "scanned_at",
        rows.sort_by("parcel_id")["predict_at"],
    )
    assert rules(declare(), made(rows, early)) == {("depot__late_rate", "own_outcome")}


@pytest.mark.parametrize(("known_at", "is_found"), [("sent_at", True), ("scanned_at", False)])
def test_a_like_column_of_a_source_that_waits_for_nothing_is_suspicious(
    known_at: str, is_found: bool
) -> None:
    copies = Dataset("copies", key="id", event_at="sent_at", known_at=known_at)
    conditions = [("late", "==", 1)]
    features = {
        "mean": agg.mean("late", "7d"),
        "where": agg.count("7d", where=conditions),
        "other": agg.mean("kg", "7d"),
    }
    views = {
        name: FeatureView("copy", source=copies, entity="depot", features={"late_rate": each})
        for name, each in features.items()
    }
    rows, labels = make_rows(3_000)
    rows = rows.rename_columns({"depot__late_rate": "copy__late_rate"})
    for name, view in views.items():
        training = replace(declare(), features=(view,))
        expected = {("copy__late_rate", "own_outcome")} if is_found and name != "other" else set()
        assert rules(training, made(rows, labels, training)) == expected
    at_once = Dataset("scans", key="delivery_id", event_at="scanned_at", known_at="scanned_at")
    label = Label("late", source=at_once, column="late", on="parcel")
    training = replace(declare(), features=(views["mean"],), label=label)
    assert rules(training, made(rows, labels, training)) == set()  # the label waits for nothing either


@given(seed=st.integers(0, 2**31), change=st.sampled_from(["nothing", "leak"]))
@settings(max_examples=20, deadline=None)
def test_sets_with_a_leak_are_told_from_those_without(seed: int, change: str) -> None:
    rows, labels = make_rows(2_600, seed=seed)
    plant: Callable[[pa.Table, pa.Table], pa.Table] = leaky if change == "leak" else lambda rows, _: rows
    found = rules(declare(), made(plant(rows, labels), labels))
    assert found == ({("depot__late_rate", "predicts_too_well")} if change == "leak" else set())


def test_when_outcomes_became_known_is_told_of_each_row() -> None:
    rows, labels = make_rows(3_000)
    data = made(rows, labels)
    assert np.array_equal(
        data.outcome_known - data.training.at, np.full(len(data.training), 12 * 3_600_000_000)
    )
    assert np.isin(data.training.at, data.population_at).all()
    assert (np.diff(data.population_at) >= 0).all()
    assert deliveries.known_at_column == "scanned_at"
