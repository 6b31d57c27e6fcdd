"""Follows a table as `noria up` does, until it is killed: `following_process.py LAKE STORE BEGAN RATE`.

Prints a line once it follows. Its clock stood at the beginning of the rows when the wall's was BEGAN, and
goes RATE times as fast, so that rows become known all the time.
"""

import sys
import time
from pathlib import Path

from tests.features.redis_trips import END, SPEC, START

from noria.clock import to_micros
from noria.errors import LeaseHeld
from noria.features.following import Following
from noria.features.online import open_online_store
from noria.features.table_changes import TableChanges


def main(lake: str, url: str, began: str, rate: str) -> None:
    following = Following(TableChanges(lake))
    told = False
    while True:
        since_us = int((time.time() - float(began)) * float(rate) * 1e6)
        now_us = min(to_micros(START) + since_us, to_micros(END))
        try:
            store = open_online_store(url, root=Path())
        except LeaseHeld:
            time.sleep(0.02)
            continue
        try:
            following.bring(store, [SPEC], now_us=now_us)
        finally:
            store.close()
        if not told:
            told = True
            print("following", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:5])
