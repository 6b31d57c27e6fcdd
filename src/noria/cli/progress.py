"""A replay as it goes: a live display on a terminal, a line for each month and piece of news elsewhere."""

import sys
from collections.abc import Iterator
from datetime import datetime
from types import TracebackType
from typing import Self

import msgspec
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from noria.cli import screen
from noria.ledger.store import Ledger
from noria.records import Event
from noria.replay.declarations import DAY, Replay
from noria.replay.records import DayDone

__all__ = ["ReplayDisplay"]

_NEWS = {
    "accident.planted": "planted",
    "accident.settled": "settled",
    "canary.failed": "trial failed",
    "canary.passed": "trial passed",
    "dataset.blocked": "blocked",
    "gate.passed": "gate passed",
    "gate.refused": "gate refused",
    "pointer.moved": "production",
}
_LABEL_WIDTH = 12


class ReplayDisplay:
    """Shows a replay while it goes; `tell` is given each day.

    Parameters
    ----------
    replay
        What is lived through.
    ledger
        Where its news are read.
    until
        Where it will stop.
    """

    def __init__(self, replay: Replay, ledger: Ledger, *, until: datetime) -> None:
        self._replay, self._ledger = replay, ledger
        self._place = f"{replay.environment}/{replay.training.name}"
        days = [
            msgspec.convert(event.payload, DayDone)
            for event in ledger.list_events(verb="replay.day_done", subject=replay.name)
        ]
        self.last: DayDone | None = days[-1] if days else None
        self._predictions = sum(day.predictions for day in days)
        self._retrains = sum(_is_retrain(event) for event in ledger.list_events(verb="trigger.decided"))
        newest = ledger.list_events(newest_first=True, limit=1)
        self._seen = newest[0].seq if newest else 0
        self._until = until
        self._month = _Month()
        self._console = screen.console()
        self._live: Live | None = None
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(),
            TextColumn("days"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            console=self._console,
        )  # fmt: skip
        total = max((until - replay.starts_at).days, len(days))
        self._task = self._progress.add_task(f"{replay.starts_at:%Y-%m-%d}", total=total, completed=len(days))

    def __enter__(self) -> Self:
        if self.last is not None and self.last.day + DAY >= self._until:
            return self  # nothing is left to live through
        begin = (
            f"Taking in what was known before {self._replay.start}, and training the first model ..."
            if self.last is None
            else f"Going on after {self.last.day:%Y-%m-%d} ..."
        )
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True
            )
            self._live.start()
        self._say(begin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        else:
            self._say_month()

    def tell(self, day: DayDone) -> None:
        """Show that a day is over."""
        if self._live is None and self._month.name not in ("", f"{day.day:%Y-%m}"):
            self._say_month()
        self.last = day
        self._predictions += day.predictions
        self._month.add(day)
        for event in self._news():
            self._retrains += _is_retrain(event)
            told = self._told(event)
            if told is not None:
                self._month.retrains += _is_retrain(event)
                self._say(told)
        self._progress.update(self._task, advance=1, description=f"{day.day:%Y-%m-%d}")

    def _news(self) -> Iterator[Event]:
        for event in self._ledger.list_events(after=self._seen):
            self._seen = event.seq
            yield event

    def _told(self, event: Event) -> str | None:
        """Tell a piece of news in a line, or nothing of what is no news."""
        label = _NEWS.get(event.verb)
        if event.verb == "trigger.decided" and event.payload["choice"] in ("run", "refuse"):
            label = "retrain" if _is_retrain(event) else "refused"
        elsewhere = event.verb == "pointer.moved" and event.subject != self._place
        elsewhere |= event.verb == "gate.passed" and event.payload["environment"] != self._replay.environment
        if label is None or elsewhere:
            return None
        if event.verb == "pointer.moved" and not event.payload["stable"]:
            label = "on trial"
        reasons = event.payload.get("reasons") or [event.payload.get("reason", event.subject)]
        return f"{event.at:%Y-%m-%d}  {label:{_LABEL_WIDTH}}  {'; '.join(map(str, reasons))}"

    def _say(self, text: str) -> None:
        """Write one line above the display, cut where the screen ends."""
        made = Text(text, no_wrap=True)
        made.truncate(self._console.width, overflow="ellipsis")
        self._console.print(made)
        if self._live is None:
            sys.stdout.flush()

    def _say_month(self) -> None:
        if self._month.name:
            self._console.print(Text(f"{self._month.name:10}  {self._month.told()}"))
        self._month = _Month()

    def _render(self) -> RenderableType:
        if self.last is None:
            return Group(self._progress, Text(self._history(), style="dim"))
        day = self.last
        told = [f"{self._predictions:,} predictions", f"{day.served} answers"]
        if day.on_trial is not None:
            told.append(f"{day.on_trial} on trial")
        told += _quality(day, self._replay.monitor.window)
        told.append(screen.count(self._retrains, "retrain"))
        return Group(self._progress, Text(", ".join(told)))

    def _history(self) -> str:
        """Tell what is done before the first day."""
        newest = self._ledger.list_events(newest_first=True, limit=1)
        match newest:
            case [Event(verb="dataset.ingested") as event]:
                return (
                    f"{event.subject}: {event.payload['accepted']:,} rows of batch {event.payload['batch']}"
                )
            case [Event(verb="run.started") as event]:
                return f"{event.payload['kind']} {event.payload['name']} ..."
            case _:
                return "the first day comes when the history is in"


class _Month:
    """What a line about a month tells."""

    def __init__(self) -> None:
        self.name, self.predictions, self.outcomes, self.retrains = "", 0, 0, 0
        self.last: DayDone | None = None

    def add(self, day: DayDone) -> None:
        self.name, self.last = f"{day.day:%Y-%m}", day
        self.predictions += day.predictions
        self.outcomes += day.outcomes

    def told(self) -> str:
        assert self.last is not None  # it has a name
        told = [
            f"{self.predictions:,} predictions",
            f"{self.outcomes:,} outcomes",
            f"{self.last.served} answers",
        ]
        return ", ".join([*told, *_quality(self.last), screen.count(self.retrains, "retrain")])


def _quality(day: DayDone, window: str = "") -> list[str]:
    found = [
        f"{told} {day.metrics[name]:.3f}"
        for name, told in (("auc", "AUC"), ("log_loss", "log loss"))
        if name in day.metrics
    ]
    return [f"{' and '.join(found)}{f' over {window}' if window else ''}"] if found else []


def _is_retrain(event: Event) -> bool:
    return event.verb == "trigger.decided" and event.payload["choice"] == "run"
