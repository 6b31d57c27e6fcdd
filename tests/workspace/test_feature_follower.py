"""The online store follows a project's tables, modules and routes, and is made anew where it is lost."""

import importlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.servers.redis import RedisServer, own_redis

import noria
from noria.clock import to_micros
from noria.deploy.releases import record_release, record_route
from noria.errors import ConfigError, LeaseHeld, StoreError
from noria.features.declarations import ViewSpec
from noria.features.following import Brought, HeldUp
from noria.records import sha256_hex
from noria.serving.features.online import OnlineFeatures
from noria.workspace.doctor import Health, examine
from noria.workspace.features import follower as feature_follower
from noria.workspace.features import following as feature_following
from noria.workspace.features.follower import FeatureFollower, Trouble
from noria.workspace.features.following import Rebuilt, writing_store
from noria.workspace.features.freshness import Stale
from noria.workspace.status import project_status

__all__ = ["own_redis"]

INSTANT = pa.timestamp("us", "UTC")
NOW = datetime.now(UTC)
DECLARED = """
import noria
from noria import agg

visits = noria.Dataset("visits", key="id", event_at="at", known_at="known")
shop = noria.FeatureView("shop", source=visits, entity="shop", freshness="10m", features={
    "n": agg.count("7d"), "spent": agg.sum("amount", "2d")})
"""


def visits(*ids: int, hours: float = 1.0) -> pa.Table:
    at = [NOW - timedelta(hours=hours)] * len(ids)
    return pa.table(
        {
            "id": [f"v{each}" for each in ids],
            "at": pa.array(at, INSTANT),
            "known": pa.array(at, INSTANT),
            "shop": ["ab"[each % 2] for each in ids],
            "amount": pa.array(ids, pa.int64()),
        }
    )


class Followed:
    """A project and its follower."""

    def __init__(self, project: noria.Project) -> None:
        self.project = project
        self.told: list[Any] = []
        self.start()

    def start(self, *, anew: bool = False) -> None:
        self.told.clear()
        self.follower = FeatureFollower(self.project, tell=self.told.append, anew=anew)

    def look(self, times: int = 1) -> list[Any]:
        self.told.clear()
        for _ in range(times):
            self.follower._around_at = self.follower._refresh_at = self.follower._not_before = 0.0
            self.follower.look()
        return list(self.told)

    def count(self, shop: str = "a") -> float:
        found = self.project.features.get(["shop"], {"shop": [shop]})
        return float(found.column("shop__n")[0].as_py())

    def events(self, verb: str) -> list[Any]:
        return [each.payload for each in self.project.ledger.list_events(verb=verb)]

    def declare(self, text: str) -> None:
        (name,) = self.project.settings.project.modules
        path = self.project.root / f"{name}.py"
        path.write_text(text)
        importlib.invalidate_caches()
        self.project.refresh()


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Followed]:
    name = f"followed_{tmp_path.name.replace('-', '_')}"
    (tmp_path / "noria.toml").write_text(f'[project]\nname = "shops"\nmodules = ["{name}"]\n')
    (tmp_path / f"{name}.py").write_text(DECLARED)
    with noria.open(tmp_path) as project:
        yield Followed(project)
    sys.modules.pop(name, None)


def test_views_are_loaded_once_something_has_come_and_kept_up(followed: Followed) -> None:
    assert followed.look() == []
    followed.project.ingest("visits", visits(0, 1, 2))
    (loaded,) = followed.look()
    assert isinstance(loaded, Brought)
    assert followed.count() == 2
    followed.project.ingest("visits", visits(4))
    (counted,) = followed.look()
    assert (counted.rows, counted.loaded) == (1, None)
    assert followed.count() == 3
    assert followed.look() == []
    assert [each["digest"] for each in followed.events("features.loaded")] == [loaded.digest]


def test_what_another_process_did_is_taken_over(followed: Followed) -> None:
    followed.project.ingest("visits", visits(0, 1, 2))
    followed.look()
    followed.project.ingest("visits", visits(4))
    followed.project.features.materialize()
    assert followed.look() == []
    followed.project.ingest("visits", visits(6))
    (counted,) = followed.look()
    assert (counted.rows, counted.loaded, followed.count()) == (1, None, 4)


