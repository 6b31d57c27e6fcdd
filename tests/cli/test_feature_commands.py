"""`noria feature`, as typed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Said

Say = Callable[..., Said]

DECLARED = """
import noria
from noria import agg

trips = noria.Dataset("trips", key="id", event_at="ended_at", files="data/*.csv")
courier = noria.FeatureView("courier", source=trips, entity="courier", features={
    "n_7d": agg.count("7d"), "slow_7d": agg.mean("slow", "7d"), "last": agg.last("minutes")})
pair = noria.FeatureView("pair", source=trips, entity=("courier", "zone"), features={"n_7d": agg.count("7d")})
"""


@pytest.fixture
def project(tmp_path: Path, say: Say) -> Path:
    (tmp_path / "noria.toml").write_text('[project]\nname = "t"\nmodules = ["feature_commands_declared"]\n')
    (tmp_path / "feature_commands_declared.py").write_text(DECLARED)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1.csv").write_text(
        "id,ended_at,courier,zone,minutes,slow\n"
        "a,2024-03-01T10:00:00Z,ada,1,20,false\n"
        "b,2024-03-02T10:00:00Z,ada,2,50,true\n"
        "c,2024-03-02T11:00:00Z,ben,1,31,true\n"
    )
    assert say("ingest", "trips", "--project", tmp_path).code == 0
    return tmp_path


def test_views_are_listed_loaded_and_read(say: Say, project: Path) -> None:
    told = say("feature", "list", "--project", project)
    assert (told.code, told.err) == (0, "")
    assert [line.split() for line in told.out.splitlines()[1:3]] == [
        ["courier", "trips", "courier", "3", "not", "loaded"],
        ["pair", "trips", "courier,", "zone", "1", "not", "loaded"],
    ]
    told = say("feature", "get", "courier", "ada", "--project", project)
    assert told.code == 3
    assert "noria feature materialize" in told.err
    told = say("feature", "materialize", "--project", project)
    assert told.out.splitlines()[0].startswith("courier: loaded from 3 rows, known until ")
    listed = json.loads(say("feature", "list", "--json", "--project", project).out)
    assert [each["online"] for each in listed] == ["current", "current"]
    told = say(
        "feature", "get", "courier", "ada", "zoe", "--project", project, "--at", "2100-01-01T00:00:00Z"
    )
    assert told.out.split() == ["courier", "ada", "n_7d", "0", "slow_7d", "last", "50", "courier", "zoe",
                                "n_7d", "0", "slow_7d", "last"]  # fmt: skip
    (row,) = json.loads(
        say("feature", "get", "pair", "zone=1,courier=ben", "--json", "--project", project).out
    )
    assert (row["courier"], row["zone"]) == ("ben", "1")


def test_a_view_is_shown(say: Say, project: Path) -> None:
    told = say("feature", "show", "courier", "--project", project)
    assert (told.code, told.err) == (0, "")
    assert "mean(slow, 7d)" in told.out
    assert json.loads(say("feature", "show", "courier", "--json", "--project", project).out)["entities"] == 2
    told = say("feature", "show", "couriers", "--project", project)
    assert told.code == 3
    assert "did you mean 'courier'?" in told.err


def test_online_is_held_against_offline(say: Say, project: Path) -> None:
    say("feature", "materialize", "--project", project)
    told = say("feature", "compare", "courier", "--project", project)
    assert (told.code, told.out) == (0, "courier: 6 values of 2 entities are the same online and offline.\n")
    (project / "data" / "2.csv").write_text(
        "id,ended_at,courier,zone,minutes,slow\nd,2024-03-03T10:00:00Z,ben,1,7,false\n"
    )
    say("ingest", "trips", "--project", project)
    told = say("feature", "compare", "courier", "--project", project)
    assert told.code == 1
    assert "of 6 values of 2 entities 1 differ" in told.out
    assert "noria feature materialize courier" in " ".join(told.out.split())


def test_a_value_is_traced(say: Say, project: Path) -> None:
    told = say("feature", "trace", "courier", "ada", "--project", project)
    assert (told.code, told.err) == (0, "")
    assert "Rows that were known (2), the newest event first" in told.out
    told = say("feature", "trace", "pair", "ada", "--project", project)
    assert told.code == 2
    assert "write courier=...,zone=..." in told.err
    told = say("feature", "trace", "courier", "ada", "yesterday", "--project", project)
    assert told.code == 2
    assert "'yesterday' is no instant" in told.err
    given = say(
        "feature",
        "trace",
        "pair",
        "courier=ada,zone=2",
        "2100-01-01T00:00:00Z",
        "--json",
        "--project",
        project,
    )
    assert json.loads(given.out)["rows"] == []  # they left the window of seven days
    given = say("feature", "trace", "courier", "ada", "--json", "--project", project)
    assert [each["id"] for each in json.loads(given.out)["rows"]] == ["b", "a"]


def test_without_views_it_says_what_to_write(say: Say, tmp_path: Path) -> None:
    (tmp_path / "noria.toml").write_text('[project]\nname = "t"\n')
    assert "noria.FeatureView(...)" in say("feature", "list", "--project", tmp_path).out
    told = say("feature", "materialize", "--project", tmp_path)
    assert told.code == 2
    assert "declares no feature view" in told.err
