"""What people ask of a running `noria up`: that a pipeline is run."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from noria.errors import ConfigError, Conflict, NotFound
from noria.pipelines.signatures import read_signature
from noria.records import Event, new_id

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["request_run"]

_PROVIDED = ("noria.workspace.project:Project",)  # handed to pipelines that ask for it


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
        If the pipeline takes no such argument, or lacks one.
    Conflict
        If the key is that of another request.
    """
    declared = project.declarations.pipelines
    if pipeline not in declared:
        raise NotFound("pipeline", pipeline, declared)
    given = dict(params or {})
    _check(pipeline, given, declared[pipeline].function)
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


def _check(pipeline: str, given: Mapping[str, Any], function: Callable[..., Any]) -> None:
    """Refuse arguments that a pipeline does not take, and the lack of those that it needs."""
    known = read_signature(function, provided=_PROVIDED).parameters
    taken = {name: each for name, each in known.items() if each.provided is None}
    unknown = [name for name in given if name not in taken]
    lacking = [name for name, each in taken.items() if each.is_required and name not in given]
    if unknown or lacking:
        wrong = (
            f"takes no {', '.join(map(repr, unknown))}"
            if unknown
            else f"needs {', '.join(map(repr, lacking))}"
        )
        raise ConfigError(f"pipeline {pipeline!r} {wrong}; it takes {', '.join(taken) or 'nothing'}")
