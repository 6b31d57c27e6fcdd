"""The follower of `noria up`: a process that keeps online features up, kept while this process leads."""

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from noria.clock import format_instant, from_micros
from noria.workspace.up.children import Child, Children
from noria.workspace.up.leadership import Leadership
from noria.workspace.up.records import FollowedView, Notice, NoticeKind

__all__ = ["FeatureFollowers", "follower_argv"]

# What reading a damaged file does to a process that has it mapped into its memory.
_DAMAGE = (signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT)


def follower_argv(root: Path, *, anew: bool) -> Sequence[str]:
    """Give what starts the follower."""
    options = ["--until-stdin-closes", "--project", str(root), "--json", *(["--anew"] if anew else [])]
    return [sys.executable, "-P", "-m", "noria", "feature", "follow", *options]


class FeatureFollowers(Children):
    """Keeps the follower of a project's views. Started and stopped by the main thread.

    Parameters
    ----------
    is_wanted
        Says whether any view is declared or deployed.
    """

    def __init__(
        self,
        root: Path,
        *,
        is_wanted: Callable[[], bool],
        leadership: Leadership,
        look_every_s: float,
        tell: Callable[[Notice], None],
        now: Callable[[], datetime],
    ) -> None:
        self._follower = _Follower(root, is_wanted=is_wanted, tell=tell, now=now)
        super().__init__(
            [self._follower], leadership=leadership, look_every_s=look_every_s, name="noria-features"
        )

    def state(self) -> tuple[FollowedView, ...]:
        """List the views that were brought on, or could not be. Any thread may ask."""
        return self._follower.state()


class _Follower(Child):
    """The process that follows all views."""

    def __init__(
        self,
        root: Path,
        *,
        is_wanted: Callable[[], bool],
        tell: Callable[[Notice], None],
        now: Callable[[], datetime],
    ) -> None:
        super().__init__(
            root,
            name="the process that keeps online features up",
            begun="online features are kept up",
            kind=NoticeKind.FEATURES,
            facts={},
            tell=tell,
            now=now,
        )
        self._is_wanted = is_wanted
        self._views: dict[str, FollowedView] = {}

    @property
    def is_wanted(self) -> bool:
        return self._is_wanted()

    def state(self) -> tuple[FollowedView, ...]:
        pid, error = self.pid, self.error
        return tuple(
            msgspec.structs.replace(each, pid=pid, error=each.error or error)
            for _, each in sorted(self._views.copy().items())
        )

    def argv(self) -> Sequence[str]:
        return follower_argv(self._root, anew=self.ended_by in _DAMAGE)

    def hear(self, told: Mapping[str, Any]) -> None:
        match told.get("kind"):
            case "Brought":
                self._take(told)
            case "HeldUp":
                known = self._view(told)
                self._views[told["digest"]] = msgspec.structs.replace(known, error=told["reason"])
                message = f"feature view {told['view']} is held up, and stays as it is: {told['reason']}"
                self.say(message, kind=NoticeKind.WARNING, view=told["view"])
            case "Rebuilt":
                self.say(told["reason"], kind=NoticeKind.WARNING, views=told["views"])
            case "Stale":
                names = [digest for digest, each in self._views.items() if each.view == told["view"]]
                for digest in names:
                    self._views[digest] = msgspec.structs.replace(
                        self._views[digest], is_stale=told["is_stale"]
                    )
                kind = NoticeKind.WARNING if told["is_stale"] else None
                self.say(told["reason"], kind=kind, view=told["view"])
            case "Trouble" if told["reason"] is not None:
                self.error = told["reason"]
                message = f"online features wait: {told['reason']}; tried again with pauses"
                self.say(message, kind=NoticeKind.WARNING)
            case "Trouble":
                self.error = None
                self.say("online features are kept up again")
            case _:
                pass

    def _view(self, told: Mapping[str, Any]) -> FollowedView:
        known = self._views.get(told["digest"])
        return known or FollowedView(view=told["view"], digest=told["digest"])

    def _take(self, told: Mapping[str, Any]) -> None:
        known, standing = self._view(told), told["standing"]
        at = from_micros(standing["known_us"])
        self._views[told["digest"]] = msgspec.structs.replace(
            known,
            rows=known.rows + told["rows"],
            version=standing["version"],
            known_until=at,
            error=None,
        )
        self.error = None
        if told["loaded"] is not None or known.error is not None:
            how = "goes on" if told["loaded"] is None else f"is loaded: {told['loaded']}"
            message = f"feature view {told['view']} {how}; {told['rows']} rows known by {format_instant(at)}"
            self.say(message, view=told["view"], digest=told["digest"])
