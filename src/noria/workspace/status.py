"""Where a project stands, as values: what `noria status` and the page show."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from noria.deploy.history import list_moves
from noria.deploy.releases import find_standing, read_release, read_route
from noria.errors import StoreError
from noria.lake.blocked import BlockedDataset
from noria.ledger.store import Ledger
from noria.monitoring.records import MonitorReport
from noria.records import Run, RunState
from noria.replay.declarations import Replay
from noria.triggers.reconcile import Decision, list_unfinished
from noria.workspace.features.records import CHECKED
from noria.workspace.features.standing import OnlineState, online_states
from noria.workspace.freshness import tell_freshness
from noria.workspace.pipeline_states import PipelineState, pipeline_states

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = [
    "DatasetState",
    "DeploymentState",
    "ProjectStatus",
    "ReplayState",
    "StoreState",
    "deployments",
    "project_status",
]


class StoreState(msgspec.Struct, frozen=True, kw_only=True):
    """One store and where it is."""

    name: str
    url: str


class DatasetState(msgspec.Struct, frozen=True, kw_only=True):
    """One dataset and its newest version; None where nothing has landed yet."""

    name: str
    version: int | None
    rows: int | None
    batch: int | None
    at: datetime | None
    blocked: tuple[str, ...] = ()  # why the newest batch is
    stale: str | None = None  # how old it is, and may be
    unreadable: str | None = None  # why it cannot be told whether it is


class DeploymentState(msgspec.Struct, frozen=True, kw_only=True):
    """What answers at one deployment."""

    environment: str
    deployment: str
    model: str
    release: str
    since: datetime  # on the project's clock
    on_trial: str | None  # the model that answers a share beside it
    share: float | None
    moves: int
    reason: str
    trial: str | None = None  # what the last look at it has found
    verified: "VerifiedState | None" = None  # the last look at what it serves, by `noria up`


class VerifiedState(msgspec.Struct, frozen=True, kw_only=True):
    """What was found when served features were computed again offline."""

    at: datetime
    is_broken: bool
    found: str


class ReplayState(msgspec.Struct, frozen=True, kw_only=True):
    """How far a declared replay went."""

    name: str
    start: datetime
    end: datetime
    until: datetime | None  # None: not begun

    @property
    def is_finished(self) -> bool:
        """Whether its last day is lived through."""
        return self.until is not None and self.until >= self.end


class ProjectStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where a project stands."""

    project: str
    root: str
    stores: tuple[StoreState, ...]
    declared: dict[str, tuple[str, ...]]  # names by kind
    replays: tuple[ReplayState, ...]
    datasets: tuple[DatasetState, ...]
    pipelines: tuple[PipelineState, ...]  # that are declared, or have run
    events: int = 0
    deployments: tuple[DeploymentState, ...] = ()
    monitors: tuple[MonitorReport, ...] = ()  # the last report about each deployment
    runs: dict[str, dict[str, int]] = {}  # kind -> state -> how many
    killed: tuple[Run, ...] = ()  # and never made good by a later attempt
    unfinished: tuple[Decision, ...] = ()  # decisions to run whose end is not on record
    features: tuple[OnlineState, ...] = ()  # views of which the online store holds any definition
    online_error: str | None = None  # why nothing is known of them


def project_status(project: "Project") -> ProjectStatus:
    """Tell where a project stands. Runs whose process is gone are marked as killed on the way.

    Where nothing was recorded yet nothing is made either.
    """
    declared = project.declarations
    stores = project.settings.stores
    begun = ProjectStatus(
        project=project.name,
        root=str(project.root),
        stores=tuple(StoreState(name=name, url=getattr(stores, name)) for name in stores.__struct_fields__),
        declared={
            "datasets": tuple(declared.datasets),
            "feature views": tuple(declared.views),
            "trainings": tuple(declared.trainings),
            "gates": tuple(declared.gates),
            "A/B tests": tuple(declared.ab_tests),
            "bandits": tuple(declared.bandits),
            "monitors": tuple(declared.monitors),
            "triggers": tuple(declared.triggers),
            "replays": tuple(declared.replays),
            "pipelines": tuple(declared.pipelines),
            "steps": tuple(declared.steps),
        },
        replays=_replays(declared.replays, None),
        datasets=_datasets(None, declared.datasets, {}, {}, {}),
        pipelines=pipeline_states(project, (), at=project.clock.now()),
    )
    if not project.has_begun:
        return begun
    ledger = project.ledger
    ledger.mark_killed()
    runs = ledger.list_runs()
    features, online_error = _features(project)
    newest = ledger.list_events(newest_first=True, limit=1)
    return msgspec.structs.replace(
        begun,
        events=newest[0].seq if newest else 0,
        replays=_replays(declared.replays, ledger),
        datasets=_datasets(ledger, declared.datasets, project.blocked_datasets(), *tell_freshness(project)),
        pipelines=pipeline_states(project, runs, at=project.clock.now()),
        deployments=deployments(ledger),
        monitors=_last_reports(ledger, runs),
        runs=_counted(runs),
        killed=_killed(runs),
        unfinished=tuple(list_unfinished(ledger)),
        features=features,
        online_error=online_error,
    )


