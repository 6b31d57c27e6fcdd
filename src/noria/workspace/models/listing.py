"""The model versions of a project by the names that people give them, with what is said of each."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import select

from noria.clock import parse_instant
from noria.database.lists import is_listed
from noria.errors import NotFound
from noria.ledger.rows import decode_json
from noria.ledger.tables import runs
from noria.registry.catalogue_tables import registry_questions
from noria.registry.records import ModelSummary

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["ListedModel", "list_by_name"]

_AT = "registered_at"  # of a version that came from elsewhere, when it was made there


class ListedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model version as a list shows it.

    Attributes
    ----------
    ref
        `NAME:3`, by the name that its model has now; that of the ledger where its label was deleted.
    name
        Of its model.
    model
        What is on record.
    at
        When it was made, also where that was elsewhere.
    metrics
        Those of the version; of one that has none, the last ones of the run that made it.
    """

    ref: str
    name: str
    model: ModelSummary
    at: datetime
    metrics: Mapping[str, float]
    stands_in: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    stage: str = "None"
    deleted_at: datetime | None = None

    @property
    def is_listed(self) -> bool:
        """Whether it is one that people look for: its label is there, or it answers somewhere."""
        return self.deleted_at is None or bool(self.stands_in)


def list_by_name(project: "Project", name: str | None = None) -> list[ListedModel]:
    """List model versions by name and number, also those whose labels were deleted.

    Parameters
    ----------
    name
        Only the versions of this model, by the name that is shown or on record.

    Raises
    ------
    NotFound
        If there is no such model.
    """
    from noria.workspace.status import deployments

    places: dict[str, list[str]] = {}
    for each in deployments(project.ledger):
        places.setdefault(each.model, []).append(each.environment)
        if each.on_trial is not None:
            places.setdefault(each.on_trial, []).append(f"{each.environment} (trial)")
    asked = registry_questions()
    with project.ledger.database.read() as connection:
        labels = {row.version: row for row in connection.execute(asked["registry_versions"])}
        aliases: dict[str, list[str]] = {}
        for row in connection.execute(asked["registry_aliases"]):
            aliases.setdefault(row.version, []).append(row.alias)
        summaries = project.registry.list_models()
        makers = {each.run for each in summaries if each.run is not None and not each.metrics}
        asked_runs = select(runs.c.id, runs.c.metrics).where(is_listed(runs.c.id, "runs"))
        of_runs = {
            row.id: decode_json(row.metrics)
            for row in connection.execute(asked_runs, {"runs": sorted(makers)})
        }
    listed = []
    for summary in summaries:
        label = labels.get(summary.id)
        is_labelled = label is not None and label.deleted_at is None
        shown = label.model if label is not None and is_labelled else summary.name
        number = label.number if label is not None and is_labelled else summary.number
        at = summary.facts.get(_AT)
        listed.append(
            ListedModel(
                ref=f"{shown}:{number}",
                name=shown,
                model=summary,
                at=parse_instant(at) if isinstance(at, str) else summary.at,
                metrics=summary.metrics or of_runs.get(summary.run or "", {}),
                stands_in=tuple(places.get(summary.ref, ())),
                aliases=tuple(aliases.get(summary.id, ())),
                stage="None" if label is None else label.stage,
                deleted_at=None if label is None else label.deleted_at,
            )
        )
    known = {each.name for each in listed}
    if name is not None and name not in known:
        known_too = {each.model.name for each in listed}
        if name not in known_too:
            raise NotFound("model", name, known)
    wanted = [each for each in listed if name in (None, each.name)]
    if not wanted:
        wanted = [each for each in listed if each.model.name == name]
    return sorted(wanted, key=lambda each: (each.name, each.model.name, each.model.number))
