import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import noria

Say = Callable[..., Any]

DECLARED = """
import noria
from noria import check

orders = noria.Dataset(
    "orders", key="id", event_at="at", checks=[check.between("eur", 0, 100)], max_rejected_share=0.9,
    schema={"id": "int64", "who": "string", "eur": "double", "at": "timestamp[us, tz=UTC]"})
"""
ROWS = (
    "id,who,eur,at\n1,zoraya,5,2024-03-01T10:00Z\n2,ben,6,2024-03-01T11:00Z\n3,zoraya,700,2024-03-01T12:00Z\n"
)


@pytest.fixture
def shop(say: Say, tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    assert say("init", folder).code == 0
    (folder / "project.py").write_text(DECLARED)
    (folder / "orders.csv").write_text(ROWS)
    found = say("ingest", "orders", folder / "orders.csv", "--project", folder)
    assert found.code == 0, found.err
    return folder


def test_a_subject_is_forgotten_and_everything_still_adds_up(say: Say, shop: Path) -> None:
    would = say("dataset", "forget", "orders", "who", "zoraya", "--dry-run", "--project", shop)
    assert "1 row and 1 rejected row of orders would be forgotten" in would.out
    found = say("dataset", "forget", "orders", "who", "zoraya", "--reason", "asked", "--project", shop)
    assert (found.code, "1 row and 1 rejected row" in found.out) == (0, True)
    with noria.open(shop) as project:
        assert project.query("select who from orders")["who"].to_pylist() == ["ben"]
        assert project.query("select who from orders for version as of 1")["who"].to_pylist() == ["ben"]
        assert project.query("select count(*) as n from orders__rejected")["n"].to_pylist() == [0]
        assert project.ledger.verify().ok
    left = [each for each in (shop / ".noria" / "storage").rglob("*") if each.is_file()]
    assert [each for each in left if b"zoraya" in each.read_bytes()] == []
    assert "1 datasets as recorded" in say("doctor", "--project", shop).out


def test_rows_are_deleted_and_older_versions_keep_them(say: Say, shop: Path) -> None:
    found = say("dataset", "delete", "orders", "eur > 5.5", "--reason", "a test", "--project", shop)
    assert (found.code, "1 row of orders deleted; it is orders:2 now" in found.out) == (0, True)
    again = say("dataset", "delete", "orders", "eur > 5.5", "--reason", "a test", "--project", shop)
    assert "no such row" in again.out
    with noria.open(shop) as project:
        assert project.query("select id from orders")["id"].to_pylist() == [1]
        assert project.query("select id from orders for version as of 1")["id"].to_pylist() == [1, 2]


def test_what_is_asked_wrongly_changes_nothing(say: Say, shop: Path) -> None:
    unknown = say("dataset", "forget", "orders", "whom", "zoraya", "--project", shop)
    assert (unknown.code != 0, "who" in unknown.err) == (True, True)
    wrong = say("dataset", "forget", "orders", "id", "zoraya", "--project", shop)
    assert "int64" in wrong.err
    broken = say("dataset", "delete", "orders", "eur >", "--reason", "a test", "--project", shop)
    assert broken.code != 0
    with noria.open(shop) as project:
        assert project.query("select count(*) as n from orders")["n"].to_pylist() == [2]


def test_a_vacuum_removes_only_what_no_version_needs(say: Say, shop: Path) -> None:
    stray = shop / ".noria" / "storage" / "tables" / "orders" / f"part-stray-{'0' * 64}.parquet"
    stray.write_bytes(b"left by a batch that was killed")
    two_days_ago = time.time() - 2 * 86_400
    os.utime(stray, (two_days_ago, two_days_ago))
    kept = say("dataset", "vacuum", "--project", shop)
    assert "No table holds a file" in kept.out
    told = say("dataset", "vacuum", "orders", "--retention", "1d", "--dry-run", "--project", shop)
    assert ("would go" in told.out, stray.exists()) == (True, True), (told.out, told.err)
    assert say("dataset", "vacuum", "--retention", "1d", "--project", shop).code == 0
    assert not stray.exists()
    with noria.open(shop) as project:
        assert project.query("select count(*) as n from orders")["n"].to_pylist() == [2]
    assert say("dataset", "vacuum", "--retention", "soon", "--project", shop).code != 0
