"""A full disk, made by limiting how large the worker's files may grow."""

import resource
from collections.abc import Callable

import pytest
from tests.serving.conftest import NOW, Trained, route

from noria.deploy.supervisor import Supervisor
from noria.errors import DeploymentError
from noria.serving.client import InferError
from noria.serving.logs.log import decode_frame
from noria.streams.spool import read_spool

UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
COLUMNS: dict[str, list[object]] = {"carrier": ["AA"] * 20, "distance": [1.0] * 20}


def limit_files(supervisor: Supervisor, size_bytes: int) -> None:
    resource.prlimit(supervisor.pids[0], resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))


def test_where_the_log_has_no_room_nothing_is_answered_and_nothing_is_broken(
    supervise: Callable[..., Supervisor], first: Trained
) -> None:
    supervisor = supervise()
    supervisor.start(route(1, first.served(1)))
    (segment,) = (supervisor.folder / "late" / "spool").glob("*.log")
    with supervisor.client() as client:
        before = client.infer("late", COLUMNS, ids=[f"a-{row}" for row in range(20)], at=NOW)
        limit_files(supervisor, segment.stat().st_size + 100)
        with pytest.raises(InferError, match="disk of the prediction log is full") as caught:
            client.infer("late", COLUMNS, ids=[f"b-{row}" for row in range(20)], at=NOW)
        assert caught.value.status == 503
        limit_files(supervisor, resource.RLIM_INFINITY)
        after = client.infer("late", COLUMNS, ids=[f"b-{row}" for row in range(20)], at=NOW)
        assert (before.scores, after.logged) == (after.scores, 0)
    frames = [decode_frame(payload) for _, payload in read_spool(supervisor.folder / "late" / "spool")]
    assert [frame.ids[0] for frame in frames] == ["a-0", "b-0"]


def test_where_the_index_has_no_room_answers_stand_and_are_entered_later(
    supervise: Callable[..., Supervisor], first: Trained
) -> None:
    supervisor = supervise()
    supervisor.start(route(1, first.served(1)))
    index = supervisor.folder / "late" / "index" / "data.mdb"
    with supervisor.client() as client:
        limit_files(supervisor, index.stat().st_size)
        answers = [
            client.infer("late", COLUMNS, ids=[f"{number}-{row}" for row in range(20)], at=NOW)
            for number in range(4)
        ]
        again = client.infer("late", COLUMNS, ids=[f"3-{row}" for row in range(20)], at=NOW)
        assert (again.logged, again.scores) == (20, answers[3].scores)
        with pytest.raises(DeploymentError, match="no space"):
            supervisor.rotate("late")
        limit_files(supervisor, resource.RLIM_INFINITY)
        supervisor.rotate("late")
        again = client.infer("late", COLUMNS, ids=[f"0-{row}" for row in range(20)], at=NOW)
        assert again.logged == 20
