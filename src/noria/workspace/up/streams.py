"""The consumers of `noria up`: a process for each declared stream, kept while this process leads.

What a consumer has read and not landed when it ends, the next one reads again.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from noria.workspace.up.children import Child, Children
from noria.workspace.up.leadership import Leadership
from noria.workspace.up.records import Consuming, Notice, NoticeKind

__all__ = ["Consumers", "consumer_argv"]


def consumer_argv(root: Path, stream: str) -> Sequence[str]:
    """Give what starts a consumer."""
    options = ["--until-stdin-closes", "--project", str(root), "--json"]
    # -P: the project's folder, where the child begins, does not hide modules of Python's own
    return [sys.executable, "-P", "-m", "noria", "stream", "consume", stream, *options]


class Consumers(Children):
    """Keeps the consumers of a project's streams. Started and stopped by the main thread.

    Parameters
    ----------
    root
        The project's folder, where consumers begin.
    streams
        Their names.
    now
        Tells the instant of a notice.
    """

    def __init__(
        self,
        root: Path,
        streams: Sequence[str],
        *,
        leadership: Leadership,
        look_every_s: float,
        tell: Callable[[Notice], None],
        now: Callable[[], datetime],
    ) -> None:
        self._consumers = [_Consumer(root, name, tell=tell, now=now) for name in streams]
        super().__init__(
            self._consumers, leadership=leadership, look_every_s=look_every_s, name="noria-consumers"
        )

    def state(self) -> tuple[Consuming, ...]:
        """List the streams that are consumed, or ought to be. Any thread may ask."""
        return tuple(each.state() for each in self._consumers)


class _Consumer(Child):
    """The consumer of one stream."""

    def __init__(
        self, root: Path, stream: str, *, tell: Callable[[Notice], None], now: Callable[[], datetime]
    ) -> None:
        super().__init__(
            root,
            name=f"the consumer of stream {stream}",
            begun=f"stream {stream} is consumed",
            kind=NoticeKind.STREAM,
            facts={"stream": stream},
            tell=tell,
            now=now,
        )
        self._stream, self._events, self._lag = stream, 0, 0

    def state(self) -> Consuming:
        return Consuming(
            stream=self._stream,
            pid=self.pid,
            events=self._events,
            lag_events=self._lag,
            error=self.error,
        )

    def argv(self) -> Sequence[str]:
        return consumer_argv(self._root, self._stream)

    def hear(self, told: Mapping[str, Any]) -> None:
        if told.get("kind") == "Committed":
            self._events += told["events"]
            self._lag = told["lag_events"]
            self.error = None
        elif told.get("kind") == "HeldUp" and told["reason"] != self.error:
            self.error = told["reason"]
            self.say(f"stream {self._stream} is held up: {self.error}", kind=NoticeKind.WARNING)