def _features(project: "Project") -> tuple[tuple[OnlineState, ...], str | None]:
    try:
        states = online_states(project).values()
    except StoreError as error:
        return (), str(error)
    return tuple(each for each in states if each.definitions), None


def deployments(ledger: Ledger) -> tuple[DeploymentState, ...]:
    """List what answers in each environment; where nothing ever did there is nothing to list."""
    names = dict.fromkeys((each.environment, each.name) for each in ledger.list_pointers())
    found = (_deployment(ledger, environment, name) for environment, name in names)
    return tuple(each for each in found if each is not None)


def _deployment(ledger: Ledger, environment: str, name: str) -> DeploymentState | None:
    standing = find_standing(ledger, environment=environment, deployment=name)
    if standing is None:
        return None
    moves = list_moves(ledger, environment=environment, deployment=name)
    trial, share, told = None, None, None
    if not moves[-1].pointer.stable:
        from noria.deploy.trials import find_trial  # loads numpy, which a resting server does without
        from noria.workspace.trials.looks import last_look

        found = find_trial(ledger, environment=environment, deployment=name)
        look = None if found is None else last_look(ledger, found)
        told = None if look is None else str(look.payload["reason"])
        route = read_route(ledger.get_version_by_id(moves[-1].pointer.version))
        other = next(each for each in route.entries if each.release != standing.release.ref)
        trial = read_release(ledger.get_version_by_id(route.releases[other.release])).model_ref
        share = other.weight
    return DeploymentState(
        environment=environment,
        deployment=name,
        model=standing.model.ref,
        release=standing.release.ref,
        since=standing.pointer.at,
        on_trial=trial,
        share=share,
        moves=len(moves),
        reason=moves[-1].reason,
        trial=told,
        verified=_verified(ledger, f"{environment}/{name}"),
    )


def _verified(ledger: Ledger, subject: str) -> VerifiedState | None:
    last = ledger.list_events(verb=CHECKED, subject=subject, newest_first=True, limit=1)
    if not last:
        return None
    told = last[0].payload
    is_broken = bool(told["values"] or told["unexamined"])
    return VerifiedState(at=last[0].at, is_broken=is_broken, found=told["reason"])


def _replays(declared: Mapping[str, Replay], ledger: Ledger | None) -> tuple[ReplayState, ...]:
    return tuple(
        ReplayState(name=name, start=each.starts_at, end=each.ends_at, until=_replayed_until(ledger, name))
        for name, each in declared.items()
    )


def _replayed_until(ledger: Ledger | None, name: str) -> datetime | None:
    if ledger is None:
        return None
    done = ledger.list_events(verb="replay.day_done", subject=name, newest_first=True, limit=1)
    return done[0].at if done else None


def _datasets(
    ledger: Ledger | None,
    declared: Iterable[str],
    blocked: Mapping[str, BlockedDataset],
    stale: Mapping[str, str],
    unreadable: Mapping[str, Exception],
) -> tuple[DatasetState, ...]:
    versions = [] if ledger is None else ledger.list_versions(kind="dataset")
    newest = {each.name: each for each in versions}  # they come by number: the last one stays
    return tuple(
        DatasetState(
            name=name,
            version=found.number if found else None,
            rows=found.facts.get("rows") if found else None,
            batch=found.facts.get("batch") if found else None,
            at=found.at if found else None,
            blocked=blocked[name].reasons if name in blocked else (),
            stale=stale.get(name),
            unreadable=str(unreadable[name]) if name in unreadable else None,
        )
        for name in sorted({*declared, *newest})
        for found in (newest.get(name),)
    )


def _last_reports(ledger: Ledger, runs: Iterable[Run]) -> tuple[MonitorReport, ...]:
    """Give the last report of each monitor."""
    names = sorted({run.name for run in runs if run.kind == "monitor"})
    reports = []
    for name in names:
        found = ledger.list_events(verb="monitor.evaluated", subject=name, newest_first=True, limit=1)
        reports += [msgspec.convert(event.payload, MonitorReport) for event in found]
    return tuple(reports)


def _counted(runs: list[Run]) -> dict[str, dict[str, int]]:
    counts = Counter((run.kind, str(run.state)) for run in runs)
    kinds: dict[str, dict[str, int]] = {}
    for (kind, state), number in sorted(counts.items()):
        kinds.setdefault(kind, {})[state] = number
    return kinds


def _killed(runs: list[Run]) -> tuple[Run, ...]:
    """Give the killed runs that no later attempt has made good."""
    done = {run.key for run in runs if run.key and run.state is RunState.FINISHED}
    killed = (run for run in runs if run.state is RunState.KILLED and run.kind != "step")
    return tuple(run for run in killed if run.key not in done)
