"""The steps of a replay, as a pipeline: what comes before the first day, and each day.

They work on what the replay has open in this very process, so they run inline, and again whenever a day is
lived again: each finds by its keys what an earlier attempt has done. Fitting a model is a step of its own,
which runs where the project's steps run.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from noria.pipelines.declarations import given, pipeline, step
from noria.records import Version
from noria.replay.records import DayDone

if TYPE_CHECKING:
    from noria.replay.loop import ReplayLoop

__all__ = ["PROVIDERS", "at_work", "live_day", "live_history", "loop_for_steps"]

T = TypeVar("T")

PROVIDERS = {"noria.replay.loop:ReplayLoop": "noria.replay.steps:loop_for_steps"}
_LOOP: ContextVar["ReplayLoop"] = ContextVar("noria_replay_loop")


@contextmanager
def at_work(loop: "ReplayLoop") -> Iterator[None]:
    """Let steps of the block work on `loop`."""
    token = _LOOP.set(loop)
    try:
        yield
    finally:
        _LOOP.reset(token)


@contextmanager
def loop_for_steps(_root: str) -> Iterator["ReplayLoop"]:
    """Give the replay at work to a step."""
    yield _LOOP.get()


def _noting(loop: "ReplayLoop", work: Callable[[], T]) -> T:
    """Do something; the loop keeps the error itself, of which the record has the words."""
    try:
        return work()
    except Exception as error:
        loop.failed = error
        raise


@step(cache=False, executor="inline")
def take_in(loop: "ReplayLoop" = given) -> list[Version]:
    """Ingest what was known before the first day."""
    return _noting(loop, loop.take_in)


@step(cache=False, executor="inline")
def compute_features(loop: "ReplayLoop" = given) -> int:
    """Compute the features of all rows before the first day, and fill the online store."""
    return _noting(loop, loop.compute_features)


@step(cache=False, executor="inline")
def put_first_model_to_work(loop: "ReplayLoop" = given) -> None:
    """Train, judge and deploy the first model."""
    _noting(loop, loop.put_first_model_to_work)


@pipeline(name="replay_history", executor="inline")
def live_history(start: datetime) -> None:
    """Everything before the first day."""
    landed = take_in()
    computed = compute_features.after(landed)()
    put_first_model_to_work.after(computed)()


@step(cache=False, executor="inline")
def receive(day: datetime, loop: "ReplayLoop" = given) -> dict[str, int]:
    """Hold what has come against its contracts."""
    return _noting(loop, loop.day_at_work(day).receive)


@step(cache=False, executor="inline")
def serve(day: datetime, loop: "ReplayLoop" = given) -> int:
    """Ask for predictions as rows become known."""
    return _noting(loop, loop.day_at_work(day).serve)


@step(cache=False, executor="inline")
def learn(day: datetime, loop: "ReplayLoop" = given) -> int:
    """Record outcomes."""
    return _noting(loop, loop.day_at_work(day).learn)


@step(cache=False, executor="inline")
def land(day: datetime, loop: "ReplayLoop" = given) -> list[Version]:
    """Bring batches into the lake."""
    return _noting(loop, loop.day_at_work(day).land)


@step(cache=False, executor="inline")
def ship(day: datetime, loop: "ReplayLoop" = given) -> int:
    """Bring the log of predictions into the lake."""
    return _noting(loop, loop.day_at_work(day).ship)


@step(cache=False, executor="inline")
def materialize(day: datetime, loop: "ReplayLoop" = given) -> int:
    """Add offline features."""
    return _noting(loop, loop.day_at_work(day).materialize)


@step(cache=False, executor="inline")
def compare(day: datetime, loop: "ReplayLoop" = given) -> int:
    """Hold served features against offline ones."""
    return _noting(loop, loop.day_at_work(day).compare)


@step(cache=False, executor="inline")
def monitor(day: datetime, loop: "ReplayLoop" = given) -> bool:
    """Judge the day."""
    return _noting(loop, loop.day_at_work(day).monitor)


@step(cache=False, executor="inline")
def decide(day: datetime, loop: "ReplayLoop" = given) -> None:
    """Conclude a trial, or decide about the news, and act."""
    _noting(loop, loop.day_at_work(day).decide)


@step(cache=False, executor="inline")
def finish(day: datetime, loop: "ReplayLoop" = given) -> DayDone:
    """Count the day."""
    return _noting(loop, loop.day_at_work(day).finish)


@pipeline(name="replay_day", executor="inline")
def live_day(day: datetime) -> DayDone:
    """Live through one day."""
    arrived = receive(day)
    served = serve.after(arrived)(day)
    outcomes = learn.after(served)(day)
    landed = land.after(outcomes)(day)
    shipped = ship.after(landed)(day)
    computed = materialize.after(landed)(day)
    compared = compare.after(shipped, computed)(day)
    judged = monitor.after(compared)(day)
    decided = decide.after(judged)(day)
    return finish.after(decided)(day)
