"""`noria feature`, as typed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Said
from tests.features.feast.rides import write_rides

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


def test_views_are_searched(say: Say, project: Path) -> None:
    told = say("feature", "list", "--search", "slow", "--project", project)
    assert (told.code, told.err) == (0, "")
    assert "pair" not in told.out
    assert told.out.endswith("courier: slow_7d\n")
    assert "Did you mean 'courier'" in say("feature", "list", "--search", "curier", "--project", project).out
    assert json.loads(say("feature", "list", "--tag", "x", "--json", "--project", project).out) == []
    assert "feature list" in say("feature", "list", "--owner", "nobody", "--project", project).out


def test_views_are_put_on_record_and_their_readers_shown(say: Say, project: Path) -> None:
    told = say("feature", "register", "courier", "--project", project)
    assert (told.code, told.out) == (0, "courier: on record as courier:1, measured over 2 of 2 entities.\n")
    say("feature", "materialize", "--project", project)
    assert say("feature", "get", "courier", "ada", "ben", "--project", project).code == 0
    told = say("feature", "readers", "courier__n_7d", "--project", project)
    assert (told.code, told.err) == (0, "")
    assert told.out.startswith("Readers of courier__n_7d\n")
    (read,) = json.loads(say("feature", "readers", "courier", "--json", "--project", project).out)["reads"]
    assert (read["how"], read["calls"], read["entities"]) == ("get", 1, 2)
    shown = say("feature", "show", "courier", "--project", project).out
    assert "Statistics of 2 of 2 entities" in shown
    assert say("feature", "readers", "nobody", "--project", project).code == 3


def test_a_feast_repository_is_imported(say: Say, project: Path) -> None:
    repository = write_rides(project / "feast_repo")
    told = say("feature", "import-feast", repository, "--into", "rides_imported.py", "--project", project)
    assert (told.code, told.err) == (0, "")
    assert told.out.startswith("3 views, 3 datasets, 1 stream, 1 service written to rides_imported.py; ")
    assert "views.py:" in told.out
    assert "noria.FeatureView(" in (project / "rides_imported.py").read_text()
    again = say("feature", "import-feast", repository, "--into", "rides_imported.py", "--project", project)
    assert (again.code, "nothing was written" in again.err) == (4, True)
    found = json.loads(say("feature", "import-feast", repository, "--json", "--project", project).out)
    assert {each["kind"] for each in found["notes"]} == {"left out", "differs"}
    assert say("feature", "import-feast", project / "data", "--project", project).code == 3


def test_texts_vectors_and_lists_are_printed(say: Say, tmp_path: Path) -> None:
    (tmp_path / "noria.toml").write_text('[project]\nname = "t"\nmodules = ["feature_kinds_declared"]\n')
    more = '"zones": agg.top("zone", 6, "7d", values=range(9)), "note": agg.last_text("note")'
    text = DECLARED.replace('agg.count("7d"), "slow', f'agg.count("7d"), {more}, "slow')
    text = text.replace('event_at="ended_at"', 'event_at="ended_at", known_at="ended_at"')
    (tmp_path / "feature_kinds_declared.py").write_text(text)
    (tmp_path / "data").mkdir()
    rows = [f"{n},2024-03-0{n}T10:00:00Z,ada,{n},20,false,came by bike" for n in range(1, 7)]
    (tmp_path / "data" / "1.csv").write_text("\n".join(["id,ended_at,courier,zone,minutes,slow,note", *rows]))
    assert say("ingest", "trips", "--project", tmp_path).code == 0
    assert say("feature", "materialize", "courier", "--project", tmp_path).code == 0
    told = say("feature", "trace", "courier", "ada", "2024-03-06T12:00:00Z", "--project", tmp_path).out
    assert "came by bike" in told
    assert "[1, 2, 3, 4, ... 6 in all]" in told
