"""Pages of 100 ids out of experiments of 1,000 to 100,000 runs, in SQLite that was never analyzed.

Then pages of 100 whole runs over HTTP, on SQLite and on PostgreSQL.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.measuring import Line, take_turns
from bench.tracking_filling import fill_experiments
from bench.tracking_pages import page_lines, postgresql_to_fill
from noria.database.store import Database
from noria.tracking.searches.searching import search_runs

_SIZES = (1_000, 10_000, 100_000)
_PAGE, _RUNS, _TIMES = 100, 5, 5
_AT_MOST_MS = 10
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
_WHOLE: dict[str, tuple[str, tuple[str, ...]]] = {  # which no index answers: all runs, or all texts, are read
    "parameter LIKE, none": ("params.rate LIKE '%zz%'", ()),
    "run name LIKE, one": ("run_name LIKE '%77777'", ()),
    "parameter LIKE, 2% match": ("params.rate LIKE '%99%'", ()),
    "parameter missing, in none": ("params.rate IS NULL", ()),
    "by the end": ("", ("attributes.end_time DESC",)),
}


def lines(folder: Path) -> Iterator[Line]:
    sqlite = f"sqlite:///{folder}/noria.db"
    with Database.open(sqlite) as database:
        ids = fill_experiments(database, _SIZES)
        for experiment, size in enumerate(_SIZES, start=1):
            for what, (text, order_by) in _SEARCHES.items():
                yield _line(database, f"{size:,} runs: {what}", [experiment], text, order_by)
            listed = ", ".join(f"'{each}'" for each in ids[experiment][:_PAGE])
            yield _line(database, f"{size:,} runs: 100 by id", [experiment], f"run_id IN ({listed})", ())
        for what, (text, order_by) in _WHOLE.items():
            told = f"{_SIZES[-1]:,} runs: {what}"
            yield _line(database, told, [len(_SIZES)], text, order_by, times=1, at_most=None)
        yield _line(database, "three experiments", [1, 2, 3], *_SEARCHES[_USUAL])
        yield _line(database, "an experiment that is not there", [99], *_SEARCHES[_USUAL])
    with postgresql_to_fill() as postgresql:
        if postgresql is not None:
            with Database.open(postgresql) as database:
                fill_experiments(database, _SIZES)
        sizes = dict(enumerate(_SIZES, start=1))
        yield from page_lines(folder, sizes, sqlite=sqlite, postgresql=postgresql)


def _line(
    database: Database,
    what: str,
    folders: Sequence[int],
    text: str,
    order_by: Sequence[str],
    *,
    times: int = _TIMES,
    at_most: float | None = _AT_MOST_MS,
) -> Line:
    def search(_: int) -> None:
        for _ in range(times):
            with database.read() as connection:
                search_runs(connection, folders, filter=text, order_by=order_by, limit=_PAGE)

    search(0)
    (figure,) = take_turns(search, runs=_RUNS, per=times, scale=1e3)
    return Line(f"search {what}", figure, "ms", at_most=at_most)
