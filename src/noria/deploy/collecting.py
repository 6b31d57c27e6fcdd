"""Moves what all workers of a deployment have logged into the lake."""

from pathlib import Path

from noria.deploy.shipping import Table, ship_predictions
from noria.deploy.supervisor import Supervisor
from noria.serving.logs.index import PredictionIndex
from noria.serving.process.hosting import INDEX

__all__ = ["collect_predictions"]


def collect_predictions(supervisor: Supervisor, deployment: str, lake: Table) -> int:
    """Move everything that is logged so far into the lake, once; give how many rows that was.

    Parameters
    ----------
    supervisor
        Of the environment; running or not.
    deployment
        Whose predictions.
    lake
        Where the table `predictions` is.

    Raises
    ------
    LeaseHeld
        If another process serves the deployment.
    StoreError
        If a log is damaged or a store cannot be written; what was moved before stands.
    """
    app_id = f"predictions/{supervisor.environment}/{deployment}"
    closed = supervisor.rotate(deployment)
    if len(closed) == 1:
        return _ship(*closed[0], lake, app_id=app_id, index=None)
    with PredictionIndex(supervisor.folder / deployment / INDEX) as index:
        return sum(_ship(spool, segment, lake, app_id=app_id, index=index) for spool, segment in closed)


def _ship(spool: Path, segment: int, lake: Table, *, app_id: str, index: PredictionIndex | None) -> int:
    shipped = ship_predictions(
        spool,
        lake,
        app_id=app_id,
        rotate=lambda: segment,
        stamps=None if index is None else index.stamps,
    )
    return shipped.rows
