"""The project's verbs of tracking, and what they need of it."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noria.workspace.opened import Opened

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from noria.ledger.store import Ledger
    from noria.tracking.active_run import ActiveRun
    from noria.tracking.artifacts import ArtifactStore
    from noria.tracking.beginning import RunStores
    from noria.tracking.places import RunPlace
    from noria.workspace.mlflow.importing import MlflowImport

__all__ = ["TrackingVerbs", "move_left_behind", "run_stores"]

_LOG = logging.getLogger(__name__)


class TrackingVerbs(Opened):
    """Runs of experiments."""

    @cached_property
    def artifacts(self) -> ArtifactStore:
        """The files of runs."""
        return run_stores(self, self.ledger).artifacts

    def start_run(
        self,
        name: str = "",
        *,
        experiment: str = "Default",
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        seed: int | None = None,
        run: str | None = None,
        nested: bool = False,
        system_metrics: bool = True,
        server: str | None = None,
    ) -> ActiveRun:
        """Give a run of an experiment for a `with` block.

        Code with its uncommitted diff, distributions, command line, account, host, duration and CPU are
        recorded without being asked for.

        Parameters
        ----------
        name
            How it is shown; default: two words and a number.
        experiment
            Its name; it is made if it is not there.
        params, tags
            Logged as it begins.
        seed
            Recorded; nothing is seeded.
        run
            The id of a run that has ended, to go on with.
        nested
            Whether it may begin within another run of this context, which is its parent then.
        system_metrics
            Whether to measure process and machine every ten seconds, as metrics `system/...`.
        server
            The URL of a noria that keeps the run. Default: the setting `[tracking] server`; if that is empty,
            this project's own stores.

        Raises
        ------
        NotFound
            If there is no run of that id.
        LeaseHeld
            If that run is at work.
        Conflict
            If another run is at work here and `nested` was not said, the experiment or the run is deleted,
            or a parameter has another value already.

        Examples
        --------
        ::

            with project.start_run("first try", params={"depth": 3}) as run:
                for loss in losses:
                    run.log_metric("loss", loss)
        """
        from noria.tracking.active_run import ActiveRun
        from noria.tracking.beginning import WantedRun

        wanted = WantedRun(
            name=name, experiment=experiment, params=params or {}, tags=tags or {}, seed=seed, run=run
        )
        return ActiveRun(self.run_place(server), wanted, nested=nested, system_metrics=system_metrics)

    def run_place(self, server: str | None) -> AbstractContextManager[RunStores | RunPlace]:
        """Give where a run is kept that begins here: a server, or this project."""
        tracking = self.settings.tracking
        url = tracking.server if server is None else server
        if not url:
            return nullcontext(run_stores(self, self.ledger))
        from noria.workspace.remote_runs import remote_place

        return remote_place(url, tracking, folder=self.root)

    def import_mlflow(
        self,
        source: str,
        *,
        artifacts: str | os.PathLike[str] | None = None,
        dry_run: bool = False,
        tell: Callable[[MlflowImport], None] | None = None,
    ) -> MlflowImport:
        """Take in experiments, runs and models of an MLflow store, with all that belongs to them.

        Runs keep their ids, versions of models their numbers. What is here already is not taken again: an
        import that was cut off goes on, and a second one adds what is new and changes nothing else. The store
        is only read.

        Parameters
        ----------
        source
            `sqlite:///PATH/mlflow.db`, `postgresql://...`, or `http://...` of a running server.
        artifacts
            The folder that holds the files of runs, where a database does not say so or they were moved.
        dry_run
            Only tell.
        tell
            Called now and then with what was taken so far.

        Raises
        ------
        ConfigError
            If the source is none that can be read.
        SourceError
            If it is no MLflow store, or one with the tables of an older MLflow.
        StoreError
            If it cannot be reached.
        """
        from noria.workspace.mlflow.importing import import_mlflow

        folder = None if artifacts is None else Path(artifacts)
        return import_mlflow(
            source,
            ledger=self.ledger,
            storage=self.storage,
            store=self.artifacts,
            artifacts=folder,
            dry_run=dry_run,
            tell=tell,
        )


def run_stores(opened: Opened, ledger: Ledger) -> RunStores:
    """Give what runs need of a project."""
    from noria.tracking.artifacts import ArtifactStore
    from noria.tracking.beginning import RunStores
    from noria.workspace.models.shelf import ProjectShelf

    artifacts = ArtifactStore(ledger.database, opened.storage, opened.state / "artifacts")
    shelf = ProjectShelf(ledger, opened.storage, artifacts)
    return RunStores(ledger, artifacts, opened.state / "tracking", shelf)


def move_left_behind(opened: Opened, ledger: Ledger) -> None:
    """Move into the database what processes have logged that were killed; if it cannot be, it stays there."""
    from noria.errors import StoreError
    from noria.tracking.spools.moving import move_abandoned

    stores = run_stores(opened, ledger)
    try:
        move_abandoned(stores.spools, ledger, stores.artifacts)
    except StoreError as err:
        _LOG.warning("what ended processes have logged waits in %s: %s", stores.spools, err)
