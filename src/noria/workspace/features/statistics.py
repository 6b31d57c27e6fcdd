"""Statistics of features, of what a model learned from or of a frame at hand."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from noria.errors import ConfigError, SourceError
from noria.features.columns import instants
from noria.features.statistics.columns import columns_of
from noria.features.statistics.computing import statistics_of
from noria.lake.schema import as_table
from noria.records import canonical_json
from noria.training.statistics import read_statistics

if TYPE_CHECKING:
    from noria.features.statistics.records import SetStatistics
    from noria.lake.declarations import ArrowFrame
    from noria.workspace.project import Project

__all__ = ["statistics_of_frame", "statistics_of_model"]


def statistics_of_model(project: Project, reference: str) -> SetStatistics:
    """Give what the training of a model version kept. Raises `NotFound`, `DigestMismatch`."""
    return read_statistics(project.ledger, project.registry, project.model(reference))


def statistics_of_frame(frame: ArrowFrame, *, label: str | None, at: str | None) -> SetStatistics:
    """Compute statistics of a frame's columns; see `Features.statistics`."""
    rows = as_table(frame, name="set")
    if label is None:
        raise ConfigError("a frame is described beside its label; name its column: `label=...`")
    for name in (label, *(() if at is None else (at,))):
        if name not in rows.column_names:
            raise SourceError(f"the set has no column {name!r}; there is {', '.join(rows.column_names)}")
    when = None
    if at is not None:
        when = instants(rows, at)
        order = np.argsort(when, kind="stable")
        rows, when = rows.take(pa.array(order)), when[order]
        rows = rows.drop_columns([at])
    columns, left_out = columns_of(rows)
    found = next((each for each in columns if each.name == label), None)
    if found is None or found.kind == "instant":
        raise SourceError(f"the label {label!r} is {rows.schema.field(label).type}; wanted numbers or texts")
    features = [each for each in columns if each.name != label]
    # The label and the columns' names stand for the set: a digest of all bytes would cost more than it tells.
    digest = sha256(found.load().tobytes() + canonical_json(rows.column_names)).hexdigest()
    return statistics_of(features, found, at=when, seed=int(digest[:16], 16), left_out=left_out)
