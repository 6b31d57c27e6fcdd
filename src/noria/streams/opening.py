"""Opens the stream that a URL and a name stand for."""

from importlib.metadata import entry_points
from pathlib import Path
from typing import cast

from noria.errors import ConfigError
from noria.streams.contract import EventStream

__all__ = ["open_stream"]

_GROUP = "noria.stream"


def open_stream(url: str, name: str, *, root: Path, partitions: int = 1) -> EventStream:
    """Open a stream; one that is not there is made when it is first appended to.

    Parameters
    ----------
    url
        `log:FOLDER`, `nats://HOST:PORT` or `kafka://HOST:PORT`.
    name
        The stream's name; with a broker, that of its stream or topic.
    root
        A relative folder is below it.
    partitions
        How many a new one has.

    Raises
    ------
    ConfigError
        If there is no such backend, or its library is not installed.
    """
    scheme, _, where = url.partition(":")
    found = {each.name: each for each in entry_points(group=_GROUP)}
    if scheme not in found or not where.strip("/"):
        raise ConfigError(
            f"no stream for {url!r}; write log:FOLDER, or <backend>://HOST:PORT; there is "
            f"{', '.join(sorted(found))}"
        )
    try:
        opener = found[scheme].load()
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"stream {url!r} needs the package {error.name!r}; install noria[{scheme}]"
        ) from error
    return cast("EventStream", opener(url, name, root=root, partitions=partitions))
