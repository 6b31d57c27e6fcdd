"""Which datasets the runs of experiments read."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, select

from noria.tracking.tables import run_datasets, tracked_runs

__all__ = ["DatasetSummary", "summarize_datasets"]

_MOST = 1_000


class DatasetSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset, as runs of one experiment read it in one context."""

    experiment: str
    name: str
    digest: str
    context: str | None


def summarize_datasets(connection: Connection, experiments: Sequence[int]) -> list[DatasetSummary]:
    """Give each dataset that runs read which are not deleted, once by context: by name, at most 1,000."""
    table = run_datasets.c
    query = (
        select(table.experiment, table.name, table.digest, table.context)
        .distinct()
        .join(tracked_runs, tracked_runs.c.run == table.run)
        .where(table.experiment.in_(experiments), tracked_runs.c.deleted_at.is_(None))
        .order_by(table.experiment, table.name, table.digest, table.context)
        .limit(_MOST)
    )
    return [
        DatasetSummary(experiment=str(row.experiment), name=row.name, digest=row.digest, context=row.context)
        for row in connection.execute(query)
    ]
