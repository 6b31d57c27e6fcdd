"""Requests that are answered together: all are counted before any answer leaves, none waits for a fault."""

import asyncio
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, values
from prometheus_client.multiprocess import MultiProcessCollector

from noria.serving.batching import Batcher
from noria.serving.http.answering import Answering, Question
from noria.serving.http.exchange import Head, Reply
from noria.serving.http.metrics import Metrics
from noria.serving.jobs import Job
from noria.serving.records import Limits
from noria.serving.requests import InferRequest

HEAD = Head("POST", "/", ())


class _Wire:
    """A protocol without bytes: what came is one row, what leaves says so."""

    def read(self, *_: object) -> tuple[InferRequest, None]:
        return InferRequest(rows=1, columns={}), None

    def write(self, *_: object, **__: object) -> Reply:
        return Reply(b"ok")

    def refuse(self, error: Exception) -> Reply:
        return Reply(str(error).encode())


class _Predictor:
    """Answers each request at once."""

    loaded = SimpleNamespace(is_resting=False, pinned={})
    repeated = 0
    failed: Mapping[str, int] = MappingProxyType({})
    target = SimpleNamespace(
        is_native=True, shadows=(), assignment=SimpleNamespace(headers=()), cost_us=lambda _: 10.0
    )

    def may_wait(self, _: object) -> bool:
        return False

    def find_target(self, *_: object) -> Any:
        return self.target

    def job(self, asked: InferRequest, _: str, __: str | None, *, arrived_ns: int) -> Job:
        return Job(asked, cast(Any, self.loaded), cast(Any, self.target), arrived_ns)

    def answer(self, jobs: list[Job]) -> list[Job]:
        for each in jobs:
            each.prediction = cast(
                Any,
                SimpleNamespace(
                    scored={"m:1": 1},
                    answered={"m:1": 1},
                    logged=self.repeated,
                    failed=self.failed,
                    defaulted={},
                ),
            )
        return []


