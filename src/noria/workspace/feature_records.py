"""What is told of feature views: plain values, as commands print them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

__all__ = ["Compared", "FeatureShown", "Loaded", "Traced", "ViewDetails", "ViewSummary"]


class ViewSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One feature view at a glance.

    Attributes
    ----------
    online
        `current` if the online store holds it as it is declared, `other` if it holds another definition,
        `none` if it does not hold it.
    models
        The trainings that use it.
    """

    name: str
    source: str
    entity: tuple[str, ...]
    features: int
    online: str
    models: tuple[str, ...]


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
    """

    summary: ViewSummary
    digest: str
    event_at: str
    known_at: str
    entities: int
    as_of: datetime | None
    features: tuple[FeatureShown, ...]
    versions: tuple[str, ...]


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A view that was loaded into the online store: from how many rows, known until when."""

    view: str
    rows: int
    known_until: datetime | None


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
    examples: tuple[tuple[str, str, float | None, float | None], ...]


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
    values: Mapping[str, float | None]
    rows: Any
