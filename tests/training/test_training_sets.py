import subprocess
import sys
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.errors import ConfigError, SourceError
from noria.training import Label, Spine, category, train
from noria.training.sets import build_training_set, digest_of_set

from .parcel_project import START, declare, deliveries, depot, make_rows, parcels

UTC_MICROS = pa.timestamp("us", tz="UTC")
DAY = timedelta(days=1)


def labels_of(rows: list[tuple[str, float | None, datetime]]) -> pa.Table:
    return pa.table(
        {
            "parcel": pa.array([each[0] for each in rows], pa.string()),
            "late": pa.array([each[1] for each in rows], pa.float64()),
            "scanned_at": pa.array([each[2] for each in rows], UTC_MICROS),
        }
    )


def parcels_at(rows: list[tuple[str, datetime]]) -> pa.Table:
    size = len(rows)
    return pa.table(
        {
            "parcel_id": [each[0] for each in rows],
            "predict_at": pa.array([each[1] for each in rows], UTC_MICROS),
            "weight": np.arange(size, dtype=np.float64),
            "depot": ["north"] * size,
            "depot__late_rate": [None] * size,
        }
    )


def test_rows_are_in_order_of_instant_and_id_whatever_order_they_come_in(
    rows_and_labels: tuple[pa.Table, pa.Table],
) -> None:
    rows, labels = rows_and_labels
    until = START + 60 * DAY
    first = build_training_set(declare(), rows, labels, until=until)
    order = np.random.default_rng(1).permutation(rows.num_rows)
    second = build_training_set(declare(), rows.take(order), labels.take(order), until=until)
    assert first.training.ids.to_pylist() == sorted(first.training.ids.to_pylist())
    assert digest_of_set(first.training, first.signature) == digest_of_set(second.training, second.signature)
    assert first.facts == second.facts


def test_only_what_was_known_at_the_cutoff_counts() -> None:
    day = [START + number * DAY for number in range(8)]
    rows = parcels_at([("a", day[0]), ("b", day[1]), ("c", day[2]), ("d", day[6])])
    labels = labels_of(
        [
            ("a", 0, day[1]),
            ("a", 1, day[3]),  # a correction
            ("b", 1, day[2]),
            ("c", 0, day[5]),  # known later than the cutoff
            ("d", 0, day[7]),
            ("z", 0, day[0]),  # no such parcel
        ]
    )
    early = build_training_set(declare(), rows, labels, until=day[2] + DAY / 2).training
    assert dict(zip(early.ids.to_pylist(), early.y.tolist(), strict=True)) == {"a": 0, "b": 1}
    late = build_training_set(declare(), rows, labels, until=day[5]).training
    assert dict(zip(late.ids.to_pylist(), late.y.tolist(), strict=True)) == {"a": 1, "b": 1, "c": 0}


def test_a_label_taken_back_leaves_the_row_out_and_of_two_told_at_once_the_greater_counts() -> None:
    rows = parcels_at([("a", START), ("b", START), ("c", START)])
    labels = labels_of(
        [("a", 1, START), ("a", None, START + DAY), ("b", 1, START), ("b", 0, START), ("c", 0, START)]
    )
    found = build_training_set(declare(), rows, labels, until=START + 2 * DAY).training
    assert dict(zip(found.ids.to_pylist(), found.y.tolist(), strict=True)) == {"b": 1, "c": 0}


def test_training_rows_before_a_holdout_have_the_labels_known_at_its_start() -> None:
    rows, labels = make_rows(400)
    start, until = START + 4 * DAY, START + 8 * DAY
    data = build_training_set(declare(), rows, labels, until=until, holdout_from=start)
    assert data.holdout is not None
    micros = int(pa.scalar(start, UTC_MICROS).value)
    half_a_day = 12 * 3_600_000_000
    assert data.training.at.max() <= micros - half_a_day
    assert data.holdout.at.min() == micros
    alone = build_training_set(declare(), rows, labels, until=start)
    assert digest_of_set(alone.training, alone.signature) == digest_of_set(data.training, data.signature)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 40), st.integers(1, 30))
