"""Requests that are written together: each has its own answer, and what waits is one transaction."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.api.test_mlflow_tracking import Client, client, served  # noqa: F401 - fixtures

import noria
from noria.api.mlflow.together import Together
from noria.errors import StoreError
from noria.records import RunId
from noria.tracking.store import TrackingStore

CLIENTS, EACH = 32, 8


class Slow:
    """Doubles numbers; the first call lasts until it is told to end. 13 is a fault of its request."""

    def __init__(self, error: Exception | None = None) -> None:
        self.batches: list[list[int]] = []
        self.began, self.may_end = threading.Event(), threading.Event()
        self._error = error

    def __call__(self, batch: Sequence[int]) -> list[int]:
        self.batches.append([*batch])
        self.began.set()
        assert self.may_end.wait(20)
        if self._error is not None:
            raise self._error
        if 13 in batch:
            raise ValueError("13")
        return [2 * each for each in batch]


def asked(
    slow: Slow, numbers: Sequence[int], meanwhile: Callable[[list["asyncio.Task[int]"]], Awaitable[None]]
) -> list[int | BaseException]:
    """Ask for the first number alone, for the others while it is worked on, and give the answers."""

    async def ask() -> list[int | BaseException]:
        together = Together(slow)
        tasks = [asyncio.create_task(together.ask(numbers[0]))]
        await asyncio.to_thread(slow.began.wait, 20)
        tasks += [asyncio.create_task(together.ask(each)) for each in numbers[1:]]
        await asyncio.sleep(0)  # all of them have asked
        await meanwhile(tasks)
        slow.may_end.set()
        answers: list[int | BaseException] = await asyncio.gather(*tasks, return_exceptions=True)
        return answers

    return asyncio.run(ask())


async def nothing(_tasks: object) -> None:
    """Let them be."""


def test_what_comes_while_one_is_worked_on_is_worked_on_together() -> None:
    slow = Slow()
    assert asked(slow, [*range(100, 400)], nothing) == [2 * each for each in range(100, 400)]
    assert slow.batches == [[100], [*range(101, 357)], [*range(357, 400)]]


def test_an_error_of_one_is_told_to_that_one_alone() -> None:
    slow = Slow()
    first, wrong, last = asked(slow, [1, 13, 3], nothing)
    assert (first, last) == (2, 6)
    assert isinstance(wrong, ValueError)
    assert slow.batches == [[1], [13, 3], [13], [3]]


def test_a_store_that_is_away_is_asked_once_for_all() -> None:
    slow = Slow(StoreError("away"))
    answers = asked(slow, [1, 2, 3], nothing)
    assert [type(each) for each in answers] == [StoreError] * 3
    assert slow.batches == [[1], [2, 3]]


def test_a_client_that_goes_away_keeps_nobody_from_an_answer() -> None:
    async def leave(tasks: list["asyncio.Task[int]"]) -> None:
        tasks[1].cancel()

    first, left, last = asked(Slow(), [1, 2, 3], leave)
    assert (first, last) == (2, 6)
    assert isinstance(left, asyncio.CancelledError)


def test_where_no_thread_is_to_be_had_nobody_waits_for_one() -> None:
    async def ask() -> list[BaseException]:
        together = Together(Slow())
        together._thread.shutdown()
        told = await asyncio.gather(*map(together.ask, range(3)), return_exceptions=True)
        told += await asyncio.gather(together.ask(3), return_exceptions=True)
        return told

    told = asyncio.run(asyncio.wait_for(ask(), 20))
    assert [type(each) for each in told] == [RuntimeError] * 4


def test_metrics_of_many_clients_are_all_on_record_and_wrong_ones_refused_alone(
    client: Client,  # noqa: F811 - a fixture
    served: noria.Project,  # noqa: F811 - a fixture
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs, gone = [client.run() for _ in range(4)], client.run()
    client.post("/runs/delete", run_id=gone)
    transactions = []
    log_points = TrackingStore.log_points

    def counted(store: TrackingStore, points: Sequence[tuple[RunId, object]]) -> object:
        transactions.append(len(points))
        return log_points(store, points)  # type: ignore[arg-type]

    monkeypatch.setattr(TrackingStore, "log_points", counted)
    together = threading.Barrier(CLIENTS)

    def log(who: int) -> list[tuple[int, str]]:
        together.wait(20)
        refused = []
        for step in range(EACH):
            fields = {"key": f"m{who}", "value": step / 3, "timestamp": step, "step": step}
            client.post("/runs/log-metric", run_id=runs[who % 4], **fields)
            for wrong in ({"run_id": gone}, {"run_id": "none"}, {"run_id": runs[0], "key": "a//b"}):
                refused.append(client.refused("/runs/log-metric", **{**fields, **wrong})[:2])
        return refused

    with ThreadPoolExecutor(CLIENTS) as threads:
        told = [each for refused in threads.map(log, range(CLIENTS)) for each in refused]
    kinds = {(400, "INVALID_PARAMETER_VALUE"), (404, "RESOURCE_DOES_NOT_EXIST")}
    assert set(told) == kinds
    assert told.count((404, "RESOURCE_DOES_NOT_EXIST")) == CLIENTS * EACH
    store = TrackingStore(served.ledger.database)
    for who in range(CLIENTS):
        points = store.list_points(RunId(runs[who % 4]), f"m{who}")
        assert [(each.step, each.value) for each in points] == [(step, step / 3) for step in range(EACH)]
    assert store.list_points(RunId(gone)) == []
    assert max(transactions) > 1


def test_a_metric_of_a_model_is_kept_beside_those_of_runs(
    client: Client,  # noqa: F811 - a fixture
) -> None:
    run = client.run()
    model = client.post("/logged-models", experiment_id="0", source_run_id=run)["model"]["info"]["model_id"]
    fields = {"run_id": run, "key": "auc", "value": 0.7, "timestamp": 1}
    client.post("/runs/log-metric", **fields, model_id=model)
    assert client.refused("/runs/log-metric", **fields, model_id="m-none")[1] == "RESOURCE_DOES_NOT_EXIST"
    found = client.get(f"/logged-models/{model}")["model"]
    assert [(each["key"], each["value"]) for each in found["data"]["metrics"]] == [("auc", 0.7)]
