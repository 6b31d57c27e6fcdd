"""Opening what a replay works with: stores, servers, the bench of its challenges."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

from noria.clock import ReplayClock
from noria.errors import ConfigError
from noria.monitoring.outcomes import OutcomeLog
from noria.replay.declarations import Replay
from noria.replay.records import Stores
from noria.replay.steps import PROVIDERS
from noria.streams.opening import open_stream
from noria.triggers.challenge import Bench
from noria.workspace.endpoints import make_probe
from noria.workspace.features.following import writing_store
from noria.workspace.fitting import make_fitter

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["replaying"]


@contextmanager
def replaying(project: "Project", replay: Replay) -> Iterator[Stores]:
    """Open everything for the block. Raises `ConfigError` if an environment does not go by a replay."""
    for environment in (replay.environment, replay.staging):
        if project.environment(environment).clock != "replay":
            raise ConfigError(
                f"environment {environment!r} goes by the wall clock, and a replay asks at instants of "
                f'its own; set [environments.{environment}] clock = "replay" in noria.toml'
            )
    training = replay.training
    clock = ReplayClock(replay.starts_at)
    project.follow(clock)
    server = project.supervisor(replay.environment)
    staging = project.supervisor(replay.staging)
    with ExitStack() as stack:
        stack.callback(server.stop)
        stack.callback(staging.stop)
        online = stack.enter_context(writing_store(project))
        outcomes = stack.enter_context(
            OutcomeLog(
                project.streams_path() / "outcomes", deployment=f"{replay.environment}/{training.name}"
            )
        )
        bench = Bench(
            ledger=project.ledger,
            registry=project.registry,
            threads=project.settings.compute.threads,
            staging=project.deployment(replay.staging, training.name, supervisor=staging),
            staging_gate=project.gate_of(replay.staging),
            production=project.deployment(replay.environment, training.name, supervisor=server),
            production_gate=project.gate_of(replay.environment),
            probe=make_probe(staging, project.lake, deployment=training.name),
            fitter=make_fitter(project),
        )
        engine = project.engine.with_providers(PROVIDERS)
        stack.callback(engine.close)
        needed = {each.name for each in replay.datasets}
        streams = {}
        for each in replay.streams:
            url = project.settings.stores.stream
            streams[each.name] = stack.enter_context(closing(open_stream(url, each.name, root=project.root)))
        yield Stores(
            root=project.root,
            clock=clock,
            ledger=project.ledger,
            lake=project.lake,
            registry=project.registry,
            online=online,
            outcomes=outcomes,
            bench=bench,
            server=server,
            engine=engine,
            streams=streams,
            references=tuple(
                each
                for name, each in project.declarations.datasets.items()
                if name not in needed and each.source
            ),
        )
