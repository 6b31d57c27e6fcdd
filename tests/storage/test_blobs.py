import errno
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore
from tests.servers.s3 import s3_server, s3_url

from noria.errors import ConfigError, DigestMismatch, DiskFull, NotFound, SourceError, StoreError
from noria.records import sha256_hex
from noria.storage import Storage, open_storage
from noria.storage.contract import blob_key
from noria.storage.local import LocalStorage
from noria.storage.objects import ObjectStorage

__all__ = ["s3_server", "s3_url"]  # fixtures


@pytest.fixture(params=["local", "objects", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return open_storage(str(tmp_path / "blobs"))
    if request.param == "s3":
        url: str = request.getfixturevalue("s3_url")
        return open_storage(f"{url}/blobs", cache=tmp_path / "cache")
    return ObjectStorage(MemoryStore(), location="memory://", cache=tmp_path / "cache")


def test_bytes_come_back_by_their_sha256(storage: Storage) -> None:
    sha256 = storage.put(b"water")
    assert sha256 == sha256_hex(b"water")
    assert storage.get(sha256) == b"water"
    assert storage.fetch(sha256).read_bytes() == b"water"
    assert storage.exists(sha256)


@given(data=st.binary(max_size=200))
def test_putting_again_gives_the_same_name(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    storage = LocalStorage(tmp_path_factory.getbasetemp() / "again")
    assert storage.put(data) == storage.put(data) == sha256_hex(data)
    assert storage.get(sha256_hex(data)) == data


def test_a_file_is_kept_like_its_bytes(storage: Storage, tmp_path: Path) -> None:
    path = tmp_path / "model.txt"
    path.write_bytes(b"m" * 3_000_000)
    sha256 = storage.put_file(path)
    assert sha256 == sha256_hex(b"m" * 3_000_000) == storage.put(b"m" * 3_000_000)
    assert storage.fetch(sha256).read_bytes() == path.read_bytes()


def test_a_missing_blob_is_not_found(storage: Storage) -> None:
    missing = sha256_hex(b"never put")
    assert not storage.exists(missing)
    with pytest.raises(NotFound, match=missing):
        storage.get(missing)
    with pytest.raises(NotFound):
        storage.fetch(missing)


def test_a_missing_source_file_is_named(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"gone\.bin"):
        storage.put_file(tmp_path / "gone.bin")


@pytest.mark.parametrize("name", ["", "abc", "../../etc/passwd", "A" * 64])
def test_only_a_sha256_names_a_blob(storage: Storage, name: str) -> None:
    with pytest.raises(ValueError, match="no sha256"):
        storage.get(name)


def test_the_uri_names_no_place(storage: Storage, tmp_path: Path) -> None:
    sha256 = storage.put(b"water")
    assert storage.uri(sha256) == f"storage:sha256/{sha256[:2]}/{sha256}"


def test_a_changed_blob_is_a_mismatch_and_putting_it_again_repairs_it(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    sha256 = storage.put(b"water")
    path = tmp_path / blob_key(sha256)
    path.chmod(0o644)
    path.write_bytes(b"wbter")
    with pytest.raises(DigestMismatch, match="recorded was"):
        storage.get(sha256)
    with pytest.raises(DigestMismatch):
        storage.fetch(sha256)
    storage.put(b"water")
    assert storage.get(sha256) == b"water"


def test_a_changed_object_is_a_mismatch(tmp_path: Path) -> None:
    objects = MemoryStore()
    storage = ObjectStorage(objects, location="memory://")
    sha256 = storage.put(b"water")
    objects.put(blob_key(sha256), b"other")
    with pytest.raises(DigestMismatch):
        storage.fetch(sha256)


def test_blobs_are_read_only_files_and_nothing_else_is_left(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    path = storage.fetch(storage.put(b"water"))
    assert path.stat().st_mode & 0o222 == 0
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [path]


def test_old_leftovers_of_killed_writers_are_swept(tmp_path: Path) -> None:
    LocalStorage(tmp_path)
    old, fresh = tmp_path / "incoming" / "old", tmp_path / "incoming" / "fresh"
    old.write_bytes(b"")
    fresh.write_bytes(b"")
    os.utime(old, (0, 0))
    LocalStorage(tmp_path)
    assert not old.exists()
    assert fresh.exists()


def test_a_path_that_is_a_file_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file")
    with pytest.raises(StoreError, match="cannot be used"):
        open_storage(str(tmp_path / "blobs"))


def test_an_unknown_scheme_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="no known kind"):
        open_storage("ftp://somewhere/blobs")


def test_a_file_url_opens_the_folder(tmp_path: Path) -> None:
    storage = open_storage((tmp_path / "with space").as_uri())
    sha256 = storage.put(b"water")
    assert (tmp_path / "with space" / blob_key(sha256)).read_bytes() == b"water"


def test_an_object_store_url_is_opened_without_asking_it(tmp_path: Path) -> None:
    options = {"AWS_REGION": "x", "access_key_id": "a", "secret_access_key": "b", "allow_http": "true"}
    storage = open_storage("s3://bucket/prefix", options=options, cache=tmp_path)
    assert isinstance(storage, ObjectStorage)


@pytest.mark.parametrize(("url", "options"), [("s3://", {}), ("s3://b", {"regoin": "x"}), ("az://c", {})])
def test_a_url_or_option_that_cannot_be_read_is_a_config_error(url: str, options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="correct the URL or its options"):
        open_storage(url, options=options)


def test_a_store_that_is_not_there_is_a_store_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        options = {
            "endpoint": f"http://127.0.0.1:{taken.getsockname()[1]}",
            "region": "us-east-1",
            "access_key_id": "a",
            "secret_access_key": "b",
            "allow_http": "true",
        }
        storage = open_storage("s3://bucket/prefix", options=options, cache=tmp_path)
        with pytest.raises(StoreError, match="check the URL"):
            storage.put(b"water")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here; the file size limit is tested instead")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_said_and_leaves_nothing(small_disk: Path) -> None:
    storage = LocalStorage(small_disk)
    kept = storage.put(b"k" * 1_000)
    with pytest.raises(DiskFull, match="free some"):
        storage.put(b"x" * 1_000_000)
    assert storage.get(kept) == b"k" * 1_000
    assert list((small_disk / "incoming").iterdir()) == []
    assert storage.put(b"y" * 50_000)


def test_a_write_that_the_system_refuses_is_a_store_error(tmp_path: Path) -> None:
    code = f"""
import resource, sys
from pathlib import Path
from noria.errors import StoreError
from noria.storage.local import LocalStorage
storage = LocalStorage(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, {resource.RLIM_INFINITY}))
try:
    storage.put(b"x" * 1_000_000)
except StoreError as err:
    print(err.__cause__.errno)
print(sum(1 for path in Path(sys.argv[1]).rglob("*") if path.is_file()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(errno.EFBIG), "0"]


def test_what_is_removed_is_gone_and_may_come_again(storage: Storage) -> None:
    sha256 = storage.put(b"a name")
    storage.fetch(sha256)
    assert storage.remove(sha256)
    assert not storage.remove(sha256)
    assert not storage.exists(sha256)
    for read in (storage.get, storage.fetch):
        with pytest.raises(NotFound):
            read(sha256)
    assert storage.get(storage.put(b"a name")) == b"a name"


def test_blobs_are_listed_and_parts_are_their_own(storage: Storage) -> None:
    assert list(storage.listed()) == []
    began = datetime.now(UTC)
    sha256 = storage.put(b"water")
    (held,) = storage.listed()
    assert (held.sha256, held.size_bytes) == (sha256, 5)
    assert abs(held.kept_at - began) < timedelta(minutes=1)
    part, other = storage.part("files-scans"), storage.part("files-docs")
    assert (part.exists(sha256), list(part.listed())) == (False, [])
    assert part.put(b"water") == sha256
    inner = part.part("more").put(b"mill")
    assert [each.sha256 for each in part.listed()] == [each.sha256 for each in storage.listed()] == [sha256]
    assert not other.exists(sha256) and not part.exists(inner)
    assert part.fetch(sha256).read_bytes() == b"water"
    assert part.remove(sha256)
    with pytest.raises(NotFound):
        part.fetch(sha256)
    assert storage.get(sha256) == storage.fetch(sha256).read_bytes() == b"water"


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x"])
def test_a_part_stays_below_its_storage(storage: Storage, name: str) -> None:
    with pytest.raises(ValueError, match="names no part"):
        storage.part(name)
