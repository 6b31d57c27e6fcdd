import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.cli import screen

Say = Callable[..., Any]
IDS = re.compile(r"[0-9a-f]{32,}")


def fits(text: str) -> bool:
    """Say whether a screen has neither colour nor lines that are wider than 80 columns."""
    return "\x1b" not in text and all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("status", "Replay late_parcel: finished, 2024-02-03 to 2024-02-24"),
        ("status", "events are on record; `noria ledger verify` proves them"),
        ("run list", "ingest"),
        ("run list --kind train --limit 1", "train"),
        ("run list --kind train --state running", "There is no such run."),
        ("model list", "refit of late_parcel:4 on all rows"),
        ("model list", "drill: shuffled labels"),
        ("model show late_parcel:3", "gate refused"),
        ("model show late_parcel@production", "refit of late_parcel:4 on all rows"),
        ("why late_parcel@production", "decay found"),
        ("trace p01666", "digests were computed again and hold."),
        ("trace p01666 --environment production", "Features: 5 of 5 equal what the raw rows give offline"),
        ("ledger verify", "are as they were recorded."),
        ("doctor", "All is well."),
        ("query 'show tables'", "ledger_events"),
    ],
)
def test_a_screen_tells_in_plain_words_within_80_columns(
    say: Say, tiny_lived: Path, typed: str, told: str
) -> None:
    words = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", typed)]
    found = say(*words, "--project", tiny_lived)
    assert (found.code, found.err) == (0, "")
    assert told in " ".join(found.out.split())
    shown = "\n".join(line for line in found.out.splitlines() if not line.startswith("noria query '"))
    assert fits(re.sub(IDS, "", shown.replace(str(tiny_lived), ""))), (
        found.out
    )  # what is to be pasted may be long


@pytest.mark.parametrize(
    ("typed", "key"),
    [
        ("status", "deployments"),
        ("run list --limit 2", "cost"),
        ("model list", "stands_in"),
        ("model show late_parcel", "details"),
        ("why late_parcel@production", "links"),
        ("trace p01666", "digests"),
        ("ledger verify", "head"),
        ("doctor", "findings"),
    ],
)
def test_every_answer_is_json_as_well(say: Say, tiny_lived: Path, typed: str, key: str) -> None:
    found = say(*typed.split(), "--json", "--project", tiny_lived)
    answer = json.loads(found.out)
    assert (found.code, found.err) == (0, "")
    assert key in (answer[0] if isinstance(answer, list) else answer)


def test_a_run_is_shown_by_the_beginning_of_its_id(say: Say, tiny_lived: Path) -> None:
    (run,) = json.loads(
        say("run", "list", "--kind", "train", "--limit", 1, "--json", "--project", tiny_lived).out
    )
    found = say("run", "show", run["id"][:16], "--project", tiny_lived)
    assert run["id"] in found.out
    assert "training set late_parcel:5" in " ".join(found.out.replace("training_set", "training set").split())
    whole = json.loads(say("run", "show", run["id"], "--json", "--project", tiny_lived).out)
    assert [each["kind"] for each in whole["outputs"]] == ["explanation", "feature_statistics", "model"]
    assert whole["cause"]["verb"] == "gate.passed"


def test_a_query_shows_some_rows_and_gives_all_as_json(say: Say, tiny_lived: Path) -> None:
    sql = "select prediction_id, score from predictions where environment = 'production' order by 1"
    some = say("query", sql, "--rows", 2, "--project", tiny_lived).out.splitlines()
    assert some[0].split() == ["prediction_id", "score"]
    assert some[1].startswith("p00672")
    assert "the last" in some[-1]
    everything = json.loads(say("query", sql, "--json", "--project", tiny_lived).out)
    assert f"{len(everything):,} rows" in some[-1]


def test_options_may_come_before_the_command(say: Say, tiny_lived: Path) -> None:
    before = say("--project", tiny_lived, "--json", "ledger", "verify")
    assert before.out == say("ledger", "verify", "--json", "--project", tiny_lived).out


