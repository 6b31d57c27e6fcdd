"""A server that is none, or not as it should be: nobody is held up, and no password is told."""

import http.server
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.tracking.test_remote_runs import waiting

import noria
from noria.errors import ConfigError
from noria.records import RunState

pytestmark = pytest.mark.usefixtures("spool")


def test_what_is_no_url_is_refused_without_a_word_of_its_password() -> None:
    for wrong in ("ftp://x", "http://", "127.0.0.1:80", "http://h:99999", "http://a b",
                  "http://a:s3cret/x@h", "http://a:s3cret#x@h", "http://a:s3cret℀@h",
                  "http://a:s3cret[@h"):  # fmt: skip
        with pytest.raises(ConfigError, match="URL") as caught:
            noria.start_run(server=wrong).__enter__()
        assert "s3cret" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_a_password_is_written_nowhere(
    spool: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORIA_TRACKING__PATIENCE_S", "0.3")
    caplog.set_level(logging.DEBUG)
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://ada:s3cret@127.0.0.1:{free.getsockname()[1]}"
    with noria.start_run("one", server=url) as run:
        run.log_metric("loss", 1)
    (done,) = noria.sync_runs(url).logs
    assert not done.is_sent
    assert run.id in caplog.text
    assert "s3cret" not in f"{caplog.text}{done}"
    assert not any(b"s3cret" in each.read_bytes() for each in spool.rglob("*") if each.is_file())


class _Odd(http.server.BaseHTTPRequestHandler):
    """Answers as no noria does."""

    protocol_version = "HTTP/1.1"
    how = ""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if self.how == "slow":
            time.sleep(30)
            self.close_connection = True
            return
        status = {"500": 500, "401": 401, "version": 200, "unreadable": 200, "page": 200}[self.how]
        body = b"\x93\xff<html>"
        self.send_response(status)
        if self.how in {"version", "unreadable"}:
            self.send_header("noria-tracking", "2" if self.how == "version" else "1")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def odd_server(how: str) -> Iterator[str]:
    handler = type("_Handler", (_Odd,), {"how": how})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        made.daemon_threads = True
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_address[1]}"
        made.shutdown()


@pytest.mark.parametrize("how", ["500", "slow", "unreadable", "page"])
def test_a_server_that_answers_oddly_holds_nobody_up(
    how: str, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORIA_TRACKING__PATIENCE_S", "0.5")
    began = time.monotonic()
    with odd_server(how) as url:
        with noria.start_run("one", server=url) as run:
            for number in range(1_000):
                run.log_metric("loss", number)
        assert time.monotonic() - began < 10
        assert run.run.state is RunState.FINISHED
        assert [each.name.partition(".")[0] for each in waiting(spool)] == [run.id]


@pytest.mark.parametrize(("how", "says"), [("401", "NORIA_TRACKING__TOKEN"), ("version", "version '2'")])
def test_a_server_that_will_not_have_us_says_so_at_the_start(how: str, says: str, spool: Path) -> None:
    with odd_server(how) as url, pytest.raises(ConfigError, match=says):
        noria.start_run("one", server=url).__enter__()
    assert waiting(spool) == []
