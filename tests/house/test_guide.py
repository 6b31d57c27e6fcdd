"""README and docs name what there is to use: commands, settings, events, errors, declarations, backends."""

import ast
import re
import tomllib
from collections.abc import Iterator

import msgspec
import pytest
from tests.house.conftest import ROOT, source_files, tree_of

import noria
from noria import agg, check, errors
from noria.cli.commands import COMMANDS
from noria.config import Settings

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GUIDE = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
REFERENCE = (ROOT / "docs" / "guide" / "reference.md").read_text(encoding="utf-8")
_VERB = re.compile(r"[a-z]+\.[a-z_]+")


@pytest.mark.parametrize("words", [each.words for each in COMMANDS])
def test_every_command_is_in_the_guide(words: str) -> None:
    assert re.search(rf"\bnoria {words}\b", GUIDE)
    assert re.search(rf"`noria {words}\b[^`]*`", REFERENCE)


def _settings() -> Iterator[str]:
    for table in msgspec.structs.fields(Settings):
        named = table.name == "environments"
        kind = table.type.__args__[1] if named else table.type
        for key in msgspec.structs.fields(kind):
            place = f"{table.name}{'.NAME' if named else ''}"
            if isinstance(key.type, type) and issubclass(key.type, msgspec.Struct):
                yield from (f"[{place}.{key.name}] {each.name}" for each in msgspec.structs.fields(key.type))
            else:
                yield f"[{place}] {key.name}"


@pytest.mark.parametrize("setting", list(_settings()))
def test_every_setting_is_in_the_reference(setting: str) -> None:
    assert f"`{setting}`" in REFERENCE


def _verbs() -> Iterator[str]:
    """Give what is handed to a ledger's `append`, or to a change's `record`, as a text."""
    for path in source_files():
        for node in ast.walk(tree_of(path)):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="append" | "record") | ast.Name(id="append" | "record"),
                    args=[ast.Constant(value=str(verb)), *_],
                ) if _VERB.fullmatch(verb):
                    yield verb


def test_every_event_is_in_the_reference() -> None:
    verbs = set(_verbs())
    assert {"dataset.blocked", "pointer.moved", "trigger.decided"} <= verbs
    assert {each for each in verbs if f"`{each}`" not in REFERENCE} == set()


def test_every_error_is_in_the_reference_with_its_exit_code() -> None:
    for name in errors.__all__:
        error = getattr(errors, name)
        if error is not errors.NoriaError:
            row = re.search(rf"^\| `{name}` \((\w+)\) \| (\d+) \|", REFERENCE, re.MULTILINE)
            assert row, name
            assert int(row[2]) == error.exit_code, name
            assert row[1] in {each.__name__ for each in error.__mro__}, name


@pytest.mark.parametrize(
    "name",
    [
        *(f"noria.{each}" for each in noria.__all__),
        *(f"agg.{each}" for each in agg.__all__),
        *(f"check.{each}" for each in check.__all__),
    ],
)
def test_every_declaration_is_in_the_guide(name: str) -> None:
    family, _, word = name.rpartition(".")
    qualified = rf"\b{re.escape(name)}\b"
    assert re.search(qualified if family != "noria" else rf"{qualified}|`{word}\b|import .*\b{word}\b", GUIDE)


def test_every_backend_is_in_the_reference() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for backends in project["entry-points"].values():
        for name in backends:
            assert f"`{name}`" in REFERENCE


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        (page.name, target)
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_links_to_headings_find_them() -> None:
    broken = []
    for page in PAGES:
        for target, heading in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
            other = page if not target else page.parent / target
            if other.exists() and heading not in set(_anchors(other.read_text(encoding="utf-8"))):
                broken.append((page.name, f"{target}#{heading}"))
    assert broken == []


def _anchors(text: str) -> Iterator[str]:
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
