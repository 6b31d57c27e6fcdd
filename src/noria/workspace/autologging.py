"""`noria.autolog`: what is trained becomes runs of the current folder's project by itself."""

from __future__ import annotations

import atexit
import os
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from noria.tracking.active_run import ActiveRun
    from noria.tracking.beginning import RunStores
    from noria.tracking.places import RunPlace
    from noria.workspace.project import Project

__all__ = ["autolog"]

_KEPT_S = 60.0
_PATIENCE_S = 5.0  # of a training that has ended, with a database that is away
_STARTERS: list[_Starter] = []  # at most one


def autolog(
    on: bool = True,
    *,
    frameworks: Iterable[str] | None = None,
    log_models: bool = True,
    log_every: int = 1,
    candidates: int = 5,
    experiment: str = "Default",
    project: Project | str | os.PathLike[str] | None = None,
    server: str | None = None,
) -> None:
    """Log what scikit-learn, LightGBM, XGBoost, Keras and PyTorch Lightning train, without another line.

    A fit within a run (`noria.start_run`) is logged into it, others become a run each. Nothing is imported
    by this: a framework is followed if it is there, or once it is imported. Trainings give and raise what
    they would without it; what goes wrong in logging is a warning, once.

    Parameters
    ----------
    on
        False: nothing is logged from now on, and frameworks are as they were.
    frameworks
        Some of "keras", "lightgbm", "lightning", "sklearn", "xgboost"; default: all.
    log_models
        Whether models are kept.
    log_every
        Of iterations and epochs, every such one is logged, and the last.
    candidates
        Of a search for hyperparameters, the best so many become runs within its own.
    experiment
        Of runs that begin by themselves.
    project
        Of those, or its folder; default: that of the current folder at the time.
    server
        The URL of a noria that keeps those; default: as of `noria.start_run`.

    Raises
    ------
    ConfigError
        If there is no such framework, or `log_every` is less than 1, or `candidates` less than 0.

    Examples
    --------
    ::

        noria.autolog()
        LogisticRegression().fit(rows, late)
    """
    from noria.training.autologging.checking import checked_options
    from noria.training.autologging.switch import turn_off, turn_on

    if not on:
        turn_off()
        _close()
        return
    starter = _Starter(experiment, project, server)
    options = checked_options(
        starter.start, frameworks, log_models=log_models, log_every=log_every, candidates=candidates
    )
    turn_on(options)
    _close()
    _STARTERS.append(starter)


@atexit.register
def _close() -> None:
    while _STARTERS:
        _STARTERS.pop().close()


class _Kept:
    """A project that is open for the runs of fits."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.pid = os.getpid()
        self.opened_at = time.monotonic()
        self.users = 0
        self.is_left = False  # nobody else begins with it


class _Starter:
    """Starts runs of fits, in a project that stays open for a while: code is looked at as it is opened."""

    def __init__(
        self, experiment: str, project: Project | str | os.PathLike[str] | None, server: str | None
    ) -> None:
        self._experiment, self._project, self._server = experiment, project, server
        self._turn = threading.Lock()
        self._kept: _Kept | None = None

    def start(self, name: str) -> ActiveRun:
        """Give a run for a `with` block."""
        from noria.tracking.active_run import ActiveRun
        from noria.tracking.beginning import WantedRun
        from noria.workspace.folder_verbs import start_run
        from noria.workspace.project import Project
        from noria.workspace.remote_runs import tracking_here

        given = self._project
        if not isinstance(given, Project):
            tracking, _ = tracking_here(None if given is None else Path(given))
            if tracking.server if self._server is None else self._server:
                return start_run(name, experiment=self._experiment, project=given, server=self._server)
        wanted = WantedRun(name=name, experiment=self._experiment)
        return ActiveRun(self._lent(), wanted, patience_s=_PATIENCE_S)

    def close(self) -> None:
        """Close the project, once nobody uses it."""
        with self._turn:
            self._leave()

    @contextmanager
    def _lent(self) -> Iterator[RunStores | RunPlace]:
        kept = self._take()
        try:
            server = self._server if kept.project is self._project else ""
            with kept.project.run_place(server) as place:
                yield place
        finally:
            with self._turn:
                kept.users -= 1
                if kept.is_left and not kept.users:
                    self._shut(kept)

    def _take(self) -> _Kept:
        from noria.config import find_project
        from noria.workspace.project import Project

        given = self._project
        with self._turn:
            root = (
                given.root
                if isinstance(given, Project)
                else find_project(None if given is None else Path(given))
            )
            kept = self._kept
            if kept is None or kept.project.root != root or not _is_fresh(kept):
                self._leave()
                kept = self._kept = _Kept(given if isinstance(given, Project) else Project(root))
            kept.users += 1
            return kept

    def _leave(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.is_left = True
            if not kept.users:
                self._shut(kept)

    def _shut(self, kept: _Kept) -> None:
        if kept.pid == os.getpid() and kept.project is not self._project:  # one that was given is its owner's
            kept.project.close()


def _is_fresh(kept: _Kept) -> bool:
    return kept.pid == os.getpid() and time.monotonic() - kept.opened_at < _KEPT_S
