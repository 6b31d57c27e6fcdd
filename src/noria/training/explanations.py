"""Explanations of models: made by every training over rows that were held back, kept as a version."""

from datetime import datetime

import msgspec

from noria.errors import NotFound
from noria.explain.explaining import explain_model
from noria.explain.records import Explanation
from noria.ledger.store import Ledger
from noria.records import RunId, Version, canonical_json
from noria.registry.records import ModelFormat
from noria.registry.store import Registry
from noria.training.sets import TrainingData
from noria.training.statistics import find_report

__all__ = ["find_explanation", "read_explanation", "record_explanation"]

_KIND = "explanation"
# Fewer rows of a larger model, so that an explanation costs about as much whatever was made.
_ROW_BYTES, _FEWEST_ROWS, _MOST_ROWS = 25_000_000, 60, 400
_PERMUTED_BYTES, _FEWEST_PERMUTED, _MOST_PERMUTED = 1_500_000_000, 120, 1_000


def record_explanation(
    data: TrainingData,
    model: Version,
    *,
    format: ModelFormat,
    model_bytes: bytes,
    run: RunId,
    ledger: Ledger,
    registry: Registry,
    cause: str | None = None,
    at: datetime | None = None,
) -> Version | None:
    """Keep what `model` depends on as an output of the run that trained it.

    What goes wrong does not take the model away: there is an event `model.unexplained` with the reason, and
    None is given. Calling it again for a run that was killed gives the same.

    Parameters
    ----------
    data : TrainingData
        Of its held-back rows some are looked at; where there are none, of those it learned from.
    format, model_bytes
        As `noria.registry.formats.dump_estimator` gives them.
    """
    held = data.holdout
    size, width = max(len(model_bytes), 1), len(data.signature.inputs)
    try:
        found = explain_model(
            format,
            model_bytes,
            data.signature,
            (data.training if held is None else held).X,
            model=model.sha256,
            y=None if held is None else held.y,
            rows=min(max(_ROW_BYTES // size, _FEWEST_ROWS), _MOST_ROWS),
            permuted_rows=min(max(_PERMUTED_BYTES // (size * width), _FEWEST_PERMUTED), _MOST_PERMUTED),
            seed=int(model.sha256[:12], 16),
        )
    except Exception as error:  # noqa: BLE001 - the model is made; what is missing is on record
        ledger.append(
            "model.unexplained",
            subject=model.ref,
            payload={"model": model.id, "reason": f"{type(error).__name__}: {error}"},
            cause=cause,
            key=f"{run}/unexplained",
            at=at,
        )
        return None
    return registry.record_report(
        _KIND,
        model.name,
        canonical_json(msgspec.to_builtins(found, enc_hook=float)),
        run=run,
        facts={"model": model.id, "method": found.method, "unit": found.unit, "rows": found.rows,
               "rows_from": found.rows_from},
        at=at,
    )  # fmt: skip


def find_explanation(ledger: Ledger, model: Version) -> Version | None:
    """Find the explanation that the training of a model version kept; None if it kept none."""
    return find_report(ledger, model, _KIND)


def read_explanation(ledger: Ledger, registry: Registry, model: Version) -> Explanation:
    """Give what a model version depends on, verified.

    Raises
    ------
    NotFound
        If its training kept none; a note says why, if it could not be computed.
    DigestMismatch
        If it is not what was recorded.
    """
    found = find_explanation(ledger, model)
    if found is None:
        error = NotFound(_KIND, model.ref, [each.ref for each in ledger.list_versions(kind=_KIND)])
        for event in ledger.list_events(verb="model.unexplained", subject=model.ref):
            error.add_note(f"It could not be computed: {event.payload['reason']}")
        raise error
    return msgspec.json.decode(registry.read_report(found), type=Explanation)
