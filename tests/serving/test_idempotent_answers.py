import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.serving.conftest import NOW, Trained, rotated, route

from noria.deploy.supervisor import Supervisor
from noria.errors import Conflict, NoriaError
from noria.serving.client import ServingClient
from noria.serving.logs.index import PredictionIndex
from noria.serving.logs.log import decode_frame
from noria.serving.records import WorkerConfig
from noria.streams.spool import drop_segments, read_spool


@pytest.fixture(scope="module")
def supervisor(
    tmp_path_factory: pytest.TempPathFactory, worker_config: WorkerConfig, first: Trained
) -> Iterator[Supervisor]:
    with Supervisor(tmp_path_factory.mktemp("worker") / "production", worker_config) as supervisor:
        supervisor.start(route(1, first.served(1)))
        yield supervisor


@pytest.fixture
def client(supervisor: Supervisor) -> Iterator[ServingClient]:
    with supervisor.client() as client:
        yield client


def logged_ids(supervisor: Supervisor, *, of: str) -> list[str]:
    frames = [decode_frame(payload) for _, payload in read_spool(supervisor.folder / "late" / "spool")]
    return [each for frame in frames for each in frame.ids if each.startswith(of)]


def columns(*distances: float | int | None) -> dict[str, list[object]]:
    return {"carrier": ["AA"] * len(distances), "distance": list(distances)}


def test_a_retry_gets_the_logged_answer_also_from_another_version(
    client: ServingClient, supervisor: Supervisor, first: Trained, second: Trained
) -> None:
    before = client.infer("late", columns(100, 200), ids=["retry-a", "retry-b"], at=NOW)
    supervisor.swap(route(2, second.served(2)))
    again = client.infer("late", columns(100.0, 200.0), ids=["retry-a", "retry-b"], at=NOW)
    supervisor.swap(route(1, first.served(1)))
    assert (again.scores, again.versions) == (before.scores, [1, 1])
    assert (before.logged, again.logged, again.route) == (0, 2, 2)
    assert logged_ids(supervisor, of="retry") == ["retry-a", "retry-b"]


def test_known_rows_are_answered_from_the_log_and_new_ones_are_logged(
    client: ServingClient, supervisor: Supervisor
) -> None:
    before = client.infer("late", columns(100, 200), ids=["known-a", "known-b"], at=NOW)
    mixed = client.infer(
        "late", columns(300, 200, 400, 100), ids=["known-c", "known-b", "known-d", "known-a"], at=NOW
    )
    assert [mixed.scores[1], mixed.scores[3]] == [before.scores[1], before.scores[0]]
    assert mixed.logged == 2
    assert logged_ids(supervisor, of="known") == ["known-a", "known-b", "known-c", "known-d"]
    alone = client.infer("late", columns(300, 400), ids=["known-c", "known-d"], at=NOW)
    assert alone.scores == [mixed.scores[0], mixed.scores[2]]


def test_the_same_id_with_other_input_is_a_conflict_and_changes_nothing(
    client: ServingClient, supervisor: Supervisor
) -> None:
    before = client.infer("late", columns(100), ids=["clash-a"], at=NOW)
    with pytest.raises(Conflict, match="'clash-a'") as caught:
        client.infer("late", columns(777, 200), ids=["clash-a", "clash-new"], at=NOW)
    assert "777" not in str(caught.value)
    with pytest.raises(Conflict):
        client.infer("late", columns(None), ids=["clash-a"], at=NOW)
    assert client.infer("late", columns(100), ids=["clash-a"], at=NOW).scores == before.scores
    assert logged_ids(supervisor, of="clash") == ["clash-a"]


def test_answers_survive_kill_9_and_the_shipping_of_the_log(
    client: ServingClient, supervisor: Supervisor
) -> None:
    before = client.infer("late", columns(100, 200), ids=["kill-a", "kill-b"], at=NOW)
    drop_segments(supervisor.folder / "late" / "spool", through=rotated(supervisor))
    later = client.infer("late", columns(300), ids=["kill-c"], at=NOW)
    os.kill(supervisor.pids[0], signal.SIGKILL)
    again = client.infer("late", columns(100, 200, 300), ids=["kill-a", "kill-b", "kill-c"], at=NOW)
    assert again.scores == [*before.scores, *later.scores]
    assert again.logged == 3
    assert logged_ids(supervisor, of="kill") == ["kill-c"]


def test_what_was_logged_but_not_indexed_is_found_after_a_restart(
    client: ServingClient, supervisor: Supervisor, tmp_path: Path
) -> None:
    before = client.infer("late", columns(100), ids=["lost-a"], at=NOW)
    with PredictionIndex(tmp_path) as index:
        assert index.find(["lost-a"]) == [None]
        assert index.catch_up(supervisor.folder / "late" / "spool") > 0
        (found,) = index.find(["lost-a"])
    assert found is not None
    assert found.score == before.scores[0]


def test_every_answer_is_logged_once_however_often_the_worker_is_killed(supervisor: Supervisor) -> None:
    answered: dict[str, float | None] = {}
    stop = threading.Event()
    failures: list[Exception] = []

    def ask(name: str) -> None:
        try:
            with supervisor.client() as client:
                for number in range(10_000):
                    if stop.is_set():
                        return
                    ids = [f"often-{name}-{number}-{row}" for row in range(3)]
                    answers = client.infer("late", columns(number, 2, 3), ids=ids, at=NOW)
                    answered.update(zip(answers.ids, answers.scores, strict=True))
        except (NoriaError, KeyError, TypeError) as err:
            failures.append(err)

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("x", "y")]
    for thread in threads:
        thread.start()
    chance = random.Random(7)
    for _ in range(3):
        time.sleep(chance.uniform(0.05, 0.3))
        os.kill(supervisor.pids[0], signal.SIGKILL)
        while not supervisor.pids:
            time.sleep(0.01)
        supervisor.status()
    time.sleep(0.1)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    ids = logged_ids(supervisor, of="often")
    assert max(Counter(ids).values()) == 1
    assert set(answered) <= set(ids)
    scores = {
        each: score
        for _, payload in read_spool(supervisor.folder / "late" / "spool")
        for frame in [decode_frame(payload)]
        for each, score in zip(frame.ids, frame.releases[0].score_array().tolist(), strict=True)
    }
    assert {each: scores[each] for each in answered} == answered
