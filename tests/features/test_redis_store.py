"""The online store on Redis beyond the contract: what is read while it changes, URLs, limits."""

import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.features.redis_trips import END, LINES, SPEC, START, TRIPS, VIEW, Reader, offline, online, trips
from tests.servers.redis import RedisServer, free_port, own_redis, redis_server, redis_url

from noria.clock import to_micros
from noria.errors import ConfigError, NotFound, StoreError
from noria.features import FeatureView, agg
from noria.features.online import open_online_store
from noria.features.standing import Standing
from noria.serving.features.online import OnlineFeatures

redis = pytest.importorskip("redis", reason="redis-py is not installed: the extra `redis` brings it")

from noria.features.backends import redis_reading  # noqa: E402
from noria.features.backends.redis import RedisOnlineStore  # noqa: E402
from noria.features.backends.redis_connection import Connection, OutOfMemory  # noqa: E402
from noria.features.backends.redis_format import read_standing  # noqa: E402

__all__ = ["own_redis", "redis_server", "redis_url"]


def keys_of(url: str) -> list[bytes]:
    location, _, asked = url.partition("?")
    prefix = asked.partition("prefix=")[2].partition("&")[0]
    with redis.Redis.from_url(location) as client:
        return sorted(client.scan_iter(f"{prefix}:*"))


def test_another_process_reads_what_was_committed_before_its_call(redis_url: str) -> None:
    rows = trips(900)
    with RedisOnlineStore(redis_url) as store:
        reader = Reader(redis_url)
        assert reader.first == []  # no engine, nor the library of another backend
        assert "NotFound" in reader.read()
        prepared = store.prepare(VIEW, rows)
        for done in range(0, 900, 90):
            store.apply([(SPEC, prepared, done, done + 90)], position=done)
            np.testing.assert_array_equal(reader.read(), offline(rows.slice(0, done + 90)))
        changed = FeatureView("by_line", source=TRIPS, entity="line", features={"n": agg.count("3d")})
        store.load(changed, rows)
        np.testing.assert_array_equal(reader.read(), offline(rows))
        store.load(VIEW, rows)
        np.testing.assert_array_equal(reader.read(), offline(rows))
        store.clear(VIEW)
        assert "NotFound" in reader.read()
        reader.close()


