"""The sockets that workers take connections from: the supervisor holds them, so that none is refused.

A connection that waits for a worker which ends goes to its successor.
"""

import errno
import ipaddress
import socket
import sys

from noria.errors import DeploymentError, PortInUse

__all__ = ["is_loopback", "listen"]

_BACKLOG = 2_048
_SPREADS = sys.platform == "linux"  # elsewhere SO_REUSEPORT gives all connections to one of the sockets


def listen(host: str, port: int, *, workers: int) -> list[socket.socket]:
    """Listen on a port, with a socket for each worker where the system spreads connections over them.

    Parameters
    ----------
    host
        An address, or a name that has one.
    port
        0: a free one.
    workers
        How many.

    Returns
    -------
    list of socket
        One for each worker; the same for all where connections are not spread.

    Raises
    ------
    PortInUse
        If somebody listens there.
    DeploymentError
        If nobody can.
    """
    first = _bind(host, port, shares=False)  # refused where anybody listens, who shares or not
    if workers == 1 or not _SPREADS:
        first.listen(_BACKLOG)
        return [first] * workers
    port = first.getsockname()[1]
    first.close()
    made: list[socket.socket] = []
    try:
        for _ in range(workers):
            made.append(_bind(host, port, shares=True))
    except BaseException:
        for each in made:
            each.close()
        raise
    for each in made:
        each.listen(_BACKLOG)
    return made


def is_loopback(host: str) -> bool:
    """Tell whether a name or an address is that of this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bind(host: str, port: int, *, shares: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        if not shares:
            listener.listen(1)  # two may be bound with SO_REUSEADDR, and only one may listen
    except OSError as err:
        listener.close()
        if err.errno == errno.EADDRINUSE:
            raise PortInUse(host, port) from err
        raise DeploymentError(
            f"cannot listen on {host}:{port} ({err.strerror}); choose another host or port"
        ) from err
    return listener
