"""Pages of experiments: all of them, and the runs of one."""

from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from noria.errors import BadFilter
from noria.records import RunState
from noria.tracking.experiments import ExperimentBook
from noria.tracking.figures import read_figures
from noria.tracking.reading import read_infos
from noria.tracking.searches.searching import RunPage, search_experiments, search_runs
from noria.tracking.summaries import COUNTED, metric_names, summarize
from noria.web.columns import columns_of, find_order
from noria.web.rendering import page
from noria.workspace.project import Project

__all__ = ["ExperimentPages"]

_EXPERIMENTS, _RUNS = 100, 100  # of a page
_METRICS = 60  # that are offered for leaderboards and pictures


class ExperimentPages:
    """Answers requests for them."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._name = project.settings.project.name

    def list_all(self, request: Request) -> Response:
        """List experiments, the latest made first."""
        given, token = request.query_params.get("filter", ""), request.query_params.get("page")
        values: dict[str, Any] = {
            "filter": given,
            "error": "",
            "rows": [],
            "next_page": None,
            "most": COUNTED,
        }
        status = HTTPStatus.OK
        with self._project.ledger.database.read() as connection:
            try:
                found = search_experiments(connection, filter=given, limit=_EXPERIMENTS, page=token)
            except BadFilter as err:
                values["error"], status = str(err), HTTPStatus.BAD_REQUEST
            else:
                experiments = ExperimentBook(self._project.ledger).read(found.experiments)
                summaries = summarize(connection, found.experiments)
                runs = [each.newest for each in summaries.values() if each.newest is not None]
                newest = {each.experiment: each for each in read_infos(connection, runs)}
                values["next_page"] = found.next_page
                values["rows"] = [
                    {
                        "experiment": each,
                        "runs": summaries[int(each.id)].runs,
                        "newest": newest.get(each.id),
                    }
                    for each in experiments
                ]
        values["is_empty"] = not given and not token and not any(each["runs"] for each in values["rows"])
        return page(request, "experiments", values, project=self._name, status=status)

    def show(self, request: Request) -> Response:
        """List the runs of an experiment."""
        experiment = ExperimentBook(self._project.ledger).get_by_id(request.path_params["id"])
        query = request.query_params
        given, sorting, token = query.get("filter", ""), query.get("order", ""), query.get("page")
        error, status, order = "", HTTPStatus.OK, None
        found = RunPage((), None)
        with self._project.ledger.database.read() as connection:
            try:
                order = find_order(sorting)
                found = search_runs(
                    connection, [int(experiment.id)],
                    filter=given, order_by=[sorting] if order else [], limit=_RUNS, page=token,
                )  # fmt: skip
            except BadFilter as err:
                error, status = str(err), HTTPStatus.BAD_REQUEST
            infos = {each.id: each for each in read_infos(connection, found.runs)}
            runs = read_figures(connection, found.runs)
            count = summarize(connection, [int(experiment.id)])[int(experiment.id)].runs
            metrics = metric_names(connection, int(experiment.id), most=_METRICS)
        attributes, columns, left = columns_of(runs, order)
        values = {
            "experiment": experiment, "filter": given, "order": sorting if order else "", "page_token": token,
            "error": error, "next_page": found.next_page, "attributes": attributes, "columns": columns,
            "left": left, "count": count, "most": COUNTED, "offered": offered(metrics),
            "rows": [(infos[each.id], each) for each in runs], "running": RunState.RUNNING,
        }  # fmt: skip
        return page(request, "experiment", values, project=self._name, status=status)


def offered(metrics: list[str]) -> list[str]:
    """Give the metrics to choose from: those of the machine last."""
    return sorted(metrics, key=lambda each: (each.startswith("system/"), each))
