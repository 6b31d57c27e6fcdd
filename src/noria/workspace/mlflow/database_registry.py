"""Registered models of an MLflow store in a database."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    MetaData,
    Row,
    Select,
    Table,
    Text,
    inspect,
    literal,
    select,
    tuple_,
)

from noria.registry.catalogue_records import Stage
from noria.registry.importing import ForeignRegistered, ForeignVersion
from noria.workspace.mlflow.source import LeftBehind, UnreadModel, from_ms, some_instant
from noria.workspace.mlflow.versions import PROMPT_TAG, logged_model_of, read_stage

__all__ = ["RegistryTables"]

_AT_ONCE = 50
_DELETED = "Deleted_Internal"  # how MLflow marks a version that was deleted
_SPACE = "default"
_tables = MetaData()


def _table(called: str, /, **columns: Any) -> Table:
    return Table(called, _tables, *(Column(each, type_) for each, type_ in columns.items()))


_models = _table(
    "registered_models",
    workspace=Text,
    name=Text,
    creation_time=BigInteger,
    last_updated_time=BigInteger,
    description=Text,
)
_versions = _table(
    "model_versions",
    workspace=Text,
    name=Text,
    version=Integer,
    creation_time=BigInteger,
    last_updated_time=BigInteger,
    description=Text,
    user_id=Text,
    current_stage=Text,
    source=Text,
    storage_location=Text,
    run_id=Text,
    run_link=Text,
    status=Text,
    status_message=Text,
)
_model_tags = _table("registered_model_tags", workspace=Text, name=Text, key=Text, value=Text)
_version_tags = _table("model_version_tags", workspace=Text, name=Text, version=Integer, key=Text, value=Text)
_aliases = _table("registered_model_aliases", workspace=Text, name=Text, alias=Text, version=Integer)


class RegistryTables:
    """Reads the tables of the registry, whichever of their columns there are: some came late."""

    def __init__(self, connection: Connection) -> None:
        looked = inspect(connection)
        there = set(looked.get_table_names())
        self._columns = {
            name: {each["name"] for each in looked.get_columns(name)}
            for name in _tables.tables
            if name in there
        }
        self._is_there = {"registered_models", "model_versions"} <= there

    def count_prompts(self, connection: Connection) -> int:
        """Count the models that are prompts, which are not imported."""
        return len(self._prompts(connection))

    def page(
        self, connection: Connection, after: tuple[str, str] | None
    ) -> tuple[list[ForeignRegistered | UnreadModel], tuple[str, str] | None]:
        """Give models after a place, some of them, and the place that follows; None: none does."""
        if not self._is_there:
            return [], None
        place = self._place(_models)
        query = self._select(_models).order_by(*place).limit(_AT_ONCE)
        if after is not None:
            query = query.where(tuple_(*place) > tuple_(*map(_as_is, place, after[-len(place) :])))
        rows = connection.execute(query).all()
        prompts = self._prompts(connection)
        found = [self._read(connection, row) for row in rows if _key(row) not in prompts]
        return found, _key(rows[-1]) if len(rows) == _AT_ONCE else None

    def _read(self, connection: Connection, model: Row[Any]) -> ForeignRegistered | UnreadModel:
        key = _key(model)
        name = key[1] if key[0] == _SPACE else f"{key[0]}.{key[1]}"
        try:
            at = some_instant(from_ms(model.creation_time))
            updated_at = some_instant(from_ms(model.last_updated_time), at)
        except LeftBehind as err:
            return UnreadModel(name, str(err))
        tags = {row.key: row.value or "" for row in self._of(connection, _model_tags, key)}
        aliases = {row.alias: int(row.version) for row in self._of(connection, _aliases, key)}
        version_tags: dict[int, dict[str, str]] = {}
        for row in self._of(connection, _version_tags, key):
            version_tags.setdefault(row.version, {})[row.key] = row.value or ""
        versions: list[ForeignVersion] = []
        unread: list[tuple[int, str]] = []
        for row in self._of(connection, _versions, key):
            try:
                versions.append(_to_version(row, version_tags.get(row.version, {})))
            except LeftBehind as err:
                unread.append((row.version, str(err)))
        return ForeignRegistered(
            name=name,
            created_at=at,
            updated_at=updated_at,
            description=model.description,
            tags=tags,
            aliases=aliases,
            versions=tuple(versions),
            unread=tuple(unread),
        )

    def _prompts(self, connection: Connection) -> set[tuple[str, str]]:
        if _model_tags.name not in self._columns:
            return set()
        query = select(*self._place(_model_tags))
        where = (_model_tags.c.key == PROMPT_TAG, _model_tags.c.value == "true")
        return {_key(row) for row in connection.execute(query.where(*where))}

    def _of(self, connection: Connection, table: Table, key: tuple[str, str]) -> list[Row[Any]]:
        """Give the rows of a table that belong to a model."""
        if table.name not in self._columns:
            return []
        query = self._select(table).where(table.c.name == key[1])
        if "workspace" in self._columns[table.name]:
            query = query.where(table.c.workspace == key[0])
        return [*connection.execute(query).all()]

    def _place(self, table: Table) -> list[Column[Any]]:
        own = self._columns[table.name]
        return [table.c[name] for name in ("workspace", "name") if name in own]

    def _select(self, table: Table) -> Select[Any]:
        return select(*(each for each in table.columns if each.name in self._columns[table.name]))


def _key(row: Row[Any]) -> tuple[str, str]:
    return getattr(row, "workspace", _SPACE), row.name


def _as_is(column: Column[Any], value: Any) -> Any:
    return literal(value, column.type)


def _to_version(row: Row[Any], tags: Mapping[str, str]) -> ForeignVersion:
    """Give a version. Raises `LeftBehind`."""
    is_deleted = row.current_stage == _DELETED
    at = some_instant(from_ms(row.creation_time))
    source = row.source or ""
    return ForeignVersion(
        number=row.version,
        source=source,
        location=source if is_deleted else getattr(row, "storage_location", None) or source,
        created_at=at,
        updated_at=some_instant(from_ms(row.last_updated_time), at),
        run=None if is_deleted else row.run_id or None,
        logged_model=None if is_deleted else logged_model_of(source),
        run_link=None if is_deleted else getattr(row, "run_link", None),
        description=row.description,
        owner=row.user_id or None,
        stage=Stage.NONE if is_deleted else read_stage(row.current_stage),
        status=row.status or "READY",
        status_message=row.status_message,
        is_deleted=is_deleted,
        tags=dict(tags),
    )
