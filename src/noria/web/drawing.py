"""What is heavy is done by a child process, pictures and cards: `noria up` loads none of their engines.

The child reads what is asked for as JSON, opens the project, and writes what it made as JSON: `Drawn`.
"""

import importlib.util
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from noria.errors import NoriaError, StoreError

if TYPE_CHECKING:
    from noria.workspace.project import Project
    from noria.workspace.runs.pictures import RunPictures

__all__ = ["MOST_RUNS", "Asked", "Busy", "Drawn", "can_draw", "draw_elsewhere"]

MOST_RUNS = 2_000  # that pictures and importances look at, the newest
_AT_ONCE, _WAITING = 1, 8
_WAIT_S, _TAKES_S = 30.0, 120.0
_SHOWN_CHARS = 600  # of what went wrong in a child


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is to make."""

    project: str  # the folder
    kind: Literal["parallel", "importance", "card"]
    metric: str = ""
    experiment: str = ""
    filter: str = ""
    reference: str = ""  # of a card's model version


class Drawn(msgspec.Struct, frozen=True, kw_only=True):
    """What a child made: of a picture SVG for light and dark, of a card HTML; or what is wrong."""

    told: str = ""
    light: bytes = b""
    dark: bytes = b""
    html: bytes = b""
    error: str = ""
    kind: str = ""  # of the error
    notes: tuple[str, ...] = ()


class Busy(NoriaError, RuntimeError):
    """Others are being drawn already."""


class _Desk:
    """Lets few children work at once, and few requests wait for them."""

    def __init__(self) -> None:
        self._working = threading.Semaphore(_AT_ONCE)
        self._waiting = threading.Semaphore(_WAITING)

    def run(self, asked: Asked) -> bytes:
        if not self._waiting.acquire(blocking=False):
            raise Busy("other pictures are being drawn; try again in a minute")
        try:
            if not self._working.acquire(timeout=_WAIT_S):
                raise Busy("other pictures are being drawn; try again in a minute")
            try:
                return _child(asked)
            finally:
                self._working.release()
        finally:
            self._waiting.release()


_DESK = _Desk()


def can_draw() -> bool:
    """Tell whether the extra `dashboards` is installed; it is not loaded."""
    return importlib.util.find_spec("vl_convert") is not None


def draw_elsewhere(asked: Asked) -> Drawn:
    """Let a child process make it.

    Raises
    ------
    Busy
        If too many are being made.
    StoreError
        If the child does not end well.
    """
    return msgspec.json.decode(_DESK.run(asked), type=Drawn)


def _child(asked: Asked) -> bytes:
    command = [sys.executable, "-P", "-m", "noria.web.drawing"]
    try:
        done = subprocess.run(
            command,
            input=msgspec.json.encode(asked),
            capture_output=True,
            check=False,
            timeout=_TAKES_S,
            cwd=asked.project,
        )
    except subprocess.TimeoutExpired as err:
        raise Busy(f"it took more than {_TAKES_S:.0f} s; ask for fewer runs, by the filter") from err
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()[-_SHOWN_CHARS:]
        raise StoreError(f"the process that draws ended with {done.returncode}: {said}")
    return done.stdout


def make(asked: Asked) -> Drawn:
    """Make it in this process; what is wrong with what was asked is told."""
    import noria

    try:
        with noria.open(Path(asked.project)) as project:
            return _made(project, asked)
    except StoreError:
        raise
    except NoriaError as err:
        notes = tuple(getattr(err, "__notes__", ()))
        return Drawn(error=str(err), kind=type(err).__name__, notes=notes)


def _made(project: "Project", asked: Asked) -> Drawn:
    from noria.workspace.runs.pictures import RunPictures

    if asked.kind == "card":
        from noria.workspace.models.card_page import render_card

        return Drawn(html=render_card(project.models.card(asked.reference)))
    return _picture(RunPictures(project, most=MOST_RUNS), asked)


def _picture(pictures: "RunPictures", asked: Asked) -> Drawn:
    method = pictures.parallel if asked.kind == "parallel" else pictures.importance
    made = method(asked.metric, filter=asked.filter, experiments=asked.experiment or None)
    if not made.rows:
        return Drawn(told=made.description)
    light, dark = (made.draw(".svg", scheme=each) for each in ("light", "dark"))
    return Drawn(told=made.description, light=light, dark=dark)


if __name__ == "__main__":
    sys.stdout.buffer.write(
        msgspec.json.encode(make(msgspec.json.decode(sys.stdin.buffer.read(), type=Asked)))
    )
