"""What the light services in a folder are, and what they answered."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from noria.deploy.releases import find_standing
from noria.errors import LeaseHeld
from noria.serving.records import STATUS_FILE, ServerStatus, read_record
from noria.workspace.light.folders import ENVIRONMENT, service_folder
from noria.workspace.light.folders import list_services as folders_of

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["LightSummary", "list_services", "read_log"]

_PREDICTIONS = "predictions"


class LightSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A service as a list shows it.

    Parameters
    ----------
    model
        The version that answers, or would.
    versions
        How many there are.
    address
        Where it answers; None where it does not run.
    predictions
        Rows in its table.
    """

    name: str
    folder: str
    model: str | None
    versions: int
    address: str | None
    predictions: int


def list_services(base: Path) -> list[LightSummary]:
    """List the services below a folder, by name."""
    from noria.workspace.project import Project

    found = []
    for folder in folders_of(base):
        with Project(folder) as project:
            found.append(_summary(project))
    return found


def _summary(project: "Project") -> LightSummary:
    name = project.name
    standing, versions, rows = None, 0, 0
    if project.has_begun:
        standing = find_standing(project.ledger, environment=ENVIRONMENT, deployment=name)
        versions = len(project.ledger.list_versions(kind="model", name=name))
        if project.lake.exists(_PREDICTIONS):
            rows = project.query(f"select count(*) as rows from {_PREDICTIONS}")["rows"][0].as_py()
    return LightSummary(
        name=name,
        folder=str(project.root),
        model=None if standing is None else standing.model.ref,
        versions=versions,
        address=_address(project.state / "deployments" / ENVIRONMENT),
        predictions=rows,
    )


def _address(folder: Path) -> str | None:
    """Give where a server answers whose workers live."""
    from noria.streams.spool import take_lock

    if not (folder / STATUS_FILE).exists():
        return None
    try:
        lock = take_lock(folder, 0.0)
    except LeaseHeld:
        status = read_record(folder / STATUS_FILE, ServerStatus)
        scheme = "https" if status.is_secure else "http"
        host = f"[{status.host}]" if ":" in status.host else status.host
        return f"{scheme}://{host}:{status.port}"
    import os

    os.close(lock)
    return None


def read_log(base: Path, name: str | None, *, limit: int) -> list[dict[str, Any]]:
    """Give what a service was asked and answered, newest first; 0: all.

    What one that was killed has left in its log is taken in first.

    Raises
    ------
    NotFound
        If there is no such service.
    """
    from noria.deploy.collecting import collect_predictions
    from noria.workspace.project import Project

    with Project(service_folder(base, name)) as project:
        with suppress(LeaseHeld):  # it runs, and does so itself
            collect_predictions(project.supervisor(ENVIRONMENT), project.name, project.lake)
        if not project.lake.exists(_PREDICTIONS):
            return []
        most = f" limit {int(limit)}" if limit else ""
        found: list[dict[str, Any]] = project.query(
            f'select * from {_PREDICTIONS} order by "at" desc, prediction_id desc{most}'
        ).to_pylist()
        return found
