"""The servers of `noria up`: one for each environment that goes by the wall clock, with its deployments.

A thread follows the pointers and ships what was predicted. Servers go on answering while the database is
away, and stop where another process leads.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from noria.errors import DeploymentError, NoriaError
from noria.records import Pointer
from noria.workspace.up.leadership import Leadership
from noria.workspace.up.log_shipping import LogShipping
from noria.workspace.up.records import Notice, NoticeKind, Serving

if TYPE_CHECKING:
    from noria.deploy.environments import Deployment
    from noria.deploy.supervisor import Supervisor
    from noria.serving.counts import RouteCounts
    from noria.workspace.project import Project

__all__ = ["Servers"]

_LOOK_WITHIN_S = 0.5  # whatever `look_every_s` says: a move is followed within a second
_RETRY_S = (1.0, 2.0, 5.0, 10.0)


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
        self._look_every_s, self._tell = min(look_every_s, _LOOK_WITHIN_S), tell
        self._shipping = LogShipping(project, self._answering, failed=self._note_shipping)
        self._supervisors: dict[str, Supervisor] = {}
        self._served: dict[tuple[str, str], _Served] = {}
        self._seen = 0  # the last move that was read
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._fault: BaseException | None = None

    def state(self) -> tuple[Serving, ...]:
        """List what is served. Any thread may ask."""
        return tuple(each.state() for each in list(self._served.values()))

    def places(self) -> list[tuple[str, str]]:
        """List environment and name of what is served. Any thread may ask."""
        return list(self._served)

    def counts(self, environment: str, deployment: str) -> "RouteCounts | None":
        """Give what the releases of a deployment did; None where it is not served now. Any thread may ask."""
        served = self._served.get((environment, deployment))
        return None if served is None else served.counts()

    def check(self) -> None:
        """Raise what ended the thread, if something did."""
        if self._fault is not None:
            raise self._fault
        self._shipping.check()

    def start(self) -> None:
        """Begin to look after the servers."""
        if self._environments:
            self._thread = threading.Thread(target=self._keep, name="noria-servers", daemon=True)
            self._thread.start()
            self._shipping.start()

    def stop(self) -> None:
        """Ship what is left, and stop all servers."""
        self._stopping.set()
        self._shipping.stop()
        if self._thread is not None:
            self._thread.join()

    def _answering(self) -> list[tuple["Supervisor", str]]:
        return [(each.supervisor, each.name) for each in list(self._served.values()) if each.is_up]

    def _note_shipping(self, supervisor: "Supervisor", deployment: str, error: NoriaError | None) -> None:
        served = self._served.get((supervisor.environment, deployment))
        if served is not None:
            served.note_shipping(error)

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
                    if environment not in self._supervisors:
                        self._supervisors[environment] = self._project.supervisor(environment)
                    supervisor = self._supervisors[environment]
                    self._served[place] = _Served(
                        self._project, supervisor, pointer, ship=self._shipping.ship, tell=self._tell
                    )
                self._served[place].wanted = pointer
        self._seen = moves[-1].seq

    def _stop_all(self, why: str) -> None:
        for each in list(self._served.values()):
            each.stop(why)
        for supervisor in self._supervisors.values():
            supervisor.stop()
        self._served.clear()
        self._supervisors.clear()
        self._seen = 0


class _Served:
    """One deployment: its environment's server, and the move that it answers by."""

    def __init__(
        self,
        project: "Project",
        supervisor: "Supervisor",
        wanted: Pointer,
        *,
        ship: Callable[["Supervisor", str], None],
        tell: Callable[[Notice], None],
    ) -> None:
        self._project, self.wanted, self._ship, self._tell = project, wanted, ship, tell
        self._environment, self.name = wanted.environment, wanted.name
        self._place: Deployment = project.deployment(wanted.environment, wanted.name)
        self.supervisor = supervisor
        self._answers_by: int | None = None  # the number of the move
        self._error: str | None = None
        self._failures = 0
        self._not_before = 0.0
        self._unshipped: str | None = None  # why the log was not shipped

    def state(self) -> Serving:
        """Tell where it stands."""
        is_up = self.is_up
        return Serving(
            environment=self._environment,
            deployment=self.name,
            address=str(self.supervisor.address) if is_up else None,
            route=self._answers_by if is_up else None,
            error=self._error,
        )

    def counts(self) -> "RouteCounts | None":
        """Give what the workers counted; None where they do not run."""
        try:
            return self.supervisor.counts(self.name) if self.is_up else None
        except DeploymentError:  # it is stopped, or given up, just now
            return None

    def follow(self) -> None:
        """Answer by the route that is wanted."""
        if time.monotonic() < self._not_before:
            return
        try:
            if self._answers_by is not None and not self.is_up:
                self._answers_by = None  # the server was given up; it is started anew
                self.supervisor.check()
            if self._answers_by != self.wanted.number:
                self._answer()
        except NoriaError as err:
            self._fail(err)
        else:
            self._error, self._failures = None, 0

    def stop(self, why: str) -> None:
        """Ship what is left; the server is stopped then."""
        try:
            if self.is_up:
                self._ship(self.supervisor, self.name)
                self._say(f"{self._subject} stopped: {why}")
        except NoriaError as err:
            self._say(f"{self._subject} stopped: {why}; its log is shipped the next time: {err}")

    def note_shipping(self, error: NoriaError | None) -> None:
        """Tell why the log cannot be shipped, once."""
        if error is not None and str(error) != self._unshipped:
            message = f"{self._subject} is not in the lake and waits in its log: {error}"
            self._say(message, kind=NoticeKind.WARNING)
        self._unshipped = None if error is None else str(error)

    @property
    def is_up(self) -> bool:
        """Whether its server answers for it."""
        return self.name in self.supervisor.deployments

    @property
    def _subject(self) -> str:
        return f"{self._environment}/{self.name}"

    def _answer(self) -> None:
        ledger, wanted = self._project.ledger, self.wanted
        version = ledger.get_version_by_id(wanted.version)
        route = self._place.route(version)
        address = self.supervisor.start(route)
        self._answers_by = wanted.number
        models = ", ".join(f"{each.model}:{each.version}" for each in route.models)
        self._say(f"{self._subject} answers at {address} with {models}: {wanted.reason}")

    def _fail(self, err: NoriaError) -> None:
        if str(err) != self._error:
            self._say(f"{self._subject}: {err}", kind=NoticeKind.WARNING)
        self._error = str(err)
        self._not_before = time.monotonic() + _RETRY_S[min(self._failures, len(_RETRY_S) - 1)]
        self._failures += 1

    def _say(self, message: str, *, kind: NoticeKind = NoticeKind.SERVING) -> None:
        facts = {"environment": self._environment, "deployment": self.name}
        self._tell(Notice(at=self._project.clock.now(), kind=kind, message=message, facts=facts))
