"""`noria user`, `noria artifact prune`, and `noria up` where others reach it."""

import base64
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from tests.workspace.up_harness import running

import noria

Say = Callable[..., Any]
SETTINGS = '[project]\nname = "small"\n[server]\nusers = "users.json"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "noria.toml").write_text(SETTINGS)
    return tmp_path


def test_users_come_and_go(say: Say, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = ("--project", folder)
    assert "There are none yet" in say("user", "list", *at).out
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse battery\n"))
    assert say("user", "add", "ada", "--role", "admin", *at).out == "ada may admin.\n"
    said = say("user", "add", "robot", "--no-password", *at)
    assert said.out.splitlines()[0] == "robot may write."
    assert "`noria user token robot`" in said.out
    token = say("user", "token", "robot", "--lasts", "90d", *at).out.strip()
    assert token.startswith("noria_")
    listed = json.loads(say("user", "list", "--json", *at).out)
    assert [(each["name"], each["role"], each["has_password"], len(each["tokens"])) for each in listed] == [
        ("ada", "admin", True, 0),
        ("robot", "write", False, 1),
    ]
    shown = say("user", "list", *at).out
    assert listed[1]["tokens"][0]["id"] in shown
    assert token not in shown + (folder / "users.json").read_text()
    assert say("user", "remove", "robot", "--token", listed[1]["tokens"][0]["id"], *at).code == 0
    assert say("user", "remove", "ada", *at).out == "ada may ask no more.\n"
    assert "ada" not in say("user", "list", *at).out


@pytest.mark.parametrize(
    ("words", "stdin", "code", "told"),
    [
        (("add", "ada"), "", 2, "no password came by standard input"),
        (("add", "ada"), "short\n", 2, "12 to 1,024 characters"),
        (("add", "a:b", "--no-password"), "", 2, "no name of a user"),
        (("token", "nobody"), "", 3, "no user named 'nobody'"),
        (("remove", "nobody"), "", 3, "no user named 'nobody'"),
        (("token", "nobody", "--lasts", "soon"), "", 2, "'soon' is no duration"),
    ],
)
def test_what_cannot_be_done_is_said(
    say: Say,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    stdin: str,
    code: int,
    told: str,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    said = say("user", *words, "--project", folder)
    assert (said.code, told in said.err) == (code, True), said.err


def test_a_project_that_asks_nobody_has_no_users(say: Say, folder: Path) -> None:
    (folder / "noria.toml").write_text('[project]\nname = "small"\n')
    said = say("user", "list", "--project", folder)
    assert (said.code, '[server] users = ".noria/users.json"' in said.err.replace("\n", " ")) == (2, True)


def test_bytes_that_nothing_names_are_pruned(say: Say, folder: Path) -> None:
    with noria.open(folder) as project:
        file = folder / "file"
        for number in range(2):
            file.write_text(f"data {number}")
            project.artifacts.put_file(f"0/r/{number}", file)
        project.artifacts.delete("0/r/0")
        for each in (project.state / "storage" / "parts" / "artifacts" / "sha256").glob("*/*"):
            os.utime(each, (1, 1))
    would = say("artifact", "prune", "--dry-run", "--project", folder).out
    assert would.startswith("Would remove 6 bytes in 1 blob")
    told = json.loads(say("artifact", "prune", "--json", "--project", folder).out)
    assert (told["blobs"], told["bytes"], told["is_dry"]) == (1, 6, False)
    assert say("artifact", "prune", "--project", folder).out.startswith("Nothing to remove")
    said = say("artifact", "prune", "--older-than", "1m", "--project", folder)
    assert (said.code, "an hour is the least" in said.err) == (2, True)
    with noria.open(folder) as project:
        (event,) = project.ledger.list_events(verb="artifacts.pruned")
        assert (event.payload["blobs"], event.payload["bytes"]) == (1, 6)
        (project.state / "tracking" / "01a.x").mkdir(parents=True)
    said = say("artifact", "prune", "--project", folder)
    assert (said.code, "1 logs of runs are not in the database yet" in said.err.replace("\n", " ")) == (
        4,
        True,
    )


def test_up_does_not_start_where_anybody_could_change_everything(say: Say, folder: Path) -> None:
    (folder / "noria.toml").write_text('[project]\nname = "small"\n[server]\nhost = "0.0.0.0"\nport = 0\n')
    said = say("up", "--project", folder)
    assert (said.code, "whoever reaches this machine" in said.err.replace("\n", " ")) == (2, True)


def test_up_asks_who_it_is_below_its_prefix(say: Say, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse battery\n"))
    assert say("user", "add", "ada", "--project", folder).code == 0
    (folder / "noria.toml").write_text(f'{SETTINGS}host = "0.0.0.0"\nprefix = "/team"\n')
    with running(folder) as up:
        url = up.url.replace("0.0.0.0", "127.0.0.1")
        assert url.endswith("/team")
        told = up.wait_for("warning")["message"]
        assert "passwords and tokens cross the network as plain text" in told
        known = {"authorization": f"Basic {base64.b64encode(b'ada:correct horse battery').decode()}"}
        with urlopen(Request(f"{url}/api/noria/status", headers=known), timeout=20) as answer:
            assert answer.status == 200
        with pytest.raises(HTTPError) as caught:
            urlopen(f"{url}/api/noria/status", timeout=20)
        assert caught.value.code == 401
        caught.value.close()
