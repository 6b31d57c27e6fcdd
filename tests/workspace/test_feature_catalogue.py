"""Views as they are looked for, put on record, measured, and used by others."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import noria
from noria.clock import ReplayClock
from noria.errors import ConfigError, NotFound
from noria.features.registering import record_view
from noria.features.statistics.describing import describe_view
from noria.workspace.features.reads import ReadLog, ReadNote

INSTANT = pa.timestamp("us", "UTC")
START = datetime(2024, 3, 1, tzinfo=UTC)
DECLARED = """
import noria
from noria import agg

trips = noria.Dataset("trips", key="id", event_at="ended_at", known_at="synced_at")
courier = noria.FeatureView("courier", source=trips, entity="courier", owner="logistics", tags=("dispatch",),
    description="How couriers have done lately",
    descriptions={"minutes_7d": "Mean duration of a delivery", "slow": "Deliveries over half an hour"},
    features={"n_7d": agg.count("7d"), "minutes_7d": agg.mean("minutes", "7d"), "last": agg.last("minutes"),
        "slow": agg.by("zone", [1, 2], agg.count("7d", where=[("minutes", ">", 30)]))})
zone = noria.FeatureView("zone", source=trips, entity="zone", owner="planning", tags=("dispatch", "city"),
    features={"n_1d": agg.count("1d")})
