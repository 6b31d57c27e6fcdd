"""The page of runs side by side: what they differ in, and their curves in one picture."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from noria.errors import NotFound
from noria.records import Run
from noria.tracking.figures import RunFigures, read_figures
from noria.tracking.histories import HistoryReader
from noria.tracking.reading import read_infos
from noria.tracking.summaries import names_along
from noria.web import words
from noria.web.charts import COLOURS, line_chart, line_of
from noria.web.rendering import page
from noria.workspace.project import Project

__all__ = ["ComparisonPage"]

_CURVES, _PARTS = 8, 200
_OWN_TAGS = frozenset({"mlflow.runName", "mlflow.log-model.history"})
_Rows = list[tuple[str, list[str | None]]]


class ComparisonPage:
    """Answers requests for it."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def show(self, request: Request) -> Response:
        """Show runs side by side."""
        project = self._project
        wanted = [*dict.fromkeys(request.query_params.getlist("run"))]
        found = {run.id: run for run in (project.runs.get(each) for each in wanted[:COLOURS])}
        runs = [each for each in found.values() if each.experiment is not None]
        if len(runs) < len(found):
            other = next(each for each in found.values() if each.experiment is None)
            raise NotFound("run of an experiment", other.id)
        with project.ledger.database.read() as connection:
            figures = read_figures(connection, [each.id for each in runs])
            infos = read_infos(connection, [each.id for each in runs])
            along = names_along(connection, [each.id for each in runs])
        difference = project.runs.diff(runs[0].id, runs[1].id) if len(runs) == 2 else None
        values = {
            "runs": runs, "infos": infos, "left_out": max(len(wanted) - COLOURS, 0),
            "sections": _sections(runs, figures), "difference": difference,
            "curves": self._curves(figures, along), "others": max(len(along) - _CURVES, 0),
        }  # fmt: skip
        return page(request, "comparison", values, project=project.settings.project.name)

    def _curves(self, runs: Sequence[RunFigures], names: Sequence[str]) -> list[tuple[str, Any]]:
        reader = HistoryReader(self._project.ledger.database)
        made = []
        for name in names[:_CURVES]:
            curves = reader.curves([each.id for each in runs], name, parts=_PARTS)
            lines = [line_of(each.name, curves[each.id]) for each in runs]
            made.append((name, line_chart(lines, told=f"{name} by step of {len(runs)} runs")))
        return made


def _sections(runs: Sequence[Run], figures: Sequence[RunFigures]) -> list[tuple[str, _Rows, _Rows]]:
    """Give by what is compared the rows that differ, and those that do not."""
    facts: list[Mapping[str, str]] = [
        {
            "commit": run.code,
            "uncommitted changes": (run.code_diff or "none")[:12],
            "runtime": run.runtime[:12],
            "seed": "none" if run.seed is None else str(run.seed),
        }
        for run in runs
    ]
    return [
        ("Parameters", *_rows([each.params for each in figures], str)),
        ("Metrics", *_rows([each.metrics for each in figures], words.number)),
        ("Tags", *_rows([_tags(each) for each in figures], str)),
        ("Code and runtime", *_rows(facts, str)),
    ]


def _tags(run: RunFigures) -> dict[str, str]:
    return {name: value for name, value in run.tags.items() if name not in _OWN_TAGS}


def _rows(maps: Sequence[Mapping[str, Any]], told: Callable[[Any], str]) -> tuple[_Rows, _Rows]:
    differ: _Rows = []
    same: _Rows = []
    for name in sorted({name for each in maps for name in each}):
        values = [each.get(name) for each in maps]
        is_same = len({repr(each) for each in values}) == 1
        texts = [None if each is None else told(each) for each in values]
        (same if is_same else differ).append((name, texts))
    return differ, same
