"""`noria up`."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

if TYPE_CHECKING:
    from noria.workspace.up.jobs import Argv
    from noria.workspace.up.records import Notice
    from noria.workspace.up.up import Up

__all__ = ["keep_up", "up"]

_SHOWN_LENGTH = 300  # of a message; JSON gives all of it


def up(
    *,
    port: int | None = None,
    environment: Annotated[list[str] | None, Parameter(negative="")] = None,
    options: Options = DEFAULT,
) -> None:
    """Run the project: schedules, triggers, pipelines, servers and the control plane, until Ctrl-C.

    Several may run over one database: one of them leads and acts, the others wait to take over. With --json
    each thing that happens is a line of JSON.

    Parameters
    ----------
    port
        Of the control plane; 0 takes a free one. Default: what noria.toml says.
    environment
        Whose deployments are served; may be given several times. Default: all that go by the wall clock.
    """
    keep_up(options, port=port, environments=environment)


def keep_up(
    options: Options,
    *,
    port: int | None = None,
    environments: list[str] | None = None,
    argv: "Argv | None" = None,
) -> None:
    """Run the project until it is told to stop.

    Parameters
    ----------
    argv
        What starts a run of a pipeline; see `noria.workspace.up.up.Up`.
    """
    from noria.api.application import application
    from noria.api.guards import check_strangers, checked_prefix, exposures
    from noria.api.server import ControlPlane, certificate_of
    from noria.web.mounting import Pages
    from noria.workspace.up.up import Up

    with options.open() as project:
        settings = project.settings.server
        check_strangers(settings)
        up = Up(project, tell=_tell_json if options.json else _tell, environments=environments, argv=argv)
        with (
            ControlPlane(
                settings.host,
                settings.port if port is None else port,
                certificate=certificate_of(settings, project.root),
                prefix=checked_prefix(settings.prefix),
            ) as plane,
            _until_told_to_stop(up),
        ):
            app = application(project, lambda: up.state, host=settings.host, pages=Pages(project))
            plane.start(app)
            up.start(plane.url, warnings=exposures(settings))
            up.run()


@contextmanager
def _until_told_to_stop(up: "Up") -> Iterator[None]:
    """Stop at the first Ctrl-C, or SIGTERM; at the second one at once."""
    came = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came += 1
        if came > 1:
            raise KeyboardInterrupt("noria up was stopped at once; what ran is taken up by the next one")
        up.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(notice: "Notice") -> None:
    from noria.cli import screen

    message = " ".join(notice.message.split())
    short = message if len(message) <= _SHOWN_LENGTH else f"{message[:_SHOWN_LENGTH]}…"
    screen.verbatim(f"{notice.at:%Y-%m-%d %H:%M:%S}  {notice.kind:8}  {short}")
    screen.flush()


def _tell_json(notice: "Notice") -> None:
    import msgspec

    def plain(value: Any) -> str:
        return str(value)

    sys.stdout.write(msgspec.json.encode(notice, enc_hook=plain).decode() + "\n")
    sys.stdout.flush()
