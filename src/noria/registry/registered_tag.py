"""A logged model tells of the versions that were registered of it, as MLflow's clients look for them."""

import json

from noria.errors import Conflict, NotFound
from noria.registry.catalogue_records import CataloguedVersion
from noria.tracking.models.logged_models import LoggedModels

__all__ = ["tell_registered"]

_TAG = "mlflow.modelVersions"


def tell_registered(models: LoggedModels, id: str, version: CataloguedVersion) -> None:
    """Say at a logged model that it was registered; one of elsewhere, or deleted, is left alone."""
    try:
        known = json.loads(models.get(id).tags.get(_TAG, "[]"))
        one = {"name": version.model, "version": version.number}
        if isinstance(known, list) and one not in known:
            models.put_tags(id, {_TAG: json.dumps([*known, one])})
    except (NotFound, Conflict, ValueError):  # a tag may hold anything
        return
