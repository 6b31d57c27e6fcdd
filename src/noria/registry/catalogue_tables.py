"""What people call models, as tables to ask in SQL: names as they are shown now, beside the ledger's."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Select, and_, select

from noria.registry.tables import (
    model_aliases,
    model_tags,
    model_version_tags,
    model_versions,
    registered_models,
)

__all__ = ["registry_questions"]

_NAME = registered_models.c.name.label("model")


def registry_questions() -> Mapping[str, Select[Any]]:
    """Give what reads each table, by its name; what was deleted is told as well."""
    models = registered_models
    of_model = model_versions.join(models, models.c.id == model_versions.c.model)
    numbered = and_(
        model_versions.c.model == model_aliases.c.model, model_versions.c.number == model_aliases.c.number
    )
    versions = [each for each in model_versions.columns if each.name != "model"]
    return {
        "registry_models": select(models).order_by(models.c.name, models.c.id),
        "registry_versions": select(_NAME, *versions)
        .select_from(of_model)
        .order_by(models.c.name, models.c.id, model_versions.c.number),
        "registry_aliases": select(
            _NAME, model_aliases.c.alias, model_aliases.c.number, model_versions.c.version
        )
        .select_from(
            model_aliases.join(models, models.c.id == model_aliases.c.model).join(model_versions, numbered)
        )
        .order_by(models.c.name, model_aliases.c.alias),
        "registry_model_tags": select(_NAME, model_tags.c.name, model_tags.c.value)
        .select_from(model_tags.join(models, models.c.id == model_tags.c.model))
        .order_by(models.c.name, models.c.id, model_tags.c.name),
        "registry_version_tags": select(
            _NAME, model_versions.c.number, model_version_tags.c.name, model_version_tags.c.value
        )
        .select_from(
            of_model.join(model_version_tags, model_version_tags.c.version == model_versions.c.version)
        )
        .order_by(models.c.name, models.c.id, model_versions.c.number, model_version_tags.c.name),
    }
