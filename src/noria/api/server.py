"""The server of the control plane: a thread of the process that it tells about."""

import errno
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn
from starlette.types import ASGIApp

from noria.config import Server
from noria.errors import ConfigError, PortInUse

__all__ = ["Certificate", "ControlPlane", "certificate_of"]

_POLL_S = 0.01
_STOP_WITHIN_S = 2
_LAST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Certificate:
    """Who the server is, for TLS: PEM files with the chain and its key, which may be one."""

    chain: Path
    key: Path | None = None

    def check(self) -> None:
        """Raise `ConfigError` if they cannot be read, or do not belong together."""
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                self.chain, self.key, password=lambda: ""
            )
        except (OSError, ValueError) as err:  # an SSLError is an OSError
            key = self.chain if self.key is None else self.key
            raise ConfigError(
                f"[server] tls_certificate {self.chain} with tls_key {key} cannot be used: {err}; give PEM "
                "files, the key without a password"
            ) from err


def certificate_of(settings: Server, root: Path) -> Certificate | None:
    """Give the certificate that settings name, None if it is none. Relative paths begin at `root`."""
    if not settings.tls_certificate:
        if settings.tls_key:
            raise ConfigError("[server] tls_key is the key of no certificate; name it as tls_certificate")
        return None
    key = root / settings.tls_key if settings.tls_key else None
    return Certificate(root / settings.tls_certificate, key)


class ControlPlane:
    """Answers by an application from a thread, within a `with` block.

    Parameters
    ----------
    host, port
        Where to listen; port 0 takes a free one. The port is taken at once.
    certificate
        For HTTPS; None: plain HTTP.
    prefix
        Of every path, for `url`.

    Raises
    ------
    PortInUse
        If somebody else listens there.
    ConfigError
        If there is no such address on this machine, or the certificate cannot be used.
    """

    def __init__(
        self, host: str, port: int, *, certificate: Certificate | None = None, prefix: str = ""
    ) -> None:
        if certificate is not None:
            certificate.check()
        self._certificate, self._prefix = certificate, prefix
        self._listener = _bind(host, port)
        self._host, self._port = host, int(self._listener.getsockname()[1])
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        scheme = "http" if self._certificate is None else "https"
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{scheme}://{host}:{self._port}{self._prefix}"

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
            ssl_certfile=None if self._certificate is None else self._certificate.chain,
            ssl_keyfile=None if self._certificate is None else self._certificate.key,
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
