"""Who used a feature: plain values, as commands and the control plane tell them."""

from datetime import datetime

import msgspec

__all__ = ["DeploymentUse", "FeatureReaders", "ModelUse", "ReadCount", "RequestCount", "SetUse"]


class ModelUse(msgspec.Struct, frozen=True, kw_only=True):
    """A model version that was trained with the view: which definition, by which run, started by whom."""

    model: str
    definition: str
    run: str
    by: str
    at: datetime


class SetUse(msgspec.Struct, frozen=True, kw_only=True):
    """A training set that was made with the view."""

    training_set: str
    definition: str
    run: str
    by: str
    at: datetime


class DeploymentUse(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of time in which a deployment pointed to a release that looks the view up.

    Attributes
    ----------
    weight, mode
        The share of the requests that it got; `answer` or `shadow`.
    until
        None: it is so now.
    """

    environment: str
    deployment: str
    release: str
    model: str
    definition: str | None
    weight: float
    mode: str
    since: datetime
    until: datetime | None


class RequestCount(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that a deployment scored with the view on a day (UTC), of those that are in the lake."""

    environment: str
    deployment: str
    release: str
    day: str
    rows: int


class ReadCount(msgspec.Struct, frozen=True, kw_only=True):
    """Readings of online features on a day (UTC, wall).

    Attributes
    ----------
    who
        The user of the machine; over HTTP what the caller calls itself, which nobody has checked.
    how
        `get` or `trace`, `http get` or `http trace`.
    calls, entities
        How often, and of how many entities in all.
    """

    who: str
    how: str
    day: str
    calls: int
    entities: int
    last: datetime


class FeatureReaders(msgspec.Struct, frozen=True, kw_only=True):
    """All that used a view, or one feature of it, as far as it is on record.

    Attributes
    ----------
    trainings
        Those that declare it now.
    definitions
        On record with the feature in them, the oldest first.
    reads_since
        The oldest reading that the log still has; None if it has none.
    """

    view: str
    feature: str | None
    trainings: tuple[str, ...]
    definitions: tuple[str, ...]
    models: tuple[ModelUse, ...]
    training_sets: tuple[SetUse, ...]
    deployments: tuple[DeploymentUse, ...]
    requests: tuple[RequestCount, ...]
    reads: tuple[ReadCount, ...]
    reads_since: datetime | None
