"""What is told of feature views: plain values, as commands print them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from noria.features.statistics.records import ViewStatistics

__all__ = [
    "BROKEN",
    "CHECKED",
    "Compared",
    "FeatureShown",
    "FoundOnDemand",
    "FoundView",
    "FoundViews",
    "Loaded",
    "OnDemandDetails",
    "Registered",
    "Traced",
    "ViewDetails",
    "ViewSummary",
]

CHECKED, BROKEN = "parity.checked", "parity.broken"  # verbs of events about what was served


class ViewSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One feature view at a glance.

    Attributes
    ----------
    online
        `current` if the online store holds it as it is declared, `other` if it holds another definition,
        `none` if it does not hold it.
    models
        The trainings that use it.
    owner, description, tags, freshness
        As they are declared.
    known_until, behind_s, is_stale
        Rows known by then count online; for how long something waits to be counted (0: nothing does, None:
        that is not known); whether for longer than `freshness` allows.
    """

    name: str
    source: str
    entity: tuple[str, ...]
    features: int
    online: str
    models: tuple[str, ...]
    owner: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    known_until: datetime | None = None
    behind_s: float | None = None
    freshness: str | None = None
    is_stale: bool = False


class FoundView(msgspec.Struct, frozen=True, kw_only=True):
    """A view that a search found; `features` are those that the words are about."""

    summary: ViewSummary
    features: tuple[str, ...]
    score: float


class FoundViews(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found, the best first; where that is nothing, words that may have been meant."""

    views: tuple[FoundView, ...]
    meant: tuple[str, ...]
    on_demand: tuple[FoundOnDemand, ...] = ()


class FeatureShown(msgspec.Struct, frozen=True, kw_only=True):
    """One feature: its rule, and its values of all entities as of the newest row.

    Attributes
    ----------
    missing
        How many entities have none.
    low, mean, high
        Of those that have one; None if none has.
    """

    name: str
    rule: str
    missing: int
    low: float | None
    mean: float | None
    high: float | None
    description: str | None = None


class ViewDetails(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to tell about one view.

    Attributes
    ----------
    entities
        How many the source has.
    as_of
        When the newest row of the source became known; None if there is no row.
    versions
        The model versions that were trained with it.
    definitions
        Its definitions on record, `NAME:NUMBER`, the newest first.
    statistics
        What was measured when the definition was put on record; None if nothing was.
    """

    summary: ViewSummary
    digest: str
    event_at: str
    known_at: str
    entities: int
    as_of: datetime | None
    features: tuple[FeatureShown, ...]
    versions: tuple[str, ...]
    definitions: tuple[str, ...] = ()
    statistics: ViewStatistics | None = None


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A view that was loaded into the online store: from how many rows, known until when."""

    view: str
    rows: int
    known_until: datetime | None


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """A view or an on-demand feature on record.

    Attributes
    ----------
    version
        `NAME:NUMBER`.
    statistics
        What was measured; None if nothing has landed, or it could not be, or it is computed on demand.
    reason
        Why it could not be measured.
    """

    view: str
    version: str
    statistics: ViewStatistics | None
    reason: str | None


class OnDemandDetails(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to tell about one on-demand feature.

    Attributes
    ----------
    fields
        Columns of the request that it reads.
    features
        Columns of views and of other on-demand features that it reads.
    errors
        `missing` or `refuse`: what becomes of a row for which its function raises.
    place
        File and line of its function.
    digest
        Of the definition, without the code of its function; each model version keeps that.
    versions
        The model versions that were trained with it, newest first.
    owner, tags
        As they are declared.
    definitions
        Its definitions on record, code and all, `NAME:NUMBER`, the newest first.
    """

    name: str
    description: str | None
    fields: tuple[str, ...]
    features: tuple[str, ...]
    outputs: tuple[str, ...]
    errors: str
    place: str
    digest: str
    models: tuple[str, ...]
    versions: tuple[str, ...]
    owner: str | None = None
    tags: tuple[str, ...] = ()
    definitions: tuple[str, ...] = ()


class FoundOnDemand(msgspec.Struct, frozen=True, kw_only=True):
    """An on-demand feature that a search found; `outputs` are those that the words are about."""

    details: OnDemandDetails
    outputs: tuple[str, ...]
    score: float


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """How the online values of a view agree with those computed offline.

    Attributes
    ----------
    entities, values
        How many were compared.
    different
        How many values are not the same: to the last bit, or what decays to a relative 1e-9.
    examples
        A few of them: entity, feature, online, offline.
    """

    view: str
    at: datetime
    entities: int
    values: int
    different: int
    examples: tuple[tuple[str, str, Any, Any], ...]


class Traced(msgspec.Struct, frozen=True, kw_only=True):
    """The rows that made an entity's features, and the features.

    Attributes
    ----------
    rows
        An Arrow table: rows of the source that were known, the newest event first.
    """

    view: str
    entity: Mapping[str, str]
    at: datetime
    values: Mapping[str, Any]
    rows: Any
