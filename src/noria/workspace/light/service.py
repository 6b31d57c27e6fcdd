"""A model's file as a service: kept, answering, logged, and swapped when the file changes."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import msgspec

from noria.config import RegistrySettings
from noria.errors import ConfigError, DeploymentError, NoriaError, PortInUse
from noria.workspace.light.folders import ENVIRONMENT, check_free, make_folder
from noria.workspace.light.sources import Source

if TYPE_CHECKING:
    import pyarrow as pa

    from noria.deploy.environments import Deployment
    from noria.deploy.supervisor import Supervisor
    from noria.records import Version
    from noria.serving.records import Route, ServedModel

__all__ = ["LightService", "Tell"]

_PORT = 8080  # where none is chosen, if it is free
_LOOK_EVERY_S = 0.5
_FOLLOW_EVERY_S = 1.0
_SHIP_AFTER_S, _SHIP_EVERY_S = 2.0, 10.0

Tell = Callable[[str], None]


class LightService:
    """A model that answers; `noria.light` gives it.

    A thread ships what was predicted into the table `predictions`, follows the pointer that `noria rollback`
    moves, and looks at the file where it is to be watched.

    Attributes
    ----------
    name
        Of the model.
    folder
        The project that keeps its versions and its log; `noria status --project` and all others open it.
    is_new
        Whether the folder was not there.
    """

    def __init__(
        self,
        source: Source,
        *,
        name: str,
        base: Path,
        example: Any | None,
        watch: bool,
        trust_pickle: bool,
        tell: Tell,
    ) -> None:
        from noria.workspace.project import Project

        self.name, self._source, self._example = name, source, example
        self._watch, self._trust_pickle, self._tell = watch and source.kind != "version", trust_pickle, tell
        self._opened = ExitStack()
        self.is_new = not (base / name).exists()
        self.folder = make_folder(base, name)
        self._project: Project = self._opened.enter_context(Project(self.folder))
        if trust_pickle:
            trusting = RegistrySettings(trust_pickle=(name,))
            self._project.settings = msgspec.structs.replace(self._project.settings, registry=trusting)
        self._place: Deployment | None = None
        self._supervisor: Supervisor | None = None
        self._version: Version | None = None
        self._served: ServedModel | None = None
        self._number = 0  # of the move that answers
        self._taken: object = None  # how the file was when it was read last
        self._seen: object = None  # and at the last look
        self._trouble = ""
        self._shipping = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._fault: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def has_model(self) -> bool:
        """Whether a version of the model is kept that can answer."""
        return self._served is not None

    @property
    def address(self) -> str:
        """Where it answers, such as `http://127.0.0.1:8080`."""
        return str(self._running.address)

    @property
    def url(self) -> str:
        """Where one posts rows, as JSON objects of named fields."""
        return f"{self.address}/models/{quote(self.name)}/predict"

    @property
    def version(self) -> "Version":
        """The version that answers."""
        assert self._version is not None
        return self._version

    @property
    def columns(self) -> dict[str, str]:
        """What a row has to have: `number`, `string`, `category`, or `number[WIDTH]`, by name."""
        return {
            each.name: each.kind if each.width == 1 else f"{each.kind}[{each.width}]"
            for each in self._model.inputs
        }

    @property
    def log(self) -> Path:
        """The folder of the prediction log: a Delta table, whose files are Parquet."""
        return self._project.state / "storage" / "tables" / "predictions"

    def example(self) -> dict[str, Any]:
        """Give a row that the model takes, as its server shows it."""
        with self._running.client() as client:
            said = client.get("/openapi.json")
        asked = said["paths"][f"/models/{self.name}/predict"]["post"]["requestBody"]
        found: dict[str, Any] = asked["content"]["application/json"]["example"]
        return found

    def predict(self, rows: Any) -> Any:
        """Ask the service for one row, or for several.

        Parameters
        ----------
        rows
            A mapping of names to values for one row; else a frame, columns by name, a list of rows, or an
            array.

        Returns
        -------
        dict, or list of dict
            What the model gives by name, with `prediction_id`, `release` and `version`; of several rows a
            list.

        Raises
        ------
        InferError
            If the request is refused; says what the model wants.
        """
        import orjson

        wide = {each.name for each in self._model.inputs if each.width > 1}
        single = isinstance(rows, Mapping) and not any(
            _is_column(value, of_vectors=name in wide) for name, value in rows.items()
        )
        body: Any = dict(rows) if single else {"rows": self._rows(rows)}
        with self._running.client() as client:
            answer = client.post(
                f"/models/{quote(self.name)}/predict", orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
            )
        return answer if single else answer["rows"]

    def predictions(self) -> "pa.Table":
        """Give all that it was asked and answered so far, oldest first; see `noria.deploy.shipping`."""
        import pyarrow as pa

        from noria.deploy.shipping import PREDICTIONS

        self._ship()
        if not self._project.lake.exists(PREDICTIONS):
            return pa.table({})
        return self._project.query(f'select * from {PREDICTIONS} order by "at", prediction_id')

    def update(self) -> bool:
        """Look at the file now, and answer by what it holds; tell whether that is another version.

        Raises
        ------
        NoriaError
            If it holds no model that can answer; the one before goes on. As `noria.light`.
        """
        changed = self._keep()
        self._follow()
        return changed

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is stopped or fails; tell whether it is.

        Raises
        ------
        DeploymentError
            If its workers keep ending.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._stopping.wait(0.2):
            if self._fault is not None:
                raise self._fault
            if until is not None and time.monotonic() > until:
                return False
        return True

    def stop(self) -> None:
        """Answer what is in flight, put what was predicted into the table, and end."""
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        supervisor, self._supervisor = self._supervisor, None
        try:
            if supervisor is not None:
                supervisor.stop()
                self._collect(supervisor)
        finally:
            self._opened.close()

    def start(self, *, host: str | None, port: int | None, workers: int | None) -> None:
        """Keep what the source holds, and answer by it. Raises as `noria.light`."""
        check_free(self.folder)
        self._taken = self._seen = self._source.state()
        self._keep()
        self._place = self._project.deployment(ENVIRONMENT, self.name)
        self._number, route = self._pointed()
        supervisor = self._make_supervisor(host, _PORT if port is None else port, workers)
        try:
            supervisor.start(route)
        except PortInUse:
            if port is not None:
                raise
            supervisor.stop()
            supervisor = self._make_supervisor(host, 0, workers)
            supervisor.start(route)
        except (ConfigError, DeploymentError) as err:
            err.add_note(f"Its settings are in {self.folder}; other commands find it by `--project` of that.")
            raise
        self._supervisor = supervisor
        self._thread = threading.Thread(target=self._look_after, name="noria-light", daemon=True)
        self._thread.start()

    def _make_supervisor(self, host: str | None, port: int, workers: int | None) -> "Supervisor":
        from noria.features.reading import located
        from noria.workspace.endpoints import make_supervisor

        settings = self._project.environment(ENVIRONMENT)
        chosen = {"host": host, "workers": workers}
        return make_supervisor(
            self._project.state / "deployments" / ENVIRONMENT,
            msgspec.structs.replace(
                settings, **{key: each for key, each in chosen.items() if each is not None}
            ),
            root=self._project.root,
            environment=ENVIRONMENT,
            online=located(self._project.settings.stores.online, root=self._project.root),
            port=settings.port or port,
        )

    @property
    def _running(self) -> "Supervisor":
        if self._supervisor is None:
            raise DeploymentError(f"the service {self.name!r} is stopped; start it again by noria.light")
        return self._supervisor

    def _keep(self) -> bool:
        from noria.workspace.light.registering import keep_model, put_up

        kept = keep_model(
            self._project,
            self._source,
            name=self.name,
            example=self._example,
            trusts_pickle=self._trust_pickle,
            tell=self._tell,
        )
        return put_up(self._project, kept.version, reason=f"{self._source.label} is {kept.version.ref}")

    @property
    def _model(self) -> "ServedModel":
        assert self._served is not None
        return self._served

    def _pointed(self) -> tuple[int, "Route"]:
        """Give where the deployment points to."""
        assert self._place is not None
        pointer = self._project.ledger.find_pointer(ENVIRONMENT, self.name)
        assert pointer is not None
        route = self._place.route(self._project.ledger.get_version_by_id(pointer.version))
        self._version = self._project.models.get(f"{route.models[0].model}:{route.models[0].version}")
        self._served = route.models[0]
        return pointer.number, route

    def _follow(self) -> None:
        """Answer by where the deployment points to, if it was moved."""
        pointer = self._project.ledger.find_pointer(ENVIRONMENT, self.name)
        if pointer is None or pointer.number == self._number:
            return
        self._number, route = self._pointed()
        self._running.swap(route)
        self._tell(f"{self.version.ref} answers now: {pointer.reason}")

    def _look_after(self) -> None:
        try:
            followed = shipped = time.monotonic()
            while not self._stopping.wait(_LOOK_EVERY_S):
                self._running.check()
                if self._watch:
                    self._look()
                now = time.monotonic()
                if now - followed > _FOLLOW_EVERY_S:
                    followed = now
                    self._try(self._follow)
                if now - shipped > _SHIP_AFTER_S:
                    rows = self._try(self._ship)
                    shipped = now + (_SHIP_EVERY_S - _SHIP_AFTER_S if rows else 0.0)
        except NoriaError as err:
            self._fault = err
        except BaseException as err:
            self._fault = err
            raise

    def _look(self) -> None:
        """Answer by what the file became, once it is as it was at the look before."""
        now = self._source.state()
        if now != self._seen:
            self._seen = now
        elif now and now != self._taken:
            self._taken = now
            try:
                changed = self.update()
            except NoriaError as err:
                self._tell(
                    f"{self._source.label} changed and is not taken, {self.version.ref} goes on: {err}"
                )
            else:
                if not changed:
                    self._tell(f"{self._source.label} was written anew, and is {self.version.ref} as before")

    def _try(self, work: Callable[[], Any]) -> Any:
        try:
            found = work()
        except NoriaError as err:
            if str(err) != self._trouble:
                self._tell(f"warning: {err}")
            self._trouble = str(err)
            return None
        return found

    def _ship(self) -> int:
        return self._collect(self._running)

    def _collect(self, supervisor: "Supervisor") -> int:
        from noria.deploy.collecting import collect_predictions

        with self._shipping:
            return collect_predictions(supervisor, self.name, self._project.lake)

    def _rows(self, rows: Any) -> Sequence[Any]:
        import numpy as np

        if isinstance(rows, list | tuple) and rows and all(isinstance(each, Mapping) for each in rows):
            return [dict(each) for each in rows]
        from noria.registry.folders.frames import as_rows

        found = as_rows(rows)
        if not isinstance(found, np.ndarray):
            listed: list[Any] = found.to_pylist()
            return listed
        names = list(self.columns)
        wide = found.reshape(len(found), -1).tolist()
        if len(names) == 1 and self._model.inputs[0].width > 1:
            return [{names[0]: each} for each in wide]
        return [dict(zip(names, each, strict=True)) for each in wide]


def _is_column(value: Any, *, of_vectors: bool) -> bool:
    """Tell whether it is the values of several rows, and not of one, which may be a vector itself."""
    if not hasattr(value, "__len__") or isinstance(value, str | bytes):
        return False
    return not of_vectors or (len(value) > 0 and hasattr(value[0], "__len__"))
