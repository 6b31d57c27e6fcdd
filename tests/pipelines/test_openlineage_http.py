import base64
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.pipelines.openlineage.collector import collecting, unused_port
from tests.pipelines.openlineage.made import NAMESPACE, a_run
from tests.pipelines.openlineage.published import faults

from noria.errors import ConfigError, StoreError
from noria.pipelines.openlineage.emitter import Lineage, LineageEmitter
from noria.pipelines.openlineage.http import Endpoint, HttpSink
from noria.pipelines.openlineage.spool import EventSpool
from noria.records import RunState

_WRITER = """
import os, sys
from pathlib import Path
from noria.pipelines.openlineage.emitter import LineageEmitter
out = LineageEmitter.open(sys.argv[1], root=Path(sys.argv[2]), namespace="noria://x")
for number in range(int(sys.argv[4])):
    out.emit({"eventType": "OTHER", "by": sys.argv[3], "number": number})
if sys.argv[5] == "close":
    out.close(timeout_s=60)
else:
    os.kill(os.getpid(), 9)
"""


def emitter(url: str, root: Path) -> LineageEmitter:
    return LineageEmitter.open(url, root=root, namespace=NAMESPACE)


@contextmanager
def eager(url: str, root: Path, **waits: float) -> Iterator[LineageEmitter]:
    """Give an emitter that does not wait long."""
    given = {"first_wait_s": 0.01, "longest_wait_s": 0.05, "poll_s": 0.05, "answer_timeout_s": 5.0, **waits}
    sink = HttpSink(Endpoint.parse(url), EventSpool(root / "spool"), **given)
    with LineageEmitter(sink, namespace=NAMESPACE) as out:
        yield out


def numbered(count: int, *, start: int = 0) -> list[dict[str, Any]]:
    return [{"eventType": "OTHER", "number": number} for number in range(start, start + count)]


def emit_all(out: LineageEmitter, events: list[dict[str, Any]]) -> None:
    for each in events:
        out.emit(each)


def writer(url: str, root: Path, name: str, count: int, *, then: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _WRITER, url, str(root), name, str(count), then])


def test_events_are_posted_in_order_and_valid(tmp_path: Path) -> None:
    run = a_run(state=RunState.FAILED, error="größer als 3")
    with collecting() as collector:
        with emitter(collector.url, tmp_path) as out:
            out.started(Lineage(run))
            out.ended(Lineage(run))
        assert [each["eventType"] for each in collector.events] == ["START", "FAIL"]
        assert [faults(each) for each in collector.events] == [[], []]
        path, headers = collector.requests[0]
        assert (path, headers["Content-Type"]) == ("/api/v1/lineage", "application/json")
        assert headers["User-Agent"].startswith("noria/")
        assert out.pending() == 0


