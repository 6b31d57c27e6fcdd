"""Processes that `noria up` keeps: what they tell is heard, how they end is told, they are started again."""

import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from noria.workspace.up.children import Child
from noria.workspace.up.features import FeatureFollowers, follower_argv
from noria.workspace.up.records import Notice, NoticeKind

PATIENCE_S = 20.0


class Talker(Child):
    def __init__(self, folder: Path, code: str, notices: list[Notice]) -> None:
        self.code, self.heard = code, list[Mapping[str, Any]]()
        super().__init__(
            folder,
            name="the talker",
            begun="talk is made",
            kind=NoticeKind.DATA,
            facts={"about": "talk"},
            tell=notices.append,
            now=lambda: datetime.now(UTC),
        )

    def argv(self) -> Sequence[str]:
        return [sys.executable, "-c", self.code]

    def hear(self, told: Mapping[str, Any]) -> None:
        self.heard.append(told)


def wait_for(holds: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_what_it_tells_is_heard_and_it_ends_with_its_input(tmp_path: Path) -> None:
    notices: list[Notice] = []
    code = "import sys; print('not json'); print('{\"kind\": \"Said\"}', flush=True); sys.stdin.read()"
    child = Talker(tmp_path, code, notices)
    child.look()
    wait_for(lambda: child.heard)
    assert child.heard == [{"kind": "Said"}]
    assert child.pid is not None
    assert notices[0].message == f"talk is made by process {child.pid}"
    assert notices[0].facts == {"about": "talk"}
    child.ask_to_stop()
    child.wait()
    assert child.pid is None


def test_the_signal_that_ended_it_is_known_and_told_once(tmp_path: Path) -> None:
    notices: list[Notice] = []
    child = Talker(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGBUS)", notices)
    for _ in range(2):
        child._not_before = 0.0
        child.look()
        wait_for(lambda: child.pid is None)
        child.look()
    assert child.ended_by == signal.SIGBUS
    ended = [each.message for each in notices if each.kind is NoticeKind.WARNING]
    assert ended == ["the talker ended: its process was ended by SIGBUS"]
    child.wait()


def test_a_follower_that_reading_the_store_has_ended_is_followed_by_one_that_begins_anew(
    tmp_path: Path,
) -> None:
    class Leads:
        is_held, other = True, None

    followers = FeatureFollowers(
        tmp_path,
        is_wanted=lambda: False,
        leadership=Leads(),  # type: ignore[arg-type]
        look_every_s=1,
        tell=lambda notice: None,
        now=lambda: datetime.now(UTC),
    )
    (follower,) = followers._children
    assert list(follower.argv()) == list(follower_argv(tmp_path, anew=False))
    follower.ended_by = signal.SIGKILL
    assert "--anew" not in follower.argv()
    follower.ended_by = signal.SIGSEGV
    assert follower.argv()[-1] == "--anew"
    follower.look()  # nothing is declared: nothing is started
    assert follower.pid is None
