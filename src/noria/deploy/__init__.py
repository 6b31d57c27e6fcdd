"""Into production and back: gates, releases, routes, canaries, rollbacks.

Declarations are here; the verbs are in `noria.deploy.gates`, `noria.deploy.canary`,
`noria.deploy.releases` and `noria.deploy.environments`.
"""

from noria.deploy.declarations import (
    Canary,
    Gate,
    at_least,
    at_most,
    beats_production,
    latency,
    no_leakage,
    samples_reproduced,
)

__all__ = [
    "Canary",
    "Gate",
    "at_least",
    "at_most",
    "beats_production",
    "latency",
    "no_leakage",
    "samples_reproduced",
]
