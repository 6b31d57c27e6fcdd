"""Logged models of an MLflow store in a database."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    Row,
    Table,
    Text,
    select,
    tuple_,
)

from noria.records import RunId
from noria.tracking.importing_models import ForeignLink, ForeignModel
from noria.tracking.models.records import ModelPoint, ModelStatus
from noria.tracking.records import LinkedModel, MetricPoint
from noria.workspace.mlflow.source import from_ms, number_of, some_instant

__all__ = ["page_of_links", "page_of_models"]

_AT_ONCE = 50
_LINKS_AT_ONCE = 1_000
_STATUS = dict(
    enumerate((ModelStatus.UNSPECIFIED, ModelStatus.PENDING, ModelStatus.READY, ModelStatus.FAILED))
)
_ROLES = {"RUN_INPUT": "input", "RUN_OUTPUT": "output"}
_tables = MetaData()


def _table(called: str, /, **columns: Any) -> Table:
    return Table(called, _tables, *(Column(each, type_) for each, type_ in columns.items()))


_models = _table(
    "logged_models",
    model_id=Text,
    experiment_id=Integer,
    name=Text,
    artifact_location=Text,
    creation_timestamp_ms=BigInteger,
    last_updated_timestamp_ms=BigInteger,
    status=Integer,
    lifecycle_stage=Text,
    model_type=Text,
    source_run_id=Text,
)
_params = _table("logged_model_params", model_id=Text, param_key=Text, param_value=Text)
_tags = _table("logged_model_tags", model_id=Text, tag_key=Text, tag_value=Text)
_metrics = _table(
    "logged_model_metrics",
    model_id=Text,
    metric_name=Text,
    metric_timestamp_ms=BigInteger,
    metric_step=BigInteger,
    metric_value=Float,
    run_id=Text,
    dataset_name=Text,
    dataset_digest=Text,
)
_links = _table(
    "inputs", source_type=Text, source_id=Text, destination_type=Text, destination_id=Text, step=BigInteger
)


def page_of_models(connection: Connection, experiment: int, after: str) -> list[ForeignModel]:
    """Give models of an experiment with greater ids, some of them."""
    query = select(_models).where(_models.c.experiment_id == experiment, _models.c.model_id > after)
    rows = connection.execute(query.order_by(_models.c.model_id).limit(_AT_ONCE)).all()
    ids = [row.model_id for row in rows]
    params: dict[str, dict[str, str]] = {}
    tags: dict[str, dict[str, str]] = {}
    points: dict[str, list[ModelPoint]] = {}
    for id, name, value in connection.execute(select(_params).where(_params.c.model_id.in_(ids))):
        params.setdefault(id, {})[name] = value or ""
    for id, name, value in connection.execute(select(_tags).where(_tags.c.model_id.in_(ids))):
        tags.setdefault(id, {})[name] = value or ""
    for row in connection.execute(select(_metrics).where(_metrics.c.model_id.in_(ids))):
        points.setdefault(row.model_id, []).append(_to_point(row))
    return [_to_model(row, params, tags, points) for row in rows]


def page_of_links(
    connection: Connection, after: tuple[str, str, str] | None
) -> tuple[list[ForeignLink], tuple[str, str, str] | None]:
    """Give what runs read and made after a place, some of it, and the place that follows; None: none does."""
    place = (_links.c.source_type, _links.c.source_id, _links.c.destination_id)
    query = select(_links).where(_links.c.source_type.in_(_ROLES)).order_by(*place).limit(_LINKS_AT_ONCE)
    if after is not None:
        query = query.where(tuple_(*place) > tuple_(*after))
    rows = connection.execute(query).all()
    found = [
        ForeignLink(
            run=RunId(row.source_id),
            role=_ROLES[row.source_type],
            model=LinkedModel(model=row.destination_id, step=row.step or 0),
        )
        for row in rows
    ]
    if len(rows) < _LINKS_AT_ONCE:
        return found, None
    last = rows[-1]
    return found, (last.source_type, last.source_id, last.destination_id)


def _to_point(row: Row[Any]) -> ModelPoint:
    is_nan = row.metric_value is None or row.metric_value != row.metric_value
    return ModelPoint(
        model=row.model_id,
        run=RunId(row.run_id),
        point=MetricPoint(
            name=row.metric_name,
            value=number_of(row.metric_value or 0.0, is_nan=is_nan),
            step=row.metric_step,
            at_us=row.metric_timestamp_ms * 1_000,
        ),
        dataset_name=row.dataset_name,
        dataset_digest=row.dataset_digest,
    )


def _to_model(
    row: Row[Any],
    params: dict[str, dict[str, str]],
    tags: dict[str, dict[str, str]],
    points: dict[str, list[ModelPoint]],
) -> ForeignModel:
    at = some_instant(from_ms(row.creation_timestamp_ms))
    return ForeignModel(
        id=row.model_id,
        experiment=str(row.experiment_id),
        name=row.name,
        type=row.model_type or None,
        status=_STATUS.get(row.status, ModelStatus.UNSPECIFIED),
        source_run=RunId(row.source_run_id) if row.source_run_id else None,
        created_at=at,
        updated_at=some_instant(from_ms(row.last_updated_timestamp_ms), at),
        is_deleted=row.lifecycle_stage == "deleted",
        artifact_uri=row.artifact_location or "",
        params=params.get(row.model_id, {}),
        tags=tags.get(row.model_id, {}),
        points=tuple(points.get(row.model_id, ())),
    )
