"""Bytes that nothing names are removed, and nothing else, also while others put the very same ones."""

import os
import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.servers.postgres import postgres_server, postgres_url  # noqa: F401 - fixtures

from noria.database.store import Database
from noria.errors import NotFound
from noria.storage.local import LocalStorage
from noria.tracking.artifacts import ArtifactStore

OLD = datetime.now(UTC).timestamp() - 90 * 86_400


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path}/noria.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    with Database.open(url) as opened:
        yield opened


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "storage")


@pytest.fixture
def store(database: Database, storage: LocalStorage, tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(database, storage, tmp_path / "staging")


def put(store: ArtifactStore, path: str, data: bytes) -> str:
    with store.writing(path) as writer:
        writer.write(data)
    return store.get(path).sha256


def age(storage: LocalStorage) -> None:
    for each in (storage.part("artifacts").root / "sha256").glob("*/*"):
        os.utime(each, (OLD, OLD))


def before(**ago: float) -> datetime:
    return datetime.now(UTC) - timedelta(**ago)


def test_only_what_is_old_and_unnamed_goes(store: ArtifactStore, storage: LocalStorage) -> None:
    kept = put(store, "0/r/kept", b"kept")
    gone = [put(store, f"0/r/{number}", f"data {number}".encode()) for number in range(210)]
    sealed = put(store, "0/r/sealed", b"a version has it")
    replaced = put(store, "0/r/again", b"first")
    put(store, "0/r/again", b"second")
    store.delete("0/r/sealed")
    for number in range(210):
        store.delete(f"0/r/{number}")
    assert store.prune(before=before(hours=1)) == (0, 0)  # they are young
    age(storage)
    size = sum(len(f"data {number}") for number in range(210)) + len(b"first")
    told: list[tuple[int, int]] = []
    wanted = (211, size)
    assert store.prune(before=before(hours=1), named=lambda: {sealed}, dry_run=True) == wanted
    found = store.prune(before=before(hours=1), named=lambda: {sealed}, tell=lambda *each: told.append(each))
    assert found == wanted
    assert (sum(blobs for blobs, _ in told), sum(each for _, each in told)) == wanted
    bytes_of = storage.part("artifacts")
    assert not any(bytes_of.exists(each) for each in (*gone, replaced))
    assert bytes_of.exists(kept) and bytes_of.exists(sealed)
    assert store.prune(before=before(hours=1), named=lambda: {sealed}) == (0, 0)


def test_what_a_version_has_named_meanwhile_stays(store: ArtifactStore, storage: LocalStorage) -> None:
    sealed = put(store, "0/r/sealed", b"a version has it now")
    store.delete("0/r/sealed")
    age(storage)
    named: list[set[str]] = [{sealed}, set()]  # first nobody has, then somebody
    assert store.prune(before=before(hours=1), named=lambda: named.pop()) == (0, 0)
    assert storage.part("artifacts").exists(sealed)


def test_bytes_that_are_put_again_are_young(store: ArtifactStore, storage: LocalStorage) -> None:
    sha256 = put(store, "0/r/a", b"once more")
    store.delete("0/r/a")
    age(storage)
    kept = storage.part("artifacts").put(b"once more")  # as somebody does who will name it later
    assert kept == sha256
    assert store.prune(before=before(hours=1)) == (0, 0)
    store.put_kept("0/r/a", kept, 9)
    assert store.open("0/r/a").read_bytes() == b"once more"


def test_bytes_that_are_gone_cannot_be_named(store: ArtifactStore) -> None:
    with pytest.raises(NotFound, match="no blob named"):
        store.put_kept("0/r/a", "0" * 64, 1)
    assert store.find("0/r/a") is None


def test_nothing_is_lost_while_others_put_what_is_pruned(store: ArtifactStore, storage: LocalStorage) -> None:
    datas = [random.Random(number).randbytes(200) for number in range(12)]
    ended, faults = threading.Event(), []

    def prune() -> None:
        while not ended.is_set():
            age(storage)  # all is old, all the time
            store.prune(before=before(hours=1))

    def write(worker: int) -> None:
        chosen = random.Random(worker)
        for number in range(15):
            path, data = f"0/{worker}/{number % 5}", chosen.choice(datas)
            try:
                put(store, path, data)
                if store.open(path).read_bytes() != data:
                    faults.append(path)
            except NotFound:  # told, so that it is put again; never a name without its bytes
                continue
            store.delete(path)

    writers = [threading.Thread(target=write, args=[worker]) for worker in range(3)]
    pruner = threading.Thread(target=prune)
    for each in (pruner, *writers):
        each.start()
    for each in writers:
        each.join()
    ended.set()
    pruner.join()
    assert faults == []
    for worker in range(3):
        put(store, f"1/{worker}", datas[worker])
    store.prune(before=before(hours=1))
    for kept in store.tree():
        assert store.open(kept.path).stat().st_size == kept.size_bytes
