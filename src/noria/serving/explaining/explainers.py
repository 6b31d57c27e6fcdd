"""What explains by a model: its library where that does, else sampled orders of its inputs."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from noria.errors import DigestMismatch, NoriaError
from noria.serving.compiled.plan import Plan
from noria.serving.compiled.scoring import PlanScorer
from noria.serving.explaining.compiled import PlanExplainer, is_separable
from noria.serving.explaining.native import LightgbmExplainer, XgboostExplainer
from noria.serving.explaining.records import Attributed, Explainer
from noria.serving.explaining.sampled import SampledExplainer, sample_rows
from noria.serving.formats.scorers import open_scorer
from noria.serving.models import LoadedModel, read_verified
from noria.serving.records import ServedModel
from noria.serving.rows import Rows, Scorer

__all__ = ["linked", "open_explainer"]

_LOG = logging.getLogger(__name__)
_TRIED_ROWS = 4
_CLOSE: Mapping[str, float] = {"xgboost": 1e-4}  # single precision
_VERY_CLOSE = 1e-9


def open_explainer(model: LoadedModel, *, folder: Path) -> Explainer:
    """Give what explains by a model. It holds what scores once more, as the model may be at work meanwhile.

    What a library gives is used where base and contributions make the score of the sample rows; else inputs
    are replaced.

    Parameters
    ----------
    folder
        Where relative paths of its files start.

    Raises
    ------
    DeploymentError
        If the model gives no number, or its file is not what it was.
    """
    served = model.served
    try:
        made = _exact(model, folder)
        if made is not None and _adds_up(made, served):
            return made
        reason = "no library computes it" if made is None else "what its library tells does not add up"
    except DigestMismatch:
        raise
    except NoriaError as err:
        reason = str(err)
    _LOG.info("%s:%d is explained by sampling: %s", served.model, served.version, reason)
    return SampledExplainer(served, _own_scorer(model, folder))


def _exact(model: LoadedModel, folder: Path) -> Explainer | None:
    served, scorer = model.served, model.scorer
    if served.format == "lightgbm":
        return LightgbmExplainer(served, _read(served, folder))
    if served.format == "xgboost":
        return XgboostExplainer(served, _read(served, folder))
    plan = _plan_of(scorer)
    return PlanExplainer(served, plan) if plan is not None and is_separable(plan) else None


def _plan_of(scorer: Scorer) -> Plan | None:
    return scorer.plan if isinstance(scorer, PlanScorer) else None


def _own_scorer(model: LoadedModel, folder: Path) -> Scorer:
    if not model.scorer.is_native:
        return model.scorer  # at work in the thread that explains, and in no other
    plan = _plan_of(model.scorer)
    if plan is not None:
        return PlanScorer(plan)
    return open_scorer(model.served, _read(model.served, folder), folder=folder)


def _read(served: ServedModel, folder: Path) -> bytes:
    if not served.path:
        return b""
    return read_verified(folder / served.path, served.digest, "the model file")


def _adds_up(explainer: Explainer, served: ServedModel) -> bool:
    rows = sample_rows(served)
    few = Rows(
        rows.matrix[:_TRIED_ROWS].copy(), {name: each[:_TRIED_ROWS] for name, each in rows.strings.items()}
    )
    found = explainer.attribute(few, is_time=lambda: True)
    if found.unit == "raw":
        return bool(np.isfinite(found.values).all())
    gap = np.abs(linked(found) - found.scores)
    scale = np.maximum(1.0, np.abs(found.scores))
    return bool((gap <= _CLOSE.get(served.format, _VERY_CLOSE) * scale).all())


def linked(found: Attributed) -> NDArray[np.float64]:
    """Give the scores that totals make; of `raw` ones the totals."""
    totals: NDArray[np.float64] = found.base + found.values.sum(axis=2)
    with np.errstate(over="ignore"):
        if found.unit == "log_odds":
            return np.asarray(1 / (1 + np.exp(-totals)))
        if found.unit == "log":
            return np.asarray(np.exp(totals))
        if found.unit == "logits":
            parts = np.exp(totals - totals.max(axis=1, keepdims=True))
            return np.asarray(parts / parts.sum(axis=1, keepdims=True))
    return totals
