"""Recorded sources, cut into the batches in which their rows became known."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from noria.clock import from_micros, to_micros
from noria.errors import ConfigError, SourceError
from noria.lake.declarations import Dataset

__all__ = ["Feed", "day_number", "instant_scalar", "read_source"]

DAY = timedelta(days=1)


def day_number(day: datetime) -> int:
    """Give a day as the number of its batch.

    Examples
    --------
    >>> from datetime import UTC
    >>> day_number(datetime(2013, 4, 1, tzinfo=UTC))
    20130401
    """
    return day.year * 10_000 + day.month * 100 + day.day


def instant_scalar(instant: datetime) -> pa.Scalar:
    """Give an instant as Arrow compares it."""
    return pa.scalar(to_micros(instant), pa.int64()).cast(pa.timestamp("us", "UTC"))


@dataclass(frozen=True, slots=True)
class _Recording:
    rows: pa.Table
    known_us: npt.NDArray[np.int64]  # ascending


class Feed:
    """The sources of some datasets, in the order in which their rows became known.

    Parameters
    ----------
    datasets
        Each with a `source` and a declared `known_at`.
    root
        The project's folder, which sources are given.

    Raises
    ------
    ConfigError
        If a dataset has no source, or none that says when a row was known.
    SourceError
        If a source is gone, empty or not what was declared.
    """

    def __init__(self, datasets: Iterable[Dataset], *, root: Path) -> None:
        self._recordings = {each.name: _record(each, root) for each in datasets}

    def between(self, dataset: Dataset, start: datetime | None, end: datetime) -> pa.Table:
        """Give the rows that became known from `start` (included) to `end` (excluded)."""
        recording = self._recordings[dataset.name]
        first = 0 if start is None else int(np.searchsorted(recording.known_us, to_micros(start)))
        last = int(np.searchsorted(recording.known_us, to_micros(end)))
        return recording.rows.slice(first, last - first)

    def months(self, dataset: Dataset, until: datetime) -> Sequence[tuple[int, pa.Table]]:
        """Give the rows known before `until` by calendar month, each with the number of its last day."""
        recording = self._recordings[dataset.name]
        if not len(recording.known_us) or recording.known_us[0] >= to_micros(until):
            return []
        start, batches = from_micros(int(recording.known_us[0])), []
        start = start.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        while start < until:
            end = min((start + 32 * DAY).replace(day=1), until)
            batches.append((day_number(end - DAY), self.between(dataset, start, end)))
            start = end
        return batches


def read_source(dataset: Dataset, root: Path) -> pa.Table:
    """Give everything that a dataset's source gives.

    Raises
    ------
    SourceError
        If a file is gone or malformed, or what the source gives is no frame.
    """
    assert dataset.source is not None  # the caller asks for what is there
    try:
        return pa.table(dataset.source(root))
    except SourceError:
        raise
    except (OSError, ImportError, TypeError, ValueError, LookupError, pa.ArrowException) as err:
        raise SourceError(
            f"the source of dataset {dataset.name!r} fails: {type(err).__name__}: {err}; "
            "put right what it reads, and run the same command again"
        ) from err


def _record(dataset: Dataset, root: Path) -> _Recording:
    if dataset.source is None or dataset.known_at is None:
        raise ConfigError(
            f"dataset {dataset.name!r} cannot be replayed: it needs a `source` that gives its rows, and a "
            "`known_at` that says when each became known"
        )
    rows = read_source(dataset, root)
    if not rows.num_rows:
        raise SourceError(f"the source of dataset {dataset.name!r} gives no row; there is nothing to replay")
    if dataset.known_at not in rows.column_names:
        raise SourceError(
            f"the source of {dataset.name!r} gives no column {dataset.known_at!r}; it gives "
            f"{', '.join(rows.column_names)}"
        )
    known = rows[dataset.known_at]
    if not pa.types.is_timestamp(known.type) or known.null_count:
        raise SourceError(
            f"{dataset.known_at!r} of dataset {dataset.name!r} is {known.type} with {known.null_count} "
            "nulls; wanted instants, one in each row"
        )
    order = pc.sort_indices(
        rows, sort_keys=[(dataset.known_at, "ascending"), *((key, "ascending") for key in dataset.keys)]
    )
    rows = rows.take(order).combine_chunks()
    instants = rows[dataset.known_at].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    return _Recording(rows, instants)
