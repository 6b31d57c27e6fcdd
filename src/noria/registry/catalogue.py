"""What people call models: names, descriptions, tags, aliases, tombstones.

All of it is said beside the versions on record, which never change: what is renamed or deleted here stays in
the ledger as it was, and no deployment moves. Each change but a tag is an event.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, delete, select

from noria.database.upserts import Upsert
from noria.errors import Conflict, NotFound
from noria.ledger.chain import Change
from noria.ledger.store import Ledger
from noria.registry.catalogue_records import CataloguedVersion, RegisteredModel
from noria.registry.catalogue_rules import (
    check_alias,
    check_model_name,
    check_text,
    check_unreserved,
    checked_number,
    tag_rows,
)
from noria.registry.catalogue_search import ModelPage, search_models
from noria.registry.labels import (
    add_model,
    changing,
    find_model,
    free_ledger_name,
    get_model,
    get_version,
    read_models,
    read_versions,
    text_digest,
    touch_model,
)
from noria.registry.tables import model_aliases, model_tags, model_versions, registered_models

__all__ = ["ModelCatalogue"]

_TAGS = Upsert(model_tags, replaced=("value", "head"))
_ALIASES = Upsert(model_aliases, replaced=("number",))


class ModelCatalogue:
    """Models of a project by the names that people give them. Safe to use from many threads and processes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    # models

    def create(
        self,
        name: str,
        *,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        actor: str | None = None,
    ) -> RegisteredModel:
        """Make a name under which versions are registered; its first is number 1.

        Raises
        ------
        ConfigError
            If it can be no name, or a tag none.
        Conflict
            If there is a model of that name.
        """
        check_model_name(name)
        check_text("description", description)
        rows = tag_rows(tags or {})
        with self._ledger.change(None, actor=actor) as change:
            connection = change.connection
            _check_free(change, name)
            ledger_name = free_ledger_name(connection, name)
            id = add_model(connection, name, ledger_name, change.recorded_at, description)
            _TAGS.execute(connection, [{"model": id, **row} for row in rows])
            change.record("model.created", ledger_name, payload={"name": name}, cause=None)
            return read_models(connection, [id])[0]

    def get(self, name: str) -> RegisteredModel:
        """Give a model. Raises `NotFound`; `ConfigError` if it can be no name."""
        check_model_name(name)
        with self._ledger.database.read() as connection:
            return read_models(connection, [get_model(connection, name).id])[0]

    def rename(self, name: str, new_name: str, *, actor: str | None = None) -> RegisteredModel:
        """Let a model be shown under another name. Raises `NotFound`, `ConfigError`, `Conflict`."""
        check_model_name(new_name)
        with changing(self._ledger, name, actor) as (change, model):
            if name != new_name:
                _check_free(change, new_name)
                touch_model(change, model, name=new_name)
                mine = model_versions.c.model == model.id
                update = model_versions.update().where(mine, model_versions.c.deleted_at.is_(None))
                change.connection.execute(update.values(updated_at=change.recorded_at))
                payload = {"name": new_name, "before": name}
                change.record("model.renamed", model.ledger_name, payload=payload, cause=None)
            return read_models(change.connection, [model.id])[0]

    def describe(self, name: str, description: str | None, *, actor: str | None = None) -> RegisteredModel:
        """Say what a model is for. Raises `NotFound`."""
        check_text("description", description)
        with changing(self._ledger, name, actor) as (change, model):
            touch_model(change, model, description=description)
            payload = {"name": name, "sha256": text_digest(description)}
            change.record("model.described", model.ledger_name, payload=payload, cause=None)
            return read_models(change.connection, [model.id])[0]

    def delete(self, name: str, *, actor: str | None = None) -> None:
        """Mark a model and its versions as deleted; those stay on record, and where they are deployed.

        The name is free again. Raises `NotFound`.
        """
        with changing(self._ledger, name, actor) as (change, model):
            connection = change.connection
            gone = {"deleted_at": change.recorded_at, "updated_at": change.recorded_at}
            mine = model_versions.c.model == model.id
            update = model_versions.update().where(mine, model_versions.c.deleted_at.is_(None))
            count = connection.execute(update.values(gone)).rowcount
            connection.execute(delete(model_aliases).where(model_aliases.c.model == model.id))
            touch_model(change, model, deleted_at=change.recorded_at)
            payload = {"name": name, "versions": count}
            change.record("model.deleted", model.ledger_name, payload=payload, cause=None)

    def undelete(self, name: str, *, actor: str | None = None) -> RegisteredModel:
        """Take the mark of deletion from the model last called so, and from the versions deleted with it.

        Aliases are not there again, nor are versions that had been deleted before.

        Raises
        ------
        NotFound
            If no model of that name was deleted.
        Conflict
            If another model has the name now.
        """
        check_model_name(name)
        with self._ledger.change(None, actor=actor) as change:
            connection = change.connection
            query = select(registered_models).where(
                registered_models.c.name == name, registered_models.c.deleted_at.is_not(None)
            )
            gone = connection.execute(query.order_by(registered_models.c.deleted_at.desc()).limit(1)).first()
            if gone is None:
                raise NotFound("deleted model", name, ())
            _check_free(change, name)
            mine = (model_versions.c.model == gone.id, model_versions.c.deleted_at == gone.deleted_at)
            back = {"deleted_at": None, "updated_at": change.recorded_at}
            count = connection.execute(model_versions.update().where(*mine).values(back)).rowcount
            touch_model(change, gone, deleted_at=None)
            payload = {"name": name, "versions": count}
            change.record("model.restored", gone.ledger_name, payload=payload, cause=None)
            return read_models(connection, [gone.id])[0]

    def put_tag(self, name: str, tag: str, value: str) -> None:
        """Set a tag of a model. Raises `NotFound`, `ConfigError`."""
        rows = tag_rows({tag: value})
        with changing(self._ledger, name) as (change, model):
            _TAGS.execute(change.connection, [{"model": model.id, **row} for row in rows])

    def remove_tag(self, name: str, tag: str) -> None:
        """Take a tag of a model away; one that is not there is no fault. Raises `NotFound`."""
        check_text("key", tag)
        with changing(self._ledger, name) as (change, model):
            mine = (model_tags.c.model == model.id, model_tags.c.name == tag)
            change.connection.execute(delete(model_tags).where(*mine))

    def search(
        self,
        *,
        filter: str = "",
        order_by: Sequence[str] = (),
        limit: int = 100,
        page: str | None = None,
    ) -> ModelPage:
        """Find models; see `noria.registry.catalogue_search.search_models`."""
        with self._ledger.database.read() as connection:
            return search_models(connection, filter=filter, order_by=order_by, limit=limit, page=page)

    # aliases

    def put_alias(self, name: str, alias: str, number: int, *, actor: str | None = None) -> None:
        """Let an alias name a version, whatever it named before. Raises `NotFound`, `ConfigError`."""
        check_alias(alias)
        check_unreserved(alias)
        with changing(self._ledger, name, actor) as (change, model):
            get_version(change.connection, model, checked_number(number))
            before = _aliased(change, model, alias)
            if before == number:
                return
            row = {"model": model.id, "alias": alias, "number": number}
            _ALIASES.execute(change.connection, [row])
            payload = {"alias": alias, "version": number, "before": before}
            change.record("model.alias_set", model.ledger_name, payload=payload, cause=None)

    def remove_alias(self, name: str, alias: str, *, actor: str | None = None) -> None:
        """Take an alias away; one that is not there is no fault. Raises `NotFound`, `ConfigError`."""
        check_alias(alias)
        with changing(self._ledger, name, actor) as (change, model):
            before = _aliased(change, model, alias)
            if before is not None:
                mine = (model_aliases.c.model == model.id, model_aliases.c.alias == alias)
                change.connection.execute(delete(model_aliases).where(*mine))
                payload = {"alias": alias, "version": before}
                change.record("model.alias_removed", model.ledger_name, payload=payload, cause=None)

    def get_aliased(self, name: str, alias: str) -> CataloguedVersion:
        """Give the version that an alias names. Raises `NotFound`, of kind "alias" if there is none."""
        check_model_name(name)
        check_alias(alias)
        with self._ledger.database.read() as connection:
            model = get_model(connection, name)
            query = (
                select(model_versions.c.version)
                .join(model_aliases, model_aliases.c.model == model_versions.c.model)
                .where(model_aliases.c.model == model.id, model_aliases.c.alias == alias)
                .where(model_versions.c.number == model_aliases.c.number)
            )
            id = connection.execute(query).scalar()
            if id is None:
                known = select(model_aliases.c.alias).where(model_aliases.c.model == model.id)
                raise NotFound("alias", alias, connection.execute(known).scalars())
            return read_versions(connection, [id])[0]


def _check_free(change: Change, name: str) -> None:
    if find_model(change.connection, name) is not None:
        raise Conflict(f"Registered Model (name={name}) already exists; use it, or choose another name")


def _aliased(change: Change, model: Row[Any], alias: str) -> int | None:
    """Give the number that an alias names."""
    query = select(model_aliases.c.number)
    mine = (model_aliases.c.model == model.id, model_aliases.c.alias == alias)
    number: int | None = change.connection.execute(query.where(*mine)).scalar()
    return number
