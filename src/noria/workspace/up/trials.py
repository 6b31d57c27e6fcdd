"""What is on trial is looked at all the time: guarded by what servers count, judged by outcomes.

Two threads, so that neither a long look at outcomes keeps the guard waiting, nor either of them those who
serve. A move is put on record; the server follows it as it follows any other.
"""

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from noria.errors import Conflict, LeaseHeld, NoriaError
from noria.serving.counts import RouteCounts
from noria.workspace.up.records import Notice, NoticeKind

if TYPE_CHECKING:
    from noria.deploy.environments import Move
    from noria.workspace.project import Project

__all__ = ["Counting", "TrialWatch"]

Counting = Callable[[str, str], RouteCounts | None]
Place = tuple[str, str]

_GUARD_S = 1.0


class TrialWatch:
    """Looks at the trials of deployments while this process may act.

    Parameters
    ----------
    places
        Gives environment and name of the deployments that are served.
    counts
        Gives what the server of a deployment counted; None where it does not run in this process.
    is_active
        Whether this process may act.
    judge_every_s
        Between two looks at outcomes.
    tell
        Is called with each move, and once with what keeps from looking.
    """

    def __init__(
        self,
        project: "Project",
        *,
        places: Callable[[], Iterable[Place]],
        counts: Counting,
        is_active: Callable[[], bool],
        judge_every_s: float,
        tell: Callable[[Notice], None],
    ) -> None:
        self._project, self._places, self._counts = project, places, counts
        self._is_active, self._judge_every_s, self._tell = is_active, judge_every_s, tell
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._fault: BaseException | None = None
        self._troubles: dict[tuple[str, Place], str] = {}

    def check(self) -> None:
        """Raise what ended a thread, if something did."""
        if self._fault is not None:
            raise self._fault

    def start(self) -> None:
        """Begin to look."""
        for name, look, every_s in (
            ("guard", self.guard, _GUARD_S),
            ("judge", self.judge, self._judge_every_s),
        ):
            thread = threading.Thread(
                target=self._keep, args=(name, look, every_s), name=f"noria-{name}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Look no more, once the looks that are under way have ended."""
        self._stopping.set()
        for each in self._threads:
            each.join()

    def guard(self, environment: str, name: str) -> "Move | None":
        """Look at what the server counted; roll back where a limit is passed."""
        pointer = self._project.ledger.find_pointer(environment, name)
        if pointer is None or pointer.stable:
            return None
        from noria.deploy.guarding import watch_canary  # which loads numpy
        from noria.workspace.trials.rules import canary_of

        counts = self._counts(environment, name)
        place = self._project.deployment(environment, name)
        found = watch_canary(
            place,
            RouteCounts(route=0) if counts is None else counts,
            self._project.now(environment),
            canary=canary_of(self._project, environment),
        )
        return None if found is None else found.move

    def judge(self, environment: str, name: str) -> "Move | None":
        """Look at outcomes; promote, roll back, or move shares by the rule of the trial."""
        pointer = self._project.ledger.find_pointer(environment, name)
        if pointer is None or pointer.stable:
            return None
        from noria.workspace.trials.judging import judge_trial  # which loads what reads tables

        counts, now = self._counts(environment, name), self._project.now(environment)
        return judge_trial(self._project, environment, name, counts=counts, now=now)

    def _keep(self, name: str, look: "Callable[[str, str], Move | None]", every_s: float) -> None:
        try:
            while not self._stopping.wait(every_s):
                if self._is_active():
                    self._look_at_all(name, look)
        except BaseException as err:
            self._fault = err
            raise

    def _look_at_all(self, name: str, look: "Callable[[str, str], Move | None]") -> None:
        try:
            places = list(self._places())
        except NoriaError:
            return  # the database is away: the main loop tells, the next look makes up for it
        for place in places:
            if self._stopping.is_set():
                return
            try:
                move = look(*place)
            except (LeaseHeld, Conflict):
                continue  # somebody else moves it: the next look sees what came of that
            except NoriaError as error:
                self._trouble(name, place, str(error))
                continue
            self._troubles.pop((name, place), None)
            if move is not None:
                self._say(NoticeKind.DECISION, move.pointer.reason, place, event=move.pointer.event)

    def _trouble(self, name: str, place: Place, error: str) -> None:
        if self._troubles.get((name, place)) != error:
            self._troubles[name, place] = error
            told = f"what is on trial at {'/'.join(place)} cannot be looked at: {error}"
            self._say(NoticeKind.WARNING, told, place)

    def _say(self, kind: NoticeKind, message: str, place: Place, **facts: object) -> None:
        told = {"environment": place[0], "deployment": place[1], **facts}
        self._tell(Notice(at=self._project.clock.now(), kind=kind, message=message, facts=told))
