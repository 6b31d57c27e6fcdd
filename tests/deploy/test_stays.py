"""Stays: at every instant those that are told are what the deployment pointed to then."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.clock import ReplayClock
from noria.database.store import Database
from noria.deploy.releases import find_standing, read_release, read_route, record_release, record_route
from noria.deploy.stays import list_stays
from noria.ledger.store import Ledger
from noria.records import Version, sha256_hex
from noria.serving.records import Input

NOW = datetime(2013, 4, 1, tzinfo=UTC)
HOURS = 5
_NAMES = count()
_Entries = list[tuple[Version, float, Literal["answer", "shadow"]]]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    folder = tmp_path_factory.mktemp("stays")
    with Database.open(f"sqlite:///{folder}/noria.db") as database:
        yield Ledger(database, clock=ReplayClock(NOW))


def routes_of(ledger: Ledger, name: str) -> list[Version]:
    """Give the routes `a`, `b`, both, and `b` in the shadow of `a`, of a deployment of its own."""
    a, b = (
        record_release(
            ledger,
            ledger.record_version(
                "model", name, sha256=sha256_hex(f"{name}{each}".encode()), uri="x", at=NOW
            ),
            file_digest=sha256_hex(each.encode()),
            inputs=[Input(name="distance", kind="number")],
            at=NOW,
        )
        for each in "ab"
    )
    entries: tuple[_Entries, ...] = (
        [(a, 1.0, "answer")],
        [(b, 1.0, "answer")],
        [(a, 0.75, "answer"), (b, 0.25, "answer")],
        [(a, 1.0, "answer"), (b, 1.0, "shadow")],
    )
    return [
        record_route(ledger, environment="production", deployment=name, entries=each, at=NOW)
        for each in entries
    ]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, HOURS)), min_size=1, max_size=6),
)
def test_whoever_is_told_at_an_instant_is_who_the_pointer_of_that_instant_names(
    ledger: Ledger, moves: list[tuple[int, bool, int]]
) -> None:
    name = f"model{next(_NAMES)}"
    routes = routes_of(ledger, name)
    for number, (route, stable, hour) in enumerate(moves):  # also several in an hour, and back in time
        at = NOW + timedelta(hours=hour)
        ledger.move_pointer(
            "production", name, routes[route].id, stable=stable, reason="", key=f"{name}{number}", at=at
        )
    for hour in range(HOURS + 1):
        at = NOW + timedelta(hours=hour)
        told = list_stays(ledger, environment="production", deployment=name, at=at)
        standing = find_standing(ledger, environment="production", deployment=name, at=at, stable=False)
        expected = []
        if standing is not None:
            content = read_route(standing.route)
            for each in content.entries:
                release = content.releases[each.release]
                model = read_release(ledger.get_version_by_id(release)).model
                expected.append((model, each.release, each.weight, each.mode, standing.pointer.stable))
        found = [(each.model, each.release, each.share, each.mode, each.stable) for each in told]
        assert sorted(found) == sorted(expected)
        assert all(each.since <= at for each in told)
