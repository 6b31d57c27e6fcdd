"""Rows of labels: found, read, and made for what is registered without a word about them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, bindparam, insert, literal, select, true, union_all

from noria.errors import NotFound
from noria.ledger.chain import Change
from noria.ledger.store import Ledger
from noria.ledger.tables import versions
from noria.records import Version, VersionId, sha256_hex
from noria.registry.catalogue_records import CataloguedVersion, RegisteredModel, Stage
from noria.registry.catalogue_rules import check_model_name
from noria.registry.tables import (
    model_aliases,
    model_tags,
    model_version_tags,
    model_versions,
    registered_models,
)

__all__ = [
    "add_model",
    "add_native",
    "changing",
    "find_model",
    "free_ledger_name",
    "get_model",
    "get_version",
    "latest_of",
    "native_source",
    "read_models",
    "read_versions",
    "text_digest",
    "touch_model",
]

_AT_ONCE = 500  # rows in one question
_T = TypeVar("_T")
_STAGES = list(Stage)

_OPEN = select(registered_models).where(
    registered_models.c.name == bindparam("wanted"), registered_models.c.deleted_at.is_(None)
)
_VERSION = select(model_versions).where(
    model_versions.c.model == bindparam("of_model"),
    model_versions.c.number == bindparam("wanted"),
    model_versions.c.deleted_at.is_(None),
)
_KNOWN = select(model_versions.c.version).where(model_versions.c.version == bindparam("wanted"))
_MODELS = select(registered_models).where(registered_models.c.id.in_(bindparam("ids", expanding=True)))
_MODEL_TAGS = (
    select(model_tags.c.model, model_tags.c.name, model_tags.c.value)
    .where(model_tags.c.model.in_(bindparam("ids", expanding=True)))
    .order_by(model_tags.c.model, model_tags.c.name)
)
_ALIASES = (
    select(model_aliases)
    .where(model_aliases.c.model.in_(bindparam("ids", expanding=True)))
    .order_by(model_aliases.c.model, model_aliases.c.alias)
)
_EACH_STAGE = union_all(*(select(literal(each.value).label("stage")) for each in Stage)).subquery()
_LATEST = (  # a step along the index per stage, however many versions there are
    select(
        registered_models.c.id,
        select(model_versions.c.version)
        .where(
            model_versions.c.model == registered_models.c.id,
            model_versions.c.deleted_at.is_(None),
            model_versions.c.stage == _EACH_STAGE.c.stage,
        )
        .order_by(model_versions.c.number.desc())
        .limit(1)
        .scalar_subquery(),
    )
    .select_from(registered_models.join(_EACH_STAGE, true()))
    .where(registered_models.c.id.in_(bindparam("ids", expanding=True)))
)
_VERSIONS = (
    select(model_versions, registered_models.c.name.label("model_name"))
    .join(registered_models, registered_models.c.id == model_versions.c.model)
    .where(model_versions.c.version.in_(bindparam("ids", expanding=True)))
)
_VERSION_TAGS = (
    select(model_version_tags.c.version, model_version_tags.c.name, model_version_tags.c.value)
    .where(model_version_tags.c.version.in_(bindparam("ids", expanding=True)))
    .order_by(model_version_tags.c.version, model_version_tags.c.name)
)


def native_source(version: Version) -> str:
    """Give what stands for the source of a version that noria keeps whole."""
    return f"noria:/{version.kind}/{version.ref}"


def find_model(connection: Connection, name: str) -> Row[Any] | None:
    """Give the row of a model that is not deleted, by the name that is shown."""
    return connection.execute(_OPEN, {"wanted": name}).first()


def get_model(connection: Connection, name: str) -> Row[Any]:
    """Give the row of a model that is not deleted. Raises `NotFound`."""
    found = find_model(connection, name)
    if found is None:
        raise NotFound("model", name)
    return found


def get_version(connection: Connection, model: Row[Any], number: int) -> Row[Any]:
    """Give the row of a version that is not deleted. Raises `NotFound`."""
    found = connection.execute(_VERSION, {"of_model": model.id, "wanted": number}).first()
    if found is None:
        raise NotFound("model", f"{model.name}:{number}")
    return found


def free_ledger_name(connection: Connection, name: str) -> str:
    """Give a name for the versions of a new model: its own, or with a number if that is in use."""
    base = name.replace("@", "~")  # a reference NAME@ENVIRONMENT is something else
    taken: set[str] = set()
    for column in (registered_models.c.ledger_name, versions.c.name):
        numbered = (column > f"{base}~") & (column < f"{base}~:")  # ":" comes after the digits
        query = select(column).distinct().where((column == base) | numbered)
        if column.table is versions:
            query = query.where(versions.c.kind == "model")
        taken.update(connection.execute(query).scalars())
    number, found = 1, base
    while found in taken:
        number += 1
        found = f"{base}~{number}"
    return found


@contextmanager
def changing(ledger: Ledger, name: str, actor: str | None = None) -> Iterator[tuple[Change, Row[Any]]]:
    """Give a change, and the row of the model that it is about. Raises `NotFound`, `ConfigError`."""
    check_model_name(name)
    with ledger.change(None, actor=actor) as change:
        yield change, get_model(change.connection, name)


def touch_model(change: Change, model: Row[Any], **values: Any) -> None:
    """Change columns of a model."""
    statement = registered_models.update().where(registered_models.c.id == model.id)
    change.connection.execute(statement.values(**values, updated_at=change.recorded_at))


def text_digest(text: str | None) -> str | None:
    """Give what an event says of a text."""
    return None if text is None else sha256_hex(text.encode())


def add_model(
    connection: Connection, name: str, ledger_name: str, at: datetime, description: str | None = None
) -> int:
    """Make the row of a model, and give its id."""
    row = {
        "name": name,
        "ledger_name": ledger_name,
        "description": description,
        "created_at": at,
        "updated_at": at,
    }
    statement = insert(registered_models).values(row).returning(registered_models.c.id)
    number: int = connection.execute(statement).scalar_one()
    return number


def add_native(connection: Connection, version: Version) -> None:
    """Let a version that noria keeps whole be found as one of its model; once more does nothing.

    A model that was deleted is there again then, with this version alone.
    """
    if connection.execute(_KNOWN, {"wanted": version.id}).first() is not None:
        return
    at = version.recorded_at
    query = select(registered_models).where(registered_models.c.ledger_name == version.name)
    model = connection.execute(query).first()
    if model is None:
        id = add_model(connection, _free_name(connection, version.name), version.name, at)
    else:
        id = model.id
        changed: dict[str, Any] = {"updated_at": at, "deleted_at": None}
        if model.deleted_at is not None:
            changed["name"] = _free_name(connection, model.name)
        connection.execute(registered_models.update().where(registered_models.c.id == id).values(changed))
    row = {
        "version": version.id,
        "model": id,
        "number": version.number,
        "source": native_source(version),
        "location": native_source(version),
        "run": version.run,
        "logged_model": None,
        "run_link": None,
        "description": None,
        "stage": Stage.NONE.value,
        "created_at": at,
        "updated_at": at,
        "deleted_at": None,
    }
    connection.execute(insert(model_versions).values(row))


def latest_of(connection: Connection, models: Sequence[int]) -> dict[int, list[CataloguedVersion]]:
    """Give the greatest version of each stage, by model and stage."""
    found: dict[int, list[CataloguedVersion]] = {each: [] for each in models}
    for some in _pieces(models):
        rows = connection.execute(_LATEST, {"ids": some})
        for model, version in _read(connection, [id for _, id in rows if id is not None]):
            found[model].append(version)
    for each in found.values():
        each.sort(key=lambda version: _STAGES.index(version.stage))
    return found


def read_models(connection: Connection, ids: Sequence[int]) -> list[RegisteredModel]:
    """Give models of these ids, in that order."""
    rows: dict[int, Row[Any]] = {}
    tags: dict[int, dict[str, str]] = {}
    aliases: dict[int, dict[str, int]] = {}
    for some in _pieces(ids):
        for row in connection.execute(_MODELS, {"ids": some}):
            rows[row.id] = row
        for model, name, value in connection.execute(_MODEL_TAGS, {"ids": some}):
            tags.setdefault(model, {})[name] = value
        for model, alias, number in connection.execute(_ALIASES, {"ids": some}):
            aliases.setdefault(model, {})[alias] = number
    latest = latest_of(connection, ids)
    return [
        RegisteredModel(
            name=rows[each].name,
            ledger_name=rows[each].ledger_name,
            description=rows[each].description,
            created_at=rows[each].created_at,
            updated_at=rows[each].updated_at,
            tags=tags.get(each, {}),
            aliases=aliases.get(each, {}),
            latest=tuple(latest[each]),
        )
        for each in ids
    ]


def read_versions(connection: Connection, ids: Sequence[str]) -> list[CataloguedVersion]:
    """Give versions of these ids, in that order."""
    found = {version.id: version for _, version in _read(connection, ids)}
    return [found[VersionId(each)] for each in ids]


def _read(connection: Connection, ids: Sequence[str]) -> Iterator[tuple[int, CataloguedVersion]]:
    for some in _pieces(ids):
        tags: dict[str, dict[str, str]] = {}
        for version, name, value in connection.execute(_VERSION_TAGS, {"ids": some}):
            tags.setdefault(version, {})[name] = value
        rows = connection.execute(_VERSIONS, {"ids": some}).all()
        aliases: dict[tuple[int, int], list[str]] = {}
        for part in _pieces(sorted({row.model for row in rows})):
            for model, alias, number in connection.execute(_ALIASES, {"ids": part}):
                aliases.setdefault((model, number), []).append(alias)
        for row in rows:
            named = tuple(aliases.get((row.model, row.number), ()))
            yield row.model, _to_version(row, tags.get(row.version, {}), named)


def _to_version(row: Row[Any], tags: dict[str, str], aliases: tuple[str, ...]) -> CataloguedVersion:
    return CataloguedVersion(
        id=VersionId(row.version),
        model=row.model_name,
        number=row.number,
        source=row.source,
        location=row.location,
        run=row.run,
        logged_model=row.logged_model,
        run_link=row.run_link,
        description=row.description,
        stage=Stage(row.stage),
        created_at=row.created_at,
        updated_at=row.updated_at,
        tags=tags,
        aliases=aliases,
        status=row.status,
        status_message=row.status_message,
        owner=row.owner,
    )


def _free_name(connection: Connection, name: str) -> str:
    number, found = 1, name
    while find_model(connection, found) is not None:
        number += 1
        found = f"{name}~{number}"
    return found


def _pieces(values: Iterable[_T]) -> Iterator[list[_T]]:
    known = list(values)
    for start in range(0, len(known), _AT_ONCE):
        yield known[start : start + _AT_ONCE]
