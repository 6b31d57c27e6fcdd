"""`POST /streams/NAME`, over real HTTP."""

import http.client
import json
import resource
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import noria
from noria.api.application import application
from noria.api.server import ControlPlane
from noria.streams.backends.log import LogStream
from noria.streams.contract import BEFORE_ALL, MAX_EVENT_BYTES
from noria.workspace.project import Project
from noria.workspace.streaming import consume_stream
from noria.workspace.up.records import Role, UpState

DECLARED = """
import noria

clicks = noria.Dataset("clicks", key="id", event_at="at",
                       schema={"id": "string", "user": "int64", "at": "timestamp[us, tz=UTC]"})
one = noria.Stream("clicks", into=clicks, key="user", backlog=100)
wide = noria.Stream("wide", into=clicks, key="user", partitions=2)
"""
JSON, LINES = "application/json", "application/x-ndjson"


class Producer:
    def __init__(self, project: Project, port: int) -> None:
        self.project, self.port = project, port

    def push(self, body: bytes, kind: str | None = JSON, *, stream: str = "clicks") -> tuple[int, Any, Any]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request("POST", f"/streams/{stream}", body, {"content-type": kind} if kind else {})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read()), answer.headers

    def kept(self, stream: str = "clicks", partition: int = 0) -> list[bytes]:
        log = LogStream(self.project.streams_path() / "logs" / stream, name=stream)
        found = [each.payload for each in log.read(partition, after=BEFORE_ALL, rows=1_000_000)]
        log.close()
        return found


@pytest.fixture
def producer(tmp_path: Path) -> Iterator[Producer]:
    (tmp_path / "noria.toml").write_text('[project]\nname = "shop"\nmodules = ["pushed_declared"]\n')
    (tmp_path / "pushed_declared.py").write_text(DECLARED)
    state = UpState(role=Role.LEADER, since=datetime(2024, 5, 1, tzinfo=UTC), leader=None)
    with noria.open(tmp_path) as project, ControlPlane("127.0.0.1", 0) as plane:
        plane.start(application(project, lambda: state, host="127.0.0.1"))
        yield Producer(project, int(plane.url.rpartition(":")[2]))


def test_an_object_an_array_and_lines_are_in_the_log_once_it_answers(producer: Producer) -> None:
    assert producer.push(b' {"id": "a",\n "user": 1} ')[:2] == (200, {"accepted": 1, "offset": 0})
    assert producer.kept() == [b'{"id": "a",\n "user": 1}']
    assert producer.push(b'[{"id":"b"}, {"id":"c"}]')[:2] == (200, {"accepted": 2, "offset": 2})
    assert producer.push(b'{"id":"d"}\n\n{"id":"e"}\r\n', LINES)[:2] == (200, {"accepted": 2, "offset": 4})
    assert producer.push(b"[]")[:2] == (200, {"accepted": 0, "offset": None})
    assert producer.push(b"\n", LINES)[:2] == (200, {"accepted": 0, "offset": None})
    assert producer.kept()[1:] == [b'{"id":"b"}', b'{"id":"c"}', b'{"id":"d"}', b'{"id":"e"}']


def test_events_of_a_key_share_a_partition(producer: Producer) -> None:
    body = b"".join(b'{"id":"%d","user":%d}\n' % (number, number % 9) for number in range(45))
    status, told, _ = producer.push(body, LINES, stream="wide")
    assert status == 200
    assert told["accepted"] == 45
    kept = [producer.kept("wide", number) for number in range(2)]
    assert told["offset"] == {str(number): len(each) - 1 for number, each in enumerate(kept) if each}
    users = [{json.loads(each)["user"] for each in part} for part in kept]
    assert not users[0] & users[1]
    assert sum(map(len, kept)) == 45


@pytest.mark.parametrize(
    ("body", "kind", "status", "message"),
    [
        (b"", JSON, 400, "the body is no JSON object"),
        (b"hello", JSON, 400, "the body is no JSON object"),
        (b'"hello"', JSON, 400, "Expected `object`"),
        (b'[{"id":"a"},3]', JSON, 400, "event 1 is no JSON object"),
        (b'[{"id":"a"}', JSON, 400, "no JSON array of objects"),
        (b'{"id":NaN}', JSON, 400, "no JSON object"),
        (b'{"id":"a"}\n{"id":\n', LINES, 400, "line 2 is no JSON object"),
        (b'{"id":"a"}', "text/plain", 415, "application/x-ndjson"),
        (b'{"id":"a"}', None, 415, "application/json"),
        (b'{"id":"%s"}' % (b"x" * MAX_EVENT_BYTES), JSON, 413, f"at most {MAX_EVENT_BYTES} are taken"),
        (b" " * ((8 << 20) + 1), JSON, 413, "larger than 8388608 bytes"),
    ],
)
def test_what_cannot_be_taken_is_refused_as_a_whole(
    producer: Producer, body: bytes, kind: str | None, status: int, message: str
) -> None:
    found, told, _ = producer.push(body, kind)
    assert found == status
    assert message in told["error"]["message"]
    assert producer.kept() == []


def test_a_stream_that_is_not_declared_is_not_found(producer: Producer) -> None:
    status, told, _ = producer.push(b"{}", stream="cliks")
    assert status == 404
    assert "did you mean 'clicks'?" in told["error"]["message"]


def test_producers_are_told_to_wait_while_too_much_has_not_landed(
    producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noria.workspace.streaming._LOOK_EVERY_S", 0.0)
    events = [b'{"id":"%d","at":"2024-05-01T10:00:00Z"}' % number for number in range(150)]
    assert producer.push(b"\n".join(events[:99]), LINES)[0] == 200
    assert (
        producer.push(b"\n".join(events[99:110]), LINES)[0] == 200
    )  # it is looked before, not into the body
    status, told, headers = producer.push(events[110])
    assert status == 429
    assert headers["retry-after"] == "2"
    assert "has 110 events that have not landed, at most 100 may wait" in told["error"]["message"]
    import threading

    consume_stream(producer.project, "clicks", stop=threading.Event(), until_empty=True)
    assert producer.push(events[110])[0] == 200
    assert len(producer.kept()) == 111


def test_a_full_disk_is_no_acceptance(producer: Producer) -> None:
    assert producer.push(b'{"id":"a"}')[0] == 200
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        status, told, headers = producer.push(b'{"id":"%s"}' % (b"x" * 1_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert status == 503
    assert headers["retry-after"]
    assert "no space left" in told["error"]["message"]
    assert producer.push(b'{"id":"b"}')[:2] == (200, {"accepted": 1, "offset": 1})
    assert producer.kept() == [b'{"id":"a"}', b'{"id":"b"}']
