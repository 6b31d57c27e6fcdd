"""A table to consume into, and what a consumer told."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noria import check
from noria.clock import WallClock
from noria.database.store import Database
from noria.lake.declarations import Dataset
from noria.lake.store import Lake
from noria.ledger.store import Ledger
from noria.streams.backends.log import LogStream
from noria.streams.consume import consume
from noria.streams.consuming import Committed, Told
from noria.streams.contract import EventStream
from noria.streams.declarations import Stream

SCHEMA = {"id": "string", "user": "int64", "x": "double", "at": "timestamp[us, tz=UTC]"}


def clicks(**changes: Any) -> Dataset:
    given: dict[str, Any] = {
        "key": "id",
        "event_at": "at",
        "schema": SCHEMA,
        "checks": [check.between("x", 0, 100)],
    }
    return Dataset("clicks", **(given | changes))


def event(number: int, **changes: Any) -> bytes:
    import msgspec

    told = {"id": f"e{number:06d}", "user": number % 7, "x": number % 90, "at": "2024-05-01T10:00:00Z"}
    return msgspec.json.encode(told | changes)


class Consumer:
    """Consumes what is there, and remembers what was told."""

    def __init__(self, lake: Lake, ledger: Ledger) -> None:
        self.lake, self.ledger = lake, ledger
        self.told: list[Told] = []

    def run(self, source: EventStream, *, declared: Stream | None = None, **changes: Any) -> list[Committed]:
        before = len(self.told)
        given: dict[str, Any] = {
            "leases": self.ledger,
            "tell": self.told.append,
            "stop": threading.Event(),
            "until_empty": True,
        }
        consume(declared or Stream("clicks", into=clicks()), source, self.lake, **(given | changes))
        return [each for each in self.told[before:] if isinstance(each, Committed)]

    def ids(self) -> list[str]:
        found: list[str] = self.lake.read("clicks")["id"].to_pylist()
        return found

    def rejected(self) -> list[tuple[str, str]]:
        rows = self.lake.read("clicks__rejected")
        return list(zip(rows["reason"].to_pylist(), rows["payload"].to_pylist(), strict=True))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Database.open(f"sqlite:///{tmp_path}/noria.db") as database:
        yield Ledger(database, clock=WallClock())


@pytest.fixture
def lake(tmp_path: Path, ledger: Ledger) -> Iterator[Lake]:
    opened = Lake(str(tmp_path / "lake"), ledger=ledger)
    yield opened
    opened.close()


@pytest.fixture
def consumer(lake: Lake, ledger: Ledger) -> Consumer:
    return Consumer(lake, ledger)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogStream]:
    opened = LogStream(tmp_path / "log", name="clicks")
    yield opened
    opened.close()
