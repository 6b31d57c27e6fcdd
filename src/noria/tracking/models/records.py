"""Logged models as values: what their owners tell, and what was measured of them."""

from datetime import datetime
from enum import StrEnum

import msgspec

from noria.errors import ConfigError
from noria.records import RunId
from noria.tracking.records import MetricPoint

__all__ = ["LoggedModel", "ModelPoint", "ModelStatus", "check_model_name"]

_REFUSED = ("/", ":", ".", "%", '"', "'")  # they would lead elsewhere in a URI or a filter


class ModelStatus(StrEnum):
    """How far the upload of a model's files is."""

    UNSPECIFIED = "unspecified"  # its owner does not know
    PENDING = "pending"
    READY = "ready"
    FAILED = "failed"


class ModelPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One value of one metric that a run measured of a model."""

    model: str
    run: RunId
    point: MetricPoint
    dataset_name: str | None = None
    dataset_digest: str | None = None


class LoggedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model in an experiment, as its owner tells of it."""

    id: str  # "m-" and 32 hex digits
    experiment: str
    name: str
    type: str | None
    status: ModelStatus
    source_run: RunId | None
    version: str | None  # the ledger's, once it is ready
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    artifact_uri: str  # where its files are
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    metrics: tuple[ModelPoint, ...] = ()


def check_model_name(name: str) -> str:
    """Give a name that a logged model may have. Raises `ConfigError`."""
    if not name or any(each in name for each in _REFUSED):
        raise ConfigError(
            f"Invalid model name {name!r}: give a text of one character or more without {' '.join(_REFUSED)}"
        )
    return name
