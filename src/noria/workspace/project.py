"""A project: its settings, its declarations, its stores (opened when first needed), and its verbs."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from noria.clock import Clock, ReplayClock, WallClock, parse_instant
from noria.config import EnvironmentSettings, find_project, read_settings
from noria.errors import ConfigError, NotFound
from noria.records import VersionRef

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa

    from noria.audit.trace import Trace
    from noria.audit.why import Chain
    from noria.deploy.environments import Deployment, Move
    from noria.deploy.supervisor import Supervisor
    from noria.lake.store import Lake
    from noria.ledger.store import Ledger
    from noria.records import Version
    from noria.registry.store import Registry
    from noria.replay.declarations import Replay
    from noria.replay.records import DayDone, Stores
    from noria.replay.report import Report
    from noria.storage.contract import Storage
    from noria.workspace.scanning import Declarations

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


class _ProjectClock:
    """The wall, until a replay takes over."""

    def __init__(self) -> None:
        self.inner: Clock = WallClock()

    def now(self) -> datetime:
        return self.inner.now()


class Project:
    """A folder with a `noria.toml`. Stores are opened when first needed and closed with the project.

    Examples
    --------
    ::

        with noria.open("flights") as project:
            late = project.query("select avg(late) from landings")
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings = read_settings(root)
        self._opened = ExitStack()
        self._clock = _ProjectClock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened."""
        self._opened.close()

    @property
    def name(self) -> str:
        """The project's name."""
        return self.settings.project.name

    @property
    def state(self) -> Path:
        """The folder `.noria`, where the embedded stores live."""
        return self.root / ".noria"

    @property
    def has_begun(self) -> bool:
        """Whether anything was ever recorded here."""
        url = self.settings.stores.database
        return not url.startswith("sqlite:///") or self._below(url.removeprefix("sqlite:///")).exists()

    @cached_property
    def declarations(self) -> Declarations:
        """What the project's modules declare. Raises `ConfigError` if one cannot be loaded."""
        from noria.workspace.scanning import scan

        return scan(self.root, self.settings.project.modules)

    # -- stores

    @property
    def clock(self) -> Clock:
        """The project's clock: where a replay stands, else the wall."""
        return self._clock

    @cached_property
    def ledger(self) -> Ledger:
        """The record of everything."""
        from noria.database.store import Database
        from noria.ledger.store import Ledger

        url = self.settings.stores.database
        if url.startswith("sqlite:///"):
            path = self._below(url.removeprefix("sqlite:///"))
            path.parent.mkdir(parents=True, exist_ok=True)
            url = f"sqlite:///{path}"
        database = Database.open(url)
        self._opened.callback(database.close)
        return Ledger(database, storage=self.storage, clock=self.clock, code_root=self.root)

    @cached_property
    def storage(self) -> Storage:
        """Bytes by digest."""
        from noria.storage.opening import open_storage

        url = self.settings.stores.storage
        return open_storage(url if "://" in url else str(self._below(url)))

    @cached_property
    def lake(self) -> Lake:
        """The tables."""
        from noria.lake.store import Lake

        url = self.settings.stores.storage
        place = f"{url.rstrip('/')}/tables" if "://" in url else str(self._below(url) / "tables")
        lake = Lake(place, ledger=self.ledger, clock=self.clock)
        self._opened.callback(lake.close)
        return lake

    @cached_property
    def registry(self) -> Registry:
        """The model versions."""
        from noria.registry.store import Registry

        return Registry(self.ledger, self.storage)

    # -- environments

    def environment(self, name: str) -> EnvironmentSettings:
        """Give an environment's settings. Raises `NotFound`, which says what exists."""
        if name not in self.settings.environments:
            raise NotFound("environment", name, self.settings.environments)
        return self.settings.environments[name]

    def supervisor(self, environment: str, deployment: str, *, port: int | None = None) -> Supervisor:
        """Give the keeper of a deployment's worker; nothing is started."""
        from noria.workspace.endpoints import make_supervisor

        folder = self.state / "deployments" / environment / deployment
        made = make_supervisor(
            folder,
            self.environment(environment),
            environment=environment,
            deployment=deployment,
            online=self._online_path(),
            port=port,
        )
        self._opened.callback(made.stop)
        return made

    def deployment(self, environment: str, name: str, *, supervisor: Supervisor | None = None) -> Deployment:
        """Give a deployment; with a supervisor its moves are served, without they are recorded only."""
        from noria.workspace.endpoints import make_deployment

        self.environment(environment)
        return make_deployment(
            self.ledger,
            self.registry,
            self.storage,
            environment=environment,
            name=name,
            supervisor=supervisor,
        )

    def model(self, reference: str) -> Version:
        """Give the model version that `NAME`, `NAME:3` or `NAME@production` names.

        Raises
        ------
        NotFound
            If there is none; says what exists.
        """
        from noria.deploy.releases import find_standing

        try:
            wanted = VersionRef.parse(reference)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if wanted.environment is None:
            return self.registry.get(reference)
        self.environment(wanted.environment)
        self.ledger.get_version("model", wanted.name)
        standing = find_standing(self.ledger, environment=wanted.environment, deployment=wanted.name)
        if standing is None:
            raise NotFound("deployment", reference)
        return standing.model

    # -- verbs

    def query(self, sql: str) -> pa.Table:
        """Answer one SELECT over every table: datasets, features, predictions, outcomes, the ledger's own.

        Raises
        ------
        NotFound
            If a table is unknown; says what exists.
        ConfigError
            If the SQL is wrong, or does something other than read.
        """
        from noria.warehouse.query import query
        from noria.workspace.tables import ledger_tables

        tables: dict[str, Callable[[], Any]] = {name: _reader(self.lake, name) for name in self.lake.names()}
        return query(sql, tables | ledger_tables(self.ledger))

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

        declared = self.find_replay(name)
        last = parse_instant(until) if isinstance(until, str) else until
        with self._held(f"replay:{declared.name}") as renew, self._replaying(declared) as stores:
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

    @contextmanager
    def _replaying(self, replay: Replay) -> Iterator[Stores]:
        from noria.features.online import open_online_store
        from noria.monitoring.outcomes import OutcomeLog
        from noria.replay.records import Stores
        from noria.triggers.challenge import Bench
        from noria.workspace.endpoints import make_probe

        for environment in (replay.environment, replay.staging):
            if self.environment(environment).clock != "replay":
                raise ConfigError(
                    f"environment {environment!r} goes by the wall clock, and a replay asks at instants of "
                    f'its own; set [environments.{environment}] clock = "replay" in noria.toml'
                )
        training = replay.training
        clock = ReplayClock(replay.starts_at)
        self._clock.inner = clock
        server = self.supervisor(replay.environment, training.name)
        staging = self.supervisor(replay.staging, training.name)
        with ExitStack() as stack:
            stack.callback(server.stop)
            stack.callback(staging.stop)
            online = open_online_store(self.settings.stores.online, root=self.root)
            stack.callback(online.close)
            outcomes = stack.enter_context(
                OutcomeLog(
                    self._streams_path() / "outcomes", deployment=f"{replay.environment}/{training.name}"
                )
            )
            bench = Bench(
                ledger=self.ledger,
                registry=self.registry,
                threads=self.settings.compute.threads,
                staging=self.deployment(replay.staging, training.name, supervisor=staging),
                staging_gate=self._gate(replay.staging),
                production=self.deployment(replay.environment, training.name, supervisor=server),
                production_gate=self._gate(replay.environment),
                probe=make_probe(staging, self.lake, app_id=f"predictions/{replay.staging}/{training.name}"),
            )
            needed = {each.name for each in replay.datasets}
            yield Stores(
                root=self.root,
                clock=clock,
                ledger=self.ledger,
                lake=self.lake,
                registry=self.registry,
                online=online,
                outcomes=outcomes,
                bench=bench,
                server=server,
                references=tuple(
                    each
                    for name, each in self.declarations.datasets.items()
                    if name not in needed and each.source
                ),
            )

    def _gate(self, environment: str) -> Any:
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

    def _below(self, path: str) -> Path:
        return self.root / path

    def _online_path(self) -> Path:
        _, _, where = self.settings.stores.online.partition(":")
        return self._below(where)

    def _streams_path(self) -> Path:
        _, _, where = self.settings.stores.stream.partition(":")
        return self._below(where)


def _reader(lake: Lake, name: str) -> Callable[[], Any]:
    return lambda: lake.reader(name)
