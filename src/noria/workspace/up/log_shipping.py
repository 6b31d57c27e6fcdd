"""Moves what servers log into the lake every few seconds, in a thread: who follows pointers does not wait."""

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from noria.errors import NoriaError

if TYPE_CHECKING:
    from noria.deploy.supervisor import Supervisor
    from noria.workspace.project import Project

__all__ = ["LogShipping"]

_EVERY_S = 10.0
_LOOK_EVERY_S = 0.5

Place = tuple["Supervisor", str]


class LogShipping:
    """Ships the logs of deployments. Threads may share it.

    Parameters
    ----------
    served
        Gives the deployments that answer now: each by its server and its name.
    failed
        Is told of what could not be shipped, or with None that it could; it is tried again.
    """

    def __init__(
        self,
        project: "Project",
        served: Callable[[], Iterable[Place]],
        *,
        failed: Callable[["Supervisor", str, NoriaError | None], None],
    ) -> None:
        self._project, self._served, self._failed = project, served, failed
        self._shipping = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="noria-shipping", daemon=True)
        self._fault: BaseException | None = None

    def start(self) -> None:
        """Begin to ship."""
        self._thread.start()

    def stop(self) -> None:
        """Ship no more, but by `ship`; what is at work is waited for."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def check(self) -> None:
        """Raise what ended the thread, if something did."""
        if self._fault is not None:
            raise self._fault

    def ship(self, supervisor: "Supervisor", deployment: str) -> None:
        """Move everything that is logged so far. Raises as `collect_predictions`."""
        from noria.deploy.collecting import collect_predictions  # which loads Arrow
        from noria.monitoring.outcomes import collect_outcomes

        with self._shipping:
            collect_predictions(supervisor, deployment, self._project.lake)
            collect_outcomes(supervisor, deployment, self._project.lake)

    def _keep(self) -> None:
        try:
            shipped = time.monotonic()
            while not self._stopping.wait(_LOOK_EVERY_S):
                if time.monotonic() - shipped > _EVERY_S:
                    self._ship_all()
                    shipped = time.monotonic()
        except BaseException as err:
            self._fault = err
            raise

    def _ship_all(self) -> None:
        for supervisor, deployment in self._served():
            if self._stopping.is_set():
                return
            error: NoriaError | None = None
            try:
                self.ship(supervisor, deployment)
            except NoriaError as err:
                error = err
            if deployment in supervisor.deployments:  # else it was stopped meanwhile, and shipped then
                self._failed(supervisor, deployment, error)
