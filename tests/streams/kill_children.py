"""Processes that tests kill: `python kill_children.py produce|consume URL ROOT [MORE]`."""

import os
import sys
import threading
import time
from pathlib import Path

from noria.clock import WallClock
from noria.database.store import Database
from noria.lake.declarations import Dataset
from noria.lake.store import Lake
from noria.ledger.store import Ledger
from noria.streams.consume import consume
from noria.streams.declarations import Stream
from noria.streams.opening import open_stream

NAME = "clicks"
CLICKS = Dataset(NAME, key="id", event_at="at", schema={"id": "int64", "at": "timestamp[us, tz=UTC]"})
STREAM = Stream(NAME, into=CLICKS, rows=300, every="1s")


def payload(number: int) -> bytes:
    """Every 50th event is none, so that rejected rows are counted too."""
    return b"broken %d" % number if number % 50 == 49 else b'{"id":%d,"at":"2024-05-01T10:00:00Z"}' % number


def produce(url: str, root: Path, start: str) -> None:
    """Append events, five at a time, and say the number of the last that is acknowledged."""
    stream = open_stream(url, NAME, root=root)
    for number in range(int(start), 1_000_000, 5):
        stream.append([payload(each) for each in range(number, number + 5)])
        os.write(1, b"%d\n" % (number + 4))
        time.sleep(0.004)


def consumption(url: str, root: Path, *, with_lease: bool, until_empty: bool) -> None:
    stream = open_stream(url, NAME, root=root)
    with Database.open(f"sqlite:///{root}/noria.db") as database:
        ledger = Ledger(database, clock=WallClock())
        lake = Lake(str(root / "lake"), ledger=ledger)
        leases = ledger if with_lease else None
        stop = threading.Event()
        tell = _stay_silent if until_empty else _say
        consume(STREAM, stream, lake, leases=leases, tell=tell, stop=stop, until_empty=until_empty)
        lake.close()
    stream.close()


def _say(told: object) -> None:
    os.write(1, f"{told}\n".encode())


def _stay_silent(told: object) -> None:
    pass


if __name__ == "__main__":
    what, url, root, *more = sys.argv[1:]
    if what == "produce":
        produce(url, Path(root), *more)
    else:
        consumption(url, Path(root), with_lease=more == ["lease"], until_empty=False)
