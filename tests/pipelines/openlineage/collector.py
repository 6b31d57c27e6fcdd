"""An OpenLineage endpoint on loopback: keeps what it is sent, answers as it is told."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

Answer = Callable[[int], int]  # from the number of the request, counted from 0, to a status


class Collector:
    """What arrived. `events` are those that were answered with 2xx."""

    def __init__(self, answer: Answer, body: bytes = b"") -> None:
        self.answer, self.body = answer, body
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.events: list[dict[str, Any]] = []
        self.changed = threading.Condition()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_for(self, met: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Wait until something holds; looked at whenever a request was answered."""
        with self.changed:
            assert self.changed.wait_for(met, timeout_s), (self.requests[-3:], len(self.events))

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        with self.changed:
            number = len(self.requests)
            self.requests.append((path, headers))
        status = self.answer(number)
        with self.changed:
            if 200 <= status < 300:
                self.events.append(msgspec.json.decode(body))
            self.changed.notify_all()
        return status


@contextmanager
def collecting(
    answer: Answer = lambda number: 201, *, port: int = 0, body: bytes = b""
) -> Iterator[Collector]:
    """Serve until the block ends."""
    collector = Collector(answer, body)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 20

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            status = collector.take(self.path, dict(self.headers), sent)
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(collector.body)))
                self.end_headers()
                self.wfile.write(collector.body)
            except OSError:  # the other end gave up waiting
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", port), Handler) as server:
        collector.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def unused_port() -> int:
    """Give a port of loopback on which nobody listens."""
    with collecting() as gone:
        return gone.port
