"""Forgetting a subject: its rows, and all that was derived from them, store by store.

What is derived goes first and the dataset's own rows go last, so that whatever is killed, the same call finds
again what it has to look for, and completes it. Then what can be is made anew from what is left.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from noria.errors import LeaseHeld
from noria.lake.finding import Carrying
from noria.pipelines.holding import held
from noria.pipelines.pruning import refuse_while_at_work
from noria.workspace.forgetting.left import Left, Vocabularies
from noria.workspace.forgetting.records import Forgetting, Holding, Store, summed
from noria.workspace.forgetting.served import Online, Predictions, Routes, TrainingSets
from noria.workspace.forgetting.sets import KeptSets
from noria.workspace.forgetting.stores import (
    Asked,
    Blobs,
    Derived,
    Events,
    Own,
    Repairs,
    Results,
    Samples,
)
from noria.workspace.forgetting.trail import descend, find_trail
from noria.workspace.transforming import open_warehouse

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["forget_subject"]

_LEASE = "forget"


def forget_subject(
    project: "Project",
    dataset: str,
    column: str,
    values: Iterable[Any],
    *,
    reason: str,
    cause: str | None,
    dry_run: bool,
) -> Forgetting:
    """Take a subject out of everything; see `noria.workspace.data_verbs.DataVerbs.forget`."""
    if dry_run:
        asked = _asked(project, dataset, column, values, reason=reason, cause=cause)
        return _told(asked, [each for store in _stores(asked) for each in store.look()], is_dry=True)
    with held(project.ledger, _LEASE, wait=lambda _holder: None) as check:
        project.ledger.mark_killed()
        refuse_while_at_work(project.ledger)
        asked = _asked(project, dataset, column, values, reason=reason, cause=cause)
        holdings: list[Holding] = []
        for store in _stores(asked):
            check()
            holdings += store.forget()
        done = _told(asked, holdings, is_dry=False)
        _record(asked, done)
    return done


def _asked(
    project: "Project", dataset: str, column: str, values: Iterable[Any], *, reason: str, cause: str | None
) -> Asked:
    trail = find_trail(project, dataset, column, values)
    holding = {name: each.versions for name, each in trail.held.items()}
    for name, paths in trail.tables.items():
        holding[name] = project.lake.search(name, Carrying(paths)).versions
    descent = descend(project, [dataset, *trail.tables], holding)
    return Asked(project, trail, descent, reason, cause)


def _stores(asked: Asked) -> list[Store]:
    """Give what is dealt with, in order: see the head of this module."""
    return [
        Samples(asked),
        Results(asked),
        KeptSets(asked),
        Predictions(asked),
        Derived(asked),
        Events(asked),
        Blobs(asked),
        Own(asked),
        Repairs(asked),
        Online(asked),
        Models(asked),
        TrainingSets(asked),
        Routes(asked),
        Database(asked),
        Vocabularies(asked),
        Left(asked),
    ]


def _told(asked: Asked, holdings: list[Holding], *, is_dry: bool) -> Forgetting:
    return Forgetting(
        dataset=asked.trail.dataset,
        column=asked.trail.column,
        subjects=len(asked.trail.values),
        is_dry=is_dry,
        holdings=tuple(holdings),
        models=tuple(each.ref for each in asked.descent.of("model")),
    )


def _record(asked: Asked, done: Forgetting) -> None:
    """Put on record what was found and what is left, where anything was; no value of a row is in it."""
    if not any(each.state == "forgotten" and (each.held or each.versions) for each in done.holdings):
        return
    asked.project.ledger.append(
        "subject.forgotten",
        subject=done.dataset,
        payload={
            "column": done.column,
            "subjects": done.subjects,
            "found": summed(done.holdings),
            "left": [f"{each.kind} {each.name}" for each in done.left],
            "models": list(done.models),
            "reason": asked.reason,
        },
        cause=asked.cause,
    )


class Models:
    """Models of the warehouse that read the dataset: built anew where that is due.

    Rows that a transform of another process has put into them meanwhile are taken out before.
    """

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def look(self) -> Iterator[Holding]:
        """Name them."""
        for name in self._asked.trail.models:
            yield Holding(kind="model", name=name, state="rebuilt", told="it is built anew from what is left")

    def forget(self) -> Iterator[Holding]:
        """Build them."""
        asked, models = self._asked, self._asked.trail.models
        with suppress(LeaseHeld):  # who transforms right now has swept when it began
            open_warehouse(asked.project).sweep()
        if not models:
            return
        for table in models:
            paths = asked.trail.tables.get(table)
            if paths:
                asked.erase(table, Carrying(paths), kind="table")
        try:
            result = asked.project.transform(*models, ignore_blocked=True, cause=asked.cause)
        except LeaseHeld as err:
            told = f"{err}; run `noria transform` once it has ended"
            yield Holding(kind="model", name=", ".join(models), state="left", told=told)
            return
        for each in result.models:
            if each.model not in models:
                continue
            match each.state:
                case "built":
                    yield Holding(kind="model", name=each.model, state="rebuilt", told=each.reason)
                case "unchanged" | "view":
                    yield Holding(kind="model", name=each.model, state="nothing", told=each.reason)
                case _:
                    told = f"it could not be built anew and lacks rows until it is: {each.reason}"
                    yield Holding(kind="model", name=each.model, state="left", told=told)


class Database:
    """The ledger's database: what was deleted stays in its pages until it is written anew."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def look(self) -> Iterator[Holding]:
        """Say nothing: it is done where results are forgotten."""
        return iter(())

    def forget(self) -> Iterator[Holding]:
        """Write it anew."""
        asked = self._asked
        if not asked.descent.runs:
            return
        database = asked.project.ledger.database
        if not database.url.startswith("sqlite"):
            told = "small results that were kept go from its pages as PostgreSQL vacuums them"
            yield Holding(kind="database", name="ledger", state="left", told=told)
        elif database.scrub():
            yield Holding(kind="database", name="ledger", state="rebuilt", told="pages written anew")
        else:
            told = "somebody reads an older state of it: forget again once all other commands have ended"
            yield Holding(kind="database", name="ledger", state="left", told=told)
