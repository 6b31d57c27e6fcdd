"""`noria stream list`, `consume`, `push`."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options
from noria.cli.stopping import follow_stdin, until_told_to_stop

if TYPE_CHECKING:
    from noria.streams.consuming import Told
    from noria.workspace.streaming import Door

__all__ = ["consume", "list_streams", "push"]

_CHUNK = 1 << 20
_TOLD_EVERY_S = 2.0
_WAIT_S = 0.5


def list_streams(*, options: Options = DEFAULT) -> None:
    """List streams: how far they reach, how far they have landed, what their consumers do."""
    from noria.cli import screen
    from noria.workspace.streaming import list_streams as standings

    with options.open() as project:
        project.ledger.mark_killed()
        found = standings(project)
    if options.json:
        screen.json(found)
        return
    if not found:
        screen.line('The project declares no stream. Write one: noria.Stream("clicks", into=clicks).')
        return
    rows: list[tuple[object, ...]] = []
    for each in found:
        told = each.consumer or "never ran"
        rate = "-" if each.events_per_s is None else f"{each.events_per_s:,.0f}"
        if each.error is not None:
            rows.append((each.name, each.into, "-", "-", "-", "-", "-", rate, told))
        for part in each.partitions:
            place = (part.partition, part.end, part.committed, f"{part.lag_events:,}", f"{part.lag_s:.1f}")
            rows.append((each.name, each.into, *place, rate, told))
    columns = ["stream", "into", "partition", "end", "landed", "waiting", "for s", "events/s", "consumer"]
    screen.table(columns, rows, right=columns[2:8])
    for each in found:
        if each.error is not None:
            screen.line(f"{each.name}: {each.error}")


def consume(
    name: Annotated[str, Parameter(name="NAME")],
    /,
    *,
    until_empty: Annotated[bool, Parameter(negative="")] = False,
    accept_gap: Annotated[bool, Parameter(negative="")] = False,
    until_stdin_closes: Annotated[bool, Parameter(negative="", show=False)] = False,
    options: Options = DEFAULT,
) -> None:
    """Move the events of a stream into its table, each exactly once, until Ctrl-C.

    With --json each commit, and each thing that holds it up, is a line of JSON.

    Parameters
    ----------
    name
        A stream that the project declares.
    until_empty
        End once all that is there has landed.
    accept_gap
        Go on behind events that are gone from the stream though they never landed.
    until_stdin_closes
        End when standard input does, which is when the process that keeps this one is gone.
    """
    from noria.cli import screen
    from noria.workspace.streaming import consume_stream

    stop = threading.Event()
    at_once = "stopped at once; what has not landed will the next time"
    with options.open() as project, until_told_to_stop(stop, at_once=at_once):
        if until_stdin_closes:
            follow_stdin(stop)
        run = consume_stream(
            project,
            name,
            stop=stop,
            until_empty=until_empty,
            accept_gap=accept_gap,
            tell=_tell_json if options.json else _Teller(name).tell,
        )
    if options.json:
        _write_json({"run": run.id, "state": run.state, "metrics": run.metrics})
        return
    told = {
        each: int(run.metrics.get(each, 0)) for each in ("events", "accepted", "rejected", "repeated", "late")
    }
    more = ", ".join(f"{number:,} {each}" for each, number in told.items() if each != "events" and number)
    screen.line(f"{told['events']:,} events of {name} have landed{f': {more}' if more else ''}.")


def push(
    name: Annotated[str, Parameter(name="NAME")],
    file: Annotated[str, Parameter(name="FILE", allow_leading_hyphen=True)],
    /,
    *,
    options: Options = DEFAULT,
) -> None:
    """Append the JSON lines of a file to a stream.

    Waits while too many events wait for the consumer.

    Parameters
    ----------
    name
        A stream that the project declares.
    file
        A file with a JSON object on each line, or - for standard input.
    """
    from noria.cli import screen
    from noria.errors import SourceError
    from noria.streams.pushing import split_lines
    from noria.workspace.streaming import Doors

    accepted, lines, last = 0, 0, None
    with options.open() as project, ExitStack() as opened:
        door = Doors(project).get(name)
        for block in _whole_lines(file, opened):
            try:
                payloads = split_lines(block, first=lines + 1)
                _wait_for_room(door, quiet=options.json)
                pushed = door.push(payloads)
            except ValueError as error:
                raise SourceError(
                    f"{file}: {error}. The {accepted} events before line {lines + 1} are in the stream, "
                    "nothing from there on: repair it, and push the rest"
                ) from error
            lines += block.count(b"\n")
            accepted += pushed.accepted
            last = pushed.offset if pushed.accepted else last
    if options.json:
        screen.json({"accepted": accepted, "offset": last})
    else:
        screen.line(f"{accepted:,} events are in stream {name}.")


def _whole_lines(file: str, opened: ExitStack) -> Iterator[bytes]:
    """Give what can be read, as whole lines, as soon as it is there."""
    from noria.errors import SourceError

    rest = b""
    try:
        source = sys.stdin.fileno()
        if file != "-":
            source = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            opened.callback(os.close, source)
        while data := os.read(source, _CHUNK):
            whole, newline, rest = (rest + data).rpartition(b"\n")
            if newline:
                yield whole + newline
    except OSError as err:
        raise SourceError(f"{file} cannot be read: {err.strerror}") from err
    if rest:
        yield rest


def _wait_for_room(door: "Door", *, quiet: bool) -> None:
    from noria.cli import screen

    is_told = quiet
    while (waiting := door.waiting()) >= door.declared.backlog:
        if not is_told:
            screen.line(f"waiting: {waiting:,} events of {door.declared.name} have not landed")
            screen.flush()
            is_told = True
        threading.Event().wait(_WAIT_S)


class _Teller:
    """Tells people now and then how far a consumer has come, and at once what holds it up."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._events, self._due = 0, 0.0
        self._reason: str | None = None

    def tell(self, told: "Told") -> None:
        import time

        from noria.cli import screen
        from noria.streams.consuming import HeldUp

        if isinstance(told, HeldUp):
            if told.reason != self._reason:
                screen.line(f"held up: {told.reason}; trying again, nothing is lost")
                screen.flush()
            self._reason = told.reason
            return
        self._reason = None
        self._events += told.events
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _TOLD_EVERY_S
            screen.line(f"{self._events:,} events of {self._name} have landed, {told.lag_events:,} wait")
            screen.flush()


def _tell_json(told: "Told") -> None:
    import msgspec

    _write_json({"kind": type(told).__name__, **msgspec.to_builtins(told)})


def _write_json(value: object) -> None:
    import msgspec

    sys.stdout.write(msgspec.json.encode(value, enc_hook=str).decode() + "\n")
    sys.stdout.flush()
