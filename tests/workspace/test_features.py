"""Feature views of a project: listed, shown, joined, loaded, compared, traced."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import noria
from noria.clock import ReplayClock
from noria.errors import ConfigError, NotFound, SourceError

INSTANT = pa.timestamp("us", "UTC")
START = datetime(2024, 3, 1, tzinfo=UTC)
DECLARED = """
import noria
from noria import agg

trips = noria.Dataset("trips", key="id", event_at="ended_at", known_at="synced_at")
courier = noria.FeatureView("courier", source=trips, entity="courier", features={
    "n_7d": agg.count("7d"), "late_7d": agg.mean("late", "7d"),
    "slow_2d": agg.count("2d", where=[("minutes", ">", 30)]), "last": agg.last("minutes"),
    "faded": agg.decayed_mean("minutes", "1d")})
pair = noria.FeatureView("pair", source=trips, entity=("courier", "zone"), features={"n_7d": agg.count("7d")})
"""


def trips(*rows: tuple[str, float, float, str, int, int]) -> pa.Table:
    """Give trips: id, days after the start, hours until known, courier, zone, minutes."""
    return pa.table(
        {
            "id": [each[0] for each in rows],
            "ended_at": pa.array([START + timedelta(days=each[1]) for each in rows], INSTANT),
            "synced_at": pa.array([START + timedelta(days=each[1], hours=each[2]) for each in rows], INSTANT),
            "courier": [each[3] for each in rows],
            "zone": [each[4] for each in rows],
            "minutes": [each[5] for each in rows],
            "late": [each[5] > 30 for each in rows],
        }
    )


ROWS = trips(
    ("a", 0.5, 1, "ada", 1, 20),
    ("b", 1.0, 30, "ada", 2, 50),
    ("c", 1.5, 0, "ben", 1, 31),
    ("d", 2.0, 0, "ada", 1, 10),
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[noria.Project]:
    name = f"features_{tmp_path.name.replace('-', '_')}"
    (tmp_path / "noria.toml").write_text(f'[project]\nname = "trips"\nmodules = ["{name}"]\n')
    (tmp_path / f"{name}.py").write_text(DECLARED)
    with noria.open(tmp_path) as opened:
        opened.follow(ReplayClock(START + timedelta(days=3)))
        opened.ingest("trips", ROWS)
        yield opened


def spine(*rows: tuple[str, float]) -> pa.Table:
    return pa.table(
        {
            "courier": [each[0] for each in rows],
            "asked": pa.array([START + timedelta(days=each[1]) for each in rows], INSTANT),
            "note": list(range(len(rows))),
        }
    )


def test_a_training_set_knows_what_was_known_then(project: noria.Project) -> None:
    asked = spine(("ada", 2.5), ("zoe", 2.5), ("ada", 2.0), ("ben", 1.49), ("ada", 0.1))
    made = project.features.training_set(asked, ["courier"], at="asked")
    assert made.column("note").to_pylist() == [0, 1, 2, 3, 4]
    assert made.column("courier__n_7d").to_pylist() == [3, 0, 2, 0, 0]  # b was known after 2.25 days
    np.testing.assert_array_equal(made.column("courier__late_7d"), [1 / 3, np.nan, 0, np.nan, np.nan])
    assert made.schema.metadata == {b"noria.version": b"training_set:1"}
    version = project.ledger.get_version("training_set", "training_set", 1)
    assert version.facts["rows"] == 5
    read = [each for each in project.ledger.list_edges(run=version.run) if each.role == "input"]
    refs = [project.ledger.get_version_by_id(each.version).ref for each in read]
    assert sorted(refs) == ["courier:1", "trips:1"]
    again = project.features.training_set(asked, ["courier"], at="asked")
    assert again.schema.metadata[b"noria.version"] == b"training_set:1"  # the same is no new version
    kept = project.features.read_training_set()
    assert kept.schema.equals(made.schema, check_metadata=True)
    for name in made.column_names:
        np.testing.assert_array_equal(kept.column(name), made.column(name))


def test_rows_of_a_query_or_of_a_declared_spine_will_do(project: noria.Project) -> None:
    asked = "select courier, synced_at as at from trips order by id"
    made = project.features.training_set(asked, ["courier", "pair"][:1], name="asked")
    assert made.column("courier__n_7d").to_pylist() == [1, 3, 1, 2]
    declared = noria.Spine(project.declarations.datasets["trips"], id="id", at="synced_at")
    made = project.features.training_set(declared, ["courier", "pair"])
    assert made.column("pair__n_7d").to_pylist() == [1, 1, 1, 2]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda each: each.drop_columns("courier"), "the spine lacks 'courier'; there is 'asked', 'note'"),
        (lambda each: each.drop_columns("asked"), "the spine lacks 'asked'"),
        (lambda each: each.append_column("at", each["asked"]), "a column 'at' beside 'asked'"),
        (lambda each: each.append_column("courier__last", each["note"]), "'courier__last' already"),
        (
            lambda each: each.set_column(1, "asked", each["asked"].cast(pa.timestamp("us"))),
            "with a time zone",
        ),
    ],
)
def test_a_spine_that_will_not_do_is_refused(project: noria.Project, change: Any, told: str) -> None:
    with pytest.raises(SourceError) as refused:
        project.features.training_set(change(spine(("ada", 1))), ["courier"], at="asked")
    assert told in str(refused.value)
    assert not project.ledger.list_versions(kind="training_set")


def test_an_empty_spine_gives_columns(project: noria.Project) -> None:
    made = project.features.training_set(spine(), ["courier"], at="asked")
    assert made.num_rows == 0
    assert made.schema.field("courier__late_7d").type == pa.float64()


def test_views_are_named_once(project: noria.Project) -> None:
    with pytest.raises(ConfigError, match="each once"):
        project.features.training_set(spine(("ada", 1)), ["courier", "courier"], at="asked")
    with pytest.raises(NotFound, match="no feature view named 'couriers'; did you mean 'courier'"):
        project.features.training_set(spine(("ada", 1)), ["couriers"], at="asked")


def test_online_is_loaded_read_and_compared(project: noria.Project) -> None:
    assert [each.online for each in project.features.list()] == ["none", "none"]
    with pytest.raises(NotFound, match="has none yet"):
        project.features.get(["courier"], {"courier": ["ada"]})
    loaded = project.features.materialize()
    assert [(each.view, each.rows) for each in loaded] == [("courier", 4), ("pair", 4)]
    assert [each.online for each in project.features.list()] == ["current", "current"]
    found = project.features.get(["courier"], {"courier": ["ada", "zoe", None]})
    assert found.column("courier__n_7d").to_pylist()[:2] == [3, 0]
    assert np.isnan(found.column("courier__n_7d")[2].as_py())
    compared = project.features.compare("courier")
    assert (compared.entities, compared.values, compared.different) == (2, 10, 0)
    project.ingest("trips", trips(("e", 2.6, 0, "ben", 1, 44)))
    stale = project.features.compare("courier")
    assert stale.different == 4  # not whether they were late: both were
    assert [*stale.examples[0]] == ["ben", "courier__n_7d", 1, 2]
    project.features.materialize(["courier"])
    assert project.features.compare("courier").different == 0


def test_another_definition_says_so_and_is_loaded_beside(project: noria.Project) -> None:
    project.features.materialize(["courier"])
    before = project.features.view("courier")
    path = next(project.root.glob("features_*.py"))
    path.write_text(path.read_text().replace('agg.count("7d"), "late', 'agg.count("6d"), "late'))
    project.refresh()
    assert {each.name: each.online for each in project.features.list()} == {
        "courier": "other",
        "pair": "none",
    }
    with pytest.raises(NotFound, match=r"as it was defined before .*noria feature materialize courier"):
        project.features.get(["courier"], {"courier": ["ada"]})
    assert project.features.get([before], {"courier": ["ada"]}).num_columns == 6
    project.features.materialize(["courier"])
    assert [each.online for each in project.features.list()] == ["current", "none"]
    with pytest.raises(NotFound, match="materialize"):  # neither declared, nor needed by a deployed release
        project.features.get([before], {"courier": ["ada"]})
    (cleared,) = project.ledger.list_events(verb="features.cleared")
    assert cleared.payload["digest"] == before.spec().digest


def test_a_view_is_shown_with_its_rules_and_values(project: noria.Project) -> None:
    found = project.features.show("courier")
    assert (found.entities, found.as_of) == (2, START + timedelta(days=1, hours=30))
    assert [(each.name, each.rule, each.low, each.high) for each in found.features[:3]] == [
        ("n_7d", "count(7d)", 1, 3),
        ("late_7d", "mean(late, 7d)", 1 / 3, 1),
        ("slow_2d", "count(2d) where minutes > 30", 1, 1),
    ]


def test_a_view_whose_source_is_empty_is_shown_too(tmp_path: Path) -> None:
    (tmp_path / "noria.toml").write_text('[project]\nname = "t"\nmodules = ["empty_features_declared"]\n')
    (tmp_path / "empty_features_declared.py").write_text(DECLARED)
    with noria.open(tmp_path) as project:
        found = project.features.show("pair")
        assert (found.entities, found.as_of, found.features[0].mean) == (0, None, None)
        with pytest.raises(NotFound, match="trips"):
            project.features.materialize()


def test_a_value_is_traced_to_its_rows(project: noria.Project) -> None:
    found = project.features.trace("courier", {"courier": "ada"}, at=START + timedelta(days=2.1))
    assert found.rows.column("id").to_pylist() == ["d", "a"]  # b was not known yet
    assert found.values["courier__n_7d"] == 2
    found = project.features.trace("pair", {"courier": "ada", "zone": "2"})
    assert found.rows.column("id").to_pylist() == ["b"]
    with pytest.raises(SourceError, match="is of 'courier', 'zone'; given was 'courier'"):
        project.features.trace("pair", {"courier": "ada"})
    with pytest.raises(SourceError, match="zone = 'x' is no int64"):
        project.features.trace("pair", {"courier": "ada", "zone": "x"})


def test_a_kept_set_loses_the_rows_of_who_is_forgotten(
    project: noria.Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = spine(("ada", 2.5), ("ben", 2.5), ("zoe", 2.5))
    project.features.training_set(asked, ["courier"], at="asked", name="late")
    (version,) = project.ledger.list_versions(kind="training_set")
    looked = project.forget("trips", "courier", ["ada"], dry_run=True)
    assert [(each.name, each.held) for each in looked.of("training set")] == [("late:1", 1)]
    assert project.features.read_training_set("late").num_rows == 3

    def killed(sha256: str) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(project.storage, "remove", killed)
        project.forget("trips", "courier", ["ada"])
    assert project.storage.get(version.sha256)
    project.forget("trips", "courier", ["ada"])
    kept = project.features.read_training_set("late")
    assert kept.column("courier").to_pylist() == ["ben", "zoe"]
    assert kept.schema.metadata == {b"noria.version": b"late:1"}
    with pytest.raises(NotFound):
        project.storage.get(version.sha256)
    assert project.ledger.verify().ok
