"""An MLflow store in a database, SQLite or PostgreSQL: read in pages, never written."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    URL,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    Row,
    Select,
    Table,
    Text,
    bindparam,
    create_engine,
    func,
    inspect,
    literal,
    make_url,
    select,
    text,
    tuple_,
)
from sqlalchemy.exc import ArgumentError, DatabaseError

from noria.database.faults import translated_faults
from noria.errors import ConfigError, SourceError, StoreMissing
from noria.records import RunId
from noria.registry.importing import ForeignRegistered, ForeignVersion
from noria.tracking.importing import ForeignExperiment, ForeignRun, PointsAside
from noria.tracking.importing_models import ForeignLink, ForeignModel
from noria.tracking.records import LoggedDataset
from noria.workspace.mlflow.database_models import page_of_links, page_of_models
from noria.workspace.mlflow.database_registry import RegistryTables
from noria.workspace.mlflow.files import RunFolders
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

__all__ = ["MlflowDatabase"]

_RUNS_AT_ONCE, _POINTS_AT_ONCE = 50, 20_000
_tables = MetaData()
_ADDED_LATER = {("experiments", "workspace"), ("runs", "deleted_time")}
_OTHERS = {"trace_info": "traces"}


def _table(called: str, /, **columns: Any) -> Table:
    return Table(called, _tables, *(Column(each, type_) for each, type_ in columns.items()))


_experiments = _table(
    "experiments",
    experiment_id=Integer,
    name=Text,
    lifecycle_stage=Text,
    creation_time=BigInteger,
    last_update_time=BigInteger,
    workspace=Text,
)
_experiment_tags = _table("experiment_tags", experiment_id=Integer, key=Text, value=Text)
_runs = _table(
    "runs",
    run_uuid=Text,
    name=Text,
    user_id=Text,
    status=Text,
    start_time=BigInteger,
    end_time=BigInteger,
    lifecycle_stage=Text,
    artifact_uri=Text,
    experiment_id=Integer,
    deleted_time=BigInteger,
)
_metrics = _table(
    "metrics", run_uuid=Text, key=Text, value=Float, timestamp=BigInteger, step=BigInteger, is_nan=Boolean
)
_latest = _table("latest_metrics", run_uuid=Text, key=Text)
_params = _table("params", run_uuid=Text, key=Text, value=Text)
_tags = _table("tags", run_uuid=Text, key=Text, value=Text)
_datasets = _table(
    "datasets",
    dataset_uuid=Text,
    name=Text,
    digest=Text,
    dataset_source_type=Text,
    dataset_source=Text,
    dataset_schema=Text,
    dataset_profile=Text,
)
_inputs = _table(
    "inputs", input_uuid=Text, source_type=Text, source_id=Text, destination_type=Text, destination_id=Text
)
_input_tags = _table("input_tags", input_uuid=Text, name=Text, value=Text)

_READ = (
    select(_inputs.c.destination_id.label("run"), _inputs.c.input_uuid, _datasets)
    .join(_datasets, _datasets.c.dataset_uuid == _inputs.c.source_id)
    .where(
        _inputs.c.source_type == "DATASET",
        _inputs.c.destination_type == "RUN",
        _inputs.c.destination_id == bindparam("run"),
    )
)
_PLACE = (_metrics.c.step, _metrics.c.timestamp, _metrics.c.value, _metrics.c.is_nan)
_POINTS = (
    select(*_PLACE)
    .where(_metrics.c.run_uuid == bindparam("run"), _metrics.c.key == bindparam("name"))
    .order_by(*_PLACE)
    .limit(_POINTS_AT_ONCE)
)


class MlflowDatabase:
    """Reads the tables of MLflow.

    Each page is a transaction of its own, so that whoever writes meanwhile does not wait. What a run says of
    itself is read before its points: one that has ended is whole.

    Parameters
    ----------
    url
        `sqlite:///PATH` or `postgresql://...`.
    copied
        See `RunFolders`.

    Raises
    ------
    ConfigError
        If it is no such URL.
    StoreMissing, StoreError
        If there is no such file, or it or the server cannot be read.
    SourceError
        If it is no MLflow database, or one with other tables.
    """

    def __init__(self, url: str, *, copied: Path | None = None) -> None:
        self._url, self.location, beside = _read_url(url)
        self._folders = RunFolders(beside=beside, copied=copied)
        try:
            options = {} if beside is not None else {"isolation_level": "REPEATABLE READ"}
            self._engine = create_engine(self._url, **options)
        except ModuleNotFoundError as err:
            raise ConfigError(f"{self.location} needs the package {err.name}; install it") from err
        self._has_models = False
        self._lacks = self._check()

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def experiments(self) -> Iterable[ForeignExperiment]:
        """Give all experiments."""
        with self._reading() as connection:
            found = connection.execute(
                self._select(_experiments).order_by(_experiments.c.experiment_id)
            ).all()
            tags: dict[int, dict[str, str]] = {}
            for row in connection.execute(select(_experiment_tags)):
                tags.setdefault(row.experiment_id, {})[row.key] = row.value or ""
        for row in found:
            space = getattr(row, "workspace", "default")
            at = from_ms(row.creation_time)
            yield ForeignExperiment(
                id=str(row.experiment_id),
                name=row.name if space == "default" else f"{space}/{row.name}",
                at=some_instant(at),
                updated_at=some_instant(from_ms(row.last_update_time), at),
                is_deleted=row.lifecycle_stage == "deleted",
                tags=tags.get(row.experiment_id, {}),
            )

    def run_pages(self, experiment: ForeignExperiment) -> Iterator[Sequence[ForeignRun | UnreadRun]]:
        """Give all runs of an experiment, by their ids."""
        query = self._select(_runs).where(_runs.c.experiment_id == int(experiment.id))
        query = query.order_by(_runs.c.run_uuid).limit(_RUNS_AT_ONCE)
        after = ""
        while True:
            found = self._read_runs(query.where(_runs.c.run_uuid > after))
            if not found:
                return
            yield found
            after = found[-1].id

    def find_run(self, id: str) -> ForeignRun | UnreadRun | None:
        """Give a run, or `None`."""
        found = self._read_runs(self._select(_runs).where(_runs.c.run_uuid == id))
        return found[0] if found else None

    def read_points(self, run: RunId, aside: PointsAside) -> None:
        """Set all points of a run's metrics aside."""
        names = select(_latest.c.key).where(_latest.c.run_uuid == run).order_by(_latest.c.key)
        with self._reading() as connection:
            known = connection.execute(names).scalars().all()
        for name in known:
            query, last = _POINTS, None
            while True:
                if last is not None:
                    query = _POINTS.where(tuple_(*_PLACE) > tuple_(*map(_as_is, _PLACE, last)))
                with self._reading() as connection:
                    rows = connection.execute(query, {"run": run, "name": name}).all()
                aside.add(
                    name,
                    ((number_of(row.value, is_nan=row.is_nan), row.timestamp, row.step) for row in rows),
                )
                if len(rows) < _POINTS_AT_ONCE:
                    break
                last = rows[-1]

    def read_datasets(self, run: ForeignRun) -> tuple[LoggedDataset, ...]:
        """Give what a run read."""
        tags: dict[str, dict[str, str]] = {}
        with self._reading() as connection:
            found = connection.execute(_READ, {"run": run.id}).all()
            of_these = _input_tags.c.input_uuid.in_([row.input_uuid for row in found])
            for row in connection.execute(select(_input_tags).where(of_these)):
                tags.setdefault(row.input_uuid, {})[row.name] = row.value
        return tuple(
            described_dataset(
                name=row.name,
                digest=row.digest,
                source_type=row.dataset_source_type,
                source=row.dataset_source,
                schema=row.dataset_schema,
                profile=row.dataset_profile,
                tags=tags.get(row.input_uuid, {}),
            )
            for row in found
        )

    def files(self, run: ForeignRun) -> Iterator[SourceFile]:
        """Give the files of a run. Raises `LeftBehind` where none can be had."""
        return self._folders.files(run.artifact_uri, experiment=run.experiment, ending=f"{run.id}/artifacts")

    def model_pages(self, experiment: ForeignExperiment) -> Iterator[Sequence[ForeignModel]]:
        """Give the logged models of an experiment, by their ids."""
        after = ""
        while self._has_models:
            with self._reading() as connection:
                found = page_of_models(connection, int(experiment.id), after)
            if not found:
                return
            yield found
            after = found[-1].id

    def model_files(self, model: ForeignModel) -> Iterator[SourceFile]:
        """Give the files of a logged model. Raises `LeftBehind` where none can be had."""
        ending = f"models/{model.id}/artifacts"
        return self._folders.files(model.artifact_uri, experiment=model.experiment, ending=ending)

    def link_pages(self) -> Iterator[Sequence[ForeignLink]]:
        """Give which logged models the runs read and made."""
        after: tuple[str, str, str] | None = None
        while self._has_models:
            with self._reading() as connection:
                found, after = page_of_links(connection, after)
            yield found
            if after is None:
                return

    def registered_pages(self) -> Iterator[Sequence[ForeignRegistered | UnreadModel]]:
        """Give the registered models with their versions, by their names."""
        after: tuple[str, str] | None = None
        while True:
            with self._reading() as connection:
                found, after = RegistryTables(connection).page(connection, after)
            yield found
            if after is None:
                return

    def version_files(self, version: ForeignVersion) -> Iterator[SourceFile]:
        """Give the files of a version that are those of no run. Raises `LeftBehind`."""
        return self._folders.model_files(version.location)

    def count_others(self) -> Mapping[str, int]:
        """Count what the store holds that is not imported."""
        with self._reading() as connection:
            there = set(inspect(connection).get_table_names())
            prompts = RegistryTables(connection).count_prompts(connection)
            return {"prompts": prompts} | {
                told: connection.execute(select(func.count()).select_from(text(name))).scalar_one()
                for name, told in _OTHERS.items()
                if name in there
            }

    def _read_runs(self, query: Select[Any]) -> list[ForeignRun | UnreadRun]:
        with self._reading() as connection:
            rows = connection.execute(query).all()
            ids = [row.run_uuid for row in rows]
            texts: list[dict[str, dict[str, str]]] = []
            for table in (_params, _tags):
                held: dict[str, dict[str, str]] = {}
                for row in connection.execute(select(table).where(table.c.run_uuid.in_(ids))):
                    held.setdefault(row.run_uuid, {})[row.key] = row.value or ""
                texts.append(held)
        params, tags = texts
        return [_to_run(row, params.get(row.run_uuid, {}), tags.get(row.run_uuid, {})) for row in rows]

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with translated_faults(self.location), self._engine.connect() as connection:
            yield connection

    def _select(self, table: Table) -> Select[Any]:
        """Select what this store has of a table's columns."""
        return select(*(each for each in table.columns if (table.name, each.name) not in self._lacks))

    def _check(self) -> set[tuple[str, str]]:
        """Give which of the columns that came late are not there. Raises `SourceError`."""
        try:
            with self._reading() as connection:
                looked = inspect(connection)
                there = set(looked.get_table_names())
                self._has_models = "logged_models" in there
                columns = {
                    (name, each["name"])
                    for name in _tables.tables
                    if name in there
                    for each in looked.get_columns(name)
                }
                revision = None
                if "alembic_version" in there:
                    versions = Table("alembic_version", MetaData(), Column("version_num", Text))
                    revision = connection.execute(select(versions)).scalar()
        except DatabaseError as err:
            raise SourceError(f"{self.location} cannot be read as a database: {err.orig}") from err
        if not {"experiments", "runs", "metrics"} <= there:
            shown = ", ".join(sorted(there)[:5]) or "no table at all"
            raise SourceError(
                f"{self.location} is no MLflow database: it has {shown}, wanted are experiments, runs, "
                "metrics; give the URL that `mlflow server --backend-store-uri` was started with"
            )
        wanted = {(table.name, each.name) for table in _tables.tables.values() for each in table.columns}
        lacks = wanted - columns
        if lacks - _ADDED_LATER:
            missing = ", ".join(".".join(each) for each in sorted(lacks - _ADDED_LATER)[:4])
            raise SourceError(
                f"{self.location} is an MLflow database of revision {revision or 'unknown'}, which lacks "
                f"{missing}; make a copy, run `mlflow db upgrade URL` of a current MLflow on it, import that"
            )
        return lacks


