"""Pages that judge the runs of an experiment together: a leaderboard, pictures, which parameters matter."""

import base64
import dataclasses
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from noria.errors import BadFilter, ConfigError, NotFound
from noria.tracking.experiments import ExperimentBook
from noria.tracking.records import Experiment
from noria.tracking.summaries import metric_names
from noria.web.drawing import MOST_RUNS, Asked, Drawn, can_draw, draw_elsewhere
from noria.web.experiments import offered
from noria.web.rendering import page
from noria.workspace.project import Project

__all__ = ["ScorePages"]

_METRICS = 200
_PLACES = 200
_DIRECTIONS = {"higher": True, "lower": False}


@dataclasses.dataclass(frozen=True, slots=True)
class _Shown:
    """A picture as it stands on a page."""

    told: str
    light: str = ""
    dark: str = ""
    error: str = ""
    notes: tuple[str, ...] = ()


class ScorePages:
    """Answers requests for them."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def leaderboard(self, request: Request) -> Response:
        """Rank what was tried by a metric."""
        experiment, values = self._begun(request)
        better = request.query_params.get("better", "")
        values |= {"better": better, "found": None, "places": _PLACES, "most": MOST_RUNS}
        status = HTTPStatus.OK
        if values["metric"]:
            from noria.workspace.runs.leaderboards import leaderboard_of

            try:
                values["found"] = leaderboard_of(
                    self._project, values["metric"], by=(), filter=values["filter"],
                    experiments=experiment.name, higher_is_better=_DIRECTIONS.get(better), level=0.95,
                    limit=MOST_RUNS,
                )  # fmt: skip
            except (BadFilter, NotFound) as err:
                values["error"], values["notes"] = str(err), getattr(err, "__notes__", [])
                status = HTTPStatus.NOT_FOUND if isinstance(err, NotFound) else HTTPStatus.BAD_REQUEST
            except ConfigError:  # the name does not tell which way is better
                values["asks_direction"] = True
        return self._page(request, "leaderboard", values, status)

    def pictures(self, request: Request) -> Response:
        """Draw runs across their parameters; on demand which parameters matter."""
        experiment, values = self._begun(request)
        wants_importance = request.query_params.get("importance") == "1"
        values |= {
            "can_draw": can_draw(), "parallel": None, "importance": None, "most": MOST_RUNS,
            "wants_importance": wants_importance,
        }  # fmt: skip
        if values["metric"] and values["can_draw"] and not experiment.deleted_at:
            values["parallel"] = self._drawn(experiment, values, "parallel")
            if wants_importance and not values["parallel"].error:
                values["importance"] = self._drawn(experiment, values, "importance")
        wrong = values["parallel"] is not None and values["parallel"].error
        return self._page(request, "pictures", values, HTTPStatus.BAD_REQUEST if wrong else HTTPStatus.OK)

    def _drawn(self, experiment: Experiment, values: dict[str, Any], kind: Any) -> _Shown:
        asked = Asked(
            project=str(self._project.root), kind=kind, metric=values["metric"], filter=values["filter"],
            experiment=experiment.name,
        )  # fmt: skip
        return _shown(draw_elsewhere(asked))

    def _begun(self, request: Request) -> tuple[Experiment, dict[str, Any]]:
        """Give the experiment, and what stands on both pages."""
        experiment = ExperimentBook(self._project.ledger).get_by_id(request.path_params["id"])
        with self._project.ledger.database.read() as connection:
            metrics = metric_names(connection, int(experiment.id), most=_METRICS)
        query = request.query_params
        return experiment, {
            "experiment": experiment, "metric": query.get("metric", ""), "filter": query.get("filter", ""),
            "offered": offered(metrics), "error": "", "notes": [], "asks_direction": False,
        }  # fmt: skip

    def _page(self, request: Request, template: str, values: dict[str, Any], status: HTTPStatus) -> Response:
        return page(request, template, values, project=self._project.settings.project.name, status=status)


def _shown(drawn: Drawn) -> _Shown:
    if drawn.error:
        return _Shown("", error=drawn.error, notes=drawn.notes)
    return _Shown(drawn.told, _data_url(drawn.light), _data_url(drawn.dark))


def _data_url(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}" if svg else ""
