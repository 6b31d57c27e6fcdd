"""`noria model ...` as somebody types it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Said

Say = Callable[..., Said]


def test_what_was_where_is_shown(say: Say, tiny_lived: Path) -> None:
    shown = say("model", "show", "late_parcel:4", "--project", tiny_lived).out
    for told in ("owner", "nobody has written of it yet", "Where it is, and was", "What it depends on"):
        assert told in shown
    history = say("model", "history", "late_parcel", "--project", tiny_lived).out
    assert "30% trial" in history
    assert "Let in by" in history
    at = say("model", "at", "2024-02-16", "late_parcel@production", "--project", tiny_lived).out
    assert at.startswith("late_parcel@production had late_parcel:2 on 2024-02-16 UTC")
    compared = say("model", "compare", "late_parcel:2", "late_parcel:5", "--project", tiny_lived).out
    assert "432 answered requests with an outcome" in " ".join(compared.split())
    explained = say("model", "explain", "late_parcel:5", "--limit", 1, "--project", tiny_lived).out
    assert "together" in explained


@pytest.mark.parametrize(
    ("typed", "key"),
    [
        (["show", "late_parcel:4"], "explanation"),
        (["card", "late_parcel:4"], "markdown"),
        (["history", "late_parcel"], "chain"),
        (["at", "2024-02-16", "late_parcel@production"], "stays"),
        (["compare", "late_parcel:1", "late_parcel:2"], "importance"),
        (["explain", "late_parcel:2"], "unit"),
    ],
)
def test_answers_are_json_as_well(say: Say, tiny_lived: Path, typed: list[str], key: str) -> None:
    found = say("model", *typed, "--json", "--project", tiny_lived)
    answer = json.loads(found.out)
    assert (found.code, found.err) == (0, "")
    assert key in (answer[0] if isinstance(answer, list) else answer)


def test_a_card_is_printed_edited_and_given_back(say: Say, lived_copy: Path, tmp_path: Path) -> None:
    project, file = ("--project", lived_copy), tmp_path / "card.md"
    file.write_text(say("model", "card", "late_parcel:5", *project).out + "")
    given = say("model", "card", "late_parcel:5", "--edit", file, *project)
    assert "no section" in given.out  # nothing was written in it
    file.write_text("# mine\n\n## Limitations\nNone in \x1b[31msummer.\n")
    assert "Limitations" in say("model", "card", "late_parcel:5", "--edit", file, *project).out
    printed = say("model", "card", "late_parcel:5", *project).out
    assert "\x1b" not in printed
    file.write_text(printed.replace("summer", "spring"))
    assert say("model", "card", "late_parcel:5", "--edit", file, *project).code == 0
    refused = say("model", "card", "late_parcel:5", "--edit", file, *project)
    assert (refused.code != 0, "print it again" in refused.err) == (True, True)
    listed = say("model", "card", "late_parcel:5", "--history", *project).out
    assert listed.count("Limitations") == 2
    page = tmp_path / "card.html"
    assert str(page) in say("model", "card", "late_parcel:5", "--html", page, *project).out.replace("\n", "")
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "empty"), (b"caf\xe9", "not UTF-8"), (b"a\0b", "NUL"), (b"x" * 2_000_001, "at most")],
)
def test_a_file_that_is_no_card_is_refused(
    say: Say, lived_copy: Path, tmp_path: Path, content: bytes, told: str
) -> None:
    file = tmp_path / "card.md"
    file.write_bytes(content)
    found = say("model", "card", "late_parcel:5", "--edit", file, "--project", lived_copy)
    assert found.code != 0
    assert told in found.err
    assert "Traceback" not in found.err


def test_labels_and_restoring(say: Say, lived_copy: Path) -> None:
    def model(*typed: object) -> Said:
        return say("model", *typed, "--project", lived_copy)

    assert "models:/late_parcel@best" in model("alias", "late_parcel:4", "best").out
    assert "no alias best" in model("alias", "late_parcel", "best", "--remove").out
    assert "why of late_parcel:4 is because" in model("tag", "late_parcel:4", "why", "because").out
    assert "give a value" in model("tag", "late_parcel:4", "why").err
    assert "no tag why" in model("tag", "late_parcel:4", "why", "--remove").out
    assert "is described" in model("describe", "late_parcel", "is it late?").out
    assert "has not passed the gate" in model("restore", "late_parcel:3").err
    assert "late_parcel:1 answers all traffic" in model("restore", "late_parcel:1").out
    assert "no deleted version" in model("undelete", "late_parcel:1").err
