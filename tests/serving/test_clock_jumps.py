"""A wall clock that jumps under a worker, ahead and back: all goes on, and nothing is logged twice."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.serving.served import Asked, numeric, supervised

from noria.deploy.supervisor import Supervisor
from noria.serving.client import ServingClient
from noria.serving.logs.log import PredictionFrame, decode_frame
from noria.serving.records import Limits, WorkerConfig
from noria.streams.spool import read_spool

DAY = 86_400.0
CONFIG = WorkerConfig(
    environment="production", limits=Limits(request_timeout_s=2.0, shed_after_s=0.5, read_timeout_s=2.0)
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    return numeric(tmp_path_factory.mktemp("model"))


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "jump"
    path.write_text("0")
    monkeypatch.setenv("NORIA_TEST_JUMP", str(path))
    folders = [str(Path(__file__).parent / "jumping_clock"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, folders)))
    return path


@pytest.fixture
def supervisor(model: Asked, clock: Path, tmp_path: Path) -> Iterator[Supervisor]:
    with supervised(model, folder=tmp_path / "server", config=CONFIG) as running:
        yield running


def jump(clock: Path, seconds: float) -> None:
    beside = clock.with_suffix(".new")
    beside.write_text(str(seconds))
    beside.replace(clock)


def frames(supervisor: Supervisor) -> list[PredictionFrame]:
    return [decode_frame(payload) for _, payload in read_spool(supervisor.folder / "numbers" / "spool")]


def ask(client: ServingClient, model: Asked, *ids: str) -> list[float | None]:
    columns = {name: values[: len(ids)] for name, (_, values) in model.columns.items()}
    return list(client.infer("numbers", columns, ids=list(ids)).scores)


def test_a_clock_that_jumps_changes_no_answer_and_ends_no_connection(
    supervisor: Supervisor, model: Asked, clock: Path
) -> None:
    wanted = model.outputs["score"]
    (pid,) = supervisor.pids
    with supervisor.client() as client:
        for place, seconds in enumerate((0.0, DAY, -DAY, 365 * DAY, 0.0)):
            jump(clock, seconds)
            began = time.monotonic()
            ids = [f"jump-{place}-{row}" for row in range(3)]
            assert ask(client, model, *ids) == pytest.approx(wanted[:3], abs=0)
            assert ask(client, model, "first") == pytest.approx(wanted[:1], abs=0)  # of before the jump
            assert ask(client, model, *ids) == pytest.approx(wanted[:3], abs=0)  # a retry
            time.sleep(0.3)  # who looks after slow clients and hung models has looked
            assert time.monotonic() - began < 2.0  # nothing waited for the clock
    assert supervisor.pids == (pid,)
    logged = frames(supervisor)
    ids = [each for frame in logged for each in frame.ids]
    assert len(ids) == len(set(ids)) == 5 * 3 + 1
    by_id = {each: frame.at for frame in logged for each in frame.ids}
    days = [round((by_id[f"jump-{place}-0"] / 1e6 - time.time()) / DAY) for place in range(5)]
    assert days == [0, 1, -1, 365, 0]  # a prediction has the instant that the clock told


def test_a_worker_that_starts_before_what_it_has_logged_goes_on(
    supervisor: Supervisor, model: Asked, clock: Path
) -> None:
    with supervisor.client() as client:
        before = ask(client, model, "a", "b")
        jump(clock, -30 * DAY)
        supervisor.restart()
        assert ask(client, model, "a", "b") == before
        ask(client, model, "c")
    assert sorted(each for frame in frames(supervisor) for each in frame.ids) == ["a", "b", "c"]
    assert supervisor.counts("numbers").of("numbers:1").errors == 0
