"""The flights of a winter: nothing is suspicious about what the template uses, what it may not use is."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import noria.workspace
from noria import agg
from noria.features.declarations import FeatureView
from noria.features.materialize import with_features
from noria.features.statistics.records import SetStatistics
from noria.lake.declarations import Dataset
from noria.training import Field
from noria.training.sets import build_training_set, digest_of_set
from noria.training.statistics import training_statistics
from noria.workspace.scanning import scan

TEMPLATE = Path(noria.workspace.__file__).parent / "templates" / "flights"
CUTOFF = datetime(2013, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def training() -> Any:
    return scan(TEMPLATE, ("flights",)).trainings["late_arrival"]


@pytest.fixture(scope="module")
def sources(training: Any) -> dict[str, pa.Table]:
    datasets = [training.spine.source, training.label.source, training.features[-1].source]
    return {each.name: pa.table(each.source(TEMPLATE)) for each in datasets}


@pytest.fixture(scope="module")
def rows(training: Any, sources: dict[str, pa.Table]) -> pa.Table:
    spine = sources["schedule"].filter(pc.less(sources["schedule"]["predict_at"], pa.scalar(CUTOFF)))

    def read(name: str, *, columns: Any = None, where: Any = None) -> pa.Table:
        table = sources[name] if where is None else sources[name].filter(where)
        return table if columns is None else table.select(list(columns))

    return with_features(spine, training, read=read)


def told(training: Any, rows: pa.Table, landings: pa.Table) -> SetStatistics:
    data = build_training_set(training, rows, landings, until=CUTOFF)
    return training_statistics(training, data, digest=digest_of_set(data.training, data.signature))


def test_the_honest_set_is_not_suspicious(
    training: Any, rows: pa.Table, sources: dict[str, pa.Table]
) -> None:
    found = told(training, rows, sources["landings"])
    assert found.suspicions == ()
    assert found.sampled == 20_000 < found.labelled < found.rows
    assert {"carrier__late_24h", "carrier__delay_24h", "carrier__p90_24h"} in map(set, found.groups)
    assert max(each.with_label.auc or 0 for each in found.features) < 0.7


@pytest.mark.parametrize(
    ("column", "rules"),
    [
        ("arr_delay", {"predicts_too_well", "filled_when_labelled"}),
        (
            "dep_delay",
            {"filled_when_labelled"},
        ),  # unknown of flights that never left: they have no label either
    ],
)
def test_what_only_the_flight_itself_tells_is_suspicious(
    training: Any, rows: pa.Table, sources: dict[str, pa.Table], column: str, rules: set[str]
) -> None:
    landings = sources["landings"]
    landed = landings.filter(pc.less(landings["landed_at"], pa.scalar(CUTOFF)))
    place = pc.index_in(rows["id"], value_set=landed["flight_id"].combine_chunks())
    planted = rows.append_column(column, landed[column].take(place))
    leaky = replace(training, fields=(*training.fields, Field(column)))
    found = told(leaky, planted, landings)
    assert {(each.feature, each.rule) for each in found.suspicions} == {(column, each) for each in rules}
    assert found.strongest(1)[0].name == column


def test_landings_that_count_as_known_at_departure_are_suspicious(
    training: Any, rows: pa.Table, sources: dict[str, pa.Table]
) -> None:
    """A source of the same flights whose rows are declared as known when the aeroplane leaves."""
    departures = Dataset("departures", key="flight_id", event_at="departed_at", known_at="departed_at")
    view = FeatureView(
        "soon", source=departures, entity="tailnum", features={"late_7d": agg.mean("late", "7d")}
    )
    # The template's own label is declared as known when it happens; here it is told by a later report.
    reports = Dataset("landings", key="flight_id", event_at="departed_at", known_at="landed_at")
    label = replace(training.label, source=reports)
    leaky = replace(training, label=label, features=(*training.features, view))
    planted = rows.append_column("soon__late_7d", rows["tail__late_7d"])
    found = told(leaky, planted, sources["landings"])
    (suspicion,) = found.suspicions
    assert (suspicion.feature, suspicion.rule) == ("soon__late_7d", "own_outcome")
    assert (
        "made from 'late' of 'departures', whose rows are declared as known when they happen"
        in suspicion.detail
    )
