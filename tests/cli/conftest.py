from collections.abc import Callable
from dataclasses import dataclass

import pytest

from noria.cli import main


@dataclass(frozen=True)
class Said:
    """What a command came to."""

    code: int
    out: str
    err: str


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Give a function that runs a command in this process, on a screen 80 columns wide."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NORIA_PROJECT", raising=False)

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        code = main([str(each) for each in arguments])
        told = capsys.readouterr()
        return Said(code, told.out, told.err)

    return run
