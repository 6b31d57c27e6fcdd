"""The verb of a project that takes tables of the warehouse away."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from noria.workspace.features.sources import reads_table
from noria.workspace.opened import Opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from noria.warehouse.records import Dropped
    from noria.workspace.project import Project

__all__ = ["TableVerbs"]


class TableVerbs(Opened):
    """What `noria.workspace.project.Project` can do about tables whose model is gone."""

    def drop_table(self, name: str, *, reason: str, cause: str | None = None) -> Dropped:
        """Drop the table of a model that was removed. Its versions on record stay readable.

        Parameters
        ----------
        name
            Of the table.
        reason
            Why, for the record.
        cause
            The event that asked for it.

        Raises
        ------
        NotFound
            If there is no such table; says what exists.
        Conflict
            If a model of that name is declared, no model has made it, or something reads it.
        LeaseHeld
            If another process transforms right now.
        """
        from noria.warehouse.dropping import drop_table
        from noria.workspace.transforming import open_warehouse, tables_url

        project = cast("Project", self)
        return drop_table(
            open_warehouse(project),
            self.ledger,
            name,
            url=tables_url(project),
            readers=list(_readers(self, name)),
            reason=reason,
            cause=cause,
        )


def _readers(project: Opened, name: str) -> Iterator[str]:
    """Name what reads a table beside models: feature views, contracts that look keys up in it."""
    for view in project.declarations.views.values():
        if reads_table(cast("Project", project), view.spec(), name):
            yield f"the feature view {view.name!r}"
    for dataset in project.declarations.datasets.values():
        if any(rule.dataset == name for rule in dataset.checks):
            yield f"a check of the dataset {dataset.name!r}"
