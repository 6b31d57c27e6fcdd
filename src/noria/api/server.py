"""The server of the control plane: a thread of the process that it tells about."""

import errno
import socket
import threading
import time
from types import TracebackType
from typing import Self

import uvicorn
from starlette.types import ASGIApp

from noria.errors import ConfigError, PortInUse

__all__ = ["ControlPlane"]

_POLL_S = 0.01
_STOP_WITHIN_S = 2
_LAST_PORT = 65_535


class ControlPlane:
    """Answers by an application from a thread, within a `with` block.

    Parameters
    ----------
    host, port
        Where to listen; port 0 takes a free one. The port is taken at once.

    Raises
    ------
    PortInUse
        If somebody else listens there.
    ConfigError
        If there is no such address on this machine.
    """

    def __init__(self, host: str, port: int) -> None:
        self._listener = _bind(host, port)
        self._host, self._port = host, int(self._listener.getsockname()[1])
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"

    def start(self, app: ASGIApp) -> None:
        """Answer from here on."""
        config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_STOP_WITHIN_S,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run,
            kwargs={"sockets": [self._listener]},
            name="noria-control-plane",
            daemon=True,
        )
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Answer what was asked, and listen no more."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _bind(host: str, port: int) -> socket.socket:
    if not 0 <= port <= _LAST_PORT:
        raise ConfigError(f"{port} is no port; it goes from 0 (a free one) to {_LAST_PORT}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as err:
        raise ConfigError(f"there is no address {host}:{port} to listen at: {err}; see [server]") from err
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as err:
        listener.close()
        if err.errno == errno.EADDRINUSE:
            raise PortInUse(host, port) from err
        raise ConfigError(f"cannot listen at {host}:{port}: {err.strerror}; see [server]") from err
    return listener
