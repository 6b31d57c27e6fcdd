"""Nothing may be used that was not known: later events change no earlier training row of the demo."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import noria.workspace
from noria.features.materialize import with_features
from noria.training.sets import TrainingData, build_training_set, digest_of_set
from noria.workspace.scanning import scan

TEMPLATE = Path(noria.workspace.__file__).parent / "templates" / "flights"
CUTOFF = datetime(2013, 1, 16, tzinfo=UTC)


@pytest.fixture(scope="module")
def training() -> Any:
    return scan(TEMPLATE, ("flights",)).trainings["late_arrival"]


@pytest.fixture(scope="module")
def sources(training: Any) -> dict[str, pa.Table]:
    """The first five weeks of what the files hold."""
    datasets = {each.name: each for each in noria_datasets(training)}
    until = pa.scalar(CUTOFF + timedelta(days=20))
    tables = {name: pa.table(each.source(TEMPLATE)) for name, each in datasets.items() if each.source}
    return {
        name: table.filter(pc.less(table[datasets[name].known_at_column], until))
        for name, table in tables.items()
    }


def noria_datasets(training: Any) -> list[noria.Dataset]:
    return [training.spine.source, training.label.source, training.features[-1].source]


def known(table: pa.Table, column: str, until: datetime) -> pa.Table:
    return table.filter(pc.less_equal(table[column], pa.scalar(until)))


def training_rows(training: Any, sources: dict[str, pa.Table]) -> TrainingData:
    spine = sources["schedule"].filter(pc.less(sources["schedule"]["predict_at"], pa.scalar(CUTOFF)))

    def read(name: str, *, columns: Any = None, where: Any = None) -> pa.Table:
        table = sources[name] if where is None else sources[name].filter(where)
        return table if columns is None else table.select(list(columns))

    features = with_features(spine, training, read=read)
    return build_training_set(training, features, sources["landings"], until=CUTOFF)


def later_events(rows: pa.Table, known_at: str, *, seed: int) -> pa.Table:
    """Rows of the same entities that become known after the cutoff, as late as that or by one microsecond."""
    rng = random.Random(seed)
    picked = rows.take(pa.array(rng.sample(range(rows.num_rows), 400)))
    instants = [CUTOFF + timedelta(microseconds=rng.choice([1, 10**6, 10**9, 10**12])) for _ in range(400)]
    picked = picked.set_column(
        picked.schema.get_field_index(known_at),
        known_at,
        pa.array(instants, rows.schema.field(known_at).type),
    )
    if "flight_id" in picked.column_names:
        names = pa.array([f"later-{seed}-{number}" for number in range(400)])
        picked = picked.set_column(picked.schema.get_field_index("flight_id"), "flight_id", names)
    for column in ("arr_delay", "dep_delay"):
        if column in picked.column_names:
            wild = pa.array([rng.randrange(-60, 900) for _ in range(400)], pa.int64())
            picked = picked.set_column(picked.schema.get_field_index(column), column, wild)
    return picked.cast(rows.schema)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_later_events_change_no_training_row(training: Any, sources: dict[str, pa.Table], seed: int) -> None:
    then = {
        "schedule": known(sources["schedule"], "published_at", CUTOFF),
        "landings": known(sources["landings"], "landed_at", CUTOFF),
        "weather": known(sources["weather"], "known_at", CUTOFF),
    }
    more = {
        "schedule": sources["schedule"],
        "landings": pa.concat_tables(
            [sources["landings"], later_events(sources["landings"], "landed_at", seed=seed)]
        ),
        "weather": pa.concat_tables(
            [sources["weather"], later_events(sources["weather"], "known_at", seed=seed)]
        ),
    }
    before, after = training_rows(training, then), training_rows(training, more)
    assert len(before.training) > 10_000
    assert np.array_equal(before.training.X, after.training.X, equal_nan=True)
    assert np.array_equal(before.training.y, after.training.y)
    assert digest_of_set(before.training, before.signature) == digest_of_set(after.training, after.signature)


def test_an_event_known_in_time_does_change_rows(training: Any, sources: dict[str, pa.Table]) -> None:
    """The test above can fail: the same wild events, known a week earlier, are seen."""
    wild = later_events(sources["landings"], "landed_at", seed=1)
    earlier = pa.array([CUTOFF - timedelta(days=7)] * wild.num_rows, wild.schema.field("landed_at").type)
    wild = wild.set_column(wild.schema.get_field_index("landed_at"), "landed_at", earlier)
    changed = dict(sources, landings=pa.concat_tables([sources["landings"], wild]))
    before, after = training_rows(training, sources), training_rows(training, changed)
    assert not np.array_equal(before.training.X, after.training.X, equal_nan=True)
