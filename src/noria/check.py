"""Every check that a project can declare, by what it judges.

Rows of a dataset: `between` `expression` `finite` `increasing` `length` `matches` `not_null` `one_of`
`references` `unique`; contracts of other libraries: `from_dataframely` `from_pandera`.
A batch of them: `aggregate` `fresh` `has_type` `rejected_share` `row_count`.
A version at a gate: `at_least` `at_most` `beats_production` `latency` `no_leakage` `samples_reproduced`.
A model at work: `calibration` `data_quality` `drift` `estimated_quality` `quality` `volume`.
"""

from noria.checks.adopted import from_dataframely, from_pandera
from noria.checks.declarations import (
    aggregate,
    between,
    expression,
    finite,
    fresh,
    has_type,
    increasing,
    length,
    matches,
    not_null,
    one_of,
    references,
    rejected_share,
    row_count,
    unique,
)
from noria.deploy.declarations import (
    at_least,
    at_most,
    beats_production,
    latency,
    no_leakage,
    samples_reproduced,
)
from noria.monitoring.declarations import (
    calibration,
    data_quality,
    drift,
    estimated_quality,
    quality,
    volume,
)

__all__ = [
    "aggregate",
    "at_least",
    "at_most",
    "beats_production",
    "between",
    "calibration",
    "data_quality",
    "drift",
    "estimated_quality",
    "expression",
    "finite",
    "fresh",
    "from_dataframely",
    "from_pandera",
    "has_type",
    "increasing",
    "latency",
    "length",
    "matches",
    "no_leakage",
    "not_null",
    "one_of",
    "quality",
    "references",
    "rejected_share",
    "row_count",
    "samples_reproduced",
    "unique",
    "volume",
]
