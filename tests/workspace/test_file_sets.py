"""Folders of files: what is new, changed or gone is taken in, and what was kept can be opened."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

import noria
from noria.errors import ConfigError, DigestMismatch, LeaseHeld, NotFound
from noria.workspace.project import Project

DECLARED = """
from pathlib import Path

import noria


def describe(path: Path) -> dict[str, object]:
    return {"ward": path.parent.name, "pages": [1, 2]}


scans = noria.Files("scans", folder="scans/**/*.png", describe=describe, owner="ann", tags=("images",))
"""
PNG = b"\x89PNG\r\n\x1a\n"
WRITTEN = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "noria.toml").write_text('[project]\nname = "ward"\nmodules = ["files_declared"]\n')
    (tmp_path / "files_declared.py").write_text(DECLARED)
    (tmp_path / "scans").mkdir()
    with noria.open(tmp_path) as opened:
        yield opened


def put(project: Project, name: str, content: bytes, *, second: int = 0) -> Path:
    path = project.root / "scans" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(PNG + content)
    os.utime(path, (WRITTEN.timestamp() + second,) * 2)
    return path


def rows(project: Project, version: int | None = None) -> list[tuple[str, int, str, str]]:
    found = project.lake.read("scans", version=version).to_pylist()
    return sorted((each["path"], each["revision"], each["state"], each["sha256"][:4]) for each in found)


def digest(content: bytes) -> str:
    return sha256(PNG + content).hexdigest()


def test_new_changed_and_removed_files_are_rows(project: Project) -> None:
    assert project.ingest("scans")[0].state == "empty"
    put(project, "1.png", b"one")
    second = put(project, "a/2.png", b"two")
    put(project, "note.txt", b"other")
    assert project.ingest("scans")[0].accepted == 2
    assert project.ingest("scans")[0].state == "empty"
    put(project, "1.png", b"One", second=5)
    second.unlink()
    put(project, "3.png", b"two")
    (done,) = project.ingest("scans")
    assert (done.accepted, done.version and done.version.ref) == (3, "scans:2")
    one, two, new = (digest(each)[:4] for each in (b"one", b"two", b"One"))
    assert rows(project, version=1) == [
        ("scans/1.png", 1, "present", one),
        ("scans/a/2.png", 1, "present", two),
    ]
    assert rows(project) == [
        ("scans/1.png", 1, "present", one),
        ("scans/1.png", 2, "present", new),
        ("scans/3.png", 1, "present", two),
        ("scans/a/2.png", 1, "present", two),
        ("scans/a/2.png", 2, "removed", two),
    ]
    put(project, "a/2.png", b"two")
    assert project.ingest("scans")[0].accepted == 1
    assert rows(project)[-1] == ("scans/a/2.png", 3, "present", two)


def test_rows_tell_what_a_file_is(project: Project) -> None:
    put(project, "a/2.png", b"two")
    project.ingest("scans")
    (row,) = project.lake.read("scans").to_pylist()
    assert row["known_at"] >= row["event_at"]
    assert {name: row[name] for name in ("media_type", "size_bytes", "event_at", "metadata")} == {
        "media_type": "image/png",
        "size_bytes": 11,
        "event_at": WRITTEN,
        "metadata": '{"pages":[1,2],"ward":"a"}',
    }
    shown = project.datasets.show("scans")
    assert (shown.summary.owner, shown.summary.tags, shown.files) == ("ann", ("images",), "scans/**/*.png")


def test_what_was_kept_can_be_opened(project: Project) -> None:
    path = put(project, "1.png", b"one")
    project.ingest("scans")
    put(project, "1.png", b"other", second=9)
    project.ingest("scans")
    path.unlink()
    with project.blob("scans", "scans/1.png") as file:
        assert file.read() == PNG + b"other"
    with project.blob("scans", "scans/1.png", version=1) as file:
        assert file.read() == PNG + b"one"
    with project.blob("scans", digest(b"one")) as file:
        assert file.read(4) == PNG[:4]
    project.ingest("scans")
    with (
        pytest.raises(NotFound, match=r"no file of scans named 'scans/1\.png'"),
        project.blob("scans", "scans/1.png"),
    ):
        pass
    with (
        pytest.raises(NotFound, match="no folder of files named 'scan'; did you mean 'scans'"),
        project.blob("scan", "x"),
    ):
        pass


def test_bytes_that_were_changed_are_not_given(project: Project) -> None:
    put(project, "1.png", b"one")
    project.ingest("scans")
    kept = project.storage.fetch(digest(b"one"))
    kept.chmod(0o644)
    kept.write_bytes(b"forged")
    with pytest.raises(DigestMismatch), project.blob("scans", "scans/1.png"):
        pass


def test_a_file_that_cannot_be_read_is_set_aside_and_comes_later(project: Project) -> None:
    put(project, "1.png", b"one")
    bad = project.root / "scans" / os.fsdecode(b"b\xff.png")
    bad.write_bytes(PNG)
    (done,) = project.ingest("scans")
    assert (done.accepted, done.rejected) == (1, 1)
    (rejected,) = project.lake.read("scans__rejected").to_pylist()
    assert rejected["reason"] == "the file cannot be read: its name is no UTF-8 text; rename it"
    assert rejected["payload"] == "scans/b\\xff.png"
    bad.rename(project.root / "scans" / "2.png")
    assert project.ingest("scans")[0].accepted == 1


def test_a_folder_is_ingested_as_declared_and_by_one_process(project: Project) -> None:
    with pytest.raises(ConfigError, match="ingest it without naming anything"):
        project.ingest("scans", "scans/1.png")
    put(project, "1.png", b"one")
    code = (
        "import sys, noria\n"
        "project = noria.open(sys.argv[1])\n"
        "project.ledger.acquire_lease('files:scans', ttl_s=60)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(project.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(LeaseHeld):
            project.ingest("scans")
        other.stdin.close()
    assert project.ingest("scans")[0].accepted == 1  # a dead holder's lease is free
