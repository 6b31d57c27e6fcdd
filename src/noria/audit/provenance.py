"""What the ledger says of a prediction: route, release, model, the runs that made it, who let it in.

Content is read here without holding it against its digest; that is for `noria.audit.digests` to do, so that
a changed record shows as a digest that does not hold and not as a trace that cannot be made.
"""

from dataclasses import dataclass
from math import isfinite
from typing import TypeVar

import msgspec

from noria.audit.links import check_lines
from noria.audit.records import Prediction, ReleaseLine, RouteLine, RunLine, Verdict, VersionLine, ViewLine
from noria.deploy.releases import Release, RouteContent
from noria.errors import LedgerCorrupt
from noria.ledger.store import Ledger
from noria.records import Event, Run, Version

__all__ = ["Provenance", "find_provenance", "read_content", "version_line"]

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Everything of a prediction that the ledger knows."""

    route: RouteLine
    release: ReleaseLine
    content: Release
    model: Version
    runs: tuple[RunLine, ...]
    verdicts: tuple[Verdict, ...]


def version_line(version: Version) -> VersionLine:
    """Give a version as a line."""
    return VersionLine(
        id=version.id,
        ref=version.ref,
        kind=version.kind,
        sha256=version.sha256,
        uri=version.uri,
        at=version.at,
        facts=version.facts,
        run=version.run,
    )


def read_content(version: Version, kind: type[T]) -> T:
    """Give the content of a route or release. Raises `LedgerCorrupt` if it holds something else."""
    try:
        return msgspec.convert(version.facts, kind)
    except msgspec.ValidationError as error:
        raise LedgerCorrupt(
            f"{version.kind} {version.ref} does not hold what it should ({error}): it was changed; "
            "`noria ledger verify` tells what else was"
        ) from error


def find_provenance(ledger: Ledger, prediction: Prediction) -> Provenance:
    """Find who answered a prediction, how that came about, and who allowed it.

    Raises
    ------
    NotFound
        If the route or release that the log names is not in the ledger.
    """
    route = ledger.get_version(
        "route", f"{prediction.environment}.{prediction.deployment}", prediction.route_number
    )
    route_content = read_content(route, RouteContent)
    name, _, number = prediction.release.rpartition(":")
    known = route_content.releases.get(prediction.release)
    release = ledger.get_version_by_id(known) if known else ledger.get_version("release", name, int(number))
    content = read_content(release, Release)
    model = ledger.get_version_by_id(content.model)
    parents = [ledger.get_version_by_id(each) for each in model.facts.get("parents", ())]
    return Provenance(
        route=_route_line(ledger, prediction, route, route_content),
        release=_release_line(release, content),
        content=content,
        model=model,
        runs=tuple(_run_line(ledger, each) for each in (model, *parents) if each.run is not None),
        verdicts=_verdicts(ledger, [release], [model, *parents]),
    )


def _route_line(ledger: Ledger, prediction: Prediction, route: Version, content: RouteContent) -> RouteLine:
    pointers = ledger.list_pointers(environment=prediction.environment, name=prediction.deployment)
    until = [each for each in pointers if each.version == route.id and each.at <= prediction.at]
    pointer = max(until, key=lambda each: each.number, default=None)
    return RouteLine(
        version=version_line(route),
        entries=tuple(msgspec.to_builtins(each) for each in content.entries),
        number=pointer.number if pointer else None,
        since=pointer.at if pointer else None,
        stable=pointer.stable if pointer else None,
        reason=pointer.reason if pointer else "no move of the pointer to this route is on record before it",
        event=pointer.event if pointer else None,
        event_digest=ledger.get_event(pointer.event).digest if pointer else None,
    )


def _release_line(release: Version, content: Release) -> ReleaseLine:
    return ReleaseLine(
        version=version_line(release),
        file_digest=content.file_digest,
        threshold=content.threshold,
        views=tuple(
            ViewLine(name=each.name, source=each.source, sha256=content.view_digests[each.name])
            for each in content.views
        ),
        code=content.code,
        code_diff=content.code_diff,
        runtime=content.runtime,
        refit_of=content.refit_of,
    )


def _run_line(ledger: Ledger, model: Version) -> RunLine:
    assert model.run is not None
    run: Run = ledger.get_run(model.run)
    inputs = [edge.version for edge in ledger.list_edges(run=run.id) if edge.role == "input"]
    return RunLine(
        id=run.id,
        model=model.ref,
        name=run.name,
        state=run.state.value,
        at=run.at,
        params=run.params,
        metrics={name: value if isfinite(value) else None for name, value in run.metrics.items()},
        seed=run.seed,
        code=run.code,
        code_diff=run.code_diff,
        runtime=run.runtime,
        cpu_s=run.cost.cpu_s if run.cost else None,
        wall_s=run.cost.wall_s if run.cost else None,
        cause=run.cause,
        inputs=tuple(version_line(ledger.get_version_by_id(each)) for each in inputs),
    )


def _verdicts(ledger: Ledger, releases: list[Version], models: list[Version]) -> tuple[Verdict, ...]:
    """Give what gates said of the models and canaries of the releases, oldest first."""
    gates = [
        event
        for model in models
        for event in ledger.list_events(verb="gate.*", subject=model.ref)
        if event.payload["version"] == model.id
    ]
    canaries = [
        event
        for release in releases
        for event in ledger.list_events(verb="canary.*", subject=release.ref)
        if event.payload["release"] == release.id and event.verb != "canary.continued"
    ]
    return tuple(_verdict(event) for event in sorted((*gates, *canaries), key=lambda event: event.seq))


def _verdict(event: Event) -> Verdict:
    return Verdict(
        event=event.id,
        digest=event.digest,
        verb=event.verb,
        subject=event.subject,
        at=event.at,
        environment=event.payload["environment"],
        passed=event.verb in {"gate.passed", "canary.passed"},
        reason=event.payload["reason"],
        checks=check_lines(event),
    )
