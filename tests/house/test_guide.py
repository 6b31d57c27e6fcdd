"""README and docs name what there is to use."""

import re

import pytest
from tests.house.conftest import ROOT

from noria.cli.commands import COMMANDS

GUIDE = "\n".join(each.read_text() for each in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))])


@pytest.mark.parametrize("words", [each.words for each in COMMANDS])
def test_every_command_is_in_the_guide(words: str) -> None:
    assert re.search(rf"\bnoria {words}\b", GUIDE)


def test_links_between_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    broken = [
        (page.name, target)
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []
