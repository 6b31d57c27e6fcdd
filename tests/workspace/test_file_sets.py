"""Folders of files: what is new, changed or gone is taken in, and what was kept can be opened."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

import noria
from noria.cli import main
from noria.errors import ConfigError, DigestMismatch, LeaseHeld, NotFound
from noria.workspace import file_sets
from noria.workspace.file_sets import kept_of, take_files
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
    kept = kept_of(project, "scans").fetch(digest(b"one"))
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


def blobs(project: Project) -> set[str]:
    return {each.sha256 for each in kept_of(project, "scans").listed()}


def test_bytes_go_once_no_row_of_any_kept_version_names_them(project: Project) -> None:
    put(project, "1.png", b"one")
    put(project, "2.png", b"two")
    project.ingest("scans")
    changed = put(project, "1.png", b"new", second=9)
    project.ingest("scans")
    changed.unlink()
    project.ingest("scans")
    everything = {digest(b"one"), digest(b"two"), digest(b"new")}
    assert project.vacuum("scans", retention=timedelta(0)).removed == ()
    project.lake.delete("scans", "path = 'scans/1.png'", reason="not wanted")
    assert project.vacuum("scans", retention=timedelta(0)).removed == ()  # versions on record have the rows
    assert blobs(project) == everything
    project.lake.forget("scans", "path", ["scans/1.png"])
    gone = {f"sha256/{each[:2]}/{each}" for each in everything - {digest(b"two")}}
    assert project.vacuum("scans").removed == ()  # too young
    told = project.vacuum("scans", retention=timedelta(0), dry_run=True)
    assert ({each.path for each in told.removed}, told.size_bytes) == (gone, 2 * len(PNG + b"one"))
    assert blobs(project) == everything
    done = project.vacuum("scans", retention=timedelta(0))
    assert ({each.path for each in done.removed}, blobs(project)) == (gone, {digest(b"two")})
    with project.blob("scans", "scans/2.png", version=1) as file:
        assert file.read() == PNG + b"two"


def test_bytes_of_an_ingest_that_was_killed_go_and_those_of_others_stay(project: Project) -> None:
    put(project, "1.png", b"one")
    kept = kept_of(project, "scans")
    stray, same = kept.put(b"never named"), project.storage.put(b"never named")
    assert [each.path[-64:] for each in project.vacuum("scans", retention=timedelta(0)).removed] == [stray]
    assert (kept.exists(stray), project.storage.get(same)) == (False, b"never named")
    project.ingest("scans")
    kept.put(b"never named")
    done = project.vacuum("scans", retention=timedelta(0))
    assert [each.path[-64:] for each in done.removed] == [stray]
    assert blobs(project) == {digest(b"one")}


def test_bytes_stay_where_versions_are_on_record_and_the_table_cannot_be_found(project: Project) -> None:
    put(project, "1.png", b"one")
    project.ingest("scans")
    table = project.root / ".noria" / "storage" / "tables" / "scans"
    project.close()
    table.rename(table.with_name("away"))
    with noria.open(project.root) as again:
        assert again.vacuum("scans", retention=timedelta(0)).removed == ()
        assert blobs(again) == {digest(b"one")}


def test_bytes_named_by_rows_that_went_lately_stay_with_them(project: Project) -> None:
    put(project, "1.png", b"one")
    project.ingest("scans")
    put(project, "2.png", b"two")
    project.ingest("scans")
    project.lake.compact("scans")  # no version on record needs it, and the old files are there for a while
    assert project.vacuum("scans").removed == ()
    removed = project.vacuum("scans", retention=timedelta(0)).removed
    assert not any(each.path.startswith("sha256/") for each in removed)
    assert blobs(project) == {digest(b"one"), digest(b"two")}


def test_nothing_is_removed_while_files_are_taken_in(project: Project) -> None:
    put(project, "1.png", b"one")
    seen: list[str] = []

    def describe(path: Path) -> dict[str, object]:
        with noria.open(project.root) as other, pytest.raises(LeaseHeld):
            other.vacuum("scans", retention=timedelta(0))
        seen.append(path.name)
        return {}

    files = replace(project.declarations.files["scans"], describe=describe)
    assert take_files(project, files, cause=None, at=None).accepted == 1
    assert seen == ["1.png"]
    with project.blob("scans", "scans/1.png") as file:
        assert file.read() == PNG + b"one"


def test_an_ingest_that_lost_its_hold_names_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine slept for longer than a lease lasts, and a vacuum came between."""
    for name in ("1.png", "2.png"):
        put(project, name, name.encode())
    monkeypatch.setattr(file_sets, "_LEASE_S", 0.05)

    def sleep(path: Path) -> dict[str, object]:
        if path.name == "2.png":
            time.sleep(0.2)
            with noria.open(project.root) as other:
                assert len(other.vacuum("scans", retention=timedelta(0)).removed) == 2
        return {}

    files = replace(project.declarations.files["scans"], describe=sleep)
    with pytest.raises(LeaseHeld):
        take_files(project, files, cause=None, at=None)
    assert not project.lake.exists("scans")
    assert project.ingest("scans")[0].accepted == 2
    with project.blob("scans", "scans/1.png") as file:
        assert file.read() == PNG + b"1.png"


def test_a_vacuum_tells_file_by_file(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    stray = kept_of(project, "scans").put(b"never named")
    os.utime(kept_of(project, "scans").fetch(stray), (WRITTEN.timestamp(),) * 2)
    root = str(project.root)
    assert main(["dataset", "vacuum", "--dry-run", "--project", root]) == 0
    told = capsys.readouterr().out
    assert "would go" in told and stray[:20] in told
    assert main(["dataset", "vacuum", "--project", root]) == 0
    assert "gone" in capsys.readouterr().out
    assert blobs(project) == set()