def test_a_changed_definition_is_loaded_beside_the_old_one(followed: Followed) -> None:
    followed.project.ingest("visits", visits(0, 1, 2))
    followed.look()
    old = followed.project.features.view("shop")
    followed.declare(DECLARED.replace('"7d"', '"5d"'))
    (loaded,) = followed.look()
    assert loaded.digest != old.spec().digest
    assert followed.count() == 2
    assert followed.project.features.get([old], {"shop": ["a"]}).column("shop__n").to_pylist() == [2]


@pytest.mark.parametrize("how", ["deleted", "damaged", "cut", "at start"])
def test_a_store_that_is_lost_is_made_anew_and_an_event_says_so(followed: Followed, how: str) -> None:
    followed.project.ingest("visits", visits(0, 1, 2))
    followed.look()
    path = followed.project.root / ".noria" / "online" / "data.mdb"
    match how:
        case "deleted" | "at start":
            path.unlink()
        case "damaged":
            path.write_bytes(bytes(path.stat().st_size))
        case "cut":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if how == "at start":
        followed.start()
    found = followed.look(2)
    assert [type(each) for each in found] == [Brought, Rebuilt], found
    assert followed.count() == 2
    (event,) = followed.events("features.rebuilt")
    assert event["views"] == ["shop"]
    assert ("deleted" in event["reason"]) == (how in ("deleted", "at start"))
    followed.project.ingest("visits", visits(4))
    assert [each.rows for each in followed.look()] == [1]


def test_a_process_that_reading_has_ended_is_followed_by_one_that_begins_anew(followed: Followed) -> None:
    followed.project.ingest("visits", visits(0))
    followed.look()
    followed.start(anew=True)
    assert isinstance(followed.look()[-1], Rebuilt)
    assert followed.count() == 1


def test_a_store_that_is_in_use_is_waited_for_and_said_once(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_follower, "_WAIT_S", 0.05)
    monkeypatch.setattr(feature_following, "_WAIT_S", 0.05)
    followed.project.ingest("visits", visits(0))
    followed.look()
    followed.project.ingest("visits", visits(2))
    held: Callable[[], Any] = lambda: writing_store(followed.project)  # noqa: E731
    with held():
        (trouble,) = [each for each in followed.look(1) if isinstance(each, Trouble)]
        assert "in use by process" in str(trouble.reason) or "already open" in str(trouble.reason)
        assert [each for each in followed.look(2) if isinstance(each, Trouble)] == []
        with pytest.raises(LeaseHeld):
            followed.project.features.materialize()
    assert [type(each) for each in followed.look()] == [Brought, Trouble]
    assert followed.count() == 2


def test_a_source_that_cannot_be_counted_holds_up_its_view_and_is_said_once(followed: Followed) -> None:
    followed.project.ingest("visits", visits(0))
    followed.look()
    text = DECLARED.replace('"spent": agg.sum("amount"', '"spent": agg.sum("price"')
    followed.declare(text)
    (held,) = followed.look(2)
    assert isinstance(held, HeldUp)
    assert "price" in held.reason
    followed.declare(DECLARED)
    followed.project.ingest("visits", visits(2))
    followed.look()
    assert followed.count() == 2


def test_who_reads_a_view_learns_how_old_it_is_also_while_nothing_comes(followed: Followed) -> None:
    followed.declare(DECLARED.replace("10m", "400ms"))
    followed.project.ingest("visits", visits(0))
    followed.look()
    (spec,) = (view.spec() for view in followed.project.declarations.views.values())

    def stale() -> Mapping[int, int]:
        online = OnlineFeatures(str(followed.project.root / ".noria" / "online"), root=Path())
        try:
            return online.stale((spec,), to_micros(datetime.now(UTC)))
        finally:
            online.close()

    assert stale() == {}
    time.sleep(0.45)
    assert stale() == {0: 0}  # nobody says that nothing came
    assert followed.look() == []
    assert stale() == {}
    followed.project.ingest("visits", visits(2))
    assert [each.rows for each in followed.look()] == [1]
    assert (stale(), followed.count()) == ({}, 2)
    followed.declare(DECLARED.replace(', freshness="10m"', ""))
    time.sleep(0.45)
    assert followed.look() == []
    assert stale() == {}  # it may be of any age by now
    followed.project.ingest("visits", visits(4))
    assert [each.rows for each in followed.look()] == [1]