def test_a_replay_tells_its_months_decisions_and_money(tiny_lived: Path) -> None:
    screen = (tiny_lived.parent / "screen.txt").read_text(encoding="utf-8")
    for told in (
        "Taking in what was known before 2024-02-03",
        "2024-02-06  blocked",
        "2024-02-09  gate refused",
        "2024-02-17  trial passed",
        "1,008 predictions, 1,008 outcomes, late_parcel:5 answers",
        "Money: send a voucher, against 'never'",
        "One prediction, traced to its raw rows",
        "no values differ",
    ):
        assert told in screen
    assert "\x1b" not in screen
    report = json.loads((tiny_lived.parent / "report.json").read_text(encoding="utf-8"))
    wanted = {"loop", "frozen", "months", "decisions", "accidents", "money", "wall_s", "peak_rss_mb", "trace"}
    assert wanted <= set(report)
    assert report["loop"]["log_loss"] < report["frozen"]["log_loss"]
    assert report["peak_rss_mb"] > 100


def test_a_replay_that_is_over_is_told_again_at_once(say: Say, tiny_lived: Path) -> None:
    found = say("replay", "--project", tiny_lived)
    screen = (tiny_lived.parent / "screen.txt").read_text(encoding="utf-8")
    assert found.code == 0
    assert "Going on" not in found.out
    assert "late_parcel, 2024-02-03 to 2024-02-23" in found.out
    assert "Decisions" in screen


def test_a_rollback_is_on_record_with_its_reason(say: Say, lived_copy: Path) -> None:
    found = say("rollback", "late_parcel@production", "--reason", "I want to see it", "--project", lived_copy)
    assert "production/late_parcel is back at late_parcel:2" in found.out
    chain = json.loads(say("why", "late_parcel@production", "--json", "--project", lived_copy).out)
    assert chain["human"]
    assert chain["now"]["model"] == "late_parcel:2"
    assert {link["at"] for link in chain["links"]} == {"2024-02-24T00:00:00Z"}
    assert any(link["reason"] == "I want to see it" for link in chain["links"])


def test_a_changed_record_ends_with_7(say: Say, lived_copy: Path) -> None:
    import sqlite3

    head = json.loads(say("ledger", "verify", "--json", "--project", lived_copy).out)["head"]
    assert say("ledger", "verify", "--head", head, "--project", lived_copy).code == 0
    assert say("ledger", "verify", "--head", "ab" * 32, "--project", lived_copy).code == 7
    database = sqlite3.connect(lived_copy / ".noria" / "noria.db")
    database.execute("update runs set seed = 4 where kind = 'train'")
    database.commit()
    database.close()
    found = say("ledger", "verify", "--project", lived_copy)
    assert found.code == 7
    assert "The record was changed outside of noria" in found.out
    assert "was changed: its digest is" in " ".join(found.out.split())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (123456789.25, "123456789.25"),
        (-98_765_432_109.5, "-98765432109.5"),
        (1234567890.1199999, "1234567890.12"),
        (98765.43000001, "98765.43"),
        (0.1 + 0.2, "0.3"),
        (1 / 3, "0.333333"),
        (1234567.891234567, "1234567.89"),
        (48.208174, "48.208174"),
        (100.0, "100"),
        (0.0, "0"),
        (1.5e20, "1.5e+20"),
        (1.25e-7, "1.25e-07"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_lose_no_digit_that_somebody_wrote(
    capsys: pytest.CaptureFixture[str], value: float, shown: str
) -> None:
    screen.table(["x"], [[value]], right=["x"])
    assert capsys.readouterr().out.split() == ["x", shown]


@given(st.floats(-1e14, 1e14))
def test_a_shown_number_is_off_by_no_more_than_its_sixth_digit_or_half_a_cent(value: float) -> None:
    shown = float(screen.shorten(value))
    assert abs(shown - value) <= (
        max(abs(value), 5e-324) * 5.1e-6 if abs(value) < 1e4 else 0.0051 + abs(value) * 5.1e-15
    )
