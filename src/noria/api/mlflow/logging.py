"""What runs log, over MLflow's protocol: metrics, parameters, tags, datasets; and the history of a metric."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import msgspec

from noria.api.mlflow.application import Endpoint
from noria.api.mlflow.errors import MlflowFault
from noria.api.mlflow.fields import KeyValue, Required, run_of
from noria.api.mlflow.requests import LARGE_BODY_BYTES
from noria.api.mlflow.wire import CONTEXT_TAG, from_ms, metric_object, number_of
from noria.errors import NoriaError
from noria.records import RunId
from noria.tracking.histories import HistoryReader
from noria.tracking.models.logged_models import INPUT, LoggedModels
from noria.tracking.models.records import ModelPoint
from noria.tracking.names import check_name
from noria.tracking.records import LinkedModel, LoggedDataset, MetricPoint
from noria.tracking.run_desk import RunDesk
from noria.tracking.store import TrackingStore

__all__ = ["MAX_TAG_VALUE", "LoggingEndpoints", "cut"]

MAX_TAG_VALUE = 8_000
_MAX_PARAM_VALUE = 6_000
_MAX_METRICS, _MAX_PARAMS, _MAX_TAGS, _MAX_ALL, _MAX_BATCH_BYTES = 1_000, 100, 100, 1_000, 1 << 20
_MAX_DATASET_NAME, _MAX_DATASET_DIGEST = 500, 36
_MAX_SOURCE, _MAX_SCHEMA, _MAX_PROFILE = 65_535, 1_048_575, 16_777_215
_MAX_INPUTS = 1_000  # datasets or models of a request
_MAX_INPUT_TAG_NAME, _MAX_INPUT_TAG_VALUE = 255, 500
_MAX_HISTORY, _MAX_INTERVAL, _MAX_RUNS = 25_000, 2_500, 100
_LARGEST_STEP = 2**63 - 1
_LARGEST_MS = 250_000_000_000_000  # a date has it


class _Metric(msgspec.Struct):
    key: Required
    value: float
    timestamp: int
    step: int = 0
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class _LogMetric(msgspec.Struct):
    key: Required
    value: float
    timestamp: int
    run_id: str = ""
    run_uuid: str = ""
    step: int = 0
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class _LogText(msgspec.Struct):
    key: Required
    run_id: str = ""
    run_uuid: str = ""
    value: str = ""


class _DeleteTag(msgspec.Struct):
    run_id: Required
    key: Required


class _LogBatch(msgspec.Struct):
    run_id: Required
    metrics: list[_Metric] = []
    params: list[KeyValue] = []
    tags: list[KeyValue] = []


class _Dataset(msgspec.Struct):
    name: Required
    digest: Required
    source_type: Required
    source: Required
    schema: str | None = None
    profile: str | None = None


class _DatasetInput(msgspec.Struct):
    dataset: _Dataset
    tags: list[KeyValue] = []


class _ModelInput(msgspec.Struct):
    model_id: Required


class _LogInputs(msgspec.Struct):
    run_id: Required
    datasets: list[_DatasetInput] = []
    models: list[_ModelInput] = []


class _GetHistory(msgspec.Struct):
    metric_key: Required
    run_id: str = ""
    run_uuid: str = ""
    max_results: int | None = None
    page_token: str | None = None


class _GetIntervals(msgspec.Struct):
    metric_key: Required
    run_ids: list[str]
    start_step: int | None = None
    end_step: int | None = None
    max_results: int = _MAX_INTERVAL


class _GetBulk(msgspec.Struct):
    metric_key: Required
    run_id: list[str]
    max_results: int = _MAX_HISTORY


class _Shown(msgspec.Struct, gc=False):
    key: str
    value: float | str
    timestamp: int
    step: int


class LoggingEndpoints:
    """Translates between the wire and what runs log."""

    def __init__(
        self, store: TrackingStore, desk: RunDesk, histories: HistoryReader, models: LoggedModels
    ) -> None:
        self._store, self._desk, self._histories, self._models = store, desk, histories, models

    def endpoints(self) -> Iterator[Endpoint]:
        """Give what is answered."""
        yield Endpoint(
            ("POST",), "/runs/log-metric", _LogMetric, self.log_metric, perform_all=self.log_metrics
        )
        yield Endpoint(("POST",), "/runs/log-parameter", _LogText, self.log_param)
        yield Endpoint(("POST",), "/runs/set-tag", _LogText, self.set_tag)
        yield Endpoint(("POST",), "/runs/delete-tag", _DeleteTag, self.delete_tag)
        yield Endpoint(("POST",), "/runs/log-batch", _LogBatch, self.log_batch, _MAX_BATCH_BYTES)
        yield Endpoint(("POST",), "/runs/log-inputs", _LogInputs, self.log_inputs, LARGE_BODY_BYTES)
        yield Endpoint(("GET",), "/metrics/get-history", _GetHistory, self.history)
        yield Endpoint(("GET",), "/metrics/get-history-bulk", _GetBulk, self.histories)
        yield Endpoint(("GET",), "/metrics/get-history-bulk-interval", _GetIntervals, self.intervals)

    def log_metric(self, asked: _LogMetric) -> Mapping[str, Any]:
        """Keep a point of a metric."""
        run, point = run_of(asked.run_id, asked.run_uuid), _point(asked)
        if asked.model_id:
            with self._models.together():
                self._store.log(run, points=[point], is_open=True)
                self._models.log_points([_model_point(run, asked, point)])
        else:
            self._store.log(run, points=[point], is_open=True)
        return {}

    def log_metrics(self, asked: Sequence[_LogMetric]) -> list[Mapping[str, Any] | Exception]:
        """Keep points of several requests in one transaction, and give for each what `log_metric` does."""
        answers: list[Mapping[str, Any] | Exception] = [{}] * len(asked)
        points = {}
        for place, each in enumerate(asked):
            try:
                if each.model_id:
                    self.log_metric(each)
                else:
                    points[place] = run_of(each.run_id, each.run_uuid), _point(each)
            except NoriaError as err:
                answers[place] = err
        for place, fault in zip(points, self._store.log_points([*points.values()]), strict=True):
            if fault is not None:
                answers[place] = fault
        return answers

    def log_param(self, asked: _LogText) -> Mapping[str, Any]:
        """Keep a parameter."""
        params = {check_name("param", asked.key): cut(asked.value, _MAX_PARAM_VALUE)}
        self._store.log(run_of(asked.run_id, asked.run_uuid), params=params, is_open=True)
        return {}

    def set_tag(self, asked: _LogText) -> Mapping[str, Any]:
        """Set a tag."""
        tags = {check_name("tag", asked.key): cut(asked.value, MAX_TAG_VALUE)}
        self._store.log(run_of(asked.run_id, asked.run_uuid), tags=tags, is_open=True)
        return {}

    def delete_tag(self, asked: _DeleteTag) -> Mapping[str, Any]:
        """Take a tag away."""
        self._store.remove_tag(RunId(asked.run_id), asked.key)
        return {}

    def log_batch(self, asked: _LogBatch) -> Mapping[str, Any]:
        """Keep points, parameters and tags, all or none."""
        for what, found, most in (
            ("metrics", len(asked.metrics), _MAX_METRICS),
            ("params", len(asked.params), _MAX_PARAMS),
            ("tags", len(asked.tags), _MAX_TAGS),
            ("entities", len(asked.metrics) + len(asked.params) + len(asked.tags), _MAX_ALL),
        ):
            if found > most:
                raise MlflowFault.invalid(
                    f"A batch logging request can contain at most {most} {what}, this one has {found}; "
                    "send them in several requests"
                )
        params: dict[str, str] = {}
        for each in asked.params:
            value = cut(each.value, _MAX_PARAM_VALUE)
            if params.setdefault(check_name("param", each.key), value) != value:
                raise MlflowFault.invalid(f"Duplicate parameter keys have been submitted: {each.key!r} twice")
        run, points = RunId(asked.run_id), [_point(each) for each in asked.metrics]
        tags = {check_name("tag", each.key): cut(each.value, MAX_TAG_VALUE) for each in asked.tags}
        of_models = [
            _model_point(run, each, point)
            for each, point in zip(asked.metrics, points, strict=True)
            if each.model_id
        ]
        with self._models.together() if of_models else nullcontext():
            self._store.log(run, points=points, params=params, tags=tags, is_open=True)
            if of_models:
                self._models.log_points(of_models)
        return {}

    def log_inputs(self, asked: _LogInputs) -> Mapping[str, Any]:
        """Keep what a run read."""
        for what, found in (("datasets", len(asked.datasets)), ("models", len(asked.models))):
            if found > _MAX_INPUTS:
                raise MlflowFault.invalid(
                    f"a request can contain at most {_MAX_INPUTS} {what}, this one has {found}; "
                    "send them in several requests"
                )
        run, models = RunId(asked.run_id), [LinkedModel(model=each.model_id) for each in asked.models]
        with self._models.together():
            self._desk.log_datasets(run, [_dataset(each) for each in asked.datasets])
            self._models.link(run, role=INPUT, models=models)
        return {}

    def history(self, asked: _GetHistory) -> Mapping[str, Any]:
        """Give all points of a metric as they were logged."""
        most = _MAX_HISTORY if asked.max_results is None else asked.max_results
        if most < 1:
            raise MlflowFault.invalid(
                f"Invalid value {most} for parameter 'max_results' supplied: 1 is the least"
            )
        page = self._histories.page(
            run_of(asked.run_id, asked.run_uuid),
            asked.metric_key,
            limit=min(most, _MAX_HISTORY),
            page=asked.page_token or None,
        )
        answer: dict[str, Any] = {}
        if page.values:
            points = zip(page.values, page.at_us, page.steps, strict=True)
            answer["metrics"] = [
                _Shown(asked.metric_key, number_of(value), at_us // 1_000, step)
                for value, at_us, step in points
            ]
        if page.next_page is not None:
            answer["next_page_token"] = page.next_page
        return answer

    def histories(self, asked: _GetBulk) -> Mapping[str, Any]:
        """Give the points of a metric of several runs, run by run, the first so many of all."""
        if not 1 <= len(asked.run_id) <= _MAX_RUNS:
            raise MlflowFault.invalid(f"{len(asked.run_id)} runs are asked for; 1 to {_MAX_RUNS} are taken")
        if asked.max_results < 1:
            raise MlflowFault.invalid(
                f"Invalid value {asked.max_results} for parameter 'max_results' supplied: 1 is the least"
            )
        found: list[dict[str, Any]] = []
        for run in sorted(set(asked.run_id)):
            left = min(asked.max_results, _MAX_HISTORY) - len(found)
            if not left:
                break
            page = self._histories.page(RunId(run), asked.metric_key, limit=left)
            found += [
                {
                    "key": asked.metric_key,
                    "value": number_of(value),
                    "timestamp": at_us // 1_000,
                    "step": step,
                    "run_id": run,
                }
                for value, at_us, step in zip(page.values, page.at_us, page.steps, strict=True)
            ]
        return {"metrics": found} if found else {}

    def intervals(self, asked: _GetIntervals) -> Mapping[str, Any]:
        """Give points of a metric of several runs, thinned out evenly by steps."""
        if len(asked.run_ids) > _MAX_RUNS:
            raise MlflowFault.invalid(f"{len(asked.run_ids)} runs are asked for; at most {_MAX_RUNS} at once")
        _check_step("start_step", asked.start_step or 0)
        _check_step("end_step", asked.end_step or 0)
        found = self._histories.thinned(
            [RunId(each) for each in asked.run_ids],
            asked.metric_key,
            first=asked.start_step,
            last=asked.end_step,
            limit=min(max(asked.max_results, 1), _MAX_INTERVAL),
        )
        points = [{**metric_object(each), "run_id": run} for run, points in found.items() for each in points]
        return {"metrics": points} if points else {}


def cut(value: str, most: int) -> str:
    """Give a text without what is beyond the limit, as MLflow's server does."""
    return value[:most]


