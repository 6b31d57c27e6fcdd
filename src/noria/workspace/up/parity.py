"""`noria up` computes a share of what deployments serve again, and puts on record what it found."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from noria.clock import parse_instant
from noria.errors import NoriaError
from noria.workspace.features.records import BROKEN, CHECKED
from noria.workspace.up.leadership import Leadership
from noria.workspace.up.records import Notice, NoticeKind

if TYPE_CHECKING:
    from noria.workspace.features.parity import ParityReport
    from noria.workspace.project import Project

__all__ = ["ParityWatch"]

_LOOK_S = 0.5
_LEAST_ROWS = 100  # of a look, if there are so many: a share of little traffic would tell nothing


class ParityWatch:
    """Verifies served features from time to time, while this process leads, in a thread of its own.

    Parameters
    ----------
    environments
        Those whose deployments are served by the wall clock.
    share
        Of the predictions; 0 looks at none.
    every_s
        How long to wait between two looks.
    tell
        Is called with what differs, and with what keeps from looking, once.
    """

    def __init__(
        self,
        project: "Project",
        environments: Sequence[str],
        *,
        leadership: Leadership,
        share: float,
        every_s: float,
        tell: Callable[[Notice], None],
    ) -> None:
        self._project, self._environments, self._leadership = project, environments, leadership
        self._share, self._every_s, self._tell = share, every_s, tell
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._fault: BaseException | None = None
        self._troubles: dict[str, str] = {}

    def check(self) -> None:
        """Raise what ended the thread, if something did."""
        if self._fault is not None:
            raise self._fault

    def start(self) -> None:
        """Begin to look."""
        if self._environments and self._share > 0:
            self._thread = threading.Thread(target=self._keep, name="noria-parity", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Look no more, once a look that is under way has ended."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> None:
        """Verify each deployment once."""
        places = dict.fromkeys(
            (each.environment, each.name)
            for environment in self._environments
            for each in self._project.ledger.list_pointers(environment=environment)
        )
        for environment, deployment in places:
            subject = f"{environment}/{deployment}"
            try:
                self._verify(environment, deployment)
                self._troubles.pop(subject, None)
            except NoriaError as error:
                if self._troubles.get(subject) != str(error):
                    self._troubles[subject] = str(error)
                    self._say(f"features served by {subject} cannot be verified: {error}", subject)

    def _keep(self) -> None:
        at = time.monotonic() + self._every_s
        try:
            while not self._stopping.wait(_LOOK_S):
                if time.monotonic() >= at and self._leadership.is_held:
                    self._look_if_there()
                    at = time.monotonic() + self._every_s
        except BaseException as err:
            self._fault = err
            raise

    def _look_if_there(self) -> None:
        try:
            self.look()
        except NoriaError:
            return  # the database is away: the main loop tells, the next look makes up for it

    def _verify(self, environment: str, deployment: str) -> None:
        subject = f"{environment}/{deployment}"
        from noria.workspace.features.parity import verify_deployment  # loads what reads tables: 40 MB

        last = self._project.ledger.list_events(verb=CHECKED, subject=subject, newest_first=True, limit=1)
        since = parse_instant(last[0].payload["until"]) if last else None
        report = verify_deployment(
            self._project, environment, deployment, since=since, share=self._share, least=_LEAST_ROWS
        )
        if report.until is not None:
            self._record(report, subject)

    def _record(self, report: "ParityReport", subject: str) -> None:
        told, payload, at = report.told(), report.payload(), self._project.clock.now()
        verbs = (
            [BROKEN, CHECKED] if report.is_broken else [CHECKED]
        )  # CHECKED last: the next look is after it
        cause = None
        for verb in verbs:
            key = f"{verb}/{subject}/{payload['until']}"
            event = self._project.ledger.append(
                verb, subject=subject, payload=payload | {"reason": told}, cause=cause, key=key, at=at
            )
            cause = event.id
        if report.is_broken:
            self._say(f"{subject}: {told}", subject)

    def _say(self, message: str, subject: str) -> None:
        facts = {"deployment": subject}
        self._tell(
            Notice(at=self._project.clock.now(), kind=NoticeKind.WARNING, message=message, facts=facts)
        )
