"""The servers of `noria up`: one for each deployment of the environments that go by the wall clock.

A thread follows the pointers and ships what was predicted. Servers go on answering while the database is
away, and stop where another process leads.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from noria.deploy.releases import serve_route
from noria.deploy.shipping import ship_predictions
from noria.errors import DeploymentError, NoriaError
from noria.records import Pointer
from noria.workspace.up.leadership import Leadership
from noria.workspace.up.records import Notice, NoticeKind, Serving

if TYPE_CHECKING:
    from noria.deploy.environments import Deployment
    from noria.deploy.supervisor import Supervisor
    from noria.workspace.project import Project

__all__ = ["Servers"]

_SHIP_EVERY_S = 10.0
_RETRY_S = (1.0, 2.0, 5.0, 10.0)
_GIVEN_UP_S = 40.0  # longer than a supervisor waits for a server to come up


class Servers:
    """Keeps the servers of a project's deployments. Started and stopped by the main thread.

    Parameters
    ----------
    environments
        Those whose deployments are served.
    """

    def __init__(
        self,
        project: "Project",
        environments: Sequence[str],
        *,
        leadership: Leadership,
        look_every_s: float,
        tell: Callable[[Notice], None],
    ) -> None:
        self._project, self._environments, self._leadership = project, environments, leadership
        self._look_every_s, self._tell = look_every_s, tell
        self._served: dict[tuple[str, str], _Served] = {}
        self._seen = 0  # the last move that was read
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._fault: BaseException | None = None

    def state(self) -> tuple[Serving, ...]:
        """List what is served. Any thread may ask."""
        return tuple(each.state() for each in list(self._served.values()))

    def check(self) -> None:
        """Raise what ended the thread, if something did."""
        if self._fault is not None:
            raise self._fault

    def start(self) -> None:
        """Begin to look after the servers."""
        if self._environments:
            self._thread = threading.Thread(target=self._keep, name="noria-servers", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ship what is left, and stop all servers."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _keep(self) -> None:
        try:
            while not self._stopping.wait(self._look_every_s):
                if self._leadership.is_held:
                    self._look()
                elif self._leadership.other is not None:
                    self._stop_all("another process leads")
            self._stop_all("noria up stops")
        except BaseException as err:
            self._fault = err
            raise

    def _look(self) -> None:
        try:
            self._read_moves()
        except NoriaError:  # the main loop tells; servers go on answering meanwhile
            return
        for each in self._served.values():
            if not self._stopping.is_set():
                each.follow()

    def _read_moves(self) -> None:
        """Find out where deployments point to, if any was moved since the last look."""
        ledger = self._project.ledger
        moves = ledger.list_events(verb="pointer.moved", after=self._seen)
        if not moves:
            return
        for environment in self._environments:
            for pointer in ledger.list_pointers(environment=environment):  # oldest first
                place = (environment, pointer.name)
                if place not in self._served:
                    self._served[place] = _Served(self._project, pointer, tell=self._tell)
                self._served[place].wanted = pointer
        self._seen = moves[-1].seq

    def _stop_all(self, why: str) -> None:
        for each in list(self._served.values()):
            each.stop(why)
        self._served.clear()
        self._seen = 0


class _Served:
    """One deployment: its server, and the move that it answers by."""

    def __init__(self, project: "Project", wanted: Pointer, *, tell: Callable[[Notice], None]) -> None:
        self._project, self.wanted, self._tell = project, wanted, tell
        self._environment, self._name = wanted.environment, wanted.name
        self._place: Deployment = project.deployment(wanted.environment, wanted.name)
        self._supervisor: Supervisor = project.supervisor(wanted.environment, wanted.name)
        self._answers_by: int | None = None  # the number of the move
        self._up_at = 0.0
        self._error: str | None = None
        self._failures = 0
        self._not_before = 0.0
        self._shipped = time.monotonic()

    def state(self) -> Serving:
        """Tell where it stands."""
        is_up = self._supervisor.is_running
        return Serving(
            environment=self._environment,
            deployment=self._name,
            address=str(self._supervisor.address) if is_up else None,
            route=self._answers_by if is_up else None,
            error=self._error,
        )

    def follow(self) -> None:
        """Answer by the route that is wanted, and ship what was predicted."""
        if time.monotonic() < self._not_before:
            return
        try:
            if self._answers_by is not None and not self._supervisor.is_running:
                self._wait_for_restart()
                return
            self._up_at = time.monotonic()
            if self._answers_by != self.wanted.number:
                self._answer()
            if time.monotonic() - self._shipped > _SHIP_EVERY_S:
                self._ship()
        except NoriaError as err:
            self._fail(err)
        else:
            self._error, self._failures = None, 0

    def stop(self, why: str) -> None:
        """Ship what is left and stop the server."""
        try:
            if self._supervisor.is_running:
                self._ship()
                self._say(f"{self._subject} stopped: {why}")
        except NoriaError as err:
            self._say(f"{self._subject} stopped: {why}; its log is shipped the next time: {err}")
        finally:
            self._supervisor.stop()

    @property
    def _subject(self) -> str:
        return f"{self._environment}/{self._name}"

    def _answer(self) -> None:
        ledger, wanted = self._project.ledger, self.wanted
        version = ledger.get_version_by_id(wanted.version)
        route = serve_route(ledger, version, fetch=self._place.fetch, samples=self._place.samples)
        address = self._supervisor.start(route)
        self._answers_by = wanted.number
        models = ", ".join(f"{each.model}:{each.version}" for each in route.models)
        self._say(f"{self._subject} answers at {address} with {models}: {wanted.reason}")

    def _wait_for_restart(self) -> None:
        """Leave a server that ended to its supervisor, until that must have given it up."""
        if time.monotonic() - self._up_at > _GIVEN_UP_S:
            self._supervisor.stop()
            self._answers_by = None
            raise DeploymentError(f"its server keeps ending; its log says:\n{self._supervisor.log_tail()}")

    def _ship(self) -> None:
        self._shipped = time.monotonic()
        ship_predictions(
            self._supervisor.spool,
            self._project.lake,
            app_id=f"predictions/{self._subject}",
            rotate=self._supervisor.rotate,
        )

    def _fail(self, err: NoriaError) -> None:
        if str(err) != self._error:
            self._say(f"{self._subject}: {err}", kind=NoticeKind.WARNING)
        self._error = str(err)
        self._not_before = time.monotonic() + _RETRY_S[min(self._failures, len(_RETRY_S) - 1)]
        self._failures += 1

    def _say(self, message: str, *, kind: NoticeKind = NoticeKind.SERVING) -> None:
        facts = {"environment": self._environment, "deployment": self._name}
        self._tell(Notice(at=self._project.clock.now(), kind=kind, message=message, facts=facts))
