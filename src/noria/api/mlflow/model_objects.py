"""What registered models and their versions look like on MLflow's wire."""

import re
from typing import Any

from noria.api.mlflow.errors import MlflowFault
from noria.api.mlflow.wire import tag_objects, to_ms
from noria.registry.catalogue_records import CataloguedVersion, RegisteredModel

__all__ = ["model_object", "version_number", "version_object"]

_SHOWN_CHARS = 40
_INTEGER = re.compile(r"[+-]?[0-9]+")


def version_number(text: str) -> int:
    """Give the number of a version, which is a text on the wire. Raises `MlflowFault`."""
    if not _INTEGER.fullmatch(text):
        raise MlflowFault.invalid(
            f"Invalid value {text[:_SHOWN_CHARS]!r} for parameter 'version' supplied: it must be an integer"
        )
    return int(text[:_SHOWN_CHARS])


def version_object(version: CataloguedVersion) -> dict[str, Any]:
    """Give a version of a model."""
    made: dict[str, Any] = {
        "name": version.model,
        "version": str(version.number),
        "creation_timestamp": to_ms(version.created_at),
        "last_updated_timestamp": to_ms(version.updated_at),
        "current_stage": version.stage.value,
        "description": version.description or "",
        "source": version.source,
        "run_id": version.run or "",
        "status": version.status,
        "run_link": version.run_link or "",
    }
    if version.status_message is not None:
        made["status_message"] = version.status_message
    if version.owner is not None:
        made["user_id"] = version.owner
    if version.logged_model is not None:
        made["model_id"] = version.logged_model
    if version.tags:
        made["tags"] = tag_objects(version.tags)
    if version.aliases:
        made["aliases"] = list(version.aliases)
    return made


def model_object(model: RegisteredModel) -> dict[str, Any]:
    """Give a registered model."""
    made: dict[str, Any] = {
        "name": model.name,
        "creation_timestamp": to_ms(model.created_at),
        "last_updated_timestamp": to_ms(model.updated_at),
    }
    if model.description is not None:
        made["description"] = model.description
    if model.latest:
        made["latest_versions"] = [version_object(each) for each in model.latest]
    if model.tags:
        made["tags"] = tag_objects(model.tags)
    if model.aliases:
        made["aliases"] = [
            {"alias": alias, "version": str(number)} for alias, number in model.aliases.items()
        ]
    return made
