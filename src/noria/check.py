"""Every check that a project can declare, by what it judges.

Rows of a dataset: `between` `expression` `matches` `not_null` `one_of` `unique`.
A version at a gate: `at_least` `at_most` `beats_production` `latency` `samples_reproduced`.
A model at work: `calibration` `data_quality` `drift` `estimated_quality` `quality` `volume`.
"""

from noria.checks.declarations import between, expression, matches, not_null, one_of, unique
from noria.deploy.declarations import at_least, at_most, beats_production, latency, samples_reproduced
from noria.monitoring.declarations import (
    calibration,
    data_quality,
    drift,
    estimated_quality,
    quality,
    volume,
)

__all__ = [
    "at_least",
    "at_most",
    "beats_production",
    "between",
    "calibration",
    "data_quality",
    "drift",
    "estimated_quality",
    "expression",
    "latency",
    "matches",
    "not_null",
    "one_of",
    "quality",
    "samples_reproduced",
    "unique",
    "volume",
]
