"""What the control plane hands a serving worker, and what the worker says of itself.

`server.json`, in the folder of the environment, holds a `WorkerConfig` and never changes while the server
lives; `route.json`, in the folder of each deployment below it, holds a `Route` and is replaced, atomically,
to swap.
"""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from noria.errors import ConfigError, DeploymentError, DiskFull
from noria.features.declarations import ViewSpec
from noria.features.on_demand import OnDemandSpec

__all__ = [
    "HEADER_UNIT",
    "ROUTE_FILE",
    "SCORE",
    "SERVER_FILE",
    "STATUS_FILE",
    "DeploymentState",
    "Input",
    "Limits",
    "LogRules",
    "ModelState",
    "Output",
    "Route",
    "RouteEntry",
    "RouteRule",
    "Samples",
    "ServedFile",
    "ServedModel",
    "ServerStatus",
    "WorkerConfig",
    "WorkerStatus",
    "assignment_point",
    "pick",
    "read_record",
    "split",
    "write_record",
]

SERVER_FILE = "server.json"
HEADER_UNIT = "header:"  # of a unit that is a header, followed by its name
ROUTE_FILE = "route.json"
STATUS_FILE = "status.json"

T = TypeVar("T", bound=msgspec.Struct)


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """One column that a model reads.

    A `number`, a `category` and a `string` come with the request, a `feature` (named `<view>__<feature>`) is
    looked up online, or computed on demand, and a `text` is a feature that is a text. A category or text
    becomes its position in `categories`; one that is not there becomes NaN or -1, as `unseen` says; a missing
    one is always NaN. A `string` reaches the model as it is.

    Parameters
    ----------
    width
        Of a `number` that is a vector, such as an embedding or a row of pixels: so many columns of the
        matrix.
    datatype
        What the model was given when it was trained, as the Open Inference Protocol names it: told to
        clients; a number is float64 in the matrix whatever it says.
    optional
        Whether a request may leave it out; it is missing then.
    """

    name: str
    kind: Literal["number", "category", "feature", "text", "string"]
    categories: tuple[str, ...] = ()
    unseen: Literal["nan", "minus_one"] = "nan"
    width: int = 1
    datatype: str = ""  # empty: FP64 of numbers and features, BYTES of texts
    optional: bool = False


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """One column that a model gives.

    Parameters
    ----------
    datatype
        As the Open Inference Protocol names it.
    width
        0: one value for a row; else a vector of so many.
    labels
        What the elements of a vector are of, such as the classes of probabilities.
    """

    name: str
    datatype: Literal["FP64", "INT64", "BOOL", "BYTES"] = "FP64"
    width: int = 0
    labels: tuple[str, ...] = ()


SCORE = Output(name="score")  # what a model gives that gives one number for a row


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """Stored rows of the model's matrix with what the trained model gave: little-endian float64."""

    matrix: bytes  # (n, k), row-major, columns in the order of the model's inputs, without those of strings
    scores: bytes  # (n,); NaN where the model gives no number for a row
    numbers: dict[str, bytes] = {}  # what on-demand features read and give, (n,) each
    texts: dict[str, list[str | None]] = {}
    strings: dict[str, list[str | None]] = {}  # inputs of kind `string`
    outputs: dict[str, bytes | list[str | None]] = {}  # where the model gives other than one score: all


class ServedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a model that is a folder."""

    name: str  # its path in the folder
    digest: str
    path: str  # where it is kept


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
    outputs: tuple[Output, ...] = (SCORE,)
    files: tuple[ServedFile, ...] = ()  # of a model that is a folder; `path` is empty then
    trust_pickle: bool = False  # whether it may run code as it is loaded: the project says so


class RouteEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A release's share of the answers. A `shadow` scores every row and answers none."""

    release: str
    weight: float = 1.0
    mode: Literal["answer", "shadow"] = "answer"


class RouteRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whose requests a release answers whatever the weights say: those with a header of these values.

    Parameters
    ----------
    header
        Its name; case does not matter.
    values, prefix
        What the header holds: one of the values, or a text that begins with `prefix`.
    release
        One of the route's, with a weight of 0 where it answers nothing else.

    Raises
    ------
    ConfigError
        If it names no header, or neither or both of values and prefix.
    """

    header: str
    release: str
    values: tuple[str, ...] = ()
    prefix: str = ""

    def __post_init__(self) -> None:
        """Write the header's name as requests are read: in lower case."""
        msgspec.structs.force_setattr(self, "header", self.header.strip().lower())
        if not self.header or bool(self.values) == bool(self.prefix):
            raise ConfigError(
                f"a rule on header {self.header!r} has values {list(self.values)} and prefix "
                f"{self.prefix!r}; give it the name of a header, and either values or a prefix"
            )

    def holds(self, headers: Mapping[str, str]) -> bool:
        """Say whether a request with these headers, named in lower case, is meant."""
        found = headers.get(self.header)
        if found is None:
            return False
        return found.startswith(self.prefix) if self.prefix else found in self.values


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers at a deployment; `noria.serving.assignment` says which rows.

    Parameters
    ----------
    id
        Digest of the route. The same route assigns a prediction id the same way for ever.
    unit
        What is assigned: a request column or `header:NAME`; empty: each prediction by its id.
    salt
        Routes with the same salt assign the same units alike, as far as their weights agree; empty: each
        route assigns anew.
    rules
        Checked in their order, before the weights.
    brought
        Request columns by which rows of the deployment were assigned once: clients may go on to bring them,
        though nothing reads them now.
    """

    environment: str
    deployment: str
    number: int
    id: str
    entries: tuple[RouteEntry, ...]
    models: tuple[ServedModel, ...]
    unit: str = ""
    salt: str = ""
    rules: tuple[RouteRule, ...] = ()
    brought: tuple[str, ...] = ()


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


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker takes before it refuses, and how long it waits.

    Parameters
    ----------
    max_header_bytes
        Of a request's line and headers together; more get 431.
    request_timeout_s
        A request that is not answered by then gets 504; what it asked for may still be logged.
    shed_after_s
        A request that is expected to wait longer than this gets 503 at once.
    read_timeout_s
        A client that has begun a request has so long to send it, and to take its answer; then it gets 408
        and the connection is closed.
    keep_alive_s
        How long a connection may be idle between two requests.
    max_connections
        One more gets 503.
    drain_s
        How long a worker that stops waits for what is in flight.
    features_timeout_s
        How long looking features up may take, where the online store is asked over a connection.
    explain_share
        Of one core, that explanations may take in each worker; 0: none are given.
    explain_timeout_s
        How long one explanation may take.
    """

    max_body_bytes: int = 16 * 2**20
    max_header_bytes: int = 65_536
    max_rows: int = 100_000
    request_timeout_s: float = 30.0
    shed_after_s: float = 1.0
    read_timeout_s: float = 30.0
    keep_alive_s: float = 75.0
    max_connections: int = 10_000
    drain_s: float = 5.0
    features_timeout_s: float = 0.25
    max_explained_rows: int = 100
    explain_share: float = 0.25
    explain_timeout_s: float = 5.0