@pytest.mark.parametrize("asked", ["specs", "standing"])
def test_a_view_that_is_loaded_while_it_is_asked_about_is_not_damaged(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    standing = Standing(table="t", version=4, known_us=5, at_us=6)
    with RedisOnlineStore(redis_url) as store, RedisOnlineStore(redis_url, readonly=True) as other:
        store.load(VIEW, trips(30), standing=standing)

        def look_then_load(connection: Connection) -> Any:
            found = read_standing(connection)
            if loads:
                loads.pop()
                store.load(VIEW, trips(30), standing=standing)  # its rows are elsewhere now
            return found

        loads = [1]
        monkeypatch.setattr(redis_reading, "read_standing", look_then_load)
        found = other.specs() if asked == "specs" else other.standing(VIEW)
        assert found == ([SPEC] if asked == "specs" else standing)
        assert not loads


def test_a_reader_never_sees_half_of_a_load(redis_url: str) -> None:
    tables = [trips(300, seed=1), trips(900, seed=2)]
    wanted = [offline(rows) for rows in tables]
    with RedisOnlineStore(redis_url) as store:
        store.load(VIEW, tables[0])
        reader = Reader(redis_url)
        seen = set()
        for turn in range(12):
            reader.say(reader.question, times=30)  # answered while the store is loaded
            store.load(VIEW, tables[turn % 2])
            for _ in range(30):
                found = np.array(reader.hear(), dtype=float)
                (same,) = [
                    at for at, each in enumerate(wanted) if np.array_equal(found, each, equal_nan=True)
                ]
                seen.add(same)
        assert seen == {0, 1}
        reader.close()


def test_a_reading_is_of_one_change_also_where_values_lie_apart(redis_url: str) -> None:
    """The quantiles and first rows of many tiles come with the counts of the same change."""
    rows = trips(240, lines=1)
    wanted = {float(size): offline(rows.slice(0, size))[0] for size in range(1, 241)}
    with RedisOnlineStore(redis_url) as store:
        prepared = store.prepare(VIEW, rows)
        store.apply([(SPEC, prepared, 0, 1)])
        reader = Reader(redis_url)
        reader.say(reader.question, times=200)
        for done in range(1, 240):
            store.apply([(SPEC, prepared, done, done + 1)])
        counts = set()
        for _ in range(200):
            found = np.array(reader.hear(), dtype=float)[0]
            np.testing.assert_array_equal(found, wanted[found[0]])
            counts.add(found[0])
        assert len(counts) > 5  # it was read while it was written
        reader.close()


def test_a_load_leaves_nothing_of_the_rows_before(redis_url: str) -> None:
    with RedisOnlineStore(redis_url) as store:
        store.load(VIEW, trips(300))
        before = len(keys_of(redis_url))
        store.load(VIEW, trips(300))
        assert len(keys_of(redis_url)) == before
        store.clear(VIEW)
        left = [key.rpartition(b":")[2] for key in keys_of(redis_url)]
        assert left == [b"catalogue", b"head", b"writer"]
    assert [key.rpartition(b":")[2] for key in keys_of(redis_url)] == [b"catalogue", b"head"]


def test_stores_of_two_prefixes_do_not_meet(redis_server: RedisServer) -> None:
    with (
        RedisOnlineStore(f"{redis_server.url}?prefix=meets:a") as one,
        RedisOnlineStore(f"{redis_server.url}?prefix=meets") as other,
    ):
        one.load(VIEW, trips(200, seed=1))
        other.load(VIEW, trips(200, seed=2))
        np.testing.assert_array_equal(online(one), offline(trips(200, seed=1)))
        other.clear(VIEW)
        np.testing.assert_array_equal(online(one), offline(trips(200, seed=1)))
        other.close()
        RedisOnlineStore(f"{redis_server.url}?prefix=meets", anew=True).close()
        np.testing.assert_array_equal(online(one), offline(trips(200, seed=1)))


def test_prune_removes_entities_that_nothing_can_ask_for(redis_url: str) -> None:
    view = FeatureView("short", source=TRIPS, entity="line", features={"n": agg.count("3d")})
    with RedisOnlineStore(redis_url) as store:
        store.load(view, trips(500))
        store.prune(view, START + timedelta(days=40))
        assert len(keys_of(redis_url)) == 4  # head, catalogue, writer, and the definition


def test_entities_by_the_thousand_are_read_and_pruned(redis_url: str) -> None:
    rows = trips(6_000)
    view = FeatureView("by_trip", source=TRIPS, entity="id", features={"n": agg.count("30d")})
    with RedisOnlineStore(redis_url) as store:
        store.load(view, rows)
        prepared = store.prepare(view, rows)
        store.apply([(view.spec(), prepared, 0, 6_000)])
        store.prune(view, END)
        found = store.read([view.spec()], {"id": rows["id"].to_pylist()}, to_micros(END))
        assert (found == 2).all()


def test_a_store_is_opened_by_its_url_and_over_a_socket(redis_server: RedisServer, tmp_path: Path) -> None:
    asked = "prefix=by-url&timeout_ms=3000"
    with pytest.raises(NotFound, match="by_line"):
        OnlineFeatures(f"{redis_server.url}?{asked}", root=tmp_path).read([SPEC], {"line": LINES}, 0)
    store = open_online_store(f"{redis_server.socket_url}?{asked}", root=tmp_path)
    store.load(VIEW, trips(50), position=5)
    store.close()
    worker = OnlineFeatures(f"{redis_server.url}?{asked}", root=tmp_path)
    np.testing.assert_array_equal(worker.read([SPEC], {"line": LINES}, to_micros(END)), offline(trips(50)))
    assert worker.position() == 5
    readonly = open_online_store(f"{redis_server.url}?{asked}", root=tmp_path, readonly=True)
    with pytest.raises(StoreError, match="readonly"):
        readonly.load(VIEW, trips(50))
    readonly.close()
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_opened_through_tls(own_redis: RedisServer) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl, which makes the certificate")
    key, certificate = own_redis.folder / "key.pem", own_redis.folder / "cert.pem"
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=127.0.0.1",
    ]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    own_redis.stop()
    plain, own_redis.port = own_redis.port, free_port()  # it answers the fixture in plain text on this one
    own_redis.options = ("--tls-port", str(plain), "--tls-cert-file", str(certificate),
                         "--tls-key-file", str(key), "--tls-auth-clients", "no")  # fmt: skip
    own_redis.start()
    url = f"rediss://127.0.0.1:{plain}/0?ssl_ca_certs={certificate}"
    with RedisOnlineStore(url) as store:
        store.load(VIEW, trips(50))
        np.testing.assert_array_equal(online(store), offline(trips(50)))
    with pytest.raises(StoreError, match="certificate"):
        RedisOnlineStore(f"rediss://127.0.0.1:{plain}/0")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://h:1/0?timeout_ms=soon", "timeout_ms='soon'; write milliseconds"),
        ("redis://h:1/0?lease_ms=0", "lease_ms='0'"),
        ("redis://h:1/0?prefix=a*", "letters, digits"),
        ("redis://h:port/0", "redis://HOST:PORT/DB"),
        ("redis://h:1/0?db=first", "redis://HOST:PORT/DB"),
        ("redis://h:1/0?password_file=secret", "begins with /"),
        ("redis+unix://run/redis.sock", "three slashes"),
        ("redis:", "one of: lmdb, redis"),
    ],
)
def test_a_url_that_is_not_understood_is_told(url: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_online_store(url, root=tmp_path)
    assert told in str(caught.value)


def test_a_library_that_is_not_installed_is_told() -> None:
    code = (
        "import sys; from pathlib import Path; sys.modules['redis'] = None\n"
        "from noria.features.online import open_online_store as store\n"
        "from noria.features.reading import open_feature_reader as reader\n"
        "from noria.errors import ConfigError\n"
        "for opens in (store, reader):\n"
        "    try: opens('redis://h:1/0', root=Path())\n"
        "    except ConfigError as err: print(err)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        done.stdout.splitlines()
        == ["the online store redis needs the package 'redis'; install noria[redis]"] * 2
    )


def test_a_password_is_used_and_never_told(own_redis: RedisServer, tmp_path: Path) -> None:
    own_redis.command("CONFIG", "SET", "requirepass", "s3cret!")
    with_password = own_redis.url.replace("redis://", "redis://:s3cret%21@")
    with RedisOnlineStore(with_password) as store:
        store.load(VIEW, trips(5))
    (tmp_path / "password").write_text("s3cret!\n")
    with RedisOnlineStore(f"{own_redis.url}?password_file={tmp_path}/password") as store:
        assert store.views() == ["by_line"]
    for url in (own_redis.url, with_password.replace("s3", "wr0ng")):
        with pytest.raises(StoreError) as caught:
            RedisOnlineStore(url)
        assert "s3cret" not in str(caught.value)
        assert "wr0ng" not in str(caught.value)


def test_no_room_in_redis_refuses_the_change_and_leaves_the_values(own_redis: RedisServer) -> None:
    rows = trips(300)
    with RedisOnlineStore(own_redis.url) as store:
        store.load(VIEW, rows, position=1)
        prepared = store.prepare(VIEW, trips(400))
        own_redis.command("CONFIG", "SET", "maxmemory", "1mb")
        for _ in range(2):
            with pytest.raises(OutOfMemory, match="maxmemory"):
                store.load(VIEW, trips(400), position=2)
            with pytest.raises(OutOfMemory, match="maxmemory"):
                store.apply([(SPEC, prepared, 0, 9)], position=2)
        np.testing.assert_array_equal(online(store), offline(rows))
        own_redis.command("CONFIG", "SET", "maxmemory", "0")
        assert store.position() == 1
        store.load(VIEW, rows.slice(0, 200), position=200)
        full = store.prepare(VIEW, rows)
        store.apply([(SPEC, full, 200, 300)], position=300)
        np.testing.assert_array_equal(online(store), offline(rows))


def test_a_load_that_finds_no_room_half_way_leaves_the_old_values(own_redis: RedisServer) -> None:
    view = FeatureView("by_trip", source=TRIPS, entity="id", features={"n": agg.count("30d")})
    with RedisOnlineStore(own_redis.url) as store, redis.Redis.from_url(own_redis.url) as client:
        store.load(VIEW, trips(300))
        used = int(client.info("memory")["used_memory"])
        client.config_set("maxmemory", used + 1_000_000)
        before = client.dbsize()
        with pytest.raises(OutOfMemory):
            store.load(view, trips(20_000))
        assert client.dbsize() == before
        np.testing.assert_array_equal(online(store), offline(trips(300)))
        client.config_set("maxmemory", 0)
        store.load(view, trips(20_000))
        assert store.views() == ["by_line", "by_trip"]


def test_a_redis_that_evicts_is_refused(own_redis: RedisServer) -> None:
    own_redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    with pytest.raises(StoreError, match="noeviction"):
        RedisOnlineStore(own_redis.url)


@pytest.mark.parametrize("keeps", ["appendonly", "snapshots", "both"])
def test_scrubbing_leaves_no_byte_in_the_files_of_redis(own_redis: RedisServer, keeps: str) -> None:
    def held() -> bool:
        files = [each for each in own_redis.folder.rglob("*") if each.is_file() and each.name != "server.log"]
        return any(b"line 3" in each.read_bytes() for each in files)

    with RedisOnlineStore(own_redis.url) as store, redis.Redis.from_url(own_redis.url) as client:
        if keeps != "appendonly":
            client.config_set("rdbcompression", "no")  # the bytes would be there but not found
            client.config_set("save", "3600 1000000")
        store.load(VIEW, trips(300))
        if keeps == "snapshots":
            client.config_set("appendonly", "no")
            shutil.rmtree(own_redis.folder / "appendonlydir")
        if keeps != "appendonly":
            client.save()
        store.load(VIEW, trips(300, lines=3))
        assert held()
        store.scrub()
        assert not held()
        np.testing.assert_array_equal(online(store), offline(trips(300, lines=3)))


def test_scrubbing_makes_no_file_that_redis_never_had(redis_server: RedisServer, redis_url: str) -> None:
    with RedisOnlineStore(redis_url) as store:
        store.load(VIEW, trips(30))
        store.scrub()
    assert not list(redis_server.folder.glob("*.rdb"))


def test_what_is_no_store_of_ours_is_told(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("foreign:head", b"something else")
        with pytest.raises(StoreError, match="prefix is another program's"):
            RedisOnlineStore(f"{redis_server.url}?prefix=foreign")
        with pytest.raises(StoreError, match="prefix is another program's"):
            RedisOnlineStore(f"{redis_server.url}?prefix=foreign", readonly=True).position()


def test_a_damaged_value_is_a_store_error(redis_url: str) -> None:
    with RedisOnlineStore(redis_url) as store:
        store.load(VIEW, trips(500))
        (key,) = [each for each in keys_of(redis_url) if each.endswith(b":=line 1")]
        with redis.Redis.from_url(redis_url.partition("?")[0]) as client:
            client.set(key, b"\0" * 24)
        with pytest.raises(StoreError, match="damaged value in view 'by_line'"):
            online(store)


def test_the_workspace_shares_its_features(redis_url: str, tmp_path: Path, noria: Any) -> None:
    """Loaded by one process, read by another, both by the setting alone."""
    from tests.cli.test_feature_commands import DECLARED

    (tmp_path / "noria.toml").write_text(
        f'[project]\nname = "t"\nmodules = ["shared_declared"]\n[stores]\nonline = "{redis_url}"\n'
    )
    (tmp_path / "shared_declared.py").write_text(DECLARED)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1.csv").write_text(
        "id,ended_at,courier,zone,minutes,slow\na,2024-03-01T10:00:00Z,ada,1,20,false\n"
    )
    for words in (("ingest", "trips"), ("feature", "materialize")):
        done = noria(*words, "--project", tmp_path)
        assert done.returncode == 0, done.stderr
    done = noria("feature", "get", "courier", "ada", "--project", tmp_path)
    assert done.stdout.split() == ["courier", "ada", "n_7d", "0", "slow_7d", "last", "20"]
    done = noria("doctor", "--project", tmp_path)
    assert "2 of 2 declared views are kept, as declared" in done.stdout
    assert not (tmp_path / ".noria" / "online").exists()