class Worker:
    """What answers in a worker that counts in files, if it has a folder, by deployments `one` and `other`."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.metrics = Metrics(environment="production", shared=folder)
        self.names: dict[str, Any] = {}
        for name in ("one", "other"):
            predictor = _Predictor()
            batcher = Batcher(cast(Any, predictor), Limits())
            batcher.before_sending = self.metrics.of(name).settle
            self.names[name] = SimpleNamespace(name=name, batcher=batcher, predictor=predictor)
        hosting = SimpleNamespace(find=self.names.get, names=tuple(self.names))
        self.answering = Answering(
            cast(Any, hosting), control=cast(Any, None), metrics=self.metrics, limits=Limits()
        )

    def ask(self, done: Callable[[Reply], None], name: str = "one") -> None:
        self.answering.begin(Question(cast(Any, _Wire()), name), HEAD, b"", done)

    def counted(self, name: str = "one") -> dict[str, float]:
        """Read the files: answered requests, answered rows, requests that are timed."""
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(self._folder))  # type: ignore[no-untyped-call]
        names = ("noria_requests_total", "noria_answered_rows_total", "noria_request_seconds_count")
        samples = [each for metric in registry.collect() for each in metric.samples]
        return {
            wanted: sum(
                each.value for each in samples if each.name == wanted and each.labels["deployment"] == name
            )
            for wanted in names
        }


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)  # a worker sets it for its process
    return Worker(tmp_path)


async def _turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_all_are_in_the_files_before_the_first_answer_leaves(worker: Worker) -> None:
    seen: list[set[float]] = []

    async def main() -> None:
        for _ in range(3):
            worker.ask(lambda _: seen.append(set(worker.counted().values())))
        await _turn()

    asyncio.run(main())
    assert seen == [{3.0}] * 3
    assert worker.metrics.of("one").pending == 0


def test_a_worker_alone_enters_what_it_counted_when_it_is_asked() -> None:
    worker = Worker(None)
    label = 'noria_requests_total{deployment="one",environment="production",model="one",status="200"}'
    entered: list[float] = []

    async def main() -> None:
        requests = worker.metrics.requests.labels("production", "one", "one", "200")
        for count in (999, 1, 500):
            for _ in range(count):
                worker.ask(lambda _: None)
            await _turn()
            samples = [each for metric in requests.collect() for each in metric.samples]
            entered.append(next(each.value for each in samples if each.name.endswith("_total")))

    asyncio.run(main())
    assert entered == [0.0, 1_000.0, 1_000.0]  # so that what is counted does not grow without end
    assert f"{label} 1500.0" in worker.metrics.expose().decode()


def test_a_worker_alone_does_not_keep_refusals_without_end() -> None:
    counts = Worker(None).metrics.of("one")
    for _ in range(2_500):
        counts.count_refusal("one", 0.1, HTTPStatus.SERVICE_UNAVAILABLE)
        counts.settle()
    assert len(counts._refusals) == 500


def test_a_fault_in_counting_or_in_sending_keeps_no_other_answer_back(worker: Worker) -> None:
    told: list[str] = []
    faults: list[str] = []

    def fail(_: object = None) -> None:
        raise OSError(28, "no room")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: faults.append(f"{context['message']}: {context['exception']}")
        )
        worker.names["one"].batcher.before_sending = fail
        worker.ask(lambda _: told.append("first"))
        worker.ask(fail)
        worker.ask(lambda _: told.append("last"))
        await _turn()

    asyncio.run(main())
    assert told == ["first", "last"]
    assert faults == ["an answer was not sent: [Errno 28] no room"] * 2


@pytest.mark.parametrize("what", ["failed", "repeated"])
def test_an_answer_that_cannot_be_counted_is_a_failure_and_counted_once(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "no room")

    async def main() -> list[Reply]:
        told: list[Reply] = []
        worker.ask(told.append)
        await _turn()
        monkeypatch.setattr(worker.names["one"].predictor, what, {"f": 1} if what == "failed" else 1)
        of_one = worker.metrics.of("one")
        monkeypatch.setattr(of_one, "count_failed", fail)
        monkeypatch.setattr(of_one, "_repeated", SimpleNamespace(inc=fail))
        worker.ask(told.append)
        await _turn()
        return told

    good, bad = asyncio.run(main())
    assert (good.body, bad.body) == (b"ok", b"the server failed; its log says where")
    assert worker.counted() == {
        "noria_requests_total": 2.0,
        "noria_answered_rows_total": 1.0,
        "noria_request_seconds_count": 2.0,
    }
    assert worker.metrics.of("one").pending == 0


class _Request(Head):
    """One whose body is still to come; meanwhile something happens."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)

    async def body(self) -> bytes:
        self.meanwhile()
        return b""


def _asked(meanwhile: Callable[[], None] = lambda: None) -> Any:
    request = _Request("POST", "/", ())
    request.meanwhile = meanwhile
    return request


@pytest.mark.parametrize("before", ["one", None])
def test_a_name_that_moves_while_a_body_comes_counts_for_who_answers(
    worker: Worker, before: str | None
) -> None:
    async def main() -> Reply:
        if before is not None:
            worker.names["model"] = worker.names[before]
        request = _asked(lambda: worker.names.update(model=worker.names["other"]))
        return await worker.answering.predict(request, Question(cast(Any, _Wire()), "model"))

    assert asyncio.run(main()).body == b"ok"
    assert set(worker.counted("other").values()) == {1.0}
    assert set(worker.counted(before or "").values()) == {0.0}
    assert [worker.metrics.of(each).pending for each in ("one", "other", "")] == [0, 0, 0]


def test_one_that_was_cut_off_keeps_no_other_from_its_answer(worker: Worker) -> None:
    async def main() -> list[Any]:
        question = Question(cast(Any, _Wire()), "one")
        asking = [asyncio.create_task(worker.answering.predict(_asked(), question)) for _ in range(3)]
        await asyncio.sleep(0)
        asking[1].cancel()
        return await asyncio.gather(*asking, return_exceptions=True)

    first, cut_off, last = asyncio.run(main())
    assert (first.body, last.body) == (b"ok", b"ok")
    assert isinstance(cut_off, asyncio.CancelledError)
    assert set(worker.counted().values()) == {3.0}
    assert worker.metrics.of("one").pending == 0


def test_files_to_count_in_take_their_room_at_once(worker: Worker, tmp_path: Path) -> None:
    files = list(tmp_path.glob("*.db"))
    assert len(files) > 2
    for each in files:
        stat = each.stat()
        assert stat.st_blocks * 512 >= stat.st_size, each
