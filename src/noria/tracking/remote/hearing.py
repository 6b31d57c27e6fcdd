"""Whose process of another machine is at work on a run, and when it was last heard of."""

from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import Connection, bindparam, select

from noria.database.store import Database
from noria.ledger.processes import Process
from noria.tracking.tables import sent_logs

__all__ = ["LATEST_LOG", "HeardOf", "find_heard_of", "heard_of"]

LATEST_LOG = (  # of a run, that of a process which has begun it or gone on with it
    select(sent_logs)
    .where(sent_logs.c.run == bindparam("run"), sent_logs.c.begun_at.is_not(None))
    .order_by(sent_logs.c.begun_at.desc(), sent_logs.c.log.desc())
    .limit(1)
)
_LAST_HEARD = (
    select(sent_logs.c.heard_at)
    .where(sent_logs.c.run == bindparam("run"))
    .order_by(sent_logs.c.heard_at.desc())
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class HeardOf:
    """The process that sends the log of a run, or has sent it."""

    holder: Process
    at: datetime  # when it was last heard of

    def __str__(self) -> str:
        return f"{self.holder}, last heard of at {self.at:%Y-%m-%d %H:%M:%S} UTC"


def heard_of(database: Database, run: str) -> HeardOf | None:
    """Tell whose process sends the log of a run; None if none does."""
    with database.read() as connection:
        return find_heard_of(connection, run)


def find_heard_of(connection: Connection, run: str) -> HeardOf | None:
    """Tell the same within a transaction."""
    row = connection.execute(LATEST_LOG, {"run": run}).first()
    if row is None:
        return None
    at = connection.execute(_LAST_HEARD, {"run": run}).scalar_one()
    return HeardOf(msgspec.json.decode(row.holder, type=Process), at)
