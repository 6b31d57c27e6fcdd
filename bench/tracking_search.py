"""Pages of 100 ids out of experiments of 1,000 to 100,000 runs, in SQLite that was never analyzed."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert

from bench.measuring import Line, take_turns
from noria.clock import from_micros
from noria.database.store import Database
from noria.ledger.tables import runs
from noria.tracking.searching import search_runs
from noria.tracking.tables import experiments, latest_metrics, run_params, run_tags, tracked_runs

_SIZES = (1_000, 10_000, 100_000)
_PAGE, _RUNS, _TIMES = 100, 5, 5
_AT_MOST_MS = 10
_FAMILY = 20  # runs of one parent
_METRICS = ("accuracy", "auc", "f1", "loss", "seconds")
_PARAMS = ("depth", "leaves", "rate", "rounds", "seed")
_SPREAD = 1_000  # values of a parameter
_PIECE = 10_000
_SEARCHES: dict[str, tuple[str, tuple[str, ...]]] = {
    "metric filter, metric order": ("metrics.accuracy > 0.5", ("metrics.loss DESC",)),
    "the same, 2% match": ("metrics.accuracy > 0.98", ("metrics.loss DESC",)),
    "one metric for both": ("metrics.loss < 0.5", ("metrics.loss DESC",)),
    "newest": ("", ()),
    "metric filter, newest": ("metrics.accuracy > 0.5", ()),
    "children of a run": ("tags.mlflow.parentRunId = 'parent-7'", ("metrics.loss",)),
    "parameter": ("params.rate = '17'", ()),
    "parameter, metric order": ("params.rate = '17'", ("metrics.loss",)),
    "status, none": ("status = 'RUNNING'", ()),
    "run name": ("run_name = 'run-7'", ()),
}
_USUAL = "metric filter, metric order"


def lines(folder: Path) -> Iterator[Line]:
    with Database.open(f"sqlite:///{folder}/noria.db") as database:
        draw = random.Random(1)
        ids: dict[int, list[str]] = {}
        for experiment, size in enumerate(_SIZES, start=1):
            ids[experiment] = [f"{draw.getrandbits(128):032x}" for _ in range(size)]
            with database.write() as connection:
                _fill(connection, experiment, ids[experiment], draw)
        for experiment, size in enumerate(_SIZES, start=1):
            for what, (text, order_by) in _SEARCHES.items():
                yield _line(database, f"{size:,} runs: {what}", [experiment], text, order_by)
            listed = ", ".join(f"'{each}'" for each in ids[experiment][:_PAGE])
            yield _line(database, f"{size:,} runs: 100 by id", [experiment], f"run_id IN ({listed})", ())
        yield _line(database, "three experiments", [1, 2, 3], *_SEARCHES[_USUAL])
        yield _line(database, "an experiment that is not there", [99], *_SEARCHES[_USUAL])


def _line(database: Database, what: str, folders: Sequence[int], text: str, order_by: Sequence[str]) -> Line:
    def search(_: int) -> None:
        for _ in range(_TIMES):
            with database.read() as connection:
                search_runs(connection, folders, filter=text, order_by=order_by, limit=_PAGE)

    search(0)
    (figure,) = take_turns(search, runs=_RUNS, per=_TIMES, scale=1e3)
    return Line(f"search {what}", figure, "ms", at_most=_AT_MOST_MS)


def _fill(connection: Connection, experiment: int, ids: Sequence[str], draw: random.Random) -> None:
    at = from_micros(0)
    row = {"id": experiment, "name": f"bench {experiment}", "at": at, "updated_at": at}
    connection.execute(insert(experiments).values(row))
    for start in range(0, len(ids), _PIECE):
        some = ids[start : start + _PIECE]
        common: dict[str, Any] = {
            "scope": "project", "kind": "train", "name": "bench", "state": "finished", "attempt": 1,
            "experiment": str(experiment), "params": "{}", "metrics": "{}", "code": "", "runtime": "",
            "at": at, "started_at": at, "ended_at": at,
        }  # fmt: skip
        connection.execute(insert(runs), [{"id": each, **common} for each in some])
        infos = [
            {"run": each, "experiment": experiment, "name": f"run-{start + number}", "owner": "bench",
             "is_scheduled": False, "started_at": from_micros((start + number) * 1_000_000)}
            for number, each in enumerate(some)
        ]  # fmt: skip
        connection.execute(insert(tracked_runs), infos)
        points = [
            {"run": each, "name": name, "experiment": experiment, "recorded_at": at, "step": 1,
             "value": draw.random(), "is_nan": False}
            for each in some
            for name in _METRICS
        ]  # fmt: skip
        connection.execute(insert(latest_metrics), points)
        params = [
            _text(each, name, experiment, str(draw.randrange(_SPREAD))) for each in some for name in _PARAMS
        ]
        connection.execute(insert(run_params), params)
        tags = [
            _text(each, name, experiment, value)
            for number, each in enumerate(some, start=start)
            for name, value in (
                ("mlflow.parentRunId", f"parent-{number // _FAMILY}"),
                ("mlflow.user", "bench"),
            )
        ]
        connection.execute(insert(run_tags), tags)


def _text(run: str, name: str, experiment: int, value: str) -> dict[str, Any]:
    return {"run": run, "name": name, "experiment": experiment, "value": value, "head": value}
