"""`noria key`: callers of a server, each change on record."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import noria
from noria.config import EnvironmentSettings, read_settings
from noria.serving.http.keys import KeyFile, Keys
from noria.serving.records import Limits
from noria.workspace.endpoints import make_supervisor

Say = Callable[..., Any]
SETTINGS = """\
[project]
name = "small"
[environments.production]
keys = ".noria/production-keys.json"
[environments.staging]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "noria.toml").write_text(SETTINGS)
    return tmp_path


def test_keys_come_and_go(say: Say, folder: Path) -> None:
    at = ("--project", folder)
    assert say("key", "list", *at).out == "There are none yet: `noria key add NAME@production`.\n"
    first = say("key", "add", "shop@production", *at).out.strip()
    second = json.loads(
        say("key", "add", "shop@production", "--deployment", "late", "--deployment", "early", "--lasts",
            "90d", "--json", *at).out
    )  # fmt: skip
    keys = Keys(KeyFile(folder / ".noria" / "production-keys.json"))
    assert keys.check([(b"x-api-key", first.encode())], "other") == "shop"
    assert keys.check([(b"x-api-key", second["key"].encode())], "early") == "shop"
    listed = json.loads(say("key", "list", "production", "--json", *at).out)
    assert sorted((each["name"], tuple(each["deployments"]), each["ends_at"] is None) for each in listed) == [
        ("shop", (), True),
        ("shop", ("late", "early"), False),
    ]
    shown = say("key", "list", *at).out
    assert second["id"] in shown
    assert "late, early" in shown
    assert first not in shown
    assert second["key"] not in shown
    assert say("key", "revoke", "shop@production", "--key", second["id"], *at).out.startswith(second["id"])
    gone = json.loads(say("key", "revoke", "shop@production", "--json", *at).out)
    assert (gone["name"], len(gone["keys"])) == ("shop", 1)
    assert "There are none yet" in say("key", "list", *at).out
    with noria.open(folder) as project:
        told = [(each.verb, each.subject) for each in project.ledger.list_events(limit=10)]
        assert [each for each in told if each[0].startswith("key.")] in (
            [("key.revoked", "key/production/shop")] * 2 + [("key.added", "key/production/shop")] * 2,
            [("key.added", "key/production/shop")] * 2 + [("key.revoked", "key/production/shop")] * 2,
        )
        assert first not in str(project.ledger.list_events(limit=10))


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("add", "shop"), 2, "names no caller and environment"),
        (("add", "@production"), 2, "names no caller and environment"),
        (("add", "a b@production"), 2, "no name of a caller"),
        (("add", "shop@nowhere"), 3, "no environment named 'nowhere'"),
        (("add", "shop@staging"), 2, '[environments.staging] keys = ".noria/staging-keys.json"'),
        (("add", "shop@production", "--lasts", "soon"), 2, "'soon' is no duration"),
        (("revoke", "shop@production"), 3, "no key named 'shop'"),
        (("list", "nowhere"), 3, "no environment named 'nowhere'"),
    ],
)
def test_what_cannot_be_done_is_said(
    say: Say, folder: Path, words: tuple[str, ...], code: int, told: str
) -> None:
    said = say("key", *words, "--project", folder)
    assert said.code == code, said
    assert told in said.err


def test_every_limit_is_a_setting_and_reaches_the_server(folder: Path) -> None:
    plain = EnvironmentSettings()
    values = {name: 2_000 + place for place, name in enumerate(Limits.__struct_fields__)}
    values["explain_share"] = 1  # of one
    for name in values:
        assert getattr(plain, name) == getattr(Limits(), name), name
    said = "".join(f"{name} = {value}\n" for name, value in values.items())
    (folder / "noria.toml").write_text(SETTINGS + said)
    settings = read_settings(folder, environ={}).environments
    made = [
        make_supervisor(folder / name, settings[name], root=folder, environment=name, online="lmdb:o")
        for name in ("staging", "production")
    ]
    assert {name: getattr(made[0]._config.limits, name) for name in values} == values
    assert made[1]._config.keys == str(folder / ".noria" / "production-keys.json")
