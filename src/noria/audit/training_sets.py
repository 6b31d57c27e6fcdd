"""A training set made again from the lake, by the recipe of its version. Loads what training needs."""

from collections.abc import Mapping
from typing import Any

import pyarrow.dataset as ds

from noria.audit.tables import instant_scalar
from noria.clock import parse_instant
from noria.lake.store import Lake
from noria.replay.loop import feature_table
from noria.training.declarations import Training
from noria.training.sets import build_training_set, digest_of_set

__all__ = ["training_set_digest"]


def training_set_digest(training: Training, facts: Mapping[str, Any], lake: Lake) -> str:
    """Give the sha256 of the training set of `facts`: which rows, as of when.

    Raises
    ------
    NotFound
        If the table of feature rows or of labels is gone.
    SourceError
        If they can no longer be made a training set.
    """
    until = parse_instant(facts["until"])
    label = training.label
    known_at = label.source.known_at_column
    made = build_training_set(
        training,
        lake.read(feature_table(training.name), where=ds.field("at") < instant_scalar(until)),
        lake.read(
            label.source.name,
            columns=list(dict.fromkeys([label.on, label.column, known_at])),
            where=ds.field(known_at) < instant_scalar(until),
        ),
        until=until,
        since=_instant(facts["since"]),
        holdout_from=_instant(facts["holdout_from"]),
    )
    return digest_of_set(made.training, made.signature)


def _instant(text: str | None) -> Any:
    return None if text is None else parse_instant(text)
