"""An MLflow store behind a running server: read through its own protocol, in pages."""

import base64
import http.client
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlencode, urlsplit

import msgspec
import orjson

from noria.errors import ConfigError, SourceError, StoreError
from noria.records import RunId
from noria.registry.importing import ForeignRegistered, ForeignVersion
from noria.tracking.artifacts import Artifact, ArtifactStore
from noria.tracking.importing import ForeignExperiment, ForeignRun, PointsAside
from noria.tracking.importing_models import ForeignLink, ForeignModel
from noria.tracking.records import LinkedModel, LoggedDataset
from noria.workspace.mlflow.server_models import WireModels, to_model
from noria.workspace.mlflow.server_registry import Absent, RegistryRoutes
from noria.workspace.mlflow.source import (
    LeftBehind,
    SourceFile,
    UnreadModel,
    UnreadRun,
    described_dataset,
    from_ms,
    number_of,
    some_instant,
    state_of,
)

__all__ = ["MlflowServer"]

_API, _FILES = "/api/2.0/mlflow", "/api/2.0/mlflow-artifacts/artifacts"
_TIMEOUT_S = 120.0
_RUNS_AT_ONCE, _POINTS_AT_ONCE, _EXPERIMENTS_AT_ONCE = 100, 25_000, 1_000
_MODELS_AT_ONCE = 50
_PIECE_BYTES = 1 << 20
_SHOWN = 300  # characters of an answer that is none
_TRIES = 2  # a kept connection may have been closed meanwhile


class _Pair(msgspec.Struct):
    key: str
    value: str = ""


class _Experiment(msgspec.Struct):
    experiment_id: str
    name: str
    lifecycle_stage: str = "active"
    creation_time: int | None = None
    last_update_time: int | None = None
    tags: list[_Pair] = []


class _Experiments(msgspec.Struct):
    experiments: list[_Experiment] = []
    next_page_token: str = ""


class _Metric(msgspec.Struct):
    key: str
    value: float | str = 0.0
    timestamp: int = 0
    step: int = 0


class _Data(msgspec.Struct):
    metrics: list[_Metric] = []
    params: list[_Pair] = []
    tags: list[_Pair] = []


class _Info(msgspec.Struct):
    run_id: str
    experiment_id: str
    run_name: str = ""
    user_id: str = ""
    status: str | None = None
    start_time: int | None = None
    end_time: int | None = None
    lifecycle_stage: str = "active"
    artifact_uri: str = ""


class _Dataset(msgspec.Struct):
    name: str
    digest: str
    source_type: str = ""
    source: str = ""
    schema: str | None = None
    profile: str | None = None


class _Input(msgspec.Struct):
    dataset: _Dataset
    tags: list[_Pair] = []


class _Link(msgspec.Struct):
    model_id: str
    step: int = 0


class _Inputs(msgspec.Struct):
    dataset_inputs: list[_Input] = []
    model_inputs: list[_Link] = []


class _Outputs(msgspec.Struct):
    model_outputs: list[_Link] = []


class _Run(msgspec.Struct):
    info: _Info
    data: _Data = msgspec.field(default_factory=_Data)
    inputs: _Inputs = msgspec.field(default_factory=_Inputs)
    outputs: _Outputs = msgspec.field(default_factory=_Outputs)


class _Runs(msgspec.Struct):
    runs: list[_Run] = []
    next_page_token: str = ""


class _OneRun(msgspec.Struct):
    run: _Run


class _History(msgspec.Struct):
    metrics: list[_Metric] = []
    next_page_token: str = ""


class _File(msgspec.Struct):
    path: str
    is_dir: bool = False


class _Listing(msgspec.Struct):
    files: list[_File] = []
    next_page_token: str = ""


_Page = TypeVar("_Page", _Experiments, _Runs, WireModels)
_Answer = TypeVar("_Answer")


