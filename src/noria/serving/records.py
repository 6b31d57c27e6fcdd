"""What the control plane hands a serving worker, and what the worker says of itself.

`worker.json` holds a `WorkerConfig` and never changes while the worker lives; `route.json` holds a `Route`
and is replaced, atomically, to swap. Both lie in the deployment's folder.
"""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from noria.errors import DeploymentError, DiskFull
from noria.features.declarations import ViewSpec
from noria.features.on_demand import OnDemandSpec

__all__ = [
    "EXIT_LOG_HELD",
    "EXIT_PORT_IN_USE",
    "ROUTE_FILE",
    "STATUS_FILE",
    "WORKER_FILE",
    "Input",
    "ModelState",
    "Route",
    "RouteEntry",
    "Samples",
    "ServedModel",
    "WorkerConfig",
    "WorkerStatus",
    "assignment_point",
    "pick",
    "read_record",
    "split",
    "write_record",
]

WORKER_FILE = "worker.json"
ROUTE_FILE = "route.json"
STATUS_FILE = "status.json"
EXIT_PORT_IN_USE = 98  # a worker ends with these, so that its supervisor can tell why
EXIT_LOG_HELD = 75

T = TypeVar("T", bound=msgspec.Struct)


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """One column of the model's matrix.

    A `number` and a `category` come with the request, a `feature` (named `<view>__<feature>`) is looked up
    online, or computed on demand, and a `text` is a feature that is a text. A category or text becomes its
    position in `categories`; one that is not there becomes NaN or -1, as `unseen` says; a missing one is
    always NaN.
    """

    name: str
    kind: Literal["number", "category", "feature", "text"]
    categories: tuple[str, ...] = ()
    unseen: Literal["nan", "minus_one"] = "nan"


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """Stored rows of the model's matrix with the scores the trained model gave: little-endian float64."""

    matrix: bytes  # (n, k), row-major, columns in the order of the model's inputs
    scores: bytes  # (n,)
    numbers: dict[str, bytes] = {}  # what on-demand features read and give, (n,) each
    texts: dict[str, list[str | None]] = {}


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One release's model as a worker loads it."""

    release: str
    model: str
    version: int
    digest: str  # sha256 of the file at `path`
    path: str
    inputs: tuple[Input, ...]  # in the model's order
    samples: Samples
    views: tuple[ViewSpec, ...] = ()
    threshold: float | None = None
    format: str = "lightgbm"
    on_demand: tuple[OnDemandSpec, ...] = ()
    code_digest: str | None = None  # sha256 of the file at `code`
    code: str | None = None  # where the code of on-demand features is kept


class RouteEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A release's share of the answers. A `shadow` scores every row and answers none."""

    release: str
    weight: float = 1.0
    mode: Literal["answer", "shadow"] = "answer"


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers at a deployment."""

    environment: str
    deployment: str
    number: int
    id: str  # salt of the assignment: the same route assigns a prediction id the same way for ever
    entries: tuple[RouteEntry, ...]
    models: tuple[ServedModel, ...]

    def assign(self, prediction_id: str) -> str:
        """Give the release that answers `prediction_id`: a hash of it and the route's id decides."""
        return pick(tuple(split(self.entries)), assignment_point(self.id, prediction_id))


def split(entries: Iterable[RouteEntry]) -> Iterator[tuple[str, float]]:
    """Give each answering release with the upper end of its part of [0, 1), by weight."""
    answering = [entry for entry in entries if entry.mode == "answer" and entry.weight > 0]
    total, reached = sum(entry.weight for entry in answering), 0.0
    for entry in answering:
        reached += entry.weight
        yield entry.release, reached / total


def pick(shares: Sequence[tuple[str, float]], point: float) -> str:
    """Give the release whose part holds `point`."""
    return next((release for release, end in shares if point < end), shares[-1][0])


def assignment_point(route_id: str, prediction_id: str) -> float:
    """Place a prediction id on [0, 1), evenly and the same way every time."""
    digest = hashlib.blake2b(f"{route_id}\0{prediction_id}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How one worker process is set up. Paths are absolute, or relative to the deployment's folder."""

    environment: str
    deployment: str
    spool: str
    index: str
    online: str | None = None  # URL or folder of the online store; None where no model needs a view
    host: str = "127.0.0.1"
    port: int = 0  # 0: a free one; what it became is in the status
    clock: Literal["wall", "replay"] = "wall"
    max_body_bytes: int = 16 * 2**20
    lock_wait_s: float = 10.0


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a release of the newest route file is loaded, and if not, why."""

    release: str
    model: str
    version: int
    ready: bool
    error: str | None = None


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of itself, at `/admin/status` and in `status.json`."""

    state: Literal["starting", "ready", "refused", "stopping"]  # refused: no route could be loaded yet
    pid: int
    host: str
    port: int
    listening: bool
    route: int  # the number that answers; 0 before the first
    wanted: int  # the number in the route file as last read
    error: str | None = None  # why `wanted` does not answer
    refusal: str | None = None  # the last refused route and why, until another route answers
    models: tuple[ModelState, ...] = ()  # of the route that answers, and the refused ones


def write_record(path: Path, record: msgspec.Struct) -> None:
    """Replace the file at `path` by the JSON of `record`, whole or not at all.

    Raises
    ------
    DiskFull
        If there is no room; the old file is then still there.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(msgspec.json.encode(record))
        beside.replace(path)
    except OSError as err:
        beside.unlink(missing_ok=True)
        if err.errno == errno.ENOSPC:
            raise DiskFull(str(path)) from err
        raise


def read_record(path: Path, kind: type[T]) -> T:
    """Read a record that `write_record` wrote.

    Raises
    ------
    DeploymentError
        If there is no such file or it does not hold a `kind`.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError as err:
        raise DeploymentError(
            f"there is no {path.name} in {path.parent}; deploy first, it is written then"
        ) from err
    except msgspec.MsgspecError as err:
        raise DeploymentError(
            f"{path} does not hold a {kind.__name__} ({err}); deploy again to rewrite it"
        ) from err
