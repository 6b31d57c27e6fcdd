"""Tracing predictions of a small real world down to their rows and up to their money."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tests.audit.conftest import World

from noria.audit.records import RawRows, Trace
from noria.audit.trace import trace, verify_trace
from noria.errors import NotFound
from noria.training import Training
from noria.value.money import payoffs
from noria.warehouse.query import query

START = datetime(2013, 1, 1, tzinfo=UTC)
INSTANT = pa.timestamp("us", "UTC")


@pytest.fixture(scope="module")
def traced(shared: World) -> Trace:
    return shared.trace(shared.prediction(day=36)["prediction_id"])


def by_view(trace: Trace) -> Mapping[str, RawRows]:
    return {each.view: each for each in trace.raw}


def log_again(world: World, row: dict[str, Any], **changes: Any) -> None:
    """Log a prediction like `row`, changed."""
    kept = world.lake.read("predictions")
    table = kept.filter(pc.equal(kept["prediction_id"], row["prediction_id"])).slice(0, 1)
    changed = pa.Table.from_pylist([table.to_pylist()[0] | changes], schema=table.schema)
    world.lake.append("predictions", changed, batch=1, app_id=f"tests/{len(kept)}")


def test_a_trace_names_everything_that_made_the_answer(traced: Trace, shared: World) -> None:
    logged = shared.prediction(day=36)
    assert (traced.prediction.score, traced.prediction.at) == (logged["score"], logged["at"])
    assert traced.prediction.route == traced.route.version.sha256 == logged["route"]
    assert traced.release.version.ref == logged["release"]
    assert traced.model.ref == traced.prediction.model == "late_parcel:4"
    assert [run.model for run in traced.runs] == ["late_parcel:4", "late_parcel:3"]
    assert traced.release.refit_of == shared.ledger.get_version("model", "late_parcel", 3).id
    refit, judged = traced.runs
    assert refit.seed == judged.seed == 7
    assert refit.params["lightgbm.num_leaves"] == 7
    assert {each.kind for each in judged.inputs} == {"dataset", "feature_view", "training_set"}
    assert traced.route.since is not None
    assert traced.route.since <= traced.prediction.at
    assert [(each.verb, each.environment) for each in traced.verdicts] == [
        ("gate.passed", "staging"),
        ("gate.passed", "production"),
        ("canary.passed", "production"),
    ]
    assert all(each.checks for each in traced.verdicts)


def test_features_are_recomputed_from_the_raw_rows_and_equal(shared: World) -> None:
    for day in (30, 33, 34, 37):
        found = shared.trace(shared.prediction(day=day)["prediction_id"])
        assert len(found.features) == 5
        assert found.features_equal
        assert all(each.used is not None for each in found.features)
        assert found.ok


def test_a_feature_that_was_served_wrongly_shows(world: World) -> None:
    row = world.prediction(day=36)
    log_again(
        world, row, prediction_id="odd", features=row["features"] | {"depot__late_7d": 0.123}, answered=True
    )
    found = world.trace("odd")
    assert [each.name for each in found.features if not each.equal] == ["depot__late_7d"]
    assert not found.features_equal


def test_raw_rows_are_those_known_in_the_window_of_the_entity(traced: Trace, shared: World) -> None:
    asked, found = traced.prediction, by_view(traced)["depot"]
    day = asked.at.replace(hour=0, minute=0, second=0, microsecond=0)
    assert found.event_from == day - timedelta(days=7)
    mine = [
        row
        for row in shared.rows("deliveries")
        if row["depot"] == asked.inputs["depot"]
        and row["scanned_at"] <= asked.at
        and row["delivered_at"] >= found.event_from
    ]
    assert found.count == len(mine) > 50
    assert found.known_first == min(row["scanned_at"] for row in mine)
    assert found.known_last == max(row["scanned_at"] for row in mine)
    assert sum(file.rows for file in found.files) == found.count
    newest = max(mine, key=lambda row: (row["delivered_at"], row["delivery_id"]))
    assert found.newest[0]["delivery_id"] == newest["delivery_id"]
    assert set(found.newest[0]) == set(newest)  # in full, not only the columns of the view


def test_the_digest_of_raw_rows_follows_the_stated_recipe(traced: Trace, shared: World) -> None:
    found = by_view(traced)["depot"]
    table = query(found.sql, {"deliveries": lambda: shared.lake.reader("deliveries")})
    lines: list[list[Any]] = [list(found.columns)]
    for row in table.to_pylist():
        lines.append(
            [
                round(value.timestamp() * 1e6) if isinstance(value, datetime) else value
                for value in (row[name] for name in found.columns)
            ]
        )
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    assert sha256(text.encode()).hexdigest() == found.sha256


def test_a_view_of_last_values_comes_from_one_row(traced: Trace, shared: World) -> None:
    found = by_view(traced)["courier"]
    assert (found.count, found.only_last, found.event_from) == (1, True, None)
    (row,) = query(found.sql, {"deliveries": lambda: shared.lake.reader("deliveries")}).to_pylist()
    assert row["delivery_id"] == found.newest[0]["delivery_id"]
    (minutes,) = (each.used for each in traced.features if each.name == "courier__last_minutes")
    assert minutes == row["minutes"]


def test_a_last_row_older_than_any_window_is_found(world: World) -> None:
    row = world.prediction(day=36)
    later = row["at"] + timedelta(days=90)
    minutes = next(each for each in world.trace(row["prediction_id"]).raw if each.view == "courier")
    assert minutes.count == 1
    log_again(world, row, prediction_id="later", at=later)
    found = by_view(world.trace("later"))
    assert (found["courier"].count, found["courier"].event_from) == (1, None)
    newest = max(
        (each for each in world.rows("deliveries") if each["courier"] == row["inputs"]["courier"]),
        key=lambda each: (each["delivered_at"], each["delivery_id"]),
    )
    assert found["courier"].newest[0]["delivery_id"] == newest["delivery_id"]
    assert found["depot"].count == 0


def test_a_missing_entity_has_no_rows_and_no_features(world: World) -> None:
    row = world.prediction(day=36)
    nothing = dict.fromkeys(row["features"], None)
    log_again(
        world,
        row,
        prediction_id="nobody",
        inputs=row["inputs"] | {"depot": None, "courier": None},
        features=nothing,
    )
    found = world.trace("nobody")
    assert [each.count for each in found.raw] == [0, 0]
    assert found.features_equal
    assert found.ok


def test_the_row_that_was_predicted_is_shown_in_full(traced: Trace) -> None:
    assert traced.spine is not None
    assert traced.spine.row is not None
    assert traced.spine.row["parcel_id"] == traced.prediction.id
    assert traced.spine.row["weight"] == traced.prediction.inputs["weight"]
    assert traced.spine.version is not None
    assert traced.spine.version.at > traced.prediction.at


def test_a_prediction_that_is_in_no_dataset_says_so(world: World) -> None:
    log_again(world, world.prediction(day=36), prediction_id="adhoc")
    spine = world.trace("adhoc").spine
    assert spine is not None
    assert (spine.row, spine.problem) == (None, "'parcels' has no row whose 'parcel_id' is 'adhoc'")


def test_outcome_and_money_are_those_of_the_decision(
    traced: Trace, shared: World, trainings: Mapping[str, Training]
) -> None:
    outcome, money = traced.outcome, traced.money
    assert outcome is not None
    assert money is not None
    (row,) = (each for each in shared.rows("outcomes") if each["prediction_id"] == traced.prediction.id)
    assert (outcome.outcome, outcome.known_at) == (row["outcome"], row["known_at"])
    objective = trainings["late_parcel"].objective
    assert objective is not None
    assert money.value == payoffs(objective, [traced.prediction.score], [row["outcome"]])[0]
    assert money.threshold == traced.release.threshold == objective.cut


def test_without_an_outcome_nothing_is_paid_yet(shared: World) -> None:
    found = shared.trace(shared.prediction(day=37, known=False)["prediction_id"])
    assert found.outcome is None
    assert found.money is not None
    assert (found.money.cell, found.money.gain) == (None, None)
    assert "its outcome is not known yet" in " ".join(found.sentences)


def test_a_corrected_outcome_counts(world: World) -> None:
    row = world.prediction(day=36)
    before = world.trace(row["prediction_id"]).outcome
    assert before is not None
    assert before.outcome is not None
    table = pa.table(
        {
            "prediction_id": [row["prediction_id"]],
            "deployment": ["production/late_parcel"],
            "outcome": [1 - before.outcome],
            "known_at": pa.array([before.known_at + timedelta(days=3)], INSTANT),
        }
    )
    world.lake.append("outcomes", table, batch=1, app_id="corrections")
    after = world.trace(row["prediction_id"]).outcome
    assert after is not None
    assert (after.outcome, after.corrections) == (1 - before.outcome, 1)


def test_a_row_of_a_trial_shows_who_else_scored_it(shared: World) -> None:
    found = shared.trace(shared.prediction(day=34)["prediction_id"])
    (other,) = found.shadows
    assert {other.release, found.release.version.ref} == {each["release"] for each in found.route.entries}
    assert not found.route.stable


def test_the_same_id_at_two_deployments_needs_no_guess(world: World) -> None:
    row = world.prediction(day=36)
    id = row["prediction_id"]
    staged = [each for each in world.ledger.list_versions(kind="route") if each.name == "staging.late_parcel"]
    log_again(
        world,
        row,
        environment="staging",
        route=staged[0].sha256,
        route_number=staged[0].number,
        at=row["at"] - timedelta(hours=1),
    )
    assert world.trace(id).prediction.environment == "production"
    assert world.trace(id).elsewhere == ("staging/late_parcel",)
    assert world.trace(id, environment="staging").prediction.environment == "staging"
    assert world.trace(id, environment="production/late_parcel").prediction.environment == "production"


def test_a_model_without_a_declaration_is_traced_all_the_same(shared: World) -> None:
    id = shared.prediction(day=36)["prediction_id"]
    found = trace(id, ledger=shared.ledger, lake=shared.lake, registry=shared.registry, trainings={})
    assert (found.spine, found.money) == (None, None)
    assert found.features_equal
    assert found.ok


def test_an_unknown_id_says_how_ids_look(shared: World) -> None:
    with pytest.raises(NotFound, match=r"what the client sent.*such as 'p00.*noria query \"select") as caught:
        shared.trace("p99")
    assert caught.value.exit_code == 3
    with pytest.raises(NotFound, match="in shadowland"):
        shared.trace(shared.prediction(day=36)["prediction_id"], environment="shadowland")


def test_every_digest_of_a_trace_is_recomputed(
    traced: Trace, shared: World, trainings: Mapping[str, Training]
) -> None:
    assert traced.ok
    left_out = [line.what for line in traced.digests if line.ok is None]
    assert left_out == ["training set late_parcel:4", "training set late_parcel:3"]
    lines = verify_trace(traced, ledger=shared.ledger, lake=shared.lake, trainings=trainings)
    assert [line.what for line in lines if not line.ok] == []
    told = {line.sha256 for line in lines}
    printed = set(_digests(msgspec.to_builtins(traced)))
    assert printed - told == set()


def test_a_trace_survives_json(traced: Trace, shared: World) -> None:
    text = msgspec.json.encode(traced)
    again = msgspec.json.decode(text, type=Trace)
    assert msgspec.json.encode(again) == text
    assert verify_trace(again, ledger=shared.ledger, lake=shared.lake) == traced.digests


def test_a_trace_is_told_in_sentences(traced: Trace) -> None:
    told = "\n".join(traced.sentences)
    assert "route production.late_parcel:3 had late_parcel:4 answer" in told
    assert "5 of 5 features are equal" in told
    assert told.endswith("digests hold")


def _digests(value: Any) -> Any:
    """Give every text that looks like a digest."""
    if isinstance(value, dict):
        for each in value.values():
            yield from _digests(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _digests(each)
    elif isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef"):
        yield value
