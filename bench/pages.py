"""Pages for browsers, of an experiment of 100,000 runs: CPU per page, that of the asking client included."""

from collections.abc import Iterator
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path

import noria
from bench.measuring import Line, take_turns
from bench.tracking_filling import fill_experiments
from noria.api.application import application
from noria.api.server import ControlPlane
from noria.web.mounting import Pages
from noria.workspace.up.records import Role, UpState

_SIZE = 100_000
_RUNS, _TIMES = 5, 10
_AT_MOST_MS = 50
_PAGES = {
    "the newest 100": "/experiments/1",
    "100 by filter and order": "/experiments/1?filter=metrics.accuracy+%3E+0.5&order=metrics.loss+DESC",
    "experiments": "/experiments",
    "one run": "/runs/{run}",
}


def lines(folder: Path) -> Iterator[Line]:
    (folder / "noria.toml").write_text('[project]\nname = "site"\n')
    state = UpState(role=Role.FOLLOWER, since=datetime(2024, 5, 1, tzinfo=UTC), leader="elsewhere")
    with noria.open(folder) as project, ControlPlane("127.0.0.1", 0) as plane:
        run = fill_experiments(project.ledger.database, [_SIZE])[1][-1]
        plane.start(application(project, lambda: state, host="127.0.0.1", pages=Pages(project)))
        connection = HTTPConnection("127.0.0.1", int(plane.url.rpartition(":")[2]), timeout=60)
        for what, path in _PAGES.items():
            yield _line(connection, what, path.format(run=run))
        connection.close()


def _line(connection: HTTPConnection, what: str, path: str) -> Line:
    def ask(_: int) -> None:
        for _ in range(_TIMES):
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, text[:500]

    ask(0)
    (figure,) = take_turns(ask, runs=_RUNS, per=_TIMES, scale=1e3)
    return Line(f"page of {_SIZE:,} runs: {what}", figure, "ms", at_most=_AT_MOST_MS)
