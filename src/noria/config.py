"""The settings of a project: `noria.toml`, overridden by the environment, read once, here and nowhere else.

`NORIA_STORES__DATABASE=...` overrides `[stores] database`: two underscores go one table down.
"""

import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from noria.errors import ConfigError, ProjectNotFound

__all__ = [
    "Compute",
    "EnvironmentSettings",
    "LogSettings",
    "ProjectSettings",
    "Query",
    "RegistrySettings",
    "Server",
    "Settings",
    "Stores",
    "Tracking",
    "Warehouse",
    "find_project",
    "read_settings",
    "read_tracking",
    "spool_folder",
]

FILE_NAME = "noria.toml"
_PREFIX = "NORIA_"
_PROJECT_VARIABLE = "NORIA_PROJECT"
_DEBUG_VARIABLE = "NORIA_DEBUG"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class ProjectSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[project]`."""

    name: str
    modules: tuple[str, ...] = ()


class Stores(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[stores]`: each one URL; relative paths start at the project's folder."""

    database: str = "sqlite:///.noria/noria.db"
    storage: str = ".noria/storage"
    online: str = "lmdb:.noria/online"
    stream: str = "log:.noria/streams"


class Compute(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[compute]`."""

    executor: str = "processes"  # of steps: inline, processes, ray, ray://HOST:PORT
    workers: int = 0  # CPUs that steps may use; 0: all
    lineage: str = ""  # where OpenLineage events go: a file, or an http(s) URL; empty: nowhere
    threads: int = 1  # of a training; a model is the same only for the same number, and one is quickest
    # beside a busy process


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[environments.NAME.log]`: of predictions."""

    sample: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0  # the share of requests that is kept
    redact: tuple[str, ...] = ()  # request columns and features whose values are left out
    synchronous: bool = False  # an answer waits until its log is on the disk
    max_spool_bytes: Annotated[int, msgspec.Meta(gt=0)] = 16 * 2**30  # waiting for the lake; then 503


class EnvironmentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[environments.NAME]`."""

    target: Literal["process"] = "process"
    clock: Literal["wall", "replay"] = "wall"
    gate: str | None = None
    host: str = "127.0.0.1"
    port: int = 0  # 0: a free one
    workers: Annotated[int, msgspec.Meta(ge=0)] = 1  # processes that answer; 0: one for each core
    max_body_bytes: Annotated[int, msgspec.Meta(gt=0)] = 16 * 2**20  # a larger request gets 413
    max_header_bytes: Annotated[int, msgspec.Meta(ge=1_024)] = 65_536  # of a request; more get 431
    max_rows: Annotated[int, msgspec.Meta(gt=0)] = 100_000  # of one request
    request_timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 30.0  # what is not answered by then gets 504
    shed_after_s: Annotated[float, msgspec.Meta(gt=0)] = 1.0  # what would wait longer gets 503 at once
    read_timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 30.0  # for a client to send a request; then 408
    keep_alive_s: Annotated[float, msgspec.Meta(gt=0)] = 75.0  # between two requests of a connection
    max_connections: Annotated[int, msgspec.Meta(gt=0)] = 10_000  # of a worker; one more gets 503
    drain_s: Annotated[float, msgspec.Meta(ge=0)] = 5.0  # for what is in flight where a worker stops
    hang_s: Annotated[float, msgspec.Meta(gt=0)] = 30.0  # a worker that stands still is started anew
    features: Literal["refuse", "fallback"] = "refuse"  # where they cannot be looked up: 503, or defaults
    features_timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 0.25  # for the online store to answer
    features_max_age_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0  # of views without `freshness`; 0: any
    max_explained_rows: Annotated[int, msgspec.Meta(gt=0)] = 100  # of one request for explanations
    explain_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.25  # of a core; 0: nothing is explained
    explain_timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 5.0  # for one explanation; then 504
    idle_stop_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0  # workers that nobody asks are stopped; 0: never
    memory_mb: Annotated[int, msgspec.Meta(ge=0)] = 0  # of a worker; then models rest; 0: no limit
    tls_certificate: str = ""  # a PEM file with the chain; empty: plain HTTP
    tls_key: str = ""  # a PEM file with its key; empty: it is in the file of the certificate
    proxies: tuple[str, ...] = ()  # addresses and networks whose X-Forwarded-For is believed
    keys: str = ""  # the file of those who may ask, below the project; empty: nobody is asked for a key
    without_key: tuple[Literal["metrics", "docs"], ...] = ()  # what is shown to anybody all the same
    strangers: Literal["refuse", "allow"] = "refuse"  # beyond this machine, where no keys are named
    log: LogSettings = LogSettings()


class Server(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[server]`: of `noria up`."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 4270  # 0: a free one
    look_every_s: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    lease_s: Annotated[float, msgspec.Meta(ge=1)] = 15.0  # how long a leader that went silent still counts
    runs_at_once: Annotated[int, msgspec.Meta(ge=1)] = 2
    stop_within_s: Annotated[float, msgspec.Meta(ge=0)] = 20.0  # then runs are killed
    verify_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.01  # of what is served; 0: none
    verify_every_s: Annotated[float, msgspec.Meta(gt=0)] = 300.0
    judge_every_s: Annotated[float, msgspec.Meta(gt=0)] = 60.0  # between two looks at outcomes of trials
    features_every_s: Annotated[float, msgspec.Meta(gt=0)] = 0.2  # between two looks at what views count
    users: str = ""  # the file of those who may ask, below the project; empty: nobody is asked who it is
    strangers: Literal["refuse", "allow"] = "refuse"  # beyond this machine, where no users are named
    hosts: tuple[str, ...] = ()  # names that requests may be sent to; none: on loopback its own, else any
    prefix: str = ""  # of every path, such as /team/noria
    tls_certificate: str = ""  # a PEM file with the chain; empty: plain HTTP
    tls_key: str = ""  # a PEM file with its key; empty: it is in the file of the certificate


class Query(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[query]`: what one query may take."""

    timeout_s: Annotated[float, msgspec.Meta(ge=0)] = 600.0  # 0: as long as it takes
    memory: str = ""  # such as 2GB; empty: half of what is free


class RegistrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[registry]`."""

    trust_pickle: bool | tuple[str, ...] = False  # what may run code as it is loaded: models' names, or true


class Tracking(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[tracking]`: of runs that a server keeps."""

    server: str = ""  # http://HOST:PORT or https://HOST; empty: the project's own stores
    token: str = ""  # that the server knows us by; better in the environment than in a file
    spool: str = ""  # the folder of what waits for servers; empty: noria/tracking in the user's state
    patience_s: Annotated[float, msgspec.Meta(ge=0)] = 5.0  # with a server, as a run begins and as it ends


class Warehouse(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[warehouse]`."""

    models: str = "models"  # the folder of SQL files
    dbt: str = ""  # the folder of a dbt project whose models are taken in; empty: none
    memory: str = ""  # that a transform may use, such as 2GB; empty: four fifths of the machine's
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0  # 0: as many as there are CPUs


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of `noria.toml`."""

    project: ProjectSettings
    stores: Stores = Stores()
    compute: Compute = Compute()
    server: Server = Server()
    query: Query = Query()
    warehouse: Warehouse = Warehouse()
    registry: RegistrySettings = RegistrySettings()
    tracking: Tracking = Tracking()
    environments: dict[str, EnvironmentSettings] = {}


def find_project(start: Path | None = None, *, environ: Mapping[str, str] | None = None) -> Path:
    """Find the folder of the project: `start` or the nearest above it that holds `noria.toml`.

    Parameters
    ----------
    start
        Default: the environment's `NORIA_PROJECT`, else the current folder.
    environ
        Default: the process's.

    Raises
    ------
    ProjectNotFound
        If there is none.
    """
    given = os.environ if environ is None else environ
    begin = Path(start if start is not None else given.get(_PROJECT_VARIABLE, ".")).absolute()
    for folder in (begin, *begin.parents):
        if (folder / FILE_NAME).is_file():
            return folder
    raise ProjectNotFound(str(begin))


def read_tracking(folder: Path | None, *, environ: Mapping[str, str] | None = None) -> Tracking:
    """Read what is said of servers that keep runs: in a project's file and the environment, or in that alone.

    Raises
    ------
    ConfigError
        If something of it is wrong; of the project, if anything is.
    """
    if folder is not None:
        return read_settings(folder, environ=environ).tracking
    raw: dict[str, Any] = {}
    _override(raw, os.environ if environ is None else environ)
    try:
        return msgspec.convert(raw.get("tracking", {}), Tracking)
    except msgspec.ValidationError as err:
        what, _, where = str(err).partition(" - at `$.")
        key = where.rstrip("`").upper()
        raise ConfigError(f"the environment variable {_PREFIX}TRACKING__{key or '...'}: {what}") from err


def spool_folder(tracking: Tracking, *, environ: Mapping[str, str] | None = None) -> Path:
    """Give the folder of what waits for servers: that of the settings, else below the user's state."""
    given = os.environ if environ is None else environ
    if tracking.spool:
        return Path(tracking.spool).expanduser().absolute()
    state = Path(given.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():  # as the standard has it
        state = Path("~/.local/state").expanduser()
    if not state.is_absolute():  # an account without a home
        state = Path(tempfile.gettempdir()) / f"state-{os.getuid()}"
    return state / "noria" / "tracking"


def is_debugging(*, environ: Mapping[str, str] | None = None) -> bool:
    """Whether errors are to be shown with where they came from: `NORIA_DEBUG` is set and not 0."""
    given = os.environ if environ is None else environ
    return given.get(_DEBUG_VARIABLE, "0") not in {"", "0"}


def read_settings(folder: Path, *, environ: Mapping[str, str] | None = None) -> Settings:
    """Read `noria.toml` of `folder`, with what the environment overrides.

    Raises
    ------
    ConfigError
        If the file is no TOML, or a key is unknown, missing or of the wrong type: names line and key.
    """
    path = folder / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as err:
        raise ConfigError(
            f"{path} is not UTF-8 text ({err.reason} at byte {err.start}); save it as UTF-8"
        ) from err
    except FileNotFoundError as err:
        raise ProjectNotFound(str(folder)) from err
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise ConfigError(f"{path} is not valid TOML: {err}") from err
    _override(raw, os.environ if environ is None else environ)
    try:
        settings = msgspec.convert(raw, Settings)
    except msgspec.ValidationError as err:
        raise ConfigError(_explain(path, text, str(err), raw)) from err
    if not _NAME.fullmatch(settings.project.name):
        raise ConfigError(
            f"{path}, line {_line_of(text, ['project', 'name'])}: the project's name "
            f"{settings.project.name!r} must have letters, digits, '-' and '_', a letter first"
        )
    return settings


def _override(raw: dict[str, Any], environ: Mapping[str, str]) -> None:
    for name, value in sorted(environ.items()):
        if not name.startswith(_PREFIX) or "__" not in name:
            continue
        *tables, key = name.removeprefix(_PREFIX).lower().split("__")
        place = raw
        for table in tables:
            place = place.setdefault(table, {})
            if not isinstance(place, dict):
                raise ConfigError(f"the environment variable {name} goes into {table!r}, which is no table")
        place[key] = int(value) if value.isdecimal() and not _is_text(tables, key) else value
    tracking = raw.get("tracking")
    if isinstance(tracking, dict) and isinstance(told := tracking.get("patience_s"), str):
        with suppress(ValueError):
            tracking["patience_s"] = float(told)
    registry = raw.get("registry")
    if isinstance(registry, dict) and registry.get("trust_pickle") in ("true", "false"):
        registry["trust_pickle"] = registry["trust_pickle"] == "true"


def _is_text(tables: list[str], key: str) -> bool:
    """Whether digits of the environment are a text: such as a token."""
    return tables == ["tracking"] and key != "patience_s"


def _explain(path: Path, text: str, message: str, raw: Mapping[str, Any]) -> str:
    """Name line and key of what `msgspec` found wrong."""
    what, _, where = message.partition(" - at `$")
    if where.startswith(".environments[...]"):  # it does not say which
        wrong = (name for name, value in raw["environments"].items() if not _is_environment(value))
        where = where.replace("[...]", f".{next(wrong, '')}", 1)
    keys = [key for key in re.split(r"\.|\[\.\.\.\]", where.rstrip("`")) if key and key != "[0]"]
    unknown = re.search(r"unknown field `([^`]+)`", what)
    if unknown:
        keys.append(unknown[1])
    line = _line_of(text, keys)
    place = f"{path}, line {line}" if line else str(path)
    return f"{place}: {'.'.join(keys) or 'the file'}: {what}"


def _is_environment(value: Any) -> bool:
    try:
        msgspec.convert(value, EnvironmentSettings)
    except msgspec.ValidationError:
        return False
    return True


def _line_of(text: str, keys: list[str]) -> int | None:
    """Give the line of a key, or of its table where the key is missing."""
    table, found = [], None
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[([^\]]+)\]", line)
        if header:
            table = [part.strip().strip('"') for part in header[1].split(".")]
            if table == keys[: len(table)]:
                found = number
        else:
            key = re.match(r"\s*([A-Za-z0-9_-]+|\"[^\"]+\")\s*=", line)
            if key and [*table, key[1].strip('"')] == keys[: len(table) + 1]:
                found = number
    return found
