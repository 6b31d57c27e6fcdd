"""Deploying a version: its release is made, verified as a server verifies it, and let in by the gate."""

import getpass
import logging
from typing import TYPE_CHECKING, Any

from noria.deploy.admission import require_admission
from noria.deploy.environments import Deployment, Move, deploy, promote, start_canary
from noria.deploy.gates import GateEvidence, enter, judge, require_passed
from noria.deploy.model_releases import release_model
from noria.deploy.releases import find_standing, read_release, read_route, serve_release
from noria.deploy.shadowing import start_shadow
from noria.errors import ConfigError, Conflict, GateRefused, NotFound
from noria.records import Event, Version, new_id
from noria.registry.records import is_folder
from noria.serving.logs.log_writing import logged_names
from noria.serving.models import load_route
from noria.serving.records import Route, RouteEntry, ServedModel
from noria.workspace.models.folder_releases import release_folder
from noria.workspace.models.names import reference_of
from noria.workspace.trials.rules import canary_of

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["check_release", "deploy_model", "let_in", "promote_model"]

_LOG = logging.getLogger(__name__)


def deploy_model(
    project: "Project",
    version: Version,
    *,
    environment: str,
    canary: float | None,
    shadow: bool,
    reason: str,
    example: object | None,
) -> Move:
    """Let a version answer in an environment; see `noria.workspace.models.verbs.ModelVerbs.deploy`."""
    if canary is not None and not 0 < canary < 1:
        raise ConfigError(f"canary is {canary}; give a share of the traffic, above 0 and below 1")
    if canary is not None and shadow:
        raise ConfigError("a release is a canary, which answers, or a shadow, which does not; choose one")
    at = project.now(environment)  # raises `NotFound` for an environment that is none
    verb = "canary" if canary is not None else "shadow" if shadow else "deploy"
    place, release, event = let_in(
        project, version, environment=environment, verb=verb, reason=reason, example=example
    )
    told = reason or f"{version.ref} is deployed"
    if not place.gated:
        told += f" ({environment} has no gate)"
    key = f"person:{new_id()}"
    if canary is not None:
        rules = canary_of(project, environment)
        return start_canary(
            place,
            release,
            share=canary,
            unit=rules.sticky,
            by_header=rules.by_header,
            key=key,
            reason=told,
            cause=event.id,
            at=at,
        )
    if shadow:
        return start_shadow(place, release, key=key, reason=told, cause=event.id, at=at)
    return deploy(place, release, key=key, reason=told, cause=event.id, at=at)


def let_in(
    project: "Project",
    version: Version,
    *,
    environment: str,
    verb: str,
    reason: str,
    example: object | None = None,
) -> tuple[Deployment, Version, Event]:
    """Make a release that may answer, or be tried: verified as a server does, let in by the gate.

    Parameters
    ----------
    verb
        What somebody asks for: `deploy`, or else a trial.

    Returns
    -------
    Deployment, Version, Event
        Where it goes, the release, and that it was asked for.
    """
    gate, on_trial = project.environment(environment).gate, verb != "deploy"
    _check_new(project, version, environment, on_trial=on_trial)
    release = release_of(project, version, example)
    place = project.deployment(environment, version.name, gated=gate is not None)
    _tell_unread(project, check_release(project, release), environment)
    subject = f"{version.name}@{environment}"
    event = _asked(project, subject, verb, version, reason=reason, environment=environment)
    if gate is not None:
        _admit(project, release, version, environment, on_trial=on_trial, cause=event)
    return place, release, event


def promote_model(project: "Project", reference: str, *, reason: str) -> Move:
    """Let what is on trial answer everything; see `noria.workspace.models.verbs.ModelVerbs.promote`."""
    environment, name = project.place(reference)
    at, ledger = project.now(environment), project.ledger
    pointer = ledger.find_pointer(environment, name)
    if pointer is None:
        known = {f"{each.name}@{each.environment}" for each in ledger.list_pointers()}
        advice = f"nothing is deployed yet; `noria deploy {name}@{environment}` does it"
        raise NotFound("deployment", reference, known, advice=advice)
    standing = find_standing(ledger, environment=environment, deployment=name)
    releases = read_route(ledger.get_version_by_id(pointer.version)).releases
    stable = None if standing is None else standing.release.id
    trials = [each for each in releases.values() if each != stable]
    if pointer.stable or not trials:
        there = "nothing" if standing is None else standing.model.ref
        raise Conflict(
            f"nothing is on trial at {reference}, {there} answers alone; begin a trial with "
            f"`noria deploy {name}:NUMBER@{environment} --canary 0.1`"
        )
    if len(trials) > 1:
        raise Conflict(
            f"{len(trials)} releases are on trial at {reference}; deploy the one that won: "
            f"`noria deploy {name}:NUMBER@{environment}`"
        )
    release = ledger.get_version_by_id(trials[0])
    version = ledger.get_version_by_id(read_release(release).model)
    event = _asked(project, reference, "promote", version, reason=reason, environment=environment)
    place = project.deployment(environment, name)
    told = reason or f"{version.ref} is promoted"
    return promote(place, release, key=f"person:{new_id()}", reason=told, cause=event.id, at=at)


