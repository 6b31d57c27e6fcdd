"""`noria demo`, `noria replay`."""

import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from noria.cli.options import DEBUG, PROJECT
from noria.clock import parse_instant
from noria.errors import ConfigError, DiskFull, StoreError
from noria.workspace.project import Project
from noria.workspace.project import open as open_project

if TYPE_CHECKING:
    from noria.replay.declarations import Replay
    from noria.replay.report import Report

__all__ = ["demo", "replay"]

_DEMO_FOLDER = Path("flights-demo")
_NO_SPACE = 28
JsonFile = Annotated[Path | None, Parameter(name="--json")]


def demo(
    folder: Annotated[Path, Parameter(name="DIR")] = _DEMO_FOLDER,
    /,
    *,
    until: str | None = None,
    json: JsonFile = None,
    debug: Annotated[bool, DEBUG] = False,
) -> None:
    """Live through a year of real flights out of New York: a whole MLOps loop, closed.

    Data come in, features are computed, models are trained, judged, served, watched, found to decay and
    replaced; every decision is explained. Stopped or killed at any moment, the same command goes on.

    Parameters
    ----------
    folder
        Where the project is made; one that is there is gone on with.
    until
        Stop before this day, such as 2013-05-15.
    json
        Write all figures and decisions to this file.
    """
    from noria.cli import screen
    from noria.config import FILE_NAME
    from noria.workspace.creation import create_project

    _require_writable(json)
    if not (folder / FILE_NAME).exists():
        create_project(folder, template="flights")
        screen.line(f"The project is in {folder}: an ordinary one, to read and to copy.")
    _replay(folder, None, until=until, json=json)
    screen.heading("What to type next")
    place = f" --project {folder}"
    screen.facts({
        f"noria status{place}": "where it all stands",
        f"noria why late_arrival@production{place}": "what put the model there",
        f'noria query "show tables"{place}': "SQL over every table",
        f"noria transform{place}": "build the tables of models/, from what came",
        f"noria dashboard build{place}": "one page of charts over them",
        f"noria serve{place}": "answer requests over HTTP",
        "noria init DIR": "begin with your own table",
    })  # fmt: skip


def replay(
    name: str | None = None,
    /,
    *,
    until: str | None = None,
    json: JsonFile = None,
    project: Annotated[Path | None, PROJECT] = None,
    debug: Annotated[bool, DEBUG] = False,
) -> None:
    """Live through a replay that the project declares, from where it stands to its end.

    Parameters
    ----------
    name
        Which, where there are several: the name of its model.
    until
        Stop before this day, such as 2013-05-15.
    json
        Write all figures and decisions to this file.
    """
    _require_writable(json)
    _replay(project, name, until=until, json=json)


def _replay(folder: Path | None, name: str | None, *, until: str | None, json: Path | None) -> None:
    from noria.cli import screen
    from noria.cli.audit import show_trace
    from noria.cli.memory import PeakMemory
    from noria.cli.summary import show_report

    began = time.monotonic()
    with PeakMemory() as memory, open_project(folder) as project:
        declared = project.find_replay(name)
        report = _live_through(project, declared, _stop(until, declared))
        traced = None if report.a_prediction is None else project.trace(report.a_prediction)
    wall_s, peak_rss_mb = time.monotonic() - began, memory.megabytes
    show_report(report, declared)
    if traced is not None:
        screen.heading("One prediction, traced to its raw rows")
        show_trace(traced, brief=True)
    screen.line()
    screen.line(f"This took {wall_s:.0f} s and at most {peak_rss_mb:,.0f} MB of memory.")
    if json is not None:
        _write(json, report, {"trace": traced, "wall_s": wall_s, "peak_rss_mb": peak_rss_mb})
        screen.line(f"All of it is in {json}.")


def _live_through(project: Project, declared: "Replay", until: datetime) -> "Report":
    from noria.cli.interrupts import Interrupts
    from noria.cli.progress import ReplayDisplay

    display = ReplayDisplay(declared, project.ledger, until=until)
    interrupts = Interrupts()
    try:
        with interrupts, display:
            return project.replay(declared.name, until=until, tell=display.tell)
    except BaseException as stop:
        if not interrupts.came:
            raise
        where = (
            "before the first day was over" if display.last is None else f"after {display.last.day:%Y-%m-%d}"
        )
        raise KeyboardInterrupt(f"stopped {where}; the same command goes on") from stop


def _stop(until: str | None, declared: "Replay") -> datetime:
    if until is None:
        return declared.ends_at
    try:
        last = parse_instant(until)
    except ValueError as err:
        raise ConfigError(f"--until is {until!r}; write a day such as {declared.end}") from err
    if last <= declared.starts_at:
        raise ConfigError(
            f"--until is {until}, but the replay begins on {declared.start}; choose a later day"
        )
    return min(last, declared.ends_at)


def _require_writable(path: Path | None) -> None:
    """Say before the work begins that its result could not be written."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise ConfigError(f"--json {path} cannot be written: name a file in a folder that exists")


def _write(path: Path, report: "Report", more: dict[str, Any]) -> None:
    import msgspec

    whole = msgspec.to_builtins(report) | more
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(whole), indent=2) + b"\n")
    except OSError as err:
        if err.errno == _NO_SPACE:
            raise DiskFull(str(path)) from err
        raise StoreError(f"{path} cannot be written: {err.strerror}; name another file") from err
