"""A connection that passes on what it gets, or stands still, or lets it trickle."""

import socket
import threading
import time
from contextlib import suppress
from typing import Literal, Self

__all__ = ["Proxy"]

_TRICKLE_S = 0.005


class Proxy:
    """Listens on a free loopback port for what is meant for another one.

    Attributes
    ----------
    does
        "pass"; "hang": takes connections and bytes, and gives nothing back; "trickle": gives one byte at a
        time. It may be changed while connections are open.
    """

    def __init__(self, port: int) -> None:
        self.does: Literal["pass", "hang", "trickle"] = "pass"
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # it was closed
            try:
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                client.close()  # as if nobody listened here
                continue
            self._open += [client, server]
            threading.Thread(target=self._carry, args=(client, server), daemon=True).start()
            threading.Thread(target=self._carry, args=(server, client, True), daemon=True).start()

    def _carry(self, source: socket.socket, to: socket.socket, is_answer: bool = False) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                while is_answer and self.does == "hang":
                    time.sleep(_TRICKLE_S)
                if is_answer and self.does == "trickle":
                    for place in range(len(data)):
                        to.sendall(data[place : place + 1])
                        time.sleep(_TRICKLE_S)
                else:
                    to.sendall(data)
        with suppress(OSError):
            to.shutdown(socket.SHUT_WR)