class LogRules(msgspec.Struct, frozen=True, kw_only=True):
    """What of each prediction is kept, and how surely.

    Parameters
    ----------
    sample
        The share of requests that are logged, picked by their first prediction id; all are answered once.
    redact
        Request columns, and features as `<view>__<feature>`, whose values are left out.
    synchronous
        Whether an answer waits until its log is on the disk: it then survives loss of power, and takes as
        long as the disk does.
    max_spool_bytes
        New requests get 503 while so much of one deployment waits to be moved into the lake.
    """

    sample: float = 1.0
    redact: tuple[str, ...] = ()
    synchronous: bool = False
    max_spool_bytes: int = 16 * 2**30


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How the server of an environment is set up, and each worker of it.

    Parameters
    ----------
    online
        URL or folder of the online store, relative to the server's folder; None where no model needs a view.
    port
        0: a free one; it stays the same while the server lives.
    workers
        How many processes answer; 0: one for each core.
    features
        What becomes of a request whose features cannot be looked up: it is refused with 503, or answered
        with the defaults of its views.
    features_max_age_s
        How old features of views that declare no `freshness` may be before answers call them stale; 0: any.
    proxies
        Addresses and networks of proxies whose `X-Forwarded-For` and `-Proto` are believed.
    keys
        The file of those who may ask; empty: nobody is asked for a key.
    own_key
        The SHA-256 of the key that the supervisor itself asks by.
    without_key
        What is shown to anybody, beside whether the server lives and is ready.
    strangers
        Whether it may listen beyond this machine without keys.
    hang_s
        A worker whose loop, or whose model, stands still for so long is ended, with its stack in its log, and
        started anew.
    idle_stop_s
        Workers without a request for so long are stopped, and started when one comes; 0: never.
    memory_mb
        Of each worker, without the files that it maps: where it needs more, the models of the deployment
        that was asked the longest ago are let go of, and loaded again by the next request; 0: no limit.
    """

    environment: str
    online: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    clock: Literal["wall", "replay"] = "wall"
    workers: int = 1
    limits: Limits = Limits()
    log: LogRules = LogRules()
    tls_certificate: str = ""  # a PEM file with the chain; empty: plain HTTP
    tls_key: str = ""  # a PEM file with its key; empty: it is in the file of the certificate
    proxies: tuple[str, ...] = ()
    keys: str = ""
    own_key: str = ""
    without_key: tuple[Literal["metrics", "docs"], ...] = ()
    strangers: Literal["refuse", "allow"] = "refuse"
    features: Literal["refuse", "fallback"] = "refuse"
    features_max_age_s: float = 0.0
    lock_wait_s: float = 10.0
    hang_s: float = 30.0
    idle_stop_s: float = 0.0
    memory_mb: int = 0


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a release of the newest route file is loaded, and if not, why."""

    release: str
    model: str
    version: int
    ready: bool
    error: str | None = None


class DeploymentState(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker, or all of them, say of one deployment."""

    state: Literal["starting", "ready", "refused"]  # refused: no route could be loaded yet
    route: int = 0  # the number that answers; 0 before the first
    wanted: int = 0  # the number in the route file as last read
    error: str | None = None  # why `wanted` does not answer
    refusal: str | None = None  # the last refused route and why, until another route answers
    held_by: str | None = None  # the other process that serves this deployment
    models: tuple[ModelState, ...] = ()  # of the route that answers, and the refused ones
    is_resting: bool = False  # the models are not in memory: the next request loads them


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of itself."""

    state: Literal["starting", "ready", "stopping"]
    pid: int
    worker: int  # its number among those of the server, from 0
    host: str
    port: int
    deployments: dict[str, DeploymentState] = {}
    requests: int = 0  # answered since it started
    connections: int = 0
    idle_s: float = 0.0  # since the last request

    @property
    def is_ready(self) -> bool:
        """Whether it answers, by one deployment at least."""
        return self.state == "ready" and any(each.route for each in self.deployments.values())


class ServerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the server of an environment says of itself."""

    environment: str
    host: str
    port: int
    is_secure: bool = False
    is_asleep: bool = False  # no worker runs as nobody asked; one is started when somebody does
    workers: tuple[WorkerStatus, ...] = ()  # those that live
    given_up: dict[int, str] = {}  # workers that kept ending, and why
    deployments: dict[str, DeploymentState] = {}  # of all workers together: the oldest route, any error


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