def test_a_later_row_or_label_changes_no_earlier_training_set(day: int, more: int) -> None:
    rows, labels = make_rows(600)
    until = START + day * DAY / 4 + DAY
    known = (np.array(labels.column("scanned_at").to_pylist()) <= until).nonzero()[0]
    before = (np.array(rows.column("predict_at").to_pylist()) < until).nonzero()[0]
    some = build_training_set(declare(), rows.take(before), labels.take(known), until=until)
    upset = labels.set_column(
        2, "late", pa.array(np.where(np.isin(np.arange(600), known), labels.column("late"), more % 2))
    )
    whole = build_training_set(declare(), rows, upset, until=until)
    assert digest_of_set(some.training, some.signature) == digest_of_set(whole.training, whole.signature)


def test_the_vocabulary_is_that_of_the_training_rows_and_unknown_text_is_missing() -> None:
    rows, labels = make_rows(200)
    held = rows.column("predict_at").to_numpy() >= np.datetime64("2013-01-03")
    depots = np.where(held, "new", np.array(rows.column("depot").to_pylist()))
    rows = rows.set_column(3, "depot", pa.array(depots))
    data = build_training_set(declare(), rows, labels, until=START + 9 * DAY, holdout_from=START + 2 * DAY)
    assert data.signature.inputs[1].categories == ("north", "south", "west")
    assert data.holdout is not None
    assert np.isnan(data.holdout.X[:, 1]).all()
    codes = {name: code for code, name in enumerate(data.signature.inputs[1].categories)}
    raw = data.training.arrow().column("depot").to_pylist()
    assert [codes[name] for name in raw] == data.training.X[:, 1].tolist()


def test_a_training_set_is_a_frame_for_any_library(rows_and_labels: tuple[pa.Table, pa.Table]) -> None:
    rows, labels = rows_and_labels
    made = build_training_set(declare(), rows, labels, until=START + 9 * DAY).training
    table = pa.table(made)
    assert table.column("late").to_pylist() == made.y.tolist()
    assert table.column("weight").to_pylist() == made.X[:, 0].tolist()
    assert made.X.flags.f_contiguous


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda rows, labels: (rows.drop(["weight"]), labels), "weight"),
        (lambda rows, labels: (rows.drop(["parcel_id"]), labels), "parcel_id or id"),
        (lambda rows, labels: (rows, labels.drop(["late"])), "late"),
        (lambda rows, labels: (pa.concat_tables([rows, rows]), labels), "wanted one each"),
        (
            lambda rows, labels: (rows.set_column(2, "weight", pa.array(["x"] * 200)), labels),
            "wanted a number",
        ),
        (lambda rows, labels: (rows.set_column(3, "depot", pa.array([1] * 200)), labels), "wanted text"),
        (lambda rows, labels: (rows, labels.set_column(2, "late", pa.array([2] * 200))), "other than 0, 1"),
        (lambda rows, labels: (rows, labels.set_column(2, "late", pa.array([1] * 200))), "both classes"),
        (lambda rows, labels: (rows, labels.slice(0, 0)), "no row whose label"),
        (
            lambda rows, labels: (rows.set_column(1, "predict_at", pa.array([1] * 200)), labels),
            "wanted instants",
        ),
    ],
)
def test_rows_that_do_not_fit_say_what_was_found_and_wanted(spoil: object, said: str) -> None:
    rows, labels = spoil(*make_rows(200))  # type: ignore[operator]
    with pytest.raises(SourceError, match=said):
        build_training_set(declare(), rows, labels, until=START + 9 * DAY)


def test_a_senseless_declaration_is_refused() -> None:
    spine = Spine(parcels, id="parcel_id", at="predict_at")
    label = Label("late", source=deliveries, column="late", on="parcel")
    for name, fields, said in [
        ("Late", ["weight"], "lower-case"),
        ("late", [], "no inputs"),
        ("late", ["weight", category("weight")], "twice: weight"),
    ]:
        with pytest.raises(ConfigError, match=said):
            train(name, spine=spine, label=label, fields=fields)(lambda data, run: data)  # type: ignore[arg-type,return-value]
    with pytest.raises(ConfigError, match="empty column"):
        Label("late", source=deliveries, column="", on="parcel")


def test_a_declaration_calls_its_function_and_names_its_columns() -> None:
    declared = declare()
    assert declared.input_names == ("weight", "depot", "depot__late_rate")
    assert declared.features == (depot,)
    assert (declared.seed, declared.spine.source) == (7, parcels)


def test_the_faces_load_no_engine() -> None:
    code = (
        "import sys, noria.training, noria.registry, noria.tracking, noria.value\n"
        "heavy = {'numpy', 'pyarrow', 'lightgbm', 'sklearn', 'sqlalchemy', 'skops', 'duckdb', 'deltalake'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == ""
