"""Verbs of the project in the current folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from noria.lake.declarations import ArrowFrame
    from noria.training.declarations import Spine
    from noria.workspace.feature_on_demand import WantedFeature

__all__ = ["training_set"]


def training_set(
    spine: ArrowFrame | Spine | str,
    features: Sequence[WantedFeature],
    *,
    name: str = "training_set",
    at: str = "at",
    corrected: bool = False,
    rows_at_once: int | None = None,
    cause: str | None = None,
) -> pa.Table:
    """Join rows with features as they were known: `project.features.training_set` of the current folder.

    Parameters and errors are those of `noria.workspace.features.Features.training_set`.

    Raises
    ------
    ProjectNotFound
        If neither the folder nor one above it has a `noria.toml`.

    Examples
    --------
    ::

        rows = noria.training_set("select carrier, departed_at as at, late from flights", ["carrier"])
    """
    from noria.workspace.project import open

    with open() as project:
        return project.features.training_set(
            spine, features, name=name, at=at, corrected=corrected, rows_at_once=rows_at_once, cause=cause
        )
