"""What `noria model show` tells of a version beside its record: owner, labels, places, what it depends on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noria.explain.records import Explanation
    from noria.records import Version
    from noria.registry.cards import CarriedOver, WrittenCard
    from noria.registry.catalogue_records import CataloguedVersion, RegisteredModel
    from noria.workspace.models.history import PlacedStay
    from noria.workspace.project import Project

__all__ = ["Standing", "show_standing", "standing_of"]

_INPUTS = 10


@dataclass(frozen=True, slots=True)
class Standing:
    """A version as people and environments have it."""

    ref: str
    owner: str | None
    written: "WrittenCard | None"
    carried: "CarriedOver | None"
    label: "CataloguedVersion | None"
    registered: "RegisteredModel | None"  # the model that it is a version of
    stays: "list[PlacedStay]"
    explanation: "Explanation | None"

    def facts(self) -> dict[str, object]:
        """Give what stands at the top; None is left out."""
        label, registered = self.label, self.registered
        return {
            "owner": self.owner,
            "card": self._card(),
            "description": None if label is None else label.description or None,
            "aliases": None if label is None else ", ".join(label.aliases) or None,
            "tags": None if label is None else _told(label.tags),
            "of the model": None if registered is None else registered.description or None,
            "its tags": None if registered is None else _told(registered.tags),
            "label": f"deleted; `noria model undelete {self.ref}` takes that back" if label is None else None,
        }

    def as_json(self) -> dict[str, Any]:
        """Give all of it for programs."""
        return {
            "owner": self.owner,
            "card": self.written,
            "label": self.label,
            "registered": self.registered,
            "history": self.stays,
            "explanation": self.explanation,
        }

    def _card(self) -> str:
        command = f"`noria model card {self.ref}`"
        if self.written is not None:
            return f"{command}; {self.written.by} wrote {', '.join(self.written.sections) or 'nothing'}"
        if self.carried is not None:
            return f"{command}; what was written of {self.carried.of} is carried over, to be looked over"
        return f"{command}; nobody has written of it yet"


def standing_of(project: "Project", version: "Version") -> Standing:
    """Gather it. Raises `DigestMismatch` if a part is not what was recorded."""
    from noria.registry.cards import CardBook
    from noria.training.explanations import find_explanation, read_explanation
    from noria.workspace.models.cards import owner_of
    from noria.workspace.models.history import history_of
    from noria.workspace.models.names import find_label, reference_of

    book = CardBook(project.ledger, project.storage)
    written = book.find(version)
    carried = book.carried_over(version) if written is None else None
    label = find_label(project, version)
    explained = find_explanation(project.ledger, version)
    return Standing(
        ref=reference_of(project, version),
        owner=owner_of(project, version, label, written, carried),
        written=written,
        carried=carried,
        label=label,
        registered=None if label is None else project.models.registered(label.model),
        stays=history_of(project, [version]),
        explanation=None
        if explained is None
        else read_explanation(project.ledger, project.registry, version),
    )


def _told(tags: Mapping[str, str]) -> str | None:
    return "; ".join(f"{name} = {value}" for name, value in tags.items()) or None


def show_standing(found: Standing) -> None:
    """Write where it was, and what it depends on."""
    from noria.cli import screen
    from noria.cli.model_history import STAY_COLUMNS, stay_rows

    screen.heading("Where it is, and was")
    if found.stays:
        screen.table(list(STAY_COLUMNS[1:]), [row[1:] for row in stay_rows(found.stays)],
                     right=["share"], wrap="because")  # fmt: skip
    else:
        screen.line("It was never put up anywhere.")
    _show_explanation(found.explanation)


def _show_explanation(found: "Explanation | None") -> None:
    from noria.cli import screen
    from noria.workspace.models.explained import METHODS, UNITS, rows_told, shares_of

    screen.heading("What it depends on")
    if found is None:
        screen.line("No explanation was recorded of it.")
        return
    shares = shares_of(found)
    rows = [
        (
            each.name,
            f"{shares[each.name]:.1%}",
            f"{each.mean_absolute:.4f}",
            "-"
            if each.permuted is None
            else f"{each.permuted.mean:+.4f} ({each.permuted.low:+.4f} to {each.permuted.high:+.4f})",
        )
        for each in found.inputs[:_INPUTS]
    ]
    columns = ["input", "share", "adds, mean", "log loss when shuffled"]
    screen.table(columns, rows, right=columns[1:3])
    told = f"{METHODS[found.method]}, over {rows_told(found)}, in {UNITS[found.unit]}."
    if len(found.inputs) > _INPUTS:
        told += f" {len(found.inputs) - _INPUTS} more inputs add less than these."
    screen.line(told)
