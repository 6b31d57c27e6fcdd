"""Rows of a batch through a model: bound, joined with features, encoded and scored as a server does it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from noria.errors import DeploymentError, NoriaError, SourceError
from noria.features.on_demand_values import Computed
from noria.serving.binding import Bound
from noria.serving.features.looked_up import TextMatrix, matrices_of
from noria.serving.features.online import OnlineFeatures
from noria.serving.logs.log import PredictionFrame, ReleaseScores, redacted
from noria.serving.models import LoadedModel, Target, load_route
from noria.serving.records import Output
from noria.serving.rows import Rows, Values
from noria.serving.scoring import kept
from noria.workspace.predicting.columns import Reasons, bound_of, ids_of, instants_of
from noria.workspace.predicting.records import BatchPlan

if TYPE_CHECKING:
    from noria.features.view_plan import FeatureValues
    from noria.workspace.project import Project

__all__ = ["BatchScorer", "Scored", "output_schema", "over_limit"]

_ARROW = {"FP64": pa.float64(), "INT64": pa.int64(), "BOOL": pa.bool_(), "BYTES": pa.string()}
_MICROS = pa.timestamp("us", "UTC")


@dataclass(frozen=True, slots=True)
class Scored:
    """Rows of which all could be scored, and why the others could not.

    Attributes
    ----------
    good
        The places of those that could, among the rows given.
    table
        Their ids, the columns that go along, and what the model gave.
    log
        The same as the table `predictions` keeps them; None where nothing is logged.
    """

    good: NDArray[np.intp]
    table: pa.RecordBatch
    reasons: Reasons
    log: pa.Table | None
    failed: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Logged:
    """What the log is told of rows that were scored."""

    ids: pa.Array
    bound: Bound
    features: NDArray[np.float64]
    texts: TextMatrix
    computed: Sequence[Computed]  # also of rows that were not
    left: NDArray[np.intp]  # which of these were
    began: int


def output_schema(outputs: Sequence[Output], kept: Sequence[pa.Field]) -> pa.Schema:
    """Give the columns of the output: ids, what goes along, what the model gives."""
    made = [
        pa.field(
            each.name, pa.list_(_ARROW[each.datatype], each.width) if each.width else _ARROW[each.datatype]
        )
        for each in outputs
    ]
    return pa.schema([pa.field("prediction_id", pa.string()), *kept, *made])


def over_limit(plan: BatchPlan, why: str = "") -> str:
    """Say that more rows were rejected than may be, and maybe why one of them was."""
    rows = plan.rows + plan.unread
    return (
        f"more than {plan.most_rejected} of {rows} rows cannot be scored, which is the limit "
        f"(max_rejected={plan.max_rejected:g}){f'; one of them: {why}' if why else ''}. Correct them, or "
        "raise the limit (--max-rejected)"
    )


class BatchScorer:
    """One model, loaded and verified as a server loads it.

    Parameters
    ----------
    project
        Where the tables behind feature views are read, for features as of an instant; None where none are.
    """

    def __init__(self, plan: BatchPlan, *, project: "Project | None") -> None:
        self.plan = plan
        loaded = load_route(plan.route, folder=Path(plan.root))
        self.target: Target = loaded.targets[plan.route.deployment]
        self.model: LoadedModel = self.target.scoring[0]
        self._encoding = self.target.encodings[self.model.served.release]
        self._project = project
        self._online = None
        if self.target.views and plan.at is None:
            assert plan.online is not None  # the plan of a model with views names the store
            self._online = OnlineFeatures(plan.online, root=Path(plan.root))

    def schema(self, found: pa.Schema) -> pa.Schema:
        """Give the columns of the output for rows of these columns."""
        return output_schema(self.target.outputs, [found.field(name) for name in self.plan.keep])

    def score(self, batch: pa.RecordBatch, *, first: int, most_rejected: int) -> Scored:
        """Score rows.

        Parameters
        ----------
        first
            The number of the first, among all rows of the input.
        most_rejected
            Stop where more have to be rejected.

        Raises
        ------
        SourceError
            If more rows cannot be scored than may be.
        NoriaError
            If features cannot be had, or the model fails altogether.
        """
        began = time.time_ns() // 1_000
        reasons: Reasons = {}
        plan = self.plan
        bound = bound_of(batch, self.target.plan, reasons)
        ids = ids_of(batch, plan.id, prefix=plan.prefix, first=first, reasons=reasons)
        instants = None if plan.at is None else instants_of(batch, plan.at, reasons)
        good = _without(batch.num_rows, reasons)
        bound = bound.take(good.tolist()) if reasons else bound
        features, texts = self._features(
            bound, instants if instants is None else instants.take(pa.array(good))
        )
        computed = self._computed(bound, features)
        refused = self._refused(computed)
        by_name: Mapping[str, NDArray[np.float64]] = {}
        if self.model.on_demand is not None:
            by_name = self.model.on_demand.by_name(computed)
        rows = self._encoding.rows(bound, features, texts, by_name)
        there = _without(rows.count, refused)
        if refused:
            rows = _taken(rows, there)
        self._check_limit(len(reasons) + len(refused), most_rejected)
        found, failing = self._predict(rows, most_rejected - len(reasons) - len(refused))
        if refused or failing:
            left = there[_without(len(there), failing)]
            reasons |= {int(good[row]): why for row, why in refused.items()}
            reasons |= {int(good[there[row]]): why for row, why in failing.items()}
            good, bound = good[left], bound.take(left.tolist())
            features, texts = features[left], texts[left]
        else:
            left = there
        whole = len(good) == batch.num_rows
        taken = batch if whole else batch.take(pa.array(good))
        ids = ids if whole else ids.take(pa.array(good))
        table = self._table(ids, taken, found)
        log = None
        if plan.log:
            log = self._log(_Logged(ids, bound, features, texts, computed, left, began), found)
            if instants is not None:
                log = log.set_column(log.schema.get_field_index("at"), "at", instants.take(pa.array(good)))
        failed = {} if self.model.on_demand is None else self.model.on_demand.failed(computed)
        return Scored(good, table, reasons, log, failed)

    # -- features

    def _features(self, bound: Bound, instants: pa.Array | None) -> tuple[NDArray[np.float64], TextMatrix]:
        target, rows = self.target, bound.rows
        no_texts: TextMatrix = np.empty((rows, 0), dtype=np.object_)
        if not target.views:
            return np.empty((rows, 0)), no_texts
        if instants is not None:
            return matrices_of(target.views, self._as_of(bound, instants), rows)
        assert self._online is not None
        at = time.time_ns() // 1_000
        if self.plan.clock == "replay":
            position = self._online.position()
            if position is None:
                raise SourceError(
                    "the online store does not say at which instant of the replay it stands; name the column "
                    "of instants of the rows (`at`) to take features as of these"
                )
            at = position
        if target.reads_numbers_only:
            return self._online.read(target.views, bound.texts, at), no_texts
        return matrices_of(target.views, self._online.read_values(target.views, bound.texts, at), rows)

    def _as_of(self, bound: Bound, instants: pa.Array) -> "list[dict[str, FeatureValues]]":
        """Join features as they were known at each row's instant: what a training set holds."""
        from noria.features.joining import join_features
        from noria.workspace.features.sources import FeatureSources

        assert self._project is not None  # it is opened for a plan with instants
        views = self.target.views
        entities = dict.fromkeys(name for view in views for name in view.entity)
        spine = pa.table(
            {name: pa.array(bound.texts[name], pa.string()) for name in entities} | {"at": instants}
        )
        with FeatureSources(self._project, views) as sources:
            made = join_features(spine, views, read=sources, schema_of=sources.schema, by_entity=True)
        found: list[dict[str, FeatureValues]] = []
        for view in views:
            numbers = set(view.number_columns)
            found.append({
                name: made[name].to_numpy() if name in numbers else made[name].to_pylist()
                for name in view.columns
            })  # fmt: skip
        return found

    def _computed(self, bound: Bound, features: NDArray[np.float64]) -> list[Computed]:
        if self.model.on_demand is None:
            return []
        plan = self.target.plan
        numbers = {name: bound.numbers[:, plan.places[name].start] for name in plan.number_names}
        places = self.target.columns.releases[self.model.served.release]
        by_name = {name: features[:, column] for name, column in places}
        return self.model.on_demand.compute(bound.rows, numbers, bound.texts, by_name)

    def _refused(self, computed: Sequence[Computed]) -> Reasons:
        refused: Reasons = {}
        if self.model.on_demand is not None:
            for of, each in zip(self.model.on_demand.bounds, computed, strict=True):
                if of.spec.errors == "refuse":
                    for row, reason in zip(each.failed, each.reasons, strict=True):
                        refused.setdefault(row, f"on-demand feature {of.spec.name!r} fails: {reason}")
        return refused

    # -- scores

    def _predict(self, rows: Rows, most_rejected: int) -> tuple[list[Values], Reasons]:
        """Score rows; of a model in Python that fails, the rows by which it does are found and rejected."""
        if not rows.count:
            return [_nothing(each) for each in self.target.outputs], {}
        try:
            found = self.model.scorer.predict(rows)
            if any(len(values) != rows.count for values in found):
                counts = "/".join(str(len(each)) for each in found)
                raise DeploymentError(f"the model gave {counts} values for {rows.count} rows")
            return list(found), {}
        except NoriaError as err:
            if self.model.scorer.is_native:
                raise
            if rows.count == 1:
                self._check_limit(1, most_rejected, str(err))
                return [_nothing(each) for each in self.target.outputs], {0: str(err)}
        half = rows.count // 2
        low, bad = self._predict(_taken(rows, np.arange(half)), most_rejected)
        high, more = self._predict(_taken(rows, np.arange(half, rows.count)), most_rejected - len(bad))
        bad |= {half + row: why for row, why in more.items()}
        return [_behind(*each) for each in zip(low, high, strict=True)], bad

    def _check_limit(self, found: int, most: int, why: str = "") -> None:
        if found > most:
            raise SourceError(over_limit(self.plan, why))

    def _table(self, ids: pa.Array, taken: pa.RecordBatch, found: Sequence[Values]) -> pa.RecordBatch:
        schema = self.schema(taken.schema)
        along = [taken.column(name) for name in self.plan.keep]
        outputs = self.target.outputs
        made = [_array(*each) for each in zip(outputs, found, strict=True)]
        return pa.RecordBatch.from_arrays([ids, *along, *made], schema=schema)

    def _log(self, rows: "_Logged", found: Sequence[Values]) -> pa.Table:
        from noria.deploy.shipping import prediction_table

        served, plan, target = self.model.served, self.target.plan, self.target
        scores, others = kept(target.outputs, found)
        on_demand = self.model.on_demand
        release = ReleaseScores(
            release=served.release,
            model=served.model,
            version=served.version,
            scores=scores,
            answered=b"\x01" * rows.bound.rows,
            computed_names=() if on_demand is None else on_demand.columns,
            computed=b"" if on_demand is None else on_demand.matrix(rows.computed)[rows.left].tobytes(),
            outputs=others,
        )
        has_views = bool(target.views)
        route = self.plan.route
        frame = PredictionFrame(
            at=rows.began,
            recorded_at=time.time_ns() // 1_000,
            environment=route.environment,
            deployment=route.deployment,
            route=route.id,
            route_number=route.number,
            latency_us=0,
            ids=rows.ids.to_pylist(),
            digests=b"",
            texts=dict(rows.bound.texts),
            numbers={
                name: np.ascontiguousarray(rows.bound.numbers[:, place]).tobytes()
                for name, place in plan.places.items()
            },
            feature_names=target.columns.names if has_views else [],
            features=rows.features.tobytes() if has_views else b"",
            releases=[release],
            feature_texts=dict(zip(target.texts.names, rows.texts.T.tolist(), strict=True))
            if has_views
            else {},
        )
        if self.plan.redact:
            frame = redacted(frame, frozenset(self.plan.redact))
        table = prediction_table([frame])
        place = table.schema.get_field_index("latency_us")  # nobody waited for one row of a batch
        return table.set_column(place, "latency_us", pa.nulls(table.num_rows, pa.int64()))


def _without(rows: int, bad: Mapping[int, str]) -> NDArray[np.intp]:
    places = np.arange(rows)
    return np.delete(places, list(bad)) if bad else places


def _taken(rows: Rows, places: NDArray[Any]) -> Rows:
    wanted = places.tolist()
    strings = {name: [values[place] for place in wanted] for name, values in rows.strings.items()}
    return Rows(np.ascontiguousarray(rows.matrix[places]), strings)


def _nothing(output: Output) -> Values:
    if output.datatype == "BYTES":
        return []
    kind = {"FP64": np.float64, "INT64": np.int64, "BOOL": np.bool_}[output.datatype]
    return np.empty((0, output.width) if output.width else 0, dtype=kind)


def _behind(low: Values, high: Values) -> Values:
    if isinstance(low, np.ndarray) and isinstance(high, np.ndarray):
        return np.concatenate([low, high])
    return [*low, *high]


def _array(output: Output, values: Values) -> pa.Array:
    kind = _ARROW[output.datatype]
    if not output.width:
        return pa.array(values, kind, from_pandas=False)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1), kind, from_pandas=False)
    return pa.FixedSizeListArray.from_arrays(flat, output.width)
