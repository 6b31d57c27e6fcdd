"""Experiments of many runs, put into a database in bulk: past SQLAlchemy, in a fraction of the time."""

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Table

from noria.database.store import Database
from noria.ledger.tables import runs
from noria.tracking.tables import experiments, latest_metrics, run_params, run_tags, tracked_runs

__all__ = ["fill_experiments"]

_FAMILY = 20  # runs of one parent
_METRICS = ("accuracy", "auc", "f1", "loss", "seconds")
_PARAMS = ("depth", "leaves", "rate", "rounds", "seed")
_SPREAD = 1_000  # values of a parameter


def fill_experiments(database: Database, sizes: Sequence[int]) -> dict[int, list[str]]:
    """Make experiments 1, 2, … of so many runs, the same each time; give the runs of each, oldest first."""
    draw = random.Random(1)
    ids: dict[int, list[str]] = {}
    with database.write() as connection:
        if connection.dialect.name == "postgresql":  # what is put in here refers to what is there
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        for experiment, size in enumerate(sizes, start=1):
            ids[experiment] = [f"{draw.getrandbits(128):032x}" for _ in range(size)]
            for table, rows in _rows(experiment, ids[experiment], draw):
                _put(connection, table, rows)
    if database.url.startswith("postgresql"):  # as the server does by itself before long
        with database.write() as connection:
            connection.exec_driver_sql("ANALYZE")
    return ids


def _put(connection: Connection, table: Table, rows: Iterable[dict[str, Any]]) -> None:
    """Put rows of the same columns into a table."""
    rows = iter(rows)
    first = next(rows)
    columns = ", ".join(f'"{each}"' for each in first)
    driver: Any = connection.connection.driver_connection
    values = (tuple(row.values()) for part in ([first], rows) for row in part)
    if connection.dialect.name == "sqlite":
        places = ", ".join("?" * len(first))
        driver.executemany(f"INSERT INTO {table.name} ({columns}) VALUES ({places})", values)
        return
    with driver.cursor().copy(f"COPY {table.name} ({columns}) FROM STDIN") as copy:
        for each in values:
            copy.write_row(each)


def _rows(
    experiment: int, ids: Sequence[str], draw: random.Random
) -> Iterator[tuple[Table, Iterable[dict[str, Any]]]]:
    """Give the rows of each table; of a table by run, as its key has them, which databases like best."""
    yield experiments, [{"id": experiment, "name": f"bench {experiment}", "at": 0, "updated_at": 0}]
    numbered = sorted((run, number) for number, run in enumerate(ids))
    common = {
        "scope": "project", "kind": "train", "name": "bench", "state": "finished", "attempt": 1,
        "experiment": str(experiment), "params": "{}", "metrics": "{}", "code": "", "runtime": "", "at": 0,
        "started_at": 0, "ended_at": 0,
    }  # fmt: skip
    yield runs, ({"id": run, **common} for run, _ in numbered)
    told = {"experiment": experiment, "owner": "bench", "is_scheduled": False}
    yield (
        tracked_runs,
        (
            {"run": run, "name": f"run-{number}", "started_at": number * 1_000_000, **told}
            for run, number in numbered
        ),
    )
    point = {"experiment": experiment, "recorded_at": 0, "step": 1, "is_nan": False}
    yield (
        latest_metrics,
        (
            {"run": run, "name": name, "value": draw.random(), **point}
            for run, _ in numbered
            for name in _METRICS
        ),
    )
    yield (
        run_params,
        (
            _text(run, name, experiment, str(draw.randrange(_SPREAD)))
            for run, _ in numbered
            for name in _PARAMS
        ),
    )
    yield (
        run_tags,
        (
            _text(run, name, experiment, value)
            for run, number in numbered
            for name, value in (
                ("mlflow.parentRunId", f"parent-{number // _FAMILY}"),
                ("mlflow.user", "bench"),
            )
        ),
    )


def _text(run: str, name: str, experiment: int, value: str) -> dict[str, Any]:
    return {"run": run, "name": name, "experiment": experiment, "value": value, "head": value}
