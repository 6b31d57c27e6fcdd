"""Which runs a leaderboard, an importance or a picture is about."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from noria.errors import ConfigError, NotFound
from noria.evaluation.directions import find_direction
from noria.records import RunId
from noria.tracking.experiments import ExperimentBook
from noria.tracking.figures import RunFigures, read_figures
from noria.tracking.searches.filters import Entity, parse_filter
from noria.tracking.searches.searching import search_runs

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["MOST_RUNS", "Chosen", "Direction", "choose_runs", "direction_of", "metric_key", "several"]

MOST_RUNS = 50_000
_PAGE = 5_000
_FINISHED = "attributes.status = 'FINISHED'"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Runs with a metric, the best first where it is known which those are.

    Attributes
    ----------
    runs
        Whose metric has a value, be it NaN or infinite.
    without
        How many runs were found that have no value of it.
    is_cut
        Whether there were more runs than are looked at.
    """

    runs: list[RunFigures]
    without: int
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Direction:
    """Whether more of a metric is better, and who says so."""

    is_more: bool
    told: str


def direction_of(metric: str, higher_is_better: bool | None) -> Direction:
    """Give which way a metric is better. Raises `ConfigError` if its name does not tell."""
    if higher_is_better is not None:
        return Direction(higher_is_better, f"{_words(higher_is_better)}, as was asked")
    guess = find_direction(metric)
    if guess is None:
        raise ConfigError(
            f"the name {metric!r} does not tell whether more of it is better; say higher_is_better=True or "
            "False (--higher-is-better, --lower-is-better)"
        )
    is_more, word = guess
    return Direction(is_more, f"{_words(is_more)}, guessed from {word!r} in its name")


def metric_key(name: str) -> str:
    """Give a metric as filters and orders write it.

    Examples
    --------
    >>> metric_key("val loss")
    'metrics.`val loss`'
    """
    return "metrics.`" + name.replace("`", "``") + "`"


def choose_runs(
    project: "Project",
    metrics: Sequence[str],
    *,
    filter: str,
    experiments: str | Sequence[str] | None,
    wants: bool = True,
    limit: int = MOST_RUNS,
) -> Chosen:
    """Find the runs that are finished, or what the filter says of their status; with a value of a metric.

    Parameters
    ----------
    metrics
        That are read; of the first one a value has to be there, where `wants`.

    Raises
    ------
    NotFound
        If there is no such experiment, or no such metric in those runs.
    BadFilter
        If `filter` cannot be read.
    """
    asked = {each.key for each in parse_filter(filter) if each.entity is Entity.ATTRIBUTE}
    if not asked & {"status", "run_id"}:
        filter = f"{filter} AND {_FINISHED}" if filter.strip() else _FINISHED
    book = ExperimentBook(project.ledger)
    folders = book.list_all() if experiments is None else [book.get(each) for each in several(experiments)]
    with project.ledger.database.read() as connection:
        ids: list[RunId] = []
        page: str | None = None
        while len(ids) < limit:
            found = search_runs(
                connection, [int(each.id) for each in folders],
                filter=filter, limit=min(_PAGE, limit - len(ids)), page=page,
            )  # fmt: skip
            ids += found.runs
            page = found.next_page
            if page is None:
                break
        runs = read_figures(connection, ids, metrics=metrics)
    if not wants:
        return Chosen(runs, 0, page is not None)
    name = metrics[0]
    having = [each for each in runs if name in each.metrics]
    if runs and not having:
        raise NotFound("metric", name, _known_metrics(project, runs))
    return Chosen(having, len(runs) - len(having), page is not None)


def several(given: str | Iterable[str]) -> list[str]:
    """Give a list of one text or several."""
    return [given] if isinstance(given, str) else [*given]


def _known_metrics(project: "Project", runs: Sequence[RunFigures]) -> list[str]:
    with project.ledger.database.read() as connection:
        some = read_figures(connection, [each.id for each in _spread(runs)])
    return sorted({name for each in some for name in each.metrics})


def _spread(runs: Sequence[RunFigures], most: int = 50) -> Iterator[RunFigures]:
    yield from runs[:: max(len(runs) // most, 1)]


def _words(is_more: bool) -> str:
    return "higher is better" if is_more else "lower is better"