def test_a_view_that_is_older_than_it_may_be_is_put_on_record_once(followed: Followed) -> None:
    followed.declare(DECLARED.replace("10m", "200ms"))
    followed.project.ingest("visits", visits(0))
    followed.look()
    followed.project.ingest("visits", visits(2))
    with writing_store(followed.project):
        pass
    time.sleep(0.25)
    followed.follower._freshness.look(followed.follower._views, followed.follower._standings)
    followed.follower._freshness.look(followed.follower._views, followed.follower._standings)
    (stale,) = followed.events("features.stale")
    assert stale["age_s"] > stale["max_age_s"] == 0.2
    (listed,) = followed.project.features.list()
    assert (listed.online, listed.freshness, listed.is_stale) == ("current", "200ms", True)
    (state,) = project_status(followed.project).features
    assert state.is_stale
    assert "0.2 s are allowed" in state.told()
    finding = {each.check: each for each in examine(followed.project.root)}["online store"]
    assert (finding.health, "view shop is stale" in finding.found) == (Health.WARN, True)
    told = followed.look(2)
    assert [each.is_stale for each in told if isinstance(each, Stale)] == [False]
    assert len(followed.events("features.stale")) == len(followed.events("features.fresh")) == 1
    followed.start()
    assert followed.look() == []


def deploy(project: noria.Project, spec: ViewSpec) -> None:
    """Let a release answer that was trained with a definition of the view."""
    ledger = project.ledger
    model = ledger.record_version("model", "buyers", sha256=sha256_hex(b"model"), uri="x")
    release = record_release(ledger, model, file_digest=sha256_hex(b"model"), inputs=[], views=[spec])
    route = record_route(
        ledger, environment="production", deployment="buyers", entries=[(release, 1.0, "answer")]
    )
    ledger.move_pointer("production", "buyers", route.id, reason="first", stable=True)


def test_a_definition_that_a_deployed_release_needs_is_kept_and_followed(followed: Followed) -> None:
    followed.project.ingest("visits", visits(0, 1, 2))
    followed.look()
    old = followed.project.features.view("shop")
    deploy(followed.project, old.spec())
    followed.declare(DECLARED.replace('"7d"', '"5d"'))
    followed.look()
    followed.project.features.materialize()
    followed.project.ingest("visits", visits(4))
    assert [each.rows for each in followed.look()] == [1, 1]
    found = followed.project.features.get([old], {"shop": ["a"]})
    assert found.column("shop__n").to_pylist() == [followed.count()] == [3]
    path = followed.project.root / ".noria" / "online" / "data.mdb"
    path.unlink()  # both are made anew
    assert len([each for each in followed.look(2) if isinstance(each, Brought)]) == 2
    assert followed.project.features.get([old], {"shop": ["a"]}).column("shop__n").to_pylist() == [3]


def test_materialize_loads_what_a_deployed_release_reads_as_well(followed: Followed) -> None:
    followed.project.ingest("visits", visits(0, 1, 2))
    old = followed.project.features.view("shop")
    deploy(followed.project, old.spec())
    followed.declare(DECLARED.replace('"7d"', '"5d"'))
    assert [each.rows for each in followed.project.features.materialize()] == [3, 3]
    assert followed.project.features.get([old], {"shop": ["a"]}).column("shop__n").to_pylist() == [2]


def test_a_view_that_was_never_loaded_stays_stale_when_it_is_repaired_until_it_is_loaded(
    followed: Followed,
) -> None:
    followed.declare(DECLARED.replace("10m", "200ms").replace('agg.sum("amount"', 'agg.sum("price"'))
    followed.project.ingest("visits", visits(0))
    followed.look()
    time.sleep(0.25)
    assert [each.is_stale for each in followed.look() if isinstance(each, Stale)] == [True]
    followed.declare(DECLARED.replace("10m", "200ms"))
    told = followed.look(2)
    (fresh,) = [each for each in told if isinstance(each, Stale)]
    assert "all that came is counted" in fresh.reason
    assert [type(each) for each in told] == [Brought, Stale]