def _point(asked: _Metric | _LogMetric) -> MetricPoint:
    _check_step("step", asked.step)
    if not 0 <= asked.timestamp <= _LARGEST_MS:
        from_ms(asked.timestamp)
    name, at_us = check_name("metric", asked.key), asked.timestamp * 1_000
    return MetricPoint(name=name, value=asked.value, step=asked.step, at_us=at_us)


def _check_step(what: str, step: int) -> None:
    if not -_LARGEST_STEP - 1 <= step <= _LARGEST_STEP:
        raise MlflowFault.invalid(f"Invalid value {step} for parameter '{what}' supplied: it has 64 bits")


def _model_point(run: RunId, asked: _Metric | _LogMetric, point: MetricPoint) -> ModelPoint:
    for what, text, most in (
        ("dataset_name", asked.dataset_name or "", _MAX_DATASET_NAME),
        ("dataset_digest", asked.dataset_digest or "", _MAX_DATASET_DIGEST),
    ):
        if len(text) > most:
            raise MlflowFault.invalid(
                f"Invalid value for parameter '{what}' supplied: {len(text)} characters, of at most {most}"
            )
    return ModelPoint(
        model=asked.model_id or "",
        run=run,
        point=point,
        dataset_name=asked.dataset_name or None,
        dataset_digest=asked.dataset_digest or None,
    )


def _dataset(asked: _DatasetInput) -> LoggedDataset:
    given = asked.dataset
    for what, text, most in (
        ("name", given.name, _MAX_DATASET_NAME),
        ("digest", given.digest, _MAX_DATASET_DIGEST),
        ("source", given.source, _MAX_SOURCE),
        ("schema", given.schema or "", _MAX_SCHEMA),
        ("profile", given.profile or "", _MAX_PROFILE),
        *((f"tag key {each.key[:20]!r}", each.key, _MAX_INPUT_TAG_NAME) for each in asked.tags),
        *((f"tag value of {each.key[:20]!r}", each.value, _MAX_INPUT_TAG_VALUE) for each in asked.tags),
    ):
        if len(text) > most:
            raise MlflowFault.invalid(
                f"the {what} of a dataset has {len(text)} characters, of at most {most}"
            )
    tags = {each.key: each.value for each in asked.tags}
    context = tags.pop(CONTEXT_TAG, None)
    return LoggedDataset(
        name=given.name,
        digest=given.digest,
        source_type=given.source_type,
        source=given.source,
        schema=given.schema,
        profile=given.profile,
        tags=tags,
        context=context,
    )
