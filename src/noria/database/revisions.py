"""Which state of the tables this code wants, and how a database gets there.

Migrations are Alembic scripts `NNNN_what.py` in `migrations/versions`; `NNNN` is the revision. Alembic itself
is loaded only where there is something to do.
"""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from noria.errors import StoreError

__all__ = ["current_revision", "newest_revision", "upgrade_tables"]

_MIGRATIONS = Path(__file__).parent / "migrations"


def newest_revision() -> str:
    """Give the revision that this code works with."""
    return max(path.name[:4] for path in (_MIGRATIONS / "versions").glob("[0-9][0-9][0-9][0-9]_*.py"))


def current_revision(connection: Connection) -> str | None:
    """Give the revision that the database has, None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def upgrade_tables(connection: Connection, *, location: str, revision: str | None = None) -> None:
    """Bring the tables to `newest_revision`, or to an older one, inside the caller's transaction.

    The caller's transaction is the only one that may write, so the second of two processes that start at once
    waits here and then finds nothing to do; a kill leaves the tables as they were.

    Raises
    ------
    StoreError
        If the database was written by a newer noria.
    """
    current, wanted = current_revision(connection), revision or newest_revision()
    if current == wanted:
        return
    if current is not None and current > wanted:
        raise StoreError(
            f"the database {location} has tables of revision {current}, this noria knows up to {wanted}: "
            "it was written by a newer noria; upgrade noria (or open a copy from before)"
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, wanted)
