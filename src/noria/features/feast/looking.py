"""A look at the file behind a source: its columns, and what its instants say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from noria.errors import SourceError

__all__ = ["Looked", "look_at"]

_ROWS = 200_000


@dataclass(frozen=True, slots=True)
class Looked:
    """What a file holds.

    Attributes
    ----------
    columns
        Name -> Arrow type, as text.
    instants
        Those that hold instants.
    early
        Of the rows looked at, how many were created before they happened.
    lag
        The median time from the event until the row was created.
    doubled
        How many rows have the key of another one.
    """

    columns: Mapping[str, str]
    instants: tuple[str, ...]
    rows: int = 0
    early: int = 0
    lag: timedelta | None = None
    doubled: int = 0


def look_at(path: Path, *, key: Sequence[str], event_at: str | None, created: str | None) -> Looked:
    """Look at the schema of Parquet below `path`, and at its first rows.

    Raises
    ------
    SourceError
        If it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    try:
        data = ds.dataset(path, format="parquet")
        schema = data.schema
        instants = tuple(each.name for each in schema if pa.types.is_timestamp(each.type))
        columns = {each.name: str(each.type) for each in schema}
        if event_at is None and len(instants) == 1:
            (event_at,) = instants
        wanted = [each for each in dict.fromkeys([*key, event_at, created]) if each in columns]
        rows = data.head(_ROWS, columns=wanted)
    except (OSError, pa.ArrowException) as err:
        raise SourceError(f"{path} cannot be read as Parquet: {err}") from err
    early, lag = 0, None
    if event_at in instants and created in instants:
        event, made = (
            pc.cast(rows[each], pa.timestamp("us")).cast(pa.int64()) for each in (event_at, created)
        )
        apart = pc.drop_null(pc.subtract(made, event))
        early = pc.sum(pc.less(apart, 0)).as_py() or 0
        lag = timedelta(microseconds=pc.approximate_median(apart).as_py()) if len(apart) else None
    distinct = rows.group_by(wanted).aggregate([]).num_rows if wanted else rows.num_rows
    return Looked(
        columns=columns,
        instants=instants,
        rows=rows.num_rows,
        early=early,
        lag=lag,
        doubled=rows.num_rows - distinct,
    )