"""
SHOWN = DECLARED.replace('owner="planning"', 'owner="logistics"')
CHANGED = DECLARED.replace('"n_1d": agg.count("1d")', '"n_2d": agg.count("2d")')


def trips(count: int, *, first: int = 0) -> pa.Table:
    ids = np.arange(first, first + count)
    ended = [START + timedelta(minutes=int(each)) for each in ids]
    return pa.table(
        {
            "id": ids,
            "ended_at": pa.array(ended, INSTANT),
            "synced_at": pa.array(ended, INSTANT),
            "courier": [f"courier {each % 200}" for each in ids],
            "zone": ids % 3,
            "minutes": ids % 200,
        }
    )


def write(folder: Path, declared: str) -> None:
    (folder / f"catalogue_{folder.name.replace('-', '_')}.py").write_text(declared)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[noria.Project]:
    name = f"catalogue_{tmp_path.name.replace('-', '_')}"
    (tmp_path / "noria.toml").write_text(f'[project]\nname = "trips"\nmodules = ["{name}"]\n')
    write(tmp_path, DECLARED)
    with noria.open(tmp_path) as opened:
        opened.follow(ReplayClock(START + timedelta(days=3)))
        opened.ingest("trips", trips(1_000))
        yield opened


def found(project: noria.Project, text: str = "", **wanted: object) -> list[str]:
    return [each.summary.name for each in project.features.search(text, **wanted).views]  # type: ignore[arg-type]


def test_views_are_found_by_words_tags_and_owners(project: noria.Project) -> None:
    assert found(project) == ["courier", "zone"]
    assert found(project, "zone") == ["zone", "courier"]  # a name counts more than a group's feature
    assert found(project, "DELIVERY dur") == ["courier"]
    assert found(project, "half an hour") == ["courier"]
    assert found(project, "trips") == ["courier", "zone"]  # their source
    assert found(project, tags=["dispatch"]) == ["courier", "zone"]
    assert found(project, tags=["dispatch", "city"]) == ["zone"]
    assert found(project, owner="planning") == ["zone"]
    assert found(project, "courier", owner="planning") == []
    (only,) = project.features.search("half hour").views
    assert only.features == ("slow_1", "slow_2")


def test_a_word_that_is_not_there_says_what_is_near(project: noria.Project) -> None:
    assert project.features.search("curier").meant == ("courier", "couriers")
    assert project.features.search(tags=["dispach"]).meant == ("dispatch",)
    assert project.features.search(owner="logistic").meant == ("logistics",)
    assert project.features.search("xylophone").meant == ()


def test_what_is_told_of_a_view_is_no_part_of_its_definition(project: noria.Project) -> None:
    view = project.features.view("courier")
    bare = noria.FeatureView(view.name, view.source, view.entity, view.features)
    assert bare.spec().digest == view.spec().digest
    shown = project.features.show("courier")
    assert (shown.summary.owner, shown.summary.tags) == ("logistics", ("dispatch",))
    told = {each.name: each.description for each in shown.features}
    assert told["slow_2"] == "Deliveries over half an hour"
    assert told["n_7d"] is None
    with pytest.raises(ConfigError, match="describes 'minute_7d', which is no feature of it"):
        noria.FeatureView("v", view.source, "zone", view.features, descriptions={"minute_7d": "?"})
    with pytest.raises(ConfigError, match="give a tuple"):
        noria.FeatureView("v", view.source, "zone", view.features, tags="city")  # type: ignore[arg-type]


def test_a_view_is_put_on_record_once_for_each_definition(project: noria.Project) -> None:
    assert project.ledger.list_versions(kind="feature_view") == []
    spine = pa.table({"zone": [1], "at": pa.array([START + timedelta(days=1)], INSTANT)})
    project.features.training_set(spine, ["zone"])
    project.features.materialize(["zone"])
    (first,) = project.ledger.list_versions(kind="feature_view")
    assert first.sha256 == project.features.view("zone").spec().digest
    assert (first.facts["owner"], first.facts["rules"]) == ("planning", {"n_1d": "count(1d)"})
    write(project.root, SHOWN)
    project.refresh()
    project.features.materialize(["zone"])
    assert project.ledger.list_versions(kind="feature_view") == [first]  # another owner is no other view
    write(project.root, CHANGED)
    project.refresh()
    assert project.features.show("zone").definitions == ("zone:1",)
    (done,) = project.features.register(["zone"])
    assert (done.version, done.reason) == ("zone:2", None)
    assert project.features.show("zone").definitions == ("zone:2", "zone:1")
    assert project.ledger.verify().problems == ()


def test_features_are_measured_without_being_asked(project: noria.Project) -> None:
    project.features.materialize(["courier"])
    statistics = project.features.show("courier").statistics
    assert statistics is not None
    assert (statistics.entities, statistics.sampled, statistics.left_out) == (200, 200, {})
    shapes = {each.name.removeprefix("courier__"): each for each in statistics.features}
    assert shapes["minutes_7d"].mean == pytest.approx(99.5)
    assert shapes["minutes_7d"].quantiles["p50"] == 99
    assert shapes["n_7d"].std == 0
    # Each courier has trips of one length: the last is the mean, and so the two say the same.
    assert ("courier__last", "courier__minutes_7d") in statistics.groups
    made = project.ledger.list_versions(kind="feature_statistics")
    project.features.register()
    assert len(project.ledger.list_versions(kind="feature_statistics", name="courier")) == len(made) == 1
    project.ingest("trips", trips(500, first=1_000))
    (again, _) = project.features.register()
    assert again.version == "courier:1"  # the same definition, measured anew
    assert len(project.ledger.list_versions(kind="feature_statistics", name="courier")) == 2


def test_large_views_are_sampled_and_busy_entities_told(
    project: noria.Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noria.workspace.features.registering._MOST_ROWS", 300)
    (courier, zone) = project.features.register(["courier", "zone"])
    assert courier.statistics is not None
    assert (courier.statistics.entities, courier.statistics.sampled) == (200, 60)  # of five rows each
    assert zone.statistics is not None
    assert (zone.statistics.sampled, zone.statistics.busy) == (0, 3)


def test_what_cannot_be_measured_stops_nothing(project: noria.Project) -> None:
    view = project.features.view("zone")
    wrong = noria.FeatureView("wrong", view.source, "zone", {"m": noria.agg.mean("nothing", "1d")})
    project.declarations.views["wrong"] = wrong
    (done,) = project.features.register(["wrong"])
    assert done.version == "wrong:1"
    assert done.statistics is None
    assert "has no column 'nothing'" in str(done.reason)
    assert len(project.ledger.list_events(verb="features.unmeasured", subject="wrong:1")) == 1
    project.features.register(["wrong"])  # not tried again on the same rows
    assert len(project.ledger.list_events(verb="features.unmeasured", subject="wrong:1")) == 1


def test_few_entities_are_not_told_apart() -> None:
    features = pa.table({"v__x": [1.0, 2.0, None], "v__kind": ["a", "a", "b"], "v__list": [[1], [2], [3]]})
    found = describe_view("v", features, entities=3, as_of=None)
    number, text = found.features
    assert (number.missing, number.mean, number.std, number.quantiles) == (1, None, None, {})
    assert (text.kind, text.categories, text.top) == ("category", 2, ())
    assert "v__list" in found.left_out
    (ten,) = describe_view("v", pa.table({"v__x": range(10)}), entities=10, as_of=None).features
    assert (ten.mean, ten.quantiles) == (4.5, {})


def test_readers_are_told(project: noria.Project) -> None:
    spine = pa.table({"zone": [1], "at": pa.array([START + timedelta(days=1)], INSTANT)})
    project.features.training_set(spine, ["zone"], name="asked")
    project.features.materialize()
    project.features.get(["zone", "courier"], {"zone": [1, 2], "courier": ["courier 1", None]})
    project.features.get(["zone"], {"zone": [1]}, reader="billing")
    project.features.get(["zone"], {"zone": [1, 0]}, reader="billing")
    project.features.trace("zone", {"zone": 1}, reader="billing")
    told = project.features.readers("zone")
    assert told.reads_since is not None
    assert (told.view, told.feature, told.definitions, told.models) == ("zone", None, ("zone:1",), ())
    (made,) = told.training_sets
    assert (made.training_set, made.definition) == ("asked:1", "zone:1")
    reads = {(each.who, each.how): (each.calls, each.entities) for each in told.reads}
    assert reads.pop(("billing", "get")) == (2, 3)
    assert reads.pop(("billing", "trace")) == (1, 1)
    assert list(reads.values()) == [(1, 2)]
    assert sum(each.calls for each in project.features.readers("courier").reads) == 1
    rows = project.query(
        "select view, count(*) as n from feature_reads group by view order by view"
    ).to_pylist()
    assert rows == [{"view": "courier", "n": 1}, {"view": "zone", "n": 4}]
    bytes_kept = b"".join(each.read_bytes() for each in project.root.glob(".noria/feature_reads/*/*"))
    assert b"billing" in bytes_kept
    assert b"courier 1" not in bytes_kept  # who was asked about is nobody's business


def test_readers_of_a_feature_are_those_of_definitions_that_have_it(project: noria.Project) -> None:
    project.features.materialize(["zone"])
    project.features.get(["zone"], {"zone": [1]}, reader="before")
    write(project.root, CHANGED)
    project.refresh()
    project.features.materialize(["zone"])
    project.features.get(["zone"], {"zone": [1]}, reader="after")
    assert [each.who for each in project.features.readers("zone__n_1d").reads] == ["before"]
    assert [each.who for each in project.features.readers("zone__n_2d").reads] == ["after"]
    assert {each.who for each in project.features.readers("zone").reads} == {"before", "after"}
    with pytest.raises(NotFound, match="did you mean 'zone__n_2d'"):
        project.features.readers("zone__n_2")
    with pytest.raises(NotFound, match="did you mean 'zone'"):
        project.features.readers("zones")


def test_the_log_of_readings_is_bounded(tmp_path: Path) -> None:
    log = ReadLog(tmp_path / "log", kept_bytes=200_000)
    for place in range(5_000):
        log.note(ReadNote(START, "somebody", "get", place, {"view": "0" * 64}))
    log.close()
    size = sum(each.stat().st_size for each in (tmp_path / "log" / "0").iterdir())
    kept = [each.entities for each in ReadLog(tmp_path / "log").read()]
    assert size < 500_000
    assert kept == list(range(5_000 - len(kept), 5_000))
    assert len(kept) > 1_000


def test_a_view_on_record_is_that_of_its_run(project: noria.Project) -> None:
    view = project.features.view("zone")
    made = record_view(project.ledger, view)
    assert record_view(project.ledger, view) == made
    assert made.facts["definition"]["entity"] == ["zone"]
