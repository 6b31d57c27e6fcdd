"""What people ask of a running `noria up`: that a pipeline is run."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from noria.errors import Conflict, NotFound
from noria.records import Event, new_id

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["request_run"]


def request_run(
    project: "Project",
    pipeline: str,
    *,
    params: Mapping[str, Any] | None = None,
    key: str | None = None,
    actor: str | None = None,
    at: datetime,
) -> Event:
    """Ask for a run of a pipeline: an event `pipeline.requested`, which the leader acts upon.

    Parameters
    ----------
    params
        Arguments of the pipeline, by name; what JSON can hold.
    key
        The same key again is the same request.

    Raises
    ------
    NotFound
        If the project declares no such pipeline.
    ConfigError
        If the pipeline takes no such argument, lacks one, or one is of another type: as a run of it says.
    Conflict
        If the key is that of another request.
    """
    from noria.workspace.steps import check_params  # which loads Arrow

    declared = project.declarations.pipelines
    if pipeline not in declared:
        raise NotFound("pipeline", pipeline, declared)
    given = dict(params or {})
    check_params(declared[pipeline], given)
    told = ", ".join(f"{name}={value!r}" for name, value in given.items())
    event = project.ledger.append(
        "pipeline.requested",
        subject=pipeline,
        payload={
            "params": given,
            "reason": f"{pipeline} was asked for" + (f" with {told}" if told else ""),
        },
        key=f"request:{key or new_id()}",
        actor=actor,
        at=at,
    )
    if event.payload["params"] != given:
        raise Conflict(
            f"key {key!r} is that of a request with the params {event.payload['params']}; "
            "give each request its own"
        )
    return event
