"""Texts, vectors and lists of a project: joined, kept, loaded, compared, traced, described, forgotten."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import noria
from noria import agg
from noria.clock import ReplayClock
from noria.errors import ConfigError
from noria.features.backends.lmdb import LmdbOnlineStore
from noria.features.on_demand import OnDemand

INSTANT = pa.timestamp("us", "UTC")
START = datetime(2024, 3, 1, tzinfo=UTC)
NOW = START + timedelta(days=3)
DECLARED = """
import noria
from noria import agg

visits = noria.Dataset("visits", key="id", event_at="seen_at", known_at="seen_at")
guest = noria.FeatureView("guest", source=visits, entity="guest", ttl="30d",
    defaults={"n": 0, "room": "none"}, features={
        "n": agg.count("7d"), "room": agg.last_text("room"), "taste": agg.embedding("taste", 2),
        "rooms": agg.top("room", 2, "7d", values=["blue", "red", "tower"])})
"""
ROWS = pa.table(
    {
        "id": ["a", "b", "c", "d"],
        "seen_at": pa.array([START + timedelta(hours=hours) for hours in (1, 5, 9, 9)], INSTANT),
        "guest": ["ada", "ada", "ada", "ben"],
        "room": ["red", "blue", "red", "the room of ben"],
        "taste": [[1.0, 2.0], None, [0.25, -1.0], [5.0, 5.0]],
    }
)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[noria.Project]:
    name = f"kinds_{tmp_path.name.replace('-', '_')}"
    (tmp_path / "noria.toml").write_text(f'[project]\nname = "hotel"\nmodules = ["{name}"]\n')
    (tmp_path / f"{name}.py").write_text(DECLARED)
    with noria.open(tmp_path) as opened:
        opened.follow(ReplayClock(NOW))
        opened.ingest("visits", ROWS)
        yield opened


def asked(*guests: str | None) -> pa.Table:
    return pa.table({"guest": pa.array(guests, pa.string()), "at": pa.array([NOW] * len(guests), INSTANT)})


def test_a_training_set_holds_texts_vectors_and_lists(project: noria.Project) -> None:
    made = project.features.training_set(asked("ada", "zoe", None), ["guest"])
    assert made["guest__n"].to_pylist() == [3, 0, 0]
    assert made["guest__room"].to_pylist() == ["red", "none", "none"]
    assert made["guest__taste"].type == pa.list_(pa.float32(), 2)
    assert made["guest__taste"].to_pylist() == [[0.25, -1.0], None, None]
    assert made["guest__rooms"].to_pylist() == [["red", "blue"], None, None]
    kept = project.features.read_training_set()
    assert kept.equals(made)
    assert project.features.training_set(asked(), ["guest"]).schema.types == made.schema.types


def test_online_gives_what_offline_gives(project: noria.Project) -> None:
    project.features.materialize()
    found = project.features.get(["guest"], {"guest": ["ada", "zoe", None]})
    made = project.features.training_set(asked("ada", "zoe", None), ["guest"])
    assert found.drop_columns(["guest"]).equals(made.select(found.column_names[1:]).replace_schema_metadata())
    compared = project.features.compare("guest")
    assert (compared.entities, compared.values, compared.different) == (2, 8, 0)


def test_what_differs_is_told_by_its_values(project: noria.Project) -> None:
    with LmdbOnlineStore(project.root / ".noria" / "online") as store:
        store.load(project.features.view("guest"), ROWS.slice(0, 1))
    compared = project.features.compare("guest")
    assert compared.different == 6
    assert ("ada", "guest__taste", [1.0, 2.0], [0.25, -1.0]) in compared.examples
    assert ("ben", "guest__room", "none", "the room of ben") in compared.examples


def test_a_trace_and_a_view_tell_of_them(project: noria.Project) -> None:
    traced = project.features.trace("guest", {"guest": "ben"})
    assert traced.values["guest__room"] == "the room of ben"
    assert traced.values["guest__taste"] == [5.0, 5.0]
    assert traced.values["guest__rooms"] is None
    shown = project.features.show("guest").features
    assert [(each.rule, each.missing, each.low) for each in shown] == [
        ("count(7d)", 0, 1.0),
        ("last_text(room, 30d)", 0, None),
        ("embedding(taste, 2, 30d)", 0, None),
        ("top(room, 2, 7d) of 3 values", 1, None),
    ]


def test_statistics_take_a_text_as_a_category_and_tell_what_they_leave_out(project: noria.Project) -> None:
    made = project.features.training_set(asked(*["ada", "ben"] * 20), ["guest"])
    labelled = made.append_column("late", pa.array([0, 1] * 20))
    told = project.features.statistics(labelled.drop_columns(["at", "guest"]), label="late")
    kinds = {each.name: each.kind for each in told.features}
    assert kinds == {"guest__n": "number", "guest__room": "category"}
    assert set(told.left_out) == {"guest__taste", "guest__rooms"}


def test_nothing_of_a_subject_is_left_in_the_online_store_or_in_kept_sets(project: noria.Project) -> None:
    project.features.materialize()
    project.features.training_set(asked("ada", "ben"), ["guest"])
    data = project.root / ".noria" / "online" / "data.mdb"
    vector = np.array([5, 5], dtype="<f4").tobytes()
    assert b"the room of ben" in data.read_bytes() and vector in data.read_bytes()
    project.forget("visits", "guest", ["ben"], reason="article 17")
    raw = data.read_bytes()
    assert b"the room of ben" not in raw and vector not in raw
    assert project.features.read_training_set()["guest__room"].to_pylist() == ["red"]
    assert project.features.get(["guest"], {"guest": ["ada"]})["guest__room"].to_pylist() == ["red"]


def test_a_model_of_lists_is_refused_when_it_is_declared(project: noria.Project) -> None:
    view = project.features.view("guest")
    visits = project.declarations.datasets["visits"]
    label = noria.Label("late", source=visits, column="late", on="id")
    spine = noria.Spine(visits, id="id", at="seen_at")
    with pytest.raises(
        ConfigError, match="'rooms' of view 'guest', a list; models read numbers, texts and vectors"
    ):

        @noria.train("late", spine=spine, label=label, features=[view])
        def late(data: noria.TrainingSet, run: noria.TrainingRun) -> noria.Estimator:
            raise NotImplementedError


def test_a_window_and_its_feature_are_told_as_they_were_written() -> None:
    from noria.features.telling import rule_of

    assert rule_of(agg.count("2h", resolution="minute")) == "count(2h, by minute)"
    assert rule_of(agg.count("20m")) == "count(20m)"


def twice(columns: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"n": 2 * columns["guest__n"]}


def test_an_on_demand_feature_reads_the_numbers_of_a_view_that_has_texts_too(project: noria.Project) -> None:
    view = project.features.view("guest")
    visits = project.declarations.datasets["visits"]
    label = noria.Label("late", source=visits, column="late", on="id")
    spine = noria.Spine(visits, id="id", at="seen_at")

    often = OnDemand(name="often", inputs=(view,), outputs=("n",), errors="missing", function=twice)

    @noria.train("late", spine=spine, label=label, features=[often])
    def late(data: noria.TrainingSet, run: noria.TrainingRun) -> noria.Estimator:
        raise NotImplementedError

    assert late.input_names == ("often__n",)
    made = project.features.training_set(asked("ada", "zoe"), [often])
    assert made["often__n"].to_pylist() == [6, 0]
