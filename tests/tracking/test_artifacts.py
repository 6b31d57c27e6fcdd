"""Artifacts by their path: what is put comes back, whatever may go wrong on the way."""

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore
from sqlalchemy import event, insert
from tests.servers.postgres import postgres_server, postgres_url

from noria.clock import from_micros
from noria.database.store import Database
from noria.errors import BadPath, Conflict, DigestMismatch, DiskFull, NotFound, SourceError, StoreError
from noria.records import sha256_hex
from noria.storage.local import LocalStorage
from noria.storage.objects import ObjectStorage
from noria.tracking.artifact_paths import MAX_PATH_BYTES, checked_folder, checked_path
from noria.tracking.artifacts import ArtifactStore, Listed
from noria.tracking.staging import StagedFile, sweep
from noria.tracking.tables import artifacts

__all__ = ["postgres_server", "postgres_url"]  # fixtures

BAD = (
    "", "/", "/etc/passwd", "..", "../x", "a/../x", "a/..", ".", "a/.", "./a", "a//b", "a/", "a\\b",
    "\\\\host\\x",
    "C:/x", "c:", "a/C:/x", "a/c%3a", "a\0b",
    "%2e%2e/x", "a/%2E%2E/x", "%252e%252e/x", "a%2f..%2fb", "%2fetc", "%255c", "a%00b",
    "c%3A/x", "a%2f%2fb", "\udc80", "x" * (MAX_PATH_BYTES + 1), "é" * (MAX_PATH_BYTES // 2 + 1),
)  # fmt: skip
GOOD = (
    "0/run/artifacts/model/MLmodel", "größe/模型/🙂.txt", "...", "a..b/..c/d..", "100%", "50%25", "%zz",
    "a b+c&d=e?f#g", " ", "a\nb", "-",
    "ab:c", "é", "e\u0301", "x" * MAX_PATH_BYTES, "/".join("x" * 1_000),
)  # fmt: skip


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    is_sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/noria.db" if is_sqlite else request.getfixturevalue("postgres_url")
    with Database.open(url) as opened:
        yield opened


@pytest.fixture
def store(database: Database, tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(database, LocalStorage(tmp_path / "storage"), tmp_path / "staging")


def put(store: ArtifactStore, path: str, data: bytes = b"water") -> None:
    with store.writing(path) as writer:
        writer.write(data)


def names(listed: object) -> list[str]:
    assert isinstance(listed, list)
    return [each.name for each in listed]


def test_what_is_written_in_pieces_comes_back_whole(store: ArtifactStore, tmp_path: Path) -> None:
    with store.writing("0/r/artifacts/w.bin") as writer:
        for _ in range(3):
            writer.write(b"w" * 100_000)
    found = store.get("0/r/artifacts/w.bin")
    assert (found.size_bytes, found.sha256) == (300_000, sha256_hex(b"w" * 300_000))
    assert store.find("0/r/artifacts/w.bin") == found
    assert store.open("0/r/artifacts/w.bin").read_bytes() == b"w" * 300_000
    assert list((tmp_path / "staging").iterdir()) == []


def test_a_file_is_put_like_its_bytes_and_may_be_put_again(store: ArtifactStore, tmp_path: Path) -> None:
    file = tmp_path / "f.txt"
    file.write_bytes(b"first")
    first = store.put_file("a/f.txt", file)
    assert first == store.get("a/f.txt")
    file.write_bytes(b"")
    assert store.put_file("a/f.txt", file).size_bytes == 0
    assert store.open("a/f.txt").read_bytes() == b""
    assert store.fetch(first).read_bytes() == b"first"
    assert len(store.tree()) == 1


@pytest.mark.parametrize("path", BAD)
def test_a_path_that_leads_astray_names_nothing(path: str) -> None:
    with pytest.raises(BadPath, match="give a relative path") as caught:
        checked_path(path)
    assert caught.value.path == path
    str(caught.value).encode()


def test_a_path_is_kept_as_it_was_given(store: ArtifactStore) -> None:
    for path in GOOD:
        put(store, path, path.encode())
    for path in GOOD:
        assert store.open(path).read_bytes() == path.encode()
    assert [each.path for each in store.tree()] == sorted(GOOD)


def test_a_folder_may_end_with_a_slash_and_be_everything() -> None:
    assert [checked_folder(each) for each in ("", ".", "a", "a/", "a/b/")] == ["", "", "a", "a", "a/b"]
    for path in ("/", "//", "a//", "..", "../", "./", "a/../"):
        with pytest.raises(BadPath):
            checked_folder(path)


def test_no_verb_takes_a_bad_path(store: ArtifactStore, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"x")
    for path in BAD:
        for refused in (store.writing, store.find, store.get, store.open, store.delete):
            if (refused, path) != (store.delete, "a/"):
                with pytest.raises(BadPath):
                    refused(path)
        with pytest.raises(BadPath):
            store.put_file(path, file)
    assert store.tree() == []


def test_a_folder_is_listed_one_level_deep(store: ArtifactStore) -> None:
    for path in ("m/a.txt", "m/b/x", "m/b/y", "m/b-c", "m/b0", "m/b/z/deep", "m.txt", "n/é/x"):
        put(store, path, path.encode())
    assert store.list("m") == [
        Listed("a.txt", False, 7),
        Listed("b", True, 0),
        Listed("b-c", False, 5),
        Listed("b0", False, 4),
    ]
    assert names(store.list("")) == ["m", "m.txt", "n"]
    assert names(store.list("m/b")) == ["x", "y", "z"]
    assert names(store.list("n/")) == ["é"]
    assert store.list("m/a.txt") == store.list("none") == store.list("m/b/x") == []
    assert [each.path for each in store.tree("m/b")] == ["m/b/x", "m/b/y", "m/b/z/deep"]


def test_a_listing_takes_a_step_per_child_whatever_lies_below(
    store: ArtifactStore, database: Database
) -> None:
    folders = [f"big/{name}/{number:05}" for name in ("one", "three", "two") for number in range(20_000)]
    rows = [
        {"path": path, "sha256": "0" * 64, "size_bytes": 1, "put_at": from_micros(0)}
        for path in [*folders, *(f"big/x{number:05}" for number in range(10_000))]
    ]
    with database.write() as connection:
        connection.execute(insert(artifacts), rows)
    statements: list[str] = []
    event.listen(
        database._here().engine, "before_cursor_execute", lambda *given: statements.append(str(given[2]))
    )
    assert names(store.list("big"))[:4] == ["one", "three", "two", "x00000"]
    assert len(store.list("big")) == 10_003
    reads = [each for each in statements if each.startswith("SELECT artifacts")]
    assert 6 <= len(reads) <= 30  # of two listings


def test_a_file_is_no_folder_and_a_folder_no_file(store: ArtifactStore, tmp_path: Path) -> None:
    put(store, "m/a")
    for path in ("m/a/b", "m/a/b/c"):
        with pytest.raises(Conflict, match="'m/a' is a file"):
            store.writing(path)
    with pytest.raises(Conflict, match="'m' is a folder"):
        store.writing("m")
    with pytest.raises(Conflict, match="is a folder, wanted is a file"):
        store.get("m")
    with pytest.raises(NotFound):
        store.get("m/a/b")
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(Conflict):
        store.put_file("m", tmp_path / "f")


def test_two_that_clash_while_both_are_written_leave_one(store: ArtifactStore) -> None:
    first, second = store.writing("m"), store.writing("m/a")
    second.write(b"x")
    second.finish()
    with pytest.raises(Conflict):
        first.finish()
    first.close()
    second.close()
    assert [each.path for each in store.tree()] == ["m/a"]


def test_files_and_trees_are_deleted_their_bytes_stay(store: ArtifactStore) -> None:
    for path in ("m/a", "m/b/c", "m0", "m-"):
        put(store, path)
    kept = store.get("m/a")
    assert store.delete("m/b/") == 1
    assert store.delete("m") == 1
    assert store.delete("m") == 0
    assert [each.path for each in store.tree()] == ["m-", "m0"]
    assert store.fetch(kept).read_bytes() == b"water"
    put(store, "m")


def test_a_writer_that_fails_leaves_nothing(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), store.writing("a") as writer:
        writer.write(b"x" * 100_000)
        raise ZeroDivisionError
    assert store.find("a") is None
    assert [each for each in tmp_path.rglob("*") if each.is_file() and "noria.db" not in each.name] == []


def test_what_a_killed_writer_has_left_is_swept_and_nothing_else(
    store: ArtifactStore, tmp_path: Path
) -> None:
    staging = tmp_path / "staging"
    code = """
import os, signal, sys
from pathlib import Path
from noria.tracking.staging import StagedFile
file = StagedFile(Path(sys.argv[1]))
file.write(b"x" * 1000)
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code, str(staging)], check=False)
    (left,) = staging.iterdir()
    assert left.stat().st_size == 1_000
    (staging / "mine").write_bytes(b"x")
    living = StagedFile(staging)
    put(store, "a")
    assert sorted(staging.iterdir()) == sorted([staging / "mine", living.path])
    living.close()
    living.close()
    sweep(staging)
    assert list(staging.iterdir()) == [staging / "mine"]


def test_links_and_what_is_no_file_are_refused(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    for name, told in (("link", "symbolic link"), ("pipe", "no plain file"), (".", "no plain file")):
        with pytest.raises(SourceError, match=told):
            store.put_file("a", tmp_path / name)
    with pytest.raises(SourceError, match="give one that exists"):
        store.put_file("a", tmp_path / "none")
    assert store.tree() == []


def test_a_link_in_the_staging_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"x")
    (tmp_path / "staged-x").symlink_to(tmp_path / "kept")
    (tmp_path / "staged-folder").mkdir()
    (tmp_path / "staged-z").write_bytes(b"left")
    sweep(tmp_path)
    assert (tmp_path / "kept").read_bytes() == b"x"
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "staged-x", "staged-folder"}


def test_bytes_that_were_changed_or_are_gone_are_not_given(store: ArtifactStore) -> None:
    put(store, "a")
    path = store.open("a")
    os.utime(path, (0, 0))
    assert store.open("a") == path
    path.chmod(0o644)
    path.write_bytes(b"wbter")
    with pytest.raises(DigestMismatch):
        store.open("a")
    path.unlink()
    with pytest.raises(NotFound, match="blob"):
        store.open("a")
    put(store, "a")
    assert store.open("a").read_bytes() == b"water"


def test_an_untouched_file_is_verified_once(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "a", b"w" * 1_000)
    path = store.open("a")
    monkeypatch.setattr(LocalStorage, "fetch", lambda *_: pytest.fail("it was read again"))
    assert store.open("a") == path


def test_what_is_removed_from_the_storage_itself_is_no_artifact(store: ArtifactStore, tmp_path: Path) -> None:
    whole = LocalStorage(tmp_path / "storage")
    sha256 = whole.put(b"a subject's rows")
    put(store, "a", b"a subject's rows")
    assert whole.remove(sha256)
    assert store.open("a").read_bytes() == b"a subject's rows"
    assert list(whole.listed()) == []


def test_artifacts_live_in_an_object_store_too(database: Database, tmp_path: Path) -> None:
    storage = ObjectStorage(MemoryStore(), location="memory://", cache=tmp_path / "cache")
    store = ArtifactStore(database, storage, tmp_path / "staging")
    put(store, "a/b", b"water" * 100_000)
    assert store.open("a/b").read_bytes() == store.open("a/b").read_bytes() == b"water" * 100_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here; a staging folder that is a file is tested instead")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_said_and_leaves_nothing(database: Database, small_disk: Path, tmp_path: Path) -> None:
    for staging, storage in ((small_disk / "s", tmp_path / "b"), (tmp_path / "s", small_disk / "b")):
        store = ArtifactStore(database, LocalStorage(storage), staging)
        with pytest.raises(DiskFull, match="free some"):
            put(store, "a", b"x" * 1_000_000)
        assert store.find("a") is None
        left = [each for folder in (small_disk, staging, storage) for each in folder.rglob("*")]
        assert [each for each in left if each.is_file()] == []
        put(store, "a", b"x" * 10_000)
        store.delete("a")
        for each in [each for each in storage.rglob("*") if each.is_file()]:
            each.unlink()


def test_a_staging_folder_that_is_none_is_a_store_error(database: Database, tmp_path: Path) -> None:
    (tmp_path / "staging").write_bytes(b"")
    store = ArtifactStore(database, LocalStorage(tmp_path / "storage"), tmp_path / "staging")
    with pytest.raises(StoreError, match="check it and its rights"):
        store.writing("a")


hostile = st.lists(
    st.sampled_from(
        ["..", ".", "/", "\\", "%2e", "%2E", "%25", "%2f", "%5c", "%00", "\0", "C:", "a", "é", "\n", " "]
    ),
    max_size=8,
).map("".join)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.one_of(st.text(max_size=40), hostile, st.text(st.characters(), max_size=10)),
    data=st.binary(max_size=50),
)
@example(path="a/%2e%2e%2f%2e%2e/x", data=b"")
def test_any_path_keeps_its_bytes_or_is_refused(
    path: str, data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.getbasetemp() / "any-path"
    (root / "around").mkdir(parents=True, exist_ok=True)
    with Database.open(f"sqlite:///{root}/noria.db") as database:
        store = ArtifactStore(
            database, LocalStorage(root / "around" / "storage"), root / "around" / "staging"
        )
        try:
            put(store, path, data)
        except BadPath:
            assert store.tree() == []
        else:
            assert store.open(path).read_bytes() == data
            assert [each.path for each in store.tree()] == [path]
            top = path.partition("/")[0]
            assert store.list() == [Listed(top, top != path, 0 if top != path else len(data))]
            assert store.delete(path) == 1
        assert {each.name.partition(".")[0] for each in root.iterdir()} == {"noria", "around"}
        assert {each.name for each in (root / "around").iterdir()} <= {"storage", "staging"}
        assert all(len(each.name) == 64 for each in islice((root / "around").rglob("sha256/*/*"), 50))


parts = st.sampled_from(["a", "b", "a-", "a0", "é", "z"])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(paths=st.lists(st.lists(parts, min_size=1, max_size=4).map("/".join), max_size=12), data=st.data())
def test_a_store_is_like_a_folder(
    paths: list[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.getbasetemp() / "like-a-folder"
    with Database.open(f"sqlite:///{root}.db") as database:
        store = ArtifactStore(database, LocalStorage(root), root / "staging")
        with database.write() as connection:
            connection.execute(artifacts.delete())
        model: dict[str, bytes] = {}
        for number, path in enumerate(paths):
            clashes = any(path.startswith(f"{each}/") or each.startswith(f"{path}/") for each in model)
            if clashes:
                with pytest.raises(Conflict):
                    put(store, path)
            else:
                model[path] = b"%d" % number
                put(store, path, model[path])
        gone = data.draw(st.sampled_from(["", "a", "b", "z", "a/b"]))
        if gone:
            below = {each for each in model if each == gone or each.startswith(f"{gone}/")}
            assert store.delete(gone) == len(below)
            model = {path: content for path, content in model.items() if path not in below}
        assert {each.path: store.fetch(each).read_bytes() for each in store.tree()} == model
        for folder in ("", "a", "b/a"):
            prefix = f"{folder}/" if folder else ""
            rest = [path[len(prefix) :] for path in model if path.startswith(prefix)]
            wanted = {(each.partition("/")[0], "/" in each) for each in rest}
            assert [(each.name, each.is_folder) for each in store.list(folder)] == sorted(wanted)
