"""Releases and routes: immutable versions of what answers, and what stands in an environment.

Both carry their whole content in the facts of their version, and their digest is the sha256 of the canonical
JSON of those facts: `digest_of(version.facts) == version.sha256` for every one of them. Paths on this
machine are no part of them; `serve_route` adds those.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from noria.errors import ConfigError, DigestMismatch
from noria.features.declarations import ViewSpec
from noria.features.on_demand import OnDemandSpec
from noria.ledger.store import Ledger
from noria.records import EventId, Pointer, Version, VersionId, digest_of
from noria.serving.records import (
    HEADER_UNIT,
    SCORE,
    Input,
    Output,
    Route,
    RouteEntry,
    RouteRule,
    Samples,
    ServedFile,
    ServedModel,
)

__all__ = [
    "Release",
    "RouteContent",
    "Standing",
    "find_standing",
    "production_version",
    "read_release",
    "read_route",
    "record_release",
    "record_route",
    "serve_release",
    "serve_route",
    "stable_release",
]

T = TypeVar("T", bound=msgspec.Struct)
_SCORES = (SCORE,)
# What inputs had not at first: left out where it says nothing, so that the same release has the same digest.
_LATER = tuple(
    (field.name, field.default)
    for field in msgspec.structs.fields(Input)
    if field.name in ("width", "datatype", "optional")
)


class Release(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that decides an answer: model, columns, feature definitions, threshold, code, runtime."""

    model: VersionId
    model_ref: str  # name:number, as people write it
    model_digest: str  # of the model version: what the gate judged
    file_digest: str  # sha256 of the file that the worker loads
    format: str
    inputs: tuple[Input, ...]
    views: tuple[ViewSpec, ...]
    view_digests: dict[str, str]
    threshold: float | None
    refit_of: VersionId | None  # the version that the gate judged, where this one is its refit
    code: str
    code_diff: str | None
    runtime: str
    on_demand: tuple[OnDemandSpec, ...] = ()
    on_demand_code: str | None = None  # sha256 of the code by which a worker computes them
    outputs: tuple[Output, ...] = _SCORES
    files: dict[str, str] = {}  # path -> sha256, of a model that is a folder
    samples: str | None = None  # sha256 of its stored rows, where they are not those of the version


class RouteContent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who answers at a deployment, by release; see `noria.serving.records.Route`."""

    environment: str
    deployment: str
    entries: tuple[RouteEntry, ...]
    releases: dict[str, VersionId]  # release reference -> version
    unit: str = ""
    salt: str = ""
    rules: tuple[RouteRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a deployment pointed to."""

    pointer: Pointer
    route: Version
    release: Version  # the one that answers; where several do, the one with the largest share
    model: Version


def record_release(
    ledger: Ledger,
    model: Version,
    *,
    file_digest: str,
    inputs: Sequence[Input],
    views: Iterable[ViewSpec] = (),
    threshold: float | None = None,
    model_format: str = "lightgbm",
    refit_of: Version | None = None,
    on_demand: Iterable[OnDemandSpec] = (),
    on_demand_code: str | None = None,
    outputs: Sequence[Output] = _SCORES,
    files: Mapping[str, str] | None = None,
    samples: str | None = None,
    cause: EventId | None = None,
    at: datetime | None = None,
) -> Version:
    """Record the release of a model version, or find the one with the same content.

    Parameters
    ----------
    model
        A version of kind `model`; code and runtime are those of the run that made it.
    file_digest
        Of the file that a worker loads; of a folder, of what names its files.
    inputs
        The columns that it reads, in order.
    views
        The feature views that it reads.
    threshold
        The cut of its decision.
    refit_of
        The version that the gate judged, where `model` is its refit on all rows.
    on_demand, on_demand_code
        The on-demand features of the model, and the sha256 of the code that was kept with it for them.
    outputs
        What it gives.
    files
        Of a model that is a folder: sha256 by path.
    samples
        The sha256 of rows with what the model gives for them, where its version has none.
    """
    specs = tuple(views)
    run = ledger.get_run(model.run) if model.run is not None else None
    content = Release(
        model=model.id,
        model_ref=model.ref,
        model_digest=model.sha256,
        file_digest=file_digest,
        format=model_format,
        inputs=tuple(inputs),
        views=specs,
        view_digests={spec.name: spec.digest for spec in specs},
        threshold=threshold,
        refit_of=refit_of.id if refit_of else None,
        code=run.code if run else "none",
        code_diff=run.code_diff if run else None,
        runtime=run.runtime if run else "none",
        on_demand=tuple(on_demand),
        on_demand_code=on_demand_code,
        outputs=_SCORES if tuple(outputs) == _SCORES else tuple(outputs),  # left out as it is the default
        files=dict(sorted((files or {}).items())),
        samples=samples,
    )
    return _record(ledger, "release", model.name, content, cause=cause, at=at)