def release_of(project: "Project", version: Version, example: object | None = None) -> Version:
    """Give the newest release of a version, or make one."""
    if is_folder(version):
        return release_folder(project, version, example)
    if example is not None:
        raise ConfigError(f"{version.ref} has rows of its own that a server verifies; leave the example out")
    releases = project.ledger.list_versions(kind="release", name=version.name)
    mine = [each for each in releases if each.facts.get("model") == version.id]
    if mine:
        return mine[-1]
    parents = version.facts.get("parents") or ()
    return release_model(
        project.ledger,
        project.registry,
        version,
        training=project.declarations.trainings.get(version.name),
        refit_of=project.ledger.get_version_by_id(parents[0]) if parents else None,
    )


def check_release(project: "Project", release: Version) -> ServedModel:
    """Load a release as a server does, let it score its stored rows, and give it.

    Raises
    ------
    RouteRefusedError
        If a server would refuse it; says why.
    """
    place = project.deployment(next(iter(project.settings.environments)), release.name)
    served = serve_release(release, fetch=place.fetch, samples=place.samples, trusts=place.trusts)
    route = Route(
        environment="",
        deployment=release.name,
        number=0,
        id="",
        entries=(RouteEntry(release=release.ref),),
        models=(served,),
    )
    load_route(route, folder=project.root)
    return served


def _tell_unread(project: "Project", served: ServedModel, environment: str) -> None:
    """Warn of names to be left out of the log that no model of the environment has: they may be misspelt."""
    unread = set(project.environment(environment).log.redact) - logged_names(served)
    ledger = project.ledger
    for pointer in ledger.list_pointers(environment=environment) if unread else ():
        if pointer.name != served.model:
            place = project.deployment(environment, pointer.name)
            for other in place.route(ledger.get_version_by_id(pointer.version)).models:
                unread -= logged_names(other)
    if unread:
        _LOG.warning(
            "[environments.%s.log] redact names %s, which nothing that is deployed there reads, so it leaves "
            "nothing out; %s has %s",
            environment,
            ", ".join(sorted(map(repr, unread))),
            served.release,
            ", ".join(sorted(logged_names(served))),
        )


def _check_new(project: "Project", version: Version, environment: str, *, on_trial: bool) -> None:
    ledger, name = project.ledger, version.name
    standing = find_standing(ledger, environment=environment, deployment=name)
    pointer = ledger.find_pointer(environment, name)
    if standing is not None and standing.model.id == version.id:
        if on_trial:
            raise Conflict(
                f"{version.ref} is the stable release of {name}@{environment}; there is nothing to try"
            )
        if pointer is not None and pointer.stable:
            raise Conflict(f"{version.ref} is what {name}@{environment} has; there is nothing to deploy")
    if standing is None and on_trial:
        raise Conflict(
            f"nothing is in {environment} beside which {version.ref} could be tried; deploy it: "
            f"`noria deploy {reference_of(project, version)}@{environment}`"
        )


def _asked(
    project: "Project", subject: str, verb: str, version: Version, *, reason: str, environment: str
) -> Event:
    payload: dict[str, Any] = {"verb": verb, "version": version.id, "reason": reason or "asked for"}
    actor = f"person:{getpass.getuser()}"
    return project.ledger.append(
        "person.asked", actor=actor, subject=subject, payload=payload, at=project.now(environment)
    )


def _admit(
    project: "Project", release: Version, version: Version, environment: str, *, on_trial: bool, cause: Event
) -> None:
    """Ask the gate; one that has not judged a model that was registered as it is judges it now."""
    try:
        require_admission(
            project.ledger, release, environment=environment, deployment=version.name, on_trial=on_trial
        )
    except GateRefused as error:
        if "estimator" not in version.facts and not is_folder(version):
            error.add_note(_advice(project, version, environment, on_trial=on_trial))
            raise
        _judge(project, version, environment, cause=cause)


def _advice(project: "Project", version: Version, environment: str, *, on_trial: bool) -> str:
    if version.facts.get("parents") and not on_trial:
        told = reference_of(project, version)
        return f"A canary judges a refit: `noria deploy {told}@{environment} --canary 0.1`."
    return (
        f"The gate of {environment} judges what a training made when a trigger takes it there; to look at it "
        "without, deploy it to an environment that has no gate."
    )


def _judge(project: "Project", version: Version, environment: str, *, cause: Event) -> None:
    gate = project.gate_of(environment)
    evidence = GateEvidence(
        y=[],
        at=[],
        challenger=[],
        base_rate=float("nan"),
        data_version=f"the record of {version.ref}",
        samples_difference=0.0,  # `check_release` has seen to it just now
        metrics=version.facts.get("metrics") or {},
    )
    event = enter(
        project.ledger,
        gate,
        judge(gate, evidence),
        version=version,
        environment=environment,
        cause=cause.id,
        at=project.now(environment),
    )
    try:
        require_passed(event)
    except GateRefused as error:
        error.add_note(
            f"{version.ref} was registered as it is: the gate of {environment} could look at its metrics "
            "and its stored rows only; register it with `metrics={...}`, or name a gate in noria.toml that "
            "asks for no held-back rows."
        )
        raise
