"""The lines of a run where there is no terminal, made from how far it is at given instants."""

import io
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from noria.cli.pipeline_display import render
from noria.cli.pipeline_lines import PipelineLines
from noria.pipelines.records import AtWork, Progress, Retrying, TaskTally
from noria.records import RunId

RUN = RunId("01a2156026f2734ebb9c91bcb2f4ddaa")


class Screen:
    """Lines, and when each came."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.at: list[float] = []
        self.shown = PipelineLines(self._take, clock=lambda: self.now)

    def tell(self, at: float, progress: Progress) -> list[str]:
        """Give the lines that are new."""
        self.now, before = at, len(self.lines)
        self.shown.take(progress)
        return self.lines[before:]

    def _take(self, text: str) -> None:
        self.lines.append(text)
        self.at.append(self.now)


def far(
    nodes: Mapping[str, dict[str, int] | None],
    *,
    at_work: tuple[AtWork, ...] = (),
    retrying: tuple[Retrying, ...] = (),
    waiting_for: str | None = None,
) -> Progress:
    counts: dict[str, int] = {}
    for states in nodes.values():
        for state, number in (states or {}).items():
            counts[state] = counts.get(state, 0) + number
    return Progress(
        run=RUN,
        pipeline="monthly",
        state="running",
        started_at=datetime.now(UTC),
        counts=counts,
        nodes=tuple(
            TaskTally(node=name, total=None if each is None else sum(each.values()), counts=each or {})
            for name, each in nodes.items()
        ),
        at_work=at_work,
        retrying=retrying,
        waiting_for=waiting_for,
    )


def again(task: str, attempt: int) -> Retrying:
    begins_at = datetime.now(UTC) + timedelta(seconds=30)
    return Retrying(
        task=task, attempt=attempt, attempts_at_most=3, begins_at=begins_at, because="ValueError: no"
    )


def test_the_first_lines_say_what_will_run() -> None:
    screen = Screen()
    assert screen.tell(0.0, far({"read": {"ready": 1}, "cost": None, "total": {"waiting": 1}})) == [
        "monthly: 2 steps, and cost once for each item; looking up what is kept (run 01a2156026f2734e)"
    ]
    decided = far({"read": {"cached": 1}, "cost": {"cached": 3, "running": 2}, "total": {"waiting": 1}})
    assert screen.tell(0.1, decided) == ["monthly: 4 kept, at most 3 to run"]
    assert screen.tell(0.2, decided) == []


def test_nothing_is_foretold_where_all_is_kept() -> None:
    screen = Screen()
    screen.tell(0.0, far({"read": {"ready": 1}, "total": {"waiting": 1}}))
    assert screen.tell(0.1, far({"read": {"cached": 1}, "total": {"cached": 1}})) == []


def test_who_comes_later_is_told_how_far_it_is() -> None:
    found = Screen().tell(0.0, far({"read": {"ran": 1}, "total": {"running": 1}}))
    assert found == ["monthly: 2 steps: 1 running, 1 ran"]


def test_who_holds_the_pipeline_is_told_once() -> None:
    screen = Screen()
    held = far({}, waiting_for="pid 7 on here")
    assert screen.tell(0.0, held) == ["monthly: waiting for pid 7 on here"]
    assert screen.tell(5.0, held) == []


def test_what_failed_comes_before_what_ran_and_kept_steps_are_summed_up() -> None:
    screen = Screen()
    screen.tell(
        0.0, far({"a": {"running": 1}, "b": {"running": 9}, "c": {"waiting": 5}, "d": {"waiting": 1}})
    )
    now = far({"a": {"ran": 1}, "b": {"failed": 2, "running": 7}, "c": {"cached": 5}, "d": {"blocked": 1}})
    (line,) = screen.tell(2.0, now)
    assert line == "monthly  0 s  9 of 16 done: b 2 failed; a ran; 1 blocked, 5 kept"


def test_an_attempt_is_told_once_and_the_newest_counts() -> None:
    screen = Screen()
    begin = {"fit": {"running": 1}}
    screen.tell(0.0, far(begin))
    lines = screen.tell(0.2, far(begin, retrying=(again("fit", 2),)))
    assert screen.tell(0.5, far(begin, retrying=(again("pick", 2),))) == []
    assert screen.tell(0.9, far(begin, retrying=(again("pick", 3),))) == []
    lines += screen.tell(1.3, far(begin, retrying=(again("pick", 3),)))
    assert [re.sub(r"in (29|30) s", "in 30 s", line) for line in lines] == [
        "monthly  0 s  0 of 1 done: fit: attempt 2 of 3 in 30 s, after ValueError: no",
        "monthly  0 s  0 of 1 done: pick: attempt 3 of 3 in 30 s, after ValueError: no",
    ]
    assert screen.tell(5.0, far(begin, retrying=(again("fit", 2), again("pick", 3)))) == []


def test_an_attempt_that_nobody_saw_coming_is_told_when_it_is_at_work() -> None:
    work = AtWork(task="fit", run=RUN, since=datetime.now(UTC), attempt=2, attempts_at_most=3)
    screen = Screen()
    screen.tell(0.0, far({"fit": {"running": 1}}))
    assert screen.tell(1.0, far({"fit": {"running": 1}}, at_work=(work,))) == [
        "monthly  0 s  0 of 1 done: fit: attempt 2 of 3"
    ]


def test_while_nothing_ends_one_line_tells_what_is_at_work() -> None:
    work = AtWork(
        task="fit",
        run=RUN,
        since=datetime.now(UTC),
        attempt=2,
        attempts_at_most=3,
        done=3,
        total=10,
        note="x",
    )
    screen = Screen()
    progress = far({"fit": {"running": 1}}, at_work=(work,))
    screen.tell(0.0, progress)
    said = [line for at in range(1, 26) for line in screen.tell(float(at), progress)]
    assert said == [
        "monthly  0 s  0 of 1 done; at work: fit (attempt 2 of 3) 0 s, 3 of 10, x",
        "monthly  0 s  0 of 1 done; at work: fit (attempt 2 of 3) 0 s, 3 of 10, x",
    ]


@given(
    steps=st.lists(
        st.tuples(st.floats(0.01, 5.0), st.integers(0, 40), st.integers(0, 3)), min_size=1, max_size=60
    )
)
def test_lines_come_a_second_apart_at_least_and_no_step_is_lost_or_told_twice(
    steps: list[tuple[float, int, int]],
) -> None:
    screen = Screen()
    left = sum(ran + failed for _, ran, failed in steps)
    screen.tell(0.0, far({"cost": {"ready": left + 1}}))
    at, done, broken = 0.0, 0, 0
    for pause, ran, failed in [*steps, (20.0, 0, 0)]:
        at, done, broken = at + pause, done + ran, broken + failed
        now = {"running": left + 1 - done - broken, "ran": done, "failed": broken}
        screen.tell(at, far({"cost": now}))
    assert all(after - before >= 1.0 for before, after in pairwise(screen.at[2:]))
    told = " ".join(screen.lines)
    assert sum(map(int, re.findall(r"cost (\d+) ran", told))) == done
    assert sum(map(int, re.findall(r"cost (\d+) failed", told))) == broken


@pytest.mark.parametrize(
    ("progress", "told"),
    [
        (far({"fit": {"queued": 1}}, retrying=(again("fit", 2),)), "fit: attempt 2 of 3 in "),
        (
            far(
                {"fit": {"running": 1}},
                at_work=(
                    AtWork(task="fit", run=RUN, since=datetime.now(UTC), attempt=3, attempts_at_most=3),
                ),
            ),
            "fit (attempt 3 of 3) ",
        ),
        (far({"read": {"cached": 2}}), "2 kept"),
    ],
)
def test_the_tree_tells_attempts_and_what_is_kept(progress: Progress, told: str) -> None:
    console = Console(width=120, file=io.StringIO())
    console.print(render(progress))
    assert isinstance(console.file, io.StringIO)
    assert told in console.file.getvalue()
