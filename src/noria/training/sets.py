"""Training sets: rows as they were known at a cutoff, in one fixed order, with a digest."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from noria.clock import format_instant
from noria.errors import SourceError
from noria.features.on_demand_tables import add_on_demand, failure_facts, refuse_useless
from noria.records import canonical_json
from noria.registry.matrix import column_floats, encode
from noria.registry.records import Input, Signature
from noria.training.declarations import Training
from noria.training.records import TrainingSet

__all__ = ["TrainingData", "build_training_set", "digest_of_set"]

_INSTANT = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a training is run on.

    Attributes
    ----------
    training : TrainingSet
        Rows before the holdout with what was known at its start.
    holdout : TrainingSet or None
        Later rows, held back, with what was known at the cutoff.
    signature : Signature
        How both are encoded; the vocabularies are those of the training rows.
    facts : mapping
        The recipe and the counts, for the record.
    population : ndarray of shape (m,), int64
        Positions in the feature rows of all rows before the holdout, labelled or not, in the order of
        `training`: what traffic looks like.
    population_at : ndarray of shape (m,), int64
        Their instants, microseconds since 1970.
    outcome_known : ndarray of shape (n,), int64
        When the label of each row of `training` became known, microseconds since 1970.
    """

    training: TrainingSet
    holdout: TrainingSet | None
    signature: Signature
    facts: Mapping[str, Any]
    population: npt.NDArray[np.int64]
    population_at: npt.NDArray[np.int64]
    outcome_known: npt.NDArray[np.int64]


def build_training_set(
    training: Training,
    feature_rows: pa.Table,
    labels: pa.Table,
    *,
    until: datetime,
    since: datetime | None = None,
    holdout_from: datetime | None = None,
) -> TrainingData:
    """Join features and labels as of `until`.

    Parameters
    ----------
    training : Training
    feature_rows : pa.Table
        One row per spine row: its id and instant (named as the spine names them, or `id` and `at`), the
        fields, and `<view>__<feature>` columns. The order of rows does not matter. Columns of on-demand
        features are computed here.
    labels : pa.Table
        The label's dataset: id, label and `known_at`. Of several rows of one id the last known counts, of
        those known at once the greater label.
    until : datetime
        The cutoff: neither a row at or after it nor an outcome known after it is used.
    since : datetime, optional
        Rows before it are left out.
    holdout_from : datetime, optional
        Rows from here on are held back, and training rows have the labels known at this instant.

    Raises
    ------
    ConfigError
        If an on-demand feature gives something malformed, or its values for a row depend on other rows.
    SourceError
        If a column is missing or of a wrong type, an id comes twice, a label is neither 0 nor 1, or no
        labelled row, or only one class, is left to train on; if an on-demand feature refuses a row.
    """
    feature_rows, computed = add_on_demand(
        feature_rows, [each.bound() for each in training.on_demand], check=True
    )
    for name, each in computed.items():
        if each.first is not None:
            refuse_useless(name, failed=len(each.failed), rows=feature_rows.num_rows, first=each.first)
    at_column = _column(feature_rows, training.spine.at, "at", "feature rows")
    at = _micros(feature_rows, at_column)
    start = holdout_from or until
    within = at < _as_micros(until)
    if since is not None:
        within &= at >= _as_micros(since)
    known_then, told_at = _labels_as_of(training, feature_rows, labels, start)
    rows = _in_order(training, feature_rows, at, within & (at < _as_micros(start)) & ~np.isnan(known_then))
    _check_trainable(training, known_then[rows], start)
    signature = _signature(training, feature_rows, rows)
    holdout = None
    if holdout_from is not None:
        known_now, _ = _labels_as_of(training, feature_rows, labels, until)
        held = _in_order(
            training, feature_rows, at, within & (at >= _as_micros(start)) & ~np.isnan(known_now)
        )
        if held.size:
            holdout = _make_set(training, signature, feature_rows, at=at, labels=known_now, rows=held)
    made = _make_set(training, signature, feature_rows, at=at, labels=known_then, rows=rows)
    facts: dict[str, Any] = {
        "since": None if since is None else format_instant(since),
        "until": format_instant(until),
        "holdout_from": None if holdout_from is None else format_instant(holdout_from),
        "rows": len(made),
        "positives": int(made.y.sum()),
        "holdout_rows": 0 if holdout is None else len(holdout),
        "columns": len(signature.inputs),
    }
    if failed := failure_facts(computed, rows):
        facts["on_demand"] = failed
    population = _in_order(training, feature_rows, at, within & (at < _as_micros(start)))
    return TrainingData(made, holdout, signature, facts, population, at[population], told_at[rows])


def digest_of_set(data: TrainingSet, signature: Signature) -> str:
    """Give the sha256 over signature, ids, instants, inputs and labels of a training set."""
    digest = sha256(canonical_json(signature))
    digest.update(canonical_json(pc.cast(data.ids, pa.string()).to_pylist()))
    digest.update(np.ascontiguousarray(data.at, dtype="<i8").data)
    for column in range(data.X.shape[1]):
        digest.update(np.ascontiguousarray(data.X[:, column], dtype="<f8").data)
    digest.update(np.ascontiguousarray(data.y, dtype="<f8").data)
    return digest.hexdigest()


def _column(table: pa.Table, *names: str) -> str:
    """Give the first of `names` that the table has; the last one says what the table is."""
    *wanted, what = names
    for name in wanted:
        if name in table.column_names:
            return name
    raise SourceError(
        f"{what} have no column {' or '.join(wanted)}; there is {', '.join(table.column_names)}"
    )