def read_release(version: Version) -> Release:
    """Give the content of a version of kind `release`. Raises `DigestMismatch` if it was changed."""
    return _read(version, Release)


def record_route(
    ledger: Ledger,
    *,
    environment: str,
    deployment: str,
    entries: Sequence[tuple[Version, float, Literal["answer", "shadow"]]],
    unit: str = "",
    salt: str = "",
    rules: Sequence[RouteRule] = (),
    cause: EventId | None = None,
    at: datetime | None = None,
) -> Version:
    """Record a route of releases with weights and modes, or find the one with the same content.

    Parameters
    ----------
    unit, salt, rules
        Who gets which release; see `noria.serving.records.Route`.

    Raises
    ------
    ConfigError
        If a rule names a release that is not in the route.
    """
    there = [each.ref for each, _, _ in entries]
    for rule in rules:
        if rule.release not in there:
            raise ConfigError(
                f"a rule on header {rule.header!r} wants release {rule.release!r} at "
                f"{environment}/{deployment}; the route has {', '.join(there)}: name one of them, or add it "
                "with a weight of 0"
            )
    content = RouteContent(
        environment=environment,
        deployment=deployment,
        entries=tuple(
            RouteEntry(release=each.ref, weight=weight, mode=mode) for each, weight, mode in entries
        ),
        releases={each.ref: each.id for each, _, _ in entries},
        unit=unit,
        salt=salt,
        rules=tuple(rules),
    )
    return _record(ledger, "route", f"{environment}.{deployment}", content, cause=cause, at=at)


def read_route(version: Version) -> RouteContent:
    """Give the content of a version of kind `route`. Raises `DigestMismatch` if it was changed."""
    return _read(version, RouteContent)


def _record(
    ledger: Ledger,
    kind: str,
    name: str,
    content: msgspec.Struct,
    *,
    cause: EventId | None,
    at: datetime | None,
) -> Version:
    facts: dict[str, Any] = msgspec.to_builtins(content)
    for each in facts.get("inputs", ()):
        for later in [later for later, default in _LATER if each[later] == default]:
            del each[later]
    sha256 = digest_of(facts)
    return ledger.record_version(
        kind, name, sha256=sha256, uri=f"sha256:{sha256}", facts=facts, cause=cause, at=at
    )


def _read(version: Version, kind: type[T]) -> T:
    found = digest_of(version.facts)
    if found != version.sha256:
        raise DigestMismatch(f"{version.kind} {version.ref}", version.sha256, found)
    return msgspec.convert(version.facts, kind)


def _trusts_none(_: str) -> bool:
    return False


