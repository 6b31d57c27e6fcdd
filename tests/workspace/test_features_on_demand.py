"""On-demand features in training sets and looked up: the same values, told by name."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent

import numpy as np
import pyarrow as pa
import pytest

import noria
from noria.errors import ConfigError, NotFound, SourceError

PROJECT = """
    import numpy as np
    import noria
    from noria import agg

    trips = noria.Dataset("trips", key="id", event_at="at", known_at="at")
    courier = noria.FeatureView("courier", source=trips, entity="courier", features={
        "trips": agg.count("7d"), "minutes": agg.mean("minutes", "7d")})

    @noria.on_demand(inputs=["distance", noria.category("courier"), courier], outputs=["pace", "is_ada"])
    def pace(columns):
        '''Kilometres in the usual minutes.'''
        if (columns["distance"] < 0).any():
            raise ValueError(f"no way is {columns['distance'].min()} long")
        return {"pace": columns["distance"] / columns["courier__minutes"],
                "is_ada": columns["courier"] == "ada"}

    @noria.on_demand(inputs=["distance"], outputs=["km"], owner="planning", tags=("metric", "city"),
        description="A distance as a map has it")
    def metric(columns):
        return {"km": columns["distance"] * 1.609}

    @noria.on_demand(inputs=["distance"], outputs=["y"])
    def misspelt(columns):
        return {"y": columns["distnace"]}

    @noria.on_demand(inputs=["distance"], outputs=["y"])
    def centred(columns):
        return {"y": columns["distance"] - columns["distance"].mean()}
