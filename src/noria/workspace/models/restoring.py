"""An earlier version of a model put up again: through the gate, as what it was, never as a copy."""

import getpass
from typing import TYPE_CHECKING

from noria.deploy.admission import require_admission
from noria.deploy.environments import Move, deploy, start_canary
from noria.deploy.releases import find_standing
from noria.errors import ConfigError, Conflict, GateRefused, NotFound
from noria.records import Version, new_id
from noria.registry.records import is_folder
from noria.workspace.models.deploying import check_release
from noria.workspace.models.names import reference_of
from noria.workspace.trials.rules import canary_of

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["restore_model"]


def restore_model(
    project: "Project", version: Version, *, environment: str, share: float | None, reason: str
) -> Move:
    """Let a version answer in an environment again; see `noria.workspace.models.models.Models.restore`."""
    if share is not None and not 0 < share < 1:
        raise ConfigError(f"share is {share}; give a part of the traffic, above 0 and below 1, or none")
    at = project.now(environment)  # raises `NotFound` for an environment that is none
    release = _release_of(project, version)
    ledger, name = project.ledger, version.name
    standing = find_standing(ledger, environment=environment, deployment=name)
    pointer = ledger.find_pointer(environment, name)
    if standing is not None and standing.model.id == version.id and pointer is not None and pointer.stable:
        raise Conflict(f"{version.ref} is what {name}@{environment} has; there is nothing to restore")
    if standing is None and share is not None:
        raise Conflict(f"nothing is in {environment} that {version.ref} could share the traffic with")
    _check_whole(project, version, release)
    gated = project.environment(environment).gate is not None
    if gated:
        _check_admitted(project, release, version, environment, on_trial=share is not None)
    subject = f"{name}@{environment}"
    event = ledger.append(
        "person.asked",
        actor=f"person:{getpass.getuser()}",
        subject=subject,
        payload={"verb": "restore", "version": version.id, "reason": reason or "asked for"},
        at=at,
    )
    told = reason or f"{version.ref} is restored"
    place, key = project.deployment(environment, name, gated=gated), f"person:{new_id()}"
    if share is None:
        return deploy(place, release, key=key, reason=told, cause=event.id, at=at)
    rules = canary_of(project, environment)
    return start_canary(
        place,
        release,
        share=share,
        unit=rules.sticky,
        by_header=rules.by_header,
        key=key,
        reason=told,
        cause=event.id,
        at=at,
    )


def _release_of(project: "Project", version: Version) -> Version:
    """Give the newest release of a model version."""
    releases = project.ledger.list_versions(kind="release", name=version.name)
    mine = [each for each in releases if each.facts.get("model") == version.id]
    if not mine:
        raise NotFound(
            "release of a model version",
            reference_of(project, version),
            advice="it was never put up anywhere: a trigger that takes a version through staging makes one",
        )
    return mine[-1]


def _check_whole(project: "Project", version: Version, release: Version) -> None:
    """Raise before anything is asked for if the version cannot answer as it did."""
    if is_folder(version) or project.registry.read_manifest(version).signature.is_as_given:
        check_release(project, release)
        return
    error = project.registry.load(version).sample_error()
    if error:
        raise Conflict(f"{version.ref} scores its stored rows otherwise than it did, by up to {error:.3g}")


def _check_admitted(
    project: "Project", release: Version, version: Version, environment: str, *, on_trial: bool
) -> None:
    try:
        require_admission(
            project.ledger, release, environment=environment, deployment=version.name, on_trial=on_trial
        )
    except GateRefused as error:
        if version.facts.get("parents") and not on_trial:
            error.add_note(
                f"A share of the traffic lets a canary judge it: `noria model restore "
                f"{reference_of(project, version)} --environment {environment} --share 0.1`."
            )
        for event in project.ledger.list_events(verb="gate.refused", subject=version.ref, newest_first=True):
            if event.payload["environment"] == environment:
                error.add_note(f"On {event.at:%Y-%m-%d}: {event.payload['reason']}")
                break
        raise
