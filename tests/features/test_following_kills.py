"""Whoever follows is killed at any instant: nothing is counted twice, and nothing is missed."""

import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.features.redis_trips import END, SPEC, offline, online, trips
from tests.servers.redis import redis_server, redis_url

from noria.clock import to_micros
from noria.features.following import Brought, Following
from noria.features.online import OnlineStore, open_online_store
from noria.features.table_changes import TableChanges
from noria.lake.store import Lake

__all__ = ["redis_server", "redis_url"]

PROCESS = Path(__file__).with_name("following_process.py")
ROOT = Path(__file__).parents[2]
_ROUND_S = 1.0  # about: a process begins, follows, and is killed


def _kill_while_rows_come(lake: Lake, folder: Path, url: str, *, kills: int, seed: int) -> pa.Table:
    """Start followers and kill each after a while, as rows come, are joined, and are taken out."""
    made, rows, done, batch = Random(seed), trips(40 * kills + 200, seed=seed), 150, 0
    lake.append("trips", rows.slice(0, done), batch=batch, app_id="test")
    clock = [str(time.time()), str(11 * 86_400 / (_ROUND_S * kills))]
    for kill in range(kills):
        follower = subprocess.Popen(
            [sys.executable, str(PROCESS), str(folder / "lake"), url, *clock],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
        )
        assert follower.stdout is not None
        with follower.stdout:
            if made.random() < 0.8:
                follower.stdout.readline()
            until = time.monotonic() + made.uniform(0.0, 0.25)
            while time.monotonic() < until and done < rows.num_rows:
                size = made.randrange(1, 15)
                batch += 1
                lake.append("trips", rows.slice(done, size), batch=batch, app_id="test")
                done += size
            match made.randrange(5):
                case 0:
                    lake.compact("trips")
                case 1 if kill < kills // 3:  # what is loaded whole hides what was counted wrong before
                    lake.delete("trips", f"id = '{made.randrange(done):05d}'", reason="test")
                case _:
                    time.sleep(made.uniform(0.0, 0.05))
            follower.kill()
            follower.wait()
    return lake.read("trips")


def _hold(folder: Path, url: str, *, kills: int, seed: int) -> None:
    lake = Lake(str(folder / "lake"), ledger=None)
    rows = _kill_while_rows_come(lake, folder, url, kills=kills, seed=seed)
    until = time.monotonic() + 10
    while True:
        try:
            store = open_online_store(url, root=folder)
            break
        except RuntimeError:  # the lease of a writer in Redis that was killed runs out
            assert time.monotonic() < until
            time.sleep(0.1)
    np.testing.assert_array_equal(*_values(store, folder, rows))
    store.close()
    lake.close()


def _values(store: OnlineStore, folder: Path, rows: pa.Table) -> tuple[Any, Any]:
    (last,) = Following(TableChanges(str(folder / "lake"))).bring(store, [SPEC], now_us=to_micros(END))
    assert isinstance(last, Brought)
    assert last.loaded is None
    return online(store), offline(rows)


@pytest.mark.parametrize("kills", [6, pytest.param(50, marks=pytest.mark.soak)])
def test_kills_of_the_follower_lose_and_double_nothing_in_lmdb(tmp_path: Path, kills: int) -> None:
    _hold(tmp_path, f"lmdb:{tmp_path / 'online'}", kills=kills, seed=kills)


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.soak)])
def test_kills_of_the_follower_lose_and_double_nothing_in_redis(
    tmp_path: Path, redis_url: str, kills: int
) -> None:
    url = redis_url.replace("lease_ms=2000", "lease_ms=300")
    _hold(tmp_path, url, kills=kills, seed=kills)
