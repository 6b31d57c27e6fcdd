"""A run of a pipeline as it goes, where there is no terminal: what will run, then a line as steps end.

A line comes a second after the one before at the earliest, later in a long run, and sums up what has ended
since; the first that fails, or is tried again, does not wait. While nothing ends, a line tells every now and
then what is at work.
"""

import math
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import msgspec

from noria.cli import screen
from noria.cli.run_screens import at_work_told, counts_told
from noria.pipelines.records import Progress, Retrying, TaskTally

__all__ = ["ENDED", "PipelineLines", "retry_told", "waiting_told"]

ENDED = ("failed", "blocked", "ran", "cached", "skipped")

_EVERY_S = 1.0
_AT_MOST_EVERY_S = 10.0  # of a long run, and where nothing ends
_SHARE = 60  # a line comes after this part of the time that has passed
_NAMED = 4  # steps and retries that a line names


class PipelineLines:
    """Makes lines of how far a run is.

    Parameters
    ----------
    write
        Takes a line.
    clock
        Seconds that never go back.
    """

    def __init__(self, write: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._said: Progress | None = None  # how far it was at the last line
        self._said_at = self._began = clock()
        self._news_at = -math.inf
        self._is_decided = False
        self._waited_for: str | None = None
        self._tried: set[tuple[str, int]] = set()
        self._again: dict[str, str] = {}

    def take(self, progress: Progress) -> None:
        """Write what there is to say of it, if anything."""
        if progress.waiting_for != self._waited_for:
            self._waited_for = progress.waiting_for
            if progress.waiting_for is not None:
                self._write(waiting_told(progress))
        if not progress.nodes:
            return
        if self._said is None:
            self._say(progress, _first(progress))
            self._is_decided = _is_decided(progress)
        elif not self._is_decided and _is_decided(progress):
            self._is_decided = True
            if _done(progress) < _total(progress) or _open(progress):
                self._say(progress, _decided(progress))
            self._said = _only_kept(progress)  # the rest is still to be told
        self._note_retries(progress)
        now = self._clock()
        rest = now - self._said_at
        failed, ended = _news(self._said, progress)
        trouble = [*failed, *self._again.values()]
        pause = min(max((now - self._began) / _SHARE, _EVERY_S), _AT_MOST_EVERY_S)
        news = [*failed, *ended, *self._again.values()]
        if (trouble and now - self._news_at >= _EVERY_S) or (news and rest >= pause):
            self._news_at = now
            self._say(progress, f"{_place(progress)}: {_listed(news)}")
        elif not news and rest >= _AT_MOST_EVERY_S and progress.at_work:
            self._say(
                progress, f"{_place(progress)}; at work: {_listed(map(at_work_told, progress.at_work))}"
            )

    def _say(self, progress: Progress, text: str) -> None:
        self._said, self._said_at = progress, self._clock()
        self._again.clear()
        self._write(text)

    def _note_retries(self, progress: Progress) -> None:
        for again in progress.retrying:
            if (again.task, again.attempt) not in self._tried:
                self._tried.add((again.task, again.attempt))
                self._again[again.task] = retry_told(again)
        for each in progress.at_work:
            if each.attempt > 1 and (each.task, each.attempt) not in self._tried:
                self._tried.add((each.task, each.attempt))
                self._again[each.task] = f"{each.task}: attempt {each.attempt} of {each.attempts_at_most}"


def waiting_told(progress: Progress) -> str:
    """Tell what a run waits for."""
    return f"{progress.pipeline}: waiting for {progress.waiting_for}"


def retry_told(again: Retrying) -> str:
    """Tell that a step is tried again, and when."""
    rest = max((again.begins_at - datetime.now(UTC)).total_seconds(), 0.0)
    which = f"attempt {again.attempt} of {again.attempts_at_most}"
    return f"{again.task}: {which} in {rest:.0f} s, after {again.because}"


def _first(progress: Progress) -> str:
    told = f"{progress.pipeline}: {screen.count(_total(progress), 'step')}"
    open_nodes = _open(progress)
    if open_nodes:
        told += f", and {_listed(open_nodes, named=2, between=', ')} once for each item"
    if _is_decided(progress):
        return f"{told}: {counts_told(progress.counts)}"
    return f"{told}; looking up what is kept (run {progress.run[:16]})"


def _decided(progress: Progress) -> str:
    kept = progress.counts.get("cached", 0)
    left = _total(progress) - kept - progress.counts.get("skipped", 0)
    told = f"{progress.pipeline}: {kept:,} kept, at most {left:,} to run"
    open_nodes = _open(progress)
    return (
        f"{told}, and {_listed(open_nodes, named=2, between=', ')} once for each item" if open_nodes else told
    )


def _only_kept(progress: Progress) -> Progress:
    nodes = [
        msgspec.structs.replace(each, counts={"cached": each.counts.get("cached", 0)})
        for each in progress.nodes
    ]
    return msgspec.structs.replace(progress, nodes=tuple(nodes))


def _place(progress: Progress) -> str:
    seconds = (datetime.now(UTC) - progress.started_at).total_seconds()
    more = " or more" if _open(progress) else ""
    return f"{progress.pipeline}  {seconds:.0f} s  {_done(progress):,} of {_total(progress):,}{more} done"


def _news(before: Progress | None, now: Progress) -> tuple[list[str], list[str]]:
    """Tell what has failed since, and what has ended otherwise."""
    old = {} if before is None else {each.node: each.counts for each in before.nodes}
    failed, ran, rest = list[str](), list[str](), dict[str, int]()
    for node in now.nodes:
        for state in ENDED:
            more = node.counts.get(state, 0) - old.get(node.node, {}).get(state, 0)
            if more <= 0:
                continue
            match state:
                case "failed":
                    failed.append(_node_told(node, more, state))
                case "ran":
                    ran.append(_node_told(node, more, state))
                case _:
                    rest[state] = rest.get(state, 0) + more
    return failed, [*ran, *([counts_told(rest)] if rest else [])]


def _node_told(node: TaskTally, how_many: int, state: str) -> str:
    return f"{node.node} {state}" if node.total == 1 else f"{node.node} {how_many:,} {state}"


def _listed(texts: Iterable[str], *, named: int = _NAMED, between: str = "; ") -> str:
    every = list(texts)
    more = f"{between}and {len(every) - named:,} more" if len(every) > named else ""
    return between.join(every[:named]) + more


def _is_decided(progress: Progress) -> bool:
    return any(number for state, number in progress.counts.items() if state not in ("waiting", "ready"))


def _open(progress: Progress) -> list[str]:
    return [each.node for each in progress.nodes if each.total is None]


def _total(progress: Progress) -> int:
    return sum(each.total or 0 for each in progress.nodes)


def _done(progress: Progress) -> int:
    return sum(each.counts.get(state, 0) for each in progress.nodes for state in ENDED)
