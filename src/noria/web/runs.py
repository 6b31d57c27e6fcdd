"""The page of one run: what it was called with, what came of it, what it read and wrote, its files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select
from starlette.requests import Request
from starlette.responses import Response

from noria.errors import ConfigError, NotFound
from noria.ledger.rows import to_version
from noria.ledger.tables import edges, runs, versions
from noria.records import Run, Version
from noria.registry.labels import read_versions
from noria.registry.tables import model_versions
from noria.tracking.artifacts import Listed
from noria.tracking.beginning import files_folder
from noria.tracking.experiments import ExperimentBook
from noria.tracking.histories import HistoryReader
from noria.tracking.reading import read_runs
from noria.tracking.records import Experiment, RunDetails, param_text
from noria.web.charts import line_chart, line_of
from noria.web.rendering import page
from noria.workspace.project import Project

__all__ = ["RunPage", "find_folder"]

_CURVES, _PARTS = 12, 200  # drawn on a page; into so many parts the points of each are gathered
_FILES, _VERSIONS, _WITHIN = 1_000, 500, 200  # shown
_DIFF_BYTES = 200_000
_MACHINE = "system/"
_COMMANDS = ("command", "mlflow.source.name")
_SHOWN_ABOVE = frozenset(
    {"command", "host", "mlflow.runName", "mlflow.source.name", "mlflow.source.git.commit"}
)
_REPRODUCED = frozenset({"pipeline", "step"})


@dataclass(frozen=True, slots=True)
class _Code:
    """The code of a run; of a diff that is large the beginning."""

    commit: str
    diff: str = ""
    is_cut: bool = False
    is_gone: bool = False


class RunPage:
    """Answers requests for it."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def show(self, request: Request) -> Response:
        """Show a run."""
        project, query = self._project, request.query_params
        run = project.runs.get(request.path_params["id"])
        with project.ledger.database.read() as connection:
            details = read_runs(connection, [run.id])[0] if run.experiment is not None else None
            read, wrote = _versions(connection, run)
            ids = [*connection.execute(select(model_versions.c.version).where(
                model_versions.c.run == run.id, model_versions.c.deleted_at.is_(None)).limit(_VERSIONS)
            ).scalars()]  # fmt: skip
            labels = read_versions(connection, ids)
            within = _within(connection, run)
        experiment = None
        if details is not None:
            experiment = ExperimentBook(project.ledger).get_by_id(details.info.experiment)
        figures = _figures(run, details)
        folder, files, elsewhere = self._files(run, experiment, query.get("folder", ""))
        values: dict[str, Any] = {
            "run": run, "details": details, "experiment": experiment,
            "name": run.name if details is None else details.info.name,
            "began": run.started_at if details is None else details.info.started_at,
            "ended": run.ended_at if details is None else details.info.ended_at,
            "params": _params(run, details), "figures": figures, "tags": _tags(details),
            **self._curves(run, details, query.getlist("curve")),
            "within": within[:_WITHIN], "more_within": len(within) > _WITHIN,
            "read": read, "wrote": wrote, "labels": labels,
            "code": self._code(run), "command": _command(details), "host": _tag(details, "host"),
            "reproduces": run.kind in _REPRODUCED or (run.kind == "train" and "step_run" in run.params),
            "folder": folder, "files": files[:_FILES], "more_files": len(files) - _FILES,
            "elsewhere": elsewhere, "above": folder.rpartition("/")[0],
        }  # fmt: skip
        return page(request, "run", values, project=project.settings.project.name)

    def _curves(self, run: Run, details: RunDetails | None, wanted: list[str]) -> dict[str, Any]:
        """Give the curves of the metrics that have several steps, and which others there are."""
        if details is None:
            return {"curves": [], "other_curves": [], "wanted": []}
        along = sorted(
            (each.name for each in details.metrics if each.step),
            key=lambda each: (each.startswith(_MACHINE), each),
        )
        chosen = [each for each in dict.fromkeys(wanted) if each in along][:_CURVES]
        chosen = chosen or [each for each in along if not each.startswith(_MACHINE)][:_CURVES]
        reader = HistoryReader(self._project.ledger.database)
        curves = []
        for name in chosen:
            curve = reader.curves([run.id], name, parts=_PARTS)[run.id]
            told = f"{name} by step, {curve.points:,} points"
            curves.append((name, curve, line_chart([line_of(name, curve)], told=told)))
        others = [each for each in along if each not in chosen]
        return {"curves": curves, "other_curves": others, "wanted": wanted}

    def _files(self, run: Run, experiment: Experiment | None, folder: str) -> tuple[str, list[Listed], str]:
        """List the files of a run directly in a folder of its; or tell where they are."""
        if experiment is None:
            return "", [], ""
        try:
            root = files_folder(experiment, run.id)
        except ConfigError:
            return "", [], experiment.artifact_uri or ""
        folder = folder.strip("/")
        listed = self._project.artifacts.list(f"{root}/{folder}" if folder else root)
        return folder, [*listed], ""

    def _code(self, run: Run) -> _Code:
        if run.code_diff is None:
            return _Code(run.code)
        try:
            data = self._project.storage.get(run.code_diff)
        except NotFound:
            return _Code(run.code, is_gone=True)
        text = data[:_DIFF_BYTES].decode("utf-8", "replace")
        return _Code(run.code, text, is_cut=len(data) > _DIFF_BYTES)


