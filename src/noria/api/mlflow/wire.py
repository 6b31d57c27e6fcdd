"""What records look like on MLflow's wire: snake_case objects without empty fields, instants in ms."""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from noria.api.mlflow.errors import MlflowFault
from noria.clock import from_micros, to_micros
from noria.records import RunState
from noria.tracking.records import Experiment, LoggedDataset, MetricPoint, RunDetails, TrackedInfo
from noria.tracking.store import RUN_NAME_TAG

__all__ = [
    "CONTEXT_TAG",
    "STATES",
    "artifact_root",
    "experiment_object",
    "from_ms",
    "info_object",
    "metric_object",
    "number_of",
    "run_object",
    "tag_objects",
    "to_ms",
]

CONTEXT_TAG = "mlflow.data.context"
STATES = {
    "RUNNING": RunState.RUNNING,
    "SCHEDULED": RunState.RUNNING,
    "FINISHED": RunState.FINISHED,
    "FAILED": RunState.FAILED,
    "KILLED": RunState.KILLED,
}
_STATUS = {
    RunState.RUNNING: "RUNNING",
    RunState.FINISHED: "FINISHED",
    RunState.FAILED: "FAILED",
    RunState.CANCELLED: "KILLED",
    RunState.KILLED: "KILLED",
}
_ARTIFACTS = "mlflow-artifacts:"
_LARGEST = 1.7976931348623157e308  # stands for an infinity


def to_ms(at: datetime) -> int:
    """Give an instant in milliseconds since 1970."""
    return to_micros(at) // 1_000


def from_ms(ms: int) -> datetime:
    """Give the instant of so many milliseconds since 1970. Raises `MlflowFault` if there is none."""
    try:
        return from_micros(ms * 1_000)
    except (OverflowError, ValueError) as err:
        raise MlflowFault.invalid(f"{ms} is no instant in milliseconds since 1970 that a date has") from err


def tag_objects(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Give tags or parameters as objects."""
    return [{"key": name, "value": value} for name, value in tags.items()]


def experiment_object(experiment: Experiment) -> dict[str, Any]:
    """Give an experiment."""
    made: dict[str, Any] = {
        "experiment_id": experiment.id,
        "name": experiment.name,
        "artifact_location": _location(experiment),
        "lifecycle_stage": _stage(experiment.deleted_at),
        "creation_time": to_ms(experiment.at),
        "last_update_time": to_ms(experiment.updated_at),
    }
    if experiment.tags:
        made["tags"] = tag_objects(experiment.tags)
    return made


def artifact_root(info: TrackedInfo, experiment: Experiment) -> str:
    """Give where the files of a run are."""
    return f"{_location(experiment)}/{info.id}/artifacts"


def info_object(info: TrackedInfo, experiment: Experiment) -> dict[str, Any]:
    """Give a run without what was logged."""
    made: dict[str, Any] = {
        "run_id": info.id,
        "run_uuid": info.id,
        "run_name": info.name,
        "experiment_id": info.experiment,
        "user_id": info.owner,
        "status": "SCHEDULED" if info.is_scheduled else _STATUS[info.state],
        "start_time": to_ms(info.started_at),
        "artifact_uri": artifact_root(info, experiment),
        "lifecycle_stage": _stage(info.deleted_at),
    }
    if info.ended_at is not None:
        made["end_time"] = to_ms(info.ended_at)
    return made


def run_object(run: RunDetails, experiment: Experiment) -> dict[str, Any]:
    """Give a run."""
    data: dict[str, Any] = {}
    if run.metrics:
        data["metrics"] = [metric_object(each) for each in run.metrics]
    if run.params:
        data["params"] = tag_objects(run.params)
    data["tags"] = tag_objects({RUN_NAME_TAG: run.info.name, **run.tags})
    inputs: dict[str, Any] = {}
    if run.datasets:
        inputs["dataset_inputs"] = [_dataset_object(each) for each in run.datasets]
    if run.models_read:
        inputs["model_inputs"] = [{"model_id": each.model} for each in run.models_read]
    made: dict[str, Any] = {"info": info_object(run.info, experiment), "data": data, "inputs": inputs}
    if run.models_made:
        made["outputs"] = {
            "model_outputs": [{"model_id": each.model, "step": each.step} for each in run.models_made]
        }
    return made


def number_of(value: float) -> float | str:
    """Give what stands for a number; what JSON has none for, in the form that clients read."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else math.copysign(_LARGEST, value)


def metric_object(point: MetricPoint) -> dict[str, Any]:
    """Give a point of a metric."""
    value = number_of(point.value)
    return {"key": point.name, "value": value, "timestamp": point.at_us // 1_000, "step": point.step}


def _dataset_object(dataset: LoggedDataset) -> dict[str, Any]:
    told = {
        "name": dataset.name,
        "digest": dataset.digest,
        "source_type": dataset.source_type,
        "source": dataset.source,
    }
    for name, text in (("schema", dataset.schema), ("profile", dataset.profile)):
        if text is not None:
            told[name] = text
    tags = dict(dataset.tags)
    if dataset.context is not None:
        tags[CONTEXT_TAG] = dataset.context
    return {"dataset": told, "tags": tag_objects(tags)} if tags else {"dataset": told}


def _location(experiment: Experiment) -> str:
    return experiment.artifact_uri or f"{_ARTIFACTS}/{experiment.id}"


def _stage(deleted_at: datetime | None) -> str:
    return "active" if deleted_at is None else "deleted"