def test_a_query_is_asked_again_where_a_table_that_it_reads_has_changed(followed: Followed) -> None:
    followed.declare(
        DECLARED
        + """
large = noria.Query("large", 'select id, "at", known, shop, amount from visits where amount > 3',
                    key="id", event_at="at", known_at="known")
spender = noria.FeatureView("spender", source=large, entity="shop", features={"n": agg.count("7d")})
"""
    )
    followed.project.ingest("visits", visits(0, 2, 4))
    loaded = followed.look()
    assert [(type(each), each.view) for each in loaded] == [(Brought, "shop"), (Brought, "spender")]
    assert followed.look() == []
    followed.project.ingest("visits", visits(6))
    told = {each.view: each for each in followed.look()}
    assert "query" in str(told["spender"].loaded)
    found = followed.project.features.get(["spender"], {"shop": ["a"]})
    assert found.column("spender__n").to_pylist() == [2]
    assert followed.look() == []


def test_rows_known_later_count_when_they_are_known(followed: Followed) -> None:
    followed.project.ingest("visits", visits(0, 2))
    followed.look()
    soon = datetime.now(UTC) + timedelta(seconds=1.5)
    later = visits(4, 6).set_column(2, "known", pa.array([soon, soon + timedelta(days=1)], INSTANT))
    followed.project.ingest("visits", later)
    assert [each.rows for each in followed.look()] == [0]
    assert followed.look() == []
    assert followed.project.features.list()[0].behind_s == 0
    followed.start()
    assert followed.look() == []
    time.sleep(max(0.0, (soon - datetime.now(UTC)).total_seconds()) + 0.01)
    assert [each.rows for each in followed.look() if isinstance(each, Brought)] == [1]
    assert followed.count() == 3


def test_a_redis_that_is_away_is_said_and_asked_again(tmp_path: Path, own_redis: RedisServer) -> None:
    name = "followed_in_redis"
    (tmp_path / "noria.toml").write_text(
        f'[project]\nname = "shops"\nmodules = ["{name}"]\n'
        f'[stores]\nonline = "{own_redis.url}?timeout_ms=300&pause_ms=50&lease_ms=300"\n'
    )
    (tmp_path / f"{name}.py").write_text(DECLARED)
    with noria.open(tmp_path) as project:
        followed = Followed(project)
        project.ingest("visits", visits(0, 2))
        followed.look()
        assert followed.count() == 2
        own_redis.kill()
        project.ingest("visits", visits(4))
        troubles = [each for each in followed.look(3) if isinstance(each, Trouble)]
        assert len(troubles) == 1
        assert troubles[0].reason is not None
        with pytest.raises(StoreError):
            followed.count()
        own_redis.start()
        own_redis.command("FLUSHALL")
        time.sleep(0.5)
        found = followed.look(2)
        assert {type(each) for each in found if not isinstance(each, Stale)} == {Brought, Rebuilt, Trouble}
        assert followed.count() == 3
        assert len(followed.events("features.rebuilt")) == 1


def test_a_module_that_cannot_be_loaded_is_said_and_stops_nothing(followed: Followed) -> None:
    followed.project.ingest("visits", visits(0, 2))
    followed.look()
    with pytest.raises(ConfigError):
        followed.declare("import noria\nnonsense(\n")
        assert followed.project.declarations
    followed.project.lake.append("visits", visits(4), batch=99, app_id="another")
    told = followed.look(2)
    assert {type(each) for each in told if not isinstance(each, Stale)} == {Brought, Trouble}
    assert [each.rows for each in told if isinstance(each, Brought)] == [1]
    followed.declare(DECLARED)
    assert [each.reason for each in followed.look(2) if isinstance(each, Trouble)] == [None]
    assert followed.count() == 3