def find_folder(project: Project, run: Run) -> str:
    """Give where the files of a run are. Raises `NotFound` if it has none here."""
    if run.experiment is None:
        raise NotFound("file", f"of run {run.id}")
    return files_folder(ExperimentBook(project.ledger).get_by_id(run.experiment), run.id)


def _versions(connection: Connection, run: Run) -> tuple[list[Version], list[Version]]:
    """Give what a run read and what it wrote, results of steps last."""
    query = (
        select(edges.c.role, *versions.c)
        .join(versions, versions.c.id == edges.c.version)
        .where(edges.c.run == run.id)
        .order_by(versions.c.kind == "output", versions.c.kind, versions.c.name, versions.c.number)
        .limit(2 * _VERSIONS)
    )
    found: dict[str, list[Version]] = {"input": [], "output": []}
    for row in connection.execute(query).mappings():
        fields = {name: value for name, value in row.items() if name != "role"}
        found.setdefault(row["role"], []).append(to_version(fields))
    return found["input"], found["output"]


def _within(connection: Connection, run: Run) -> list[Any]:
    """Give runs that are part of this one, by when they started."""
    query = select(runs.c.id, runs.c.kind, runs.c.name, runs.c.state, runs.c.started_at, runs.c.ended_at)
    found: list[Any] = [*connection.execute(query.where(runs.c.parent == run.id).limit(_WITHIN + 1))]
    return sorted(found, key=lambda each: (each.started_at, each.id))


def _params(run: Run, details: RunDetails | None) -> dict[str, str]:
    if details is not None:
        return details.params
    return {name: param_text(value) for name, value in sorted(run.params.items())}


def _figures(run: Run, details: RunDetails | None) -> list[tuple[str, float, int | None]]:
    """Give the latest value of each metric and its step, those of the machine last."""
    if details is None:
        return [(name, value, None) for name, value in sorted(run.metrics.items())]
    ordered = sorted(details.metrics, key=lambda each: (each.name.startswith(_MACHINE), each.name))
    return [(each.name, each.value, each.step) for each in ordered]


def _tags(details: RunDetails | None) -> Mapping[str, str]:
    if details is None:
        return {}
    return {name: _laid_out(value) for name, value in details.tags.items() if name not in _SHOWN_ABOVE}


def _laid_out(value: str) -> str:
    """Give JSON as people read it, any other text as it is."""
    if value[:1] in "{[" and len(value) <= _DIFF_BYTES:
        try:
            return json.dumps(json.loads(value), indent=1, ensure_ascii=False)
        except (ValueError, RecursionError):
            return value
    return value


def _tag(details: RunDetails | None, name: str) -> str:
    return "" if details is None else details.tags.get(name, "")


def _command(details: RunDetails | None) -> str:
    return next((found for name in _COMMANDS if (found := _tag(details, name))), "")