def _read_url(url: str) -> tuple[URL, str, Path | None]:
    """Give the URL to read by, how it is shown, and the folder of its file."""
    try:
        parsed = make_url(url)
    except ArgumentError as err:
        raise ConfigError(f"{url!r} cannot be read as a URL; {_WANTED}") from err
    match parsed.get_backend_name():
        case "sqlite":
            file = Path(parsed.database or "")
            if not file.is_file():
                raise StoreMissing(f"there is no file {file}; {_WANTED}")
            place = f"file:{quote(str(file.absolute()))}?mode=ro"
            opened = URL.create("sqlite", database=place, query={"uri": "true", "timeout": "60"})
            return opened, f"sqlite:///{file}", file.absolute().parent
        case "postgresql":
            opened = parsed.set(drivername="postgresql")
            return opened, opened.render_as_string(hide_password=True), None
        case other:
            raise ConfigError(
                f"a database of {other} is not read; start `mlflow server --backend-store-uri ...` with it, "
                "and give the server's URL"
            )


_WANTED = "write sqlite:///PATH/mlflow.db, postgresql://..., or http://... of a running server"


def _as_is(column: Column[Any], value: Any) -> Any:
    return literal(value, column.type)


def _to_run(row: Row[Any], params: dict[str, str], tags: dict[str, str]) -> ForeignRun | UnreadRun:
    try:
        ended_at = from_ms(row.end_time)
        return ForeignRun(
            id=RunId(row.run_uuid),
            experiment=str(row.experiment_id),
            name=row.name or tags.get("mlflow.runName", ""),
            owner=row.user_id or "",
            state=state_of(row.status),
            is_scheduled=row.status == "SCHEDULED",
            started_at=some_instant(from_ms(row.start_time), ended_at),
            ended_at=ended_at,
            is_deleted=row.lifecycle_stage == "deleted",
            deleted_at=from_ms(getattr(row, "deleted_time", None)),
            params=params,
            tags=tags,
            artifact_uri=row.artifact_uri or "",
        )
    except LeftBehind as err:
        return UnreadRun(row.run_uuid, str(err))
