"""What people wrote of model versions, kept as versions: the newest counts, all stay."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from noria.errors import Conflict
from noria.ledger.store import Ledger
from noria.ledger.versions import record_version
from noria.records import Version, VersionId, canonical_json
from noria.registry.card_text import checked_sections, in_order
from noria.storage.contract import Storage

__all__ = ["CARD_KIND", "CardBook", "CarriedOver", "WrittenCard"]

CARD_KIND = "model_card"


class WrittenCard(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wrote of a model version.

    Parameters
    ----------
    number
        Counts what was written of this version from 1.
    follows
        The number that it was written upon; 0: nothing had been written.
    sections
        By name.
    by, at, recorded_at
        Who wrote it, and when, by the project's clock and the wall's.
    """

    model: VersionId
    number: int
    follows: int
    sections: dict[str, str]
    by: str
    at: datetime
    recorded_at: datetime


class CarriedOver(msgspec.Struct, frozen=True, kw_only=True):
    """What was written of an earlier version, where nothing is of this one."""

    of: str  # NAME:3
    card: WrittenCard


class CardBook:
    """Cards of the model versions of a project. Safe to use from many threads and processes."""

    def __init__(self, ledger: Ledger, storage: Storage) -> None:
        self._ledger, self._storage = ledger, storage

    def find(self, model: Version) -> WrittenCard | None:
        """Give what was last written of a version, verified; None if nothing was."""
        found = self._kept(model)
        return self._read(found[-1]) if found else None

    def history(self, model: Version) -> list[WrittenCard]:
        """Give all that was written of a version, oldest first. Raises `DigestMismatch`."""
        return [self._read(each) for each in self._kept(model)]

    def carried_over(self, model: Version) -> CarriedOver | None:
        """Give what was written of the nearest earlier version of the same name, if it says anything."""
        newest = {each.facts["model"]: each for each in self._ledger.list_versions(kind=CARD_KIND)}
        earlier = [each for each in newest.values() if _is_earlier(each, model)]
        if not earlier:
            return None
        nearest = max(earlier, key=lambda each: _number(each.facts["model"]))
        card = self._read(nearest)
        return CarriedOver(of=f"{model.name}:{_number(card.model)}", card=card) if card.sections else None

    def put(
        self,
        model: Version,
        sections: Mapping[str, str | None],
        *,
        replace: bool = False,
        based_on: int | None = None,
        actor: str | None = None,
        at: datetime | None = None,
    ) -> WrittenCard:
        """Keep what somebody writes of a version; what is there already in these words is given as it is.

        Parameters
        ----------
        sections
            By name. None or a blank text takes a section away.
        replace
            These are all sections; else others stay as they are.
        based_on
            The number of what the writer had read, 0 if there was nothing.
        actor
            Who writes; default: the account of this process.

        Raises
        ------
        Conflict
            If somebody has written since `based_on`.
        ConfigError
            If it cannot be kept; see `checked_sections`.
        """
        given = checked_sections({name: text or "" for name, text in sections.items()})
        named = set(checked_sections(dict.fromkeys(sections, "-")))
        with self._ledger.change(at, actor=actor) as change:
            kept = self._kept(model)
            last = self._read(kept[-1]) if kept else None
            standing = 0 if last is None else last.number
            if based_on is not None and based_on != standing:
                who = "nobody has written it" if last is None else f"{last.by} wrote {last.number} since"
                raise Conflict(
                    f"the card of {model.ref} was edited from what was written as {based_on}, and {who}; "
                    "print it again (`noria model card`) and put your words into that"
                )
            others = {} if replace or last is None else last.sections
            whole = checked_sections(
                {**{name: text for name, text in others.items() if name not in named}, **given}
            )
            if last is not None and last.sections == whole:
                return last
            content = {"model": model.id, "follows": standing, "by": change.actor, "sections": whole}
            sha256 = self._storage.put(canonical_json(content))
            version = record_version(
                change,
                kind=CARD_KIND,
                name=_name(model),
                sha256=sha256,
                uri=self._storage.uri(sha256),
                run=None,
                facts={"model": model.id, "follows": standing, "by": change.actor, "sections": sorted(whole)},
                cause=None,
            )
            payload = {"card": version.id, "sections": sorted(whole), "follows": standing}
            change.record("model_card.written", model.ref, payload=payload, cause=None)
            return self._read(version)

    def _kept(self, model: Version) -> list[Version]:
        return self._ledger.list_versions(kind=CARD_KIND, name=_name(model))

    def _read(self, version: Version) -> WrittenCard:
        facts = msgspec.json.decode(self._storage.get(version.sha256))
        return WrittenCard(
            model=facts["model"],
            number=version.number,
            follows=facts["follows"],
            sections=in_order(facts["sections"]),
            by=facts["by"],
            at=version.at,
            recorded_at=version.recorded_at,
        )


def _name(model: Version) -> str:
    """Give the name under which cards of a version are counted; the last dot stands before its number."""
    return f"{model.name}.{model.number}"


def _number(id: str) -> int:
    return int(id.rpartition(":")[2])


def _is_earlier(card: Version, model: Version) -> bool:
    name, _, number = model.id.rpartition(":")
    return card.facts["model"].rpartition(":")[0] == name and _number(card.facts["model"]) < int(number)