class MlflowServer:
    """Asks one server, over one connection; one thread uses it.

    Parameters
    ----------
    url
        `http(s)://[USER:PASSWORD@]HOST[:PORT][/PATH]`.

    Raises
    ------
    ConfigError
        If it is no such URL.
    StoreError
        If nobody answers there.
    SourceError
        If who answers is no MLflow server, or refuses to answer.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as err:
            raise ConfigError(f"the URL cannot be read: {err}; write http://HOST:PORT") from err
        if not host:
            raise ConfigError(f"{url!r} names no host; write http://HOST:PORT")
        named = f"[{host}]" if ":" in host else host
        self.location = (
            f"{parts.scheme}://{named}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"
        )
        self._below = parts.path.rstrip("/")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(host, port, timeout=_TIMEOUT_S)
        self._headers = {"Accept": "*/*"}
        if parts.username is not None:
            account = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(account.encode()).decode()}"
        self._datasets: dict[str, tuple[LoggedDataset, ...]] = {}  # of the page of runs that was read last
        self._metrics: dict[str, list[str]] = {}
        self._links: dict[tuple[str, str, str], ForeignLink] = {}

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def experiments(self) -> Iterable[ForeignExperiment]:
        """Give all experiments."""
        asked = {"view_type": "ALL", "max_results": _EXPERIMENTS_AT_ONCE, "order_by": ["creation_time ASC"]}
        for page in self._pages("/experiments/search", asked, _Experiments):
            for each in page.experiments:
                at = from_ms(each.creation_time)
                yield ForeignExperiment(
                    id=each.experiment_id,
                    name=each.name,
                    at=some_instant(at),
                    updated_at=some_instant(from_ms(each.last_update_time), at),
                    is_deleted=each.lifecycle_stage == "deleted",
                    tags=_texts(each.tags),
                )

    def run_pages(self, experiment: ForeignExperiment) -> Iterator[Sequence[ForeignRun | UnreadRun]]:
        """Give all runs of an experiment, the oldest first: those that begin meanwhile come last."""
        asked = {
            "experiment_ids": [experiment.id],
            "run_view_type": "ALL",
            "max_results": _RUNS_AT_ONCE,
            "order_by": ["attributes.start_time ASC"],
        }
        for page in self._pages("/runs/search", asked, _Runs):
            self._datasets, self._metrics = {}, {}
            yield [self._to_run(each) for each in page.runs]

    def find_run(self, id: str) -> ForeignRun | UnreadRun | None:
        """Give a run, or `None`."""
        try:
            return self._to_run(self._get(f"{_API}/runs/get", {"run_id": id}, _OneRun).run)
        except Absent:
            return None

    def read_datasets(self, run: ForeignRun) -> tuple[LoggedDataset, ...]:
        """Give what a run read."""
        return self._datasets.get(run.id, ())

    def read_points(self, run: RunId, aside: PointsAside) -> None:
        """Set all points of a run's metrics aside."""
        for name in self._metrics.get(run, ()):
            asked = {"run_id": run, "metric_key": name, "max_results": str(_POINTS_AT_ONCE)}
            while True:
                page = self._get(f"{_API}/metrics/get-history", asked, _History)
                aside.add(name, ((_number(each.value), each.timestamp, each.step) for each in page.metrics))
                if not page.next_page_token:
                    break
                asked["page_token"] = page.next_page_token

    def files(self, run: ForeignRun) -> Iterator[SourceFile]:
        """Give the files of a run. Raises `LeftBehind` where the server cannot list them."""
        served = {"run_uuid": run.id}
        place = _Place(f"{_API}/artifacts/list", {"run_id": run.id}, "path", "/get-artifact", served, "path")
        return self._listed(run.artifact_uri, place)

    def model_pages(self, experiment: ForeignExperiment) -> Iterator[Sequence[ForeignModel]]:
        """Give the logged models of an experiment, but for deleted ones; an older server has none."""
        asked = {"experiment_ids": [experiment.id], "max_results": _MODELS_AT_ONCE}
        try:
            for page in self._pages("/logged-models/search", asked, WireModels):
                yield [to_model(each) for each in page.models]
        except Absent:
            return

    def model_files(self, model: ForeignModel) -> Iterator[SourceFile]:
        """Give the files of a logged model. Raises `LeftBehind` where the server cannot list them."""
        route = f"/logged-models/{quote(model.id)}/artifacts"
        listed, served = f"{_API}{route}/directories", f"/ajax-api/2.0/mlflow{route}/files"
        place = _Place(listed, {}, "artifact_directory_path", served, {}, "artifact_file_path")
        return self._listed(model.artifact_uri, place)

    def link_pages(self) -> Iterator[Sequence[ForeignLink]]:
        """Give which logged models the runs read and made."""
        yield list(self._links.values())

    def _listed(self, uri: str, place: "_Place") -> Iterator[SourceFile]:
        folders = [""]
        while folders:
            asked = {**place.listed_of, place.folder: folders.pop()}
            while True:
                try:
                    page = self._get(place.list_route, asked, _Listing)
                except SourceError as err:
                    raise LeftBehind(f"its files at {uri} cannot be listed: {err}") from err
                for each in page.files:
                    if each.is_dir:
                        folders.append(each.path)
                    else:
                        yield SourceFile(each.path, put=_Download(self, place.route(uri, each.path)))
                if not page.next_page_token:
                    break
                asked["page_token"] = page.next_page_token

    def registered_pages(self) -> Iterator[Sequence[ForeignRegistered | UnreadModel]]:
        """Give the registered models with their versions, but for deleted ones; an older server has none."""
        return RegistryRoutes(self._get).pages()

    def version_files(self, version: ForeignVersion) -> Iterator[SourceFile]:
        """Give the files of a version that are those of no run. Raises `LeftBehind`."""
        parts = urlsplit(version.location)
        if parts.scheme != "mlflow-artifacts":
            raise LeftBehind(f"they are at {version.location}, which the server does not give")
        root = unquote(parts.path).strip("/")
        folders = [""]
        while folders:
            folder = folders.pop()
            try:
                asked = {"path": f"{root}/{folder}".rstrip("/")}
                page = self._get(_FILES, asked, _Listing)
            except SourceError as err:
                raise LeftBehind(f"they are at {version.location}, and cannot be listed: {err}") from err
            for each in page.files:
                path = f"{folder}{each.path}"
                if each.is_dir:
                    folders.append(f"{path}/")
                else:
                    yield SourceFile(path, put=_Download(self, f"{_FILES}/{quote(f'{root}/{path}')}"))

    def count_others(self) -> Mapping[str, int]:
        """Count what the server holds that is not imported; an older one has no such routes."""
        return {"prompts": RegistryRoutes(self._get).count_prompts()}

    def download(self, target: str, store: ArtifactStore, path: str) -> Artifact:
        """Copy what a route answers into the project. Raises `LeftBehind`."""
        try:
            answer = self._ask("GET", target, None)
        except SourceError as err:
            raise LeftBehind(f"the server does not give it: {err}") from err
        try:
            with store.writing(path) as writer:
                while piece := answer.read(_PIECE_BYTES):
                    writer.write(piece)
                if answer.length:
                    raise StoreError(
                        f"{self.location} ended in the middle of {path}; run the same command again"
                    )
        except (OSError, http.client.HTTPException) as err:
            self._connection.close()
            if isinstance(err, StoreError):
                raise
            raise self._away(err) from err
        return store.get(path)

    def _to_run(self, run: _Run) -> ForeignRun | UnreadRun:
        info = run.info
        tags = _texts(run.data.tags)
        self._metrics[info.run_id] = [each.key for each in run.data.metrics]
        self._datasets[info.run_id] = tuple(
            described_dataset(
                name=each.dataset.name,
                digest=each.dataset.digest,
                source_type=each.dataset.source_type,
                source=each.dataset.source,
                schema=each.dataset.schema or None,
                profile=each.dataset.profile or None,
                tags=_texts(each.tags),
            )
            for each in run.inputs.dataset_inputs
        )
        self._note_links(RunId(info.run_id), "input", run.inputs.model_inputs)
        self._note_links(RunId(info.run_id), "output", run.outputs.model_outputs)
        try:
            ended_at = from_ms(info.end_time or None)
            return ForeignRun(
                id=RunId(info.run_id),
                experiment=info.experiment_id,
                name=info.run_name or tags.get("mlflow.runName", ""),
                owner=info.user_id,
                state=state_of(info.status),
                is_scheduled=info.status == "SCHEDULED",
                started_at=some_instant(from_ms(info.start_time), ended_at),
                ended_at=ended_at,
                is_deleted=info.lifecycle_stage == "deleted",
                params=_texts(run.data.params),
                tags=tags,
                artifact_uri=info.artifact_uri,
            )
        except LeftBehind as err:
            return UnreadRun(info.run_id, str(err))

    def _note_links(self, run: RunId, role: str, links: Sequence[_Link]) -> None:
        for each in links:
            linked = LinkedModel(model=each.model_id, step=each.step)
            self._links[run, role, each.model_id] = ForeignLink(run=run, role=role, model=linked)

    def _pages(self, route: str, asked: Mapping[str, Any], kind: type[_Page]) -> Iterator[_Page]:
        token = ""
        while True:
            body = {**asked, "page_token": token} if token else asked
            page = self._decoded(self._ask("POST", f"{_API}{route}", orjson.dumps(body)), kind)
            yield page
            token = page.next_page_token
            if not token:
                return

    def _get(self, route: str, asked: Mapping[str, str], kind: type[_Answer]) -> _Answer:
        return self._decoded(self._ask("GET", f"{route}?{urlencode(asked)}", None), kind)

    def _decoded(self, answer: http.client.HTTPResponse, kind: type[_Answer]) -> _Answer:
        try:
            return msgspec.json.decode(answer.read(), type=kind, strict=False)
        except (msgspec.DecodeError, UnicodeDecodeError) as err:
            raise SourceError(
                f"{self.location} does not answer like an MLflow server: {err}; {_CHECK}"
            ) from err
        except (OSError, http.client.HTTPException) as err:
            self._connection.close()
            raise self._away(err) from err

    def _ask(self, method: str, target: str, body: bytes | None) -> http.client.HTTPResponse:
        """Give an answer that is fine. Raises `SourceError`, of which `Absent` is one, or `StoreError`."""
        headers = self._headers if body is None else {**self._headers, "Content-Type": "application/json"}
        answer = self._answer(method, f"{self._below}{target}", body, headers)
        if answer.status == http.client.OK:
            return answer
        told = answer.read(_SHOWN * 4).decode("utf-8", "replace")[:_SHOWN]
        self._connection.close()
        if answer.status in {http.client.UNAUTHORIZED, http.client.FORBIDDEN}:
            raise SourceError(
                f"{self.location} refuses to answer ({answer.status}); write the account into the URL: "
                "http://USER:PASSWORD@HOST"
            )
        kind = Absent if answer.status == http.client.NOT_FOUND else SourceError
        route = target.partition("?")[0]
        raise kind(f"{self.location}{route} answers {answer.status} {told.strip()!r}; {_CHECK}")

    def _answer(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        for attempt in range(_TRIES):
            try:
                self._connection.request(method, target, body, dict(headers))
                return self._connection.getresponse()
            except (OSError, http.client.HTTPException) as err:
                self._connection.close()
                if attempt == _TRIES - 1:
                    raise self._away(err) from err
        raise AssertionError

    def _away(self, err: Exception) -> StoreError:
        return StoreError(
            f"the server {self.location} cannot be reached: {err or type(err).__name__}; start it or check "
            "the URL, then run the same command again: it goes on where it was"
        )


_CHECK = "check that the URL is that of an MLflow server"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where files are listed and given, and what the questions are called."""

    list_route: str
    listed_of: Mapping[str, str]
    folder: str
    file_route: str
    served_of: Mapping[str, str]
    file: str

    def route(self, uri: str, path: str) -> str:
        """Give where a file is had."""
        parts = urlsplit(uri)
        if parts.scheme == "mlflow-artifacts":
            root = unquote(parts.path).strip("/")
            return f"{_FILES}/{quote(f'{root}/{path}')}"
        return f"{self.file_route}?{urlencode({**self.served_of, self.file: path})}"


class _Download:
    """Copies one file."""

    def __init__(self, server: MlflowServer, target: str) -> None:
        self._server, self._target = server, target

    def __call__(self, store: ArtifactStore, path: str) -> Artifact:
        return self._server.download(self._target, store, path)


def _texts(pairs: Sequence[_Pair]) -> dict[str, str]:
    return {each.key: each.value for each in pairs}


def _number(value: float | str) -> float:
    number = float(value)
    return number_of(number, is_nan=math.isnan(number))
