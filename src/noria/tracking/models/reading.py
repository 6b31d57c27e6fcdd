"""Logged models as they are shown: many at once, with what was measured of them."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, RowMapping, Select, Table, bindparam, select, type_coerce

from noria.errors import NotFound
from noria.records import RunId
from noria.tracking.models.records import LoggedModel, ModelPoint, ModelStatus
from noria.tracking.records import MetricPoint
from noria.tracking.tables import (
    experiments,
    logged_model_metrics,
    logged_model_params,
    logged_model_tags,
    logged_models,
)

__all__ = ["model_files", "read_models"]

_AT_ONCE = 500  # models in one question
_PLACE = "mlflow-artifacts:/"  # of the project's own artifacts
_MODELS = (
    select(logged_models, experiments.c.artifact_uri)
    .join(experiments, experiments.c.id == logged_models.c.experiment)
    .where(logged_models.c.id.in_(bindparam("models", expanding=True)))
)


def _of_models(table: Table, *columns: Any) -> Select[Any]:
    return (
        select(*columns)
        .where(table.c.model.in_(bindparam("models", expanding=True)))
        .order_by(*table.primary_key.columns)
    )


_PARAMS, _TAGS = (
    _of_models(each, each.c.model, each.c.name, each.c.value)
    for each in (logged_model_params, logged_model_tags)
)
_METRICS = _of_models(
    logged_model_metrics,
    logged_model_metrics.c.model,
    logged_model_metrics.c.name,
    type_coerce(logged_model_metrics.c.recorded_at, BigInteger).label("at_us"),
    logged_model_metrics.c.step,
    logged_model_metrics.c.run,
    logged_model_metrics.c.dataset_name,
    logged_model_metrics.c.dataset_digest,
    logged_model_metrics.c.value,
    logged_model_metrics.c.is_nan,
)


def read_models(connection: Connection, ids: Sequence[str]) -> list[LoggedModel]:
    """Give models in that order, also deleted ones. Raises `NotFound` for the first that is not there."""
    found: dict[str, RowMapping] = {}
    params: dict[str, dict[str, str]] = {}
    tags: dict[str, dict[str, str]] = {}
    metrics: dict[str, list[ModelPoint]] = {}
    for some in _pieces(ids):
        asked = {"models": some}
        for row in connection.execute(_MODELS, asked).mappings():
            found[row["id"]] = row
        for held, query in ((params, _PARAMS), (tags, _TAGS)):
            for model, name, value in connection.execute(query, asked):
                held.setdefault(model, {})[name] = value
        for row in connection.execute(_METRICS, asked).mappings():
            metrics.setdefault(row["model"], []).append(_to_point(row))
    missing = next((each for each in ids if each not in found), None)
    if missing is not None:
        raise NotFound("logged model", missing)
    return [
        _to_model(found[each], params.get(each, {}), tags.get(each, {}), metrics.get(each, ()))
        for each in ids
    ]


def model_files(experiment: int, place: str | None, model: str) -> str:
    """Give where the files of a model are, in an experiment whose files are at a place."""
    return f"{place or f'{_PLACE}{experiment}'}/models/{model}/artifacts"


def _pieces(ids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _AT_ONCE):
        yield [*ids[start : start + _AT_ONCE]]


def _to_point(row: RowMapping) -> ModelPoint:
    value = math.nan if row["is_nan"] else row["value"]
    return ModelPoint(
        model=row["model"],
        run=RunId(row["run"]),
        point=MetricPoint(name=row["name"], value=value, step=row["step"], at_us=row["at_us"]),
        dataset_name=row["dataset_name"] or None,
        dataset_digest=row["dataset_digest"] or None,
    )


def _to_model(
    row: RowMapping, params: dict[str, str], tags: dict[str, str], metrics: Sequence[ModelPoint]
) -> LoggedModel:
    fields = dict(row)
    fields["artifact_uri"] = model_files(row["experiment"], row["artifact_uri"], row["id"])
    fields |= {"experiment": str(row["experiment"]), "status": ModelStatus(row["status"])}
    return LoggedModel(**fields, params=params, tags=tags, metrics=tuple(metrics))
