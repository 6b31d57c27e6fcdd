"""Runs found by a filter, beside each other in a table, and what two of them differ in."""

import json
import math
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import noria as library
from noria.errors import BadFilter, NotFound
from noria.tracking.runs import tracked_run

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[library.Project]:
    (tmp_path / "noria.toml").write_text('[project]\nname = "site"\nmodules = []\n')
    with library.open(tmp_path) as opened:
        yield opened


def _log(project: library.Project, name: str, auc: float, *, leaves: int, seed: int | None = None) -> str:
    with tracked_run(project.ledger, "train", name, experiment="night", seed=seed) as tracked:
        tracked.log_params({"leaves": leaves, "rate": 0.1})
        tracked.log_metrics({"auc": auc})
        tracked.put_tag("team", "ops")
    return tracked.id


def test_runs_are_found_by_a_filter_in_order(project: library.Project) -> None:
    one, two, three = (_log(project, f"r{each}", each / 10, leaves=each) for each in (1, 2, 3))
    found = project.runs.search("metrics.auc > 0.1", order_by=["metrics.auc DESC"])
    assert [each.id for each in found] == [three, two]
    assert [each.id for each in project.runs.search("params.leaves = '1'", experiments=["night"])] == [one]
    assert project.runs.search(experiments=["Default"]) == []
    with pytest.raises(NotFound, match="night"):
        project.runs.search(experiments=["nihgt"])
    with pytest.raises(BadFilter):
        project.runs.search("metrics.auc >")


def test_one_is_as_good_as_a_list_of_one(project: library.Project) -> None:
    one = _log(project, "a", 0.5, leaves=31)
    (found,) = project.runs.search(experiments="night", order_by="metrics.auc DESC")
    assert found.id == one
    assert project.runs.compare(one)["run"].to_pylist() == [one]


def test_a_name_moves_no_terminal(project: library.Project, noria: Run) -> None:
    _log(project, "a\x1b[31m\rb\x9b2J", 0.5, leaves=31)
    shown = noria("run", "search", "--project", project.root).stdout
    assert "a\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}b" in shown
    assert not {"\x1b", "\r", "\x9b"} & {*shown}


def test_runs_are_compared_in_a_table(project: library.Project) -> None:
    ids = [_log(project, "a", 0.5, leaves=31), _log(project, "b", math.nan, leaves=63)]
    with tracked_run(project.ledger, "train", "bare", params={"only": "here"}) as bare:
        table = project.runs.compare([*ids, bare.id])
    fixed = ["run", "kind", "name", "state", "started_at", "ended_at"]
    logged = ["params.leaves", "params.only", "params.rate", "metrics.auc", "tags.team"]
    assert table.column_names == [*fixed, *logged]
    assert table["name"].to_pylist() == ["a", "b", "bare"]
    assert table["state"].to_pylist() == ["finished", "finished", "running"]
    assert table["params.leaves"].to_pylist() == ["31", "63", None]
    assert table["metrics.auc"].to_pylist()[0] == 0.5
    assert math.isnan(table["metrics.auc"][1].as_py())


def test_what_two_runs_differ_in_is_told(project: library.Project) -> None:
    one, other = _log(project, "a", 0.5, leaves=31, seed=1), _log(project, "b", 0.75, leaves=63, seed=2)
    found = project.runs.diff(one, other)
    assert {name: tuple(map(str, (pair.one, pair.other))) for name, pair in found.params.items()} == {
        "leaves": ("31", "63")
    }
    assert (found.metrics["auc"].one, found.metrics["auc"].other) == (0.5, 0.75)
    assert (found.tags, found.inputs, found.code, found.distributions) == ({}, {}, None, {})
    assert found.seed is not None
    assert (found.seed.one, found.seed.other) == ("1", "2")
    assert project.runs.diff(one, one).is_none


def test_data_that_differ_are_named_by_their_versions(project: library.Project) -> None:
    versions = [
        project.ledger.record_version("dataset", "trips", sha256=each * 64, uri="x") for each in ("a", "b")
    ]
    ids = []
    for version in versions:
        with tracked_run(project.ledger, "train", "late") as tracked:
            tracked.add_input(version)
        ids.append(tracked.id)
    pair = project.runs.diff(*ids).inputs["dataset trips"]
    assert (pair.one, pair.other) == ("1", "2")


def test_the_commands_say_the_same(project: library.Project, noria: Run) -> None:
    one, other = _log(project, "first", 0.5, leaves=31), _log(project, "second", 0.75, leaves=63)
    found = noria("run", "search", "metrics.auc > 0.6", "--project", project.root)
    assert (found.returncode, "second" in found.stdout, "first" in found.stdout) == (0, True, False)
    with tracked_run(project.ledger, "train", "rich", experiment="night") as tracked:
        tracked.log_metrics({f"m{each}": each for each in range(9)})
    shown = noria("run", "search", "metrics.m8 > 1", "--order-by", "metrics.m7", "--project", project.root)
    assert "m7 7, m8 8, m0 0, m1 1, and 5 more" in " ".join(shown.stdout.split())
    rows = json.loads(noria("run", "search", "metrics.auc > 0", "--json", "--project", project.root).stdout)
    assert [each["name"] for each in rows] == ["second", "first"]
    shown = noria("run", "diff", one, other, "--project", project.root)
    assert shown.returncode == 0
    assert "leaves" in shown.stdout
    assert "rate" not in shown.stdout
    assert json.loads(noria("run", "diff", one, other, "--json", "--project", project.root).stdout)[
        "params"
    ] == {"leaves": ["31", "63"]}
    refused = noria("run", "search", "metrics.auc >", "--project", project.root)
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
