"""How a trial stands, as a value."""

from datetime import datetime

import msgspec

from noria.deploy.bandit_moves import BanditState
from noria.deploy.canary import CanaryVerdict
from noria.deploy.experiments import ABVerdict
from noria.records import EventId

__all__ = ["TrialState"]


class TrialState(msgspec.Struct, frozen=True, kw_only=True):
    """What is on trial at a deployment, and what is known of it.

    Attributes
    ----------
    kind
        `canary`, `shadow`, `A/B test` or `bandit`.
    name
        Of the test or bandit; empty for others.
    since
        When it began, by the environment's clock.
    models
        Which model each release is of, the stable one first.
    shares
        The share of the traffic that each release answers; 0 for a shadow.
    found
        What outcomes say now; None where that is told by the server's counts only, or nothing is judged.
    told
        The same in a sentence: of `found`, or else of the last look on record.
    event
        The last look on record.
    """

    environment: str
    deployment: str
    kind: str
    name: str
    since: datetime
    models: dict[str, str]
    shares: dict[str, float]
    found: CanaryVerdict | ABVerdict | BanditState | None
    told: str
    event: EventId | None