def serve_route(
    ledger: Ledger,
    route: Version,
    *,
    fetch: Callable[[str], Path],
    samples: Callable[[Release], Samples],
    trusts: Callable[[str], bool] = _trusts_none,
) -> Route:
    """Give the route as a worker reads it: with the path of every model on this machine.

    Parameters
    ----------
    route
        A version of kind `route`. Its digest is the salt of the assignment.
    fetch
        Gives a verified local file by its sha256, such as `Storage.fetch`.
    samples
        Gives stored rows with their scores, which a worker scores again before it answers with a model.
    trusts
        Tells whether a model, by its name, may run code as it is loaded.

    Raises
    ------
    DigestMismatch
        If the route, a release or a model file is not what was recorded.
    """
    content = read_route(route)
    return Route(
        environment=content.environment,
        deployment=content.deployment,
        number=route.number,
        id=route.sha256,
        entries=content.entries,
        unit=content.unit,
        salt=content.salt,
        rules=content.rules,
        brought=_brought(ledger, route, content),
        models=tuple(
            serve_release(ledger.get_version_by_id(version), fetch=fetch, samples=samples, trusts=trusts)
            for version in content.releases.values()
        ),
    )


def _brought(ledger: Ledger, route: Version, content: RouteContent) -> tuple[str, ...]:
    """Give the columns by which other routes of the deployment have assigned rows."""
    routes = ledger.list_versions(kind="route", name=route.name)
    units = {str(each.facts.get("unit", "")) for each in routes}
    return tuple(
        sorted(each for each in units if each and each != content.unit and not each.startswith(HEADER_UNIT))
    )


def serve_release(
    version: Version,
    *,
    fetch: Callable[[str], Path],
    samples: Callable[[Release], Samples],
    trusts: Callable[[str], bool],
) -> ServedModel:
    """Give a release as a worker reads it; see `serve_route`."""
    release = read_release(version)
    name, _, number = release.model_ref.rpartition(":")
    return ServedModel(
        release=version.ref,
        model=name,
        version=int(number),
        digest=release.file_digest,
        path="" if release.files else str(fetch(release.file_digest)),
        inputs=release.inputs,
        views=release.views,
        samples=samples(release),
        threshold=release.threshold,
        format=release.format,
        on_demand=release.on_demand,
        code_digest=release.on_demand_code,
        code=None if release.on_demand_code is None else str(fetch(release.on_demand_code)),
        outputs=release.outputs,
        files=tuple(
            ServedFile(name=path, digest=sha256, path=str(fetch(sha256)))
            for path, sha256 in release.files.items()
        ),
        trust_pickle=trusts(name),
    )


def find_standing(
    ledger: Ledger,
    *,
    environment: str,
    deployment: str,
    at: datetime | None = None,
    stable: bool = True,
) -> Standing | None:
    """Find what a deployment pointed to, now or at an instant of the project's clock.

    Parameters
    ----------
    stable
        The last stable route, whatever is on trial; False gives the route that answered, trials included.
    """
    pointers = ledger.list_pointers(environment=environment, name=deployment)
    fitting = [each for each in pointers if (each.stable or not stable) and (at is None or each.at <= at)]
    if not fitting:
        return None
    pointer = max(fitting, key=lambda each: each.number)
    route = ledger.get_version_by_id(pointer.version)
    content = read_route(route)
    answering = [entry for entry in content.entries if entry.mode == "answer"]
    largest = max(answering, key=lambda entry: entry.weight)
    release = ledger.get_version_by_id(content.releases[largest.release])
    model = ledger.get_version_by_id(read_release(release).model)
    return Standing(pointer=pointer, route=route, release=release, model=model)


def stable_release(
    ledger: Ledger, *, environment: str, deployment: str, at: datetime | None = None
) -> Version | None:
    """Find the release in an environment: the one of the deployment's last stable route."""
    standing = find_standing(ledger, environment=environment, deployment=deployment, at=at)
    return standing.release if standing else None


def production_version(
    ledger: Ledger, *, environment: str, deployment: str, at: datetime | None = None
) -> Version | None:
    """Find the model version in an environment: the one of its stable release."""
    standing = find_standing(ledger, environment=environment, deployment=deployment, at=at)
    return standing.model if standing else None
