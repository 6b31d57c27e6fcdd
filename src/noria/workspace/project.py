"""A project: its settings, its declarations, its stores (opened when first needed), and its verbs."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noria.clock import parse_duration, parse_instant
from noria.config import EnvironmentSettings, find_project
from noria.errors import ConfigError, NotFound
from noria.records import VersionRef
from noria.workspace.contracts import Contracts
from noria.workspace.data_verbs import DataVerbs
from noria.workspace.models.verbs import ModelVerbs
from noria.workspace.moving.verbs import MovingVerbs
from noria.workspace.outcome_verbs import OutcomeVerbs
from noria.workspace.predicting.verbs import PredictVerbs
from noria.workspace.querying import Questions
from noria.workspace.stream_verbs import StreamVerbs
from noria.workspace.table_verbs import TableVerbs
from noria.workspace.trials.verbs import TrialVerbs

if TYPE_CHECKING:
    from noria.audit.trace import Trace
    from noria.audit.why import Chain
    from noria.deploy.declarations import Gate
    from noria.deploy.environments import Deployment, Move
    from noria.deploy.supervisor import Supervisor
    from noria.pipelines.declarations import Pipeline, Step
    from noria.pipelines.engine import Engine
    from noria.pipelines.pruning import Pruned
    from noria.pipelines.records import PipelineResult, Plan, Progress
    from noria.records import Version
    from noria.replay.declarations import Replay
    from noria.replay.records import DayDone
    from noria.replay.report import Report
    from noria.warehouse.records import ColumnLineage, ModelResult, TransformPlan, TransformResult
    from noria.warehouse.showing import TableShown
    from noria.workspace.models.models import Models
    from noria.workspace.runs.runs import Runs

__all__ = ["Project", "open"]

_LEASE_S = 900.0  # longer than any day of a replay takes; a dead holder's lease is free at once


def open(path: str | os.PathLike[str] | None = None) -> Project:
    """Open the project in `path`, or in the nearest folder above it that holds a `noria.toml`.

    Parameters
    ----------
    path
        Default: the environment's `NORIA_PROJECT`, else the current folder.

    Raises
    ------
    ProjectNotFound
        If there is none.
    ConfigError
        If `noria.toml` is wrong; names line and key.
    """
    return Project(find_project(None if path is None else Path(path)))


class Project(
    DataVerbs,
    Contracts,
    Questions,
    StreamVerbs,
    TableVerbs,
    MovingVerbs,
    ModelVerbs,
    TrialVerbs,
    OutcomeVerbs,
    PredictVerbs,
):
    """A folder with a `noria.toml`. Stores are opened when first needed and closed with the project.

    Examples
    --------
    ::

        with noria.open("flights") as project:
            late = project.query("select avg(late) from landings")
    """

    # -- environments

    def environment(self, name: str) -> EnvironmentSettings:
        """Give an environment's settings. Raises `NotFound`, which says what exists."""
        if name not in self.settings.environments:
            raise NotFound("environment", name, self.settings.environments)
        return self.settings.environments[name]

    def supervisor(self, environment: str, *, port: int | None = None) -> Supervisor:
        """Give the keeper of an environment's server; nothing is started."""
        from noria.features.reading import located
        from noria.workspace.endpoints import make_supervisor

        made = make_supervisor(
            self.state / "deployments" / environment,
            self.environment(environment),
            root=self.root,
            environment=environment,
            online=located(self.settings.stores.online, root=self.root),
            port=port,
        )
        self._opened.callback(made.stop)
        return made

    def deployment(
        self, environment: str, name: str, *, supervisor: Supervisor | None = None, gated: bool = True
    ) -> Deployment:
        """Give a deployment; with a supervisor its moves are served, without they are recorded only."""
        from noria.registry.folders.trust import PickleTrust
        from noria.workspace.endpoints import make_deployment

        self.environment(environment)
        return make_deployment(
            self.ledger,
            self.registry,
            self.storage,
            environment=environment,
            name=name,
            supervisor=supervisor,
            gated=gated,
            trust=PickleTrust.of(self.settings.registry.trust_pickle),
            artifact=self.artifact_file,
        )

    def artifact_file(self, sha256: str) -> Path:
        """Give a local file of the project's artifacts by its digest, verified."""
        from noria.tracking.artifacts import Artifact

        never = datetime.fromtimestamp(0, UTC)  # it is found by its digest alone
        return self.artifacts.fetch(Artifact(path=sha256, sha256=sha256, size_bytes=0, put_at=never))

    def model(self, reference: str) -> Version:
        """Give the model version that `NAME`, `NAME:3`, `NAME@production` or `models:/...` names.

        Raises
        ------
        NotFound
            If there is none; says what exists.
        """
        from noria.workspace.models.names import find_version

        return find_version(self, reference)

    @cached_property
    def engine(self) -> Engine:
        """What runs and plans pipelines."""
        from noria.workspace.steps import open_engine

        engine = open_engine(self)
        self._opened.callback(engine.close)
        return engine

    @property
    def runs(self) -> Runs:
        """What ran: find, follow, cancel, retry, reproduce."""
        from noria.workspace.runs.runs import Runs

        return Runs(self)

    @property
    def models(self) -> Models:
        """What a team does with versions of models: cards, history, restore, compare, labels, explain."""
        from noria.workspace.models.models import Models

        return Models(self)

    # -- verbs

    def run_pipeline(
        self,
        target: str | Pipeline[Any, Any] | Step[Any, Any],
        params: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        cause: str | None = None,
        force: Collection[str] = (),
        executor: str | None = None,
        tell: Callable[[Progress], None] | None = None,
    ) -> PipelineResult:
        """Run what is stale of a pipeline, and give what it returned.

        Parameters
        ----------
        target
            A pipeline or a step, by name or itself; `PIPELINE/STEP`: what this step needs, and the step.
        params
            Of the pipeline's function; texts are read as its annotations say.
        key
            Names this very run: called again with it, a run that has finished is given as it is.
        cause
            The event that started it.
        force
            Steps that run, with all that depend on them, whatever is kept.
        executor
            Where steps run that do not say otherwise: `inline`, `processes`, `ray`, `ray://HOST:PORT`.
        tell
            Called now and then with how far it is.

        Raises
        ------
        NotFound
            If there is no such pipeline or step; says what exists.
        ConfigError
            If it cannot run: an argument is missing or wrong, steps go in a circle, there is not enough room.
        StepFailed
            If a step failed for good; whatever did not need it has run.
        RunCancelled
            If somebody cancelled it.
        """
        from noria.workspace.steps import drawn, working_on

        with working_on(self):
            graph = drawn(self, target, params or {})
            return self.engine.run(graph, key=key, cause=cause, force=force, executor=executor, tell=tell)

    def plan_pipeline(
        self,
        target: str | Pipeline[Any, Any] | Step[Any, Any],
        params: Mapping[str, Any] | None = None,
        *,
        force: Collection[str] = (),
    ) -> Plan:
        """Tell what `run_pipeline` would run, and why; nothing is run. Raises like it."""
        from noria.workspace.steps import drawn, working_on

        with working_on(self):
            return self.engine.plan(drawn(self, target, params or {}), force=force)

    def prune_results(self, *, older_than: str | timedelta = "30d", dry_run: bool = False) -> Pruned:
        """Forget kept results of steps that no run since then has made or used; a later run makes them again.

        Runs, versions, lineage and logs stay on record, and so do blobs in the storage.

        Parameters
        ----------
        older_than
            How long ago, such as `30d`.
        dry_run
            Only tell.

        Raises
        ------
        ConfigError
            If `older_than` is no duration.
        Conflict
            If a pipeline is at work.
        """
        from noria.pipelines.pruning import prune

        try:
            age = parse_duration(older_than) if isinstance(older_than, str) else older_than
        except ValueError as error:
            raise ConfigError(f"older_than: {error}") from error
        if age < timedelta(0):
            raise ConfigError(f"older_than is {age}; give how long ago, such as 30d")
        before = datetime.now(UTC) - age  # runs end by the wall clock
        return prune(self.ledger, self.storage, before=before, dry_run=dry_run)

    def transform(
        self,
        *models: str,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        full: bool = False,
        ignore_blocked: bool = False,
        cause: str | None = None,
        tell: Callable[[ModelResult], None] | None = None,
    ) -> TransformResult:
        """Build what is stale of the warehouse's models, in order; what fails holds up what reads it.

        Parameters
        ----------
        models
            These and all that they need; default: all.
        since, until
            A day or an instant: of incremental models only partitions from `since` to before `until` are
            built, stale or not.
        full
            Build the models named, or all, as a whole, stale or not.
        ignore_blocked
            Go on where the newest batch of a dataset is blocked.
        cause
            The event that started it.
        tell
            Called with what became of each model.

        Raises
        ------
        NotFound
            If there is no such model; says what exists.
        ConfigError
            If there is no model at all, or a bound of time cannot be read.
        LeaseHeld
            If another process transforms right now.
        """
        from noria.warehouse.partitions import parse_span
        from noria.workspace.transforming import open_warehouse

        return open_warehouse(self).transform(
            models,
            span=parse_span(since, until),
            full=full,
            ignore_blocked=ignore_blocked,
            cause=cause,
            actor=f"person:{getpass.getuser()}",
            tell=tell,
        )

    def plan_transform(
        self,
        *models: str,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        full: bool = False,
        ignore_blocked: bool = False,
    ) -> TransformPlan:
        """Tell what `transform` would build, and why; nothing is built. Raises like it."""
        from noria.warehouse.partitions import parse_span
        from noria.workspace.transforming import open_warehouse

        span = parse_span(since, until)
        return open_warehouse(self).plan(models, span=span, full=full, ignore_blocked=ignore_blocked)

    def column_lineage(self, model: str, column: str) -> ColumnLineage:
        """Tell where a column of a model comes from. Raises `NotFound`, which says what exists."""
        from noria.warehouse.showing import column_lineage
        from noria.workspace.transforming import open_warehouse, tables_url

        return column_lineage(open_warehouse(self), model, column, url=tables_url(self))

    def show_table(self, name: str) -> TableShown:
        """Show a model or any other table: columns and their sources, tests, last build, whether it is stale.

        Raises
        ------
        NotFound
            If there is no such table; says what exists.
        """
        from noria.warehouse.showing import show_table
        from noria.workspace.transforming import open_warehouse, tables_url

        return show_table(open_warehouse(self), self.ledger, name, url=tables_url(self))

    def trace(self, prediction_id: str, *, deployment: str | None = None) -> Trace:
        """Trace a prediction down to its raw rows and up to its money."""
        from noria.audit.trace import trace

        return trace(
            prediction_id,
            ledger=self.ledger,
            lake=self.lake,
            registry=self.registry,
            trainings=self.declarations.trainings,
            environment=deployment,
        )

    def why(self, reference: str) -> Chain:
        """Tell what put a model where it is: `NAME@ENVIRONMENT`."""
        from noria.audit.why import why

        environment, name = self.place(reference)
        return why(self.ledger, environment=environment, deployment=name)

    def rollback(self, reference: str, *, reason: str = "") -> Move:
        """Roll a deployment back to its last stable route: `NAME@ENVIRONMENT`."""
        from noria.deploy.environments import rollback
        from noria.records import new_id

        environment, name = self.place(reference)
        at = self.now(environment)
        event = self.ledger.append(
            "person.asked",
            actor=f"person:{getpass.getuser()}",
            subject=reference,
            payload={"verb": "rollback", "reason": reason or "asked for"},
            at=at,
        )
        place = self.deployment(environment, name)
        return rollback(place, key=f"person:{new_id()}", reason=reason, cause=event.id, at=at)

    def place(self, reference: str) -> tuple[str, str]:
        """Give the environment and the deployment that `NAME@ENVIRONMENT` names.

        Raises
        ------
        ConfigError
            If it names no environment.
        NotFound
            If there is no such environment; says what exists.
        """
        try:
            wanted = VersionRef.parse(reference)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if wanted.environment is None:
            raise ConfigError(f"{reference!r} names no environment; write NAME@ENVIRONMENT")
        self.environment(wanted.environment)
        return wanted.environment, wanted.name

    def now(self, environment: str) -> datetime:
        """Give an environment's instant: where its replay stands, if its clock is one, else the wall's."""
        done = None
        if self.environment(environment).clock == "replay":
            done = self.ledger.list_events(verb="replay.day_done", newest_first=True, limit=1)
        return done[0].at if done else self.clock.now()

    # -- replay

    def replay(
        self,
        name: str | None = None,
        *,
        until: datetime | str | None = None,
        tell: Callable[[DayDone], None] | None = None,
    ) -> Report:
        """Live through a replay, from where it stands to its end, and report on all of it.

        Parameters
        ----------
        name
            Which, where the project declares several.
        until
            Stop before this day.
        tell
            Called after each day.

        Raises
        ------
        LeaseHeld
            If another process replays it right now.
        """
        from noria.replay.loop import ReplayLoop
        from noria.workspace.replaying import replaying

        declared = self.find_replay(name)
        last = parse_instant(until) if isinstance(until, str) else until
        with self._held(f"replay:{declared.name}") as renew, replaying(self, declared) as stores:
            for day in ReplayLoop(declared, stores, until=last).run():
                renew()
                if tell is not None:
                    tell(day)
            return self.report(declared.name)

    def report(self, name: str | None = None) -> Report:
        """Report on a replay as far as it went; every figure is computed from the record."""
        from noria.replay.report import report

        return report(self.find_replay(name), ledger=self.ledger, lake=self.lake, registry=self.registry)

    def find_replay(self, name: str | None = None) -> Replay:
        """Give a declared replay: the one of that name, or the only one."""
        found = self.declarations.replays
        if name is not None:
            if name not in found:
                raise NotFound("replay", name, found)
            return found[name]
        if len(found) != 1:
            raise ConfigError(
                f"the project declares {len(found)} replays ({', '.join(found) or 'none'}); "
                + ("name one" if found else "add `noria.Replay(...)` to one of its modules")
            )
        return next(iter(found.values()))

    def gate_of(self, environment: str) -> Gate:
        """Give the gate of an environment. Raises `ConfigError` if it has none."""
        name = self.environment(environment).gate
        if name is None:
            raise ConfigError(
                f"environment {environment!r} has no gate; name one in noria.toml: "
                f'[environments.{environment}] gate = "..."'
            )
        return self.declarations.gate(name)

    @contextmanager
    def _held(self, name: str) -> Iterator[Callable[[], None]]:
        """Hold a lease for the block; gives what renews it."""
        lease = self.ledger.acquire_lease(name, ttl_s=_LEASE_S)

        def renew() -> None:
            nonlocal lease
            lease = self.ledger.renew_lease(lease, ttl_s=_LEASE_S)

        try:
            yield renew
        finally:
            self.ledger.release_lease(lease)
