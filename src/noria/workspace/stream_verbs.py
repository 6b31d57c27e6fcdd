"""The verbs of a project that have to do with streams."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from noria.workspace.opened import Opened

if TYPE_CHECKING:
    from noria.records import Run
    from noria.streams.consuming import Told
    from noria.workspace.project import Project
    from noria.workspace.streaming import Pushed, StreamStanding

__all__ = ["StreamVerbs"]


class StreamVerbs(Opened):
    """Push events, consume them, tell where streams stand."""

    def push(self, stream: str, events: Iterable[Mapping[str, Any] | bytes]) -> Pushed:
        """Append events to a declared stream, and return once they are kept.

        Parameters
        ----------
        stream
            Its name.
        events
            Objects that JSON can hold, or bytes of JSON.

        Raises
        ------
        NotFound
            If there is no such stream; says what exists.
        SourceError
            If one is no JSON object; nothing is appended.
        ValueError
            If one is too large; nothing is appended.
        StoreError
            If they cannot be kept.
        """
        from noria.streams.pushing import encode_events
        from noria.workspace.streaming import Door

        declared = self.declarations.stream(stream)
        payloads = encode_events(events)
        door = Door(cast("Project", self), declared)
        try:
            return door.push(payloads)
        finally:
            door.close()

    def consume(
        self,
        stream: str,
        *,
        until_empty: bool = True,
        accept_gap: bool = False,
        stop: threading.Event | None = None,
        tell: Callable[[Told], None] | None = None,
    ) -> Run:
        """Move the events of a stream into its table, each exactly once, and give the run that did.

        Parameters
        ----------
        until_empty
            End once all that is there has landed; else once `stop` is set.
        accept_gap
            Go on behind events that are gone from the stream though they never landed.
        tell
            Is called for each commit, and for what holds it up.

        Raises
        ------
        NotFound
            If there is no such stream; says what exists.
        LeaseHeld
            If another process consumes it.
        SourceError
            If events are gone that have not landed, or the stream was cut.
        BatchBlocked
            If a rule of severity `block` fails.
        """
        from noria.workspace.streaming import consume_stream

        return consume_stream(
            cast("Project", self),
            stream,
            stop=stop or threading.Event(),
            until_empty=until_empty,
            accept_gap=accept_gap,
            tell=tell,
        )

    def streams(self) -> list[StreamStanding]:
        """Tell how far each declared stream reaches, and how far it has landed."""
        from noria.workspace.streaming import list_streams

        return list_streams(cast("Project", self))