def test_a_path_is_kept_and_credentials_become_a_header(tmp_path: Path) -> None:
    with collecting() as collector:
        place = collector.url.removeprefix("http://")
        for login in ("", "to%2Fken@", "me:p%40ss@"):
            with emitter(f"http://{login}{place}/my/lineage?a=1", tmp_path) as out:
                out.emit({})
        assert {path for path, _ in collector.requests} == {"/my/lineage?a=1"}
        basic = base64.b64encode(b"me:p@ss").decode()
        sent = [headers.get("Authorization") for _, headers in collector.requests]
        assert sent == [None, "Bearer to/ken", f"Basic {basic}"]
    assert len(list((tmp_path / ".noria" / "openlineage").iterdir())) == 1  # one spool, whoever logs in


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http:", "names no host"),
        ("http://", "names no host"),
        ("https://me:secret@", "names no host"),
        ("http://me:secret@host:port", "no readable host and port"),
        ("http://me:sec/ret@host", "no readable host and port"),
        ("http://a..secret", "no readable host and port"),
        ("http://[secret", "no readable host and port"),
        ("http://host/a secret", "spaces or control characters"),
        ("http://sec%0Dret@host", "printable ASCII"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_being_shown(
    tmp_path: Path, url: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=r"write http\(s\)://HOST") as caught:
        emitter(url, tmp_path)
    assert said in str(caught.value)
    assert not {"secret", "sec", "ret"} & set(str(caught.value).replace("'", " ").split())


def test_an_endpoint_shows_no_secrets() -> None:
    endpoint = Endpoint.parse("https://me:secret@[::1]:8443/x?key=secret")
    assert str(endpoint) == "https://[::1]:8443/x"
    assert "secret" not in repr(endpoint)


def test_an_endpoint_that_is_away_holds_nobody_up_and_gets_all_later(tmp_path: Path) -> None:
    port = unused_port()
    url = f"http://127.0.0.1:{port}"
    begin = time.monotonic()
    with emitter(url, tmp_path) as out:
        emit_all(out, numbered(50))
    assert time.monotonic() - begin < 4  # nothing waits for it, closing neither
    assert out.pending() == 50
    with collecting(port=port) as collector, emitter(url, tmp_path) as out:
        collector.wait_for(lambda: len(collector.events) == 50)  # without a new event
        emit_all(out, numbered(1, start=50))
        out.close()
        assert collector.events == numbered(51)
    assert out.pending() == 0


def test_an_endpoint_that_comes_back_gets_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = unused_port()
    with caplog.at_level(logging.WARNING), eager(f"http://127.0.0.1:{port}", tmp_path) as out:
        emit_all(out, numbered(5))
        while not caplog.records:
            time.sleep(0.01)
        with collecting(port=port) as collector:
            collector.wait_for(lambda: len(collector.events) == 5)
            assert collector.events == numbered(5)
    assert len(caplog.records) == 1  # said once, however often it was tried
    assert f"http://127.0.0.1:{port}/api/v1/lineage does not answer" in caplog.messages[0]


def test_an_endpoint_that_is_slow_holds_nobody_up(tmp_path: Path) -> None:
    gate = threading.Event()

    def when_let(number: int) -> int:
        gate.wait(20)
        return 201

    with collecting(when_let) as collector:
        with eager(collector.url, tmp_path) as out:
            begin = time.monotonic()
            emit_all(out, numbered(20))
            out.close(timeout_s=0.2)
            assert time.monotonic() - begin < 3
            assert collector.events == []
            gate.set()
            collector.wait_for(lambda: len(collector.events) >= 1)
        with eager(collector.url, tmp_path):
            collector.wait_for(lambda: {each["number"] for each in collector.events} == set(range(20)))


def test_an_endpoint_that_never_answers_is_given_up_and_tried_again(tmp_path: Path) -> None:
    gate = threading.Event()

    def hang_at_first(number: int) -> int:
        if number == 0:
            gate.wait(20)
        return 201

    with collecting(hang_at_first) as collector:
        with eager(collector.url, tmp_path, answer_timeout_s=0.2) as out:
            emit_all(out, numbered(3))
            collector.wait_for(lambda: len(collector.events) == 3)
        assert collector.events == numbered(3)
        gate.set()


@pytest.mark.parametrize("status", [301, 401, 403, 404, 408, 429, 500, 503])
def test_an_event_that_is_not_taken_now_is_sent_again(tmp_path: Path, status: int) -> None:
    with collecting(lambda number: status if number < 3 else 201) as collector:
        with eager(collector.url, tmp_path) as out:
            emit_all(out, numbered(2))
        assert collector.events == numbered(2)
        assert len(collector.requests) == 5
        assert out.pending() == 0


def test_closing_waits_for_an_endpoint_that_answers_but_not_for_long(tmp_path: Path) -> None:
    with collecting(lambda number: 503) as collector:
        begin = time.monotonic()
        with eager(collector.url, tmp_path) as out:
            emit_all(out, numbered(2))
            out.close(timeout_s=0.3)
        assert time.monotonic() - begin < 3
        assert out.pending() == 2
        tried = len(collector.requests)
        assert tried >= 2
        with pytest.raises(StoreError, match="is closed; open it again"):
            out.emit({})


@pytest.mark.parametrize("status", [400, 413, 422])
def test_an_event_that_is_never_taken_is_set_aside(
    tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    answer = "x" * 100_000
    with collecting(lambda number: status if number == 1 else 201, body=answer.encode()) as collector:
        with caplog.at_level(logging.WARNING), eager(collector.url, tmp_path) as out:
            emit_all(out, numbered(3))
        assert collector.events == [numbered(3)[0], numbered(3)[2]]
        assert out.pending() == 0
    [kept] = [json.loads(line) for line in (tmp_path / "spool" / "refused.jsonl").read_text().splitlines()]
    assert kept == {"status": status, "answer": "x" * 500, "event": numbered(3)[1]}
    assert "refused a lineage event" in caplog.text


def test_a_killed_process_loses_nothing_that_was_taken(tmp_path: Path) -> None:
    port = unused_port()
    url = f"http://127.0.0.1:{port}"
    for name in ("a", "b"):
        assert writer(url, tmp_path, name, 40, then="die").wait(60) == -9
    with collecting(port=port) as collector:
        with emitter(url, tmp_path) as out:
            out.close(timeout_s=30)
        found = [(each["by"], each["number"]) for each in collector.events]
        assert found == [(name, number) for name in ("a", "b") for number in range(40)]


def test_a_process_killed_while_it_sends_leaves_the_rest_to_the_next(tmp_path: Path) -> None:
    with collecting() as collector:
        assert writer(collector.url, tmp_path, "a", 300, then="die").wait(60) == -9
        with emitter(collector.url, tmp_path) as out:
            out.close(timeout_s=60)
        assert {each["number"] for each in collector.events} == set(range(300))
        assert len(collector.events) <= 301  # at least once: what was under way may come twice


def test_processes_share_a_spool(tmp_path: Path) -> None:
    with collecting() as collector:
        writers = [writer(collector.url, tmp_path, f"w{number}", 100, then="close") for number in range(4)]
        assert [each.wait(120) for each in writers] == [0] * 4
        collector.wait_for(lambda: len(collector.events) == 400)
        found = [(each["by"], each["number"]) for each in collector.events]
        assert sorted(found) == sorted((f"w{name}", number) for name in range(4) for number in range(100))
        for name in range(4):
            assert [number for by, number in found if by == f"w{name}"] == list(range(100))
    [folder] = (tmp_path / ".noria" / "openlineage").iterdir()
    assert (folder / "events.jsonl").stat().st_size == 0  # nothing is kept of what has arrived


def test_a_torn_line_in_the_spool_is_passed_over(tmp_path: Path) -> None:
    spool = EventSpool(tmp_path)
    spool.append(b'{"eventType":"START"}\n')
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"eventType":"COMPL')
    assert [each.line for each in spool.unsent()] == [b'{"eventType":"START"}\n']
    [event] = spool.unsent()
    spool.mark_sent(event)
    assert spool.is_empty()
    spool.shrink()
    assert (tmp_path / "events.jsonl").read_bytes() == b""


def test_a_spool_that_was_emptied_by_hand_sends_what_comes_then(tmp_path: Path) -> None:
    spool = EventSpool(tmp_path)
    for _ in range(3):
        spool.append(b'{"eventType":"START"}\n')
    *_, last = spool.unsent()
    spool.mark_sent(last)
    (tmp_path / "events.jsonl").unlink()
    spool.append(b'{"eventType":"COMPLETE", "longer": "' + b"x" * 100 + b'"}\n')
    assert spool.count() == 1