def _as_micros(instant: datetime) -> int:
    return int(pa.scalar(instant, _INSTANT).value)


def _micros(table: pa.Table, column: str) -> npt.NDArray[np.int64]:
    values = table.column(column)
    if not pa.types.is_timestamp(values.type) or values.null_count:
        raise SourceError(
            f"column {column!r} is {values.type} with {values.null_count} nulls; wanted instants"
        )
    micros: npt.NDArray[np.int64] = values.cast(_INSTANT).cast(pa.int64()).to_numpy()
    return micros


def _labels_as_of(
    training: Training, feature_rows: pa.Table, labels: pa.Table, cutoff: datetime
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Give the label of each feature row as it was known at `cutoff`, and since when; NaN where none was."""
    label = training.label
    known_at = _column(labels, label.source.known_at or "known_at", "known_at", "labels")
    _column(labels, label.on, "labels")
    values = column_floats(label.column, labels.column(_column(labels, label.column, "labels")))
    known = _micros(labels, known_at) <= _as_micros(cutoff)
    candidates = np.flatnonzero(known)
    if not ((values[known] == 0) | (values[known] == 1) | np.isnan(values[known])).all():
        raise SourceError(f"label {label.name!r} holds something other than 0, 1 and null")
    # Last known last; NaN sorts after any number, so a null told at the same instant as a value counts.
    instants = _micros(labels, known_at)
    candidates = candidates[np.lexsort((values[candidates], instants[candidates]))]
    ids = feature_rows.column(_column(feature_rows, training.spine.id, "id", "feature rows"))
    label_ids = labels.column(label.on).take(pa.array(candidates)).cast(ids.type)
    positions = pc.index_in(ids, value_set=_reversed(label_ids))
    found = pc.fill_null(positions, -1).to_numpy()
    result, told_at = np.full(feature_rows.num_rows, np.nan), np.zeros(feature_rows.num_rows, dtype=np.int64)
    is_found = found >= 0
    rows = candidates[::-1][found[is_found]]
    result[is_found], told_at[is_found] = values[rows], instants[rows]
    return result, told_at


def _reversed(values: pa.ChunkedArray) -> pa.Array:
    """Turn the order round: of equal values, a look-up gives the first."""
    return values.combine_chunks().take(pa.array(np.arange(len(values) - 1, -1, -1)))


def _in_order(
    training: Training, feature_rows: pa.Table, at: npt.NDArray[np.int64], wanted: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Give the positions of the wanted rows, by instant, then id.

    Raises
    ------
    SourceError
        If an id comes twice among them.
    """
    rows = np.flatnonzero(wanted)
    ids = feature_rows.column(_column(feature_rows, training.spine.id, "id", "feature rows")).take(
        pa.array(rows)
    )
    distinct = pc.count_distinct(ids, mode="all").as_py()
    if distinct != rows.size or ids.null_count:
        raise SourceError(
            f"{rows.size} feature rows have {distinct} ids, nulls: {ids.null_count}; wanted one each"
        )
    keys = pa.table({"at": at[rows], "id": ids})
    order = pc.sort_indices(keys, sort_keys=[("at", "ascending"), ("id", "ascending")]).to_numpy()
    ordered: npt.NDArray[np.int64] = rows[order.astype(np.int64)]
    return ordered


def _check_trainable(training: Training, y: npt.NDArray[np.float64], cutoff: datetime) -> None:
    if not y.size:
        raise SourceError(
            f"training {training.name!r} has no row whose label {training.label.name!r} was known at "
            f"{format_instant(cutoff)}; choose a later cutoff, or see whether labels have landed"
        )
    if y.min() == y.max():
        raise SourceError(
            f"all {y.size} labels known at {format_instant(cutoff)} are {int(y[0])}; wanted both classes"
        )


def _signature(training: Training, feature_rows: pa.Table, rows: npt.NDArray[np.int64]) -> Signature:
    inputs = []
    for each in training.fields:
        if each.kind == "category":
            inputs.append(Input(each.name, "category", _vocabulary(each.name, feature_rows, rows)))
        else:
            inputs.append(Input(each.name, "number"))
    texts = {name for view in training.views for name in view.spec().text_columns}
    for name in training.feature_names:
        if name in texts:
            inputs.append(Input(name, "text", _vocabulary(name, feature_rows, rows)))
        else:
            inputs.append(Input(name, "feature"))
    return Signature(tuple(inputs), training.label.name)


def _vocabulary(name: str, feature_rows: pa.Table, rows: npt.NDArray[np.int64]) -> tuple[str, ...]:
    values = feature_rows.column(_column(feature_rows, name, "feature rows")).take(pa.array(rows))
    seen = (text for text in pc.unique(values.cast(pa.string())).to_pylist() if text is not None)
    return tuple(sorted(seen))


def _make_set(
    training: Training,
    signature: Signature,
    feature_rows: pa.Table,
    *,
    at: npt.NDArray[np.int64],
    labels: npt.NDArray[np.float64],
    rows: npt.NDArray[np.int64],
) -> TrainingSet:
    id_column = _column(feature_rows, training.spine.id, "id", "feature rows")
    return TrainingSet(
        X=encode(signature, feature_rows, rows=rows),
        y=labels[rows],
        names=signature.names,
        category_columns=signature.category_columns,
        at=at[rows],
        ids=feature_rows.column(id_column).take(pa.array(rows)).combine_chunks(),
        label=training.label.name,
        source=feature_rows,
        rows=rows,
    )
