"""A prediction traced: to its model, its features, its raw rows, its code, who allowed it, and its money."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pyarrow as pa

from noria.audit.digests import digest_lines
from noria.audit.logs import find_outcome, find_prediction
from noria.audit.on_demand import compute_on_demand
from noria.audit.provenance import find_provenance, read_content, version_line
from noria.audit.raw import find_raw_rows
from noria.audit.records import DigestLine, Money, Outcome, Prediction, SpineRow, Trace
from noria.audit.tables import Tables, plain
from noria.deploy.releases import Release
from noria.errors import NoriaError, NotFound, StoreError
from noria.lake.store import Lake
from noria.ledger.store import Ledger
from noria.records import Version
from noria.registry.store import Registry
from noria.training.declarations import Training
from noria.value.declarations import Objective

__all__ = ["Trace", "trace", "verify_trace"]


def trace(
    prediction_id: str,
    *,
    ledger: Ledger,
    lake: Lake,
    registry: Registry,
    trainings: Mapping[str, Training],
    environment: str | None = None,
) -> Trace:
    """Trace a prediction down to its raw rows and up to its money; every digest is computed again.

    Features are recomputed from the raw rows with the definitions that the release holds, as of the
    prediction's instant; rows come from the first version of their dataset after it. On-demand features are
    computed by the code that was kept with the model. No model is loaded.

    Parameters
    ----------
    prediction_id
        As it was sent, or as it was given back with the answer.
    trainings
        The project's declarations by name: they say where the row that was predicted lies and what a
        decision pays. A model without one is traced without those.
    environment
        `production` or `production/late_arrival`, where several logged the same id. Default: the one that
        answered last.

    Raises
    ------
    NotFound
        If no such prediction was logged; says how ids look and how to list some.
    """
    found = find_prediction(prediction_id, ledger=ledger, lake=lake, environment=environment)
    asked, tables = found.prediction, found.tables
    known = find_provenance(ledger, asked)
    features, raw = find_raw_rows(known.content.views, asked, found.features, tables)
    features += compute_on_demand(
        known.content.on_demand,
        asked,
        found.features,
        features,
        views=known.content.views,
        model=known.model,
        registry=registry,
    )
    training = trainings.get(known.model.name)
    outcome = find_outcome(asked, tables)
    objective = None if training is None else training.objective
    made = Trace(
        prediction=asked,
        shadows=found.shadows,
        elsewhere=found.elsewhere,
        route=known.route,
        release=known.release,
        model=version_line(known.model),
        parts=_parts(registry, known.model),
        runs=known.runs,
        features=features,
        spine=None if training is None else _spine(training, asked, tables),
        raw=raw,
        verdicts=known.verdicts,
        outcome=outcome,
        money=None if objective is None else _money(objective, known.content.threshold, asked, outcome),
    )
    lines = digest_lines(made, ledger=ledger, lake=lake, tables=tables, raw=raw)
    return msgspec.structs.replace(made, digests=lines)


def verify_trace(
    trace: Trace, *, ledger: Ledger, lake: Lake, trainings: Mapping[str, Training] | None = None
) -> tuple[DigestLine, ...]:
    """Read again everything that a trace tells the digest of, and compute those digests anew.

    Parameters
    ----------
    trace
        Made a moment or years ago.
    trainings
        The project's declarations: with them, training sets are made again too. That takes as long as it
        took before the training.
    """
    tables = Tables(ledger, lake, trace.prediction.at)
    content = read_content(ledger.get_version_by_id(trace.release.version.id), Release)
    used = {each.name: each.used for each in trace.features}
    _, raw = find_raw_rows(content.views, trace.prediction, used, tables)
    return digest_lines(trace, ledger=ledger, lake=lake, tables=tables, raw=raw, trainings=trainings)


def _parts(registry: Registry, model: Version) -> dict[str, str]:
    """Give the digests of a model's parts; none where its manifest is damaged, which a digest line tells."""
    try:
        manifest = registry.read_manifest(model)
    except (NoriaError, msgspec.MsgspecError):
        return {}
    return {name: part.sha256 for name, part in manifest.parts.items()}


def _spine(training: Training, prediction: Prediction, tables: Tables) -> SpineRow:
    """Find the row that the prediction is about."""
    spine, source = training.spine, training.spine.source
    try:
        table = tables.dataset(source.name)
    except NotFound as error:
        return SpineRow(dataset=source.name, row=None, version=None, file=None, problem=str(error))
    version = None if table.version is None else version_line(table.version)
    problem: str | None = None
    row: dict[str, Any] | None = None
    file = None
    try:
        value = pa.scalar(prediction.id).cast(table.schema.field(spine.id).type)
        found = table.read_one(spine.id, value, source.event_at)
        if found.rows.num_rows:
            row = plain(found.dicts()[0])
            (file,) = table.file_lines(found.paths.slice(0, 1))
        else:
            problem = f"{source.name!r} has no row whose {spine.id!r} is {prediction.id!r}"
    except pa.ArrowInvalid:
        problem = f"{prediction.id!r} cannot be a {spine.id!r} of {source.name!r}"
    except StoreError as error:
        problem = str(error)
    return SpineRow(dataset=source.name, row=row, version=version, file=file, problem=problem)


def _money(
    objective: Objective, threshold: float | None, prediction: Prediction, outcome: Outcome | None
) -> Money:
    """Give what the decision paid: acted on above the threshold that the release had."""
    cut = objective.cut if threshold is None else threshold
    acted = prediction.score > cut
    happened = None if outcome is None else outcome.outcome
    if happened is None:
        return Money(
            decision=objective.decision, unit=objective.unit, threshold=cut, acted=acted,
            cell=None, value=None, baseline_value=None, gain=None,
        )  # fmt: skip
    cell = {(True, True): "tp", (True, False): "fp", (False, True): "fn", (False, False): "tn"}[
        acted, happened == 1
    ]
    always = objective.baseline == "always"
    baseline_cell = ("tp" if always else "fn") if happened == 1 else ("fp" if always else "tn")
    value, baseline = objective.payoff[cell], objective.payoff[baseline_cell]
    return Money(
        decision=objective.decision, unit=objective.unit, threshold=cut, acted=acted,
        cell=cell, value=value, baseline_value=baseline, gain=value - baseline,
    )  # fmt: skip
