"""What goes wrong on purpose in a replay, each once, and whether the loop dealt with it as it should."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from noria.deploy.environments import restore, rollback
from noria.deploy.history import list_moves, stable_routes
from noria.errors import BatchBlocked
from noria.lake.declarations import Dataset
from noria.records import Event
from noria.replay.declarations import BadBatch, Replay, RollbackDrill, ShuffledLabels
from noria.replay.feed import day_number
from noria.replay.records import Stores
from noria.triggers.challenge import Challenge, Stage

__all__ = ["Accidents"]


@dataclass(frozen=True, slots=True)
class Accidents:
    """The accidents of one replay.

    Parameters
    ----------
    challenge
        Trains a candidate on shuffled labels and takes it to the gate: called with the accident's key, the
        instant and the event that planted it.
    cause
        The event that began the replay.
    """

    replay: Replay
    stores: Stores
    challenge: Callable[[str, datetime, Event], Challenge]
    cause: Event

    def before(self, dataset: Dataset, rows: pa.Table, day: datetime) -> None:
        """Let a damaged batch of the day arrive before the day's own, if one is planted."""
        for accident in self.replay.accidents:
            if isinstance(accident, BadBatch) and (accident.dataset.name, accident.day) == (
                dataset.name,
                day,
            ):
                self._bad_batch(accident, rows, day)

    def after(self, day: datetime, end: datetime) -> None:
        """Let happen what is planted at the end of the day."""
        for accident in self.replay.accidents:
            match accident:
                case ShuffledLabels() if accident.day == day:
                    self._shuffled(accident, end)
                case RollbackDrill() if accident.day <= day:
                    self._drill(accident, end)
                case _:
                    pass

    def _bad_batch(self, accident: BadBatch, rows: pa.Table, day: datetime) -> None:
        """It must be blocked; whether it was is on record."""
        name = accident.dataset.name
        key = f"replay:{self.replay.name}:bad_batch:{name}:{accident.on}"
        if self._is_settled(key):
            return
        planted = self._plant("bad batch", name, accident.note, key=key, at=day)
        try:
            self.stores.lake.ingest(
                accident.dataset,
                pa.table(accident.change(rows)),
                batch=day_number(day),
                source="replay (damaged)",
                cause=planted.id,
                at=day,
            )
            blocked, reason = False, f"the damaged batch of {name} was not noticed and is in the table"
        except BatchBlocked:
            # The error quotes a row; the ledger keeps none, so its own event is quoted instead.
            (told,) = self.stores.ledger.list_events(
                verb="dataset.blocked", subject=name, newest_first=True, limit=1
            )
            why = "; ".join(told.payload["reasons"])
            blocked, reason = True, f"blocked, nothing of it was written: {why}"
        self._settle(planted, key=key, at=day, as_wanted=blocked, reason=reason)

    def _shuffled(self, accident: ShuffledLabels, at: datetime) -> None:
        """It must be refused; whether it was is on record."""
        key = f"replay:{self.replay.name}:shuffled:{accident.on}"
        if self._is_settled(key):
            return
        planted = self._plant("shuffled labels", self.replay.training.name, accident.note, key=key, at=at)
        came = self.challenge(key, at, planted)
        reason = str(came.event.payload["reason"])
        self._settle(planted, key=key, at=at, as_wanted=came.stage is Stage.REFUSED, reason=reason)

    def _drill(self, accident: RollbackDrill, at: datetime) -> None:
        """Roll back and forward, on the first day that has an earlier stable route and no trial."""
        ledger, place = self.stores.ledger, self.stores.bench.production
        key = f"replay:{self.replay.name}:drill:{accident.on}"
        if self._is_settled(key):
            return
        if ledger.find_event(key=key) is None:
            moves = list_moves(ledger, environment=place.environment, deployment=place.name)
            if len(stable_routes(moves)[0]) < 2 or not moves[-1].pointer.stable:
                return
        note = accident.note
        planted = self._plant("rollback drill", place.subject, note, key=key, at=at)
        back = rollback(place, key=f"{key}:back", reason=f"drill: {note}", cause=planted.id, at=at)
        forth = restore(place, key=f"{key}:forth", reason=f"drill over: {note}", cause=planted.id, at=at)
        gone, come = back.version, forth.version
        reason = f"rolled back to route {gone.ref} and forward to route {come.ref}, both answered"
        self._settle(planted, key=key, at=at, as_wanted=gone.id != come.id, reason=reason)

    def _is_settled(self, key: str) -> bool:
        return self.stores.ledger.find_event(key=f"{key}:settled") is not None

    def _plant(self, kind: str, subject: str, note: str, *, key: str, at: datetime) -> Event:
        payload = {"kind": kind, "note": note, "reason": f"planted: {note}"}
        return self.stores.ledger.append(
            "accident.planted", subject=subject, payload=payload, cause=self.cause.id, key=key, at=at
        )

    def _settle(self, planted: Event, *, key: str, at: datetime, as_wanted: bool, reason: str) -> None:
        told = {"kind": planted.payload["kind"], "note": planted.payload["note"]}
        self.stores.ledger.append(
            "accident.settled",
            subject=planted.subject,
            payload=told | {"as_wanted": as_wanted, "reason": reason},
            cause=planted.id,
            key=f"{key}:settled",
            at=at,
        )
