"""Served features are computed again offline: by `noria feature verify`, and by `noria up` now and then."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pyarrow as pa
import pytest
from tests.workspace.up_harness import Up, running

import noria
from noria.clock import format_instant
from noria.features.online import open_online_store

Say = Callable[..., Any]
INSTANT = pa.timestamp("us", "UTC")


@pytest.fixture
def by_the_wall(lived_copy: Path) -> Path:
    """Give a lived project that serves by the wall's clock, with deliveries of the last hours."""
    settings = (lived_copy / "noria.toml").read_text()
    head, _, tail = settings.partition("[environments.production]")
    tail = tail.replace('clock = "replay"', "")
    (lived_copy / "noria.toml").write_text(
        f"{head}[environments.production]{tail}\n"
        "[server]\nport = 0\nlook_every_s = 0.2\nverify_every_s = 0.5\n"
    )
    now = datetime.now(UTC)
    with noria.open(lived_copy) as project:
        project.ingest("deliveries", deliveries(now, "ada", [7, 9, 30]))
        project.features.materialize(["courier", "district"])
    return lived_copy


def deliveries(now: datetime, courier: str, delays: Sequence[int]) -> pa.Table:
    size = len(delays)
    return pa.table(
        {
            "parcel_id": [f"{courier}-{delay}" for delay in delays],
            "courier": [courier] * size,
            "district": ["docks"] * size,
            "delivered_at": pa.array([now - timedelta(minutes=delay) for delay in delays], INSTANT),
            "delay": pa.array(delays, pa.int64()),
            "late": [delay > 8 for delay in delays],
        }
    )


def infer(address: str, couriers: Sequence[str]) -> None:
    columns: dict[str, tuple[str, list[Any]]] = {
        "courier": ("BYTES", list(couriers)),
        "district": ("BYTES", ["docks"] * len(couriers)),
        "weight": ("FP64", [4.0] * len(couriers)),
    }
    inputs = [
        {"name": name, "shape": [len(data)], "datatype": kind, "data": data}
        for name, (kind, data) in columns.items()
    ]
    request = Request(
        f"{address}/v2/models/late_parcel/infer",
        json.dumps({"inputs": inputs}).encode(),
        {"content-type": "application/json"},
    )
    with urlopen(request, timeout=20) as answer:
        assert answer.status == 200


def address_of(up: Up) -> str:
    up.wait_for("serving")
    (serving,) = up.ask("/api/noria/status")[1]["up"]["serving"]
    return str(serving["address"])


def test_what_was_served_is_what_offline_gives(noria: Say, by_the_wall: Path) -> None:
    since = format_instant(datetime.now(UTC))
    with running(by_the_wall) as up:
        address = address_of(up)
        for _ in range(3):
            infer(address, ["ada", "ben", "zoe"])
        assert up.stop() == 0
    told = noria("feature", "verify", "late_parcel", cwd=by_the_wall)
    assert (told.returncode, told.stderr) == (0, "")
    assert "what was served agrees" in told.stdout
    again = noria("feature", "verify", "late_parcel", "--since", since, "--json", cwd=by_the_wall)
    assert again.stderr == ""
    found = json.loads(again.stdout)
    assert [(each["view"], each["rows"], each["differing"]) for each in found["views"]] == [
        ("courier", 9, 0),
        ("district", 9, 0),
    ]
    traced = json.loads(noria("feature", "get", "courier", "ada", "--json", cwd=by_the_wall).stdout)
    assert traced[0]["courier__parcels_24h"] == 3


def test_what_was_served_wrong_is_an_alarm(noria: Say, by_the_wall: Path) -> None:
    spoil(by_the_wall)
    since = format_instant(datetime.now(UTC))
    with running(by_the_wall) as up:
        infer(address_of(up), ["ada", "ben"])
        up.wait_for("warning", lambda told: "computed again offline: 1 differ" in told["message"])
        assert up.stop() == 0
    told = noria("feature", "verify", "late_parcel", "--since", since, cwd=by_the_wall)
    assert told.returncode == 1
    said = " ".join(told.stdout.split())
    assert "1 differ in courier__last_delay, courier__late_3d, courier__parcels_24h" in said
    events = noria("query", "select verb, payload from ledger_events where verb = 'parity.broken'", "--json",
                   cwd=by_the_wall)  # fmt: skip
    (event,) = json.loads(events.stdout)
    payload = json.loads(event["payload"])
    assert (payload["values"], payload["late"]) == (1, 0)
    assert "ada" not in event["payload"], "events hold no values of rows"


def test_a_replay_is_not_verified_but_by_itself(noria: Say, lived_copy: Path) -> None:
    told = noria("feature", "verify", "late_parcel", cwd=lived_copy)
    assert told.returncode == 2
    assert "a replay, which compares all that it serves" in " ".join(told.stderr.split())


def spoil(root: Path) -> None:
    """Leave ada's newest delivery out of the online store, and nothing to tell that it was."""
    with noria.open(root) as project:
        view = project.features.view("courier")
        rows = project.lake.read("deliveries", columns=view.spec().source_columns)
        kept = [each != "ada-7" for each in rows["parcel_id"].to_pylist()]
        store = open_online_store(project.settings.stores.online, root=project.root)
        try:
            store.load(view, rows.filter(pa.array(kept)), standing=store.standing(view.spec()))
        finally:
            store.close()
