"""Kept values that are gone or damaged: made again where somebody needs them, and never trusted."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.pipelines.conftest import MakeProject

import noria

WORK = """
    from noria import pipeline, step


    @step
    def small(x: int) -> list[int]:
        return [x] * 3


    @step
    def large(x: int) -> bytes:
        return bytes([x]) * 50_000


    @step
    def is_wanted(x: int) -> bool:
        return x > 0


    @step
    def use(a: list[int], b: bytes, n: int) -> int:
        return sum(a) + b[0] + len(b) + n


    @step
    def long(x: int) -> bytes:
        return bytes([x % 250]) * 60_000


    @step
    def short(x: int) -> str:
        return str(x)


    @pipeline
    def flow(n: int = 0) -> tuple[bytes, str]:
        used = use.when(is_wanted(1))(small(1), large(2), n)
        return long(used), short(used)
"""


def value_of(n: int) -> tuple[bytes, str]:
    used = 3 + 2 + 50_000 + n
    return bytes([used % 250]) * 60_000, str(used)


def execute(statement: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        with closing(sqlite3.connect(root / ".noria/noria.db")) as connection, connection:
            connection.execute(statement)

    return damage


def on_blobs(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        found = [each for each in (root / ".noria/storage").rglob("*") if each.is_file()]
        large = [each for each in found if each.stat().st_size >= 50_000]
        assert len(large) == 2
        for each in large:
            each.chmod(0o644)
            change(each)

    return damage


DAMAGES = {
    "small values are gone": execute("delete from step_values"),
    "small values are damaged": execute("update step_values set data = x'00'"),
    "small values are emptied": execute("update step_values set data = x''"),
    "large values are gone": on_blobs(lambda path: path.unlink()),
    "large values are overwritten": on_blobs(lambda path: path.write_bytes(b"zzz" * 20_000)),
    "large values are cut": on_blobs(lambda path: path.write_bytes(path.read_bytes()[:-1])),
    "large values are emptied": on_blobs(lambda path: path.write_bytes(b"")),
    "results are forgotten": execute("delete from step_cache"),
    "what steps were made of is forgotten": execute("delete from step_latest"),
    "sources are forgotten": execute("delete from step_code"),
}


@pytest.fixture
def root(make_project: MakeProject) -> Path:
    return make_project({"work.py": WORK})


def run(root: Path, n: int) -> Any:
    with noria.open(root) as project:
        result = project.run_pipeline("flow", {"n": n}, executor="inline")
        assert project.ledger.verify().ok
        return result


@pytest.mark.parametrize("n", [0, 5], ids=["nothing else changed", "an input changed too"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_the_result_is_right_whatever_was_damaged(root: Path, damage: str, n: int) -> None:
    assert run(root, 0).value == value_of(0)
    DAMAGES[damage](root)
    assert run(root, n).value == value_of(n)
    again = run(root, n)
    assert again.value == value_of(n)
    if damage != "small values are damaged" and damage != "small values are emptied":
        assert again.counts == {"cached": 6}


@pytest.mark.parametrize("damage", [each for each in DAMAGES if "gone" in each])
def test_a_plan_sees_what_is_gone(root: Path, damage: str) -> None:
    run(root, 0)
    DAMAGES[damage](root)
    with noria.open(root) as project:
        items = {each.task: each for each in project.plan_pipeline("flow", {"n": 0}).items}
    for name in ("large", "long") if "large" in damage else ("small", "is_wanted", "use"):
        assert items[name].state in ("run", "open")
    assert "its kept result is gone, or cannot be trusted" in {each.reason for each in items.values()}
