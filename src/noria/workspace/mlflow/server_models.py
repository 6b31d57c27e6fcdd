"""Logged models as a server of MLflow answers them."""

import msgspec

from noria.records import RunId
from noria.tracking.importing_models import ForeignModel
from noria.tracking.models.records import ModelPoint, ModelStatus
from noria.tracking.records import MetricPoint
from noria.workspace.mlflow.source import from_ms, number_of, some_instant

__all__ = ["WireModel", "WireModels", "to_model"]

_STATUS = {
    "LOGGED_MODEL_PENDING": ModelStatus.PENDING,
    "LOGGED_MODEL_READY": ModelStatus.READY,
    "LOGGED_MODEL_UPLOAD_FAILED": ModelStatus.FAILED,
}


class _Pair(msgspec.Struct):
    key: str
    value: str = ""


class _Metric(msgspec.Struct):
    key: str
    value: float | str = 0.0
    timestamp: int = 0
    step: int = 0
    run_id: str = ""
    dataset_name: str = ""
    dataset_digest: str = ""


class _Info(msgspec.Struct):
    model_id: str
    experiment_id: str
    name: str = ""
    artifact_uri: str = ""
    creation_timestamp_ms: int | None = None
    last_updated_timestamp_ms: int | None = None
    status: str = ""
    model_type: str = ""
    source_run_id: str = ""
    tags: list[_Pair] = []


class _Data(msgspec.Struct):
    params: list[_Pair] = []
    metrics: list[_Metric] = []


class WireModel(msgspec.Struct):
    """A logged model."""

    info: _Info
    data: _Data = msgspec.field(default_factory=_Data)


class WireModels(msgspec.Struct):
    """A page of logged models."""

    models: list[WireModel] = []
    next_page_token: str = ""


def to_model(wire: WireModel) -> ForeignModel:
    """Give a model as it is imported."""
    info = wire.info
    at = some_instant(from_ms(info.creation_timestamp_ms))
    return ForeignModel(
        id=info.model_id,
        experiment=info.experiment_id,
        name=info.name,
        type=info.model_type or None,
        status=_STATUS.get(info.status, ModelStatus.UNSPECIFIED),
        source_run=RunId(info.source_run_id) if info.source_run_id else None,
        created_at=at,
        updated_at=some_instant(from_ms(info.last_updated_timestamp_ms), at),
        is_deleted=False,
        artifact_uri=info.artifact_uri,
        params={each.key: each.value for each in wire.data.params},
        tags={each.key: each.value for each in info.tags},
        points=tuple(_to_point(info.model_id, each) for each in wire.data.metrics),
    )


def _to_point(model: str, metric: _Metric) -> ModelPoint:
    value = float(metric.value)
    return ModelPoint(
        model=model,
        run=RunId(metric.run_id),
        point=MetricPoint(
            name=metric.key,
            value=number_of(value, is_nan=value != value),  # noqa: PLR0124 - NaN
            step=metric.step,
            at_us=metric.timestamp * 1_000,
        ),
        dataset_name=metric.dataset_name or None,
        dataset_digest=metric.dataset_digest or None,
    )
