"""Forgetting is killed anywhere, or meets others who rewrite the table: the subject is gone in the end."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from tests.lake.test_forget import MAIL, PEOPLE, bytes_below, people

from noria.clock import ReplayClock
from noria.database.store import Database
from noria.errors import Conflict
from noria.lake.declarations import Dataset
from noria.lake.delta import Table
from noria.lake.files import LocalFiles
from noria.lake.log import Commit, commits
from noria.lake.redactions import Redactions
from noria.lake.store import Lake
from noria.ledger.store import Ledger

WRITES = ((LocalFiles, "put"), (LocalFiles, "create"), (LocalFiles, "delete"), (Table, "checkpoint"))


class Killed(BaseException):
    """Nothing of the process goes on."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], list[str]]]:
    """Stop right before the n-th write from now on; gives the writes there were."""

    def arm(number: int) -> list[str]:
        done: list[str] = []

        def watched(kind: type, name: str) -> Any:
            original = getattr(kind, name)

            def write(self: Any, *args: Any) -> Any:
                if len(done) == number:
                    raise Killed
                done.append(name)
                return original(self, *args)

            return write

        for kind, name in WRITES:
            monkeypatch.setattr(kind, name, watched(kind, name))
        return done

    yield arm
    monkeypatch.undo()


def fill(root: Path, clock: ReplayClock) -> None:
    """Make a table whose bounds, and those of an older checkpoint, are the subject."""
    with Database.open(f"sqlite:///{root}/noria.db") as database:
        lake = Lake(f"{root}/lake", ledger=Ledger(database, clock=clock))
        lake.ingest(PEOPLE, people(1, "a@x", MAIL), batch=1)
        lake.ingest(PEOPLE, people(10, MAIL, age=200), batch=2)
        DeltaTable(f"{root}/lake/people").create_checkpoint()
        DeltaTable(f"{root}/lake/people__rejected").create_checkpoint()
        lake.ingest(PEOPLE, people(20, "b@x"), batch=3)
        lake.close()


def test_a_kill_before_any_write_leaves_nothing_that_the_same_call_does_not_take_out(
    tmp_path: Path, clock: ReplayClock, kill_at: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "first"
    first.mkdir()
    fill(first, clock)
    assert MAIL in bytes_below(first / "lake")
    number, was_killed = 0, True
    while was_killed:
        root = tmp_path / str(number)
        shutil.copytree(first, root)
        with Database.open(f"sqlite:///{root}/noria.db") as database:
            ledger = Ledger(database, clock=clock)
            done = kill_at(number)
            try:
                Lake(f"{root}/lake", ledger=ledger).forget("people", "mail", [MAIL])
                was_killed = False
            except Killed:
                pass
            monkeypatch.undo()
            lake = Lake(f"{root}/lake", ledger=ledger)
            lake.forget("people", "mail", [MAIL])
            assert MAIL not in bytes_below(root / "lake"), f"killed after {done}"
            assert lake.read("people")["mail"].to_pylist() == ["a@x", "b@x"]
            assert lake.read("people__rejected").num_rows == 0
            for version in ledger.list_versions(kind="dataset", name="people"):
                found = lake.version_digest("people", version, verify=True)
                assert found == lake.expected_digest(version), f"killed after {done}"
            lake.close()
        shutil.rmtree(root)
        number += 1
    assert set(done) == {"put", "create", "delete", "checkpoint"}
    assert number > 12


@pytest.mark.parametrize("work", ["compact", "delete", "overwrite"])
def test_rows_that_others_put_into_other_files_meanwhile_go_too(
    lake: Lake,
    ledger: Ledger,
    reopened: Callable[[], Lake],
    tmp_path: Path,
    work: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other one commits between the search of the files and the commit of what is left."""
    lake.ingest(PEOPLE, people(1, "a@x", MAIL), batch=1)
    lake.ingest(PEOPLE, people(10, MAIL, "b@x"), batch=2)
    other = reopened()
    works: dict[str, Callable[[], Any]] = {
        "compact": lambda: other.compact("people"),
        "delete": lambda: other.delete("people", "mail = 'b@x'", reason="gone"),
        "overwrite": lambda: other.overwrite(
            PEOPLE, people(11, "c@x"), column="id", low=11, high=12, batch=1
        ),
    }
    original = Redactions.add
    calls: list[str] = []

    def add(self: Redactions, replaced: Any) -> bool:
        if not calls:
            calls.append(work)
            works[work]()
        return original(self, replaced)

    monkeypatch.setattr(Redactions, "add", add)
    done = lake.forget("people", "mail", [MAIL])
    assert calls
    assert done.rows == 2
    left = {"compact": ["a@x", "b@x"], "delete": ["a@x"], "overwrite": ["a@x", "c@x"]}[work]
    for each in (lake, other, reopened()):
        assert sorted(each.read("people")["mail"].to_pylist()) == left
    assert MAIL not in bytes_below(tmp_path / "lake")
    removed = [each.payload["removed"] for each in ledger.list_events(verb="dataset.forgotten")]
    assert sum(removed) == 2


def test_two_subjects_forgotten_at_once_are_both_gone(
    lake: Lake, reopened: Callable[[], Lake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.ingest(PEOPLE, people(1, "a@x", "b@x", MAIL), batch=1)
    other = reopened()
    original = Redactions.add
    calls: list[str] = []

    def add(self: Redactions, replaced: Any) -> bool:
        if not calls:
            calls.append("other")
            other.forget("people", "mail", ["b@x"])
        return original(self, replaced)

    monkeypatch.setattr(Redactions, "add", add)
    lake.forget("people", "mail", [MAIL])
    for each in (lake, other, reopened()):
        assert each.read("people")["mail"].to_pylist() == ["a@x"]
        assert each.read("people", version=1)["mail"].to_pylist() == ["a@x"]
    assert MAIL not in bytes_below(tmp_path / "lake")
    assert "b@x" not in bytes_below(tmp_path / "lake")


def test_the_same_rows_may_come_again_into_a_file_of_another_name(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path), ledger=None)
    dataset = Dataset("people", key="id", event_at="t", known_at="t")
    lake.ingest(dataset, people(1, "a@x"), batch=1)
    lake.ingest(dataset, people(2, MAIL), batch=2)
    lake.compact("people")
    lake.forget("people", "mail", [MAIL])
    lake.ingest(dataset, people(2, MAIL), batch=3)
    lake.compact("people")
    for each in (lake, Lake(str(tmp_path), ledger=None)):
        assert each.read("people")["mail"].to_pylist() == ["a@x", MAIL]
    assert DeltaTable(tmp_path / "people").count() == 2


def test_a_file_whose_rows_were_taken_out_is_not_added_again(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path), ledger=None)
    lake.append("log", pa.table({"mail": ["a@x", MAIL]}), batch=1, app_id="a")
    files = LocalFiles(tmp_path)
    other = Table(files, "log")
    (gone,) = other.files
    lake.forget("log", "mail", [MAIL])
    with pytest.raises(Conflict, match="taken out of the file of that name for good"):
        other.commit(add=[gone], facts={}, unless=lambda: False)
    assert [each.added for each in history(files)].count([gone.path]) == 1
    assert lake.read("log")["mail"].to_pylist() == ["a@x"]


def history(files: LocalFiles) -> list[Commit]:
    return list(commits(files, "log", last=Table(files, "log").version))