"""
START = datetime(2024, 3, 1, tzinfo=UTC)
INSTANT = pa.timestamp("us", "UTC")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[noria.Project]:
    (tmp_path / "noria.toml").write_text('[project]\nname = "couriers"\nmodules = ["couriers_on_demand"]\n')
    (tmp_path / "couriers_on_demand.py").write_text(dedent(PROJECT))
    with noria.open(tmp_path) as project:
        project.ingest(
            "trips",
            pa.table({
                "id": ["a", "b", "c"], "courier": ["ada", "ada", "ben"], "minutes": [20, 50, 31],
                "at": pa.array([START + timedelta(days=day) for day in range(3)], INSTANT),
            }),
        )  # fmt: skip
        project.features.materialize()
        yield project


def spine(**columns: Sequence[object]) -> pa.Table:
    rows = len(columns["distance"])
    at = pa.array([START + timedelta(days=5)] * rows, INSTANT)
    return pa.table(columns).append_column("at", at)


def test_a_training_set_and_a_look_up_give_the_same_bits(project: noria.Project) -> None:
    names, distances = ["ada", "ben", "zoe", None], [7.3, 1.1, 2.0, 3.0]
    made = project.features.training_set(spine(courier=names, distance=distances), ["courier", "pace"])
    found = project.features.get(
        ["courier", "pace"], {"courier": names, "distance": distances}, at=START + timedelta(days=5)
    )
    for name in ("courier__minutes", "pace__pace", "pace__is_ada"):
        np.testing.assert_array_equal(made[name].to_numpy(), found[name].to_numpy())
    assert made["pace__pace"].to_pylist()[:2] == [7.3 / 35, 1.1 / 31]
    assert made["pace__is_ada"].to_pylist() == [1.0, 0.0, 0.0, 0.0]


def test_views_that_are_only_read_are_not_given(project: noria.Project) -> None:
    made = project.features.training_set(spine(courier=["ada"], distance=[7.0]), ["pace"])
    assert made.column_names == ["courier", "distance", "at", "pace__pace", "pace__is_ada"]
    asked: dict[str, list[str | float | None]] = {"courier": ["ada"], "distance": [7.0]}
    found = project.features.get(["pace"], asked, at=START + timedelta(days=5))
    assert found.column_names == ["courier", "distance", "pace__pace", "pace__is_ada"]


def test_features_of_fields_alone_need_no_store(project: noria.Project) -> None:
    assert project.features.get(["metric"], {"distance": [1, None]}).to_pydict()["metric__km"][0] == 1.609
    made = project.features.training_set(spine(distance=[1.0]), ["metric"], name="metric")
    assert made["metric__km"].to_pylist() == [1.609]


def test_rows_that_failed_are_counted_on_record_and_told(project: noria.Project) -> None:
    rows = spine(courier=["ada", "ben", "ada"], distance=[7.0, -3.0, 1.0])
    made = project.features.training_set(rows, ["pace"], name="trips")
    assert np.isnan(made["pace__pace"].to_numpy()).tolist() == [False, True, False]
    told = made.schema.metadata[b"noria.missing"].decode()
    assert told.startswith("pace: 1 of 3 rows are missing; the first is row 1: ValueError in couriers_on_dem")
    assert told.endswith("no way is -3.0 long")
    facts = project.ledger.get_version("training_set", "trips").facts
    assert list(facts["on_demand"]) == ["pace"]
    ((why, count),) = facts["failed"]["pace"].items()
    assert count == 1
    assert "3.0" not in why  # values of rows are not for the ledger


def test_a_function_of_other_rows_is_refused(project: noria.Project) -> None:
    with pytest.raises(ConfigError, match="'centred': row 0 has another 'y' alone than among others"):
        project.features.training_set(spine(distance=[1.0, 2.0, 5.0]), ["centred"])


def test_a_function_that_fails_for_all_rows_is_refused(project: noria.Project) -> None:
    with pytest.raises(SourceError, match=r"'misspelt' fails for every one of 30 rows; .*KeyError.*distnace"):
        project.features.training_set(spine(distance=[1.0] * 30), ["misspelt"])
    made = project.features.training_set(spine(distance=[1.0] * 3), ["misspelt"])
    assert np.isnan(made["misspelt__y"].to_numpy()).all()


def test_what_is_lacking_is_told(project: noria.Project) -> None:
    with pytest.raises(SourceError, match="'pace' reads distance; there is courier"):
        project.features.get(["pace"], {"courier": ["ada"]})
    with pytest.raises(NotFound, match=r"no feature view named 'pase'.*pace"):
        project.features.get(["pase"], {"courier": ["ada"]})
    with pytest.raises(SourceError, match="entity column 'courier' holds fractions"):
        project.features.get(["courier"], {"courier": [1.5]})
    missing = project.features.get(["courier"], {"courier": [float("nan"), None]})
    assert np.isnan(missing["courier__trips"].to_numpy()).all()
    with pytest.raises(ConfigError, match="'pace' is named more than once; name each once"):
        project.features.get(["pace", "pace"], {"courier": ["ada"]})
    features = project.features
    for verb in (features.show, features.compare, lambda name: features.materialize([name])):
        with pytest.raises(ConfigError, match="'pace' is an on-demand feature: it is computed when"):
            verb("pace")


def test_on_demand_features_are_listed(project: noria.Project) -> None:
    centred, metric, _, pace = project.features.list_on_demand()
    assert (centred.name, metric.outputs) == ("centred", ("km",))
    assert pace.description == "Kilometres in the usual minutes."
    assert pace.fields == ("distance", "courier")
    assert pace.features == ("courier__trips", "courier__minutes")
    assert pace.place.startswith("couriers_on_demand.py:")
    assert pace.errors == "missing"


def test_they_are_found_by_words_tags_and_owners(project: noria.Project) -> None:
    def found(text: str = "", **wanted: object) -> list[str]:
        return [each.details.name for each in project.features.search(text, **wanted).on_demand]  # type: ignore[arg-type]

    assert found() == ["centred", "metric", "misspelt", "pace"]
    assert found("usual MINUTES") == ["pace"]  # of its docstring
    assert found("map", owner="planning", tags=["city"]) == ["metric"]
    assert found(tags=["city", "other"]) == []
    assert found("courier") == ["pace"]  # what it reads
    assert [each.summary.name for each in project.features.search("courier").views] == ["courier"]
    (hit,) = project.features.search("ada").on_demand
    assert (hit.details.owner, hit.outputs) == (None, ("is_ada",))
    assert project.features.search(owner="planing").meant == ("planning",)


def test_a_definition_is_on_record_once_with_its_code(project: noria.Project) -> None:
    project.features.training_set(spine(courier=["ada"], distance=[7.0]), ["pace", "metric"], name="trips")
    assert project.features.show_on_demand("metric").definitions == ("metric:1",)
    (first,) = project.ledger.list_versions(kind="feature_view", name="metric")
    assert (first.facts["owner"], first.facts["tags"]) == ("planning", ["metric", "city"])
    path = project.root / "couriers_on_demand.py"
    text = path.read_text()
    path.write_text(f"# a comment\n{text}")
    project.refresh()
    registered = {each.view: each.version for each in project.features.register()}
    assert (registered["courier"], registered["metric"]) == ("courier:1", "metric:1")
    path.write_text(text.replace("1.609", "1.6"))
    project.refresh()
    (done,) = project.features.register(["metric"])
    assert (done.view, done.version, done.statistics) == ("metric", "metric:2", None)
    with pytest.raises(ConfigError, match="was changed since it was loaded"):
        path.write_text(text)
        project.features.register(["metric"])
    assert project.ledger.verify().problems == ()


def test_who_used_one_is_told(project: noria.Project) -> None:
    project.features.training_set(spine(courier=["ada"], distance=[7.0]), ["pace"], name="trips")
    asked: dict[str, list[str | float | None]] = {"courier": ["ada", "ben"], "distance": [7.0, 1.0]}
    project.features.get(["pace"], asked, at=START + timedelta(days=5), reader="billing")
    project.features.get(["metric"], {"distance": [7.0]}, reader="billing")
    for wanted in ("pace", "pace__is_ada"):
        told = project.features.readers(wanted)
        assert (told.view, told.definitions) == ("pace", ("pace:1",))
        assert [each.training_set for each in told.training_sets] == ["trips:1"]
        assert [(each.who, each.calls, each.entities) for each in told.reads] == [("billing", 1, 2)]
    (read,) = project.features.readers("metric").reads
    assert (read.how, read.entities) == ("get", 1)
    with pytest.raises(NotFound, match=r"no feature named 'pace__is_ben'.*pace__is_ada"):
        project.features.readers("pace__is_ben")
    with pytest.raises(NotFound, match=r"no feature view named 'peace'.*pace"):
        project.features.readers("peace")


def test_a_view_of_the_same_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "noria.toml").write_text('[project]\nname = "x"\nmodules = ["clashing"]\n')
    clash = PROJECT.replace('"courier", source', '"metric", source').replace("courier__", "metric__")
    (tmp_path / "clashing.py").write_text(dedent(clash))
    with noria.open(tmp_path) as project, pytest.raises(ConfigError, match="both called 'metric'; rename"):
        project.features.list()
